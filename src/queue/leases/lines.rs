//! What may be handed out, in order of its turn: by priority; of each, records without a key by offset, and keys in a ring, each
//! with its own records in line. A key that has to wait stands in no ring, so that it costs the others nothing.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::keys::{KeyId, Keys, Stand};
use crate::clock::TimestampMs;
use crate::queue::sorted::{Near, Sorted};

/// Of so many records that are handed out one is of the lowest priority that has something.
pub(super) const LOWEST_EACH: i64 = 10;

/// Entries that a ring may have for nothing, beside as many as there are keys.
const RING_SLACK: usize = 64;

/// For how long the rate of a key counts, ms.
const SECOND_MS: i64 = 1_000;

/// What records with a key go by.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct KeyRule {
    /// One after the other, in order.
    pub(super) fifo: bool,
    /// Records of a key that may be with somebody; 0 for any number.
    pub(super) concurrency: u32,
    /// Records of a key that may be handed out in a second; 0 for any number.
    pub(super) rate: u32,
}

impl KeyRule {
    /// Whether keys make a difference.
    pub(super) fn is_any(self) -> bool {
        self.fifo || self.concurrency > 0 || self.rate > 0
    }
}

/// What has one priority.
#[derive(Clone, Default, Debug)]
struct Level {
    /// First offsets of the runs without a key.
    plain: Sorted<i64>,
    /// Keys that had something when they came.
    ring: VecDeque<KeyId>,
    is_rings_turn: bool,
}

/// A run that is not the first of its line, by the line. Its rank goes with the key, so that those of all ranks are near each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Place {
    key_and_rank: u64,
    first: i64,
}

/// Of a key and a rank, those of the rank.
const RANK_BITS: u32 = 4;

impl Place {
    fn new(id: KeyId, stand: Stand) -> Self {
        let key_and_rank = (id.index() as u64) << RANK_BITS | u64::from(stand.rank());
        Self { key_and_rank, first: stand.first() }
    }

    /// `None` if it is not in the line of that key.
    fn stand(self, id: KeyId) -> Option<Stand> {
        let rank = self.key_and_rank & ((1 << RANK_BITS) - 1);
        (self.key_and_rank >> RANK_BITS == id.index() as u64).then(|| Stand::new(rank as u8, self.first))
    }
}

impl Near for Place {
    /// There are not so many keys that 28 bits would not be enough: each has a run, or had one in the last second.
    type Step = (u32, i32);

    fn step_from(self, base: Self) -> Option<Self::Step> {
        Some((u32::try_from(self.key_and_rank).ok()?, self.first.step_from(base.first)?))
    }

    fn at(base: Self, (key_and_rank, step): Self::Step) -> Self {
        Self { key_and_rank: key_and_rank.into(), first: i64::at(base.first, step) }
    }
}

/// What is next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// The run at that offset.
    Plain(i64),
    /// The records of that key.
    Key(KeyId),
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    rule: KeyRule,
    /// From the lowest priority on; never empty.
    levels: Vec<Level>,
    keys: Keys,
    /// Of each key's line those behind the first: with `fifo` all runs that are not done stand there, else those that are available.
    behind: Sorted<Place>,
    /// Until when what a key has spent counts, and how many records that are.
    spent: HashMap<KeyId, (TimestampMs, u32)>,
    /// When the seconds of keys end.
    seconds: BTreeSet<(TimestampMs, KeyId)>,
    /// Records handed out, modulo [`LOWEST_EACH`].
    turn: i64,
}

impl Lines {
    pub(super) fn new(rule: KeyRule, levels: u8) -> Self {
        Self {
            rule,
            levels: vec![Level::default(); usize::from(levels.max(1))],
            keys: Keys::default(),
            behind: Sorted::default(),
            spent: HashMap::new(),
            seconds: BTreeSet::new(),
            turn: 0,
        }
    }

    pub(super) fn rule(&self) -> KeyRule {
        self.rule
    }

    /// Highest priority that there is.
    pub(super) fn top(&self) -> u8 {
        (self.levels.len() - 1) as u8
    }

    /// The lowest offset without a key that may be handed out.
    pub(super) fn first_plain(&self) -> Option<i64> {
        self.levels.iter().filter_map(|level| level.plain.first()).map(|(first, ())| first).min()
    }

    /// Whether there may be something to hand out.
    pub(super) fn has_any(&self) -> bool {
        self.levels.iter().any(|level| !level.plain.is_empty() || !level.ring.is_empty())
    }

    pub(super) fn add_plain(&mut self, priority: u8, first: i64) {
        self.levels[usize::from(priority)].plain.insert(first, ());
    }

    pub(super) fn remove_plain(&mut self, priority: u8, first: i64) {
        self.levels[usize::from(priority)].plain.remove(first);
    }

    /// The key with that hash, which stays known until it is [left](Self::leave).
    pub(super) fn open(&mut self, hash: u64) -> KeyId {
        let id = self.keys.open(hash);
        self.join(id);
        id
    }

    /// One more needs a key known.
    pub(super) fn join(&mut self, id: KeyId) {
        self.keys[id].refs += 1;
    }

    /// One less does.
    pub(super) fn leave(&mut self, id: KeyId) {
        self.keys[id].refs -= 1;
        self.forget_if_idle(id);
    }

    fn forget_if_idle(&mut self, id: KeyId) {
        if self.keys[id].refs > 0 || self.spent.contains_key(&id) {
            return;
        }
        // Rings may still have it: then that is nobody.
        self.keys.remove(id);
        if self.keys.len() == 0 {
            self.levels.iter_mut().for_each(|level| level.ring = VecDeque::new());
        }
    }

