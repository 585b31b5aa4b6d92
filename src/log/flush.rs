//! Group commit: a queue of partitions to sync, and the threads that do it. However much was appended to a partition while it
//! waited its turn, one sync makes it durable; and one write of the commit journal does so for all that wait.

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
    /// Of these the journal may take what they have.
    queue: Vec<Arc<Partition>>,
    /// The files of these must be synced.
    files: VecDeque<Arc<Partition>>,
    /// Whether a thread is at the journal.
    committing: bool,
    stopped: bool,
}

impl State {
    /// What there is to do now.
    fn turn(&mut self) -> Option<Turn> {
        // First what the journal could not take: more of the other comes all the time.
        if let Some(partition) = self.files.pop_front() {
            return Some(Turn::Files(partition));
        }
        (!self.committing && !self.queue.is_empty()).then(|| {
            self.committing = true;
            Turn::Commit(std::mem::take(&mut self.queue))
        })
    }
}

/// What a syncing thread does next.
#[derive(Debug)]
pub enum Turn {
    /// Commit these by the journal, and then call [`SyncQueue::committed`]. No other thread does so meanwhile.
    Commit(Vec<Arc<Partition>>),
    /// Sync the files of this one.
    Files(Arc<Partition>),
}

impl SyncQueue {
    /// Adds a partition; after [`Self::stop`] it is dropped.
    pub fn push(&self, partition: Arc<Partition>) {
        let mut state = self.state.lock();
        if !state.stopped {
            state.queue.push(partition);
            if !state.committing {
                self.changed.notify_one();
            }
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        let state = self.state.lock();
        state.queue.len() + state.files.len()
    }

    /// Ends the threads after what they are at; what still waits is dropped.
    pub fn stop(&self) {
        let dropped = {
            let mut state = self.state.lock();
            state.stopped = true;
            (std::mem::take(&mut state.queue), std::mem::take(&mut state.files))
        };
        self.changed.notify_all();
        drop(dropped);
    }

    /// What the calling thread has to do; blocks until there is something, `None` after [`Self::stop`].
    pub fn next(&self) -> Option<Turn> {
        let mut state = self.state.lock();
        loop {
            if let Some(turn) = state.turn() {
                return Some(turn);
            }
            if state.stopped {
                return None;
            }
            self.changed.wait(&mut state);
        }
    }

    /// The same without waiting.
    #[cfg(test)]
    pub fn next_now(&self) -> Option<Turn> {
        self.state.lock().turn()
    }

    /// The journal has been written, without `rest`. The caller comes back for the next turn.
    pub fn committed(&self, rest: Vec<Arc<Partition>>) {
        let mut state = self.state.lock();
        state.committing = false;
        if state.stopped {
            return;
        }
        let turns = rest.len() + usize::from(!state.queue.is_empty());
        state.files.extend(rest);
        drop(state);
        for _ in 1..turns {
            self.changed.notify_one();
        }
    }
}
