//! A log directory: what is common to the partitions in one folder. Its lock, identity and checkpoints; the threads that sync,
//! and those that clean up; a start after a clean stop that looks at no partition, and one after a crash that looks at all.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::LogError;
use super::checkpoint::{self, InvalidCheckpoint};
use super::cleaner::{Cleaner, CleanerConfig};
use super::config::{FlushMode, LogConfig};
use super::flush::{SyncQueue, Turn};
use super::journal::{self, Journal, Owner};
use super::partition::{Partition, Retired};
use super::progress::Progress;
use super::recovery::{self, Cut, OpenRequest, Trust};
use super::scheduling::{self, Precedence};
use super::segment::{Segment, file_name};
use super::space::SpaceGuard;
use super::view::SyncWork;
use crate::clock::Clock;
use crate::storage::{Disk, DiskFile, Durability, Lock, Space, read_file, replace_file};
use crate::telemetry::LogCounters;
use crate::uuid::Uuid;

/// The file whose lock says that a log directory is in use; the lock goes with the process, however it ended.
pub const LOCK_FILE: &str = ".lock";
/// The first file that an owner writes once it has the lock.
pub const PROPERTIES_FILE: &str = "meta.properties";
/// Is there while an import goes on, and after one that was interrupted.
pub const IMPORT_FILE: &str = "ottla-import";
/// Says that the last stop was a clean one; Kafka's name.
pub const CLEAN_FILE: &str = ".kafka_cleanshutdown";
/// Offsets below which everything is synced, by partition.
pub const RECOVERY_POINTS_FILE: &str = "recovery-point-offset-checkpoint";
/// First offsets by partition, where they are not those of the first segments.
pub const LOG_STARTS_FILE: &str = "log-start-offset-checkpoint";
/// Offsets below which logs were compacted, by partition.
const CLEANED_FILE: &str = "cleaner-offset-checkpoint";
pub(super) const BOOT_FILE: &str = "ottla-boot-id";

/// How [`Identity::render`] begins.
const PROPERTIES_BEGIN: &[u8] = b"version=1\ncluster.id=";

/// Between two writings of the checkpoints; also the longest that anything stays unsynced.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(60);

/// Synced bytes after which the checkpoints are written before that: after the death of the machine, a start reads hardly more
/// than this, besides what was not synced.
const CHECKPOINT_BYTES: u64 = 64 << 20;

/// Partitions whose log starts retention makes durable with one write, before it takes their old segments away.
const RETAINED_AT_ONCE: usize = 256;

/// From this many partitions on, one sync of the whole file system is taken instead of one for each file.
const SYNC_EACH_MAX: usize = 16;

/// Between two lines about a recovery that takes long.
const PROGRESS_EVERY: Duration = Duration::from_secs(3);

/// Longest name of a folder, in bytes.
const FOLDER_NAME_BYTES_MAX: usize = 255;

/// How a directory is opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirectoryOptions {
    /// The folder; made if it does not exist.
    pub path: PathBuf,
    /// The node id that a new directory gets and an existing one must have.
    pub node_id: i32,
    /// The cluster id that a new directory gets (none: a random one) and an existing one must have (none: any).
    pub cluster_id: Option<Uuid>,
    /// Unsynced bytes of os-mode partitions at which [`Partition::room`] waits; syncing begins at half of it.
    pub os_unsynced_max_bytes: u64,
    /// Threads that sync. With none there are no others either: a test does their work itself.
    pub flush_threads: usize,
    /// Where each of the two files of the commit journal is full, bytes; 0: there is none.
    pub journal_bytes: u64,
    /// Threads that recover after a crash.
    pub recovery_threads: usize,
    /// Silence after which an idempotent producer is forgotten, ms.
    pub producer_id_expiration_ms: i64,
    /// Idempotent producers that a partition remembers at most.
    pub producers_max: usize,
    /// Bytes of the file system that appends leave free; 0: they take what there is.
    pub min_free_bytes: u64,
    /// Whether every byte is read again, however the last stop was: for a repair.
    pub check_all: bool,
    /// Whether an existing directory may belong to any node.
    pub any_node: bool,
    /// Between two looks for what retention lets go.
    pub retention_check_interval: Duration,
    /// From the start to the first of them.
    pub initial_task_delay: Duration,
}

impl DirectoryOptions {
    /// The defaults, for `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            node_id: 0,
            cluster_id: None,
            os_unsynced_max_bytes: 64 << 20,
            flush_threads: 4,
            journal_bytes: 8 << 20,
            recovery_threads: 4,
            producer_id_expiration_ms: 86_400_000,
            producers_max: 10_000,
            min_free_bytes: 0,
            check_all: false,
            any_node: false,
            retention_check_interval: Duration::from_secs(300),
            initial_task_delay: Duration::from_secs(30),
        }
    }
}

/// Why a directory cannot be used. Nothing in it has been changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenDirectoryError {
    /// Another process has it open.
    #[error("{}: in use by another broker", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// It has files, but not ours.
    #[error("{}: has files of another program ({example:?}) and no {PROPERTIES_FILE}", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// One of the files.
        example: String,
    },
    /// An import into it has not come to its end.
    #[error("{}: an import was interrupted; run it again", path.display())]
    UnfinishedImport {
        /// The file that says so.
        path: PathBuf,
    },
    /// It belongs to another cluster.
    #[error("{}: belongs to cluster {found}, not {expected}", path.display())]
    OtherCluster {
        /// The properties file.
        path: PathBuf,
        /// The cluster that it names.
        found: Uuid,
        /// The cluster that was asked for.
        expected: Uuid,
    },
    /// It belongs to another node.
    #[error("{}: belongs to node {found}, not {expected}", path.display())]
    OtherNode {
        /// The properties file.
        path: PathBuf,
        /// The node that it names.
        found: i32,
        /// The node that was asked for.
        expected: i32,
    },
    /// The properties are of a newer format, or damaged.
    #[error("{}: {key} is missing or not what it must be", path.display())]
    Properties {
        /// The properties file.
        path: PathBuf,
        /// The property.
        key: &'static str,
    },
    /// A checkpoint is damaged.
    #[error("{}: {source}", path.display())]
    Checkpoint {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong with it.
        source: InvalidCheckpoint,
    },
    /// Two directories have the same partition.
    #[error("{} and {} are both the partition's: one of them must go", first.display(), second.display())]
    Twice {
        /// Its folder in one of them.
        first: PathBuf,
        /// Its folder in the other.
        second: PathBuf,
    },
    /// A directory is new where the others have partitions, and none of them says which topics there are.
    #[error("{}: is new, but there are partitions in {}: the log directory that knows their topics is missing", path.display(), other.display())]
    Missing {
        /// The new directory.
        path: PathBuf,
        /// The one with partitions.
        other: PathBuf,
    },
    /// The disk says no: permission, space, a read-only mount.
    #[error("{}: {source}", path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl OpenDirectoryError {
    /// What has failed in a file of the directory `path`.
    fn of_log(path: &Path, error: LogError) -> Self {
        match error {
            LogError::Disk { path, source }
            | LogError::NoSpace { path, source }
            | LogError::OutOfDescriptors { path, source } => Self::Disk { path, source },
            error => Self::Disk { path: path.to_owned(), source: io::Error::other(error) },
        }
    }
}

/// What [`LogDirectory::recover`] has done.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Logs of which something was cut off: their leader epochs must rise by one.
    pub cuts: Vec<Arc<Cut>>,
    /// Partitions that could not be opened; they say why again at each use.
    pub failed: Vec<(Arc<Partition>, LogError)>,
}

/// An open log directory. Dropping it without [`Self::close`] is as the death of the process: nothing is lost that was
/// promised, and the next start recovers.
#[derive(Debug)]
pub struct LogDirectory {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// How many of them compact.
    cleaners: Mutex<usize>,
    cluster_id: Uuid,
    directory_id: Uuid,
    was_clean: bool,
    folders: Vec<(String, i32)>,
}

/// Topic and partition.
pub(super) type Key = (String, i32);

/// What all directories of a broker share.
#[derive(Clone, Debug, Default)]
pub(super) struct Common {
    /// What is counted of all partitions.
    pub counters: Arc<LogCounters>,
    /// Wakes who must know that a directory is offline.
    pub alarm: Arc<Notify>,
}

/// What the directory, its threads and its partitions share.
#[derive(Debug)]
pub struct Shared {
    options: DirectoryOptions,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) clock: Clock,
    trust: Trust,
    queue: SyncQueue,
    journal: Mutex<Journal>,
    pub(super) counters: Arc<LogCounters>,
    /// Partitions to sync when it is time: os mode's bytes above the limit, or a minute over.
    listed: Mutex<Vec<Arc<Partition>>>,
    /// What could not be taken away yet, for the next look of retention.
    retired: Mutex<Vec<Retired>>,
    unsynced_bytes: AtomicU64,
    /// Bytes synced since the checkpoints were written.
    synced_bytes: AtomicU64,
    has_room: Notify,
    root: Root,
    partitions: Mutex<HashMap<Key, Weak<Partition>>>,
    checkpoints: Mutex<Checkpoints>,
    chores: Mutex<Chores>,
    chores_changed: Condvar,
    pub(super) cleaner: Cleaner,
    progress: Progress,
    /// Whether everything counts as having been synced once.
    all_synced: bool,
    found: Mutex<Found>,
    /// Whether all logs are known to be whole: then a stop can be a clean one.
    whole: AtomicBool,
    stopped: AtomicBool,
    space: SpaceGuard,
    /// Why nothing in it is trusted any more, once that is so.
    offline: OnceLock<String>,
    /// Whether the broker cannot do without it.
    is_essential: AtomicBool,
    /// Wakes who must know that a directory is offline.
    alarm: Arc<Notify>,
    /// Held until the directory is closed or dropped.
    lock: Mutex<Option<Box<dyn Lock>>>,
}

/// Names in the directory's own folder that may not be durable yet.
#[derive(Debug, Default)]
struct Root {
    changes: AtomicU64,
    ever_synced: AtomicBool,
    /// Held while syncing, so that who needs a change durable waits for who is at it.
    synced: Mutex<RootSynced>,
}

#[derive(Debug, Default)]
struct RootSynced {
    /// Changes that have been synced.
    changes: u64,
    /// What a new directory has, besides names in it: its identity, and its own name in the folders above.
    files: Vec<Arc<dyn DiskFile>>,
    folders: Vec<PathBuf>,
}

/// What was wrong with partitions when they were opened.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Logs of which something was cut off.
    pub cuts: Vec<Arc<Cut>>,
    /// Topic and number of partitions that could not be opened, and why.
    pub failed: Vec<(String, i32, String)>,
}

/// By topic and partition, as last written or loaded.
#[derive(Debug, Default)]
struct Checkpoints {
    recovery_points: BTreeMap<Key, i64>,
    log_starts: BTreeMap<Key, i64>,
    written_recovery_points: String,
    written_log_starts: String,
    /// Where the last compaction of a log ended.
    cleaned_to: BTreeMap<Key, i64>,
    written_cleaned_to: String,
    /// Whether the file still tells of a partition that is gone: a log that has its name and grows longer would count as compacted
    /// up to there.
    cleaned_is_stale: bool,
    /// Of these the files still tell, though they are gone: their names must not be used again before that is mended.
    stale: BTreeSet<Key>,
}

/// What the cleaning thread has to do.
#[derive(Debug, Default)]
struct Chores {
    removals: Vec<(Instant, Removal)>,
    checkpoints_due: bool,
    /// Partitions to sync before the next tick, by their address: those whose `flush.ms` is short.
    flushes: HashMap<usize, (Instant, Weak<Partition>)>,
}

#[derive(Debug)]
enum Removal {
    Files(Vec<PathBuf>),
    Folder(PathBuf),
}

impl LogDirectory {
    /// Locks and reads a directory, or makes a new one. An existing one that is not ours, or damaged, is left as it is.
    pub fn open(
        options: DirectoryOptions,
        disk: Arc<dyn Disk>,
        clock: Clock,
    ) -> Result<Arc<Self>, OpenDirectoryError> {
        Self::open_with(options, disk, clock, Common::default())
    }

