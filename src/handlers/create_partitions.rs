//! CreatePartitions: more of them for topics that exist.

use std::collections::HashMap;

use super::RequestContext;
use crate::catalog::state::validate_replicas;
use crate::catalog::{AssignmentFault, CatalogError};
use crate::config::MAX_PARTITIONS;
use crate::protocol::ErrorCode;
use crate::protocol::messages::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic, CreatePartitionsTopicResult,
};
use crate::protocol::wire::Str;

/// Adds partitions to the topics that can have them; each has its own answer.
pub async fn handle(cx: RequestContext, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let topics = request.topics.clone();
    let (node_id, validate_only) = (cx.node_id(), request.validate_only);
    let added = cx.catalog.change(move |batch| {
        let mut times: HashMap<&str, usize> = HashMap::new();
        topics.iter().for_each(|topic| *times.entry(&topic.name).or_default() += 1);
        let mut new_partitions = 0;
        let mut decide = |topic: &CreatePartitionsTopic| {
            if times[&*topic.name] > 1 {
                return Err(CatalogError::Twice);
            }
            let have = batch.state().topic(&topic.name).map_or(0, |found| found.partitions);
            let change = batch.state().add_partitions(&topic.name, topic.count)?;
            check_assignments(topic, topic.count - have, node_id)?;
            new_partitions += topic.count - have;
            if new_partitions > MAX_PARTITIONS {
                return Err(CatalogError::TooManyPartitions);
            }
            if !validate_only {
                batch.push(change);
            }
            Ok(())
        };
        topics.iter().map(&mut decide).collect::<Vec<Result<(), CatalogError>>>()
    });
    let results = match added.await {
        Ok(added) => {
            request.topics.into_iter().zip(added).map(|(topic, added)| answer(topic, added.as_ref().err()))
        }
        Err(error) => {
            let answers = request.topics.into_iter().map(|topic| answer(topic, Some(&error)));
            return CreatePartitionsResponse { results: answers.collect(), ..Default::default() };
        }
    };
    CreatePartitionsResponse { results: results.collect(), ..Default::default() }
}

fn check_assignments(topic: &CreatePartitionsTopic, new: i32, node_id: i32) -> Result<(), CatalogError> {
    let Some(assignments) = &topic.assignments else { return Ok(()) };
    if assignments.len() as i64 != i64::from(new) {
        let fault = AssignmentFault::Count { new, given: assignments.len() };
        return Err(CatalogError::ReplicaAssignment(fault));
    }
    validate_replicas(assignments.iter().map(|assignment| assignment.broker_ids.as_slice()), node_id)
}

fn answer(topic: CreatePartitionsTopic, error: Option<&CatalogError>) -> CreatePartitionsTopicResult {
    CreatePartitionsTopicResult {
        name: topic.name,
        error_code: error.map_or(0, |error| ErrorCode::from(error).into()),
        error_message: error.map(|error| Str::from(error.to_string())),
    }
}
