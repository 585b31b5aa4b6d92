//! A log under random use, random faults and random deaths, compared with a list of what was appended. A seed makes the whole
//! run: nothing happens at the same time as something else, but that a sync may wait in its middle while the log is used. A
//! failing seed is printed and reproduces with `OTTLA_SEED=n cargo test --lib log::model`. `OTTLA_SEEDS=n` runs that many (1,000
//! without it), from `OTTLA_FROM=n` on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use fastrand::Rng;
use rustix::io::Errno;

use super::fixture::{Fixture, NOW_MS, at_once, builder, run};
use super::recovery::parse_file_name;
use super::verify::{Verification, Weight};
use super::{FlushMode, LogConfig, LogError, Partition};
use crate::log::config::tests::config;
use crate::record::{BatchHeader, HEADER_BYTES};
use crate::storage::Disk;
use crate::storage::simulated::SimulatedDisk;

/// Steps of a run, before the end.
const STEPS_MAX: usize = 60;

/// Where the leader epoch stands in a batch.
const EPOCH_BYTES: std::ops::Range<usize> = 12..16;

/// First byte of a header that the reader's checksum, or the checksum itself, covers.
const READER_CHECKS_FROM: usize = 17;

/// A batch that was appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Appended {
    base: i64,
    end: i64,
    crc: u32,
    epoch: i32,
}

/// A batch as a reader gets it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Read {
    batch: Appended,
    /// Whether its checksum is that of its bytes.
    is_whole: bool,
}

/// A log, and what must hold of it.
struct World {
    seed: u64,
    random: Rng,
    config: Arc<LogConfig>,
    fixture: Option<Fixture>,
    partition: Option<Arc<Partition>>,
    /// A sync that has begun and waits for the disk.
    syncing: Option<JoinHandle<bool>>,
    batches: Vec<Appended>,
    /// Where the next batch goes.
    end: i64,
    log_start: i64,
    /// How far a failed call may have moved it.
    log_start_max: i64,
    /// Everything below it survives the death of the machine: it was promised to, or has been synced.
    promised: i64,
    /// The leader epoch, as the catalog has it.
    epoch: i32,
    /// Whether something other than a full disk has gone wrong: then all but what was promised may fail until the next start.
    has_failed: bool,
    is_full: bool,
    /// Whether a time index may name times that no record has.
    has_wrong_times: bool,
}

