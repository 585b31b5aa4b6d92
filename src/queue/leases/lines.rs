//! What may be handed out, in order of its turn: by priority; of each, records without a key by offset, and keys in a ring, each
//! with its own records in line. A key that has to wait stands in no ring, so that it costs the others nothing.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::kinds::{KeyId, KindId};
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

/// 40 bytes: there may be a million.
#[derive(Clone, Default, Debug)]
struct Key {
    hash: u64,
    line: Line,
    /// Records that are with somebody: not more than may be in flight.
    leased: u32,
    /// Kinds that have this key.
    kinds: u32,
    /// The last of them; [`KindId::default`] for none.
    kind: KindId,
    /// Levels in whose ring it stands, a bit each.
    rings: u16,
}

/// A run in a line: what orders it first, above its first offset. No log has so many records that this is not enough.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Stand(u64);

const OFFSET_BITS: u32 = 60;

impl Stand {
    /// Above all others.
    const NONE: Self = Self(u64::MAX);

    fn new(rank: u8, first: i64) -> Self {
        Self(u64::from(rank) << OFFSET_BITS | first.cast_unsigned() & ((1 << OFFSET_BITS) - 1))
    }

    fn first(self) -> i64 {
        (self.0 & ((1 << OFFSET_BITS) - 1)).cast_signed()
    }
}

/// Runs of a key in order: with `fifo` all that are not done, else those that are available. The first needs no room of its own.
#[derive(Clone, Debug)]
struct Line {
    /// [`Stand::NONE`] if it is empty.
    front: Stand,
    /// Never empty.
    #[expect(clippy::box_collection, reason = "most keys have none, and then it is a quarter as large")]
    rest: Option<Box<VecDeque<Stand>>>,
}

impl Default for Line {
    fn default() -> Self {
        Self { front: Stand::NONE, rest: None }
    }
}

impl Line {
    fn stand(&mut self, stand: Stand) {
        if stand == self.front {
            return;
        }
        if self.front == Stand::NONE {
            self.front = stand;
            return;
        }
        let behind = stand.max(self.front);
        self.front = stand.min(self.front);
        let rest = self.rest.get_or_insert_default();
        match rest.back() {
            Some(last) if *last >= behind => {
                if let Err(index) = rest.binary_search(&behind) {
                    rest.insert(index, behind);
                }
            }
            _ => rest.push_back(behind),
        }
    }

    fn step_out(&mut self, stand: Stand) {
        if stand == self.front {
            self.front = self.rest.as_mut().and_then(|rest| rest.pop_front()).unwrap_or(Stand::NONE);
        } else if let Some(rest) = &mut self.rest
            && let Ok(index) = rest.binary_search(&stand)
        {
            rest.remove(index);
        }
        self.rest.take_if(|rest| rest.is_empty());
    }

    fn front(&self) -> Option<i64> {
        (self.front != Stand::NONE).then(|| self.front.first())
    }

    /// The next in a line that goes by offset alone.
    fn behind(&self, offset: i64) -> Option<i64> {
        let stand = Stand::new(0, offset);
        if self.front > stand {
            return self.front();
        }
        let rest = self.rest.as_ref()?;
        rest.get(rest.partition_point(|other| *other <= stand)).map(|other| other.first())
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
    keys: Vec<Key>,
    by_hash: Sorted<u64, KeyId>,
    free: Vec<KeyId>,
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
            keys: Vec::new(),
            by_hash: Sorted::default(),
            free: Vec::new(),
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

    /// The kind that the key with that hash has got last.
    pub(super) fn last_kind(&self, hash: u64) -> Option<KindId> {
        let kind = self.keys[self.by_hash.get(hash)?.index()].kind;
        (kind != KindId::default()).then_some(kind)
    }

    /// The key with that hash, for one kind more.
    pub(super) fn join(&mut self, hash: u64) -> KeyId {
        let id = self.by_hash.get(hash).unwrap_or_else(|| {
            let id = self.free.pop().unwrap_or_else(|| {
                self.keys.push(Key::default());
                KeyId::at(self.keys.len() - 1)
            });
            self.by_hash.insert(hash, id);
            id
        });
        let key = &mut self.keys[id.index()];
        (key.hash, key.kinds) = (hash, key.kinds + 1);
        id
    }

    /// A key has got that kind.
    pub(super) fn name(&mut self, id: KeyId, kind: KindId) {
        self.keys[id.index()].kind = kind;
    }

    /// A key no longer has that kind.
    pub(super) fn leave(&mut self, id: KeyId, kind: KindId) {
        let key = &mut self.keys[id.index()];
        key.kinds -= 1;
        if key.kind == kind {
            key.kind = KindId::default();
        }
        self.forget_if_idle(id);
    }

    fn forget_if_idle(&mut self, id: KeyId) {
        let key = &mut self.keys[id.index()];
        if key.kinds == 0 && !self.spent.contains_key(&id) {
            self.by_hash.remove(key.hash);
            // Rings may still have it: without its bit, that is nobody.
            *key = Key::default();
            self.free.push(id);
        }
    }

    /// Puts a run in its key's line.
    pub(super) fn stand(&mut self, id: KeyId, rank: u8, first: i64) {
        self.keys[id.index()].line.stand(Stand::new(rank, first));
    }

    pub(super) fn step_out(&mut self, id: KeyId, rank: u8, first: i64) {
        self.keys[id.index()].line.step_out(Stand::new(rank, first));
    }

    /// The run that is first in a key's line.
    pub(super) fn front(&self, id: KeyId) -> Option<i64> {
        self.keys[id.index()].line.front()
    }

    /// The next in a line that goes by offset alone.
    pub(super) fn behind(&self, id: KeyId, offset: i64) -> Option<i64> {
        self.keys[id.index()].line.behind(offset)
    }

    /// So many more records of a key are with somebody.
    pub(super) fn lease(&mut self, id: KeyId, records: i64) {
        let leased = &mut self.keys[id.index()].leased;
        *leased = u32::try_from(i64::from(*leased).saturating_add(records).max(0)).unwrap_or(u32::MAX);
    }

    /// How many records the rule allows of a key just now.
    pub(super) fn allowance(&self, id: KeyId) -> i64 {
        let key = &self.keys[id.index()];
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
            if self.keys[id.index()].kinds > 0 {
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
