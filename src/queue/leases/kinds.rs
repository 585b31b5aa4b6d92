//! What is particular about records, kept once for all that are alike.

use std::collections::HashMap;

use super::Holder;
use crate::clock::TimestampMs;

/// Levels of priority that there may be.
pub(super) const LEVELS_MAX: u8 = 10;

/// A time that never comes.
pub(super) const NEVER: TimestampMs = TimestampMs::MAX;

/// What is particular about records beside their state and their key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Nature {
    pub(super) priority: u8,
    /// [`NEVER`] if they do not.
    pub(super) expires: TimestampMs,
}

impl Nature {
    /// Of records that nobody knows anything of.
    pub(super) const PLAIN: Self = Self { priority: 0, expires: NEVER };
}

/// A kind. The first [`LEVELS_MAX`] are those of records with nothing but a priority, and with no member.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct KindId(u32);

#[derive(Clone, Copy, Debug)]
struct Entry {
    nature: Nature,
    holder: Holder,
    /// Runs of that kind.
    refs: u32,
}

/// Kinds of which so many may stay known while there is no run of any.
const FEW: usize = 64;

/// The kinds of a window: few, since [expiries are shared](super::Kind::expires), times members.
#[derive(Clone, Debug, Default)]
pub(super) struct Kinds {
    entries: Vec<Entry>,
    ids: HashMap<(Nature, Holder), KindId>,
    free: Vec<KindId>,
    /// That of the last run that joined. The next is like it, more often than not: it stays, also without runs.
    last: KindId,
    /// Runs of all that are entries.
    runs: usize,
}

impl Kinds {
    /// The kind of a run, which is one more of it.
    pub(super) fn join(&mut self, nature: Nature, holder: Holder) -> KindId {
        if nature.expires == NEVER && holder == Holder::RECEIPT {
            return KindId(u32::from(nature.priority));
        }
        let is_last =
            self.entry(self.last).is_some_and(|last| (last.nature, last.holder) == (nature, holder));
        let id = if is_last { self.last } else { self.change_last(nature, holder) };
        if let Some(index) = Self::index(id) {
            self.entries[index].refs += 1;
            self.runs += 1;
        }
        id
    }

    fn change_last(&mut self, nature: Nature, holder: Holder) -> KindId {
        if self.entry(self.last).is_some_and(|last| last.refs == 0) {
            self.forget(self.last);
        }
        self.last = match self.ids.get(&(nature, holder)) {
            Some(id) => *id,
            None => self.add(Entry { nature, holder, refs: 0 }),
        };
        self.last
    }

    fn add(&mut self, entry: Entry) -> KindId {
        let reused = self.free.pop().and_then(|id| Some((id, Self::index(id)?)));
        let id = match reused {
            Some((id, index)) => {
                self.entries[index] = entry;
                id
            }
            None => {
                self.entries.push(entry);
                // There are not more kinds than runs, and those are bounded.
                KindId((self.entries.len() - 1) as u32 + u32::from(LEVELS_MAX))
            }
        };
        self.ids.insert((entry.nature, entry.holder), id);
        id
    }

    fn forget(&mut self, id: KindId) {
        if let Some(Entry { nature, holder, .. }) = self.entry(id).copied() {
            self.ids.remove(&(nature, holder));
            self.free.push(id);
        }
    }

    fn index(id: KindId) -> Option<usize> {
        id.0.checked_sub(u32::from(LEVELS_MAX)).map(|index| index as usize)
    }

    fn entry(&self, id: KindId) -> Option<&Entry> {
        self.entries.get(Self::index(id)?)
    }

    /// One run less is of that kind.
    pub(super) fn leave(&mut self, id: KindId) {
        let Some(index) = Self::index(id) else { return };
        self.entries[index].refs -= 1;
        self.runs -= 1;
        if self.entries[index].refs == 0 && id != self.last {
            self.forget(id);
        }
        if self.runs == 0 && self.entries.len() > FEW {
            *self = Self::default();
        }
    }

    /// What runs of that kind are like, and who has them, if it is a member.
    pub(super) fn get(&self, id: KindId) -> (Nature, Holder) {
        match self.entry(id) {
            Some(entry) => (entry.nature, entry.holder),
            None => (Nature { priority: id.0 as u8, ..Nature::PLAIN }, Holder::RECEIPT),
        }
    }
}
