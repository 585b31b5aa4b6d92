//! A log: segments in the order of their offsets, what is known of its producers and leader epochs, and one writer.
//!
//! Everything here happens under the partition's append lock. What readers see is published by [`super::partition`].

use std::path::Path;
use std::sync::Arc;

use super::LogError;
use super::config::LogConfig;
use super::epochs::LeaderEpochs;
use super::producers::Producers;
use super::roll::{Incoming, RollView, should_roll};
use super::segment::{SEGMENT_BYTES_MAX, Segment, file_name};
use crate::clock::TimestampMs;
use crate::record::ValidBatch;
use crate::storage::{Disk, DiskFile, Durability, replace_file, write_all_at};
use crate::uuid::Uuid;

/// Log bytes between snapshots of the producers: what a restart reads headers of, at most (twice that if the newest snapshot
/// did not survive).
pub const SNAPSHOT_INTERVAL_BYTES: u64 = 64 << 20;

/// Snapshots that are kept.
const SNAPSHOTS_MAX: usize = 2;

/// File with the epochs.
pub const EPOCHS_FILE: &str = "leader-epoch-checkpoint";

/// File with the topic id.
pub const METADATA_FILE: &str = "partition.metadata";

/// What has been written but not synced, besides the segment files themselves.
#[derive(Debug, Default)]
pub struct Unsynced {
    /// Small files beside the log: indexes of closed segments, snapshots, epochs, metadata.
    pub files: Vec<Arc<dyn DiskFile>>,
    /// Whether names in the partition's folder have changed.
    pub names: bool,
    /// Whether the folder itself is new.
    pub folder: bool,
}

impl Unsynced {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && !self.names && !self.folder
    }

    /// Adds what `other` has.
    pub fn absorb(&mut self, other: Self) {
        self.files.extend(other.files);
        self.names |= other.names;
        self.folder |= other.folder;
    }
}

/// Where a batch was appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placed {
    /// Offset of its first record.
    pub base_offset: i64,
    /// Position in the active segment.
    pub position: u64,
    /// Whether a new segment was begun for it.
    pub new_segment: bool,
}

/// The writer's side of a partition's log.
#[derive(Debug)]
pub struct Log {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) folder: Arc<Path>,
    pub(super) topic_id: Uuid,
    /// Whether the folder exists.
    pub(super) has_folder: bool,
    /// Ascending; the last one is active. Empty before the first append.
    pub(super) segments: Vec<Arc<Segment>>,
    pub(super) start_offset: i64,
    pub(super) end_offset: i64,
    pub(super) producers: Producers,
    pub(super) epochs: LeaderEpochs,
    /// Offsets of the snapshot files, ascending.
    pub(super) snapshots: Vec<i64>,
    pub(super) bytes_since_snapshot: u64,
    pub(super) active: Active,
    pub(super) unsynced: Unsynced,
}

/// What the roll decision needs to know of the active segment.
#[derive(Debug, Default)]
pub struct Active {
    /// Largest timestamp of the first batch, once known.
    pub first_timestamp: Option<TimestampMs>,
    /// When the segment was begun or opened.
    pub created_ms: TimestampMs,
    /// Its part of `segment.jitter.ms`.
    pub jitter_ms: i64,
}

impl Active {
    /// A segment that begins (or is opened) now.
    pub fn begin(now_ms: TimestampMs, config: &LogConfig) -> Self {
        let jitter_ms = match config.segment_jitter_ms.min(config.segment_ms) {
            jitter_ms @ 1.. => fastrand::i64(0..jitter_ms),
            _ => 0,
        };
        Self { first_timestamp: None, created_ms: now_ms, jitter_ms }
    }
}

