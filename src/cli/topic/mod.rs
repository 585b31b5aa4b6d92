//! `ottla topic`: list, make, describe, alter and delete topics of any Kafka broker.

pub(super) mod alter;
pub(super) mod create;
pub(super) mod delete;
pub(super) mod describe;
mod list;

use clap::{Args, Subcommand};

use super::client::ClusterFlags;
use super::{CommandError, EXIT_CODES};
use crate::protocol::wire::Str;

const EXAMPLES: &str = "\
Examples:
  ottla topic list
  ottla topic create letters --partitions 3 --config retention.ms=86400000
  ottla topic describe letters
  ottla topic alter letters --partitions 6 --delete-config retention.ms
  ottla topic delete letters diaries --if-exists
  ottla topic list --json --bootstrap broker-1:9092,broker-2:9092";

/// DescribeConfigs' and AlterConfigs' number of a topic.
pub(super) const TOPIC_RESOURCE: i8 = 2;

#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"), arg_required_else_help = false)]
pub(super) struct Flags {
    #[command(flatten)]
    cluster: ClusterFlags,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Names of topics, with how many partitions and replicas they have
    List(list::Flags),
    /// Make topics
    Create(create::Flags),
    /// Partitions with leaders, replicas and offsets, and configs that differ from the default
    Describe(describe::Flags),
    /// Add partitions, set and delete configs
    Alter(alter::Flags),
    /// Delete topics with all that is in them
    Delete(delete::Flags),
}

/// Does one of them.
pub(super) fn run(flags: Flags) -> Result<(), CommandError> {
    let mut cluster = flags.cluster.connect()?;
    match flags.what {
        What::List(flags) => list::run(&mut cluster, &flags),
        What::Create(flags) => create::run(&mut cluster, &flags),
        What::Describe(flags) => describe::run(&mut cluster, &flags),
        What::Alter(flags) => alter::run(&mut cluster, &flags),
        What::Delete(flags) => delete::run(&mut cluster, &flags),
    }
}

/// A config on the command line.
pub(super) fn key_value(text: &str) -> Result<(Str, Str), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err("expected KEY=VALUE"),
    }
}

/// How a topic is named in an error.
fn named(topic: &str) -> String {
    format!("topic {topic:?}")
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
    fn a_config_has_a_key_and_perhaps_a_value() {
        assert_eq!(key_value("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(key_value("a="), Ok(("a".into(), "".into())));
        assert!(key_value("=a").is_err() && key_value("a").is_err());
    }
}
