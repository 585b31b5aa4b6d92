//! A scrape: reads what the broker counts and knows, and writes it piece by piece, so that ten thousand partitions take no more
//! memory than ten, and a peer that reads slowly holds a piece and not the whole.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use tokio::time::timeout;

use crate::group::{Committed, Listing, State};
use crate::handlers::Shared;
use crate::log::partition::Known;
use crate::log::{LogDirectory, Partition};
use crate::net::budget::Budget;
use crate::operations::QueueStats;
use crate::protocol::ErrorCode;
use crate::telemetry::{
    ApiCounters, ConnectionCounters, Counter, Histogram, Metric, ProcessUsage, QueueCounters, Text, names,
};

/// Bytes after which a piece is sent.
const PIECE_BYTES: usize = 32 << 10;

/// What a scrape looks at. Cheap to clone.
#[derive(Clone)]
pub struct Observed {
    /// What all requests share.
    pub shared: Arc<Shared>,
    /// The memory of requests in flight.
    pub budget: Budget,
    /// Places that [`Shared::decompressions`] began with.
    pub decompressions_max: usize,
    /// The connections of the SQS listeners.
    pub sqs: Arc<ConnectionCounters>,
}

impl Observed {
    /// Whether the broker has begun to stop.
    pub fn is_stopping(&self) -> bool {
        self.shared.stopping.is_cancelled()
    }
}

/// One metric of every partition; `None` where it is not known.
type PartitionMetric = (Metric, fn(&Partition, &Known) -> Option<i64>);

/// The metrics of partitions. The high watermark stands before the log end, which is read later and so never below it.
const PARTITION_METRICS: [PartitionMetric; 5] = [
    (names::LOG_START_OFFSET, |_, known| Some(known.log_start_offset)),
    (names::HIGH_WATERMARK, |_, known| Some(known.high_watermark)),
    (names::LOG_END_OFFSET, |_, known| Some(known.log_end_offset)),
    (names::LEADER_EPOCH, |partition, _| Some(i64::from(partition.leader_epoch()))),
    (names::PARTITION_BYTES, |_, known| known.open.and_then(|open| i64::try_from(open.size_bytes).ok())),
];

/// One metric of every offset that a group has committed; `None` where it is not known.
type OffsetMetric = (Metric, fn(&Committed, Option<&Partition>) -> Option<i64>);

/// The metrics of committed offsets. A topic that has gone, or is another one of that name now, has no lag.
const OFFSET_METRICS: [OffsetMetric; 2] = [
    (names::GROUP_COMMITTED_OFFSET, |committed, _| Some(committed.offset)),
    (names::GROUP_LAG, |committed, partition| {
        let partition = partition?;
        let same = committed.topic_id.is_zero() || committed.topic_id == partition.topic_id();
        same.then(|| (partition.known().high_watermark - committed.offset).max(0))
    }),
];

/// One counter of every queue.
type QueueCounter = (Metric, fn(&QueueCounters) -> &Counter);

/// The counters of queues.
const QUEUE_COUNTERS: [QueueCounter; 11] = [
    (names::QUEUE_SENT, |queue| &queue.sent),
    (names::QUEUE_DUPLICATES, |queue| &queue.duplicates),
    (names::QUEUE_RECEIVED, |queue| &queue.received),
    (names::QUEUE_REDELIVERED, |queue| &queue.redelivered),
    (names::QUEUE_EMPTY_RECEIVES, |queue| &queue.empty_receives),
    (names::QUEUE_ACKNOWLEDGED, |queue| &queue.acknowledged),
    (names::QUEUE_RELEASED, |queue| &queue.released),
    (names::QUEUE_REJECTED, |queue| &queue.rejected),
    (names::QUEUE_DEAD_LETTERED, |queue| &queue.dead_lettered),
    (names::QUEUE_REDRIVEN, |queue| &queue.redriven),
    (names::QUEUE_DROPPED, |queue| &queue.dropped),
];

/// One histogram of every queue.
type QueueHistogram = (Metric, fn(&QueueCounters) -> &Histogram);

/// The histograms of queues.
const QUEUE_HISTOGRAMS: [QueueHistogram; 2] =
    [(names::QUEUE_WAIT, |queue| &queue.wait), (names::QUEUE_PROCESSING, |queue| &queue.processing)];

/// Longest that a scrape waits for a queue.
const QUEUE_PATIENCE: Duration = Duration::from_millis(500);

/// Longest that a scrape waits for the coordinator of the groups; a scrape without them tells more than none.
const GROUP_PATIENCE: Duration = Duration::from_secs(1);

