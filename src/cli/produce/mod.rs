//! `ottla produce`: lines become records. A thread reads them while the last ones are on their way, so that batches are as
//! large as the input is fast and nothing waits longer than the linger.

mod input;
mod sender;

use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use self::input::{BadRecord, Format, Input};
use self::sender::Sender;
use super::client::{ClientError, ClusterFlags};
use super::output::byte_bar;
use super::{CommandError, EXIT_CODES, REFUSED, USER_ERROR, text};
use crate::protocol::wire::Str;
use crate::record::Codec;

/// Records that are read ahead of the sender.
const READ_AHEAD_RECORDS: usize = 1024;

const EXAMPLES: &str = "\
Examples:
  echo hello | ottla produce letters
  ottla produce letters --key-separator : --compression zstd < lines.txt
  ottla produce letters --header source=cli --partition 0 one.txt two.txt
  ottla consume letters --json | ottla produce copies --json

A line of --json is an object with any of: key, value, headers, partition, timestamp. Keys and values are strings, null,
or {\"base64\": \"…\"}; headers are an object of those, or an array of {\"key\": …, \"value\": …}; a timestamp is in ms or as
RFC 3339. topic and offset, which consume --json prints too, are passed over.

Records without a key go to one partition until they are sent, then to another; with one, where Java's producer puts
them. What is sent again because no answer came may be there twice.";

#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(super) struct Flags {
    #[command(flatten)]
    cluster: ClusterFlags,
    /// The topic; made by the broker if it does such things
    topic: Str,
    /// Files to read, one record a line [default: stdin]
    files: Vec<PathBuf>,
    /// A line is a key, this text (with escapes such as \t), and a value
    #[arg(long, short = 'K', value_name = "TEXT", value_parser = separator, conflicts_with = "key")]
    key_separator: Option<Separator>,
    /// The key of every record
    #[arg(long, short, value_name = "TEXT")]
    key: Option<String>,
    /// A header of every record. Repeatable
    #[arg(long, short = 'H', value_name = "KEY=VALUE", value_parser = header)]
    header: Vec<(String, Vec<u8>)>,
    /// The partition of every record
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// A value of this text is null
    #[arg(long, value_name = "TEXT")]
    null_value: Option<String>,
    /// Lines are JSON objects
    #[arg(long, conflicts_with_all = ["key_separator", "key", "null_value"])]
    json: bool,
    /// Compression of batches: none, gzip, snappy, lz4 or zstd
    #[arg(long, short = 'z', value_name = "CODEC", default_value = "none", value_parser = super::codec)]
    compression: Codec,
    /// Whose acknowledgement is waited for: all, 1 (the leader's) or 0 (nobody's)
    #[arg(long, value_name = "all|1|0", default_value = "all", value_parser = super::acks)]
    acks: i16,
    /// How long a record waits for others to go with it
    #[arg(long, value_name = "SECONDS", default_value = "0.005", value_parser = super::seconds)]
    linger: Duration,
    /// Most bytes of records in a batch, uncompressed; a larger record goes alone
    #[arg(long, value_name = "BYTES", default_value_t = 512 << 10, value_parser = clap::value_parser!(u32).range(1..=64 << 20))]
    batch_bytes: u32,
}

/// A separator of at least one byte. A type of its own, since a `Vec` would be a repeatable flag.
#[derive(Clone, Debug)]
struct Separator(Vec<u8>);

/// Why not all was acknowledged.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProduceError {
    #[error("cannot read {place}: {source}")]
    Input { place: String, source: std::io::Error },
    #[error("{place} line {line}: {fault}")]
    Record { place: String, line: u64, fault: BadRecord },
    #[error("{place} line {line}: there is no partition {partition}, {topic} has {partitions}")]
    Partition { place: String, line: u64, topic: Str, partition: i32, partitions: usize },
    #[error(
        "{}\n{acknowledged} records were acknowledged, {lost} were not; what followed was not sent",
        super::lines(errors)
    )]
    NotAcknowledged { acknowledged: u64, lost: u64, errors: Vec<ClientError> },
}

impl ProduceError {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Input { .. } => USER_ERROR,
            Self::Record { .. } | Self::Partition { .. } | Self::NotAcknowledged { .. } => REFUSED,
        }
    }
}

/// Sends all there is to read, and returns when it is acknowledged.
pub(super) fn run(flags: Flags) -> Result<(), CommandError> {
    let mut sender = Sender::find(flags.cluster.connect()?, &flags)?;
    let format = match flags.json {
        true => Format::Json,
        false => Format::Lines {
            separator: flags.key_separator.map(|separator| separator.0),
            key: flags.key.map(String::into_bytes),
            null_value: flags.null_value.map(String::into_bytes),
        },
    };
    let input = Input::open(flags.files, format)?;
    let bar = input.total_bytes().map_or_else(indicatif::ProgressBar::hidden, byte_bar);
    let (read, records) = sync_channel(READ_AHEAD_RECORDS);
    // It ends with its input, with the process, or when nobody takes its records any more.
    thread::Builder::new()
        .name("input".to_owned())
        .spawn(move || input.for_each(|record| read.send(record).is_ok()))
        .map_err(CommandError::Runtime)?;
    let mut send_at: Option<Instant> = None;
    loop {
        let next = match send_at {
            None => records.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => records.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        match next {
            Ok(Ok(record)) => {
                bar.inc(record.line_bytes);
                if !sender.has_room(&record) {
                    sender.send()?;
                    send_at = None;
                }
                sender.push(record)?;
                let at = *send_at.get_or_insert_with(|| Instant::now() + flags.linger);
                if Instant::now() >= at {
                    sender.send()?;
                    send_at = None;
                }
            }
            Ok(Err(error)) => {
                sender.send()?;
                return Err(error.into());
            }
            Err(RecvTimeoutError::Timeout) => {
                sender.send()?;
                send_at = None;
            }
            Err(RecvTimeoutError::Disconnected) => {
                sender.send()?;
                bar.finish_and_clear();
                return Ok(());
            }
        }
    }
}

fn separator(escaped: &str) -> Result<Separator, String> {
    match text::unescape(escaped) {
        Ok(bytes) if bytes.is_empty() => Err("expected at least one character".to_owned()),
        Ok(bytes) => Ok(Separator(bytes)),
        Err(error) => Err(error.to_string()),
    }
}

fn header(text: &str) -> Result<(String, Vec<u8>), &'static str> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.as_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::{CommandLine, one_line};

    #[test]
    fn a_bad_flag_is_one_line_that_names_it() {
        for (arguments, named) in [
            (&[][..], "TOPIC"),
            (&["t", "--key-separator", ""], "expected at least one character"),
            (&["t", "--key-separator", "\\q"], "is no escape"),
            (&["t", "--header", "x"], "expected KEY=VALUE"),
            (&["t", "--key", "k", "--key-separator", ":"], "--key"),
            (&["t", "--json", "--null-value", ""], "--json"),
            (&["t", "--compression", "brotli"], "expected none, gzip"),
            (&["t", "--acks", "2"], "expected all, 1 or 0"),
            (&["t", "--partition=-1"], "--partition"),
            (&["t", "--timeout", "0"], "more than 0 seconds"),
        ] {
            let error = CommandLine::try_parse_from([&["ottla", "produce"], arguments].concat()).unwrap_err();
            let message = one_line(&error.to_string());
            assert!(message.contains(named) && !message.contains('\n'), "{message}");
        }
    }
}
