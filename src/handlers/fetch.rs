//! Fetch: stored batches as ranges of their files, waiting for more if the client asks to.

use std::sync::Arc;
use std::time::Duration;

use super::RequestContext;
use super::context::check_epoch;
use super::fetch_sessions::{TOPIC_IDS_FROM_VERSION, TopicKey, Wanted};
use crate::log::{LogError, Partition, Waiter};
use crate::protocol::ErrorCode;
use crate::protocol::messages::fetch::{
    FetchCurrentLeader, FetchDivergingEpoch, FetchNodeEndpoint, FetchPartition, FetchPartitionResponse,
    FetchRequest, FetchResponse, FetchTopicResponse,
};
use crate::protocol::wire::Records;

/// Answers at once if `min_bytes` are there or anything is wrong; else when they are, when `max_wait_ms` is over, or when
/// the broker stops.
pub async fn handle(cx: RequestContext, request: FetchRequest) -> FetchResponse {
    let limits = Limits {
        max_bytes: usize::try_from(request.max_bytes).unwrap_or_default().min(cx.config.fetch_max_bytes),
        min_bytes: u64::try_from(request.min_bytes).unwrap_or_default(),
        committed_only: request.isolation_level == 1,
    };
    let wait = Duration::from_millis(request.max_wait_ms.max(0) as u64);
    let plan = match cx.fetch_sessions.begin(request, cx.version, cx.clock.now_ms()) {
        Ok(plan) => plan,
        Err(code) => return FetchResponse { error_code: code.into(), ..Default::default() },
    };
    let targets: Vec<_> = plan.wanted.iter().map(|wanted| find(&cx, wanted)).collect();
    let mut answers = read_all(&plan.wanted, &targets, &limits).await;
    if !wait.is_zero() && !targets.is_empty() && !is_enough(&answers, &limits) {
        answers = wait_and_read(&cx, &plan.wanted, &targets, &limits, wait).await;
    }
    let session_id = plan.session_id();
    let told = plan.tell(answers);
    let mut response = FetchResponse { session_id, responses: by_topic(told), ..Default::default() };
    name_leader(&cx, &targets, &mut response);
    response
}

struct Limits {
    max_bytes: usize,
    min_bytes: u64,
    committed_only: bool,
}

