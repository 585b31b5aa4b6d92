//! Group commit: a queue of partitions to sync, and the threads that do it. However much was appended to a partition while it
//! waited its turn, one sync makes it durable.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::partition::Partition;

/// Partitions that wait for a syncing thread, each at most once.
#[derive(Debug, Default)]
pub struct SyncQueue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Arc<Partition>>,
    stopped: bool,
}

impl SyncQueue {
    /// Adds a partition; after [`Self::stop`] it is dropped.
    pub fn push(&self, partition: Arc<Partition>) {
        let mut state = self.state.lock();
        if !state.stopped {
            state.queue.push_back(partition);
            self.changed.notify_one();
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.state.lock().queue.len()
    }

    /// Ends the threads after what they are at; what still waits is dropped.
    pub fn stop(&self) {
        let dropped = {
            let mut state = self.state.lock();
            state.stopped = true;
            std::mem::take(&mut state.queue)
        };
        self.changed.notify_all();
        drop(dropped);
    }

    /// What a syncing thread does until [`Self::stop`].
    pub fn work(&self) {
        while let Some(partition) = self.next() {
            partition.sync();
        }
    }

    /// The same once, for the partition that has waited longest; whether there was one.
    #[cfg(test)]
    pub fn work_once(&self) -> bool {
        let next = self.state.lock().queue.pop_front();
        next.inspect(|partition| partition.sync()).is_some()
    }

    fn next(&self) -> Option<Arc<Partition>> {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return None;
            }
            if let Some(partition) = state.queue.pop_front() {
                return Some(partition);
            }
            self.changed.wait(&mut state);
        }
    }
}
