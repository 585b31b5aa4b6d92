//! A partition's folder: what spans its segments, and what lies beside them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::segment::{self, Circumstances};
use super::{Fault, NothingToVerify, ProducerPlace, Progress, Report};
use crate::log::checkpoint;
use crate::log::epochs::LeaderEpochs;
use crate::log::log::{EPOCHS_FILE, METADATA_FILE};
use crate::log::producers::{ProducerView, Producers, SNAPSHOT_LIMIT_BYTES};
use crate::log::recovery::parse_file_name;
use crate::log::salvage::is_kept;
use crate::log::scan::{Damage, ScanError, Scanner, UNCHECKED};
use crate::log::segment::file_name;
use crate::record::BatchHeader;
use crate::storage::{Disk, Entry, read_file};
use crate::uuid::Uuid;

/// Bytes that are read at once when only headers are wanted.
const READ_BYTES: usize = 32 << 10;

/// More than the two lines of `partition.metadata` take.
const METADATA_LIMIT_BYTES: u64 = 4 << 10;

/// A segment's base offset and bytes.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    pub base_offset: i64,
    pub bytes: u64,
}

/// A partition's folder, or one file of it.
#[derive(Debug)]
pub struct Folder {
    pub path: PathBuf,
    /// Ascending.
    pub segments: Vec<Listed>,
    /// Ascending.
    snapshots: Vec<i64>,
    has_epochs: bool,
    has_metadata: bool,
    in_use: bool,
    /// Whether it is a whole folder.
    is_whole: bool,
    /// One beyond the log's last offset, once known.
    log_end: OnceLock<i64>,
}

/// Whether a folder with such entries is a partition's.
pub fn is_one(entries: &[Entry]) -> bool {
    let is_ours = |entry: &Entry| match parse_file_name(&entry.name) {
        Some((_, suffix)) => suffix == "log",
        None => entry.name == METADATA_FILE || entry.name == EPOCHS_FILE,
    };
    entries.iter().any(|entry| !entry.is_dir && is_ours(entry))
}

impl Folder {
    fn empty(path: PathBuf, in_use: bool) -> Self {
        Self {
            path,
            segments: Vec::new(),
            snapshots: Vec::new(),
            has_epochs: false,
            has_metadata: false,
            in_use,
            is_whole: true,
            log_end: OnceLock::new(),
        }
    }

    /// Sorts the entries of a folder, and tells of those that are not of the log.
    pub fn list(disk: &dyn Disk, path: &Path, entries: &[Entry], in_use: bool, report: &mut Report) -> Self {
        let mut folder = Self::empty(path.to_owned(), in_use);
        report.totals.partitions += 1;
        let is_metadata_log = path.file_name().is_some_and(|name| name == "__cluster_metadata-0");
        let mut beside = Vec::new();
        for entry in entries {
            let path = path.join(&entry.name);
            match parse_file_name(&entry.name) {
                _ if entry.is_dir => report.found(&path, None, Fault::Unknown),
                Some((base_offset, "log")) => folder.add_segment(disk, &path, base_offset, report),
                Some((offset, "snapshot")) => folder.snapshots.push(offset),
                Some((offset, "index" | "timeindex" | "txnindex")) => beside.push((offset, path)),
                _ if entry.name == EPOCHS_FILE => folder.has_epochs = true,
                _ if entry.name == METADATA_FILE => folder.has_metadata = true,
                _ if is_kept(&entry.name) => report.found(&path, None, Fault::Kept),
                _ if is_passing(&entry.name) => report.found(&path, None, Fault::Leftover),
                // Of Kafka's own metadata log: the votes, and snapshots of what it says.
                _ if is_metadata_log
                    && (entry.name == "quorum-state" || entry.name.ends_with(".checkpoint")) => {}
                _ => report.found(&path, None, Fault::Unknown),
            }
        }
        folder.segments.sort_unstable_by_key(|segment| segment.base_offset);
        folder.snapshots.sort_unstable();
        let has = |offset| folder.segments.iter().any(|segment| segment.base_offset == offset);
        for (_, path) in beside.iter().filter(|(offset, _)| !has(*offset)) {
            report.found(path, None, Fault::Orphan);
        }
        for segment in folder.segments.iter().rev().skip(1).filter(|segment| segment.bytes > 0) {
            for suffix in ["index", "timeindex"] {
                let name = file_name(segment.base_offset, suffix);
                if !entries.iter().any(|entry| entry.name == name) {
                    report.found(&path.join(name), None, Fault::NoIndex);
                }
            }
        }
        folder
    }

