//! Kills the real process again and again under load and checks that nothing acknowledged is lost, doubled or reordered, and
//! that what groups have committed never goes back.
#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use bytes::Bytes;
use ottla::protocol::ErrorCode;
use ottla::protocol::messages::find_coordinator::FindCoordinatorRequest;
use ottla::protocol::messages::join_group::{JoinGroupProtocol, JoinGroupRequest};
use ottla::protocol::messages::offset_commit::{
    OffsetCommitPartition, OffsetCommitRequest, OffsetCommitTopic,
};
use ottla::protocol::messages::offset_fetch::{OffsetFetchRequest, OffsetFetchTopic};
use ottla::protocol::messages::produce::ProduceRequest;
use ottla::protocol::messages::sync_group::{SyncGroupAssignment, SyncGroupRequest};
use ottla::protocol::messages::{FindCoordinator, JoinGroup, OffsetCommit, OffsetFetch, Produce, SyncGroup};

use running::{Client, Server, eventually, numbered, produce_request, values_of};

const KILLS: usize = 10;
const PRODUCERS: usize = 4;
const PARTITIONS: usize = 2;
const GROUPS: usize = 2;

/// Requests of a producer on their way at once: no more than a broker recognizes when they come again.
const IN_FLIGHT: usize = 5;

/// Most records that are acknowledged between two kills.
const RECORDS_BETWEEN_KILLS: usize = 20_000;

const VERSION: i16 = 12;

/// What the producers and the one that kills tell each other.
#[derive(Default)]
struct Progress {
    /// Starts of the server that answers; `OVER` when no more is to be sent.
    starts: AtomicUsize,
    acknowledged: AtomicUsize,
}

const OVER: usize = usize::MAX;

/// Ends the producers, also when the one that kills has failed.
struct EndAtDrop<'a>(&'a Progress);

impl Drop for EndAtDrop<'_> {
    fn drop(&mut self) {
        self.0.starts.store(OVER, Ordering::SeqCst);
    }
}

/// A batch that is sent until it is acknowledged, with the same sequence each time.
struct Batch {
    first: i32,
    request: ProduceRequest,
}

/// An idempotent producer whose values are its number and the sequence of the record.
struct Producer<'a> {
    number: usize,
    id: i64,
    address: &'a str,
    random: fastrand::Rng,
    next: i32,
    unacknowledged: VecDeque<Batch>,
    /// First sequence and offset of every acknowledged batch.
    acknowledged: Vec<(i32, i64)>,
}

/// The one member of a group, static, so that it goes on in its place after the broker has died. It commits ever larger offsets.
struct Committer<'a> {
    group: String,
    address: &'a str,
    committed: i64,
    tried: i64,
}

