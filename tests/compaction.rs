//! Compaction as clients see it: librdkafka writes and reads while the real broker compacts, is killed and comes back.
#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::{Message, Offset, TopicPartitionList};

use running::stock::{config, next};
use running::{PATIENCE, Server, eventually};

/// Looks for work all the time, and rewrites whatever is dirty at all.
const EAGER: [&str; 4] = ["--set", "log.cleaner.backoff.ms=10", "--http-listen", "127.0.0.1:0"];

const TOPIC: &str =
    "t:1:cleanup.policy=compact:segment.bytes=1048576:min.cleanable.dirty.ratio=0.01:file.delete.delay.ms=0";

fn serve(more: &[&str]) -> Server {
    Server::start(&[&EAGER[..], more].concat())
}

/// Key and value of each record, by offset.
type Found = BTreeMap<i64, (String, Option<String>)>;

/// Everything from the start of partition 0 on, by a librdkafka consumer, up to `end_offset` (exclusive) at least.
fn read(server: &Server, topic: &str) -> Found {
    let settings = [
        ("group.id", "none"),
        ("enable.auto.commit", "false"),
        ("auto.offset.reset", "error"),
        ("enable.partition.eof", "true"),
        ("check.crcs", "true"),
    ];
    let consumer: BaseConsumer = config(server, &settings).create().unwrap();
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&wanted).unwrap();
    let mut found = Found::new();
    loop {
        let record = match next(&consumer) {
            Ok(record) => record,
            Err(rdkafka::error::KafkaError::PartitionEOF(0)) => return found,
            Err(error) => panic!("{error}"),
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let last = found.last_key_value().map_or(-1, |(offset, _)| *offset);
        assert!(record.offset() > last, "{} after {last}", record.offset());
        found.insert(record.offset(), (text(record.key().unwrap()), record.payload().map(text)));
    }
}

/// The newest value of each key; tombstones are no values.
fn newest(found: &Found) -> BTreeMap<String, String> {
    let mut newest = BTreeMap::new();
    for (key, value) in found.values() {
        match value {
            Some(value) => newest.insert(key.clone(), value.clone()),
            None => newest.remove(key),
        };
    }
    newest
}

fn send(producer: &BaseProducer, topic: &str, key: &str, value: Option<&str>) {
    loop {
        let mut record = BaseRecord::<str, str>::to(topic).partition(0).key(key);
        record.payload = value;
        match producer.send(record) {
            Ok(()) => return,
            Err((error, _)) => {
                assert_eq!(error.rdkafka_error_code(), Some(rdkafka::error::RDKafkaErrorCode::QueueFull));
                producer.poll(std::time::Duration::from_millis(10));
            }
        }
    }
}

fn log_files(server: &Server, topic: &str) -> Vec<String> {
    let entries = fs::read_dir(server.data().join(format!("{topic}-0"))).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_codec_keeps_the_newest_of_each_key_and_its_tombstones() {
    let mut server = serve(&[]);
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = format!("t-{codec}");
        let configs = [
            ("cleanup.policy", "compact"),
            ("segment.bytes", "1048576"),
            ("min.cleanable.dirty.ratio", "0.01"),
        ];
        server.client().create_topic(&topic, 1, &configs);
        let settings = [("compression.codec", codec), ("enable.idempotence", "true"), ("linger.ms", "5")];
        let producer: BaseProducer = config(&server, &settings).create().unwrap();
        let mut expected = BTreeMap::new();
        let mut random = fastrand::Rng::with_seed(7);
        for number in 0..30_000 {
            let key = format!("key {}", number % 50);
            // Nothing that a codec makes small.
            let value: String = (0..100).map(|_| random.alphanumeric()).collect();
            let value = (number % 31 != 0).then_some(value);
            send(&producer, &topic, &key, value.as_deref());
            match value {
                Some(value) => expected.insert(key, value),
                None => expected.remove(&key),
            };
        }
        producer.flush(PATIENCE).unwrap();
        let found = eventually("it is compacted", || {
            let found = read(&server, &topic);
            assert_eq!(newest(&found), expected, "{codec}");
            (found.len() < 15_000).then_some(found)
        });
        assert!(found.values().any(|(_, value)| value.is_none()), "tombstones have a day");
        // The same producer goes on: nothing of what it is known by has gone.
        send(&producer, &topic, "one more", Some("value"));
        producer.flush(PATIENCE).unwrap();
        expected.insert("one more".to_owned(), "value".to_owned());
        server.restart();
        send(&producer, &topic, "and after a kill", Some("value"));
        producer.flush(PATIENCE).unwrap();
        expected.insert("and after a kill".to_owned(), "value".to_owned());
        assert_eq!(newest(&read(&server, &topic)), expected, "{codec}");
    }
    server.stop();
    assert!(!server.log().contains("cannot be compacted"), "{}", server.log());
}

