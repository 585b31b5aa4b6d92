//! One round of compaction over one log: a pass over what is dirty, which maps every key to its newest offset; then a pass over
//! everything up to where the map reaches, which writes each group of segments as one and swaps it in.
//!
//! Reads what it needs from the segments that readers have, appends nothing, and holds the writer up only for the swaps' renames.
//! Every batch is compared with its checksum on the way: a damaged one ends the round, and is named.

use std::collections::HashMap;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::LogError;
use super::super::config::LogConfig;
use super::super::partition::Partition;
use super::super::scan::{Damage, ScanError, Scanner};
use super::super::segment::{Indexes, SEGMENT_BYTES_MAX, Segment};
use super::keys::KeyMap;
use super::swap::{Place, cleaned_path};
use super::transactions::{AbortedTransaction, Marker, MarkerFate, Transactions};
use super::{Dirt, RecordView, SegmentView, groups, stays};
use crate::clock::TimestampMs;
use crate::record::rewrite::{KeptBatch, block, raw_records, write_emptied};
use crate::record::{BatchHeader, HEADER_BYTES, InvalidBatch};
use crate::storage::{Disk, DiskFile, read_file, write_all_at};

/// Largest index of aborted transactions that is read: two million of them in one segment.
const TRANSACTION_INDEX_LIMIT_BYTES: u64 = 64 << 20;

/// Written bytes that are synced together: one sync of all at the end would hold up those of appends.
const SYNC_EVERY_BYTES: u64 = 8 << 20;

/// What decompressed records may take of memory from one batch to the next.
const SCRATCH_KEPT_BYTES: usize = 1 << 20;

/// What a round may take.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Limits {
    /// Bytes of the map of keys.
    pub dedupe_buffer_bytes: u64,
    /// The share of it that is filled at most.
    pub load_factor: f64,
    /// Bytes that are read, and those that are written, at once; a larger batch is taken whole.
    pub io_buffer_bytes: usize,
    /// Most that the records of one batch may decompress to, bytes.
    pub max_decompressed_bytes: usize,
}

/// Why a round ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum RoundError {
    /// The log's: damage in it, the disk, the partition's end.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The broker stops, or the partition is gone or read-only.
    #[error("interrupted")]
    Interrupted,
    /// Segments were deleted meanwhile.
    #[error("the log is not what it was when the round began")]
    Changed,
    /// Not even one batch could be mapped.
    #[error("{} at position {position}: the batch has more keys than log.cleaner.dedupe.buffer.size holds", path.display())]
    TooManyKeys {
        /// The segment file.
        path: PathBuf,
        /// Where the batch starts, bytes.
        position: u64,
    },
    /// Its records, compressed anew, take more than a segment can hold.
    #[error("{}: what is left of its records compresses to more than a segment holds", path.display())]
    TooLarge {
        /// The file that was written.
        path: PathBuf,
    },
    /// What should say which transactions were aborted does not.
    #[error("{}: no index of aborted transactions", path.display())]
    TransactionIndex {
        /// The file.
        path: PathBuf,
    },
}

/// What a round has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// All below it is clean now.
    pub end_offset: i64,
    /// Bytes read, in both passes.
    pub read_bytes: u64,
    /// Bytes of log written.
    pub written_bytes: u64,
    /// Records that are gone.
    pub removed_records: u64,
}

/// Puts what was written of these segments in their place.
type Swap<'a> = dyn Fn(&[Arc<Segment>]) -> Result<(), RoundError> + 'a;

