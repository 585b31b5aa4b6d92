//! OffsetDelete, API 47.

use crate::protocol::api::api;
use crate::protocol::wire::Str;

api! {
    /// Forgets committed offsets of a group. KIP-496.
    OffsetDelete { key: 47, versions: 0..=0, flexible: none }

    request OffsetDeleteRequest {
        group_id: Str,
        topics: Vec<OffsetDeleteTopic>,
    }

    struct OffsetDeleteTopic {
        name: Str,
        partitions: Vec<OffsetDeletePartition>,
    }

    struct OffsetDeletePartition {
        partition_index: i32,
    }

    response OffsetDeleteResponse {
        error_code: i16,
        throttle_time_ms: i32,
        topics: Vec<OffsetDeleteTopicResponse>,
    }

    struct OffsetDeleteTopicResponse {
        name: Str,
        partitions: Vec<OffsetDeletePartitionResponse>,
    }

    struct OffsetDeletePartitionResponse {
        partition_index: i32,
        error_code: i16,
    }
}
