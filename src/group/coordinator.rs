//! The group coordinator as handlers know it: each event asked, and its own reply given.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{
    Claim, Description, Event, Forgotten, GroupError, GroupEvent, GroupShard, Join, Joined, Leaving, Listing,
    MEMBER_ID_MAX_BYTES, OffsetMap, Partitions, Reply, Settings, ShareBeat, ShareDescription, ShareHeartbeat,
    Sync, Synced, TEXT_MAX_BYTES, TopicExists,
};
use crate::clock::Clock;
use crate::coordinator::{Coordinator, CoordinatorError, expect_reply};
use crate::log::Partition;

/// Why a request to a group fails.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum GroupFailure {
    /// The group refuses.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// Its coordinator does not answer.
    #[error(transparent)]
    Coordinator(#[from] CoordinatorError),
}

/// All groups of this broker.
pub struct Groups {
    coordinator: Coordinator<GroupShard>,
}

impl Groups {
    /// No groups yet; [`Groups::start`] brings them. They end at `stop`.
    pub fn new(settings: Settings, clock: Clock, stop: CancellationToken) -> Self {
        let settings = Arc::new(settings);
        let new_shard = move |shards| GroupShard::new(Arc::clone(&settings), shards);
        let coordinator = Coordinator::new(clock, stop, new_shard);
        Self { coordinator }
    }

    /// Serves the groups that these partitions of `__consumer_offsets` hold.
    pub fn start(&self, partitions: &[Arc<Partition>]) {
        self.coordinator.start(partitions);
    }

    async fn ask(&self, group: &str, event: GroupEvent) -> Result<Reply, CoordinatorError> {
        self.coordinator.ask(group, Event::Group(group.into(), event)).await
    }

    /// Returns when the group is complete.
    ///
    /// # Errors
    /// Of the group, or of its coordinator.
    pub async fn join(&self, group: &str, join: Join) -> Result<Joined, GroupFailure> {
        named(group)?;
        let names =
            join.protocols.iter().map(|(name, _)| name).chain([&join.protocol_type]).chain(&join.instance_id);
        if names.into_iter().any(|name| name.len() > TEXT_MAX_BYTES) {
            return Err(GroupError::NameTooLong.into());
        }
        Ok(expect_reply!(self.ask(group, GroupEvent::Join(join)).await?, Joined)?)
    }

    /// Returns when the leader has assigned.
    ///
    /// # Errors
    /// Of the group, or of its coordinator.
    pub async fn sync(&self, group: &str, sync: Sync) -> Result<Synced, GroupFailure> {
        named(group)?;
        Ok(expect_reply!(self.ask(group, GroupEvent::Sync(sync)).await?, Synced)?)
    }

    /// A member is alive; while the coordinator loads, it is taken at its word.
    ///
    /// # Errors
    /// Of the group, or of its coordinator.
    pub async fn heartbeat(&self, group: &str, claim: Claim) -> Result<(), GroupFailure> {
        named(group)?;
        match self.ask(group, GroupEvent::Heartbeat(claim)).await {
            Err(CoordinatorError::Loading) => Ok(()),
            reply => Ok(expect_reply!(reply?, Done)?),
        }
    }

