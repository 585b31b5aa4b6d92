//! OffsetFetch, API 9.

use crate::protocol::api::api;
use crate::protocol::wire::Str;
use crate::uuid::Uuid;

api! {
    /// How far groups have come in their partitions. Stable offsets: KIP-447; many groups at once: KIP-709; member epochs
    /// and topic ids: KIP-848.
    OffsetFetch { key: 9, versions: 1..=10, flexible: 6.. }

    request OffsetFetchRequest {
        group_id: Str [1..=7],
        /// Null asks for all that the group has committed.
        topics: Option<Vec<OffsetFetchTopic>> [1..=7, null 2..],
        groups: Vec<OffsetFetchGroup> [8..],
        /// Whether to refuse offsets that an open transaction may still replace.
        require_stable: bool [7..],
    }

    struct OffsetFetchGroup {
        group_id: Str,
        member_id: Option<Str> [9..],
        member_epoch: i32 [9..] = -1,
        /// Null asks for all that the group has committed.
        topics: Option<Vec<OffsetFetchTopic>>,
    }

    struct OffsetFetchTopic {
        name: Str [1..=9],
        topic_id: Uuid [10..],
        partition_indexes: Vec<i32>,
    }

    response OffsetFetchResponse {
        throttle_time_ms: i32 [3..],
        topics: Vec<OffsetFetchTopicResponse> [1..=7],
        error_code: i16 [2..=7],
        groups: Vec<OffsetFetchGroupResponse> [8..],
    }

    struct OffsetFetchGroupResponse {
        group_id: Str,
        topics: Vec<OffsetFetchTopicResponse>,
        error_code: i16,
    }

    struct OffsetFetchTopicResponse {
        name: Str [1..=9],
        topic_id: Uuid [10..],
        partitions: Vec<OffsetFetchPartitionResponse>,
    }

    struct OffsetFetchPartitionResponse {
        partition_index: i32,
        /// -1 if nothing was committed.
        committed_offset: i64,
        committed_leader_epoch: i32 [5..] = -1,
        metadata: Option<Str>,
        error_code: i16,
    }
}
