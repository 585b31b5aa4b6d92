//! Group coordinators under a simulated clock: random clients, random silence, random crashes that lose what was not yet
//! durable. A seed makes the whole run; a failing one is printed and reproduces with `OTTLA_SEED=n cargo test --test
//! simulation`. `OTTLA_SEEDS=n` runs that many (1,000 without it).
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use ottla::coordinator::{Effects, Machine, Record, Stored, Ticket};
use ottla::group::consumer_protocol::{Assignment, Subscription, TopicPartitions, Versioned};
use ottla::group::{
    Claim, Committed, Event, GroupError, GroupEvent, GroupShard, Join, Joined, JoinedMember, Leaving,
    OffsetMap, Reply, Settings, State, Sync, Synced, offsets,
};
use ottla::uuid::Uuid;

const TOPIC: &str = "t";
const PARTITIONS: i32 = 6;
const GROUPS: usize = 2;
const CLIENTS: usize = 8;
const STEPS: usize = 300;
const SESSION_MS: i32 = 6_000;
const REBALANCE_MS: i32 = 10_000;

fn settings(initial_rebalance_delay_ms: i64) -> Arc<Settings> {
    Arc::new(Settings {
        min_session_timeout_ms: SESSION_MS,
        max_session_timeout_ms: 60_000,
        max_size: 100,
        initial_rebalance_delay_ms,
        offsets_retention_ms: 3_600_000,
        offsets_retention_check_interval_ms: 60_000,
        record_max_bytes: 1 << 20,
        max_bytes: 1 << 20,
    })
}

/// What a client waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    Join,
    Sync,
    Heartbeat,
    Commit(i64),
}

/// What a client knows: as much as a real one.
#[derive(Clone, Debug, Default)]
struct Client {
    group: usize,
    instance_id: Option<Arc<str>>,
    member_id: Arc<str>,
    generation: i32,
    joined: Option<Joined>,
    owned: Option<Vec<i32>>,
    waits_for: Option<(u64, Asked)>,
    is_silent: bool,
    /// What it subscribes with; another after it has changed its mind.
    mind: u8,
}

struct World {
    seed: u64,
    random: fastrand::Rng,
    now: i64,
    settings: Arc<Settings>,
    machine: GroupShard,
    log: Vec<Record>,
    durable: usize,
    /// Replies and the length of the log that they wait for.
    held: Vec<(usize, Ticket, Reply)>,
    clients: Vec<Client>,
    asked_by: HashMap<u64, usize>,
    next_ticket: u64,
    crashes: usize,
    /// Which client was told to lead which generation of which group. A crash makes the broker forget what it had not stored,
    /// and a group that goes begins anew: then numbers are given again.
    leaders: BTreeMap<(usize, i32), usize>,
    /// The newest commit of each group that was acknowledged, and the newest that was tried: offsets only grow here.
    acknowledged: [i64; GROUPS],
    next_offset: i64,
    stables: usize,
    commits: usize,
}

