//! The windows that one partition of `__share_group_state` holds: finds the one that an event is for, and its records.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::leases::{Holder, Leases, Mark, Outcome, Take};
use super::{
    Cause, Event, Progress, QueueError, QueueEvent, QueueKey, Receive, Received, Reply, Settle, SettleError,
    Taken, Terms, Wish,
};
use crate::clock::TimestampMs;
use crate::coordinator::share_records::{
    ACKNOWLEDGED, ARCHIVED, ARCHIVING, AVAILABLE, FAILED, GAVE_WAY, SharePartitionKey, ShareRecord,
    ShareSnapshot, ShareUpdate, StateBatch,
};
use crate::coordinator::{Effects, Machine, Ticket};
use crate::uuid::Uuid;

/// Bits that the count of a window's changes has below the time, ms, at which it was made.
const CHANGES_BITS: u32 = 20;

/// States that go into one record: it stays well below what readers take as one batch, however large the window.
const BATCHES_A_RECORD: usize = 4_096;

/// In place of a time that a state does not have.
const NO_TIME: i64 = -1;

/// The end of the lease of a dead record that waits for the mover; of those that Kafka was about to archive nothing is left.
const KEPT: i64 = 0;

type Out = Effects<Reply, ShareRecord>;

/// A window, who is there, and its place in the log of states.
#[derive(Debug)]
struct Queue {
    leases: Leases,
    members: BTreeMap<Arc<str>, Holder>,
    next_holder: u32,
    /// Who waits for a change; one ticket each.
    watchers: BTreeMap<Arc<str>, Ticket>,
    /// Who waits for something to die.
    mourner: Option<Ticket>,
    /// [`Leases::changes`] as watchers were told last.
    told: u64,
    /// What its changes are counted from: the count of a window that was made anew, with its shard or alone, is never taken for
    /// that of the one before.
    made: u64,
    /// Whether a queue of the group's name has read it.
    is_queues: bool,
    /// As of the last take: a lease that ends goes by it.
    delivery_limit: u16,
    snapshot_epoch: i32,
    state_epoch: i32,
    leader_epoch: i32,
    created_at: TimestampMs,
    /// As it stands in the shard's timers.
    timer: Option<TimestampMs>,
    /// Records of a snapshot, as they stand in the shard's count.
    records: usize,
}

impl Queue {
    fn new(now: TimestampMs, snapshot: &ShareSnapshot) -> Self {
        let mut queue = Self {
            leases: Leases::new(snapshot.start_offset),
            members: BTreeMap::new(),
            next_holder: Holder::RECEIPT.0 + 1,
            watchers: BTreeMap::new(),
            mourner: None,
            told: 0,
            made: now.cast_unsigned() << CHANGES_BITS,
            is_queues: snapshot.is_queues,
            delivery_limit: u16::MAX,
            snapshot_epoch: snapshot.snapshot_epoch,
            state_epoch: snapshot.state_epoch,
            leader_epoch: snapshot.leader_epoch,
            created_at: snapshot.create_timestamp,
            timer: None,
            records: 0,
        };
        queue.apply_batches(&snapshot.state_batches);
        queue
    }

    fn apply(&mut self, update: &ShareUpdate) {
        self.leader_epoch = self.leader_epoch.max(update.leader_epoch);
        self.is_queues |= update.is_queues;
        self.apply_batches(&update.state_batches);
        self.leases.raise_start(update.start_offset);
    }

    /// Passes over what no log can have.
    fn apply_batches(&mut self, batches: &[StateBatch]) {
        let is_sound = |batch: &&StateBatch| {
            (0..i64::MAX).contains(&batch.last_offset)
                && (0..=batch.last_offset).contains(&batch.first_offset)
        };
        batches.iter().filter(is_sound).for_each(|batch| self.leases.apply(&mark_of(batch)));
    }

    /// The number of a member, given at its first lease and taken back after its last.
    fn holder(&mut self, member: &Arc<str>) -> Holder {
        if let Some(holder) = self.members.get(member) {
            return *holder;
        }
        loop {
            let holder = Holder(self.next_holder);
            self.next_holder = self.next_holder.wrapping_add(1);
            if ![Holder::RECEIPT, Holder::PICKER].contains(&holder) && !self.leases.holds(holder) {
                self.members.insert(Arc::clone(member), holder);
                return holder;
            }
        }
    }

    /// As [`Taken::changes`].
    fn changes(&self) -> u64 {
        self.made.wrapping_add(self.leases.changes())
    }

