//! What the broker remembers of a queue in use: where to read on, who waits, what was read last. All of it can be forgotten.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, warn};

use super::breaker::Breaker;
use super::dead_letters::SentBefore;
use super::dedup::Dedup;
use super::history::History;
use super::stats::Rates;
use super::{Inner, Place, QueueDoor, QueueRefusal};
use crate::catalog::queue_config::QueueConfig;
use crate::catalog::{SourceTopic, Topic};
use crate::clock::TimestampMs;
use crate::log::{LogError, Partition, Waiter};
use crate::queue::{
    Arrival, Backoff, Dead, Kind, QueueError, QueueFailure, QueueKey, QueueTerms, Receive, Received,
};
use crate::record::range::FileRange;
use crate::record::records::{Record, RecordView, block, record_views, records_in, split_batch};
use crate::record::validate::{COSTLY_DENSE_CODEC_BYTES, COSTLY_QUICK_CODEC_BYTES};
use crate::record::{BatchHeader, Codec, InvalidBatch};
use crate::telemetry::QueueCounters;
use crate::uuid::Uuid;

/// Bytes of the log that are looked at together: so few that the allocator has room for their records from those before.
pub(super) const READ_BYTES: usize = 64 << 10;

/// Compressed bytes that are decompressed together where sockets are served; more go elsewhere, as each batch does that is costly.
const COSTLY_READ_BYTES: usize = 64 << 10;

/// Records of a batch that are passed over for each that is wanted of it; if there are more, all are made once.
const FEW_RECORDS: i32 = 16;

/// How long it takes until what is done and need not be kept is looked for.
const LET_GO_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

/// How long a coordinator is left alone that could not answer.
const COORDINATOR_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// How long a queue is watched for who may soon wait again: it costs little to go on, and more to begin.
const WATCHED_ON_FOR: std::time::Duration = std::time::Duration::from_secs(5);

/// A queue in use.
pub(super) struct Desk {
    pub(super) topic: Arc<Topic>,
    /// Its own topic's first, by their number, then those of the others that it reads.
    pub(super) stations: Vec<Arc<Station>>,
    own_stations: usize,
    by_place: HashMap<(Uuid, i32), Arc<Station>>,
    /// Which partition the next receiver looks at first.
    turn: AtomicUsize,
    /// Tells one receiver after the other that there may be something.
    changed: Notify,
    /// Tells [`Desk::watch`] that a receiver has looked, or gone.
    looked: Notify,
    waiting: Mutex<Waiting>,
    /// Who has had what is not done.
    pub(super) history: Arc<Mutex<History>>,
    /// Kept while its messages are sent on, or dropped by what they are: by topic that they went to, those that have been sent on,
    /// by a process before this one too, and are not done with.
    pub(super) sweeping: Arc<tokio::sync::Mutex<HashMap<Uuid, HashSet<Place>>>>,
    /// What was handed out of late.
    pub(super) rates: Arc<Mutex<Rates>>,
    pub(super) counters: Arc<QueueCounters>,
    pub(super) breaker: Arc<Mutex<Breaker>>,
    /// Kept while the oldest messages give way: what one has taken for that, another must not count again.
    pub(super) giving_way: Arc<tokio::sync::Mutex<()>>,
    /// Kept from when it is known how many messages there are until others have been appended, under `overflow=reject`.
    pub(super) admission: Arc<tokio::sync::Mutex<()>>,
    /// Its name among those that watch windows, which no other desk has.
    watcher: Arc<str>,
}

/// Receivers that wait.
#[derive(Default)]
struct Waiting {
    receivers: usize,
    is_watched: bool,
}

/// A partition of a queue in use.
pub(super) struct Station {
    pub(super) key: QueueKey,
    /// Whether it is of the queue's own topic.
    is_own: bool,
    pub(super) partition: Arc<Partition>,
    /// Where to read on, as the engine said last; `UNKNOWN` before.
    end: AtomicI64,
    /// [`Received::changes`] of the last look that found nothing: whatever has come since is told to who watches from there. Others
    /// who ask the engine leave it as it is, since what they are shown nobody has looked at.
    changes: AtomicU64,
    /// Whether something may have come since the last look, as far as that was watched. A look takes it back before it asks, so that
    /// what is told meanwhile stays.
    has_changed: AtomicBool,
    /// Also kept from two senders of one id at a time.
    pub(super) dedup: tokio::sync::Mutex<Dedup>,
    /// What was read last.
    recent: Mutex<Arc<Read>>,
    /// Whether somebody moves its dead letters, or waits for some.
    pub(super) is_moving: AtomicBool,
    /// Whether it will soon be looked for what nobody needs any more.
    is_letting_go: AtomicBool,
    /// Its mover's.
    pub(super) letters: tokio::sync::Mutex<SentBefore>,
}

const UNKNOWN: i64 = -1;

