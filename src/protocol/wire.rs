//! The primitive types of the protocol and the trait that every message implements.
//!
//! Decoding borrows: a [`Str`] or [`Bytes`] is a slice of the frame. Encoding links: large byte fields and file ranges go
//! into the outgoing [`Chunks`] untouched. A count or length from the wire is checked against what the frame still holds,
//! and against a budget for decoded arrays, before anything is allocated.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use nom::bytes::complete::take;
use nom::error::{ErrorKind, ParseError};
use nom::number::complete as number;

use crate::record::range::FileRange;
use crate::uuid::Uuid;

/// UTF-8 text in shared bytes: a slice of the frame it came in.
pub type Str = bytestring::ByteString;

/// What a decoder returns: the rest of the input and the value.
pub type Decoded<'i, T> = nom::IResult<&'i [u8], T, DecodeError>;

/// Memory that the arrays of one request may take once decoded, bytes. Records are not counted: they stay in the frame.
/// Half a million partitions fit; a frame full of one-byte elements does not.
pub const ARRAY_BUDGET_BYTES: usize = 32 << 20;

/// Byte fields from this size on are linked into the output instead of copied.
const LINK_FROM_BYTES: usize = 1024;

/// What a decoder knows beside its input. `Copy`, so that it is passed on freely.
#[derive(Clone, Copy)]
pub struct Decode<'i> {
    /// The whole frame, which byte fields become slices of.
    pub frame: &'i Bytes,
    /// The API version of the message.
    pub version: i16,
    /// Whether that version is flexible: compact lengths, tagged fields. KIP-482.
    pub flexible: bool,
    /// Bytes of memory that arrays may still take.
    pub budget: &'i Cell<usize>,
}

/// What an encoder knows beside its value.
#[derive(Clone, Copy, Debug)]
pub struct Encode {
    /// The API version of the message.
    pub version: i16,
    /// Whether that version is flexible. KIP-482.
    pub flexible: bool,
}

/// Where and why decoding stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DecodeError {
    /// `Message.field`; empty until a message has named it.
    pub place: &'static str,
    /// Why.
    pub reason: Reason,
    /// Bytes of the frame that were left where it stopped.
    pub remaining: usize,
}

/// Why bytes are not a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The frame ended before the value did.
    Truncated,
    /// A length or count that is negative or more than the frame holds.
    Length,
    /// A null where the version allows none.
    Null,
    /// Text that is not UTF-8.
    Utf8,
    /// A varint of more bytes than its type has.
    Varint,
    /// More array elements than [`ARRAY_BUDGET_BYTES`] allows.
    TooManyElements,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self.reason {
            Reason::Truncated => "truncated",
            Reason::Length => "length beyond the frame",
            Reason::Null => "null is not allowed",
            Reason::Utf8 => "not UTF-8",
            Reason::Varint => "varint too long",
            Reason::TooManyElements => "too many elements",
        };
        write!(f, "{}: {reason}", self.place)
    }
}

impl std::error::Error for DecodeError {}

impl<'i> ParseError<&'i [u8]> for DecodeError {
    fn from_error_kind(input: &'i [u8], _kind: ErrorKind) -> Self {
        Self { place: "", reason: Reason::Truncated, remaining: input.len() }
    }

    fn append(_input: &'i [u8], _kind: ErrorKind, other: Self) -> Self {
        other
    }
}

/// Ends decoding for `reason` at the start of `rest`.
pub fn stop<T>(rest: &[u8], reason: Reason) -> Decoded<'_, T> {
    Err(nom::Err::Failure(DecodeError { place: "", reason, remaining: rest.len() }))
}

/// Decodes a field and names it in the error if it cannot be.
pub fn field<'i, T: Wire>(input: &'i [u8], cx: Decode<'i>, place: &'static str) -> Decoded<'i, T> {
    named(T::decode(input, cx), place)
}

/// A field that may be null in some versions only.
pub fn field_nullable<'i, T: Wire + Nullable>(
    input: &'i [u8],
    cx: Decode<'i>,
    place: &'static str,
    null_allowed: bool,
) -> Decoded<'i, Option<T>> {
    let (rest, value) = field::<Option<T>>(input, cx, place)?;
    if value.is_none() && !null_allowed {
        return named(stop(input, Reason::Null), place);
    }
    Ok((rest, value))
}

