//! DescribeCluster: the brokers, of which there is one.

use super::RequestContext;
use super::context::CLUSTER_OPERATIONS;
use crate::protocol::ErrorCode;
use crate::protocol::messages::describe_cluster::{
    DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse,
};
use crate::protocol::wire::Str;

/// Endpoint types of KIP-919.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

/// Answers with this broker, which is its own controller.
pub async fn handle(cx: RequestContext, request: DescribeClusterRequest) -> DescribeClusterResponse {
    let refused = match request.endpoint_type {
        BROKERS => None,
        CONTROLLERS => {
            Some((ErrorCode::MismatchedEndpointType, "This is a broker endpoint, not a controller's."))
        }
        _ => Some((ErrorCode::UnsupportedEndpointType, "Unsupported endpoint type.")),
    };
    if let Some((code, message)) = refused {
        return DescribeClusterResponse {
            error_code: code.into(),
            error_message: Some(Str::from_static(message)),
            endpoint_type: request.endpoint_type,
            ..Default::default()
        };
    }
    let (host, port) = cx.endpoint();
    DescribeClusterResponse {
        cluster_id: Str::from(cx.cluster_id.to_string()),
        controller_id: cx.node_id(),
        brokers: vec![DescribeClusterBroker { broker_id: cx.node_id(), host, port, ..Default::default() }],
        cluster_authorized_operations: match request.include_cluster_authorized_operations {
            true => CLUSTER_OPERATIONS,
            false => i32::MIN,
        },
        ..Default::default()
    }
}
