//! Long polling without polling: who waits for something new leaves a [`Waiter`] with the partitions that may have it.
//!
//! A small batch that is appended meanwhile stays in memory for as long as anybody waits: who is woken by it need not read it
//! from its file.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::record::ValidBatch;
use crate::record::range::RangeFile;

/// Largest batch that is kept for who waits: copying it costs less than a read, and a thousand of them take 4 MiB.
pub(super) const HANDED_BYTES_MAX: usize = 4 << 10;

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
    /// The last small batch that was appended while anybody waited.
    handed: Option<Arc<Handed>>,
}

/// A batch in memory: a piece of its segment's file, whose positions it has.
#[derive(Debug)]
pub(super) struct Handed {
    /// Base offset of the segment.
    segment: i64,
    position: u64,
    bytes: Bytes,
}

impl Handed {
    fn holds(&self, segment: i64, position: u64, length: usize) -> bool {
        self.segment == segment && self.position == position && length <= self.bytes.len()
    }
}

impl RangeFile for Handed {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let from = position.checked_sub(self.position).and_then(|from| usize::try_from(from).ok());
        let rest = from.and_then(|from| self.bytes.get(from..)).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.read_at(buffer, position)
    }

    fn is_cached(&self, _position: u64, _length: usize) -> bool {
        true
    }
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

    /// Keeps a batch in memory that was appended at `position` of a segment, if it is small and anybody waits. In any case what was
    /// kept before is no longer the last one.
    pub(super) fn hand(&self, segment: i64, position: u64, batch: &ValidBatch) {
        if !self.is_anyone_here() {
            return;
        }
        let is_small = batch.size_bytes() <= HANDED_BYTES_MAX;
        let handed = is_small.then(|| Arc::new(Handed { segment, position, bytes: batch.to_bytes() }));
        let mut slots = self.slots.lock();
        // Whoever has left since would not come back to take it away.
        slots.handed = handed.filter(|_| slots.free.len() < slots.waiters.len());
    }

    /// What was handed over, if it is what lies at `position` of the active segment, `length` bytes or more.
    pub(super) fn handed(&self, segment: i64, position: u64, length: usize) -> Option<Arc<Handed>> {
        if !self.is_anyone_here() {
            return None;
        }
        self.slots.lock().handed.clone().filter(|handed| handed.holds(segment, position, length))
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
            // A crowd that has left leaves no memory behind, nor what was kept for it.
            *slots = Slots::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::fixture::builder;

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
    fn a_small_batch_is_kept_while_anybody_waits() {
        let waiters = Arc::new(Waiters::default());
        let small = builder(1, HANDED_BYTES_MAX - 80).build_valid();
        let length = small.size_bytes();
        waiters.hand(7, 40, &small);
        let both = [(); 2].map(|()| waiters.subscribe(&Waiter::new()));
        assert!(waiters.handed(7, 40, 1).is_none(), "nobody waited");
        waiters.hand(7, 40, &small);
        waiters.hand(7, 5000, &builder(1, HANDED_BYTES_MAX).build_valid());
        assert!(waiters.handed(7, 40, length).is_none(), "it is not the last any more");
        waiters.hand(7, 40, &small);
        for (segment, position, wanted) in [(8, 40, 1), (7, 41, 1), (7, 40, length + 1), (7, 5000, 1)] {
            assert!(waiters.handed(segment, position, wanted).is_none());
        }
        let [first, second] = both;
        drop(first);
        let handed = waiters.handed(7, 40, length).unwrap();
        let mut bytes = vec![0; length + 1];
        assert_eq!(handed.read_at(&mut bytes, 40).unwrap(), length);
        assert_eq!(bytes[..length], small.to_bytes()[..]);
        assert_eq!(handed.read_cached_at(&mut bytes, 40 + length as u64 - 1).unwrap(), 1);
        assert_eq!(
            (handed.read_at(&mut bytes, 39).unwrap(), handed.read_at(&mut bytes, 9999).unwrap()),
            (0, 0)
        );
        drop(second);
        assert!(waiters.slots.lock().handed.is_none());
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
