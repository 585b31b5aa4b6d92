//! A stock client, librdkafka, against the server: what it sends it gets back, and what it must be told it is told.
#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use std::sync::Mutex;

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};

use running::stock::{config, next};
use running::{PATIENCE, Server, now_ms};

/// What comes back for each record that was sent: its offset or why it was refused, in the order of sending.
#[derive(Default)]
struct Deliveries(Mutex<Vec<(usize, Result<i64, RDKafkaErrorCode>)>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let told = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap()),
        };
        self.0.lock().unwrap().push((number, told));
    }
}

#[derive(Clone, PartialEq, Debug, Default)]
struct Record {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    timestamp_ms: i64,
}

impl Record {
    fn of(value: impl Into<Vec<u8>>) -> Self {
        Self { value: Some(value.into()), timestamp_ms: now_ms(), ..Default::default() }
    }
}

fn producer(server: &Server, settings: &[(&str, &str)]) -> BaseProducer<Deliveries> {
    config(server, settings).create_with_context(Deliveries::default()).unwrap()
}

fn enqueue(producer: &BaseProducer<Deliveries>, topic: &str, number: usize, record: &Record) {
    let header = |headers: OwnedHeaders, (key, value): &(String, Option<Vec<u8>>)| {
        headers.insert(Header { key, value: value.as_ref() })
    };
    let headers = record.headers.iter().fold(OwnedHeaders::new(), header);
    let mut sent =
        BaseRecord::<[u8], [u8], usize>::with_opaque_to(topic, number).partition(0).headers(headers);
    sent.key = record.key.as_deref();
    sent.payload = record.value.as_deref();
    sent.timestamp = Some(record.timestamp_ms);
    if let Err((error, _)) = producer.send(sent) {
        panic!("record {number}: {error}");
    }
}

/// Waits for all answers, in the order of sending.
fn flush(producer: &BaseProducer<Deliveries>) -> Vec<Result<i64, RDKafkaErrorCode>> {
    producer.flush(PATIENCE).unwrap();
    let mut told = std::mem::take(&mut *producer.context().0.lock().unwrap());
    told.sort_by_key(|(number, _)| *number);
    told.into_iter().map(|(_, told)| told).collect()
}

/// Sends records to partition 0 and checks that they lie from `first` on in the order of sending.
fn send(producer: &BaseProducer<Deliveries>, topic: &str, first: i64, records: &[Record]) {
    records.iter().enumerate().for_each(|(number, record)| enqueue(producer, topic, number, record));
    let expected: Vec<_> = (first..).take(records.len()).map(Ok).collect();
    assert_eq!(flush(producer), expected);
}

/// A consumer of partition 0 from `offset` on. librdkafka wants a group's name, but no group is joined.
fn consumer(server: &Server, topic: &str, offset: Offset) -> BaseConsumer {
    let settings = [("group.id", "none"), ("enable.auto.commit", "false"), ("auto.offset.reset", "error")];
    let consumer: BaseConsumer = config(server, &settings).create().unwrap();
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition_offset(topic, 0, offset).unwrap();
    consumer.assign(&wanted).unwrap();
    consumer
}

fn read(consumer: &BaseConsumer, count: usize) -> Vec<(i64, Record)> {
    let record = |message: BorrowedMessage<'_>| {
        let headers = message.headers().into_iter().flat_map(|headers| {
            headers
                .iter()
                .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
                .collect::<Vec<_>>()
        });
        let record = Record {
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.collect(),
            timestamp_ms: message.timestamp().to_millis().unwrap(),
        };
        (message.offset(), record)
    };
    (0..count).map(|_| record(next(consumer).unwrap())).collect()
}

/// Reads what was sent, from offset 0 on.
fn assert_stored(server: &Server, topic: &str, sent: &[Record]) {
    let found = read(&consumer(server, topic, Offset::Beginning), sent.len());
    for (expected_offset, ((offset, found), sent)) in found.iter().zip(sent).enumerate() {
        assert_eq!((*offset, found), (expected_offset as i64, sent));
    }
    let end = consumer(server, topic, Offset::End).fetch_watermarks(topic, 0, PATIENCE).unwrap();
    assert_eq!(end, (0, sent.len() as i64));
}

