//! JoinGroup: enters a group, or stays in it.

use std::sync::Arc;

use bytes::Bytes;

use super::RequestContext;
use crate::group::{GroupError, GroupFailure, Join, Joined, JoinedMember};
use crate::protocol::ErrorCode;
use crate::protocol::messages::join_group::{JoinGroupMember, JoinGroupRequest, JoinGroupResponse};
use crate::protocol::wire::Str;
use crate::uuid::Uuid;

/// First version that says how long a rebalance may take. KIP-62.
const REBALANCE_TIMEOUT_FROM_VERSION: i16 = 1;

/// First version whose members come back with the id that they are given. KIP-394.
const MEMBER_ID_REQUIRED_FROM_VERSION: i16 = 4;

/// First version that can tell a leader not to assign. KIP-814.
const SKIP_ASSIGNMENT_FROM_VERSION: i16 = 9;

/// Bytes of a client's name that a member's id begins with at most.
const NAME_MAX_BYTES: usize = 255;

/// Answers when the group is complete.
pub async fn handle(cx: RequestContext, request: JoinGroupRequest) -> JoinGroupResponse {
    let JoinGroupRequest { group_id, member_id, .. } = &request;
    let (group_id, member_id) = (group_id.clone(), member_id.clone());
    match cx.groups.join(&group_id, join(&cx, request)).await {
        Ok(joined) => answer(joined),
        Err(failure) => {
            let member_id = match &failure {
                GroupFailure::Group(GroupError::MemberIdRequired { member_id }) => Str::from(&**member_id),
                _ => member_id,
            };
            JoinGroupResponse {
                error_code: ErrorCode::from(&failure).into(),
                member_id,
                ..Default::default()
            }
        }
    }
}

/// What the request holds for long is copied out of its frame, which would stay in memory with it.
fn join(cx: &RequestContext, request: JoinGroupRequest) -> Join {
    let client_id = cx.client_id.as_deref().unwrap_or_default();
    let name = request.group_instance_id.as_deref().unwrap_or(client_id);
    let name = &name[..name.floor_char_boundary(NAME_MAX_BYTES)];
    Join {
        member_id: (&*request.member_id).into(),
        instance_id: request.group_instance_id.as_deref().map(Arc::from),
        fresh_member_id: format!("{name}-{}", Uuid::random().hyphenated()).into(),
        client_id: client_id.into(),
        client_host: format!("/{}", cx.peer().ip().to_canonical()).into(),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: match cx.version {
            ..REBALANCE_TIMEOUT_FROM_VERSION => request.session_timeout_ms,
            _ => request.rebalance_timeout_ms,
        },
        protocol_type: (&*request.protocol_type).into(),
        protocols: request
            .protocols
            .iter()
            .map(|protocol| ((&*protocol.name).into(), Bytes::copy_from_slice(&protocol.metadata)))
            .collect(),
        member_id_required: cx.version >= MEMBER_ID_REQUIRED_FROM_VERSION,
        can_skip_assignment: cx.version >= SKIP_ASSIGNMENT_FROM_VERSION,
    }
}

fn answer(joined: Joined) -> JoinGroupResponse {
    let text = |text: &Arc<str>| Str::from(&**text);
    let member = |member: JoinedMember| JoinGroupMember {
        member_id: text(&member.member_id),
        group_instance_id: member.instance_id.as_ref().map(text),
        metadata: member.metadata,
    };
    JoinGroupResponse {
        generation_id: joined.generation,
        protocol_type: joined.protocol_type.as_ref().map(text),
        protocol_name: joined.protocol.as_ref().map(text),
        leader: text(&joined.leader),
        skip_assignment: joined.skip_assignment,
        member_id: text(&joined.member_id),
        members: joined.members.into_iter().map(member).collect(),
        ..Default::default()
    }
}
