//! Topics made, described, widened and deleted, by request, by being asked for, and at start.
#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use ottla::protocol::messages::create_partitions::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic,
};
use ottla::protocol::messages::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use ottla::protocol::messages::delete_topics::{DeletableTopic, DeleteTopicsRequest};
use ottla::protocol::messages::describe_topic_partitions::{
    DescribeTopicPartitionsCursor, DescribeTopicPartitionsRequest, DescribeTopicPartitionsTopic,
};
use ottla::protocol::messages::fetch::FetchRequest;
use ottla::protocol::messages::metadata::{MetadataPartition, MetadataRequest, MetadataTopic};
use ottla::protocol::messages::produce::ProducePartition;
use ottla::protocol::messages::{
    CreatePartitions, CreateTopics, DeleteTopics, DescribeTopicPartitions, Fetch, Metadata, Produce,
};
use ottla::protocol::wire::{Records, Str};
use ottla::uuid::Uuid;

use running::{Client, PATIENCE, Server, fetch_request, named, numbered, produce_request, values_of};

fn topic(name: &str, partitions: i32) -> CreatableTopic {
    CreatableTopic {
        name: name.into(),
        num_partitions: partitions,
        replication_factor: 1,
        ..Default::default()
    }
}

fn create(client: &mut Client, topics: Vec<CreatableTopic>) -> Vec<(String, &'static str)> {
    let answer = client.call::<CreateTopics>(7, &CreateTopicsRequest { topics, ..Default::default() });
    answer.topics.iter().map(|topic| (topic.name.to_string(), named(topic.error_code))).collect()
}

fn assigned(assignments: &[(i32, &[i32])]) -> Vec<CreatableReplicaAssignment> {
    let assignment = |(partition_index, brokers): &(i32, &[i32])| CreatableReplicaAssignment {
        partition_index: *partition_index,
        broker_ids: brokers.to_vec(),
    };
    assignments.iter().map(assignment).collect()
}

fn names(client: &mut Client) -> Vec<String> {
    let answer = client.call::<Metadata>(13, &MetadataRequest::default());
    answer.topics.into_iter().map(|topic| topic.name.unwrap().to_string()).collect()
}

#[test]
fn each_fault_of_a_new_topic_has_its_code() {
    let server = Server::start(&["--topic", "taken:1", "--topic", "a.b:1"]);
    let mut client = server.client();
    let config = |name: &str, value: Option<&str>| CreatableTopic {
        configs: vec![CreatableTopicConfig { name: name.into(), value: value.map(Str::from) }],
        ..topic("t", 1)
    };
    let factor = |replication_factor| CreatableTopic { replication_factor, ..topic("t", 1) };
    let manual = |assignments: &[(i32, &[i32])]| CreatableTopic {
        num_partitions: -1,
        replication_factor: -1,
        assignments: assigned(assignments),
        ..topic("t", 1)
    };
    let checks = [
        (topic("taken", 1), "TOPIC_ALREADY_EXISTS"),
        (topic("a_b", 1), "INVALID_TOPIC_EXCEPTION"),
        (topic("", 1), "INVALID_TOPIC_EXCEPTION"),
        (topic(".", 1), "INVALID_TOPIC_EXCEPTION"),
        (topic("..", 1), "INVALID_TOPIC_EXCEPTION"),
        (topic("a/b", 1), "INVALID_TOPIC_EXCEPTION"),
        (topic(&"n".repeat(250), 1), "INVALID_TOPIC_EXCEPTION"),
        (topic("t", 0), "INVALID_PARTITIONS"),
        (topic("t", -2), "INVALID_PARTITIONS"),
        (topic("t", 10_001), "POLICY_VIOLATION"),
        (factor(0), "INVALID_REPLICATION_FACTOR"),
        (factor(-2), "INVALID_REPLICATION_FACTOR"),
        (factor(2), "INVALID_REPLICATION_FACTOR"),
        (config("no.such.config", Some("1")), "INVALID_CONFIG"),
        (config("retention.ms", Some("-2")), "INVALID_CONFIG"),
        (config("retention.ms", Some("soon")), "INVALID_CONFIG"),
        (config("segment.bytes", Some("1048575")), "INVALID_CONFIG"),
        (config("cleanup.policy", Some("burn")), "INVALID_CONFIG"),
        (config("retention.ms", None), "INVALID_CONFIG"),
        (CreatableTopic { num_partitions: 1, ..manual(&[(0, &[1])]) }, "INVALID_REQUEST"),
        (CreatableTopic { replication_factor: 1, ..manual(&[(0, &[1])]) }, "INVALID_REQUEST"),
        (manual(&[(1, &[1])]), "INVALID_REPLICA_ASSIGNMENT"),
        (manual(&[(0, &[])]), "INVALID_REPLICA_ASSIGNMENT"),
        (manual(&[(0, &[2])]), "INVALID_REPLICA_ASSIGNMENT"),
        (manual(&[(0, &[1, 1])]), "INVALID_REPLICA_ASSIGNMENT"),
    ];
    for (topic, expected) in checks {
        let context = format!("{topic:?}");
        let answer = client
            .call::<CreateTopics>(7, &CreateTopicsRequest { topics: vec![topic], ..Default::default() })
            .topics
            .remove(0);
        assert_eq!(named(answer.error_code), expected, "{context}");
        assert!(answer.error_message.is_some_and(|message| !message.is_empty()), "{context}");
    }
    assert_eq!(names(&mut client), ["a.b", "taken"]);
}

