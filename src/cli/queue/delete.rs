//! `ottla queue delete`.

use clap::Args;

use crate::cli::CommandError;
use crate::cli::client::Cluster;
use crate::cli::output::say;
use crate::cli::topic::delete::delete;
use crate::protocol::ErrorCode;
use crate::protocol::wire::Str;

#[derive(Args, Debug)]
pub(super) struct Flags {
    /// Names of the queues
    #[arg(required = true, value_name = "QUEUE")]
    queues: Vec<Str>,
    /// Pass over those that are not there
    #[arg(long)]
    if_exists: bool,
}

pub(super) fn run(cluster: &mut Cluster, flags: &Flags) -> Result<(), CommandError> {
    let mut refused = Vec::new();
    for name in &flags.queues {
        // A topic that is no queue is not deleted by mistake.
        match super::settings(cluster, name).and_then(|_| delete(cluster, name)) {
            Ok(()) => say(&format!("deleted {name}"))?,
            Err(error) if flags.if_exists && error.is(ErrorCode::UnknownTopicOrPartition) => {
                say(&format!("{name} is not there"))?;
            }
            Err(error) => refused.push(error),
        }
    }
    if refused.is_empty() { Ok(()) } else { Err(CommandError::Refusals(refused)) }
}
