//! What queues do with a window: records are handed out one by one, by when they are due, their priority and their key; each is
//! settled on its own, by its receipt; those that nobody can deal with wait for the mover to their dead letter queue.

use std::sync::Arc;

use super::keys::KeyId;
use super::kinds::{LEVELS_MAX, NEVER, Nature};
use super::lines::{KeyRule, Lines, Next};
use super::{Cause, Counts, FREE, Holder, Leases, Mark, Range, Run, State, Taking, keepable, push_mark};
use crate::clock::TimestampMs;

/// Runs that a queue's window may have: up to 256 MiB. What comes then is not looked at before there are fewer.
const RUNS_OF_A_QUEUE_MAX: usize = 1 << 22;

/// What lives no longer expires to the millisecond.
const EXPIRES_EXACTLY_MS: i64 = 60_000;

/// Neighbouring records that are alike, as they enter a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival {
    /// First record.
    pub first: i64,
    /// Last record, inclusive.
    pub last: i64,
    /// How they are.
    pub kind: Kind,
}

/// What is particular about a record.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Kind {
    /// Not handed out before.
    pub due: Option<TimestampMs>,
    /// Archived from then on, unless it is with somebody; then when it comes back. More than a minute ahead, to within a thousandth
    /// of the time that is left, later rather than earlier.
    pub expires: Option<TimestampMs>,
    /// Higher first.
    pub priority: u8,
    /// Hash of the record's key, for what goes by key. Records without one know no order and no limits.
    pub key: Option<u64>,
    /// Archived at once: a duplicate, or not the queue's.
    pub skip: bool,
}

/// How long a record waits after a delivery that came to nothing: `ms` after the first, `multiplier` times as long after each
/// further one, at most `max_ms`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Backoff {
    /// Milliseconds; 0 for not at all.
    pub ms: i64,
    /// From one delivery to the next.
    pub multiplier: f64,
    /// Milliseconds.
    pub max_ms: i64,
}

impl Backoff {
    /// After so many deliveries, ms. Who only looked at a record and leaves it has delivered nothing.
    pub(super) fn after(&self, deliveries: u16) -> i64 {
        if deliveries == 0 {
            return 0;
        }
        let times = self.multiplier.powi(i32::from(deliveries) - 1);
        // Saturates, and takes what is no number as zero.
        let ms = (self.ms as f64 * times) as i64;
        ms.clamp(0, self.max_ms.max(0))
    }
}

/// What becomes of records that are refused or were delivered too often.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dead {
    /// They are done.
    Archive,
    /// They stay until somebody has [moved](Leases::take_dead) them.
    Keep,
}

/// What a queue's window goes by.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct QueueTerms {
    /// Deliveries after which a record is not handed out again; `u16::MAX` for any number.
    pub delivery_limit: u16,
    /// Records that may be with somebody at a time.
    pub max_in_flight: i64,
    /// Whether records of a key are handed out in order, each receive's only when all before it are done.
    pub fifo: bool,
    /// Records of a key that may be with somebody; 0 for any number.
    pub key_concurrency: u32,
    /// Records of a key that may be handed out in a second, counted from its first; 0 for any number.
    pub key_rate: u32,
    /// Levels of priority, 1 to 10. A higher one counts as the highest.
    pub priorities: u8,
    /// For deliveries that come to nothing, unless who returns one names a time.
    pub backoff: Backoff,
    /// For what nobody can deal with.
    pub dead: Dead,
}

impl QueueTerms {
    fn key_rule(&self) -> KeyRule {
        KeyRule { fifo: self.fifo, concurrency: self.key_concurrency, rate: self.key_rate }
    }

    fn levels(&self) -> u8 {
        self.priorities.clamp(1, LEVELS_MAX)
    }
}