fn named<'i, T>(decoded: Decoded<'i, T>, place: &'static str) -> Decoded<'i, T> {
    decoded.map_err(|error| match error {
        nom::Err::Error(e) | nom::Err::Failure(e) if e.place.is_empty() => {
            nom::Err::Failure(DecodeError { place, ..e })
        }
        other => other,
    })
}

/// Where encoded bytes go: counted ([`Count`]) or written ([`Chunks`]).
pub trait Sink {
    /// Small bytes, copied.
    fn put(&mut self, bytes: &[u8]);

    /// Bytes that may be linked instead of copied.
    fn link(&mut self, bytes: &Bytes);

    /// Bytes that stay in their file.
    fn range(&mut self, range: &FileRange);

    /// An unsigned LEB128 integer.
    fn uvarint(&mut self, mut value: u32) {
        let mut bytes = [0; 5];
        let mut length = 0;
        while value >= 0x80 {
            bytes[length] = value as u8 | 0x80;
            value >>= 7;
            length += 1;
        }
        bytes[length] = value as u8;
        self.put(&bytes[..=length]);
    }
}

/// A sink that only counts: the size of a message before it is written.
#[derive(Default)]
pub struct Count(pub usize);

impl Sink for Count {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }

    fn link(&mut self, bytes: &Bytes) {
        self.0 += bytes.len();
    }

    fn range(&mut self, range: &FileRange) {
        self.0 += range.length;
    }
}

/// A piece of what goes to a socket.
#[derive(Clone, Debug)]
pub enum Chunk {
    /// Bytes in memory.
    Bytes(Bytes),
    /// Bytes in a file.
    File(FileRange),
}

/// Encoded bytes on their way out, in order: what is small is gathered in one buffer, what is large is linked.
#[derive(Default, Debug)]
pub struct Chunks {
    done: VecDeque<Chunk>,
    gathering: BytesMut,
}

impl Chunks {
    /// Whether nothing is left to send.
    pub fn is_empty(&self) -> bool {
        self.done.is_empty() && self.gathering.is_empty()
    }

    /// Bytes gathered in memory and not yet closed.
    pub fn gathered_bytes(&self) -> usize {
        self.gathering.len()
    }

    /// Closes what is being gathered and gives the chunks, to be consumed from the front.
    pub fn sealed(&mut self) -> &mut VecDeque<Chunk> {
        self.seal();
        &mut self.done
    }

    /// Everything as one buffer.
    ///
    /// # Errors
    /// What reading a file range gives.
    pub fn concat(mut self) -> std::io::Result<Bytes> {
        let mut out = BytesMut::new();
        for chunk in self.sealed().drain(..) {
            match chunk {
                Chunk::Bytes(bytes) => out.extend_from_slice(&bytes),
                Chunk::File(range) => out.extend_from_slice(&range.read()?),
            }
        }
        Ok(out.freeze())
    }

    fn seal(&mut self) {
        if !self.gathering.is_empty() {
            self.done.push_back(Chunk::Bytes(self.gathering.split().freeze()));
        }
    }
}

impl Sink for Chunks {
    fn put(&mut self, bytes: &[u8]) {
        self.gathering.put_slice(bytes);
    }

    fn link(&mut self, bytes: &Bytes) {
        if bytes.len() < LINK_FROM_BYTES {
            self.put(bytes);
        } else {
            self.seal();
            self.done.push_back(Chunk::Bytes(bytes.clone()));
        }
    }

    fn range(&mut self, range: &FileRange) {
        self.seal();
        self.done.push_back(Chunk::File(range.clone()));
    }
}

/// One buffer: for records of the broker's own logs, which hold nothing that lies in a file.
impl Sink for BytesMut {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn link(&mut self, bytes: &Bytes) {
        self.extend_from_slice(bytes);
    }

    fn range(&mut self, _range: &FileRange) {
        unreachable!("only fetch responses have file ranges");
    }
}

