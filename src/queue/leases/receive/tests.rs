use super::super::{Ack, Cause, Outcome, Pick, Picked, Verdict};
use super::*;

const TERMS: QueueTerms = QueueTerms {
    delivery_limit: 3,
    max_in_flight: 1_000,
    fifo: false,
    key_concurrency: 0,
    key_rate: 0,
    priorities: 1,
    backoff: Backoff { ms: 0, multiplier: 2.0, max_ms: 350 },
    dead: Dead::Keep,
};

const BACKOFF: Backoff = Backoff { ms: 100, multiplier: 2.0, max_ms: 350 };

const PLAIN: Kind = Kind { due: None, expires: None, priority: 0, key: None, skip: false };

const NONE: [i64; 0] = [];

const HOLD: Pick = Pick::Hold { for_ms: 50 };

/// A window, what it has said, and a clock.
struct Window {
    leases: Leases,
    marks: Vec<Mark>,
    now: TimestampMs,
    terms: QueueTerms,
    next: i64,
}

impl Window {
    fn new(terms: QueueTerms) -> Self {
        Self { leases: Leases::new(0), marks: Vec::new(), now: 1_000, terms, next: 0 }
    }

    /// Brings one record of each kind.
    fn bring(&mut self, kinds: impl IntoIterator<Item = Kind>) -> &mut Self {
        let arrivals =
            kinds.into_iter().zip(self.next..).map(|(kind, at)| Arrival { first: at, last: at, kind });
        let arrivals: Vec<_> = arrivals.collect();
        self.next += arrivals.len() as i64;
        self.receive_of(arrivals, 0);
        self
    }

    fn receive_of(&mut self, arrivals: Vec<Arrival>, max_records: i64) -> Vec<Range> {
        let wanted = Receive {
            member: None,
            log_start: 0,
            leader_epoch: 0,
            arrivals_from: self.leases.seen(),
            arrivals,
            max_records,
            lease_ms: 100,
            gives_way: None,
            terms: self.terms,
        };
        self.leases.receive(self.now, Holder::RECEIPT, &wanted, &mut self.marks)
    }

    /// Offset and delivery of each record that is handed out.
    fn receive(&mut self, max_records: i64) -> Vec<(i64, u16)> {
        let ranges = self.receive_of(Vec::new(), max_records);
        ranges.iter().flat_map(|range| (range.first..=range.last).map(|at| (at, range.deliveries))).collect()
    }

    fn offsets(&mut self, max_records: i64) -> Vec<i64> {
        self.receive(max_records).into_iter().map(|(at, _)| at).collect()
    }

    /// Which give way.
    fn give_way(&mut self, max_records: i64, dead: Dead) -> Vec<i64> {
        let wanted = Receive {
            member: None,
            log_start: 0,
            leader_epoch: 0,
            arrivals_from: self.leases.seen(),
            arrivals: Vec::new(),
            max_records,
            lease_ms: 100,
            gives_way: Some(dead),
            terms: self.terms,
        };
        let ranges = self.leases.receive(self.now, Holder::RECEIPT, &wanted, &mut self.marks);
        ranges.iter().flat_map(|range| range.first..=range.last).collect()
    }

    fn settle(&mut self, offset: i64, deliveries: u16, what: Settlement) -> Result<(), SettleError> {
        self.leases.settle(self.now, &Settle { offset, deliveries, what }, &mut self.marks)
    }

    fn pick(&mut self, offset: i64, deliveries: u16, what: Pick) -> Result<(), SettleError> {
        self.leases.pick(self.now, &Picked { offset, deliveries, what }, &mut self.marks)
    }

    fn done(&mut self, offset: i64) {
        self.settle(offset, 1, Settlement::Done).unwrap();
    }

    fn pass(&mut self, ms: i64) {
        self.now += ms;
        self.leases.expire(self.now, self.terms.delivery_limit, &mut self.marks);
    }

    /// The window as it is after a crash.
    fn restart(&mut self) {
        let mut again = Leases::new(0);
        self.marks.iter().for_each(|mark| again.apply(mark));
        assert_eq!(again.marks(), self.leases.marks());
        self.leases = again;
        self.pass(0);
    }

    fn counts(&self) -> (i64, i64, i64, i64) {
        let Counts { ready, leased, waiting, dead, .. } = self.leases.counts();
        (ready, leased, waiting, dead)
    }
}

fn keyed(keys: &[u64]) -> Vec<Kind> {
    keys.iter().map(|key| Kind { key: Some(*key), ..PLAIN }).collect()
}

fn back(after_ms: i64) -> Settlement {
    Settlement::Return { after_ms: Some(after_ms) }
}

