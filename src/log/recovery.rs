//! Opening a log: what is in its folder, how much of that can be trusted, and what must be cut off.
//!
//! After a clean stop everything is trusted. After the death of the process alone the page cache has survived, and only what
//! lies behind the last index entry can be torn. After the death of the machine everything from the recovery point on is read
//! and compared with its checksums. The first batch that is damaged ends the log.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::LogError;
use super::checkpoint;
use super::config::LogConfig;
use super::epochs::LeaderEpochs;
use super::log::{Active, EPOCHS_FILE, Log, METADATA_FILE, Unsynced};
use super::producers::{Producers, SNAPSHOT_LIMIT_BYTES};
use super::scan::{Damage, UNCHECKED};
use super::segment::{RescanStart, Rescanned, Segment, file_name};
use super::view::Place;
use crate::clock::TimestampMs;
use crate::storage::{Disk, read_file};
use crate::uuid::Uuid;

/// What the last stop has left whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust {
    /// All: it was a clean stop.
    Everything,
    /// All that was written: the process died, the machine did not.
    PageCache,
    /// What lies below the recovery point: the machine died.
    Synced,
}

/// What is to be opened, and how.
#[derive(Debug)]
pub struct OpenRequest<'a> {
    pub disk: &'a Arc<dyn Disk>,
    pub folder: Arc<Path>,
    pub topic: &'a str,
    pub topic_id: Uuid,
    pub index: i32,
    pub trust: Trust,
    /// Everything below it was synced.
    pub recovery_point: i64,
    /// Log start offset of the checkpoint, 0 without one.
    pub log_start: i64,
    pub config: &'a LogConfig,
    pub producers_max: usize,
    pub now_ms: TimestampMs,
}

/// An open log.
#[derive(Debug)]
pub struct Opened {
    pub log: Log,
    /// How far it is known to be on disk; `None` is all of it.
    pub synced: Option<Place>,
    pub cut: Option<Cut>,
}

/// What recovery has cut off a log.
#[derive(Debug)]
pub struct Cut {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The log's end now: this offset will be assigned anew.
    pub offset: i64,
    /// The file that was cut.
    pub path: PathBuf,
    /// Where it was cut, bytes.
    pub position: u64,
    /// Bytes that were cut off it.
    pub bytes: u64,
    /// Later segments, which were removed.
    pub segments_removed: usize,
    /// What was found there.
    pub reason: Damage,
}

impl Cut {
    /// Logs what was cut.
    pub(super) fn warn(&self) {
        tracing::warn!(
            topic = %self.topic,
            partition = self.partition,
            offset = self.offset,
            path = %self.path.display(),
            position = self.position,
            bytes = self.bytes,
            segments_removed = self.segments_removed,
            reason = %self.reason,
            "the log was cut at a damaged batch"
        );
    }
}

/// The files of a partition's folder, by kind.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Listing {
    /// Base offsets, ascending.
    segments: Vec<i64>,
    /// Base offsets that have both indexes, ascending.
    indexed: Vec<i64>,
    /// Offsets, ascending.
    snapshots: Vec<i64>,
    /// What an interrupted deletion, replacement or cut has left.
    leftovers: Vec<String>,
}

impl Listing {
    fn of(names: impl Iterator<Item = String>) -> Self {
        let mut listing = Self::default();
        let (mut offset_indexes, mut others) = (Vec::new(), Vec::new());
        for name in names {
            match parse_file_name(&name) {
                Some((offset, "log")) => listing.segments.push(offset),
                Some((offset, "snapshot")) => listing.snapshots.push(offset),
                Some((offset, suffix @ ("index" | "timeindex" | "txnindex"))) => {
                    if suffix == "index" {
                        offset_indexes.push(offset);
                    }
                    others.push((offset, suffix == "timeindex", name));
                }
                _ if name.ends_with(".deleted") || name.ends_with(".tmp") => listing.leftovers.push(name),
                _ => {}
            }
        }
        listing.segments.sort_unstable();
        listing.snapshots.sort_unstable();
        for (offset, is_time, name) in others {
            if listing.segments.binary_search(&offset).is_err() {
                listing.leftovers.push(name);
            } else if is_time && offset_indexes.contains(&offset) {
                listing.indexed.push(offset);
            }
        }
        listing.indexed.sort_unstable();
        listing
    }
}

/// `00000000000000000170.log` → 170 and `log`.
fn parse_file_name(name: &str) -> Option<(i64, &str)> {
    let (digits, suffix) = name.split_once('.')?;
    let all_digits = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    Some((digits.parse().ok().filter(|_| all_digits)?, suffix))
}

/// Which of the segments are read again, from which on, by their place in `bases` (ascending).
fn first_to_rescan(bases: &[i64], trust: Trust, recovery_point: i64) -> usize {
    let last = bases.len().saturating_sub(1);
    match trust {
        Trust::Everything | Trust::PageCache => last,
        Trust::Synced => bases.partition_point(|base| *base <= recovery_point).saturating_sub(1).min(last),
    }
}