fn admin(server: &Server) -> AdminClient<DefaultClientContext> {
    config(server, &[]).create().unwrap()
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Partitions of the topics of the server, by name.
fn topics(server: &Server) -> Vec<(String, usize)> {
    let consumer: BaseConsumer = config(server, &[]).create().unwrap();
    let metadata = consumer.fetch_metadata(None, PATIENCE).unwrap();
    metadata.topics().iter().map(|topic| (topic.name().to_owned(), topic.partitions().len())).collect()
}

/// All kinds of records: keyed and not, null and empty, with headers, small and just below the limit.
fn all_kinds() -> Vec<Record> {
    let now_ms = now_ms();
    let headers = vec![
        ("text".to_owned(), Some(b"value".to_vec())),
        ("null".to_owned(), None),
        ("text".to_owned(), Some(vec![0xff, 0])),
    ];
    vec![
        Record::of("plain"),
        Record { key: Some(b"key".to_vec()), ..Record::of("keyed") },
        Record { key: Some(b"key".to_vec()), timestamp_ms: now_ms, ..Default::default() },
        Record { timestamp_ms: now_ms, ..Default::default() },
        Record { key: Some(vec![]), ..Record::of("") },
        Record { headers, timestamp_ms: 1_000, ..Record::of("with headers") },
        Record::of(noise(900 << 10)),
        Record::of("last"),
    ]
}

/// Bytes that no codec makes smaller.
fn noise(bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(bytes as u64);
    (0..bytes).map(|_| random.u8(..)).collect()
}

#[test]
fn every_codec_brings_back_all_kinds_of_records() {
    let server = Server::start(&[]);
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        server.client().create_topic(codec, 1, &[]);
        let producer = producer(&server, &[("compression.type", codec)]);
        let records = all_kinds();
        send(&producer, codec, 0, &records);
        assert_stored(&server, codec, &records);
    }
}

#[test]
fn ten_thousand_records_come_back_in_order() {
    let server = Server::start(&["--topic", "t:1"]);
    let records: Vec<_> =
        (0..10_000).map(|number| Record::of(format!("{number} {}", "x".repeat(100)))).collect();
    let settings = [("compression.type", "lz4"), ("batch.num.messages", "10000"), ("linger.ms", "20")];
    send(&producer(&server, &settings), "t", 0, &records);
    assert_stored(&server, "t", &records);
}

#[test]
fn an_idempotent_producer_goes_on_over_a_kill() {
    for flush_mode in ["commit", "os"] {
        let mut server = Server::start(&["--topic", "t:1", "--flush", flush_mode]);
        let settings = [
            ("enable.idempotence", "true"),
            ("reconnect.backoff.ms", "10"),
            ("reconnect.backoff.max.ms", "50"),
        ];
        let producer = producer(&server, &settings);
        let records: Vec<_> = (0..5_000).map(|number| Record::of(number.to_string())).collect();
        for (number, record) in records.iter().enumerate() {
            enqueue(&producer, "t", number, record);
            if number % 1_000 == 999 {
                // In the middle of what has been sent, or before it has been.
                producer.poll(std::time::Duration::ZERO);
                server.kill();
                server.restart();
            }
        }
        assert_eq!(flush(&producer), (0..5_000).map(Ok).collect::<Vec<_>>());
        server.kill();
        server.restart();
        assert_stored(&server, "t", &records);
    }
}

#[test]
fn a_consumer_goes_on_over_a_kill() {
    let mut server = Server::start(&["--topic", "t:1"]);
    let consumer = consumer(&server, "t", Offset::Beginning);
    for round in 0..3 {
        let record = Record::of(round.to_string());
        send(&producer(&server, &[]), "t", round, std::slice::from_ref(&record));
        assert_eq!(read(&consumer, 1), [(round, record)]);
        server.kill();
        server.restart();
    }
}

#[test]
fn a_consumer_seeks_by_offset_and_by_time() {
    let server = Server::start(&["--topic", "t:1"]);
    let start_ms = now_ms() - 100_000;
    let at = |number: i64| Record { timestamp_ms: start_ms + 10 * number, ..Record::of(number.to_string()) };
    let records: Vec<_> = (0..1_000).map(at).collect();
    send(&producer(&server, &[("batch.num.messages", "37")]), "t", 0, &records);
    let consumer = consumer(&server, "t", Offset::Offset(500));
    assert_eq!(read(&consumer, 1)[0].0, 500);
    for offset in [0, 999, 37, 36] {
        consumer.seek("t", 0, Offset::Offset(offset), PATIENCE).unwrap();
        assert_eq!(read(&consumer, 1), [(offset, records[offset as usize].clone())]);
    }
    for (after_ms, expected) in [
        (-50, Offset::Offset(0)),
        (4_321, Offset::Offset(433)),
        (9_990, Offset::Offset(999)),
        (9_991, Offset::End),
    ] {
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition_offset("t", 0, Offset::Offset(start_ms + after_ms)).unwrap();
        let found = consumer.offsets_for_times(wanted, PATIENCE).unwrap();
        assert_eq!(found.find_partition("t", 0).unwrap().offset(), expected, "{after_ms}");
    }
}

