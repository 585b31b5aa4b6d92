//! The records of Apache Kafka's metadata log (KRaft, KIP-500), as far as a takeover looks into them. A record's value is a frame:
//! frame version, kind and version of the record, each an unsigned varint; then a flexible message.

use bytes::Bytes;

use crate::protocol::api::{decode, message};
use crate::protocol::wire::{DecodeError, Str, uvarint};
use crate::uuid::Uuid;

/// The only version of the frame there is.
const FRAME_VERSION: u32 = 1;

/// Why the value of a record cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidRecord {
    /// Not as a record of its kind and version is.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// A frame of a later format.
    #[error("frame version {0}, where {FRAME_VERSION} is the only one known")]
    Frame(u32),
    /// A kind that is known, in a version that is not.
    #[error("record kind {kind} has version {version}, the last one known is {known}")]
    LaterVersion {
        /// The kind.
        kind: u32,
        /// Its version.
        version: u32,
        /// The last version that this program knows.
        known: i16,
    },
}

message! {
    /// A topic was made.
    TopicRecord {
        name: Str,
        topic_id: Uuid,
    }
}

message! {
    /// A partition as a whole.
    PartitionRecord {
        partition_id: i32,
        topic_id: Uuid,
        replicas: Vec<i32>,
        isr: Vec<i32>,
        removing_replicas: Vec<i32>,
        adding_replicas: Vec<i32>,
        leader: i32,
        leader_epoch: i32,
        partition_epoch: i32,
        directories: Vec<Uuid> [1..],
    }
}

message! {
    /// What has changed of a partition.
    PartitionChangeRecord {
        partition_id: i32,
        topic_id: Uuid,
    } + tagged {
        /// -2 if the leader stays; any other value begins a leader epoch.
        1 => leader: i32 = -2,
        2 => replicas: Option<Vec<i32>>,
    }
}

message! {
    /// One config of a resource; null takes it back.
    ConfigRecord {
        /// 2 topic, 4 broker, 16 client metrics, 32 group.
        resource_type: i8,
        /// Of a broker: its id, or empty for all.
        resource_name: Str,
        name: Str,
        value: Option<Str>,
    }
}

message! {
    /// A topic was deleted, with its partitions and configs.
    RemoveTopicRecord {
        topic_id: Uuid,
    }
}

message! {
    /// Who may do what.
    AccessControlEntryRecord {
        id: Uuid,
        resource_type: i8,
        resource_name: Str,
        pattern_type: i8,
        principal: Str,
        host: Str,
        operation: i8,
        permission_type: i8,
    }
}

message! {
    /// An access control entry is gone.
    RemoveAccessControlEntryRecord {
        id: Uuid,
    }
}

message! {
    /// What a user's password is checked by.
    UserScramCredentialRecord {
        name: Str,
        mechanism: i8,
        salt: Bytes,
        stored_key: Bytes,
        server_key: Bytes,
        iterations: i32,
    }
}

message! {
    /// A user's credential is gone.
    RemoveUserScramCredentialRecord {
        name: Str,
        mechanism: i8,
    }
}

message! {
    /// A limit of what a client may take.
    ClientQuotaRecord {
        entity: Vec<QuotaEntity>,
        key: Str,
        value: f64,
        remove: bool,
    }
}

message! {
    /// Whom a quota is for.
    QuotaEntity {
        entity_type: Str,
        /// Null for the default of that type.
        entity_name: Option<Str>,
    }
}

message! {
    /// A delegation token.
    DelegationTokenRecord {
        owner: Str,
        requester: Str,
        renewers: Vec<Str>,
        issue_timestamp: i64,
        max_timestamp: i64,
        expiration_timestamp: i64,
        token_id: Str,
    }
}

message! {
    /// A delegation token is gone.
    RemoveDelegationTokenRecord {
        token_id: Str,
    }
}

message! {
    /// What follows counts only once the end of this transaction is there. KIP-868.
    BeginTransactionRecord {}
}

message! {
    /// All since the begin counts.
    EndTransactionRecord {}
}

message! {
    /// Nothing since the begin counts.
    AbortTransactionRecord {}
}

