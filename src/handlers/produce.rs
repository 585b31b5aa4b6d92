//! Produce: append batches, answer when they count.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Handled, RequestContext, Started};
use crate::catalog::Topic;
use crate::log::{LogError, Partition};
use crate::operations::QueueRefusal;
use crate::protocol::ErrorCode;
use crate::protocol::messages::produce::{
    ProducePartition, ProducePartitionResponse, ProduceRecordError, ProduceRequest, ProduceResponse,
    ProduceTopic, ProduceTopicResponse,
};
use crate::protocol::wire::{Records, Str};
use crate::record::validate::is_costly;
use crate::record::{InvalidBatch, Rules, ValidBatch, validate};

/// The client id with which Kafka's own tools may write to internal topics.
const ADMIN_CLIENT: &str = "__admin_client";

/// Said with the code that producers of all kinds try again after: THROTTLING_QUOTA_EXCEEDED is final for librdkafka.
const QUEUE_FULL: &str = "The queue is full.";

/// First version that knows zstd. KIP-110.
const ZSTD_FROM_VERSION: i16 = 7;

/// Appends every batch, in order; one that fails does not touch its neighbours. What counts only after a sync is awaited
/// in a completion, while later requests of the connection append already.
pub async fn begin(cx: RequestContext, request: ProduceRequest) -> Started<ProduceResponse> {
    let acks = request.acks;
    let timeout = Duration::from_millis(request.timeout_ms.max(0) as u64);
    let mut response = ProduceResponse::default();
    let mut undurable = Vec::new();
    let mut is_waited_for = false;
    for topic in request.topic_data {
        let found = find(&cx, &topic);
        let mut answers = Vec::with_capacity(topic.partition_data.len());
        for wanted in topic.partition_data {
            let index = wanted.index;
            let appended = match (acks, &found) {
                (-1..=1, Ok(found)) => append(&cx, found, wanted, &request.transactional_id).await,
                (-1..=1, Err(code)) => Err(Refused::code(*code)),
                _ => Err(Refused::code(ErrorCode::InvalidRequiredAcks)),
            };
            answers.push(match appended {
                Ok((partition, answer, offset_end_exclusive)) => {
                    if !is_durable(&partition, offset_end_exclusive) {
                        let place = (response.responses.len(), answers.len());
                        undurable.push(Undurable { place, partition, offset_end_exclusive });
                    } else {
                        is_waited_for |= partition.is_waited_for();
                    }
                    answer
                }
                Err(refused) => refused.answer(index),
            });
        }
        response.responses.push(ProduceTopicResponse {
            name: topic.name,
            topic_id: topic.topic_id,
            partition_responses: answers,
        });
    }
    if is_waited_for {
        // The consumers that the records have woken go first: they have waited longer than the producer will.
        tokio::task::yield_now().await;
    }
    match acks {
        0 => Started::Done(silence(&response)),
        _ if undurable.is_empty() => Started::Done(Handled::Answer(response)),
        _ => Started::Later(Box::pin(async move {
            await_sync(&mut response, undurable, timeout).await;
            Handled::Answer(response)
        })),
    }
}

/// An appended batch that counts when the high watermark has passed it.
struct Undurable {
    /// Topic and partition in the response.
    place: (usize, usize),
    partition: Arc<Partition>,
    offset_end_exclusive: i64,
}

fn is_durable(partition: &Partition, offset_end_exclusive: i64) -> bool {
    partition.offsets().is_ok_and(|offsets| offsets.high_watermark >= offset_end_exclusive)
}

async fn await_sync(response: &mut ProduceResponse, undurable: Vec<Undurable>, timeout: Duration) {
    let deadline = tokio::time::Instant::now() + timeout;
    for Undurable { place: (topic, partition), partition: log, offset_end_exclusive } in undurable {
        let code = match tokio::time::timeout_at(deadline, log.durable(offset_end_exclusive)).await {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => ErrorCode::from(&error),
            // The data stays; the producer's retry will be recognized if it is idempotent.
            Err(_elapsed) => ErrorCode::RequestTimedOut,
        };
        let answer = &mut response.responses[topic].partition_responses[partition];
        *answer = Refused::code(code).answer(answer.index);
    }
}

/// With acks=0 nothing is answered; that something went wrong the client learns from its connection being closed.
fn silence(response: &ProduceResponse) -> Handled<ProduceResponse> {
    let failed = response
        .responses
        .iter()
        .flat_map(|topic| topic.partition_responses.iter().map(move |partition| (&topic.name, partition)));
    match failed.into_iter().find(|(_, partition)| partition.error_code != 0) {
        None => Handled::Silence,
        Some((topic, partition)) => {
            let code = ErrorCode::from_code(partition.error_code).map_or("", ErrorCode::name);
            Handled::Close(format!("produce with acks=0 to {topic}-{} failed: {code}", partition.index))
        }
    }
}

fn find(cx: &RequestContext, topic: &ProduceTopic) -> Result<Arc<Topic>, ErrorCode> {
    let found = match topic.topic_id.is_zero() && cx.version < 13 {
        true => cx.catalog.topic(&topic.name).ok_or(ErrorCode::UnknownTopicOrPartition)?,
        false => cx.catalog.topic_by_id(topic.topic_id).ok_or(ErrorCode::UnknownTopicId)?,
    };
    if found.is_internal() && cx.client_id.as_deref() != Some(ADMIN_CLIENT) {
        return Err(ErrorCode::InvalidTopicException);
    }
    Ok(found)
}

