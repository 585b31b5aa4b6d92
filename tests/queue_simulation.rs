//! Queues under a simulated clock, against a model that knows each record by itself: random consumers, random verdicts, random
//! silence, logs that lose their front and their middle, and crashes that lose what was not yet durable. A seed makes the whole
//! run; a failing one is printed and reproduces with `OTTLA_SEED=n cargo test --test queue_simulation`. `OTTLA_SEEDS=n` runs
//! that many (1,000 without it).
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "queue_simulation/receipts.rs"]
mod receipts;

use std::collections::BTreeSet;
use std::sync::Arc;

use ottla::coordinator::share_records::{ACKNOWLEDGED, ARCHIVED, ShareRecord, StateBatch};
use ottla::coordinator::{Effects, Machine, Stored, Ticket};
use ottla::queue::{
    Ack, Dead, Event, Portion, QueueError, QueueEvent, QueueKey, QueueShard, Range, Reply, Taken, Terms,
    Verdict, Wish,
};
use ottla::uuid::Uuid;

const MEMBERS: usize = 5;
const STEPS: usize = 250;

/// A record as it must be.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
struct Known {
    lease: Option<(usize, i64)>,
    deliveries: i16,
    /// [`ACKNOWLEDGED`] or [`ARCHIVED`], once it is done.
    fate: Option<i8>,
    /// Whether somebody was told that it is.
    is_told: bool,
    /// Whether the log has it.
    is_there: bool,
}

struct World {
    seed: u64,
    random: fastrand::Rng,
    now: i64,
    terms: Terms,
    machine: QueueShard,
    log: Vec<ShareRecord>,
    durable: usize,
    /// Offsets to tell of, and the length of the log that the telling waits for.
    untold: Vec<(usize, Vec<i64>)>,
    next_ticket: u64,
    /// The topic: first and last offset of each batch.
    batches: Vec<(i64, i64)>,
    log_start: i64,
    log_end: i64,
    known: Vec<Known>,
    /// What each member was handed out and has not spoken of.
    has: Vec<Vec<Range>>,
    crashes: usize,
    accepted: usize,
    expired: usize,
}

fn key() -> QueueKey {
    QueueKey { group: "workers".into(), topic_id: Uuid([5; 16]), partition: 0 }
}

