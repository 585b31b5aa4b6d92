//! ListConfigResources, API 74.

use crate::protocol::api::api;
use crate::protocol::wire::Str;

api! {
    /// What has configs: version 0 knows client metrics only. KIP-1000, KIP-1142.
    ListConfigResources { key: 74, versions: 0..=1, flexible: 0.. }

    request ListConfigResourcesRequest {
        /// Empty for all types.
        resource_types: Vec<i8> [1..],
    }

    response ListConfigResourcesResponse {
        throttle_time_ms: i32,
        error_code: i16,
        config_resources: Vec<ListedConfigResource>,
    }

    struct ListedConfigResource {
        resource_name: Str,
        resource_type: i8 [1..] = 16,
    }
}
