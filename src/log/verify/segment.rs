//! One segment: every batch and every record of it, and its indexes.

use std::io;
use std::path::Path;

use bytes::Bytes;

use super::indexes::{Indexes, verify_aborted};
use super::{FINDINGS_MAX, Fault, Progress, Report};
use crate::log::scan::{Damage, Ending, ScanError, Scanner, is_zero};
use crate::record::BatchHeader;
use crate::record::records::records;
use crate::storage::{Disk, DiskFile};

/// Bytes that are read at a time.
const READ_BYTES: usize = 1 << 20;

/// Most that a batch may decompress to, bytes.
const BATCH_MAX_BYTES: usize = 512 << 20;

/// What is known of a segment from outside.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    pub base_offset: i64,
    /// Where the next one begins.
    pub next: Option<i64>,
    /// Whether a broker has it open.
    pub in_use: bool,
}

/// Looks at a segment and its indexes.
pub fn verify(disk: &dyn Disk, path: &Path, about: Circumstances, progress: Progress<'_>) -> Report {
    let mut report = Report::default();
    // Before the log, which has at least what its indexes lead to.
    let mut indexes = Indexes::read(disk, path, about.base_offset, &mut report);
    let opened = disk.open(path).and_then(|file| file.length().map(|length| (file, length)));
    let (file, length) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            report.unread(path, error, about.in_use);
            return report;
        }
    };
    report.totals.segments = 1;
    report.totals.bytes = length;
    let start = (0, about.base_offset);
    // The last segment was never compacted.
    let (ending, next) = about.next.map_or((Ending::Dense, i64::MAX), |next| (Ending::Open, next));
    let mut scanner = Scanner::new(&*file, about.base_offset, start, length, READ_BYTES).ending(ending, next);
    let mut offset_end = about.base_offset;
    loop {
        let failed = match scanner.next(i64::MIN) {
            Ok(Some((position, header))) => {
                indexes.see(position, &header, &mut report);
                offset_end = header.last_offset() + 1;
                progress(header.size_bytes() as u64);
                verify_records(&mut scanner, position, &header, path, &mut report).err()
            }
            Ok(None) => break,
            Err(ScanError::Damaged { position, damage }) => {
                match go_on(&mut scanner, &*file, path, about, (position, length), damage, &mut report) {
                    Ok(true) => indexes.skip(scanner.position()),
                    Ok(false) => {
                        indexes.skip(u64::MAX);
                        break;
                    }
                    Err(error) => return unreadable(report, path, error),
                }
                None
            }
            Err(ScanError::Io(error)) => Some(error),
        };
        if let Some(error) = failed {
            return unreadable(report, path, error);
        }
        if report.findings.len() >= FINDINGS_MAX {
            report.found(path, Some(scanner.position()), Fault::TooMany);
            return report;
        }
    }
    indexes.end(&mut report);
    verify_aborted(disk, path, about.base_offset, offset_end, &mut report);
    report
}

fn unreadable(mut report: Report, path: &Path, error: io::Error) -> Report {
    report.unread(path, error, false);
    report
}

/// Tells of the damage at `position`, and whether there is a whole batch to go on with.
fn go_on(
    scanner: &mut Scanner<'_>,
    file: &dyn DiskFile,
    path: &Path,
    about: Circumstances,
    (position, length): (u64, u64),
    damage: Damage,
    report: &mut Report,
) -> io::Result<bool> {
    if scanner.resync()? {
        report.found(path, Some(position), Fault::Middle { damage, next: scanner.position() });
        return Ok(true);
    }
    let fault = match damage {
        _ if about.next.is_none() && is_zero(file, (position, length))? => Fault::ZeroTail(length - position),
        damage if about.next.is_none() && about.in_use => Fault::BusyTail(damage),
        damage => Fault::End(damage),
    };
    report.found(path, Some(position), fault);
    Ok(false)
}

/// Walks over the records of a batch, each checked to lie within it and behind the one before.
fn verify_records(
    scanner: &mut Scanner<'_>,
    position: u64,
    header: &BatchHeader,
    path: &Path,
    report: &mut Report,
) -> io::Result<()> {
    report.totals.batches += 1;
    let payload = Bytes::copy_from_slice(scanner.payload(position, header)?);
    let mut next = header.base_offset;
    let mut walk = || -> Result<(), Fault> {
        let bad = |invalid| Fault::Batch(Damage::Records(invalid));
        for record in records(header, &payload, BATCH_MAX_BYTES).map_err(bad)? {
            let offset = record.map_err(bad)?.offset;
            if offset < next || offset > header.last_offset() {
                let (base_offset, last_offset) = (header.base_offset, header.last_offset());
                return Err(Fault::RecordOffset { base_offset, last_offset, offset });
            }
            next = offset + 1;
            report.totals.records += 1;
        }
        Ok(())
    };
    if let Err(fault) = walk() {
        report.found(path, Some(position), fault);
    }
    Ok(())
}