fn name(member: usize) -> Arc<str> {
    format!("member-{member}").into()
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let terms = Terms {
            lock_duration_ms: random.i64(10..1_000),
            delivery_limit: random.u16(2..7),
            max_in_flight: random.i64(5..100),
            dead: Dead::Archive,
        };
        let mut world = Self {
            seed,
            random,
            now: 1_000_000,
            terms,
            machine: QueueShard::new(),
            log: Vec::new(),
            durable: 0,
            untold: Vec::new(),
            next_ticket: 0,
            batches: Vec::new(),
            log_start: 0,
            log_end: 0,
            known: Vec::new(),
            has: vec![Vec::new(); MEMBERS],
            crashes: 0,
            accepted: 0,
            expired: 0,
        };
        world.ask(QueueEvent::Initialise { start: 0, leader_epoch: 0 }, &BTreeSet::new());
        world.sync_disk();
        world
    }

    /// Has the machine step, and checks what it wrote. Only `doomed` records may be archived that are in the log and were not
    /// delivered too often.
    fn ask(&mut self, event: QueueEvent, doomed: &BTreeSet<i64>) -> Reply {
        self.step(Event::One(key(), event), doomed)
    }

    fn step(&mut self, event: Event, doomed: &BTreeSet<i64>) -> Reply {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let mut effects = Effects::default();
        self.machine.step(self.now, ticket, event, &mut effects);
        let mut replies = effects.replies.iter().chain(&effects.prompt);
        let reply = replies.find(|(to, _)| *to == ticket).map(|(_, reply)| reply.clone());
        self.take_in(effects, doomed);
        reply.unwrap()
    }

    fn take_in(&mut self, effects: Effects<Reply, ShareRecord>, doomed: &BTreeSet<i64>) {
        for record in effects.records {
            if let ShareRecord::Update { value, .. } = &record {
                value.state_batches.iter().for_each(|batch| self.note(batch, doomed));
            }
            self.log.push(record);
        }
    }

    /// Every record ends once, and for a reason.
    fn note(&mut self, batch: &StateBatch, doomed: &BTreeSet<i64>) {
        let seed = self.seed;
        for offset in batch.first_offset..=batch.last_offset {
            let limit = self.terms.delivery_limit as i16;
            let known = &mut self.known[offset as usize];
            assert_eq!(known.fate, None, "seed {seed}: {offset} ends again by {batch:?}");
            if batch.delivery_state == ARCHIVED {
                let in_log = offset >= self.log_start && known.is_there;
                let is_worn_out = known.deliveries >= limit;
                assert!(
                    !in_log || is_worn_out || doomed.contains(&offset),
                    "seed {seed}: {offset} {known:?}"
                );
            }
            if batch.delivery_state == ACKNOWLEDGED {
                assert!(known.lease.is_some(), "seed {seed}: {offset} was with nobody");
            }
            if [ACKNOWLEDGED, ARCHIVED].contains(&batch.delivery_state) {
                known.fate = Some(batch.delivery_state);
                known.lease = None;
            }
        }
    }

    fn check(&self) {
        let leases = self.machine.leases(&key()).unwrap();
        for (offset, known) in self.known.iter().enumerate() {
            let offset = offset as i64;
            let lease = leases.lease_of(offset).map(|(_, until)| until);
            let expected = known.lease.map(|(_, until)| until).filter(|until| *until > self.now);
            assert_eq!(lease.filter(|until| *until > self.now), expected, "seed {}: {offset}", self.seed);
            assert!(offset >= leases.start() || known.fate.is_some(), "seed {}: {offset} lost", self.seed);
        }
        assert!(leases.start() <= leases.next() && leases.next() <= leases.end());
    }

    /// Lets time pass, with everything that becomes due on the way.
    fn pass(&mut self, ms: i64) {
        let until = self.now + ms;
        while let Some(due) = self.machine.deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            let over = self.known.iter_mut().filter(|known| known.lease.is_some_and(|(_, end)| end <= due));
            self.expired += over.map(|known| known.lease = None).count();
            let mut effects = Effects::default();
            self.machine.tick(self.now, &mut effects);
            self.take_in(effects, &BTreeSet::new());
            assert!(self.machine.deadline().is_none_or(|next| next > due), "seed {}: no progress", self.seed);
        }
        self.now = until;
        let over = self.known.iter().any(|known| known.lease.is_some_and(|(_, end)| end <= until));
        assert!(!over, "seed {}: a lease outlives its deadline", self.seed);
    }

    fn sync_disk(&mut self) {
        self.durable = self.log.len();
        for (_, offsets) in std::mem::take(&mut self.untold) {
            offsets.into_iter().for_each(|offset| self.known[offset as usize].is_told = true);
        }
    }

    /// The broker dies with what had not reached the disk, or with part of it, and comes back.
    fn crash(&mut self) {
        let kept = self.durable + self.random.usize(0..=self.log.len() - self.durable);
        self.log.truncate(kept);
        self.durable = kept;
        self.untold.clear();
        self.crashes += 1;
        self.machine = self.replay();
        for known in &mut self.known {
            *known = Known { is_told: known.is_told, is_there: known.is_there, ..Default::default() };
        }
        for record in &self.log {
            let ShareRecord::Update { value, .. } = record else { continue };
            for batch in &value.state_batches {
                for offset in batch.first_offset..=batch.last_offset {
                    let known = &mut self.known[offset as usize];
                    known.deliveries = batch.delivery_count;
                    known.fate = Some(batch.delivery_state).filter(|state| *state != 0);
                }
            }
        }
        let undone = self.known.iter().position(|known| known.is_told && known.fate.is_none());
        assert_eq!(undone, None, "seed {}: an answered verdict is lost", self.seed);
        self.check();
    }

    fn replay(&self) -> QueueShard {
        let mut machine = QueueShard::new();
        for record in &self.log {
            let (key, value) = record.encode();
            machine.apply(self.now, &ShareRecord::decode(Some(&key), value.as_ref()).unwrap().unwrap());
        }
        machine
    }

    fn check_replay(&self) {
        assert_eq!(self.replay().snapshot(), self.machine.snapshot(), "seed {}", self.seed);
        let mut again = QueueShard::new();
        self.machine.snapshot().iter().for_each(|record| again.apply(self.now, record));
        assert_eq!(again.snapshot(), self.machine.snapshot(), "seed {}", self.seed);
    }

    fn produce(&mut self) {
        for _ in 0..self.random.usize(1..4) {
            // What compaction has taken away leaves a hole.
            let hole = if self.random.u8(0..6) == 0 { self.random.i64(1..4) } else { 0 };
            let first = self.log_end + hole;
            let last = first + self.random.i64(0..20);
            self.batches.push((first, last));
            self.log_end = last + 1;
            self.known.resize(first as usize, Known::default());
            self.known.resize(self.log_end as usize, Known { is_there: true, ..Default::default() });
        }
    }

    fn read(&mut self, from: i64) -> Vec<(i64, i64)> {
        let count = self.random.usize(1..5);
        let found = self.batches.iter().filter(|(_, last)| *last >= from && *last >= self.log_start);
        found.take(count).copied().collect()
    }

    fn wish(&mut self, member: usize, from: i64, batches: Vec<(i64, i64)>) -> Wish {
        Wish {
            member: name(member),
            log_start: self.log_start,
            leader_epoch: 0,
            from,
            batches,
            max_records: self.random.i64(1..60),
            range_records: self.random.i64(1..60),
            portion: if self.random.bool() { Portion::Exact } else { Portion::WholeBatches },
            terms: self.terms,
        }
    }

    /// Asks where to read, reads, and takes; now and then another was there in between.
    fn take(&mut self, member: usize) -> usize {
        let probe = self.wish(member, 0, Vec::new());
        let next = self.taken(member, probe).next;
        let from = next.max(self.log_start);
        let batches = self.read(from);
        if self.random.u8(0..5) == 0 {
            let other = self.random.usize(0..MEMBERS);
            let wish = self.wish(other, from, batches.clone());
            self.taken(other, wish);
        }
        let wish = self.wish(member, from, batches);
        let (asked, is_exact) = (wish.max_records, wish.portion == Portion::Exact);
        let ranges = self.taken(member, wish).ranges;
        let records: i64 = ranges.iter().map(|range| range.last - range.first + 1).sum();
        assert!(!is_exact || records <= asked, "seed {}: {records} for {asked}", self.seed);
        records as usize
    }

    fn taken(&mut self, member: usize, wish: Wish) -> Taken {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let mut effects = Effects::default();
        self.machine.step(self.now, ticket, Event::One(key(), QueueEvent::Take(wish)), &mut effects);
        // Not held back for the disk.
        assert_eq!(effects.replies.len(), 0);
        let Some((_, Reply::Taken(Ok(taken)))) = effects.prompt.iter().find(|(to, _)| *to == ticket).cloned()
        else {
            panic!("seed {}: {effects:?}", self.seed);
        };
        for range in &taken.ranges {
            for offset in range.first..=range.last {
                let until = self.now + self.terms.lock_duration_ms;
                let known = &mut self.known[offset as usize];
                let in_log = offset >= self.log_start && known.is_there;
                assert!(
                    in_log && known.fate.is_none() && !known.is_told,
                    "seed {}: {offset} {known:?}",
                    self.seed
                );
                assert_eq!(known.lease, None, "seed {}: {offset} is with somebody", self.seed);
                known.deliveries += 1;
                known.lease = Some((member, until));
                assert_eq!(range.deliveries, known.deliveries as u16, "seed {}: {offset}", self.seed);
                assert!(range.deliveries <= self.terms.delivery_limit, "seed {}: {offset}", self.seed);
            }
        }
        self.has[member].extend(taken.ranges.iter().copied());
        self.take_in(effects, &BTreeSet::new());
        taken
    }

    /// A member speaks of some of what it was given, some time: right or wrong is for the model to say.
    fn acknowledge(&mut self, member: usize) {
        let mut acks = Vec::new();
        let mut mine = std::mem::take(&mut self.has[member]);
        mine.sort_by_key(|range| range.first);
        let mut next = 0;
        for range in mine {
            if self.random.u8(0..4) == 0 || range.first < next {
                self.has[member].push(range);
                continue;
            }
            let mut first = range.first;
            while first <= range.last {
                let last = self.random.i64(first..=range.last);
                let verdicts =
                    [Verdict::Accept, Verdict::Accept, Verdict::Release, Verdict::Reject, Verdict::Renew];
                let verdict = verdicts[self.random.usize(0..verdicts.len())];
                acks.push(Ack { first, last, verdict });
                if verdict == Verdict::Renew {
                    self.has[member].push(Range { first, last, ..range });
                }
                first = last + 1;
            }
            next = first;
        }
        self.speak(member, acks);
    }

    fn speak(&mut self, member: usize, acks: Vec<Ack>) {
        let start = self.machine.leases(&key()).unwrap().start();
        let now = self.now;
        let offsets = |ack: &Ack| (ack.first.max(start)..=ack.last).collect::<Vec<_>>();
        let holds = |offset: i64| {
            self.known.get(offset as usize).is_some_and(|known| {
                known.lease.is_some_and(|(holder, until)| holder == member && until > now)
            })
        };
        let is_right = acks.iter().flat_map(offsets).all(holds);
        let rejected = acks.iter().filter(|ack| ack.verdict == Verdict::Reject).flat_map(offsets).collect();
        let event = QueueEvent::Acknowledge { member: name(member), acks: acks.clone(), terms: self.terms };
        let reply = self.ask_before_model(event, &rejected, &acks, is_right, member, start);
        match reply {
            Reply::Done(Ok(())) => assert!(is_right, "seed {}: {acks:?} accepted", self.seed),
            Reply::Done(Err(QueueError::NotHeld(_))) => {
                assert!(!is_right, "seed {}: {acks:?} refused", self.seed);
            }
            other => panic!("seed {}: {other:?}", self.seed),
        }
    }

    /// The model moves with the machine, before what both say is compared.
    fn ask_before_model(
        &mut self,
        event: QueueEvent,
        doomed: &BTreeSet<i64>,
        acks: &[Ack],
        is_right: bool,
        member: usize,
        start: i64,
    ) -> Reply {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let mut effects = Effects::default();
        self.machine.step(self.now, ticket, Event::One(key(), event), &mut effects);
        let reply = effects.replies.iter().find(|(to, _)| *to == ticket).map(|(_, reply)| reply.clone());
        let mut told = Vec::new();
        for ack in acks.iter().filter(|_| is_right) {
            for offset in ack.first.max(start)..=ack.last {
                let known = &mut self.known[offset as usize];
                match ack.verdict {
                    Verdict::Release => known.lease = None,
                    Verdict::Renew => {
                        known.lease = Some((member, self.now + self.terms.lock_duration_ms));
                    }
                    Verdict::Accept | Verdict::Reject | Verdict::Gap => {
                        told.push(offset);
                        self.accepted += 1;
                    }
                }
            }
        }
        self.take_in(effects, doomed);
        assert!(told.iter().all(|offset| self.known[*offset as usize].fate.is_some()), "seed {}", self.seed);
        self.untold.push((self.log.len(), told));
        reply.unwrap()
    }

    /// The member's connection is gone.
    fn leave(&mut self, member: usize) {
        self.known.iter_mut().filter(|known| known.lease.is_some_and(|(of, _)| of == member)).for_each(
            |known| {
                known.lease = None;
            },
        );
        let event = Event::Release { group: key().group, member: name(member) };
        assert_eq!(self.step(event, &BTreeSet::new()), Reply::Done(Ok(())));
        if self.random.bool() {
            self.has[member].clear();
        }
    }

    fn run(mut self) -> (usize, usize, usize) {
        for step in 0..STEPS {
            if step % 5 == 0 {
                self.check();
            }
            let member = self.random.usize(0..MEMBERS);
            match self.random.u8(0..100) {
                0..10 => self.produce(),
                10..45 => drop(self.take(member)),
                45..70 => self.acknowledge(member),
                70..75 => {
                    // Of records that it may never have had.
                    let first = self.random.i64(0..=self.log_end);
                    let last = first + self.random.i64(0..5);
                    self.speak(member, vec![Ack { first, last, verdict: Verdict::Accept }]);
                }
                75..78 => self.leave(member),
                78..88 => {
                    let ms = self.random.i64(0..self.terms.lock_duration_ms);
                    self.pass(ms);
                }
                88..94 => self.sync_disk(),
                94..95 => {
                    self.log_start = self.random.i64(self.log_start..=self.log_end.min(self.log_start + 20));
                }
                95..96 if !self.batches.is_empty() => {
                    let gone = self.random.usize(0..self.batches.len());
                    let (first, last) = self.batches.remove(gone);
                    self.known[first as usize..=last as usize]
                        .iter_mut()
                        .for_each(|known| known.is_there = false);
                }
                96..98 => self.crash(),
                _ => self.check_replay(),
            }
        }
        self.check_replay();
        self.settle_down();
        (self.accepted, self.expired, self.crashes)
    }

    /// Without further trouble every record ends.
    fn settle_down(&mut self) {
        self.produce();
        for member in 0..MEMBERS {
            self.leave(member);
        }
        self.has.iter_mut().for_each(Vec::clear);
        self.log_start = self.log_start.min(self.log_end);
        for _ in 0..20_000 {
            if self.machine.leases(&key()).unwrap().start() > self.batches.last().unwrap().1 {
                break;
            }
            self.take(0);
            for range in std::mem::take(&mut self.has[0]) {
                self.speak(0, vec![Ack { first: range.first, last: range.last, verdict: Verdict::Accept }]);
            }
            for member in 1..MEMBERS {
                if !self.has[member].is_empty() {
                    self.leave(member);
                    self.has[member].clear();
                }
            }
        }
        self.sync_disk();
        self.crash();
        let unfinished = self.known.iter().position(|known| known.fate.is_none());
        assert_eq!(unfinished, None, "seed {}: {:?}", self.seed, self.machine.leases(&key()));
    }
}

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    match number("OTTLA_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("OTTLA_SEEDS").unwrap_or(1_000),
    }
}

