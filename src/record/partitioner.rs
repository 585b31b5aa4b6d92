//! Where a record goes: by its key as in Java's producer, so that programs in any language find it where they look for it.

/// Java's default partitioner for a record with a key: one of `partitions`, from 0 on.
pub fn by_key(key: &[u8], partitions: usize) -> usize {
    (murmur2(key) & 0x7fff_ffff) as usize % partitions
}

/// MurmurHash2, 32 bits, with the seed that Kafka uses.
fn murmur2(bytes: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const MIX: u32 = 0x5bd1_e995;
    const SHIFT: u32 = 24;
    let mut hash = SEED ^ bytes.len() as u32;
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(MIX);
        hash = hash.wrapping_mul(MIX) ^ (word ^ word >> SHIFT).wrapping_mul(MIX);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let mixed = rest.iter().rev().fold(0, |mixed, byte| mixed << 8 | u32::from(*byte));
        hash = (hash ^ mixed).wrapping_mul(MIX);
    }
    hash = (hash ^ hash >> 13).wrapping_mul(MIX);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_hash_as_in_java() {
        for (key, expected) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, expected, "{key}");
        }
        assert_eq!(by_key(b"abc", 7), 479_470_107 % 7);
        assert_eq!(by_key(b"21", 3), ((-973_932_308i32) & i32::MAX) as usize % 3);
    }
}
