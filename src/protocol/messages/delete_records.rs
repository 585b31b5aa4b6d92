//! DeleteRecords, API 21.

use crate::protocol::api::api;
use crate::protocol::wire::Str;

api! {
    /// Moves the log start offset of partitions up. KIP-107.
    DeleteRecords { key: 21, versions: 0..=2, flexible: 2.. }

    request DeleteRecordsRequest {
        topics: Vec<DeleteRecordsTopic>,
        timeout_ms: i32,
    }

    struct DeleteRecordsTopic {
        name: Str,
        partitions: Vec<DeleteRecordsPartition>,
    }

    struct DeleteRecordsPartition {
        partition_index: i32,
        /// Delete what is below; -1 is the high watermark.
        offset: i64,
    }

    response DeleteRecordsResponse {
        throttle_time_ms: i32,
        topics: Vec<DeleteRecordsTopicResult>,
    }

    struct DeleteRecordsTopicResult {
        name: Str,
        partitions: Vec<DeleteRecordsPartitionResult>,
    }

    struct DeleteRecordsPartitionResult {
        partition_index: i32,
        /// Log start offset afterwards.
        low_watermark: i64,
        error_code: i16,
    }
}
