//! A log under random use, random faults and random deaths, compared with a list of what was appended. A seed makes the whole
//! run; a failing one is printed and reproduces with `OTTLA_SEED=n cargo test --lib log::model`. `OTTLA_SEEDS=n` runs that
//! many (1,000 without it).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fastrand::Rng;
use rustix::io::Errno;

use super::fixture::{Fixture, NOW_MS, builder, high_watermark, run};
use super::recovery::parse_file_name;
use super::verify::{Verification, Weight};
use super::{Cut, FlushMode, LogConfig, LogError, Partition};
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
    batches: Vec<Appended>,
    /// Where the next batch goes.
    end: i64,
    log_start: i64,
    /// Everything below it was promised to survive the death of the machine.
    promised: i64,
    /// The leader epoch, as the catalog has it.
    epoch: i32,
    /// Whether something other than a full disk has gone wrong: then appends may be refused until the next start.
    has_failed: bool,
    is_full: bool,
    has_meddled: bool,
}

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
        let fixture = Fixture::new();
        let partition = fixture.directory.partition("t", super::fixture::TOPIC_ID, 3, 0, Arc::clone(&config));
        Self {
            seed,
            random,
            config,
            fixture: Some(fixture),
            partition: Some(partition),
            batches: Vec::new(),
            end: 0,
            log_start: 0,
            promised: 0,
            epoch: 0,
            has_failed: false,
            is_full: false,
            has_meddled: false,
        }
    }

    fn partition(&self) -> &Arc<Partition> {
        self.partition.as_ref().unwrap()
    }

    fn disk(&self) -> SimulatedDisk {
        self.fixture.as_ref().unwrap().disk.clone()
    }

    fn step(&mut self) {
        match self.random.u8(..32) {
            0..14 => self.append(),
            14..19 => self.settle(),
            19 if self.random.bool() => self.delete_records(),
            19 => self.retain(),
            20 => self.fill_up(),
            21 => self.disk().shorten_writes(self.random.usize(1..90)),
            // A slow disk: until the next death, or until somebody waits for it.
            22 => self.disk().hold_syncs(),
            23 => self.fail_writes(),
            24 => self.fail_syncs(),
            25..27 => self.kill(),
            27..30 => self.cut_power(),
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
            Err(error) => assert!(self.has_failed, "seed {}: {error}", self.seed),
        }
    }

    /// Waits until everything appended so far counts as stored.
    fn settle(&mut self) {
        self.disk().release_syncs();
        match run(self.partition().durable(self.end)) {
            Ok(()) => {
                match self.partition().offsets() {
                    Ok(offsets) => assert_eq!(offsets.high_watermark, self.end, "seed {}", self.seed),
                    Err(error) => assert!(self.has_failed, "seed {}: {error}", self.seed),
                }
                if self.config.flush == FlushMode::Commit {
                    self.promised = self.end;
                }
            }
            Err(error) => assert!(self.has_failed, "seed {}: {error}", self.seed),
        }
    }

    /// To some share of what is visible.
    fn delete_records(&mut self) {
        if self.has_failed || self.is_full {
            return;
        }
        self.disk().release_syncs();
        let before = self.random.i64(self.log_start..=high_watermark(self.partition()));
        assert_eq!(self.partition().delete_records(before).unwrap(), before, "seed {}", self.seed);
        self.log_start = before;
    }

    /// Down to so many bytes, or all that is visible.
    fn retain(&mut self) {
        if self.has_failed || self.is_full {
            return;
        }
        self.disk().release_syncs();
        let bytes = self.random.bool().then(|| self.random.i64(..2000));
        let limited = match bytes {
            Some(retention_bytes) => LogConfig { retention_bytes, ..(*self.config).clone() },
            None => LogConfig { retention_ms: 0, ..(*self.config).clone() },
        };
        let fixture = self.fixture.as_ref().unwrap();
        fixture.clock.set(NOW_MS + 1);
        let partition = self.partition();
        partition.reconfigure(Arc::new(limited));
        let visible = high_watermark(partition);
        fixture.directory.retain();
        partition.reconfigure(Arc::clone(&self.config));
        let log_start = partition.offsets().unwrap().log_start_offset;
        // Which may have moved on meanwhile.
        let visible_now = high_watermark(partition).max(self.log_start);
        assert!((self.log_start..=visible_now).contains(&log_start), "seed {}", self.seed);
        // A time index that is not right may keep a segment from going.
        let all_goes = bytes.is_none() && visible == self.end && !self.has_meddled;
        assert!(!all_goes || log_start == self.end, "seed {}: {log_start} of {}", self.seed, self.end);
        self.log_start = log_start;
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

    /// What was written stays in the page cache.
    fn kill(&mut self) {
        let disk = self.halt();
        self.start(disk);
        self.expect_prefix(self.end);
    }

    fn stop(&mut self) {
        self.disk().mend();
        run(self.fixture.as_ref().unwrap().directory.close());
        let disk = self.halt();
        self.start(disk);
        self.expect_prefix(self.end);
    }

    fn cut_power(&mut self) {
        let disk = self.halt();
        let seed = self.random.u64(..);
        if self.random.bool() {
            disk.power_cut(seed)
        } else {
            disk.power_cut_out_of_order(seed)
        }
        self.start(disk);
        // Its first segment may be lost as long as none of it was promised.
        if self.promised <= self.log_start {
            self.expect_some();
        } else {
            self.expect_prefix(self.promised);
        }
    }

    fn halt(&mut self) -> SimulatedDisk {
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
        self.has_meddled = true;
        let length = disk.content(&file).unwrap().len();
        match self.random.u8(..3) {
            0 => disk.remove(&file).unwrap(),
            1 => disk.cut(&file, self.random.usize(..=length)).unwrap(),
            _ => (0..length).for_each(|at| disk.flip(&file, at, self.random.u8(..)).unwrap()),
        }
        disk.sync_dir(Path::new("/data/t-3")).unwrap();
    }

    fn start(&mut self, disk: SimulatedDisk) {
        if self.random.u8(..3) == 0 {
            self.meddle(&disk);
        }
        self.open(disk);
        self.has_failed = false;
        let partition = self.partition();
        let end = partition.offsets().unwrap().log_end_offset;
        assert_eq!(high_watermark(partition), end, "seed {}", self.seed);
    }

    fn open(&mut self, disk: SimulatedDisk) {
        let fixture = Fixture::on(disk);
        let config = Arc::clone(&self.config);
        let partition = fixture.directory.partition("t", super::fixture::TOPIC_ID, 3, self.epoch, config);
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
        self.batches.retain(|batch| batch.end <= offsets.log_end_offset);
        let last = self.batches.last().map_or(0, |batch| batch.end);
        assert_eq!(self.end, last.max(self.log_start), "seed {seed}: an end between batches");
        assert_eq!(offsets.log_start_offset, self.log_start, "seed {seed}");
        self.settled();
    }

    /// The log was opened after a death before which nothing was promised: whatever is left was appended once.
    fn expect_some(&mut self) {
        let offsets = self.partition().offsets().unwrap();
        let seed = self.seed;
        assert!(offsets.log_start_offset >= self.log_start, "seed {seed}: what was deleted is back");
        let left = self.read(offsets.log_start_offset);
        assert!(left.iter().all(|batch| self.batches.contains(batch)), "seed {seed}");
        let last = left.last().map_or(0, |batch| batch.end);
        assert_eq!(offsets.log_end_offset, last.max(offsets.log_start_offset), "seed {seed}");
        (self.batches, self.end, self.log_start) = (left, offsets.log_end_offset, offsets.log_start_offset);
        self.settled();
    }

    /// In commit mode what recovery has found is synced before it is shown.
    fn settled(&mut self) {
        self.promised = if self.config.flush == FlushMode::Commit { self.end } else { 0 };
    }

    /// Readers see a prefix of what was appended, up to the high watermark, which may move meanwhile. A directory that has gone
    /// offline shows nothing.
    fn compare(&self) {
        let visible = match self.partition().offsets() {
            Ok(offsets) => offsets.high_watermark,
            Err(error) => return assert!(self.has_failed, "seed {}: {error}", self.seed),
        };
        let read = self.read(self.log_start.min(visible));
        if self.has_failed && self.partition().is_offline() {
            // Perhaps in the middle of the reading.
            return;
        }
        let appended: Vec<_> =
            self.batches.iter().filter(|batch| batch.end > self.log_start).copied().collect();
        assert!(appended.starts_with(&read), "seed {}: {read:?} of {appended:?}", self.seed);
        let hidden = appended[read.len()..].iter().all(|batch| batch.end > visible);
        assert!(hidden, "seed {}: {read:?} below {visible}", self.seed);
    }

    fn read(&self, offset: i64) -> Vec<Appended> {
        let (read, error) = self.read_until_error(offset);
        assert!(error.is_none() || self.has_failed, "seed {}: {error:?}", self.seed);
        assert!(read.iter().all(|read| read.is_whole), "seed {}: a torn batch", self.seed);
        read.into_iter().map(|read| read.batch).collect()
    }

    /// The batches that can be read from `offset` on, and what ended that.
    fn read_until_error(&self, offset: i64) -> (Vec<Read>, Option<LogError>) {
        let (mut found, mut next): (Vec<Read>, _) = (Vec::new(), offset);
        loop {
            let read = match self.partition().read(next, 10_000, true) {
                Ok(read) => super::fixture::bytes(&read.ranges),
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
        if EPOCH_BYTES.contains(&(at - position as usize))
            && !epochs.is_ok_and(|epochs| epochs.ends_with(b"\n"))
        {
            // No checksum covers it, and what else tells of it got lost.
            return;
        }
        disk.flip(file, at, 1 << self.random.u8(..8)).unwrap();
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
        // A few zeros of a file that was made longer ahead of time are cut off like a torn batch, and nothing is lost.
        let is_rest = |cut: &Cut| cut.bytes < 12 && cut.lost_end == cut.offset;
        if let Some(cut) = cuts.iter().find(|cut| !is_rest(cut)) {
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

fn run_seed(seed: u64) {
    let _named = Named(seed);
    let mut world = World::new(seed);
    for _ in 0..world.random.usize(1..STEPS_MAX) {
        world.step();
    }
    world.rot();
}

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    match number("OTTLA_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("OTTLA_SEEDS").unwrap_or(1000)).collect(),
    }
}

#[test]
fn nothing_promised_is_lost_whatever_the_disk_does_and_what_rots_is_named() {
    seeds().into_iter().for_each(run_seed);
}
