//! Several log directories, disks that fill up or fail, and a limit on open files.
#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use ottla::protocol::messages::describe_log_dirs::{
    DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeLogDirsTopic,
};
use ottla::protocol::messages::describe_topic_partitions::{
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsTopic,
};
use ottla::protocol::messages::{DescribeLogDirs, DescribeTopicPartitions};
use tempfile::TempDir;

use running::{Client, Server, eventually, named, numbered, ottla, values_of};

const CLEAN_MARKER: &str = ".kafka_cleanshutdown";

/// Newest version of DescribeLogDirs.
const VERSION: i16 = 5;

const TWO: [&str; 4] = ["--data", "a", "--data", "b"];

fn with<'a>(arguments: &[&[&'a str]]) -> Vec<&'a str> {
    arguments.concat()
}

fn describe(client: &mut Client, topics: Option<&[(&str, &[i32])]>) -> DescribeLogDirsResponse {
    let topic = |(topic, partitions): &(&str, &[i32])| DescribeLogDirsTopic {
        topic: (*topic).into(),
        partitions: partitions.to_vec(),
    };
    let topics = topics.map(|topics| topics.iter().map(topic).collect());
    client.call::<DescribeLogDirs>(VERSION, &DescribeLogDirsRequest { topics })
}

/// Partitions of `topic` and their bytes, by the last part of their directory's path.
fn homes(client: &mut Client, topic: &str) -> BTreeMap<String, BTreeMap<i32, i64>> {
    let answer = describe(client, None);
    let of_topic = |result: &ottla::protocol::messages::describe_log_dirs::DescribeLogDirsResult| {
        let topics = result.topics.iter().filter(|found| *found.name == *topic);
        let partitions = topics.flat_map(|topic| &topic.partitions);
        partitions.map(|partition| (partition.partition_index, partition.partition_size)).collect()
    };
    let name = |path: &str| Path::new(path).file_name().unwrap().to_string_lossy().into_owned();
    answer.results.iter().map(|result| (name(&result.log_dir), of_topic(result))).collect()
}

fn partitions_in(home: &Path, directory: &str, topic: &str) -> Vec<i32> {
    let prefix = format!("{topic}-");
    let names = fs::read_dir(home.join(directory)).unwrap().map(|entry| entry.unwrap().file_name());
    let mut found: Vec<i32> =
        names.filter_map(|name| name.to_str()?.strip_prefix(&prefix)?.parse().ok()).collect();
    found.sort_unstable();
    found
}

fn append(client: &mut Client, topic: &str, partition: i32, value: &str) -> &'static str {
    named(client.produce(topic, partition, numbered([value]).build()).error_code)
}

#[test]
fn partitions_are_spread_over_directories_and_stay_where_they_are() {
    let mut server = Server::start(&with(&[&TWO, &["--topic", "t:5"]]));
    let mut client = server.client();
    client.create_topic("u", 1, &[]);
    let placed = homes(&mut client, "t");
    let count = |homes: &BTreeMap<String, BTreeMap<i32, i64>>, directory: &str| homes[directory].len();
    assert_eq!((count(&placed, "a"), count(&placed, "b")), (2, 3), "a has the catalog's log");
    assert_eq!(count(&homes(&mut client, "u"), "a") + count(&homes(&mut client, "u"), "b"), 1);
    for partition in 0..5 {
        assert_eq!(append(&mut client, "t", partition, &format!("value {partition}")), "NONE");
    }
    for directory in ["a", "b"] {
        let told: Vec<i32> = placed[directory].keys().copied().collect();
        assert_eq!(partitions_in(server.home(), directory, "t"), told);
    }
    // Killed, then stopped; each time with the directories in another order, and once with one more.
    for arguments in [["--data", "b", "--data", "a"].to_vec(), with(&[&TWO, &["--data", "c"]])] {
        server.restart_with(&arguments);
        let mut client = server.client();
        for partition in 0..5 {
            assert_eq!(values_of(&client.read_all("t", partition)), [format!("value {partition}")]);
        }
        let now = homes(&mut client, "t");
        for directory in ["a", "b"] {
            let keys = |homes: &BTreeMap<String, BTreeMap<i32, i64>>| {
                homes[directory].keys().copied().collect::<Vec<_>>()
            };
            assert_eq!(keys(&now), keys(&placed));
        }
        server.stop();
        assert!(["a", "b"].iter().all(|directory| server.home().join(directory).join(CLEAN_MARKER).exists()));
    }
    server.restart();
    let mut client = server.client();
    client.create_topic("new", 2, &[]);
    assert_eq!(count(&homes(&mut client, "new"), "c"), 2, "where there are fewest");
    client.delete_topic("t");
    assert!(homes(&mut client, "t").values().all(BTreeMap::is_empty));
    eventually("its folders go", || {
        ["a", "b"]
            .iter()
            .all(|directory| partitions_in(server.home(), directory, "t").is_empty())
            .then_some(())
    });
}

