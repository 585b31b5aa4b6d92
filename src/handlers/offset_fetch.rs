//! OffsetFetch: how far groups have come.

use std::sync::Arc;

use super::RequestContext;
use crate::group::{Committed, OffsetMap};
use crate::protocol::ErrorCode;
use crate::protocol::messages::offset_fetch::{
    OffsetFetchGroup, OffsetFetchGroupResponse, OffsetFetchPartitionResponse, OffsetFetchRequest,
    OffsetFetchResponse, OffsetFetchTopic, OffsetFetchTopicResponse,
};
use crate::protocol::wire::Str;
use crate::uuid::Uuid;

/// First version with an error for the whole group.
const GROUP_ERROR_FROM_VERSION: i16 = 2;

/// First version with many groups. KIP-709.
const GROUPS_FROM_VERSION: i16 = 8;

/// First version that names topics by id. KIP-848.
const IDS_FROM_VERSION: i16 = 10;

/// What was never committed is answered with offset -1. No transaction can hold an offset back before transactions exist,
/// so that every offset is stable.
pub async fn handle(cx: RequestContext, request: OffsetFetchRequest) -> OffsetFetchResponse {
    if cx.version >= GROUPS_FROM_VERSION {
        let mut groups = Vec::with_capacity(request.groups.len());
        for group in request.groups {
            groups.push(fetch(&cx, group).await);
        }
        return OffsetFetchResponse { groups, ..Default::default() };
    }
    let wanted =
        OffsetFetchGroup { group_id: request.group_id, topics: request.topics.clone(), ..Default::default() };
    let OffsetFetchGroupResponse { mut topics, error_code, .. } = fetch(&cx, wanted).await;
    if cx.version < GROUP_ERROR_FROM_VERSION && error_code != 0 {
        topics = failed(request.topics.unwrap_or_default(), error_code);
    }
    OffsetFetchResponse { topics, error_code, ..Default::default() }
}

async fn fetch(cx: &RequestContext, group: OffsetFetchGroup) -> OffsetFetchGroupResponse {
    let OffsetFetchGroup { group_id, topics: wanted, .. } = group;
    // By name, whatever the request goes by; `None` where nothing has the id.
    let named: Option<Vec<_>> =
        wanted.map(|topics| topics.into_iter().map(|topic| (name_of(cx, &topic), topic)).collect());
    let partitions = named.as_ref().map(|topics| {
        let known = topics.iter().filter_map(|(name, topic)| Some((name.clone()?, &topic.partition_indexes)));
        known.map(|(name, indexes)| (name, indexes.clone())).collect()
    });
    let found = match cx.groups.offsets(&group_id, partitions).await {
        Ok(found) => found,
        Err(error) => {
            let error_code = ErrorCode::from(&error).into();
            return OffsetFetchGroupResponse { group_id, error_code, ..Default::default() };
        }
    };
    let topics = match named {
        Some(topics) => {
            topics.into_iter().map(|(name, topic)| answer(cx, name.as_ref(), topic, &found)).collect()
        }
        None => all(cx, &found),
    };
    OffsetFetchGroupResponse { group_id, topics, error_code: 0 }
}

fn name_of(cx: &RequestContext, topic: &OffsetFetchTopic) -> Option<Arc<str>> {
    match cx.version {
        ..IDS_FROM_VERSION => Some((&*topic.name).into()),
        _ => Some(Arc::clone(&cx.catalog.topic_by_id(topic.topic_id)?.name)),
    }
}

fn answer(
    cx: &RequestContext,
    name: Option<&Arc<str>>,
    topic: OffsetFetchTopic,
    found: &OffsetMap,
) -> OffsetFetchTopicResponse {
    let partition = |index| {
        let Some(name) = name else { return missing(index, ErrorCode::UnknownTopicId.into()) };
        let committed = found.get(name).and_then(|partitions| partitions.get(&index));
        match committed.filter(|committed| is_of_topic(cx, name, committed)) {
            Some(committed) => present(index, committed),
            None => missing(index, 0),
        }
    };
    let partitions = topic.partition_indexes.iter().copied().map(partition).collect();
    OffsetFetchTopicResponse { name: topic.name, topic_id: topic.topic_id, partitions }
}

/// Everything that the group has committed. By ids, only topics that exist can be told.
fn all(cx: &RequestContext, found: &OffsetMap) -> Vec<OffsetFetchTopicResponse> {
    let mut topics = Vec::with_capacity(found.len());
    for (name, partitions) in found {
        let topic_id = cx.catalog.topic(name).map_or(Uuid::default(), |topic| topic.id);
        if cx.version >= IDS_FROM_VERSION && topic_id.is_zero() {
            continue;
        }
        let of_topic = partitions.iter().filter(|(_, committed)| is_of_topic(cx, name, committed));
        let partitions: Vec<_> = of_topic.map(|(index, committed)| present(*index, committed)).collect();
        if !partitions.is_empty() {
            topics.push(OffsetFetchTopicResponse { name: Str::from(&**name), topic_id, partitions });
        }
    }
    topics
}

/// Whether the offset was committed in the topic that now has the name, as far as can be known.
fn is_of_topic(cx: &RequestContext, name: &str, committed: &Committed) -> bool {
    let current = cx.catalog.topic(name).map(|topic| topic.id);
    committed.topic_id.is_zero() || current.is_none_or(|id| id == committed.topic_id)
}

fn present(partition_index: i32, committed: &Committed) -> OffsetFetchPartitionResponse {
    OffsetFetchPartitionResponse {
        partition_index,
        committed_offset: committed.offset,
        committed_leader_epoch: committed.leader_epoch,
        metadata: Some(Str::from(&*committed.metadata)),
        error_code: 0,
    }
}

fn missing(partition_index: i32, error_code: i16) -> OffsetFetchPartitionResponse {
    OffsetFetchPartitionResponse {
        partition_index,
        committed_offset: -1,
        metadata: Some(Str::default()),
        error_code,
        ..Default::default()
    }
}

/// Version 1 says an error at every partition.
fn failed(topics: Vec<OffsetFetchTopic>, error_code: i16) -> Vec<OffsetFetchTopicResponse> {
    let topic = |topic: OffsetFetchTopic| {
        let partitions = topic.partition_indexes.iter().map(|index| missing(*index, error_code)).collect();
        OffsetFetchTopicResponse { name: topic.name, topic_id: topic.topic_id, partitions }
    };
    topics.into_iter().map(topic).collect()
}
