//! A segment: the batches from one base offset on, in one `.log` file, and the indexes that lead into it.
//!
//! One writer (the [`super::log::Log`]) appends; readers share it and need no lock for what lies below the high watermark.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::LogError;
use super::config::LogConfig;
use super::epochs::LeaderEpochs;
use super::index::{Index, IndexEntry, OffsetEntry, TimeEntry};
use super::retention::Expiring;
use super::scan::{Damage, Ending, ScanError, Scanner, UNCHECKED, is_zero};
use crate::clock::TimestampMs;
use crate::record::batch::NO_TIMESTAMP;
use crate::record::range::{Cached, RangeFile, Reads};
use crate::record::records::{Stamp, stamps};
use crate::record::{BatchHeader, HEADER_BYTES, ValidBatch};
use crate::storage::{Disk, DiskFile, read_exact_at, write_all_at};

/// Bytes read at once when a lookup walks from an index entry to its batch: a little more than the usual index interval.
const LOOKUP_BUFFER_BYTES: usize = 8 << 10;

/// Bytes read at once when only headers are wanted: more would read payloads of larger batches for nothing.
const REPLAY_BUFFER_BYTES: usize = 32 << 10;

/// Bytes read at once when everything is checked.
const RESCAN_BUFFER_BYTES: usize = 256 << 10;

/// Largest `.log` file: index entries hold positions in 32 bits, of which Kafka's readers take 31.
pub const SEGMENT_BYTES_MAX: u64 = i32::MAX as u64;

/// From this size on, space is set aside behind the end: a quarter as much, up to [`RESERVED_BYTES_MAX`].
const RESERVED_FROM_BYTES: u64 = 4 << 20;

/// Most that is set aside behind the end.
const RESERVED_BYTES_MAX: u64 = 16 << 20;

const SIZE_UNKNOWN: u64 = u64::MAX;

const UNDAMAGED: u64 = u64::MAX;

/// The name of a segment's file.
pub fn file_name(base_offset: i64, suffix: &str) -> String {
    format!("{base_offset:020}.{suffix}")
}

/// One segment of a log.
#[derive(Debug)]
pub struct Segment {
    base_offset: i64,
    folder: Arc<Path>,
    disk: Arc<dyn Disk>,
    /// Opened at the first use. The disk may close what it stands for while nobody uses it.
    file: OnceLock<Arc<dyn DiskFile>>,
    size_bytes: AtomicU64,
    /// Whether the file was made longer for batches to come: zeros until then.
    preallocated: AtomicBool,
    /// Up to where space may be set aside for batches to come, which the file's length does not show. The writer's.
    reserved_to: AtomicU64,
    /// Where a reader last met damage, so that it is logged once.
    damaged_at: AtomicU64,
    /// Its file, from when on another segment has the names of its files.
    retired: OnceLock<Arc<dyn RangeFile>>,
    state: Mutex<Indexes>,
}

/// What leads into a segment and changes with an append; held for no longer than a lookup.
#[derive(Debug)]
pub struct Indexes {
    offsets: Index<OffsetEntry>,
    times: Index<TimeEntry>,
    /// The largest timestamp and the last offset of the first batch that has it; of an existing segment the newest time
    /// index entry until recovery has added the rest.
    newest: Option<TimeEntry>,
    bytes_since_entry: usize,
    /// Where the reader that was served last would go on: the position at which this offset lies, or what comes after it.
    reader: Option<(u64, i64)>,
}

/// Where [`Segment::rescan`] begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RescanStart {
    /// At the first batch; both indexes are made again.
    Beginning,
    /// At the batch of the last index entry, if that is sane: what lies before is trusted.
    LastIndexEntry,
}

/// What [`Segment::rescan`] found.
#[derive(Debug)]
pub struct Rescanned {
    /// One beyond the last offset; the base offset if there is no batch.
    pub end_offset: i64,
    /// Where the last whole batch ends.
    pub size_bytes: u64,
    /// How long the file is.
    pub length_bytes: u64,
    /// What is wrong at `size_bytes`, if the file does not end there. Where space is reserved, zeros up to the end of the file
    /// are nothing wrong.
    pub damage: Option<Damage>,
}

