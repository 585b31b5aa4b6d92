//! `ottla queue stats`.

use std::io;

use clap::{ArgGroup, Args};
use serde_json::Value;

use super::http::{Door, path};
use crate::cli::CommandError;
use crate::cli::output::{NOTHING, print_json, print_table};

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("which").required(true).args(["queues", "all"]))]
pub(super) struct Flags {
    /// Names of the queues
    #[arg(value_name = "QUEUE")]
    queues: Vec<String>,
    /// All queues
    #[arg(long)]
    all: bool,
    /// Print one JSON object a line: one a queue, with all that is counted
    #[arg(long)]
    json: bool,
}

/// Titles, and where the numbers are.
const COLUMNS: [(&str, &str); 12] = [
    ("READY", "/counts/ready"),
    ("IN FLIGHT", "/counts/in_flight"),
    ("DELAYED", "/counts/delayed"),
    ("DEAD LETTERS", "/stats/dead_letters"),
    ("OLDEST MS", "/stats/oldest_age_ms"),
    ("RECEIVED/S", "/stats/receive_rate"),
    ("RETRIED/S", "/stats/retry_rate"),
    ("ACKED", "/stats/acknowledged"),
    ("WAIT P50 MS", "/stats/wait/p50_ms"),
    ("P99", "/stats/wait/p99_ms"),
    ("WORK P50 MS", "/stats/processing/p50_ms"),
    ("P99", "/stats/processing/p99_ms"),
];

pub(super) fn run(door: &Door, flags: &Flags) -> Result<(), CommandError> {
    let names = match flags.all {
        true => {
            let listed = door.get("/queues")?;
            let queues = listed["queues"].as_array().cloned().unwrap_or_default();
            queues.iter().filter_map(|queue| Some(queue["name"].as_str()?.to_owned())).collect()
        }
        false => flags.queues.clone(),
    };
    let mut queues = Vec::with_capacity(names.len());
    for name in &names {
        queues.push(door.get(&path(name, "", &[]))?);
    }
    let mut out = io::stdout().lock();
    if flags.json {
        let shown = |queue: &Value| {
            serde_json::json!({
                "queue": queue["name"],
                "partitions": queue["partitions"],
                "counts": queue["counts"],
                "stats": queue["stats"],
            })
        };
        let printed = queues.iter().try_for_each(|queue| print_json(&mut out, &shown(queue)));
        return printed.map_err(CommandError::Output);
    }
    let titles: Vec<_> = ["QUEUE"].into_iter().chain(COLUMNS.map(|(title, _)| title)).collect();
    let row = |queue: &Value| {
        let name = queue["name"].as_str().unwrap_or_default().to_owned();
        let number = |(_, place): (&str, &str)| match queue.pointer(place) {
            None | Some(Value::Null) => NOTHING.to_owned(),
            Some(number) => number.to_string().trim_end_matches(".0").to_owned(),
        };
        [name].into_iter().chain(COLUMNS.map(number)).collect()
    };
    print_table(&mut out, &titles, queues.iter().map(row).collect(), "").map_err(CommandError::Output)
}
