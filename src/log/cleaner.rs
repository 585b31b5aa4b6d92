//! The cleaner of a log directory: threads that look for the dirtiest log whose topic is compacted, clean it, and rest when
//! there is none. What they read and write is paced; what one of them may take of memory is its share of the configured buffers.
//!
//! A log that has something damaged in it, or cannot be cleaned for another reason that will not pass, is named once and left
//! alone until the next start.

use std::cell::Cell;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex};

use super::LogError;
use super::compaction::round::{Limits, Outcome, Round, RoundError};
use super::compaction::swap::Place;
use super::compaction::{Dirt, SegmentView};
use super::directory::{Key, Shared};
use super::partition::{Compactable, Partition};
use super::scheduling;
use super::segment::Segment;
use crate::clock::TimestampMs;

/// What may be spent at once after a rest, as time at the configured rate.
const BURST: Duration = Duration::from_millis(100);

/// Shorter debts are not worth a sleep.
const SLEEP_MIN: Duration = Duration::from_millis(5);

/// How long a thread works at least before it lets others have the core.
const WORK_MIN: Duration = Duration::from_micros(100);

/// How much nicer a thread is than the rest of the process: of a core that others want as well it gets a tenth, at once and not
/// only when its turn is over.
const NICENESS: i32 = 10;

/// Shortest rest.
const REST_MIN: Duration = Duration::from_millis(5);

/// Smallest share of `log.cleaner.io.buffer.size` that is worked with, bytes.
const IO_BUFFER_MIN_BYTES: usize = 4 << 10;

/// How a directory's logs are compacted.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct CleanerConfig {
    /// Threads; 0 for no compaction.
    pub threads: usize,
    /// Bytes that the maps of keys of all threads may take.
    pub dedupe_buffer_bytes: u64,
    /// The share of a map that is filled at most.
    pub load_factor: f64,
    /// Bytes that the buffers of all threads take.
    pub io_buffer_bytes: usize,
    /// Bytes that all threads together read and write a second at most.
    pub io_max_bytes_per_second: f64,
    /// Rest when nothing is to be cleaned, ms.
    pub backoff_ms: u64,
    /// Most that the records of one batch may decompress to, bytes.
    pub max_decompressed_batch_bytes: usize,
}

/// Nothing is compacted.
impl Default for CleanerConfig {
    fn default() -> Self {
        Self {
            threads: 0,
            dedupe_buffer_bytes: 128 << 20,
            load_factor: 0.9,
            io_buffer_bytes: 512 << 10,
            io_max_bytes_per_second: f64::MAX,
            backoff_ms: 15_000,
            max_decompressed_batch_bytes: 1 << 30,
        }
    }
}

impl CleanerConfig {
    /// The share of one of so many directories, each of which has threads of its own.
    pub fn share_of(&self, directories: usize) -> Self {
        let directories = directories.max(1);
        Self {
            dedupe_buffer_bytes: self.dedupe_buffer_bytes / directories as u64,
            io_buffer_bytes: self.io_buffer_bytes / directories,
            io_max_bytes_per_second: self.io_max_bytes_per_second / directories as f64,
            ..*self
        }
    }

    /// The share of one of the threads.
    fn limits(&self) -> Limits {
        let threads = self.threads.max(1);
        Limits {
            // A part is left to what else a round holds: index entries, the records of a batch, the list of segments.
            dedupe_buffer_bytes: self.dedupe_buffer_bytes / threads as u64 / 64 * 63,
            load_factor: self.load_factor,
            // One half to read, one to write.
            io_buffer_bytes: (self.io_buffer_bytes / threads / 2).max(IO_BUFFER_MIN_BYTES),
            max_decompressed_bytes: self.max_decompressed_batch_bytes,
        }
    }
}

/// What the cleaner's threads share.
#[derive(Debug, Default)]
pub(super) struct Cleaner {
    config: ArcSwap<CleanerConfig>,
    state: Mutex<State>,
    changed: Condvar,
    /// When all that was read and written so far will have been paid for.
    paid_at: Mutex<Option<Instant>>,
    /// Held while files change their names: a directory that has stopped changes none.
    swapping: Mutex<()>,
    /// The dirtiest log's ratio when last looked at, as bits.
    max_dirty_ratio: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    at_work: HashSet<Key>,
    uncleanable: HashSet<Key>,
    /// Partitions nobody has used since the start, that are clean: it is enough to have looked once.
    seen_clean: HashSet<Key>,
}

/// A log that can be cleaned.
struct Candidate {
    partition: Arc<Partition>,
    segments: Vec<Arc<Segment>>,
    views: Vec<SegmentView>,
    dirt: Dirt,
}

