//! Batches, one a partition, and their way to the leaders.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::input::{NewHeader, NewRecord};
use super::{Flags, ProduceError};
use crate::cli::CommandError;
use crate::cli::client::{ClientError, Cluster, Frame, Patience, TopicPartition, code_of};
use crate::clock::Clock;
use crate::protocol::ErrorCode;
use crate::protocol::api::Api;
use crate::protocol::messages::Produce;
use crate::protocol::messages::metadata::MetadataTopicResponse;
use crate::protocol::messages::produce::{
    ProducePartition, ProducePartitionResponse, ProduceRequest, ProduceTopic,
};
use crate::protocol::wire::{Records, Str};
use crate::record::partitioner::by_key;
use crate::record::{BatchBuilder, Codec};

/// Newest version of Produce that names its topic; later ones have an id, which not every broker gives.
const PRODUCE_VERSION: i16 = 12;
/// Bytes of records over all partitions that are gathered at most.
const GATHERED_MAX_BYTES: usize = 32 << 20;
/// Bytes that a record takes beside its key, value and headers, at most.
const RECORD_OVERHEAD_BYTES: usize = 32;
/// How long a topic may take to appear that the broker makes when it is asked for.
const CREATION_PATIENCE: Duration = Duration::from_secs(5);

/// Gathers records and sends them.
pub(super) struct Sender {
    cluster: Cluster,
    topic: Str,
    acks: i16,
    codec: Codec,
    batch_bytes: usize,
    partition: Option<i32>,
    headers: Vec<NewHeader>,
    /// The leader of each partition, -1 if none is known.
    leaders: Vec<i32>,
    gathered: BTreeMap<usize, BatchBuilder>,
    gathered_bytes: usize,
    /// Where records without a key go until the next [`Self::send`].
    sticky: usize,
    acknowledged: u64,
    clock: Clock,
}

/// A batch on its way.
struct Pending {
    batch: Bytes,
    records: u64,
}

/// Batches that were not acknowledged.
struct Failure {
    partitions: Vec<usize>,
    error: ClientError,
}

impl Sender {
    /// A sender to the topic of `flags`.
    ///
    /// # Errors
    /// There is no such topic, and the broker makes none.
    pub(super) fn find(mut cluster: Cluster, flags: &Flags) -> Result<Self, ClientError> {
        let leaders = leaders(&find_or_create(&mut cluster, &flags.topic)?);
        let headers = flags.header.iter().map(|(key, value)| (key.clone(), Some(value.clone())));
        Ok(Self {
            topic: flags.topic.clone(),
            acks: flags.acks,
            codec: flags.compression,
            batch_bytes: flags.batch_bytes as usize,
            partition: flags.partition,
            headers: headers.collect(),
            sticky: fastrand::usize(..leaders.len()),
            leaders,
            gathered: BTreeMap::new(),
            gathered_bytes: 0,
            acknowledged: 0,
            clock: Clock::system(),
            cluster,
        })
    }

    /// Whether a record fits in with what is gathered.
    pub(super) fn has_room(&self, record: &NewRecord) -> bool {
        let bytes = self.bytes(record);
        let partition = self.place(record);
        let batch = self.gathered.get(&partition);
        self.gathered_bytes + bytes <= GATHERED_MAX_BYTES
            && batch.is_none_or(|batch| batch.block_bytes() + bytes <= self.batch_bytes)
    }