impl Committer<'_> {
    fn run(&mut self, progress: &Progress) {
        let mut seen = 0;
        while seen != OVER {
            seen = eventually("the server is started again", || {
                let starts = progress.starts.load(Ordering::SeqCst);
                (starts > seen).then_some(starts)
            });
            if self.commit_over(progress).is_ok() {
                return;
            }
        }
        panic!("the last server has gone away");
    }

    /// Commits over one connection until the server dies; `Ok` at the end.
    fn commit_over(&mut self, progress: &Progress) -> io::Result<()> {
        let mut client = Client::try_connect(self.address)?;
        let find = FindCoordinatorRequest { key: self.group.as_str().into(), ..Default::default() };
        client.try_call::<FindCoordinator>(2, &find)?;
        self.check(&mut client)?;
        let generation = self.join(&mut client)?;
        loop {
            self.tried += 1;
            let partition = OffsetCommitPartition { committed_offset: self.tried, ..Default::default() };
            let topic =
                OffsetCommitTopic { name: "t".into(), partitions: vec![partition], ..Default::default() };
            let request = OffsetCommitRequest {
                group_id: self.group.as_str().into(),
                generation_id_or_member_epoch: generation.0,
                member_id: generation.1.clone(),
                group_instance_id: Some("the one".into()),
                topics: vec![topic],
                ..Default::default()
            };
            let answer = client.try_call::<OffsetCommit>(9, &request)?;
            assert_eq!(answer.topics[0].partitions[0].error_code, 0, "{answer:?}");
            self.committed = self.tried;
            if progress.starts.load(Ordering::SeqCst) == OVER {
                return self.check(&mut client);
            }
        }
    }

    /// What is stored is what was acknowledged last, or was on its way when the broker died.
    fn check(&self, client: &mut Client) -> io::Result<()> {
        let topic = OffsetFetchTopic { name: "t".into(), partition_indexes: vec![0], ..Default::default() };
        let request = OffsetFetchRequest {
            group_id: self.group.as_str().into(),
            topics: Some(vec![topic]),
            ..Default::default()
        };
        let answer = client.try_call::<OffsetFetch>(7, &request)?;
        assert_eq!(answer.error_code, 0, "{answer:?}");
        let found = answer.topics[0].partitions[0].committed_offset;
        assert!((self.committed..=self.tried).contains(&found), "{found}, not {} or later", self.committed);
        Ok(())
    }

    fn join(&self, client: &mut Client) -> io::Result<(i32, ottla::protocol::wire::Str)> {
        let protocol = JoinGroupProtocol { name: "range".into(), metadata: Bytes::new() };
        let request = JoinGroupRequest {
            group_id: self.group.as_str().into(),
            session_timeout_ms: 60_000,
            rebalance_timeout_ms: 60_000,
            group_instance_id: Some("the one".into()),
            protocol_type: "consumer".into(),
            protocols: vec![protocol],
            ..Default::default()
        };
        let joined = client.try_call::<JoinGroup>(9, &request)?;
        assert_eq!(ErrorCode::from_code(joined.error_code), Some(ErrorCode::None));
        let assignments = joined.members.iter().map(|member| SyncGroupAssignment {
            member_id: member.member_id.clone(),
            assignment: Bytes::from_static(b"all"),
        });
        let request = SyncGroupRequest {
            group_id: self.group.as_str().into(),
            generation_id: joined.generation_id,
            member_id: joined.member_id.clone(),
            group_instance_id: Some("the one".into()),
            protocol_type: Some("consumer".into()),
            protocol_name: Some("range".into()),
            assignments: if joined.skip_assignment { Vec::new() } else { assignments.collect() },
        };
        let synced = client.try_call::<SyncGroup>(5, &request)?;
        assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"all"[..]));
        Ok((joined.generation_id, joined.member_id))
    }
}

/// Long enough that segments of the smallest size are rolled.
fn value(producer: usize, sequence: i32) -> String {
    format!("{producer}:{sequence:0>100}")
}

impl Producer<'_> {
    /// Sends until it is told that it is over, over as many connections as that takes.
    fn run(&mut self, progress: &Progress) {
        let mut seen = 0;
        while seen != OVER {
            // Connecting only to who listens: on a free port a connection could be one to itself.
            seen = eventually("the server is started again", || {
                let starts = progress.starts.load(Ordering::SeqCst);
                (starts > seen).then_some(starts)
            });
            if self.send_over(seen == OVER, progress).is_ok() {
                return;
            }
        }
        panic!("the last server has gone away");
    }

    /// Sends over one connection what is not acknowledged, then more, until the server dies. `Ok` when all is acknowledged
    /// after the end.
    fn send_over(&mut self, mut over: bool, progress: &Progress) -> io::Result<()> {
        let mut client = Client::try_connect(self.address)?;
        for batch in &self.unacknowledged {
            client.try_send::<Produce>(VERSION, &batch.request)?;
        }
        loop {
            over |= progress.starts.load(Ordering::SeqCst) == OVER;
            while !over && self.unacknowledged.len() < IN_FLIGHT {
                let batch = self.new_batch();
                let sent = client.try_send::<Produce>(VERSION, &batch.request);
                self.unacknowledged.push_back(batch);
                sent?;
            }
            let Some(oldest) = self.unacknowledged.front() else { return Ok(()) };
            let answer = client.try_receive::<Produce>(VERSION)?;
            let answer = &answer.responses[0].partition_responses[0];
            assert_eq!(answer.error_code, 0, "{answer:?}");
            let next = self.unacknowledged.get(1).map_or(self.next, |batch| batch.first);
            progress.acknowledged.fetch_add((next - oldest.first) as usize, Ordering::SeqCst);
            self.acknowledged.push((oldest.first, answer.base_offset));
            self.unacknowledged.pop_front();
        }
    }

    fn new_batch(&mut self) -> Batch {
        let first = self.next;
        self.next += self.random.i32(1..20);
        let values = (first..self.next).map(|sequence| value(self.number, sequence));
        let batch = numbered(values).producer(self.id, 0, first).build();
        Batch { first, request: produce_request("t", (self.number % PARTITIONS) as i32, batch) }
    }
}