/// The number of the next desk.
static NEXT_DESK: AtomicU64 = AtomicU64::new(0);

/// Reads of the log after which something is handed out even if a higher priority may come further on.
const LOOK_AHEAD_READS: usize = 1024;

/// What somebody is to have of a station.
#[derive(Clone, Copy)]
struct Share<'a> {
    max_records: i64,
    lease_ms: i64,
    /// Of a share group; without one they go against receipts.
    member: Option<&'a Arc<str>>,
    /// As [`Receive::gives_way`].
    gives_way: Option<Dead>,
}

/// What has come of one read of a log.
struct Round {
    received: Received,
    /// Whether anything could be handed out.
    is_time: bool,
    /// Whether there was nothing to read.
    is_end: bool,
}

/// What one read of a log has found.
#[derive(Default)]
pub(super) struct Read {
    /// In order; the first may begin before where the reading did.
    batches: Vec<Batch>,
    from: i64,
    /// Where the next read begins.
    pub(super) end: i64,
}

/// A batch that was read.
struct Batch {
    header: BatchHeader,
    /// Of its records.
    block: Bytes,
    /// If they are many, and one was wanted.
    records: OnceLock<Vec<Record>>,
}

impl Desk {
    /// Takes over what is known of the queue, and of the partitions that there were before.
    pub(super) fn of(topic: &Arc<Topic>, before: Option<&Self>) -> Self {
        let station = |topic_id: Uuid, partition: &Arc<Partition>| {
            let known = before.and_then(|before| before.station(topic_id, partition.index()));
            known.cloned().unwrap_or_else(|| Arc::new(Station::of(topic, topic_id, partition)))
        };
        let own = topic.partitions.iter().map(|partition| station(topic.id, partition));
        let of_source = |source: &SourceTopic| -> Vec<_> {
            source.partitions.iter().map(|partition| station(source.id, partition)).collect()
        };
        let stations: Vec<_> = own.chain(topic.sources.iter().flat_map(of_source)).collect();
        let place =
            |station: &Arc<Station>| ((station.key.topic_id, station.key.partition), Arc::clone(station));
        Self {
            topic: Arc::clone(topic),
            own_stations: topic.partitions.len(),
            by_place: stations.iter().map(place).collect(),
            stations,
            turn: AtomicUsize::new(0),
            changed: Notify::new(),
            looked: Notify::new(),
            waiting: Mutex::default(),
            history: before.map(|before| Arc::clone(&before.history)).unwrap_or_default(),
            sweeping: before.map(|before| Arc::clone(&before.sweeping)).unwrap_or_default(),
            rates: before.map(|before| Arc::clone(&before.rates)).unwrap_or_default(),
            counters: before.map(|before| Arc::clone(&before.counters)).unwrap_or_default(),
            breaker: before.map(|before| Arc::clone(&before.breaker)).unwrap_or_default(),
            giving_way: before.map(|before| Arc::clone(&before.giving_way)).unwrap_or_default(),
            admission: before.map(|before| Arc::clone(&before.admission)).unwrap_or_default(),
            watcher: NEXT_DESK.fetch_add(1, Ordering::Relaxed).to_string().into(),
        }
    }

    /// Whether it has all partitions of the topic, and of those that it reads.
    pub(super) fn is_of(&self, topic: &Topic) -> bool {
        self.own_stations == topic.partitions.len() && Arc::ptr_eq(&self.topic.sources, &topic.sources)
    }

    /// The stations of the queue's own topic, which is where messages are sent.
    pub(super) fn own(&self) -> &[Arc<Station>] {
        &self.stations[..self.own_stations]
    }

    /// Whether what a station's partition says now is nothing: its topic was another one, and is gone.
    pub(super) fn is_gone(&self, station: &Station, error: &QueueRefusal) -> bool {
        station.key.topic_id != self.topic.id && matches!(error, QueueRefusal::Storage(LogError::Deleted))
    }