/// The pieces of one scrape, made when asked for.
pub(super) struct Exposition {
    observed: Observed,
    http: Arc<ConnectionCounters>,
    /// The partitions there were when it began.
    partitions: Vec<Arc<Partition>>,
    /// The groups there were when their turn came.
    groups: Listing,
    next: Next,
}

/// What comes next.
enum Next {
    Broker,
    /// This one of [`PARTITION_METRICS`], from this partition on.
    Partitions(usize, usize),
    Groups,
    /// This one of [`OFFSET_METRICS`], of this group.
    Offsets(usize, usize),
    /// All of the queues: there are few, next to partitions.
    Queues,
    End,
}

impl Exposition {
    pub(super) fn new(observed: Observed, http: Arc<ConnectionCounters>) -> Self {
        let partitions = observed.shared.catalog.view().partitions();
        Self { observed, http, partitions, groups: Listing::default(), next: Next::Broker }
    }

    /// What there is once, or once for each API.
    fn broker(&self, text: &mut Text) {
        text.describe(&names::BUILD_INFO);
        text.sample(&names::BUILD_INFO, &[("version", &env!("CARGO_PKG_VERSION"))], 1);
        if let Some(usage) = ProcessUsage::now() {
            usage.write(text);
        }
        self.requests(text);
        self.connections(text);
        self.limits(text);
        self.logs(text);
    }

    fn requests(&self, text: &mut Text) {
        let apis = || self.observed.shared.requests.iter();
        let mut counter = |metric: &Metric, of: fn(&ApiCounters) -> &Counter| {
            text.describe(metric);
            for api in apis() {
                text.sample(metric, &[("api", &api.name)], of(api).value());
            }
        };
        counter(&names::REQUESTS, |api| &api.requests);
        counter(&names::REQUEST_BYTES, |api| &api.request_bytes);
        counter(&names::RESPONSE_BYTES, |api| &api.response_bytes);
        text.describe(&names::REQUEST_ERRORS);
        for api in apis() {
            for (code, count) in api.errors() {
                let error = ErrorCode::from_code(code).map_or("", ErrorCode::name);
                text.sample(&names::REQUEST_ERRORS, &[("api", &api.name), ("error", &error)], count);
            }
        }
        text.describe(&names::REQUEST_SECONDS);
        for api in apis() {
            text.histogram(&names::REQUEST_SECONDS, &[("api", &api.name)], &api.latency);
        }
    }

    fn connections(&self, text: &mut Text) {
        let Observed { shared, sqs, .. } = &self.observed;
        let protocols = [("http", &*self.http), ("kafka", &*shared.connections), ("sqs", &**sqs)];
        let mut each = |metric: &Metric, of: fn(&ConnectionCounters) -> u64| {
            text.describe(metric);
            for (protocol, counters) in protocols {
                text.sample(metric, &[("protocol", &protocol)], of(counters));
            }
        };
        each(&names::CONNECTIONS, ConnectionCounters::open);
        each(&names::CONNECTIONS_ACCEPTED, |counters| counters.accepted.value());
        each(&names::CONNECTIONS_REFUSED, |counters| counters.refused.value());
        each(&names::ACCEPT_FAILURES, |counters| counters.accept_failures.value());
        text.describe(&names::CONNECTIONS_CLOSED);
        for (protocol, counters) in protocols {
            for (reason, count) in counters.by_reason() {
                let labels: &[(_, &dyn std::fmt::Display)] = &[("protocol", &protocol), ("reason", &reason)];
                text.sample(&names::CONNECTIONS_CLOSED, labels, count);
            }
        }
    }

    /// What is bounded, with its bound.
    fn limits(&self, text: &mut Text) {
        let Observed { shared, budget, decompressions_max, .. } = &self.observed;
        text.single(&names::QUEUED_REQUEST_BYTES, budget.used());
        text.single(&names::QUEUED_REQUEST_BYTES_LIMIT, budget.total());
        text.single(&names::FETCH_SESSIONS, shared.fetch_sessions.len());
        text.single(&names::FETCH_SESSIONS_LIMIT, shared.config.max_incremental_fetch_session_cache_slots);
        text.single(&names::SHARE_SESSIONS, shared.share_sessions.len());
        text.single(&names::SHARE_SESSIONS_LIMIT, shared.config.group_share_max_share_sessions);
        text.single(&names::SHARE_DEAD_LETTERS, shared.door.share_letters());
        let idle = shared.decompressions.available_permits();
        text.single(&names::DECOMPRESSIONS, decompressions_max.saturating_sub(idle));
        text.single(&names::DECOMPRESSIONS_LIMIT, decompressions_max);
        text.single(&names::UNSYNCED_BYTES, shared.logs.unsynced_bytes());
        text.single(&names::UNSYNCED_BYTES_LIMIT, shared.logs.unsynced_bytes_limit());
        let (open_files, open_files_limit) = shared.logs.open_files();
        text.single(&names::OPEN_FILES, open_files);
        text.single(&names::OPEN_FILES_LIMIT, open_files_limit);
    }