    /// Puts a run in its key's line.
    pub(super) fn stand(&mut self, id: KeyId, rank: u8, first: i64) {
        let (stand, front) = (Stand::new(rank, first), self.keys[id].front);
        if front == Stand::NONE {
            self.keys[id].front = stand;
        } else if stand != front {
            self.keys[id].front = stand.min(front);
            self.behind.insert(Place::new(id, stand.max(front)), ());
        }
    }

    pub(super) fn step_out(&mut self, id: KeyId, rank: u8, first: i64) {
        let (stand, front) = (Stand::new(rank, first), self.keys[id].front);
        if front != stand {
            self.behind.remove(Place::new(id, stand));
            return;
        }
        let next = self.next_in_line(id, stand);
        if let Some(next) = next {
            self.behind.remove(Place::new(id, next));
        }
        self.keys[id].front = next.unwrap_or(Stand::NONE);
    }

    /// The next that stands behind.
    fn next_in_line(&self, id: KeyId, stand: Stand) -> Option<Stand> {
        self.behind.above(Place::new(id, stand)).and_then(|(place, ())| place.stand(id))
    }

    /// The run that is first in a key's line.
    pub(super) fn front(&self, id: KeyId) -> Option<i64> {
        let front = self.keys.get(id)?.front;
        (front != Stand::NONE).then(|| front.first())
    }

    /// The next in a line that goes by offset alone.
    pub(super) fn behind(&self, id: KeyId, offset: i64) -> Option<i64> {
        let (stand, front) = (Stand::new(0, offset), self.keys.get(id)?.front);
        if front > stand {
            return self.front(id);
        }
        self.next_in_line(id, stand).map(Stand::first)
    }

    /// So many more records of a key are with somebody.
    pub(super) fn lease(&mut self, id: KeyId, records: i64) {
        let leased = &mut self.keys[id].leased;
        *leased = u32::try_from(i64::from(*leased).saturating_add(records).max(0)).unwrap_or(u32::MAX);
    }

    /// How many records the rule allows of a key just now.
    pub(super) fn allowance(&self, id: KeyId) -> i64 {
        let key = &self.keys[id];
        let left = |limit: u32, used: i64| if limit == 0 { i64::MAX } else { i64::from(limit) - used };
        let by_lease = match self.rule.fifo {
            true if key.leased > 0 => 0,
            true => i64::MAX,
            false => left(self.rule.concurrency, i64::from(key.leased)),
        };
        let spent = self.spent.get(&id).map_or(0, |(_, records)| *records);
        by_lease.min(left(self.rule.rate, i64::from(spent)))
    }

    /// Records of a key were handed out.
    pub(super) fn spend(&mut self, now: TimestampMs, id: KeyId, records: i64) {
        if self.rule.rate == 0 || records == 0 {
            return;
        }
        let records = u32::try_from(records).unwrap_or(u32::MAX);
        if let Some((_, spent)) = self.spent.get_mut(&id) {
            *spent = spent.saturating_add(records);
            return;
        }
        let ends = now.saturating_add(SECOND_MS);
        self.spent.insert(id, (ends, records));
        self.seconds.insert((ends, id));
    }

    /// When the next second of a key ends.
    pub(super) fn deadline(&self) -> Option<TimestampMs> {
        self.seconds.first().map(|(ends, _)| *ends)
    }

    /// A key whose second has ended, if it still has records.
    pub(super) fn second_over(&mut self, now: TimestampMs) -> Option<KeyId> {
        while let Some((_, id)) = self.seconds.first().filter(|(ends, _)| *ends <= now).copied() {
            self.seconds.pop_first();
            self.spent.remove(&id);
            if self.keys[id].refs > 0 {
                return Some(id);
            }
            self.forget_if_idle(id);
        }
        None
    }

    /// Gives a key a place in the ring of its priority; whether it had none.
    pub(super) fn enlist(&mut self, id: KeyId, priority: u8) -> bool {
        if !self.keys[id].enter_ring(priority) {
            return false;
        }
        let ring = &mut self.levels[usize::from(priority)].ring;
        ring.push_back(id);
        if ring.len() > 2 * self.keys.len() + RING_SLACK {
            // Who is met for the first time stays.
            ring.retain(|id| self.keys[*id].leave_ring(priority));
            for id in ring {
                self.keys[*id].enter_ring(priority);
            }
        }
        true
    }

    /// The priorities in the order in which they come now, and how many records of the first may.
    pub(super) fn turn(&self) -> (bool, i64) {
        match (self.levels.len(), LOWEST_EACH - 1 - self.turn) {
            (1, _) => (false, i64::MAX),
            (_, 0) => (true, 1),
            (_, left) => (false, left),
        }
    }

    /// Records were handed out.
    pub(super) fn turned(&mut self, records: i64) {
        self.turn = (self.turn + records) % LOWEST_EACH;
    }

    /// What may be next at a priority. A key is taken out of the ring, and may turn out not to have anything.
    pub(super) fn next_of(&mut self, priority: u8, may_be_key: bool) -> Option<Next> {
        let level = &mut self.levels[usize::from(priority)];
        let plain = level.plain.first().map(|(first, ())| first);
        if may_be_key && (level.is_rings_turn || plain.is_none()) {
            while let Some(id) = level.ring.pop_front() {
                if level.ring.capacity() > 4 * level.ring.len() + RING_SLACK {
                    level.ring.shrink_to(2 * level.ring.len());
                }
                if self.keys[id].leave_ring(priority) {
                    level.is_rings_turn = false;
                    return Some(Next::Key(id));
                }
            }
        }
        level.is_rings_turn = true;
        plain.map(Next::Plain)
    }
}
