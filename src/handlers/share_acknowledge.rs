//! ShareAcknowledge: what a member says of records that it was lent. What it shares with ShareFetch is here too.

use std::future::poll_fn;
use std::task::Poll;

use super::RequestContext;
use super::share_fetch::terms;
use super::share_sessions::{FINAL, NEW_SESSION, ShareMember};
use crate::catalog::View;
use crate::catalog::group_config::{self, ShareConfig};
use crate::catalog::queue_config::QueueConfig;
use crate::group::{MEMBER_ID_MAX_BYTES, TEXT_MAX_BYTES};
use crate::protocol::ErrorCode;
use crate::protocol::messages::share_acknowledge::{
    ShareAcknowledgePartitionResponse, ShareAcknowledgeRequest, ShareAcknowledgeResponse,
    ShareAcknowledgeTopicResponse,
};
use crate::protocol::wire::Str;
use crate::queue::{Ack, Dead, Terms, Verdict};
use crate::uuid::Uuid;

/// Runs of neighbouring offsets with different verdicts that a request may have: each takes many times the byte of the wire
/// that it is said with.
const RUNS_MAX: usize = 1 << 18;

/// Partitions that are spoken to at a time: each waits for a disk.
const PARTITIONS_AT_A_TIME: usize = 256;

/// Answers when everything is durable.
pub async fn handle(cx: RequestContext, request: ShareAcknowledgeRequest) -> ShareAcknowledgeResponse {
    match answer(&cx, &request).await {
        Ok(response) => response,
        Err(code) => ShareAcknowledgeResponse {
            error_code: code.into(),
            error_message: Some(code.name().into()),
            ..Default::default()
        },
    }
}

async fn answer(
    cx: &RequestContext,
    request: &ShareAcknowledgeRequest,
) -> Result<ShareAcknowledgeResponse, ErrorCode> {
    let member = member(request.group_id.as_ref(), request.member_id.as_ref())?;
    let epoch = request.share_session_epoch;
    if epoch == NEW_SESSION {
        return Err(ErrorCode::InvalidShareSessionEpoch);
    }
    let config = settings(cx, &member);
    let mut verdicts = Verdicts::new(request.is_renew_ack, config.renew_acknowledge_enable);
    for topic in &request.topics {
        for partition in &topic.partitions {
            let said = partition
                .acknowledgement_batches
                .iter()
                .map(|batch| (batch.first_offset, batch.last_offset, &batch.acknowledge_types[..]));
            verdicts.add(topic.topic_id, partition.partition_index, said);
        }
    }
    cx.share_sessions.go_on(&member, cx.connection(), epoch, &[], &[])?;
    let said = acknowledge(cx, &member, &config, verdicts).await;
    if epoch == FINAL {
        cx.release(&member).await;
    }
    let mut responses: Vec<ShareAcknowledgeTopicResponse> = Vec::new();
    for Said { topic_id, partition, error } in said {
        let partition = ShareAcknowledgePartitionResponse {
            partition_index: partition,
            error_code: error.into(),
            error_message: (error != ErrorCode::None).then(|| error.name().into()),
            ..Default::default()
        };
        match responses.last_mut().filter(|topic| topic.topic_id == topic_id) {
            Some(topic) => topic.partitions.push(partition),
            None => {
                responses.push(ShareAcknowledgeTopicResponse { topic_id, partitions: vec![partition] });
            }
        }
    }
    Ok(ShareAcknowledgeResponse {
        acquisition_lock_timeout_ms: config.record_lock_duration_ms,
        responses,
        ..Default::default()
    })
}

/// The member that a request names.
pub(super) fn member(group: Option<&Str>, member: Option<&Str>) -> Result<ShareMember, ErrorCode> {
    let group = group.filter(|group| (1..=TEXT_MAX_BYTES).contains(&group.len()));
    let group = group.ok_or(ErrorCode::InvalidRequest)?;
    let member = member.filter(|member| (1..=MEMBER_ID_MAX_BYTES).contains(&member.len()));
    let member = member.ok_or(ErrorCode::InvalidRequest)?;
    Ok(ShareMember { group: (&**group).into(), member: (&**member).into() })
}

/// What the member's group goes by.
pub(super) fn settings(cx: &RequestContext, member: &ShareMember) -> ShareConfig {
    let view = cx.catalog.view();
    group_config::effective(view.group_configs.get(&*member.group).map(|configs| &**configs), &cx.config)
}

/// What the member's group goes by in a topic as a queue, if it is one's that reads the topic.
pub(super) fn queue_of<'v>(view: &'v View, topic_id: Uuid, member: &ShareMember) -> Option<&'v QueueConfig> {
    let queue = view.topic(&member.group).filter(|queue| queue.reads(topic_id))?;
    queue.queue.as_deref()
}