fn group_id(group: usize) -> Arc<str> {
    format!("group-{group}").into()
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let settings = settings(if random.bool() { 0 } else { 500 });
        let client = |index: usize| Client {
            group: index % GROUPS,
            instance_id: (index >= CLIENTS / 2 && index % 4 < 2).then(|| format!("static-{index}").into()),
            ..Default::default()
        };
        Self {
            seed,
            random,
            now: 1_000_000,
            machine: GroupShard::new(Arc::clone(&settings), 1),
            settings,
            log: Vec::new(),
            durable: 0,
            held: Vec::new(),
            clients: (0..CLIENTS).map(client).collect(),
            asked_by: HashMap::new(),
            next_ticket: 0,
            crashes: 0,
            leaders: BTreeMap::new(),
            acknowledged: [-1; GROUPS],
            next_offset: 0,
            stables: 0,
            commits: 0,
        }
    }

    fn ask(&mut self, client: usize, asked: Asked, event: GroupEvent) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.asked_by.insert(ticket, client);
        self.clients[client].waits_for = Some((ticket, asked));
        let group = group_id(self.clients[client].group);
        let mut effects = Effects::default();
        self.machine.step(self.now, Ticket(ticket), Event::Group(group, event), &mut effects);
        self.take(effects);
    }

    fn take(&mut self, effects: Effects<Reply>) {
        self.log.extend(effects.records);
        for (ticket, reply) in &effects.replies {
            if let (Some(index), Reply::Joined(Ok(joined))) = (self.asked_by.get(&ticket.0), reply)
                && !joined.members.is_empty()
            {
                let key = (self.clients[*index].group, joined.generation);
                let leader = *self.leaders.entry(key).or_insert(*index);
                assert_eq!(
                    leader, *index,
                    "seed {}: two leaders of generation {}",
                    self.seed, joined.generation
                );
            }
        }
        self.leaders.retain(|(group, _), _| self.machine.group(&group_id(*group)).is_some());
        let after = self.log.len();
        self.held.extend(effects.replies.into_iter().map(|(to, reply)| (after, to, reply)));
        self.check();
    }

    /// Lets time pass, with everything that becomes due on the way.
    fn pass(&mut self, ms: i64) {
        let until = self.now + ms;
        while let Some(due) = self.machine.deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            let mut effects = Effects::default();
            self.machine.tick(self.now, &mut effects);
            self.take(effects);
        }
        self.now = until;
    }

    /// The disk has everything: what was held for that leaves.
    fn sync_disk(&mut self) {
        self.durable = self.log.len();
        for (_, to, reply) in std::mem::take(&mut self.held) {
            self.deliver(to.0, reply);
        }
    }

    /// The broker dies with what had not reached the disk, or with part of it, and comes back.
    fn crash(&mut self) {
        let kept = self.durable + self.random.usize(0..=self.log.len() - self.durable);
        self.log.truncate(kept);
        self.durable = kept;
        self.held.clear();
        self.asked_by.clear();
        self.crashes += 1;
        self.leaders.clear();
        self.machine = self.replay();
        for client in &mut self.clients {
            client.waits_for = None;
        }
        for group in 0..GROUPS {
            let found = self.stored_offset(group);
            assert!(
                found >= self.acknowledged[group],
                "seed {}: group {group} went back to {found} from {}",
                self.seed,
                self.acknowledged[group]
            );
        }
    }

    fn replay(&self) -> GroupShard {
        let mut machine = GroupShard::new(Arc::clone(&self.settings), 1);
        for record in &self.log {
            let (key, value) = record.encode();
            let read = Record::decode(Some(&key), value.as_ref()).unwrap().unwrap();
            machine.apply(self.now, &read);
        }
        machine
    }

    fn stored_offset(&self, group: usize) -> i64 {
        let offsets = self.machine.group(&group_id(group)).map(|(_, offsets)| offsets.fetch(None));
        let stored = offsets.and_then(|mut all| all.remove(TOPIC)?.remove(&0));
        stored.map_or(-1, |committed| committed.offset)
    }

    fn deliver(&mut self, ticket: u64, reply: Reply) {
        let Some(index) = self.asked_by.remove(&ticket) else { return };
        let group = self.clients[index].group;
        let client = &mut self.clients[index];
        let Some((waited_for, asked)) = client.waits_for.filter(|(waited_for, _)| *waited_for == ticket)
        else {
            return;
        };
        assert_eq!(waited_for, ticket);
        client.waits_for = None;
        match (asked, reply) {
            (Asked::Join, Reply::Joined(Ok(joined))) => {
                client.member_id = Arc::clone(&joined.member_id);
                client.generation = joined.generation;
                client.owned = None;
                client.joined = Some(joined);
            }
            (Asked::Sync, Reply::Synced(Ok(Synced { assignment, .. }))) => {
                client.owned = Some(partitions(&assignment));
            }
            (Asked::Commit(offset), Reply::Done(Ok(()))) => {
                self.commits += 1;
                self.acknowledged[group] = self.acknowledged[group].max(offset);
            }
            (Asked::Heartbeat, Reply::Done(Ok(()))) => {}
            (_, Reply::Joined(Err(error)) | Reply::Synced(Err(error)) | Reply::Done(Err(error))) => {
                client.joined = None;
                client.owned = None;
                match error {
                    GroupError::MemberIdRequired { member_id } => client.member_id = member_id,
                    GroupError::UnknownMember
                    | GroupError::FencedInstance
                    | GroupError::IllegalGeneration
                    | GroupError::NotFound => {
                        client.member_id = "".into();
                    }
                    GroupError::RebalanceInProgress => {}
                    other => panic!("seed {}: {asked:?} got {other}", self.seed),
                }
            }
            (asked, reply) => panic!("seed {}: {asked:?} got {reply:?}", self.seed),
        }
    }

    fn claim(&self, index: usize) -> Claim {
        let client = &self.clients[index];
        Claim {
            member_id: Arc::clone(&client.member_id),
            instance_id: client.instance_id.clone(),
            generation: client.generation,
        }
    }

    /// Does what a well-behaved client would do next.
    fn go_on(&mut self, index: usize) {
        if self.clients[index].waits_for.is_some() {
            return;
        }
        match (&self.clients[index].joined, &self.clients[index].owned) {
            (None, _) => {
                let join = self.join_of(index);
                self.ask(index, Asked::Join, GroupEvent::Join(join));
            }
            (Some(joined), None) => {
                let sync = Sync {
                    claim: self.claim(index),
                    protocol_type: joined.protocol_type.clone(),
                    protocol: joined.protocol.clone(),
                    assignments: if joined.skip_assignment { Vec::new() } else { assign(joined) },
                };
                self.ask(index, Asked::Sync, GroupEvent::Sync(sync));
            }
            (Some(_), Some(_)) if self.random.bool() => {
                let claim = self.claim(index);
                self.ask(index, Asked::Heartbeat, GroupEvent::Heartbeat(claim));
            }
            (Some(_), Some(_)) => self.commit(index, self.claim(index)),
        }
    }

    fn join_of(&mut self, index: usize) -> Join {
        let client = &self.clients[index];
        let user_data = Some(Bytes::copy_from_slice(&[client.mind]));
        let subscription = Subscription { topics: vec![TOPIC.into()], user_data, ..Default::default() };
        let metadata = subscription.encode_versioned(1);
        // All can do both: a replay knows only the one that was chosen, and would refuse who cannot do that.
        let mut protocols = vec![("range".into(), metadata.clone()), ("roundrobin".into(), metadata)];
        protocols.rotate_left(usize::from(client.mind % 2));
        Join {
            member_id: Arc::clone(&client.member_id),
            instance_id: client.instance_id.clone(),
            fresh_member_id: format!("client-{index}-{}", self.next_ticket).into(),
            client_id: format!("client-{index}").into(),
            client_host: "/127.0.0.1".into(),
            session_timeout_ms: SESSION_MS,
            rebalance_timeout_ms: REBALANCE_MS,
            protocol_type: "consumer".into(),
            protocols,
            member_id_required: index.is_multiple_of(3),
            can_skip_assignment: index.is_multiple_of(2),
        }
    }

    /// Commits, and knows whether that may be accepted.
    fn commit(&mut self, index: usize, claim: Claim) {
        let group = self.clients[index].group;
        let id = group_id(group);
        self.next_offset += 1;
        let offset = self.next_offset;
        let may = self.machine.group(&id).is_some_and(|(membership, _)| {
            let described = membership.describe();
            let is_member = described.members.iter().any(|member| member.member_id == claim.member_id);
            is_member && membership.generation() == claim.generation
        });
        let before = self.stored_offset(group);
        let mut map = OffsetMap::new();
        let committed = Committed {
            offset,
            leader_epoch: 0,
            metadata: "".into(),
            committed_at: self.now,
            expires_at: None,
            topic_id: Uuid([1; 16]),
        };
        offsets::put(&mut map, &TOPIC.into(), 0, committed);
        let event = GroupEvent::Commit { claim, knows_not_found: true, offsets: map };
        self.ask(index, Asked::Commit(offset), event);
        if !may {
            let seed = self.seed;
            assert_eq!(
                self.stored_offset(group),
                before,
                "seed {seed}: a commit of an old generation was accepted"
            );
        }
    }

    /// What must hold after everything that happens.
    fn check(&mut self) {
        let seed = self.seed;
        for group in 0..GROUPS {
            let id = group_id(group);
            let Some((membership, _)) = self.machine.group(&id) else { continue };
            if membership.state() != State::Stable {
                continue;
            }
            self.stables += 1;
            let mut owned = BTreeSet::new();
            for member in membership.describe().members {
                for partition in partitions(&member.assignment) {
                    assert!(owned.insert(partition), "seed {seed}: {partition} is owned twice in {id}");
                }
            }
            assert_eq!(
                owned.len(),
                PARTITIONS as usize,
                "seed {seed}: a partition of {id} is owned by nobody"
            );
            let mut believed = BTreeSet::new();
            for client in &self.clients {
                let is_member = membership.describe().members.iter().any(|m| m.member_id == client.member_id);
                if client.group == group && is_member && client.generation == membership.generation() {
                    for partition in client.owned.iter().flatten() {
                        assert!(
                            believed.insert(*partition),
                            "seed {seed}: two clients of {id} own {partition}"
                        );
                    }
                }
            }
        }
    }

    /// What a replay of the log gives is what lives: offsets, and memberships as they were last stored.
    fn check_replay(&self) {
        let (seed, again) = (self.seed, self.replay());
        let ids: BTreeSet<_> = self.machine.ids().chain(again.ids()).cloned().collect();
        for id in ids {
            let offsets =
                |machine: &GroupShard| machine.group(&id).map(|(_, all)| all.fetch(None)).unwrap_or_default();
            assert_eq!(offsets(&again), offsets(&self.machine), "seed {seed}: offsets of {id}");
            let record =
                |machine: &GroupShard| machine.group(&id).and_then(|(membership, _)| membership.record());
            assert_eq!(record(&again), record(&self.machine), "seed {seed}: membership of {id}");
            // What is stable lives as it was stored: the next generation is made of it.
            let stable = |machine: &GroupShard| {
                let described = machine.group(&id).map(|(membership, _)| membership.describe());
                described.filter(|group| group.state == State::Stable)
            };
            if let Some(live) = stable(&self.machine) {
                assert_eq!(stable(&again), Some(live), "seed {seed}: members of {id}");
            }
        }
    }

    fn run(mut self) -> (usize, usize, usize) {
        for _ in 0..STEPS {
            let index = self.random.usize(0..CLIENTS);
            match self.random.u32(0..100) {
                0..70 if !self.clients[index].is_silent => self.go_on(index),
                70..73 => self.clients[index].is_silent = !self.clients[index].is_silent,
                73..75 if !self.clients[index].is_silent => {
                    let (group, claim) = (group_id(self.clients[index].group), self.claim(index));
                    let leaving = Leaving { member_id: claim.member_id, instance_id: claim.instance_id };
                    let mut effects = Effects::default();
                    let event = Event::Group(group, GroupEvent::Leave(vec![leaving]));
                    self.machine.step(self.now, Ticket(u64::MAX), event, &mut effects);
                    self.take(effects);
                    self.forget(index);
                }
                75..76 => self.forget(index),
                76..77 => {
                    self.clients[index].mind = self.random.u8(..);
                    self.clients[index].joined = None;
                }
                77..79 if self.clients[index].waits_for.is_none() => {
                    // Someone who has slept through a generation, or makes one up.
                    let mut claim = self.claim(index);
                    // Not below 0: that would be no member's commit.
                    claim.generation = (claim.generation + self.random.i32(-2..=2)).max(0);
                    self.commit(index, claim);
                }
                79..81 => self.crash(),
                81..90 => self.sync_disk(),
                90..97 => {
                    let ms = self.random.i64(0..1_500);
                    self.pass(ms);
                }
                97..98 => {
                    let ms = self.random.i64(0..20_000);
                    self.pass(ms);
                }
                _ => self.check_replay(),
            }
        }
        self.check_replay();
        self.settle_down();
        (self.stables, self.commits, self.crashes)
    }

    /// The client's process is new: it knows nothing.
    fn forget(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let (group, instance_id) = (client.group, client.instance_id.clone());
        *client = Client { group, instance_id, ..Default::default() };
    }

    /// Without further trouble every group becomes stable, with all its clients.
    fn settle_down(&mut self) {
        self.clients.iter_mut().for_each(|client| client.is_silent = false);
        for _ in 0..400 {
            for index in 0..CLIENTS {
                self.go_on(index);
            }
            self.sync_disk();
            self.pass(200);
        }
        for group in 0..GROUPS {
            let (membership, _) = self.machine.group(&group_id(group)).unwrap();
            assert_eq!(membership.state(), State::Stable, "seed {}: {membership:?}", self.seed);
            assert_eq!(membership.len(), CLIENTS / GROUPS, "seed {}: {membership:?}", self.seed);
        }
        for (index, client) in self.clients.iter().enumerate() {
            assert!(client.owned.is_some(), "seed {}: client {index} is out: {client:?}", self.seed);
        }
        self.check_replay();
    }
}

