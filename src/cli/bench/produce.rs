//! `ottla bench produce`: one batch, or batches of many keys, appended over and over.

use std::time::Duration;

use clap::Args;

use super::load::{Lane, Pace, run};
use super::report::Throughput;
use super::topic::{Batch, PRODUCE_VERSION, Topic, appended};
use super::{BatchFlags, BenchError, ConnectionFlags, TargetFlags, WindowFlags};
use crate::cli::client::Connection;
use crate::cli::interrupt::Interrupt;
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
    /// Requests that a connection sends a second instead of as many as it can, one after the other
    #[arg(long, value_name = "N", conflicts_with = "in_flight", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// Give the records keys, so many different ones: as many batches are made as hold each key twice, in random order
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    keys: Option<u32>,
    /// Whose acknowledgement is waited for: all, 1 (the leader's) or 0 (nobody's)
    #[arg(long, value_name = "all|1|0", default_value = "all", value_parser = crate::cli::acks)]
    acks: i16,
    #[command(flatten)]
    window: WindowFlags,
}

/// # Errors
/// No broker, or one that refuses.
pub(super) fn measure(flags: &Flags, interrupt: &Interrupt) -> Result<Throughput, BenchError> {
    let batches = match flags.keys {
        None => vec![Batch::build(&flags.batch)?],
        Some(keys) => Batch::build_keyed(&flags.batch, keys)?,
    };
    // They differ only by how well they compress.
    let batch_bytes =
        batches.iter().map(|batch| batch.bytes.len() as u64).sum::<u64>() / batches.len() as u64;
    let connections = flags.connections.connections as usize;
    let topic = Topic::prepare(&flags.target.bootstrap, &flags.target.topic, flags.connections.partitions)?;
    let mut version = PRODUCE_VERSION;
    let mut lanes = Vec::with_capacity(connections);
    for index in 0..connections {
        let partitions = topic.partitions_of(index, connections);
        let client = topic.connect(partitions[0])?;
        version = client.version_up_to::<Produce>(PRODUCE_VERSION)?;
        let frames = batches.iter().flat_map(|batch| {
            let frame = |&partition: &usize| topic.produce_frame(version, partition, flags.acks, batch);
            partitions.iter().map(frame)
        });
        lanes.push(Lane { client, frames: frames.collect() });
    }
    let take = |client: &mut Connection| {
        // Nobody answers acks=0: what the socket has taken counts.
        if flags.acks != 0 {
            appended(&client.answer::<Produce>(version)?)?;
        }
        Ok(batch_bytes)
    };
    let pace = match flags.rate {
        None => Pace::InFlight(flags.in_flight as usize),
        Some(rate) => Pace::Every(Duration::from_secs(1) / rate),
    };
    let report = Throughput::of(&run(lanes, pace, &flags.window, interrupt, take)?);
    Ok(if flags.acks == 0 { report.without_latency() } else { report })
}
