//! Share groups through the front door: sessions, leases, what wakes a waiting fetch, every refusal, and what is left after a
//! kill.
#![allow(clippy::unwrap_used, reason = "tests")]

mod running;

use std::time::{Duration, Instant};

use ottla::protocol::messages::alter_share_group_offsets::{
    AlterShareGroupOffsetsPartition, AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsTopic,
};
use ottla::protocol::messages::api_versions::ApiVersionsRequest;
use ottla::protocol::messages::delete_groups::DeleteGroupsRequest;
use ottla::protocol::messages::describe_share_group_offsets::{
    DescribeShareGroupOffsetsGroup, DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsTopic,
    DescribedShareGroupOffsetsTopic,
};
use ottla::protocol::messages::find_coordinator::FindCoordinatorRequest;
use ottla::protocol::messages::incremental_alter_configs::{
    IncrementalAlterConfig, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResource,
};
use ottla::protocol::messages::join_group::{JoinGroupProtocol, JoinGroupRequest};
use ottla::protocol::messages::list_groups::ListGroupsRequest;
use ottla::protocol::messages::share_acknowledge::{
    ShareAcknowledgePartition, ShareAcknowledgeRequest, ShareAcknowledgeTopic, ShareAcknowledgements,
};
use ottla::protocol::messages::share_fetch::{
    ShareFetchAcknowledgements, ShareFetchForgottenTopic, ShareFetchPartition, ShareFetchPartitionResponse,
    ShareFetchRequest, ShareFetchResponse, ShareFetchTopic,
};
use ottla::protocol::messages::share_group_heartbeat::{
    ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse,
};
use ottla::protocol::messages::{
    AlterShareGroupOffsets, ApiVersions, DeleteGroups, DescribeShareGroupOffsets, FindCoordinator,
    IncrementalAlterConfigs, JoinGroup, ListGroups, ShareAcknowledge, ShareFetch, ShareGroupHeartbeat,
};
use ottla::protocol::wire::{Records, Str};
use ottla::record::BatchBuilder;
use ottla::record::records::split_batch;
use ottla::uuid::Uuid;

use running::{Client, Server, eventually, named, now_ms, values_of};

const ACCEPT: i8 = 1;
const RELEASE: i8 = 2;
const REJECT: i8 = 3;
const RENEW: i8 = 4;

/// How long a short lease lasts at least: the broker counts in whole milliseconds.
const LEASE: Duration = Duration::from_millis(1999);

/// Short leases, so that they can be seen to end.
const SHORT_LEASES: [&str; 4] = [
    "--set",
    "group.share.min.record.lock.duration.ms=1000",
    "--set",
    "group.share.record.lock.duration.ms=2000",
];

fn start(arguments: &[&str]) -> Server {
    let mut all = vec!["--topic", "t:1"];
    all.extend(arguments);
    Server::start(&all)
}

fn config(client: &mut Client, group: &str, name: &str, value: &str) -> &'static str {
    let config = IncrementalAlterConfig { name: name.into(), config_operation: 0, value: Some(value.into()) };
    let resource = IncrementalAlterConfigsResource {
        resource_type: 32,
        resource_name: group.into(),
        configs: vec![config],
    };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    named(client.call::<IncrementalAlterConfigs>(1, &request).responses[0].error_code)
}

fn beat(client: &mut Client, group: &str, member: &str, epoch: i32) -> ShareGroupHeartbeatResponse {
    beat_for(client, group, member, epoch, "t")
}

fn beat_for(
    client: &mut Client,
    group: &str,
    member: &str,
    epoch: i32,
    topic: &str,
) -> ShareGroupHeartbeatResponse {
    let request = ShareGroupHeartbeatRequest {
        group_id: group.into(),
        member_id: member.into(),
        member_epoch: epoch,
        subscribed_topic_names: (epoch == 0).then(|| vec![topic.into()]),
        ..Default::default()
    };
    client.call::<ShareGroupHeartbeat>(1, &request)
}

fn produce(server: &Server, values: std::ops::Range<i32>) {
    server.client().append("t", values);
}

/// A member of a share group, on a connection of its own.
struct Member {
    client: Client,
    group: &'static str,
    name: String,
    topic_id: Uuid,
    epoch: i32,
    max_records: i32,
    max_wait_ms: i32,
    /// 1 for no more records than `max_records`.
    mode: i8,
}

impl Member {
    fn join(server: &Server, group: &'static str, name: &str) -> Self {
        Self::join_for(server, group, name, "t")
    }

    fn join_for(server: &Server, group: &'static str, name: &str, topic: &str) -> Self {
        let mut client = server.client();
        let find = FindCoordinatorRequest { key: group.into(), ..Default::default() };
        assert_eq!(named(client.call::<FindCoordinator>(2, &find).error_code), "NONE");
        // A group that is to see what was sent before it.
        assert_eq!(config(&mut client, group, "share.auto.offset.reset", "earliest"), "NONE");
        let told = beat_for(&mut client, group, name, 0, topic);
        assert_eq!(named(told.error_code), "NONE", "{told:?}");
        let topic = told.assignment.unwrap().topic_partitions.remove(0);
        assert_eq!(topic.partitions, [0]);
        let (name, topic_id) = (name.to_owned(), topic.topic_id);
        Self { client, group, name, topic_id, epoch: 0, max_records: 500, max_wait_ms: 0, mode: 0 }
    }

    fn request(&mut self, acks: &[(i64, i64, i8)]) -> ShareFetchRequest {
        let acknowledgement_batches = acks.iter().map(|(first, last, kind)| ShareFetchAcknowledgements {
            first_offset: *first,
            last_offset: *last,
            acknowledge_types: vec![*kind],
        });
        let partition = ShareFetchPartition {
            partition_index: 0,
            acknowledgement_batches: acknowledgement_batches.collect(),
        };
        let topic = ShareFetchTopic { topic_id: self.topic_id, partitions: vec![partition] };
        let request = ShareFetchRequest {
            group_id: Some(self.group.into()),
            member_id: Some(Str::from(self.name.as_str())),
            share_session_epoch: self.epoch,
            max_wait_ms: self.max_wait_ms,
            min_bytes: 1,
            max_records: self.max_records,
            batch_size: self.max_records,
            share_acquire_mode: self.mode,
            topics: if self.epoch == 0 || !acks.is_empty() { vec![topic] } else { vec![] },
            ..Default::default()
        };
        self.epoch += 1;
        request
    }

    fn ask(&mut self, acks: &[(i64, i64, i8)]) -> ShareFetchResponse {
        let request = self.request(acks);
        self.client.call::<ShareFetch>(2, &request)
    }

    /// First and last offset and delivery count of what it is lent.
    fn fetch(&mut self) -> Vec<(i64, i64, i16)> {
        acquired(&self.ask(&[]))
    }

