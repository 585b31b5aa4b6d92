//! The command line: one file per subcommand. Parsing ends in a checked configuration; faults end in one line on stderr
//! and exit code 2.

mod bench;
pub mod logging;
mod serve;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::broker::StartError;
use crate::catalog::topic_config::InvalidConfig;
use crate::config::ConfigError;

/// The exit code for what the user must change: flags, files, addresses, directories.
const USER_ERROR: u8 = 2;

/// A Kafka-wire-compatible log server. Without a subcommand it serves.
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
    /// Measure a broker: throughput, latency, start
    Bench(bench::Flags),
}

/// Why a command did not do its work. Displays as one line.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Bench(#[from] bench::BenchError),
    #[error("the system gives no threads or signals: {0}")]
    Runtime(#[from] std::io::Error),
    #[error("topic {topic:?}: {source}")]
    Topic { topic: String, source: InvalidConfig },
    #[error("defaults of topics: {source}")]
    TopicDefaults { source: InvalidConfig },
    #[error("command line: invalid value {value:?} for {flag}: expected {expected}")]
    Flag { flag: &'static str, value: String, expected: &'static str },
    #[error("invalid value {filter:?} for ottla.log.filter: {source}")]
    LogFilter { filter: String, source: tracing_subscriber::filter::ParseError },
}

/// Runs the program.
pub fn main() -> ExitCode {
    let command_line = match CommandLine::try_parse() {
        Ok(command_line) => command_line,
        Err(error) => return report_unparsed(&error),
    };
    let done = match command_line.command {
        Some(Command::Serve(flags)) => serve::run(flags),
        Some(Command::Bench(flags)) => bench::run(flags).map_err(CommandError::from),
        None => serve::run(command_line.serve),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ottla: {error}");
            ExitCode::from(USER_ERROR)
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
            (&["ottla", "--data", "x", "--data", "y"], "--data"),
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
