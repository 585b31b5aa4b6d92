//! Queues as admin clients see them: topics with configs of their own, made by stock clients, flags and tools, and kept over
//! the death of the broker.
#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigSource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;

use ottla::protocol::messages::IncrementalAlterConfigs;
use ottla::protocol::messages::incremental_alter_configs::{
    IncrementalAlterConfig, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResource,
};
use ottla::protocol::wire::Str;

use running::stock::{config, configure};
use running::{Server, named};

/// IncrementalAlterConfigs' operations.
const SET: i8 = 0;
const DELETE: i8 = 1;

fn admin(server: &Server) -> AdminClient<DefaultClientContext> {
    config(server, &[]).create().unwrap()
}

fn wait<T>(answer: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(answer)
}

/// Makes a topic as librdkafka's admin client does.
fn create(server: &Server, name: &str, configs: &[(&str, &str)]) -> Result<(), RDKafkaErrorCode> {
    let topic = NewTopic::new(name, 1, TopicReplication::Fixed(1));
    let topic = configs.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
    let answer = wait(admin(server).create_topics([&topic], &AdminOptions::new()));
    answer.unwrap().remove(0).map(drop).map_err(|(_, code)| code)
}

/// Value and source of a topic's config, as librdkafka's admin client reads them; `None` if it is not described.
fn setting(server: &Server, topic: &str, name: &str) -> Option<(String, ConfigSource)> {
    let resource = ResourceSpecifier::Topic(topic);
    let answer = wait(admin(server).describe_configs([&resource], &AdminOptions::new()));
    let described = answer.unwrap().remove(0).unwrap();
    let entry = described.entries.into_iter().find(|entry| entry.name == name)?;
    Some((entry.value.unwrap(), entry.source))
}

/// Changes configs one by one; code and message of the refusal.
fn alter(server: &Server, topic: &str, ops: &[(&str, Option<&str>)]) -> Result<(), (&'static str, String)> {
    let op = |(name, value): &(&str, Option<&str>)| IncrementalAlterConfig {
        name: (*name).into(),
        config_operation: if value.is_some() { SET } else { DELETE },
        value: value.map(Str::from),
    };
    let resource = IncrementalAlterConfigsResource {
        resource_type: 2,
        resource_name: topic.into(),
        configs: ops.iter().map(op).collect(),
    };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    let answer = server.client().call::<IncrementalAlterConfigs>(1, &request).responses.remove(0);
    match answer.error_code {
        0 => Ok(()),
        code => Err((named(code), answer.error_message.unwrap_or_default().to_string())),
    }
}

fn set(value: &str) -> Option<(String, ConfigSource)> {
    Some((value.to_owned(), ConfigSource::DynamicTopic))
}

#[test]
fn a_queue_is_made_described_and_altered_by_a_stock_admin_client_and_outlives_a_kill() {
    let mut server = Server::start(&[]);
    create(&server, "jobs", &[("ottla.queue.enable", "true"), ("ottla.queue.delay.ms", "5")]).unwrap();
    create(&server, "plain", &[]).unwrap();
    let default = |value: &str| Some((value.to_owned(), ConfigSource::Default));
    assert_eq!(setting(&server, "jobs", "ottla.queue.delay.ms"), set("5"));
    assert_eq!(setting(&server, "jobs", "ottla.queue.visibility.timeout.ms"), default("30000"));
    // A topic that is no queue only says that.
    assert_eq!(setting(&server, "plain", "ottla.queue.enable"), default("false"));
    assert_eq!(setting(&server, "plain", "ottla.queue.delay.ms"), None);

    let changes = [("ottla.queue.delay.ms", None), ("ottla.queue.fifo", Some("true"))];
    assert_eq!(alter(&server, "jobs", &changes), Ok(()));
    server.restart();
    assert_eq!(setting(&server, "jobs", "ottla.queue.delay.ms"), default("0"));
    assert_eq!(setting(&server, "jobs", "ottla.queue.fifo"), set("true"));
    configure(&server, "jobs", &[("ottla.queue.enable", "true"), ("ottla.queue.priorities", "3")]);
    assert_eq!(setting(&server, "jobs", "ottla.queue.priorities"), set("3"));
    assert_eq!(setting(&server, "jobs", "ottla.queue.fifo"), default("false"));
    configure(&server, "plain", &[("ottla.queue.enable", "true")]);
    assert_eq!(setting(&server, "plain", "ottla.queue.fifo"), default("false"));
}

