//! When the active segment is closed and a new one begun: a pure decision, as Kafka takes it before each append.

use super::config::LogConfig;
use super::segment::SEGMENT_BYTES_MAX;
use crate::clock::TimestampMs;

/// What the decision looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RollView {
    /// Bytes in the active segment.
    pub size_bytes: u64,
    /// First offset of the active segment.
    pub base_offset: i64,
    /// Largest timestamp of its first batch, if that has any.
    pub first_timestamp: Option<TimestampMs>,
    /// When it was begun (or opened).
    pub created_ms: TimestampMs,
    /// How much earlier than `segment_ms` it rolls.
    pub jitter_ms: i64,
    /// Whether one of its indexes is full.
    pub indexes_full: bool,
}

/// The batch that wants to be appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Incoming {
    /// Its size.
    pub size_bytes: u64,
    /// Its largest timestamp, -1 if it has none.
    pub max_timestamp: TimestampMs,
    /// The last offset it would get.
    pub last_offset: i64,
}

/// Why a segment is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RollReason {
    /// The batch does not fit any more.
    Size,
    /// It is old enough, by record time if it has such.
    Age,
    /// An index has no place left.
    IndexFull,
    /// The batch's offsets are too far from the base offset.
    OffsetOverflow,
}

/// Whether, and why, the active segment must be closed before `incoming` is appended. An empty segment never is.
pub fn should_roll(
    segment: &RollView,
    incoming: &Incoming,
    config: &LogConfig,
    now_ms: TimestampMs,
) -> Option<RollReason> {
    if segment.size_bytes == 0 {
        return None;
    }
    if segment.size_bytes + incoming.size_bytes > config.segment_bytes.min(SEGMENT_BYTES_MAX) {
        return Some(RollReason::Size);
    }
    let waited_ms = match segment.first_timestamp.filter(|timestamp| *timestamp >= 0) {
        Some(first) => incoming.max_timestamp.saturating_sub(first),
        None => now_ms.saturating_sub(segment.created_ms),
    };
    // What must be compacted by then must not be in the active segment any more.
    let segment_ms = match config.compact {
        true => config.segment_ms.min(config.max_compaction_lag_ms),
        false => config.segment_ms,
    };
    if waited_ms > segment_ms - segment.jitter_ms {
        return Some(RollReason::Age);
    }
    if segment.indexes_full {
        return Some(RollReason::IndexFull);
    }
    (incoming.last_offset - segment.base_offset > i64::from(i32::MAX)).then_some(RollReason::OffsetOverflow)
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::config;
    use super::*;

    #[test]
    fn each_limit_rolls_one_step_beyond_it() {
        let config = LogConfig { segment_bytes: 1000, segment_ms: 500, ..config() };
        let segment = RollView {
            size_bytes: 900,
            base_offset: 70,
            first_timestamp: Some(10_000),
            created_ms: 0,
            jitter_ms: 100,
            indexes_full: false,
        };
        let incoming = Incoming { size_bytes: 100, max_timestamp: 10_400, last_offset: 70 + 0x7fff_ffff };
        let decide = |segment: RollView, incoming: Incoming| should_roll(&segment, &incoming, &config, 300);
        assert_eq!(decide(segment, incoming), None);
        assert_eq!(decide(segment, Incoming { size_bytes: 101, ..incoming }), Some(RollReason::Size));
        assert_eq!(decide(segment, Incoming { max_timestamp: 10_401, ..incoming }), Some(RollReason::Age));
        let far = Incoming { last_offset: incoming.last_offset + 1, ..incoming };
        assert_eq!(decide(segment, far), Some(RollReason::OffsetOverflow));
        let full = RollView { indexes_full: true, ..segment };
        assert_eq!(decide(full, incoming), Some(RollReason::IndexFull));
        assert_eq!(decide(RollView { size_bytes: 0, ..full }, far), None, "an empty segment stays");
    }

    #[test]
    fn without_record_times_the_clock_counts() {
        let config = LogConfig { segment_ms: 500, ..config() };
        let segment = RollView {
            size_bytes: 1,
            base_offset: 0,
            first_timestamp: Some(-1),
            created_ms: 1000,
            jitter_ms: 0,
            indexes_full: false,
        };
        let incoming = Incoming { size_bytes: 1, max_timestamp: -1, last_offset: 1 };
        assert_eq!(should_roll(&segment, &incoming, &config, 1500), None);
        assert_eq!(should_roll(&segment, &incoming, &config, 1501), Some(RollReason::Age));
    }
}