/// A record found by its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimestampOffset {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, ms since the epoch.
    pub timestamp: TimestampMs,
    /// The epoch in which it was written.
    pub leader_epoch: i32,
}

/// What of a segment may be read.
#[derive(Clone, Debug)]
pub struct Visible {
    /// Bytes (exclusive, between batches).
    pub end: u64,
    /// No batch below reaches this offset.
    pub offset_end: i64,
    /// Whether the last batch below `end` ends just below `offset_end`; else there may be a gap.
    pub is_full: bool,
    /// The leader epochs that batches must have.
    pub epochs: Arc<LeaderEpochs>,
}

/// Bytes that may be served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Served {
    /// First byte in the `.log` file: the start of a batch.
    pub position: u64,
    /// Length of the first batch.
    pub first_batch_bytes: u64,
    /// Where the bytes with sound headers end: at what was asked for, at the end of what is visible, or at a damaged batch.
    pub end: u64,
    /// Whether a damaged batch lies at `end`.
    pub stopped: bool,
}

impl Served {
    /// Whether there are `bytes` of them.
    fn has(&self, bytes: u64) -> bool {
        self.end - self.position >= bytes
    }
}

impl Segment {
    /// A new, empty segment; makes its `.log` file.
    pub fn create(disk: &Arc<dyn Disk>, folder: &Arc<Path>, base_offset: i64) -> Result<Self, LogError> {
        let path = folder.join(file_name(base_offset, "log"));
        let file = disk.create(&path).map_err(|source| LogError::disk(&path, source))?;
        let index = |suffix| folder.join(file_name(base_offset, suffix));
        let state = Indexes::new(index("index"), index("timeindex"), base_offset);
        Ok(Self {
            base_offset,
            folder: Arc::clone(folder),
            disk: Arc::clone(disk),
            file: OnceLock::from(file),
            size_bytes: AtomicU64::new(0),
            retired: OnceLock::new(),
            preallocated: AtomicBool::new(false),
            reserved_to: AtomicU64::new(0),
            damaged_at: AtomicU64::new(UNDAMAGED),
            state: Mutex::new(state),
        })
    }

    /// A segment whose files exist; none is opened before it is used.
    pub fn existing(disk: &Arc<dyn Disk>, folder: &Arc<Path>, base_offset: i64) -> Self {
        let index = |suffix| folder.join(file_name(base_offset, suffix));
        let state = Indexes {
            offsets: Index::existing(index("index"), base_offset),
            times: Index::existing(index("timeindex"), base_offset),
            newest: None,
            bytes_since_entry: 0,
            reader: None,
        };
        Self {
            base_offset,
            folder: Arc::clone(folder),
            disk: Arc::clone(disk),
            file: OnceLock::new(),
            size_bytes: AtomicU64::new(SIZE_UNKNOWN),
            retired: OnceLock::new(),
            preallocated: AtomicBool::new(false),
            reserved_to: AtomicU64::new(0),
            damaged_at: AtomicU64::new(UNDAMAGED),
            state: Mutex::new(state),
        }
    }

