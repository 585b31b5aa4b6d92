//! Topics, their partitions and configs, the broker's dynamic configs and producer ids: validated here, kept in a log of
//! their own ([`records`]), folded by [`state`], and served as a [`View`] that readers take without a lock.
//!
//! One task owns the state. It takes the changes that wait, appends them as one batch, and when the log says that they
//! are durable shows them to everyone: nobody sees a topic that a crash could still take back.

pub mod broker_config;
pub mod group_config;
mod homes;
pub mod queue_config;
pub mod records;
pub mod state;
pub mod takeover;
pub mod topic_config;
pub mod view;

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use state::{AssignmentFault, CONSUMER_OFFSETS, CatalogError, CatalogState, Change, SHARE_GROUP_STATE};
pub use view::{SourceTopic, Topic, View};

use crate::clock::Clock;
use crate::config::Config;
use crate::log::config::{FlushMode, LogConfig};
use crate::log::{self, LogDirectories, LogError, Partition};
use crate::record::BatchBuilder;
use crate::uuid::Uuid;
use state::{CLUSTER_METADATA, NewTopic};
use takeover::Takeover;

/// Name of the catalog's own log. Not a topic: clients do not see it and cannot make one of that name.
pub const CATALOG_LOG: &str = "__ottla_catalog";

