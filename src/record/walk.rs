//! One reading of a record's fields for all who need it, over a block in memory or over a decompression stream. Keys and
//! values are passed over by their lengths; nothing is allocated.

use std::io::{self, Read};

use super::varint::{InvalidVarint, VARLONG_MAX_BYTES, read_varint, read_varlong};

/// Why bytes are not a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MalformedRecord {
    /// The block ends inside it.
    #[error("the block ends inside the record")]
    Truncated,
    /// A number in it does not fit its type.
    #[error("a number is too long for its type")]
    Number,
    /// A length or count is negative and does not mean null.
    #[error("a length is negative")]
    NegativeLength,
    /// Its fields do not end where its length says.
    #[error("the fields do not end where the record does")]
    WrongLength,
    /// A header without a key.
    #[error("a header key is null")]
    NullHeaderKey,
    /// A header key that is not text.
    #[error("a header key is not UTF-8")]
    HeaderKeyNotUtf8,
    /// A record of a compressed batch is larger than the limit.
    #[error("larger than allowed after decompression")]
    TooLarge,
}

impl From<InvalidVarint> for MalformedRecord {
    fn from(error: InvalidVarint) -> Self {
        match error {
            InvalidVarint::Truncated => Self::Truncated,
            InvalidVarint::Overflow => Self::Number,
        }
    }
}

/// A record without its contents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Skimmed {
    pub timestamp_delta: i64,
    pub offset_delta: i32,
    pub has_key: bool,
}

/// Where records are read from.
pub(super) trait Input {
    fn byte(&mut self) -> Result<u8, MalformedRecord>;
    fn varint(&mut self) -> Result<i32, MalformedRecord>;
    fn varlong(&mut self) -> Result<i64, MalformedRecord>;
    fn skip(&mut self, bytes: usize) -> Result<(), MalformedRecord>;
    /// Passes over `bytes` bytes that have to be UTF-8.
    fn skip_text(&mut self, bytes: usize) -> Result<(), MalformedRecord>;
    /// Bytes read so far.
    fn position(&self) -> u64;
    /// Whether nothing is left.
    fn is_at_end(&mut self) -> bool;
}

/// Reads over the next record of `input`, which may take at most `max_bytes` after its length field.
#[inline(always)]
pub(super) fn skim(input: &mut impl Input, max_bytes: usize) -> Result<Skimmed, MalformedRecord> {
    let length = length(input.varint()?)?;
    if length > max_bytes {
        return Err(MalformedRecord::TooLarge);
    }
    let end_exclusive = input.position() + length as u64;
    input.byte()?; // attributes of a record: none are defined, and no reader looks at them
    let timestamp_delta = input.varlong()?;
    let offset_delta = input.varint()?;
    let key_bytes = nullable_length(input.varint()?)?;
    input.skip(key_bytes.unwrap_or(0))?;
    let value_bytes = nullable_length(input.varint()?)?;
    input.skip(value_bytes.unwrap_or(0))?;
    let header_count = self::length(input.varint()?)?;
    for _ in 0..header_count {
        // Checked here too, so that a stream cannot be made to yield more than the record may have.
        if input.position() > end_exclusive {
            return Err(MalformedRecord::WrongLength);
        }
        skim_header(input)?;
    }
    if input.position() != end_exclusive {
        return Err(MalformedRecord::WrongLength);
    }
    Ok(Skimmed { timestamp_delta, offset_delta, has_key: key_bytes.is_some() })
}

#[inline(never)]
fn skim_header(input: &mut impl Input) -> Result<(), MalformedRecord> {
    let key_bytes = nullable_length(input.varint()?)?.ok_or(MalformedRecord::NullHeaderKey)?;
    input.skip_text(key_bytes)?;
    let value_bytes = nullable_length(input.varint()?)?;
    input.skip(value_bytes.unwrap_or(0))
}

/// A length that may not be null.
#[inline(always)]
pub(super) fn length(declared: i32) -> Result<usize, MalformedRecord> {
    usize::try_from(declared).map_err(|_| MalformedRecord::NegativeLength)
}

/// A length whose -1 means null.
#[inline(always)]
pub(super) fn nullable_length(declared: i32) -> Result<Option<usize>, MalformedRecord> {
    if declared == -1 { Ok(None) } else { length(declared).map(Some) }
}