    fn go_by(&mut self, terms: &Terms) {
        self.delivery_limit = terms.delivery_limit;
        self.leases.go_by_group(terms.dead);
    }

    fn take(&mut self, now: TimestampMs, wish: Wish, marks: &mut Vec<Mark>) -> Taken {
        let Wish {
            member,
            log_start,
            leader_epoch,
            from,
            batches,
            max_records,
            range_records,
            portion,
            terms,
        } = wish;
        self.go_by(&terms);
        // Perhaps it was a queue's until now.
        self.leases.go_plain();
        self.leases.archive_below(log_start, marks);
        let take = Take {
            from,
            batches,
            max_records,
            range_records,
            portion,
            until: now.saturating_add(terms.lock_duration_ms),
            delivery_limit: terms.delivery_limit,
            max_in_flight: terms.max_in_flight,
        };
        let ranges = match take.batches.is_empty() {
            true => Vec::new(),
            false => {
                self.leader_epoch = self.leader_epoch.max(leader_epoch);
                let holder = self.holder(&member);
                self.leases.take(holder, &take, marks)
            }
        };
        let (next, changes) = (self.leases.next(), self.changes());
        Taken { ranges, next, changes, end: self.leases.end(), leader_epoch: self.leader_epoch }
    }

    fn acknowledge(
        &mut self,
        now: TimestampMs,
        member: &Arc<str>,
        acks: &[super::Ack],
        terms: &Terms,
        marks: &mut Vec<Mark>,
    ) -> Result<(), QueueError> {
        if !self.leases.has_room_for(acks.len()) {
            return Err(QueueError::TooManyRuns);
        }
        self.go_by(terms);
        let renewed = now.saturating_add(terms.lock_duration_ms);
        let holder = self.holder(member);
        Ok(self.leases.acknowledge(now, holder, acks, terms.delivery_limit, renewed, marks)?)
    }

    fn receive(&mut self, now: TimestampMs, wanted: &Receive, marks: &mut Vec<Mark>) -> Received {
        self.delivery_limit = wanted.terms.delivery_limit;
        if !wanted.arrivals.is_empty() {
            self.leader_epoch = self.leader_epoch.max(wanted.leader_epoch);
        }
        let holder = wanted.member.as_ref().map_or(Holder::RECEIPT, |member| self.holder(member));
        let ranges = self.leases.receive(now, holder, wanted, marks);
        Received {
            ranges,
            window_end: self.leases.end(),
            end: self.leases.seen(),
            changes: self.changes(),
            leader_epoch: self.leader_epoch,
            counts: self.leases.counts(),
            is_full: self.leases.is_full(),
        }
    }

    fn settle(
        &mut self,
        now: TimestampMs,
        what: &[Settle],
        marks: &mut Vec<Mark>,
    ) -> Vec<Result<(), SettleError>> {
        what.iter().map(|settle| self.leases.settle(now, settle, marks)).collect()
    }

    fn update(&self, key: &QueueKey, state_batches: Vec<StateBatch>) -> ShareRecord {
        ShareRecord::Update { key: record_key(key), value: self.change(state_batches) }
    }

    fn change(&self, state_batches: Vec<StateBatch>) -> ShareUpdate {
        ShareUpdate {
            snapshot_epoch: self.snapshot_epoch,
            leader_epoch: self.leader_epoch,
            start_offset: self.leases.start(),
            state_batches,
            delivery_complete_count: self.done_count(),
            is_queues: false,
        }
    }

    /// One record that has the start of the window, and more that have the rest.
    fn snapshot(&self, key: &QueueKey) -> impl Iterator<Item = ShareRecord> {
        let marks = self.leases.marks();
        let (head, rest) = marks.split_at(marks.len().min(BATCHES_A_RECORD));
        let first = self.snapshot_of(key, batches_of(head));
        let rest: Vec<_> =
            rest.chunks(BATCHES_A_RECORD).map(|chunk| self.update(key, batches_of(chunk))).collect();
        [first].into_iter().chain(rest)
    }

    fn snapshot_of(&self, key: &QueueKey, state_batches: Vec<StateBatch>) -> ShareRecord {
        let value = ShareSnapshot {
            snapshot_epoch: self.snapshot_epoch,
            state_epoch: self.state_epoch,
            leader_epoch: self.leader_epoch,
            start_offset: self.leases.start(),
            create_timestamp: self.created_at,
            write_timestamp: self.created_at,
            state_batches,
            delivery_complete_count: self.done_count(),
            is_queues: self.is_queues,
        };
        ShareRecord::Snapshot { key: record_key(key), value: Some(value) }
    }

