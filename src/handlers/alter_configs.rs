//! AlterConfigs: replaces all dynamic configs of a resource. What it shares with IncrementalAlterConfigs is here too.

use std::collections::HashSet;

use super::RequestContext;
use super::describe_configs::{BROKER, GROUP, TOPIC, check_broker, check_group, unknown_topic, unsupported};
use crate::catalog::topic_config::{self, ConfigOp, Inherited, InvalidConfig, replacement};
use crate::catalog::{Batch, Change, broker_config, group_config};
use crate::config::{Config, ConfigMap};
use crate::protocol::ErrorCode;
use crate::protocol::messages::alter_configs::{
    AlterConfigsRequest, AlterConfigsResource, AlterConfigsResourceResponse, AlterConfigsResponse,
};
use crate::protocol::wire::Str;

/// Replaces the configs of every resource on its own, each wholly or not at all.
pub async fn handle(cx: RequestContext, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let resources: Vec<_> = request.resources.iter().map(resource).collect();
    let repeated = repeated(&resources);
    let mut responses = Vec::with_capacity(resources.len());
    for (resource, configs) in resources.into_iter().zip(&request.resources) {
        let entry = |config: &crate::protocol::messages::alter_configs::AlterableConfig| {
            (config.name.to_string(), config.value.as_ref().map(ToString::to_string))
        };
        let entries = configs.configs.iter().map(entry).collect();
        let altered =
            alter(&cx, &resource, &repeated, Alteration::Replace(entries), request.validate_only).await;
        let failed = altered.err();
        responses.push(AlterConfigsResourceResponse {
            error_code: failed.as_ref().map_or(0, |(code, _)| (*code).into()),
            error_message: failed.map(|(_, message)| Str::from(message)),
            resource_type: resource.kind,
            resource_name: resource.name,
        });
    }
    AlterConfigsResponse { responses, ..Default::default() }
}

fn resource(resource: &AlterConfigsResource) -> Resource {
    Resource { kind: resource.resource_type, name: resource.resource_name.clone() }
}

/// What has configs.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Resource {
    /// Type code.
    pub kind: i8,
    /// Name.
    pub name: Str,
}

/// What is to become of a resource's configs.
pub enum Alteration {
    /// These changes.
    Ops(Vec<ConfigOp>),
    /// Nothing but these.
    Replace(Vec<(String, Option<String>)>),
}

impl Alteration {
    /// `current` after it, not yet validated as a whole. `apply_ops` knows the configs of the resource.
    fn of(
        &self,
        current: &ConfigMap,
        apply_ops: impl Fn(&ConfigMap, &[ConfigOp]) -> Result<ConfigMap, InvalidConfig>,
    ) -> Result<ConfigMap, Refusal> {
        match self {
            Self::Ops(ops) => apply_ops(current, ops),
            Self::Replace(entries) => replacement(entries),
        }
        .map_err(refusal)
    }
}

/// Code and message of a refusal.
pub type Refusal = (ErrorCode, String);

/// The resources that are named more than once: none of their places counts.
pub fn repeated(resources: &[Resource]) -> HashSet<Resource> {
    let mut seen = HashSet::new();
    resources.iter().filter(|resource| !seen.insert(*resource)).cloned().collect()
}

/// The refusal of an operation code that Kafka does not have.
pub fn unknown_operation() -> Refusal {
    (ErrorCode::InvalidRequest, "Unknown config operation.".to_owned())
}

/// Changes the configs of one resource, or only checks that they could be.
///
/// # Errors
/// INVALID_REQUEST or INVALID_CONFIG with the reason; an unknown topic; what storing the change gives.
pub async fn alter(
    cx: &RequestContext,
    resource: &Resource,
    repeated: &HashSet<Resource>,
    alteration: Alteration,
    validate_only: bool,
) -> Result<(), Refusal> {
    if repeated.contains(resource) {
        return Err((ErrorCode::InvalidRequest, "Each resource must appear at most once.".to_owned()));
    }
    match resource.kind {
        TOPIC => {}
        BROKER if resource.name.is_empty() => {}
        BROKER => check_broker(cx, &resource.name)?,
        GROUP => check_group(&resource.name)?,
        other => return Err(unsupported(other)),
    }
    let (config, node) = (cx.config.clone(), cx.node_id().to_string());
    let resource = resource.clone();
    let decided = cx.catalog.change(move |batch| {
        let fixed = config.explicit();
        let change = match resource.kind {
            TOPIC => topic_change(batch, &resource.name, &alteration, &node, fixed)?,
            GROUP => group_change(batch, &resource.name, &alteration, &config)?,
            _ => broker_change(batch, &resource.name, &alteration, &node, fixed)?,
        };
        if !validate_only {
            batch.push(change);
        }
        Ok(())
    });
    decided.await.map_err(|error| (ErrorCode::from(&error), error.to_string()))?
}

fn topic_change(
    batch: &Batch,
    name: &str,
    alteration: &Alteration,
    node: &str,
    fixed: &ConfigMap,
) -> Result<Change, Refusal> {
    let topic = batch.state().topic(name).ok_or_else(|| unknown_topic(name))?;
    let configs = alteration.of(&topic.configs, topic_config::apply_ops)?;
    let (dynamic_node, dynamic_default) =
        (batch.state().broker_configs(node), batch.state().broker_configs(""));
    let inherited = Inherited { dynamic_node: &dynamic_node, dynamic_default: &dynamic_default, fixed };
    topic_config::validate(&configs, &inherited).map_err(refusal)?;
    let change = batch.state().configure_topic(name, configs);
    change.map_err(|error| (ErrorCode::from(&error), error.to_string()))
}

fn broker_change(
    batch: &Batch,
    name: &str,
    alteration: &Alteration,
    node: &str,
    fixed: &ConfigMap,
) -> Result<Change, Refusal> {
    let current = batch.state().broker_configs(name);
    let configs = alteration.of(&current, broker_config::apply_ops)?;
    let (of_node, of_all) = (batch.state().broker_configs(node), batch.state().broker_configs(""));
    let inherited = match name.is_empty() {
        true => Inherited { dynamic_node: &of_node, dynamic_default: &configs, fixed },
        false => Inherited { dynamic_node: &configs, dynamic_default: &of_all, fixed },
    };
    broker_config::validate(&inherited).map_err(refusal)?;
    Ok(Change::BrokerConfigs { broker: name.to_owned(), configs })
}

fn group_change(
    batch: &Batch,
    name: &str,
    alteration: &Alteration,
    config: &Config,
) -> Result<Change, Refusal> {
    let none = ConfigMap::new();
    let current = batch.state().group_configs().get(name).map_or(&none, |configs| &**configs);
    let configs = alteration.of(current, group_config::apply_ops)?;
    group_config::validate(&configs, config).map_err(refusal)?;
    Ok(Change::GroupConfigs { group: name.to_owned(), configs })
}

fn refusal(error: InvalidConfig) -> Refusal {
    (ErrorCode::from(&error), error.to_string())
}
