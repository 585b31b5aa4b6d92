//! What a group does when time passes, and what it does at its limits: one machine, a hand-held clock.

use bytes::Bytes;

use super::super::consumer_protocol::{Subscription, Versioned};
use super::super::{Committed, Joined, Sync, Synced, offsets};
use super::*;
use crate::coordinator::Stored;
use crate::uuid::Uuid;

const SESSION_MS: i64 = 10_000;
const REBALANCE_MS: i64 = 60_000;
const MINUTE_MS: i64 = 60_000;
const GROUP_RECORD_MAX_BYTES: usize = 16 << 20;

struct Group {
    shard: GroupShard,
    now: TimestampMs,
    next: u64,
    replies: BTreeMap<u64, Reply>,
    records: Vec<Record>,
}

impl Group {
    fn new(initial_rebalance_delay_ms: i64) -> Self {
        let settings = Settings {
            min_session_timeout_ms: 1,
            max_session_timeout_ms: i32::MAX,
            max_size: usize::MAX,
            initial_rebalance_delay_ms,
            offsets_retention_ms: 100 * MINUTE_MS,
            offsets_retention_check_interval_ms: MINUTE_MS,
            record_max_bytes: GROUP_RECORD_MAX_BYTES,
            max_bytes: 64 << 20,
        };
        let shard = GroupShard::new(Arc::new(settings), 1);
        Self { shard, now: 1_000_000, next: 0, replies: BTreeMap::new(), records: Vec::new() }
    }

    fn take(&mut self, effects: Effects<Reply>) {
        self.records.extend(effects.records);
        self.replies.extend(effects.replies.into_iter().map(|(to, reply)| (to.0, reply)));
    }

    fn ask(&mut self, event: GroupEvent) -> u64 {
        self.next += 1;
        let mut effects = Effects::default();
        self.shard.step(self.now, Ticket(self.next), Event::Group("g".into(), event), &mut effects);
        self.take(effects);
        self.next
    }