#[test]
fn topics_of_one_request_are_made_or_refused_each_by_itself() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let manual = CreatableTopic {
        num_partitions: -1,
        replication_factor: -1,
        assignments: assigned(&[(1, &[1]), (0, &[1])]),
        ..topic("manual", 0)
    };
    let answers =
        create(&mut client, vec![topic("a", 2), topic("b", 0), topic("twice", 1), topic("twice", 1), manual]);
    let expected =
        [("a", "NONE"), ("b", "INVALID_PARTITIONS"), ("twice", "INVALID_REQUEST"), ("manual", "NONE")];
    assert_eq!(answers, expected.map(|(name, code)| (name.to_owned(), code)));
    assert_eq!(names(&mut client), ["a", "manual"]);
    assert_eq!(client.describe("manual").partitions.len(), 2);
}

#[test]
fn the_answer_tells_what_was_made() {
    let server = Server::start(&["--set", "num.partitions=3"]);
    let mut client = server.client();
    let config = CreatableTopicConfig { name: "retention.ms".into(), value: Some("1000".into()) };
    let wanted =
        CreatableTopic { num_partitions: -1, replication_factor: -1, configs: vec![config], ..topic("t", 0) };
    let answer = client
        .call::<CreateTopics>(7, &CreateTopicsRequest { topics: vec![wanted], ..Default::default() })
        .topics
        .remove(0);
    assert_eq!((answer.error_code, answer.num_partitions, answer.replication_factor), (0, 3, 1));
    let configs = answer.configs.unwrap();
    assert!(configs.is_sorted_by_key(|config| config.name.to_string()));
    let retention = configs.iter().find(|config| *config.name == *"retention.ms").unwrap();
    // Source 1: the topic's own.
    assert_eq!((retention.value.as_deref(), retention.config_source), (Some("1000"), 1));
    let described = client.describe("t");
    assert_eq!((described.topic_id, described.partitions.len()), (answer.topic_id, 3));
}

#[test]
fn validating_only_changes_nothing() {
    let server = Server::start(&["--topic", "t:1"]);
    let mut client = server.client();
    let request = CreateTopicsRequest {
        topics: vec![topic("new", 1), topic("t", 1), topic("bad name", 1)],
        validate_only: true,
        ..Default::default()
    };
    let answer = client.call::<CreateTopics>(7, &request);
    let codes: Vec<_> = answer.topics.iter().map(|topic| named(topic.error_code)).collect();
    assert_eq!(codes, ["NONE", "TOPIC_ALREADY_EXISTS", "INVALID_TOPIC_EXCEPTION"]);
    assert_eq!(widen_with(&mut client, "t", 5, None, true), "NONE");
    assert_eq!(names(&mut client), ["t"]);
    assert_eq!(client.describe("t").partitions.len(), 1);
}

