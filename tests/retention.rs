//! Retention through a stock client: what goes, what stays, and what clients are told, over kills and changes of configs.
#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use std::fs;

use rdkafka::Message;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use running::stock::{Sender, config, configure, configure_broker, consumer_at, next, watermarks};
use running::{Server, eventually, now_ms};

const HOUR_MS: i64 = 3_600_000;

/// Looks for what goes all the time, and removes files at once.
fn server(more: &[&str]) -> Server {
    let eager = [
        "--set",
        "log.retention.check.interval.ms=20",
        "--set",
        "log.initial.task.delay.ms=0",
        "--set",
        "log.segment.delete.delay.ms=0",
    ];
    Server::start(&[&eager, more].concat())
}

/// The files of partition 0 that end so, by name.
fn files(server: &Server, topic: &str, suffix: &str) -> Vec<String> {
    let entries = fs::read_dir(server.data().join(format!("{topic}-0"))).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.ends_with(suffix));
    names.sort();
    names
}

fn wait_for_watermarks(server: &Server, topic: &str, expected: (i64, i64)) {
    eventually(&format!("{topic} is {expected:?}"), || (watermarks(server, topic) == expected).then_some(()));
}

/// Records an hour old, each a segment of its own, and then one of now.
fn fill(server: &Server, topic: &str, old: i64) {
    let sender = Sender::to(server, &[]);
    for number in 0..old {
        let at = now_ms() - HOUR_MS + number * 1000;
        assert_eq!(sender.send(topic, at, Some("key"), b"old"), Ok(number));
    }
    assert_eq!(sender.send(topic, now_ms(), Some("key"), b"new"), Ok(old));
}

fn delete_records(server: &Server, topic: &str, before: Offset) -> Result<(), RDKafkaErrorCode> {
    let admin: AdminClient<DefaultClientContext> = config(server, &[]).create().unwrap();
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition_offset(topic, 0, before).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let answer = runtime.block_on(admin.delete_records(&wanted, &AdminOptions::new())).unwrap();
    match answer.elements()[0].error() {
        Ok(()) => Ok(()),
        Err(error) => Err(error.rdkafka_error_code().unwrap()),
    }
}

#[test]
fn old_records_go_when_their_topic_says_so_and_stay_away() {
    let mut server = server(&["--topic", "t:1:segment.ms=1"]);
    fill(&server, "t", 5);
    assert_eq!(watermarks(&server, "t"), (0, 6), "a week is the default");
    assert_eq!(files(&server, "t", ".log").len(), 6);
    let behind = consumer_at(&server, "t", 0);
    assert_eq!(next(&behind).unwrap().offset(), 0);
    configure(&server, "t", &[("segment.ms", "1"), ("retention.ms", "60000")]);
    wait_for_watermarks(&server, "t", (5, 6));
    let late = consumer_at(&server, "t", 4);
    let told = next(&late).map(|message| message.offset());
    assert!(
        matches!(told, Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset))),
        "{told:?}"
    );
    eventually("files go", || {
        (files(&server, "t", ".log").len() == 1 && files(&server, "t", ".deleted").is_empty()).then_some(())
    });
    for offset in [6, 7] {
        server.restart();
        assert_eq!(watermarks(&server, "t"), (5, offset));
        assert_eq!(next(&consumer_at(&server, "t", 5)).unwrap().payload(), Some(&b"new"[..]));
        // The segment of the new record keeps what comes behind it, however old that is.
        assert_eq!(Sender::to(&server, &[]).send("t", now_ms() - HOUR_MS, None, b"old"), Ok(offset));
    }
}

#[test]
fn a_topic_is_kept_to_its_size() {
    let mut server = server(&["--topic", "t:1:segment.bytes=1048576"]);
    let sender = Sender::to(&server, &[]);
    let large = vec![7; 700 << 10];
    for offset in 0..6 {
        assert_eq!(sender.send("t", now_ms(), None, &large), Ok(offset));
    }
    let two = (1400 << 10).to_string();
    configure(&server, "t", &[("segment.bytes", "1048576"), ("retention.bytes", &two)]);
    // What is left is no smaller than the limit.
    wait_for_watermarks(&server, "t", (4, 6));
    server.restart();
    assert_eq!(Sender::to(&server, &[]).send("t", now_ms(), None, &large), Ok(6));
    wait_for_watermarks(&server, "t", (5, 7));
    eventually("only that is on the disk", || {
        let size =
            |name: &String| fs::metadata(server.data().join("t-0").join(name)).map_or(0, |file| file.len());
        let bytes: u64 = files(&server, "t", ".log").iter().map(size).sum();
        (1400 << 10..2100 << 10).contains(&bytes).then_some(())
    });
}

