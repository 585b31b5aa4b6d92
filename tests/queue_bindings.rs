//! Queues that read other topics: each has its own place in them, and no byte is copied.
#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ottla::operations::{Delivery, Outgoing, QueueDoor, QueueRefusal, SendRefusal, SettleRefusal, Wanted};
use ottla::queue::Settlement;
use ottla::{Broker, Config};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use running::{Server, eventually, free_port};

const LONG: Duration = Duration::from_secs(20);

async fn broker() -> Broker {
    Broker::start(Config::ephemeral()).await.unwrap()
}

async fn make(door: &QueueDoor, name: &str, settings: &[(&str, &str)]) {
    make_of(door, name, 1, settings).await;
}

async fn make_of(door: &QueueDoor, name: &str, partitions: i32, settings: &[(&str, &str)]) {
    let full = |(key, value): &(&str, &str)| {
        let key = key.strip_prefix("topic:").map_or(format!("ottla.queue.{key}"), str::to_owned);
        (key, (*value).to_owned())
    };
    door.create(name, Some(partitions), settings.iter().map(full).collect()).await.unwrap();
}

async fn set(door: &QueueDoor, name: &str, settings: &[(&str, Option<&str>)]) {
    let full = |(key, value): &(&str, Option<&str>)| (format!("ottla.queue.{key}"), value.map(str::to_owned));
    door.configure(name, settings.iter().map(full).collect()).await.unwrap();
}

fn message(body: &str) -> Outgoing {
    Outgoing { body: Bytes::copy_from_slice(body.as_bytes()), ..Default::default() }
}

fn marked(body: &str, headers: &[(&str, &str)]) -> Outgoing {
    let header =
        |(name, value): &(&str, &str)| ((*name).to_owned(), Bytes::copy_from_slice(value.as_bytes()));
    Outgoing { headers: headers.iter().map(header).collect(), ..message(body) }
}

async fn send(door: &QueueDoor, queue: &str, messages: Vec<Outgoing>) {
    for sent in door.send(queue, messages).await.unwrap() {
        sent.unwrap();
    }
}

async fn send_bodies(door: &QueueDoor, queue: &str, bodies: &[&str]) {
    send(door, queue, bodies.iter().map(|body| message(body)).collect()).await;
}

async fn take(door: &QueueDoor, queue: &str) -> Vec<Delivery> {
    door.receive(queue, Wanted { max: 100, visibility_ms: None, wait: Some(Duration::ZERO) }).await.unwrap()
}

/// Waits for the first.
async fn wait(door: &QueueDoor, queue: &str) -> Vec<Delivery> {
    door.receive(queue, Wanted { max: 100, visibility_ms: None, wait: Some(LONG) }).await.unwrap()
}

/// Sorted: what lies in different partitions has no order.
fn bodies(deliveries: &[Delivery]) -> Vec<&str> {
    let mut bodies: Vec<_> =
        deliveries.iter().map(|delivery| std::str::from_utf8(&delivery.body).unwrap()).collect();
    bodies.sort_unstable();
    bodies
}

async fn settle_all(door: &QueueDoor, queue: &str, deliveries: &[Delivery], what: Settlement) {
    let receipts = deliveries.iter().map(|delivery| (delivery.receipt, what)).collect();
    assert!(door.settle(queue, receipts).await.unwrap().iter().all(Result::is_ok));
}

async fn depth(door: &QueueDoor, queue: &str) -> (i64, i64, i64) {
    let counts = door.counts(queue).await.unwrap();
    (counts.ready, counts.in_flight, counts.delayed)
}