#[test]
fn kills_during_compaction_lose_no_key_and_move_no_offset() {
    const KILLS: usize = 12;
    // So slow that a round is met in its middle.
    let slow = ["--set", "log.cleaner.io.max.bytes.per.second=3000000"];
    let mut server = serve(&[&["--topic", TOPIC, "--flush", "os"], &slow[..]].concat());
    let producer: BaseProducer =
        config(&server, &[("enable.idempotence", "true"), ("linger.ms", "2")]).create().unwrap();
    let mut expected = BTreeMap::new();
    let mut seen = Found::new();
    let mut number = 0;
    for kill in 0..KILLS {
        for _ in 0..15_000 {
            let (key, value) = (format!("key {}", number % 97), format!("{number:0>120}"));
            send(&producer, "t", &key, Some(&value));
            expected.insert(key, value);
            number += 1;
        }
        producer.flush(PATIENCE).unwrap();
        // In the middle of writing, just after a swap, or somewhere.
        let ended =
            || fs::read_to_string(server.data().join("cleaner-offset-checkpoint")).unwrap_or_default();
        let ended_before = ended();
        let is_written = || log_files(&server, "t").iter().any(|name| name.ends_with(".cleaned"));
        match kill % 4 {
            0 | 1 => eventually("something is written", || is_written().then_some(())),
            2 => eventually("a round has ended", || (ended() != ended_before).then_some(())),
            _ => {}
        }
        server.restart();
        let found = read(&server, "t");
        assert_eq!(newest(&found), expected, "kill {kill}");
        for (offset, record) in &found {
            assert_eq!(seen.get(offset).unwrap_or(record), record, "at {offset}");
        }
        seen.extend(found);
    }
    server.restart_with(&EAGER);
    eventually("it is compacted in the end", || (read(&server, "t").len() < 30_000).then_some(()));
    assert!(!server.log().contains("cannot be compacted"), "{}", server.log());
    assert!(!server.log().contains("the log was cut"), "{}", server.log());
}

#[test]
fn consumers_that_begin_at_the_start_meanwhile_miss_nothing() {
    let server = serve(&["--topic", TOPIC]);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    while !over.load(Ordering::SeqCst) {
                        // Its offsets only rise, it says itself.
                        read(&server, "t");
                    }
                    newest(&read(&server, "t"))
                })
            })
            .collect();
        let producer: BaseProducer = config(&server, &[("linger.ms", "2")]).create().unwrap();
        let mut expected = BTreeMap::new();
        for number in 0..60_000 {
            let (key, value) = (format!("key {}", number % 211), format!("{number:0>100}"));
            send(&producer, "t", &key, Some(&value));
            expected.insert(key, value);
        }
        producer.flush(PATIENCE).unwrap();
        over.store(true, Ordering::SeqCst);
        for reader in readers {
            assert_eq!(reader.join().unwrap(), expected);
        }
    });
    eventually("it is compacted", || (read(&server, "t").len() < 20_000).then_some(()));
}