/// Kinds by the number that stands in the frame, each with the last version known.
macro_rules! kinds {
    ($($kind:literal $name:ident $record:ident ..= $known:literal;)+) => {
        /// A record of the metadata log.
        #[derive(Clone, PartialEq, Debug)]
        #[allow(missing_docs)] // The records document themselves.
        pub enum MetadataRecord {
            $($name($record),)+
            /// Brokers, controllers, features, producer ids and the like, of which nothing is taken; with the kind.
            Other(u32),
        }

        impl MetadataRecord {
            /// Reads a record's value.
            ///
            /// # Errors
            /// Bytes that are no record, or a record of a later version of a kind that counts.
            pub fn decode(value: &Bytes) -> Result<Self, InvalidRecord> {
                let (frame_version, rest) = number(value)?;
                let (kind, rest) = number(rest)?;
                let (version, rest) = number(rest)?;
                if frame_version != FRAME_VERSION {
                    return Err(InvalidRecord::Frame(frame_version));
                }
                match kind {
                    $($kind => match i16::try_from(version) {
                        Ok(version @ 0..=$known) => Ok(Self::$name(decode(value, rest, version, true)?)),
                        _ => Err(InvalidRecord::LaterVersion { kind, version, known: $known }),
                    },)+
                    _ => Ok(Self::Other(kind)),
                }
            }
        }
    };
}

kinds! {
    2 Topic TopicRecord ..= 0;
    3 Partition PartitionRecord ..= 2;
    4 Config ConfigRecord ..= 0;
    5 PartitionChange PartitionChangeRecord ..= 2;
    9 RemoveTopic RemoveTopicRecord ..= 0;
    10 Token DelegationTokenRecord ..= 0;
    11 Scram UserScramCredentialRecord ..= 0;
    14 Quota ClientQuotaRecord ..= 0;
    18 Acl AccessControlEntryRecord ..= 0;
    19 RemoveAcl RemoveAccessControlEntryRecord ..= 0;
    22 RemoveScram RemoveUserScramCredentialRecord ..= 0;
    23 Begin BeginTransactionRecord ..= 0;
    24 End EndTransactionRecord ..= 0;
    25 Abort AbortTransactionRecord ..= 0;
    26 RemoveToken RemoveDelegationTokenRecord ..= 0;
}