/// How something ended that the disk may have made fail.
type Outcome<T> = Result<T, LogError>;

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let flush = if random.bool() { FlushMode::Commit } else { FlushMode::Os };
        let config = Arc::new(LogConfig {
            flush,
            preallocate: random.u8(..4) == 0,
            segment_bytes: 700,
            index_interval_bytes: 150,
            file_delete_delay_ms: 0,
            ..config()
        });
        let mut world = Self {
            seed,
            random,
            config,
            fixture: None,
            partition: None,
            syncing: None,
            batches: Vec::new(),
            end: 0,
            log_start: 0,
            log_start_max: 0,
            promised: 0,
            epoch: 0,
            has_failed: false,
            is_full: false,
            has_wrong_times: false,
        };
        world.open(SimulatedDisk::default());
        world
    }

    fn fixture(&self) -> &Fixture {
        self.fixture.as_ref().unwrap()
    }

    fn partition(&self) -> &Arc<Partition> {
        self.partition.as_ref().unwrap()
    }

    fn disk(&self) -> SimulatedDisk {
        self.fixture().disk.clone()
    }

    fn step(&mut self) {
        match self.random.u8(..40) {
            0..14 => self.append(),
            14..17 => self.settle(),
            17..21 => self.begin_sync(),
            21 => self.end_sync(),
            22 => self.do_chores(),
            23 => self.delete_records(),
            24 => self.retain(),
            25 => self.fill_up(),
            26 => self.disk().shorten_writes(self.random.usize(1..90)),
            27 => self.fail_writes(),
            28 => self.fail_syncs(),
            29 => self.fail_looks(),
            30..32 => self.die_at_work(),
            32..34 => self.kill(),
            34..37 => self.cut_power(),
            _ => self.stop(),
        }
        self.compare();
    }

    fn append(&mut self) {
        let (records, value_bytes) = (self.random.usize(1..4), self.random.usize(..120));
        let batch = builder(records, value_bytes).build_valid();
        let epoch = self.partition().leader_epoch();
        match self.partition().append(batch.clone()) {
            Ok(appended) => {
                assert_eq!(appended.base_offset, self.end, "seed {}: dense", self.seed);
                self.end = appended.last_offset + 1;
                let crc = batch.header().crc;
                self.batches.push(Appended { base: appended.base_offset, end: self.end, crc, epoch });
            }
            Err(LogError::NoSpace { .. }) if self.is_full => {}
            Err(error) => self.may_fail(&error),
        }
    }

    fn may_fail(&self, error: &dyn std::fmt::Display) {
        assert!(self.has_failed, "seed {}: {error}", self.seed);
    }

    /// A sync goes on up to one of its files, for which the disk takes its time.
    fn begin_sync(&mut self) {
        self.end_sync();
        if self.fixture().directory.sync_queue_len() == 0 {
            return;
        }
        let (disk, directory) = (self.disk(), Arc::clone(&self.fixture().directory));
        disk.hold_syncs_of_others_after(self.random.usize(..4));
        let syncing = std::thread::spawn(move || directory.sync_next());
        while disk.syncs_waiting() == 0 && !syncing.is_finished() {
            std::thread::yield_now();
        }
        self.syncing = Some(syncing);
    }

    fn end_sync(&mut self) {
        self.disk().release_syncs();
        if let Some(syncing) = self.syncing.take() {
            assert!(syncing.join().unwrap());
        }
    }

    /// Waits until everything appended so far counts as stored.
    fn settle(&mut self) {
        self.end_sync();
        while self.fixture().directory.sync_next() {}
        match at_once(self.partition().durable(self.end)).expect("nothing is left to be synced") {
            Ok(()) => match self.partition().offsets() {
                Ok(offsets) => assert_eq!(offsets.high_watermark, self.end, "seed {}", self.seed),
                Err(error) => self.may_fail(&error),
            },
            Err(error) => self.may_fail(&error),
        }
    }

    fn do_chores(&mut self) {
        self.fixture().directory.do_chores();
    }

    /// To some share of what is visible.
    fn delete_records(&mut self) {
        let visible = match self.partition().offsets() {
            Ok(offsets) => offsets.high_watermark.max(self.log_start),
            Err(error) => return self.may_fail(&error),
        };
        let before = self.random.i64(self.log_start..=visible);
        match self.partition().delete_records(before) {
            Ok(log_start) => {
                assert_eq!(log_start, before.max(log_start), "seed {}", self.seed);
                assert!(log_start <= self.log_start_max.max(before), "seed {}", self.seed);
                self.log_start = before;
                self.log_start_max = log_start;
            }
            Err(error) => {
                self.may_fail(&error);
                self.log_start_max = self.log_start_max.max(before);
            }
        }
    }

    /// Down to so many bytes, or all that is visible.
    fn retain(&mut self) {
        let bytes = self.random.bool().then(|| self.random.i64(..2000));
        let limited = match bytes {
            Some(retention_bytes) => LogConfig { retention_bytes, ..(*self.config).clone() },
            None => LogConfig { retention_ms: 0, ..(*self.config).clone() },
        };
        let (fixture, partition) = (self.fixture(), self.partition());
        fixture.clock.set(NOW_MS + 1);
        partition.reconfigure(Arc::new(limited));
        let visible = partition.offsets().map(|offsets| offsets.high_watermark.max(self.log_start));
        fixture.directory.retain();
        partition.reconfigure(Arc::clone(&self.config));
        let log_start = partition.offsets().map(|offsets| offsets.log_start_offset);
        let (log_start, visible) = match (log_start, visible) {
            (Ok(log_start), Ok(visible)) => (log_start, visible),
            (Err(error), _) | (_, Err(error)) => {
                self.may_fail(&error);
                self.log_start_max = self.log_start_max.max(self.end);
                return;
            }
        };
        assert!(
            (self.log_start..=visible.max(self.log_start_max)).contains(&log_start),
            "seed {}",
            self.seed
        );
        // A time index that is not right may keep a segment from going.
        let all_goes = bytes.is_none() && visible == self.end && !self.has_wrong_times;
        assert!(
            !all_goes || log_start == self.end || self.has_failed,
            "seed {}: {log_start} of {}",
            self.seed,
            self.end
        );
        self.log_start_max = log_start;
        if !self.has_failed {
            self.log_start = log_start;
        }
    }

    /// The disk is full for a while, in the middle of a write; appends are refused, and go on by themselves afterwards.
    fn fill_up(&mut self) {
        self.disk().fail_writes_after(self.random.u64(..200), Errno::NOSPC);
        self.is_full = true;
        for _ in 0..self.random.usize(1..5) {
            self.append();
            self.compare();
        }
        self.disk().mend_writes();
        self.is_full = false;
    }

    fn fail_writes(&mut self) {
        self.has_failed = true;
        self.disk().fail_writes_after(self.random.u64(..200), Errno::IO);
    }

    fn fail_syncs(&mut self) {
        self.has_failed = true;
        self.disk().fail_syncs(Errno::IO);
    }

    /// Of the next readings, listings and openings, a few fail.
    fn fail_looks(&mut self) {
        self.has_failed = true;
        self.disk().fail_looks(self.random.usize(..20), self.random.usize(1..4), Errno::IO);
    }

    /// In the middle of something that changes more than one thing.
    fn die_at_work(&mut self) {
        self.end_sync();
        self.has_failed = true;
        self.disk().fail_changes_after(self.random.usize(..12));
        for _ in 0..self.random.usize(1..4) {
            match self.random.u8(..6) {
                0..2 => self.append(),
                2 => self.settle(),
                3 => self.do_chores(),
                4 => self.delete_records(),
                _ => self.retain(),
            }
        }
        if self.random.u8(..4) == 0 {
            run(self.fixture().directory.close());
        }
        if self.random.bool() { self.kill() } else { self.cut_power() }
    }

    /// What was written stays in the page cache.
    fn kill(&mut self) {
        let disk = self.halt();
        self.start(disk, false);
    }

    fn stop(&mut self) {
        self.end_sync();
        self.disk().mend();
        run(self.fixture().directory.close());
        let disk = self.halt();
        self.start(disk, false);
    }

    fn cut_power(&mut self) {
        let disk = self.halt();
        self.lose_power(&disk);
        self.start(disk, true);
    }

    fn lose_power(&mut self, disk: &SimulatedDisk) {
        let seed = self.random.u64(..);
        if self.random.bool() {
            disk.power_cut(seed);
        } else {
            disk.power_cut_out_of_order(seed);
        }
    }

    fn halt(&mut self) -> SimulatedDisk {
        if self.random.bool() {
            // The sync that goes on dies too.
            self.disk().fail_syncs(Errno::IO);
        }
        self.end_sync();
        self.partition = None;
        let disk = self.fixture.take().unwrap().halt();
        disk.mend();
        disk
    }

    /// While nobody looks, a small file may get lost, cut or filled with something else: those can be made again.
    fn meddle(&mut self, disk: &SimulatedDisk) {
        let Ok(entries) = disk.list(Path::new("/data/t-3")) else { return };
        let small = |name: &str| {
            let suffixes = ["index", "timeindex", "snapshot"];
            parse_file_name(name).is_some_and(|(_, suffix)| suffixes.contains(&suffix))
                || name == "leader-epoch-checkpoint"
        };
        let names: Vec<_> = entries.into_iter().map(|entry| entry.name).filter(|name| small(name)).collect();
        if names.is_empty() {
            return;
        }
        let file = Path::new("/data/t-3").join(&names[self.random.usize(..names.len())]);
        let length = disk.content(&file).unwrap().len();
        match self.random.u8(..3) {
            0 => disk.remove(&file).unwrap(),
            1 => disk.cut(&file, self.random.usize(..=length)).unwrap(),
            _ => {
                (0..length).for_each(|at| disk.flip(&file, at, self.random.u8(..)).unwrap());
                self.has_wrong_times |= file.extension().is_some_and(|extension| extension == "timeindex");
            }
        }
        disk.sync_dir(Path::new("/data/t-3")).unwrap();
    }

    /// Starts again, if need be after starts that fail.
    fn start(&mut self, disk: SimulatedDisk, mut machine_died: bool) {
        if self.random.u8(..3) == 0 {
            self.meddle(&disk);
        }
        while self.random.u8(..5) == 0 {
            self.start_in_vain(&disk);
            if self.random.bool() {
                self.lose_power(&disk);
                machine_died = true;
            }
        }
        self.open(disk);
        self.has_failed = false;
        let offsets = self.partition().offsets().unwrap();
        assert_eq!(offsets.high_watermark, offsets.log_end_offset, "seed {}", self.seed);
        // Its first segment may be lost as long as none of it was promised.
        match machine_died {
            true if self.promised <= self.log_start_max => self.expect_some(),
            true => self.expect_prefix(self.promised),
            false => self.expect_prefix(self.end),
        }
    }

    /// The process dies before the start has come to its end, or the disk fails.
    fn start_in_vain(&mut self, disk: &SimulatedDisk) {
        match self.random.bool() {
            true => disk.fail_changes_after(self.random.usize(..12)),
            false => disk.fail_looks(self.random.usize(..40), self.random.usize(1..4), Errno::IO),
        }
        if let Ok(fixture) = Fixture::open(disk.clone(), 0) {
            let partition = self.partition_of(&fixture);
            if !fixture.directory.was_clean() {
                fixture.directory.recover(std::slice::from_ref(&partition));
            }
            // Readers may find it.
            let _offsets: Outcome<_> = partition.offsets();
            drop(partition);
            fixture.halt();
        }
        disk.mend();
    }

    fn partition_of(&self, fixture: &Fixture) -> Arc<Partition> {
        fixture.directory.partition("t", super::fixture::TOPIC_ID, 3, self.epoch, Arc::clone(&self.config))
    }

    fn open(&mut self, disk: SimulatedDisk) {
        let fixture = Fixture::open(disk, 0).unwrap();
        let partition = self.partition_of(&fixture);
        if !fixture.directory.was_clean() && !fixture.recover(&partition).is_empty() {
            // As the catalog does it.
            partition.bump_leader_epoch(partition.leader_epoch() + 1);
        }
        self.epoch = partition.leader_epoch();
        self.fixture = Some(fixture);
        self.partition = Some(partition);
    }

    /// The log was opened after a death that left all batches up to `promised`, and some more.
    fn expect_prefix(&mut self, promised: i64) {
        let offsets = self.partition().offsets().unwrap();
        let seed = self.seed;
        self.end = offsets.log_end_offset;
        assert!(self.end >= promised, "seed {seed}: {} is left of {promised} promised", self.end);
        let log_start = offsets.log_start_offset;
        assert!((self.log_start..=self.log_start_max).contains(&log_start), "seed {seed}: {log_start}");
        self.batches.retain(|batch| batch.end <= offsets.log_end_offset);
        let last = self.batches.last().map_or(0, |batch| batch.end);
        assert_eq!(self.end, last.max(log_start), "seed {seed}: an end between batches");
        (self.log_start, self.log_start_max) = (log_start, log_start);
    }

    /// The log was opened after a death before which nothing was promised: whatever is left was appended once.
    fn expect_some(&mut self) {
        let offsets = self.partition().offsets().unwrap();
        let seed = self.seed;
        let log_start = offsets.log_start_offset;
        assert!(log_start >= self.log_start, "seed {seed}: what was deleted is back");
        let left = self.read(log_start);
        assert!(
            left.iter().all(|batch| self.batches.contains(batch)),
            "seed {seed}: {left:?} of {:?}",
            self.batches
        );
        let last = left.last().map_or(0, |batch| batch.end);
        assert_eq!(offsets.log_end_offset, last.max(log_start), "seed {seed}");
        (self.batches, self.end) = (left, offsets.log_end_offset);
        (self.log_start, self.log_start_max) = (log_start, log_start);
    }

    /// Readers see a prefix of what was appended, up to the high watermark. A directory that has gone offline shows nothing.
    fn compare(&mut self) {
        if let Some((synced, _)) = self.partition().checkpoint() {
            self.promised = self.promised.max(synced);
        }
        let offsets = match self.partition().offsets() {
            Ok(offsets) => offsets,
            Err(error) => return self.may_fail(&error),
        };
        let (log_start, visible) = (offsets.log_start_offset, offsets.high_watermark);
        let seed = self.seed;
        assert!(
            (self.log_start..=self.log_start_max).contains(&log_start),
            "seed {seed}: starts at {log_start}"
        );
        if self.config.flush == FlushMode::Commit {
            self.promised = self.promised.max(visible);
        }
        let (read, error) = self.read_until_error(log_start);
        if let Some(error) = &error {
            self.may_fail(error);
            assert!(self.partition().is_offline(), "seed {seed}: {error}, and the directory goes on");
        }
        assert!(read.iter().all(|read| read.is_whole), "seed {seed}: a torn batch");
        let read: Vec<_> = read.into_iter().map(|read| read.batch).collect();
        let appended: Vec<_> = self.batches.iter().filter(|batch| batch.end > log_start).copied().collect();
        assert!(appended.starts_with(&read), "seed {seed}: {read:?} of {appended:?}");
        let hidden = appended[read.len()..].iter().all(|batch| batch.end > visible);
        assert!(hidden || error.is_some(), "seed {seed}: {read:?} below {visible}");
    }

    fn read(&self, offset: i64) -> Vec<Appended> {
        let (read, error) = self.read_until_error(offset);
        assert!(error.is_none(), "seed {}: {error:?}", self.seed);
        assert!(read.iter().all(|read| read.is_whole), "seed {}: a torn batch", self.seed);
        read.into_iter().map(|read| read.batch).collect()
    }

    /// The batches that can be read from `offset` on, and what ended that.
    fn read_until_error(&self, offset: i64) -> (Vec<Read>, Option<LogError>) {
        let (mut found, mut next): (Vec<Read>, _) = (Vec::new(), offset);
        loop {
            // Sometimes all is in memory, sometimes nothing.
            self.disk().set_cold(next % 3 == 0);
            let partition = self.partition();
            let read = match partition.read_cached(next, 10_000, true).transpose() {
                Some(read) => read,
                None => partition.read(next, 10_000, true),
            };
            let read = match read {
                // Reading the bytes is the reader's own affair.
                Ok(read) => self.disk().without_faults(|| super::fixture::bytes(&read.ranges)),
                Err(error) => return (found, Some(error)),
            };
            let (mut rest, before) = (&read[..], found.len());
            while let Ok(header) = BatchHeader::parse(rest)
                && let Some((bytes, behind)) = rest.split_at_checked(header.size_bytes())
            {
                next = header.last_offset() + 1;
                let is_whole = header.checksum(&bytes[HEADER_BYTES..]) == header.crc;
                let (base, epoch) = (header.base_offset, header.partition_leader_epoch);
                found.push(Read { batch: Appended { base, end: next, crc: header.crc, epoch }, is_whole });
                rest = behind;
            }
            if found.len() == before {
                return (found, None);
            }
        }
    }

    /// A bit flips at rest, anywhere in a segment: it is named, and nobody is served what it has changed without being able to see
    /// that. Everything before it is there.
    fn rot(&mut self) {
        self.disk().mend();
        self.settle();
        if self.has_failed {
            self.kill();
            self.settle();
        }
        let is_clean = self.random.bool();
        if is_clean {
            run(self.fixture.as_ref().unwrap().directory.close());
        }
        let disk = self.halt();
        let Ok(entries) = disk.list(Path::new("/data/t-3")) else { return };
        let log = |name: &str| matches!(parse_file_name(name), Some((_, "log")));
        let logs: Vec<PathBuf> = entries
            .iter()
            .filter(|entry| log(&entry.name))
            .map(|entry| Path::new("/data/t-3").join(&entry.name))
            .filter(|path| batches_end(&disk.content(path).unwrap()) > 0)
            .collect();
        if logs.is_empty() {
            return;
        }
        let file = &logs[self.random.usize(..logs.len())];
        // All of it is at rest.
        for folder in ["/data", "/data/t-3"] {
            disk.sync_dir(Path::new(folder)).unwrap();
        }
        disk.sync_all(Path::new("/")).unwrap();
        let whole = disk.content(file).unwrap();
        let at = self.random.usize(..batches_end(&whole));
        let (position, flipped) = batch_at(&whole, at);
        let epochs = disk.content(Path::new("/data/t-3/leader-epoch-checkpoint"));
        let in_epoch = EPOCH_BYTES.contains(&(at - position as usize));
        if in_epoch && !epochs.is_ok_and(|epochs| epochs.ends_with(b"\n")) {
            // No checksum covers it, and what else tells of it got lost.
            return;
        }
        let bit = 1 << self.random.u8(..8);
        let mut rotten = whole;
        rotten[at] ^= bit;
        let may_be_first = flipped.end == self.end || flipped.base < self.log_start;
        if in_epoch && may_be_first && (0..=self.epoch).contains(&batch_at(&rotten, at).1.epoch) {
            // The last batch may well be the first of an epoch that the broker has led in, if Kafka has written it; and of one that
            // the log start lies in, nobody knows any more when its epoch began.
            return;
        }
        disk.flip(file, at, bit).unwrap();
        let what = format!("seed {}: byte {at} of {}, in {flipped:?}", self.seed, file.display());

        let mut verification = Verification::new(&disk);
        verification.add(Path::new("/data"), |_| false).unwrap();
        let report = verification.run(1, &|_| {});
        let named = report
            .findings
            .iter()
            .any(|finding| finding.fault.weight() == Weight::Damage && finding.path == *file);
        // Of what is deleted nobody knows the epoch any more.
        assert!(named || flipped.end <= self.log_start, "{what}: {:?}", report.findings);

        let machine_died = !is_clean && self.random.bool();
        if machine_died {
            disk.power_cut(self.seed);
        }
        self.open(disk);
        // After a clean stop it is only opened now.
        let offsets = self.partition().offsets().unwrap();
        let cuts = self.fixture.as_ref().unwrap().directory.found().cuts;
        // A log whose end is damaged below its start begins anew.
        let before: Vec<_> = self
            .batches
            .iter()
            .filter(|batch| batch.end > self.log_start && batch.end <= flipped.base)
            .copied()
            .collect();
        let (mut read, error) = self.read_until_error(self.log_start);
        if let Some(cut) = cuts.first() {
            assert_eq!((&cut.path, cut.position), (file, position), "{what}: {cut:?}");
            assert_eq!(offsets.log_end_offset, flipped.base.max(self.log_start), "{what}");
        } else if at - (position as usize) >= READER_CHECKS_FROM {
            // Served as it is, for the reader to see.
            let damaged = read.iter().position(|read| read.batch.base == flipped.base);
            assert!(
                flipped.end <= self.log_start
                    // The commit journal may have had it, and written it again.
                    || damaged.is_some_and(|at| !read[at].is_whole || machine_died)
                    || error.is_some(),
                "{what}"
            );
            damaged.map(|at| read.remove(at));
        }
        assert!(read.iter().all(|read| read.is_whole), "{what}");
        let read: Vec<_> = read.into_iter().map(|read| read.batch).collect();
        assert!(read.iter().all(|batch| self.batches.contains(batch)), "{what}: {read:?}");
        assert!(
            read.starts_with(&before) || before.starts_with(&read) && flipped.base < self.log_start,
            "{what}: {read:?}"
        );
    }
}

