//! Compaction: of every key only its newest record stays. Decided here, from a view of the segments, is what can be cleaned,
//! what has to be, and which segments become one; and of each record and batch whether it stays. [`round`] does it.
//!
//! Offsets never change. The active segment, and what is not stable or not synced, is left alone. A tombstone goes
//! `delete.retention.ms` after the first round that could have dropped it, so that every consumer has time to see it.

pub mod keys;
#[cfg(test)]
mod model;
pub mod round;
pub mod swap;
pub mod transactions;

use std::ops::Range;

use super::config::LogConfig;
use super::segment::SEGMENT_BYTES_MAX;
use crate::clock::TimestampMs;
use crate::record::HEADER_BYTES;

/// What planning looks at of a closed segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentView {
    /// Its first offset.
    pub base_offset: i64,
    /// Bytes of its log.
    pub size_bytes: u64,
    /// Largest timestamp of its records; `None` without any.
    pub newest: Option<TimestampMs>,
    /// Largest timestamp of its first batch; `None` without any.
    pub first: Option<TimestampMs>,
}

/// How dirty a log is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Dirt {
    /// Everything below was cleaned before.
    pub first_dirty_offset: i64,
    /// End (exclusive) of what can be cleaned: the first offset of a segment.
    pub end_offset: i64,
    /// Bytes that were cleaned before.
    pub clean_bytes: u64,
    /// Bytes that can be cleaned.
    pub dirty_bytes: u64,
    /// Whether some of that is older than `max.compaction.lag.ms`.
    pub is_overdue: bool,
}

impl Dirt {
    /// Measures a log of these closed segments, ascending, all of which are stable; what comes after them begins at `end_offset`.
    /// `cleaned_to` is where the last round ended, if there was one.
    pub fn of(
        segments: &[SegmentView],
        (log_start_offset, end_offset): (i64, i64),
        cleaned_to: Option<i64>,
        config: &LogConfig,
        now_ms: TimestampMs,
    ) -> Self {
        let first_dirty_offset = cleaned_to.unwrap_or(0).max(log_start_offset);
        let first_dirty = match first_dirty_offset >= end_offset {
            true => segments.len(),
            // A round that stopped short ended inside a segment, which stays dirty as a whole.
            false => segments
                .partition_point(|segment| segment.base_offset <= first_dirty_offset)
                .saturating_sub(1),
        };
        let too_young = |segment: &SegmentView| {
            segment.newest.is_some_and(|newest| newest > now_ms.saturating_sub(config.min_compaction_lag_ms))
        };
        let dirty = &segments[first_dirty..];
        let cleanable = match config.min_compaction_lag_ms {
            ..=0 => dirty.len(),
            _ => dirty.iter().position(too_young).unwrap_or(dirty.len()),
        };
        let end_offset = dirty.get(cleanable).map_or(end_offset, |segment| segment.base_offset);
        let overdue_before = now_ms.saturating_sub(config.max_compaction_lag_ms);
        let cleanable = &dirty[..cleanable];
        let bytes = |segments: &[SegmentView]| segments.iter().map(|segment| segment.size_bytes).sum();
        Self {
            first_dirty_offset,
            end_offset: end_offset.max(first_dirty_offset),
            clean_bytes: bytes(&segments[..first_dirty]),
            dirty_bytes: bytes(cleanable),
            is_overdue: cleanable
                .iter()
                .any(|segment| segment.first.is_some_and(|first| first > 0 && first < overdue_before)),
        }
    }

    /// The share of bytes that were not cleaned yet, of all that could be; 0 if there are none.
    pub fn ratio(&self) -> f64 {
        let all = self.clean_bytes + self.dirty_bytes;
        if all == 0 { 0.0 } else { self.dirty_bytes as f64 / all as f64 }
    }

    /// Whether it is time to clean.
    pub fn is_due(&self, config: &LogConfig) -> bool {
        self.dirty_bytes > 0 && (self.is_overdue || self.ratio() > config.min_cleanable_dirty_ratio)
    }
}

