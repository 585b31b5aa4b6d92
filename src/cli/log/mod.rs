//! `ottla log`: looks into the files of a log directory, Ottla's or Apache Kafka's.

mod batches;
mod committed;
mod file;
mod indexes;
mod small;

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use self::file::{Kind, ReadFile};
use super::output::print_json;
use super::{CommandError, EXIT_CODES, REFUSED, USER_ERROR};
use crate::log::Damage;

const EXAMPLES: &str = "\
Examples:
  ottla log dump data/letters-0/00000000000000000000.log --records
  ottla log dump data/letters-0/*.index data/letters-0/leader-epoch-checkpoint
  ottla log dump --verify data/*/*.log

Reads .log .index .timeindex .snapshot leader-epoch-checkpoint and partition.metadata. The records of __consumer_offsets are
shown as what they mean. --verify compares every checksum,
looks at every record, and compares a .log with the indexes beside it, instead of printing what is there.";

#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"), arg_required_else_help = false)]
pub(super) struct Flags {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Print what is in files of a log directory, or verify it
    #[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
    Dump(DumpFlags),
}

#[derive(Args, Debug)]
struct DumpFlags {
    /// The files; what each is its name tells
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Also print the records of batches
    #[arg(long, conflicts_with = "verify")]
    records: bool,
    /// Look for damage, and print a line about each file
    #[arg(long)]
    verify: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Why a file was not read to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum DumpError {
    #[error("{}: not the name of a file that can be dumped", path.display())]
    Name { path: PathBuf },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("cannot write: {0}")]
    Output(#[source] io::Error),
    #[error("{} at position {position}: {fault}", path.display())]
    Bad { path: PathBuf, position: u64, fault: Fault },
    #[error("{}", each(.0))]
    Files(Vec<DumpError>),
}

/// What is wrong at a place in a file.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Damage(#[from] Damage),
    #[error("the batch of offsets {base_offset} to {last_offset} has a record of offset {offset}")]
    RecordOffset { base_offset: i64, last_offset: i64, offset: i64 },
    #[error("{0} bytes, less than an entry, at the end")]
    PartOfEntry(u64),
    #[error("the entry is not above the one before it")]
    NotRising,
    #[error(
        "the entry leads to offset {offset} at position {log_position}, where the log has no batch that ends with it"
    )]
    OffsetEntry { offset: i64, log_position: u32 },
    #[error("the entry says that offset {offset} has timestamp {timestamp}, in the log it has {found}")]
    TimeEntry { offset: i64, timestamp: i64, found: i64 },
    #[error("the entry says that offset {offset} has timestamp {timestamp}, the log has no such offset")]
    TimeEntryOffset { offset: i64, timestamp: i64 },
    #[error("{0}")]
    Snapshot(#[from] crate::log::producers::InvalidSnapshot),
    #[error("{0}")]
    Checkpoint(#[from] crate::log::checkpoint::InvalidCheckpoint),
    #[error("expected the lines \"version: 0\" and \"topic_id: ID\"")]
    PartitionMetadata,
}

fn each(errors: &[DumpError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

impl DumpError {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Name { .. } | Self::Io { .. } => USER_ERROR,
            Self::Bad { .. } | Self::Output(_) => REFUSED,
            Self::Files(errors) => errors.iter().map(Self::exit_code).min().unwrap_or(REFUSED),
        }
    }
}

/// What is said of a file that was verified.
#[derive(Serialize, Debug, PartialEq, Eq)]
struct Verified {
    file: String,
    /// Batches or entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    batches: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    records: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<u64>,
}

/// Dumps or verifies file after file; of each its first fault is told at the end.
pub(super) fn run(flags: Flags) -> Result<(), CommandError> {
    let What::Dump(flags) = flags.what;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut failed = Vec::new();
    for path in &flags.files {
        match dump(&mut out, path, &flags) {
            // Nobody reads on.
            Err(DumpError::Output(error)) => return Err(CommandError::Output(error)),
            Err(error) => failed.push(error),
            Ok(()) => {}
        }
    }
    out.flush().map_err(CommandError::Output)?;
    if failed.is_empty() { Ok(()) } else { Err(DumpError::Files(failed).into()) }
}

fn dump(out: &mut impl Write, path: &Path, flags: &DumpFlags) -> Result<(), DumpError> {
    let kind = Kind::of(path).ok_or_else(|| DumpError::Name { path: path.to_owned() })?;
    let file = ReadFile::open(path)?;
    if flags.verify {
        let verified = verify(&file, kind)?;
        return verified.print(out, flags.json).map_err(DumpError::Output);
    }
    if flags.files.len() > 1 && !flags.json {
        writeln!(out, "{}", path.display()).map_err(DumpError::Output)?;
    }
    match kind {
        Kind::Log { base_offset } => batches::dump(out, &file, base_offset, flags),
        Kind::OffsetIndex { base_offset } => indexes::dump_offsets(out, &file, base_offset, flags.json),
        Kind::TimeIndex { base_offset } => indexes::dump_times(out, &file, base_offset, flags.json),
        Kind::Snapshot => small::dump_snapshot(out, &file, flags.json),
        Kind::LeaderEpochs => small::dump_epochs(out, &file, flags.json),
        Kind::PartitionMetadata => small::dump_metadata(out, &file, flags.json),
    }
}

fn verify(file: &ReadFile, kind: Kind) -> Result<Verified, DumpError> {
    let entries = |entries: usize| Verified {
        file: file.path().display().to_string(),
        batches: None,
        records: None,
        entries: Some(entries as u64),
    };
    match kind {
        Kind::Log { base_offset } => batches::verify(file, base_offset),
        Kind::OffsetIndex { base_offset } => indexes::verify_alone(file, base_offset, kind).map(entries),
        Kind::TimeIndex { base_offset } => indexes::verify_alone(file, base_offset, kind).map(entries),
        Kind::Snapshot => small::snapshot(file).map(|producers| entries(producers.len())),
        Kind::LeaderEpochs => small::epochs(file).map(|epochs| entries(epochs.len())),
        Kind::PartitionMetadata => small::metadata(file).map(|_| entries(1)),
    }
}

impl Verified {
    fn print(&self, out: &mut impl Write, json: bool) -> io::Result<()> {
        if json {
            return print_json(out, self);
        }
        write!(out, "{}: good", self.file)?;
        for (count, noun) in [(self.batches, "batches"), (self.records, "records"), (self.entries, "entries")]
        {
            if let Some(count) = count {
                write!(out, ", {count} {noun}")?;
            }
        }
        writeln!(out)
    }
}
