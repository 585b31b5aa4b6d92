//! The small files of a partition: producers, leader epochs, topic id.

use std::io::Write;

use serde::Serialize;

use super::DumpError;
use super::file::ReadFile;
use crate::cli::output::{Row, or_nothing, print};
use crate::cli::position::time_text;
use crate::clock::Clock;
use crate::log::ProducerView;
use crate::log::checkpoint::LIMIT_BYTES;
use crate::log::epochs::{EpochStart, LeaderEpochs};
use crate::log::producers::{Producers, SNAPSHOT_LIMIT_BYTES};
use crate::log::verify::{Fault, topic_id};
use crate::uuid::Uuid;

/// More than the two lines of `partition.metadata` take.
const METADATA_LIMIT_BYTES: u64 = 4 << 10;

#[derive(Serialize)]
struct Producer {
    producer_id: i64,
    producer_epoch: i16,
    last_sequence: Option<i32>,
    last_offset: Option<i64>,
    last_timestamp: Option<i64>,
    coordinator_epoch: Option<i32>,
    transaction_first_offset: Option<i64>,
}

impl Row for Producer {
    const TITLES: &'static [&'static str] =
        &["PRODUCER", "EPOCH", "SEQUENCE", "OFFSET", "TIMESTAMP", "COORDINATOR EPOCH", "OPEN SINCE"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.producer_id.to_string(),
            self.producer_epoch.to_string(),
            or_nothing(self.last_sequence),
            or_nothing(self.last_offset),
            or_nothing(self.last_timestamp.map(time_text)),
            or_nothing(self.coordinator_epoch),
            or_nothing(self.transaction_first_offset),
        ]
    }
}

fn snapshot(file: &ReadFile) -> Result<Vec<ProducerView>, DumpError> {
    let bytes = file.read(SNAPSHOT_LIMIT_BYTES)?;
    let producers = Producers::restore(&bytes, usize::MAX, Clock::system().now_ms());
    producers.map(|producers| producers.views()).map_err(|invalid| file.bad(0, invalid))
}

pub(super) fn dump_snapshot(out: &mut impl Write, file: &ReadFile, json: bool) -> Result<(), DumpError> {
    let row = |view: ProducerView| Producer {
        producer_id: view.producer_id,
        producer_epoch: view.producer_epoch,
        last_sequence: Some(view.last_sequence).filter(|sequence| *sequence >= 0),
        last_offset: Some(view.last_offset).filter(|offset| *offset >= 0),
        last_timestamp: Some(view.last_timestamp).filter(|timestamp| *timestamp >= 0),
        coordinator_epoch: Some(view.coordinator_epoch).filter(|epoch| *epoch >= 0),
        transaction_first_offset: Some(view.current_transaction_first_offset).filter(|offset| *offset >= 0),
    };
    let rows: Vec<Producer> = snapshot(file)?.into_iter().map(row).collect();
    print(out, &rows, json).map_err(DumpError::Output)
}

#[derive(Serialize)]
struct Epoch {
    epoch: i32,
    start_offset: i64,
}

impl Row for Epoch {
    const TITLES: &'static [&'static str] = &["EPOCH", "START"];

    fn cells(&self) -> Vec<String> {
        vec![self.epoch.to_string(), self.start_offset.to_string()]
    }
}

fn epochs(file: &ReadFile) -> Result<Vec<EpochStart>, DumpError> {
    let epochs = LeaderEpochs::parse(&file.read(LIMIT_BYTES)?).map_err(|invalid| file.bad(0, invalid))?;
    Ok(epochs.starts().to_vec())
}

pub(super) fn dump_epochs(out: &mut impl Write, file: &ReadFile, json: bool) -> Result<(), DumpError> {
    let row = |start: EpochStart| Epoch { epoch: start.epoch, start_offset: start.start_offset };
    let rows: Vec<Epoch> = epochs(file)?.into_iter().map(row).collect();
    print(out, &rows, json).map_err(DumpError::Output)
}

#[derive(Serialize)]
struct Metadata {
    version: i32,
    topic_id: String,
}

impl Row for Metadata {
    const TITLES: &'static [&'static str] = &["VERSION", "TOPIC ID"];

    fn cells(&self) -> Vec<String> {
        vec![self.version.to_string(), self.topic_id.clone()]
    }
}

fn metadata(file: &ReadFile) -> Result<Uuid, DumpError> {
    let bytes = file.read(METADATA_LIMIT_BYTES)?;
    topic_id(&bytes).ok_or_else(|| file.bad(0, Fault::PartitionMetadata))
}

pub(super) fn dump_metadata(out: &mut impl Write, file: &ReadFile, json: bool) -> Result<(), DumpError> {
    let row = Metadata { version: 0, topic_id: metadata(file)?.to_string() };
    print(out, &[row], json).map_err(DumpError::Output)
}