    /// The same of one of several.
    pub(super) fn open_with(
        options: DirectoryOptions,
        disk: Arc<dyn Disk>,
        clock: Clock,
        common: Common,
    ) -> Result<Arc<Self>, OpenDirectoryError> {
        let path = options.path.clone();
        let failed = |source| OpenDirectoryError::Disk { path: path.clone(), source };
        let made = make_folder(&*disk, &path).map_err(failed)?;
        refuse_foreign(&*disk, &path)?;
        let lock_path = path.join(LOCK_FILE);
        let lock = disk
            .try_lock(&lock_path)
            .map_err(|source| OpenDirectoryError::Disk { path: lock_path, source })?
            .ok_or_else(|| OpenDirectoryError::Locked { path: path.clone() })?;
        refuse_foreign(&*disk, &path)?;
        let properties = read_properties(&*disk, &options)?;
        // Who checks everything needs to know only that something was synced.
        let (recovery_points, all_synced) = match read_checkpoint(&*disk, &path.join(RECOVERY_POINTS_FILE)) {
            Err(OpenDirectoryError::Checkpoint { .. }) if options.check_all => (BTreeMap::new(), true),
            recovery_points => (recovery_points?, false),
        };
        let checkpoints = Checkpoints {
            recovery_points,
            log_starts: read_checkpoint(&*disk, &path.join(LOG_STARTS_FILE))?,
            cleaned_to: read_checkpoint(&*disk, &path.join(CLEANED_FILE))?,
            ..Checkpoints::default()
        };
        let boot_id = disk.boot_id().map_err(failed)?;
        let entries = disk.list(&path).map_err(failed)?;
        let is_there = |name: &str| entries.iter().any(|entry| entry.name == name);
        let folders: Vec<Key> = entries
            .iter()
            .filter(|entry| entry.is_dir)
            .filter_map(|entry| parse_folder(&entry.name))
            .collect();
        // From here on the directory is ours, and changed.
        let mut checkpoints = checkpoints;
        for entry in entries.iter().filter(|entry| entry.is_dir) {
            if let Some(key) = parse_deleted(&entry.name)
                && !folders.contains(&key)
            {
                checkpoints.forget(&key);
            }
        }
        let is_same_boot = matches!(
            read_file(&*disk, &path.join(BOOT_FILE), 4096), Ok(known) if known == boot_id.as_bytes()
        );
        let trust = match is_same_boot {
            _ if options.check_all => Trust::Synced,
            _ if is_there(CLEAN_FILE) || folders.is_empty() => Trust::Everything,
            true => Trust::PageCache,
            false => Trust::Synced,
        };
        let replayed = match is_there(CLEAN_FILE) {
            true => journal::forget(&*disk, &path).map(|()| 0),
            false => journal::replay(&*disk, &path, is_same_boot),
        };
        match replayed.map_err(|error| OpenDirectoryError::of_log(&path, error))? {
            0 => {}
            files => {
                tracing::info!(directory = %path.display(), files, "took over what the commit journal had")
            }
        }
        let root = Root::default();
        root.changed_above(made);
        if folders.is_empty() {
            // The start that made it may have died before it was synced.
            root.changed_above(folders_above(&*disk, &path));
            if properties.is_some() {
                root.wrote(disk.open(&path.join(PROPERTIES_FILE)).map_err(failed)?);
            }
        }
        let (cluster_id, directory_id) = match properties {
            Some(ids) => ids,
            None => write_properties(&*disk, &options, &root)?,
        };
        let mut shared = Shared::new(options, disk, clock, common, trust, root, checkpoints);
        shared.all_synced = all_synced;
        *shared.lock.lock() = Some(lock);
        let shared = Arc::new(shared);
        if is_there(CLEAN_FILE) {
            // It must not be there again after a crash, not even in os mode: it would make a torn log pass for a whole one.
            // The first append waits until it is gone for good, so that the start need not.
            shared.disk.remove(&path.join(CLEAN_FILE)).map_err(failed)?;
            shared.root.changed();
        }
        if trust == Trust::Everything {
            // Otherwise it is written when recovery is over: until then the next start must do what this one should have.
            shared.write_boot_id().map_err(failed)?;
        }
        for entry in entries.iter().filter(|entry| entry.is_dir && entry.name.ends_with("-delete")) {
            shared.remove_later(Removal::Folder(path.join(&entry.name)), Duration::ZERO);
        }
        let threads = start_threads(&shared).inspect_err(|_| shared.stop()).map_err(failed)?;
        let threads = Mutex::new(threads);
        let was_clean = trust == Trust::Everything;
        Ok(Arc::new(Self {
            shared,
            threads,
            cleaners: Mutex::new(0),
            cluster_id,
            directory_id,
            was_clean,
            folders,
        }))
    }

    /// Stands for a directory that cannot be used, for this reason: partitions in it are offline.
    pub(super) fn unavailable(
        options: DirectoryOptions,
        disk: Arc<dyn Disk>,
        clock: Clock,
        common: Common,
        reason: String,
    ) -> Arc<Self> {
        let shared =
            Shared::new(options, disk, clock, common, Trust::Synced, Root::default(), Checkpoints::default());
        // It is new: nobody else can have set it.
        let _: Result<(), _> = shared.offline.set(reason);
        shared.stop();
        Arc::new(Self {
            cluster_id: shared.options.cluster_id.unwrap_or_default(),
            shared: Arc::new(shared),
            threads: Mutex::default(),
            cleaners: Mutex::default(),
            directory_id: Uuid::default(),
            was_clean: true,
            folders: Vec::new(),
        })
    }

    /// The cluster that it belongs to.
    pub fn cluster_id(&self) -> Uuid {
        self.cluster_id
    }

    /// The node that it belongs to.
    pub fn node_id(&self) -> i32 {
        self.shared.options.node_id
    }

    /// Its own id.
    pub fn directory_id(&self) -> Uuid {
        self.directory_id
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.shared.options.path
    }

    /// What its files are read with.
    pub fn disk(&self) -> &dyn Disk {
        &*self.shared.disk
    }

    /// Whether the last stop was clean (or this is a new directory): then there is nothing to recover.
    pub fn was_clean(&self) -> bool {
        self.was_clean
    }

    /// What was wrong with the partitions that have been opened so far.
    pub fn found(&self) -> Found {
        self.shared.found.lock().clone()
    }

    /// Topic and partition of each folder that was there at the start.
    pub fn partition_folders(&self) -> Vec<(String, i32)> {
        self.folders.clone()
    }

    /// Whether there was a folder of that partition at the start.
    pub fn had_folder(&self, topic: &str, index: i32) -> bool {
        self.folders.iter().any(|(found, number)| found == topic && *number == index)
    }

    /// Bytes appended but not synced.
    pub fn unsynced_bytes(&self) -> u64 {
        self.shared.unsynced_bytes.load(Ordering::Relaxed)
    }

    /// Unsynced bytes at which [`Partition::room`] waits.
    pub fn unsynced_bytes_limit(&self) -> u64 {
        self.shared.options.os_unsynced_max_bytes
    }

    /// Partitions that wait for a syncing thread.
    pub fn sync_queue_len(&self) -> usize {
        self.shared.queue.len()
    }

    /// From now on compacts the logs of topics that want it, as configured. Not to be called before [`Self::recover`] where that is
    /// due.
    pub fn clean(&self, config: CleanerConfig) {
        self.shared.cleaner.configure(config);
        let mut threads = self.threads.lock();
        let mut cleaners = self.cleaners.lock();
        while *cleaners < config.threads && !self.shared.is_stopped() {
            let (shared, number) = (Arc::clone(&self.shared), *cleaners);
            let thread = std::thread::Builder::new().name(format!("clean-{number}"));
            match thread.spawn(move || shared.work_at_cleaning(number)) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    tracing::warn!(%error, "fewer threads compact than are configured");
                    return;
                }
            }
            *cleaners += 1;
        }
    }

    /// Logs that cannot be compacted, and were reported.
    pub fn uncleanable_partitions(&self) -> usize {
        self.shared.cleaner.uncleanable()
    }

    /// Of the log that has the largest one, the share of bytes that were not compacted yet.
    pub fn max_dirty_ratio(&self) -> f64 {
        self.shared.cleaner.max_dirty_ratio()
    }

    /// What is counted of all partitions.
    pub fn counters(&self) -> &LogCounters {
        &self.shared.counters
    }

    /// Why nothing in it can be read or written any more, if that is so.
    pub fn offline(&self) -> Option<&str> {
        self.shared.offline.get().map(String::as_str)
    }

    /// Whether the broker cannot do without it.
    pub fn is_essential(&self) -> bool {
        self.shared.is_essential.load(Ordering::SeqCst)
    }

    /// Whether the last append was refused for want of space.
    pub fn is_full(&self) -> bool {
        self.shared.space.is_full()
    }

    /// How much its file system holds. Asks the system, which may have to ask a server.
    pub fn space(&self) -> io::Result<Space> {
        self.shared.disk.space(self.path())
    }

    /// Whether `partition` is in this directory.
    pub fn has(&self, partition: &Partition) -> bool {
        Arc::ptr_eq(&self.shared, &partition.directory)
    }

    /// The partition of that topic and number; while it lives, always the same one. A topic that replaces another of the same
    /// name must come after [`Self::delete`] of the other's partitions. No I/O: the folder is opened at the first use, and made
    /// at the first append.
    pub fn partition(
        self: &Arc<Self>,
        topic: &str,
        topic_id: Uuid,
        index: i32,
        leader_epoch: i32,
        config: Arc<LogConfig>,
    ) -> Arc<Partition> {
        self.partition_of_any_kind((topic, topic_id, index), leader_epoch, config, false)
    }

    /// The same of a log that the broker cannot do without. It may use the space that is kept free; and the broker cannot go on
    /// when the directory fails.
    pub fn essential_partition(
        self: &Arc<Self>,
        topic: &str,
        topic_id: Uuid,
        config: Arc<LogConfig>,
    ) -> Arc<Partition> {
        self.shared.is_essential.store(true, Ordering::SeqCst);
        self.partition_of_any_kind((topic, topic_id, 0), 0, config, true)
    }

    fn partition_of_any_kind(
        self: &Arc<Self>,
        (topic, topic_id, index): (&str, Uuid, i32),
        leader_epoch: i32,
        config: Arc<LogConfig>,
        is_essential: bool,
    ) -> Arc<Partition> {
        let mut partitions = self.shared.partitions.lock();
        let key = (topic.to_owned(), index);
        if let Some(known) = partitions.get(&key).and_then(Weak::upgrade)
            && known.topic_id() == topic_id
        {
            return known;
        }
        let partition =
            Partition::new(&self.shared, topic, topic_id, index, leader_epoch, config, is_essential);
        if self.shared.is_offline() {
            partition.go_offline();
        }
        partitions.insert(key, Arc::downgrade(&partition));
        partition
    }

    /// After an unclean stop, before anything is served: opens `partitions`, which must be all, cuts what is torn, syncs what
    /// commit mode promises. Blocks; uses several threads.
    pub fn recover(&self, partitions: &[Arc<Partition>]) -> Recovered {
        let results = Mutex::new(Recovered::default());
        let next = AtomicUsize::new(0);
        let progress = &self.shared.progress;
        progress.begin(partitions.len());
        // Whoever died may have died before syncing the names of the checkpoints that were read. If that fails, each partition
        // says that the directory is offline.
        if let Err(error) = self.shared.sync_root() {
            self.shared.fail_if_written(&error);
        }
        std::thread::scope(|scope| {
            let _over = progress.tell_every(PROGRESS_EVERY, scope);
            std::thread::scope(|scope| {
                for _ in 0..self.shared.options.recovery_threads.clamp(1, partitions.len().max(1)) {
                    scope.spawn(|| {
                        while let Some(partition) = partitions.get(next.fetch_add(1, Ordering::Relaxed)) {
                            match partition.recover() {
                                Ok(None) => {}
                                Ok(Some(cut)) => {
                                    cut.tell();
                                    results.lock().cuts.push(cut);
                                }
                                Err(error) => results.lock().failed.push((Arc::clone(partition), error)),
                            }
                            progress.done(1);
                        }
                    });
                }
            });
        });
        let mut recovered = results.into_inner();
        let failed = |partition: &Arc<Partition>, recovered: &Recovered| {
            recovered.failed.iter().any(|(failed, _)| Arc::ptr_eq(failed, partition))
        };
        let opened: Vec<_> = partitions.iter().filter(|partition| !failed(partition, &recovered)).collect();
        let to_sync: Vec<_> = opened
            .iter()
            .copied()
            .filter(|partition| partition.config().flush == FlushMode::Commit && partition.awaits_sync())
            .collect();
        let all_synced = match to_sync.len() {
            0 => true,
            1..=SYNC_EACH_MAX => {
                to_sync.iter().for_each(|partition| partition.sync());
                true
            }
            _ => match self.shared.disk.sync_all(self.path()) {
                Ok(()) => {
                    to_sync.iter().for_each(|partition| partition.raise_all_synced());
                    true
                }
                Err(source) => {
                    let error = || LogError::sync(self.path(), io::Error::from(source.kind()));
                    self.shared.fail_if_written(&error());
                    recovered.failed.extend(to_sync.iter().map(|partition| (Arc::clone(partition), error())));
                    false
                }
            },
        };
        opened.iter().for_each(|partition| partition.recovered());
        if !recovered.cuts.is_empty() {
            // They say what lies behind the cuts: nothing now.
            self.shared.checkpoint();
        }
        if recovered.failed.is_empty() && all_synced {
            self.shared.whole.store(true, Ordering::SeqCst);
            if let Err(error) = self.shared.write_boot_id() {
                tracing::warn!(%error, "the next start after a crash will read more than it had to");
            }
        }
        recovered
    }

    /// Whether the names of a start are durable, and nothing more is done for that.
    #[cfg(test)]
    pub(super) fn has_synced_names(&self) -> bool {
        self.shared.root.ever_synced.load(Ordering::SeqCst)
    }

    /// Does what a syncing thread does next; whether there was anything.
    #[cfg(test)]
    pub(super) fn sync_next(&self) -> bool {
        self.shared.queue.next_now().map(|turn| self.shared.take_turn(turn)).is_some()
    }

    /// Does what the cleaning thread does, every minute included; retention excepted.
    #[cfg(test)]
    pub(super) fn do_chores(&self) {
        self.shared.do_chores();
    }

    /// What the cleaning thread does every [`DirectoryOptions::retention_check_interval`].
    #[cfg(test)]
    pub(super) fn retain(&self) {
        self.shared.retain();
    }

    /// Takes a partition away: who waits for it is told, its folder gets out of the way of a new topic of that name at once, and
    /// its files are removed in the background.
    pub fn delete(&self, partition: &Arc<Partition>) -> Result<(), LogError> {
        let shared = &self.shared;
        let key = (partition.topic().to_owned(), partition.index());
        {
            let mut partitions = shared.partitions.lock();
            if partitions.get(&key).is_some_and(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(partition)))
            {
                partitions.remove(&key);
            }
        }
        partition.delete(|| {
            if shared.is_offline() {
                // Whoever starts again with the disk mended finds it deleted.
                return Ok(());
            }
            shared.checkpoints.lock().forget(&key);
            shared.cleaner.forget(&key);
            if parse_deleted(&aside_name(&key, "delete")).is_none() {
                // Its folder's new name will not tell the next start whose it was.
                shared.forget_stale()?;
            }
            if let Some(aside) = shared.set_aside(&partition.folder(), &key, "delete")? {
                shared.remove_later(Removal::Folder(aside), Duration::ZERO);
            }
            Ok(())
        })
    }

    /// At start: removes folders of topics whose deletion a crash has interrupted, and names those that no topic accounts
    /// for, which are left alone.
    pub fn sweep(&self, is_known: impl Fn(&str, i32) -> bool, was_deleted: impl Fn(Uuid) -> bool) {
        for (topic, index) in self.folders.iter().filter(|(topic, index)| !is_known(topic, *index)) {
            let folder = self.shared.folder(topic, *index);
            let removed = match recovery::topic_id_of(&*self.shared.disk, &folder) {
                Ok(Some(id)) if was_deleted(id) => {
                    self.shared.checkpoints.lock().forget(&(topic.clone(), *index));
                    self.shared.set_aside(&folder, &(topic.clone(), *index), "delete")
                }
                Ok(_) => {
                    tracing::warn!(folder = %folder.display(), "a partition of no known topic is left alone");
                    continue;
                }
                Err(error) => Err(error),
            };
            match removed {
                Ok(aside) => {
                    aside
                        .into_iter()
                        .for_each(|path| self.shared.remove_later(Removal::Folder(path), Duration::ZERO));
                }
                Err(error) => {
                    tracing::warn!(%error, "a deleted partition's folder stays until the next start")
                }
            }
        }
    }

    /// A clean stop: nothing more is appended; everything is synced, with all that spares the next start from looking; the lock is
    /// given back. Whatever fails only makes the next start recover.
    pub async fn close(&self) {
        let shared = Arc::clone(&self.shared);
        // Only a runtime that is going down refuses the task, and then the next start recovers.
        let closed = tokio::task::spawn_blocking(move || shared.close()).await;
        if let Ok(Err(error)) = closed {
            tracing::warn!(%error, "not a clean stop: the next start will recover");
        }
    }

    /// Ends as the death of the process would, for all who hold it: when this returns nothing is written any more and the lock
    /// is given back. Blocks for what is being written or synced just now.
    pub fn abandon(&self) {
        self.shared.stop();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the log directory has panicked");
            }
        }
        // It has hold of partitions, which have hold of what it is in.
        self.shared.journal.lock().end();
        self.shared.lock.lock().take();
    }
}

