//! What a million records cost that are in flight or delayed: memory while they are, and nothing to others.
//! `cargo test --release --test queue_memory -- --nocapture` says how much, and how long it takes.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::Command;
use std::time::Instant;

use ottla::coordinator::share_records::ShareRecord;
use ottla::coordinator::{Effects, Machine, Stored, Ticket};
use ottla::queue::{
    Arrival, Backoff, Dead, Event, Kind, QueueEvent, QueueKey, QueueShard, QueueTerms, Receive, Received,
    Reply, Settle, Settlement,
};
use ottla::uuid::Uuid;

const RECORDS: i64 = 1_000_000;

/// Of memory, for each record.
const BYTES_MAX: u64 = 64;

const NOW: i64 = 1_753_000_000_000;

const TERMS: QueueTerms = QueueTerms {
    delivery_limit: 10,
    max_in_flight: 2 * RECORDS,
    fifo: false,
    key_concurrency: 0,
    key_rate: 0,
    priorities: 1,
    backoff: Backoff { ms: 0, multiplier: 1.0, max_ms: 0 },
    dead: Dead::Keep,
};

fn key(group: &str) -> QueueKey {
    QueueKey { group: group.into(), topic_id: Uuid([5; 16]), partition: 0 }
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

fn step(shard: &mut QueueShard, group: &str, now: i64, event: QueueEvent) -> (Reply, Vec<ShareRecord>) {
    let mut out = Effects::default();
    shard.step(now, Ticket(1), Event::One(key(group), event), &mut out);
    let (_, reply) = out.replies.pop().or_else(|| out.prompt.pop()).unwrap();
    (reply, out.records)
}

fn receive(
    terms: QueueTerms,
    shard: &mut QueueShard,
    group: &str,
    now: i64,
    arrivals: Vec<Arrival>,
    max: i64,
) -> Received {
    let wanted = Receive {
        member: None,
        log_start: 0,
        leader_epoch: 0,
        arrivals_from: arrivals.first().map_or(0, |arrival| arrival.first),
        arrivals,
        max_records: max,
        lease_ms: 3_600_000,
        gives_way: None,
        terms,
    };
    match step(shard, group, now, QueueEvent::Receive(wanted)).0 {
        Reply::Received(Ok(received)) => received,
        other => panic!("{other:?}"),
    }
}

/// How a million records are, of a queue that keeps them for four days, while their memory is measured.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// All wait for their time; else all are with somebody.
    is_delayed: bool,
    /// In an order of their own, not in that of the log.
    is_shuffled: bool,
    /// So many, of a FIFO queue; 0 for none, and none.
    keys: i64,
}

const SHAPES: [Shape; 11] = [
    Shape::delayed(0),
    Shape::delayed(0).shuffled(),
    Shape::out(0),
    Shape::delayed(100),
    Shape::delayed(100).shuffled(),
    Shape::out(100),
    Shape::delayed(RECORDS / 4),
    Shape::out(RECORDS / 4),
    Shape::delayed(RECORDS),
    Shape::delayed(RECORDS).shuffled(),
    Shape::out(RECORDS),
];

impl Shape {
    const fn delayed(keys: i64) -> Self {
        Self { is_delayed: true, is_shuffled: false, keys }
    }

    const fn out(keys: i64) -> Self {
        Self { is_delayed: false, ..Self::delayed(keys) }
    }

    const fn shuffled(self) -> Self {
        Self { is_shuffled: true, ..self }
    }

    /// Bytes for each record. What the memory was used for before would hide some: this is for a process that has done nothing else.
    fn measure(self) -> u64 {
        let mut shard = QueueShard::new();
        let before = resident_bytes();
        self.fill(&mut shard, "measured");
        (resident_bytes() - before) / RECORDS as u64
    }