impl Log {
    /// Writes `batch` at the end of the log, with offsets and epoch assigned. `NoSpace` leaves the log as it was; after any
    /// other disk error it must not be appended to.
    pub fn append(
        &mut self,
        batch: &mut ValidBatch,
        leader_epoch: i32,
        config: &LogConfig,
        now_ms: TimestampMs,
    ) -> Result<Placed, LogError> {
        if batch.size_bytes() as u64 > config.segment_bytes {
            let (size_bytes, segment_bytes) = (batch.size_bytes(), config.segment_bytes);
            return Err(LogError::RecordListTooLarge { size_bytes, segment_bytes });
        }
        batch.assign(self.end_offset, leader_epoch);
        let new_segment = self.make_room(batch, config, now_ms)?;
        if self.epochs.begin(leader_epoch, self.end_offset)
            && let Err(error) = self.announce_epoch(leader_epoch)
        {
            // The next append tries again.
            self.epochs.truncate_end(self.end_offset);
            return Err(error);
        }
        let segment = self.segments.last().expect("room was made in a segment");
        let position = match segment.append(batch, config) {
            Ok(position) => position,
            Err(error) => {
                segment.cut_rest()?;
                // Before the next stop counts as a clean one.
                self.unsynced.files.push(Arc::clone(segment.file()?));
                return Err(error);
            }
        };
        self.end_offset = batch.header().last_offset() + 1;
        self.producers.update(batch.header(), now_ms);
        self.active.first_timestamp.get_or_insert(batch.header().max_timestamp);
        self.bytes_since_snapshot += batch.size_bytes() as u64;
        Ok(Placed { base_offset: batch.header().base_offset, position, new_segment })
    }

    /// Whether enough was appended to [`Self::take_snapshot`].
    pub fn snapshot_is_due(&self) -> bool {
        self.bytes_since_snapshot >= SNAPSHOT_INTERVAL_BYTES
    }

    /// Writes the producers' state as of the log's end, unless that is on disk already, and drops old snapshots.
    pub fn take_snapshot(&mut self) -> Result<(), LogError> {
        if self.snapshots.last() == Some(&self.end_offset) {
            return Ok(());
        }
        let path = self.folder.join(file_name(self.end_offset, "snapshot"));
        let bytes = self.producers.snapshot();
        let file = self.disk.create(&path).map_err(|source| LogError::disk(&path, source))?;
        write_all_at(&*file, &mut [std::io::IoSlice::new(&bytes)], 0)
            .map_err(|source| LogError::disk(&path, source))?;
        self.unsynced.files.push(file);
        self.unsynced.names = true;
        self.snapshots.push(self.end_offset);
        self.bytes_since_snapshot = 0;
        while self.snapshots.len() > SNAPSHOTS_MAX {
            let oldest = self.folder.join(file_name(self.snapshots.remove(0), "snapshot"));
            self.disk.remove(&oldest).map_err(|source| LogError::disk(&oldest, source))?;
        }
        Ok(())
    }

    /// Whether [`Self::complete`] has nothing to do: the newest snapshot is that of the log's end and the indexes are written, if
    /// that is worth it, and the file ends with its last batch.
    pub fn is_complete(&self) -> bool {
        self.segments.last().is_none_or(|active| {
            let has_all = || self.snapshots.last() == Some(&self.end_offset) && active.is_sealed();
            !active.has_space_behind() && (has_all() || self.is_small())
        })
    }

    /// Completes all files for a clean stop, as far as that spares the next start more than it costs this one. Nothing is
    /// synced.
    pub fn complete(&mut self) -> Result<(), LogError> {
        if self.is_small() { self.trim() } else { self.settle() }
    }

    /// Whether all of it is read sooner than three files beside it would be opened: it has not come to an index entry.
    fn is_small(&self) -> bool {
        let [only] = &self.segments[..] else { return false };
        self.snapshots.is_empty() && only.is_unindexed()
    }

    /// Lets the active segment's file end with its last batch.
    fn trim(&mut self) -> Result<(), LogError> {
        if let Some(active) = self.segments.last().filter(|active| active.has_space_behind()) {
            active.trim()?;
            self.unsynced.files.push(Arc::clone(active.file()?));
        }
        Ok(())
    }

    /// Completes the active segment's files.
    fn settle(&mut self) -> Result<(), LogError> {
        self.trim()?;
        let Some(active) = self.segments.last() else { return Ok(()) };
        let sealed = active.seal()?;
        self.unsynced.files.extend(sealed);
        self.unsynced.names = true;
        self.take_snapshot()
    }

    /// Makes `offset` the first one, and returns the segments that are wholly below it, which are no part of the log from now
    /// on. The active segment always stays.
    pub fn advance_start(&mut self, offset: i64) -> Result<Vec<Arc<Segment>>, LogError> {
        let offset = self.start_offset.max(offset);
        if self.epochs.truncate_start(offset) {
            match self.write_epochs() {
                // The file is cut as it is read; and who makes space must not need any.
                Err(error @ LogError::NoSpace { .. }) => {
                    tracing::warn!(folder = %self.folder.display(), %error, "old leader epochs stay in their file");
                }
                written => written?,
            }
        }
        self.start_offset = offset;
        let gone = self.segments.windows(2).take_while(|pair| pair[1].base_offset() <= offset).count();
        Ok(self.segments.drain(..gone).collect())
    }

