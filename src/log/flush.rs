//! Group commit: a queue of partitions to sync, and the threads that do it. However much was appended to a partition while it
//! waited its turn, one sync makes it durable; and one write of the commit journal does so for all that wait.
//!
//! Clients that wait for an append come back with the next one when they are answered. So that they share a sync instead of having
//! one for each few, a commit that follows another waits for as many as were there, and for some more to see whether there are
//! more: neither for too many nor long.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::partition::Partition;

/// Appends for which a commit waits at most, if the one before had something of one partition only.
const COMPANY_OF_ONE: u64 = 20;

/// The same for several: then each commit also saves syncs of their files.
const COMPANY: u64 = 40;

/// How long a commit waits at most: for each of those that it waits for, this part of the time that the last one took.
const PATIENCE: u32 = 4;

/// How long it waits in any case at most.
const PATIENCE_MAX: Duration = Duration::from_millis(3);

/// By this part a commit waits for more than there were.
const GROWTH: u64 = 4;

/// Commits without that after one that has waited in vain.
const WARY: u32 = 64;

/// Partitions that wait for a syncing thread, each at most once.
#[derive(Debug, Default)]
pub struct SyncQueue {
    state: Mutex<State>,
    changed: Condvar,
    /// Tells the thread that holds the next commit that all have come.
    company: Condvar,
    /// Appends so far that somebody waits for, or has waited for.
    appends: AtomicU64,
    /// How many there have to be for the next commit.
    goal: AtomicU64,
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
    /// Until when the next commit waits for company.
    hold: Option<Instant>,
    /// Whether a thread sees to that.
    is_held: bool,
    /// Appends when the last commit began, and the one before.
    begun: [u64; 2],
    /// Partitions that the last commit had something of.
    partitions: u64,
    /// Commits that do not wait for more than there were.
    wary: u32,
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
    /// Somebody waits for something that was appended, to a partition that is in the queue, or will be.
    pub fn appended(&self) {
        let appends = self.appends.fetch_add(1, Ordering::SeqCst) + 1;
        if appends == self.goal.load(Ordering::SeqCst) {
            // Whoever looks at it under the lock sees it, or waits by now.
            let _state = self.state.lock();
            self.company.notify_one();
        }
    }

