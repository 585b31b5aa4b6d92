//! A log directory: what is common to the partitions in one folder. Its lock, identity and checkpoints; the threads that sync,
//! and those that clean up; a start after a clean stop that looks at no partition, and one after a crash that looks at all.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::LogError;
use super::checkpoint::{self, InvalidCheckpoint};
use super::config::{FlushMode, LogConfig};
use super::flush::SyncQueue;
use super::partition::Partition;
use super::recovery::{self, Cut, OpenRequest, Trust};
use super::segment::{Segment, file_name};
use super::view::SyncWork;
use crate::clock::Clock;
use crate::storage::{Disk, Durability, Lock, read_file, replace_file};
use crate::uuid::Uuid;

const LOCK_FILE: &str = ".lock";
const PROPERTIES_FILE: &str = "meta.properties";
const CLEAN_FILE: &str = ".kafka_cleanshutdown";
const RECOVERY_POINTS_FILE: &str = "recovery-point-offset-checkpoint";
const LOG_STARTS_FILE: &str = "log-start-offset-checkpoint";
const BOOT_FILE: &str = "ottla-boot-id";

/// Between two writings of the checkpoints; also the longest that anything stays unsynced.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(60);

/// From this many partitions on, one sync of the whole file system is taken instead of one for each file.
const SYNC_EACH_MAX: usize = 16;

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
    /// Threads that sync.
    pub flush_threads: usize,
    /// Threads that recover after a crash.
    pub recovery_threads: usize,
    /// Silence after which an idempotent producer is forgotten, ms.
    pub producer_id_expiration_ms: i64,
    /// Idempotent producers that a partition remembers at most.
    pub producers_max: usize,
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
            recovery_threads: 4,
            producer_id_expiration_ms: 86_400_000,
            producers_max: 10_000,
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
    /// The disk says no: permission, space, a read-only mount.
    #[error("{}: {source}", path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What [`LogDirectory::recover`] has done.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Logs of which something was cut off: their leader epochs must rise by one.
    pub cuts: Vec<Cut>,
    /// Partitions that could not be opened; they say why again at each use.
    pub failed: Vec<(Arc<Partition>, LogError)>,
}

/// An open log directory. Dropping it without [`Self::close`] is as the death of the process: nothing is lost that was
/// promised, and the next start recovers.
#[derive(Debug)]
pub struct LogDirectory {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    cluster_id: Uuid,
    directory_id: Uuid,
    was_clean: bool,
    folders: Vec<(String, i32)>,
}

type Key = (String, i32);

/// What the directory, its threads and its partitions share.
#[derive(Debug)]
pub struct Shared {
    options: DirectoryOptions,
    disk: Arc<dyn Disk>,
    pub(super) clock: Clock,
    trust: Trust,
    queue: SyncQueue,
    /// Partitions to sync when it is time: os mode's bytes above the limit, or a minute over.
    listed: Mutex<Vec<Arc<Partition>>>,
    unsynced_bytes: AtomicU64,
    has_room: Notify,
    root: Root,
    partitions: Mutex<HashMap<Key, Weak<Partition>>>,
    checkpoints: Mutex<Checkpoints>,
    chores: Mutex<Chores>,
    chores_changed: Condvar,
    stopped: AtomicBool,
    /// Held until the directory is closed or dropped.
    lock: Mutex<Option<Box<dyn Lock>>>,
}

/// Names in the directory's own folder that may not be durable yet.
#[derive(Debug, Default)]
struct Root {
    changes: AtomicU64,
    /// Changes that have been synced. Held while syncing, so that who needs a change durable waits for who is at it.
    synced: Mutex<u64>,
}

/// By topic and partition, as last written or loaded.
#[derive(Debug, Default)]
struct Checkpoints {
    recovery_points: BTreeMap<Key, i64>,
    log_starts: BTreeMap<Key, i64>,
    written_recovery_points: String,
    written_log_starts: String,
}

