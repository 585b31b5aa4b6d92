//! A partition: the log behind its append lock, and what consumers may see of it.
//!
//! Invariants: the high watermark never runs ahead of the log, nor, in commit mode, of what has been synced; it never goes back
//! while the partition lives; who waits for it is woken after it has moved, and after the partition has gone.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::LogError;
use super::config::{FlushMode, LogConfig};
use super::directory::Shared;
use super::journal::{Journal, Owner};
use super::log::{Log, Placed};
use super::producers::{ProducerView, Verdict};
use super::recovery::{self, Cut};
use super::retention::{self, Bounds, Plan};
use super::segment::{Segment, Served, TimestampOffset, Visible};
use super::view::{Commit, Following, Place, SyncState, SyncStep, View};
use super::waiter::{Subscription, Waiter, Waiters};
use crate::record::range::{FileRange, RangeFile, Reads};
use crate::record::{TimestampType, ValidBatch};
use crate::uuid::Uuid;

/// Pause before a sync is tried again that found no file descriptor.
const RETRY_SYNC: Duration = Duration::from_millis(10);

/// One partition of a topic. Nothing of it is on disk before its first append, and nothing of it is open before its first use.
pub struct Partition {
    this: Weak<Self>,
    pub(super) directory: Arc<Shared>,
    topic: Arc<str>,
    topic_id: Uuid,
    index: i32,
    /// Whether the broker cannot do without it: it may use the space that is kept free.
    is_essential: bool,
    leader_epoch: AtomicI32,
    config: ArcSwap<LogConfig>,
    status: AtomicU8,
    opened: AtomicBool,
    /// The append lock. `None` until opened.
    writer: Mutex<Option<Box<Log>>>,
    pub(super) view: Mutex<View>,
    /// Log start and recovery point as of the start, once somebody has asked [`Self::known`] before it was opened.
    checkpointed: OnceLock<(i64, i64)>,
    /// When retention must look at it again although it is not open: what nobody writes to changes only with time.
    retention_due_ms: AtomicI64,
    /// Held while syncing: what is durable when one sync ends includes what an earlier one began.
    syncing: Mutex<()>,
    /// Whether the journal ever had anything of it.
    is_journaled: AtomicBool,
    /// Wakes [`Self::durable`].
    moved: Notify,
    waiters: Arc<Waiters>,
}

/// What has become of a partition; it only ever goes on to a higher one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
enum Status {
    Live,
    /// The broker is stopping: nothing more is appended, what was appended is being synced.
    Closing,
    /// The disk has failed: see [`LogError::Offline`].
    Offline,
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

/// What is known of a partition without opening it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known {
    /// See [`Offsets::log_start_offset`].
    pub log_start_offset: i64,
    /// See [`Offsets::high_watermark`].
    pub high_watermark: i64,
    /// See [`Offsets::log_end_offset`].
    pub log_end_offset: i64,
    /// More of one that is open.
    pub open: Option<Open>,
}

/// What is known of an open partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Open {
    /// Bytes of the log.
    pub size_bytes: u64,
    /// Segments.
    pub segments: usize,
    /// Idempotent producers.
    pub producers: usize,
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

/// What there is to compact.
#[derive(Debug)]
pub(super) struct Compactable {
    /// The segments of which all is stable, ascending from the first of the log on.
    pub segments: Vec<Arc<Segment>>,
    pub log_start_offset: i64,
    /// Where what comes after them begins.
    pub end_offset: i64,
    pub log_end_offset: i64,
}

/// Segments that are no part of their log any more, and still lie in its folder.
#[derive(Debug)]
pub(super) struct Retired {
    pub(super) partition: Arc<Partition>,
    /// The log start that they are below of.
    pub(super) log_start: i64,
    pub(super) segments: Vec<Arc<Segment>>,
    /// Whether what is left of the log would tell its start by itself: there are records, and they are on the disk.
    pub(super) start_is_evident: bool,
}

/// A segment, and where what consumers may see of it ends.
struct VisibleSegment {
    segment: Arc<Segment>,
    offset_end: i64,
    end_bytes: u64,
}

/// What the journal has been given of a partition, but not written yet.
pub(super) struct Committing<'a> {
    partition: &'a Partition,
    end: Place,
    length: usize,
    bytes: u64,
    _syncing: MutexGuard<'a, ()>,
}

impl Committing<'_> {
    /// Whether there was nothing to give.
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The end (exclusive) of what was given.
    pub(super) fn end_offset(&self) -> i64 {
        self.end.offset
    }

    /// The journal has been written, or there was nothing to write: makes it visible and wakes who waited for that.
    pub(super) fn end(self) {
        let Self { partition, end, length, bytes, _syncing } = self;
        if length > 0 {
            partition.is_journaled.store(true, Ordering::Release);
        }
        partition.directory.synced(bytes);
        partition.end_sync(|view| view.raise_synced(end));
        partition.wake();
    }

    /// Nothing was written: leaves it to a sync of the files.
    pub(super) fn give_up(self) {
        self.partition.view.lock().retry_commit(self.bytes);
    }
}

impl Partition {
    pub(super) fn new(
        directory: &Arc<Shared>,
        topic: &str,
        topic_id: Uuid,
        index: i32,
        leader_epoch: i32,
        config: Arc<LogConfig>,
        is_essential: bool,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            directory: Arc::clone(directory),
            topic: topic.into(),
            topic_id,
            index,
            is_essential,
            leader_epoch: AtomicI32::new(leader_epoch),
            config: ArcSwap::new(config),
            status: AtomicU8::new(Status::Live as u8),
            opened: AtomicBool::new(false),
            writer: Mutex::new(None),
            view: Mutex::default(),
            checkpointed: OnceLock::new(),
            retention_due_ms: AtomicI64::new(i64::MIN),
            syncing: Mutex::default(),
            is_journaled: AtomicBool::new(false),
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
        self.config.store(Arc::clone(&config));
        self.retention_due_ms.store(i64::MIN, Ordering::Release);
        if !self.opened.load(Ordering::Acquire) || self.status() != Status::Live {
            return;
        }
        let is_listed = {
            let mut view = self.view.lock();
            if !view.counts_when_synced(&config) {
                let end = view.log_end;
                view.raise_high_watermark(end);
            }
            view.sync == SyncState::Listed
        };
        if let (true, Some(partition)) = (is_listed, self.this.upgrade()) {
            // Perhaps sooner than it was to be.
            self.directory.sync_within(&partition, config.flush_ms);
        }
        self.wake();
    }

    /// Appends a batch and says where. Blocks for one write, and rarely (a new segment, a snapshot) a few more; durability is
    /// for [`Self::durable`] to say. A duplicate of an idempotent producer's recent batch is not appended again.
    pub fn append(&self, batch: ValidBatch) -> Result<Appended, LogError> {
        self.append_for(batch, true)
    }

