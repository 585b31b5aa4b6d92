//! AlterShareGroupOffsets, API 91.

use crate::protocol::api::api;
use crate::protocol::wire::Str;
use crate::uuid::Uuid;

api! {
    /// Sets where a share group without members goes on. KIP-932.
    AlterShareGroupOffsets { key: 91, versions: 0..=0, flexible: 0.. }

    request AlterShareGroupOffsetsRequest {
        group_id: Str,
        topics: Vec<AlterShareGroupOffsetsTopic>,
    }

    struct AlterShareGroupOffsetsTopic {
        topic_name: Str,
        partitions: Vec<AlterShareGroupOffsetsPartition>,
    }

    struct AlterShareGroupOffsetsPartition {
        partition_index: i32,
        start_offset: i64,
    }

    response AlterShareGroupOffsetsResponse {
        throttle_time_ms: i32,
        error_code: i16,
        error_message: Option<Str>,
        responses: Vec<AlteredShareGroupOffsetsTopic>,
    }

    struct AlteredShareGroupOffsetsTopic {
        topic_name: Str,
        topic_id: Uuid,
        partitions: Vec<AlteredShareGroupOffsetsPartition>,
    }

    struct AlteredShareGroupOffsetsPartition {
        partition_index: i32,
        error_code: i16,
        error_message: Option<Str>,
    }
}
