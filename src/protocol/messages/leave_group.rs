//! LeaveGroup, API 13.

use crate::protocol::api::api;
use crate::protocol::wire::Str;

api! {
    /// Takes members out of a group. Several at once, static ones by their instance id: KIP-345.
    LeaveGroup { key: 13, versions: 0..=5, flexible: 4.. }

    request LeaveGroupRequest {
        group_id: Str,
        member_id: Str [0..=2],
        members: Vec<LeavingMember> [3..],
    }

    struct LeavingMember {
        /// Empty if the instance id names the member.
        member_id: Str,
        group_instance_id: Option<Str>,
        reason: Option<Str> [5..],
    }

    response LeaveGroupResponse {
        throttle_time_ms: i32 [1..],
        error_code: i16,
        members: Vec<LeftMember> [3..],
    }

    struct LeftMember {
        member_id: Str,
        group_instance_id: Option<Str>,
        error_code: i16,
    }
}