fn widen_with(
    client: &mut Client,
    topic: &str,
    count: i32,
    assignments: Option<&[&[i32]]>,
    validate_only: bool,
) -> &'static str {
    let assignment = |brokers: &&[i32]| CreatePartitionsAssignment { broker_ids: brokers.to_vec() };
    let topic = CreatePartitionsTopic {
        name: topic.into(),
        count,
        assignments: assignments.map(|assignments| assignments.iter().map(assignment).collect()),
    };
    let request = CreatePartitionsRequest { topics: vec![topic], timeout_ms: 30_000, validate_only };
    named(client.call::<CreatePartitions>(3, &request).results[0].error_code)
}

#[test]
fn partitions_are_only_ever_added() {
    let mut server = Server::start(&["--topic", "t:2"]);
    let mut client = server.client();
    client.append("t", ["a"]);
    for (topic, count, assignments, expected) in [
        ("t", 2, None, "INVALID_PARTITIONS"),
        ("t", 1, None, "INVALID_PARTITIONS"),
        ("t", -1, None, "INVALID_PARTITIONS"),
        ("nowhere", 3, None, "UNKNOWN_TOPIC_OR_PARTITION"),
        ("t", 20_000, None, "POLICY_VIOLATION"),
        ("t", 4, Some(&[&[1][..]][..]), "INVALID_REPLICA_ASSIGNMENT"),
        ("t", 3, Some(&[&[9][..]][..]), "INVALID_REPLICA_ASSIGNMENT"),
        ("t", 3, None, "NONE"),
        ("t", 4, Some(&[&[1][..]][..]), "NONE"),
    ] {
        assert_eq!(widen_with(&mut client, topic, count, assignments, false), expected, "{topic} to {count}");
    }
    assert_eq!(client.produce("t", 3, numbered(["b"]).build()).error_code, 0);
    server.kill();
    server.restart();
    let mut client = server.client();
    assert_eq!(client.describe("t").partitions.len(), 4);
    assert_eq!(values_of(&client.read_all("t", 0)), ["a"]);
    assert_eq!(values_of(&client.read_all("t", 3)), ["b"]);
}

fn delete(client: &mut Client, topics: &[(Option<&str>, Uuid)]) -> Vec<&'static str> {
    let wanted = |(name, topic_id): &(Option<&str>, Uuid)| DeletableTopic {
        name: name.map(Str::from),
        topic_id: *topic_id,
    };
    let topics = topics.iter().map(wanted).collect();
    let request = DeleteTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() };
    client.call::<DeleteTopics>(6, &request).responses.iter().map(|answer| named(answer.error_code)).collect()
}

#[test]
fn topics_are_deleted_by_name_or_by_id_but_not_both() {
    let mut server = Server::start(&[]);
    let mut client = server.client();
    ["a", "b", "c", "d"].iter().for_each(|name| client.create_topic(name, 1, &[]));
    let (b, c) = (client.describe("b").topic_id, client.describe("c").topic_id);
    let codes = delete(
        &mut client,
        &[
            (Some("a"), Uuid::ZERO),
            (None, b),
            (Some("c"), c),
            (None, Uuid::ZERO),
            (Some("nowhere"), Uuid::ZERO),
            (None, Uuid::random()),
            (Some("d"), Uuid::ZERO),
            (Some("d"), Uuid::ZERO),
        ],
    );
    let refused = "INVALID_REQUEST";
    assert_eq!(codes[..4], ["NONE", "NONE", refused, refused]);
    assert_eq!(codes[4..], ["UNKNOWN_TOPIC_OR_PARTITION", "UNKNOWN_TOPIC_ID", refused, refused]);
    for _ in 0..2 {
        assert_eq!(names(&mut client), ["c", "d"]);
        server.kill();
        server.restart();
        client = server.client();
    }
    let old = DeleteTopicsRequest { topic_names: vec!["c".into()], timeout_ms: 30_000, ..Default::default() };
    assert_eq!(client.call::<DeleteTopics>(1, &old).responses[0].error_code, 0);
}

