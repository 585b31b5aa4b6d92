//! ShareGroupDescribe, API 77.

use crate::protocol::api::api;
use crate::protocol::wire::Str;
use crate::uuid::Uuid;

api! {
    /// State, members and assignment of share groups. KIP-932.
    ShareGroupDescribe { key: 77, versions: 1..=1, flexible: 0.. }

    request ShareGroupDescribeRequest {
        group_ids: Vec<Str>,
        include_authorized_operations: bool,
    }

    response ShareGroupDescribeResponse {
        throttle_time_ms: i32,
        groups: Vec<DescribedShareGroup>,
    }

    struct DescribedShareGroup {
        error_code: i16,
        error_message: Option<Str>,
        group_id: Str,
        group_state: Str,
        group_epoch: i32,
        assignment_epoch: i32,
        assignor_name: Str,
        members: Vec<DescribedShareMember>,
        authorized_operations: i32 = i32::MIN,
    }

    struct DescribedShareMember {
        member_id: Str,
        rack_id: Option<Str>,
        member_epoch: i32,
        client_id: Str,
        client_host: Str,
        subscribed_topic_names: Vec<Str>,
        assignment: DescribedShareAssignment,
    }

    struct DescribedShareAssignment {
        topic_partitions: Vec<DescribedShareTopic>,
    }

    struct DescribedShareTopic {
        topic_id: Uuid,
        topic_name: Str,
        partitions: Vec<i32>,
    }
}