/// The catalog log's id, fixed as the id of Kafka's metadata log is.
const CATALOG_ID: Uuid = Uuid([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);

/// Producer ids that one record reserves: ids are never given twice, a crash wastes what is left of a block.
const PRODUCER_ID_BLOCK: i64 = 1000;

/// Changes that one batch takes at most.
const CHANGES_A_BATCH: usize = 256;

/// Changes in the log, beyond twice what lives, that make the next one write a snapshot.
const SNAPSHOT_AFTER: usize = 5000;

/// Segments of the catalog log, bytes: a snapshot, which is one batch, must fit; the old ones go after a snapshot.
const SEGMENT_BYTES: u64 = 64 << 20;

/// Whether there is a topic of a name and an id; any id where that is zero.
pub type TopicExists = dyn Fn(&str, Uuid) -> bool + Send + Sync;

/// Whether there is a topic of an id.
pub type TopicIdExists = dyn Fn(Uuid) -> bool + Send + Sync;

type Step = Box<dyn FnOnce(&mut Batch) -> Answer + Send>;
type Answer = Box<dyn FnOnce(Result<(), Arc<LogError>>) + Send>;

/// The handle that all share.
pub struct Catalog {
    /// Held for as long as the broker is, so that a stop completes it.
    _log: Arc<Partition>,
    view: Arc<ArcSwap<View>>,
    steps: mpsc::Sender<Step>,
    changed: watch::Receiver<()>,
    producer_ids: Mutex<std::ops::Range<i64>>,
}

/// Changes that will be appended together, and the state as they leave it.
pub struct Batch {
    state: CatalogState,
    changes: Vec<Change>,
}

impl Batch {
    /// The state with all changes of the batch so far.
    pub fn state(&self) -> &CatalogState {
        &self.state
    }

    /// Adds a change.
    pub fn push(&mut self, change: Change) {
        self.state.apply(&change);
        self.changes.push(change);
    }
}

impl Catalog {
    /// Replays the catalog's log and opens every partition that it names; then serves changes until `stop`.
    ///
    /// # Errors
    /// What reading the log gives; a record that this version cannot read.
    pub async fn open(
        directories: &Arc<LogDirectories>,
        config: &Config,
        clock: &Clock,
        stop: CancellationToken,
    ) -> Result<Self, CatalogError> {
        let flush = view::inherited_flush(config);
        let log = directories.own_partition(CATALOG_LOG, CATALOG_ID, Arc::new(log_config(flush)));
        let (mut state, replayed) = replay(&log)?;
        let mut batch = Batch { state: state.clone(), changes: Vec::new() };
        if replayed == 0 {
            take_over(directories, clock, &mut batch)?;
        }
        let corrections = homes::corrections(batch.state(), directories);
        corrections.into_iter().for_each(|change| batch.push(change));
        let view = View::of(&batch.state, directories, config);
        let is_known = |topic: &str, index| {
            // What a takeover has read once is kept for the way back.
            [CATALOG_LOG, CLUSTER_METADATA].contains(&topic)
                || view.topic(topic).is_some_and(|topic| topic.partition(index).is_some())
        };
        directories.sweep(is_known, |id| state.was_deleted(id));
        if !directories.was_clean() {
            let mut all = view.partitions();
            all.push(Arc::clone(&log));
            let recovered = directories.recover(&all);
            for (partition, error) in recovered.failed {
                error!(topic = partition.topic(), partition = partition.index(), %error, "partition not recovered");
            }
            for cut in recovered.cuts {
                let topic = view.topic(&cut.topic);
                if let Some(partition) = topic.and_then(|topic| topic.partition(cut.partition)) {
                    let leader_epoch = partition.leader_epoch() + 1;
                    partition.bump_leader_epoch(leader_epoch);
                    let (topic_id, partition) = (partition.topic_id(), partition.index());
                    batch.push(Change::LeaderEpoch { topic_id, partition, leader_epoch });
                }
            }
        }
        let mut writer = Writer {
            log,
            clock: clock.clone(),
            directories: Arc::clone(directories),
            config: config.clone(),
            since_snapshot: replayed,
        };
        if !batch.changes.is_empty() {
            writer.append(&batch).await?;
            state = batch.state;
        }
        view.clean(directories, config);
        let (view, log) = (Arc::new(ArcSwap::from_pointee(view)), Arc::clone(&writer.log));
        let (steps, waiting) = mpsc::channel(CHANGES_A_BATCH);
        let (changes, changed) = watch::channel(());
        tokio::spawn(writer.run(state, waiting, Arc::clone(&view), changes, stop));
        Ok(Self { _log: log, view, steps, changed, producer_ids: Mutex::new(0..0) })
    }

    /// What there is now.
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Tells of every new view from now on.
    pub fn changes(&self) -> watch::Receiver<()> {
        let mut changed = self.changed.clone();
        changed.mark_unchanged();
        changed
    }

    /// The queues that read a topic beside their own.
    pub fn readers(&self, topic_id: Uuid) -> Vec<Arc<Topic>> {
        self.view.load().readers(topic_id).cloned().collect()
    }

    /// Whether any queue reads a topic that is not its own.
    pub fn is_read(&self, topic_id: Uuid) -> bool {
        self.view.load().readers(topic_id).next().is_some()
    }

    /// Whether a topic of an id exists at the moment of the question.
    pub fn topic_id_exists(&self) -> Arc<TopicIdExists> {
        let view = Arc::clone(&self.view);
        Arc::new(move |id| view.load().topic_by_id(id).is_some())
    }

    /// The topic of that name.
    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.view.load().topic(name).cloned()
    }

    /// The topic of that id.
    pub fn topic_by_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        self.view.load().topic_by_id(id).cloned()
    }

    /// Whether a topic of a name, and of an id where that is known, exists at the moment of the question: one that was made
    /// after this was called exists, too.
    pub fn topic_exists(&self) -> Arc<TopicExists> {
        let view = Arc::clone(&self.view);
        Arc::new(move |name, id| view.load().topic(name).is_some_and(|topic| id.is_zero() || topic.id == id))
    }

    /// Decides changes against the current state and gives what `decide` returned once they are durable and visible.
    ///
    /// # Errors
    /// The log's, if the changes could not be kept; then none of them happened.
    pub async fn change<T: Send + 'static>(
        &self,
        decide: impl FnOnce(&mut Batch) -> T + Send + 'static,
    ) -> Result<T, CatalogError> {
        let (reply, answered) = oneshot::channel();
        let step: Step = Box::new(move |batch| {
            let outcome = decide(batch);
            // The asker may have gone; its change stands.
            Box::new(move |kept| drop(reply.send(kept.map(|()| outcome))))
        });
        let stopped = || CatalogError::NotStored(Arc::new(LogError::Shutdown));
        self.steps.send(step).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?.map_err(CatalogError::NotStored)
    }

    /// The topic of committed offsets and group memberships, made if there is none.
    ///
    /// # Errors
    /// The log's, if the topic could not be kept.
    pub async fn consumer_offsets(&self, config: &Config) -> Result<Arc<Topic>, CatalogError> {
        let segment_bytes = config.offsets_topic_segment_bytes;
        let configs =
            [("cleanup.policy", "compact".to_owned()), ("segment.bytes", segment_bytes.to_string())];
        self.internal(CONSUMER_OFFSETS, config.offsets_topic_num_partitions, &configs).await
    }

    /// The topic of what share groups have done, made if there is none. The coordinator lets go of what a snapshot has replaced.
    ///
    /// # Errors
    /// The log's, if the topic could not be kept.
    pub async fn share_group_state(&self, config: &Config) -> Result<Arc<Topic>, CatalogError> {
        let segment_bytes = config.share_coordinator_state_topic_segment_bytes;
        let configs = [
            ("cleanup.policy", "delete".to_owned()),
            ("retention.ms", "-1".to_owned()),
            ("segment.bytes", segment_bytes.to_string()),
        ];
        self.internal(SHARE_GROUP_STATE, config.share_coordinator_state_topic_num_partitions, &configs).await
    }

    async fn internal(
        &self,
        name: &'static str,
        partitions: i32,
        configs: &[(&str, String)],
    ) -> Result<Arc<Topic>, CatalogError> {
        if let Some(topic) = self.topic(name) {
            return Ok(topic);
        }
        let configs = configs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        let wanted = NewTopic { name: name.to_owned(), partitions, configs };
        self.change(move |batch| {
            if batch.state().topic(name).is_none() {
                let change = batch.state().create_topic(&wanted)?;
                batch.push(change);
            }
            Ok::<_, CatalogError>(())
        })
        .await??;
        self.topic(name).ok_or(CatalogError::UnknownTopic)
    }

    /// A producer id that was never given before.
    ///
    /// # Errors
    /// The log's, if a new block of ids could not be reserved.
    pub async fn producer_id(&self) -> Result<i64, CatalogError> {
        loop {
            if let Some(id) = self.producer_ids.lock().next() {
                return Ok(id);
            }
            let block = self
                .change(|batch| {
                    let first = batch.state().next_producer_id();
                    batch.push(Change::ProducerIds { next: first + PRODUCER_ID_BLOCK });
                    first..first + PRODUCER_ID_BLOCK
                })
                .await?;
            let mut ids = self.producer_ids.lock();
            // Another asker may have been first; its block is used up before ours is looked at, ours is not needed then.
            if ids.is_empty() {
                *ids = block;
            }
        }
    }
}