#[test]
fn tombstones_go_after_their_time_and_settings_change_while_it_runs() {
    let topic =
        "t:1:cleanup.policy=compact:segment.bytes=1048576:min.cleanable.dirty.ratio=1:delete.retention.ms=0";
    let server = serve(&["--topic", topic]);
    let producer: BaseProducer = config(&server, &[]).create().unwrap();
    let fill = |round: i32| {
        for number in 0..15_000 {
            send(&producer, "t", &format!("key {}", number % 10), Some(&format!("{round}{number:0>120}")));
        }
        producer.flush(PATIENCE).unwrap();
    };
    send(&producer, "t", "gone", Some("value"));
    send(&producer, "t", "gone", None);
    fill(0);
    let has = |found: &Found| found.values().any(|(key, _)| key == "gone");
    assert!(has(&read(&server, "t")), "nothing is above the ratio");
    alter(&server, "t", "min.cleanable.dirty.ratio", "0.01");
    // One round that could drop it gives it its time, which is none; the next one drops it.
    let mut round = 1;
    eventually("the tombstone is gone", || {
        fill(round);
        round += 1;
        (!has(&read(&server, "t"))).then_some(())
    });
}

fn alter(server: &Server, topic: &str, name: &str, value: &str) {
    use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
    let admin: AdminClient<_> = config(server, &[]).create().unwrap();
    let change = AlterConfig::new(ResourceSpecifier::Topic(topic))
        .set("cleanup.policy", "compact")
        .set("segment.bytes", "1048576")
        .set("delete.retention.ms", "0")
        .set(name, value);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let altered = runtime.block_on(admin.alter_configs([&change], &AdminOptions::new())).unwrap();
    assert!(altered.iter().all(Result::is_ok), "{altered:?}");
}

#[test]
fn a_damaged_log_is_named_left_alone_and_counted() {
    let mut server = Server::start(&["--set", "log.cleaner.enable=false", "--topic", TOPIC]);
    let fill = |server: &Server| {
        let producer: BaseProducer<DefaultProducerContext> = config(server, &[]).create().unwrap();
        for number in 0..20_000 {
            send(&producer, "t", &format!("key {}", number % 10), Some(&format!("{number:0>120}")));
        }
        producer.flush(PATIENCE).unwrap();
    };
    fill(&server);
    server.stop();
    let path = server.data().join("t-0/00000000000000000000.log");
    let mut bytes = fs::read(&path).unwrap();
    // Within the first batch, however few records the producer has put into it.
    bytes[100] ^= 1;
    fs::write(&path, &bytes).unwrap();
    server.restart_with(&EAGER);
    server.wait_for_log("cannot be compacted");
    assert!(server.log().contains("00000000000000000000.log at position 0"), "{}", server.log());
    fill(&server);
    assert_eq!(fs::read(&path).unwrap(), bytes);
    let scrape = scrape(&server);
    assert!(scrape.lines().any(|line| line == "ottla_log_uncleanable_partitions 1"), "{scrape}");
}

#[test]
fn compaction_is_counted_and_paced() {
    let server = serve(&["--topic", TOPIC, "--set", "log.cleaner.io.max.bytes.per.second=1000000"]);
    let producer: BaseProducer = config(&server, &[]).create().unwrap();
    let began = std::time::Instant::now();
    for number in 0..20_000 {
        send(&producer, "t", &format!("key {}", number % 10), Some(&format!("{number:0>120}")));
    }
    producer.flush(PATIENCE).unwrap();
    let metric = |name: &str| {
        let scrape = scrape(&server);
        let line = scrape.lines().find(|line| line.starts_with(name) && !line.starts_with('#')).unwrap();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    eventually("it is compacted", || {
        (metric("ottla_log_compaction_removed_records_total") > 5_000.0).then_some(())
    });
    let moved =
        metric("ottla_log_compaction_read_bytes_total") + metric("ottla_log_compaction_written_bytes_total");
    // What is being moved by another round is not counted yet.
    assert!(moved / began.elapsed().as_secs_f64() < 1_200_000.0, "{moved} bytes in {:?}", began.elapsed());
    assert!(metric("ottla_log_compaction_seconds_count") >= 1.0);
}

fn scrape(server: &Server) -> String {
    use std::io::{Read, Write};
    let log = server.log();
    let (_, address) = log.rsplit_once("http=\"").expect("the start line says where");
    let address = address.split('"').next().unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: o\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
