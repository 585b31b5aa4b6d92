//! What lies behind damage: how much of it is whole, and where it is kept.
//!
//! A log ends at its first damaged batch, as in Kafka. But where whole batches follow, or where the damage lies below what was
//! once known to be on the disk, records that were acknowledged may be among what is cut off. So it is not thrown away as a
//! torn tail is: it stays beside the log as `<segment>.log.cut-<position>`, the raw bytes of that segment from `position` on,
//! which no broker reads, and which takes no more space than it took before. To be salvaged by hand, and to be removed by hand.

use std::io::{self, IoSlice};
use std::path::Path;

use super::LogError;
use super::scan::{ScanError, Scanner, UNCHECKED};
use super::segment::{Segment, file_name};
use crate::storage::{Disk, read_exact_at, write_all_at};

/// Bytes that are read at once.
const READ_BYTES: usize = 256 << 10;

/// What the names of files that were kept have behind `.log`.
const KEPT: &str = "cut-";

/// Whole batches behind damage.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Behind {
    /// How many.
    pub batches: u64,
    /// One beyond their last offset; 0 without any.
    pub offset_end: i64,
}

impl Behind {
    /// Adds what lies in a segment behind the damaged batch at `damaged_at`, or, without one, from its start on; up to `length`,
    /// with offsets of at least `offset_min`. Only the first batch after each damage has its checksum compared.
    pub fn count(
        &mut self,
        segment: &Segment,
        damaged_at: Option<u64>,
        offset_min: i64,
        length: u64,
    ) -> Result<(), LogError> {
        let failed = |source| LogError::disk(&segment.path(), source);
        let start = (damaged_at.unwrap_or(0), offset_min);
        let mut scanner = Scanner::new(&**segment.file()?, segment.base_offset(), start, length, READ_BYTES);
        if damaged_at.is_some() && !scanner.resync().map_err(failed)? {
            return Ok(());
        }
        loop {
            match scanner.next(UNCHECKED) {
                Ok(Some((_, header))) => {
                    self.batches += 1;
                    self.offset_end = self.offset_end.max(header.last_offset() + 1);
                }
                Ok(None) => return Ok(()),
                Err(ScanError::Damaged { .. }) => {
                    if !scanner.resync().map_err(failed)? {
                        return Ok(());
                    }
                }
                Err(ScanError::Io(source)) => return Err(failed(source)),
            }
        }
    }
}

/// Whether a file of a partition's folder is one that was kept: nothing of the log.
pub fn is_kept(name: &str) -> bool {
    name.split_once(".log.").is_some_and(|(_, rest)| rest.starts_with(KEPT))
}

/// A name for what is cut off a segment at `position`; one that is not taken yet.
fn kept_name(disk: &dyn Disk, folder: &Path, base_offset: i64, position: u64) -> Result<String, LogError> {
    let taken: Vec<_> = disk.list(folder).map_err(|source| LogError::disk(folder, source))?;
    let first = format!("{}.{KEPT}{position}", file_name(base_offset, "log"));
    let mut again = (2..).map(|number| format!("{first}.{number}"));
    let mut name = first.clone();
    while taken.iter().any(|entry| entry.name == name) {
        name = again.next().expect("numbers do not end before names do");
    }
    Ok(name)
}

/// Copies the bytes of `segment` from `position` to `length` aside, durably but for the name; the segment stays as it is.
pub fn keep_rest(
    disk: &dyn Disk,
    folder: &Path,
    segment: &Segment,
    (position, length): (u64, u64),
) -> Result<String, LogError> {
    let name = kept_name(disk, folder, segment.base_offset(), position)?;
    // One that is not complete is removed by the next start.
    let temporary = folder.join(format!("{name}.tmp"));
    let failed = |source| LogError::disk(&temporary, source);
    let copy = disk.create(&temporary).map_err(failed)?;
    let source = segment.file()?;
    let mut buffer = vec![0; READ_BYTES];
    let mut at = position;
    while at < length {
        let run = &mut buffer[..(length - at).min(READ_BYTES as u64) as usize];
        read_exact_at(&**source, run, at).map_err(|source| LogError::disk(&segment.path(), source))?;
        write_all_at(&*copy, &mut [IoSlice::new(run)], at - position).map_err(failed)?;
        at += run.len() as u64;
    }
    copy.sync_data().map_err(failed)?;
    disk.rename(&temporary, &folder.join(&name)).map_err(failed)?;
    Ok(name)
}

/// Takes a whole segment out of the log; its indexes go.
pub fn keep_segment(disk: &dyn Disk, folder: &Path, base_offset: i64) -> Result<(), LogError> {
    let path = folder.join(file_name(base_offset, "log"));
    let kept = folder.join(kept_name(disk, folder, base_offset, 0)?);
    disk.rename(&path, &kept).map_err(|source| LogError::disk(&path, source))?;
    for suffix in ["index", "timeindex", "txnindex"] {
        let path = folder.join(file_name(base_offset, suffix));
        match disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(LogError::disk(&path, error));
            }
            _ => {}
        }
    }
    Ok(())
}
