//! Produce and InitProducerId: what is appended, what is refused and with which code, and what an idempotent producer may
//! rely on, also over a `kill -9`.
#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ottla::protocol::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use ottla::protocol::messages::init_producer_id::InitProducerIdRequest;
use ottla::protocol::messages::produce::{ProducePartition, ProduceRequest};
use ottla::protocol::messages::{CreateTopics, InitProducerId, Produce};
use ottla::protocol::wire::Records;
use ottla::record::batch::Attributes;
use ottla::record::{BatchBuilder, BatchHeader, Codec, HEADER_BYTES, TimestampType};
use ottla::storage::simulated::SimulatedDisk;
use ottla::uuid::Uuid;
use ottla::{Broker, Config};

use running::{Client, PATIENCE, Server, eventually, named, now_ms, numbered, produce_request, values_of};

/// A version with error messages and topic names.
const VERSION: i16 = 12;

/// A batch whose header is changed and whose checksum is right again.
fn resealed(batch: &Bytes, change: impl Fn(&mut BatchHeader)) -> Bytes {
    let mut header = BatchHeader::parse(batch).unwrap();
    change(&mut header);
    header.crc = header.checksum(&batch[HEADER_BYTES..]);
    [&header.encode()[..], &batch[HEADER_BYTES..]].concat().into()
}

fn of_producer(id: i64, epoch: i16, base_sequence: i32, values: std::ops::Range<i32>) -> Bytes {
    numbered(values).producer(id, epoch, base_sequence).build()
}

/// Code and base offset of the answer.
fn sent(client: &mut Client, batch: Bytes) -> (&'static str, i64) {
    let answer = client.produce("t", 0, batch);
    (named(answer.error_code), answer.base_offset)
}

#[test]
fn every_version_appends_and_tells_the_first_offset() {
    let server = Server::start(&["--topic", "t:1"]);
    let mut client = server.client();
    let id = client.describe("t").topic_id;
    for (count, version) in (3..=13).enumerate() {
        let mut request = produce_request("t", 0, numbered([version, version]).build());
        request.topic_data[0].topic_id = id;
        let answer = client.produce_at(version, &request);
        assert_eq!((answer.error_code, answer.base_offset), (0, 2 * count as i64), "version {version}");
        assert_eq!(answer.log_append_time_ms, -1);
        assert_eq!(answer.log_start_offset, if version < 5 { -1 } else { 0 });
    }
    assert_eq!(client.read_all("t", 0).len(), 22);
}

#[test]
fn acks_0_has_no_answer_and_other_numbers_than_kafkas_are_refused() {
    let server = Server::start(&["--topic", "t:1"]);
    let mut client = server.client();
    let with = |acks| ProduceRequest { acks, ..produce_request("t", 0, numbered([acks]).build()) };
    client.send_unanswered::<Produce>(VERSION, &with(0));
    // The next answer of the connection is the next request's.
    assert_eq!(client.produce_at(VERSION, &with(1)).base_offset, 1);
    assert_eq!(client.produce_at(VERSION, &with(-1)).base_offset, 2);
    for acks in [2, -2, i16::MAX] {
        assert_eq!(named(client.produce_at(VERSION, &with(acks)).error_code), "INVALID_REQUIRED_ACKS");
    }
    assert_eq!(values_of(&client.read_all("t", 0)), ["0", "1", "-1"]);
}

#[test]
fn a_failure_with_acks_0_closes_the_connection() {
    let server = Server::start(&["--topic", "t:1", "--log", "info"]);
    let mut client = server.client();
    let request = ProduceRequest { acks: 0, ..produce_request("t", 9, numbered([1]).build()) };
    client.send::<Produce>(VERSION, &request);
    assert!(client.is_closed_unanswered());
    server.wait_for_log("produce with acks=0 to t-9 failed: UNKNOWN_TOPIC_OR_PARTITION");
}

