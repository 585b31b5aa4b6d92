//! `ottla queue describe`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use clap::Args;
use serde::Serialize;

use super::PREFIX;
use crate::cli::CommandError;
use crate::cli::client::{ClientError, Cluster};
use crate::cli::output::{NOTHING, print_json, print_table};
use crate::cli::topic::describe::DEFAULT_SOURCE;
use crate::protocol::wire::Str;

#[derive(Args, Debug)]
pub(super) struct Flags {
    /// Names of the queues
    #[arg(required = true, value_name = "QUEUE")]
    queues: Vec<Str>,
    /// Print one JSON object a line: one a queue
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Queue {
    queue: String,
    topic_id: String,
    partitions: usize,
    /// By name without `ottla.queue.`.
    settings: BTreeMap<String, Setting>,
}

#[derive(Serialize)]
struct Setting {
    value: Option<String>,
    /// Whether it is the default, unset.
    default: bool,
}

pub(super) fn run(cluster: &mut Cluster, flags: &Flags) -> Result<(), CommandError> {
    let mut refused = Vec::new();
    let mut out = io::stdout().lock();
    for (number, name) in flags.queues.iter().enumerate() {
        match describe(cluster, name) {
            Ok(queue) if flags.json => print_json(&mut out, &queue).map_err(CommandError::Output)?,
            Ok(queue) => {
                let gap = if number > 0 { "\n" } else { "" };
                write!(out, "{gap}").and_then(|()| queue.print(&mut out)).map_err(CommandError::Output)?;
            }
            Err(error) => refused.push(error),
        }
    }
    if refused.is_empty() { Ok(()) } else { Err(CommandError::Refusals(refused)) }
}

fn describe(cluster: &mut Cluster, name: &Str) -> Result<Queue, ClientError> {
    let settings = super::settings(cluster, name)?.into_iter().map(|config| {
        let value = config.value.map(|value| value.to_string());
        let name = config.name.strip_prefix(PREFIX).unwrap_or(&config.name).to_owned();
        (name, Setting { value, default: config.config_source == DEFAULT_SOURCE })
    });
    let settings = settings.collect();
    let topic = cluster.retrying(|cluster| cluster.topic(name))?;
    Ok(Queue {
        queue: name.to_string(),
        topic_id: topic.topic_id.to_string(),
        partitions: topic.partitions.len(),
        settings,
    })
}

impl Queue {
    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}  id {}, partitions {}", self.queue, self.topic_id, self.partitions)?;
        let row = |(name, setting): (&String, &Setting)| {
            let value = setting.value.as_ref().filter(|value| !value.is_empty());
            let from = if setting.default { "default" } else { "set" };
            vec![name.clone(), value.cloned().unwrap_or_else(|| NOTHING.to_owned()), from.to_owned()]
        };
        print_table(out, &["SETTING", "VALUE", "FROM"], self.settings.iter().map(row).collect(), "  ")
    }
}
