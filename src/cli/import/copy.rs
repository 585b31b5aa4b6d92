//! Carrying an import out. Its destination is no log directory until all is there and synced: first comes a file that says so,
//! last go the properties that make it one, and then that file. Whatever interrupts it, the next import begins again.

use std::fs::{self, File, FileTimes};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::{Plan, size};
use crate::log::directory::{
    CLEAN_FILE, IMPORT_FILE, LOCK_FILE, LOG_STARTS_FILE, PROPERTIES_FILE, RECOVERY_POINTS_FILE,
};
use crate::log::{checkpoint, parse_folder};
use crate::storage::{Disk, Durability, Lock, StdDisk, read_file, replace_file};
use crate::uuid::Uuid;

/// Bytes that are read at once; those that are all zero become a hole.
const BLOCK_BYTES: usize = 64 << 10;

/// Checkpoints that come along. The high watermarks do not: of one replica all is committed.
const CHECKPOINTS: [&str; 3] = [RECOVERY_POINTS_FILE, LOG_STARTS_FILE, "cleaner-offset-checkpoint"];

/// Why a copy is refused or has failed.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum CopyError {
    #[error("{}: not empty: it has {example:?}; an import needs a directory that is new or empty", path.display())]
    NotEmpty { path: PathBuf, example: String },
    #[error("{}: in use", .0.display())]
    InUse(PathBuf),
    #[error("{}: within what is to be imported", .0.display())]
    Within(PathBuf),
    #[error("{}: of an interrupted import of something else; remove the directory, or name another", .0.display())]
    OtherImport(PathBuf),
    #[error("{}: {} are needed, {} are free", path.display(), size(*needed), size(*free))]
    NoSpace { path: PathBuf, needed: u64, free: u64 },
    #[error("{}: {source}", path.display())]
    Disk { path: PathBuf, source: io::Error },
}

/// An import that may be carried out.
pub(super) struct Import<'p> {
    plan: &'p Plan,
    destination: &'p Path,
    /// What the file says that is there while it goes on.
    marker: String,
}

impl<'p> Import<'p> {
    /// Looks at the destination, which need not be there.
    pub(super) fn check(plan: &'p Plan, destination: &'p Path) -> Result<Self, CopyError> {
        let mut marker = format!("cluster.id={}\n", plan.identity.cluster_id);
        for source in &plan.sources {
            let source = absolute(source)?;
            if absolute(destination)?.starts_with(&source) {
                return Err(CopyError::Within(destination.to_owned()));
            }
            marker.push_str(&format!("from={}\n", source.display()));
        }
        let import = Self { plan, destination, marker };
        let names = import.names()?;
        if names.iter().any(|name| name == IMPORT_FILE) {
            let path = destination.join(IMPORT_FILE);
            let found = read_file(&StdDisk, &path, 64 << 10).map_err(failed(&path))?;
            // An import that died at its very begin has said nothing yet.
            if !found.is_empty() && found != import.marker.as_bytes() {
                return Err(CopyError::OtherImport(path));
            }
        } else if let Some(other) =
            names.into_iter().find(|name| ![LOCK_FILE, "lost+found"].contains(&name.as_str()))
        {
            return Err(CopyError::NotEmpty { path: destination.to_owned(), example: other });
        }
        import.check_space()?;
        Ok(import)
    }

