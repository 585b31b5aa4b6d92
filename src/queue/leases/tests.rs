use super::*;

const ANNE: Holder = Holder(1);
const BERT: Holder = Holder(2);
const LIMIT: u16 = 5;

fn take(from: i64, batches: &[(i64, i64)], max_records: i64) -> Take {
    Take {
        from,
        batches: batches.to_vec(),
        max_records,
        range_records: max_records,
        portion: Portion::WholeBatches,
        until: 100,
        delivery_limit: LIMIT,
        max_in_flight: 1_000,
    }
}

fn exact(from: i64, batches: &[(i64, i64)], max_records: i64) -> Take {
    Take { portion: Portion::Exact, ..take(from, batches, max_records) }
}

fn range(first: i64, last: i64, deliveries: u16) -> Range {
    Range { first, last, deliveries }
}

fn mark(first: i64, last: i64, outcome: Outcome, deliveries: u16) -> Mark {
    Mark { first, last, outcome, deliveries }
}

fn ack(first: i64, last: i64, verdict: Verdict) -> Ack {
    Ack { first, last, verdict }
}

/// What two windows have in common over a restart.
fn lasting(leases: &Leases) -> (i64, i64, i64, Vec<Mark>) {
    (leases.start(), leases.end(), leases.done(), leases.marks())
}

#[test]
fn whole_batches_are_handed_out_until_there_are_enough() {
    let (mut leases, mut marks) = (Leases::new(0), Vec::new());
    let taken = leases.take(ANNE, &take(0, &[(0, 9), (10, 19), (20, 29)], 15), &mut marks);
    assert_eq!(taken, [range(0, 19, 1)]);
    assert_eq!(marks, [mark(0, 19, Outcome::Available, 1)]);
    assert_eq!((leases.next(), leases.in_flight()), (20, 20));
    assert_eq!(leases.lease_of(19), Some((ANNE, 100)));
    assert_eq!(leases.lease_of(20), None);
}

#[test]
fn an_exact_portion_cuts_a_batch_and_the_next_taker_gets_the_rest() {
    let (mut leases, mut marks) = (Leases::new(0), Vec::new());
    assert_eq!(leases.take(ANNE, &exact(0, &[(0, 9)], 4), &mut marks), [range(0, 3, 1)]);
    assert_eq!(leases.next(), 4);
    assert_eq!(leases.take(BERT, &exact(4, &[(0, 9)], 40), &mut marks), [range(4, 9, 1)]);
}

#[test]
fn ranges_end_where_batches_do_once_they_have_enough_records() {
    let (mut leases, mut marks) = (Leases::new(0), Vec::new());
    let wanted = Take { range_records: 4, ..take(0, &[(0, 2), (3, 5), (6, 8)], 100) };
    assert_eq!(leases.take(ANNE, &wanted, &mut marks), [range(0, 5, 1), range(6, 8, 1)]);
}

#[test]
fn what_is_accepted_in_any_order_moves_the_start_over_its_prefix() {
    let (mut leases, mut marks) = (Leases::new(0), Vec::new());
    leases.take(ANNE, &take(0, &[(0, 9)], 10), &mut marks);
    marks.clear();
    let accept = |first, last| [ack(first, last, Verdict::Accept)];
    leases.acknowledge(1, ANNE, &accept(5, 9), LIMIT, 0, &mut marks).unwrap();
    assert_eq!((leases.start(), leases.done(), leases.in_flight()), (0, 5, 5));
    leases.acknowledge(1, ANNE, &accept(0, 4), LIMIT, 0, &mut marks).unwrap();
    assert_eq!((leases.start(), leases.end(), leases.done()), (10, 10, 0));
    assert_eq!(marks, [mark(5, 9, Outcome::Acknowledged, 1), mark(0, 4, Outcome::Acknowledged, 1)]);
    assert_eq!(leases.deadline(), None);
    // A late retry of what is done already is no fault.
    leases.acknowledge(1, ANNE, &accept(0, 9), LIMIT, 0, &mut marks).unwrap();
}

