//! DescribeTopicPartitions: partitions of topics in pages, by topic name. KIP-966.

use std::collections::BTreeSet;

use super::RequestContext;
use super::context::{NO_LEADER, TOPIC_OPERATIONS};
use crate::catalog::state::validate_name;
use crate::catalog::{CatalogError, Topic};
use crate::log::Partition;
use crate::protocol::ErrorCode;
use crate::protocol::messages::describe_topic_partitions::{
    DescribeTopicPartitionsNextCursor, DescribeTopicPartitionsPartition, DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse, DescribeTopicPartitionsTopicResponse,
};
use crate::protocol::wire::Str;

/// Answers topics in the order of their names, from the cursor on, until the limit of partitions; then says where to go on.
pub async fn handle(
    cx: RequestContext,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let view = cx.catalog.view();
    let mut room = request.response_partition_limit.clamp(1, cx.config.max_request_partition_size_limit);
    let mut response = DescribeTopicPartitionsResponse::default();
    let cursor = request.cursor.unwrap_or_default();
    if cursor.partition_index < 0 {
        // Kafka fails the request as a whole; the answer has no place for an error but the topics.
        response.topics.push(failed(&cursor.topic_name, ErrorCode::InvalidRequest));
        return response;
    }
    let named: BTreeSet<Str> = request.topics.into_iter().map(|topic| topic.name).collect();
    let mut names: Box<dyn Iterator<Item = Str> + Send> = match named.is_empty() {
        true => Box::new(view.topics_from(&cursor.topic_name).map(|topic| Str::from(&*topic.name))),
        false => Box::new(named.into_iter().filter(|name| **name >= *cursor.topic_name)),
    };
    for name in &mut names {
        let Some(topic) = view.topic(&name) else {
            response.topics.push(failed(&name, unknown(&name)));
            continue;
        };
        let first = if *name == *cursor.topic_name { cursor.partition_index } else { 0 };
        if room == 0 {
            response.next_cursor = Some(next(&name, first));
            break;
        }
        let last = first.saturating_add(room).min(topic.partitions.len() as i32);
        response.topics.push(describe(&cx, topic, first, last));
        room -= (last - first).max(0);
        if last < topic.partitions.len() as i32 {
            response.next_cursor = Some(next(&name, last));
            break;
        }
    }
    response
}

fn unknown(name: &str) -> ErrorCode {
    match validate_name(name) {
        Err(CatalogError::TopicName(_)) => ErrorCode::InvalidTopicException,
        _ => ErrorCode::UnknownTopicOrPartition,
    }
}

fn failed(name: &Str, code: ErrorCode) -> DescribeTopicPartitionsTopicResponse {
    DescribeTopicPartitionsTopicResponse {
        error_code: code.into(),
        name: Some(name.clone()),
        ..Default::default()
    }
}

fn next(name: &Str, partition_index: i32) -> DescribeTopicPartitionsNextCursor {
    DescribeTopicPartitionsNextCursor { topic_name: name.clone(), partition_index }
}

fn describe(
    cx: &RequestContext,
    topic: &Topic,
    first: i32,
    last: i32,
) -> DescribeTopicPartitionsTopicResponse {
    DescribeTopicPartitionsTopicResponse {
        name: Some(Str::from(&*topic.name)),
        topic_id: topic.id,
        is_internal: topic.is_internal(),
        partitions: (first..last)
            .filter_map(|index| topic.partition(index))
            .map(|partition| describe_partition(cx, partition))
            .collect(),
        topic_authorized_operations: TOPIC_OPERATIONS,
        ..Default::default()
    }
}

/// One whose log directory is offline has no leader and a replica that is offline; unlike Metadata, Kafka calls that no error here.
fn describe_partition(cx: &RequestContext, partition: &Partition) -> DescribeTopicPartitionsPartition {
    let known = DescribeTopicPartitionsPartition {
        partition_index: partition.index(),
        leader_id: cx.node_id(),
        leader_epoch: partition.leader_epoch(),
        replica_nodes: vec![cx.node_id()],
        isr_nodes: vec![cx.node_id()],
        eligible_leader_replicas: Some(Vec::new()),
        last_known_elr: Some(Vec::new()),
        ..Default::default()
    };
    match partition.is_offline() {
        false => known,
        true => DescribeTopicPartitionsPartition {
            leader_id: NO_LEADER,
            offline_replicas: vec![cx.node_id()],
            ..known
        },
    }
}