#[test]
fn sizes_and_room_are_told_also_of_what_is_not_open() {
    let mut server = Server::start(&with(&[&TWO, &["--topic", "t:2"]]));
    let mut client = server.client();
    assert_eq!(append(&mut client, "t", 1, "value"), "NONE");
    let directory = if partitions_in(server.home(), "a", "t").is_empty() { "b" } else { "a" };
    server.stop();
    // While it runs, the file may be longer than its batches are.
    let stored = server.home().join(directory).join("t-1/00000000000000000000.log");
    let stored = fs::metadata(stored).unwrap().len() as i64;
    server.restart();
    let mut client = server.client();
    let sizes: BTreeMap<i32, i64> = homes(&mut client, "t").into_values().flatten().collect();
    assert_eq!(sizes, BTreeMap::from([(0, 0), (1, stored)]));
    let only = describe(&mut client, Some(&[("t", &[1, 7]), ("nosuch", &[0])]));
    assert_eq!((only.error_code, only.results.len()), (0, 2));
    let partitions: Vec<_> = only.results.iter().flat_map(|result| &result.topics).collect();
    assert_eq!((partitions.len(), partitions[0].partitions.len()), (1, 1));
    for result in &only.results {
        assert!(Path::new(&*result.log_dir).is_absolute());
        assert!(result.total_bytes > 0 && (0..=result.total_bytes).contains(&result.usable_bytes));
    }
    assert!(describe(&mut client, Some(&[])).results.iter().all(|result| result.topics.is_empty()));
}

