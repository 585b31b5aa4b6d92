//! DeleteTopics, API 20.

use crate::protocol::api::api;
use crate::protocol::wire::Str;
use crate::uuid::Uuid;

api! {
    /// Deletes topics by name or id. KIP-4, KIP-516.
    DeleteTopics { key: 20, versions: 1..=6, flexible: 4.. }

    request DeleteTopicsRequest {
        topics: Vec<DeletableTopic> [6..],
        topic_names: Vec<Str> [1..=5],
        timeout_ms: i32,
    }

    struct DeletableTopic {
        name: Option<Str>,
        topic_id: Uuid,
    }

    response DeleteTopicsResponse {
        throttle_time_ms: i32,
        responses: Vec<DeletableTopicResult>,
    }

    struct DeletableTopicResult {
        name: Option<Str> [null 6..],
        topic_id: Uuid [6..],
        error_code: i16,
        error_message: Option<Str> [5..],
    }
}
