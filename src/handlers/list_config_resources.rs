//! ListConfigResources: what has configs. KIP-1000, KIP-1142.

use super::RequestContext;
use super::describe_configs::{BROKER, GROUP, TOPIC};
use crate::protocol::ErrorCode;
use crate::protocol::messages::list_config_resources::{
    ListConfigResourcesRequest, ListConfigResourcesResponse, ListedConfigResource,
};
use crate::protocol::wire::Str;

/// Subscriptions to the metrics of clients: there are none. The one type that version 0 knows. KIP-714.
const CLIENT_METRICS: i8 = 16;

/// First version whose requests name types.
const TYPES_FROM_VERSION: i16 = 1;

/// Lists topics, this broker, and the groups that have configs.
pub async fn handle(cx: RequestContext, request: ListConfigResourcesRequest) -> ListConfigResourcesResponse {
    let all = [TOPIC, BROKER, GROUP, CLIENT_METRICS];
    let wanted = match request.resource_types {
        _ if cx.version < TYPES_FROM_VERSION => vec![CLIENT_METRICS],
        types if types.is_empty() => all.to_vec(),
        types => types,
    };
    if wanted.iter().any(|wanted| !all.contains(wanted)) {
        return ListConfigResourcesResponse {
            error_code: ErrorCode::UnsupportedVersion.into(),
            ..Default::default()
        };
    }
    let view = cx.catalog.view();
    let mut config_resources = Vec::new();
    let mut list = |resource_type: i8, name: &str| {
        if wanted.contains(&resource_type) {
            config_resources.push(ListedConfigResource { resource_name: Str::from(name), resource_type });
        }
    };
    view.topics().for_each(|topic| list(TOPIC, &topic.name));
    list(BROKER, &cx.node_id().to_string());
    view.group_configs.keys().for_each(|group| list(GROUP, group));
    ListConfigResourcesResponse { config_resources, ..Default::default() }
}