/// Every partition to one member.
fn assign(joined: &Joined) -> Vec<(Arc<str>, Bytes)> {
    let count = joined.members.len();
    let of = |(at, member): (usize, &JoinedMember)| {
        let partitions = (0..PARTITIONS).filter(|partition| *partition as usize % count == at).collect();
        let assigned_partitions = vec![TopicPartitions { topic: TOPIC.into(), partitions }];
        let assignment = Assignment { assigned_partitions, user_data: None };
        (Arc::clone(&member.member_id), assignment.encode_versioned(1))
    };
    joined.members.iter().enumerate().map(of).collect()
}

fn partitions(assignment: &Bytes) -> Vec<i32> {
    if assignment.is_empty() {
        return Vec::new();
    }
    let assignment = Assignment::decode_versioned(assignment).unwrap();
    assignment.assigned_partitions.into_iter().flat_map(|topic| topic.partitions).collect()
}

#[test]
fn groups_keep_their_promises_whatever_happens() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("OTTLA_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("OTTLA_SEEDS").unwrap_or(1_000),
    };
    let count = seeds.end - seeds.start;
    let (mut stables, mut commits, mut crashes) = (0, 0, 0);
    for seed in seeds {
        let (stable, committed, crashed) = World::new(seed).run();
        stables += stable;
        commits += committed;
        crashes += crashed;
    }
    // The runs went somewhere: groups became stable, commits were accepted, brokers died.
    assert!(
        stables as u64 > count * 10 && commits as u64 > count && crashes as u64 > count,
        "{stables} {commits} {crashes}"
    );
}
