//! Classic groups through the front door: every version, every refusal, and what is left after a kill.
#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use bytes::Bytes;
use ottla::group::consumer_protocol::{Subscription, Versioned};
use ottla::protocol::api::Api;
use ottla::protocol::messages::delete_groups::DeleteGroupsRequest;
use ottla::protocol::messages::describe_groups::{DescribeGroupsRequest, DescribedGroup};
use ottla::protocol::messages::find_coordinator::FindCoordinatorRequest;
use ottla::protocol::messages::heartbeat::HeartbeatRequest;
use ottla::protocol::messages::join_group::{JoinGroupProtocol, JoinGroupRequest, JoinGroupResponse};
use ottla::protocol::messages::leave_group::{LeaveGroupRequest, LeavingMember};
use ottla::protocol::messages::list_groups::ListGroupsRequest;
use ottla::protocol::messages::offset_commit::{
    OffsetCommitPartition, OffsetCommitRequest, OffsetCommitTopic,
};
use ottla::protocol::messages::offset_delete::{
    OffsetDeletePartition, OffsetDeleteRequest, OffsetDeleteTopic,
};
use ottla::protocol::messages::offset_fetch::{
    OffsetFetchGroup, OffsetFetchPartitionResponse, OffsetFetchRequest, OffsetFetchTopic,
};
use ottla::protocol::messages::sync_group::{SyncGroupAssignment, SyncGroupRequest, SyncGroupResponse};
use ottla::protocol::messages::{
    DeleteGroups, DescribeGroups, FindCoordinator, Heartbeat, JoinGroup, LeaveGroup, ListGroups,
    OffsetCommit, OffsetDelete, OffsetFetch, SyncGroup,
};
use ottla::protocol::wire::Str;
use ottla::uuid::Uuid;

use running::{Client, Server, eventually, named};

/// A version without ids to come back with.
const AT_ONCE: i16 = 3;

fn start(arguments: &[&str]) -> Server {
    let mut all = vec!["--flush", "commit", "--topic", "t:3"];
    all.extend(arguments);
    let server = Server::start(&all);
    find(&mut server.client());
    server
}

fn find(client: &mut Client) {
    let found =
        client.call::<FindCoordinator>(2, &FindCoordinatorRequest { key: "g".into(), ..Default::default() });
    assert_eq!(named(found.error_code), "NONE", "{found:?}");
}

fn subscription() -> Bytes {
    Subscription { topics: vec!["t".into()], ..Default::default() }.encode_versioned(0)
}

fn protocol(name: &str, metadata: Bytes) -> JoinGroupProtocol {
    JoinGroupProtocol { name: name.into(), metadata }
}

fn join_request(group: &str, member_id: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: group.into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        member_id: member_id.into(),
        protocol_type: "consumer".into(),
        protocols: vec![protocol("range", subscription())],
        ..Default::default()
    }
}

fn sync_request(group: &str, joined: &JoinGroupResponse) -> SyncGroupRequest {
    let assignment = |member_id: &Str| SyncGroupAssignment {
        member_id: member_id.clone(),
        assignment: format!("for {member_id}").into(),
    };
    SyncGroupRequest {
        group_id: group.into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        assignments: joined.members.iter().map(|member| assignment(&member.member_id)).collect(),
        ..Default::default()
    }
}

/// A member on a connection of its own.
struct Member {
    client: Client,
    group: String,
    joined: JoinGroupResponse,
    instance_id: Option<Str>,
}

impl Member {
    /// The only member of its group so far, with its assignment.
    fn alone(server: &Server, group: &str) -> Self {
        let mut member = Self::joining(server, group, None);
        member.receive_join();
        member.sync();
        member
    }

    /// A member whose join is on its way.
    fn joining(server: &Server, group: &str, instance_id: Option<&str>) -> Self {
        let mut client = server.client();
        let instance_id = instance_id.map(Str::from);
        let request = JoinGroupRequest { group_instance_id: instance_id.clone(), ..join_request(group, "") };
        client.send::<JoinGroup>(version_of(&instance_id), &request);
        Self { client, group: group.to_owned(), joined: JoinGroupResponse::default(), instance_id }
    }

    fn receive_join(&mut self) {
        self.joined = self.client.receive::<JoinGroup>(version_of(&self.instance_id));
        assert_eq!(named(self.joined.error_code), "NONE");
    }

