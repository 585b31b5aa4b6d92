//! DeleteGroups: forgets groups without members, with their offsets and what they have of partitions.

use super::RequestContext;
use crate::protocol::ErrorCode;
use crate::protocol::messages::delete_groups::{DeleteGroupsRequest, DeleteGroupsResponse, DeletedGroup};

/// Deletes each group on its own.
pub async fn handle(cx: RequestContext, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for group_id in request.groups_names {
        let (error_code, error_message) = match delete(&cx, &group_id).await {
            Ok(()) => (ErrorCode::None, None),
            Err((code, message)) => (code, Some(message.into())),
        };
        results.push(DeletedGroup { group_id, error_code: error_code.into(), error_message });
    }
    DeleteGroupsResponse { results, ..Default::default() }
}

/// What a share group has of partitions goes first: a later group of its name must not find it, whatever happens in between.
async fn delete(cx: &RequestContext, group: &str) -> Result<(), (ErrorCode, String)> {
    if cx.catalog.topic(group).is_some_and(|topic| topic.queue.is_some()) {
        let message = "The group is the place in a queue, which goes with its topic.".to_owned();
        return Err((ErrorCode::NonEmptyGroup, message));
    }
    let share = cx.groups.share_describe(group).await;
    let share = share.map_err(|error| (ErrorCode::from(&error), error.to_string()))?;
    // One with members is refused below.
    if share.is_some_and(|share| share.members.is_empty()) {
        let forgotten = cx.queues.forget(&group.into(), |_, _| true).await;
        forgotten.map_err(|failure| (ErrorCode::from(&failure), failure.to_string()))?;
    }
    cx.groups.delete(group).await.map_err(|failure| (ErrorCode::from(&failure), failure.to_string()))
}