/// What the cleaning thread has to do.
#[derive(Debug, Default)]
struct Chores {
    removals: Vec<(Instant, Removal)>,
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
        let path = options.path.clone();
        let failed = |source| OpenDirectoryError::Disk { path: path.clone(), source };
        disk.create_dir_all(&path).map_err(failed)?;
        refuse_foreign(&*disk, &path)?;
        let lock_path = path.join(LOCK_FILE);
        let lock = disk
            .try_lock(&lock_path)
            .map_err(|source| OpenDirectoryError::Disk { path: lock_path, source })?
            .ok_or_else(|| OpenDirectoryError::Locked { path: path.clone() })?;
        refuse_foreign(&*disk, &path)?;
        let properties = read_properties(&*disk, &options)?;
        let checkpoints = Checkpoints {
            recovery_points: read_checkpoint(&*disk, &path.join(RECOVERY_POINTS_FILE))?,
            log_starts: read_checkpoint(&*disk, &path.join(LOG_STARTS_FILE))?,
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
        let trust = match read_file(&*disk, &path.join(BOOT_FILE), 4096) {
            _ if is_there(CLEAN_FILE) || folders.is_empty() => Trust::Everything,
            Ok(known) if known == boot_id.as_bytes() => Trust::PageCache,
            _ => Trust::Synced,
        };
        let (cluster_id, directory_id) = match properties {
            Some(ids) => ids,
            None => write_properties(&*disk, &options)?,
        };
        let shared = Arc::new(Shared {
            disk,
            clock,
            trust,
            queue: SyncQueue::default(),
            listed: Mutex::default(),
            unsynced_bytes: AtomicU64::new(0),
            has_room: Notify::new(),
            root: Root::default(),
            partitions: Mutex::default(),
            checkpoints: Mutex::new(checkpoints),
            chores: Mutex::default(),
            chores_changed: Condvar::new(),
            stopped: AtomicBool::new(false),
            lock: Mutex::new(Some(lock)),
            options,
        });
        if is_there(CLEAN_FILE) {
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
        let was_clean = trust == Trust::Everything;
        Ok(Arc::new(Self { shared, threads, cluster_id, directory_id, was_clean, folders }))
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

    /// Whether the last stop was clean (or this is a new directory): then there is nothing to recover.
    pub fn was_clean(&self) -> bool {
        self.was_clean
    }

    /// Topic and partition of each folder that was there at the start.
    pub fn partition_folders(&self) -> Vec<(String, i32)> {
        self.folders.clone()
    }

    /// Bytes appended but not synced.
    pub fn unsynced_bytes(&self) -> u64 {
        self.shared.unsynced_bytes.load(Ordering::Relaxed)
    }

    /// The partition of that topic and number; while it lives, always the same one. No I/O: its folder is opened at the first
    /// use, and made at the first append.
    pub fn partition(
        self: &Arc<Self>,
        topic: &str,
        topic_id: Uuid,
        index: i32,
        leader_epoch: i32,
        config: Arc<LogConfig>,
    ) -> Arc<Partition> {
        let mut partitions = self.shared.partitions.lock();
        let key = (topic.to_owned(), index);
        if let Some(known) = partitions.get(&key).and_then(Weak::upgrade)
            && known.topic_id() == topic_id
        {
            return known;
        }
        let partition = Partition::new(&self.shared, topic, topic_id, index, leader_epoch, config);
        partitions.insert(key, Arc::downgrade(&partition));
        partition
    }

    /// After an unclean stop, before anything is served: opens `partitions`, cuts what is torn, syncs what commit mode promises.
    /// Blocks; uses several threads.
    pub fn recover(&self, partitions: &[Arc<Partition>]) -> Recovered {
        let results = Mutex::new(Recovered::default());
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..self.shared.options.recovery_threads.clamp(1, partitions.len().max(1)) {
                scope.spawn(|| {
                    while let Some(partition) = partitions.get(next.fetch_add(1, Ordering::Relaxed)) {
                        match partition.recover() {
                            Ok(None) => {}
                            Ok(Some(cut)) => {
                                cut.warn();
                                results.lock().cuts.push(cut);
                            }
                            Err(error) => results.lock().failed.push((Arc::clone(partition), error)),
                        }
                    }
                });
            }
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
                    let error = || LogError::disk(self.path(), io::Error::from(source.kind()));
                    recovered.failed.extend(to_sync.iter().map(|partition| (Arc::clone(partition), error())));
                    false
                }
            },
        };
        opened.iter().for_each(|partition| partition.recovered());
        if recovered.failed.is_empty()
            && all_synced
            && let Err(error) = self.shared.write_boot_id()
        {
            tracing::warn!(%error, "the next start after a crash will read more than it had to");
        }
        recovered
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
            let mut checkpoints = shared.checkpoints.lock();
            checkpoints.recovery_points.remove(&key);
            checkpoints.log_starts.remove(&key);
            drop(checkpoints);
            if let Some(aside) = shared.set_aside(&partition.folder(), &key, "delete")? {
                shared.remove_later(Removal::Folder(aside), Duration::ZERO);
            }
            Ok(())
        })
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
}

