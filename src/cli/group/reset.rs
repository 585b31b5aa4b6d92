//! `ottla group reset-offsets`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use serde::Serialize;

use super::GroupError;
use crate::cli::CommandError;
use crate::cli::client::{Cluster, Isolation, TopicPartition};
use crate::cli::consume::Selection;
use crate::cli::consume::member::{commit, commit_topics};
use crate::cli::output::{Row, or_nothing, print};
use crate::cli::position::{Position, Range, ranges, resolve, time};
use crate::clock::TimestampMs;
use crate::protocol::messages::offset_commit::OffsetCommitRequest;
use crate::protocol::wire::Str;

pub(super) const HELP: &str = "\
Without --execute nothing changes. An offset that is not there becomes the nearest one that is.
A file of --from-file has lines TOPIC,PARTITION,OFFSET.";

/// Flags of which exactly one says where to.
const GOALS: [&str; 6] = ["to_earliest", "to_latest", "to_offset", "shift_by", "to_datetime", "from_file"];

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("goal").required(true).args(GOALS))]
pub(super) struct Flags {
    /// Id of the group
    group: Str,
    /// Which partitions. Repeatable
    #[arg(long, value_name = "TOPIC[:PARTITION,...]", required_unless_present_any = ["all_topics", "from_file"])]
    topic: Vec<Selection>,
    /// All partitions that the group has committed offsets of
    #[arg(long, conflicts_with_all = ["topic", "from_file"])]
    all_topics: bool,
    /// To the first record
    #[arg(long)]
    to_earliest: bool,
    /// Behind the last record
    #[arg(long)]
    to_latest: bool,
    /// To this offset
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
    /// On by so many records, or back if it is negative
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    shift_by: Option<i64>,
    /// To the first record of this time or later: @MILLISECONDS or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = time)]
    to_datetime: Option<TimestampMs>,
    /// To what this file says
    #[arg(long, value_name = "CSV", conflicts_with = "topic")]
    from_file: Option<PathBuf>,
    /// Do it
    #[arg(long)]
    execute: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Reset {
    topic: String,
    partition: i32,
    current: Option<i64>,
    new: i64,
    executed: bool,
}

impl Row for Reset {
    const TITLES: &'static [&'static str] = &["TOPIC", "PARTITION", "CURRENT", "NEW"];

    fn cells(&self) -> Vec<String> {
        let partition = self.partition.to_string();
        vec![self.topic.clone(), partition, or_nothing(self.current), self.new.to_string()]
    }
}

pub(super) fn run(cluster: &mut Cluster, flags: &Flags) -> Result<(), CommandError> {
    let current = super::committed(cluster, &flags.group, None)?;
    let wanted = wanted(cluster, flags, &current)?;
    if flags.execute {
        execute(cluster, &flags.group, &wanted)?;
    }
    let row = |(place, new): (&TopicPartition, &i64)| Reset {
        topic: place.topic.to_string(),
        partition: place.partition,
        current: current.get(place).copied(),
        new: *new,
        executed: flags.execute,
    };
    let rows: Vec<Reset> = wanted.iter().map(row).collect();
    print(&mut io::stdout().lock(), &rows, flags.json).map_err(CommandError::Output)?;
    if !flags.execute {
        eprintln!("ottla: nothing was changed; --execute does it");
    }
    Ok(())
}

