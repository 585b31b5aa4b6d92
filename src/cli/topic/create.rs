//! `ottla topic create`.

use clap::Args;

use crate::cli::CommandError;
use crate::cli::client::{ClientError, Cluster, Patience, code_of};
use crate::cli::output::say;
use crate::protocol::ErrorCode;
use crate::protocol::messages::CreateTopics;
use crate::protocol::messages::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use crate::protocol::wire::Str;

/// Asks for the broker's default. KIP-464.
const DEFAULT: i16 = -1;

#[derive(Args, Debug)]
pub(super) struct Flags {
    /// Names of the new topics
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<Str>,
    /// Partitions of each [default: the broker's num.partitions]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Replicas of each partition [default: the broker's default.replication.factor]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,
    /// A config of each. Repeatable
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = super::key_value)]
    config: Vec<(Str, Str)>,
    /// Leave those that are there already as they are
    #[arg(long)]
    if_not_exists: bool,
}

pub(super) fn run(cluster: &mut Cluster, flags: &Flags) -> Result<(), CommandError> {
    let mut refused = Vec::new();
    for name in &flags.topics {
        let topic = Wanted { partitions: flags.partitions, replication_factor: flags.replication_factor };
        match create(cluster, name, &topic, &flags.config) {
            Ok(()) => {
                wait_for_leaders(cluster, name)?;
                say(&format!("created {name}"))?;
            }
            Err(error) if flags.if_not_exists && error.is(ErrorCode::TopicAlreadyExists) => {
                say(&format!("{name} is there already"))?;
            }
            Err(error) => refused.push(error),
        }
    }
    if refused.is_empty() { Ok(()) } else { Err(CommandError::Refusals(refused)) }
}

/// What a new topic is made of, where the broker does not choose.
#[derive(Clone, Copy, Default, Debug)]
pub(in crate::cli) struct Wanted {
    pub(in crate::cli) partitions: Option<i32>,
    pub(in crate::cli) replication_factor: Option<i16>,
}

/// Makes a topic.
///
/// # Errors
/// The controller refuses for good, or until the cluster's timeout.
pub(in crate::cli) fn create(
    cluster: &mut Cluster,
    name: &Str,
    wanted: &Wanted,
    configs: &[(Str, Str)],
) -> Result<(), ClientError> {
    let config =
        |(name, value): &(Str, Str)| CreatableTopicConfig { name: name.clone(), value: Some(value.clone()) };
    let topic = CreatableTopic {
        name: name.clone(),
        num_partitions: wanted.partitions.unwrap_or(DEFAULT.into()),
        replication_factor: wanted.replication_factor.unwrap_or(DEFAULT),
        configs: configs.iter().map(config).collect(),
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: cluster.timeout_ms(),
        ..CreateTopicsRequest::default()
    };
    cluster.retrying(|cluster| {
        let answer = cluster.call_controller::<CreateTopics>(&request)?;
        let topic = answer.topics.first().ok_or(ClientError::Incomplete { api: "CreateTopics" })?;
        code_of(&super::named(name), topic.error_code, topic.error_message.as_ref())
    })
}

/// Waits until who comes next finds the topic: brokers learn of it a little after the controller has made it.
///
/// # Errors
/// They have not within the cluster's timeout.
pub(in crate::cli) fn wait_for_leaders(cluster: &mut Cluster, name: &Str) -> Result<(), ClientError> {
    let mut patience = Patience::new(cluster.timeout());
    loop {
        let found = cluster.topic(name);
        let is_led = found
            .as_ref()
            .is_ok_and(|topic| topic.partitions.iter().all(|partition| partition.leader_id >= 0));
        if is_led || !patience.pause() {
            return found.map(drop);
        }
    }
}
