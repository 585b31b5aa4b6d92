//! Records of several partitions from their leaders, in the order of each partition.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;

use super::ConsumeError;
use crate::cli::client::{ClientError, Cluster, Isolation, Patience, TopicPartition, code_of};
use crate::protocol::api::Api;
use crate::protocol::messages::Fetch;
use crate::protocol::messages::fetch::{
    FetchAbortedTransaction, FetchPartition, FetchPartitionResponse, FetchRequest, FetchTopic,
};
use crate::protocol::wire::{Records, Str};
use crate::record::records::{records, split_batch};
use crate::record::{BatchHeader, HEADER_BYTES, InvalidBatch, Record};

/// Newest version of Fetch that names its topics; later ones have ids, which not every broker gives.
const FETCH_VERSION: i16 = 12;
/// Longest that a fetch waits for records, ms: as long may it take until a Ctrl-C is seen.
const MAX_WAIT_MS: i32 = 500;
const FETCH_MAX_BYTES: i32 = 32 << 20;
const PARTITION_MAX_BYTES: i32 = 1 << 20;
/// Most that a batch may decompress to, bytes.
const BATCH_MAX_BYTES: usize = 512 << 20;
/// Control records' type of an abort marker, behind two bytes of version.
const ABORT_KEY: [u8; 2] = [0, 0];

/// How far a partition is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Reading {
    /// The next offset.
    pub(super) position: i64,
    /// Where reading ends (exclusive); `None` if it does not.
    pub(super) end_exclusive: Option<i64>,
}

impl Reading {
    /// Whether all that is wanted has been read.
    pub(super) fn is_done(&self) -> bool {
        self.end_exclusive.is_some_and(|end| self.position >= end)
    }
}

/// All partitions that are read.
pub(super) type Readings = BTreeMap<TopicPartition, Reading>;

/// Reads on in partitions.
pub(super) struct Fetcher {
    isolation: Isolation,
    leaders: HashMap<TopicPartition, i32>,
    /// The partition that comes first changes from fetch to fetch: only that one gets a batch whatever its size.
    turn: usize,
    patience: Option<Patience>,
}

impl Fetcher {
    pub(super) fn new(isolation: Isolation) -> Self {
        Self { isolation, leaders: HashMap::new(), turn: 0, patience: None }
    }

    /// Asks each leader once, hands the records to `take` until it wants no more, and moves the positions on behind what
    /// was taken. What fails but may go well is passed over until the cluster's timeout.
    ///
    /// # Errors
    /// A broker's for good, unreadable batches, and what `take` gives.
    pub(super) fn fetch(
        &mut self,
        cluster: &mut Cluster,
        readings: &mut Readings,
        mut take: impl FnMut(&TopicPartition, Record) -> Result<bool, ConsumeError>,
    ) -> Result<(), ConsumeError> {
        match self.fetch_once(cluster, readings, &mut take) {
            Err(ConsumeError::Client(error)) if error.is_retriable() => {
                self.leaders.clear();
                let timeout = cluster.timeout();
                let patience = self.patience.get_or_insert_with(|| Patience::new(timeout));
                if patience.pause() { Ok(()) } else { Err(error.into()) }
            }
            done => {
                self.patience = None;
                done
            }
        }
    }

