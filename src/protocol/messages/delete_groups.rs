//! DeleteGroups, API 42.

use crate::protocol::api::api;
use crate::protocol::wire::Str;

api! {
    /// Deletes groups that have no members, with their offsets. KIP-229.
    DeleteGroups { key: 42, versions: 0..=3, flexible: 2.. }

    request DeleteGroupsRequest {
        groups_names: Vec<Str>,
    }

    response DeleteGroupsResponse {
        throttle_time_ms: i32,
        results: Vec<DeletedGroup>,
    }

    struct DeletedGroup {
        group_id: Str,
        error_code: i16,
        error_message: Option<Str> [3..],
    }
}
