//! Fetch, ListOffsets, OffsetForLeaderEpoch and DeleteRecords: what readers find, where, and when they are answered.
#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use std::fs::File;
use std::io::Write;

use ottla::protocol::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use ottla::protocol::messages::fetch::{FetchForgottenTopic, FetchRequest, FetchResponse};
use ottla::protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use ottla::protocol::messages::offset_for_leader_epoch::{
    EpochEndOffset, EpochPartition, EpochTopic, OffsetForLeaderEpochRequest,
};
use ottla::protocol::messages::{DeleteRecords, Fetch, ListOffsets, OffsetForLeaderEpoch};
use ottla::protocol::wire::Records;
use ottla::record::BatchBuilder;
use ottla::uuid::Uuid;

use running::{Client, Server, fetch_request, named, now_ms, numbered, records_of, values_of};

/// Last version that names topics by name.
const VERSION: i16 = 12;

/// Longer than any test waits for an answer.
const FOR_EVER_MS: i32 = 600_000;

fn with_topic(name: &str) -> (Server, Client) {
    let server = Server::start(&["--topic", &format!("{name}:1")]);
    let client = server.client();
    (server, client)
}

/// A fetch that waits.
fn waiting(topic: &str, offset: i64, min_bytes: i32) -> FetchRequest {
    FetchRequest { max_wait_ms: FOR_EVER_MS, min_bytes, ..fetch_request(topic, 0, offset) }
}

fn bytes_of(records: &Records) -> usize {
    records.size_bytes()
}

#[test]
fn every_version_finds_the_records() {
    let (_server, mut client) = with_topic("t");
    client.append("t", ["a", "b"]);
    let id = client.describe("t").topic_id;
    for version in 4..=18 {
        let mut request = fetch_request("t", 0, 1);
        request.topics[0].topic_id = id;
        let answer = client.fetch_at(version, &request);
        assert_eq!(values_of(&records_of(&answer)), ["a", "b"], "whole batches, version {version}");
        assert_eq!((answer.high_watermark, answer.last_stable_offset), (2, 2));
        assert_eq!(answer.log_start_offset, if version < 5 { -1 } else { 0 });
    }
}

#[test]
fn only_read_committed_gets_a_list_of_aborted_transactions() {
    let (_server, mut client) = with_topic("t");
    client.append("t", ["a"]);
    let mut request = fetch_request("t", 0, 0);
    assert_eq!(client.fetch_at(VERSION, &request).aborted_transactions, None);
    request.isolation_level = 1;
    let answer = client.fetch_at(VERSION, &request);
    assert_eq!(answer.aborted_transactions, Some(vec![]));
    assert_eq!(records_of(&answer).len(), 1);
}

#[test]
fn outside_the_log_is_out_of_range_and_its_end_is_not() {
    let (_server, mut client) = with_topic("t");
    client.append("t", 0..10);
    for (offset, expected) in [(-1, "OFFSET_OUT_OF_RANGE"), (10, "NONE"), (11, "OFFSET_OUT_OF_RANGE")] {
        let answer = client.fetch("t", 0, offset);
        assert_eq!((named(answer.error_code), bytes_of(&answer.records)), (expected, 0), "offset {offset}");
        let high_watermark = if expected == "NONE" { 10 } else { -1 };
        assert_eq!(answer.high_watermark, high_watermark, "offset {offset}");
    }
}

#[test]
fn what_is_not_there_is_told_partition_by_partition() {
    let (_server, mut client) = with_topic("t");
    client.append("t", ["a"]);
    let mut request = fetch_request("nowhere", 0, 0);
    request.topics.extend(fetch_request("t", 7, 0).topics);
    request.topics.extend(fetch_request("t", 0, 0).topics);
    // An error is no reason to wait.
    request.max_wait_ms = FOR_EVER_MS;
    request.min_bytes = 1 << 20;
    let answer = client.call::<Fetch>(VERSION, &request);
    let partitions: Vec<_> = answer.responses.iter().flat_map(|topic| &topic.partitions).collect();
    let codes: Vec<_> = partitions.iter().map(|partition| named(partition.error_code)).collect();
    assert_eq!(codes, ["UNKNOWN_TOPIC_OR_PARTITION", "UNKNOWN_TOPIC_OR_PARTITION", "NONE"]);
    assert_eq!(records_of(partitions[2]).len(), 1);
    let mut by_id = fetch_request("", 0, 0);
    by_id.topics[0].topic_id = Uuid::random();
    assert_eq!(named(client.fetch_at(13, &by_id).error_code), "UNKNOWN_TOPIC_ID");
}

