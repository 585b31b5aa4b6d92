//! Walking over the batches of a segment file: headers only, or every byte with its checksum; and finding the next whole batch
//! behind damage.
//!
//! The checksum of a batch does not cover its base offset, length, leader epoch and magic. What holds them right is their
//! neighbours: offsets never overlap, and leader epochs never fall.

use std::io;
use std::sync::Arc;

use super::epochs::LeaderEpochs;
use crate::record::batch::{CHECKSUMMED_FROM, MAGIC};
use crate::record::range::RangeFile;
use crate::record::{BatchHeader, HEADER_BYTES, InvalidBatch};
use crate::storage::read_exact_at;

/// Bytes that are read at once where zeros are expected.
const ZEROS_BYTES: usize = 256 << 10;

/// Whether a file has nothing but zeros from one place to another, or to its end if that comes first.
///
/// # Errors
/// The file's.
pub fn is_zero(file: &dyn RangeFile, (from, to): (u64, u64)) -> io::Result<bool> {
    // What else there can be shows in its first bytes.
    let mut buffer = vec![0; HEADER_BYTES];
    let mut at = from;
    while at < to {
        let wanted = (to - at).min(buffer.len() as u64) as usize;
        match file.read_at(&mut buffer[..wanted], at)? {
            0 => return Ok(true),
            read if buffer[..read].iter().any(|byte| *byte != 0) => return Ok(false),
            read => at += read as u64,
        }
        buffer.resize(ZEROS_BYTES, 0);
    }
    Ok(true)
}

/// Why the bytes at a place in a segment are not the batch that should be there.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// The file ends inside the batch.
    #[error("the file ends {missing_bytes} bytes before the batch does")]
    Truncated {
        /// How many bytes more there should be.
        missing_bytes: u64,
    },
    /// No header of a batch: zeros, garbage, another magic.
    #[error("no batch header: {0}")]
    Header(#[source] InvalidBatch),
    /// The checksum is not that of the bytes.
    #[error("checksum {stated:#010x} stated, {computed:#010x} computed")]
    Checksum {
        /// What the header says.
        stated: u32,
        /// What the bytes have.
        computed: u32,
    },
    /// The header is whole, the records behind it are not.
    #[error("records: {0}")]
    Records(#[source] InvalidBatch),
    /// Segments between two that are there never reached the disk.
    #[error("offsets {from} to {to} (exclusive) are missing before what comes next")]
    Missing {
        /// The first missing offset.
        from: i64,
        /// The next offset that is there.
        to: i64,
    },
    /// The batch claims offsets that the next one has.
    #[error("offsets {base_offset} to {last_offset}, but the next batch begins with {next}")]
    Overlap {
        /// First offset of the batch.
        base_offset: i64,
        /// Last offset of the batch.
        last_offset: i64,
        /// First offset of the next batch.
        next: i64,
    },
    /// The batch's leader epoch is not that of its offsets.
    #[error("leader epoch {found} where {expected} must be")]
    LeaderEpoch {
        /// The batch's.
        found: i32,
        /// The log's.
        expected: i32,
    },
    /// The batch's offsets overlap earlier ones, run backwards, or do not fit the segment.
    #[error(
        "offsets {base_offset} to {last_offset} where {expected_min} or more, within one segment, must come"
    )]
    Offsets {
        /// First offset of the batch.
        base_offset: i64,
        /// Last offset of the batch.
        last_offset: i64,
        /// The end of what came before.
        expected_min: i64,
    },
}

/// Why a walk stopped before its end.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes are damaged.
    #[error("at position {position}: {damage}")]
    Damaged {
        /// Where the damaged batch starts, bytes.
        position: u64,
        /// What is wrong with it.
        damage: Damage,
    },
}

/// A batch: its position, its header, and all its bytes.
pub type Whole<'s> = (u64, BatchHeader, &'s [u8]);

/// Where a header has its magic.
const MAGIC_AT: usize = 16;

/// Batches of at least this size are not read for their headers' sake: the next header is then read by itself.
const READ_AHEAD_BELOW_BYTES: usize = 4 << 10;

