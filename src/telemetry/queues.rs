//! What is counted of a queue.

use super::{Counter, Histogram};

/// Of one queue, since it was first used.
#[derive(Debug, Default)]
pub struct QueueCounters {
    /// Messages sent through its own doors; what Kafka's producers append is counted with the topic.
    pub sent: Counter,
    /// Messages that were not stored because they repeat others.
    pub duplicates: Counter,
    /// Messages handed out.
    pub received: Counter,
    /// Those of them that had been handed out before.
    pub redelivered: Counter,
    /// Receives that came to nothing.
    pub empty_receives: Counter,
    /// Messages done.
    pub acknowledged: Counter,
    /// Messages given back.
    pub released: Counter,
    /// Messages refused.
    pub rejected: Counter,
    /// Messages moved to the dead letter queue.
    pub dead_lettered: Counter,
    /// Messages sent on to where they came from, or elsewhere.
    pub redriven: Counter,
    /// Messages that gave way to others, or were dropped by what they are.
    pub dropped: Counter,
    /// From when a message was sent, or due, to its first delivery.
    pub wait: Histogram,
    /// From the first delivery of a message to its end.
    pub processing: Histogram,
}
