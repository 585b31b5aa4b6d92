//! What a million records cost that are in flight or delayed: memory while they are, and nothing to others. One test, in a process
//! of its own, because it looks at the memory of the process. `cargo test --release --test queue_memory -- --nocapture` says how
//! long it takes, too.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "tests")]

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

/// Of memory, for each record that is out and stands in the line of one of a few keys.
const BYTES_IN_LINE_MAX: u64 = 96;

/// Of memory, for each record that is the only one of its key: what is known of the key counts, too.
const BYTES_WITH_KEY_MAX: u64 = 160;

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

fn receive(shard: &mut QueueShard, group: &str, now: i64, arrivals: Vec<Arrival>, max: i64) -> Received {
    receive_by(TERMS, shard, group, now, arrivals, max)
}

fn receive_by(
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

/// Has records come, `at_a_time`, of which one receive may take as many.
fn fill(shard: &mut QueueShard, group: &str, at_a_time: i64, max: i64, mut kind: impl FnMut(i64) -> Kind) {
    step(shard, group, NOW, QueueEvent::Initialise { start: 0, leader_epoch: 0 });
    for first in (0..RECORDS).step_by(at_a_time as usize) {
        let arrival = |at| Arrival { first: at, last: at, kind: kind(at) };
        receive(shard, group, NOW + first, (first..first + at_a_time).map(arrival).collect(), max);
    }
}

/// A million records of a FIFO queue that keeps them for four days, each of one of `keys` keys: bytes for each while all are delayed,
/// and while all are with somebody. What they are kept in is given back, so that nothing else comes to lie there.
fn keyed(keys: i64) -> ([u64; 2], [QueueShard; 2]) {
    let terms = QueueTerms { fifo: true, ..TERMS };
    let mut shards = [QueueShard::new(), QueueShard::new()];
    let mut bytes = [0; 2];
    for (at, shard) in shards.iter_mut().enumerate() {
        let is_delayed = at == 0;
        let before = resident_bytes();
        step(shard, "fifo", NOW, QueueEvent::Initialise { start: 0, leader_epoch: 0 });
        for first in (0..RECORDS).step_by(100) {
            let arrival = |at: i64| {
                let due = is_delayed.then_some(NOW + 2 * RECORDS + at);
                // Multiplied, so that the hashes of neighbours are far from each other.
                let key = Some((at % keys + 1).cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let kind = Kind { due, expires: Some(NOW + at + 345_600_000), key, ..Kind::default() };
                Arrival { first: at, last: at, kind }
            };
            let arrivals = (first..first + 100).map(arrival).collect();
            // Of few keys, all is handed out when all is there: then nothing waits for its turn.
            let max = if !is_delayed && keys == RECORDS { 100 } else { 0 };
            receive_by(terms, shard, "fifo", NOW + first, arrivals, max);
        }
        let mut taken = 0;
        while !is_delayed && keys < RECORDS && taken < RECORDS {
            let received =
                receive_by(terms, shard, "fifo", NOW + RECORDS + taken, Vec::new(), RECORDS / keys);
            taken += received.ranges.iter().map(|range| range.last - range.first + 1).sum::<i64>();
        }
        bytes[at] = (resident_bytes() - before) / RECORDS as u64;
        let counts = shard.leases(&key("fifo")).unwrap().counts();
        assert_eq!(if is_delayed { counts.waiting } else { counts.leased }, RECORDS);
    }
    (bytes, shards)
}

#[test]
fn a_million_records_cost_little_memory_and_hold_nobody_up() {
    let mut shard = QueueShard::new();
    let mut random = fastrand::Rng::with_seed(1);
    let before = resident_bytes();
    fill(&mut shard, "delayed", 100, 0, |_| {
        let due = Some(NOW + 2 * RECORDS + random.i64(0..3_600_000));
        Kind { due, ..Kind::default() }
    });
    let delayed = resident_bytes() - before;
    assert_eq!(shard.leases(&key("delayed")).unwrap().counts().waiting, RECORDS);

    // Each by a receive of its own, whose lease ends when no other does; and each expires four days after it was sent.
    let before = resident_bytes();
    let began = Instant::now();
    fill(&mut shard, "out", 1, 1, |at| Kind { expires: Some(NOW + at + 345_600_000), ..Kind::default() });
    let taking = began.elapsed();
    let out = resident_bytes() - before;
    assert_eq!(shard.leases(&key("out")).unwrap().counts().leased, RECORDS);
    println!("bytes each: {} delayed, {} in flight", delayed / RECORDS as u64, out / RECORDS as u64);
    assert!(delayed <= BYTES_MAX * RECORDS as u64, "{delayed} bytes for those delayed");
    assert!(out <= BYTES_MAX * RECORDS as u64, "{out} bytes for those in flight");

    // Others come and go behind them.
    let began = Instant::now();
    for at in RECORDS..RECORDS + 100_000 {
        let arrivals = vec![Arrival { first: at, last: at, kind: Kind::default() }];
        let received = receive(&mut shard, "delayed", NOW, arrivals, 1);
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

    let ((few, _few), (many, _many)) = (keyed(100), keyed(RECORDS));
    println!(
        "bytes each in a FIFO queue, delayed and in flight: {few:?} of 100 keys, {many:?} each of its own"
    );
    assert!(few[0] <= BYTES_MAX && few[1] <= BYTES_IN_LINE_MAX, "{few:?} bytes for those of few keys");
    assert!(many.iter().all(|bytes| *bytes <= BYTES_WITH_KEY_MAX), "{many:?} bytes for those of many keys");
}
