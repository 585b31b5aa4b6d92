//! What a partition has published: the offsets and places that readers, waiters and the syncing threads go by. Pure state behind
//! a lock that is never held across I/O.

use std::collections::VecDeque;
use std::sync::Arc;

use super::LogError;
use super::config::{FlushMode, LogConfig};
use super::epochs::LeaderEpochs;
use super::journal::ENTRY_BYTES_MAX;
use super::log::Unsynced;
use super::segment::Segment;

/// Newest batches whose places are kept in memory, so that who reads the tail needs no index.
const RECENT_MAX: usize = 32;

/// A place between two batches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// Offset of what comes next.
    pub offset: i64,
    /// Base offset of the segment.
    pub segment: i64,
    /// Bytes of that segment that lie before.
    pub position: u64,
}

/// A recently appended batch of the active segment.
#[derive(Clone, Copy, Debug)]
struct Recent {
    base_offset: i64,
    position: u64,
}

/// How far the syncing of a partition is. At most one thread syncs it at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SyncState {
    /// Nothing to sync.
    #[default]
    Clean,
    /// In the directory's list of those to sync when it is time.
    Listed,
    /// On its way to a syncing thread.
    Queued,
    /// A thread syncs it; nothing was appended meanwhile.
    Running,
    /// A thread syncs it; it is to be synced once more when it is time.
    RunningAndListed,
    /// A thread syncs it; it is to be synced once more at once.
    RunningAgain,
}

/// What the caller has to do after the view has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncStep {
    /// Nothing.
    None,
    /// Hand the partition to the syncing threads.
    Enqueue,
    /// Put the partition on the directory's list.
    List,
}

/// What one sync covers.
#[derive(Debug)]
pub struct SyncWork {
    /// Segment files to sync, ascending.
    pub segments: Vec<Arc<Segment>>,
    /// What lies beside them.
    pub beside: Unsynced,
    /// The end of what is durable afterwards.
    pub end: Place,
    /// Bytes that no longer count as unsynced afterwards.
    pub bytes: u64,
}

/// How a partition that waits for a sync gets it.
#[derive(Debug)]
pub enum Commit {
    /// By the journal: what the active segment has from this position on, up to `end`.
    Journal {
        /// The active segment.
        segment: Arc<Segment>,
        /// First byte.
        position: u64,
        /// The end of what is durable afterwards.
        end: Place,
        /// Bytes that no longer count as unsynced afterwards.
        bytes: u64,
    },
    /// By a sync of its files.
    Files,
}

/// Where a reader begins.
#[derive(Debug)]
pub struct Start {
    /// The segment that holds the offset.
    pub segment: Arc<Segment>,
    /// Position and length of the batch, if they are in memory.
    pub known: Option<(u64, usize)>,
}

/// What comes after a segment.
#[derive(Debug)]
pub enum Following {
    /// This one.
    Segment(Arc<Segment>),
    /// Nothing that consumers may see.
    Nothing,
    /// That is for a fresh look to say: the segment is no part of the log any more, and what compaction has put in its place may
    /// hold more than it did; or what comes next may not be what it was.
    Replaced,
}

/// The published state.
#[derive(Debug, Default)]
pub struct View {
    /// First offset.
    pub log_start: i64,
    /// End of what consumers may see.
    pub high_watermark: Place,
    /// End of what is written.
    pub log_end: Place,
    /// End of what is durable: in the files, or behind that in the journal.
    pub synced: Place,
    /// End of what is durable in the log's own files.
    pub files_synced: Place,
    /// Ascending; the last one is active.
    pub segments: Vec<Arc<Segment>>,
    /// Bytes appended since the last sync began.
    pub unsynced_bytes: u64,
    /// Idempotent producers that are known.
    pub producers: usize,
    /// Those of all that is written; at the start of the log they may reach further back than it does.
    pub epochs: Arc<LeaderEpochs>,
    pub(super) sync: SyncState,
    /// Whether the next sync must be one of the files: the journal needs its place back.
    settles: bool,
    beside: Unsynced,
    recent: VecDeque<Recent>,
}

impl View {
    /// Takes in a batch that was appended at `position` of the active segment.
    pub fn appended(&mut self, base_offset: i64, position: u64, end_offset: i64, end_position: u64) {
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(Recent { base_offset, position });
        self.log_end = Place { offset: end_offset, position: end_position, ..self.log_end };
        self.unsynced_bytes += end_position - position;
    }

