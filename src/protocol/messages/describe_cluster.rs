//! DescribeCluster, API 60.

use crate::protocol::api::api;
use crate::protocol::wire::Str;

api! {
    /// The brokers, the controller and the cluster id. KIP-700; endpoint types: KIP-919.
    DescribeCluster { key: 60, versions: 0..=2, flexible: 0.. }

    request DescribeClusterRequest {
        include_cluster_authorized_operations: bool,
        /// 1 brokers, 2 controllers. KIP-919.
        endpoint_type: i8 [1..] = 1,
        include_fenced_brokers: bool [2..],
    }

    response DescribeClusterResponse {
        throttle_time_ms: i32,
        error_code: i16,
        error_message: Option<Str>,
        /// 1 brokers, 2 controllers. KIP-919.
        endpoint_type: i8 [1..] = 1,
        cluster_id: Str,
        controller_id: i32 = -1,
        brokers: Vec<DescribeClusterBroker>,
        cluster_authorized_operations: i32 = i32::MIN,
    }

    struct DescribeClusterBroker {
        broker_id: i32,
        host: Str,
        port: i32,
        rack: Option<Str>,
        is_fenced: bool [2..],
    }
}
