//! Looking for damage in log directories, Ottla's and Apache Kafka's: every byte of every batch, and everything beside the
//! batches against them. Changes nothing, and goes on behind damage to find what else there is.
//!
//! Work is cut into units, the segments and, for what spans segments, the folders; all cores take from one list of them.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use self::directory::Checkpoints;
use self::folder::Folder;
use super::checkpoint::InvalidCheckpoint;
use super::producers::InvalidSnapshot;
use super::scan::Damage;
use crate::storage::Disk;

mod directory;
mod folder;
mod indexes;
mod segment;

pub use self::folder::topic_id;
pub use self::indexes::entries;

/// Hears of bytes that were read.
pub type Progress<'p> = &'p (dyn Fn(u64) + Sync);

/// Findings of one file that are listed; after so many it is not read on.
const FINDINGS_MAX: usize = 100;

/// What was found at a place.
#[derive(Debug)]
pub struct Finding {
    /// The file or folder.
    pub path: PathBuf,
    /// Bytes from its start, where that means something.
    pub position: Option<u64>,
    /// What.
    pub fault: Fault,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some(position) => write!(f, "{} at position {position}: {}", self.path.display(), self.fault),
            None => write!(f, "{}: {}", self.path.display(), self.fault),
        }
    }
}

/// How much a finding matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Weight {
    /// Good to know; nothing is wrong.
    Note,
    /// Something is not as it was written.
    Damage,
    /// It could not be looked at.
    Unread,
}

