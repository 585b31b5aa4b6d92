//! Opening a log: what is in its folder, how much of that can be trusted, and what must be cut off.
//!
//! After a clean stop everything is trusted. After the death of the process alone the page cache has survived, and only what
//! lies behind the last index entry can be torn. After the death of the machine everything from the recovery point on is read
//! and compared with its checksums. The first batch that is damaged ends the log; what lies behind it is told, and kept beside
//! the log where it is more than a torn tail ([`super::salvage`]).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::LogError;
use super::checkpoint;
use super::compaction::swap;
use super::config::LogConfig;
use super::epochs::LeaderEpochs;
use super::log::{Active, EPOCHS_FILE, Log, METADATA_FILE, SNAPSHOT_INTERVAL_BYTES, Unsynced};
use super::producers::{Producers, SNAPSHOT_LIMIT_BYTES};
use super::salvage::{self, Behind};
use super::scan::{Damage, Ending, UNCHECKED};
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
    /// Whether the folder, if there is one, names its topic.
    pub has_metadata: bool,
    pub index: i32,
    /// The newest leader epoch that anything can have been appended in, unless the log's own checkpoint knows of a newer one.
    pub leader_epoch: i32,
    pub trust: Trust,
    /// Everything below it was synced.
    pub recovery_point: i64,
    /// Whether all is read again, with its checksums.
    pub check_all: bool,
    /// Log start offset of the checkpoint, 0 without one.
    pub log_start: i64,
    pub config: &'a LogConfig,
    pub producers_max: usize,
    pub now_ms: TimestampMs,
    /// Grows by the bytes that are read again.
    pub checked_bytes: &'a AtomicU64,
}

/// An open log.
#[derive(Debug)]
pub struct Opened {
    pub log: Log,
    /// How far it is known to be on disk; `None` is all of it.
    pub synced: Option<Place>,
    pub cut: Option<Arc<Cut>>,
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
    /// Later segments, which were taken out of the log too.
    pub segments_removed: usize,
    /// What was found there.
    pub reason: Damage,
    /// Whole batches that lay behind it.
    pub batches_behind: u64,
    /// One beyond the last offset that was in the log, as far as that can be told: all from [`Self::offset`] on are lost.
    pub lost_end: i64,
    /// Whether what was cut off is kept beside the log, as `<segment>.log.cut-<position>`.
    pub kept: bool,
}

