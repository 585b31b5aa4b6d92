//! An ordered map for a million small entries: pages of neighbours, so that an entry costs little more than itself, one that is
//! added in order costs next to nothing, and none costs more than moving a page. Millions go into two levels; there is no third.
//! A page keeps its keys by how far they are from one of them, for which half the room is enough.

use std::collections::VecDeque;
use std::fmt::Debug;

/// Entries of a full page.
const PAGE: usize = 128;

/// Entries that a page makes room for at a time, at most.
const GROWTH: usize = 32;

/// By which part of what is there others are few: they are added one by one.
const FEW_PART: usize = 16;

/// A key that can be kept by how far it is from one like it.
pub(super) trait Near: Ord + Copy + Debug {
    /// How far.
    type Step: Copy + Debug;

    /// `None` if that is too far. A key is always near itself.
    fn step_from(self, base: Self) -> Option<Self::Step>;

    /// The key that is so far from `base`.
    fn at(base: Self, step: Self::Step) -> Self;
}

impl Near for i64 {
    type Step = i32;

    fn step_from(self, base: Self) -> Option<i32> {
        i32::try_from(self.checked_sub(base)?).ok()
    }

    fn at(base: Self, step: i32) -> Self {
        base + Self::from(step)
    }
}

impl Near for (i64, i64) {
    type Step = (i32, i32);

    fn step_from(self, base: Self) -> Option<(i32, i32)> {
        Some((self.0.step_from(base.0)?, self.1.step_from(base.1)?))
    }

    fn at(base: Self, step: (i32, i32)) -> Self {
        (i64::at(base.0, step.0), i64::at(base.1, step.1))
    }
}

/// Neighbours, in order.
#[derive(Clone, Debug)]
struct Page<K: Near, V> {
    /// What steps are counted from. It need not be among them any more.
    base: K,
    entries: Vec<(K::Step, V)>,
}

impl<K: Near, V: Copy> Page<K, V> {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn get(&self, index: usize) -> Option<(K, V)> {
        self.entries.get(index).map(|(step, value)| (K::at(self.base, *step), *value))
    }

    fn first(&self) -> Option<(K, V)> {
        self.get(0)
    }

    fn last(&self) -> Option<(K, V)> {
        self.get(self.len().checked_sub(1)?)
    }

    /// How many are not above `key`.
    fn up_to(&self, key: K) -> usize {
        self.entries.partition_point(|(step, _)| K::at(self.base, *step) <= key)
    }

    /// Where `key` is, or belongs.
    fn search(&self, key: K) -> Result<usize, usize> {
        match self.last() {
            Some((last, _)) if last < key => Err(self.len()),
            _ => self.entries.binary_search_by(|(step, _)| K::at(self.base, *step).cmp(&key)),
        }
    }

    /// Whether it could be added: not if it is too far from the base.
    fn insert(&mut self, index: usize, key: K, value: V) -> bool {
        let Some(step) = key.step_from(self.base) else { return false };
        if self.len() == self.entries.capacity() {
            self.entries.reserve_exact(self.len().clamp(1, GROWTH));
        }
        self.entries.insert(index, (step, value));
        true
    }

    /// Those of `other`, which is above, as far from this one's base; `None` if they are too far.
    fn near(&self, other: &Self) -> Option<Vec<(K::Step, V)>> {
        let near =
            |(step, value): &(K::Step, V)| Some((K::at(other.base, *step).step_from(self.base)?, *value));
        other.entries.iter().map(near).collect()
    }
}

/// The map.
#[derive(Clone, Debug)]
pub(super) struct Sorted<K: Near, V = ()> {
    /// Each holds something; what they hold is in order, and so are they.
    pages: VecDeque<Page<K, V>>,
    /// The first key of each page, side by side: the page of a key is found without a look into any other.
    firsts: VecDeque<K>,
    len: usize,
}

impl<K: Near, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Self { pages: VecDeque::new(), firsts: VecDeque::new(), len: 0 }
    }
}