/// What can be found.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The batch at the position is damaged; behind it the next whole one begins.
    #[error("{damage}; whole batches go on at position {next}")]
    Middle {
        /// What is wrong with it.
        damage: Damage,
        /// Where the next whole batch begins, bytes.
        next: u64,
    },
    /// The batch at the position is damaged, and no whole one follows in the file.
    #[error("{0}; nothing whole follows")]
    End(Damage),
    /// The batch is whole, but not right.
    #[error("{0}")]
    Batch(#[from] Damage),
    /// A record's offset is not within its batch.
    #[error("the batch of offsets {base_offset} to {last_offset} has a record of offset {offset}")]
    RecordOffset {
        /// The batch's first.
        base_offset: i64,
        /// The batch's last.
        last_offset: i64,
        /// The record's.
        offset: i64,
    },
    /// So much is wrong with the file that it was not read on.
    #[error("so much is wrong that the rest was not read")]
    TooMany,
    /// The last segment ends with zeros: room that was made and not used, or a write that never reached the disk.
    #[error("{0} zero bytes at the end: a start after a crash cuts them off")]
    ZeroTail(u64),
    /// The end of a file that a broker writes to.
    #[error("{0}: at the end of a file in use, perhaps being written just now")]
    BusyTail(Damage),
    /// An index does not end with an entry.
    #[error("{0} bytes, less than an entry, at the end")]
    PartOfEntry(u64),
    /// Entries do not rise.
    #[error("the entry is not above the one before it")]
    NotRising,
    /// An offset index leads astray.
    #[error(
        "the entry leads to offset {offset} at position {log_position}, where the log has no batch that ends with it"
    )]
    OffsetEntry {
        /// What the entry says.
        offset: i64,
        /// Where in the log it leads.
        log_position: u32,
    },
    /// A time index names a time that the batch does not have.
    #[error("the entry says that offset {offset} has timestamp {timestamp}, in the log it has {found}")]
    TimeEntry {
        /// What the entry says.
        offset: i64,
        /// What the entry says, ms.
        timestamp: i64,
        /// What the log says, ms.
        found: i64,
    },
    /// A time index names an offset that the log does not have.
    #[error("the entry says that offset {offset} has timestamp {timestamp}, the log has no such offset")]
    TimeEntryOffset {
        /// What the entry says.
        offset: i64,
        /// What the entry says, ms.
        timestamp: i64,
    },
    /// An entry of an index of aborted transactions.
    #[error(
        "the entry of producer {producer_id} has offsets {first_offset} to {last_offset}, which cannot be"
    )]
    AbortedEntry {
        /// What the entry says.
        producer_id: i64,
        /// What the entry says.
        first_offset: i64,
        /// What the entry says.
        last_offset: i64,
    },
    /// An entry of an index of aborted transactions in another format.
    #[error("version {0} where 0 is the only one known")]
    AbortedVersion(i16),
    /// A snapshot's own bytes.
    #[error("{0}")]
    Snapshot(#[from] InvalidSnapshot),
    /// A snapshot of what is not in the log.
    #[error("the log ends before it, at offset {log_end}")]
    Ahead {
        /// One beyond the log's last offset.
        log_end: i64,
    },
    /// A snapshot against the log.
    #[error(
        "producer {producer_id}: epoch {epoch}, sequence {sequence}, offset {offset}; in the log: {in_log}"
    )]
    Producer {
        /// The producer.
        producer_id: i64,
        /// The snapshot's.
        epoch: i16,
        /// The snapshot's.
        sequence: i32,
        /// The snapshot's.
        offset: i64,
        /// The log's.
        in_log: ProducerPlace,
    },
    /// A text checkpoint's own bytes.
    #[error("{0}")]
    Checkpoint(#[from] InvalidCheckpoint),
    /// A checkpoint against the log.
    #[error("offset {offset} of {topic}-{partition} is beyond the log's end, {log_end}")]
    Beyond {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The checkpoint's.
        offset: i64,
        /// One beyond the log's last offset.
        log_end: i64,
    },
    /// Leader epochs against the log.
    #[error("epoch {epoch} starts at {start_offset}, beyond the log's end, {log_end}")]
    EpochBeyond {
        /// The epoch.
        epoch: i32,
        /// Its first offset.
        start_offset: i64,
        /// One beyond the log's last offset.
        log_end: i64,
    },
    /// `partition.metadata`.
    #[error("expected the lines \"version: 0\" and \"topic_id: ID\"")]
    PartitionMetadata,
    /// `meta.properties`.
    #[error("{0} is missing or not what it must be")]
    Property(&'static str),
    /// Offsets between two segments.
    #[error("offsets {from} to {to} (exclusive) are missing before it: compacted away, or lost")]
    Gap {
        /// One beyond the last offset before.
        from: i64,
        /// The segment's base offset.
        to: i64,
    },
    /// An index that is not there.
    #[error("is missing: the next start makes it again")]
    NoIndex,
    /// A file that is not there.
    #[error("is missing: the next start reads it off the log")]
    NoEpochs,
    /// Something on its way in or out.
    #[error("left by a deletion, compaction or write: the next start clears it up")]
    Leftover,
    /// A folder that is no live partition's.
    #[error("a folder out of use")]
    Aside,
    /// What recovery has kept.
    #[error("kept when recovery cut the log: remove it when nothing in it is wanted")]
    Kept,
    /// An index of no segment.
    #[error("belongs to no segment: the next start removes it")]
    Orphan,
    /// Who knows.
    #[error("not a file of a log directory")]
    Unknown,
    /// A broker is at work.
    #[error("in use by a broker: the ends of its files may move while they are looked at")]
    InUse,
    /// Nobody has stopped it.
    #[error("not cleanly stopped: what is wrong at the ends of logs, the next start will mend")]
    Unclean,
    /// It could not be looked at.
    #[error("{0}")]
    Unread(#[source] io::Error),
}

impl Fault {
    /// How much it matters.
    pub fn weight(&self) -> Weight {
        match self {
            Self::Unread(_) => Weight::Unread,
            Self::ZeroTail(_)
            | Self::BusyTail(_)
            | Self::Gap { .. }
            | Self::NoIndex
            | Self::NoEpochs
            | Self::Leftover
            | Self::Aside
            | Self::Kept
            | Self::Orphan
            | Self::Unknown
            | Self::InUse
            | Self::Unclean => Weight::Note,
            _ => Weight::Damage,
        }
    }
}

/// The last batch of a producer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerPlace {
    /// Its epoch.
    pub epoch: i16,
    /// Its last sequence.
    pub sequence: i32,
    /// Its last offset.
    pub offset: i64,
}

impl fmt::Display for ProducerPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {}, sequence {}, offset {}", self.epoch, self.sequence, self.offset)
    }
}

