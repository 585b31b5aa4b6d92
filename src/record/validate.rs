//! The one check of a batch that a client sent, and the type that proves it. What passes can be read by every consumer;
//! what does not pass is refused as Kafka refuses it, in Kafka's order.

use std::cell::Cell;
use std::io;

use bytes::Bytes;

use super::TimestampType;
use super::batch::{BatchHeader, HEADER_BYTES, NO_TIMESTAMP, UNCOUNTED_BYTES};
use super::compression::{Codec, Compression, compress, decompress_stream, recompress};
use super::records::{decompress_all, invalid_stream};
use super::varint::{read_varint, read_varlong, varint_bytes, write_varint};
use super::walk::{Block, Input, MalformedRecord, STREAM_BUFFER_BYTES, Streamed, length, skim};
use crate::clock::TimestampMs;

/// What a topic and a broker ask of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// Largest batch, bytes as sent. `max.message.bytes`.
    pub max_message_bytes: usize,
    /// Largest batch that a segment can hold, bytes. `segment.bytes`.
    pub segment_bytes: usize,
    /// Whose clock the topic goes by. `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// The broker's time.
    pub now_ms: TimestampMs,
    /// How far a record's time may lie before now, ms, inclusive. `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// How far a record's time may lie after now, ms, inclusive. `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// Whether every record needs a key.
    pub compacted: bool,
    /// Largest record of a compressed batch, bytes after decompression. `max.decompressed.message.bytes`.
    pub max_decompressed_message_bytes: usize,
    /// Largest sum of the records of a compressed batch, bytes after decompression: what one request may cost.
    pub max_decompressed_batch_bytes: usize,
    /// What the records must be compressed with; `None` leaves them as they are. `compression.type`.
    pub compression: Option<Compression>,
    /// Whether the request's version knows zstd (Produce 7 and later). KIP-110.
    pub zstd_allowed: bool,
}

/// A record that makes its batch be refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordError {
    /// Index of the record in its batch.
    pub batch_index: i32,
    /// What is wrong, for the producer's log.
    pub message: String,
}

/// Most [`RecordError`]s that are told of one batch.
pub const RECORD_ERRORS_MAX: usize = 100;

/// Why a batch is refused.
#[derive(Debug, thiserror::Error)]
pub enum InvalidBatch {
    /// The bytes end before the batch does; no bytes at all are no batch.
    #[error("{have_bytes} bytes where a batch has {need_bytes}")]
    Truncated {
        /// Bytes that are there.
        have_bytes: usize,
        /// Bytes that would have to be.
        need_bytes: usize,
    },
    /// Something follows the batch: another one or a piece of one.
    #[error("{0} bytes follow the one batch allowed")]
    TrailingBytes(usize),
    /// The format version is not 2.
    #[error("batch format version {0}, only 2 is served")]
    Magic(i8),
    /// The length field leaves no room for a header.
    #[error("batch length {0} is smaller than a batch header")]
    Length(i32),
    /// The bytes are not those that the checksum was made of.
    #[error("checksum {stored:#010x} in the batch, {computed:#010x} of its bytes")]
    Checksum {
        /// As the header says.
        stored: u32,
        /// As the bytes are.
        computed: u32,
    },
    /// Larger than the topic allows.
    #[error("batch of {size_bytes} bytes, the topic allows {max_bytes}")]
    TooLarge {
        /// The batch's size.
        size_bytes: usize,
        /// `max.message.bytes`.
        max_bytes: usize,
    },
    /// Larger than a segment may be.
    #[error("batch of {size_bytes} bytes, a segment holds {max_bytes}")]
    LargerThanSegment {
        /// The batch's size.
        size_bytes: usize,
        /// `segment.bytes`.
        max_bytes: usize,
    },
    /// A codec number that no codec has.
    #[error("unknown codec {0}")]
    UnknownCodec(u8),
    /// zstd in a request whose version is older than zstd.
    #[error("zstd is not allowed in this version of the request")]
    ZstdTooOld,
    /// A client numbers from 0, brokers assign.
    #[error("base offset {0} in a produced batch, must be 0")]
    BaseOffset(i64),
    /// The header's two counts of records contradict each other, or there is no record.
    #[error("record count {record_count} with last offset delta {last_offset_delta}")]
    RecordCount {
        /// As the header says.
        record_count: i32,
        /// As the header says.
        last_offset_delta: i32,
    },
    /// Only brokers write markers.
    #[error("clients may not write control batches")]
    ControlBatch,
    /// An idempotent producer without a sequence number.
    #[error("producer {producer_id} sent base sequence {base_sequence}")]
    Sequence {
        /// As the header says.
        producer_id: i64,
        /// As the header says.
        base_sequence: i32,
    },
    /// A record that cannot be read.
    #[error("record {index}: {cause}")]
    MalformedRecord {
        /// Index of the record in its batch.
        index: i32,
        /// What is wrong.
        cause: MalformedRecord,
    },
    /// More in the block than the header counts.
    #[error("bytes follow the last of {0} records")]
    BytesAfterRecords(i32),
    /// The block is not what its codec writes.
    #[error("{} does not decompress: {source}", codec.name())]
    Decompression {
        /// The batch's codec.
        codec: Codec,
        /// What the decoder says.
        source: io::Error,
    },
    /// The block would decompress to more than allowed.
    #[error("more than {max_bytes} bytes after decompression")]
    DecompressedTooLarge {
        /// The limit.
        max_bytes: usize,
    },
    /// Records that may not be in this topic.
    #[error("{}", first_message(record_errors))]
    InvalidRecords {
        /// At most [`RECORD_ERRORS_MAX`], in order.
        record_errors: Vec<RecordError>,
    },
    /// Records whose timestamps may not be in this topic.
    #[error("{}", first_message(record_errors))]
    InvalidTimestamps {
        /// At most [`RECORD_ERRORS_MAX`], in order.
        record_errors: Vec<RecordError>,
    },
}

