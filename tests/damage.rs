//! Flips bytes and cuts files of a killed or stopped broker's directory, and looks what the next start, `ottla log verify` and
//! `ottla log repair` make of it.
#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use ottla::protocol::ErrorCode;
use ottla::protocol::messages::OffsetForLeaderEpoch;
use ottla::protocol::messages::offset_for_leader_epoch::{
    EpochPartition, EpochTopic, OffsetForLeaderEpochRequest,
};

use running::{Client, Server, numbered, ottla, records_of, values_of};

const BATCHES: usize = 60;
const RECORDS: usize = 5;

fn value(number: usize) -> String {
    format!("{number:0>20000}")
}

/// A broker with a topic of one partition in several segments, its batches one after the other.
fn filled() -> Server {
    let server = Server::start(&["--topic", "t:1:segment.bytes=1048576"]);
    let mut client = server.client();
    for batch in 0..BATCHES {
        let values = (batch * RECORDS..(batch + 1) * RECORDS).map(value);
        client.produce("t", 0, numbered(values).build());
    }
    server
}

fn files(server: &Server, suffix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(server.data().join("t-0")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.to_str().unwrap().ends_with(suffix)).collect();
    files.sort();
    files
}

fn base_offset(log: &Path) -> usize {
    log.file_stem().unwrap().to_str().unwrap().parse().unwrap()
}

/// Position and size of the batches in a log.
fn batches(log: &Path) -> Vec<(usize, usize)> {
    let bytes = fs::read(log).unwrap();
    let mut found = Vec::new();
    let mut at = 0;
    while bytes.len() >= at + 61 && bytes[at + 16] == 2 {
        let size = 12 + u32::from_be_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
        found.push((at, size));
        at += size;
    }
    found
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 4;
    fs::write(path, bytes).unwrap();
}