    fn acknowledge(&mut self, first: i64, last: i64, kind: i8) -> &'static str {
        let batch =
            ShareAcknowledgements { first_offset: first, last_offset: last, acknowledge_types: vec![kind] };
        let partition =
            ShareAcknowledgePartition { partition_index: 0, acknowledgement_batches: vec![batch] };
        let topic = ShareAcknowledgeTopic { topic_id: self.topic_id, partitions: vec![partition] };
        let request = ShareAcknowledgeRequest {
            group_id: Some(self.group.into()),
            member_id: Some(Str::from(self.name.as_str())),
            share_session_epoch: self.epoch,
            is_renew_ack: kind == RENEW,
            topics: vec![topic],
        };
        let answer = self.client.call::<ShareAcknowledge>(2, &request);
        if answer.error_code != 0 {
            return named(answer.error_code);
        }
        self.epoch += 1;
        named(answer.responses[0].partitions[0].error_code)
    }
}

fn only(response: &ShareFetchResponse) -> Option<&ShareFetchPartitionResponse> {
    assert_eq!(named(response.error_code), "NONE", "{response:?}");
    let partition = response.responses.first()?.partitions.first()?;
    assert_eq!(named(partition.error_code), "NONE", "{response:?}");
    Some(partition)
}

fn acquired(response: &ShareFetchResponse) -> Vec<(i64, i64, i16)> {
    let ranges = only(response).map(|partition| &partition.acquired_records[..]).unwrap_or_default();
    ranges.iter().map(|range| (range.first_offset, range.last_offset, range.delivery_count)).collect()
}

/// Start offset and lag of the group, if it has begun.
fn progress(server: &Server, group: &str) -> Option<(i64, i64)> {
    let group = DescribeShareGroupOffsetsGroup { group_id: group.into(), topics: None };
    let request = DescribeShareGroupOffsetsRequest { groups: vec![group] };
    let mut answer = server.client().call::<DescribeShareGroupOffsets>(1, &request);
    let group = answer.groups.remove(0);
    assert_eq!(named(group.error_code), "NONE");
    let partition = group.topics.first()?.partitions.first()?;
    Some((partition.start_offset, partition.lag))
}

/// The topics of which the group has something, and its start there.
fn starts(server: &Server, group: &str) -> Vec<(String, i64)> {
    let group = DescribeShareGroupOffsetsGroup { group_id: group.into(), topics: None };
    let request = DescribeShareGroupOffsetsRequest { groups: vec![group] };
    let topics = server.client().call::<DescribeShareGroupOffsets>(1, &request).groups.remove(0).topics;
    let start = |topic: &DescribedShareGroupOffsetsTopic| {
        (topic.topic_name.to_string(), topic.partitions[0].start_offset)
    };
    let mut starts: Vec<_> = topics.iter().map(start).collect();
    starts.sort();
    starts
}

#[test]
fn share_groups_are_a_finalized_feature() {
    let server = start(&[]);
    let request = ApiVersionsRequest {
        client_software_name: "test".into(),
        client_software_version: "1".into(),
        ..Default::default()
    };
    let answer = server.client().call::<ApiVersions>(4, &request);
    let feature = &answer.finalized_features[0];
    assert_eq!((&*feature.name, feature.max_version_level), ("share.version", 2));
    assert!(answer.finalized_features_epoch >= 0);
    assert_eq!(
        (&*answer.supported_features[0].name, answer.supported_features[0].max_version),
        ("share.version", 2)
    );
}

#[test]
fn the_stored_batches_are_served_with_what_is_lent_of_them() {
    let server = start(&[]);
    produce(&server, 0..5);
    produce(&server, 5..8);
    produce(&server, 8..20);
    let mut anne = Member::join(&server, "g", "anne");
    anne.max_records = 6;
    let answer = anne.ask(&[]);
    // Whole batches until there are enough, and nothing of the next.
    assert_eq!(acquired(&answer), [(0, 7, 1)]);
    assert_eq!(answer.acquisition_lock_timeout_ms, 30_000);
    let Records::Bytes(mut batches) = only(&answer).unwrap().records.clone() else { panic!("{answer:?}") };
    let bases: Vec<i64> =
        std::iter::from_fn(|| split_batch(&mut batches)).map(|(header, _)| header.base_offset).collect();
    assert_eq!(bases, [0, 5]);
    anne.mode = 1;
    anne.max_records = 3;
    assert_eq!(anne.fetch(), [(8, 10, 1)], "no more than asked for");
    let mut bert = Member::join(&server, "g", "bert");
    assert_eq!(bert.fetch(), [(11, 19, 1)], "what is left");
    assert_eq!(bert.fetch(), []);
    assert_eq!(progress(&server, "g"), Some((0, 20)));
    assert_eq!(anne.acknowledge(0, 4, ACCEPT), "NONE");
    assert_eq!(anne.acknowledge(6, 10, ACCEPT), "NONE");
    assert_eq!(progress(&server, "g"), Some((5, 10)));
    // Another group has its own copy of it all.
    assert_eq!(Member::join(&server, "h", "anne").fetch(), [(0, 19, 1)]);
}

#[test]
fn verdicts_ride_along_and_wrong_ones_change_nothing() {
    let server = start(&[]);
    produce(&server, 0..10);
    let mut anne = Member::join(&server, "g", "anne");
    assert_eq!(anne.fetch(), [(0, 9, 1)]);
    let answer = anne.ask(&[(0, 3, ACCEPT), (4, 4, REJECT), (5, 6, RELEASE)]);
    assert_eq!(named(only(&answer).unwrap().acknowledge_error_code), "NONE");
    assert_eq!(acquired(&answer), [(5, 6, 2)]);
    for (first, last, kind, error) in [
        (5, 4, ACCEPT, "INVALID_REQUEST"),
        (5, 6, 9, "INVALID_REQUEST"),
        (5, 60, ACCEPT, "INVALID_RECORD_STATE"),
        (0, 4, ACCEPT, "NONE"), // done long ago
    ] {
        assert_eq!(anne.acknowledge(first, last, kind), error, "{first} {last} {kind}");
    }
    let mut bert = Member::join(&server, "g", "bert");
    assert_eq!(bert.fetch(), []);
    assert_eq!(bert.acknowledge(5, 5, ACCEPT), "INVALID_RECORD_STATE", "it is anne's");
    assert_eq!(anne.acknowledge(5, 9, ACCEPT), "NONE");
    assert_eq!(progress(&server, "g"), Some((10, 0)));
}

#[test]
fn a_forgotten_partition_is_fetched_no_more_even_if_verdicts_on_it_come_along() {
    let server = start(&[]);
    produce(&server, 0..4);
    let mut anne = Member::join(&server, "g", "anne");
    assert_eq!(anne.fetch(), [(0, 3, 1)]);
    let mut request = anne.request(&[(0, 1, ACCEPT)]);
    request.forgotten_topics_data =
        vec![ShareFetchForgottenTopic { topic_id: anne.topic_id, partitions: vec![0] }];
    let answer = anne.client.call::<ShareFetch>(2, &request);
    assert_eq!(named(only(&answer).unwrap().acknowledge_error_code), "NONE");
    produce(&server, 4..6);
    assert_eq!(anne.fetch(), []);
    // What it still has it can speak of; that names the partition again.
    let answer = anne.ask(&[(2, 3, ACCEPT)]);
    assert_eq!(named(only(&answer).unwrap().acknowledge_error_code), "NONE");
    assert_eq!(acquired(&answer), [(4, 5, 1)]);
}

