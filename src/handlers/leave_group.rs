//! LeaveGroup: takes members out of a group.

use std::sync::Arc;

use super::RequestContext;
use crate::group::{GroupError, Leaving};
use crate::protocol::ErrorCode;
use crate::protocol::messages::leave_group::{
    LeaveGroupRequest, LeaveGroupResponse, LeavingMember, LeftMember,
};

/// First version that names several members, each with its own answer. KIP-345.
const MEMBERS_FROM_VERSION: i16 = 3;

/// Takes out every member named.
pub async fn handle(cx: RequestContext, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let wanted = match cx.version {
        ..MEMBERS_FROM_VERSION => vec![LeavingMember { member_id: request.member_id, ..Default::default() }],
        _ => request.members,
    };
    let leaving = wanted.iter().map(|member| Leaving {
        member_id: (&*member.member_id).into(),
        instance_id: member.group_instance_id.as_deref().map(Arc::from),
    });
    let left = match cx.groups.leave(&request.group_id, leaving.collect()).await {
        Ok(left) => left,
        Err(failure) => {
            let error_code = ErrorCode::from(&failure).into();
            return LeaveGroupResponse { error_code, ..Default::default() };
        }
    };
    let code =
        |left: Result<(), GroupError>| left.err().map_or(ErrorCode::None, |error| ErrorCode::from(&error));
    if cx.version < MEMBERS_FROM_VERSION {
        let error_code = left.into_iter().map(code).next().unwrap_or(ErrorCode::None).into();
        return LeaveGroupResponse { error_code, ..Default::default() };
    }
    let answer = |(member, left): (LeavingMember, Result<(), GroupError>)| LeftMember {
        member_id: member.member_id,
        group_instance_id: member.group_instance_id,
        error_code: code(left).into(),
    };
    LeaveGroupResponse { members: wanted.into_iter().zip(left).map(answer).collect(), ..Default::default() }
}