/// Where the rescan of a segment begins, and from which offset on checksums are compared.
fn rescan_plan(trust: Trust, recovery_point: i64) -> (RescanStart, i64) {
    match trust {
        Trust::Everything => (RescanStart::LastIndexEntry, UNCHECKED),
        Trust::PageCache => (RescanStart::LastIndexEntry, 0),
        Trust::Synced => (RescanStart::Beginning, recovery_point),
    }
}

/// The topic id that the folder was made for, if it says so.
pub fn topic_id_of(disk: &dyn Disk, folder: &Path) -> Result<Option<Uuid>, LogError> {
    let path = folder.join(METADATA_FILE);
    let bytes = match read_file(disk, &path, 4096) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LogError::disk(&path, error)),
    };
    let text = String::from_utf8_lossy(&bytes);
    let id =
        text.lines().find_map(|line| line.strip_prefix("topic_id:")).and_then(|id| id.trim().parse().ok());
    if id.is_none() {
        tracing::warn!(path = %path.display(), "names no topic id, taken as the topic's own");
    }
    Ok(id)
}

/// Opens a log. A folder that does not exist is an empty log.
pub fn open(request: &OpenRequest<'_>) -> Result<Opened, LogError> {
    let entries = match request.disk.list(&request.folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(request.empty(false)),
        Err(error) => return Err(LogError::disk(&request.folder, error)),
    };
    let listing = Listing::of(entries.into_iter().filter(|entry| !entry.is_dir).map(|entry| entry.name));
    for name in &listing.leftovers {
        request.remove(name)?;
    }
    if listing.segments.is_empty() {
        return Ok(request.empty(true));
    }
    request.open(listing)
}

