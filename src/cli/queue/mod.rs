//! `ottla queue`: list, make, describe, alter and delete queues: topics with `ottla.queue.enable`, by Kafka's admin APIs; and what is
//! in them, by HTTP.

mod alter;
mod create;
mod delete;
mod describe;
mod http;
mod letters;
mod list;
mod messages;
mod stats;

use clap::{Args, Subcommand};

use self::http::{Door, HttpFlags};
pub(super) use self::http::{HTTP_VARIABLE, HttpError};
use super::client::{ClientError, Cluster, ClusterFlags};
use super::topic::describe::configs;
use super::{CommandError, EXIT_CODES};
use crate::catalog::queue_config::{ENABLE, PREFIX};
use crate::protocol::messages::describe_configs::DescribedConfig;
use crate::protocol::wire::Str;

const EXAMPLES: &str = "\
Examples:
  ottla queue create jobs --config visibility.timeout.ms=60000
  ottla queue create jobs --config max.receive.count=5 --config dead.letter.queue=jobs-dead
  ottla queue create orders --config fifo=true --partitions 4
  ottla queue list
  ottla queue describe jobs
  ottla queue alter jobs --config delay.ms=5000 --delete-config visibility.timeout.ms
  ottla queue delete jobs
  ottla queue send jobs one two --header kind=number --delay 5
  ottla queue receive jobs --max 10 --wait 20 --ack
  ottla queue peek jobs --state delayed --json
  ottla queue stats --all
  ottla queue dlq list jobs --reason max-receive-count
  ottla queue dlq redrive jobs --body timeout --rate 50 --dry-run
  ottla queue dlq purge jobs --older-than 604800 --yes
  ottla queue purge jobs --yes";

#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"), arg_required_else_help = false)]
pub(super) struct Flags {
    #[command(flatten)]
    cluster: ClusterFlags,
    #[command(flatten)]
    http: HttpFlags,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Names of queues, and what sets them apart
    List(list::Flags),
    /// Make queues, each with a topic of its name
    Create(create::Flags),
    /// All settings of queues
    Describe(describe::Flags),
    /// Set settings, or take them back to their defaults; add partitions
    Alter(alter::Flags),
    /// Delete queues with their topics and all that is in them
    Delete(delete::Flags),
    /// Messages and how long they took, by queue
    Stats(stats::Flags),
    /// Look at messages without receiving them
    Peek(messages::PeekFlags),
    /// Put messages in
    Send(messages::SendFlags),
    /// Take messages out: until they are acknowledged, or their time is over, nobody else gets them
    Receive(messages::ReceiveFlags),
    /// Drop all messages, or those that are such
    Purge(letters::PurgeFlags),
    /// Dead letters: list, show, send them on, drop them
    Dlq(letters::Flags),
}

/// Does one of them.
pub(super) fn run(flags: Flags) -> Result<(), CommandError> {
    let cluster = || flags.cluster.connect();
    let door = || Door::new(&flags.http, flags.cluster.timeout());
    match flags.what {
        What::List(flags) => list::run(&mut cluster()?, &flags),
        What::Create(flags) => create::run(&mut cluster()?, &flags),
        What::Describe(flags) => describe::run(&mut cluster()?, &flags),
        What::Alter(flags) => alter::run(&mut cluster()?, &flags),
        What::Delete(flags) => delete::run(&mut cluster()?, &flags),
        What::Stats(flags) => stats::run(&door()?, &flags),
        What::Peek(flags) => messages::peek(&door()?, &flags),
        What::Send(flags) => messages::send(&door()?, &flags),
        What::Receive(flags) => messages::receive(&door()?, &flags),
        What::Purge(flags) => letters::purge(&door()?, &flags),
        What::Dlq(flags) => letters::run(&door()?, &flags),
    }
}

/// The topic config that a setting is.
fn full_name(setting: &str) -> Str {
    if setting.starts_with(PREFIX) { setting.into() } else { format!("{PREFIX}{setting}").into() }
}

/// A setting on the command line, as a topic config.
fn setting(text: &str) -> Result<(Str, Str), &'static str> {
    super::topic::key_value(text).map(|(name, value)| (full_name(&name), value))
}

/// The name of a setting on the command line, as that of a topic config.
fn setting_name(text: &str) -> Result<Str, &'static str> {
    if text.is_empty() { Err("expected KEY") } else { Ok(full_name(text)) }
}

/// The settings of a queue, as topic configs.
///
/// # Errors
/// There is no such topic, or it is no queue.
fn settings(cluster: &mut Cluster, queue: &Str) -> Result<Vec<DescribedConfig>, ClientError> {
    let mut settings = configs(cluster, queue)?;
    if !settings.iter().any(is_enabling) {
        return Err(ClientError::NotAQueue { name: queue.to_string() });
    }
    settings.retain(|config| config.name.starts_with(PREFIX) && &config.name[..] != ENABLE);
    Ok(settings)
}

/// Whether a config makes its topic a queue.
fn is_enabling(config: &DescribedConfig) -> bool {
    &config.name[..] == ENABLE && config.value.as_deref() == Some("true")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::CommandLine;

    #[test]
    fn the_examples_are_command_lines() {
        for example in EXAMPLES.lines().skip(1) {
            CommandLine::try_parse_from(example.split_whitespace()).unwrap();
        }
    }

    #[test]
    fn a_setting_is_a_topic_config_with_or_without_its_prefix() {
        let delay = ("ottla.queue.delay.ms".into(), "5".into());
        assert_eq!(setting("delay.ms=5").as_ref(), Ok(&delay));
        assert_eq!(setting("ottla.queue.delay.ms=5"), Ok(delay));
        assert!(setting("delay.ms").is_err() && setting_name("").is_err());
        assert_eq!(setting_name("fifo"), Ok("ottla.queue.fifo".into()));
    }
}
