use super::super::leases::RUNS_MAX;
use super::super::{Ack, Arrival, Backoff, Dead, Kind, Portion, QueueTerms, Verdict};
use super::*;
use crate::coordinator::Stored;

const TERMS: Terms =
    Terms { lock_duration_ms: 100, delivery_limit: 5, max_in_flight: 10, dead: Dead::Archive };

fn key(group: &str, partition: i32) -> QueueKey {
    QueueKey { group: group.into(), topic_id: Uuid([3; 16]), partition }
}

fn wish(member: &str, batches: &[(i64, i64)]) -> Wish {
    Wish {
        member: member.into(),
        log_start: 0,
        leader_epoch: 0,
        from: 0,
        batches: batches.to_vec(),
        max_records: 100,
        range_records: 100,
        portion: Portion::WholeBatches,
        terms: TERMS,
    }
}

fn accept(member: &str, first: i64, last: i64) -> QueueEvent {
    let acks = vec![Ack { first, last, verdict: Verdict::Accept }];
    QueueEvent::Acknowledge { member: member.into(), acks, terms: TERMS }
}

/// A shard, and its log.
struct Kept {
    shard: QueueShard,
    log: Vec<ShareRecord>,
    next: u64,
    /// Who was answered: at once, or when the log is durable.
    prompt: Vec<u64>,
    held: Vec<u64>,
}

impl Kept {
    fn new() -> Self {
        Self { shard: QueueShard::new(), log: Vec::new(), next: 0, prompt: Vec::new(), held: Vec::new() }
    }

    fn step(&mut self, event: Event) -> Option<Reply> {
        self.next += 1;
        let mut out = Out::default();
        self.shard.step(0, Ticket(self.next), event, &mut out);
        self.log.append(&mut out.records);
        self.prompt.extend(out.prompt.iter().map(|(to, _)| to.0));
        self.held.extend(out.replies.iter().map(|(to, _)| to.0));
        let mut all = out.replies.into_iter().chain(out.prompt);
        all.find(|(to, _)| to.0 == self.next).map(|(_, reply)| reply)
    }

    fn one(&mut self, event: QueueEvent) -> Option<Reply> {
        self.step(Event::One(key("g", 0), event))
    }

    fn replay(&self) -> QueueShard {
        let mut shard = QueueShard::new();
        for record in &self.log {
            let (key, value) = record.encode();
            shard.apply(0, &ShareRecord::decode(Some(&key), value.as_ref()).unwrap().unwrap());
        }
        shard
    }
}

fn started() -> Kept {
    let mut kept = Kept::new();
    kept.one(QueueEvent::Initialise { start: 0, leader_epoch: 2 });
    kept
}

#[test]
fn what_is_taken_is_told_before_it_is_durable_and_verdicts_are_not() {
    let mut kept = started();
    let Some(Reply::Taken(Ok(taken))) = kept.one(QueueEvent::Take(wish("a", &[(0, 4)]))) else { panic!() };
    assert_eq!((taken.ranges.len(), kept.prompt.last()), (1, Some(&kept.next)));
    kept.one(accept("a", 0, 1));
    assert_eq!(kept.held.last(), Some(&kept.next));
    assert_eq!(kept.log.len(), 3);
    assert_eq!(kept.replay().snapshot(), kept.shard.snapshot());
}

#[test]
fn who_watches_hears_of_what_comes_back_and_leaves_nothing_behind() {
    let mut kept = started();
    kept.one(QueueEvent::Take(wish("a", &[(0, 4)])));
    let Some(Reply::Taken(Ok(taken))) = kept.one(QueueEvent::Take(wish("b", &[]))) else { panic!() };
    let watch = |member: &str| QueueEvent::Watch { member: member.into(), changes: taken.changes };
    assert_eq!(kept.one(watch("b")), None);
    let first = kept.next;
    // Who watches anew does so once.
    assert_eq!(kept.one(watch("b")), None);
    let second = kept.next;
    assert!(kept.prompt.contains(&first) && !kept.prompt.contains(&second));
    kept.step(Event::Release { group: "g".into(), member: "a".into() });
    assert!(kept.prompt.contains(&second));
    assert_eq!(kept.one(watch("b")), Some(Reply::Done(Ok(()))), "there was a change since");
    let Some(Reply::Taken(Ok(taken))) = kept.one(QueueEvent::Take(wish("c", &[(0, 4)]))) else { panic!() };
    kept.one(QueueEvent::Watch { member: "b".into(), changes: taken.changes });
    let third = kept.next;
    kept.step(Event::Release { group: "g".into(), member: "b".into() });
    assert!(kept.prompt.contains(&third), "a watcher that has gone");
    assert_eq!(kept.shard.deadline(), Some(100));
}