fn first_message(record_errors: &[RecordError]) -> &str {
    record_errors.first().map_or("", |error| &error.message)
}

/// A batch that was checked, or that the broker made: what a log may store. Its records are the received bytes.
#[derive(Clone, Debug)]
pub struct ValidBatch {
    header: BatchHeader,
    payload: Bytes,
}

impl ValidBatch {
    /// For makers of batches in this module: `header` must be true of `payload` but for its length and checksum, which
    /// are set here.
    pub(super) fn seal(mut header: BatchHeader, payload: Bytes) -> Self {
        let counted_bytes = HEADER_BYTES - UNCOUNTED_BYTES + payload.len();
        header.batch_length = i32::try_from(counted_bytes).expect("callers bound a batch far below 2 GiB");
        header.crc = header.checksum(&payload);
        Self { header, payload }
    }

    /// The header as it will be stored.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The records, as one block of the header's codec.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The header's bytes: with [`Self::payload`] behind them, the batch.
    pub fn header_bytes(&self) -> [u8; HEADER_BYTES] {
        self.header.encode()
    }

    /// Header and records in one piece: a copy, for who cannot write the two one after the other.
    pub fn to_bytes(&self) -> Bytes {
        [&self.header_bytes()[..], &self.payload[..]].concat().into()
    }

    /// Bytes of the whole batch.
    pub fn size_bytes(&self) -> usize {
        HEADER_BYTES + self.payload.len()
    }

    /// Gives the batch its place in a log. Not covered by the checksum.
    pub fn assign(&mut self, base_offset: i64, leader_epoch: i32) {
        self.header.base_offset = base_offset;
        self.header.partition_leader_epoch = leader_epoch;
    }

    /// Makes `now_ms` the time of every record: for topics that go by the broker's clock, at the append.
    pub fn stamp_log_append_time(&mut self, now_ms: TimestampMs) {
        self.set_timestamps(TimestampType::LogAppendTime, now_ms);
    }

    fn set_timestamps(&mut self, timestamp_type: TimestampType, max_timestamp: TimestampMs) {
        self.header.attributes = self.header.attributes.with_timestamp_type(timestamp_type);
        self.header.max_timestamp = max_timestamp;
        // The checksum could be patched without reading the payload, but for batches of the usual sizes the arithmetic
        // of that costs as much as the reading.
        self.header.crc = self.header.checksum(&self.payload);
    }
}

/// LZ4 or snappy above this size takes long enough to disturb a thread that serves sockets: it is quick, and holds at most
/// 255 times its bytes.
pub const COSTLY_QUICK_CODEC_BYTES: usize = 16 << 10;
/// Gzip or zstd above this size does: a kilobyte of zstd can hold 32 MiB.
pub const COSTLY_DENSE_CODEC_BYTES: usize = 1 << 10;

/// Whether [`validate`] of `batch`, with this compression in its rules, should run where it delays nobody. Cheap, and makes no
/// other claim on the bytes.
pub fn is_costly(batch: &Bytes, compression: Option<Compression>) -> bool {
    let costly = |codec| match codec {
        Codec::Snappy | Codec::Lz4 => batch.len() > COSTLY_QUICK_CODEC_BYTES,
        Codec::Gzip | Codec::Zstd => batch.len() > COSTLY_DENSE_CODEC_BYTES,
        Codec::None => false,
    };
    match BatchHeader::parse(batch).and_then(|header| header.attributes.codec()) {
        Ok(codec) => match compression.map(|to| to.codec).filter(|to| *to != codec) {
            // What comes out of one codec and goes into the other may be far more than either.
            Some(to) if codec != Codec::None && to != Codec::None => true,
            to => costly(codec) || to.is_some_and(costly),
        },
        // What is not a batch is refused at once.
        Err(_) => false,
    }
}

/// Checks the record field of a Produce request for one partition: exactly one batch that `rules` allow and that every
/// consumer can read. The result's payload is a slice of `batches`, unless the rules want another codec. Two things are put right rather than refused, as in
/// Kafka: a largest timestamp or timestamp type that the records belie (on topics that go by the producers' clocks; the
/// others are stamped at the append), and offset deltas that are not 0, 1, 2…
pub fn validate(batches: Bytes, rules: &Rules) -> Result<ValidBatch, InvalidBatch> {
    let header = one_batch(&batches)?;
    let codec = check_header(&header, &batches, rules)?;
    let payload = batches.slice(HEADER_BYTES..);

    let walked = walk(&header, codec, &payload, rules)?;
    let mut batch = ValidBatch { header, payload };
    let mut block_bytes = walked.block_bytes;
    if !walked.dense_offsets {
        (batch, block_bytes) = renumber(batch, codec, rules)?;
    }
    let timestamps = (TimestampType::CreateTime, walked.max_timestamp);
    if rules.timestamp_type == TimestampType::CreateTime
        && timestamps != (batch.header.attributes.timestamp_type(), batch.header.max_timestamp)
    {
        batch.set_timestamps(timestamps.0, timestamps.1);
    }
    if let Some(to) = rules.compression.filter(|to| to.codec != codec) {
        batch = with_codec(batch, codec, block_bytes, to, rules)?;
    }
    if batch.size_bytes() > rules.segment_bytes {
        return Err(InvalidBatch::LargerThanSegment {
            size_bytes: batch.size_bytes(),
            max_bytes: rules.segment_bytes,
        });
    }
    Ok(batch)
}