#[test]
fn a_receipt_is_good_until_its_record_is_taken_again() {
    let mut window = Window::new(TERMS);
    window.bring([PLAIN; 4]);
    assert_eq!(window.receive(3), [(0, 1), (1, 1), (2, 1)]);
    assert_eq!(window.counts(), (1, 3, 0, 0));
    assert_eq!(window.settle(0, 1, Settlement::Done), Ok(()));
    assert_eq!(window.settle(0, 1, Settlement::Done), Ok(()), "again");
    assert_eq!(window.settle(0, 1, back(0)), Err(SettleError::Gone));
    window.pass(100);
    assert_eq!(window.settle(1, 1, Settlement::Done), Ok(()), "its lease has ended");
    assert_eq!(window.settle(2, 1, Settlement::Extend { for_ms: 50 }), Ok(()), "and goes on");
    assert_eq!(window.offsets(5), [3]);
    window.pass(50);
    assert_eq!(window.receive(5), [(2, 2)]);
    for what in [Settlement::Done, Settlement::Reject, back(0), Settlement::Extend { for_ms: 1 }] {
        assert_eq!(window.settle(2, 1, what), Err(SettleError::TakenAgain));
        assert_eq!(window.settle(4, 1, what), Err(SettleError::Gone), "there never was one");
    }
    assert_eq!(window.settle(2, 2, Settlement::Done), Ok(()));
    assert_eq!(window.leases.start(), 3);
}

#[test]
fn what_is_held_is_nobodys_else_whatever_receipts_there_are_and_is_then_as_it_was() {
    let mut window = Window::new(QueueTerms { backoff: BACKOFF, ..TERMS });
    window.bring([PLAIN; 4]);
    assert_eq!(window.receive(1), [(0, 1)]);
    assert_eq!(window.pick(0, 1, HOLD), Err(SettleError::TakenAgain), "it is with somebody");
    window.pass(100);
    assert_eq!(window.pick(0, 1, HOLD), Err(SettleError::TakenAgain), "it backs off");
    window.pass(100);
    let before = window.marks.len();
    for (offset, deliveries) in [(0, 1), (1, 0), (2, 0)] {
        assert_eq!(window.pick(offset, deliveries, HOLD), Ok(()));
        assert_eq!(window.pick(offset, deliveries, HOLD), Ok(()), "again");
    }
    assert_eq!((window.counts(), window.marks.len()), ((1, 3, 0, 0), before), "the log hears nothing of it");
    for what in [Settlement::Done, Settlement::Reject, Settlement::Drop, Settlement::Unseen, back(0)] {
        assert_eq!(window.settle(0, 1, what), Err(SettleError::TakenAgain), "its lease was over: {what:?}");
        assert_eq!(window.settle(1, 0, what), Err(SettleError::Gone), "it never had a receipt");
    }
    assert_eq!(window.settle(0, 1, Settlement::Extend { for_ms: 90 }), Err(SettleError::TakenAgain));
    assert_eq!(window.pick(1, 0, Pick::Drop), Ok(()));
    assert_eq!(window.pick(1, 0, Pick::Drop), Err(SettleError::Gone));
    assert_eq!(window.pick(2, 0, Pick::PutBack), Ok(()));
    assert_eq!(window.receive(2), [(2, 1), (3, 1)]);
    assert_eq!(window.pick(2, 0, Pick::Drop), Err(SettleError::TakenAgain), "it went to somebody");
    window.pass(30);
    assert_eq!(window.pick(0, 1, HOLD), Ok(()), "for longer");
    window.pass(30);
    assert_eq!(window.receive(1), []);
    window.pass(20);
    assert_eq!(window.pick(0, 1, Pick::PutBack), Ok(()), "it is back already");
    assert_eq!(window.receive(1), [(0, 2)], "without a backoff, and the hold was no delivery");
    assert_eq!(window.pick(0, 1, Pick::Drop), Err(SettleError::TakenAgain));
}

#[test]
fn a_crash_or_new_terms_or_a_log_that_loses_its_front_leave_what_is_held_to_whom_it_belongs() {
    let mut window = Window::new(TERMS);
    let late = Kind { due: Some(1_500), ..PLAIN };
    window.bring([PLAIN, PLAIN, PLAIN, late]);
    assert_eq!(window.pick(3, 0, HOLD), Err(SettleError::TakenAgain), "it is delayed");
    (0..3).for_each(|at| window.pick(at, 0, HOLD).unwrap());
    window.terms.priorities = 2;
    assert_eq!(window.offsets(5), NONE);
    assert_eq!(window.pick(0, 0, Pick::Drop), Ok(()), "also before it is seen again");
    assert_eq!(window.pick(3, 0, Pick::Drop), Err(SettleError::TakenAgain), "it may be due now or not");
    window.leases.archive_below(2, &mut window.marks);
    assert_eq!(window.counts().1, 2, "it stays with who has it");
    window.pass(50);
    assert_eq!((window.leases.start(), window.counts().1), (2, 0));
    assert_eq!(window.pick(2, 0, HOLD), Err(SettleError::TakenAgain), "it is not seen yet");
    window.receive_of((2..4).map(|at| Arrival { first: at, last: at, kind: PLAIN }).collect(), 0);
    assert_eq!(window.pick(2, 0, HOLD), Ok(()));
    window.restart();
    assert_eq!(window.pick(2, 0, Pick::Drop), Err(SettleError::Gone), "nobody has looked yet");
    window.receive_of((2..4).map(|at| Arrival { first: at, last: at, kind: PLAIN }).collect(), 0);
    assert_eq!(window.receive(1), [(2, 1)]);
}

