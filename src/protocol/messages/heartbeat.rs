//! Heartbeat, API 12.

use crate::protocol::api::api;
use crate::protocol::wire::Str;

api! {
    /// A member of a classic group is alive. Static members: KIP-345.
    Heartbeat { key: 12, versions: 0..=4, flexible: 4.. }

    request HeartbeatRequest {
        group_id: Str,
        generation_id: i32,
        member_id: Str,
        group_instance_id: Option<Str> [3..],
    }

    response HeartbeatResponse {
        throttle_time_ms: i32 [1..],
        error_code: i16,
    }
}
