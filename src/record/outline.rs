//! Which batches a stretch of a log consists of, told from their headers alone.

use std::io;

use bytes::Bytes;

use super::batch::{BatchHeader, HEADER_BYTES};
use super::range::FileRange;

/// Bytes that are read at a time: many headers of small batches, one of a large one.
const WINDOW_BYTES: usize = 4 << 10;

/// A whole batch of a stretch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outlined {
    /// Offset of its first record.
    pub first_offset: i64,
    /// Offset of its last record, inclusive.
    pub last_offset: i64,
    /// All its bytes.
    pub size_bytes: usize,
}

/// The whole batches of `range` from its start on, until they hold `records_max` offsets from `offset` on; a cut one at the end
/// is none. Blocks for reads.
///
/// # Errors
/// The file's; bytes that are no batch.
pub fn outline(range: &FileRange, offset: i64, records_max: i64) -> io::Result<Vec<Outlined>> {
    outline_by(range, offset, records_max, FileRange::read)
}

/// As [`outline`], if that needs no waiting for a disk. `None` also where something is wrong: what, a read that may wait will say.
pub fn outline_cached(range: &FileRange, offset: i64, records_max: i64) -> Option<Vec<Outlined>> {
    let read = |part: &FileRange| part.read_cached().ok_or_else(|| io::ErrorKind::WouldBlock.into());
    outline_by(range, offset, records_max, read).ok()
}

fn outline_by(
    range: &FileRange,
    offset: i64,
    records_max: i64,
    read: impl Fn(&FileRange) -> io::Result<Bytes>,
) -> io::Result<Vec<Outlined>> {
    let mut batches = Vec::new();
    let (mut at, mut records) = (0, 0);
    let (mut window, mut window_at) = (Bytes::new(), 0);
    while at + HEADER_BYTES <= range.length && records < records_max {
        if at < window_at || at + HEADER_BYTES > window_at + window.len() {
            let length = WINDOW_BYTES.min(range.length - at);
            let part = FileRange { position: range.position + at as u64, length, ..range.clone() };
            window = read(&part)?;
            window_at = at;
        }
        let header = BatchHeader::parse(&window[at - window_at..])
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let size_bytes = header.size_bytes();
        if at + size_bytes > range.length {
            break;
        }
        let (first_offset, last_offset) = (header.base_offset, header.last_offset());
        batches.push(Outlined { first_offset, last_offset, size_bytes });
        records += (last_offset - first_offset.max(offset) + 1).max(0);
        at += size_bytes;
    }
    Ok(batches)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::BatchBuilder;
    use super::super::range::RangeFile;
    use super::*;

    #[derive(Debug)]
    struct Memory {
        bytes: Vec<u8>,
        is_cached: bool,
    }

    impl RangeFile for Memory {
        fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
            None
        }

        fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
            let rest = &self.bytes[(position as usize).min(self.bytes.len())..];
            let length = buffer.len().min(rest.len());
            buffer[..length].copy_from_slice(&rest[..length]);
            Ok(length)
        }

        fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
            match self.is_cached {
                true => self.read_at(buffer, position),
                false => Err(io::ErrorKind::WouldBlock.into()),
            }
        }

        fn is_cached(&self, _position: u64, _length: usize) -> bool {
            self.is_cached
        }
    }

    fn in_memory(bytes: Vec<u8>, is_cached: bool) -> FileRange {
        let length = bytes.len();
        FileRange { file: Arc::new(Memory { bytes, is_cached }), position: 0, length }
    }

    /// Batches of one record of these sizes, from offset 0 on.
    fn log(value_bytes: &[usize]) -> FileRange {
        let mut bytes = Vec::new();
        for (offset, value_bytes) in value_bytes.iter().enumerate() {
            let batch = BatchBuilder::new().record(0, None, Some(&vec![b'x'; *value_bytes])).build();
            let from = bytes.len();
            bytes.extend_from_slice(&batch);
            bytes[from..from + 8].copy_from_slice(&(offset as i64).to_be_bytes());
        }
        in_memory(bytes, true)
    }

    #[test]
    fn batches_of_all_sizes_are_found_by_their_headers() {
        let sizes: Vec<usize> = (0..200).map(|n| if n % 7 == 0 { 9_000 } else { n }).collect();
        let range = log(&sizes);
        let found = outline(&range, 0, i64::MAX).unwrap();
        let offsets: Vec<i64> = found.iter().map(|batch| batch.first_offset).collect();
        assert_eq!(offsets, (0..200).collect::<Vec<i64>>());
        assert_eq!(found.iter().map(|batch| batch.size_bytes).sum::<usize>(), range.length);
        assert!(found.iter().all(|batch| batch.last_offset == batch.first_offset));
    }

    #[test]
    fn a_cut_batch_is_none_and_enough_is_enough() {
        let range = log(&[100; 10]);
        let cut = FileRange { length: range.length - 1, ..range.clone() };
        assert_eq!(outline(&cut, 0, i64::MAX).unwrap().len(), 9);
        assert_eq!(outline(&range, 2, 3).unwrap().len(), 5, "what lies before the offset does not count");
        assert_eq!(outline(&FileRange { length: 20, ..range }, 0, 1).unwrap(), []);
    }

    #[test]
    fn garbage_is_an_error() {
        let range = in_memory(vec![7; 500], true);
        assert_eq!(outline(&range, 0, 1).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn what_is_not_in_memory_is_not_waited_for() {
        let cached = log(&[100; 10]);
        assert_eq!(outline_cached(&cached, 2, 3), Some(outline(&cached, 2, 3).unwrap()));
        let uncached = in_memory(cached.read().unwrap().to_vec(), false);
        assert_eq!(outline_cached(&uncached, 2, 3), None);
        assert_eq!(outline(&uncached, 2, 3).unwrap().len(), 5);
        assert_eq!(outline_cached(&in_memory(vec![7; 500], true), 0, 1), None);
    }
}