    /// The stations, from another one on each time.
    pub(super) fn in_turn(&self) -> impl Iterator<Item = &Arc<Station>> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % self.stations.len().max(1);
        self.stations.iter().cycle().skip(first).take(self.stations.len())
    }

    /// The station of a partition.
    pub(super) fn station(&self, topic_id: Uuid, partition: i32) -> Option<&Arc<Station>> {
        self.by_place.get(&(topic_id, partition))
    }

    /// What is to be done at places, by the station that each is of; what is of none is left out.
    pub(super) fn by_station<T>(
        &self,
        what: impl IntoIterator<Item = (Place, T)>,
    ) -> Vec<(&Arc<Station>, Vec<T>)> {
        let mut by_partition: BTreeMap<(Uuid, i32), Vec<T>> = BTreeMap::new();
        for (place, what) in what {
            by_partition.entry((place.topic_id, place.partition)).or_default().push(what);
        }
        let known = by_partition.into_iter();
        known.filter_map(|((id, partition), what)| Some((self.station(id, partition)?, what))).collect()
    }

    /// A delivery has come to something or not; says so once when that pauses the queue.
    pub(super) fn note(&self, config: &QueueConfig, is_done: bool, now: TimestampMs) {
        if self.breaker.lock().note(config, is_done, now) {
            warn!(queue = &*self.topic.name, "most deliveries fail: paused, but for a probe now and then");
        }
    }

    /// Whether the stations say when something may have changed.
    pub(super) fn is_watched(&self) -> bool {
        self.waiting.lock().is_watched
    }

    /// Somebody has looked, and found nothing: what receivers were told is seen to.
    pub(super) fn looked(&self) {
        self.looked.notify_one();
    }

    /// How many receivers wait.
    pub(super) fn receivers(&self) -> usize {
        self.waiting.lock().receivers
    }

    /// One receiver may look; there may be something for it.
    pub(super) fn tell_one(&self) {
        self.changed.notify_one();
    }

    /// Completes when this receiver is told that there may be something: from when it is first polled or enabled on.
    pub(super) fn told(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Somebody waits, until this is dropped.
    pub(super) fn wait(self: &Arc<Self>, door: &QueueDoor) -> Waits<'_> {
        let mut waiting = self.waiting.lock();
        waiting.receivers += 1;
        if !std::mem::replace(&mut waiting.is_watched, true) {
            tokio::spawn(Arc::clone(self).watch(Arc::clone(&door.0)));
        }
        Waits { desk: self }
    }

    /// While anybody waits, and some time longer: tells one of them whenever a log grows, something can be had again, or the queue is
    /// not what it was.
    async fn watch(self: Arc<Self>, door: Arc<Inner>) {
        let mut catalog = door.catalog.changes();
        let mut topic = door.catalog.topic_by_id(self.topic.id);
        let waiter = Waiter::new();
        let _subscriptions: Vec<_> =
            self.stations.iter().map(|station| station.partition.subscribe(&waiter)).collect();
        // What came before it subscribed.
        self.changed.notify_one();
        let mut watched = tokio::task::JoinSet::new();
        // Where nothing is watched for before somebody has looked: what that is was told.
        let mut told = self.stations.clone();
        let mut is_looked = true;
        let mut ends_at: Option<Instant> = None;
        loop {
            if std::mem::take(&mut is_looked) {
                for station in told.drain(..) {
                    watched.spawn(station.watched(Arc::clone(&door), Arc::clone(&self.watcher)));
                }
            }
            let is_awaited = self.receivers() > 0;
            ends_at = match is_awaited {
                true => None,
                // Of a topic that is gone nothing will come.
                false if topic.is_none() => Some(Instant::now()),
                false => ends_at.or_else(|| Some(Instant::now() + WATCHED_ON_FOR)),
            };
            tokio::select! {
                () = waiter.wait(), if is_awaited => self.changed.notify_one(),
                Some(Ok(station)) = watched.join_next() => {
                    told.push(station);
                    self.changed.notify_one();
                }
                Ok(()) = catalog.changed() => {
                    let now = door.catalog.topic_by_id(self.topic.id);
                    let as_pointer = |topic: &Option<Arc<Topic>>| topic.as_ref().map(Arc::as_ptr);
                    if as_pointer(&now) != as_pointer(&topic) {
                        topic = now;
                        // It may go by other settings, by which more can be had.
                        self.stations.iter().for_each(|station| station.look_again());
                        self.changed.notify_one();
                    }
                }
                () = self.looked.notified() => is_looked = true,
                () = sleep_until(ends_at.unwrap_or_else(Instant::now)), if !is_awaited => {
                    let mut waiting = self.waiting.lock();
                    if waiting.receivers == 0 {
                        waiting.is_watched = false;
                        return;
                    }
                }
                () = door.stopping.cancelled() => return,
            }
        }
    }
}

/// A receiver that waits.
pub(super) struct Waits<'a> {
    desk: &'a Desk,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.desk.waiting.lock().receivers -= 1;
        self.desk.looked.notify_one();
        // It may have been told, and not have looked.
        self.desk.changed.notify_one();
    }
}

impl Station {
    fn of(queue: &Topic, topic_id: Uuid, partition: &Arc<Partition>) -> Self {
        Self {
            key: QueueKey { group: Arc::clone(&queue.name), topic_id, partition: partition.index() },
            is_own: topic_id == queue.id,
            partition: Arc::clone(partition),
            end: AtomicI64::new(UNKNOWN),
            changes: AtomicU64::new(0),
            has_changed: AtomicBool::new(true),
            dedup: tokio::sync::Mutex::default(),
            recent: Mutex::default(),
            is_moving: AtomicBool::new(false),
            is_letting_go: AtomicBool::new(false),
            letters: tokio::sync::Mutex::default(),
        }
    }