    fn pass(&mut self, ms: i64) {
        let until = self.now + ms;
        while let Some(due) = self.shard.deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            let mut effects = Effects::default();
            self.shard.tick(self.now, &mut effects);
            self.take(effects);
        }
        self.now = until;
    }

    fn join(&mut self, member_id: &str, change: impl FnOnce(&mut Join)) -> u64 {
        let metadata = Subscription { topics: vec!["t".into()], ..Default::default() }.encode_versioned(0);
        let mut join = Join {
            member_id: member_id.into(),
            instance_id: None,
            fresh_member_id: format!("m{}", self.next + 1).into(),
            client_id: "c".into(),
            client_host: "/h".into(),
            session_timeout_ms: SESSION_MS as i32,
            rebalance_timeout_ms: REBALANCE_MS as i32,
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), metadata)],
            member_id_required: false,
            can_skip_assignment: true,
        };
        change(&mut join);
        self.ask(GroupEvent::Join(join))
    }

    fn joined(&self, ticket: u64) -> Option<Result<Joined, GroupError>> {
        self.replies.get(&ticket).map(|reply| match reply {
            Reply::Joined(joined) => joined.clone(),
            other => panic!("{other:?}"),
        })
    }

    fn sync(&mut self, joined: &Joined) -> u64 {
        let claim = claim(joined);
        let assignments =
            joined.members.iter().map(|one| (Arc::clone(&one.member_id), Bytes::from_static(b"a")));
        let assignments = assignments.collect();
        self.ask(GroupEvent::Sync(Sync { claim, protocol_type: None, protocol: None, assignments }))
    }

    fn synced(&self, ticket: u64) -> Option<Result<Synced, GroupError>> {
        self.replies.get(&ticket).map(|reply| match reply {
            Reply::Synced(synced) => synced.clone(),
            other => panic!("{other:?}"),
        })
    }

    /// One member, joined and synced.
    fn of_one(mut self) -> (Self, Joined) {
        let ticket = self.join("", |_| {});
        let joined = self.joined(ticket).unwrap().unwrap();
        let ticket = self.sync(&joined);
        assert_eq!(self.synced(ticket).unwrap().unwrap().assignment, "a");
        (self, joined)
    }

    fn heartbeat(&mut self, joined: &Joined) -> Result<(), GroupError> {
        let ticket = self.ask(GroupEvent::Heartbeat(claim(joined)));
        self.done(ticket)
    }

    fn done(&self, ticket: u64) -> Result<(), GroupError> {
        match &self.replies[&ticket] {
            Reply::Done(done) => done.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn commit(
        &mut self,
        claim: Claim,
        topic: &str,
        expires_at: Option<TimestampMs>,
    ) -> Result<(), GroupError> {
        let committed = Committed {
            offset: 1,
            leader_epoch: 0,
            metadata: "".into(),
            committed_at: self.now,
            expires_at,
            topic_id: Uuid::ZERO,
        };
        let mut offsets = OffsetMap::new();
        offsets::put(&mut offsets, &topic.into(), 0, committed);
        let ticket = self.ask(GroupEvent::Commit { claim, knows_not_found: true, offsets });
        self.done(ticket)
    }

    fn topics(&self) -> Vec<Arc<str>> {
        let group = self.shard.group("g");
        group.map(|(_, offsets)| offsets.fetch(None).into_keys().collect()).unwrap_or_default()
    }

    fn state(&self) -> State {
        self.shard.group("g").unwrap().0.state()
    }

    fn leave(&mut self, joined: &Joined) {
        let leaving = Leaving { member_id: Arc::clone(&joined.member_id), instance_id: None };
        self.ask(GroupEvent::Leave(vec![leaving]));
    }
}

fn claim(joined: &Joined) -> Claim {
    Claim { member_id: Arc::clone(&joined.member_id), instance_id: None, generation: joined.generation }
}

fn nobody() -> Claim {
    Claim { member_id: "".into(), instance_id: None, generation: -1 }
}

#[test]
fn the_first_rebalance_waits_for_more_as_long_as_more_come() {
    let mut group = Group::new(3_000);
    let first = group.join("", |_| {});
    group.pass(2_999);
    assert_eq!(group.joined(first), None);
    let second = group.join("", |_| {});
    group.pass(2_000);
    assert_eq!(group.joined(first), None, "another round, since somebody has come");
    group.pass(1_001);
    assert_eq!(group.joined(first).unwrap().unwrap().members.len(), 2);
    assert_eq!(group.joined(second).unwrap().unwrap().generation, 1);

    let mut crowded = Group::new(3_000);
    let first = crowded.join("", |_| {});
    for _ in 0..REBALANCE_MS / 1_000 {
        assert_eq!(crowded.joined(first), None);
        crowded.join("", |_| {});
        crowded.pass(1_000);
    }
    assert_eq!(crowded.joined(first).unwrap().unwrap().generation, 1, "but not beyond the rebalance timeout");
}

#[test]
fn who_does_not_come_back_to_a_rebalance_is_out_unless_it_is_static() {
    let (mut group, _first) = Group::new(0).of_one();
    let second = group.join("", |_| {});
    group.pass(SESSION_MS - 1);
    assert_eq!(group.joined(second), None);
    group.pass(1);
    assert_eq!(group.joined(second).unwrap().unwrap().members.len(), 1, "the first one's session has ended");

    let mut group = Group::new(0);
    let of_static = |join: &mut Join| {
        join.instance_id = Some("i".into());
        join.session_timeout_ms = 10 * REBALANCE_MS as i32;
    };
    let ticket = group.join("", of_static);
    let first = group.joined(ticket).unwrap().unwrap();
    group.sync(&first);
    let second = group.join("", |_| {});
    group.pass(REBALANCE_MS);
    let second = group.joined(second).unwrap().unwrap();
    assert_eq!((second.members.len(), &second.leader), (2, &second.member_id));
}

#[test]
fn who_does_not_sync_is_out_when_the_rebalance_has_taken_too_long() {
    let mut group = Group::new(0);
    let ticket = group.join("", |join| join.session_timeout_ms = 10 * REBALANCE_MS as i32);
    let joined = group.joined(ticket).unwrap().unwrap();
    group.pass(REBALANCE_MS - 1);
    assert_eq!(group.heartbeat(&joined), Ok(()));
    group.pass(1);
    assert_eq!(group.heartbeat(&joined), Err(GroupError::UnknownMember));
}

#[test]
fn an_id_that_is_not_used_within_the_session_is_void() {
    let mut group = Group::new(0);
    for (wait_ms, is_void) in [(SESSION_MS - 1, false), (SESSION_MS, true)] {
        let ticket = group.join("", |join| join.member_id_required = true);
        let Some(Err(GroupError::MemberIdRequired { member_id })) = group.joined(ticket) else { panic!() };
        group.pass(wait_ms);
        let ticket = group.join(&member_id, |_| {});
        match group.joined(ticket) {
            Some(Err(GroupError::UnknownMember)) => assert!(is_void),
            Some(Ok(joined)) => {
                assert!(!is_void);
                group.leave(&joined);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_new_member_is_not_waited_for_longer_than_five_minutes() {
    let (mut group, first) = Group::new(0).of_one();
    let long = |join: &mut Join| join.rebalance_timeout_ms = i32::MAX;
    let kept = group.join("", long);
    for _ in 0..60 {
        group.pass(5_000);
        assert!(group.heartbeat(&first).is_err(), "the first one lives, but never joins again");
    }
    assert_eq!(group.joined(kept), Some(Err(GroupError::UnknownMember)));
}

#[test]
fn the_protocol_that_most_prefer_of_those_that_all_can_do_is_chosen() {
    let mut group = Group::new(1_000);
    let with = |names: &'static [&'static str]| {
        move |join: &mut Join| {
            join.protocols = names.iter().map(|name| ((*name).into(), Bytes::from_static(b"x"))).collect();
        }
    };
    let tickets = [
        group.join("", with(&["mine", "sticky", "range"])),
        group.join("", with(&["range", "sticky"])),
        group.join("", with(&["sticky", "range", "yours"])),
    ];
    let refused = group.join("", with(&["mine"]));
    assert_eq!(group.joined(refused), Some(Err(GroupError::InconsistentProtocol)));
    group.pass(5_000);
    for ticket in tickets {
        assert_eq!(group.joined(ticket).unwrap().unwrap().protocol.as_deref(), Some("sticky"));
    }
}

#[test]
fn a_join_that_changes_nothing_gets_the_answer_again_and_one_that_does_begins_anew() {
    let (mut group, leader) = Group::new(0).of_one();
    let second = group.join("", |_| {});
    group.join(&leader.member_id, |_| {});
    let second = group.joined(second).unwrap().unwrap();
    let again = group.join(&second.member_id, |_| {});
    assert_eq!(group.joined(again).unwrap().unwrap(), second, "before the leader has assigned");
    let ticket = group.join(&leader.member_id, |join| join.protocols.push(("sticky".into(), Bytes::new())));
    assert_eq!(group.joined(ticket), None);
    assert_eq!(group.state(), State::PreparingRebalance);
    assert_eq!(group.heartbeat(&second), Err(GroupError::RebalanceInProgress));
}

#[test]
fn offsets_expire_when_nobody_has_used_them_for_long_enough() {
    let mut group = Group::new(0);
    group.commit(nobody(), "simple", None).unwrap();
    group.commit(nobody(), "short", Some(group.now + 5 * MINUTE_MS)).unwrap();
    group.pass(6 * MINUTE_MS);
    assert_eq!(group.topics(), ["simple".into()]);
    group.pass(93 * MINUTE_MS);
    assert_eq!(group.topics(), ["simple".into()]);
    group.pass(2 * MINUTE_MS);
    assert!(group.topics().is_empty() && group.shard.group("g").is_none(), "and so does the group");

    let (mut group, joined) = Group::new(0).of_one();
    for topic in ["t", "not consumed"] {
        group.commit(claim(&joined), topic, None).unwrap();
    }
    for _ in 0..110 * 12 {
        group.heartbeat(&joined).unwrap();
        group.pass(5_000);
    }
    assert_eq!(group.topics(), ["t".into()], "a live group keeps what it consumes");
    group.leave(&joined);
    group.pass(99 * MINUTE_MS);
    assert_eq!(group.topics(), ["t".into()], "counted from when the group became empty");
    group.pass(2 * MINUTE_MS);
    assert!(group.shard.group("g").is_none());
    assert!(matches!(group.records.last(), Some(Record::Group { value: None, .. })));
}

#[test]
fn ten_thousand_members_become_stable_within_the_limits() {
    const MEMBERS: usize = 10_000;
    let mut group = Group::new(1_000);
    let tickets: Vec<_> = (0..MEMBERS).map(|_| group.join("", |_| {})).collect();
    group.pass(2_000);
    let joined: Vec<_> = tickets.iter().map(|ticket| group.joined(*ticket).unwrap().unwrap()).collect();
    let leader = joined.iter().position(|joined| !joined.members.is_empty()).unwrap();
    assert_eq!(joined[leader].members.len(), MEMBERS);
    let synced: Vec<_> = joined.iter().map(|joined| group.sync(joined)).collect();
    assert!(synced.iter().all(|ticket| group.synced(*ticket).unwrap().is_ok()));
    assert_eq!(group.state(), State::Stable);
    let (key, value) = group.records.last().unwrap().encode();
    assert!(key.len() + value.unwrap().len() < GROUP_RECORD_MAX_BYTES);
    for joined in &joined {
        group.leave(joined);
    }
    assert_eq!(group.state(), State::Empty);
    assert!(group.shard.bytes < 4 * GROUP_BYTES, "nothing is left in the count: {}", group.shard.bytes);
}

#[test]
fn a_generation_that_does_not_fit_a_record_is_an_error_for_its_members() {
    let mut group = Group::new(1_000);
    let big = Bytes::from(vec![b'x'; GROUP_RECORD_MAX_BYTES / 3]);
    let metadata = |join: &mut Join| join.protocols = vec![("range".into(), big.clone())];
    let tickets: Vec<_> = (0..3).map(|_| group.join("", metadata)).collect();
    group.pass(3_000);
    let joined: Vec<_> = tickets.iter().map(|ticket| group.joined(*ticket).unwrap().unwrap()).collect();
    let follower = joined.iter().find(|joined| joined.members.is_empty()).unwrap();
    let leader = joined.iter().find(|joined| !joined.members.is_empty()).unwrap();
    let tickets = [group.sync(follower), group.sync(leader)];
    for ticket in tickets {
        assert_eq!(group.synced(ticket), Some(Err(GroupError::TooLarge)));
    }
    assert!(group.records.is_empty());
}

#[test]
fn a_replay_knows_a_member_as_its_last_generation_did() {
    let mut group = Group::new(0);
    let with = |names: &'static [&'static str]| {
        move |join: &mut Join| {
            join.protocols = names.iter().map(|name| ((*name).into(), Bytes::from_static(b"x"))).collect();
        }
    };
    let ticket = group.join("", with(&["range"]));
    let first = group.joined(ticket).unwrap().unwrap();
    group.sync(&first);
    let ticket = group.join(&first.member_id, with(&["coop"]));
    assert_eq!(group.joined(ticket), Some(Err(GroupError::InconsistentProtocol)));
    let ticket = group.join(&first.member_id, with(&["range", "coop"]));
    let second = group.joined(ticket).unwrap().unwrap();
    group.sync(&second);
    let ticket = group.join(&first.member_id, with(&["coop", "range"]));
    let third = group.joined(ticket).unwrap().unwrap();
    assert_eq!(third.protocol.as_deref(), Some("coop"));
    group.sync(&third);

    let mut again = Group::new(0);
    for record in &group.records {
        again.shard.apply(group.now, record);
    }
    again.now = group.now;
    let ticket = again.join(&first.member_id, with(&["coop"]));
    assert_eq!(again.joined(ticket).unwrap().unwrap().generation, third.generation + 1);
}

#[test]
fn who_waited_for_an_assignment_has_its_whole_session_to_come_again() {
    let mut group = Group::new(1_000);
    let tickets = [group.join("", |_| {}), group.join("", |_| {})];
    group.pass(3_000);
    let joined = tickets.map(|ticket| group.joined(ticket).unwrap().unwrap());
    let (leader, follower) = match joined[0].members.is_empty() {
        true => (&joined[1], &joined[0]),
        false => (&joined[0], &joined[1]),
    };
    let parked = group.sync(follower);
    for _ in 0..4 {
        group.pass(SESSION_MS / 2);
        group.heartbeat(leader).unwrap();
    }
    group.leave(leader);
    assert_eq!(group.synced(parked), Some(Err(GroupError::RebalanceInProgress)));
    group.pass(SESSION_MS - 1);
    let ticket = group.join(&follower.member_id, |_| {});
    assert_eq!(group.joined(ticket).unwrap().unwrap().members.len(), 1);
}

#[test]
fn a_full_coordinator_takes_from_those_inside_what_adds_nothing() {
    let (mut group, joined) = Group::new(0).of_one();
    group.commit(claim(&joined), "t", None).unwrap();
    group.shard.max_bytes = group.shard.bytes;
    group.commit(claim(&joined), "t", None).unwrap();
    assert_eq!(group.commit(claim(&joined), "another", None), Err(GroupError::TooManyOffsets));
    let ticket = group.join(&joined.member_id, |_| {});
    let again = group.joined(ticket).unwrap().unwrap();
    let ticket = group.sync(&again);
    assert!(group.synced(ticket).unwrap().is_ok());
    let ticket = group.join("", |_| {});
    assert_eq!(group.joined(ticket), Some(Err(GroupError::MaxSize)));
}

#[test]
fn a_share_member_whose_records_would_be_too_large_is_refused_and_makes_no_group() {
    let mut group = Group::new(0);
    let mut beat = |epoch: i32, topics: Option<usize>, partitions: i32| {
        let asked = group.ask(GroupEvent::ShareHeartbeat(ShareHeartbeat {
            member_id: "m".into(),
            member_epoch: epoch,
            rack_id: None,
            topics: topics.map(|count| (0..count).map(|at| format!("{at:0>200}").into()).collect()),
            client_id: "c".into(),
            client_host: "/h".into(),
            session_timeout_ms: SESSION_MS as i32,
            max_size: 10,
            lookup: Arc::new(move |_| Some((Uuid([1; 16]), partitions))),
        }));
        let Some(Reply::ShareBeat(told)) = group.replies.remove(&asked) else { panic!() };
        (told.map(|told| told.member_epoch), group.shard.is_share("g"))
    };
    let names_max = GROUP_RECORD_MAX_BYTES / 200;
    assert_eq!(beat(0, Some(names_max), 1), (Err(GroupError::TooLarge), false));
    let partitions_max = (GROUP_RECORD_MAX_BYTES / 4) as i32;
    assert_eq!(beat(0, Some(1), partitions_max), (Err(GroupError::TooLarge), false));
    assert_eq!(beat(0, Some(1), 3), (Ok(1), true));
    assert_eq!(beat(1, Some(names_max), 1), (Err(GroupError::TooLarge), true));
    assert_eq!(beat(1, None, 3).0, Ok(1));
    // Who leaves is never too large.
    assert_eq!(beat(-1, Some(names_max), 1).0, Ok(-1));
    let largest = group.records.iter().map(|record| record.encode().1.map_or(0, |value| value.len())).max();
    assert!(largest.unwrap() < 1_000, "{largest:?}");
}