/// A round in the making.
pub struct Round<'a> {
    /// The partition.
    pub partition: &'a Partition,
    /// Where its files are.
    pub disk: &'a Arc<dyn Disk>,
    /// The folder of its files.
    pub folder: Arc<Path>,
    /// Its settings.
    pub config: &'a LogConfig,
    /// What may be taken.
    pub limits: Limits,
    /// The closed segments, the first of the log first, up to [`Dirt::end_offset`].
    pub segments: Vec<Arc<Segment>>,
    /// The same as they were planned with.
    pub views: Vec<SegmentView>,
    /// What is to be cleaned.
    pub dirt: Dirt,
    /// The time of the round.
    pub now_ms: TimestampMs,
    /// Told of bytes read and written, for pacing; an error ends the round.
    pub spend: &'a dyn Fn(u64) -> Result<(), RoundError>,
    /// Swaps a written segment in.
    pub swap: &'a Swap<'a>,
}

impl Round<'_> {
    /// Does it. What was swapped in before an error stays.
    pub fn run(&self) -> Result<Outcome, RoundError> {
        let aborted = self.aborted_transactions()?;
        let mut outcome = Outcome::default();
        let (keys, end_offset) = self.map_keys(&aborted, &mut outcome)?;
        let reached = self.views.partition_point(|segment| segment.base_offset < end_offset);
        let after = self.views.get(reached).map_or(self.dirt.end_offset, |segment| segment.base_offset);
        outcome.end_offset = end_offset;
        let mut pass = Pass {
            round: self,
            keys,
            mapped_end_offset: end_offset,
            transactions: Transactions::new(aborted),
            last_of_producers: HashMap::new(),
            scratch: Vec::new(),
            stays: Vec::new(),
            outcome,
        };
        for group in groups(&self.views[..reached], after, self.config) {
            let segments = &self.segments[group];
            let rewritten = pass.rewrite(segments).and_then(|()| (self.swap)(segments));
            if let Err(error) = rewritten {
                // One that stops leaves its files to the next start: another process may own the folder by now.
                let is_over = matches!(error, RoundError::Interrupted);
                if let (false, Err(failure)) = (is_over, self.place().withdraw(segments[0].base_offset())) {
                    tracing::warn!(%failure, "what was written for a compaction stays until the next start");
                }
                return Err(error);
            }
        }
        Ok(pass.outcome)
    }

    fn place(&self) -> Place<'_> {
        Place { disk: &**self.disk, folder: &self.folder }
    }

    /// The newest offset of each key in the dirty range, and how far that was mapped: to its end, or as far as the map holds.
    fn map_keys(
        &self,
        aborted: &[AbortedTransaction],
        outcome: &mut Outcome,
    ) -> Result<(KeyMap, i64), RoundError> {
        let Dirt { first_dirty_offset, end_offset, .. } = self.dirt;
        let Limits { dedupe_buffer_bytes, load_factor, max_decompressed_bytes, .. } = self.limits;
        let offsets = u64::try_from(end_offset - first_dirty_offset).unwrap_or(0);
        let mut keys = KeyMap::new(dedupe_buffer_bytes, load_factor, offsets);
        let ended_before = |transaction: &&AbortedTransaction| transaction.last_offset >= first_dirty_offset;
        let mut transactions = Transactions::new(aborted.iter().filter(ended_before).copied().collect());
        let mut mapped_end_offset = first_dirty_offset;
        let mut scratch = Vec::new();
        for (place, segment) in self.segments.iter().enumerate() {
            let next = self.segments.get(place + 1).map_or(end_offset, |next| next.base_offset());
            if next <= first_dirty_offset {
                continue;
            }
            let file = segment.file()?;
            let mut scanner = self.scanner(segment, &**file)?;
            while let Some((position, header, batch)) =
                scanner.next_whole().map_err(|error| scan_failed(segment, error))?
            {
                outcome.read_bytes += batch.len() as u64;
                (self.spend)(batch.len() as u64)?;
                if header.last_offset() < first_dirty_offset {
                    continue;
                }
                let invalid = |invalid| records_failed(segment, position, invalid);
                let payload = &batch[HEADER_BYTES..];
                if header.attributes.is_control() {
                    transactions.see_marker(&header, marker(&header, payload).map_err(invalid)?);
                } else if !transactions.see_data(&header) {
                    let block =
                        block(&header, payload, max_decompressed_bytes, &mut scratch).map_err(invalid)?;
                    for record in raw_records(&header, block) {
                        let record = record.map_err(invalid)?;
                        let Some(key) = record.key else { continue };
                        if record.offset >= first_dirty_offset && !keys.put(key, record.offset) {
                            let path = segment.path();
                            return match mapped_end_offset > first_dirty_offset {
                                true => Ok((keys, mapped_end_offset)),
                                false => Err(RoundError::TooManyKeys { path, position }),
                            };
                        }
                    }
                    give_back(&mut scratch);
                }
                mapped_end_offset = header.last_offset() + 1;
            }
            // Nothing is between the segments.
            mapped_end_offset = next;
        }
        Ok((keys, mapped_end_offset))
    }

    /// What the indexes say of aborted transactions, also of those whose markers lie above what is cleaned.
    fn aborted_transactions(&self) -> Result<Vec<AbortedTransaction>, RoundError> {
        let entries = self.disk.list(&self.folder).map_err(|source| LogError::disk(&self.folder, source))?;
        let mut aborted = Vec::new();
        for entry in entries.iter().filter(|entry| entry.name.ends_with(".txnindex")) {
            let path = self.folder.join(&entry.name);
            let bytes = read_file(&**self.disk, &path, TRANSACTION_INDEX_LIMIT_BYTES).ok();
            let entries = bytes.and_then(|bytes| AbortedTransaction::decode_all(&bytes));
            aborted.extend(entries.ok_or(RoundError::TransactionIndex { path })?);
        }
        Ok(aborted)
    }

    fn scanner<'f>(&self, segment: &Segment, file: &'f dyn DiskFile) -> Result<Scanner<'f>, RoundError> {
        let base_offset = segment.base_offset();
        let buffer_bytes = self.limits.io_buffer_bytes.max(HEADER_BYTES);
        Ok(Scanner::new(file, base_offset, (0, base_offset), segment.size_bytes()?, buffer_bytes))
    }
}