/// Looks at a topic over and over, from before it is made, and appends to every partition the moment that all have a leader:
/// the codes, by partition.
fn append_once_led(address: &str, name: &str) -> Vec<&'static str> {
    let mut client = Client::connect(address);
    let deadline = Instant::now() + PATIENCE;
    let partitions = loop {
        let found = client.describe(name);
        let is_led = |partition: &MetadataPartition| partition.leader_id >= 0 && partition.error_code == 0;
        if found.error_code == 0 && found.partitions.iter().all(is_led) {
            break found.partitions.len() as i32;
        }
        assert!(Instant::now() < deadline, "{name} is not there");
    };
    let mut request = produce_request(name, 0, Bytes::new());
    request.topic_data[0].partition_data = (0..partitions)
        .map(|index| ProducePartition { index, records: Records::Bytes(numbered([index]).build()) })
        .collect();
    let answer = client.call::<Produce>(12, &request).responses.remove(0);
    answer.partition_responses.iter().map(|partition| named(partition.error_code)).collect()
}

#[test]
fn a_leader_is_named_only_once_its_log_takes_records() {
    const MAKERS: usize = 4;
    const PARTITIONS: usize = 40;
    for flush in ["os", "commit"] {
        let server = Server::start(&["--flush", flush, "--set", &format!("num.partitions={PARTITIONS}")]);
        let address = server.address();
        thread::scope(|scope| {
            for maker in 0..MAKERS {
                // Who makes a topic waits until somebody is about to look for it.
                let (about_to_make, to_be_made) = sync_channel::<String>(0);
                scope.spawn(move || {
                    let mut client = Client::connect(address);
                    for round in 0..4 {
                        let name = format!("{flush}-{maker}-{round}");
                        about_to_make.send(name.clone()).unwrap();
                        match (maker + round) % 2 {
                            0 => client.create_topic(&name, PARTITIONS as i32, &[]),
                            _ => assert_eq!(asked(&mut client, 12, &name, true), ("NONE", PARTITIONS)),
                        }
                    }
                });
                scope.spawn(move || {
                    for name in to_be_made {
                        assert_eq!(append_once_led(address, &name), ["NONE"; PARTITIONS], "{name}");
                    }
                });
            }
        });
    }
}

#[test]
fn deletion_can_be_turned_off() {
    let server = Server::start(&["--topic", "t:1", "--set", "delete.topic.enable=false"]);
    let mut client = server.client();
    assert_eq!(delete(&mut client, &[(Some("t"), Uuid::ZERO)]), ["TOPIC_DELETION_DISABLED"]);
    let old = DeleteTopicsRequest { topic_names: vec!["t".into()], timeout_ms: 30_000, ..Default::default() };
    assert_eq!(named(client.call::<DeleteTopics>(2, &old).responses[0].error_code), "INVALID_REQUEST");
    assert_eq!(names(&mut client), ["t"]);
}