#[test]
fn what_is_delayed_comes_when_it_is_due_and_holds_nobody_up() {
    let mut window = Window::new(TERMS);
    let due = |at| Kind { due: Some(at), ..PLAIN };
    window.bring([due(1_500), due(1_200), PLAIN, due(900)]);
    assert_eq!(window.counts(), (2, 0, 2, 0));
    assert_eq!(window.offsets(5), [2, 3]);
    assert_eq!(window.leases.deadline(), Some(1_100), "the leases");
    window.done(2);
    window.done(3);
    window.pass(199);
    assert_eq!((window.offsets(5), window.leases.deadline()), (vec![], Some(1_200)));
    let changes = window.leases.changes();
    window.pass(1);
    assert!(window.leases.changes() > changes, "who waits hears of it");
    assert_eq!(window.offsets(5), [1]);
    window.pass(300);
    assert_eq!(window.receive(5), [(0, 1), (1, 2)]);
}

#[test]
fn what_is_returned_backs_off_longer_each_time_and_dies_at_the_limit() {
    let mut window = Window::new(QueueTerms { delivery_limit: 5, backoff: BACKOFF, ..TERMS });
    window.bring([PLAIN]);
    for (deliveries, wait) in [(1, 100), (2, 200), (3, 350), (4, 350)] {
        assert_eq!(window.receive(1), [(0, deliveries)]);
        window.settle(0, deliveries, Settlement::Return { after_ms: None }).unwrap();
        assert_eq!(window.leases.deadline(), Some(window.now + wait));
        window.pass(wait - 1);
        assert_eq!(window.receive(1), []);
        window.pass(1);
    }
    assert_eq!(window.receive(1), [(0, 5)]);
    window.settle(0, 5, back(0)).unwrap();
    assert_eq!(window.counts(), (0, 0, 0, 1));
    assert_eq!(Backoff { ms: i64::MAX, multiplier: f64::MAX, max_ms: 7 }.after(u16::MAX), 7);
    assert_eq!(Backoff { ms: 0, multiplier: 2.0, max_ms: 7 }.after(9), 0);
}

#[test]
fn a_lease_that_ends_by_itself_backs_off_as_what_is_returned_does() {
    let mut window = Window::new(QueueTerms { backoff: BACKOFF, ..TERMS });
    window.bring([PLAIN, PLAIN]);
    assert_eq!(window.receive(2), [(0, 1), (1, 1)]);
    window.settle(1, 1, Settlement::Extend { for_ms: 0 }).unwrap();
    assert_eq!(window.counts(), (1, 1, 0, 0), "a time that was named is that time");
    window.done(1);
    // Late: it backs off from when the lease ended, not from when that was seen.
    window.pass(150);
    assert_eq!((window.counts(), window.leases.deadline()), ((0, 0, 1, 0), Some(1_200)));
    window.restart();
    assert_eq!((window.counts(), window.leases.deadline()), ((0, 0, 1, 0), Some(1_200)));
    window.pass(50);
    window.next = 0;
    window.bring([PLAIN]);
    assert_eq!(window.receive(1), [(0, 2)]);
    window.pass(100);
    assert_eq!(window.leases.deadline(), Some(1_300 + 200));
    // So late that the time to wait is over, too.
    window.pass(200);
    assert_eq!(window.receive(1), [(0, 3)]);
    window.pass(100);
    assert_eq!(window.counts(), (0, 0, 0, 1), "the last time");
}

#[test]
fn what_a_member_releases_or_leaves_behind_backs_off() {
    let mut window = Window::new(QueueTerms { backoff: BACKOFF, ..TERMS });
    window.bring([PLAIN; 3]);
    let member = Holder(1);
    let wanted = Receive {
        member: Some("m".into()),
        log_start: 0,
        leader_epoch: 0,
        arrivals_from: 3,
        arrivals: Vec::new(),
        max_records: 2,
        lease_ms: 1_000,
        gives_way: None,
        terms: window.terms,
    };
    window.leases.receive(window.now, member, &wanted, &mut window.marks);
    let acks = [Ack { first: 0, last: 0, verdict: Verdict::Release }];
    window.leases.acknowledge(window.now, member, &acks, 3, 0, &mut window.marks).unwrap();
    assert_eq!((window.counts(), window.leases.deadline()), ((1, 1, 1, 0), Some(1_100)));
    window.now += 10;
    window.leases.release(window.now, member, 3, &mut window.marks);
    assert_eq!(window.counts(), (1, 0, 2, 0));
    window.restart();
    window.pass(90);
    assert_eq!((window.counts(), window.leases.deadline()), ((1, 0, 1, 0), Some(1_110)));
}

