//! Walking over the batches of a segment file: headers only, or every byte with its checksum.

use std::io;

use crate::record::batch::CHECKSUMMED_FROM;
use crate::record::range::RangeFile;
use crate::record::{BatchHeader, HEADER_BYTES, InvalidBatch};
use crate::storage::read_exact_at;

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

/// Walks from batch to batch.
pub struct Scanner<'f> {
    file: &'f dyn RangeFile,
    position: u64,
    end: u64,
    expected_min: i64,
    segment_base_offset: i64,
    /// A run of the file, read at once.
    buffer: Vec<u8>,
    buffer_bytes: usize,
    buffer_position: u64,
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
        let buffer = Vec::with_capacity(buffer_bytes);
        Self {
            file,
            position,
            end,
            expected_min,
            segment_base_offset,
            buffer,
            buffer_bytes,
            buffer_position: position,
        }
    }

    /// The next batch and its position. Its header is checked for plausibility; its checksum is compared if it holds
    /// `check_from_offset` or what comes after that.
    pub fn next(&mut self, check_from_offset: i64) -> Result<Option<(u64, BatchHeader)>, ScanError> {
        let Some(header) = self.peek()? else { return Ok(None) };
        if header.last_offset() >= check_from_offset {
            self.compare_checksum(&header)?;
        }
        let position = self.position;
        self.position += header.size_bytes() as u64;
        self.expected_min = header.last_offset() + 1;
        Ok(Some((position, header)))
    }

    /// The next batch with all its bytes, which are what was written: header and checksum are compared.
    pub fn next_whole(&mut self) -> Result<Option<Whole<'_>>, ScanError> {
        let Some(header) = self.peek()? else { return Ok(None) };
        let (position, size_bytes) = (self.position, header.size_bytes());
        let computed = crc32c::crc32c(&self.buffered(position, size_bytes)?[CHECKSUMMED_FROM..size_bytes]);
        if computed != header.crc {
            return Err(self.damaged(Damage::Checksum { stated: header.crc, computed }));
        }
        self.position += size_bytes as u64;
        self.expected_min = header.last_offset() + 1;
        Ok(Some((position, header, &self.buffered(position, size_bytes)?[..size_bytes])))
    }

    fn compare_checksum(&mut self, header: &BatchHeader) -> Result<(), ScanError> {
        let end = self.position + header.size_bytes() as u64;
        let mut at = self.position + CHECKSUMMED_FROM as u64;
        let mut computed = 0;
        while at < end {
            let run = self.buffered(at, 1)?;
            let run = &run[..run.len().min((end - at) as usize)];
            computed = crc32c::crc32c_append(computed, run);
            at += run.len() as u64;
        }
        match computed == header.crc {
            true => Ok(()),
            false => Err(self.damaged(Damage::Checksum { stated: header.crc, computed })),
        }
    }

    fn damaged(&self, damage: Damage) -> ScanError {
        ScanError::Damaged { position: self.position, damage }
    }

    fn peek(&mut self) -> Result<Option<BatchHeader>, ScanError> {
        let left = self.end.saturating_sub(self.position);
        if left == 0 {
            return Ok(None);
        }
        if left < HEADER_BYTES as u64 {
            return Err(self.damaged(Damage::Truncated { missing_bytes: HEADER_BYTES as u64 - left }));
        }
        let bytes = self.buffered(self.position, HEADER_BYTES)?;
        let header = match BatchHeader::parse(bytes) {
            Ok(header) => header,
            Err(invalid) => return Err(self.damaged(Damage::Header(invalid))),
        };
        let size_bytes = header.size_bytes() as u64;
        if size_bytes > left {
            return Err(self.damaged(Damage::Truncated { missing_bytes: size_bytes - left }));
        }
        let fits = header.last_offset_delta >= 0
            && header.base_offset >= self.expected_min
            && header.last_offset() >= header.base_offset
            && header.last_offset() - self.segment_base_offset <= i64::from(i32::MAX);
        if !fits {
            let (base_offset, last_offset) = (header.base_offset, header.last_offset());
            let expected_min = self.expected_min;
            return Err(self.damaged(Damage::Offsets { base_offset, last_offset, expected_min }));
        }
        Ok(Some(header))
    }

    /// What is buffered from `position` on, at least `bytes_min` of it, which the file must have.
    fn buffered(&mut self, position: u64, bytes_min: usize) -> io::Result<&[u8]> {
        let offset = position.wrapping_sub(self.buffer_position);
        let have = (self.buffer.len() as u64).saturating_sub(offset);
        if have < bytes_min as u64 {
            // More than one run is read only of a batch that was asked for whole, and that the file has.
            let run = self.buffer_bytes.max(bytes_min);
            let length = (self.end - position).min(run as u64) as usize;
            if self.buffer.capacity() > 2 * run {
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