/// A wish for records of a queue.
#[derive(Clone, PartialEq, Debug)]
pub struct Receive {
    /// For a member of a share group, which will speak of them by name and give them back with its connection. Without one they
    /// go to whoever has their receipts.
    pub member: Option<Arc<str>>,
    /// First offset of the log.
    pub log_start: i64,
    /// Of the log.
    pub leader_epoch: i32,
    /// Where the reading of the log began: [`Received::end`] of an earlier answer.
    pub arrivals_from: i64,
    /// What was read of the log, in order; between them, and before the first, there are no records.
    pub arrivals: Vec<Arrival>,
    /// How many records.
    pub max_records: i64,
    /// How long they may be kept, ms.
    pub lease_ms: i64,
    /// Instead of being handed out, so many give way to others, and become that: of the lowest priority, and of it the oldest. None
    /// of them counts as delivered, and no limit as reached.
    pub gives_way: Option<Dead>,
    /// The queue's.
    pub terms: QueueTerms,
}

/// What came of a wish.
#[derive(Clone, PartialEq, Debug)]
pub struct Received {
    /// What was handed out, in the order in which it is to be delivered, or has given way. The receipt of a record is its offset and
    /// its [`Range::deliveries`].
    pub ranges: Vec<Range>,
    /// Where the window ends: how far its queue has known the log.
    pub window_end: i64,
    /// Where to read on. After a restart that is the window's start, until all of it was seen again.
    pub end: i64,
    /// What to watch from, if it was not enough.
    pub changes: u64,
    /// Of the log when it was read last.
    pub leader_epoch: i32,
    /// Records of the window, by their state.
    pub counts: Counts,
    /// Whether so many are with somebody, or known, that there is nothing to be had before some are settled.
    pub is_full: bool,
}

impl Received {
    /// How many were handed out, or have given way.
    pub fn records(&self) -> i64 {
        self.ranges.iter().map(|range| range.last - range.first + 1).sum()
    }
}

/// What the holder of a receipt says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settle {
    /// The record.
    pub offset: i64,
    /// The number of its delivery: only the latest counts, and 0 is none.
    pub deliveries: u16,
    /// What becomes of it.
    pub what: Settlement,
}

/// What becomes of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settlement {
    /// It was dealt with. Also after the end of the lease, if nobody took it since, and again.
    Done,
    /// Nobody can deal with it.
    Reject,
    /// Nobody shall: it is archived, whatever else becomes of what is dead.
    Drop,
    /// It shall be handed out again.
    Return {
        /// When, ms from now; `None` for the queue's backoff.
        after_ms: Option<i64>,
    },
    /// Whoever was to have it is gone, and has not seen it: it is as if it had not been handed out, unless the lease is over.
    Unseen,
    /// Whoever had it is gone: it comes back by the queue's backoff, if it is lent until one of these times. If it is not, somebody
    /// has spoken of it since.
    Abandon {
        /// The earliest, ms since the epoch.
        from_ms: TimestampMs,
        /// The latest, inclusive.
        to_ms: TimestampMs,
    },
    /// The lease lasts longer, or shorter. Also after its end, if nobody took it since.
    Extend {
        /// Milliseconds from now; 0 gives it back.
        for_ms: i64,
    },
}

/// A dead record that goes to where dead ones belong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Died {
    /// The record.
    pub offset: i64,
    /// How often it has been handed out.
    pub deliveries: u16,
    /// Why it is dead.
    pub cause: Cause,
}

impl Died {
    /// It is where it belongs.
    pub fn settle(&self) -> Settle {
        Settle { offset: self.offset, deliveries: self.deliveries, what: Settlement::Done }
    }
}

/// Why a receipt is worth nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SettleError {
    /// The record is done, or never was.
    #[error("the record is gone")]
    Gone,
    /// There was a later delivery, or it is with somebody otherwise.
    #[error("the record was handed out again since")]
    TakenAgain,
}

impl Leases {
    /// Takes in what was read, and hands out what can be.
    pub fn receive(
        &mut self,
        now: TimestampMs,
        holder: Holder,
        wanted: &Receive,
        marks: &mut Vec<Mark>,
    ) -> Vec<Range> {
        self.go_by(&wanted.terms, marks);
        self.archive_below(wanted.log_start, marks);
        let changes = self.changes;
        let has_more = self.take_in(now, wanted, marks);
        let ranges = self.hand_out(now, holder, wanted, marks);
        self.advance();
        // What is new is no news for this one, but what it left is for others.
        self.changes = changes + u64::from(has_more && self.lines.has_any());
        ranges
    }

