//! Kills the broker twenty times while messages of a FIFO queue go through it: none may be lost or come again after its
//! acknowledgement was answered, a lease holds and a count rises over a restart, and every key keeps its order.
#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use running::{Server, eventually, free_port};

const KILLS: usize = 20;
const SENDERS: usize = 2;
const KEYS_A_SENDER: usize = 4;
const RECEIVERS: usize = 3;
/// How long a lease lasts; long enough that one outlives a restart.
const LEASE: Duration = Duration::from_millis(1_500);
/// What the broker's clock counts in: a lease taken late in one of its milliseconds ends by so much early.
const TICK: Duration = Duration::from_millis(1);

/// A message of a key, by its number.
type Id = (usize, usize);

/// What senders and receivers know together.
#[derive(Default)]
struct Known {
    sent: BTreeSet<Id>,
    /// Whose acknowledgement was sent, whatever was answered.
    finished: BTreeSet<Id>,
    /// Whose acknowledgement was answered.
    acknowledged: BTreeSet<Id>,
    /// The last delivery of each: when it was asked for, and its count.
    delivered: BTreeMap<Id, (Instant, u64)>,
    redelivered: usize,
}

/// One request over a connection of its own; an error if the broker is not there, or dies.
fn ask(address: &str, path: &str, body: &Value) -> io::Result<Value> {
    request(address, "POST", path, &body.to_string())
}

fn request(address: &str, method: &str, path: &str, body: &str) -> io::Result<Value> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(cut)?;
    match head.split(' ').nth(1) {
        Some("200" | "201") => serde_json::from_str(body).map_err(|_| cut()),
        // It starts, or stops.
        Some("503") => Err(cut()),
        _ => panic!("{path}: {answer}"),
    }
}

fn send(address: &str, sender: usize, known: &Mutex<Known>, is_over: &AtomicBool) {
    let mut random = fastrand::Rng::with_seed(sender as u64);
    let mut next = [0; KEYS_A_SENDER];
    while !is_over.load(Ordering::SeqCst) {
        let at = random.usize(0..KEYS_A_SENDER);
        let (key, number) = (sender * KEYS_A_SENDER + at, next[at]);
        let text = format!("{key}-{number}");
        let message = json!({ "body": text, "key": key.to_string(), "dedup_id": text });
        // What was perhaps sent is sent again, and is known by its id if it was.
        while ask(address, "/queues/q/messages", &message).is_err() {
            thread::sleep(Duration::from_millis(5));
        }
        known.lock().unwrap().sent.insert((key, number));
        next[at] += 1;
    }
}

fn receive(address: &str, receiver: usize, known: &Mutex<Known>, [are_all_sent, is_over]: &[AtomicBool; 2]) {
    let mut random = fastrand::Rng::with_seed(1_000 + receiver as u64);
    while !is_over.load(Ordering::SeqCst) {
        let asked_at = Instant::now();
        let done_before = known.lock().unwrap().acknowledged.clone();
        let wanted = json!({ "max": random.usize(1..6), "wait_ms": 100 });
        let Ok(answer) = ask(address, "/queues/q/receive", &wanted) else {
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        let messages = answer["messages"].as_array().unwrap();
        let mut here = BTreeSet::new();
        for message in messages {
            let id = id_of(message);
            let mut known = known.lock().unwrap();
            assert!(!done_before.contains(&id), "{id:?} comes again after its acknowledgement was answered");
            let first_unfinished = (0..id.1).find(|number| {
                let before = (id.0, *number);
                !known.finished.contains(&before) && !here.contains(&before)
            });
            assert_eq!(first_unfinished, None, "{id:?} comes before its turn");
            let deliveries = message["deliveries"].as_u64().unwrap();
            if let Some((last, count)) = known.delivered.insert(id, (asked_at, deliveries)) {
                assert!(deliveries > count, "{id:?}: delivery {deliveries} after {count}");
                let after = last.elapsed();
                assert!(after + TICK >= LEASE, "{id:?}: the lease was not over after {after:?}");
                known.redelivered += 1;
            }
            here.insert(id);
        }
        for message in messages {
            // Who forgets one holds up its key until the lease is over.
            if random.u8(0..50) == 0 && !are_all_sent.load(Ordering::SeqCst) {
                break;
            }
            let id = id_of(message);
            known.lock().unwrap().finished.insert(id);
            let receipt = json!({ "receipts": [{ "receipt": message["receipt"], "action": "acknowledge" }] });
            let Ok(answer) = ask(address, "/queues/q/settle", &receipt) else { break };
            if answer["results"][0]["error"].is_null() {
                known.lock().unwrap().acknowledged.insert(id);
            }
        }
    }
}

fn id_of(message: &Value) -> Id {
    let (key, number) = message["body"].as_str().unwrap().split_once('-').unwrap();
    (key.parse().unwrap(), number.parse().unwrap())
}

/// Ends all threads, also when one of them has failed.
struct EndAtDrop<'a>(&'a [AtomicBool; 2]);

impl Drop for EndAtDrop<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|is_over| is_over.store(true, Ordering::SeqCst));
    }
}

fn nothing_is_lost(flush: &str) {
    let address = format!("127.0.0.1:{}", free_port());
    let queue = format!("q:partitions=2:fifo=true:visibility.timeout.ms={}", LEASE.as_millis());
    let mut server = Server::start(&["--flush", flush, "--http-listen", &address, "--queue", &queue]);
    let (known, is_over) = (Mutex::default(), [AtomicBool::new(false), AtomicBool::new(false)]);
    let (known, address, is_over) = (&known, &*address, &is_over);
    thread::scope(|scope| {
        let _end = EndAtDrop(is_over);
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| scope.spawn(move || send(address, sender, known, &is_over[0])))
            .collect();
        for receiver in 0..RECEIVERS {
            scope.spawn(move || receive(address, receiver, known, is_over));
        }
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..KILLS {
            thread::sleep(Duration::from_millis(random.u64(50..400)));
            server.kill();
            server.restart();
        }
        is_over[0].store(true, Ordering::SeqCst);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        eventually("all that was sent is done", || {
            let known = known.lock().unwrap();
            known.sent.is_subset(&known.finished).then_some(())
        });
        // What was finished without an answer may come once more.
        eventually("the queue is empty", || {
            let counts = &request(address, "GET", "/queues/q", "").unwrap()["counts"];
            (counts["ready"] == 0 && counts["in_flight"] == 0 && counts["delayed"] == 0).then_some(())
        });
    });
    let known = known.lock().unwrap();
    assert!(known.sent.len() > KILLS * 10, "{} were sent", known.sent.len());
    assert!(known.redelivered > 0 && known.acknowledged.len() * 10 > known.sent.len() * 8);
    println!("{} sent, {} redelivered", known.sent.len(), known.redelivered);
}

#[test]
fn twenty_kills_lose_no_message_in_os_mode() {
    nothing_is_lost("os");
}

#[test]
fn twenty_kills_lose_no_message_in_commit_mode() {
    nothing_is_lost("commit");
}
