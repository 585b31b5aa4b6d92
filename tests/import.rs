//! Directories that Apache Kafka has written, or as it writes them: served as they are, and imported. What a real Kafka says is in
//! `compat/log-format`.
#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use ottla::catalog::takeover::records::{
    AccessControlEntryRecord, ConfigRecord, PartitionChangeRecord, PartitionRecord, TopicRecord,
};
use ottla::protocol::wire::{Encode, Sink, Wire};
use ottla::record::BatchBuilder;
use ottla::uuid::Uuid;
use tempfile::TempDir;

use running::{Server, numbered, ottla, values_of};

const ID: Uuid = Uuid([7; 16]);
const PROPERTIES: &str = "#\n#Sun Nov 22 14:18:03 UTC 2026\nnode.id=1\ndirectory.id=bSjtkycyZ8PjMMYmNsvXAQ\nversion=1\ncluster.id=4L6g3nShT-eMCtK--X86sw\n";
const CLUSTER: &str = "4L6g3nShT-eMCtK--X86sw";
const LOG: &str = "00000000000000000000.log";

fn framed(kind: u8, version: i16, record: &impl Wire) -> BytesMut {
    let mut frame = BytesMut::new();
    frame.put(&[1, kind, version as u8]);
    record.encode(&mut frame, Encode { version, flexible: true });
    frame
}

/// The batch as a broker has stored it: at `offset`, in `leader_epoch`.
fn stored(batch: BatchBuilder, offset: i64, leader_epoch: i32) -> Vec<u8> {
    let batch = batch.build();
    [&offset.to_be_bytes(), &batch[8..12], &leader_epoch.to_be_bytes(), &batch[16..]].concat()
}

/// Topic `letters` of two partitions, the first with three records and the leader epochs 0 and 2; as a clean stop leaves it.
fn write_kafka(data: &Path) {
    let folder = |name: &str| {
        fs::create_dir_all(data.join(name)).unwrap();
        data.join(name)
    };
    let write = |path: PathBuf, content: &[u8]| fs::write(path, content).unwrap();
    write(folder("").join("meta.properties"), PROPERTIES.as_bytes());
    write(data.join(".kafka_cleanshutdown"), br#"{"version":0,"brokerEpoch":9}"#);
    write(data.join(".lock"), b"");
    write(data.join("recovery-point-offset-checkpoint"), b"0\n2\nletters 0 3\nletters 1 0\n");
    let letters = folder("letters-0");
    let batches = [stored(numbered(["a", "b"]), 0, 0), stored(numbered(["c"]), 2, 2)].concat();
    write(letters.join(LOG), &batches);
    write(letters.join("leader-epoch-checkpoint"), b"0\n2\n0 0\n2 2\n");
    write(letters.join("partition.metadata"), format!("version: 0\ntopic_id: {ID}").as_bytes());
    write(folder("letters-1").join("partition.metadata"), format!("version: 0\ntopic_id: {ID}").as_bytes());
    let partition = |partition_id| PartitionRecord {
        partition_id,
        topic_id: ID,
        replicas: vec![1],
        ..PartitionRecord::default()
    };
    let change = PartitionChangeRecord { topic_id: ID, leader: 1, ..PartitionChangeRecord::default() };
    let config = |name: &str, value: &str| ConfigRecord {
        resource_type: 2,
        resource_name: "letters".into(),
        name: name.into(),
        value: Some(value.into()),
    };
    let records = [
        framed(2, 0, &TopicRecord { name: "letters".into(), topic_id: ID }),
        framed(3, 1, &partition(0)),
        framed(3, 1, &partition(1)),
        framed(5, 1, &change),
        framed(5, 1, &change),
        framed(5, 1, &change),
        framed(4, 0, &config("max.message.bytes", "4321")),
        framed(4, 0, &config("of.tomorrow", "5")),
        framed(18, 0, &AccessControlEntryRecord::default()),
        framed(15, 0, &TopicRecord::default()),
    ];
    let batch = records.iter().fold(BatchBuilder::new(), |batch, record| batch.record(0, None, Some(record)));
    write(folder("__cluster_metadata-0").join(LOG), &stored(batch, 0, 1));
}

fn kafka_home() -> TempDir {
    let home = tempfile::tempdir().unwrap();
    write_kafka(&home.path().join("kafka"));
    home
}

/// All files below a folder, with their contents.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(contents(&path)),
            false => drop(found.insert(path.clone(), fs::read(path).unwrap())),
        }
    }
    found
}