    fn join_again(&mut self) {
        let request = JoinGroupRequest {
            group_instance_id: self.instance_id.clone(),
            ..join_request(&self.group, &self.joined.member_id)
        };
        self.client.send::<JoinGroup>(version_of(&self.instance_id), &request);
    }

    fn sync(&mut self) -> SyncGroupResponse {
        self.send_sync();
        self.client.receive::<SyncGroup>(5)
    }

    fn send_sync(&mut self) {
        let request = SyncGroupRequest {
            group_instance_id: self.instance_id.clone(),
            ..sync_request(&self.group, &self.joined)
        };
        self.client.send::<SyncGroup>(5, &request);
    }

    fn heartbeat(&mut self) -> &'static str {
        let request = HeartbeatRequest {
            group_id: self.group.as_str().into(),
            generation_id: self.joined.generation_id,
            member_id: self.joined.member_id.clone(),
            group_instance_id: self.instance_id.clone(),
        };
        named(self.client.call::<Heartbeat>(4, &request).error_code)
    }

    fn commit(&mut self, offset: i64) -> &'static str {
        let request = OffsetCommitRequest {
            generation_id_or_member_epoch: self.joined.generation_id,
            member_id: self.joined.member_id.clone(),
            group_instance_id: self.instance_id.clone(),
            ..commit_request(&self.group, "t", offset, "")
        };
        committed(&mut self.client, 9, &request)
    }
}

/// Static members came with version 5.
fn version_of(instance_id: &Option<Str>) -> i16 {
    if instance_id.is_some() { 9 } else { AT_ONCE }
}

fn commit_request(group: &str, topic: &str, offset: i64, metadata: &str) -> OffsetCommitRequest {
    let partition = OffsetCommitPartition {
        committed_offset: offset,
        committed_leader_epoch: 0,
        committed_metadata: Some(metadata.into()),
        ..Default::default()
    };
    let topic = OffsetCommitTopic { name: topic.into(), partitions: vec![partition], ..Default::default() };
    OffsetCommitRequest { group_id: group.into(), topics: vec![topic], ..Default::default() }
}

/// The answer for the one partition of a commit.
fn committed(client: &mut Client, version: i16, request: &OffsetCommitRequest) -> &'static str {
    named(client.call::<OffsetCommit>(version, request).topics[0].partitions[0].error_code)
}

fn fetch(client: &mut Client, group: &str, topic: &str) -> OffsetFetchPartitionResponse {
    let topic = OffsetFetchTopic { name: topic.into(), partition_indexes: vec![0], ..Default::default() };
    let request =
        OffsetFetchRequest { group_id: group.into(), topics: Some(vec![topic]), ..Default::default() };
    let mut answer = client.call::<OffsetFetch>(7, &request);
    assert_eq!(named(answer.error_code), "NONE");
    answer.topics.remove(0).partitions.remove(0)
}

fn describe(client: &mut Client, version: i16, group: &str) -> DescribedGroup {
    let request = DescribeGroupsRequest { groups: vec![group.into()], include_authorized_operations: true };
    client.call::<DescribeGroups>(version, &request).groups.remove(0)
}

fn delete(client: &mut Client, group: &str) -> &'static str {
    let request = DeleteGroupsRequest { groups_names: vec![group.into()] };
    named(client.call::<DeleteGroups>(3, &request).results[0].error_code)
}

