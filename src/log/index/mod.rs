//! Sparse indexes of a segment: a few bytes for every few KiB of log, so that a lookup reads little. They can always be made
//! again from the log, so they are written late and in runs: the newest entries are in memory, the others in the file.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

pub use self::offset::OffsetEntry;
pub use self::time::TimeEntry;
use crate::record::range::{Cached, RangeFile, Reads};
use crate::storage::{Disk, DiskFile, read_exact_at, write_all_at};

mod offset;
mod time;

/// Entries that are kept in memory before they are written together.
pub const PENDING_MAX: usize = 128;

/// Entries of a file that are read at once at the end of a lookup.
const BLOCK_ENTRIES: usize = 256;

/// One entry of an index file: a key that rises strictly from entry to entry, and what it leads to.
pub trait IndexEntry: Copy + Eq + std::fmt::Debug {
    /// Size in the file.
    const BYTES: usize;

    /// What lookups compare.
    fn key(&self) -> i64;

    /// Appends the entry's bytes; offsets are stored relative to the segment's base offset.
    fn encode(&self, base_offset: i64, out: &mut Vec<u8>);

    /// Reads an entry from exactly [`Self::BYTES`] bytes.
    fn decode(base_offset: i64, bytes: &[u8]) -> Self;
}

/// One index of one segment.
#[derive(Debug)]
pub struct Index<E> {
    path: PathBuf,
    base_offset: i64,
    file: Option<Arc<dyn DiskFile>>,
    /// Entries in the file; `None` until somebody had to know.
    written: Option<usize>,
    pending: Vec<E>,
    last: Option<E>,
}

impl<E: IndexEntry> Index<E> {
    /// The index of a new segment: no file is made before there is something to write.
    pub fn new(path: PathBuf, base_offset: i64) -> Self {
        Self { path, base_offset, file: None, written: Some(0), pending: Vec::new(), last: None }
    }

    /// The index of an existing segment; its file is opened at the first use.
    pub fn existing(path: PathBuf, base_offset: i64) -> Self {
        Self { path, base_offset, file: None, written: None, pending: Vec::new(), last: None }
    }

    /// Entries in all.
    pub fn len(&mut self, disk: &dyn Disk) -> io::Result<usize> {
        Ok(self.open(disk)? + self.pending.len())
    }

    /// Whether it has neither entries nor a file, which would have to be kept right.
    pub fn is_absent(&mut self, disk: &dyn Disk) -> io::Result<bool> {
        Ok(self.len(disk)? == 0 && self.file.is_none())
    }

    /// The entry with the largest key.
    pub fn last(&mut self, disk: &dyn Disk) -> io::Result<Option<E>> {
        self.open(disk)?;
        Ok(self.last)
    }

    /// Adds an entry in memory; one whose key is not above the last is left out, and `false`.
    pub fn push(&mut self, disk: &dyn Disk, entry: E) -> io::Result<bool> {
        self.open(disk)?;
        if self.last.is_some_and(|last| last.key() >= entry.key()) {
            return Ok(false);
        }
        self.last = Some(entry);
        self.pending.push(entry);
        Ok(true)
    }

    /// Whether it is time to [`Self::write`].
    pub fn is_due(&self) -> bool {
        self.pending.len() >= PENDING_MAX
    }

    /// Whether all entries are in the file, if the last has at least `key`.
    pub fn is_written_to(&self, key: i64) -> bool {
        self.pending.is_empty() && self.last.is_some_and(|last| last.key() >= key)
    }