fn find(cx: &RequestContext, wanted: &Wanted) -> Result<Arc<Partition>, ErrorCode> {
    let (topic, unknown) = match cx.version >= TOPIC_IDS_FROM_VERSION {
        true => (cx.catalog.topic_by_id(wanted.topic.id), ErrorCode::UnknownTopicId),
        false => (cx.catalog.topic(&wanted.topic.name), ErrorCode::UnknownTopicOrPartition),
    };
    let topic = topic.ok_or(unknown)?;
    let partition = topic.partition(wanted.partition.partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    Ok(Arc::clone(partition))
}

/// Waits for the partitions to have enough. Each wake-up looks at sizes first, which are in memory.
async fn wait_and_read(
    cx: &RequestContext,
    wanted: &[Wanted],
    targets: &[Result<Arc<Partition>, ErrorCode>],
    limits: &Limits,
    wait: Duration,
) -> Vec<FetchPartitionResponse> {
    let waiter = Waiter::new();
    let _subscriptions: Vec<_> =
        targets.iter().flatten().map(|partition| partition.subscribe(&waiter)).collect();
    let deadline = tokio::time::sleep(wait);
    let mut deadline = std::pin::pin!(deadline);
    loop {
        if is_available(wanted, targets, limits) {
            let answers = read_all(wanted, targets, limits).await;
            if is_enough(&answers, limits) {
                return answers;
            }
        }
        tokio::select! {
            () = waiter.wait() => {}
            () = &mut deadline => break,
            () = cx.stopping.cancelled() => break,
        }
    }
    read_all(wanted, targets, limits).await
}

fn is_available(wanted: &[Wanted], targets: &[Result<Arc<Partition>, ErrorCode>], limits: &Limits) -> bool {
    let available = |(wanted, target): (&Wanted, &Result<Arc<Partition>, ErrorCode>)| match target {
        Ok(partition) => {
            let limit = u64::try_from(wanted.partition.partition_max_bytes).unwrap_or_default();
            match partition.available_bytes(wanted.partition.fetch_offset) {
                u64::MAX => u64::MAX,
                bytes => bytes.min(limit.max(1)),
            }
        }
        Err(_) => u64::MAX,
    };
    let total = wanted.iter().zip(targets).map(available).fold(0, u64::saturating_add);
    total > 0 && total >= limits.min_bytes.min(limits.max_bytes as u64)
}

/// Whether to answer now: enough bytes, or something that the client must hear of.
fn is_enough(answers: &[FetchPartitionResponse], limits: &Limits) -> bool {
    let bytes: u64 = answers.iter().map(|answer| answer.records.size_bytes() as u64).sum();
    let wrong =
        |answer: &FetchPartitionResponse| answer.error_code != 0 || answer.diverging_epoch.epoch != -1;
    bytes >= limits.min_bytes.min(limits.max_bytes as u64) || answers.iter().any(wrong)
}

/// Reads the partitions in order. The first that has anything gives at least one whole batch, however large; the others
/// stay within what is left.
async fn read_all(
    wanted: &[Wanted],
    targets: &[Result<Arc<Partition>, ErrorCode>],
    limits: &Limits,
) -> Vec<FetchPartitionResponse> {
    let mut left = limits.max_bytes;
    let mut anything = false;
    let mut answers = Vec::with_capacity(wanted.len());
    for (wanted, target) in wanted.iter().zip(targets) {
        let wanted = &wanted.partition;
        let read = match target {
            Ok(partition) => read(partition, wanted, left, !anything, limits).await,
            Err(code) => Err(*code),
        };
        let answer = match read {
            Ok(answer) => answer,
            Err(code) => failed(wanted, code),
        };
        let bytes = answer.records.size_bytes();
        anything |= bytes > 0;
        left = left.saturating_sub(bytes);
        answers.push(answer);
    }
    answers
}

fn failed(wanted: &FetchPartition, code: ErrorCode) -> FetchPartitionResponse {
    FetchPartitionResponse {
        partition_index: wanted.partition,
        error_code: code.into(),
        high_watermark: -1,
        records: Records::EMPTY,
        ..Default::default()
    }
}

async fn read(
    partition: &Partition,
    wanted: &FetchPartition,
    left: usize,
    minimum_one_batch: bool,
    limits: &Limits,
) -> Result<FetchPartitionResponse, ErrorCode> {
    check_epoch(partition, wanted.current_leader_epoch)?;
    let coded = |error: LogError| ErrorCode::from(&error);
    let answer = FetchPartitionResponse {
        partition_index: wanted.partition,
        // Without transactions nothing is aborted; who asks for committed records gets a list all the same.
        aborted_transactions: limits.committed_only.then(Vec::new),
        records: Records::EMPTY,
        ..Default::default()
    };
    if let Some(diverging_epoch) = diverging(partition, wanted)? {
        let offsets = partition.offsets().map_err(coded)?;
        return Ok(FetchPartitionResponse {
            high_watermark: offsets.high_watermark,
            last_stable_offset: offsets.last_stable_offset,
            log_start_offset: offsets.log_start_offset,
            diverging_epoch,
            ..answer
        });
    }
    let max_bytes = usize::try_from(wanted.partition_max_bytes).unwrap_or_default().min(left);
    let read =
        partition.read_aside(wanted.fetch_offset, max_bytes, minimum_one_batch).await.map_err(coded)?;
    Ok(FetchPartitionResponse {
        high_watermark: read.high_watermark,
        last_stable_offset: read.last_stable_offset,
        log_start_offset: read.log_start_offset,
        records: if read.ranges.is_empty() { Records::EMPTY } else { Records::Stored(read.ranges) },
        ..answer
    })
}

/// Where the client's log and ours part, if the epoch of its last record says that they do. KIP-595.
fn diverging(
    partition: &Partition,
    wanted: &FetchPartition,
) -> Result<Option<FetchDivergingEpoch>, ErrorCode> {
    if wanted.last_fetched_epoch < 0 {
        return Ok(None);
    }
    let end =
        partition.end_offset_for_epoch(wanted.last_fetched_epoch).map_err(|error| ErrorCode::from(&error))?;
    let (epoch, end_offset) = end.ok_or(ErrorCode::OffsetOutOfRange)?;
    let parted = epoch < wanted.last_fetched_epoch || end_offset < wanted.fetch_offset;
    Ok(parted.then_some(FetchDivergingEpoch { epoch, end_offset }))
}

/// Puts neighbouring partitions of one topic together.
fn by_topic(told: Vec<(TopicKey, FetchPartitionResponse)>) -> Vec<FetchTopicResponse> {
    let mut topics: Vec<FetchTopicResponse> = Vec::new();
    for (key, answer) in told {
        match topics.last_mut() {
            Some(last) if last.topic == key.name && last.topic_id == key.id => last.partitions.push(answer),
            _ => topics.push(FetchTopicResponse {
                topic: key.name,
                topic_id: key.id,
                partitions: vec![answer],
            }),
        }
    }
    topics
}

/// Tells a client with an old idea of the leader who it is. KIP-951.
fn name_leader(
    cx: &RequestContext,
    targets: &[Result<Arc<Partition>, ErrorCode>],
    response: &mut FetchResponse,
) {
    let fenced: i16 = ErrorCode::FencedLeaderEpoch.into();
    let mut named = false;
    for answer in response.responses.iter_mut().flat_map(|topic| &mut topic.partitions) {
        if answer.error_code == fenced {
            let leads = |partition: &&Arc<Partition>| partition.index() == answer.partition_index;
            let leader_epoch =
                targets.iter().flatten().find(leads).map_or(-1, |partition| partition.leader_epoch());
            answer.current_leader = FetchCurrentLeader { leader_id: cx.node_id(), leader_epoch };
            named = true;
        }
    }
    if named {
        let (host, port) = cx.endpoint();
        response.node_endpoints.push(FetchNodeEndpoint { node_id: cx.node_id(), host, port, rack: None });
    }
}
