//! Log lines on stderr.

use std::io::{IsTerminal, stderr};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use super::CommandError;
use crate::config::{Config, LogFormat};

/// Target of the line that tells address, version and data directory: the one line below a warning that the default filter
/// lets through.
pub const START_TARGET: &str = "ottla::start";

/// Writes log lines from now on as `config` says. An embedding program that has set up its own lines keeps them.
pub(super) fn start(config: &Config) -> Result<(), CommandError> {
    let lines = tracing_subscriber::fmt().with_env_filter(filter(&config.log_filter)?).with_writer(stderr);
    let started = match config.log_format {
        LogFormat::Text => lines.with_ansi(stderr().is_terminal()).finish().try_init(),
        LogFormat::Json => lines.json().finish().try_init(),
    };
    // It fails only where a subscriber is set already.
    let _: Result<(), _> = started;
    Ok(())
}

fn filter(text: &str) -> Result<EnvFilter, CommandError> {
    EnvFilter::builder()
        .with_default_directive(LevelFilter::WARN.into())
        .parse(text)
        .map_err(|source| CommandError::LogFilter { filter: text.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_filter_lets_warnings_and_the_start_line_through() {
        let default = filter(&Config::default().log_filter).unwrap();
        let shown = tracing_subscriber::fmt().with_env_filter(default).with_writer(std::io::sink).finish();
        tracing::subscriber::with_default(shown, || {
            assert!(tracing::enabled!(target: START_TARGET, tracing::Level::INFO));
            assert!(tracing::enabled!(target: "ottla::net", tracing::Level::WARN));
            assert!(!tracing::enabled!(target: "ottla::net", tracing::Level::INFO));
        });
    }

    #[test]
    fn a_bad_filter_is_named_in_one_line() {
        let message = filter("ottla=loud").unwrap_err().to_string();
        assert!(message.contains("ottla=loud") && !message.contains('\n'), "{message}");
    }
}
