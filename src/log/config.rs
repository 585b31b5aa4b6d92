//! The settings a partition's log acts on: the typed form of a topic's configs.

use crate::record::{Compression, TimestampType};

/// When an append counts (see the README on durability).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FlushMode {
    /// After a group-committed fdatasync: survives the death of the machine.
    #[default]
    Commit,
    /// After the write: survives the death of the process, as in a stock Kafka broker.
    Os,
}

/// A topic's effective configs, parsed. Field names are Kafka's config names with `_` for `.`.
#[derive(Clone, PartialEq, Debug)]
pub struct LogConfig {
    /// Whether `cleanup.policy` contains `compact`.
    pub compact: bool,
    /// Whether `cleanup.policy` contains `delete`.
    pub delete: bool,
    /// Largest batch accepted, in bytes as compressed.
    pub max_message_bytes: usize,
    /// Largest single record after decompression, bytes.
    pub max_decompressed_message_bytes: usize,
    /// Whose clock stamps records.
    pub message_timestamp_type: TimestampType,
    /// How far a record's time may lag the broker's clock, ms.
    pub message_timestamp_before_max_ms: i64,
    /// How far a record's time may lead the broker's clock, ms.
    pub message_timestamp_after_max_ms: i64,
    /// Segment size before rolling, bytes.
    pub segment_bytes: u64,
    /// Segment age before rolling, ms of record time.
    pub segment_ms: i64,
    /// Random cut from `segment_ms`, ms.
    pub segment_jitter_ms: i64,
    /// Largest index file, bytes.
    pub segment_index_bytes: usize,
    /// Log bytes between index entries.
    pub index_interval_bytes: usize,
    /// Wait before removed files are unlinked, ms.
    pub file_delete_delay_ms: i64,
    /// Time that records are kept, ms; -1 for ever.
    pub retention_ms: i64,
    /// Bytes that are kept; -1 for all.
    pub retention_bytes: i64,
    /// Records in os mode after which the log is synced before the last of them counts.
    pub flush_messages: i64,
    /// Longest that anything stays unsynced in os mode, ms.
    pub flush_ms: i64,
    /// `compression.type` with its level: what batches are compressed with; `None` leaves them as the producer has.
    pub compression: Option<Compression>,
    /// Whether the space of a segment is reserved when it is made.
    pub preallocate: bool,
    /// Share of uncompacted bytes above which compaction runs, 0 to 1.
    pub min_cleanable_dirty_ratio: f64,
    /// Shortest time that a record stays uncompacted, ms.
    pub min_compaction_lag_ms: i64,
    /// Longest time that a record may stay uncompacted, ms.
    pub max_compaction_lag_ms: i64,
    /// How long tombstones survive compaction, ms.
    pub delete_retention_ms: i64,
    /// `ottla.flush`.
    pub flush: FlushMode,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Kafka's defaults, for tests to vary.
    pub fn config() -> LogConfig {
        LogConfig {
            compact: false,
            delete: true,
            max_message_bytes: 1_048_588,
            max_decompressed_message_bytes: 64 << 20,
            message_timestamp_type: TimestampType::CreateTime,
            message_timestamp_before_max_ms: i64::MAX,
            message_timestamp_after_max_ms: 3_600_000,
            segment_bytes: 1 << 30,
            segment_ms: 604_800_000,
            segment_jitter_ms: 0,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            file_delete_delay_ms: 60_000,
            retention_ms: 604_800_000,
            retention_bytes: -1,
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
            compression: None,
            preallocate: false,
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            delete_retention_ms: 86_400_000,
            flush: FlushMode::Os,
        }
    }
}