    /// Adds a record to those that are sent next.
    ///
    /// # Errors
    /// It names a partition that there is not.
    pub(super) fn push(&mut self, record: NewRecord) -> Result<(), ProduceError> {
        let partition = self.place(&record);
        if partition >= self.leaders.len() {
            return Err(ProduceError::Partition {
                place: record.place.to_string(),
                line: record.line,
                topic: self.topic.clone(),
                partition: partition as i32,
                partitions: self.leaders.len(),
            });
        }
        self.gathered_bytes += self.bytes(&record);
        let headers: Vec<(&str, Option<&[u8]>)> = (record.headers.iter().chain(&self.headers))
            .map(|(key, value)| (key.as_str(), value.as_deref()))
            .collect();
        let timestamp = record.timestamp.unwrap_or_else(|| self.clock.now_ms());
        let batch = self.gathered.entry(partition).or_insert_with(|| BatchBuilder::new().codec(self.codec));
        batch.push(timestamp, record.key.as_deref(), record.value.as_deref(), &headers);
        Ok(())
    }

    /// Sends what is gathered, and tries again what may yet go well until the timeout.
    ///
    /// # Errors
    /// Something was not acknowledged.
    pub(super) fn send(&mut self) -> Result<(), CommandError> {
        let gathered = std::mem::take(&mut self.gathered).into_iter();
        let pending = |(partition, batch): (usize, BatchBuilder)| {
            (partition, Pending { records: batch.len() as u64, batch: batch.build() })
        };
        let mut pending: BTreeMap<usize, Pending> = gathered.map(pending).collect();
        self.gathered_bytes = 0;
        self.sticky = fastrand::usize(..self.leaders.len());
        let mut patience = Patience::new(self.cluster.timeout());
        let (mut errors, mut lost) = (Vec::new(), 0);
        while !pending.is_empty() {
            let failed = self.attempt(&mut pending);
            let (again, fatal): (Vec<_>, Vec<_>) =
                failed.into_iter().partition(|failure| is_worth_another_try(&failure.error));
            let goes_on = !again.is_empty() && patience.pause();
            for failure in fatal.into_iter().chain(if goes_on { Vec::new() } else { again }) {
                let of = |partition| pending.remove(partition).map_or(0, |pending| pending.records);
                lost += failure.partitions.iter().map(of).sum::<u64>();
                errors.push(failure.error);
            }
            // What cannot be learned now is learned at the next try.
            if goes_on && let Ok(topic) = self.cluster.topic(&self.topic) {
                self.leaders = leaders(&topic);
            }
        }
        if errors.is_empty() {
            return Ok(());
        }
        Err(ProduceError::NotAcknowledged { acknowledged: self.acknowledged, lost, errors }.into())
    }

    /// Sends each batch once, takes those away that are acknowledged, and says what happened to the others.
    fn attempt(&mut self, pending: &mut BTreeMap<usize, Pending>) -> Vec<Failure> {
        let mut failed = Vec::new();
        let mut by_leader: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        for partition in pending.keys() {
            let leader = self.leaders.get(*partition).copied().unwrap_or(-1);
            by_leader.entry(leader).or_default().push(*partition);
        }
        for (leader, partitions) in by_leader {
            let answers = match self.append(leader, &partitions, pending) {
                Ok(answers) => answers,
                Err(error) => {
                    let places = partitions.iter().map(|partition| self.named(*partition));
                    let error = error.about(places.collect::<Vec<_>>().join(", "));
                    failed.push(Failure { partitions, error });
                    continue;
                }
            };
            for partition in partitions {
                let answer = answers.iter().find(|answer| answer.index == partition as i32);
                match self.check(partition, answer) {
                    Ok(()) => {
                        self.acknowledged += pending.remove(&partition).map_or(0, |pending| pending.records);
                    }
                    Err(error) => failed.push(Failure { partitions: vec![partition], error }),
                }
            }
        }
        failed
    }

