//! The groups of one partition of `__consumer_offsets`: finds the group that an event is for, makes it or lets it go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::classic::{ClassicGroup, State, join_bytes};
use super::offsets::{Offsets, record as offset_record};
use super::share::{JOIN_EPOCH, ShareGroup, ShareHeartbeat};
use super::{
    Claim, Event, Forgotten, GroupError, GroupEvent, Join, Leaving, Listed, Listing, OffsetMap, Partitions,
    Reply, Settings, ShareBeat, TopicExists,
};
use crate::clock::TimestampMs;
use crate::coordinator::{Effects, Machine, Record, Ticket};

/// What a group takes in memory beside its members and offsets, about.
const GROUP_BYTES: usize = 512;

/// A group: who is in it, and how far it has come.
#[derive(Clone, PartialEq, Debug)]
struct Group {
    membership: ClassicGroup,
    offsets: Offsets,
    /// Present in a share group, whose membership and offsets are empty.
    share: Option<ShareGroup>,
    /// As it stands in the shard's timers.
    timer: Option<TimestampMs>,
}

impl Group {
    fn bytes(&self) -> usize {
        let share = self.share.as_ref().map_or(0, ShareGroup::bytes);
        GROUP_BYTES + self.membership.bytes() + self.offsets.bytes() + share
    }

    fn deadline(&self) -> Option<TimestampMs> {
        let share = self.share.as_ref().and_then(ShareGroup::deadline);
        self.membership.deadline().into_iter().chain(share).min()
    }

    /// Whether nothing would be lost with it.
    fn is_nothing(&self) -> bool {
        self.membership.is_empty()
            && self.membership.state() == State::Empty
            && !self.membership.is_stored()
            && self.offsets.is_empty()
            && self.share.is_none()
    }
}

/// The machine.
pub struct GroupShard {
    settings: Arc<Settings>,
    /// Its part of [`Settings::max_bytes`].
    max_bytes: usize,
    groups: BTreeMap<Arc<str>, Group>,
    /// When which group has something to do.
    timers: BTreeSet<(TimestampMs, Arc<str>)>,
    /// When expired offsets are looked for.
    next_expiry: TimestampMs,
    bytes: usize,
    /// Offsets of all groups.
    offsets: usize,
}

impl GroupShard {
    /// No groups; one of `shards`.
    pub fn new(settings: Arc<Settings>, shards: usize) -> Self {
        Self {
            max_bytes: settings.max_bytes / shards.max(1),
            settings,
            groups: BTreeMap::new(),
            timers: BTreeSet::new(),
            next_expiry: 0,
            bytes: 0,
            offsets: 0,
        }
    }

    /// The group of that id, if there is one: its membership and its offsets.
    pub fn group(&self, id: &str) -> Option<(&ClassicGroup, &Offsets)> {
        self.groups.get(id).map(|group| (&group.membership, &group.offsets))
    }

