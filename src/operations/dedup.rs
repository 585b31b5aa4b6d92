//! Which messages repeat an earlier one: the ids that a partition of a queue has seen within its window.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hash, RandomState};
use std::ops::Range;

use hashbrown::HashTable;
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::clock::TimestampMs;

/// A deduplication id, with the key if it counts only within one: 128 bits of hash, which no two ids share by chance.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct DedupId([u64; 2]);

impl DedupId {
    /// Of `id`, among messages of `key` if that is given.
    pub(super) fn of(id: &[u8], key: Option<&[u8]>) -> Self {
        let mut hasher = SipHasher13::new();
        (key, id).hash(&mut hasher);
        let hash = hasher.finish128();
        Self([hash.h1, hash.h2])
    }
}

/// Ids for which there may be room when there are fewer.
const FEW: usize = 1 << 10;

/// The first message of an id.
#[derive(Debug)]
struct First {
    id: DedupId,
    offset: i64,
    at: TimestampMs,
}

/// The ids of one partition, and where the first message of each lies: some 40 bytes for each, since there are as many as a queue
/// is sent within minutes.
#[derive(Default, Debug)]
pub(super) struct Dedup {
    /// In the order in which they came.
    firsts: VecDeque<First>,
    /// How many came before them, modulo 2^32, as all numbers of them are.
    forgotten: u32,
    /// The number of each id's latest.
    numbers: HashTable<u32>,
    hashes: RandomState,
    /// Of what the log had before it was looked at first, what has not been seen; `None` before.
    pub(super) unseen: Option<Range<i64>>,
}

impl Dedup {
    fn number_of(&self, id: DedupId) -> Option<u32> {
        self.numbers.find(self.hashes.hash_one(id), |number| self.first(*number).id == id).copied()
    }

    fn first(&self, number: u32) -> &First {
        first_at(&self.firsts, self.forgotten, number)
    }

    /// The first message of that id that came less than `window_ms` before `at`.
    pub(super) fn first_of(&self, id: DedupId, at: TimestampMs, window_ms: i64) -> Option<i64> {
        let first = self.first(self.number_of(id)?);
        (at.saturating_sub(first.at) < window_ms).then_some(first.offset)
    }

    /// The message at `offset`, of time `at`, has that id. Whether it repeats one before it.
    pub(super) fn saw(&mut self, id: DedupId, offset: i64, at: TimestampMs, window_ms: i64) -> bool {
        self.forget_before(at.saturating_sub(window_ms));
        match self.first_of(id, at, window_ms) {
            Some(first) if first <= offset => first < offset,
            // This one came before: of those that both of their senders think were first, one is.
            _ => {
                self.add(First { id, offset, at });
                false
            }
        }
    }

    fn add(&mut self, first: First) {
        let Self { firsts, forgotten, numbers, hashes, .. } = self;
        let (id, hash) = (first.id, hashes.hash_one(first.id));
        let number = forgotten.wrapping_add(firsts.len() as u32);
        firsts.push_back(first);
        match numbers.find_mut(hash, |other| first_at(firsts, *forgotten, *other).id == id) {
            Some(latest) => *latest = number,
            None => {
                let hash_of = |other: &u32| hashes.hash_one(first_at(firsts, *forgotten, *other).id);
                numbers.insert_unique(hash, number, hash_of);
            }
        }
    }

    fn forget(&mut self, id: DedupId, number: u32) {
        if let Ok(entry) = self.numbers.find_entry(self.hashes.hash_one(id), |other| *other == number) {
            entry.remove();
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
        if let Some(number) = self.number_of(id).filter(|number| self.first(*number).offset == offset) {
            self.forget(id, number);
        }
    }

    /// Forgets all, also what was not seen, as a purge does.
    pub(super) fn clear(&mut self) {
        *self = Self { unseen: Some(0..0), ..Self::default() };
    }

    fn forget_before(&mut self, time: TimestampMs) {
        while let Some(First { id, .. }) = self.firsts.pop_front_if(|first| first.at <= time) {
            let number = self.forgotten;
            self.forgotten = number.wrapping_add(1);
            self.forget(id, number);
        }
        let len = self.firsts.len();
        if self.firsts.capacity() > FEW.max(4 * len) {
            let Self { firsts, forgotten, numbers, hashes, .. } = self;
            firsts.shrink_to(2 * len);
            numbers.shrink_to(2 * len, |number| hashes.hash_one(first_at(firsts, *forgotten, *number).id));
        }
    }
}

/// The one of that number.
fn first_at(firsts: &VecDeque<First>, forgotten: u32, number: u32) -> &First {
    &firsts[number.wrapping_sub(forgotten) as usize]
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_repeats_something_is_known_however_many_come_and_go(
            steps in prop::collection::vec((0..500u16, 0..3i64, 0..20i64), 1..3_000),
        ) {
            let window = 1_000;
            // Almost all that can be counted has come before.
            let mut dedup = Dedup { forgotten: u32::MAX - 700, ..Dedup::default() };
            let (mut model, mut at) = (HashMap::<u16, (i64, i64)>::new(), 0);
            for ((number, earlier, later), next) in steps.into_iter().zip(10i64..) {
                let (id, offset) = (DedupId::of(&number.to_le_bytes(), None), next - earlier);
                at += later;
                let first = model.get(&number).filter(|(_, since)| at - since < window).map(|(first, _)| *first);
                prop_assert_eq!(dedup.first_of(id, at, window), first);
                prop_assert_eq!(dedup.saw(id, offset, at, window), first.is_some_and(|first| first < offset));
                if first.is_none_or(|first| first > offset) {
                    model.insert(number, (offset, at));
                } else if earlier == 2 {
                    dedup.take_back(id, first.unwrap_or(offset));
                    model.remove(&number);
                }
                prop_assert!(dedup.numbers.len() <= dedup.firsts.len());
            }
        }
    }

    #[test]
    fn what_is_forgotten_leaves_no_room_behind() {
        let mut dedup = Dedup::default();
        for number in 0..100_000i64 {
            dedup.saw(DedupId::of(&number.to_le_bytes(), None), number, number, 200_000);
        }
        dedup.saw(DedupId::of(b"", None), 100_000, 299_990, 200_000);
        assert_eq!((dedup.firsts.len(), dedup.numbers.len()), (10, 10));
        assert!(dedup.firsts.capacity() <= FEW && dedup.numbers.capacity() <= FEW);
    }

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
        assert_eq!((dedup.firsts.len(), dedup.numbers.len()), (1, 1));
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