    /// Returns when there may be something that was not there when the engine was asked last.
    async fn watched(self: Arc<Self>, door: Arc<Inner>, watcher: Arc<str>) -> Arc<Self> {
        let changes = self.changes.load(Ordering::Acquire);
        if door.queues.watch(self.key.clone(), watcher, changes).await.is_err() {
            tokio::time::sleep(COORDINATOR_PAUSE).await;
        }
        self.look_again();
        self
    }

    /// Whether there may be something that was not there when somebody has looked last: what the log has gained since, or what was
    /// seen when the queue was watched.
    pub(super) fn may_have_more(&self) -> bool {
        let read_to = self.end.load(Ordering::Acquire);
        self.has_changed.load(Ordering::Acquire)
            || self.partition.offsets().map_or(true, |offsets| offsets.high_watermark > read_to)
    }

    /// Somebody looks.
    pub(super) fn begin_look(&self) {
        self.has_changed.store(false, Ordering::Release);
    }

    /// The look has found nothing, which `is_all` that there is.
    pub(super) fn found_nothing(&self, received: &Received, is_all: bool) {
        self.changes.store(received.changes, Ordering::Release);
        if !is_all {
            self.look_again();
        }
    }

    /// Something may be there: a change tells of it, or a look has failed, or has found something, where there may be more.
    pub(super) fn look_again(&self) {
        self.has_changed.store(true, Ordering::Release);
    }

    /// Where a record of it lies.
    pub(super) fn place(&self, offset: i64) -> Place {
        Place { topic_id: self.key.topic_id, partition: self.key.partition, offset }
    }

    /// Has the engine hand out up to `max_records`, to a member of a share group or against receipts, after it was shown what
    /// the log has gained: as much of it as it takes to find so many.
    pub(super) async fn take(
        &self,
        door: &QueueDoor,
        config: &QueueConfig,
        max_records: i64,
        lease_ms: i64,
        member: Option<&Arc<str>>,
    ) -> Result<Received, QueueRefusal> {
        self.take_as(door, config, Share { max_records, lease_ms, member, gives_way: None }).await
    }

    /// Has up to `max_records` of those that could be handed out give way to others, of the lowest priority first, and become `dead`.
    pub(super) async fn give_way(
        &self,
        door: &QueueDoor,
        config: &QueueConfig,
        max_records: i64,
        dead: Dead,
    ) -> Result<Received, QueueRefusal> {
        let share = Share { max_records, lease_ms: 0, member: None, gives_way: Some(dead) };
        self.take_as(door, config, share).await
    }

    /// Tells the engine what the queue goes by, and nothing else.
    ///
    /// # Errors
    /// A window that there is not; a coordinator that cannot say now.
    pub(super) async fn show_terms(
        &self,
        door: &QueueDoor,
        config: &QueueConfig,
    ) -> Result<(), QueueRefusal> {
        let receive = Receive {
            member: None,
            log_start: self.partition.offsets()?.log_start_offset,
            leader_epoch: self.partition.leader_epoch(),
            arrivals_from: 0,
            arrivals: Vec::new(),
            max_records: 0,
            lease_ms: 0,
            gives_way: None,
            terms: terms(config),
        };
        door.0.queues.receive(&self.key, receive).await?;
        Ok(())
    }

    async fn take_as(
        &self,
        door: &QueueDoor,
        config: &QueueConfig,
        share: Share<'_>,
    ) -> Result<Received, QueueRefusal> {
        let max_records = share.max_records;
        let mut from = self.end.load(Ordering::Acquire);
        let mut taken: Option<Received> = None;
        let mut reads = 0;
        loop {
            let so_far = taken.as_ref().map_or(0, Received::records);
            let is_known = from != UNKNOWN;
            reads += 1;
            let is_stuck = taken.as_ref().is_some_and(|taken| taken.is_full) || reads > LOOK_AHEAD_READS;
            let left = Share { max_records: max_records - so_far, ..share };
            let round = match (self.take_round(door, config, left, from, is_stuck).await, taken) {
                // What was taken already is delivered; who comes next hears of it.
                (Err(_), Some(before)) if so_far > 0 => return Ok(before),
                (round, before) => {
                    taken = before;
                    round?
                }
            };
            let Some(Round { mut received, is_time, is_end }) = round else {
                from = UNKNOWN;
                continue;
            };
            let has_grown = received.end != from;
            from = received.end;
            if let Some(before) = taken {
                received.ranges.splice(0..0, before.ranges);
            }
            let is_enough = received.records() >= max_records && max_records > 0;
            // A window that goes by other terms now begins to see its records anew, from its start.
            let is_all = is_known && is_end && !has_grown;
            // Who only wants to know what there is goes on: what is new is taken in, however much is with somebody.
            let is_over = (received.is_full && max_records > 0) || (is_known && !has_grown);
            if is_enough || is_all || (is_over && (is_time || max_records == 0)) {
                return Ok(received);
            }
            taken = Some(received);
        }
    }

