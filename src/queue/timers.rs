//! What is due when: a million times cost little more than themselves, and to take in many at once, little more than to sort them.

use super::sorted::Sorted;
use crate::clock::TimestampMs;

/// Times that may be new and out of order, however few there are in order.
const FRESH: usize = 64;

/// By this part of those that are in order others may be new.
const FRESH_PART: usize = 8;

/// The times at which something is due at an offset.
#[derive(Clone, Debug, Default)]
pub(super) struct Timers {
    sorted: Sorted<(TimestampMs, i64)>,
    /// Those that are in no order yet.
    fresh: Vec<(TimestampMs, i64)>,
    /// The first of them.
    fresh_first: Option<(TimestampMs, i64)>,
}

impl Timers {
    /// What is due next.
    pub(super) fn first(&self) -> Option<(TimestampMs, i64)> {
        let sorted = self.sorted.first().map(|(timer, ())| timer);
        [sorted, self.fresh_first].into_iter().flatten().min()
    }

    /// Adds one, which must not be there.
    pub(super) fn insert(&mut self, timer: (TimestampMs, i64)) {
        // Many that come in order need no sorting.
        if self.sorted.last().is_some_and(|(last, ())| last < timer) {
            return self.sorted.insert(timer, ());
        }
        self.fresh.push(timer);
        self.fresh_first = Some(self.fresh_first.map_or(timer, |first| first.min(timer)));
        if self.fresh.len() > FRESH.max(self.sorted.len() / FRESH_PART) {
            self.settle();
        }
    }

    /// Takes one out, if it is there.
    pub(super) fn remove(&mut self, timer: (TimestampMs, i64)) {
        if self.fresh.len() > FRESH {
            self.settle();
        }
        match self.fresh.iter().rposition(|fresh| *fresh == timer) {
            Some(at) => {
                self.fresh.swap_remove(at);
                if self.fresh_first == Some(timer) {
                    self.fresh_first = self.fresh.iter().min().copied();
                }
            }
            None => drop(self.sorted.remove(timer)),
        }
    }

    /// Puts what is new in order.
    fn settle(&mut self) {
        self.fresh_first = None;
        self.sorted.extend(std::mem::take(&mut self.fresh).into_iter().map(|timer| (timer, ())).collect());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_due_next_is_known_however_it_came(
            steps in prop::collection::vec((any::<bool>(), 0..50i64, 1..400i64), 1..40),
        ) {
            let (mut timers, mut model) = (Timers::default(), BTreeSet::new());
            for (is_insert, time, count) in steps {
                for offset in 0..count {
                    let timer = (time + offset * 7 % 31, offset);
                    if !is_insert {
                        timers.remove(timer);
                        model.remove(&timer);
                    } else if model.insert(timer) {
                        timers.insert(timer);
                    }
                    prop_assert_eq!(timers.first(), model.first().copied());
                }
            }
            while let Some(first) = timers.first() {
                prop_assert_eq!(model.pop_first(), Some(first));
                timers.remove(first);
            }
            prop_assert!(model.is_empty());
        }
    }
}