impl Cut {
    /// Logs what was cut: a torn tail is what a crash leaves, all else is not.
    pub fn tell(&self) {
        macro_rules! tell {
            ($level:ident, $message:literal) => {
                tracing::$level!(
                    topic = %self.topic,
                    partition = self.partition,
                    offset = self.offset,
                    path = %self.path.display(),
                    position = self.position,
                    bytes = self.bytes,
                    segments_removed = self.segments_removed,
                    batches_behind = self.batches_behind,
                    lost_end = self.lost_end,
                    reason = %self.reason,
                    $message
                )
            };
        }
        match self.kept {
            true => tell!(
                error,
                "damaged in the middle: the log was cut there, what came after is kept beside it"
            ),
            false => tell!(warn, "the log was cut at a damaged batch"),
        }
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
pub(super) fn parse_file_name(name: &str) -> Option<(i64, &str)> {
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

/// How many segments, by their base offsets (ascending), have nothing at or above `log_start`.
fn wholly_below(bases: &[i64], log_start: i64) -> usize {
    bases.windows(2).take_while(|pair| pair[1] <= log_start).count()
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

/// Damage where the log counts as whole is no reason not to open it: what is behind it in the segment stays unknown here, and
/// who reads it will find it.
fn tolerate_damage(replayed: Result<(), LogError>) -> Result<(), LogError> {
    match replayed {
        Err(error @ LogError::Damaged { .. }) => {
            tracing::warn!(%error, "damaged where it should be whole");
            Ok(())
        }
        other => other,
    }
}

/// Opens a log. A folder that does not exist is an empty log.
pub fn open(request: &OpenRequest<'_>) -> Result<Opened, LogError> {
    let entries = match request.disk.list(&request.folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(request.empty(false)),
        Err(error) => return Err(LogError::disk(&request.folder, error)),
    };
    let mut names: Vec<_> =
        entries.into_iter().filter(|entry| !entry.is_dir).map(|entry| entry.name).collect();
    let place = swap::Place { disk: &**request.disk, folder: &request.folder };
    if place.recover(&names)? {
        let entries = request.disk.list(&request.folder);
        let entries = entries.map_err(|source| LogError::disk(&request.folder, source))?;
        names = entries.into_iter().map(|entry| entry.name).collect();
    }
    let mut listing = Listing::of(names.into_iter());
    for name in &listing.leftovers {
        request.remove(name)?;
    }
    // Deleted segments whose removal did not last: with some of them gone and some not they would look like a damaged log.
    let deleted = wholly_below(&listing.segments, request.log_start);
    request.remove_segments(&listing.segments[..deleted])?;
    listing.segments.drain(..deleted);
    let mut opened = match listing.segments.is_empty() {
        true => request.empty(true),
        false => request.open(listing)?,
    };
    if !request.has_metadata {
        opened.log.write_metadata()?;
    }
    Ok(opened)
}

/// The segments of a log that is not opened for it, ascending; none of their files is opened here either. What is left of
/// deleted ones is removed.
pub fn peek(disk: &Arc<dyn Disk>, folder: &Arc<Path>) -> Result<Vec<Arc<Segment>>, LogError> {
    let entries = match disk.list(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(LogError::disk(folder, error)),
    };
    let listing = Listing::of(entries.into_iter().filter(|entry| !entry.is_dir).map(|entry| entry.name));
    for name in listing.leftovers.iter().filter(|name| name.ends_with(".deleted")) {
        let path = folder.join(name);
        disk.remove(&path).map_err(|source| LogError::disk(&path, source))?;
    }
    let segment = |base: &i64| Arc::new(Segment::existing(disk, folder, *base));
    Ok(listing.segments.iter().map(segment).collect())
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
        let written = epochs.clone();
        // No checksum covers a batch's epoch: one that nobody has led in is none.
        let newest = epochs.latest().map_or(0, |latest| latest.epoch).max(self.leader_epoch);
        let epoch_max = if epochs_known { newest } else { i32::MAX };
        let cut = self.open_segments(&mut log, &listing, &mut epochs, epoch_max)?;
        if let (Some(active), true) = (log.segments.last(), self.trust != Trust::Everything) {
            active.suspect_space_behind()?;
        }
        if log.end_offset < self.log_start {
            // The checkpoint is ahead of what is left: all of it was deleted once, and none may come back.
            return self.begin_anew(log, &listing, cut);
        }
        let first_base = log.segments.first().map_or(0, |segment| segment.base_offset());
        log.start_offset = self.log_start.max(first_base);
        // The start of the log goes into their file before it goes into the checkpoint.
        let begins_late = epochs.starts().first().is_some_and(|first| first.start_offset > log.start_offset);
        if !epochs_known || begins_late {
            epochs = LeaderEpochs::default();
            for segment in &log.segments {
                let replayed = segment.replay(log.start_offset, |batch| {
                    epochs.assign(batch.partition_leader_epoch, batch.base_offset.max(log.start_offset));
                });
                tolerate_damage(replayed)?;
            }
        }
        epochs.truncate_end(log.end_offset);
        epochs.truncate_start(log.start_offset);
        log.epochs = epochs;
        if log.epochs != written {
            log.write_epochs()?;
        }
        self.restore_producers(&mut log, listing.snapshots)?;
        log.active = Active::begin(self.now_ms, self.config);
        if self.trust == Trust::Everything && cut.is_none() {
            return Ok(Opened { log, synced: None, cut: None });
        }
        // Whoever died may have died before syncing: neither the files nor their names are known to be on the disk.
        let synced = self.synced_place(&log);
        for segment in
            log.segments.iter().rev().skip(1).take_while(|older| older.base_offset() >= synced.segment)
        {
            log.unsynced.files.extend(segment.seal()?);
        }
        log.unsynced.names = true;
        log.unsynced.folder = true;
        Ok(Opened { log, synced: Some(synced), cut: cut.map(Arc::new) })
    }

    /// Opens the segments up to the first damage; what comes after is removed.
    fn open_segments(
        &self,
        log: &mut Log,
        listing: &Listing,
        epochs: &mut LeaderEpochs,
        epoch_max: i32,
    ) -> Result<Option<Cut>, LogError> {
        let bases = &listing.segments;
        let checked_to = if self.check_all { 0 } else { self.recovery_point };
        let first = first_to_rescan(bases, self.trust, checked_to);
        let (start, check_from_offset) = rescan_plan(self.trust, checked_to);
        for (number, base) in bases.iter().enumerate() {
            let segment = Segment::existing(self.disk, &self.folder, *base);
            if number < first {
                if listing.indexed.binary_search(base).is_err() {
                    self.rebuild_indexes(&segment, log)?;
                }
                log.segments.push(Arc::new(segment));
                continue;
            }
            if number > first
                && let Some(reason) = self.break_before(*base, log.end_offset)
            {
                let cut = self.cut(log, &segment, (0, 0), reason, &bases[number..])?;
                return Ok(Some(cut));
            }
            let ending = match bases.get(number + 1) {
                Some(next) => (Ending::Open, *next),
                // The last segment was never compacted.
                None if !self.config.compact => (Ending::Dense, i64::MAX),
                None => (Ending::Open, i64::MAX),
            };
            let rescanned = segment.rescan(start, check_from_offset, ending, self.config, |batch| {
                let (epoch, base_offset) = (batch.partition_leader_epoch, batch.base_offset);
                if epoch <= epoch_max {
                    epochs.begin(epoch, base_offset);
                }
                self.checked_bytes.fetch_add(batch.size_bytes() as u64, Ordering::Relaxed);
            })?;
            let Rescanned { end_offset, size_bytes, length_bytes, damage } = rescanned;
            log.end_offset = end_offset;
            if damage.is_none() && size_bytes < length_bytes {
                segment.cut_rest()?;
                log.unsynced.files.push(Arc::clone(segment.file()?));
            }
            if number + 1 < bases.len() {
                log.unsynced.files.extend(segment.seal()?);
            }
            let segment = Arc::new(segment);
            log.segments.push(Arc::clone(&segment));
            if let Some(reason) = damage {
                let cut =
                    self.cut(log, &segment, (size_bytes, length_bytes), reason, &bases[number + 1..])?;
                return Ok(Some(cut));
            }
        }
        Ok(None)
    }

    /// What is wrong with a segment that begins at `base` behind one that ends at `end_offset`. Compaction leaves gaps;
    /// elsewhere one means that what lay between, and was neither synced nor deleted, never reached the disk: what comes after
    /// must not outlive it.
    fn break_before(&self, base: i64, end_offset: i64) -> Option<Damage> {
        if base < end_offset {
            return Some(Damage::Offsets { base_offset: base, last_offset: base, expected_min: end_offset });
        }
        let must_be_there = self.recovery_point.max(self.log_start);
        let lost = base > end_offset && base > must_be_there && !self.config.compact;
        lost.then_some(Damage::Missing { from: end_offset, to: base })
    }

    /// Ends the log at `position` of `segment`, which has `length` bytes, and takes the segments `later` out of it. The log is
    /// cut last: should anything fail before that, the next start finds the same damage and goes on from there.
    fn cut(
        &self,
        log: &Log,
        segment: &Segment,
        (position, length): (u64, u64),
        reason: Damage,
        later: &[i64],
    ) -> Result<Cut, LogError> {
        let mut behind = Behind::default();
        behind.count(segment, Some(position), log.end_offset, length)?;
        for base in later {
            let segment = Segment::existing(self.disk, &self.folder, *base);
            behind.count(&segment, None, log.end_offset, segment.size_bytes()?)?;
        }
        // Segments behind some that never reached the disk were not promised either.
        let never_promised = matches!(reason, Damage::Missing { .. }) && length == 0;
        let was_synced = log.end_offset < self.recovery_point;
        let kept = was_synced || behind.batches > 0 && !never_promised;
        if let ([first, later @ ..], false) = (later, kept)
            && *first == segment.base_offset()
        {
            // Once it is gone, nothing tells the next start that its removal does not last yet; what comes back then must be empty.
            self.remove_segments(later)?;
            self.sync_folder()?;
            let file = segment.file()?;
            file.set_len(0)
                .and_then(|()| file.sync_data())
                .map_err(|source| LogError::disk(&segment.path(), source))?;
        }
        for base in later.iter().rev() {
            match kept {
                true => salvage::keep_segment(&**self.disk, &self.folder, *base)?,
                false => self.remove_segments(&[*base])?,
            }
        }
        if kept && position < length {
            salvage::keep_rest(&**self.disk, &self.folder, segment, (position, length))?;
        }
        // In every mode at once: what was cut off must not come back behind what is appended next.
        self.sync_folder()?;
        if position < length {
            segment.cut_rest()?;
            segment.file()?.sync_data().map_err(|source| LogError::disk(&segment.path(), source))?;
        }
        Ok(Cut {
            topic: self.topic.to_owned(),
            partition: self.index,
            offset: log.end_offset,
            path: segment.path(),
            position,
            bytes: length - position,
            segments_removed: later.len(),
            reason,
            batches_behind: behind.batches,
            lost_end: behind.offset_end.max(log.end_offset),
            kept,
        })
    }

    /// A closed segment without its indexes: they are made again; damage that shows only warns, since it is below what is
    /// known to be whole.
    fn rebuild_indexes(&self, segment: &Segment, log: &mut Log) -> Result<(), LogError> {
        let rescanned = segment.rescan(
            RescanStart::Beginning,
            UNCHECKED,
            (Ending::Open, i64::MAX),
            self.config,
            |_| {},
        )?;
        if let Some(damage) = rescanned.damage {
            let (path, position) = (segment.path(), rescanned.size_bytes);
            tracing::warn!(path = %path.display(), position, %damage, "damaged where it was synced");
        }
        log.unsynced.files.extend(segment.seal()?);
        Ok(())
    }

    fn begin_anew(&self, log: Log, listing: &Listing, cut: Option<Cut>) -> Result<Opened, LogError> {
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
        opened.log.write_epochs()?;
        // What is appended next must not be found under epochs of what was here before.
        for file in std::mem::take(&mut opened.log.unsynced).files {
            file.sync_data().map_err(|source| LogError::disk(&self.folder, source))?;
        }
        self.sync_folder()?;
        opened.cut = cut.map(Arc::new);
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

    /// Producers as the newest snapshot and the batches after it have them. A snapshot has only the last batch of each; so
    /// that a producer may repeat its last five over a restart, the replay begins earlier: at the snapshot before.
    fn restore_producers(&self, log: &mut Log, snapshots: Vec<i64>) -> Result<(), LogError> {
        let mut whole = Vec::new();
        for offset in snapshots {
            match offset <= log.end_offset {
                true => whole.extend(self.read_snapshot(offset)?.map(|producers| (offset, producers))),
                false => self.remove(&file_name(offset, "snapshot"))?,
            }
        }
        log.snapshots = whole.iter().map(|(offset, _)| *offset).collect();
        let newest = whole.pop();
        // Batches below the log's start count as long as their segment is there: who has sent them is known until a stop, too.
        let first_base = log.segments.first().map_or(log.start_offset, |segment| segment.base_offset());
        let newest_offset = newest.as_ref().map_or(first_base, |(offset, _)| *offset);
        let mut from = newest_offset;
        if let Some((offset, producers)) = whole.pop() {
            (from, log.producers) = (offset, producers);
        } else if self.is_short(log)? {
            from = first_base;
        }
        let first = log.segments.partition_point(|segment| segment.base_offset() <= from).saturating_sub(1);
        for segment in &log.segments[first..] {
            let replayed = segment.replay(from, |batch| {
                log.producers.update(batch, self.now_ms);
                if batch.base_offset >= newest_offset {
                    log.bytes_since_snapshot += batch.size_bytes() as u64;
                }
            });
            tolerate_damage(replayed)?;
        }
        if let Some((_, producers)) = newest {
            log.producers.add_newer(producers);
        }
        Ok(())
    }

    /// Whether the whole log is no more than what lies between snapshots.
    fn is_short(&self, log: &Log) -> Result<bool, LogError> {
        let mut bytes = 0;
        for segment in log.segments.iter().rev() {
            bytes += segment.size_bytes()?;
            if bytes > SNAPSHOT_INTERVAL_BYTES {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The producers of a snapshot file; one that is damaged is removed.
    fn read_snapshot(&self, offset: i64) -> Result<Option<Producers>, LogError> {
        let name = file_name(offset, "snapshot");
        let path = self.folder.join(&name);
        let bytes = read_file(&**self.disk, &path, SNAPSHOT_LIMIT_BYTES)
            .map_err(|source| LogError::disk(&path, source))?;
        match Producers::restore(&bytes, self.producers_max, self.now_ms) {
            Ok(producers) => Ok(Some(producers)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "not used");
                self.remove(&name)?;
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

    fn sync_folder(&self) -> Result<(), LogError> {
        self.disk.sync_dir(&self.folder).map_err(|source| LogError::disk(&self.folder, source))
    }

    fn remove(&self, name: &str) -> Result<(), LogError> {
        let path = self.folder.join(name);
        match self.disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LogError::disk(&path, error)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::config;
    use super::super::fixture::{
        Fixture, TOPIC, TOPIC_ID, append, batch, commit, end_offset, eventually, headers, high_watermark,
        log_file, path, run, sequenced,
    };
    use super::*;
    use crate::storage::simulated::SimulatedDisk;

    #[test]
    fn a_batch_of_a_later_epoch_does_not_outlive_the_news_of_it() {
        let fixture = Fixture::open(SimulatedDisk::default(), 0).unwrap();
        let partition = fixture.partition(config());
        partition.append(batch(1)).unwrap();
        fixture.directory.do_chores();
        while fixture.directory.sync_next() {}
        partition.bump_leader_epoch(1);
        partition.append(batch(1)).unwrap();
        drop(partition);
        let disk = fixture.halt();
        // Of what was not synced, the log's bytes alone reach the disk.
        disk.open(&log_file(0)).unwrap().sync_data().unwrap();
        disk.power_cut_at_its_worst();
        let fixture = Fixture::open(disk, 0).unwrap();
        let partition = fixture.partition(config());
        assert!(fixture.recover(&partition).is_empty());
        let epochs: Vec<_> =
            headers(&partition, 0).iter().map(|header| header.partition_leader_epoch).collect();
        assert_eq!(epochs, [0, 1]);
    }

    #[test]
    fn epochs_that_begin_behind_the_start_of_the_log_are_read_off_it() {
        let fixture = Fixture::open(SimulatedDisk::default(), 0).unwrap();
        let partition = fixture.partition(config());
        (0..3).for_each(|number| assert_eq!(partition.append(batch(1)).unwrap().base_offset, number));
        drop(partition);
        let disk = fixture.halt();
        // Retention has died between this and the checkpoint of the log's start.
        let epochs = path(EPOCHS_FILE);
        crate::storage::replace_file(&disk, &epochs, b"0\n1\n0 2\n", crate::storage::Durability::Now)
            .unwrap();
        let fixture = Fixture::open(disk, 0).unwrap();
        let partition = fixture.partition(config());
        assert!(fixture.recover(&partition).is_empty());
        assert_eq!(partition.epoch_at(0).unwrap(), Some(0));
        assert_eq!(fixture.disk.content(&epochs).unwrap(), b"0\n1\n0 0\n");
    }

    #[test]
    fn a_producer_whose_last_batch_was_deleted_is_known_after_a_kill_as_before_it() {
        let fixture = Fixture::open(SimulatedDisk::default(), 0).unwrap();
        let partition = fixture.partition(config());
        partition.append(sequenced(0, 0)).unwrap();
        partition.append(batch(1)).unwrap();
        partition.append(batch(1)).unwrap();
        partition.delete_records(2).unwrap();
        let known = partition.producers().unwrap();
        assert_eq!(known.len(), 1);
        drop(partition);
        let fixture = Fixture::open(fixture.halt(), 0).unwrap();
        let partition = fixture.partition(config());
        assert!(fixture.recover(&partition).is_empty());
        assert_eq!(partition.producers().unwrap(), known);
        assert!(partition.append(sequenced(0, 0)).unwrap().duplicate);
        assert!(matches!(partition.append(sequenced(0, 5)), Err(LogError::OutOfOrderSequence { .. })));
    }

    #[test]
    fn a_folder_that_names_no_topic_any_more_is_given_its_name_back() {
        let fixture = Fixture::open(SimulatedDisk::default(), 0).unwrap();
        let partition = fixture.partition(config());
        partition.append(batch(1)).unwrap();
        drop(partition);
        let disk = fixture.halt();
        let metadata = path(METADATA_FILE);
        let whole = disk.content(&metadata).unwrap();
        for length in [0, 5, whole.len() - 4] {
            let disk = disk.copy();
            disk.cut(&metadata, length).unwrap();
            let fixture = Fixture::open(disk, 0).unwrap();
            let partition = fixture.partition(config());
            assert!(fixture.recover(&partition).is_empty());
            assert_eq!(fixture.disk.content(&metadata).unwrap(), whole);
        }
    }

    #[test]
    fn what_a_failed_append_has_left_does_not_come_back_behind_a_clean_stop() {
        for seed in 0..20 {
            let fixture = Fixture::open(SimulatedDisk::default(), 0).unwrap();
            let partition = fixture.partition(config());
            partition.append(batch(1)).unwrap();
            fixture.directory.do_chores();
            while fixture.directory.sync_next() {}
            let length = fixture.disk.content(&log_file(0)).unwrap().len();
            fixture.disk.fail_writes_after(20, rustix::io::Errno::NOSPC);
            assert!(matches!(partition.append(batch(1)), Err(LogError::NoSpace { .. })));
            fixture.disk.mend_writes();
            drop(partition);
            run(fixture.directory.close());
            let disk = fixture.halt();
            // The write could reach the disk and the cut behind it not.
            disk.power_cut_out_of_order(seed);
            assert_eq!(disk.content(&log_file(0)).unwrap().len(), length, "seed {seed}");
        }
    }

    /// A log of `batches` batches of one record.
    fn written(config: LogConfig, batches: i32) -> Fixture {
        let fixture = Fixture::new();
        let partition = fixture.partition(config);
        for sequence in 0..batches {
            append(&partition, sequenced(0, sequence)).unwrap();
        }
        fixture
    }

    fn killed(config: LogConfig, batches: i32) -> Fixture {
        written(config, batches).kill()
    }

    /// So that the machine, too, counts as having died, with everything on the disk.
    fn reboot(fixture: Fixture) -> Fixture {
        let Fixture { disk, directory, .. } = fixture;
        drop(directory);
        let disk = disk.copy();
        disk.power_cut(1);
        Fixture::on(disk)
    }

    #[test]
    fn files_are_sorted_by_kind_and_leftovers_named() {
        let base = |offset: i64, suffix: &str| file_name(offset, suffix);
        let names = [
            base(50, "log"),
            base(0, "log"),
            base(0, "index"),
            base(0, "timeindex"),
            base(50, "timeindex"),
            base(7, "index"),
            base(7, "txnindex"),
            base(70, "snapshot"),
            base(0, "log.deleted"),
            "leader-epoch-checkpoint".to_owned(),
            "leader-epoch-checkpoint.tmp".to_owned(),
            "0.log".to_owned(),
            "notes.txt".to_owned(),
        ];
        let listing = Listing::of(names.into_iter());
        assert_eq!((listing.segments, listing.indexed, listing.snapshots), (vec![0, 50], vec![0], vec![70]));
        assert_eq!(
            listing.leftovers,
            [
                base(0, "log.deleted"),
                "leader-epoch-checkpoint.tmp".into(),
                base(7, "index"),
                base(7, "txnindex")
            ]
        );
    }

    #[test]
    fn what_is_read_again_depends_on_what_died() {
        let bases = [0, 100, 200];
        for trust in [Trust::Everything, Trust::PageCache] {
            assert_eq!(first_to_rescan(&bases, trust, 0), 2);
        }
        for (recovery_point, first) in [(0, 0), (99, 0), (100, 1), (250, 2), (i64::MAX, 2)] {
            assert_eq!(first_to_rescan(&bases, Trust::Synced, recovery_point), first);
        }
        assert_eq!(first_to_rescan(&[100], Trust::Synced, 0), 0);
        for (log_start, below) in [(0, 0), (99, 0), (100, 1), (1000, 2)] {
            assert_eq!(wholly_below(&bases, log_start), below);
        }
        assert_eq!(rescan_plan(Trust::Everything, 5), (RescanStart::LastIndexEntry, UNCHECKED));
        assert_eq!(rescan_plan(Trust::PageCache, 5), (RescanStart::LastIndexEntry, 0));
        assert_eq!(rescan_plan(Trust::Synced, 5), (RescanStart::Beginning, 5));
    }

    #[test]
    fn a_last_batch_torn_at_any_byte_is_cut_and_the_rest_survives() {
        let fixture = killed(config(), 5);
        let whole = fixture.disk.content(&log_file(0)).unwrap().len();
        let size = whole / 5;
        drop(fixture.directory);
        for length in whole - size..whole {
            for machine_died in [false, true] {
                let disk = fixture.disk.copy();
                disk.cut(&log_file(0), length).unwrap();
                if machine_died {
                    disk.power_cut(0);
                }
                let fixture = Fixture::on(disk);
                assert!(!fixture.directory.was_clean());
                let partition = fixture.partition(config());
                let cuts = fixture.recover(&partition);
                assert_eq!(headers(&partition, 0).len(), 4, "{length}");
                assert_eq!(cuts.len(), usize::from(length > whole - size));
                if let Some(cut) = cuts.first() {
                    assert_eq!((cut.offset, cut.position), (4, (whole - size) as u64));
                    assert_eq!((&cut.path, cut.bytes), (&log_file(0), (length + size - whole) as u64));
                }
                // The producer goes on where the log now ends.
                assert_eq!(append(&partition, sequenced(0, 4)).unwrap(), 4);
                assert_eq!(fixture.disk.content(&log_file(0)).unwrap().len(), whole);
            }
        }
    }

    #[test]
    fn zeros_and_garbage_behind_the_last_batch_are_cut() {
        let fixture = killed(config(), 3);
        let whole = fixture.disk.content(&log_file(0)).unwrap().len();
        drop(fixture.directory);
        for garbage in [vec![0; 200], vec![0xff; 70], b"GET / HTTP/1.1\r\n".to_vec()] {
            let disk = fixture.disk.copy();
            let file = disk.open(&log_file(0)).unwrap();
            crate::storage::write_all_at(&*file, &mut [io::IoSlice::new(&garbage)], whole as u64).unwrap();
            let fixture = Fixture::on(disk);
            let partition = fixture.partition(config());
            assert_eq!(fixture.recover(&partition)[0].bytes, garbage.len() as u64);
            assert_eq!(headers(&partition, 0).len(), 3);
            assert_eq!(fixture.disk.content(&log_file(0)).unwrap().len(), whole);
        }
    }

    #[test]
    fn a_flipped_bit_in_the_middle_ends_the_log_there_after_the_death_of_the_machine() {
        let narrow = LogConfig { segment_bytes: 300, ..config() };
        let fixture = killed(narrow.clone(), 12);
        let size = fixture.disk.content(&log_file(0)).unwrap().len() / 3;
        let fixture = reboot(fixture);
        drop(fixture.directory);
        // In the second segment's second batch: length, magic, checksum, payload; the base offset is not covered by the
        // checksum, but must not run backwards.
        for at in [2, 9, 16, 18, 40, size - 1] {
            let disk = fixture.disk.copy();
            disk.flip(&log_file(3), size + at, 0x80).unwrap();
            let fixture = Fixture::on(disk);
            let partition = fixture.partition(narrow.clone());
            let cuts = fixture.recover(&partition);
            assert_eq!(cuts.len(), 1, "{at}");
            assert_eq!((cuts[0].offset, cuts[0].segments_removed), (4, 2), "{at}");
            assert_eq!(headers(&partition, 0).len(), 4);
            assert!(fixture.disk.content(&log_file(6)).is_err());
            assert_eq!(append(&partition, sequenced(0, 4)).unwrap(), 4);
        }
    }

    #[test]
    fn what_lies_behind_damage_in_the_middle_is_kept_and_a_torn_tail_is_not() {
        let narrow = LogConfig { segment_bytes: 300, ..config() };
        let fixture = reboot(killed(narrow.clone(), 12));
        let whole = fixture.disk.content(&log_file(3)).unwrap();
        let size = whole.len() / 3;
        drop(fixture.directory);
        let kept = |disk: &SimulatedDisk| -> Vec<String> {
            let names = disk.list("/data/events-0".as_ref()).unwrap().into_iter().map(|entry| entry.name);
            let mut kept: Vec<_> = names.filter(|name| salvage::is_kept(name)).collect();
            kept.sort_unstable();
            kept
        };
        let (third, fourth) = (file_name(6, "log"), file_name(9, "log"));
        for (flipped, cut_to, names, lost_end) in [
            (
                Some(size + 70),
                None,
                vec![
                    format!("{}.cut-{size}", file_name(3, "log")),
                    format!("{third}.cut-0"),
                    format!("{fourth}.cut-0"),
                ],
                12,
            ),
            (None, Some(size - 1), vec![], 11),
        ] {
            let disk = fixture.disk.copy();
            if let Some(at) = flipped {
                disk.flip(&log_file(3), at, 1).unwrap();
            }
            if let Some(length) = cut_to {
                disk.cut(&log_file(9), 2 * size + length).unwrap();
            }
            let fixture = Fixture::on(disk);
            let partition = fixture.partition(narrow.clone());
            let cuts = fixture.recover(&partition);
            assert_eq!((cuts[0].kept, cuts[0].lost_end), (flipped.is_some(), lost_end));
            assert_eq!(kept(&fixture.disk), names);
            if flipped.is_some() {
                assert_eq!(cuts[0].batches_behind, 1 + 6);
                let mut expected = whole[size..].to_vec();
                expected[70] ^= 1;
                assert_eq!(fixture.disk.content(&path(&names[0])).unwrap(), expected);
                // The same damage once more finds the name taken.
                append(&partition, sequenced(0, 4)).unwrap();
                append(&partition, sequenced(0, 5)).unwrap();
                drop(partition);
                let fixture = reboot(fixture);
                fixture.disk.flip(&log_file(3), size + 70, 1).unwrap();
                let partition = fixture.partition(narrow.clone());
                assert!(fixture.recover(&partition)[0].kept);
                assert!(kept(&fixture.disk).contains(&format!("{}.2", names[0])));
                assert_eq!(headers(&partition, 0).len(), 4);
            }
        }
    }

    #[test]
    fn a_last_batch_with_another_offset_is_cut_off() {
        for at in 0..8 {
            let fixture = killed(config(), 5);
            let size = fixture.disk.content(&log_file(0)).unwrap().len() / 5;
            fixture.disk.flip(&log_file(0), 4 * size + at, 4).unwrap();
            let partition = fixture.partition(config());
            assert_eq!(fixture.recover(&partition)[0].position, 4 * size as u64, "{at}");
            assert_eq!((end_offset(&partition), headers(&partition, 0).len()), (4, 4));
        }
    }

    #[test]
    fn after_the_death_of_the_process_only_the_tail_is_read() {
        let narrow = LogConfig { segment_bytes: 30_000, index_interval_bytes: 1000, ..config() };
        let fixture = killed(narrow.clone(), 300);
        // Index entries are written in runs, so here none is: the next start makes them, the one after that finds them.
        let partition = fixture.partition(narrow.clone());
        assert!(fixture.recover(&partition).is_empty());
        let fixture = fixture.stop();
        let partition = fixture.partition(narrow.clone());
        append(&partition, sequenced(0, 300)).unwrap();
        drop(partition);
        let fixture = fixture.kill();
        fixture.disk.flip(&log_file(0), 80, 1).unwrap();
        let partition = fixture.partition(narrow);
        assert!(fixture.recover(&partition).is_empty());
        assert_eq!(end_offset(&partition), 301);
    }

    #[test]
    fn lost_or_damaged_indexes_are_made_again() {
        let narrow = LogConfig { segment_bytes: 3000, index_interval_bytes: 100, ..config() };
        for damage in 0..4 {
            for clean in [true, false] {
                let fixture = written(narrow.clone(), 100);
                let fixture = if clean { fixture.stop() } else { reboot(fixture) };
                let second = fixture.disk.list("/data/events-0".as_ref()).unwrap();
                let mut bases: Vec<i64> = second
                    .iter()
                    .filter_map(|entry| parse_file_name(&entry.name))
                    .map(|(base, _)| base)
                    .collect();
                bases.sort_unstable();
                bases.dedup();
                for base in bases {
                    for suffix in ["index", "timeindex"] {
                        let file = path(&file_name(base, suffix));
                        let Ok(content) = fixture.disk.content(&file) else { continue };
                        match damage {
                            0 => fixture.disk.remove(&file).unwrap(),
                            1 => fixture.disk.cut(&file, content.len() / 2 + 1).unwrap(),
                            2 => {
                                (0..content.len()).for_each(|at| fixture.disk.flip(&file, at, 0x55).unwrap())
                            }
                            _ => fixture.disk.open(&file).unwrap().set_len(1000).unwrap(),
                        }
                    }
                }
                let partition = fixture.partition(narrow.clone());
                assert!(fixture.recover(&partition).is_empty());
                for offset in 0..100 {
                    let header = headers(&partition, offset)[0];
                    assert_eq!(header.base_offset, offset, "damage {damage} clean {clean}");
                }
                assert_eq!(append(&partition, sequenced(0, 100)).unwrap(), 100);
            }
        }
    }

    #[test]
    fn producers_are_known_after_a_kill_a_reboot_and_a_clean_stop() {
        for end in 0..3 {
            let fixture = written(config(), 8);
            let fixture = match end {
                0 => fixture.kill(),
                1 => reboot(fixture),
                _ => fixture.stop(),
            };
            let partition = fixture.partition(config());
            fixture.recover(&partition);
            for sequence in 3..8 {
                let again = partition.append(sequenced(0, sequence)).unwrap();
                assert!(again.duplicate && again.base_offset == i64::from(sequence), "{end}");
            }
            assert!(matches!(
                partition.append(sequenced(0, 2)),
                Err(LogError::OutOfOrderSequence { expected: 8, found: 2, .. })
            ));
            assert_eq!(append(&partition, sequenced(0, 8)).unwrap(), 8);
        }
    }

    #[test]
    fn a_clean_stop_makes_no_index_files_for_a_small_log_but_completes_those_that_are_there() {
        let fixture = written(config(), 1);
        let index = |suffix| path(&file_name(0, suffix));
        let fixture = fixture.stop();
        assert!(fixture.disk.content(&index("index")).is_err());
        // As Kafka leaves a segment that has no batch yet.
        fixture.disk.create(&index("index")).unwrap();
        fixture.disk.create(&index("timeindex")).unwrap();
        let partition = fixture.partition(config());
        append(&partition, batch(1)).unwrap();
        drop(partition);
        let fixture = fixture.stop();
        assert_eq!(fixture.disk.content(&index("index")).unwrap().len(), 0);
        assert_eq!(fixture.disk.content(&index("timeindex")).unwrap().len(), 12);
    }

    #[test]
    fn a_lost_or_damaged_snapshot_is_replaced_by_an_older_one_or_by_the_log() {
        let narrow = LogConfig { segment_bytes: 300, ..config() };
        for damage in 0..3 {
            let fixture = killed(narrow.clone(), 12);
            let snapshots: Vec<_> = [6, 9].map(|offset| path(&file_name(offset, "snapshot"))).into();
            assert!(snapshots.iter().all(|snapshot| fixture.disk.content(snapshot).is_ok()));
            assert!(fixture.disk.content(&path(&file_name(3, "snapshot"))).is_err(), "two are kept");
            let damaged = &snapshots[usize::from(damage == 0)..];
            for snapshot in damaged {
                match damage {
                    1 => fixture.disk.remove(snapshot).unwrap(),
                    _ => fixture.disk.flip(snapshot, 20, 1).unwrap(),
                }
            }
            let partition = fixture.partition(narrow.clone());
            fixture.recover(&partition);
            for sequence in 7..12 {
                assert!(partition.append(sequenced(0, sequence)).unwrap().duplicate, "{damage}");
            }
            assert_eq!(append(&partition, sequenced(0, 12)).unwrap(), 12);
        }
    }

    #[test]
    fn a_snapshot_ahead_of_the_log_is_not_used() {
        // A log without index entries has no snapshot either.
        let indexed = || LogConfig { index_interval_bytes: 10, ..config() };
        let fixture = written(indexed(), 6).stop();
        let newest = path(&file_name(6, "snapshot"));
        assert!(fixture.disk.content(&newest).is_ok());
        let size = fixture.disk.content(&log_file(0)).unwrap().len() / 6;
        let fixture = fixture.kill();
        fixture.disk.cut(&log_file(0), 4 * size).unwrap();
        let partition = fixture.partition(indexed());
        fixture.recover(&partition);
        assert!(fixture.disk.content(&newest).is_err());
        assert!(matches!(
            partition.append(sequenced(0, 6)),
            Err(LogError::OutOfOrderSequence { expected: 4, .. })
        ));
        assert_eq!(append(&partition, sequenced(0, 4)).unwrap(), 4);
    }

    #[test]
    fn lost_epochs_are_read_off_the_log() {
        let fixture = Fixture::new();
        let partition = fixture.partition(config());
        for epoch in 0..4 {
            partition.bump_leader_epoch(epoch * 2);
            append(&partition, batch(3)).unwrap();
        }
        drop(partition);
        let fixture = fixture.stop();
        fixture.disk.flip(&path(EPOCHS_FILE), 0, 1).unwrap();
        let partition = fixture.directory.partition(TOPIC, TOPIC_ID, 0, 6, std::sync::Arc::new(config()));
        assert_eq!(partition.end_offset_for_epoch(3).unwrap(), Some((2, 6)));
        assert_eq!(partition.epoch_at(8).unwrap(), Some(4));
    }

    #[test]
    fn in_commit_mode_what_recovery_found_is_synced_before_it_is_visible() {
        let fixture = Fixture::new();
        let partition = fixture.partition(commit());
        append(&partition, batch(1)).unwrap();
        fixture.disk.hold_syncs();
        partition.append(batch(1)).unwrap();
        eventually("a thread syncs", || fixture.disk.syncs_waiting() > 0);
        let disk = fixture.disk.copy();
        fixture.disk.release_syncs();
        let again = Fixture::on(disk);
        let partition = again.partition(commit());
        let before = again.disk.file_syncs();
        assert!(again.recover(&partition).is_empty());
        assert_eq!(high_watermark(&partition), 2);
        assert!(again.disk.file_syncs() > before);
    }

    #[test]
    fn a_log_that_ends_before_its_start_begins_anew_there() {
        let fixture = killed(config(), 6);
        let partition = fixture.partition(config());
        assert_eq!(partition.delete_records(5).unwrap(), 5);
        drop(partition);
        let fixture = fixture.kill();
        fixture.disk.cut(&log_file(0), 100).unwrap();
        let partition = fixture.partition(config());
        fixture.recover(&partition);
        assert_eq!(end_offset(&partition), 5);
        assert_eq!(append(&partition, batch(1)).unwrap(), 5);
        assert_eq!(headers(&partition, 5).len(), 1);
    }
}