fn one_batch(batches: &[u8]) -> Result<BatchHeader, InvalidBatch> {
    let header = BatchHeader::parse(batches)?;
    match batches.len().checked_sub(header.size_bytes()) {
        Some(0) => Ok(header),
        Some(trailing_bytes) => Err(InvalidBatch::TrailingBytes(trailing_bytes)),
        None => Err(InvalidBatch::Truncated { have_bytes: batches.len(), need_bytes: header.size_bytes() }),
    }
}

fn check_header(header: &BatchHeader, batch: &[u8], rules: &Rules) -> Result<Codec, InvalidBatch> {
    let codec = header.attributes.codec()?;
    if codec == Codec::Zstd && !rules.zstd_allowed {
        return Err(InvalidBatch::ZstdTooOld);
    }
    if header.base_offset != 0 {
        return Err(InvalidBatch::BaseOffset(header.base_offset));
    }
    check_size(batch.len(), rules)?;
    let computed = header.checksum(&batch[HEADER_BYTES..]);
    if computed != header.crc {
        return Err(InvalidBatch::Checksum { stored: header.crc, computed });
    }
    if header.record_count < 1 || header.last_offset_delta != header.record_count - 1 {
        let BatchHeader { record_count, last_offset_delta, .. } = *header;
        return Err(InvalidBatch::RecordCount { record_count, last_offset_delta });
    }
    if header.attributes.is_control() {
        return Err(InvalidBatch::ControlBatch);
    }
    if header.has_producer_id() && header.base_sequence < 0 {
        let BatchHeader { producer_id, base_sequence, .. } = *header;
        return Err(InvalidBatch::Sequence { producer_id, base_sequence });
    }
    Ok(codec)
}

fn check_size(size_bytes: usize, rules: &Rules) -> Result<(), InvalidBatch> {
    // The length field has 31 bits, whatever the topic says.
    let max_bytes = rules.max_message_bytes.min(i32::MAX as usize);
    if size_bytes > max_bytes { Err(InvalidBatch::TooLarge { size_bytes, max_bytes }) } else { Ok(()) }
}

/// What reading over the records has shown.
struct Walked {
    max_timestamp: TimestampMs,
    dense_offsets: bool,
    /// Bytes of the records, decompressed.
    block_bytes: u64,
}

fn walk(header: &BatchHeader, codec: Codec, payload: &[u8], rules: &Rules) -> Result<Walked, InvalidBatch> {
    if codec == Codec::None {
        return walk_records(&mut Block::new(payload), header, usize::MAX, rules);
    }
    thread_local! {
        static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    }
    let decompressed =
        decompress_stream(codec, payload).map_err(|source| InvalidBatch::Decompression { codec, source })?;
    let mut buffer = BUFFER.take();
    buffer.resize(STREAM_BUFFER_BYTES, 0);
    let mut records = Streamed::new(decompressed, buffer, rules.max_decompressed_batch_bytes);
    let walked = walk_records(&mut records, header, rules.max_decompressed_message_bytes, rules);
    let failure = records.failure();
    BUFFER.set(records.into_buffer());
    match failure {
        // What the walk makes of a stream that broke off is not the cause.
        Some(failure) => Err(invalid_stream(failure, codec, rules.max_decompressed_batch_bytes)),
        None => walked,
    }
}

/// Reads every record of `input`, which must end with the last one.
fn walk_records(
    input: &mut impl Input,
    header: &BatchHeader,
    max_record_bytes: usize,
    rules: &Rules,
) -> Result<Walked, InvalidBatch> {
    let mut walked = Walked { max_timestamp: NO_TIMESTAMP, dense_offsets: true, block_bytes: 0 };
    let accepts = Acceptance::new(header, rules);
    let mut refused = Refused::default();
    for index in 0..header.record_count {
        let record =
            skim(input, max_record_bytes).map_err(|cause| InvalidBatch::MalformedRecord { index, cause })?;
        let timestamp = header.base_timestamp.wrapping_add(record.timestamp_delta);
        walked.dense_offsets &= record.offset_delta == index;
        walked.max_timestamp = walked.max_timestamp.max(timestamp);
        if !accepts.record(record.has_key, timestamp) {
            refused.push(index, accepts.complaint(record.has_key, timestamp));
        }
    }
    if !input.is_at_end() {
        return Err(InvalidBatch::BytesAfterRecords(header.record_count));
    }
    walked.block_bytes = input.position();
    refused.into_result().map(|()| walked)
}

/// What a topic asks of single records, ready to be compared.
struct Acceptance {
    needs_key: bool,
    /// Both inclusive; without a bound for topics that go by the broker's clock.
    earliest_timestamp: TimestampMs,
    latest_timestamp: TimestampMs,
    /// Whether records without a timestamp are refused too.
    needs_timestamp: bool,
    /// Whether every record is refused, whatever its timestamp.
    refuses_timestamps: bool,
}

impl Acceptance {
    fn new(header: &BatchHeader, rules: &Rules) -> Self {
        let create_time = rules.timestamp_type == TimestampType::CreateTime;
        // Producers may not claim the broker's clock; Kafka says so only where it does not look at the timestamp.
        let claims_log_append_time = header.attributes.timestamp_type() == TimestampType::LogAppendTime;
        Self {
            needs_key: rules.compacted,
            earliest_timestamp: if create_time {
                rules.now_ms.saturating_sub(rules.timestamp_before_max_ms)
            } else {
                i64::MIN
            },
            latest_timestamp: if create_time {
                rules.now_ms.saturating_add(rules.timestamp_after_max_ms)
            } else {
                i64::MAX
            },
            needs_timestamp: claims_log_append_time,
            refuses_timestamps: claims_log_append_time && !create_time,
        }
    }

    #[inline(always)]
    fn record(&self, has_key: bool, timestamp: TimestampMs) -> bool {
        (has_key || !self.needs_key) && self.timestamp(timestamp)
    }

