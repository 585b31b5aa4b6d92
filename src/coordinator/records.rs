//! Keys and values of `__consumer_offsets`, in Kafka's own format: key = type, then the key's fields; value = version, then the
//! value's fields; a null value takes back what the key names.

use bytes::{Bytes, BytesMut};

use super::Stored;
use crate::protocol::api::{decode, message};
use crate::protocol::wire::{DecodeError, Encode, Sink, Str, Wire};
use crate::uuid::Uuid;

/// Version of the key of every record.
const KEY_VERSION: i16 = 0;

/// Type of an offset's key in logs of Kafka 0.8.
const LEGACY_OFFSET: i16 = 0;

/// Type of an offset's key.
const OFFSET: i16 = 1;

/// Type of a classic group's key.
const GROUP: i16 = 2;

/// Type of the key of a share group's member. KIP-932.
const SHARE_MEMBER: i16 = 10;

/// Type of a share group's key.
const SHARE_GROUP: i16 = 11;

/// Type of the key of what a member of a share group reads.
const SHARE_ASSIGNMENT: i16 = 14;

/// The one version of the values of share groups, flexible from the first on.
const SHARE_VERSION: i16 = 0;

/// Last known version of [`OffsetCommitValue`], and the first flexible one.
const OFFSET_VERSION: i16 = 4;

/// The one version of [`OffsetCommitValue`] that has an expiry of its own.
const EXPIRING_OFFSET_VERSION: i16 = 1;

/// Last known version of [`GroupMetadataValue`], and the first flexible one.
const GROUP_VERSION: i16 = 4;

/// The version of [`GroupMetadataValue`] that is written: what every Kafka reads that knows static members.
const GROUP_VERSION_WRITTEN: i16 = 3;

message! {
    /// Which offset.
    OffsetCommitKey {
        group: Str,
        topic: Str,
        partition: i32,
    }
}

message! {
    /// How far a group has come in a partition.
    OffsetCommitValue {
        /// The next offset to be consumed.
        offset: i64,
        leader_epoch: i32 [3..] = -1,
        metadata: Str,
        /// Milliseconds since the epoch.
        commit_timestamp: i64,
        /// Milliseconds since the epoch; -1 if it expires as all do.
        expire_timestamp: i64 [1..=1] = -1,
    } + tagged {
        0 => topic_id: Uuid [4..],
    }
}

message! {
    /// Which group.
    GroupMetadataKey {
        group: Str,
    }
}

message! {
    /// A generation of a classic group.
    GroupMetadataValue {
        protocol_type: Str,
        generation: i32,
        protocol: Option<Str>,
        leader: Option<Str>,
        /// When the group came into its state, ms since the epoch.
        current_state_timestamp: i64 [2..] = -1,
        members: Vec<GroupMetadataMember>,
    }
}

message! {
    /// A member and what it is to do.
    GroupMetadataMember {
        member_id: Str,
        group_instance_id: Option<Str> [3..],
        client_id: Str,
        client_host: Str,
        /// Milliseconds.
        rebalance_timeout: i32 [1..] = -1,
        /// Milliseconds.
        session_timeout: i32,
        subscription: Bytes,
        assignment: Bytes,
    }
}

message! {
    /// Which member of which share group.
    ShareMemberKey {
        group_id: Str,
        member_id: Str,
    }
}

message! {
    /// A member of a share group.
    ShareGroupMemberValue {
        rack_id: Option<Str>,
        client_id: Str,
        client_host: Str,
        subscribed_topic_names: Vec<Str>,
    }
}

message! {
    /// A share group.
    ShareGroupValue {
        /// Rises when members, subscriptions or topics change.
        epoch: i32,
        metadata_hash: i64,
    }
}

message! {
    /// What a member of a share group reads.
    ShareGroupAssignmentValue {
        member_epoch: i32,
        previous_member_epoch: i32,
        state: i8,
        assigned_partitions: Vec<ShareAssignmentTopic>,
    }
}

message! {
    /// The partitions of one topic.
    ShareAssignmentTopic {
        topic_id: Uuid,
        partitions: Vec<i32>,
    }
}

