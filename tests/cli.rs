//! The tools in the binary, run as users run them, against a broker of the same binary.
#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use running::{Server, eventually, ottla};

/// What a command printed, what it complained of, and its exit code.
#[derive(Debug, PartialEq)]
struct Ran {
    out: String,
    err: String,
    code: i32,
}

impl Ran {
    fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { out: text(output.stdout), err: text(output.stderr), code: output.status.code().unwrap() }
    }

    /// The lines of a command that went well.
    fn lines(&self) -> Vec<&str> {
        assert_eq!((self.err.as_str(), self.code), ("", 0), "{self:?}");
        self.out.lines().collect()
    }

    /// The JSON objects of a command that went well.
    fn json(&self) -> Vec<Value> {
        self.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The complaint and exit code of a command that printed nothing.
    fn refusal(&self) -> (&str, i32) {
        assert_eq!(self.out, "", "{self:?}");
        (self.err.trim_end(), self.code)
    }
}

/// A broker and commands that know it.
struct Tools {
    server: Server,
}

impl Tools {
    fn start(arguments: &[&str]) -> Self {
        Self { server: Server::start(arguments) }
    }

    fn command(&self, words: &str) -> Command {
        let words: Vec<&str> = words.split_whitespace().collect();
        let mut command = ottla(self.server.home(), &words);
        command.env("OTTLA_BOOTSTRAP", self.server.address());
        command
    }

    fn run(&self, words: &str) -> Ran {
        Ran::of(self.command(words).stdin(Stdio::null()).output().unwrap())
    }

    /// The same with something to read.
    fn feed(&self, words: &str, input: &[u8]) -> Ran {
        let mut command = self.command(words);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        Ran::of(child.wait_with_output().unwrap())
    }
}

#[test]
fn topics_are_made_described_altered_and_deleted() {
    let tools = Tools::start(&[]);
    let made = tools.run("topic create letters diaries --partitions 3 --config retention.ms=1000");
    assert_eq!(made.lines(), ["created letters", "created diaries"]);
    assert_eq!(tools.run("topic create letters --if-not-exists").lines(), ["letters is there already"]);
    assert_eq!(
        tools.run("topic list").lines(),
        ["TOPIC    PARTITIONS  REPLICAS", "diaries           3         1", "letters           3         1"]
    );
    let altered =
        tools.run("topic alter letters --partitions 4 --delete-config retention.ms --config segment.ms=9");
    assert_eq!(altered.lines(), ["altered letters"]);
    tools.feed("produce letters --partition 2", b"a\nb\n").lines();

    let described = tools.run("topic describe letters --json").json().remove(0);
    // One batch of two records of a byte each; the file itself may be longer while the broker runs.
    let stored = described["partitions"][2]["size_bytes"].as_u64().unwrap();
    let file = fs::metadata(tools.server.data().join("letters-2/00000000000000000000.log")).unwrap().len();
    assert!((61..100).contains(&stored) && stored <= file, "{stored} of {file}");
    let partition = |partition: i32, end: i64| {
        let bytes = if end > 0 { stored } else { 0 };
        json!({"partition": partition, "leader": 1, "replicas": [1], "isr": [1], "start_offset": 0, "end_offset": end, "size_bytes": bytes})
    };
    let partitions = [partition(0, 0), partition(1, 0), partition(2, 2), partition(3, 0)];
    assert_eq!(described["partitions"], json!(partitions));
    assert_eq!(described["configs"]["segment.ms"], "9");
    assert_eq!(described["configs"].get("retention.ms"), None);
    assert_eq!(described["id"].as_str().unwrap().len(), 22);
    let all = tools.run("topic describe letters --configs --json").json().remove(0);
    assert_eq!(all["configs"]["retention.ms"], "604800000");
    let text = tools.run("topic describe letters");
    let row = format!("          2       1         1    1      0    2        2  {stored:5}");
    assert!(text.lines().contains(&row.as_str()), "{text:?}");

    let deleted = tools.run("topic delete letters nosuch --if-exists");
    assert_eq!(deleted.lines(), ["deleted letters", "nosuch is not there"]);
    assert_eq!(tools.run("topic list --json").json().len(), 1);
}

