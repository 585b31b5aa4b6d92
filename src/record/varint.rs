//! The variable-length integers inside records: zigzag, then seven bits a byte, the lowest first. At most 5 bytes for 32
//! bits and 10 for 64; a longer one, or one whose last byte holds bits that do not fit, is refused.

/// Most bytes a 32-bit number takes.
pub const VARINT_MAX_BYTES: usize = 5;
/// Most bytes a 64-bit number takes.
pub const VARLONG_MAX_BYTES: usize = 10;

/// Why bytes are not a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidVarint {
    /// The input ends inside it.
    #[error("the number is cut off")]
    Truncated,
    /// It does not fit into its type.
    #[error("the number is too long for its type")]
    Overflow,
}

/// Appends `value`.
pub fn write_varint(value: i32, out: &mut Vec<u8>) {
    write_unsigned(u64::from(zigzag32(value)), out);
}

/// Appends `value`.
pub fn write_varlong(value: i64, out: &mut Vec<u8>) {
    write_unsigned(zigzag64(value), out);
}

/// Bytes that [`write_varint`] appends for `value`.
pub fn varint_bytes(value: i32) -> usize {
    unsigned_bytes(u64::from(zigzag32(value)))
}

/// Bytes that [`write_varlong`] appends for `value`.
pub fn varlong_bytes(value: i64) -> usize {
    unsigned_bytes(zigzag64(value))
}

/// Reads a 32-bit number from the front of `input`: the number and the bytes it took.
#[inline(always)]
pub fn read_varint(input: &[u8]) -> Result<(i32, usize), InvalidVarint> {
    // Nearly every length and delta has one byte or two.
    match *input {
        [first, ..] if first < 0x80 => Ok((unzigzag32(u32::from(first)), 1)),
        [first, second, ..] if second < 0x80 => {
            Ok((unzigzag32(u32::from(first & 0x7f) | u32::from(second) << 7), 2))
        }
        _ => read_long_varint(input),
    }
}

/// Reads a 64-bit number from the front of `input`: the number and the bytes it took.
#[inline(always)]
pub fn read_varlong(input: &[u8]) -> Result<(i64, usize), InvalidVarint> {
    match *input {
        [first, ..] if first < 0x80 => Ok((unzigzag64(u64::from(first)), 1)),
        [first, second, ..] if second < 0x80 => {
            Ok((unzigzag64(u64::from(first & 0x7f) | u64::from(second) << 7), 2))
        }
        _ => read_unsigned(input, VARLONG_MAX_BYTES).map(|(value, bytes)| (unzigzag64(value), bytes)),
    }
}

#[inline(never)]
fn read_long_varint(input: &[u8]) -> Result<(i32, usize), InvalidVarint> {
    let (value, bytes) = read_unsigned(input, VARINT_MAX_BYTES)?;
    let value = u32::try_from(value).map_err(|_| InvalidVarint::Overflow)?;
    Ok((unzigzag32(value), bytes))
}

#[inline(never)]
fn read_unsigned(input: &[u8], max_bytes: usize) -> Result<(u64, usize), InvalidVarint> {
    let mut value = 0;
    for (index, &byte) in input.iter().take(max_bytes).enumerate() {
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit of the 64.
        if index == VARLONG_MAX_BYTES - 1 && bits > 1 {
            return Err(InvalidVarint::Overflow);
        }
        value |= bits << (7 * index);
        if byte < 0x80 {
            return Ok((value, index + 1));
        }
    }
    Err(if input.len() < max_bytes { InvalidVarint::Truncated } else { InvalidVarint::Overflow })
}

fn write_unsigned(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn unsigned_bytes(value: u64) -> usize {
    let bits = u64::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

fn zigzag32(value: i32) -> u32 {
    (value << 1 ^ value >> 31) as u32
}

fn zigzag64(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

#[inline(always)]
fn unzigzag32(value: u32) -> i32 {
    (value >> 1) as i32 ^ -((value & 1) as i32)
}

#[inline(always)]
fn unzigzag64(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_read_back_and_sizes_are_told(small: i32, large: i64, shift in 0u32..64) {
            let (small, large) = (small >> (shift % 32), large >> shift);
            let mut bytes = Vec::new();
            write_varint(small, &mut bytes);
            prop_assert_eq!(read_varint(&bytes), Ok((small, bytes.len())));
            prop_assert_eq!(varint_bytes(small), bytes.len());
            prop_assert_eq!(read_varint(&bytes[..bytes.len() - 1]), Err(InvalidVarint::Truncated));

            bytes.clear();
            write_varlong(large, &mut bytes);
            prop_assert_eq!(read_varlong(&bytes), Ok((large, bytes.len())));
            prop_assert_eq!(varlong_bytes(large), bytes.len());
            prop_assert_eq!(read_varlong(&bytes[..bytes.len() - 1]), Err(InvalidVarint::Truncated));
        }
    }

    #[test]
    fn the_ends_of_the_types_have_the_known_bytes() {
        for (value, expected) in [
            (0, &[0u8][..]),
            (-1, &[1]),
            (1, &[2]),
            (63, &[126]),
            (64, &[128, 1]),
            (i32::MAX, &[254, 255, 255, 255, 15]),
            (i32::MIN, &[255, 255, 255, 255, 15]),
        ] {
            let mut bytes = Vec::new();
            write_varint(value, &mut bytes);
            assert_eq!(bytes, expected, "{value}");
        }
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        assert_eq!(read_varint(&[255, 255, 255, 255, 16]), Err(InvalidVarint::Overflow));
        assert_eq!(read_varint(&[255; 6]), Err(InvalidVarint::Overflow));
        assert_eq!(read_varlong(&[255; 11]), Err(InvalidVarint::Overflow));
        let mut too_large = [255; 10];
        too_large[9] = 2;
        assert_eq!(read_varlong(&too_large), Err(InvalidVarint::Overflow));
        too_large[9] = 1;
        assert_eq!(read_varlong(&too_large), Ok((i64::MIN, 10)));
    }
}
