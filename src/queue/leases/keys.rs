//! The keys that records of a window have, found by their hashes: 28 bytes each, and 2 to 4 to find it by. Buckets come and go one
//! at a time (linear hashing), so that no key has to wait until a million others have moved.

use std::num::NonZeroU32;

use super::kinds::LEVELS_MAX;

/// Keys that a bucket has on average, at most.
const KEYS_A_BUCKET: usize = 2;

/// Room that may stay for so many keys while there is none.
const FEW: usize = 8;

/// A key that some record has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct KeyId(NonZeroU32);

impl KeyId {
    /// That of a place among others.
    pub(super) fn at(index: usize) -> Self {
        let number = u32::try_from(index).unwrap_or(u32::MAX - 1);
        Self(NonZeroU32::MIN.saturating_add(number))
    }

    pub(super) fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// A run in a line: what orders it first, above its first offset. No log has so many records that this is not enough.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Stand(u64);

/// Of a stand, those of the first offset.
const OFFSET_BITS: u32 = 60;

impl Stand {
    /// Above all others.
    pub(super) const NONE: Self = Self(u64::MAX);

    pub(super) fn new(rank: u8, first: i64) -> Self {
        Self(u64::from(rank) << OFFSET_BITS | first.cast_unsigned() & ((1 << OFFSET_BITS) - 1))
    }

    pub(super) fn rank(self) -> u8 {
        (self.0 >> OFFSET_BITS) as u8
    }

    pub(super) fn first(self) -> i64 {
        (self.0 & ((1 << OFFSET_BITS) - 1)).cast_signed()
    }
}

/// What is known of a key. Packed, since there may be a million: with the rest of it aligned it would be four bytes more.
#[derive(Clone, Copy, Debug)]
#[repr(Rust, packed(4))]
pub(super) struct Key {
    /// In the bits that are [`RINGS`], the levels in whose ring it stands.
    hash_and_rings: u64,
    /// The run that is first in its line.
    pub(super) front: Stand,
    /// Records that are with somebody: not more than may be in flight.
    pub(super) leased: u32,
    /// Who needs it known: mostly runs.
    pub(super) refs: u32,
    /// The next of its bucket, or the next that is free.
    next: Option<KeyId>,
}

/// The bits of a hash that do not count: keys that differ in no other wait for each other. Of a million keys, two do in one of
/// thirty thousand queues.
const RINGS: u64 = !(u64::MAX >> LEVELS_MAX);

impl Key {
    fn new(hash: u64, next: Option<KeyId>) -> Self {
        Self { hash_and_rings: hash, front: Stand::NONE, leased: 0, refs: 0, next }
    }

    fn hash(&self) -> u64 {
        self.hash_and_rings & !RINGS
    }

    /// The bit of a level's ring.
    fn ring(priority: u8) -> u64 {
        (1 << (u64::BITS - 1)) >> priority
    }

    /// Whether it did not stand in the ring of a level.
    pub(super) fn enter_ring(&mut self, priority: u8) -> bool {
        let was_there = self.hash_and_rings & Self::ring(priority) != 0;
        self.hash_and_rings |= Self::ring(priority);
        !was_there
    }

    /// Whether it stood there.
    pub(super) fn leave_ring(&mut self, priority: u8) -> bool {
        let was_there = self.hash_and_rings & Self::ring(priority) != 0;
        self.hash_and_rings &= !Self::ring(priority);
        was_there
    }
}

/// See the module.
#[derive(Clone, Default, Debug)]
pub(super) struct Keys {
    keys: Vec<Key>,
    /// Those that are known.
    len: usize,
    free: Option<KeyId>,
    /// The first key of each.
    buckets: Vec<Option<KeyId>>,
}

impl std::ops::Index<KeyId> for Keys {
    type Output = Key;

    fn index(&self, id: KeyId) -> &Key {
        &self.keys[id.index()]
    }
}

impl std::ops::IndexMut<KeyId> for Keys {
    fn index_mut(&mut self, id: KeyId) -> &mut Key {
        &mut self.keys[id.index()]
    }
}

impl Keys {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// What is known of a key, if it is.
    pub(super) fn get(&self, id: KeyId) -> Option<&Key> {
        self.keys.get(id.index())
    }

    /// The key with that hash, which nobody may need yet.
    pub(super) fn open(&mut self, hash: u64) -> KeyId {
        let hash = hash & !RINGS;
        self.find(hash).unwrap_or_else(|| self.add(hash))
    }

    fn find(&self, hash: u64) -> Option<KeyId> {
        let mut next = *self.buckets.get(self.bucket_of(hash))?;
        while let Some(id) = next
            && self[id].hash() != hash
        {
            next = self[id].next;
        }
        next
    }

    fn add(&mut self, hash: u64) -> KeyId {
        let key = Key::new(hash, None);
        let id = match self.free {
            Some(id) => {
                self.free = self[id].next;
                self[id] = key;
                id
            }
            None => {
                self.keys.push(key);
                KeyId::at(self.keys.len() - 1)
            }
        };
        self.len += 1;
        if self.len > KEYS_A_BUCKET * self.buckets.len() {
            self.add_bucket();
        }
        self.link(id);
        id
    }

