//! ShareAcknowledge, API 79.

use crate::protocol::api::api;
use crate::protocol::wire::Str;
use crate::uuid::Uuid;

api! {
    /// What a member of a share group says of records that it was given. KIP-932; renewal: KIP-1222.
    ShareAcknowledge { key: 79, versions: 1..=2, flexible: 0.. }

    request ShareAcknowledgeRequest {
        group_id: Option<Str>,
        member_id: Option<Str>,
        /// As in ShareFetch, with which it shares the session; not 0.
        share_session_epoch: i32,
        is_renew_ack: bool [2..],
        topics: Vec<ShareAcknowledgeTopic>,
    }

    struct ShareAcknowledgeTopic {
        topic_id: Uuid,
        partitions: Vec<ShareAcknowledgePartition>,
    }

    struct ShareAcknowledgePartition {
        partition_index: i32,
        acknowledgement_batches: Vec<ShareAcknowledgements>,
    }

    struct ShareAcknowledgements {
        first_offset: i64,
        last_offset: i64,
        /// 0 gap, 1 accept, 2 release, 3 reject, 4 renew: one for all, or one for each offset.
        acknowledge_types: Vec<i8>,
    }

    response ShareAcknowledgeResponse {
        throttle_time_ms: i32,
        error_code: i16,
        error_message: Option<Str>,
        acquisition_lock_timeout_ms: i32 [2..],
        responses: Vec<ShareAcknowledgeTopicResponse>,
        node_endpoints: Vec<ShareAcknowledgeNodeEndpoint>,
    }

    struct ShareAcknowledgeTopicResponse {
        topic_id: Uuid,
        partitions: Vec<ShareAcknowledgePartitionResponse>,
    }

    struct ShareAcknowledgePartitionResponse {
        partition_index: i32,
        error_code: i16,
        error_message: Option<Str>,
        current_leader: ShareAcknowledgeLeader,
    }

    struct ShareAcknowledgeLeader {
        leader_id: i32,
        leader_epoch: i32,
    }

    struct ShareAcknowledgeNodeEndpoint {
        node_id: i32,
        host: Str,
        port: i32,
        rack: Option<Str>,
    }
}