/// The second pass.
struct Pass<'a> {
    round: &'a Round<'a>,
    keys: KeyMap,
    mapped_end_offset: i64,
    transactions: Transactions,
    /// Of each live producer the last offset of its last batch of data, if it has one, and its epoch.
    last_of_producers: HashMap<i64, (Option<i64>, i16)>,
    scratch: Vec<u8>,
    /// Which records of the batch in hand stay.
    stays: Vec<bool>,
    outcome: Outcome,
}

impl Pass<'_> {
    /// Writes what is left of these segments as one, and syncs it.
    fn rewrite(&mut self, segments: &[Arc<Segment>]) -> Result<(), RoundError> {
        let round = self.round;
        self.last_of_producers = round.partition.last_of_producers()?;
        let mut output = Output::create(round, segments[0].base_offset())?;
        for segment in segments {
            let file = segment.file()?;
            let mut scanner = round.scanner(segment, &**file)?;
            while let Some((position, header, batch)) =
                scanner.next_whole().map_err(|error| scan_failed(segment, error))?
            {
                self.outcome.read_bytes += batch.len() as u64;
                (round.spend)(batch.len() as u64)?;
                if !output.has_room(batch.len()) {
                    (round.spend)(output.write_out()?)?;
                }
                let left = self.take(&header, batch, &mut output);
                let left = left.map_err(|invalid| records_failed(segment, position, invalid))?;
                if let Some(header) = left {
                    output.wrote(&header)?;
                }
            }
        }
        self.outcome.written_bytes += output.finish()?;
        Ok(())
    }

    /// Puts into the output what is left of a batch; its header, if anything is.
    fn take(
        &mut self,
        header: &BatchHeader,
        batch: &[u8],
        output: &mut Output<'_>,
    ) -> Result<Option<BatchHeader>, InvalidBatch> {
        let payload = &batch[HEADER_BYTES..];
        let now_ms = self.round.now_ms;
        let is_control = header.attributes.is_control();
        let horizon_ms = header.delete_horizon_ms();
        let (goes, is_idle_marker) = if is_control {
            let MarkerFate { is_idle, index_entry } =
                self.transactions.see_marker(header, marker(header, payload)?);
            output.aborted.extend(index_entry);
            (is_idle && horizon_ms.is_some_and(|horizon_ms| horizon_ms <= now_ms), is_idle)
        } else {
            (self.transactions.see_data(header), false)
        };

        let mut has_tombstones = false;
        self.stays.clear();
        let records = if goes {
            &[]
        } else {
            block(header, payload, self.round.limits.max_decompressed_bytes, &mut self.scratch)?
        };
        if !goes {
            for record in raw_records(header, records) {
                let record = record?;
                let view = RecordView {
                    offset: record.offset,
                    has_key: record.key.is_some(),
                    has_value: record.has_value,
                    newest_of_key: record.key.and_then(|key| self.keys.offset_of(key)),
                };
                let stays = is_control || stays(&view, self.mapped_end_offset, horizon_ms, now_ms);
                has_tombstones |= stays && !is_control && !record.has_value;
                self.stays.push(stays);
            }
        }
        let kept = self.stays.iter().filter(|stays| **stays).count();
        let had = usize::try_from(header.record_count).unwrap_or(0);
        self.outcome.removed_records += had.saturating_sub(kept) as u64;
        let left = if kept == 0 {
            match self.is_needed_empty(header) {
                true => Some(write_emptied(header, &mut output.buffer)?),
                false => None,
            }
        } else {
            let sets_horizon = horizon_ms.is_none() && (has_tombstones || is_idle_marker);
            let delete_horizon_ms =
                sets_horizon.then(|| now_ms.saturating_add(self.round.config.delete_retention_ms));
            if kept == had && !sets_horizon {
                output.buffer.extend_from_slice(batch);
                Some(*header)
            } else {
                let mut left = KeptBatch::of(header, delete_horizon_ms);
                for (record, stays) in raw_records(header, records).zip(&self.stays) {
                    if *stays {
                        left.push(&record?);
                    }
                }
                Some(left.write(&mut output.buffer)?)
            }
        };
        give_back(&mut self.scratch);
        Ok(left)
    }

    /// Whether a batch stays even without records: with it a producer's last sequence would go, or the last offset of the round.
    fn is_needed_empty(&self, header: &BatchHeader) -> bool {
        let is_last_of_producer = match self.last_of_producers.get(&header.producer_id) {
            Some((Some(last_offset), _)) => header.last_offset() == *last_offset,
            Some((None, epoch)) => header.attributes.is_control() && header.producer_epoch == *epoch,
            None => false,
        };
        is_last_of_producer || header.last_offset() + 1 == self.round.dirt.end_offset
    }
}

