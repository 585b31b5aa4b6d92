//! Which leader epoch began at which offset: what consumers and followers check their position against (KIP-101, KIP-320).

use super::checkpoint::{self, InvalidCheckpoint};

/// The first offset that was written in an epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochStart {
    /// The leader epoch.
    pub epoch: i32,
    /// Its first offset.
    pub start_offset: i64,
}

/// The epochs of a log; both epochs and offsets rise strictly.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LeaderEpochs {
    starts: Vec<EpochStart>,
}

impl LeaderEpochs {
    /// Reads a `leader-epoch-checkpoint`.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidCheckpoint> {
        let entries = checkpoint::parse(bytes, |fields| {
            Some(EpochStart { epoch: checkpoint::number(fields)?, start_offset: checkpoint::number(fields)? })
        })?;
        let mut epochs = Self::default();
        for (number, entry) in entries.into_iter().enumerate() {
            if !epochs.assign(entry.epoch, entry.start_offset) {
                return Err(InvalidCheckpoint::Entry { line: number + 3 });
            }
        }
        Ok(epochs)
    }

    /// The text of a `leader-epoch-checkpoint`.
    pub fn render(&self) -> String {
        checkpoint::render(self.starts.iter().map(|entry| format!("{} {}", entry.epoch, entry.start_offset)))
    }

    /// All of them, the oldest first.
    pub fn starts(&self) -> &[EpochStart] {
        &self.starts
    }

    /// The newest epoch that something was written in.
    pub fn latest(&self) -> Option<EpochStart> {
        self.starts.last().copied()
    }

    /// Notes that `epoch` writes from `start_offset` on; returns whether that is news. An epoch that is not newer than the
    /// latest, or starts no later than it, is none.
    pub fn assign(&mut self, epoch: i32, start_offset: i64) -> bool {
        let news =
            self.latest().is_none_or(|latest| latest.epoch < epoch && latest.start_offset < start_offset);
        if news && epoch >= 0 {
            self.starts.push(EpochStart { epoch, start_offset });
            return true;
        }
        false
    }

    /// As [`Self::assign`], but what is known of older epochs at and beyond `start_offset` is of a log that ends there now, or
    /// that has begun anew.
    pub fn begin(&mut self, epoch: i32, start_offset: i64) -> bool {
        if self.latest().is_some_and(|latest| latest.epoch < epoch) {
            self.truncate_end(start_offset);
        }
        self.assign(epoch, start_offset)
    }

    /// Forgets what lies at and beyond `end_offset_exclusive`: the log was cut there.
    pub fn truncate_end(&mut self, end_offset_exclusive: i64) -> bool {
        let before = self.starts.len();
        self.starts.retain(|entry| entry.start_offset < end_offset_exclusive);
        before != self.starts.len()
    }

    /// Forgets what lies below the log's new first offset; the epoch that covers it starts there now.
    pub fn truncate_start(&mut self, log_start_offset: i64) -> bool {
        let covering = self.starts.iter().rposition(|entry| entry.start_offset <= log_start_offset);
        let Some(covering) = covering else { return false };
        let changed = covering > 0 || self.starts[covering].start_offset != log_start_offset;
        self.starts.drain(..covering);
        self.starts[0].start_offset = log_start_offset;
        changed
    }

    /// The epoch in which `offset` was written.
    pub fn at(&self, offset: i64) -> Option<i32> {
        self.starts.iter().rev().find(|entry| entry.start_offset <= offset).map(|entry| entry.epoch)
    }

    /// The largest epoch not above `asked` and where it ends (exclusive): at the start of the next one, or at `log_end` if it
    /// is `current`, the leader's own. `None` if nothing is known of such an epoch.
    pub fn end_offset_for(&self, asked: i32, current: i32, log_end: i64) -> Option<(i32, i64)> {
        if asked == current {
            return Some((current, log_end));
        }
        if !(0..current).contains(&asked) {
            return None;
        }
        let next = self.starts.partition_point(|entry| entry.epoch <= asked);
        // The current epoch may not have written yet: then it starts where the log ends.
        let end = self.starts.get(next).map_or(log_end, |entry| entry.start_offset);
        match next.checked_sub(1) {
            Some(floor) => Some((self.starts[floor].epoch, end)),
            None if self.starts.is_empty() => None,
            None => Some((asked, end)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(starts: &[(i32, i64)]) -> LeaderEpochs {
        let mut epochs = LeaderEpochs::default();
        for (epoch, start_offset) in starts {
            assert!(epochs.assign(*epoch, *start_offset));
        }
        epochs
    }

    #[test]
    fn only_a_newer_epoch_at_a_later_offset_is_news() {
        let mut epochs = epochs(&[(0, 0), (2, 10)]);
        for (epoch, start_offset) in [(2, 20), (1, 20), (3, 10), (3, 9)] {
            assert!(!epochs.assign(epoch, start_offset), "{epoch} at {start_offset}");
        }
        assert!(!LeaderEpochs::default().assign(-1, 0));
        assert_eq!(epochs.latest(), Some(EpochStart { epoch: 2, start_offset: 10 }));
    }

    #[test]
    fn a_newer_epoch_takes_the_place_of_those_that_began_no_earlier() {
        let mut moved = epochs(&[(0, 0), (2, 10)]);
        assert!(moved.begin(3, 10));
        assert!(!moved.begin(3, 12) && !moved.begin(2, 20));
        assert_eq!(moved, epochs(&[(0, 0), (3, 10)]));
    }

    #[test]
    fn the_text_reads_back_and_disorder_is_refused() {
        let epochs = epochs(&[(0, 0), (2, 10)]);
        assert_eq!(epochs.render(), "0\n2\n0 0\n2 10\n");
        assert_eq!(LeaderEpochs::parse(epochs.render().as_bytes()), Ok(epochs));
        assert_eq!(LeaderEpochs::parse(b"0\n2\n2 10\n1 20\n"), Err(InvalidCheckpoint::Entry { line: 4 }));
    }

    #[test]
    fn an_epoch_ends_where_the_next_one_starts() {
        let epochs = epochs(&[(1, 0), (3, 10), (5, 30)]);
        assert_eq!(epochs.end_offset_for(0, 5, 42), Some((0, 0)));
        assert_eq!(epochs.end_offset_for(1, 5, 42), Some((1, 10)));
        assert_eq!(epochs.end_offset_for(2, 5, 42), Some((1, 10)));
        assert_eq!(epochs.end_offset_for(4, 5, 42), Some((3, 30)));
        assert_eq!(epochs.end_offset_for(5, 5, 42), Some((5, 42)));
        assert_eq!(epochs.end_offset_for(5, 7, 42), Some((5, 42)), "epoch 7 has not written yet");
        assert_eq!(epochs.end_offset_for(6, 5, 42), None);
        assert_eq!(epochs.end_offset_for(-1, 5, 42), None);
        assert_eq!(LeaderEpochs::default().end_offset_for(0, 0, 0), Some((0, 0)));
        assert_eq!(LeaderEpochs::default().end_offset_for(0, 1, 0), None);
    }

    #[test]
    fn truncation_at_either_end_keeps_the_covering_epoch() {
        let mut cut = epochs(&[(1, 0), (3, 10), (5, 30)]);
        assert!(cut.truncate_end(30));
        assert!(!cut.truncate_end(30));
        assert_eq!(cut, epochs(&[(1, 0), (3, 10)]));
        assert!(cut.truncate_start(12));
        assert_eq!(cut, epochs(&[(3, 12)]));
        assert!(!cut.truncate_start(12));
        assert_eq!(cut.at(20), Some(3));
        assert_eq!(cut.at(11), None);
    }
}