/// Walks from batch to batch.
pub struct Scanner<'f> {
    file: &'f dyn RangeFile,
    position: u64,
    end: u64,
    expected_min: i64,
    segment_base_offset: i64,
    /// A run of the file, read at once.
    buffer: Vec<u8>,
    buffer_position: u64,
    buffer_bytes_max: usize,
    /// Whether what follows a header is likely to be wanted too.
    reads_ahead: bool,
    /// Whether `expected_min` is where the next batch must begin unless compaction has left a gap, not just a lower bound.
    is_exact: bool,
    /// No batch reaches this offset.
    offset_end: i64,
    /// What the batch that ends the range must end with.
    ending: Ending,
    epochs: Option<Epochs>,
}

/// What is known of the last offset of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// Nothing.
    Open,
    /// The last batch follows the one before it without a gap: so it is where nothing was compacted.
    Dense,
    /// The last batch ends just below the offset that no batch reaches.
    Full,
}

/// Leader epochs that batches must have.
struct Epochs {
    starts: Arc<LeaderEpochs>,
    /// That of the batch before; unknown before the first.
    before: Option<i32>,
}

impl<'f> Scanner<'f> {
    /// Starts at `position`, which must be the start of a batch with offsets of at least `expected_min`, and ends at `end`
    /// (exclusive). Reads `buffer_bytes` at a time.
    pub fn new(
        file: &'f dyn RangeFile,
        segment_base_offset: i64,
        (position, expected_min): (u64, i64),
        end: u64,
        buffer_bytes: usize,
    ) -> Self {
        assert!(buffer_bytes >= HEADER_BYTES, "a buffer holds at least one header");
        Self {
            file,
            position,
            end,
            expected_min,
            segment_base_offset,
            buffer: Vec::new(),
            buffer_position: position,
            buffer_bytes_max: buffer_bytes,
            reads_ahead: true,
            is_exact: position == 0,
            offset_end: i64::MAX,
            ending: Ending::Open,
            epochs: None,
        }
    }

    /// Also holds offsets against what is known of the end of the range: no batch reaches `offset_end`.
    pub fn ending(mut self, ending: Ending, offset_end: i64) -> Self {
        (self.ending, self.offset_end) = (ending, offset_end);
        self
    }

    /// Also holds leader epochs against the log's. A batch that has another is damaged, unless its neighbours have the same:
    /// then it is `starts` that is not right.
    pub fn checking_epochs(mut self, starts: Arc<LeaderEpochs>) -> Self {
        self.epochs = Some(Epochs { starts, before: None });
        self
    }

    /// Where the next batch begins, bytes.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Passes over what is at [`Self::position`], which is damaged, to the next whole batch: a header that fits what came
    /// before, and the checksum of its bytes. `false` if there is none before the end.
    pub fn resync(&mut self) -> io::Result<bool> {
        // Bytes that look like headers are rare, and each costs no more than the batch that it claims; but bytes may be made
        // to look so, and must not cost more than all of them once more.
        let mut budget_bytes = self.end.saturating_sub(self.position);
        let mut at = self.position + 1;
        while at + HEADER_BYTES as u64 <= self.end {
            let run = self.buffered(at, HEADER_BYTES, true)?;
            let starts = run.len() + 1 - HEADER_BYTES;
            let magic = &run[MAGIC_AT..MAGIC_AT + starts];
            let Some(step) = magic.iter().position(|byte| *byte == MAGIC as u8) else {
                at += starts as u64;
                continue;
            };
            let header = BatchHeader::parse(&run[step..]);
            at += step as u64;
            let fits =
                |header: &BatchHeader| self.fits(header) && at + header.size_bytes() as u64 <= self.end;
            if let Some(header) = header.ok().filter(fits)
                && budget_bytes > 0
            {
                budget_bytes = budget_bytes.saturating_sub(header.size_bytes() as u64);
                if self.checksum_at(at, &header)? == header.crc {
                    self.position = at;
                    self.is_exact = false;
                    self.epochs.iter_mut().for_each(|epochs| epochs.before = None);
                    return Ok(true);
                }
            }
            at += 1;
        }
        Ok(false)
    }

