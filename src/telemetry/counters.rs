//! Numbers that many threads raise and a scrape reads. A scrape is no snapshot: what is added while it reads may be in one
//! number and not yet in another.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that only rises while the broker runs.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The sum so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper ends (inclusive) of a histogram's buckets, in nanoseconds and as `le` says them, in seconds.
pub(super) const BUCKETS: [(u64, &str); 21] = [
    (10_000, "0.00001"),
    (25_000, "0.000025"),
    (50_000, "0.00005"),
    (100_000, "0.0001"),
    (250_000, "0.00025"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1"),
    (2_500_000_000, "2.5"),
    (5_000_000_000, "5"),
    (10_000_000_000, "10"),
    (30_000_000_000, "30"),
    (60_000_000_000, "60"),
];

/// How often something took how long, from 10 µs to 60 s.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One for each of [`BUCKETS`], and one for what took longer.
    buckets: [Counter; BUCKETS.len() + 1],
    nanoseconds: Counter,
}

impl Histogram {
    /// Counts one that took `duration`.
    pub fn observe(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[BUCKETS.partition_point(|(end, _)| *end < nanoseconds)].increment();
        self.nanoseconds.add(nanoseconds);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(Counter::value).sum()
    }

    /// How long one took on average; `None` if there was none.
    pub fn mean(&self) -> Option<Duration> {
        let count = self.count();
        (count > 0).then(|| Duration::from_nanos(self.nanoseconds.value() / count))
    }

    /// How long such a part of them took at most: the end of a bucket. `None` if there was none, or it is beyond the last.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let sums = self.cumulated();
        let all = sums[BUCKETS.len()];
        let wanted = (all as f64 * part).ceil().max(1.0) as u64;
        let bucket = BUCKETS.iter().zip(sums).find(|(_, sum)| *sum >= wanted && all > 0);
        bucket.map(|((end, _), _)| Duration::from_nanos(*end))
    }

    /// How many took up to the end of each bucket; the last number is all of them.
    pub(super) fn cumulated(&self) -> [u64; BUCKETS.len() + 1] {
        let mut sum = 0;
        self.buckets.each_ref().map(|bucket| {
            sum += bucket.value();
            sum
        })
    }

    /// Seconds that all took together.
    pub(super) fn seconds(&self) -> f64 {
        Duration::from_nanos(self.nanoseconds.value()).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_ends_with_its_end() {
        let histogram = Histogram::default();
        for (end, _) in BUCKETS {
            histogram.observe(Duration::from_nanos(end));
            histogram.observe(Duration::from_nanos(end + 1));
        }
        let expected: Vec<u64> = (0..BUCKETS.len() as u64).map(|number| 2 * number + 1).collect();
        let counts = histogram.cumulated();
        assert_eq!(counts[..BUCKETS.len()], expected);
        assert_eq!(counts[BUCKETS.len()], 2 * BUCKETS.len() as u64);
        let sum: u64 = BUCKETS.iter().map(|(end, _)| 2 * end + 1).sum();
        assert!((histogram.seconds() - sum as f64 / 1e9).abs() < 1e-6);
    }

    #[test]
    fn a_quantile_is_the_end_of_its_bucket() {
        let histogram = Histogram::default();
        assert_eq!((histogram.mean(), histogram.quantile(0.5)), (None, None));
        (0..99).for_each(|_| histogram.observe(Duration::from_micros(9)));
        histogram.observe(Duration::from_secs(100));
        assert_eq!(histogram.quantile(0.5), Some(Duration::from_micros(10)));
        assert_eq!(histogram.quantile(0.99), Some(Duration::from_micros(10)));
        assert_eq!(histogram.quantile(1.0), None);
        assert_eq!(histogram.mean(), Some(Duration::from_nanos(1_000_008_910)));
    }

    #[test]
    fn buckets_ascend_and_are_called_what_they_are() {
        assert!(BUCKETS.is_sorted());
        for (end, name) in BUCKETS {
            assert_eq!((name.parse::<f64>().unwrap() * 1e9).round() as u64, end, "{name}");
        }
    }
}
