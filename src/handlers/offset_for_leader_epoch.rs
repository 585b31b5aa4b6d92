//! OffsetForLeaderEpoch: where the log of an epoch ends, for clients that check their position. KIP-320.

use super::RequestContext;
use crate::protocol::ErrorCode;
use crate::protocol::messages::offset_for_leader_epoch::{
    EpochEndOffset, EpochPartition, EpochTopicResult, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
};

/// Answers with the largest epoch up to the one asked for and its end; -1 and -1 if none is known.
pub async fn handle(
    cx: RequestContext,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|topic| EpochTopicResult {
        partitions: topic.partitions.iter().map(|wanted| answer(&cx, &topic.topic, wanted)).collect(),
        topic: topic.topic,
    });
    OffsetForLeaderEpochResponse { topics: topics.collect(), ..Default::default() }
}

fn answer(cx: &RequestContext, topic: &str, wanted: &EpochPartition) -> EpochEndOffset {
    let answer = EpochEndOffset { partition: wanted.partition, ..Default::default() };
    match find(cx, topic, wanted) {
        Ok(Some((leader_epoch, end_offset))) => EpochEndOffset { leader_epoch, end_offset, ..answer },
        Ok(None) => answer,
        Err(code) => EpochEndOffset { error_code: code.into(), ..answer },
    }
}

fn find(cx: &RequestContext, topic: &str, wanted: &EpochPartition) -> Result<Option<(i32, i64)>, ErrorCode> {
    let partition = cx.leader(topic, wanted.partition, wanted.current_leader_epoch)?;
    partition.end_offset_for_epoch(wanted.leader_epoch).map_err(|error| ErrorCode::from(&error))
}
