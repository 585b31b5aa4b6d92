//! ShareGroupDescribe: state, members and assignment of share groups. KIP-932.

use super::RequestContext;
use super::context::GROUP_OPERATIONS;
use crate::group::{ShareDescription, ShareMemberDescription};
use crate::protocol::ErrorCode;
use crate::protocol::messages::share_group_describe::{
    DescribedShareAssignment, DescribedShareGroup, DescribedShareMember, DescribedShareTopic,
    ShareGroupDescribeRequest, ShareGroupDescribeResponse,
};
use crate::protocol::wire::Str;

/// The one way that partitions are spread.
const ASSIGNOR: &str = "simple";

/// Describes each group on its own.
pub async fn handle(cx: RequestContext, request: ShareGroupDescribeRequest) -> ShareGroupDescribeResponse {
    let authorized_operations = match request.include_authorized_operations {
        true => GROUP_OPERATIONS,
        false => DescribedShareGroup::default().authorized_operations,
    };
    let mut groups = Vec::with_capacity(request.group_ids.len());
    for group_id in request.group_ids {
        let described = match cx.groups.share_describe(&group_id).await {
            Ok(Some(description)) => Ok(description),
            Ok(None) => Err((ErrorCode::GroupIdNotFound, format!("Group {group_id} is not a share group."))),
            Err(error) => Err((ErrorCode::from(&error), error.to_string())),
        };
        groups.push(match described {
            Ok(description) => {
                DescribedShareGroup { group_id, authorized_operations, ..answer(&cx, description) }
            }
            Err((code, message)) => DescribedShareGroup {
                group_id,
                error_code: code.into(),
                error_message: Some(message.into()),
                ..Default::default()
            },
        });
    }
    ShareGroupDescribeResponse { groups, ..Default::default() }
}

fn answer(cx: &RequestContext, group: ShareDescription) -> DescribedShareGroup {
    let view = cx.catalog.view();
    let topic = |(topic_id, partitions)| {
        // A topic that was deleted since has no name any more.
        let topic_name = view.topic_by_id(topic_id).map(|topic| Str::from(&*topic.name))?;
        Some(DescribedShareTopic { topic_id, topic_name, partitions })
    };
    let member = |member: ShareMemberDescription| DescribedShareMember {
        member_id: Str::from(&*member.member_id),
        rack_id: member.rack_id.as_deref().map(Str::from),
        member_epoch: member.epoch,
        client_id: Str::from(&*member.client_id),
        client_host: Str::from(&*member.client_host),
        subscribed_topic_names: member.topics.iter().map(|topic| Str::from(&**topic)).collect(),
        assignment: DescribedShareAssignment {
            topic_partitions: member.assignment.into_iter().filter_map(topic).collect(),
        },
    };
    DescribedShareGroup {
        group_state: Str::from_static(group.state.name()),
        group_epoch: group.epoch,
        assignment_epoch: group.epoch,
        assignor_name: Str::from_static(ASSIGNOR),
        members: group.members.into_iter().map(member).collect(),
        ..Default::default()
    }
}
