//! What may be handed out, in order of its turn: by priority; of each, records without a key by offset, and keys in a ring, each
//! with its own records in line. A key that has to wait stands in no ring, so that it costs the others nothing.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::kinds::KeyId;
use crate::clock::TimestampMs;
use crate::queue::sorted::Sorted;

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

#[derive(Clone, Default, Debug)]
struct Key {
    hash: u64,
    /// First offsets of runs, behind what orders them first: with `fifo` all that are not done, else those that are available.
    line: VecDeque<(u8, i64)>,
    /// Records that are with somebody.
    leased: i64,
    /// Kinds that have this key.
    kinds: u32,
    /// Levels in whose ring it stands, a bit each.
    rings: u16,
    /// Until when `taken` counts; 0 if nothing was.
    second_ends: TimestampMs,
    /// Records handed out in this second.
    taken: u32,
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
    keys: Vec<Key>,
    by_hash: HashMap<u64, KeyId>,
    free: Vec<KeyId>,
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
            keys: Vec::new(),
            by_hash: HashMap::new(),
            free: Vec::new(),
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

    /// The key with that hash, which has one kind more.
    pub(super) fn join(&mut self, hash: u64) -> KeyId {
        let id = *self.by_hash.entry(hash).or_insert_with(|| {
            self.free.pop().unwrap_or_else(|| {
                self.keys.push(Key::default());
                KeyId::at(self.keys.len() - 1)
            })
        });
        let key = &mut self.keys[id.index()];
        (key.hash, key.kinds) = (hash, key.kinds + 1);
        id
    }

    /// A key has one kind less.
    pub(super) fn leave(&mut self, id: KeyId) {
        self.keys[id.index()].kinds -= 1;
        self.forget_if_idle(id);
    }

    fn forget_if_idle(&mut self, id: KeyId) {
        let key = &mut self.keys[id.index()];
        if key.kinds == 0 && key.second_ends == 0 {
            self.by_hash.remove(&key.hash);
            // Rings may still have it: without its bit, that is nobody.
            *key = Key::default();
            self.free.push(id);
        }
    }

    /// Puts a run in its key's line.
    pub(super) fn stand(&mut self, id: KeyId, rank: u8, first: i64) {
        let line = &mut self.keys[id.index()].line;
        let place = (rank, first);
        if line.back().is_none_or(|last| *last < place) {
            line.push_back(place);
        } else if let Err(index) = line.binary_search(&place) {
            line.insert(index, place);
        }
    }

    pub(super) fn step_out(&mut self, id: KeyId, rank: u8, first: i64) {
        let line = &mut self.keys[id.index()].line;
        if let Ok(index) = line.binary_search(&(rank, first)) {
            line.remove(index);
        }
        if line.is_empty() {
            *line = VecDeque::new();
        }
    }

    /// The run that is first in a key's line.
    pub(super) fn front(&self, id: KeyId) -> Option<i64> {
        self.keys[id.index()].line.front().map(|(_, first)| *first)
    }

    /// The next in a line that goes by offset alone.
    pub(super) fn behind(&self, id: KeyId, offset: i64) -> Option<i64> {
        let line = &self.keys[id.index()].line;
        line.get(line.partition_point(|(_, first)| *first <= offset)).map(|(_, first)| *first)
    }

    /// So many more records of a key are with somebody.
    pub(super) fn lease(&mut self, id: KeyId, records: i64) {
        self.keys[id.index()].leased += records;
    }

    /// How many records the rule allows of a key just now.
    pub(super) fn allowance(&self, id: KeyId) -> i64 {
        let key = &self.keys[id.index()];
        let left = |limit: u32, used: i64| if limit == 0 { i64::MAX } else { i64::from(limit) - used };
        let by_lease = match self.rule.fifo {
            true if key.leased > 0 => 0,
            true => i64::MAX,
            false => left(self.rule.concurrency, key.leased),
        };
        by_lease.min(left(self.rule.rate, i64::from(key.taken)))
    }

    /// Records of a key were handed out.
    pub(super) fn spend(&mut self, now: TimestampMs, id: KeyId, records: i64) {
        if self.rule.rate == 0 || records == 0 {
            return;
        }
        let key = &mut self.keys[id.index()];
        key.taken = key.taken.saturating_add(u32::try_from(records).unwrap_or(u32::MAX));
        if key.second_ends == 0 {
            key.second_ends = now.saturating_add(SECOND_MS);
            self.seconds.insert((key.second_ends, id));
        }
    }

    /// When the next second of a key ends.
    pub(super) fn deadline(&self) -> Option<TimestampMs> {
        self.seconds.first().map(|(ends, _)| *ends)
    }

    /// A key whose second has ended, if it still has records.
    pub(super) fn second_over(&mut self, now: TimestampMs) -> Option<KeyId> {
        while let Some((_, id)) = self.seconds.first().filter(|(ends, _)| *ends <= now).copied() {
            self.seconds.pop_first();
            let key = &mut self.keys[id.index()];
            (key.second_ends, key.taken) = (0, 0);
            if key.kinds > 0 {
                return Some(id);
            }
            self.forget_if_idle(id);
        }
        None
    }

    /// Gives a key a place in the ring of its priority; whether it had none.
    pub(super) fn enlist(&mut self, id: KeyId, priority: u8) -> bool {
        let key = &mut self.keys[id.index()];
        let bit = 1 << priority;
        if key.rings & bit != 0 {
            return false;
        }
        key.rings |= bit;
        let ring = &mut self.levels[usize::from(priority)].ring;
        ring.push_back(id);
        if ring.len() > 2 * self.by_hash.len() + RING_SLACK {
            // Who is met for the first time stays.
            ring.retain(|id| {
                let key = &mut self.keys[id.index()];
                let is_there = key.rings & bit != 0;
                key.rings &= !bit;
                is_there
            });
            ring.iter().for_each(|id| self.keys[id.index()].rings |= bit);
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
                let key = &mut self.keys[id.index()];
                let bit = 1 << priority;
                if key.rings & bit != 0 {
                    key.rings &= !bit;
                    level.is_rings_turn = false;
                    return Some(Next::Key(id));
                }
            }
        }
        level.is_rings_turn = true;
        plain.map(Next::Plain)
    }
}
