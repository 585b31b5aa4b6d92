//! Queues over plain HTTP: what curl sees of them, also after the broker was killed, and what the door takes from those who mean
//! no good.
#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use ottla::catalog::topic_config::TopicConfig;

use running::{PATIENCE, Server, eventually, numbered, records_of, values_of};

/// What an answer says.
struct Answer {
    status: u16,
    head: String,
    body: Value,
}

impl Answer {
    fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }
}

/// What a start line tells the address of the HTTP listener by.
const ADDRESS: &str = "http=\"";

fn start(more: &[&str]) -> Server {
    let server = Server::start(&[&["--http-listen", "127.0.0.1:0"], more].concat());
    server.wait_for_log(ADDRESS);
    server
}

fn kill_and_restart(server: &mut Server) {
    let starts = |server: &Server| server.log().matches(ADDRESS).count();
    let before = starts(server);
    server.kill();
    server.restart();
    eventually("it tells where it listens", || (starts(server) > before).then_some(()));
}

/// A connection to the HTTP listener, whose address is in the last start line.
fn connect(server: &Server) -> TcpStream {
    let log = server.log();
    let address = log.rsplit(ADDRESS).next().and_then(|rest| rest.split('"').next()).unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn begin(server: &Server, request: &[u8]) -> TcpStream {
    let mut stream = connect(server);
    // Who is refused early may find the socket closed while still writing.
    let _: std::io::Result<()> = stream.write_all(request);
    stream
}

fn end(mut stream: TcpStream) -> Answer {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => {}
    }
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    let body = if body.is_empty() { Value::Null } else { serde_json::from_str(body).unwrap() };
    Answer { status, head: head.to_lowercase(), body }
}

fn request(method: &str, path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    format!("{head}{body}").into_bytes()
}

fn ask(server: &Server, method: &str, path: &str, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    end(begin(server, &request(method, path, &body)))
}

fn get(server: &Server, path: &str) -> Value {
    let answer = ask(server, "GET", path, &Value::Null);
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.body
}

fn create(server: &Server, name: &str, settings: &Value) {
    let answer = ask(server, "POST", "/queues", &json!({ "name": name, "settings": settings }));
    assert_eq!(answer.status, 201, "{}", answer.body);
}

fn send(server: &Server, queue: &str, messages: &Value) -> Answer {
    ask(server, "POST", &format!("/queues/{queue}/messages"), messages)
}

fn receive(server: &Server, queue: &str, wanted: &Value) -> Vec<Value> {
    let answer = ask(server, "POST", &format!("/queues/{queue}/receive"), wanted);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["messages"].as_array().unwrap().clone()
}

fn settle(server: &Server, queue: &str, verdicts: &[Value]) -> Vec<Value> {
    let answer = ask(server, "POST", &format!("/queues/{queue}/settle"), &json!({ "receipts": verdicts }));
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["results"].as_array().unwrap().clone()
}

fn bodies(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["body"].as_str().unwrap()).collect()
}

fn counts(server: &Server, queue: &str) -> (i64, i64, i64) {
    let counts = &get(server, &format!("/queues/{queue}"))["counts"];
    let count = |name: &str| counts[name].as_i64().unwrap();
    (count("ready"), count("in_flight"), count("delayed"))
}

