//! One test for each topic config that is acted on: a stock client sees it act when it is changed at run time, and again after
//! the broker was killed. Retention and compaction have test programs of their own.
#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rdkafka::Message;
use rdkafka::error::RDKafkaErrorCode::{
    InvalidRecord, InvalidTimestamp, MessageBatchTooLarge, MessageSizeTooLarge,
};

use ottla::record::batch::HEADER_BYTES;
use ottla::record::{BatchHeader, Codec, TimestampType};

use running::stock::{Sender, configure, configure_broker, consumer_at, next, watermarks};
use running::{Server, eventually, now_ms};

/// Makes `configs` those of topic `t`, checks, kills the broker and checks again.
fn over_a_kill(server: &mut Server, configs: &[(&str, &str)], mut check: impl FnMut(&Server, &Sender)) {
    configure(server, "t", configs);
    check(server, &Sender::to(server, &[]));
    server.restart();
    check(server, &Sender::to(server, &[]));
}

fn send(sender: &Sender, value: &[u8]) -> i64 {
    sender.send("t", now_ms(), None, value).unwrap()
}

/// The files of the topic that end so, ascending; none before its first record.
fn files(server: &Server, suffix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(server.data().join("t-0")).into_iter().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.to_string_lossy().ends_with(suffix));
    paths.sort();
    paths
}

fn segments(server: &Server) -> usize {
    files(server, ".log").len()
}

/// The headers of all batches on the disk.
fn stored(server: &Server) -> Vec<BatchHeader> {
    let mut headers = Vec::new();
    for path in files(server, ".log") {
        let bytes = fs::read(path).unwrap();
        let mut rest = &bytes[..];
        while let Ok(header) = BatchHeader::parse(rest) {
            headers.push(header);
            rest = &rest[header.size_bytes()..];
        }
    }
    headers
}

fn last_stored(server: &Server) -> BatchHeader {
    *stored(server).last().unwrap()
}

/// Text that levels of a codec make a difference for.
fn text() -> Vec<u8> {
    let words = (0..20_000).map(|number| format!("order {} of {}; ", number * 7_919 % 9_973, number % 97));
    words.collect::<String>().into_bytes()
}

/// The number of a metric without labels, by the address that the newest start has told.
fn metric(server: &Server, name: &str) -> u64 {
    server.wait_for_log("http=\"");
    let log = server.log();
    let address = log.rsplit("http=\"").next().and_then(|rest| rest.split('"').next()).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
    line.trim().parse().unwrap()
}

#[test]
fn compression_type_stores_what_it_says_whatever_is_sent() {
    let mut server = Server::start(&["--topic", "t:1"]);
    for (name, codec) in [
        ("gzip", Codec::Gzip),
        ("snappy", Codec::Snappy),
        ("lz4", Codec::Lz4),
        ("zstd", Codec::Zstd),
        ("uncompressed", Codec::None),
    ] {
        over_a_kill(&mut server, &[("compression.type", name)], |server, _| {
            let consumer = consumer_at(server, "t", watermarks(server, "t").1);
            for sent in ["none", "gzip", "snappy", "lz4", "zstd"] {
                let sender = Sender::to(server, &[("compression.type", sent)]);
                for value in [&b"small"[..], &text()[..100_000]] {
                    send(&sender, value);
                    assert_eq!(last_stored(server).attributes.codec().unwrap(), codec, "{sent} to {name}");
                    assert_eq!(next(&consumer).unwrap().payload(), Some(value));
                }
            }
        });
    }
    configure(&server, "t", &[("compression.type", "zstd")]);
    let sender = Sender::to(&server, &[("enable.idempotence", "true")]);
    for sequence in 0..3 {
        send(&sender, b"value");
        let header = last_stored(&server);
        assert_eq!((header.attributes.codec().unwrap(), header.base_sequence), (Codec::Zstd, sequence));
    }
    over_a_kill(&mut server, &[("compression.type", "producer")], |server, _| {
        send(&Sender::to(server, &[("compression.type", "lz4")]), &text());
        assert_eq!(last_stored(server).attributes.codec().unwrap(), Codec::Lz4);
    });
}