    /// The same where nobody waits until it is durable: that comes with the next append that somebody waits for, or within a
    /// minute.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn append_unawaited(&self, batch: ValidBatch) -> Result<Appended, LogError> {
        self.append_for(batch, false)
    }

    fn append_for(&self, mut batch: ValidBatch, is_awaited: bool) -> Result<Appended, LogError> {
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
        if !self.is_essential {
            self.directory.check_space(batch.size_bytes())?;
        }
        self.directory.await_start()?;
        let placed = match log.append(&mut batch, self.leader_epoch(), &config, now_ms) {
            Ok(placed) => placed,
            Err(error) => {
                self.directory.note_append(Err(&error));
                return Err(self.append_failed(log, error));
            }
        };
        if log.snapshot_is_due()
            && let Err(error) = log.take_snapshot()
        {
            // The batch is in the log; without the snapshot a restart reads more headers.
            tracing::warn!(topic = %self.topic, partition = self.index, %error, "no producer snapshot");
            self.directory.fail_if_written(&error);
        }
        self.publish(log, &batch, placed, &config, is_awaited);
        if !self.is_essential {
            self.directory.note_append(Ok(()));
        }
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
            let step = {
                let mut view = self.view.lock();
                if view.high_watermark.offset >= offset_end_exclusive {
                    return Ok(());
                }
                view.is_awaited()
            };
            self.check_syncable()?;
            self.take_step(step);
            moved.await;
        }
    }

    /// The bytes from the batch that holds `offset` on, up to the high watermark and `max_bytes`. If already the first batch is
    /// larger, it comes whole with `minimum_one_batch`, else nothing does.
    pub fn read(&self, offset: i64, max_bytes: usize, minimum_one_batch: bool) -> Result<ReadSet, LogError> {
        self.open()?;
        self.check_readable()?;
        self.read_open(offset, max_bytes, minimum_one_batch, Reads::All)
            .inspect_err(|error| self.directory.fail_if_broken(error))
    }

    /// The same without waiting for a disk, which most reads do not have to; `None` if this one does.
    pub(super) fn read_cached(
        &self,
        offset: i64,
        max_bytes: usize,
        minimum_one_batch: bool,
    ) -> Result<Option<ReadSet>, LogError> {
        if !self.is_open() {
            return Ok(None);
        }
        self.check_readable()?;
        match self.read_open(offset, max_bytes, minimum_one_batch, Reads::Cached) {
            Err(error) if error.would_wait() => Ok(None),
            read => read.map(Some).inspect_err(|error| self.directory.fail_if_broken(error)),
        }
    }

    /// As [`Self::read`], for a thread that serves sockets: what has to wait for a disk is left to one that may.
    pub async fn read_aside(
        &self,
        offset: i64,
        max_bytes: usize,
        minimum_one_batch: bool,
    ) -> Result<ReadSet, LogError> {
        if let Some(read) = self.read_cached(offset, max_bytes, minimum_one_batch)? {
            return Ok(read);
        }
        let partition = self.this.upgrade().ok_or(LogError::Deleted)?;
        let read = move || partition.read(offset, max_bytes, minimum_one_batch);
        tokio::task::spawn_blocking(read).await.unwrap_or(Err(LogError::Shutdown))
    }

    fn read_open(
        &self,
        offset: i64,
        max_bytes: usize,
        minimum_one_batch: bool,
        reads: Reads,
    ) -> Result<ReadSet, LogError> {
        loop {
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
            let Some((start, end)) = start else { return Ok(read) };
            let ranges = self.collect(offset, start, end, max_bytes as u64, minimum_one_batch, reads);
            // If compaction has just taken what was begun with, then once more.
            if let Some(ranges) = ranges.map_err(|error| self.explain(offset, error))? {
                read.ranges = ranges;
                return Ok(read);
            }
        }
    }

    /// What a range that [`Partition::read`] gave could not be read for, as an error of this log.
    pub fn unreadable(&self, error: io::Error) -> LogError {
        let error = LogError::disk(&self.folder(), error);
        self.directory.fail_if_broken(&error);
        error
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

    /// What can be told at once: an idle partition is not opened for it, and shows what the last stop has written down.
    pub fn known(&self) -> Known {
        if !self.opened.load(Ordering::Acquire) {
            let (log_start_offset, end) =
                *self.checkpointed.get_or_init(|| self.directory.checkpointed(&self.topic, self.index));
            return Known { log_start_offset, high_watermark: end, log_end_offset: end, open: None };
        }
        let view = self.view.lock();
        let closed = &view.segments[..view.segments.len().saturating_sub(1)];
        // One that was never read is looked at once; what cannot be looked at fails where it is read.
        let closed_bytes: u64 = closed.iter().filter_map(|segment| segment.size_bytes().ok()).sum();
        Known {
            log_start_offset: view.log_start,
            high_watermark: view.high_watermark.offset,
            log_end_offset: view.log_end.offset,
            open: Some(Open {
                size_bytes: closed_bytes + view.log_end.position,
                segments: view.segments.len(),
                producers: view.producers,
            }),
        }
    }

    /// Whether its log directory is offline.
    pub fn is_offline(&self) -> bool {
        self.status() == Status::Offline || self.directory.is_offline()
    }

    /// Bytes of its log files. Looks into the folder of one that is not open.
    pub fn size_bytes(&self) -> Result<u64, LogError> {
        match self.known().open {
            Some(open) => Ok(open.size_bytes),
            None => self.directory.bytes_of_logs(&self.folder()),
        }
    }

    /// Whether anyone waits for more by [`Self::subscribe`].
    pub fn is_waited_for(&self) -> bool {
        self.waiters.is_anyone_here()
    }

    /// Wakes `waiter` whenever the high watermark or the log start moves, and when the partition is deleted or goes offline, until
    /// the subscription is dropped.
    pub fn subscribe(&self, waiter: &Arc<Waiter>) -> Subscription {
        self.waiters.subscribe(waiter)
    }

    /// The first visible record at or after `timestamp` (ms since the epoch).
    pub fn offset_for_timestamp(&self, timestamp: i64) -> Result<Option<TimestampOffset>, LogError> {
        let found = self.unless_start_moves(|| self.find_from(timestamp));
        found.inspect_err(|error| self.directory.fail_if_broken(error))
    }

    fn find_from(&self, timestamp: i64) -> Result<Option<TimestampOffset>, LogError> {
        let (offset_min, segments) = self.visible_segments()?;
        for visible in segments {
            if visible.segment.newest()?.is_some_and(|newest| newest.timestamp >= timestamp) {
                let found = self.find_timestamp(&visible, timestamp, offset_min)?;
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }

    /// The first visible record that has the largest timestamp of the log.
    pub fn max_timestamp(&self) -> Result<Option<TimestampOffset>, LogError> {
        self.unless_start_moves(|| self.find_newest())
    }

    fn find_newest(&self) -> Result<Option<TimestampOffset>, LogError> {
        let (offset_min, segments) = self.visible_segments()?;
        let mut newest: Option<(i64, VisibleSegment)> = None;
        for visible in segments {
            let Some(timestamp) = visible.segment.newest()?.map(|newest| newest.timestamp) else { continue };
            if newest.as_ref().is_none_or(|(largest, _)| *largest < timestamp) {
                newest = Some((timestamp, visible));
            }
        }
        match newest {
            Some((timestamp, visible)) => self.find_timestamp(&visible, timestamp, offset_min),
            None => Ok(None),
        }
    }

    /// The largest epoch not above `leader_epoch` that is known, and where it ends (exclusive). KIP-320.
    pub fn end_offset_for_epoch(&self, leader_epoch: i32) -> Result<Option<(i32, i64)>, LogError> {
        let mut writer = self.writer.lock();
        let log = self.open_locked(&mut writer)?;
        Ok(log.epochs.end_offset_for(leader_epoch, self.leader_epoch(), log.end_offset))
    }

    /// Where the log has lost an end that was there up to `end_exclusive` in `leader_epoch`, as it may with the machine in os
    /// mode: from there on offsets are given again.
    pub fn lost_since(&self, leader_epoch: i32, end_exclusive: i64) -> Result<Option<i64>, LogError> {
        let log_end = self.offsets()?.log_end_offset;
        let end_of_epoch = match leader_epoch < self.leader_epoch() {
            true => self.end_offset_for_epoch(leader_epoch)?,
            false => None,
        };
        let cut = end_of_epoch.map_or(log_end, |(_, end)| end.min(log_end));
        Ok((end_exclusive > cut).then_some(cut))
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
        let retired = self.advance_start(log, before)?;
        drop(writer);
        self.wake();
        self.directory.retire(retired.into_iter().collect())?;
        Ok(before)
    }

    /// The idempotent producers that are known.
    pub fn producers(&self) -> Result<Vec<ProducerView>, LogError> {
        let mut writer = self.writer.lock();
        Ok(self.open_locked(&mut writer)?.producers.views())
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Partition({}-{})", self.topic, self.index)
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
                cut.tell();
                // The catalog learns of it at the next start, from the log.
                self.bump_leader_epoch(self.leader_epoch() + 1);
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
    fn load(&self, writer: &mut Option<Box<Log>>) -> Result<Option<Arc<Cut>>, LogError> {
        let config = self.config.load();
        let opened = self.directory.open_request(self, &config).and_then(|request| recovery::open(&request));
        self.directory.opened(self, opened.as_ref().map(|opened| opened.cut.clone()));
        let opened = opened.inspect_err(|error| self.directory.fail_if_broken(error))?;
        let mut log = opened.log;
        // What is in the log was written under an epoch that counts, whatever the catalog remembers.
        self.bump_leader_epoch(log.epochs.latest().map_or(0, |latest| latest.epoch));
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
            view.files_synced = opened.synced.unwrap_or(view.log_end);
            view.synced = view.files_synced;
            view.high_watermark = if commit { view.synced } else { view.log_end };
            view.producers = log.producers.count();
            view.show_epochs(&log.epochs);
            view.wrote_beside(std::mem::take(&mut log.unsynced));
            if view.synced == view.log_end { SyncStep::None } else { view.wants_sync(false) }
        };
        self.take_step(step);
        self.directory.cleaned_at_most(self, log.end_offset);
        *writer = Some(Box::new(log));
        Ok(opened.cut)
    }

    /// Opens the log for [`super::LogDirectory::recover`], which syncs many at once.
    pub(super) fn recover(&self) -> Result<Option<Arc<Cut>>, LogError> {
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
            view.raise_all_synced();
            std::mem::take(&mut view.unsynced_bytes)
        };
        self.directory.synced(bytes);
        self.wake();
    }

    /// Whether there is more than is known to be durable in the files.
    pub(super) fn awaits_sync(&self) -> bool {
        self.view.lock().awaits_sync()
    }

    /// Puts what was appended since the last sync into `journal`, which is to be written; `None` if only a sync of the files will
    /// do, or nothing at all.
    pub(super) fn begin_commit(&self, journal: &mut Journal) -> Option<Committing<'_>> {
        // Without an id its folder could be taken for another topic's.
        if self.topic_id.is_zero() || self.check_syncable().is_err() {
            return None;
        }
        let syncing = self.syncing.try_lock()?;
        let begun = self.view.lock().begin_commit(&self.config.load());
        let Commit::Journal { segment, position, end, bytes } = begun else { return None };
        let length = (end.position - position) as usize;
        let taken = match length {
            0 => Ok(true),
            _ => journal.add(self.owner(), (end.segment, position), length, |buffer| {
                segment.read_raw(buffer, position)
            }),
        };
        let committing = Committing { partition: self, end, length, bytes, _syncing: syncing };
        match taken {
            Ok(true) => Some(committing),
            // What is wrong, if anything is, the sync will say.
            Ok(false) | Err(_) => {
                committing.give_up();
                None
            }
        }
    }

    /// Has the files synced soon, unless everything below `offset` (exclusive) is durable in them.
    pub(super) fn settle_up_to(&self, offset: i64) {
        let step = self.view.lock().settle_up_to(offset);
        self.take_step(step);
    }

    /// Whether the journal need not keep what it has of the log below `offset` (exclusive).
    pub(super) fn is_settled(&self, offset: i64) -> bool {
        self.is_deleted() || self.view.lock().files_synced.offset >= offset
    }

    /// What the journal knows it by.
    fn owner(&self) -> Owner<'_> {
        Owner { topic: &self.topic, topic_id: self.topic_id, partition: self.index }
    }

    /// What was to be synced is: makes it visible.
    fn end_sync(&self, raise: impl FnOnce(&mut View)) {
        let step = {
            let mut view = self.view.lock();
            raise(&mut view);
            let when_synced = view.counts_when_synced(&self.config.load());
            if !when_synced {
                // What came meanwhile waited only with what is synced now.
                let end = view.log_end;
                view.raise_high_watermark(end);
            }
            view.end_sync()
        };
        self.take_step(step);
    }

    /// Syncs what has been written, makes it visible and wakes who waited for that. A failure takes the directory offline.
    pub(super) fn sync(&self) {
        let _syncing = self.syncing.lock();
        let work = self.view.lock().begin_sync();
        let synced = self.check_syncable().and_then(|()| self.directory.execute(&self.folder(), &work));
        if let Err(LogError::OutOfDescriptors { .. }) = synced {
            // Sockets may have taken them all; one that closes will do.
            std::thread::sleep(RETRY_SYNC);
            self.view.lock().retry_sync(work);
            return self.take_step(SyncStep::Enqueue);
        }
        self.directory.synced(work.bytes);
        match synced {
            Ok(()) => self.end_sync(|view| view.raise_files_synced(work.end)),
            Err(LogError::Deleted | LogError::Shutdown | LogError::Offline) => {}
            // Its folder has gone meanwhile, and nobody needs what was in it.
            Err(_) if self.is_deleted() => {}
            Err(error) => self.directory.fail(&error),
        }
        self.wake();
    }

    /// For a clean stop: from now on nothing is appended; all files are complete, but not synced. Whether there is anything to
    /// sync.
    pub(super) fn settle(&self) -> Result<bool, LogError> {
        let mut writer = self.writer.lock();
        let Some(log) = writer.as_mut() else { return Ok(false) };
        self.advance_status(Status::Closing);
        self.check_syncable()?;
        if !self.awaits_sync() && log.is_complete() {
            return Ok(false);
        }
        log.complete()?;
        self.view.lock().wrote_beside(std::mem::take(&mut log.unsynced));
        Ok(!log.segments.is_empty())
    }

    /// The disk has failed, and who waits learns it.
    pub(super) fn go_offline(&self) {
        self.advance_status(Status::Offline);
        self.wake();
    }

    /// Lets go of the files of a partition that is offline.
    pub(super) fn release(&self) {
        *self.writer.lock() = None;
        self.view.lock().segments.clear();
    }

    /// Nothing more happens here, and who waits learns it.
    pub(super) fn close(&self) {
        {
            // Whoever is appending finishes that first.
            let _writer = self.writer.lock();
            self.advance_status(Status::Closed);
        }
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

    /// Takes the segments out of the log whose time or the space for them is over, as retention decides. A log that is not open
    /// is opened only if there are such.
    pub(super) fn retain(&self) -> Result<Option<Retired>, LogError> {
        let now_ms = self.directory.clock.now_ms();
        if self.status() != Status::Live || !self.has_expired(now_ms)? {
            return Ok(None);
        }
        let mut writer = self.writer.lock();
        let log = self.open_locked(&mut writer)?;
        if self.check_writable().is_err() {
            return Ok(None);
        }
        let config = self.config.load();
        let bounds = self.retention_bounds();
        let plan = retention::plan(&log.segments, bounds, &config, now_ms)?;
        if plan.segments() == 0 {
            return Ok(None);
        }
        let mut log_start = plan.log_start;
        if plan.roll {
            match log.roll(&config, now_ms) {
                Ok(()) => self.publish_roll(log),
                Err(error) => match self.append_failed(log, error) {
                    // Without space for a new segment the last one stays, and the others make some.
                    LogError::NoSpace { .. } => {
                        log_start = log.segments.last().map_or(log_start, |active| active.base_offset());
                    }
                    error => return Err(error),
                },
            }
        }
        let Plan { by_log_start, by_size, by_time, .. } = plan;
        tracing::info!(
            topic = %self.topic, partition = self.index, log_start, by_log_start, by_size, by_time, "segments go"
        );
        let retired = self.advance_start(log, log_start)?;
        drop(writer);
        self.wake();
        Ok(retired)
    }

    /// Takes files of segments away that are no part of the log any more, unless they are not the partition's to take.
    pub(super) fn discard(&self, segments: &[Arc<Segment>]) {
        let mut files = Vec::new();
        for segment in segments {
            // The folder's name may be a new topic's once this one is deleted, and the folder another process's once closed.
            let _writer = self.writer.lock();
            if self.check_readable().is_ok() {
                files.extend(self.directory.set_deleted(segment));
            }
        }
        self.directory.remove_files_later(files, self.config.load().file_delete_delay_ms);
    }

    /// Whether the partition is gone for good.
    pub(super) fn is_deleted(&self) -> bool {
        self.status() == Status::Deleted
    }

    /// Forgets producers that have been silent for too long. Skipped while the partition is busy: there will be a next time.
    pub(super) fn expire_producers(&self, expiration_ms: i64) {
        if let Some(Some(log)) = self.writer.try_lock().as_deref_mut() {
            log.producers.expire(self.directory.clock.now_ms(), expiration_ms);
            self.view.lock().producers = log.producers.count();
        }
    }

    /// What the cleaner plans by; an error of a partition that takes no writes, for which it does nothing.
    pub(super) fn compactable(&self) -> Result<Compactable, LogError> {
        let mut writer = self.writer.lock();
        let log = self.open_locked(&mut writer)?;
        self.check_writable()?;
        let view = self.view.lock();
        // Readers and syncs know the segment that they are at by its first offset: it stays.
        let mut end = view.high_watermark.segment;
        if let Some(open) = log.producers.first_open_transaction() {
            end = end.min(
                log.segments
                    .iter()
                    .rev()
                    .map(|segment| segment.base_offset())
                    .find(|base| *base <= open)
                    .unwrap_or(0),
            );
        }
        let segments = log.segments.iter().filter(|segment| segment.base_offset() < end).cloned().collect();
        let end_offset = end.max(log.start_offset);
        Ok(Compactable {
            segments,
            log_start_offset: log.start_offset,
            end_offset,
            log_end_offset: log.end_offset,
        })
    }

    /// Whether everything below the segment that begins at `base_offset` is durable in its files, and nothing else will write to
    /// them; syncs to make it so.
    pub(super) fn is_durable_below(&self, base_offset: i64) -> bool {
        let is_durable = || self.view.lock().files_synced.segment >= base_offset;
        if !is_durable() {
            self.sync();
        }
        is_durable()
            && (!self.is_journaled.load(Ordering::Acquire)
                || self.directory.void_journal(self.owner(), base_offset))
    }

    /// Of each idempotent producer the last offset of its last batch of data, if that is known, and its epoch.
    pub(super) fn last_of_producers(&self) -> Result<HashMap<i64, (Option<i64>, i16)>, LogError> {
        let last = |producer: ProducerView| {
            let last_offset = (producer.last_offset >= 0).then_some(producer.last_offset);
            (producer.producer_id, (last_offset, producer.producer_epoch))
        };
        Ok(self.producers()?.into_iter().map(last).collect())
    }

    /// Puts one segment, with the name of the first, in the place of `old`, which are neighbours; `rename` gives the files their
    /// names, while nothing is appended. `None` if these are not in the log any more: then nothing was done.
    pub(super) fn replace_segments<T>(
        &self,
        old: &[Arc<Segment>],
        rename: impl FnOnce() -> Result<T, LogError>,
    ) -> Result<Option<T>, LogError> {
        let mut writer = self.writer.lock();
        self.check_writable()?;
        let Some(log) = writer.as_mut() else { return Ok(None) };
        let is_here =
            |there: &[Arc<Segment>]| there.iter().zip(old).all(|(left, right)| Arc::ptr_eq(left, right));
        let Some(first) = log.segments.windows(old.len()).position(is_here) else { return Ok(None) };
        old.iter().try_for_each(|segment| segment.retire())?;
        // Of several renames that fail some may have been done: only a start knows what to make of that.
        let renamed = rename().inspect_err(|error| self.directory.fail(error))?;
        let new = Segment::existing(&log.disk, &log.folder, old[0].base_offset());
        log.segments.splice(first..first + old.len(), [Arc::new(new)]);
        self.view.lock().segments.clone_from(&log.segments);
        Ok(Some(renamed))
    }

    /// Whether it was used since the start.
    pub(super) fn is_open(&self) -> bool {
        self.opened.load(Ordering::Acquire)
    }

    /// Where recovery would begin, and the log start offset; `None` if it was never opened.
    pub(super) fn checkpoint(&self) -> Option<(i64, i64)> {
        if !self.opened.load(Ordering::Acquire) || self.status() == Status::Deleted {
            return None;
        }
        let view = self.view.lock();
        Some((view.files_synced.offset, view.log_start))
    }

    pub(super) fn folder(&self) -> Arc<Path> {
        self.directory.folder(&self.topic, self.index)
    }

    /// Whether retention lets anything go now, going by what is published; the append lock is not taken. Of a log that is not open
    /// a look at its folder tells, which is spared as long as it can bring nothing new.
    fn has_expired(&self, now_ms: i64) -> Result<bool, LogError> {
        let config = self.config.load();
        if self.opened.load(Ordering::Acquire) {
            let segments = self.view.lock().segments.clone();
            let plan = retention::plan(&segments, self.retention_bounds(), &config, now_ms)?;
            return Ok(plan.segments() > 0);
        }
        if now_ms < self.retention_due_ms.load(Ordering::Acquire) || !self.directory.is_whole() {
            return Ok(false);
        }
        let (log_start, end) = self.directory.checkpointed(&self.topic, self.index);
        let segments = recovery::peek(&self.directory.disk, &self.folder())?;
        let bounds = Bounds { log_start, high_watermark: end, log_end: end };
        let plan = retention::plan(&segments, bounds, &config, now_ms)?;
        self.retention_due_ms.store(plan.next_ms, Ordering::Release);
        if !Arc::ptr_eq(&config, &self.config.load()) {
            // What was just written is of configs that hold no more.
            self.retention_due_ms.store(i64::MIN, Ordering::Release);
        }
        Ok(plan.segments() > 0)
    }

    fn retention_bounds(&self) -> Bounds {
        let view = self.view.lock();
        Bounds {
            log_start: view.log_start,
            high_watermark: view.high_watermark.offset,
            log_end: view.log_end.offset,
        }
    }

    /// Makes `offset` the log start for all who read; what is wholly below it must be given to [`Shared::retire`].
    fn advance_start(&self, log: &mut Log, offset: i64) -> Result<Option<Retired>, LogError> {
        let segments = match log.advance_start(offset) {
            Ok(segments) => segments,
            Err(error) => return Err(self.append_failed(log, error)),
        };
        let (step, start_is_evident) = {
            let mut view = self.view.lock();
            view.log_start = log.start_offset;
            view.segments.clone_from(&log.segments);
            view.wrote_beside(std::mem::take(&mut log.unsynced));
            let first_base = log.segments.first().map_or(0, |first| first.base_offset());
            (
                view.wants_sync(self.commits()),
                first_base == log.start_offset && view.files_synced.offset > first_base,
            )
        };
        self.take_step(step);
        // Somebody is calling a method of it, so it cannot be gone.
        let partition = self.this.upgrade();
        let log_start = log.start_offset;
        Ok(partition.map(|partition| Retired { partition, log_start, segments, start_is_evident }))
    }

    /// A segment was begun without a batch for it.
    fn publish_roll(&self, log: &mut Log) {
        let step = {
            let mut view = self.view.lock();
            view.rolled(&log.segments);
            view.wrote_beside(std::mem::take(&mut log.unsynced));
            view.wants_sync(self.commits())
        };
        self.take_step(step);
    }

    fn publish(
        &self,
        log: &mut Log,
        batch: &ValidBatch,
        placed: Placed,
        config: &LogConfig,
        is_awaited: bool,
    ) {
        let end_position = placed.position + batch.size_bytes() as u64;
        // Counted before a sync can see and discount it.
        self.directory.wrote(batch.size_bytes() as u64);
        let counters = &self.directory.counters;
        counters.appended_bytes.add(batch.size_bytes() as u64);
        counters.appended_records.add(u64::try_from(batch.header().record_count).unwrap_or(0));
        let when_synced;
        let step = {
            let mut view = self.view.lock();
            if placed.new_segment {
                view.rolled(&log.segments);
            }
            view.appended(placed.base_offset, placed.position, log.end_offset, end_position);
            view.producers = log.producers.count();
            view.show_epochs(&log.epochs);
            view.wrote_beside(std::mem::take(&mut log.unsynced));
            when_synced = view.counts_when_synced(config);
            if !when_synced {
                let end = view.log_end;
                view.raise_high_watermark(end);
            }
            view.wants_sync(when_synced && is_awaited)
        };
        if when_synced && is_awaited {
            self.directory.awaits_commit();
        }
        if let Some(active) = log.segments.last() {
            self.waiters.hand(active.base_offset(), placed.position, batch);
        }
        self.take_step(step);
        self.directory.sync_if_many();
        if !when_synced {
            self.wake();
        }
    }

    /// A failed append may still have begun a segment; and any error but a full disk leaves the file in doubt.
    fn append_failed(&self, log: &mut Log, error: LogError) -> LogError {
        let step = {
            let mut view = self.view.lock();
            if view.segments.len() != log.segments.len() {
                view.rolled(&log.segments);
            }
            view.wrote_beside(std::mem::take(&mut log.unsynced));
            view.wants_sync(self.commits())
        };
        self.take_step(step);
        self.directory.fail_if_written(&error);
        error
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
            _ => self.directory.list(partition, self.config.load().flush_ms),
        }
    }

    fn wake(&self) {
        self.moved.notify_waiters();
        self.waiters.wake_all();
    }

    fn commits(&self) -> bool {
        self.config.load().flush == FlushMode::Commit
    }

    /// Looks once more if a look has failed while the log start moved: a file that was not open yet may have gone.
    fn unless_start_moves<T>(&self, look: impl Fn() -> Result<T, LogError>) -> Result<T, LogError> {
        loop {
            let log_start = self.view.lock().log_start;
            let found = look();
            if found.is_ok() || self.view.lock().log_start == log_start {
                return found;
            }
        }
    }

    fn find_timestamp(
        &self,
        visible: &VisibleSegment,
        timestamp: i64,
        offset_min: i64,
    ) -> Result<Option<TimestampOffset>, LogError> {
        // A batch holds many records, each of which was checked against the limit when it was stored.
        let max_decompressed_bytes = self.config.load().max_decompressed_message_bytes.saturating_mul(4);
        let range = (offset_min, visible.offset_end);
        visible.segment.find_timestamp(timestamp, range, visible.end_bytes, max_decompressed_bytes)
    }

    fn status(&self) -> Status {
        match self.status.load(Ordering::SeqCst) {
            0 => Status::Live,
            1 => Status::Closing,
            2 => Status::Offline,
            3 => Status::Closed,
            _ => Status::Deleted,
        }
    }

    fn advance_status(&self, status: Status) {
        self.status.fetch_max(status as u8, Ordering::SeqCst);
    }

    fn check_writable(&self) -> Result<(), LogError> {
        match self.status() {
            Status::Live => Ok(()),
            Status::Closing | Status::Closed => Err(LogError::Shutdown),
            Status::Offline => Err(LogError::Offline),
            Status::Deleted => Err(LogError::Deleted),
        }
    }

    fn check_readable(&self) -> Result<(), LogError> {
        match self.status() {
            Status::Live | Status::Closing => Ok(()),
            Status::Offline => Err(LogError::Offline),
            Status::Closed => Err(LogError::Shutdown),
            Status::Deleted => Err(LogError::Deleted),
        }
    }

    /// Whether the high watermark may still move.
    fn check_syncable(&self) -> Result<(), LogError> {
        match self.status() {
            Status::Live | Status::Closing => Ok(()),
            Status::Offline => Err(LogError::Offline),
            Status::Closed => Err(LogError::Shutdown),
            Status::Deleted => Err(LogError::Deleted),
        }
    }

    /// The first offset, and the segments that consumers may see anything of.
    fn visible_segments(&self) -> Result<(i64, Vec<VisibleSegment>), LogError> {
        self.open()?;
        self.check_readable()?;
        let (log_start, end, segments) = {
            let view = self.view.lock();
            (view.log_start, view.high_watermark, view.segments.clone())
        };
        let mut visible = Vec::with_capacity(segments.len());
        for segment in segments {
            if segment.base_offset() < end.segment {
                let end_bytes = segment.size_bytes()?;
                visible.push(VisibleSegment { segment, offset_end: i64::MAX, end_bytes });
            } else if segment.base_offset() == end.segment {
                visible.push(VisibleSegment { segment, offset_end: end.offset, end_bytes: end.position });
            }
        }
        Ok((log_start, visible))
    }
}

