//! DeleteShareGroupOffsets, API 92.

use crate::protocol::api::api;
use crate::protocol::wire::Str;
use crate::uuid::Uuid;

api! {
    /// Has a share group without members forget topics. KIP-932.
    DeleteShareGroupOffsets { key: 92, versions: 0..=0, flexible: 0.. }

    request DeleteShareGroupOffsetsRequest {
        group_id: Str,
        topics: Vec<DeleteShareGroupOffsetsTopic>,
    }

    struct DeleteShareGroupOffsetsTopic {
        topic_name: Str,
    }

    response DeleteShareGroupOffsetsResponse {
        throttle_time_ms: i32,
        error_code: i16,
        error_message: Option<Str>,
        responses: Vec<DeletedShareGroupOffsetsTopic>,
    }

    struct DeletedShareGroupOffsetsTopic {
        topic_name: Str,
        topic_id: Uuid,
        error_code: i16,
        error_message: Option<Str>,
    }
}
