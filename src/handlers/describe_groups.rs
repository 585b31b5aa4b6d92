//! DescribeGroups: state, members and assignment of groups.

use super::RequestContext;
use super::context::GROUP_OPERATIONS;
use crate::group::{Description, MemberDescription};
use crate::protocol::ErrorCode;
use crate::protocol::messages::describe_groups::{
    DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup, DescribedGroupMember,
};
use crate::protocol::wire::Str;

/// First version that says that there is no such group; before, it is one in state `Dead`. KIP-1043.
const NOT_FOUND_FROM_VERSION: i16 = 6;

/// The state of a group that there is not.
const DEAD: &str = "Dead";

/// Describes each group on its own.
pub async fn handle(cx: RequestContext, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let authorized_operations = match request.include_authorized_operations {
        true => GROUP_OPERATIONS,
        false => DescribedGroup::default().authorized_operations,
    };
    let mut groups = Vec::with_capacity(request.groups.len());
    for group_id in request.groups {
        let group = match cx.groups.describe(&group_id).await {
            Ok(Some(description)) => {
                DescribedGroup { group_id, authorized_operations, ..answer(description) }
            }
            Ok(None) => DescribedGroup { authorized_operations, ..unknown(&cx, group_id) },
            Err(error) => {
                DescribedGroup { group_id, error_code: ErrorCode::from(&error).into(), ..Default::default() }
            }
        };
        groups.push(group);
    }
    DescribeGroupsResponse { groups, ..Default::default() }
}

fn unknown(cx: &RequestContext, group_id: Str) -> DescribedGroup {
    let (error_code, error_message) = match cx.version {
        ..NOT_FOUND_FROM_VERSION => (ErrorCode::None, None),
        _ => (ErrorCode::GroupIdNotFound, Some(format!("Group {group_id} not found.").into())),
    };
    DescribedGroup {
        group_id,
        group_state: Str::from_static(DEAD),
        error_code: error_code.into(),
        error_message,
        ..Default::default()
    }
}

fn answer(group: Description) -> DescribedGroup {
    let member = |member: MemberDescription| DescribedGroupMember {
        member_id: Str::from(&*member.member_id),
        group_instance_id: member.instance_id.as_deref().map(Str::from),
        client_id: Str::from(&*member.client_id),
        client_host: Str::from(&*member.client_host),
        member_metadata: member.metadata,
        member_assignment: member.assignment,
    };
    DescribedGroup {
        group_state: Str::from_static(group.state.name()),
        protocol_type: Str::from(&*group.protocol_type),
        protocol_data: Str::from(&*group.protocol),
        members: group.members.into_iter().map(member).collect(),
        ..Default::default()
    }
}