async fn until<F: Future<Output = bool>>(what: &str, look: impl Fn() -> F) {
    let deadline = Instant::now() + LONG;
    while !look().await {
        assert!(Instant::now() < deadline, "not within {LONG:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Bytes and number of the segments of a topic's partition.
fn segments(broker: &Broker, topic: &str) -> (u64, usize) {
    let Ok(files) = std::fs::read_dir(broker.data().join(format!("{topic}-0"))) else { return (0, 0) };
    let files = files.map(Result::unwrap);
    let sizes: Vec<_> = files
        .filter(|file| file.path().extension().is_some_and(|end| end == "log"))
        .filter_map(|file| Some(file.metadata().ok()?.len()))
        .collect();
    (sizes.iter().sum(), sizes.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_queue_of_a_topic_has_its_own_place_and_none_a_copy() {
    let broker = broker().await;
    let door = broker.queues();
    make_of(door, "orders", 3, &[]).await;
    for queue in ["billing", "shipping"] {
        make(door, queue, &[("source", "orders"), ("visibility.timeout.ms", "60000")]).await;
    }
    let all: Vec<String> = (0..30).map(|number| format!("{number:02}")).collect();
    send_bodies(door, "orders", &all.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let written = segments(&broker, "orders");
    make(door, "late", &[("source", "orders")]).await;
    let (billing, shipping) = (take(door, "billing").await, take(door, "shipping").await);
    for delivered in [&billing, &shipping, &take(door, "late").await, &take(door, "orders").await] {
        assert_eq!(bodies(delivered), all);
        let ids: BTreeSet<_> = delivered.iter().map(|delivery| &delivery.message_id).collect();
        let partitions: BTreeSet<_> = delivered.iter().map(|delivery| delivery.receipt.partition).collect();
        assert_eq!((ids.len(), partitions.len()), (30, 3));
    }
    // A receipt is of one queue, though another has the same record.
    let foreign = vec![(billing[0].receipt, Settlement::Done)];
    assert_eq!(door.settle("shipping", foreign).await.unwrap(), [Err(SettleRefusal::OtherQueue)]);
    settle_all(door, "billing", &billing, Settlement::Done).await;
    settle_all(door, "shipping", &shipping[..10], Settlement::Return { after_ms: Some(60_000) }).await;
    assert_eq!(depth(door, "billing").await, (0, 0, 0));
    assert_eq!(depth(door, "shipping").await, (0, 20, 10));
    assert_eq!(depth(door, "late").await, (0, 30, 0));
    assert_eq!(segments(&broker, "orders"), written);
    for queue in ["billing", "shipping", "late"] {
        assert_eq!(segments(&broker, queue).0, 0, "{queue} has bytes of its own");
    }
    // What is sent to a queue is its own.
    send_bodies(door, "billing", &["direct"]).await;
    assert_eq!(bodies(&wait(door, "billing").await), ["direct"]);
    assert_eq!(take(door, "orders").await, []);
    assert_eq!(door.stats("late").await.unwrap().counts.in_flight, 30);
    door.purge("shipping").await.unwrap();
    assert_eq!(depth(door, "shipping").await, (0, 0, 0));
    assert_eq!(depth(door, "late").await, (0, 30, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_hears_of_topics_that_come_and_go() {
    let broker = broker().await;
    let door = broker.queues();
    make(door, "audit", &[("source", "orders.#")]).await;
    let task = waiting(door, "audit").await;
    make(door, "orders.eu.created", &[]).await;
    make(door, "other", &[]).await;
    send_bodies(door, "other", &["not for the audit"]).await;
    send_bodies(door, "orders.eu.created", &["first"]).await;
    let first = task.await.unwrap();
    assert_eq!(bodies(&first), ["first"]);

    send_bodies(door, "orders.eu.created", &["pending"]).await;
    assert_eq!(depth(door, "audit").await, (1, 1, 0));
    door.delete("orders.eu.created").await.unwrap();
    assert_eq!(depth(door, "audit").await, (0, 0, 0), "a topic takes its messages along");
    let gone = door.settle("audit", vec![(first[0].receipt, Settlement::Done)]).await.unwrap();
    assert_eq!(gone, [Err(SettleRefusal::OtherQueue)]);
    // Another topic of the same name is another one, read from its first record on.
    let task = waiting(door, "audit").await;
    make(door, "orders.eu.created", &[]).await;
    send_bodies(door, "orders.eu.created", &["anew"]).await;
    let anew = task.await.unwrap();
    assert_eq!((bodies(&anew), anew[0].deliveries), (vec!["anew"], 1));

    // The binding itself may change while somebody waits.
    let task = waiting(door, "audit").await;
    set(door, "audit", &[("source", Some("other"))]).await;
    assert_eq!(bodies(&task.await.unwrap()), ["not for the audit"]);
    send_bodies(door, "orders.eu.created", &["unheard"]).await;
    assert_eq!(depth(door, "audit").await, (0, 1, 0));
    set(door, "audit", &[("source", Some("other,orders.*.created"))]).await;
    assert_eq!(bodies(&take(door, "audit").await), ["unheard"], "it goes on where it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_missed_by_who_waits_however_it_comes() {
    let broker = broker().await;
    let door = broker.queues();
    for topic in 0..6 {
        make_of(door, &format!("t.{topic}"), 3, &[]).await;
    }
    make(door, "q", &[("source", "t.*"), ("visibility.timeout.ms", "30")]).await;
    let messages: BTreeSet<String> = (0..200).map(|message| message.to_string()).collect();
    let left = Mutex::new(messages.clone());
    let places = Mutex::new(BTreeSet::new());
    let worker = |seed| {
        let (left, places) = (&left, &places);
        async move {
            let mut random = fastrand::Rng::with_seed(seed);
            while !left.lock().unwrap().is_empty() {
                // Who only looks takes what others were told of.
                let wait = if random.u8(0..4) == 0 { Duration::ZERO } else { LONG * 2 };
                let wanted = Wanted {
                    max: random.usize(1..3),
                    visibility_ms: Some(random.i64(20..60)),
                    wait: Some(wait),
                };
                for delivery in door.receive("q", wanted).await.unwrap() {
                    places.lock().unwrap().insert((delivery.receipt.topic_id, delivery.receipt.partition));
                    let what = match random.u8(0..10) {
                        0..4 => Settlement::Done,
                        4..6 => Settlement::Return { after_ms: Some(0) },
                        6 | 7 => Settlement::Return { after_ms: Some(random.i64(1..50)) },
                        8 => Settlement::Unseen,
                        // Its lease ends by itself.
                        _ => continue,
                    };
                    let settled = door.settle("q", vec![(delivery.receipt, what)]).await.unwrap();
                    let body = std::str::from_utf8(&delivery.body).unwrap();
                    let is_done = what == Settlement::Done && settled == [Ok(())];
                    let is_last = {
                        let mut left = left.lock().unwrap();
                        is_done && left.remove(body) && left.is_empty()
                    };
                    if is_last {
                        // Whoever waits now is told that it is over.
                        send_bodies(door, "t.0", &["over"; 50]).await;
                    }
                }
            }
        }
    };
    let sender = async {
        let mut random = fastrand::Rng::with_seed(7);
        for message in &messages {
            send_bodies(door, &format!("t.{}", random.u8(0..6)), &[message]).await;
            tokio::time::sleep(Duration::from_micros(random.u64(0..2_000))).await;
        }
    };
    // Those who ask the engine, too, and have not looked for anybody.
    let others = async {
        let (member, consumer): (Arc<str>, Arc<str>) = (Arc::from("m"), Arc::from("c"));
        while !left.lock().unwrap().is_empty() {
            door.stats("q").await.unwrap();
            let seen: Vec<_> = places.lock().unwrap().iter().copied().collect();
            for place in seen {
                door.lend("q", place, (&member, &consumer), 1, 1 << 20).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    };
    let work = async { tokio::join!(sender, others, worker(1), worker(2), worker(3)) };
    let done = tokio::time::timeout(LONG, work).await;
    assert!(done.is_ok(), "three wait while these are left: {:?}", left.lock().unwrap());
}

/// Somebody who waits for messages of a queue.
async fn waiting(door: &QueueDoor, queue: &'static str) -> JoinHandle<Vec<Delivery>> {
    let waits = door.clone();
    let task = tokio::spawn(async move { wait(&waits, queue).await });
    until("somebody waits", || async { door.stats(queue).await.unwrap().receivers > 0 }).await;
    task
}

#[test]
fn partitions_that_are_added_to_a_source_are_read() {
    let server = Server::start(&["--topic", "t:1", "--queue", "q:source=t", "--http-listen", "127.0.0.1:0"]);
    let http = Http::of(&server);
    let producer = running::stock::Sender::to(&server, &[]);
    producer.send("t", running::now_ms(), None, b"a").unwrap();
    assert_eq!(http.receive("q", 1), ["a"]);
    let words = ["topic", "alter", "t", "--partitions", "2", "--bootstrap", server.address()];
    let grown = running::ottla(server.home(), &words).output().unwrap();
    assert!(grown.status.success(), "{grown:?}");
    let record = running::numbered(0..1).build();
    assert_eq!(running::named(server.client().produce("t", 1, record).error_code), "NONE");
    assert_eq!(http.receive("q", 1).len(), 1);
    // Deleted over the wire, it forgets its place in the topic, too.
    for words in [&["queue", "delete", "q"][..], &["queue", "create", "q", "--config", "source=t"]] {
        let done =
            running::ottla(server.home(), words).args(["--bootstrap", server.address()]).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }
    assert_eq!(http.receive("q", 2).len(), 2);
}

#[test]
fn dead_letters_come_back_to_the_queue_that_could_not_deal_with_them_alone() {
    let (http, sqs) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    let server = Server::start(&[
        "--http-listen",
        &http,
        "--sqs-listen",
        &sqs,
        "--topic",
        "orders:1",
        "--queue",
        "one:source=orders:max.receive.count=9:dead.letter.queue=dead",
        "--queue",
        "two:source=orders",
        "--queue",
        "dead",
    ]);
    let (http, sqs) = (Http(http), Http(sqs));
    let producer = running::stock::Sender::to(&server, &[]);
    producer.send("orders", running::now_ms(), None, b"bad").unwrap();
    let (_, receipts) = http.receive_all("one", 1);
    let rejected = json!({ "receipts": [{ "receipt": receipts[0], "action": "reject" }] });
    http.ask("POST", "/queues/one/settle", &rejected);
    let (_, receipts) = http.receive_all("two", 1);
    let done = json!({ "receipts": [{ "receipt": receipts[0], "action": "acknowledge" }] });
    http.ask("POST", "/queues/two/settle", &done);
    eventually("the dead letter is there", || (http.counts("dead") == (1, 0)).then_some(()));
    let arn = json!({ "SourceArn": "arn:aws:sqs:us-east-1:000000000000:dead" });
    sqs.call(Some("AmazonSQS.StartMessageMoveTask"), "POST", "/", &arn);
    assert_eq!(http.receive("one", 1), ["bad"]);
    // It is there before it is done with where it was.
    eventually("it is there no more", || (http.counts("dead") == (0, 0)).then_some(()));
    assert_eq!(http.counts("two"), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_lets_through_what_its_terms_say() {
    let broker = broker().await;
    let door = broker.queues();
    make(door, "events", &[]).await;
    make(door, "eu", &[("source", "events"), ("filter", "region=eu|uk,!test")]).await;
    make(door, "rest", &[("source", "events"), ("filter", "region!=eu|uk")]).await;
    send(
        door,
        "events",
        vec![
            marked("a", &[("region", "eu")]),
            marked("b", &[("region", "us")]),
            marked("c", &[("region", "uk"), ("test", "")]),
            marked("d", &[("kind", "x"), ("region", "uk")]),
            message("e"),
        ],
    )
    .await;
    assert_eq!(depth(door, "eu").await, (2, 0, 0));
    assert_eq!(bodies(&take(door, "eu").await), ["a", "d"]);
    assert_eq!(bodies(&take(door, "rest").await), ["b", "e"]);
    // What the filter does not take is not sent to the queue either, instead of being lost there.
    let sent = door.send("eu", vec![message("x"), marked("y", &[("region", "eu")])]).await.unwrap();
    assert!(matches!(&sent[0], Err(SendRefusal::Invalid(why)) if why.contains("filter")), "{sent:?}");
    assert!(sent[1].is_ok());
    assert_eq!(bodies(&take(door, "eu").await), ["y"]);
    set(door, "eu", &[("filter", None)]).await;
    send_bodies(door, "events", &["f"]).await;
    assert_eq!(bodies(&take(door, "eu").await), ["f"]);
    assert_eq!(bodies(&take(door, "rest").await), ["f"]);
    // A dead letter was sent by name: no filter keeps it out.
    make(door, "dead", &[("filter", "never")]).await;
    set(door, "rest", &[("dead.letter.queue", Some("dead"))]).await;
    send_bodies(door, "events", &["g"]).await;
    settle_all(door, "rest", &take(door, "rest").await, Settlement::Reject).await;
    assert_eq!(bodies(&wait(door, "dead").await), ["g"]);
    // That is so where it was sent to: who reads it there goes by its own filter.
    make(door, "picky", &[("source", "dead"), ("filter", "region=eu")]).await;
    assert_eq!(take(door, "picky").await, []);
    set(door, "dead", &[("filter", None)]).await;
    send(door, "dead", vec![marked("h", &[("region", "eu")])]).await;
    assert_eq!(bodies(&wait(door, "picky").await), ["h"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_count_what_lies_in_other_topics() {
    let broker = broker().await;
    let door = broker.queues();
    make(door, "a", &[]).await;
    make(door, "b", &[]).await;
    make(door, "dead", &[]).await;
    make(door, "last", &[("source", "a,b"), ("max.messages", "3"), ("overflow", "drop-oldest")]).await;
    let kept = [("overflow", "dead-letter-oldest"), ("dead.letter.queue", "dead")];
    make(door, "kept", &[&[("source", "a"), ("max.messages", "1")], &kept[..]].concat()).await;
    send_bodies(door, "a", &["a1", "a2"]).await;
    send_bodies(door, "b", &["b1", "b2"]).await;
    assert_eq!(depth(door, "last").await, (3, 0, 0));
    send_bodies(door, "last", &["own"]).await;
    assert_eq!(depth(door, "last").await, (3, 0, 0));
    assert_eq!(depth(door, "kept").await, (1, 0, 0));
    assert_eq!(bodies(&take(door, "kept").await), ["a2"]);
    assert_eq!(bodies(&wait(door, "dead").await), ["a1"]);
    assert_eq!(depth(door, "a").await, (2, 0, 0), "whose messages they are loses none");
    let limit = vec![("ottla.queue.overflow".to_owned(), None)];
    let refused = door.configure("last", limit).await.unwrap_err();
    assert!(
        matches!(&refused, QueueRefusal::InvalidConfig(why) if why == "ottla.queue.source and \
        ottla.queue.overflow=reject with max.messages or max.bytes exclude each other"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_of_all_who_read_a_record_are_kept_and_do_not_come_round() {
    let broker = broker().await;
    let door = broker.queues();
    make(door, "dead", &[]).await;
    make(door, "orders", &[]).await;
    let settings = [("dead.letter.queue", "dead"), ("source", "#")];
    make(door, "one", &settings).await;
    make(door, "two", &settings).await;
    send_bodies(door, "orders", &["bad"]).await;
    let orders = take(door, "orders").await;
    for queue in ["one", "two"] {
        let received = take(door, queue).await;
        assert_eq!(bodies(&received), ["bad"]);
        settle_all(door, queue, &received, Settlement::Reject).await;
    }
    let mut letters = BTreeMap::new();
    while letters.len() < 2 {
        for letter in wait(door, "dead").await {
            let of = |name: &str| {
                let found = letter.headers.iter().find(|(key, _)| key == name).unwrap();
                String::from_utf8(found.1.to_vec()).unwrap()
            };
            letters.insert(of("ottla.dead-letter.queue"), of("ottla.dead-letter.source"));
        }
    }
    let place = &orders[0].receipt;
    let source = format!("{}-{}-{}", place.topic_id, place.partition, place.offset);
    assert_eq!(letters, [("one".to_owned(), source.clone()), ("two".to_owned(), source)].into());
    // A pattern reads no topic of dead letters, whoever's they are.
    assert_eq!(depth(door, "one").await, (0, 0, 0));
    assert_eq!(depth(door, "two").await, (0, 0, 0));
    // By its name, who is sure of what it does can.
    make(door, "undertaker", &[("source", "dead")]).await;
    assert_eq!(bodies(&take(door, "undertaker").await), ["bad", "bad"]);
    let round =
        door.configure("one", vec![("ottla.queue.source".to_owned(), Some("orders,dead".to_owned()))]);
    let round = round.await.unwrap_err();
    assert_eq!(round.to_string(), "Dead letters would go round: one -> dead -> one");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dead_in_another_topic_waits_for_its_queue() {
    let broker = broker().await;
    let door = broker.queues();
    make(door, "orders", &[]).await;
    make(door, "q", &[("source", "orders"), ("dead.letter.queue", "dead")]).await;
    send_bodies(door, "orders", &["bad"]).await;
    settle_all(door, "q", &take(door, "q").await, Settlement::Reject).await;
    // Who buries the dead of share groups leaves it alone.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(door.stats("q").await.unwrap().dead, 1);
    make(door, "dead", &[]).await;
    until("the dead letter is there", || async {
        take(door, "q").await;
        depth(door, "dead").await == (1, 0, 0)
    })
    .await;
    assert_eq!(door.stats("q").await.unwrap().dead, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_queue_has_not_done_stays_on_the_disk() {
    let broker = broker().await;
    let door = broker.queues();
    let settings =
        [("keep.acknowledged", "false"), ("dedup.window.ms", "0"), ("topic:segment.bytes", "1500000")];
    make(door, "owner", &settings).await;
    make(door, "reader", &[("source", "owner"), ("keep.acknowledged", "false")]).await;
    let body = "x".repeat(400_000);
    for _ in 0..12 {
        send_bodies(door, "owner", &[&body]).await;
    }
    let before = segments(&broker, "owner").1;
    assert!(before >= 4, "{before}");
    let done = take(door, "owner").await;
    settle_all(door, "owner", &done, Settlement::Done).await;
    let read = take(door, "reader").await;
    assert_eq!(read.len(), 12);
    settle_all(door, "reader", &read[..2], Settlement::Done).await;
    // Longer than it takes to look for what nobody needs.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(segments(&broker, "owner").1, before);
    settle_all(door, "reader", &read[2..], Settlement::Done).await;
    until("what both have done goes", || async { segments(&broker, "owner").1 == 1 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_forgets_its_place_in_other_topics() {
    let broker = broker().await;
    let door = broker.queues();
    make(door, "orders", &[]).await;
    make(door, "q", &[("source", "orders")]).await;
    send_bodies(door, "orders", &["a"]).await;
    settle_all(door, "q", &take(door, "q").await, Settlement::Done).await;
    assert_eq!(depth(door, "q").await, (0, 0, 0));
    door.delete("q").await.unwrap();
    make(door, "q", &[("source", "orders")]).await;
    let again = take(door, "q").await;
    assert_eq!(bodies(&again), ["a"], "it starts at the first record");
    // Also in one that it does not read any more.
    settle_all(door, "q", &again, Settlement::Done).await;
    set(door, "q", &[("source", None)]).await;
    door.delete("q").await.unwrap();
    make(door, "q", &[("source", "orders")]).await;
    assert_eq!(bodies(&take(door, "q").await), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_nobody_has_used_since_a_restart_forgets_its_place_too() {
    let data = tempfile::tempdir().unwrap();
    let config = Config::ephemeral().with("ottla.ephemeral", "false").unwrap();
    let config = config.with("log.dirs", data.path().to_str().unwrap()).unwrap();
    let broker = Broker::start(config.clone()).await.unwrap();
    let door = broker.queues();
    make(door, "orders", &[]).await;
    make(door, "q", &[("source", "orders")]).await;
    send_bodies(door, "orders", &["a"]).await;
    settle_all(door, "q", &take(door, "q").await, Settlement::Done).await;
    broker.stop().await;

    let broker = Broker::start(config).await.unwrap();
    let door = broker.queues();
    door.delete("q").await.unwrap();
    make(door, "q", &[("source", "orders")]).await;
    assert_eq!(bodies(&take(door, "q").await), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn order_repetitions_and_time_to_live_are_the_queues_in_every_topic() {
    let broker = broker().await;
    let door = broker.queues();
    for topic in ["a", "b"] {
        // There, nothing is a repetition.
        make(door, topic, &[("dedup.window.ms", "0")]).await;
    }
    make(door, "fifo", &[("source", "a,b"), ("fifo", "true")]).await;
    make(door, "q", &[("source", "a,b")]).await;
    let keyed = |body: &str, id: &str| Outgoing {
        key: Some(Bytes::from_static(b"k")),
        dedup_id: Some(id.to_owned()),
        ..message(body)
    };
    send(door, "a", vec![keyed("a1", "1"), keyed("a1 again", "1"), keyed("a2", "2")]).await;
    send(door, "b", vec![keyed("b1", "1"), Outgoing { ttl_ms: Some(1), ..message("over") }]).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(bodies(&take(door, "q").await), ["a1", "a2", "b1"]);
    let mut came = Vec::new();
    while came.len() < 3 {
        let wanted = Wanted { max: 1, visibility_ms: None, wait: Some(LONG) };
        let received = door.receive("fifo", wanted).await.unwrap();
        settle_all(door, "fifo", &received, Settlement::Done).await;
        came.extend(received.iter().map(|delivery| String::from_utf8(delivery.body.to_vec()).unwrap()));
    }
    let place = |body: &str| came.iter().position(|came| came == body).unwrap();
    assert!(place("a1") < place("a2") && place("b1") < 3, "{came:?}");
    assert_eq!(depth(door, "fifo").await, (0, 0, 0));
}

/// The plain HTTP door of a server.
struct Http(String);

impl Http {
    /// Of one that was started with `--http-listen`, at its last start.
    fn of(server: &Server) -> Self {
        const ADDRESS: &str = "http=\"";
        let log = eventually("it tells where it listens", || {
            Some(server.log()).filter(|log| log.contains(ADDRESS))
        });
        let address = log.rsplit(ADDRESS).next().and_then(|rest| rest.split('"').next()).unwrap();
        Self(address.to_owned())
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        self.call(None, method, path, body)
    }

    /// `action`: of the SQS door.
    fn call(&self, action: Option<&str>, method: &str, path: &str, body: &Value) -> Value {
        let action = action.map_or(String::new(), |action| {
            format!("x-amz-target: {action}\r\ncontent-type: application/x-amz-json-1.0\r\n")
        });
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut stream = TcpStream::connect(&self.0).unwrap();
        stream.set_read_timeout(Some(running::PATIENCE)).unwrap();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\n{action}connection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 20"), "{path}: {answer}");
        if body.is_empty() { Value::Null } else { serde_json::from_str(body).unwrap() }
    }

    /// Receives until there were so many, and gives their bodies, sorted, and their receipts.
    fn receive_all(&self, queue: &str, count: usize) -> (Vec<String>, Vec<Value>) {
        let (mut bodies, mut receipts) = (Vec::new(), Vec::new());
        while bodies.len() < count {
            let wanted = json!({ "max": 100, "wait_ms": 20_000 });
            let answer = self.ask("POST", &format!("/queues/{queue}/receive"), &wanted);
            let messages = answer["messages"].as_array().unwrap();
            assert!(!messages.is_empty(), "{queue} has given {bodies:?} of {count}");
            for message in messages {
                bodies.push(message["body"].as_str().unwrap_or_default().to_owned());
                receipts.push(message["receipt"].clone());
            }
        }
        bodies.sort_unstable();
        (bodies, receipts)
    }

    fn receive(&self, queue: &str, count: usize) -> Vec<String> {
        self.receive_all(queue, count).0
    }

    fn counts(&self, queue: &str) -> (i64, i64) {
        let told = self.ask("GET", &format!("/queues/{queue}"), &Value::Null);
        let count = |name: &str| told["counts"][name].as_i64().unwrap();
        (count("ready"), count("in_flight"))
    }
}

#[test]
fn three_queues_on_the_topics_of_a_stock_producer_outlive_a_kill() {
    let listen = format!("127.0.0.1:{}", free_port());
    let mut server = Server::start(&[
        "--http-listen",
        &listen,
        "--topic",
        "orders.eu.created:1",
        "--topic",
        "orders.us.deleted:1",
        "--queue",
        "billing:source=orders.*.created:visibility.timeout.ms=3600000",
        "--queue",
        "alarms:source=orders.#,payments:filter=!quiet:visibility.timeout.ms=3600000",
        "--queue",
        "audit:source=#:visibility.timeout.ms=3600000",
    ]);
    let http = Http(listen);
    let producer = running::stock::Sender::to(&server, &[]);
    let send = |topic: &str, range: std::ops::Range<usize>| {
        for number in range {
            let body = format!("{topic} {number:03}");
            producer.send(topic, running::now_ms(), None, body.as_bytes()).unwrap();
        }
    };
    send("orders.eu.created", 0..50);
    send("orders.us.deleted", 0..50);
    let (billing, receipts) = http.receive_all("billing", 50);
    assert!(billing.iter().all(|body| body.starts_with("orders.eu.created")), "{billing:?}");
    let settled: Vec<_> =
        receipts[..20].iter().map(|receipt| json!({ "receipt": receipt, "action": "acknowledge" })).collect();
    http.ask("POST", "/queues/billing/settle", &json!({ "receipts": settled }));
    http.receive("alarms", 100);
    assert_eq!(http.counts("audit"), (100, 0));
    server.kill();
    server.restart();
    // What was done is done, what was held is held, and what nobody has received is there.
    assert_eq!(http.counts("billing"), (0, 30));
    assert_eq!(http.counts("alarms"), (0, 100));
    assert_eq!(http.counts("audit"), (100, 0));
    send("orders.eu.created", 50..60);
    assert_eq!(http.receive("billing", 10).len(), 10);
    http.receive("audit", 110);
    // A topic that only comes now, made by who produces to it.
    send("payments", 0..5);
    let expected: Vec<_> = (0..5).map(|number| format!("payments {number:03}")).collect();
    let mut alarms = http.receive("alarms", 15);
    assert_eq!(alarms.split_off(10), expected);
    assert_eq!(http.receive("audit", 5), expected);
    assert_eq!(http.counts("billing"), (0, 40));
    // One copy of each record, in the topic that it was sent to.
    let size = |topic: &str| {
        let folder = server.data().join(format!("{topic}-0"));
        let files = std::fs::read_dir(folder).into_iter().flatten().map(Result::unwrap);
        let logs = files.filter(|file| file.path().extension().is_some_and(|end| end == "log"));
        logs.map(|file| std::fs::metadata(file.path()).unwrap().len()).sum::<u64>()
    };
    assert!(size("orders.eu.created") > 0);
    assert_eq!(["billing", "alarms", "audit"].map(size), [0; 3]);
}