    /// The ids of all groups.
    pub fn ids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.groups.keys()
    }

    /// Has something done to a group, made if there is none, and keeps the counts and timers right.
    fn with<T>(&mut self, id: &Arc<str>, act: impl FnOnce(&mut Group) -> T) -> T {
        let group = self.groups.entry(Arc::clone(id)).or_insert_with(|| {
            self.bytes += GROUP_BYTES;
            let membership = ClassicGroup::new(Arc::clone(id), Arc::clone(&self.settings));
            Group { membership, offsets: Offsets::default(), share: None, timer: None }
        });
        let (bytes, offsets) = (group.bytes(), group.offsets.len());
        let outcome = act(group);
        self.bytes = self.bytes + group.bytes() - bytes;
        self.offsets = self.offsets + group.offsets.len() - offsets;
        let (due, is_nothing) = (group.deadline(), group.is_nothing());
        if group.timer != due || is_nothing {
            if let Some(before) = group.timer.take() {
                self.timers.remove(&(before, Arc::clone(id)));
            }
            group.timer = due;
            if let Some(due) = due {
                self.timers.insert((due, Arc::clone(id)));
            }
        }
        if is_nothing {
            self.let_go(id);
        }
        outcome
    }

    /// Who needs no more than it has is never refused.
    fn has_no_room_for(&self, growth: usize) -> bool {
        growth > 0 && self.bytes + growth > self.max_bytes
    }

    fn join_growth(&self, id: &Arc<str>, join: &Join) -> usize {
        match self.groups.get(id) {
            Some(group) => join_bytes(join).saturating_sub(group.membership.member_bytes(&join.member_id)),
            None => GROUP_BYTES + join_bytes(join),
        }
    }

    fn let_go(&mut self, id: &Arc<str>) {
        let Some(group) = self.groups.remove(id) else { return };
        self.bytes -= group.bytes();
        self.offsets -= group.offsets.len();
        if let Some(due) = group.timer {
            self.timers.remove(&(due, Arc::clone(id)));
        }
    }

    fn group_event(
        &mut self,
        now: TimestampMs,
        from: Ticket,
        id: &Arc<str>,
        event: GroupEvent,
        out: &mut Effects<Reply>,
    ) {
        match event {
            GroupEvent::Join(join) => self.join(now, from, id, join, out),
            GroupEvent::Sync(sync) => {
                let growth =
                    self.groups.get(id).map(|group| group.membership.assignment_growth(&sync.assignments));
                let refused = match growth {
                    None => GroupError::UnknownMember,
                    Some(growth) if self.has_no_room_for(growth) => GroupError::TooLarge,
                    Some(_) => {
                        self.with(id, |group| group.membership.sync(now, from, sync, out));
                        return;
                    }
                };
                out.reply(from, Reply::Synced(Err(refused)));
            }
            GroupEvent::Heartbeat(claim) => {
                let alive = match self.groups.contains_key(id) {
                    true => self.with(id, |group| group.membership.heartbeat(now, &claim)),
                    false => Err(GroupError::UnknownMember),
                };
                out.reply(from, Reply::Done(alive));
            }
            GroupEvent::Leave(leaving) => self.leave(now, from, id, &leaving, out),
            GroupEvent::Commit { claim, knows_not_found, offsets } => {
                let committed = self.commit(now, id, &claim, knows_not_found, &offsets, out);
                out.reply(from, Reply::Done(committed));
            }
            GroupEvent::FetchOffsets(wanted) => {
                let found = self.groups.get(id).map(|group| group.offsets.fetch(wanted.as_ref()));
                out.reply(from, Reply::Offsets(found.unwrap_or_default()));
            }
            GroupEvent::DeleteOffsets(partitions) => {
                let forgotten = self.delete_offsets(id, partitions, out);
                out.reply(from, Reply::Forgotten(forgotten));
            }
            GroupEvent::Describe => {
                let classic = self.groups.get(id).filter(|group| group.share.is_none());
                let description = classic.map(|group| group.membership.describe());
                out.reply(from, Reply::Described(description));
            }
            GroupEvent::Delete => {
                let deleted = self.delete(now, id, out);
                out.reply(from, Reply::Done(deleted));
            }
            GroupEvent::ShareHeartbeat(beat) => {
                let beat = self.share_heartbeat(now, id, &beat, out);
                out.reply(from, Reply::ShareBeat(beat));
            }
            GroupEvent::ShareDescribe => {
                let description = self.share_group(id).map(ShareGroup::describe);
                out.reply(from, Reply::ShareDescribed(description));
            }
        }
    }

    /// The share group of that id, if there is one.
    pub fn share_group(&self, id: &str) -> Option<&ShareGroup> {
        self.groups.get(id).and_then(|group| group.share.as_ref())
    }

    fn is_share(&self, id: &str) -> bool {
        self.share_group(id).is_some()
    }

    fn share_heartbeat(
        &mut self,
        now: TimestampMs,
        id: &Arc<str>,
        beat: &ShareHeartbeat,
        out: &mut Effects<Reply>,
    ) -> Result<ShareBeat, GroupError> {
        let (growth, record_bytes) = match self.groups.get(id) {
            Some(group) => {
                let share = group.share.as_ref().ok_or(GroupError::NotFound)?;
                (share.growth(beat), share.record_bytes(beat))
            }
            None if beat.member_epoch == JOIN_EPOCH => {
                let share = ShareGroup::new(Arc::clone(id));
                (GROUP_BYTES + share.growth(beat), share.record_bytes(beat))
            }
            None => return Err(GroupError::NotFound),
        };
        if record_bytes > self.settings.record_max_bytes {
            return Err(GroupError::TooLarge);
        }
        if self.has_no_room_for(growth) {
            return Err(GroupError::MaxSize);
        }
        self.with(id, |group| {
            let share = group.share.get_or_insert_with(|| ShareGroup::new(Arc::clone(id)));
            share.heartbeat(now, beat, out)
        })
    }

    fn join(&mut self, now: TimestampMs, from: Ticket, id: &Arc<str>, join: Join, out: &mut Effects<Reply>) {
        let bounds = self.settings.min_session_timeout_ms..=self.settings.max_session_timeout_ms;
        let refused = if self.is_share(id) {
            GroupError::InconsistentProtocol
        } else if !bounds.contains(&join.session_timeout_ms) {
            GroupError::InvalidSessionTimeout
        } else if !join.member_id.is_empty() && !self.groups.contains_key(id) {
            GroupError::UnknownMember
        } else if self.has_no_room_for(self.join_growth(id, &join)) {
            GroupError::MaxSize
        } else {
            self.with(id, |group| group.membership.join(now, from, join, out));
            return;
        };
        out.reply(from, Reply::Joined(Err(refused)));
    }

    fn leave(
        &mut self,
        now: TimestampMs,
        from: Ticket,
        id: &Arc<str>,
        leaving: &[Leaving],
        out: &mut Effects<Reply>,
    ) {
        let left = match self.groups.contains_key(id) {
            true => self.with(id, |group| {
                leaving.iter().map(|member| group.membership.leave(now, member, out)).collect()
            }),
            false => vec![Err(GroupError::UnknownMember); leaving.len()],
        };
        out.reply(from, Reply::Left(left));
    }

    fn commit(
        &mut self,
        now: TimestampMs,
        id: &Arc<str>,
        claim: &Claim,
        knows_not_found: bool,
        offsets: &OffsetMap,
        out: &mut Effects<Reply>,
    ) -> Result<(), GroupError> {
        if self.is_share(id) {
            return Err(GroupError::NotFound);
        }
        if !self.groups.contains_key(id) && claim.generation >= 0 {
            let unknown = if knows_not_found { GroupError::NotFound } else { GroupError::IllegalGeneration };
            return Err(unknown);
        }
        let growth = match self.groups.get(id) {
            Some(group) => group.offsets.growth(offsets),
            None => GROUP_BYTES + Offsets::default().growth(offsets),
        };
        if self.has_no_room_for(growth) {
            return Err(GroupError::TooManyOffsets);
        }
        self.with(id, |group| {
            group.membership.check_commit(now, claim)?;
            for (topic, partitions) in offsets {
                for (index, committed) in partitions {
                    store_offset(group, offset_record(id, topic, *index, Some(committed)), out);
                }
            }
            Ok(())
        })
    }

    fn delete_offsets(
        &mut self,
        id: &Arc<str>,
        partitions: Partitions,
        out: &mut Effects<Reply>,
    ) -> Result<Forgotten, GroupError> {
        let group = self.groups.get(id).ok_or(GroupError::NotFound)?;
        if group.membership.state() != State::Empty && !group.membership.is_consumers() {
            return Err(GroupError::NotEmpty);
        }
        let forgotten = self.with(id, |group| {
            let mut forgotten = Vec::with_capacity(partitions.len());
            for (topic, indexes) in partitions {
                let may = !group.membership.consumes(&topic);
                for index in indexes.iter().filter(|_| may) {
                    if group.offsets.contains(&topic, *index) {
                        store_offset(group, offset_record(id, &topic, *index, None), out);
                    }
                }
                forgotten.push((topic, indexes.into_iter().map(|index| (index, may)).collect()));
            }
            forgotten
        });
        Ok(forgotten)
    }

    fn delete(
        &mut self,
        now: TimestampMs,
        id: &Arc<str>,
        out: &mut Effects<Reply>,
    ) -> Result<(), GroupError> {
        let group = self.groups.get(id).ok_or(GroupError::NotFound)?;
        if group.membership.state() != State::Empty
            || group.share.as_ref().is_some_and(|share| !share.is_empty())
        {
            return Err(GroupError::NotEmpty);
        }
        self.with(id, |group| {
            if group.share.take().is_some() {
                out.records.push(Record::ShareGroup { group: (&**id).into(), value: None });
            }
            forget_offsets(id, group, |_, _| true, out);
            forget_membership(now, id, group, out);
        });
        self.let_go(id);
        Ok(())
    }

    /// Lets offsets go that nobody has used for long enough, and groups that have none left. KIP-211.
    fn expire(&mut self, now: TimestampMs, out: &mut Effects<Reply>) {
        let retention_ms = self.settings.offsets_retention_ms;
        let ids: Vec<_> = self.groups.keys().cloned().collect();
        for id in ids {
            self.with(&id, |group| {
                let membership = &group.membership;
                let is_empty = membership.state() == State::Empty;
                if !is_empty && (membership.state() != State::Stable || !membership.is_consumers()) {
                    return;
                }
                let consumed = |topic: &str| !is_empty && membership.consumes(topic);
                let since = membership.empty_since();
                let is_over = |topic: &str, committed: &super::Committed| {
                    !consumed(topic)
                        && match committed.expires_at {
                            Some(expires_at) => expires_at <= now,
                            None => {
                                now.saturating_sub(since.unwrap_or(committed.committed_at)) >= retention_ms
                            }
                        }
                };
                let over = group.offsets.select(is_over);
                for (topic, index) in over {
                    store_offset(group, offset_record(&id, &topic, index, None), out);
                }
                if group.offsets.is_empty() && group.membership.is_empty() && is_empty {
                    forget_membership(now, &id, group, out);
                }
            });
        }
        self.next_expiry = now.saturating_add(self.settings.offsets_retention_check_interval_ms);
    }

    fn drop_offsets(&mut self, exists: &TopicExists, out: &mut Effects<Reply>) {
        let ids: Vec<_> = self.groups.keys().cloned().collect();
        for id in ids {
            self.with(&id, |group| {
                forget_offsets(&id, group, |topic, committed| !exists(topic, committed.topic_id), out);
            });
        }
    }

    fn list(&self) -> Listing {
        let row = |(id, group): (&Arc<str>, &Group)| match &group.share {
            Some(share) => Listed {
                group_id: Arc::clone(id),
                protocol_type: "share".into(),
                is_share: true,
                state: share.state(),
                members: share.len(),
            },
            None => Listed {
                group_id: Arc::clone(id),
                protocol_type: group.membership.protocol_type().cloned().unwrap_or_else(|| "".into()),
                is_share: false,
                state: group.membership.state(),
                members: group.membership.len(),
            },
        };
        Listing { groups: self.groups.iter().map(row).collect(), bytes: self.bytes }
    }
}