/// The new offset of each partition.
fn wanted(
    cluster: &mut Cluster,
    flags: &Flags,
    current: &BTreeMap<TopicPartition, i64>,
) -> Result<BTreeMap<TopicPartition, i64>, GroupError> {
    let from_file = flags.from_file.as_deref().map(read_file).transpose()?;
    let places: Vec<TopicPartition> = match &from_file {
        Some(offsets) => offsets.keys().cloned().collect(),
        None if flags.all_topics => current.keys().cloned().collect(),
        None => {
            let mut places = Vec::new();
            for selection in &flags.topic {
                places.extend(selection.places(cluster)?);
            }
            places
        }
    };
    let isolation = Isolation::ReadUncommitted;
    let ranges = ranges(cluster, places.iter(), isolation)?;
    let position = match (flags.to_offset, flags.to_datetime) {
        (Some(offset), _) => Position::Offset(offset),
        (_, Some(time)) => Position::Time(time),
        _ if flags.to_latest => Position::End,
        _ => Position::Beginning,
    };
    let mut wanted = match from_file {
        Some(offsets) => offsets,
        None => resolve(cluster, &ranges, position, isolation)?,
    };
    if let Some(by) = flags.shift_by {
        for (place, offset) in &mut wanted {
            let nothing =
                || GroupError::NothingCommitted { group: flags.group.clone(), place: place.clone() };
            *offset = current.get(place).ok_or_else(nothing)?.saturating_add(by);
        }
    }
    for (place, offset) in &mut wanted {
        if let Some(Range { start, end_exclusive }) = ranges.get(place) {
            *offset = (*offset).clamp(*start, *end_exclusive);
        }
    }
    Ok(wanted)
}

fn execute(
    cluster: &mut Cluster,
    group: &Str,
    offsets: &BTreeMap<TopicPartition, i64>,
) -> Result<(), GroupError> {
    let (_, described) = super::described(cluster, group)?;
    if let Some(active) = described.filter(|group| !super::INACTIVE.contains(&&group.group_state[..])) {
        return Err(GroupError::Active {
            group: group.clone(),
            state: active.group_state,
            members: active.members.len(),
        });
    }
    if offsets.is_empty() {
        return Ok(());
    }
    let request = OffsetCommitRequest {
        group_id: group.clone(),
        topics: commit_topics(offsets),
        ..OffsetCommitRequest::default()
    };
    cluster.retrying(|cluster| {
        let coordinator = cluster.coordinator(group)?;
        commit(cluster, coordinator, group, &request)
    })?;
    Ok(())
}

fn read_file(path: &Path) -> Result<BTreeMap<TopicPartition, i64>, GroupError> {
    let text =
        fs::read_to_string(path).map_err(|source| GroupError::File { path: path.to_owned(), source })?;
    let mut offsets = BTreeMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let (place, offset) =
            parse(line).ok_or_else(|| GroupError::Line { path: path.to_owned(), line: number + 1 })?;
        offsets.insert(place, offset);
    }
    Ok(offsets)
}

/// `TOPIC,PARTITION,OFFSET`; Kafka's own tools put the topic in quotes.
fn parse(line: &str) -> Option<(TopicPartition, i64)> {
    let mut fields = line.split(',').map(|field| field.trim().trim_matches('"'));
    let topic = fields.next().filter(|topic| !topic.is_empty())?;
    let partition = fields.next()?.parse().ok().filter(|partition| *partition >= 0)?;
    let offset = fields.next()?.parse().ok().filter(|offset| *offset >= 0)?;
    match fields.next() {
        None => Some((TopicPartition::new(&topic.into(), partition), offset)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_file_is_a_partition_and_an_offset() {
        let place = TopicPartition::new(&"letters".into(), 2);
        assert_eq!(parse("letters,2,70"), Some((place.clone(), 70)));
        assert_eq!(parse(" \"letters\", 2 , 70 "), Some((place, 70)));
        for bad in ["", ",0,0", "t", "t,0", "t,0,", "t,-1,0", "t,0,-1", "t,0,1,2", "t;0;1"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_bad_file_is_named_with_its_line() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("offsets.csv");
        fs::write(&path, "t,0,1\n\nt,x,1\n").unwrap();
        let message = read_file(&path).unwrap_err().to_string();
        assert!(message.ends_with("offsets.csv line 3: expected TOPIC,PARTITION,OFFSET"), "{message}");
        assert!(matches!(read_file(&home.path().join("none")), Err(GroupError::File { .. })));
    }
}
