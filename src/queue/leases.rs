//! The lease engine: which records of one partition of a queue are waiting, with whom, and which are done.
//!
//! The state is a window over the log, tiled by runs of neighbouring records that share one state: below `start` everything is
//! done, from `end` on nothing was looked at. `start` moves on over done records by itself, so the first run is never a done one.
//! What may be handed out is an index of its own beside the runs (`available`): a record that is to wait for longer, or for its
//! turn, has only to stay out of it. Times come in as arguments; nothing here waits, and nothing is written: what must last
//! comes out as [`Mark`]s, and [`Leases::apply`] makes the same window of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::clock::TimestampMs;

/// Runs that a window may have for each record that may be in flight: what is done between records that are not is bounded too.
const RUNS_A_LOCK: usize = 4;

/// Runs that a window may have at all: they go into one record of its log.
pub const RUNS_MAX: usize = 1 << 15;

/// Deliveries from which on records are handed out in pieces, at least.
const ISOLATED_FROM_DELIVERIES: u16 = 2;

/// Who holds a lease, by the caller's own numbering.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Holder(pub u32);

/// What has become of a record, as far as it lasts over a restart. Leases do not: who held one has lost its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Nothing yet: it can be handed out, or is with somebody.
    Available,
    /// Somebody has dealt with it.
    Acknowledged,
    /// Nobody will: refused, delivered too often, or gone from the log.
    Archived,
}

/// A change of the window that lasts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// First record.
    pub first: i64,
    /// Last record, inclusive.
    pub last: i64,
    /// What they are now.
    pub outcome: Outcome,
    /// How often they have been handed out.
    pub deliveries: u16,
}

/// The state of a run of records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Available,
    Leased { holder: Holder, until: TimestampMs },
    Acknowledged,
    Archived,
}

impl State {
    fn is_done(self) -> bool {
        matches!(self, Self::Acknowledged | Self::Archived)
    }

    fn outcome(self) -> Outcome {
        match self {
            Self::Available | Self::Leased { .. } => Outcome::Available,
            Self::Acknowledged => Outcome::Acknowledged,
            Self::Archived => Outcome::Archived,
        }
    }
}

impl From<Outcome> for State {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Available => Self::Available,
            Outcome::Acknowledged => Self::Acknowledged,
            Outcome::Archived => Self::Archived,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Run {
    /// Inclusive.
    last: i64,
    deliveries: u16,
    state: State,
}

impl Run {
    fn len(&self, first: i64) -> i64 {
        self.last - first + 1
    }

    fn mark(&self, first: i64) -> Mark {
        Mark { first, last: self.last, outcome: self.state.outcome(), deliveries: self.deliveries }
    }
}

/// How many records a taker gets. KIP-1206.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Portion {
    /// About as many as asked for, in whole batches.
    WholeBatches,
    /// No more than asked for.
    Exact,
}

/// What a taker wants, and of which batches.
#[derive(Clone, PartialEq, Debug)]
pub struct Take {
    /// Where the reading of the log began.
    pub from: i64,
    /// First and last offset of each batch that was read, in order; between them, and before the first, there are no records.
    pub batches: Vec<(i64, i64)>,
    /// How many records.
    pub max_records: i64,
    /// Records of which a range of the answer is made, about: it ends where a batch does.
    pub range_records: i64,
    /// How exactly `max_records` is meant.
    pub portion: Portion,
    /// When the lease ends.
    pub until: TimestampMs,
    /// Deliveries after which a record is not handed out again.
    pub delivery_limit: u16,
    /// Records that may be handed out or waiting again at a time.
    pub max_in_flight: i64,
}

/// Records handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// First record.
    pub first: i64,
    /// Last record, inclusive.
    pub last: i64,
    /// How often they have been handed out, this time included.
    pub deliveries: u16,
}

/// What a holder says of records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// There is no record at that offset.
    Gap,
    /// Dealt with.
    Accept,
    /// Somebody else shall have it.
    Release,
    /// Nobody can deal with it.
    Reject,
    /// Still at it: the lease begins anew. KIP-1222.
    Renew,
}

/// A verdict on neighbouring records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ack {
    /// First record.
    pub first: i64,
    /// Last record, inclusive.
    pub last: i64,
    /// The verdict.
    pub verdict: Verdict,
}

/// A verdict on a record that the holder does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the record at offset {offset} is not with this member")]
pub struct NotHeld {
    /// The first such offset.
    pub offset: i64,
}