fn number(input: &[u8]) -> Result<(u32, &[u8]), InvalidRecord> {
    match uvarint(input) {
        Ok((rest, number)) => Ok((number, rest)),
        Err(nom::Err::Error(error) | nom::Err::Failure(error)) => {
            Err(DecodeError { place: "frame", ..error }.into())
        }
        Err(nom::Err::Incomplete(_)) => unreachable!("only complete parsers are used"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::wire::{Encode, Sink, Wire};

    /// Bytes that MetadataRecordSerde of Apache Kafka 4.4.0 has made.
    const GOLDEN: &[(&str, &str)] = &[
        ("TopicRecord 0", "010200086c6574746572730102030405060708090a0b0c0d0e0f1000"),
        (
            "PartitionRecord 0",
            "010300000000020102030405060708090a0b0c0d0e0f100300000001000000020200000001010100000001000000050000000601000101",
        ),
        (
            "PartitionRecord 1",
            "010301000000020102030405060708090a0b0c0d0e0f100300000001000000020200000001010100000001000000050000000603111111111111111122222222222222221111111111111111222222222222222201000101",
        ),
        (
            "PartitionRecord 2",
            "010302000000020102030405060708090a0b0c0d0e0f1003000000010000000202000000010101000000010000000500000006031111111111111111222222222222222211111111111111112222222222222222030001010105020000000202050200000002",
        ),
        (
            "PartitionChangeRecord 1",
            "010501000000020102030405060708090a0b0c0d0e0f1004000502000000010104ffffffff0205020000000108110211111111111111112222222222222222",
        ),
        ("PartitionChangeRecord 2", "010502000000020102030405060708090a0b0c0d0e0f100106050200000001"),
        ("ConfigRecord 0", "01040002086c6574746572730d726574656e74696f6e2e6d73023500"),
        ("ConfigRecord 0", "01040004010c6c6f672e726f6c6c2e6d730000"),
        ("RemoveTopicRecord 0", "0109000102030405060708090a0b0c0d0e0f1000"),
        (
            "AccessControlEntryRecord 0",
            "0112000102030405060708090a0b0c0d0e0f100202720307557365723a61022a040300",
        ),
        ("RemoveAccessControlEntryRecord 0", "0113000102030405060708090a0b0c0d0e0f1000"),
        ("UserScramCredentialRecord 0", "010b00026101030102020302040000100000"),
        ("RemoveUserScramCredentialRecord 0", "01160002610100"),
        (
            "ClientQuotaRecord 0",
            "010e00020575736572000013726571756573745f70657263656e7461676540040000000000000100",
        ),
        (
            "DelegationTokenRecord 0",
            "010a00026f027202026e000000000000000100000000000000020000000000000003027400",
        ),
        ("RemoveDelegationTokenRecord 0", "011a00027400"),
        ("BeginTransactionRecord 0", "0117000100050562756c6b"),
        ("EndTransactionRecord 0", "01180000"),
        ("AbortTransactionRecord 0", "01190001000404776879"),
        ("ProducerIdsRecord 0", "010f0000000001ffffffffffffffff00000000000003e800"),
    ];

    const ID: Uuid = Uuid([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);

    fn bytes(hex: &str) -> Bytes {
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(byte).collect()
    }

    fn golden(name: &str) -> MetadataRecord {
        let (_, hex) = GOLDEN.iter().find(|(golden, _)| *golden == name).unwrap();
        MetadataRecord::decode(&bytes(hex)).unwrap()
    }

    #[test]
    fn what_kafka_has_written_is_read() {
        let topic = TopicRecord { name: "letters".into(), topic_id: ID };
        assert_eq!(golden("TopicRecord 0"), MetadataRecord::Topic(topic));
        for (name, directories) in
            [("PartitionRecord 0", 0), ("PartitionRecord 1", 2), ("PartitionRecord 2", 2)]
        {
            let MetadataRecord::Partition(partition) = golden(name) else { panic!("{name}") };
            assert_eq!((partition.partition_id, partition.topic_id), (2, ID));
            assert_eq!((partition.replicas, partition.leader_epoch), (vec![1, 2], 5));
            assert_eq!(partition.directories.len(), directories);
        }
        let MetadataRecord::PartitionChange(change) = golden("PartitionChangeRecord 1") else { panic!() };
        assert_eq!((change.partition_id, change.leader, change.replicas), (2, -1, Some(vec![1])));
        let MetadataRecord::PartitionChange(change) = golden("PartitionChangeRecord 2") else { panic!() };
        assert_eq!((change.leader, change.replicas), (-2, None));
        let configs: Vec<_> = GOLDEN.iter().filter(|(name, _)| *name == "ConfigRecord 0").collect();
        let config = |at: usize| match MetadataRecord::decode(&bytes(configs[at].1)).unwrap() {
            MetadataRecord::Config(config) => config,
            other => panic!("{other:?}"),
        };
        let (name, value) = ("retention.ms".into(), Some("5".into()));
        assert_eq!(
            config(0),
            ConfigRecord { resource_type: 2, resource_name: "letters".into(), name, value }
        );
        assert_eq!((config(1).resource_type, config(1).value), (4, None));
        let MetadataRecord::Quota(quota) = golden("ClientQuotaRecord 0") else { panic!() };
        assert_eq!((quota.value, quota.remove, &quota.entity[0].entity_name), (2.5, true, &None));
        let MetadataRecord::Token(token) = golden("DelegationTokenRecord 0") else { panic!() };
        assert_eq!((&*token.token_id, token.renewers), ("t", vec!["n".into()]));
        let MetadataRecord::Scram(user) = golden("UserScramCredentialRecord 0") else { panic!() };
        assert_eq!((&*user.name, user.iterations), ("a", 4096));
        assert_eq!(golden("ProducerIdsRecord 0"), MetadataRecord::Other(15));
    }

    #[test]
    fn a_record_that_is_cut_anywhere_is_an_error() {
        for (name, hex) in GOLDEN {
            let whole = bytes(hex);
            let known = !matches!(MetadataRecord::decode(&whole).unwrap(), MetadataRecord::Other(_));
            for end in 0..if known { whole.len() } else { 3 } {
                let cut = MetadataRecord::decode(&whole.slice(..end));
                assert!(matches!(cut, Err(InvalidRecord::Malformed(_))), "{name} cut at {end}: {cut:?}");
            }
        }
    }

    #[test]
    fn later_versions_are_refused_and_unknown_kinds_passed_over() {
        let decode = |bytes: &'static [u8]| MetadataRecord::decode(&Bytes::from_static(bytes));
        let later = InvalidRecord::LaterVersion { kind: 3, version: 3, known: 2 };
        assert_eq!(decode(&[1, 3, 3, 0]), Err(later));
        assert_eq!(decode(&[0, 2, 0]), Err(InvalidRecord::Frame(0)));
        assert_eq!(decode(&[1, 0xff, 1, 9]), Ok(MetadataRecord::Other(255)));
    }

    #[test]
    fn a_record_reads_back() {
        let record =
            PartitionRecord { partition_id: 7, topic_id: ID, replicas: vec![3], ..Default::default() };
        let mut frame = bytes::BytesMut::new();
        frame.put(&[1, 3, 1]);
        record.encode(&mut frame, Encode { version: 1, flexible: true });
        assert_eq!(MetadataRecord::decode(&frame.freeze()), Ok(MetadataRecord::Partition(record)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_an_error(kind in 0u8..30, rest in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = MetadataRecord::decode(&rest.clone().into());
            let framed: Vec<u8> = [1, kind, 0].into_iter().chain(rest).collect();
            let _ = MetadataRecord::decode(&framed.into());
        }
    }
}