#[test]
fn a_member_lives_through_every_version() {
    let server = start(&[]);
    let mut client = server.client();
    for version in JoinGroup::MIN_VERSION..=JoinGroup::MAX_VERSION {
        let group = format!("of-version-{version}");
        let mut joined = client.call::<JoinGroup>(version, &join_request(&group, ""));
        if version >= 4 {
            assert_eq!(named(joined.error_code), "MEMBER_ID_REQUIRED");
            let member_id = joined.member_id.clone();
            assert!(member_id.starts_with("test-"), "{member_id}");
            joined = client.call::<JoinGroup>(version, &join_request(&group, &member_id));
            assert_eq!(joined.member_id, member_id);
        }
        assert_eq!((named(joined.error_code), joined.generation_id), ("NONE", 1));
        assert_eq!((&joined.leader, joined.protocol_name.as_deref()), (&joined.member_id, Some("range")));
        assert_eq!(joined.members[0].metadata, subscription());
        let synced =
            client.call::<SyncGroup>(version.min(SyncGroup::MAX_VERSION), &sync_request(&group, &joined));
        assert_eq!(named(synced.error_code), "NONE");
        assert_eq!(synced.assignment, format!("for {}", joined.member_id));
        let (group_id, member_id) = (Str::from(group.as_str()), joined.member_id.clone());
        let heartbeat = HeartbeatRequest {
            group_id: group_id.clone(),
            generation_id: 1,
            member_id: member_id.clone(),
            ..Default::default()
        };
        let alive = client.call::<Heartbeat>(version.min(Heartbeat::MAX_VERSION), &heartbeat);
        assert_eq!(named(alive.error_code), "NONE");
        let described = describe(&mut client, version.min(DescribeGroups::MAX_VERSION), &group);
        assert_eq!((&*described.group_state, &*described.protocol_data), ("Stable", "range"));
        assert_eq!(&*described.members[0].client_host, "/127.0.0.1");
        let leaving = LeaveGroupRequest {
            group_id,
            member_id: member_id.clone(),
            members: vec![LeavingMember { member_id, ..Default::default() }],
        };
        let left = client.call::<LeaveGroup>(version.min(LeaveGroup::MAX_VERSION), &leaving);
        assert_eq!(named(left.error_code), "NONE");
        assert!(left.members.iter().all(|member| member.error_code == 0), "{left:?}");
        assert_eq!(&*describe(&mut client, 6, &group).group_state, "Empty");
    }
}

#[test]
fn offsets_are_the_same_in_every_version() {
    let server = start(&[]);
    let mut client = server.client();
    let topic_id = client.describe("t").topic_id;
    for version in OffsetCommit::MIN_VERSION..=OffsetCommit::MAX_VERSION {
        let offset = 100 + i64::from(version);
        let mut request = commit_request("g", "t", offset, "a remark");
        request.topics[0].topic_id = topic_id;
        assert_eq!(committed(&mut client, version, &request), "NONE");
        for version in OffsetFetch::MIN_VERSION..=OffsetFetch::MAX_VERSION {
            let wanted = |group: &str| {
                let topics =
                    vec![OffsetFetchTopic { name: "t".into(), topic_id, partition_indexes: vec![0, 1] }];
                (Str::from(group), Some(topics))
            };
            let (group_id, topics) = wanted("g");
            let groups = ["g", "nobody"].map(wanted).map(|(group_id, topics)| OffsetFetchGroup {
                group_id,
                topics,
                ..Default::default()
            });
            let request =
                OffsetFetchRequest { group_id, topics, groups: groups.into(), require_stable: true };
            let answer = client.call::<OffsetFetch>(version, &request);
            let partitions = match answer.groups.first() {
                Some(group) => {
                    assert_eq!(answer.groups[1].topics[0].partitions[0].committed_offset, -1);
                    &group.topics[0].partitions
                }
                None => &answer.topics[0].partitions,
            };
            assert_eq!(
                (partitions[0].committed_offset, partitions[0].metadata.as_deref()),
                (offset, Some("a remark"))
            );
            assert_eq!((partitions[1].committed_offset, named(partitions[1].error_code)), (-1, "NONE"));
            let all = OffsetFetchRequest {
                group_id: "g".into(),
                groups: vec![OffsetFetchGroup { group_id: "g".into(), ..Default::default() }],
                ..Default::default()
            };
            if version >= 2 {
                let answer = client.call::<OffsetFetch>(version, &all);
                let topics = answer.groups.first().map_or(&answer.topics, |group| &group.topics);
                assert_eq!((topics.len(), topics[0].partitions.len()), (1, 1), "only what was committed");
            }
        }
    }
}

