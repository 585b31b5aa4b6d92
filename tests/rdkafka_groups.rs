//! Consumer groups of a stock client, librdkafka: who owns what, where a group goes on, and what a kill leaves of it.
#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ottla::group::consumer_protocol::{Assignment, Subscription, Versioned};
use ottla::protocol::messages::join_group::{JoinGroupProtocol, JoinGroupRequest};
use ottla::protocol::messages::sync_group::SyncGroupRequest;
use ottla::protocol::messages::{JoinGroup, SyncGroup};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};

use running::stock::{config, is_of_connection, next};
use running::{Client, PATIENCE, Server, eventually, named, numbered};

/// Partitions of the topic that a group shares: so many that two members and three get the same number each.
const PARTITIONS: i32 = 6;

/// What happens while a test waits does not happen because such a session has ended.
const LONG_SESSION: (&str, &str) = ("session.timeout.ms", "45000");

/// The shortest that the server takes, for a member that is to be missed.
const SHORT_SESSION: Duration = Duration::from_secs(6);

/// For a member that commits only when told to.
const MANUAL: (&str, &str) = ("enable.auto.commit", "false");

#[derive(Clone, PartialEq, Debug)]
enum Change {
    Got(Vec<i32>),
    Lost(Vec<i32>),
}

/// What librdkafka has told a member.
#[derive(Default)]
struct Told(Mutex<Vec<Change>>);

impl ClientContext for Told {}

impl ConsumerContext for Told {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        self.0.lock().unwrap().push(match rebalance {
            Rebalance::Assign(partitions) => Change::Got(numbers(partitions)),
            Rebalance::Revoke(partitions) => Change::Lost(numbers(partitions)),
            Rebalance::Error(error) => panic!("{error}"),
        });
    }
}

/// The numbers of the partitions of a list, in order.
fn numbers(list: &TopicPartitionList) -> Vec<i32> {
    places(list).into_iter().map(|(partition, _)| partition).collect()
}

fn places(list: &TopicPartitionList) -> Vec<(i32, Offset)> {
    let mut places: Vec<_> = list.elements().iter().map(|one| (one.partition(), one.offset())).collect();
    places.sort_by_key(|(partition, _)| *partition);
    places
}

/// A consumer and what it has read, as partition and offset.
struct Member {
    consumer: BaseConsumer<Told>,
    read: Vec<(i32, i64)>,
    ends: usize,
    error: Option<KafkaError>,
}

impl Member {
    /// A consumer with the name of a group that it has not joined.
    fn outside(server: &Server, group: &str, settings: &[(&str, &str)]) -> Self {
        let mut all = vec![
            LONG_SESSION,
            ("group.id", group),
            ("heartbeat.interval.ms", "100"),
            ("auto.offset.reset", "earliest"),
            ("fetch.wait.max.ms", "50"),
            ("reconnect.backoff.ms", "10"),
            ("reconnect.backoff.max.ms", "50"),
        ];
        all.extend(settings);
        let consumer = config(server, &all).create_with_context(Told::default()).unwrap();
        Self { consumer, read: Vec::new(), ends: 0, error: None }
    }

    fn join(server: &Server, group: &str, settings: &[(&str, &str)]) -> Self {
        let member = Self::outside(server, group, settings);
        member.consumer.subscribe(&["t"]).unwrap();
        member
    }

    /// Takes all that there is to be told and read, without waiting. A record's value is its offset.
    fn poll(&mut self) {
        while let Some(found) = self.consumer.poll(Duration::ZERO) {
            match found {
                Ok(record) => {
                    assert_eq!(record.payload(), Some(record.offset().to_string().as_bytes()));
                    self.read.push((record.partition(), record.offset()));
                }
                Err(KafkaError::PartitionEOF(_)) => self.ends += 1,
                Err(error) if is_of_connection(&error) => {}
                Err(error) => self.error = Some(error),
            }
        }
    }

    /// Reads exactly so many records of partition 0.
    fn read(&self, count: usize) -> Vec<i64> {
        (0..count).map(|_| next(&self.consumer).unwrap().offset()).collect()
    }

    fn owned(&self) -> Vec<i32> {
        numbers(&self.consumer.assignment().unwrap())
    }

