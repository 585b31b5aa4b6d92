//! `ottla import`: copies what a broker of Apache Kafka has stored into a directory for Ottla, after saying what that is.

mod copy;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use self::copy::{CopyError, Import};
use super::output::{NOTHING, print_table};
use super::{CommandError, EXIT_CODES, REFUSED, USER_ERROR};
use crate::catalog::state::{CLUSTER_METADATA, CONSUMER_OFFSETS};
use crate::catalog::takeover::{TakenTopic, Takeover, TakeoverError};
use crate::log::directory::{CLEAN_FILE, LOCK_FILE, PROPERTIES_FILE};
use crate::log::{Identity, LogError, OpenDirectoryError, parse_folder, topic_id_of};
use crate::storage::{Disk, Lock, StdDisk};

const EXAMPLES: &str = "\
Examples:
  ottla import --from-kafka /var/lib/kafka --dry-run
  ottla import --from-kafka /var/lib/kafka --data data

Stop the Kafka broker first. Nothing is changed in its directory: all is copied, into a directory that is new or empty. An
import that was interrupted leaves a directory that no broker opens; run it again. Where no copy is wanted, and there is a
backup, `ottla --data DIR` on Kafka's own directory serves it as it is.";

#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(super) struct Flags {
    /// The log directory of a Kafka broker; repeatable for one that has several (log.dirs, metadata.log.dir)
    #[arg(long, value_name = "DIR", required = true)]
    from_kafka: Vec<PathBuf>,
    /// Make this directory, to be served by `ottla --data DIR`
    #[arg(long, value_name = "DIR", default_value = "data")]
    data: PathBuf,
    /// Say what would be taken, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do it without asking
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
}

/// Why nothing, or not all, was imported.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImportError {
    #[error("{}: not a log directory of Kafka: it has no {PROPERTIES_FILE}", .0.display())]
    NotKafka(PathBuf),
    #[error("{}: in use; stop its broker first", .0.display())]
    InUse(PathBuf),
    #[error("{}: of another broker than {}", other.display(), first.display())]
    TwoBrokers { first: PathBuf, other: PathBuf },
    #[error(transparent)]
    Directory(#[from] OpenDirectoryError),
    #[error(transparent)]
    Takeover(#[from] TakeoverError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("{}: {source}", path.display())]
    Disk { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Copy(#[from] CopyError),
    #[error("nothing was imported: say yes, or --yes")]
    NotWanted,
}

impl ImportError {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Takeover(TakeoverError::OldFormat { .. }) => REFUSED,
            _ => USER_ERROR,
        }
    }
}

/// What is to be imported. While it lives, no broker starts in the directories.
pub(super) struct Plan {
    sources: Vec<PathBuf>,
    identity: Identity,
    takeover: Takeover,
    /// Folders to copy, with their names.
    folders: BTreeMap<String, PathBuf>,
    bytes: u64,
    /// By topic.
    topic_bytes: BTreeMap<String, u64>,
    was_clean: bool,
    _locks: Vec<Box<dyn Lock>>,
}

pub(super) fn run(flags: &Flags) -> Result<(), CommandError> {
    let plan = Plan::make(&flags.from_kafka)?;
    let mut out = io::stdout().lock();
    plan.print(&mut out).map_err(CommandError::Output)?;
    if flags.dry_run {
        return Ok(());
    }
    let import = Import::check(&plan, &flags.data).map_err(ImportError::from)?;
    if !flags.yes {
        write!(out, "\nCopy {} to {}? [y/N] ", size(plan.bytes), flags.data.display())
            .and_then(|()| out.flush())
            .map_err(CommandError::Output)?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).map_err(CommandError::Output)?;
        if !matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
            return Err(ImportError::NotWanted.into());
        }
    }
    import.run().map_err(ImportError::from)?;
    let node = match plan.identity.node_id {
        1 => String::new(),
        other => format!(" --set node.id={other}"),
    };
    writeln!(out, "\nImported. Serve it: ottla --data {}{node}", flags.data.display())
        .map_err(CommandError::Output)
}

impl Plan {
    fn make(sources: &[PathBuf]) -> Result<Self, ImportError> {
        let mut locks = Vec::new();
        let mut identity: Option<Identity> = None;
        for path in sources {
            let found = Identity::read(&StdDisk, path)?.ok_or_else(|| ImportError::NotKafka(path.clone()))?;
            let same =
                |first: &Identity| (first.cluster_id, first.node_id) == (found.cluster_id, found.node_id);
            if identity.as_ref().is_some_and(|first| !same(first)) {
                return Err(ImportError::TwoBrokers { first: sources[0].clone(), other: path.clone() });
            }
            identity.get_or_insert(found);
            locks.extend(lock(path)?);
        }
        // The command line gives one directory at least.
        let identity = identity.ok_or_else(|| ImportError::NotKafka(PathBuf::new()))?;
        let takeover = Takeover::read(&StdDisk, sources, identity.node_id)?;
        let was_clean = sources.iter().all(|source| source.join(CLEAN_FILE).exists());
        let mut plan = Self {
            sources: sources.to_vec(),
            identity,
            takeover,
            folders: BTreeMap::new(),
            bytes: 0,
            topic_bytes: BTreeMap::new(),
            was_clean,
            _locks: locks,
        };
        for source in sources {
            plan.find_folders(source)?;
        }
        Ok(plan)
    }

