//! ShareFetch: records on loan, served as the bytes that are stored; before that, what the member says of earlier ones.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tracing::{debug, error};

use super::share_acknowledge::{Said, Verdicts, acknowledge, member, queue_of, settings};
use super::share_sessions::{FINAL, NEW_SESSION, Place, ShareMember};
use super::{Later, RequestContext};
use crate::catalog::group_config::{Reset, ShareConfig};
use crate::catalog::{Topic, View};
use crate::coordinator::CoordinatorError;
use crate::log::{LogError, Partition, Waiter};
use crate::operations::{QueueRefusal, consumer_name};
use crate::protocol::ErrorCode;
use crate::protocol::messages::share_fetch::{
    ShareFetchAcquired, ShareFetchPartitionResponse, ShareFetchRequest, ShareFetchResponse,
    ShareFetchTopicResponse,
};
use crate::protocol::wire::Records;
use crate::queue::{Dead, Portion, QueueError, QueueFailure, QueueKey, Range, Taken, Terms, Wish};
use crate::record::outline::{Outlined, outline, outline_cached};
use crate::record::range::FileRange;
use crate::uuid::Uuid;

/// Acquire mode of whole batches. KIP-1206.
const BATCH_OPTIMIZED: i8 = 0;

/// Acquire mode of no more records than asked for.
const RECORD_LIMIT: i8 = 1;

/// How long a waiting request leaves a coordinator alone that could not answer.
const COORDINATOR_PAUSE: Duration = Duration::from_millis(100);

/// Answers at once if there is anything; else when there is, when `max_wait_ms` is over, or when the broker stops.
pub async fn handle(cx: RequestContext, request: ShareFetchRequest) -> ShareFetchResponse {
    let wait = wait_of(&request);
    match fetch(&cx, request).await {
        Ok(response) => response,
        Err(code) => {
            if code == ErrorCode::ShareSessionLimitReached {
                // Its client asks again at once.
                drop(tokio::time::timeout(wait, cx.stopping.cancelled()).await);
            }
            ShareFetchResponse {
                error_code: code.into(),
                error_message: Some(code.name().into()),
                ..Default::default()
            }
        }
    }
}

fn wait_of(request: &ShareFetchRequest) -> Duration {
    Duration::from_millis(request.max_wait_ms.max(0) as u64)
}

