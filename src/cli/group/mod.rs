//! `ottla group`: consumer groups of any Kafka broker, how far they are, and where they go on.

mod delete;
mod describe;
mod list;
mod reset;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::client::{ClientError, Cluster, ClusterFlags, TopicPartition, code_of};
use super::{CommandError, EXIT_CODES, REFUSED, USER_ERROR};
use crate::protocol::ErrorCode;
use crate::protocol::api::Api;
use crate::protocol::messages::describe_groups::{DescribeGroupsRequest, DescribedGroup};
use crate::protocol::messages::offset_fetch::{OffsetFetchGroup, OffsetFetchRequest, OffsetFetchTopic};
use crate::protocol::messages::{DescribeGroups, OffsetFetch};
use crate::protocol::wire::Str;

/// Newest version of OffsetFetch that names its topics; later ones have ids.
const OFFSET_FETCH_VERSION: i16 = 9;
/// States of a group without members.
const INACTIVE: [&str; 2] = ["Empty", "Dead"];

const EXAMPLES: &str = "\
Examples:
  ottla group list
  ottla group describe readers --members
  ottla group reset-offsets readers --topic letters:0,2 --to-earliest
  ottla group reset-offsets readers --all-topics --shift-by -10 --execute
  ottla group reset-offsets readers --topic letters --to-datetime 2026-11-22T10:00:00Z --execute
  ottla group delete-offsets readers --topic letters
  ottla group delete readers";

#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"), arg_required_else_help = false)]
pub(super) struct Flags {
    #[command(flatten)]
    cluster: ClusterFlags,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Groups with their state, protocol and number of members
    List(list::Flags),
    /// How far a group is in each partition, how far behind, and who reads it
    Describe(describe::Flags),
    /// Show where a group without members would go on from, and with --execute make it so
    #[command(after_help = reset::HELP)]
    ResetOffsets(reset::Flags),
    /// Forget what a group has committed for topics that it does not read
    DeleteOffsets(delete::OffsetsFlags),
    /// Delete groups without members, with all that they have committed
    Delete(delete::Flags),
}

/// Why a group was not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum GroupError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("group {group:?} is {state} with {members} members: stop them first")]
    Active { group: Str, state: Str, members: usize },
    #[error("group {group:?} has committed nothing for {place} that could be shifted")]
    NothingCommitted { group: Str, place: TopicPartition },
    #[error("cannot read {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} line {line}: expected TOPIC,PARTITION,OFFSET", path.display())]
    Line { path: PathBuf, line: usize },
}

impl GroupError {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Client(error) if error.is_of_connection() => USER_ERROR,
            Self::File { .. } => USER_ERROR,
            _ => REFUSED,
        }
    }
}

/// Does one of them.
pub(super) fn run(flags: Flags) -> Result<(), CommandError> {
    let mut cluster = flags.cluster.connect()?;
    match flags.what {
        What::List(flags) => list::run(&mut cluster, &flags),
        What::Describe(flags) => describe::run(&mut cluster, &flags),
        What::ResetOffsets(flags) => reset::run(&mut cluster, &flags),
        What::DeleteOffsets(flags) => delete::run_offsets(&mut cluster, &flags),
        What::Delete(flags) => delete::run(&mut cluster, &flags),
    }
}

/// How a group is named in an error.
fn named(group: &Str) -> String {
    format!("group {group:?}")
}

