//! Batches and records of a `.log` file.

use std::io::{self, Write};

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

use super::file::ReadFile;
use super::{DumpError, DumpFlags, committed};
use crate::cli::output::print_json;
use crate::cli::position::time_text;
use crate::cli::text;
use crate::log::Damage;
use crate::log::scan::{ScanError, Scanner, UNCHECKED};
use crate::log::verify::Fault;
use crate::record::records::records;
use crate::record::{BatchHeader, HEADER_BYTES, Record, TimestampType};
use crate::storage::read_exact_at;

/// Bytes that are read at a time.
const READ_BYTES: usize = 1 << 20;
/// Most that a batch may decompress to, bytes.
const BATCH_MAX_BYTES: usize = 512 << 20;

/// Shows each batch of a log with its position to `see`.
fn walk(
    file: &ReadFile,
    base_offset: i64,
    mut see: impl FnMut(u64, &BatchHeader) -> Result<(), DumpError>,
) -> Result<(), DumpError> {
    let mut scanner = Scanner::new(file, base_offset, (0, base_offset), file.length(), READ_BYTES);
    loop {
        match scanner.next(UNCHECKED) {
            Ok(Some((position, header))) => see(position, &header)?,
            Ok(None) => return Ok(()),
            Err(ScanError::Io(error)) => return Err(file.failed(error)),
            Err(ScanError::Damaged { position, damage }) => return Err(file.bad(position, damage)),
        }
    }
}

/// The records of the batch at `position`, each checked to lie within it and behind the one before.
fn read_records(file: &ReadFile, position: u64, header: &BatchHeader) -> Result<Vec<Record>, DumpError> {
    let mut payload = BytesMut::zeroed(header.size_bytes() - HEADER_BYTES);
    read_exact_at(file, &mut payload, position + HEADER_BYTES as u64).map_err(|error| file.failed(error))?;
    let bad = |invalid| file.bad(position, Damage::Records(invalid));
    let mut next = header.base_offset;
    let mut all = Vec::new();
    for record in records(header, &payload.freeze(), BATCH_MAX_BYTES).map_err(bad)? {
        let record = record.map_err(bad)?;
        if record.offset < next || record.offset > header.last_offset() {
            let (base_offset, last_offset) = (header.base_offset, header.last_offset());
            let fault = Fault::RecordOffset { base_offset, last_offset, offset: record.offset };
            return Err(file.bad(position, fault));
        }
        next = record.offset + 1;
        all.push(record);
    }
    Ok(all)
}

/// What a record says beyond its bytes, if that is known.
type Meaning = fn(&Record) -> Option<Value>;

/// Prints each batch, with its records if they are asked for.
pub(super) fn dump(
    out: &mut impl Write,
    file: &ReadFile,
    base_offset: i64,
    flags: &DumpFlags,
) -> Result<(), DumpError> {
    let meaning = if committed::is_of(file) { committed::meaning } else { |_: &Record| None };
    walk(file, base_offset, |position, header| {
        let records = if flags.records { Some(read_records(file, position, header)?) } else { None };
        match flags.json {
            true => print_json(out, &batch_json(position, header, records.as_deref(), meaning)),
            false => print_batch(out, position, header, records.as_deref(), meaning),
        }
        .map_err(DumpError::Output)
    })
}

fn print_batch(
    out: &mut impl Write,
    position: u64,
    header: &BatchHeader,
    records: Option<&[Record]>,
    meaning: Meaning,
) -> io::Result<()> {
    let BatchHeader { base_offset, record_count, partition_leader_epoch, crc, .. } = header;
    let attributes = header.attributes;
    let clock = match attributes.timestamp_type() {
        TimestampType::CreateTime => "create",
        TimestampType::LogAppendTime => "append",
    };
    write!(
        out,
        "position={position} offsets={base_offset}..={} records={record_count} bytes={} codec={} \
         {clock}_time={} leader_epoch={partition_leader_epoch}",
        header.last_offset(),
        header.size_bytes(),
        codec(header),
        time_text(header.max_timestamp),
    )?;
    if header.has_producer_id() {
        let (id, epoch, first) = (header.producer_id, header.producer_epoch, header.base_sequence);
        write!(out, " producer={id} producer_epoch={epoch} sequence={first}..={}", header.last_sequence())?;
    }
    if attributes.has_delete_horizon() {
        write!(out, " delete_horizon={}", time_text(header.base_timestamp))?;
    }
    let kind = [(attributes.is_transactional(), " transactional"), (attributes.is_control(), " control")];
    kind.into_iter().filter(|(is, _)| *is).try_for_each(|(_, word)| write!(out, "{word}"))?;
    writeln!(out, " crc={crc:#010x}")?;
    records.unwrap_or_default().iter().try_for_each(|record| print_record(out, header, record, meaning))
}

