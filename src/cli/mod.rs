//! The command line: one file per subcommand. Parsing ends in a checked configuration; faults end in lines on stderr and
//! an exit code: 1 if a broker refused or data is bad, 2 if the user must change something or nobody answers.

mod bench;
mod client;
mod completions;
mod consume;
mod group;
mod import;
mod interrupt;
mod log;
pub mod logging;
mod output;
mod position;
mod produce;
mod queue;
mod serve;
mod text;
mod topic;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::error::ErrorKind;

use crate::broker::StartError;
use crate::catalog::topic_config::InvalidConfig;
use crate::config::ConfigError;
use crate::record::Codec;

/// The exit code for what was refused or found bad.
const REFUSED: u8 = 1;
/// The exit code for what the user must change: flags, files, addresses, directories.
const USER_ERROR: u8 = 2;
/// Longest time that a flag may ask for.
const SECONDS_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The end of each tool's help.
const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 a broker refused, or data is bad; 2 the command line is wrong, or no broker answers.";

/// A Kafka-wire-compatible log server, and the tools for any Kafka broker. Without a subcommand it serves.
#[derive(Parser, Debug)]
#[command(name = "ottla", version, args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::Flags,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Serve clients (the default).
    Serve(serve::Flags),
    /// List, make, describe, alter and delete topics
    Topic(topic::Flags),
    /// Make and describe queues; send, receive and look at messages; deal with dead letters
    Queue(queue::Flags),
    /// Append lines of stdin or files to a topic
    Produce(produce::Flags),
    /// Print records of a topic
    Consume(consume::Flags),
    /// List and describe consumer groups, reset their offsets, delete them
    Group(group::Flags),
    /// Look into the files of a log directory
    Log(log::Flags),
    /// Copy what a Kafka broker has stored into a directory for ottla
    Import(import::Flags),
    /// Measure a broker: throughput, latency, start
    Bench(bench::Flags),
    /// Print a script that completes ottla's command lines in a shell
    Completions(completions::Flags),
}