    /// Forgets a key. Whoever still names it, or any other if it was the last, may only [`get`](Self::get) it.
    pub(super) fn remove(&mut self, id: KeyId) {
        let bucket = self.bucket_of(self[id].hash());
        let next = self[id].next;
        if self.buckets[bucket] == Some(id) {
            self.buckets[bucket] = next;
        } else {
            let mut before = self.buckets[bucket];
            while let Some(other) = before {
                before = self[other].next;
                if before == Some(id) {
                    self[other].next = next;
                    break;
                }
            }
        }
        self.len -= 1;
        // Then it is found to stand nowhere.
        self[id] = Key::new(0, self.free);
        self.free = Some(id);
        if self.len == 0 && self.keys.len() > FEW {
            *self = Self::default();
        } else if self.buckets.len() > self.len + FEW {
            self.remove_bucket();
        }
    }

    /// One of the buckets that there are: by as many bits of the hash as tell them apart, or by one less, if that one is not there yet.
    fn bucket_of(&self, hash: u64) -> usize {
        let mask = self.buckets.len().next_power_of_two() - 1;
        let bucket = hash as usize & mask;
        if bucket < self.buckets.len() { bucket } else { bucket & mask >> 1 }
    }

    fn link(&mut self, id: KeyId) {
        let bucket = self.bucket_of(self[id].hash());
        self[id].next = self.buckets[bucket].replace(id);
    }

    /// The keys of one bucket go into two.
    fn add_bucket(&mut self) {
        let added = self.buckets.len();
        // It differs from the new one in its highest bit.
        let split = if added == 0 { 0 } else { added & !(1 << added.ilog2()) };
        self.buckets.push(None);
        let first = self.buckets[split].take();
        self.link_chain(first);
    }

    /// The keys of the last bucket go where they were before there was one.
    fn remove_bucket(&mut self) {
        if let Some(first) = self.buckets.pop() {
            self.link_chain(first);
        }
        if self.buckets.capacity() > 4 * self.buckets.len() {
            self.buckets.shrink_to(2 * self.buckets.len());
        }
    }

    fn link_chain(&mut self, first: Option<KeyId>) {
        let mut next = first;
        while let Some(id) = next {
            next = self[id].next;
            self.link(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_is_known_by_its_hash_until_it_is_removed(
            steps in prop::collection::vec((any::<bool>(), 0..400u64, 1..300u64), 1..40),
            factor in prop::sample::select(vec![1u64, 0x9e37_79b9_7f4a_7c15]),
        ) {
            let (mut keys, mut model) = (Keys::default(), HashMap::new());
            for (is_add, from, count) in steps {
                for number in from..from + count {
                    let hash = number.wrapping_mul(factor);
                    if is_add {
                        let id = keys.open(hash);
                        let before = model.insert(number, id);
                        prop_assert!(before.is_none_or(|before| before == id));
                        // What it says goes with it to other buckets.
                        keys[id].leased = number as u32;
                    } else if let Some(id) = model.remove(&number) {
                        keys.remove(id);
                    }
                }
                prop_assert_eq!(keys.len(), model.len());
                for (number, id) in &model {
                    prop_assert_eq!(keys.find(number.wrapping_mul(factor) & !RINGS), Some(*id));
                    let leased = keys[*id].leased;
                    prop_assert_eq!(u64::from(leased), *number);
                }
                prop_assert!(keys.buckets.len() <= model.len() + FEW && model.len() <= 2 * keys.buckets.len());
            }
        }
    }

    #[test]
    fn a_key_takes_28_bytes_and_half_a_bucket() {
        assert_eq!((size_of::<Key>(), size_of::<Option<KeyId>>()), (28, 4));
        let mut keys = Keys::default();
        let ids: Vec<_> =
            (0..10_000u64).map(|number| keys.open(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
        assert_eq!((keys.len(), keys.buckets.len()), (10_000, 5_000));
        ids.into_iter().for_each(|id| keys.remove(id));
        assert_eq!((keys.len(), keys.keys.capacity(), keys.buckets.capacity()), (0, 0, 0));
    }

    #[test]
    fn rings_are_no_part_of_a_hash() {
        let mut keys = Keys::default();
        let id = keys.open(u64::MAX);
        assert!((0..LEVELS_MAX).all(|priority| keys[id].enter_ring(priority)));
        assert!((0..LEVELS_MAX).all(|priority| !keys[id].enter_ring(priority)));
        assert_eq!((keys.open(u64::MAX), keys.open(u64::MAX >> LEVELS_MAX)), (id, id));
        assert_ne!(keys.open(u64::MAX >> (LEVELS_MAX + 1)), id);
        assert!(keys[id].leave_ring(3) && !keys[id].leave_ring(3) && keys[id].leave_ring(4));
    }
}