async fn fetch(cx: &RequestContext, request: ShareFetchRequest) -> Result<ShareFetchResponse, ErrorCode> {
    let member = member(request.group_id.as_ref(), request.member_id.as_ref())?;
    check(&request)?;
    let config = settings(cx, &member);
    let view = cx.catalog.view();
    let mut named = Vec::new();
    let mut verdicts = Verdicts::new(request.is_renew_ack, config.renew_acknowledge_enable);
    for topic in &request.topics {
        for partition in &topic.partitions {
            named.push((topic.topic_id, partition.partition_index));
            let said = partition
                .acknowledgement_batches
                .iter()
                .map(|batch| (batch.first_offset, batch.last_offset, &batch.acknowledge_types[..]));
            verdicts.add(topic.topic_id, partition.partition_index, said);
        }
    }
    // A session keeps what there is; of the rest the client is told, once.
    let (known, unknown): (Vec<_>, Vec<_>) = named.into_iter().partition(|place| find(&view, *place).is_ok());
    let epoch = request.share_session_epoch;
    let mut wanted = match epoch {
        NEW_SESSION if !verdicts.is_empty() => return Err(ErrorCode::InvalidRequest),
        NEW_SESSION => cx.share_sessions.open(&member, cx.connection(), &known)?,
        epoch => {
            let forgotten = request.forgotten_topics_data.iter();
            let forgotten: Vec<_> = forgotten
                .flat_map(|topic| topic.partitions.iter().map(|partition| (topic.topic_id, *partition)))
                .collect();
            cx.share_sessions.go_on(&member, cx.connection(), epoch, &known, &forgotten)?
        }
    };
    if epoch != FINAL {
        wanted.extend(unknown);
    }
    let said = acknowledge(cx, &member, &config, verdicts).await;
    if epoch == FINAL {
        cx.release(&member).await;
    }
    let mut targets = Vec::new();
    let mut gone = Vec::new();
    let mut lock_ms = config.record_lock_duration_ms;
    for place in wanted {
        match find(&view, place) {
            Ok((topic, partition)) => {
                let key = member.key(place.0, place.1);
                let queue = queue_of(&view, topic.id, &member);
                if let Some(queue) = queue {
                    lock_ms = i32::try_from(queue.visibility_timeout_ms).unwrap_or(i32::MAX);
                }
                let is_queue = queue.is_some();
                targets.push(Target { key, place, partition, is_queue, seen: None });
            }
            Err(code) => gone.push((place, code)),
        }
    }
    if request.max_records <= 0 || request.is_renew_ack {
        targets.clear();
    }
    let wait = wait_of(&request);
    // Who has just spoken of records waits for new ones all the same, but hears at once that something went wrong.
    let is_wrong = !gone.is_empty() || said.iter().any(|said| said.error != ErrorCode::None);
    let wait = if is_wrong { Duration::ZERO } else { wait };
    let mut loan = Loan {
        cx,
        limits: Limits {
            max_bytes: usize::try_from(request.max_bytes).unwrap_or_default().min(cx.config.fetch_max_bytes),
            min_bytes: u64::try_from(request.min_bytes).unwrap_or_default(),
            max_records: i64::from(request.max_records),
            batch_size: i64::from(request.batch_size.max(1)),
            portion: match request.share_acquire_mode {
                RECORD_LIMIT => Portion::Exact,
                _ => Portion::WholeBatches,
            },
            terms: terms(&config),
        },
        config,
        targets,
        is_hindered: false,
        member,
    };
    let mut answers = loan.take_or_wait(wait).await;
    let served: Vec<_> =
        answers.iter().filter(|(_, answer)| answer.is_ok()).map(|(place, _)| *place).collect();
    let forgotten: Vec<_> = gone.iter().map(|(place, _)| *place).collect();
    cx.share_sessions.told(&loan.member, &served, &forgotten);
    answers.extend(gone.into_iter().map(|(place, code)| (place, Err(code))));
    Ok(ShareFetchResponse {
        acquisition_lock_timeout_ms: lock_ms,
        responses: by_topic(said, answers),
        ..Default::default()
    })
}

fn check(request: &ShareFetchRequest) -> Result<(), ErrorCode> {
    let is_known_mode = [BATCH_OPTIMIZED, RECORD_LIMIT].contains(&request.share_acquire_mode);
    // Who renews waits for nothing and takes nothing. KIP-1222.
    let asks = request.max_wait_ms | request.min_bytes | request.max_bytes | request.max_records;
    let is_right = is_known_mode && (!request.is_renew_ack || asks == 0);
    if is_right { Ok(()) } else { Err(ErrorCode::InvalidRequest) }
}

/// A group's terms as its queues take them.
pub(super) fn terms(config: &ShareConfig) -> Terms {
    Terms {
        lock_duration_ms: i64::from(config.record_lock_duration_ms),
        delivery_limit: u16::try_from(config.delivery_count_limit).unwrap_or(u16::MAX),
        max_in_flight: i64::from(config.partition_max_record_locks),
        dead: if config.dead_letter_topic.is_some() { Dead::Keep } else { Dead::Archive },
    }
}

#[derive(Clone, Copy)]
struct Limits {
    max_bytes: usize,
    min_bytes: u64,
    max_records: i64,
    batch_size: i64,
    portion: Portion,
    terms: Terms,
}

/// A partition that is fetched.
struct Target {
    place: Place,
    key: QueueKey,
    partition: Arc<Partition>,
    /// Whether the group is a queue's that reads the topic.
    is_queue: bool,
    /// Where there may be something, and what to watch from if there is not.
    seen: Option<(i64, u64)>,
}