#[test]
fn a_lease_ends_at_its_deadline_unless_it_is_renewed() {
    let server = start(&SHORT_LEASES);
    produce(&server, 0..4);
    let mut anne = Member::join(&server, "g", "anne");
    let mut bert = Member::join(&server, "g", "bert");
    let began = Instant::now();
    assert_eq!(anne.fetch(), [(0, 3, 1)]);
    // The leases are to end well apart.
    std::thread::sleep(Duration::from_millis(700));
    let renewed = Instant::now();
    assert_eq!(anne.acknowledge(2, 3, RENEW), "NONE");
    // Who waits is told of what comes back, when it does.
    bert.max_wait_ms = 20_000;
    assert_eq!(bert.fetch(), [(0, 1, 2)]);
    assert!(began.elapsed() >= LEASE);
    assert_eq!(anne.acknowledge(0, 1, ACCEPT), "INVALID_RECORD_STATE");
    assert_eq!(bert.acknowledge(0, 1, ACCEPT), "NONE");
    assert_eq!(bert.fetch(), [(2, 3, 2)]);
    assert!(renewed.elapsed() >= LEASE);
}

#[test]
fn a_waiting_fetch_is_answered_by_a_record_and_by_a_release() {
    let server = start(&[]);
    let mut anne = Member::join(&server, "g", "anne");
    let mut bert = Member::join(&server, "g", "bert");
    anne.max_wait_ms = 20_000;
    bert.max_wait_ms = 20_000;
    let began = Instant::now();
    let request = anne.request(&[]);
    anne.client.send::<ShareFetch>(2, &request);
    // It waits once the group has begun.
    eventually("the fetch waits", || progress(&server, "g"));
    produce(&server, 0..3);
    assert_eq!(acquired(&anne.client.receive::<ShareFetch>(2)), [(0, 2, 1)]);
    let request = bert.request(&[]);
    bert.client.send::<ShareFetch>(2, &request);
    assert_eq!(anne.acknowledge(1, 1, RELEASE), "NONE");
    assert_eq!(acquired(&bert.client.receive::<ShareFetch>(2)), [(1, 1, 2)]);
    assert!(began.elapsed() < Duration::from_secs(10));
    // Nothing comes: the wait is as long as asked for.
    (bert.max_wait_ms, bert.max_records) = (100, 1);
    let began = Instant::now();
    assert_eq!(bert.fetch(), []);
    assert!(began.elapsed() >= Duration::from_millis(100));
}

#[test]
fn a_connection_that_ends_gives_back_what_was_lent_over_it() {
    let server = start(&[]);
    produce(&server, 0..4);
    let mut anne = Member::join(&server, "g", "anne");
    assert_eq!(anne.fetch(), [(0, 3, 1)]);
    let mut bert = Member::join(&server, "g", "bert");
    bert.max_wait_ms = 20_000;
    let request = bert.request(&[]);
    bert.client.send::<ShareFetch>(2, &request);
    drop(anne);
    assert_eq!(acquired(&bert.client.receive::<ShareFetch>(2)), [(0, 3, 2)]);
    // The last request of a session gives back, too.
    bert.epoch = -1;
    assert_eq!(bert.fetch(), []);
    assert_eq!(Member::join(&server, "g", "carl").fetch(), [(0, 3, 3)]);
}

#[test]
fn sessions_have_epochs_and_a_limit() {
    let server = start(&["--set", "group.share.max.share.sessions=1"]);
    produce(&server, 0..2);
    let mut anne = Member::join(&server, "g", "anne");
    let mut refused = |epoch: i32, acks: &[(i64, i64, i8)]| {
        anne.epoch = epoch;
        named(anne.ask(acks).error_code)
    };
    assert_eq!(refused(1, &[]), "SHARE_SESSION_NOT_FOUND");
    assert_eq!(refused(0, &[(0, 0, ACCEPT)]), "INVALID_REQUEST");
    assert_eq!(refused(0, &[]), "NONE");
    assert_eq!(refused(2, &[]), "INVALID_SHARE_SESSION_EPOCH");
    assert_eq!(refused(1, &[]), "NONE");
    anne.epoch = 0;
    assert_eq!(anne.acknowledge(0, 0, ACCEPT), "INVALID_SHARE_SESSION_EPOCH");
    let mut bert = Member::join(&server, "g", "bert");
    assert_eq!(named(bert.ask(&[]).error_code), "SHARE_SESSION_LIMIT_REACHED");
    // Who asks again and again is held back as long as one who finds nothing.
    (bert.epoch, bert.max_wait_ms) = (0, 300);
    let began = Instant::now();
    assert_eq!(named(bert.ask(&[]).error_code), "SHARE_SESSION_LIMIT_REACHED");
    assert!(began.elapsed() >= Duration::from_millis(300));
    bert.max_wait_ms = 0;
    for (group, member) in
        [(None, Some("m")), (Some(""), Some("m")), (Some("g"), None), (Some("g"), Some(""))]
    {
        let mut request = bert.request(&[]);
        (request.group_id, request.member_id) = (group.map(Str::from), member.map(Str::from));
        assert_eq!(named(bert.client.call::<ShareFetch>(1, &request).error_code), "INVALID_REQUEST");
    }
    let mut request = bert.request(&[]);
    request.is_renew_ack = true;
    assert_eq!(named(bert.client.call::<ShareFetch>(2, &request).error_code), "INVALID_REQUEST");
}

#[test]
fn a_session_keeps_no_partition_that_there_is_not() {
    let server = start(&[]);
    produce(&server, 0..2);
    let mut anne = Member::join(&server, "g", "anne");
    let mut request = anne.request(&[]);
    let strange = |partition_index| ShareFetchPartition { partition_index, ..Default::default() };
    // As many as fit into a small frame: they cost what their answers do.
    request.topics[0].partitions.extend((1..100_000).map(strange));
    let other = ShareFetchTopic { topic_id: Uuid([9; 16]), partitions: vec![strange(0)] };
    request.topics.push(other);
    let answer = anne.client.call::<ShareFetch>(2, &request);
    let topics = &answer.responses;
    assert_eq!((topics.len(), topics[0].partitions.len(), topics[1].partitions.len()), (2, 100_000, 1));
    assert_eq!(topics[0].partitions[0].acquired_records.len(), 1);
    let of = |partition: &ShareFetchPartitionResponse| named(partition.error_code);
    assert!(topics[0].partitions[1..].iter().all(|told| of(told) == "UNKNOWN_TOPIC_OR_PARTITION"));
    assert_eq!(of(&topics[1].partitions[0]), "UNKNOWN_TOPIC_ID");
    // They were told once, and the next fetch can wait for what there is.
    assert_eq!(anne.ask(&[]).responses, []);
    produce(&server, 2..3);
    assert_eq!(anne.fetch(), [(2, 2, 1)]);
    anne.client.delete_topic("t");
    assert_eq!(named(anne.ask(&[]).responses[0].partitions[0].error_code), "UNKNOWN_TOPIC_ID");
    assert_eq!(anne.ask(&[]).responses, []);
}