    /// Where the next receiver should read.
    pub fn seen(&self) -> i64 {
        if self.terms.is_some() { self.seen.min(self.end) } else { self.start }
    }

    /// Whether nothing can be handed out, or taken in, before something is settled.
    pub fn is_full(&self) -> bool {
        self.was_full || self.runs.len() >= RUNS_OF_A_QUEUE_MAX
    }

    fn go_by(&mut self, terms: &QueueTerms, marks: &mut Vec<Mark>) {
        let before = self.terms.replace(*terms).map_or(u16::MAX, |before| before.delivery_limit);
        let is_known = self.seen != i64::MAX;
        if !is_known || self.lines.rule() != terms.key_rule() || self.lines.top() + 1 != terms.levels() {
            self.forget_kinds(terms);
        }
        if terms.delivery_limit < before {
            self.kill_worn_out(terms.delivery_limit, marks);
        }
        while terms.dead == Dead::Archive
            && let Some((first, ())) = self.dead.first()
            && let Some((_, run)) = self.find(first)
        {
            self.finish(first, run, State::Archived, marks);
        }
    }

    /// Who may not be handed out again is dead, though the last lease ended when that was not known.
    fn kill_worn_out(&mut self, delivery_limit: u16, marks: &mut Vec<Mark>) {
        let is_worn_out = |run: &Run| run.state == State::Available && run.deliveries >= delivery_limit;
        let runs: Vec<_> = self.all_runs().filter(|(_, run)| is_worn_out(run)).collect();
        for (first, run) in runs {
            self.die(first, run, marks);
        }
    }

    /// What was a queue's window goes by a share group's terms again: what waited for its time or its turn can be had. What is dead
    /// stays, until the group has a place for it or there is a queue again.
    pub fn go_plain(&mut self) {
        if self.terms.is_none() {
            return;
        }
        self.rebuild(Self::new(self.start));
        self.changes += 1;
        self.advance();
    }

    /// Begins to see records anew: after a restart, or when it is other things about them that count.
    fn forget_kinds(&mut self, terms: &QueueTerms) {
        self.rebuild(Self {
            lines: Lines::new(terms.key_rule(), terms.levels()),
            terms: self.terms,
            seen: self.start,
            ..Self::new(self.start)
        });
    }

    /// Becomes the empty window `new`, and puts all runs into it, without what was known of their records.
    fn rebuild(&mut self, new: Self) {
        let end = self.end;
        let old = std::mem::replace(self, new);
        (self.log_start, self.changes, self.dead_of_group) = (old.log_start, old.changes, old.dead_of_group);
        for (first, run) in old.all_runs() {
            let state = match run.state {
                State::Waiting { .. } if run.deliveries == 0 => State::Available,
                state => state,
            };
            self.set(first, Run { state, nature: Nature::PLAIN, key: None, ..run });
        }
        debug_assert_eq!(self.end, end, "runs tile the window");
    }

    /// Whether there was anything.
    fn take_in(&mut self, now: TimestampMs, wanted: &Receive, marks: &mut Vec<Mark>) -> bool {
        if wanted.arrivals_from > self.seen {
            return false;
        }
        let before = self.seen;
        for arrival in &wanted.arrivals {
            let first = arrival.first.max(self.seen);
            if arrival.last < first {
                continue;
            }
            if self.runs.len() >= RUNS_OF_A_QUEUE_MAX {
                break;
            }
            if first > self.seen {
                self.archive_idle(self.seen, first - 1, marks);
            }
            self.seen = arrival.last + 1;
            if arrival.kind.skip {
                self.archive_idle(first, arrival.last, marks);
                continue;
            }
            self.bring(now, first, arrival, marks);
        }
        self.seen > before
    }

