//! Places in a partition as users name them.

use std::collections::BTreeMap;
use std::str::FromStr;

use jiff::Timestamp;

use super::client::{ClientError, Cluster, Isolation, TopicPartition};
use crate::clock::TimestampMs;

/// ListOffsets' timestamps of the end and the start of a log.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// A place in a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Position {
    /// The first record that is there.
    Beginning,
    /// Behind the last record.
    End,
    /// That offset.
    Offset(i64),
    /// The first record of that time or later, ms; the end if there is none.
    Time(TimestampMs),
    /// So many offsets before the end, but not before the beginning.
    BeforeEnd(i64),
}

/// Why a text is no position.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected beginning, end, an offset, -N, @MILLISECONDS, or a time such as 2026-11-22T10:00:00Z")]
pub(super) struct BadPosition;

impl FromStr for Position {
    type Err = BadPosition;

    fn from_str(text: &str) -> Result<Self, BadPosition> {
        match text {
            "beginning" => return Ok(Self::Beginning),
            "end" => return Ok(Self::End),
            _ => {}
        }
        if let Some(before_end) = text.strip_prefix('-') {
            return before_end.parse::<u32>().map(|n| Self::BeforeEnd(n.into())).map_err(|_| BadPosition);
        }
        match text.parse::<u64>().ok().and_then(|offset| i64::try_from(offset).ok()) {
            Some(offset) => Ok(Self::Offset(offset)),
            None => time(text).map(Self::Time).map_err(|_| BadPosition),
        }
    }
}

/// Why a text is no time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected @MILLISECONDS since 1970, or a time such as 2026-11-22T10:00:00Z")]
pub(super) struct BadTime;

/// Milliseconds since the epoch of `@MILLISECONDS` or an RFC 3339 time.
///
/// # Errors
/// Anything else.
pub(super) fn time(text: &str) -> Result<TimestampMs, BadTime> {
    match text.strip_prefix('@') {
        Some(ms) => ms.parse::<u64>().ok().and_then(|ms| i64::try_from(ms).ok()).ok_or(BadTime),
        None => match text.parse::<Timestamp>() {
            Ok(time) if time.as_millisecond() >= 0 => Ok(time.as_millisecond()),
            _ => Err(BadTime),
        },
    }
}

/// A timestamp as RFC 3339; the number itself if no calendar has it.
pub(super) fn time_text(ms: TimestampMs) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(time) if ms >= 0 => time.to_string(),
        _ => ms.to_string(),
    }
}

/// What a partition holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Range {
    /// Its first offset.
    pub(super) start: i64,
    /// Where it ends for the isolation asked with (exclusive).
    pub(super) end_exclusive: i64,
}

/// What each partition holds at this moment.
///
/// # Errors
/// As [`Cluster::list_offsets`].
pub(super) fn ranges<'p>(
    cluster: &mut Cluster,
    places: impl Iterator<Item = &'p TopicPartition> + Clone,
    isolation: Isolation,
) -> Result<BTreeMap<TopicPartition, Range>, ClientError> {
    let mut at = |timestamp: i64| {
        let wanted = places.clone().map(|place| (place.clone(), timestamp)).collect();
        cluster.list_offsets(&wanted, isolation)
    };
    let (starts, ends) = (at(EARLIEST)?, at(LATEST)?);
    let both = starts.into_iter().zip(ends.into_values());
    // Of a read_committed end, one before the start is no news: a transaction is open there.
    let range = |start: i64, end: i64| Range { start, end_exclusive: end.max(start) };
    Ok(both.map(|((place, start), end)| (place, range(start.offset, end.offset))).collect())
}

/// The offset of a position in each partition; an offset that was named is taken as it is.
///
/// # Errors
/// As [`Cluster::list_offsets`].
pub(super) fn resolve(
    cluster: &mut Cluster,
    ranges: &BTreeMap<TopicPartition, Range>,
    position: Position,
    isolation: Isolation,
) -> Result<BTreeMap<TopicPartition, i64>, ClientError> {
    let by_range = |offset: &dyn Fn(&Range) -> i64| {
        Ok(ranges.iter().map(|(place, range)| (place.clone(), offset(range))).collect())
    };
    match position {
        Position::Beginning => by_range(&|range| range.start),
        Position::End => by_range(&|range| range.end_exclusive),
        Position::Offset(offset) => by_range(&|_| offset),
        Position::BeforeEnd(count) => {
            by_range(&|range| range.end_exclusive.saturating_sub(count).max(range.start))
        }
        Position::Time(timestamp) => {
            let wanted = ranges.keys().map(|place| (place.clone(), timestamp)).collect();
            let found = cluster.list_offsets(&wanted, isolation)?;
            by_range_or_end(ranges, |place| found.get(place).map(|found| found.offset))
        }
    }
}

fn by_range_or_end(
    ranges: &BTreeMap<TopicPartition, Range>,
    found: impl Fn(&TopicPartition) -> Option<i64>,
) -> Result<BTreeMap<TopicPartition, i64>, ClientError> {
    let offset = |place: &TopicPartition, range: &Range| {
        found(place).filter(|offset| *offset >= 0).unwrap_or(range.end_exclusive)
    };
    Ok(ranges.iter().map(|(place, range)| (place.clone(), offset(place, range))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_told_apart() {
        for (text, expected) in [
            ("beginning", Position::Beginning),
            ("end", Position::End),
            ("0", Position::Offset(0)),
            ("9223372036854775807", Position::Offset(i64::MAX)),
            ("-10", Position::BeforeEnd(10)),
            ("@1700000000123", Position::Time(1_700_000_000_123)),
            ("2026-11-22T10:00:00Z", Position::Time(1_795_341_600_000)),
            ("2026-11-22T12:00:00.250+02:00", Position::Time(1_795_341_600_250)),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for bad in ["", "-", "--1", "@", "@-1", "@x", "start", "2026-11-22", "1.5", "9223372036854775808"] {
            assert_eq!(bad.parse::<Position>(), Err(BadPosition), "{bad}");
        }
    }

    #[test]
    fn times_are_written_as_they_are_read() {
        assert_eq!(time_text(1_795_341_600_250), "2026-11-22T10:00:00.25Z");
        assert_eq!(time(&time_text(1_795_341_600_250)), Ok(1_795_341_600_250));
        assert_eq!(time_text(-1), "-1");
        assert_eq!(time_text(i64::MAX), i64::MAX.to_string());
    }
}