    fn done_count(&self) -> i32 {
        i32::try_from(self.leases.done()).unwrap_or(i32::MAX)
    }

    fn progress(&self) -> Progress {
        Progress {
            start: self.leases.start(),
            done: self.leases.done(),
            in_flight: self.leases.in_flight(),
            leader_epoch: self.leader_epoch,
            made_at: self.created_at,
            counts: self.leases.counts(),
        }
    }
}

fn record_key(key: &QueueKey) -> SharePartitionKey {
    SharePartitionKey { group_id: (&*key.group).into(), topic_id: key.topic_id, partition: key.partition }
}

fn key_of(key: &SharePartitionKey) -> QueueKey {
    QueueKey { group: (&*key.group_id).into(), topic_id: key.topic_id, partition: key.partition }
}

fn batches_of(marks: &[Mark]) -> Vec<StateBatch> {
    marks.iter().map(batch_of).collect()
}

fn batch_of(mark: &Mark) -> StateBatch {
    let cause = if mark.outcome == (Outcome::Dead { cause: Cause::GaveWay }) { GAVE_WAY } else { FAILED };
    let (delivery_state, leased_until, waiting_until) = match mark.outcome {
        Outcome::Available => (AVAILABLE, NO_TIME, NO_TIME),
        Outcome::Leased { until } => (AVAILABLE, until, NO_TIME),
        Outcome::Waiting { until } => (AVAILABLE, NO_TIME, until),
        Outcome::Acknowledged => (ACKNOWLEDGED, NO_TIME, NO_TIME),
        Outcome::Dead { .. } => (ARCHIVING, KEPT, NO_TIME),
        Outcome::Archived => (ARCHIVED, NO_TIME, NO_TIME),
    };
    StateBatch {
        first_offset: mark.first,
        last_offset: mark.last,
        delivery_state,
        delivery_count: i16::try_from(mark.deliveries).unwrap_or(i16::MAX),
        leased_until,
        waiting_until,
        cause,
    }
}

/// A state that this program does not know counts as one to be tried again.
fn mark_of(batch: &StateBatch) -> Mark {
    Mark {
        first: batch.first_offset,
        last: batch.last_offset,
        outcome: match (batch.delivery_state, batch.leased_until, batch.waiting_until) {
            (ACKNOWLEDGED, ..) => Outcome::Acknowledged,
            (ARCHIVING, KEPT, _) => {
                Outcome::Dead { cause: if batch.cause == GAVE_WAY { Cause::GaveWay } else { Cause::Failed } }
            }
            (ARCHIVING | ARCHIVED, ..) => Outcome::Archived,
            (_, until, _) if until != NO_TIME => Outcome::Leased { until },
            (_, _, until) if until != NO_TIME => Outcome::Waiting { until },
            _ => Outcome::Available,
        },
        deliveries: u16::try_from(batch.delivery_count).unwrap_or(0),
    }
}

/// The machine.
#[derive(Debug, Default)]
pub struct QueueShard {
    queues: BTreeMap<QueueKey, Queue>,
    /// When which window has leases that end.
    timers: BTreeSet<(TimestampMs, QueueKey)>,
    /// About how many records a snapshot has.
    records: usize,
    /// Windows in which something has died since that was told last.
    died: BTreeSet<QueueKey>,
    /// Who is told next.
    awaits_dead: Option<Ticket>,
}

impl QueueShard {
    /// No windows.
    pub fn new() -> Self {
        Self::default()
    }

    /// The window of that key.
    pub fn leases(&self, key: &QueueKey) -> Option<&Leases> {
        self.queues.get(key).map(|queue| &queue.leases)
    }