fn tool(server: &Server, words: &[&str]) -> Output {
    ottla(server.home(), words).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn leader_epoch(client: &mut Client) -> i32 {
    // Who asks with an epoch that is too old is fenced; the newest is the first that is not.
    (0..10)
        .find(|epoch| {
            let partition =
                EpochPartition { partition: 0, current_leader_epoch: *epoch, leader_epoch: *epoch };
            let topic = EpochTopic { topic: "t".into(), partitions: vec![partition] };
            let request = OffsetForLeaderEpochRequest { replica_id: -1, topics: vec![topic] };
            let answer = client.call::<OffsetForLeaderEpoch>(4, &request);
            answer.topics[0].partitions[0].error_code == 0
        })
        .unwrap()
}

#[test]
fn a_torn_or_flipped_end_is_cut_and_what_came_before_is_served() {
    for torn in [true, false] {
        let mut server = filled();
        server.kill();
        let log = files(&server, ".log").pop().unwrap();
        let all = batches(&log);
        let (position, size) = all[all.len() - 1];
        match torn {
            true => {
                let file = fs::File::options().write(true).open(&log).unwrap();
                file.set_len((position + size - 7) as u64).unwrap();
            }
            false => flip(&log, position + 100),
        }
        let verified = tool(&server, &["log", "verify", "data"]);
        assert_eq!(verified.status.code(), Some(1), "{}", said(&verified));
        let place = format!("{} at position {position}:", log.file_name().unwrap().to_str().unwrap());
        assert!(said(&verified).contains(&place), "{}", said(&verified));

        server.restart();
        let left = base_offset(&log) + (all.len() - 1) * RECORDS;
        let mut client = server.client();
        assert_eq!(values_of(&client.read_all("t", 0)), (0..left).map(value).collect::<Vec<_>>());
        assert_eq!(leader_epoch(&mut client), 1);
        let log_line = server.log();
        assert!(log_line.contains("the log was cut at a damaged batch"), "{log_line}");
        assert!(log_line.contains(&format!("position={position}")), "{log_line}");
        client.produce("t", 0, numbered(std::iter::once(value(left))).build());
        server.stop();
        let verified = tool(&server, &["log", "verify", "data"]);
        assert_eq!(verified.status.code(), Some(0), "{}", said(&verified));
    }
}

#[test]
fn damage_in_the_middle_is_not_served_is_named_and_is_mended_by_repair() {
    let mut server = filled();
    let in_use = tool(&server, &["log", "repair", "data", "--yes"]);
    assert_eq!(in_use.status.code(), Some(2));
    assert!(said(&in_use).contains("in use by another broker"), "{}", said(&in_use));
    let in_use = tool(&server, &["log", "verify", "data"]);
    assert_eq!(in_use.status.code(), Some(0), "{}", said(&in_use));
    assert!(said(&in_use).contains("note: data: in use by a broker"), "{}", said(&in_use));
    server.stop();
    let sound = tool(&server, &["log", "repair", "data"]);
    assert_eq!((said(&sound).trim(), sound.status.code()), ("nothing to repair", Some(0)));

    let logs = files(&server, ".log");
    assert!(logs.len() > 3);
    let position = batches(&logs[1])[3].0;
    // Its base offset, which no checksum covers.
    flip(&logs[1], position + 7);
    let before = base_offset(&logs[1]) + 3 * RECORDS;
    server.restart();
    let mut client = server.client();
    let mut offset = 0;
    loop {
        let partition = client.fetch("t", 0, offset);
        if partition.error_code != 0 {
            assert_eq!(ErrorCode::from_code(partition.error_code), Some(ErrorCode::CorruptMessage));
            break;
        }
        let records = records_of(&partition);
        offset = records.last().unwrap().offset + 1;
    }
    assert_eq!(offset as usize, before);
    server.stop();
    assert!(server.log().contains("damaged at rest: not served"));

    let place = format!("{} at position {position}:", logs[1].file_name().unwrap().to_str().unwrap());
    let verified = tool(&server, &["log", "verify", "data"]);
    assert_eq!(verified.status.code(), Some(1));
    assert!(said(&verified).contains(&place), "{}", said(&verified));
    let contents = |server: &Server| -> Vec<_> {
        files(server, "").into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect()
    };
    let untouched = contents(&server);
    let tried = tool(&server, &["log", "repair", "data"]);
    assert_eq!(tried.status.code(), Some(1), "{}", said(&tried));
    let last = BATCHES * RECORDS - 1;
    for words in [
        place,
        format!("offsets {before} to {last} are lost; what comes after is kept"),
        "nothing was changed".to_owned(),
    ] {
        assert!(said(&tried).contains(&words), "{words}: {}", said(&tried));
    }
    assert_eq!(contents(&server), untouched);
    let repaired = tool(&server, &["log", "repair", "data", "--yes"]);
    assert_eq!(repaired.status.code(), Some(0), "{}", said(&repaired));
    assert!(said(&repaired).ends_with("repaired\n"), "{}", said(&repaired));
    assert!(!files(&server, &format!(".log.cut-{position}")).is_empty());
    assert!(!files(&server, ".log.cut-0").is_empty());
    let verified = tool(&server, &["log", "verify", "data"]);
    assert_eq!(verified.status.code(), Some(0), "{}", said(&verified));

    server.restart();
    let mut client = server.client();
    assert_eq!(values_of(&client.read_all("t", 0)), (0..before).map(value).collect::<Vec<_>>());
    assert_eq!(leader_epoch(&mut client), 1);
}

#[test]
fn the_directories_of_one_broker_are_repaired_together() {
    let mut server = Server::start(&["--data", "a", "--data", "b", "--topic", "t:2"]);
    let mut client = server.client();
    for (partition, value) in [(0, "first"), (1, "first"), (0, "second"), (1, "second")] {
        assert_eq!(client.produce("t", partition, numbered([value]).build()).error_code, 0);
    }
    server.stop();
    let log_in = |directory: &str| {
        let of_t = |partition| format!("{directory}/t-{partition}/00000000000000000000.log");
        (0..2).map(of_t).find(|log| server.home().join(log).exists()).unwrap()
    };
    let logs = ["a", "b"].map(log_in);
    let places = logs.each_ref().map(|log| {
        let path = server.home().join(log);
        let position = batches(&path)[1].0;
        flip(&path, position + 70);
        format!("{log} at position {position}:")
    });
    let run = |words: &[&str], code: i32| {
        let output = tool(&server, &[&["log"], words].concat());
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", said(&output));
        said(&output)
    };
    // The catalog is in the first; a directory that is not there is not made.
    assert!(run(&["repair", "b"], 2).contains("b: no directory of Ottla's: there is no catalog"));
    assert!(run(&["repair", "a", "b", "c", "--yes"], 2).contains("c/meta.properties"));
    assert!(!server.home().join("c").exists());
    let said = run(&["repair", "a"], 1);
    assert!(said.contains(&places[0]) && !said.contains(&places[1]), "{said}");
    for (words, code) in [(&["verify", "a", "b"][..], 1), (&["repair", "a", "b"], 1)] {
        let said = run(words, code);
        assert!(places.iter().all(|place| said.contains(place)), "{words:?}: {said}");
    }
    assert!(run(&["repair", "b", "a", "--yes"], 0).ends_with("repaired\n"));
    assert!(run(&["verify", "a", "b"], 0).contains("sound: "));
    server.restart();
    for partition in 0..2 {
        assert_eq!(values_of(&server.client().read_all("t", partition)), ["first"]);
    }
}