#[test]
fn compression_levels_make_batches_smaller() {
    let mut server = Server::start(&["--topic", "t:1"]);
    for (codec, low, high) in [("gzip", "1", "9"), ("lz4", "1", "17"), ("zstd", "-100", "19")] {
        let key = format!("compression.{codec}.level");
        let mut size_at = |level| {
            let mut sizes = Vec::new();
            let configs = [("compression.type", codec), (key.as_str(), level)];
            over_a_kill(&mut server, &configs, |server, sender| {
                let offset = send(sender, &text());
                assert_eq!(next(&consumer_at(server, "t", offset)).unwrap().payload(), Some(&text()[..]));
                sizes.push(last_stored(server).size_bytes());
            });
            // The timestamps differ by a byte or two.
            assert!(sizes[0].abs_diff(sizes[1]) < 100, "{sizes:?}");
            sizes[0]
        };
        let (small, large) = (size_at(high), size_at(low));
        assert!(small + 1000 < large, "{codec}: {small} {large}");
    }
}

#[test]
fn a_batch_that_compression_type_makes_too_large_is_refused() {
    let mut server = Server::start(&["--topic", "t:1"]);
    let configs = [("compression.type", "uncompressed"), ("max.message.bytes", "100000")];
    over_a_kill(&mut server, &configs, |server, _| {
        let sender = Sender::to(server, &[("compression.type", "zstd")]);
        assert_eq!(sender.send("t", now_ms(), None, &text()), Err(MessageSizeTooLarge));
        send(&sender, &text()[..90_000]);
    });
}

#[test]
fn max_message_bytes_bounds_a_batch_as_it_is_sent() {
    let mut server = Server::start(&["--topic", "t:1"]);
    over_a_kill(&mut server, &[("max.message.bytes", "2000")], |server, sender| {
        assert_eq!(sender.send("t", now_ms(), None, &[b'v'; 2000]), Err(MessageSizeTooLarge));
        send(sender, &[b'v'; 1900]);
        send(&Sender::to(server, &[("compression.type", "gzip")]), &[b'v'; 20_000]);
    });
    over_a_kill(&mut server, &[("max.message.bytes", "3000000")], |_, sender| {
        send(sender, &vec![b'v'; 2_900_000]);
    });
}

#[test]
fn max_decompressed_message_bytes_bounds_a_record() {
    let mut server = Server::start(&["--topic", "t:1"]);
    over_a_kill(&mut server, &[("max.decompressed.message.bytes", "5000")], |server, _| {
        let sender = Sender::to(server, &[("compression.type", "gzip")]);
        assert_eq!(sender.send("t", now_ms(), None, &[b'v'; 5000]), Err(InvalidRecord));
        send(&sender, &[b'v'; 4900]);
    });
}

#[test]
fn message_timestamp_type_says_whose_clock_counts() {
    let mut server = Server::start(&["--topic", "t:1"]);
    let told = now_ms() - 5_000_000;
    let stamped = |server: &Server, sender: &Sender| {
        let offset = sender.send("t", told, None, b"value").unwrap();
        let consumer = consumer_at(server, "t", offset);
        let message = next(&consumer).unwrap();
        (message.timestamp(), last_stored(server).attributes.timestamp_type())
    };
    over_a_kill(&mut server, &[("message.timestamp.type", "LogAppendTime")], |server, sender| {
        let before = now_ms();
        let (timestamp, kind) = stamped(server, sender);
        let rdkafka::Timestamp::LogAppendTime(at) = timestamp else { panic!("{timestamp:?}") };
        assert!((before..=now_ms()).contains(&at) && kind == TimestampType::LogAppendTime);
    });
    over_a_kill(&mut server, &[], |server, sender| {
        let created = (rdkafka::Timestamp::CreateTime(told), TimestampType::CreateTime);
        assert_eq!(stamped(server, sender), created);
    });
}