    #[inline(always)]
    fn timestamp(&self, timestamp: TimestampMs) -> bool {
        if timestamp == NO_TIMESTAMP {
            return !self.needs_timestamp;
        }
        (self.earliest_timestamp..=self.latest_timestamp).contains(&timestamp) && !self.refuses_timestamps
    }

    #[cold]
    fn complaint(&self, has_key: bool, timestamp: TimestampMs) -> Complaint {
        if self.needs_key && !has_key {
            return Complaint::Record("a compacted topic takes no record without a key".to_owned());
        }
        Complaint::Timestamp(if self.refuses_timestamps || timestamp == NO_TIMESTAMP {
            "a producer may not set the timestamp type to LogAppendTime".to_owned()
        } else {
            let Self { earliest_timestamp, latest_timestamp, .. } = self;
            format!("timestamp {timestamp} is not within {earliest_timestamp} to {latest_timestamp}")
        })
    }
}

enum Complaint {
    Record(String),
    Timestamp(String),
}

/// The records that are refused so far. As in Kafka one timestamp among them decides on the batch's error.
#[derive(Default)]
struct Refused {
    any_is_timestamp: bool,
    record_errors: Vec<RecordError>,
}

impl Refused {
    #[cold]
    fn push(&mut self, batch_index: i32, complaint: Complaint) {
        let (is_timestamp, message) = match complaint {
            Complaint::Record(message) => (false, message),
            Complaint::Timestamp(message) => (true, message),
        };
        self.any_is_timestamp |= is_timestamp;
        if self.record_errors.len() < RECORD_ERRORS_MAX {
            self.record_errors.push(RecordError { batch_index, message });
        }
    }

    fn into_result(self) -> Result<(), InvalidBatch> {
        let Self { any_is_timestamp, record_errors } = self;
        if record_errors.is_empty() {
            Ok(())
        } else if any_is_timestamp {
            Err(InvalidBatch::InvalidTimestamps { record_errors })
        } else {
            Err(InvalidBatch::InvalidRecords { record_errors })
        }
    }
}

/// The same records in another codec; `block_bytes` of them, as the walk has found.
fn with_codec(
    batch: ValidBatch,
    from: Codec,
    block_bytes: u64,
    to: Compression,
    rules: &Rules,
) -> Result<ValidBatch, InvalidBatch> {
    let max_bytes = rules.max_message_bytes.saturating_sub(HEADER_BYTES);
    let (bytes, payload) = recompress(from, &batch.payload, block_bytes, to, max_bytes)
        .map_err(|source| InvalidBatch::Decompression { codec: from, source })?;
    check_size(HEADER_BYTES + bytes, rules)?;
    let attributes = batch.header.attributes.with_codec(to.codec);
    let payload = Bytes::from(payload.expect("what is not too large was kept"));
    Ok(ValidBatch::seal(BatchHeader { attributes, ..batch.header }, payload))
}

/// Largest compressed batch that is renumbered, bytes after decompression: unlike the walk, this holds all of it.
const RENUMBERED_MAX_BYTES: usize = 64 << 20;

/// The same records with offset deltas 0, 1, 2…, and their bytes before compression. Rare: no known client sends others.
#[cold]
fn renumber(batch: ValidBatch, codec: Codec, rules: &Rules) -> Result<(ValidBatch, u64), InvalidBatch> {
    let max_bytes = rules.max_decompressed_batch_bytes.min(RENUMBERED_MAX_BYTES);
    let records = decompress_all(codec, &batch.payload, max_bytes)?;
    let mut renumbered = Vec::with_capacity(records.len());
    let mut block = Block::new(&records);
    for index in 0..batch.header.record_count {
        copy_with_offset_delta(index, &mut block, &mut renumbered)
            .map_err(|cause| InvalidBatch::MalformedRecord { index, cause })?;
    }
    let payload = Bytes::from(compress(codec, None, &renumbered));
    // It may have grown, by longer deltas or because the client compressed harder.
    check_size(HEADER_BYTES + payload.len(), rules)?;
    Ok((ValidBatch::seal(batch.header, payload), renumbered.len() as u64))
}