/// A value with a wire form in every version.
pub trait Wire: Sized {
    /// Reads a value from the front of `input`.
    ///
    /// # Errors
    /// A [`DecodeError`] that names the field, as a nom failure.
    fn decode<'i>(input: &'i [u8], cx: Decode<'i>) -> Decoded<'i, Self>;

    /// Writes the value.
    fn encode<S: Sink>(&self, out: &mut S, cx: Encode);

    /// Bytes that [`Wire::encode`] will write.
    fn size(&self, cx: Encode) -> usize {
        let mut count = Count::default();
        self.encode(&mut count, cx);
        count.0
    }

    /// Calls `seen` with each `error_code` in the value, 0 (none) included.
    fn errors(&self, seen: &mut impl FnMut(i16)) {
        let _ = seen;
    }
}

/// A type whose `Option` has a wire form. The default is a struct's: one byte, -1 null or 1 present.
pub trait Nullable: Wire {
    /// Reads a value or null.
    ///
    /// # Errors
    /// As [`Wire::decode`].
    fn decode_option<'i>(input: &'i [u8], cx: Decode<'i>) -> Decoded<'i, Option<Self>> {
        let (input, marker) = number::be_i8(input)?;
        if marker < 0 {
            return Ok((input, None));
        }
        let (input, value) = Self::decode(input, cx)?;
        Ok((input, Some(value)))
    }

    /// Writes a value or null.
    fn encode_option<S: Sink>(value: Option<&Self>, out: &mut S, cx: Encode) {
        match value {
            None => out.put(&(-1i8).to_be_bytes()),
            Some(value) => {
                out.put(&1i8.to_be_bytes());
                value.encode(out, cx);
            }
        }
    }
}

impl<T: Nullable> Wire for Option<T> {
    fn decode<'i>(input: &'i [u8], cx: Decode<'i>) -> Decoded<'i, Self> {
        T::decode_option(input, cx)
    }

    fn encode<S: Sink>(&self, out: &mut S, cx: Encode) {
        T::encode_option(self.as_ref(), out, cx);
    }

    fn errors(&self, seen: &mut impl FnMut(i16)) {
        self.iter().for_each(|value| value.errors(seen));
    }
}

macro_rules! number {
    ($($type:ty => $parse:path),+ $(,)?) => {$(
        impl Wire for $type {
            fn decode<'i>(input: &'i [u8], _cx: Decode<'i>) -> Decoded<'i, Self> {
                $parse(input)
            }

            fn encode<S: Sink>(&self, out: &mut S, _cx: Encode) {
                out.put(&self.to_be_bytes());
            }
        }
    )+};
}

number! {
    i8 => number::be_i8,
    i16 => number::be_i16,
    i32 => number::be_i32,
    i64 => number::be_i64,
    u16 => number::be_u16,
    u32 => number::be_u32,
    f64 => number::be_f64,
}

impl Wire for bool {
    fn decode<'i>(input: &'i [u8], _cx: Decode<'i>) -> Decoded<'i, Self> {
        let (input, byte) = number::be_u8(input)?;
        Ok((input, byte != 0))
    }

    fn encode<S: Sink>(&self, out: &mut S, _cx: Encode) {
        out.put(&[u8::from(*self)]);
    }
}

impl Wire for Uuid {
    fn decode<'i>(input: &'i [u8], _cx: Decode<'i>) -> Decoded<'i, Self> {
        let (input, value) = number::be_u128(input)?;
        Ok((input, Self(value.to_be_bytes())))
    }

    fn encode<S: Sink>(&self, out: &mut S, _cx: Encode) {
        out.put(&self.0);
    }
}

/// Width of a classic length prefix. Flexible versions use an unsigned varint of length + 1 instead (0 is null).
#[derive(Clone, Copy)]
enum Prefix {
    I16,
    I32,
}