#[test]
fn members_share_a_group_over_rebalances() {
    let server = start(&[]);
    let mut first = Member::alone(&server, "g");
    let mut second = Member::joining(&server, "g", None);
    eventually("the first member is told", || (first.heartbeat() == "REBALANCE_IN_PROGRESS").then_some(()));
    assert_eq!(first.sync().error_code, 27);
    assert_eq!(first.commit(5), "NONE", "what was done before may still be committed");
    first.join_again();
    first.receive_join();
    second.receive_join();
    assert_eq!((first.joined.generation_id, second.joined.generation_id), (2, 2));
    assert_eq!((first.joined.members.len(), second.joined.members.len()), (2, 0), "the leader stays");
    assert_eq!(first.commit(6), "REBALANCE_IN_PROGRESS", "not before it knows what it has to do");
    second.send_sync();
    assert_eq!(first.sync().assignment, format!("for {}", first.joined.member_id));
    let synced = second.client.receive::<SyncGroup>(5);
    assert_eq!(synced.assignment, format!("for {}", second.joined.member_id));
    assert_eq!((first.heartbeat(), second.heartbeat()), ("NONE", "NONE"));
    assert_eq!((first.commit(7), second.commit(8)), ("NONE", "NONE"));

    let leaving = LeavingMember { member_id: second.joined.member_id.clone(), ..Default::default() };
    let stranger = LeavingMember { member_id: "nobody".into(), ..Default::default() };
    let request =
        LeaveGroupRequest { group_id: "g".into(), members: vec![leaving, stranger], ..Default::default() };
    let left = second.client.call::<LeaveGroup>(5, &request);
    let codes: Vec<_> = left.members.iter().map(|member| named(member.error_code)).collect();
    assert_eq!(codes, ["NONE", "UNKNOWN_MEMBER_ID"]);
    assert_eq!((first.heartbeat(), second.heartbeat()), ("REBALANCE_IN_PROGRESS", "UNKNOWN_MEMBER_ID"));
    first.join_again();
    first.receive_join();
    assert_eq!((first.joined.generation_id, first.joined.members.len()), (3, 1));
}

#[test]
fn a_silent_member_is_out_when_its_session_ends() {
    let server = start(&["--set", "group.min.session.timeout.ms=100"]);
    let mut client = server.client();
    let request = JoinGroupRequest { session_timeout_ms: 300, ..join_request("g", "") };
    let joined = client.call::<JoinGroup>(AT_ONCE, &request);
    client.call::<SyncGroup>(3, &sync_request("g", &joined));
    eventually("the group is empty", || {
        (&*describe(&mut client, 6, "g").group_state == "Empty").then_some(())
    });
}

#[test]
fn a_static_member_comes_back_without_a_rebalance_and_fences_its_old_self() {
    let server = start(&[]);
    let mut first = Member::joining(&server, "g", Some("one"));
    first.receive_join();
    first.sync();
    let mut other = Member::joining(&server, "g", Some("two"));
    eventually("the first member is told", || (first.heartbeat() == "REBALANCE_IN_PROGRESS").then_some(()));
    first.join_again();
    first.receive_join();
    other.receive_join();
    other.send_sync();
    first.sync();
    other.client.receive::<SyncGroup>(5);

    let mut again = Member::joining(&server, "g", Some("two"));
    again.receive_join();
    assert_eq!(again.joined.generation_id, 2);
    assert_ne!(again.joined.member_id, other.joined.member_id);
    assert_eq!(
        again.sync().assignment,
        format!("for {}", other.joined.member_id),
        "what it had to do stands"
    );
    assert_eq!((first.heartbeat(), again.heartbeat()), ("NONE", "NONE"));
    assert_eq!((other.heartbeat(), other.commit(1)), ("FENCED_INSTANCE_ID", "FENCED_INSTANCE_ID"));
    other.join_again();
    assert_eq!(named(other.client.receive::<JoinGroup>(9).error_code), "FENCED_INSTANCE_ID");
    assert_eq!(named(other.sync().error_code), "FENCED_INSTANCE_ID");

    let mut leader = Member::joining(&server, "g", Some("one"));
    leader.receive_join();
    assert!(leader.joined.skip_assignment && leader.joined.members.len() == 2, "{:?}", leader.joined);
    assert_eq!(leader.sync().assignment, format!("for {}", first.joined.member_id));

    let by_instance = LeavingMember { group_instance_id: Some("two".into()), ..Default::default() };
    let request =
        LeaveGroupRequest { group_id: "g".into(), members: vec![by_instance], ..Default::default() };
    let left = leader.client.call::<LeaveGroup>(5, &request);
    assert_eq!(named(left.members[0].error_code), "NONE");
    assert_eq!(leader.heartbeat(), "REBALANCE_IN_PROGRESS");
}

