//! A member of a classic group: joins, assigns if it leads, says that it lives, commits, leaves.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::cli::client::{ClientError, Cluster, Patience, TopicPartition, code_of};
use crate::group::consumer_protocol::{Assignment, Subscription, TopicPartitions, Versioned};
use crate::protocol::ErrorCode;
use crate::protocol::api::Api;
use crate::protocol::messages::heartbeat::HeartbeatRequest;
use crate::protocol::messages::join_group::{
    JoinGroupMember, JoinGroupProtocol, JoinGroupRequest, JoinGroupResponse,
};
use crate::protocol::messages::leave_group::{LeaveGroupRequest, LeavingMember};
use crate::protocol::messages::offset_commit::{
    OffsetCommitPartition, OffsetCommitRequest, OffsetCommitTopic,
};
use crate::protocol::messages::sync_group::{SyncGroupAssignment, SyncGroupRequest};
use crate::protocol::messages::{Heartbeat, JoinGroup, LeaveGroup, OffsetCommit, SyncGroup};
use crate::protocol::wire::Str;

/// Newest version of OffsetCommit that names its topics; later ones have ids.
pub(in crate::cli) const OFFSET_COMMIT_VERSION: i16 = 9;
/// The type of all groups of consumers.
const PROTOCOL_TYPE: &str = "consumer";
/// The assignor that every client has.
const ASSIGNOR: &str = "range";
/// Version of what is said to other members. Nothing later is needed: a member owns nothing while it joins.
const MESSAGE_VERSION: i16 = 0;
/// Silence after which the coordinator takes the member for dead, ms: Java's default.
const SESSION_TIMEOUT_MS: i32 = 45_000;
/// How often the member says that it lives.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(3);

/// Whether a member's place in its generation still holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// It does.
    Holds,
    /// The group rebalances: what has been read can still be committed, then the member must join again.
    Rebalances,
    /// It has been taken for dead: it must join again.
    Lost,
}

/// A member.
pub(super) struct Member {
    group: Str,
    topics: Vec<Str>,
    /// Empty until the coordinator has given one.
    member_id: Str,
    generation: i32,
    coordinator: i32,
    heartbeat_at: Instant,
}

impl Member {
    /// Who will join `group` for these topics.
    pub(super) fn new(group: Str, topics: Vec<Str>) -> Self {
        Self {
            group,
            topics,
            member_id: Str::new(),
            generation: -1,
            coordinator: -1,
            heartbeat_at: Instant::now(),
        }
    }

    /// Joins, or joins again, and gives the partitions that are this member's in the new generation.
    ///
    /// # Errors
    /// The coordinator refuses for good, or until the cluster's timeout.
    pub(super) fn join(&mut self, cluster: &mut Cluster) -> Result<Vec<TopicPartition>, ClientError> {
        let mut patience = Patience::new(cluster.timeout());
        loop {
            match self.join_once(cluster) {
                Err(error) if error.is(ErrorCode::MemberIdRequired) => {}
                Err(error) if error.is(ErrorCode::UnknownMemberId) && patience.pause() => {
                    self.member_id = Str::new();
                }
                Err(error) if must_join_again(&error) && patience.pause() => {}
                Err(error) if error.is_retriable() && patience.pause() => {}
                done => {
                    self.heartbeat_at = Instant::now() + HEARTBEAT_EVERY;
                    return done;
                }
            }
        }
    }