#[test]
fn messages_leases_and_acknowledgements_outlive_kills() {
    let mut server = start(&[]);
    create(&server, "q", &json!({ "visibility.timeout.ms": 3_600_000, "fifo": false }));
    let one = send(&server, "q", &json!({ "body": "a", "headers": { "kind": "first" } }));
    assert_eq!((one.status, &one.body["offset"], &one.body["is_duplicate"]), (201, &json!(0), &json!(false)));
    let sent =
        send(&server, "q", &json!({ "messages": [{ "body": "b" }, { "body": "c" }, { "body": "d" }] }));
    assert_eq!((sent.status, sent.body["results"].as_array().unwrap().len()), (200, 3));
    assert_eq!(counts(&server, "q"), (4, 0, 0));

    kill_and_restart(&mut server);
    let received = receive(&server, "q", &json!({ "max": 3 }));
    assert_eq!(bodies(&received), ["a", "b", "c"]);
    assert_eq!(received[0]["message_id"], one.body["message_id"]);
    assert_eq!(
        (&received[0]["headers"], &received[0]["deliveries"]),
        (&json!({ "kind": "first" }), &json!(1))
    );
    let receipts: Vec<_> = received.iter().map(|message| message["receipt"].as_str().unwrap()).collect();
    let path = |receipt: &str| format!("/queues/q/messages/{receipt}");
    assert_eq!(ask(&server, "DELETE", &path(receipts[0]), &Value::Null).status, 204);

    kill_and_restart(&mut server);
    assert_eq!(counts(&server, "q"), (1, 2, 0));
    assert_eq!(bodies(&receive(&server, "q", &json!({ "max": 100 }))), ["d"]);
    let done = ask(&server, "DELETE", &path(receipts[0]), &Value::Null);
    assert!(done.status == 204 || done.code() == "gone", "{}", done.body);
    let kept = settle(
        &server,
        "q",
        &[
            json!({ "receipt": receipts[1], "action": "acknowledge" }),
            json!({ "receipt": receipts[2], "action": "release", "after_ms": 0 }),
        ],
    );
    assert_eq!(kept, [json!({ "settled": true }), json!({ "settled": true })]);

    kill_and_restart(&mut server);
    let again = receive(&server, "q", &json!({ "max": 100 }));
    assert_eq!((bodies(&again), &again[0]["deliveries"]), (vec!["c"], &json!(2)));
    let stale = ask(&server, "DELETE", &path(receipts[2]), &Value::Null);
    assert_eq!((stale.status, stale.code()), (409, "taken_again"));
    assert_eq!(counts(&server, "q"), (0, 2, 0));
    server.stop();
}

#[test]
fn kafka_clients_and_http_share_the_messages() {
    let server = start(&["--queue", "q"]);
    let mut client = server.client();
    let batch = numbered(["plain"]);
    client.produce("q", 0, batch.build());
    let sent = send(
        &server,
        "q",
        &json!({ "body_base64": "/wA=", "key": "k", "headers": { "n": ["1", "2"] }, "headers_base64": { "b": "/w==" } }),
    );
    assert_eq!(sent.status, 201, "{}", sent.body);
    let received = receive(&server, "q", &json!({ "max": 10 }));
    assert_eq!(received[0]["body"], "plain");
    assert_eq!((&received[1]["body_base64"], &received[1]["key"]), (&json!("/wA="), &json!("k")));
    assert_eq!(
        (&received[1]["headers"], &received[1]["headers_base64"]),
        (&json!({ "n": ["1", "2"] }), &json!({ "b": "/w==" }))
    );
    assert_eq!(received[1].get("body"), None);
    let fetched = client.fetch("q", 0, 0);
    let records = records_of(&fetched);
    assert_eq!(values_of(&records[..1]), ["plain"]);
    assert_eq!(records.len(), 2);
    assert_eq!(records[1].value.as_deref(), Some(&b"\xff\0"[..]));
}