/// The window. See the module.
#[derive(Clone, Debug)]
pub struct Leases {
    start: i64,
    end: i64,
    /// By first offset; they tile `start..end`.
    runs: BTreeMap<i64, Run>,
    /// First offsets of the runs that can be handed out.
    available: BTreeSet<i64>,
    /// When leases end, and over which offsets they were given; what was acknowledged since stays until its time is over or
    /// `start` has passed it.
    ends: BTreeMap<(TimestampMs, i64), i64>,
    /// Records that each holder has.
    held: HashMap<Holder, i64>,
    /// Records of the window that are done.
    done: i64,
    /// Whether the last taker found the window full.
    was_full: bool,
    /// Counts what a taker who found nothing waits for.
    changes: u64,
}

impl Leases {
    /// A window without records, at `start`.
    pub fn new(start: i64) -> Self {
        Self {
            start,
            end: start,
            runs: BTreeMap::new(),
            available: BTreeSet::new(),
            ends: BTreeMap::new(),
            held: HashMap::new(),
            done: 0,
            was_full: false,
            changes: 0,
        }
    }

    /// First record that is not done, or that was not looked at.
    pub fn start(&self) -> i64 {
        self.start
    }

    /// First record that was never looked at.
    pub fn end(&self) -> i64 {
        self.end
    }

    /// Where the next taker should read.
    pub fn next(&self) -> i64 {
        self.available.first().copied().unwrap_or(self.end)
    }

    /// Records from `start` on that are done.
    pub fn done(&self) -> i64 {
        self.done
    }

    /// Records that are handed out, or wait again after they have been.
    pub fn in_flight(&self) -> i64 {
        self.end - self.start - self.done
    }

    /// Whether `holder` has any record.
    pub fn holds(&self, holder: Holder) -> bool {
        self.held.contains_key(&holder)
    }

    /// Rises when a taker who found nothing may find something.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// When [`Leases::expire`] has something to do.
    pub fn deadline(&self) -> Option<TimestampMs> {
        self.ends.first_key_value().map(|((until, _), _)| *until)
    }

    /// The state of every record of the window, in order: applied to a new window at `start`, they make this one.
    pub fn marks(&self) -> Vec<Mark> {
        let mut marks = Vec::new();
        self.runs.iter().for_each(|(first, run)| push_mark(&mut marks, run.mark(*first)));
        marks
    }

    /// Who holds the record at `offset`, and until when.
    pub fn lease_of(&self, offset: i64) -> Option<(Holder, TimestampMs)> {
        let (_, run) = self.runs.range(..=offset).next_back().filter(|(_, run)| run.last >= offset)?;
        match run.state {
            State::Leased { holder, until } => Some((holder, until)),
            State::Available | State::Acknowledged | State::Archived => None,
        }
    }

    /// Takes in a change; what lies below `start` is passed over. Leases on the records end.
    pub fn apply(&mut self, mark: &Mark) {
        let first = mark.first.max(self.start);
        if mark.last < first {
            return;
        }
        if first > self.end {
            self.put(self.end, Run { last: first - 1, deliveries: 0, state: State::Available });
        }
        self.set(first, mark.last, State::from(mark.outcome), mark.deliveries);
        self.advance();
    }

    /// Moves `start` on to `start`: what lies below is done, whatever it was.
    pub fn raise_start(&mut self, start: i64) {
        if start <= self.start {
            return;
        }
        if start > self.end {
            self.runs.clear();
            (self.start, self.end) = (start, start);
            self.recount();
            return;
        }
        self.split(start);
        while let Some((first, _)) = self.runs.first_key_value().filter(|(first, _)| **first < start) {
            let first = *first;
            self.take_out(first);
        }
        self.start = start;
        self.advance();
    }

    fn recount(&mut self) {
        self.available.clear();
        self.ends.clear();
        self.held.clear();
        self.done = 0;
    }

    /// The log begins at `log_start` now: what was not handed out below is archived. What is with somebody stays there.
    pub fn archive_below(&mut self, log_start: i64, marks: &mut Vec<Mark>) {
        if log_start <= self.start {
            return;
        }
        self.archive_available(self.start, log_start - 1, marks);
        self.archive_unseen(log_start - 1, marks);
        self.advance();
    }