#[test]
fn what_nobody_has_seen_was_not_delivered() {
    let mut window = Window::new(QueueTerms { backoff: BACKOFF, delivery_limit: 1, ..TERMS });
    window.bring([PLAIN; 2]);
    for _ in 0..3 {
        assert_eq!(window.receive(1), [(0, 1)]);
        window.settle(0, 1, Settlement::Unseen).unwrap();
        assert_eq!(window.counts(), (2, 0, 0, 0));
    }
    let mut again = Leases::new(0);
    window.marks.iter().for_each(|mark| again.apply(mark));
    assert_eq!((again.marks(), again.lease_of(0)), (vec![], None));
}

#[test]
fn what_is_left_behind_comes_back_unless_somebody_has_spoken_of_it() {
    let mut window = Window::new(QueueTerms { backoff: BACKOFF, ..TERMS });
    window.bring([PLAIN; 5]);
    assert_eq!(window.offsets(5), [0, 1, 2, 3, 4]);
    let until = window.now + 100;
    let abandon = |from_ms, to_ms| Settlement::Abandon { from_ms, to_ms };
    window.settle(1, 1, back(500)).unwrap();
    window.settle(2, 1, Settlement::Extend { for_ms: 130 }).unwrap();
    window.done(3);
    assert_eq!(window.settle(0, 1, abandon(until - 5, until)), Ok(()));
    for (at, refused) in [(1, SettleError::TakenAgain), (2, SettleError::TakenAgain), (3, SettleError::Gone)]
    {
        assert_eq!(window.settle(at, 1, abandon(until - 5, until + 5)), Err(refused), "{at}");
    }
    window.settle(4, 1, Settlement::Extend { for_ms: 50 }).unwrap();
    assert_eq!(
        window.settle(4, 1, abandon(until - 5, until)),
        Err(SettleError::TakenAgain),
        "nor if shorter"
    );
    assert_eq!(window.counts(), (0, 2, 2, 0));
    window.pass(100);
    assert_eq!(window.receive(5), [(0, 2)], "after its backoff");
    window.pass(30);
    assert_eq!(window.settle(2, 1, abandon(0, i64::MAX)), Err(SettleError::TakenAgain), "it was over");
}

#[test]
fn who_was_worn_out_before_a_restart_is_dead_at_the_first_look_after_it() {
    let mut window = Window::new(TERMS);
    window.bring([PLAIN; 2]);
    for deliveries in 1..=3 {
        assert_eq!(window.receive(1), [(0, deliveries)]);
        window.pass(if deliveries < 3 { 100 } else { 0 });
    }
    // The process dies with the last lease, which ends before anybody says how often is too often.
    window.restart();
    window.leases.expire(window.now + 100, u16::MAX, &mut window.marks);
    assert_eq!(window.counts().3, 0);
    window.receive(0);
    assert_eq!(window.counts(), (0, 0, 0, 1));
    window.restart();
    assert_eq!(window.counts(), (0, 0, 0, 1));
}

#[test]
fn the_oldest_of_the_lowest_priority_gives_way_out_of_turn() {
    let mut window = Window::new(QueueTerms { priorities: 3, ..TERMS });
    let priority = |priority| Kind { priority, ..PLAIN };
    window.bring([2, 0, 1, 0, 2].map(priority));
    assert_eq!(window.give_way(1, Dead::Archive), [1]);
    assert_eq!(window.give_way(3, Dead::Archive), [3, 2, 0]);
    assert_eq!(window.offsets(9), [4]);
}

#[test]
fn what_gives_way_was_not_handed_out_and_is_known_for_it_after_a_crash() {
    let mut window = Window::new(TERMS);
    window.bring([PLAIN; 4]);
    window.receive(2);
    window.settle(1, 1, back(0)).unwrap();
    assert_eq!(window.give_way(2, Dead::Keep), [1, 2], "what somebody has stays");
    window.settle(0, 1, Settlement::Reject).unwrap();
    assert_eq!(window.counts(), (1, 0, 0, 3));
    window.restart();
    let died = |offset, deliveries, cause| Died { offset, deliveries, cause };
    let dead = [died(0, 1, Cause::Failed), died(1, 1, Cause::GaveWay), died(2, 0, Cause::GaveWay)];
    assert_eq!(window.settle(2, 0, back(0)), Err(SettleError::Gone), "no mover has it");
    assert_eq!(window.leases.take_dead(window.now, 9, 50), dead);
    assert_eq!(window.settle(2, 0, back(0)), Ok(()));
    assert_eq!(window.leases.take_dead(window.now, 9, 50), dead[2..]);
    // A mover that takes its time has moved them all the same.
    window.pass(60);
    dead.iter().for_each(|died| window.leases.settle(window.now, &died.settle(), &mut window.marks).unwrap());
    assert_eq!((window.leases.start(), window.counts()), (3, (0, 0, 0, 0)));
}