    /// Shows the engine what one read of the log from `from` on finds, and takes what it hands out then; `None` if it begins
    /// anew: the log was cut below what it had seen, or it had seen nothing.
    async fn take_round(
        &self,
        door: &QueueDoor,
        config: &QueueConfig,
        share: Share<'_>,
        from: i64,
        is_stuck: bool,
    ) -> Result<Option<Round>, QueueRefusal> {
        let is_known = from != UNKNOWN;
        let read = match is_known {
            true => self.read_on(door, from).await?,
            false => None,
        };
        // What comes first among several levels is known when all has been seen.
        let is_time = is_known && (config.priorities == 1 || read.is_none() || is_stuck);
        let is_end = read.is_none();
        let arrivals = match read {
            Some(read) => self.arrivals(door, config, from, read).await?,
            None => Vec::new(),
        };
        let receive = Receive {
            member: share.member.cloned(),
            log_start: self.partition.offsets()?.log_start_offset,
            leader_epoch: self.partition.leader_epoch(),
            arrivals_from: from.max(0),
            arrivals,
            max_records: if is_time { share.max_records } else { 0 },
            lease_ms: share.lease_ms,
            gives_way: share.gives_way,
            terms: terms(config),
        };
        let Some(received) = self.ask(door, receive).await? else { return Ok(None) };
        if let Some(cut) = self.partition.lost_since(received.leader_epoch, received.window_end)? {
            let epoch = self.partition.leader_epoch();
            door.0.queues.go_back(&self.key, cut, received.leader_epoch, epoch).await?;
            return Ok(None);
        }
        Ok(Some(Round { received, is_time, is_end }))
    }

    /// Asks the engine; `None` if there was no window: it is made then, from the first record of the log on.
    async fn ask(&self, door: &QueueDoor, receive: Receive) -> Result<Option<Received>, QueueRefusal> {
        door.start().await?;
        let received = match door.0.queues.receive(&self.key, receive).await {
            Err(QueueFailure::Queue(QueueError::Unknown)) => {
                let start = self.partition.offsets()?.log_start_offset;
                door.0.queues.initialise(&self.key, start, self.partition.leader_epoch()).await?;
                return Ok(None);
            }
            received => received?,
        };
        self.remember(&received);
        Ok(Some(received))
    }

    /// The engine is asked where to read on, the next time.
    pub(super) fn forget_end(&self) {
        self.end.store(UNKNOWN, Ordering::Release);
    }

    fn remember(&self, received: &Received) {
        self.end.store(received.end, Ordering::Release);
    }

    /// Messages are done. If their topic is a queue's that need not keep them, the segments soon go in which nothing else is: also
    /// when it is not that queue's station, for then it may have waited for this one.
    pub(super) fn let_go(self: &Arc<Self>, door: &QueueDoor, desk: &Desk, config: &Arc<QueueConfig>) {
        if self.key.topic_id == desk.topic.id {
            return self.let_own_go(door, config);
        }
        let owner = door.0.catalog.topic_by_id(self.key.topic_id);
        if let Some(owner) = owner
            && let Some(config) = owner.queue.as_ref().filter(|config| !config.keep_acknowledged)
            && let Some(station) = door.desk(&owner).station(owner.id, self.key.partition)
        {
            station.let_own_go(door, config);
        }
    }

    fn let_own_go(self: &Arc<Self>, door: &QueueDoor, config: &Arc<QueueConfig>) {
        if config.keep_acknowledged || self.is_letting_go.swap(true, Ordering::AcqRel) {
            return;
        }
        let (station, door, config) = (Arc::clone(self), door.clone(), Arc::clone(config));
        tokio::spawn(async move {
            tokio::time::sleep(LET_GO_AFTER).await;
            // Whoever is done from here on makes it look once more.
            station.is_letting_go.store(false, Ordering::Release);
            if let Err(error) = station.delete_done(&door, &config).await {
                let (queue, partition) = (station.partition.topic(), station.partition.index());
                debug!(queue, partition, %error, "messages that are done are kept a little longer");
            }
        });
    }