    fn join_once(&mut self, cluster: &mut Cluster) -> Result<Vec<TopicPartition>, ClientError> {
        self.coordinator = cluster.coordinator(&self.group)?;
        let subscription = Subscription { topics: self.topics.clone(), ..Subscription::default() };
        let protocol = JoinGroupProtocol {
            name: ASSIGNOR.into(),
            metadata: subscription.encode_versioned(MESSAGE_VERSION),
        };
        let joined = cluster.call::<JoinGroup>(
            self.coordinator,
            &JoinGroupRequest {
                group_id: self.group.clone(),
                session_timeout_ms: SESSION_TIMEOUT_MS,
                // As long as our own call may take.
                rebalance_timeout_ms: cluster.timeout_ms(),
                member_id: self.member_id.clone(),
                protocol_type: PROTOCOL_TYPE.into(),
                protocols: vec![protocol],
                ..JoinGroupRequest::default()
            },
        )?;
        if joined.error_code == i16::from(ErrorCode::MemberIdRequired) {
            self.member_id = joined.member_id.clone();
        }
        self.check("JoinGroup", joined.error_code)?;
        self.member_id = joined.member_id.clone();
        self.generation = joined.generation_id;
        let assignments =
            if joined.leader == joined.member_id { assign_all(cluster, &joined)? } else { Vec::new() };
        let synced = cluster.call::<SyncGroup>(
            self.coordinator,
            &SyncGroupRequest {
                group_id: self.group.clone(),
                generation_id: self.generation,
                member_id: self.member_id.clone(),
                protocol_type: Some(PROTOCOL_TYPE.into()),
                protocol_name: Some(ASSIGNOR.into()),
                assignments,
                ..SyncGroupRequest::default()
            },
        )?;
        self.check("SyncGroup", synced.error_code)?;
        if synced.assignment.is_empty() {
            return Ok(Vec::new());
        }
        let assignment = Assignment::decode_versioned(&synced.assignment)
            .map_err(|source| ClientError::Answer { api: SyncGroup::NAME, source })?;
        let places = assignment.assigned_partitions.into_iter().flat_map(|topic| {
            let place = |partition| TopicPartition::new(&topic.topic, partition);
            topic.partitions.iter().map(|partition| place(*partition)).collect::<Vec<_>>()
        });
        Ok(places.collect())
    }

    /// Says that the member lives, if it is time to.
    ///
    /// # Errors
    /// The coordinator refuses for good, or until the cluster's timeout.
    pub(super) fn heartbeat(&mut self, cluster: &mut Cluster) -> Result<Standing, ClientError> {
        if Instant::now() < self.heartbeat_at {
            return Ok(Standing::Holds);
        }
        self.heartbeat_at = Instant::now() + HEARTBEAT_EVERY;
        let request = HeartbeatRequest {
            group_id: self.group.clone(),
            generation_id: self.generation,
            member_id: self.member_id.clone(),
            group_instance_id: None,
        };
        self.standing(cluster, |member, cluster| {
            let answer = cluster.call::<Heartbeat>(member.coordinator, &request)?;
            member.check("Heartbeat", answer.error_code)
        })
    }

    /// Commits the next offsets to be read.
    ///
    /// # Errors
    /// The coordinator refuses for good, or until the cluster's timeout.
    pub(super) fn commit(
        &mut self,
        cluster: &mut Cluster,
        offsets: &BTreeMap<TopicPartition, i64>,
    ) -> Result<Standing, ClientError> {
        if offsets.is_empty() {
            return Ok(Standing::Holds);
        }
        let request = OffsetCommitRequest {
            group_id: self.group.clone(),
            generation_id_or_member_epoch: self.generation,
            member_id: self.member_id.clone(),
            topics: commit_topics(offsets),
            ..OffsetCommitRequest::default()
        };
        self.standing(cluster, |member, cluster| commit(cluster, member.coordinator, &member.group, &request))
    }

    /// Leaves, so that the others need not wait for the session's end. Nothing more can be done if that fails.
    pub(super) fn leave(&mut self, cluster: &mut Cluster) {
        if self.member_id.is_empty() {
            return;
        }
        let member = LeavingMember { member_id: self.member_id.clone(), ..LeavingMember::default() };
        let request = LeaveGroupRequest {
            group_id: self.group.clone(),
            member_id: self.member_id.clone(),
            members: vec![member],
        };
        let _: Result<_, ClientError> = cluster.call::<LeaveGroup>(self.coordinator, &request);
    }

    /// Tries a call, over a change of the coordinator, until it goes well or the generation is over.
    fn standing(
        &mut self,
        cluster: &mut Cluster,
        mut call: impl FnMut(&Self, &mut Cluster) -> Result<(), ClientError>,
    ) -> Result<Standing, ClientError> {
        let mut patience = Patience::new(cluster.timeout());
        loop {
            let error = match call(self, cluster) {
                Ok(()) => return Ok(Standing::Holds),
                Err(error) => error,
            };
            if error.is(ErrorCode::RebalanceInProgress) {
                return Ok(Standing::Rebalances);
            }
            if error.is(ErrorCode::UnknownMemberId) || must_join_again(&error) {
                return Ok(Standing::Lost);
            }
            if !error.is_retriable() || !patience.pause() {
                return Err(error);
            }
            // Where it is now, the next try must know; that it is not known yet, that try will say.
            if let Ok(coordinator) = cluster.coordinator(&self.group) {
                self.coordinator = coordinator;
            }
        }
    }

