//! Messages looked at without being received, and dead letters dealt with by what they are: over HTTP and by `ottla queue`, against a
//! real broker that is killed in between.
#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use ottla::operations::Place;
use ottla::record::BatchBuilder;
use running::{PATIENCE, Server, eventually, free_port, now_ms, ottla, records_of, values_of};

/// A broker with a dead letter queue for `q` and `other`, and where it serves HTTP.
struct Broker {
    server: Server,
    http: String,
}

impl Broker {
    fn start(more: &[&str]) -> Self {
        let http = format!("127.0.0.1:{}", free_port());
        let server = Server::start(&[&["--http-listen", &http], more].concat());
        Self { server, http }
    }

    fn kill_and_restart(&mut self) {
        self.server.kill();
        self.server.restart();
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut stream = eventually("it serves HTTP", || TcpStream::connect(&self.http).ok());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nuser-agent: test\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, if body.is_empty() { Value::Null } else { serde_json::from_str(body).unwrap() })
    }

    fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask("GET", path, &Value::Null);
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.ask("POST", path, body);
        assert!((200..300).contains(&status), "{path} {body}: {status} {answer}");
        answer
    }

    fn send(&self, queue: &str, messages: Vec<Value>) {
        for some in messages.chunks(100) {
            let sent = self.post(&format!("/queues/{queue}/messages"), &json!({ "messages": some }));
            assert!(
                sent["results"].as_array().unwrap().iter().all(|sent| sent.get("error").is_none()),
                "{sent}"
            );
        }
    }

    fn receive(&self, queue: &str, wanted: &Value) -> Vec<Value> {
        self.post(&format!("/queues/{queue}/receive"), wanted)["messages"].as_array().unwrap().clone()
    }

    fn settle(&self, queue: &str, messages: &[Value], verdict: &Value) {
        let verdicts = messages.iter().map(|message| {
            let mut verdict = verdict.clone();
            verdict["receipt"] = message["receipt"].clone();
            verdict
        });
        let verdicts: Vec<_> = verdicts.collect();
        let settled = self.post(&format!("/queues/{queue}/settle"), &json!({ "receipts": verdicts }));
        assert!(settled["results"].as_array().unwrap().iter().all(|one| one["settled"] == true), "{settled}");
    }

    /// All messages that a path shows, page by page.
    fn pages(&self, path: &str, max: usize) -> Vec<Value> {
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let mark = if path.contains('?') { '&' } else { '?' };
            let page = self.get(&format!("{path}{mark}max={max}{after}"));
            let messages = page["messages"].as_array().unwrap();
            assert!(messages.len() <= max);
            all.extend(messages.iter().cloned());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return all,
            }
        }
    }

    fn counts(&self, queue: &str) -> (i64, i64, i64) {
        let counts = &self.get(&format!("/queues/{queue}"))["counts"];
        let count = |name: &str| counts[name].as_i64().unwrap();
        (count("ready"), count("in_flight"), count("delayed"))
    }

    fn tool(&self, words: &str) -> Command {
        let words: Vec<&str> = words.split_whitespace().collect();
        let mut command = ottla(self.server.home(), &words);
        command.env("OTTLA_HTTP", &self.http).env("OTTLA_BOOTSTRAP", self.server.address());
        command.stdin(Stdio::null());
        command
    }

    /// What a command prints that goes well.
    fn run(&self, words: &str) -> String {
        let output = self.tool(words).output().unwrap();
        let (out, err) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success() && err.is_empty(), "{words}: {out}{err}");
        out
    }

    fn run_json(&self, words: &str) -> Vec<Value> {
        self.run(words).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Has all messages of a queue refused, and waits until they are among the dead.
    fn kill_messages(&self, queue: &str, letters: usize) {
        loop {
            let received = self.receive(queue, &json!({ "max": 100, "consumer": "killer" }));
            if received.is_empty() {
                break;
            }
            self.settle(queue, &received, &json!({ "action": "reject", "error": "no way" }));
        }
        eventually("the dead letters have been moved", || {
            let dead = self.get("/queues/dead")["counts"]["ready"] == letters;
            dead.then_some(())
        });
    }
}

