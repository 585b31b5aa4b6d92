//! The lease engine: which records of one partition of a queue are waiting, with whom, and which are done.
//!
//! The state is a window over the log, tiled by runs of neighbouring records that share one state: below `start` everything is
//! done, from `end` on nothing was looked at. `start` moves on over done records by itself, so the first run is never a done one.
//! What may be handed out is an index of its own beside the runs ([`lines`]): a record that is to wait for longer, or for its
//! turn, has only to stay out of it. Whatever ends by itself is in one index by time. Times come in as arguments; nothing here
//! waits, and nothing is written: what must last comes out as [`Mark`]s, and [`Leases::apply`] makes the same window of them.
//!
//! A window is taken from in one of two ways: by share groups in whole batches ([`Leases::take`]), and by queues record by record
//! ([`Leases::receive`]; [`Leases::go_plain`] is the way back), which know of each record when it is due, its key and its priority. That is read from
//! the log and lives in memory alone: `seen` is how far it was read.

mod inspect;
mod keys;
mod kinds;
mod lines;
mod pick;
mod receive;

use std::collections::HashMap;

pub use inspect::{Condition, Standing};
use keys::KeyId;
use kinds::{KindId, Kinds, NEVER, Nature};
use lines::{KeyRule, Lines};
pub use pick::{Pick, Picked};
pub use receive::{
    Arrival, Backoff, Dead, Died, Kind, QueueTerms, Receive, Received, Settle, SettleError, Settlement,
};

use super::sorted::Sorted;
use super::timers::Timers;
use crate::clock::TimestampMs;

/// Runs that a window may have for each record that may be in flight: what is done between records that are not is bounded too.
const RUNS_A_LOCK: usize = 4;

/// Runs that a share group's window may have at all, and that what it says of records may make.
pub const RUNS_MAX: usize = 1 << 15;

/// Deliveries from which on records are handed out in pieces, at least.
const ISOLATED_FROM_DELIVERIES: u16 = 2;

/// What ends by itself at a time, at most: who asks for something waits no longer than that takes.
const ENDS_A_STEP: usize = 1_024;

/// Deliveries that are told apart: Kafka's format has no room for more.
const DELIVERIES_MAX: u16 = i16::MAX as u16;

/// Who holds a lease, by the caller's own numbering.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Holder(pub u32);

impl Holder {
    /// Nobody by name: whoever shows the receipt, which is the record's offset and the number of its delivery.
    pub const RECEIPT: Self = Self(0);

    /// Who deals with records for what they are, see [`Leases::pick`].
    pub const PICKER: Self = Self(u32::MAX);
}

/// What has become of a record, as far as it lasts over a restart. Leases of members do not: their connections are lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Nothing yet: it can be handed out, or is with a member, or held.
    Available,
    /// It is with whoever has the receipt.
    Leased {
        /// For how long.
        until: TimestampMs,
    },
    /// It was given back, to be handed out again later.
    Waiting {
        /// Not before.
        until: TimestampMs,
    },
    /// Somebody has dealt with it.
    Acknowledged,
    /// Not yet where dead ones go.
    Dead {
        /// Why it is one.
        cause: Cause,
    },
    /// Nobody will: refused, delivered too often, or gone from the log.
    Archived,
}

/// Why a record is dead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// It was refused or delivered too often.
    Failed,
    /// It gave way to others, without having been handed out for that.
    GaveWay,
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

/// Records of a window by their state.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Can be handed out, as far as their keys allow.
    pub ready: i64,
    /// With somebody.
    pub leased: i64,
    /// Delayed or backing off.
    pub waiting: i64,
    /// Refused, delivered too often or given way to others, and not yet where dead ones go.
    pub dead: i64,
    /// Done, from the window's start on.
    pub done: i64,
}

/// The state of a run of records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Available,
    Leased {
        holder: Holder,
        until: TimestampMs,
    },
    Waiting {
        until: TimestampMs,
    },
    /// With the mover until then; [`FREE`] if with nobody.
    Dead {
        until: TimestampMs,
        cause: Cause,
    },
    Acknowledged,
    Archived,
}

/// A dead record's `until` while nobody moves it.
const FREE: TimestampMs = 0;

impl State {
    fn is_done(self) -> bool {
        matches!(self, Self::Acknowledged | Self::Archived)
    }