fn print_record(
    out: &mut impl Write,
    batch: &BatchHeader,
    record: &Record,
    meaning: Meaning,
) -> io::Result<()> {
    write!(out, "  offset={} timestamp={}", record.offset, time_text(record.timestamp))?;
    if batch.attributes.is_control() {
        write!(out, " marker={}", marker(record))?;
    }
    if let Some(meaning) = meaning(record) {
        return writeln!(out, " {meaning}");
    }
    write!(out, " key={} value={}", quoted(record.key.as_ref()), quoted(record.value.as_ref()))?;
    for header in &record.headers {
        write!(out, " {}={}", quoted(Some(&header.key)), quoted(header.value.as_ref()))?;
    }
    writeln!(out)
}

fn batch_json(position: u64, header: &BatchHeader, records: Option<&[Record]>, meaning: Meaning) -> Value {
    let attributes = header.attributes;
    let mut batch = json!({
        "position": position,
        "base_offset": header.base_offset,
        "last_offset": header.last_offset(),
        "record_count": header.record_count,
        "bytes": header.size_bytes(),
        "codec": codec(header),
        "log_append_time": attributes.timestamp_type() == TimestampType::LogAppendTime,
        "base_timestamp": header.base_timestamp,
        "max_timestamp": header.max_timestamp,
        "leader_epoch": header.partition_leader_epoch,
        "producer_id": header.producer_id,
        "producer_epoch": header.producer_epoch,
        "base_sequence": header.base_sequence,
        "transactional": attributes.is_transactional(),
        "control": attributes.is_control(),
        "delete_horizon": attributes.has_delete_horizon(),
        "crc": header.crc,
    });
    if let Some(records) = records {
        batch["records"] = records.iter().map(|record| record_json(header, record, meaning)).collect();
    }
    batch
}

fn record_json(batch: &BatchHeader, record: &Record, meaning: Meaning) -> Value {
    let headers = record.headers.iter().map(|header| {
        let key = String::from_utf8_lossy(&header.key);
        json!({ "key": key, "value": text::to_json(header.value.as_deref()) })
    });
    let mut json = json!({
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": text::to_json(record.key.as_deref()),
        "value": text::to_json(record.value.as_deref()),
        "headers": headers.collect::<Vec<_>>(),
    });
    if batch.attributes.is_control() {
        json["marker"] = json!(marker(record));
    }
    if let Some(meaning) = meaning(record) {
        json["meaning"] = meaning;
    }
    json
}

fn codec(header: &BatchHeader) -> &'static str {
    header.attributes.codec().map_or("unknown", |codec| codec.name())
}

/// What a control record means: two bytes of version, two of the kind.
fn marker(record: &Record) -> &'static str {
    match record.key.as_deref().and_then(|key| key.get(2..4)) {
        Some([0, 0]) => "abort",
        Some([0, 1]) => "commit",
        Some([0, 2]) => "leader_change",
        Some([0, 3]) => "snapshot_header",
        Some([0, 4]) => "snapshot_footer",
        Some([0, 5]) => "kraft_version",
        Some([0, 6]) => "kraft_voters",
        _ => "unknown",
    }
}

/// Bytes in quotes, those that are no printable text as escapes.
fn quoted(bytes: Option<&Bytes>) -> String {
    let Some(bytes) = bytes else { return "null".to_owned() };
    match std::str::from_utf8(bytes) {
        Ok(text) => format!("{text:?}"),
        Err(_) => format!("\"{}\"", bytes.escape_ascii()),
    }
}
