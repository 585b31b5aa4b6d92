//! ShareGroupHeartbeat: a member of a share group joins, stays or leaves. KIP-932.

use std::sync::Arc;

use super::RequestContext;
use crate::catalog::group_config;
use crate::group::share::{JOIN_EPOCH, LEAVE_EPOCH};
use crate::group::{Assignment, ShareBeat, ShareHeartbeat};
use crate::protocol::ErrorCode;
use crate::protocol::messages::share_group_heartbeat::{
    ShareGroupHeartbeatAssignment, ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse,
    ShareGroupHeartbeatTopic,
};

/// Answers who joins with its partitions at once.
pub async fn handle(cx: RequestContext, request: ShareGroupHeartbeatRequest) -> ShareGroupHeartbeatResponse {
    let view = cx.catalog.view();
    let configs = view.group_configs.get(&*request.group_id).map(|configs| &**configs);
    let config = group_config::effective(configs, &cx.config);
    match beat(&cx, &request, config.session_timeout_ms).await {
        Ok(ShareBeat { member_epoch, assignment }) => ShareGroupHeartbeatResponse {
            member_id: Some(request.member_id),
            member_epoch,
            heartbeat_interval_ms: config.heartbeat_interval_ms,
            assignment: assignment.map(shape),
            ..Default::default()
        },
        Err((code, message)) => ShareGroupHeartbeatResponse {
            error_code: code.into(),
            error_message: Some(message.into()),
            ..Default::default()
        },
    }
}

async fn beat(
    cx: &RequestContext,
    request: &ShareGroupHeartbeatRequest,
    session_timeout_ms: i32,
) -> Result<ShareBeat, (ErrorCode, String)> {
    let invalid = |message: &str| Err((ErrorCode::InvalidRequest, message.to_owned()));
    if request.group_id.is_empty() || request.member_id.is_empty() {
        return invalid("The group and the member must have an id.");
    }
    if request.member_epoch < LEAVE_EPOCH {
        return invalid("The member epoch is out of range.");
    }
    let names = request.subscribed_topic_names.as_deref();
    if request.member_epoch == JOIN_EPOCH && names.is_none_or(<[_]>::is_empty) {
        return invalid("Who joins must subscribe to topics.");
    }
    if request.rack_id.as_ref().is_some_and(|rack| rack.is_empty()) {
        return invalid("The rack id must not be empty.");
    }
    if request.member_epoch == JOIN_EPOCH {
        let state = cx.catalog.share_group_state(&cx.config).await;
        let state = state.map_err(|error| (ErrorCode::from(&error), error.to_string()))?;
        cx.queues.start(&state.partitions);
    }
    let view = cx.catalog.view();
    let beat = ShareHeartbeat {
        member_id: (&*request.member_id).into(),
        member_epoch: request.member_epoch,
        rack_id: request.rack_id.as_deref().map(Arc::from),
        topics: names.map(|names| names.iter().map(|name| (&**name).into()).collect()),
        client_id: cx.client_id.as_deref().unwrap_or_default().into(),
        client_host: format!("/{}", cx.peer().ip().to_canonical()).into(),
        session_timeout_ms,
        max_size: cx.config.group_share_max_size,
        lookup: Arc::new(move |name| {
            let topic = view.topic(name).filter(|topic| !topic.is_internal())?;
            Some((topic.id, topic.partitions.len() as i32))
        }),
    };
    let told = cx.groups.share_heartbeat(&request.group_id, beat).await;
    told.map_err(|failure| (ErrorCode::from(&failure), failure.to_string()))
}

fn shape(assignment: Assignment) -> ShareGroupHeartbeatAssignment {
    let topic = |(topic_id, partitions)| ShareGroupHeartbeatTopic { topic_id, partitions };
    ShareGroupHeartbeatAssignment { topic_partitions: assignment.into_iter().map(topic).collect() }
}
