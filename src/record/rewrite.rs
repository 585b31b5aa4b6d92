//! What compaction does to a stored batch: its records one by one, as the bytes they are, and a batch of those that are kept.
//! Offsets, sequences and what the batch says of its producer never change.

use std::io::Read;

use super::TimestampType;
use super::batch::{BatchHeader, HEADER_BYTES, NO_TIMESTAMP, UNCOUNTED_BYTES};
use super::compression::{Codec, compress, decompress_stream};
use super::records::{offset, timestamp};
use super::validate::InvalidBatch;
use super::varint::{varint_bytes, varlong_bytes, write_varint, write_varlong};
use super::walk::{Block, Input, MalformedRecord, length, nullable_length};
use crate::clock::TimestampMs;

/// A record where it lies. Its headers were looked at when it was stored, and are passed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawRecord<'b> {
    /// Its offset in the log.
    pub offset: i64,
    /// Milliseconds since the epoch by the batch's clock; -1 if it has none.
    pub timestamp: TimestampMs,
    /// The key; `None` is null.
    pub key: Option<&'b [u8]>,
    /// Whether the value is other than null: if not, it is a tombstone.
    pub has_value: bool,
    attributes: u8,
    offset_delta: i32,
    /// All of it, its length included.
    whole: &'b [u8],
    /// What follows the offset delta.
    contents: &'b [u8],
}

/// The records of the batch in one block: the payload itself, or what `scratch` takes of it decompressed, which may be at most
/// `max_decompressed_bytes`.
pub fn block<'b>(
    header: &BatchHeader,
    payload: &'b [u8],
    max_decompressed_bytes: usize,
    scratch: &'b mut Vec<u8>,
) -> Result<&'b [u8], InvalidBatch> {
    let codec = header.attributes.codec()?;
    // A batch that compaction has emptied keeps no compressed nothing.
    if codec == Codec::None || payload.is_empty() {
        return Ok(payload);
    }
    scratch.clear();
    let limit = (max_decompressed_bytes as u64).saturating_add(1);
    decompress_stream(codec, payload)
        .and_then(|stream| stream.take(limit).read_to_end(scratch))
        .map_err(|source| InvalidBatch::Decompression { codec, source })?;
    match scratch.len() > max_decompressed_bytes {
        true => Err(InvalidBatch::DecompressedTooLarge { max_bytes: max_decompressed_bytes }),
        false => Ok(scratch),
    }
}

/// The records in the [`block`] of a batch, in order. Ends after the first error.
pub fn raw_records<'b>(header: &BatchHeader, block: &'b [u8]) -> RawRecords<'b> {
    RawRecords { header: *header, block: Block::new(block), index: 0 }
}

/// The records of a batch.
pub struct RawRecords<'b> {
    header: BatchHeader,
    block: Block<'b>,
    index: i32,
}

impl<'b> Iterator for RawRecords<'b> {
    type Item = Result<RawRecord<'b>, InvalidBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.header.record_count {
            return None;
        }
        let index = self.index;
        match self.read() {
            Ok(record) => {
                self.index += 1;
                Some(Ok(record))
            }
            Err(cause) => {
                self.index = self.header.record_count;
                Some(Err(InvalidBatch::MalformedRecord { index, cause }))
            }
        }
    }
}

impl<'b> RawRecords<'b> {
    fn read(&mut self) -> Result<RawRecord<'b>, MalformedRecord> {
        let from_here = self.block.rest();
        let record_bytes = length(self.block.varint()?)?;
        let mut fields = Block::new(self.block.take(record_bytes)?);
        let whole = &from_here[..from_here.len() - self.block.rest().len()];
        let attributes = fields.byte()?;
        let timestamp_delta = fields.varlong()?;
        let offset_delta = fields.varint()?;
        let contents = fields.rest();
        let key = nullable_length(fields.varint()?)?.map(|bytes| fields.take(bytes)).transpose()?;
        let has_value = nullable_length(fields.varint()?)?.is_some();
        Ok(RawRecord {
            offset: offset(&self.header, offset_delta),
            timestamp: timestamp(&self.header, timestamp_delta),
            key,
            has_value,
            attributes,
            offset_delta,
            whole,
            contents,
        })
    }
}

/// The batch that is left of another one, in the making.
#[derive(Debug)]
pub struct KeptBatch {
    header: BatchHeader,
    block: Vec<u8>,
    /// Whether the time that deltas count from is another one now.
    is_moved: bool,
}

