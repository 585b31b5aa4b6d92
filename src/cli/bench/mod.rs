//! `ottla bench`: drives any Kafka broker at full speed at next to no cost of its own, and measures what comes back.
//!
//! Everything is built before the clock runs: batches, and the whole frames of requests, which are sent over and over. No
//! record is touched and no byte of a fetched one is looked at while it runs.

mod commit;
mod fetch;
mod latency;
mod load;
mod members;
mod process;
mod produce;
mod queue;
mod report;
mod share;
mod start;
mod topic;

use std::io;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};

use super::client::{BOOTSTRAP, ClientError};
use super::interrupt::Interrupt;
use crate::record::Codec;

/// Most bytes of records in a batch; a broker's limit is usually 1 MiB.
const BATCH_MAX_BYTES: u64 = 256 << 20;

/// Most bytes of records in all batches of a run: they are kept in memory.
const BATCHES_MAX_BYTES: u64 = 4 << 30;

const EXAMPLES: &str = "\
Examples:
  ottla bench produce --bootstrap 127.0.0.1:9092 --seconds 10
  ottla bench produce --connections 1 --partitions 1 --record-bytes 100 --batch-records 100 --codec zstd
  ottla bench produce --rate 1000 --keys 1000000 --batch-records 10 --record-bytes 100
  ottla bench fetch --fill-bytes 2000000000 --pid \"$(pidof ottla)\" --json
  ottla bench latency --rate 500
  ottla bench commit --connections 8 --partitions 4
  ottla bench members --groups 1000 --members 2 --pid \"$(pidof ottla)\"
  ottla bench queue --url http://127.0.0.1:9324 --clients 8 --batch 10
  ottla bench queue --waiting 200
  ottla bench queue --send 1000000 --batch 10 --delay-seconds 900
  ottla bench share --members 8 --record-bytes 100 --batch-records 100
  ottla bench start --bootstrap 127.0.0.1:9999 -- ottla --ephemeral --listen 127.0.0.1:9999";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, arg_required_else_help = false)]
pub(super) struct Flags {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Append one batch over and over: throughput, latency, and what it costs the server
    #[command(after_help = EXAMPLES)]
    Produce(produce::Flags),
    /// Fill partitions, then read them over and over, as consumers do that catch up
    #[command(after_help = EXAMPLES)]
    Fetch(fetch::Flags),
    /// Time from a producer's send to the arrival at a consumer that already waits
    #[command(after_help = EXAMPLES)]
    Latency(latency::Flags),
    /// Commit offsets as fast as the broker takes them, and what it costs the server
    #[command(after_help = EXAMPLES)]
    Commit(commit::Flags),
    /// Groups full of members that only live: time to become stable, memory, and CPU of the heartbeats
    #[command(after_help = EXAMPLES)]
    Members(members::Flags),
    /// Send, receive and delete messages over SQS's own protocol, and what that costs the server
    #[command(after_help = EXAMPLES)]
    Queue(queue::Flags),
    /// Fill partitions, then have a share group take and accept the records, and what that costs the server
    #[command(after_help = EXAMPLES)]
    Share(share::Flags),
    /// Time from the start of a command to its first answer
    #[command(after_help = EXAMPLES)]
    Start(start::Flags),
}

#[derive(Args, Debug)]
struct TargetFlags {
    /// Any broker of the cluster
    #[arg(long, value_name = "HOST:PORT", default_value = BOOTSTRAP)]
    bootstrap: String,
    /// Topic to use; made if it is not there
    #[arg(long, value_name = "NAME", default_value = "bench")]
    topic: String,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct ConnectionFlags {
    /// Connections, each with a thread of its own; it connects to the leader of its first partition
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    connections: u32,
    /// Partitions of the topic, shared out among the connections
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    partitions: u32,
}

#[derive(Args, Debug)]
struct BatchFlags {
    /// Bytes of a record's value
    #[arg(long, value_name = "BYTES", default_value_t = 1_024)]
    record_bytes: u32,
    /// Records in a batch
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    batch_records: u32,
    /// Compression: none, gzip, snappy, lz4 or zstd
    #[arg(long, default_value = "none", value_parser = crate::cli::codec)]
    codec: Codec,
}

#[derive(Args, Debug)]
struct WindowFlags {
    /// How long to measure
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = super::some_seconds)]
    seconds: Duration,
    /// Measure until so many bytes of record batches have gone through instead
    #[arg(long, value_name = "BYTES", conflicts_with = "seconds", value_parser = clap::value_parser!(u64).range(1..))]
    bytes: Option<u64>,
    /// Run at full load for so long first
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = super::seconds)]
    warm_up: Duration,
    /// Process of the server on this machine: its CPU time is measured too
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
}

