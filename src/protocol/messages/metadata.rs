//! Metadata, API 3.

use crate::protocol::api::api;
use crate::protocol::wire::Str;
use crate::uuid::Uuid;

api! {
    /// Brokers, and the partitions of topics with their leaders. Topic ids: KIP-516.
    Metadata { key: 3, versions: 0..=13, flexible: 9.. }

    request MetadataRequest {
        /// Null asks for all topics; in version 0 so does an empty list.
        topics: Option<Vec<MetadataTopic>> [null 1..],
        allow_auto_topic_creation: bool [4..] = true,
        include_cluster_authorized_operations: bool [8..=10],
        include_topic_authorized_operations: bool [8..],
    }

    struct MetadataTopic {
        topic_id: Uuid [10..],
        name: Option<Str> [null 10..],
    }

    response MetadataResponse {
        throttle_time_ms: i32 [3..],
        brokers: Vec<MetadataBroker>,
        cluster_id: Option<Str> [2..],
        controller_id: i32 [1..] = -1,
        topics: Vec<MetadataTopicResponse>,
        cluster_authorized_operations: i32 [8..=10] = i32::MIN,
        error_code: i16 [13..],
    }

    struct MetadataBroker {
        node_id: i32,
        host: Str,
        port: i32,
        rack: Option<Str> [1..],
    }

    struct MetadataTopicResponse {
        error_code: i16,
        name: Option<Str> [null 12..],
        topic_id: Uuid [10..],
        is_internal: bool [1..],
        partitions: Vec<MetadataPartition>,
        topic_authorized_operations: i32 [8..] = i32::MIN,
    }

    struct MetadataPartition {
        error_code: i16,
        partition_index: i32,
        leader_id: i32,
        leader_epoch: i32 [7..] = -1,
        replica_nodes: Vec<i32>,
        isr_nodes: Vec<i32>,
        offline_replicas: Vec<i32> [5..],
    }
}