#[test]
fn an_offset_out_of_range_is_told() {
    let server = Server::start(&["--topic", "t:1"]);
    send(&producer(&server, &[]), "t", 0, &[Record::of("a")]);
    let error = next(&consumer(&server, "t", Offset::Offset(100))).err();
    assert_eq!(error, Some(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset)));
}

#[test]
fn topics_are_made_listed_described_widened_and_deleted() {
    let server = Server::start(&[]);
    let (admin, options) = (admin(&server), AdminOptions::new());
    let new = |name, partitions| NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let made = wait(admin.create_topics(
        &[new("a", 3).set("retention.ms", "1000"), new("b", 1), new("bad name", 1), new("two", 0)],
        &options,
    ));
    use RDKafkaErrorCode::{InvalidPartitions, InvalidTopic, TopicAlreadyExists, UnknownTopicOrPartition};
    assert_eq!(
        made.unwrap(),
        [
            Ok("a".to_owned()),
            Ok("b".to_owned()),
            Err(("bad name".to_owned(), InvalidTopic)),
            Err(("two".to_owned(), InvalidPartitions)),
        ]
    );
    let again = wait(admin.create_topics(&[new("a", 1)], &options)).unwrap();
    assert_eq!(again, [Err(("a".to_owned(), TopicAlreadyExists))]);
    assert_eq!(topics(&server), [("a".to_owned(), 3), ("b".to_owned(), 1)]);

    let resource = ResourceSpecifier::Topic("a");
    let described = |name: &str| {
        let configs = wait(admin.describe_configs([&resource], &options)).unwrap().remove(0).unwrap();
        configs.get(name).unwrap().value.clone().unwrap()
    };
    assert_eq!(described("retention.ms"), "1000");
    let alter = AlterConfig::new(ResourceSpecifier::Topic("a")).set("retention.ms", "2000");
    assert!(wait(admin.alter_configs([&alter], &options)).unwrap()[0].is_ok());
    assert_eq!(described("retention.ms"), "2000");

    let widened = wait(admin.create_partitions(&[NewPartitions::new("b", 4)], &options)).unwrap();
    assert_eq!(widened, [Ok("b".to_owned())]);
    assert_eq!(topics(&server), [("a".to_owned(), 3), ("b".to_owned(), 4)]);
    let deleted = wait(admin.delete_topics(&["a", "nowhere"], &options)).unwrap();
    assert_eq!(deleted, [Ok("a".to_owned()), Err(("nowhere".to_owned(), UnknownTopicOrPartition))]);
    assert_eq!(topics(&server), [("b".to_owned(), 4)]);
}

#[test]
fn a_topic_that_is_not_there_is_unknown_or_made() {
    let server = Server::start(&["--set", "auto.create.topics.enable=false"]);
    let without = producer(&server, &[("topic.metadata.propagation.max.ms", "100")]);
    enqueue(&without, "t", 0, &Record::of("a"));
    let told = flush(&without).remove(0).unwrap_err();
    use RDKafkaErrorCode::{UnknownPartition, UnknownTopic, UnknownTopicOrPartition};
    assert!(matches!(told, UnknownTopic | UnknownTopicOrPartition | UnknownPartition), "{told:?}");
    assert!(topics(&server).is_empty());

    let server = Server::start(&["--set", "num.partitions=2"]);
    let record = Record::of("a");
    send(&producer(&server, &[]), "t", 0, std::slice::from_ref(&record));
    assert_eq!(topics(&server), [("t".to_owned(), 2)]);
    assert_stored(&server, "t", &[record]);
}

#[test]
fn a_record_that_is_too_large_is_refused_and_the_next_is_not() {
    let server = Server::start(&["--topic", "t:1"]);
    let producer = producer(&server, &[("message.max.bytes", "3000000")]);
    enqueue(&producer, "t", 0, &Record::of(noise(2_000_000)));
    assert_eq!(flush(&producer), [Err(RDKafkaErrorCode::MessageSizeTooLarge)]);
    send(&producer, "t", 0, &[Record::of("small")]);
}

#[test]
fn a_topic_made_again_is_found_by_a_producer_that_knew_the_last_one() {
    let server = Server::start(&["--topic", "t:1", "--set", "auto.create.topics.enable=false"]);
    let producer = producer(&server, &[("topic.metadata.refresh.fast.interval.ms", "20")]);
    send(&producer, "t", 0, &[Record::of("old"), Record::of("old")]);
    let mut admin = server.client();
    admin.delete_topic("t");
    admin.create_topic("t", 1, &[]);
    let record = Record::of("new");
    send(&producer, "t", 0, std::slice::from_ref(&record));
    assert_stored(&server, "t", &[record]);
}