    /// Says of the records of an arrival what is particular about them; of those that nothing has happened to also when they are due.
    fn bring(&mut self, now: TimestampMs, first: i64, arrival: &Arrival, marks: &mut Vec<Mark>) {
        let kind = &arrival.kind;
        let nature = Nature {
            priority: kind.priority.min(self.lines.top()),
            expires: kind.expires.map_or(NEVER, |at| shared_expiry(now, at)),
        };
        let key = kind.key.filter(|_| self.lines.rule().is_any()).map(|hash| self.lines.open(hash));
        let mut at = first;
        while at <= arrival.last {
            let run = match self.find(at) {
                Some((_, run)) => Run { last: run.last.min(arrival.last), nature, key, ..run },
                None => Run { nature, key, ..Run::fresh(arrival.last) },
            };
            let idle = matches!(run.state, State::Available | State::Waiting { .. });
            if idle && nature.expires <= now {
                self.finish(at, run, State::Archived, marks);
            } else if !run.state.is_done() {
                let due = kind.due.filter(|due| run.is_untouched() && *due > now);
                let state = due.map_or(run.state, |due| State::Waiting { until: keepable(due) });
                self.set(at, Run { state, ..run });
            }
            at = run.last + 1;
        }
        if let Some(key) = key {
            self.lines.leave(key);
        }
    }

    fn hand_out(
        &mut self,
        now: TimestampMs,
        holder: Holder,
        wanted: &Receive,
        marks: &mut Vec<Mark>,
    ) -> Vec<Range> {
        let room = wanted.terms.max_in_flight - self.counts.leased;
        let left = if wanted.gives_way.is_some() { wanted.max_records } else { wanted.max_records.min(room) };
        let mut giving = Giving {
            now,
            holder,
            until: now.saturating_add(wanted.lease_ms.max(0)),
            taking: Taking { left, ranges: Vec::new(), is_over: false },
            gives_way: wanted.gives_way,
            marks,
        };
        // Before all of a window was seen again it is not known of which keys something is with somebody.
        let may_be_key = self.seen >= self.end;
        while giving.taking.left > 0 {
            let (is_from_below, most) = match wanted.gives_way {
                Some(_) => (true, i64::MAX),
                None => self.lines.turn(),
            };
            let levels = 0..=self.lines.top();
            let next = match is_from_below {
                true => levels.into_iter().find_map(|level| self.next_of(level, may_be_key)),
                false => levels.rev().find_map(|level| self.next_of(level, may_be_key)),
            };
            match next {
                Some(Next::Plain(first)) => drop(self.give(&mut giving, first, most)),
                Some(Next::Key(key)) => self.give_key(&mut giving, key, most),
                None => break,
            }
        }
        // What has given way was with nobody: it makes no room.
        self.was_full = room <= 0;
        giving.taking.ranges
    }

    /// What is next at a priority, if it may be handed out.
    fn next_of(&mut self, priority: u8, may_be_key: bool) -> Option<Next> {
        loop {
            let next = self.lines.next_of(priority, may_be_key)?;
            match next {
                Next::Key(key) if self.ready_at(key) != Some(priority) => {}
                _ => return Some(next),
            }
        }
    }

    /// The priority at which a key may have something handed out.
    fn ready_at(&self, key: KeyId) -> Option<u8> {
        let (_, run) = self.find(self.lines.front(key)?)?;
        let is_ready = run.state == State::Available && self.lines.allowance(key) > 0;
        is_ready.then_some(run.nature.priority)
    }

    /// A key may have become ready.
    pub(super) fn refresh(&mut self, key: KeyId) {
        if let Some(priority) = self.ready_at(key)
            && self.lines.enlist(key, priority)
        {
            self.changes += 1;
        }
    }

    /// Of a key in order as much as can be, so that few keys are held up; else one record, so that all keys get on.
    fn give_key(&mut self, giving: &mut Giving<'_>, key: KeyId, most: i64) {
        let is_fifo = self.lines.rule().fifo;
        let mut most = most.min(self.lines.allowance(key)).min(if is_fifo { i64::MAX } else { 1 });
        let mut next = self.lines.front(key);
        while most > 0
            && giving.taking.left > 0
            && let Some(first) = next
        {
            match self.find(first) {
                Some((_, run)) if run.state == State::Available => {}
                _ => break,
            }
            let (last, given) = self.give(giving, first, most);
            if giving.gives_way.is_none() {
                self.lines.spend(giving.now, key, given);
            }
            most -= given;
            next = self.lines.behind(key, last).filter(|_| is_fifo);
        }
        self.refresh(key);
    }

