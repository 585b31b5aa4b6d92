//! The same for queues, whose records are due, expire, have priorities and keys: receivers with receipts, members of a share
//! group beside them, a mover of the dead, purges, changing terms, a log that loses records, and crashes.

use std::collections::{BTreeMap, BTreeSet};

use ottla::coordinator::share_records::{
    ACKNOWLEDGED, ARCHIVED, ARCHIVING, GAVE_WAY, ShareRecord, StateBatch,
};
use ottla::coordinator::{Effects, Machine, Stored, Ticket};
use ottla::queue::{
    Ack, Arrival, Backoff, Cause, Condition, Counts, Dead, Died, Event, Kind, Pick, Picked, QueueEvent,
    QueueShard, QueueTerms, Range, Receive, Received, Reply, Settle, SettleError, Settlement, Standing,
    Terms, Verdict,
};

use super::{key, name};

const MEMBERS: usize = 3;
const STEPS: usize = 250;

/// Who holds what is dealt with for what it is, in the place of a member.
const PICKER: usize = usize::MAX;

/// A record as it must be.
#[derive(Clone, Copy, Default, Debug)]
struct Known {
    kind: Kind,
    /// Whether the log has it.
    is_there: bool,
    /// By which member or [`PICKER`], or by receipt; and until when.
    lease: Option<(Option<usize>, i64)>,
    deliveries: u16,
    /// Not before, once it was delivered.
    wait_until: i64,
    /// Until when the mover has it; 0 if nobody.
    dead: Option<i64>,
    /// Whether it is dead for others in a full queue.
    gave_way: bool,
    /// [`ACKNOWLEDGED`] or [`ARCHIVED`], once it is done.
    fate: Option<i8>,
    /// Whether somebody was told that it is.
    is_told: bool,
}

impl Known {
    fn is_over(&self) -> bool {
        self.fate.is_some() || self.dead.is_some()
    }

    fn is_waiting(&self, now: i64) -> bool {
        let until = if self.deliveries == 0 { self.kind.due.unwrap_or(0) } else { self.wait_until };
        until > now
    }

    fn is_expired(&self, now: i64) -> bool {
        self.kind.expires.is_some_and(|at| at <= now)
    }
}

struct World {
    seed: u64,
    random: fastrand::Rng,
    now: i64,
    /// What the queue is to go by from the next receive on, and what it goes by: nothing, after a crash.
    terms: QueueTerms,
    ruling: Option<QueueTerms>,
    machine: QueueShard,
    log: Vec<ShareRecord>,
    durable: usize,
    /// Offsets to tell of, and the length of the log that the telling waits for.
    untold: Vec<(usize, Vec<i64>)>,
    next_ticket: u64,
    log_start: i64,
    known: Vec<Known>,
    /// Where a reader goes on, as it was told last.
    end: i64,
    /// What is out: receipts, and what members have.
    receipts: Vec<(i64, u16)>,
    has: Vec<BTreeSet<i64>>,
    /// When the second of a key ends, and how many it had.
    seconds: BTreeMap<u64, (i64, u32)>,
    /// What this event may archive or kill, whatever it is.
    doomed: BTreeSet<i64>,
    /// The end of what is being purged.
    purged: i64,
    tally: Tally,
}

#[derive(Default)]
pub struct Tally {
    pub handed_out: u64,
    pub settled: u64,
    pub picked: u64,
    pub gave_way: u64,
    pub died: u64,
    pub ended: u64,
    pub crashes: u64,
}

fn random_terms(random: &mut fastrand::Rng) -> QueueTerms {
    let limited = |random: &mut fastrand::Rng| if random.bool() { 0 } else { random.u32(1..4) };
    QueueTerms {
        delivery_limit: if random.u8(0..4) == 0 { u16::MAX } else { random.u16(1..6) },
        max_in_flight: random.i64(1..60),
        fifo: random.bool(),
        key_concurrency: limited(random),
        key_rate: limited(random),
        priorities: random.u8(1..4),
        backoff: Backoff { ms: random.i64(0..200), multiplier: 2.0, max_ms: 1_000 },
        dead: if random.bool() { Dead::Keep } else { Dead::Archive },
    }
}