    /// The next batch and its position. Its header is checked for plausibility; its checksum is compared if it holds
    /// `check_from_offset` or what comes after that.
    pub fn next(&mut self, check_from_offset: i64) -> Result<Option<(u64, BatchHeader)>, ScanError> {
        let Some(header) = self.peek(check_from_offset != UNCHECKED)? else { return Ok(None) };
        if header.last_offset() >= check_from_offset {
            let computed = match self.checksum_at(self.position, &header) {
                Ok(computed) => computed,
                Err(error) => return Err(self.shortened(error)),
            };
            if computed != header.crc {
                return Err(self.damaged(Damage::Checksum { stated: header.crc, computed }));
            }
        }
        let position = self.position;
        self.position += header.size_bytes() as u64;
        self.expected_min = header.last_offset() + 1;
        self.is_exact = true;
        self.reads_ahead = header.size_bytes() < READ_AHEAD_BELOW_BYTES;
        if let Some(epochs) = &mut self.epochs {
            epochs.before = Some(header.partition_leader_epoch);
        }
        Ok(Some((position, header)))
    }

    /// The next batch with all its bytes, which are what was written: header and checksum are compared.
    pub fn next_whole(&mut self) -> Result<Option<Whole<'_>>, ScanError> {
        let Some(header) = self.peek(true)? else { return Ok(None) };
        let (position, size_bytes) = (self.position, header.size_bytes());
        let computed = match self.buffered(position, size_bytes, true) {
            Ok(bytes) => crc32c::crc32c(&bytes[CHECKSUMMED_FROM..size_bytes]),
            Err(error) => return Err(self.shortened(error)),
        };
        if computed != header.crc {
            return Err(self.damaged(Damage::Checksum { stated: header.crc, computed }));
        }
        self.position += size_bytes as u64;
        self.expected_min = header.last_offset() + 1;
        self.is_exact = true;
        Ok(Some((position, header, &self.buffered(position, size_bytes, true)?[..size_bytes])))
    }

    /// The bytes of the batch at `position` behind its header, read if they are not at hand.
    pub fn payload(&mut self, position: u64, header: &BatchHeader) -> io::Result<&[u8]> {
        let size_bytes = header.size_bytes();
        Ok(&self.buffered(position, size_bytes, true)?[HEADER_BYTES..size_bytes])
    }

    /// Whether the checksum of the batch at `position` is that of its bytes: for one that was passed over unchecked, and that
    /// damage follows. A wrong length leads astray.
    pub fn is_whole(&mut self, position: u64, header: &BatchHeader) -> io::Result<bool> {
        match self.checksum_at(position, header) {
            Ok(computed) => Ok(computed == header.crc),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn checksum_at(&mut self, position: u64, header: &BatchHeader) -> io::Result<u32> {
        let end = position + header.size_bytes() as u64;
        let mut at = position + CHECKSUMMED_FROM as u64;
        let mut computed = 0;
        while at < end {
            let run = self.buffered(at, 1, true)?;
            let run = &run[..run.len().min((end - at) as usize)];
            computed = crc32c::crc32c_append(computed, run);
            at += run.len() as u64;
        }
        Ok(computed)
    }

    fn damaged(&self, damage: Damage) -> ScanError {
        ScanError::Damaged { position: self.position, damage }
    }

    /// A file that has become shorter than it was is damaged; every other error is the disk's.
    fn shortened(&self, error: io::Error) -> ScanError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                self.damaged(Damage::Truncated { missing_bytes: self.end - self.position })
            }
            _ => ScanError::Io(error),
        }
    }

    fn peek(&mut self, wants_all: bool) -> Result<Option<BatchHeader>, ScanError> {
        let left = self.end.saturating_sub(self.position);
        if left == 0 {
            return Ok(None);
        }
        if left < HEADER_BYTES as u64 {
            return Err(self.damaged(Damage::Truncated { missing_bytes: HEADER_BYTES as u64 - left }));
        }
        let reads_ahead = wants_all || self.reads_ahead;
        let bytes = match self.buffered(self.position, HEADER_BYTES, reads_ahead) {
            Ok(bytes) => bytes,
            Err(error) => return Err(self.shortened(error)),
        };
        let header = match BatchHeader::parse(bytes) {
            Ok(header) => header,
            Err(invalid) => return Err(self.damaged(Damage::Header(invalid))),
        };
        let size_bytes = header.size_bytes() as u64;
        if size_bytes > left {
            return Err(self.damaged(Damage::Truncated { missing_bytes: size_bytes - left }));
        }
        if !self.fits(&header) {
            let (base_offset, last_offset) = (header.base_offset, header.last_offset());
            let expected_min = self.expected_min;
            return Err(self.damaged(Damage::Offsets { base_offset, last_offset, expected_min }));
        }
        self.compare_with_neighbours(&header)?;
        Ok(Some(header))
    }

    fn fits(&self, header: &BatchHeader) -> bool {
        header.last_offset_delta >= 0
            && header.base_offset >= self.expected_min
            && header.last_offset() >= header.base_offset
            && header.last_offset() - self.segment_base_offset <= i64::from(i32::MAX)
    }

    /// Only where something changes from batch to batch, which is rare, the next header has to be looked at.
    fn compare_with_neighbours(&self, header: &BatchHeader) -> Result<(), ScanError> {
        let (base_offset, last_offset) = (header.base_offset, header.last_offset());
        let overlap = |next| Err(self.damaged(Damage::Overlap { base_offset, last_offset, next }));
        if last_offset >= self.offset_end {
            return overlap(self.offset_end);
        }
        let is_last = self.position + header.size_bytes() as u64 == self.end;
        if is_last && self.ending == Ending::Full && last_offset + 1 != self.offset_end {
            return Err(self.damaged(Damage::Missing { from: last_offset + 1, to: self.offset_end }));
        }
        let found = header.partition_leader_epoch;
        let is_later = base_offset > self.expected_min;
        let expected = self.epochs.as_ref().and_then(|epochs| epochs.starts.at(last_offset));
        let is_odd = expected.is_some_and(|expected| expected != found);
        if !is_later && !is_odd {
            return Ok(());
        }
        let next = self.header_behind(header)?;
        if is_later {
            match next {
                Some(next) if (self.expected_min..=last_offset).contains(&next.base_offset) => {
                    return overlap(next.base_offset);
                }
                None if self.ending == Ending::Dense && self.is_exact => {
                    let (from, to) = (self.expected_min, base_offset);
                    return Err(self.damaged(Damage::Missing { from, to }));
                }
                _ => {}
            }
        }
        if let Some(expected) = expected.filter(|_| is_odd) {
            let before = self.epochs.as_ref().and_then(|epochs| epochs.before);
            let behind = next.map(|next| next.partition_leader_epoch);
            if before.or(behind) != Some(found) || behind.is_some_and(|behind| behind != found) {
                return Err(self.damaged(Damage::LeaderEpoch { found, expected }));
            }
        }
        Ok(())
    }

    /// The header that follows the batch at [`Self::position`], if one does.
    fn header_behind(&self, header: &BatchHeader) -> io::Result<Option<BatchHeader>> {
        let position = self.position + header.size_bytes() as u64;
        if position + HEADER_BYTES as u64 > self.end {
            return Ok(None);
        }
        let mut bytes = [0; HEADER_BYTES];
        match read_exact_at(self.file, &mut bytes, position) {
            Ok(()) => Ok(BatchHeader::parse(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What is buffered from `position` on, at least `bytes_min` of it, which the file must have.
    fn buffered(&mut self, position: u64, bytes_min: usize, reads_ahead: bool) -> io::Result<&[u8]> {
        let offset = position.wrapping_sub(self.buffer_position);
        let have = (self.buffer.len() as u64).saturating_sub(offset);
        if have < bytes_min as u64 {
            let wanted = if reads_ahead { self.buffer_bytes_max.max(bytes_min) } else { bytes_min };
            let length = (self.end - position).min(wanted as u64) as usize;
            if self.buffer.capacity() > 2 * self.buffer_bytes_max.max(bytes_min) {
                self.buffer = Vec::new();
            }
            self.buffer.resize(length, 0);
            self.buffer_position = position;
            if let Err(error) = read_exact_at(self.file, &mut self.buffer, position) {
                self.buffer.clear();
                return Err(error);
            }
        }
        Ok(&self.buffer[(position - self.buffer_position) as usize..])
    }
}

/// No checksum is compared: for [`Scanner::next`] over what is known to be whole.
pub const UNCHECKED: i64 = i64::MAX;

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use proptest::prelude::*;

    use super::*;
    use crate::log::fixture::builder;
    use crate::storage::Disk;
    use crate::storage::simulated::SimulatedDisk;

    fn bytes(batches: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in 0..batches {
            let mut batch = builder(3, number * 40).build_valid();
            batch.assign(number as i64 * 3, 0);
            bytes.extend_from_slice(&batch.to_bytes());
        }
        bytes
    }

    /// Offsets of the batches, and what ended the walk.
    fn walk(bytes: &[u8], check_from_offset: i64, buffer_bytes: usize) -> (Vec<i64>, Option<ScanError>) {
        let disk = SimulatedDisk::default();
        let file = disk.create("/file".as_ref()).unwrap();
        crate::storage::write_all_at(&*file, &mut [IoSlice::new(bytes)], 0).unwrap();
        let mut scanner = Scanner::new(&*file, 0, (0, 0), bytes.len() as u64, buffer_bytes);
        let mut offsets = Vec::new();
        loop {
            match scanner.next(check_from_offset) {
                Ok(Some((_, header))) => offsets.push(header.base_offset),
                Ok(None) => return (offsets, None),
                Err(error) => return (offsets, Some(error)),
            }
        }
    }

    #[test]
    fn every_batch_is_met_whatever_the_buffer() {
        for buffer_bytes in [61, 100, 1000, 100_000] {
            for check_from_offset in [0, 7, UNCHECKED] {
                let (offsets, error) = walk(&bytes(8), check_from_offset, buffer_bytes);
                assert_eq!(offsets, [0, 3, 6, 9, 12, 15, 18, 21]);
                assert!(error.is_none());
            }
        }
    }

    #[test]
    fn a_wrong_checksum_matters_only_where_it_is_compared() {
        let mut bytes = bytes(3);
        let second = bytes.len() / 5;
        bytes[second] ^= 1;
        assert!(walk(&bytes, UNCHECKED, 1000).1.is_none() || second < 61);
        let (offsets, error) = walk(&bytes, 0, 1000);
        assert!(matches!(error, Some(ScanError::Damaged { damage: Damage::Checksum { .. }, .. })));
        assert!(offsets.len() < 3);
    }

    #[test]
    fn the_next_whole_batch_is_found_behind_damage_of_any_kind() {
        let whole = bytes(6);
        let starts: Vec<usize> = (0..6)
            .scan(0, |at, number| {
                let start = *at;
                *at += builder(3, number * 40).build_valid().size_bytes();
                Some(start)
            })
            .collect();
        let disk = SimulatedDisk::default();
        for (at, buffer_bytes) in (starts[2]..starts[3]).flat_map(|at| [(at, 61), (at, 200), (at, 100_000)]) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x40;
            let file = disk.create("/file".as_ref()).unwrap();
            crate::storage::write_all_at(&*file, &mut [IoSlice::new(&damaged)], 0).unwrap();
            let mut scanner = Scanner::new(&*file, 0, (0, 0), damaged.len() as u64, buffer_bytes);
            let mut found = Vec::new();
            loop {
                match scanner.next(0) {
                    Ok(Some((position, header))) => found.push((position as usize, header.base_offset)),
                    Ok(None) => break,
                    Err(_) => assert!(scanner.resync().unwrap(), "{at}"),
                }
            }
            let mut expected: Vec<_> = starts.iter().copied().zip((0..).step_by(3)).collect();
            // A leader epoch is for who knows which are right.
            if !(12..16).contains(&(at - starts[2])) {
                expected.remove(2);
            }
            assert_eq!(found, expected, "{at}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_or_are_taken_for_more_than_they_are(
            garbage in proptest::collection::vec(any::<u8>(), 0..400),
            flips in proptest::collection::vec((any::<prop::sample::Index>(), 1..=255u8), 0..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let (_, error) = walk(&garbage, 0, 128);
            prop_assert!(garbage.is_empty() == error.is_none());
            let whole = bytes(6);
            let mut damaged = whole.clone();
            for (at, mask) in flips {
                let at = at.index(damaged.len());
                damaged[at] ^= mask;
            }
            damaged.truncate(cut.index(whole.len() + 1));
            let (offsets, _) = walk(&damaged, 0, 128);
            prop_assert!(offsets.len() <= 6);
            prop_assert!(offsets.is_sorted());
        }
    }
}
