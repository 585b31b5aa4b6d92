//! SyncGroup: what a member has to do, brought by the leader for all.

use std::sync::Arc;

use bytes::Bytes;

use super::RequestContext;
use crate::group::{Claim, GroupError, GroupFailure, Sync, Synced};
use crate::protocol::ErrorCode;
use crate::protocol::messages::sync_group::{SyncGroupRequest, SyncGroupResponse};
use crate::protocol::wire::Str;

/// First version that must say what the member takes for the group's protocol. KIP-559.
const PROTOCOL_FROM_VERSION: i16 = 5;

/// Answers when the leader has assigned.
pub async fn handle(cx: RequestContext, request: SyncGroupRequest) -> SyncGroupResponse {
    match sync(&cx, request).await {
        Ok(synced) => {
            let text = |text: Arc<str>| Str::from(&*text);
            SyncGroupResponse {
                protocol_type: synced.protocol_type.map(text),
                protocol_name: synced.protocol.map(text),
                assignment: synced.assignment,
                ..Default::default()
            }
        }
        Err(failure) => {
            SyncGroupResponse { error_code: ErrorCode::from(&failure).into(), ..Default::default() }
        }
    }
}

async fn sync(cx: &RequestContext, request: SyncGroupRequest) -> Result<Synced, GroupFailure> {
    let says_protocol = request.protocol_type.is_some() && request.protocol_name.is_some();
    if cx.version >= PROTOCOL_FROM_VERSION && !says_protocol {
        return Err(GroupError::InconsistentProtocol.into());
    }
    let assignments = request.assignments.iter();
    let sync = Sync {
        claim: Claim {
            member_id: (&*request.member_id).into(),
            instance_id: request.group_instance_id.as_deref().map(Arc::from),
            generation: request.generation_id,
        },
        protocol_type: request.protocol_type.as_deref().map(Arc::from),
        protocol: request.protocol_name.as_deref().map(Arc::from),
        // Copied, or the request's frame would stay in memory with them.
        assignments: assignments
            .map(|of| ((&*of.member_id).into(), Bytes::copy_from_slice(&of.assignment)))
            .collect(),
    };
    cx.groups.sync(&request.group_id, sync).await
}