fn find(view: &View, (topic_id, index): Place) -> Result<(Arc<Topic>, Arc<Partition>), ErrorCode> {
    let topic = view.topic_by_id(topic_id).ok_or(ErrorCode::UnknownTopicId)?;
    let partition = topic.partition(index).cloned().ok_or(ErrorCode::UnknownTopicOrPartition)?;
    Ok((Arc::clone(topic), partition))
}

/// What was read of a partition: its bytes, and the whole batches in them.
struct Read {
    ranges: Vec<FileRange>,
    batches: Vec<Outlined>,
}

/// What a partition has given.
struct Lent {
    ranges: Vec<Range>,
    records: Vec<FileRange>,
}

/// A request under way.
struct Loan<'a> {
    cx: &'a RequestContext,
    member: ShareMember,
    config: ShareConfig,
    limits: Limits,
    targets: Vec<Target>,
    /// Whether the last look at the targets has met a coordinator that could not say.
    is_hindered: bool,
}

type Answer = (Place, Result<Lent, ErrorCode>);

/// Why nothing can be taken of a partition.
enum Refusal {
    /// What the client must hear: one of the codes that consumers know of a partition that is fetched.
    Told(ErrorCode),
    /// A coordinator cannot say just now. Its codes are none that consumers expect here: there is nothing yet.
    NotNow,
}

impl From<LogError> for Refusal {
    fn from(error: LogError) -> Self {
        Self::Told(ErrorCode::from(&error))
    }
}

impl From<CoordinatorError> for Refusal {
    fn from(error: CoordinatorError) -> Self {
        debug!(%error, "nothing can be lent now");
        Self::NotNow
    }
}

impl From<QueueFailure> for Refusal {
    fn from(failure: QueueFailure) -> Self {
        match failure {
            QueueFailure::Coordinator(error) => error.into(),
            // The window went between two looks.
            QueueFailure::Queue(_) => Self::NotNow,
        }
    }
}

