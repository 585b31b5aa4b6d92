//! How far the recovery of a directory is: a line every few seconds while it takes long, and one at its end.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::Scope;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// What has been recovered so far.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of logs that were read again.
    pub checked_bytes: AtomicU64,
    partitions: AtomicUsize,
    done: AtomicUsize,
    over: Mutex<bool>,
    changed: Condvar,
}

/// Ends the lines when dropped.
pub struct Over<'p>(&'p Progress);

impl Progress {
    /// Of so many partitions none is done.
    pub fn begin(&self, partitions: usize) {
        self.partitions.store(partitions, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
        self.checked_bytes.store(0, Ordering::Relaxed);
        *self.over.lock() = false;
    }

    /// So many more are.
    pub fn done(&self, partitions: usize) {
        self.done.fetch_add(partitions, Ordering::Relaxed);
    }

    /// Logs a line at every interval, and one at the end, until what is returned is dropped.
    pub fn tell_every<'s, 'e>(&'s self, interval: Duration, scope: &'s Scope<'s, 'e>) -> Over<'s> {
        scope.spawn(move || {
            let began = Instant::now();
            let mut next = began + interval;
            let mut over = self.over.lock();
            while !*over {
                if self.changed.wait_until(&mut over, next).timed_out() {
                    self.tell(began.elapsed(), "recovering");
                    next += interval;
                }
            }
            self.tell(began.elapsed(), "recovered");
        });
        Over(self)
    }

    fn tell(&self, elapsed: Duration, what: &str) {
        let checked_bytes = self.checked_bytes.load(Ordering::Relaxed);
        tracing::info!(
            partitions = self.done.load(Ordering::Relaxed),
            of = self.partitions.load(Ordering::Relaxed),
            checked_bytes,
            mb_per_s = (checked_bytes as f64 / 1e6 / elapsed.as_secs_f64().max(1e-3)) as u64,
            elapsed_ms = elapsed.as_millis() as u64,
            "{what}"
        );
    }
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        *self.0.over.lock() = true;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn telling_ends_with_what_it_tells_of() {
        let progress = Progress::default();
        progress.begin(3);
        std::thread::scope(|scope| {
            let over = progress.tell_every(Duration::from_millis(1), scope);
            progress.done(2);
            drop(over);
        });
        assert!(*progress.over.lock());
        assert_eq!(progress.done.load(Ordering::Relaxed), 2);
    }
}