#[test]
fn who_waits_gets_the_first_message_and_who_has_gone_takes_none_along() {
    let server = start(&["--queue", "q"]);
    let began = Instant::now();
    assert_eq!(receive(&server, "q", &json!({ "wait_ms": 200 })), [] as [Value; 0]);
    assert!(began.elapsed() >= Duration::from_millis(200));

    let gone: Vec<_> = (0..8)
        .map(|_| begin(&server, &request("POST", "/queues/q/receive", r#"{"wait_ms":20000}"#)))
        .collect();
    let waiting = || {
        let stays = begin(&server, &request("POST", "/queues/q/receive", r#"{"wait_ms":20000}"#));
        thread::spawn(move || end(stays).body)
    };
    let stays = waiting();
    // Another one is served meanwhile.
    assert_eq!(counts(&server, "q"), (0, 0, 0));
    drop(gone);
    eventually("they have gone", || {
        let mut page = connect(&server);
        page.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        page.read_to_string(&mut text).unwrap();
        text.contains("ottla_connections{protocol=\"http\"} 2\n").then_some(())
    });
    let began = Instant::now();
    send(&server, "q", &json!({ "body": "a" }));
    assert_eq!(bodies(stays.join().unwrap()["messages"].as_array().unwrap()), ["a"]);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(counts(&server, "q"), (0, 1, 0));

    // A stop answers who waits.
    let stays = waiting();
    eventually("it waits", || {
        let mut page = connect(&server);
        page.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        page.read_to_string(&mut text).unwrap();
        text.contains("ottla_connections{protocol=\"http\"} 2\n").then_some(())
    });
    server.ask_to_stop();
    assert_eq!(stays.join().unwrap(), json!({ "messages": [] }));
}

#[test]
fn each_receipt_is_settled_on_its_own() {
    let server = start(&["--queue", "q:dead.letter.queue=dead", "--queue", "dead", "--queue", "other"]);
    let many: Vec<_> = ["a", "b", "c", "d", "e"].iter().map(|body| json!({ "body": body })).collect();
    send(&server, "q", &json!({ "messages": many }));
    send(&server, "other", &json!({ "body": "o" }));
    let received = receive(&server, "q", &json!({ "max": 5, "visibility_ms": 3_600_000 }));
    let foreign = receive(&server, "other", &json!({}));
    let verdict = |message: &Value, action: &str| json!({ "receipt": message["receipt"], "action": action });
    let mut later = verdict(&received[1], "release");
    later["after_ms"] = 3_600_000.into();
    let mut longer = verdict(&received[2], "extend");
    longer["for_ms"] = 60_000.into();
    let mut wrong = verdict(&received[4], "acknowledge");
    wrong["for_ms"] = 1.into();
    let made_up = json!({ "receipt": "AAAA", "action": "acknowledge" });
    let verdicts = [
        verdict(&received[0], "acknowledge"),
        later,
        longer,
        verdict(&received[3], "reject"),
        wrong,
        made_up,
        verdict(&foreign[0], "acknowledge"),
        verdict(&received[4], "extend"),
    ];
    let results = settle(&server, "q", &verdicts);
    let told: Vec<_> = results
        .iter()
        .map(|result| {
            result["error"]["code"].as_str().unwrap_or(if result["settled"] == true { "" } else { "?" })
        })
        .collect();
    let expected =
        ["", "", "", "", "invalid_request", "invalid_receipt", "invalid_receipt", "invalid_request"];
    assert_eq!(told, expected, "{results:?}");
    assert_eq!(counts(&server, "q"), (0, 2, 1));
    let dead = receive(&server, "dead", &json!({ "wait_ms": 20_000 }));
    assert_eq!(bodies(&dead), ["d"]);
    assert_eq!(counts(&server, "other"), (0, 1, 0));

    assert_eq!(ask(&server, "POST", "/queues/q/purge", &Value::Null).status, 204);
    assert_eq!(counts(&server, "q"), (0, 0, 0));
    let mut longer = verdict(&received[2], "extend");
    longer["for_ms"] = 60_000.into();
    assert_eq!(settle(&server, "q", &[longer])[0]["error"]["code"], "gone");
    assert_eq!(ask(&server, "DELETE", "/queues/q", &Value::Null).status, 204);
    assert_eq!(ask(&server, "GET", "/queues/q", &Value::Null).status, 404);
    let names: Vec<_> = get(&server, "/queues")["queues"]
        .as_array()
        .unwrap()
        .iter()
        .map(|queue| queue["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["dead", "other"]);
}

#[test]
fn each_message_of_a_batch_is_answered_on_its_own() {
    let server = start(&["--queue", "q:max.message.bytes=1024:retention.ms=60000", "--queue", "f:fifo=true"]);
    let large = "x".repeat(1024);
    let sent = send(
        &server,
        "q",
        &json!({ "messages": [
            { "body": "a", "dedup_id": "1" },
            { "body": "again", "dedup_id": "1" },
            { "body": large },
            { "body": large, "headers": { "h": "" } },
            { "body": "late", "delay_ms": 60_001 },
            { "body": "in time", "delay_ms": 60_000 },
            { "body_base64": "%" },
            { "key": "k" },
        ] }),
    );
    let results = sent.body["results"].as_array().unwrap();
    let told: Vec<_> = results.iter().map(|result| result["error"]["code"].as_str().unwrap_or("")).collect();
    let expected = ["", "", "", "too_large", "invalid_request", "", "invalid_request", "invalid_request"];
    assert_eq!(told, expected, "{}", sent.body);
    assert_eq!(results[1]["is_duplicate"], true);
    assert_eq!(results[1]["message_id"], results[0]["message_id"]);
    assert_eq!(counts(&server, "q"), (2, 0, 1));
    let repeated = send(&server, "q", &json!({ "body": "again", "dedup_id": "1" }));
    assert_eq!((repeated.status, &repeated.body["is_duplicate"]), (200, &json!(true)));
    let delayed = send(&server, "f", &json!({ "body": "a", "delay_ms": 1 }));
    assert_eq!((delayed.status, delayed.code()), (400, "invalid_request"));
    assert_eq!(send(&server, "q", &json!({ "body": large + "x" })).status, 413);
}

#[test]
fn settings_are_those_of_the_topic_and_read_back_as_they_are_told() {
    let server = start(&[]);
    create(
        &server,
        "q",
        &json!({ "visibility.timeout.ms": 5000, "fifo": true, "overflow": "drop-oldest", "ttl.ms": null }),
    );
    let told = get(&server, "/queues/q");
    let settings = &told["settings"];
    assert_eq!((&settings["visibility.timeout.ms"], &settings["fifo"]), (&json!(5000), &json!(true)));
    assert_eq!((&settings["overflow"], &settings["ttl.ms"]), (&json!("drop-oldest"), &Value::Null));
    let names = |settings: &Value| settings.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let known: BTreeSet<_> = TopicConfig::all()
        .filter_map(|config| config.definition.name.strip_prefix("ottla.queue."))
        .filter(|name| *name != "enable")
        .map(str::to_owned)
        .collect();
    assert_eq!(names(settings), known);
    let document = get(&server, "/queues/openapi.json");
    assert_eq!(names(&document["components"]["schemas"]["Settings"]["properties"]), known);

    let changed =
        ask(&server, "PATCH", "/queues/q", &json!({ "settings": { "fifo": null, "delay.ms": 7.0 } }));
    assert_eq!((changed.status, &changed.body["settings"]["fifo"]), (200, &json!(false)));
    assert_eq!(changed.body["settings"]["delay.ms"], 7);
    let same = ask(&server, "PATCH", "/queues/q", &json!({ "settings": changed.body["settings"] }));
    assert_eq!((same.status, &same.body), (200, &changed.body));
    for (settings, told) in [
        (json!({ "delay.ms": 8, "nonsense": 1 }), "nonsense"),
        (json!({ "delay.ms": 8, "priorities": 11 }), "ottla.queue.priorities"),
        (json!({ "delay.ms": "8" }), "ottla.queue.delay.ms"),
        (json!({ "overflow": 8 }), "ottla.queue.overflow"),
        (json!({ "enable": false }), "until it is deleted"),
    ] {
        let refused = ask(&server, "PATCH", "/queues/q", &json!({ "settings": settings }));
        assert_eq!((refused.status, refused.code()), (400, "invalid_settings"), "{}", refused.body);
        assert!(refused.body["error"]["message"].as_str().unwrap().contains(told), "{}", refused.body);
    }
    assert_eq!(get(&server, "/queues/q")["settings"], changed.body["settings"]);
}

#[test]
fn what_cannot_be_done_is_refused_with_its_status() {
    let server = start(&["--queue", "q:max.in.flight=1", "--topic", "plain:1"]);
    send(&server, "q", &json!({ "messages": [{ "body": "a" }, { "body": "b" }] }));
    assert_eq!(bodies(&receive(&server, "q", &json!({ "max": 9 }))), ["a"]);
    let none = Value::Null;
    let messages = |count: usize| json!({ "messages": vec![json!({ "body": "a" }); count] });
    for (method, path, body, status, code) in [
        ("GET", "/queues/none", &none, 404, "unknown_queue"),
        ("GET", "/queues/plain", &none, 404, "unknown_queue"),
        ("POST", "/queues/plain/receive", &none, 404, "unknown_queue"),
        ("DELETE", "/queues/plain", &none, 404, "unknown_queue"),
        ("GET", "/queues/", &none, 404, "not_found"),
        ("GET", "/queues/q/none", &none, 404, "not_found"),
        ("PUT", "/queues", &none, 405, "method_not_allowed"),
        ("GET", "/queues/q/receive", &none, 405, "method_not_allowed"),
        ("POST", "/queues/openapi.json", &none, 405, "method_not_allowed"),
        ("GET", "/queues?all", &none, 400, "invalid_request"),
        ("POST", "/queues", &json!({ "name": "q" }), 409, "exists"),
        ("POST", "/queues", &json!({ "name": "plain" }), 409, "exists"),
        ("POST", "/queues", &json!({ "name": "a/b" }), 400, "invalid_name"),
        ("POST", "/queues", &json!({ "name": "openapi.json" }), 400, "invalid_name"),
        ("POST", "/queues", &json!({ "name": "new", "partitions": 0 }), 400, "invalid_settings"),
        ("POST", "/queues", &json!({ "name": "new", "settings": { "fifo": 1 } }), 400, "invalid_settings"),
        ("POST", "/queues", &json!({ "nane": "new" }), 400, "invalid_request"),
        ("POST", "/queues", &none, 400, "invalid_request"),
        ("POST", "/queues/q/messages", &none, 400, "invalid_request"),
        ("POST", "/queues/q/messages", &json!([]), 400, "invalid_request"),
        ("POST", "/queues/q/messages", &json!({ "messages": [["a"]] }), 400, "invalid_request"),
        ("POST", "/queues/q/receive", &json!([1]), 400, "invalid_request"),
        ("POST", "/queues/q/messages", &messages(0), 400, "invalid_request"),
        ("POST", "/queues/q/messages", &messages(101), 400, "invalid_request"),
        ("POST", "/queues/q/receive", &json!({ "max": 101 }), 400, "invalid_request"),
        ("POST", "/queues/q/receive", &json!({ "wait_ms": 20_001 }), 400, "invalid_request"),
        ("POST", "/queues/q/receive", &none, 429, "too_many_in_flight"),
        ("POST", "/queues/q/settle", &json!({ "receipts": [] }), 400, "invalid_request"),
        ("POST", "/queues/q/purge", &json!({}), 400, "invalid_request"),
        ("DELETE", "/queues/q/messages/x", &none, 400, "invalid_receipt"),
    ] {
        let answer = ask(&server, method, path, body);
        assert_eq!((answer.status, answer.code()), (status, code), "{method} {path} {body}: {}", answer.body);
        assert!(!answer.body["error"]["message"].as_str().unwrap().is_empty());
        assert_eq!(answer.head.contains("\r\nallow: "), status == 405, "{}", answer.head);
        assert_eq!(answer.head.contains("\r\nretry-after: 1"), status == 429, "{}", answer.head);
    }
    assert_eq!(send(&server, "q", &messages(100)).status, 200);
    assert_eq!(counts(&server, "q"), (101, 1, 0));
    assert_eq!(get(&server, "/queues")["queues"].as_array().unwrap().len(), 1);
}

#[test]
fn what_is_too_large_too_slow_or_from_elsewhere_is_refused() {
    let server = start(&["--queue", "q", "--set", "connections.max.idle.ms=1000"]);
    let head = |more: &str| {
        format!("POST /queues/q/messages HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{more}\r\n")
    };
    let refusal = |request: String| {
        let answer = end(begin(&server, request.as_bytes()));
        (answer.status, answer.code().to_owned())
    };
    let told = |status, code: &str| (status, code.to_owned());
    // Announced: not a byte of it is waited for.
    assert_eq!(refusal(head("content-length: 8388609\r\n")), told(413, "too_large"));
    assert_eq!(refusal(head("content-length: 10\r\n") + "{"), told(408, "too_slow"));
    assert_eq!(refusal(head("transfer-encoding: chunked\r\n") + "1\r\n{\r\n"), told(408, "too_slow"));
    let foreign = "content-length: 12\r\norigin: http://elsewhere\r\n";
    assert_eq!(refusal(head(foreign) + r#"{"body":"a"}"#), told(403, "foreign_origin"));
    let deep = "[".repeat(100_000);
    assert_eq!(refusal(head("content-length: 100000\r\n") + &deep), told(400, "invalid_request"));
    let many = format!("{{\"messages\":[{}{{}}]}}", "{},".repeat(2_000_000));
    assert_eq!(
        refusal(head(&format!("content-length: {}\r\n", many.len())) + &many),
        told(400, "invalid_request")
    );
    // Chunks add up.
    let mut chunked = begin(&server, head("transfer-encoding: chunked\r\n").as_bytes());
    let chunk = format!("100000\r\n{}\r\n", " ".repeat(1 << 20));
    while chunked.write_all(chunk.as_bytes()).is_ok() {}
    assert_eq!(counts(&server, "q"), (0, 0, 0));
}

/// One answer of a connection that stays.
fn converse(stream: &mut TcpStream, path: &str, body: &str) -> Value {
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).unwrap();
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
            let length: usize = length.parse().unwrap();
            if body.len() == length {
                return serde_json::from_slice(&read[read.len() - length..]).unwrap();
            }
        }
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "{text}");
        read.extend_from_slice(&piece[..count]);
    }
}

fn bodies_of(answer: &Value) -> Vec<&str> {
    answer["messages"].as_array().unwrap().iter().map(|one| one["body"].as_str().unwrap()).collect()
}

#[test]
fn what_a_client_had_comes_back_when_it_is_gone_if_the_queue_says_so() {
    let ends = "q:visibility.timeout.ms=600000:lease.ends.with.connection=true";
    let server = start(&["--queue", ends, "--queue", "kept:visibility.timeout.ms=600000"]);
    let mut client = connect(&server);
    for queue in ["q", "kept"] {
        let messages = json!({"messages": [{"body": "a"}, {"body": "b"}, {"body": "c"}]}).to_string();
        converse(&mut client, &format!("/queues/{queue}/messages"), &messages);
    }
    let first = converse(&mut client, "/queues/q/receive", r#"{"max": 2}"#);
    assert_eq!(bodies_of(&first), ["a", "b"]);
    let receipt = first["messages"][0]["receipt"].as_str().unwrap();
    let verdicts = json!({"receipts": [{"receipt": receipt, "action": "acknowledge"}]}).to_string();
    converse(&mut client, "/queues/q/settle", &verdicts);
    assert_eq!(bodies_of(&converse(&mut client, "/queues/kept/receive", r#"{"max": 2}"#)), ["a", "b"]);
    // Who says that it closes the connection has not vanished by that.
    let closing = end(begin(&server, &request("POST", "/queues/q/receive", "")));
    assert_eq!(bodies_of(&closing.body), ["c"]);

    let mut other = connect(&server);
    drop(client);
    let back = converse(&mut other, "/queues/q/receive", r#"{"max": 10, "wait_ms": 20000}"#);
    assert_eq!(bodies_of(&back), ["b"]);
    assert_eq!(back["messages"][0]["deliveries"], json!(2));
    assert_eq!(
        bodies_of(&converse(&mut other, "/queues/q/receive", r#"{"max": 10, "wait_ms": 300}"#)),
        [""; 0]
    );
    assert_eq!(bodies_of(&converse(&mut other, "/queues/kept/receive", r#"{"max": 10}"#)), ["c"]);
}

#[test]
fn what_another_connection_has_said_of_a_message_outlives_the_one_that_received_it() {
    let server = start(&["--queue", "q:visibility.timeout.ms=600000:lease.ends.with.connection=true"]);
    let (mut client, mut other) = (connect(&server), connect(&server));
    let messages = ["later", "longer", "shorter", "left"].map(|body| json!({ "body": body }));
    converse(&mut client, "/queues/q/messages", &json!({ "messages": messages }).to_string());
    let received = converse(&mut client, "/queues/q/receive", r#"{"max": 10}"#);
    let receipt = |at: usize| received["messages"][at]["receipt"].clone();
    let verdicts = json!({"receipts": [
        {"receipt": receipt(0), "action": "release", "after_ms": 500_000},
        {"receipt": receipt(1), "action": "extend", "for_ms": 900_000},
        {"receipt": receipt(2), "action": "extend", "for_ms": 300_000},
    ]});
    let said = converse(&mut other, "/queues/q/settle", &verdicts.to_string());
    assert!(said["results"].as_array().unwrap().iter().all(|one| one["settled"] == true), "{said}");
    drop(client);
    let back = converse(&mut other, "/queues/q/receive", r#"{"max": 10, "wait_ms": 20000}"#);
    assert_eq!(bodies_of(&back), ["left"]);
    assert_eq!(
        bodies_of(&converse(&mut other, "/queues/q/receive", r#"{"max": 10, "wait_ms": 300}"#)),
        [""; 0]
    );
}

#[test]
fn what_was_long_waited_for_is_lent_from_when_it_came() {
    let server = start(&["--queue", "q:visibility.timeout.ms=600000:lease.ends.with.connection=true"]);
    let (mut client, mut other) = (connect(&server), connect(&server));
    let received = thread::scope(|scope| {
        let waiting =
            scope.spawn(|| converse(&mut client, "/queues/q/receive", r#"{"max": 10, "wait_ms": 20000}"#));
        thread::sleep(Duration::from_millis(1_500));
        let messages = ["kept", "left"].map(|body| json!({ "body": body }));
        converse(&mut other, "/queues/q/messages", &json!({ "messages": messages }).to_string());
        waiting.join().unwrap()
    });
    assert_eq!(bodies_of(&received), ["kept", "left"]);
    // It ends before it would have, and after it would have if it had been lent when it was asked for.
    let receipt = &received["messages"][0]["receipt"];
    let extend = json!({"receipts": [{"receipt": receipt, "action": "extend", "for_ms": 599_000}]});
    let said = converse(&mut other, "/queues/q/settle", &extend.to_string());
    assert_eq!(said["results"][0]["settled"], true, "{said}");
    drop(client);
    let back = converse(&mut other, "/queues/q/receive", r#"{"max": 10, "wait_ms": 20000}"#);
    assert_eq!(bodies_of(&back), ["left"]);
    let none = converse(&mut other, "/queues/q/receive", r#"{"max": 10, "wait_ms": 300}"#);
    assert_eq!(bodies_of(&none), [""; 0]);
}

#[test]
fn receives_that_wait_leave_connections_to_who_asks_how_the_broker_is() {
    let server = start(&["--queue", "q"]);
    let wait = request("POST", "/queues/q/receive", r#"{"wait_ms": 20000}"#);
    let mut waiting: Vec<_> = (0..230).map(|_| begin(&server, &wait)).collect();
    // So many wait; what is beyond is answered at once.
    let mut answered = 0;
    eventually("those beyond are answered", || {
        waiting.retain(|stream| {
            stream.set_nonblocking(true).unwrap();
            let is_waiting = stream.peek(&mut [0]).is_err();
            answered += usize::from(!is_waiting);
            is_waiting
        });
        (answered == 230 - 192).then_some(())
    });
    let asked = Instant::now();
    let mut health = begin(&server, b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let mut answer = String::new();
    health.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("alive\n") && asked.elapsed() < Duration::from_secs(5), "{answer}");
    assert_eq!(waiting.len(), 192);
}