    fn kind(self, at: i64, random: &mut fastrand::Rng) -> Kind {
        let later = if self.is_shuffled { random.i64(0..3_600_000) } else { at };
        Kind {
            due: self.is_delayed.then_some(NOW + 2 * RECORDS + later),
            expires: Some(NOW + at + 345_600_000),
            // Multiplied, so that the hashes of neighbours are far from each other.
            key: (self.keys > 0)
                .then(|| (at % self.keys + 1).cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            ..Kind::default()
        }
    }

    fn fill(self, shard: &mut QueueShard, group: &str) {
        let mut random = fastrand::Rng::with_seed(1);
        let terms = QueueTerms { fifo: self.keys > 0, ..TERMS };
        // Of few keys, all is handed out when all is there: then nothing waits for its turn.
        let is_out_at_once = !self.is_delayed && (self.keys == 0 || self.keys == RECORDS);
        // What is out is so by a lease of its own, which ends when no other does.
        let at_a_time = if is_out_at_once { 1 } else { 100 };
        step(shard, group, NOW, QueueEvent::Initialise { start: 0, leader_epoch: 0 });
        for first in (0..RECORDS).step_by(at_a_time as usize) {
            let arrival = |at| Arrival { first: at, last: at, kind: self.kind(at, &mut random) };
            let arrivals = (first..first + at_a_time).map(arrival).collect();
            receive(terms, shard, group, NOW + first, arrivals, i64::from(is_out_at_once));
        }
        let mut taken = 0;
        while !self.is_delayed && !is_out_at_once && taken < RECORDS {
            let max = RECORDS / self.keys;
            taken += receive(terms, shard, group, NOW + RECORDS + taken, Vec::new(), max).records();
        }
        let counts = shard.leases(&key(group)).unwrap().counts();
        assert_eq!(if self.is_delayed { counts.waiting } else { counts.leased }, RECORDS, "{self:?}");
    }
}

/// Which shape a child is to measure, by its place.
const SHAPE_VARIABLE: &str = "OTTLA_TEST_SHAPE";

/// What a child says before the bytes.
const SAYS: &str = "bytes for each record: ";

#[test]
#[ignore = "a part of the next, in a process of its own"]
fn one_shape() {
    let Ok(at) = std::env::var(SHAPE_VARIABLE) else { return };
    let at: usize = at.parse().unwrap();
    println!("\n{SAYS}{}", SHAPES[at].measure());
}

#[test]
fn a_million_records_cost_little_memory_whatever_they_are_like() {
    let measured: Vec<_> = (0..SHAPES.len())
        .map(|at| {
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", "one_shape", "--ignored", "--nocapture"]);
            let output = child.env(SHAPE_VARIABLE, at.to_string()).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            let bytes = said.lines().find_map(|line| line.strip_prefix(SAYS)?.parse::<u64>().ok());
            bytes.unwrap_or_else(|| panic!("{output:?}"))
        })
        .collect();
    for (shape, bytes) in SHAPES.iter().zip(&measured) {
        println!("{SAYS}{bytes}, {shape:?}");
        assert!((1..=BYTES_MAX).contains(bytes), "{bytes} bytes for each: {shape:?}");
    }
}

#[test]
fn a_million_records_hold_nobody_up_and_are_there_after_a_restart() {
    let mut shard = QueueShard::new();
    Shape::delayed(0).shuffled().fill(&mut shard, "delayed");
    let began = Instant::now();
    Shape::out(0).fill(&mut shard, "out");
    let taking = began.elapsed();

    // Others come and go behind them.
    let began = Instant::now();
    for at in RECORDS..RECORDS + 100_000 {
        let arrivals = vec![Arrival { first: at, last: at, kind: Kind::default() }];
        let received = receive(TERMS, &mut shard, "delayed", NOW, arrivals, 1);
        assert_eq!(received.ranges.len(), 1);
        let settle = vec![Settle { offset: at, deliveries: 1, what: Settlement::Done }];
        let (reply, records) = step(&mut shard, "delayed", NOW, QueueEvent::Settle(settle));
        assert_eq!((reply, records.len()), (Reply::Settled(Ok(vec![Ok(())])), 1));
    }
    println!(
        "a receive: {:?}; one with its settlement: {:?}",
        taking / RECORDS as u32,
        began.elapsed() / 100_000
    );

    // After a restart the leases are there again.
    let encoded: Vec<_> = shard.snapshot().iter().map(Stored::encode).collect();
    let bytes: usize =
        encoded.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, |value| value.len())).sum();
    let largest = encoded.iter().filter_map(|(_, value)| value.as_ref().map(|value| value.len())).max();
    assert!(largest.unwrap() < 256 << 10, "{largest:?}");
    let began = Instant::now();
    let mut again = QueueShard::new();
    for (key, value) in &encoded {
        again.apply(NOW, &ShareRecord::decode(Some(key), value.as_ref()).unwrap().unwrap());
    }
    println!("read again: {:?}, {} records of {bytes} bytes", began.elapsed(), encoded.len());
    assert_eq!(again.leases(&key("out")).unwrap().counts().leased, RECORDS);
    assert_eq!(again.leases(&key("out")).unwrap().deadline(), Some(NOW + 3_600_000));
}
