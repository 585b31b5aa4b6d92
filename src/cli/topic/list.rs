//! `ottla topic list`.

use std::io;

use clap::Args;
use serde::Serialize;

use crate::cli::CommandError;
use crate::cli::client::{Cluster, code_of};
use crate::cli::output::{Row, print};

#[derive(Args, Debug)]
pub(super) struct Flags {
    /// Also those that brokers keep for themselves
    #[arg(long)]
    internal: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Listed {
    topic: String,
    partitions: usize,
    replicas: usize,
    internal: bool,
}

impl Row for Listed {
    const TITLES: &'static [&'static str] = &["TOPIC", "PARTITIONS", "REPLICAS"];

    fn cells(&self) -> Vec<String> {
        vec![self.topic.clone(), self.partitions.to_string(), self.replicas.to_string()]
    }
}

pub(super) fn run(cluster: &mut Cluster, flags: &Flags) -> Result<(), CommandError> {
    let mut rows = Vec::new();
    for topic in cluster.retrying(|cluster| cluster.metadata(None, false))? {
        let name = topic.name.unwrap_or_default();
        code_of(&super::named(&name), topic.error_code, None)?;
        if flags.internal || !topic.is_internal {
            rows.push(Listed {
                topic: name.to_string(),
                partitions: topic.partitions.len(),
                replicas: topic.partitions.first().map_or(0, |first| first.replica_nodes.len()),
                internal: topic.is_internal,
            });
        }
    }
    print(&mut io::stdout().lock(), &rows, flags.json).map_err(CommandError::Output)
}