#[test]
fn limits_of_bytes_hold_but_for_the_first_batch() {
    let server = Server::start(&["--topic", "t:2"]);
    let mut client = server.client();
    let batch = numbered(["x".repeat(1_000)]).build();
    for partition in [0, 0, 0, 1, 1] {
        assert_eq!(client.produce("t", partition, batch.clone()).error_code, 0);
    }
    let sizes = |client: &mut Client, max_bytes, partition_max_bytes| {
        let mut request = fetch_request("t", 0, 0);
        request.max_bytes = max_bytes;
        request.topics[0].partitions.extend(fetch_request("t", 1, 0).topics.remove(0).partitions);
        request.topics[0]
            .partitions
            .iter_mut()
            .for_each(|wanted| wanted.partition_max_bytes = partition_max_bytes);
        let answer = client.call::<Fetch>(VERSION, &request);
        answer.responses[0].partitions.iter().map(|answer| bytes_of(&answer.records)).collect::<Vec<_>>()
    };
    let one = batch.len();
    assert_eq!(sizes(&mut client, i32::MAX, i32::MAX), [3 * one, 2 * one]);
    // Not even one batch fits: the first comes whole, the next partition is left for later.
    assert_eq!(sizes(&mut client, 1, i32::MAX), [one, 0]);
    assert_eq!(sizes(&mut client, 0, 0), [one, 0]);
    let limited = sizes(&mut client, i32::MAX, one as i32 * 2);
    assert_eq!(limited, [2 * one, 2 * one]);
    assert!(sizes(&mut client, one as i32 * 3, i32::MAX).iter().sum::<usize>() <= 3 * one);
}

#[test]
fn a_parked_fetch_is_answered_when_a_record_arrives() {
    let (server, mut writer) = with_topic("t");
    let mut reader = server.client();
    for offset in 0..50 {
        reader.park(VERSION, &waiting("t", offset, 1));
        writer.append("t", [offset]);
        assert_eq!(values_of(&records_of(&reader.receive_fetch(VERSION))), [offset.to_string()]);
    }
}

#[test]
fn a_parked_fetch_waits_for_min_bytes() {
    let (server, mut writer) = with_topic("t");
    let mut reader = server.client();
    let batch = numbered(["x"]).build();
    reader.park(VERSION, &waiting("t", 0, 5 * batch.len() as i32));
    for _ in 0..5 {
        assert_eq!(writer.produce("t", 0, batch.clone()).error_code, 0);
    }
    assert_eq!(records_of(&reader.receive_fetch(VERSION)).len(), 5);
}

#[test]
fn a_fetch_that_has_waited_long_enough_is_answered_with_what_there_is() {
    let (_server, mut client) = with_topic("t");
    client.append("t", ["a"]);
    let short = FetchRequest { max_wait_ms: 20, ..waiting("t", 0, 1 << 20) };
    assert_eq!(values_of(&records_of(&client.fetch_at(VERSION, &short))), ["a"]);
    let at_end = FetchRequest { max_wait_ms: 20, ..waiting("t", 1, 1) };
    assert_eq!(bytes_of(&client.fetch_at(VERSION, &at_end).records), 0);
}

#[test]
fn a_parked_fetch_is_answered_when_its_topic_is_deleted() {
    let (server, mut other) = with_topic("t");
    let mut reader = server.client();
    reader.park(VERSION, &waiting("t", 0, 1));
    other.delete_topic("t");
    assert_eq!(named(reader.receive_fetch(VERSION).error_code), "UNKNOWN_TOPIC_OR_PARTITION");
}

#[test]
fn a_parked_fetch_is_answered_when_the_broker_stops() {
    let (mut server, mut other) = with_topic("t");
    other.append("t", ["a"]);
    let mut reader = server.client();
    reader.park(VERSION, &waiting("t", 0, 1 << 20));
    server.ask_to_stop();
    let answer = reader.receive_fetch(VERSION);
    assert_eq!((answer.error_code, values_of(&records_of(&answer))), (0, vec!["a".to_owned()]));
    assert!(reader.is_closed_unanswered());
    assert_eq!(server.wait().code(), Some(0));
}

