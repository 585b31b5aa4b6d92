//! `ottla bench commit`: offsets committed as fast as the broker takes them, by groups without members, one a connection.

use std::time::Duration;

use clap::Args;

use super::load::{self, Lane};
use super::report::Commits;
use super::topic::Topic;
use super::{BenchError, TargetFlags, WindowFlags};
use crate::cli::client::{Connection, Frame, check};
use crate::cli::interrupt::Interrupt;
use crate::protocol::api::Api;
use crate::protocol::messages::OffsetCommit;
use crate::protocol::messages::offset_commit::{
    OffsetCommitPartition, OffsetCommitRequest, OffsetCommitTopic,
};

/// Newest version that names topics by name.
const COMMIT_VERSION: i16 = 9;

#[derive(Args, Debug)]
pub(super) struct Flags {
    #[command(flatten)]
    pub(super) target: TargetFlags,
    /// Connections, each with a thread and a group of its own
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    connections: u32,
    /// Partitions in each commit
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    partitions: u32,
    /// Commits that a connection has on their way at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    in_flight: u32,
    /// How long to measure
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = crate::cli::some_seconds)]
    seconds: Duration,
    /// Run at full load for so long first
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = crate::cli::seconds)]
    warm_up: Duration,
    /// Process of the server on this machine: its CPU time is measured too
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
}

/// # Errors
/// No broker, or one that refuses.
pub(super) fn measure(flags: &Flags, interrupt: &Interrupt) -> Result<Commits, BenchError> {
    let TargetFlags { bootstrap, topic, .. } = &flags.target;
    Topic::prepare(bootstrap, topic, flags.partitions)?;
    let mut lanes = Vec::with_capacity(flags.connections as usize);
    for index in 0..flags.connections {
        let group = super::members::group_id(index);
        let client = super::members::coordinator(bootstrap, &group)?;
        let version = client.version_up_to::<OffsetCommit>(COMMIT_VERSION)?;
        let partition = |partition_index: u32| OffsetCommitPartition {
            partition_index: partition_index as i32,
            committed_offset: 1,
            ..Default::default()
        };
        let partitions = (0..flags.partitions).map(partition).collect();
        let topic = OffsetCommitTopic { name: topic.as_str().into(), partitions, ..Default::default() };
        let request =
            OffsetCommitRequest { group_id: group.into(), topics: vec![topic], ..Default::default() };
        lanes.push(Lane { client, frames: vec![Frame::new::<OffsetCommit>(version, &request)] });
    }
    let version = lanes
        .first()
        .map_or(Ok(COMMIT_VERSION), |lane| lane.client.version_up_to::<OffsetCommit>(COMMIT_VERSION))?;
    let window = WindowFlags { seconds: flags.seconds, bytes: None, warm_up: flags.warm_up, pid: flags.pid };
    let pace = load::Pace::InFlight(flags.in_flight as usize);
    let measured = load::run(lanes, pace, &window, interrupt, |client| accepted(client, version))?;
    Ok(Commits::of(&measured, flags.partitions))
}

/// Takes one answer; no record batch goes through.
fn accepted(client: &mut Connection, version: i16) -> Result<u64, BenchError> {
    let answer = client.answer::<OffsetCommit>(version)?;
    for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
        check(OffsetCommit::NAME, partition.error_code)?;
    }
    Ok(0)
}