#[test]
fn message_timestamps_may_lie_only_so_far_before_and_after() {
    let mut server = Server::start(&["--topic", "t:1"]);
    let configs =
        [("message.timestamp.before.max.ms", "60000"), ("message.timestamp.after.max.ms", "120000")];
    over_a_kill(&mut server, &configs, |_, sender| {
        for (distance_ms, is_taken) in [(-70_000, false), (-50_000, true), (110_000, true), (130_000, false)]
        {
            let sent = sender.send("t", now_ms() + distance_ms, None, b"value");
            assert_eq!(sent.err(), (!is_taken).then_some(InvalidTimestamp), "{distance_ms}");
        }
    });
}

#[test]
fn cleanup_policy_decides_whether_records_need_a_key() {
    let mut server = Server::start(&["--topic", "t:1"]);
    for policy in ["compact", "delete,compact"] {
        over_a_kill(&mut server, &[("cleanup.policy", policy)], |_, sender| {
            assert_eq!(sender.send("t", now_ms(), None, b"value"), Err(InvalidRecord));
            assert!(sender.send("t", now_ms(), Some("key"), b"value").is_ok());
        });
    }
    for policy in ["delete", ""] {
        over_a_kill(&mut server, &[("cleanup.policy", policy)], |_, sender| {
            send(sender, b"value");
        });
    }
}

#[test]
fn segment_bytes_rolls_and_bounds_a_batch() {
    let mut server = Server::start(&["--topic", "t:1:max.message.bytes=3000000"]);
    let configs = [("max.message.bytes", "3000000"), ("segment.bytes", "1048576")];
    over_a_kill(&mut server, &configs, |server, sender| {
        let before = segments(server);
        for _ in 0..3 {
            send(sender, &vec![b'v'; 700 << 10]);
        }
        assert_eq!(segments(server) - before, 3);
        assert_eq!(sender.send("t", now_ms(), None, &vec![b'v'; 1_100_000]), Err(MessageBatchTooLarge));
    });
    let before = segments(&server);
    over_a_kill(&mut server, &[("max.message.bytes", "3000000")], |server, sender| {
        send(sender, &vec![b'v'; 700 << 10]);
        assert_eq!(segments(server), before, "and a larger one rolls no more");
    });
}

#[test]
fn segment_ms_rolls_by_the_time_of_records() {
    let mut server = Server::start(&["--topic", "t:1"]);
    let began = now_ms() - 1_000_000;
    let mut at = began;
    over_a_kill(&mut server, &[("segment.ms", "1000")], |server, sender| {
        for (later_ms, more) in [(2000, 1), (1000, 0), (1, 1), (500, 0)] {
            at += later_ms;
            let before = segments(server);
            sender.send("t", at, None, b"value").unwrap();
            assert_eq!(segments(server) - before, more, "{}", at - began);
        }
    });
}

#[test]
fn segment_jitter_ms_rolls_earlier_by_chance() {
    let mut server = Server::start(&["--topic", "t:1"]);
    let mut at = now_ms() - 100_000_000;
    // Of a jitter up to the whole age, each new segment draws some: the chance that none of thirty is below half is 1 in 10^9.
    over_a_kill(&mut server, &[("segment.ms", "10000"), ("segment.jitter.ms", "10000")], |server, sender| {
        at += 20_000;
        sender.send("t", at, None, b"value").unwrap();
        let before = segments(server);
        for _ in 0..30 {
            at += 5_000;
            sender.send("t", at, None, b"value").unwrap();
        }
        // Without jitter every third record would begin one.
        let rolled = segments(server) - before;
        assert!((11..=30).contains(&rolled), "{rolled}");
    });
}

#[test]
fn segment_index_bytes_rolls_when_an_index_is_full() {
    let mut server = Server::start(&["--topic", "t:1"]);
    // Two entries by offset; one by time, for one place is kept for the end.
    let configs = [("segment.index.bytes", "24"), ("index.interval.bytes", "0")];
    over_a_kill(&mut server, &configs, |server, sender| {
        let before = segments(server);
        for _ in 0..20 {
            send(sender, b"value");
        }
        let rolled = segments(server) - before;
        assert!(rolled >= 5, "{rolled}");
        assert!(files(server, ".index").iter().all(|path| fs::metadata(path).unwrap().len() <= 24));
    });
    assert_eq!(watermarks(&server, "t"), (0, 40));
}