    fn logs(&self, text: &mut Text) {
        let shared = &self.observed.shared;
        let open: Vec<_> = self.partitions.iter().filter_map(|partition| partition.known().open).collect();
        text.single(&names::TOPICS, shared.catalog.view().topics().count());
        text.single(&names::PARTITIONS, self.partitions.len());
        text.single(&names::PARTITIONS_OPENED, open.len());
        text.single(&names::PRODUCERS, open.iter().map(|open| open.producers).sum::<usize>());
        text.single(&names::LOG_BYTES, open.iter().map(|open| open.size_bytes).sum::<u64>());
        text.single(&names::SEGMENTS, open.iter().map(|open| open.segments).sum::<usize>());
        let counters = shared.logs.counters();
        text.single(&names::APPENDED_RECORDS, counters.appended_records.value());
        text.single(&names::APPENDED_BYTES, counters.appended_bytes.value());
        text.single(&names::RETIRED_SEGMENTS, counters.retired_segments.value());
        text.single(&names::RETIRED_BYTES, counters.retired_bytes.value());
        text.describe(&names::SYNC_SECONDS);
        text.histogram(&names::SYNC_SECONDS, &[], &counters.syncs);
        text.single(&names::FAILED_SYNCS, counters.failed_syncs.value());
        text.single(&names::SYNC_QUEUE, shared.logs.sync_queue_len());
        text.describe(&names::COMPACTION_SECONDS);
        text.histogram(&names::COMPACTION_SECONDS, &[], &counters.compactions);
        text.single(&names::COMPACTION_READ_BYTES, counters.compaction_read_bytes.value());
        text.single(&names::COMPACTION_WRITTEN_BYTES, counters.compaction_written_bytes.value());
        text.single(&names::COMPACTION_REMOVED_RECORDS, counters.compaction_removed_records.value());
        let (mut max_dirty_ratio, mut uncleanable) = (0.0, 0);
        for directory in shared.logs.all() {
            max_dirty_ratio = directory.max_dirty_ratio().max(max_dirty_ratio);
            uncleanable += directory.uncleanable_partitions();
        }
        text.single(&names::MAX_DIRTY_RATIO, max_dirty_ratio);
        text.single(&names::UNCLEANABLE_PARTITIONS, uncleanable);
        text.single(&names::REFUSED_APPENDS, counters.refused_appends.value());
        let mut each = |metric: &Metric, of: fn(&LogDirectory) -> bool| {
            text.describe(metric);
            for directory in shared.logs.all() {
                text.sample(metric, &[("directory", &directory.path().display())], u8::from(of(directory)));
            }
        };
        each(&names::DIRECTORY_OFFLINE, |directory| directory.offline().is_some());
        each(&names::DIRECTORY_FULL, LogDirectory::is_full);
    }

    /// Writes a metric of the partitions from `first` on until the piece is large enough; gives the first one not written.
    fn partitions(&self, text: &mut Text, (metric, of): PartitionMetric, first: usize) -> usize {
        if first == 0 {
            text.describe(&metric);
        }
        for (place, partition) in self.partitions.iter().enumerate().skip(first) {
            if text.len() >= PIECE_BYTES {
                return place;
            }
            if let Some(value) = of(partition, &partition.known()) {
                let (topic, index) = (partition.topic(), partition.index());
                text.sample(&metric, &[("topic", &topic), ("partition", &index)], value);
            }
        }
        self.partitions.len()
    }

    /// Asks for the groups and writes what there is once, or once for each of them; whether they are known.
    async fn groups(&mut self, text: &mut Text) -> bool {
        let shared = &self.observed.shared;
        let Ok(Ok(listing)) = timeout(GROUP_PATIENCE, shared.groups.list()).await else { return false };
        self.groups = listing;
        let groups = &self.groups.groups;
        text.describe(&names::GROUPS);
        for state in State::ALL {
            let count = groups.iter().filter(|group| group.state == state).count();
            text.sample(&names::GROUPS, &[("state", &state.name())], count);
        }
        text.describe(&names::GROUP_MEMBERS);
        for group in groups {
            text.sample(&names::GROUP_MEMBERS, &[("group", &group.group_id)], group.members);
        }
        text.single(&names::GROUP_BYTES, self.groups.bytes);
        text.single(&names::GROUP_BYTES_LIMIT, shared.config.group_coordinator_max_bytes);
        true
    }

