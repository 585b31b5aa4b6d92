//! ListOffsets, API 2.

use crate::protocol::api::api;
use crate::protocol::wire::Str;

api! {
    /// Offset of the first record at or after a timestamp. KIP-79; epochs: KIP-320; tiers: KIP-405.
    ListOffsets { key: 2, versions: 1..=11, flexible: 6.. }

    request ListOffsetsRequest {
        /// Follower's broker id; -1 from a consumer.
        replica_id: i32,
        /// 0 read_uncommitted, 1 read_committed.
        isolation_level: i8 [2..],
        topics: Vec<ListOffsetsTopic>,
        /// Milliseconds to wait for a lookup in remote storage.
        timeout_ms: i32 [10..],
    }

    struct ListOffsetsTopic {
        name: Str,
        partitions: Vec<ListOffsetsPartition>,
    }

    struct ListOffsetsPartition {
        partition_index: i32,
        current_leader_epoch: i32 [4..] = -1,
        /// Milliseconds since the epoch, or -1 latest, -2 earliest, -3 max timestamp, -4 earliest local, -5 latest tiered,
        /// -6 earliest pending upload.
        timestamp: i64,
    }

    response ListOffsetsResponse {
        throttle_time_ms: i32 [2..],
        topics: Vec<ListOffsetsTopicResponse>,
    }

    struct ListOffsetsTopicResponse {
        name: Str,
        partitions: Vec<ListOffsetsPartitionResponse>,
    }

    struct ListOffsetsPartitionResponse {
        partition_index: i32,
        error_code: i16,
        timestamp: i64 = -1,
        offset: i64 = -1,
        leader_epoch: i32 [4..] = -1,
    }
}