/// A record of a coordinator.
#[derive(Clone, PartialEq, Debug)]
pub enum Record {
    /// A committed offset, or that there is none any more.
    Offset {
        /// Group, topic and partition.
        key: OffsetCommitKey,
        /// The commit.
        value: Option<OffsetCommitValue>,
    },
    /// A classic group, or that there is none any more.
    Group {
        /// The group.
        group: Str,
        /// The generation.
        value: Option<GroupMetadataValue>,
    },
    /// A share group, or that there is none any more.
    ShareGroup {
        /// The group.
        group: Str,
        /// Its epoch.
        value: Option<ShareGroupValue>,
    },
    /// A member of a share group, or that it has gone.
    ShareMember {
        /// The group.
        group: Str,
        /// The member's id.
        member: Str,
        /// What it has said.
        value: Option<ShareGroupMemberValue>,
    },
    /// What a member of a share group reads; nothing any more where it has gone.
    ShareAssignment {
        /// The group.
        group: Str,
        /// The member's id.
        member: Str,
        /// Its partitions.
        value: Option<ShareGroupAssignmentValue>,
    },
}

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It has no key.
    #[error("a record without a key")]
    NoKey,
    /// It is not what its type and version say.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Its value is of a version that is not known.
    #[error("type {kind} has a value of version {version}")]
    Version {
        /// The key's type.
        kind: i16,
        /// The value's version.
        version: i16,
    },
}

impl Stored for Record {
    fn encode(&self) -> (Bytes, Option<Bytes>) {
        match self {
            Self::Offset { key, value } => {
                let version = |value: &OffsetCommitValue| match value.expire_timestamp {
                    -1 => OFFSET_VERSION,
                    _ => EXPIRING_OFFSET_VERSION,
                };
                let value = value.as_ref().map(|value| versioned(version(value), value, OFFSET_VERSION));
                (versioned(OFFSET, key, i16::MAX), value)
            }
            Self::Group { group, value } => {
                let key = GroupMetadataKey { group: group.clone() };
                let value =
                    value.as_ref().map(|value| versioned(GROUP_VERSION_WRITTEN, value, GROUP_VERSION));
                (versioned(GROUP, &key, i16::MAX), value)
            }
            Self::ShareGroup { group, value } => {
                let key = GroupMetadataKey { group: group.clone() };
                (versioned(SHARE_GROUP, &key, i16::MAX), share_value(value.as_ref()))
            }
            Self::ShareMember { group, member, value } => {
                let key = ShareMemberKey { group_id: group.clone(), member_id: member.clone() };
                (versioned(SHARE_MEMBER, &key, i16::MAX), share_value(value.as_ref()))
            }
            Self::ShareAssignment { group, member, value } => {
                let key = ShareMemberKey { group_id: group.clone(), member_id: member.clone() };
                (versioned(SHARE_ASSIGNMENT, &key, i16::MAX), share_value(value.as_ref()))
            }
        }
    }

    fn decode(key: Option<&Bytes>, value: Option<&Bytes>) -> Result<Option<Self>, RecordError> {
        let key = key.ok_or(RecordError::NoKey)?;
        let kind: i16 = decode(key, key, KEY_VERSION, false)?;
        Ok(match kind {
            LEGACY_OFFSET | OFFSET => Some(Self::Offset {
                key: decode(key, &key[2..], KEY_VERSION, false)?,
                value: value.map(|value| read(kind, value, OFFSET_VERSION)).transpose()?,
            }),
            GROUP => {
                let key: GroupMetadataKey = decode(key, &key[2..], KEY_VERSION, false)?;
                // Copied, since a group keeps its last record, and with a slice all that was read with it.
                let value = value.map(|value| Bytes::copy_from_slice(value));
                let value = value.map(|value| read(kind, &value, GROUP_VERSION)).transpose()?;
                Some(Self::Group { group: key.group, value })
            }
            SHARE_GROUP => {
                let key: GroupMetadataKey = decode(key, &key[2..], KEY_VERSION, false)?;
                let value = value.map(|value| read(kind, value, SHARE_VERSION)).transpose()?;
                Some(Self::ShareGroup { group: key.group, value })
            }
            SHARE_MEMBER => {
                let key: ShareMemberKey = decode(key, &key[2..], KEY_VERSION, false)?;
                let value = value.map(|value| read(kind, value, SHARE_VERSION)).transpose()?;
                Some(Self::ShareMember { group: key.group_id, member: key.member_id, value })
            }
            SHARE_ASSIGNMENT => {
                let key: ShareMemberKey = decode(key, &key[2..], KEY_VERSION, false)?;
                let value = value.map(|value| read(kind, value, SHARE_VERSION)).transpose()?;
                Some(Self::ShareAssignment { group: key.group_id, member: key.member_id, value })
            }
            _ => None,
        })
    }
}

