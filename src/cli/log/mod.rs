//! `ottla log`: looks into the files of a log directory, Ottla's or Apache Kafka's.

mod batches;
mod committed;
mod file;
mod indexes;
mod repair;
mod small;
mod verify;

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use self::file::{Kind, ReadFile};
use super::{CommandError, EXIT_CODES, REFUSED, USER_ERROR};
use crate::log::verify::{Fault, NothingToVerify};
use clap::{Args, Subcommand};

const EXAMPLES: &str = "\
Examples:
  ottla log dump data/letters-0/00000000000000000000.log --records
  ottla log dump data/letters-0/*.index data/letters-0/leader-epoch-checkpoint
  ottla log verify data
  ottla log repair data

dump reads .log .index .timeindex .snapshot leader-epoch-checkpoint and partition.metadata. The records of __consumer_offsets are
shown as what they mean.";

#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"), arg_required_else_help = false)]
pub(super) struct Flags {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Print what is in files of a log directory
    #[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
    Dump(DumpFlags),
    /// Look for damage in log directories
    #[command(after_help = format!("{}\n\n{}", verify::EXAMPLES, verify::EXIT_CODES))]
    Verify(verify::Flags),
    /// Cut logs at their damage, as a start after a crash does, after saying what that would be
    #[command(after_help = format!("{}\n\n{}", repair::EXAMPLES, repair::EXIT_CODES))]
    Repair(repair::Flags),
}

#[derive(Args, Debug)]
struct DumpFlags {
    /// The files; what each is its name tells
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Also print the records of batches
    #[arg(long)]
    records: bool,
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
    #[error(transparent)]
    Nothing(#[from] NothingToVerify),
    #[error("{}: no directory of Ottla's: there is no catalog", every(paths))]
    NoCatalog { paths: Vec<PathBuf> },
    #[error("damage found: {0}")]
    Damaged(usize),
    #[error("not all could be looked at: {0}")]
    Unread(usize),
}

fn every(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn each(errors: &[DumpError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

impl DumpError {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Name { .. }
            | Self::Io { .. }
            | Self::Nothing(_)
            | Self::NoCatalog { .. }
            | Self::Unread(_) => USER_ERROR,
            Self::Bad { .. } | Self::Output(_) | Self::Damaged(_) => REFUSED,
            Self::Files(errors) => errors.iter().map(Self::exit_code).min().unwrap_or(REFUSED),
        }
    }
}

pub(super) fn run(flags: Flags) -> Result<(), CommandError> {
    match flags.what {
        What::Dump(flags) => run_dump(&flags),
        What::Verify(flags) => verify::run(&flags),
        What::Repair(flags) => repair::run(&flags),
    }
}

/// Dumps file after file; of each its first fault is told at the end.
fn run_dump(flags: &DumpFlags) -> Result<(), CommandError> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut failed = Vec::new();
    for path in &flags.files {
        match dump(&mut out, path, flags) {
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
