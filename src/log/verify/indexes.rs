//! Indexes of a segment, compared with its batches while somebody walks over these.

use std::io;
use std::path::PathBuf;

use super::{Fault, Report};
use crate::log::index::{IndexEntry, OffsetEntry, TimeEntry};
use crate::record::BatchHeader;
use crate::storage::{Disk, read_file};

/// Largest index that is read: `segment.index.bytes` is 10 MiB unless somebody sets it.
pub const LIMIT_BYTES: u64 = 1 << 30;

/// Bytes of an entry of a `.txnindex`.
const ABORTED_BYTES: usize = 34;

/// The indexes of a segment.
pub struct Indexes {
    offsets: Option<Pending<OffsetEntry>>,
    times: Option<Pending<TimeEntry>>,
    /// An offset entry that led to a batch with a smaller last offset: of several appended together it may name the last.
    awaited: Option<OffsetEntry>,
    /// Whether the batches before the next one were damaged.
    skips: bool,
}

/// Entries of a file that are not compared yet.
struct Pending<E> {
    path: PathBuf,
    entries: Vec<E>,
    next: usize,
}

/// The entries in the bytes of an index. Zeros at the end are none: an index in use is as long as it may become.
///
/// # Errors
/// How many bytes, less than an entry, are at the end.
pub fn entries<E: IndexEntry>(bytes: &[u8], base_offset: i64) -> Result<Vec<E>, u64> {
    let used = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
    // The last entry may end with zeros of its own.
    let used = used.next_multiple_of(E::BYTES);
    let Some(used) = bytes.get(..used) else { return Err((bytes.len() % E::BYTES) as u64) };
    Ok(used.chunks_exact(E::BYTES).map(|bytes| E::decode(base_offset, bytes)).collect())
}

impl<E: IndexEntry> Pending<E> {
    fn read(disk: &dyn Disk, path: PathBuf, base_offset: i64, report: &mut Report) -> Option<Self> {
        let bytes = match read_file(disk, &path, LIMIT_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                report.unread(&path, error, false);
                return None;
            }
        };
        let mut entries: Vec<E> = match entries(&bytes, base_offset) {
            Ok(entries) => entries,
            Err(part) => {
                report.found(&path, Some(bytes.len() as u64 - part), Fault::PartOfEntry(part));
                return None;
            }
        };
        report.totals.entries += entries.len() as u64;
        if let Some(at) = entries.windows(2).position(|pair| pair[0].key() >= pair[1].key()) {
            report.found(&path, Some(((at + 1) * E::BYTES) as u64), Fault::NotRising);
            entries.truncate(at + 1);
        }
        Some(Self { path, entries, next: 0 })
    }

    /// The next entry, if `is_due`.
    fn take(&mut self, is_due: impl Fn(&E) -> bool) -> Option<E> {
        let entry = self.entries.get(self.next).copied().filter(is_due)?;
        self.next += 1;
        Some(entry)
    }

    /// Tells what is wrong with the entry before the next; the others are not compared any more: one fault tells enough.
    fn found(&mut self, fault: Fault, report: &mut Report) {
        report.found(&self.path, Some((self.next.saturating_sub(1) * E::BYTES) as u64), fault);
        self.entries.clear();
    }
}

impl Indexes {
    /// Reads those that are there.
    pub fn read(disk: &dyn Disk, log: &std::path::Path, base_offset: i64, report: &mut Report) -> Self {
        Self {
            offsets: Pending::read(disk, log.with_extension("index"), base_offset, report),
            times: Pending::read(disk, log.with_extension("timeindex"), base_offset, report),
            awaited: None,
            skips: false,
        }
    }

    /// Compares with the next batch of the log.
    pub fn see(&mut self, position: u64, batch: &BatchHeader, report: &mut Report) {
        self.see_offsets(position, batch, report);
        let skips = std::mem::take(&mut self.skips);
        if let Some(times) = &mut self.times {
            while let Some(TimeEntry { offset, timestamp }) =
                times.take(|entry| entry.offset <= batch.last_offset())
            {
                if offset < batch.base_offset {
                    if skips {
                        continue;
                    }
                    times.found(Fault::TimeEntryOffset { offset, timestamp }, report);
                } else if timestamp != batch.max_timestamp {
                    let found = batch.max_timestamp;
                    times.found(Fault::TimeEntry { offset, timestamp, found }, report);
                }
            }
        }
    }