#[test]
fn every_record_is_with_one_member_at_a_time_and_ends_once() {
    let count = seeds().count() as u64;
    let (mut accepted, mut expired, mut crashes) = (0, 0, 0);
    for seed in seeds() {
        let (of_seed, leases, crashed) = World::new(seed).run();
        accepted += of_seed;
        expired += leases;
        crashes += crashed;
    }
    // The runs went somewhere: records were dealt with, leases ended, brokers died.
    assert!(
        accepted as u64 > count * 50 && expired as u64 > count * 10 && crashes as u64 > count,
        "{accepted} {expired} {crashes}"
    );
}

#[test]
fn every_record_of_a_queue_comes_when_it_may_to_one_at_a_time_and_ends_once() {
    let count = seeds().count() as u64;
    let mut all = receipts::Tally::default();
    for seed in seeds() {
        let of_seed = receipts::run(seed);
        all.handed_out += of_seed.handed_out;
        all.settled += of_seed.settled;
        all.died += of_seed.died;
        all.ended += of_seed.ended;
        all.crashes += of_seed.crashes;
        all.picked += of_seed.picked;
        all.gave_way += of_seed.gave_way;
    }
    let receipts::Tally { handed_out, settled, picked, gave_way, died, ended, crashes } = all;
    assert!(
        handed_out > count * 50
            && settled > count * 50
            && picked > count * 2
            && gave_way > count
            && died > count * 2
            && ended > count * 5
            && crashes > count,
        "{handed_out} {settled} {picked} {gave_way} {died} {ended} {crashes}"
    );
}