#[test]
fn who_fetches_while_no_coordinator_answers_waits_and_gets_no_error() {
    let server = start(&[]);
    produce(&server, 0..2);
    // Nobody has joined a share group yet: there is nowhere to keep what was lent.
    let mut client = server.client();
    let topic_id = client.describe("t").topic_id;
    let (name, max_wait_ms) = ("anne".to_owned(), 300);
    let mut anne =
        Member { client, group: "g", name, topic_id, epoch: 0, max_records: 500, max_wait_ms, mode: 0 };
    let began = Instant::now();
    assert_eq!(anne.ask(&[]).responses, []);
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[test]
fn a_group_without_a_start_begins_behind_the_last_record_and_an_unknown_one_not_at_all() {
    let server = start(&[]);
    produce(&server, 0..5);
    let mut anne = Member::join(&server, "g", "anne");
    assert_eq!(config(&mut anne.client, "g", "share.auto.offset.reset", "latest"), "NONE");
    assert_eq!(anne.fetch(), []);
    assert_eq!(progress(&server, "g"), Some((5, 0)));
    produce(&server, 5..6);
    assert_eq!(anne.fetch(), [(5, 5, 1)]);
    anne.group = "nobody";
    anne.epoch = 0;
    let answer = anne.ask(&[]);
    assert_eq!(named(answer.responses[0].partitions[0].error_code), "UNKNOWN_TOPIC_OR_PARTITION");
    (anne.group, anne.topic_id, anne.epoch) = ("g", Uuid([9; 16]), 0);
    let answer = anne.ask(&[]);
    assert_eq!(named(answer.responses[0].partitions[0].error_code), "UNKNOWN_TOPIC_ID");
}

#[test]
fn members_are_told_apart_from_strangers_and_from_other_kinds_of_groups() {
    let server = start(&["--set", "group.share.max.size=2"]);
    let mut client = server.client();
    let _anne = Member::join(&server, "g", "anne");
    let mut error =
        |group: &str, member: &str, epoch: i32| named(beat(&mut client, group, member, epoch).error_code);
    assert_eq!(error("g", "anne", 1), "NONE");
    assert_eq!(error("g", "anne", 7), "FENCED_MEMBER_EPOCH");
    assert_eq!(error("g", "bert", 1), "UNKNOWN_MEMBER_ID");
    assert_eq!(error("unknown", "bert", 1), "GROUP_ID_NOT_FOUND");
    assert_eq!(error("g", "bert", -2), "INVALID_REQUEST");
    assert_eq!(error("g", "", 0), "INVALID_REQUEST");
    assert_eq!(error("g", "bert", 0), "NONE");
    assert_eq!(error("g", "carl", 0), "GROUP_MAX_SIZE_REACHED");
    let protocol = JoinGroupProtocol { name: "range".into(), ..Default::default() };
    let join = JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 10_000,
        protocol_type: "consumer".into(),
        protocols: vec![protocol.clone()],
        ..Default::default()
    };
    assert_eq!(named(client.call::<JoinGroup>(3, &join).error_code), "INCONSISTENT_GROUP_PROTOCOL");
    let joined = client.call::<JoinGroup>(3, &JoinGroupRequest { group_id: "classic".into(), ..join });
    assert_eq!(named(joined.error_code), "NONE");
    assert_eq!(named(beat(&mut client, "classic", "anne", 0).error_code), "GROUP_ID_NOT_FOUND");
    let request = ListGroupsRequest { types_filter: vec!["share".into()], ..Default::default() };
    let listed = client.call::<ListGroups>(5, &request);
    let rows: Vec<_> = listed.groups.iter().map(|group| (&*group.group_id, &*group.group_state)).collect();
    assert_eq!(rows, [("g", "Stable")]);
    let request = DeleteGroupsRequest { groups_names: vec!["g".into()] };
    assert_eq!(named(client.call::<DeleteGroups>(2, &request).results[0].error_code), "NON_EMPTY_GROUP");
}

#[test]
fn configs_of_groups_are_checked_and_kept() {
    let mut server = start(&[]);
    let mut client = server.client();
    let mut set = |name: &str, value: &str| config(&mut client, "g", name, value);
    assert_eq!(set("share.delivery.count.limit", "11"), "INVALID_CONFIG");
    assert_eq!(set("share.record.lock.duration.ms", "1000"), "INVALID_CONFIG");
    assert_eq!(set("share.auto.offset.reset", "middle"), "INVALID_CONFIG");
    assert_eq!(set("share.unheard.of", "1"), "INVALID_CONFIG");
    assert_eq!(set("share.record.lock.duration.ms", "16000"), "NONE");
    assert_eq!(config(&mut client, "", "share.delivery.count.limit", "3"), "INVALID_REQUEST");
    server.restart();
    produce(&server, 0..1);
    let answer = Member::join(&server, "g", "anne").ask(&[]);
    assert_eq!((answer.acquisition_lock_timeout_ms, acquired(&answer)), (16_000, vec![(0, 0, 1)]));
}

#[test]
fn an_empty_group_can_be_set_to_any_offset_of_the_log() {
    let server = start(&[]);
    produce(&server, 0..10);
    let mut anne = Member::join(&server, "g", "anne");
    assert_eq!(anne.fetch(), [(0, 9, 1)]);
    let mut client = server.client();
    let mut alter = |group: &str, start_offset: i64| {
        let partition = AlterShareGroupOffsetsPartition { partition_index: 0, start_offset };
        let topic = AlterShareGroupOffsetsTopic { topic_name: "t".into(), partitions: vec![partition] };
        let request = AlterShareGroupOffsetsRequest { group_id: group.into(), topics: vec![topic] };
        named(client.call::<AlterShareGroupOffsets>(0, &request).error_code)
    };
    assert_eq!(alter("g", 4), "NON_EMPTY_GROUP");
    assert_eq!(alter("nobody", 4), "GROUP_ID_NOT_FOUND");
    assert_eq!(beat(&mut anne.client, "g", "anne", -1).member_epoch, -1);
    assert_eq!(alter("g", 4), "NONE");
    assert_eq!(progress(&server, "g"), Some((4, 6)));
    assert_eq!(anne.acknowledge(4, 4, ACCEPT), "INVALID_RECORD_STATE", "what was lent before counts no more");
    assert_eq!(alter("g", 1_000_000), "NONE");
    assert_eq!(progress(&server, "g"), Some((10, 0)));
}