impl KeptBatch {
    /// Nothing of `original` yet. With `delete_horizon_ms` its tombstones (of a control batch: itself) may go at that time; one
    /// that it has already stays.
    pub fn of(original: &BatchHeader, delete_horizon_ms: Option<TimestampMs>) -> Self {
        let mut header = BatchHeader { record_count: 0, ..*original };
        let is_moved = delete_horizon_ms.is_some() && !original.attributes.has_delete_horizon();
        if let (true, Some(horizon_ms)) = (is_moved, delete_horizon_ms) {
            header.attributes = header.attributes.with_delete_horizon(true);
            header.base_timestamp = horizon_ms;
        }
        if header.attributes.timestamp_type() == TimestampType::CreateTime {
            header.max_timestamp = NO_TIMESTAMP;
        }
        Self { header, block: Vec::new(), is_moved }
    }

    /// Adds a record of the original.
    pub fn push(&mut self, record: &RawRecord<'_>) {
        self.header.record_count += 1;
        self.header.max_timestamp = self.header.max_timestamp.max(record.timestamp);
        if !self.is_moved {
            return self.block.extend_from_slice(record.whole);
        }
        let timestamp_delta = record.timestamp.wrapping_sub(self.header.base_timestamp);
        let bytes =
            1 + varlong_bytes(timestamp_delta) + varint_bytes(record.offset_delta) + record.contents.len();
        let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
        write_varint(bytes, &mut self.block);
        self.block.push(record.attributes);
        write_varlong(timestamp_delta, &mut self.block);
        write_varint(record.offset_delta, &mut self.block);
        self.block.extend_from_slice(record.contents);
    }

    /// Appends the batch to `out`, its records compressed as those of the original were; its header.
    pub fn write(mut self, out: &mut Vec<u8>) -> Result<BatchHeader, InvalidBatch> {
        let payload = match self.header.attributes.codec()? {
            Codec::None => std::mem::take(&mut self.block),
            codec => compress(codec, None, &self.block),
        };
        write(self.header, &payload, out)
    }
}

/// Appends to `out` what is left of a batch without records, so that its offsets and its producer's sequence stay known; its
/// header.
pub fn write_emptied(original: &BatchHeader, out: &mut Vec<u8>) -> Result<BatchHeader, InvalidBatch> {
    let attributes = original.attributes.with_codec(Codec::None).with_delete_horizon(false);
    let header = BatchHeader { attributes, base_timestamp: NO_TIMESTAMP, record_count: 0, ..*original };
    write(header, &[], out)
}