fn decode_length<'i>(input: &'i [u8], cx: Decode<'i>, prefix: Prefix) -> Decoded<'i, Option<usize>> {
    let (rest, length) = if cx.flexible {
        let (rest, length_plus_one) = uvarint(input)?;
        (rest, i64::from(length_plus_one) - 1)
    } else {
        match prefix {
            Prefix::I16 => number::be_i16(input).map(|(rest, length)| (rest, i64::from(length)))?,
            Prefix::I32 => number::be_i32(input).map(|(rest, length)| (rest, i64::from(length)))?,
        }
    };
    match usize::try_from(length) {
        // An element takes at least a byte, so this bounds counts of arrays as well.
        Ok(length) if length <= rest.len() => Ok((rest, Some(length))),
        Ok(_) => stop(input, Reason::Length),
        Err(_) if length == -1 => Ok((rest, None)),
        Err(_) => stop(input, Reason::Length),
    }
}

fn encode_length<S: Sink>(length: Option<usize>, out: &mut S, cx: Encode, prefix: Prefix) {
    // Lengths are ours here: frames are far below 2 GiB and texts below 32 KiB when they leave this broker.
    match (cx.flexible, prefix) {
        (true, _) => out.uvarint(length.map_or(0, |length| length as u32 + 1)),
        (false, Prefix::I16) => out.put(&length.map_or(-1, |length| length as i16).to_be_bytes()),
        (false, Prefix::I32) => out.put(&length.map_or(-1, |length| length as i32).to_be_bytes()),
    }
}

/// An unsigned LEB128 integer of at most five bytes.
///
/// # Errors
/// Truncated input, or more than 32 bits.
pub fn uvarint(input: &[u8]) -> Decoded<'_, u32> {
    let mut value = 0u64;
    let mut rest = input;
    for shift in (0..35).step_by(7) {
        let (after, byte) = number::be_u8(rest)?;
        rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return match u32::try_from(value) {
                Ok(value) => Ok((rest, value)),
                Err(_) => stop(input, Reason::Varint),
            };
        }
    }
    stop(input, Reason::Varint)
}

fn required<'i, T: Nullable>(input: &'i [u8], cx: Decode<'i>) -> Decoded<'i, T> {
    match T::decode_option(input, cx)? {
        (rest, Some(value)) => Ok((rest, value)),
        (_, None) => stop(input, Reason::Null),
    }
}

fn decode_bytes<'i>(input: &'i [u8], cx: Decode<'i>, prefix: Prefix) -> Decoded<'i, Option<Bytes>> {
    match decode_length(input, cx, prefix)? {
        (rest, None) => Ok((rest, None)),
        (rest, Some(length)) => {
            let (rest, slice) = take(length)(rest)?;
            Ok((rest, Some(cx.frame.slice_ref(slice))))
        }
    }
}

impl Wire for Str {
    fn decode<'i>(input: &'i [u8], cx: Decode<'i>) -> Decoded<'i, Self> {
        required(input, cx)
    }

    fn encode<S: Sink>(&self, out: &mut S, cx: Encode) {
        Self::encode_option(Some(self), out, cx);
    }
}

impl Nullable for Str {
    fn decode_option<'i>(input: &'i [u8], cx: Decode<'i>) -> Decoded<'i, Option<Self>> {
        match decode_bytes(input, cx, Prefix::I16)? {
            (rest, None) => Ok((rest, None)),
            (rest, Some(bytes)) => match Self::try_from(bytes) {
                Ok(text) => Ok((rest, Some(text))),
                Err(_) => stop(input, Reason::Utf8),
            },
        }
    }

    fn encode_option<S: Sink>(value: Option<&Self>, out: &mut S, cx: Encode) {
        encode_length(value.map(|text| text.len()), out, cx, Prefix::I16);
        if let Some(text) = value {
            out.put(text.as_bytes());
        }
    }
}

impl Wire for Bytes {
    fn decode<'i>(input: &'i [u8], cx: Decode<'i>) -> Decoded<'i, Self> {
        required(input, cx)
    }

    fn encode<S: Sink>(&self, out: &mut S, cx: Encode) {
        Self::encode_option(Some(self), out, cx);
    }
}

impl Nullable for Bytes {
    fn decode_option<'i>(input: &'i [u8], cx: Decode<'i>) -> Decoded<'i, Option<Self>> {
        decode_bytes(input, cx, Prefix::I32)
    }