    /// Whether there are entries that are only in memory.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Writes the entries that are only in memory.
    pub fn write(&mut self, disk: &dyn Disk) -> io::Result<()> {
        let written = self.open(disk)?;
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(self.pending.len() * E::BYTES);
        self.pending.iter().for_each(|entry| entry.encode(self.base_offset, &mut bytes));
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(disk.create(&self.path)?),
        };
        write_all_at(&**file, &mut [IoSlice::new(&bytes)], (written * E::BYTES) as u64)?;
        self.written = Some(written + self.pending.len());
        self.pending.clear();
        Ok(())
    }

    /// Writes what is only in memory and returns the file, made if there was none, so that it can be synced; the index lets
    /// go of it until the next use.
    pub fn seal(&mut self, disk: &dyn Disk) -> io::Result<Arc<dyn DiskFile>> {
        self.write(disk)?;
        self.pending = Vec::new();
        match self.file.take() {
            Some(file) => {
                // It is opened again at the next lookup, which then counts its entries.
                self.written = None;
                Ok(file)
            }
            None => disk.create(&self.path),
        }
    }

    /// The entry with the largest key that is at most `key`.
    pub fn floor(&mut self, disk: &dyn Disk, key: i64, reads: Reads) -> io::Result<Option<E>> {
        let written = match self.written {
            None if reads == Reads::Cached => return Err(io::ErrorKind::WouldBlock.into()),
            _ => self.open(disk)?,
        };
        if self.pending.first().is_some_and(|first| first.key() <= key) {
            let above = self.pending.partition_point(|entry| entry.key() <= key);
            return Ok(Some(self.pending[above - 1]));
        }
        match &self.file {
            Some(file) => floor_in_file(reads.through(&Cached(&**file)), self.base_offset, written, key),
            None => Ok(None),
        }
    }

    /// Forgets the entries from `number` (counted from 0) on.
    pub fn truncate(&mut self, disk: &dyn Disk, number: usize) -> io::Result<()> {
        let written = self.open(disk)?;
        self.pending.truncate(number.saturating_sub(written));
        if let Some(file) = self.file.as_ref().filter(|_| number < written) {
            file.set_len((number * E::BYTES) as u64)?;
            self.written = Some(number);
        }
        self.last = match (self.pending.last(), &self.file) {
            (Some(entry), _) => Some(*entry),
            (None, Some(file)) => last_in_file(&**file, self.base_offset, number.min(written))?,
            (None, None) => None,
        };
        Ok(())
    }

    /// Opens the file if there is one and it was not opened yet; how many entries it has.
    fn open(&mut self, disk: &dyn Disk) -> io::Result<usize> {
        if let Some(written) = self.written {
            return Ok(written);
        }
        let written = match disk.open(&self.path) {
            Ok(file) => {
                // Bytes after the last whole entry are a write that a crash cut short.
                let written = file.length()? as usize / E::BYTES;
                self.last = last_in_file(&*file, self.base_offset, written)?;
                self.file = Some(file);
                written
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        self.written = Some(written);
        Ok(written)
    }
}

fn entry_in_file<E: IndexEntry>(file: &dyn RangeFile, base_offset: i64, number: usize) -> io::Result<E> {
    let mut bytes = [0; 16];
    let bytes = &mut bytes[..E::BYTES];
    read_exact_at(file, bytes, (number * E::BYTES) as u64)?;
    Ok(E::decode(base_offset, bytes))
}

fn last_in_file<E: IndexEntry>(file: &dyn DiskFile, base_offset: i64, count: usize) -> io::Result<Option<E>> {
    count.checked_sub(1).map(|last| entry_in_file(file, base_offset, last)).transpose()
}

/// Halves the range by single reads until a block is left, which is read whole.
fn floor_in_file<E: IndexEntry>(
    file: &dyn RangeFile,
    base_offset: i64,
    count: usize,
    key: i64,
) -> io::Result<Option<E>> {
    let (mut from, mut to) = (0, count);
    while to - from > BLOCK_ENTRIES {
        let middle = from + (to - from) / 2;
        match entry_in_file::<E>(file, base_offset, middle)?.key() <= key {
            true => from = middle,
            false => to = middle,
        }
    }
    let mut bytes = [0; BLOCK_ENTRIES * 12];
    let bytes = &mut bytes[..(to - from) * E::BYTES];
    read_exact_at(file, bytes, (from * E::BYTES) as u64)?;
    let entries = bytes.chunks_exact(E::BYTES).map(|entry| E::decode(base_offset, entry));
    Ok(entries.take_while(|entry| entry.key() <= key).last())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::simulated::SimulatedDisk;

    fn index(disk: &SimulatedDisk) -> Index<OffsetEntry> {
        disk.create_dir_all("/log".as_ref()).unwrap();
        Index::new("/log/00000000000000001000.index".into(), 1000)
    }

    fn entry(number: i64) -> OffsetEntry {
        OffsetEntry { offset: 1000 + number * 10, position: number as u32 * 4096 }
    }

    #[test]
    fn floor_finds_the_entry_wherever_it_lies() {
        let disk = SimulatedDisk::default();
        let mut index = index(&disk);
        for count in [1, 5, 600, 1500] {
            for number in index.len(&disk).unwrap() as i64..count {
                assert!(index.push(&disk, entry(number)).unwrap());
                if index.is_due() {
                    index.write(&disk).unwrap();
                }
            }
            for number in 0..count {
                for key in [entry(number).offset, entry(number).offset + 9] {
                    assert_eq!(index.floor(&disk, key, Reads::All).unwrap(), Some(entry(number)), "{count}");
                }
            }
            assert_eq!(index.floor(&disk, 999, Reads::All).unwrap(), None);
        }
        assert!(disk.writes() < 15, "entries are written together");
    }

    #[test]
    fn an_index_reads_back_after_it_was_sealed() {
        let disk = SimulatedDisk::default();
        let mut written = index(&disk);
        (0..300).for_each(|number| assert!(written.push(&disk, entry(number)).unwrap()));
        written.seal(&disk).unwrap();
        let mut read = Index::existing("/log/00000000000000001000.index".into(), 1000);
        for index in [&mut written, &mut read] {
            assert_eq!(index.len(&disk).unwrap(), 300);
            assert_eq!(index.last(&disk).unwrap(), Some(entry(299)));
            assert_eq!(index.floor(&disk, 2005, Reads::All).unwrap(), Some(entry(100)));
        }
    }

    #[test]
    fn keys_only_rise() {
        let disk = SimulatedDisk::default();
        let mut index = index(&disk);
        assert!(index.push(&disk, entry(4)).unwrap());
        assert!(!index.push(&disk, entry(4)).unwrap());
        assert!(!index.push(&disk, entry(3)).unwrap());
        assert_eq!(index.len(&disk).unwrap(), 1);
    }

    #[test]
    fn truncation_reaches_into_memory_and_into_the_file() {
        let disk = SimulatedDisk::default();
        let mut index = index(&disk);
        (0..10).for_each(|number| assert!(index.push(&disk, entry(number)).unwrap()));
        index.write(&disk).unwrap();
        (10..20).for_each(|number| assert!(index.push(&disk, entry(number)).unwrap()));
        index.truncate(&disk, 16).unwrap();
        assert_eq!(index.last(&disk).unwrap(), Some(entry(15)));
        index.truncate(&disk, 4).unwrap();
        assert_eq!(index.last(&disk).unwrap(), Some(entry(3)));
        assert!(index.push(&disk, entry(4)).unwrap());
        assert_eq!(index.len(&disk).unwrap(), 5);
        index.truncate(&disk, 0).unwrap();
        assert_eq!(index.last(&disk).unwrap(), None);
    }

    #[test]
    fn a_half_written_entry_does_not_count() {
        let disk = SimulatedDisk::default();
        let mut written = index(&disk);
        (0..3).for_each(|number| assert!(written.push(&disk, entry(number)).unwrap()));
        written.seal(&disk).unwrap().set_len(20).unwrap();
        let mut read = Index::<OffsetEntry>::existing("/log/00000000000000001000.index".into(), 1000);
        assert_eq!(read.last(&disk).unwrap(), Some(entry(1)));
        assert!(read.push(&disk, entry(2)).unwrap());
        read.write(&disk).unwrap();
        assert_eq!(read.len(&disk).unwrap(), 3);
        assert_eq!(read.floor(&disk, i64::MAX, Reads::All).unwrap(), Some(entry(2)));
    }

    #[test]
    fn a_missing_file_is_an_empty_index() {
        let disk = SimulatedDisk::default();
        let mut index = Index::<TimeEntry>::existing("/nowhere.timeindex".into(), 0);
        assert_eq!(index.last(&disk).unwrap(), None);
        assert_eq!(index.floor(&disk, 7, Reads::All).unwrap(), None);
    }
}
