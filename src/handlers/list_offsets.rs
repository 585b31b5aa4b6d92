//! ListOffsets: first, last, and the first at or after a time.

use std::collections::HashSet;
use std::sync::Arc;

use super::RequestContext;
use crate::log::{LogError, Partition, TimestampOffset};
use crate::protocol::ErrorCode;
use crate::protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopicResponse,
};

/// Answers every partition on its own: one failure never spoils its neighbours.
pub async fn handle(cx: RequestContext, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let mut seen = HashSet::new();
    let mut response = ListOffsetsResponse::default();
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            let found = match seen.insert((topic.name.clone(), wanted.partition_index)) {
                true => look_up(&cx, &topic.name, wanted, request.replica_id).await,
                false => Err(ErrorCode::InvalidRequest),
            };
            partitions.push(answer(wanted.partition_index, found));
        }
        response.topics.push(ListOffsetsTopicResponse { name: topic.name, partitions });
    }
    response
}

/// What a timestamp of the request asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lookup {
    Latest,
    Earliest,
    MaxTimestamp,
    EarliestLocal,
    LatestTiered,
    EarliestPendingUpload,
    At(i64),
}

impl Lookup {
    /// Special timestamps came one by one; a version that does not know one may not ask for it.
    fn of(timestamp: i64, version: i16) -> Result<Self, ErrorCode> {
        match (timestamp, version) {
            (-1, _) => Ok(Self::Latest),
            (-2, _) => Ok(Self::Earliest),
            (-3, 7..) => Ok(Self::MaxTimestamp),           // KIP-734
            (-4, 8..) => Ok(Self::EarliestLocal),          // KIP-405
            (-5, 9..) => Ok(Self::LatestTiered),           // KIP-1005
            (-6, 11..) => Ok(Self::EarliestPendingUpload), // KIP-1023
            (0.., _) => Ok(Self::At(timestamp)),
            _ => Err(ErrorCode::UnsupportedVersion),
        }
    }
}

async fn look_up(
    cx: &RequestContext,
    topic: &str,
    wanted: &ListOffsetsPartition,
    replica_id: i32,
) -> Result<TimestampOffset, ErrorCode> {
    let partition = cx.leader(topic, wanted.partition_index, wanted.current_leader_epoch)?;
    let lookup = Lookup::of(wanted.timestamp, cx.version)?;
    match lookup {
        Lookup::At(_) | Lookup::MaxTimestamp => {
            // Opens a batch to look at its records, which may mean to wait for the disk.
            let found = tokio::task::spawn_blocking(move || search(&partition, lookup)).await;
            found.map_err(|_| ErrorCode::NotLeaderOrFollower)?
        }
        _ => edge(&partition, lookup, replica_id),
    }
    .map_err(|error| ErrorCode::from(&error))
}

/// The offset at an edge of the log; edges of what is tiered do not exist.
fn edge(partition: &Partition, lookup: Lookup, replica_id: i32) -> Result<TimestampOffset, LogError> {
    let offsets = partition.offsets()?;
    let (offset, leader_epoch) = match lookup {
        Lookup::Latest if replica_id >= 0 => (offsets.log_end_offset, Some(partition.leader_epoch())),
        // Without open transactions the last stable offset is the high watermark: isolation makes no difference.
        Lookup::Latest => (offsets.last_stable_offset, Some(partition.leader_epoch())),
        Lookup::Earliest | Lookup::EarliestLocal => {
            (offsets.log_start_offset, partition.epoch_at(offsets.log_start_offset)?)
        }
        Lookup::LatestTiered | Lookup::EarliestPendingUpload | Lookup::MaxTimestamp | Lookup::At(_) => {
            (-1, None)
        }
    };
    Ok(TimestampOffset { offset, timestamp: -1, leader_epoch: leader_epoch.unwrap_or(-1) })
}

fn search(partition: &Arc<Partition>, lookup: Lookup) -> Result<TimestampOffset, LogError> {
    let found = match lookup {
        Lookup::At(timestamp) => partition.offset_for_timestamp(timestamp)?,
        _ => partition.max_timestamp()?,
    };
    Ok(found.unwrap_or(TimestampOffset { offset: -1, timestamp: -1, leader_epoch: -1 }))
}

fn answer(partition_index: i32, found: Result<TimestampOffset, ErrorCode>) -> ListOffsetsPartitionResponse {
    match found {
        Ok(TimestampOffset { offset, timestamp, leader_epoch }) => ListOffsetsPartitionResponse {
            partition_index,
            timestamp,
            offset,
            leader_epoch,
            ..Default::default()
        },
        Err(code) => {
            ListOffsetsPartitionResponse { partition_index, error_code: code.into(), ..Default::default() }
        }
    }
}
