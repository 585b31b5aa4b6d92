//! Which segments of a log go because their time or the space for them is over: a pure decision, as Kafka takes it every
//! `log.retention.check.interval.ms`. Whole segments go, from the front, up to the first that stays.

use std::sync::Arc;

use super::LogError;
use super::config::LogConfig;
use crate::clock::TimestampMs;

/// What the decision asks of a segment. Size and time may cost I/O, so they are asked only where they decide.
pub trait Expiring {
    /// The first offset that it can hold.
    fn base_offset(&self) -> i64;

    /// Bytes of its batches.
    fn size_bytes(&self) -> Result<u64, LogError>;

    /// The largest timestamp of its records; if they have none, when it was last written.
    fn newest_ms(&self) -> Result<TimestampMs, LogError>;
}

/// The offsets that bound what may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// First offset of the log.
    pub log_start: i64,
    /// Nothing at or above it goes.
    pub high_watermark: i64,
    /// Where the next batch will be appended.
    pub log_end: i64,
}

/// What goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Segments that go because they lie below the log start.
    pub by_log_start: usize,
    /// Segments after these that go because the log is larger than `retention.bytes` without them.
    pub by_size: usize,
    /// Segments after these that go because their newest record is older than `retention.ms`.
    pub by_time: usize,
    /// The log start afterwards.
    pub log_start: i64,
    /// Whether the active segment is among them: a new one is to be begun first.
    pub roll: bool,
    /// The earliest time at which the first segment that stays could go, if nothing is appended or configured meanwhile.
    pub next_ms: TimestampMs,
}

impl Plan {
    /// How many segments go, from the front.
    pub fn segments(&self) -> usize {
        self.by_log_start + self.by_size + self.by_time
    }
}

