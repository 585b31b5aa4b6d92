//! A segment: the batches from one base offset on, in one `.log` file, and the indexes that lead into it.
//!
//! One writer (the [`super::log::Log`]) appends; readers share it and need no lock for what lies below the high watermark.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::LogError;
use super::config::LogConfig;
use super::index::{Index, IndexEntry, OffsetEntry, TimeEntry};
use super::scan::{Damage, ScanError, Scanner, UNCHECKED};
use crate::clock::TimestampMs;
use crate::record::batch::NO_TIMESTAMP;
use crate::record::range::RangeFile;
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

const SIZE_UNKNOWN: u64 = u64::MAX;

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
    /// Opened at the first use. The one place where a limit on open files will act.
    file: OnceLock<Arc<dyn DiskFile>>,
    size_bytes: AtomicU64,
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
    /// What is wrong at `size_bytes`, if the file does not end there.
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

/// Where a batch lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Located {
    /// First byte in the `.log` file.
    pub position: u64,
    /// Length of the batch.
    pub size_bytes: usize,
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
        };
        Self {
            base_offset,
            folder: Arc::clone(folder),
            disk: Arc::clone(disk),
            file: OnceLock::new(),
            size_bytes: AtomicU64::new(SIZE_UNKNOWN),
            retired: OnceLock::new(),
            state: Mutex::new(state),
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
        let opened = self.disk.open(&self.path()).map_err(|source| LogError::disk(&self.path(), source))?;
        Ok(self.file.get_or_init(|| opened))
    }

    /// Bytes of batches in the `.log` file.
    pub fn size_bytes(&self) -> Result<u64, LogError> {
        match self.size_bytes.load(Ordering::Acquire) {
            SIZE_UNKNOWN => {
                let size = self.file()?.length().map_err(|source| LogError::disk(&self.path(), source))?;
                self.size_bytes.store(size, Ordering::Release);
                Ok(size)
            }
            size => Ok(size),
        }
    }

    /// Writes a batch behind the last one, in one write, and returns its position. Nothing is changed by a failure, except that
    /// bytes which are no part of the segment may lie behind its end.
    pub fn append(&self, batch: &ValidBatch, config: &LogConfig) -> Result<u64, LogError> {
        let position = self.size_bytes()?;
        let header: [u8; HEADER_BYTES] = batch.header_bytes();
        let mut parts = [IoSlice::new(&header), IoSlice::new(batch.payload())];
        write_all_at(&**self.file()?, &mut parts, position)
            .map_err(|source| LogError::disk(&self.path(), source))?;
        self.size_bytes.store(position + batch.size_bytes() as u64, Ordering::Release);
        let noted =
            self.state.lock().note(&*self.disk, batch.header(), position, config.index_interval_bytes);
        if let Err(error) = noted {
            // The batch is in the log. Its index entries stay in memory and are written with a later append, or made
            // again by recovery.
            tracing::warn!(path = %self.path().display(), %error, "index entries could not be written");
        }
        Ok(position)
    }

    /// The names of its files are about to become another segment's: who still reads it goes on by the file that is open, and
    /// without the indexes.
    pub fn retire(&self) -> Result<(), LogError> {
        let file = Arc::clone(self.file()?);
        // Whoever looks into an index at this moment has found it by its name.
        let _state = self.state.lock();
        // Retired before is as good.
        let _ = self.retired.set(file);
        Ok(())
    }

    /// Cuts bytes off the file that a failed write has left behind the end.
    pub fn cut_rest(&self) -> Result<(), LogError> {
        let size = self.size_bytes()?;
        self.file()?.set_len(size).map_err(|source| LogError::disk(&self.path(), source))
    }

    /// Where the batch lies that holds `offset`, or the next one if compaction has removed it; looks no further than `end`
    /// (bytes, exclusive, between batches). `None` if all below `end` is older.
    pub fn locate(&self, offset: i64, end: u64) -> Result<Option<Located>, LogError> {
        let wanted = |header: &BatchHeader| header.last_offset() >= offset;
        let found = self.walk(self.entry_below(offset, end)?, end, wanted)?;
        Ok(found.map(|(position, header)| Located { position, size_bytes: header.size_bytes() }))
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
            None => state.times.floor(disk, timestamp),
        })?;
        let from = reached.map_or(offset_min, |entry| entry.offset.max(offset_min));
        let wanted = |header: &BatchHeader| {
            header.base_offset >= offset_end
                || header.last_offset() >= offset_min && header.max_timestamp >= timestamp
        };
        let mut entry = self.entry_below(from, end)?;
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
        self.with_state(|state, disk| match state.newest {
            Some(newest) => Ok(Some(newest)),
            None => state.times.last(disk),
        })
    }

    /// The largest timestamp of the segment's first batch; `None` if it is empty.
    pub fn first_timestamp(&self) -> Result<Option<TimestampMs>, LogError> {
        let first = self.walk(None, self.size_bytes()?, |_| true)?;
        Ok(first.map(|(_, header)| header.max_timestamp))
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

    /// Walks over the batches from `start` on, adds the missing index entries, and stops at the first damage, which then is
    /// the segment's end. Headers are always checked for plausibility; checksums from the batch that holds
    /// `check_from_offset` on.
    pub fn rescan(
        &self,
        start: RescanStart,
        check_from_offset: i64,
        config: &LogConfig,
        mut on_batch: impl FnMut(&BatchHeader),
    ) -> Result<Rescanned, LogError> {
        let file = &**self.file()?;
        let length = file.length().map_err(|source| self.failed(source))?;
        let from = match start {
            RescanStart::Beginning => None,
            RescanStart::LastIndexEntry => {
                let last = self.with_state(|state, disk| state.offsets.last(disk))?;
                self.if_sane(last, length)?
            }
        };
        self.with_state(|state, disk| state.rewind(disk, from))?;
        let position = from.map_or(0, |entry| u64::from(entry.position));
        let mut scanner =
            Scanner::new(file, self.base_offset, (position, self.base_offset), length, RESCAN_BUFFER_BYTES);
        let mut rescanned = Rescanned {
            end_offset: self.base_offset,
            size_bytes: position,
            length_bytes: length,
            damage: None,
        };
        loop {
            let (position, header) = match scanner.next(check_from_offset) {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(ScanError::Damaged { damage, .. }) => {
                    rescanned.damage = Some(damage);
                    break;
                }
                Err(ScanError::Io(source)) => return Err(self.failed(source)),
            };
            self.with_state(|state, disk| state.note(disk, &header, position, config.index_interval_bytes))?;
            on_batch(&header);
            rescanned.end_offset = header.last_offset() + 1;
            rescanned.size_bytes = position + header.size_bytes() as u64;
        }
        self.size_bytes.store(rescanned.size_bytes, Ordering::Release);
        Ok(rescanned)
    }

    /// Shows `on_batch` the headers of all batches that hold `offset_min` or more.
    pub fn replay(&self, offset_min: i64, mut on_batch: impl FnMut(&BatchHeader)) -> Result<(), LogError> {
        let end = self.size_bytes()?;
        let position = self.entry_below(offset_min, end)?.map_or(0, |entry| u64::from(entry.position));
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

    /// The index entry from which to walk to `offset`. An index that leads astray is no reason to fail: the log is the
    /// truth, and is walked from its beginning then.
    fn entry_below(&self, offset: i64, end: u64) -> Result<Option<OffsetEntry>, LogError> {
        let entry = self.with_state(|state, disk| match self.retired.get() {
            Some(_) => Ok(None),
            None => state.offsets.floor(disk, offset),
        })?;
        self.if_sane(entry, end)
    }

    /// `entry` if a batch starts where it leads, and not behind the offset that it names.
    fn if_sane(&self, entry: Option<OffsetEntry>, end: u64) -> Result<Option<OffsetEntry>, LogError> {
        let Some(OffsetEntry { offset, position }) = entry else { return Ok(None) };
        let start = (u64::from(position), self.base_offset);
        let file = &**self.file()?;
        match Scanner::new(file, self.base_offset, start, end, HEADER_BYTES).next(UNCHECKED) {
            Ok(Some((_, header))) if header.base_offset <= offset => Ok(entry),
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

impl Indexes {
    /// Those of a new segment, in these files.
    pub fn new(offsets: PathBuf, times: PathBuf, base_offset: i64) -> Self {
        Self {
            offsets: Index::new(offsets, base_offset),
            times: Index::new(times, base_offset),
            newest: None,
            bytes_since_entry: 0,
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
