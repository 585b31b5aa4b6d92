//! Indexes of a segment: what they say, and whether it is true of the log beside them.

use std::io::Write;

use serde::Serialize;

use super::batches::walk;
use super::file::{Kind, ReadFile};
use super::{DumpError, Fault};
use crate::cli::output::{Row, print};
use crate::cli::position::time_text;
use crate::log::index::{IndexEntry, OffsetEntry, TimeEntry};
use crate::record::BatchHeader;

/// Largest index that is read: `segment.index.bytes` is 10 MiB unless somebody sets it.
const LIMIT_BYTES: u64 = 1 << 30;

/// The entries of an index. Zeros at the end are none: an index in use is as long as it may become.
fn entries<E: IndexEntry>(file: &ReadFile, base_offset: i64) -> Result<Vec<E>, DumpError> {
    let bytes = file.read(LIMIT_BYTES)?;
    let used = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
    // The last entry may end with zeros of its own.
    let used = used.next_multiple_of(E::BYTES);
    let Some(bytes_of_entries) = bytes.get(..used) else {
        let part = bytes.len() % E::BYTES;
        return Err(file.bad((bytes.len() - part) as u64, Fault::PartOfEntry(part as u64)));
    };
    Ok(bytes_of_entries.chunks_exact(E::BYTES).map(|bytes| E::decode(base_offset, bytes)).collect())
}

#[derive(Serialize)]
struct OffsetRow {
    offset: i64,
    position: u32,
}

impl Row for OffsetRow {
    const TITLES: &'static [&'static str] = &["OFFSET", "POSITION"];

    fn cells(&self) -> Vec<String> {
        vec![self.offset.to_string(), self.position.to_string()]
    }
}

pub(super) fn dump_offsets(
    out: &mut impl Write,
    file: &ReadFile,
    base_offset: i64,
    json: bool,
) -> Result<(), DumpError> {
    let row = |entry: OffsetEntry| OffsetRow { offset: entry.offset, position: entry.position };
    let rows: Vec<OffsetRow> = entries(file, base_offset)?.into_iter().map(row).collect();
    print(out, &rows, json).map_err(DumpError::Output)
}

#[derive(Serialize)]
struct TimeRow {
    timestamp: i64,
    offset: i64,
}

impl Row for TimeRow {
    const TITLES: &'static [&'static str] = &["TIMESTAMP", "OFFSET"];

    fn cells(&self) -> Vec<String> {
        vec![time_text(self.timestamp), self.offset.to_string()]
    }
}

pub(super) fn dump_times(
    out: &mut impl Write,
    file: &ReadFile,
    base_offset: i64,
    json: bool,
) -> Result<(), DumpError> {
    let row = |entry: TimeEntry| TimeRow { timestamp: entry.timestamp, offset: entry.offset };
    let rows: Vec<TimeRow> = entries(file, base_offset)?.into_iter().map(row).collect();
    print(out, &rows, json).map_err(DumpError::Output)
}

/// The indexes of a segment, compared with its batches while somebody walks over these.
pub(super) struct Comparison {
    offsets: Option<Pending<OffsetEntry>>,
    times: Option<Pending<TimeEntry>>,
}

/// Entries of a file that are not compared yet.
struct Pending<E> {
    file: ReadFile,
    entries: Vec<E>,
    next: usize,
}

impl<E: IndexEntry> Pending<E> {
    fn read(file: ReadFile, base_offset: i64) -> Result<Self, DumpError> {
        let entries: Vec<E> = entries(&file, base_offset)?;
        let falls = entries.windows(2).position(|pair| pair[0].key() >= pair[1].key());
        match falls {
            Some(at) => Err(file.bad(((at + 1) * E::BYTES) as u64, Fault::NotRising)),
            None => Ok(Self { file, entries, next: 0 }),
        }
    }

    /// The next entry, if `is_due`.
    fn take(&mut self, is_due: impl Fn(&E) -> bool) -> Option<E> {
        let entry = self.entries.get(self.next).copied().filter(is_due)?;
        self.next += 1;
        Some(entry)
    }

    /// What is wrong with the entry that was taken last.
    fn bad(&self, fault: Fault) -> DumpError {
        self.file.bad((self.next.saturating_sub(1) * E::BYTES) as u64, fault)
    }
}

impl Comparison {
    /// Reads those of the two that are there.
    pub(super) fn new(
        offsets: Option<ReadFile>,
        times: Option<ReadFile>,
        base_offset: i64,
    ) -> Result<Self, DumpError> {
        Ok(Self {
            offsets: offsets.map(|file| Pending::read(file, base_offset)).transpose()?,
            times: times.map(|file| Pending::read(file, base_offset)).transpose()?,
        })
    }

    /// Compares with the next batch of the log.
    pub(super) fn see(&mut self, position: u64, batch: &BatchHeader) -> Result<(), DumpError> {
        if let Some(offsets) = &mut self.offsets {
            while let Some(entry) = offsets.take(|entry| u64::from(entry.position) <= position) {
                if u64::from(entry.position) != position || entry.offset != batch.last_offset() {
                    return Err(offsets.bad(no_such_batch(&entry)));
                }
            }
        }
        if let Some(times) = &mut self.times {
            while let Some(entry) = times.take(|entry| entry.offset <= batch.last_offset()) {
                let TimeEntry { offset, timestamp } = entry;
                if offset < batch.base_offset {
                    return Err(times.bad(Fault::TimeEntryOffset { offset, timestamp }));
                }
                if timestamp != batch.max_timestamp {
                    let found = batch.max_timestamp;
                    return Err(times.bad(Fault::TimeEntry { offset, timestamp, found }));
                }
            }
        }
        Ok(())
    }

    /// After the last batch nothing may be left.
    pub(super) fn end(mut self) -> Result<usize, DumpError> {
        if let Some(offsets) = &mut self.offsets
            && let Some(entry) = offsets.take(|_| true)
        {
            return Err(offsets.bad(no_such_batch(&entry)));
        }
        if let Some(times) = &mut self.times
            && let Some(TimeEntry { offset, timestamp }) = times.take(|_| true)
        {
            return Err(times.bad(Fault::TimeEntryOffset { offset, timestamp }));
        }
        let entries =
            self.offsets.map_or(0, |offsets| offsets.next) + self.times.map_or(0, |times| times.next);
        Ok(entries)
    }
}

fn no_such_batch(entry: &OffsetEntry) -> Fault {
    Fault::OffsetEntry { offset: entry.offset, log_position: entry.position }
}

/// Compares an index with the headers of the log beside it, and gives the number of its entries.
pub(super) fn verify_alone(file: &ReadFile, base_offset: i64, kind: Kind) -> Result<usize, DumpError> {
    let log = ReadFile::open(&file.path().with_extension("log"))?;
    let index = Some(ReadFile::open(file.path())?);
    let mut comparison = match kind {
        Kind::TimeIndex { .. } => Comparison::new(None, index, base_offset)?,
        _ => Comparison::new(index, None, base_offset)?,
    };
    walk(&log, base_offset, false, |position, header| comparison.see(position, header))?;
    comparison.end()
}
