//! `ottla bench produce`: one batch, appended over and over.

use clap::Args;

use super::load::{Lane, run};
use super::report::Throughput;
use super::topic::{Batch, PRODUCE_VERSION, Topic, appended};
use super::{BatchFlags, BenchError, ConnectionFlags, TargetFlags, WindowFlags};
use crate::cli::client::Connection;
use crate::protocol::messages::Produce;

#[derive(Args, Debug)]
pub(super) struct Flags {
    #[command(flatten)]
    pub(super) target: TargetFlags,
    #[command(flatten)]
    connections: ConnectionFlags,
    #[command(flatten)]
    batch: BatchFlags,
    /// Requests that a connection keeps in flight
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    in_flight: u32,
    /// Whose acknowledgement is waited for: all, 1 (the leader's) or 0 (nobody's)
    #[arg(long, value_name = "all|1|0", default_value = "all", value_parser = crate::cli::acks)]
    acks: i16,
    #[command(flatten)]
    window: WindowFlags,
}

/// # Errors
/// No broker, or one that refuses.
pub(super) fn measure(flags: &Flags) -> Result<Throughput, BenchError> {
    let batch = Batch::build(&flags.batch)?;
    let batch_bytes = batch.bytes.len() as u64;
    let connections = flags.connections.connections as usize;
    let topic = Topic::prepare(&flags.target.bootstrap, &flags.target.topic, flags.connections.partitions)?;
    let mut version = PRODUCE_VERSION;
    let mut lanes = Vec::with_capacity(connections);
    for index in 0..connections {
        let partitions = topic.partitions_of(index, connections);
        let client = topic.connect(partitions[0])?;
        version = client.version_up_to::<Produce>(PRODUCE_VERSION)?;
        let frame = |&partition: &usize| topic.produce_frame(version, partition, flags.acks, &batch);
        lanes.push(Lane { client, frames: partitions.iter().map(frame).collect() });
    }
    let take = |client: &mut Connection| {
        // Nobody answers acks=0: what the socket has taken counts.
        if flags.acks != 0 {
            appended(&client.answer::<Produce>(version)?)?;
        }
        Ok(batch_bytes)
    };
    let report = Throughput::of(&run(lanes, flags.in_flight as usize, &flags.window, take)?);
    Ok(if flags.acks == 0 { report.without_latency() } else { report })
}