impl Drop for LogDirectory {
    fn drop(&mut self) {
        self.abandon();
    }
}

impl Shared {
    fn new(
        options: DirectoryOptions,
        disk: Arc<dyn Disk>,
        clock: Clock,
        common: Common,
        trust: Trust,
        root: Root,
        checkpoints: Checkpoints,
    ) -> Self {
        Self {
            disk,
            clock,
            trust,
            queue: SyncQueue::default(),
            journal: Mutex::new(Journal::new(options.journal_bytes)),
            counters: common.counters,
            listed: Mutex::default(),
            retired: Mutex::default(),
            unsynced_bytes: AtomicU64::new(0),
            synced_bytes: AtomicU64::new(0),
            has_room: Notify::new(),
            root,
            partitions: Mutex::default(),
            checkpoints: Mutex::new(checkpoints),
            chores: Mutex::default(),
            chores_changed: Condvar::new(),
            cleaner: Cleaner::default(),
            progress: Progress::default(),
            all_synced: false,
            found: Mutex::default(),
            whole: AtomicBool::new(trust == Trust::Everything),
            stopped: AtomicBool::new(false),
            lock: Mutex::default(),
            space: SpaceGuard::new(options.min_free_bytes),
            offline: OnceLock::new(),
            is_essential: AtomicBool::new(false),
            alarm: common.alarm,
            options,
        }
    }
}

/// For the partitions.
impl Shared {
    pub(super) fn folder(&self, topic: &str, index: i32) -> Arc<Path> {
        self.options.path.join(format!("{topic}-{index}")).into()
    }

    /// How to open the log of `partition`. A folder that was made for another topic of the same name is set aside.
    pub(super) fn open_request<'a>(
        &'a self,
        partition: &'a Partition,
        config: &'a LogConfig,
    ) -> Result<OpenRequest<'a>, LogError> {
        let folder = partition.folder();
        let key = (partition.topic().to_owned(), partition.index());
        let named = recovery::topic_id_of(&*self.disk, &folder)?;
        if let Some(other) = named
            && other != partition.topic_id()
            && !partition.topic_id().is_zero()
        {
            tracing::warn!(folder = %folder.display(), topic_id = %other, "of another topic: set aside as a stray");
            self.checkpoints.lock().forget(&key);
            self.forget_stale()?;
            self.set_aside(&folder, &key, "stray")?;
        }
        let checkpoints = {
            let mut checkpoints = self.checkpoints.lock();
            if checkpoints.stale.contains(&key) {
                checkpoints.write_both(&*self.disk, &self.options.path)?;
            }
            checkpoints
        };
        Ok(OpenRequest {
            disk: &self.disk,
            folder,
            topic: partition.topic(),
            topic_id: partition.topic_id(),
            has_metadata: named.is_some(),
            index: partition.index(),
            leader_epoch: partition.leader_epoch(),
            trust: self.trust,
            recovery_point: match self.all_synced {
                true => i64::MAX,
                false => checkpoints.recovery_points.get(&key).copied().unwrap_or(0),
            },
            check_all: self.options.check_all,
            log_start: checkpoints.log_starts.get(&key).copied().unwrap_or(0),
            config,
            producers_max: self.options.producers_max,
            now_ms: self.clock.now_ms(),
            checked_bytes: &self.progress.checked_bytes,
        })
    }

    /// Notes what came of opening a partition.
    pub(super) fn opened(&self, partition: &Partition, cut: Result<Option<Arc<Cut>>, &LogError>) {
        let mut found = self.found.lock();
        match cut {
            Ok(cut) => found.cuts.extend(cut),
            Err(error) => {
                found.failed.push((partition.topic().to_owned(), partition.index(), error.to_string()));
            }
        }
    }

    /// Returns once what the start has changed is durable, which it soon is: neither may the folder of a partition outlive the
    /// identity of a new directory, nor a batch be torn under the marker of the last clean stop.
    pub(super) fn await_start(&self) -> Result<(), LogError> {
        if self.root.ever_synced.load(Ordering::Acquire) {
            return Ok(());
        }
        self.sync_root().inspect_err(|error| self.fail_if_written(error))
    }

    pub(super) async fn room(&self) {
        loop {
            let mut has_room = std::pin::pin!(self.has_room.notified());
            has_room.as_mut().enable();
            let unsynced = self.unsynced_bytes.load(Ordering::SeqCst);
            if unsynced < self.options.os_unsynced_max_bytes || self.stopped.load(Ordering::SeqCst) {
                return;
            }
            has_room.await;
        }
    }

    /// Counts bytes that are about to be seen by the next sync.
    pub(super) fn wrote(&self, bytes: u64) {
        self.unsynced_bytes.fetch_add(bytes, Ordering::SeqCst);
    }

    /// Has everything synced that waits for it, if that is half of what may be unsynced, or more.
    pub(super) fn sync_if_many(&self) {
        if self.unsynced_bytes.load(Ordering::SeqCst) >= self.options.os_unsynced_max_bytes / 2 {
            self.sync_listed();
        }
    }

    /// Counts bytes that no longer wait for a sync.
    pub(super) fn synced(&self, bytes: u64) {
        if bytes > 0 {
            self.unsynced_bytes.fetch_sub(bytes, Ordering::SeqCst);
            self.has_room.notify_waiters();
            let before = self.synced_bytes.fetch_add(bytes, Ordering::Relaxed);
            if before < CHECKPOINT_BYTES && before + bytes >= CHECKPOINT_BYTES {
                self.chores.lock().checkpoints_due = true;
                self.chores_changed.notify_one();
            }
        }
    }

    /// Something was appended that somebody waits for until it is durable.
    pub(super) fn awaits_commit(&self) {
        self.queue.appended();
    }

    pub(super) fn enqueue(&self, partition: Arc<Partition>) {
        self.queue.push(partition);
    }

    /// Has a partition synced when it is time: after `flush_ms` at the latest.
    pub(super) fn list(&self, partition: Arc<Partition>, flush_ms: i64) {
        if !self.stopped.load(Ordering::SeqCst) {
            self.sync_within(&partition, flush_ms);
            self.listed.lock().push(partition);
            self.sync_if_many();
        }
    }

    /// Has a partition that is on the list synced after `flush_ms`, if nothing has it synced before.
    pub(super) fn sync_within(&self, partition: &Arc<Partition>, flush_ms: i64) {
        let within = Duration::from_millis(u64::try_from(flush_ms).unwrap_or(0));
        if within < CHECKPOINT_INTERVAL {
            let (key, weak) = (Arc::as_ptr(partition) as usize, Arc::downgrade(partition));
            self.chores.lock().flushes.insert(key, (Instant::now() + within, weak));
            self.chores_changed.notify_one();
        }
    }

    /// Log start and recovery point of a partition that has not been opened: after a clean stop, where its log begins and ends.
    pub(super) fn checkpointed(&self, topic: &str, index: i32) -> (i64, i64) {
        let key = (topic.to_owned(), index);
        let checkpoints = self.checkpoints.lock();
        let of = |offsets: &BTreeMap<Key, i64>| offsets.get(&key).copied().unwrap_or(0);
        (of(&checkpoints.log_starts), of(&checkpoints.recovery_points))
    }

    /// Syncs the files and names that `work` covers.
    pub(super) fn execute(&self, folder: &Path, work: &SyncWork) -> Result<(), LogError> {
        let began = Instant::now();
        let synced = self.sync_work(folder, work);
        self.counters.syncs.observe(began.elapsed());
        if synced.is_err() {
            self.counters.failed_syncs.increment();
        }
        synced
    }

    fn sync_work(&self, folder: &Path, work: &SyncWork) -> Result<(), LogError> {
        for segment in &work.segments {
            segment.file()?.sync_data().map_err(|source| LogError::sync(&segment.path(), source))?;
        }
        for file in &work.beside.files {
            file.sync_data().map_err(|source| LogError::sync(folder, source))?;
        }
        if work.beside.names {
            self.disk.sync_dir(folder).map_err(|source| LogError::sync(folder, source))?;
        }
        if work.beside.folder {
            self.root.changed();
        }
        self.sync_root()
    }

    /// What a syncing thread does until the end.
    fn work_at_syncing(&self) {
        let mut precedence = Precedence::new();
        while let Some(turn) = self.queue.next() {
            // Syncs of files may take long, and not all of it is waiting for the disk.
            precedence.go_first(matches!(turn, Turn::Commit(_)));
            self.take_turn(turn);
        }
    }

    fn take_turn(&self, turn: Turn) {
        match turn {
            Turn::Commit(partitions) => {
                let began = Instant::now();
                let rest = self.commit(partitions);
                self.queue.committed(rest, began.elapsed());
            }
            Turn::Files(partition) => partition.sync(),
        }
    }

    /// Makes durable what was appended to `partitions`, by the journal; those whose files must be synced for it.
    fn commit(&self, partitions: Vec<Arc<Partition>>) -> Vec<Arc<Partition>> {
        let mut journal = self.journal.lock();
        journal.begin();
        let mut left = Vec::new();
        let mut committing = Vec::with_capacity(partitions.len());
        for partition in &partitions {
            match partition.begin_commit(&mut journal) {
                Some(begun) => committing.push((partition, begun)),
                None => left.push(Arc::clone(partition)),
            }
        }
        let is_written = journal.is_empty() || journal.has_room() && self.write_journal(&mut journal);
        for (partition, begun) in committing {
            if is_written {
                if !begun.is_empty() {
                    journal.owes(partition, begun.end_offset());
                }
                begun.end();
            } else {
                begun.give_up();
                left.push(Arc::clone(partition));
            }
        }
        left
    }

    /// Whether the journal could be written.
    fn write_journal(&self, journal: &mut Journal) -> bool {
        let began = Instant::now();
        let written = journal.write(&*self.disk, &self.options.path, || {
            self.root.changed();
            self.sync_root()
        });
        self.counters.syncs.observe(began.elapsed());
        match &written {
            Ok(()) => {}
            // The syncs of the files will find out what there is.
            Err(LogError::NoSpace { .. } | LogError::OutOfDescriptors { .. }) => {}
            Err(error) => {
                self.counters.failed_syncs.increment();
                self.fail(error);
            }
        }
        written.is_ok()
    }

    /// Sees to it that what the journal has of segments below `segment` will never be written to them.
    pub(super) fn void_journal(&self, owner: Owner<'_>, segment: i64) -> bool {
        let mut journal = self.journal.lock();
        journal.add_void(owner, segment);
        journal.has_room() && self.write_journal(&mut journal)
    }

    /// Whether all logs are known to be whole: a partition that is not open needs no recovery then.
    pub(super) fn is_whole(&self) -> bool {
        self.whole.load(Ordering::SeqCst)
    }

    /// Makes log starts durable, all with one write, and takes away what lies below them. What cannot be taken away yet is tried
    /// again with the next.
    pub(super) fn retire(&self, retired: Vec<Retired>) -> Result<(), LogError> {
        let mut all = std::mem::take(&mut *self.retired.lock());
        all.extend(retired);
        if all.is_empty() {
            return Ok(());
        }
        // The checkpoint comes first: without it, a log whose files are gone would begin where they did.
        let saved = self.save_log_starts(&all);
        let (ready, later): (Vec<_>, Vec<_>) = match &saved {
            Ok(()) => (all, Vec::new()),
            // It need not be the disk's last word: who makes space must not need any, as far as that goes.
            Err(LogError::NoSpace { .. }) => all.into_iter().partition(|retired| retired.start_is_evident),
            Err(_) => (Vec::new(), all),
        };
        for Retired { partition, segments, .. } in ready {
            partition.discard(&segments);
        }
        self.retired.lock().extend(later);
        saved
    }

    fn save_log_starts(&self, retired: &[Retired]) -> Result<(), LogError> {
        let mut checkpoints = self.checkpoints.lock();
        // A deletion takes the entry away, also one that happens just now.
        for Retired { partition, log_start, .. } in retired.iter().filter(|one| !one.partition.is_deleted()) {
            checkpoints.set_log_start((partition.topic().to_owned(), partition.index()), *log_start);
        }
        let written = checkpoints.write_log_starts(&*self.disk, &self.options.path);
        drop(checkpoints);
        written.inspect_err(|error| self.fail_if_written(error))
    }

    /// Where the last compaction of a log ended.
    pub(super) fn cleaned_to(&self, key: &Key) -> Option<i64> {
        self.checkpoints.lock().cleaned_to.get(key).copied()
    }

    /// A log that ends there now has nothing beyond that was compacted.
    pub(super) fn cleaned_at_most(&self, partition: &Partition, log_end_offset: i64) {
        let key = (partition.topic().to_owned(), partition.index());
        if let Some(offset) = self.checkpoints.lock().cleaned_to.get_mut(&key) {
            *offset = (*offset).min(log_end_offset);
        }
    }

    /// Writes down where a compaction of a log has ended.
    pub(super) fn save_cleaned_to(&self, partition: &Partition, offset: i64) -> Result<(), LogError> {
        let mut checkpoints = self.checkpoints.lock();
        // Deleting takes its entry away after it has said so.
        if !partition.is_deleted() {
            checkpoints.cleaned_to.insert((partition.topic().to_owned(), partition.index()), offset);
        }
        checkpoints.write_cleaned_to(&*self.disk, &self.options.path)
    }

    /// Writes down where the recovery of a log would begin now, so that it lasts.
    pub(super) fn save_recovery_point(&self, partition: &Partition) -> Result<(), LogError> {
        let mut checkpoints = self.checkpoints.lock();
        if let Some((recovery_point, _)) = partition.checkpoint() {
            let key = (partition.topic().to_owned(), partition.index());
            checkpoints.recovery_points.insert(key, recovery_point);
        }
        checkpoints.write_recovery_points(&*self.disk, &self.options.path)
    }

    /// Whether nothing more is to be done in the directory.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst) || self.is_offline()
    }

    /// Renames the files of a segment so that no start takes them for a log's; where they are now. What fails is left to the
    /// next start.
    pub(super) fn set_deleted(&self, segment: &Segment) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for suffix in ["log", "index", "timeindex", "txnindex"] {
            let path = segment.path().with_file_name(file_name(segment.base_offset(), suffix));
            let deleted = path.with_extension(format!("{suffix}.deleted"));
            match self.disk.rename(&path, &deleted) {
                Ok(()) => files.push(deleted),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "cannot be removed yet");
                    self.fail_if_broken(&LogError::disk(&path, error));
                }
            }
        }
        self.counters.retired_segments.increment();
        self.counters.retired_bytes.add(segment.size_bytes().unwrap_or(0));
        files
    }

    /// Takes files off the disk after `delay_ms`.
    pub(super) fn remove_files_later(&self, files: Vec<PathBuf>, delay_ms: i64) {
        let delay = Duration::from_millis(u64::try_from(delay_ms).unwrap_or(0));
        self.remove_later(Removal::Files(files), delay);
    }
}