/// A request of a session over partition 0 of `t`.
fn in_session(id: i32, epoch: i32, named: &[(&str, i64)]) -> FetchRequest {
    let topics = named.iter().flat_map(|(topic, offset)| fetch_request(topic, 0, *offset).topics).collect();
    FetchRequest { session_id: id, session_epoch: epoch, topics, ..fetch_request("", 0, 0) }
}

fn told(answer: &FetchResponse) -> Vec<(String, usize)> {
    let count = |topic: &ottla::protocol::messages::fetch::FetchTopicResponse| {
        (topic.topic.to_string(), topic.partitions.iter().map(|partition| records_of(partition).len()).sum())
    };
    answer.responses.iter().map(count).collect()
}

#[test]
fn a_session_hears_only_of_what_has_changed() {
    let server = Server::start(&["--topic", "a:1", "--topic", "b:1"]);
    let mut client = server.client();
    client.append("a", ["1"]);
    let opened = client.call::<Fetch>(VERSION, &in_session(0, 0, &[("a", 0), ("b", 0)]));
    let id = opened.session_id;
    assert_ne!(id, 0);
    assert_eq!(told(&opened), [("a".to_owned(), 1), ("b".to_owned(), 0)]);

    let mut next = |epoch, named: &[(&str, i64)]| {
        let answer = client.call::<Fetch>(VERSION, &in_session(id, epoch, named));
        (named_code(&answer), answer.session_id, told(&answer))
    };
    assert_eq!(next(1, &[("a", 1)]), ("NONE", id, vec![]));
    server.client().append("b", ["2"]);
    assert_eq!(next(2, &[]), ("NONE", id, vec![("b".to_owned(), 1)]));
    assert_eq!(next(3, &[("b", 1)]), ("NONE", id, vec![]));
    assert_eq!(next(3, &[]).0, "INVALID_FETCH_SESSION_EPOCH");
    assert_eq!(next(4, &[]).0, "NONE");
}

fn named_code(answer: &FetchResponse) -> &'static str {
    named(answer.error_code)
}

#[test]
fn a_session_forgets_what_it_is_told_to_and_ends_when_closed() {
    let server = Server::start(&["--topic", "a:1", "--topic", "b:1"]);
    let mut client = server.client();
    let id = client.call::<Fetch>(VERSION, &in_session(0, 0, &[("a", 0), ("b", 0)])).session_id;
    let forgotten = FetchForgottenTopic { topic: "a".into(), partitions: vec![0], ..Default::default() };
    let request = FetchRequest { forgotten_topics_data: vec![forgotten], ..in_session(id, 1, &[]) };
    assert_eq!(named_code(&client.call::<Fetch>(VERSION, &request)), "NONE");
    client.append("a", ["1"]);
    client.append("b", ["2"]);
    let answer = client.call::<Fetch>(VERSION, &in_session(id, 2, &[]));
    assert_eq!(told(&answer), [("b".to_owned(), 1)]);

    let closing = client.call::<Fetch>(VERSION, &in_session(id, -1, &[("a", 0)]));
    assert_eq!((closing.session_id, told(&closing)), (0, vec![("a".to_owned(), 1)]));
    let gone = client.call::<Fetch>(VERSION, &in_session(id, 3, &[]));
    assert_eq!(named_code(&gone), "FETCH_SESSION_ID_NOT_FOUND");
}

#[test]
fn without_slots_every_fetch_is_a_full_one() {
    let server = Server::start(&["--topic", "t:1", "--set", "max.incremental.fetch.session.cache.slots=0"]);
    let answer = server.client().call::<Fetch>(VERSION, &in_session(0, 0, &[("t", 0)]));
    assert_eq!((answer.session_id, answer.responses.len()), (0, 1));
}