/// Appends one batch. Also gives its partition, and the end of its offsets.
async fn append(
    cx: &RequestContext,
    topic: &Arc<Topic>,
    wanted: ProducePartition,
    transactional_id: &Option<Str>,
) -> Result<(Arc<Partition>, ProducePartitionResponse, i64), Refused> {
    let partition = topic.partition(wanted.index).ok_or(Refused::code(ErrorCode::UnknownTopicOrPartition))?;
    let Records::Bytes(batch) = wanted.records else {
        return Err(Refused::code(ErrorCode::InvalidRecord));
    };
    let config = partition.config();
    let rules = Rules {
        max_message_bytes: config.max_message_bytes,
        segment_bytes: config.segment_bytes as usize,
        timestamp_type: config.message_timestamp_type,
        now_ms: cx.clock.now_ms(),
        timestamp_before_max_ms: config.message_timestamp_before_max_ms,
        timestamp_after_max_ms: config.message_timestamp_after_max_ms,
        compacted: config.compact,
        max_decompressed_message_bytes: config.max_decompressed_message_bytes,
        max_decompressed_batch_bytes: cx.config.max_decompressed_batch_bytes,
        compression: config.compression,
        zstd_allowed: cx.version >= ZSTD_FROM_VERSION,
    };
    let batch = check(cx, batch, rules).await?;
    if batch.header().attributes.is_transactional() {
        // No partition is ever part of a transaction before transactions exist: Kafka's own answer to that.
        return Err(Refused::code(match transactional_id {
            None => ErrorCode::TransactionalIdAuthorizationFailed,
            Some(_) => ErrorCode::InvalidTxnState,
        }));
    }
    // A limited queue is asked; of others, nothing is known here. As long as it is not full, it takes a whole batch.
    let is_queue = topic.queue.is_some();
    if is_queue && cx.door.room(topic).await?.is_some_and(|room| room == 0) {
        return Err(Refused {
            message: Some(QUEUE_FULL.to_owned()),
            ..Refused::code(ErrorCode::NotEnoughReplicas)
        });
    }
    partition.room().await;
    let appended = partition.append(batch)?;
    if is_queue || cx.catalog.is_read(topic.id) {
        cx.door.make_way(topic).await;
    }
    let answer = ProducePartitionResponse {
        index: wanted.index,
        base_offset: appended.base_offset,
        log_append_time_ms: appended.log_append_time_ms,
        log_start_offset: appended.log_start_offset,
        ..Default::default()
    };
    Ok((Arc::clone(partition), answer, appended.last_offset + 1))
}

/// Validates a batch, on another thread if that means to decompress or compress a lot.
async fn check(cx: &RequestContext, batch: Bytes, rules: Rules) -> Result<ValidBatch, Refused> {
    if !is_costly(&batch, rules.compression) {
        return Ok(validate(batch, &rules)?);
    }
    let _place = cx.decompressions.acquire().await;
    let checked = tokio::task::spawn_blocking(move || validate(batch, &rules)).await;
    // The pool is gone only when the process is about to be.
    Ok(checked.map_err(|_| Refused::code(ErrorCode::NotLeaderOrFollower))??)
}

/// Why a batch was not appended.
struct Refused {
    code: ErrorCode,
    message: Option<String>,
    record_errors: Vec<ProduceRecordError>,
}

impl Refused {
    fn code(code: ErrorCode) -> Self {
        Self { code, message: None, record_errors: Vec::new() }
    }

    fn answer(self, index: i32) -> ProducePartitionResponse {
        ProducePartitionResponse {
            index,
            error_code: self.code.into(),
            base_offset: -1,
            error_message: self.message.map(Str::from),
            record_errors: self.record_errors,
            ..Default::default()
        }
    }
}

impl From<InvalidBatch> for Refused {
    fn from(error: InvalidBatch) -> Self {
        let (code, message) = (ErrorCode::from(&error), Some(error.to_string()));
        let record_errors = match error {
            InvalidBatch::InvalidRecords { record_errors }
            | InvalidBatch::InvalidTimestamps { record_errors } => record_errors,
            _ => Vec::new(),
        };
        let told = |error: crate::record::validate::RecordError| ProduceRecordError {
            batch_index: error.batch_index,
            batch_index_error_message: Some(Str::from(error.message)),
        };
        Self { code, message, record_errors: record_errors.into_iter().map(told).collect() }
    }
}

impl From<QueueRefusal> for Refused {
    fn from(refusal: QueueRefusal) -> Self {
        match refusal {
            QueueRefusal::Storage(error) => error.into(),
            // Its coordinator begins: as soon as it can tell, the next attempt is taken.
            refusal => {
                Self { message: Some(refusal.to_string()), ..Self::code(ErrorCode::NotEnoughReplicas) }
            }
        }
    }
}

impl From<LogError> for Refused {
    fn from(error: LogError) -> Self {
        // Of what befalls a whole directory, the log has told once.
        if let LogError::OutOfDescriptors { .. } | LogError::Disk { .. } = error {
            tracing::error!(%error, "append failed");
        }
        Self { code: ErrorCode::from(&error), message: Some(error.to_string()), record_errors: Vec::new() }
    }
}