    fn changes(&self) -> Vec<Change> {
        self.consumer.context().0.lock().unwrap().clone()
    }

    /// How often it has lost partitions.
    fn losses(&self) -> usize {
        self.changes().iter().filter(|change| matches!(change, Change::Lost(_))).count()
    }

    /// What the group has committed of partition 0.
    fn committed(&self) -> Offset {
        let list = self.consumer.committed_offsets(at(Offset::Invalid), PATIENCE).unwrap();
        list.find_partition("t", 0).unwrap().offset()
    }

    /// Commits now whatever it has read.
    fn commit(&self) {
        let done = self.consumer.commit_consumer_state(CommitMode::Sync);
        let nothing_new = Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset));
        assert!(done.is_ok() || done == nothing_new, "{done:?}");
    }
}

/// An offset in partition 0.
fn at(offset: Offset) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("t", 0, offset).unwrap();
    list
}

/// A server with records 0..count in partition 0 of a topic of one.
fn with_records(count: i64) -> Server {
    let server = Server::start(&["--topic", "t:1"]);
    assert_eq!(server.client().append("t", 0..count), 0);
    server
}

/// Members of one group on a server of their own, which they leave before it ends.
struct Group {
    members: Vec<Member>,
    server: Server,
    read_by_others: Vec<(i32, i64)>,
    sent: i64,
}

impl Group {
    fn start(members: usize) -> Self {
        let server = Server::start(&["--topic", &format!("t:{PARTITIONS}")]);
        let mut group = Self { members: Vec::new(), server, read_by_others: Vec::new(), sent: 0 };
        (0..members).for_each(|_| group.join(&[]));
        group
    }

    fn join(&mut self, settings: &[(&str, &str)]) {
        self.members.push(Member::join(&self.server, "g", settings));
    }

    /// One closes. What it has read stays read.
    fn leave(&mut self, member: usize) {
        self.read_by_others.extend(self.members.remove(member).read);
    }

    fn poll(&mut self) {
        for member in &mut self.members {
            member.poll();
            assert_eq!(member.error, None);
        }
    }

    /// Waits until every partition is owned by one member, and all own equally many.
    fn share(&mut self) {
        let what = format!("{} members share the partitions", self.members.len());
        eventually(&what, || {
            self.poll();
            let owned: Vec<_> = self.members.iter().map(Member::owned).collect();
            let each = PARTITIONS as usize / owned.len();
            let all: BTreeSet<_> = owned.iter().flatten().copied().collect();
            (owned.iter().all(|owned| owned.len() == each) && all.len() == PARTITIONS as usize).then_some(())
        });
    }

    fn send(&mut self) {
        let mut client = self.server.client();
        for partition in 0..PARTITIONS {
            let answer = client.produce("t", partition, numbered(self.sent..self.sent + 10).build());
            assert_eq!((answer.error_code, answer.base_offset), (0, self.sent));
        }
        self.sent += 10;
    }

    /// Waits until members have read all that was sent, each record once since the group began.
    fn receive(&mut self) {
        let mut expected = Vec::new();
        (0..PARTITIONS).for_each(|partition| expected.extend((0..self.sent).map(|at| (partition, at))));
        let mut found = eventually("every record is read", || {
            self.poll();
            let mut all = self.read_by_others.clone();
            self.members.iter().for_each(|member| all.extend(&member.read));
            (all.len() >= expected.len()).then_some(all)
        });
        found.sort_unstable();
        assert_eq!(found, expected);
    }

    fn exchange(&mut self) {
        self.send();
        self.receive();
    }

    fn changes(&self) -> Vec<Vec<Change>> {
        self.members.iter().map(Member::changes).collect()
    }
}