/// For the directory and its threads.
impl Shared {
    fn close(&self) -> Result<(), LogError> {
        if self.is_offline() {
            return Err(LogError::Offline);
        }
        if self.stopped.load(Ordering::SeqCst) {
            return Err(LogError::Shutdown);
        }
        let partitions = self.live_partitions();
        let settled = self.settle(&partitions);
        partitions.iter().for_each(|partition| partition.close());
        let closed = settled.and_then(|()| {
            // Nothing may outlive the identity of a new directory.
            self.sync_root()?;
            self.write_checkpoints(&partitions)?;
            journal::forget(&*self.disk, &self.options.path)?;
            self.mark_clean()
        });
        self.stop();
        self.lock.lock().take();
        closed
    }

    /// Leaves the marker that spares the next start from recovering; not if this one should have recovered and has not.
    fn mark_clean(&self) -> Result<(), LogError> {
        if self.whole.load(Ordering::SeqCst) {
            let path = self.options.path.join(CLEAN_FILE);
            replace_file(&*self.disk, &path, br#"{"version":0,"brokerEpoch":-1}"#, Durability::Now)
                .map_err(|source| LogError::disk(&path, source))?;
        }
        Ok(())
    }

    /// Completes and syncs the files of all partitions, as many as will; the first failure.
    fn settle(&self, partitions: &[Arc<Partition>]) -> Result<(), LogError> {
        let mut result = Ok(());
        let mut unsynced = Vec::new();
        for partition in partitions {
            match partition.settle() {
                Ok(false) => {}
                Ok(true) => unsynced.push(partition),
                Err(error) => result = result.and(Err(error)),
            }
        }
        if unsynced.len() > SYNC_EACH_MAX {
            self.disk
                .sync_all(&self.options.path)
                .map_err(|source| LogError::disk(&self.options.path, source))?;
            unsynced.iter().for_each(|partition| partition.raise_all_synced());
            return result;
        }
        for partition in unsynced {
            partition.sync();
            if partition.awaits_sync() {
                result = result.and(Err(LogError::Offline));
            }
        }
        result
    }

    pub(super) fn is_offline(&self) -> bool {
        self.offline.get().is_some()
    }

    /// Takes the directory offline if a write or sync that ended so leaves what is on the disk in doubt.
    pub(super) fn fail_if_written(&self, error: &LogError) {
        if error.is_failure_of_writing() {
            self.fail(error);
        }
    }

    /// Takes the directory offline if a read that ended so says that the disk is broken.
    pub(super) fn fail_if_broken(&self, error: &LogError) {
        if error.is_failure_of_the_disk() {
            self.fail(error);
        }
    }

    /// Takes the directory offline, for as long as the process lives: nothing is read, written or synced any more, and there will
    /// be no clean marker, so that the next start recovers. Takes no lock of a partition: its caller may hold one.
    pub(super) fn fail(&self, error: &LogError) {
        {
            // Whoever makes a partition looks under this lock.
            let _partitions = self.partitions.lock();
            if self.offline.set(error.to_string()).is_err() {
                return;
            }
        }
        self.stopped.store(true, Ordering::SeqCst);
        let partitions = self.live_partitions();
        let (directory, count) = (self.options.path.display(), partitions.len());
        tracing::error!(%directory, %error, partitions = count, "log directory offline");
        partitions.iter().for_each(|partition| partition.go_offline());
        self.end_work();
        self.alarm.notify_waiters();
    }

    /// Refuses an append that would leave less space than is to be kept free.
    pub(super) fn check_space(&self, bytes: usize) -> Result<(), LogError> {
        match self.space.has_room(bytes, || self.disk.space(&self.options.path)) {
            true => Ok(()),
            false => {
                let error = LogError::disk(&self.options.path, io::ErrorKind::StorageFull.into());
                self.note_append(Err(&error));
                Err(error)
            }
        }
    }

    /// Says once that there is no space, and once that there is again.
    pub(super) fn note_append(&self, appended: Result<(), &LogError>) {
        let directory = self.options.path.display();
        match appended {
            Ok(()) if self.space.took() => tracing::warn!(%directory, "there is space again for appends"),
            Err(error @ LogError::NoSpace { .. }) => {
                self.counters.refused_appends.increment();
                if self.space.refused() {
                    tracing::error!(%directory, %error, "no space: appends are refused until there is some");
                }
            }
            _ => {}
        }
    }

    /// Bytes of the segments in a partition's folder.
    pub(super) fn bytes_of_logs(&self, folder: &Path) -> Result<u64, LogError> {
        let entries = match self.disk.list(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(LogError::disk(folder, error)),
        };
        let mut bytes = 0;
        for entry in entries.iter().filter(|entry| entry.name.ends_with(".log")) {
            let path = folder.join(&entry.name);
            bytes += self.disk.status(&path).map_err(|source| LogError::disk(&path, source))?.length;
        }
        Ok(bytes)
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.end_work();
        self.cleaner.await_swaps();
        let partitions = self.live_partitions();
        partitions.iter().for_each(|partition| partition.close());
    }

    /// What waits to be done is dropped; who waits for room goes on.
    fn end_work(&self) {
        self.queue.stop();
        let listed = std::mem::take(&mut *self.listed.lock());
        drop(listed);
        let retired = std::mem::take(&mut *self.retired.lock());
        drop(retired);
        {
            let _chores = self.chores.lock();
            self.chores_changed.notify_all();
        }
        self.cleaner.wake();
        self.has_room.notify_waiters();
    }

    fn sync_listed(&self) {
        let listed = std::mem::take(&mut *self.listed.lock());
        for partition in listed {
            if partition.view.lock().unlist() {
                self.queue.push(partition);
            }
        }
    }

    /// One look at all partitions for what retention lets go.
    fn retain(&self) {
        for partitions in self.live_partitions().chunks(RETAINED_AT_ONCE) {
            let mut retired = Vec::new();
            for partition in partitions {
                if self.stopped.load(Ordering::SeqCst) {
                    return;
                }
                match partition.retain() {
                    Ok(gone) => retired.extend(gone),
                    Err(LogError::Deleted | LogError::Shutdown | LogError::Offline) => {}
                    Err(error) => {
                        let (topic, partition) = (partition.topic(), partition.index());
                        tracing::warn!(topic, partition, %error, "retention has to wait");
                        self.fail_if_broken(&error);
                    }
                }
            }
            if let Err(error) = self.retire(retired) {
                tracing::warn!(%error, "log starts not written: old segments go later");
            }
        }
    }

    /// Has those synced whose `flush.ms` is over.
    fn sync_due(&self) {
        let now = Instant::now();
        let due: Vec<_> =
            self.chores.lock().flushes.extract_if(|_, (at, _)| *at <= now).map(|(_, (_, due))| due).collect();
        for partition in due.iter().filter_map(Weak::upgrade) {
            if partition.view.lock().unlist() {
                self.queue.push(partition);
            }
        }
    }

    /// What is done every minute.
    fn tick(&self) {
        self.sync_listed();
        self.partitions.lock().retain(|_, partition| partition.strong_count() > 0);
        for partition in self.live_partitions() {
            partition.expire_producers(self.options.producer_id_expiration_ms);
        }
        self.checkpoint();
        self.disk.close_idle();
    }

    fn checkpoint(&self) {
        if self.is_stopped() {
            return;
        }
        self.synced_bytes.store(0, Ordering::Relaxed);
        if let Err(error) = self.write_checkpoints(&self.live_partitions()) {
            tracing::warn!(%error, "checkpoints not written: the next start after a crash will read more");
            self.fail_if_written(&error);
        }
    }

    pub(super) fn live_partitions(&self) -> Vec<Arc<Partition>> {
        self.partitions.lock().values().filter_map(Weak::upgrade).collect()
    }

    fn write_checkpoints(&self, partitions: &[Arc<Partition>]) -> Result<(), LogError> {
        let mut checkpoints = self.checkpoints.lock();
        for partition in partitions {
            let Some((recovery_point, log_start)) = partition.checkpoint() else { continue };
            let key = (partition.topic().to_owned(), partition.index());
            checkpoints.set_log_start(key.clone(), log_start);
            checkpoints.recovery_points.insert(key, recovery_point);
        }
        checkpoints.write_both(&*self.disk, &self.options.path)
    }

    /// Makes it durable that deleted partitions have no offsets: their names may be a new topic's.
    fn forget_stale(&self) -> Result<(), LogError> {
        let mut checkpoints = self.checkpoints.lock();
        match checkpoints.stale.is_empty() {
            true => Ok(()),
            false => checkpoints.write_both(&*self.disk, &self.options.path),
        }
    }

    fn write_boot_id(&self) -> io::Result<()> {
        let path = self.options.path.join(BOOT_FILE);
        let boot_id = self.disk.boot_id()?;
        if read_file(&*self.disk, &path, 4096).is_ok_and(|known| known == boot_id.as_bytes()) {
            return Ok(());
        }
        replace_file(&*self.disk, &path, boot_id.as_bytes(), Durability::Later)?;
        self.root.changed();
        Ok(())
    }

    fn sync_root(&self) -> Result<(), LogError> {
        let path = &self.options.path;
        self.root.sync(&*self.disk, path).map_err(|source| LogError::sync(path, source))
    }

    /// Renames a partition's folder so that its name is free; where it is now, or `None` if there was none.
    fn set_aside(&self, folder: &Path, key: &Key, suffix: &str) -> Result<Option<PathBuf>, LogError> {
        let aside = self.options.path.join(aside_name(key, suffix));
        match self.disk.rename(folder, &aside) {
            Ok(()) => {
                self.root.changed();
                Ok(Some(aside))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(LogError::disk(folder, source)),
        }
    }

    fn remove_later(&self, removal: Removal, delay: Duration) {
        self.chores.lock().removals.push((Instant::now() + delay, removal));
        self.chores_changed.notify_one();
    }

    fn remove(&self, removal: Removal) {
        match removal {
            Removal::Folder(path) => match self.forget_stale() {
                // The folder tells the next start of which partition the checkpoints should know nothing.
                Ok(()) => self.report_removal(&path, self.disk.remove_dir_all(&path)),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "not removed: left to the next start");
                    self.fail_if_written(&error);
                }
            },
            Removal::Files(paths) => {
                paths.iter().for_each(|path| self.report_removal(path, self.disk.remove(path)));
            }
        }
    }

