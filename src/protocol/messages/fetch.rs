//! Fetch, API 1.

use crate::protocol::api::api;
use crate::protocol::wire::{Records, Str};
use crate::uuid::Uuid;

api! {
    /// Stored batches from an offset on, waiting for more if asked to. Sessions: KIP-227; epochs: KIP-320, KIP-595;
    /// topic ids: KIP-516.
    Fetch { key: 1, versions: 4..=18, flexible: 12.. }

    request FetchRequest {
        replica_id: i32 [4..=14] = -1,
        /// Longest wait for `min_bytes`, ms.
        max_wait_ms: i32,
        min_bytes: i32,
        max_bytes: i32 = i32::MAX,
        /// 0 read_uncommitted, 1 read_committed.
        isolation_level: i8,
        session_id: i32 [7..],
        /// -1 no session, 0 make one, from 1 on the next incremental fetch. KIP-227.
        session_epoch: i32 [7..] = -1,
        topics: Vec<FetchTopic>,
        forgotten_topics_data: Vec<FetchForgottenTopic> [7..],
        rack_id: Str [11..],
    } + tagged {
        0 => cluster_id: Option<Str>,
        1 => replica_state: FetchReplicaState [15..],
    }

    struct FetchReplicaState {
        replica_id: i32 = -1,
        replica_epoch: i64 = -1,
    }

    struct FetchTopic {
        topic: Str [4..=12],
        topic_id: Uuid [13..],
        partitions: Vec<FetchPartition>,
    }

    struct FetchPartition {
        partition: i32,
        current_leader_epoch: i32 [9..] = -1,
        fetch_offset: i64,
        last_fetched_epoch: i32 [12..] = -1,
        /// A follower's log start offset; -1 from a consumer.
        log_start_offset: i64 [5..] = -1,
        partition_max_bytes: i32,
    } + tagged {
        0 => replica_directory_id: Uuid [17..],
        1 => high_watermark: i64 [18..] = i64::MAX,
    }

    struct FetchForgottenTopic {
        topic: Str [7..=12],
        topic_id: Uuid [13..],
        partitions: Vec<i32>,
    }

    response FetchResponse {
        throttle_time_ms: i32,
        error_code: i16 [7..],
        session_id: i32 [7..],
        responses: Vec<FetchTopicResponse>,
    } + tagged {
        0 => node_endpoints: Vec<FetchNodeEndpoint> [16..],
    }

    struct FetchTopicResponse {
        topic: Str [4..=12],
        topic_id: Uuid [13..],
        partitions: Vec<FetchPartitionResponse>,
    }

    struct FetchPartitionResponse {
        partition_index: i32,
        error_code: i16,
        high_watermark: i64,
        last_stable_offset: i64 = -1,
        log_start_offset: i64 [5..] = -1,
        aborted_transactions: Option<Vec<FetchAbortedTransaction>>,
        preferred_read_replica: i32 [11..] = -1,
        records: Records,
    } + tagged {
        0 => diverging_epoch: FetchDivergingEpoch,
        1 => current_leader: FetchCurrentLeader,
        2 => snapshot_id: FetchSnapshotId,
    }

    struct FetchDivergingEpoch {
        epoch: i32 = -1,
        end_offset: i64 = -1,
    }

    struct FetchCurrentLeader {
        leader_id: i32 = -1,
        leader_epoch: i32 = -1,
    }

    struct FetchSnapshotId {
        end_offset: i64 = -1,
        epoch: i32 = -1,
    }

    struct FetchAbortedTransaction {
        producer_id: i64,
        first_offset: i64,
    }

    struct FetchNodeEndpoint {
        node_id: i32,
        host: Str,
        port: i32,
        rack: Option<Str>,
    }
}