    async fn delete_done(&self, door: &QueueDoor, config: &QueueConfig) -> Result<(), QueueRefusal> {
        if self.partition.known().open.is_none_or(|open| open.segments < 2) {
            return Ok(());
        }
        // What another queue reads, and has not begun to read, is done by nobody.
        let mut done = i64::MAX;
        let readers = door.0.catalog.readers(self.key.topic_id);
        let readers = readers.into_iter().map(|reader| Arc::clone(&reader.name));
        for group in readers.chain([Arc::clone(&self.key.group)]) {
            let key = QueueKey { group, ..self.key.clone() };
            let Some(progress) = door.0.queues.describe(&key).await? else { return Ok(()) };
            done = done.min(progress.start);
        }
        let (partition, now, window_ms) =
            (Arc::clone(&self.partition), door.now_ms(), config.dedup_window_ms);
        let deleting = tokio::task::spawn_blocking(move || {
            // What came within the window is what a restart knows repetitions by.
            let recent = match window_ms {
                0 => None,
                window_ms => partition.offset_for_timestamp(now.saturating_sub(window_ms))?,
            };
            let before = recent.map_or(done, |recent| recent.offset.min(done));
            partition.delete_records(before.min(partition.offsets()?.high_watermark))
        });
        deleting.await.map_err(|_stopped| LogError::Shutdown)??;
        Ok(())
    }

    /// About how many messages so many bytes are, at least one.
    pub(super) fn messages_of(&self, bytes: usize) -> Result<i64, LogError> {
        let offsets = self.partition.offsets()?;
        let messages = offsets.high_watermark - offsets.log_start_offset;
        let average = self.partition.size_bytes()? / u64::try_from(messages).unwrap_or_default().max(1);
        Ok(i64::try_from(bytes as u64 / average.max(1)).unwrap_or(i64::MAX).max(1))
    }

    /// What the log has from `from` on; `None` if that is nothing.
    async fn read_on(&self, door: &QueueDoor, from: i64) -> Result<Option<Read>, QueueRefusal> {
        let offsets = self.partition.offsets()?;
        let from = from.max(offsets.log_start_offset);
        if from >= offsets.high_watermark {
            return Ok(None);
        }
        let read = self.read(door, from, READ_BYTES).await?;
        Ok((read.end > from).then_some(read))
    }

    /// As [`read`].
    async fn read(&self, door: &QueueDoor, from: i64, bytes: usize) -> Result<Read, LogError> {
        read(&self.partition, door, from, bytes).await
    }

    /// The records that [`read`] finds, none of before `from`, and where the next read begins.
    pub(super) async fn read_records(
        &self,
        door: &QueueDoor,
        from: i64,
        bytes: usize,
    ) -> Result<(Vec<Record>, i64), LogError> {
        let read = self.read(door, from, bytes).await?;
        let mut found = Vec::new();
        for batch in read.batches {
            let records = batch.into_records().map_err(|error| unreadable(&self.partition, from, error))?;
            found.extend(records.into_iter().filter(|record| record.offset >= from));
        }
        Ok((found, read.end))
    }

    async fn arrivals(
        &self,
        door: &QueueDoor,
        config: &QueueConfig,
        from: i64,
        read: Read,
    ) -> Result<Vec<Arrival>, QueueRefusal> {
        let mut arrivals = match super::intake::deduplicates(config) {
            true => {
                let mut dedup = self.dedup.lock().await;
                self.seed(door, config, &mut dedup, from).await?;
                self.show(config, &mut dedup, &read)?
            }
            false => self.sort(config, None, &read)?,
        };
        // Compaction may have taken what the last batch ended with.
        let seen = arrivals.last().map_or(from, |last| last.last + 1);
        if seen < read.end {
            let kind = Kind { skip: true, ..Kind::default() };
            arrivals.push(Arrival { first: seen, last: read.end - 1, kind });
        }
        *self.recent.lock() = Arc::new(read);
        Ok(arrivals)
    }

    /// The records of a read as the engine takes them.
    fn sort(
        &self,
        config: &QueueConfig,
        dedup: Option<&mut Dedup>,
        read: &Read,
    ) -> Result<Vec<Arrival>, LogError> {
        let arrivals = super::intake::arrivals(config, self.is_own, dedup, read.records());
        arrivals.map_err(|error| unreadable(&self.partition, read.from, error))
    }

    /// As [`Station::sort`]; `dedup` has seen all of the read then.
    fn show(&self, config: &QueueConfig, dedup: &mut Dedup, read: &Read) -> Result<Vec<Arrival>, LogError> {
        let arrivals = self.sort(config, Some(dedup), read)?;
        dedup.saw_all(read.from..read.end);
        Ok(arrivals)
    }

    /// Shows `dedup` what the log has had below `offset_end_exclusive` within the window before it was looked at first: what has come
    /// since, whoever sends or receives shows it.
    pub(super) async fn seed(
        &self,
        door: &QueueDoor,
        config: &QueueConfig,
        dedup: &mut Dedup,
        offset_end_exclusive: i64,
    ) -> Result<(), LogError> {
        if dedup.unseen.is_none() {
            dedup.unseen = Some(self.recent_offsets(door, config).await?);
        }
        while let Some(unseen) = dedup.unseen.clone()
            && unseen.start < unseen.end.min(offset_end_exclusive)
            && unseen.start < self.partition.offsets()?.high_watermark
        {
            let read = self.read(door, unseen.start, READ_BYTES).await?;
            self.show(config, dedup, &read)?;
            if read.end <= unseen.start {
                // There is nothing that could be seen.
                dedup.saw_all(unseen);
            }
        }
        Ok(())
    }