    fn fetch_once(
        &mut self,
        cluster: &mut Cluster,
        readings: &mut Readings,
        take: &mut impl FnMut(&TopicPartition, Record) -> Result<bool, ConsumeError>,
    ) -> Result<(), ConsumeError> {
        let by_leader = self.by_leader(cluster, readings)?;
        // One leader after the other is waited for.
        let max_wait_ms = MAX_WAIT_MS / i32::try_from(by_leader.len()).unwrap_or(i32::MAX).max(1);
        for (leader, places) in by_leader {
            let request = request(&places, self.isolation, max_wait_ms);
            let answer = cluster.call_up_to::<Fetch>(leader, FETCH_VERSION, &request)?;
            code_of(Fetch::NAME, answer.error_code, None)?;
            for topic in answer.responses {
                for partition in topic.partitions {
                    let place = TopicPartition::new(&topic.topic, partition.partition_index);
                    let Some(reading) = readings.get_mut(&place) else { continue };
                    if let Some(refused) = place.refusal(partition.error_code) {
                        return Err(refused.into());
                    }
                    if !self.read(&place, partition, reading, take)? {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// The partitions of each leader that are not done, with where to go on.
    fn by_leader(
        &mut self,
        cluster: &mut Cluster,
        readings: &Readings,
    ) -> Result<BTreeMap<i32, Vec<(TopicPartition, i64)>>, ClientError> {
        let mut open: Vec<_> = readings.iter().filter(|(_, reading)| !reading.is_done()).collect();
        if open.iter().any(|(place, _)| !self.leaders.contains_key(*place)) {
            self.leaders = cluster.leaders(open.iter().map(|(place, _)| *place))?;
        }
        let first = self.turn % open.len().max(1);
        open.rotate_left(first);
        self.turn = self.turn.wrapping_add(1);
        let mut by_leader: BTreeMap<i32, Vec<(TopicPartition, i64)>> = BTreeMap::new();
        for (place, reading) in open {
            let leader = self.leaders.get(place);
            let leader = leader.ok_or_else(|| ClientError::NoLeader { what: place.to_string() })?;
            by_leader.entry(*leader).or_default().push((place.clone(), reading.position));
        }
        Ok(by_leader)
    }

    /// Hands on the records of an answer; `false` once nothing more is wanted.
    fn read(
        &self,
        place: &TopicPartition,
        answer: FetchPartitionResponse,
        reading: &mut Reading,
        take: &mut impl FnMut(&TopicPartition, Record) -> Result<bool, ConsumeError>,
    ) -> Result<bool, ConsumeError> {
        let Records::Bytes(mut batches) = answer.records else {
            unreachable!("what is decoded is in memory")
        };
        let mut aborted = match self.isolation {
            Isolation::ReadCommitted => Aborted::new(answer.aborted_transactions.unwrap_or_default()),
            Isolation::ReadUncommitted => Aborted::default(),
        };
        while let Some((header, payload)) = next_batch(place, reading.position, &mut batches)? {
            let unreadable = |source| ConsumeError::Batch {
                place: place.clone(),
                base_offset: header.base_offset,
                source,
            };
            let is_data = aborted.is_data(&header, &payload).map_err(unreadable)?;
            if is_data && header.last_offset() >= reading.position {
                for record in records(&header, &payload, BATCH_MAX_BYTES).map_err(unreadable)? {
                    let record = record.map_err(unreadable)?;
                    if reading.is_done() {
                        return Ok(true);
                    }
                    if record.offset < reading.position
                        || reading.end_exclusive.is_some_and(|end| record.offset >= end)
                    {
                        continue;
                    }
                    let next = record.offset + 1;
                    let wants_more = take(place, record)?;
                    reading.position = next;
                    if !wants_more {
                        return Ok(false);
                    }
                }
            }
            // Also over markers, and over records that compaction has removed.
            let behind = header.last_offset() + 1;
            let behind = reading.end_exclusive.map_or(behind, |end| behind.min(end));
            reading.position = reading.position.max(behind);
        }
        Ok(true)
    }
}

/// The next whole batch, its checksum compared.
fn next_batch(
    place: &TopicPartition,
    position: i64,
    batches: &mut Bytes,
) -> Result<Option<(BatchHeader, Bytes)>, ConsumeError> {
    let invalid = |source| ConsumeError::Batch { place: place.clone(), base_offset: position, source };
    match split_batch(batches) {
        Some((header, payload)) => match header.checksum(&payload) {
            computed if computed == header.crc => Ok(Some((header, payload))),
            computed => Err(invalid(InvalidBatch::Checksum { stored: header.crc, computed })),
        },
        // The broker has cut the last one off at the limit: it comes with the next answer.
        None if batches.len() < HEADER_BYTES => Ok(None),
        None => BatchHeader::parse(batches).map(|_| None).map_err(invalid),
    }
}

/// Which batches of an answer belong to transactions that were aborted. KIP-98.
#[derive(Default)]
struct Aborted {
    /// To come, the last first.
    transactions: Vec<FetchAbortedTransaction>,
    /// Producers in an aborted transaction at this point of the log.
    producers: HashSet<i64>,
}

impl Aborted {
    fn new(mut transactions: Vec<FetchAbortedTransaction>) -> Self {
        transactions.sort_by_key(|transaction| std::cmp::Reverse(transaction.first_offset));
        Self { transactions, producers: HashSet::new() }
    }

    /// Whether a batch holds data that is to be seen. Batches must be asked about in the order of the log.
    fn is_data(&mut self, header: &BatchHeader, payload: &Bytes) -> Result<bool, InvalidBatch> {
        while let Some(next) = self.transactions.pop_if(|next| next.first_offset <= header.last_offset()) {
            self.producers.insert(next.producer_id);
        }
        if header.attributes.is_control() {
            let marker = records(header, payload, BATCH_MAX_BYTES)?.next().transpose()?;
            let kind = marker.and_then(|marker| marker.key);
            if kind.is_some_and(|kind| kind.get(2..4) == Some(&ABORT_KEY)) {
                self.producers.remove(&header.producer_id);
            }
            return Ok(false);
        }
        Ok(!(header.attributes.is_transactional() && self.producers.contains(&header.producer_id)))
    }
}

fn request(places: &[(TopicPartition, i64)], isolation: Isolation, max_wait_ms: i32) -> FetchRequest {
    let mut topics: Vec<FetchTopic> = Vec::new();
    for (place, position) in places {
        let partition = FetchPartition {
            partition: place.partition,
            fetch_offset: *position,
            partition_max_bytes: PARTITION_MAX_BYTES,
            ..FetchPartition::default()
        };
        let is_same = |topic: &&mut FetchTopic| Str::eq(&topic.topic, &place.topic);
        match topics.last_mut().filter(is_same) {
            Some(topic) => topic.partitions.push(partition),
            None => topics.push(FetchTopic {
                topic: place.topic.clone(),
                partitions: vec![partition],
                ..FetchTopic::default()
            }),
        }
    }
    FetchRequest {
        max_wait_ms,
        min_bytes: 1,
        max_bytes: FETCH_MAX_BYTES,
        isolation_level: isolation as i8,
        topics,
        ..FetchRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::messages::fetch::FetchPartitionResponse;
    use crate::record::BatchBuilder;

    fn stored(builder: BatchBuilder, base_offset: i64) -> Vec<u8> {
        let mut batch = builder.build_valid();
        batch.assign(base_offset, 0);
        batch.to_bytes().to_vec()
    }

    fn data(value: &str) -> BatchBuilder {
        BatchBuilder::new().record(1, None, Some(value.as_bytes()))
    }

    fn marker(producer_id: i64, kind: u8) -> BatchBuilder {
        let batch = BatchBuilder::new().producer(producer_id, 0, -1).transactional().control();
        batch.record(1, Some(&[0, 0, 0, kind]), Some(&[0; 6]))
    }

    /// What is read of these bytes, and where it stops.
    fn read(
        bytes: &[u8],
        isolation: Isolation,
        aborted: &[(i64, i64)],
        mut reading: Reading,
    ) -> Result<(Vec<String>, i64), ConsumeError> {
        let aborted = aborted.iter().map(|(producer_id, first_offset)| FetchAbortedTransaction {
            producer_id: *producer_id,
            first_offset: *first_offset,
        });
        let answer = FetchPartitionResponse {
            records: Records::Bytes(Bytes::copy_from_slice(bytes)),
            aborted_transactions: Some(aborted.collect()),
            ..FetchPartitionResponse::default()
        };
        let mut values = Vec::new();
        Fetcher::new(isolation).read(
            &TopicPartition::new(&"t".into(), 0),
            answer,
            &mut reading,
            &mut |_, record| {
                values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
                Ok(true)
            },
        )?;
        Ok((values, reading.position))
    }

    const ALL: Reading = Reading { position: 0, end_exclusive: None };

    #[test]
    fn aborted_transactions_are_passed_over_when_asked_for_what_is_committed() {
        let of = |id: i64, value: &str| data(value).producer(id, 0, 0).transactional();
        let log = [
            stored(of(1, "aborted"), 0),
            stored(of(2, "committed"), 1),
            stored(data("plain"), 2),
            stored(marker(1, 0), 3),
            stored(marker(2, 1), 4),
            stored(of(1, "again"), 5),
            stored(marker(1, 1), 6),
        ];
        let log = log.concat();
        let (values, position) = read(&log, Isolation::ReadCommitted, &[(1, 0)], ALL).unwrap();
        assert_eq!((values.join(" ").as_str(), position), ("committed plain again", 7));
        let (values, position) = read(&log, Isolation::ReadUncommitted, &[], ALL).unwrap();
        assert_eq!((values.join(" ").as_str(), position), ("aborted committed plain again", 7));
    }

    #[test]
    fn what_lies_before_the_position_behind_the_end_or_beyond_the_cut_is_left_out() {
        let three = data("a").record(1, None, Some(b"b")).record(1, None, Some(b"c"));
        let log = [stored(three, 10), stored(data("d"), 13)].concat();
        let from = |position, end_exclusive| Reading { position, end_exclusive };
        let of = |bytes: &[u8], reading| {
            let (values, position) = read(bytes, Isolation::ReadUncommitted, &[], reading).unwrap();
            (values.join(""), position)
        };
        assert_eq!(of(&log, from(11, None)), ("bcd".to_owned(), 14));
        assert_eq!(of(&log, from(10, Some(12))), ("ab".to_owned(), 12));
        assert_eq!(of(&log[..log.len() - 1], from(10, None)), ("abc".to_owned(), 13));
    }

    #[test]
    fn damage_is_named_with_its_place() {
        let mut log = stored(data("a"), 5);
        *log.last_mut().unwrap() ^= 1;
        let error = read(&log, Isolation::ReadUncommitted, &[], Reading { position: 5, ..ALL }).unwrap_err();
        assert!(error.to_string().starts_with("t-0 at offset 5: checksum"), "{error}");
        let mut old = stored(data("a"), 5);
        old[16] = 1;
        let error = read(&old, Isolation::ReadUncommitted, &[], Reading { position: 5, ..ALL }).unwrap_err();
        assert!(error.to_string().contains("format version 1"), "{error}");
    }
}
