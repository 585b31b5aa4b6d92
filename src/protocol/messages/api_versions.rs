//! ApiVersions, API 18.

use crate::protocol::api::api;
use crate::protocol::wire::Str;

api! {
    /// Which APIs and versions this broker serves, and its features. KIP-35, KIP-511, KIP-584; cluster check: KIP-1242.
    ApiVersions { key: 18, versions: 0..=5, flexible: 3.. }

    request ApiVersionsRequest {
        client_software_name: Str [3..],
        client_software_version: Str [3..],
        cluster_id: Option<Str> [5..],
        node_id: i32 [5..] = -1,
    }

    response ApiVersionsResponse {
        error_code: i16,
        api_keys: Vec<ApiVersion>,
        throttle_time_ms: i32 [1..],
    } + tagged {
        0 => supported_features: Vec<SupportedFeature>,
        1 => finalized_features_epoch: i64 = -1,
        2 => finalized_features: Vec<FinalizedFeature>,
        3 => zk_migration_ready: bool,
    }

    struct ApiVersion {
        api_key: i16,
        min_version: i16,
        max_version: i16,
    }

    struct SupportedFeature {
        name: Str,
        min_version: i16,
        max_version: i16,
    }

    struct FinalizedFeature {
        name: Str,
        max_version_level: i16,
        min_version_level: i16,
    }
}
