//! What operators want to know of a queue.

use std::sync::Arc;
use std::time::Duration;

use super::{QueueCounts, QueueDoor, QueueRefusal};
use crate::clock::TimestampMs;
use crate::telemetry::QueueCounters;

/// A queue at one moment.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct QueueStats {
    /// Its messages.
    pub counts: QueueCounts,
    /// Those that nobody could deal with, and that have not been moved yet.
    pub dead: i64,
    /// Timestamp of the oldest message that is not done; `None` if there is none.
    pub oldest_ms: Option<TimestampMs>,
    /// Receivers that wait.
    pub receivers: usize,
}

impl QueueDoor {
    /// What there is to know of a queue now. Looks at all that nobody has looked at yet.
    ///
    /// # Errors
    /// No such queue, or one that cannot say now.
    pub async fn stats(&self, name: &str) -> Result<QueueStats, QueueRefusal> {
        let (topic, config) = self.topic(name)?;
        let desk = self.desk(&topic);
        let mut stats = QueueStats { receivers: desk.receivers(), ..QueueStats::default() };
        for station in &desk.stations {
            // Nothing is handed out, but all there is is shown to the engine.
            let counts = match station.take(self, &config, 0, 0, None).await {
                Err(error) if desk.is_gone(station, &error) => continue,
                taken => taken?.counts,
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

    /// What has been counted of a queue since the broker began to serve it.
    ///
    /// # Errors
    /// No such queue.
    pub fn counters(&self, name: &str) -> Result<Arc<QueueCounters>, QueueRefusal> {
        let (topic, _) = self.topic(name)?;
        Ok(Arc::clone(&self.desk(&topic).counters))
    }
}

/// The time between two moments of a queue's clock.
pub(super) fn between(from: TimestampMs, to: TimestampMs) -> Duration {
    Duration::from_millis(u64::try_from(to.saturating_sub(from)).unwrap_or_default())
}
