//! `ottla bench fetch`: partitions are filled, then read from end to end over and over, as consumers do that catch up.

use clap::Args;

use super::load::{Lane, Pace, run, send_all};
use super::report::Throughput;
use super::topic::{Batch, PRODUCE_VERSION, Topic, appended};
use super::{BatchFlags, BenchError, ConnectionFlags, TargetFlags, WindowFlags};
use crate::cli::client::{ClientError, Connection, Frame, Head, check, decode_answer};
use crate::cli::interrupt::Interrupt;
use crate::protocol::api::Api;
use crate::protocol::header::response_header_size;
use crate::protocol::messages::fetch::{
    FetchPartition, FetchPartitionResponse, FetchRequest, FetchResponse, FetchTopic, FetchTopicResponse,
};
use crate::protocol::messages::{Fetch, Produce};
use crate::protocol::wire::{Records, Str, Wire};

/// Newest version of Fetch whose lengths have a fixed size: all that comes before the records is then of equal length in
/// each answer, and the last of it is the length of the records.
pub(super) const FETCH_VERSION: i16 = 11;
/// Bytes of the length of a classic field of records.
const RECORDS_LENGTH_BYTES: usize = 4;
/// How long a fetch waits for data, ms; here there always is some.
const MAX_WAIT_MS: i32 = 500;
/// Requests in flight while the partitions are filled.
const FILL_IN_FLIGHT: usize = 5;
const ALL: i16 = -1;

#[derive(Args, Debug)]
pub(super) struct Flags {
    #[command(flatten)]
    pub(super) target: TargetFlags,
    #[command(flatten)]
    connections: ConnectionFlags,
    #[command(flatten)]
    batch: BatchFlags,
    /// Requests that a connection keeps in flight
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    in_flight: u32,
    /// Bytes of record batches to store first, over all partitions
    #[arg(long, value_name = "BYTES", default_value_t = 1_000_000_000)]
    fill_bytes: u64,
    /// Most bytes of records in an answer; rounded down to whole batches, of which there is one at least
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(1 << 10..=1 << 30))]
    fetch_bytes: u32,
    #[command(flatten)]
    window: WindowFlags,
}

/// # Errors
/// No broker, or one that refuses.
pub(super) fn measure(flags: &Flags, interrupt: &Interrupt) -> Result<Throughput, BenchError> {
    let batch = Batch::build(&flags.batch)?;
    let connections = flags.connections.connections as usize;
    let topic = Topic::prepare(&flags.target.bootstrap, &flags.target.topic, flags.connections.partitions)?;
    let batches = (flags.fill_bytes / topic.leaders.len() as u64 / batch.bytes.len() as u64).max(1);
    let mut filled = Vec::with_capacity(topic.leaders.len());
    for partition in 0..topic.leaders.len() {
        filled.push(fill(&topic, partition, &batch, batches)?);
    }
    let batches_per_answer = (u64::from(flags.fetch_bytes) / batch.bytes.len() as u64).max(1);
    let mut lanes = Vec::with_capacity(connections);
    for index in 0..connections {
        let partitions = topic.partitions_of(index, connections);
        let client = topic.connect(partitions[0])?;
        let version = client.version_up_to::<Fetch>(FETCH_VERSION)?;
        let mut frames = Vec::new();
        for first_batch in (0..batches).step_by(batches_per_answer as usize) {
            frames.extend(partitions.iter().map(|&partition| {
                let offset = filled[partition] + (first_batch * u64::from(batch.records)) as i64;
                let most_bytes = (batches_per_answer * batch.bytes.len() as u64) as i32;
                Frame::new::<Fetch>(
                    version,
                    &request(&topic.name, partition, offset, most_bytes, MAX_WAIT_MS),
                )
            }));
        }
        // Connections that share a partition read it at different places, as consumers do.
        let places = frames.len();
        frames.rotate_left(places * index / connections);
        lanes.push((version, Lane { client, frames }));
    }
    let version = lanes.first().map_or(FETCH_VERSION, |(version, _)| *version);
    let lanes = lanes.into_iter().map(|(_, lane)| lane).collect();
    let head_bytes = head_bytes(&topic.name, version);
    let take = |client: &mut Connection| Ok(fetched_bytes(client.receive(head_bytes)?, version)?);
    let pace = Pace::InFlight(flags.in_flight as usize);
    let measured = run(lanes, pace, &flags.window, interrupt, take)?;
    Ok(Throughput::of(&measured))
}

