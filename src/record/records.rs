//! Reading the records of a stored batch: whole ones for who wants the data, and where and when they are for searches.

use std::io::Read;

use bytes::Bytes;

use super::TimestampType;
use super::batch::{BatchHeader, HEADER_BYTES};
use super::compression::{Codec, Decompress, decompress_stream};
use super::validate::InvalidBatch;
use super::walk::{
    Block, Input, MalformedRecord, STREAM_BUFFER_BYTES, Skimmed, StreamFailure, Streamed, length,
    nullable_length, skim,
};
use crate::clock::TimestampMs;

/// A record with its place and time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Its offset in the log.
    pub offset: i64,
    /// Milliseconds since the epoch by the batch's clock; -1 if it has none.
    pub timestamp: TimestampMs,
    /// The key; `None` is null, which is not the same as empty.
    pub key: Option<Bytes>,
    /// The value; `None` is null: a tombstone where the topic is compacted.
    pub value: Option<Bytes>,
    /// In the producer's order; keys may repeat.
    pub headers: Vec<Header>,
}

/// A header of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// UTF-8 in every batch that passed validation.
    pub key: Bytes,
    /// The value; `None` is null.
    pub value: Option<Bytes>,
}

/// Takes the batch at the front of stored batches; `None` where what is left holds no whole batch.
pub fn split_batch(batches: &mut Bytes) -> Option<(BatchHeader, Bytes)> {
    let header = BatchHeader::parse(batches).ok()?;
    if batches.len() < header.size_bytes() {
        return None;
    }
    let mut batch = batches.split_to(header.size_bytes());
    Some((header, batch.split_off(HEADER_BYTES)))
}

/// A record where it lies: what [`Record`] is made from, for who looks at many and keeps none.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'b> {
    /// Its offset in the log.
    pub offset: i64,
    /// Milliseconds since the epoch by the batch's clock; -1 if it has none.
    pub timestamp: TimestampMs,
    /// The key; `None` is null.
    pub key: Option<&'b [u8]>,
    /// The value; `None` is null.
    pub value: Option<&'b [u8]>,
    /// Their keys and values, in the producer's order.
    pub headers: HeaderViews<'b>,
}

impl RecordView<'_> {
    /// The record, its contents slices of `block`, which must be what this is a view of.
    pub fn to_record(self, block: &Bytes) -> Record {
        let slice = |bytes: &[u8]| block.slice_ref(bytes);
        let mut headers = Vec::with_capacity(self.headers.left);
        headers.extend(self.headers.map(|(key, value)| Header { key: slice(key), value: value.map(slice) }));
        Record {
            offset: self.offset,
            timestamp: self.timestamp,
            key: self.key.map(slice),
            value: self.value.map(slice),
            headers,
        }
    }
}

/// The headers of a record where they lie.
#[derive(Clone, Copy, Debug)]
pub struct HeaderViews<'b> {
    /// Read over once, so that they are sound.
    fields: Block<'b>,
    left: usize,
}

impl<'b> Iterator for HeaderViews<'b> {
    type Item = (&'b [u8], Option<&'b [u8]>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        header(&mut self.fields).ok()
    }
}

/// The block of records of the batch that `header` and `payload` are: the payload itself, or what it is decompressed to, which
/// may have at most `max_decompressed_bytes`.
pub fn block(
    header: &BatchHeader,
    payload: &Bytes,
    max_decompressed_bytes: usize,
) -> Result<Bytes, InvalidBatch> {
    decompress_all(header.attributes.codec()?, payload, max_decompressed_bytes)
}

/// The records of the batch that `header` and `payload` are, in order. The keys and values are slices of its [`block`].
pub fn records(
    header: &BatchHeader,
    payload: &Bytes,
    max_decompressed_bytes: usize,
) -> Result<Records, InvalidBatch> {
    Ok(records_in(header, block(header, payload, max_decompressed_bytes)?))
}

/// The records in the [`block`] of a batch, in order.
pub fn records_in(header: &BatchHeader, block: Bytes) -> Records {
    Records { block, walk: Walk::over(header) }
}

/// The records in the [`block`] of a batch, in order, where they lie.
pub fn record_views<'b>(header: &BatchHeader, block: &'b [u8]) -> RecordViews<'b> {
    RecordViews { block, walk: Walk::over(header) }
}

/// The records of a batch. Ends after the first error.
pub struct Records {
    block: Bytes,
    walk: Walk,
}

impl Iterator for Records {
    type Item = Result<Record, InvalidBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = self.walk.next(&self.block)?;
        Some(record.map(|record| record.to_record(&self.block)))
    }
}

