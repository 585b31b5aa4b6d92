//! DescribeShareGroupOffsets, API 90.

use crate::protocol::api::api;
use crate::protocol::wire::Str;
use crate::uuid::Uuid;

api! {
    /// How far share groups have come. KIP-932; lag: KIP-1226.
    DescribeShareGroupOffsets { key: 90, versions: 0..=1, flexible: 0.. }

    request DescribeShareGroupOffsetsRequest {
        groups: Vec<DescribeShareGroupOffsetsGroup>,
    }

    struct DescribeShareGroupOffsetsGroup {
        group_id: Str,
        /// Null: all.
        topics: Option<Vec<DescribeShareGroupOffsetsTopic>>,
    }

    struct DescribeShareGroupOffsetsTopic {
        topic_name: Str,
        partitions: Vec<i32>,
    }

    response DescribeShareGroupOffsetsResponse {
        throttle_time_ms: i32,
        groups: Vec<DescribedShareGroupOffsets>,
    }

    struct DescribedShareGroupOffsets {
        group_id: Str,
        topics: Vec<DescribedShareGroupOffsetsTopic>,
        error_code: i16,
        error_message: Option<Str>,
    }

    struct DescribedShareGroupOffsetsTopic {
        topic_name: Str,
        topic_id: Uuid,
        partitions: Vec<DescribedShareGroupOffsetsPartition>,
    }

    struct DescribedShareGroupOffsetsPartition {
        partition_index: i32,
        /// -1 before the first fetch.
        start_offset: i64,
        leader_epoch: i32,
        /// Records that are not done; -1 if that is not known.
        lag: i64 [1..] = -1,
        error_code: i16,
        error_message: Option<Str>,
    }
}