    fn names(&self) -> Result<Vec<String>, CopyError> {
        match StdDisk.list(self.destination) {
            Ok(entries) => Ok(entries.into_iter().map(|entry| entry.name).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(failed(self.destination)(error)),
        }
    }

    fn check_space(&self) -> Result<(), CopyError> {
        let there = absolute(self.destination)?;
        let Some(existing) = there.ancestors().find(|path| path.is_dir()) else { return Ok(()) };
        let system = rustix::fs::statvfs(existing).map_err(|errno| failed(existing)(errno.into()))?;
        let (needed, free) = (self.plan.bytes, system.f_bavail.saturating_mul(system.f_frsize));
        match needed > free {
            true => Err(CopyError::NoSpace { path: self.destination.to_owned(), needed, free }),
            false => Ok(()),
        }
    }

    /// Does it. When this returns, all of it is on the disk.
    pub(super) fn run(&self) -> Result<(), CopyError> {
        let to = self.destination;
        fs::create_dir_all(to).map_err(failed(to))?;
        let _lock = self.lock()?;
        replace_file(&StdDisk, &to.join(IMPORT_FILE), self.marker.as_bytes(), Durability::Now)
            .map_err(failed(&to.join(IMPORT_FILE)))?;
        // What an import before this one has copied may be older than what is to be copied now.
        for name in self.names()?.iter().filter(|name| parse_folder(name).is_some()) {
            fs::remove_dir_all(to.join(name)).map_err(failed(&to.join(name)))?;
        }
        for (name, from) in &self.plan.folders {
            copy_folder(from, &to.join(name))?;
        }
        for name in CHECKPOINTS {
            self.copy_checkpoint(name)?;
        }
        let clean = to.join(CLEAN_FILE);
        match (self.plan.was_clean, self.plan.sources.first()) {
            (true, Some(source)) => copy_file(&source.join(CLEAN_FILE), &clean)?,
            _ => remove_if_there(&clean)?,
        }
        let properties = to.join(PROPERTIES_FILE);
        replace_file(&StdDisk, &properties, self.properties()?.as_bytes(), Durability::Now)
            .map_err(failed(&properties))?;
        remove_if_there(&to.join(IMPORT_FILE))?;
        StdDisk.sync_dir(to).map_err(failed(to))?;
        // Its own name, if it is new.
        match to.parent() {
            Some(parent) if parent.as_os_str().is_empty() => StdDisk.sync_dir(Path::new(".")),
            Some(parent) => StdDisk.sync_dir(parent),
            None => Ok(()),
        }
        .map_err(failed(to))
    }

    /// Those of Kafka to the letter, but for the id of the directory: it is another one of the same node.
    fn properties(&self) -> Result<String, CopyError> {
        let path = self.plan.sources[0].join(PROPERTIES_FILE);
        let bytes = read_file(&StdDisk, &path, 64 << 10).map_err(failed(&path))?;
        let line = |line: &str| match line.starts_with("directory.id=") {
            true => format!("directory.id={}\n", Uuid::random()),
            false => format!("{line}\n"),
        };
        Ok(String::from_utf8_lossy(&bytes).lines().map(line).collect())
    }

    fn lock(&self) -> Result<Box<dyn Lock>, CopyError> {
        let path = self.destination.join(LOCK_FILE);
        let lock = StdDisk.try_lock(&path).map_err(failed(&path))?;
        lock.ok_or_else(|| CopyError::InUse(self.destination.to_owned()))
    }

    /// One checkpoint of the entries that those of all directories have.
    fn copy_checkpoint(&self, name: &str) -> Result<(), CopyError> {
        let mut entries = Vec::new();
        for source in &self.plan.sources {
            let path = source.join(name);
            match read_file(&StdDisk, &path, checkpoint::LIMIT_BYTES) {
                // Behind the version and the count.
                Ok(bytes) => {
                    entries.extend(String::from_utf8_lossy(&bytes).lines().skip(2).map(str::to_owned));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(&path)(error)),
            }
        }
        let path = self.destination.join(name);
        let text = checkpoint::render(entries.iter());
        replace_file(&StdDisk, &path, text.as_bytes(), Durability::Now).map(drop).map_err(failed(&path))
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> CopyError {
    let path = path.to_owned();
    move |source| CopyError::Disk { path: path.clone(), source }
}

/// As the system sees it, symbolic links followed as far as there is something.
fn absolute(path: &Path) -> Result<PathBuf, CopyError> {
    let path = std::path::absolute(path).map_err(failed(path))?;
    let real = |ancestor: &Path| {
        let rest = path.strip_prefix(ancestor).ok()?;
        // Component by component: joined to nothing a path would end with a slash.
        Some(fs::canonicalize(ancestor).ok()?.iter().chain(rest).collect())
    };
    Ok(path.ancestors().find_map(real).unwrap_or_else(|| path.clone()))
}

fn remove_if_there(path: &Path) -> Result<(), CopyError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path)(error)),
        _ => Ok(()),
    }
}

/// Copies the files of a partition. What a deletion has left is none of them; what a cleaning has left, recovery knows to judge.
fn copy_folder(from: &Path, to: &Path) -> Result<(), CopyError> {
    fs::create_dir(to).map_err(failed(to))?;
    for entry in StdDisk.list(from).map_err(failed(from))? {
        let passing = [".deleted", ".tmp"].iter().any(|suffix| entry.name.ends_with(suffix));
        if !entry.is_dir && !passing {
            copy_file(&from.join(&entry.name), &to.join(&entry.name))?;
        }
    }
    StdDisk.sync_dir(to).map_err(failed(to))
}

/// Copies bytes, holes and the time of the last change, by which old segments are told; and syncs them. Never by reference: what
/// is appended to one file must not depend on the other.
fn copy_file(from: &Path, to: &Path) -> Result<(), CopyError> {
    let mut source = File::open(from).map_err(failed(from))?;
    let metadata = source.metadata().map_err(failed(from))?;
    let mut file = File::create(to).map_err(failed(to))?;
    let mut block = vec![0; BLOCK_BYTES];
    let mut length = 0;
    loop {
        let read = match source.read(&mut block) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(from)(error)),
        };
        let written = match block[..read].iter().all(|byte| *byte == 0) {
            true => file.seek(SeekFrom::Current(read as i64)).map(drop),
            false => file.write_all(&block[..read]),
        };
        written.map_err(failed(to))?;
        length += read as u64;
    }
    file.set_len(length).map_err(failed(to))?;
    let modified = metadata.modified().map_err(failed(from))?;
    file.set_times(FileTimes::new().set_modified(modified)).map_err(failed(to))?;
    file.sync_all().map_err(failed(to))
}
