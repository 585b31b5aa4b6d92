//! What is counted of the partitions of a log directory.

use super::{Counter, Histogram};

/// The counters of one log directory.
#[derive(Debug, Default)]
pub struct LogCounters {
    /// Records appended.
    pub appended_records: Counter,
    /// Bytes of the batches appended.
    pub appended_bytes: Counter,
    /// Appends refused for want of space.
    pub refused_appends: Counter,
    /// Syncs of a partition's files, and how long they took.
    pub syncs: Histogram,
    /// Of these, how many failed.
    pub failed_syncs: Counter,
    /// Compactions of a log, and how long they took.
    pub compactions: Histogram,
    /// Bytes that they read.
    pub compaction_read_bytes: Counter,
    /// Bytes that they wrote.
    pub compaction_written_bytes: Counter,
    /// Records that they removed.
    pub compaction_removed_records: Counter,
    /// Segments that retention or DeleteRecords has taken out of their logs.
    pub retired_segments: Counter,
    /// Bytes of these.
    pub retired_bytes: Counter,
}