#[test]
fn after_kills_nothing_acknowledged_comes_again_and_counts_go_on() {
    let mut server = start(&["--flush", "commit"]);
    produce(&server, 0..9);
    let mut begins = 0;
    for kill in 1..=4 {
        let mut anne = Member::join(&server, "g", "anne");
        // At its fourth delivery it comes in pieces.
        anne.max_records = 500;
        let lent = anne.fetch();
        assert_eq!(lent[0].0, begins, "{lent:?}");
        assert_eq!(lent[0].2, kill, "{lent:?}");
        assert_eq!(anne.acknowledge(begins, begins, ACCEPT), "NONE");
        begins += 1;
        server.restart();
        assert_eq!(progress(&server, "g"), Some((begins, 9 - begins)));
    }
    let mut anne = Member::join(&server, "g", "anne");
    // Delivered four times or three: the last attempt of each is its own.
    let mut seen = Vec::new();
    while progress(&server, "g") != Some((9, 0)) {
        for (first, last, deliveries) in anne.fetch() {
            seen.push((first, deliveries));
            assert_eq!(anne.acknowledge(first, last, RELEASE), "NONE");
        }
    }
    let mut archived: Vec<i64> =
        seen.iter().filter(|(_, deliveries)| *deliveries == 5).map(|(first, _)| *first).collect();
    archived.sort_unstable();
    assert_eq!(archived, [4, 5, 6, 7, 8]);
    // The group, and that it is done, outlive the next kill as well.
    drop(anne);
    server.restart();
    assert_eq!(progress(&server, "g"), Some((9, 0)));
}

#[test]
fn a_deleted_topic_takes_what_groups_had_of_it_along() {
    let server = start(&[]);
    produce(&server, 0..3);
    let mut anne = Member::join(&server, "g", "anne");
    assert_eq!(anne.fetch(), [(0, 2, 1)]);
    let mut client = server.client();
    client.delete_topic("t");
    assert_eq!(progress(&server, "g"), None);
    client.create_topic("t", 1, &[]);
    produce(&server, 0..2);
    let told = beat(&mut anne.client, "g", "anne", 1);
    let topic = told.assignment.unwrap().topic_partitions.remove(0);
    assert_ne!(topic.topic_id, anne.topic_id);
    (anne.topic_id, anne.epoch) = (topic.topic_id, 0);
    assert_eq!(anne.fetch(), [(0, 1, 1)]);
}

#[test]
fn a_log_that_has_lost_its_end_is_read_again_from_there() {
    let mut server = start(&["--flush", "os"]);
    produce(&server, 0..4);
    produce(&server, 4..10);
    let mut anne = Member::join(&server, "g", "anne");
    assert_eq!(anne.fetch(), [(0, 9, 1)]);
    assert_eq!(anne.acknowledge(0, 8, ACCEPT), "NONE");
    drop(anne);
    let mut bert = Member::join(&server, "h", "bert");
    (bert.mode, bert.max_records) = (1, 4);
    assert_eq!(bert.fetch(), [(0, 3, 1)]);
    assert_eq!(bert.acknowledge(1, 2, ACCEPT), "NONE");
    drop(bert);
    server.kill();
    // As a machine may leave it that has died: the second batch is torn.
    let folder = server.data().join("t-0");
    for file in std::fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len() - 3).unwrap();
        }
    }
    server.restart();
    produce(&server, 0..20);
    let mut anne = Member::join(&server, "g", "anne");
    assert_eq!(anne.fetch(), [(4, 23, 1)]);
    assert_eq!(anne.acknowledge(4, 23, ACCEPT), "NONE");
    assert_eq!(progress(&server, "g"), Some((24, 0)));
    // Who had not come as far as the cut has lost nothing by it, now and once it is past it.
    let mut bert = Member::join(&server, "h", "bert");
    assert_eq!(bert.fetch(), [(0, 0, 2), (3, 3, 2), (4, 23, 1)]);
    assert_eq!(bert.acknowledge(3, 23, ACCEPT), "NONE");
    drop(bert);
    server.restart();
    assert_eq!(Member::join(&server, "h", "bert").fetch(), [(0, 0, 3)]);
}

#[test]
fn verdicts_on_what_nobody_was_lent_say_whether_it_is_there() {
    let server = start(&["--topic", "u:1"]);
    produce(&server, 0..3);
    let mut anne = Member::join(&server, "g", "anne");
    assert_eq!(anne.fetch(), [(0, 2, 1)]);
    let other = server.client().describe("u").topic_id;
    let said = |topic_id: Uuid, index: i32| ShareAcknowledgeTopic {
        topic_id,
        partitions: vec![ShareAcknowledgePartition {
            partition_index: index,
            acknowledgement_batches: vec![ShareAcknowledgements {
                first_offset: 0,
                last_offset: 0,
                acknowledge_types: vec![ACCEPT],
            }],
        }],
    };
    let request = ShareAcknowledgeRequest {
        group_id: Some("g".into()),
        member_id: Some("anne".into()),
        share_session_epoch: anne.epoch,
        topics: vec![said(anne.topic_id, 0), said(anne.topic_id, 1), said(other, 0), said(Uuid([9; 16]), 0)],
        ..Default::default()
    };
    let answer = anne.client.call::<ShareAcknowledge>(2, &request);
    let errors: Vec<_> = answer
        .responses
        .iter()
        .flat_map(|topic| &topic.partitions)
        .map(|said| named(said.error_code))
        .collect();
    assert_eq!(
        errors,
        ["NONE", "UNKNOWN_TOPIC_OR_PARTITION", "UNKNOWN_TOPIC_OR_PARTITION", "UNKNOWN_TOPIC_ID"]
    );
}

#[test]
fn ids_that_no_record_can_hold_are_refused_at_every_door() {
    let server = start(&[]);
    let mut client = server.client();
    let (long_member, long_group) = ("m".repeat(37), "g".repeat(40_000));
    assert_eq!(named(beat(&mut client, "g", &long_member, 0).error_code), "INVALID_REQUEST");
    let mut anne = Member::join(&server, "g", &long_member[..36]);
    for (group, member) in [(long_group.as_str(), "anne"), ("g", long_member.as_str())] {
        anne.epoch = 0;
        let mut request = anne.request(&[]);
        (request.group_id, request.member_id) = (Some(Str::from(group)), Some(Str::from(member)));
        assert_eq!(named(anne.client.call::<ShareFetch>(2, &request).error_code), "INVALID_REQUEST");
    }
    anne.epoch = 0;
    assert_eq!(anne.fetch(), []);
}

