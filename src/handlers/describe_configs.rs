//! DescribeConfigs of topics, of this broker and of groups.

use super::RequestContext;
use crate::catalog::state::validate_name;
use crate::catalog::topic_config::{self, ConfigEntry};
use crate::catalog::{CatalogError, broker_config, group_config};
use crate::config::ConfigMap;
use crate::protocol::ErrorCode;
use crate::protocol::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResponse, DescribeConfigsResult,
    DescribedConfig, DescribedConfigSynonym,
};
use crate::protocol::wire::Str;

/// Resource types that have configs here.
pub const TOPIC: i8 = 2;
/// A broker; the empty name is the default of all.
pub const BROKER: i8 = 4;
/// A group, of which there need be none yet. KIP-848.
pub const GROUP: i8 = 32;

/// Answers every resource on its own.
pub async fn handle(cx: RequestContext, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let (synonyms, documentation) = (request.include_synonyms, request.include_documentation);
    let describe = |resource: DescribeConfigsResource| match entries(&cx, &resource) {
        Ok(entries) => {
            let keys = resource.configuration_keys.unwrap_or_default();
            let asked = |entry: &ConfigEntry| keys.is_empty() || keys.iter().any(|key| **key == *entry.name);
            let configs =
                entries.into_iter().filter(asked).map(|entry| shape(entry, synonyms, documentation));
            DescribeConfigsResult {
                resource_type: resource.resource_type,
                resource_name: resource.resource_name,
                configs: configs.collect(),
                ..Default::default()
            }
        }
        Err((code, message)) => DescribeConfigsResult {
            error_code: code.into(),
            error_message: Some(Str::from(message)),
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
            ..Default::default()
        },
    };
    DescribeConfigsResponse {
        results: request.resources.into_iter().map(describe).collect(),
        ..Default::default()
    }
}

fn entries(
    cx: &RequestContext,
    resource: &DescribeConfigsResource,
) -> Result<Vec<ConfigEntry>, (ErrorCode, String)> {
    let view = cx.catalog.view();
    match resource.resource_type {
        TOPIC => {
            let topic =
                view.topic(&resource.resource_name).ok_or_else(|| unknown_topic(&resource.resource_name))?;
            Ok(topic_config::describe(&topic.configs, &view.inherited(&cx.config)))
        }
        BROKER if resource.resource_name.is_empty() => {
            Ok(broker_config::describe_default(&view.broker_default_configs))
        }
        BROKER => {
            check_broker(cx, &resource.resource_name)?;
            Ok(broker_config::describe(&view.inherited(&cx.config)))
        }
        GROUP => {
            check_group(&resource.resource_name)?;
            let none = ConfigMap::new();
            let configs =
                view.group_configs.get(&*resource.resource_name).map_or(&none, |configs| &**configs);
            Ok(group_config::describe(configs, &cx.config))
        }
        other => Err(unsupported(other)),
    }
}

/// Checks that a group resource has a name.
///
/// # Errors
/// INVALID_REQUEST.
pub fn check_group(name: &str) -> Result<(), (ErrorCode, String)> {
    match name.is_empty() {
        true => Err((ErrorCode::InvalidRequest, "Default group resources are not allowed.".to_owned())),
        false => Ok(()),
    }
}

/// The error for a topic that is not there.
pub fn unknown_topic(name: &str) -> (ErrorCode, String) {
    let error = match validate_name(name) {
        Err(error @ CatalogError::TopicName(_)) => error,
        _ => CatalogError::UnknownTopic,
    };
    (ErrorCode::from(&error), error.to_string())
}

/// Checks that a broker resource names this node.
///
/// # Errors
/// INVALID_REQUEST, in Kafka's words.
pub fn check_broker(cx: &RequestContext, name: &str) -> Result<(), (ErrorCode, String)> {
    match name.parse::<i32>() {
        Ok(id) if id == cx.node_id() => Ok(()),
        Ok(id) => {
            let message =
                format!("Unexpected broker id, expected {} or empty string, but received {id}", cx.node_id());
            Err((ErrorCode::InvalidRequest, message))
        }
        Err(_) => Err((ErrorCode::InvalidRequest, format!("Node id must be an integer, but it is: {name}"))),
    }
}

/// The error for a resource type that has no configs here.
pub fn unsupported(resource_type: i8) -> (ErrorCode, String) {
    (ErrorCode::InvalidRequest, format!("Unsupported resource type: {resource_type}"))
}

fn shape(entry: ConfigEntry, synonyms: bool, documentation: bool) -> DescribedConfig {
    let synonym = |synonym: topic_config::ConfigSynonym| DescribedConfigSynonym {
        name: Str::from_static(synonym.name),
        value: Some(Str::from(synonym.value)),
        source: synonym.source.code(),
    };
    DescribedConfig {
        name: Str::from(entry.name),
        value: entry.value.map(Str::from),
        read_only: entry.read_only,
        config_source: entry.source.code(),
        is_sensitive: entry.sensitive,
        synonyms: if synonyms { entry.synonyms.into_iter().map(synonym).collect() } else { Vec::new() },
        config_type: entry.type_code,
        documentation: documentation.then(|| Str::from_static(entry.documentation)),
    }
}
