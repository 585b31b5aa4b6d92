//! IncrementalAlterConfigs: set, delete, append to and subtract from single configs. KIP-339.

use super::RequestContext;
use super::alter_configs::{Alteration, Resource, alter, repeated};
use crate::catalog::topic_config::{ConfigOp, OpKind};
use crate::protocol::messages::incremental_alter_configs::{
    IncrementalAlterConfig, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResource,
    IncrementalAlterConfigsResourceResponse, IncrementalAlterConfigsResponse,
};
use crate::protocol::wire::Str;

/// Changes every resource on its own, each wholly or not at all.
pub async fn handle(
    cx: RequestContext,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let resources: Vec<_> = request.resources.iter().map(resource).collect();
    let repeated = repeated(&resources);
    let mut responses = Vec::with_capacity(resources.len());
    for (resource, configs) in resources.into_iter().zip(&request.resources) {
        let altered = match ops(&configs.configs) {
            Some(ops) => alter(&cx, &resource, &repeated, Alteration::Ops(ops), request.validate_only).await,
            None => Err(super::alter_configs::unknown_operation()),
        };
        let failed = altered.err();
        responses.push(IncrementalAlterConfigsResourceResponse {
            error_code: failed.as_ref().map_or(0, |(code, _)| (*code).into()),
            error_message: failed.map(|(_, message)| Str::from(message)),
            resource_type: resource.kind,
            resource_name: resource.name,
        });
    }
    IncrementalAlterConfigsResponse { responses, ..Default::default() }
}

fn resource(resource: &IncrementalAlterConfigsResource) -> Resource {
    Resource { kind: resource.resource_type, name: resource.resource_name.clone() }
}

/// `None` for an operation that Kafka does not have.
fn ops(configs: &[IncrementalAlterConfig]) -> Option<Vec<ConfigOp>> {
    let op = |config: &IncrementalAlterConfig| {
        Some(ConfigOp {
            name: config.name.to_string(),
            kind: OpKind::from_code(config.config_operation)?,
            value: config.value.as_ref().map(ToString::to_string),
        })
    };
    configs.iter().map(op).collect()
}