/// Starts a server and producers, kills it when a random number of records more has been acknowledged, and compares at the
/// end what is there with what was acknowledged.
fn survives_kills(flush: &str) {
    let seed = std::env::var("SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("again with SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut server =
        Server::start(&["--flush", flush, "--topic", &format!("t:{PARTITIONS}:segment.bytes=1048576")]);
    let address = server.address().to_owned();
    let mut client = server.client();
    let mut producers: Vec<_> = (0..PRODUCERS)
        .map(|number| Producer {
            number,
            id: client.new_producer().producer_id,
            address: &address,
            random: random.fork(),
            next: 0,
            unacknowledged: VecDeque::new(),
            acknowledged: Vec::new(),
        })
        .collect();
    let mut committers: Vec<_> = (0..GROUPS)
        .map(|number| Committer { group: format!("g{number}"), address: &address, committed: -1, tried: -1 })
        .collect();
    let progress = Progress::default();
    thread::scope(|scope| {
        let _end = EndAtDrop(&progress);
        let mut running: Vec<_> =
            producers.iter_mut().map(|producer| scope.spawn(|| producer.run(&progress))).collect();
        running.extend(committers.iter_mut().map(|committer| scope.spawn(|| committer.run(&progress))));
        for start in 1..=KILLS {
            progress.starts.store(start, Ordering::SeqCst);
            let target =
                progress.acknowledged.load(Ordering::SeqCst) + random.usize(1..RECORDS_BETWEEN_KILLS);
            eventually("the load goes on", || {
                assert!(!running.iter().any(|producer| producer.is_finished()), "a client has failed");
                (progress.acknowledged.load(Ordering::SeqCst) >= target).then_some(())
            });
            server.restart();
        }
    });
    for _ in 0..2 {
        let mut client = server.client();
        let stored = (0..PARTITIONS).map(|partition| values_of(&client.read_all("t", partition as i32)));
        check(&producers, &stored.collect::<Vec<_>>());
        for committer in &committers {
            assert!(committer.committed > KILLS as i64, "{}", committer.committed);
            committer.check(&mut client).unwrap();
        }
        server.restart();
    }
}

/// Every producer's records are all there, once, in order, and where the acknowledgement said. What was not acknowledged
/// was sent again until it was, so that nothing may be missing at all.
fn check(producers: &[Producer<'_>], stored: &[Vec<String>]) {
    let mut next: HashMap<usize, i32> = HashMap::new();
    for found in stored.iter().flatten() {
        let number = found.split_once(':').unwrap().0.parse().unwrap();
        let expected = next.entry(number).or_default();
        assert_eq!(*found, value(number, *expected), "lost, doubled or reordered");
        *expected += 1;
    }
    for producer in producers {
        assert_eq!(next[&producer.number], producer.next, "producer {}", producer.number);
        let partition = &stored[producer.number % PARTITIONS];
        for (first, offset) in &producer.acknowledged {
            assert_eq!(partition[*offset as usize], value(producer.number, *first), "at {offset}");
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_doubled_or_reordered_in_commit_mode() {
    survives_kills("commit");
}

#[test]
fn nothing_acknowledged_is_lost_doubled_or_reordered_in_os_mode() {
    survives_kills("os");
}