#[test]
fn settings_that_a_queue_cannot_have_are_refused_in_kafkas_words_and_change_nothing() {
    let server = Server::start(&["--queue", "jobs:dead.letter.queue=dead", "--queue", "dead"]);
    let refused = |topic: &str, ops: &[(&str, Option<&str>)]| alter(&server, topic, ops).unwrap_err();
    for (topic, name, value, message) in [
        (
            "jobs",
            "ottla.queue.visibility.timeout.ms",
            "43200001",
            "Invalid value 43200001 for configuration ottla.queue.visibility.timeout.ms: Value must be no more than 43200000",
        ),
        (
            "jobs",
            "ottla.queue.overflow",
            "explode",
            "Invalid value explode for configuration ottla.queue.overflow: String must be one of: reject, drop-oldest, dead-letter-oldest",
        ),
        (
            "jobs",
            "ottla.queue.delay",
            "1",
            "Unknown topic config name: ottla.queue.delay (did you mean ottla.queue.delay.ms?)",
        ),
        ("jobs", "ottla.queue.dead.letter.queue", "jobs", "Dead letters would go round: jobs -> jobs"),
        (
            "dead",
            "ottla.queue.dead.letter.queue",
            "jobs",
            "Dead letters would go round: dead -> jobs -> dead",
        ),
        (
            "jobs",
            "retention.ms",
            "-1000",
            "Invalid value -1000 for configuration retention.ms: Value must be at least -1",
        ),
        (
            "jobs",
            "ottla.queue.enable",
            "false",
            "ottla.queue.dead.letter.queue needs ottla.queue.enable=true",
        ),
    ] {
        let ops = [(name, Some(value)), ("ottla.queue.receive.wait.ms", Some("7"))];
        assert_eq!(refused(topic, &ops[..]), ("INVALID_CONFIG", message.to_owned()));
    }
    let both = [("ottla.queue.delay.ms", Some("2000")), ("retention.ms", Some("1000"))];
    let conflict = "conflict topic config setting ottla.queue.delay.ms (2000) > retention.ms (1000)";
    assert_eq!(refused("jobs", &both), ("INVALID_CONFIG", conflict.to_owned()));
    let wait_ms = setting(&server, "jobs", "ottla.queue.receive.wait.ms");
    assert_eq!(wait_ms, Some(("0".to_owned(), ConfigSource::Default)));

    use RDKafkaErrorCode::InvalidConfig;
    let enable = ("ottla.queue.enable", "true");
    assert_eq!(create(&server, "bad", &[("ottla.queue.delay.ms", "5")]), Err(InvalidConfig));
    assert_eq!(create(&server, "bad", &[enable, ("cleanup.policy", "compact")]), Err(InvalidConfig));
    assert_eq!(
        create(&server, "bad", &[enable, ("ottla.queue.dead.letter.queue", "bad")]),
        Err(InvalidConfig)
    );
    assert_eq!(create(&server, "good", &[enable, ("ottla.queue.dead.letter.queue", "dead")]), Ok(()));
    // Who replaces all configs and leaves out what makes it a queue is refused; rdkafka does not tell, but it shows.
    let wanted = AlterConfig::new(ResourceSpecifier::Topic("good")).set("ottla.queue.fifo", "true");
    wait(admin(&server).alter_configs([&wanted], &AdminOptions::new())).unwrap();
    assert_eq!(setting(&server, "good", "ottla.queue.dead.letter.queue"), set("dead"));
}

#[test]
fn queues_of_the_command_line_are_made_once_and_left_as_they_are() {
    let flags = ["--queue", "jobs:partitions=2:max.receive.count=3:dead.letter.queue=dead", "--topic", "t:1"];
    let mut server = Server::start(&flags);
    assert_eq!(setting(&server, "jobs", "ottla.queue.max.receive.count"), set("3"));
    assert_eq!(alter(&server, "jobs", &[("ottla.queue.max.receive.count", Some("9"))]), Ok(()));
    server.restart();
    assert_eq!(setting(&server, "jobs", "ottla.queue.max.receive.count"), set("9"));
    server.wait_for_log("the topic exists and is left as it is");
    let consumer: rdkafka::consumer::BaseConsumer = config(&server, &[]).create().unwrap();
    let partitions = |topic: &str| {
        use rdkafka::consumer::Consumer;
        consumer.fetch_metadata(Some(topic), running::PATIENCE).unwrap().topics()[0].partitions().len()
    };
    assert_eq!((partitions("jobs"), partitions("t")), (2, 1));
    // Without a number it keeps those that it has.
    server.restart_with(&["--queue", "jobs", "--queue", "more"]);
    assert_eq!(setting(&server, "more", "ottla.queue.enable"), set("true"));
    assert_eq!((partitions("jobs"), partitions("more")), (2, 1));
}