    /// What the log has of the window in which repetitions are known.
    async fn recent_offsets(&self, door: &QueueDoor, config: &QueueConfig) -> Result<Range<i64>, LogError> {
        let first = self.first_since(door.now_ms().saturating_sub(config.dedup_window_ms)).await?;
        let end = self.partition.offsets()?.high_watermark;
        Ok(first.unwrap_or(end)..end)
    }

    /// The first offset of a record that is of `since` or later.
    pub(super) async fn first_since(&self, since: TimestampMs) -> Result<Option<i64>, LogError> {
        let partition = Arc::clone(&self.partition);
        let found = tokio::task::spawn_blocking(move || partition.offset_for_timestamp(since)).await;
        Ok(found.map_err(|_stopped| LogError::Shutdown)??.map(|found| found.offset))
    }

    /// The records at these offsets, as far as they are there.
    pub(super) async fn records_at(
        &self,
        door: &QueueDoor,
        offsets: &[i64],
    ) -> Result<Vec<Record>, LogError> {
        let mut found = Vec::with_capacity(offsets.len());
        let mut read = Arc::clone(&self.recent.lock());
        for offset in offsets {
            let wrong = |error| unreadable(&self.partition, *offset, error);
            if let Some(record) = read.record(*offset).map_err(wrong)? {
                found.push(record);
                continue;
            }
            // Neighbours are wanted next, more often than not.
            read = Arc::new(self.read(door, *offset, READ_BYTES.min(offsets.len() << 13)).await?);
            found.extend(read.record(*offset).map_err(wrong)?);
            *self.recent.lock() = Arc::clone(&read);
        }
        Ok(found)
    }
}

impl Read {
    /// The records, in order; none of before where the reading began.
    fn records(&self) -> impl Iterator<Item = Result<RecordView<'_>, InvalidBatch>> {
        let records = self.batches.iter().flat_map(|batch| record_views(&batch.header, &batch.block));
        records.filter(|record| record.as_ref().map_or(true, |record| record.offset >= self.from))
    }

    /// The record at an offset, if it is among these.
    pub(super) fn record(&self, offset: i64) -> Result<Option<Record>, InvalidBatch> {
        let at = self.batches.partition_point(|batch| batch.header.last_offset() < offset);
        match self.batches.get(at) {
            Some(batch) => batch.record(offset),
            None => Ok(None),
        }
    }
}

impl Batch {
    /// Whether to find one is to make all, which may be much work.
    fn is_opened(&self) -> bool {
        self.header.record_count > FEW_RECORDS
    }

    fn is_compressed(&self) -> bool {
        self.header.attributes.codec().is_ok_and(|codec| codec != Codec::None)
    }

    fn record(&self, offset: i64) -> Result<Option<Record>, InvalidBatch> {
        if self.is_opened() {
            let records = self.records()?;
            let found = records.binary_search_by_key(&offset, |record| record.offset);
            return Ok(found.ok().map(|at| records[at].clone()));
        }
        let mut views = record_views(&self.header, &self.block);
        let found = views.find(|view| view.as_ref().map_or(true, |view| view.offset == offset));
        Ok(found.transpose()?.map(|view| view.to_record(&self.block)))
    }

    fn records(&self) -> Result<&[Record], InvalidBatch> {
        if let Some(records) = self.records.get() {
            return Ok(records);
        }
        let records = records_in(&self.header, self.block.clone()).collect::<Result<_, _>>()?;
        Ok(self.records.get_or_init(|| records))
    }

    fn into_records(self) -> Result<Vec<Record>, InvalidBatch> {
        match self.records.into_inner() {
            Some(records) => Ok(records),
            None => records_in(&self.header, self.block).collect(),
        }
    }
}

/// The records from `from` on of about so many bytes, at least those of one batch.
pub(super) async fn read(
    partition: &Partition,
    door: &QueueDoor,
    from: i64,
    bytes: usize,
) -> Result<Read, LogError> {
    let read = match partition.read_aside(from, bytes, true).await {
        Err(LogError::OffsetOutOfRange { log_start_offset, .. }) if from < log_start_offset => {
            return Ok(Read { batches: Vec::new(), from, end: log_start_offset });
        }
        read => read?,
    };
    let max_decompressed_bytes = door.0.config.max_decompressed_batch_bytes;
    let decoded = match decode_cached(&read.ranges, from, max_decompressed_bytes) {
        Some(decoded) => decoded,
        None => {
            let work = move || {
                let read = decode(&read.ranges, from, max_decompressed_bytes, FileRange::read)?;
                // Where there is much in little there may be many: they are made while no socket waits.
                for batch in read.batches.iter().filter(|batch| batch.is_opened() && batch.is_compressed()) {
                    batch.records().map_err(invalid)?;
                }
                Ok(read)
            };
            match tokio::task::spawn_blocking(work).await {
                Ok(decoded) => decoded,
                Err(_stopped) => return Err(LogError::Shutdown),
            }
        }
    };
    decoded.map_err(|error| failed(partition, from, error))
}

