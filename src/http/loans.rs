//! What one connection has received and not settled. Of queues that want that (`lease.ends.with.connection`) it is given back when
//! the client is gone, unless somebody else has spoken of it: a client may have several connections.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::debug;

use crate::clock::TimestampMs;
use crate::operations::{Delivery, QueueDoor, Receipt};
use crate::queue::Settlement;

/// Loans that a connection may have before it is looked for those that are over.
const LOOKED_THROUGH_FROM: usize = 1_024;

/// The loans of a connection. There are at most about twice as many as it has messages in flight.
#[derive(Default)]
pub(super) struct Loans(Mutex<Held>);

struct Loan {
    queue: Arc<str>,
    /// Until when: that is one of these times.
    until: RangeInclusive<TimestampMs>,
}

/// When a time ends that began at one of these.
fn ends(began: &RangeInclusive<TimestampMs>, after_ms: i64) -> RangeInclusive<TimestampMs> {
    began.start().saturating_add(after_ms)..=began.end().saturating_add(after_ms)
}

#[derive(Default)]
struct Held {
    loans: HashMap<Receipt, Loan>,
    look_through_at: usize,
}

impl Loans {
    /// The connection has got something of a queue.
    pub(super) fn lent(&self, queue: &Arc<str>, delivery: &Delivery, now: TimestampMs) {
        let mut held = self.0.lock();
        if held.loans.len() >= held.look_through_at.max(LOOKED_THROUGH_FROM) {
            held.loans.retain(|_, loan| *loan.until.end() > now);
            held.look_through_at = 2 * held.loans.len();
        }
        let loan = Loan { queue: Arc::clone(queue), until: delivery.lease_ends_ms.clone() };
        held.loans.insert(delivery.receipt, loan);
    }

    /// Somebody has said over the connection, at one of these times, what becomes of something.
    pub(super) fn settled(&self, receipt: Receipt, what: Settlement, said: &RangeInclusive<TimestampMs>) {
        let mut held = self.0.lock();
        match what {
            Settlement::Extend { for_ms } if for_ms > 0 => {
                if let Some(loan) = held.loans.get_mut(&receipt) {
                    loan.until = ends(said, for_ms);
                }
            }
            _ => drop(held.loans.remove(&receipt)),
        }
    }

    /// The client is gone: what it had comes back by its queue's backoff.
    pub(super) async fn give_back(self, door: &QueueDoor) {
        let mut by_queue: HashMap<Arc<str>, Vec<_>> = HashMap::new();
        for (receipt, Loan { queue, until }) in self.0.into_inner().loans {
            let (from_ms, to_ms) = until.into_inner();
            by_queue.entry(queue).or_default().push((receipt, Settlement::Abandon { from_ms, to_ms }));
        }
        for (queue, receipts) in by_queue {
            // Those that are worth nothing any more were settled elsewhere, or taken by others since.
            if let Err(error) = door.settle(&queue, receipts).await {
                debug!(queue = &*queue, %error, "what a client left behind comes back when its leases end");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::uuid::Uuid;

    #[test]
    fn a_connection_remembers_what_is_lent_and_no_more() {
        let (loans, queue) = (Loans::default(), Arc::from("q"));
        let id = Uuid([1; 16]);
        let receipt = |offset| Receipt { queue_id: id, topic_id: id, partition: 0, offset, deliveries: 1 };
        let known = |loans: &Loans| loans.0.lock().loans.len();
        let delivery = |offset, until| Delivery {
            receipt: receipt(offset),
            message_id: String::new(),
            body: Bytes::new(),
            key: None,
            headers: Vec::new(),
            sent_ms: 0,
            first_received_ms: 0,
            deliveries: 1,
            lease_ends_ms: until..=until,
        };
        (0..2_000).for_each(|at| loans.lent(&queue, &delivery(at, 10 + at), 0));
        assert_eq!(known(&loans), 2_000, "all are lent");
        (2_000..4_000).for_each(|at| loans.lent(&queue, &delivery(at, at + 10), at));
        assert!(known(&loans) < 2_100, "{}", known(&loans));
        let said = 4_000..=4_003;
        loans.settled(receipt(3_999), Settlement::Done, &said);
        loans.settled(receipt(3_998), Settlement::Extend { for_ms: 5_000 }, &said);
        loans.settled(receipt(3_997), Settlement::Extend { for_ms: 0 }, &said);
        let held = loans.0.lock();
        assert_eq!(held.loans.get(&receipt(3_998)).map(|loan| loan.until.clone()), Some(9_000..=9_003));
        assert!([3_997, 3_999].iter().all(|at| !held.loans.contains_key(&receipt(*at))));
    }
}
