//! A log directory on a simulated disk that tests stop, kill and cut the power of.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::config::tests::config;
use super::{
    Cut, DirectoryOptions, FlushMode, LogConfig, LogDirectory, LogError, OpenDirectoryError, Partition,
    Recovered,
};
use crate::clock::Clock;
use crate::record::range::FileRange;
use crate::record::{BatchBuilder, BatchHeader, ValidBatch};
use crate::storage::simulated::SimulatedDisk;
use crate::uuid::Uuid;

pub const NOW_MS: i64 = 1_700_000_000_000;
pub const TOPIC: &str = "events";
pub const TOPIC_ID: Uuid = Uuid([7; 16]);

pub struct Fixture {
    pub disk: SimulatedDisk,
    pub clock: Clock,
    pub options: DirectoryOptions,
    pub directory: Arc<LogDirectory>,
}

impl Fixture {
    pub fn new() -> Self {
        let fixture = Self::on(SimulatedDisk::default());
        eventually("its identity is synced", || fixture.directory.has_synced_names());
        fixture
    }

    pub fn on(disk: SimulatedDisk) -> Self {
        Self::open(disk, 2).unwrap()
    }

    /// With threads, or, without any, for who does their work: then what happens is the same each time.
    pub fn open(disk: SimulatedDisk, flush_threads: usize) -> Result<Self, OpenDirectoryError> {
        let clock = Clock::manual(NOW_MS);
        let options = DirectoryOptions {
            flush_threads,
            recovery_threads: 2,
            // So little that its two files change places every few appends.
            journal_bytes: 1500,
            ..DirectoryOptions::new("/data")
        };
        let directory = LogDirectory::open(options.clone(), Arc::new(disk.clone()), clock.clone())?;
        Ok(Self { disk, clock, options, directory })
    }

    pub fn partition(&self, config: LogConfig) -> Arc<Partition> {
        self.directory.partition(TOPIC, TOPIC_ID, 0, 0, Arc::new(config))
    }

    /// As `kill -9`: what was written stays in the page cache.
    pub fn kill(self) -> Self {
        drop(self.directory);
        Self::on(self.disk)
    }

    pub fn cut_power(self, seed: u64) -> Self {
        let disk = self.halt();
        disk.power_cut(seed);
        Self::on(disk)
    }

    /// The disk, with nobody at work on it.
    pub fn halt(self) -> SimulatedDisk {
        // The threads of the dead machine must not go on writing.
        self.disk.release_syncs();
        drop(self.directory);
        self.disk
    }

    pub fn stop(self) -> Self {
        run(self.directory.close());
        drop(self.directory);
        Self::on(self.disk)
    }

    pub fn recover(&self, partition: &Arc<Partition>) -> Vec<Arc<Cut>> {
        let Recovered { cuts, failed } = self.directory.recover(std::slice::from_ref(partition));
        assert!(failed.is_empty(), "{failed:?}");
        cuts
    }
}

pub fn commit() -> LogConfig {
    LogConfig { flush: FlushMode::Commit, ..config() }
}

pub fn path(name: &str) -> PathBuf {
    Path::new("/data/events-0").join(name)
}

pub fn log_file(base_offset: i64) -> PathBuf {
    path(&format!("{base_offset:020}.log"))
}

pub fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Whether the future is ready now.
pub fn is_ready(future: impl Future) -> bool {
    at_once(future).is_some()
}

/// What comes of the future, if that is ready now.
pub fn at_once<F: Future>(future: F) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

pub fn builder(records: usize, value_bytes: usize) -> BatchBuilder {
    let value = vec![b'v'; value_bytes];
    (0..records).fold(BatchBuilder::new(), |builder, _| builder.record(NOW_MS, None, Some(&value)))
}

pub fn batch(records: usize) -> ValidBatch {
    builder(records, 10).build_valid()
}

/// One record of producer 9.
pub fn sequenced(epoch: i16, sequence: i32) -> ValidBatch {
    builder(1, 10).producer(9, epoch, sequence).build_valid()
}

/// Appends and waits until it counts as stored.
pub fn append(partition: &Partition, batch: ValidBatch) -> Result<i64, LogError> {
    let appended = partition.append(batch)?;
    run(partition.durable(appended.last_offset + 1))?;
    Ok(appended.base_offset)
}

pub fn bytes(ranges: &[FileRange]) -> Vec<u8> {
    let mut all = Vec::new();
    for range in ranges {
        let mut bytes = vec![0; range.length];
        assert_eq!(range.file.read_at(&mut bytes, range.position).unwrap(), range.length);
        all.extend(bytes);
    }
    all
}

/// The headers of all batches that can be read from `offset` on, however many reads that takes.
pub fn headers(partition: &Partition, offset: i64) -> Vec<BatchHeader> {
    let mut headers: Vec<BatchHeader> = Vec::new();
    let mut next = offset;
    loop {
        let read = bytes(&partition.read(next, 10_000, true).unwrap().ranges);
        let mut rest = &read[..];
        let before = headers.len();
        while let Ok(header) = BatchHeader::parse(rest) {
            let Some(batch) = rest.get(..header.size_bytes()) else { break };
            assert_eq!(header.crc, header.checksum(&batch[61..]), "a reader never sees a torn batch");
            rest = &rest[header.size_bytes()..];
            next = header.last_offset() + 1;
            headers.push(header);
        }
        if headers.len() == before {
            return headers;
        }
    }
}

pub fn end_offset(partition: &Partition) -> i64 {
    partition.offsets().unwrap().log_end_offset
}

pub fn high_watermark(partition: &Partition) -> i64 {
    partition.offsets().unwrap().high_watermark
}

/// Waits for what other threads bring about.
pub fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}
