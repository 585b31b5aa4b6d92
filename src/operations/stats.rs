//! What operators want to know of a queue.

use std::sync::Arc;
use std::time::Duration;

use super::desk::Station;
use super::{QueueCounts, QueueDoor, QueueRefusal};
use crate::catalog::queue_config::QueueConfig;
use crate::clock::TimestampMs;
use crate::queue::{Counts, Range};
use crate::telemetry::QueueCounters;

/// Time over which rates are told, ms; some less right after a step.
const RATES_OVER_MS: i64 = 60_000;

/// Steps that make up that time.
const RATE_STEPS: usize = 12;

/// Length of a step, ms.
const RATE_STEP_MS: i64 = RATES_OVER_MS / RATE_STEPS as i64;

/// A queue at one moment.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct QueueStats {
    /// Its messages.
    pub counts: QueueCounts,
    /// Those that nobody could deal with, and that have not been moved yet.
    pub dead: i64,
    /// Timestamp of the oldest message that is not done; `None` if there is none.
    pub oldest_ms: Option<TimestampMs>,
    /// Messages that its dead letter queue holds, wherever they come from; `None` if it has no such queue.
    pub dead_letters: Option<i64>,
    /// Receivers that wait.
    pub receivers: usize,
    /// Messages handed out a second, over about the last minute.
    pub receive_rate: f64,
    /// Those of them that had been handed out before.
    pub retry_rate: f64,
}

/// What was handed out in one step of time.
#[derive(Clone, Copy, Default, Debug)]
struct Step {
    /// Which, from the epoch on.
    number: i64,
    received: u64,
    redelivered: u64,
}

/// What was handed out of late, in steps of time.
#[derive(Default, Debug)]
pub(super) struct Rates {
    steps: [Step; RATE_STEPS],
    since_ms: Option<TimestampMs>,
}

impl Rates {
    /// Records were handed out.
    pub(super) fn add(&mut self, now: TimestampMs, ranges: &[Range]) {
        self.since_ms.get_or_insert(now);
        let number = now.div_euclid(RATE_STEP_MS);
        let step = &mut self.steps[number.rem_euclid(RATE_STEPS as i64) as usize];
        if step.number != number {
            *step = Step { number, ..Step::default() };
        }
        for range in ranges {
            let records = range.last.abs_diff(range.first) + 1;
            step.received += records;
            step.redelivered += if range.deliveries > 1 { records } else { 0 };
        }
    }

    /// Records a second: all, and those that had been handed out before.
    pub(super) fn per_second(&self, now: TimestampMs) -> (f64, f64) {
        let Some(since) = self.since_ms else { return (0.0, 0.0) };
        let oldest = now.div_euclid(RATE_STEP_MS) - (RATE_STEPS as i64 - 1);
        let from = since.max(oldest * RATE_STEP_MS);
        // What came just now has not come at once.
        let seconds = now.saturating_sub(from).max(1_000) as f64 / 1e3;
        let recent = || self.steps.iter().filter(|step| step.number >= oldest);
        let received: u64 = recent().map(|step| step.received).sum();
        let redelivered: u64 = recent().map(|step| step.redelivered).sum();
        (received as f64 / seconds, redelivered as f64 / seconds)
    }
}

impl QueueDoor {
    /// What there is to know of a queue now. Looks at all that nobody has looked at yet.
    ///
    /// # Errors
    /// No such queue, or one that cannot say now.
    pub async fn stats(&self, name: &str) -> Result<QueueStats, QueueRefusal> {
        let (topic, config) = self.topic(name)?;
        let desk = self.desk(&topic);
        let (receive_rate, retry_rate) = desk.rates.lock().per_second(self.now_ms());
        let receivers = desk.receivers();
        let mut stats = QueueStats { receivers, receive_rate, retry_rate, ..QueueStats::default() };
        stats.dead_letters = match &config.dead_letter_queue {
            // It need not be there yet.
            Some(letters) => self.messages(letters).await?,
            None => None,
        };
        for station in &desk.stations {
            let counts = match station.counts(self, &config).await {
                Err(error) if desk.is_gone(station, &error) => continue,
                counts => counts?,
            };
            stats.counts.ready += counts.ready;
            stats.counts.in_flight += counts.leased;
            stats.counts.delayed += counts.waiting;
            stats.dead += counts.dead;
            if counts.ready + counts.leased + counts.waiting + counts.dead == 0 {
                continue;
            }
            let progress = self.0.queues.describe(&station.key).await?;
            let start = progress.map_or(0, |progress| progress.start);
            // At the window's start stands one that is not done.
            let oldest = station.records_at(self, &[start]).await?;
            let oldest = oldest.first().map(|record| record.timestamp);
            stats.oldest_ms = [stats.oldest_ms, oldest].into_iter().flatten().min();
        }
        Ok(stats)
    }

    /// How many messages a queue holds; `None` if there is none of that name.
    async fn messages(&self, name: &str) -> Result<Option<i64>, QueueRefusal> {
        let Ok((topic, config)) = self.topic(name) else { return Ok(None) };
        let mut messages = 0;
        let desk = self.desk(&topic);
        for station in &desk.stations {
            let counts = match station.counts(self, &config).await {
                Err(error) if desk.is_gone(station, &error) => continue,
                counts => counts?,
            };
            messages += counts.ready + counts.leased + counts.waiting;
        }
        Ok(Some(messages))
    }

    /// What has been counted of a queue since the broker began to serve it.
    ///
    /// # Errors
    /// No such queue.
    pub fn counters(&self, name: &str) -> Result<Arc<QueueCounters>, QueueRefusal> {
        let (topic, _) = self.topic(name)?;
        Ok(Arc::clone(&self.desk(&topic).counters))
    }
}

impl Station {
    /// The messages of a partition by their state. Nothing is handed out, but all there is is shown to the engine; what it cannot
    /// take in, since it knows of so many, counts as ready.
    pub(super) async fn counts(
        &self,
        door: &QueueDoor,
        config: &QueueConfig,
    ) -> Result<Counts, QueueRefusal> {
        let taken = self.take(door, config, 0, 0, None).await?;
        let beyond = match taken.is_full {
            true => (self.partition.offsets()?.high_watermark - taken.end).max(0),
            false => 0,
        };
        Ok(Counts { ready: taken.counts.ready + beyond, ..taken.counts })
    }
}

/// The time between two moments of a queue's clock.
pub(super) fn between(from: TimestampMs, to: TimestampMs) -> Duration {
    Duration::from_millis(u64::try_from(to.saturating_sub(from)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_last_minute_and_of_less_while_there_is_no_more() {
        let (mut rates, now) = (Rates::default(), 1_000_000_000);
        assert_eq!(rates.per_second(now), (0.0, 0.0));
        let range = |deliveries| Range { first: 1, last: 10, deliveries };
        rates.add(now, &[range(1), range(2)]);
        assert_eq!(rates.per_second(now), (20.0, 10.0), "in a second at least");
        assert_eq!(rates.per_second(now + 10_000), (2.0, 1.0));
        rates.add(now + 50_000, &[range(1)]);
        assert_eq!(rates.per_second(now + 50_000), (30.0 / 50.0, 0.2));
        let (received, redelivered) = rates.per_second(now + 70_000);
        assert!((0.1..0.2).contains(&received) && redelivered == 0.0, "{received} {redelivered}");
        assert_eq!(rates.per_second(now + 200_000), (0.0, 0.0));
    }
}