    fn one(&mut self, now: TimestampMs, from: Ticket, key: QueueKey, event: QueueEvent, out: &mut Out) {
        match event {
            QueueEvent::Initialise { start, leader_epoch } => {
                if !self.queues.contains_key(&key) {
                    self.make(now, &key, start, leader_epoch, 0, out);
                }
                out.reply(from, Reply::Done(Ok(())));
            }
            QueueEvent::Take(wish) => {
                let taken = self.with(now, &key, out, |queue, marks| queue.take(now, wish, marks));
                out.reply_promptly(from, Reply::Taken(taken));
            }
            QueueEvent::Acknowledge { member, acks, terms } => {
                let done = self.with(now, &key, out, |queue, marks| {
                    queue.acknowledge(now, &member, &acks, &terms, marks)
                });
                out.reply(from, Reply::Done(done.and_then(|done| done)));
            }
            QueueEvent::Receive(wanted) => {
                self.become_queues(&key, out);
                let received = self.with(now, &key, out, |queue, marks| queue.receive(now, &wanted, marks));
                out.reply_promptly(from, Reply::Received(received));
            }
            QueueEvent::Settle(what) => {
                let settled = self.with(now, &key, out, |queue, marks| queue.settle(now, &what, marks));
                out.reply(from, Reply::Settled(settled));
            }
            QueueEvent::Pick(what) => {
                let picked = self.with(now, &key, out, |queue, marks| {
                    what.iter().map(|picked| queue.leases.pick(now, picked, marks)).collect()
                });
                out.reply(from, Reply::Settled(picked));
            }
            QueueEvent::TakeDead { max_records, lease_ms } => {
                let dead =
                    self.with(now, &key, out, |queue, _| queue.leases.take_dead(now, max_records, lease_ms));
                // They are as dead after a crash.
                out.reply(from, Reply::Dead(dead));
            }
            QueueEvent::AwaitDead => {
                let replaced = self.with(now, &key, out, |queue, _| queue.mourner.replace(from));
                match replaced {
                    Ok(before) => out.prompt.extend(before.map(|before| (before, Reply::Done(Ok(()))))),
                    Err(error) => out.reply_promptly(from, Reply::Done(Err(error))),
                }
            }
            QueueEvent::Purge { offset_end_exclusive, leader_epoch } => {
                let done = self.with(now, &key, out, |queue, marks| {
                    queue.leader_epoch = queue.leader_epoch.max(leader_epoch);
                    queue.leases.purge(offset_end_exclusive, marks);
                });
                out.reply(from, Reply::Done(done));
            }
            QueueEvent::Watch { member, changes } => match self.queues.get_mut(&key) {
                Some(queue) if queue.changes() == changes => {
                    if let Some(before) = queue.watchers.insert(member, from) {
                        out.reply_promptly(before, Reply::Done(Ok(())));
                    }
                }
                _ => out.reply_promptly(from, Reply::Done(Ok(()))),
            },
            QueueEvent::Reset { start, leader_epoch } => {
                let state_epoch = self.queues.get(&key).map_or(0, |queue| queue.state_epoch + 1);
                self.make(now, &key, start, leader_epoch, state_epoch, out);
                out.reply(from, Reply::Done(Ok(())));
            }
            QueueEvent::GoBack { cut, seen_epoch, leader_epoch } => {
                let is_as_seen =
                    |queue: &&Queue| queue.leader_epoch == seen_epoch && queue.leases.end() > cut;
                if let Some(queue) = self.queues.get(&key).filter(is_as_seen) {
                    let (start, state_epoch) = (queue.leases.start().min(cut), queue.state_epoch + 1);
                    self.make(now, &key, start, leader_epoch, state_epoch, out);
                }
                out.reply(from, Reply::Done(Ok(())));
            }
            QueueEvent::Describe => {
                let progress = self.queues.get(&key).map(Queue::progress);
                out.reply(from, Reply::Described(progress));
            }
            QueueEvent::Inspect { from: first, max } => {
                let found = self.with(now, &key, out, |queue, _| queue.leases.inspect(first, max));
                out.reply(from, Reply::Inspected(found));
            }
        }
    }

    /// Has something done to a window, after what is due; and keeps its record, timer and watchers right.
    fn with<T>(
        &mut self,
        now: TimestampMs,
        key: &QueueKey,
        out: &mut Out,
        act: impl FnOnce(&mut Queue, &mut Vec<Mark>) -> T,
    ) -> Result<T, QueueError> {
        let queue = self.queues.get_mut(key).ok_or(QueueError::Unknown)?;
        let mut marks = Vec::new();
        let had_dead = queue.leases.has_dead();
        if queue.leases.deadline().is_some_and(|due| due <= now) {
            queue.leases.expire(now, queue.delivery_limit, &mut marks);
        }
        let outcome = act(queue, &mut marks);
        queue.members.retain(|_, holder| queue.leases.holds(*holder));
        out.records.extend(marks.chunks(BATCHES_A_RECORD).map(|chunk| queue.update(key, batches_of(chunk))));
        if queue.told != queue.leases.changes() {
            queue.told = queue.leases.changes();
            wake(queue, out);
        }
        if let Some(mourner) = queue.mourner.take_if(|_| queue.leases.has_dead()) {
            // Not before that is durable.
            out.reply(mourner, Reply::Done(Ok(())));
        }
        // Who moves them takes all there is, what dies meanwhile too.
        if !had_dead && queue.leases.has_dead() {
            self.died.insert(key.clone());
            self.tell_dead(out);
        }
        self.look_at(key);
        Ok(outcome)
    }