    /// Hands out at most `most` records of the available run at `first`, or has them give way, unless it was handed out too often.
    /// The last that was dealt with, and how many were handed out.
    fn give(&mut self, giving: &mut Giving<'_>, first: i64, most: i64) -> (i64, i64) {
        let Some((_, mut run)) = self.find(first) else { return (first, 0) };
        if self.terms.is_some_and(|terms| run.deliveries >= terms.delivery_limit) {
            self.die(first, run, giving.marks);
            return (run.last, 0);
        }
        run.last = run.last.min(first.saturating_add(most.min(giving.taking.left) - 1));
        let records = run.len(first);
        match giving.gives_way {
            Some(dead) => self.die_as(dead, Cause::GaveWay, first, run, giving.marks),
            None => {
                self.lease(first, &mut run, giving.holder, giving.until, giving.marks);
                self.lines.turned(records);
            }
        }
        giving.taking.push(Range { first, last: run.last, deliveries: run.deliveries }, i64::MAX);
        giving.taking.left -= records;
        (run.last, records)
    }

    /// Does what the holder of a receipt says.
    ///
    /// # Errors
    /// A receipt that is worth nothing.
    pub fn settle(
        &mut self,
        now: TimestampMs,
        settle: &Settle,
        marks: &mut Vec<Mark>,
    ) -> Result<(), SettleError> {
        let Settle { offset, deliveries, what } = *settle;
        let run = match self.find(offset) {
            Some((_, run)) => Run { last: offset, ..run },
            None if offset < self.start && what == Settlement::Done => return Ok(()),
            None => return Err(SettleError::Gone),
        };
        match run.state {
            State::Acknowledged | State::Archived if what == Settlement::Done => return Ok(()),
            State::Acknowledged | State::Archived => return Err(SettleError::Gone),
            // What gave way may never have been delivered: only its mover knows of it, which may have taken its time.
            State::Dead { until, .. } if deliveries == 0 && run.deliveries == 0 => {
                self.settle_dead(now, run, until != FREE, offset, what, marks)?;
            }
            _ if deliveries == 0 => return Err(SettleError::Gone),
            _ if deliveries < run.deliveries => return Err(SettleError::TakenAgain),
            // Of a member, or held; or of somebody else after a crash that has forgotten this receipt.
            State::Leased { holder, .. } if holder != Holder::RECEIPT || deliveries > run.deliveries => {
                return Err(SettleError::TakenAgain);
            }
            State::Available | State::Waiting { .. } | State::Leased { .. } if !is_lent(run.state, what) => {
                return Err(SettleError::TakenAgain);
            }
            // Its lease is over: that has counted.
            State::Available | State::Waiting { .. } if what == Settlement::Unseen => {}
            State::Dead { until, .. } => self.settle_dead(now, run, until != FREE, offset, what, marks)?,
            State::Available | State::Waiting { .. } | State::Leased { .. } => {
                self.settle_live(now, Run { deliveries, ..run }, offset, what, marks);
            }
        }
        self.advance();
        Ok(())
    }

    fn settle_live(
        &mut self,
        now: TimestampMs,
        run: Run,
        offset: i64,
        what: Settlement,
        marks: &mut Vec<Mark>,
    ) {
        let mut run = run;
        let terms = self.terms;
        let limit = terms.map_or(u16::MAX, |terms| terms.delivery_limit);
        let after_ms = match what {
            Settlement::Done => return self.finish(offset, run, State::Acknowledged, marks),
            Settlement::Drop => return self.finish(offset, run, State::Archived, marks),
            // What a queue goes by is not known before somebody receives: it may want to have what died.
            Settlement::Reject => {
                let dead = terms.map_or(Dead::Keep, |terms| terms.dead);
                return self.die_as(dead, Cause::Failed, offset, run, marks);
            }
            Settlement::Extend { for_ms } if for_ms > 0 => {
                let until = keepable(now.saturating_add(for_ms));
                let run = Run { state: State::Leased { holder: Holder::RECEIPT, until }, ..run };
                self.set(offset, run);
                return push_mark(marks, run.mark(offset));
            }
            Settlement::Unseen => {
                run.deliveries -= 1;
                0
            }
            Settlement::Extend { .. } => 0,
            Settlement::Return { after_ms: Some(ms) } => ms,
            Settlement::Return { after_ms: None } | Settlement::Abandon { .. } => {
                terms.map_or(0, |terms| terms.backoff.after(run.deliveries))
            }
        };
        let state = State::available_at(now, now.saturating_add(after_ms));
        if let Some((first, run)) = self.give_back_as(state, offset, run, limit, marks) {
            // Without that the lease would be there again after a restart.
            push_mark(marks, run.mark(first));
        }
    }