/// Why a run did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum BenchError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("topic {topic:?} has {has} partitions, not the {partitions} of --partitions")]
    Partitions { topic: String, has: usize, partitions: u32 },
    #[error("topic {topic:?} has no leader for every partition after {seconds} s")]
    NoLeader { topic: String, seconds: u64 },
    #[error("a batch of {bytes} bytes is too large: at most {} fit", BATCH_MAX_BYTES)]
    BatchSize { bytes: u64 },
    #[error("batches of {bytes} bytes are too large together: at most {} fit", BATCHES_MAX_BYTES)]
    BatchesSize { bytes: u64 },
    #[error("{url:?} is no http://HOST:PORT")]
    Url { url: String },
    #[error("{url}: {what}")]
    Http { url: String, what: String },
    #[error("{url} answers {action} with {status}: {body}")]
    Refused { url: String, action: &'static str, status: u16, body: String },
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
    #[error("no CPU time of process {pid}: {source}")]
    Process { pid: u32, source: io::Error },
    #[error("cannot run {command}: {source}")]
    Command { command: String, source: io::Error },
    #[error("{command} has ended before it served: {status}")]
    Ended { command: String, status: String },
    #[error("nothing served after {seconds} s: {last}")]
    NotServing { seconds: u64, last: Box<BenchError> },
    #[error("{command} still runs {seconds} s after SIGTERM and was killed")]
    StillRunning { command: String, seconds: u64 },
}

/// Runs one measurement and prints it.
pub(super) fn run(flags: Flags) -> Result<(), BenchError> {
    match flags.what {
        What::Produce(flags) => report::print(&produce::measure(&flags, &listen()?)?, flags.target.json),
        What::Fetch(flags) => report::print(&fetch::measure(&flags, &listen()?)?, flags.target.json),
        What::Latency(flags) => report::print(&latency::measure(&flags)?, flags.target.json),
        What::Commit(flags) => report::print(&commit::measure(&flags, &listen()?)?, flags.target.json),
        What::Members(flags) => report::print(&members::measure(&flags)?, flags.target.json),
        What::Queue(flags) => report::print(&queue::measure(&flags)?, flags.json),
        What::Share(flags) => report::print(&share::measure(&flags)?, flags.target.json),
        What::Start(flags) => report::print(&start::measure(&flags)?, flags.json),
    }
    Ok(())
}

/// A Ctrl-C closes the window: what was seen until then is reported.
fn listen() -> Result<Interrupt, BenchError> {
    Interrupt::listen().map_err(BenchError::Signals)
}

