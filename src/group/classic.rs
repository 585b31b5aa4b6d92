//! The membership of a classic group: joins, generations, sessions. KIP-62, KIP-345 (static members), KIP-394 (member ids).
//!
//! A rebalance gathers all members (`PreparingRebalance`: their joins are parked), begins a generation by answering the joins,
//! then waits for the leader's assignment (`CompletingRebalance`: their syncs are parked), which is stored before anyone hears
//! of it (`Stable`). Only that, and that a group has become empty, is stored: a member that was in the middle of a rebalance
//! when the broker died finds the generation before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::consumer_protocol::{Subscription, Versioned};
use super::{
    Claim, Description, GroupError, Join, Joined, JoinedMember, Leaving, MemberDescription, Reply, Settings,
    Sync, Synced, after,
};
use crate::clock::TimestampMs;
use crate::coordinator::records::{GroupMetadataMember, GroupMetadataValue};
use crate::coordinator::{Effects, Record, Ticket};

/// Type of protocol of consumers, whose metadata is a subscription.
const CONSUMER: &str = "consumer";

/// How long a member's first join may be parked, ms: its client may have gone without a word.
const NEW_MEMBER_JOIN_MS: i32 = 300_000;

/// What a member takes in memory beside its texts, about.
const MEMBER_BYTES: usize = 512;

/// Where a group is in its life. Kafka's names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum State {
    /// No members.
    #[default]
    Empty,
    /// Members are to join.
    PreparingRebalance,
    /// The leader is to assign.
    CompletingRebalance,
    /// Every member can have its assignment.
    Stable,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 4] =
        [Self::Empty, Self::PreparingRebalance, Self::CompletingRebalance, Self::Stable];

    /// Kafka's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// What a rebalance waits for.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
enum Phase {
    #[default]
    None,
    /// An empty group has got its first member: more may come. Ends at `round_ends`, but goes on for another round, until
    /// `ends` at most, if somebody has come.
    Gathering { round_ends: TimestampMs, ends: TimestampMs, grown: bool },
    /// All known members are to join.
    Joining { ends: TimestampMs },
    /// All members are to sync; also while stable, for those that have not yet.
    Syncing { ends: TimestampMs },
}

/// A member.
#[derive(Clone, PartialEq, Debug)]
struct Member {
    instance_id: Option<Arc<str>>,
    client_id: Arc<str>,
    client_host: Arc<str>,
    session_timeout_ms: i32,
    rebalance_timeout_ms: i32,
    /// The preferred one first.
    protocols: Vec<(Arc<str>, Bytes)>,
    assignment: Bytes,
    session_ends: TimestampMs,
    /// Has never been told a generation.
    is_new: bool,
    /// Has synced in this generation.
    synced: bool,
    join: Option<Ticket>,
    sync: Option<Ticket>,
}

impl Member {
    fn bytes(&self) -> usize {
        let instance_id_bytes = self.instance_id.as_ref().map_or(0, |id| id.len());
        let texts = self.client_id.len() + self.assignment.len() + instance_id_bytes;
        MEMBER_BYTES + protocol_bytes(&self.protocols) + texts
    }

    /// Whether a record says of it what is so, its assignment aside.
    fn is_as_stored(&self, protocol: &str, stored: &GroupMetadataMember) -> bool {
        self.metadata(protocol) == stored.subscription
            && self.session_timeout_ms == stored.session_timeout
            && self.rebalance_timeout_ms == stored.rebalance_timeout
            && self.instance_id.as_deref() == stored.group_instance_id.as_deref()
            && *self.client_id == *stored.client_id
            && *self.client_host == *stored.client_host
    }

    fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| **name == *protocol);
        found.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    /// Whether silence may end it: not while the group is what it waits for.
    fn can_expire(&self) -> bool {
        self.is_new || (self.join.is_none() && self.sync.is_none())
    }
}

fn protocol_bytes(protocols: &[(Arc<str>, Bytes)]) -> usize {
    protocols.iter().map(|(name, metadata)| name.len() + metadata.len() + 64).sum()
}

/// About what the member of a join will take in memory.
pub fn join_bytes(join: &Join) -> usize {
    MEMBER_BYTES + protocol_bytes(&join.protocols) + join.client_id.len()
}

/// What an id that was given and not yet used takes in memory, about.
const PENDING_BYTES: usize = 400;

