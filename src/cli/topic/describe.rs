//! `ottla topic describe`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use clap::Args;
use serde::Serialize;

use crate::cli::CommandError;
use crate::cli::client::{ClientError, Cluster, Isolation, TopicPartition, code_of};
use crate::cli::output::{NOTHING, or_nothing, print_json, print_table};
use crate::cli::position::{Range, ranges};
use crate::protocol::api::Api;
use crate::protocol::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribedConfig,
};
use crate::protocol::messages::describe_log_dirs::{DescribeLogDirsRequest, DescribeLogDirsTopic};
use crate::protocol::messages::metadata::MetadataTopicResponse;
use crate::protocol::messages::{DescribeConfigs, DescribeLogDirs};
use crate::protocol::wire::Str;

/// DescribeConfigs' source of a value that nobody has set.
pub(in crate::cli) const DEFAULT_SOURCE: i8 = 5;

#[derive(Args, Debug)]
pub(super) struct Flags {
    /// Names of the topics
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<Str>,
    /// All configs, also those that have their default
    #[arg(long)]
    configs: bool,
    /// Print one JSON object a line: one a topic
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Topic {
    topic: String,
    /// None from brokers that give topics no ids.
    id: Option<String>,
    internal: bool,
    partitions: Vec<Partition>,
    configs: BTreeMap<String, Option<String>>,
}

#[derive(Serialize)]
struct Partition {
    partition: i32,
    leader: Option<i32>,
    replicas: Vec<i32>,
    isr: Vec<i32>,
    start_offset: Option<i64>,
    end_offset: Option<i64>,
    /// Bytes of the leader's log; none if it does not say.
    size_bytes: Option<i64>,
}

pub(super) fn run(cluster: &mut Cluster, flags: &Flags) -> Result<(), CommandError> {
    let mut refused = Vec::new();
    let mut out = io::stdout().lock();
    for (number, name) in flags.topics.iter().enumerate() {
        match describe(cluster, name, flags.configs) {
            Ok(topic) if flags.json => print_json(&mut out, &topic).map_err(CommandError::Output)?,
            Ok(topic) => {
                let gap = if number > 0 { "\n" } else { "" };
                write!(out, "{gap}").and_then(|()| topic.print(&mut out)).map_err(CommandError::Output)?;
            }
            Err(error) => refused.push(error),
        }
    }
    if refused.is_empty() { Ok(()) } else { Err(CommandError::Refusals(refused)) }
}

fn describe(cluster: &mut Cluster, name: &Str, all_configs: bool) -> Result<Topic, ClientError> {
    let topic = cluster.retrying(|cluster| cluster.topic(name))?;
    let brokers = cluster.brokers();
    let led = topic.partitions.iter().filter(|partition| brokers.contains(&partition.leader_id));
    let led: Vec<_> = led.map(|partition| TopicPartition::new(name, partition.partition_index)).collect();
    let ranges = ranges(cluster, led.iter(), Isolation::ReadUncommitted)?;
    let sizes = sizes(cluster, name, &topic);
    let configs = configs(cluster, name)?.into_iter();
    let configs = configs.filter(|config| all_configs || config.config_source != DEFAULT_SOURCE);
    Ok(Topic {
        topic: name.to_string(),
        id: (!topic.topic_id.is_zero()).then(|| topic.topic_id.to_string()),
        internal: topic.is_internal,
        partitions: partitions(&topic, name, &ranges, &sizes),
        configs: configs
            .map(|config| (config.name.to_string(), config.value.map(|value| value.to_string())))
            .collect(),
    })
}

fn partitions(
    topic: &MetadataTopicResponse,
    name: &Str,
    ranges: &BTreeMap<TopicPartition, Range>,
    sizes: &BTreeMap<i32, i64>,
) -> Vec<Partition> {
    let mut partitions = Vec::with_capacity(topic.partitions.len());
    for partition in &topic.partitions {
        let range = ranges.get(&TopicPartition::new(name, partition.partition_index));
        partitions.push(Partition {
            partition: partition.partition_index,
            leader: Some(partition.leader_id).filter(|leader| *leader >= 0),
            replicas: partition.replica_nodes.clone(),
            isr: partition.isr_nodes.clone(),
            start_offset: range.map(|range| range.start),
            end_offset: range.map(|range| range.end_exclusive),
            size_bytes: sizes.get(&partition.partition_index).copied(),
        });
    }
    partitions
}

/// Bytes of each partition, as its leader has it. No broker has to tell: it may be old, or not allow it.
fn sizes(cluster: &mut Cluster, name: &Str, topic: &MetadataTopicResponse) -> BTreeMap<i32, i64> {
    let mut led: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for partition in topic.partitions.iter().filter(|partition| partition.leader_id >= 0) {
        led.entry(partition.leader_id).or_default().push(partition.partition_index);
    }
    let mut sizes = BTreeMap::new();
    for (leader, partitions) in led {
        let wanted = DescribeLogDirsTopic { topic: name.clone(), partitions };
        let request = DescribeLogDirsRequest { topics: Some(vec![wanted]) };
        let answer = cluster.call::<DescribeLogDirs>(leader, &request).unwrap_or_default();
        let topics = answer.results.into_iter().flat_map(|directory| directory.topics);
        for partition in topics.flat_map(|topic| topic.partitions).filter(|one| !one.is_future_key) {
            sizes.insert(partition.partition_index, partition.partition_size);
        }
    }
    sizes
}

/// All configs of a topic.
///
/// # Errors
/// A broker refuses for good, or until the cluster's timeout.
pub(in crate::cli) fn configs(
    cluster: &mut Cluster,
    name: &Str,
) -> Result<Vec<DescribedConfig>, ClientError> {
    let resource = DescribeConfigsResource {
        resource_type: super::TOPIC_RESOURCE,
        resource_name: name.clone(),
        configuration_keys: None,
    };
    let request = DescribeConfigsRequest { resources: vec![resource], ..DescribeConfigsRequest::default() };
    cluster.retrying(|cluster| {
        let answer = cluster.call_any::<DescribeConfigs>(&request)?;
        let result = answer.results.into_iter().next();
        let result = result.ok_or(ClientError::Incomplete { api: DescribeConfigs::NAME })?;
        let what = format!("configs of {}", super::named(name));
        code_of(&what, result.error_code, result.error_message.as_ref())?;
        Ok(result.configs)
    })
}

impl Topic {
    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let internal = if self.internal { ", internal" } else { "" };
        writeln!(out, "{}  id {}{internal}", self.topic, or_nothing(self.id.as_ref()))?;
        let titles = ["PARTITION", "LEADER", "REPLICAS", "ISR", "START", "END", "RECORDS", "BYTES"];
        let rows = self.partitions.iter().map(Partition::cells).collect();
        print_table(out, &titles, rows, "  ")?;
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| NOTHING.to_owned());
        let configs = self.configs.iter().map(|(name, config)| vec![name.clone(), value(config)]);
        if self.configs.is_empty() {
            Ok(())
        } else {
            print_table(out, &["CONFIG", "VALUE"], configs.collect(), "  ")
        }
    }
}

impl Partition {
    fn cells(&self) -> Vec<String> {
        let list = |nodes: &[i32]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        // As many as the offsets between them: of a compacted topic that is more than there are.
        let records = self.start_offset.zip(self.end_offset).map(|(start, end)| end - start);
        vec![
            self.partition.to_string(),
            or_nothing(self.leader),
            list(&self.replicas),
            list(&self.isr),
            or_nothing(self.start_offset),
            or_nothing(self.end_offset),
            or_nothing(records),
            or_nothing(self.size_bytes),
        ]
    }
}