fn bodies(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["body"].as_str().unwrap()).collect()
}

fn numbered(numbers: std::ops::Range<usize>) -> Vec<Value> {
    numbers
        .map(|number| json!({ "body": number.to_string(), "headers": { "n": number.to_string() } }))
        .collect()
}

const QUEUES: [&str; 6] =
    ["--queue", "q:dead.letter.queue=dead", "--queue", "other:dead.letter.queue=dead", "--queue", "dead"];

#[test]
fn a_peek_shows_every_message_as_it_is_and_changes_none() {
    let mut broker = Broker::start(&["--queue", "q:visibility.timeout.ms=3600000", "--queue", "p"]);
    broker.send("q", vec![json!({ "body": "held" }), json!({ "body": "back" }), json!({ "body": "done" })]);
    broker.send(
        "q",
        vec![json!({ "body": "late", "delay_ms": 600_000 }), json!({ "body_base64": "/w==", "key": "k" })],
    );
    let received = broker.receive("q", &json!({ "max": 3, "consumer": "worker" }));
    broker.settle("q", &received[1..2], &json!({ "action": "release", "after_ms": 0, "error": "not today" }));
    broker.settle("q", &received[2..], &json!({ "action": "acknowledge" }));

    let shown = broker.pages("/queues/q/messages", 100);
    let told: Vec<_> = shown
        .iter()
        .map(|message| (message["state"].as_str().unwrap(), message["deliveries"].as_u64().unwrap()))
        .collect();
    assert_eq!(told, [("in_flight", 1), ("ready", 1), ("delayed", 0), ("ready", 0)]);
    assert_eq!(shown[0]["message_id"], received[0]["message_id"]);
    let left_ms = shown[0]["until_ms"].as_i64().unwrap() - running::now_ms();
    assert!((3_500_000..=3_600_000).contains(&left_ms), "{left_ms}");
    let attempt = &shown[1]["history"][0];
    assert_eq!(
        (&attempt["consumer"], &attempt["end"], &attempt["error"]),
        (&json!("worker (127.0.0.1)"), &json!("released"), &json!("not today"))
    );
    assert_eq!((&shown[3]["body_base64"], &shown[3]["key"]), (&json!("/w=="), &json!("k")));
    assert_eq!(broker.counts("q"), (2, 1, 1));
    assert_eq!(bodies(&broker.pages("/queues/q/messages?state=delayed", 1)), ["late"]);
    assert_eq!(broker.pages("/queues/q/messages", 1), shown, "page by page the same");

    broker.kill_and_restart();
    let mut again = broker.pages("/queues/q/messages", 2);
    assert_eq!(again[1].as_object_mut().unwrap().remove("history"), None, "that is forgotten");
    let states = |messages: &[Value]| -> Vec<Value> {
        messages
            .iter()
            .map(|message| json!([message["state"], message["deliveries"], message["until_ms"]]))
            .collect()
    };
    assert_eq!(states(&again), states(&shown), "and nothing else");

    for wrong in ["max=0", "max=101", "state=gone", "after=x", "max=1&max=2", "nonsense"] {
        let (status, refused) = broker.ask("GET", &format!("/queues/q/messages?{wrong}"), &Value::Null);
        assert_eq!((status, &refused["error"]["code"]), (400, &json!("invalid_request")), "{wrong}");
    }
}

#[test]
fn a_long_queue_is_looked_through_in_time_that_grows_as_it_does() {
    let broker = Broker::start(&["--queue", "q"]);
    broker.send("q", numbered(0..5_000));
    broker.send("q", vec![json!({ "body": "late", "delay_ms": 600_000 })]);
    let began = Instant::now();
    assert_eq!(bodies(&broker.pages("/queues/q/messages?state=delayed", 10)), ["late"]);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let all = broker.pages("/queues/q/messages", 100);
    let offsets: Vec<_> = all.iter().map(|message| message["offset"].as_i64().unwrap()).collect();
    assert_eq!(offsets, (0..=5_000).collect::<Vec<_>>());
}