    /// Takes members out; each has its own answer.
    ///
    /// # Errors
    /// Of the group, or of its coordinator.
    pub async fn leave(
        &self,
        group: &str,
        leaving: Vec<Leaving>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupFailure> {
        named(group)?;
        Ok(expect_reply!(self.ask(group, GroupEvent::Leave(leaving)).await?, Left))
    }

    /// Stores offsets: all or none. A group that is unknown comes to be if who commits is no member.
    ///
    /// # Errors
    /// Of the group, or of its coordinator.
    pub async fn commit(
        &self,
        group: &str,
        claim: Claim,
        knows_not_found: bool,
        offsets: OffsetMap,
    ) -> Result<(), GroupFailure> {
        if group.len() > TEXT_MAX_BYTES {
            return Err(GroupError::InvalidGroupId.into());
        }
        let event = GroupEvent::Commit { claim, knows_not_found, offsets };
        Ok(expect_reply!(self.ask(group, event).await?, Done)?)
    }

    /// The offsets that are wanted and exist, or all.
    ///
    /// # Errors
    /// Of the coordinator.
    pub async fn offsets(
        &self,
        group: &str,
        wanted: Option<Partitions>,
    ) -> Result<OffsetMap, CoordinatorError> {
        Ok(expect_reply!(self.ask(group, GroupEvent::FetchOffsets(wanted)).await?, Offsets))
    }

    /// Forgets offsets; false where a member still consumes the topic.
    ///
    /// # Errors
    /// Of the group, or of its coordinator.
    pub async fn delete_offsets(
        &self,
        group: &str,
        partitions: Partitions,
    ) -> Result<Forgotten, GroupFailure> {
        Ok(expect_reply!(self.ask(group, GroupEvent::DeleteOffsets(partitions)).await?, Forgotten)?)
    }

    /// The group as it is; `None` if there is none.
    ///
    /// # Errors
    /// Of the coordinator.
    pub async fn describe(&self, group: &str) -> Result<Option<Description>, CoordinatorError> {
        Ok(expect_reply!(self.ask(group, GroupEvent::Describe).await?, Described))
    }

    /// Forgets a group without members, and its offsets.
    ///
    /// # Errors
    /// Of the group, or of its coordinator.
    pub async fn delete(&self, group: &str) -> Result<(), GroupFailure> {
        Ok(expect_reply!(self.ask(group, GroupEvent::Delete).await?, Done)?)
    }

    /// A member of a share group joins, stays or leaves.
    ///
    /// # Errors
    /// Of the group, or of its coordinator.
    pub async fn share_heartbeat(
        &self,
        group: &str,
        beat: ShareHeartbeat,
    ) -> Result<ShareBeat, GroupFailure> {
        named(group)?;
        let names = beat.topics.iter().flatten().chain(&beat.rack_id).chain([&beat.client_id]);
        let is_too_long = names.into_iter().any(|name| name.len() > TEXT_MAX_BYTES);
        if is_too_long || beat.member_id.len() > MEMBER_ID_MAX_BYTES {
            return Err(GroupError::NameTooLong.into());
        }
        Ok(expect_reply!(self.ask(group, GroupEvent::ShareHeartbeat(beat)).await?, ShareBeat)?)
    }

    /// The share group as it is; `None` if there is none.
    ///
    /// # Errors
    /// Of the coordinator.
    pub async fn share_describe(&self, group: &str) -> Result<Option<ShareDescription>, CoordinatorError> {
        Ok(expect_reply!(self.ask(group, GroupEvent::ShareDescribe).await?, ShareDescribed))
    }

    /// All groups.
    ///
    /// # Errors
    /// Of the coordinator.
    pub async fn list(&self) -> Result<Listing, CoordinatorError> {
        let mut all = Listing::default();
        for reply in self.coordinator.ask_all(|| Event::List).await? {
            let Listing { groups, bytes } = expect_reply!(reply, Listed);
            all.groups.extend(groups);
            all.bytes += bytes;
        }
        Ok(all)
    }

    /// Forgets the offsets of topics that do not exist.
    ///
    /// # Errors
    /// Of the coordinator.
    pub async fn drop_offsets(&self, exists: TopicExists) -> Result<(), CoordinatorError> {
        self.coordinator.ask_all(|| Event::DropOffsets(Arc::clone(&exists))).await.map(drop)
    }
}

/// Members are of groups that have a name; offsets may be committed without one.
fn named(group: &str) -> Result<(), GroupError> {
    match group.len() {
        1..=TEXT_MAX_BYTES => Ok(()),
        _ => Err(GroupError::InvalidGroupId),
    }
}
