//! Produce, API 0.

use crate::protocol::api::api;
use crate::protocol::wire::{Records, Str};
use crate::uuid::Uuid;

api! {
    /// Record batches to append, one per partition. KIP-98; topic ids: KIP-516.
    Produce { key: 0, versions: 3..=13, flexible: 9.. }

    request ProduceRequest {
        transactional_id: Option<Str>,
        /// -1 all in-sync replicas, 1 the leader, 0 no answer at all.
        acks: i16,
        timeout_ms: i32,
        topic_data: Vec<ProduceTopic>,
    }

    struct ProduceTopic {
        name: Str [3..=12],
        topic_id: Uuid [13..],
        partition_data: Vec<ProducePartition>,
    }

    struct ProducePartition {
        index: i32,
        records: Records,
    }

    response ProduceResponse {
        responses: Vec<ProduceTopicResponse>,
        throttle_time_ms: i32,
    } + tagged {
        0 => node_endpoints: Vec<ProduceNodeEndpoint> [10..],
    }

    struct ProduceTopicResponse {
        name: Str [3..=12],
        topic_id: Uuid [13..],
        partition_responses: Vec<ProducePartitionResponse>,
    }

    struct ProducePartitionResponse {
        index: i32,
        error_code: i16,
        base_offset: i64,
        log_append_time_ms: i64 = -1,
        log_start_offset: i64 [5..] = -1,
        record_errors: Vec<ProduceRecordError> [8..],
        error_message: Option<Str> [8..],
    } + tagged {
        0 => current_leader: ProduceCurrentLeader [10..],
    }

    struct ProduceRecordError {
        batch_index: i32,
        batch_index_error_message: Option<Str>,
    }

    struct ProduceCurrentLeader {
        leader_id: i32 = -1,
        leader_epoch: i32 = -1,
    }

    struct ProduceNodeEndpoint {
        node_id: i32,
        host: Str,
        port: i32,
        rack: Option<Str>,
    }
}