#[test]
fn what_does_not_fit_a_group_is_refused() {
    let server = start(&["--set", "group.max.size=2"]);
    let mut client = server.client();
    let mut join = |change: &dyn Fn(&mut JoinGroupRequest)| {
        let mut request = join_request("g", "");
        change(&mut request);
        named(client.call::<JoinGroup>(AT_ONCE, &request).error_code)
    };
    assert_eq!(join(&|request| request.group_id = "".into()), "INVALID_GROUP_ID");
    assert_eq!(join(&|request| request.session_timeout_ms = 5_999), "INVALID_SESSION_TIMEOUT");
    assert_eq!(join(&|request| request.session_timeout_ms = 1_800_001), "INVALID_SESSION_TIMEOUT");
    assert_eq!(join(&|request| request.session_timeout_ms = -1), "INVALID_SESSION_TIMEOUT");
    assert_eq!(join(&|request| request.protocols.clear()), "INCONSISTENT_GROUP_PROTOCOL");
    assert_eq!(join(&|request| request.protocol_type = "".into()), "INCONSISTENT_GROUP_PROTOCOL");
    assert_eq!(join(&|request| request.member_id = "made up".into()), "UNKNOWN_MEMBER_ID");
    let long = "x".repeat(40_000);
    let mut join_flexible = |change: &dyn Fn(&mut JoinGroupRequest)| {
        let mut request = join_request("g", "");
        change(&mut request);
        named(client.call::<JoinGroup>(9, &request).error_code)
    };
    assert_eq!(join_flexible(&|request| request.group_id = long.as_str().into()), "INVALID_GROUP_ID");
    assert_eq!(join_flexible(&|request| request.protocol_type = long.as_str().into()), "INVALID_REQUEST");
    assert_eq!(
        join_flexible(&|request| request.group_instance_id = Some(long.as_str().into())),
        "INVALID_REQUEST"
    );
    assert_eq!(committed(&mut client, 9, &commit_request(&long, "t", 1, "")), "INVALID_GROUP_ID");

    let mut first = Member::alone(&server, "g");
    let mut join = |change: &dyn Fn(&mut JoinGroupRequest)| {
        let mut request = join_request("g", "");
        change(&mut request);
        named(client.call::<JoinGroup>(AT_ONCE, &request).error_code)
    };
    assert_eq!(join(&|request| request.protocol_type = "connect".into()), "INCONSISTENT_GROUP_PROTOCOL");
    let other = || vec![protocol("my own", Bytes::new())];
    assert_eq!(join(&|request| request.protocols = other()), "INCONSISTENT_GROUP_PROTOCOL");
    assert_eq!(join(&|request| request.member_id = "made up".into()), "UNKNOWN_MEMBER_ID");
    let mut second = Member::joining(&server, "g", None);
    eventually("the first member is told", || (first.heartbeat() == "REBALANCE_IN_PROGRESS").then_some(()));
    first.join_again();
    first.receive_join();
    second.receive_join();
    assert_eq!(join(&|_| {}), "GROUP_MAX_SIZE_REACHED");

    first.joined.generation_id = 1;
    assert_eq!((first.heartbeat(), first.commit(1)), ("ILLEGAL_GENERATION", "ILLEGAL_GENERATION"));
    assert_eq!(named(first.sync().error_code), "ILLEGAL_GENERATION");
    first.joined.generation_id = 2;
    let mut wrong = sync_request("g", &first.joined);
    wrong.protocol_name = Some("sticky".into());
    assert_eq!(named(first.client.call::<SyncGroup>(5, &wrong).error_code), "INCONSISTENT_GROUP_PROTOCOL");
    wrong.protocol_name = None;
    assert_eq!(named(first.client.call::<SyncGroup>(5, &wrong).error_code), "INCONSISTENT_GROUP_PROTOCOL");
    first.joined.member_id = "made up".into();
    assert_eq!((first.heartbeat(), first.commit(1)), ("UNKNOWN_MEMBER_ID", "UNKNOWN_MEMBER_ID"));
    assert_eq!(named(first.sync().error_code), "UNKNOWN_MEMBER_ID");
}