/// Returns at `moment`, on time: a sleeper would be late by what its waking takes.
fn wait_busily_until(moment: Instant) {
    while Instant::now() < moment {
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::broker::Broker;
    use crate::cli::{Command, CommandLine};
    use crate::config::Config;

    fn parse(arguments: &[&str]) -> Result<What, String> {
        let parsed = CommandLine::try_parse_from([&["ottla", "bench"], arguments].concat());
        match parsed.map_err(|error| crate::cli::one_line(&error.to_string()))?.command {
            Some(Command::Bench(flags)) => Ok(flags.what),
            _ => panic!("bench is a subcommand"),
        }
    }

    #[test]
    fn the_examples_are_command_lines() {
        for example in EXAMPLES.lines().skip(1) {
            let words: Vec<&str> =
                example.replace("\"$(pidof ottla)\"", "17").leak().split_whitespace().collect();
            assert_eq!(words[..2], ["ottla", "bench"]);
            parse(&words[2..]).unwrap();
        }
    }

    #[test]
    fn a_bad_flag_is_one_line_that_names_it() {
        for (arguments, named) in [
            (&[][..], "requires a subcommand"),
            (&["consume"], "consume"),
            (&["produce", "--connections", "0"], "--connections"),
            (&["produce", "--codec", "brotli"], "expected none, gzip, snappy, lz4 or zstd"),
            (&["produce", "--acks", "2"], "expected all, 1 or 0"),
            (&["produce", "--seconds", "0"], "more than 0"),
            (&["produce", "--seconds=-1"], "expected seconds"),
            (&["produce", "--seconds", "1e300"], "expected seconds"),
            (&["produce", "--seconds", "1", "--bytes", "1"], "--bytes"),
            (&["produce", "--rate", "1", "--in-flight", "1"], "--in-flight"),
            (&["latency", "--acks", "0"], "expected all or 1"),
            (&["queue", "--send", "0"], "--send"),
            (&["queue", "--send", "1", "--hold", "1"], "--hold"),
            (&["queue", "--delay-seconds", "1"], "--send"),
            (&["start"], "COMMAND"),
        ] {
            let message = parse(arguments).unwrap_err();
            assert!(message.contains(named) && !message.contains('\n'), "{message}");
        }
    }

    /// What `measure` gives against a broker of our own.
    fn with_broker<T>(measure: impl FnOnce(&[&str]) -> T) -> T {
        with(|broker| measure(&["--bootstrap", &broker.bootstrap()]))
    }

    fn with<T>(measure: impl FnOnce(&Broker) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let settings = [
            ("listeners", "127.0.0.1:0"),
            ("ottla.sqs.listeners", "127.0.0.1:0"),
            ("ottla.ephemeral", "true"),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let broker = runtime.block_on(Broker::start(Config::from_settings(settings).unwrap()));
        let broker = broker.unwrap();
        let measured = measure(&broker);
        runtime.block_on(broker.stop());
        measured
    }

    #[test]
    fn produce_sends_as_much_as_asked_in_every_codec_and_with_every_acknowledgement() {
        with_broker(|broker| {
            for codec in Codec::ALL {
                for acks in ["all", "1", "0"] {
                    let words = ["produce", "--topic", codec.name(), "--codec", codec.name(), "--acks", acks];
                    let amount = ["--warm-up", "0", "--bytes", "1000000", "--partitions", "6"];
                    let What::Produce(flags) = parse(&[&words[..], &amount, broker].concat()).unwrap() else {
                        panic!("produce is a subcommand")
                    };
                    let report = produce::measure(&flags, &Interrupt::default()).unwrap();
                    assert!(report.bytes >= 1_000_000, "{report:?}");
                    assert_eq!(report.latency_us.is_some(), acks != "0", "{report:?}");
                }
            }
        });
    }

    #[test]
    fn produce_keeps_to_the_rate_asked_for_and_has_the_keys() {
        with_broker(|broker| {
            let words =
                ["produce", "--rate", "100", "--connections", "2", "--seconds", "0.3", "--warm-up", "0"];
            let keyed = ["--keys", "500", "--batch-records", "10", "--partitions", "2"];
            let What::Produce(flags) = parse(&[&words[..], &keyed, broker].concat()).unwrap() else {
                panic!("produce is a subcommand")
            };
            let report = produce::measure(&flags, &Interrupt::default()).unwrap();
            assert!((1..=70).contains(&report.requests) && report.latency_us.is_some(), "{report:?}");
        });
    }

    #[test]
    fn fetch_reads_what_it_stored_again_and_again() {
        with_broker(|broker| {
            let words = ["fetch", "--fill-bytes", "300000", "--bytes", "9000000", "--warm-up", "0"];
            let shape =
                ["--connections", "3", "--partitions", "2", "--in-flight", "3", "--fetch-bytes", "90000"];
            let What::Fetch(flags) = parse(&[&words[..], &shape, broker].concat()).unwrap() else {
                panic!("fetch is a subcommand")
            };
            let report = fetch::measure(&flags, &Interrupt::default()).unwrap();
            assert!(report.bytes >= 9_000_000, "{report:?}");
            // One batch of 64 x 1 KiB fits an answer, and each answer had exactly that.
            assert!(
                report.bytes / report.requests > 64 << 10 && report.bytes / report.requests < 90_000,
                "{report:?}"
            );
        });
    }

    #[test]
    fn latency_delivers_at_the_rate_asked_for() {
        with_broker(|broker| {
            let words = ["latency", "--rate", "200", "--seconds", "0.2", "--warm-up", "0.01"];
            let What::Latency(flags) = parse(&[&words[..], broker].concat()).unwrap() else {
                panic!("latency is a subcommand")
            };
            let report = latency::measure(&flags).unwrap();
            assert!((1..=42).contains(&report.deliveries) && report.seconds >= 0.2, "{report:?}");
            assert!(report.latency_us.unwrap().p50 > 0.0);
        });
    }

    #[test]
    fn commits_are_accepted() {
        with_broker(|broker| {
            let words =
                ["commit", "--seconds", "0.2", "--warm-up", "0", "--connections", "3", "--in-flight", "2"];
            let What::Commit(flags) = parse(&[&words[..], broker].concat()).unwrap() else {
                panic!("commit is a subcommand")
            };
            let report = commit::measure(&flags, &Interrupt::default()).unwrap();
            assert!(report.commits > 0 && report.partitions == 4, "{report:?}");
        });
    }

    #[test]
    fn a_share_group_takes_and_accepts_all_that_was_stored() {
        with_broker(|broker| {
            let words = ["share", "--members", "3", "--partitions", "2", "--record-bytes", "100"];
            let amount = ["--batch-records", "50", "--fill-bytes", "500000", "--warm-up", "0"];
            let What::Share(flags) = parse(&[&words[..], &amount, broker].concat()).unwrap() else {
                panic!("share is a subcommand")
            };
            let report = share::measure(&flags).unwrap();
            assert!(report.messages > 4_000 && report.seconds < 5.0, "{report:?}");
            assert!(report.latency_us.is_some(), "{report:?}");
        });
    }

    #[test]
    fn a_queue_is_gone_round_filled_and_held() {
        with(|broker| {
            let url = format!("http://{}", broker.sqs()[0]);
            let measure = |words: &[&str]| {
                let shape = ["queue", "--url", &url, "--clients", "3", "--batch", "10"];
                let What::Queue(flags) = parse(&[&shape[..], words].concat()).unwrap() else {
                    panic!("queue is a subcommand")
                };
                queue::measure(&flags)
            };
            let report = measure(&["--seconds", "0.2", "--warm-up", "0"]).unwrap();
            assert!(report.messages > 0 && report.latency_us.is_some(), "{report:?}");

            let report = measure(&["--queue", "late", "--send", "25", "--delay-seconds", "900"]).unwrap();
            assert_eq!(report.messages, 25, "{report:?}");
            let nothing = measure(&["--queue", "late", "--hold", "1"]).unwrap_err().to_string();
            assert!(nothing.ends_with("there are no more messages"), "{nothing}");

            assert_eq!(measure(&["--queue", "full", "--send", "25"]).unwrap().messages, 25);
            assert_eq!(measure(&["--queue", "full", "--hold", "25"]).unwrap().messages, 25);
            assert!(measure(&["--queue", "full", "--hold", "1"]).is_err(), "all are with somebody");
        });
    }

    #[test]
    fn members_become_stable_and_live() {
        with_broker(|broker| {
            let words =
                ["members", "--groups", "3", "--members", "5", "--heartbeat", "0.1", "--seconds", "0.3"];
            let What::Members(flags) = parse(&[&words[..], broker].concat()).unwrap() else {
                panic!("members is a subcommand")
            };
            let report = members::measure(&flags).unwrap();
            assert!(report.members == 15 && report.heartbeats >= 15, "{report:?}");
            assert!(report.stable_milliseconds > 0.0);
        });
    }

    #[test]
    fn nothing_that_listens_is_a_clear_error() {
        for what in [&["produce"][..], &["fetch"], &["latency"], &["commit"], &["members"], &["share"]] {
            let flags = Flags { what: parse(&[what, &["--bootstrap", "127.0.0.1:1"]].concat()).unwrap() };
            let message = run(flags).unwrap_err().to_string();
            assert!(message.starts_with("cannot connect to 127.0.0.1:1: "), "{message}");
        }
    }
}
