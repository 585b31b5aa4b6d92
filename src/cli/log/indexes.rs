//! Indexes of a segment: what they say.

use std::io::Write;

use serde::Serialize;

use super::DumpError;
use super::file::ReadFile;
use crate::cli::output::{Row, print};
use crate::cli::position::time_text;
use crate::log::index::{IndexEntry, OffsetEntry, TimeEntry};
use crate::log::verify::{self, Fault};

/// Largest index that is read: `segment.index.bytes` is 10 MiB unless somebody sets it.
const LIMIT_BYTES: u64 = 1 << 30;

/// The entries of an index.
fn entries<E: IndexEntry>(file: &ReadFile, base_offset: i64) -> Result<Vec<E>, DumpError> {
    let bytes = file.read(LIMIT_BYTES)?;
    verify::entries(&bytes, base_offset)
        .map_err(|part| file.bad(bytes.len() as u64 - part, Fault::PartOfEntry(part)))
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