#[test]
fn a_topic_of_which_all_is_old_becomes_empty_and_goes_on_behind() {
    for flush in ["commit", "os"] {
        let mut server = server(&["--topic", "t:1", "--flush", flush]);
        let sender = Sender::to(&server, &[]);
        for offset in 0..3 {
            assert_eq!(sender.send("t", now_ms() - HOUR_MS, None, b"old"), Ok(offset));
        }
        configure(&server, "t", &[("retention.ms", "60000")]);
        wait_for_watermarks(&server, "t", (3, 3));
        server.restart();
        assert_eq!(watermarks(&server, "t"), (3, 3));
        assert_eq!(Sender::to(&server, &[]).send("t", now_ms(), None, b"new"), Ok(3));
        let message = consumer_at(&server, "t", 3);
        assert_eq!(next(&message).unwrap().payload(), Some(&b"new"[..]));
        server.restart();
        assert_eq!(watermarks(&server, "t"), (3, 4));
    }
}

#[test]
fn a_topic_that_nobody_uses_is_kept_to_its_limits_too() {
    let mut server = server(&["--topic", "t:1:segment.ms=1", "--topic", "idle:1"]);
    fill(&server, "t", 3);
    server.stop();
    server.restart();
    configure(&server, "t", &[("retention.ms", "60000")]);
    eventually("the files go", || (files(&server, "t", ".log").len() == 1).then_some(()));
    assert_eq!(watermarks(&server, "t"), (3, 4));
}

#[test]
fn the_policy_decides_and_topics_inherit_what_the_broker_is_told() {
    let mut server = server(&["--topic", "kept:1:segment.ms=1", "--topic", "t:1:segment.ms=1"]);
    configure(&server, "kept", &[("segment.ms", "1"), ("cleanup.policy", "compact")]);
    for topic in ["kept", "t"] {
        fill(&server, topic, 3);
    }
    configure_broker(&server, &[("log.retention.ms", "60000")]);
    wait_for_watermarks(&server, "t", (3, 4));
    assert_eq!(watermarks(&server, "kept"), (0, 4));
    server.restart();
    wait_for_watermarks(&server, "t", (3, 4));
    assert_eq!(watermarks(&server, "kept"), (0, 4));
    configure(&server, "kept", &[("segment.ms", "1"), ("cleanup.policy", "compact,delete")]);
    wait_for_watermarks(&server, "kept", (3, 4));
}

#[test]
fn records_are_deleted_under_every_policy_but_that_to_compact() {
    use RDKafkaErrorCode::{OffsetOutOfRange, PolicyViolation};
    let mut server = server(&["--topic", "t:1:segment.ms=1"]);
    fill(&server, "t", 5);
    for (policy, before, expected, start) in [
        ("compact", Offset::Offset(1), Err(PolicyViolation), 0),
        ("delete", Offset::Offset(1), Ok(()), 1),
        ("compact,delete", Offset::Offset(3), Ok(()), 3),
        ("", Offset::Offset(4), Ok(()), 4),
        ("delete", Offset::Offset(7), Err(OffsetOutOfRange), 4),
        ("delete", Offset::Offset(2), Ok(()), 4),
        ("delete", Offset::End, Ok(()), 6),
    ] {
        configure(&server, "t", &[("segment.ms", "1"), ("cleanup.policy", policy)]);
        assert_eq!(delete_records(&server, "t", before), expected, "{policy:?} {before:?}");
        assert_eq!(watermarks(&server, "t"), (start, 6));
        server.restart();
        assert_eq!(watermarks(&server, "t"), (start, 6), "{policy:?} {before:?}");
    }
    assert_eq!(Sender::to(&server, &[]).send("t", now_ms(), None, b"next"), Ok(6));
}