#[test]
fn queues_are_made_listed_described_altered_and_deleted() {
    let tools = Tools::start(&["--topic", "letters:1"]);
    let made = tools.run(
        "queue create jobs mails --partitions 2 --config max.receive.count=3 --config dead.letter.queue=dead \
         --topic-config retention.ms=60000",
    );
    assert_eq!(made.lines(), ["created jobs", "created mails"]);
    assert_eq!(tools.run("queue create jobs --if-not-exists").lines(), ["jobs is there already"]);
    assert_eq!(
        tools.run("queue create orders --config ottla.queue.fifo=true --config source=a,b.*").lines(),
        ["created orders"]
    );
    assert_eq!(
        tools.run("queue list").lines(),
        [
            "QUEUE   PARTITIONS  FIFO  VISIBILITY MS  MAX RECEIVES  DEAD LETTERS  ALSO READS",
            "jobs             2  no            30000             3  dead          -",
            "mails            2  no            30000             3  dead          -",
            "orders           1  yes           30000             -  -             a,b.*",
        ]
    );
    let listed = tools.run("queue list --json").json();
    assert_eq!(
        listed[2],
        json!({"queue": "orders", "partitions": 1, "fifo": true, "visibility_timeout_ms": 30000,
            "max_receive_count": null, "dead_letter_queue": null, "source": "a,b.*"})
    );
    let words = "queue alter jobs --partitions 3 --config delay.ms=60000 --delete-config ottla.queue.max.receive.count";
    assert_eq!(tools.run(words).lines(), ["altered jobs"]);

    let described = tools.run("queue describe jobs --json").json().remove(0);
    assert_eq!((&described["queue"], &described["partitions"]), (&json!("jobs"), &json!(3)));
    let settings = &described["settings"];
    assert_eq!(settings["delay.ms"], json!({"value": "60000", "default": false}));
    assert_eq!(settings["max.receive.count"], json!({"value": "0", "default": true}));
    assert_eq!(settings.as_object().unwrap().len(), 29);
    let text = tools.run("queue describe jobs");
    assert!(text.lines()[0].ends_with(", partitions 3"), "{text:?}");
    for row in [["delay.ms", "60000", "set"], ["sqs.attributes", "-", "default"]] {
        assert!(text.lines().iter().any(|line| line.split_whitespace().eq(row)), "{row:?} in {text:?}");
    }

    assert_eq!(
        tools.run("queue delete jobs nosuch --if-exists").lines(),
        ["deleted jobs", "nosuch is not there"]
    );
    assert_eq!(tools.run("queue list --json").json().len(), 2);
}

#[test]
fn what_is_wrong_with_a_queue_is_said_and_topics_are_left_alone() {
    let tools = Tools::start(&["--topic", "letters:1", "--queue", "jobs"]);
    let no_queue = ("ottla: queue \"letters\": a topic, but no queue: its ottla.queue.enable is not true", 1);
    for words in [
        "queue delete letters",
        "queue describe letters",
        "queue alter letters --config fifo=true",
        "queue create letters --if-not-exists",
    ] {
        assert_eq!(tools.run(words).refusal(), no_queue, "{words}");
    }
    assert_eq!(tools.run("topic list --json").json().len(), 2);
    for (words, complaint) in [
        ("queue create jobs", "TOPIC_ALREADY_EXISTS (36): Topic 'jobs' already exists."),
        (
            "queue create b --config delay=1",
            "INVALID_CONFIG (40): Unknown topic config name: ottla.queue.delay (did you mean ottla.queue.delay.ms?)",
        ),
        (
            "queue alter jobs --config retention.ms=604800001",
            "INVALID_CONFIG (40): conflict topic config setting ottla.queue.retention.ms (604800001) > retention.ms (604800000)",
        ),
        (
            "queue describe nosuch",
            "UNKNOWN_TOPIC_OR_PARTITION (3): This server does not host this topic-partition.",
        ),
    ] {
        let ran = tools.run(words);
        let (said, code) = ran.refusal();
        assert!(said.ends_with(complaint) && code == 1, "{said}");
    }
}

