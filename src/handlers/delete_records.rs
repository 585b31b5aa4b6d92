//! DeleteRecords: move the log start offset up.

use super::RequestContext;
use crate::protocol::ErrorCode;
use crate::protocol::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse,
    DeleteRecordsTopicResult,
};

/// Answers every partition with its log start offset afterwards.
pub async fn handle(cx: RequestContext, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let mut response = DeleteRecordsResponse::default();
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            let partition_index = wanted.partition_index;
            let answer = DeleteRecordsPartitionResult { partition_index, low_watermark: -1, error_code: 0 };
            partitions.push(match delete(&cx, &topic.name, wanted).await {
                Ok(low_watermark) => DeleteRecordsPartitionResult { low_watermark, ..answer },
                Err(code) => DeleteRecordsPartitionResult { error_code: code.into(), ..answer },
            });
        }
        response.topics.push(DeleteRecordsTopicResult { name: topic.name, partitions });
    }
    response
}

async fn delete(cx: &RequestContext, topic: &str, wanted: &DeleteRecordsPartition) -> Result<i64, ErrorCode> {
    let topic = cx.catalog.topic(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if topic.is_internal() {
        return Err(ErrorCode::InvalidTopicException);
    }
    let partition =
        topic.partition(wanted.partition_index).ok_or(ErrorCode::UnknownTopicOrPartition)?.clone();
    let config = partition.config();
    if config.compact && !config.delete {
        return Err(ErrorCode::PolicyViolation);
    }
    let before = wanted.offset;
    // Removes files and syncs the checkpoint: not on a thread that serves sockets.
    let deleted = tokio::task::spawn_blocking(move || partition.delete_records(before)).await;
    deleted.map_err(|_| ErrorCode::NotLeaderOrFollower)?.map_err(|error| ErrorCode::from(&error))
}
