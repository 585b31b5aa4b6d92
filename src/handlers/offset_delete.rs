//! OffsetDelete: forgets committed offsets.

use std::sync::Arc;

use super::RequestContext;
use crate::protocol::ErrorCode;
use crate::protocol::messages::offset_delete::{
    OffsetDeletePartitionResponse, OffsetDeleteRequest, OffsetDeleteResponse, OffsetDeleteTopicResponse,
};
use crate::protocol::wire::Str;

/// Forgets the offsets of topics that exist and that no member consumes; the others have their own errors.
pub async fn handle(cx: RequestContext, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    let mut wanted = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let indexes = topic.partitions.iter().map(|partition| partition.partition_index);
        match cx.catalog.topic(&topic.name) {
            Some(_) => wanted.push((Arc::from(&*topic.name), indexes.collect::<Vec<_>>())),
            None => topics.push(answer(&topic.name, indexes, |_| ErrorCode::UnknownTopicOrPartition)),
        }
    }
    match cx.groups.delete_offsets(&request.group_id, wanted).await {
        Ok(forgotten) => {
            for (name, partitions) in forgotten {
                let codes = |at: usize| match partitions[at].1 {
                    true => ErrorCode::None,
                    false => ErrorCode::GroupSubscribedToTopic,
                };
                topics.push(answer(&name, partitions.iter().map(|(index, _)| *index), codes));
            }
            OffsetDeleteResponse { topics, ..Default::default() }
        }
        Err(failure) => {
            OffsetDeleteResponse { error_code: ErrorCode::from(&failure).into(), ..Default::default() }
        }
    }
}

/// A topic's partitions, each with the code for its place.
fn answer(
    name: &str,
    indexes: impl Iterator<Item = i32>,
    code: impl Fn(usize) -> ErrorCode,
) -> OffsetDeleteTopicResponse {
    let partition = |(at, partition_index)| OffsetDeletePartitionResponse {
        partition_index,
        error_code: code(at).into(),
    };
    OffsetDeleteTopicResponse {
        name: Str::from(name),
        partitions: indexes.enumerate().map(partition).collect(),
    }
}
