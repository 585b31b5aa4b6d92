//! How far a group has come in each partition.

use std::sync::Arc;

use super::{OffsetMap, Partitions};
use crate::clock::TimestampMs;
use crate::coordinator::Record;
use crate::coordinator::records::{OffsetCommitKey, OffsetCommitValue};
use crate::uuid::Uuid;

/// What one offset takes in memory beside its texts, about.
const OFFSET_BYTES: usize = 96;

/// A committed offset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Committed {
    /// The next offset to be consumed.
    pub offset: i64,
    /// Epoch of the record before; -1 if unknown.
    pub leader_epoch: i32,
    /// The client's own remark.
    pub metadata: Arc<str>,
    /// Milliseconds since the epoch.
    pub committed_at: TimestampMs,
    /// When it expires, ms since the epoch, if the client has said.
    pub expires_at: Option<TimestampMs>,
    /// The topic's id at the time of the commit; zero if unknown.
    pub topic_id: Uuid,
}

/// The committed offsets of a group.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Offsets {
    by_topic: OffsetMap,
    len: usize,
    bytes: usize,
}

impl Offsets {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes in memory, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// All, or those of `wanted` that exist.
    pub fn fetch(&self, wanted: Option<&Partitions>) -> OffsetMap {
        let Some(wanted) = wanted else { return self.by_topic.clone() };
        let mut found = OffsetMap::new();
        for (topic, partitions) in wanted {
            let Some(known) = self.by_topic.get(topic) else { continue };
            let found = found.entry(Arc::clone(topic)).or_default();
            found.extend(partitions.iter().filter_map(|index| Some((*index, known.get(index)?.clone()))));
        }
        found
    }

    /// Topics and partitions of the offsets for which `which` is true.
    pub fn select(&self, which: impl Fn(&str, &Committed) -> bool) -> Vec<(Arc<str>, i32)> {
        let all = self.by_topic.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(move |(index, committed)| (topic, *index, committed))
        });
        all.filter(|(topic, _, committed)| which(topic, committed))
            .map(|(topic, index, _)| (Arc::clone(topic), index))
            .collect()
    }

    /// Whether there is one for the partition.
    pub fn contains(&self, topic: &str, partition: i32) -> bool {
        self.by_topic.get(topic).is_some_and(|partitions| partitions.contains_key(&partition))
    }

    /// About what a commit would add to the memory in use.
    pub fn growth(&self, committed: &OffsetMap) -> usize {
        let grown = |topic: &Arc<str>, index: &i32, new: &Committed| {
            let now = self.by_topic.get(topic).and_then(|known| known.get(index));
            bytes(topic, new).saturating_sub(now.map_or(0, |now| bytes(topic, now)))
        };
        let all =
            committed.iter().flat_map(|(topic, partitions)| partitions.iter().map(move |one| (topic, one)));
        all.map(|(topic, (index, new))| grown(topic, index, new)).sum()
    }

    /// Every offset as the record that makes it.
    pub fn records(&self, group: &str) -> impl Iterator<Item = Record> {
        self.by_topic.iter().flat_map(move |(topic, partitions)| {
            partitions.iter().map(move |(index, committed)| record(group, topic, *index, Some(committed)))
        })
    }

    /// Takes in a record of the group.
    pub fn apply(&mut self, key: &OffsetCommitKey, value: Option<&OffsetCommitValue>) {
        match value {
            Some(value) => self.insert(&key.topic, key.partition, Committed::from(value)),
            None => self.remove(&key.topic, key.partition),
        }
    }

    fn insert(&mut self, topic: &str, partition: i32, committed: Committed) {
        let partitions = match self.by_topic.get_mut(topic) {
            Some(partitions) => partitions,
            None => self.by_topic.entry(topic.into()).or_default(),
        };
        self.len += 1;
        self.bytes += bytes(topic, &committed);
        if let Some(before) = partitions.insert(partition, committed) {
            self.len -= 1;
            self.bytes -= bytes(topic, &before);
        }
    }

    fn remove(&mut self, topic: &str, partition: i32) {
        let Some(partitions) = self.by_topic.get_mut(topic) else { return };
        if let Some(before) = partitions.remove(&partition) {
            self.len -= 1;
            self.bytes -= bytes(topic, &before);
        }
        if partitions.is_empty() {
            self.by_topic.remove(topic);
        }
    }
}

/// About what an offset takes in memory.
fn bytes(topic: &str, committed: &Committed) -> usize {
    OFFSET_BYTES + topic.len() + committed.metadata.len()
}

/// The record that stores an offset, or takes it back.
pub fn record(group: &str, topic: &str, partition: i32, committed: Option<&Committed>) -> Record {
    let key = OffsetCommitKey { group: group.into(), topic: topic.into(), partition };
    Record::Offset { key, value: committed.map(OffsetCommitValue::from) }
}

/// Puts one offset into a map.
pub fn put(map: &mut OffsetMap, topic: &Arc<str>, partition: i32, committed: Committed) {
    map.entry(Arc::clone(topic)).or_default().insert(partition, committed);
}

impl From<&OffsetCommitValue> for Committed {
    fn from(value: &OffsetCommitValue) -> Self {
        Self {
            offset: value.offset,
            leader_epoch: value.leader_epoch,
            metadata: (&*value.metadata).into(),
            committed_at: value.commit_timestamp,
            expires_at: (value.expire_timestamp != -1).then_some(value.expire_timestamp),
            topic_id: value.topic_id,
        }
    }
}

impl From<&Committed> for OffsetCommitValue {
    fn from(committed: &Committed) -> Self {
        Self {
            offset: committed.offset,
            leader_epoch: committed.leader_epoch,
            metadata: (&*committed.metadata).into(),
            commit_timestamp: committed.committed_at,
            expire_timestamp: committed.expires_at.unwrap_or(-1),
            topic_id: committed.topic_id,
        }
    }
}
