//! A partition: the log behind its append lock, and what consumers may see of it.
//!
//! Invariants: the high watermark never runs ahead of the log, nor, in commit mode, of what has been synced; it never goes back
//! while the partition lives; who waits for it is woken after it has moved, and after the partition has gone.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::LogError;
use super::config::{FlushMode, LogConfig};
use super::directory::Shared;
use super::log::{Log, Placed};
use super::producers::{ProducerView, Verdict};
use super::recovery::{self, Cut};
use super::segment::{Segment, TimestampOffset};
use super::view::{Place, SyncStep, View};
use super::waiter::{Subscription, Waiter, Waiters};
use crate::record::range::FileRange;
use crate::record::{TimestampType, ValidBatch};
use crate::uuid::Uuid;

/// One partition of a topic. Nothing of it is on disk before its first append, and nothing of it is open before its first use.
#[derive(Debug)]
pub struct Partition {
    this: Weak<Self>,
    pub(super) directory: Arc<Shared>,
    topic: Arc<str>,
    topic_id: Uuid,
    index: i32,
    leader_epoch: AtomicI32,
    config: ArcSwap<LogConfig>,
    status: AtomicU8,
    opened: AtomicBool,
    /// The append lock. `None` until opened.
    writer: Mutex<Option<Box<Log>>>,
    pub(super) view: Mutex<View>,
    /// Wakes [`Self::durable`].
    moved: Notify,
    waiters: Arc<Waiters>,
}

/// What has become of a partition; it only ever goes on to a higher one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
enum Status {
    Live,
    /// A write or sync has failed: what is visible can be read, nothing is written.
    Poisoned,
    Closed,
    Deleted,
}

/// What came of an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// Offset of the batch's first record; of a duplicate, where it was appended the first time.
    pub base_offset: i64,
    /// Offset of the batch's last record, inclusive.
    pub last_offset: i64,
    /// The broker's time in the records, ms since the epoch; -1 if they keep their own. Of a duplicate, the stored batch's
    /// largest timestamp, as Kafka answers.
    pub log_append_time_ms: i64,
    /// First offset of the log.
    pub log_start_offset: i64,
    /// Whether it was in the log already.
    pub duplicate: bool,
}

/// The offsets of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offsets {
    /// The first one.
    pub log_start_offset: i64,
    /// End (exclusive) of what consumers may see.
    pub high_watermark: i64,
    /// End (exclusive) of what consumers of committed records may see.
    pub last_stable_offset: i64,
    /// Where the next batch will be appended.
    pub log_end_offset: i64,
}

/// What a read found.
#[derive(Clone, Debug)]
pub struct ReadSet {
    /// The bytes, in order: whole batches, of which the last may be cut.
    pub ranges: Vec<FileRange>,
    /// See [`Offsets::high_watermark`].
    pub high_watermark: i64,
    /// See [`Offsets::last_stable_offset`].
    pub last_stable_offset: i64,
    /// See [`Offsets::log_start_offset`].
    pub log_start_offset: i64,
}