/// A member that speaks the protocol itself, has got its partitions, and says nothing more: as one whose process was killed.
/// Its connection, its partitions, and when it said its last word.
fn fallen_silent(group: &mut Group) -> (Client, Vec<i32>, Instant) {
    let before: Vec<_> = group.members.iter().map(Member::losses).collect();
    let mut client = group.server.client();
    let metadata = Subscription { topics: vec!["t".into()], ..Default::default() }.encode_versioned(0);
    let request = JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: SHORT_SESSION.as_millis() as i32,
        rebalance_timeout_ms: 30_000,
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupProtocol { name: "range".into(), metadata }],
        ..Default::default()
    };
    client.send::<JoinGroup>(3, &request);
    eventually("the others join again", || {
        group.poll();
        group.members.iter().zip(&before).all(|(member, before)| member.losses() > *before).then_some(())
    });
    let joined = client.receive::<JoinGroup>(3);
    assert_eq!((named(joined.error_code), joined.members.len()), ("NONE", 0), "another one leads");
    let request = SyncGroupRequest {
        group_id: "g".into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id,
        ..Default::default()
    };
    let last_word = Instant::now();
    let synced = client.call::<SyncGroup>(3, &request);
    assert_eq!(named(synced.error_code), "NONE");
    let mut partitions = Assignment::decode_versioned(&synced.assignment).unwrap().assigned_partitions;
    (client, partitions.remove(0).partitions, last_word)
}

#[test]
fn a_group_of_three_shares_the_partitions_and_takes_over_from_who_leaves_or_falls_silent() {
    let mut group = Group::start(3);
    group.share();
    group.exchange();
    group.leave(1);
    group.share();
    group.exchange();

    let (_connection, silent, last_word) = fallen_silent(&mut group);
    assert_eq!(silent.len(), 2);
    eventually("the others get the rest", || {
        group.poll();
        group.members.iter().all(|member| member.owned().len() == 2).then_some(())
    });
    let mut all: Vec<_> = group.members.iter().flat_map(Member::owned).chain(silent).collect();
    all.sort_unstable();
    assert_eq!(all, (0..PARTITIONS).collect::<Vec<_>>());
    group.share();
    assert!(last_word.elapsed() >= SHORT_SESSION, "its session was not over");
    group.exchange();
}

#[test]
fn a_static_member_restarts_without_a_rebalance() {
    let mut group = Group::start(0);
    group.join(&[("group.instance.id", "one")]);
    group.join(&[("group.instance.id", "two")]);
    group.share();
    group.exchange();
    let before = group.members[0].owned();
    let changes = group.members[1].changes();
    group.leave(0);
    group.send();
    group.join(&[("group.instance.id", "one")]);
    group.share();
    group.receive();
    assert_eq!(group.members[1].owned(), before);
    assert_eq!(group.members[0].changes(), changes, "the other one was told nothing");
}

#[test]
fn a_cooperative_member_never_loses_a_partition_that_it_keeps() {
    let cooperative = [("partition.assignment.strategy", "cooperative-sticky")];
    let mut group = Group::start(0);
    for _ in 0..3 {
        group.join(&cooperative);
        group.share();
        group.exchange();
    }
    let kept = group.members[0].owned();
    let (mut got, mut lost) = (Vec::new(), Vec::new());
    for change in group.members[0].changes() {
        match change {
            Change::Got(partitions) => got.extend(partitions),
            Change::Lost(partitions) => lost.extend(partitions),
        }
    }
    got.sort_unstable();
    assert_eq!(got, (0..PARTITIONS).collect::<Vec<_>>(), "each once");
    lost.extend(&kept);
    lost.sort_unstable();
    assert_eq!(lost, got, "what it lost it lost once, and nothing of what it kept");
}

#[test]
fn a_group_goes_on_exactly_at_its_manual_commit() {
    let server = with_records(20);
    let join = || Member::join(&server, "g", &[MANUAL]);

    let member = join();
    assert_eq!(member.read(6), [0, 1, 2, 3, 4, 5]);
    let last = next(&member.consumer).unwrap();
    member.consumer.commit_message(&last, CommitMode::Sync).unwrap();
    drop(last);
    assert_eq!(member.read(3), [7, 8, 9]);
    assert_eq!(member.committed(), Offset::Offset(7), "not what was read since");
    drop(member);

    let member = join();
    assert_eq!(member.read(2), [7, 8]);
    member.consumer.commit_consumer_state(CommitMode::Async).unwrap();
    eventually("it is committed", || (member.committed() == Offset::Offset(9)).then_some(()));
    drop(member);

    let member = join();
    assert_eq!(member.read(1), [9]);
    let back = at(Offset::Offset(3));
    back.find_partition("t", 0).unwrap().set_metadata("a remark");
    member.consumer.commit(&back, CommitMode::Sync).unwrap();
    drop(member);

    let member = join();
    assert_eq!(member.read(17), (3..20).collect::<Vec<_>>());
    let committed = member.consumer.committed(PATIENCE).unwrap();
    assert_eq!(committed.find_partition("t", 0).unwrap().metadata(), "a remark");
}

