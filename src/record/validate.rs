//! The one check of a batch that a client sent, and the type that proves it. What passes can be read by every consumer;
//! what does not pass is refused as Kafka refuses it, in Kafka's order.

use std::cell::Cell;
use std::io;

use bytes::Bytes;

use super::TimestampType;
use super::batch::{BatchHeader, HEADER_BYTES, NO_TIMESTAMP, UNCOUNTED_BYTES};
use super::compression::{Codec, compress, decompress_stream};
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

/// A compressed batch above this size takes long enough to disturb a thread that serves sockets.
pub const COSTLY_COMPRESSED_BYTES: usize = 8 << 10;

/// Whether [`validate`] of `batch` should run where it delays nobody. Cheap, and makes no other claim on the bytes.
pub fn is_costly(batch: &Bytes) -> bool {
    batch.len() > COSTLY_COMPRESSED_BYTES
        && BatchHeader::parse(batch).is_ok_and(|header| header.attributes.is_compressed())
}

/// Checks the record field of a Produce request for one partition: exactly one batch that `rules` allow and that every
/// consumer can read. The result's payload is a slice of `batches`. Two things are put right rather than refused, as in
/// Kafka: a largest timestamp or timestamp type that the records belie (on topics that go by the producers' clocks; the
/// others are stamped at the append), and offset deltas that are not 0, 1, 2…
pub fn validate(batches: Bytes, rules: &Rules) -> Result<ValidBatch, InvalidBatch> {
    let header = one_batch(&batches)?;
    let codec = check_header(&header, &batches, rules)?;
    let payload = batches.slice(HEADER_BYTES..);

    let walked = walk(&header, codec, &payload, rules)?;
    let mut batch = ValidBatch { header, payload };
    if !walked.dense_offsets {
        batch = renumber(batch, codec, rules)?;
    }
    let timestamps = (TimestampType::CreateTime, walked.max_timestamp);
    if rules.timestamp_type == TimestampType::CreateTime
        && timestamps != (batch.header.attributes.timestamp_type(), batch.header.max_timestamp)
    {
        batch.set_timestamps(timestamps.0, timestamps.1);
    }
    check_size(batch.size_bytes(), rules)?;
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
    if size_bytes > rules.max_message_bytes {
        return Err(InvalidBatch::TooLarge { size_bytes, max_bytes: rules.max_message_bytes });
    }
    Ok(())
}

/// What reading over the records has shown.
struct Walked {
    max_timestamp: TimestampMs,
    dense_offsets: bool,
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
    let mut walked = Walked { max_timestamp: NO_TIMESTAMP, dense_offsets: true };
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

/// The records that are refused so far. As in Kafka the first one decides on the batch's error.
#[derive(Default)]
struct Refused {
    first_is_timestamp: bool,
    record_errors: Vec<RecordError>,
}

impl Refused {
    #[cold]
    fn push(&mut self, batch_index: i32, complaint: Complaint) {
        if self.record_errors.len() == RECORD_ERRORS_MAX {
            return;
        }
        let (is_timestamp, message) = match complaint {
            Complaint::Record(message) => (false, message),
            Complaint::Timestamp(message) => (true, message),
        };
        if self.record_errors.is_empty() {
            self.first_is_timestamp = is_timestamp;
        }
        self.record_errors.push(RecordError { batch_index, message });
    }

    fn into_result(self) -> Result<(), InvalidBatch> {
        let Self { first_is_timestamp, record_errors } = self;
        if record_errors.is_empty() {
            Ok(())
        } else if first_is_timestamp {
            Err(InvalidBatch::InvalidTimestamps { record_errors })
        } else {
            Err(InvalidBatch::InvalidRecords { record_errors })
        }
    }
}

/// The same records with offset deltas 0, 1, 2… Rare: no known client sends others.
#[cold]
fn renumber(batch: ValidBatch, codec: Codec, rules: &Rules) -> Result<ValidBatch, InvalidBatch> {
    let records = decompress_all(codec, &batch.payload, rules.max_decompressed_batch_bytes)?;
    let mut renumbered = Vec::with_capacity(records.len());
    let mut block = Block::new(&records);
    for index in 0..batch.header.record_count {
        copy_with_offset_delta(index, &mut block, &mut renumbered)
            .map_err(|cause| InvalidBatch::MalformedRecord { index, cause })?;
    }
    Ok(ValidBatch::seal(batch.header, Bytes::from(compress(codec, None, &renumbered))))
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
