//! DescribeLogDirs: what is in each log directory, and how much room it has.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::RequestContext;
use crate::catalog::View;
use crate::log::{LogDirectories, LogDirectory, LogError};
use crate::protocol::ErrorCode;
use crate::protocol::messages::describe_log_dirs::{
    DescribeLogDirsPartitionResult, DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeLogDirsResult,
    DescribeLogDirsTopic, DescribeLogDirsTopicResult,
};
use crate::protocol::wire::Str;

/// Answers with every directory; of partitions, with those asked for that are in it.
pub async fn handle(cx: RequestContext, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let (logs, view) = (Arc::clone(&cx.logs), cx.catalog.view());
    let wanted = request.topics.map(by_name);
    // Looks into folders: not on a thread that serves sockets.
    let described = tokio::task::spawn_blocking(move || describe(&logs, &view, wanted.as_ref())).await;
    // The pool is gone only when the process is about to be.
    let failed = DescribeLogDirsResponse {
        error_code: ErrorCode::NotLeaderOrFollower.into(),
        ..DescribeLogDirsResponse::default()
    };
    described.unwrap_or(failed)
}

type Wanted = HashMap<Str, HashSet<i32>>;

fn by_name(topics: Vec<DescribeLogDirsTopic>) -> Wanted {
    let mut wanted = Wanted::new();
    for topic in topics {
        wanted.entry(topic.topic).or_default().extend(topic.partitions);
    }
    wanted
}

fn describe(logs: &LogDirectories, view: &View, wanted: Option<&Wanted>) -> DescribeLogDirsResponse {
    let results = logs.all().iter().map(|directory| {
        let described = describe_directory(directory, view, wanted);
        let failed = |error: LogError| DescribeLogDirsResult {
            error_code: ErrorCode::from(&error).into(),
            ..DescribeLogDirsResult::default()
        };
        let path = std::path::absolute(directory.path()).unwrap_or_else(|_| directory.path().to_owned());
        let log_dir = Str::from(path.to_string_lossy().into_owned());
        DescribeLogDirsResult { log_dir, ..described.unwrap_or_else(failed) }
    });
    DescribeLogDirsResponse { results: results.collect(), ..DescribeLogDirsResponse::default() }
}

/// One with a file that cannot be looked at answers with an error as a whole, as in Kafka.
fn describe_directory(
    directory: &LogDirectory,
    view: &View,
    wanted: Option<&Wanted>,
) -> Result<DescribeLogDirsResult, LogError> {
    if directory.offline().is_some() {
        return Err(LogError::Offline);
    }
    let mut topics = Vec::new();
    for topic in view.topics() {
        let chosen = wanted.map(|wanted| wanted.get(&*topic.name));
        let is_wanted =
            |index: i32| chosen.is_none_or(|of_topic| of_topic.is_some_and(|of| of.contains(&index)));
        let mut partitions = Vec::new();
        for partition in &topic.partitions {
            if is_wanted(partition.index()) && directory.has(partition) {
                let bytes = partition.size_bytes()?;
                partitions.push(DescribeLogDirsPartitionResult {
                    partition_index: partition.index(),
                    partition_size: i64::try_from(bytes).unwrap_or(i64::MAX),
                    ..DescribeLogDirsPartitionResult::default()
                });
            }
        }
        if !partitions.is_empty() {
            topics.push(DescribeLogDirsTopicResult { name: Str::from(&*topic.name), partitions });
        }
    }
    let space = directory.space().ok();
    let bytes = |bytes: Option<u64>| bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    Ok(DescribeLogDirsResult {
        topics,
        total_bytes: bytes(space.map(|space| space.total_bytes)),
        usable_bytes: bytes(space.map(|space| space.usable_bytes)),
        ..DescribeLogDirsResult::default()
    })
}