/// Why a command did not do its work. Displays as a line, or one for each of several things refused.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Bench(#[from] bench::BenchError),
    #[error(transparent)]
    Client(#[from] client::ClientError),
    #[error("{}", lines(.0))]
    Refusals(Vec<client::ClientError>),
    #[error(transparent)]
    Produce(#[from] produce::ProduceError),
    #[error(transparent)]
    Consume(#[from] consume::ConsumeError),
    #[error(transparent)]
    Group(#[from] group::GroupError),
    #[error(transparent)]
    Log(#[from] log::DumpError),
    #[error(transparent)]
    Import(#[from] import::ImportError),
    #[error(transparent)]
    Http(#[from] queue::HttpError),
    #[error("cannot write: {0}")]
    Output(#[source] io::Error),
    #[error("log directory {reason}: a broker cannot go on without it")]
    Disk { reason: String },
    #[error("the system gives no threads or signals: {0}")]
    Runtime(#[source] io::Error),
    #[error("topic {topic:?}: {source}")]
    Topic { topic: String, source: InvalidConfig },
    #[error("defaults of topics: {source}")]
    TopicDefaults { source: InvalidConfig },
    #[error("command line: invalid value {value:?} for {flag}: expected {expected}")]
    Flag { flag: &'static str, value: String, expected: &'static str },
    #[error("invalid value {filter:?} for ottla.log.filter: {source}")]
    LogFilter { filter: String, source: tracing_subscriber::filter::ParseError },
}

impl CommandError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Client(error) if !error.is_of_connection() => REFUSED,
            Self::Http(error) if error.is_refusal() => REFUSED,
            Self::Refusals(_) | Self::Output(_) => REFUSED,
            Self::Produce(error) => error.exit_code(),
            Self::Consume(error) => error.exit_code(),
            Self::Group(error) => error.exit_code(),
            Self::Log(error) => error.exit_code(),
            Self::Import(error) => error.exit_code(),
            _ => USER_ERROR,
        }
    }

    /// Whether the reader of our output has seen enough (`ottla consume … | head`): no failure.
    fn is_closed_output(&self) -> bool {
        let error = match self {
            Self::Output(error) | Self::Consume(consume::ConsumeError::Output(error)) => error,
            _ => return false,
        };
        error.kind() == io::ErrorKind::BrokenPipe
    }
}

fn lines(errors: &[client::ClientError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Runs the program.
pub fn main() -> ExitCode {
    let command_line = match CommandLine::try_parse() {
        Ok(command_line) => command_line,
        Err(error) => return report_unparsed(&error),
    };
    let done = match command_line.command {
        Some(Command::Serve(flags)) => serve::run(flags),
        Some(Command::Topic(flags)) => topic::run(flags),
        Some(Command::Queue(flags)) => queue::run(flags),
        Some(Command::Produce(flags)) => produce::run(flags),
        Some(Command::Consume(flags)) => consume::run(flags),
        Some(Command::Group(flags)) => group::run(flags),
        Some(Command::Log(flags)) => log::run(flags),
        Some(Command::Import(flags)) => import::run(&flags),
        Some(Command::Bench(flags)) => bench::run(flags).map_err(CommandError::from),
        Some(Command::Completions(flags)) => completions::run(flags),
        None => serve::run(command_line.serve),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_closed_output() => ExitCode::SUCCESS,
        Err(error) => {
            error.to_string().lines().for_each(|line| eprintln!("ottla: {line}"));
            ExitCode::from(error.exit_code())
        }
    }
}

fn report_unparsed(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A closed stdout (`ottla --help | head -1`) is no failure.
        let _: Result<(), std::io::Error> = error.print();
        return ExitCode::SUCCESS;
    }
    eprintln!("ottla: {}", one_line(&error.to_string()));
    ExitCode::from(USER_ERROR)
}

/// What the parser says, without the usage that it appends.
fn one_line(message: &str) -> String {
    let is_usage = |line: &&str| line.starts_with("Usage:") || line.starts_with("For more information");
    let lines = message.lines().map(str::trim).take_while(|line| !is_usage(line));
    let said: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    said.join(" ").trim_start_matches("error: ").to_owned()
}

fn codec(name: &str) -> Result<Codec, &'static str> {
    let found = Codec::ALL.into_iter().find(|codec| codec.name() == name);
    found.ok_or("expected none, gzip, snappy, lz4 or zstd")
}

fn acks(text: &str) -> Result<i16, &'static str> {
    match text {
        "all" | "-1" => Ok(-1),
        "1" => Ok(1),
        "0" => Ok(0),
        _ => Err("expected all, 1 or 0"),
    }
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|seconds| *seconds <= SECONDS_MAX).ok_or("expected seconds, such as 10 or 0.5")
}

fn some_seconds(text: &str) -> Result<Duration, &'static str> {
    seconds(text)
        .and_then(|seconds| if seconds.is_zero() { Err("expected more than 0 seconds") } else { Ok(seconds) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn serving_is_the_default_command() {
        let bare = CommandLine::try_parse_from(["ottla", "--data", "x"]).unwrap();
        let named = CommandLine::try_parse_from(["ottla", "serve", "--data", "x"]).unwrap();
        let Some(Command::Serve(named)) = named.command else { panic!("serve is a subcommand") };
        assert_eq!(bare.serve, named);
        assert!(bare.command.is_none());
    }

    #[test]
    fn a_fault_of_the_command_line_is_one_line_that_names_it() {
        for (arguments, named) in [
            (&["ottla", "--dta", "x"][..], "--dta"),
            (&["ottla", "--data"], "--data"),
            (&["ottla", "--ephemeral", "--data", "x"], "--data"),
            (&["ottla", "--flush", "os", "--flush", "commit"], "--flush"),
            (&["ottla", "srve"], "srve"),
        ] {
            let error = CommandLine::try_parse_from(arguments).unwrap_err();
            let message = one_line(&error.to_string());
            assert!(message.contains(named), "{message}");
            assert!(
                !message.contains('\n') && !message.contains("Usage") && !message.contains("error:"),
                "{message}"
            );
        }
    }
}
