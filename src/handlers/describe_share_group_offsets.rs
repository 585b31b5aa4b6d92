//! DescribeShareGroupOffsets: how far share groups have come. KIP-932; lag: KIP-1226.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::RequestContext;
use crate::catalog::Topic;
use crate::protocol::ErrorCode;
use crate::protocol::messages::describe_share_group_offsets::{
    DescribeShareGroupOffsetsGroup, DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsResponse,
    DescribeShareGroupOffsetsTopic, DescribedShareGroupOffsets, DescribedShareGroupOffsetsPartition,
    DescribedShareGroupOffsetsTopic,
};
use crate::protocol::wire::Str;
use crate::queue::{Progress, QueueKey};

/// Stands for what is not known.
const UNKNOWN: i64 = -1;

/// Describes each group on its own.
pub async fn handle(
    cx: RequestContext,
    request: DescribeShareGroupOffsetsRequest,
) -> DescribeShareGroupOffsetsResponse {
    let mut groups = Vec::with_capacity(request.groups.len());
    for DescribeShareGroupOffsetsGroup { group_id, topics } in request.groups {
        groups.push(match describe(&cx, &group_id, topics).await {
            Ok(topics) => DescribedShareGroupOffsets { group_id, topics, ..Default::default() },
            Err(code) => DescribedShareGroupOffsets {
                group_id,
                error_code: code.into(),
                error_message: Some(code.name().into()),
                ..Default::default()
            },
        });
    }
    DescribeShareGroupOffsetsResponse { groups, ..Default::default() }
}

async fn describe(
    cx: &RequestContext,
    group: &str,
    wanted: Option<Vec<DescribeShareGroupOffsetsTopic>>,
) -> Result<Vec<DescribedShareGroupOffsetsTopic>, ErrorCode> {
    let found = cx.groups.share_describe(group).await.map_err(|error| ErrorCode::from(&error))?;
    found.ok_or(ErrorCode::GroupIdNotFound)?;
    let group: Arc<str> = group.into();
    match wanted {
        None => all(cx, &group).await,
        Some(wanted) => {
            let mut topics = Vec::with_capacity(wanted.len());
            for topic in wanted {
                topics.push(of_topic(cx, &group, topic).await?);
            }
            Ok(topics)
        }
    }
}

/// Everything that the group has got something of.
async fn all(
    cx: &RequestContext,
    group: &Arc<str>,
) -> Result<Vec<DescribedShareGroupOffsetsTopic>, ErrorCode> {
    let mut topics: BTreeMap<Arc<str>, DescribedShareGroupOffsetsTopic> = BTreeMap::new();
    for (key, progress) in cx.queues.list(group).await.map_err(|error| ErrorCode::from(&error))? {
        let Some(topic) = cx.catalog.topic_by_id(key.topic_id) else { continue };
        let described = topics.entry(Arc::clone(&topic.name)).or_insert_with(|| empty(&topic));
        described.partitions.push(partition(&topic, key.partition, Some(progress)));
    }
    let mut topics: Vec<_> = topics.into_values().collect();
    topics.iter_mut().for_each(|topic| topic.partitions.sort_by_key(|partition| partition.partition_index));
    Ok(topics)
}

async fn of_topic(
    cx: &RequestContext,
    group: &Arc<str>,
    wanted: DescribeShareGroupOffsetsTopic,
) -> Result<DescribedShareGroupOffsetsTopic, ErrorCode> {
    let Some(topic) = cx.catalog.topic(&wanted.topic_name) else {
        let unknown = |index: &i32| failed(*index, ErrorCode::UnknownTopicOrPartition);
        let partitions = wanted.partitions.iter().map(unknown).collect();
        return Ok(DescribedShareGroupOffsetsTopic {
            topic_name: wanted.topic_name,
            partitions,
            ..Default::default()
        });
    };
    let mut described = empty(&topic);
    for index in wanted.partitions {
        let key = QueueKey { group: Arc::clone(group), topic_id: topic.id, partition: index };
        let progress = match topic.partition(index) {
            Some(_) => cx.queues.describe(&key).await.map_err(|error| ErrorCode::from(&error)),
            None => Err(ErrorCode::UnknownTopicOrPartition),
        };
        described.partitions.push(match progress {
            Ok(progress) => partition(&topic, index, progress),
            Err(code) => failed(index, code),
        });
    }
    Ok(described)
}

fn empty(topic: &Topic) -> DescribedShareGroupOffsetsTopic {
    DescribedShareGroupOffsetsTopic {
        topic_name: Str::from(&*topic.name),
        topic_id: topic.id,
        ..Default::default()
    }
}

fn failed(partition_index: i32, code: ErrorCode) -> DescribedShareGroupOffsetsPartition {
    DescribedShareGroupOffsetsPartition {
        partition_index,
        start_offset: UNKNOWN,
        error_code: code.into(),
        error_message: Some(code.name().into()),
        ..Default::default()
    }
}

fn partition(topic: &Topic, index: i32, progress: Option<Progress>) -> DescribedShareGroupOffsetsPartition {
    let Some(progress) = progress else {
        return DescribedShareGroupOffsetsPartition {
            partition_index: index,
            start_offset: UNKNOWN,
            ..Default::default()
        };
    };
    let end = topic.partition(index).and_then(|partition| partition.offsets().ok());
    let lag = end.map_or(UNKNOWN, |end| (end.high_watermark - progress.start - progress.done).max(0));
    DescribedShareGroupOffsetsPartition {
        partition_index: index,
        start_offset: progress.start,
        leader_epoch: progress.leader_epoch,
        lag,
        ..Default::default()
    }
}
