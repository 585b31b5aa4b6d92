//! How much a queue may hold, and what gives way when it holds more.

use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;
use tracing::debug;

use super::desk::Desk;
use super::{QueueDoor, QueueRefusal};
use crate::catalog::Topic;
use crate::catalog::queue_config::{Overflow, QueueConfig};
use crate::queue::Dead;

/// Messages that give way at a time.
const DROPPED_TOGETHER: i64 = 1_000;

/// Leave to append to a queue that refuses what is too much.
pub struct Admission {
    /// How many messages more there may be.
    pub room: i64,
    _alone: OwnedMutexGuard<()>,
}

/// What a queue holds.
#[derive(Clone, Copy, Default)]
struct Load {
    messages: i64,
    /// Of the log, about.
    bytes: i64,
}

impl Load {
    /// How many messages more there may be: none when one of the limits is reached.
    fn room(self, config: &QueueConfig) -> i64 {
        let is_heavy = config.max_bytes.is_some_and(|max| self.bytes >= max);
        let room = config.max_messages.map_or(i64::MAX, |max| max - self.messages);
        if is_heavy { 0 } else { room.max(0) }
    }

    /// How many messages are too many.
    fn excess(self, config: &QueueConfig) -> i64 {
        let messages = config.max_messages.map_or(0, |max| self.messages - max);
        let is_too_heavy = config.max_bytes.is_some_and(|max| self.bytes > max);
        messages.max(i64::from(is_too_heavy))
    }
}

fn is_limited(config: &QueueConfig) -> bool {
    config.max_messages.is_some() || config.max_bytes.is_some()
}

impl QueueDoor {
    /// How many messages the queue of a topic takes before it refuses more; `None` if it never does. Others that ask wait until what
    /// comes of it is dropped: by then, what was admitted is to be in the log.
    ///
    /// # Errors
    /// A queue that cannot say now.
    pub async fn admit(&self, topic: &Arc<Topic>) -> Result<Option<Admission>, QueueRefusal> {
        let limited = topic.queue.as_ref().filter(|config| is_limited(config));
        let Some(config) = limited.filter(|config| config.overflow == Overflow::Reject) else {
            return Ok(None);
        };
        let desk = self.desk(topic);
        let alone = Arc::clone(&desk.admission).lock_owned().await;
        let load = self.load(&desk, config).await?;
        Ok(Some(Admission { room: load.room(config), _alone: alone }))
    }

    /// Something was sent to a topic: the oldest messages of the queues that read it give way, where that is how they keep their
    /// limits. If they cannot just now, they do after the next one.
    pub async fn make_way(&self, topic: &Arc<Topic>) {
        self.make_way_in(topic).await;
        for reader in self.0.catalog.readers(topic.id) {
            self.make_way_in(&reader).await;
        }
    }

    async fn make_way_in(&self, topic: &Arc<Topic>) {
        let limited = topic.queue.as_ref().filter(|config| is_limited(config));
        let Some(config) = limited.filter(|config| config.overflow != Overflow::Reject) else { return };
        let (door, desk, config) = (self.clone(), self.desk(topic), Arc::clone(config));
        // To its end, even if who has sent is gone by then.
        let dropping = tokio::spawn(async move {
            if let Err(error) = door.drop_excess(&desk, &config).await {
                debug!(queue = &*desk.topic.name, %error, "a queue holds more than it may");
            }
        });
        // It only fails with the process.
        drop(dropping.await);
    }

    async fn drop_excess(&self, desk: &Arc<Desk>, config: &Arc<QueueConfig>) -> Result<(), QueueRefusal> {
        let _giving_way = desk.giving_way.lock().await;
        loop {
            let excess = self.load(desk, config).await?.excess(config);
            if excess <= 0 || !self.drop_oldest(desk, config, excess).await? {
                return Ok(());
            }
        }
    }

    async fn load(&self, desk: &Desk, config: &QueueConfig) -> Result<Load, QueueRefusal> {
        let mut load = Load::default();
        for station in &desk.stations {
            let seen = match station.take(self, config, 0, 0, None).await {
                Err(error) if desk.is_gone(station, &error) => continue,
                taken => taken?,
            };
            let counts = seen.counts;
            let offsets = station.partition.offsets()?;
            // What came since, or is on its way to the disk, counts already.
            load.messages += counts.ready + counts.leased + counts.waiting;
            load.messages += (offsets.log_end_offset - seen.end.max(seen.window_end)).max(0);
            if config.max_bytes.is_some() {
                let progress = self.0.queues.describe(&station.key).await?;
                let from = progress.map_or(offsets.log_start_offset, |progress| progress.start);
                let from = from.max(offsets.log_start_offset);
                let bytes = station.partition.available_bytes(from);
                // What is done behind one that is not counts no more: about as much as its share of the records.
                let (live, all) =
                    (counts.ready + counts.leased + counts.waiting, offsets.high_watermark - from);
                if all > 0 && bytes < u64::MAX {
                    load.bytes += (bytes as f64 * (live as f64 / all as f64).min(1.0)) as i64;
                }
            }
        }
        Ok(load)
    }

    /// Drops about so many of those that could be received, the oldest of the lowest priority first. Whether there were any: what is in flight or delayed stays.
    async fn drop_oldest(
        &self,
        desk: &Arc<Desk>,
        config: &Arc<QueueConfig>,
        excess: i64,
    ) -> Result<bool, QueueRefusal> {
        let dead = match config.overflow {
            Overflow::DeadLetterOldest => Dead::Keep,
            Overflow::DropOldest | Overflow::Reject => Dead::Archive,
        };
        let mut left = excess.min(DROPPED_TOGETHER);
        for station in desk.in_turn() {
            let dropped = match station.give_way(self, config, left, dead).await {
                Err(error) if desk.is_gone(station, &error) => continue,
                taken => taken?,
            };
            let records = dropped.records();
            left -= records;
            desk.counters.dropped.add(records.cast_unsigned());
            if dead == Dead::Keep && records > 0 {
                self.move_dead_letters(desk, station, config);
            }
            if left <= 0 {
                break;
            }
        }
        Ok(left < excess.min(DROPPED_TOGETHER))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::topic_config::Inherited;
    use crate::config::ConfigMap;

    fn config(settings: &[(&str, &str)]) -> QueueConfig {
        let mut all = ConfigMap::from([("ottla.queue.enable".to_owned(), "true".to_owned())]);
        all.extend(settings.iter().map(|(key, value)| (format!("ottla.queue.{key}"), (*value).to_owned())));
        let none = ConfigMap::new();
        QueueConfig::of(&all, &Inherited { dynamic_node: &none, dynamic_default: &none, fixed: &none })
            .unwrap()
    }

    #[test]
    fn either_limit_closes_a_queue_and_what_is_beyond_is_too_much() {
        let both = config(&[("max.messages", "10"), ("max.bytes", "1000")]);
        for (messages, bytes, room, excess) in
            [(0, 0, 10, 0), (9, 999, 1, 0), (10, 10, 0, 0), (12, 10, 0, 2), (3, 1000, 0, 0), (3, 1001, 0, 1)]
        {
            let load = Load { messages, bytes };
            assert_eq!((load.room(&both), load.excess(&both)), (room, excess), "{messages} {bytes}");
        }
        let none = config(&[]);
        assert_eq!(Load { messages: 9, bytes: 9 }.room(&none), i64::MAX);
        assert!(!is_limited(&none) && is_limited(&both));
    }
}
