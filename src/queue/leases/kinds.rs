//! What is particular about records, kept once for neighbours that are alike.

use std::num::NonZeroU32;

use crate::clock::TimestampMs;

/// Levels of priority that there may be.
pub(super) const LEVELS_MAX: u8 = 10;

/// A time that never comes.
pub(super) const NEVER: TimestampMs = TimestampMs::MAX;

/// A kind. The first [`LEVELS_MAX`] are those of records with nothing but a priority.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct KindId(u32);

/// A key that some record has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct KeyId(NonZeroU32);

impl KeyId {
    /// That of a place among others.
    pub(super) fn at(index: usize) -> Self {
        let number = u32::try_from(index).unwrap_or(u32::MAX - 1);
        Self(NonZeroU32::MIN.saturating_add(number))
    }

    pub(super) fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// 16 bytes: of a million keys each has one.
#[derive(Clone, Debug)]
struct Entry {
    /// When they expire, above the priority; [`NEVER_SHIFTED`] if they do not.
    bits: u64,
    /// Runs of that kind.
    refs: u32,
    key: Option<KeyId>,
}

/// Bits of a priority.
const PRIORITY_BITS: u32 = 4;

/// Above all times that can be kept.
const NEVER_SHIFTED: u64 = u64::MAX >> PRIORITY_BITS;

impl Entry {
    fn bits(priority: u8, expires: TimestampMs) -> u64 {
        let expires = if expires == NEVER { NEVER_SHIFTED } else { expires.cast_unsigned() };
        expires << PRIORITY_BITS | u64::from(priority)
    }

    fn expires(&self) -> TimestampMs {
        match self.bits >> PRIORITY_BITS {
            NEVER_SHIFTED => NEVER,
            expires => expires.cast_signed(),
        }
    }

    fn priority(&self) -> u8 {
        (self.bits & ((1 << PRIORITY_BITS) - 1)) as u8
    }
}

/// The kinds of a window.
#[derive(Clone, Debug, Default)]
pub(super) struct Kinds {
    entries: Vec<Entry>,
    free: Vec<u32>,
}

impl Kinds {
    /// A kind that nobody is of yet.
    pub(super) fn add(&mut self, priority: u8, expires: TimestampMs, key: Option<KeyId>) -> KindId {
        if expires == NEVER && key.is_none() {
            return KindId(u32::from(priority));
        }
        let entry = Entry { bits: Entry::bits(priority, expires), refs: 0, key };
        let index = match self.free.pop() {
            Some(index) => {
                self.entries[index as usize] = entry;
                index
            }
            None => {
                self.entries.push(entry);
                // There are not more kinds than runs, and those are bounded.
                (self.entries.len() - 1) as u32
            }
        };
        KindId(index + u32::from(LEVELS_MAX))
    }

    fn index(id: KindId) -> Option<usize> {
        id.0.checked_sub(u32::from(LEVELS_MAX)).map(|index| index as usize)
    }

    fn entry(&self, id: KindId) -> Option<&Entry> {
        self.entries.get(Self::index(id)?)
    }

    /// Whether that is the priority and expiry of a kind.
    pub(super) fn is(&self, id: KindId, priority: u8, expires: TimestampMs) -> bool {
        self.entry(id).is_some_and(|entry| entry.bits == Entry::bits(priority, expires))
    }

    /// One more is of that kind.
    pub(super) fn hold(&mut self, id: KindId) {
        if let Some(index) = Self::index(id) {
            self.entries[index].refs += 1;
        }
    }

    /// One less is. The key that has one kind less with the last of it.
    pub(super) fn drop(&mut self, id: KindId) -> Option<KeyId> {
        let index = Self::index(id)?;
        let entry = &mut self.entries[index];
        entry.refs -= 1;
        if entry.refs > 0 {
            return None;
        }
        let key = entry.key;
        self.free.push(index as u32);
        if self.free.len() == self.entries.len() {
            *self = Self::default();
        }
        key
    }

    /// [`NEVER`] if they do not.
    pub(super) fn expires(&self, id: KindId) -> TimestampMs {
        self.entry(id).map_or(NEVER, Entry::expires)
    }

    pub(super) fn key(&self, id: KindId) -> Option<KeyId> {
        self.entry(id)?.key
    }

    pub(super) fn priority(&self, id: KindId) -> u8 {
        self.entry(id).map_or(id.0 as u8, Entry::priority)
    }
}
