//! Share groups: who is a member and which partitions each reads. Several may read one partition, so nothing has to be given
//! up before another gets it: an assignment holds as soon as it is made. KIP-932.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{GroupError, Reply, State, after};
use crate::clock::TimestampMs;
use crate::coordinator::records::{
    ShareAssignmentTopic, ShareGroupAssignmentValue, ShareGroupMemberValue, ShareGroupValue,
};
use crate::coordinator::{Effects, Record};
use crate::protocol::wire::Str;
use crate::uuid::Uuid;

/// Session timeout of a member that a replay has found, until its next heartbeat says another, ms.
const SESSION_AT_REPLAY_MS: i32 = 45_000;

/// What a member takes in memory beside its texts and partitions, about.
const MEMBER_BYTES: usize = 320;

/// What a record takes beside its texts and lists, at most.
const RECORD_BYTES: usize = 64;

/// What a text or an assigned topic takes in a record beside its characters or partitions, at most.
const ELEMENT_BYTES: usize = 24;

/// What an assigned topic takes in memory beside its partitions, about.
const TOPIC_BYTES: usize = 64;

/// Member epoch of a member that wants to join.
pub const JOIN_EPOCH: i32 = 0;

/// Member epoch of a member that leaves.
pub const LEAVE_EPOCH: i32 = -1;

/// [`ShareGroupAssignmentValue::state`] of a member that has what it shall have: no other is known.
const STABLE: i8 = 0;

/// Partitions by topic.
pub type Assignment = BTreeMap<Uuid, Vec<i32>>;

/// Id of the topic of a name, and how many partitions it has.
pub type TopicLookup = Arc<dyn Fn(&str) -> Option<(Uuid, i32)> + Send + Sync>;

/// What a member says.
pub struct ShareHeartbeat {
    /// Made by the client.
    pub member_id: Arc<str>,
    /// [`JOIN_EPOCH`], [`LEAVE_EPOCH`], or the epoch that the member knows.
    pub member_epoch: i32,
    /// `None`: as it was.
    pub rack_id: Option<Arc<str>>,
    /// `None`: as they were.
    pub topics: Option<Vec<Arc<str>>>,
    /// The client's name for itself.
    pub client_id: Arc<str>,
    /// Where it is.
    pub client_host: Arc<str>,
    /// Silence after which the member is removed, ms.
    pub session_timeout_ms: i32,
    /// Members that the group may have.
    pub max_size: usize,
    /// The topics there are.
    pub lookup: TopicLookup,
}

/// What a member is told.
#[derive(Clone, PartialEq, Debug)]
pub struct ShareBeat {
    /// The epoch to say next time.
    pub member_epoch: i32,
    /// What it reads now; `None` if that is what it was told before.
    pub assignment: Option<Assignment>,
}

/// A share group as it is.
#[derive(Clone, PartialEq, Debug)]
pub struct ShareDescription {
    /// Empty or stable.
    pub state: State,
    /// Rises when members, subscriptions or topics change.
    pub epoch: i32,
    /// Its members, by id.
    pub members: Vec<ShareMemberDescription>,
}

/// A member as it is.
#[derive(Clone, PartialEq, Debug)]
pub struct ShareMemberDescription {
    /// Its id.
    pub member_id: Arc<str>,
    /// Its rack.
    pub rack_id: Option<Arc<str>>,
    /// The group's epoch that it was told of last.
    pub epoch: i32,
    /// The client's name for itself.
    pub client_id: Arc<str>,
    /// Where it is.
    pub client_host: Arc<str>,
    /// What it has subscribed to.
    pub topics: Vec<Arc<str>>,
    /// What it reads.
    pub assignment: Assignment,
}

#[derive(Clone, PartialEq, Default, Debug)]
struct Member {
    rack_id: Option<Arc<str>>,
    client_id: Arc<str>,
    client_host: Arc<str>,
    /// Sorted.
    topics: Vec<Arc<str>>,
    epoch: i32,
    previous_epoch: i32,
    assignment: Assignment,
    session_ends: TimestampMs,
}

impl Member {
    fn bytes(&self, id: &str) -> usize {
        let topics: usize = self.topics.iter().map(|topic| topic.len() + size_of::<Arc<str>>()).sum();
        MEMBER_BYTES + id.len() + self.text_bytes() + topics + assignment_bytes(&self.assignment)
    }

    fn text_bytes(&self) -> usize {
        let rack = self.rack_id.as_ref().map_or(0, |rack| rack.len());
        rack + self.client_id.len() + self.client_host.len()
    }
}

/// Bytes in memory, about.
fn assignment_bytes(assignment: &Assignment) -> usize {
    assignment.values().map(|partitions| TOPIC_BYTES + size_of_val(&partitions[..])).sum()
}

