//! Any bytes are a valid batch or an error; the records of a valid batch can all be read.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ottla::record::records::{records, split_batch};
use ottla::record::{HEADER_BYTES, Rules, TimestampType, validate};

/// Enough for every honest batch of the size that the fuzzer makes.
const DECOMPRESSED_MAX_BYTES: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let rules = Rules {
        max_message_bytes: 1 << 20,
        segment_bytes: 1 << 30,
        timestamp_type: TimestampType::CreateTime,
        now_ms: 0,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: i64::MAX,
        compacted: false,
        max_decompressed_message_bytes: DECOMPRESSED_MAX_BYTES,
        max_decompressed_batch_bytes: DECOMPRESSED_MAX_BYTES,
        compression: None,
        zstd_allowed: true,
    };
    // The fuzzer cannot guess a checksum, so it is given one.
    let mut bytes = data.to_vec();
    if bytes.len() >= HEADER_BYTES {
        let crc = ottla::record::batch::crc_of(&bytes[21..HEADER_BYTES], &bytes[HEADER_BYTES..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    if let Ok(batch) = validate(Bytes::from(bytes), &rules) {
        let mut stored = batch.to_bytes();
        let (header, payload) = split_batch(&mut stored).expect("a valid batch is a whole one");
        let read = records(&header, &payload, DECOMPRESSED_MAX_BYTES).expect("a valid batch can be opened");
        assert_eq!(read.map(|record| record.expect("and read")).count(), header.record_count as usize);
    }
});