    /// One file, with what it takes to judge it.
    pub fn of_file(disk: &dyn Disk, path: &Path, report: &mut Report) -> Result<Self, NothingToVerify> {
        let nothing = || NothingToVerify(path.to_owned());
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(nothing)?;
        let parent = path.parent().unwrap_or(Path::new(""));
        let mut folder = Self { is_whole: false, ..Self::empty(parent.to_owned(), false) };
        match parse_file_name(name) {
            Some((base_offset, "log")) => folder.add_segment(disk, path, base_offset, report),
            Some((base_offset, "index" | "timeindex" | "txnindex")) => {
                let log = path.with_extension("log");
                folder.add_segment(disk, &log, base_offset, report);
            }
            Some((offset, "snapshot")) => folder.snapshots.push(offset),
            _ if name == EPOCHS_FILE => folder.has_epochs = true,
            _ if name == METADATA_FILE => folder.has_metadata = true,
            _ => return Err(nothing()),
        }
        Ok(folder)
    }

    fn add_segment(&mut self, disk: &dyn Disk, path: &Path, base_offset: i64, report: &mut Report) {
        match disk.open(path).and_then(|file| file.length()) {
            Ok(bytes) => self.segments.push(Listed { base_offset, bytes }),
            Err(error) => report.unread(path, error, self.in_use),
        }
    }

    /// Bytes of its segments.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// One beyond the log's last offset; `None` without segments and before [`Self::verify_whole`].
    pub fn log_end(&self) -> Option<i64> {
        self.log_end.get().copied()
    }

    /// Whether a broker has it open.
    pub fn in_use(&self) -> bool {
        self.in_use
    }

    /// Looks at one of its segments.
    pub fn verify_segment(&self, disk: &dyn Disk, number: usize, progress: Progress<'_>) -> Report {
        let base_offset = self.segments[number].base_offset;
        let next = self.segments.get(number + 1).map(|next| next.base_offset);
        let about = Circumstances { base_offset, next, in_use: self.in_use };
        segment::verify(disk, &self.segment_path(base_offset), about, progress)
    }

    /// Looks at what spans segments: their order, leader epochs, producers; and at the small files.
    pub fn verify_whole(&self, disk: &dyn Disk) -> Report {
        let mut report = Report::default();
        let epochs = self.read_epochs(disk, &mut report);
        if self.has_metadata {
            self.verify_metadata(disk, &mut report);
        }
        let snapshots = self.read_snapshots(disk, &mut report);
        if !self.is_whole {
            return report;
        }
        let mut walk = Walk {
            epochs,
            producers: Producers::new(usize::MAX),
            snapshots: snapshots.into_iter().peekable(),
            log_end: self.segments.first().map_or(0, |first| first.base_offset),
        };
        for segment in &self.segments {
            let path = self.segment_path(segment.base_offset);
            walk.enter(&path, segment.base_offset, &mut report);
            if let Err(error) = walk.pass(disk, &path, segment.base_offset, self, &mut report) {
                report.unread(&path, error, self.in_use);
            }
        }
        self.end(walk, &mut report);
        report
    }

    /// Compares what reaches beyond the log with its end.
    fn end(&self, mut walk: Walk, report: &mut Report) {
        walk.judge_snapshots(i64::MAX, self, report);
        let log_end = walk.log_end;
        if let Some(epochs) = &walk.epochs
            && !self.in_use
            && let Some(latest) = epochs.latest().filter(|latest| latest.start_offset > log_end)
        {
            let fault =
                Fault::EpochBeyond { epoch: latest.epoch, start_offset: latest.start_offset, log_end };
            report.found(&self.path.join(EPOCHS_FILE), None, fault);
        }
        if !self.segments.is_empty() {
            self.log_end.get_or_init(|| log_end);
        }
    }

    fn segment_path(&self, base_offset: i64) -> PathBuf {
        self.path.join(file_name(base_offset, "log"))
    }

    fn read_epochs(&self, disk: &dyn Disk, report: &mut Report) -> Option<LeaderEpochs> {
        let path = self.path.join(EPOCHS_FILE);
        if !self.has_epochs {
            if self.bytes() > 0 && self.is_whole {
                report.found(&path, None, Fault::NoEpochs);
            }
            return None;
        }
        match read_file(disk, &path, checkpoint::LIMIT_BYTES) {
            Ok(bytes) => match LeaderEpochs::parse(&bytes) {
                Ok(epochs) => return Some(epochs),
                Err(invalid) => report.found(&path, None, invalid),
            },
            Err(error) => report.unread(&path, error, self.in_use),
        }
        None
    }

    fn verify_metadata(&self, disk: &dyn Disk, report: &mut Report) {
        let path = self.path.join(METADATA_FILE);
        match read_file(disk, &path, METADATA_LIMIT_BYTES) {
            Ok(bytes) if topic_id(&bytes).is_some() => {}
            Ok(_) => report.found(&path, None, Fault::PartitionMetadata),
            Err(error) => report.unread(&path, error, self.in_use),
        }
    }