/// How long a record waits that has come back for so many times.
fn backoff(ruling: Option<QueueTerms>, deliveries: u16) -> i64 {
    let after = |terms: QueueTerms| terms.backoff.ms << (deliveries.clamp(1, 16) - 1);
    ruling.filter(|_| deliveries > 0).map_or(0, |terms| after(terms).min(terms.backoff.max_ms))
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let terms = random_terms(&mut random);
        let mut world = Self {
            seed,
            random,
            now: 1_000_000,
            terms,
            ruling: None,
            machine: QueueShard::new(),
            log: Vec::new(),
            durable: 0,
            untold: Vec::new(),
            next_ticket: 0,
            log_start: 0,
            known: Vec::new(),
            end: 0,
            receipts: Vec::new(),
            has: vec![BTreeSet::new(); MEMBERS],
            seconds: BTreeMap::new(),
            doomed: BTreeSet::new(),
            purged: 0,
            tally: Tally::default(),
        };
        world.one(QueueEvent::Initialise { start: 0, leader_epoch: 0 });
        world.sync_disk();
        world
    }

    fn one(&mut self, event: QueueEvent) -> Reply {
        self.step(Event::One(key(), event))
    }

    fn step(&mut self, event: Event) -> Reply {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let mut effects = Effects::default();
        self.machine.step(self.now, ticket, event, &mut effects);
        let mut replies = effects.replies.iter().chain(&effects.prompt);
        let reply = replies.find(|(to, _)| *to == ticket).map(|(_, reply)| reply.clone());
        self.take_in(effects);
        self.doomed.clear();
        reply.unwrap()
    }

    fn take_in(&mut self, effects: Effects<Reply, ShareRecord>) {
        for record in effects.records {
            if let ShareRecord::Update { value, .. } = &record {
                value.state_batches.iter().for_each(|batch| self.note(batch));
            }
            self.log.push(record);
        }
    }

    /// Every record ends once, and for a reason.
    fn note(&mut self, batch: &StateBatch) {
        for offset in batch.first_offset..=batch.last_offset {
            let (seed, terms, now) = (self.seed, self.ruling, self.now);
            if offset as usize >= self.known.len() {
                self.known.resize(offset as usize + 1, Known::default());
            }
            let known = &mut self.known[offset as usize];
            let is_doomed = self.doomed.contains(&offset)
                || terms.is_some_and(|terms| known.deliveries >= terms.delivery_limit);
            let state = batch.delivery_state;
            if ![ACKNOWLEDGED, ARCHIVING, ARCHIVED].contains(&state) {
                continue;
            }
            if known.fate.is_some() && offset < self.purged {
                // A purge names all that it passes over.
                continue;
            }
            assert_eq!(known.fate, None, "seed {seed}: {offset} ends again by {batch:?}");
            let is_right = match state {
                ACKNOWLEDGED => known.deliveries > 0 && known.dead.is_none(),
                ARCHIVING => is_doomed && known.dead.is_none(),
                _ => {
                    let is_gone = offset < self.log_start || !known.is_there || known.kind.skip;
                    let is_left =
                        known.dead.is_some() && terms.is_some_and(|terms| terms.dead == Dead::Archive);
                    is_gone || is_doomed || is_left || known.is_expired(now)
                }
            };
            assert!(is_right, "seed {seed}: {offset} {batch:?} {known:?}");
            known.lease = None;
            if state == ARCHIVING {
                known.dead = Some(0);
                let is_said = batch.cause == GAVE_WAY;
                assert_eq!(is_said, known.gave_way, "seed {seed}: {offset} {batch:?}");
                self.tally.died += 1;
            } else {
                known.fate = Some(state);
            }
        }
    }

    /// What must have ended by itself by now.
    fn ripen(&mut self) {
        let ruling = self.ruling;
        for known in &mut self.known {
            if let Some((by, until)) = known.lease.filter(|(_, until)| *until <= self.now) {
                known.lease = None;
                if by != Some(PICKER) {
                    known.wait_until = until + backoff(ruling, known.deliveries);
                }
                self.tally.ended += 1;
            }
            known.dead = known.dead.map(|until| if until <= self.now { 0 } else { until });
        }
    }

    fn pass(&mut self, ms: i64) {
        let until = self.now + ms;
        while let Some(due) = self.machine.deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.ripen();
            let mut effects = Effects::default();
            self.machine.tick(self.now, &mut effects);
            self.take_in(effects);
            assert!(self.machine.deadline().is_none_or(|next| next > due), "seed {}: no progress", self.seed);
        }
        self.now = until;
        let over = self.known.iter().any(|known| known.lease.is_some_and(|(_, end)| end <= until));
        assert!(!over, "seed {}: a lease outlives its deadline", self.seed);
    }

    fn check(&self) {
        let leases = self.machine.leases(&key()).unwrap();
        let mut counts = Counts::default();
        for (offset, known) in (0i64..).zip(&self.known) {
            let lease = leases.lease_of(offset).map(|(_, until)| until);
            let expected = known.lease.map(|(_, until)| until);
            assert_eq!(lease, expected, "seed {}: {offset} {known:?} at {}", self.seed, self.now);
            assert!(offset >= leases.start() || known.fate.is_some(), "seed {}: {offset} lost", self.seed);
            if !(leases.start()..leases.end()).contains(&offset) {
                continue;
            }
            match known {
                Known { fate: Some(_), .. } => counts.done += 1,
                Known { dead: Some(_), .. } => counts.dead += 1,
                Known { lease: Some(_), .. } => counts.leased += 1,
                known if known.is_waiting(self.now) => counts.waiting += 1,
                _ => counts.ready += 1,
            }
        }
        // What is delayed is not known before all was seen.
        if leases.seen() == leases.end() {
            assert_eq!(leases.counts(), counts, "seed {}", self.seed);
        }
    }

    /// A look at some of it shows each record as it must be, and changes nothing.
    fn inspect(&mut self) {
        // What is due is done first.
        self.pass(0);
        let before = self.machine.snapshot();
        let (from, max) = (self.random.i64(-5..=self.known.len() as i64), self.random.usize(0..50));
        let reply = self.one(QueueEvent::Inspect { from, max });
        let Reply::Inspected(Ok(found)) = reply else { panic!("seed {}: {reply:?}", self.seed) };
        assert_eq!(self.machine.snapshot(), before, "seed {}", self.seed);
        let leases = self.machine.leases(&key()).unwrap();
        // What has not been seen since a restart is not known to be delayed.
        let (now, seen, window) = (self.now, leases.seen(), leases.start()..leases.end());
        let condition = |(at, known): (i64, &Known)| match known {
            Known { dead: Some(_), .. } => Condition::Dead,
            Known { lease: Some((_, until)), .. } => Condition::Leased { until: *until },
            known if known.is_waiting(now) && (at < seen || known.deliveries > 0) => {
                let is_new = known.deliveries == 0;
                let due = known.kind.due.filter(|_| is_new);
                Condition::Waiting { until: due.unwrap_or(known.wait_until) }
            }
            _ => Condition::Ready,
        };
        let expected = (0i64..)
            .zip(&self.known)
            .filter(|(at, known)| *at >= from && window.contains(at) && known.fate.is_none());
        let expected: Vec<_> =
            expected.map(|(at, known)| (at, known.deliveries, condition((at, known)))).take(max).collect();
        let records = |found: &Standing| {
            let Standing { first, last, deliveries, condition } = *found;
            (first..=last).map(move |at| (at, deliveries, condition))
        };
        let shown: Vec<_> = found.iter().flat_map(records).collect();
        assert_eq!(shown, expected, "seed {}: from {from}, {max} at {now}", self.seed);
        let is_one = |pair: &[Standing]| {
            pair[0].last + 1 == pair[1].first
                && (pair[0].deliveries, pair[0].condition) == (pair[1].deliveries, pair[1].condition)
        };
        assert!(!found.windows(2).any(is_one), "seed {}: {found:?}", self.seed);
    }

    fn sync_disk(&mut self) {
        self.durable = self.log.len();
        for (_, offsets) in std::mem::take(&mut self.untold) {
            offsets.into_iter().for_each(|offset| self.known[offset as usize].is_told = true);
        }
    }

    /// The broker dies with what had not reached the disk, or with part of it, and comes back some time later.
    fn crash(&mut self) {
        let kept = self.durable + self.random.usize(0..=self.log.len() - self.durable);
        self.log.truncate(kept);
        self.durable = kept;
        self.untold.clear();
        self.tally.crashes += 1;
        self.now += self.random.i64(0..500);
        self.machine = self.replay();
        self.ruling = None;
        self.seconds.clear();
        self.has.iter_mut().for_each(BTreeSet::clear);
        for known in &mut self.known {
            let Known { kind, is_there, is_told, .. } = *known;
            *known = Known { kind, is_there, is_told, ..Known::default() };
        }
        for record in &self.log {
            let ShareRecord::Update { value, .. } = record else { continue };
            for batch in &value.state_batches {
                for offset in batch.first_offset..=batch.last_offset {
                    let known = &mut self.known[offset as usize];
                    known.deliveries = batch.delivery_count as u16;
                    known.lease = (batch.leased_until > 0).then_some((None, batch.leased_until));
                    known.wait_until = batch.waiting_until;
                    known.dead = (batch.delivery_state == ARCHIVING).then_some(0);
                    known.gave_way = batch.cause == GAVE_WAY;
                    known.fate =
                        Some(batch.delivery_state).filter(|state| [ACKNOWLEDGED, ARCHIVED].contains(state));
                }
            }
        }
        self.ripen();
        self.pass(0);
        let undone = self.known.iter().position(|known| known.is_told && known.fate.is_none());
        assert_eq!(undone, None, "seed {}: an answered settlement is lost", self.seed);
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
        let snapshot = self.machine.snapshot();
        let mut replayed = self.replay();
        let mut effects = Effects::default();
        replayed.tick(self.now, &mut effects);
        assert_eq!((replayed.snapshot(), effects.records.len()), (snapshot.clone(), 0), "seed {}", self.seed);
        let mut again = QueueShard::new();
        snapshot.iter().for_each(|record| again.apply(self.now, record));
        assert_eq!(again.snapshot(), snapshot, "seed {}", self.seed);
    }

    fn produce(&mut self) {
        // Sometimes most keys have one record, and go with it.
        let keys = if self.seed.is_multiple_of(4) { 100 } else { 5 };
        for _ in 0..self.random.usize(1..30) {
            // What compaction has taken away leaves a hole.
            let is_there = self.random.u8(0..20) != 0;
            let random = &mut self.random;
            let mut sometimes = |each: u8| random.u8(0..each) == 0;
            let (is_due, expires, has_key, skip) = (sometimes(4), sometimes(8), !sometimes(4), sometimes(15));
            let kind = Kind {
                due: is_due.then(|| self.now + self.random.i64(-100..1_500)),
                expires: expires.then(|| self.now + self.random.i64(-100..4_000)),
                priority: self.random.u8(0..5),
                key: has_key.then(|| self.random.u64(0..keys)),
                skip,
            };
            let kind = if self.random.bool() { Kind::default() } else { kind };
            self.known.push(Known { kind, is_there, ..Known::default() });
        }
    }

    /// What a reader finds from `from` on.
    fn read(&mut self, from: i64) -> Vec<Arrival> {
        let mut arrivals: Vec<Arrival> = Vec::new();
        let count = self.random.usize(0..25);
        let from = from.max(self.log_start);
        let records = (from..).zip(self.known.get(from as usize..).unwrap_or_default());
        for (at, known) in records.filter(|(_, known)| known.is_there).take(count) {
            match arrivals.last_mut() {
                Some(last) if last.kind == known.kind && last.last + 1 == at => last.last = at,
                _ => arrivals.push(Arrival { first: at, last: at, kind: known.kind }),
            }
        }
        arrivals
    }

    fn receive(&mut self, member: Option<usize>) -> usize {
        let from = self.end;
        let arrivals = self.read(from);
        let lease_ms = self.random.i64(1..1_000);
        let max_records = self.random.i64(0..20);
        let wanted = Receive {
            member: member.map(name),
            log_start: self.log_start,
            leader_epoch: 0,
            arrivals_from: from,
            arrivals,
            max_records,
            lease_ms,
            gives_way: None,
            terms: self.terms,
        };
        // Now and then another reads the same.
        let times = if self.random.u8(0..6) == 0 { 2 } else { 1 };
        let mut records = 0;
        for _ in 0..times {
            let received = self.received(wanted.clone(), member);
            self.end = received.end;
            records += received.records();
        }
        records as usize
    }

    /// The queue's terms are what it goes by from here on; what it stores is not taken in yet.
    fn ask(&mut self, wanted: Receive) -> (Received, Effects<Reply, ShareRecord>) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let mut effects = Effects::default();
        let event = Event::One(key(), QueueEvent::Receive(wanted));
        self.machine.step(self.now, ticket, event, &mut effects);
        self.rule();
        assert_eq!(effects.replies.len(), 0, "not held back for the disk");
        let reply = effects.prompt.iter().find(|(to, _)| *to == ticket).cloned();
        let Some((_, Reply::Received(Ok(received)))) = reply else { panic!("seed {}: {reply:?}", self.seed) };
        (received, effects)
    }

    fn received(&mut self, wanted: Receive, member: Option<usize>) -> Received {
        let (until, asked) = (self.now + wanted.lease_ms, wanted.max_records);
        let (received, effects) = self.ask(wanted);
        let offsets = |range: Range| (range.first..=range.last).map(move |at| (at, range.deliveries));
        let given: Vec<_> = received.ranges.iter().copied().flat_map(offsets).collect();
        assert!(given.len() as i64 <= asked.max(0), "seed {}", self.seed);
        self.check_keys(&given);
        for (offset, deliveries) in given {
            let (now, seed) = (self.now, self.seed);
            let known = &mut self.known[offset as usize];
            let context = format!("seed {seed}: {offset} {known:?} at {now}");
            assert!(known.is_there && offset >= self.log_start && !known.kind.skip, "{context}");
            assert!(!known.is_over() && !known.is_told && known.lease.is_none(), "{context}");
            assert!(!known.is_waiting(now) && !known.is_expired(now), "{context}");
            assert_eq!(deliveries, known.deliveries + 1, "{context}");
            assert!(deliveries <= self.terms.delivery_limit, "{context}");
            known.deliveries = deliveries;
            known.lease = Some((member, until));
            match member {
                Some(member) => drop(self.has[member].insert(offset)),
                None => self.receipts.push((offset, deliveries)),
            }
            self.tally.handed_out += 1;
        }
        let leased = self.known.iter().filter(|known| known.lease.is_some()).count() as i64;
        let is_within = received.ranges.is_empty() || leased <= self.terms.max_in_flight;
        assert!(is_within, "seed {}: {leased} are out", self.seed);
        self.take_in(effects);
        received
    }

    /// The queue holds more than it may: some give way, which are with nobody and could be handed out. Nothing else is known of
    /// them than before.
    fn give_way(&mut self) {
        // What is due is done first.
        self.pass(0);
        let dead = if self.random.bool() { Dead::Keep } else { Dead::Archive };
        let max_records = self.random.i64(0..10);
        let wanted = Receive {
            member: None,
            log_start: self.log_start,
            leader_epoch: 0,
            arrivals_from: self.end,
            arrivals: Vec::new(),
            max_records,
            lease_ms: 1,
            gives_way: Some(dead),
            terms: self.terms,
        };
        let (received, effects) = self.ask(wanted);
        assert!(received.records() <= max_records, "seed {}", self.seed);
        for range in received.ranges {
            for offset in range.first..=range.last {
                let now = self.now;
                let known = &mut self.known[offset as usize];
                let context = format!("seed {}: {offset} {known:?} at {now}", self.seed);
                assert!(!known.is_over() && known.lease.is_none() && !known.is_waiting(now), "{context}");
                assert_eq!(range.deliveries, known.deliveries, "{context}");
                known.gave_way = dead == Dead::Keep;
                self.doomed.insert(offset);
                self.tally.gave_way += 1;
            }
        }
        self.take_in(effects);
        self.doomed.clear();
        self.end = received.end;
    }

    /// The queue goes by what it is to go by from now on.
    fn rule(&mut self) {
        let rule = |terms: QueueTerms| (terms.fifo, terms.key_concurrency, terms.key_rate, terms.priorities);
        if self.ruling.map(rule) != Some(rule(self.terms)) {
            self.seconds.clear();
        }
        self.ruling = Some(self.terms);
    }

    /// Order, concurrency and rate of what is handed out together.
    fn check_keys(&mut self, given: &[(i64, u16)]) {
        let (seed, terms, now) = (self.seed, self.terms, self.now);
        let mut of_key: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
        for (offset, _) in given {
            of_key
                .entry(self.known[*offset as usize].kind.key.unwrap_or(u64::MAX))
                .or_default()
                .push(*offset);
        }
        of_key.remove(&u64::MAX);
        for (key, offsets) in of_key {
            let of_same = || (0i64..).zip(&self.known).filter(|(_, known)| known.kind.key == Some(key));
            // What has left the log while it was with somebody may have lost its key.
            let is_known = |at: i64| at >= self.log_start;
            let leased = of_same().filter(|(at, known)| known.lease.is_some() && is_known(*at)).count();
            if terms.fifo {
                assert_eq!(leased, 0, "seed {seed}: key {key} is with somebody, {offsets:?} come");
                assert!(offsets.is_sorted(), "seed {seed}: {offsets:?}");
                let mut before = of_same().filter(|(at, known)| {
                    at < offsets.last().unwrap()
                        && !known.is_over()
                        // With a limit that is lower now it dies in passing.
                        && known.deliveries < terms.delivery_limit
                        && known.is_there
                        && !known.kind.skip
                        && *at >= self.log_start
                        && !known.is_expired(now)
                });
                let passed = before.find(|(at, _)| !offsets.contains(at));
                assert!(passed.is_none(), "seed {seed}: key {key}: {passed:?} before {offsets:?} at {now}");
            } else if terms.key_concurrency > 0 {
                let out = leased + offsets.len();
                assert!(out <= terms.key_concurrency as usize, "seed {seed}: {out} of {key}");
            }
            if terms.key_rate > 0 {
                let second = self.seconds.entry(key).or_default();
                if second.0 <= now {
                    *second = (now + 1_000, 0);
                }
                second.1 += offsets.len() as u32;
                assert!(second.1 <= terms.key_rate, "seed {seed}: {} of {key} in a second", second.1);
            }
        }
    }

    /// What the holder of a receipt may say, right or wrong.
    fn settle(&mut self) {
        let mut what = Vec::new();
        for _ in 0..self.random.usize(1..6) {
            let (offset, deliveries) = match self.random.usize(0..=self.receipts.len()) {
                at if at < self.receipts.len() && self.random.u8(0..3) > 0 => self.receipts.swap_remove(at),
                at if at < self.receipts.len() => self.receipts[at],
                _ => (self.random.i64(0..=self.known.len() as i64), self.random.u16(0..4)),
            };
            let settlement = match self.random.u8(0..10) {
                0..5 => Settlement::Done,
                5 if self.random.bool() => Settlement::Drop,
                5 => Settlement::Reject,
                6 => Settlement::Return { after_ms: None },
                7 if self.random.u8(0..3) == 0 => self.abandoned(offset),
                7 if self.random.bool() => Settlement::Unseen,
                7 => Settlement::Return { after_ms: Some(self.random.i64(0..800)) },
                _ => Settlement::Extend { for_ms: self.random.i64(0..800) },
            };
            what.push(Settle { offset, deliveries, what: settlement });
        }
        self.say(what);
    }

    /// Whoever has a record, or had it, is gone: they know until when they had it, or knew that once.
    fn abandoned(&mut self, offset: i64) -> Settlement {
        let lease = self.known.get(offset as usize).and_then(|known| known.lease);
        let until = lease.map_or(self.now, |(_, until)| until) + self.random.i64(-3..4);
        Settlement::Abandon { from_ms: until - 2, to_ms: until + 2 }
    }

    fn say(&mut self, what: Vec<Settle>) {
        for settle in what {
            // What came back after it had expired goes first.
            self.pass(0);
            let expected = self.foresee(&settle);
            let reply = self.one(QueueEvent::Settle(vec![settle]));
            assert_eq!(reply, Reply::Settled(Ok(vec![expected])), "seed {}: {settle:?}", self.seed);
            let known = self.known.get(settle.offset as usize);
            let is_told = expected.is_ok() && known.is_some_and(|known| known.fate.is_some());
            let told = is_told.then_some(settle.offset).into_iter().collect();
            self.untold.push((self.log.len(), told));
            self.tally.settled += u64::from(expected.is_ok());
        }
    }

    /// The model moves first: what is done comes with the machine's records.
    fn foresee(&mut self, settle: &Settle) -> Result<(), SettleError> {
        let Settle { offset, deliveries, what } = *settle;
        let leases = self.machine.leases(&key()).unwrap();
        let end = leases.end();
        let (now, terms) = (self.now, self.ruling);
        let Some(known) = self.known.get_mut(offset as usize).filter(|_| offset < end) else {
            return Err(SettleError::Gone);
        };
        if known.fate.is_some() {
            return if what == Settlement::Done { Ok(()) } else { Err(SettleError::Gone) };
        }
        let is_movers = known.dead.is_some() && known.deliveries == 0;
        if deliveries == 0 && !is_movers {
            return Err(SettleError::Gone);
        }
        let is_anothers = known.lease.is_some_and(|(by, _)| by.is_some() || deliveries > known.deliveries);
        if deliveries < known.deliveries || is_anothers {
            return Err(SettleError::TakenAgain);
        }
        if let Some(dead) = &mut known.dead {
            let until = match what {
                Settlement::Done => {
                    self.doomed.insert(offset);
                    return Ok(());
                }
                Settlement::Return { after_ms } if *dead > 0 => after_ms.unwrap_or(0),
                Settlement::Extend { for_ms } if *dead > 0 => for_ms,
                _ => return Err(SettleError::Gone),
            };
            *dead = if until > 0 { now + until } else { 0 };
            return Ok(());
        }
        if what == Settlement::Unseen && known.lease.is_none() {
            return Ok(());
        }
        if let Settlement::Abandon { from_ms, to_ms } = what
            && !known.lease.is_some_and(|(_, until)| (from_ms..=to_ms).contains(&until))
        {
            return Err(SettleError::TakenAgain);
        }
        known.deliveries = deliveries;
        let backoff = backoff(terms, deliveries);
        let after_ms = match what {
            Settlement::Done => return Ok(()),
            Settlement::Reject | Settlement::Drop => {
                self.doomed.insert(offset);
                return Ok(());
            }
            Settlement::Extend { for_ms: 0 } => 0,
            Settlement::Extend { for_ms } => {
                known.lease = Some((None, now + for_ms));
                return Ok(());
            }
            Settlement::Return { after_ms } => after_ms.unwrap_or(backoff),
            Settlement::Abandon { .. } => backoff,
            Settlement::Unseen => {
                (known.lease, known.deliveries, known.wait_until) = (None, deliveries - 1, 0);
                return Ok(());
            }
        };
        known.lease = None;
        known.wait_until = now + after_ms;
        Ok(())
    }

    /// Some records are held, put back or dropped by who has seen them, rightly or wrongly.
    fn pick(&mut self) {
        self.pass(0);
        for _ in 0..self.random.usize(1..6) {
            let offset = self.random.i64(0..=self.known.len() as i64);
            let held =
                (0..).zip(&self.known).find(|(_, known)| matches!(known.lease, Some((Some(PICKER), _))));
            let offset = held.map_or(offset, |(held, _)| if self.random.bool() { held } else { offset });
            let seen = self.known.get(offset as usize).map_or(0, |known| known.deliveries);
            let deliveries = if self.random.u8(0..4) == 0 { self.random.u16(0..4) } else { seen };
            let what = match self.random.u8(0..4) {
                0 => Pick::Drop,
                1 => Pick::PutBack,
                _ => Pick::Hold { for_ms: self.random.i64(1..800) },
            };
            let picked = Picked { offset, deliveries, what };
            let expected = self.foresee_pick(&picked);
            let reply = self.one(QueueEvent::Pick(vec![picked]));
            assert_eq!(reply, Reply::Settled(Ok(vec![expected])), "seed {}: {picked:?}", self.seed);
            let is_told = expected.is_ok() && what == Pick::Drop;
            self.untold.push((self.log.len(), is_told.then_some(offset).into_iter().collect()));
            self.tally.picked += u64::from(expected.is_ok());
        }
    }

    fn foresee_pick(&mut self, picked: &Picked) -> Result<(), SettleError> {
        let Picked { offset, deliveries, what } = *picked;
        let leases = self.machine.leases(&key()).unwrap();
        let (end, is_seen, now) = (leases.end(), offset < leases.seen(), self.now);
        let known = self.known.get_mut(offset as usize).filter(|_| offset < end);
        let Some(known) = known.filter(|known| !known.is_over()) else { return Err(SettleError::Gone) };
        let is_held = match known.lease {
            Some((Some(PICKER), _)) => true,
            Some(_) => return Err(SettleError::TakenAgain),
            None => false,
        };
        if known.deliveries != deliveries || !(is_held || is_seen) {
            return Err(SettleError::TakenAgain);
        }
        match what {
            Pick::Hold { .. } if !is_held && known.is_waiting(now) => return Err(SettleError::TakenAgain),
            Pick::Hold { for_ms } => known.lease = Some((Some(PICKER), now + for_ms)),
            Pick::PutBack => known.lease = None,
            Pick::Drop => drop(self.doomed.insert(offset)),
        }
        Ok(())
    }

    /// A member of a share group speaks of what it has, some time.
    fn acknowledge(&mut self, member: usize) {
        let held = |at: &i64| {
            self.known[*at as usize].lease.is_some_and(|(by, until)| by == Some(member) && until > self.now)
        };
        let mine: Vec<_> = self.has[member].iter().copied().filter(held).collect();
        self.has[member].clear();
        let terms = Terms {
            lock_duration_ms: 300,
            delivery_limit: self.ruling.map_or(u16::MAX, |terms| terms.delivery_limit),
            max_in_flight: self.terms.max_in_flight,
            dead: Dead::Archive,
        };
        for at in mine {
            let verdict = [Verdict::Accept, Verdict::Release, Verdict::Renew][self.random.usize(0..3)];
            let known = &mut self.known[at as usize];
            match verdict {
                Verdict::Release => {
                    let wait_until = self.now + backoff(self.ruling, known.deliveries);
                    (known.lease, known.wait_until) = (None, wait_until);
                }
                Verdict::Renew => {
                    known.lease = Some((Some(member), self.now + 300));
                    self.has[member].insert(at);
                }
                _ => {}
            }
            let acks = vec![Ack { first: at, last: at, verdict }];
            let reply = self.one(QueueEvent::Acknowledge { member: name(member), acks, terms });
            assert_eq!(reply, Reply::Done(Ok(())), "seed {}: {at}", self.seed);
        }
    }

    fn leave(&mut self, member: usize) {
        for known in &mut self.known {
            if known.lease.is_some_and(|(by, _)| by == Some(member)) {
                let wait_until = self.now + backoff(self.ruling, known.deliveries);
                (known.lease, known.wait_until) = (None, wait_until);
            }
        }
        self.has[member].clear();
        let event = Event::Release { group: key().group, member: name(member) };
        assert_eq!(self.step(event), Reply::Done(Ok(())));
    }

    /// The mover takes some dead, and is done with part of them.
    fn bury(&mut self) {
        let (max_records, lease_ms) = (self.random.i64(1..10), self.random.i64(1..500));
        let Reply::Dead(Ok(dead)) = self.one(QueueEvent::TakeDead { max_records, lease_ms }) else {
            panic!("seed {}", self.seed);
        };
        let mut moved = Vec::new();
        for died in dead {
            let known = &mut self.known[died.offset as usize];
            let cause = if known.gave_way { Cause::GaveWay } else { Cause::Failed };
            assert_eq!((known.dead, known.fate), (Some(0), None), "seed {}: {died:?}", self.seed);
            let expected = Died { offset: died.offset, deliveries: known.deliveries, cause };
            assert_eq!(died, expected, "seed {}", self.seed);
            known.dead = Some(self.now + lease_ms);
            if self.random.bool() {
                moved.push(died.settle());
            }
        }
        self.say(moved);
    }

    fn purge(&mut self) {
        let start = self.machine.leases(&key()).unwrap().start();
        let end = self.random.i64(start..=(start + 20).min(self.known.len() as i64).max(start));
        self.doomed.extend(start..end);
        self.purged = end;
        let reply = self.one(QueueEvent::Purge { offset_end_exclusive: end, leader_epoch: 0 });
        self.purged = 0;
        assert_eq!(reply, Reply::Done(Ok(())));
        let undone = self.known[..end as usize].iter().position(|known| known.fate.is_none());
        assert_eq!(undone, None, "seed {}", self.seed);
    }

    fn run(mut self) -> Tally {
        for step in 0..STEPS {
            if step % 5 == 0 {
                self.check();
            }
            match self.random.u8(0..100) {
                0..10 => self.produce(),
                10..40 => drop(self.receive(None)),
                40..45 => {
                    let member = self.random.usize(0..MEMBERS);
                    self.receive(Some(member));
                }
                45..65 => self.settle(),
                65..68 => {
                    let member = self.random.usize(0..MEMBERS);
                    self.acknowledge(member);
                }
                68..70 => {
                    let member = self.random.usize(0..MEMBERS);
                    self.leave(member);
                }
                70..72 => self.bury(),
                72..73 => self.give_way(),
                73..77 => self.pick(),
                77..86 => {
                    let ms = self.random.i64(0..600);
                    self.pass(ms);
                }
                86..92 => self.sync_disk(),
                92..93 => {
                    let log_end = self.known.len() as i64;
                    self.log_start = self
                        .random
                        .i64(self.log_start..=log_end.min(self.log_start + 20).max(self.log_start));
                }
                93..94 => self.purge(),
                94..95 => {
                    self.terms = random_terms(&mut self.random);
                }
                95..97 => self.crash(),
                97..98 => self.inspect(),
                _ => self.check_replay(),
            }
        }
        self.inspect();
        self.check_replay();
        self.settle_down();
        self.tally
    }

    /// Without further trouble every record ends.
    fn settle_down(&mut self) {
        self.produce();
        self.known.push(Known { is_there: true, ..Known::default() });
        let log_end = self.known.len() as i64;
        for _ in 0..5_000 {
            if self.machine.leases(&key()).unwrap().start() >= log_end {
                break;
            }
            self.receive(None);
            let receipts = std::mem::take(&mut self.receipts);
            let done = |(offset, deliveries)| Settle { offset, deliveries, what: Settlement::Done };
            self.say(receipts.into_iter().map(done).collect());
            (0..MEMBERS).for_each(|member| self.leave(member));
            self.bury();
            self.pass(200);
        }
        self.sync_disk();
        self.crash();
        let unfinished = self.known.iter().position(|known| known.fate.is_none());
        assert_eq!(unfinished, None, "seed {}: {:?}", self.seed, self.machine.leases(&key()));
    }
}

pub fn run(seed: u64) -> Tally {
    World::new(seed).run()
}