#[test]
fn no_limit_keeps_others_from_giving_way_and_that_makes_no_room() {
    let mut window = Window::new(QueueTerms { max_in_flight: 1, key_rate: 1, ..TERMS });
    window.bring([PLAIN]).bring(keyed(&[7, 7, 8]));
    assert_eq!(window.offsets(9), [0]);
    assert_eq!((window.offsets(9), window.leases.is_full()), (vec![], true));
    let changes = window.leases.changes();
    assert_eq!(window.give_way(2, Dead::Archive), [1, 3]);
    assert_eq!((window.leases.is_full(), window.leases.changes()), (true, changes));
    window.done(0);
    assert!(window.leases.changes() > changes, "who waits for room hears of it");
    assert_eq!(window.offsets(9), [2]);
}

#[test]
fn only_what_is_with_somebody_makes_a_queue_full() {
    let mut window = Window::new(QueueTerms { max_in_flight: 2, ..TERMS });
    let later = Kind { due: Some(5_000), ..PLAIN };
    window.bring([later, PLAIN, PLAIN, PLAIN, PLAIN]);
    assert_eq!(window.offsets(9), [1, 2]);
    assert_eq!((window.offsets(9), window.leases.is_full()), (vec![], true));
    let changes = window.leases.changes();
    window.settle(1, 1, back(1_000)).unwrap();
    assert!(window.leases.changes() > changes);
    assert_eq!((window.offsets(9), window.leases.is_full()), (vec![3], false));
}

#[test]
fn the_dead_wait_for_their_mover_and_are_given_back_when_it_does_not_come() {
    let mut window = Window::new(TERMS);
    window.bring([PLAIN; 3]);
    window.receive(3);
    window.settle(1, 1, Settlement::Reject).unwrap();
    window.settle(2, 1, Settlement::Reject).unwrap();
    assert_eq!(window.settle(1, 1, back(0)), Err(SettleError::Gone));
    let moved = |window: &mut Window| window.leases.take_dead(window.now, 5, 50);
    let died = |offset| Died { offset, deliveries: 1, cause: Cause::Failed };
    assert_eq!(moved(&mut window), [died(1), died(2)]);
    assert_eq!(moved(&mut window), []);
    window.settle(1, 1, Settlement::Done).unwrap();
    window.pass(50);
    assert_eq!(moved(&mut window), [died(2)]);
    window.restart();
    assert_eq!(moved(&mut window), [died(2)], "a crash in between");
    window.settle(2, 1, Settlement::Done).unwrap();
    assert_eq!(window.counts(), (0, 1, 0, 0));
    let ends: Vec<_> =
        window.leases.marks().iter().map(|mark| (mark.first, mark.last, mark.outcome)).collect();
    assert_eq!(ends, [(0, 0, Outcome::Leased { until: 1_100 }), (1, 2, Outcome::Archived)]);
    // A queue that has lost its dead letter queue keeps none, and who rejects before anybody received loses nothing.
    window.settle(0, 1, Settlement::Reject).unwrap();
    assert_eq!(window.counts(), (0, 0, 0, 1));
    window.terms.dead = Dead::Archive;
    assert_eq!((window.receive(1), window.leases.start()), (vec![], 3));
}

#[test]
fn a_purge_archives_all_there_was_and_nothing_that_comes() {
    let mut window = Window::new(QueueTerms { fifo: true, ..TERMS });
    window.bring([PLAIN, Kind { due: Some(2_000), ..PLAIN }, PLAIN]).bring(keyed(&[7, 7]));
    window.receive(1);
    window.leases.purge(7, &mut window.marks);
    assert_eq!((window.leases.start(), window.leases.end(), window.leases.deadline()), (7, 7, None));
    assert_eq!(window.settle(0, 1, Settlement::Done), Ok(()), "as to what it is: gone");
    assert_eq!(window.settle(0, 1, back(0)), Err(SettleError::Gone));
    window.next = 7;
    window.bring(keyed(&[7]));
    assert_eq!(window.offsets(3), [7]);
}

#[test]
fn what_expires_is_archived_unless_it_is_with_somebody() {
    let mut window = Window::new(TERMS);
    let until = |at| Kind { expires: Some(at), ..PLAIN };
    window.bring([
        until(999),
        until(1_050),
        until(1_050),
        Kind { due: Some(9_000), ..until(1_020) },
        until(1_200),
    ]);
    assert_eq!(window.offsets(1), [1], "what had expired when it came never is");
    window.pass(20);
    assert_eq!(window.counts(), (2, 1, 0, 0));
    window.pass(30);
    assert_eq!(window.counts(), (1, 1, 0, 0));
    window.settle(1, 1, Settlement::Extend { for_ms: 100 }).unwrap();
    window.pass(10);
    window.settle(1, 1, back(0)).unwrap();
    window.pass(0);
    assert_eq!((window.counts(), window.leases.start()), ((1, 0, 0, 0), 4));
    window.pass(140);
    assert_eq!((window.leases.start(), window.leases.deadline()), (5, None));
}

