//! The four codecs in the framings that Java clients write and read. Nothing here trusts a length of its input: a stream
//! takes the memory that its framing needs and no more, and the reader decides how much of it to read.

use std::io::{self, BufRead, Read, Write};

use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

/// How the records of a batch are compressed (attribute bits 0 to 2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Codec {
    /// As they are.
    #[default]
    None,
    /// Gzip members.
    Gzip,
    /// The xerial stream; one bare block is read too.
    Snappy,
    /// One LZ4 frame of independent blocks.
    Lz4,
    /// Zstandard frames. KIP-110.
    Zstd,
}

impl Codec {
    /// Every codec, by id.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec of an attribute number; `None` for numbers that have none.
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.get(usize::from(id)).copied()
    }

    /// Its number in the attributes.
    pub fn id(self) -> u8 {
        self as u8
    }

    /// Its name in Kafka's `compression.type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// How batches are compressed anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Compression {
    /// With what.
    pub codec: Codec,
    /// How hard, see [`compress`].
    pub level: Option<i32>,
}

/// Largest block that a snappy stream may hold, bytes after decompression: a block is decompressed as a whole. Java
/// writes 32 KiB; clients that send one bare block put the whole batch into it.
const SNAPPY_BLOCK_MAX_BYTES: usize = 64 << 20;
/// A snappy element of three bytes yields at most 64, so no honest block grows more than this.
const SNAPPY_GROWTH_MAX: usize = 22;
/// Bytes a block may claim whatever its size, so that the rule above needs no care for tiny ones.
const SNAPPY_BLOCK_SLACK_BYTES: usize = 64;
/// Bytes of records in a snappy block that we write.
const SNAPPY_WRITTEN_BLOCK_BYTES: usize = 32 << 10;
const XERIAL_MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
/// Magic, version, and oldest version that can read it.
const XERIAL_HEADER_BYTES: usize = 16;
const XERIAL_VERSION: i32 = 1;

/// Largest zstd window (its binary logarithm): what libzstd and the Java clients read by default. The memory is reserved
/// from the system but only touched as far as the stream really goes.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Kafka's default level.
const ZSTD_LEVEL: i32 = 3;

/// Kafka's default level: the quick way.
const LZ4_LEVEL: i32 = 9;
/// Levels of the thorough way that differ.
const LZ4_THOROUGH_LEVELS: (i32, i32) = (2, 12);
const LZ4_MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();
const LZ4_BLOCK_INDEPENDENT: u8 = 1 << 5;
const LZ4_BLOCK_CHECKSUM: u8 = 1 << 4;
const LZ4_CONTENT_SIZE: u8 = 1 << 3;
const LZ4_CONTENT_CHECKSUM: u8 = 1 << 2;

/// The records in `compressed`, as a stream. Fails at once or while reading if the bytes are not what `codec` writes.
pub fn decompress_stream(codec: Codec, compressed: &[u8]) -> io::Result<Decompress<'_>> {
    Ok(Decompress(match codec {
        Codec::None => Stream::None(compressed),
        Codec::Gzip => Stream::Gzip(Box::new(MultiGzDecoder::new(compressed))),
        Codec::Snappy => Stream::Snappy(SnappyReader::new(compressed)),
        Codec::Lz4 => {
            check_lz4_frame(compressed)?;
            Stream::Lz4(Box::new(FrameDecoder::new(compressed)))
        }
        Codec::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(compressed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Stream::Zstd(decoder)
        }
    }))
}

/// A stream of decompressed records.
pub struct Decompress<'a>(Stream<'a>);