#[test]
fn a_dead_letter_tells_who_had_it_and_is_found_by_what_it_is() {
    let broker = Broker::start(&[
        "--queue",
        "q:dead.letter.queue=dead:max.receive.count=2",
        "--queue",
        "other:dead.letter.queue=dead",
        "--queue",
        "dead",
    ]);
    broker.send("q", vec![json!({ "body": "worn out", "headers": { "kind": "a" } })]);
    broker.send("other", vec![json!({ "body": "refused", "headers": { "kind": "b" } })]);
    for (consumer, error) in [("first", "disk full"), ("second", "disk still full")] {
        let received = broker.receive("q", &json!({ "max": 1, "consumer": consumer }));
        broker.settle("q", &received, &json!({ "action": "release", "after_ms": 0, "error": error }));
    }
    assert_eq!(broker.receive("q", &json!({})), [] as [Value; 0]);
    let received = broker.receive("other", &json!({}));
    broker.settle("other", &received, &json!({ "action": "reject" }));
    eventually("both are moved", || (broker.counts("dead").0 == 2).then_some(()));

    let own = broker.pages("/queues/q/dead-letters", 10);
    assert_eq!(bodies(&own), ["worn out"], "the others' are not its own");
    let letter = &own[0]["dead_letter"];
    assert_eq!(
        (&letter["queue"], &letter["reason"], &letter["deliveries"]),
        (&json!("q"), &json!("max-receive-count"), &json!(2))
    );
    let history = letter["history"].as_array().unwrap();
    let told: Vec<_> = history
        .iter()
        .map(|attempt| (attempt["consumer"].as_str().unwrap(), attempt["error"].as_str().unwrap()))
        .collect();
    assert_eq!(told, [("first (127.0.0.1)", "disk full"), ("second (127.0.0.1)", "disk still full")]);
    assert!(history[0]["received_ms"].as_i64() <= history[0]["ended_ms"].as_i64());

    let found =
        |query: &str| bodies(&broker.pages(&format!("/queues/dead/dead-letters?{query}"), 10)).join(",");
    assert_eq!(found("queue=other"), "refused");
    assert_eq!(found("reason=rejected"), "refused");
    assert_eq!(found("header=kind:a"), "worn out");
    assert_eq!(found("header=kind"), "worn out,refused");
    assert_eq!(found("body=fuse"), "refused");
    assert_eq!(found("older_than_ms=3600000"), "");
    assert_eq!(found("newer_than_ms=3600000"), "worn out,refused");
    assert_eq!(found(&format!("message_id={}", own[0]["message_id"].as_str().unwrap())), "worn out");

    let listed = broker.run_json("queue dlq list dead --reason rejected --json");
    assert_eq!(bodies(&listed), ["refused"]);
    let shown = broker.run(&format!("queue dlq show q {}", own[0]["message_id"].as_str().unwrap()));
    for part in ["max-receive-count", "disk still full", "second (127.0.0.1)", "worn out", "header kind"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let mut nobody = broker.tool("queue dlq show q nobody");
    assert_eq!(nobody.output().unwrap().status.code(), Some(1));
}

#[test]
fn dead_letters_go_back_each_once_although_the_broker_is_killed_again_and_again() {
    let mut broker = Broker::start(&QUEUES);
    let count = 1_500;
    broker.send("q", numbered(0..count));
    broker.kill_messages("q", count);
    for _ in 0..4 {
        let mut redriving = broker.tool("queue dlq redrive q --yes --rate 20000");
        let mut redriving = redriving.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let before = broker.counts("q").0;
        eventually("some have come", || {
            let (status, queue) = broker.ask("GET", "/queues/q", &Value::Null);
            (status == 200 && queue["counts"]["ready"].as_i64().unwrap() > before
                || redriving.try_wait().unwrap().is_some())
            .then_some(())
        });
        broker.kill_and_restart();
        redriving.wait().unwrap();
    }
    // What was held when it was killed can be had some seconds later; what was not goes at once.
    let deadline = Instant::now() + Duration::from_secs(100);
    while broker.counts("dead") != (0, 0, 0) {
        assert!(Instant::now() < deadline, "{:?}", broker.counts("dead"));
        broker.run("queue dlq redrive q --yes");
        std::thread::sleep(Duration::from_millis(200));
    }
    let back = broker.pages("/queues/q/messages", 100);
    let mut numbers: Vec<usize> =
        back.iter().map(|message| message["body"].as_str().unwrap().parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..count).collect::<Vec<_>>(), "each is there once");
    let ids: BTreeSet<_> = back.iter().map(|message| message["message_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), count, "and has its id");
    assert!(back.iter().all(|message| message["redriven"] == 1 && message.get("dead_letter").is_none()));
    assert!(back.iter().all(|message| message["headers"]["n"] == message["body"]));
}

#[test]
fn what_gave_way_before_a_kill_is_known_for_it_after_it() {
    let limited = "q:max.messages=2:overflow=dead-letter-oldest:dead.letter.queue=later:max.receive.count=1";
    let mut broker = Broker::start(&["--queue", limited]);
    broker.send("q", numbered(0..5));
    let stats = broker.get("/queues/q");
    assert_eq!((&stats["counts"]["ready"], &stats["stats"]["dead"]), (&json!(2), &json!(3)), "{stats}");
    broker.kill_and_restart();
    assert_eq!(broker.counts("q"), (2, 0, 0), "none is with anybody");
    broker.post("/queues", &json!({ "name": "later" }));
    let letters = eventually("they are moved", || {
        let letters = broker.pages("/queues/later/messages", 10);
        (letters.len() == 3).then_some(letters)
    });
    assert_eq!(bodies(&letters), ["0", "1", "2"]);
    for letter in &letters {
        let letter = &letter["dead_letter"];
        assert_eq!((&letter["reason"], &letter["deliveries"]), (&json!("overflow"), &json!(0)), "{letter}");
    }
    // Neither has the limit of deliveries been spent on what stays.
    assert_eq!(bodies(&broker.receive("q", &json!({ "max": 5 }))), ["3", "4"]);
}

#[test]
fn after_a_kill_the_letters_that_are_there_are_found_without_reading_what_is_much_older() {
    let mut broker = Broker::start(&["--queue", "q:dead.letter.queue=dead"]);
    let mut client = broker.server.client();
    // No queue yet, so that nothing goes there.
    let segments = ("segment.bytes", "1048576");
    client.create_topic("dead", 1, &[segments]);
    let long_ago = now_ms() - 6 * 3_600_000;
    for _ in 0..3 {
        let batch = BatchBuilder::new().record(long_ago, None, Some(&vec![b'x'; 700_000]));
        assert_eq!(client.produce("dead", 0, batch.build()).error_code, 0);
    }
    broker.send("q", vec![json!({ "body": "moved" }), json!({ "body": "not moved" })]);
    let received = broker.receive("q", &json!({ "max": 2 }));
    assert_eq!(bodies(&received), ["moved", "not moved"]);
    broker.settle("q", &received, &json!({ "action": "reject" }));
    // What is there when a broker was killed that had moved the first, and was not done with it.
    let place = Place { topic_id: client.describe("q").topic_id, partition: 0, offset: 0 }.to_string();
    let told = [("queue", "q"), ("source", &place), ("moved-at", &now_ms().to_string())];
    let told = told.map(|(name, value)| (format!("ottla.dead-letter.{name}"), value.as_bytes().to_vec()));
    let told: Vec<_> = told.iter().map(|(name, value)| (name.as_str(), Some(&value[..]))).collect();
    let letter = BatchBuilder::new().record_with_headers(now_ms(), None, Some(b"moved"), &told);
    assert_eq!(client.produce("dead", 0, letter.build()).error_code, 0);
    broker.kill_and_restart();
    // Who reads that cannot go on.
    let oldest = broker.server.data().join("dead-0").join("00000000000000000000.log");
    let mut bytes = std::fs::read(&oldest).unwrap();
    bytes[1_000] ^= 1;
    std::fs::write(&oldest, bytes).unwrap();
    running::stock::configure(&broker.server, "dead", &[segments, ("ottla.queue.enable", "true")]);
    eventually("both are moved", || broker.pages("/queues/q/messages", 10).is_empty().then_some(()));
    let letters = records_of(&broker.server.client().fetch("dead", 0, 3));
    assert_eq!(values_of(&letters), ["moved", "not moved"], "each once");
}

#[test]
fn what_is_redriven_is_what_was_asked_for() {
    let broker = Broker::start(&QUEUES);
    broker.send("q", numbered(0..30));
    broker.kill_messages("q", 30);
    broker.send("other", vec![json!({ "body": "of other" })]);
    broker.kill_messages("other", 31);
    broker.send("dead", vec![json!({ "body": "no letter" })]);

    let dry = broker.post("/queues/q/redrive", &json!({ "dry_run": true }));
    assert_eq!((&dry["matched"], &dry["done"], broker.counts("dead").0), (&json!(30), &json!(0), 32));
    let one = broker.post("/queues/q/redrive", &json!({ "filter": { "headers": { "n": "7" } } }));
    assert_eq!((&one["matched"], &one["done"], &one["next"]), (&json!(1), &json!(1), &Value::Null));
    assert_eq!(bodies(&broker.receive("q", &json!({ "max": 10 }))), ["7"]);

    let began = Instant::now();
    let some = broker.post("/queues/q/redrive", &json!({ "max": 10, "rate": 10, "to": "other" }));
    assert_eq!(some["done"], 10);
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    let rest =
        broker.post("/queues/q/redrive", &json!({ "after": some["next"], "began_ms": some["began_ms"] }));
    assert_eq!(rest["done"], 19);
    assert_eq!((broker.counts("other").0, broker.counts("q"), broker.counts("dead").0), (10, (19, 1, 0), 2));

    // Of the queue itself: also what comes from elsewhere; and what says of no queue stays.
    let all = broker.post("/queues/dead/redrive", &Value::Null);
    assert_eq!((&all["matched"], &all["done"]), (&json!(2), &json!(1)));
    assert!(all["left"][0]["why"].as_str().unwrap().contains("does not say"), "{all}");
    assert_eq!(broker.get("/queues/dead")["stats"]["redriven"], 31);

    for (body, status) in [
        (json!({ "to": "nowhere" }), 400),
        (json!({ "to": "dead" }), 400),
        (json!({ "filter": { "queue": "other" } }), 400),
        (json!({ "rate": 0 }), 400),
        (json!({ "fliter": {} }), 400),
    ] {
        assert_eq!(broker.ask("POST", "/queues/q/redrive", &body).0, status, "{body}");
    }
}

#[test]
fn what_dies_each_time_is_not_redriven_for_ever() {
    let broker = Broker::start(&QUEUES);
    broker.send("q", vec![json!({ "body": "poison" })]);
    for _ in 0..3 {
        broker.kill_messages("q", 1);
        assert_eq!(broker.run("queue dlq redrive q --yes"), "redriven 1 of 1\n");
    }
    broker.kill_messages("q", 1);
    let told = broker.run("queue dlq redrive q --yes");
    assert!(told.starts_with("redriven 0 of 1\nleft ") && told.contains("3 times"), "{told}");
    assert_eq!(broker.run("queue dlq redrive q --yes --force"), "redriven 1 of 1\n");
    assert_eq!(bodies(&broker.receive("q", &json!({}))), ["poison"]);
    assert_eq!(broker.run_json("queue dlq list q --json").len(), 0);
}

#[test]
fn a_purge_takes_what_it_is_told_and_leaves_what_somebody_has() {
    let mut broker = Broker::start(&["--queue", "q:visibility.timeout.ms=3600000"]);
    broker.send("q", numbered(0..250));
    broker.send("q", vec![json!({ "body": "199 late", "delay_ms": 600_000 })]);
    let held = broker.receive("q", &json!({ "max": 2 }));
    assert_eq!(bodies(&held), ["0", "1"]);
    let refused = broker.tool("queue purge q --body 1").output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "nobody has agreed");
    assert_eq!(broker.run("queue purge q --body 1 --dry-run"), "133 would be purged\n");
    assert_eq!(broker.run("queue purge q --body 1 --yes"), "purged 133 of 133\n");
    assert_eq!(broker.counts("q"), (116, 2, 0));
    broker.kill_and_restart();
    assert_eq!(broker.counts("q"), (116, 2, 0));
    let left = broker.pages("/queues/q/messages?state=ready", 100);
    assert!(bodies(&left).iter().all(|body| !body.contains('1')));
    assert_eq!(broker.run("queue purge q --yes"), "purged q\n");
    assert_eq!(broker.counts("q"), (0, 0, 0));
    assert_eq!(broker.ask("POST", "/queues/q/purge", &json!({ "max": 1 })).0, 400);
}

#[test]
fn messages_go_in_and_out_by_the_command_line() {
    let broker = Broker::start(&["--queue", "q:dead.letter.queue=dead", "--queue", "dead"]);
    assert_eq!(broker.run("queue send q one two --header kind=number --key k").lines().count(), 2);
    let mut feeding =
        broker.tool("queue send q --json").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    feeding.stdin.take().unwrap().write_all("three\nfour five\n".as_bytes()).unwrap();
    let fed = String::from_utf8(feeding.wait_with_output().unwrap().stdout).unwrap();
    let sent: Value = serde_json::from_str(fed.lines().nth(1).unwrap()).unwrap();
    assert_eq!((fed.lines().count(), &sent["offset"]), (2, &json!(3)));
    broker.run("queue send q late --delay 600");

    let peeked = broker.run_json("queue peek q --max 200 --json");
    assert_eq!(bodies(&peeked), ["one", "two", "three", "four five", "late"]);
    assert_eq!((&peeked[0]["headers"], &peeked[0]["key"]), (&json!({ "kind": "number" }), &json!("k")));
    let table = broker.run("queue peek q --state delayed");
    assert!(table.lines().count() == 2 && table.contains("late"), "{table}");

    let received = broker.run_json("queue receive q --max 2 --ack --consumer me --json");
    assert_eq!(bodies(&received), ["one", "two"]);
    assert_eq!(broker.counts("q"), (2, 0, 1));
    let table = broker.run("queue receive q --visibility 3600");
    assert!(table.starts_with("ID") && table.contains("three"), "{table}");
    assert_eq!(broker.counts("q"), (1, 1, 1));

    let stats = broker.run_json("queue stats q --json").remove(0);
    assert_eq!((&stats["queue"], &stats["counts"]["ready"]), (&json!("q"), &json!(1)));
    let of = &stats["stats"];
    assert_eq!((&of["sent"], &of["received"], &of["acknowledged"]), (&json!(5), &json!(3), &json!(2)));
    assert!(of["receive_rate"].as_f64().unwrap() > 0.0 && of["retry_rate"] == 0.0, "{of}");
    assert_eq!((&of["wait"]["count"], &of["processing"]["count"]), (&json!(3), &json!(2)));
    assert_eq!((&of["dead_letters"], &of["dead"]), (&json!(0), &json!(0)));
    let table = broker.run("queue stats --all");
    assert_eq!(table.lines().count(), 3, "{table}");

    let refused = broker.tool("queue peek nosuch").output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(refused.stderr).unwrap(),
        "ottla: unknown_queue (404): there is no queue \"nosuch\"\n"
    );
    let mut nobody = broker.tool("queue stats q");
    let nobody = nobody.env("OTTLA_HTTP", format!("127.0.0.1:{}", free_port())).output().unwrap();
    let told = String::from_utf8(nobody.stderr).unwrap();
    assert!(
        nobody.status.code() == Some(2) && told.contains("--http-listen") && told.lines().count() == 1,
        "{told}"
    );
}

#[test]
fn the_numbers_of_a_full_queue_are_those_of_all_its_messages() {
    let broker = Broker::start(&["--queue", "q:max.in.flight=1"]);
    let body = "x".repeat(2_000);
    broker.send("q", vec![json!({ "body": body })]);
    assert_eq!(broker.receive("q", &json!({ "max": 10 })).len(), 1);
    // More than one look at the log shows.
    broker.send("q", (0..1_000).map(|_| json!({ "body": body })).collect());
    assert_eq!(broker.counts("q"), (1_000, 1, 0));
    let mut page = TcpStream::connect(&broker.http).unwrap();
    page.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    page.read_to_string(&mut text).unwrap();
    assert!(text.contains("ottla_queue_messages{queue=\"q\",state=\"ready\"} 1000\n"), "{text}");
}