impl Cleaner {
    pub(super) fn configure(&self, config: CleanerConfig) {
        self.config.store(Arc::new(config));
        self.wake();
    }

    /// Has whoever rests look around.
    pub(super) fn wake(&self) {
        let _state = self.state.lock();
        self.changed.notify_all();
    }

    /// Waits until no file changes its name: for who has said that none may any more.
    pub(super) fn await_swaps(&self) {
        drop(self.swapping.lock());
    }

    /// The partition is gone; another one of its name is a new one.
    pub(super) fn forget(&self, key: &Key) {
        let mut state = self.state.lock();
        state.uncleanable.remove(key);
        state.seen_clean.remove(key);
    }

    /// Logs that are left alone until the next start.
    pub(super) fn uncleanable(&self) -> usize {
        self.state.lock().uncleanable.len()
    }

    /// Share of uncleaned bytes of the log that has the largest one.
    pub(super) fn max_dirty_ratio(&self) -> f64 {
        f64::from_bits(self.max_dirty_ratio.load(Ordering::Relaxed))
    }

    /// Notes bytes read or written; how long to wait until they are paid for.
    fn debt(&self, bytes: u64, now: Instant) -> Duration {
        let rate = self.config.load().io_max_bytes_per_second;
        let cost = Duration::try_from_secs_f64(bytes as f64 / rate).unwrap_or(Duration::MAX);
        if cost.is_zero() {
            return Duration::ZERO;
        }
        let mut paid_at = self.paid_at.lock();
        let from = paid_at.unwrap_or(now).max(now.checked_sub(BURST).unwrap_or(now));
        let until = from.checked_add(cost).unwrap_or(from);
        *paid_at = Some(until);
        until.saturating_duration_since(now)
    }
}

/// For the cleaner's threads.
impl Shared {
    /// What thread `number` (from 0) does until the directory stops.
    pub(super) fn work_at_cleaning(&self, number: usize) {
        // Of 2.5 s beside a compaction, with both cores to run on, the threads that serve sockets stood 49 ms behind it without
        // this, and 4 to 17 ms with it; the compaction took no longer.
        if let Err(error) = scheduling::step_back(NICENESS) {
            tracing::debug!(%error, "compaction has no lower priority than the rest");
        }
        if let Err(error) = scheduling::prefer_slice(scheduling::LONG_SLICE) {
            tracing::debug!(%error, "compaction keeps a core to the end of its slice of time");
        }
        while !self.is_stopped() {
            let config = **self.cleaner.config.load();
            if number >= config.threads || !self.clean_dirtiest(&config) {
                self.rest(Duration::from_millis(config.backoff_ms));
            }
        }
    }

    /// Waits, for at most `time`; less if the directory stops or the configuration changes.
    fn rest(&self, time: Duration) {
        // Without any rest a thread would do nothing but look.
        let time = time.max(REST_MIN);
        let mut state = self.cleaner.state.lock();
        if !self.is_stopped() {
            self.cleaner.changed.wait_for(&mut state, time);
        }
    }

    /// Cleans the log that needs it most; whether there was one, and that went well.
    pub(super) fn clean_dirtiest(&self, config: &CleanerConfig) -> bool {
        let Some(candidate) = self.take_dirtiest() else { return false };
        let partition = Arc::clone(&candidate.partition);
        let went_well = self.clean(candidate, config);
        self.cleaner.state.lock().at_work.remove(&key_of(&partition));
        went_well
    }

    fn take_dirtiest(&self) -> Option<Candidate> {
        let now_ms = self.clock.now_ms();
        let mut max_ratio: f64 = 0.0;
        let mut dirtiest: Option<Candidate> = None;
        for partition in self.live_partitions().into_iter().filter(|partition| partition.config().compact) {
            let Some(candidate) = self.look_at(partition, now_ms) else { continue };
            let ratio = candidate.dirt.ratio();
            max_ratio = max_ratio.max(ratio);
            let is_due = candidate.dirt.is_due(&candidate.partition.config());
            if is_due && dirtiest.as_ref().is_none_or(|dirtiest| dirtiest.dirt.ratio() < ratio) {
                dirtiest = Some(candidate);
            }
        }
        self.cleaner.max_dirty_ratio.store(max_ratio.to_bits(), Ordering::Relaxed);
        // Another thread may have been quicker.
        let key = key_of(&dirtiest.as_ref()?.partition);
        self.cleaner.state.lock().at_work.insert(key).then_some(dirtiest).flatten()
    }