#[test]
fn a_group_that_is_deleted_leaves_nothing_to_the_next_of_its_name_and_one_that_is_not_loses_nothing() {
    let mut server = start(&[]);
    let mut client = server.client();
    let mut delete = |group: &str| {
        let request = DeleteGroupsRequest { groups_names: vec![group.into()] };
        named(client.call::<DeleteGroups>(2, &request).results[0].error_code)
    };
    produce(&server, 0..4);
    let mut anne = Member::join(&server, "g", "anne");
    assert_eq!(anne.fetch(), [(0, 3, 1)]);
    assert_eq!(anne.acknowledge(0, 1, ACCEPT), "NONE");
    assert_eq!(delete("g"), "NON_EMPTY_GROUP");
    assert_eq!(delete("nobody"), "GROUP_ID_NOT_FOUND");
    assert_eq!(progress(&server, "g"), Some((2, 2)));
    assert_eq!(anne.acknowledge(2, 2, ACCEPT), "NONE");
    assert_eq!(beat(&mut anne.client, "g", "anne", -1).member_epoch, -1);
    assert_eq!(delete("g"), "NONE");
    drop(anne);
    server.restart();
    let mut anne = Member::join(&server, "g", "anne");
    assert_eq!(progress(&server, "g"), None);
    assert_eq!(anne.fetch(), [(0, 3, 1)]);
}

#[test]
fn what_a_group_was_never_lent_has_no_offset_yet_and_what_is_not_there_is_an_error() {
    let server = start(&["--topic", "u:1"]);
    produce(&server, 0..3);
    let mut anne = Member::join(&server, "g", "anne");
    assert_eq!(anne.fetch(), [(0, 2, 1)]);
    let wanted = |topic: &str, partitions: &[i32]| DescribeShareGroupOffsetsTopic {
        topic_name: topic.into(),
        partitions: partitions.to_vec(),
    };
    let group = DescribeShareGroupOffsetsGroup {
        group_id: "g".into(),
        topics: Some(vec![wanted("t", &[0, 1]), wanted("u", &[0])]),
    };
    let request = DescribeShareGroupOffsetsRequest { groups: vec![group] };
    let answer = server.client().call::<DescribeShareGroupOffsets>(1, &request);
    let partitions = answer.groups[0].topics.iter().flat_map(|topic| &topic.partitions);
    let told: Vec<_> =
        partitions.map(|partition| (partition.start_offset, named(partition.error_code))).collect();
    assert_eq!(told, [(0, "NONE"), (-1, "UNKNOWN_TOPIC_OR_PARTITION"), (-1, "NONE")]);
}

#[test]
fn a_group_of_a_queues_name_goes_by_the_queues_settings() {
    let queue = "t:visibility.timeout.ms=45000:max.receive.count=2:dead.letter.queue=dead";
    let server = Server::start(&["--queue", queue, "--queue", "dead"]);
    type Headers<'a> = &'a [(&'a str, Option<&'a [u8]>)];
    let batch = |records: &[(&str, Headers<'_>)]| {
        let mut batch = BatchBuilder::new();
        records
            .iter()
            .for_each(|(value, headers)| batch.push(now_ms(), None, Some(value.as_bytes()), headers));
        batch.build()
    };
    let (late, first) = ([("ottla.delay-ms", Some(&b"60000"[..]))], [("ottla.delay-ms", Some(&b"0"[..]))]);
    let sent = batch(&[("a", &[]), ("late", &late), ("b", &first)]);
    assert_eq!(named(server.client().produce("t", 0, sent).error_code), "NONE");
    assert_eq!(named(server.client().produce("t", 0, batch(&[("c", &[])])).error_code), "NONE");
    let mut anne = Member::join(&server, "t", "anne");
    let answer = anne.ask(&[]);
    assert_eq!(acquired(&answer), [(0, 0, 1), (2, 3, 1)], "all but the late one");
    assert_eq!(answer.acquisition_lock_timeout_ms, 45_000);
    let Records::Bytes(mut batches) = only(&answer).unwrap().records.clone() else { panic!("{answer:?}") };
    let bases: Vec<i64> =
        std::iter::from_fn(|| split_batch(&mut batches)).map(|(header, _)| header.base_offset).collect();
    assert_eq!(bases, [0, 3], "each batch once");
    assert_eq!(anne.acknowledge(0, 0, REJECT), "NONE");
    assert_eq!(anne.acknowledge(2, 2, RELEASE), "NONE");
    assert_eq!(anne.acknowledge(3, 3, ACCEPT), "NONE");
    assert_eq!(anne.fetch(), [(2, 2, 2)]);
    assert_eq!(anne.acknowledge(2, 2, RELEASE), "NONE");
    assert_eq!(anne.fetch(), [], "it is dead now");
    let letters = eventually("both dead letters are there", || {
        let letters = server.client().read_all("dead", 0);
        (letters.len() == 2).then_some(letters)
    });
    assert_eq!(values_of(&letters), ["a", "b"]);
    // Who comes in another group's name sees a topic like any other.
    assert_eq!(Member::join(&server, "h", "anne").fetch(), [(0, 3, 1)]);
}

/// What a letter says in its headers, in order.
fn headers_of(letter: &ottla::record::Record) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let header = |header: &ottla::record::records::Header| {
        (text(&header.key), text(header.value.as_deref().unwrap_or(b"null")))
    };
    letter.headers.iter().map(header).collect()
}

fn offset_of(letter: &ottla::record::Record) -> i64 {
    headers_of(letter).iter().find(|(name, _)| name == "__dlq.errors.offset").unwrap().1.parse().unwrap()
}

#[test]
fn what_dies_in_a_group_is_told_of_where_its_config_says_also_without_members() {
    let server = start(&SHORT_LEASES);
    let mut client = server.client();
    client.create_topic("dlq.t", 1, &[("errors.deadletterqueue.group.enable", "true")]);
    assert_eq!(config(&mut client, "g", "errors.deadletterqueue.topic.name", "__letters"), "INVALID_CONFIG");
    for (name, value) in [
        ("errors.deadletterqueue.topic.name", "dlq.t"),
        ("errors.deadletterqueue.copy.record.enable", "true"),
        ("share.delivery.count.limit", "2"),
    ] {
        assert_eq!(config(&mut client, "g", name, value), "NONE");
    }
    let batch = BatchBuilder::new()
        .record_with_headers(now_ms(), Some(b"key"), Some(b"0"), &[("own", Some(b"1")), ("none", None)])
        .record(now_ms(), None, None);
    assert_eq!(client.produce("t", 0, batch.build()).error_code, 0);
    let mut anne = Member::join(&server, "g", "anne");
    assert_eq!(anne.fetch(), [(0, 1, 1)]);
    assert_eq!(anne.acknowledge(0, 0, REJECT), "NONE");
    assert_eq!(anne.acknowledge(1, 1, RELEASE), "NONE");
    // Nobody does anything about the second: its last lease ends by itself.
    assert_eq!(anne.fetch(), [(1, 1, 2)]);
    let letters = eventually("two letters", || {
        let letters = server.client().read_all("dlq.t", 0);
        (letters.len() == 2).then_some(letters)
    });
    let told = |offset: &str, deliveries: &str, why: &str, own: &[(&str, &str)]| {
        let known = [
            ("__dlq.errors.topic", "t"),
            ("__dlq.errors.partition", "0"),
            ("__dlq.errors.offset", offset),
            ("__dlq.errors.group", "g"),
            ("__dlq.errors.delivery.count", deliveries),
            ("__dlq.errors.message", why),
        ];
        let all = known.iter().chain(own);
        all.map(|(name, value)| (name.to_string(), value.to_string())).collect::<Vec<_>>()
    };
    let own = [("own", "1"), ("none", "null")];
    assert_eq!(headers_of(&letters[0]), told("0", "1", "Offset rejected by client.", &own));
    assert_eq!(
        (letters[0].key.as_deref(), letters[0].value.as_deref()),
        (Some(&b"key"[..]), Some(&b"0"[..]))
    );
    let worn_out = "Offset delivery count exceeded the threshold.";
    assert_eq!(headers_of(&letters[1]), told("1", "2", worn_out, &[]));
    assert_eq!((&letters[1].key, &letters[1].value), (&None, &None));
    eventually("all is done", || (progress(&server, "g") == Some((2, 0))).then_some(()));
}