/// Nothing of it goes but what a snapshot has replaced.
fn log_config(flush: FlushMode) -> LogConfig {
    LogConfig { segment_bytes: SEGMENT_BYTES, delete: false, flush, ..view::default_log_config() }
}

/// Folds the log from its start. Also gives how many changes it holds.
fn replay(log: &Partition) -> Result<(CatalogState, usize), CatalogError> {
    let mut state = CatalogState::default();
    let mut changes = 0;
    log::replay(log, |record| {
        state.apply(&Change::from_record(record.value.as_deref().unwrap_or_default())?);
        changes += 1;
        Ok::<_, CatalogError>(())
    })?;
    Ok((state, changes))
}

/// A directory that holds partitions but no catalog is Kafka's, or has lost its catalog: its topics are put into `batch`, and
/// what is not taken is said.
fn take_over(directories: &LogDirectories, clock: &Clock, batch: &mut Batch) -> Result<(), CatalogError> {
    let mut paths = Vec::new();
    for directory in directories.all().iter().filter(|directory| directory.offline().is_none()) {
        if directory.partition_folders().iter().any(|(topic, _)| topic != CATALOG_LOG) {
            paths.push(directory.path().to_owned());
        }
    }
    let Some(first) = paths.first() else { return Ok(()) };
    let takeover = Takeover::read(directories.disk(), &paths, directories.node_id())?;
    let (topics, partitions, path) = (takeover.topics.len(), takeover.partitions(), first.display());
    info!(target: "ottla::start", topics, partitions, %path, "takes over a directory of Apache Kafka");
    takeover.not_taken.iter().for_each(|what| warn!("not taken over: {what}"));
    takeover.changes(clock.now_ms()).into_iter().for_each(|change| batch.push(change));
    Ok(())
}