/// Reading.
impl Partition {
    /// `None` if there was nothing in what the read began with, and what comes next is not what it was then.
    fn collect(
        &self,
        offset: i64,
        start: super::view::Start,
        end: Place,
        max_bytes: u64,
        minimum_one_batch: bool,
        reads: Reads,
    ) -> Result<Option<Vec<FileRange>>, LogError> {
        let mut segment = start.segment;
        let mut known = start.known;
        let mut ranges = Vec::new();
        let mut left = max_bytes;
        loop {
            let next = self.view.lock().after(&segment, end);
            let visible = self.visible(&segment, &next, end)?;
            let is_active = known.is_some();
            let served = match known.take() {
                // What this process has appended moments ago needs no second look.
                Some((position, size_bytes)) => {
                    let first_batch_bytes = size_bytes as u64;
                    Some(Served { position, first_batch_bytes, end: visible.end, stopped: false })
                }
                // Later segments are read from their beginning.
                None => match segment.serve(offset.max(segment.base_offset()), &visible, left, reads) {
                    Err(LogError::Damaged { .. }) if !ranges.is_empty() => break,
                    served => served?,
                },
            };
            if let Some(Served { position, first_batch_bytes, end, stopped }) = served {
                if ranges.is_empty() && first_batch_bytes > left {
                    if !minimum_one_batch {
                        break;
                    }
                    left = first_batch_bytes;
                }
                let length = (end - position).min(left);
                if length > 0 {
                    let file = self.file_of(&segment, (position, length as usize), is_active)?;
                    ranges.push(FileRange { file, position, length: length as usize });
                    left -= length;
                }
                if stopped {
                    break;
                }
            }
            if left == 0 || segment.base_offset() >= end.segment {
                break;
            }
            match next {
                Following::Segment(next) => segment = next,
                Following::Replaced if ranges.is_empty() => return Ok(None),
                Following::Nothing | Following::Replaced => break,
            }
        }
        Ok(Some(ranges))
    }

