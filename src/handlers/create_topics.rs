//! CreateTopics.

use std::collections::HashMap;
use std::time::Duration;

use super::RequestContext;
use crate::catalog::state::{NewTopic, validate_replicas};
use crate::catalog::topic_config::{self, ConfigEntry};
use crate::catalog::{AssignmentFault, CatalogError};
use crate::config::{ConfigMap, MAX_PARTITIONS};
use crate::protocol::ErrorCode;
use crate::protocol::messages::create_topics::{
    CreatableTopic, CreatableTopicResult, CreateTopicsRequest, CreateTopicsResponse, CreatedTopicConfig,
};
use crate::protocol::wire::Str;

/// What stands for "as the broker has it by default". KIP-464.
const DEFAULT: i32 = -1;

/// Makes the topics that can be made; each has its own answer. All of one request become durable together.
pub async fn handle(cx: RequestContext, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut times: HashMap<&str, usize> = HashMap::new();
    for topic in &request.topics {
        *times.entry(&topic.name).or_default() += 1;
    }
    let twice = |topic: &CreatableTopic| times[&*topic.name] > 1;
    let mut planned: Vec<_> = request
        .topics
        .iter()
        .map(|topic| if twice(topic) { Err(CatalogError::Twice) } else { plan(&cx, topic) })
        .collect();
    let asked: i64 = planned.iter().flatten().map(|topic| i64::from(topic.partitions)).sum();
    if asked > i64::from(MAX_PARTITIONS) {
        planned.iter_mut().for_each(|topic| *topic = Err(CatalogError::TooManyPartitions));
    }
    let timeout = Duration::from_millis(request.timeout_ms.max(0) as u64);
    let created = create(&cx, planned, request.validate_only, timeout).await;
    let topics =
        request.topics.into_iter().zip(created).map(|(topic, created)| answer(&cx, topic.name, created));
    // A name given twice is answered once.
    let mut answered = std::collections::HashSet::new();
    let topics = topics.filter(|topic| answered.insert(topic.name.clone())).collect();
    CreateTopicsResponse { topics, ..Default::default() }
}

/// Checks all that needs no state, and fills in defaults.
fn plan(cx: &RequestContext, topic: &CreatableTopic) -> Result<NewTopic, CatalogError> {
    let partitions = match topic.assignments.is_empty() {
        true => {
            match topic.replication_factor {
                -1 | 1 => {}
                factor if factor < 1 => return Err(CatalogError::ReplicationFactorNotPositive),
                factor => return Err(CatalogError::ReplicationFactor(factor)),
            }
            match topic.num_partitions {
                DEFAULT => cx.config.num_partitions,
                count if count < 1 => return Err(CatalogError::PartitionCount),
                count => count,
            }
        }
        false => assigned(cx, topic)?,
    };
    let mut configs = ConfigMap::new();
    for config in &topic.configs {
        let value = config.value.as_ref().ok_or_else(|| CatalogError::NullConfig(config.name.to_string()))?;
        configs.insert(config.name.to_string(), value.to_string());
    }
    let view = cx.catalog.view();
    topic_config::validate(&configs, &view.inherited(&cx.config))?;
    Ok(NewTopic { name: topic.name.to_string(), partitions, configs })
}

/// The number of partitions that manual assignments make.
fn assigned(cx: &RequestContext, topic: &CreatableTopic) -> Result<i32, CatalogError> {
    if topic.num_partitions != DEFAULT {
        return Err(CatalogError::AssignmentWithCount("num_partitions"));
    }
    if topic.replication_factor != DEFAULT as i16 {
        return Err(CatalogError::AssignmentWithCount("replication_factor"));
    }
    let mut indexes: Vec<_> = topic.assignments.iter().map(|assignment| assignment.partition_index).collect();
    indexes.sort_unstable();
    if indexes.iter().enumerate().any(|(at, index)| at as i32 != *index) {
        return Err(CatalogError::ReplicaAssignment(AssignmentFault::NotConsecutive));
    }
    validate_replicas(
        topic.assignments.iter().map(|assignment| assignment.broker_ids.as_slice()),
        cx.node_id(),
    )?;
    Ok(indexes.len() as i32)
}

/// A topic that now exists, or would without `validate_only`.
struct Created {
    topic: NewTopic,
    id: crate::uuid::Uuid,
}

async fn create(
    cx: &RequestContext,
    planned: Vec<Result<NewTopic, CatalogError>>,
    validate_only: bool,
    timeout: Duration,
) -> Vec<Result<Created, CatalogError>> {
    let count = planned.len();
    let changed = cx.catalog.change(move |batch| {
        let decide = |planned: Result<NewTopic, CatalogError>| {
            let topic = planned?;
            let change = batch.state().create_topic(&topic)?;
            if validate_only {
                return Ok(Created { topic, id: crate::uuid::Uuid::ZERO });
            }
            batch.push(change);
            let id = batch.state().topic(&topic.name).map_or(crate::uuid::Uuid::ZERO, |created| created.id);
            Ok(Created { topic, id })
        };
        planned.into_iter().map(decide).collect()
    });
    let created = match timeout.is_zero() {
        true => changed.await,
        // Past the deadline the creation may still happen, as in Kafka.
        false => tokio::time::timeout(timeout, changed).await.unwrap_or(Err(CatalogError::TimedOut)),
    };
    created.unwrap_or_else(|error| {
        let shared = std::sync::Arc::new(error);
        (0..count).map(|_| Err(CatalogError::Together(shared.clone()))).collect()
    })
}

fn answer(cx: &RequestContext, name: Str, created: Result<Created, CatalogError>) -> CreatableTopicResult {
    match created {
        Err(error) => CreatableTopicResult {
            name,
            error_code: ErrorCode::from(&error).into(),
            error_message: Some(Str::from(error.to_string())),
            ..Default::default()
        },
        Ok(Created { topic, id }) => {
            let view = cx.catalog.view();
            let mut configs = topic_config::describe(&topic.configs, &view.inherited(&cx.config));
            configs.sort_by(|one, other| one.name.cmp(&other.name));
            CreatableTopicResult {
                name,
                topic_id: id,
                num_partitions: topic.partitions,
                replication_factor: 1,
                configs: Some(configs.into_iter().map(answer_config).collect()),
                ..Default::default()
            }
        }
    }
}

fn answer_config(entry: ConfigEntry) -> CreatedTopicConfig {
    CreatedTopicConfig {
        name: Str::from(entry.name),
        value: entry.value.map(Str::from),
        read_only: entry.read_only,
        config_source: entry.source.code(),
        is_sensitive: entry.sensitive,
    }
}