impl Drop for LogDirectory {
    fn drop(&mut self) {
        self.shared.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the log directory has panicked");
            }
        }
        self.shared.lock.lock().take();
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
        if let Some(other) = recovery::topic_id_of(&*self.disk, &folder)?
            && other != partition.topic_id()
            && !partition.topic_id().is_zero()
        {
            tracing::warn!(folder = %folder.display(), topic_id = %other, "of another topic: set aside as a stray");
            self.set_aside(&folder, &key, "stray")?;
            let mut checkpoints = self.checkpoints.lock();
            checkpoints.recovery_points.remove(&key);
            checkpoints.log_starts.remove(&key);
        }
        let checkpoints = self.checkpoints.lock();
        Ok(OpenRequest {
            disk: &self.disk,
            folder,
            topic: partition.topic(),
            topic_id: partition.topic_id(),
            index: partition.index(),
            trust: self.trust,
            recovery_point: checkpoints.recovery_points.get(&key).copied().unwrap_or(0),
            log_start: checkpoints.log_starts.get(&key).copied().unwrap_or(0),
            config,
            producers_max: self.options.producers_max,
            now_ms: self.clock.now_ms(),
        })
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
        }
    }

    pub(super) fn enqueue(&self, partition: Arc<Partition>) {
        self.queue.push(partition);
    }

    pub(super) fn list(&self, partition: Arc<Partition>) {
        if !self.stopped.load(Ordering::SeqCst) {
            self.listed.lock().push(partition);
        }
    }

    /// Syncs the files and names that `work` covers.
    pub(super) fn execute(&self, folder: &Path, work: &SyncWork) -> Result<(), LogError> {
        for segment in &work.segments {
            segment.file()?.sync_data().map_err(|source| LogError::Disk { path: segment.path(), source })?;
        }
        for file in &work.beside.files {
            file.sync_data().map_err(|source| LogError::Disk { path: folder.to_owned(), source })?;
        }
        if work.beside.names {
            self.disk
                .sync_dir(folder)
                .map_err(|source| LogError::Disk { path: folder.to_owned(), source })?;
        }
        if work.beside.folder {
            self.root.changed();
        }
        self.sync_root().map_err(|source| LogError::Disk { path: self.options.path.clone(), source })
    }

    /// Writes the log start offset of a partition down, so that it lasts.
    pub(super) fn save_log_start(
        &self,
        topic: &str,
        index: i32,
        log_start: i64,
        first_base: i64,
    ) -> Result<(), LogError> {
        let mut checkpoints = self.checkpoints.lock();
        let key = (topic.to_owned(), index);
        match log_start > first_base {
            true => checkpoints.log_starts.insert(key, log_start),
            false => checkpoints.log_starts.remove(&key),
        };
        checkpoints.write_log_starts(&*self.disk, &self.options.path)
    }

    /// Takes the files of segments away that are no part of their log any more: out of sight now, off the disk after
    /// `delay_ms`. What fails is left to the next start.
    pub(super) fn discard(&self, segments: &[Arc<Segment>], delay_ms: i64) {
        let mut files = Vec::new();
        for segment in segments {
            for suffix in ["log", "index", "timeindex", "txnindex"] {
                let path = segment.path().with_file_name(file_name(segment.base_offset(), suffix));
                let deleted = path.with_extension(format!("{suffix}.deleted"));
                match self.disk.rename(&path, &deleted) {
                    Ok(()) => files.push(deleted),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => tracing::warn!(path = %path.display(), %error, "cannot be removed yet"),
                }
            }
        }
        let delay = Duration::from_millis(u64::try_from(delay_ms).unwrap_or(0));
        self.remove_later(Removal::Files(files), delay);
    }
}

