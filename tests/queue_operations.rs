//! Queues as a program sees them that has the broker within: the operations that all doors end at.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ottla::operations::{
    Delivery, Fate, Outgoing, QueueDoor, QueueRefusal, Receipt, SendRefusal, SettleRefusal, Sweep, Wanted,
};
use ottla::queue::Settlement;
use ottla::storage::simulated::SimulatedDisk;
use ottla::{Broker, Config};
use rdkafka::ClientConfig;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rustix::io::Errno;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(20);

async fn broker() -> Broker {
    Broker::start(Config::ephemeral()).await.unwrap()
}

/// A broker that finds what one before it has left in `data`.
async fn lasting(data: &tempfile::TempDir) -> Broker {
    let path = data.path().to_str().unwrap();
    let config = Config::ephemeral().with("ottla.ephemeral", "false").unwrap();
    Broker::start(config.with("log.dirs", path).unwrap()).await.unwrap()
}

async fn make(door: &QueueDoor, name: &str, settings: &[(&str, &str)]) {
    let configs =
        settings.iter().map(|(key, value)| (format!("ottla.queue.{key}"), (*value).to_owned())).collect();
    door.create(name, None, configs).await.unwrap();
}

fn message(body: &str) -> Outgoing {
    Outgoing { body: Bytes::copy_from_slice(body.as_bytes()), ..Default::default() }
}

async fn send(door: &QueueDoor, queue: &str, messages: Vec<Outgoing>) -> Vec<String> {
    let sent = door.send(queue, messages).await.unwrap();
    sent.into_iter().map(|sent| sent.unwrap().message_id).collect()
}

async fn send_bodies(door: &QueueDoor, queue: &str, bodies: &[&str]) -> Vec<String> {
    send(door, queue, bodies.iter().map(|body| message(body)).collect()).await
}

async fn take(door: &QueueDoor, queue: &str, max: usize) -> Vec<Delivery> {
    door.receive(queue, Wanted { max, visibility_ms: None, wait: Some(Duration::ZERO) }).await.unwrap()
}

/// Waits for the first.
async fn wait(door: &QueueDoor, queue: &str, max: usize) -> Vec<Delivery> {
    door.receive(queue, Wanted { max, visibility_ms: None, wait: Some(LONG) }).await.unwrap()
}

/// Somebody who waits for a message of a queue.
fn waiting(door: &QueueDoor, queue: &'static str) -> JoinHandle<Vec<Delivery>> {
    let door = door.clone();
    tokio::spawn(async move { wait(&door, queue, 1).await })
}

fn bodies(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|delivery| std::str::from_utf8(&delivery.body).unwrap()).collect()
}

async fn settle(
    door: &QueueDoor,
    queue: &str,
    receipt: Receipt,
    what: Settlement,
) -> Result<(), SettleRefusal> {
    door.settle(queue, vec![(receipt, what)]).await.unwrap().remove(0)
}