    fn report_removal(&self, path: &Path, result: io::Result<()>) {
        match result {
            // A folder may go before the files in it are due.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "not removed: left to the next start");
            }
            _ => self.root.changed(),
        }
    }

    /// What the cleaning thread does until the directory stops.
    fn work_at_chores(&self) {
        let mut next_tick = Instant::now() + CHECKPOINT_INTERVAL;
        let mut next_retention = after(self.options.initial_task_delay);
        while !self.stopped.load(Ordering::SeqCst) {
            self.sync_names();
            let (removals, checkpoints_due) = self.wait_for_chores(next_tick.min(next_retention));
            removals.into_iter().for_each(|removal| self.remove(removal));
            self.sync_due();
            if Instant::now() >= next_retention {
                self.retain();
                next_retention = after(self.options.retention_check_interval);
            }
            if Instant::now() >= next_tick {
                self.tick();
                next_tick = Instant::now() + CHECKPOINT_INTERVAL;
            } else if checkpoints_due {
                self.checkpoint();
            }
        }
        self.release_if_offline();
    }

    /// A disk that is to be replaced is not kept busy by open files.
    fn release_if_offline(&self) {
        if self.is_offline() {
            self.live_partitions().iter().for_each(|partition| partition.release());
        }
    }

    #[cfg(test)]
    fn do_chores(&self) {
        if self.stopped.load(Ordering::SeqCst) {
            return self.release_if_offline();
        }
        self.sync_names();
        let (removals, _) = self.wait_for_chores(Instant::now());
        removals.into_iter().for_each(|removal| self.remove(removal));
        self.sync_due();
        self.tick();
    }

    /// The clean marker's end and new identities become durable soon after the start, even if nothing is appended.
    fn sync_names(&self) {
        if let Err(error) = self.sync_root() {
            tracing::warn!(%error, "names not synced");
            self.fail_if_written(&error);
        }
    }

    /// Waits until there is something to do, or until `latest`: removals that are due, and whether checkpoints are.
    fn wait_for_chores(&self, latest: Instant) -> (Vec<Removal>, bool) {
        let mut chores = self.chores.lock();
        loop {
            let now = Instant::now();
            let due: Vec<_> =
                chores.removals.extract_if(.., |(at, _)| *at <= now).map(|(_, removal)| removal).collect();
            let checkpoints_due = std::mem::take(&mut chores.checkpoints_due);
            let stopped = self.stopped.load(Ordering::SeqCst);
            let flushes = chores.flushes.values().map(|(at, _)| *at);
            let wake_at = chores.removals.iter().map(|(at, _)| *at).chain(flushes).fold(latest, Instant::min);
            if stopped || checkpoints_due || !due.is_empty() || now >= wake_at {
                return (due, checkpoints_due);
            }
            self.chores_changed.wait_until(&mut chores, wake_at);
        }
    }
}

impl Root {
    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    fn changed_above(&self, folders: Vec<PathBuf>) {
        self.synced.lock().folders.extend(folders);
        self.changed();
    }

    fn wrote(&self, file: Arc<dyn DiskFile>) {
        self.synced.lock().files.push(file);
        self.changed();
    }

    fn sync(&self, disk: &dyn Disk, path: &Path) -> io::Result<()> {
        let wanted = self.changes.load(Ordering::SeqCst);
        let mut synced = self.synced.lock();
        if synced.changes < wanted {
            let covered = self.changes.load(Ordering::SeqCst);
            synced.files.iter().try_for_each(|file| file.sync_data())?;
            disk.sync_dir(path)?;
            synced.folders.iter().try_for_each(|folder| disk.sync_dir(folder))?;
            *synced = RootSynced { changes: covered, ..RootSynced::default() };
        }
        self.ever_synced.store(true, Ordering::SeqCst);
        Ok(())
    }
}

impl Checkpoints {
    /// An entry stays even if the first segment begins there: the removal of older ones may not be durable yet.
    fn set_log_start(&mut self, key: Key, log_start: i64) {
        if log_start > 0 {
            // Two who move it may come here in either order.
            let known = self.log_starts.entry(key).or_default();
            *known = log_start.max(*known);
        }
    }

    /// The partition is gone, and whoever has its name next begins anew.
    fn forget(&mut self, key: &Key) {
        let was_cleaned = self.cleaned_to.remove(key).is_some();
        self.cleaned_is_stale |= was_cleaned;
        let was_known = (self.recovery_points.remove(key), self.log_starts.remove(key)) != (None, None);
        if was_cleaned || was_known {
            self.stale.insert(key.clone());
        }
    }

    fn write_both(&mut self, disk: &dyn Disk, folder: &Path) -> Result<(), LogError> {
        self.write_recovery_points(disk, folder)?;
        self.write_log_starts(disk, folder)?;
        if self.cleaned_is_stale {
            self.write_cleaned_to(disk, folder)?;
        }
        self.stale.clear();
        Ok(())
    }

    fn write_cleaned_to(&mut self, disk: &dyn Disk, folder: &Path) -> Result<(), LogError> {
        let path = folder.join(CLEANED_FILE);
        write_checkpoint(disk, &path, &self.cleaned_to, &mut self.written_cleaned_to)?;
        self.cleaned_is_stale = false;
        Ok(())
    }

    fn write_recovery_points(&mut self, disk: &dyn Disk, folder: &Path) -> Result<(), LogError> {
        let path = folder.join(RECOVERY_POINTS_FILE);
        write_checkpoint(disk, &path, &self.recovery_points, &mut self.written_recovery_points)
    }

    fn write_log_starts(&mut self, disk: &dyn Disk, folder: &Path) -> Result<(), LogError> {
        let path = folder.join(LOG_STARTS_FILE);
        write_checkpoint(disk, &path, &self.log_starts, &mut self.written_log_starts)
    }
}

fn write_checkpoint(
    disk: &dyn Disk,
    path: &Path,
    entries: &BTreeMap<Key, i64>,
    written: &mut String,
) -> Result<(), LogError> {
    let text = checkpoint::render(
        entries.iter().map(|((topic, index), offset)| format!("{topic} {index} {offset}")),
    );
    if text != *written {
        replace_file(disk, path, text.as_bytes(), Durability::Now)
            .map_err(|source| LogError::disk(path, source))?;
        *written = text;
    }
    Ok(())
}

fn read_checkpoint(disk: &dyn Disk, path: &Path) -> Result<BTreeMap<Key, i64>, OpenDirectoryError> {
    let bytes = match read_file(disk, path, checkpoint::LIMIT_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(source) => return Err(OpenDirectoryError::Disk { path: path.to_owned(), source }),
    };
    let entries = checkpoint::parse(&bytes, |fields| {
        let topic = fields.next()?.to_owned();
        let (index, offset) = (checkpoint::number(fields)?, checkpoint::number(fields)?);
        (offset >= 0).then_some(((topic, index), offset))
    });
    match entries {
        Ok(entries) => Ok(entries.into_iter().collect()),
        Err(source) => Err(OpenDirectoryError::Checkpoint { path: path.to_owned(), source }),
    }
}

/// The moment `delay` from now; a far one if there is no such moment.
fn after(delay: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(delay).unwrap_or(now + Duration::from_secs(u64::from(u32::MAX)))
}

/// Makes the folder and what is missing above it; the folders that have a new name in them.
fn make_folder(disk: &dyn Disk, path: &Path) -> io::Result<Vec<PathBuf>> {
    let missing = |folder: &&Path| {
        let listed = disk.list(folder);
        !folder.as_os_str().is_empty() && listed.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    let made: Vec<_> = path.ancestors().take_while(missing).filter_map(Path::parent).collect();
    disk.create_dir_all(path)?;
    let or_here =
        |parent: &Path| if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_owned() };
    Ok(made.into_iter().map(or_here).collect())
}

/// The folders whose names lead to `path`, as far up as they may have been made together with it.
fn folders_above(disk: &dyn Disk, path: &Path) -> Vec<PathBuf> {
    let mut above = Vec::new();
    for folder in path.ancestors().skip(1) {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        // One that may not be looked into was there before.
        let Ok(entries) = disk.list(folder) else { break };
        above.push(folder.to_owned());
        if entries.len() > 1 {
            break;
        }
    }
    above
}

/// Whether a file of a directory tells only who owns it and how it was stopped last.
pub fn is_of_owner(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    [LOCK_FILE, PROPERTIES_FILE, CLEAN_FILE, BOOT_FILE].contains(&name)
}

/// A folder with files but without our properties is somebody else's; one with a part of an import is nobody's yet.
fn refuse_foreign(disk: &dyn Disk, path: &Path) -> Result<(), OpenDirectoryError> {
    let entries =
        disk.list(path).map_err(|source| OpenDirectoryError::Disk { path: path.to_owned(), source })?;
    if entries.iter().any(|entry| entry.name == IMPORT_FILE) {
        return Err(OpenDirectoryError::UnfinishedImport { path: path.join(IMPORT_FILE) });
    }
    if entries.iter().any(|entry| entry.name == PROPERTIES_FILE) {
        return Ok(());
    }
    match entries.into_iter().find(|entry| !is_harmless(&entry.name)) {
        Some(entry) => Err(OpenDirectoryError::Foreign { path: path.to_owned(), example: entry.name }),
        None => Ok(()),
    }
}

/// What a first start leaves when it is interrupted, and what a fresh file system has.
fn is_harmless(name: &str) -> bool {
    [LOCK_FILE, "meta.properties.tmp", BOOT_FILE, "ottla-boot-id.tmp", "lost+found"].contains(&name)
}

/// Whether the properties are the beginning of ours and there is nothing else: so the death of the machine leaves a directory
/// that was just made. Before anything else is made in it, its properties are on the disk.
fn is_torn_at_first_start(disk: &dyn Disk, path: &Path) -> bool {
    let is_alone = disk.list(path).is_ok_and(|entries| {
        entries.iter().all(|entry| is_harmless(&entry.name) || entry.name == PROPERTIES_FILE)
    });
    let begins_ours = |bytes: &[u8]| match bytes.split_at_checked(PROPERTIES_BEGIN.len()) {
        // Whole, it has a line more than these three.
        Some((begin, rest)) => {
            begin == PROPERTIES_BEGIN && rest.iter().filter(|byte| **byte == b'\n').count() < 3
        }
        None => PROPERTIES_BEGIN.starts_with(bytes),
    };
    is_alone && read_file(disk, &path.join(PROPERTIES_FILE), 4096).is_ok_and(|bytes| begins_ours(&bytes))
}

/// Cluster and directory id of an existing directory, after comparing them with what was asked for.
pub(super) fn read_properties(
    disk: &dyn Disk,
    options: &DirectoryOptions,
) -> Result<Option<(Uuid, Uuid)>, OpenDirectoryError> {
    let found = match Identity::read(disk, &options.path) {
        Err(OpenDirectoryError::Properties { .. }) if is_torn_at_first_start(disk, &options.path) => None,
        found => found?,
    };
    let Some(found) = found else { return Ok(None) };
    let path = options.path.join(PROPERTIES_FILE);
    if found.node_id != options.node_id && !options.any_node {
        return Err(OpenDirectoryError::OtherNode { path, found: found.node_id, expected: options.node_id });
    }
    match options.cluster_id {
        Some(expected) if expected != found.cluster_id => {
            Err(OpenDirectoryError::OtherCluster { path, found: found.cluster_id, expected })
        }
        _ => Ok(Some((found.cluster_id, found.directory_id))),
    }
}

/// Whose a directory is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster_id: Uuid,
    /// The node of the cluster.
    pub node_id: i32,
    /// The directory itself.
    pub directory_id: Uuid,
}

impl Identity {
    /// What the properties of a directory say; `None` if it has none.
    ///
    /// # Errors
    /// Properties that cannot be read, are damaged or of a newer format.
    pub fn read(disk: &dyn Disk, directory: &Path) -> Result<Option<Self>, OpenDirectoryError> {
        let path = directory.join(PROPERTIES_FILE);
        let bytes = match read_file(disk, &path, 64 << 10) {
            // The machine died just after it was made.
            Ok(bytes) if bytes.is_empty() => return Ok(None),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(OpenDirectoryError::Disk { path, source }),
        };
        let text = String::from_utf8_lossy(&bytes);
        let property = |key: &'static str| {
            let mut pairs =
                text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
            let value = pairs.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim());
            value.ok_or(OpenDirectoryError::Properties { path: path.clone(), key })
        };
        let invalid = |key| OpenDirectoryError::Properties { path: path.clone(), key };
        if property("version")? != "1" {
            return Err(invalid("version"));
        }
        Ok(Some(Self {
            node_id: property("node.id")?.parse().map_err(|_| invalid("node.id"))?,
            cluster_id: property("cluster.id")?.parse().map_err(|_| invalid("cluster.id"))?,
            directory_id: property("directory.id")?.parse().map_err(|_| invalid("directory.id"))?,
        }))
    }

    /// The text of the properties.
    pub fn render(&self) -> String {
        format!(
            "version=1\ncluster.id={}\nnode.id={}\ndirectory.id={}\n",
            self.cluster_id, self.node_id, self.directory_id
        )
    }
}

