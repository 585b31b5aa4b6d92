//! FindCoordinator, API 10.

use crate::protocol::api::api;
use crate::protocol::wire::Str;

api! {
    /// The broker that coordinates a group or a transactional id. Many keys at once: KIP-699; share groups: KIP-932.
    FindCoordinator { key: 10, versions: 0..=6, flexible: 3.. }

    request FindCoordinatorRequest {
        key: Str [0..=3],
        /// 0 group, 1 transactional id, 2 share partition (`group:topicId:partition`).
        key_type: i8 [1..],
        coordinator_keys: Vec<Str> [4..],
    }

    response FindCoordinatorResponse {
        throttle_time_ms: i32 [1..],
        error_code: i16 [0..=3],
        error_message: Option<Str> [1..=3],
        node_id: i32 [0..=3],
        host: Str [0..=3],
        port: i32 [0..=3],
        coordinators: Vec<Coordinator> [4..],
    }

    struct Coordinator {
        key: Str,
        node_id: i32,
        host: Str,
        port: i32,
        error_code: i16,
        error_message: Option<Str>,
    }
}