/// Waits until it is so.
async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn depth(door: &QueueDoor, queue: &str) -> (i64, i64, i64) {
    let counts = door.counts(queue).await.unwrap();
    (counts.ready, counts.in_flight, counts.delayed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_lent_until_it_is_done() {
    let broker = broker().await;
    let door = broker.queues();
    make(door, "q", &[("visibility.timeout.ms", "300")]).await;
    let ids = send_bodies(door, "q", &["a", "b", "c"]).await;
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 3);
    assert_eq!(depth(door, "q").await, (3, 0, 0));

    let first = take(door, "q", 2).await;
    assert_eq!(bodies(&first), ["a", "b"]);
    assert_eq!(first.iter().map(|delivery| &delivery.message_id).collect::<Vec<_>>(), [&ids[0], &ids[1]]);
    assert_eq!(depth(door, "q").await, (1, 2, 0));
    assert_eq!(bodies(&take(door, "q", 10).await), ["c"]);
    assert_eq!(bodies(&take(door, "q", 10).await), Vec::<&str>::new());

    assert_eq!(settle(door, "q", first[0].receipt, Settlement::Done).await, Ok(()));
    assert_eq!(settle(door, "q", first[1].receipt, Settlement::Extend { for_ms: 60_000 }).await, Ok(()));
    assert_eq!(depth(door, "q").await, (0, 2, 0));
    // Of the three one is done and one is kept: the third comes back.
    let again = wait(door, "q", 10).await;
    assert_eq!(bodies(&again), ["c"]);
    assert_eq!((again[0].deliveries, &again[0].message_id), (2, &ids[2]));
    assert!(again[0].first_received_ms < door.now_ms());
    assert_eq!(settle(door, "q", again[0].receipt, Settlement::Done).await, Ok(()));
    let stale = Receipt { deliveries: 1, ..again[0].receipt };
    assert!(settle(door, "q", stale, Settlement::Extend { for_ms: 1_000 }).await.is_err());
    assert_eq!(depth(door, "q").await, (0, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_gets_the_first_message_at_once() {
    let broker = broker().await;
    let door = broker.queues();
    make(door, "q", &[]).await;
    let none = Instant::now();
    let wanted = Wanted { max: 1, visibility_ms: None, wait: Some(SOON) };
    assert_eq!(door.receive("q", wanted).await.unwrap(), []);
    assert!(none.elapsed() >= SOON);

    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let door = door.clone();
            tokio::spawn(async move { wait(&door, "q", 1).await })
        })
        .collect();
    let sent: BTreeSet<String> = (0..20).map(|n| n.to_string()).collect();
    for body in &sent {
        send_bodies(door, "q", &[body]).await;
    }
    let mut received = BTreeSet::new();
    for waiting in waiting {
        received.extend(bodies(&waiting.await.unwrap()).into_iter().map(str::to_owned));
    }
    assert_eq!(received, sent, "each waited for one, and each has got another");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_gone_takes_nothing_along() {
    let broker = broker().await;
    let door = broker.queues();
    make(door, "q", &[]).await;
    for _ in 0..10 {
        let (gone, stays) = (door.clone(), door.clone());
        let gone = tokio::spawn(async move { wait(&gone, "q", 1).await });
        let stays = tokio::spawn(async move { wait(&stays, "q", 1).await });
        tokio::time::sleep(Duration::from_millis(10)).await;
        gone.abort();
        send_bodies(door, "q", &["x"]).await;
        let received = tokio::time::timeout(LONG / 2, stays).await.expect("the other one is told").unwrap();
        assert_eq!(bodies(&received), ["x"]);
        assert_eq!(settle(door, "q", received[0].receipt, Settlement::Done).await, Ok(()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn delays_keep_messages_but_block_none() {
    let broker = broker().await;
    let door = broker.queues();
    make(door, "q", &[("backoff.ms", "300")]).await;
    let late = Outgoing { delay_ms: Some(400), ..message("late") };
    let sent = Instant::now();
    send(door, "q", vec![late, message("now")]).await;
    let now = take(door, "q", 10).await;
    assert_eq!(bodies(&now), ["now"]);
    assert_eq!(depth(door, "q").await, (0, 1, 1));
    let back = Settlement::Return { after_ms: None };
    assert_eq!(settle(door, "q", now[0].receipt, back).await, Ok(()));
    let returned = Instant::now();
    assert_eq!(depth(door, "q").await, (0, 0, 2));
    let (mut came, mut when) = (Vec::new(), Vec::new());
    while came.len() < 2 {
        for delivery in wait(door, "q", 10).await {
            came.push(String::from_utf8(delivery.body.to_vec()).unwrap());
            when.push(Instant::now());
        }
    }
    let at = |body: &str| when[came.iter().position(|came| came == body).unwrap()];
    assert!(at("late") - sent >= Duration::from_millis(399));
    assert!(at("now") - returned >= Duration::from_millis(299));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_deal_with_goes_to_the_dead_letters() {
    let broker = broker().await;
    let door = broker.queues();
    make(door, "dead", &[]).await;
    make(door, "q", &[("max.receive.count", "2"), ("dead.letter.queue", "dead")]).await;
    let poison =
        Outgoing { headers: vec![("kind".to_owned(), Bytes::from_static(b"poison"))], ..message("bad") };
    let ids = send(door, "q", vec![poison, message("good")]).await;
    for round in 1..=2 {
        let received = take(door, "q", 1).await;
        assert_eq!((bodies(&received), received[0].deliveries), (vec!["bad"], round));
        let back = Settlement::Return { after_ms: Some(0) };
        assert_eq!(settle(door, "q", received[0].receipt, back).await, Ok(()));
    }
    // It does not take another receive to find that it is dead.
    let letters = wait(door, "dead", 10).await;
    assert_eq!(bodies(&letters), ["bad"]);
    let good = take(door, "q", 10).await;
    assert_eq!(bodies(&good), ["good"]);
    let letter = &letters[0];
    assert_eq!((&letter.message_id, letter.deliveries), (&ids[0], 3), "its id stays, and its count goes on");
    let of = |name: &str| letter.headers.iter().find(|(key, _)| key == name).map(|(_, value)| &value[..]);
    assert_eq!(of("kind"), Some(&b"poison"[..]));
    assert_eq!(of("ottla.dead-letter.queue"), Some(&b"q"[..]));
    assert_eq!(of("ottla.dead-letter.reason"), Some(&b"max-receive-count"[..]));
    assert_eq!(settle(door, "q", good[0].receipt, Settlement::Reject).await, Ok(()));
    let letters = wait(door, "dead", 10).await;
    assert_eq!(bodies(&letters), ["good"]);
    assert_eq!(depth(door, "q").await, (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_message_is_sent_once() {
    let broker = broker().await;
    let door = broker.queues();
    make(door, "q", &[]).await;
    let named = |id: &str, body: &str| Outgoing { dedup_id: Some(id.to_owned()), ..message(body) };
    let sent = door
        .send("q", vec![named("1", "a"), named("1", "b"), named("2", "c"), message("d"), message("d")])
        .await
        .unwrap();
    let sent: Vec<_> = sent.into_iter().map(Result::unwrap).collect();
    assert_eq!(
        sent.iter().map(|sent| sent.is_duplicate).collect::<Vec<_>>(),
        [false, true, false, false, false]
    );
    assert_eq!(sent[0].message_id, sent[1].message_id);
    assert!(door.send("q", vec![named("2", "e")]).await.unwrap()[0].as_ref().unwrap().is_duplicate);
    assert_eq!(bodies(&take(door, "q", 10).await), ["a", "c", "d", "d"]);
    door.purge("q").await.unwrap();
    assert_eq!(depth(door, "q").await, (0, 0, 0));
    assert!(!door.send("q", vec![named("1", "a")]).await.unwrap()[0].as_ref().unwrap().is_duplicate);
    assert_eq!(bodies(&take(door, "q", 10).await), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_counts_and_what_is_done_outlive_the_broker() {
    let data = tempfile::tempdir().unwrap();
    let broker = lasting(&data).await;
    let door = broker.queues();
    make(door, "q", &[]).await;
    let sent = vec![
        message("done"),
        message("held"),
        message("returned"),
        Outgoing { delay_ms: Some(3_600_000), ..message("later") },
        Outgoing { dedup_id: Some("x".to_owned()), ..message("untouched") },
    ];
    send(door, "q", sent).await;
    let received = take(door, "q", 3).await;
    assert_eq!(bodies(&received), ["done", "held", "returned"]);
    assert_eq!(settle(door, "q", received[0].receipt, Settlement::Done).await, Ok(()));
    let back = Settlement::Return { after_ms: Some(0) };
    assert_eq!(settle(door, "q", received[2].receipt, back).await, Ok(()));
    let held = received[1].receipt;
    // As if killed.
    drop(broker);

    let broker = lasting(&data).await;
    let door = broker.queues();
    assert_eq!(depth(door, "q").await, (2, 1, 1));
    let again = Outgoing { dedup_id: Some("x".to_owned()), ..message("again") };
    assert!(door.send("q", vec![again]).await.unwrap()[0].as_ref().unwrap().is_duplicate);
    let received = take(door, "q", 10).await;
    let seen: Vec<_> = bodies(&received).into_iter().zip(received.iter().map(|one| one.deliveries)).collect();
    assert_eq!(seen, [("returned", 2), ("untouched", 1)]);
    assert_eq!(settle(door, "q", held, Settlement::Done).await, Ok(()));
    assert_eq!(depth(door, "q").await, (0, 2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_a_restart_is_repeated_by_nobody_after_it() {
    let data = tempfile::tempdir().unwrap();
    let broker = lasting(&data).await;
    let door = broker.queues();
    make(door, "q", &[]).await;
    let named = |id: usize| Outgoing { dedup_id: Some(id.to_string()), ..message(&"x".repeat(1_000)) };
    let is_duplicate = async |door: &QueueDoor, id: usize| {
        door.send("q", vec![named(id)]).await.unwrap()[0].as_ref().unwrap().is_duplicate
    };
    // Several reads of it.
    for first in (0..400).step_by(100) {
        send(door, "q", (first..first + 100).map(named).collect()).await;
    }
    let done = take(door, "q", 1).await.remove(0);
    assert_eq!(settle(door, "q", done.receipt, Settlement::Done).await, Ok(()));
    let producer: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", broker.bootstrap()).create().unwrap();
    for repeated in ["0", "399"] {
        let id = rdkafka::message::Header { key: "ottla.dedup-id", value: Some(repeated) };
        let record =
            FutureRecord::<(), _>::to("q").payload("repeats").headers(OwnedHeaders::new().insert(id));
        producer.send(record, LONG).await.unwrap();
    }
    drop((producer, broker));

    let broker = lasting(&data).await;
    let door = broker.queues();
    // The first read is enough for that.
    assert_eq!(take(door, "q", 1).await.len(), 1);
    for id in [0, 1, 200, 399] {
        assert!(is_duplicate(door, id).await, "{id}");
    }
    assert!(!is_duplicate(door, 400).await);
    assert_eq!(depth(door, "q").await, (399, 1, 0));
    drop(broker);

    let broker = lasting(&data).await;
    let door = broker.queues();
    assert_eq!(depth(door, "q").await, (399, 1, 0));
    drop(broker);

    let broker = lasting(&data).await;
    let door = broker.queues();
    door.purge("q").await.unwrap();
    assert!(!is_duplicate(door, 200).await, "it was purged");
    assert!(is_duplicate(door, 200).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_refused() {
    let broker = broker().await;
    let door = broker.queues();
    assert!(
        matches!(door.send("q", vec![message("a")]).await, Err(QueueRefusal::Unknown(name)) if name == "q")
    );
    make(door, "q", &[]).await;
    let twice = door.create("q", None, Default::default()).await;
    assert!(matches!(twice, Err(QueueRefusal::Exists(name)) if name == "q"));
    let bad = [("ottla.queue.delay.ms".to_owned(), "soon".to_owned())].into();
    assert!(matches!(door.create("r", None, bad).await, Err(QueueRefusal::InvalidConfig(_))));
    assert!(matches!(door.create("a/b", None, Default::default()).await, Err(QueueRefusal::InvalidName(_))));
    let large = message(&"x".repeat(2 << 20));
    let sent = door.send("q", vec![message("small"), large, message("next")]).await.unwrap();
    assert_eq!(sent.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    let received = take(door, "q", 10).await;
    assert_eq!(bodies(&received), ["small", "next"]);
    make(door, "other", &[]).await;
    assert_eq!(
        settle(door, "other", received[0].receipt, Settlement::Done).await,
        Err(SettleRefusal::OtherQueue)
    );
    door.delete("q").await.unwrap();
    assert!(matches!(door.counts("q").await, Err(QueueRefusal::Unknown(_))));
    make(door, "q", &[]).await;
    assert_eq!(depth(door, "q").await, (0, 0, 0), "another queue of the same name");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_or_makes_way_as_it_is_told() {
    let broker = broker().await;
    let door = broker.queues();
    make(door, "strict", &[("max.messages", "3")]).await;
    let sent = door.send("strict", ["a", "b", "c", "d"].map(message).into()).await.unwrap();
    let is_sent: Vec<_> = sent.iter().map(Result::is_ok).collect();
    assert_eq!(is_sent, [true, true, true, false]);
    assert!(matches!(sent[3], Err(SendRefusal::Overflow)));
    let first = take(door, "strict", 1).await;
    assert!(door.send("strict", vec![message("d")]).await.unwrap()[0].is_err(), "what is in flight counts");
    assert_eq!(settle(door, "strict", first[0].receipt, Settlement::Done).await, Ok(()));
    assert!(door.send("strict", vec![message("d")]).await.unwrap()[0].is_ok());

    make(door, "dead", &[]).await;
    make(door, "last", &[("max.messages", "2"), ("overflow", "drop-oldest"), ("dead.letter.queue", "dead")])
        .await;
    send_bodies(door, "last", &["a", "b", "c", "d", "e"]).await;
    assert_eq!(depth(door, "last").await, (2, 0, 0));
    assert_eq!(bodies(&take(door, "last", 10).await), ["d", "e"]);
    assert_eq!(depth(door, "dead").await, (0, 0, 0), "what is dropped is no dead letter");

    let kept = [("max.messages", "2"), ("overflow", "dead-letter-oldest"), ("dead.letter.queue", "dead")];
    make(door, "kept", &kept).await;
    send_bodies(door, "kept", &["a", "b", "c"]).await;
    assert_eq!(bodies(&take(door, "kept", 10).await), ["b", "c"]);
    let letter = wait(door, "dead", 10).await.remove(0);
    let said = |name: &str| {
        letter.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone()).unwrap()
    };
    assert_eq!((&letter.body[..], letter.deliveries), (&b"a"[..], 1), "it is received for the first time");
    assert_eq!(
        (&said("ottla.dead-letter.reason")[..], &said("ottla.dead-letter.deliveries")[..]),
        (&b"overflow"[..], &b"0"[..])
    );

    make(door, "heavy", &[("max.bytes", "1000")]).await;
    let sent = door.send("heavy", vec![message(&"x".repeat(1_000))]).await.unwrap();
    assert!(sent[0].is_ok(), "it was empty");
    assert!(door.send("heavy", vec![message("y")]).await.unwrap()[0].is_err());
    let first = take(door, "heavy", 1).await;
    assert_eq!(settle(door, "heavy", first[0].receipt, Settlement::Done).await, Ok(()));
    assert!(door.send("heavy", vec![message("y")]).await.unwrap()[0].is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_producer_tries_again_until_a_full_queue_has_room() {
    let broker = broker().await;
    let door = broker.queues();
    make(door, "q", &[("max.messages", "3")]).await;
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .set("linger.ms", "0")
        .set("batch.num.messages", "1")
        .set("retry.backoff.ms", "20")
        .set("retry.backoff.max.ms", "50")
        .create()
        .unwrap();
    let sending: Vec<_> = (0..8)
        .map(|number| {
            let producer = producer.clone();
            tokio::spawn(async move {
                let body = number.to_string();
                let record = FutureRecord::<(), _>::to("q").payload(&body);
                producer.send(record, LONG).await.map(|_| ()).map_err(|(error, _)| error)
            })
        })
        .collect();
    let mut received = BTreeSet::new();
    while received.len() < 8 {
        let (ready, in_flight, delayed) = depth(door, "q").await;
        assert!(ready + in_flight + delayed <= 3);
        for delivery in wait(door, "q", 1).await {
            received.insert(String::from_utf8(delivery.body.to_vec()).unwrap());
            assert_eq!(settle(door, "q", delivery.receipt, Settlement::Done).await, Ok(()));
        }
    }
    for sent in sending {
        assert_eq!(sent.await.unwrap(), Ok(()));
    }
    assert_eq!(depth(door, "q").await, (0, 0, 0));
}

/// What a scrape says.
async fn scrape(broker: &Broker) -> String {
    let address = broker.http()[0];
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    answer.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_what_a_queue_holds_and_what_has_become_of_its_messages() {
    let config = Config::ephemeral().with("ottla.http.listeners", "127.0.0.1:0").unwrap();
    let broker = Broker::start(config).await.unwrap();
    let door = broker.queues();
    make(door, "dead", &[]).await;
    make(door, "q", &[("dead.letter.queue", "dead")]).await;
    let late = Outgoing { delay_ms: Some(60_000), ..message("late") };
    send(door, "q", vec![message("a"), message("b"), message("c"), message("d"), late]).await;
    assert!(take(door, "dead", 1).await.is_empty());
    let received = take(door, "q", 3).await;
    assert_eq!(settle(door, "q", received[0].receipt, Settlement::Done).await, Ok(()));
    assert_eq!(settle(door, "q", received[1].receipt, Settlement::Reject).await, Ok(()));
    let back = Settlement::Return { after_ms: Some(0) };
    assert_eq!(settle(door, "q", received[2].receipt, back).await, Ok(()));
    assert_eq!(wait(door, "dead", 1).await.len(), 1);
    assert_eq!(take(door, "q", 1).await[0].deliveries, 2);
    let text = scrape(&broker).await;
    for line in [
        r#"ottla_queue_messages{queue="q",state="ready"} 1"#,
        r#"ottla_queue_messages{queue="q",state="in_flight"} 1"#,
        r#"ottla_queue_messages{queue="q",state="delayed"} 1"#,
        r#"ottla_queue_messages{queue="dead",state="in_flight"} 1"#,
        r#"ottla_queue_sent_total{queue="q"} 5"#,
        r#"ottla_queue_received_total{queue="q"} 4"#,
        r#"ottla_queue_redeliveries_total{queue="q"} 1"#,
        r#"ottla_queue_acknowledged_total{queue="q"} 1"#,
        r#"ottla_queue_rejected_total{queue="q"} 1"#,
        r#"ottla_queue_released_total{queue="q"} 1"#,
        r#"ottla_queue_dead_lettered_total{queue="q"} 1"#,
        r#"ottla_queue_empty_receives_total{queue="dead"} 1"#,
        r#"ottla_queue_wait_seconds_count{queue="q"} 3"#,
        r#"ottla_queue_processing_seconds_count{queue="q"} 2"#,
        r#"ottla_queue_waiting_receivers{queue="q"} 0"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    assert!(text.contains(r#"ottla_queue_oldest_age_seconds{queue="q"}"#));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_and_need_not_be_kept_leaves_the_disk() {
    let broker = broker().await;
    let door = broker.queues();
    let body = "x".repeat(400_000);
    let segments = |queue: &str| {
        let files = std::fs::read_dir(broker.data().join(format!("{queue}-0"))).unwrap();
        files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|end| end == "log")).count()
    };
    for (queue, keep, window) in [("kept", "true", "0"), ("gone", "false", "0"), ("recent", "false", "60000")]
    {
        let settings = [("enable", "true"), ("keep.acknowledged", keep), ("dedup.window.ms", window)];
        let mut configs: std::collections::BTreeMap<_, _> =
            settings.map(|(key, value)| (format!("ottla.queue.{key}"), value.to_owned())).into();
        configs.insert("segment.bytes".to_owned(), "1500000".to_owned());
        door.create(queue, None, configs).await.unwrap();
        for _ in 0..12 {
            send(door, queue, vec![message(&body)]).await;
        }
        assert!(segments(queue) >= 4, "{}", segments(queue));
        for delivery in take(door, queue, 12).await {
            assert_eq!(settle(door, queue, delivery.receipt, Settlement::Done).await, Ok(()));
        }
    }
    let deadline = Instant::now() + LONG;
    while segments("gone") > 1 {
        assert!(Instant::now() < deadline, "{} segments are left", segments("gone"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(segments("kept") >= 4 && segments("recent") >= 4);
    send_bodies(door, "gone", &["next"]).await;
    assert_eq!(bodies(&take(door, "gone", 10).await), ["next"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_higher_priority_comes_first_however_far_back_it_was_sent() {
    let broker = broker().await;
    let door = broker.queues();
    make(door, "q", &[("priorities", "3")]).await;
    let low = "x".repeat(100_000);
    for _ in 0..10 {
        send(door, "q", vec![message(&low)]).await;
    }
    send(door, "q", vec![Outgoing { priority: Some(1), ..message("middle") }]).await;
    send(door, "q", vec![Outgoing { priority: Some(2), ..message("high") }]).await;
    assert_eq!(bodies(&take(door, "q", 2).await), ["high", "middle"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_whose_deliveries_fail_pauses_until_a_probe_succeeds() {
    let broker = broker().await;
    let door = broker.queues();
    make(door, "q", &[("breaker.failure.ratio", "0.5"), ("breaker.window", "4")]).await;
    send_bodies(door, "q", &["a", "b", "c", "d", "e", "f", "g"]).await;
    let settlements = [Settlement::Done, Settlement::Done, Settlement::Reject, Settlement::Reject];
    for (delivery, what) in take(door, "q", 4).await.into_iter().zip(settlements) {
        assert_eq!(settle(door, "q", delivery.receipt, what).await, Ok(()));
    }
    assert!(take(door, "q", 10).await.is_empty(), "half of the last four have failed");
    assert_eq!(depth(door, "q").await, (3, 0, 0));
    let probe = wait(door, "q", 10).await;
    assert_eq!(bodies(&probe), ["e"]);
    assert!(take(door, "q", 10).await.is_empty());
    assert_eq!(settle(door, "q", probe[0].receipt, Settlement::Done).await, Ok(()));
    assert_eq!(bodies(&take(door, "q", 10).await), ["f", "g"]);
}

/// Rejects all that can be had.
async fn reject_all(door: &QueueDoor, queue: &str) {
    for delivery in take(door, queue, 100).await {
        assert_eq!(settle(door, queue, delivery.receipt, Settlement::Reject).await, Ok(()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn making_way_spares_the_dead_that_wait_for_their_queue() {
    let broker = broker().await;
    let door = broker.queues();
    let settings = [("max.messages", "2"), ("overflow", "drop-oldest"), ("dead.letter.queue", "later")];
    make(door, "q", &settings).await;
    send_bodies(door, "q", &["dead"]).await;
    reject_all(door, "q").await;
    send_bodies(door, "q", &["a", "b", "c", "d"]).await;
    assert_eq!(depth(door, "q").await, (2, 0, 0));
    make(door, "later", &[]).await;
    assert_eq!(bodies(&take(door, "q", 10).await), ["c", "d"]);
    assert_eq!(bodies(&wait(door, "later", 10).await), ["dead"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_make_way_at_once_leave_as_many_as_there_may_be() {
    let broker = broker().await;
    let door = broker.queues();
    make(door, "q", &[("max.messages", "50"), ("overflow", "drop-oldest")]).await;
    send_bodies(door, "q", &["x"; 50]).await;
    let sending: Vec<_> = (0..32)
        .map(|_| {
            let door = door.clone();
            tokio::spawn(async move { send_bodies(&door, "q", &["y"; 5]).await })
        })
        .collect();
    for sending in sending {
        sending.await.unwrap();
    }
    assert_eq!(depth(door, "q").await, (50, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_repeat_nothing_and_none_holds_up_the_others() {
    let broker = broker().await;
    let door = broker.queues();
    make(door, "dead", &[("dedup.content", "true"), ("max.message.bytes", "1024")]).await;
    make(door, "q", &[("dead.letter.queue", "dead"), ("dedup.window.ms", "0")]).await;
    let named = || Outgoing { dedup_id: Some("x".to_owned()), ..message("same") };
    send(door, "q", vec![named(), message(&"large".repeat(20_000)), named(), message("small")]).await;
    reject_all(door, "q").await;
    let mut letters = Vec::new();
    while letters.len() < 3 {
        letters.extend(wait(door, "dead", 10).await);
    }
    assert_eq!(bodies(&letters), ["same", "same", "small"]);
    assert!(take(door, "dead", 10).await.is_empty(), "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_gets_what_other_settings_allow() {
    let broker = broker().await;
    let door = broker.queues();
    make(door, "q", &[("key.concurrency", "1")]).await;
    let of_key = |body| Outgoing { key: Some(Bytes::from_static(b"k")), ..message(body) };
    send(door, "q", vec![of_key("a"), of_key("b")]).await;
    assert_eq!(bodies(&take(door, "q", 10).await), ["a"]);
    let waiting = waiting(door, "q");
    tokio::time::sleep(SOON).await;
    let change = ("ottla.queue.key.concurrency".to_owned(), Some("2".to_owned()));
    door.configure("q", vec![change]).await.unwrap();
    let found = tokio::time::timeout(LONG / 2, waiting).await.expect("told of the change").unwrap();
    assert_eq!(bodies(&found), ["b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_goes_by_what_the_queue_is_by_then() {
    let broker = broker().await;
    let door = broker.queues();
    make(door, "q", &[]).await;
    make(door, "dead", &[]).await;
    send_bodies(door, "q", &["bad"]).await;
    let bad = take(door, "q", 1).await.remove(0);
    let waiting = waiting(door, "q");
    tokio::time::sleep(SOON).await;
    let change = ("ottla.queue.dead.letter.queue".to_owned(), Some("dead".to_owned()));
    door.configure("q", vec![change]).await.unwrap();
    assert_eq!(settle(door, "q", bad.receipt, Settlement::Return { after_ms: Some(0) }).await, Ok(()));
    let bad = waiting.await.unwrap().remove(0);
    let deleted = {
        let door = door.clone();
        let wanted = Wanted { max: 1, visibility_ms: None, wait: Some(LONG) };
        tokio::spawn(async move { door.receive("q", wanted).await })
    };
    assert_eq!(settle(door, "q", bad.receipt, Settlement::Reject).await, Ok(()));
    assert_eq!(bodies(&wait(door, "dead", 1).await), ["bad"]);
    door.delete("q").await.unwrap();
    assert!(matches!(deleted.await.unwrap(), Err(QueueRefusal::Unknown(name)) if name == "q"));
}

#[tokio::test(flavor = "multi_thread")]
async fn repetitions_are_found_in_all_partitions_and_no_delay_outlasts_the_messages() {
    let broker = broker().await;
    let door = broker.queues();
    let partitioned = [("ottla.queue.retention.ms".to_owned(), "60000".to_owned())];
    door.create("q", Some(5), partitioned.into()).await.unwrap();
    let named = |id: &str| Outgoing { dedup_id: Some(id.to_owned()), ..message(id) };
    for _ in 0..3 {
        send(door, "q", ["a", "b", "c", "d"].map(named).into()).await;
    }
    assert_eq!(depth(door, "q").await, (4, 0, 0));
    let at = (door.now_ms() + 120_000).to_string();
    let late =
        Outgoing { headers: vec![("ottla.deliver-at".to_owned(), Bytes::from(at))], ..message("late") };
    let sent = door.send("q", vec![late]).await.unwrap().remove(0);
    assert!(matches!(sent, Err(SendRefusal::Invalid(_))), "{sent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn senders_at_the_same_moment_fill_a_queue_and_no_more() {
    let broker = broker().await;
    let door = broker.queues();
    make(door, "q", &[("max.messages", "10")]).await;
    let known = || Outgoing { dedup_id: Some("known".to_owned()), ..message("first") };
    send(door, "q", vec![known()]).await;
    let sending: Vec<_> = (0..40)
        .map(|_| {
            let door = door.clone();
            tokio::spawn(async move { door.send("q", vec![message("m")]).await.unwrap().remove(0) })
        })
        .collect();
    let mut taken = 0;
    for sent in sending {
        match sent.await.unwrap() {
            Ok(_) => taken += 1,
            Err(refusal) => assert!(matches!(refusal, SendRefusal::Overflow), "{refusal}"),
        }
    }
    assert_eq!((taken, depth(door, "q").await), (9, (10, 0, 0)));
    // What the queue has already needs no room.
    let sent = door.send("q", vec![message("more"), known(), message("more")]).await.unwrap();
    assert!(matches!(sent[..], [Err(SendRefusal::Overflow), Ok(_), Err(SendRefusal::Overflow)]));
    assert!(sent[1].as_ref().unwrap().is_duplicate);
    // A batch is taken as far as it goes.
    let one = take(door, "q", 1).await.remove(0);
    settle(door, "q", one.receipt, Settlement::Done).await.unwrap();
    let sent = door.send("q", vec![message("a"), message("b")]).await.unwrap();
    assert!(matches!(sent[..], [Ok(_), Err(SendRefusal::Overflow)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hangs_up_in_the_middle_of_a_look_hides_nothing() {
    let broker = broker().await;
    let door = broker.queues();
    make(door, "q", &[("max.receive.count", "1")]).await;
    send_bodies(door, "q", &["x"]).await;
    depth(door, "q").await;
    let mut hung_up = 0;
    for _ in 0..50 {
        // Polled once: it has asked for the message, and not heard yet.
        let mut receive = Box::pin(take(door, "q", 1));
        let polled = poll_fn(|cx| Poll::Ready(receive.as_mut().poll(cx))).await;
        drop(receive);
        match polled {
            Poll::Ready(received) => drop(settle(door, "q", received[0].receipt, Settlement::Unseen).await),
            Poll::Pending => hung_up += 1,
        }
        eventually("it is back", async || depth(door, "q").await == (1, 0, 0)).await;
    }
    assert!(hung_up > 0);
    assert_eq!(wait(door, "q", 1).await[0].deliveries, 1, "what nobody has seen is no delivery");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_dies_as_its_lease_ends_is_moved_with_nobody_around_and_after_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let broker = lasting(&data).await;
    let door = broker.queues();
    make(door, "dead", &[]).await;
    let settings =
        [("visibility.timeout.ms", "300"), ("max.receive.count", "1"), ("dead.letter.queue", "dead")];
    make(door, "q", &settings).await;
    send_bodies(door, "q", &["a", "b"]).await;
    assert_eq!(bodies(&take(door, "q", 1).await), ["a"]);
    // Nobody asks for anything of the queue from here on.
    let dead = wait(door, "dead", 1).await;
    assert_eq!(bodies(&dead), ["a"]);
    settle(door, "dead", dead[0].receipt, Settlement::Done).await.unwrap();
    let later = Wanted { max: 1, visibility_ms: Some(1_500), wait: None };
    assert_eq!(bodies(&door.receive("q", later).await.unwrap()), ["b"]);
    // As if killed.
    drop(broker);

    let broker = lasting(&data).await;
    let door = broker.queues();
    assert_eq!(bodies(&wait(door, "dead", 1).await), ["b"]);
    assert_eq!(depth(door, "q").await, (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_sent_once_although_that_cannot_be_kept_at_first() {
    let disk = SimulatedDisk::default();
    let config = Config::ephemeral().with("ottla.ephemeral", "false").unwrap();
    let config = config.with("log.dirs", "/data").unwrap();
    let config = config.with("share.coordinator.state.topic.num.partitions", "1").unwrap();
    let broker = Broker::start_on(Arc::new(disk.clone()), config).await.unwrap();
    let door = broker.queues();
    make(door, "q", &[("dead.letter.queue", "dead")]).await;
    send_bodies(door, "q", &["unlucky"]).await;
    let received = take(door, "q", 1).await;
    settle(door, "q", received[0].receipt, Settlement::Reject).await.unwrap();
    let letters = Path::new("/data/dead-0/00000000000000000000.log");
    disk.fail_below(Path::new("/data/__share_group_state-0"), Errno::NOSPC);
    make(door, "dead", &[]).await;
    let is_stored = || disk.content(letters).is_ok_and(|log| log.windows(7).any(|part| part == b"unlucky"));
    eventually("the letter is stored", async || is_stored()).await;
    // Where it would go now, nobody finds it.
    make(door, "elsewhere", &[]).await;
    let now = ("ottla.queue.dead.letter.queue".to_owned(), Some("elsewhere".to_owned()));
    door.configure("q", vec![now]).await.unwrap();
    disk.mend_below();
    let is_done = async || door.stats("q").await.is_ok_and(|stats| stats.dead == 0);
    eventually("the dead are done with", is_done).await;
    assert_eq!(bodies(&take(door, "dead", 10).await), ["unlucky"]);
    assert_eq!(take(door, "elsewhere", 10).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_redriven_no_late_holder_keeps() {
    let broker = broker().await;
    // Who is faster is not known.
    let mut rounds = 0..50;
    while !is_shared_by_redrive_and_late_holders(broker.queues(), rounds.next().unwrap()).await {}
}

/// Whether both got something of the messages that one redrives while others, whose leases are over, ask to keep theirs.
async fn is_shared_by_redrive_and_late_holders(door: &QueueDoor, round: usize) -> bool {
    const MESSAGES: usize = 600;
    let (from, to) = (&*format!("from-{round}"), &*format!("to-{round}"));
    make(door, from, &[("visibility.timeout.ms", "1")]).await;
    make(door, to, &[]).await;
    send(door, from, (0..MESSAGES).map(|number| message(&number.to_string())).collect()).await;
    let mut late = take(door, from, MESSAGES).await;
    eventually("all are back", async || depth(door, from).await == (MESSAGES as i64, 0, 0)).await;
    let (sweeper, source, target) = (door.clone(), from.to_owned(), to.to_owned());
    let redriving = tokio::spawn(async move {
        let fate = Fate::Redrive { to: Some(target), is_forced: false };
        let sweep = Sweep::new(fate, sweeper.now_ms());
        sweeper.sweep(&source, sweep, &CancellationToken::new(), |_| {}).await.unwrap().done
    });
    // Each asks to keep its own as it is about to go.
    let mut kept = BTreeSet::new();
    while !redriving.is_finished() {
        let keep = Settlement::Extend { for_ms: 3_600_000 };
        let next = late.iter().map(|delivery| (delivery.receipt, keep)).step_by(20).collect();
        let settled = door.settle(from, next).await.unwrap();
        let are_kept: Vec<_> =
            late.iter().step_by(20).zip(settled).filter(|(_, settled)| settled.is_ok()).collect();
        kept.extend(are_kept.into_iter().map(|(delivery, _)| delivery.body.clone()));
        late.retain(|delivery| !kept.contains(&delivery.body));
    }
    let done = redriving.await.unwrap();
    let sent: BTreeSet<_> =
        take(door, to, MESSAGES).await.into_iter().map(|delivery| delivery.body).collect();
    assert_eq!(kept.intersection(&sent).collect::<Vec<_>>(), [] as [&Bytes; 0]);
    assert_eq!((sent.len() as u64, sent.len() + kept.len()), (done, MESSAGES));
    assert_eq!(depth(door, from).await, (0, kept.len() as i64, 0));
    !kept.is_empty() && done > 0
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dead_of_a_queue_that_was_made_anew_have_letters_of_their_own() {
    let broker = broker().await;
    let door = broker.queues();
    make(door, "orders", &[]).await;
    make(door, "dead", &[]).await;
    send_bodies(door, "orders", &["unlucky"]).await;
    for _ in 0..2 {
        make(door, "q", &[("source", "orders"), ("dead.letter.queue", "dead")]).await;
        settle(door, "q", wait(door, "q", 1).await[0].receipt, Settlement::Reject).await.unwrap();
        let letters = wait(door, "dead", 1).await;
        assert_eq!(bodies(&letters), ["unlucky"]);
        settle(door, "dead", letters[0].receipt, Settlement::Done).await.unwrap();
        door.delete("q").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_queue_refuses_is_redriven_once_there_is_room() {
    let broker = broker().await;
    let door = broker.queues();
    make(door, "from", &[]).await;
    make(door, "to", &[("max.messages", "4")]).await;
    send(door, "from", (0..10).map(|number| message(&number.to_string())).collect()).await;
    let mut came = Vec::new();
    for (done, refused) in [(4, 6), (4, 2), (2, 0)] {
        let fate = Fate::Redrive { to: Some("to".to_owned()), is_forced: false };
        let sweep = Sweep::new(fate, door.now_ms());
        let swept = door.sweep("from", sweep, &CancellationToken::new(), |_| {}).await.unwrap();
        assert_eq!((swept.done, swept.left.len()), (done, refused));
        assert!(swept.left.iter().all(|left| left.why.to_string() == "the queue is full"));
        assert_eq!(depth(door, "from").await, (refused as i64, 0, 0), "what stays is held by nobody");
        for delivery in take(door, "to", 10).await {
            settle(door, "to", delivery.receipt, Settlement::Done).await.unwrap();
            came.push(String::from_utf8(delivery.body.to_vec()).unwrap());
        }
    }
    assert_eq!(came, (0..10).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lowest_priority_makes_way_first() {
    let broker = broker().await;
    let door = broker.queues();
    let settings = [("max.messages", "3"), ("overflow", "drop-oldest"), ("priorities", "3")];
    make(door, "q", &settings).await;
    let of = |priority, body| Outgoing { priority: Some(priority), ..message(body) };
    for message in [of(2, "high"), of(0, "low 1"), of(0, "low 2"), of(2, "higher"), of(1, "middle")] {
        send(door, "q", vec![message]).await;
    }
    assert_eq!(bodies(&take(door, "q", 10).await), ["high", "higher", "middle"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_comes_to_nothing_backs_off_however_that_is() {
    let broker = broker().await;
    let door = broker.queues();
    let settings = [("backoff.ms", "3000"), ("visibility.timeout.ms", "300")];
    make(door, "q", &settings).await;
    send_bodies(door, "q", &["left", "returned", "given back", "hidden no longer"]).await;
    let taken = take(door, "q", 4).await;
    let receipt = |at: usize| taken[at].receipt;
    settle(door, "q", receipt(1), Settlement::Return { after_ms: None }).await.unwrap();
    // Who names a time gets that.
    settle(door, "q", receipt(2), Settlement::Return { after_ms: Some(0) }).await.unwrap();
    settle(door, "q", receipt(3), Settlement::Extend { for_ms: 0 }).await.unwrap();
    let again = take(door, "q", 4).await;
    assert_eq!(bodies(&again), ["given back", "hidden no longer"]);
    for delivery in again {
        settle(door, "q", delivery.receipt, Settlement::Done).await.unwrap();
    }
    eventually("two wait", async || depth(door, "q").await == (0, 0, 2)).await;
    let began = Instant::now();
    let mut late = wait(door, "q", 2).await;
    if late.len() < 2 {
        late.extend(wait(door, "q", 1).await);
    }
    assert_eq!(late.iter().map(|delivery| delivery.deliveries).collect::<Vec<_>>(), [2, 2]);
    assert!(began.elapsed() > Duration::from_millis(200), "{:?}", began.elapsed());
}