/// The records of a batch where they lie. Ends after the first error.
pub struct RecordViews<'b> {
    block: &'b [u8],
    walk: Walk,
}

impl<'b> Iterator for RecordViews<'b> {
    type Item = Result<RecordView<'b>, InvalidBatch>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.walk.next(self.block)
    }
}

/// How far a batch has been read.
struct Walk {
    header: BatchHeader,
    /// Bytes of the block.
    at: usize,
    index: i32,
    is_over: bool,
}

impl Walk {
    fn over(header: &BatchHeader) -> Self {
        Self { header: *header, at: 0, index: 0, is_over: false }
    }

    #[inline]
    fn next<'b>(&mut self, block: &'b [u8]) -> Option<Result<RecordView<'b>, InvalidBatch>> {
        if self.is_over {
            return None;
        }
        let index = self.index;
        let mut rest = Block::new(&block[self.at..]);
        if index >= self.header.record_count {
            self.is_over = true;
            let left = InvalidBatch::BytesAfterRecords(self.header.record_count);
            return (!rest.is_at_end()).then_some(Err(left));
        }
        let record = view(&self.header, &mut rest);
        self.at += rest.position() as usize;
        self.index += 1;
        self.is_over = record.is_err();
        Some(record.map_err(|cause| InvalidBatch::MalformedRecord { index, cause }))
    }
}

#[inline]
fn view<'b>(header: &BatchHeader, block: &mut Block<'b>) -> Result<RecordView<'b>, MalformedRecord> {
    let record_bytes = length(block.varint()?)?;
    let mut fields = Block::new(block.take(record_bytes)?);
    fields.byte()?;
    let timestamp_delta = fields.varlong()?;
    let offset_delta = fields.varint()?;
    let key = nullable_slice(&mut fields)?;
    let value = nullable_slice(&mut fields)?;
    let header_count = length(fields.varint()?)?;
    let headers = HeaderViews { fields, left: header_count };
    for _ in 0..header_count {
        self::header(&mut fields)?;
    }
    if !fields.is_at_end() {
        return Err(MalformedRecord::WrongLength);
    }
    Ok(RecordView {
        offset: offset(header, offset_delta),
        timestamp: timestamp(header, timestamp_delta),
        key,
        value,
        headers,
    })
}

#[inline]
fn header<'b>(fields: &mut Block<'b>) -> Result<(&'b [u8], Option<&'b [u8]>), MalformedRecord> {
    let key = nullable_slice(fields)?.ok_or(MalformedRecord::NullHeaderKey)?;
    Ok((key, nullable_slice(fields)?))
}

#[inline]
fn nullable_slice<'b>(fields: &mut Block<'b>) -> Result<Option<&'b [u8]>, MalformedRecord> {
    nullable_length(fields.varint()?)?.map(|bytes| fields.take(bytes)).transpose()
}

/// Where a record is and of when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Its offset in the log.
    pub offset: i64,
    /// Milliseconds since the epoch by the batch's clock; -1 if it has none.
    pub timestamp: TimestampMs,
}

/// The offsets and timestamps of the records of a batch, in order; keys and values are passed over, and a compressed
/// payload is decompressed only as far as the iterator is driven, `max_decompressed_bytes` at most.
pub fn stamps<'a>(
    header: &BatchHeader,
    payload: &'a [u8],
    max_decompressed_bytes: usize,
) -> Result<Stamps<'a>, InvalidBatch> {
    let source = match header.attributes.codec()? {
        Codec::None => Source::Block(Block::new(payload)),
        codec => {
            let reader = decompress_stream(codec, payload)
                .map_err(|source| InvalidBatch::Decompression { codec, source })?;
            let stream = Streamed::new(reader, vec![0; STREAM_BUFFER_BYTES], max_decompressed_bytes);
            Source::Stream { stream: Box::new(stream), codec, max_bytes: max_decompressed_bytes }
        }
    };
    Ok(Stamps { header: *header, source, index: 0 })
}

/// The offsets and timestamps of a batch's records. Ends after the first error.
pub struct Stamps<'a> {
    header: BatchHeader,
    source: Source<'a>,
    index: i32,
}

enum Source<'a> {
    Block(Block<'a>),
    Stream { stream: Box<Streamed<Decompress<'a>, Vec<u8>>>, codec: Codec, max_bytes: usize },
}

impl Source<'_> {
    fn skim(&mut self, index: i32) -> Result<Skimmed, InvalidBatch> {
        let (skimmed, failure) = match self {
            Self::Block(block) => (skim(block, usize::MAX), None),
            Self::Stream { stream, codec, max_bytes } => {
                let skimmed = skim(&mut **stream, usize::MAX);
                (skimmed, stream.failure().map(|failure| invalid_stream(failure, *codec, *max_bytes)))
            }
        };
        match failure {
            Some(failure) => Err(failure),
            None => skimmed.map_err(|cause| InvalidBatch::MalformedRecord { index, cause }),
        }
    }
}