/// A share group.
#[derive(Clone, PartialEq, Debug)]
pub struct ShareGroup {
    id: Arc<str>,
    epoch: i32,
    members: BTreeMap<Arc<str>, Member>,
    /// The subscribed topics that there are, as of the last assignment; not stored, so that the first heartbeat after a start
    /// looks again.
    topics: BTreeMap<Arc<str>, (Uuid, i32)>,
    /// What each member shall read.
    target: BTreeMap<Arc<str>, Assignment>,
    target_bytes: usize,
    /// Of the members.
    bytes: usize,
}

impl ShareGroup {
    /// A group without members.
    pub fn new(id: Arc<str>) -> Self {
        Self {
            id,
            epoch: 0,
            members: BTreeMap::new(),
            topics: BTreeMap::new(),
            target: BTreeMap::new(),
            target_bytes: 0,
            bytes: 0,
        }
    }

    /// Its state.
    pub fn state(&self) -> State {
        if self.members.is_empty() { State::Empty } else { State::Stable }
    }

    /// How many members it has.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether it has no members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Bytes in memory, about.
    pub fn bytes(&self) -> usize {
        self.bytes + self.target_bytes + self.topics.len() * TOPIC_BYTES
    }

    /// About what a heartbeat would add to the memory in use.
    pub fn growth(&self, beat: &ShareHeartbeat) -> usize {
        if beat.member_epoch == LEAVE_EPOCH {
            return 0;
        }
        let id = &beat.member_id;
        self.said(beat).bytes(id).saturating_sub(self.members.get(id).map_or(0, |known| known.bytes(id)))
    }

    /// About the bytes of the largest record that a heartbeat may have stored: that of the member, or that of all that there is
    /// to assign.
    pub fn record_bytes(&self, beat: &ShareHeartbeat) -> usize {
        if beat.member_epoch == LEAVE_EPOCH {
            return 0;
        }
        let said = self.said(beat);
        let names: usize = said.topics.iter().map(|topic| topic.len() + ELEMENT_BYTES).sum();
        let found = said.topics.iter().filter_map(|topic| (beat.lookup)(topic));
        let partitions = found.map(|(_, partitions)| usize::try_from(partitions).unwrap_or(0));
        let assigned: usize = partitions.map(|count| ELEMENT_BYTES + count * size_of::<i32>()).sum();
        let head = RECORD_BYTES + self.id.len() + beat.member_id.len();
        head + assigned.max(said.text_bytes() + names)
    }

    /// When [`Self::tick`] must be called next.
    pub fn deadline(&self) -> Option<TimestampMs> {
        self.members.values().map(|member| member.session_ends).min()
    }

    /// A member joins, stays or leaves.
    ///
    /// # Errors
    /// A member that is not known, or in another epoch; a group that is full.
    pub fn heartbeat(
        &mut self,
        now: TimestampMs,
        beat: &ShareHeartbeat,
        out: &mut Effects<Reply>,
    ) -> Result<ShareBeat, GroupError> {
        let id = &beat.member_id;
        let known = self.members.get(id);
        if beat.member_epoch != JOIN_EPOCH {
            self.check_epoch(known.ok_or(GroupError::UnknownMember)?, beat.member_epoch)?;
        } else if known.is_none() && self.members.len() >= beat.max_size {
            return Err(GroupError::MaxSize);
        }
        if beat.member_epoch == LEAVE_EPOCH {
            self.remove(id, out);
            return Ok(ShareBeat { member_epoch: LEAVE_EPOCH, assignment: None });
        }
        self.subscribe(beat, out);
        if let Some(member) = self.members.get_mut(id) {
            member.session_ends = after(now, beat.session_timeout_ms);
        }
        self.look_up(&beat.lookup, out);
        Ok(self.assign(beat, out))
    }

    /// The epoch that the member was told last, or the one before, if that answer was lost.
    fn check_epoch(&self, member: &Member, epoch: i32) -> Result<(), GroupError> {
        match epoch {
            LEAVE_EPOCH => Ok(()),
            epoch if epoch == member.epoch || epoch == member.previous_epoch => Ok(()),
            _ => Err(GroupError::FencedMemberEpoch),
        }
    }

    /// The member as it is by what it says.
    fn said(&self, beat: &ShareHeartbeat) -> Member {
        let known = self.members.get(&beat.member_id).cloned().unwrap_or_default();
        let mut topics = beat.topics.clone().unwrap_or(known.topics);
        topics.sort_unstable();
        topics.dedup();
        Member {
            rack_id: beat.rack_id.clone().or(known.rack_id),
            client_id: Arc::clone(&beat.client_id),
            client_host: Arc::clone(&beat.client_host),
            topics,
            ..known
        }
    }

