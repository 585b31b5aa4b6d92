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
    /// Segments that retention or DeleteRecords has taken out of their logs.
    pub retired_segments: Counter,
    /// Bytes of these.
    pub retired_bytes: Counter,
}