    /// A queue reads the window, for the first time or again.
    fn become_queues(&mut self, key: &QueueKey, out: &mut Out) {
        if let Some(queue) = self.queues.get_mut(key).filter(|queue| !queue.is_queues) {
            queue.is_queues = true;
            let value = ShareUpdate { is_queues: true, ..queue.change(Vec::new()) };
            out.records.push(ShareRecord::Update { key: record_key(key), value });
        }
    }

    fn tell_dead(&mut self, out: &mut Out) {
        if !self.died.is_empty()
            && let Some(awaits) = self.awaits_dead.take()
        {
            out.reply(awaits, Reply::Died(std::mem::take(&mut self.died).into_iter().collect()));
        }
    }

    /// A new window in the place of any there is.
    fn make(
        &mut self,
        now: TimestampMs,
        key: &QueueKey,
        start: i64,
        leader_epoch: i32,
        state_epoch: i32,
        out: &mut Out,
    ) {
        let value = ShareSnapshot {
            snapshot_epoch: self.queues.get(key).map_or(0, |queue| queue.snapshot_epoch + 1),
            state_epoch,
            leader_epoch,
            start_offset: start,
            create_timestamp: now,
            write_timestamp: now,
            delivery_complete_count: 0,
            state_batches: Vec::new(),
            is_queues: self.queues.get(key).is_some_and(|queue| queue.is_queues),
        };
        self.store(now, ShareRecord::Snapshot { key: record_key(key), value: Some(value) }, out);
    }

    /// Forgets the windows of `keys`.
    fn forget(&mut self, now: TimestampMs, keys: Vec<QueueKey>, out: &mut Out) {
        for key in keys {
            self.store(now, ShareRecord::Snapshot { key: record_key(&key), value: None }, out);
        }
    }

    /// Replaces a window, and tells who watched the old one.
    fn store(&mut self, now: TimestampMs, record: ShareRecord, out: &mut Out) {
        if let ShareRecord::Snapshot { key, .. } = &record
            && let Some(old) = self.queues.get_mut(&key_of(key))
        {
            wake(old, out);
            out.prompt.extend(old.mourner.take().map(|mourner| (mourner, Reply::Done(Ok(())))));
        }
        self.apply(now, &record);
        out.records.push(record);
    }

    fn keys_of(&self, group: &str) -> impl Iterator<Item = &QueueKey> {
        let first = QueueKey { group: group.into(), topic_id: Uuid([0; 16]), partition: i32::MIN };
        let group: Arc<str> = Arc::clone(&first.group);
        self.queues.range(first..).map(|(key, _)| key).take_while(move |key| key.group == group)
    }

    fn replace(&mut self, key: QueueKey, queue: Option<Queue>) {
        let old = match queue {
            Some(queue) => self.queues.insert(key.clone(), queue),
            None => self.queues.remove(&key),
        };
        self.records -= old.as_ref().map_or(0, |old| old.records);
        if let Some(due) = old.and_then(|old| old.timer) {
            self.timers.remove(&(due, key));
        }
    }

    /// Keeps what the shard knows of a window right, after it has changed.
    fn look_at(&mut self, key: &QueueKey) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        let records = 1 + queue.leases.runs() / BATCHES_A_RECORD;
        self.records = self.records - queue.records + records;
        queue.records = records;
        let due = queue.leases.deadline();
        if queue.timer != due {
            if let Some(before) = queue.timer.take() {
                self.timers.remove(&(before, key.clone()));
            }
            queue.timer = due;
            self.timers.extend(due.map(|due| (due, key.clone())));
        }
    }
}

fn wake(queue: &mut Queue, out: &mut Out) {
    for (_, watcher) in std::mem::take(&mut queue.watchers) {
        out.reply_promptly(watcher, Reply::Done(Ok(())));
    }
}