impl Iterator for Stamps<'_> {
    type Item = Result<Stamp, InvalidBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.header.record_count {
            return None;
        }
        let skimmed = self.source.skim(self.index);
        self.index = if skimmed.is_ok() { self.index + 1 } else { self.header.record_count };
        Some(skimmed.map(|record| Stamp {
            offset: offset(&self.header, record.offset_delta),
            timestamp: timestamp(&self.header, record.timestamp_delta),
        }))
    }
}

/// The block of records in `payload`: itself if it is not compressed.
pub(super) fn decompress_all(codec: Codec, payload: &Bytes, max_bytes: usize) -> Result<Bytes, InvalidBatch> {
    if codec == Codec::None {
        return Ok(payload.clone());
    }
    let failed = |source| InvalidBatch::Decompression { codec, source };
    let mut block = Vec::new();
    decompress_stream(codec, payload)
        .and_then(|stream| stream.take((max_bytes as u64).saturating_add(1)).read_to_end(&mut block))
        .map_err(failed)?;
    if block.len() > max_bytes {
        return Err(InvalidBatch::DecompressedTooLarge { max_bytes });
    }
    Ok(Bytes::from(block))
}

/// A failure of the stream that a batch's records were read from.
pub(super) fn invalid_stream(failure: StreamFailure, codec: Codec, max_bytes: usize) -> InvalidBatch {
    match failure {
        StreamFailure::Decoder(source) => InvalidBatch::Decompression { codec, source },
        StreamFailure::TooLarge => InvalidBatch::DecompressedTooLarge { max_bytes },
    }
}

pub(super) fn offset(header: &BatchHeader, offset_delta: i32) -> i64 {
    header.base_offset.wrapping_add(i64::from(offset_delta))
}

pub(super) fn timestamp(header: &BatchHeader, timestamp_delta: i64) -> TimestampMs {
    match header.attributes.timestamp_type() {
        TimestampType::CreateTime => header.base_timestamp.wrapping_add(timestamp_delta),
        TimestampType::LogAppendTime => header.max_timestamp,
    }
}

#[cfg(test)]
mod tests {
    use super::super::builder::BatchBuilder;
    use super::super::compression::compress;
    use super::super::validate::ValidBatch;
    use super::*;

    fn sample(codec: Codec) -> ValidBatch {
        let mut batch = BatchBuilder::new()
            .record_with_headers(
                100,
                Some(b"k"),
                Some(b"v"),
                &[("a", Some(b"1")), ("a", None), ("", Some(b""))],
            )
            .record(90, None, None)
            .record(-1, Some(b""), Some(b""))
            .codec(codec)
            .build_valid();
        batch.assign(1_000, 4);
        batch
    }

    fn all(header: &BatchHeader, payload: &Bytes) -> Result<Vec<Record>, InvalidBatch> {
        records(header, payload, 1 << 20)?.collect()
    }

    fn all_stamps(header: &BatchHeader, payload: &Bytes) -> Result<Vec<Stamp>, InvalidBatch> {
        stamps(header, payload, 1 << 20)?.collect()
    }

    fn bytes(text: &'static str) -> Option<Bytes> {
        Some(Bytes::from(text))
    }

    #[test]
    fn null_and_empty_headers_offsets_and_times_are_as_produced() {
        let header = |key: &'static str, value| Header { key: Bytes::from(key), value };
        let expected = [
            Record {
                offset: 1_000,
                timestamp: 100,
                key: bytes("k"),
                value: bytes("v"),
                headers: vec![header("a", bytes("1")), header("a", None), header("", bytes(""))],
            },
            Record { offset: 1_001, timestamp: 90, key: None, value: None, headers: vec![] },
            Record { offset: 1_002, timestamp: -1, key: bytes(""), value: bytes(""), headers: vec![] },
        ];
        for codec in Codec::ALL {
            let batch = sample(codec);
            assert_eq!(all(batch.header(), batch.payload()).unwrap(), expected, "{codec:?}");
            let stamps = all_stamps(batch.header(), batch.payload()).unwrap();
            let expected = expected
                .each_ref()
                .map(|record| Stamp { offset: record.offset, timestamp: record.timestamp });
            assert_eq!(stamps, expected, "{codec:?}");
        }
    }