#[test]
fn offsets_that_may_not_be_committed_are_refused_one_by_one() {
    let server = start(&[]);
    let mut client = server.client();
    assert_eq!(committed(&mut client, 9, &commit_request("", "t", 1, "")), "NONE", "a group without a name");
    assert_eq!(fetch(&mut client, "", "t").committed_offset, 1);
    assert_eq!(
        committed(&mut client, 9, &commit_request("g", "nowhere", 1, "")),
        "UNKNOWN_TOPIC_OR_PARTITION"
    );
    let mut no_partition = commit_request("g", "t", 1, "");
    no_partition.topics[0].partitions[0].partition_index = 3;
    assert_eq!(committed(&mut client, 9, &no_partition), "UNKNOWN_TOPIC_OR_PARTITION");
    let mut no_id = commit_request("g", "", 1, "");
    no_id.topics[0].topic_id = Uuid([7; 16]);
    assert_eq!(committed(&mut client, 10, &no_id), "UNKNOWN_TOPIC_ID");
    let long = "\u{e9}".repeat(4096);
    assert_eq!(committed(&mut client, 9, &commit_request("g", "t", 1, &long)), "NONE");
    let too_long = "x".repeat(4097);
    assert_eq!(
        committed(&mut client, 9, &commit_request("g", "t", 2, &too_long)),
        "OFFSET_METADATA_TOO_LARGE"
    );
    let huge = "x".repeat(1 << 20);
    assert_eq!(committed(&mut client, 9, &commit_request("g", "t", 2, &huge)), "OFFSET_METADATA_TOO_LARGE");

    let mut two = commit_request("g", "t", 5, "");
    two.topics.push(commit_request("g", "nowhere", 5, "").topics.remove(0));
    let answer = client.call::<OffsetCommit>(9, &two);
    let codes: Vec<_> = answer.topics.iter().map(|topic| named(topic.partitions[0].error_code)).collect();
    assert_eq!(codes, ["NONE", "UNKNOWN_TOPIC_OR_PARTITION"]);
    assert_eq!(fetch(&mut client, "g", "t").committed_offset, 5, "the neighbour of an error is stored");

    let mut of_member = commit_request("no such group", "t", 1, "");
    of_member.generation_id_or_member_epoch = 1;
    of_member.member_id = "m".into();
    assert_eq!(committed(&mut client, 8, &of_member), "ILLEGAL_GENERATION");
    assert_eq!(committed(&mut client, 9, &of_member), "GROUP_ID_NOT_FOUND");
    let _member = Member::alone(&server, "g");
    assert_eq!(committed(&mut client, 9, &commit_request("g", "t", 6, "")), "UNKNOWN_MEMBER_ID");
    assert_eq!(fetch(&mut client, "g", "t").committed_offset, 5);
}

#[test]
fn groups_are_listed_described_and_deleted() {
    let server = start(&[]);
    let mut client = server.client();
    let mut member = Member::alone(&server, "live");
    assert_eq!(member.commit(3), "NONE");
    assert_eq!(committed(&mut client, 9, &commit_request("simple", "t", 1, "")), "NONE");
    let mut list = |states: &[&str], types: &[&str]| -> Vec<(String, String, String)> {
        let text = |all: &[&str]| all.iter().map(|one| Str::from(*one)).collect();
        let request = ListGroupsRequest { states_filter: text(states), types_filter: text(types) };
        let answer = client.call::<ListGroups>(5, &request);
        let mut found: Vec<_> = answer
            .groups
            .iter()
            .map(|group| {
                (group.group_id.to_string(), group.group_state.to_string(), group.group_type.to_string())
            })
            .collect();
        found.sort();
        found
    };
    let of = |id: &str, state: &str| (id.to_owned(), state.to_owned(), "classic".to_owned());
    assert_eq!(list(&[], &[]), [of("live", "Stable"), of("simple", "Empty")]);
    assert_eq!(list(&["sTABLE"], &["CLASSIC"]), [of("live", "Stable")]);
    assert_eq!(list(&["Unheard"], &[]), []);
    assert_eq!(list(&[], &["consumer"]), []);

    let nobody = describe(&mut client, 5, "nobody");
    assert_eq!((named(nobody.error_code), &*nobody.group_state), ("NONE", "Dead"));
    let nobody = describe(&mut client, 6, "nobody");
    assert_eq!(named(nobody.error_code), "GROUP_ID_NOT_FOUND");
    assert_eq!(nobody.error_message.as_deref(), Some("Group nobody not found."));
    assert_eq!(describe(&mut client, 6, "live").authorized_operations, 0b1101_0100_1000);

    let mut forget = |group: &str, topic: &str| {
        let partitions = vec![OffsetDeletePartition { partition_index: 0 }];
        let topics = vec![OffsetDeleteTopic { name: topic.into(), partitions }];
        let answer = client.call::<OffsetDelete>(0, &OffsetDeleteRequest { group_id: group.into(), topics });
        let partition = answer.topics.first().map(|topic| named(topic.partitions[0].error_code));
        (named(answer.error_code), partition)
    };
    assert_eq!(forget("nobody", "t"), ("GROUP_ID_NOT_FOUND", None));
    assert_eq!(forget("live", "t"), ("NONE", Some("GROUP_SUBSCRIBED_TO_TOPIC")));
    assert_eq!(forget("simple", "nowhere"), ("NONE", Some("UNKNOWN_TOPIC_OR_PARTITION")));
    assert_eq!(forget("simple", "t"), ("NONE", Some("NONE")));
    assert_eq!(fetch(&mut client, "simple", "t").committed_offset, -1);

    assert_eq!(delete(&mut client, "live"), "NON_EMPTY_GROUP");
    assert_eq!(delete(&mut client, "nobody"), "GROUP_ID_NOT_FOUND");
    let leaving = LeavingMember { member_id: member.joined.member_id.clone(), ..Default::default() };
    let request = LeaveGroupRequest { group_id: "live".into(), members: vec![leaving], ..Default::default() };
    client.call::<LeaveGroup>(3, &request);
    assert_eq!(delete(&mut client, "live"), "NONE");
    assert_eq!(fetch(&mut client, "live", "t").committed_offset, -1);
    assert_eq!(member.heartbeat(), "UNKNOWN_MEMBER_ID");
}