#[test]
fn what_lives_long_shares_its_expiry_and_short_lives_are_exact() {
    let mut window = Window::new(TERMS);
    let days = 4 * 86_400_000;
    window.bring((0..5_000).map(|at| Kind { expires: Some(1_000 + days + at), ..PLAIN }));
    assert!(window.leases.runs() <= 2, "{}", window.leases.runs());
    let ends = window.leases.deadline().unwrap();
    assert!((1_000 + days..=1_000 + days + days / 1_000).contains(&ends), "{ends}");
    for left in [1, 1_000, 59_999] {
        assert_eq!(shared_expiry(500, 500 + left), 500 + left);
    }
    for left in [60_000, 60_001, 1 << 31, i64::MAX / 2] {
        let late = shared_expiry(500, 500 + left) - (500 + left).min(super::super::TIME_MAX);
        assert!((0..=left / 1_000).contains(&late), "{left}: {late}");
    }
}

#[test]
fn higher_priorities_come_first_and_each_tenth_record_is_of_the_lowest() {
    let mut window = Window::new(QueueTerms { priorities: 3, ..TERMS });
    let priority = |priority| Kind { priority, ..PLAIN };
    window.bring((0..60).map(|at| priority([0, 1, 9][at % 3])));
    let taken = window.offsets(40);
    let levels: Vec<_> = taken.iter().map(|at| at % 3).collect();
    let expected: Vec<_> = (0..40)
        .map(|turn| match turn {
            9 | 19 | 29 | 39 => 0,
            turn if turn < 22 => 2,
            _ => 1,
        })
        .collect();
    assert_eq!(levels, expected);
    // Of each level the oldest first, one receive or several.
    let low: Vec<_> = taken.into_iter().filter(|at| at % 3 == 0).collect();
    assert_eq!(low, [0, 3, 6, 9]);
    let mut high = Vec::new();
    (0..4).for_each(|_| high.extend(window.offsets(1)));
    assert!(high.iter().all(|at| at % 3 == 1), "{high:?}");
}

#[test]
fn records_of_a_key_come_in_order_and_keys_take_turns() {
    let mut window = Window::new(QueueTerms { fifo: true, ..TERMS });
    window.bring(keyed(&[1, 1, 2, 1, 2, 3])).bring([PLAIN]);
    assert_eq!(window.offsets(2), [6, 0], "a record without a key has a turn, too");
    assert_eq!(window.offsets(2), [2, 4], "as many of a key as there is room for");
    assert_eq!(window.offsets(9), [5], "the others wait for what is with somebody");
    let changes = window.leases.changes();
    window.done(0);
    assert!(window.leases.changes() > changes);
    assert_eq!(window.offsets(9), [1, 3]);
    // What comes back comes before what is behind it, and holds that up.
    window.settle(1, 1, back(500)).unwrap();
    window.settle(3, 1, back(0)).unwrap();
    window.bring(keyed(&[1]));
    assert_eq!(window.offsets(9), NONE);
    window.done(2);
    assert_eq!(window.offsets(9), NONE);
    window.done(4);
    window.pass(500);
    let mut taken = window.offsets(9);
    assert_eq!(taken.iter().filter(|at| [1, 3, 7].contains(*at)).collect::<Vec<_>>(), [&1, &3, &7]);
    taken.sort_unstable();
    assert_eq!(taken, [1, 3, 5, 6, 7], "the leases of the others have ended");
}

#[test]
fn a_stuck_key_is_passed_over_at_no_cost() {
    let mut window = Window::new(QueueTerms { fifo: true, ..TERMS });
    window.bring(keyed(&[1])).receive(1);
    window.bring(keyed(&[1; 500])).bring(keyed(&[2]));
    assert_eq!(window.offsets(1), [501]);
    window.done(501);
    // Its dead do not hold it up.
    window.settle(0, 1, Settlement::Reject).unwrap();
    assert_eq!(window.offsets(600).len(), 500);
}

#[test]
fn of_a_key_no_more_are_out_than_it_may_have() {
    let mut window = Window::new(QueueTerms { key_concurrency: 2, ..TERMS });
    window.bring(keyed(&[1, 1, 1, 2, 1, 2]));
    assert_eq!(window.offsets(9), [0, 3, 1, 5]);
    assert_eq!(window.offsets(9), NONE);
    window.done(1);
    assert_eq!(window.offsets(9), [2]);
    window.settle(0, 1, back(50)).unwrap();
    assert_eq!(window.offsets(9), [4], "what backs off is out of it");
}