#[test]
fn index_interval_bytes_says_how_dense_an_index_is() {
    let mut server = Server::start(&["--topic", "t:1"]);
    let entries = |server: &mut Server, interval: &str| {
        let offset = watermarks(server, "t").1;
        configure(server, "t", &[("index.interval.bytes", interval), ("segment.ms", "1000")]);
        let at = now_ms() - 100_000_000 + offset * 1000;
        let sender = Sender::to(server, &[]);
        // Two seconds later than the last one: a segment of its own.
        for number in 0..50 {
            sender.send("t", at + 2000 + number, None, &[b'v'; 1000]).unwrap();
        }
        server.restart();
        // What closes the segment writes its index.
        Sender::to(server, &[]).send("t", at + 40_000, None, b"next").unwrap();
        let indexes = files(server, ".index");
        let sizes: Vec<_> = indexes.iter().map(|path| fs::metadata(path).unwrap().len() / 8).collect();
        *sizes.iter().max().unwrap()
    };
    let (sparse, dense) = (entries(&mut server, "20000"), entries(&mut server, "2000"));
    assert!((2..=3).contains(&sparse) && (16..=25).contains(&dense), "{sparse} {dense}");
}

#[test]
fn file_delete_delay_ms_is_how_long_removed_files_stay() {
    let eager = ["--set", "log.retention.check.interval.ms=20", "--set", "log.initial.task.delay.ms=0"];
    let mut server = Server::start(&[&eager[..], &["--topic", "t:1"]].concat());
    let old = now_ms() - 3_600_000;
    let with_delay = |delay| [("retention.ms", "60000"), ("file.delete.delay.ms", delay)];
    let expire = |server: &Server, sender: &Sender| {
        let offset = sender.send("t", old, None, b"old").unwrap();
        eventually("it is old", || (watermarks(server, "t").0 > offset).then_some(()));
    };
    over_a_kill(&mut server, &with_delay("600000"), |server, sender| {
        expire(server, sender);
        eventually("it is set aside", || (!files(server, ".log.deleted").is_empty()).then_some(()));
    });
    let left = files(&server, ".log.deleted");
    over_a_kill(&mut server, &with_delay("1"), |server, sender| {
        expire(server, sender);
        eventually("only what had more time is left", || {
            files(server, ".log.deleted").iter().all(|path| left.contains(path)).then_some(())
        });
    });
    // What retention finds at the start has its delay, too.
    eventually("a start removes what is left", || files(&server, ".log.deleted").is_empty().then_some(()));
}

#[test]
fn flush_messages_syncs_after_so_many_records() {
    let mut server = Server::start(&["--topic", "t:1", "--flush", "os", "--http-listen", "127.0.0.1:0"]);
    let syncs = |server: &Server, sender: &Sender| {
        let before = metric(server, "ottla_log_sync_seconds_count");
        for _ in 0..12 {
            send(sender, b"value");
        }
        metric(server, "ottla_log_sync_seconds_count") - before
    };
    over_a_kill(&mut server, &[], |server, sender| assert_eq!(syncs(server, sender), 0));
    over_a_kill(&mut server, &[("flush.messages", "1")], |server, sender| {
        assert_eq!(syncs(server, sender), 12);
    });
    over_a_kill(&mut server, &[("flush.messages", "4")], |server, sender| {
        let syncs = syncs(server, sender);
        assert!((3..=4).contains(&syncs), "{syncs}");
    });
}

#[test]
fn flush_ms_syncs_after_so_long() {
    let mut server = Server::start(&["--topic", "t:1", "--flush", "os", "--http-listen", "127.0.0.1:0"]);
    over_a_kill(&mut server, &[("flush.ms", "10")], |server, sender| {
        for _ in 0..3 {
            let before = metric(server, "ottla_log_sync_seconds_count");
            send(sender, b"value");
            eventually("it is synced", || {
                (metric(server, "ottla_log_sync_seconds_count") > before).then_some(())
            });
        }
    });
    over_a_kill(&mut server, &[("flush.ms", "600000")], |server, sender| {
        let now = |name| metric(server, name);
        let (syncs, unsynced) = (now("ottla_log_sync_seconds_count"), now("ottla_log_unsynced_bytes"));
        send(sender, b"value");
        assert_eq!(now("ottla_log_sync_seconds_count"), syncs);
        assert!(now("ottla_log_unsynced_bytes") > unsynced);
    });
}

