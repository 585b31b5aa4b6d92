//! `ottla topic delete`.

use clap::Args;

use crate::cli::CommandError;
use crate::cli::client::{ClientError, Cluster, code_of};
use crate::cli::output::say;
use crate::protocol::ErrorCode;
use crate::protocol::api::Api;
use crate::protocol::messages::DeleteTopics;
use crate::protocol::messages::delete_topics::{DeletableTopic, DeleteTopicsRequest};
use crate::protocol::wire::Str;

#[derive(Args, Debug)]
pub(super) struct Flags {
    /// Names of the topics
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<Str>,
    /// Pass over those that are not there
    #[arg(long)]
    if_exists: bool,
}

pub(super) fn run(cluster: &mut Cluster, flags: &Flags) -> Result<(), CommandError> {
    let mut refused = Vec::new();
    for name in &flags.topics {
        match delete(cluster, name) {
            Ok(()) => say(&format!("deleted {name}"))?,
            Err(error) if flags.if_exists && error.is(ErrorCode::UnknownTopicOrPartition) => {
                say(&format!("{name} is not there"))?;
            }
            Err(error) => refused.push(error),
        }
    }
    if refused.is_empty() { Ok(()) } else { Err(CommandError::Refusals(refused)) }
}

/// Deletes a topic.
///
/// # Errors
/// The controller refuses for good, or until the cluster's timeout.
pub(in crate::cli) fn delete(cluster: &mut Cluster, name: &Str) -> Result<(), ClientError> {
    let topic = DeletableTopic { name: Some(name.clone()), ..DeletableTopic::default() };
    let request = DeleteTopicsRequest {
        topics: vec![topic],
        topic_names: vec![name.clone()],
        timeout_ms: cluster.timeout_ms(),
    };
    cluster.retrying(|cluster| {
        let answer = cluster.call_controller::<DeleteTopics>(&request)?;
        let deleted = answer.responses.first().ok_or(ClientError::Incomplete { api: DeleteTopics::NAME })?;
        code_of(&super::named(name), deleted.error_code, deleted.error_message.as_ref())
    })
}
