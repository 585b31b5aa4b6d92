//! ListGroups, API 16.

use crate::protocol::api::api;
use crate::protocol::wire::Str;

api! {
    /// The groups that this broker coordinates. By state: KIP-518; by type: KIP-848.
    ListGroups { key: 16, versions: 0..=5, flexible: 3.. }

    request ListGroupsRequest {
        /// In any case; empty for all.
        states_filter: Vec<Str> [4..],
        /// In any case; empty for all.
        types_filter: Vec<Str> [5..],
    }

    response ListGroupsResponse {
        throttle_time_ms: i32 [1..],
        error_code: i16,
        groups: Vec<ListedGroup>,
    }

    struct ListedGroup {
        group_id: Str,
        protocol_type: Str,
        group_state: Str [4..],
        group_type: Str [5..],
    }
}
