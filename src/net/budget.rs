//! The memory that requests in flight may take together: `queued.max.request.bytes`.
//!
//! Each connection has [`FREE_BYTES`] of its own; what goes beyond waits, with its socket unread, until the budget has
//! room for all of it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of requests that a connection may have in flight without asking: their sum is bounded by the number of
/// connections, and small requests pass however much the large ones hold.
pub const FREE_BYTES: usize = 64 << 10;

/// A pool of bytes shared by all connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Budget {
    bytes: Arc<Semaphore>,
    total: u32,
}

/// A part of the budget, given back when dropped.
#[derive(Debug, Default)]
pub struct Share {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Budget {
    /// A budget of `total` bytes (at most 4 GiB are ever useful: a frame is below 2 GiB).
    pub fn new(total: usize) -> Self {
        let total = u32::try_from(total).unwrap_or(u32::MAX);
        Self { bytes: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// Waits until a frame of `bytes` fits, in the order of asking. A frame larger than the whole budget waits for all of
    /// it, so that it passes alone rather than never.
    pub async fn share(&self, bytes: usize) -> Share {
        let permit = Arc::clone(&self.bytes).acquire_many_owned(self.capped(bytes)).await;
        Share { _permit: Some(permit.expect("the budget is never closed")) }
    }

    /// A share at once, or none.
    pub fn try_share(&self, bytes: usize) -> Option<Share> {
        let permit = Arc::clone(&self.bytes).try_acquire_many_owned(self.capped(bytes)).ok()?;
        Some(Share { _permit: Some(permit) })
    }

    fn capped(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.total)
    }

    /// All bytes of the budget.
    pub fn total(&self) -> usize {
        self.total as usize
    }

    /// Bytes of the budget in use.
    pub fn used(&self) -> usize {
        self.total as usize - self.bytes.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_fit_waits_and_what_is_larger_than_all_passes_alone() {
        let budget = Budget::new(1 << 20);
        let first = budget.share(1 << 20).await;
        assert_eq!(budget.used(), 1 << 20);
        assert!(budget.try_share(1).is_none());
        let mut second = std::pin::pin!(budget.share(5 << 20));
        tokio::select! {
            biased;
            _ = &mut second => panic!("the budget is used up"),
            () = tokio::task::yield_now() => {}
        }
        drop(first);
        let _second = second.await;
        assert_eq!(budget.used(), 1 << 20);
    }
}