    fn see_offsets(&mut self, position: u64, batch: &BatchHeader, report: &mut Report) {
        let Some(offsets) = &mut self.offsets else { return };
        let due = offsets.take(|entry| u64::from(entry.position) <= position);
        if let Some(awaited) = self.awaited {
            match awaited.offset.cmp(&batch.last_offset()) {
                std::cmp::Ordering::Greater if due.is_none() => {}
                std::cmp::Ordering::Equal if due.is_none() => self.awaited = None,
                _ => {
                    self.awaited = None;
                    offsets.next -= usize::from(due.is_some());
                    return offsets.found(no_such_batch(&awaited), report);
                }
            }
        }
        if let Some(entry) = due {
            if u64::from(entry.position) != position || entry.offset < batch.last_offset() {
                offsets.found(no_such_batch(&entry), report);
            } else if entry.offset > batch.last_offset() {
                self.awaited = Some(entry);
            }
        }
    }

    /// The batches before the one at `position` are damaged: what leads there is not compared.
    pub fn skip(&mut self, position: u64) {
        self.awaited = None;
        self.skips = true;
        if let Some(offsets) = &mut self.offsets {
            while offsets.take(|entry| u64::from(entry.position) < position).is_some() {}
        }
    }

    /// After the last batch nothing may be left.
    pub fn end(mut self, report: &mut Report) {
        if let Some(offsets) = &mut self.offsets
            && let Some(entry) = self.awaited.or_else(|| offsets.take(|_| true))
        {
            offsets.found(no_such_batch(&entry), report);
        }
        if let Some(times) = &mut self.times
            && !self.skips
            && let Some(TimeEntry { offset, timestamp }) = times.take(|_| true)
        {
            times.found(Fault::TimeEntryOffset { offset, timestamp }, report);
        }
    }
}

fn no_such_batch(entry: &OffsetEntry) -> Fault {
    Fault::OffsetEntry { offset: entry.offset, log_position: entry.position }
}

/// Looks at the index of aborted transactions beside a log whose offsets end (exclusive) with `offset_end`, if there is one.
pub fn verify_aborted(
    disk: &dyn Disk,
    log: &std::path::Path,
    base_offset: i64,
    offset_end: i64,
    report: &mut Report,
) {
    let path = log.with_extension("txnindex");
    let bytes = match read_file(disk, &path, LIMIT_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return report.unread(&path, error, false),
    };
    let mut before = i64::MIN;
    let chunks = bytes.chunks_exact(ABORTED_BYTES);
    let part = chunks.remainder().len() as u64;
    for (number, entry) in chunks.enumerate() {
        report.totals.entries += 1;
        let position = Some((number * ABORTED_BYTES) as u64);
        let field = |at: usize| {
            let bytes = entry[at..].first_chunk().expect("four numbers follow the version of an entry");
            i64::from_be_bytes(*bytes)
        };
        let version = i16::from_be_bytes([entry[0], entry[1]]);
        if version != 0 {
            return report.found(&path, position, Fault::AbortedVersion(version));
        }
        let (producer_id, first_offset, last_offset) = (field(2), field(10), field(18));
        let in_segment = (base_offset..offset_end).contains(&last_offset);
        if first_offset > last_offset || !in_segment || first_offset < 0 {
            return report.found(
                &path,
                position,
                Fault::AbortedEntry { producer_id, first_offset, last_offset },
            );
        }
        if last_offset <= before {
            return report.found(&path, position, Fault::NotRising);
        }
        before = last_offset;
    }
    if part > 0 {
        report.found(&path, Some(bytes.len() as u64 - part), Fault::PartOfEntry(part));
    }
}
