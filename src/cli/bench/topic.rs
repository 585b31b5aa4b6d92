//! The topic of a run, and the batch that is sent to it over and over.

use std::thread::sleep;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{BATCH_MAX_BYTES, BATCHES_MAX_BYTES, BatchFlags, BenchError};
use crate::cli::client::{ClientError, Connection, Frame, check};
use crate::clock::Clock;
use crate::protocol::ErrorCode;
use crate::protocol::api::Api;
use crate::protocol::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use crate::protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use crate::protocol::messages::metadata::{MetadataRequest, MetadataResponse, MetadataTopic};
use crate::protocol::messages::produce::{ProducePartition, ProduceRequest, ProduceResponse, ProduceTopic};
use crate::protocol::messages::{CreateTopics, ListOffsets, Metadata, Produce};
use crate::protocol::wire::{Records, Str};
use crate::record::BatchBuilder;

/// Newest version of Produce that names its topic; later ones have an id, which not every broker gives.
pub(super) const PRODUCE_VERSION: i16 = 12;
/// Longest that a broker may take until every partition has a leader.
const LEADERS_PATIENCE: Duration = Duration::from_secs(60);
const LEADERS_POLL: Duration = Duration::from_millis(5);
/// ListOffsets' timestamp of the end of the log.
const LATEST: i64 = -1;
/// How long the broker may wait for replicas, ms.
const PRODUCE_TIMEOUT_MS: i32 = 30_000;
/// Bytes of a key.
const KEY_BYTES: usize = 10;
/// Seed of the records' bytes: every run sends the same.
const SEED: u64 = 4;

/// A topic that is ready to be written to and read from.
pub(super) struct Topic {
    pub(super) name: Str,
    /// host:port of each partition's leader, by partition.
    pub(super) leaders: Vec<String>,
}

impl Topic {
    /// Makes the topic unless it is there, and waits until each partition has a leader.
    ///
    /// # Errors
    /// The broker refuses, or the topic is there with another number of partitions.
    pub(super) fn prepare(bootstrap: &str, name: &str, partitions: u32) -> Result<Self, BenchError> {
        let name = Str::from(name);
        let mut client = Connection::connect(bootstrap)?;
        create(&mut client, &name, partitions)?;
        let deadline = Instant::now() + LEADERS_PATIENCE;
        while Instant::now() < deadline {
            if let Some(topic) = Self::find(&mut client, &name)? {
                let has = topic.leaders.len();
                if has != partitions as usize {
                    return Err(BenchError::Partitions { topic: name.to_string(), has, partitions });
                }
                if topic.leads_everywhere()? {
                    return Ok(topic);
                }
            }
            sleep(LEADERS_POLL);
        }
        Err(BenchError::NoLeader { topic: name.to_string(), seconds: LEADERS_PATIENCE.as_secs() })
    }

    /// Whether all leaders know that they lead. Kafka names a leader some time before its log takes records.
    fn leads_everywhere(&self) -> Result<bool, BenchError> {
        let mut leaders: Vec<&String> = self.leaders.iter().collect();
        leaders.sort();
        leaders.dedup();
        for leader in leaders {
            let led = (0..self.leaders.len()).filter(|&partition| self.leaders[partition] == *leader);
            let partitions = led.map(|partition| ListOffsetsPartition {
                partition_index: partition as i32,
                timestamp: LATEST,
                ..ListOffsetsPartition::default()
            });
            let topic = ListOffsetsTopic { name: self.name.clone(), partitions: partitions.collect() };
            let request = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() };
            let answer = Connection::connect(leader)?.call::<ListOffsets>(&request)?;
            for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
                match ErrorCode::from_code(partition.error_code) {
                    Some(error) if error.is_retriable() => return Ok(false),
                    _ => check(ListOffsets::NAME, partition.error_code)?,
                }
            }
        }
        Ok(true)
    }

    /// The topic, if it is there and each partition has a leader.
    ///
    /// # Errors
    /// The socket's; an answer that is none.
    pub(super) fn find(client: &mut Connection, name: &Str) -> Result<Option<Self>, ClientError> {
        let wanted = MetadataTopic { name: Some(name.clone()), ..MetadataTopic::default() };
        let answer = client.call::<Metadata>(&MetadataRequest {
            topics: Some(vec![wanted]),
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        })?;
        Ok(leaders(&answer).map(|leaders| Self { name: name.clone(), leaders }))
    }

    /// The partitions that connection `index` of `connections` works on: each belongs to one connection, unless there
    /// are more connections than partitions.
    pub(super) fn partitions_of(&self, index: usize, connections: usize) -> Vec<usize> {
        let count = self.leaders.len();
        if index >= count { vec![index % count] } else { (index..count).step_by(connections).collect() }
    }

    /// A connection to the leader of `partition`.
    ///
    /// # Errors
    /// No connection.
    pub(super) fn connect(&self, partition: usize) -> Result<Connection, ClientError> {
        Connection::connect(&self.leaders[partition])
    }

    /// The request that appends `batch` to `partition`.
    pub(super) fn produce_frame(&self, version: i16, partition: usize, acks: i16, batch: &Batch) -> Frame {
        Frame::new::<Produce>(version, &self.produce_request(partition, acks, batch))
    }

    /// See [`Self::produce_frame`].
    pub(super) fn produce_request(&self, partition: usize, acks: i16, batch: &Batch) -> ProduceRequest {
        let records = Records::Bytes(batch.bytes.clone());
        let data = ProduceTopic {
            name: self.name.clone(),
            partition_data: vec![ProducePartition { index: partition as i32, records }],
            ..ProduceTopic::default()
        };
        ProduceRequest { acks, timeout_ms: PRODUCE_TIMEOUT_MS, topic_data: vec![data], ..Default::default() }
    }
}