/// A classic group's membership.
#[derive(Clone, PartialEq, Debug)]
pub struct ClassicGroup {
    id: Arc<str>,
    settings: Arc<Settings>,
    state: State,
    /// When it came into its state, as far as that is stored, ms since the epoch.
    state_since: Option<TimestampMs>,
    protocol_type: Option<Arc<str>>,
    protocol: Option<Arc<str>>,
    generation: i32,
    leader: Option<Arc<str>>,
    members: BTreeMap<Arc<str>, Member>,
    /// Ids of static members by instance id.
    instances: BTreeMap<Arc<str>, Arc<str>>,
    /// Ids that were given and not yet used, and when they are void.
    pending: BTreeMap<Arc<str>, TimestampMs>,
    /// How many members can do each protocol.
    supporters: BTreeMap<Arc<str>, usize>,
    /// Topics that the members of this generation consume; `None` if that cannot be known.
    subscribed: Option<BTreeSet<Arc<str>>>,
    phase: Phase,
    /// Members whose join is parked.
    joining: usize,
    bytes: usize,
    /// Not later than anything that [`Self::tick`] has to do.
    timer: Option<TimestampMs>,
    /// What its last record says, if the log has one.
    stored: Option<GroupMetadataValue>,
}

impl ClassicGroup {
    /// A group without members.
    pub fn new(id: Arc<str>, settings: Arc<Settings>) -> Self {
        Self {
            id,
            settings,
            state: State::Empty,
            state_since: None,
            protocol_type: None,
            protocol: None,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            pending: BTreeMap::new(),
            supporters: BTreeMap::new(),
            subscribed: None,
            phase: Phase::None,
            joining: 0,
            bytes: 0,
            timer: None,
            stored: None,
        }
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Its generation; 0 before the first.
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// The type of its protocols, once a member has said one.
    pub fn protocol_type(&self) -> Option<&Arc<str>> {
        self.protocol_type.as_ref()
    }

    /// When it became empty, if it had members once and the log knows.
    pub fn empty_since(&self) -> Option<TimestampMs> {
        self.state_since.filter(|_| self.state == State::Empty)
    }

    /// Bytes in memory, about.
    pub fn bytes(&self) -> usize {
        self.bytes + self.pending.len() * PENDING_BYTES
    }

    /// How many members it has.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether it has no members, nor any about to be.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.pending.is_empty()
    }

    /// Whether the log has a record of it.
    pub fn is_stored(&self) -> bool {
        self.stored.is_some()
    }

    /// Whether a member consumes the topic, as far as can be known.
    pub fn consumes(&self, topic: &str) -> bool {
        let is_consumer = self.protocol_type.as_deref() == Some(CONSUMER);
        !self.members.is_empty()
            && is_consumer
            && self.subscribed.as_ref().is_none_or(|topics| topics.contains(topic))
    }