    /// Adds a partition; after [`Self::stop`] it is dropped.
    pub fn push(&self, partition: Arc<Partition>) {
        let mut state = self.state.lock();
        if !state.stopped {
            state.queue.push(partition);
            if !state.committing && !state.is_held {
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
        self.company.notify_all();
        drop(dropped);
    }

    /// What the calling thread has to do; blocks until there is something, `None` after [`Self::stop`].
    pub fn next(&self) -> Option<Turn> {
        let mut state = self.state.lock();
        loop {
            let hold = state.hold.filter(|until| !self.have_all_come() && Instant::now() < *until);
            if let Some(turn) = self.turn(&mut state, hold.is_some()) {
                return Some(turn);
            }
            if state.stopped {
                return None;
            }
            match hold {
                Some(until) if !state.is_held && !state.queue.is_empty() => {
                    state.is_held = true;
                    self.company.wait_until(&mut state, until);
                    state.is_held = false;
                }
                _ => self.changed.wait(&mut state),
            }
        }
    }

    /// Whether nobody is missing of those for whom the next commit waits.
    fn have_all_come(&self) -> bool {
        self.appends.load(Ordering::SeqCst) >= self.goal.load(Ordering::SeqCst)
    }

    /// What there is to do now.
    fn turn(&self, state: &mut State, is_held: bool) -> Option<Turn> {
        // First what the journal could not take: more of the other comes all the time.
        if let Some(partition) = state.files.pop_front() {
            return Some(Turn::Files(partition));
        }
        (!state.committing && !is_held && !state.queue.is_empty()).then(|| {
            state.committing = true;
            state.begun = [self.appends.load(Ordering::SeqCst), state.begun[0]];
            state.partitions = state.queue.len() as u64;
            state.wary = if self.have_all_come() { state.wary.saturating_sub(1) } else { WARY };
            Turn::Commit(std::mem::take(&mut state.queue))
        })
    }

    /// The same without waiting.
    #[cfg(test)]
    pub fn next_now(&self) -> Option<Turn> {
        self.turn(&mut self.state.lock(), false)
    }

    /// The journal has been written, without `rest`, which has taken so long. The caller comes back for the next turn.
    pub fn committed(&self, rest: Vec<Arc<Partition>>, took: Duration) {
        let mut state = self.state.lock();
        state.committing = false;
        if state.stopped {
            return;
        }
        let [begun, before] = state.begun;
        // Those who are answered by it, and those who have come meanwhile.
        let around = self.appends.load(Ordering::SeqCst) - before;
        let more = if state.wary == 0 { around / GROWTH } else { 0 };
        let most = if state.partitions > 1 { COMPANY } else { COMPANY_OF_ONE };
        let company = (around + more).min(most);
        self.goal.store(begun + company, Ordering::SeqCst);
        let patience = took.saturating_mul(u32::try_from(company).unwrap_or(u32::MAX)) / PATIENCE;
        state.hold = Some(Instant::now() + patience.min(PATIENCE_MAX));
        let turns = rest.len() + usize::from(!state.queue.is_empty());
        state.files.extend(rest);
        drop(state);
        for _ in 1..turns {
            self.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::super::fixture::{Fixture, batch, commit, high_watermark, is_ready};
    use super::*;
    use crate::storage::simulated::SimulatedDisk;

    /// A commit in which so many appends take part, and during which more come.
    fn commits(queue: &SyncQueue, taking_part: u64, meanwhile: u64) {
        let fixture = Fixture::open(SimulatedDisk::default(), 0).unwrap();
        (0..taking_part).for_each(|_| queue.appended());
        queue.push(fixture.partition(commit()));
        assert!(matches!(queue.next_now(), Some(Turn::Commit(_))));
        (0..meanwhile).for_each(|_| queue.appended());
        queue.committed(Vec::new(), Duration::ZERO);
    }

    /// Appends that it takes until the next commit waits no more.
    fn awaited(queue: &SyncQueue) -> u64 {
        (0..).take_while(|_| (!queue.have_all_come()).then(|| queue.appended()).is_some()).count() as u64
    }

    #[test]
    fn a_commit_waits_for_as_many_as_were_there() {
        for (taking_part, meanwhile, missing) in [
            (1, 0, 1),
            (2, 0, 2),
            (3, 0, 3),
            (4, 0, 5),
            (8, 0, 10),
            (3, 2, 4),
            (1, 9, 3),
            (40, 0, 20),
            (20, 33, 0),
        ] {
            let queue = SyncQueue::default();
            commits(&queue, taking_part, meanwhile);
            assert_eq!(awaited(&queue), missing, "{taking_part}, {meanwhile}");
        }
    }

    #[test]
    fn who_has_waited_in_vain_for_more_than_there_were_does_so_no_more_for_a_while() {
        let queue = SyncQueue::default();
        commits(&queue, 8, 0);
        // Two more were waited for.
        commits(&queue, 8, 0);
        for _ in 1..WARY {
            assert_eq!(awaited(&queue), 8);
            commits(&queue, 0, 0);
        }
        assert_eq!(awaited(&queue), 8);
        commits(&queue, 0, 0);
        assert_eq!(awaited(&queue), 10);
    }

    #[test]
    fn several_partitions_are_worth_more_company() {
        let fixture = Fixture::open(SimulatedDisk::default(), 0).unwrap();
        let queue = SyncQueue::default();
        (0..100).for_each(|_| queue.appended());
        (0..2).for_each(|_| queue.push(fixture.partition(commit())));
        assert!(matches!(queue.next_now(), Some(Turn::Commit(both)) if both.len() == 2));
        queue.committed(Vec::new(), Duration::ZERO);
        assert_eq!(awaited(&queue), COMPANY);
    }

    #[test]
    fn who_is_there_alone_waits_for_nobody() {
        let queue = SyncQueue::default();
        for _ in 0..3 {
            commits(&queue, 1, 0);
            queue.state.lock().hold = Some(Instant::now() + Duration::from_secs(3600));
        }
        queue.appended();
        queue.push(Fixture::open(SimulatedDisk::default(), 0).unwrap().partition(commit()));
        assert!(matches!(queue.next(), Some(Turn::Commit(_))), "and not in an hour");
    }

    #[test]
    fn what_nobody_waits_for_is_synced_with_what_somebody_does() {
        let fixture = Fixture::open(SimulatedDisk::default(), 0).unwrap();
        let partition = fixture.partition(commit());
        partition.append_unawaited(batch(1)).unwrap();
        let syncs = fixture.disk.file_syncs();
        assert!(!fixture.directory.sync_next(), "nothing to do");
        assert_eq!((high_watermark(&partition), fixture.disk.file_syncs()), (0, syncs));
        partition.append(batch(1)).unwrap();
        while fixture.directory.sync_next() {}
        assert_eq!(high_watermark(&partition), 2);
        partition.append_unawaited(batch(1)).unwrap();
        assert!(!fixture.directory.sync_next() && !is_ready(partition.durable(3)));
        while fixture.directory.sync_next() {}
        assert_eq!(high_watermark(&partition), 3, "somebody has asked for it after all");
        partition.append_unawaited(batch(1)).unwrap();
        let disk = fixture.halt();
        disk.power_cut(1);
        let again = Fixture::on(disk);
        let partition = again.partition(commit());
        again.recover(&partition);
        assert!(high_watermark(&partition) >= 3, "what was awaited is there");
    }
}