    /// Closes the active segment, which has batches, and begins a new one.
    pub fn roll(&mut self, config: &LogConfig, now_ms: TimestampMs) -> Result<(), LogError> {
        self.settle()?;
        self.begin_segment(config, now_ms)
    }

    /// Sees to it that there is a segment that can take `batch`; returns whether it is a new one.
    fn make_room(
        &mut self,
        batch: &ValidBatch,
        config: &LogConfig,
        now_ms: TimestampMs,
    ) -> Result<bool, LogError> {
        let Some(active) = self.segments.last().cloned() else {
            self.make_folder()?;
            self.begin_segment(config, now_ms)?;
            return Ok(true);
        };
        let size_bytes = active.size_bytes()?;
        if self.active.first_timestamp.is_none() && size_bytes > 0 {
            self.active.first_timestamp = active.first_timestamp()?;
        }
        let view = RollView {
            size_bytes,
            base_offset: active.base_offset(),
            first_timestamp: self.active.first_timestamp,
            created_ms: self.active.created_ms,
            jitter_ms: self.active.jitter_ms,
            indexes_full: active.indexes_full(config.segment_index_bytes)?,
        };
        let incoming = Incoming {
            size_bytes: batch.size_bytes() as u64,
            max_timestamp: batch.header().max_timestamp,
            last_offset: batch.header().last_offset(),
        };
        let Some(reason) = should_roll(&view, &incoming, config, now_ms) else { return Ok(false) };
        tracing::debug!(folder = %self.folder.display(), offset = self.end_offset, ?reason, "new segment");
        self.roll(config, now_ms)?;
        Ok(true)
    }

    fn begin_segment(&mut self, config: &LogConfig, now_ms: TimestampMs) -> Result<(), LogError> {
        let segment = Segment::create(&self.disk, &self.folder, self.end_offset)?;
        if config.preallocate
            && let Err(error) = segment.preallocate(config.segment_bytes.min(SEGMENT_BYTES_MAX))
        {
            // What is smaller may still fit into the segment before: an empty one must not lie in between.
            self.disk.remove(&segment.path()).map_err(|source| LogError::disk(&segment.path(), source))?;
            return Err(error);
        }
        self.segments.push(Arc::new(segment));
        self.active = Active::begin(now_ms, config);
        self.unsynced.names = true;
        Ok(())
    }

    fn make_folder(&mut self) -> Result<(), LogError> {
        if self.has_folder {
            return Ok(());
        }
        self.disk.create_dir_all(&self.folder).map_err(|source| LogError::disk(&self.folder, source))?;
        self.write_metadata()?;
        self.unsynced.folder = true;
        self.has_folder = true;
        Ok(())
    }

    /// Names the topic, if that has an id.
    pub(super) fn write_metadata(&mut self) -> Result<(), LogError> {
        match self.topic_id.is_zero() {
            true => Ok(()),
            false => {
                self.replace(METADATA_FILE, format!("version: 0\ntopic_id: {}", self.topic_id).as_bytes())
            }
        }
    }

    /// Writes down that an epoch begins. Its batches must not outlive that, or they would be taken for damaged ones; what the
    /// first epoch of all is, they tell themselves.
    fn announce_epoch(&mut self, leader_epoch: i32) -> Result<(), LogError> {
        self.write_epochs()?;
        if leader_epoch == 0 {
            return Ok(());
        }
        for file in self.unsynced.files.drain(..) {
            file.sync_data().map_err(|source| LogError::sync(&self.folder, source))?;
        }
        self.disk.sync_dir(&self.folder).map_err(|source| LogError::sync(&self.folder, source))
    }

    pub(super) fn write_epochs(&mut self) -> Result<(), LogError> {
        self.replace(EPOCHS_FILE, self.epochs.render().as_bytes())
    }

    fn replace(&mut self, name: &str, bytes: &[u8]) -> Result<(), LogError> {
        let path = self.folder.join(name);
        let file = replace_file(&*self.disk, &path, bytes, Durability::Later)
            .map_err(|source| LogError::disk(&path, source))?;
        self.unsynced.files.push(file);
        self.unsynced.names = true;
        Ok(())
    }
}