impl<K: Near, V: Copy> Sorted<K, V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The lowest.
    pub(super) fn first(&self) -> Option<(K, V)> {
        self.pages.front()?.first()
    }

    /// The highest.
    pub(super) fn last(&self) -> Option<(K, V)> {
        self.pages.back()?.last()
    }

    pub(super) fn get(&self, key: K) -> Option<V> {
        self.floor(key).filter(|(found, _)| *found == key).map(|(_, value)| value)
    }

    /// The highest that is not above `key`.
    pub(super) fn floor(&self, key: K) -> Option<(K, V)> {
        let page = &self.pages[self.page_of(key)?];
        page.get(page.up_to(key).checked_sub(1)?)
    }

    /// The highest that is not above `key`, and the lowest key that is.
    pub(super) fn around(&self, key: K) -> Option<(K, V, Option<K>)> {
        let at = self.page_of(key)?;
        let page = &self.pages[at];
        let after = page.up_to(key);
        let (floor, value) = page.get(after.checked_sub(1)?)?;
        let above = page.get(after).map(|(above, _)| above);
        Some((floor, value, above.or_else(|| self.firsts.get(at + 1).copied())))
    }

    /// The lowest that is above `key`.
    pub(super) fn above(&self, key: K) -> Option<(K, V)> {
        let Some(at) = self.page_of(key) else { return self.first() };
        let page = &self.pages[at];
        page.get(page.up_to(key)).or_else(|| self.pages.get(at + 1)?.first())
    }

    /// All, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (K, V)> {
        self.pages
            .iter()
            .flat_map(|page| page.entries.iter().map(|(step, value)| (K::at(page.base, *step), *value)))
    }

    /// Adds an entry, or gives the one that there is another value.
    pub(super) fn insert(&mut self, key: K, value: V) {
        let mut at = self.page_of(key).unwrap_or(0);
        let Some(page) = self.pages.get_mut(at) else {
            self.len = 1;
            return self.insert_page(at, key, value);
        };
        let mut index = match page.search(key) {
            Ok(index) => {
                page.entries[index].1 = value;
                return;
            }
            Err(index) => index,
        };
        let len = page.len();
        self.len += 1;
        if len == PAGE {
            if index == PAGE {
                // What comes in order leaves full pages behind, wherever it is.
                return self.insert_between(at + 1, key, value);
            }
            self.split(at, PAGE / 2);
            if index > PAGE / 2 {
                (at, index) = (at + 1, index - PAGE / 2);
            }
        }
        let page = &mut self.pages[at];
        if page.insert(index, key, value) {
            if index == 0 {
                self.firsts[at] = key;
            }
            return;
        }
        if index > 0 && index < page.len() {
            self.split(at, index);
        }
        self.insert_between(at + usize::from(index > 0), key, value);
    }

    /// Adds what belongs in front of a page: to that, if it is nearly empty, or else as a page of its own.
    fn insert_between(&mut self, at: usize, key: K, value: V) {
        if let Some(next) = self.pages.get_mut(at).filter(|next| next.len() < PAGE / 4)
            && next.insert(0, key, value)
        {
            self.firsts[at] = key;
            return;
        }
        self.insert_page(at, key, value);
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
        self.len -= moved.iter().map(Page::len).sum::<usize>();
        let mut more = more.into_iter().peekable();
        for page in moved {
            for (step, value) in page.entries {
                let key = K::at(page.base, step);
                while let Some((before, value)) = more.next_if(|(before, _)| *before < key) {
                    self.push(before, value);
                }
                self.push(key, value);
            }
        }
        more.for_each(|(key, value)| self.push(key, value));
    }

    /// Adds one that is above all others.
    fn push(&mut self, key: K, value: V) {
        self.len += 1;
        if let Some(last) = self.pages.back_mut().filter(|last| last.len() < PAGE)
            && last.insert(last.len(), key, value)
        {
            return;
        }
        self.insert_page(self.pages.len(), key, value);
    }

    /// Has a page begin, and the one before it end, at an entry.
    fn split(&mut self, at: usize, index: usize) {
        let page = &mut self.pages[at];
        let (base, upper) = (page.base, page.entries[index..].to_vec());
        page.entries.truncate(index);
        page.entries.shrink_to(index + GROWTH);
        self.firsts.insert(at + 1, K::at(base, upper[0].0));
        self.pages.insert(at + 1, Page { base, entries: upper });
    }

    fn insert_page(&mut self, at: usize, key: K, value: V) {
        // Behind a full page another one will soon be: one that grows bit by bit leaves holes in memory.
        let is_behind_full =
            at == self.pages.len() && self.pages.back().is_some_and(|last| last.len() == PAGE);
        let room = if is_behind_full { PAGE } else { 1 };
        let mut page = Page { base: key, entries: Vec::with_capacity(room) };
        let is_near = page.insert(0, key, value);
        assert!(is_near, "{key:?} is near itself");
        self.pages.insert(at, page);
        self.firsts.insert(at, key);
    }

    fn remove_page(&mut self, at: usize) {
        self.firsts.remove(at);
        self.pages.remove(at);
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, key: K) -> Option<V> {
        let at = self.page_of(key)?;
        let page = &mut self.pages[at];
        let index = page.search(key).ok()?;
        let (_, value) = page.entries.remove(index);
        self.len -= 1;
        let Some((first, _)) = page.first() else {
            self.remove_page(at);
            return Some(value);
        };
        self.firsts[at] = first;
        let len = page.len();
        if page.entries.capacity() > 4 * len {
            page.entries.shrink_to(2 * len);
        }
        if len < PAGE / 4
            && let Some(next) = self.pages.get(at + 1).filter(|next| next.len() + len <= PAGE / 2)
            && let Some(moved) = self.pages[at].near(next)
        {
            self.remove_page(at + 1);
            let entries = &mut self.pages[at].entries;
            entries.reserve_exact(moved.len());
            entries.extend(moved);
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
            // With the second a page has room for few, with the third for one: the others are too far.
            distance in prop::sample::select(vec![1i64, 1 << 28, 1 << 40]),
        ) {
            let (mut map, mut model) = (Sorted::default(), BTreeMap::new());
            for (kind, from, count) in steps {
                if kind == 3 {
                    // Those that are not there, downwards.
                    let keys = (from..from + count).rev().map(|key| key * distance);
                    let more: Vec<_> =
                        keys.filter(|key| !model.contains_key(key)).map(|key| (key, from)).collect();
                    map.extend(more.clone());
                    model.extend(more);
                }
                for key in from..from + count {
                    match kind {
                        3 => {}
                        0 => {
                            map.insert(key * distance, from);
                            model.insert(key * distance, from);
                        }
                        1 => prop_assert_eq!(map.remove(key * distance), model.remove(&(key * distance))),
                        // Every other one, downwards.
                        _ => {
                            let key = (from + 2 * (from + count - key)) * distance;
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
                    let key = key * distance;
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
        let room: usize = map.pages.iter().map(|page| page.entries.capacity()).sum();
        assert!(room < 4 * map.len(), "{room} for {}", map.len());
        (0..100_000i64).step_by(10).for_each(|key| assert_eq!(map.remove(key), Some(())));
        assert!(map.is_empty() && map.pages.is_empty());
    }

    #[test]
    fn what_comes_downwards_between_pages_fills_pages_too() {
        let mut map = Sorted::default();
        (0..2 * PAGE as i64).for_each(|key| map.insert(key, ()));
        map.insert(1_000_000, ());
        (1_000..11_000i64).rev().for_each(|key| map.insert(key, ()));
        assert!(map.pages.len() < 10_000 / (PAGE / 4) + 4, "{}", map.pages.len());
        // Too far from all others, but not from each other.
        (1_000..11_000i64).rev().for_each(|key| map.insert((1 << 40) + key, ()));
        (1_000..11_000i64).rev().for_each(|key| map.insert((1 << 39) + key, ()));
        assert!(map.pages.len() < 3 * 10_000 / (PAGE / 4) + 6, "{}", map.pages.len());
    }

    #[test]
    fn what_is_far_from_all_others_takes_no_room_for_more() {
        let far = |key: i64| (key << 40, ());
        let mut map = Sorted::default();
        map.extend((0..1_000).map(far).collect());
        (1_000..2_000).map(far).for_each(|(key, ())| map.insert(key, ()));
        let room: usize = map.pages.iter().map(|page| page.entries.capacity()).sum();
        assert_eq!((map.len(), map.pages.len(), room), (2_000, 2_000, 2_000));
    }
}