#[test]
fn each_check_of_a_batch_has_its_code_and_nothing_refused_is_stored() {
    let server = Server::start(&[
        "--topic",
        "t:1",
        "--topic",
        "compacted:1:cleanup.policy=compact",
        "--topic",
        "small:1:max.message.bytes=200",
        "--topic",
        "segment:1:max.message.bytes=3000000:segment.bytes=1048576",
        "--topic",
        "stamped:1:message.timestamp.type=LogAppendTime",
        "--topic",
        "recent:1:message.timestamp.before.max.ms=1000:message.timestamp.after.max.ms=1000",
    ]);
    let mut client = server.client();
    let good = numbered([1, 2]).build();
    let incompressible: Vec<u8> =
        (0..2_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let large = BatchBuilder::new().record(now_ms(), None, Some(&incompressible)).build();
    let at = |ms| BatchBuilder::new().record(ms, None, Some(b"x")).build();
    let mut flipped = good.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let mut old = good.to_vec();
    old[16] = 1;
    let checks: Vec<(&str, Bytes, &str)> = vec![
        ("t", Bytes::new(), "INVALID_RECORD"),
        ("t", [&good[..], &good[..]].concat().into(), "INVALID_RECORD"),
        ("t", old.into(), "INVALID_RECORD"),
        ("t", resealed(&good, |header| header.base_offset = 7), "INVALID_RECORD"),
        ("t", flipped.into(), "CORRUPT_MESSAGE"),
        ("t", resealed(&good, |header| header.batch_length = 3), "CORRUPT_MESSAGE"),
        ("t", resealed(&good, |header| header.record_count = 3), "INVALID_RECORD"),
        ("t", resealed(&good, |header| header.record_count = -1), "INVALID_RECORD"),
        ("t", resealed(&good, |header| header.last_offset_delta = i32::MAX), "INVALID_RECORD"),
        ("t", numbered([1]).control().build(), "INVALID_RECORD"),
        ("t", numbered([1]).producer(5, 0, -1).build(), "INVALID_RECORD"),
        ("t", resealed(&good, |header| header.attributes = Attributes(5)), "UNSUPPORTED_COMPRESSION_TYPE"),
        ("t", resealed(&good, |header| header.attributes = Attributes(4)), "INVALID_RECORD"),
        (
            "t",
            numbered([1]).transactional().producer(5, 0, 0).build(),
            "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
        ),
        ("t", at(now_ms() + 3_700_000), "INVALID_TIMESTAMP"),
        ("t", at(0), "NONE"),
        ("t", at(-1), "NONE"),
        ("recent", at(now_ms() - 60_000), "INVALID_TIMESTAMP"),
        ("stamped", at(now_ms() + 3_700_000), "NONE"),
        ("stamped", numbered([1]).log_append_time(now_ms()).build(), "INVALID_TIMESTAMP"),
        ("compacted", good.clone(), "INVALID_RECORD"),
        ("compacted", BatchBuilder::new().record(now_ms(), Some(b"k"), None).build(), "NONE"),
        ("small", large.clone(), "MESSAGE_TOO_LARGE"),
        ("segment", large.clone(), "RECORD_LIST_TOO_LARGE"),
        ("t", large, "MESSAGE_TOO_LARGE"),
    ];
    for (place, (topic, batch, expected)) in checks.into_iter().enumerate() {
        let end = client.offset_at(9, topic, -1).offset;
        let answer = client.produce(topic, 0, batch);
        assert_eq!(named(answer.error_code), expected, "check {place}: {:?}", answer.error_message);
        let stored = expected == "NONE";
        assert_eq!(answer.base_offset, if stored { end } else { -1 }, "check {place}");
        assert_eq!(client.offset_at(9, topic, -1).offset, end + i64::from(stored), "check {place}");
    }
}

#[test]
fn records_that_are_refused_are_listed() {
    let server = Server::start(&["--topic", "t:1:cleanup.policy=compact"]);
    let mut client = server.client();
    let batch = BatchBuilder::new()
        .record(now_ms(), Some(b"key"), None)
        .record(now_ms(), None, None)
        .record(now_ms(), None, Some(b"value"))
        .build();
    let answer = client.produce("t", 0, batch);
    let listed: Vec<_> = answer.record_errors.iter().map(|error| error.batch_index).collect();
    assert_eq!((named(answer.error_code), listed), ("INVALID_RECORD", vec![1, 2]));
    assert!(answer.record_errors.iter().all(|error| error.batch_index_error_message.is_some()));
}

#[test]
fn zstd_needs_a_version_that_knows_it() {
    let server = Server::start(&["--topic", "t:1"]);
    let mut client = server.client();
    let request = produce_request("t", 0, numbered([1]).codec(Codec::Zstd).build());
    assert_eq!(named(client.produce_at(6, &request).error_code), "UNSUPPORTED_COMPRESSION_TYPE");
    assert_eq!(named(client.produce_at(7, &request).error_code), "NONE");
}

#[test]
fn a_partition_that_fails_does_not_spoil_its_neighbours() {
    let server = Server::start(&["--topic", "t:2", "--topic", "small:1:max.message.bytes=10"]);
    let mut client = server.client();
    let batch = numbered([1]).build();
    let partition = |index| ProducePartition { index, records: Records::Bytes(batch.clone()) };
    let mut request = produce_request("t", 0, batch.clone());
    request.topic_data[0].partition_data.extend([partition(-1), partition(1), partition(2)]);
    request.topic_data.extend(produce_request("nowhere", 0, batch.clone()).topic_data);
    request.topic_data.extend(produce_request("small", 0, batch.clone()).topic_data);
    let answer = client.call::<Produce>(VERSION, &request);
    let partitions = answer.responses.iter().flat_map(|topic| &topic.partition_responses);
    let codes: Vec<_> = partitions.map(|partition| (partition.index, named(partition.error_code))).collect();
    const UNKNOWN: &str = "UNKNOWN_TOPIC_OR_PARTITION";
    assert_eq!(
        codes,
        [(0, "NONE"), (-1, UNKNOWN), (1, "NONE"), (2, UNKNOWN), (0, UNKNOWN), (0, "MESSAGE_TOO_LARGE")]
    );
    assert_eq!((client.read_all("t", 0).len(), client.read_all("t", 1).len()), (1, 1));
}

#[test]
fn batches_are_served_as_they_were_sent() {
    let server = Server::start(&["--topic", "t:1"]);
    let mut client = server.client();
    for codec in Codec::ALL {
        let values: Vec<String> = (0..500).map(|number| format!("value {number}")).collect();
        let batch = numbered(&values).codec(codec).build();
        let (code, offset) = sent(&mut client, batch.clone());
        assert_eq!(code, "NONE", "{codec:?}");
        let answer = client.fetch("t", 0, offset);
        let Records::Bytes(stored) = &answer.records else { panic!("records") };
        let header = BatchHeader::parse(stored).unwrap();
        assert_eq!((header.base_offset, header.partition_leader_epoch), (offset, 0));
        // All that the checksum covers, and the checksum.
        assert_eq!(stored[16..], batch[16..], "{codec:?}");
        assert_eq!(values_of(&running::records_of(&answer)), values, "{codec:?}");
    }
}

#[test]
fn pipelined_requests_are_appended_and_answered_in_order() {
    let server = Server::start(&["--topic", "t:1"]);
    let mut client = server.client();
    let requests: Vec<_> = (0..200).map(|n| produce_request("t", 0, numbered([n]).build())).collect();
    let frames: Vec<_> = requests.iter().map(|request| client.frame::<Produce>(VERSION, request)).collect();
    client.send_bytes(&frames.concat());
    for offset in 0..200 {
        let answer = client.receive::<Produce>(VERSION);
        assert_eq!(answer.responses[0].partition_responses[0].base_offset, offset);
    }
    let expected: Vec<_> = (0..200).map(|number| number.to_string()).collect();
    assert_eq!(values_of(&client.read_all("t", 0)), expected);
}

#[test]
fn topic_ids_name_topics_from_version_13_on() {
    let server = Server::start(&["--topic", "t:1"]);
    let mut client = server.client();
    let mut request = produce_request("", 0, numbered([1]).build());
    request.topic_data[0].topic_id = client.describe("t").topic_id;
    assert_eq!(named(client.produce_at(13, &request).error_code), "NONE");
    request.topic_data[0].topic_id = Uuid::random();
    let answer = client.call::<Produce>(13, &request);
    assert_eq!(answer.responses[0].topic_id, request.topic_data[0].topic_id);
    assert_eq!(named(answer.responses[0].partition_responses[0].error_code), "UNKNOWN_TOPIC_ID");
}

#[test]
fn clients_do_not_write_to_internal_topics() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.create_topic("__consumer_offsets", 1, &[]);
    let answer = client.produce("__consumer_offsets", 0, numbered([1]).build());
    assert_eq!(named(answer.error_code), "INVALID_TOPIC_EXCEPTION");
}