#[test]
fn a_group_outlives_the_death_of_its_broker() {
    let mut server = start(&[]);
    let mut member = Member::joining(&server, "g", Some("one"));
    member.receive_join();
    member.sync();
    assert_eq!(member.commit(41), "NONE");
    let mut client = server.client();
    assert_eq!(committed(&mut client, 9, &commit_request("gone", "t", 1, "")), "NONE");
    assert_eq!(delete(&mut client, "gone"), "NONE");
    for _ in 0..2 {
        server.restart();
        member.client = server.client();
        find(&mut member.client);
        assert_eq!(member.heartbeat(), "NONE", "its generation stands");
        assert_eq!(fetch(&mut member.client, "g", "t").committed_offset, 41);
        assert_eq!(fetch(&mut member.client, "gone", "t").committed_offset, -1);
        let described = describe(&mut member.client, 6, "g");
        assert_eq!(described.members[0].group_instance_id.as_deref(), Some("one"));
        assert_eq!(described.members[0].member_assignment, format!("for {}", member.joined.member_id));
        assert_eq!(named(describe(&mut member.client, 6, "gone").error_code), "GROUP_ID_NOT_FOUND");
    }
}

#[test]
fn a_start_reads_what_came_after_the_last_snapshot_and_not_the_segment_before_it() {
    const COMMITS: i64 = 1_500;
    let mut server = Server::start(&[
        "--flush",
        "os",
        "--topic",
        "t:1",
        "--set",
        "offsets.topic.num.partitions=1",
        "--log",
        "warn,ottla::coordinator=debug",
    ]);
    let mut client = server.client();
    find(&mut client);
    for offset in 1..=COMMITS {
        assert_eq!(committed(&mut client, 9, &commit_request("g", "t", offset, "")), "NONE");
    }
    let log = server.data().join("__consumer_offsets-0/00000000000000000000.log");
    let bytes = std::fs::metadata(&log).unwrap().len();
    // The first start writes a snapshot, the next ones begin with it: after a kill, and after a stop.
    for (times, replayed) in [(1, COMMITS), (1, 1), (2, 1)] {
        match replayed == COMMITS {
            true => server.kill(),
            false => server.stop(),
        }
        server.restart();
        assert_eq!(fetch(&mut server.client(), "g", "t").committed_offset, COMMITS);
        let told =
            format!("coordinator replayed topic=\"__consumer_offsets\" partition=0 records={replayed} ");
        assert_eq!(server.log().matches(&told).count(), times, "{}", server.log());
    }
    assert!(std::fs::metadata(&log).unwrap().len() > bytes, "all of it is in one segment still");
}

#[test]
fn offsets_go_with_their_topic() {
    let server = start(&["--topic", "u:1"]);
    let mut client = server.client();
    for topic in ["t", "u"] {
        assert_eq!(committed(&mut client, 9, &commit_request("g", topic, 9, "")), "NONE");
    }
    client.delete_topic("u");
    assert_eq!(fetch(&mut client, "g", "u").committed_offset, -1);
    client.create_topic("u", 1, &[]);
    assert_eq!(fetch(&mut client, "g", "u").committed_offset, -1, "another topic of that name");
    assert_eq!(fetch(&mut client, "g", "t").committed_offset, 9);
}