fn write_properties(
    disk: &dyn Disk,
    options: &DirectoryOptions,
    root: &Root,
) -> Result<(Uuid, Uuid), OpenDirectoryError> {
    let path = options.path.join(PROPERTIES_FILE);
    let (cluster_id, directory_id) = (options.cluster_id.unwrap_or_else(Uuid::random), Uuid::random());
    let text = Identity { cluster_id, directory_id, node_id: options.node_id }.render();
    // Synced before the first commit, but the start need not wait for it.
    let file = replace_file(disk, &path, text.as_bytes(), Durability::Later)
        .map_err(|source| OpenDirectoryError::Disk { path, source })?;
    root.wrote(file);
    Ok((cluster_id, directory_id))
}

/// `my-topic-7` → `my-topic` and 7; `None` for what is no live partition's folder.
pub fn parse_folder(name: &str) -> Option<Key> {
    let (topic, index) = name.rsplit_once('-')?;
    let index_digits = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let topic_legal =
        (1..=249).contains(&topic.len()) && topic.bytes().all(legal) && topic != "." && topic != "..";
    Some((topic.to_owned(), index.parse().ok().filter(|_| index_digits && topic_legal)?))
}

/// The name of a folder that is out of use; the topic's part is cut so that the whole is a legal name.
fn aside_name((topic, index): &Key, suffix: &str) -> String {
    let tail = format!("-{index}.{:032x}-{suffix}", fastrand::u128(..));
    let topic_bytes = topic.len().min(FOLDER_NAME_BYTES_MAX - tail.len());
    format!("{}{tail}", &topic[..topic_bytes])
}

/// The partition that a folder to be removed was, unless its topic's name has been cut.
fn parse_deleted(name: &str) -> Option<Key> {
    let (folder, id) = name.strip_suffix("-delete")?.rsplit_once('.')?;
    let is_whole = name.len() < FOLDER_NAME_BYTES_MAX && id.len() == 32;
    parse_folder(folder).filter(|_| is_whole)
}