impl Machine for QueueShard {
    type Event = Event;
    type Reply = Reply;
    type Record = ShareRecord;

    fn step(&mut self, now: TimestampMs, from: Ticket, event: Event, out: &mut Out) {
        match event {
            Event::One(key, event) => self.one(now, from, key, event, out),
            Event::Release { group, member } => {
                let keys: Vec<_> = self.keys_of(&group).cloned().collect();
                for key in keys {
                    if let Some(watch) =
                        self.queues.get_mut(&key).and_then(|queue| queue.watchers.remove(&member))
                    {
                        out.reply_promptly(watch, Reply::Done(Ok(())));
                    }
                    let released = self.with(now, &key, out, |queue, marks| {
                        if let Some(holder) = queue.members.get(&member) {
                            queue.leases.release(now, *holder, queue.delivery_limit, marks);
                        }
                    });
                    debug_assert!(released.is_ok(), "the keys are of windows");
                }
                out.reply(from, Reply::Done(Ok(())));
            }
            Event::List(group) => {
                let progress = |key: &QueueKey| Some((key.clone(), self.queues.get(key)?.progress()));
                let listed = self.keys_of(&group).filter_map(progress).collect();
                out.reply(from, Reply::Listed(listed));
            }
            Event::Forget { group, of } => {
                let is_queues = |key| self.queues.get(key).is_some_and(|queue| queue.is_queues);
                let keys = self.keys_of(&group).filter(|key| of(key.topic_id, is_queues(key)));
                let keys = keys.cloned().collect();
                self.forget(now, keys, out);
                out.reply(from, Reply::Done(Ok(())));
            }
            Event::Drop(exists) => {
                let keys = self.queues.keys().filter(|key| !exists(key.topic_id)).cloned().collect();
                self.forget(now, keys, out);
                out.reply(from, Reply::Done(Ok(())));
            }
            Event::AwaitDead => {
                if let Some(before) = self.awaits_dead.replace(from) {
                    out.reply_promptly(before, Reply::Died(Vec::new()));
                }
                self.tell_dead(out);
            }
        }
    }

    fn tick(&mut self, now: TimestampMs, out: &mut Out) {
        // Once for each: what is due at once in great numbers is done bit by bit, and others are heard in between.
        let due = self.timers.iter().take_while(|(due, _)| *due <= now).map(|(_, key)| key.clone());
        for key in due.collect::<Vec<_>>() {
            let expired = self.with(now, &key, out, |_, _| ());
            debug_assert!(expired.is_ok(), "timers are of windows");
        }
    }

    fn deadline(&self) -> Option<TimestampMs> {
        self.timers.first().map(|(due, _)| *due)
    }

    fn apply(&mut self, now: TimestampMs, record: &ShareRecord) {
        let (ShareRecord::Snapshot { key, .. } | ShareRecord::Update { key, .. }) = record;
        let key = key_of(key);
        match record {
            ShareRecord::Snapshot { value, .. } => {
                // Kafka's state of a partition that nobody has fetched from yet: it begins where the first fetch says.
                let known = value.as_ref().filter(|value| value.start_offset >= 0);
                self.replace(key.clone(), known.map(|value| Queue::new(now, value)));
            }
            ShareRecord::Update { value, .. } => match self.queues.get_mut(&key) {
                Some(queue) => queue.apply(value),
                None if value.start_offset >= 0 => {
                    let snapshot = ShareSnapshot {
                        snapshot_epoch: value.snapshot_epoch,
                        leader_epoch: value.leader_epoch,
                        start_offset: value.start_offset,
                        state_batches: value.state_batches.clone(),
                        is_queues: value.is_queues,
                        ..Default::default()
                    };
                    self.replace(key.clone(), Some(Queue::new(now, &snapshot)));
                }
                None => {}
            },
        }
        self.look_at(&key);
    }

    fn live_records(&self) -> usize {
        self.records
    }

    fn snapshot(&self) -> Vec<ShareRecord> {
        self.queues.iter().flat_map(|(key, queue)| queue.snapshot(key)).collect()
    }

    /// Leases of members have ended with the process, others end when they do: there is nothing to begin, but what was dead is.
    fn replayed(&mut self, _now: TimestampMs) {
        let with_dead = self.queues.iter().filter(|(_, queue)| queue.leases.has_dead());
        self.died = with_dead.map(|(key, _)| key.clone()).collect();
    }
}

#[cfg(test)]
mod tests;