    fn subscribe(&mut self, beat: &ShareHeartbeat, out: &mut Effects<Reply>) {
        let said = self.said(beat);
        let known = self.members.get(&beat.member_id);
        if known == Some(&said) {
            return;
        }
        let changes_assignment = known.is_none_or(|known| known.topics != said.topics);
        let text = |text: &Arc<str>| Str::from(&**text);
        let value = ShareGroupMemberValue {
            rack_id: said.rack_id.as_ref().map(text),
            client_id: text(&said.client_id),
            client_host: text(&said.client_host),
            subscribed_topic_names: said.topics.iter().map(text).collect(),
        };
        let (group, member) = (text(&self.id), text(&beat.member_id));
        self.store(Record::ShareMember { group, member, value: Some(value) }, out);
        if changes_assignment {
            self.begin_epoch(out);
        }
    }

    fn remove(&mut self, id: &Arc<str>, out: &mut Effects<Reply>) {
        let text = |text: &Arc<str>| Str::from(&**text);
        let (group, member) = (text(&self.id), text(id));
        self.store(
            Record::ShareAssignment { group: group.clone(), member: member.clone(), value: None },
            out,
        );
        self.store(Record::ShareMember { group, member, value: None }, out);
        self.begin_epoch(out);
    }

    fn begin_epoch(&mut self, out: &mut Effects<Reply>) {
        let value = ShareGroupValue { epoch: self.epoch + 1, metadata_hash: 0 };
        self.store(Record::ShareGroup { group: (&*self.id).into(), value: Some(value) }, out);
        self.clear_target();
    }

    /// Begins a new epoch if topics have come, gone or grown.
    fn look_up(&mut self, lookup: &TopicLookup, out: &mut Effects<Reply>) {
        let mut topics = BTreeMap::new();
        for topic in self.members.values().flat_map(|member| &member.topics) {
            if !topics.contains_key(topic)
                && let Some(found) = lookup(topic)
            {
                topics.insert(Arc::clone(topic), found);
            }
        }
        if topics != self.topics {
            // What a start has found for the first time is no change.
            if !self.topics.is_empty() {
                self.begin_epoch(out);
            }
            self.topics = topics;
            self.clear_target();
        }
    }

    fn clear_target(&mut self) {
        self.target.clear();
        self.target_bytes = 0;
    }

    /// Gives the member what it shall read, if that is not what it has been told.
    fn assign(&mut self, beat: &ShareHeartbeat, out: &mut Effects<Reply>) -> ShareBeat {
        if self.target.is_empty() {
            let subscribed = self.members.iter().map(|(id, member)| (id, &member.topics[..]));
            self.target = spread(&subscribed.collect::<Vec<_>>(), &self.topics);
            let bytes = |assignment: &Assignment| TOPIC_BYTES + assignment_bytes(assignment);
            self.target_bytes = self.target.values().map(bytes).sum();
        }
        let target = self.target.get(&beat.member_id).cloned().unwrap_or_default();
        let Some(member) = self.members.get(&beat.member_id) else {
            return ShareBeat { member_epoch: self.epoch, assignment: Some(target) };
        };
        let is_new = member.assignment != target;
        if member.epoch != self.epoch || is_new {
            let topic = |(topic_id, partitions): (&Uuid, &Vec<i32>)| ShareAssignmentTopic {
                topic_id: *topic_id,
                partitions: partitions.clone(),
            };
            let value = ShareGroupAssignmentValue {
                member_epoch: self.epoch,
                previous_member_epoch: member.epoch,
                state: STABLE,
                assigned_partitions: target.iter().map(topic).collect(),
            };
            let (group, member) = ((&*self.id).into(), (&*beat.member_id).into());
            self.store(Record::ShareAssignment { group, member, value: Some(value) }, out);
        }
        // An answer that was lost is given again: to who joins, who says everything, or who speaks of the epoch before.
        let is_behind = beat.member_epoch != self.epoch;
        let is_told = !is_new && !is_behind && beat.topics.is_none();
        ShareBeat { member_epoch: self.epoch, assignment: (!is_told).then_some(target) }
    }

    /// Removes who has been silent for too long.
    pub fn tick(&mut self, now: TimestampMs, out: &mut Effects<Reply>) {
        let silent = self.members.iter().filter(|(_, member)| member.session_ends <= now);
        for id in silent.map(|(id, _)| Arc::clone(id)).collect::<Vec<_>>() {
            self.remove(&id, out);
        }
    }

    fn store(&mut self, record: Record, out: &mut Effects<Reply>) {
        self.apply(&record);
        out.records.push(record);
    }