/// A fetch from one partition that is answered as soon as there is anything.
pub(super) fn request(
    topic: &Str,
    partition: usize,
    offset: i64,
    max_bytes: i32,
    max_wait_ms: i32,
) -> FetchRequest {
    let wanted = FetchPartition {
        partition: partition as i32,
        fetch_offset: offset,
        partition_max_bytes: max_bytes,
        ..FetchPartition::default()
    };
    let topic = FetchTopic { topic: topic.clone(), partitions: vec![wanted], ..FetchTopic::default() };
    FetchRequest { max_wait_ms, min_bytes: 1, max_bytes, topics: vec![topic], ..FetchRequest::default() }
}

/// The partition of an answer to [`request`].
///
/// # Errors
/// The broker refused.
pub(super) fn answered(answer: FetchResponse) -> Result<FetchPartitionResponse, ClientError> {
    check(Fetch::NAME, answer.error_code)?;
    let mut partitions = answer.responses.into_iter().flat_map(|topic| topic.partitions);
    let partition = partitions.next().ok_or(ClientError::Incomplete { api: Fetch::NAME })?;
    check(Fetch::NAME, partition.error_code)?;
    Ok(partition)
}

/// Appends `batches` times the batch, and gives the offset of the first.
pub(super) fn fill(topic: &Topic, partition: usize, batch: &Batch, batches: u64) -> Result<i64, BenchError> {
    let mut client = topic.connect(partition)?;
    let version = client.version_up_to::<Produce>(PRODUCE_VERSION)?;
    let first = client.call_at::<Produce>(version, &topic.produce_request(partition, ALL, batch))?;
    let frame = topic.produce_frame(version, partition, ALL, batch);
    let rest = (1..batches).map(|_| &frame);
    send_all(&mut client, rest, FILL_IN_FLIGHT, |client| {
        appended(&client.answer::<Produce>(version)?)?;
        Ok(batch.bytes.len() as u64)
    })?;
    Ok(appended(&first)?)
}

/// Bytes of an answer to [`request`] before its records.
fn head_bytes(topic: &Str, version: i16) -> usize {
    let partition = FetchPartitionResponse { records: Records::EMPTY, ..FetchPartitionResponse::default() };
    let topic =
        FetchTopicResponse { topic: topic.clone(), partitions: vec![partition], ..Default::default() };
    let answer = FetchResponse { responses: vec![topic], ..FetchResponse::default() };
    response_header_size(Fetch::KEY, Fetch::is_flexible(version)) + answer.size(Fetch::encode(version))
}

/// Bytes of records in an answer, of which only the `head` was kept.
fn fetched_bytes(mut head: Head, version: i16) -> Result<u64, ClientError> {
    if head.dropped_bytes > 0 {
        // The records were dropped: what is left is an answer without any once it says so.
        let length = head.bytes.len().saturating_sub(RECORDS_LENGTH_BYTES);
        head.bytes[length..].fill(0);
    }
    answered(decode_answer::<Fetch>(version, head.bytes)?)?;
    match head.dropped_bytes {
        0 => Err(ClientError::Incomplete { api: Fetch::NAME }),
        bytes => Ok(bytes as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::header::encode_response_header;
    use crate::protocol::wire::Chunks;
    use bytes::Bytes;

    /// An answer from its correlation id on, cut as [`Connection::receive`] does.
    fn head(partition: FetchPartitionResponse, version: i16) -> Head {
        let topic =
            FetchTopicResponse { topic: "bench".into(), partitions: vec![partition], ..Default::default() };
        let answer =
            FetchResponse { responses: vec![topic], throttle_time_ms: 3, ..FetchResponse::default() };
        let mut out = Chunks::default();
        encode_response_header(&mut out, Fetch::KEY, false, 0);
        answer.encode(&mut out, Fetch::encode(version));
        let mut bytes = out.concat().unwrap().to_vec();
        let dropped = bytes.split_off(bytes.len().min(head_bytes(&"bench".into(), version)));
        Head { bytes, dropped_bytes: dropped.len() }
    }

    #[test]
    fn records_are_counted_unseen_in_every_version() {
        for version in Fetch::MIN_VERSION..=FETCH_VERSION {
            let records = Records::Bytes(Bytes::from(vec![7; 5_000]));
            let partition = FetchPartitionResponse { records, high_watermark: 9, ..Default::default() };
            assert_eq!(fetched_bytes(head(partition, version), version).unwrap(), 5_000, "{version}");
        }
    }

    #[test]
    fn an_answer_without_records_does_not_count() {
        let empty = FetchPartitionResponse { records: Records::EMPTY, ..FetchPartitionResponse::default() };
        let refused = FetchPartitionResponse { error_code: 1, ..empty.clone() };
        let fetched = |partition| fetched_bytes(head(partition, 11), 11).unwrap_err();
        assert!(matches!(fetched(empty), ClientError::Incomplete { api: "Fetch" }));
        assert!(matches!(fetched(refused), ClientError::Refused { code: 1, .. }));
    }
}
