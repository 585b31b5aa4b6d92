//! ReceiveRequestAttemptId: who does not get the answer of a receive asks again by the same id and gets the same messages, with
//! the same handles and their time anew, unless one of them was deleted or taken meanwhile.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::error::SqsError;
use crate::clock::TimestampMs;
use crate::operations::{Delivery, Queue, QueueDoor};
use crate::queue::Settlement;
use crate::uuid::Uuid;

/// How long an attempt can be repeated, ms.
const REMEMBERED_MS: i64 = 5 * 60 * 1000;

/// Attempts that are remembered, the youngest.
const ATTEMPTS_MAX: usize = 1000;

/// Bytes of the bodies that are remembered.
const BYTES_MAX: usize = 16 << 20;

/// The attempts of the last minutes, the oldest first.
#[derive(Default)]
pub(super) struct Attempts(Mutex<VecDeque<Attempt>>);

struct Attempt {
    topic_id: Uuid,
    id: String,
    deliveries: Vec<Delivery>,
    received_ms: TimestampMs,
}

impl Attempt {
    fn bytes(&self) -> usize {
        self.deliveries.iter().map(|delivery| delivery.body.len()).sum()
    }
}

impl Attempts {
    /// Keeps what a receive has given. Nothing received is nothing to repeat.
    pub(super) fn remember(&self, queue: &Queue, id: &str, deliveries: &[Delivery], now_ms: TimestampMs) {
        if deliveries.is_empty() {
            return;
        }
        let mut attempts = self.0.lock();
        attempts.push_back(Attempt {
            topic_id: queue.topic_id,
            id: id.to_owned(),
            deliveries: deliveries.to_vec(),
            received_ms: now_ms,
        });
        let mut bytes: usize = attempts.iter().map(Attempt::bytes).sum();
        while let Some(oldest) = attempts.front() {
            let is_old = now_ms - oldest.received_ms > REMEMBERED_MS;
            if !is_old && attempts.len() <= ATTEMPTS_MAX && bytes <= BYTES_MAX {
                break;
            }
            bytes -= oldest.bytes();
            attempts.pop_front();
        }
    }

    /// What the attempt of that id has been given and when, if all of it is still its own.
    pub(super) async fn repeat(
        &self,
        door: &QueueDoor,
        queue: &Queue,
        id: &str,
        visibility_ms: i64,
    ) -> Result<Option<(Vec<Delivery>, TimestampMs)>, SqsError> {
        let now = door.now_ms();
        let found = {
            let attempts = self.0.lock();
            let is_it = |attempt: &&Attempt| {
                attempt.topic_id == queue.topic_id
                    && attempt.id == id
                    && now - attempt.received_ms <= REMEMBERED_MS
            };
            attempts.iter().rev().find(is_it).map(|found| (found.deliveries.clone(), found.received_ms))
        };
        let Some((deliveries, received_ms)) = found else { return Ok(None) };
        let extended = deliveries
            .iter()
            .map(|delivery| (delivery.receipt, Settlement::Extend { for_ms: visibility_ms }))
            .collect();
        let is_whole = door.settle(&queue.name, extended).await?.iter().all(Result::is_ok);
        if !is_whole {
            self.0.lock().retain(|attempt| !(attempt.topic_id == queue.topic_id && attempt.id == id));
        }
        Ok(is_whole.then_some((deliveries, received_ms)))
    }
}