/// The task that owns the state.
struct Writer {
    log: Arc<Partition>,
    clock: Clock,
    directories: Arc<LogDirectories>,
    config: Config,
    /// Changes in the log after the last snapshot.
    since_snapshot: usize,
}

impl Writer {
    async fn run(
        mut self,
        mut state: CatalogState,
        mut waiting: mpsc::Receiver<Step>,
        view: Arc<ArcSwap<View>>,
        changes: watch::Sender<()>,
        stop: CancellationToken,
    ) {
        let mut steps = Vec::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                taken = waiting.recv_many(&mut steps, CHANGES_A_BATCH) => {
                    if taken == 0 {
                        return;
                    }
                }
            }
            let before = state.clone();
            let mut batch = Batch { state, changes: Vec::new() };
            let answers: Vec<Answer> = steps.drain(..).map(|step| step(&mut batch)).collect();
            homes::place(&mut batch, &self.directories);
            let kept = self.append(&batch).await.map_err(Arc::new);
            state = match &kept {
                Ok(()) => batch.state,
                Err(failure) => {
                    error!(error = %failure, "a change of topics or configs could not be stored and was taken back");
                    before
                }
            };
            if kept.is_ok() && !batch.changes.is_empty() {
                let next = view.load().after(&batch.changes, &state, &self.directories, &self.config);
                view.store(Arc::new(next));
                changes.send_replace(());
                self.snapshot_if_due(&state).await;
            }
            for answer in answers {
                answer(kept.clone());
            }
        }
    }

    /// Appends the batch's changes and waits until they are durable.
    async fn append(&mut self, batch: &Batch) -> Result<(), LogError> {
        if batch.changes.is_empty() {
            return Ok(());
        }
        self.since_snapshot += batch.changes.len();
        let last = self.write(&batch.changes)?;
        self.log.durable(last + 1).await
    }

    /// One batch of records; all of it survives a crash or nothing. Returns its last offset.
    fn write(&self, changes: &[Change]) -> Result<i64, LogError> {
        let now = self.clock.now_ms();
        let mut batch = BatchBuilder::new();
        for change in changes {
            let (key, value) = change.to_record();
            batch = batch.record(now, Some(&key), Some(&value));
        }
        Ok(self.log.append(batch.build_valid())?.last_offset)
    }

    /// Writes the whole state as one batch and lets what stands before it go, when the log has grown well beyond it.
    async fn snapshot_if_due(&mut self, state: &CatalogState) {
        if self.since_snapshot < SNAPSHOT_AFTER + 2 * state.snapshot_len() {
            return;
        }
        let snapshot = state.snapshot();
        let first_of_snapshot = self.log.offsets().map_or(0, |offsets| offsets.log_end_offset);
        let written = match self.write(&snapshot) {
            Ok(last) => self.log.durable(last + 1).await,
            Err(error) => Err(error),
        };
        match written.and_then(|()| self.log.delete_records(first_of_snapshot)) {
            Ok(_) => {
                info!(changes = snapshot.len(), "catalog snapshot written");
                self.since_snapshot = snapshot.len();
            }
            Err(error) => error!(%error, "catalog snapshot failed; the changes are still in the log"),
        }
    }
}