    /// `is_moved`: it is with the mover. Whoever had it before it died can still say that it was dealt with.
    fn settle_dead(
        &mut self,
        now: TimestampMs,
        run: Run,
        is_moved: bool,
        offset: i64,
        what: Settlement,
        marks: &mut Vec<Mark>,
    ) -> Result<(), SettleError> {
        let after_ms = match what {
            Settlement::Done => {
                self.finish(offset, run, State::Archived, marks);
                return Ok(());
            }
            _ if !is_moved => return Err(SettleError::Gone),
            Settlement::Reject | Settlement::Drop | Settlement::Unseen | Settlement::Abandon { .. } => {
                return Err(SettleError::Gone);
            }
            Settlement::Return { after_ms } => after_ms.unwrap_or(0),
            Settlement::Extend { for_ms } => for_ms,
        };
        let until = if after_ms > 0 { keepable(now.saturating_add(after_ms)) } else { FREE };
        self.set(offset, run.moved_until(until));
        Ok(())
    }

    /// Hands dead records to whoever moves them, for a time: the oldest first. Each is settled as [`Settlement::Done`] when it is
    /// where it belongs.
    pub fn take_dead(&mut self, now: TimestampMs, max_records: i64, lease_ms: i64) -> Vec<Died> {
        let (mut left, mut taken) = (max_records, Vec::new());
        while left > 0
            && let Some((first, ())) = self.dead.first()
            && let Some((_, run)) = self.find(first)
            && let State::Dead { cause, .. } = run.state
        {
            let until = keepable(now.saturating_add(lease_ms.max(1)));
            let run = Run { last: run.last.min(first.saturating_add(left - 1)), ..run.moved_until(until) };
            self.set(first, run);
            let died = |offset| Died { offset, deliveries: run.deliveries, cause };
            taken.extend((first..=run.last).map(died));
            left -= run.len(first);
        }
        taken
    }

    /// Archives all below `offset_end_exclusive`, whatever it is.
    pub fn purge(&mut self, offset_end_exclusive: i64, marks: &mut Vec<Mark>) {
        if offset_end_exclusive <= self.start {
            return;
        }
        let run = Run::fresh(offset_end_exclusive - 1);
        self.finish(self.start, run, State::Archived, marks);
        self.advance();
    }
}

/// Whether what is lent until a time is still what who is gone has had; of other settlements that does not matter.
fn is_lent(state: State, what: Settlement) -> bool {
    match (what, state) {
        (Settlement::Abandon { from_ms, to_ms }, State::Leased { until, .. }) => {
            (from_ms..=to_ms).contains(&until)
        }
        (Settlement::Abandon { .. }, _) => false,
        _ => true,
    }
}

/// When records expire that live for long: up to a thousandth of that later, so that those of the same time are of one kind, which
/// costs nothing for each.
fn shared_expiry(now: TimestampMs, expires: TimestampMs) -> TimestampMs {
    let left_ms = expires.saturating_sub(now);
    if left_ms < EXPIRES_EXACTLY_MS {
        return keepable(expires);
    }
    // A power of two, so that neighbours come to the same.
    let step = 1 << (left_ms.ilog2() - 10);
    keepable(expires.saturating_add(step - 1) & !(step - 1))
}

/// A receive under way.
struct Giving<'a> {
    now: TimestampMs,
    holder: Holder,
    until: TimestampMs,
    taking: Taking,
    /// As [`Receive::gives_way`]: then nobody is given anything.
    gives_way: Option<Dead>,
    marks: &'a mut Vec<Mark>,
}

#[cfg(test)]
mod tests;