    /// Dead, and with no mover.
    fn is_unmoved(self) -> bool {
        matches!(self, Self::Dead { until: FREE, .. })
    }

    /// With nobody, and not done.
    fn is_idle(self) -> bool {
        self.is_unmoved() || matches!(self, Self::Available | Self::Waiting { .. })
    }

    /// To be handed out, though not before a time.
    fn available_at(now: TimestampMs, time: TimestampMs) -> Self {
        if time > now { Self::Waiting { until: keepable(time) } } else { Self::Available }
    }

    fn outcome(self) -> Outcome {
        match self {
            Self::Leased { holder: Holder::RECEIPT, until } => Outcome::Leased { until },
            Self::Available | Self::Leased { .. } => Outcome::Available,
            Self::Waiting { until } => Outcome::Waiting { until },
            Self::Dead { cause, .. } => Outcome::Dead { cause },
            Self::Acknowledged => Outcome::Acknowledged,
            Self::Archived => Outcome::Archived,
        }
    }
}

impl From<Outcome> for State {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Available => Self::Available,
            Outcome::Leased { until } => Self::Leased { holder: Holder::RECEIPT, until },
            Outcome::Waiting { until } => Self::Waiting { until },
            Outcome::Dead { cause } => Self::Dead { until: FREE, cause },
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
    nature: Nature,
    key: Option<KeyId>,
}

impl Run {
    /// Of records that nobody knows anything of.
    fn fresh(last: i64) -> Self {
        Self { last, deliveries: 0, state: State::Available, nature: Nature::PLAIN, key: None }
    }

    fn len(&self, first: i64) -> i64 {
        self.last - first + 1
    }

    fn mark(&self, first: i64) -> Mark {
        Mark { first, last: self.last, outcome: self.state.outcome(), deliveries: self.deliveries }
    }

    /// Whether that is all the same to the log: nothing has happened to it but that its time has not come.
    fn is_untouched(&self) -> bool {
        self.deliveries == 0 && matches!(self.state.outcome(), Outcome::Available | Outcome::Waiting { .. })
    }

    /// What is dead is with its mover until then.
    fn moved_until(self, until: TimestampMs) -> Self {
        match self.state {
            State::Dead { cause, .. } => Self { state: State::Dead { until, cause }, ..self },
            _ => self,
        }
    }

    /// When its state ends by itself.
    fn timer(&self) -> Option<TimestampMs> {
        let expires = self.nature.expires;
        let time = match self.state {
            State::Available => expires,
            State::Waiting { until } => until.min(expires),
            State::Leased { until, .. } | State::Dead { until, .. } if until != FREE => until,
            _ => NEVER,
        };
        (time != NEVER).then_some(time)
    }

    /// Whether neighbours can be one run.
    fn is_like(&self, other: &Self) -> bool {
        (self.state, self.deliveries, self.nature, self.key)
            == (other.state, other.deliveries, other.nature, other.key)
    }
}

/// A run as it is kept, 16 bytes: where it ends is where the next begins. Packed, so that it needs 20 with 4 for where it begins.
#[derive(Clone, Copy, Debug)]
#[repr(Rust, packed(4))]
struct Packed {
    /// From the lowest on: state, deliveries, time.
    bits: u64,
    kind: KindId,
    key: Option<KeyId>,
}

const STATE_BITS: u32 = 3;
const TIME_SHIFT: u32 = STATE_BITS + u16::BITS;
/// The latest time that fits: some ten centuries from 1970.
const TIME_MAX: TimestampMs = (1 << (u64::BITS - TIME_SHIFT)) - 1;

impl Packed {
    fn new(run: &Run, kinds: &mut Kinds) -> Self {
        let (state, holder, until) = match run.state {
            State::Available => (0, Holder::RECEIPT, 0),
            State::Leased { holder, until } => (1, holder, until),
            State::Waiting { until } => (2, Holder::RECEIPT, until),
            State::Dead { until, cause: Cause::Failed } => (3, Holder::RECEIPT, until),
            State::Dead { until, cause: Cause::GaveWay } => (4, Holder::RECEIPT, until),
            State::Acknowledged => (5, Holder::RECEIPT, 0),
            State::Archived => (6, Holder::RECEIPT, 0),
        };
        let bits = until.cast_unsigned() << TIME_SHIFT | u64::from(run.deliveries) << STATE_BITS | state;
        Self { bits, kind: kinds.join(run.nature, holder), key: run.key }
    }

