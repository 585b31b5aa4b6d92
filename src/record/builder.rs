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

    /// Makes room for so many bytes of records.
    pub fn room_for(mut self, bytes: usize) -> Self {
        self.block.reserve(bytes);
        self
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
        out.reserve(varint_bytes(length(record_bytes)) + record_bytes);
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

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::records as oracle;

    use super::super::records::{Record, records};
    use super::*;

    const FIRST: TimestampMs = 1_700_000_000_000;

    /// Enough records that deltas and lengths take several bytes, and a block is larger than the codecs' own blocks.
    fn sample() -> BatchBuilder {
        let mut builder = BatchBuilder::new();
        for index in 0..1_000i64 {
            let value = vec![b'a' + (index % 26) as u8; 150];
            let header = index.to_string();
            builder.push(
                FIRST + (index % 7) * 1_000 - 500,
                (index % 3 != 0).then_some(b"key"),
                (index % 5 != 0).then_some(&value),
                &[("number", Some(header.as_bytes())), ("h\u{e9}", None)],
            );
        }
        builder
    }

    fn with_oracle(codec: Codec) -> oracle::Compression {
        match codec {
            Codec::None => oracle::Compression::None,
            Codec::Gzip => oracle::Compression::Gzip,
            Codec::Snappy => oracle::Compression::Snappy,
            Codec::Lz4 => oracle::Compression::Lz4,
            Codec::Zstd => oracle::Compression::Zstd,
        }
    }

    fn read(batch: &ValidBatch) -> Vec<Record> {
        records(batch.header(), batch.payload(), 1 << 20).unwrap().map(Result::unwrap).collect()
    }

    fn assert_same(ours: &[Record], theirs: &[oracle::Record]) {
        assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(theirs) {
            assert_eq!((ours.offset, ours.timestamp), (theirs.offset, theirs.timestamp));
            assert_eq!((&ours.key, &ours.value), (&theirs.key, &theirs.value));
            assert_eq!(ours.headers.len(), theirs.headers.len());
            for (header, (key, value)) in ours.headers.iter().zip(&theirs.headers) {
                assert_eq!((&header.key[..], &header.value), (key.as_bytes(), value));
            }
        }
    }

    #[test]
    fn another_implementation_reads_what_is_built() {
        for codec in Codec::ALL {
            let batch = sample().codec(codec).producer(77, 3, 5).transactional().build_valid();
            let decoded = oracle::RecordBatchDecoder::decode(&mut batch.to_bytes()).unwrap();
            assert_eq!(decoded.compression, with_oracle(codec));
            assert_same(&read(&batch), &decoded.records);
            let first = &decoded.records[0];
            assert_eq!((first.producer_id, first.producer_epoch, first.sequence), (77, 3, 5));
            assert!(first.transactional && !first.control);
        }
    }

    #[test]
    fn what_another_implementation_writes_is_valid_and_reads_the_same() {
        let rules = super::super::Rules {
            max_message_bytes: 1 << 20,
            segment_bytes: 1 << 30,
            timestamp_type: TimestampType::CreateTime,
            now_ms: FIRST,
            timestamp_before_max_ms: 1_000,
            timestamp_after_max_ms: 10_000,
            compacted: false,
            max_decompressed_message_bytes: 1 << 10,
            max_decompressed_batch_bytes: 1 << 20,
            compression: None,
            zstd_allowed: true,
        };
        for codec in Codec::ALL {
            let theirs =
                oracle::RecordBatchDecoder::decode(&mut sample().producer(1, 0, 0).build()).unwrap().records;
            let options = oracle::RecordEncodeOptions { version: 2, compression: with_oracle(codec) };
            let mut bytes = BytesMut::new();
            oracle::RecordBatchEncoder::encode(&mut bytes, &theirs, &options).unwrap();
            let batch = super::super::validate(bytes.freeze(), &rules).unwrap();
            assert_eq!(batch.header().attributes.codec().unwrap(), codec);
            assert_same(&read(&batch), &theirs);
        }
    }

    #[test]
    fn the_bytes_of_a_small_batch_are_known() {
        let batch = BatchBuilder::new().record(1_000, Some(b"k"), None).record(999, None, Some(b"v")).build();
        let expected = [
            &[0; 8][..],    // base offset
            &[0, 0, 0, 65], // length: 49 and two records of 8
            &[255; 4],      // leader epoch
            &[2],           // magic
            &crc32c::crc32c(&batch[21..]).to_be_bytes(),
            &[0, 0],                     // attributes
            &[0, 0, 0, 1],               // last offset delta
            &[0, 0, 0, 0, 0, 0, 3, 232], // base timestamp
            &[0, 0, 0, 0, 0, 0, 3, 232], // largest timestamp
            &[255; 14],                  // no producer
            &[0, 0, 0, 2],               // records
            &[14, 0, 0, 0, 2, b'k', 1, 0],
            &[14, 0, 1, 2, 1, 2, b'v', 0],
        ]
        .concat();
        assert_eq!(batch[..], expected[..]);
    }

    #[test]
    fn a_transaction_marker_is_as_large_as_kafkas() {
        let marker = BatchBuilder::new()
            .producer(9, 2, -1)
            .transactional()
            .control()
            .record(FIRST, Some(&[0, 0, 0, 1]), Some(&[0, 0, 0, 0, 0, 7]))
            .build_valid();
        assert_eq!(marker.size_bytes(), 78);
        assert_eq!(marker.header().attributes.0, 0b11_0000);
        assert_eq!(marker.header().last_sequence(), -1);
    }

    #[test]
    fn the_brokers_time_holds_for_all_records() {
        let batch =
            BatchBuilder::new().record(5, None, None).log_append_time(FIRST).record(FIRST + 9, None, None);
        let batch = batch.build_valid();
        assert_eq!(batch.header().max_timestamp, FIRST);
        assert!(read(&batch).iter().all(|record| record.timestamp == FIRST));
    }

    #[test]
    fn sizes_are_told_while_building() {
        let mut builder = BatchBuilder::new();
        assert!(builder.is_empty() && builder.block_bytes() == 0);
        builder.push(FIRST, None, Some(b"value"), &[]);
        assert_eq!((builder.len(), builder.block_bytes()), (1, 12));
        assert_eq!(builder.build_valid().payload().len(), 12);
    }

    #[test]
    #[should_panic(expected = "at least one record")]
    fn an_empty_batch_is_our_mistake() {
        BatchBuilder::new().build_valid();
    }
}