/// Starts `ottla`, which must refuse with one line; gives the line.
fn refusal(home: &Path, arguments: &[&str]) -> String {
    let output = ottla(home, arguments).args(["--listen", "127.0.0.1:0"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[test]
fn directories_that_do_not_go_together_are_refused_in_one_line() {
    let mut server = Server::start(&with(&[&TWO, &["--topic", "t:2"]]));
    for partition in 0..2 {
        assert_eq!(append(&mut server.client(), "t", partition, "value"), "NONE");
    }
    server.stop();
    let home = server.home().to_owned();
    drop(Server::start_in_folder(&home, &["--data", "other"]));
    let said = refusal(&home, &with(&[&TWO, &["--data", "other"]]));
    assert!(said.contains("other/meta.properties") && said.contains("belongs to cluster"), "{said}");
    let said = refusal(&home, &with(&[&TWO, &["--set", "node.id=9"]]));
    assert!(said.contains("belongs to node 1"), "{said}");
    let said = refusal(&home, &["--data", "fresh", "--data", "b"]);
    assert!(said.contains("fresh") && said.contains("missing"), "{said}");
    assert!(!home.join("fresh").exists());
    let in_a = partitions_in(&home, "a", "t")[0];
    fs::create_dir(home.join(format!("b/t-{in_a}"))).unwrap();
    let said = refusal(&home, &TWO);
    assert!(said.contains(&format!("a/t-{in_a}")) && said.contains(&format!("b/t-{in_a}")), "{said}");
    fs::remove_dir(home.join(format!("b/t-{in_a}"))).unwrap();
    server.restart();
    assert_eq!(values_of(&server.client().read_all("t", in_a)), ["value"]);
}

#[test]
fn without_one_of_its_directories_the_broker_has_its_partitions_offline() {
    let mut server = Server::start(&with(&[&TWO, &["--topic", "t:2"]]));
    for partition in 0..2 {
        assert_eq!(append(&mut server.client(), "t", partition, "value"), "NONE");
    }
    let (in_a, in_b) = (partitions_in(server.home(), "a", "t")[0], partitions_in(server.home(), "b", "t")[0]);
    server.restart_with(&["--data", "a"]);
    let mut client = server.client();
    is_offline(&mut client, in_b);
    assert_eq!(append(&mut client, "t", in_a, "more"), "NONE");
    server.restart_with(&TWO);
    let mut client = server.client();
    assert_eq!(values_of(&client.read_all("t", in_a)), ["value", "more"]);
    assert_eq!(values_of(&client.read_all("t", in_b)), ["value"]);
}

/// Looks at a partition of `t` as clients see one that is offline.
fn is_offline(client: &mut Client, partition: i32) {
    assert_eq!(append(client, "t", partition, "lost"), "KAFKA_STORAGE_ERROR");
    assert_eq!(named(client.fetch("t", partition, 0).error_code), "KAFKA_STORAGE_ERROR");
    let topic = client.describe("t");
    let described = topic.partitions.iter().find(|found| found.partition_index == partition).unwrap();
    assert_eq!(named(described.error_code), "LEADER_NOT_AVAILABLE");
    assert_eq!((described.leader_id, &described.offline_replicas[..]), (-1, &[1][..]));
    let described = client.call::<DescribeTopicPartitions>(
        0,
        &DescribeTopicPartitionsRequest {
            topics: vec![DescribeTopicPartitionsTopic { name: "t".into() }],
            response_partition_limit: 100,
            cursor: None,
        },
    );
    let described = &described.topics[0].partitions[partition as usize];
    assert_eq!((named(described.error_code), described.leader_id), ("NONE", -1));
    assert_eq!((&described.offline_replicas[..], &described.isr_nodes[..]), (&[1][..], &[1][..]));
}

#[test]
fn many_partitions_are_written_to_with_few_files_open() {
    let mut server =
        Server::start(&["--topic", "t:300", "--flush", "os", "--set", "ottla.log.max.open.files=30"]);
    let mut client = server.client();
    let idle = server.open_files();
    for round in 0..2 {
        for partition in 0..300 {
            assert_eq!(append(&mut client, "t", partition, &format!("{round}")), "NONE");
        }
        assert!(server.open_files() <= idle + 40, "{} beside {idle}", server.open_files());
    }
    for partition in [0, 1, 149, 298, 299] {
        assert_eq!(values_of(&client.read_all("t", partition)), ["0", "1"]);
    }
    server.stop();
    let made = fs::read_dir(server.data().join("t-7")).unwrap().count();
    assert_eq!(made, 3, "log, epochs and metadata, and nothing that a log of two records does not need");
    server.restart();
    assert_eq!(values_of(&server.client().read_all("t", 200)), ["0", "1"]);
}

/// A mount namespace of one's own that lives until this is dropped: what is mounted in it goes with it.
struct Mounts {
    holder: Child,
}

impl Mounts {
    /// Runs `script` in `home`, where nobody else sees what it mounts. `None` if this may not be done here.
    fn make(home: &Path, script: &str) -> Option<Self> {
        let script = format!("({script}) >mounts.log 2>&1 && touch mounted && exec sleep 600");
        let holder = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .current_dir(home)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut mounts = Self { holder: holder.ok()? };
        eventually("the mounts are made or refused", || {
            let ended = mounts.holder.try_wait().unwrap().is_some();
            (ended || home.join("mounted").exists()).then_some(())
        });
        home.join("mounted").exists().then_some(mounts)
    }

    /// What a command line begins with to run there.
    fn enter(&self, home: &Path) -> Vec<String> {
        let (id, home) = (self.holder.id().to_string(), format!("--wdns={}", home.display()));
        ["nsenter", "--target", &id, "--mount", &home].map(str::to_owned).to_vec()
    }

    /// Runs a script there.
    fn run(&self, home: &Path, script: &str) {
        let enter = self.enter(home);
        let status = Command::new(&enter[0]).args(&enter[1..]).args(["sh", "-c", script]).status().unwrap();
        assert!(status.success(), "{script}");
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A home with `script` run in it, and a server on its directories `a` and `b`.
fn mounted(script: &str, arguments: &[&str]) -> Option<(Mounts, Server)> {
    let home = TempDir::new().unwrap();
    let Some(mounts) = Mounts::make(home.path(), script) else {
        eprintln!("SKIPPED: nothing may be mounted here");
        return None;
    };
    let through = mounts.enter(home.path());
    let server = Server::start_through(home, through, arguments);
    Some((mounts, server))
}

#[test]
fn a_full_directory_refuses_appends_and_takes_them_by_itself_when_there_is_space() {
    for floor in ["0", "2097152"] {
        let script = "mkdir a b && mount -t tmpfs -o size=8m tmpfs b";
        let floor = format!("ottla.log.dir.min.free.bytes={floor}");
        let arguments = with(&[&TWO, &["--topic", "t:2", "--set", &floor]]);
        let Some((mounts, server)) = mounted(script, &arguments) else { return };
        let mut client = server.client();
        let placed = homes(&mut client, "t");
        let (in_a, in_b) = (*placed["a"].keys().next().unwrap(), *placed["b"].keys().next().unwrap());
        let large = "x".repeat(500_000);
        let mut taken = 0;
        while append(&mut client, "t", in_b, &large) == "NONE" {
            taken += 1;
            assert!(taken < 20, "a full disk takes nothing");
        }
        assert!(taken > 5, "{taken}");
        assert_eq!(append(&mut client, "t", in_b, &large), "KAFKA_STORAGE_ERROR");
        assert_eq!(append(&mut client, "t", in_a, &large), "NONE", "the other goes on");
        assert_eq!(client.read_all("t", in_b).len(), taken, "fetches go on");
        assert_eq!(named(client.describe("t").partitions[in_b as usize].error_code), "NONE");
        // A topic can be made and deleted: what is said of them is not kept there.
        client.create_topic("u", 1, &[]);
        client.delete_topic("u");
        mounts.run(server.home(), "mount -o remount,size=16m b");
        eventually("appends go on", || (append(&mut client, "t", in_b, "small") == "NONE").then_some(()));
        assert_eq!(client.read_all("t", in_b).len(), taken + 1, "and nothing of what was refused is there");
        let log = server.log();
        assert_eq!(log.matches("no space: appends are refused").count(), 1, "{log}");
        assert_eq!(log.matches("there is space again").count(), 1, "{log}");
    }
}

/// A file system on a device whose own storage fills up: writes are taken, and syncs fail, for good and for real.
const FAILING: &str = "mkdir back NAME && mount -t tmpfs -o size=24m tmpfs back && truncate -s 64M back/image \
    && mkfs.ext4 -q -F -O ^has_journal -E lazy_itable_init=1,nodiscard back/image && mount -o loop back/image NAME";

const FAIL: &str = "head -c 64000000 /dev/zero >back/filler 2>/dev/null; true";

/// Appends until that fails, and gives how many did not.
fn append_until_offline(client: &mut Client, partition: i32) -> usize {
    let large = "x".repeat(500_000);
    (0..100).take_while(|_| append(client, "t", partition, &large) == "NONE").count()
}

#[test]
fn one_disk_fails_and_the_others_go_on() {
    let script = format!("mkdir a && {}", FAILING.replace("NAME", "b"));
    let Some((mounts, mut server)) = mounted(&script, &with(&[&TWO, &["--topic", "t:2"]])) else { return };
    let mut client = server.client();
    let placed = homes(&mut client, "t");
    let (in_a, in_b) = (*placed["a"].keys().next().unwrap(), *placed["b"].keys().next().unwrap());
    assert_eq!(append(&mut client, "t", in_b, "before"), "NONE");
    mounts.run(server.home(), FAIL);
    let acknowledged = 1 + append_until_offline(&mut client, in_b);
    assert!(acknowledged < 100, "the disk never failed");
    is_offline(&mut client, in_b);
    assert_eq!(append(&mut client, "t", in_a, "meanwhile"), "NONE");
    let results = describe(&mut client, None).results;
    let codes: BTreeMap<bool, &str> =
        results.iter().map(|result| (result.log_dir.ends_with("/b"), named(result.error_code))).collect();
    assert_eq!(codes, BTreeMap::from([(false, "NONE"), (true, "KAFKA_STORAGE_ERROR")]));
    assert_eq!(server.log().matches("log directory offline").count(), 1, "{}", server.log());
    // The disk is mended: the running broker does not trust it, the next one recovers.
    mounts.run(server.home(), "rm back/filler");
    is_offline(&mut client, in_b);
    server.stop();
    mounts.run(server.home(), &format!("test -e a/{CLEAN_MARKER} && ! test -e b/{CLEAN_MARKER}"));
    server.restart();
    let mut client = server.client();
    assert!(client.read_all("t", in_b).len() >= acknowledged, "nothing acknowledged is lost");
    assert_eq!(append(&mut client, "t", in_b, "after"), "NONE");
    assert_eq!(values_of(&client.read_all("t", in_a)), ["meanwhile"]);
}

#[test]
fn a_broker_whose_only_disk_fails_says_so_and_ends() {
    let only = ["--data", "only", "--topic", "t:1"];
    let Some((mounts, mut server)) = mounted(&FAILING.replace("NAME", "only"), &only) else { return };
    let mut client = server.client();
    assert_eq!(append(&mut client, "t", 0, "before"), "NONE");
    mounts.run(server.home(), FAIL);
    let large = numbered(["x".repeat(500_000)]).build();
    let request = running::produce_request("t", 0, large);
    // Its answer may come before the end, or not.
    let mut acknowledged = 1;
    while let Ok(answer) = client.try_call::<ottla::protocol::messages::Produce>(9, &request) {
        if answer.responses[0].partition_responses[0].error_code != 0 {
            break;
        }
        acknowledged += 1;
    }
    assert_eq!(server.wait().code(), Some(2));
    let log = server.log();
    let last = log.lines().last().unwrap();
    assert!(last.starts_with("ottla: log directory only: only/"), "{last}");
    assert!(!server.ready_path().exists());
    mounts.run(server.home(), &format!("! test -e only/{CLEAN_MARKER} && rm back/filler"));
    server.restart();
    assert!(server.client().read_all("t", 0).len() >= acknowledged);
}