#[test]
fn a_letter_without_a_place_is_dropped_and_one_may_be_made_for_it() {
    let server = start(&[
        "--set",
        "errors.deadletterqueue.auto.create.topics.enable=true",
        "--set",
        "errors.deadletterqueue.topic.name.prefix=dead-",
    ]);
    produce(&server, 0..3);
    let mut client = server.client();
    let mut anne = Member::join(&server, "g", "anne");
    client.create_topic("dead-closed", 1, &[]);
    // Of a name that is not for letters, not open to them, and made when the first is there.
    for (offset, place) in ["other", "dead-closed", "dead-made"].into_iter().enumerate() {
        assert_eq!(config(&mut client, "g", "errors.deadletterqueue.topic.name", place), "NONE");
        if offset == 0 {
            assert_eq!(anne.fetch(), [(0, 2, 1)]);
        }
        assert_eq!(anne.acknowledge(offset as i64, offset as i64, REJECT), "NONE");
        eventually("the record is done", || {
            progress(&server, "g").is_some_and(|(start, _)| start == offset as i64 + 1).then_some(())
        });
    }
    assert_eq!(client.describe("other").error_code, 3, "unknown still");
    assert!(client.read_all("dead-closed", 0).is_empty());
    let letters = client.read_all("dead-made", 0);
    assert_eq!(letters.iter().map(offset_of).collect::<Vec<_>>(), [2]);
    assert_eq!((&letters[0].key, &letters[0].value), (&None, &None), "told of, not copied");
    assert!(server.log().contains("dead letters are not written"), "{}", server.log());
}

#[test]
fn a_letter_larger_than_its_topic_takes_still_tells_of_its_record() {
    let server = start(&[]);
    let mut client = server.client();
    let small = [("errors.deadletterqueue.group.enable", "true"), ("max.message.bytes", "1000")];
    client.create_topic("dlq.t", 1, &small);
    assert_eq!(config(&mut client, "g", "errors.deadletterqueue.topic.name", "dlq.t"), "NONE");
    assert_eq!(config(&mut client, "g", "errors.deadletterqueue.copy.record.enable", "true"), "NONE");
    client.append("t", ["x".repeat(5_000), "y".repeat(500), "z".repeat(500)]);
    let mut anne = Member::join(&server, "g", "anne");
    assert_eq!(anne.fetch(), [(0, 2, 1)]);
    assert_eq!(anne.acknowledge(0, 2, REJECT), "NONE");
    let letters = eventually("three letters", || {
        let letters = server.client().read_all("dlq.t", 0);
        (letters.len() == 3).then_some(letters)
    });
    let bytes: Vec<_> = letters.iter().map(|letter| letter.value.as_ref().map(|value| value.len())).collect();
    assert_eq!(bytes, [None, Some(500), Some(500)]);
}

#[test]
fn after_kills_every_rejected_record_has_its_letter() {
    const RECORDS: i64 = 400;
    let mut server = start(&[]);
    let mut client = server.client();
    client.create_topic("dlq.t", 1, &[("errors.deadletterqueue.group.enable", "true")]);
    assert_eq!(config(&mut client, "g", "errors.deadletterqueue.topic.name", "dlq.t"), "NONE");
    produce(&server, 0..RECORDS as i32);
    let mut rejected = 0;
    while rejected < RECORDS {
        let mut anne = Member::join(&server, "g", "anne");
        let (first, last, _) = anne.fetch()[0];
        assert_eq!(first, rejected, "what was rejected does not come again");
        let last = last.min(first + 99);
        assert_eq!(anne.acknowledge(first, last, REJECT), "NONE");
        rejected = last + 1;
        // In the midst of writing the letters, more often than not.
        server.restart();
    }
    let mut letters = eventually("a letter for each", || {
        let letters: Vec<_> = server.client().read_all("dlq.t", 0).iter().map(offset_of).collect();
        let all = letters.iter().collect::<std::collections::BTreeSet<_>>().len() == RECORDS as usize;
        all.then_some(letters)
    });
    eventually("all is done", || (progress(&server, "g") == Some((RECORDS, 0))).then_some(()));
    letters.sort_unstable();
    letters.dedup();
    assert_eq!(letters, (0..RECORDS).collect::<Vec<_>>());
}

#[test]
fn a_new_group_has_its_first_record_after_one_heartbeat() {
    let server = start(&[]);
    produce(&server, 0..1);
    // The answer to its first heartbeat has what is assigned to it.
    assert_eq!(Member::join(&server, "g", "anne").fetch(), [(0, 0, 1)]);
}

#[test]
fn a_group_of_the_name_of_a_queue_that_reads_the_topic_goes_by_the_queues_settings() {
    let queue = "billing:source=t:visibility.timeout.ms=45000:max.receive.count=1:dead.letter.queue=dead:filter=!late";
    let server = Server::start(&["--topic", "t:1", "--queue", queue, "--queue", "dead"]);
    let mut batch = BatchBuilder::new();
    for headers in [&[][..], &[("late", None)], &[]] {
        batch.push(now_ms(), None, Some(b"a"), headers);
    }
    assert_eq!(named(server.client().produce("t", 0, batch.build()).error_code), "NONE");
    let mut anne = Member::join(&server, "billing", "anne");
    let answer = anne.ask(&[]);
    assert_eq!(acquired(&answer), [(0, 0, 1), (2, 2, 1)], "all but what the filter keeps out");
    assert_eq!(answer.acquisition_lock_timeout_ms, 45_000);
    assert_eq!(anne.acknowledge(0, 0, ACCEPT), "NONE");
    assert_eq!(anne.acknowledge(2, 2, REJECT), "NONE");
    eventually("the dead letter is there", || (server.client().read_all("dead", 0).len() == 1).then_some(()));
    // A group of another name takes all of it.
    assert_eq!(Member::join(&server, "h", "anne").fetch(), [(0, 2, 1)]);
}