fn start_threads(shared: &Arc<Shared>) -> io::Result<Vec<JoinHandle<()>>> {
    let mut threads = Vec::new();
    if shared.options.flush_threads == 0 {
        return Ok(threads);
    }
    for number in 0..shared.options.flush_threads {
        let shared = Arc::clone(shared);
        let thread = std::thread::Builder::new().name(format!("sync-{number}"));
        let work = move || {
            if let Err(error) = scheduling::prefer_slice(scheduling::SHORT_SLICE) {
                tracing::debug!(%error, "syncing threads get no turns of their own");
            }
            shared.work_at_syncing();
        };
        threads.push(thread.spawn(work)?);
    }
    let shared = Arc::clone(shared);
    let thread = std::thread::Builder::new().name("log-chores".to_owned());
    threads.push(thread.spawn(move || shared.work_at_chores())?);
    Ok(threads)
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::super::Waiter;
    use super::super::config::tests::config;
    use super::super::fixture::{
        Fixture, NOW_MS, TOPIC, TOPIC_ID, append, batch, builder, commit, end_offset, eventually, headers,
        high_watermark, is_ready, log_file, path, run, sequenced,
    };
    use super::*;
    use crate::storage::simulated::SimulatedDisk;
    use crate::storage::{BoundedDisk, StdDisk, write_all_at};

    fn open(
        disk: &SimulatedDisk,
        options: DirectoryOptions,
    ) -> Result<Arc<LogDirectory>, OpenDirectoryError> {
        LogDirectory::open(options, Arc::new(disk.clone()), Clock::system())
    }

    fn write(disk: &SimulatedDisk, name: &str, content: &[u8]) {
        let file = disk.create(&Path::new("/data").join(name)).unwrap();
        write_all_at(&*file, &mut [io::IoSlice::new(content)], 0).unwrap();
    }

    fn names(disk: &SimulatedDisk, folder: &str) -> Vec<String> {
        disk.list(folder.as_ref()).unwrap().into_iter().map(|entry| entry.name).collect()
    }

    #[test]
    fn an_identity_that_the_death_of_the_machine_has_torn_is_made_anew_unless_there_is_more() {
        let whole = Identity { cluster_id: Uuid([1; 16]), node_id: 0, directory_id: Uuid([2; 16]) }.render();
        for length in 0..whole.len() {
            for has_partition in [false, true] {
                let disk = SimulatedDisk::default();
                disk.create_dir_all("/data".as_ref()).unwrap();
                write(&disk, PROPERTIES_FILE, &whole.as_bytes()[..length]);
                if has_partition {
                    disk.create_dir_all("/data/t-0".as_ref()).unwrap();
                }
                let opened = open(&disk, DirectoryOptions::new("/data")).map(|_| ());
                // An empty one may be, and the end of the last line says nothing.
                let may_be = !has_partition || length == 0 || length == whole.len() - 1;
                assert_eq!(opened.is_ok(), may_be, "{length}, {has_partition}: {opened:?}");
            }
        }
        let disk = SimulatedDisk::default();
        disk.create_dir_all("/data".as_ref()).unwrap();
        write(&disk, PROPERTIES_FILE, b"version=2\ncluster.id=x\n");
        assert!(open(&disk, DirectoryOptions::new("/data")).is_err(), "a newer format is nobody's rest");
    }

    #[test]
    fn what_a_first_start_made_and_did_not_sync_the_second_does() {
        let first = Fixture::open(SimulatedDisk::default(), 0).unwrap();
        let second = Fixture::open(first.halt(), 0).unwrap();
        let identity = second.directory.directory_id();
        append_at_once(&second, commit());
        let disk = second.halt();
        disk.power_cut_at_its_worst();
        let third = Fixture::open(disk, 0).unwrap();
        assert_eq!(third.directory.directory_id(), identity);
        let partition = third.partition(commit());
        assert!(third.recover(&partition).is_empty());
        assert_eq!(end_offset(&partition), 1);
    }

    /// One batch, by who has no threads.
    fn append_at_once(fixture: &Fixture, config: LogConfig) -> Arc<Partition> {
        let partition = fixture.partition(config);
        partition.append(batch(1)).unwrap();
        fixture.directory.do_chores();
        while fixture.directory.sync_next() {}
        partition
    }

    #[test]
    fn a_directory_that_is_stopped_at_once_survives_the_death_of_the_machine() {
        for seed in 0..50 {
            let fixture = Fixture::open(SimulatedDisk::default(), 0).unwrap();
            run(fixture.directory.close());
            let disk = fixture.halt();
            disk.power_cut(seed);
            assert!(Fixture::open(disk, 0).unwrap().directory.was_clean(), "seed {seed}");
        }
    }

    #[test]
    fn a_new_topic_is_not_taken_for_compacted_as_far_as_the_old_one_of_its_name() {
        let fixture = Fixture::open(SimulatedDisk::default(), 0).unwrap();
        let old = append_at_once(&fixture, config());
        fixture.directory.shared.save_cleaned_to(&old, 1).unwrap();
        fixture.directory.delete(&old).unwrap();
        drop(old);
        let new = fixture.directory.partition(TOPIC, Uuid([8; 16]), 0, 0, Arc::new(config()));
        (0..2).for_each(|number| assert_eq!(new.append(batch(1)).unwrap().base_offset, number));
        drop(new);
        let fixture = Fixture::open(fixture.halt(), 0).unwrap();
        let new = fixture.directory.partition(TOPIC, Uuid([8; 16]), 0, 0, Arc::new(config()));
        assert!(fixture.recover(&new).is_empty());
        assert_eq!(end_offset(&new), 2);
        assert_eq!(fixture.directory.shared.cleaned_to(&(TOPIC.to_owned(), 0)), None);
    }

    #[test]
    fn a_log_start_that_a_start_has_shown_does_not_go_back() {
        let shown_by = |fixture: &Fixture| {
            let partition = fixture.partition(config());
            assert!(fixture.recover(&partition).is_empty());
            partition.offsets().unwrap().log_start_offset
        };
        let mut found_unsynced = 0;
        for changes in 0..20 {
            let fixture = Fixture::open(SimulatedDisk::default(), 0).unwrap();
            let partition = append_at_once(&fixture, config());
            fixture.disk.fail_changes_after(changes);
            let deleted = partition.delete_records(1);
            drop(partition);
            let disk = fixture.halt();
            disk.mend();
            let killed = Fixture::open(disk, 0).unwrap();
            let shown = shown_by(&killed);
            found_unsynced += i32::from(deleted.is_err() && shown == 1);
            let disk = killed.halt();
            disk.power_cut_at_its_worst();
            assert_eq!(shown_by(&Fixture::open(disk, 0).unwrap()), shown, "after {changes} changes");
        }
        assert!(found_unsynced > 0);
    }

    #[test]
    fn a_directory_is_used_by_one_at_a_time() {
        let fixture = Fixture::new();
        assert!(matches!(
            open(&fixture.disk, fixture.options.clone()),
            Err(OpenDirectoryError::Locked { .. })
        ));
        let id = fixture.directory.cluster_id();
        run(fixture.directory.close());
        assert_eq!(open(&fixture.disk, fixture.options.clone()).unwrap().cluster_id(), id);
    }

    #[test]
    fn a_directory_of_somebody_else_is_left_as_it_is() {
        let disk = SimulatedDisk::default();
        disk.create_dir_all("/data/pictures".as_ref()).unwrap();
        let error = open(&disk, DirectoryOptions::new("/data")).unwrap_err();
        assert!(matches!(&error, OpenDirectoryError::Foreign { example, .. } if example == "pictures"));
        assert!(error.to_string().starts_with("/data: "), "{error}");
        assert_eq!(names(&disk, "/data"), ["pictures"]);
    }

    #[test]
    fn identity_is_made_once_and_compared_ever_after() {
        let fixture = Fixture::new();
        let (disk, options) = (fixture.disk, fixture.options);
        let (cluster_id, directory_id) = (fixture.directory.cluster_id(), fixture.directory.directory_id());
        drop(fixture.directory);
        let again =
            open(&disk, DirectoryOptions { cluster_id: Some(cluster_id), ..options.clone() }).unwrap();
        assert_eq!(
            (again.cluster_id(), again.directory_id(), again.node_id()),
            (cluster_id, directory_id, 0)
        );
        drop(again);
        let other = DirectoryOptions { cluster_id: Some(Uuid([1; 16])), ..options.clone() };
        assert!(matches!(open(&disk, other), Err(OpenDirectoryError::OtherCluster { .. })));
        let other = DirectoryOptions { node_id: 3, ..options.clone() };
        assert!(matches!(
            open(&disk, other),
            Err(OpenDirectoryError::OtherNode { found: 0, expected: 3, .. })
        ));
        for (text, wrong) in [
            (&b"version=2\n"[..], "version"),
            (b"version=1\nnode.id=x\n", "node.id"),
            (b"# cluster.id=1\nversion=1\nnode.id=0\n", "cluster.id"),
            (b"\xff\xfe", "version"),
        ] {
            write(&disk, PROPERTIES_FILE, text);
            let opened = open(&disk, options.clone());
            assert!(
                matches!(opened, Err(OpenDirectoryError::Properties { key, .. }) if key == wrong),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_damaged_checkpoint_is_named_and_nothing_is_changed() {
        for name in [RECOVERY_POINTS_FILE, LOG_STARTS_FILE] {
            let Fixture { disk, options, directory, .. } = Fixture::new().stop();
            run(directory.close());
            drop(directory);
            write(&disk, name, b"0\n1\nevents 0 x\n");
            let before = names(&disk, "/data");
            let error = open(&disk, options).unwrap_err();
            assert!(
                matches!(&error, OpenDirectoryError::Checkpoint { path, .. } if path.ends_with(name)),
                "{error}"
            );
            assert_eq!(names(&disk, "/data"), before);
        }
    }

    #[test]
    fn a_disk_that_refuses_is_named() {
        let disk = SimulatedDisk::default();
        disk.fail_writes_after(0, Errno::NOSPC);
        let error = open(&disk, DirectoryOptions::new("/data")).unwrap_err();
        assert!(
            matches!(&error, OpenDirectoryError::Disk { path, .. } if path.ends_with(PROPERTIES_FILE)),
            "{error}"
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        let options = DirectoryOptions::new(file.path().join("below"));
        assert!(LogDirectory::open(options, Arc::new(StdDisk), Clock::system()).is_err());
    }

    #[test]
    fn the_clean_marker_is_there_only_while_cleanly_down() {
        let fixture = Fixture::new();
        assert!(fixture.directory.was_clean(), "a new directory has nothing to recover");
        append(&fixture.partition(commit()), batch(1)).unwrap();
        let fixture = fixture.stop();
        assert!(fixture.directory.was_clean());
        assert!(!names(&fixture.disk, "/data").contains(&CLEAN_FILE.to_owned()));
        let fixture = fixture.kill();
        assert!(!fixture.directory.was_clean());
        assert!(!fixture.stop().directory.was_clean(), "what was not recovered is not clean");
    }

    #[test]
    fn the_end_of_the_clean_marker_is_durable_before_anything_else_is() {
        for seed in 0..20 {
            let fixture = Fixture::new();
            append(&fixture.partition(commit()), batch(1)).unwrap();
            let fixture = fixture.stop();
            append(&fixture.partition(commit()), batch(1)).unwrap();
            let fixture = fixture.cut_power(seed);
            assert!(!fixture.directory.was_clean(), "seed {seed}");
        }
    }

    #[test]
    fn a_clean_start_looks_at_no_partition() {
        let fixture = Fixture::new();
        for index in 0..200 {
            let partition = fixture.directory.partition(TOPIC, TOPIC_ID, index, 0, Arc::new(commit()));
            append(&partition, batch(2)).unwrap();
        }
        let fixture = fixture.stop();
        let Fixture { disk, options, directory, .. } = fixture;
        run(directory.close());
        drop(directory);
        let before = disk.opens();
        let directory = open(&disk, options).unwrap();
        let mut folders = directory.partition_folders();
        folders.sort_unstable_by_key(|(_, index)| *index);
        assert_eq!(folders, (0..200).map(|index| (TOPIC.to_owned(), index)).collect::<Vec<_>>());
        assert!(disk.opens() - before < 20, "{}", disk.opens() - before);
        let partition = directory.partition(TOPIC, TOPIC_ID, 77, 0, Arc::new(commit()));
        assert_eq!((high_watermark(&partition), headers(&partition, 0).len()), (2, 1));
    }

    #[test]
    fn a_thousand_partitions_are_recovered_and_become_visible() {
        let fixture = Fixture::new();
        let all = |fixture: &Fixture| -> Vec<_> {
            (0..1000)
                .map(|index| fixture.directory.partition(TOPIC, TOPIC_ID, index, 0, Arc::new(commit())))
                .collect()
        };
        for partition in all(&fixture) {
            partition.append(batch(1)).unwrap();
        }
        let fixture = fixture.kill();
        let partitions = all(&fixture);
        let recovered = fixture.directory.recover(&partitions);
        assert!(recovered.cuts.is_empty() && recovered.failed.is_empty());
        assert!(partitions.iter().all(|partition| high_watermark(partition) == 1));
        assert!(fixture.stop().directory.was_clean());
    }

    #[test]
    fn a_stop_syncs_everything_and_refuses_what_comes_later() {
        let fixture = Fixture::new();
        let partition = fixture.partition(config());
        for sequence in 0..50 {
            append(&partition, sequenced(0, sequence)).unwrap();
        }
        run(fixture.directory.close());
        assert!(matches!(partition.append(batch(1)), Err(LogError::Shutdown)));
        assert!(matches!(partition.read(0, 1, true), Err(LogError::Shutdown)));
        assert!(matches!(run(partition.durable(51)), Err(LogError::Shutdown)));
        drop(partition);
        let fixture = fixture.cut_power(4);
        assert!(fixture.directory.was_clean());
        let partition = fixture.partition(config());
        assert_eq!(headers(&partition, 0).len(), 50);
        assert!(partition.append(sequenced(0, 49)).unwrap().duplicate);
    }

    #[test]
    fn a_stop_makes_no_files_beside_a_log_that_is_read_sooner_than_they_are() {
        for (interval, made) in [(4096, false), (100, true)] {
            let fixture = Fixture::new();
            let indexed = || LogConfig { index_interval_bytes: interval, ..commit() };
            let partition = fixture.partition(indexed());
            (0..5).for_each(|sequence| assert!(append(&partition, sequenced(0, sequence)).is_ok()));
            let fixture = fixture.stop();
            for suffix in ["index", "timeindex"] {
                let file = path(&format!("00000000000000000000.{suffix}"));
                assert_eq!(fixture.disk.content(&file).is_ok(), made, "{suffix}");
            }
            let snapshot = path("00000000000000000005.snapshot");
            assert_eq!(fixture.disk.content(&snapshot).is_ok(), made);
            let partition = fixture.partition(indexed());
            assert!((0..5).all(|sequence| partition.append(sequenced(0, sequence)).unwrap().duplicate));
            assert_eq!(partition.max_timestamp().unwrap().unwrap().timestamp, NOW_MS);
            assert_eq!(append(&partition, sequenced(0, 5)).unwrap(), 5);
        }
    }

    #[test]
    fn a_thousand_partitions_written_to_do_not_keep_a_thousand_files_open() {
        let disk = SimulatedDisk::default();
        let bounded = BoundedDisk::new(Arc::new(disk.clone()), 50);
        let directory = LogDirectory::open(
            DirectoryOptions::new("/data"),
            Arc::new(bounded.clone()),
            Clock::manual(NOW_MS),
        )
        .unwrap();
        for config in [commit(), config()] {
            let topic = format!("{:?}", config.flush);
            let config = Arc::new(config);
            let partition = |index| directory.partition(&topic, TOPIC_ID, index, 0, Arc::clone(&config));
            let partitions: Vec<_> = (0..1000).map(partition).collect();
            for partition in &partitions {
                append(partition, batch(2)).unwrap();
            }
            eventually("files are closed", || bounded.open_files() <= 50 + 4);
            // Every one of them is still written to, read, and synced at the end.
            for partition in &partitions {
                append(partition, batch(1)).unwrap();
                assert_eq!(headers(partition, 0).len(), 2);
            }
        }
        run(directory.close());
        drop(directory);
        disk.power_cut(1);
        let directory = open(&disk, DirectoryOptions::new("/data")).unwrap();
        assert!(directory.was_clean());
        for index in [0, 500, 999] {
            let partition = directory.partition("Os", TOPIC_ID, index, 0, Arc::new(config()));
            assert_eq!(headers(&partition, 0).len(), 2);
        }
    }

    #[test]
    fn a_failed_sync_takes_the_whole_directory_offline() {
        let fixture = Fixture::new();
        let partition = fixture.partition(commit());
        append(&partition, batch(1)).unwrap();
        let other = fixture.directory.partition("other", TOPIC_ID, 0, 0, Arc::new(config()));
        append(&other, batch(3)).unwrap();
        let unopened = fixture.directory.partition("unopened", TOPIC_ID, 0, 0, Arc::new(config()));
        let waiter = Waiter::new();
        let _subscription = other.subscribe(&waiter);
        // Else it may be the sync of the folders' names that fails.
        fixture.directory.shared.sync_root().unwrap();
        fixture.disk.fail_syncs(Errno::IO);
        assert!(matches!(append(&partition, batch(1)), Err(LogError::Offline)));
        // The disk may seem to work again: what it has lost meanwhile is not known.
        fixture.disk.mend_syncs();
        let later = fixture.directory.partition("later", TOPIC_ID, 0, 0, Arc::new(config()));
        for partition in [&partition, &other, &unopened, &later] {
            assert!(partition.is_offline());
            // They are told one after the other.
            eventually("it is told", || matches!(partition.append(batch(1)), Err(LogError::Offline)));
            assert!(matches!(partition.read(0, 100, true), Err(LogError::Offline)));
            assert!(matches!(partition.offsets(), Err(LogError::Offline)));
            assert!(matches!(partition.delete_records(-1), Err(LogError::Offline)));
            assert!(matches!(partition.max_timestamp(), Err(LogError::Offline)));
            assert!(matches!(run(partition.durable(9)), Err(LogError::Offline)));
            assert!(is_ready(partition.room()));
        }
        assert!(is_ready(waiter.wait()), "who waits for records is told");
        let reason = fixture.directory.offline().unwrap();
        assert!(reason.contains("ottla-journal-0"), "{reason}");
        assert_eq!(fixture.directory.counters().failed_syncs.value(), 1);
        // Deleting a topic on it is left to the next start.
        fixture.directory.delete(&other).unwrap();
        assert!(names(&fixture.disk, "/data").contains(&"other-0".to_owned()));
        let fixture = fixture.stop();
        assert!(!fixture.directory.was_clean(), "no clean marker");
        let partition = fixture.partition(commit());
        fixture.recover(&partition);
        assert!(end_offset(&partition) >= 1, "what was acknowledged is there");
    }

    #[test]
    fn what_was_promised_before_a_failed_sync_survives_a_power_cut_after_it() {
        for seed in 0..50 {
            let fixture = Fixture::new();
            let partition = fixture.partition(LogConfig { segment_bytes: 300, ..commit() });
            let mut promised = 0;
            for number in 0..20 {
                if number == seed % 20 {
                    fixture.disk.fail_syncs(Errno::IO);
                }
                match append(&partition, batch(1)) {
                    Ok(_) => promised += 1,
                    Err(_) => break,
                }
            }
            drop(partition);
            let fixture = fixture.cut_power(seed);
            let partition = fixture.partition(LogConfig { segment_bytes: 300, ..commit() });
            fixture.recover(&partition);
            assert!(end_offset(&partition) >= promised, "seed {seed}");
            assert_eq!(headers(&partition, 0).len() as i64, end_offset(&partition), "seed {seed}");
        }
    }

    /// As a power cut that leaves only what was synced.
    fn lose_all_unsynced(disk: &SimulatedDisk, directory: Arc<LogDirectory>) -> SimulatedDisk {
        drop(directory);
        disk.power_cut_at_its_worst();
        disk.clone()
    }

    #[test]
    fn names_are_durable_when_what_depends_on_them_is_acknowledged() {
        let disk = SimulatedDisk::default();
        let options = DirectoryOptions::new("/deep/in/data");
        let narrow = || LogConfig { segment_bytes: 200, file_delete_delay_ms: 0, ..commit() };
        let open_again = |disk: &SimulatedDisk| {
            let directory = open(disk, options.clone()).unwrap();
            let partition = directory.partition(TOPIC, TOPIC_ID, 0, 0, Arc::new(narrow()));
            let recovered = directory.recover(std::slice::from_ref(&partition));
            assert!(recovered.failed.is_empty() && recovered.cuts.is_empty(), "{recovered:?}");
            (directory, partition)
        };
        // Folders above a new directory, its identity, a partition's folder, its first segment: by the first append.
        let (directory, partition) = open_again(&disk);
        let id = directory.directory_id();
        append(&partition, batch(1)).unwrap();
        let disk = lose_all_unsynced(&disk, directory);
        let (directory, partition) = open_again(&disk);
        assert_eq!((directory.directory_id(), end_offset(&partition)), (id, 1));
        // New segments: by the append that began them.
        (0..9).for_each(|_| assert!(append(&partition, batch(1)).is_ok()));
        let disk = lose_all_unsynced(&disk, directory);
        let (directory, partition) = open_again(&disk);
        assert_eq!(headers(&partition, 0).len(), 10);
        // A log start, whether the files below it are gone or not.
        assert_eq!(partition.delete_records(5).unwrap(), 5);
        let disk = lose_all_unsynced(&disk, directory);
        let (directory, partition) = open_again(&disk);
        assert_eq!((partition.offsets().unwrap().log_start_offset, headers(&partition, 5).len()), (5, 5));
        // A topic of the same name as a deleted one: by its first append, which finds the name free.
        directory.delete(&partition).unwrap();
        drop(partition);
        let other = Uuid([8; 16]);
        let again = directory.partition(TOPIC, other, 0, 0, Arc::new(narrow()));
        append(&again, batch(2)).unwrap();
        drop(again);
        let disk = lose_all_unsynced(&disk, directory);
        let directory = open(&disk, options.clone()).unwrap();
        let again = directory.partition(TOPIC, other, 0, 0, Arc::new(narrow()));
        assert!(directory.recover(std::slice::from_ref(&again)).failed.is_empty());
        assert_eq!(headers(&again, 0).len(), 1, "the new one's");
        // What a cut has taken away: before anything else is appended.
        append(&again, batch(1)).unwrap();
        drop(again);
        let disk = lose_all_unsynced(&disk, directory);
        // This start brings it from the journal into the file.
        let directory = open(&disk, options.clone()).unwrap();
        let disk = lose_all_unsynced(&disk, directory);
        let last = Path::new("/deep/in/data/events-0/00000000000000000000.log");
        disk.flip(last, batch(2).size_bytes() + batch(1).size_bytes() - 1, 1).unwrap();
        let directory = open(&disk, options.clone()).unwrap();
        let again = directory.partition(TOPIC, other, 0, 0, Arc::new(narrow()));
        assert_eq!(directory.recover(std::slice::from_ref(&again)).cuts.len(), 1);
        drop(again);
        let disk = lose_all_unsynced(&disk, directory);
        let (_directory, again) = {
            let directory = open(&disk, options).unwrap();
            let again = directory.partition(TOPIC, other, 0, 0, Arc::new(narrow()));
            assert!(directory.recover(std::slice::from_ref(&again)).cuts.is_empty(), "it is not back");
            (directory, again)
        };
        assert_eq!(end_offset(&again), 2);
        // A clean stop is one only if all of it is there.
        let fixture = Fixture::new();
        append(&fixture.partition(config()), batch(1)).unwrap();
        let held = fixture.partition(config());
        append(&held, batch(1)).unwrap();
        run(fixture.directory.close());
        drop(held);
        let disk = lose_all_unsynced(&fixture.disk, fixture.directory);
        let fixture = Fixture::on(disk);
        assert!(fixture.directory.was_clean());
        assert_eq!(end_offset(&fixture.partition(config())), 2);
    }

    #[test]
    fn whatever_of_the_directory_cannot_be_synced_takes_it_offline() {
        // The names in it, before the first partition of a new directory.
        let disk = SimulatedDisk::default();
        disk.fail_syncs(Errno::IO);
        let fixture = Fixture::on(disk);
        eventually("the identity is not synced", || fixture.directory.offline().is_some());
        // A checkpoint.
        let fixture = Fixture::new();
        let partition = fixture.partition(commit());
        append(&partition, batch(5)).unwrap();
        fixture.disk.fail_writes_after(3, Errno::IO);
        assert!(partition.delete_records(2).is_err());
        assert!(partition.is_offline());
    }

    #[test]
    fn a_file_that_is_missing_is_no_broken_disk_and_one_that_cannot_be_read_is() {
        let fixture = Fixture::new();
        append(&fixture.partition(config()), batch(1)).unwrap();
        let other = fixture.directory.partition("other", TOPIC_ID, 0, 0, Arc::new(config()));
        append(&other, batch(1)).unwrap();
        drop(other);
        let fixture = fixture.stop();
        fixture.disk.remove(&log_file(0)).unwrap();
        let _: Result<_, _> = fixture.partition(config()).read(0, 1, true);
        assert!(fixture.directory.offline().is_none());
        fixture.disk.fail_opens(1, Errno::IO);
        let other = fixture.directory.partition("other", TOPIC_ID, 0, 0, Arc::new(config()));
        assert!(other.read(0, 1, true).is_err());
        assert!(fixture.directory.offline().is_some());
    }

    #[test]
    fn without_a_descriptor_nothing_is_lost_and_nothing_is_offline() {
        let fixture = Fixture::new();
        let partition = fixture.partition(commit());
        fixture.disk.fail_opens(1, Errno::MFILE);
        assert!(partition.append(batch(1)).is_err());
        append(&partition, batch(1)).unwrap();
        // A new folder's names are synced with it: that opens it.
        let other = fixture.directory.partition("other", TOPIC_ID, 0, 0, Arc::new(commit()));
        fixture.disk.hold_syncs();
        let appended = other.append(batch(1)).unwrap();
        fixture.disk.fail_opens(3, Errno::NFILE);
        fixture.disk.release_syncs();
        run(other.durable(appended.last_offset + 1)).unwrap();
        assert!(fixture.directory.offline().is_none());
        let fixture = fixture.cut_power(3);
        let other = fixture.directory.partition("other", TOPIC_ID, 0, 0, Arc::new(commit()));
        fixture.recover(&other);
        assert_eq!(end_offset(&other), 1);
    }

    #[test]
    fn appends_leave_some_space_free_and_go_on_when_there_is_more() {
        let disk = SimulatedDisk::default();
        let options = DirectoryOptions { min_free_bytes: 1 << 20, ..DirectoryOptions::new("/data") };
        let directory = open(&disk, options).unwrap();
        let partition = directory.partition(TOPIC, TOPIC_ID, 0, 0, Arc::new(config()));
        let essential = directory.essential_partition("own", Uuid([3; 16]), Arc::new(config()));
        // A look allows for a part of what is left, so that there is a next one soon.
        disk.set_usable_bytes((1 << 20) + 4000);
        append(&partition, batch(1)).unwrap();
        disk.set_usable_bytes(1 << 20);
        eventually("the next look", || partition.append(batch(1)).is_err());
        assert!(matches!(partition.append(batch(1)), Err(LogError::NoSpace { .. })));
        assert!(directory.is_full() && directory.counters().refused_appends.value() > 1);
        assert!(!headers(&partition, 0).is_empty(), "reads go on");
        append(&essential, batch(1)).unwrap();
        assert!(directory.is_full(), "what may use the reserve says nothing of the others");
        disk.set_usable_bytes(2 << 20);
        eventually("appends go on", || partition.append(batch(1)).is_ok());
        assert!(!directory.is_full());
    }

    #[test]
    fn a_stop_that_cannot_sync_is_not_clean() {
        let fixture = Fixture::new();
        append(&fixture.partition(config()), batch(1)).unwrap();
        let partition = fixture.partition(config());
        append(&partition, batch(1)).unwrap();
        fixture.disk.fail_syncs(Errno::IO);
        drop(partition);
        let held = fixture.partition(config());
        run(fixture.directory.close());
        drop(held);
        let disk = fixture.disk.copy();
        assert!(!Fixture::on(disk).directory.was_clean());
    }

    #[test]
    fn a_deleted_topic_leaves_its_name_free_at_once_and_nothing_on_the_disk_soon() {
        let fixture = Fixture::new();
        let partition = fixture.partition(config());
        append(&partition, batch(3)).unwrap();
        fixture.directory.delete(&partition).unwrap();
        let other_id = Uuid([8; 16]);
        let again = fixture.directory.partition(TOPIC, other_id, 0, 0, Arc::new(config()));
        assert_eq!(append(&again, batch(1)).unwrap(), 0);
        let is_deleted = |name: &String| name.ends_with("-delete");
        eventually("the folder goes", || !names(&fixture.disk, "/data").iter().any(is_deleted));
        assert_eq!(headers(&again, 0).len(), 1);
        let nothing_on_disk = fixture.directory.partition("idle", TOPIC_ID, 0, 0, Arc::new(config()));
        fixture.directory.delete(&nothing_on_disk).unwrap();
        // A deletion that a crash interrupted is finished by the next start.
        fixture.disk.create_dir_all(format!("/data/x-0.{:032x}-delete", 5).as_ref()).unwrap();
        let fixture = fixture.kill();
        assert_eq!(fixture.directory.partition_folders(), [(TOPIC.to_owned(), 0)]);
        eventually("the folder goes", || !names(&fixture.disk, "/data").iter().any(is_deleted));
    }

    #[test]
    fn a_topic_that_is_deleted_in_the_midst_of_its_sync_takes_no_other_along() {
        let fixture = Fixture::new();
        let partition = fixture.partition(commit());
        fixture.disk.hold_syncs();
        partition.append(batch(1)).unwrap();
        eventually("a thread syncs", || fixture.disk.syncs_waiting() > 0);
        fixture.directory.delete(&partition).unwrap();
        fixture.disk.release_syncs();
        run(partition.durable(1)).unwrap_err();
        let other = fixture.directory.partition("other", TOPIC_ID, 0, 0, Arc::new(commit()));
        append(&other, batch(1)).unwrap();
        // That waits for all syncs.
        run(fixture.directory.close());
        assert_eq!(fixture.directory.offline(), None);
    }

    #[test]
    fn a_new_topic_of_a_deleted_ones_name_knows_nothing_of_its_offsets_over_any_death() {
        for death in 0..5 {
            let fixture = Fixture::new();
            let narrow = || LogConfig { segment_bytes: 200, ..commit() };
            let partition = fixture.partition(narrow());
            (0..9).for_each(|_| assert!(append(&partition, batch(1)).is_ok()));
            partition.delete_records(8).unwrap();
            if death == 4 {
                // The process dies before the name is used again, and before anything is cleaned up.
                fixture.disk.hold_syncs();
            }
            fixture.directory.delete(&partition).unwrap();
            drop(partition);
            let other = Uuid([8; 16]);
            let new = |fixture: &Fixture| fixture.directory.partition(TOPIC, other, 0, 0, Arc::new(narrow()));
            let before = if death == 4 { 0 } else { 3 };
            (0..before).for_each(|_| assert!(append(&new(&fixture), batch(1)).is_ok()));
            let fixture = match death {
                0 => fixture.kill(),
                1 => fixture.stop(),
                2 => fixture.cut_power(5),
                3 => {
                    fixture.disk.release_syncs();
                    drop(fixture.directory);
                    fixture.disk.power_cut_at_its_worst();
                    Fixture::on(fixture.disk)
                }
                _ => {
                    let left = fixture.disk.copy();
                    fixture.disk.release_syncs();
                    drop(fixture.directory);
                    Fixture::on(left)
                }
            };
            let partition = new(&fixture);
            if !fixture.directory.was_clean() {
                assert!(fixture.recover(&partition).is_empty());
            }
            let offsets = partition.offsets().unwrap();
            assert_eq!((offsets.log_start_offset, offsets.log_end_offset), (0, before), "{death}");
        }
    }

    #[test]
    fn space_behind_a_busy_partition_is_no_part_of_its_file_and_is_given_back() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let start = || {
            let options = DirectoryOptions { any_node: true, ..DirectoryOptions::new(folder.path()) };
            let directory = LogDirectory::open(options, Arc::new(StdDisk), Clock::system()).unwrap();
            let partition = directory.partition(TOPIC, TOPIC_ID, 0, 0, Arc::new(config()));
            assert!(directory.recover(std::slice::from_ref(&partition)).failed.is_empty());
            (directory, partition)
        };
        let large = || builder(1, 1 << 20).build_valid();
        let (directory, partition) = start();
        let written = 6 * large().size_bytes() as u64;
        for _ in 0..6 {
            append(&partition, large()).unwrap();
        }
        let found = || std::fs::metadata(folder.path().join("events-0/00000000000000000000.log")).unwrap();
        assert_eq!(found().len(), written);
        // As the death of the process.
        drop((directory, partition));
        let (directory, partition) = start();
        assert_eq!((found().len(), end_offset(&partition)), (written, 6));
        run(directory.close());
        assert_eq!(found().len(), written);
        assert!(found().blocks() * 512 < written + (128 << 10), "{} blocks", found().blocks());
    }

    #[test]
    fn a_sweep_removes_what_was_deleted_and_leaves_what_nobody_knows() {
        let fixture = Fixture::new();
        for (topic, id) in [("kept", 1), ("deleted", 2), ("foreign", 3)] {
            let partition = fixture.directory.partition(topic, Uuid([id; 16]), 0, 0, Arc::new(commit()));
            partition.append(batch(1)).unwrap();
        }
        let fixture = fixture.stop();
        fixture.directory.sweep(|topic, _| topic == "kept", |id| id == Uuid([2; 16]));
        let is_deleted = |name: &String| name.ends_with("-delete");
        eventually("the folder goes", || !names(&fixture.disk, "/data").iter().any(is_deleted));
        let mut left = names(&fixture.disk, "/data");
        left.retain(|name| name.ends_with("-0"));
        left.sort_unstable();
        assert_eq!(left, ["foreign-0", "kept-0"]);
    }

    #[test]
    fn a_folder_of_another_topic_of_that_name_is_set_aside() {
        let fixture = Fixture::new();
        append(&fixture.partition(config()), batch(3)).unwrap();
        let fixture = fixture.stop();
        let partition = fixture.directory.partition(TOPIC, Uuid([8; 16]), 0, 0, Arc::new(config()));
        assert_eq!(end_offset(&partition), 0);
        assert_eq!(append(&partition, batch(1)).unwrap(), 0);
        let strays: Vec<_> =
            names(&fixture.disk, "/data").into_iter().filter(|name| name.ends_with("-stray")).collect();
        assert_eq!(strays.len(), 1);
        assert!(
            names(&fixture.disk, &format!("/data/{}", strays[0])).contains(&"partition.metadata".to_owned())
        );
    }

    #[test]
    fn a_partition_is_the_same_one_for_all_who_ask() {
        let fixture = Fixture::new();
        let partition = fixture.partition(config());
        assert!(Arc::ptr_eq(&partition, &fixture.partition(config())));
        append(&partition, batch(1)).unwrap();
        assert_eq!(append(&fixture.partition(config()), batch(1)).unwrap(), 1);
    }

    #[test]
    fn the_files_are_those_of_kafka() {
        let fixture = Fixture::new();
        let partition = fixture.partition(LogConfig { segment_bytes: 200, ..config() });
        (0..4).for_each(|_| assert!(append(&partition, batch(1)).is_ok()));
        partition.delete_records(3).unwrap();
        drop(partition);
        run(fixture.directory.close());
        let text = |name: &str| {
            String::from_utf8(fixture.disk.content(&Path::new("/data").join(name)).unwrap()).unwrap()
        };
        assert_eq!(text(RECOVERY_POINTS_FILE), "0\n1\nevents 0 4\n");
        assert_eq!(text(LOG_STARTS_FILE), "0\n1\nevents 0 3\n");
        assert_eq!(text(CLEAN_FILE), r#"{"version":0,"brokerEpoch":-1}"#);
        assert_eq!(text("events-0/leader-epoch-checkpoint"), "0\n1\n0 3\n");
        assert_eq!(text("events-0/partition.metadata"), format!("version: 0\ntopic_id: {TOPIC_ID}"));
        let files = names(&fixture.disk, "/data/events-0");
        for name in
            ["00000000000000000002.index", "00000000000000000002.timeindex", "00000000000000000004.snapshot"]
        {
            assert!(files.contains(&name.to_owned()), "{files:?}");
        }
        assert!(fixture.disk.content(&log_file(0)).is_err());
    }

    #[test]
    fn names_of_folders_are_read_and_made() {
        for (name, expected) in [
            ("a-0", Some(("a", 0))),
            ("my-topic.v1_x-17", Some(("my-topic.v1_x", 17))),
            ("a--1", Some(("a-", 1))),
            ("a-+1", None),
            ("a-", None),
            ("-1", None),
            ("..-1", None),
            ("a b-1", None),
            ("a-99999999999", None),
            ("a-0.00000000000000000000000000000007-delete", None),
        ] {
            let expected = expected.map(|(topic, index)| (topic.to_owned(), index));
            assert_eq!(parse_folder(name), expected, "{name}");
        }
        let deleted = aside_name(&("a.b-c".to_owned(), 3), "delete");
        assert_eq!(parse_deleted(&deleted), Some(("a.b-c".to_owned(), 3)), "{deleted}");
        assert_eq!(parse_deleted("a-0.00000000000000000000000000000007-stray"), None);
        let name = aside_name(&("t".repeat(249), 12), "delete");
        assert_eq!(parse_deleted(&name), None, "cut");
        assert!(name.len() == 255 && name.ends_with("-delete") && parse_folder(&name).is_none());
    }

    #[test]
    fn on_a_real_disk_a_log_survives_a_kill_and_a_stop() {
        let folder = tempfile::tempdir().unwrap();
        let options = DirectoryOptions::new(folder.path().join("data"));
        let open = || LogDirectory::open(options.clone(), Arc::new(StdDisk), Clock::system()).unwrap();
        for (round, config) in [commit(), config(), commit()].into_iter().enumerate() {
            let directory = open();
            let partition = directory.partition(TOPIC, TOPIC_ID, 0, 0, Arc::new(config));
            directory.recover(&[Arc::clone(&partition)]);
            assert_eq!(headers(&partition, 0).len(), round * 100);
            for _ in 0..100 {
                append(&partition, batch(2)).unwrap();
            }
            if round == 1 {
                run(directory.close());
            }
        }
        assert!(!open().was_clean());
    }
}
