//! SyncGroup, API 14.

use bytes::Bytes;

use crate::protocol::api::api;
use crate::protocol::wire::Str;

api! {
    /// What a member is to do in this generation; the leader brings it for all. Static members: KIP-345; protocol check:
    /// KIP-559.
    SyncGroup { key: 14, versions: 0..=5, flexible: 4.. }

    request SyncGroupRequest {
        group_id: Str,
        generation_id: i32,
        member_id: Str,
        group_instance_id: Option<Str> [3..],
        protocol_type: Option<Str> [5..],
        protocol_name: Option<Str> [5..],
        /// From the leader: one a member. Empty from everyone else.
        assignments: Vec<SyncGroupAssignment>,
    }

    struct SyncGroupAssignment {
        member_id: Str,
        assignment: Bytes,
    }

    response SyncGroupResponse {
        throttle_time_ms: i32 [1..],
        error_code: i16,
        protocol_type: Option<Str> [5..],
        protocol_name: Option<Str> [5..],
        assignment: Bytes,
    }
}
