//! DescribeConfigs, IncrementalAlterConfigs and AlterConfigs of topics and of the broker.
#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use ottla::protocol::messages::alter_configs::{AlterConfigsRequest, AlterConfigsResource, AlterableConfig};
use ottla::protocol::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResult, DescribedConfig,
};
use ottla::protocol::messages::incremental_alter_configs::{
    IncrementalAlterConfig, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResource,
};
use ottla::protocol::messages::{AlterConfigs, DescribeConfigs, IncrementalAlterConfigs};
use ottla::protocol::wire::Str;

use running::{Client, Server, named, numbered};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Where a value is from.
const OF_TOPIC: i8 = 1;
const OF_BROKER: i8 = 2;
const OF_ALL_BROKERS: i8 = 3;
const OF_FILE_OR_FLAG: i8 = 4;
const BY_DEFAULT: i8 = 5;

fn describe(client: &mut Client, kind: i8, name: &str, keys: Option<&[&str]>) -> DescribeConfigsResult {
    let resource = DescribeConfigsResource {
        resource_type: kind,
        resource_name: name.into(),
        configuration_keys: keys.map(|keys| keys.iter().map(|key| Str::from(*key)).collect()),
    };
    let request = DescribeConfigsRequest {
        resources: vec![resource],
        include_synonyms: true,
        include_documentation: false,
    };
    client.call::<DescribeConfigs>(4, &request).results.remove(0)
}

fn described(client: &mut Client, kind: i8, name: &str, key: &str) -> DescribedConfig {
    let mut result = describe(client, kind, name, Some(&[key]));
    assert_eq!((result.error_code, result.configs.len()), (0, 1), "{key}");
    result.configs.remove(0)
}

/// Value and source of a topic's config.
fn of_topic(client: &mut Client, topic: &str, key: &str) -> (String, i8) {
    let config = described(client, TOPIC, topic, key);
    (config.value.unwrap().to_string(), config.config_source)
}

type Op<'a> = (&'a str, i8, Option<&'a str>);

fn resource(kind: i8, name: &str, ops: &[Op<'_>]) -> IncrementalAlterConfigsResource {
    let op = |(name, operation, value): &Op<'_>| IncrementalAlterConfig {
        name: (*name).into(),
        config_operation: *operation,
        value: value.map(Str::from),
    };
    IncrementalAlterConfigsResource {
        resource_type: kind,
        resource_name: name.into(),
        configs: ops.iter().map(op).collect(),
    }
}

fn alter_all(
    client: &mut Client,
    resources: Vec<IncrementalAlterConfigsResource>,
    validate_only: bool,
) -> Vec<&'static str> {
    let request = IncrementalAlterConfigsRequest { resources, validate_only };
    let answer = client.call::<IncrementalAlterConfigs>(1, &request);
    answer.responses.iter().map(|response| named(response.error_code)).collect()
}

