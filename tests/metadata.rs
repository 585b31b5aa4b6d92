//! What a client asks first: ApiVersions, Metadata and DescribeCluster, on one listener and on several.
#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use ottla::handlers::TABLE;
use ottla::protocol::api::{Api, decode};
use ottla::protocol::messages::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use ottla::protocol::messages::describe_cluster::DescribeClusterRequest;
use ottla::protocol::messages::metadata::{MetadataRequest, MetadataTopic};
use ottla::protocol::messages::{ApiVersions, DescribeCluster, Fetch, Metadata, Produce};
use ottla::uuid::Uuid;

use running::{Client, Server, free_port, named};

fn named_client(name: &str) -> ApiVersionsRequest {
    ApiVersionsRequest {
        client_software_name: name.into(),
        client_software_version: "1.0".into(),
        ..Default::default()
    }
}

#[test]
fn every_version_of_api_versions_lists_what_is_served() {
    let server = Server::start(&[]);
    let mut client = server.client();
    for version in 0..=5 {
        let answer = client.call::<ApiVersions>(version, &named_client("test"));
        assert_eq!((answer.error_code, answer.api_keys.len()), (0, TABLE.len()), "version {version}");
        let of = |key| answer.api_keys.iter().find(|api| api.api_key == key).unwrap();
        for served in TABLE {
            let told = of(served.key);
            let min_version = if served.key == Produce::KEY { 0 } else { served.min_version };
            assert_eq!(
                (told.min_version, told.max_version),
                (min_version, served.max_version),
                "{}",
                served.name
            );
        }
    }
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_in_the_first() {
    let server = Server::start(&[]);
    let mut client = server.client();
    // Size, key 18, version 99, correlation id 7, client id "x", and a body that no version has.
    client.send_bytes(&[0, 0, 0, 14, 0, 18, 0, 99, 0, 0, 0, 7, 0, 1, b'x', 0xff, 0xff, 0xff]);
    let frame = client.receive_frame().unwrap();
    assert_eq!(frame[..4], [0, 0, 0, 7]);
    let answer: ApiVersionsResponse = decode(&frame, &frame[4..], 0, false).unwrap();
    let told: Vec<_> =
        answer.api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version)).collect();
    assert_eq!((named(answer.error_code), told), ("UNSUPPORTED_VERSION", vec![(18, 0, 5)]));
    assert_eq!(frame.len(), 4 + 2 + 4 + 6, "no throttle time, no tags");
    // The connection goes on.
    client.send_bytes(&running::frame::<ApiVersions>(0, 8, &ApiVersionsRequest::default()));
    assert_eq!(client.receive_frame().unwrap()[..4], [0, 0, 0, 8]);
}

#[test]
fn a_client_that_does_not_name_itself_or_looks_for_another_broker_is_told() {
    let server = Server::start(&[]);
    let mut client = server.client();
    for bad in ["", "a b", "-a"] {
        let answer = client.call::<ApiVersions>(3, &named_client(bad));
        assert_eq!(named(answer.error_code), "INVALID_REQUEST", "{bad:?}");
    }
    let known = client.call::<Metadata>(13, &MetadataRequest::default());
    let looking_for = |cluster: &str, node_id| ApiVersionsRequest {
        cluster_id: Some(cluster.into()),
        node_id,
        ..named_client("test")
    };
    let mut code = |request| named(client.call::<ApiVersions>(5, &request).error_code);
    assert_eq!(code(looking_for(&known.cluster_id.unwrap(), 1)), "NONE");
    assert_eq!(code(looking_for("another", 1)), "REBOOTSTRAP_REQUIRED");
}

#[test]
fn every_version_of_metadata_names_the_one_broker_and_its_topics() {
    let server = Server::start(&["--topic", "a:2", "--topic", "b:1"]);
    let mut client = server.client();
    for version in 0..=13 {
        // Version 0 asks for all topics with an empty list, later ones with null.
        let topics = (version == 0).then(Vec::new);
        let answer = client.call::<Metadata>(version, &MetadataRequest { topics, ..Default::default() });
        let broker = &answer.brokers[0];
        assert_eq!(format!("{}:{}", broker.host, broker.port), server.address());
        let names: Vec<_> = answer.topics.iter().map(|topic| topic.name.as_deref().unwrap()).collect();
        assert_eq!(names, ["a", "b"], "version {version}");
        let partition = &answer.topics[0].partitions[1];
        assert_eq!((partition.partition_index, partition.leader_id), (1, broker.node_id));
        assert_eq!((&partition.replica_nodes, &partition.isr_nodes), (&vec![1], &vec![1]));
        assert_eq!(answer.topics[0].topic_id.is_zero(), version < 10);
        let none = client.call::<Metadata>(
            version.max(1),
            &MetadataRequest { topics: Some(Vec::new()), ..Default::default() },
        );
        assert!(none.topics.is_empty());
    }
}

