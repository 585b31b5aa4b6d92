//! The newest offset of each key, as far as a bounded buffer holds them.

use siphasher::sip128::SipHasher13;

/// Bytes of the buffer that one key takes: a hash of 16 bytes and an offset.
pub const ENTRY_BYTES: u64 = (ENTRY_WORDS * 8) as u64;

const ENTRY_WORDS: usize = 3;

/// Offsets by key, in open addressing over one allocation. Keys are told apart by a hash of 128 bits under a secret of this
/// map's own: that two of them ever have the same is less likely than a fault of the machine, whoever chooses the keys.
#[derive(Debug)]
pub struct KeyMap {
    secret: (u64, u64),
    /// Of each place the halves of the hash, and the offset plus one; 0 there is an empty place.
    words: Vec<u64>,
    places: usize,
    len: usize,
    len_max: usize,
}

impl KeyMap {
    /// Room for `keys_max` keys, less if these would take more than `buffer_bytes`: then as many as fill `load_factor` (above
    /// 0, at most 1) of the buffer.
    pub fn new(buffer_bytes: u64, load_factor: f64, keys_max: u64) -> Self {
        let load_factor = load_factor.clamp(0.01, 1.0);
        let wanted = (keys_max as f64 / load_factor).ceil() as u64;
        // A place always stays empty: a search ends there.
        let places = usize::try_from(wanted.saturating_add(1).min(buffer_bytes / ENTRY_BYTES))
            .unwrap_or(usize::MAX / 64);
        let places = places.max(2);
        let len_max = ((places as f64 * load_factor) as usize).clamp(1, places - 1);
        // Zeroed by the system as it is touched: a large buffer for few keys costs little.
        let words = vec![0; places * ENTRY_WORDS];
        Self { secret: (fastrand::u64(..), fastrand::u64(..)), words, places, len: 0, len_max }
    }

    /// Notes that `key` is at `offset`, which must be above all offsets before (and not negative). `false` if it is a new key
    /// and there is no room for one.
    pub fn put(&mut self, key: &[u8], offset: i64) -> bool {
        let hash = self.hash(key);
        let at = self.find(hash);
        if self.words[at + 2] == 0 {
            if self.len == self.len_max {
                return false;
            }
            self.len += 1;
            (self.words[at], self.words[at + 1]) = hash;
        }
        self.words[at + 2] = offset as u64 + 1;
        true
    }

    /// The newest offset of `key`.
    pub fn offset_of(&self, key: &[u8]) -> Option<i64> {
        let at = self.find(self.hash(key));
        self.words[at + 2].checked_sub(1).map(|offset| offset as i64)
    }

    fn hash(&self, key: &[u8]) -> (u64, u64) {
        SipHasher13::new_with_keys(self.secret.0, self.secret.1).hash(key).as_u64()
    }

    /// Where the words of that hash are, or those of the empty place where they belong.
    fn find(&self, hash: (u64, u64)) -> usize {
        // The hash as a fraction of its range, scaled to the places: no division.
        let mut place = ((u128::from(hash.0) * self.places as u128) >> 64) as usize;
        loop {
            let at = place * ENTRY_WORDS;
            if self.words[at + 2] == 0 || (self.words[at], self.words[at + 1]) == hash {
                return at;
            }
            place = if place + 1 == self.places { 0 } else { place + 1 };
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
        fn it_knows_what_a_map_would(keys in proptest::collection::vec(0u16..300, 0..600), room in 1u64..400) {
            let mut map = KeyMap::new(room * ENTRY_BYTES, 0.9, 1 << 40);
            let mut model = HashMap::new();
            for (offset, key) in keys.iter().enumerate() {
                let known = model.contains_key(key) || model.len() < map.len_max;
                prop_assert_eq!(map.put(&key.to_be_bytes(), offset as i64), known);
                if known {
                    model.insert(*key, offset as i64);
                }
            }
            prop_assert_eq!(map.len, model.len());
            for key in 0u16..300 {
                prop_assert_eq!(map.offset_of(&key.to_be_bytes()), model.get(&key).copied());
            }
        }
    }

    #[test]
    fn it_takes_no_more_than_its_buffer_and_no_more_than_the_keys_need() {
        let large = KeyMap::new(1 << 20, 0.9, u64::MAX);
        assert!(large.words.len() as u64 * 8 <= 1 << 20);
        assert_eq!(large.len_max, ((1u64 << 20) / ENTRY_BYTES * 9 / 10) as usize);
        let small = KeyMap::new(1 << 20, 0.9, 100);
        assert!(small.len_max >= 100 && small.words.len() < 120 * ENTRY_WORDS);
        let least = KeyMap::new(0, 0.0, 0);
        assert_eq!((least.len_max, least.places), (1, 2));
    }
}