/// Which neighbours of these segments become one segment each, ascending; what comes after them begins at `end_offset`. None of the
/// results outgrows what the topic's segments and their indexes may be, if its parts do not.
pub fn groups(segments: &[SegmentView], end_offset: i64, config: &LogConfig) -> Vec<Range<usize>> {
    let bytes_max = config.segment_bytes.min(SEGMENT_BYTES_MAX).min(indexed_bytes_max(config));
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0;
    for (place, segment) in segments.iter().enumerate() {
        let last_offset = segments.get(place + 1).map_or(end_offset, |next| next.base_offset) - 1;
        let fits = |group: &Range<usize>| {
            let span = last_offset - segments[group.start].base_offset;
            bytes + segment.size_bytes <= bytes_max
                && (segment.size_bytes == 0 || span <= i64::from(i32::MAX))
        };
        match groups.last_mut().filter(|group| fits(group)) {
            Some(group) => {
                group.end = place + 1;
                bytes += segment.size_bytes;
            }
            None => {
                groups.push(place..place + 1);
                bytes = segment.size_bytes;
            }
        }
    }
    groups
}

/// Bytes of log whose index entries always fit into an index file.
fn indexed_bytes_max(config: &LogConfig) -> u64 {
    const TIME_ENTRY_BYTES: usize = 12;
    // One place is for the entry that closes the segment.
    let entries = (config.segment_index_bytes / TIME_ENTRY_BYTES).saturating_sub(1).max(1);
    let bytes_an_entry = (config.index_interval_bytes + 1).max(HEADER_BYTES);
    entries.saturating_mul(bytes_an_entry) as u64
}

/// What is known of a record when it is decided about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordView {
    /// Its offset.
    pub offset: i64,
    /// Whether it has a key: without one it never stays.
    pub has_key: bool,
    /// Whether it has a value: without one it is a tombstone.
    pub has_value: bool,
    /// Newest offset of its key, if the map has the key.
    pub newest_of_key: Option<i64>,
}