    /// The producers of each snapshot whose bytes are sound.
    fn read_snapshots(&self, disk: &dyn Disk, report: &mut Report) -> Vec<(i64, Vec<ProducerView>)> {
        let mut snapshots = Vec::new();
        for offset in &self.snapshots {
            let path = self.path.join(file_name(*offset, "snapshot"));
            match read_file(disk, &path, SNAPSHOT_LIMIT_BYTES) {
                Ok(bytes) => match Producers::restore(&bytes, usize::MAX, 0) {
                    Ok(producers) => snapshots.push((*offset, producers.views())),
                    Err(invalid) => report.found(&path, None, invalid),
                },
                Err(error) => report.unread(&path, error, self.in_use),
            }
        }
        snapshots
    }
}

/// The topic id in a `partition.metadata`.
pub fn topic_id(bytes: &[u8]) -> Option<Uuid> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.lines();
    let has_version = lines.next() == Some("version: 0");
    let id = lines.next()?.strip_prefix("topic_id: ")?.parse().ok()?;
    (has_version && lines.next().is_none()).then_some(id)
}

fn is_passing(name: &str) -> bool {
    [".deleted", ".cleaned", ".swap", ".tmp"].iter().any(|suffix| name.ends_with(suffix))
}

/// What is known after a part of the log.
struct Walk {
    epochs: Option<LeaderEpochs>,
    producers: Producers,
    snapshots: std::iter::Peekable<std::vec::IntoIter<(i64, Vec<ProducerView>)>>,
    log_end: i64,
}

impl Walk {
    /// A segment must not begin before the one before it ends.
    fn enter(&mut self, path: &Path, base_offset: i64, report: &mut Report) {
        let from = self.log_end;
        match base_offset.cmp(&from) {
            std::cmp::Ordering::Less => {
                let damage = Damage::Offsets { base_offset, last_offset: base_offset, expected_min: from };
                report.found(path, Some(0), Fault::Batch(damage));
            }
            std::cmp::Ordering::Greater => {
                report.found(path, None, Fault::Gap { from, to: base_offset });
                self.log_end = base_offset;
            }
            std::cmp::Ordering::Equal => {}
        }
    }

    /// Walks over the headers of a segment; what is damaged in itself, another unit tells.
    fn pass(
        &mut self,
        disk: &dyn Disk,
        path: &Path,
        base_offset: i64,
        folder: &Folder,
        report: &mut Report,
    ) -> io::Result<()> {
        let file = disk.open(path)?;
        let mut scanner = Scanner::new(&*file, base_offset, (0, base_offset), file.length()?, READ_BYTES);
        let mut told = false;
        loop {
            match scanner.next(UNCHECKED) {
                Ok(Some((position, header))) => {
                    self.judge_snapshots(header.base_offset, folder, report);
                    if let Some(damage) = self.epoch_of(&header).filter(|_| !told) {
                        told = true;
                        report.found(path, Some(position), Fault::Batch(damage));
                    }
                    self.producers.update(&header, 0);
                    self.log_end = self.log_end.max(header.last_offset() + 1);
                }
                Ok(None) => return Ok(()),
                Err(ScanError::Damaged { .. }) => {
                    if !scanner.resync()? {
                        return Ok(());
                    }
                }
                Err(ScanError::Io(error)) => return Err(error),
            }
        }
    }

    fn epoch_of(&self, header: &BatchHeader) -> Option<Damage> {
        let expected = self.epochs.as_ref()?.at(header.last_offset())?;
        let found = header.partition_leader_epoch;
        (found != expected).then_some(Damage::LeaderEpoch { found, expected })
    }

    /// Compares the snapshots up to `offset`, where the walk is.
    fn judge_snapshots(&mut self, offset: i64, folder: &Folder, report: &mut Report) {
        while let Some((at, views)) = self.snapshots.next_if(|(at, _)| *at <= offset) {
            let path = folder.path.join(file_name(at, "snapshot"));
            if at > self.log_end && offset == i64::MAX {
                if !folder.in_use() {
                    report.found(&path, None, Fault::Ahead { log_end: self.log_end });
                }
                continue;
            }
            let in_log = self.producers.views();
            if let Some(fault) = views.iter().find_map(|view| contradiction(view, &in_log, at)) {
                report.found(&path, None, fault);
            }
        }
    }
}

/// What the log has of a producer that a snapshot should have had. What the snapshot has and the log does not may have been
/// deleted or compacted away.
fn contradiction(view: &ProducerView, in_log: &[ProducerView], snapshot_offset: i64) -> Option<Fault> {
    let place = |view: &ProducerView| ProducerPlace {
        epoch: view.producer_epoch,
        sequence: view.last_sequence,
        offset: view.last_offset,
    };
    let at = in_log.binary_search_by_key(&view.producer_id, |known| known.producer_id).ok()?;
    let (ours, logs) = (place(view), place(&in_log[at]));
    let is_behind = ours.offset < logs.offset || ours.epoch < logs.epoch;
    let is_other = ours.offset == logs.offset && ours != logs;
    let is_ahead = ours.offset >= snapshot_offset;
    (is_behind || is_other || is_ahead).then_some(Fault::Producer {
        producer_id: view.producer_id,
        epoch: ours.epoch,
        sequence: ours.sequence,
        offset: ours.offset,
        in_log: logs,
    })
}