    /// What there is to clean of a partition; `None` also if it cannot be looked at: who uses it is told why.
    fn look_at(&self, partition: Arc<Partition>, now_ms: TimestampMs) -> Option<Candidate> {
        let key = key_of(&partition);
        {
            let mut state = self.cleaner.state.lock();
            let is_out = state.at_work.contains(&key) || state.uncleanable.contains(&key);
            if is_out || !partition.is_open() && state.seen_clean.contains(&key) {
                return None;
            }
            if partition.is_open() {
                state.seen_clean.remove(&key);
            }
        }
        let cleaned_to = self.cleaned_to(&key);
        if !partition.is_open() && !self.may_be_dirty(&partition, cleaned_to.unwrap_or(0)) {
            self.cleaner.state.lock().seen_clean.insert(key);
            return None;
        }
        let config = partition.config();
        let view = |segment: &Arc<Segment>| {
            Ok::<_, LogError>(SegmentView {
                base_offset: segment.base_offset(),
                size_bytes: segment.size_bytes()?,
                newest: match config.min_compaction_lag_ms {
                    ..=0 => None,
                    _ => segment.newest()?.map(|newest| newest.timestamp),
                },
                first: match config.max_compaction_lag_ms {
                    i64::MAX => None,
                    _ => segment.first_timestamp()?,
                },
            })
        };
        let compactable = partition.compactable();
        let Compactable { mut segments, log_start_offset, end_offset, log_end_offset } = compactable.ok()?;
        let mut views = segments.iter().map(view).collect::<Result<Vec<_>, _>>().ok()?;
        // Where the log has been cut since, nothing is known to be clean.
        let cleaned_to = cleaned_to.filter(|offset| *offset <= log_end_offset);
        let dirt = Dirt::of(&views, (log_start_offset, end_offset), cleaned_to, &config, now_ms);
        let cleanable = views.partition_point(|segment| segment.base_offset < dirt.end_offset);
        segments.truncate(cleanable);
        views.truncate(cleanable);
        Some(Candidate { partition, segments, views, dirt })
    }

    /// Whether the folder of a partition that was not opened yet has closed segments which were not cleaned: one look, and
    /// nothing of it stays in memory.
    fn may_be_dirty(&self, partition: &Partition, cleaned_to: i64) -> bool {
        let Ok(entries) = self.disk.list(&partition.folder()) else { return false };
        let mut bases: Vec<i64> =
            entries.iter().filter_map(|entry| entry.name.strip_suffix(".log")?.parse().ok()).collect();
        bases.sort_unstable();
        // The last one is active; another one is dirty if the one after it begins above what was cleaned.
        bases.len() > 1 && bases.last().is_some_and(|active| *active > cleaned_to)
    }

    fn clean(&self, candidate: Candidate, config: &CleanerConfig) -> bool {
        let Candidate { partition, segments, views, dirt } = candidate;
        let began = Instant::now();
        let (topic, index) = (partition.topic(), partition.index());
        match self.run_round(&partition, segments, views, dirt, config) {
            Ok(outcome) => {
                let Outcome { end_offset, read_bytes, written_bytes, removed_records } = outcome;
                let took = began.elapsed();
                self.counters.compactions.observe(took);
                self.counters.compaction_read_bytes.add(read_bytes);
                self.counters.compaction_written_bytes.add(written_bytes);
                self.counters.compaction_removed_records.add(removed_records);
                let took_ms = took.as_millis() as u64;
                tracing::info!(
                    topic,
                    partition = index,
                    end_offset,
                    read_bytes,
                    written_bytes,
                    removed_records,
                    took_ms,
                    "compacted"
                );
                true
            }
            // What was begun is taken up again at the next look, if it is still to be done.
            Err(RoundError::Interrupted | RoundError::Changed) => false,
            Err(_) if partition.is_deleted() => false,
            Err(RoundError::Log(LogError::Deleted | LogError::Shutdown | LogError::Offline)) => false,
            Err(RoundError::Log(error @ (LogError::NoSpace { .. } | LogError::OutOfDescriptors { .. }))) => {
                tracing::warn!(topic, partition = index, %error, "not compacted: tried again later");
                false
            }
            Err(error) => {
                tracing::error!(topic, partition = index, %error, "cannot be compacted: left alone until the next start");
                self.cleaner.state.lock().uncleanable.insert(key_of(&partition));
                if let RoundError::Log(failed @ LogError::Disk { .. }) = &error {
                    self.fail(failed);
                }
                true
            }
        }
    }

