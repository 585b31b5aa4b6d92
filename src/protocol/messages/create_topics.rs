//! CreateTopics, API 19.

use crate::protocol::api::api;
use crate::protocol::wire::Str;
use crate::uuid::Uuid;

api! {
    /// Makes topics. KIP-4; created configs in the answer: KIP-525.
    CreateTopics { key: 19, versions: 2..=7, flexible: 5.. }

    request CreateTopicsRequest {
        topics: Vec<CreatableTopic>,
        timeout_ms: i32 = 60000,
        validate_only: bool,
    }

    struct CreatableTopic {
        name: Str,
        num_partitions: i32,
        replication_factor: i16,
        assignments: Vec<CreatableReplicaAssignment>,
        configs: Vec<CreatableTopicConfig>,
    }

    struct CreatableReplicaAssignment {
        partition_index: i32,
        broker_ids: Vec<i32>,
    }

    struct CreatableTopicConfig {
        name: Str,
        value: Option<Str>,
    }

    response CreateTopicsResponse {
        throttle_time_ms: i32,
        topics: Vec<CreatableTopicResult>,
    }

    struct CreatableTopicResult {
        name: Str,
        topic_id: Uuid [7..],
        error_code: i16,
        error_message: Option<Str>,
        num_partitions: i32 [5..] = -1,
        replication_factor: i16 [5..] = -1,
        configs: Option<Vec<CreatedTopicConfig>> [5..],
    } + tagged {
        0 => topic_config_error_code: i16,
    }

    struct CreatedTopicConfig {
        name: Str,
        value: Option<Str>,
        read_only: bool,
        config_source: i8 = -1,
        is_sensitive: bool,
    }
}
