//! What consumers tell each other through a classic group: the metadata of a join and the assignment of a sync, each with its
//! version before it. The coordinator passes both on unread, except that it looks for the subscribed topics.

use bytes::{Bytes, BytesMut};

use crate::protocol::api::{decode, message};
use crate::protocol::wire::{DecodeError, Encode, Sink, Str, Wire};

/// Last version of both that is known; a later one is read as this one, whose fields it begins with.
const LAST_VERSION: i16 = 3;

message! {
    /// Topics that a consumer wants, and what it holds. ConsumerProtocolSubscription; owned partitions: KIP-429; generation and
    /// rack: KIP-792, KIP-881.
    Subscription {
        topics: Vec<Str>,
        user_data: Option<Bytes>,
        owned_partitions: Vec<TopicPartitions> [1..],
        generation_id: i32 [2..] = -1,
        rack_id: Option<Str> [3..],
    }
}

message! {
    /// Partitions that a consumer gets. ConsumerProtocolAssignment.
    Assignment {
        assigned_partitions: Vec<TopicPartitions>,
        user_data: Option<Bytes>,
    }
}

message! {
    /// Partitions of a topic.
    TopicPartitions {
        topic: Str,
        partitions: Vec<i32>,
    }
}

/// The two kinds of bytes: a version and a message.
pub trait Versioned: Wire {
    /// Reads the version, then the message.
    ///
    /// # Errors
    /// Bytes that are not such a message.
    fn decode_versioned(bytes: &[u8]) -> Result<Self, DecodeError> {
        let frame = Bytes::copy_from_slice(bytes);
        let version: i16 = decode(&frame, &frame, 0, false)?;
        decode(&frame, &frame[2..], version.clamp(0, LAST_VERSION), false)
    }

    /// Writes the version, then the message in it.
    fn encode_versioned(&self, version: i16) -> Bytes {
        let mut out = BytesMut::new();
        out.put(&version.to_be_bytes());
        self.encode(&mut out, Encode { version, flexible: false });
        out.freeze()
    }
}

impl Versioned for Subscription {}
impl Versioned for Assignment {}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription() -> Subscription {
        Subscription {
            topics: vec!["a".into(), "b".into()],
            user_data: Some(Bytes::from_static(b"u")),
            owned_partitions: vec![TopicPartitions { topic: "a".into(), partitions: vec![0, 2] }],
            generation_id: 5,
            rack_id: Some("r".into()),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        assert_eq!(
            Subscription::decode_versioned(&subscription().encode_versioned(3)).unwrap(),
            subscription()
        );
        let first = Subscription::decode_versioned(&subscription().encode_versioned(0)).unwrap();
        assert_eq!(
            first,
            Subscription {
                topics: subscription().topics,
                user_data: subscription().user_data,
                ..Default::default()
            }
        );
        let assignment = Assignment { assigned_partitions: subscription().owned_partitions, user_data: None };
        assert_eq!(Assignment::decode_versioned(&assignment.encode_versioned(1)).unwrap(), assignment);
    }

    #[test]
    fn a_later_version_is_read_as_the_last_known_and_nonsense_is_an_error() {
        let mut later = BytesMut::from(&subscription().encode_versioned(3)[..]);
        later[1] = 9;
        later.put(b"more");
        assert_eq!(Subscription::decode_versioned(&later).unwrap(), subscription());
        for nonsense in [&b""[..], b"\0", b"\0\0", b"\0\0\xff\xff\xff\xff", b"nonsense!"] {
            assert!(Subscription::decode_versioned(nonsense).is_err(), "{nonsense:?}");
        }
    }
}
