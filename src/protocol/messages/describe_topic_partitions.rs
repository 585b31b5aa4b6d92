//! DescribeTopicPartitions, API 75.

use crate::protocol::api::api;
use crate::protocol::wire::Str;
use crate::uuid::Uuid;

api! {
    /// Partitions of topics, page by page. KIP-966.
    DescribeTopicPartitions { key: 75, versions: 0..=0, flexible: 0.. }

    request DescribeTopicPartitionsRequest {
        topics: Vec<DescribeTopicPartitionsTopic>,
        response_partition_limit: i32 = 2000,
        cursor: Option<DescribeTopicPartitionsCursor>,
    }

    struct DescribeTopicPartitionsTopic {
        name: Str,
    }

    struct DescribeTopicPartitionsCursor {
        topic_name: Str,
        partition_index: i32,
    }

    response DescribeTopicPartitionsResponse {
        throttle_time_ms: i32,
        topics: Vec<DescribeTopicPartitionsTopicResponse>,
        next_cursor: Option<DescribeTopicPartitionsNextCursor>,
    }

    struct DescribeTopicPartitionsTopicResponse {
        error_code: i16,
        name: Option<Str>,
        topic_id: Uuid,
        is_internal: bool,
        partitions: Vec<DescribeTopicPartitionsPartition>,
        topic_authorized_operations: i32 = i32::MIN,
    }

    struct DescribeTopicPartitionsPartition {
        error_code: i16,
        partition_index: i32,
        leader_id: i32,
        leader_epoch: i32 = -1,
        replica_nodes: Vec<i32>,
        isr_nodes: Vec<i32>,
        eligible_leader_replicas: Option<Vec<i32>>,
        last_known_elr: Option<Vec<i32>>,
        offline_replicas: Vec<i32>,
    }

    struct DescribeTopicPartitionsNextCursor {
        topic_name: Str,
        partition_index: i32,
    }
}