#[test]
fn a_deleted_queue_leaves_a_share_group_of_its_name_what_that_has_of_other_topics() {
    let mut server = Server::start(&["--topic", "t:1", "--topic", "u:1", "--queue", "g:source=u"]);
    produce(&server, 0..3);
    server.client().append("u", 0..2);
    // The queue never reads t, and no more reads u when it goes.
    for (topic, last) in [("t", 2), ("u", 1)] {
        let mut member = Member::join_for(&server, "g", topic, topic);
        assert_eq!(member.fetch(), [(0, last, 1)]);
        assert_eq!(member.acknowledge(0, 0, ACCEPT), "NONE");
    }
    running::stock::configure(&server, "g", &[("ottla.queue.enable", "true")]);
    server.restart();
    assert_eq!(starts(&server, "g"), [("t".to_owned(), 1), ("u".to_owned(), 1)]);
    server.client().delete_topic("g");
    assert_eq!(starts(&server, "g"), [("t".to_owned(), 1)]);
}

#[test]
fn what_a_queue_leaves_dead_is_told_of_once_it_is_turned_off() {
    let server = Server::start(&["--queue", "t:dead.letter.queue=nowhere"]);
    let mut client = server.client();
    client.create_topic("dlq.t", 1, &[("errors.deadletterqueue.group.enable", "true")]);
    assert_eq!(config(&mut client, "t", "errors.deadletterqueue.topic.name", "dlq.t"), "NONE");
    produce(&server, 0..3);
    let mut anne = Member::join(&server, "t", "anne");
    assert_eq!(anne.fetch(), [(0, 2, 1)]);
    assert_eq!(anne.acknowledge(0, 1, REJECT), "NONE");
    drop(anne);
    // Its own mover finds no queue to move them to.
    eventually("the mover has tried", || {
        server.log().contains("dead letters are kept until they can be moved").then_some(())
    });
    assert!(client.read_all("dlq.t", 0).is_empty());
    running::stock::configure(&server, "t", &[]);
    let letters = eventually("two letters", || {
        let letters = server.client().read_all("dlq.t", 0);
        (letters.len() == 2).then_some(letters)
    });
    assert_eq!(letters.iter().map(offset_of).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn what_dies_again_since_a_queues_group_was_set_back_is_told_of_again() {
    let mut server = Server::start(&["--queue", "t:dead.letter.queue=dead", "--queue", "dead"]);
    let letters_are = |server: &Server, count: usize| {
        let letters = || values_of(&server.client().read_all("dead", 0));
        eventually("the letters are there", || Some(letters()).filter(|letters| letters.len() == count))
    };
    produce(&server, 0..3);
    let mut anne = Member::join(&server, "t", "anne");
    assert_eq!(anne.fetch(), [(0, 2, 1)]);
    assert_eq!(anne.acknowledge(1, 1, REJECT), "NONE");
    assert_eq!(letters_are(&server, 1), ["1"]);
    server.kill();
    server.restart();
    let mut anne = Member::join(&server, "t", "anne");
    assert_eq!(anne.fetch(), [(0, 0, 2), (2, 2, 2)]);
    assert_eq!(anne.acknowledge(2, 2, REJECT), "NONE");
    assert_eq!(letters_are(&server, 2), ["1", "2"]);
    assert_eq!(beat(&mut anne.client, "t", "anne", -1).member_epoch, -1);
    let partition = AlterShareGroupOffsetsPartition { partition_index: 0, start_offset: 0 };
    let topic = AlterShareGroupOffsetsTopic { topic_name: "t".into(), partitions: vec![partition] };
    let request = AlterShareGroupOffsetsRequest { group_id: "t".into(), topics: vec![topic] };
    assert_eq!(server.client().call::<AlterShareGroupOffsets>(0, &request).error_code, 0);
    let mut anne = Member::join(&server, "t", "anne");
    assert_eq!(anne.fetch(), [(0, 2, 1)]);
    assert_eq!(anne.acknowledge(1, 1, REJECT), "NONE");
    assert_eq!(letters_are(&server, 3), ["1", "2", "1"]);
}

#[test]
fn what_a_queue_leaves_dead_waits_for_it_while_a_share_group_goes_on() {
    let mut server = Server::start(&[]);
    let queue = [("ottla.queue.enable", "true"), ("ottla.queue.dead.letter.queue", "dead")];
    server.client().create_topic("t", 1, &queue);
    produce(&server, 0..3);
    let mut anne = Member::join(&server, "t", "anne");
    assert_eq!(anne.fetch(), [(0, 2, 1)]);
    assert_eq!(anne.acknowledge(0, 1, REJECT), "NONE");
    assert_eq!(anne.acknowledge(2, 2, ACCEPT), "NONE");
    drop(anne);
    // There is no queue to move them to.
    running::stock::configure(&server, "t", &[]);
    produce(&server, 3..5);
    let mut bert = Member::join(&server, "t", "bert");
    assert_eq!(bert.fetch(), [(3, 4, 1)]);
    assert_eq!(bert.acknowledge(3, 4, ACCEPT), "NONE");
    drop(bert);
    server.kill();
    server.restart();
    assert_eq!(progress(&server, "t").unwrap().0, 0, "the dead are not done");
    let mut client = server.client();
    client.create_topic("dead", 1, &queue[..1]);
    running::stock::configure(&server, "t", &queue);
    let letters = eventually("two letters, though nobody receives", || {
        let letters = server.client().read_all("dead", 0);
        (letters.len() == 2).then_some(letters)
    });
    assert_eq!(values_of(&letters), ["0", "1"]);
    eventually("all is done", || (progress(&server, "t").unwrap().0 == 5).then_some(()));
}

#[test]
fn a_group_whose_queue_is_turned_off_goes_by_its_own_settings_at_once() {
    let server = Server::start(&["--queue", "t:visibility.timeout.ms=45000:fifo=true:delay.ms=3600000"]);
    let mut batch = BatchBuilder::new();
    (0..3).for_each(|_| batch.push(now_ms(), Some(b"key"), Some(b"a"), &[]));
    assert_eq!(named(server.client().produce("t", 0, batch.build()).error_code), "NONE");
    let mut anne = Member::join(&server, "t", "anne");
    assert_eq!(acquired(&anne.ask(&[])), [], "all of it is delayed");
    running::stock::configure(&server, "t", &[]);
    let answer = anne.ask(&[]);
    assert_eq!((acquired(&answer), answer.acquisition_lock_timeout_ms), (vec![(0, 2, 1)], 30_000));
    assert_eq!(anne.acknowledge(0, 0, ACCEPT), "NONE");
    assert_eq!(anne.acknowledge(1, 2, RELEASE), "NONE");
    // And back.
    running::stock::configure(
        &server,
        "t",
        &[("ottla.queue.enable", "true"), ("ottla.queue.delay.ms", "3600000")],
    );
    let answer = anne.ask(&[]);
    assert_eq!(acquired(&answer), [(1, 2, 2)], "what was delivered before is not delayed again");
}