fn store_offset(group: &mut Group, record: Record, out: &mut Effects<Reply>) {
    if let Record::Offset { key, value } = &record {
        group.offsets.apply(key, value.as_ref());
        out.records.push(record);
    }
}

fn forget_offsets(
    id: &Arc<str>,
    group: &mut Group,
    which: impl Fn(&str, &super::Committed) -> bool,
    out: &mut Effects<Reply>,
) {
    for (topic, index) in group.offsets.select(which) {
        store_offset(group, offset_record(id, &topic, index, None), out);
    }
}

fn forget_membership(now: TimestampMs, id: &Arc<str>, group: &mut Group, out: &mut Effects<Reply>) {
    if group.membership.is_stored() {
        group.membership.apply(now, None);
        out.records.push(Record::Group { group: (&**id).into(), value: None });
    }
}

impl Machine for GroupShard {
    type Event = Event;
    type Reply = Reply;
    type Record = Record;

    fn step(&mut self, now: TimestampMs, from: Ticket, event: Event, out: &mut Effects<Reply>) {
        match event {
            Event::Group(id, event) => self.group_event(now, from, &id, event, out),
            Event::List => out.reply(from, Reply::Listed(self.list())),
            Event::DropOffsets(exists) => {
                self.drop_offsets(&exists, out);
                out.reply(from, Reply::Done(Ok(())));
            }
        }
    }

