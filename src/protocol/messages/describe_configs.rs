//! DescribeConfigs, API 32.

use crate::protocol::api::api;
use crate::protocol::wire::Str;

api! {
    /// Configs of topics, brokers and others, with where each value is from. KIP-133, KIP-226, KIP-569.
    DescribeConfigs { key: 32, versions: 1..=4, flexible: 4.. }

    request DescribeConfigsRequest {
        resources: Vec<DescribeConfigsResource>,
        /// Also list where else a value could come from.
        include_synonyms: bool,
        include_documentation: bool [3..],
    }

    struct DescribeConfigsResource {
        /// 2 topic, 4 broker, 8 broker logger, 16 client metrics, 32 group.
        resource_type: i8,
        resource_name: Str,
        /// Null asks for all.
        configuration_keys: Option<Vec<Str>>,
    }

    response DescribeConfigsResponse {
        throttle_time_ms: i32,
        results: Vec<DescribeConfigsResult>,
    }

    struct DescribeConfigsResult {
        error_code: i16,
        error_message: Option<Str>,
        resource_type: i8,
        resource_name: Str,
        configs: Vec<DescribedConfig>,
    }

    struct DescribedConfig {
        name: Str,
        value: Option<Str>,
        read_only: bool,
        config_source: i8 = -1,
        is_sensitive: bool,
        synonyms: Vec<DescribedConfigSynonym>,
        config_type: i8 [3..],
        documentation: Option<Str> [3..],
    }

    struct DescribedConfigSynonym {
        name: Str,
        value: Option<Str>,
        source: i8,
    }
}
