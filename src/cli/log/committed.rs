//! What the records of `__consumer_offsets` mean.

use serde_json::{Value, json};

use super::file::ReadFile;
use crate::cli::position::time_text;
use crate::coordinator::Stored;
use crate::coordinator::records::{self, GroupMetadataMember};
use crate::record::Record;

/// Folders of the topic's partitions begin so.
const FOLDER: &str = "__consumer_offsets-";

/// Whether a file is of that topic.
pub(super) fn is_of(file: &ReadFile) -> bool {
    let folder = file.path().parent().and_then(|folder| folder.file_name());
    folder.and_then(|folder| folder.to_str()).is_some_and(|folder| folder.starts_with(FOLDER))
}

/// What a record says, in JSON; `None` of what is not known: newer groups, damage.
pub(super) fn meaning(record: &Record) -> Option<Value> {
    match records::Record::decode(record.key.as_ref(), record.value.as_ref()).ok()?? {
        records::Record::Offset { key, value } => Some(json!({
            "group": &key.group[..],
            "topic": &key.topic[..],
            "partition": key.partition,
            "committed": value.as_ref().map(|value| value.offset),
            "metadata": value.as_ref().map(|value| &value.metadata[..]),
            "time": value.as_ref().map(|value| time_text(value.commit_timestamp)),
        })),
        records::Record::Group { group, value } => Some(json!({
            "group": &group[..],
            "generation": value.as_ref().map(|value| value.generation),
            "protocol_type": value.as_ref().map(|value| &value.protocol_type[..]),
            "protocol": value.as_ref().and_then(|value| value.protocol.as_deref()),
            "leader": value.as_ref().and_then(|value| value.leader.as_deref()),
            "members": value.as_ref().map(|value| value.members.iter().map(member).collect::<Vec<_>>()),
        })),
        records::Record::ShareGroup { group, value } => Some(json!({
            "group": &group[..],
            "share_epoch": value.as_ref().map(|value| value.epoch),
        })),
        records::Record::ShareMember { group, member, value } => Some(json!({
            "group": &group[..],
            "member": &member[..],
            "topics": value.as_ref().map(|value| value.subscribed_topic_names.iter().map(|topic| &topic[..]).collect::<Vec<_>>()),
        })),
        records::Record::ShareAssignment { group, member, value } => Some(json!({
            "group": &group[..],
            "member": &member[..],
            "member_epoch": value.as_ref().map(|value| value.member_epoch),
            "assigned": value.as_ref().map(|value| {
                let topic = |topic: &records::ShareAssignmentTopic| {
                    json!({ "topic_id": topic.topic_id.to_string(), "partitions": &topic.partitions })
                };
                value.assigned_partitions.iter().map(topic).collect::<Vec<_>>()
            }),
        })),
    }
}

fn member(member: &GroupMetadataMember) -> &str {
    &member.member_id
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;

    use super::*;
    use crate::coordinator::records::{GroupMetadataValue, OffsetCommitKey, OffsetCommitValue};

    fn stored(record: &records::Record) -> Record {
        let (key, value) = record.encode();
        Record { offset: 0, timestamp: 0, key: Some(key), value, headers: Vec::new() }
    }

    #[test]
    fn commits_and_generations_are_told() {
        let key = OffsetCommitKey { group: "g".into(), topic: "t".into(), partition: 3 };
        let commit = OffsetCommitValue { offset: 7, commit_timestamp: 1_000, ..OffsetCommitValue::default() };
        let offset = stored(&records::Record::Offset { key: key.clone(), value: Some(commit) });
        let expected = json!({"group": "g", "topic": "t", "partition": 3, "committed": 7, "metadata": "", "time": "1970-01-01T00:00:01Z"});
        assert_eq!(meaning(&offset), Some(expected));
        let forgotten = meaning(&stored(&records::Record::Offset { key, value: None })).unwrap();
        assert_eq!(forgotten["committed"], Value::Null);

        let generation = GroupMetadataValue {
            protocol_type: "consumer".into(),
            generation: 4,
            members: vec![GroupMetadataMember { member_id: "m".into(), ..Default::default() }],
            ..GroupMetadataValue::default()
        };
        let group = stored(&records::Record::Group { group: "g".into(), value: Some(generation) });
        let told = meaning(&group).unwrap();
        assert_eq!((&told["generation"], &told["members"]), (&json!(4), &json!(["m"])));
        let garbage = Record { key: Some(Bytes::from_static(b"\0\x01\xff")), ..group };
        assert_eq!(meaning(&garbage), None);
    }

    #[test]
    fn the_folder_tells_the_topic() {
        let home = tempfile::tempdir().unwrap();
        let is = |folder: &str| {
            let folder = home.path().join(folder);
            std::fs::create_dir(&folder).unwrap();
            let path = folder.join("00000000000000000000.log");
            std::fs::write(&path, b"").unwrap();
            is_of(&ReadFile::open(Path::new(&path)).unwrap_or_else(|error| panic!("{error}")))
        };
        assert!(is("__consumer_offsets-3") && !is("letters-3"));
    }
}