#[test]
fn a_group_goes_on_exactly_at_its_automatic_commit() {
    let server = with_records(20);
    let often = ("auto.commit.interval.ms", "20");
    let chosen = ("enable.auto.offset.store", "false");

    let member = Member::join(&server, "g", &[often, chosen]);
    assert_eq!(member.read(9), (0..9).collect::<Vec<_>>());
    let mut observer = Member::outside(&server, "g", &[MANUAL]);
    assert_eq!(observer.committed(), Offset::Invalid, "nothing is stored");
    member.consumer.store_offset("t", 0, 4).unwrap();
    eventually("it is committed", || (observer.committed() == Offset::Offset(5)).then_some(()));
    drop(member);

    let member = Member::join(&server, "g", &[often]);
    assert_eq!(member.read(15), (5..20).collect::<Vec<_>>());
    eventually("it is committed", || (observer.committed() == Offset::Offset(20)).then_some(()));
    drop(member);

    // The next commit would be in hours: closing makes it.
    server.client().append("t", 20..25);
    let member = Member::join(&server, "g", &[("auto.commit.interval.ms", "10000000")]);
    assert_eq!(member.read(5), (20..25).collect::<Vec<_>>());
    assert_eq!(observer.committed(), Offset::Offset(20));
    drop(member);
    assert_eq!(observer.committed(), Offset::Offset(25));
    server.client().append("t", 25..26);
    observer.consumer.subscribe(&["t"]).unwrap();
    eventually("the next record", || {
        observer.poll();
        observer.read.first().copied()
    });
    assert_eq!(observer.read, [(0, 25)]);
}

#[test]
fn without_a_commit_in_range_a_group_starts_where_its_reset_policy_says() {
    let server = with_records(20);
    for (kind, committed) in [("none", None), ("out of range", Some(100))] {
        let join = |policy| {
            let group = format!("{kind} {policy}");
            if let Some(offset) = committed {
                let outside = Member::outside(&server, &group, &[MANUAL]);
                outside.consumer.commit(&at(Offset::Offset(offset)), CommitMode::Sync).unwrap();
            }
            Member::join(&server, &group, &[("auto.offset.reset", policy), ("enable.partition.eof", "true")])
        };
        let mut late = join("latest");
        eventually("the end", || {
            late.poll();
            (late.ends > 0).then_some(())
        });
        assert_eq!(late.read, []);
        let end = server.client().read_all("t", 0).len() as i64;
        server.client().append("t", [end]);
        eventually("a record", || {
            late.poll();
            (!late.read.is_empty()).then_some(())
        });
        assert_eq!((late.read, late.error), (vec![(0, end)], None));

        let mut early = join("earliest");
        eventually("the end", || {
            early.poll();
            (early.ends > 0).then_some(())
        });
        assert_eq!(early.read, (0..=end).map(|offset| (0, offset)).collect::<Vec<_>>());

        let mut strict = join("error");
        let error = eventually("an error", || {
            strict.poll();
            strict.error.clone()
        });
        assert_eq!(error, KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset));
        assert_eq!(strict.read, []);
    }
}

#[test]
fn committed_offsets_are_there_after_a_kill() {
    for flush_mode in ["commit", "os"] {
        let mut server = Server::start(&["--topic", "t:1", "--flush", flush_mode]);
        server.client().append("t", 0..20);
        let settings = [MANUAL];
        for first in [0, 5, 10] {
            let member = Member::join(&server, "g", &settings);
            assert_eq!(member.read(5), (first..first + 5).collect::<Vec<_>>());
            member.commit();
            drop(member);
            server.restart();
            let observer = Member::outside(&server, "g", &settings);
            assert_eq!(observer.committed(), Offset::Offset(first + 5), "{flush_mode}");
        }
    }
}