/// Decides for `segments`, ascending, of which the last one is active. What is below the log start goes under every
/// `cleanup.policy`, the rest only if that has `delete`. A segment without a record stays; it is the active one.
pub fn plan<S: Expiring>(
    segments: &[Arc<S>],
    bounds: Bounds,
    config: &LogConfig,
    now_ms: TimestampMs,
) -> Result<Plan, LogError> {
    let end_of = |number: usize| segments.get(number + 1).map_or(bounds.log_end, |next| next.base_offset());
    let may_go = |number: usize| -> Result<bool, LogError> {
        let Some(segment) = segments.get(number) else { return Ok(false) };
        let empty = number + 1 == segments.len() && segment.size_bytes()? == 0;
        Ok(!empty && end_of(number) <= bounds.high_watermark)
    };

    let mut gone = 0;
    while gone + 1 < segments.len() && end_of(gone) <= bounds.log_start && may_go(gone)? {
        gone += 1;
    }
    let by_log_start = gone;

    if let (true, Ok(retention_bytes)) = (config.delete, u64::try_from(config.retention_bytes)) {
        let mut kept = 0;
        for segment in &segments[gone..] {
            kept += segment.size_bytes()?;
        }
        while may_go(gone)? && kept - segments[gone].size_bytes()? >= retention_bytes {
            kept -= segments[gone].size_bytes()?;
            gone += 1;
        }
    }
    let by_size = gone - by_log_start;

    let mut next_ms = TimestampMs::MAX;
    if config.delete && config.retention_ms >= 0 {
        while may_go(gone)? {
            let newest_ms = segments[gone].newest_ms()?;
            if now_ms.saturating_sub(newest_ms) <= config.retention_ms {
                next_ms = newest_ms.saturating_add(config.retention_ms).saturating_add(1);
                break;
            }
            gone += 1;
        }
    }
    let by_time = gone - by_log_start - by_size;
    Ok(Plan {
        by_log_start,
        by_size,
        by_time,
        log_start: if gone == 0 { bounds.log_start } else { bounds.log_start.max(end_of(gone - 1)) },
        roll: gone > 0 && gone == segments.len(),
        next_ms,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::config::tests::config;
    use super::*;

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    struct Simple {
        base_offset: i64,
        size_bytes: u64,
        newest_ms: TimestampMs,
    }

    impl Expiring for Simple {
        fn base_offset(&self) -> i64 {
            self.base_offset
        }

        fn size_bytes(&self) -> Result<u64, LogError> {
            Ok(self.size_bytes)
        }

        fn newest_ms(&self) -> Result<TimestampMs, LogError> {
            Ok(self.newest_ms)
        }
    }

    /// Segments of ten offsets each, the last one active: sizes and times.
    fn log(segments: &[(u64, TimestampMs)]) -> Vec<Arc<Simple>> {
        let segment = |(number, (size_bytes, newest_ms)): (usize, &(u64, TimestampMs))| {
            Arc::new(Simple {
                base_offset: number as i64 * 10,
                size_bytes: *size_bytes,
                newest_ms: *newest_ms,
            })
        };
        segments.iter().enumerate().map(segment).collect()
    }

    fn whole(segments: &[Arc<Simple>]) -> Bounds {
        let log_end = segments.last().map_or(0, |last| last.base_offset + 10);
        Bounds { log_start: 0, high_watermark: log_end, log_end }
    }

    fn decide(
        segments: &[Arc<Simple>],
        bounds: Bounds,
        config: LogConfig,
    ) -> (usize, usize, usize, i64, bool) {
        let plan = plan(segments, bounds, &config, 1000).unwrap();
        (plan.by_log_start, plan.by_size, plan.by_time, plan.log_start, plan.roll)
    }

    fn forever() -> LogConfig {
        LogConfig { retention_ms: -1, ..config() }
    }

    #[test]
    fn nothing_goes_from_a_log_without_segments_or_limits() {
        assert_eq!(decide(&[], whole(&[]), config()), (0, 0, 0, 0, false));
        let segments = log(&[(5, 0), (5, 0), (5, 0)]);
        assert_eq!(decide(&segments, whole(&segments), forever()), (0, 0, 0, 0, false));
    }

    #[test]
    fn a_segment_goes_one_millisecond_after_its_time_and_the_first_that_stays_keeps_the_rest() {
        let by_time = |ms: &[TimestampMs], retention_ms| {
            let segments = log(&ms.iter().map(|ms| (1, *ms)).collect::<Vec<_>>());
            let plan =
                plan(&segments, whole(&segments), &LogConfig { retention_ms, ..config() }, 1000).unwrap();
            (plan.by_time, plan.roll, plan.next_ms)
        };
        assert_eq!(by_time(&[899, 900, 800], 100), (1, false, 1001));
        assert_eq!(by_time(&[899, 899, 899], 100), (3, true, i64::MAX));
        assert_eq!(by_time(&[2000, 1, 1], 100), (0, false, 2101), "a time to come keeps what lies behind");
        assert_eq!(by_time(&[1000, 1000], 0), (0, false, 1001));
        assert_eq!(by_time(&[i64::MAX, 0], i64::MAX), (0, false, i64::MAX));
    }

    #[test]
    fn what_is_left_is_no_smaller_than_the_limit() {
        let segments = log(&[(40, 0), (30, 0), (20, 0), (10, 0)]);
        let by_size = |retention_bytes| {
            let (_, by_size, _, log_start, roll) =
                decide(&segments, whole(&segments), LogConfig { retention_bytes, ..forever() });
            (by_size, log_start, roll)
        };
        assert_eq!(by_size(100), (0, 0, false));
        assert_eq!(by_size(61), (0, 0, false));
        assert_eq!(by_size(60), (1, 10, false));
        assert_eq!(by_size(10), (3, 30, false));
        assert_eq!(by_size(1), (3, 30, false));
        assert_eq!(by_size(0), (4, 40, true));
        assert_eq!(by_size(i64::MAX), (0, 0, false));
    }

    #[test]
    fn size_counts_what_the_log_start_has_left_and_time_what_size_has() {
        let segments = log(&[(50, 0), (50, 0), (50, 0), (50, 990)]);
        let bounds = Bounds { log_start: 15, ..whole(&segments) };
        let limits = LogConfig { retention_bytes: 100, retention_ms: 100, ..config() };
        assert_eq!(decide(&segments, bounds, limits), (1, 1, 1, 30, false));
    }

    #[test]
    fn without_the_policy_to_delete_only_what_lies_below_the_log_start_goes() {
        let segments = log(&[(50, 0), (50, 0), (50, 0)]);
        let bounds = Bounds { log_start: 10, ..whole(&segments) };
        for compact in [false, true] {
            let keep = LogConfig { delete: false, compact, retention_bytes: 0, retention_ms: 0, ..config() };
            assert_eq!(decide(&segments, bounds, keep), (1, 0, 0, 10, false));
        }
        let both = LogConfig { compact: true, retention_ms: 0, ..config() };
        assert_eq!(decide(&segments, bounds, both), (1, 0, 2, 30, true));
    }

    #[test]
    fn nothing_goes_that_consumers_have_not_been_shown_and_no_empty_segment() {
        let segments = log(&[(50, 0), (50, 0), (0, 0)]);
        let all = LogConfig { retention_ms: 0, ..config() };
        let bounds = |high_watermark| Bounds { log_start: 0, high_watermark, log_end: 20 };
        assert_eq!(decide(&segments, bounds(19), all.clone()), (0, 0, 1, 10, false));
        assert_eq!(decide(&segments, bounds(9), all.clone()), (0, 0, 0, 0, false));
        assert_eq!(decide(&segments, bounds(20), all), (0, 0, 2, 20, false));
    }

    /// Kafka's way: one segment after the other, each with the conditions in words.
    fn model(
        mut segments: Vec<Simple>,
        bounds: Bounds,
        config: &LogConfig,
        now_ms: i64,
    ) -> (Vec<Simple>, i64) {
        let mut log_start = bounds.log_start;
        for limit in 0..3 {
            while let Some(first) = segments.first().copied() {
                let next = segments.get(1).map(|next| next.base_offset);
                let size: u64 = segments.iter().map(|segment| segment.size_bytes).sum();
                let breached = match limit {
                    0 => next.is_some_and(|next| next <= log_start),
                    1 => {
                        config.delete
                            && config.retention_bytes >= 0
                            && size - first.size_bytes >= config.retention_bytes as u64
                    }
                    _ => {
                        config.delete
                            && config.retention_ms >= 0
                            && now_ms - first.newest_ms > config.retention_ms
                    }
                };
                let end = next.unwrap_or(bounds.log_end);
                if !breached || end > bounds.high_watermark || next.is_none() && first.size_bytes == 0 {
                    break;
                }
                log_start = log_start.max(end);
                segments.remove(0);
            }
        }
        (segments, log_start)
    }

    proptest! {
        #[test]
        fn it_decides_as_kafka_does(
            segments in prop::collection::vec((1u64..50, 0i64..2000), 0..8),
            active_is_empty: bool,
            (log_start, unseen) in (0i64..60, 0i64..30),
            (retention_bytes, retention_ms) in (-1i64..200, -1i64..1500),
            delete: bool,
        ) {
            let mut segments = segments;
            if let (true, Some(active)) = (active_is_empty, segments.last_mut()) {
                active.0 = 0;
            }
            let segments = log(&segments);
            let log_end = segments.len() as i64 * 10;
            let high_watermark = (log_end - unseen).max(0);
            let bounds = Bounds { log_start: log_start.min(high_watermark), high_watermark, log_end };
            let config = LogConfig { delete, retention_bytes, retention_ms, ..config() };
            let plan = plan(&segments, bounds, &config, 1000).unwrap();
            let simple: Vec<Simple> = segments.iter().map(|segment| **segment).collect();
            let (left, log_start) = model(simple.clone(), bounds, &config, 1000);
            prop_assert_eq!(&simple[plan.segments()..], &left[..]);
            prop_assert_eq!(plan.log_start, log_start);
            prop_assert_eq!(plan.roll, left.is_empty() && !simple.is_empty());
            prop_assert!(plan.log_start <= high_watermark);
            // Nothing more goes before the time that it names.
            let later = super::plan(&segments[plan.segments()..], Bounds { log_start, ..bounds }, &config, (plan.next_ms - 1).min(100_000)).unwrap();
            prop_assert_eq!(later.segments(), 0);
        }
    }
}