impl OpenRequest<'_> {
    fn empty(&self, has_folder: bool) -> Opened {
        let log = Log {
            disk: Arc::clone(self.disk),
            folder: Arc::clone(&self.folder),
            topic_id: self.topic_id,
            has_folder,
            segments: Vec::new(),
            start_offset: self.log_start,
            end_offset: self.log_start,
            producers: Producers::new(self.producers_max),
            epochs: LeaderEpochs::default(),
            snapshots: Vec::new(),
            bytes_since_snapshot: 0,
            active: Active::default(),
            unsynced: Unsynced::default(),
        };
        Opened { log, synced: None, cut: None }
    }

    fn open(&self, listing: Listing) -> Result<Opened, LogError> {
        let Opened { mut log, .. } = self.empty(true);
        let (mut epochs, epochs_known) = self.read_epochs()?;
        let cut = self.open_segments(&mut log, &listing, &mut epochs)?;
        if log.end_offset < self.log_start {
            // The checkpoint is ahead of what is left: all of it was deleted once, and none may come back.
            return self.begin_anew(log, &listing);
        }
        let first_base = log.segments.first().map_or(0, |segment| segment.base_offset());
        log.start_offset = self.log_start.max(first_base);
        if !epochs_known {
            epochs = LeaderEpochs::default();
            for segment in &log.segments {
                segment.replay(log.start_offset, |batch| {
                    epochs.assign(batch.partition_leader_epoch, batch.base_offset.max(log.start_offset));
                })?;
            }
        }
        epochs.truncate_end(log.end_offset);
        epochs.truncate_start(log.start_offset);
        log.epochs = epochs;
        self.restore_producers(&mut log, listing.snapshots)?;
        log.active = Active::begin(self.now_ms, self.config);
        let synced = match self.trust {
            Trust::Everything if cut.is_none() => None,
            _ => Some(self.synced_place(&log)),
        };
        Ok(Opened { log, synced, cut })
    }

    /// Opens the segments up to the first damage; what comes after is removed.
    fn open_segments(
        &self,
        log: &mut Log,
        listing: &Listing,
        epochs: &mut LeaderEpochs,
    ) -> Result<Option<Cut>, LogError> {
        let bases = &listing.segments;
        let first = first_to_rescan(bases, self.trust, self.recovery_point);
        let (start, check_from_offset) = rescan_plan(self.trust, self.recovery_point);
        for (number, base) in bases.iter().enumerate() {
            let segment = Segment::existing(self.disk, &self.folder, *base);
            if number < first {
                if listing.indexed.binary_search(base).is_err() {
                    self.rebuild_indexes(&segment, log)?;
                }
                log.segments.push(Arc::new(segment));
                continue;
            }
            if number > first && *base < log.end_offset {
                let expected_min = log.end_offset;
                let reason = Damage::Offsets { base_offset: *base, last_offset: *base, expected_min };
                let cut = self.cut(log, &segment, 0, reason, bases.len() - number)?;
                self.remove_segments(&bases[number..])?;
                return Ok(Some(cut));
            }
            let rescanned = segment.rescan(start, check_from_offset, self.config, |batch| {
                epochs.assign(batch.partition_leader_epoch, batch.base_offset);
            })?;
            let Rescanned { end_offset, size_bytes, length_bytes, damage } = rescanned;
            log.end_offset = end_offset;
            if number + 1 < bases.len() {
                log.unsynced.files.extend(segment.seal()?);
            }
            let segment = Arc::new(segment);
            log.segments.push(Arc::clone(&segment));
            if let Some(reason) = damage {
                segment.cut_rest()?;
                self.remove_segments(&bases[number + 1..])?;
                log.unsynced.names = true;
                let removed = bases.len() - number - 1;
                return Ok(Some(self.cut(log, &segment, length_bytes - size_bytes, reason, removed)?));
            }
        }
        Ok(None)
    }

    fn cut(
        &self,
        log: &Log,
        segment: &Segment,
        bytes: u64,
        reason: Damage,
        segments_removed: usize,
    ) -> Result<Cut, LogError> {
        Ok(Cut {
            topic: self.topic.to_owned(),
            partition: self.index,
            offset: log.end_offset,
            path: segment.path(),
            position: segment.size_bytes()?,
            bytes,
            segments_removed,
            reason,
        })
    }

    /// A closed segment without its indexes: they are made again; damage that shows only warns, since it is below what is
    /// known to be whole.
    fn rebuild_indexes(&self, segment: &Segment, log: &mut Log) -> Result<(), LogError> {
        let rescanned = segment.rescan(RescanStart::Beginning, UNCHECKED, self.config, |_| {})?;
        if let Some(damage) = rescanned.damage {
            let (path, position) = (segment.path(), rescanned.size_bytes);
            tracing::warn!(path = %path.display(), position, %damage, "damaged where it was synced");
        }
        log.unsynced.files.extend(segment.seal()?);
        Ok(())
    }

    fn begin_anew(&self, log: Log, listing: &Listing) -> Result<Opened, LogError> {
        tracing::warn!(
            folder = %self.folder.display(),
            log_end = log.end_offset,
            log_start = self.log_start,
            "ends before its start offset: begun anew there"
        );
        self.remove_segments(&listing.segments)?;
        for snapshot in &listing.snapshots {
            self.remove(&file_name(*snapshot, "snapshot"))?;
        }
        let mut opened = self.empty(true);
        opened.log.unsynced.names = true;
        opened.log.write_epochs()?;
        Ok(opened)
    }

    /// The epochs as written, and whether that could be read; if not, they are read off the batches.
    fn read_epochs(&self) -> Result<(LeaderEpochs, bool), LogError> {
        let path = self.folder.join(EPOCHS_FILE);
        let bytes = match read_file(&**self.disk, &path, checkpoint::LIMIT_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((LeaderEpochs::default(), false));
            }
            Err(error) => return Err(LogError::disk(&path, error)),
        };
        match LeaderEpochs::parse(&bytes) {
            Ok(epochs) => Ok((epochs, true)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "read off the log instead");
                Ok((LeaderEpochs::default(), false))
            }
        }
    }

    /// The newest snapshot that is whole and not ahead of the log, and the batches after it.
    fn restore_producers(&self, log: &mut Log, snapshots: Vec<i64>) -> Result<(), LogError> {
        let was_without = snapshots.is_empty();
        let mut from = log.start_offset;
        log.snapshots = snapshots;
        while let Some(newest) = log.snapshots.last().copied() {
            if newest <= log.end_offset
                && let Some(producers) = self.read_snapshot(newest)?
            {
                log.producers = producers;
                from = newest.max(log.start_offset);
                break;
            }
            self.remove(&file_name(newest, "snapshot"))?;
            log.snapshots.pop();
        }
        if was_without && self.trust == Trust::Everything {
            // A clean stop without a snapshot: there were no producers to remember.
            return Ok(());
        }
        let first = log.segments.partition_point(|segment| segment.base_offset() <= from).saturating_sub(1);
        for segment in &log.segments[first..] {
            segment.replay(from, |batch| {
                log.producers.update(batch, self.now_ms);
                log.bytes_since_snapshot += batch.size_bytes() as u64;
            })?;
        }
        Ok(())
    }

    fn read_snapshot(&self, offset: i64) -> Result<Option<Producers>, LogError> {
        let path = self.folder.join(file_name(offset, "snapshot"));
        let bytes = read_file(&**self.disk, &path, SNAPSHOT_LIMIT_BYTES)
            .map_err(|source| LogError::disk(&path, source))?;
        match Producers::restore(&bytes, self.producers_max, self.now_ms) {
            Ok(producers) => Ok(Some(producers)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "not used");
                Ok(None)
            }
        }
    }

    /// The end of what is known to be durable: at worst everything from the segment of the recovery point on is not.
    fn synced_place(&self, log: &Log) -> Place {
        let offset = self.recovery_point.clamp(log.start_offset, log.end_offset);
        let holding = log.segments.iter().rev().find(|segment| segment.base_offset() <= offset);
        let segment = holding.map_or(offset, |segment| segment.base_offset());
        Place { offset: segment.max(log.start_offset), segment, position: 0 }
    }

    fn remove_segments(&self, bases: &[i64]) -> Result<(), LogError> {
        for base in bases {
            for suffix in ["log", "index", "timeindex", "txnindex"] {
                self.remove(&file_name(*base, suffix))?;
            }
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), LogError> {
        let path = self.folder.join(name);
        match self.disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LogError::disk(&path, error)),
            _ => Ok(()),
        }
    }
}