fn terms_of_queue(queue: &QueueConfig) -> Terms {
    Terms {
        lock_duration_ms: queue.visibility_timeout_ms,
        delivery_limit: queue.max_receive_count.unwrap_or(u16::MAX),
        max_in_flight: queue.max_in_flight,
        dead: if queue.dead_letter_queue.is_some() { Dead::Keep } else { Dead::Archive },
    }
}

/// What came of the verdicts on a partition.
pub(super) struct Said {
    pub(super) topic_id: Uuid,
    pub(super) partition: i32,
    pub(super) error: ErrorCode,
}

/// What a request says, by partition, each right in its form or not.
pub(super) struct Verdicts {
    may_renew: bool,
    /// Runs that may follow.
    runs_left: usize,
    by_partition: Vec<(Uuid, i32, Result<Vec<Ack>, ErrorCode>)>,
}

impl Verdicts {
    /// None yet. Renewals must be announced, and allowed.
    pub(super) fn new(is_renew_ack: bool, renew_enabled: bool) -> Self {
        Self { may_renew: is_renew_ack && renew_enabled, runs_left: RUNS_MAX, by_partition: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_partition.is_empty()
    }

    /// Adds what is said of a partition: first and last offset, and one type for all or for each.
    pub(super) fn add<'a>(
        &mut self,
        topic_id: Uuid,
        partition: i32,
        batches: impl ExactSizeIterator<Item = (i64, i64, &'a [i8])>,
    ) {
        if batches.len() > 0 {
            let acks = read(batches, self.may_renew, self.runs_left);
            self.runs_left -= acks.as_ref().map_or(0, Vec::len);
            self.by_partition.push((topic_id, partition, acks));
        }
    }
}

/// Ranges must ascend without overlapping, and come to no more than `runs_max` runs: nobody holds that many records.
fn read<'a>(
    batches: impl Iterator<Item = (i64, i64, &'a [i8])>,
    may_renew: bool,
    runs_max: usize,
) -> Result<Vec<Ack>, ErrorCode> {
    let mut acks: Vec<Ack> = Vec::new();
    let mut next = 0;
    for (first, last, types) in batches {
        let is_one_for_all = types.len() == 1;
        let count = last.checked_sub(first).and_then(|count| count.checked_add(1));
        let is_one_for_each = count.is_some_and(|count| i64::try_from(types.len()) == Ok(count));
        if first < next || last < first || !(is_one_for_all || is_one_for_each) {
            return Err(ErrorCode::InvalidRequest);
        }
        next = last.saturating_add(1);
        for (at, kind) in types.iter().enumerate() {
            let verdict = verdict(*kind).filter(|verdict| may_renew || *verdict != Verdict::Renew);
            let verdict = verdict.ok_or(ErrorCode::InvalidRequest)?;
            let (first, last) = match is_one_for_all {
                true => (first, last),
                false => (first + at as i64, first + at as i64),
            };
            let is_full = acks.len() >= runs_max;
            match acks.last_mut() {
                Some(before) if before.verdict == verdict && first - before.last == 1 => before.last = last,
                _ if is_full => return Err(ErrorCode::InvalidRecordState),
                _ => acks.push(Ack { first, last, verdict }),
            }
        }
    }
    Ok(acks)
}

fn verdict(kind: i8) -> Option<Verdict> {
    match kind {
        0 => Some(Verdict::Gap),
        1 => Some(Verdict::Accept),
        2 => Some(Verdict::Release),
        3 => Some(Verdict::Reject),
        4 => Some(Verdict::Renew),
        _ => None,
    }
}

/// Carries out the verdicts; each partition has its own answer.
pub(super) async fn acknowledge(
    cx: &RequestContext,
    member: &ShareMember,
    config: &ShareConfig,
    verdicts: Verdicts,
) -> Vec<Said> {
    let mut said = Vec::with_capacity(verdicts.by_partition.len());
    let mut verdicts = verdicts.by_partition.into_iter().peekable();
    while verdicts.peek().is_some() {
        let some = verdicts.by_ref().take(PARTITIONS_AT_A_TIME);
        let carried_out = some.map(|(topic_id, partition, acks)| async move {
            let done = match acks {
                Ok(acks) => carry_out(cx, member, config, (topic_id, partition), acks).await,
                Err(code) => Err(code),
            };
            Said { topic_id, partition, error: done.err().unwrap_or(ErrorCode::None) }
        });
        said.extend(all_of(carried_out.collect()).await);
    }
    said
}

async fn carry_out(
    cx: &RequestContext,
    member: &ShareMember,
    config: &ShareConfig,
    (topic_id, partition): (Uuid, i32),
    acks: Vec<Ack>,
) -> Result<(), ErrorCode> {
    let view = cx.catalog.view();
    let topic = view.topic_by_id(topic_id).ok_or(ErrorCode::UnknownTopicId)?;
    topic.partition(partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let key = member.key(topic_id, partition);
    let queue = queue_of(&view, topic_id, member);
    let of = |verdict| {
        let said = acks.iter().filter(|ack| ack.verdict == verdict);
        said.map(|ack| ack.last - ack.first + 1).fold(0, i64::saturating_add)
    };
    let (accepted, refused) = (of(Verdict::Accept), of(Verdict::Reject));
    let terms = queue.map_or_else(|| terms(config), terms_of_queue);
    let done = cx.queues.acknowledge(&key, &member.member, acks, terms).await;
    if queue.is_some() && done.is_ok() {
        cx.door.settled(&member.group, (topic_id, partition), accepted, refused);
    }
    done.map_err(|failure| ErrorCode::from(&failure))
}

/// What all of them come to, begun in their order.
async fn all_of<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut waiting: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    poll_fn(|cx| {
        let mut are_done = true;
        for (future, output) in waiting.iter_mut().filter(|(_, output)| output.is_none()) {
            match future.as_mut().poll(cx) {
                Poll::Ready(done) => *output = Some(done),
                Poll::Pending => are_done = false,
            }
        }
        if are_done { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    waiting.into_iter().filter_map(|(_, output)| output).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(first: i64, last: i64, verdict: Verdict) -> Ack {
        Ack { first, last, verdict }
    }

    #[test]
    fn types_are_for_all_offsets_or_for_each() {
        let said = [(5, 9, &[1][..]), (10, 12, &[1, 2, 2]), (20, 20, &[0])];
        let expected =
            [ack(5, 10, Verdict::Accept), ack(11, 12, Verdict::Release), ack(20, 20, Verdict::Gap)];
        assert_eq!(read(said.into_iter(), false, 9).unwrap(), expected);
        assert_eq!(read([(0, 0, &[4][..])].into_iter(), true, 9).unwrap(), [ack(0, 0, Verdict::Renew)]);
    }

    #[test]
    fn what_is_wrong_in_form_is_refused() {
        let wrong: [&[(i64, i64, &[i8])]; 9] = [
            &[(5, 4, &[1])],
            &[(-1, 4, &[1])],
            &[(0, 4, &[])],
            &[(0, 4, &[1, 1])],
            &[(0, 0, &[5])],
            &[(0, 0, &[-1])],
            &[(0, 0, &[4])],
            &[(0, 4, &[1]), (4, 5, &[1])],
            &[(4, 5, &[1]), (0, 1, &[1])],
        ];
        for batches in wrong {
            assert_eq!(
                read(batches.iter().copied(), false, 9),
                Err(ErrorCode::InvalidRequest),
                "{batches:?}"
            );
        }
        let longest = [(0, i64::MAX, &[1][..])];
        assert_eq!(read(longest.into_iter(), false, 9).unwrap(), [ack(0, i64::MAX, Verdict::Accept)]);
    }

    #[test]
    fn more_runs_than_anybody_can_hold_are_refused_before_they_take_memory() {
        let alternating: Vec<i8> = (0..RUNS_MAX).map(|at| 1 + (at % 2) as i8).collect();
        let uniform = vec![1; 2 * RUNS_MAX];
        let (topic, last) = (Uuid([1; 16]), RUNS_MAX as i64 - 1);
        let mut verdicts = Verdicts::new(false, true);
        verdicts.add(topic, 0, [(0, 2 * last + 1, &uniform[..])].into_iter());
        verdicts.add(topic, 1, [(0, last, &alternating[..])].into_iter());
        verdicts.add(topic, 2, [(0, last - 1, &alternating[1..])].into_iter());
        let runs: Vec<_> =
            verdicts.by_partition.into_iter().map(|(_, _, acks)| acks.map(|acks| acks.len())).collect();
        assert_eq!(runs, [Ok(1), Err(ErrorCode::InvalidRecordState), Ok(RUNS_MAX - 1)]);
    }

    #[tokio::test]
    async fn partitions_wait_for_their_disks_together() {
        let gate = tokio::sync::Barrier::new(3);
        let arrive = |at: usize| {
            let gate = &gate;
            async move {
                gate.wait().await;
                at
            }
        };
        assert_eq!(all_of((0..3).map(arrive).collect()).await, [0, 1, 2]);
    }
}