impl Loan<'_> {
    async fn take_or_wait(&mut self, wait: Duration) -> Vec<Answer> {
        let may_wait = !wait.is_zero() && !self.targets.is_empty();
        if !may_wait {
            return self.take_all().await;
        }
        let waiter = Waiter::new();
        let partitions: Vec<_> = self.targets.iter().map(|target| Arc::clone(&target.partition)).collect();
        let _subscriptions: Vec<_> =
            partitions.iter().map(|partition| partition.subscribe(&waiter)).collect();
        let mut deadline = std::pin::pin!(tokio::time::sleep(wait));
        let mut is_last = false;
        loop {
            self.is_hindered = false;
            if is_last || self.has_enough().await {
                let answers = self.take_all().await;
                if is_last || !answers.is_empty() {
                    return answers;
                }
            }
            let mut changes = self.watch();
            tokio::select! {
                () = waiter.wait() => {}
                () = any_of(&mut changes) => {}
                () = tokio::time::sleep(COORDINATOR_PAUSE), if self.is_hindered => {}
                () = &mut deadline => is_last = true,
                () = self.cx.stopping.cancelled() => is_last = true,
            }
        }
    }

    /// Whether there may be `min_bytes` to take; what was read is not given back for being too little.
    async fn has_enough(&mut self) -> bool {
        if self.limits.min_bytes <= 1 {
            return true;
        }
        let mut bytes = 0u64;
        for at in 0..self.targets.len() {
            if self.targets[at].is_queue {
                return true;
            }
            let partition = Arc::clone(&self.targets[at].partition);
            match self.probe(at, &partition).await {
                Ok(taken) => bytes = bytes.saturating_add(partition.available_bytes(taken.next)),
                Err(Refusal::Told(_)) => return true,
                Err(Refusal::NotNow) => self.is_hindered = true,
            }
        }
        bytes >= self.limits.min_bytes.min(self.limits.max_bytes as u64)
    }

    /// Ends when something comes back that was taken.
    fn watch(&self) -> Vec<Later<()>> {
        let watch = |target: &Target| -> Option<Later<()>> {
            let (_, changes) = target.seen?;
            let shared = self.cx.shared();
            let (key, member) = (target.key.clone(), Arc::clone(&self.member.member));
            Some(Box::pin(async move {
                if shared.queues.watch(key, member, changes).await.is_err() {
                    // The coordinator begins anew, perhaps with what this waits for.
                    tokio::time::sleep(COORDINATOR_PAUSE).await;
                }
            }))
        };
        self.targets.iter().filter_map(watch).collect()
    }

    /// Takes of the partitions in order until there is enough. Only what has records or an error is answered.
    async fn take_all(&mut self) -> Vec<Answer> {
        let mut answers: Vec<Answer> = Vec::new();
        let mut has_any = false;
        for at in 0..self.targets.len() {
            if self.limits.max_records <= 0 || (has_any && self.limits.max_bytes == 0) {
                break;
            }
            let answer = match self.take(at, !has_any).await {
                Ok(lent) if lent.ranges.is_empty() => continue,
                Ok(lent) => {
                    let records: i64 = lent.ranges.iter().map(|range| range.last - range.first + 1).sum();
                    let bytes: usize = lent.records.iter().map(|range| range.length).sum();
                    self.limits.max_records -= records;
                    self.limits.max_bytes = self.limits.max_bytes.saturating_sub(bytes);
                    has_any = true;
                    Ok(lent)
                }
                Err(Refusal::Told(code)) => Err(code),
                Err(Refusal::NotNow) => {
                    self.is_hindered = true;
                    continue;
                }
            };
            answers.push((self.targets[at].place, answer));
        }
        answers
    }

    async fn take(&mut self, at: usize, minimum_one_batch: bool) -> Result<Lent, Refusal> {
        let partition = Arc::clone(&self.targets[at].partition);
        if self.targets[at].is_queue {
            return self.take_of_queue(at, &partition).await;
        }
        let mut seen = self.probe(at, &partition).await?;
        if let Some(cut) = partition.lost_since(seen.leader_epoch, seen.end)? {
            self.go_back(at, &partition, cut, seen.leader_epoch).await?;
            seen = self.probe(at, &partition).await?;
        }
        let mut next = seen.next;
        // As long as others take first what was read, or what was read is done, there is more to look at.
        loop {
            let Some(read) = self.read(&partition, next, minimum_one_batch).await? else { break };
            let offsets = read.batches.iter().map(|batch| (batch.first_offset, batch.last_offset)).collect();
            let taken = self.ask(at, &partition, next, offsets).await?;
            if !taken.ranges.is_empty() {
                let records = cut(read.ranges, &read.batches, &taken.ranges);
                return Ok(Lent { ranges: taken.ranges, records });
            }
            if taken.next == next {
                break;
            }
            next = taken.next;
        }
        Ok(Lent { ranges: Vec::new(), records: Vec::new() })
    }

    /// As every door to the queue would: what is due, in the queue's order of preference, but told in the order of the log.
    async fn take_of_queue(&mut self, at: usize, partition: &Arc<Partition>) -> Result<Lent, Refusal> {
        let (place, ShareMember { group, member }) = (self.targets[at].place, &self.member);
        let Limits { max_records, max_bytes, .. } = self.limits;
        let client = self.cx.client_id.as_deref().unwrap_or_default();
        let consumer = consumer_name(client, self.cx.peer().ip());
        let lent = self.cx.door.lend(group, place, (member, &consumer), max_records, max_bytes).await;
        let received = match lent {
            Ok(received) => received,
            Err(QueueRefusal::Storage(error)) => return Err(error.into()),
            Err(error) => {
                debug!(%error, "nothing can be lent now");
                return Err(Refusal::NotNow);
            }
        };
        self.targets[at].seen = Some((received.end, received.changes));
        let mut records: Vec<FileRange> = Vec::new();
        let mut read_to = i64::MIN;
        for range in &received.ranges {
            let mut next = range.first.max(read_to);
            while next <= range.last {
                // What was lent is sent, however much it is.
                let Some(read) = self.read(partition, next, true).await? else { break };
                let Some(end) = read.batches.last().map(|batch| batch.last_offset) else { break };
                let wanted = Range { first: next, ..*range };
                records.extend(cut(read.ranges, &read.batches, &[wanted]));
                let mut from_behind = read.batches.iter().rev();
                let within = from_behind.find(|batch| batch.first_offset <= range.last);
                read_to = within.map_or(end, |batch| batch.last_offset) + 1;
                next = read_to;
            }
        }
        Ok(Lent { ranges: received.ranges, records })
    }

    /// Whole batches from the one that holds `offset` on; `None` if there are none yet.
    async fn read(
        &self,
        partition: &Partition,
        offset: i64,
        minimum_one_batch: bool,
    ) -> Result<Option<Read>, Refusal> {
        let read = match partition.read_aside(offset, self.limits.max_bytes, minimum_one_batch).await {
            Ok(read) => read,
            // Its front went between the two looks: the next attempt begins behind it.
            Err(LogError::OffsetOutOfRange { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut batches = Vec::new();
        // More than may be lent at a time need not be looked at.
        let mut left = self.limits.max_records.min(self.limits.terms.max_in_flight);
        for range in &read.ranges {
            if left <= 0 {
                break;
            }
            let found = outlined(range, offset, left).await;
            let found = found.map_err(|error| partition.unreadable(error)).inspect_err(|error| {
                let (topic, index) = (partition.topic(), partition.index());
                error!(topic, partition = index, offset, %error, "records cannot be read to be lent");
            })?;
            left -=
                found.iter().map(|batch| batch.last_offset - batch.first_offset.max(offset) + 1).sum::<i64>();
            batches.extend(found);
        }
        Ok((!batches.is_empty()).then_some(Read { ranges: read.ranges, batches }))
    }

    /// Where the group has to read, without taking anything.
    async fn probe(&mut self, at: usize, partition: &Arc<Partition>) -> Result<Taken, Refusal> {
        self.ask(at, partition, 0, Vec::new()).await
    }

    /// Takes of what was read, and makes the window if there is none yet.
    async fn ask(
        &mut self,
        at: usize,
        partition: &Arc<Partition>,
        from: i64,
        batches: Vec<(i64, i64)>,
    ) -> Result<Taken, Refusal> {
        let log_start = partition.offsets()?.log_start_offset;
        let wish = Wish {
            member: Arc::clone(&self.member.member),
            log_start,
            leader_epoch: partition.leader_epoch(),
            from,
            batches,
            max_records: self.limits.max_records,
            range_records: self.limits.batch_size,
            portion: self.limits.portion,
            terms: self.limits.terms,
        };
        let key = self.targets[at].key.clone();
        let taken = match self.cx.queues.take(&key, wish.clone()).await {
            Err(QueueFailure::Queue(QueueError::Unknown)) => {
                self.initialise(&key, partition).await?;
                self.cx.queues.take(&key, wish).await?
            }
            taken => taken?,
        };
        self.targets[at].seen = Some((taken.next, taken.changes));
        Ok(taken)
    }

    /// The window begins anew where it was not done, at most where the log was cut: some records may come twice, but none never.
    async fn go_back(
        &self,
        at: usize,
        partition: &Partition,
        cut: i64,
        seen_epoch: i32,
    ) -> Result<(), Refusal> {
        let key = &self.targets[at].key;
        Ok(self.cx.queues.go_back(key, cut, seen_epoch, partition.leader_epoch()).await?)
    }

    /// The group reads the partition for the first time.
    async fn initialise(&self, key: &QueueKey, partition: &Arc<Partition>) -> Result<(), Refusal> {
        let group = self.cx.groups.share_describe(&key.group).await?;
        let is_subscribed = group.is_some_and(|group| {
            let mut topics = group.members.iter().flat_map(|member| &member.topics);
            topics.any(|topic| **topic == *partition.topic())
        });
        if !is_subscribed {
            return Err(Refusal::Told(ErrorCode::UnknownTopicOrPartition));
        }
        let offsets = partition.offsets()?;
        let start = match self.config.auto_offset_reset {
            Reset::Latest => offsets.high_watermark,
            Reset::Earliest => offsets.log_start_offset,
            Reset::ByDuration(ms) => {
                let since = self.cx.clock.now_ms().saturating_sub(ms);
                let partition = Arc::clone(partition);
                let found = tokio::task::spawn_blocking(move || partition.offset_for_timestamp(since)).await;
                let found = found.map_err(|_ended| Refusal::NotNow)??;
                found.map_or(offsets.high_watermark, |found| found.offset)
            }
        };
        Ok(self.cx.queues.initialise(key, start, partition.leader_epoch()).await?)
    }
}

/// Looks at what is not in memory in a thread that may wait for the disk.
async fn outlined(range: &FileRange, offset: i64, records_max: i64) -> io::Result<Vec<Outlined>> {
    if let Some(found) = outline_cached(range, offset, records_max) {
        return Ok(found);
    }
    let range = range.clone();
    tokio::task::spawn_blocking(move || outline(&range, offset, records_max)).await?
}

/// The bytes of the batches that what was taken lies in.
fn cut(read: Vec<FileRange>, batches: &[Outlined], taken: &[Range]) -> Vec<FileRange> {
    let first = taken.first().map_or(i64::MAX, |range| range.first);
    let last = taken.last().map_or(i64::MIN, |range| range.last);
    let before = batches.iter().take_while(|batch| batch.last_offset < first);
    let mut skip: usize = before.map(|batch| batch.size_bytes).sum();
    let wanted = batches.iter().filter(|batch| batch.last_offset >= first && batch.first_offset <= last);
    let mut left: usize = wanted.map(|batch| batch.size_bytes).sum();
    let mut records = Vec::with_capacity(read.len());
    for range in read {
        let skipped = skip.min(range.length);
        skip -= skipped;
        let length = left.min(range.length - skipped);
        left -= length;
        if length > 0 {
            records.push(FileRange { position: range.position + skipped as u64, length, ..range });
        }
    }
    records
}

/// Returns when the first of them is done; never if there are none.
async fn any_of(futures: &mut [Later<()>]) {
    poll_fn(|cx| match futures.iter_mut().any(|future| future.as_mut().poll(cx).is_ready()) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

/// Puts what came of verdicts and of fetching together, by partition.
fn by_topic(said: Vec<Said>, answers: Vec<Answer>) -> Vec<ShareFetchTopicResponse> {
    let mut topics = Topics::default();
    for Said { topic_id, partition, error } in said {
        let response = topics.partition((topic_id, partition));
        response.acknowledge_error_code = error.into();
        response.acknowledge_error_message = (error != ErrorCode::None).then(|| error.name().into());
    }
    for (place, answer) in answers {
        let response = topics.partition(place);
        match answer {
            Ok(Lent { ranges, records }) => {
                response.records = Records::Stored(records);
                response.acquired_records = ranges.iter().map(acquired).collect();
            }
            Err(code) => {
                response.error_code = code.into();
                response.error_message = Some(code.name().into());
            }
        }
    }
    topics.responses
}

fn acquired(range: &Range) -> ShareFetchAcquired {
    ShareFetchAcquired {
        first_offset: range.first,
        last_offset: range.last,
        delivery_count: i16::try_from(range.deliveries).unwrap_or(i16::MAX),
    }
}

/// A response that is being put together.
#[derive(Default)]
struct Topics {
    responses: Vec<ShareFetchTopicResponse>,
    topics: HashMap<Uuid, usize>,
    partitions: HashMap<Place, usize>,
}

impl Topics {
    /// The answer for a partition; an empty one if it has none yet.
    fn partition(&mut self, (topic_id, partition_index): Place) -> &mut ShareFetchPartitionResponse {
        let topic = *self.topics.entry(topic_id).or_insert_with(|| {
            self.responses.push(ShareFetchTopicResponse { topic_id, ..Default::default() });
            self.responses.len() - 1
        });
        let partitions = &mut self.responses[topic].partitions;
        let partition = *self.partitions.entry((topic_id, partition_index)).or_insert_with(|| {
            let records = Records::EMPTY;
            partitions.push(ShareFetchPartitionResponse { partition_index, records, ..Default::default() });
            partitions.len() - 1
        });
        &mut partitions[partition]
    }
}