fn alter(client: &mut Client, kind: i8, name: &str, ops: &[Op<'_>]) -> &'static str {
    alter_all(client, vec![resource(kind, name, ops)], false)[0]
}

fn replace(
    client: &mut Client,
    topic: &str,
    configs: &[(&str, Option<&str>)],
    validate_only: bool,
) -> &'static str {
    let config = |(name, value): &(&str, Option<&str>)| AlterableConfig {
        name: (*name).into(),
        value: value.map(Str::from),
    };
    let resource = AlterConfigsResource {
        resource_type: TOPIC,
        resource_name: topic.into(),
        configs: configs.iter().map(config).collect(),
    };
    let request = AlterConfigsRequest { resources: vec![resource], validate_only };
    named(client.call::<AlterConfigs>(2, &request).responses[0].error_code)
}

#[test]
fn a_topic_has_all_its_configs_or_those_asked_for() {
    let server = Server::start(&["--topic", "t:1:retention.ms=1000", "--set", "log.segment.bytes=2000000"]);
    let mut client = server.client();
    let all = describe(&mut client, TOPIC, "t", None).configs;
    assert!(all.len() > 20, "{}", all.len());
    assert_eq!(describe(&mut client, TOPIC, "t", Some(&[])).configs.len(), all.len());
    assert!(all.iter().all(|config| !config.read_only && config.documentation.is_none()));
    assert_eq!(of_topic(&mut client, "t", "retention.ms"), ("1000".to_owned(), OF_TOPIC));
    assert_eq!(of_topic(&mut client, "t", "segment.bytes"), ("2000000".to_owned(), OF_FILE_OR_FLAG));
    assert_eq!(of_topic(&mut client, "t", "cleanup.policy"), ("delete".to_owned(), BY_DEFAULT));
    let synonyms = described(&mut client, TOPIC, "t", "segment.bytes").synonyms;
    let sources: Vec<_> = synonyms.iter().map(|synonym| (&*synonym.name, synonym.source)).collect();
    assert_eq!(sources, [("log.segment.bytes", OF_FILE_OR_FLAG), ("log.segment.bytes", BY_DEFAULT)]);
    assert!(describe(&mut client, TOPIC, "t", Some(&["no.such"])).configs.is_empty());
}

#[test]
fn what_cannot_be_described_has_its_code() {
    let server = Server::start(&[]);
    let mut client = server.client();
    for (kind, name, expected) in [
        (TOPIC, "nowhere", "UNKNOWN_TOPIC_OR_PARTITION"),
        (TOPIC, "no/name", "INVALID_TOPIC_EXCEPTION"),
        (BROKER, "7", "INVALID_REQUEST"),
        (BROKER, "one", "INVALID_REQUEST"),
        (99, "t", "INVALID_REQUEST"),
        (BROKER, "1", "NONE"),
        (BROKER, "", "NONE"),
    ] {
        let result = describe(&mut client, kind, name, None);
        assert_eq!(named(result.error_code), expected, "{kind} {name:?}");
        assert_eq!(result.error_message.is_some(), expected != "NONE");
    }
}

#[test]
fn the_four_operations_do_what_they_say_and_last() {
    let mut server = Server::start(&["--topic", "t:1"]);
    let mut client = server.client();
    let policy = |client: &mut Client| of_topic(client, "t", "cleanup.policy").0;
    assert_eq!(alter(&mut client, TOPIC, "t", &[("retention.ms", SET, Some("5"))]), "NONE");
    assert_eq!(alter(&mut client, TOPIC, "t", &[("cleanup.policy", APPEND, Some("compact"))]), "NONE");
    assert_eq!(policy(&mut client), "delete,compact");
    assert_eq!(alter(&mut client, TOPIC, "t", &[("cleanup.policy", APPEND, Some("compact"))]), "NONE");
    assert_eq!(policy(&mut client), "delete,compact");
    assert_eq!(alter(&mut client, TOPIC, "t", &[("cleanup.policy", SUBTRACT, Some("delete"))]), "NONE");
    for _ in 0..2 {
        assert_eq!(policy(&mut client), "compact");
        assert_eq!(of_topic(&mut client, "t", "retention.ms"), ("5".to_owned(), OF_TOPIC));
        server.kill();
        server.restart();
        client = server.client();
    }
    assert_eq!(alter(&mut client, TOPIC, "t", &[("retention.ms", DELETE, None)]), "NONE");
    assert_eq!(of_topic(&mut client, "t", "retention.ms"), ("604800000".to_owned(), BY_DEFAULT));
}

#[test]
fn each_fault_of_a_change_has_its_code_and_changes_nothing() {
    let server = Server::start(&["--topic", "t:1"]);
    let mut client = server.client();
    let long = "9".repeat(32_768);
    let checks: &[(&str, &[Op<'_>], &str)] = &[
        ("nowhere", &[("retention.ms", SET, Some("1"))], "UNKNOWN_TOPIC_OR_PARTITION"),
        ("t", &[("no.such", SET, Some("1"))], "INVALID_CONFIG"),
        ("t", &[("retention.ms", SET, Some("soon"))], "INVALID_CONFIG"),
        ("t", &[("retention.ms", SET, Some("-2"))], "INVALID_CONFIG"),
        ("t", &[("retention.ms", SET, Some(&long))], "INVALID_CONFIG"),
        ("t", &[("retention.ms", SET, None)], "INVALID_REQUEST"),
        ("t", &[("retention.ms", APPEND, Some("1"))], "INVALID_CONFIG"),
        ("t", &[("retention.ms", SUBTRACT, Some("1"))], "INVALID_CONFIG"),
        ("t", &[("retention.ms", 4, Some("1"))], "INVALID_REQUEST"),
        ("t", &[("retention.ms", SET, Some("1")), ("retention.ms", SET, Some("2"))], "INVALID_REQUEST"),
        // All or nothing.
        ("t", &[("retention.ms", SET, Some("1")), ("segment.bytes", SET, Some("1"))], "INVALID_CONFIG"),
        // Only the whole shows that the parts do not fit.
        (
            "t",
            &[("min.compaction.lag.ms", SET, Some("2")), ("max.compaction.lag.ms", SET, Some("1"))],
            "INVALID_CONFIG",
        ),
    ];
    for (topic, ops, expected) in checks {
        assert_eq!(alter(&mut client, TOPIC, topic, ops), *expected, "{topic} {ops:.200?}");
    }
    let own = describe(&mut client, TOPIC, "t", None).configs;
    assert!(own.iter().all(|config| config.config_source == BY_DEFAULT));
}

#[test]
fn a_resource_named_twice_is_refused_both_times_and_others_are_not() {
    let server = Server::start(&["--topic", "a:1", "--topic", "b:1"]);
    let mut client = server.client();
    let op = [("retention.ms", SET, Some("1"))];
    let resources = vec![resource(TOPIC, "a", &op), resource(TOPIC, "b", &op), resource(TOPIC, "a", &op)];
    assert_eq!(alter_all(&mut client, resources, false), ["INVALID_REQUEST", "NONE", "INVALID_REQUEST"]);
    assert_eq!(of_topic(&mut client, "a", "retention.ms").1, BY_DEFAULT);
    assert_eq!(of_topic(&mut client, "b", "retention.ms").1, OF_TOPIC);
}

#[test]
fn validating_only_changes_nothing() {
    let server = Server::start(&["--topic", "t:1"]);
    let mut client = server.client();
    let resources = |value| vec![resource(TOPIC, "t", &[("retention.ms", SET, Some(value))])];
    assert_eq!(alter_all(&mut client, resources("1"), true), ["NONE"]);
    assert_eq!(alter_all(&mut client, resources("-2"), true), ["INVALID_CONFIG"]);
    assert_eq!(replace(&mut client, "t", &[("retention.ms", Some("1"))], true), "NONE");
    assert_eq!(of_topic(&mut client, "t", "retention.ms").1, BY_DEFAULT);
}

#[test]
fn alter_configs_replaces_all_of_a_topics_own() {
    let server = Server::start(&["--topic", "t:1:retention.ms=1000"]);
    let mut client = server.client();
    assert_eq!(replace(&mut client, "t", &[("segment.ms", Some("5000"))], false), "NONE");
    assert_eq!(of_topic(&mut client, "t", "segment.ms"), ("5000".to_owned(), OF_TOPIC));
    assert_eq!(of_topic(&mut client, "t", "retention.ms").1, BY_DEFAULT);
    for (configs, expected) in [
        (&[("segment.ms", None)][..], "INVALID_REQUEST"),
        (&[("segment.ms", Some("1")), ("segment.ms", Some("2"))], "INVALID_REQUEST"),
        (&[("no.such", Some("1"))], "INVALID_CONFIG"),
    ] {
        assert_eq!(replace(&mut client, "t", configs, false), expected, "{configs:?}");
    }
    assert_eq!(replace(&mut client, "nowhere", &[], false), "UNKNOWN_TOPIC_OR_PARTITION");
    assert_eq!(of_topic(&mut client, "t", "segment.ms"), ("5000".to_owned(), OF_TOPIC));
    assert_eq!(replace(&mut client, "t", &[], false), "NONE");
    assert_eq!(of_topic(&mut client, "t", "segment.ms").1, BY_DEFAULT);
}

#[test]
fn topics_inherit_what_the_broker_is_told_at_run_time() {
    let mut server = Server::start(&["--topic", "t:1"]);
    let mut client = server.client();
    let key = "message.max.bytes";
    assert_eq!(alter(&mut client, BROKER, "", &[(key, SET, Some("2000"))]), "NONE");
    let at = |client: &mut Client| of_topic(client, "t", "max.message.bytes");
    assert_eq!(at(&mut client), ("2000".to_owned(), OF_ALL_BROKERS));
    assert_eq!(alter(&mut client, BROKER, "1", &[(key, SET, Some("1000"))]), "NONE");
    let batch = numbered(["x".repeat(1_000)]).build();
    for _ in 0..2 {
        assert_eq!(at(&mut client), ("1000".to_owned(), OF_BROKER));
        assert_eq!(named(client.produce("t", 0, batch.clone()).error_code), "MESSAGE_TOO_LARGE");
        server.kill();
        server.restart();
        client = server.client();
    }
    assert_eq!(alter(&mut client, BROKER, "1", &[(key, DELETE, None)]), "NONE");
    assert_eq!(named(client.produce("t", 0, batch).error_code), "NONE");
}

#[test]
fn what_is_fixed_at_start_cannot_be_changed() {
    let server = Server::start(&[]);
    let mut client = server.client();
    assert!(described(&mut client, BROKER, "1", "log.dir").read_only);
    for (name, op, expected) in [
        ("1", ("log.dir", SET, Some("/elsewhere")), "INVALID_REQUEST"),
        ("", ("log.dir", SET, Some("/elsewhere")), "INVALID_REQUEST"),
        ("7", ("message.max.bytes", SET, Some("1000")), "INVALID_REQUEST"),
        ("1", ("message.max.bytes", SET, Some("-1")), "INVALID_CONFIG"),
    ] {
        assert_eq!(alter(&mut client, BROKER, name, &[op]), expected, "{name:?} {op:?}");
    }
}

#[test]
fn a_changed_config_counts_from_the_next_batch_on() {
    let server = Server::start(&["--topic", "t:1"]);
    let mut client = server.client();
    client.append("t", ["a"]);
    assert_eq!(
        alter(&mut client, TOPIC, "t", &[("message.timestamp.type", SET, Some("LogAppendTime"))]),
        "NONE"
    );
    assert_ne!(client.produce("t", 0, numbered(["b"]).build()).log_append_time_ms, -1);
    assert_eq!(alter(&mut client, TOPIC, "t", &[("max.message.bytes", SET, Some("10"))]), "NONE");
    assert_eq!(named(client.produce("t", 0, numbered(["c"]).build()).error_code), "MESSAGE_TOO_LARGE");
}
