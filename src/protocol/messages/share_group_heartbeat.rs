//! ShareGroupHeartbeat, API 76.

use crate::protocol::api::api;
use crate::protocol::wire::Str;
use crate::uuid::Uuid;

api! {
    /// A member of a share group joins, stays or leaves, and learns its partitions. KIP-932.
    ShareGroupHeartbeat { key: 76, versions: 1..=1, flexible: 0.. }

    request ShareGroupHeartbeatRequest {
        group_id: Str,
        /// Made by the client.
        member_id: Str,
        /// 0 to join, -1 to leave.
        member_epoch: i32,
        /// Null: as it was.
        rack_id: Option<Str>,
        /// Null: as they were.
        subscribed_topic_names: Option<Vec<Str>>,
    }

    response ShareGroupHeartbeatResponse {
        throttle_time_ms: i32,
        error_code: i16,
        error_message: Option<Str>,
        member_id: Option<Str>,
        member_epoch: i32,
        heartbeat_interval_ms: i32,
        /// Null: as it was.
        assignment: Option<ShareGroupHeartbeatAssignment>,
    }

    struct ShareGroupHeartbeatAssignment {
        topic_partitions: Vec<ShareGroupHeartbeatTopic>,
    }

    struct ShareGroupHeartbeatTopic {
        topic_id: Uuid,
        partitions: Vec<i32>,
    }
}
