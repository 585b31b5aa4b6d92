//! The codec against bytes and values made by Apache Kafka 4.4.0's own message classes (`compat/golden` makes them), and
//! against the `kafka-protocol` crate on mutations of those bytes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable};
use ottla::coordinator::records::{
    GroupMetadataKey, GroupMetadataValue, OffsetCommitKey, OffsetCommitValue, ShareGroupAssignmentValue,
    ShareGroupMemberValue, ShareGroupValue, ShareMemberKey,
};
use ottla::coordinator::share_records::{SharePartitionKey, ShareSnapshot, ShareUpdate};
use ottla::group::consumer_protocol::{Assignment, Subscription};
use ottla::protocol::api::{Api, decode};
use ottla::protocol::header::{RequestHeader, encode_response_header};
use ottla::protocol::messages::*;
use ottla::protocol::wire::{Chunks, Encode, Wire};
use proptest::prelude::*;
use serde_json::Value;

struct Golden {
    /// `request`, `response`, or which record.
    kind: String,
    version: i16,
    shape: String,
    bytes: Bytes,
    json: Value,
}

fn golden(file: &str) -> Vec<Golden> {
    let path = format!("{}/tests/golden/{file}.txt", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.lines()
        .map(|line| {
            let mut words = line.splitn(5, ' ');
            let mut word = || words.next().expect("five words a line");
            Golden {
                kind: word().to_owned(),
                version: word()[1..].parse().expect("a version"),
                shape: word().to_owned(),
                bytes: unhex(word()),
                json: serde_json::from_str(word()).expect("JSON"),
            }
        })
        .collect()
}

fn unhex(text: &str) -> Bytes {
    let text = text.trim_matches('-'); // a body of no bytes is written as a dash
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

fn encoded<M: Wire>(message: &M, cx: Encode) -> Bytes {
    let mut out = Chunks::default();
    message.encode(&mut out, cx);
    let bytes = out.concat().expect("no file ranges here");
    assert_eq!(bytes.len(), message.size(cx), "size() counts what encode() writes");
    bytes
}

/// Every scalar of Kafka's JSON stands in our message under the same name.
fn assert_same_values(json: &Value, ours: &str, context: &str) {
    match json {
        Value::Array(elements) => {
            elements.iter().for_each(|element| assert_same_values(element, ours, context))
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = snake(name);
                let text = match value {
                    Value::Object(_) => {
                        assert_same_values(value, ours, context);
                        continue;
                    }
                    Value::Array(elements) if elements.iter().any(Value::is_object) => {
                        assert_same_values(value, ours, context);
                        continue;
                    }
                    Value::Array(elements) => {
                        format!("[{}]", elements.iter().map(Value::to_string).collect::<Vec<_>>().join(", "))
                    }
                    // Bytes and records: Kafka's JSON tells only their size; the round trip compares them.
                    _ if name.starts_with("records") => continue,
                    Value::Null => "None".to_owned(),
                    scalar => scalar.to_string(),
                };
                let bare = text.trim_matches('"'); // ids print without quotes
                let bytes = BASE64.decode(bare).ok().and_then(|bytes| String::from_utf8(bytes).ok());
                let found = [
                    format!("{name}: b\"{}\"", bytes.clone().unwrap_or_default()),
                    format!("{name}: Some(b\"{}\")", bytes.unwrap_or_default()),
                    format!("{name}: {text}"),
                    format!("{name}: Some({text})"),
                    format!("{name}: {bare},"),
                    format!("{name}: {bare} "),
                ];
                assert!(found.iter().any(|f| ours.contains(f)), "{context}: no `{name}: {text}` in {ours}");
            }
        }
        _ => {}
    }
}

fn snake(camel: &str) -> String {
    let mut out = String::new();
    for c in camel.chars() {
        if c.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

fn check<M: Wire + std::fmt::Debug + PartialEq>(api: &str, golden: &Golden, cx: Encode) {
    let context = format!("{api} {} v{} {}", golden.kind, golden.version, golden.shape);
    let message: M = decode(&golden.bytes, &golden.bytes, cx.version, cx.flexible)
        .unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(encoded(&message, cx), golden.bytes, "{context}: encoded again");
    if golden.shape == "full" {
        assert_same_values(&golden.json, &format!("{message:?}"), &context);
    }
    for end in 0..golden.bytes.len() {
        let cut = golden.bytes.slice(..end);
        // Cut anywhere, a message is an error that names a place; only what ends a message may be missing.
        if let Err(error) = decode::<M>(&cut, &cut, cx.version, cx.flexible) {
            assert!(!error.place.is_empty(), "{context} cut at {end}");
        }
    }
}

macro_rules! apis {
    ($($test:ident $api:ident $request:ident $response:ident;)+) => {$(
        mod $test {
            use super::*;

            #[test]
            fn bytes_and_values_are_kafkas_at_every_version() {
                let all = golden(stringify!($test));
                for version in $api::MIN_VERSION..=$api::MAX_VERSION {
                    for kind in ["request", "response"] {
                        assert!(
                            all.iter().any(|g| {
                                // What has no fields has one shape.
                                let is_bare = g.bytes.len() <= usize::from($api::is_flexible(version));
                                g.version == version && g.kind == kind && (g.shape == "full" || is_bare)
                            }),
                            "no golden bytes of version {version}"
                        );
                    }
                }
                for golden in &all {
                    let cx = $api::encode(golden.version);
                    if golden.kind == "request" {
                        check::<<$api as Api>::Request>($api::NAME, golden, cx);
                    } else {
                        check::<<$api as Api>::Response>($api::NAME, golden, cx);
                    }
                }
            }

            proptest! {
                /// Bytes that we can read, kafka-protocol reads as the same values; and nothing makes us panic.
                #[test]
                fn mutated_bytes_mean_the_same_to_kafka_protocol(
                    pick in any::<prop::sample::Index>(),
                    at in any::<prop::sample::Index>(),
                    to in any::<u8>(),
                ) {
                    let all = golden(stringify!($test));
                    let golden = &all[pick.index(all.len())];
                    let mut bytes = BytesMut::from(&golden.bytes[..]);
                    if !bytes.is_empty() {
                        let at = at.index(bytes.len());
                        bytes[at] = to;
                    }
                    let bytes = bytes.freeze();
                    if golden.kind == "request" {
                        differential!($api, $api::encode(golden.version), bytes, <$api as Api>::Request,
                            kafka_protocol::messages::$request);
                    } else {
                        differential!($api, $api::encode(golden.version), bytes, <$api as Api>::Response,
                            kafka_protocol::messages::$response);
                    }
                }
            }
        }
    )+};
}

macro_rules! differential {
    ($api:ident, $cx:expr, $bytes:expr, $ours:ty, $theirs:ty) => {{
        let cx = $cx;
        let versions = <$theirs as kafka_protocol::protocol::Message>::VERSIONS;
        if let Ok(ours) = decode::<$ours>(&$bytes, &$bytes, cx.version, cx.flexible) {
            let again = encoded(&ours, cx);
            prop_assert_eq!(&decode::<$ours>(&again, &again, cx.version, cx.flexible).unwrap(), &ours);
            if (versions.min..=versions.max).contains(&cx.version)
                && let Ok(theirs) = <$theirs>::decode(&mut again.clone(), cx.version)
            {
                let mut back = BytesMut::new();
                theirs.encode(&mut back, cx.version).unwrap();
                prop_assert_eq!(back.freeze(), again);
            }
        }
    }};
}

apis! {
    produce Produce ProduceRequest ProduceResponse;
    fetch Fetch FetchRequest FetchResponse;
    list_offsets ListOffsets ListOffsetsRequest ListOffsetsResponse;
    metadata Metadata MetadataRequest MetadataResponse;
    api_versions ApiVersions ApiVersionsRequest ApiVersionsResponse;
    create_topics CreateTopics CreateTopicsRequest CreateTopicsResponse;
    delete_topics DeleteTopics DeleteTopicsRequest DeleteTopicsResponse;
    delete_records DeleteRecords DeleteRecordsRequest DeleteRecordsResponse;
    init_producer_id InitProducerId InitProducerIdRequest InitProducerIdResponse;
    offset_for_leader_epoch OffsetForLeaderEpoch OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse;
    describe_configs DescribeConfigs DescribeConfigsRequest DescribeConfigsResponse;
    alter_configs AlterConfigs AlterConfigsRequest AlterConfigsResponse;
    create_partitions CreatePartitions CreatePartitionsRequest CreatePartitionsResponse;
    incremental_alter_configs IncrementalAlterConfigs IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse;
    describe_cluster DescribeCluster DescribeClusterRequest DescribeClusterResponse;
    delete_groups DeleteGroups DeleteGroupsRequest DeleteGroupsResponse;
    describe_groups DescribeGroups DescribeGroupsRequest DescribeGroupsResponse;
    find_coordinator FindCoordinator FindCoordinatorRequest FindCoordinatorResponse;
    heartbeat Heartbeat HeartbeatRequest HeartbeatResponse;
    join_group JoinGroup JoinGroupRequest JoinGroupResponse;
    leave_group LeaveGroup LeaveGroupRequest LeaveGroupResponse;
    list_groups ListGroups ListGroupsRequest ListGroupsResponse;
    offset_commit OffsetCommit OffsetCommitRequest OffsetCommitResponse;
    offset_delete OffsetDelete OffsetDeleteRequest OffsetDeleteResponse;
    offset_fetch OffsetFetch OffsetFetchRequest OffsetFetchResponse;
    sync_group SyncGroup SyncGroupRequest SyncGroupResponse;
    describe_log_dirs DescribeLogDirs DescribeLogDirsRequest DescribeLogDirsResponse;
    describe_topic_partitions DescribeTopicPartitions DescribeTopicPartitionsRequest DescribeTopicPartitionsResponse;
    list_config_resources ListConfigResources ListConfigResourcesRequest ListConfigResourcesResponse;
    share_group_heartbeat ShareGroupHeartbeat ShareGroupHeartbeatRequest ShareGroupHeartbeatResponse;
    share_group_describe ShareGroupDescribe ShareGroupDescribeRequest ShareGroupDescribeResponse;
    share_fetch ShareFetch ShareFetchRequest ShareFetchResponse;
    share_acknowledge ShareAcknowledge ShareAcknowledgeRequest ShareAcknowledgeResponse;
    describe_share_group_offsets DescribeShareGroupOffsets DescribeShareGroupOffsetsRequest DescribeShareGroupOffsetsResponse;
    alter_share_group_offsets AlterShareGroupOffsets AlterShareGroupOffsetsRequest AlterShareGroupOffsetsResponse;
    delete_share_group_offsets DeleteShareGroupOffsets DeleteShareGroupOffsetsRequest DeleteShareGroupOffsetsResponse;
}

#[test]
fn headers_are_kafkas() {
    for golden in golden("headers") {
        let mut out = Chunks::default();
        if golden.kind == "request" {
            let (rest, header) = RequestHeader::decode(&golden.bytes).unwrap();
            let flexible = golden.version == 2;
            let rest = if flexible { RequestHeader::skip_tags(rest).unwrap() } else { rest };
            assert!(rest.is_empty());
            assert_same_values(
                &golden.json,
                &format!("{header:?}").replace("api_", "request_api_"),
                "header",
            );
            header.encode(&mut out, flexible);
        } else {
            let id = golden.json["correlationId"].as_i64().unwrap() as i32;
            encode_response_header(&mut out, Fetch::KEY, golden.version == 1, id);
        }
        assert_eq!(out.concat().unwrap(), golden.bytes);
    }
}

#[test]
fn a_count_beyond_the_frame_or_the_budget_is_refused_before_allocating() {
    // replica -1, max wait, min bytes, then an array count of 2^31-1.
    let mut frame = vec![0xff; 4];
    frame.extend([0; 13]);
    frame.extend(i32::MAX.to_be_bytes());
    let frame = Bytes::from(frame);
    let error = decode::<<Fetch as Api>::Request>(&frame, &frame, 4, false).unwrap_err();
    assert_eq!(error.to_string(), "FetchRequest.topics: length beyond the frame");

    // Forty megabytes of empty strings would be a gigabyte of decoded topics.
    let mut frame = vec![0, 0, 0, 0];
    frame.extend((20_000_000i32).to_be_bytes());
    frame.resize(frame.len() + 40_000_000, 0);
    let frame = Bytes::from(frame);
    let error = decode::<<CreateTopics as Api>::Request>(&frame, &frame, 2, false);
    assert!(error.is_ok(), "an empty array and trailing bytes are a valid request");
    let frame = frame.slice(4..);
    let error = decode::<<DeleteTopics as Api>::Request>(&frame, &frame, 1, false).unwrap_err();
    assert_eq!(error.to_string(), "DeleteTopicsRequest.topic_names: too many elements");
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300), version in 0i16..20) {
        let frame = Bytes::from(bytes);
        macro_rules! try_all {
            ($($api:ident)+) => {$(
                if ($api::MIN_VERSION..=$api::MAX_VERSION).contains(&version) {
                    let _ = decode::<<$api as Api>::Request>(&frame, &frame, version, $api::is_flexible(version));
                    let _ = decode::<<$api as Api>::Response>(&frame, &frame, version, $api::is_flexible(version));
                }
            )+};
        }
        try_all!(Produce Fetch ListOffsets Metadata ApiVersions CreateTopics DeleteTopics DeleteRecords InitProducerId
            OffsetForLeaderEpoch DescribeConfigs AlterConfigs CreatePartitions IncrementalAlterConfigs DescribeCluster
            DescribeLogDirs DescribeTopicPartitions ListConfigResources ShareGroupHeartbeat ShareGroupDescribe ShareFetch
            ShareAcknowledge DescribeShareGroupOffsets AlterShareGroupOffsets DeleteShareGroupOffsets);
        if let Ok((rest, _)) = RequestHeader::decode(&frame) {
            let _ = RequestHeader::skip_tags(rest);
        }
    }
}

#[test]
fn records_of_groups_and_what_consumers_tell_each_other_are_kafkas_at_every_version() {
    let all = golden("group_records");
    let mut seen = std::collections::BTreeSet::new();
    for golden in &all {
        let version = golden.version;
        // Values of the offsets topic are flexible from 4 on, all else never.
        let cx = Encode { version, flexible: golden.kind.ends_with("_value") && version >= 4 };
        match golden.kind.as_str() {
            "offset_commit_key" => check::<OffsetCommitKey>("record", golden, cx),
            "offset_commit_value" => check::<OffsetCommitValue>("record", golden, cx),
            "group_metadata_key" => check::<GroupMetadataKey>("record", golden, cx),
            "group_metadata_value" => check::<GroupMetadataValue>("record", golden, cx),
            "subscription" => check::<Subscription>("consumer", golden, cx),
            "assignment" => check::<Assignment>("consumer", golden, cx),
            other => panic!("{other}"),
        }
        seen.insert((golden.kind.clone(), version));
    }
    assert_eq!(seen.len(), 1 + 5 + 1 + 5 + 4 + 4);
}

#[test]
fn records_of_share_groups_are_kafkas() {
    let all = golden("share_records");
    let mut seen = std::collections::BTreeSet::new();
    let mut foreign = 0;
    for golden in &all {
        let cx = Encode { version: golden.version, flexible: golden.kind.ends_with("_value") };
        match golden.kind.as_str() {
            "member_key" => check::<ShareMemberKey>("record", golden, cx),
            "member_value" => check::<ShareGroupMemberValue>("record", golden, cx),
            "group_value" => check::<ShareGroupValue>("record", golden, cx),
            "assignment_value" => check::<ShareGroupAssignmentValue>("record", golden, cx),
            "snapshot_key" | "update_key" => check::<SharePartitionKey>("record", golden, cx),
            "snapshot_value" => check::<ShareSnapshot>("record", golden, cx),
            "update_value" => {
                check::<ShareUpdate>("record", golden, cx);
                if golden.shape == "foreign" {
                    let value: ShareUpdate = decode(&golden.bytes, &golden.bytes, 0, true).unwrap();
                    let times =
                        value.state_batches.iter().map(|batch| (batch.leased_until, batch.waiting_until));
                    let times: Vec<_> = times.collect();
                    assert_eq!(times, [(1_700_000_000_000, -1), (-1, 1_700_000_000_001)]);
                    foreign += 1;
                }
            }
            other => panic!("{other}"),
        }
        seen.insert(golden.kind.clone());
    }
    assert_eq!((seen.len(), foreign), (8, 1));
}