    /// The active segment is a new one.
    pub fn rolled(&mut self, segments: &[Arc<Segment>]) {
        self.segments = segments.to_vec();
        self.recent.clear();
        let segment = segments.last().map_or(0, |active| active.base_offset());
        self.log_end = Place { segment, position: 0, ..self.log_end };
    }

    /// Takes in the epochs of the log, after something was appended.
    pub fn show_epochs(&mut self, epochs: &LeaderEpochs) {
        if self.epochs.latest() != epochs.latest() {
            self.epochs = Arc::new(epochs.clone());
        }
    }

    /// Adds to what a sync must cover.
    pub fn wrote_beside(&mut self, beside: Unsynced) {
        self.beside.absorb(beside);
    }

    /// Whether what is written counts only once it is synced: always in commit mode; in os mode when as much waits for a sync as
    /// `flush.messages` says, or more.
    pub fn counts_when_synced(&self, config: &LogConfig) -> bool {
        let unsynced = self.log_end.offset - self.synced.offset;
        config.flush == FlushMode::Commit || unsynced >= config.flush_messages
    }

    /// Notes that there is something to sync: now (`commit`), or when it is time.
    pub fn wants_sync(&mut self, commit: bool) -> SyncStep {
        let (state, step) = match (self.sync, commit) {
            (SyncState::Clean, false) => (SyncState::Listed, SyncStep::List),
            (SyncState::Clean | SyncState::Listed, true) => (SyncState::Queued, SyncStep::Enqueue),
            (SyncState::Running, false) => (SyncState::RunningAndListed, SyncStep::None),
            (SyncState::Running | SyncState::RunningAndListed, true) => {
                (SyncState::RunningAgain, SyncStep::None)
            }
            (state, _) => (state, SyncStep::None),
        };
        self.sync = state;
        step
    }

    /// Notes that somebody waits for a sync: one that had time is due now.
    pub fn is_awaited(&mut self) -> SyncStep {
        match self.sync {
            SyncState::Listed | SyncState::RunningAndListed => self.wants_sync(true),
            _ => SyncStep::None,
        }
    }

    /// Takes the partition off the directory's list; whether it is still to be synced.
    pub fn unlist(&mut self) -> bool {
        let listed = self.sync == SyncState::Listed;
        if listed {
            self.sync = SyncState::Queued;
        }
        listed
    }

    /// Whether there is more than is known to be durable in the files.
    pub fn awaits_sync(&self) -> bool {
        self.files_synced != self.log_end || !self.beside.is_empty()
    }

    /// Everything that was written is durable.
    pub fn raise_all_synced(&mut self) {
        self.beside = Unsynced::default();
        self.raise_files_synced(self.log_end);
    }

    /// What a sync that begins now has to cover.
    pub fn begin_sync(&mut self) -> SyncWork {
        self.sync = SyncState::Running;
        self.settles = false;
        let first =
            self.segments.partition_point(|segment| segment.base_offset() < self.files_synced.segment);
        let segments = match self.files_synced == self.log_end {
            true => Vec::new(),
            false => self.segments[first..].to_vec(),
        };
        SyncWork {
            segments,
            beside: std::mem::take(&mut self.beside),
            end: self.log_end,
            bytes: std::mem::take(&mut self.unsynced_bytes),
        }
    }

    /// Begins to make durable what was appended, if somebody waits for that, and it is little, and there is nothing else.
    pub fn begin_commit(&mut self, config: &LogConfig) -> Commit {
        let length = self.log_end.position.saturating_sub(self.synced.position);
        let is_little = self.synced.segment == self.log_end.segment && length <= ENTRY_BYTES_MAX;
        match self.segments.last() {
            Some(active) if is_little && self.is_plain() && self.counts_when_synced(config) => {
                self.sync = SyncState::Running;
                Commit::Journal {
                    segment: Arc::clone(active),
                    position: self.synced.position,
                    end: self.log_end,
                    bytes: std::mem::take(&mut self.unsynced_bytes),
                }
            }
            _ => Commit::Files,
        }
    }

    /// Whether the next sync need cover nothing but the batches of the active segment.
    fn is_plain(&self) -> bool {
        self.beside.is_empty() && !self.settles
    }

    /// Begins what [`Self::begin_commit`] has begun once more, by a sync of the files: nothing was done.
    pub fn retry_commit(&mut self, bytes: u64) {
        self.unsynced_bytes += bytes;
        self.sync = SyncState::Queued;
    }

