//! Metadata: brokers and topics.

use std::sync::Arc;

use super::RequestContext;
use super::context::{CLUSTER_OPERATIONS, NO_LEADER, TOPIC_OPERATIONS};
use crate::catalog::state::{NewTopic, validate_name};
use crate::catalog::view::is_internal;
use crate::catalog::{CatalogError, Topic};
use crate::log::Partition;
use crate::protocol::ErrorCode;
use crate::protocol::messages::metadata::{
    MetadataBroker, MetadataPartition, MetadataRequest, MetadataResponse, MetadataTopic,
    MetadataTopicResponse,
};
use crate::protocol::wire::Str;

/// Answers with this broker and the topics asked for, making those that are missing if client and config allow it.
pub async fn handle(cx: RequestContext, request: MetadataRequest) -> MetadataResponse {
    let (host, port) = cx.endpoint();
    let mut response = MetadataResponse {
        brokers: vec![MetadataBroker { node_id: cx.node_id(), host, port, rack: None }],
        cluster_id: Some(Str::from(cx.cluster_id.to_string())),
        controller_id: cx.node_id(),
        ..Default::default()
    };
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    let operations = if request.include_topic_authorized_operations { TOPIC_OPERATIONS } else { i32::MIN };
    response.topics = match &request.topics {
        None => all(&cx, operations),
        // Version 0 has no null: an empty list asks for all.
        Some(topics) if topics.is_empty() && cx.version == 0 => all(&cx, operations),
        Some(topics) => {
            let mut found = Vec::with_capacity(topics.len());
            for wanted in topics {
                let topic = find(&cx, wanted, request.allow_auto_topic_creation).await;
                found.push(answer(&cx, wanted, topic, operations));
            }
            found
        }
    };
    response
}

fn all(cx: &RequestContext, operations: i32) -> Vec<MetadataTopicResponse> {
    cx.catalog.view().topics().map(|topic| describe(cx, topic, operations)).collect()
}

async fn find(
    cx: &RequestContext,
    wanted: &MetadataTopic,
    auto_create: bool,
) -> Result<Arc<Topic>, ErrorCode> {
    if !wanted.topic_id.is_zero() {
        // Ids are asked for without a name, from version 12 on; 10 and 11 have the field and no use for it. KIP-516.
        // The Java client leaves the name empty rather than null.
        if cx.version < 12 || wanted.name.as_deref().is_some_and(|name| !name.is_empty()) {
            return Err(ErrorCode::InvalidRequest);
        }
        return cx.catalog.topic_by_id(wanted.topic_id).ok_or(ErrorCode::UnknownTopicId);
    }
    let Some(name) = &wanted.name else {
        return Err(if cx.version < 12 { ErrorCode::InvalidRequest } else { ErrorCode::UnknownTopicId });
    };
    if let Some(topic) = cx.catalog.topic(name) {
        return Ok(topic);
    }
    match validate_name(name) {
        Err(CatalogError::TopicName(_)) => Err(ErrorCode::InvalidTopicException),
        Ok(()) if auto_create && cx.config.auto_create_topics_enable && !is_internal(name) => {
            create(cx, name).await
        }
        _ => Err(ErrorCode::UnknownTopicOrPartition),
    }
}

/// Makes a topic with the broker's defaults. Two clients may ask at once: the second finds what the first has made.
async fn create(cx: &RequestContext, name: &str) -> Result<Arc<Topic>, ErrorCode> {
    let topic =
        NewTopic { name: name.to_owned(), partitions: cx.config.num_partitions, ..NewTopic::default() };
    let decided = cx.catalog.change(move |batch| match batch.state().create_topic(&topic) {
        Ok(change) => {
            batch.push(change);
            Ok(())
        }
        Err(CatalogError::TopicExists(_)) => Ok(()),
        Err(error) => Err(error),
    });
    decided.await.and_then(|created| created).map_err(|error| ErrorCode::from(&error))?;
    cx.catalog.topic(name).ok_or(ErrorCode::UnknownTopicOrPartition)
}

fn answer(
    cx: &RequestContext,
    wanted: &MetadataTopic,
    topic: Result<Arc<Topic>, ErrorCode>,
    operations: i32,
) -> MetadataTopicResponse {
    match topic {
        Ok(topic) => describe(cx, &topic, operations),
        Err(code) => MetadataTopicResponse {
            error_code: code.into(),
            name: wanted.name.clone().filter(|name| !name.is_empty() || wanted.topic_id.is_zero()),
            topic_id: wanted.topic_id,
            is_internal: wanted.name.as_deref().is_some_and(is_internal),
            ..Default::default()
        },
    }
}

fn describe(cx: &RequestContext, topic: &Topic, operations: i32) -> MetadataTopicResponse {
    MetadataTopicResponse {
        name: Some(Str::from(&*topic.name)),
        topic_id: topic.id,
        is_internal: topic.is_internal(),
        partitions: topic.partitions.iter().map(|partition| describe_partition(cx, partition)).collect(),
        topic_authorized_operations: operations,
        ..Default::default()
    }
}

/// One whose log directory is offline has no leader, as in Kafka, and a replica that is offline.
fn describe_partition(cx: &RequestContext, partition: &Partition) -> MetadataPartition {
    let known = MetadataPartition {
        partition_index: partition.index(),
        leader_id: cx.node_id(),
        leader_epoch: partition.leader_epoch(),
        replica_nodes: vec![cx.node_id()],
        isr_nodes: vec![cx.node_id()],
        ..Default::default()
    };
    match partition.is_offline() {
        false => known,
        true => MetadataPartition {
            error_code: ErrorCode::LeaderNotAvailable.into(),
            leader_id: NO_LEADER,
            offline_replicas: vec![cx.node_id()],
            ..known
        },
    }
}