enum Stream<'a> {
    None(&'a [u8]),
    Gzip(Box<MultiGzDecoder<&'a [u8]>>),
    Snappy(SnappyReader<'a>),
    Lz4(Box<FrameDecoder<&'a [u8]>>),
    Zstd(zstd::Decoder<'static, &'a [u8]>),
}

impl Read for Decompress<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Stream::None(rest) => rest.read(buffer),
            Stream::Gzip(decoder) => decoder.read(buffer),
            Stream::Snappy(decoder) => decoder.read(buffer),
            Stream::Lz4(decoder) => decoder.read(buffer),
            Stream::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// `records` compressed. `level` is for gzip (0 to 9), LZ4 and zstd, each clamped to its range, `None` their default. LZ4's
/// default, 9, is the quick way, as it is for Java clients; every other level takes the thorough way, up to 12.
pub fn compress(codec: Codec, level: Option<i32>, records: &[u8]) -> Vec<u8> {
    let compression = Compression { codec, level };
    compress_stream(compression, records.len() as u64, &mut &*records, Vec::new())
        .expect("a slice yields all reads, a Vec takes all writes, the level is in range")
}

/// The block that `payload` is in codec `from`, compressed anew; the number of its bytes, and the bytes if these are not more
/// than `max_bytes`: no more than that is held of either form. The block must have `block_bytes`.
pub fn recompress(
    from: Codec,
    payload: &[u8],
    block_bytes: u64,
    to: Compression,
    max_bytes: usize,
) -> io::Result<(usize, Option<Vec<u8>>)> {
    let bounded = Bounded { bytes: Vec::new(), count: 0, max_bytes };
    let written = compress_stream(to, block_bytes, &mut decompress_stream(from, payload)?, bounded)?;
    Ok((written.count, (written.count <= max_bytes).then_some(written.bytes)))
}

/// Keeps what is written up to a limit, and counts the rest.
struct Bounded {
    bytes: Vec<u8>,
    count: usize,
    max_bytes: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.count += bytes.len();
        if self.count <= self.max_bytes {
            self.bytes.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compresses the `block_bytes` that `records` yields into `out`.
fn compress_stream<W: Write>(
    Compression { codec, level }: Compression,
    block_bytes: u64,
    records: &mut impl Read,
    mut out: W,
) -> io::Result<W> {
    match codec {
        Codec::None => {
            io::copy(records, &mut out)?;
            Ok(out)
        }
        Codec::Gzip => {
            let level = level.map_or(flate2::Compression::default(), |level| {
                flate2::Compression::new(level.clamp(0, 9) as u32)
            });
            let mut encoder = GzEncoder::new(out, level);
            io::copy(records, &mut encoder)?;
            encoder.finish()
        }
        Codec::Snappy => compress_xerial(records, out),
        Codec::Lz4 => match level.filter(|level| *level != LZ4_LEVEL) {
            // Java's reader refuses linked blocks; its writer's block size is 64 KiB.
            None => {
                let info = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
                let mut encoder = FrameEncoder::with_frame_info(info, out);
                io::copy(records, &mut encoder)?;
                encoder.finish().map_err(io::Error::other)
            }
            Some(level) => {
                let mut encoder = lz4::EncoderBuilder::new()
                    .block_size(lz4::BlockSize::Max64KB)
                    .block_mode(lz4::BlockMode::Independent)
                    .checksum(lz4::ContentChecksum::NoChecksum)
                    .level(level.clamp(LZ4_THOROUGH_LEVELS.0, LZ4_THOROUGH_LEVELS.1) as u32)
                    .build(out)?;
                io::copy(records, &mut encoder)?;
                let (out, result) = encoder.finish();
                result.map(|()| out)
            }
        },
        Codec::Zstd => {
            let levels = zstd::compression_level_range();
            let level = level.unwrap_or(ZSTD_LEVEL).clamp(*levels.start(), *levels.end());
            let mut encoder = zstd::Encoder::new(out, level)?;
            // Without it the highest levels take most of a gigabyte, however little there is to compress.
            encoder.set_pledged_src_size(Some(block_bytes))?;
            io::copy(records, &mut encoder)?;
            encoder.finish()
        }
    }
}

fn compress_xerial<W: Write>(records: &mut impl Read, mut out: W) -> io::Result<W> {
    out.write_all(&XERIAL_MAGIC)?;
    out.write_all(&XERIAL_VERSION.to_be_bytes())?;
    out.write_all(&XERIAL_VERSION.to_be_bytes())?;
    let mut encoder = snap::raw::Encoder::new();
    let mut block = Vec::with_capacity(SNAPPY_WRITTEN_BLOCK_BYTES);
    loop {
        block.clear();
        records.take(SNAPPY_WRITTEN_BLOCK_BYTES as u64).read_to_end(&mut block)?;
        if block.is_empty() {
            return Ok(out);
        }
        let compressed = encoder.compress_vec(&block)?;
        out.write_all(&(compressed.len() as u32).to_be_bytes())?;
        out.write_all(&compressed)?;
    }
}

/// Reads a xerial stream, or a bare block, block by block.
struct SnappyReader<'a> {
    rest: &'a [u8],
    bare: bool,
    decoder: snap::raw::Decoder,
    block: Vec<u8>,
    block_at: usize,
}

impl<'a> SnappyReader<'a> {
    fn new(compressed: &'a [u8]) -> Self {
        Self {
            rest: compressed,
            bare: !compressed.starts_with(&XERIAL_MAGIC),
            decoder: snap::raw::Decoder::new(),
            block: Vec::new(),
            block_at: 0,
        }
    }

    /// Decompresses the next block; leaves an empty one at the end of the stream.
    fn next_block(&mut self) -> io::Result<()> {
        self.block.clear();
        self.block_at = 0;
        let compressed = if self.bare { std::mem::take(&mut self.rest) } else { self.next_xerial_block()? };
        if compressed.is_empty() {
            return Ok(());
        }
        let claimed_bytes = snap::raw::decompress_len(compressed)?;
        let justified_bytes =
            compressed.len().saturating_mul(SNAPPY_GROWTH_MAX).saturating_add(SNAPPY_BLOCK_SLACK_BYTES);
        if claimed_bytes > justified_bytes.min(SNAPPY_BLOCK_MAX_BYTES) {
            return Err(invalid("the snappy block claims more bytes than it can hold"));
        }
        self.block.resize(claimed_bytes, 0);
        self.decoder.decompress(compressed, &mut self.block)?;
        Ok(())
    }

    fn next_xerial_block(&mut self) -> io::Result<&'a [u8]> {
        // A header may come again in the middle: streams may be concatenated.
        while self.rest.starts_with(&XERIAL_MAGIC) {
            let header = self.take(XERIAL_HEADER_BYTES)?;
            let version = i32::from_be_bytes(*header[8..].first_chunk().expect("the header has 16 bytes"));
            if version < XERIAL_VERSION {
                return Err(invalid("the snappy stream has an unknown version"));
            }
        }
        if self.rest.is_empty() {
            return Ok(&[]);
        }
        let length = u32::from_be_bytes(*self.take(4)?.first_chunk().expect("four bytes were taken"));
        if length == 0 {
            return Err(invalid("the snappy stream has an empty block"));
        }
        self.take(length as usize)
    }

    fn take(&mut self, bytes: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.rest = rest;
        Ok(taken)
    }
}

impl Read for SnappyReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Blocks of no bytes are legal, and must not look like the end.
        while self.block_at == self.block.len() {
            self.next_block()?;
            if self.block.is_empty() && self.rest.is_empty() {
                return Ok(0);
            }
        }
        let read = (&self.block[self.block_at..]).read(buffer)?;
        self.block_at += read;
        Ok(read)
    }
}

/// Refuses what Java's reader refuses although the decoder here would take it: linked blocks, more than one frame, and a
/// frame that ends without its end mark.
fn check_lz4_frame(frame: &[u8]) -> io::Result<()> {
    let mut rest = frame.strip_prefix(&LZ4_MAGIC).ok_or_else(|| invalid("not an LZ4 frame"))?;
    let flags = *rest.first().ok_or(io::ErrorKind::UnexpectedEof)?;
    let when = |flag: u8, bytes: usize| if flags & flag != 0 { bytes } else { 0 };
    if flags & LZ4_BLOCK_INDEPENDENT == 0 {
        return Err(invalid("the LZ4 frame has linked blocks"));
    }
    // Flags, block size, content size, header checksum.
    skip(&mut rest, 3 + when(LZ4_CONTENT_SIZE, 8))?;
    loop {
        let length = *rest.first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
        // The top bit says that the block is not compressed.
        let block_bytes = u32::from_le_bytes(length) & (u32::MAX >> 1);
        skip(&mut rest, 4)?;
        if u32::from_le_bytes(length) == 0 {
            break;
        }
        skip(&mut rest, block_bytes as usize + when(LZ4_BLOCK_CHECKSUM, 4))?;
    }
    skip(&mut rest, when(LZ4_CONTENT_CHECKSUM, 4))?;
    if rest.is_empty() { Ok(()) } else { Err(invalid("bytes follow the LZ4 frame")) }
}

fn skip(rest: &mut &[u8], bytes: usize) -> io::Result<()> {
    if rest.len() < bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    rest.consume(bytes);
    Ok(())
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decompress(codec: Codec, compressed: &[u8]) -> io::Result<Vec<u8>> {
        let mut records = Vec::new();
        // Whatever the input says: a test must end.
        decompress_stream(codec, compressed)?.take(64 << 20).read_to_end(&mut records)?;
        Ok(records)
    }

    fn sample(bytes: usize) -> Vec<u8> {
        let mut state = 7u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if state >> 30 == 0 { (state >> 8) as u8 } else { b'a' }
        };
        (0..bytes).map(|_| next()).collect()
    }

    #[test]
    fn every_codec_reads_what_it_writes_at_every_level() {
        for codec in Codec::ALL {
            for bytes in [0, 1, 100, SNAPPY_WRITTEN_BLOCK_BYTES, 200_000] {
                for level in [None, Some(i32::MIN), Some(1), Some(9), Some(i32::MAX)] {
                    // The strongest zstd is slow and says nothing that smaller input does not.
                    if bytes > 100 && level == Some(i32::MAX) {
                        continue;
                    }
                    let records = sample(bytes);
                    let compressed = compress(codec, level, &records);
                    assert!(
                        decompress(codec, &compressed).unwrap() == records,
                        "{codec:?} {bytes} {level:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_level_makes_a_difference_where_there_are_levels() {
        let records: String = (0..20_000)
            .map(|number| format!("order {} of {}; ", number * 7_919 % 9_973, number % 97))
            .collect();
        let records = records.as_bytes();
        for (codec, low, high) in [(Codec::Gzip, 1, 9), (Codec::Zstd, 1, 9), (Codec::Lz4, 2, 12)] {
            assert!(
                compress(codec, Some(high), records).len() < compress(codec, Some(low), records).len(),
                "{codec:?}"
            );
        }
        // Kafka's default is the quick way, which every thorough one beats.
        assert_eq!(compress(Codec::Lz4, Some(9), records), compress(Codec::Lz4, None, records));
        assert!(compress(Codec::Lz4, Some(1), records).len() < compress(Codec::Lz4, None, records).len());
    }

    #[test]
    fn what_is_compressed_anew_is_the_same_and_held_only_as_far_as_it_may_be() {
        let records = sample(100_000);
        let block_bytes = records.len() as u64;
        for from in Codec::ALL {
            let sent = compress(from, None, &records);
            for codec in Codec::ALL {
                let to = Compression { codec, level: None };
                let (bytes, again) = recompress(from, &sent, block_bytes, to, usize::MAX).unwrap();
                let again = again.unwrap();
                assert_eq!(again.len(), bytes);
                assert!(decompress(codec, &again).unwrap() == records, "{from:?} to {codec:?}");
                let bounded = |max_bytes| recompress(from, &sent, block_bytes, to, max_bytes).unwrap();
                assert_eq!(bounded(bytes), (bytes, Some(again)));
                assert_eq!(bounded(bytes - 1), (bytes, None));
            }
        }
    }

    #[test]
    fn ids_and_codecs_belong_together() {
        for (id, codec) in Codec::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(codec.id()), id);
            assert_eq!(Codec::from_id(codec.id()), Some(codec));
        }
        assert_eq!(Codec::from_id(5), None);
    }

    #[test]
    fn concatenated_members_frames_and_streams_are_one_stream() {
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Zstd] {
            let mut compressed = compress(codec, None, b"first ");
            compressed.extend(compress(codec, None, b"second"));
            assert_eq!(decompress(codec, &compressed).unwrap(), b"first second", "{codec:?}");
        }
    }

    #[test]
    fn a_bare_snappy_block_is_read() {
        let records = sample(200_000);
        let bare = snap::raw::Encoder::new().compress_vec(&records).unwrap();
        assert!(decompress(Codec::Snappy, &bare).unwrap() == records);
    }

    #[test]
    fn snappy_lengths_that_the_input_does_not_justify_are_refused_before_memory_is_taken() {
        // A bare block that claims 4 GiB less one.
        let bare = [0xff, 0xff, 0xff, 0xff, 0x0f, 0];
        assert_eq!(decompress(Codec::Snappy, &bare).unwrap_err().kind(), io::ErrorKind::InvalidData);

        let mut chunk = compress(Codec::Snappy, None, b"")[..XERIAL_HEADER_BYTES].to_vec();
        chunk.extend(6u32.to_be_bytes());
        chunk.extend(bare);
        assert_eq!(decompress(Codec::Snappy, &chunk).unwrap_err().kind(), io::ErrorKind::InvalidData);

        chunk.truncate(XERIAL_HEADER_BYTES);
        chunk.extend(u32::MAX.to_be_bytes());
        assert_eq!(decompress(Codec::Snappy, &chunk).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        chunk.truncate(XERIAL_HEADER_BYTES);
        chunk.extend([0; 4]);
        assert_eq!(decompress(Codec::Snappy, &chunk).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn the_most_compressible_snappy_block_is_within_the_growth_rule() {
        let records = vec![0; 1 << 20];
        let bare = snap::raw::Encoder::new().compress_vec(&records).unwrap();
        assert!(decompress(Codec::Snappy, &bare).unwrap() == records);
    }

    #[test]
    fn an_lz4_frame_that_java_cannot_read_is_refused() {
        let frame = |info: FrameInfo| {
            let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
            encoder.write_all(&sample(100_000)).unwrap();
            encoder.finish().unwrap()
        };
        let independent = FrameInfo::new().block_mode(BlockMode::Independent);
        let full =
            independent.clone().block_checksums(true).content_checksum(true).content_size(Some(100_000));
        assert!(decompress(Codec::Lz4, &frame(full)).unwrap() == sample(100_000));
        assert!(decompress(Codec::Lz4, &frame(FrameInfo::new().block_mode(BlockMode::Linked))).is_err());

        let whole = frame(independent);
        assert!(decompress(Codec::Lz4, &whole[..whole.len() - 4]).is_err(), "no end mark");
        assert!(decompress(Codec::Lz4, &[&whole[..], &whole[..]].concat()).is_err(), "two frames");
        assert!(decompress(Codec::Lz4, &[&whole[..], b"?"].concat()).is_err(), "trailing bytes");
    }

    #[test]
    fn a_zstd_window_beyond_the_limit_is_refused() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(ZSTD_WINDOW_LOG_MAX + 1).unwrap();
        encoder.write_all(b"little").unwrap();
        let compressed = encoder.finish().unwrap();
        assert!(decompress(Codec::Zstd, &compressed).is_err());
    }

    #[test]
    fn a_cut_stream_is_an_error_or_yields_less() {
        let records = sample(5_000);
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let compressed = compress(codec, None, &records);
            for end in 0..compressed.len() {
                match decompress(codec, &compressed[..end]) {
                    Ok(read) => assert!(read.len() < records.len(), "{codec:?} cut at {end}"),
                    Err(error) => assert!(!error.to_string().is_empty()),
                }
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_decoder_panic(codec in 0u8..5, bytes: Vec<u8>, flip in any::<(u16, u8)>()) {
            let codec = Codec::from_id(codec).unwrap();
            let _ = decompress(codec, &bytes);
            let mut compressed = compress(codec, None, &sample(3_000));
            let at = usize::from(flip.0) % compressed.len();
            compressed[at] ^= flip.1;
            if flip.1 == 0 {
                prop_assert_eq!(decompress(codec, &compressed).unwrap(), sample(3_000));
            } else {
                let _ = decompress(codec, &compressed);
            }
        }
    }
}