fn copy_with_offset_delta(
    offset_delta: i32,
    block: &mut Block<'_>,
    out: &mut Vec<u8>,
) -> Result<(), MalformedRecord> {
    let record_bytes = length(block.varint()?)?;
    let record = block.take(record_bytes)?;
    let timestamp_end = 1 + read_varlong(record.get(1..).ok_or(MalformedRecord::Truncated)?)?.1;
    let (before, from_offset_delta) = record.split_at(timestamp_end);
    let after = &from_offset_delta[read_varint(from_offset_delta)?.1..];

    let new_bytes = before.len() + varint_bytes(offset_delta) + after.len();
    write_varint(i32::try_from(new_bytes).map_err(|_| MalformedRecord::TooLarge)?, out);
    out.extend_from_slice(before);
    write_varint(offset_delta, out);
    out.extend_from_slice(after);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::batch::Attributes;
    use super::super::builder::BatchBuilder;
    use super::super::records::{Record, records};
    use super::*;

    const NOW: TimestampMs = 1_700_000_000_000;

    fn rules() -> Rules {
        Rules {
            max_message_bytes: 1 << 20,
            segment_bytes: 1 << 30,
            timestamp_type: TimestampType::CreateTime,
            now_ms: NOW,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            compacted: false,
            max_decompressed_message_bytes: 1 << 30,
            max_decompressed_batch_bytes: 1 << 30,
            compression: None,
            zstd_allowed: true,
        }
    }

    fn builder() -> BatchBuilder {
        BatchBuilder::new()
            .record(NOW, Some(b"key"), Some(b"value"))
            .record_with_headers(NOW - 5, Some(b"k"), None, &[("h", Some(b"v")), ("h", None)])
            .record(NOW + 7, None, Some(b""))
    }

    /// The batch with its header changed and its checksum made right again.
    fn edited(batch: &Bytes, edit: impl FnOnce(&mut BatchHeader)) -> Bytes {
        let mut header = BatchHeader::parse(batch).unwrap();
        edit(&mut header);
        header.crc = header.checksum(&batch[HEADER_BYTES..]);
        [&header.encode()[..], &batch[HEADER_BYTES..]].concat().into()
    }

    /// The batch with another block of records.
    fn with_block(batch: &Bytes, block: Vec<u8>) -> Bytes {
        ValidBatch::seal(BatchHeader::parse(batch).unwrap(), Bytes::from(block)).to_bytes()
    }

    fn read(batch: &ValidBatch) -> Vec<Record> {
        records(batch.header(), batch.payload(), 1 << 30).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn a_valid_batch_keeps_its_bytes_without_a_copy() {
        for codec in Codec::ALL {
            let sent = builder().codec(codec).producer(7, 1, 9).build();
            let batch = validate(sent.clone(), &rules()).unwrap();
            assert_eq!(batch.to_bytes(), sent, "{codec:?}");
            assert_eq!(batch.payload().as_ptr(), sent[HEADER_BYTES..].as_ptr(), "{codec:?}");
            assert_eq!(batch.size_bytes(), sent.len());
            assert_eq!(batch.header().size_bytes(), sent.len());
        }
    }

    #[test]
    fn its_place_does_not_change_the_checksum_but_its_time_does() {
        let mut batch = validate(builder().build(), &rules()).unwrap();
        let crc = batch.header().crc;
        batch.assign(40, 3);
        assert_eq!(batch.header().crc, crc);
        assert_eq!((batch.header().base_offset, batch.header().last_offset()), (40, 42));
        assert_eq!(batch.header().partition_leader_epoch, 3);

        batch.stamp_log_append_time(NOW + 1);
        assert_ne!(batch.header().crc, crc);
        let stored = BatchHeader::parse(&batch.header_bytes()).unwrap();
        assert_eq!(stored.crc, stored.checksum(batch.payload()));
        assert!(read(&batch).iter().all(|record| record.timestamp == NOW + 1));
        assert_eq!(read(&batch).iter().map(|record| record.offset).collect::<Vec<_>>(), [40, 41, 42]);
    }

    #[test]
    fn every_cut_and_every_addition_is_refused() {
        let sent = builder().build();
        for end in 0..sent.len() {
            let cut = validate(sent.slice(..end), &rules());
            assert!(
                matches!(cut, Err(InvalidBatch::Truncated { have_bytes, .. }) if have_bytes == end),
                "{end}"
            );
        }
        let twice = Bytes::from([&sent[..], &sent[..]].concat());
        assert!(
            matches!(validate(twice, &rules()), Err(InvalidBatch::TrailingBytes(bytes)) if bytes == sent.len())
        );
    }

    #[test]
    fn every_flipped_bit_that_the_checksum_covers_is_found() {
        let sent = builder().build();
        for at in super::super::batch::CHECKSUMMED_FROM..sent.len() {
            for bit in 0..8 {
                let mut flipped = sent.to_vec();
                flipped[at] ^= 1 << bit;
                let result = validate(flipped.into(), &rules());
                // A flip in the codec may be refused before the checksum is looked at.
                assert!(
                    matches!(result, Err(InvalidBatch::Checksum { .. } | InvalidBatch::UnknownCodec(_))),
                    "{at} {bit}: {result:?}"
                );
            }
        }
    }

    #[test]
    fn headers_that_lie_are_refused_by_name() {
        let sent = builder().build();
        let refused = |edit: fn(&mut BatchHeader)| validate(edited(&sent, edit), &rules()).unwrap_err();

        assert!(matches!(refused(|header| header.magic = 1), InvalidBatch::Magic(1)));
        assert!(matches!(refused(|header| header.batch_length = 48), InvalidBatch::Length(48)));
        assert!(matches!(refused(|header| header.base_offset = 1), InvalidBatch::BaseOffset(1)));
        assert!(matches!(refused(|header| header.attributes = Attributes(6)), InvalidBatch::UnknownCodec(6)));
        assert!(matches!(refused(|header| header.attributes = Attributes(32)), InvalidBatch::ControlBatch));
        assert!(matches!(
            refused(|header| header.producer_id = 4),
            InvalidBatch::Sequence { producer_id: 4, base_sequence: -1 }
        ));
        for (record_count, last_offset_delta) in [(0, -1), (-1, -2), (3, 3), (4, 2), (i32::MIN, i32::MAX)] {
            let lying = edited(&sent, |header| {
                header.record_count = record_count;
                header.last_offset_delta = last_offset_delta;
            });
            assert!(
                matches!(validate(lying, &rules()), Err(InvalidBatch::RecordCount { .. })),
                "{record_count}"
            );
        }
    }

    #[test]
    fn a_count_that_the_records_do_not_have_is_refused() {
        for codec in Codec::ALL {
            let sent = builder().codec(codec).build();
            let counting = |record_count: i32| {
                let header = |header: &mut BatchHeader| {
                    header.record_count = record_count;
                    header.last_offset_delta = record_count - 1;
                };
                validate(edited(&sent, header), &rules()).unwrap_err()
            };
            assert!(matches!(counting(2), InvalidBatch::BytesAfterRecords(2)), "{codec:?}");
            for too_many in [4, i32::MAX] {
                let refused = counting(too_many);
                assert!(
                    matches!(
                        refused,
                        InvalidBatch::MalformedRecord { index: 3, cause: MalformedRecord::Truncated }
                    ),
                    "{codec:?} {refused:?}"
                );
            }
        }
    }

    #[test]
    fn sizes_are_checked_before_the_checksum_and_against_the_segment_at_last() {
        let mut sent = builder().build().to_vec();
        let size_bytes = sent.len();
        let exact = Rules { max_message_bytes: size_bytes, segment_bytes: size_bytes, ..rules() };
        validate(sent.clone().into(), &exact).unwrap();

        let segment = Rules { segment_bytes: size_bytes - 1, ..exact };
        assert!(matches!(
            validate(sent.clone().into(), &segment),
            Err(InvalidBatch::LargerThanSegment { max_bytes, .. }) if max_bytes == size_bytes - 1
        ));
        sent[size_bytes - 1] ^= 1;
        let message = Rules { max_message_bytes: size_bytes - 1, ..exact };
        assert!(matches!(
            validate(sent.into(), &message),
            Err(InvalidBatch::TooLarge { max_bytes, .. }) if max_bytes == size_bytes - 1
        ));
    }

    #[test]
    fn zstd_is_refused_where_the_request_is_older() {
        let sent = builder().codec(Codec::Zstd).build();
        let old = Rules { zstd_allowed: false, ..rules() };
        assert!(matches!(validate(sent, &old), Err(InvalidBatch::ZstdTooOld)));
        validate(builder().codec(Codec::Lz4).build(), &old).unwrap();
    }

    #[test]
    fn a_record_that_a_consumer_could_not_read_is_refused_in_every_codec() {
        let sent = builder().build();
        let mut block = sent[HEADER_BYTES..].to_vec();
        // The key length of the first record: -2.
        block[4] = 3;
        for codec in Codec::ALL {
            let batch = edited(&sent, |header| header.attributes = header.attributes.with_codec(codec));
            let refused = validate(with_block(&batch, compress(codec, None, &block)), &rules()).unwrap_err();
            assert!(
                matches!(
                    refused,
                    InvalidBatch::MalformedRecord { index: 0, cause: MalformedRecord::NegativeLength }
                ),
                "{codec:?} {refused:?}"
            );
        }
    }

    #[test]
    fn a_block_that_does_not_decompress_is_refused() {
        for codec in Codec::ALL.into_iter().skip(1) {
            let sent = builder().codec(codec).build();
            let garbage = with_block(&sent, b"not what any codec writes".to_vec());
            let refused = validate(garbage, &rules()).unwrap_err();
            assert!(
                matches!(refused, InvalidBatch::Decompression { codec: of, .. } if of == codec),
                "{refused:?}"
            );

            let block = &sent[HEADER_BYTES..];
            let cut = with_block(&sent, block[..block.len() - 1].to_vec());
            let refused = validate(cut, &rules()).unwrap_err();
            assert!(
                matches!(refused, InvalidBatch::Decompression { .. } | InvalidBatch::MalformedRecord { .. }),
                "{codec:?} {refused:?}"
            );
        }
    }

    #[test]
    fn a_compacted_topic_lists_the_records_without_a_key() {
        let compacted = Rules { compacted: true, ..rules() };
        let sent = builder().record(NOW, None, None).build();
        let Err(InvalidBatch::InvalidRecords { record_errors }) = validate(sent, &compacted) else {
            panic!("accepted")
        };
        assert_eq!(record_errors.iter().map(|error| error.batch_index).collect::<Vec<_>>(), [2, 3]);
        assert!(record_errors[0].message.contains("key"));
        // An empty key is a key.
        validate(BatchBuilder::new().record(NOW, Some(b""), None).build(), &compacted).unwrap();
    }

    #[test]
    fn the_list_of_refused_records_is_bounded_and_one_timestamp_decides() {
        let compacted = Rules { compacted: true, ..rules() };
        let mut many = BatchBuilder::new();
        for _ in 0..RECORD_ERRORS_MAX + 50 {
            many.push(NOW, None, None, &[]);
        }
        let Err(InvalidBatch::InvalidRecords { record_errors }) = validate(many.clone().build(), &compacted)
        else {
            panic!("accepted")
        };
        assert_eq!(record_errors.len(), RECORD_ERRORS_MAX);

        let sent = many.record(NOW + 3_600_001, Some(b"k"), None).build();
        let Err(InvalidBatch::InvalidTimestamps { record_errors }) = validate(sent, &compacted) else {
            panic!("accepted")
        };
        assert_eq!(record_errors.len(), RECORD_ERRORS_MAX);
    }

    #[test]
    fn timestamps_have_inclusive_bounds_and_minus_one_is_none() {
        let bounded = Rules { timestamp_before_max_ms: 10, timestamp_after_max_ms: 20, ..rules() };
        let check = |timestamp: i64, rules: &Rules| {
            validate(BatchBuilder::new().record(timestamp, None, None).build(), rules).map(|_| ())
        };
        for accepted in [NOW - 10, NOW, NOW + 20, -1] {
            assert!(check(accepted, &bounded).is_ok(), "{accepted}");
        }
        for refused in [NOW - 11, NOW + 21, 0, -2, i64::MIN, i64::MAX] {
            let Err(InvalidBatch::InvalidTimestamps { record_errors }) = check(refused, &bounded) else {
                panic!("{refused} accepted")
            };
            assert_eq!(record_errors.len(), 1);
            assert!(record_errors[0].message.contains(&refused.to_string()));
        }
        assert!(check(0, &rules()).is_ok());
        assert!(check(i64::MIN, &rules()).is_err());
        // The broker's clock does not look at the producers'.
        let by_broker = Rules { timestamp_type: TimestampType::LogAppendTime, ..bounded };
        assert!(check(0, &by_broker).is_ok());
    }

    #[test]
    fn a_client_that_claims_the_brokers_clock_is_refused_or_corrected() {
        let sent = builder().log_append_time(NOW + 1_000).build();
        let by_broker = Rules { timestamp_type: TimestampType::LogAppendTime, ..rules() };
        let Err(InvalidBatch::InvalidTimestamps { record_errors }) = validate(sent.clone(), &by_broker)
        else {
            panic!("accepted")
        };
        assert_eq!(record_errors.len(), 3);

        let corrected = validate(sent, &rules()).unwrap();
        assert_eq!(corrected.header().attributes.timestamp_type(), TimestampType::CreateTime);
        assert_eq!(corrected.header().max_timestamp, NOW + 7);
        assert_eq!(corrected.header().crc, corrected.header().checksum(corrected.payload()));

        let without = BatchBuilder::new().record(-1, None, None).log_append_time(NOW).build();
        assert!(matches!(validate(without, &rules()), Err(InvalidBatch::InvalidTimestamps { .. })));
    }

    #[test]
    fn a_largest_timestamp_that_is_not_is_corrected() {
        for codec in [Codec::None, Codec::Lz4] {
            let sent = builder().codec(codec).build();
            for claimed in [0, -1, NOW + 8, i64::MAX] {
                let batch =
                    validate(edited(&sent, |header| header.max_timestamp = claimed), &rules()).unwrap();
                assert_eq!(batch.to_bytes(), sent, "{codec:?} {claimed}");
            }
        }
    }

    #[test]
    fn offset_deltas_that_are_not_dense_are_renumbered() {
        for codec in Codec::ALL {
            let expected = builder().codec(codec).build();
            let mut block = builder().build()[HEADER_BYTES..].to_vec();
            // The offset delta of the first record: 0 becomes 5; of the others: unchanged.
            block[3] = 10;
            let sent = with_block(&expected, compress(codec, None, &block));
            let batch = validate(sent, &rules()).unwrap();
            assert_eq!(read(&batch), read(&validate(expected, &rules()).unwrap()), "{codec:?}");
            assert_eq!(batch.header().crc, batch.header().checksum(batch.payload()));
            validate(batch.to_bytes(), &rules()).unwrap();
        }
    }

    #[test]
    fn renumbering_that_makes_a_batch_too_large_is_refused() {
        // 100 records that all claim offset delta 0: the right ones from 64 on need a second byte.
        let mut block = Vec::new();
        for _ in 0..100 {
            block.extend(b"\x0c\x00\x00\x00\x01\x01\x00");
        }
        let mut counted = BatchBuilder::new();
        for _ in 0..100 {
            counted.push(NOW, None, None, &[]);
        }
        let sent = with_block(&counted.build(), block);
        let exact = Rules { max_message_bytes: sent.len(), ..rules() };
        assert!(matches!(
            validate(sent.clone(), &exact),
            Err(InvalidBatch::TooLarge { size_bytes, .. }) if size_bytes == sent.len() + 36
        ));
    }

    #[test]
    fn a_batch_too_large_to_be_held_is_not_renumbered() {
        let value = vec![0; RENUMBERED_MAX_BYTES];
        let one = BatchBuilder::new().record(NOW, None, Some(&value)).codec(Codec::Lz4);
        let mut block =
            decompress_all(Codec::Lz4, one.clone().build_valid().payload(), usize::MAX).unwrap().to_vec();
        let sent = one.build();
        validate(sent.clone(), &rules()).unwrap();

        // The offset delta, behind the length of four bytes, attributes and timestamp delta.
        assert_eq!(std::mem::replace(&mut block[6], 2), 0);
        let refused = validate(with_block(&sent, compress(Codec::Lz4, None, &block)), &rules()).unwrap_err();
        assert!(
            matches!(refused, InvalidBatch::DecompressedTooLarge { max_bytes: RENUMBERED_MAX_BYTES }),
            "{refused:?}"
        );
    }

    #[test]
    fn decompressed_records_have_a_limit_each_and_together() {
        let large = vec![0; 10_000];
        for codec in Codec::ALL.into_iter().skip(1) {
            let sent = BatchBuilder::new()
                .record(NOW, None, Some(b"small"))
                .record(NOW, None, Some(&large))
                .codec(codec)
                .build();
            let each = Rules { max_decompressed_message_bytes: 10_000, ..rules() };
            assert!(matches!(
                validate(sent.clone(), &each),
                Err(InvalidBatch::MalformedRecord { index: 1, cause: MalformedRecord::TooLarge })
            ));
            let together = Rules { max_decompressed_batch_bytes: 10_000, ..rules() };
            assert!(matches!(
                validate(sent.clone(), &together),
                Err(InvalidBatch::DecompressedTooLarge { max_bytes: 10_000 })
            ));
            validate(sent, &Rules { max_decompressed_message_bytes: 10_010, ..rules() }).unwrap();
        }
        // What is not compressed is bounded by the size of the batch.
        let plain = BatchBuilder::new().record(NOW, None, Some(&large)).build();
        validate(
            plain,
            &Rules { max_decompressed_message_bytes: 1, max_decompressed_batch_bytes: 1, ..rules() },
        )
        .unwrap();
    }

    #[test]
    fn a_batch_in_another_codec_than_the_topics_is_compressed_anew_and_says_the_same() {
        for from in Codec::ALL {
            for to in Codec::ALL {
                let sent = builder().codec(from).producer(7, 1, 9).transactional().build();
                let compression = Some(Compression { codec: to, level: None });
                let rules = Rules { compression, ..rules() };
                let batch = validate(sent.clone(), &rules).unwrap();
                assert_eq!(batch.header().attributes.codec().unwrap(), to);
                assert_eq!(read(&batch), read(&validate(sent.clone(), &super::tests::rules()).unwrap()));
                let header = |header: &BatchHeader| {
                    let BatchHeader { batch_length, crc, attributes, .. } = *header;
                    let attributes = attributes.with_codec(Codec::None);
                    (
                        batch_length > 0 && crc > 0,
                        BatchHeader { batch_length: 0, crc: 0, attributes, ..*header },
                    )
                };
                assert_eq!(header(batch.header()), header(&BatchHeader::parse(&sent).unwrap()));
                assert_eq!(batch.header().crc, batch.header().checksum(batch.payload()));
                assert_eq!(batch.to_bytes() == sent, from == to, "{from:?} to {to:?}");
                // Also where the records had to be put right before.
                let mut block = builder().build()[HEADER_BYTES..].to_vec();
                block[3] = 0x82;
                block.splice(4..4, [1]);
                block[0] += 2;
                let numbered_wrong = with_block(&sent, compress(from, None, &block));
                assert_eq!(read(&validate(numbered_wrong, &rules).unwrap()), read(&batch));
            }
        }
    }

    #[test]
    fn a_batch_that_its_new_codec_makes_too_large_is_refused() {
        let value = vec![b'v'; 10_000];
        let one = BatchBuilder::new().record(NOW, None, Some(&value));
        let uncompressed = Some(Compression { codec: Codec::None, level: None });
        let size_bytes = one.clone().build().len();
        let sent = one.codec(Codec::Gzip).build();
        let with_limit = |max_message_bytes| {
            validate(sent.clone(), &Rules { compression: uncompressed, max_message_bytes, ..rules() })
        };
        assert_eq!(with_limit(size_bytes).unwrap().size_bytes(), size_bytes);
        assert!(matches!(
            with_limit(size_bytes - 1),
            Err(InvalidBatch::TooLarge { size_bytes: found, .. }) if found == size_bytes
        ));
        let narrow = Rules { compression: uncompressed, segment_bytes: size_bytes - 1, ..rules() };
        assert!(matches!(validate(sent, &narrow), Err(InvalidBatch::LargerThanSegment { .. })));
    }

    #[test]
    fn only_large_compressed_batches_are_costly() {
        let mut random = fastrand::Rng::with_seed(1);
        let noise: Vec<u8> =
            std::iter::repeat_with(|| random.u8(..)).take(COSTLY_QUICK_CODEC_BYTES).collect();
        let of =
            |codec, value: &[u8]| BatchBuilder::new().record(NOW, None, Some(value)).codec(codec).build();
        for codec in Codec::ALL {
            assert!(!is_costly(&of(codec, b"small"), None));
            assert_eq!(is_costly(&of(codec, &noise), None), codec != Codec::None, "{codec:?}");
            let dense = matches!(codec, Codec::Gzip | Codec::Zstd);
            assert_eq!(is_costly(&of(codec, &noise[..COSTLY_DENSE_CODEC_BYTES]), None), dense, "{codec:?}");
        }
        let to = |codec| Some(Compression { codec, level: None });
        assert!(is_costly(&of(Codec::None, &noise), to(Codec::Zstd)), "compressing costs too");
        assert!(!is_costly(&of(Codec::None, &noise[..100]), to(Codec::Zstd)));
        assert!(!is_costly(&of(Codec::None, &noise), to(Codec::None)));
        assert!(!is_costly(&of(Codec::Gzip, b"small"), to(Codec::None)));
        assert!(is_costly(&of(Codec::Gzip, b"small"), to(Codec::Lz4)), "nobody knows how much that will be");
        assert!(!is_costly(&Bytes::from(noise), None), "no batch at all");
    }

    fn arbitrary_batch() -> impl Strategy<Value = (BatchBuilder, Codec)> {
        let field = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40));
        let headers = proptest::collection::vec((any::<String>(), field()), 0..4);
        let record = (-1_000_000i64..1_000_000, field(), field(), headers);
        (proptest::collection::vec(record, 1..80), 0u8..5).prop_map(|(records, codec)| {
            let mut builder = BatchBuilder::new();
            for (ago, key, value, headers) in records {
                let headers: Vec<_> =
                    headers.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
                builder.push(NOW - ago, key.as_deref(), value.as_deref(), &headers);
            }
            let codec = Codec::from_id(codec).unwrap();
            (builder.codec(codec), codec)
        })
    }

    proptest! {
        #[test]
        fn what_is_built_is_valid_and_reads_back((builder, codec) in arbitrary_batch()) {
            let trusted = builder.clone().build_valid();
            let batch = validate(builder.build(), &rules()).unwrap();
            prop_assert_eq!(batch.header(), trusted.header());
            prop_assert_eq!(read(&batch), read(&trusted));
            prop_assert_eq!(batch.header().attributes.codec().unwrap(), codec);
            prop_assert_eq!(read(&batch).len(), batch.header().record_count as usize);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            prop_assert!(validate(bytes.into(), &rules()).is_err());
        }

        /// Mutated blocks under a right checksum: what is accepted can be read to its end.
        #[test]
        fn no_mutation_makes_it_panic_and_what_it_accepts_can_be_read(
            (builder, codec) in arbitrary_batch(),
            mutations in proptest::collection::vec(any::<(u32, u8)>(), 1..4),
            inside: bool,
        ) {
            let sent = builder.build();
            let payload = sent.slice(HEADER_BYTES..);
            let mut block = if inside { decompress_all(codec, &payload, 1 << 30).unwrap() } else { payload }.to_vec();
            for (at, flip) in mutations {
                let at = at as usize % block.len();
                block[at] ^= flip;
            }
            let block = if inside { compress(codec, None, &block) } else { block };
            let small = Rules { max_decompressed_batch_bytes: 1 << 20, ..rules() };
            if let Ok(batch) = validate(with_block(&sent, block), &small) {
                prop_assert_eq!(read(&batch).len(), batch.header().record_count as usize);
                prop_assert_eq!(batch.header().crc, batch.header().checksum(batch.payload()));
                let offsets = read(&batch).into_iter().map(|record| record.offset);
                prop_assert!(offsets.eq(0..i64::from(batch.header().record_count)));
            }
        }
    }
}