    #[test]
    fn a_view_shows_what_the_record_has() {
        let batch = sample(Codec::Lz4);
        let block = block(batch.header(), batch.payload(), 1 << 20).unwrap();
        let mut views = record_views(batch.header(), &block);
        let first = views.next().unwrap().unwrap();
        assert_eq!((first.offset, first.timestamp), (1_000, 100));
        assert_eq!((first.key, first.value), (Some(&b"k"[..]), Some(&b"v"[..])));
        let headers: Vec<_> = first.headers.collect();
        assert_eq!(headers, [(&b"a"[..], Some(&b"1"[..])), (b"a", None), (b"", Some(b""))]);
        assert!(block.as_ptr_range().contains(&first.value.unwrap().as_ptr()));
        assert!(views.all(|view| view.unwrap().headers.next().is_none()));
    }

    #[test]
    fn uncompressed_keys_and_values_are_slices_of_the_payload() {
        let batch = sample(Codec::None);
        let first = all(batch.header(), batch.payload()).unwrap().remove(0);
        assert!(batch.payload().as_ptr_range().contains(&first.value.unwrap().as_ptr()));
    }

    #[test]
    fn the_brokers_time_hides_the_producers() {
        let mut batch = sample(Codec::Gzip);
        batch.stamp_log_append_time(5_000);
        assert!(all(batch.header(), batch.payload()).unwrap().iter().all(|record| record.timestamp == 5_000));
        let stamps = all_stamps(batch.header(), batch.payload()).unwrap();
        assert!(stamps.len() == 3 && stamps.iter().all(|stamp| stamp.timestamp == 5_000));
    }

    #[test]
    fn a_compacted_batch_keeps_the_offsets_of_the_records_that_are_left() {
        let batch = sample(Codec::None);
        // Only the second record, whose length is the first byte after the first record.
        let first_bytes = 1 + batch.payload()[0] as usize / 2;
        let second_bytes = 1 + batch.payload()[first_bytes] as usize / 2;
        let payload = batch.payload().slice(first_bytes..first_bytes + second_bytes);
        let header = BatchHeader { record_count: 1, ..*batch.header() };
        let left = all(&header, &payload).unwrap();
        assert_eq!(left.iter().map(|record| record.offset).collect::<Vec<_>>(), [1_001]);
        assert_eq!(all_stamps(&header, &payload).unwrap(), [Stamp { offset: 1_001, timestamp: 90 }]);

        let empty = BatchHeader { record_count: 0, ..header };
        assert_eq!(all(&empty, &Bytes::new()).unwrap(), []);
        assert_eq!(all_stamps(&empty, &Bytes::new()).unwrap(), []);
    }

    #[test]
    fn a_torn_block_yields_its_whole_records_and_one_error() {
        for codec in Codec::ALL {
            let whole = sample(Codec::None);
            let payload = whole.payload();
            for end in 0..payload.len() {
                let torn = Bytes::from(compress(codec, None, &payload[..end]));
                let attributes = whole.header().attributes.with_codec(codec);
                let header = BatchHeader { attributes, ..*whole.header() };
                let mut read = records(&header, &torn, 1 << 20).unwrap();
                assert_eq!(read.by_ref().filter(Result::is_err).count(), 1, "{codec:?} {end}");
                assert!(read.next().is_none());
                assert!(matches!(
                    all_stamps(&header, &torn),
                    Err(InvalidBatch::MalformedRecord { cause: MalformedRecord::Truncated, .. })
                ));
            }
        }
    }

    #[test]
    fn what_follows_the_last_record_is_an_error() {
        let batch = sample(Codec::None);
        let longer = Bytes::from([&batch.payload()[..], b"?"].concat());
        let read: Vec<_> = records(batch.header(), &longer, 1 << 20).unwrap().collect();
        assert!(read[..3].iter().all(Result::is_ok));
        assert!(matches!(read[3..], [Err(InvalidBatch::BytesAfterRecords(3))]));
    }

    #[test]
    fn decompression_has_a_limit() {
        let batch = sample(Codec::Zstd);
        let block_bytes = sample(Codec::None).payload().len();
        assert!(records(batch.header(), batch.payload(), block_bytes).is_ok());
        assert!(matches!(
            records(batch.header(), batch.payload(), block_bytes - 1),
            Err(InvalidBatch::DecompressedTooLarge { max_bytes }) if max_bytes == block_bytes - 1
        ));
        let limited: Result<Vec<_>, _> =
            stamps(batch.header(), batch.payload(), block_bytes - 1).unwrap().collect();
        assert!(matches!(limited, Err(InvalidBatch::DecompressedTooLarge { .. })));
    }
}