/// Where the last batch ends: before the zeros of a file that was made longer ahead of time.
fn batches_end(log: &[u8]) -> usize {
    let mut position = 0;
    while let Some(Ok(header)) = log.get(position..).map(BatchHeader::parse) {
        position += header.size_bytes();
    }
    position.min(log.len())
}

/// The batch that holds the byte at `at`, and where it begins.
fn batch_at(log: &[u8], at: usize) -> (u64, Appended) {
    let mut position = 0;
    loop {
        let header = BatchHeader::parse(&log[position..]).unwrap();
        if at < position + header.size_bytes() {
            let BatchHeader { base_offset, crc, partition_leader_epoch, .. } = header;
            let end = header.last_offset() + 1;
            let batch = Appended { base: base_offset, end, crc, epoch: partition_leader_epoch };
            return (position as u64, batch);
        }
        position += header.size_bytes();
    }
}

/// Names the seed of a run that panics.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("again with OTTLA_SEED={}", self.0);
        }
    }
}

/// Makes a run, and gives what its steps have come to.
fn run_seed(seed: u64) -> String {
    let _named = Named(seed);
    let mut world = World::new(seed);
    let mut story = String::new();
    for _ in 0..world.random.usize(1..STEPS_MAX) {
        world.step();
        let World { batches, end, log_start, promised, epoch, has_failed, .. } = &world;
        let (writes, opens) = (world.disk().writes(), world.disk().opens());
        story += &format!("{batches:?} {end} {log_start} {promised} {epoch} {has_failed} {writes} {opens}\n");
    }
    world.rot();
    story
}

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    match number("OTTLA_SEED") {
        Some(seed) => vec![seed],
        None => {
            let first = number("OTTLA_FROM").unwrap_or(0);
            (first..first + number("OTTLA_SEEDS").unwrap_or(1000)).collect()
        }
    }
}

#[test]
fn nothing_promised_is_lost_whatever_the_disk_does_and_what_rots_is_named() {
    for seed in seeds() {
        run_seed(seed);
    }
}

#[test]
fn a_seed_makes_the_same_run_each_time() {
    for seed in 0..100 {
        assert_eq!(run_seed(seed), run_seed(seed), "seed {seed}");
    }
}
