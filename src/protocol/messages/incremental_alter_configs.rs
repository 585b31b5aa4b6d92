//! IncrementalAlterConfigs, API 44.

use crate::protocol::api::api;
use crate::protocol::wire::Str;

api! {
    /// Changes single configs of resources. KIP-339.
    IncrementalAlterConfigs { key: 44, versions: 0..=1, flexible: 1.. }

    request IncrementalAlterConfigsRequest {
        resources: Vec<IncrementalAlterConfigsResource>,
        validate_only: bool,
    }

    struct IncrementalAlterConfigsResource {
        resource_type: i8,
        resource_name: Str,
        configs: Vec<IncrementalAlterConfig>,
    }

    struct IncrementalAlterConfig {
        name: Str,
        /// 0 set, 1 delete, 2 append, 3 subtract.
        config_operation: i8,
        value: Option<Str>,
    }

    response IncrementalAlterConfigsResponse {
        throttle_time_ms: i32,
        responses: Vec<IncrementalAlterConfigsResourceResponse>,
    }

    struct IncrementalAlterConfigsResourceResponse {
        error_code: i16,
        error_message: Option<Str>,
        resource_type: i8,
        resource_name: Str,
    }
}
