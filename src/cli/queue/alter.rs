//! `ottla queue alter`.

use clap::{ArgGroup, Args};

use crate::cli::CommandError;
use crate::cli::client::Cluster;
use crate::cli::output::say;
use crate::cli::topic::alter::{add_partitions, alter_configs};
use crate::protocol::wire::Str;

/// Flags of which one at least says what to do.
const CHANGES: [&str; 3] = ["partitions", "config", "delete_config"];

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("changes").required(true).multiple(true).args(CHANGES))]
pub(super) struct Flags {
    /// Name of the queue
    queue: Str,
    /// Partitions that it shall have, more than it has
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// A setting to set. Repeatable
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = super::setting)]
    config: Vec<(Str, Str)>,
    /// A setting that shall have its default again. Repeatable
    #[arg(long, short, value_name = "KEY", value_parser = super::setting_name)]
    delete_config: Vec<Str>,
}

/// Settings first: of the two they are refused more often, and then nothing has changed.
pub(super) fn run(cluster: &mut Cluster, flags: &Flags) -> Result<(), CommandError> {
    super::settings(cluster, &flags.queue)?;
    if !flags.config.is_empty() || !flags.delete_config.is_empty() {
        alter_configs(cluster, &flags.queue, &flags.config, &flags.delete_config)?;
    }
    if let Some(partitions) = flags.partitions {
        add_partitions(cluster, &flags.queue, partitions)?;
    }
    say(&format!("altered {}", flags.queue))
}