    fn run_round(
        &self,
        partition: &Partition,
        segments: Vec<Arc<Segment>>,
        views: Vec<SegmentView>,
        dirt: Dirt,
        config: &CleanerConfig,
    ) -> Result<Outcome, RoundError> {
        if !partition.is_durable_below(dirt.end_offset) {
            return Err(RoundError::Interrupted);
        }
        // A gap that compaction leaves must lie below where recovery begins, or it would look like a loss.
        self.save_recovery_point(partition)?;
        let turn = Cell::new((Instant::now(), WORK_MIN));
        let spend = |bytes| {
            let (worked_from, work) = turn.get();
            if worked_from.elapsed() >= work {
                turn.set(let_others_work());
            }
            self.spend(partition, bytes)
        };
        let swap = |old: &[Arc<Segment>]| self.swap_in(partition, old);
        let round = Round {
            partition,
            disk: &self.disk,
            folder: partition.folder(),
            config: &partition.config(),
            limits: config.limits(),
            segments,
            views,
            dirt,
            now_ms: self.clock.now_ms(),
            spend: &spend,
            swap: &swap,
        };
        let outcome = round.run()?;
        self.save_cleaned_to(partition, outcome.end_offset)?;
        Ok(outcome)
    }

    /// Waits until the bytes are paid for.
    fn spend(&self, partition: &Partition, bytes: u64) -> Result<(), RoundError> {
        let mut wait = self.cleaner.debt(bytes, Instant::now());
        while wait > SLEEP_MIN && !self.is_stopped() && !partition.is_deleted() {
            let slept_from = Instant::now();
            self.rest(wait);
            wait = wait.saturating_sub(slept_from.elapsed());
        }
        match self.is_stopped() || partition.is_deleted() {
            true => Err(RoundError::Interrupted),
            false => Ok(()),
        }
    }

    /// Puts a written segment in the place of those that it was made of.
    fn swap_in(&self, partition: &Partition, old: &[Arc<Segment>]) -> Result<(), RoundError> {
        let folder = partition.folder();
        let place = Place { disk: &*self.disk, folder: &folder };
        let base_offset = old[0].base_offset();
        let _swapping = self.cleaner.swapping.lock();
        if self.is_stopped() || partition.is_deleted() {
            return Err(RoundError::Interrupted);
        }
        place.announce(base_offset)?;
        match partition.replace_segments(old, || place.replace(base_offset, old)) {
            Ok(Some(deleted)) => {
                self.remove_files_later(deleted, partition.config().file_delete_delay_ms);
                Ok(place.settle(base_offset)?)
            }
            Ok(None) => Err(RoundError::Changed),
            // The next start ends it, or takes it back.
            Err(LogError::Shutdown | LogError::Offline | LogError::Deleted) => Err(RoundError::Interrupted),
            Err(error) => Err(error.into()),
        }
    }
}

/// Lets who waits for this core go first, an append most of all: it need not wait for the milliseconds that the system leaves a
/// thread to run. Gives from when on to work again, and for how long: as long as others have worked, so that those who always
/// do leave half of the core.
fn let_others_work() -> (Instant, Duration) {
    let waited_from = Instant::now();
    thread::yield_now();
    let now = Instant::now();
    (now, WORK_MIN.max(now - waited_from))
}

fn key_of(partition: &Partition) -> Key {
    (partition.topic().to_owned(), partition.index())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_thread_that_compacts_is_nicer_than_the_rest_of_the_process() {
        use std::fs;

        use rustix::process::{Pid, getpriority_process};

        use super::super::fixture::{Fixture, eventually};
        let fixture = Fixture::new();
        fixture.directory.clean(CleanerConfig { threads: 1, ..CleanerConfig::default() });
        let niceness = |thread: fs::DirEntry| {
            let name = fs::read_to_string(thread.path().join("comm")).ok()?;
            let thread = Pid::from_raw(thread.file_name().to_str()?.parse().ok()?);
            (name == "clean-0\n").then_some(getpriority_process(thread).ok()?)
        };
        let nicest = || {
            let threads = fs::read_dir("/proc/self/task").unwrap();
            threads.filter_map(|thread| niceness(thread.unwrap())).max()
        };
        let here = getpriority_process(None).unwrap();
        eventually("it has stepped back", || nicest() == Some((here + NICENESS).min(19)));
        assert_eq!(getpriority_process(None).unwrap(), here);
    }

    #[test]
    fn what_is_read_and_written_is_paced() {
        let cleaner = Cleaner::default();
        let config = CleanerConfig { io_max_bytes_per_second: 1000.0, ..CleanerConfig::default() };
        cleaner.configure(config);
        let now = Instant::now();
        let ms = |ms| Duration::from_millis(ms);
        assert_eq!(cleaner.debt(500, now), ms(500));
        assert_eq!(cleaner.debt(500, now), ms(1000));
        assert_eq!(cleaner.debt(500, now + ms(1000)), ms(500));
        assert_eq!(
            cleaner.debt(500, now + ms(60_000)),
            ms(400),
            "a rest saves up no more than a tenth of a second"
        );
        cleaner.configure(CleanerConfig::default());
        assert_eq!(cleaner.debt(1 << 40, now), ms(0));
    }
}