#[test]
fn a_live_group_goes_on_over_kills_without_a_rebalance() {
    let mut group = Group::start(2);
    group.share();
    let changes = group.changes();
    for _ in 0..3 {
        group.exchange();
        group.server.restart();
        group.exchange();
        group.members.iter().for_each(Member::commit);
    }
    assert_eq!(group.changes(), changes);
    let committed = group.members[0].consumer.committed(PATIENCE).unwrap();
    let expected: Vec<_> =
        group.members[0].owned().into_iter().map(|one| (one, Offset::Offset(group.sent))).collect();
    assert_eq!(places(&committed), expected);
}

#[test]
fn a_member_joins_a_group_while_the_broker_is_away() {
    let mut group = Group::start(2);
    group.share();
    group.exchange();
    group.members.iter().for_each(Member::commit);
    group.server.kill();
    group.join(&[]);
    group.server.restart();
    group.share();
    group.exchange();
}

#[test]
fn a_rebalance_that_a_kill_has_cut_ends_after_the_restart() {
    let mut group = Group::start(2);
    group.share();
    group.exchange();
    group.members.iter().for_each(Member::commit);
    group.join(&[]);
    // The second member is not polled, so that it does not join again.
    eventually("the first member gives up its partitions", || {
        group.members[0].poll();
        (group.members[0].losses() > 0).then_some(())
    });
    group.server.restart();
    group.share();
    group.exchange();
}

#[test]
fn the_lag_of_a_group_is_what_it_has_not_committed() {
    let server = with_records(20);
    let member = Member::join(&server, "g", &[MANUAL]);
    let lag = || {
        let (_, end) = member.consumer.fetch_watermarks("t", 0, PATIENCE).unwrap();
        match member.committed() {
            Offset::Offset(committed) => Some(end - committed),
            _ => None,
        }
    };
    assert_eq!(member.read(7).len(), 7);
    assert_eq!(lag(), None);
    member.commit();
    assert_eq!(lag(), Some(13));
    server.client().append("t", 20..25);
    assert_eq!(lag(), Some(18));
    assert_eq!(member.read(18).last(), Some(&24));
    member.commit();
    assert_eq!(lag(), Some(0));
}

#[test]
fn groups_are_listed_and_described() {
    let mut group = Group::start(0);
    group.join(&[("client.id", "first")]);
    group.join(&[("client.id", "second")]);
    let mut alone = Member::outside(&group.server, "committed", &[MANUAL]);
    alone.consumer.commit(&at(Offset::Offset(0)), CommitMode::Sync).unwrap();
    group.share();

    let list = alone.consumer.fetch_group_list(None, PATIENCE).unwrap();
    let mut states: Vec<_> = list.groups().iter().map(|one| (one.name(), one.state())).collect();
    states.sort_unstable();
    assert_eq!(states, [("committed", "Empty"), ("g", "Stable")]);

    let list = alone.consumer.fetch_group_list(Some("g"), PATIENCE).unwrap();
    let [described] = list.groups() else { panic!("{:?}", list.groups()) };
    assert_eq!((described.protocol_type(), described.protocol()), ("consumer", "range"));
    let mut members: Vec<_> = described
        .members()
        .iter()
        .map(|member| {
            assert!(member.id().starts_with(&format!("{}-", member.client_id())), "{}", member.id());
            assert_eq!(member.client_host(), "/127.0.0.1");
            let subscription = Subscription::decode_versioned(member.metadata().unwrap()).unwrap();
            assert_eq!(subscription.topics, ["t"]);
            let assignment = Assignment::decode_versioned(member.assignment().unwrap()).unwrap();
            (member.client_id(), assignment.assigned_partitions[0].partitions.clone())
        })
        .collect();
    members.sort_unstable();
    assert_eq!(members, [("first", group.members[0].owned()), ("second", group.members[1].owned())]);

    assert!(alone.consumer.fetch_group_list(Some("nobody"), PATIENCE).unwrap().groups().is_empty());
    group.members.clear();
    let list = alone.consumer.fetch_group_list(Some("g"), PATIENCE).unwrap();
    assert_eq!((list.groups()[0].state(), list.groups()[0].members().len()), ("Empty", 0));
    alone.poll();
    assert_eq!(alone.error, None);
}