/// Whether a record stays, of a batch of data that stays and has this delete horizon, when all below `mapped_end_offset` is in the
/// map of keys.
pub fn stays(
    record: &RecordView,
    mapped_end_offset: i64,
    delete_horizon_ms: Option<TimestampMs>,
    now_ms: TimestampMs,
) -> bool {
    let is_newest = record.newest_of_key.is_none_or(|newest| newest <= record.offset);
    let has_expired = !record.has_value && delete_horizon_ms.is_some_and(|horizon_ms| horizon_ms <= now_ms);
    record.offset >= mapped_end_offset || record.has_key && is_newest && !has_expired
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::config::tests::config;
    use super::*;

    const NOW_MS: TimestampMs = 1_000_000;

    /// Segments of a hundred offsets and a hundred bytes each, one second apart.
    fn segments(count: i64) -> Vec<SegmentView> {
        let segment = |number: i64| SegmentView {
            base_offset: number * 100,
            size_bytes: 100,
            newest: Some(number * 1000 + 999),
            first: Some(number * 1000 + 1),
        };
        (0..count).map(segment).collect()
    }

    fn dirt(count: i64, checkpoint: Option<i64>, config: &LogConfig, now_ms: i64) -> (i64, i64, u64, u64) {
        let dirt = Dirt::of(&segments(count), (0, count * 100), checkpoint, config, now_ms);
        (dirt.first_dirty_offset, dirt.end_offset, dirt.clean_bytes, dirt.dirty_bytes)
    }

    #[test]
    fn dirt_begins_where_the_last_round_ended() {
        let config = config();
        assert_eq!(dirt(0, None, &config, NOW_MS), (0, 0, 0, 0));
        assert_eq!(dirt(4, None, &config, NOW_MS), (0, 400, 0, 400));
        assert_eq!(dirt(4, Some(300), &config, NOW_MS), (300, 400, 300, 100));
        assert_eq!(dirt(4, Some(350), &config, NOW_MS), (350, 400, 300, 100), "a round that stopped short");
        assert_eq!(dirt(4, Some(400), &config, NOW_MS), (400, 400, 400, 0));
        let started = Dirt::of(&segments(4)[2..], (250, 400), Some(100), &config, NOW_MS);
        assert_eq!((started.first_dirty_offset, started.dirty_bytes), (250, 200));
    }

    #[test]
    fn what_is_younger_than_the_least_lag_stays_and_what_is_older_than_the_longest_must_go() {
        let lag = |min_ms, max_ms| LogConfig {
            min_compaction_lag_ms: min_ms,
            max_compaction_lag_ms: max_ms,
            min_cleanable_dirty_ratio: 0.5,
            ..config()
        };
        assert_eq!(dirt(4, None, &lag(2500, i64::MAX), 5000), (0, 200, 0, 200));
        assert_eq!(dirt(4, Some(200), &lag(5000, i64::MAX), 5000), (200, 200, 200, 0));
        let overdue = |max_ms, now_ms, checkpoint| {
            let config = lag(0, max_ms);
            let dirt = Dirt::of(&segments(4), (0, 400), Some(checkpoint), &config, now_ms);
            (dirt.is_overdue, dirt.is_due(&config))
        };
        assert_eq!(overdue(i64::MAX, NOW_MS, 300), (false, false));
        assert_eq!(overdue(10_000, 13_001, 300), (false, false));
        assert_eq!(overdue(10_000, 13_002, 300), (true, true), "however clean the rest is");
        assert_eq!(overdue(10_000, 13_002, 400), (false, false), "nothing is left to clean");
    }

    #[test]
    fn it_is_time_above_the_ratio_and_not_at_it() {
        let due = |ratio: f64, checkpoint| {
            let config = LogConfig { min_cleanable_dirty_ratio: ratio, ..config() };
            Dirt::of(&segments(4), (0, 400), Some(checkpoint), &config, NOW_MS).is_due(&config)
        };
        assert!(!due(0.5, 200) && due(0.49, 200) && due(0.0, 300) && !due(0.0, 400) && !due(1.0, 0));
    }

    #[test]
    fn neighbours_are_joined_as_far_as_a_segment_holds() {
        let groups_of = |bytes, config: LogConfig| {
            groups(&segments(5), 500, &LogConfig { segment_bytes: bytes, ..config })
        };
        assert_eq!((groups_of(1000, config()).len(), groups_of(1000, config())[0].clone()), (1, 0..5));
        assert_eq!(groups_of(250, config()), [0..2, 2..4, 4..5]);
        assert_eq!(groups_of(10, config()), [0..1, 1..2, 2..3, 3..4, 4..5]);
        let index = LogConfig { segment_index_bytes: 48, index_interval_bytes: 99, ..config() };
        assert_eq!(
            groups_of(1000, index),
            [0..3, 3..5],
            "three entries of a hundred bytes, and one to close"
        );
        let far = [(0, 100), (100, 100), (i64::from(i32::MAX) + 50, 0), (i64::from(i32::MAX) + 60, 100)];
        let far = far.map(|(base_offset, size_bytes)| SegmentView {
            base_offset,
            size_bytes,
            newest: None,
            first: None,
        });
        assert_eq!(groups(&far, i64::from(i32::MAX) + 70, &config()), [0..1, 1..4]);
        assert!(groups(&[], 0, &config()).is_empty());
    }

    proptest! {
        #[test]
        fn groups_are_all_segments_in_order_and_no_larger_than_allowed(
            sizes in proptest::collection::vec(0u64..400, 0..40),
            segment_bytes in 1u64..1000,
        ) {
            let view = |(place, size_bytes): (usize, &u64)| SegmentView {
                base_offset: place as i64 * 10, size_bytes: *size_bytes, newest: None, first: None,
            };
            let segments: Vec<_> = sizes.iter().enumerate().map(view).collect();
            let groups = groups(&segments, sizes.len() as i64 * 10, &LogConfig { segment_bytes, ..config() });
            prop_assert!(groups.iter().cloned().flatten().eq(0..sizes.len()));
            for group in groups {
                let bytes: u64 = sizes[group.clone()].iter().sum();
                prop_assert!(bytes <= segment_bytes || group.len() == 1);
            }
        }
    }

    #[test]
    fn the_newest_of_a_key_stays_and_a_tombstone_until_its_time() {
        let record = |offset, has_value, newest| RecordView {
            offset,
            has_key: true,
            has_value,
            newest_of_key: newest,
        };
        for (record, horizon_ms, expected) in [
            (record(5, true, Some(5)), None, true),
            (record(5, true, Some(7)), None, false),
            (record(5, true, None), None, true),
            (record(10, true, Some(12)), None, true),
            (record(5, false, Some(5)), None, true),
            (record(5, false, Some(5)), Some(NOW_MS + 1), true),
            (record(5, false, Some(5)), Some(NOW_MS), false),
            (record(5, true, Some(5)), Some(NOW_MS), true),
            (record(10, false, None), Some(NOW_MS), true),
            (RecordView { has_key: false, ..record(5, true, None) }, None, false),
            (RecordView { has_key: false, ..record(10, true, None) }, None, true),
        ] {
            assert_eq!(stays(&record, 10, horizon_ms, NOW_MS), expected, "{record:?} {horizon_ms:?}");
        }
    }
}