    /// Whether its members consume topics, so that their offsets can be told from others.
    pub fn is_consumers(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER)
    }

    /// When [`Self::tick`] must be called next.
    pub fn deadline(&self) -> Option<TimestampMs> {
        self.timer
    }

    /// A client wants to be a member, or stay one.
    pub fn join(&mut self, now: TimestampMs, from: Ticket, join: Join, out: &mut Effects<Reply>) {
        if let Err(error) = self.try_join(now, from, join, out) {
            out.reply(from, Reply::Joined(Err(error)));
        }
    }

    fn try_join(
        &mut self,
        now: TimestampMs,
        from: Ticket,
        join: Join,
        out: &mut Effects<Reply>,
    ) -> Result<(), GroupError> {
        if !self.has_room_for(&join.member_id) {
            return Err(GroupError::MaxSize);
        }
        if !self.fits(&join) {
            return Err(GroupError::InconsistentProtocol);
        }
        let known_instance = join.instance_id.as_ref().and_then(|id| self.instances.get(id)).cloned();
        if join.member_id.is_empty() {
            return match (&join.instance_id, known_instance) {
                (Some(_), Some(old_id)) => self.take_over(now, from, join, &old_id, out),
                (None, _) if join.member_id_required => {
                    let member_id = Arc::clone(&join.fresh_member_id);
                    let void_at = after(now, join.session_timeout_ms);
                    self.pending.insert(Arc::clone(&member_id), void_at);
                    self.note(void_at);
                    Err(GroupError::MemberIdRequired { member_id })
                }
                _ => {
                    let id = Arc::clone(&join.fresh_member_id);
                    self.add(now, from, id, join, out);
                    Ok(())
                }
            };
        }
        if self.pending.contains_key(&join.member_id) {
            if join.instance_id.is_some() {
                return Err(GroupError::UnknownMember);
            }
            self.pending.remove(&join.member_id);
            self.add(now, from, Arc::clone(&join.member_id), join, out);
            return Ok(());
        }
        self.check_member(&join.member_id, join.instance_id.as_ref())?;
        let id = Arc::clone(&join.member_id);
        let member = &self.members[&id];
        let same = member.protocols == join.protocols;
        match self.state {
            State::CompletingRebalance if same => self.answer_join(now, from, &id, out),
            State::Stable if same && self.leader.as_ref() != Some(&id) => {
                self.answer_join(now, from, &id, out);
            }
            State::Empty => return Err(GroupError::UnknownMember),
            _ => {
                self.update(now, &id, join);
                self.park_join(&id, from, out);
                self.rebalance(now, out);
            }
        }
        Ok(())
    }

    /// Whether the group is not full; who is in it already, or only has to come back, has a place.
    fn has_room_for(&self, member_id: &str) -> bool {
        let members = match self.state {
            State::Empty => 0,
            State::PreparingRebalance => self.joining,
            State::CompletingRebalance | State::Stable => self.members.len(),
        };
        let has_place = match self.state {
            State::PreparingRebalance => {
                self.members.get(member_id).is_some_and(|member| member.join.is_some())
            }
            _ => self.members.contains_key(member_id),
        };
        has_place || members < self.settings.max_size
    }

    /// Whether the member's protocols are of the group's type, and one of them can be done by all.
    fn fits(&self, join: &Join) -> bool {
        if self.members.is_empty() {
            return !join.protocol_type.is_empty() && !join.protocols.is_empty();
        }
        let common = |name| self.supporters.get(name).copied() == Some(self.members.len());
        self.protocol_type.as_ref() == Some(&join.protocol_type)
            && join.protocols.iter().any(|(name, _)| common(name))
    }

    fn add(&mut self, now: TimestampMs, from: Ticket, id: Arc<str>, join: Join, out: &mut Effects<Reply>) {
        if self.members.is_empty() {
            self.protocol_type = Some(Arc::clone(&join.protocol_type));
        }
        if let Some(instance_id) = &join.instance_id {
            self.instances.insert(Arc::clone(instance_id), Arc::clone(&id));
        }
        let session_ends = after(now, NEW_MEMBER_JOIN_MS);
        let member = Member {
            instance_id: join.instance_id,
            client_id: join.client_id,
            client_host: join.client_host,
            session_timeout_ms: join.session_timeout_ms,
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            protocols: join.protocols,
            assignment: Bytes::new(),
            session_ends,
            is_new: true,
            synced: false,
            join: None,
            sync: None,
        };
        self.note(session_ends);
        self.insert(Arc::clone(&id), member);
        if self.leader.is_none() {
            self.leader = Some(Arc::clone(&id));
        }
        if let Phase::Gathering { grown, .. } = &mut self.phase {
            *grown = true;
        }
        self.park_join(&id, from, out);
        self.rebalance(now, out);
    }

    /// A static member comes back under its instance id: it gets a new member id, and the old one is fenced off.
    fn take_over(
        &mut self,
        now: TimestampMs,
        from: Ticket,
        join: Join,
        old_id: &Arc<str>,
        out: &mut Effects<Reply>,
    ) -> Result<(), GroupError> {
        let new_id = Arc::clone(&join.fresh_member_id);
        let was_leader = self.leader.as_ref() == Some(old_id);
        let can_skip_assignment = join.can_skip_assignment;
        let mut member = self.take(old_id).ok_or(GroupError::UnknownMember)?;
        if let Some(ticket) = member.join.take() {
            out.reply(ticket, Reply::Joined(Err(GroupError::FencedInstance)));
        }
        if let Some(ticket) = member.sync.take() {
            out.reply(ticket, Reply::Synced(Err(GroupError::FencedInstance)));
        }
        if let Some(instance_id) = &member.instance_id {
            self.instances.insert(Arc::clone(instance_id), Arc::clone(&new_id));
        }
        self.insert(Arc::clone(&new_id), member);
        if was_leader {
            self.leader = Some(Arc::clone(&new_id));
        }
        self.update(now, &new_id, join);
        if self.state != State::Stable || self.vote() != self.protocol {
            self.park_join(&new_id, from, out);
            self.rebalance(now, out);
            return Ok(());
        }
        // What it has to do stands. Only its id is new, which must be known after a crash, too.
        let value = self.value(now, |member| member.assignment.clone());
        self.store(now, value, out);
        let skip_assignment = was_leader && can_skip_assignment;
        let leader = match (&self.leader, was_leader && !can_skip_assignment) {
            // An older client must not take itself for the leader: it would assign to nobody's use.
            (_, true) => Arc::clone(old_id),
            (Some(leader), false) => Arc::clone(leader),
            (None, false) => Arc::clone(&new_id),
        };
        let joined = Joined {
            leader,
            skip_assignment,
            members: if skip_assignment { self.roster() } else { Vec::new() },
            ..self.joined(&new_id)
        };
        out.reply(from, Reply::Joined(Ok(joined)));
        Ok(())
    }

    /// A member asks for its assignment; the leader brings everyone's.
    pub fn sync(&mut self, now: TimestampMs, from: Ticket, sync: Sync, out: &mut Effects<Reply>) {
        if let Err(error) = self.try_sync(now, from, sync, out) {
            out.reply(from, Reply::Synced(Err(error)));
        }
    }

    fn try_sync(
        &mut self,
        now: TimestampMs,
        from: Ticket,
        sync: Sync,
        out: &mut Effects<Reply>,
    ) -> Result<(), GroupError> {
        self.check_member(&sync.claim.member_id, sync.claim.instance_id.as_ref())?;
        if sync.claim.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        let differs = |said: &Option<Arc<str>>, is: &Option<Arc<str>>| {
            said.is_some() && said.as_deref() != is.as_deref()
        };
        if differs(&sync.protocol_type, &self.protocol_type) || differs(&sync.protocol, &self.protocol) {
            return Err(GroupError::InconsistentProtocol);
        }
        let id = sync.claim.member_id;
        match self.state {
            State::Empty => return Err(GroupError::UnknownMember),
            State::PreparingRebalance => return Err(GroupError::RebalanceInProgress),
            State::CompletingRebalance => {
                self.touch(now, &id);
                let member = self.members.get_mut(&id).ok_or(GroupError::UnknownMember)?;
                member.synced = true;
                if let Some(before) = member.sync.replace(from) {
                    out.reply(before, Reply::Synced(Err(GroupError::RebalanceInProgress)));
                }
                if self.leader.as_ref() == Some(&id) {
                    self.assign(now, sync.assignments, out);
                }
            }
            State::Stable => {
                self.touch(now, &id);
                let member = self.members.get_mut(&id).ok_or(GroupError::UnknownMember)?;
                member.synced = true;
                let assignment = member.assignment.clone();
                out.reply(from, Reply::Synced(Ok(self.synced(assignment))));
            }
        }
        Ok(())
    }

    /// Stores what the leader has decided and tells everyone who waits for it. Members that it has left out have nothing to do.
    fn assign(&mut self, now: TimestampMs, assignments: Vec<(Arc<str>, Bytes)>, out: &mut Effects<Reply>) {
        let mut assignments: BTreeMap<_, _> = assignments.into_iter().collect();
        let mut by_member = BTreeMap::new();
        for id in self.members.keys() {
            by_member.insert(Arc::clone(id), assignments.remove(id).unwrap_or_default());
        }
        let size: usize = self.members.values().map(Member::bytes).sum::<usize>()
            + by_member.values().map(Bytes::len).sum::<usize>();
        if size > self.settings.record_max_bytes {
            self.fail_syncs(now, &GroupError::TooLarge, out);
            self.begin_rebalance(now, out);
            return;
        }
        let mut value = self.value(now, |_| Bytes::new());
        for member in &mut value.members {
            member.assignment = by_member.remove(&*member.member_id).unwrap_or_default();
        }
        self.store(now, value, out);
        let mut told = Vec::new();
        for member in self.members.values_mut() {
            if let Some(ticket) = member.sync.take() {
                member.session_ends = after(now, member.session_timeout_ms);
                told.push((ticket, member.assignment.clone()));
            }
        }
        for (ticket, assignment) in told {
            out.reply(ticket, Reply::Synced(Ok(self.synced(assignment))));
        }
        self.recompute_timer();
    }

    /// A member is alive.
    ///
    /// # Errors
    /// It is none, or of an old generation, or has to join again.
    pub fn heartbeat(&mut self, now: TimestampMs, claim: &Claim) -> Result<(), GroupError> {
        self.check_member(&claim.member_id, claim.instance_id.as_ref())?;
        if claim.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        self.touch(now, &claim.member_id);
        match self.state {
            State::Empty => Err(GroupError::UnknownMember),
            State::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    /// A member leaves, or someone takes a static member out by its instance id.
    ///
    /// # Errors
    /// There is no such member.
    pub fn leave(
        &mut self,
        now: TimestampMs,
        leaving: &Leaving,
        out: &mut Effects<Reply>,
    ) -> Result<(), GroupError> {
        if self.pending.remove(&leaving.member_id).is_some() {
            self.continue_rebalance(now, out);
            return Ok(());
        }
        let known = leaving.instance_id.as_ref().and_then(|id| self.instances.get(id)).cloned();
        let id = match (&leaving.instance_id, known) {
            (Some(_), Some(known)) if leaving.member_id.is_empty() => known,
            _ => Arc::clone(&leaving.member_id),
        };
        self.check_member(&id, leaving.instance_id.as_ref())?;
        self.remove(now, &id, out);
        Ok(())
    }

    /// Whether who says so may commit offsets.
    ///
    /// # Errors
    /// It is no member, of an old generation, or has to learn first what it has to do.
    pub fn check_commit(&mut self, now: TimestampMs, claim: &Claim) -> Result<(), GroupError> {
        if claim.generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        let says_nothing = claim.generation < 0 && claim.member_id.is_empty() && claim.instance_id.is_none();
        if says_nothing {
            return Err(GroupError::UnknownMember);
        }
        self.check_member(&claim.member_id, claim.instance_id.as_ref())?;
        if claim.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        self.touch(now, &claim.member_id);
        match self.state {
            State::CompletingRebalance => Err(GroupError::RebalanceInProgress),
            State::Empty | State::PreparingRebalance | State::Stable => Ok(()),
        }
    }

    /// Does what is due: ends sessions, given ids and phases.
    pub fn tick(&mut self, now: TimestampMs, out: &mut Effects<Reply>) {
        if self.timer.is_none_or(|timer| timer > now) {
            return;
        }
        let before = self.pending.len();
        self.pending.retain(|_, void_at| *void_at > now);
        if self.pending.len() < before {
            self.continue_rebalance(now, out);
        }
        let silent: Vec<_> = self
            .members
            .iter()
            .filter(|(_, member)| member.session_ends <= now && member.can_expire())
            .map(|(id, _)| Arc::clone(id))
            .collect();
        silent.iter().for_each(|id| self.remove(now, id, out));
        match self.phase {
            Phase::Syncing { ends } if ends <= now => {
                let late = self.members.iter().filter(|(_, member)| !member.synced);
                let late: Vec<_> = late.map(|(id, _)| Arc::clone(id)).collect();
                self.phase = Phase::None;
                late.iter().for_each(|id| self.remove(now, id, out));
            }
            _ => self.continue_rebalance(now, out),
        }
        self.recompute_timer();
    }

    /// Takes in a stored generation: the only place where what lasts is changed. `None` takes the group back.
    pub fn apply(&mut self, now: TimestampMs, value: Option<&GroupMetadataValue>) {
        let Some(value) = value else {
            *self = Self::new(Arc::clone(&self.id), Arc::clone(&self.settings));
            return;
        };
        self.stored = Some(value.clone());
        self.generation = value.generation;
        self.protocol_type = (!value.protocol_type.is_empty()).then(|| (&*value.protocol_type).into());
        self.protocol = value.protocol.as_deref().map(Arc::from);
        self.leader = value.leader.as_deref().map(Arc::from);
        self.state_since = (value.current_state_timestamp >= 0).then_some(value.current_state_timestamp);
        let stored: BTreeSet<&str> = value.members.iter().map(|member| &*member.member_id).collect();
        let gone: Vec<_> = self.members.keys().filter(|id| !stored.contains(&***id)).cloned().collect();
        gone.iter().for_each(|id| drop(self.take(id)));
        self.instances.retain(|_, id| stored.contains(&**id));
        for member in &value.members {
            let protocol = self.protocol.as_deref().unwrap_or_default();
            match self.members.get_mut(&*member.member_id) {
                // Live, the record has just been made of the member.
                Some(known) if known.is_as_stored(protocol, member) => {
                    let before = known.bytes();
                    known.assignment = member.assignment.clone();
                    self.bytes = self.bytes + known.bytes() - before;
                }
                // At replay, a later record tells of the member anew.
                _ => self.insert_stored(now, member),
            }
        }
        self.state = if self.members.is_empty() { State::Empty } else { State::Stable };
        if self.state == State::Empty {
            self.phase = Phase::None;
        }
        self.subscribed = self.subscribed_topics();
    }

    fn insert_stored(&mut self, now: TimestampMs, stored: &GroupMetadataMember) {
        let id: Arc<str> = (&*stored.member_id).into();
        self.take(&id);
        let instance_id: Option<Arc<str>> = stored.group_instance_id.as_deref().map(Arc::from);
        if let Some(instance_id) = &instance_id {
            self.instances.insert(Arc::clone(instance_id), Arc::clone(&id));
        }
        let protocol = self.protocol.clone().unwrap_or_else(|| "".into());
        let session_ends = after(now, stored.session_timeout);
        let member = Member {
            instance_id,
            client_id: (&*stored.client_id).into(),
            client_host: (&*stored.client_host).into(),
            session_timeout_ms: stored.session_timeout,
            rebalance_timeout_ms: match stored.rebalance_timeout {
                -1 => stored.session_timeout,
                timeout_ms => timeout_ms,
            },
            protocols: vec![(protocol, Bytes::copy_from_slice(&stored.subscription))],
            assignment: Bytes::copy_from_slice(&stored.assignment),
            session_ends,
            is_new: false,
            // It had what it needs before the broker died, or asks again.
            synced: true,
            join: None,
            sync: None,
        };
        self.note(session_ends);
        self.insert(id, member);
    }

    /// The record that makes the group as it was last stored, if it is.
    pub fn record(&self) -> Option<Record> {
        let value = self.stored.clone()?;
        Some(Record::Group { group: (&*self.id).into(), value: Some(value) })
    }

    /// A replay is over: members have their whole session from now on.
    pub fn restart_sessions(&mut self, now: TimestampMs) {
        for member in self.members.values_mut() {
            member.session_ends = after(now, member.session_timeout_ms);
        }
        self.recompute_timer();
    }

    /// What a member takes of the memory in use, about; 0 if there is none of that id.
    pub fn member_bytes(&self, id: &str) -> usize {
        self.members.get(id).map_or(0, Member::bytes)
    }

    /// About what assignments that a leader brings would add to the memory in use.
    pub fn assignment_growth(&self, assignments: &[(Arc<str>, Bytes)]) -> usize {
        let now: usize = self.members.values().map(|member| member.assignment.len()).sum();
        assignments.iter().map(|(_, assignment)| assignment.len()).sum::<usize>().saturating_sub(now)
    }

    /// As a list or a description shows it.
    pub fn describe(&self) -> Description {
        let is_stable = self.state == State::Stable;
        let protocol = self.protocol.clone().filter(|_| is_stable).unwrap_or_else(|| "".into());
        let describe = |(id, member): (&Arc<str>, &Member)| MemberDescription {
            member_id: Arc::clone(id),
            instance_id: member.instance_id.clone(),
            client_id: Arc::clone(&member.client_id),
            client_host: Arc::clone(&member.client_host),
            metadata: if is_stable { member.metadata(&protocol) } else { Bytes::new() },
            assignment: if is_stable { member.assignment.clone() } else { Bytes::new() },
        };
        Description {
            state: self.state,
            protocol_type: self.protocol_type.clone().unwrap_or_else(|| "".into()),
            members: self.members.iter().map(describe).collect(),
            protocol,
        }
    }

    /// An id, and an instance id if there is one, that both belong to the same member.
    fn check_member(&self, id: &Arc<str>, instance_id: Option<&Arc<str>>) -> Result<(), GroupError> {
        if let Some(instance_id) = instance_id {
            match self.instances.get(instance_id) {
                None => return Err(GroupError::UnknownMember),
                Some(known) if known != id => return Err(GroupError::FencedInstance),
                Some(_) => {}
            }
        }
        if !self.members.contains_key(id) {
            return Err(GroupError::UnknownMember);
        }
        Ok(())
    }

    fn touch(&mut self, now: TimestampMs, id: &Arc<str>) {
        if let Some(member) = self.members.get_mut(id) {
            member.session_ends = after(now, member.session_timeout_ms);
        }
    }

    /// Takes what a known member says of itself now.
    fn update(&mut self, now: TimestampMs, id: &Arc<str>, join: Join) {
        let Some(mut member) = self.take(id) else { return };
        member.protocols = join.protocols;
        member.session_timeout_ms = join.session_timeout_ms;
        member.rebalance_timeout_ms = join.rebalance_timeout_ms;
        member.client_id = join.client_id;
        member.client_host = join.client_host;
        if !member.is_new {
            member.session_ends = after(now, member.session_timeout_ms);
            self.note(member.session_ends);
        }
        self.insert(Arc::clone(id), member);
    }

    fn park_join(&mut self, id: &Arc<str>, from: Ticket, out: &mut Effects<Reply>) {
        let Some(member) = self.members.get_mut(id) else { return };
        match member.join.replace(from) {
            // The client has given up on its earlier join.
            Some(before) => out.reply(before, Reply::Joined(Err(GroupError::UnknownMember))),
            None => self.joining += 1,
        }
    }

    /// Adds a member to the counts.
    fn insert(&mut self, id: Arc<str>, member: Member) {
        for (name, _) in &member.protocols {
            *self.supporters.entry(Arc::clone(name)).or_default() += 1;
        }
        self.bytes += member.bytes();
        self.joining += usize::from(member.join.is_some());
        self.members.insert(id, member);
    }

    /// Takes a member out of the counts; its instance id and the leadership stay with its id.
    fn take(&mut self, id: &Arc<str>) -> Option<Member> {
        let member = self.members.remove(id)?;
        for (name, _) in &member.protocols {
            if let Some(count) = self.supporters.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.supporters.remove(name);
                }
            }
        }
        self.bytes -= member.bytes();
        self.joining -= usize::from(member.join.is_some());
        Some(member)
    }

    /// Takes a member out for good, and lets the others share what it had.
    fn remove(&mut self, now: TimestampMs, id: &Arc<str>, out: &mut Effects<Reply>) {
        let is_member = self.members.contains_key(id);
        self.discard(id, out);
        if is_member {
            self.rebalance(now, out);
        }
    }

    fn discard(&mut self, id: &Arc<str>, out: &mut Effects<Reply>) {
        let Some(member) = self.take(id) else { return };
        if let Some(instance_id) = &member.instance_id {
            self.instances.remove(instance_id);
        }
        if self.leader.as_ref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
        if let Some(ticket) = member.join {
            out.reply(ticket, Reply::Joined(Err(GroupError::UnknownMember)));
        }
        if let Some(ticket) = member.sync {
            out.reply(ticket, Reply::Synced(Err(GroupError::UnknownMember)));
        }
    }

    /// Begins a rebalance, or goes on with the one there is.
    fn rebalance(&mut self, now: TimestampMs, out: &mut Effects<Reply>) {
        match self.state {
            State::PreparingRebalance => self.continue_rebalance(now, out),
            State::Empty | State::CompletingRebalance | State::Stable => self.begin_rebalance(now, out),
        }
    }

    fn begin_rebalance(&mut self, now: TimestampMs, out: &mut Effects<Reply>) {
        if self.state == State::CompletingRebalance {
            self.fail_syncs(now, &GroupError::RebalanceInProgress, out);
        }
        let timeout_ms = self.rebalance_timeout_ms();
        self.phase = match self.state {
            State::Empty => {
                let delay_ms = self.settings.initial_rebalance_delay_ms.min(i64::from(timeout_ms));
                Phase::Gathering { round_ends: now + delay_ms, ends: after(now, timeout_ms), grown: false }
            }
            _ => Phase::Joining { ends: after(now, timeout_ms) },
        };
        self.state = State::PreparingRebalance;
        self.continue_rebalance(now, out);
    }

    /// Who has waited for an assignment gets none, but has its session to come again: while it waited, it could not say that it
    /// is alive.
    fn fail_syncs(&mut self, now: TimestampMs, error: &GroupError, out: &mut Effects<Reply>) {
        for member in self.members.values_mut() {
            if let Some(ticket) = member.sync.take() {
                member.session_ends = after(now, member.session_timeout_ms);
                out.reply(ticket, Reply::Synced(Err(error.clone())));
            }
        }
        self.recompute_timer();
    }

    /// Begins the generation if what the rebalance waits for is there, or has been waited for long enough.
    fn continue_rebalance(&mut self, now: TimestampMs, out: &mut Effects<Reply>) {
        match self.phase {
            Phase::Gathering { round_ends, ends, grown } if round_ends <= now => {
                let next = now.saturating_add(self.settings.initial_rebalance_delay_ms).min(ends);
                if grown && next > now {
                    self.phase = Phase::Gathering { round_ends: next, ends, grown: false };
                    self.note(next);
                } else {
                    self.begin_generation(now, out);
                }
            }
            Phase::Gathering { round_ends, .. } => self.note(round_ends),
            Phase::Joining { ends } => {
                let all_here = self.joining == self.members.len() && self.pending.is_empty();
                if all_here || ends <= now {
                    self.begin_generation(now, out);
                } else {
                    self.note(ends);
                }
            }
            Phase::None | Phase::Syncing { .. } => {}
        }
    }

    /// All who will join have joined. Dynamic members that have not are out; static ones have their session to come back.
    fn begin_generation(&mut self, now: TimestampMs, out: &mut Effects<Reply>) {
        let missing =
            self.members.iter().filter(|(_, member)| member.join.is_none() && member.instance_id.is_none());
        let missing: Vec<_> = missing.map(|(id, _)| Arc::clone(id)).collect();
        missing.iter().for_each(|id| self.discard(id, out));
        if self.members.is_empty() {
            self.become_empty(now, out);
            return;
        }
        let joined = |id: &Arc<str>| self.members.get(id).is_some_and(|member| member.join.is_some());
        if !self.leader.as_ref().is_some_and(joined) {
            let Some(leader) = self.members.keys().find(|id| joined(id)).cloned() else {
                // Only static members are left, and none is here: the group waits on.
                let ends = after(now, self.rebalance_timeout_ms().max(1));
                self.phase = Phase::Joining { ends };
                self.note(ends);
                return;
            };
            self.leader = Some(leader);
        }
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.protocol = self.vote();
        self.subscribed = self.subscribed_topics();
        self.state = State::CompletingRebalance;
        let ends = after(now, self.rebalance_timeout_ms().max(1));
        self.phase = Phase::Syncing { ends };
        self.note(ends);
        let mut told = Vec::new();
        for (id, member) in &mut self.members {
            member.synced = false;
            if let Some(ticket) = member.join.take() {
                member.is_new = false;
                member.session_ends = after(now, member.session_timeout_ms);
                told.push((ticket, Arc::clone(id)));
            }
        }
        self.joining = 0;
        for (ticket, id) in told {
            let joined = self.joined_of_generation(&id);
            out.reply(ticket, Reply::Joined(Ok(joined)));
        }
        self.recompute_timer();
    }

    fn become_empty(&mut self, now: TimestampMs, out: &mut Effects<Reply>) {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.protocol = None;
        self.leader = None;
        self.state = State::Empty;
        self.phase = Phase::None;
        let value = self.value(now, |_| Bytes::new());
        self.store(now, value, out);
    }

    /// Tells a member of the generation there is.
    fn answer_join(&mut self, now: TimestampMs, from: Ticket, id: &Arc<str>, out: &mut Effects<Reply>) {
        self.touch(now, id);
        let joined = match self.state {
            State::CompletingRebalance => self.joined_of_generation(id),
            _ => self.joined(id),
        };
        out.reply(from, Reply::Joined(Ok(joined)));
    }

    fn joined_of_generation(&self, id: &Arc<str>) -> Joined {
        let members = if self.leader.as_ref() == Some(id) { self.roster() } else { Vec::new() };
        Joined { members, ..self.joined(id) }
    }

    fn joined(&self, id: &Arc<str>) -> Joined {
        Joined {
            member_id: Arc::clone(id),
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_else(|| "".into()),
            skip_assignment: false,
            members: Vec::new(),
        }
    }

    fn synced(&self, assignment: Bytes) -> Synced {
        Synced { protocol_type: self.protocol_type.clone(), protocol: self.protocol.clone(), assignment }
    }

    /// Every member with its metadata for the chosen protocol.
    fn roster(&self) -> Vec<JoinedMember> {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let row = |(id, member): (&Arc<str>, &Member)| JoinedMember {
            member_id: Arc::clone(id),
            instance_id: member.instance_id.clone(),
            metadata: member.metadata(protocol),
        };
        self.members.iter().map(row).collect()
    }

    /// Of the protocols that all can do, the one that most members prefer.
    fn vote(&self) -> Option<Arc<str>> {
        let is_common = |name: &Arc<str>| self.supporters.get(name) == Some(&self.members.len());
        let mut votes: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some((name, _)) = member.protocols.iter().find(|(name, _)| is_common(name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        votes.into_iter().max_by_key(|(_, count)| *count).map(|(name, _)| Arc::clone(name))
    }

    fn subscribed_topics(&self) -> Option<BTreeSet<Arc<str>>> {
        let protocol = self.protocol.as_deref().filter(|_| self.is_consumers())?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            let subscription = Subscription::decode_versioned(&member.metadata(protocol)).ok()?;
            topics.extend(subscription.topics.iter().map(|topic| Arc::from(&**topic)));
        }
        Some(topics)
    }

    fn rebalance_timeout_ms(&self) -> i32 {
        self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0)
    }

    /// The group as a record tells it.
    fn value(&self, state_since: TimestampMs, assignment: impl Fn(&Member) -> Bytes) -> GroupMetadataValue {
        let text = |text: &Arc<str>| (&**text).into();
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let member = |(id, member): (&Arc<str>, &Member)| GroupMetadataMember {
            member_id: text(id),
            group_instance_id: member.instance_id.as_ref().map(text),
            client_id: text(&member.client_id),
            client_host: text(&member.client_host),
            rebalance_timeout: member.rebalance_timeout_ms,
            session_timeout: member.session_timeout_ms,
            subscription: member.metadata(protocol),
            assignment: assignment(member),
        };
        GroupMetadataValue {
            protocol_type: self.protocol_type.as_ref().map(text).unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.as_ref().map(text),
            leader: self.leader.as_ref().map(text),
            current_state_timestamp: state_since,
            members: self.members.iter().map(member).collect(),
        }
    }

    fn store(&mut self, now: TimestampMs, value: GroupMetadataValue, out: &mut Effects<Reply>) {
        self.apply(now, Some(&value));
        out.records.push(Record::Group { group: (&*self.id).into(), value: Some(value) });
    }

    fn note(&mut self, due: TimestampMs) {
        self.timer = Some(self.timer.map_or(due, |timer| timer.min(due)));
    }

    fn recompute_timer(&mut self) {
        let sessions =
            self.members.values().filter(|member| member.can_expire()).map(|member| member.session_ends);
        let phase = match self.phase {
            Phase::None => None,
            Phase::Gathering { round_ends, .. } => Some(round_ends),
            Phase::Joining { ends } => Some(ends),
            Phase::Syncing { ends } => self.members.values().any(|member| !member.synced).then_some(ends),
        };
        self.timer = sessions.chain(self.pending.values().copied()).chain(phase).min();
    }
}