#[test]
fn special_timestamps_belong_to_the_versions_that_know_them() {
    let (_server, mut client) = with_topic("t");
    let batch = BatchBuilder::new()
        .record(1_000, None, Some(b"a"))
        .record(3_000, None, Some(b"b"))
        .record(2_000, None, Some(b"c"))
        .build();
    assert_eq!(client.produce("t", 0, batch).error_code, 0);
    // Timestamp asked for, first version that may, timestamp and offset of the answer.
    for (asked, first_version, timestamp, offset) in [
        (-1, 1, -1, 3),
        (-2, 1, -1, 0),
        (-3, 7, 3_000, 1),
        (-4, 8, -1, 0),
        (-5, 9, -1, -1),
        (-6, 11, -1, -1),
        (0, 1, 1_000, 0),
        (1_001, 1, 3_000, 1),
        (3_001, 1, -1, -1),
    ] {
        for version in 1..=11 {
            let answer = client.offset_at(version, "t", asked);
            if version < first_version {
                assert_eq!(named(answer.error_code), "UNSUPPORTED_VERSION", "{asked} at version {version}");
            } else {
                let found = (answer.error_code, answer.timestamp, answer.offset);
                assert_eq!(found, (0, timestamp, offset), "{asked} at version {version}");
            }
        }
    }
    assert_eq!(named(client.offset_at(11, "t", -7).error_code), "UNSUPPORTED_VERSION");
    assert_eq!(named(client.offset_at(11, "nowhere", -1).error_code), "UNKNOWN_TOPIC_OR_PARTITION");
}

#[test]
fn a_partition_listed_twice_is_refused_the_second_time() {
    let (_server, mut client) = with_topic("t");
    let wanted = ListOffsetsPartition { timestamp: -1, ..Default::default() };
    let topic = ListOffsetsTopic { name: "t".into(), partitions: vec![wanted.clone(), wanted] };
    let request = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() };
    let answer = client.call::<ListOffsets>(7, &request);
    let codes: Vec<_> = answer.topics[0].partitions.iter().map(|answer| named(answer.error_code)).collect();
    assert!(codes.contains(&"INVALID_REQUEST"), "{codes:?}");
}