/// The base offset that an append got.
///
/// # Errors
/// The broker refused it.
pub(super) fn appended(answer: &ProduceResponse) -> Result<i64, ClientError> {
    let partition = answer.responses.first().and_then(|topic| topic.partition_responses.first());
    let Some(partition) = partition else { return Err(ClientError::Incomplete { api: Produce::NAME }) };
    check(Produce::NAME, partition.error_code)?;
    Ok(partition.base_offset)
}

/// Records built once.
pub(super) struct Batch {
    pub(super) bytes: Bytes,
    pub(super) records: u32,
}

impl Batch {
    /// Builds the batch that `flags` ask for: keyless records of letters and digits, which compress about as text does.
    ///
    /// # Errors
    /// More bytes than a batch can have.
    pub(super) fn build(flags: &BatchFlags) -> Result<Self, BenchError> {
        let keys = (0..flags.batch_records).map(|_| None::<[u8; KEY_BYTES]>);
        Self::of(flags, keys, &mut fastrand::Rng::with_seed(SEED))
    }

    /// Builds batches as `flags` ask for, of records that have this many keys: each is there twice, in random order, so that of
    /// those that were sent last a part is already outdated.
    ///
    /// # Errors
    /// More bytes than a batch, or all of them together, can have.
    pub(super) fn build_keyed(flags: &BatchFlags, keys: u32) -> Result<Vec<Self>, BenchError> {
        let batches = (2 * u64::from(keys)).div_ceil(u64::from(flags.batch_records));
        let records = batches * u64::from(flags.batch_records);
        let bytes = records.saturating_mul(u64::from(flags.record_bytes) + KEY_BYTES as u64);
        if bytes > BATCHES_MAX_BYTES {
            return Err(BenchError::BatchesSize { bytes });
        }
        let mut random = fastrand::Rng::with_seed(SEED);
        let mut order: Vec<u32> = (0..keys).cycle().take(records as usize).collect();
        random.shuffle(&mut order);
        let keys_of = |keys: &[u32]| keys.iter().map(|key| Some(key_of(*key))).collect::<Vec<_>>();
        order
            .chunks(flags.batch_records as usize)
            .map(|keys| Self::of(flags, keys_of(keys).into_iter(), &mut random))
            .collect()
    }

    fn of(
        flags: &BatchFlags,
        keys: impl Iterator<Item = Option<[u8; KEY_BYTES]>>,
        random: &mut fastrand::Rng,
    ) -> Result<Self, BenchError> {
        let bytes = u64::from(flags.batch_records) * u64::from(flags.record_bytes);
        if bytes > BATCH_MAX_BYTES {
            return Err(BenchError::BatchSize { bytes });
        }
        let now_ms = Clock::system().now_ms();
        let mut builder = BatchBuilder::new().codec(flags.codec);
        for key in keys {
            let value: Vec<u8> = (0..flags.record_bytes).map(|_| random.alphanumeric() as u8).collect();
            builder.push(now_ms, key.as_ref().map(|key| &key[..]), Some(&value), &[]);
        }
        Ok(Self { bytes: builder.build(), records: flags.batch_records })
    }
}

/// A key as digits: all are of one length.
fn key_of(number: u32) -> [u8; KEY_BYTES] {
    let mut digits = [b'0'; KEY_BYTES];
    let mut left = number;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
    }
    digits
}

