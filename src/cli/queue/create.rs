//! `ottla queue create`.

use clap::Args;

use super::ENABLE;
use crate::cli::CommandError;
use crate::cli::client::Cluster;
use crate::cli::output::say;
use crate::cli::topic::create::{Wanted, create, wait_for_leaders};
use crate::config::QueueSpec;
use crate::protocol::ErrorCode;
use crate::protocol::wire::Str;

#[derive(Args, Debug)]
pub(super) struct Flags {
    /// Names of the new queues
    #[arg(required = true, value_name = "QUEUE")]
    queues: Vec<Str>,
    /// Partitions of each: what is in order, is in order within one
    #[arg(
        long,
        short,
        value_name = "N",
        default_value_t = QueueSpec::DEFAULT_PARTITIONS,
        value_parser = clap::value_parser!(i32).range(1..)
    )]
    partitions: i32,
    /// A setting of each, as `ottla queue describe` names them. Repeatable
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = super::setting)]
    config: Vec<(Str, Str)>,
    /// A config of the topic of each. Repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = crate::cli::topic::key_value)]
    topic_config: Vec<(Str, Str)>,
    /// Leave those that are there already as they are
    #[arg(long)]
    if_not_exists: bool,
}

pub(super) fn run(cluster: &mut Cluster, flags: &Flags) -> Result<(), CommandError> {
    let mut configs = vec![(Str::from_static(ENABLE), Str::from_static("true"))];
    configs.extend(flags.config.iter().chain(&flags.topic_config).cloned());
    let topic = Wanted { partitions: Some(flags.partitions), ..Wanted::default() };
    let mut refused = Vec::new();
    for name in &flags.queues {
        match create(cluster, name, &topic, &configs) {
            Ok(()) => {
                wait_for_leaders(cluster, name)?;
                say(&format!("created {name}"))?;
            }
            Err(error) if flags.if_not_exists && error.is(ErrorCode::TopicAlreadyExists) => {
                // A topic of the name that is no queue is not what was asked for.
                match super::settings(cluster, name) {
                    Ok(_) => say(&format!("{name} is there already"))?,
                    Err(error) => refused.push(error),
                }
            }
            Err(error) => refused.push(error),
        }
    }
    if refused.is_empty() { Ok(()) } else { Err(CommandError::Refusals(refused)) }
}