    fn encode_option<S: Sink>(value: Option<&Self>, out: &mut S, cx: Encode) {
        encode_length(value.map(Self::len), out, cx, Prefix::I32);
        if let Some(bytes) = value {
            out.link(bytes);
        }
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn decode<'i>(input: &'i [u8], cx: Decode<'i>) -> Decoded<'i, Self> {
        required(input, cx)
    }

    fn encode<S: Sink>(&self, out: &mut S, cx: Encode) {
        Self::encode_option(Some(self), out, cx);
    }

    fn errors(&self, seen: &mut impl FnMut(i16)) {
        self.iter().for_each(|element| element.errors(seen));
    }
}

impl<T: Wire> Nullable for Vec<T> {
    fn decode_option<'i>(input: &'i [u8], cx: Decode<'i>) -> Decoded<'i, Option<Self>> {
        let (mut rest, Some(count)) = decode_length(input, cx, Prefix::I32)? else {
            return decode_length(input, cx, Prefix::I32).map(|(rest, _)| (rest, None));
        };
        let Some(budget) = cx.budget.get().checked_sub(count * size_of::<T>()) else {
            return stop(input, Reason::TooManyElements);
        };
        cx.budget.set(budget);
        let mut elements = Self::with_capacity(count);
        for _ in 0..count {
            let (after, element) = T::decode(rest, cx)?;
            rest = after;
            elements.push(element);
        }
        Ok((rest, Some(elements)))
    }

    fn encode_option<S: Sink>(value: Option<&Self>, out: &mut S, cx: Encode) {
        encode_length(value.map(Self::len), out, cx, Prefix::I32);
        for element in value.into_iter().flatten() {
            element.encode(out, cx);
        }
    }
}

/// Record batches as a field: bytes of a frame, or ranges of the files they are stored in.
#[derive(Clone, Debug, Default)]
pub enum Records {
    /// No field value; Kafka's default.
    #[default]
    Null,
    /// Batches in memory.
    Bytes(Bytes),
    /// Batches in files, one after the other.
    Stored(Vec<FileRange>),
}

impl Records {
    /// Present, with no batch in it.
    pub const EMPTY: Self = Self::Bytes(Bytes::new());

    /// Bytes of all batches together.
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Null => 0,
            Self::Bytes(bytes) => bytes.len(),
            Self::Stored(ranges) => ranges.iter().map(|range| range.length).sum(),
        }
    }
}

impl PartialEq for Records {
    /// Compares bytes in memory; stored ranges are equal to nothing, since that would take a read.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bytes(ours), Self::Bytes(theirs)) => ours == theirs,
            _ => false,
        }
    }
}

impl Wire for Records {
    fn decode<'i>(input: &'i [u8], cx: Decode<'i>) -> Decoded<'i, Self> {
        let (rest, bytes) = decode_bytes(input, cx, Prefix::I32)?;
        Ok((rest, bytes.map_or(Self::Null, Self::Bytes)))
    }

    fn encode<S: Sink>(&self, out: &mut S, cx: Encode) {
        match self {
            Self::Null => encode_length(None, out, cx, Prefix::I32),
            Self::Bytes(bytes) => bytes.encode(out, cx),
            Self::Stored(ranges) => {
                encode_length(Some(self.size_bytes()), out, cx, Prefix::I32);
                for range in ranges {
                    out.range(range);
                }
            }
        }
    }
}

/// Reads a tag section and hands each field's tag and data to `known`, which returns whether it knew the tag.
///
/// # Errors
/// Truncation, or what `known` gives.
pub fn tagged_fields<'i>(
    input: &'i [u8],
    place: &'static str,
    mut known: impl FnMut(u32, &'i [u8]) -> Result<(), nom::Err<DecodeError>>,
) -> Decoded<'i, ()> {
    let (mut input, count) = named(uvarint(input), place)?;
    for _ in 0..count {
        let (rest, tag) = named(uvarint(input), place)?;
        let (rest, size) = named(uvarint(rest), place)?;
        let (rest, data) = named(take(size as usize)(rest), place)?;
        known(tag, data)?;
        input = rest;
    }
    Ok((input, ()))
}
