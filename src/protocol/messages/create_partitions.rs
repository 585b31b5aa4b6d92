//! CreatePartitions, API 37.

use crate::protocol::api::api;
use crate::protocol::wire::Str;

api! {
    /// Adds partitions to topics. KIP-195.
    CreatePartitions { key: 37, versions: 0..=3, flexible: 2.. }

    request CreatePartitionsRequest {
        topics: Vec<CreatePartitionsTopic>,
        timeout_ms: i32,
        validate_only: bool,
    }

    struct CreatePartitionsTopic {
        name: Str,
        /// Partitions there shall be in all.
        count: i32,
        assignments: Option<Vec<CreatePartitionsAssignment>>,
    }

    struct CreatePartitionsAssignment {
        broker_ids: Vec<i32>,
    }

    response CreatePartitionsResponse {
        throttle_time_ms: i32,
        results: Vec<CreatePartitionsTopicResult>,
    }

    struct CreatePartitionsTopicResult {
        name: Str,
        error_code: i16,
        error_message: Option<Str>,
    }
}