impl Partition {
    pub(super) fn new(
        directory: &Arc<Shared>,
        topic: &str,
        topic_id: Uuid,
        index: i32,
        leader_epoch: i32,
        config: Arc<LogConfig>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            directory: Arc::clone(directory),
            topic: topic.into(),
            topic_id,
            index,
            leader_epoch: AtomicI32::new(leader_epoch),
            config: ArcSwap::new(config),
            status: AtomicU8::new(Status::Live as u8),
            opened: AtomicBool::new(false),
            writer: Mutex::new(None),
            view: Mutex::default(),
            moved: Notify::new(),
            waiters: Arc::default(),
        })
    }

    /// The topic's name.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The topic's id.
    pub fn topic_id(&self) -> Uuid {
        self.topic_id
    }

    /// The partition's number in its topic.
    pub fn index(&self) -> i32 {
        self.index
    }

    /// The epoch that appended batches get.
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch.load(Ordering::Acquire)
    }

    /// Begins a new leader epoch; one that is not above the present is ignored.
    pub fn bump_leader_epoch(&self, leader_epoch: i32) {
        self.leader_epoch.fetch_max(leader_epoch, Ordering::AcqRel);
    }

    /// The settings that it acts on.
    pub fn config(&self) -> Arc<LogConfig> {
        self.config.load_full()
    }

    /// Acts on `config` from the next append on. What a change from commit to os mode makes visible is so at once.
    pub fn reconfigure(&self, config: Arc<LogConfig>) {
        self.config.store(config);
        if self.opened.load(Ordering::Acquire) && self.status() == Status::Live && !self.commits() {
            {
                let mut view = self.view.lock();
                let end = view.log_end;
                view.raise_high_watermark(end);
            }
            self.wake();
        }
    }

    /// Appends a batch and says where. Blocks for one write, and rarely (a new segment, a snapshot) a few more; durability is
    /// for [`Self::durable`] to say. A duplicate of an idempotent producer's recent batch is not appended again.
    pub fn append(&self, mut batch: ValidBatch) -> Result<Appended, LogError> {
        let mut writer = self.writer.lock();
        let log = self.open_locked(&mut writer)?;
        self.check_writable()?;
        let log_start_offset = log.start_offset;
        if let Verdict::Duplicate { base_offset, last_offset, timestamp } =
            log.producers.check(batch.header())?
        {
            let log_append_time_ms = timestamp;
            let duplicate = true;
            return Ok(Appended {
                base_offset,
                last_offset,
                log_append_time_ms,
                log_start_offset,
                duplicate,
            });
        }
        let config = self.config.load();
        let now_ms = self.directory.clock.now_ms();
        let log_append_time_ms = match config.message_timestamp_type {
            TimestampType::LogAppendTime => {
                batch.stamp_log_append_time(now_ms);
                now_ms
            }
            TimestampType::CreateTime => -1,
        };
        let commit = config.flush == FlushMode::Commit;
        let placed = match log.append(&mut batch, self.leader_epoch(), &config, now_ms) {
            Ok(placed) => placed,
            Err(error) => return Err(self.append_failed(log, commit, error)),
        };
        if log.snapshot_is_due()
            && let Err(error) = log.take_snapshot()
        {
            // The batch is in the log; without the snapshot a restart reads more headers.
            tracing::warn!(topic = %self.topic, partition = self.index, %error, "no producer snapshot");
        }
        self.publish(log, &batch, placed, commit);
        drop(writer);
        let (base_offset, last_offset) = (placed.base_offset, batch.header().last_offset());
        Ok(Appended { base_offset, last_offset, log_append_time_ms, log_start_offset, duplicate: false })
    }

    /// Returns when the directory takes more bytes: at once in commit mode, where nobody is answered before the sync; in os mode
    /// when less than the allowed number is unsynced.
    pub async fn room(&self) {
        if !self.commits() {
            self.directory.room().await;
        }
    }

    /// Returns when everything below `offset_end_exclusive` counts as stored: the high watermark has reached it. An error if
    /// that will not happen any more.
    pub async fn durable(&self, offset_end_exclusive: i64) -> Result<(), LogError> {
        loop {
            let mut moved = std::pin::pin!(self.moved.notified());
            moved.as_mut().enable();
            if self.view.lock().high_watermark.offset >= offset_end_exclusive {
                return Ok(());
            }
            self.check_writable()?;
            moved.await;
        }
    }

    /// The bytes from the batch that holds `offset` on, up to the high watermark and `max_bytes`. If already the first batch is
    /// larger, it comes whole with `minimum_one_batch`, else nothing does.
    pub fn read(&self, offset: i64, max_bytes: usize, minimum_one_batch: bool) -> Result<ReadSet, LogError> {
        self.open()?;
        self.check_readable()?;
        let (start, mut read) = {
            let view = self.view.lock();
            let read = ReadSet {
                ranges: Vec::new(),
                high_watermark: view.high_watermark.offset,
                last_stable_offset: view.high_watermark.offset,
                log_start_offset: view.log_start,
            };
            (view.start_of(offset)?.map(|start| (start, view.high_watermark)), read)
        };
        if let Some((start, end)) = start {
            let ranges = self.collect(offset, start, end, max_bytes as u64, minimum_one_batch);
            read.ranges = ranges.map_err(|error| self.explain(offset, error))?;
        }
        Ok(read)
    }

    /// About how many bytes a read at `offset` would find, without I/O once the partition is open; what cannot be read counts
    /// as plenty, so that the read that follows says why.
    pub fn available_bytes(&self, offset: i64) -> u64 {
        if self.open().and_then(|()| self.check_readable()).is_err() {
            return u64::MAX;
        }
        let view = self.view.lock();
        match offset < view.log_start || offset > view.log_end.offset {
            true => u64::MAX,
            false => view.visible_bytes_from(offset),
        }
    }

    /// First, last and visible offsets.
    pub fn offsets(&self) -> Result<Offsets, LogError> {
        self.open()?;
        self.check_readable()?;
        let view = self.view.lock();
        Ok(Offsets {
            log_start_offset: view.log_start,
            high_watermark: view.high_watermark.offset,
            last_stable_offset: view.high_watermark.offset,
            log_end_offset: view.log_end.offset,
        })
    }

    /// Wakes `waiter` whenever the high watermark or the log start moves, and when the partition is deleted or goes offline, until
    /// the subscription is dropped.
    pub fn subscribe(&self, waiter: &Arc<Waiter>) -> Subscription {
        self.waiters.subscribe(waiter)
    }

    /// The first visible record at or after `timestamp` (ms since the epoch).
    pub fn offset_for_timestamp(&self, timestamp: i64) -> Result<Option<TimestampOffset>, LogError> {
        let max_decompressed_bytes = self.max_decompressed_bytes();
        let (offset_min, segments) = self.visible_segments()?;
        for (segment, offset_end, end) in segments {
            if segment.newest()?.is_some_and(|newest| newest.timestamp >= timestamp) {
                let range = (offset_min, offset_end);
                let found = segment.find_timestamp(timestamp, range, end, max_decompressed_bytes)?;
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }

    /// The first visible record that has the largest timestamp of the log.
    pub fn max_timestamp(&self) -> Result<Option<TimestampOffset>, LogError> {
        let (offset_min, segments) = self.visible_segments()?;
        let mut newest: Option<(i64, Arc<Segment>, i64, u64)> = None;
        for (segment, offset_end, end) in segments {
            let Some(timestamp) = segment.newest()?.map(|newest| newest.timestamp) else { continue };
            if newest.as_ref().is_none_or(|(largest, ..)| *largest < timestamp) {
                newest = Some((timestamp, segment, offset_end, end));
            }
        }
        let Some((timestamp, segment, offset_end, end)) = newest else { return Ok(None) };
        segment.find_timestamp(timestamp, (offset_min, offset_end), end, self.max_decompressed_bytes())
    }

    /// The largest epoch not above `leader_epoch` that is known, and where it ends (exclusive). KIP-320.
    pub fn end_offset_for_epoch(&self, leader_epoch: i32) -> Result<Option<(i32, i64)>, LogError> {
        let mut writer = self.writer.lock();
        let log = self.open_locked(&mut writer)?;
        Ok(log.epochs.end_offset_for(leader_epoch, self.leader_epoch(), log.end_offset))
    }

    /// The epoch in which the record at `offset` was written, if that is known.
    pub fn epoch_at(&self, offset: i64) -> Result<Option<i32>, LogError> {
        let mut writer = self.writer.lock();
        Ok(self.open_locked(&mut writer)?.epochs.at(offset))
    }

    /// Makes `before` (-1: the high watermark) the first offset, and returns the first offset that then is; it never goes
    /// back. Segments wholly below it go. Durable when it returns: it blocks for a sync.
    pub fn delete_records(&self, before: i64) -> Result<i64, LogError> {
        let mut writer = self.writer.lock();
        let log = self.open_locked(&mut writer)?;
        self.check_writable()?;
        let (high_watermark, log_end_offset) = {
            let view = self.view.lock();
            (view.high_watermark.offset, view.log_end.offset)
        };
        let before = if before == -1 { high_watermark } else { before };
        if !(0..=high_watermark).contains(&before) {
            let log_start_offset = log.start_offset;
            return Err(LogError::OffsetOutOfRange { offset: before, log_start_offset, log_end_offset });
        }
        if before <= log.start_offset {
            return Ok(log.start_offset);
        }
        let gone = log.advance_start(before)?;
        let first_base = log.segments.first().map_or(0, |segment| segment.base_offset());
        let step = {
            let mut view = self.view.lock();
            view.log_start = before;
            view.segments.clone_from(&log.segments);
            view.wrote_beside(std::mem::take(&mut log.unsynced));
            view.wants_sync(self.commits())
        };
        self.take_step(step);
        drop(writer);
        self.wake();
        // The checkpoint comes first: without it, a log whose files are gone would begin where they did.
        self.directory.save_log_start(&self.topic, self.index, before, first_base)?;
        self.directory.discard(&gone, self.config.load().file_delete_delay_ms);
        Ok(before)
    }

    /// The idempotent producers that are known.
    pub fn producers(&self) -> Result<Vec<ProducerView>, LogError> {
        let mut writer = self.writer.lock();
        Ok(self.open_locked(&mut writer)?.producers.views())
    }
}

/// What the directory does with its partitions.
impl Partition {
    /// Opens the log if it is not, through recovery if the last stop was not clean.
    fn open(&self) -> Result<(), LogError> {
        if !self.opened.load(Ordering::Acquire) {
            self.open_locked(&mut self.writer.lock())?;
        }
        Ok(())
    }

    fn open_locked<'w>(&self, writer: &'w mut Option<Box<Log>>) -> Result<&'w mut Log, LogError> {
        if writer.is_none() {
            self.check_readable()?;
            if let Some(cut) = self.load(writer)? {
                cut.warn();
            }
            if self.commits() && self.awaits_sync() {
                self.sync();
            }
            self.opened.store(true, Ordering::Release);
        }
        Ok(writer.as_mut().expect("it was just loaded"))
    }

    /// The part of opening that needs no sync: afterwards what recovery found is published, but in commit mode visible only as
    /// far as it is known to be durable.
    fn load(&self, writer: &mut Option<Box<Log>>) -> Result<Option<Cut>, LogError> {
        let config = self.config.load();
        let opened = recovery::open(&self.directory.open_request(self, &config)?)?;
        let mut log = opened.log;
        let commit = self.commits();
        let step = {
            let mut view = self.view.lock();
            view.segments.clone_from(&log.segments);
            view.log_start = log.start_offset;
            let (segment, position) = match log.segments.last() {
                Some(active) => (active.base_offset(), active.size_bytes()?),
                None => (log.end_offset, 0),
            };
            view.log_end = Place { offset: log.end_offset, segment, position };
            view.synced = opened.synced.unwrap_or(view.log_end);
            view.high_watermark = if commit { view.synced } else { view.log_end };
            view.wrote_beside(std::mem::take(&mut log.unsynced));
            if view.synced == view.log_end { SyncStep::None } else { view.wants_sync(false) }
        };
        self.take_step(step);
        *writer = Some(Box::new(log));
        Ok(opened.cut)
    }

    /// Opens the log for [`super::LogDirectory::recover`], which syncs many at once.
    pub(super) fn recover(&self) -> Result<Option<Cut>, LogError> {
        let mut writer = self.writer.lock();
        match *writer {
            Some(_) => Ok(None),
            None => self.load(&mut writer),
        }
    }

    /// Ends what [`Self::recover`] began, after the syncing.
    pub(super) fn recovered(&self) {
        self.opened.store(true, Ordering::Release);
    }

    /// All files have been synced, and nothing was appended meanwhile.
    pub(super) fn raise_all_synced(&self) {
        let bytes = {
            let mut view = self.view.lock();
            let end = view.log_end;
            view.raise_synced(end);
            std::mem::take(&mut view.unsynced_bytes)
        };
        self.directory.synced(bytes);
        self.wake();
    }

    /// Whether there is more than is known to be on disk.
    pub(super) fn awaits_sync(&self) -> bool {
        let view = self.view.lock();
        view.synced != view.log_end
    }

    /// Syncs what has been written, makes it visible and wakes who waited for that. A failure poisons the partition.
    pub(super) fn sync(&self) {
        let work = self.view.lock().begin_sync();
        let synced = match self.status() {
            Status::Live => self.directory.execute(&self.folder(), &work),
            _ => Ok(()),
        };
        self.directory.synced(work.bytes);
        match synced {
            Ok(()) => {
                let step = self.view.lock().end_sync(work.end, self.commits());
                self.take_step(step);
            }
            Err(error) => self.poison(&error),
        }
        self.wake();
    }

    /// For a clean stop: no more appends, all files complete, nothing synced yet. Whether there is anything to sync.
    pub(super) fn settle(&self) -> Result<bool, LogError> {
        let mut writer = self.writer.lock();
        let Some(log) = writer.as_mut() else { return Ok(false) };
        self.check_writable()?;
        let mut view = self.view.lock();
        if view.synced == view.log_end && log.snapshots.last() == Some(&log.end_offset) {
            return Ok(false);
        }
        drop(view);
        log.settle()?;
        view = self.view.lock();
        view.wrote_beside(std::mem::take(&mut log.unsynced));
        Ok(!log.segments.is_empty())
    }

    /// Nothing more is appended, and who waits learns it.
    pub(super) fn close(&self) {
        drop(self.writer.lock());
        self.advance_status(Status::Closed);
        self.wake();
    }

    /// The partition is gone; `remove` takes its folder away while nothing is appended.
    pub(super) fn delete(&self, remove: impl FnOnce() -> Result<(), LogError>) -> Result<(), LogError> {
        let removed = {
            let mut writer = self.writer.lock();
            self.advance_status(Status::Deleted);
            *writer = None;
            remove()
        };
        let mut view = self.view.lock();
        let unsynced_bytes = std::mem::take(&mut view.unsynced_bytes);
        view.segments.clear();
        drop(view);
        self.directory.synced(unsynced_bytes);
        self.wake();
        removed
    }

    /// Forgets producers that have been silent for too long. Skipped while the partition is busy: there will be a next time.
    pub(super) fn expire_producers(&self, expiration_ms: i64) {
        if let Some(Some(log)) = self.writer.try_lock().as_deref_mut() {
            log.producers.expire(self.directory.clock.now_ms(), expiration_ms);
        }
    }

    /// Where recovery would begin, and the log start offset if that lies within a segment; `None` if it was never opened.
    pub(super) fn checkpoint(&self) -> Option<(i64, Option<i64>)> {
        if !self.opened.load(Ordering::Acquire) || self.status() == Status::Deleted {
            return None;
        }
        let view = self.view.lock();
        let first_base = view.segments.first().map_or(0, |segment| segment.base_offset());
        Some((view.synced.offset, (view.log_start > first_base).then_some(view.log_start)))
    }

    pub(super) fn folder(&self) -> Arc<Path> {
        self.directory.folder(&self.topic, self.index)
    }

    fn publish(&self, log: &mut Log, batch: &ValidBatch, placed: Placed, commit: bool) {
        let end_position = placed.position + batch.size_bytes() as u64;
        // Counted before a sync can see and discount it.
        self.directory.wrote(batch.size_bytes() as u64);
        let step = {
            let mut view = self.view.lock();
            if placed.new_segment {
                view.rolled(&log.segments);
            }
            view.appended(placed.base_offset, placed.position, log.end_offset, end_position);
            view.wrote_beside(std::mem::take(&mut log.unsynced));
            if !commit {
                let end = view.log_end;
                view.raise_high_watermark(end);
            }
            view.wants_sync(commit)
        };
        self.take_step(step);
        self.directory.sync_if_many();
        if !commit {
            self.wake();
        }
    }

    /// A failed append may still have begun a segment; and any error but a full disk leaves the file in doubt.
    fn append_failed(&self, log: &mut Log, commit: bool, error: LogError) -> LogError {
        let step = {
            let mut view = self.view.lock();
            if view.segments.len() != log.segments.len() {
                view.rolled(&log.segments);
            }
            view.wrote_beside(std::mem::take(&mut log.unsynced));
            view.wants_sync(commit)
        };
        self.take_step(step);
        if let LogError::Disk { .. } = error {
            self.poison(&error);
        }
        error
    }

    fn poison(&self, error: &LogError) {
        tracing::error!(topic = %self.topic, partition = self.index, %error, "takes no more writes");
        self.advance_status(Status::Poisoned);
        self.wake();
    }

    fn take_step(&self, step: SyncStep) {
        let partition = match step {
            SyncStep::None => return,
            SyncStep::Enqueue | SyncStep::List => self.this.upgrade(),
        };
        // Somebody is calling a method of it, so it cannot be gone; but if it were, there would be nobody to tell.
        let Some(partition) = partition else { return };
        match step {
            SyncStep::Enqueue => self.directory.enqueue(partition),
            _ => self.directory.list(partition),
        }
    }

    fn wake(&self) {
        self.moved.notify_waiters();
        self.waiters.wake_all();
    }

    fn commits(&self) -> bool {
        self.config.load().flush == FlushMode::Commit
    }

    fn max_decompressed_bytes(&self) -> usize {
        // A batch holds many records, each of which was checked against the limit when it was stored.
        self.config.load().max_decompressed_message_bytes.saturating_mul(4)
    }

    fn status(&self) -> Status {
        match self.status.load(Ordering::SeqCst) {
            0 => Status::Live,
            1 => Status::Poisoned,
            2 => Status::Closed,
            _ => Status::Deleted,
        }
    }

    fn advance_status(&self, status: Status) {
        self.status.fetch_max(status as u8, Ordering::SeqCst);
    }

    fn check_writable(&self) -> Result<(), LogError> {
        match self.status() {
            Status::Live => Ok(()),
            Status::Poisoned => Err(LogError::Poisoned),
            Status::Closed => Err(LogError::Shutdown),
            Status::Deleted => Err(LogError::Deleted),
        }
    }

    fn check_readable(&self) -> Result<(), LogError> {
        match self.status() {
            Status::Live | Status::Poisoned => Ok(()),
            Status::Closed => Err(LogError::Shutdown),
            Status::Deleted => Err(LogError::Deleted),
        }
    }

    /// The first offset, and of each segment with anything visible the end of that as an offset and in bytes.
    fn visible_segments(&self) -> Result<(i64, Vec<(Arc<Segment>, i64, u64)>), LogError> {
        self.open()?;
        self.check_readable()?;
        let (log_start, end, segments) = {
            let view = self.view.lock();
            (view.log_start, view.high_watermark, view.segments.clone())
        };
        let mut visible = Vec::with_capacity(segments.len());
        for segment in segments {
            if segment.base_offset() < end.segment {
                let size = segment.size_bytes()?;
                visible.push((segment, i64::MAX, size));
            } else if segment.base_offset() == end.segment {
                visible.push((segment, end.offset, end.position));
            }
        }
        Ok((log_start, visible))
    }
}

