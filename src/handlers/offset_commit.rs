//! OffsetCommit: stores how far a group has come.

use std::sync::Arc;

use super::RequestContext;
use crate::catalog::Topic;
use crate::clock::TimestampMs;
use crate::group::{Claim, Committed, OffsetMap, offsets};
use crate::protocol::ErrorCode;
use crate::protocol::messages::offset_commit::{
    OffsetCommitPartition, OffsetCommitPartitionResponse, OffsetCommitRequest, OffsetCommitResponse,
    OffsetCommitTopic, OffsetCommitTopicResponse,
};

/// First version that tells an unknown group from an old generation. KIP-848.
const NOT_FOUND_FROM_VERSION: i16 = 9;

/// First version that names topics by id. KIP-848.
const IDS_FROM_VERSION: i16 = 10;

/// Stores what is valid, all of it together; a partition that is not has its own error.
pub async fn handle(cx: RequestContext, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let now = cx.clock.now_ms();
    let expires_at = match request.retention_time_ms {
        -1 => None,
        retention_ms => Some(now.saturating_add(retention_ms)),
    };
    let mut offsets = OffsetMap::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let found = find(&cx, &topic);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            let error_code = match check(&cx, &found, wanted) {
                Ok(topic) => {
                    let committed = committed(topic, wanted, now, expires_at);
                    offsets::put(&mut offsets, &topic.name, wanted.partition_index, committed);
                    ErrorCode::None
                }
                Err(code) => code,
            };
            partitions.push(OffsetCommitPartitionResponse {
                partition_index: wanted.partition_index,
                error_code: error_code.into(),
            });
        }
        topics.push(OffsetCommitTopicResponse { name: topic.name, topic_id: topic.topic_id, partitions });
    }
    if !offsets.is_empty() {
        let claim = Claim {
            member_id: (&*request.member_id).into(),
            instance_id: request.group_instance_id.as_deref().map(Arc::from),
            generation: request.generation_id_or_member_epoch,
        };
        let knows_not_found = cx.version >= NOT_FOUND_FROM_VERSION;
        if let Err(failure) = cx.groups.commit(&request.group_id, claim, knows_not_found, offsets).await {
            let valid =
                topics.iter_mut().flat_map(|topic| &mut topic.partitions).filter(|p| p.error_code == 0);
            valid.for_each(|partition| partition.error_code = ErrorCode::from(&failure).into());
        }
    }
    OffsetCommitResponse { topics, ..Default::default() }
}

fn find(cx: &RequestContext, topic: &OffsetCommitTopic) -> Result<Arc<Topic>, ErrorCode> {
    match cx.version {
        ..IDS_FROM_VERSION => cx.catalog.topic(&topic.name).ok_or(ErrorCode::UnknownTopicOrPartition),
        _ => cx.catalog.topic_by_id(topic.topic_id).ok_or(ErrorCode::UnknownTopicId),
    }
}

fn check<'a>(
    cx: &RequestContext,
    found: &'a Result<Arc<Topic>, ErrorCode>,
    wanted: &OffsetCommitPartition,
) -> Result<&'a Topic, ErrorCode> {
    let topic = found.as_ref().map_err(|code| *code)?;
    topic.partition(wanted.partition_index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    // Kafka counts as Java does.
    let metadata_length = wanted.committed_metadata.as_deref().unwrap_or_default().encode_utf16().count();
    if metadata_length > cx.config.offset_metadata_max_bytes {
        return Err(ErrorCode::OffsetMetadataTooLarge);
    }
    Ok(topic)
}

fn committed(
    topic: &Topic,
    wanted: &OffsetCommitPartition,
    now: TimestampMs,
    expires_at: Option<TimestampMs>,
) -> Committed {
    Committed {
        offset: wanted.committed_offset,
        leader_epoch: wanted.committed_leader_epoch,
        metadata: wanted.committed_metadata.as_deref().unwrap_or_default().into(),
        committed_at: now,
        expires_at,
        topic_id: topic.id,
    }
}