/// What was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Folders of partitions.
    pub partitions: u64,
    /// Segments.
    pub segments: u64,
    /// Bytes of segments.
    pub bytes: u64,
    /// Whole batches.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Entries of indexes.
    pub entries: u64,
}

impl Totals {
    fn add(&mut self, other: Self) {
        self.partitions += other.partitions;
        self.segments += other.segments;
        self.bytes += other.bytes;
        self.batches += other.batches;
        self.records += other.records;
        self.entries += other.entries;
    }
}

/// What came of looking.
#[derive(Debug, Default)]
pub struct Report {
    /// By path and position.
    pub findings: Vec<Finding>,
    /// How much was looked at.
    pub totals: Totals,
}

impl Report {
    /// How many findings weigh that much.
    pub fn count(&self, weight: Weight) -> usize {
        self.findings.iter().filter(|finding| finding.fault.weight() == weight).count()
    }

    fn found(&mut self, path: &Path, position: Option<u64>, fault: impl Into<Fault>) {
        self.findings.push(Finding { path: path.to_owned(), position, fault: fault.into() });
    }

    /// A file that cannot be read; one that a broker has removed meanwhile is none.
    fn unread(&mut self, path: &Path, error: io::Error, in_use: bool) {
        if !(in_use && error.kind() == io::ErrorKind::NotFound) {
            self.found(path, None, Fault::Unread(error));
        }
    }

    fn add(&mut self, other: Self) {
        self.findings.extend(other.findings);
        self.totals.add(other.totals);
    }
}

/// What is not a directory, folder or file of a log.
#[derive(Debug, thiserror::Error)]
#[error("{}: not a log directory, a partition's folder, or a file of one", .0.display())]
pub struct NothingToVerify(pub PathBuf);

/// Everything that is to be looked at.
pub struct Verification<'d> {
    disk: &'d dyn Disk,
    folders: Vec<Folder>,
    directories: Vec<(PathBuf, Checkpoints)>,
    /// What the listing has found already.
    listed: Report,
}

impl<'d> Verification<'d> {
    /// Nothing yet.
    pub fn new(disk: &'d dyn Disk) -> Self {
        Self { disk, folders: Vec::new(), directories: Vec::new(), listed: Report::default() }
    }