pub(super) fn unreadable(partition: &Partition, from: i64, error: InvalidBatch) -> LogError {
    failed(partition, from, invalid(error))
}

fn failed(partition: &Partition, from: i64, error: io::Error) -> LogError {
    let (topic, index) = (partition.topic(), partition.index());
    error!(topic, partition = index, offset = from, %error, "records cannot be read to be received");
    partition.unreadable(error)
}

fn invalid(error: InvalidBatch) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// What can be had at once: in memory, and not much work.
fn decode_cached(ranges: &[FileRange], from: i64, max_decompressed_bytes: usize) -> Option<io::Result<Read>> {
    let bytes: Vec<_> = ranges.iter().map(FileRange::read_cached).collect::<Option<_>>()?;
    if bytes.iter().any(is_laborious) {
        return None;
    }
    Some(decode(&bytes, from, max_decompressed_bytes, |bytes| Ok(bytes.clone())))
}

/// Whether to decompress these batches would keep a thread from its sockets.
fn is_laborious(batches: &Bytes) -> bool {
    let mut rest = batches.clone();
    let mut compressed_bytes = 0;
    while let Some((header, payload)) = split_batch(&mut rest) {
        match header.attributes.codec() {
            Ok(Codec::None) => {}
            Ok(Codec::Snappy | Codec::Lz4) if payload.len() <= COSTLY_QUICK_CODEC_BYTES => {
                compressed_bytes += payload.len();
            }
            Ok(Codec::Gzip | Codec::Zstd) if payload.len() <= COSTLY_DENSE_CODEC_BYTES => {
                compressed_bytes += payload.len();
            }
            _ => return true,
        }
    }
    compressed_bytes > COSTLY_READ_BYTES
}

/// Whole batches; what is cut at the end is left to the next read.
fn decode<P>(
    places: &[P],
    from: i64,
    max_decompressed_bytes: usize,
    read: impl Fn(&P) -> io::Result<Bytes>,
) -> io::Result<Read> {
    let mut found = Read { batches: Vec::new(), from, end: from };
    for place in places {
        let mut batches = read(place)?;
        while let Some((header, payload)) = split_batch(&mut batches) {
            if header.checksum(&payload) != header.crc {
                let what = format!("the checksum of the batch at offset {} is wrong", header.base_offset);
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
            found.end = header.last_offset() + 1;
            if !header.attributes.is_control() {
                let block = block(&header, &payload, max_decompressed_bytes).map_err(invalid)?;
                found.batches.push(Batch { header, block, records: OnceLock::new() });
            }
        }
    }
    Ok(found)
}

/// The settings as the engine takes them.
pub(super) fn terms(config: &QueueConfig) -> QueueTerms {
    QueueTerms {
        delivery_limit: config.max_receive_count.unwrap_or(u16::MAX),
        max_in_flight: config.max_in_flight,
        fifo: config.fifo,
        key_concurrency: config.key_concurrency,
        key_rate: config.key_rate,
        priorities: config.priorities,
        backoff: Backoff {
            ms: config.backoff_ms,
            multiplier: config.backoff_multiplier,
            max_ms: config.backoff_max_ms,
        },
        dead: if config.dead_letter_queue.is_some() { Dead::Keep } else { Dead::Archive },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::BatchBuilder;

    fn batch(codec: Codec, bytes: usize) -> Bytes {
        let mut random = fastrand::Rng::with_seed(1);
        let body: Vec<u8> = (0..bytes).map(|_| random.u8(..)).collect();
        let mut batch = BatchBuilder::new().codec(codec);
        batch.push(0, None, Some(&body), &[]);
        batch.build()
    }

    #[test]
    fn what_is_much_to_decompress_goes_where_it_keeps_no_socket() {
        for codec in [Codec::Snappy, Codec::Lz4, Codec::Gzip, Codec::Zstd] {
            assert!(!is_laborious(&batch(codec, 500)), "{codec:?}");
            assert!(is_laborious(&batch(codec, 100_000)), "{codec:?}");
        }
        assert!(!is_laborious(&batch(Codec::None, 100_000)));
        // Many small ones are as much work as a large one.
        let ten_kib = batch(Codec::Lz4, 10 << 10);
        assert!(!is_laborious(&ten_kib.repeat(6).into()));
        assert!(is_laborious(&ten_kib.repeat(7).into()));
    }
}