#[test]
fn preallocate_takes_the_space_of_a_segment_at_once() {
    let mut server = Server::start(&["--topic", "t:1:segment.ms=1"]);
    let configs = [("preallocate", "true"), ("segment.bytes", "4194304"), ("segment.ms", "1")];
    let mut at = now_ms() - 1_000_000;
    over_a_kill(&mut server, &configs, |server, sender| {
        for _ in 0..3 {
            at += 10;
            sender.send("t", at, None, b"value").unwrap();
        }
        let sizes: Vec<_> = files(server, ".log").iter().map(|path| fs::metadata(path).unwrap()).collect();
        let (active, closed) = sizes.split_last().unwrap();
        assert_eq!(active.len(), 4 << 20);
        assert!(active.blocks() * 512 >= 4 << 20, "{}", active.blocks());
        assert!(closed.iter().all(|closed| closed.len() < 1000), "a closed one keeps only what it needs");
    });
    for stop in [Server::kill, Server::stop] {
        stop(&mut server);
        let before = files(&server, ".log").len();
        server.restart();
        assert_eq!(watermarks(&server, "t"), (0, 6));
        let values = (0..6).map(|offset| next(&consumer_at(&server, "t", offset)).unwrap().offset());
        assert!(values.eq(0..6));
        assert_eq!(segments(&server), before);
        let last = files(&server, ".log").pop().unwrap();
        assert!(fs::metadata(last).unwrap().len() < 1000, "who opens it again needs no more than there is");
    }
    assert!(!server.log().contains("cut"), "zeros are no damage: {}", server.log());
    assert_eq!(stored(&server).len(), 6);
    assert!(stored(&server).iter().all(|header| header.size_bytes() > HEADER_BYTES));
}

#[test]
fn min_insync_replicas_asks_for_no_more_than_there_are() {
    // As Kafka 4.4 takes it: what counts is the smaller of this and the number of replicas.
    let mut server = Server::start(&["--topic", "t:1"]);
    over_a_kill(&mut server, &[("min.insync.replicas", "2")], |server, _| {
        for acks in ["all", "1"] {
            let offset = send(&Sender::to(server, &[("acks", acks)]), b"value");
            assert_eq!(next(&consumer_at(server, "t", offset)).unwrap().payload(), Some(&b"value"[..]));
        }
    });
}

#[test]
fn unclean_leader_election_enable_changes_nothing_where_one_broker_leads() {
    let mut server = Server::start(&["--topic", "t:1"]);
    over_a_kill(&mut server, &[("unclean.leader.election.enable", "true")], |server, sender| {
        let offset = send(sender, b"value");
        assert_eq!(next(&consumer_at(server, "t", offset)).unwrap().payload(), Some(&b"value"[..]));
    });
}

#[test]
fn what_the_broker_is_told_at_run_time_acts_on_topics_that_say_nothing() {
    let mut server = Server::start(&["--topic", "t:1", "--topic", "own:1:compression.type=zstd"]);
    configure_broker(
        &server,
        &[("compression.type", "gzip"), ("log.message.timestamp.type", "LogAppendTime")],
    );
    for _ in 0..2 {
        let sender = Sender::to(&server, &[]);
        send(&sender, b"value");
        let header = last_stored(&server);
        assert_eq!(header.attributes.codec().unwrap(), Codec::Gzip);
        assert_eq!(header.attributes.timestamp_type(), TimestampType::LogAppendTime);
        sender.send("own", now_ms(), None, b"value").unwrap();
        let own = fs::read(server.data().join("own-0/00000000000000000000.log")).unwrap();
        assert_eq!(BatchHeader::parse(&own).unwrap().attributes.codec().unwrap(), Codec::Zstd);
        server.restart();
    }
    configure_broker(&server, &[]);
    send(&Sender::to(&server, &[]), b"value");
    assert_eq!(last_stored(&server).attributes.codec().unwrap(), Codec::None);
}