    /// Adds a log directory, a partition's folder or a file. `is_in_use` says whether a broker has a directory open.
    ///
    /// # Errors
    /// It is none of these. What cannot be listed is a finding.
    pub fn add(&mut self, path: &Path, is_in_use: impl Fn(&Path) -> bool) -> Result<(), NothingToVerify> {
        match self.disk.list(path) {
            Ok(entries) if directory::is_one(&entries) => {
                let in_use = is_in_use(path);
                let (folders, checkpoints) =
                    directory::list(self.disk, path, &entries, in_use, &mut self.listed);
                self.folders.extend(folders);
                self.directories.push((path.to_owned(), checkpoints));
                Ok(())
            }
            Ok(entries) if folder::is_one(&entries) => {
                let in_use = path.canonicalize().is_ok_and(|path| path.parent().is_some_and(is_in_use));
                self.folders.push(Folder::list(self.disk, path, &entries, in_use, &mut self.listed));
                Ok(())
            }
            Ok(_) => Err(NothingToVerify(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                self.folders.push(Folder::of_file(self.disk, path, &mut self.listed)?);
                Ok(())
            }
            Err(error) => {
                self.listed.unread(path, error, false);
                Ok(())
            }
        }
    }

    /// Bytes of all segments together.
    pub fn bytes(&self) -> u64 {
        self.folders.iter().map(Folder::bytes).sum()
    }

    /// Looks at everything, on so many threads, and tells `progress` of bytes as they are read, up to [`Self::bytes`]. Blocks.
    pub fn run(mut self, threads: usize, progress: Progress<'_>) -> Report {
        let report = Mutex::new(std::mem::take(&mut self.listed));
        let this = &self;
        let segments = this.folders.iter().flat_map(|folder| {
            folder.segments.iter().enumerate().map(move |(number, _)| (folder, Some(number)))
        });
        let spanning = this.folders.iter().map(|folder| (folder, None));
        let units: Vec<_> = segments.chain(spanning).collect();
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..threads.clamp(1, units.len().max(1)) {
                scope.spawn(|| {
                    while let Some((folder, number)) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let found = match number {
                            Some(number) => folder.verify_segment(this.disk, *number, progress),
                            None => folder.verify_whole(this.disk),
                        };
                        report.lock().add(found);
                    }
                });
            }
        });
        let mut report = report.into_inner();
        for (path, checkpoints) in &this.directories {
            checkpoints.compare(path, &this.folders, &mut report);
        }
        report.findings.sort_by(|a, b| (&a.path, a.position).cmp(&(&b.path, b.position)));
        report
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::sync::Arc;

    use super::*;
    use crate::log::LogConfig;
    use crate::log::config::tests::config;
    use crate::log::fixture::{Fixture, TOPIC, TOPIC_ID, append, log_file, path, sequenced};
    use crate::log::segment::file_name;
    use crate::record::{BatchBuilder, Codec};
    use crate::storage::simulated::SimulatedDisk;
    use crate::storage::write_all_at;

    fn verify(disk: &SimulatedDisk, target: &str) -> Report {
        let mut verification = Verification::new(disk);
        verification.add(Path::new(target), |_| false).unwrap();
        verification.run(3, &|_| {})
    }

    fn damage(report: &Report) -> Vec<String> {
        let damaged = report.findings.iter().filter(|finding| finding.fault.weight() != Weight::Note);
        damaged.map(|finding| finding.to_string()).collect()
    }

    fn narrow() -> LogConfig {
        LogConfig { segment_bytes: 1500, index_interval_bytes: 200, ..config() }
    }

    /// Several segments, codecs, producers and leader epochs.
    fn written() -> Fixture {
        let fixture = Fixture::new();
        let partition = fixture.partition(narrow());
        for number in 0..40 {
            if number % 16 == 15 {
                partition.bump_leader_epoch(partition.leader_epoch() + 1);
            }
            let value = vec![b'v'; 40];
            let codec = Codec::ALL[number as usize % Codec::ALL.len()];
            let records = (0..3).fold(BatchBuilder::new(), |builder, record| {
                builder.record(1_700_000_000_000 + i64::from(number * 10 + record), None, Some(&value))
            });
            append(&partition, records.codec(codec).build_valid()).unwrap();
            append(&partition, sequenced(0, number)).unwrap();
        }
        drop(partition);
        fixture
    }

    #[test]
    fn what_was_stopped_killed_or_lost_power_is_sound() {
        let report = verify(&written().stop().disk, "/data");
        assert_eq!(damage(&report), [""; 0]);
        assert!(report.totals.segments > 3 && report.totals.entries > 10);
        let Totals { partitions, batches, records, .. } = report.totals;
        assert_eq!((partitions, batches, records), (1, 80, 160));
        for again in 0..5 {
            let fixture = if again == 0 { written().kill() } else { written().cut_power(again) };
            let partition = fixture.directory.partition(TOPIC, TOPIC_ID, 0, 9, Arc::new(narrow()));
            fixture.recover(&partition);
            drop(partition);
            assert_eq!(damage(&verify(&fixture.stop().disk, "/data")), [""; 0]);
        }
    }

    #[test]
    fn a_flipped_byte_is_named_wherever_it_lies() {
        let fixture = written().stop();
        drop(fixture.directory);
        let mut flipped = 0;
        for entry in fixture.disk.list(Path::new("/data/events-0")).unwrap() {
            // Whether an id is the topic's, only the catalog knows.
            if entry.name == "partition.metadata" {
                continue;
            }
            let file = path(&entry.name);
            let length = fixture.disk.content(&file).unwrap().len();
            for at in (flipped % 7..length).step_by(7) {
                let disk = fixture.disk.copy();
                disk.flip(&file, at, 1 << (at % 8)).unwrap();
                let found = damage(&verify(&disk, "/data"));
                // Wrong epochs are told where the log differs from them.
                let says = |found: &String| {
                    found.contains(&entry.name) || entry.name.starts_with("leader") && found.contains("epoch")
                };
                assert!(found.iter().any(says), "{} at {at}: {found:?}", entry.name);
                flipped += 1;
            }
        }
        assert!(flipped > 1000);
    }

    #[test]
    fn damage_does_not_hide_what_lies_behind_it() {
        let fixture = written().stop();
        drop(fixture.directory);
        let log = log_file(0);
        let whole = fixture.disk.content(&log).unwrap();
        for at in [200, 700] {
            fixture.disk.flip(&log, at, 1).unwrap();
        }
        let report = verify(&fixture.disk, "/data/events-0");
        let found: Vec<_> = report.findings.iter().filter(|finding| finding.path == log).collect();
        assert!(found.len() == 2 && found.iter().all(|found| matches!(found.fault, Fault::Middle { .. })));
        assert_eq!(report.totals.batches, 78);
        // What is left of a file that ends too early.
        fixture.disk.cut(&log, whole.len() - 3).unwrap();
        let found = damage(&verify(&fixture.disk, log.to_str().unwrap()));
        assert!(found[2].contains("ends 3 bytes before the batch does; nothing whole follows"), "{found:?}");
    }

    #[test]
    fn what_a_crash_of_kafka_leaves_is_no_damage() {
        let fixture = written().stop();
        drop(fixture.directory);
        let disk = &fixture.disk;
        let last = disk.list(Path::new("/data/events-0")).unwrap();
        let last = last.iter().filter(|entry| entry.name.ends_with(".log")).map(|entry| &entry.name).max();
        let log = path(last.unwrap());
        for (name, bytes) in [("index", 10_480), ("timeindex", 12_000), ("log", 5000)] {
            disk.open(&log.with_extension(name)).unwrap().set_len(bytes).unwrap();
        }
        for name in ["00000000000000000007.log.deleted", "x.cleaned", "leader-epoch-checkpoint.tmp", "notes"]
        {
            disk.create(&path(name)).unwrap();
        }
        let aborted = disk.create(&log.with_extension("txnindex")).unwrap();
        let base: i64 = last.unwrap()[..20].parse().unwrap();
        let mut entry = vec![0, 0];
        for number in [7, base, base + 1, base + 2] {
            entry.extend_from_slice(&number.to_be_bytes());
        }
        write_all_at(&*aborted, &mut [IoSlice::new(&entry)], 0).unwrap();
        let report = verify(disk, "/data");
        assert_eq!(damage(&report), [""; 0]);
        let notes: Vec<_> = report.findings.iter().map(|finding| finding.to_string()).collect();
        for said in ["zero bytes at the end", ".deleted: left by", "notes: not a file", ".tmp: left by"] {
            assert!(notes.iter().any(|note| note.contains(said)), "{said}: {notes:?}");
        }
        disk.flip(&log.with_extension("txnindex"), 19, 0xff).unwrap();
        assert!(damage(&verify(disk, "/data"))[0].contains("txnindex at position 0"));
    }

    #[test]
    fn checkpoints_and_snapshots_beyond_the_log_are_named() {
        let fixture = written().stop();
        drop(fixture.directory);
        let disk = &fixture.disk;
        let bases: Vec<i64> = disk
            .list(Path::new("/data/events-0"))
            .unwrap()
            .iter()
            .filter_map(|entry| entry.name.strip_suffix(".log")?.parse().ok())
            .collect();
        disk.remove(&log_file(*bases.iter().max().unwrap())).unwrap();
        let found = damage(&verify(disk, "/data"));
        for said in [
            "recovery-point-offset-checkpoint: offset 160 of events-0 is beyond the log's end",
            &format!("{}: the log ends before it", file_name(160, "snapshot")),
        ] {
            assert!(found.iter().any(|found| found.contains(said)), "{said}: {found:?}");
        }
        let mut verification = Verification::new(disk);
        assert!(verification.add(Path::new("/"), |_| false).is_err());
        assert!(verification.add(Path::new("/data/.lock"), |_| false).is_err());
    }
}
