//! Keys and values of `__share_group_state`, in Kafka's own format. KIP-932; how much is done: KIP-1226.

use bytes::Bytes;

use super::records::{read, versioned};
use super::{RecordError, Stored};
use crate::protocol::api::{decode, message};
use crate::protocol::wire::Str;
use crate::uuid::Uuid;

/// Type of a snapshot's key.
const SNAPSHOT: i16 = 0;

/// Type of an update's key.
const UPDATE: i16 = 1;

/// The one version of all values, flexible from the first on.
const VALUE_VERSION: i16 = 0;

/// [`StateBatch::delivery_state`] of records that can be handed out.
pub const AVAILABLE: i8 = 0;

/// [`StateBatch::delivery_state`] of records that somebody has dealt with.
pub const ACKNOWLEDGED: i8 = 2;

/// [`StateBatch::delivery_state`] of records on their way to a dead letter queue. KIP-1191.
pub const ARCHIVING: i8 = 3;

/// [`StateBatch::delivery_state`] of records that nobody will be given again.
pub const ARCHIVED: i8 = 4;

/// [`StateBatch::cause`] of records that were refused or delivered too often.
pub const FAILED: i8 = 0;

/// [`StateBatch::cause`] of records that gave way to others in a full queue.
pub const GAVE_WAY: i8 = 1;

message! {
    /// Which partition, and of which group.
    SharePartitionKey {
        group_id: Str,
        topic_id: Uuid,
        partition: i32,
    }
}

message! {
    /// The whole state of a share partition.
    ShareSnapshot {
        snapshot_epoch: i32,
        /// Rises when the state is set anew.
        state_epoch: i32,
        leader_epoch: i32,
        /// First record that is not done; -1 before that is known.
        start_offset: i64,
        /// Milliseconds since the epoch.
        create_timestamp: i64,
        /// Milliseconds since the epoch.
        write_timestamp: i64,
        state_batches: Vec<StateBatch>,
    } + tagged {
        0 => delivery_complete_count: i32 = -1,
        /// Whether a queue of the group's name has read it, and not only a share group. Ours, as that of an update and those of a batch:
        /// far from the tags that Kafka will come to, and passed over by it.
        10_000 => is_queues: bool,
    }
}

message! {
    /// What has changed since the record before.
    ShareUpdate {
        snapshot_epoch: i32,
        leader_epoch: i32,
        /// -1 if it is as it was.
        start_offset: i64,
        state_batches: Vec<StateBatch>,
    } + tagged {
        0 => delivery_complete_count: i32 = -1,
        /// As that of a snapshot, once, when it becomes so.
        10_000 => is_queues: bool,
    }
}

message! {
    /// The state of neighbouring records.
    StateBatch {
        first_offset: i64,
        last_offset: i64,
        delivery_state: i8,
        delivery_count: i16,
    } + tagged {
        /// Milliseconds since the epoch until when they are with whoever has their receipts; -1 if with nobody.
        10_000 => leased_until: i64 = -1,
        /// Milliseconds since the epoch before which they are not handed out again; -1 if at once.
        10_001 => waiting_until: i64 = -1,
        /// Why they are on their way to a dead letter queue.
        10_002 => cause: i8 = FAILED,
    }
}

/// A record of `__share_group_state`.
#[derive(Clone, PartialEq, Debug)]
pub enum ShareRecord {
    /// The whole state, or that there is none any more.
    Snapshot {
        /// Of which.
        key: SharePartitionKey,
        /// The state.
        value: Option<ShareSnapshot>,
    },
    /// A change.
    Update {
        /// Of which.
        key: SharePartitionKey,
        /// The change.
        value: ShareUpdate,
    },
}

impl Stored for ShareRecord {
    fn encode(&self) -> (Bytes, Option<Bytes>) {
        match self {
            Self::Snapshot { key, value } => {
                let value = value.as_ref().map(|value| versioned(VALUE_VERSION, value, VALUE_VERSION));
                (versioned(SNAPSHOT, key, i16::MAX), value)
            }
            Self::Update { key, value } => {
                (versioned(UPDATE, key, i16::MAX), Some(versioned(VALUE_VERSION, value, VALUE_VERSION)))
            }
        }
    }

    fn decode(key: Option<&Bytes>, value: Option<&Bytes>) -> Result<Option<Self>, RecordError> {
        let key = key.ok_or(RecordError::NoKey)?;
        let kind: i16 = decode(key, key, 0, false)?;
        Ok(match (kind, value) {
            (SNAPSHOT, value) => {
                let value = value.map(|value| read(kind, value, VALUE_VERSION)).transpose()?;
                Some(Self::Snapshot { key: decode(key, &key[2..], 0, false)?, value })
            }
            (UPDATE, Some(value)) => {
                let value = read(kind, value, VALUE_VERSION)?;
                Some(Self::Update { key: decode(key, &key[2..], 0, false)?, value })
            }
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let key = SharePartitionKey { group_id: "g".into(), topic_id: Uuid([7; 16]), partition: 3 };
        let batch = StateBatch {
            first_offset: 5,
            last_offset: 9,
            delivery_state: ACKNOWLEDGED,
            delivery_count: 2,
            ..Default::default()
        };
        let snapshot = ShareSnapshot {
            state_epoch: 1,
            start_offset: 5,
            delivery_complete_count: 4,
            state_batches: vec![batch.clone()],
            ..Default::default()
        };
        let update = ShareUpdate { start_offset: 6, state_batches: vec![batch], ..Default::default() };
        for record in [
            ShareRecord::Snapshot { key: key.clone(), value: Some(snapshot) },
            ShareRecord::Snapshot { key: key.clone(), value: None },
            ShareRecord::Update { key, value: update },
        ] {
            let (key, value) = record.encode();
            assert_eq!(ShareRecord::decode(Some(&key), value.as_ref()).unwrap(), Some(record));
        }
    }
}