/// Exit code and what was said, on stdout and stderr.
fn run(home: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = ottla(home, arguments).stdin(std::process::Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn import(home: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    run(home, &[&["import", "--from-kafka", "kafka", "--data", "data"], more].concat())
}

fn assert_serves_letters(server: &Server) {
    let mut client = server.client();
    let topic = client.describe("letters");
    assert_eq!((topic.topic_id, topic.partitions.len()), (ID, 2));
    assert_eq!(topic.partitions[0].leader_epoch, 3);
    assert_eq!(values_of(&client.read_all("letters", 0)), ["a", "b", "c"]);
    // Neither program gives a producer id that the other has given.
    assert!(client.new_producer().producer_id >= 1 << 60);
    let (code, described, _) =
        run(server.home(), &["topic", "describe", "letters", "--bootstrap", server.address()]);
    assert_eq!(code, Some(0));
    assert!(described.contains("max.message.bytes") && described.contains("4321"), "{described}");
}

#[test]
fn a_kafka_directory_is_served_where_it_is_and_stays_so_over_a_crash() {
    for clean in [true, false] {
        let home = tempfile::tempdir().unwrap();
        write_kafka(&home.path().join("data"));
        if !clean {
            fs::remove_file(home.path().join("data/.kafka_cleanshutdown")).unwrap();
        }
        let mut server = Server::start_in(home, &[]);
        assert_serves_letters(&server);
        assert_eq!(server.log().matches("not taken over").count(), 3, "{}", server.log());
        assert!(server.log().contains("1 access control entries") && server.log().contains("of.tomorrow"));
        server.kill();
        server.restart();
        assert_serves_letters(&server);
        server.client().append("letters", ["d"]);
        server.stop();
        server.restart();
        assert_eq!(values_of(&server.client().read_all("letters", 0)), ["a", "b", "c", "d"]);
        // It is taken over once.
        assert_eq!(server.log().matches("not taken over").count(), 3, "{}", server.log());
    }
}

#[test]
fn without_a_metadata_log_the_folders_tell_and_nothing_is_let_go() {
    for damage in [true, false] {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("data");
        write_kafka(&data);
        let metadata = data.join("__cluster_metadata-0");
        match damage {
            true => fs::write(metadata.join("00000000000000000005.log"), "later, and behind a gap").unwrap(),
            false => fs::remove_dir_all(&metadata).unwrap(),
        }
        if damage {
            fs::write(metadata.join(LOG), "no batch").unwrap();
        }
        let server = Server::start_in(home, &[]);
        let mut client = server.client();
        let topic = client.describe("letters");
        assert_eq!((topic.topic_id, topic.partitions.len(), topic.partitions[0].leader_epoch), (ID, 2, 2));
        assert_eq!(values_of(&client.read_all("letters", 0)), ["a", "b", "c"]);
        let described =
            run(server.home(), &["topic", "describe", "letters", "--bootstrap", server.address()]).1;
        assert!(described.contains("retention.ms"), "{described}");
        assert!(server.log().contains("topic configs: "), "{}", server.log());
    }
}

#[test]
fn an_import_says_what_it_takes_and_leaves_its_source_alone() {
    let home = kafka_home();
    let before = contents(home.path());
    let (code, said, _) = import(home.path(), &["--dry-run"]);
    assert_eq!(code, Some(0));
    for part in ["1 topics, 2 partitions", "letters", &ID.to_string(), "max.message.bytes=4321"] {
        assert!(said.split("Not taken").next().unwrap().contains(part), "{part}: {said}");
    }
    for part in ["of.tomorrow", "1 access control entries", "server.properties"] {
        assert!(said.split("Not taken").nth(1).unwrap().contains(part), "{part}: {said}");
    }
    // Nobody is there to say yes.
    let (code, _, complaint) = import(home.path(), &[]);
    assert_eq!((code, complaint.as_str()), (Some(2), "ottla: nothing was imported: say yes, or --yes\n"));
    assert_eq!(contents(home.path()), before);

    let (code, said, complaint) = import(home.path(), &["--yes"]);
    assert_eq!(code, Some(0), "{complaint}");
    assert!(said.contains("ottla --data data"), "{said}");
    assert_eq!(contents(&home.path().join("kafka")), {
        let mut kafka = before;
        kafka.retain(|path, _| path.starts_with(home.path().join("kafka")));
        kafka
    });
    let properties = fs::read_to_string(home.path().join("data/meta.properties")).unwrap();
    assert!(properties.contains(CLUSTER) && !properties.contains("bSjtkycyZ8PjMMYmNsvXAQ"), "{properties}");
    let (code, _, complaint) = import(home.path(), &["--yes"]);
    assert!(code == Some(2) && complaint.contains("data: not empty"), "{complaint}");
    let mut server = Server::start_in(home, &[]);
    assert_serves_letters(&server);
    server.stop();
}

#[test]
fn an_interrupted_import_is_seen_and_repeated() {
    let home = kafka_home();
    let data = home.path().join("data");
    let kafka = fs::canonicalize(home.path().join("kafka")).unwrap();
    let marker = format!("cluster.id={CLUSTER}\nfrom={}\n", kafka.display());
    for (marker, done) in [("", 0), (&marker[..], 0), (&marker, 1), (&marker, 2)] {
        let _ = fs::remove_dir_all(&data);
        fs::create_dir(&data).unwrap();
        fs::write(data.join("ottla-import"), marker).unwrap();
        if done > 0 {
            fs::create_dir(data.join("letters-0")).unwrap();
            fs::write(data.join("letters-0").join(LOG), "a part").unwrap();
        }
        if done > 1 {
            fs::write(data.join("meta.properties"), PROPERTIES).unwrap();
        }
        let before = contents(&data);
        let (code, _, complaint) = run(home.path(), &["--listen", "127.0.0.1:0", "--data", "data"]);
        assert!(
            code == Some(2) && complaint.contains("data/ottla-import: an import was interrupted"),
            "{complaint}"
        );
        assert_eq!(contents(&data), before);
        let (code, _, complaint) = import(home.path(), &["--yes"]);
        assert_eq!(code, Some(0), "{complaint}");
        assert_eq!(
            fs::read(data.join("letters-0").join(LOG)).unwrap(),
            fs::read(kafka.join("letters-0").join(LOG)).unwrap()
        );
        assert!(!data.join("ottla-import").exists());
    }
    fs::write(data.join("ottla-import"), "cluster.id=other\n").unwrap();
    let (code, _, complaint) = import(home.path(), &["--yes"]);
    assert!(code == Some(2) && complaint.contains("interrupted import of something else"), "{complaint}");
}

#[test]
fn what_cannot_be_taken_is_named_and_nothing_changes() {
    let refuses = |prepare: &dyn Fn(&Path), code: i32, named: &str| {
        let home = kafka_home();
        let kafka = home.path().join("kafka");
        prepare(&kafka);
        let before = contents(home.path());
        for arguments in [
            &["import", "--from-kafka", "kafka", "--yes"][..],
            &["--listen", "127.0.0.1:0", "--data", "kafka"],
        ] {
            let (found, _, said) = run(home.path(), arguments);
            assert!(said.lines().count() == 1 && said.contains(named), "{arguments:?}: {said}");
            assert!(found == Some(code) || found == Some(2), "{arguments:?}: {found:?}");
        }
        assert_eq!(contents(home.path()), before, "{named}");
    };
    refuses(&|kafka| fs::remove_file(kafka.join("meta.properties")).unwrap(), 2, "meta.properties");
    let newer = PROPERTIES.replace("version=1", "version=2");
    refuses(
        &|kafka| fs::write(kafka.join("meta.properties"), &newer).unwrap(),
        2,
        "meta.properties: version",
    );
    let older = "version=0\nbroker.id=1\n";
    refuses(&|kafka| fs::write(kafka.join("meta.properties"), older).unwrap(), 2, "meta.properties: version");
    refuses(
        &|kafka| {
            let mut batch = fs::read(kafka.join("letters-0").join(LOG)).unwrap();
            batch[16] = 1;
            fs::write(kafka.join("letters-0").join(LOG), batch).unwrap();
        },
        1,
        "letters-0/00000000000000000000.log: has record batches of format 1",
    );
}

#[test]
fn a_directory_in_use_is_not_imported() {
    let home = tempfile::tempdir().unwrap();
    write_kafka(&home.path().join("data"));
    let server = Server::start_in(home, &[]);
    let (code, _, said) = run(server.home(), &["import", "--from-kafka", "data", "--data", "other", "--yes"]);
    assert!(code == Some(2) && said.contains("data: in use; stop its broker first"), "{said}");
    let (code, _, said) =
        run(server.home(), &["import", "--from-kafka", "data", "--data", "data/inner", "--yes"]);
    assert!(code == Some(2) && !server.data().join("inner").exists(), "{said}");
}
