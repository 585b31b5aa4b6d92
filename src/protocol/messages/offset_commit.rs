//! OffsetCommit, API 8.

use crate::protocol::api::api;
use crate::protocol::wire::Str;
use crate::uuid::Uuid;

api! {
    /// Stores how far a group has come in its partitions. Static members: KIP-345; leader epochs: KIP-320; member epochs:
    /// KIP-848; topic ids: KIP-848.
    OffsetCommit { key: 8, versions: 2..=10, flexible: 8.. }

    request OffsetCommitRequest {
        group_id: Str,
        /// -1 from who is no member.
        generation_id_or_member_epoch: i32 = -1,
        member_id: Str,
        group_instance_id: Option<Str> [7..],
        /// How long to keep the offsets, ms; -1 for as long as the broker keeps any.
        retention_time_ms: i64 [2..=4] = -1,
        topics: Vec<OffsetCommitTopic>,
    }

    struct OffsetCommitTopic {
        name: Str [2..=9],
        topic_id: Uuid [10..],
        partitions: Vec<OffsetCommitPartition>,
    }

    struct OffsetCommitPartition {
        partition_index: i32,
        /// The next offset to be consumed.
        committed_offset: i64,
        committed_leader_epoch: i32 [6..] = -1,
        committed_metadata: Option<Str>,
    }

    response OffsetCommitResponse {
        throttle_time_ms: i32 [3..],
        topics: Vec<OffsetCommitTopicResponse>,
    }

    struct OffsetCommitTopicResponse {
        name: Str [2..=9],
        topic_id: Uuid [10..],
        partitions: Vec<OffsetCommitPartitionResponse>,
    }

    struct OffsetCommitPartitionResponse {
        partition_index: i32,
        error_code: i16,
    }
}