/// Has the system forget what it keeps of a partition's files in memory.
fn evict(server: &Server, partition: &str) {
    for entry in std::fs::read_dir(server.data().join(partition)).unwrap() {
        let file = File::open(entry.unwrap().path()).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
}

#[test]
fn a_log_that_is_not_in_memory_comes_from_the_disk() {
    let mut server = Server::start(&["--topic", "t:1", "--set", "log.segment.bytes=1048576"]);
    let mut client = server.client();
    let value = |number: usize| format!("{number:06}").repeat(10_000);
    for number in 0..60 {
        client.append("t", [value(number)]);
    }
    for killed in [false, true] {
        if killed {
            server.kill();
            server.restart();
            client = server.client();
        }
        for first in [0, 17, 18, 40, 59] {
            evict(&server, "t-0");
            let answer = client.fetch("t", 0, first);
            assert_eq!(named(answer.error_code), "NONE", "{first}");
            let found = values_of(&records_of(&answer));
            assert!(!found.is_empty(), "{first}");
            for (number, found) in (first as usize..).zip(found) {
                assert!(*found == value(number), "{number}");
            }
        }
    }
}

#[test]
fn a_timestamp_finds_the_first_record_at_or_after_it_in_a_long_log() {
    let (_server, mut client) = with_topic("t");
    let start_ms = now_ms() - 1_000_000;
    for batch in 0..100 {
        let record = |builder: BatchBuilder, n: i64| {
            builder.record(start_ms + batch * 100 + n * 10, None, Some(&[0; 100]))
        };
        assert_eq!(client.produce("t", 0, (0..10).fold(BatchBuilder::new(), record).build()).error_code, 0);
    }
    for wanted in [0, 1, 10, 4_995, 5_000, 9_990] {
        let answer = client.offset_at(7, "t", start_ms + wanted);
        let offset = (wanted + 9) / 10;
        assert_eq!((answer.offset, answer.timestamp), (offset, start_ms + 10 * offset), "{wanted}");
    }
}

fn end_of_epoch(client: &mut Client, current: i32, epoch: i32) -> EpochEndOffset {
    let wanted = EpochPartition { current_leader_epoch: current, leader_epoch: epoch, ..Default::default() };
    let topic = EpochTopic { topic: "t".into(), partitions: vec![wanted] };
    let request = OffsetForLeaderEpochRequest { topics: vec![topic], ..Default::default() };
    client.call::<OffsetForLeaderEpoch>(4, &request).topics.remove(0).partitions.remove(0)
}

#[test]
fn the_leader_epoch_rises_only_when_recovery_has_cut_something_off() {
    let (mut server, mut client) = with_topic("t");
    client.append("t", ["a", "b"]);
    server.kill();
    server.restart();
    let mut client = server.client();
    assert_eq!(client.describe("t").partitions[0].leader_epoch, 0);
    assert_eq!(client.append("t", ["c"]), 2);

    server.kill();
    let log = server.data().join("t-0/00000000000000000000.log");
    File::options().append(true).open(log).unwrap().write_all(b"half a batch").unwrap();
    server.restart();
    let mut client = server.client();
    assert_eq!(values_of(&client.read_all("t", 0)), ["a", "b", "c"]);
    assert_eq!(client.append("t", ["d"]), 3);
    assert_eq!(client.describe("t").partitions[0].leader_epoch, 1);

    let end = |client: &mut Client, current, epoch| {
        let end = end_of_epoch(client, current, epoch);
        (named(end.error_code), end.leader_epoch, end.end_offset)
    };
    assert_eq!(end(&mut client, -1, 0), ("NONE", 0, 3));
    assert_eq!(end(&mut client, 1, 1), ("NONE", 1, 4));
    assert_eq!(end(&mut client, -1, 2).1, -1);
    assert_eq!(end(&mut client, 0, 0).0, "FENCED_LEADER_EPOCH");
    assert_eq!(end(&mut client, 2, 0).0, "UNKNOWN_LEADER_EPOCH");

    let mut request = fetch_request("t", 0, 3);
    request.topics[0].partitions[0].current_leader_epoch = 0;
    let fenced = client.call::<Fetch>(12, &request).responses.remove(0).partitions.remove(0);
    assert_eq!(named(fenced.error_code), "FENCED_LEADER_EPOCH");
    assert_eq!((fenced.current_leader.leader_id, fenced.current_leader.leader_epoch), (1, 1));
    request.topics[0].partitions[0].current_leader_epoch = 2;
    assert_eq!(named(client.fetch_at(12, &request).error_code), "UNKNOWN_LEADER_EPOCH");
    // Who has read further in epoch 0 than that epoch goes is told where to go back to.
    request.topics[0].partitions[0].current_leader_epoch = -1;
    request.topics[0].partitions[0].last_fetched_epoch = 0;
    request.topics[0].partitions[0].fetch_offset = 4;
    let diverged = client.fetch_at(12, &request);
    assert_eq!((diverged.error_code, bytes_of(&diverged.records)), (0, 0));
    assert_eq!((diverged.diverging_epoch.epoch, diverged.diverging_epoch.end_offset), (0, 3));
}

/// Code and log start offset after deleting what is below `offset`.
fn delete_below(client: &mut Client, topic: &str, offset: i64) -> (&'static str, i64) {
    let partition = DeleteRecordsPartition { partition_index: 0, offset };
    let topic = DeleteRecordsTopic { name: topic.into(), partitions: vec![partition] };
    let request = DeleteRecordsRequest { topics: vec![topic], timeout_ms: 30_000 };
    let answer = client.call::<DeleteRecords>(2, &request).topics.remove(0).partitions.remove(0);
    (named(answer.error_code), answer.low_watermark)
}

#[test]
fn deleted_records_stay_deleted() {
    let mut server = Server::start(&["--topic", "t:1", "--topic", "compacted:1:cleanup.policy=compact"]);
    let mut client = server.client();
    client.append("t", 0..10);
    client.append("t", 10..20);
    assert_eq!(delete_below(&mut client, "t", 5), ("NONE", 5));
    assert_eq!(delete_below(&mut client, "t", 3), ("NONE", 5));
    assert_eq!(delete_below(&mut client, "t", 21).0, "OFFSET_OUT_OF_RANGE");
    assert_eq!(delete_below(&mut client, "t", -2).0, "OFFSET_OUT_OF_RANGE");
    assert_eq!(delete_below(&mut client, "nowhere", 0).0, "UNKNOWN_TOPIC_OR_PARTITION");
    assert_eq!(delete_below(&mut client, "compacted", 0).0, "POLICY_VIOLATION");
    for restart in [false, true] {
        if restart {
            server.kill();
            server.restart();
            client = server.client();
        }
        assert_eq!(named(client.fetch("t", 0, 4).error_code), "OFFSET_OUT_OF_RANGE");
        assert_eq!(client.fetch("t", 0, 5).log_start_offset, 5);
        assert_eq!(client.offset_at(7, "t", -2).offset, 5);
    }
    assert_eq!(delete_below(&mut client, "t", -1), ("NONE", 20));
    assert_eq!(client.append("t", ["next"]), 20);
}
