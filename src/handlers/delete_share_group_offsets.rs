//! DeleteShareGroupOffsets: has a share group without members forget topics. KIP-932.

use std::sync::Arc;

use super::RequestContext;
use super::alter_share_group_offsets::check_empty;
use crate::protocol::ErrorCode;
use crate::protocol::messages::delete_share_group_offsets::{
    DeleteShareGroupOffsetsRequest, DeleteShareGroupOffsetsResponse, DeletedShareGroupOffsetsTopic,
};

/// Forgets each topic on its own.
pub async fn handle(
    cx: RequestContext,
    request: DeleteShareGroupOffsetsRequest,
) -> DeleteShareGroupOffsetsResponse {
    let group: Arc<str> = (&*request.group_id).into();
    if let Err(code) = check_empty(&cx, &group).await {
        return DeleteShareGroupOffsetsResponse {
            error_code: code.into(),
            error_message: Some(code.name().into()),
            ..Default::default()
        };
    }
    let mut responses = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let found = cx.catalog.topic(&topic.topic_name);
        let known = found.as_ref().map(|topic| topic.id);
        let is_queue = found.is_some_and(|topic| topic.queue.is_some() && topic.name == group);
        let forgotten = match known {
            // Its place in the queue goes with the topic.
            Some(_) if is_queue => Err(ErrorCode::NonEmptyGroup),
            Some(id) => {
                let forgotten = cx.queues.forget(&group, move |topic, _| topic == id).await;
                forgotten.map_err(|failure| ErrorCode::from(&failure))
            }
            None => Err(ErrorCode::UnknownTopicOrPartition),
        };
        let code = forgotten.err().unwrap_or(ErrorCode::None);
        responses.push(DeletedShareGroupOffsetsTopic {
            topic_name: topic.topic_name,
            topic_id: known.unwrap_or_default(),
            error_code: code.into(),
            error_message: (code != ErrorCode::None).then(|| code.name().into()),
        });
    }
    DeleteShareGroupOffsetsResponse { responses, ..Default::default() }
}