#[test]
fn a_window_that_was_made_anew_has_changed_for_who_saw_the_one_before() {
    let mut kept = started();
    let Some(Reply::Taken(Ok(seen))) = kept.one(QueueEvent::Take(wish("a", &[]))) else { panic!() };
    let watches = |shard: &mut QueueShard| {
        let watch = QueueEvent::Watch { member: "a".into(), changes: seen.changes };
        let mut out = Out::default();
        shard.step(1, Ticket(99), Event::One(key("g", 0), watch), &mut out);
        out.prompt.is_empty()
    };
    assert!(watches(&mut kept.shard));
    // The shard is made anew from its log.
    let mut reloaded = QueueShard::new();
    kept.log.iter().for_each(|record| reloaded.apply(1, record));
    assert!(!watches(&mut reloaded));
    // The window is.
    let reset = QueueEvent::Reset { start: 0, leader_epoch: 2 };
    kept.shard.step(1, Ticket(98), Event::One(key("g", 0), reset), &mut Out::default());
    assert!(!watches(&mut kept.shard));
}

#[test]
fn windows_are_listed_forgotten_and_dropped_by_group_and_topic() {
    let mut kept = started();
    for (group, partition) in [("f", 0), ("g", 1), ("h", 0)] {
        kept.step(Event::One(key(group, partition), QueueEvent::Initialise { start: 7, leader_epoch: 0 }));
    }
    let listed = |kept: &mut Kept, group: &str| match kept.step(Event::List(group.into())) {
        Some(Reply::Listed(listed)) => {
            listed.iter().map(|(key, progress)| (key.partition, progress.start)).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(listed(&mut kept, "g"), [(0, 0), (1, 7)]);
    kept.step(Event::Forget { group: "g".into(), of: Arc::new(|topic, _| topic == Uuid([4; 16])) });
    assert_eq!(listed(&mut kept, "g").len(), 2);
    kept.step(Event::Forget { group: "g".into(), of: Arc::new(|_, _| true) });
    assert_eq!((listed(&mut kept, "g").len(), listed(&mut kept, "h").len()), (0, 1));
    assert_eq!(kept.one(QueueEvent::Take(wish("a", &[]))), Some(Reply::Taken(Err(QueueError::Unknown))));
    kept.step(Event::Drop(Arc::new(|id| id != Uuid([3; 16]))));
    assert_eq!(kept.shard.live_records(), 0);
    assert_eq!(kept.replay().snapshot(), []);
}

#[test]
fn a_window_set_anew_has_a_new_epoch_and_no_leases() {
    let mut kept = started();
    kept.one(QueueEvent::Take(wish("a", &[(0, 4)])));
    kept.one(QueueEvent::Reset { start: 2, leader_epoch: 2 });
    assert_eq!(kept.shard.deadline(), None);
    assert!(matches!(kept.one(accept("a", 2, 2)), Some(Reply::Done(Err(QueueError::NotHeld(_))))));
    let Some(ShareRecord::Snapshot { value: Some(value), .. }) = kept.log.last() else { panic!() };
    assert_eq!((value.state_epoch, value.snapshot_epoch, value.start_offset), (1, 1, 2));
}

#[test]
fn states_that_no_log_can_have_are_passed_over() {
    let batch = |first_offset, last_offset| StateBatch {
        first_offset,
        last_offset,
        delivery_state: ACKNOWLEDGED,
        delivery_count: 1,
        ..Default::default()
    };
    let mut kept = started();
    let value = ShareUpdate {
        start_offset: -1,
        state_batches: vec![batch(5, 4), batch(-7, 2), batch(3, i64::MAX), batch(0, 2)],
        ..Default::default()
    };
    kept.log.push(ShareRecord::Update { key: record_key(&key("g", 0)), value });
    let shard = kept.replay();
    assert_eq!(shard.leases(&key("g", 0)).unwrap().start(), 3);
}

#[test]
fn verdicts_that_would_not_fit_a_record_are_refused_and_change_nothing() {
    let mut kept = started();
    let last = 2 * RUNS_MAX as i64;
    kept.one(QueueEvent::Take(wish("a", &[(0, last)])));
    let mut say = |first: i64, count: usize| {
        let verdicts = [Verdict::Reject, Verdict::Accept].into_iter().cycle();
        let acks = (first..).zip(verdicts).map(|(at, verdict)| Ack { first: at, last: at, verdict });
        let acks = acks.take(count).collect();
        let logged = kept.log.len();
        let done = kept.one(QueueEvent::Acknowledge { member: "a".into(), acks, terms: TERMS });
        let bytes = |record: &ShareRecord| record.encode().1.unwrap().len();
        (done, kept.log[logged..].iter().map(bytes).sum::<usize>())
    };
    let refused = Some(Reply::Done(Err(QueueError::TooManyRuns)));
    assert_eq!(say(1, RUNS_MAX), (refused.clone(), 0));
    let (done, bytes) = say(1, RUNS_MAX / 2 - 1);
    assert_eq!(done, Some(Reply::Done(Ok(()))));
    assert!((RUNS_MAX..1 << 20).contains(&bytes), "{bytes}");
    let middle = RUNS_MAX as i64;
    assert_eq!(say(middle, RUNS_MAX / 2 - 1), (refused, 0), "with those that there are, they are too many");
    assert_eq!(say(middle, 1).0, Some(Reply::Done(Ok(()))));
    // What lies in front is done, and all behind it.
    assert_eq!(say(0, 1).0, Some(Reply::Done(Ok(()))));
    assert_eq!(say(middle + 1, RUNS_MAX / 2 - 3).0, Some(Reply::Done(Ok(()))));
    let state = |shard: &QueueShard| (shard.leases(&key("g", 0)).unwrap().marks(), shard.live_records());
    assert_eq!(state(&kept.replay()), state(&kept.shard));
}

#[test]
fn of_two_who_see_that_the_log_was_cut_only_the_first_goes_back() {
    let mut kept = started();
    kept.one(QueueEvent::Take(wish("a", &[(0, 9)])));
    let progress = |kept: &mut Kept| match kept.one(QueueEvent::Describe) {
        Some(Reply::Described(Some(progress))) => (progress.start, progress.in_flight, progress.leader_epoch),
        other => panic!("{other:?}"),
    };
    let go_back = |cut: i64| QueueEvent::GoBack { cut, seen_epoch: 2, leader_epoch: 3 };
    kept.one(go_back(10));
    assert_eq!(progress(&mut kept), (0, 10, 2), "nothing was lost that it has seen");
    kept.one(go_back(4));
    assert_eq!(progress(&mut kept), (0, 0, 3));
    kept.one(QueueEvent::Take(Wish { leader_epoch: 3, ..wish("a", &[(0, 3), (4, 19)]) }));
    kept.one(accept("a", 0, 9));
    kept.one(go_back(4));
    assert_eq!(progress(&mut kept), (10, 10, 3), "what was done since stays");
}

#[test]
fn who_waits_for_something_to_die_hears_of_it_once() {
    let mut kept = started();
    assert_eq!(kept.one(QueueEvent::AwaitDead), None);
    let replaced = kept.next;
    assert_eq!(kept.one(QueueEvent::AwaitDead), None);
    let waits = kept.next;
    assert!(kept.prompt.contains(&replaced));
    let terms = QueueTerms {
        delivery_limit: 1,
        max_in_flight: 10,
        fifo: false,
        key_concurrency: 0,
        key_rate: 0,
        priorities: 1,
        backoff: Backoff { ms: 0, multiplier: 1.0, max_ms: 0 },
        dead: Dead::Keep,
    };
    let receive = Receive {
        member: None,
        log_start: 0,
        leader_epoch: 2,
        arrivals_from: 0,
        arrivals: vec![Arrival { first: 0, last: 1, kind: Kind::default() }],
        max_records: 1,
        lease_ms: 100,
        gives_way: None,
        terms,
    };
    kept.one(QueueEvent::Receive(receive));
    assert!(!kept.held.contains(&waits));
    // The lease ends with nobody around.
    let mut out = Out::default();
    kept.shard.tick(100, &mut out);
    assert_eq!(out.replies, [(Ticket(waits), Reply::Done(Ok(())))]);
    assert_eq!(kept.one(QueueEvent::AwaitDead), Some(Reply::Done(Ok(()))), "there is one already");
    kept.one(QueueEvent::TakeDead { max_records: 9, lease_ms: 10 });
    assert_eq!(kept.one(QueueEvent::AwaitDead), None, "it is being moved");
    let left = kept.next;
    kept.one(QueueEvent::Reset { start: 0, leader_epoch: 2 });
    assert!(kept.prompt.contains(&left), "the window went");
    let unknown = kept.step(Event::One(key("other", 0), QueueEvent::AwaitDead));
    assert_eq!(unknown, Some(Reply::Done(Err(QueueError::Unknown))));
}

#[test]
fn a_purge_knows_the_log_as_it_is_now() {
    let mut kept = started();
    kept.one(QueueEvent::Purge { offset_end_exclusive: 7, leader_epoch: 4 });
    let Some(Reply::Described(Some(progress))) = kept.one(QueueEvent::Describe) else { panic!() };
    assert_eq!((progress.start, progress.leader_epoch), (7, 4));
    assert_eq!(kept.replay().snapshot(), kept.shard.snapshot());
}
