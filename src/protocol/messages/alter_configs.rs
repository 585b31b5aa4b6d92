//! AlterConfigs, API 33.

use crate::protocol::api::api;
use crate::protocol::wire::Str;

api! {
    /// Replaces all dynamic configs of a resource. KIP-133; superseded by IncrementalAlterConfigs.
    AlterConfigs { key: 33, versions: 0..=2, flexible: 2.. }

    request AlterConfigsRequest {
        resources: Vec<AlterConfigsResource>,
        validate_only: bool,
    }

    struct AlterConfigsResource {
        resource_type: i8,
        resource_name: Str,
        configs: Vec<AlterableConfig>,
    }

    struct AlterableConfig {
        name: Str,
        value: Option<Str>,
    }

    response AlterConfigsResponse {
        throttle_time_ms: i32,
        responses: Vec<AlterConfigsResourceResponse>,
    }

    struct AlterConfigsResourceResponse {
        error_code: i16,
        error_message: Option<Str>,
        resource_type: i8,
        resource_name: Str,
    }
}