    /// Hands out what can be of the batches that were read. Nothing, if the window is full, if others were faster, or if the
    /// reading began behind its end; then [`Leases::next`] says where to read.
    pub fn take(&mut self, holder: Holder, take: &Take, marks: &mut Vec<Mark>) -> Vec<Range> {
        if take.from > self.end {
            return Vec::new();
        }
        let mut taking = Taking { left: take.max_records, ranges: Vec::new(), is_over: false };
        let mut expected = take.from.max(self.start);
        for (first, last) in &take.batches {
            if taking.is_over || taking.left <= 0 {
                break;
            }
            let first = *first.max(&expected);
            if *last < first {
                continue;
            }
            if first > expected {
                self.archive_available(expected, first - 1, marks);
                self.archive_unseen(first - 1, marks);
            }
            self.take_batch(holder, take, (first, *last), &mut taking, marks);
            expected = last + 1;
        }
        self.advance();
        taking.ranges
    }

    fn take_batch(
        &mut self,
        holder: Holder,
        take: &Take,
        (first, last): (i64, i64),
        taking: &mut Taking,
        marks: &mut Vec<Mark>,
    ) {
        for (first, mut last, deliveries) in self.takeable(first, last) {
            if deliveries >= take.delivery_limit {
                // Its last lease ended with the process, or the limit is lower now.
                let run = Run { last, deliveries, state: State::Available };
                self.finish(first, run, State::Archived, marks);
                continue;
            }
            let last_of_piece = last;
            if first >= self.end {
                let room = self.room(take.max_in_flight);
                self.was_full = room <= 0;
                if self.was_full {
                    taking.is_over = true;
                    return;
                }
                if take.portion == Portion::Exact {
                    last = last.min(first + room - 1);
                }
            }
            if let Some(piece) = isolated(deliveries, take.delivery_limit, last - first + 1) {
                taking.is_over = true;
                if !taking.ranges.is_empty() {
                    return;
                }
                last = first + piece - 1;
            }
            if take.portion == Portion::Exact {
                last = last.min(first + taking.left - 1);
            }
            taking.is_over |= last < last_of_piece;
            let deliveries = deliveries.saturating_add(1);
            self.set(first, last, State::Leased { holder, until: take.until }, deliveries);
            self.ends_at(take.until, first, last);
            push_mark(marks, Mark { first, last, outcome: Outcome::Available, deliveries });
            taking.push(Range { first, last, deliveries }, take.range_records);
            taking.left -= last - first + 1;
            if taking.is_over || (take.portion == Portion::Exact && taking.left <= 0) {
                return;
            }
        }
    }

    /// How many records that were never handed out may be.
    fn room(&self, max_in_flight: i64) -> i64 {
        let runs_max = RUNS_A_LOCK.saturating_mul(usize::try_from(max_in_flight).unwrap_or(0)).min(RUNS_MAX);
        if self.runs.len() < runs_max { max_in_flight - self.in_flight() } else { 0 }
    }

    /// Whether the window can be cut by so many verdicts. One at a time always can: that makes no more runs than were handed out.
    pub fn has_room_for(&self, acks: usize) -> bool {
        acks <= 1 || self.runs.len().saturating_add(acks.saturating_mul(2)) <= RUNS_MAX
    }

    /// The pieces of `first..=last` that can be handed out, and how often they have been.
    fn takeable(&self, first: i64, last: i64) -> Vec<(i64, i64, u16)> {
        let mut pieces = Vec::new();
        if first > last {
            return pieces;
        }
        let before = self.runs.range(..=first).next_back().map_or(first, |(first, _)| *first);
        for (at, run) in self.runs.range(before..=last) {
            let (from, to) = (first.max(*at), last.min(run.last));
            if run.state == State::Available && from <= to {
                pieces.push((from, to, run.deliveries));
            }
        }
        if last >= self.end {
            pieces.push((first.max(self.end), last, 0));
        }
        pieces
    }

    /// Carries out what `holder` says of its records: all of it, or nothing. What lies below `start` is done already and passed
    /// over. Released records that were delivered `delivery_limit` times are archived; renewed ones are leased until `renewed`.
    ///
    /// # Errors
    /// A record that is not with `holder` at `now`.
    pub fn acknowledge(
        &mut self,
        now: TimestampMs,
        holder: Holder,
        acks: &[Ack],
        delivery_limit: u16,
        renewed: TimestampMs,
        marks: &mut Vec<Mark>,
    ) -> Result<(), NotHeld> {
        acks.iter().try_for_each(|ack| self.check_held(now, holder, ack))?;
        for ack in acks {
            let first = ack.first.max(self.start);
            if first > ack.last {
                continue;
            }
            self.split(first);
            self.split(ack.last + 1);
            let runs: Vec<_> = self.runs.range(first..=ack.last).map(|(at, run)| (*at, *run)).collect();
            for (at, run) in runs {
                match ack.verdict {
                    Verdict::Accept => self.finish(at, run, State::Acknowledged, marks),
                    Verdict::Gap | Verdict::Reject => self.finish(at, run, State::Archived, marks),
                    Verdict::Release => self.give_back(at, run, delivery_limit, marks),
                    Verdict::Renew => {
                        self.set(at, run.last, State::Leased { holder, until: renewed }, run.deliveries);
                        self.ends_at(renewed, at, run.last);
                    }
                }
            }
        }
        self.advance();
        Ok(())
    }