    /// The folders of what is taken, and the metadata log, which the first start reads.
    fn find_folders(&mut self, source: &Path) -> Result<(), ImportError> {
        for (name, path) in list(source)? {
            let Some((topic, _)) = parse_folder(&name).filter(|_| path.is_dir()) else { continue };
            let taken = self.takeover.topics.iter().find(|taken| taken.name == topic);
            let is_wanted = match taken {
                Some(taken) => topic_id_of(&StdDisk, &path)?.is_none_or(|id| id == taken.id),
                None => topic == CLUSTER_METADATA,
            };
            if is_wanted {
                let mut bytes = 0;
                for (_, file) in list(&path)? {
                    let failed = |source| ImportError::Disk { path: file.clone(), source };
                    // What is allocated: indexes of a running broker are mostly holes.
                    bytes += std::os::unix::fs::MetadataExt::blocks(&file.metadata().map_err(failed)?) * 512;
                }
                self.bytes += bytes;
                *self.topic_bytes.entry(topic).or_default() += bytes;
                self.folders.insert(name, path);
            }
        }
        Ok(())
    }

    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let Identity { cluster_id, node_id, .. } = self.identity;
        for source in &self.sources {
            writeln!(out, "From {}, cluster {cluster_id}, node {node_id}", source.display())?;
        }
        if !self.was_clean {
            writeln!(
                out,
                "It was not stopped cleanly: the first start recovers it, and says what it has to cut."
            )?;
        }
        let (topics, partitions) = (self.takeover.topics.len(), self.takeover.partitions());
        writeln!(out, "\nTaken: {topics} topics, {partitions} partitions, {}, with their", size(self.bytes))?;
        writeln!(
            out,
            "ids, records, timestamps, leader epochs, first offsets, idempotent producers and configs."
        )?;
        let row = |topic: &TakenTopic| {
            let configs: Vec<String> =
                topic.configs.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let configs = if configs.is_empty() { NOTHING.to_owned() } else { configs.join(" ") };
            let bytes = self.topic_bytes.get(&topic.name).copied().unwrap_or_default();
            vec![topic.name.clone(), topic.partitions.to_string(), size(bytes), topic.id.to_string(), configs]
        };
        let rows = self.takeover.topics.iter().map(row).collect();
        print_table(out, &["TOPIC", "PARTITIONS", "SIZE", "ID", "CONFIGS"], rows, "  ")?;
        if self.takeover.topics.iter().any(|topic| topic.name == CONSUMER_OFFSETS) {
            writeln!(out, "Committed offsets and groups come with {CONSUMER_OFFSETS}.")?;
        }
        for (broker, configs) in &self.takeover.broker_configs {
            let whose = if broker.is_empty() { "all nodes" } else { "this node" };
            writeln!(out, "Dynamic configs of {whose}: {configs:?}")?;
        }
        writeln!(out, "\nNot taken:")?;
        let mut told = BTreeSet::new();
        for what in &self.takeover.not_taken {
            let line = what.to_string();
            if told.insert(line.clone()) {
                writeln!(out, "  {line}")?;
            }
        }
        out.flush()
    }
}

/// Keeps a broker from starting there; `None` where no broker has ever been.
fn lock(directory: &Path) -> Result<Option<Box<dyn Lock>>, ImportError> {
    let path = directory.join(LOCK_FILE);
    match StdDisk.try_lock_shared(&path) {
        Ok(Some(lock)) => Ok(Some(lock)),
        Ok(None) => Err(ImportError::InUse(directory.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ImportError::Disk { path, source }),
    }
}

/// What is in a folder, by name.
fn list(folder: &Path) -> Result<Vec<(String, PathBuf)>, ImportError> {
    let listed = |source| ImportError::Disk { path: folder.to_owned(), source };
    let entries = StdDisk.list(folder).map_err(listed)?;
    Ok(entries.into_iter().map(|entry| (entry.name.clone(), folder.join(entry.name))).collect())
}

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut amount, mut unit) = (bytes as f64, 0);
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        (amount, unit) = (amount / 1024.0, unit + 1);
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{amount:.1} {}", UNITS[unit]) }
}