    fn append(
        &mut self,
        leader: i32,
        partitions: &[usize],
        pending: &BTreeMap<usize, Pending>,
    ) -> Result<Vec<ProducePartitionResponse>, ClientError> {
        let data = |partition: &usize| ProducePartition {
            index: *partition as i32,
            records: Records::Bytes(
                pending.get(partition).map(|pending| pending.batch.clone()).unwrap_or_default(),
            ),
        };
        let topic = ProduceTopic {
            name: self.topic.clone(),
            partition_data: partitions.iter().map(data).collect(),
            ..ProduceTopic::default()
        };
        let request = ProduceRequest {
            acks: self.acks,
            timeout_ms: self.cluster.timeout_ms(),
            topic_data: vec![topic],
            ..ProduceRequest::default()
        };
        let unanswered = self.acks == 0;
        let answer = self.cluster.using(leader, |connection| {
            let version = connection.version_up_to::<Produce>(PRODUCE_VERSION)?;
            connection.send([&Frame::new::<Produce>(version, &request)])?;
            if unanswered { Ok(None) } else { connection.answer::<Produce>(version).map(Some) }
        })?;
        Ok(match answer {
            Some(answer) => {
                answer.responses.into_iter().flat_map(|topic| topic.partition_responses).collect()
            }
            None => partitions
                .iter()
                .map(|partition| ProducePartitionResponse { index: *partition as i32, ..Default::default() })
                .collect(),
        })
    }

    fn check(&self, partition: usize, answer: Option<&ProducePartitionResponse>) -> Result<(), ClientError> {
        let answer = answer.ok_or(ClientError::Incomplete { api: Produce::NAME })?;
        let of_record =
            answer.record_errors.first().and_then(|error| error.batch_index_error_message.as_ref());
        code_of(&self.named(partition), answer.error_code, of_record.or(answer.error_message.as_ref()))
    }

    /// `topic-partition`, as errors name it.
    fn named(&self, partition: usize) -> String {
        TopicPartition::new(&self.topic, partition as i32).to_string()
    }

    /// The partition that a record goes to; one that it names need not be there.
    fn place(&self, record: &NewRecord) -> usize {
        match (record.partition.or(self.partition), &record.key) {
            (Some(partition), _) => partition as usize,
            (None, Some(key)) => by_key(key, self.leaders.len()),
            (None, None) => self.sticky,
        }
    }

    /// Bytes that a record takes in a batch, at most.
    fn bytes(&self, record: &NewRecord) -> usize {
        let header =
            |(key, value): &NewHeader| key.len() + value.as_ref().map_or(0, Vec::len) + RECORD_OVERHEAD_BYTES;
        record.key.as_ref().map_or(0, Vec::len)
            + record.value.as_ref().map_or(0, Vec::len)
            + record.headers.iter().chain(&self.headers).map(header).sum::<usize>()
            + RECORD_OVERHEAD_BYTES
    }
}

/// Producers try an unknown partition again too: its leader may not have heard of it yet.
fn is_worth_another_try(error: &ClientError) -> bool {
    error.is_retriable() || error.is(ErrorCode::UnknownTopicOrPartition)
}

/// The topic; if it is not there, the broker is given some time to make it.
fn find_or_create(cluster: &mut Cluster, name: &Str) -> Result<MetadataTopicResponse, ClientError> {
    let mut patience = Patience::new(cluster.timeout());
    let mut creation = Patience::new(CREATION_PATIENCE.min(cluster.timeout()));
    loop {
        let found = cluster.metadata(Some(std::slice::from_ref(name)), true).and_then(|topics| {
            let topic = topics.into_iter().next().ok_or(ClientError::Incomplete { api: "Metadata" })?;
            code_of(&format!("topic {name:?}"), topic.error_code, None)?;
            match topic.partitions.is_empty() {
                true => Err(ClientError::NoLeader { what: format!("topic {name:?}") }),
                false => Ok(topic),
            }
        });
        match found {
            Err(error) if error.is(ErrorCode::UnknownTopicOrPartition) && creation.pause() => {}
            Err(error) if error.is_retriable() && patience.pause() => {}
            done => return done,
        }
    }
}

/// The leaders by partition. Partitions are numbered without gaps.
fn leaders(topic: &MetadataTopicResponse) -> Vec<i32> {
    topic.partitions.iter().map(|partition| partition.leader_id).collect()
}
