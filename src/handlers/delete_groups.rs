//! DeleteGroups: forgets groups without members, with their offsets and what they have of partitions.

use super::RequestContext;
use crate::protocol::ErrorCode;
use crate::protocol::messages::delete_groups::{DeleteGroupsRequest, DeleteGroupsResponse, DeletedGroup};

/// Deletes each group on its own.
pub async fn handle(cx: RequestContext, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for group_id in request.groups_names {
        let (error_code, error_message) = match cx.groups.delete(&group_id).await {
            Ok(()) => match cx.queues.forget(&(&*group_id).into(), None).await {
                Ok(()) => (ErrorCode::None, None),
                Err(failure) => (ErrorCode::from(&failure), Some(failure.to_string().into())),
            },
            Err(failure) => (ErrorCode::from(&failure), Some(failure.to_string().into())),
        };
        results.push(DeletedGroup { group_id, error_code: error_code.into(), error_message });
    }
    DeleteGroupsResponse { results, ..Default::default() }
}
