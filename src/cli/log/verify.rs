//! `ottla log verify`: looks for damage, and reports it.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::thread::available_parallelism;

use clap::Args;
use indicatif::{HumanBytes, ProgressBar};
use serde_json::json;

use super::DumpError;
use crate::cli::CommandError;
use crate::cli::output::{byte_bar, print_json};
use crate::log::directory::LOCK_FILE;
use crate::log::verify::{Finding, Report, Verification, Weight};
use crate::storage::ReadOnlyDisk;

pub(super) const EXAMPLES: &str = "\
Examples:
  ottla log verify data
  ottla log verify data/letters-0
  ottla log verify data/letters-0/00000000000000000000.log data/letters-0/leader-epoch-checkpoint

Compares every checksum and looks at every record; holds indexes, producer snapshots, leader epochs and checkpoints against the
log; names what is left over. Reads Ottla's directories and Apache Kafka's, with all cores, and changes nothing. A broker may
be at work in the directory: then the ends of its files may move meanwhile, and what looks torn there is only a note.";

pub(super) const EXIT_CODES: &str = "\
Exit codes: 0 sound; 1 damage found; 2 something could not be looked at.";

/// From this size on it takes long enough for a bar.
const BAR_FROM_BYTES: u64 = 64 << 20;

#[derive(Args, Debug)]
pub(super) struct Flags {
    /// Log directories, folders of partitions, or single files
    #[arg(required = true, value_name = "DIR")]
    paths: Vec<PathBuf>,
    /// Print one JSON object a line: each finding, then the summary
    #[arg(long)]
    json: bool,
}

pub(super) fn run(flags: &Flags) -> Result<(), CommandError> {
    let mut verification = Verification::new(&ReadOnlyDisk);
    for path in &flags.paths {
        let in_use = |directory: &std::path::Path| ReadOnlyDisk.is_locked(&directory.join(LOCK_FILE));
        verification.add(path, in_use).map_err(DumpError::from)?;
    }
    let is_long = verification.bytes() >= BAR_FROM_BYTES;
    let bar = if is_long { byte_bar(verification.bytes()) } else { ProgressBar::hidden() };
    let report = verification.run(available_parallelism().map_or(1, usize::from), &|bytes| bar.inc(bytes));
    bar.finish_and_clear();
    print(&report, flags.json).map_err(CommandError::Output)?;
    match (report.count(Weight::Damage), report.count(Weight::Unread)) {
        (0, 0) => Ok(()),
        (0, unread) => Err(DumpError::Unread(unread).into()),
        (damaged, _) => Err(DumpError::Damaged(damaged).into()),
    }
}

fn print(report: &Report, json: bool) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for finding in &report.findings {
        match json {
            true => print_json(&mut out, &finding_json(finding))?,
            false => writeln!(out, "{}: {finding}", name(finding))?,
        }
    }
    let totals = report.totals;
    let (damaged, unread) = (report.count(Weight::Damage), report.count(Weight::Unread));
    if json {
        let summary = json!({
            "sound": damaged == 0 && unread == 0,
            "damaged": damaged,
            "unread": unread,
            "notes": report.count(Weight::Note),
            "partitions": totals.partitions,
            "segments": totals.segments,
            "bytes": totals.bytes,
            "batches": totals.batches,
            "records": totals.records,
            "index_entries": totals.entries,
        });
        print_json(&mut out, &summary)?;
    } else {
        let verdict = match (damaged, unread) {
            (0, 0) => "sound",
            (0, _) => "not all could be looked at",
            _ => "damaged",
        };
        writeln!(
            out,
            "{verdict}: {} partitions, {} segments, {}, {} batches, {} records, {} index entries",
            totals.partitions,
            totals.segments,
            HumanBytes(totals.bytes),
            totals.batches,
            totals.records,
            totals.entries,
        )?;
    }
    out.flush()
}

fn name(finding: &Finding) -> &'static str {
    match finding.fault.weight() {
        Weight::Note => "note",
        Weight::Damage => "damage",
        Weight::Unread => "unread",
    }
}

fn finding_json(finding: &Finding) -> serde_json::Value {
    json!({
        "weight": name(finding),
        "file": finding.path.display().to_string(),
        "position": finding.position,
        "what": finding.fault.to_string(),
    })
}
