//! Heartbeat: a member is alive.

use std::sync::Arc;

use super::RequestContext;
use crate::group::Claim;
use crate::protocol::ErrorCode;
use crate::protocol::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};

/// Restarts the member's session, and tells it if it has to join again.
pub async fn handle(cx: RequestContext, request: HeartbeatRequest) -> HeartbeatResponse {
    let claim = Claim {
        member_id: (&*request.member_id).into(),
        instance_id: request.group_instance_id.as_deref().map(Arc::from),
        generation: request.generation_id,
    };
    let error_code = match cx.groups.heartbeat(&request.group_id, claim).await {
        Ok(()) => ErrorCode::None,
        Err(failure) => ErrorCode::from(&failure),
    };
    HeartbeatResponse { error_code: error_code.into(), ..Default::default() }
}
