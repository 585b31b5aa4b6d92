//! The HTTP door: what it tells, and what it takes from those who mean no good.
#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ottla::http::Doors;
use ottla::net::listener::Listener;
use ottla::protocol::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use ottla::protocol::messages::find_coordinator::FindCoordinatorRequest;
use ottla::protocol::messages::metadata::MetadataRequest;
use ottla::protocol::messages::offset_commit::{
    OffsetCommitPartition, OffsetCommitRequest, OffsetCommitTopic,
};
use ottla::protocol::messages::{CreateTopics, Fetch, FindCoordinator, Metadata, OffsetCommit};
use ottla::telemetry::names;
use ottla::{Broker, Config};

use running::{Client, PATIENCE, Server, eventually, fetch_request, numbered};

/// Connections that the door lets in at once.
const CONNECTIONS_MAX: usize = 256;

/// Longest that a scrape of ten thousand partitions may take, in a build without optimization on a busy machine.
const SCRAPE: Duration = Duration::from_secs(10);

/// An answer: status line and headers, and the body.
struct Answer {
    head: String,
    body: String,
}

impl Answer {
    fn status(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends these bytes and takes what comes until the end of the connection.
fn exchange(address: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = connect(address);
    // Who is refused early may find the socket closed while still writing.
    let _: std::io::Result<()> = stream.write_all(request);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => {}
    }
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    Answer { head: head.to_owned(), body: body.to_owned() }
}

/// In HTTP 1.0, whose bodies end with the connection.
fn ask(address: SocketAddr, method: &str, path: &str) -> Answer {
    exchange(address, format!("{method} {path} HTTP/1.0\r\n\r\n").as_bytes())
}

fn scrape(address: SocketAddr) -> String {
    let answer = ask(address, "GET", "/metrics");
    assert_eq!(answer.status(), "200", "{}", answer.head);
    answer.body
}

/// The value of a sample, named as it stands in its line.
fn value(scraped: &str, sample: &str) -> f64 {
    let value = |line: &str| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok();
    scraped.lines().find_map(value).unwrap_or_else(|| panic!("no {sample} in\n{scraped}"))
}

fn config() -> Config {
    Config::ephemeral().with("ottla.http.listeners", "127.0.0.1:0").unwrap()
}

async fn start(config: Config) -> (Broker, SocketAddr) {
    let broker = Broker::start(config).await.unwrap();
    let address = broker.http()[0];
    (broker, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_found_by_path_and_only_read() {
    let (_broker, address) = start(config()).await;
    for (method, path, status, body) in [
        ("GET", "/healthz", "200", "alive\n"),
        ("GET", "/readyz", "200", "ready\n"),
        ("GET", "/readyz?verbose", "200", "ready\n"),
        ("HEAD", "/readyz", "200", ""),
        ("HEAD", "/metrics", "200", ""),
        ("POST", "/metrics", "405", "only GET and HEAD\n"),
        ("DELETE", "/healthz", "405", "only GET and HEAD\n"),
        ("GET", "/", "404", "not found; there are /metrics, /healthz, /readyz and /queues\n"),
        ("GET", "/metrics/", "404", "not found; there are /metrics, /healthz, /readyz and /queues\n"),
    ] {
        let answer = ask(address, method, path);
        assert_eq!((answer.status(), &*answer.body), (status, body), "{method} {path}: {}", answer.head);
        assert_eq!(
            answer.head.to_lowercase().contains("allow: get, head"),
            status == "405",
            "{}",
            answer.head
        );
    }
    let answer = ask(address, "GET", "/metrics");
    assert!(answer.head.contains("text/plain; version=0.0.4; charset=utf-8"), "{}", answer.head);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_described_once_and_has_its_samples_behind_it() {
    let (broker, address) = start(config().topic("t", 1)).await;
    Client::connect(&broker.bootstrap()).append("t", ["a"]);
    let scraped = scrape(address);
    let mut described = BTreeSet::new();
    let mut current = String::new();
    for line in scraped.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            current = rest.split(' ').next().unwrap().to_owned();
            assert!(described.insert(current.clone()), "{current} twice");
        } else if !line.starts_with('#') {
            let suffix = line.strip_prefix(&*current).unwrap_or_else(|| panic!("{line} behind {current}"));
            let suffixes = ["{", " ", "_bucket{", "_sum", "_count"];
            assert!(suffixes.iter().any(|known| suffix.starts_with(known)), "{line} behind {current}");
        }
    }
    assert_eq!(described, names::ALL.iter().map(|metric| metric.name.to_owned()).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_is_counted() {
    let (broker, address) = start(config().topic("t", 2)).await;
    let mut client = Client::connect(&broker.bootstrap());
    for values in [["a", "b"], ["c", "d"]] {
        client.append("t", values);
    }
    let producer = client.new_producer();
    let batch = numbered(["e"]).producer(producer.producer_id, producer.producer_epoch, 0);
    assert_eq!(client.produce("t", 1, batch.build()).error_code, 0);
    client.fetch("t", 0, 0);
    assert_ne!(client.fetch("t", 0, 99).error_code, 0);
    let topic = CreatableTopic { num_partitions: 1, replication_factor: 1, ..Default::default() };
    let named = |name: &str| CreatableTopic { name: name.into(), ..topic.clone() };
    let topics = vec![named("t"), named("no such/name")];
    client.call::<CreateTopics>(7, &CreateTopicsRequest { topics, ..Default::default() });
    client.send_bytes(b"GET / HTTP/1.1\r\n\r\n");
    assert!(client.is_closed_unanswered());

    let scraped = scrape(address);
    for (sample, expected) in [
        ("ottla_requests_total{api=\"Produce\"}", 3.0),
        ("ottla_request_seconds_count{api=\"Produce\"}", 3.0),
        ("ottla_request_seconds_bucket{api=\"Produce\",le=\"+Inf\"}", 3.0),
        ("ottla_requests_total{api=\"Fetch\"}", 2.0),
        ("ottla_request_errors_total{api=\"Fetch\",error=\"OFFSET_OUT_OF_RANGE\"}", 1.0),
        ("ottla_request_errors_total{api=\"CreateTopics\",error=\"TOPIC_ALREADY_EXISTS\"}", 1.0),
        ("ottla_request_errors_total{api=\"CreateTopics\",error=\"INVALID_TOPIC_EXCEPTION\"}", 1.0),
        // The broker asked itself once before it called itself ready.
        ("ottla_requests_total{api=\"Metadata\"}", 1.0),
        ("ottla_connections{protocol=\"kafka\"}", 0.0),
        ("ottla_connections_accepted_total{protocol=\"kafka\"}", 2.0),
        ("ottla_connections_closed_total{protocol=\"kafka\",reason=\"malformed\"}", 1.0),
        ("ottla_connections{protocol=\"http\"}", 1.0),
        ("ottla_topics", 1.0),
        ("ottla_partitions", 2.0),
        ("ottla_producers", 1.0),
        ("ottla_queued_request_bytes", 0.0),
        ("ottla_queued_request_limit_bytes", f64::from(256 << 20)),
        ("ottla_log_unsynced_limit_bytes", f64::from(64 << 20)),
        ("ottla_partition_log_start_offset{topic=\"t\",partition=\"0\"}", 0.0),
        ("ottla_partition_high_watermark{topic=\"t\",partition=\"0\"}", 4.0),
        ("ottla_partition_log_end_offset{topic=\"t\",partition=\"0\"}", 4.0),
        ("ottla_partition_log_end_offset{topic=\"t\",partition=\"1\"}", 1.0),
        ("ottla_partition_leader_epoch{topic=\"t\",partition=\"1\"}", 0.0),
    ] {
        assert_eq!(value(&scraped, sample), expected, "{sample}");
    }
    // The catalog's log counts among the bytes that were appended, but is no topic.
    let stored = std::fs::metadata(broker.data().join("t-0/00000000000000000000.log")).unwrap().len();
    assert_eq!(value(&scraped, "ottla_partition_bytes{topic=\"t\",partition=\"0\"}"), stored as f64);
    assert!(value(&scraped, "ottla_log_appended_records_total") >= 5.0);
    assert!(value(&scraped, "ottla_response_bytes_total{api=\"Fetch\"}") > stored as f64);
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_told_with_what_they_have_committed_and_what_is_left() {
    let (broker, address) = start(config().topic("t", 2)).await;
    let mut client = Client::connect(&broker.bootstrap());
    client.append("t", ["a", "b", "c"]);
    // The first of these is refused: the coordinator's topic is made when a group is looked for.
    for group in ["quoted \"group\"", "other"] {
        let key = FindCoordinatorRequest { key: group.into(), ..Default::default() };
        eventually("the coordinator is found", || {
            (client.call::<FindCoordinator>(2, &key).error_code == 0).then_some(())
        });
        let partition = |partition_index, committed_offset| OffsetCommitPartition {
            partition_index,
            committed_offset,
            ..Default::default()
        };
        let partitions = vec![partition(0, 1), partition(1, 7)];
        let topics = vec![OffsetCommitTopic { name: "t".into(), partitions, ..Default::default() }];
        let request = OffsetCommitRequest { group_id: group.into(), topics, ..Default::default() };
        eventually("the offsets are committed", || {
            let answer = client.call::<OffsetCommit>(7, &request);
            answer.topics[0].partitions.iter().all(|partition| partition.error_code == 0).then_some(())
        });
    }
    let scraped = scrape(address);
    for group in ["quoted \\\"group\\\"", "other"] {
        for (partition, committed, lag) in [(0, 1.0, 2.0), (1, 7.0, 0.0)] {
            let labels = format!("{{group=\"{group}\",topic=\"t\",partition=\"{partition}\"}}");
            assert_eq!(value(&scraped, &format!("ottla_group_committed_offset{labels}")), committed);
            assert_eq!(value(&scraped, &format!("ottla_group_lag_records{labels}")), lag);
        }
        assert_eq!(value(&scraped, &format!("ottla_group_members{{group=\"{group}\"}}")), 0.0);
    }
    assert_eq!(value(&scraped, "ottla_groups{state=\"Empty\"}"), 2.0);
    assert_eq!(value(&scraped, "ottla_groups{state=\"Stable\"}"), 0.0);
    let used = value(&scraped, "ottla_group_coordinator_bytes");
    assert!(used > 0.0 && used < value(&scraped, "ottla_group_coordinator_limit_bytes"));
    client.delete_topic("t");
    let gone = scrape(address);
    assert!(!gone.contains("ottla_group_lag_records{"), "a topic that is gone has no lag");
}

#[tokio::test(flavor = "multi_thread")]
async fn scrapes_at_once_see_counters_that_only_rise() {
    let (broker, address) = start(config().topic("t", 1)).await;
    let (bootstrap, stop) = (broker.bootstrap(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = Client::connect(&bootstrap);
            while !stop.load(Ordering::Acquire) {
                client.append("t", ["a"]);
            }
        });
        let scrapers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let seen = (0..25).map(|_| {
                        let scraped = scrape(address);
                        let begun = value(&scraped, "ottla_requests_total{api=\"Produce\"}");
                        let watermark =
                            value(&scraped, "ottla_partition_high_watermark{topic=\"t\",partition=\"0\"}");
                        let end =
                            value(&scraped, "ottla_partition_log_end_offset{topic=\"t\",partition=\"0\"}");
                        assert!(watermark <= end);
                        (begun, end)
                    });
                    let seen: Vec<_> = seen.collect();
                    assert!(seen.is_sorted(), "{seen:?}");
                })
            })
            .collect();
        let failed = scrapers.into_iter().map(|scraper| scraper.join()).filter(Result::is_err).count();
        stop.store(true, Ordering::Release);
        assert_eq!(failed, 0);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_partitions_are_told_and_left_idle() {
    let (_broker, address) = start(config().topic("many", 10_000)).await;
    let began = Instant::now();
    let scraped = scrape(address);
    assert!(began.elapsed() < SCRAPE, "{:?}", began.elapsed());
    for metric in [names::LOG_START_OFFSET, names::HIGH_WATERMARK, names::LOG_END_OFFSET, names::LEADER_EPOCH]
    {
        let sample = format!("{}{{topic=\"many\",partition=\"", metric.name);
        let numbers = scraped.lines().filter_map(|line| line.strip_prefix(&sample)?.split('"').next());
        let numbers: Vec<usize> = numbers.map(|number| number.parse().unwrap()).collect();
        assert_eq!(numbers, (0..10_000).collect::<Vec<_>>(), "{}", metric.name);
    }
    assert_eq!(value(&scrape(address), "ottla_partitions_opened"), 0.0);
    assert!(!scraped.contains("ottla_partition_bytes{"));
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_known_after_a_clean_stop_without_opening_anything() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data").display().to_string();
    let settings =
        [("listeners", "127.0.0.1:0"), ("log.dir", &data), ("ottla.http.listeners", "127.0.0.1:0")];
    let config = Config::from_settings(settings).unwrap().topic("t", 1);
    let (broker, _) = start(config.clone()).await;
    Client::connect(&broker.bootstrap()).append("t", ["a", "b", "c"]);
    broker.stop().await;
    let (broker, address) = start(config).await;
    for opened in [0.0, 1.0] {
        let scraped = scrape(address);
        assert_eq!(value(&scraped, "ottla_partition_log_end_offset{topic=\"t\",partition=\"0\"}"), 3.0);
        assert_eq!(value(&scraped, "ottla_partition_high_watermark{topic=\"t\",partition=\"0\"}"), 3.0);
        assert_eq!(value(&scraped, "ottla_partitions_opened"), opened);
        assert_eq!(scraped.contains("ottla_partition_bytes{"), opened == 1.0);
        Client::connect(&broker.bootstrap()).fetch("t", 0, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_has_not_started_lives_but_is_not_ready() {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let doors = Doors::open(vec![listener], PATIENCE).unwrap();
    let address = doors.addresses()[0];
    assert_eq!(ask(address, "GET", "/healthz").status(), "200");
    for path in ["/readyz", "/metrics"] {
        let answer = ask(address, "GET", path);
        assert_eq!((answer.status(), &*answer.body), ("503", "starting\n"));
    }
    drop(doors);
    assert!(TcpStream::connect(address).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_stops_says_so_and_is_not_held_up_by_who_asks() {
    let (broker, address) = start(config().topic("t", 1)).await;
    let mut client = Client::connect(&broker.bootstrap());
    for _ in 0..32 {
        client.produce("t", 0, numbered(["x".repeat(1 << 20)]).build());
    }
    // More than the socket holds, and never read: the stop waits for it as long as it waits for anyone.
    client.send::<Fetch>(
        12,
        &ottla::protocol::messages::fetch::FetchRequest { max_bytes: i32::MAX, ..fetch_request("t", 0, 0) },
    );
    eventually("the answer fills the socket", || {
        (value(&scrape(address), "ottla_requests_total{api=\"Fetch\"}") == 1.0).then_some(())
    });
    let mut half = connect(address);
    half.write_all(b"GET /metrics HT").unwrap();
    let asked = Instant::now();
    let stopping = tokio::spawn(broker.stop());
    eventually("not ready while stopping", || {
        let answer = ask(address, "GET", "/readyz");
        (answer.status() == "503" && answer.body == "stopping\n").then_some(())
    });
    stopping.await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert!(TcpStream::connect(address).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_refused_and_harms_nobody() {
    let (_broker, address) = start(config()).await;
    let long_path = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000));
    let big_header = format!("GET /healthz HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(100_000));
    let many_headers = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(65));
    for (request, refusals) in [
        (long_path.as_bytes(), &["414", "431"][..]),
        (big_header.as_bytes(), &["431"]),
        (many_headers.as_bytes(), &["431"]),
        (b"\x00\x00\x00\x10\x00\x12\x00\x04", &["400"]),
        (b"GET /healthz HTTP/9.9\r\n\r\n", &["400"]),
        (b"GET /hea\xff\xfelthz HTTP/1.1\r\nx\x00: y\r\n\r\n", &["400"]),
        (b"POST /healthz HTTP/1.1\r\ncontent-length: x\r\n\r\n", &["400"]),
    ] {
        let answer = exchange(address, request);
        // A peer that is still writing may only see its connection reset.
        let refused = refusals.contains(&answer.status()) || answer.head.is_empty();
        assert!(refused, "{:?}: {}", String::from_utf8_lossy(&request[..20]), answer.head);
    }
    assert_eq!(ask(address, "GET", "/healthz").status(), "200");
    let scraped = scrape(address);
    assert!(value(&scraped, "ottla_connections_closed_total{protocol=\"http\",reason=\"malformed\"}") >= 6.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_slowly_or_nothing_keeps_nobody_out_for_long() {
    let (broker, address) = start(config().with("connections.max.idle.ms", "500").unwrap()).await;
    let mut held: Vec<_> = (0..CONNECTIONS_MAX).map(|_| connect(address)).collect();
    for (number, stream) in held.iter_mut().enumerate() {
        // Silent, in the middle of a line, after a request that was answered.
        let sent: &[u8] = [&b""[..], b"GET /he", b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"][number % 3];
        stream.write_all(sent).unwrap();
    }
    // Every place is taken: this one waits until they have been idle for too long.
    assert_eq!(ask(address, "GET", "/healthz").status(), "200");
    for stream in &mut held {
        let mut rest = Vec::new();
        let _: std::io::Result<usize> = stream.read_to_end(&mut rest);
    }
    eventually("their places are free", || {
        (value(&scrape(address), "ottla_connections{protocol=\"http\"}") == 1.0).then_some(())
    });
    // The other door was never in question.
    let mut client = Client::connect(&broker.bootstrap());
    assert_eq!(client.call::<Metadata>(13, &MetadataRequest::default()).brokers.len(), 1);
}

#[test]
fn the_start_line_tells_the_address_and_the_port_is_free_after_a_stop() {
    let mut server = Server::start(&["--http-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]);
    server.wait_for_log("http=\"");
    let log = server.log();
    let told = log.split("http=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let addresses: Vec<SocketAddr> = told.split(',').map(|address| address.parse().unwrap()).collect();
    assert_eq!(addresses.len(), 2);
    for address in &addresses {
        assert_eq!(ask(*address, "GET", "/readyz").body, "ready\n");
    }
    server.stop();
    assert!(addresses.iter().all(|address| TcpStream::connect(address).is_err()));
    server.restart_with(&[]);
    assert_eq!(server.log().matches("http=").count(), 1, "off by default");
}