/// For the directory and its threads.
impl Shared {
    fn close(&self) -> Result<(), LogError> {
        if self.stopped.load(Ordering::SeqCst) {
            return Err(LogError::Shutdown);
        }
        let partitions: Vec<_> = self.partitions.lock().values().filter_map(Weak::upgrade).collect();
        let settled = self.settle(&partitions);
        partitions.iter().for_each(|partition| partition.close());
        let closed = settled.and_then(|()| {
            self.write_checkpoints(&partitions)?;
            let path = self.options.path.join(CLEAN_FILE);
            replace_file(&*self.disk, &path, br#"{"version":0,"brokerEpoch":-1}"#, Durability::Now)
                .map_err(|source| LogError::disk(&path, source))
        });
        self.stop();
        self.lock.lock().take();
        closed.map(|_| ())
    }

    /// Completes and syncs the files of all partitions.
    fn settle(&self, partitions: &[Arc<Partition>]) -> Result<(), LogError> {
        let mut unsynced = Vec::new();
        for partition in partitions {
            if partition.settle()? {
                unsynced.push(partition);
            }
        }
        if unsynced.len() > SYNC_EACH_MAX {
            self.disk
                .sync_all(&self.options.path)
                .map_err(|source| LogError::disk(&self.options.path, source))?;
            unsynced.iter().for_each(|partition| partition.raise_all_synced());
            return Ok(());
        }
        for partition in unsynced {
            partition.sync();
            if partition.awaits_sync() {
                return Err(LogError::Poisoned);
            }
        }
        Ok(())
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.queue.stop();
        let listed = std::mem::take(&mut *self.listed.lock());
        drop(listed);
        {
            let _chores = self.chores.lock();
            self.chores_changed.notify_all();
        }
        self.has_room.notify_waiters();
        let partitions: Vec<_> = self.partitions.lock().values().filter_map(Weak::upgrade).collect();
        partitions.iter().for_each(|partition| partition.close());
    }

    fn sync_listed(&self) {
        let listed = std::mem::take(&mut *self.listed.lock());
        for partition in listed {
            if partition.view.lock().unlist() {
                self.queue.push(partition);
            }
        }
    }

    /// What is done every minute.
    fn tick(&self) {
        self.sync_listed();
        let partitions: Vec<_> = {
            let mut known = self.partitions.lock();
            known.retain(|_, partition| partition.strong_count() > 0);
            known.values().filter_map(Weak::upgrade).collect()
        };
        if let Err(error) = self.write_checkpoints(&partitions) {
            tracing::warn!(%error, "checkpoints not written: the next start after a crash will read more");
        }
        for partition in &partitions {
            partition.expire_producers(self.options.producer_id_expiration_ms);
        }
    }

    fn write_checkpoints(&self, partitions: &[Arc<Partition>]) -> Result<(), LogError> {
        let mut checkpoints = self.checkpoints.lock();
        for partition in partitions {
            let Some((recovery_point, log_start)) = partition.checkpoint() else { continue };
            let key = (partition.topic().to_owned(), partition.index());
            match log_start {
                Some(log_start) => checkpoints.log_starts.insert(key.clone(), log_start),
                None => checkpoints.log_starts.remove(&key),
            };
            checkpoints.recovery_points.insert(key, recovery_point);
        }
        checkpoints.write_recovery_points(&*self.disk, &self.options.path)?;
        checkpoints.write_log_starts(&*self.disk, &self.options.path)
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

    fn sync_root(&self) -> io::Result<()> {
        self.root.sync(|| self.disk.sync_dir(&self.options.path))
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
            Removal::Folder(path) => self.report_removal(&path, self.disk.remove_dir_all(&path)),
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
        loop {
            // The clean marker's end and new identities become durable soon after the start, even if nothing is appended.
            if let Err(error) = self.sync_root() {
                tracing::warn!(%error, path = %self.options.path.display(), "names not synced");
            }
            let due = {
                let mut chores = self.chores.lock();
                let now = Instant::now();
                let (due, later) =
                    std::mem::take(&mut chores.removals).into_iter().partition(|(at, _)| *at <= now);
                chores.removals = later;
                let due: Vec<(Instant, Removal)> = due;
                if due.is_empty() && now < next_tick {
                    let wake_at = chores.removals.iter().map(|(at, _)| *at).fold(next_tick, Instant::min);
                    if self.stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    self.chores_changed.wait_until(&mut chores, wake_at);
                }
                due
            };
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            due.into_iter().for_each(|(_, removal)| self.remove(removal));
            if Instant::now() >= next_tick {
                self.tick();
                next_tick = Instant::now() + CHECKPOINT_INTERVAL;
            }
        }
    }
}

impl Root {
    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    fn sync(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let wanted = self.changes.load(Ordering::SeqCst);
        let mut synced = self.synced.lock();
        if *synced < wanted {
            let covered = self.changes.load(Ordering::SeqCst);
            sync()?;
            *synced = covered;
        }
        Ok(())
    }
}

impl Checkpoints {
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

/// A folder with files but without our properties is somebody else's.
fn refuse_foreign(disk: &dyn Disk, path: &Path) -> Result<(), OpenDirectoryError> {
    let entries =
        disk.list(path).map_err(|source| OpenDirectoryError::Disk { path: path.to_owned(), source })?;
    if entries.iter().any(|entry| entry.name == PROPERTIES_FILE) {
        return Ok(());
    }
    // What a first start leaves when it is interrupted, and what a fresh file system has.
    let harmless = |name: &str| [LOCK_FILE, "meta.properties.tmp", "lost+found"].contains(&name);
    match entries.into_iter().find(|entry| !harmless(&entry.name)) {
        Some(entry) => Err(OpenDirectoryError::Foreign { path: path.to_owned(), example: entry.name }),
        None => Ok(()),
    }
}

/// Cluster and directory id of an existing directory, after comparing them with what was asked for.
fn read_properties(
    disk: &dyn Disk,
    options: &DirectoryOptions,
) -> Result<Option<(Uuid, Uuid)>, OpenDirectoryError> {
    let path = options.path.join(PROPERTIES_FILE);
    let bytes = match read_file(disk, &path, 64 << 10) {
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
    let found: i32 = property("node.id")?.parse().map_err(|_| invalid("node.id"))?;
    if found != options.node_id {
        return Err(OpenDirectoryError::OtherNode { path, found, expected: options.node_id });
    }
    let cluster_id: Uuid = property("cluster.id")?.parse().map_err(|_| invalid("cluster.id"))?;
    let directory_id = property("directory.id")?.parse().map_err(|_| invalid("directory.id"))?;
    match options.cluster_id {
        Some(expected) if expected != cluster_id => {
            Err(OpenDirectoryError::OtherCluster { path, found: cluster_id, expected })
        }
        _ => Ok(Some((cluster_id, directory_id))),
    }
}

fn write_properties(disk: &dyn Disk, options: &DirectoryOptions) -> Result<(Uuid, Uuid), OpenDirectoryError> {
    let path = options.path.join(PROPERTIES_FILE);
    let (cluster_id, directory_id) = (options.cluster_id.unwrap_or_else(Uuid::random), Uuid::random());
    let text = format!(
        "version=1\ncluster.id={cluster_id}\nnode.id={}\ndirectory.id={directory_id}\n",
        options.node_id
    );
    match replace_file(disk, &path, text.as_bytes(), Durability::Now) {
        Ok(_) => Ok((cluster_id, directory_id)),
        Err(source) => Err(OpenDirectoryError::Disk { path, source }),
    }
}

/// `my-topic-7` → `my-topic` and 7; `None` for what is no live partition's folder.
fn parse_folder(name: &str) -> Option<Key> {
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

fn start_threads(shared: &Arc<Shared>) -> io::Result<Vec<JoinHandle<()>>> {
    let mut threads = Vec::new();
    for number in 0..shared.options.flush_threads.max(1) {
        let shared = Arc::clone(shared);
        let thread = std::thread::Builder::new().name(format!("sync-{number}"));
        threads.push(thread.spawn(move || shared.queue.work())?);
    }
    let shared = Arc::clone(shared);
    let thread = std::thread::Builder::new().name("log-chores".to_owned());
    threads.push(thread.spawn(move || shared.work_at_chores())?);
    Ok(threads)
}