    fn check(&self, what: &str, code: i16) -> Result<(), ClientError> {
        code_of(&format!("{what} of group {:?}", self.group), code, None)
    }
}

fn must_join_again(error: &ClientError) -> bool {
    error.is(ErrorCode::RebalanceInProgress) || error.is(ErrorCode::IllegalGeneration)
}

/// Commits as `request` says, one attempt.
///
/// # Errors
/// No connection; the first partition that is refused.
pub(in crate::cli) fn commit(
    cluster: &mut Cluster,
    coordinator: i32,
    group: &Str,
    request: &OffsetCommitRequest,
) -> Result<(), ClientError> {
    let answer = cluster.call_up_to::<OffsetCommit>(coordinator, OFFSET_COMMIT_VERSION, request)?;
    for topic in answer.topics {
        for partition in topic.partitions {
            let place = TopicPartition::new(&topic.name, partition.partition_index);
            code_of(&format!("group {group:?}, offset of {place}"), partition.error_code, None)?;
        }
    }
    Ok(())
}

/// Offsets as OffsetCommit takes them.
pub(in crate::cli) fn commit_topics(offsets: &BTreeMap<TopicPartition, i64>) -> Vec<OffsetCommitTopic> {
    let mut topics: BTreeMap<&Str, Vec<OffsetCommitPartition>> = BTreeMap::new();
    for (place, offset) in offsets {
        topics.entry(&place.topic).or_default().push(OffsetCommitPartition {
            partition_index: place.partition,
            committed_offset: *offset,
            committed_metadata: Some(Str::new()),
            ..OffsetCommitPartition::default()
        });
    }
    let topic = |(name, partitions): (&Str, _)| OffsetCommitTopic {
        name: name.clone(),
        partitions,
        ..OffsetCommitTopic::default()
    };
    topics.into_iter().map(topic).collect()
}

/// What each member gets, from this one that leads.
fn assign_all(
    cluster: &mut Cluster,
    joined: &JoinGroupResponse,
) -> Result<Vec<SyncGroupAssignment>, ClientError> {
    let mut wanted: BTreeMap<Str, Vec<&JoinGroupMember>> = BTreeMap::new();
    for member in &joined.members {
        let subscription = Subscription::decode_versioned(&member.metadata)
            .map_err(|source| ClientError::Answer { api: JoinGroup::NAME, source })?;
        for topic in subscription.topics {
            wanted.entry(topic).or_default().push(member);
        }
    }
    let names: Vec<Str> = wanted.keys().cloned().collect();
    let mut given: BTreeMap<Str, Vec<TopicPartitions>> = BTreeMap::new();
    for topic in cluster.metadata(Some(&names), false)? {
        // One that is not there has no partitions: nobody gets any.
        let name = topic.name.unwrap_or_default();
        let Some(members) = wanted.get_mut(&name) else { continue };
        members.sort_by_key(|member| {
            (member.group_instance_id.is_none(), &member.group_instance_id, &member.member_id)
        });
        members.dedup_by_key(|member| &member.member_id);
        for (member, partitions) in members.iter().zip(ranges(topic.partitions.len(), members.len())) {
            let partitions: Vec<i32> = partitions.map(|partition| partition as i32).collect();
            if !partitions.is_empty() {
                let share = TopicPartitions { topic: name.clone(), partitions };
                given.entry(member.member_id.clone()).or_default().push(share);
            }
        }
    }
    let assignment = |member: &JoinGroupMember| SyncGroupAssignment {
        member_id: member.member_id.clone(),
        assignment: Assignment {
            assigned_partitions: given.remove(&member.member_id).unwrap_or_default(),
            user_data: None,
        }
        .encode_versioned(MESSAGE_VERSION),
    };
    Ok(joined.members.iter().map(assignment).collect())
}

/// The range assignor: neighbouring partitions for each member, one more for the first ones if they do not divide evenly.
fn ranges(partitions: usize, members: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let (each, more) = (partitions / members, partitions % members);
    (0..members).map(move |member| {
        let start = each * member + member.min(more);
        start..start + each + usize::from(member < more)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_has_one_member_and_the_first_members_have_one_more() {
        let of = |partitions, members| ranges(partitions, members).collect::<Vec<_>>();
        assert_eq!(of(7, 3), [0..3, 3..5, 5..7]);
        assert_eq!(of(1, 3), [0..1, 1..1, 1..1]);
        assert_eq!(of(0, 2), [0..0, 0..0]);
        assert_eq!(of(4, 2), [0..2, 2..4]);
    }
}