#[test]
fn a_topic_made_again_under_live_clients_is_another_topic() {
    let mut server = Server::start(&["--topic", "t:2"]);
    let (mut admin, mut client) = (server.client(), server.client());
    for round in 0..5 {
        let before = client.describe("t");
        client.append("t", [round]);
        let mut by_id = fetch_request("", 0, 0);
        by_id.topics[0].topic_id = before.topic_id;
        assert_eq!(client.fetch_at(13, &by_id).error_code, 0);
        admin.delete_topic("t");
        assert_eq!(named(client.describe("t").error_code), "UNKNOWN_TOPIC_OR_PARTITION");
        let lost = client.produce("t", 0, numbered(["x"]).build());
        assert_eq!(named(lost.error_code), "UNKNOWN_TOPIC_OR_PARTITION");
        admin.create_topic("t", 2, &[]);

        let after = client.describe("t");
        assert_ne!(after.topic_id, before.topic_id);
        assert_eq!(after.partitions[0].leader_epoch, 0);
        assert_eq!(named(client.fetch_at(13, &by_id).error_code), "UNKNOWN_TOPIC_ID");
        assert_eq!(client.fetch("t", 0, 0).high_watermark, 0);
        let mut stale = produce_request("", 0, numbered(["x"]).build());
        stale.topic_data[0].topic_id = before.topic_id;
        assert_eq!(named(client.produce_at(13, &stale).error_code), "UNKNOWN_TOPIC_ID");
    }
    client.append("t", ["last"]);
    server.kill();
    server.restart();
    assert_eq!(values_of(&server.client().read_all("t", 0)), ["last"]);
}

/// What Metadata says of a topic that it may make: its code and partitions.
fn asked(client: &mut Client, version: i16, name: &str, allow: bool) -> (&'static str, usize) {
    let topic = MetadataTopic { name: Some(name.into()), ..Default::default() };
    let request =
        MetadataRequest { topics: Some(vec![topic]), allow_auto_topic_creation: allow, ..Default::default() };
    let topic = client.call::<Metadata>(version, &request).topics.remove(0);
    (named(topic.error_code), topic.partitions.len())
}

#[test]
fn a_topic_is_made_by_asking_unless_client_or_config_object() {
    let server = Server::start(&["--set", "num.partitions=2"]);
    let mut client = server.client();
    assert_eq!(asked(&mut client, 12, "no", false), ("UNKNOWN_TOPIC_OR_PARTITION", 0));
    assert_eq!(asked(&mut client, 12, "yes", true), ("NONE", 2));
    // Before version 4 there was no asking for less.
    assert_eq!(asked(&mut client, 3, "old", false), ("NONE", 2));
    assert_eq!(asked(&mut client, 12, "no/name", true), ("INVALID_TOPIC_EXCEPTION", 0));
    assert_eq!(asked(&mut client, 12, "__consumer_offsets", true), ("UNKNOWN_TOPIC_OR_PARTITION", 0));
    assert_eq!(names(&mut client), ["old", "yes"]);

    let server = Server::start(&["--set", "auto.create.topics.enable=false"]);
    let mut client = server.client();
    assert_eq!(asked(&mut client, 12, "no", true), ("UNKNOWN_TOPIC_OR_PARTITION", 0));
    assert_eq!(client.produce("no", 0, numbered(["x"]).build()).error_code, 3);
    assert_eq!(names(&mut client), [""; 0]);
}

/// The partitions of a page, as topic and index, and where the next begins.
type Page = (Vec<(String, i32)>, Option<(String, i32)>);

fn page(client: &mut Client, topics: &[&str], limit: i32, cursor: Option<(String, i32)>) -> Page {
    let request = DescribeTopicPartitionsRequest {
        topics: topics.iter().map(|name| DescribeTopicPartitionsTopic { name: (*name).into() }).collect(),
        response_partition_limit: limit,
        cursor: cursor.map(|(topic_name, partition_index)| DescribeTopicPartitionsCursor {
            topic_name: topic_name.into(),
            partition_index,
        }),
    };
    let answer = client.call::<DescribeTopicPartitions>(0, &request);
    let mut found = Vec::new();
    for topic in &answer.topics {
        let name = topic.name.as_deref().unwrap();
        assert_eq!(topic.error_code, 0, "{name}");
        found.extend(topic.partitions.iter().map(|partition| (name.to_owned(), partition.partition_index)));
    }
    (found, answer.next_cursor.map(|next| (next.topic_name.to_string(), next.partition_index)))
}

