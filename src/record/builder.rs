//! Makes batches: for internal topics, drivers and tests.

use bytes::Bytes;

use super::TimestampType;
use super::batch::{Attributes, BatchHeader, MAGIC, NO_PRODUCER_ID, NO_TIMESTAMP};
use super::compression::{Codec, compress};
use super::validate::ValidBatch;
use super::varint::{varint_bytes, varlong_bytes, write_varint, write_varlong};
use crate::clock::TimestampMs;

/// A batch in the making. Records get the offset deltas 0, 1, 2… in the order in which they are pushed.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    header: BatchHeader,
    block: Vec<u8>,
    codec: Codec,
    level: Option<i32>,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    /// An empty batch: uncompressed, by the producers' clocks, of no idempotent producer.
    pub fn new() -> Self {
        Self {
            header: BatchHeader {
                base_offset: 0,
                batch_length: 0,
                partition_leader_epoch: -1,
                magic: MAGIC,
                crc: 0,
                attributes: Attributes::default(),
                last_offset_delta: -1,
                base_timestamp: NO_TIMESTAMP,
                max_timestamp: NO_TIMESTAMP,
                producer_id: NO_PRODUCER_ID,
                producer_epoch: -1,
                base_sequence: -1,
                record_count: 0,
            },
            block: Vec::new(),
            codec: Codec::None,
            level: None,
        }
    }

    /// Compresses the records at the end, by the codec's default level.
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Compresses the records at the end, by `level` (see [`compress`]).
    pub fn codec_at_level(mut self, codec: Codec, level: i32) -> Self {
        self.level = Some(level);
        self.codec(codec)
    }

    /// Marks the batch as an idempotent producer's. A control batch has base sequence -1.
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        self.header.producer_id = id;
        self.header.producer_epoch = epoch;
        self.header.base_sequence = base_sequence;
        self
    }

    /// Makes it part of a transaction.
    pub fn transactional(mut self) -> Self {
        self.header.attributes = self.header.attributes.with_transactional(true);
        self
    }

    /// Makes it a control batch: its records are markers, which only brokers may write.
    pub fn control(mut self) -> Self {
        self.header.attributes = self.header.attributes.with_control(true);
        self
    }

    /// Makes `now_ms` the time of every record, as a broker does on topics that go by its clock.
    pub fn log_append_time(mut self, now_ms: TimestampMs) -> Self {
        self.header.attributes = self.header.attributes.with_timestamp_type(TimestampType::LogAppendTime);
        self.header.max_timestamp = now_ms;
        self
    }

    /// Adds a record without headers.
    pub fn record(self, timestamp: TimestampMs, key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        self.record_with_headers(timestamp, key, value, &[])
    }

    /// Adds a record.
    pub fn record_with_headers(
        mut self,
        timestamp: TimestampMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) -> Self {
        self.push(timestamp, key, value, headers);
        self
    }

    /// Adds a record. The records of a batch, and so each of them, must stay below 2 GiB: see [`Self::block_bytes`].
    pub fn push(
        &mut self,
        timestamp: TimestampMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) {
        if self.is_empty() {
            self.header.base_timestamp = timestamp;
        }
        if self.header.attributes.timestamp_type() == TimestampType::CreateTime {
            self.header.max_timestamp = self.header.max_timestamp.max(timestamp);
        }
        let timestamp_delta = timestamp.wrapping_sub(self.header.base_timestamp);
        let offset_delta = self.header.record_count;
        self.header.record_count += 1;
        self.header.last_offset_delta = offset_delta;

        let header_bytes: usize =
            headers.iter().map(|(key, value)| field_bytes(Some(key.as_bytes())) + field_bytes(*value)).sum();
        let record_bytes = 1
            + varlong_bytes(timestamp_delta)
            + varint_bytes(offset_delta)
            + field_bytes(key)
            + field_bytes(value)
            + varint_bytes(length(headers.len()))
            + header_bytes;
        let out = &mut self.block;
        write_varint(length(record_bytes), out);
        out.push(0);
        write_varlong(timestamp_delta, out);
        write_varint(offset_delta, out);
        write_field(key, out);
        write_field(value, out);
        write_varint(length(headers.len()), out);
        for (key, value) in headers {
            write_field(Some(key.as_bytes()), out);
            write_field(*value, out);
        }
    }

    /// Records so far.
    pub fn len(&self) -> usize {
        self.header.record_count as usize
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.header.record_count == 0
    }

    /// Bytes of the records so far, uncompressed.
    pub fn block_bytes(&self) -> usize {
        self.block.len()
    }

    /// The batch, trusted: for the broker's own records. Panics without a record.
    pub fn build_valid(self) -> ValidBatch {
        assert!(!self.is_empty(), "a batch has at least one record");
        let payload = match self.codec {
            Codec::None => self.block,
            codec => compress(codec, self.level, &self.block),
        };
        let attributes = self.header.attributes.with_codec(self.codec);
        ValidBatch::seal(BatchHeader { attributes, ..self.header }, Bytes::from(payload))
    }

    /// The batch's bytes as a client sends them: base offset 0, leader epoch -1. Panics without a record.
    pub fn build(self) -> Bytes {
        self.build_valid().to_bytes()
    }
}

fn field_bytes(field: Option<&[u8]>) -> usize {
    field.map_or(varint_bytes(-1), |bytes| varint_bytes(length(bytes.len())) + bytes.len())
}

fn write_field(field: Option<&[u8]>, out: &mut Vec<u8>) {
    match field {
        None => write_varint(-1, out),
        Some(bytes) => {
            write_varint(length(bytes.len()), out);
            out.extend_from_slice(bytes);
        }
    }
}

fn length(bytes: usize) -> i32 {
    i32::try_from(bytes).expect("who pushes records keeps them below 2 GiB")
}