#[test]
fn one_wrong_offset_refuses_all_that_came_with_it() {
    let (mut leases, mut marks) = (Leases::new(0), Vec::new());
    leases.take(ANNE, &take(0, &[(0, 4)], 5), &mut marks);
    leases.take(BERT, &take(5, &[(5, 9)], 5), &mut marks);
    let acks = [ack(0, 1, Verdict::Accept), ack(4, 5, Verdict::Accept)];
    let refused = leases.acknowledge(1, ANNE, &acks, LIMIT, 0, &mut marks);
    assert_eq!(refused, Err(NotHeld { offset: 5 }));
    assert_eq!(leases.in_flight(), 10);
    let beyond = leases.acknowledge(1, ANNE, &[ack(0, 10, Verdict::Accept)], LIMIT, 0, &mut marks);
    assert_eq!(beyond, Err(NotHeld { offset: 10 }));
    let late = leases.acknowledge(100, ANNE, &[ack(0, 4, Verdict::Accept)], LIMIT, 0, &mut marks);
    assert_eq!(late, Err(NotHeld { offset: 0 }), "a lease ends at its deadline");
}

#[test]
fn a_lease_that_ends_gives_back_what_was_not_dealt_with() {
    let (mut leases, mut marks) = (Leases::new(0), Vec::new());
    leases.take(ANNE, &take(0, &[(0, 9)], 10), &mut marks);
    leases.acknowledge(1, ANNE, &[ack(3, 4, Verdict::Accept)], LIMIT, 0, &mut marks).unwrap();
    let changes = leases.changes();
    leases.expire(99, LIMIT, &mut marks);
    assert_eq!((leases.changes(), leases.deadline()), (changes, Some(100)));
    leases.expire(100, LIMIT, &mut marks);
    assert!(leases.changes() > changes);
    assert_eq!((leases.next(), leases.deadline(), leases.holds(ANNE)), (0, None, false));
    let again = leases.take(BERT, &take(0, &[(0, 9)], 10), &mut marks);
    assert_eq!(again, [range(0, 2, 2), range(5, 9, 2)]);
}

#[test]
fn a_renewed_lease_ends_later_and_is_no_new_delivery() {
    let (mut leases, mut marks) = (Leases::new(0), Vec::new());
    leases.take(ANNE, &take(0, &[(0, 9)], 10), &mut marks);
    marks.clear();
    leases.acknowledge(50, ANNE, &[ack(0, 4, Verdict::Renew)], LIMIT, 200, &mut marks).unwrap();
    assert_eq!(marks, []);
    leases.expire(100, LIMIT, &mut marks);
    assert_eq!((leases.lease_of(4), leases.lease_of(5)), (Some((ANNE, 200)), None));
    leases.acknowledge(150, ANNE, &[ack(0, 4, Verdict::Accept)], LIMIT, 0, &mut marks).unwrap();
    assert_eq!(leases.start(), 5);
}

#[test]
fn what_was_delivered_too_often_is_archived_and_its_neighbours_are_not() {
    let (mut leases, mut marks) = (Leases::new(0), Vec::new());
    let mut sizes = Vec::new();
    // Record 1 of three is poison: whoever gets it releases all that came with it.
    let mut accepted = Vec::new();
    while leases.start() < 3 {
        let from = leases.next();
        let taken = leases.take(ANNE, &take(from, &[(0, 2)], 100), &mut marks);
        let range = taken[0];
        sizes.push((range.first, range.last, range.deliveries));
        let is_poisoned = (range.first..=range.last).contains(&1);
        let verdict = if is_poisoned { Verdict::Release } else { Verdict::Accept };
        if !is_poisoned {
            accepted.extend(range.first..=range.last);
        }
        leases.acknowledge(1, ANNE, &[ack(range.first, range.last, verdict)], LIMIT, 0, &mut marks).unwrap();
    }
    assert_eq!(accepted, [0, 2]);
    assert_eq!(sizes, [(0, 2, 1), (0, 2, 2), (0, 2, 3), (0, 0, 4), (1, 1, 4), (1, 1, 5), (2, 2, 4)]);
    assert!(marks.contains(&mark(1, 1, Outcome::Archived, 5)));
}

#[test]
fn pieces_get_smaller_towards_the_last_attempt() {
    let pieces = |limit| (0..limit).map(|deliveries| isolated(deliveries, limit, 100)).collect::<Vec<_>>();
    assert_eq!(pieces(5), [None, None, None, Some(50), Some(1)]);
    assert_eq!(pieces(2), [None, None]);
    assert_eq!(pieces(8), [None, None, None, None, Some(50), Some(25), Some(12), Some(1)]);
}

