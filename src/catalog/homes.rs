//! Which log directory a partition is in, written down where there are several: so that one whose directory is missing is known
//! to be offline, and does not begin anew, empty, in another.

use super::Batch;
use super::state::{CatalogState, Change, TopicState};
use crate::log::LogDirectories;
use crate::uuid::Uuid;

/// What has to be written down at a start: partitions are where their folders are found, else where they were put, else they
/// have never been written to and are put somewhere.
pub(super) fn corrections(state: &CatalogState, directories: &LogDirectories) -> Vec<Change> {
    let is_told = |topic: &TopicState| !directories.is_single() || !topic.directories.is_empty();
    let mut known = Vec::new();
    let mut topics = Vec::new();
    for (name, topic) in state.topics().filter(|(_, topic)| is_told(topic)) {
        let home = |index: i32| {
            let found = directories.found(name, topic.id, index);
            found.or_else(|| topic.directories.get(index as usize).copied())
        };
        let homes: Vec<Option<Uuid>> = (0..topic.partitions).map(home).collect();
        known.extend(homes.iter().flatten().copied());
        topics.push((topic, homes));
    }
    let homeless = topics.iter().flat_map(|(_, homes)| homes).filter(|home| home.is_none()).count();
    let mut places = directories.place(&known, homeless).into_iter();
    let mut changes = Vec::new();
    for (topic, homes) in topics {
        let directories: Vec<Uuid> =
            homes.into_iter().filter_map(|home| home.or_else(|| places.next())).collect();
        if directories != topic.directories {
            changes.push(Change::PartitionDirectories { topic_id: topic.id, directories });
        }
    }
    changes
}

/// Puts the partitions that the batch makes somewhere.
pub(super) fn place(batch: &mut Batch, directories: &LogDirectories) {
    if directories.is_single() {
        return;
    }
    let mut made: Vec<Uuid> = Vec::new();
    for change in &batch.changes {
        if let Change::TopicCreated { topic_id, .. } | Change::PartitionsAdded { topic_id, .. } = change
            && !made.contains(topic_id)
        {
            made.push(*topic_id);
        }
    }
    let topic =
        |state: &CatalogState, id: Uuid| state.name_of(id).and_then(|name| state.topic(name)).cloned();
    // A topic that was deleted in the same batch needs no place.
    let topics: Vec<_> = made.into_iter().filter_map(|id| topic(batch.state(), id)).collect();
    let missing = |topic: &TopicState| (topic.partitions as usize).saturating_sub(topic.directories.len());
    let mut places = directories.place(&[], topics.iter().map(missing).sum()).into_iter();
    for topic in topics {
        let count = missing(&topic);
        let directories = topic.directories.into_iter().chain(places.by_ref().take(count)).collect();
        batch.push(Change::PartitionDirectories { topic_id: topic.id, directories });
    }
}