/// A block in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Block<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `bytes` bytes.
    #[inline(always)]
    pub fn take(&mut self, bytes: usize) -> Result<&'a [u8], MalformedRecord> {
        let taken = self.rest().get(..bytes).ok_or(MalformedRecord::Truncated)?;
        self.at += bytes;
        Ok(taken)
    }

    /// What is left.
    #[inline(always)]
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }
}

impl Input for Block<'_> {
    #[inline(always)]
    fn byte(&mut self) -> Result<u8, MalformedRecord> {
        let byte = *self.bytes.get(self.at).ok_or(MalformedRecord::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    #[inline(always)]
    fn varint(&mut self) -> Result<i32, MalformedRecord> {
        let (value, bytes) = read_varint(self.rest())?;
        self.at += bytes;
        Ok(value)
    }

    #[inline(always)]
    fn varlong(&mut self) -> Result<i64, MalformedRecord> {
        let (value, bytes) = read_varlong(self.rest())?;
        self.at += bytes;
        Ok(value)
    }

    #[inline(always)]
    fn skip(&mut self, bytes: usize) -> Result<(), MalformedRecord> {
        self.take(bytes).map(|_| ())
    }

    fn skip_text(&mut self, bytes: usize) -> Result<(), MalformedRecord> {
        match std::str::from_utf8(self.take(bytes)?) {
            Ok(_) => Ok(()),
            Err(_) => Err(MalformedRecord::HeaderKeyNotUtf8),
        }
    }

    #[inline(always)]
    fn position(&self) -> u64 {
        self.at as u64
    }

    fn is_at_end(&mut self) -> bool {
        self.at == self.bytes.len()
    }
}

/// Bytes of a stream that are in memory at a time.
pub(super) const STREAM_BUFFER_BYTES: usize = 32 << 10;

/// Why a stream ended before its end.
#[derive(Debug)]
pub(super) enum StreamFailure {
    /// The decoder refused its input.
    Decoder(io::Error),
    /// It yielded more than was allowed.
    TooLarge,
}

/// A stream of decompressed records, seen through a buffer and cut off at a limit. A failure of the stream looks like its
/// end to who reads records; [`Streamed::failure`] tells.
pub(super) struct Streamed<R, B> {
    reader: R,
    buffer: B,
    at: usize,
    filled: usize,
    /// Bytes of the stream before the buffer.
    before_buffer: u64,
    max_bytes: u64,
    failure: Option<StreamFailure>,
}

impl<R: Read, B: AsMut<[u8]> + AsRef<[u8]>> Streamed<R, B> {
    /// `buffer` must hold at least [`VARLONG_MAX_BYTES`]; at most `max_bytes` are read.
    pub fn new(reader: R, buffer: B, max_bytes: usize) -> Self {
        assert!(buffer.as_ref().len() >= VARLONG_MAX_BYTES, "a number fits into the buffer");
        Self {
            reader,
            buffer,
            at: 0,
            filled: 0,
            before_buffer: 0,
            max_bytes: max_bytes as u64,
            failure: None,
        }
    }

    /// Why the stream ended, if not by itself.
    pub fn failure(&mut self) -> Option<StreamFailure> {
        self.failure.take()
    }

    /// The buffer, to be used again.
    pub fn into_buffer(self) -> B {
        self.buffer
    }

    fn unread(&self) -> &[u8] {
        &self.buffer.as_ref()[self.at..self.filled]
    }

    /// Makes `wanted` unread bytes visible, at most a buffer of them; there are fewer only at the end.
    fn fill(&mut self, wanted: usize) {
        if self.filled - self.at >= wanted || self.failure.is_some() {
            return;
        }
        self.buffer.as_mut().copy_within(self.at..self.filled, 0);
        self.before_buffer += self.at as u64;
        self.filled -= self.at;
        self.at = 0;
        while self.filled < wanted {
            match self.reader.read(&mut self.buffer.as_mut()[self.filled..]) {
                Ok(0) => return,
                Ok(bytes) => self.filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.fail(StreamFailure::Decoder(error)),
            }
            if self.before_buffer + self.filled as u64 > self.max_bytes {
                return self.fail(StreamFailure::TooLarge);
            }
        }
    }

    fn fail(&mut self, failure: StreamFailure) {
        self.failure = Some(failure);
        self.filled = self.at;
    }

    /// Hands the next `bytes` bytes to `see`, in pieces.
    fn pass(
        &mut self,
        mut bytes: usize,
        mut see: impl FnMut(&[u8]) -> Result<(), MalformedRecord>,
    ) -> Result<(), MalformedRecord> {
        while bytes > 0 {
            self.fill(1);
            let piece = bytes.min(self.filled - self.at);
            if piece == 0 {
                return Err(MalformedRecord::Truncated);
            }
            see(&self.unread()[..piece])?;
            self.at += piece;
            bytes -= piece;
        }
        Ok(())
    }
}

impl<R: Read, B: AsMut<[u8]> + AsRef<[u8]>> Input for Streamed<R, B> {
    fn byte(&mut self) -> Result<u8, MalformedRecord> {
        self.fill(1);
        let byte = *self.unread().first().ok_or(MalformedRecord::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Result<i32, MalformedRecord> {
        self.fill(VARLONG_MAX_BYTES);
        let (value, bytes) = read_varint(self.unread())?;
        self.at += bytes;
        Ok(value)
    }

    fn varlong(&mut self) -> Result<i64, MalformedRecord> {
        self.fill(VARLONG_MAX_BYTES);
        let (value, bytes) = read_varlong(self.unread())?;
        self.at += bytes;
        Ok(value)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), MalformedRecord> {
        self.pass(bytes, |_| Ok(()))
    }

    fn skip_text(&mut self, bytes: usize) -> Result<(), MalformedRecord> {
        let mut text = Utf8Pieces::default();
        self.pass(bytes, |piece| text.see(piece))?;
        text.end()
    }

    fn position(&self) -> u64 {
        self.before_buffer + self.at as u64
    }

    fn is_at_end(&mut self) -> bool {
        self.fill(1);
        self.unread().is_empty()
    }
}

/// Checks text that comes in pieces, which may cut characters.
#[derive(Default)]
struct Utf8Pieces {
    /// The bytes of a character whose rest is to come.
    pending: [u8; 4],
    pending_bytes: usize,
}

impl Utf8Pieces {
    fn see(&mut self, mut piece: &[u8]) -> Result<(), MalformedRecord> {
        while self.pending_bytes > 0 {
            let Some((&byte, rest)) = piece.split_first() else { return Ok(()) };
            piece = rest;
            self.pending[self.pending_bytes] = byte;
            self.pending_bytes += 1;
            match std::str::from_utf8(&self.pending[..self.pending_bytes]) {
                Ok(_) => self.pending_bytes = 0,
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(MalformedRecord::HeaderKeyNotUtf8),
            }
        }
        match std::str::from_utf8(piece) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_none() => {
                let cut = &piece[error.valid_up_to()..];
                self.pending[..cut.len()].copy_from_slice(cut);
                self.pending_bytes = cut.len();
                Ok(())
            }
            Err(_) => Err(MalformedRecord::HeaderKeyNotUtf8),
        }
    }

    fn end(self) -> Result<(), MalformedRecord> {
        if self.pending_bytes == 0 { Ok(()) } else { Err(MalformedRecord::HeaderKeyNotUtf8) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Yields at most `step` bytes at a time.
    struct Dribble<'a>(&'a [u8], usize);

    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let end = self.1.min(buffer.len());
            self.0.read(&mut buffer[..end])
        }
    }

    fn skim_all(input: &mut impl Input) -> Result<Vec<Skimmed>, MalformedRecord> {
        let mut records = Vec::new();
        while !input.is_at_end() {
            records.push(skim(input, usize::MAX)?);
        }
        Ok(records)
    }

    /// Two records: `key`, `value`, header `hé` = null; and one with nulls and deltas of several bytes.
    const RECORDS: &[u8] =
        b"\x20\x00\x00\x00\x06key\x0avalue\x02\x06h\xc3\xa9\x01\x10\x00\x80\x01\x80\x02\x01\x01\x00";

    fn records() -> Vec<u8> {
        let mut bytes = RECORDS.to_vec();
        let first_bytes = bytes.len() - 9;
        bytes[0] = ((first_bytes - 1) * 2) as u8;
        bytes
    }

    #[test]
    fn the_fields_are_told_and_the_contents_passed_over() {
        let expected = [
            Skimmed { timestamp_delta: 0, offset_delta: 0, has_key: true },
            Skimmed { timestamp_delta: 64, offset_delta: 128, has_key: false },
        ];
        assert_eq!(skim_all(&mut Block::new(&records())).unwrap(), expected);
    }

    #[test]
    fn each_fault_has_its_name() {
        for (bytes, expected) in [
            (&b""[..], MalformedRecord::Truncated),
            (b"\x0c\x00\x00\x00\x01\x01", MalformedRecord::Truncated),
            (b"\x01\x00", MalformedRecord::NegativeLength),
            (b"\xff\xff\xff\xff\x7f", MalformedRecord::Number),
            (b"\x0c\x00\x00\x00\x03\x01\x00", MalformedRecord::NegativeLength),
            (b"\x0c\x00\x00\x00\x01\x03\x00", MalformedRecord::NegativeLength),
            (b"\x0c\x00\x00\x00\x01\x01\x01", MalformedRecord::NegativeLength),
            (b"\x0a\x00\x00\x00\x01\x01\x00", MalformedRecord::WrongLength),
            (b"\x0e\x00\x00\x00\x01\x01\x00\x00", MalformedRecord::WrongLength),
            (b"\x10\x00\x00\x00\x01\x01\x02\x01\x01", MalformedRecord::NullHeaderKey),
            (b"\x12\x00\x00\x00\x01\x01\x02\x02\xff\x01", MalformedRecord::HeaderKeyNotUtf8),
            (b"\x12\x00\x00\x00\x01\x01\x02\x02\xc3\x01", MalformedRecord::HeaderKeyNotUtf8),
        ] {
            assert_eq!(skim(&mut Block::new(bytes), usize::MAX), Err(expected), "{bytes:?}");
            let mut stream = Streamed::new(bytes, [0; VARLONG_MAX_BYTES], usize::MAX);
            assert_eq!(skim(&mut stream, usize::MAX), Err(expected), "{bytes:?}");
        }
        assert_eq!(skim(&mut Block::new(b"\x0c\x00\x00\x00\x01\x01\x00"), 5), Err(MalformedRecord::TooLarge));
        assert!(skim(&mut Block::new(b"\x0c\x00\x00\x00\x01\x01\x00"), 6).is_ok());
    }

    #[test]
    fn a_stream_stops_at_its_limit_and_says_so() {
        let bytes = records();
        let mut stream = Streamed::new(&bytes[..], [0; VARLONG_MAX_BYTES], bytes.len() - 1);
        assert_eq!(skim_all(&mut stream), Err(MalformedRecord::Truncated));
        assert!(matches!(stream.failure(), Some(StreamFailure::TooLarge)));

        let mut stream = Streamed::new(&bytes[..], [0; VARLONG_MAX_BYTES], bytes.len());
        assert_eq!(skim_all(&mut stream).unwrap().len(), 2);
        assert!(stream.failure().is_none());
    }

    proptest! {
        #[test]
        fn a_stream_and_a_block_read_the_same(mut bytes: Vec<u8>, mutate in any::<(u16, u8)>(), from_valid: bool, step in 1usize..40) {
            if from_valid {
                bytes = records();
                let at = usize::from(mutate.0) % bytes.len();
                bytes[at] ^= mutate.1;
            }
            let mut streamed = Streamed::new(Dribble(&bytes, step), [0; 16], usize::MAX);
            // Of two faults in a record, a stream may meet the other one first.
            prop_assert_eq!(skim_all(&mut streamed).ok(), skim_all(&mut Block::new(&bytes)).ok());
        }

        #[test]
        fn text_in_pieces_is_judged_as_the_whole(bytes in prop_oneof![any::<Vec<u8>>(), any::<String>().prop_map(String::into_bytes)], step in 1usize..7) {
            let mut text = Utf8Pieces::default();
            let seen = bytes.chunks(step).try_for_each(|piece| text.see(piece)).and_then(|()| text.end());
            prop_assert_eq!(seen.is_ok(), std::str::from_utf8(&bytes).is_ok());
        }
    }
}
