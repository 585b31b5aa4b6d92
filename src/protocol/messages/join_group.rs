//! JoinGroup, API 11.

use bytes::Bytes;

use crate::protocol::api::api;
use crate::protocol::wire::Str;

api! {
    /// Enters a classic group, or stays in it over a rebalance. Member ids: KIP-394; static members: KIP-345; skipped
    /// assignments: KIP-814.
    JoinGroup { key: 11, versions: 0..=9, flexible: 6.. }

    request JoinGroupRequest {
        group_id: Str,
        session_timeout_ms: i32,
        /// Longest wait for the other members to join again; in version 0 it is the session timeout.
        rebalance_timeout_ms: i32 [1..] = -1,
        /// Empty at the first join.
        member_id: Str,
        group_instance_id: Option<Str> [5..],
        protocol_type: Str,
        /// Assignors that the member can do, the best first.
        protocols: Vec<JoinGroupProtocol>,
        reason: Option<Str> [8..],
    }

    struct JoinGroupProtocol {
        name: Str,
        metadata: Bytes,
    }

    response JoinGroupResponse {
        throttle_time_ms: i32 [2..],
        error_code: i16,
        generation_id: i32 = -1,
        protocol_type: Option<Str> [7..],
        protocol_name: Option<Str> [null 7..],
        leader: Str,
        /// Whether the leader shall not assign: it has come back to a group whose assignment stands.
        skip_assignment: bool [9..],
        member_id: Str,
        /// All members, for the leader; empty for everyone else.
        members: Vec<JoinGroupMember>,
    }

    struct JoinGroupMember {
        member_id: Str,
        group_instance_id: Option<Str> [5..],
        metadata: Bytes,
    }
}