    /// Reserves the space of `length` bytes for an empty segment. If there is no space for it, none is taken.
    pub fn preallocate(&self, length: u64) -> Result<(), LogError> {
        let file = self.file()?;
        if let Err(source) = file.allocate(length) {
            file.set_len(0).map_err(|source| self.failed(source))?;
            return Err(self.failed(source));
        }
        self.preallocated.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether the file may have space behind its batches, or be longer than they are.
    pub fn has_space_behind(&self) -> bool {
        self.preallocated.load(Ordering::Acquire)
            || self.reserved_to.load(Ordering::Relaxed) > self.size_bytes.load(Ordering::Acquire)
    }

    /// Notes that a process that has died may have set space aside.
    pub fn suspect_space_behind(&self) -> Result<(), LogError> {
        if self.size_bytes()? >= RESERVED_FROM_BYTES {
            self.reserved_to.store(u64::MAX, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Cuts off what lies behind the last batch for later ones.
    pub fn trim(&self) -> Result<(), LogError> {
        if self.has_space_behind() {
            self.cut_rest()?;
        }
        Ok(())
    }

    /// Sees to it that there is space set aside for a batch, and more for those to come, if there are many.
    fn reserve(&self, file: &dyn DiskFile, (position, end): (u64, u64), config: &LogConfig) {
        let reserved_to = self.reserved_to.load(Ordering::Relaxed);
        if end < RESERVED_FROM_BYTES || (end <= reserved_to && reserved_to != u64::MAX) {
            return;
        }
        if self.preallocated.load(Ordering::Acquire) {
            return;
        }
        let reserved_to = (end + (end / 4).min(RESERVED_BYTES_MAX)).min(config.segment_bytes.max(end));
        self.reserved_to.store(reserved_to, Ordering::Relaxed);
        if let Err(error) = file.reserve(position, reserved_to - position) {
            // The append itself will find out whether that matters.
            tracing::debug!(path = %self.path().display(), %error, "no space set aside");
        }
    }

    /// The first offset that it can hold; its files are named after it.
    pub fn base_offset(&self) -> i64 {
        self.base_offset
    }

    /// The `.log` file's path.
    pub fn path(&self) -> PathBuf {
        self.folder.join(file_name(self.base_offset, "log"))
    }

    /// The `.log` file, opened if need be.
    pub fn file(&self) -> Result<&Arc<dyn DiskFile>, LogError> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        match self.disk.open(&self.path()) {
            // Who came first counts: since a segment has retired, another one's file may have this name, or none.
            Ok(opened) => Ok(self.file.get_or_init(|| opened)),
            Err(source) => self.file.get().ok_or_else(|| LogError::disk(&self.path(), source)),
        }
    }

    /// The `.log` file for ranges to point into: open for as long as somebody has it.
    pub fn pinned(&self) -> Result<Arc<dyn RangeFile>, LogError> {
        Arc::clone(self.file()?).pin().map_err(|source| self.failed(source))
    }

    /// Bytes of batches in the `.log` file.
    pub fn size_bytes(&self) -> Result<u64, LogError> {
        let known = || Some(self.size_bytes.load(Ordering::Acquire)).filter(|size| *size != SIZE_UNKNOWN);
        if let Some(size) = known() {
            return Ok(size);
        }
        // Asked of many at once: a file is not opened only for it. As there, who came first counts.
        match self.disk.status(&self.path()) {
            Ok(status) => {
                let (set, fetch) = (Ordering::AcqRel, Ordering::Acquire);
                let first = self.size_bytes.compare_exchange(SIZE_UNKNOWN, status.length, set, fetch);
                Ok(first.err().unwrap_or(status.length))
            }
            Err(source) => known().ok_or_else(|| self.failed(source)),
        }
    }

    /// Fills `buffer` with the bytes from `position` on, which have been written.
    pub fn read_raw(&self, buffer: &mut [u8], position: u64) -> Result<(), LogError> {
        read_exact_at(&**self.file()?, buffer, position).map_err(|source| self.failed(source))
    }

    /// Writes a batch behind the last one, in one write, and returns its position. Nothing is changed by a failure, except that
    /// bytes which are no part of the segment may lie behind its end.
    pub fn append(&self, batch: &ValidBatch, config: &LogConfig) -> Result<u64, LogError> {
        let position = self.size_bytes()?;
        let header: [u8; HEADER_BYTES] = batch.header_bytes();
        let mut parts = [IoSlice::new(&header), IoSlice::new(batch.payload())];
        let (file, end) = (&**self.file()?, position + batch.size_bytes() as u64);
        self.reserve(file, (position, end), config);
        write_all_at(file, &mut parts, position).map_err(|source| self.failed(source))?;
        self.size_bytes.store(end, Ordering::Release);
        let noted =
            self.state.lock().note(&*self.disk, batch.header(), position, config.index_interval_bytes);
        if let Err(error) = noted {
            // The batch is in the log. Its index entries stay in memory and are written with a later append, or made
            // again by recovery.
            tracing::warn!(path = %self.path().display(), %error, "index entries could not be written");
        }
        Ok(position)
    }

    /// The names of its files are about to become another segment's, or nobody's: who still reads it goes on by the file that is
    /// open, and without the indexes.
    pub fn retire(&self) -> Result<(), LogError> {
        self.size_bytes()?;
        let file = self.pinned()?;
        // Whoever looks into an index at this moment has found it by its name.
        let _state = self.state.lock();
        // Retired before is as good.
        let _ = self.retired.set(file);
        Ok(())
    }

    /// Cuts bytes off the file that lie behind the end: what a failed write has left, and reserved space.
    pub fn cut_rest(&self) -> Result<(), LogError> {
        let size = self.size_bytes()?;
        self.file()?.set_len(size).map_err(|source| LogError::disk(&self.path(), source))?;
        self.preallocated.store(false, Ordering::Release);
        self.reserved_to.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// The bytes from the batch that holds `offset` on (or the next one if compaction has removed it), about `max_bytes` of
    /// them. `None` if all that is visible is older. Every header in them has been looked at, and fits its neighbours: the
    /// checksum, which is the reader's to compare, does not cover offsets and leader epochs. An error where the very batch is
    /// damaged that the reader would begin with, and where `reads` would have to wait but must not.
    pub fn serve(
        &self,
        offset: i64,
        visible: &Visible,
        max_bytes: u64,
        reads: Reads,
    ) -> Result<Option<Served>, LogError> {
        if reads == Reads::Cached && self.file.get().is_none() {
            return Err(self.failed(io::ErrorKind::WouldBlock.into()));
        }
        let cached = Cached(&**self.file()?);
        let file = reads.through(&cached);
        let start = self.start_of(offset, visible.end, reads)?;
        let ending = if visible.is_full { Ending::Full } else { Ending::Open };
        let mut scanner = Scanner::new(file, self.base_offset, start, visible.end, LOOKUP_BUFFER_BYTES)
            .ending(ending, visible.offset_end)
            .checking_epochs(Arc::clone(&visible.epochs));
        let mut served: Option<Served> = None;
        let mut last: Option<(u64, BatchHeader)> = None;
        let mut goes_on = None;
        let damage = loop {
            match scanner.next(UNCHECKED) {
                // One more than was asked for: only a sound header behind a batch says that its length is right.
                Ok(Some(_)) if served.is_some_and(|served| served.has(max_bytes)) => break None,
                Ok(Some((position, header))) => {
                    last = Some((position, header));
                    if served.is_some() || header.last_offset() >= offset {
                        let first_batch_bytes = header.size_bytes() as u64;
                        let first = Served { position, first_batch_bytes, end: 0, stopped: false };
                        let served = served.get_or_insert(first);
                        served.end = scanner.position();
                        // A batch that is cut is asked for again; the first one never is.
                        if position == served.position || served.end - served.position <= max_bytes {
                            goes_on = Some((served.end, header.last_offset() + 1));
                        }
                    }
                }
                Ok(None) => break None,
                Err(ScanError::Damaged { position, damage }) => break Some((position, damage)),
                Err(ScanError::Io(source)) => return Err(self.failed(source)),
            }
        };
        let Some((mut position, damage)) = damage else {
            self.state.lock().reader = goes_on;
            return Ok(served);
        };
        if let Some((before, header)) = last
            && !scanner.is_whole(before, &header).map_err(|source| self.failed(source))?
        {
            position = before;
        }
        let error = self.damaged(position, damage);
        if self.damaged_at.swap(position, Ordering::Relaxed) != position {
            tracing::error!(%error, "damaged at rest: not served");
        }
        match served {
            Some(served) if served.position < position => {
                Ok(Some(Served { end: position, stopped: true, ..served }))
            }
            _ => Err(error),
        }
    }

    /// The first record at or after `timestamp` among those with offsets from `offset_min` (inclusive) to `offset_end`
    /// (exclusive); reads batches below `end` (bytes), decompressed to at most `max_decompressed_bytes` each.
    pub fn find_timestamp(
        &self,
        timestamp: TimestampMs,
        (offset_min, offset_end): (i64, i64),
        end: u64,
        max_decompressed_bytes: usize,
    ) -> Result<Option<TimestampOffset>, LogError> {
        let reached = self.with_state(|state, disk| match self.retired.get() {
            Some(_) => Ok(None),
            None => state.times.floor(disk, timestamp, Reads::All),
        })?;
        let from = reached.map_or(offset_min, |entry| entry.offset.max(offset_min));
        let wanted = |header: &BatchHeader| {
            header.base_offset >= offset_end
                || header.last_offset() >= offset_min && header.max_timestamp >= timestamp
        };
        let mut entry = self.entry_below(from, end, Reads::All)?;
        while let Some((position, header)) = self.walk(entry, end, wanted)? {
            if header.base_offset >= offset_end {
                return Ok(None);
            }
            let found = self.find_in_batch(position, &header, max_decompressed_bytes, |stamp| {
                stamp.timestamp >= timestamp && (offset_min..offset_end).contains(&stamp.offset)
            })?;
            if found.is_some() {
                return Ok(found);
            }
            // Only records below `offset_min` have the time that the header names.
            let Ok(position) = u32::try_from(position + header.size_bytes() as u64) else { return Ok(None) };
            entry = Some(OffsetEntry { offset: header.last_offset(), position });
        }
        Ok(None)
    }

    /// The largest timestamp in the segment and the last offset of the first batch that has it; `None` without timestamps.
    pub fn newest(&self) -> Result<Option<TimeEntry>, LogError> {
        let indexed = self.with_state(|state, disk| match state.newest {
            Some(newest) => Ok(Some(newest)),
            None => state.times.last(disk),
        })?;
        if indexed.is_some() || !self.is_unindexed() {
            return Ok(indexed);
        }
        // Of a small log a clean stop writes no indexes.
        let mut newest: Option<TimeEntry> = None;
        let walked = self.replay(self.base_offset, |header| {
            if header.max_timestamp > newest.map_or(NO_TIMESTAMP, |newest| newest.timestamp) {
                newest = Some(TimeEntry { timestamp: header.max_timestamp, offset: header.last_offset() });
            }
        });
        match walked {
            // Who reads it will find the damage.
            Ok(()) | Err(LogError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
        let mut state = self.state.lock();
        Ok(newest.map(|newest| *state.newest.get_or_insert(newest)))
    }

    /// The largest timestamp of the segment's first batch; `None` if it is empty.
    pub fn first_timestamp(&self) -> Result<Option<TimestampMs>, LogError> {
        let first = self.walk(None, self.size_bytes()?, |_| true)?;
        Ok(first.map(|(_, header)| header.max_timestamp))
    }

    /// Whether it has neither index entries nor index files; not, if that cannot be told. Kafka makes files that are missing, but
    /// goes by one that is there and lacks entries.
    pub fn is_unindexed(&self) -> bool {
        self.with_state(|state, disk| Ok(state.offsets.is_absent(disk)? && state.times.is_absent(disk)?))
            .is_ok_and(|absent| absent)
    }

    /// Whether an index has taken all entries that its file may have.
    pub fn indexes_full(&self, segment_index_bytes: usize) -> Result<bool, LogError> {
        self.with_state(|state, disk| {
            let offsets_max = segment_index_bytes / OffsetEntry::BYTES;
            // One place is kept for the entry that closes the segment.
            let times_max = (segment_index_bytes / TimeEntry::BYTES).saturating_sub(1);
            Ok(state.offsets.len(disk)? >= offsets_max || state.times.len(disk)? >= times_max)
        })
    }

    /// Completes the index files, when the last batch has been appended (for now or for ever); returns them for syncing.
    pub fn seal(&self) -> Result<[Arc<dyn DiskFile>; 2], LogError> {
        self.with_state(Indexes::seal)
    }

    /// Whether all index entries are in the files.
    pub fn is_sealed(&self) -> bool {
        let state = self.state.lock();
        let times = state.newest.is_none_or(|newest| state.times.is_written_to(newest.timestamp));
        !state.offsets.has_pending() && !state.times.has_pending() && times
    }

    /// Walks over the batches from `start` on, adds the missing index entries, and stops at the first damage, which then is
    /// the segment's end. Headers are always checked for plausibility; checksums from the batch that holds
    /// `check_from_offset` on. `ending` is what is known of its end, and an offset that no batch reaches.
    pub fn rescan(
        &self,
        start: RescanStart,
        check_from_offset: i64,
        ending: (Ending, i64),
        config: &LogConfig,
        mut on_batch: impl FnMut(&BatchHeader),
    ) -> Result<Rescanned, LogError> {
        let length = self.file()?.length().map_err(|source| self.failed(source))?;
        let rescan = |until: u64, on_batch: &mut dyn FnMut(&BatchHeader)| {
            let found = self.rescan_until(until, start, check_from_offset, ending, config, on_batch)?;
            let found_none = found.0.end_offset == self.base_offset && found.0.size_bytes > 0;
            match found_none {
                // The batch of the last index entry is the damaged one: where the one before it ends, the walk to it tells.
                true => {
                    let until = if found.0.damage.is_some() { until } else { found.0.size_bytes };
                    let start = RescanStart::Beginning;
                    self.rescan_until(until, start, check_from_offset, ending, config, on_batch)
                }
                false => Ok(found),
            }
        };
        let (rescanned, wrong_length) = rescan(length, &mut on_batch)?;
        // Damage right where it began in the middle: what lies before was not seen, nor where that ends.
        let unseen = rescanned.damage.is_some() && rescanned.end_offset == self.base_offset;
        let unseen = (unseen && rescanned.size_bytes > 0).then_some(rescanned.size_bytes);
        let wrong_length = wrong_length.or(unseen);
        let rescanned = match (wrong_length, rescanned.damage) {
            // Once more, up to the batch that led astray.
            (Some(position), damage) => Rescanned { damage, ..rescan(position, &mut on_batch)?.0 },
            (None, damage) => Rescanned { damage, ..rescanned },
        };
        self.size_bytes.store(rescanned.size_bytes, Ordering::Release);
        Ok(Rescanned { length_bytes: length, ..rescanned })
    }

    /// The same up to `length`; also gives the position of a batch whose checksum was not compared and is wrong, if damage
    /// follows it: then that is where the damage is.
    fn rescan_until(
        &self,
        length: u64,
        start: RescanStart,
        check_from_offset: i64,
        ending: (Ending, i64),
        config: &LogConfig,
        on_batch: &mut dyn FnMut(&BatchHeader),
    ) -> Result<(Rescanned, Option<u64>), LogError> {
        let file = &**self.file()?;
        let from = match start {
            RescanStart::Beginning => None,
            RescanStart::LastIndexEntry => {
                let last = self.with_state(|state, disk| state.offsets.last(disk))?;
                // Where the log is continued from one entry, that has to be right to the offset.
                let is_right = |header: &BatchHeader, offset| header.last_offset() == offset;
                self.if_sane(last, length, file, is_right)?
            }
        };
        self.with_state(|state, disk| state.rewind(disk, from))?;
        let position = from.map_or(0, |entry| u64::from(entry.position));
        let start = (position, self.base_offset);
        let mut scanner = Scanner::new(file, self.base_offset, start, length, RESCAN_BUFFER_BYTES)
            .ending(ending.0, ending.1);
        let mut rescanned = Rescanned {
            end_offset: self.base_offset,
            size_bytes: position,
            length_bytes: length,
            damage: None,
        };
        let mut last = None;
        loop {
            let (position, header) = match scanner.next(check_from_offset) {
                Ok(Some(found)) => found,
                Ok(None) => return Ok((rescanned, None)),
                Err(ScanError::Damaged { damage, .. }) => {
                    // Elsewhere zeros are what the death of a machine has left of a batch.
                    // Of a batch that was torn in its first bytes, which are zeros, no more was lost than of one that left none.
                    let left = (rescanned.size_bytes, length);
                    let reserved = config.preallocate
                        && is_zero(&**self.file()?, left).map_err(|source| self.failed(source))?;
                    rescanned.damage = Some(damage).filter(|_| !reserved);
                    break;
                }
                Err(ScanError::Io(source)) => return Err(self.failed(source)),
            };
            self.with_state(|state, disk| state.note(disk, &header, position, config.index_interval_bytes))?;
            on_batch(&header);
            rescanned.end_offset = header.last_offset() + 1;
            rescanned.size_bytes = position + header.size_bytes() as u64;
            last = Some((position, header)).filter(|(_, header)| header.last_offset() < check_from_offset);
        }
        let wrong_length = match last.filter(|_| rescanned.damage.is_some()) {
            Some((position, header))
                if !scanner.is_whole(position, &header).map_err(|source| self.failed(source))? =>
            {
                Some(position)
            }
            _ => None,
        };
        Ok((rescanned, wrong_length))
    }

    /// Shows `on_batch` the headers of all batches that hold `offset_min` or more.
    pub fn replay(&self, offset_min: i64, mut on_batch: impl FnMut(&BatchHeader)) -> Result<(), LogError> {
        let end = self.size_bytes()?;
        let position =
            self.entry_below(offset_min, end, Reads::All)?.map_or(0, |entry| u64::from(entry.position));
        let file = &**self.file()?;
        let mut scanner =
            Scanner::new(file, self.base_offset, (position, self.base_offset), end, REPLAY_BUFFER_BYTES);
        while let Some((_, header)) = scanner.next(UNCHECKED).map_err(|error| self.scan_failed(error))? {
            if header.last_offset() >= offset_min {
                on_batch(&header);
            }
        }
        Ok(())
    }

    /// Where to walk to `offset` from, and an offset that nothing is below from there on.
    fn start_of(&self, offset: i64, end: u64, reads: Reads) -> Result<(u64, i64), LogError> {
        let reader = self.state.lock().reader;
        match reader.filter(|(position, next)| *next == offset && *position <= end) {
            Some(reader) => Ok(reader),
            None => {
                let entry = self.entry_below(offset, end, reads)?;
                Ok((entry.map_or(0, |entry| u64::from(entry.position)), self.base_offset))
            }
        }
    }

    /// The index entry from which to walk to `offset`. An index that leads astray is no reason to fail: the log is the
    /// truth, and is walked from its beginning then.
    fn entry_below(&self, offset: i64, end: u64, reads: Reads) -> Result<Option<OffsetEntry>, LogError> {
        let entry = self.with_state(|state, disk| match self.retired.get() {
            Some(_) => Ok(None),
            None => state.offsets.floor(disk, offset, reads),
        })?;
        let cached = Cached(&**self.file()?);
        self.if_sane(entry, end, reads.through(&cached), |header, offset| header.base_offset <= offset)
    }

    /// `entry` if a batch starts where it leads that is right for the offset that it names.
    fn if_sane(
        &self,
        entry: Option<OffsetEntry>,
        end: u64,
        file: &dyn RangeFile,
        is_right: impl Fn(&BatchHeader, i64) -> bool,
    ) -> Result<Option<OffsetEntry>, LogError> {
        let Some(OffsetEntry { offset, position }) = entry else { return Ok(None) };
        let start = (u64::from(position), self.base_offset);
        match Scanner::new(file, self.base_offset, start, end, HEADER_BYTES).next(UNCHECKED) {
            Ok(Some((_, header))) if is_right(&header, offset) => Ok(entry),
            Ok(_) | Err(ScanError::Damaged { .. }) => {
                let path = self.path();
                tracing::warn!(path = %path.display(), offset, position, "index entry leads to no batch");
                Ok(None)
            }
            Err(ScanError::Io(source)) => Err(self.failed(source)),
        }
    }

    /// The first batch from `entry` (or the beginning) on that is `wanted`.
    fn walk(
        &self,
        entry: Option<OffsetEntry>,
        end: u64,
        wanted: impl Fn(&BatchHeader) -> bool,
    ) -> Result<Option<(u64, BatchHeader)>, LogError> {
        let start = (entry.map_or(0, |entry| u64::from(entry.position)), self.base_offset);
        let file = &**self.file()?;
        let mut scanner = Scanner::new(file, self.base_offset, start, end, LOOKUP_BUFFER_BYTES);
        loop {
            match scanner.next(UNCHECKED) {
                Ok(Some((position, header))) if wanted(&header) => return Ok(Some((position, header))),
                Ok(Some(_)) => {}
                Ok(None) => return Ok(None),
                Err(error) => return Err(self.scan_failed(error)),
            }
        }
    }

    /// The first record of the batch at `position` that is `wanted`.
    fn find_in_batch(
        &self,
        position: u64,
        header: &BatchHeader,
        max_decompressed_bytes: usize,
        wanted: impl Fn(&Stamp) -> bool,
    ) -> Result<Option<TimestampOffset>, LogError> {
        // The walk has seen that the file holds the whole batch, which bounds what is allocated.
        let mut payload = vec![0; header.size_bytes() - HEADER_BYTES];
        read_exact_at(&**self.file()?, &mut payload, position + HEADER_BYTES as u64)
            .map_err(|source| self.failed(source))?;
        let damaged = |invalid| self.damaged(position, Damage::Records(invalid));
        for stamp in stamps(header, &payload, max_decompressed_bytes).map_err(damaged)? {
            let stamp = stamp.map_err(damaged)?;
            if wanted(&stamp) {
                return Ok(Some(TimestampOffset {
                    offset: stamp.offset,
                    timestamp: stamp.timestamp,
                    leader_epoch: header.partition_leader_epoch,
                }));
            }
        }
        Ok(None)
    }

    fn with_state<T>(
        &self,
        act: impl FnOnce(&mut Indexes, &dyn Disk) -> io::Result<T>,
    ) -> Result<T, LogError> {
        act(&mut self.state.lock(), &*self.disk).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> LogError {
        LogError::disk(&self.path(), source)
    }

    fn damaged(&self, position: u64, damage: Damage) -> LogError {
        LogError::Damaged { path: self.path(), position, damage }
    }

    fn scan_failed(&self, error: ScanError) -> LogError {
        match error {
            ScanError::Io(source) => self.failed(source),
            ScanError::Damaged { position, damage } => self.damaged(position, damage),
        }
    }
}

impl Expiring for Segment {
    fn base_offset(&self) -> i64 {
        self.base_offset
    }

    fn size_bytes(&self) -> Result<u64, LogError> {
        self.size_bytes()
    }

    fn newest_ms(&self) -> Result<TimestampMs, LogError> {
        match self.newest()?.filter(|newest| newest.timestamp >= 0) {
            Some(newest) => Ok(newest.timestamp),
            None => Ok(self.disk.status(&self.path()).map_err(|source| self.failed(source))?.modified_ms),
        }
    }
}

impl Indexes {
    /// Those of a new segment, in these files.
    pub fn new(offsets: PathBuf, times: PathBuf, base_offset: i64) -> Self {
        Self {
            offsets: Index::new(offsets, base_offset),
            times: Index::new(times, base_offset),
            newest: None,
            bytes_since_entry: 0,
            reader: None,
        }
    }

    /// Writes what is only in memory, when the last batch has been taken in; the files, for syncing.
    pub fn seal(&mut self, disk: &dyn Disk) -> io::Result<[Arc<dyn DiskFile>; 2]> {
        if let Some(newest) = self.newest {
            self.times.push(disk, newest)?;
        }
        Ok([self.offsets.seal(disk)?, self.times.seal(disk)?])
    }

    /// Takes in a batch that lies at `position`. An index entry is due when more than `interval_bytes` lie behind the last.
    pub fn note(
        &mut self,
        disk: &dyn Disk,
        header: &BatchHeader,
        position: u64,
        interval_bytes: usize,
    ) -> io::Result<()> {
        if header.max_timestamp > self.newest.map_or(NO_TIMESTAMP, |newest| newest.timestamp) {
            self.newest = Some(TimeEntry { timestamp: header.max_timestamp, offset: header.last_offset() });
        }
        if self.bytes_since_entry > interval_bytes {
            let position = u32::try_from(position).expect("a segment is cut or rolled below 2 GiB");
            self.offsets.push(disk, OffsetEntry { offset: header.last_offset(), position })?;
            if let Some(newest) = self.newest {
                self.times.push(disk, newest)?;
            }
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += header.size_bytes();
        if self.offsets.is_due() { self.write_indexes(disk) } else { Ok(()) }
    }

    /// Times first: a crash in between leaves a time too many, which recovery recognizes, never one too few.
    fn write_indexes(&mut self, disk: &dyn Disk) -> io::Result<()> {
        self.times.write(disk)?;
        self.offsets.write(disk)
    }

    /// Back to what was known before the batch at `entry`; everything is forgotten without one.
    fn rewind(&mut self, disk: &dyn Disk, entry: Option<OffsetEntry>) -> io::Result<()> {
        self.bytes_since_entry = 0;
        let Some(entry) = entry else {
            self.newest = None;
            self.offsets.truncate(disk, 0)?;
            return self.times.truncate(disk, 0);
        };
        while self.times.last(disk)?.is_some_and(|last| last.offset > entry.offset) {
            let count = self.times.len(disk)?;
            self.times.truncate(disk, count - 1)?;
        }
        self.newest = self.times.last(disk)?;
        Ok(())
    }
}