fn write(mut header: BatchHeader, payload: &[u8], out: &mut Vec<u8>) -> Result<BatchHeader, InvalidBatch> {
    let counted_bytes = HEADER_BYTES - UNCOUNTED_BYTES + payload.len();
    header.batch_length = i32::try_from(counted_bytes)
        .map_err(|_| InvalidBatch::DecompressedTooLarge { max_bytes: i32::MAX as usize })?;
    header.crc = header.checksum(payload);
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(payload);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::BatchBuilder;
    use super::super::records::{Record, records};
    use super::*;

    const FIRST: TimestampMs = 1_700_000_000_000;

    /// Ten records of five keys, with headers; every third is a tombstone.
    fn sample(codec: Codec) -> BatchBuilder {
        let mut builder = BatchBuilder::new().codec(codec).producer(7, 2, 40);
        for number in 0..10i64 {
            let key = format!("key {}", number % 5);
            let value = format!("value {number}");
            let value = (number % 3 != 0).then_some(value.as_bytes());
            builder.push(FIRST + number * 1000 % 4000, Some(key.as_bytes()), value, &[("n", Some(b"1"))]);
        }
        builder
    }

    fn whole(batch: &[u8]) -> (BatchHeader, Vec<Record>) {
        let header = BatchHeader::parse(batch).unwrap();
        let payload = Bytes::copy_from_slice(&batch[HEADER_BYTES..]);
        assert_eq!((header.size_bytes(), header.crc), (batch.len(), header.checksum(&payload)));
        (header, records(&header, &payload, 1 << 20).unwrap().map(Result::unwrap).collect())
    }

    /// What is left of a batch when the records at these places are kept.
    fn keep(batch: &[u8], places: &[usize], horizon_ms: Option<i64>) -> Vec<u8> {
        let header = BatchHeader::parse(batch).unwrap();
        let mut scratch = Vec::new();
        let block = block(&header, &batch[HEADER_BYTES..], 1 << 20, &mut scratch).unwrap();
        let raw: Vec<_> = raw_records(&header, block).map(Result::unwrap).collect();
        let mut kept = KeptBatch::of(&header, horizon_ms);
        places.iter().for_each(|place| kept.push(&raw[*place]));
        let mut out = Vec::new();
        assert_eq!(kept.write(&mut out).unwrap(), BatchHeader::parse(&out).unwrap());
        out
    }

    #[test]
    fn records_are_seen_as_readers_see_them() {
        for codec in Codec::ALL {
            let mut batch = sample(codec).build_valid();
            batch.assign(500, 3);
            let bytes = batch.to_bytes();
            let (header, expected) = whole(&bytes);
            let mut scratch = Vec::new();
            let block = block(&header, &bytes[HEADER_BYTES..], 1 << 20, &mut scratch).unwrap();
            let raw: Vec<_> = raw_records(&header, block).map(Result::unwrap).collect();
            assert_eq!(raw.len(), expected.len());
            for (raw, expected) in raw.iter().zip(&expected) {
                assert_eq!((raw.offset, raw.timestamp), (expected.offset, expected.timestamp));
                assert_eq!((raw.key, raw.has_value), (expected.key.as_deref(), expected.value.is_some()));
            }
        }
    }

    #[test]
    fn what_is_kept_reads_back_unchanged_with_and_without_a_delete_horizon() {
        let places = [1, 4, 9];
        for codec in Codec::ALL {
            for horizon_ms in [None, Some(FIRST + 86_400_000)] {
                let mut batch = sample(codec).build_valid();
                batch.assign(500, 3);
                let (before, all) = whole(&batch.to_bytes());
                let kept = keep(&batch.to_bytes(), &places, horizon_ms);
                let (after, left) = whole(&kept);
                let expected: Vec<_> = places.iter().map(|place| all[*place].clone()).collect();
                assert_eq!(left, expected, "{codec:?} {horizon_ms:?}");
                assert_eq!((after.base_offset, after.last_offset()), (500, 509));
                assert_eq!((after.producer_id, after.producer_epoch, after.base_sequence), (7, 2, 40));
                assert_eq!(after.partition_leader_epoch, 3);
                assert_eq!(after.max_timestamp, left.iter().map(|record| record.timestamp).max().unwrap());
                assert_eq!(after.attributes.codec().unwrap(), codec);
                assert_eq!(after.delete_horizon_ms(), horizon_ms);
                assert_eq!(before.delete_horizon_ms(), None);
                // Once set it stays, whatever a later pass would set.
                let again = keep(&kept, &[0, 2], Some(FIRST));
                let (header, left) = whole(&again);
                assert_eq!(left, [expected[0].clone(), expected[2].clone()]);
                assert_eq!(header.delete_horizon_ms(), horizon_ms.or(Some(FIRST)));
            }
        }
    }

    #[test]
    fn the_time_of_the_log_stays_that_of_all_records() {
        let mut batch = sample(Codec::None).log_append_time(FIRST + 77).build_valid();
        batch.assign(0, 0);
        let (header, left) = whole(&keep(&batch.to_bytes(), &[3], Some(FIRST + 5)));
        assert_eq!((header.max_timestamp, left[0].timestamp), (FIRST + 77, FIRST + 77));
    }

    #[test]
    fn an_emptied_batch_keeps_its_offsets_and_its_producers_sequence() {
        let mut batch = sample(Codec::Zstd).build_valid();
        batch.assign(500, 3);
        let mut out = Vec::new();
        write_emptied(batch.header(), &mut out).unwrap();
        let (header, left) = whole(&out);
        assert_eq!((out.len(), left.len(), header.record_count), (HEADER_BYTES, 0, 0));
        assert_eq!((header.base_offset, header.last_offset()), (500, 509));
        assert_eq!(header.last_sequence(), batch.header().last_sequence());
        assert_eq!(header.max_timestamp, batch.header().max_timestamp);
        let mut scratch = Vec::new();
        assert_eq!(raw_records(&header, block(&header, &[], 0, &mut scratch).unwrap()).count(), 0);
    }

    #[test]
    fn what_is_no_record_is_an_error_and_no_panic() {
        let batch = sample(Codec::None).build_valid();
        let payload = batch.payload();
        for end in 0..payload.len() {
            let read: Result<Vec<_>, _> = raw_records(batch.header(), &payload[..end]).collect();
            assert!(read.is_err(), "cut at {end}");
        }
        let mut scratch = Vec::new();
        let large = sample(Codec::Gzip).build_valid();
        let refused = block(large.header(), large.payload(), 100, &mut scratch);
        assert!(matches!(refused, Err(InvalidBatch::DecompressedTooLarge { max_bytes: 100 })));
    }
}
