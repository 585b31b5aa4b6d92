//! `ottla log repair`: what a start after a crash does, after saying what that would be.

use std::fmt::Write as _;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::DumpError;
use crate::broker::StartError;
use crate::catalog::{CATALOG_LOG, Catalog};
use crate::cli::CommandError;
use crate::cli::output::say;
use crate::clock::Clock;
use crate::config::Config;
use crate::log::directory::{Found, LOCK_FILE, PROPERTIES_FILE, is_of_owner};
use crate::log::{DirectoryOptions, LogDirectories, OpenDirectoryError};
use crate::storage::{BoundedDisk, Change, Disk, Lock, Overlay, ReadOnlyDisk, StdDisk};

/// Files of logs that are open at once.
const OPEN_FILES_MAX: usize = 512;

pub(super) const EXAMPLES: &str = "\
Examples:
  ottla log repair data
  ottla log repair data --yes
  ottla log repair disk1/data disk2/data

Reads every byte of every log, as a start after a crash does for the ends of them, and by the same code: each log ends at its
first damaged batch; what lies behind it is kept beside the log as <segment>.log.cut-<position>, unless it is a torn tail;
indexes and producer snapshots that are missing or wrong are made again. First it is only tried, and told, and asked about.
Refuses a directory that a broker uses. The directories of one broker are given together, as it is started with them.";

pub(super) const EXIT_CODES: &str = "\
Exit codes: 0 sound or repaired; 1 damage is left; 2 the directory cannot be used.";

#[derive(Args, Debug)]
pub(super) struct Flags {
    /// The log directories of one broker
    #[arg(required = true, value_name = "DIR")]
    paths: Vec<PathBuf>,
    /// Repair without asking
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(flags: &Flags) -> Result<(), CommandError> {
    let paths = &flags.paths;
    check(paths)?;
    let (found, changes) = {
        // While it is tried nobody must change what is looked at.
        let _locks = paths.iter().map(|path| lock(path)).collect::<Result<Vec<_>, _>>()?;
        let overlay = Arc::new(Overlay::new(Arc::new(ReadOnlyDisk)));
        let found = recover(paths, Arc::clone(&overlay) as Arc<dyn Disk>)?;
        let changes = overlay.changes().map_err(|source| DumpError::Io { path: paths[0].clone(), source })?;
        (found, changes)
    };
    let changes: Vec<_> = changes.into_iter().filter(|change| !is_of_owner(change.path())).collect();
    if changes.is_empty() && found.failed.is_empty() {
        return say("nothing to repair");
    }
    say(&told(&found, &changes, "would "))?;
    if flags.dry_run || !(flags.yes || agreed()?) {
        say("nothing was changed")?;
        return Err(DumpError::Damaged(found.cuts.len() + found.failed.len()).into());
    }
    let found = recover(paths, Arc::new(StdDisk))?;
    say(&told(&found, &[], ""))?;
    say("repaired")?;
    match found.failed.len() {
        0 => Ok(()),
        failed => Err(DumpError::Damaged(failed).into()),
    }
}

/// Each must be a log directory of Ottla's, and one of them must have the catalog: a mistyped name must not become a new one.
fn check(paths: &[PathBuf]) -> Result<(), DumpError> {
    for path in paths {
        let properties = path.join(PROPERTIES_FILE);
        ReadOnlyDisk.status(&properties).map_err(|source| DumpError::Io { path: properties, source })?;
    }
    let has_catalog = |path: &PathBuf| ReadOnlyDisk.list(&path.join(format!("{CATALOG_LOG}-0"))).is_ok();
    match paths.iter().any(has_catalog) {
        true => Ok(()),
        false => Err(DumpError::NoCatalog { paths: paths.to_vec() }),
    }
}

fn lock(path: &Path) -> Result<Box<dyn Lock>, CommandError> {
    let lock_path = path.join(LOCK_FILE);
    let locked = StdDisk.try_lock(&lock_path).map_err(|source| DumpError::Io { path: lock_path, source })?;
    let in_use = || StartError::Directory(OpenDirectoryError::Locked { path: path.to_owned() });
    Ok(locked.ok_or_else(in_use)?)
}

/// Opens the directories as a broker does, reads everything, and closes them cleanly.
fn recover(paths: &[PathBuf], disk: Arc<dyn Disk>) -> Result<Found, CommandError> {
    let clock = Clock::system();
    let options = DirectoryOptions {
        check_all: true,
        any_node: true,
        recovery_threads: std::thread::available_parallelism().map_or(1, usize::from),
        ..DirectoryOptions::new(&paths[0])
    };
    let mut config = Config::default();
    config.log_dirs = paths.to_vec();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(CommandError::Runtime)?;
    runtime.block_on(async {
        let files = BoundedDisk::new(disk, OPEN_FILES_MAX);
        let directories = LogDirectories::open(paths, &options, CATALOG_LOG, files, &clock)
            .map_err(StartError::Directory)?;
        let stop = CancellationToken::new();
        let opened = Catalog::open(&directories, &config, &clock, stop.clone()).await;
        let catalog = opened.map_err(|source| StartError::Catalog { path: paths[0].clone(), source })?;
        stop.cancel();
        directories.close().await;
        drop(catalog);
        let mut found = Found::default();
        for directory in directories.all() {
            let Found { cuts, failed } = directory.found();
            found.cuts.extend(cuts);
            found.failed.extend(failed);
        }
        Ok(found)
    })
}

/// What was found, and what follows from it.
fn told(found: &Found, changes: &[Change], would: &str) -> String {
    let mut text = String::new();
    let mut line = |words: String| writeln!(text, "{words}").expect("a String takes every write");
    for cut in &found.cuts {
        line(format!("{} at position {}: {}", cut.path.display(), cut.position, cut.reason));
        let (first, last) = (cut.offset, cut.lost_end - 1);
        let lost = match last < first {
            true => "a torn tail: no whole batch is lost".to_owned(),
            false => format!("offsets {first} to {last} are lost"),
        };
        let kept = if cut.kept { "; what comes after is kept beside it" } else { "" };
        line(format!("  {}-{} {would}end at offset {first}: {lost}{kept}", cut.topic, cut.partition));
    }
    for (topic, partition, error) in &found.failed {
        line(format!("{topic}-{partition} cannot be repaired: {error}"));
    }
    changes.iter().for_each(|change| line(format!("{would}{change}")));
    text.trim_end().to_owned()
}

/// Asks, if there is somebody to ask.
fn agreed() -> Result<bool, CommandError> {
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    eprint!("Repair? [y/N] ");
    let mut answer = String::new();
    io::stdout().flush().map_err(CommandError::Output)?;
    io::stdin().lock().read_line(&mut answer).map_err(CommandError::Output)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
