//! AlterShareGroupOffsets: sets where a share group without members goes on. KIP-932.

use std::sync::Arc;

use super::RequestContext;
use crate::protocol::ErrorCode;
use crate::protocol::messages::alter_share_group_offsets::{
    AlterShareGroupOffsetsPartition, AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsResponse,
    AlterShareGroupOffsetsTopic, AlteredShareGroupOffsetsPartition, AlteredShareGroupOffsetsTopic,
};
use crate::queue::QueueKey;

/// Alters each partition on its own.
pub async fn handle(
    cx: RequestContext,
    request: AlterShareGroupOffsetsRequest,
) -> AlterShareGroupOffsetsResponse {
    let group: Arc<str> = (&*request.group_id).into();
    if let Err(code) = check_empty(&cx, &group).await {
        return AlterShareGroupOffsetsResponse {
            error_code: code.into(),
            error_message: Some(code.name().into()),
            ..Default::default()
        };
    }
    let mut responses = Vec::with_capacity(request.topics.len());
    for AlterShareGroupOffsetsTopic { topic_name, partitions } in request.topics {
        let topic_id = cx.catalog.topic(&topic_name).map(|topic| topic.id).unwrap_or_default();
        let mut altered = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let code = alter(&cx, &group, &topic_name, &partition).await.err().unwrap_or(ErrorCode::None);
            altered.push(AlteredShareGroupOffsetsPartition {
                partition_index: partition.partition_index,
                error_code: code.into(),
                error_message: (code != ErrorCode::None).then(|| code.name().into()),
            });
        }
        responses.push(AlteredShareGroupOffsetsTopic { topic_name, topic_id, partitions: altered });
    }
    AlterShareGroupOffsetsResponse { responses, ..Default::default() }
}

/// Whether the group is a share group without members.
///
/// # Errors
/// GROUP_ID_NOT_FOUND, NON_EMPTY_GROUP; the coordinator's.
pub(super) async fn check_empty(cx: &RequestContext, group: &str) -> Result<(), ErrorCode> {
    let found = cx.groups.share_describe(group).await.map_err(|error| ErrorCode::from(&error))?;
    let found = found.ok_or(ErrorCode::GroupIdNotFound)?;
    if found.members.is_empty() { Ok(()) } else { Err(ErrorCode::NonEmptyGroup) }
}

async fn alter(
    cx: &RequestContext,
    group: &Arc<str>,
    topic: &str,
    wanted: &AlterShareGroupOffsetsPartition,
) -> Result<(), ErrorCode> {
    let partition = cx.leader(topic, wanted.partition_index, -1)?;
    let offsets = partition.offsets().map_err(|error| ErrorCode::from(&error))?;
    // A group that began where there are no records would pass over those that come.
    let start = wanted.start_offset.min(offsets.high_watermark).max(offsets.log_start_offset);
    let key = QueueKey {
        group: Arc::clone(group),
        topic_id: partition.topic_id(),
        partition: wanted.partition_index,
    };
    let reset = cx.queues.reset(&key, start, partition.leader_epoch()).await;
    reset.map_err(|failure| ErrorCode::from(&failure))
}