    /// Takes in a record of the group.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::ShareGroup { value, .. } => self.epoch = value.as_ref().map_or(0, |value| value.epoch),
            Record::ShareMember { member, value: Some(value), .. } => {
                self.with(member, |member| {
                    member.rack_id = value.rack_id.as_deref().map(Arc::from);
                    member.client_id = (&*value.client_id).into();
                    member.client_host = (&*value.client_host).into();
                    member.topics =
                        value.subscribed_topic_names.iter().map(|topic| (&**topic).into()).collect();
                });
            }
            Record::ShareMember { member, value: None, .. } => {
                if let Some(gone) = self.members.remove(&**member) {
                    self.bytes -= gone.bytes(member);
                }
            }
            // The log is compacted: this record may have outlived the one before it that named the member.
            Record::ShareAssignment { member, value, .. }
                if value.is_some() || self.members.contains_key(&**member) =>
            {
                let value = value.clone().unwrap_or_default();
                self.with(member, |member| {
                    member.epoch = value.member_epoch;
                    member.previous_epoch = value.previous_member_epoch;
                    let topics = value.assigned_partitions.into_iter();
                    member.assignment = topics.map(|topic| (topic.topic_id, topic.partitions)).collect();
                });
            }
            Record::ShareAssignment { .. } | Record::Offset { .. } | Record::Group { .. } => {}
        }
    }

    fn with(&mut self, id: &str, change: impl FnOnce(&mut Member)) {
        let member = match self.members.get_mut(id) {
            Some(member) => {
                self.bytes -= member.bytes(id);
                member
            }
            None => self.members.entry(id.into()).or_default(),
        };
        change(member);
        self.bytes += member.bytes(id);
    }

    /// Records that make the same group.
    pub fn records(&self) -> Vec<Record> {
        let text = |text: &Arc<str>| Str::from(&**text);
        let group = text(&self.id);
        let value = ShareGroupValue { epoch: self.epoch, metadata_hash: 0 };
        let mut records = vec![Record::ShareGroup { group: group.clone(), value: Some(value) }];
        for (id, member) in &self.members {
            let value = ShareGroupMemberValue {
                rack_id: member.rack_id.as_ref().map(text),
                client_id: text(&member.client_id),
                client_host: text(&member.client_host),
                subscribed_topic_names: member.topics.iter().map(text).collect(),
            };
            records.push(Record::ShareMember { group: group.clone(), member: text(id), value: Some(value) });
            let assigned = member.assignment.iter().map(|(topic_id, partitions)| ShareAssignmentTopic {
                topic_id: *topic_id,
                partitions: partitions.clone(),
            });
            let value = ShareGroupAssignmentValue {
                member_epoch: member.epoch,
                previous_member_epoch: member.previous_epoch,
                state: STABLE,
                assigned_partitions: assigned.collect(),
            };
            records.push(Record::ShareAssignment {
                group: group.clone(),
                member: text(id),
                value: Some(value),
            });
        }
        records
    }

    /// A replay is over: members have their whole session from now on.
    pub fn restart_sessions(&mut self, now: TimestampMs) {
        self.members.values_mut().for_each(|member| member.session_ends = after(now, SESSION_AT_REPLAY_MS));
    }

    /// As a description shows it.
    pub fn describe(&self) -> ShareDescription {
        let describe = |(id, member): (&Arc<str>, &Member)| ShareMemberDescription {
            member_id: Arc::clone(id),
            rack_id: member.rack_id.clone(),
            epoch: member.epoch,
            client_id: Arc::clone(&member.client_id),
            client_host: Arc::clone(&member.client_host),
            topics: member.topics.clone(),
            assignment: member.assignment.clone(),
        };
        ShareDescription {
            state: self.state(),
            epoch: self.epoch,
            members: self.members.iter().map(describe).collect(),
        }
    }
}

/// Spreads the partitions of each topic over the members that have subscribed to it. Each partition has a member; where there
/// are more members than partitions, each member has one partition, which it shares.
fn spread(
    members: &[(&Arc<str>, &[Arc<str>])],
    topics: &BTreeMap<Arc<str>, (Uuid, i32)>,
) -> BTreeMap<Arc<str>, Assignment> {
    let mut spread: BTreeMap<Arc<str>, Assignment> =
        members.iter().map(|(id, _)| (Arc::clone(id), Assignment::new())).collect();
    // Where one topic's round ends the next one's begins, so that small topics do not all go to the first members.
    let mut turn = 0;
    for (name, (topic_id, partitions)) in topics {
        let subscribed: Vec<_> =
            members.iter().filter(|(_, topics)| topics.contains(name)).map(|(id, _)| *id).collect();
        let rounds = subscribed.len().max(usize::try_from(*partitions).unwrap_or(0));
        for at in 0..rounds {
            let Some(id) = subscribed.get((turn + at) % subscribed.len().max(1)) else { break };
            if let Some(assignment) = spread.get_mut(*id) {
                assignment.entry(*topic_id).or_default().push(at as i32 % partitions.max(&1));
            }
        }
        turn += rounds;
    }
    spread
}

#[cfg(test)]
mod tests;
