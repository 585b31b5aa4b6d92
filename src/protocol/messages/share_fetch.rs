//! ShareFetch, API 78.

use crate::protocol::api::api;
use crate::protocol::wire::{Records, Str};
use crate::uuid::Uuid;

api! {
    /// Records for a member of a share group, on loan; with it what the member says of earlier ones. KIP-932; acquire mode:
    /// KIP-1206; renewal: KIP-1222.
    ShareFetch { key: 78, versions: 1..=2, flexible: 0.. }

    request ShareFetchRequest {
        group_id: Option<Str>,
        member_id: Option<Str>,
        /// 0 opens a session, -1 closes it, else one more each time.
        share_session_epoch: i32,
        /// Longest wait for `min_bytes`, ms.
        max_wait_ms: i32,
        min_bytes: i32,
        max_bytes: i32 = i32::MAX,
        max_records: i32,
        /// Records of which a range of acquired ones is made.
        batch_size: i32,
        /// 0 whole batches, 1 no more than `max_records`.
        share_acquire_mode: i8 [2..],
        is_renew_ack: bool [2..],
        topics: Vec<ShareFetchTopic>,
        forgotten_topics_data: Vec<ShareFetchForgottenTopic>,
    }

    struct ShareFetchTopic {
        topic_id: Uuid,
        partitions: Vec<ShareFetchPartition>,
    }

    struct ShareFetchPartition {
        partition_index: i32,
        acknowledgement_batches: Vec<ShareFetchAcknowledgements>,
    }

    struct ShareFetchAcknowledgements {
        first_offset: i64,
        last_offset: i64,
        /// 0 gap, 1 accept, 2 release, 3 reject, 4 renew: one for all, or one for each offset.
        acknowledge_types: Vec<i8>,
    }

    struct ShareFetchForgottenTopic {
        topic_id: Uuid,
        partitions: Vec<i32>,
    }

    response ShareFetchResponse {
        throttle_time_ms: i32,
        error_code: i16,
        error_message: Option<Str>,
        acquisition_lock_timeout_ms: i32,
        responses: Vec<ShareFetchTopicResponse>,
        node_endpoints: Vec<ShareFetchNodeEndpoint>,
    }

    struct ShareFetchTopicResponse {
        topic_id: Uuid,
        partitions: Vec<ShareFetchPartitionResponse>,
    }

    struct ShareFetchPartitionResponse {
        partition_index: i32,
        error_code: i16,
        error_message: Option<Str>,
        acknowledge_error_code: i16,
        acknowledge_error_message: Option<Str>,
        current_leader: ShareFetchLeader,
        records: Records,
        acquired_records: Vec<ShareFetchAcquired>,
    }

    struct ShareFetchLeader {
        leader_id: i32,
        leader_epoch: i32,
    }

    struct ShareFetchAcquired {
        first_offset: i64,
        last_offset: i64,
        /// This delivery included.
        delivery_count: i16,
    }

    struct ShareFetchNodeEndpoint {
        node_id: i32,
        host: Str,
        port: i32,
        rack: Option<Str>,
    }
}