    /// The file that has these bytes (position and length) of a segment, or what was just handed over of it. That is asked for only
    /// where the place is one of the active segment: in another, compaction may have put something else there since.
    fn file_of(
        &self,
        segment: &Segment,
        (position, length): (u64, usize),
        is_active: bool,
    ) -> Result<Arc<dyn RangeFile>, LogError> {
        match is_active.then(|| self.waiters.handed(segment.base_offset(), position, length)).flatten() {
            Some(handed) => Ok(handed),
            None => segment.pinned(),
        }
    }

    /// What consumers may see of a segment, if `end` is where what they may see ends.
    fn visible(&self, segment: &Segment, next: &Following, end: Place) -> Result<Visible, LogError> {
        let epochs = Arc::clone(&self.view.lock().epochs);
        if segment.base_offset() == end.segment {
            return Ok(Visible { end: end.position, offset_end: end.offset, is_full: true, epochs });
        }
        let offset_end = match next {
            Following::Segment(next) => next.base_offset(),
            Following::Nothing | Following::Replaced => i64::MAX,
        };
        Ok(Visible { end: segment.size_bytes()?, offset_end, is_full: false, epochs })
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use rustix::io::Errno;

    use super::super::config::tests::config;
    use super::super::fixture::*;
    use super::*;
    use crate::record::{BatchBuilder, BatchHeader};
    use crate::storage::Disk;

    #[test]
    fn what_is_appended_reads_back_over_segments_with_dense_offsets() {
        let fixture = Fixture::new();
        let partition = fixture.partition(LogConfig { segment_bytes: 1000, ..config() });
        let mut next = 0;
        for records in 1..60 {
            assert_eq!(append(&partition, batch(records % 7 + 1)).unwrap(), next);
            next += (records % 7 + 1) as i64;
        }
        assert!(fixture.disk.content(&log_file(0)).unwrap().len() <= 1000);
        let headers = headers(&partition, 0);
        assert_eq!(headers.len(), 59);
        let mut expected = 0;
        for header in headers {
            assert_eq!((header.base_offset, header.partition_leader_epoch), (expected, 0));
            expected = header.last_offset() + 1;
        }
        assert_eq!(expected, next);
    }

    #[test]
    fn every_offset_is_found_in_the_batch_that_holds_it() {
        let fixture = Fixture::new();
        let partition =
            fixture.partition(LogConfig { index_interval_bytes: 200, segment_bytes: 20_000, ..config() });
        for _ in 0..300 {
            append(&partition, batch(3)).unwrap();
        }
        let fixture = fixture.stop();
        let reopened = fixture.partition(LogConfig { index_interval_bytes: 200, ..config() });
        for partition in
            [partition.config(), reopened.config()].map(|config| fixture.partition((*config).clone()))
        {
            for offset in 0..900 {
                let read = partition.read(offset, 1, true).unwrap();
                let header = BatchHeader::parse(&bytes(&read.ranges)).unwrap();
                assert!((header.base_offset..=header.last_offset()).contains(&offset));
                assert_eq!(read.ranges[0].length, header.size_bytes());
            }
        }
    }

    #[test]
    fn what_is_not_in_memory_is_read_by_a_thread_that_may_wait() {
        let fixture = Fixture::new();
        let config = LogConfig { index_interval_bytes: 200, segment_bytes: 20_000, ..config() };
        let partition = fixture.partition(config.clone());
        for _ in 0..300 {
            append(&partition, batch(3)).unwrap();
        }
        let fixture = fixture.stop();
        let partition = fixture.partition(config);
        assert!(partition.read_cached(0, 1000, true).unwrap().is_none(), "it is not open yet");
        append(&partition, batch(3)).unwrap();
        for offset in 0..903 {
            // The first to come looks into an index that is not open either.
            let read = bytes(&run(partition.read_aside(offset, 1000, true)).unwrap().ranges);
            let cached = partition.read_cached(offset, 1000, true).unwrap().expect("all is in memory");
            assert_eq!(bytes(&cached.ranges), read, "{offset}");
            fixture.disk.set_cold(true);
            // Where the newest batch is needs no look.
            assert_eq!(
                partition.read_cached(offset, 1000, true).unwrap().is_some(),
                offset >= 900,
                "{offset}"
            );
            assert_eq!(bytes(&run(partition.read_aside(offset, 1000, true)).unwrap().ranges), read);
            fixture.disk.set_cold(false);
        }
        assert!(matches!(run(partition.read_aside(904, 1, true)), Err(LogError::OffsetOutOfRange { .. })));
    }

    #[test]
    fn the_byte_limit_cuts_the_tail_but_never_the_first_batch() {
        let fixture = Fixture::new();
        let partition = fixture.partition(config());
        let size = batch(1).size_bytes();
        (0..3).for_each(|_| assert!(append(&partition, batch(1)).is_ok()));
        let length = |max_bytes, minimum| bytes(&partition.read(0, max_bytes, minimum).unwrap().ranges).len();
        assert_eq!(length(size + 10, false), size + 10);
        assert_eq!(length(size - 1, false), 0);
        assert_eq!(length(size - 1, true), size);
        assert_eq!(length(0, true), size);
        assert_eq!(length(usize::MAX, false), 3 * size);
        assert_eq!(partition.available_bytes(0), 3 * size as u64);
        assert_eq!(partition.available_bytes(3), 0);
    }

    #[test]
    fn a_range_that_cannot_be_read_takes_the_directory_offline_if_the_disk_is_broken() {
        let fixture = Fixture::new();
        let partition = fixture.partition(config());
        let garbage = partition.unreadable(io::ErrorKind::InvalidData.into());
        assert!(matches!(garbage, LogError::Disk { .. }), "{garbage}");
        assert!(!partition.is_offline());
        let broken = partition.unreadable(Errno::IO.into());
        assert!(matches!(broken, LogError::Disk { .. }), "{broken}");
        assert!(partition.is_offline());
    }

    #[test]
    fn offsets_outside_the_log_are_out_of_range_and_its_end_is_empty() {
        let fixture = Fixture::new();
        let partition = fixture.partition(config());
        append(&partition, batch(5)).unwrap();
        assert!(partition.read(5, 100, true).unwrap().ranges.is_empty());
        for offset in [-1, 6] {
            let read = partition.read(offset, 100, true);
            assert!(matches!(
                read,
                Err(LogError::OffsetOutOfRange { log_start_offset: 0, log_end_offset: 5, .. })
            ));
            assert_eq!(partition.available_bytes(offset), u64::MAX);
        }
    }

    #[test]
    fn an_append_is_one_write() {
        let fixture = Fixture::new();
        let partition = fixture.partition(config());
        append(&partition, batch(1)).unwrap();
        let before = fixture.disk.writes();
        for _ in 0..100 {
            partition.append(batch(5)).unwrap();
        }
        assert_eq!(fixture.disk.writes() - before, 100);
    }

    #[test]
    fn a_partition_costs_no_io_before_its_first_append() {
        let fixture = Fixture::new();
        let (opens, writes) = (fixture.disk.opens(), fixture.disk.writes());
        let partitions: Vec<_> = (0..100)
            .map(|index| fixture.directory.partition("idle", TOPIC_ID, index, 0, Arc::new(config())))
            .collect();
        assert_eq!((fixture.disk.opens(), fixture.disk.writes()), (opens, writes));
        assert_eq!(high_watermark(&partitions[7]), 0);
        assert_eq!(fixture.disk.writes(), writes);
        assert!(fixture.disk.open("/data/idle-7".as_ref()).is_err());
    }

    #[test]
    fn in_commit_mode_nothing_is_visible_before_it_is_synced() {
        let fixture = Fixture::new();
        let partition = fixture.partition(commit());
        fixture.disk.hold_syncs();
        let appended = partition.append(batch(2)).unwrap();
        eventually("a thread syncs", || fixture.disk.syncs_waiting() > 0);
        assert_eq!((high_watermark(&partition), end_offset(&partition)), (0, 2));
        assert!(partition.read(0, 1000, true).unwrap().ranges.is_empty());
        assert!(!is_ready(partition.durable(appended.last_offset + 1)));
        fixture.disk.release_syncs();
        run(partition.durable(2)).unwrap();
        assert_eq!(high_watermark(&partition), 2);
        assert_eq!(headers(&partition, 0).len(), 1);
    }

    #[test]
    fn one_sync_covers_all_that_came_while_another_ran() {
        let fixture = Fixture::new();
        let partition = fixture.partition(commit());
        append(&partition, batch(1)).unwrap();
        let before = fixture.disk.file_syncs();
        fixture.disk.hold_syncs();
        partition.append(batch(1)).unwrap();
        eventually("a thread syncs", || fixture.disk.syncs_waiting() == 1);
        for _ in 0..64 {
            partition.append(batch(1)).unwrap();
        }
        fixture.disk.release_syncs();
        run(partition.durable(66)).unwrap();
        assert_eq!(fixture.disk.file_syncs() - before, 2);
    }

    #[test]
    fn a_position_in_the_middle_of_what_is_synced_is_where_reads_end() {
        let fixture = Fixture::new();
        let partition = fixture.partition(LogConfig { segment_bytes: 400, ..commit() });
        let size = batch(1).size_bytes();
        for _ in 0..7 {
            append(&partition, batch(1)).unwrap();
        }
        fixture.disk.hold_syncs();
        for _ in 0..7 {
            partition.append(batch(1)).unwrap();
        }
        for offset in 0..7 {
            let read = bytes(&partition.read(offset, usize::MAX, true).unwrap().ranges);
            assert_eq!(read.len(), size * (7 - offset as usize));
        }
        fixture.disk.release_syncs();
    }

    #[test]
    fn a_duplicate_keeps_its_first_offsets_and_is_answered_when_those_are_durable() {
        let fixture = Fixture::new();
        let partition = fixture.partition(commit());
        for sequence in 0..3 {
            append(&partition, sequenced(0, sequence)).unwrap();
        }
        let again = partition.append(sequenced(0, 1)).unwrap();
        assert_eq!((again.base_offset, again.last_offset, again.duplicate), (1, 1, true));
        assert_eq!(again.log_append_time_ms, NOW_MS);
        assert_eq!(end_offset(&partition), 3);
        fixture.disk.hold_syncs();
        partition.append(sequenced(0, 3)).unwrap();
        let again = partition.append(sequenced(0, 3)).unwrap();
        assert!(again.duplicate && !is_ready(partition.durable(again.last_offset + 1)));
        fixture.disk.release_syncs();
        run(partition.durable(again.last_offset + 1)).unwrap();
    }

    #[test]
    fn the_broker_stamps_when_the_topic_goes_by_its_clock() {
        let fixture = Fixture::new();
        let timestamp_type = TimestampType::LogAppendTime;
        let partition = fixture.partition(LogConfig { message_timestamp_type: timestamp_type, ..config() });
        fixture.clock.set(NOW_MS + 5);
        let appended = partition.append(batch(1)).unwrap();
        assert_eq!(appended.log_append_time_ms, NOW_MS + 5);
        let header = headers(&partition, 0)[0];
        assert_eq!((header.max_timestamp, header.attributes.timestamp_type()), (NOW_MS + 5, timestamp_type));
    }

    #[test]
    fn a_batch_larger_than_a_segment_is_refused() {
        let fixture = Fixture::new();
        let partition = fixture.partition(LogConfig { segment_bytes: 200, ..config() });
        let append = partition.append(builder(1, 300).build_valid());
        assert!(matches!(append, Err(LogError::RecordListTooLarge { segment_bytes: 200, .. })));
        assert_eq!(end_offset(&partition), 0);
    }

    #[test]
    fn a_full_disk_refuses_an_append_and_takes_the_next_once_there_is_space() {
        let fixture = Fixture::new();
        let partition = fixture.partition(config());
        append(&partition, sequenced(0, 0)).unwrap();
        let content = fixture.disk.content(&log_file(0)).unwrap();
        for taken in [0, 1, 61, 70] {
            fixture.disk.fail_writes_after(taken, Errno::NOSPC);
            assert!(matches!(partition.append(sequenced(0, 1)), Err(LogError::NoSpace { .. })));
            assert_eq!(fixture.disk.content(&log_file(0)).unwrap(), content, "the partial write is cut off");
            assert_eq!(headers(&partition, 0).len(), 1, "reads go on");
        }
        fixture.disk.mend_writes();
        assert_eq!(append(&partition, sequenced(0, 1)).unwrap(), 1);
    }

    #[test]
    fn a_full_disk_at_a_roll_leaves_the_log_usable() {
        let fixture = Fixture::new();
        let partition =
            fixture.partition(LogConfig { segment_bytes: 200, index_interval_bytes: 10, ..config() });
        for _ in 0..2 {
            append(&partition, batch(1)).unwrap();
        }
        for taken in 0..60 {
            fixture.disk.fail_writes_after(taken, Errno::NOSPC);
            assert!(matches!(partition.append(batch(1)), Err(LogError::NoSpace { .. })), "{taken}");
        }
        fixture.disk.mend_writes();
        assert_eq!(append(&partition, batch(1)).unwrap(), 2);
        assert_eq!(headers(&partition, 0).len(), 3);
    }

    #[test]
    fn a_failed_write_or_sync_ends_writing_and_reading() {
        for fail in [
            (|disk| disk.fail_writes_after(3, Errno::IO)) as fn(&crate::storage::simulated::SimulatedDisk),
            |disk| disk.fail_syncs(Errno::IO),
        ] {
            let fixture = Fixture::new();
            let partition = fixture.partition(commit());
            append(&partition, batch(1)).unwrap();
            fail(&fixture.disk);
            assert!(append(&partition, batch(1)).is_err());
            fixture.disk.mend_writes();
            assert!(matches!(partition.append(batch(1)), Err(LogError::Offline)));
            assert!(matches!(run(partition.durable(2)), Err(LogError::Offline)));
            assert!(matches!(partition.read(0, 1, true), Err(LogError::Offline)));
            assert_eq!(partition.known().high_watermark, 1);
        }
    }

    #[test]
    fn in_os_mode_writers_wait_while_too_much_is_unsynced() {
        let fixture = Fixture::new();
        let partition = fixture.partition(config());
        let batch = || builder(1, 1 << 20).build_valid();
        fixture.disk.hold_syncs();
        let mut unsynced = 0;
        while unsynced < fixture.options.os_unsynced_max_bytes {
            assert!(is_ready(partition.room()));
            let size = batch().size_bytes() as u64;
            append(&partition, batch()).unwrap();
            unsynced += size;
        }
        assert!(!is_ready(partition.room()));
        let in_commit_mode = fixture.directory.partition("other", TOPIC_ID, 0, 0, Arc::new(commit()));
        assert!(is_ready(in_commit_mode.room()));
        eventually("syncing has begun by itself", || fixture.disk.syncs_waiting() > 0);
        fixture.disk.release_syncs();
        run(partition.room());
        eventually("all is synced in the end", || fixture.directory.unsynced_bytes() < unsynced / 2);
    }

    #[test]
    fn a_waiter_is_woken_by_an_append_by_a_deletion_and_by_a_moving_start() {
        let fixture = Fixture::new();
        let partition = fixture.partition(config());
        let waiter = Waiter::new();
        let subscription = partition.subscribe(&waiter);
        assert!(!is_ready(waiter.wait()));
        append(&partition, batch(2)).unwrap();
        assert!(is_ready(waiter.wait()));
        partition.delete_records(1).unwrap();
        assert!(is_ready(waiter.wait()));
        assert!(!is_ready(waiter.wait()));
        fixture.directory.delete(&partition).unwrap();
        assert!(is_ready(waiter.wait()));
        drop(subscription);
    }

    #[test]
    fn what_is_appended_while_somebody_waits_is_read_from_memory() {
        let fixture = Fixture::new();
        let partition = fixture.partition(LogConfig { segment_bytes: 700, ..config() });
        let size = batch(1).size_bytes();
        // On the disk something else has become of the batches: each of these bytes was 0.
        let spoil = |number| fixture.disk.flip(&log_file(0), number * size + 23, 1).unwrap();
        let is_spoilt = |offset| {
            let read = bytes(&partition.read(offset, 10_000, true).unwrap().ranges);
            read.chunks(size).map(|batch| batch[23] == 1).collect::<Vec<_>>()
        };
        append(&partition, batch(1)).unwrap();
        let subscription = partition.subscribe(&Waiter::new());
        append(&partition, batch(1)).unwrap();
        (0..2).for_each(spoil);
        assert_eq!((is_spoilt(0), is_spoilt(1)), (vec![true, true], vec![false]));
        append(&partition, batch(1)).unwrap();
        spoil(2);
        assert_eq!(
            (is_spoilt(1), is_spoilt(2)),
            (vec![true, true], vec![false]),
            "only the last one is kept"
        );
        assert!(partition.read(2, size - 1, false).unwrap().ranges.is_empty());
        drop(subscription);
        assert_eq!(is_spoilt(2), [true], "nor is that when nobody waits");
    }

    #[test]
    fn what_is_kept_for_who_waits_is_not_seen_before_it_is_durable() {
        let fixture = Fixture::new();
        let partition = fixture.partition(commit());
        append(&partition, batch(1)).unwrap();
        let waiter = Waiter::new();
        let _subscription = partition.subscribe(&waiter);
        fixture.disk.hold_syncs();
        partition.append(batch(1)).unwrap();
        assert!(!is_ready(waiter.wait()) && partition.read(1, 1000, true).unwrap().ranges.is_empty());
        fixture.disk.release_syncs();
        run(waiter.wait());
        let ranges = partition.read(1, 1000, true).unwrap().ranges;
        fixture.disk.flip(&log_file(0), batch(1).size_bytes() + 23, 1).unwrap();
        assert_eq!(bytes(&ranges)[23], 0, "it comes from memory");
    }

    #[test]
    fn whoever_waits_for_durability_learns_of_the_deletion() {
        let fixture = Fixture::new();
        let partition = fixture.partition(commit());
        fixture.disk.hold_syncs();
        partition.append(batch(1)).unwrap();
        let answered = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let durable = run(partition.durable(1));
                    assert!(matches!(durable, Err(LogError::Deleted)), "{durable:?}");
                    answered.fetch_add(1, Ordering::SeqCst);
                });
            }
            fixture.directory.delete(&partition).unwrap();
            eventually("all are told", || answered.load(Ordering::SeqCst) == 3);
        });
        fixture.disk.release_syncs();
        assert!(matches!(partition.append(batch(1)), Err(LogError::Deleted)));
        assert!(matches!(partition.read(0, 1, true), Err(LogError::Deleted)));
        eventually("its bytes count no more", || fixture.directory.unsynced_bytes() == 0);
    }

    #[test]
    fn a_record_is_found_by_its_time() {
        let fixture = Fixture::new();
        let narrow = LogConfig { segment_bytes: 600, index_interval_bytes: 50, ..config() };
        let partition = fixture.partition(narrow.clone());
        // Three records a batch, 10 ms apart; the middle one of each batch is the latest.
        let time = |batch: i64, record: i64| NOW_MS + batch * 100 + [0, 20, 10][record as usize];
        for number in 0..40 {
            let records = (0..3).fold(BatchBuilder::new(), |builder, record| {
                builder.record(time(number, record), None, Some(b"value"))
            });
            append(&partition, records.build_valid()).unwrap();
        }
        let check = |partition: &Partition, first: i64| {
            for number in first..40 {
                let found = |timestamp| {
                    partition
                        .offset_for_timestamp(timestamp)
                        .unwrap()
                        .map(|found| (found.offset, found.timestamp))
                };
                assert_eq!(found(time(number, 0)), Some((number * 3, time(number, 0))));
                assert_eq!(found(time(number, 0) + 1), Some((number * 3 + 1, time(number, 1))));
                assert_eq!(found(time(number, 2)), Some((number * 3 + 1, time(number, 1))));
            }
            assert_eq!(partition.offset_for_timestamp(time(39, 1) + 1).unwrap(), None);
            let newest = partition.max_timestamp().unwrap().unwrap();
            assert_eq!((newest.offset, newest.timestamp, newest.leader_epoch), (118, time(39, 1), 0));
        };
        check(&partition, 0);
        let fixture = fixture.stop();
        let partition = fixture.partition(narrow);
        check(&partition, 0);
        partition.delete_records(32).unwrap();
        check(&partition, 11);
        let found = partition.offset_for_timestamp(0).unwrap().unwrap();
        assert_eq!(found.offset, 32, "records below the log start are not found");
    }

    #[test]
    fn an_empty_log_has_no_times() {
        let fixture = Fixture::new();
        let partition = fixture.partition(config());
        assert_eq!(partition.offset_for_timestamp(0).unwrap(), None);
        assert_eq!(partition.max_timestamp().unwrap(), None);
    }

    #[test]
    fn deleted_records_are_gone_for_good_with_the_segments_that_held_only_them() {
        let fixture = Fixture::new();
        let narrow = LogConfig { segment_bytes: 200, file_delete_delay_ms: 0, ..config() };
        let partition = fixture.partition(narrow.clone());
        for _ in 0..10 {
            append(&partition, batch(1)).unwrap();
        }
        assert_eq!(partition.delete_records(5).unwrap(), 5);
        assert_eq!(partition.delete_records(3).unwrap(), 5, "never back");
        assert!(matches!(partition.delete_records(11), Err(LogError::OffsetOutOfRange { .. })));
        assert!(matches!(partition.read(4, 100, true), Err(LogError::OffsetOutOfRange { .. })));
        assert!(fixture.disk.content(&log_file(0)).is_err());
        assert_eq!(headers(&partition, 5).len(), 5);
        eventually("files go", || fixture.disk.content(&path("00000000000000000000.log.deleted")).is_err());
        let fixture = fixture.cut_power(1);
        let partition = fixture.partition(narrow);
        fixture.recover(&partition);
        assert_eq!(partition.offsets().unwrap().log_start_offset, 5);
        let end = end_offset(&partition);
        assert_eq!(partition.delete_records(-1).unwrap(), end);
        assert!(headers(&partition, end).is_empty());
    }

    #[test]
    fn epochs_end_where_the_next_begin() {
        let fixture = Fixture::new();
        let partition = fixture.partition(config());
        append(&partition, batch(4)).unwrap();
        partition.bump_leader_epoch(2);
        append(&partition, batch(3)).unwrap();
        partition.bump_leader_epoch(1);
        assert_eq!(partition.leader_epoch(), 2);
        let fixture = fixture.kill();
        let partition = fixture.directory.partition(TOPIC, TOPIC_ID, 0, 2, Arc::new(config()));
        for (asked, expected) in [(0, Some((0, 4))), (1, Some((0, 4))), (2, Some((2, 7))), (3, None)] {
            assert_eq!(partition.end_offset_for_epoch(asked).unwrap(), expected);
        }
        assert_eq!(partition.epoch_at(5).unwrap(), Some(2));
    }

    #[test]
    fn a_change_to_os_mode_shows_what_is_written_at_once() {
        let fixture = Fixture::new();
        let partition = fixture.partition(commit());
        fixture.disk.hold_syncs();
        partition.append(batch(2)).unwrap();
        assert_eq!(high_watermark(&partition), 0);
        partition.reconfigure(Arc::new(config()));
        assert_eq!(high_watermark(&partition), 2);
        partition.reconfigure(Arc::new(commit()));
        partition.append(batch(2)).unwrap();
        assert_eq!(high_watermark(&partition), 2, "and never goes back");
        fixture.disk.release_syncs();
        run(partition.durable(4)).unwrap();
    }

    #[test]
    fn readers_and_writers_at_once_see_only_whole_batches_in_order() {
        let fixture = Fixture::new();
        let partition =
            fixture.partition(LogConfig { segment_bytes: 50_000, index_interval_bytes: 500, ..config() });
        append(&partition, batch(1)).unwrap();
        std::thread::scope(|scope| {
            let writer =
                scope.spawn(|| (0..2000).for_each(|_| assert!(append(&partition, batch(3)).is_ok())));
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut next = 0;
                    while next < 6001 {
                        for header in headers(&partition, next) {
                            assert_eq!(header.base_offset, next);
                            next = header.last_offset() + 1;
                        }
                    }
                });
            }
            writer.join().unwrap();
        });
        assert_eq!(end_offset(&partition), 6001);
    }

    /// Offsets and epochs of what is served from `offset` on, until nothing more is; how it ended.
    fn served(
        partition: &Partition,
        mut offset: i64,
        max_bytes: usize,
    ) -> (Vec<(i64, i32)>, Option<LogError>) {
        let mut found = Vec::new();
        loop {
            let read = match partition.read(offset, max_bytes, true) {
                Ok(read) => bytes(&read.ranges),
                Err(error) => return (found, Some(error)),
            };
            let mut rest = &read[..];
            let before = found.len();
            while let Ok(header) = BatchHeader::parse(rest)
                && let Some(behind) = rest.get(header.size_bytes()..)
            {
                found.push((header.base_offset, header.partition_leader_epoch));
                offset = header.last_offset() + 1;
                rest = behind;
            }
            if found.len() == before {
                return (found, None);
            }
        }
    }

    #[test]
    fn a_flipped_header_is_never_served_and_all_before_it_is() {
        let narrow = LogConfig { segment_bytes: 700, index_interval_bytes: 150, ..config() };
        let fixture = Fixture::new();
        let partition = fixture.partition(narrow.clone());
        (0..20).for_each(|_| assert!(append(&partition, batch(3)).is_ok()));
        let all: Vec<_> = (0..20).map(|number| (number * 3, 0)).collect();
        let size = batch(3).size_bytes();
        drop(partition);
        let fixture = fixture.stop();
        drop(fixture.directory);
        let segment_batches = 700 / size;
        // All bytes that the checksum does not cover, but for itself, which the reader compares.
        for (batch, at, mask) in
            (0..20).flat_map(|batch| (0..17).flat_map(move |at| [1, 2, 0x80].map(|mask| (batch, at, mask))))
        {
            let disk = fixture.disk.copy();
            let (segment, number) = (batch / segment_batches, batch % segment_batches);
            let path = log_file((segment * segment_batches * 3) as i64);
            disk.flip(&path, number * size + at, mask).unwrap();
            let fixture = Fixture::on(disk);
            let partition = fixture.partition(narrow.clone());
            for max_bytes in [1, 250, 100_000] {
                let (found, ended) = served(&partition, 0, max_bytes);
                let what = format!("batch {batch}, byte {at} ^ {mask:#x}: {found:?}, {ended:?}");
                assert_eq!(found, all[..batch], "{what}");
                // The end of the log is looked at when it is opened: there it is cut off.
                let is_cut = end_offset(&partition) == batch as i64 * 3;
                assert!(is_cut || matches!(ended, Some(LogError::Damaged { .. })), "{what}");
            }
            for offset in 0..end_offset(&partition) {
                let (found, _) = served(&partition, offset, 100_000);
                assert!(
                    found.iter().all(|found| all.contains(found)),
                    "batch {batch}, byte {at} ^ {mask:#x}"
                );
                assert!(!found.contains(&all[batch]));
            }
        }
    }

    #[test]
    fn who_reads_on_is_led_there_by_nothing_but_the_last_read() {
        let fixture = Fixture::new();
        let partition = fixture.partition(config());
        (0..20).for_each(|_| assert!(append(&partition, batch(3)).is_ok()));
        let fixture = fixture.stop();
        let partition = fixture.partition(config());
        let size = batch(3).size_bytes();
        let first_of = |offset, max_bytes| {
            let read = partition.read(offset, max_bytes, true)?;
            Ok::<_, LogError>(BatchHeader::parse(&bytes(&read.ranges)).unwrap().base_offset)
        };
        assert_eq!(first_of(0, 2 * size + 70).unwrap(), 0);
        // Without an index entry all else is found from the beginning.
        fixture.disk.flip(&log_file(0), 16, 0xff).unwrap();
        for (offset, max_bytes) in [(6, size), (9, 1), (12, 2 * size - 1), (15, 100_000)] {
            assert_eq!(first_of(offset, max_bytes).unwrap(), offset, "{max_bytes}");
        }
        assert!(matches!(first_of(18, 1), Err(LogError::Damaged { .. })));
    }

    #[test]
    fn a_missing_segment_file_is_an_error_and_no_panic() {
        let fixture = Fixture::new();
        append(&fixture.partition(config()), batch(1)).unwrap();
        let fixture = fixture.stop();
        let partition = fixture.partition(config());
        fixture.disk.flip(&log_file(0), 16, 0xff).unwrap();
        assert_eq!(end_offset(&partition), 0, "damage at the end of the log is cut off");
        fixture.disk.remove(&log_file(0)).unwrap();
        let again = fixture.kill();
        let partition = again.partition(config());
        assert!(partition.read(1, 1, true).is_err());
        assert_eq!(io::ErrorKind::NotFound, again.disk.content(&log_file(0)).unwrap_err().kind());
    }
}