    fn run(self, last: i64, kinds: &Kinds) -> Run {
        let Self { bits, kind, key } = self;
        let until = (bits >> TIME_SHIFT).cast_signed();
        let (nature, holder) = kinds.get(kind);
        let state = match bits & ((1 << STATE_BITS) - 1) {
            0 => State::Available,
            1 => State::Leased { holder, until },
            2 => State::Waiting { until },
            3 => State::Dead { until, cause: Cause::Failed },
            4 => State::Dead { until, cause: Cause::GaveWay },
            5 => State::Acknowledged,
            _ => State::Archived,
        };
        Run { last, deliveries: (bits >> STATE_BITS) as u16, state, nature, key }
    }
}

/// A time as it can be kept.
fn keepable(time: TimestampMs) -> TimestampMs {
    time.clamp(FREE + 1, TIME_MAX)
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

impl Range {
    /// The offset and delivery count of each of its records.
    pub fn records(self) -> impl Iterator<Item = (i64, u16)> {
        (self.first..=self.last).map(move |offset| (offset, self.deliveries))
    }
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
    runs: Sorted<i64, Packed>,
    /// When the state of which run ends by itself, if it does.
    timers: Timers,
    lines: Lines,
    /// First offsets of the dead runs that nobody moves.
    dead: Sorted<i64>,
    kinds: Kinds,
    /// What this window's queue goes by, if it has been received from.
    terms: Option<QueueTerms>,
    /// What becomes of the dead of a share group that is no queue's.
    dead_of_group: Dead,
    /// From there on it is not known what kinds of records there are; they are not handed out. All is known to share groups.
    seen: i64,
    /// Records that each member has.
    held: HashMap<Holder, i64>,
    counts: Counts,
    /// The first offset that the log still had when records were taken last.
    log_start: i64,
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
            runs: Sorted::default(),
            timers: Timers::default(),
            lines: Lines::new(KeyRule::default(), 1),
            dead: Sorted::default(),
            kinds: Kinds::default(),
            terms: None,
            dead_of_group: Dead::Archive,
            seen: i64::MAX,
            held: HashMap::new(),
            counts: Counts::default(),
            log_start: i64::MIN,
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
        self.lines.first_plain().unwrap_or(self.end.min(self.seen))
    }

    /// Records from `start` on that are done.
    pub fn done(&self) -> i64 {
        self.counts.done
    }

    /// Records that are handed out, or wait again after they have been.
    pub fn in_flight(&self) -> i64 {
        self.end - self.start - self.counts.done
    }

    /// Records by their state.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Runs that the window is made of.
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// Whether there is something dead that nobody moves.
    pub fn has_dead(&self) -> bool {
        !self.dead.is_empty()
    }

    /// What becomes of what dies from now on, where no queue says it.
    pub fn go_by_group(&mut self, dead: Dead) {
        self.dead_of_group = dead;
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
        let of_runs = self.timers.first().map(|(time, _)| time);
        of_runs.into_iter().chain(self.lines.deadline()).min()
    }

    /// The state of every record that something has happened to, in order: applied to a new window at `start`, they make this
    /// one, but for records at its end that nothing has happened to.
    pub fn marks(&self) -> Vec<Mark> {
        let mut marks = Vec::new();
        for (first, run) in self.all_runs().filter(|(_, run)| !run.is_untouched()) {
            push_mark(&mut marks, run.mark(first));
        }
        marks
    }

    fn all_runs(&self) -> impl Iterator<Item = (i64, Run)> {
        let ends = self.runs.iter().skip(1).map(|(first, _)| first).chain([self.end]);
        self.runs.iter().zip(ends).map(|((first, packed), end)| (first, packed.run(end - 1, &self.kinds)))
    }

    /// Who holds the record at `offset`, and until when.
    pub fn lease_of(&self, offset: i64) -> Option<(Holder, TimestampMs)> {
        match self.find(offset)?.1.state {
            State::Leased { holder, until } => Some((holder, until)),
            _ => None,
        }
    }

    /// Takes in a change; what lies below `start` is passed over. Leases of members on the records end.
    pub fn apply(&mut self, mark: &Mark) {
        let first = mark.first.max(self.start);
        if mark.last < first {
            return;
        }
        if first > self.end {
            self.set(self.end, Run::fresh(first - 1));
        }
        let run =
            Run { deliveries: mark.deliveries, state: State::from(mark.outcome), ..Run::fresh(mark.last) };
        self.set(first, run);
        self.advance();
    }

    /// Moves `start` on to `start`: what lies below is done, whatever it was.
    pub fn raise_start(&mut self, start: i64) {
        if start <= self.start {
            return;
        }
        if start > self.end {
            let changes = self.changes;
            *self = Self { changes, ..Self::new(start) };
            return;
        }
        self.set(self.start, Run { state: State::Archived, ..Run::fresh(start - 1) });
        self.advance();
    }

    /// The log begins at `log_start` now: what was not handed out below is archived. What is with somebody stays there, and is
    /// archived when it comes back.
    pub fn archive_below(&mut self, log_start: i64, marks: &mut Vec<Mark>) {
        if log_start <= self.log_start {
            return;
        }
        self.log_start = log_start;
        if log_start <= self.start {
            return;
        }
        self.archive_idle(self.start, log_start - 1, marks);
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
                self.archive_idle(expected, first - 1, marks);
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
        let mut next = first;
        while let Some((first, mut run)) = self.takeable(next, last) {
            next = run.last + 1;
            if run.deliveries >= take.delivery_limit {
                // Its last lease ended with the process, or the limit is lower now.
                self.die(first, run, marks);
                continue;
            }
            let last_of_piece = run.last;
            if first >= self.end {
                let room = self.room(take.max_in_flight);
                self.was_full = room <= 0;
                if self.was_full {
                    taking.is_over = true;
                    return;
                }
                if take.portion == Portion::Exact {
                    run.last = run.last.min(first + room - 1);
                }
            }
            if let Some(piece) = isolated(run.deliveries, take.delivery_limit, run.len(first)) {
                taking.is_over = true;
                if !taking.ranges.is_empty() {
                    return;
                }
                run.last = first + piece - 1;
            }
            if take.portion == Portion::Exact {
                run.last = run.last.min(first + taking.left - 1);
            }
            taking.is_over |= run.last < last_of_piece;
            self.lease(first, &mut run, holder, take.until, marks);
            let range = Range { first, last: run.last, deliveries: run.deliveries };
            taking.push(range, take.range_records);
            taking.left -= run.len(first);
            if taking.is_over || (take.portion == Portion::Exact && taking.left <= 0) {
                return;
            }
        }
    }

    /// Gives `first..=run.last` to somebody, once more than `run` says.
    fn lease(
        &mut self,
        first: i64,
        run: &mut Run,
        holder: Holder,
        until: TimestampMs,
        marks: &mut Vec<Mark>,
    ) {
        run.deliveries = run.deliveries.saturating_add(1).min(DELIVERIES_MAX);
        run.state = State::Leased { holder, until: keepable(until) };
        self.set(first, *run);
        push_mark(marks, run.mark(first));
    }

    /// How many records that were never handed out may be. What is dead takes no room, however long it waits for its mover.
    fn room(&self, max_in_flight: i64) -> i64 {
        let runs_max = RUNS_A_LOCK.saturating_mul(usize::try_from(max_in_flight).unwrap_or(0)).min(RUNS_MAX);
        if self.runs.len() < runs_max { max_in_flight - (self.in_flight() - self.counts.dead) } else { 0 }
    }

    /// Whether the window can be cut by so many verdicts. One at a time always can: that makes no more runs than were handed out.
    pub fn has_room_for(&self, acks: usize) -> bool {
        acks <= 1 || self.runs.len().saturating_add(acks.saturating_mul(2)) <= RUNS_MAX
    }

    /// The first piece of `first..=last` that a member of a share group can be given: nothing that has to wait for its turn, or
    /// that a queue has not seen.
    fn takeable(&self, first: i64, last: i64) -> Option<(i64, Run)> {
        let mut at = first;
        while at <= last && at < self.seen {
            let Some((_, run)) = self.find(at) else {
                let is_new = at >= self.end && self.terms.is_none();
                return is_new.then(|| (at, Run::fresh(last)));
            };
            if run.state == State::Available && run.key.is_none() {
                return Some((at, Run { last: run.last.min(last), ..run }));
            }
            at = run.last + 1;
        }
        None
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
            let mut at = ack.first.max(self.start);
            while at <= ack.last
                && let Some((_, run)) = self.find(at)
            {
                let run = Run { last: run.last.min(ack.last), ..run };
                match ack.verdict {
                    Verdict::Accept => self.finish(at, run, State::Acknowledged, marks),
                    Verdict::Gap => self.finish(at, run, State::Archived, marks),
                    Verdict::Reject => self.die(at, run, marks),
                    Verdict::Release => self.give_back(now, now, at, run, delivery_limit, marks),
                    Verdict::Renew => {
                        let until = keepable(renewed);
                        self.set(at, Run { state: State::Leased { holder, until }, ..run });
                    }
                }
                at = run.last + 1;
            }
        }
        self.advance();
        Ok(())
    }

    fn check_held(&self, now: TimestampMs, holder: Holder, ack: &Ack) -> Result<(), NotHeld> {
        let mut at = ack.first.max(self.start);
        if at <= ack.last && ack.last >= self.end {
            return Err(NotHeld { offset: ack.last });
        }
        while at <= ack.last {
            match self.find(at) {
                Some((_, Run { last, state: State::Leased { holder: of, until }, .. }))
                    if of == holder && until > now =>
                {
                    at = last + 1;
                }
                _ => return Err(NotHeld { offset: at }),
            }
        }
        Ok(())
    }

    /// Gives back all that `holder` has, as if its leases were over.
    pub fn release(&mut self, now: TimestampMs, holder: Holder, delivery_limit: u16, marks: &mut Vec<Mark>) {
        if !self.holds(holder) {
            return;
        }
        let is_its = |run: &Run| matches!(run.state, State::Leased { holder: of, .. } if of == holder);
        let runs: Vec<_> = self.all_runs().filter(|(_, run)| is_its(run)).collect();
        for (at, run) in runs {
            self.give_back(now, now, at, run, delivery_limit, marks);
        }
        self.advance();
    }

    /// Does what is due at `now`, or some of it, if that is much: leases end, delays do, records expire.
    pub fn expire(&mut self, now: TimestampMs, delivery_limit: u16, marks: &mut Vec<Mark>) {
        for _ in 0..ENDS_A_STEP {
            let Some((time, first)) = self.timers.first() else { break };
            if time > now {
                break;
            }
            let Some((_, run)) = self.find(first) else { break };
            let is_expired = run.nature.expires <= now;
            match run.state {
                State::Leased { holder: Holder::PICKER, .. } => {
                    self.put_back(first, run, delivery_limit, marks);
                }
                State::Leased { until, .. } => {
                    self.give_back(now, until, first, run, delivery_limit, marks);
                }
                State::Dead { .. } => self.set(first, run.moved_until(FREE)),
                _ if is_expired => self.finish(first, run, State::Archived, marks),
                _ if run.deliveries >= delivery_limit => self.die(first, run, marks),
                _ => self.set(first, Run { state: State::Available, ..run }),
            }
        }
        while let Some(key) = self.lines.second_over(now) {
            self.refresh(key);
        }
        self.advance();
    }

    /// Its delivery has come to nothing at `since`: it waits for its queue's backoff from then on, unless it was delivered too often,
    /// or has left the log. That it is available again when its lease ends needs no mark.
    fn give_back(
        &mut self,
        now: TimestampMs,
        since: TimestampMs,
        first: i64,
        run: Run,
        delivery_limit: u16,
        marks: &mut Vec<Mark>,
    ) {
        let backoff_ms = self.terms.map_or(0, |terms| terms.backoff.after(run.deliveries));
        let state = State::available_at(now, since.saturating_add(backoff_ms));
        let kept = self.give_back_as(state, first, run, delivery_limit, marks);
        if let Some((first, run)) = kept.filter(|_| state != State::Available) {
            push_mark(marks, run.mark(first));
        }
    }

    /// What of it could be given back.
    fn give_back_as(
        &mut self,
        state: State,
        first: i64,
        run: Run,
        delivery_limit: u16,
        marks: &mut Vec<Mark>,
    ) -> Option<(i64, Run)> {
        let mut first = first;
        if first < self.log_start {
            let last = run.last.min(self.log_start - 1);
            self.finish(first, Run { last, ..run }, State::Archived, marks);
            first = last + 1;
        }
        if first > run.last {
            return None;
        }
        if run.deliveries >= delivery_limit {
            self.die(first, run, marks);
            return None;
        }
        let run = Run { state, ..run };
        self.set(first, run);
        self.has_room();
        Some((first, run))
    }

    /// Nobody shall have it again.
    fn die(&mut self, first: i64, run: Run, marks: &mut Vec<Mark>) {
        let dead = self.terms.map_or(self.dead_of_group, |terms| terms.dead);
        self.die_as(dead, Cause::Failed, first, run, marks);
    }

    fn die_as(&mut self, dead: Dead, cause: Cause, first: i64, run: Run, marks: &mut Vec<Mark>) {
        match dead {
            Dead::Keep => {
                let run = Run { state: State::Dead { until: FREE, cause }, ..run };
                self.set(first, run);
                push_mark(marks, run.mark(first));
                self.has_room();
            }
            Dead::Archive => self.finish(first, run, State::Archived, marks),
        }
    }

    fn finish(&mut self, first: i64, run: Run, state: State, marks: &mut Vec<Mark>) {
        let run = Run { state, ..run };
        push_mark(marks, run.mark(first));
        self.set(first, run);
        self.has_room();
    }

    /// There is one fewer of those that made it full.
    fn has_room(&mut self) {
        if std::mem::take(&mut self.was_full) {
            self.changes += 1;
        }
    }

    /// Archives what is with nobody of `first..=last`, which no log has.
    fn archive_idle(&mut self, first: i64, last: i64, marks: &mut Vec<Mark>) {
        let mut at = first.max(self.start);
        while at <= last {
            let Some((_, run)) = self.find(at) else { break };
            let run = Run { last: run.last.min(last), ..run };
            if run.state.is_idle() {
                self.finish(at, run, State::Archived, marks);
            }
            at = run.last + 1;
        }
        if self.end <= last {
            self.finish(self.end, Run::fresh(last), State::Archived, marks);
        }
    }

    /// The run that `offset` lies in.
    fn find(&self, offset: i64) -> Option<(i64, Run)> {
        if offset < self.start || offset >= self.end {
            return None;
        }
        let (first, packed, next) = self.runs.around(offset)?;
        Some((first, packed.run(next.unwrap_or(self.end) - 1, &self.kinds)))
    }

    /// Where the run that `offset` lies in ends, exclusive.
    fn end_of(&self, offset: i64) -> i64 {
        self.runs.above(offset).map_or(self.end, |(first, _)| first)
    }

    /// Gives `first..=run.last`, of which `first` is not behind the end of the window, a state.
    fn set(&mut self, first: i64, run: Run) {
        let run = match run.state {
            // What is done is the same however often it had to be tried.
            state if state.is_done() => Run { state, ..Run::fresh(run.last) },
            // What is dead goes by nothing any more.
            State::Dead { .. } => Run { nature: Nature::PLAIN, key: None, ..run },
            _ => run,
        };
        if first == self.end {
            return self.append(run);
        }
        // It stays known, though those that go may be the last of its key.
        let packed = self.pack(&run);
        self.split(first);
        self.split(run.last + 1);
        let mut touched = Vec::from_iter(run.key);
        let mut at = first;
        while at <= run.last
            && let Some((_, old)) = self.find_from(at)
        {
            if old.key.as_ref() != touched.last() {
                touched.extend(old.key);
            }
            self.count(at, &old, -1);
            self.take_out(at, &old);
            at = old.last + 1;
        }
        self.end = self.end.max(run.last + 1);
        self.count(first, &run, 1);
        self.put(first, &run, packed);
        let next = run.last + 1;
        if next != self.seen
            && let Some(right) =
                self.runs.get(next).map(|right| right.run(self.end_of(next) - 1, &self.kinds))
            && right.is_like(&run)
        {
            self.take_out(next, &right);
        }
        touched.into_iter().for_each(|key| self.refresh(key));
    }

    /// Gives `end..=run.last` a state, which is new: there is nothing to be cut, and nothing behind it.
    fn append(&mut self, run: Run) {
        let first = self.end;
        self.end = run.last + 1;
        self.count(first, &run, 1);
        let packed = self.pack(&run);
        self.put(first, &run, packed);
        if let Some(key) = run.key {
            self.refresh(key);
        }
    }

    /// Its kind and its key know of it from here on.
    fn pack(&mut self, run: &Run) -> Packed {
        if let Some(key) = run.key {
            self.lines.join(key);
        }
        Packed::new(run, &mut self.kinds)
    }

    fn unpack(&mut self, packed: Packed) {
        self.kinds.leave(packed.kind);
        if let Some(key) = packed.key {
            self.lines.leave(key);
        }
    }

    /// Puts a run where there is none, unless the one in front of it is like it and grows.
    fn put(&mut self, first: i64, run: &Run, packed: Packed) {
        let left = (first > self.start && first != self.seen).then(|| self.runs.floor(first - 1)).flatten();
        if left.is_some_and(|(_, left)| left.run(run.last, &self.kinds).is_like(run)) {
            return self.unpack(packed);
        }
        self.runs.insert(first, packed);
        self.index(first, run);
    }

    fn take_out(&mut self, first: i64, run: &Run) {
        self.unindex(first, run);
        if let Some(packed) = self.runs.remove(first) {
            self.unpack(packed);
        }
    }

    /// The run that begins at `first`, also while those in front of it are being taken out.
    fn find_from(&self, first: i64) -> Option<(i64, Run)> {
        Some((first, self.runs.get(first)?.run(self.end_of(first) - 1, &self.kinds)))
    }

    /// Sees to it that no run goes across `offset`.
    fn split(&mut self, offset: i64) {
        let Some((_, run)) = self.find(offset).filter(|(first, _)| *first < offset) else { return };
        let changes = self.changes;
        let packed = self.pack(&run);
        self.runs.insert(offset, packed);
        self.index(offset, &run);
        self.changes = changes;
    }

    /// Lets go of what is done at the front.
    fn advance(&mut self) {
        while let Some((first, packed)) = self.runs.first() {
            let run = packed.run(self.end_of(first) - 1, &self.kinds);
            if !run.state.is_done() {
                break;
            }
            self.count(first, &run, -1);
            self.take_out(first, &run);
            self.start = run.last + 1;
        }
        self.seen = self.seen.max(self.start);
    }

    fn count(&mut self, first: i64, run: &Run, sign: i64) {
        let records = sign * run.len(first);
        match run.state {
            State::Available => self.counts.ready += records,
            State::Leased { holder, .. } => {
                self.counts.leased += records;
                if let Some(key) = run.key {
                    self.lines.lease(key, records);
                }
                if holder != Holder::RECEIPT {
                    let held = self.held.entry(holder).or_default();
                    *held += records;
                    if *held == 0 {
                        self.held.remove(&holder);
                    }
                }
            }
            State::Waiting { .. } => self.counts.waiting += records,
            State::Dead { .. } => self.counts.dead += records,
            State::Acknowledged | State::Archived => self.counts.done += records,
        }
    }

    /// What orders a run with a key in its line, if it stands there.
    fn rank(&self, run: &Run) -> Option<u8> {
        match (self.lines.rule().fifo, run.state) {
            (true, State::Available | State::Leased { .. } | State::Waiting { .. }) => Some(0),
            (false, State::Available) => Some(kinds::LEVELS_MAX - run.nature.priority),
            _ => None,
        }
    }

    fn index(&mut self, first: i64, run: &Run) {
        if let Some(time) = run.timer() {
            self.timers.insert((time, first));
        }
        if run.state.is_unmoved() {
            self.dead.insert(first, ());
        }
        match run.key {
            Some(key) => {
                if let Some(rank) = self.rank(run) {
                    self.lines.stand(key, rank, first);
                }
            }
            None if run.state == State::Available && first < self.seen => {
                self.lines.add_plain(run.nature.priority, first);
                self.changes += 1;
            }
            None => {}
        }
    }

    fn unindex(&mut self, first: i64, run: &Run) {
        if let Some(time) = run.timer() {
            self.timers.remove((time, first));
        }
        if run.state.is_unmoved() {
            self.dead.remove(first);
        }
        match run.key {
            Some(key) => {
                if let Some(rank) = self.rank(run) {
                    self.lines.step_out(key, rank, first);
                }
            }
            None if run.state == State::Available => {
                self.lines.remove_plain(run.nature.priority, first);
            }
            None => {}
        }
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