    fn tick(&mut self, now: TimestampMs, out: &mut Effects<Reply>) {
        while let Some((_, id)) = self.timers.first().filter(|(due, _)| *due <= now).cloned() {
            self.with(&id, |group| {
                group.membership.tick(now, out);
                if let Some(share) = &mut group.share {
                    share.tick(now, out);
                }
            });
        }
        if self.next_expiry <= now {
            self.expire(now, out);
        }
    }

    fn deadline(&self) -> Option<TimestampMs> {
        let first = self.timers.first().map(|(due, _)| *due);
        Some(first.map_or(self.next_expiry, |due| due.min(self.next_expiry)))
    }

    fn apply(&mut self, now: TimestampMs, record: &Record) {
        match record {
            Record::Offset { key, value } => {
                let id: Arc<str> = (&*key.group).into();
                self.with(&id, |group| group.offsets.apply(key, value.as_ref()));
            }
            Record::Group { group: id, value } => {
                let id: Arc<str> = (&**id).into();
                self.with(&id, |group| group.membership.apply(now, value.as_ref()));
            }
            Record::ShareGroup { group: id, value: None } => {
                let id: Arc<str> = (&**id).into();
                self.with(&id, |group| group.share = None);
            }
            Record::ShareGroup { group: id, .. }
            | Record::ShareMember { group: id, value: Some(_), .. }
            | Record::ShareAssignment { group: id, value: Some(_), .. } => {
                let id: Arc<str> = (&**id).into();
                self.with(&id, |group| {
                    group.share.get_or_insert_with(|| ShareGroup::new(Arc::clone(&id))).apply(record);
                });
            }
            Record::ShareMember { group: id, .. } | Record::ShareAssignment { group: id, .. } => {
                let id: Arc<str> = (&**id).into();
                self.with(&id, |group| group.share.iter_mut().for_each(|share| share.apply(record)));
            }
        }
    }

    fn live_records(&self) -> usize {
        self.offsets + self.groups.len()
    }

    fn snapshot(&self) -> Vec<Record> {
        let mut records = Vec::with_capacity(self.live_records());
        for (id, group) in &self.groups {
            records.extend(group.membership.record());
            records.extend(group.offsets.records(id));
            records.extend(group.share.iter().flat_map(ShareGroup::records));
        }
        records
    }

    fn replayed(&mut self, now: TimestampMs) {
        let ids: Vec<_> = self.groups.keys().cloned().collect();
        for id in ids {
            self.with(&id, |group| {
                group.membership.restart_sessions(now);
                group.share.iter_mut().for_each(|share| share.restart_sessions(now));
            });
        }
    }
}

#[cfg(test)]
mod tests;
