//! Partitions on disk: append, read, recover. Layers, each knowing only what is below it: [`partition`] (high watermark,
//! waiters) over [`log`] (ordered segments, one writer) over [`segment`] (one base offset, its files and indexes) over
//! [`crate::storage`]. [`directory`] is the log directory around them: lock, checkpoints, syncing, start and stop;
//! [`directories`] are all of them, of which one may fail while the others go on.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

pub use self::cleaner::CleanerConfig;
pub use self::config::{FlushMode, LogConfig};
pub use self::directories::LogDirectories;
pub use self::directory::{
    DirectoryOptions, Identity, LogDirectory, OpenDirectoryError, Recovered, parse_folder,
};
pub use self::partition::{Appended, Known, Offsets, Partition, ReadSet};
pub use self::producers::ProducerView;
pub use self::recovery::{Cut, topic_id_of};
pub use self::replay::{ReplayError, replay};
pub use self::scan::Damage;
pub use self::segment::TimestampOffset;
pub use self::waiter::{Subscription, Waiter};
use crate::storage::bounded::is_out_of_descriptors;

pub mod checkpoint;
pub mod cleaner;
pub mod compaction;
pub mod config;
pub mod directories;
pub mod directory;
pub mod ephemeral;
pub mod epochs;
#[cfg(test)]
mod fixture;
mod flush;
pub mod index;
mod journal;
#[expect(clippy::module_inception, reason = "Kafka's word for the thing is the module's too")]
mod log;
#[cfg(test)]
mod model;
pub mod partition;
pub mod producers;
mod progress;
mod recovery;
mod replay;
#[cfg(test)]
mod retained;
mod retention;
mod roll;
pub mod salvage;
pub mod scan;
mod scheduling;
mod segment;
mod space;
pub mod verify;
mod view;
mod waiter;

/// Why a partition does not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The offset is not in the log.
    #[error("offset {offset} is not within the log, which has {log_start_offset} to {log_end_offset}")]
    OffsetOutOfRange {
        /// The offset asked for.
        offset: i64,
        /// First offset of the log.
        log_start_offset: i64,
        /// Where the next batch will be appended.
        log_end_offset: i64,
    },
    /// An idempotent producer's batch does not follow its last one.
    #[error("producer {producer_id} must go on with sequence {expected}, not {found}")]
    OutOfOrderSequence {
        /// The producer.
        producer_id: i64,
        /// The sequence that must come next.
        expected: i32,
        /// The batch's first sequence.
        found: i32,
    },
    /// The producer has been replaced by one with a newer epoch.
    #[error("producer {producer_id} has epoch {known} now, not {found}")]
    InvalidProducerEpoch {
        /// The producer.
        producer_id: i64,
        /// Its newest epoch.
        known: i16,
        /// The batch's epoch.
        found: i16,
    },
    /// The batch does not fit any segment of the topic.
    #[error("batch of {size_bytes} bytes is larger than a segment of {segment_bytes} bytes")]
    RecordListTooLarge {
        /// Size of the batch.
        size_bytes: usize,
        /// `segment.bytes` of the topic.
        segment_bytes: u64,
    },
    /// The partition has been deleted.
    #[error("the partition has been deleted")]
    Deleted,
    /// The broker is stopping.
    #[error("the log directory is closed")]
    Shutdown,
    /// The log directory's disk has failed: nothing in it is trusted until the broker has started again and recovered.
    #[error("the log directory is offline")]
    Offline,
    /// The disk is full. What was written of the batch has been cut off; later appends may succeed.
    #[error("no space for {}: {source}", path.display())]
    NoSpace {
        /// The file that would have grown.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The process may open no more files. Nothing was changed; later calls may succeed.
    #[error("cannot open {}: {source}", path.display())]
    OutOfDescriptors {
        /// What was to be opened.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk failed.
    #[error("{}: {source}", path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The log's bytes are not what was written.
    #[error("{} at position {position}: {damage}", path.display())]
    Damaged {
        /// The segment file.
        path: PathBuf,
        /// Where the damaged batch starts, bytes.
        position: u64,
        /// What is wrong with it.
        damage: Damage,
    },
}

impl LogError {
    fn disk(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { path: path.to_owned(), source }
            }
            _ => Self::sync(path, source),
        }
    }

    /// For a sync: one that finds no space has lost what was written.
    fn sync(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match is_out_of_descriptors(&source) {
            true => Self::OutOfDescriptors { path, source },
            false => Self::Disk { path, source },
        }
    }

    /// Whether a read ended so because it would have had to wait for a disk.
    fn would_wait(&self) -> bool {
        matches!(self, Self::Disk { source, .. } if source.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether a write or sync that ended so leaves what is on the disk in doubt.
    fn is_failure_of_writing(&self) -> bool {
        matches!(self, Self::Disk { .. })
    }

    /// Whether a read that ended so says that the disk is broken, and not that something is missing.
    fn is_failure_of_the_disk(&self) -> bool {
        matches!(self, Self::Disk { source, .. } if is_failure_of_the_disk(source))
    }
}

/// Whether an error says that the device or its file system is broken.
fn is_failure_of_the_disk(error: &io::Error) -> bool {
    let broken = [Errno::IO, Errno::NXIO, Errno::NODEV, Errno::UCLEAN, Errno::STALE, Errno::REMOTEIO];
    Errno::from_io_error(error).is_some_and(|code| broken.contains(&code))
}
