//! Which messages repeat an earlier one: the ids that a partition of a queue has seen within its window.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::ops::Range;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::clock::TimestampMs;

/// A deduplication id, with the key if it counts only within one: 128 bits of hash, which no two ids share by chance.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct DedupId(u128);

impl DedupId {
    /// Of `id`, among messages of `key` if that is given.
    pub(super) fn of(id: &[u8], key: Option<&[u8]>) -> Self {
        let mut hasher = SipHasher13::new();
        (key, id).hash(&mut hasher);
        Self(hasher.finish128().as_u128())
    }
}

/// The ids of one partition, and where the first message of each lies.
#[derive(Default, Debug)]
pub(super) struct Dedup {
    seen: HashMap<DedupId, (i64, TimestampMs)>,
    /// In the order in which they came.
    order: VecDeque<(TimestampMs, DedupId)>,
    /// Of what the log had before it was looked at first, what has not been seen; `None` before.
    pub(super) unseen: Option<Range<i64>>,
}

impl Dedup {
    /// The first message of that id that came less than `window_ms` before `at`.
    pub(super) fn first_of(&self, id: DedupId, at: TimestampMs, window_ms: i64) -> Option<i64> {
        let (offset, since) = self.seen.get(&id)?;
        (at.saturating_sub(*since) < window_ms).then_some(*offset)
    }

    /// The message at `offset`, of time `at`, has that id. Whether it repeats one before it.
    pub(super) fn saw(&mut self, id: DedupId, offset: i64, at: TimestampMs, window_ms: i64) -> bool {
        self.forget_before(at.saturating_sub(window_ms));
        match self.first_of(id, at, window_ms) {
            Some(first) if first > offset => {
                // This one came before: of those that both of their senders think were first, one is.
                self.seen.insert(id, (offset, at));
                false
            }
            Some(first) => first < offset,
            None => {
                self.seen.insert(id, (offset, at));
                self.order.push_back((at, id));
                false
            }
        }
    }

    /// All that the log has of these offsets has been shown.
    pub(super) fn saw_all(&mut self, offsets: Range<i64>) {
        if let Some(unseen) = self.unseen.as_mut().filter(|unseen| unseen.start >= offsets.start) {
            unseen.start = unseen.start.max(offsets.end);
        }
    }

    /// The message at `offset` will not be there after all.
    pub(super) fn take_back(&mut self, id: DedupId, offset: i64) {
        if self.seen.get(&id).is_some_and(|(first, _)| *first == offset) {
            self.seen.remove(&id);
        }
    }

    /// Forgets all, also what was not seen, as a purge does.
    pub(super) fn clear(&mut self) {
        self.unseen = Some(0..0);
        self.seen.clear();
        self.order.clear();
    }

    fn forget_before(&mut self, time: TimestampMs) {
        while let Some((at, id)) = self.order.pop_front_if(|(at, _)| *at <= time) {
            if self.seen.get(&id).is_some_and(|(_, since)| *since == at) {
                self.seen.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: i64 = 300_000;

    #[test]
    fn an_id_counts_for_a_window_from_its_first_message() {
        let (mut dedup, id) = (Dedup::default(), DedupId::of(b"a", None));
        assert!(!dedup.saw(id, 10, 1_000, WINDOW));
        assert!(dedup.saw(id, 11, 2_000, WINDOW), "a repetition");
        assert_eq!(dedup.first_of(id, 3_000, WINDOW), Some(10));
        assert!(!dedup.saw(id, 10, 1_000, WINDOW), "looked at again, the first one is still the first");
        assert!(!dedup.saw(id, 12, 1_000 + WINDOW, WINDOW), "the repetition has not made the window longer");
        assert_eq!(dedup.first_of(id, 1_001 + WINDOW, WINDOW), Some(12));
        assert_eq!(dedup.order.len(), 1);
    }

    #[test]
    fn of_two_that_were_thought_first_the_earlier_is() {
        let (mut dedup, id) = (Dedup::default(), DedupId::of(b"a", None));
        assert!(!dedup.saw(id, 6, 1_000, WINDOW), "sent by one that had not seen the other");
        assert!(!dedup.saw(id, 5, 990, WINDOW));
        assert!(dedup.saw(id, 6, 1_000, WINDOW));
    }

    #[test]
    fn ids_are_of_a_key_if_asked() {
        let mut dedup = Dedup::default();
        assert!(!dedup.saw(DedupId::of(b"a", Some(b"x")), 0, 0, WINDOW));
        assert!(!dedup.saw(DedupId::of(b"a", Some(b"y")), 1, 0, WINDOW));
        assert!(!dedup.saw(DedupId::of(b"a", None), 2, 0, WINDOW));
        assert!(dedup.saw(DedupId::of(b"a", Some(b"y")), 3, 0, WINDOW));
    }

    #[test]
    fn what_was_shown_from_where_nothing_was_seen_on_is_seen() {
        let mut dedup = Dedup { unseen: Some(10..50), ..Dedup::default() };
        dedup.saw_all(20..30);
        assert_eq!(dedup.unseen, Some(10..50), "there is more before");
        dedup.saw_all(5..20);
        assert_eq!(dedup.unseen, Some(20..50));
        dedup.saw_all(0..15);
        assert_eq!(dedup.unseen, Some(20..50));
        dedup.clear();
        assert!(dedup.unseen.unwrap().is_empty());
    }

    #[test]
    fn what_was_not_stored_is_no_first() {
        let (mut dedup, id) = (Dedup::default(), DedupId::of(b"a", None));
        dedup.saw(id, 5, 0, WINDOW);
        dedup.take_back(id, 4);
        assert_eq!(dedup.first_of(id, 1, WINDOW), Some(5));
        dedup.take_back(id, 5);
        assert_eq!(dedup.first_of(id, 1, WINDOW), None);
        dedup.saw(id, 6, 1, WINDOW);
        dedup.clear();
        assert_eq!(dedup.first_of(id, 2, WINDOW), None);
    }
}