#[test]
fn of_a_key_no_more_come_in_a_second_than_it_may() {
    let mut window = Window::new(QueueTerms { key_rate: 2, ..TERMS });
    window.bring(keyed(&[1, 1, 1, 2, 1, 1]));
    assert_eq!(window.offsets(9), [0, 3, 1]);
    [0, 3, 1].into_iter().for_each(|at| window.done(at));
    assert_eq!(window.leases.deadline(), Some(2_000));
    window.pass(999);
    assert_eq!(window.offsets(9), NONE);
    let changes = window.leases.changes();
    window.pass(1);
    assert!(window.leases.changes() > changes);
    assert_eq!(window.offsets(9), [2, 4]);
    // A key that has nothing left is still known for its second.
    window.done(2);
    window.done(4);
    let mut fast = Window::new(QueueTerms { key_rate: 1, ..TERMS });
    fast.bring(keyed(&[1]));
    assert_eq!(fast.offsets(1), [0]);
    fast.done(0);
    fast.bring(keyed(&[1]));
    assert_eq!(fast.offsets(1), NONE);
    fast.pass(1_000);
    assert_eq!(fast.offsets(1), [1]);
    fast.done(1);
    fast.pass(1_000);
    assert_eq!(fast.leases.deadline(), None);
}

#[test]
fn leases_and_what_backs_off_last_and_kinds_are_read_again() {
    let terms = QueueTerms { fifo: true, ..TERMS };
    let mut window = Window::new(terms);
    let kinds = [keyed(&[1, 1, 2]), vec![Kind { due: Some(1_050), ..PLAIN }], keyed(&[3, 1])].concat();
    window.bring(kinds.clone());
    assert_eq!(window.offsets(4), [0, 1, 5, 2]);
    window.settle(2, 1, back(300)).unwrap();
    window.done(0);
    window.restart();
    assert_eq!(window.leases.lease_of(1), Some((Holder::RECEIPT, 1_100)));
    assert_eq!(window.receive(9), [], "nothing is known of what is there");
    assert_eq!((window.leases.seen(), window.leases.end()), (1, 6));
    window.next = 1;
    window.bring(kinds[1..4].iter().copied());
    assert_eq!(window.receive(9), [], "something may be with somebody that was not seen");
    window.bring(kinds[4..].iter().copied());
    assert_eq!(window.counts(), (1, 2, 2, 0));
    assert_eq!(window.receive(9), [(4, 1)]);
    window.pass(50);
    assert_eq!(window.receive(9), [(3, 1)]);
    window.done(4);
    window.done(5);
    window.pass(50);
    assert_eq!(window.receive(9), [(1, 2)], "its lease ended when it should");
    window.pass(200);
    assert!(window.receive(9).contains(&(2, 2)));
}

#[test]
fn a_receipt_that_a_crash_has_forgotten_is_still_good() {
    let mut window = Window::new(TERMS);
    window.bring([PLAIN; 2]);
    window.marks.clear();
    assert_eq!(window.receive(2), [(0, 1), (1, 1)]);
    window.marks.clear();
    window.leases = Leases::new(0);
    window.next = 0;
    window.bring([PLAIN; 2]);
    assert_eq!(window.settle(0, 1, Settlement::Done), Ok(()));
    assert_eq!(window.offsets(5), [1]);
    assert_eq!(window.settle(1, 2, Settlement::Done), Err(SettleError::TakenAgain), "another has it");
}

#[test]
fn what_no_log_has_and_what_is_to_be_skipped_is_archived() {
    let mut window = Window::new(TERMS);
    let arrival = |first, last, kind| Arrival { first, last, kind };
    let skip = Kind { skip: true, ..PLAIN };
    let taken = window.receive_of(vec![arrival(3, 5, PLAIN), arrival(6, 7, skip), arrival(9, 9, PLAIN)], 9);
    assert_eq!(taken.iter().map(|range| (range.first, range.last)).collect::<Vec<_>>(), [(3, 5), (9, 9)]);
    assert_eq!((window.leases.start(), window.leases.done()), (3, 3));
    // The log loses its front: what comes back then is gone.
    window.leases.archive_below(5, &mut window.marks);
    window.settle(3, 1, back(0)).unwrap();
    window.settle(5, 1, back(0)).unwrap();
    assert_eq!(window.offsets(9), [5]);
    assert_eq!(window.settle(4, 1, back(0)), Ok(()));
    assert_eq!(window.leases.start(), 5);
}

#[test]
fn terms_that_change_have_the_window_read_again() {
    let mut window = Window::new(TERMS);
    window.bring(keyed(&[1, 1, 1]));
    assert_eq!(window.offsets(1), [0]);
    window.terms.fifo = true;
    assert_eq!((window.offsets(9), window.leases.seen()), (vec![], 0));
    window.next = 0;
    window.bring(keyed(&[1, 1, 1]));
    assert_eq!(window.offsets(9), NONE);
    window.done(0);
    assert_eq!(window.offsets(9), [1, 2]);
}

