//! A look at what is not done, which changes nothing.

use super::{Leases, State};
use crate::clock::TimestampMs;

/// Neighbouring records that are alike, and not done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// First record.
    pub first: i64,
    /// Last record, inclusive.
    pub last: i64,
    /// How often they have been handed out.
    pub deliveries: u16,
    /// What they wait for.
    pub condition: Condition,
}

/// What a record that is not done waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    /// A receiver, or the turn of its key.
    Ready,
    /// Whoever has it.
    Leased {
        /// Until when.
        until: TimestampMs,
    },
    /// A time, as it is delayed or backing off.
    Waiting {
        /// Which.
        until: TimestampMs,
    },
    /// Whoever moves what nobody could deal with.
    Dead,
}

impl Leases {
    /// What is not done of the window from `from` on, in the order of offsets: at most `max_records`.
    pub fn inspect(&self, from: i64, max_records: usize) -> Vec<Standing> {
        let mut found: Vec<Standing> = Vec::new();
        let mut left = i64::try_from(max_records).unwrap_or(i64::MAX);
        let mut at = from.max(self.start);
        while left > 0
            && let Some((_, run)) = self.find(at)
        {
            let first = at;
            at = run.last + 1;
            let condition = match run.state {
                State::Available => Condition::Ready,
                State::Leased { until, .. } => Condition::Leased { until },
                State::Waiting { until } => Condition::Waiting { until },
                State::Dead { .. } => Condition::Dead,
                State::Acknowledged | State::Archived => continue,
            };
            let last = run.last.min(first.saturating_add(left - 1));
            left -= last - first + 1;
            match found.last_mut() {
                Some(before)
                    if before.last + 1 == first
                        && (before.condition, before.deliveries) == (condition, run.deliveries) =>
                {
                    before.last = last;
                }
                _ => found.push(Standing { first, last, deliveries: run.deliveries, condition }),
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::leases::{Cause, Holder, Mark, Outcome, Portion, Take};

    fn window() -> Leases {
        let mut leases = Leases::new(10);
        let outcomes = [
            (12, Outcome::Available, 0),
            (13, Outcome::Acknowledged, 1),
            (15, Outcome::Leased { until: 50 }, 1),
            (16, Outcome::Leased { until: 50 }, 2),
            (17, Outcome::Archived, 0),
            (19, Outcome::Waiting { until: 70 }, 2),
            (21, Outcome::Dead { cause: Cause::Failed }, 3),
            (22, Outcome::Dead { cause: Cause::GaveWay }, 3),
        ];
        let mut first = 10;
        for (last, outcome, deliveries) in outcomes {
            leases.apply(&Mark { first, last, outcome, deliveries });
            first = last + 1;
        }
        leases
    }

    fn standing(first: i64, last: i64, deliveries: u16, condition: Condition) -> Standing {
        Standing { first, last, deliveries, condition }
    }

    #[test]
    fn all_that_is_not_done_is_there_in_order_and_stays_as_it_is() {
        let mut leases = window();
        let all = [
            standing(10, 12, 0, Condition::Ready),
            standing(14, 15, 1, Condition::Leased { until: 50 }),
            standing(16, 16, 2, Condition::Leased { until: 50 }),
            standing(18, 19, 2, Condition::Waiting { until: 70 }),
            standing(20, 22, 3, Condition::Dead),
        ];
        let before = (leases.marks(), leases.counts(), leases.deadline(), leases.changes());
        assert_eq!(leases.inspect(0, usize::MAX), all);
        assert_eq!((leases.marks(), leases.counts(), leases.deadline(), leases.changes()), before);
        leases.take_dead(0, 2, 30);
        assert_eq!(leases.inspect(i64::MIN, 100), all, "with its mover it is as dead");
    }

    #[test]
    fn a_look_begins_and_ends_in_the_middle_of_a_run() {
        let leases = window();
        assert_eq!(leases.inspect(11, 1), [standing(11, 11, 0, Condition::Ready)]);
        let three = leases.inspect(12, 3);
        assert_eq!(
            three,
            [standing(12, 12, 0, Condition::Ready), standing(14, 15, 1, Condition::Leased { until: 50 })]
        );
        assert_eq!(leases.inspect(22, 9), [standing(22, 22, 3, Condition::Dead)]);
        assert_eq!((leases.inspect(10, 0), leases.inspect(23, 9)), (vec![], vec![]));
    }

    #[test]
    fn neighbours_with_different_holders_that_are_otherwise_alike_are_one() {
        let mut leases = Leases::new(0);
        let mut marks = Vec::new();
        for (first, holder) in [(0, Holder(1)), (3, Holder(2))] {
            let take = Take {
                from: first,
                batches: vec![(first, first + 2)],
                max_records: 3,
                range_records: 3,
                portion: Portion::Exact,
                until: 9,
                delivery_limit: 5,
                max_in_flight: 100,
            };
            leases.take(holder, &take, &mut marks);
        }
        assert_eq!(leases.inspect(0, 100), [standing(0, 5, 1, Condition::Leased { until: 9 })]);
    }
}
