//! `ottla topic alter`.

use clap::{ArgGroup, Args};

use crate::cli::CommandError;
use crate::cli::client::{ClientError, Cluster, code_of};
use crate::cli::output::say;
use crate::protocol::api::Api;
use crate::protocol::messages::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use crate::protocol::messages::incremental_alter_configs::{
    IncrementalAlterConfig, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResource,
};
use crate::protocol::messages::{CreatePartitions, IncrementalAlterConfigs};
use crate::protocol::wire::Str;

/// IncrementalAlterConfigs' operations.
const SET: i8 = 0;
const DELETE: i8 = 1;

/// Flags of which one at least says what to do.
const CHANGES: [&str; 3] = ["partitions", "config", "delete_config"];

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("changes").required(true).multiple(true).args(CHANGES))]
pub(super) struct Flags {
    /// Name of the topic
    topic: Str,
    /// Partitions that it shall have, more than it has
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// A config to set. Repeatable
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = super::key_value)]
    config: Vec<(Str, Str)>,
    /// A config that shall have its default again. Repeatable
    #[arg(long, short, value_name = "KEY")]
    delete_config: Vec<Str>,
}

/// Configs first: of the two they are refused more often, and then nothing has changed.
pub(super) fn run(cluster: &mut Cluster, flags: &Flags) -> Result<(), CommandError> {
    if !flags.config.is_empty() || !flags.delete_config.is_empty() {
        alter_configs(cluster, &flags.topic, &flags.config, &flags.delete_config)?;
    }
    if let Some(partitions) = flags.partitions {
        add_partitions(cluster, &flags.topic, partitions)?;
    }
    say(&format!("altered {}", flags.topic))
}

/// Sets configs of a topic and takes others back to their defaults: all or none.
///
/// # Errors
/// A broker refuses for good, or until the cluster's timeout.
pub(in crate::cli) fn alter_configs(
    cluster: &mut Cluster,
    topic: &Str,
    set: &[(Str, Str)],
    deleted: &[Str],
) -> Result<(), ClientError> {
    let to_set = |(name, value): &(Str, Str)| IncrementalAlterConfig {
        name: name.clone(),
        config_operation: SET,
        value: Some(value.clone()),
    };
    let to_delete =
        |name: &Str| IncrementalAlterConfig { name: name.clone(), config_operation: DELETE, value: None };
    let resource = IncrementalAlterConfigsResource {
        resource_type: super::TOPIC_RESOURCE,
        resource_name: topic.clone(),
        configs: set.iter().map(to_set).chain(deleted.iter().map(to_delete)).collect(),
    };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    cluster.retrying(|cluster| {
        let answer = cluster.call_any::<IncrementalAlterConfigs>(&request)?;
        let altered = answer.responses.first();
        let altered = altered.ok_or(ClientError::Incomplete { api: IncrementalAlterConfigs::NAME })?;
        code_of(&super::named(topic), altered.error_code, altered.error_message.as_ref())
    })
}

/// Has a topic have `count` partitions, more than it has.
///
/// # Errors
/// The controller refuses for good, or until the cluster's timeout.
pub(in crate::cli) fn add_partitions(
    cluster: &mut Cluster,
    name: &Str,
    count: i32,
) -> Result<(), ClientError> {
    let topic = CreatePartitionsTopic { name: name.clone(), count, assignments: None };
    let request = CreatePartitionsRequest {
        topics: vec![topic],
        timeout_ms: cluster.timeout_ms(),
        validate_only: false,
    };
    cluster.retrying(|cluster| {
        let answer = cluster.call_controller::<CreatePartitions>(&request)?;
        let added = answer.results.first().ok_or(ClientError::Incomplete { api: CreatePartitions::NAME })?;
        code_of(&super::named(name), added.error_code, added.error_message.as_ref())
    })
}