    /// Wants everything below `offset` (exclusive) to be durable in the files, unless it is.
    pub fn settle_up_to(&mut self, offset: i64) -> SyncStep {
        if self.files_synced.offset >= offset {
            return SyncStep::None;
        }
        self.settles = true;
        self.wants_sync(true)
    }

    /// A sync has ended, after its end was made known.
    pub fn end_sync(&mut self) -> SyncStep {
        let before = std::mem::replace(&mut self.sync, SyncState::Clean);
        match before {
            SyncState::RunningAgain => self.wants_sync(true),
            SyncState::RunningAndListed => self.wants_sync(false),
            _ => SyncStep::None,
        }
    }

    /// A sync could not be tried: it must be, by who called.
    pub fn retry_sync(&mut self, work: SyncWork) {
        self.beside.absorb(work.beside);
        self.unsynced_bytes += work.bytes;
        self.sync = SyncState::Queued;
    }

    /// Everything below `end` is durable in the files.
    pub fn raise_files_synced(&mut self, end: Place) {
        if end.offset >= self.files_synced.offset {
            self.files_synced = end;
        }
        self.raise_synced(end);
    }

    /// Everything below `end` is durable.
    pub fn raise_synced(&mut self, end: Place) {
        if end.offset >= self.synced.offset {
            self.synced = end;
        }
        self.raise_high_watermark(end);
    }

    /// Everything below `end` may be seen.
    pub fn raise_high_watermark(&mut self, end: Place) {
        if end.offset > self.high_watermark.offset {
            self.high_watermark = end;
        }
    }

    /// Where a reader of `offset` begins; `None` at the high watermark and above.
    pub fn start_of(&self, offset: i64) -> Result<Option<Start>, LogError> {
        if offset < self.log_start || offset > self.log_end.offset {
            return Err(LogError::OffsetOutOfRange {
                offset,
                log_start_offset: self.log_start,
                log_end_offset: self.log_end.offset,
            });
        }
        if offset >= self.high_watermark.offset {
            return Ok(None);
        }
        let known = self.recent_at(offset);
        let number = match known {
            Some(_) => self.segments.len(),
            None => self.segments.partition_point(|segment| segment.base_offset() <= offset),
        };
        // Below the first segment lies nothing, unless compaction or deletion is just moving the start.
        let segment = self.segments.get(number.saturating_sub(1));
        Ok(segment.map(|segment| Start { segment: Arc::clone(segment), known }))
    }

    /// Where a reader goes on behind `segment` that was told to read up to `end`: a high watermark of before.
    pub fn after(&self, segment: &Arc<Segment>, end: Place) -> Following {
        let here = self.segments.partition_point(|other| other.base_offset() < segment.base_offset());
        if !self.segments.get(here).is_some_and(|known| Arc::ptr_eq(known, segment)) {
            return Following::Replaced;
        }
        match self.segments.get(here + 1) {
            Some(next) if next.base_offset() > end.segment => Following::Nothing,
            // The one in which the end is, unless it was closed and compacted since.
            Some(next) if next.base_offset() == end.segment && self.high_watermark.segment != end.segment => {
                Following::Replaced
            }
            Some(next) => Following::Segment(Arc::clone(next)),
            None => Following::Nothing,
        }
    }

    /// About how many bytes consumers may see from `offset` on; exact for recent offsets, and never 0 if there are any.
    pub fn visible_bytes_from(&self, offset: i64) -> u64 {
        let end = self.high_watermark;
        if offset >= end.offset {
            return 0;
        }
        if let Some((position, _)) = self.recent_at(offset) {
            return end.position.saturating_sub(position).max(1);
        }
        if offset < end.segment {
            // All that is visible of the active segment, and at least a byte of the older ones.
            return end.position + 1;
        }
        let share = (end.offset - offset) as f64 / (end.offset - end.segment).max(1) as f64;
        ((end.position as f64 * share) as u64).max(1)
    }

    fn recent_at(&self, offset: i64) -> Option<(u64, usize)> {
        let after = self.recent.partition_point(|recent| recent.base_offset <= offset);
        let batch = self.recent.get(after.checked_sub(1)?)?;
        let end = self.recent.get(after).map_or(self.log_end.position, |next| next.position);
        Some((batch.position, (end - batch.position) as usize))
    }
}