#[test]
fn bytes_that_no_consumer_would_send_are_passed_on_as_they_are() {
    let server = start(&[]);
    let mut client = server.client();
    for (at, metadata) in
        [&b""[..], b"\0", b"\0\0\x7f\xff\xff\xff", b"\xff\xff\xff\xff\xff\xff\xff"].into_iter().enumerate()
    {
        let group = format!("g{at}");
        let metadata = Bytes::copy_from_slice(metadata);
        let request = JoinGroupRequest {
            protocols: vec![protocol("range", metadata.clone())],
            ..join_request(&group, "")
        };
        let joined = client.call::<JoinGroup>(AT_ONCE, &request);
        assert_eq!(joined.members[0].metadata, metadata);
        let mut sync = sync_request(&group, &joined);
        sync.assignments[0].assignment = metadata.clone();
        sync.assignments
            .push(SyncGroupAssignment { member_id: "nobody".into(), assignment: Bytes::from_static(b"x") });
        assert_eq!(client.call::<SyncGroup>(5, &sync).assignment, metadata);
        assert_eq!(describe(&mut client, 6, &group).members[0].member_assignment, metadata);
    }
}

#[test]
fn members_and_offsets_have_a_limit_in_memory() {
    let server = start(&["--set", "ottla.group.coordinator.max.bytes=8388608"]);
    let mut client = server.client();
    let big = Bytes::from(vec![b'x'; 1 << 20]);
    let request = |group: &str| JoinGroupRequest {
        protocols: vec![protocol("range", big.clone())],
        ..join_request(group, "")
    };
    let joined = client.call::<JoinGroup>(AT_ONCE, &request("g"));
    assert_eq!((named(joined.error_code), joined.members[0].metadata.len()), ("NONE", 1 << 20));
    let mut refused = 0;
    for at in 0..50 {
        let code = named(client.call::<JoinGroup>(AT_ONCE, &request(&format!("g{at}"))).error_code);
        assert!(code == "NONE" || code == "GROUP_MAX_SIZE_REACHED", "{code}");
        refused += usize::from(code != "NONE");
    }
    assert!(refused > 40, "{refused}");
    assert!(server.memory_bytes("VmHWM") < 96 << 20);
    let remark = "x".repeat(4096);
    let codes: Vec<_> = (0..3_000)
        .map(|at| committed(&mut client, 9, &commit_request(&format!("c{at}"), "t", 1, &remark)))
        .collect();
    assert!(
        codes.contains(&"INVALID_COMMIT_OFFSET_SIZE")
            && codes.iter().all(|code| *code == "NONE" || *code == "INVALID_COMMIT_OFFSET_SIZE")
    );
}

#[test]
fn a_coordinator_is_found_in_every_version_and_only_for_what_it_coordinates() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let (host, port) = server.address().rsplit_once(':').unwrap();
    let request = |key_type| FindCoordinatorRequest {
        key: "g".into(),
        key_type,
        coordinator_keys: vec!["g".into(), "h".into()],
    };
    for version in FindCoordinator::MIN_VERSION..=FindCoordinator::MAX_VERSION {
        let found = client.call::<FindCoordinator>(version, &request(0));
        let places = match version {
            ..4 => vec![(found.node_id, found.host, found.port)],
            _ => found.coordinators.into_iter().map(|one| (one.node_id, one.host, one.port)).collect(),
        };
        assert_eq!(places.len(), if version < 4 { 1 } else { 2 });
        assert!(places.iter().all(|place| *place == (1, host.into(), port.parse().unwrap())), "{places:?}");
    }
    assert_eq!(named(client.call::<FindCoordinator>(3, &request(2)).error_code), "INVALID_REQUEST");
    let found = client.call::<FindCoordinator>(6, &request(9));
    assert_eq!(named(found.coordinators[0].error_code), "INVALID_REQUEST");
    assert_eq!(
        (
            client.describe("__consumer_offsets").partitions.len(),
            client.describe("__consumer_offsets").is_internal
        ),
        (4, true)
    );
}

#[test]
fn who_does_not_look_for_the_coordinator_first_is_told_to() {
    let server = Server::start(&["--topic", "t:1"]);
    let mut client = server.client();
    assert_eq!(
        named(client.call::<JoinGroup>(AT_ONCE, &join_request("g", "")).error_code),
        "NOT_COORDINATOR"
    );
    assert_eq!(committed(&mut client, 9, &commit_request("g", "t", 1, "")), "NOT_COORDINATOR");
    assert!(client.call::<ListGroups>(5, &ListGroupsRequest::default()).groups.is_empty());
}