/// A segment that is being written.
struct Output<'a> {
    round: &'a Round<'a>,
    base_offset: i64,
    file: Arc<dyn DiskFile>,
    indexes: Indexes,
    aborted: Vec<AbortedTransaction>,
    /// What is not in the file yet.
    buffer: Vec<u8>,
    /// Bytes in the file.
    written_bytes: u64,
    /// Bytes of the batches whose index entries were made.
    indexed_bytes: u64,
}

impl<'a> Output<'a> {
    fn create(round: &'a Round<'a>, base_offset: i64) -> Result<Self, LogError> {
        let path = |suffix| cleaned_path(&round.folder, base_offset, suffix);
        let log = path("log");
        Ok(Self {
            round,
            base_offset,
            file: round.disk.create(&log).map_err(|source| LogError::disk(&log, source))?,
            indexes: Indexes::new(path("index"), path("timeindex"), base_offset),
            aborted: Vec::new(),
            buffer: Vec::with_capacity(round.limits.io_buffer_bytes),
            written_bytes: 0,
            indexed_bytes: 0,
        })
    }

    /// The buffer has a batch more.
    fn wrote(&mut self, header: &BatchHeader) -> Result<(), RoundError> {
        let position = self.indexed_bytes;
        self.indexed_bytes += header.size_bytes() as u64;
        if self.indexed_bytes > SEGMENT_BYTES_MAX {
            return Err(RoundError::TooLarge { path: self.path("log") });
        }
        let interval_bytes = self.round.config.index_interval_bytes;
        let noted = self.indexes.note(&**self.round.disk, header, position, interval_bytes);
        Ok(noted.map_err(|source| LogError::disk(&self.path("index"), source))?)
    }

