//! The 61 bytes in front of every batch's records, typed.

use super::TimestampType;
use super::compression::Codec;
use super::validate::InvalidBatch;

/// Bytes of a batch before its records.
pub const HEADER_BYTES: usize = 61;
/// Bytes of a batch that its length field does not count: the base offset and the length itself.
pub const UNCOUNTED_BYTES: usize = 12;
/// Smallest length field: a header and no record.
pub const BATCH_LENGTH_MIN: i32 = (HEADER_BYTES - UNCOUNTED_BYTES) as i32;
/// The only format served: magic 0 and 1 ended with Kafka 4.0.
pub const MAGIC: i8 = 2;
/// The producer id of a batch that no idempotent producer sent.
pub const NO_PRODUCER_ID: i64 = -1;
/// The timestamp of a record that has none.
pub const NO_TIMESTAMP: i64 = -1;
/// First byte that the checksum covers.
pub const CHECKSUMMED_FROM: usize = 21;

/// A batch header. What it says of the records is a claim until [`super::validate::validate`] has looked at them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchHeader {
    /// Offset of the first record (of the batch as produced: compaction may have removed it). 0 from a client.
    pub base_offset: i64,
    /// Bytes after this field.
    pub batch_length: i32,
    /// Leader epoch of the append; -1 from a client.
    pub partition_leader_epoch: i32,
    /// Format version, [`MAGIC`].
    pub magic: i8,
    /// CRC-32C of the bytes from [`CHECKSUMMED_FROM`] to the end of the batch.
    pub crc: u32,
    /// Codec, timestamp type and kind.
    pub attributes: Attributes,
    /// Offset of the last record (as produced) less the base offset.
    pub last_offset_delta: i32,
    /// Milliseconds since the epoch that records' timestamp deltas count from: the first record's time, or the delete
    /// horizon if the attributes say so.
    pub base_timestamp: i64,
    /// Largest timestamp of the records, milliseconds since the epoch; -1 if none has one.
    pub max_timestamp: i64,
    /// The idempotent producer, or [`NO_PRODUCER_ID`].
    pub producer_id: i64,
    /// Its epoch, or -1.
    pub producer_epoch: i16,
    /// Sequence number of the first record, or -1.
    pub base_sequence: i32,
    /// Records in the batch.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the first [`HEADER_BYTES`] of `bytes`; more are ignored. Fails if there are fewer, if the length field is
    /// smaller than a header, or if the magic is not [`MAGIC`].
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidBatch> {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(InvalidBatch::Truncated { have_bytes: bytes.len(), need_bytes: HEADER_BYTES });
        };
        let header = Self::decode(header);
        if header.magic != MAGIC {
            return Err(InvalidBatch::Magic(header.magic));
        }
        if header.batch_length < BATCH_LENGTH_MIN {
            return Err(InvalidBatch::Length(header.batch_length));
        }
        Ok(header)
    }

    fn decode(bytes: &[u8; HEADER_BYTES]) -> Self {
        Self {
            base_offset: i64::from_be_bytes(field(bytes, 0)),
            batch_length: i32::from_be_bytes(field(bytes, 8)),
            partition_leader_epoch: i32::from_be_bytes(field(bytes, 12)),
            magic: i8::from_be_bytes(field(bytes, 16)),
            crc: u32::from_be_bytes(field(bytes, 17)),
            attributes: Attributes(i16::from_be_bytes(field(bytes, 21))),
            last_offset_delta: i32::from_be_bytes(field(bytes, 23)),
            base_timestamp: i64::from_be_bytes(field(bytes, 27)),
            max_timestamp: i64::from_be_bytes(field(bytes, 35)),
            producer_id: i64::from_be_bytes(field(bytes, 43)),
            producer_epoch: i16::from_be_bytes(field(bytes, 51)),
            base_sequence: i32::from_be_bytes(field(bytes, 53)),
            record_count: i32::from_be_bytes(field(bytes, 57)),
        }
    }

    /// The header as it stands in front of its records.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&self.base_offset.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.partition_leader_epoch.to_be_bytes());
        bytes[16..17].copy_from_slice(&self.magic.to_be_bytes());
        bytes[17..21].copy_from_slice(&self.crc.to_be_bytes());
        bytes[21..23].copy_from_slice(&self.attributes.0.to_be_bytes());
        bytes[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        bytes[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        bytes[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        bytes[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        bytes[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        bytes[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        bytes[57..61].copy_from_slice(&self.record_count.to_be_bytes());
        bytes
    }

    /// Bytes of the whole batch, header included.
    pub fn size_bytes(&self) -> usize {
        // A parsed or built length is at least BATCH_LENGTH_MIN; a hand-made negative one counts as nothing.
        UNCOUNTED_BYTES + usize::try_from(self.batch_length).unwrap_or(0)
    }

    /// Offset of the last record, inclusive.
    pub fn last_offset(&self) -> i64 {
        self.base_offset.wrapping_add(i64::from(self.last_offset_delta))
    }

    /// Sequence number of the last record, inclusive; -1 if the batch has none.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 { -1 } else { advance_sequence(self.base_sequence, self.last_offset_delta) }
    }

    /// Whether an idempotent producer sent it.
    pub fn has_producer_id(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    /// From when on compaction may drop the batch's tombstones, milliseconds since the epoch; `None` if that is not set.
    /// KIP-534.
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        self.attributes.has_delete_horizon().then_some(self.base_timestamp)
    }

    /// What the checksum field of this header in front of `payload` has to be.
    pub fn checksum(&self, payload: &[u8]) -> u32 {
        crc_of(&self.encode()[CHECKSUMMED_FROM..], payload)
    }
}

/// CRC-32C of a batch from its header's bytes 21 to 61 (exclusive) and its records.
pub fn crc_of(header_bytes_21_to_61: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(header_bytes_21_to_61), payload)
}

/// The sequence number that an idempotent producer must send after `sequence`: 0 follows 2147483647.
pub fn next_sequence(sequence: i32) -> i32 {
    advance_sequence(sequence, 1)
}

/// `sequence` plus `count` (both not negative) in the ring of 2^31 sequence numbers.
fn advance_sequence(sequence: i32, count: i32) -> i32 {
    sequence.wrapping_add(count) & i32::MAX
}

/// The attribute bits of a batch. Bits 7 to 15 have no meaning yet and are kept as they came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Attributes(pub i16);

impl Attributes {
    const CODEC: i16 = 0b111;
    const LOG_APPEND_TIME: i16 = 1 << 3;
    const TRANSACTIONAL: i16 = 1 << 4;
    const CONTROL: i16 = 1 << 5;
    const DELETE_HORIZON: i16 = 1 << 6;

    /// How the records are compressed; the number itself if no codec has it.
    pub fn codec(self) -> Result<Codec, InvalidBatch> {
        let id = (self.0 & Self::CODEC) as u8;
        Codec::from_id(id).ok_or(InvalidBatch::UnknownCodec(id))
    }

    /// Whether there is a codec, known or not.
    pub fn is_compressed(self) -> bool {
        self.0 & Self::CODEC != 0
    }

    /// Whose clock the timestamps are from.
    pub fn timestamp_type(self) -> TimestampType {
        if self.0 & Self::LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Part of a transaction.
    pub fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    /// A marker written by a broker, not data.
    pub fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// The base timestamp is the time from which compaction may drop the batch's tombstones. KIP-534.
    pub fn has_delete_horizon(self) -> bool {
        self.0 & Self::DELETE_HORIZON != 0
    }

    /// The same, with a delete horizon in the place of the base timestamp or without.
    pub fn with_delete_horizon(self, has_one: bool) -> Self {
        self.with(Self::DELETE_HORIZON, has_one)
    }

    /// The same with another codec.
    pub fn with_codec(self, codec: Codec) -> Self {
        Self(self.0 & !Self::CODEC | i16::from(codec.id()))
    }

    /// The same with another timestamp type.
    pub fn with_timestamp_type(self, timestamp_type: TimestampType) -> Self {
        self.with(Self::LOG_APPEND_TIME, timestamp_type == TimestampType::LogAppendTime)
    }

    /// The same, transactional or not.
    pub fn with_transactional(self, transactional: bool) -> Self {
        self.with(Self::TRANSACTIONAL, transactional)
    }

    /// The same, a control batch or not.
    pub fn with_control(self, control: bool) -> Self {
        self.with(Self::CONTROL, control)
    }

    fn with(self, bit: i16, set: bool) -> Self {
        Self(if set { self.0 | bit } else { self.0 & !bit })
    }
}

/// `N` bytes of the header from `at`, which is a constant inside it at every call.
fn field<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("the header's fields end with the header")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: BatchHeader = BatchHeader {
        base_offset: 0x0102_0304_0506_0708,
        batch_length: 0x090a_0b0c,
        partition_leader_epoch: 0x0d0e_0f10,
        magic: MAGIC,
        crc: 0xf112_1314,
        attributes: Attributes(0x1516),
        last_offset_delta: 0x1718_191a,
        base_timestamp: 0x1b1c_1d1e_1f20_2122,
        max_timestamp: 0x2324_2526_2728_292a,
        producer_id: 0x2b2c_2d2e_2f30_3132,
        producer_epoch: 0x3334,
        base_sequence: 0x3536_3738,
        record_count: 0x393a_3b3c,
    };

    #[test]
    fn every_field_is_at_its_place_and_reads_back() {
        let bytes = HEADER.encode();
        let expected: Vec<u8> = (1..=16).chain([2, 0xf1]).chain(0x12..=0x3c).collect();
        assert_eq!(bytes[..], expected[..]);
        assert_eq!(BatchHeader::parse(&bytes).unwrap(), HEADER);
        assert_eq!(HEADER.size_bytes(), 0x090a_0b0c + 12);
    }

    #[test]
    fn fewer_bytes_another_magic_and_a_length_below_a_header_are_refused() {
        let bytes = HEADER.encode();
        for have_bytes in 0..HEADER_BYTES {
            assert!(matches!(
                BatchHeader::parse(&bytes[..have_bytes]),
                Err(InvalidBatch::Truncated { have_bytes: have, need_bytes: HEADER_BYTES }) if have == have_bytes
            ));
        }
        let old = BatchHeader { magic: 1, ..HEADER }.encode();
        assert!(matches!(BatchHeader::parse(&old), Err(InvalidBatch::Magic(1))));
        for batch_length in [i32::MIN, -1, 0, BATCH_LENGTH_MIN - 1] {
            let short = BatchHeader { batch_length, ..HEADER }.encode();
            assert!(
                matches!(BatchHeader::parse(&short), Err(InvalidBatch::Length(length)) if length == batch_length)
            );
        }
        let empty = BatchHeader { batch_length: BATCH_LENGTH_MIN, ..HEADER }.encode();
        assert_eq!(BatchHeader::parse(&empty).unwrap().size_bytes(), HEADER_BYTES);
    }

    #[test]
    fn attributes_hold_each_property_by_itself() {
        let none = Attributes::default();
        assert!(
            !none.is_compressed()
                && !none.is_transactional()
                && !none.is_control()
                && !none.has_delete_horizon()
        );
        assert_eq!(none.timestamp_type(), TimestampType::CreateTime);

        let stamped = none.with_codec(Codec::Lz4).with_timestamp_type(TimestampType::LogAppendTime);
        assert_eq!(stamped.0, 0b1011);
        assert_eq!(stamped.codec().unwrap(), Codec::Lz4);
        assert_eq!(stamped.timestamp_type(), TimestampType::LogAppendTime);
        assert_eq!(stamped.with_timestamp_type(TimestampType::CreateTime).with_codec(Codec::None), none);
        assert_eq!(none.with_transactional(true).with_control(true).0, 0b11_0000);
        assert!(Attributes(0b100_0000).has_delete_horizon());
        assert!(matches!(Attributes(5).codec(), Err(InvalidBatch::UnknownCodec(5))));
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let header = BatchHeader { base_sequence: i32::MAX - 1, last_offset_delta: 3, ..HEADER };
        assert_eq!(header.last_sequence(), 1);
        assert_eq!(BatchHeader { base_sequence: -1, ..header }.last_sequence(), -1);
        assert_eq!(next_sequence(i32::MAX), 0);
        assert_eq!(next_sequence(0), 1);
        assert_eq!(next_sequence(-1), 0);
    }

    #[test]
    fn the_checksum_covers_from_the_attributes_to_the_end() {
        let moved = BatchHeader { base_offset: 9, partition_leader_epoch: 9, crc: 9, ..HEADER };
        assert_eq!(moved.checksum(b"records"), HEADER.checksum(b"records"));
        assert_ne!(
            BatchHeader { attributes: Attributes(0), ..HEADER }.checksum(b"records"),
            HEADER.checksum(b"records")
        );
        assert_ne!(HEADER.checksum(b"record5"), HEADER.checksum(b"records"));
    }
}