#[test]
fn a_share_group_gets_of_a_queues_window_only_what_may_be_had() {
    let mut window = Window::new(QueueTerms { fifo: true, ..TERMS });
    window.bring([PLAIN, Kind { due: Some(2_000), ..PLAIN }, PLAIN]).bring(keyed(&[1]));
    let take = super::super::Take {
        from: 0,
        batches: vec![(0, 9)],
        max_records: 9,
        range_records: 9,
        portion: super::super::Portion::WholeBatches,
        until: 5_000,
        delivery_limit: 3,
        max_in_flight: 100,
    };
    let taken = window.leases.take(Holder(7), &take, &mut window.marks);
    assert_eq!(taken.iter().map(|range| (range.first, range.last)).collect::<Vec<_>>(), [(0, 0), (2, 2)]);
    assert_eq!(window.settle(0, 1, Settlement::Done), Err(SettleError::TakenAgain), "it is a member's");
}

#[test]
fn nothing_stays_of_many_keys_when_the_last_of_their_records_is_done_dead_or_purged() {
    let keys: Vec<_> = (1..=100).collect();
    let terms = QueueTerms { fifo: true, ..TERMS };
    for terms in
        [terms, QueueTerms { key_rate: 5, ..terms }, QueueTerms { fifo: false, key_concurrency: 1, ..terms }]
    {
        for end in 0..5 {
            let mut window = Window::new(terms);
            window.bring(keyed(&keys));
            match end {
                0 => window.offsets(100).into_iter().for_each(|at| window.done(at)),
                1 => window.leases.purge(100, &mut window.marks),
                2 => assert_eq!(window.give_way(100, Dead::Archive).len(), 100),
                3 => assert_eq!(window.give_way(100, Dead::Keep).len(), 100),
                _ => window.leases.raise_start(100),
            }
            let dead = if end == 3 { 100 } else { 0 };
            assert_eq!((window.counts(), window.leases.runs()), ((0, 0, 0, dead), dead.min(1) as usize));
            window.pass(2_000);
            // They can come again.
            window.bring(keyed(&keys));
            assert_eq!(window.offsets(200).len(), 100, "{terms:?}, {end}");
        }
    }
}

#[test]
fn a_run_is_kept_in_sixteen_bytes() {
    assert_eq!(size_of::<super::super::Packed>(), 16);
    let states = [
        State::Available,
        State::Leased { holder: Holder(u32::MAX), until: super::super::TIME_MAX },
        State::Leased { holder: Holder::RECEIPT, until: 1 },
        State::Waiting { until: 1_753_000_000_123 },
        State::Dead { until: FREE, cause: Cause::Failed },
        State::Dead { until: super::super::TIME_MAX, cause: Cause::GaveWay },
        State::Acknowledged,
        State::Archived,
    ];
    let mut kinds = super::super::Kinds::default();
    let natures = [(0, NEVER), (9, NEVER), (3, 1_753_000_000_123)];
    for (state, (priority, expires)) in
        states.into_iter().flat_map(|state| natures.map(|nature| (state, nature)))
    {
        let (nature, key) = (Nature { priority, expires }, Some(KeyId::at(7)));
        let run = Run { last: 9, deliveries: u16::MAX, state, nature, key };
        let packed = super::super::Packed::new(&run, &mut kinds);
        assert_eq!(packed.run(9, &kinds), run);
    }
}

#[test]
fn what_was_a_queues_window_goes_by_a_share_groups_terms_once_one_takes_from_it() {
    let terms = QueueTerms { fifo: true, delivery_limit: 1, ..TERMS };
    let mut window = Window::new(terms);
    let (later, keyed) = (Kind { due: Some(9_000), ..PLAIN }, Kind { key: Some(7), ..PLAIN });
    window.bring([PLAIN, later, keyed, keyed, PLAIN]);
    assert_eq!(window.offsets(1), [0]);
    assert_eq!(window.settle(0, 1, Settlement::Reject), Ok(()));
    assert_eq!((window.leases.counts().dead, window.offsets(1)), (1, vec![2]));
    let changes = window.leases.changes();
    window.leases.go_plain();
    // The dead one stays, one is with somebody, and the others can be had in the order of the log.
    assert!(window.leases.changes() > changes);
    assert_eq!((window.leases.start(), window.leases.next(), window.leases.end()), (0, 1, 5));
    assert_eq!(window.leases.counts(), Counts { ready: 3, leased: 1, dead: 1, ..Counts::default() });
    let take = super::super::Take {
        from: 1,
        batches: vec![(1, 9)],
        max_records: 100,
        range_records: 100,
        portion: super::super::Portion::WholeBatches,
        until: 2_000,
        delivery_limit: 5,
        max_in_flight: 9,
    };
    let taken = window.leases.take(Holder(1), &take, &mut window.marks);
    let taken: Vec<_> = taken.into_iter().map(|range| (range.first, range.last)).collect();
    assert_eq!(taken, [(1, 1), (3, 9)], "the dead one takes nobody's room");
    let changes = window.leases.changes();
    window.leases.go_plain();
    assert_eq!((window.leases.end(), window.leases.changes()), (10, changes), "it is no queue's any more");
    let died = Died { offset: 0, deliveries: 1, cause: Cause::Failed };
    assert_eq!(window.leases.take_dead(window.now, 9, 50), [died]);
}
