//! An ordered map for a million small entries: pages of neighbours, so that an entry costs little more than itself, one that is
//! added in order costs next to nothing, and none costs more than moving a page. Millions go into two levels; there is no third.

use std::collections::VecDeque;

/// Entries of a full page.
const PAGE: usize = 128;

/// Entries that a page makes room for at a time, at most.
const GROWTH: usize = 32;

/// By which part of what is there others are few: they are added one by one.
const FEW_PART: usize = 16;

/// The map.
#[derive(Clone, Debug)]
pub(super) struct Sorted<K, V = ()> {
    /// Each holds something; what they hold is in order, and so are they.
    pages: VecDeque<Vec<(K, V)>>,
    /// The first key of each page, side by side: the page of a key is found without a look into any other.
    firsts: VecDeque<K>,
    len: usize,
}

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Self { pages: VecDeque::new(), firsts: VecDeque::new(), len: 0 }
    }
}

impl<K: Ord + Copy, V: Copy> Sorted<K, V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The lowest.
    pub(super) fn first(&self) -> Option<(K, V)> {
        self.pages.front().map(|page| page[0])
    }

    /// The highest.
    pub(super) fn last(&self) -> Option<(K, V)> {
        self.pages.back()?.last().copied()
    }

    pub(super) fn get(&self, key: K) -> Option<V> {
        self.floor(key).filter(|(found, _)| *found == key).map(|(_, value)| value)
    }

    /// The highest that is not above `key`.
    pub(super) fn floor(&self, key: K) -> Option<(K, V)> {
        let page = &self.pages[self.page_of(key)?];
        // The page begins at or below the key.
        Some(page[page.partition_point(|(at, _)| *at <= key) - 1])
    }

    /// The highest that is not above `key`, and the lowest key that is.
    pub(super) fn around(&self, key: K) -> Option<(K, V, Option<K>)> {
        let at = self.page_of(key)?;
        let page = &self.pages[at];
        let after = page.partition_point(|(at, _)| *at <= key);
        let (floor, value) = page[after - 1];
        let above = page.get(after).map(|(above, _)| *above);
        Some((floor, value, above.or_else(|| self.firsts.get(at + 1).copied())))
    }

    /// The lowest that is above `key`.
    pub(super) fn above(&self, key: K) -> Option<(K, V)> {
        let Some(at) = self.page_of(key) else { return self.first() };
        let page = &self.pages[at];
        let after = page.partition_point(|(at, _)| *at <= key);
        page.get(after).or_else(|| self.pages.get(at + 1)?.first()).copied()
    }

    /// All, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (K, V)> {
        self.pages.iter().flatten().copied()
    }

    /// Adds an entry, or gives the one that there is another value.
    pub(super) fn insert(&mut self, key: K, value: V) {
        let Some(last) = self.pages.len().checked_sub(1) else {
            self.push_page(key, value);
            self.len = 1;
            return;
        };
        let mut at = self.page_of(key).unwrap_or(0);
        let page = &self.pages[at];
        let found = match page[page.len() - 1].0 < key {
            true => Err(page.len()),
            false => page.binary_search_by(|(at, _)| at.cmp(&key)),
        };
        let mut index = match found {
            Ok(index) => {
                self.pages[at][index].1 = value;
                return;
            }
            Err(index) => index,
        };
        self.len += 1;
        if self.pages[at].len() == PAGE {
            if index == PAGE && at == last {
                // What comes in order leaves full pages behind.
                self.push_page(key, value);
                return;
            }
            let page = &mut self.pages[at];
            let upper = page[PAGE / 2..].to_vec();
            page.truncate(PAGE / 2);
            page.shrink_to(PAGE / 2 + GROWTH);
            self.firsts.insert(at + 1, upper[0].0);
            self.pages.insert(at + 1, upper);
            if index > PAGE / 2 {
                (at, index) = (at + 1, index - PAGE / 2);
            }
        }
        let page = &mut self.pages[at];
        if page.len() == page.capacity() {
            page.reserve_exact(page.len().clamp(1, GROWTH));
        }
        page.insert(index, (key, value));
        if index == 0 {
            self.firsts[at] = key;
        }
    }

    /// Adds entries, none of which is there; if they are many, by putting in order anew what is not below all of them.
    pub(super) fn extend(&mut self, mut more: Vec<(K, V)>) {
        more.sort_unstable_by_key(|(key, _)| *key);
        let Some((lowest, _)) = more.first().copied() else { return };
        if more.len() < self.len / FEW_PART {
            return more.into_iter().for_each(|(key, value)| self.insert(key, value));
        }
        let from = self.page_of(lowest).unwrap_or(0);
        self.firsts.truncate(from);
        let moved = self.pages.split_off(from);
        self.len -= moved.iter().map(Vec::len).sum::<usize>();
        let mut more = more.into_iter().peekable();
        for (key, value) in moved.into_iter().flatten() {
            while let Some((before, value)) = more.next_if(|(before, _)| *before < key) {
                self.push(before, value);
            }
            self.push(key, value);
        }
        more.for_each(|(key, value)| self.push(key, value));
    }

    /// Adds one that is above all others.
    fn push(&mut self, key: K, value: V) {
        self.len += 1;
        match self.pages.back_mut() {
            Some(last) if last.len() < PAGE => {
                if last.len() == last.capacity() {
                    last.reserve_exact(PAGE - last.len());
                }
                last.push((key, value));
            }
            _ => self.push_page(key, value),
        }
    }

    fn push_page(&mut self, key: K, value: V) {
        self.pages.push_back(vec![(key, value)]);
        self.firsts.push_back(key);
    }

    fn remove_page(&mut self, at: usize) -> Vec<(K, V)> {
        self.firsts.remove(at);
        self.pages.remove(at).unwrap_or_default()
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, key: K) -> Option<V> {
        let at = self.page_of(key)?;
        let page = &mut self.pages[at];
        let index = page.binary_search_by(|(at, _)| at.cmp(&key)).ok()?;
        let (_, value) = page.remove(index);
        self.len -= 1;
        let Some((first, _)) = page.first() else {
            self.remove_page(at);
            return Some(value);
        };
        self.firsts[at] = *first;
        let len = page.len();
        if page.capacity() > 2 * len + GROWTH {
            page.shrink_to(len + GROWTH / 2);
        }
        if len < PAGE / 4 && self.pages.get(at + 1).is_some_and(|next| next.len() + len <= PAGE / 2) {
            let next = self.remove_page(at + 1);
            self.pages[at].reserve_exact(next.len());
            self.pages[at].extend(next);
        }
        Some(value)
    }

    /// The page that begins at or below `key`, and the next above it.
    fn page_of(&self, key: K) -> Option<usize> {
        if *self.firsts.back()? <= key {
            // Where what comes in order goes.
            return Some(self.firsts.len() - 1);
        }
        self.firsts.partition_point(|first| *first <= key).checked_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_map_that_it_stands_for(
            steps in prop::collection::vec((0..4u8, 0..2_000i64, 1..300i64), 1..60),
        ) {
            let (mut map, mut model) = (Sorted::default(), BTreeMap::new());
            for (kind, from, count) in steps {
                if kind == 3 {
                    // Those that are not there, downwards.
                    let more: Vec<_> =
                        (from..from + count).rev().filter(|key| !model.contains_key(key)).map(|key| (key, from)).collect();
                    map.extend(more.clone());
                    model.extend(more);
                }
                for key in from..from + count {
                    match kind {
                        3 => {}
                        0 => {
                            map.insert(key, from);
                            model.insert(key, from);
                        }
                        1 => prop_assert_eq!(map.remove(key), model.remove(&key)),
                        // Every other one, downwards.
                        _ => {
                            let key = from + 2 * (from + count - key);
                            map.insert(key, key);
                            model.insert(key, key);
                        }
                    }
                }
                prop_assert_eq!(map.len(), model.len());
                prop_assert!(map.iter().eq(model.iter().map(|(key, value)| (*key, *value))));
                prop_assert_eq!(map.last(), model.last_key_value().map(|(key, value)| (*key, *value)));
                prop_assert_eq!(map.first(), model.first_key_value().map(|(key, value)| (*key, *value)));
                for key in [from - 1, from, from + count / 2, from + count] {
                    let floor = model.range(..=key).next_back().map(|(key, value)| (*key, *value));
                    let above = model.range(key + 1..).next().map(|(key, value)| (*key, *value));
                    prop_assert_eq!((map.floor(key), map.above(key)), (floor, above));
                    let around = floor.map(|(floor, value)| (floor, value, above.map(|(above, _)| above)));
                    prop_assert_eq!(map.around(key), around);
                    prop_assert_eq!(map.get(key), model.get(&key).copied());
                }
            }
        }
    }

    #[test]
    fn pages_are_full_after_orderly_growth_and_never_nearly_empty() {
        let mut map = Sorted::default();
        (0..100_000i64).for_each(|key| map.insert(key, ()));
        assert_eq!(map.pages.len(), 100_000usize.div_ceil(PAGE));
        for key in (0..100_000i64).filter(|key| key % 10 != 0) {
            assert_eq!(map.remove(key), Some(()));
        }
        let room: usize = map.pages.iter().map(Vec::capacity).sum();
        assert!(room < 4 * map.len(), "{room} for {}", map.len());
        (0..100_000i64).step_by(10).for_each(|key| assert_eq!(map.remove(key), Some(())));
        assert!(map.is_empty() && map.pages.is_empty());
    }
}