#[test]
fn a_full_window_hands_out_nothing_new_but_what_comes_back() {
    let (mut leases, mut marks) = (Leases::new(0), Vec::new());
    let ten = |from, batches: &[(i64, i64)]| Take { max_in_flight: 10, ..take(from, batches, 100) };
    assert_eq!(leases.take(ANNE, &ten(0, &[(0, 4), (5, 9), (10, 14)]), &mut marks), [range(0, 9, 1)]);
    assert_eq!(leases.take(BERT, &ten(10, &[(10, 14)]), &mut marks), []);
    let changes = leases.changes();
    leases.acknowledge(1, ANNE, &[ack(2, 2, Verdict::Release)], LIMIT, 0, &mut marks).unwrap();
    assert!(leases.changes() > changes);
    assert_eq!(leases.take(BERT, &ten(2, &[(0, 4), (5, 9), (10, 14)]), &mut marks), [range(2, 2, 2)]);
    let changes = leases.changes();
    // What is done in the middle makes room, though one record keeps the start where it is.
    leases.acknowledge(1, ANNE, &[ack(3, 9, Verdict::Accept)], LIMIT, 0, &mut marks).unwrap();
    assert!(leases.changes() > changes);
    assert_eq!(leases.take(BERT, &ten(10, &[(10, 14)]), &mut marks), [range(10, 14, 1)]);
    assert_eq!(leases.start(), 0);
}

#[test]
fn offsets_without_records_are_archived_wherever_they_are() {
    let (mut leases, mut marks) = (Leases::new(0), Vec::new());
    let taken = leases.take(ANNE, &take(0, &[(4, 5), (8, 9)], 100), &mut marks);
    assert_eq!(taken, [range(4, 5, 1), range(8, 9, 1)]);
    assert_eq!((leases.start(), leases.done()), (4, 2));
    leases.release(1, ANNE, LIMIT, &mut marks);
    // Compaction has taken the first batch meanwhile.
    assert_eq!(leases.take(ANNE, &take(4, &[(8, 9)], 100), &mut marks), [range(8, 9, 2)]);
    assert_eq!(leases.start(), 8);
    leases.archive_below(20, &mut marks);
    assert_eq!(
        (leases.start(), leases.next(), leases.in_flight()),
        (8, 20, 2),
        "what is with somebody stays"
    );
    leases.acknowledge(1, ANNE, &[ack(8, 9, Verdict::Gap)], LIMIT, 0, &mut marks).unwrap();
    assert_eq!((leases.start(), leases.end()), (20, 20));
}

#[test]
fn a_reader_that_began_behind_the_window_gets_nothing() {
    let (mut leases, mut marks) = (Leases::new(0), Vec::new());
    assert_eq!(leases.take(ANNE, &take(5, &[(5, 9)], 10), &mut marks), []);
    assert_eq!((leases.end(), marks.len()), (0, 0));
}

#[test]
fn marks_make_the_same_window_again() {
    let (mut leases, mut marks) = (Leases::new(7), Vec::new());
    leases.take(ANNE, &take(7, &[(7, 20), (25, 30)], 100), &mut marks);
    let acks = [ack(9, 12, Verdict::Accept), ack(13, 13, Verdict::Reject), ack(25, 26, Verdict::Release)];
    leases.acknowledge(1, ANNE, &acks, LIMIT, 0, &mut marks).unwrap();
    leases.release(1, ANNE, LIMIT, &mut marks);
    leases.take(BERT, &exact(7, &[(7, 20)], 1), &mut marks);
    let mut again = Leases::new(7);
    marks.iter().for_each(|mark| again.apply(mark));
    assert_eq!(lasting(&again), lasting(&leases));
    assert!(!again.holds(BERT), "leases end with the process");
    assert_eq!(again.next(), 7);
    again.raise_start(14);
    assert_eq!((again.start(), again.next(), again.done()), (14, 14, 4));
    again.raise_start(100);
    assert_eq!((again.start(), again.end(), again.done(), again.deadline()), (100, 100, 0, None));
}