    fn check_held(&self, now: TimestampMs, holder: Holder, ack: &Ack) -> Result<(), NotHeld> {
        let first = ack.first.max(self.start);
        if first > ack.last {
            return Ok(());
        }
        if ack.last >= self.end {
            return Err(NotHeld { offset: ack.last });
        }
        let before = self.runs.range(..=first).next_back().map_or(first, |(first, _)| *first);
        for (at, run) in self.runs.range(before..=ack.last) {
            match run.state {
                State::Leased { holder: of, until } if of == holder && until > now => {}
                _ => return Err(NotHeld { offset: first.max(*at) }),
            }
        }
        Ok(())
    }

    /// Gives back all that `holder` has, as if its leases were over.
    pub fn release(&mut self, holder: Holder, delivery_limit: u16, marks: &mut Vec<Mark>) {
        if !self.holds(holder) {
            return;
        }
        let is_its = |run: &Run| matches!(run.state, State::Leased { holder: of, .. } if of == holder);
        let runs: Vec<_> =
            self.runs.iter().filter(|(_, run)| is_its(run)).map(|(at, run)| (*at, *run)).collect();
        for (at, run) in runs {
            self.give_back(at, run, delivery_limit, marks);
        }
        self.advance();
    }

    /// Gives back what is leased until `now` or earlier.
    pub fn expire(&mut self, now: TimestampMs, delivery_limit: u16, marks: &mut Vec<Mark>) {
        while let Some(((until, first), last)) = self.ends.first_key_value().map(|(key, last)| (*key, *last))
        {
            if until > now {
                break;
            }
            self.ends.pop_first();
            let first = self.runs.range(..=first).next_back().map_or(first, |(at, _)| *at);
            let is_over = |run: &Run| matches!(run.state, State::Leased { until, .. } if until <= now);
            let runs: Vec<_> = self
                .runs
                .range(first..=last.max(first))
                .filter(|(_, run)| is_over(run))
                .map(|(at, run)| (*at, *run))
                .collect();
            for (at, run) in runs {
                self.give_back(at, run, delivery_limit, marks);
            }
        }
        self.advance();
    }

    /// Unless it was delivered too often. That it is available again needs no mark: as far as lasts, it always was.
    fn give_back(&mut self, first: i64, run: Run, delivery_limit: u16, marks: &mut Vec<Mark>) {
        if run.deliveries >= delivery_limit {
            return self.finish(first, run, State::Archived, marks);
        }
        self.set(first, run.last, State::Available, run.deliveries);
        self.changes += 1;
    }

    fn finish(&mut self, first: i64, run: Run, state: State, marks: &mut Vec<Mark>) {
        self.set(first, run.last, state, run.deliveries);
        push_mark(marks, Run { state, ..run }.mark(first));
        if self.was_full {
            self.was_full = false;
            self.changes += 1;
        }
    }

    fn archive_available(&mut self, first: i64, last: i64, marks: &mut Vec<Mark>) {
        for (first, last, deliveries) in self.takeable(first, last.min(self.end - 1)) {
            self.finish(first, Run { last, deliveries, state: State::Available }, State::Archived, marks);
        }
    }

    /// Archives what lies behind the end of the window, up to `last`.
    fn archive_unseen(&mut self, last: i64, marks: &mut Vec<Mark>) {
        if self.end <= last {
            let run = Run { last, deliveries: 0, state: State::Available };
            self.finish(self.end, run, State::Archived, marks);
        }
    }

    fn ends_at(&mut self, until: TimestampMs, first: i64, last: i64) {
        // Batches of one take follow each other: one entry for all of them.
        if let Some(((_, _), end)) = self.ends.range_mut((until, i64::MIN)..=(until, first)).next_back()
            && *end >= first - 1
        {
            *end = last.max(*end);
            return;
        }
        self.ends.insert((until, first), last);
    }

