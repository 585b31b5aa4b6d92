//! Kills the real process again and again under load and checks that nothing acknowledged is lost, doubled or reordered.
#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use ottla::protocol::messages::Produce;
use ottla::protocol::messages::produce::ProduceRequest;

use running::{Client, Server, eventually, numbered, produce_request, values_of};

const KILLS: usize = 10;
const PRODUCERS: usize = 4;
const PARTITIONS: usize = 2;

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
    let progress = Progress::default();
    thread::scope(|scope| {
        let _end = EndAtDrop(&progress);
        let running: Vec<_> =
            producers.iter_mut().map(|producer| scope.spawn(|| producer.run(&progress))).collect();
        for start in 1..=KILLS {
            progress.starts.store(start, Ordering::SeqCst);
            let target =
                progress.acknowledged.load(Ordering::SeqCst) + random.usize(1..RECORDS_BETWEEN_KILLS);
            eventually("the load goes on", || {
                assert!(!running.iter().any(|producer| producer.is_finished()), "a producer has failed");
                (progress.acknowledged.load(Ordering::SeqCst) >= target).then_some(())
            });
            server.restart();
        }
    });
    for _ in 0..2 {
        let mut client = server.client();
        let stored = (0..PARTITIONS).map(|partition| values_of(&client.read_all("t", partition as i32)));
        check(&producers, &stored.collect::<Vec<_>>());
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
