//! DescribeGroups, API 15.

use bytes::Bytes;

use crate::protocol::api::api;
use crate::protocol::wire::Str;

api! {
    /// State, members and assignment of classic groups. Authorized operations: KIP-430; unknown groups: KIP-1043.
    DescribeGroups { key: 15, versions: 0..=6, flexible: 5.. }

    request DescribeGroupsRequest {
        groups: Vec<Str>,
        include_authorized_operations: bool [3..],
    }

    response DescribeGroupsResponse {
        throttle_time_ms: i32 [1..],
        groups: Vec<DescribedGroup>,
    }

    struct DescribedGroup {
        error_code: i16,
        error_message: Option<Str> [6..],
        group_id: Str,
        group_state: Str,
        protocol_type: Str,
        /// The assignor that was chosen.
        protocol_data: Str,
        members: Vec<DescribedGroupMember>,
        /// Bit field by operation code.
        authorized_operations: i32 [3..] = i32::MIN,
    }

    struct DescribedGroupMember {
        member_id: Str,
        group_instance_id: Option<Str> [4..],
        client_id: Str,
        client_host: Str,
        member_metadata: Bytes,
        member_assignment: Bytes,
    }
}