#[test]
fn topics_are_asked_for_by_id_from_version_12_on() {
    let server = Server::start(&["--topic", "t:1"]);
    let mut client = server.client();
    let topic_id = client.describe("t").topic_id;
    let mut ask = |version, topic: MetadataTopic| {
        let request = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
        let topic = client.call::<Metadata>(version, &request).topics.remove(0);
        (named(topic.error_code), topic.name.map(|name| name.to_string()))
    };
    let by_id = |topic_id| MetadataTopic { topic_id, name: None };
    assert_eq!(ask(12, by_id(topic_id)), ("NONE", Some("t".to_owned())));
    assert_eq!(ask(12, by_id(Uuid::random())), ("UNKNOWN_TOPIC_ID", None));
    assert_eq!(ask(10, MetadataTopic { topic_id, name: Some("t".into()) }).0, "INVALID_REQUEST");
}

#[test]
fn operations_are_told_only_to_who_asks() {
    let server = Server::start(&["--topic", "t:1"]);
    let mut client = server.client();
    for asked in [false, true] {
        let request = MetadataRequest {
            include_cluster_authorized_operations: asked,
            include_topic_authorized_operations: asked,
            ..Default::default()
        };
        let answer = client.call::<Metadata>(8, &request);
        assert_eq!(answer.cluster_authorized_operations != i32::MIN, asked);
        assert_eq!(answer.topics[0].topic_authorized_operations != i32::MIN, asked);
    }
}

#[test]
fn the_cluster_is_described_to_who_asks_for_brokers() {
    let mut server = Server::start(&[]);
    let mut client = server.client();
    let describe = |client: &mut Client, endpoint_type| {
        let request = DescribeClusterRequest { endpoint_type, ..Default::default() };
        client.call::<DescribeCluster>(2, &request)
    };
    let answer = describe(&mut client, 1);
    assert_eq!((answer.error_code, answer.controller_id, answer.brokers.len()), (0, 1, 1));
    assert_eq!(format!("{}:{}", answer.brokers[0].host, answer.brokers[0].port), server.address());
    assert_eq!(named(describe(&mut client, 2).error_code), "MISMATCHED_ENDPOINT_TYPE");
    assert_eq!(named(describe(&mut client, 3).error_code), "UNSUPPORTED_ENDPOINT_TYPE");
    // The cluster keeps its id.
    server.kill();
    server.restart();
    assert_eq!(describe(&mut server.client(), 1).cluster_id, answer.cluster_id);
}

#[test]
fn each_listener_tells_its_own_address() {
    let (plain, named) = (free_port(), free_port());
    let listen =
        [format!("127.0.0.1:{plain}"), format!("docker=127.0.0.1:{named},advertised=broker.example:19094")];
    let server = Server::start(&["--listen", &listen[0], "--listen", &listen[1], "--topic", "t:1"]);
    assert_eq!(server.addresses(), [format!("127.0.0.1:{plain}"), "broker.example:19094".to_owned()]);
    for (port, told) in [(plain, format!("127.0.0.1:{plain}")), (named, "broker.example:19094".to_owned())] {
        let mut client = Client::connect(&format!("127.0.0.1:{port}"));
        let brokers = client.call::<Metadata>(13, &MetadataRequest::default()).brokers;
        let described = client
            .call::<DescribeCluster>(2, &DescribeClusterRequest { endpoint_type: 1, ..Default::default() });
        assert_eq!(format!("{}:{}", brokers[0].host, brokers[0].port), told);
        assert_eq!(format!("{}:{}", described.brokers[0].host, described.brokers[0].port), told);
    }
    // They are doors to the same topics.
    Client::connect(&format!("127.0.0.1:{named}")).append("t", ["a"]);
    let answer = server.client().call::<Fetch>(12, &running::fetch_request("t", 0, 0));
    assert_eq!(answer.responses[0].partitions[0].high_watermark, 1);
}

#[test]
fn without_an_advertised_address_a_client_is_told_the_one_it_came_to() {
    let server = Server::start(&["--listen", "0.0.0.0:0"]);
    let port = server.address().rsplit_once(':').unwrap().1;
    for host in ["127.0.0.1", "127.0.0.2"] {
        let mut client = Client::connect(&format!("{host}:{port}"));
        let broker = client.call::<Metadata>(13, &MetadataRequest::default()).brokers.remove(0);
        assert_eq!((&*broker.host, broker.port.to_string()), (host, port.to_owned()));
    }
}
