//! Long polling without polling: who waits for something new leaves a [`Waiter`] with the partitions that may have it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// One who waits, for any number of partitions at once.
///
/// The first event after [`Waiter::wait`] returned (or after it was made) wakes it; later ones cost nothing until it waits again.
/// Look at the partitions after subscribing, and again after each wake-up: what changed in between is never missed.
#[derive(Debug, Default)]
pub struct Waiter {
    woken: AtomicBool,
    notify: Notify,
}

impl Waiter {
    /// A waiter that is in no list yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Returns after the next event, at once if there was one since the last return. One task waits at a time.
    pub async fn wait(&self) {
        self.notify.notified().await;
        self.woken.store(false, Ordering::SeqCst);
    }

    /// Wakes who waits; from outside too, for instance at a shutdown.
    pub fn wake(&self) {
        if !self.woken.swap(true, Ordering::SeqCst) {
            self.notify.notify_one();
        }
    }
}

/// The waiters of one partition.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    /// How many there are, readable without the lock: an append that nobody waits for pays one load.
    count: AtomicUsize,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    waiters: Vec<Option<Arc<Waiter>>>,
    free: Vec<usize>,
}

impl Waiters {
    pub(super) fn subscribe(self: &Arc<Self>, waiter: &Arc<Waiter>) -> Subscription {
        let mut slots = self.slots.lock();
        let slot = slots.free.pop().unwrap_or_else(|| {
            slots.waiters.push(None);
            slots.waiters.len() - 1
        });
        slots.waiters[slot] = Some(Arc::clone(waiter));
        self.count.fetch_add(1, Ordering::SeqCst);
        Subscription { waiters: Arc::clone(self), slot }
    }

    /// Whether there is anyone to wake.
    pub(super) fn is_anyone_here(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    pub(super) fn wake_all(&self) {
        // Sequentially consistent with `subscribe`: either the waiter is seen here, or it subscribed after the change was
        // published and sees that when it looks.
        if self.count.load(Ordering::SeqCst) > 0 {
            self.slots.lock().waiters.iter().flatten().for_each(|waiter| waiter.wake());
        }
    }
}

/// A waiter's place in a partition's list; dropping it leaves the list.
#[derive(Debug)]
#[must_use = "dropping it unsubscribes"]
pub struct Subscription {
    waiters: Arc<Waiters>,
    slot: usize,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut slots = self.waiters.slots.lock();
        slots.waiters[self.slot] = None;
        slots.free.push(self.slot);
        self.waiters.count.fetch_sub(1, Ordering::SeqCst);
        if slots.free.len() == slots.waiters.len() {
            // A crowd that has left leaves no memory behind.
            *slots = Slots::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn woken(waiter: &Waiter) -> bool {
        use std::future::Future;
        use std::pin::pin;
        use std::task::{Context, Poll};
        let mut context = Context::from_waker(std::task::Waker::noop());
        pin!(waiter.wait()).poll(&mut context) == Poll::Ready(())
    }

    #[test]
    fn a_waiter_is_woken_once_until_it_waits_again() {
        let waiters = Arc::new(Waiters::default());
        let waiter = Waiter::new();
        let _subscription = waiters.subscribe(&waiter);
        assert!(!woken(&waiter));
        waiters.wake_all();
        waiters.wake_all();
        assert!(woken(&waiter));
        assert!(!woken(&waiter));
        waiters.wake_all();
        assert!(woken(&waiter));
    }

    #[test]
    fn one_waiter_serves_many_partitions_and_leaves_each_by_itself() {
        let partitions: Vec<_> = (0..3).map(|_| Arc::new(Waiters::default())).collect();
        let waiter = Waiter::new();
        let mut subscriptions: Vec<_> =
            partitions.iter().map(|partition| partition.subscribe(&waiter)).collect();
        drop(subscriptions.remove(0));
        partitions[0].wake_all();
        assert!(!woken(&waiter));
        partitions[2].wake_all();
        assert!(woken(&waiter));
    }

    #[test]
    fn places_are_reused_and_given_back() {
        let waiters = Arc::new(Waiters::default());
        let first = waiters.subscribe(&Waiter::new());
        let second = waiters.subscribe(&Waiter::new());
        drop(first);
        let third = waiters.subscribe(&Waiter::new());
        assert_eq!(waiters.slots.lock().waiters.len(), 2);
        drop((second, third));
        assert_eq!(waiters.slots.lock().waiters.len(), 0);
        assert_eq!(waiters.count.load(Ordering::SeqCst), 0);
    }
}