fn create(client: &mut Connection, name: &Str, partitions: u32) -> Result<(), ClientError> {
    let topic = CreatableTopic {
        name: name.clone(),
        num_partitions: partitions as i32,
        replication_factor: 1,
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
    let answer = client.call::<CreateTopics>(&request)?;
    let Some(created) = answer.topics.first() else {
        return Err(ClientError::Incomplete { api: CreateTopics::NAME });
    };
    if created.error_code == i16::from(ErrorCode::TopicAlreadyExists) {
        return Ok(());
    }
    check(&format!("{} of {name:?}", CreateTopics::NAME), created.error_code)
}

/// The leaders of the one topic in `answer`; `None` unless all are known.
fn leaders(answer: &MetadataResponse) -> Option<Vec<String>> {
    let topic = answer.topics.first()?;
    let address = |leader_id: i32| {
        let leader = answer.brokers.iter().find(|broker| broker.node_id == leader_id)?;
        Some(format!("{}:{}", leader.host, leader.port))
    };
    let mut partitions: Vec<_> = topic.partitions.iter().collect();
    partitions.sort_by_key(|partition| partition.partition_index);
    let leaders: Option<Vec<String>> =
        partitions.iter().map(|partition| address(partition.leader_id)).collect();
    leaders.filter(|leaders| !leaders.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::messages::metadata::{MetadataBroker, MetadataPartition, MetadataTopicResponse};
    use crate::record::records::records;
    use crate::record::{BatchHeader, Codec, HEADER_BYTES};

    fn metadata(leader_ids: &[i32]) -> MetadataResponse {
        let partition = |(index, leader_id): (usize, &i32)| MetadataPartition {
            partition_index: index as i32,
            leader_id: *leader_id,
            ..MetadataPartition::default()
        };
        let broker = |node_id| MetadataBroker { node_id, host: "h".into(), port: node_id, rack: None };
        let partitions = leader_ids.iter().enumerate().map(partition).rev().collect();
        MetadataResponse {
            brokers: vec![broker(1), broker(2)],
            topics: vec![MetadataTopicResponse { partitions, ..MetadataTopicResponse::default() }],
            ..MetadataResponse::default()
        }
    }

    #[test]
    fn leaders_are_known_by_partition_once_all_are_there() {
        assert_eq!(leaders(&metadata(&[2, 1, 2])).unwrap(), ["h:2", "h:1", "h:2"]);
        assert_eq!(leaders(&metadata(&[2, -1])), None);
        assert_eq!(leaders(&metadata(&[])), None);
        assert_eq!(leaders(&MetadataResponse::default()), None);
    }

    #[test]
    fn each_partition_has_a_connection_and_each_connection_a_partition() {
        let of = |partitions: usize, connections: usize| -> Vec<Vec<usize>> {
            let topic = Topic { name: "t".into(), leaders: vec![String::new(); partitions] };
            (0..connections).map(|index| topic.partitions_of(index, connections)).collect()
        };
        assert_eq!(of(5, 2), [vec![0, 2, 4], vec![1, 3]]);
        assert_eq!(of(2, 2), [vec![0], vec![1]]);
        assert_eq!(of(2, 3), [vec![0], vec![1], vec![0]]);
    }

    #[test]
    fn a_batch_has_the_records_that_were_asked_for() {
        for codec in Codec::ALL {
            let flags = BatchFlags { record_bytes: 100, batch_records: 7, codec };
            let batch = Batch::build(&flags).unwrap();
            let header = BatchHeader::parse(&batch.bytes).unwrap();
            assert_eq!((header.record_count, header.attributes.codec().unwrap()), (7, codec));
            assert_eq!((header.size_bytes(), batch.records), (batch.bytes.len(), 7));
        }
        let flags = BatchFlags { record_bytes: 1 << 20, batch_records: 1 << 20, codec: Codec::None };
        assert!(matches!(Batch::build(&flags), Err(BenchError::BatchSize { .. })));
    }

    #[test]
    fn batches_of_many_keys_have_each_of_them_twice_and_are_of_one_size() {
        let flags = BatchFlags { record_bytes: 100, batch_records: 70, codec: Codec::None };
        let batches = Batch::build_keyed(&flags, 1_000).unwrap();
        assert_eq!(batches.len(), 29);
        let mut seen = std::collections::BTreeMap::<_, u32>::new();
        let mut keys = Vec::new();
        for batch in &batches {
            let header = BatchHeader::parse(&batch.bytes).unwrap();
            assert_eq!((header.record_count, batch.bytes.len()), (70, batches[0].bytes.len()));
            for record in records(&header, &batch.bytes.slice(HEADER_BYTES..), 1 << 20).unwrap() {
                let key = record.unwrap().key.unwrap();
                *seen.entry(key.clone()).or_default() += 1;
                keys.push(key);
            }
        }
        assert!(!keys.is_sorted());
        assert_eq!((seen.len(), seen.first_key_value().unwrap().0.as_ref()), (1_000, &b"0000000000"[..]));
        assert!(seen.values().all(|times| (2..=3).contains(times)), "30 more than 2,000 fill the last batch");
        let flags = BatchFlags { record_bytes: 1 << 20, batch_records: 1, codec: Codec::None };
        assert!(matches!(Batch::build_keyed(&flags, 100_000), Err(BenchError::BatchesSize { .. })));
    }

    #[test]
    fn a_refused_append_is_an_error() {
        use crate::protocol::messages::produce::{ProducePartitionResponse, ProduceTopicResponse};
        let answer = |error_code| {
            let partition = ProducePartitionResponse { error_code, base_offset: 9, ..Default::default() };
            let topic = ProduceTopicResponse { partition_responses: vec![partition], ..Default::default() };
            ProduceResponse { responses: vec![topic], ..ProduceResponse::default() }
        };
        assert_eq!(appended(&answer(0)).unwrap(), 9);
        assert!(matches!(appended(&answer(10)), Err(ClientError::Refused { code: 10, .. })));
        assert!(matches!(appended(&ProduceResponse::default()), Err(ClientError::Incomplete { .. })));
    }
}