#[test]
fn pages_of_partitions_join_to_all_of_them() {
    let server = Server::start(&["--topic", "c:4", "--topic", "a:3", "--topic", "b:1"]);
    let mut client = server.client();
    let all: Vec<_> = [("a", 3), ("b", 1), ("c", 4)]
        .into_iter()
        .flat_map(|(name, count)| (0..count).map(move |index| (name.to_owned(), index)))
        .collect();
    assert_eq!(page(&mut client, &[], 2_000, None), (all.clone(), None));
    for limit in 1..=8 {
        let (mut joined, mut cursor) = (Vec::new(), None);
        loop {
            let (found, next) = page(&mut client, &[], limit, cursor);
            assert!(found.len() <= limit as usize);
            joined.extend(found);
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(joined, all, "limit {limit}");
    }
    let named = page(&mut client, &["c", "a"], 4, None);
    assert_eq!(
        named,
        (vec![all[0].clone(), all[1].clone(), all[2].clone(), all[4].clone()], Some(("c".to_owned(), 1)))
    );
    // Nothing and less ask for the least page there is.
    assert_eq!(page(&mut client, &[], 0, None).0.len(), 1);
}

#[test]
fn the_config_limits_a_page_of_partitions() {
    let server = Server::start(&["--topic", "t:5", "--set", "max.request.partition.size.limit=2"]);
    let (found, next) = page(&mut server.client(), &[], 2_000, None);
    assert_eq!((found.len(), next), (2, Some(("t".to_owned(), 2))));
}

#[test]
fn topics_that_are_not_there_are_described_as_such() {
    let server = Server::start(&["--topic", "t:1"]);
    let request = DescribeTopicPartitionsRequest {
        topics: ["nowhere", "t", "no/name"]
            .map(|name| DescribeTopicPartitionsTopic { name: name.into() })
            .to_vec(),
        ..Default::default()
    };
    let answer = server.client().call::<DescribeTopicPartitions>(0, &request);
    let codes: Vec<_> = answer.topics.iter().map(|topic| named(topic.error_code)).collect();
    assert_eq!(codes, ["INVALID_TOPIC_EXCEPTION", "UNKNOWN_TOPIC_OR_PARTITION", "NONE"]);
}

#[test]
fn a_topic_of_the_command_line_is_made_or_widened_and_otherwise_left_alone() {
    let mut server = Server::start(&["--topic", "t:2:retention.ms=1000"]);
    server.client().append("t", ["a"]);
    server.stop();
    server.restart_with(&["--topic", "t:3:retention.ms=1000"]);
    let mut client = server.client();
    assert_eq!(client.describe("t").partitions.len(), 3);
    assert_eq!(values_of(&client.read_all("t", 0)), ["a"]);
    assert!(!server.log().contains("left as it is"));
    server.stop();
    server.restart_with(&["--topic", "t:1:retention.ms=2000"]);
    assert_eq!(server.client().describe("t").partitions.len(), 3);
    server.wait_for_log("the topic exists and is left as it is");
}

#[test]
fn a_thousand_topics_are_all_there_after_a_kill() {
    let mut server = Server::start(&["--flush", "os"]);
    let mut client = server.client();
    let topics = (0..1_000).map(|number| topic(&format!("t{number:04}"), 1)).collect();
    assert!(create(&mut client, topics).iter().all(|(_, code)| *code == "NONE"));
    let before = names(&mut client);
    assert_eq!(before.len(), 1_000);
    server.kill();
    server.restart();
    let mut client = server.client();
    assert_eq!(names(&mut client), before);
    let topics = before.iter().flat_map(|name| fetch_request(name, 0, 0).topics).collect();
    let answer = client.call::<Fetch>(12, &FetchRequest { topics, ..fetch_request("", 0, 0) });
    assert_eq!(answer.responses.len(), 1_000);
    assert!(answer.responses.iter().all(|topic| topic.partitions[0].error_code == 0));
}
