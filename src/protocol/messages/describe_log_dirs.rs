//! DescribeLogDirs, API 35.

use crate::protocol::api::api;
use crate::protocol::wire::Str;

api! {
    /// What is in each log directory. KIP-113; sizes of the file systems: KIP-827.
    DescribeLogDirs { key: 35, versions: 1..=5, flexible: 2.. }

    request DescribeLogDirsRequest {
        /// None: all.
        topics: Option<Vec<DescribeLogDirsTopic>>,
    }

    struct DescribeLogDirsTopic {
        topic: Str,
        partitions: Vec<i32>,
    }

    response DescribeLogDirsResponse {
        throttle_time_ms: i32,
        error_code: i16 [3..],
        results: Vec<DescribeLogDirsResult>,
    }

    struct DescribeLogDirsResult {
        error_code: i16,
        log_dir: Str,
        topics: Vec<DescribeLogDirsTopicResult>,
        /// Bytes of the file system; -1 if not known. KIP-827.
        total_bytes: i64 [4..] = -1,
        usable_bytes: i64 [4..] = -1,
        /// Whether no new partition is put here.
        is_cordoned: bool [5..],
    }

    struct DescribeLogDirsTopicResult {
        name: Str,
        partitions: Vec<DescribeLogDirsPartitionResult>,
    }

    struct DescribeLogDirsPartitionResult {
        partition_index: i32,
        partition_size: i64,
        /// Records that the log lacks to the high watermark, or to the log that it is to replace.
        offset_lag: i64,
        /// Whether it is to replace another one of the broker when it has caught up.
        is_future_key: bool,
    }
}