/// A classic group as its coordinator has it; `None` if it has no such group.
///
/// # Errors
/// The coordinator refuses for good, or until the cluster's timeout.
fn described(cluster: &mut Cluster, group: &Str) -> Result<(i32, Option<DescribedGroup>), ClientError> {
    let request = DescribeGroupsRequest { groups: vec![group.clone()], ..DescribeGroupsRequest::default() };
    cluster.retrying(|cluster| {
        let coordinator = cluster.coordinator(group)?;
        let answer = cluster.call::<DescribeGroups>(coordinator, &request)?;
        let found = answer.groups.into_iter().next();
        let found = found.ok_or(ClientError::Incomplete { api: DescribeGroups::NAME })?;
        if found.error_code == i16::from(ErrorCode::GroupIdNotFound) {
            return Ok((coordinator, None));
        }
        code_of(&named(group), found.error_code, found.error_message.as_ref())?;
        // Before version 6 a group that is not there is dead. KIP-1043.
        Ok((coordinator, Some(found).filter(|found| &found.group_state[..] != "Dead")))
    })
}

/// What a group has committed for `places` (`None`: for all): those without a commit are left out.
///
/// # Errors
/// The coordinator refuses for good, or until the cluster's timeout.
pub(super) fn committed(
    cluster: &mut Cluster,
    group: &Str,
    places: Option<&[TopicPartition]>,
) -> Result<BTreeMap<TopicPartition, i64>, ClientError> {
    let topics = places.map(|places| {
        let mut topics: BTreeMap<&Str, Vec<i32>> = BTreeMap::new();
        places.iter().for_each(|place| topics.entry(&place.topic).or_default().push(place.partition));
        let topic = |(name, partition_indexes): (&Str, _)| OffsetFetchTopic {
            name: name.clone(),
            partition_indexes,
            ..OffsetFetchTopic::default()
        };
        topics.into_iter().map(topic).collect::<Vec<_>>()
    });
    let of_group = OffsetFetchGroup { group_id: group.clone(), topics: topics.clone(), ..Default::default() };
    let request = OffsetFetchRequest {
        group_id: group.clone(),
        topics,
        groups: vec![of_group],
        // An open transaction may yet move the group on.
        require_stable: true,
    };
    cluster.retrying(|cluster| {
        let coordinator = cluster.coordinator(group)?;
        let answer = cluster.call_up_to::<OffsetFetch>(coordinator, OFFSET_FETCH_VERSION, &request)?;
        // Versions before 8 have it in the answer itself. KIP-709.
        let (topics, error_code) = match answer.groups.into_iter().next() {
            Some(group) => (group.topics, group.error_code),
            None => (answer.topics, answer.error_code),
        };
        code_of(&named(group), error_code, None)?;
        let mut committed = BTreeMap::new();
        for topic in topics {
            for partition in topic.partitions {
                let place = TopicPartition::new(&topic.name, partition.partition_index);
                code_of(&format!("{}, offset of {place}", named(group)), partition.error_code, None)?;
                if partition.committed_offset >= 0 {
                    committed.insert(place, partition.committed_offset);
                }
            }
        }
        Ok(committed)
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{CommandLine, one_line};

    #[test]
    fn the_examples_are_command_lines() {
        for example in EXAMPLES.lines().skip(1) {
            CommandLine::try_parse_from(example.split_whitespace()).unwrap();
        }
    }

    #[test]
    fn a_bad_flag_is_one_line_that_names_it() {
        for (arguments, named) in [
            (&["describe"][..], "GROUP"),
            (&["reset-offsets", "g", "--to-earliest"], "--topic"),
            (&["reset-offsets", "g", "--all-topics"], "--to-earliest"),
            (&["reset-offsets", "g", "--all-topics", "--to-earliest", "--to-latest"], "--to-latest"),
            (&["reset-offsets", "g", "--all-topics", "--from-file", "f"], "--all-topics"),
            (&["reset-offsets", "g", "--topic", "t:", "--to-latest"], "TOPIC:PARTITION"),
            (&["reset-offsets", "g", "--topic", "t", "--to-datetime", "noon"], "expected @MILLISECONDS"),
            (&["delete"], "GROUP"),
        ] {
            let error = CommandLine::try_parse_from([&["ottla", "group"], arguments].concat()).unwrap_err();
            let message = one_line(&error.to_string());
            assert!(message.contains(named) && !message.contains('\n'), "{message}");
        }
    }
}
