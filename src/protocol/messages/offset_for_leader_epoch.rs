//! OffsetForLeaderEpoch, API 23.

use crate::protocol::api::api;
use crate::protocol::wire::Str;

api! {
    /// Where the log of a leader epoch ends. KIP-101, KIP-320.
    OffsetForLeaderEpoch { key: 23, versions: 2..=4, flexible: 4.. }

    request OffsetForLeaderEpochRequest {
        replica_id: i32 [3..] = -2,
        topics: Vec<EpochTopic>,
    }

    struct EpochTopic {
        topic: Str,
        partitions: Vec<EpochPartition>,
    }

    struct EpochPartition {
        partition: i32,
        current_leader_epoch: i32 = -1,
        leader_epoch: i32,
    }

    response OffsetForLeaderEpochResponse {
        throttle_time_ms: i32,
        topics: Vec<EpochTopicResult>,
    }

    struct EpochTopicResult {
        topic: Str,
        partitions: Vec<EpochEndOffset>,
    }

    struct EpochEndOffset {
        error_code: i16,
        partition: i32,
        leader_epoch: i32 = -1,
        end_offset: i64 = -1,
    }
}