#[test]
fn what_is_wrong_with_a_topic_is_said_with_kafkas_code() {
    let tools = Tools::start(&["--topic", "letters:2"]);
    for (words, expected, code) in [
        (
            "topic create letters",
            r#"ottla: topic "letters": TOPIC_ALREADY_EXISTS (36): Topic 'letters' already exists."#,
            1,
        ),
        ("topic describe nosuch", r#"ottla: topic "nosuch": UNKNOWN_TOPIC_OR_PARTITION (3)"#, 1),
        ("consume nosuch", r#"ottla: topic "nosuch": UNKNOWN_TOPIC_OR_PARTITION (3)"#, 1),
        ("consume letters:0,2", "ottla: there is no partition 2, letters has 2", 1),
        (
            "consume letters:0 --group g",
            "ottla: letters: a group shares out whole topics, name no partitions with --group",
            2,
        ),
        (
            "consume letters --from 1 --to 2 --follow",
            "ottla: the argument '--to <POSITION>' cannot be used with '--follow'",
            2,
        ),
        (
            "topic",
            "ottla: 'ottla topic' requires a subcommand but one was not provided [subcommands: list, create, describe, alter, delete, help]",
            2,
        ),
        ("topic frobnicate", "ottla: unrecognized subcommand 'frobnicate'", 2),
    ] {
        assert_eq!(tools.run(words).refusal(), (expected, code), "{words}");
    }
    let refused = tools.run("topic alter letters --partitions 1");
    assert!(refused.err.contains("INVALID_PARTITIONS (37)") && refused.code == 1, "{refused:?}");
    let refused = tools.run("topic alter letters --config retention.ms=never");
    assert!(refused.err.contains("INVALID_CONFIG (40)") && refused.code == 1, "{refused:?}");
    let nobody = tools.run("topic list --bootstrap 127.0.0.1:1");
    assert!(nobody.err.starts_with("ottla: cannot connect to 127.0.0.1:1: "), "{nobody:?}");
    assert_eq!(nobody.code, 2);
}

#[test]
fn lines_become_records_and_records_lines_in_every_codec() {
    let tools = Tools::start(&[]);
    let lines: String = (0..5_000).map(|number| format!("k{number}:value {number}\n")).collect();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        tools.run(&format!("topic create {codec} --partitions 3")).lines();
        let produce = format!("produce {codec} --compression {codec} --key-separator : --header from=test");
        tools.feed(&produce, lines.as_bytes()).lines();
        let ran = tools.run(&format!("consume {codec} --format %k:%v{{%h}}\\n"));
        let mut read = ran.lines();
        read.sort_unstable();
        let mut expected: Vec<String> = lines.lines().map(|line| format!("{line}{{from=test}}")).collect();
        expected.sort_unstable();
        assert_eq!(read, expected);
    }
    // 21 hashes to -973932308 in Java.
    tools.feed("produce none --key 21", b"x\n").lines();
    let place = tools.run("consume none --from -1 --format %k@%p\\n");
    assert!(
        place.lines().contains(&format!("21@{}", (-973_932_308i32 & i32::MAX) % 3).as_str()),
        "{place:?}"
    );
}

#[test]
fn json_of_one_topic_makes_another() {
    let tools = Tools::start(&["--topic", "a:2", "--topic", "b:2"]);
    let records = [
        json!({"key": "k", "value": {"base64": "/wA="}, "partition": 1, "timestamp": "2026-01-01T00:00:00Z",
               "headers": [{"key": "h", "value": null}, {"key": "h", "value": "2"}]}),
        json!({"key": null, "value": null, "partition": 0, "timestamp": 5}),
    ];
    let input: String = records.iter().map(|record| format!("{record}\n")).collect();
    tools.feed("produce a --json", input.as_bytes()).lines();
    let read = tools.run("consume a --json");
    tools.feed("produce b --json", read.out.as_bytes()).lines();
    let mut copies = tools.run("consume b --json").json();
    copies.sort_by_key(|copy| copy["partition"].as_i64());
    let expected = [
        json!({"topic": "b", "partition": 0, "offset": 0, "timestamp": 5, "key": null, "value": null, "headers": []}),
        json!({"topic": "b", "partition": 1, "offset": 0, "timestamp": 1_767_225_600_000i64, "key": "k",
               "value": {"base64": "/wA="}, "headers": [{"key": "h", "value": null}, {"key": "h", "value": "2"}]}),
    ];
    assert_eq!(copies, expected);
}

#[test]
fn a_line_that_is_no_record_ends_it_after_what_came_before() {
    let tools = Tools::start(&["--topic", "t:1"]);
    for (words, input, expected) in [
        ("produce t --key-separator :", "a:1\nb\nc:3\n", "ottla: stdin line 2: no key separator"),
        (
            "produce t --json",
            "{\"value\":\"x\"}\n{\"value\":1}\n",
            "ottla: stdin line 2: value: expected a string, null, or {\"base64\": \"…\"}",
        ),
        ("produce t --partition 1", "x\n", "ottla: stdin line 1: there is no partition 1, t has 1"),
    ] {
        assert_eq!(tools.feed(words, input.as_bytes()).refusal(), (expected, 1), "{words}");
    }
    assert_eq!(tools.run("consume t --format %k=%v\\n").lines(), ["a=1", "=x"]);
    let too_large = [vec![b'x'; 2 << 20], b"\n".to_vec()].concat();
    let refused = tools.feed("produce t", &too_large);
    assert!(refused.err.starts_with("ottla: t-0: MESSAGE_TOO_LARGE (10)"), "{refused:?}");
    assert!(refused.err.contains("0 records were acknowledged, 1 were not"), "{refused:?}");
    assert_eq!(refused.code, 1);
    let missing = tools.run("produce t /no/such/file");
    assert_eq!(
        missing.refusal(),
        ("ottla: cannot read /no/such/file: No such file or directory (os error 2)", 2)
    );
}

#[test]
fn files_are_read_one_after_the_other_and_the_last_line_may_be_open() {
    let tools = Tools::start(&["--topic", "t:1"]);
    let home = tools.server.home();
    fs::write(home.join("one"), "a\nnil\n").unwrap();
    fs::write(home.join("two"), "\nb").unwrap();
    tools.run("produce t one two --null-value nil").lines();
    assert_eq!(tools.run("consume t --format [%v]%s\\n").lines(), ["[a]1", "[]-1", "[]0", "[b]1"]);
}

#[test]
fn reading_begins_and_stops_where_it_is_told() {
    let tools = Tools::start(&["--topic", "t:1"]);
    let record =
        |number: i64| format!("{}\n", json!({"value": number.to_string(), "timestamp": number * 1000}));
    tools.feed("produce t --json", (0..10).map(record).collect::<String>().as_bytes()).lines();
    for (words, expected) in [
        ("", "0 1 2 3 4 5 6 7 8 9"),
        ("--from 7", "7 8 9"),
        ("--from -2", "8 9"),
        ("--from -100 --to 2", "0 1"),
        ("--from end", ""),
        ("--from 100", ""),
        ("--from @3000 --to @5001", "3 4 5"),
        ("--from 1970-01-01T00:00:08.5Z", "9"),
        ("--from 2 --max-messages 3", "2 3 4"),
        ("--to -8", "0 1"),
        ("--max-messages 0", ""),
    ] {
        let ran = tools.run(&format!("consume t {words}"));
        assert_eq!(ran.lines().join(" "), expected, "{words}");
    }
}

#[test]
fn following_goes_on_over_the_end_and_ends_at_ctrl_c() {
    let tools = Tools::start(&["--topic", "t:1"]);
    tools.feed("produce t", b"a\n").lines();
    let path = tools.server.home().join("followed");
    let out = fs::File::create(&path).unwrap();
    let mut child = tools.command("consume t --follow").stdout(out).spawn().unwrap();
    let reads = |text: &str| eventually(text, || (fs::read_to_string(&path).unwrap() == text).then_some(()));
    reads("a\n");
    tools.feed("produce t", b"b\n").lines();
    reads("a\nb\n");
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    let status = eventually("it ends", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}

#[test]
fn who_reads_no_further_is_no_failure() {
    let tools = Tools::start(&["--topic", "t:1"]);
    let lines: String = (0..100_000).map(|number| format!("{number}\n")).collect();
    tools.feed("produce t", lines.as_bytes()).lines();
    let mut child = tools.command("consume t").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[test]
fn a_produce_goes_on_over_a_restart_of_the_broker() {
    let mut tools = Tools::start(&["--topic", "t:1", "--flush", "os"]);
    let mut command = tools.command("produce t");
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"before\n").unwrap();
    eventually("the first is there", || (tools.run("consume t").out == "before\n").then_some(()));
    tools.server.kill();
    input.write_all(b"while away\n").unwrap();
    drop(input);
    tools.server.restart();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
    assert_eq!(tools.run("consume t").lines(), ["before", "while away"]);
}

#[test]
fn a_group_goes_on_where_it_was_and_is_described_reset_and_deleted() {
    let tools = Tools::start(&["--topic", "t:2"]);
    tools.feed("produce t --partition 0", b"a\nb\nc\n").lines();
    tools.feed("produce t --partition 1", b"d\n").lines();
    let read = || {
        let ran = tools.run("consume t --group g");
        let mut lines: Vec<String> = ran.lines().into_iter().map(ToOwned::to_owned).collect();
        lines.sort_unstable();
        lines.join(" ")
    };
    assert_eq!(read(), "a b c d");
    assert_eq!(read(), "");
    tools.feed("produce t --partition 1", b"e\n").lines();
    let listed = tools.run("group list --json").json();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (&listed[0]["group"], &listed[0]["state"], &listed[0]["members"]),
        (&json!("g"), &json!("Empty"), &json!(0))
    );
    let described = tools.run("group describe g --json").json().remove(0);
    let lags = |described: &Value| -> Vec<(i64, i64, i64)> {
        let number = |partition: &Value, name: &str| partition[name].as_i64().unwrap();
        let partitions = described["partitions"].as_array().unwrap().iter();
        partitions.map(|of| (number(of, "committed"), number(of, "end"), number(of, "lag"))).collect()
    };
    assert_eq!(lags(&described), [(3, 3, 0), (1, 2, 1)]);

    let dry = tools.run("group reset-offsets g --topic t:0 --to-earliest");
    assert_eq!(dry.out.lines().last(), Some("t              0        3    0"), "{dry:?}");
    assert_eq!((dry.err.as_str(), dry.code), ("ottla: nothing was changed; --execute does it\n", 0));
    assert_eq!(read(), "e");
    let shifted = tools.run("group reset-offsets g --all-topics --shift-by -2 --execute --json").json();
    assert_eq!(shifted[0], json!({"topic": "t", "partition": 0, "current": 3, "new": 1, "executed": true}));
    assert_eq!(read(), "b c d e");
    fs::write(tools.server.home().join("offsets.csv"), "t,0,2\n\"t\",1,99\n").unwrap();
    tools.run("group reset-offsets g --from-file offsets.csv --execute").lines();
    assert_eq!(read(), "c");
    tools.run("group delete-offsets g --topic t:0").lines();
    assert_eq!(read(), "a b c");
    assert_eq!(tools.run("group delete g").lines(), ["deleted g"]);
    for words in ["group delete g", "group describe g"] {
        let ran = tools.run(words);
        assert!(ran.refusal().0.starts_with(r#"ottla: group "g": GROUP_ID_NOT_FOUND (69)"#), "{ran:?}");
        assert_eq!(ran.code, 1);
    }
    assert_eq!(
        tools.run("group reset-offsets g --topic t --shift-by 1").refusal(),
        (r#"ottla: group "g" has committed nothing for t-0 that could be shifted"#, 1)
    );
}

#[test]
fn members_share_out_the_partitions_and_who_leaves_gives_its_own_back() {
    let tools = Tools::start(&["--topic", "t:4"]);
    let out = |name: &str| fs::File::create(tools.server.home().join(name)).unwrap();
    let join = |name: &str| tools.command("consume t --group g --follow").stdout(out(name)).spawn().unwrap();
    let members = |count: usize| {
        eventually(&format!("{count} members with 4 partitions"), || {
            let ran = tools.run("group describe g --json");
            let group: Value = serde_json::from_str(&ran.out).ok()?;
            let members = group["members"].as_array()?;
            let shares: Vec<usize> =
                members.iter().map(|member| member["partitions"].as_array().unwrap().len()).collect();
            (group["state"] == "Stable" && shares == vec![4 / count; count]).then_some(())
        });
    };
    let mut first = join("first");
    members(1);
    let mut second = join("second");
    members(2);
    let active = tools.run("group reset-offsets g --topic t --to-latest --execute");
    assert_eq!(active.refusal(), (r#"ottla: group "g" is Stable with 2 members: stop them first"#, 1));
    for (number, child) in [(1, &mut first), (0, &mut second)] {
        let id = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
        let status = eventually("it leaves", || child.try_wait().unwrap());
        assert_eq!(status.code(), Some(0));
        if number > 0 {
            members(1);
        }
    }
    let listed = tools.run("group list --json").json();
    assert_eq!((&listed[0]["state"], &listed[0]["members"]), (&json!("Empty"), &json!(0)));
}

fn segment(server: &Server, partition: &str, ending: &str) -> String {
    let folder = server.data().join(partition);
    folder.join(format!("00000000000000000000.{ending}")).to_str().unwrap().to_owned()
}

#[test]
fn the_files_of_a_log_are_shown_and_verified() {
    let mut tools = Tools::start(&["--topic", "t:1"]);
    tools.feed("produce t --key k --header a=b", b"x\ny\n").lines();
    // Some batches, so that there are entries of indexes.
    let long = format!("{}\n", "z".repeat(3_000));
    (0..6).for_each(|_| assert!(tools.feed("produce t", long.as_bytes()).lines().is_empty()));
    tools.server.stop();
    let of = |ending: &str| segment(&tools.server, "t-0", ending);
    let dump = |words: String| tools.run(&format!("log dump {words}"));

    let batches = dump(format!("--json --records {}", of("log"))).json();
    assert_eq!(batches.len(), 7);
    assert_eq!((&batches[0]["position"], &batches[0]["last_offset"]), (&json!(0), &json!(1)));
    let record = &batches[0]["records"][1];
    assert_eq!((&record["offset"], &record["key"], &record["value"]), (&json!(1), &json!("k"), &json!("y")));
    let text = dump(format!("--records {}", of("log")));
    assert!(text.lines()[0].starts_with("position=0 offsets=0..=1 records=2 bytes="), "{text:?}");
    assert!(text.lines()[1].ends_with(r#"key="k" value="x" "a"="b""#), "{text:?}");
    let entries = dump(format!("--json {}", of("index"))).json();
    assert!(!entries.is_empty());
    assert_eq!(
        batches
            .iter()
            .filter(|batch| entries.iter().any(|entry| entry["position"] == batch["position"]))
            .count(),
        entries.len()
    );
    let folder = tools.server.data().join("t-0");
    let in_folder = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    assert_eq!(dump(in_folder("leader-epoch-checkpoint")).lines(), ["EPOCH  START", "    0      0"]);
    let id = dump(format!("--json {}", in_folder("partition.metadata"))).json();
    assert_eq!(id[0]["topic_id"].as_str().unwrap().len(), 22);

    let verify = |words: String| tools.run(&format!("log verify {words}"));
    let good = verify(tools.server.data().display().to_string());
    assert!(good.lines().last().unwrap().starts_with("sound: "), "{good:?}");
    let good = verify(format!("--json {}", of("log"))).json();
    assert_eq!((&good[0]["batches"], &good[0]["records"]), (&json!(7), &json!(8)));
    assert_eq!(good[0]["sound"], json!(true));
}

#[test]
fn damage_is_found_at_its_place() {
    let mut tools = Tools::start(&["--topic", "t:1"]);
    let long = format!("{}\n", "z".repeat(5_000));
    (0..4).for_each(|_| assert!(tools.feed("produce t", long.as_bytes()).lines().is_empty()));
    tools.server.stop();
    let log = segment(&tools.server, "t-0", "log");
    let index = segment(&tools.server, "t-0", "index");
    let batches = tools.run(&format!("log dump --json {log}")).json();
    let second = batches[1]["position"].as_u64().unwrap();
    let verify = |path: &str| tools.run(&format!("log verify {path}"));

    let flip = |path: &str, at: u64| {
        let mut bytes = fs::read(path).unwrap();
        bytes[at as usize] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    flip(&log, second + 100);
    let data = tools.server.data();
    for path in [&log, data.join("t-0").to_str().unwrap(), data.to_str().unwrap()] {
        let ran = verify(path);
        let said = format!("damage: {log} at position {second}: checksum ");
        assert!(ran.out.contains(&said), "{ran:?}");
        assert_eq!((ran.err.trim_end(), ran.code), ("ottla: damage found: 1", 1), "{}", ran.out);
    }
    flip(&log, second + 100);
    flip(&index, 7);
    for path in [&log, &index] {
        let ran = verify(path);
        let said = format!("damage: {index} at position 0: the entry leads to offset ");
        assert!(ran.out.contains(&said), "{ran:?}");
        assert_eq!(ran.code, 1);
    }
    let bytes = fs::read(&log).unwrap();
    fs::write(&log, &bytes[..bytes.len() - 10]).unwrap();
    fs::remove_file(&index).unwrap();
    let last = batches[3]["position"].as_u64().unwrap();
    let said = format!(
        "damage: {log} at position {last}: the file ends 10 bytes before the batch does; nothing whole follows"
    );
    let ran = verify(&log);
    assert!(ran.out.contains(&said), "{ran:?}");
    for (path, code) in [("nowhere", 2), (tools.server.home().to_str().unwrap(), 2)] {
        assert_eq!(verify(path).code, code, "{path}");
    }
}

#[test]
fn what_is_no_file_of_a_log_is_named() {
    let home = tempfile::tempdir().unwrap();
    let run = |words: &[&str]| Ran::of(ottla(home.path(), words).output().unwrap());
    fs::write(home.path().join("00000000000000000009.snapshot"), b"\0\x01garbage").unwrap();
    fs::write(home.path().join("leader-epoch-checkpoint"), b"0\n2\n0 0\n").unwrap();
    fs::write(home.path().join("partition.metadata"), b"version: 0\ntopic_id: short\n").unwrap();
    for (name, expected, code) in [
        ("letters.txt", "ottla: letters.txt: not the name of a file that can be dumped", 2),
        (
            "00000000000000000000.log",
            "ottla: 00000000000000000000.log: No such file or directory (os error 2)",
            2,
        ),
        (
            "00000000000000000009.snapshot",
            "ottla: 00000000000000000009.snapshot at position 0: 9 bytes long, which does not fit its count",
            1,
        ),
        (
            "leader-epoch-checkpoint",
            "ottla: leader-epoch-checkpoint at position 0: 1 entries where its second line promises 2",
            1,
        ),
        (
            "partition.metadata",
            "ottla: partition.metadata at position 0: expected the lines \"version: 0\" and \"topic_id: ID\"",
            1,
        ),
    ] {
        assert_eq!(run(&["log", "dump", name]).refusal(), (expected, code), "{name}");
    }
    assert!(Path::new(home.path()).exists());
}

#[test]
fn every_tool_explains_itself_with_examples() {
    let home = tempfile::tempdir().unwrap();
    for words in [
        &["topic"][..],
        &["produce"],
        &["consume"],
        &["group"],
        &["log"],
        &["log", "dump"],
        &["log", "verify"],
        &["completions"],
    ] {
        let ran = Ran::of(ottla(home.path(), &[words, &["--help"]].concat()).output().unwrap());
        assert!(ran.lines().iter().any(|line| line.starts_with("Examples:")), "{words:?}");
    }
    let script = Ran::of(ottla(home.path(), &["completions", "bash"]).output().unwrap());
    assert!(script.lines().iter().any(|line| line.contains("reset-offsets")));
}