#[test]
fn log_append_time_is_the_brokers_and_comes_back() {
    let server = Server::start(&["--topic", "t:1:message.timestamp.type=LogAppendTime"]);
    let mut client = server.client();
    let before_ms = now_ms();
    let batch = BatchBuilder::new().record(1_000, None, Some(b"a")).record(2_000, None, Some(b"b")).build();
    let answer = client.produce("t", 0, batch);
    assert!((before_ms..=now_ms()).contains(&answer.log_append_time_ms));
    let fetched = client.fetch("t", 0, 0);
    let Records::Bytes(stored) = &fetched.records else { panic!("records") };
    let header = BatchHeader::parse(stored).unwrap();
    assert_eq!(header.attributes.timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(header.crc, header.checksum(&stored[HEADER_BYTES..]));
    let times: Vec<_> = running::records_of(&fetched).iter().map(|record| record.timestamp).collect();
    assert_eq!(times, [answer.log_append_time_ms; 2]);
}

#[test]
fn the_last_five_batches_of_a_producer_are_recognized_with_their_first_offsets() {
    for flush in ["commit", "os"] {
        let mut server = Server::start(&["--topic", "t:1", "--flush", flush]);
        let mut client = server.client();
        let id = client.new_producer().producer_id;
        client.append("t", ["another's"]);
        for batch in 0..6 {
            let first = 2 * batch;
            let offset = 1 + i64::from(first);
            assert_eq!(sent(&mut client, of_producer(id, 0, first, first..first + 2)), ("NONE", offset));
        }
        for restarted in [false, true] {
            if restarted {
                server.kill();
                server.restart();
                client = server.client();
            }
            for batch in 1..6 {
                let first = 2 * batch;
                let again = sent(&mut client, of_producer(id, 0, first, first..first + 2));
                assert_eq!(again, ("NONE", 1 + i64::from(first)), "restarted {restarted}");
            }
            let sixth_back = sent(&mut client, of_producer(id, 0, 0, 0..2));
            assert_eq!(sixth_back, ("OUT_OF_ORDER_SEQUENCE_NUMBER", -1), "restarted {restarted}");
        }
        assert_eq!(sent(&mut client, of_producer(id, 0, 12, 12..13)), ("NONE", 13));
        assert_eq!(client.read_all("t", 0).len(), 14);
    }
}

#[test]
fn the_last_batch_of_a_producer_is_recognized_after_a_clean_stop() {
    let mut server = Server::start(&["--topic", "t:1"]);
    let mut client = server.client();
    let id = client.new_producer().producer_id;
    assert_eq!(sent(&mut client, of_producer(id, 0, 0, 0..3)), ("NONE", 0));
    server.stop();
    server.restart();
    let mut client = server.client();
    assert_eq!(sent(&mut client, of_producer(id, 0, 0, 0..3)), ("NONE", 0));
    assert_eq!(sent(&mut client, of_producer(id, 0, 3, 3..4)), ("NONE", 3));
}

#[test]
fn sequences_have_no_gaps_and_wrap_to_zero() {
    let server = Server::start(&["--topic", "t:1"]);
    let mut client = server.client();
    let id = client.new_producer().producer_id;
    // Whom the partition has never seen may begin anywhere.
    assert_eq!(sent(&mut client, of_producer(id, 0, i32::MAX - 1, 0..2)), ("NONE", 0));
    assert_eq!(sent(&mut client, of_producer(id, 0, 1, 0..1)), ("OUT_OF_ORDER_SEQUENCE_NUMBER", -1));
    assert_eq!(sent(&mut client, of_producer(id, 0, 0, 0..1)), ("NONE", 2));
    assert_eq!(sent(&mut client, of_producer(id, 0, 2, 0..1)), ("OUT_OF_ORDER_SEQUENCE_NUMBER", -1));
    assert_eq!(sent(&mut client, of_producer(id, 0, 1, 0..1)), ("NONE", 3));
}

#[test]
fn a_newer_epoch_fences_the_older_and_begins_at_zero() {
    let mut server = Server::start(&["--topic", "t:1"]);
    let mut client = server.client();
    let id = client.new_producer().producer_id;
    assert_eq!(sent(&mut client, of_producer(id, 0, 0, 0..1)), ("NONE", 0));
    assert_eq!(sent(&mut client, of_producer(id, 1, 1, 0..1)), ("OUT_OF_ORDER_SEQUENCE_NUMBER", -1));
    assert_eq!(sent(&mut client, of_producer(id, 1, 0, 0..1)), ("NONE", 1));
    for _ in 0..2 {
        assert_eq!(sent(&mut client, of_producer(id, 0, 1, 0..1)), ("INVALID_PRODUCER_EPOCH", -1));
        server.kill();
        server.restart();
        client = server.client();
    }
    assert_eq!(sent(&mut client, of_producer(id, 1, 1, 0..1)), ("NONE", 2));
}

#[test]
fn producer_ids_are_never_given_twice() {
    let mut server = Server::start(&[]);
    let mut given = std::collections::HashSet::new();
    for _ in 0..3 {
        let mut client = server.client();
        for _ in 0..10 {
            let producer = client.new_producer();
            assert_eq!(producer.producer_epoch, 0);
            assert!(given.insert(producer.producer_id), "{} again", producer.producer_id);
        }
        server.kill();
        server.restart();
    }
}

#[test]
fn a_transactional_id_is_refused_while_there_are_no_transactions() {
    let server = Server::start(&[]);
    let request = InitProducerIdRequest {
        transactional_id: Some("mine".into()),
        transaction_timeout_ms: 60_000,
        ..Default::default()
    };
    let answer = server.client().call::<InitProducerId>(5, &request);
    assert_ne!(answer.error_code, 0);
    assert_eq!(answer.producer_id, -1);
}

/// Has a broker of this directory and disk answer `ask`, which runs on a thread of its own.
async fn with_broker_on<T: Send + 'static>(
    disk: &SimulatedDisk,
    ask: impl FnOnce(&mut Client) -> T + Send + 'static,
) -> T {
    let settings = [("listeners", "127.0.0.1:0"), ("log.dirs", "/data"), ("ottla.flush", "commit")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config::from_settings(settings).unwrap().topic("t", 2);
    let broker = Broker::start_on(Arc::new(disk.clone()), config).await.unwrap();
    let address = broker.bootstrap();
    let asked = tokio::task::spawn_blocking(move || ask(&mut Client::connect(&address)));
    let answered = asked.await;
    // A broker does not end before its syncs have: one whose test has failed, too, is to end.
    disk.release_syncs();
    broker.stop().await;
    answered.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_slow_disk_does_not_sync_in_time_is_answered_as_such_and_stays() {
    let disk = SimulatedDisk::default();
    let slow = disk.clone();
    let log = |partition| Path::new("/data").join(format!("t-{partition}/00000000000000000000.log"));
    with_broker_on(&disk, move |client| {
        client.append("t", ["synced"]);
        slow.hold_syncs();
        let waiting = |value: &str, timeout_ms| ProduceRequest {
            timeout_ms,
            ..produce_request("t", 0, numbered([value]).build())
        };
        for (acks, timeout_ms) in [(-1, 300), (-1, 0), (1, 50), (-1, -1)] {
            let asked_at = Instant::now();
            let answer = client.produce_at(VERSION, &ProduceRequest { acks, ..waiting("late", timeout_ms) });
            let took = asked_at.elapsed();
            assert_eq!(named(answer.error_code), "REQUEST_TIMED_OUT", "acks={acks}, {timeout_ms} ms");
            assert_eq!(answer.base_offset, -1);
            let timeout = Duration::from_millis(timeout_ms.max(0) as u64);
            assert!(took >= timeout && took < timeout + PATIENCE / 2, "{took:?} of {timeout:?}");
        }
        assert_eq!(client.fetch("t", 0, 0).high_watermark, 1, "nobody sees what is not durable");

        // A topic is there once its making is durable; past its deadline it may still be made.
        let new = CreatableTopic {
            name: "new".into(),
            num_partitions: 1,
            replication_factor: 1,
            ..Default::default()
        };
        let request = CreateTopicsRequest { topics: vec![new], timeout_ms: 100, ..Default::default() };
        let created = client.call::<CreateTopics>(7, &request);
        assert_eq!(named(created.topics[0].error_code), "REQUEST_TIMED_OUT");
        assert_eq!(named(client.describe("new").error_code), "UNKNOWN_TOPIC_OR_PARTITION");

        // The answer to one that may wait comes with the sync, and what came too late for its answer is there as well.
        client.send::<Produce>(VERSION, &waiting("in time", 30_000));
        eventually("it is written", || {
            (slow.content(&log(0)).unwrap().ends_with(b"in time\0")).then_some(())
        });
        slow.release_syncs();
        let answer = client.receive::<Produce>(VERSION).responses.remove(0).partition_responses.remove(0);
        assert_eq!((answer.error_code, answer.base_offset), (0, 5));
        assert_eq!(
            values_of(&client.read_all("t", 0)),
            ["synced", "late", "late", "late", "late", "in time"]
        );
        eventually("the topic is made after all", || (client.describe("new").error_code == 0).then_some(()));
    })
    .await;
    assert!(disk.content(&log(0)).unwrap().ends_with(b"in time\0"));
}