/// Reading.
impl Partition {
    fn collect(
        &self,
        offset: i64,
        start: super::view::Start,
        end: Place,
        max_bytes: u64,
        minimum_one_batch: bool,
    ) -> Result<Vec<FileRange>, LogError> {
        let mut segment = start.segment;
        let mut known = start.known;
        let mut ranges = Vec::new();
        let mut left = max_bytes;
        loop {
            let visible = match segment.base_offset() == end.segment {
                true => end.position,
                false => segment.size_bytes()?,
            };
            let position = match (known.take(), ranges.is_empty()) {
                (Some((position, size_bytes)), _) => Some((position, size_bytes)),
                (None, true) => {
                    segment.locate(offset, visible)?.map(|located| (located.position, located.size_bytes))
                }
                // Later segments are read from their beginning.
                (None, false) => Some((0, 0)),
            };
            if let Some((position, first_batch_bytes)) = position {
                let first_batch_bytes = first_batch_bytes as u64;
                if ranges.is_empty() && first_batch_bytes > left {
                    if !minimum_one_batch {
                        break;
                    }
                    left = first_batch_bytes;
                }
                let length = (visible - position).min(left);
                if length > 0 {
                    let file = Arc::clone(segment.file()?);
                    ranges.push(FileRange { file, position, length: length as usize });
                    left -= length;
                }
            }
            if left == 0 || segment.base_offset() >= end.segment {
                break;
            }
            match self.view.lock().segment_after(segment.base_offset()) {
                Some(next) => segment = next,
                None => break,
            }
        }
        Ok(ranges)
    }

    /// A read that failed because its segment went away meanwhile says so.
    fn explain(&self, offset: i64, error: LogError) -> LogError {
        if let Err(gone) = self.check_readable() {
            return gone;
        }
        match self.view.lock().start_of(offset) {
            Err(out_of_range) => out_of_range,
            Ok(_) => error,
        }
    }
}