    /// Writes a metric of all that one group has committed.
    async fn offsets(&self, text: &mut Text, (metric, of): OffsetMetric, number: usize) {
        if number == 0 {
            text.describe(&metric);
        }
        let Some(group) = self.groups.groups.get(number).map(|group| &group.group_id) else { return };
        let shared = &self.observed.shared;
        let Ok(Ok(committed)) = timeout(GROUP_PATIENCE, shared.groups.offsets(group, None)).await else {
            return;
        };
        let catalog = shared.catalog.view();
        for (topic, partitions) in &committed {
            let known = catalog.topic(topic);
            for (index, committed) in partitions {
                let partition = known.and_then(|known| known.partition(*index));
                if let Some(value) = of(committed, partition.map(|partition| &**partition)) {
                    let labels: &[(_, &dyn std::fmt::Display)] =
                        &[("group", group), ("topic", topic), ("partition", index)];
                    text.sample(&metric, labels, value);
                }
            }
        }
    }

    /// Asks each queue what it holds, and writes that with what was counted of it.
    async fn queues(&self, text: &mut Text) {
        let Shared { door, .. } = &*self.observed.shared;
        let (mut known, now_ms) = (Vec::new(), door.now_ms());
        for queue in door.queues() {
            let Ok(counters) = door.counters(&queue.name) else { continue };
            let stats = timeout(QUEUE_PATIENCE, door.stats(&queue.name)).await;
            known.push((queue.name, counters, stats.ok().and_then(Result::ok)));
        }
        text.describe(&names::QUEUE_MESSAGES);
        for (queue, _, stats) in &known {
            let Some(QueueStats { counts, dead, .. }) = stats else { continue };
            let states = [
                ("ready", counts.ready),
                ("in_flight", counts.in_flight),
                ("delayed", counts.delayed),
                ("dead", *dead),
            ];
            for (state, count) in states {
                text.sample(&names::QUEUE_MESSAGES, &[("queue", queue), ("state", &state)], count);
            }
        }
        text.describe(&names::QUEUE_OLDEST_AGE);
        for (queue, _, stats) in &known {
            if let Some(oldest_ms) = stats.and_then(|stats| stats.oldest_ms) {
                let age = now_ms.saturating_sub(oldest_ms).max(0) as f64 / 1e3;
                text.sample(&names::QUEUE_OLDEST_AGE, &[("queue", queue)], age);
            }
        }
        text.describe(&names::QUEUE_DEAD_LETTERS);
        for (queue, _, stats) in &known {
            if let Some(letters) = stats.and_then(|stats| stats.dead_letters) {
                text.sample(&names::QUEUE_DEAD_LETTERS, &[("queue", queue)], letters);
            }
        }
        text.describe(&names::QUEUE_RECEIVERS);
        for (queue, _, stats) in &known {
            if let Some(stats) = stats {
                text.sample(&names::QUEUE_RECEIVERS, &[("queue", queue)], stats.receivers);
            }
        }
        for (metric, of) in QUEUE_COUNTERS {
            text.describe(&metric);
            for (queue, counters, _) in &known {
                text.sample(&metric, &[("queue", queue)], of(counters).value());
            }
        }
        for (metric, of) in QUEUE_HISTOGRAMS {
            text.describe(&metric);
            for (queue, counters, _) in &known {
                text.histogram(&metric, &[("queue", queue)], of(counters));
            }
        }
    }

    /// The next piece and what comes after it; `None` at the end.
    pub(super) async fn next(mut self: Box<Self>) -> Option<(Bytes, Box<Self>)> {
        let mut text = Text::default();
        while text.len() < PIECE_BYTES {
            self.next = match self.next {
                Next::Broker => {
                    self.broker(&mut text);
                    Next::Partitions(0, 0)
                }
                Next::Partitions(number, first) => match PARTITION_METRICS.get(number) {
                    Some(metric) => match self.partitions(&mut text, *metric, first) {
                        next if next < self.partitions.len() => Next::Partitions(number, next),
                        _ => Next::Partitions(number + 1, 0),
                    },
                    None => Next::Groups,
                },
                Next::Groups => match self.groups(&mut text).await {
                    true => Next::Offsets(0, 0),
                    false => Next::Offsets(OFFSET_METRICS.len(), 0),
                },
                Next::Offsets(number, group) => match OFFSET_METRICS.get(number) {
                    Some(metric) => {
                        self.offsets(&mut text, *metric, group).await;
                        match group + 1 {
                            next if next < self.groups.groups.len() => Next::Offsets(number, next),
                            _ => Next::Offsets(number + 1, 0),
                        }
                    }
                    None => Next::Queues,
                },
                Next::Queues => {
                    self.queues(&mut text).await;
                    Next::End
                }
                Next::End => break,
            };
        }
        (!text.is_empty()).then(|| (text.into_string().into(), self))
    }
}