    /// Whether the buffer takes so many bytes more without becoming larger than it should be; an empty one takes any.
    fn has_room(&self, bytes: usize) -> bool {
        self.buffer.is_empty() || self.buffer.len() + bytes <= self.round.limits.io_buffer_bytes
    }

    /// Writes the buffer; how many bytes that were.
    fn write_out(&mut self) -> Result<u64, LogError> {
        write_all_at(&*self.file, &mut [IoSlice::new(&self.buffer)], self.written_bytes)
            .map_err(|source| LogError::disk(&self.path("log"), source))?;
        let bytes = self.buffer.len() as u64;
        if self.written_bytes / SYNC_EVERY_BYTES < (self.written_bytes + bytes) / SYNC_EVERY_BYTES {
            self.file.sync_data().map_err(|source| LogError::Disk { path: self.path("log"), source })?;
        }
        self.written_bytes += bytes;
        self.buffer.clear();
        if self.buffer.capacity() > 2 * self.round.limits.io_buffer_bytes.max(SCRATCH_KEPT_BYTES) {
            self.buffer = Vec::with_capacity(self.round.limits.io_buffer_bytes);
        }
        Ok(bytes)
    }

    /// Completes and syncs the files; the bytes of the log.
    fn finish(mut self) -> Result<u64, RoundError> {
        (self.round.spend)(self.write_out()?)?;
        let sealed = self.indexes.seal(&**self.round.disk);
        let mut files = sealed.map_err(|source| LogError::disk(&self.path("index"), source))?.to_vec();
        if !self.aborted.is_empty() {
            let path = self.path("txnindex");
            let bytes: Vec<u8> = self.aborted.iter().flat_map(AbortedTransaction::encode).collect();
            let file = self.round.disk.create(&path);
            let file =
                file.and_then(|file| write_all_at(&*file, &mut [IoSlice::new(&bytes)], 0).map(|()| file));
            files.push(file.map_err(|source| LogError::disk(&path, source))?);
        }
        for file in std::iter::once(&self.file).chain(&files) {
            file.sync_data().map_err(|source| LogError::Disk { path: self.path("log"), source })?;
        }
        Ok(self.written_bytes)
    }

    fn path(&self, suffix: &str) -> PathBuf {
        cleaned_path(&self.round.folder, self.base_offset, suffix)
    }
}

/// What a control batch says.
fn marker(header: &BatchHeader, payload: &[u8]) -> Result<Marker, InvalidBatch> {
    match raw_records(header, payload).next() {
        Some(record) => Ok(Marker::of_key(record?.key)),
        None => Ok(Marker::Emptied),
    }
}

fn give_back(scratch: &mut Vec<u8>) {
    if scratch.capacity() > SCRATCH_KEPT_BYTES {
        *scratch = Vec::new();
    }
}

fn scan_failed(segment: &Segment, error: ScanError) -> LogError {
    match error {
        ScanError::Io(source) => LogError::disk(&segment.path(), source),
        ScanError::Damaged { position, damage } => {
            LogError::Damaged { path: segment.path(), position, damage }
        }
    }
}

fn records_failed(segment: &Segment, position: u64, invalid: InvalidBatch) -> LogError {
    LogError::Damaged { path: segment.path(), position, damage: Damage::Records(invalid) }
}