    /// Gives `first..=last`, of which `first` is not behind the end of the window, a state.
    fn set(&mut self, first: i64, last: i64, state: State, deliveries: u16) {
        // What is done is the same however often it had to be tried.
        let deliveries = if state.is_done() { 0 } else { deliveries };
        self.split(first);
        self.split(last + 1);
        let inside: Vec<_> = self.runs.range(first..=last).map(|(at, _)| *at).collect();
        for at in inside {
            self.take_out(at);
        }
        let (mut first, mut run) = (first, Run { last, deliveries, state });
        let is_same = |other: &Run| other.state == state && other.deliveries == deliveries;
        let left = self.runs.range(..first).next_back().map(|(at, left)| (*at, *left));
        if let Some((at, _)) = left.filter(|(_, left)| left.last + 1 == first && is_same(left)) {
            self.take_out(at);
            first = at;
        }
        if let Some(right) = self.runs.get(&(last + 1)).copied().filter(|right| is_same(right)) {
            self.take_out(last + 1);
            run.last = right.last;
        }
        self.put(first, run);
    }

    /// Sees to it that no run goes across `offset`.
    fn split(&mut self, offset: i64) {
        let before = self.runs.range(..offset).next_back().map(|(first, run)| (*first, *run));
        if let Some((first, run)) = before.filter(|(_, run)| run.last >= offset) {
            self.take_out(first);
            self.put(first, Run { last: offset - 1, ..run });
            self.put(offset, run);
        }
    }

    /// Lets go of what is done at the front.
    fn advance(&mut self) {
        while let Some((first, run)) = self.runs.first_key_value().filter(|(_, run)| run.state.is_done()) {
            let (first, last) = (*first, run.last);
            self.take_out(first);
            self.start = last + 1;
        }
        while self.ends.first_key_value().is_some_and(|(_, last)| *last < self.start) {
            self.ends.pop_first();
        }
    }

    fn put(&mut self, first: i64, run: Run) {
        match run.state {
            State::Available => drop(self.available.insert(first)),
            State::Leased { holder, .. } => *self.held.entry(holder).or_default() += run.len(first),
            State::Acknowledged | State::Archived => self.done += run.len(first),
        }
        self.end = self.end.max(run.last + 1);
        self.runs.insert(first, run);
    }

    fn take_out(&mut self, first: i64) -> Option<Run> {
        let run = self.runs.remove(&first)?;
        match run.state {
            State::Available => drop(self.available.remove(&first)),
            State::Leased { holder, .. } => {
                if let Some(held) = self.held.get_mut(&holder) {
                    *held -= run.len(first);
                    if *held == 0 {
                        self.held.remove(&holder);
                    }
                }
            }
            State::Acknowledged | State::Archived => self.done -= run.len(first),
        }
        Some(run)
    }
}

/// A take under way.
struct Taking {
    /// Records that may still be handed out.
    left: i64,
    ranges: Vec<Range>,
    is_over: bool,
}

impl Taking {
    /// Ranges of neighbours grow together until they have `range_records`.
    fn push(&mut self, range: Range, range_records: i64) {
        match self.ranges.last_mut() {
            Some(last)
                if last.last + 1 == range.first
                    && last.deliveries == range.deliveries
                    && last.last - last.first + 1 < range_records =>
            {
                last.last = range.last;
            }
            _ => self.ranges.push(range),
        }
    }
}

fn push_mark(marks: &mut Vec<Mark>, mark: Mark) {
    match marks.last_mut() {
        Some(last)
            if last.last + 1 == mark.first
                && last.outcome == mark.outcome
                && last.deliveries == mark.deliveries =>
        {
            last.last = mark.last;
        }
        _ => marks.push(mark),
    }
}

/// How many of `records` are handed out at a time once they have failed often enough that one of them may be the reason: fewer
/// from one delivery to the next, and at the last attempt each alone, so that none is archived for what its neighbour does.
fn isolated(deliveries: u16, delivery_limit: u16, records: i64) -> Option<i64> {
    let from = ISOLATED_FROM_DELIVERIES.max(delivery_limit.div_ceil(2));
    if deliveries < from {
        return None;
    }
    if deliveries.saturating_add(1) >= delivery_limit {
        return Some(1);
    }
    Some(records.checked_shr(u32::from(deliveries - from) + 1).unwrap_or(0).max(1))
}

#[cfg(test)]
mod tests;
