//! `ottla queue list`.

use std::collections::HashMap;
use std::io;

use clap::Args;
use serde::Serialize;

use super::ENABLE;
use crate::cli::CommandError;
use crate::cli::client::{ClientError, Cluster, code_of};
use crate::cli::output::{Row, or_nothing, print};
use crate::cli::topic::TOPIC_RESOURCE;
use crate::protocol::ErrorCode;
use crate::protocol::messages::DescribeConfigs;
use crate::protocol::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResult,
};
use crate::protocol::wire::Str;

const VISIBILITY: &str = "ottla.queue.visibility.timeout.ms";
const RECEIVES: &str = "ottla.queue.max.receive.count";
const DEAD_LETTERS: &str = "ottla.queue.dead.letter.queue";
const FIFO: &str = "ottla.queue.fifo";
const SOURCE: &str = "ottla.queue.source";

#[derive(Args, Debug)]
pub(super) struct Flags {
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listed {
    queue: String,
    partitions: usize,
    fifo: bool,
    visibility_timeout_ms: Option<i64>,
    /// None: any number.
    max_receive_count: Option<i64>,
    dead_letter_queue: Option<String>,
    /// Topics that it reads beside its own, by name or pattern.
    source: Option<String>,
}

impl Row for Listed {
    const TITLES: &'static [&'static str] =
        &["QUEUE", "PARTITIONS", "FIFO", "VISIBILITY MS", "MAX RECEIVES", "DEAD LETTERS", "ALSO READS"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.queue.clone(),
            self.partitions.to_string(),
            if self.fifo { "yes" } else { "no" }.to_owned(),
            or_nothing(self.visibility_timeout_ms),
            or_nothing(self.max_receive_count),
            or_nothing(self.dead_letter_queue.as_ref()),
            or_nothing(self.source.as_ref()),
        ]
    }
}

pub(super) fn run(cluster: &mut Cluster, flags: &Flags) -> Result<(), CommandError> {
    let mut partitions = HashMap::new();
    for topic in cluster.retrying(|cluster| cluster.metadata(None, false))? {
        let name = topic.name.unwrap_or_default();
        code_of(&format!("topic {name:?}"), topic.error_code, None)?;
        if !topic.is_internal {
            partitions.insert(name, topic.partitions.len());
        }
    }
    let mut rows: Vec<Listed> = described(cluster, partitions.keys())?
        .iter()
        .filter_map(|topic| listed(topic, &partitions))
        .collect();
    rows.sort_by(|one, other| one.queue.cmp(&other.queue));
    print(&mut io::stdout().lock(), &rows, flags.json).map_err(CommandError::Output)
}

/// The configs of topics that are shown. Topics that have gone meanwhile are left out.
fn described<'a>(
    cluster: &mut Cluster,
    topics: impl Iterator<Item = &'a Str>,
) -> Result<Vec<DescribeConfigsResult>, ClientError> {
    let keys = [ENABLE, VISIBILITY, RECEIVES, DEAD_LETTERS, FIFO, SOURCE].map(Str::from_static);
    let resource = |topic: &Str| DescribeConfigsResource {
        resource_type: TOPIC_RESOURCE,
        resource_name: topic.clone(),
        configuration_keys: Some(keys.to_vec()),
    };
    let request = DescribeConfigsRequest {
        resources: topics.map(resource).collect(),
        ..DescribeConfigsRequest::default()
    };
    cluster.retrying(|cluster| {
        let mut results = cluster.call_any::<DescribeConfigs>(&request)?.results;
        results.retain(|result| result.error_code != i16::from(ErrorCode::UnknownTopicOrPartition));
        for result in &results {
            let what = format!("configs of topic {:?}", result.resource_name);
            code_of(&what, result.error_code, result.error_message.as_ref())?;
        }
        Ok(results)
    })
}

/// The row of a topic, if it is a queue.
fn listed(topic: &DescribeConfigsResult, partitions: &HashMap<Str, usize>) -> Option<Listed> {
    if !topic.configs.iter().any(super::is_enabling) {
        return None;
    }
    let value = |name: &str| {
        let config = topic.configs.iter().find(|config| &config.name[..] == name)?;
        config.value.as_deref().filter(|value| !value.is_empty())
    };
    let number = |name| value(name)?.parse::<i64>().ok();
    Some(Listed {
        queue: topic.resource_name.to_string(),
        partitions: partitions.get(&topic.resource_name).copied().unwrap_or_default(),
        fifo: value(FIFO) == Some("true"),
        visibility_timeout_ms: number(VISIBILITY),
        max_receive_count: number(RECEIVES).filter(|count| *count > 0),
        dead_letter_queue: value(DEAD_LETTERS).map(str::to_owned),
        source: value(SOURCE).map(str::to_owned),
    })
}