/// Room that a key or value begins with, bytes: most need no more.
const ROOM: usize = 128;

/// A number, then the message in the version of that number, or in the only one where it is a key's type.
pub(super) fn versioned<M: Wire>(number: i16, message: &M, first_flexible: i16) -> Bytes {
    let mut out = BytesMut::with_capacity(ROOM);
    out.put(&number.to_be_bytes());
    message.encode(&mut out, Encode { version: number, flexible: number >= first_flexible });
    out.freeze()
}

fn share_value<M: Wire>(value: Option<&M>) -> Option<Bytes> {
    value.map(|value| versioned(SHARE_VERSION, value, SHARE_VERSION))
}

/// A value whose last known version is also its first flexible one, as both kinds' are.
pub(super) fn read<M: Wire>(kind: i16, value: &Bytes, last: i16) -> Result<M, RecordError> {
    let version: i16 = decode(value, value, KEY_VERSION, false)?;
    if !(0..=last).contains(&version) {
        return Err(RecordError::Version { kind, version });
    }
    Ok(decode(value, &value[2..], version, version >= last)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(record: &Record) -> Option<Record> {
        let (key, value) = record.encode();
        Record::decode(Some(&key), value.as_ref()).unwrap()
    }

    fn offset(value: Option<OffsetCommitValue>) -> Record {
        let key = OffsetCommitKey { group: "g".into(), topic: "t".into(), partition: 3 };
        Record::Offset { key, value }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let committed = OffsetCommitValue {
            offset: 7,
            leader_epoch: 2,
            metadata: "m".into(),
            commit_timestamp: 1_000,
            topic_id: Uuid([9; 16]),
            ..Default::default()
        };
        let member = GroupMetadataMember {
            member_id: "m-1".into(),
            group_instance_id: Some("i".into()),
            rebalance_timeout: 5,
            session_timeout: 6,
            subscription: Bytes::from_static(b"s"),
            assignment: Bytes::from_static(b"a"),
            ..Default::default()
        };
        let group = GroupMetadataValue {
            protocol_type: "consumer".into(),
            generation: 4,
            protocol: Some("range".into()),
            leader: Some("m-1".into()),
            current_state_timestamp: 99,
            members: vec![member],
        };
        for record in [
            offset(Some(committed)),
            offset(None),
            Record::Group { group: "g".into(), value: Some(group) },
            Record::Group { group: "g".into(), value: None },
            Record::ShareGroup {
                group: "g".into(),
                value: Some(ShareGroupValue { epoch: 3, metadata_hash: 4 }),
            },
            Record::ShareMember {
                group: "g".into(),
                member: "m".into(),
                value: Some(ShareGroupMemberValue {
                    subscribed_topic_names: vec!["t".into()],
                    ..Default::default()
                }),
            },
            Record::ShareAssignment { group: "g".into(), member: "m".into(), value: None },
        ] {
            assert_eq!(again(&record), Some(record));
        }
    }

    #[test]
    fn an_offset_with_an_expiry_of_its_own_is_of_the_version_that_has_one() {
        let expiring = OffsetCommitValue { expire_timestamp: 5, offset: 7, ..Default::default() };
        let (_, value) = offset(Some(expiring.clone())).encode();
        assert_eq!(value.unwrap()[..2], [0, 1]);
        assert_eq!(again(&offset(Some(expiring.clone()))), Some(offset(Some(expiring))));
    }

    #[test]
    fn types_of_later_versions_are_passed_over_and_versions_are_not() {
        let unknown = Bytes::from_static(&[0, 99, 1, 2]);
        assert!(Record::decode(Some(&unknown), None).unwrap().is_none());
        let (key, _) = offset(None).encode();
        let later = Bytes::from_static(&[0, 77]);
        let error = Record::decode(Some(&key), Some(&later)).unwrap_err();
        assert!(matches!(error, RecordError::Version { kind: 1, version: 77 }), "{error}");
        assert!(matches!(Record::decode(None, None), Err(RecordError::NoKey)));
        assert!(Record::decode(Some(&Bytes::from_static(&[0])), None).is_err());
    }
}
