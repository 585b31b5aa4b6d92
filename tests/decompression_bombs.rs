//! Little input that decompresses to much: refused at the limit, in bounded memory. Alone in its process, because it
//! measures the process.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::io::Write;

use bytes::Bytes;
use flate2::write::GzEncoder;
use ottla::record::compression::Codec;
use ottla::record::varint::write_varint;
use ottla::record::{
    BatchBuilder, HEADER_BYTES, InvalidBatch, MalformedRecord, Rules, TimestampType, validate,
};

const BOMB_BYTES: usize = 512 << 20;
const LIMIT_BYTES: usize = 256 << 20;
/// What the whole process may take, of which most is the making of the bombs.
const MEMORY_BYTES: usize = 64 << 20;

/// One record of `BOMB_BYTES` zeros, written piece by piece.
fn write_bomb(mut out: impl Write) {
    let value_bytes = BOMB_BYTES as i32;
    let mut fields = vec![0, 0, 0, 1];
    write_varint(value_bytes, &mut fields);
    let mut front = Vec::new();
    write_varint(value_bytes + fields.len() as i32 + 1, &mut front);
    front.extend(fields);
    out.write_all(&front).unwrap();
    let zeros = [0; 64 << 10];
    for _ in 0..BOMB_BYTES / zeros.len() {
        out.write_all(&zeros).unwrap();
    }
    out.write_all(&[0]).unwrap();
}

/// A batch with the given block: header right, checksum right.
fn batch(codec: Codec, block: &[u8]) -> Bytes {
    let mut header = *BatchBuilder::new().record(0, None, None).build_valid().header();
    header.attributes = header.attributes.with_codec(codec);
    header.batch_length = (HEADER_BYTES - 12 + block.len()) as i32;
    header.crc = header.checksum(block);
    [&header.encode()[..], block].concat().into()
}

/// Most memory that the process has held, bytes.
fn peak_memory_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

#[test]
fn a_bomb_is_refused_in_bounded_memory() {
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    write_bomb(&mut gzip);
    let mut zstd = zstd::Encoder::new(Vec::new(), 1).unwrap();
    write_bomb(&mut zstd);
    let bombs = [(Codec::Gzip, gzip.finish().unwrap()), (Codec::Zstd, zstd.finish().unwrap())];

    for (codec, block) in bombs {
        let sent = batch(codec, &block);
        let rules = Rules {
            max_message_bytes: 8 << 20,
            segment_bytes: 1 << 30,
            timestamp_type: TimestampType::CreateTime,
            now_ms: 0,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: i64::MAX,
            compacted: false,
            max_decompressed_message_bytes: i32::MAX as usize,
            max_decompressed_batch_bytes: LIMIT_BYTES,
            compression: None,
            zstd_allowed: true,
        };
        let refused = validate(sent.clone(), &rules).unwrap_err();
        assert!(
            matches!(refused, InvalidBatch::DecompressedTooLarge { max_bytes: LIMIT_BYTES }),
            "{refused:?}"
        );
        let each = Rules { max_decompressed_message_bytes: LIMIT_BYTES, ..rules };
        let refused = validate(sent.clone(), &each).unwrap_err();
        assert!(
            matches!(refused, InvalidBatch::MalformedRecord { index: 0, cause: MalformedRecord::TooLarge }),
            "{refused:?}"
        );
        // Not a bomb but a large record to who allows it: and even reading over all of it takes no more memory.
        validate(sent, &Rules { max_decompressed_batch_bytes: usize::MAX, ..rules }).unwrap();

        let taken = peak_memory_bytes();
        assert!(taken < MEMORY_BYTES, "{codec:?}: {taken} bytes");
    }
}
