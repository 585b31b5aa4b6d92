//! `ottla serve`: flags, file and environment become a checked configuration, and the broker runs with it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use super::client::BOOTSTRAP_VARIABLE;
use super::logging::START_TARGET;
use super::queue::HTTP_VARIABLE;
use super::{CommandError, logging};
use crate::broker::Broker;
use crate::catalog::topic_config::{self, Inherited, NOT_ACTED_ON, TopicConfig};
use crate::config::{Config, ConfigMap, TopicSpec, default_name};

/// Threads that may wait for a disk or decompress at once; idle ones go after a while.
const BLOCKING_THREADS_MAX: usize = 64;

/// Flags stand above all other sources of a setting. Each is a key of the configuration, whose table checks the value.
#[derive(Args, PartialEq, Eq, Debug, Default)]
pub(super) struct Flags {
    /// Listen here; port 0 takes any free one. Repeatable [default: 127.0.0.1:9092]
    #[arg(long, value_name = "[NAME=]HOST:PORT[,advertised=HOST:PORT]")]
    listen: Vec<String>,
    /// Serve /metrics, /healthz and /readyz over HTTP here; port 0 takes any free one. Repeatable
    #[arg(long, value_name = "HOST:PORT")]
    http_listen: Vec<String>,
    /// Serve SQS here; port 0 takes any free one. Repeatable
    #[arg(long, value_name = "HOST:PORT")]
    sqs_listen: Vec<String>,
    /// Keep data in this directory. Repeatable: partitions are spread over them [default: ./data]
    #[arg(long, value_name = "DIR", conflicts_with = "ephemeral")]
    data: Vec<String>,
    /// When an append counts: commit, once synced to the disk; os, once written [default: commit; os with --ephemeral]
    #[arg(long, value_name = "commit|os")]
    flush: Option<String>,
    /// Keep data in a temporary directory that is gone at exit
    #[arg(long)]
    ephemeral: bool,
    /// Write this file once requests are answered: one host:port a line, in the order of the listeners
    #[arg(long, value_name = "PATH")]
    ready_file: Option<String>,
    /// Have this topic at start. Repeatable
    #[arg(long, value_name = "NAME:PARTITIONS[:KEY=VALUE...]")]
    topic: Vec<String>,
    /// Have this queue at start. Repeatable
    #[arg(long, value_name = "NAME[:KEY=VALUE...]")]
    queue: Vec<String>,
    /// Read settings from this TOML file
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Log levels by module, as in RUST_LOG
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// Form of log lines [default: text]
    #[arg(long, value_name = "text|json")]
    log_format: Option<String>,
    /// Set any key of the configuration. Repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Serves until told to stop. Faults that the user must mend come back before anything is served.
pub(super) fn run(flags: Flags) -> Result<(), CommandError> {
    let (config, unknown_variables) = configuration(flags, std::env::vars_os())?;
    logging::start(&config)?;
    for variable in unknown_variables {
        warn!(variable, "an environment variable that means nothing to ottla");
    }
    for (place, name) in not_acted_on(&config) {
        warn!(place, name, "a topic config that is stored and described, but not acted on");
    }
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name("ottla")
        .build()
        .map_err(CommandError::Runtime)?;
    let ended = runtime.block_on(serve(config));
    // Whatever still waits for a disk has nothing left to say.
    runtime.shutdown_background();
    ended
}

async fn serve(config: Config) -> Result<(), CommandError> {
    // Before the broker is there to be stopped, so that no signal is lost.
    let mut terminate = signal(SignalKind::terminate()).map_err(CommandError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CommandError::Runtime)?;
    let broker = Broker::start(config).await?;
    let listeners: Vec<String> = broker.endpoints().iter().map(ToString::to_string).collect();
    let http: Vec<String> = broker.http().iter().map(ToString::to_string).collect();
    let sqs: Vec<String> = broker.sqs().iter().map(ToString::to_string).collect();
    let data: Vec<String> = broker.log_directories().iter().map(|path| path.display().to_string()).collect();
    info!(
        target: START_TARGET,
        version = env!("CARGO_PKG_VERSION"),
        listeners = listeners.join(","),
        http = (!http.is_empty()).then(|| http.join(",")),
        sqs = (!sqs.is_empty()).then(|| sqs.join(",")),
        data = data.join(","),
        "ottla serves"
    );
    let mut signalled = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::select! {
        () = signalled() => {}
        reason = broker.failed() => {
            broker.give_up();
            return Err(CommandError::Disk { reason });
        }
    }
    tokio::select! {
        () = broker.stop() => {}
        // Whoever asks twice does not want to wait; the next start recovers.
        () = signalled() => {}
    }
    Ok(())
}

/// A broker has a file a segment and a socket a client: it takes as many descriptors as it may.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, "the limit of open files stays as it is");
    }
}

/// The checked configuration and the `OTTLA_` variables that mean nothing.
fn configuration(
    flags: Flags,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(Config, Vec<String>), CommandError> {
    let file = flags.config.clone();
    let (config, mut unknown) = Config::load(file.as_deref(), environment, flags.settings()?)?;
    // What the tools look at in the same shell.
    unknown.retain(|variable| variable != BOOTSTRAP_VARIABLE && variable != HTTP_VARIABLE);
    check_topic_configs(&config)?;
    Ok((config, unknown))
}

/// Checks what only the registry of topic configs knows: the configs of the topics to create, and the rules between the
/// values that topics inherit.
fn check_topic_configs(config: &Config) -> Result<(), CommandError> {
    let none = ConfigMap::new();
    let inherited = Inherited { dynamic_node: &none, dynamic_default: &none, fixed: config.explicit() };
    topic_config::validate(&none, &inherited).map_err(|source| CommandError::TopicDefaults { source })?;
    for (name, configs) in topics(config) {
        topic_config::validate(configs, &inherited)
            .map_err(|source| CommandError::Topic { topic: name.to_owned(), source })?;
    }
    Ok(())
}

/// The topics to create with their configs, queues included.
fn topics(config: &Config) -> impl Iterator<Item = (&str, &ConfigMap)> {
    let topics = config.topics.iter().map(|topic| (topic.name.as_str(), &topic.configs));
    topics.chain(config.queues.iter().map(|queue| (queue.name.as_str(), &queue.configs)))
}

/// Settings that a user might expect to have an effect, with the place where each was given.
fn not_acted_on(config: &Config) -> Vec<(&str, &'static str)> {
    let ignored = || TopicConfig::all().filter(|topic| NOT_ACTED_ON.contains(&topic.definition.name));
    let keys = ignored().flat_map(|topic| topic.synonyms).map(|synonym| synonym.name);
    let keys = keys.filter(|name| config.explicit().contains_key(*name)).map(|name| ("broker", name));
    let of_topics = topics(config).flat_map(|(topic, configs)| {
        let names = ignored().map(|config| config.definition.name);
        names.filter(|name| configs.contains_key(*name)).map(move |name| (topic, name))
    });
    keys.chain(of_topics).collect()
}

impl Flags {
    /// The flags as names and values of the configuration.
    fn settings(self) -> Result<Vec<(String, String)>, CommandError> {
        let mut settings = Vec::new();
        let mut add = |name: &str, value: String| settings.push((name.to_owned(), value));
        if !self.listen.is_empty() {
            let (listeners, advertised) = listeners(&self.listen)?;
            add("listeners", listeners);
            advertised.into_iter().for_each(|advertised| add("advertised.listeners", advertised));
        }
        if !self.http_listen.is_empty() {
            add("ottla.http.listeners", self.http_listen.join(","));
        }
        if !self.sqs_listen.is_empty() {
            add("ottla.sqs.listeners", self.sqs_listen.join(","));
        }
        if !self.topic.is_empty() {
            add("ottla.topics", self.topic.join(&TopicSpec::SEPARATOR.to_string()));
        }
        if !self.queue.is_empty() {
            add("ottla.queues", self.queue.join(&TopicSpec::SEPARATOR.to_string()));
        }
        if let Some(data) = self.data.iter().find(|data| data.contains(',')) {
            return Err(bad_flag(
                "--data",
                data.clone(),
                "a directory without commas in its name; several by several --data",
            ));
        }
        if !self.data.is_empty() {
            add("log.dirs", self.data.join(","));
        }
        if self.ephemeral {
            add("ottla.ephemeral", true.to_string());
        }
        for (name, value) in [
            ("ottla.flush", self.flush),
            ("ottla.ready.file", self.ready_file),
            ("ottla.log.filter", self.log),
            ("ottla.log.format", self.log_format),
        ] {
            value.into_iter().for_each(|value| add(name, value));
        }
        for setting in self.set {
            match setting.split_once('=') {
                Some((name, value)) => add(name.trim(), value.to_owned()),
                None => return Err(bad_flag("--set", setting, "KEY=VALUE")),
            }
        }
        Ok(settings)
    }
}

/// The values of `listeners` and, if any listener gives an address to advertise, of `advertised.listeners`.
fn listeners(flags: &[String]) -> Result<(String, Option<String>), CommandError> {
    const FORM: &str = "[NAME=]HOST:PORT[,advertised=HOST:PORT]";
    let mut listeners = Vec::new();
    let mut advertised = Vec::new();
    for (position, flag) in flags.iter().enumerate() {
        let (listener, address) = match flag.split_once(',') {
            None => (flag.as_str(), None),
            Some((listener, rest)) => match rest.trim().strip_prefix("advertised=") {
                Some(address) if !address.contains(',') => (listener, Some(address)),
                _ => return Err(bad_flag("--listen", flag.clone(), FORM)),
            },
        };
        let named = listener.split_once('=').or_else(|| listener.split_once("://"));
        let (name, bind) =
            named.map_or_else(|| (default_name(position), listener), |(name, bind)| (name.to_owned(), bind));
        listeners.push(format!("{name}://{bind}"));
        advertised.extend(address.map(|address| format!("{name}://{address}")));
    }
    let advertised = Some(advertised.join(",")).filter(|addresses| !addresses.is_empty());
    Ok((listeners.join(","), advertised))
}

fn bad_flag(flag: &'static str, value: String, expected: &'static str) -> CommandError {
    CommandError::Flag { flag, value, expected }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::CommandLine;
    use clap::Parser;
    use proptest::prelude::*;
    use std::path::Path;

    fn flags(arguments: &[&str]) -> Flags {
        CommandLine::try_parse_from([&["ottla"], arguments].concat()).unwrap().serve
    }

    fn config(arguments: &[&str]) -> Result<Config, CommandError> {
        configuration(flags(arguments), []).map(|(config, _)| config)
    }

    fn listening(config: &Config) -> Vec<String> {
        config.listeners.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn without_flags_the_configuration_is_the_default() {
        assert_eq!(config(&[]).unwrap(), Config::default());
    }

    #[test]
    fn every_flag_sets_its_key() {
        let config = config(&[
            "--listen",
            "127.0.0.1:0",
            "--listen",
            "docker=0.0.0.0:9094,advertised=broker:19094",
            "--http-listen",
            "127.0.0.1:0",
            "--http-listen",
            "[::1]:8080",
            "--sqs-listen",
            "127.0.0.1:9324",
            "--data",
            "/d",
            "--data",
            "/e",
            "--flush",
            "os",
            "--ready-file",
            "/r",
            "--topic",
            "a:1",
            "--topic",
            "b:2:cleanup.policy=compact,delete",
            "--queue",
            "c",
            "--queue",
            "d:fifo=true:partitions=2",
            "--log",
            "debug",
            "--log-format",
            "json",
            "--set",
            "num.partitions=3",
        ])
        .unwrap();
        assert_eq!(listening(&config), ["PLAINTEXT://127.0.0.1:0", "DOCKER://0.0.0.0:9094"]);
        assert_eq!(config.advertised("DOCKER").unwrap().address(), "broker:19094");
        assert_eq!(config.advertised("PLAINTEXT"), None);
        let http: Vec<_> = config.http_listeners.iter().map(|endpoint| endpoint.address()).collect();
        assert_eq!(http, ["127.0.0.1:0", "[::1]:8080"]);
        let sqs: Vec<_> = config.sqs_listeners.iter().map(|endpoint| endpoint.address()).collect();
        assert_eq!(sqs, ["127.0.0.1:9324"]);
        assert_eq!(config.directories(), [Path::new("/d"), Path::new("/e")]);
        assert_eq!(config.explicit()["ottla.flush"], "os");
        assert_eq!(config.ready_file.as_deref(), Some(Path::new("/r")));
        assert_eq!(config.topics[1].configs["cleanup.policy"], "compact,delete");
        assert_eq!((config.topics.len(), config.topics[0].partitions), (2, 1));
        assert_eq!((config.queues.len(), config.queues[1].partitions), (2, Some(2)));
        assert_eq!(config.queues[1].configs["ottla.queue.fifo"], "true");
        assert_eq!(config.log_filter, "debug");
        assert_eq!(config.log_format, crate::config::LogFormat::Json);
        assert_eq!(config.num_partitions, 3);
    }

    #[test]
    fn several_listeners_on_free_ports_are_several() {
        let config = config(&["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"]).unwrap();
        assert_eq!(listening(&config), ["PLAINTEXT://127.0.0.1:0", "PLAINTEXT_2://127.0.0.1:0"]);
    }

    #[test]
    fn ephemeral_data_is_flushed_by_the_system_unless_said_otherwise() {
        let flush = |arguments: &[&str]| config(arguments).unwrap().explicit().get("ottla.flush").cloned();
        assert_eq!(flush(&[]), None);
        assert_eq!(flush(&["--ephemeral"]).as_deref(), Some("os"));
        assert_eq!(flush(&["--ephemeral", "--flush", "commit"]).as_deref(), Some("commit"));
        assert!(config(&["--ephemeral"]).unwrap().ephemeral);
    }

    #[test]
    fn a_bad_value_is_one_line_that_names_it() {
        for (arguments, expected) in [
            (
                &["--listen", "9092"][..],
                r#"command line: invalid value "PLAINTEXT://9092" for listeners: expected HOST:PORT"#,
            ),
            (&["--listen", "a:1,b:2"], r#"command line: invalid value "a:1,b:2" for --listen: expected"#),
            (
                &["--listen", "a:1,advertised=b:0"],
                "advertised.listeners has PLAINTEXT://b:0, which no client",
            ),
            (
                &["--flush", "never"],
                r#"command line: invalid value "never" for ottla.flush: String must be one of: commit, os"#,
            ),
            (
                &["--set", "num.partition=1"],
                r#"command line: unknown key "num.partition", did you mean num.partitions?"#,
            ),
            (&["--set", "x"], r#"command line: invalid value "x" for --set: expected KEY=VALUE"#),
            (&["--flush", "os", "--set", "ottla.flush=os"], r#"command line: "ottla.flush" is given twice"#),
            (
                &["--topic", "a"],
                r#"command line: invalid value "a" for ottla.topics: expected name:partitions"#,
            ),
            (
                &["--data", "a,b"],
                r#"command line: invalid value "a,b" for --data: expected a directory without"#,
            ),
            (&["--data", "a", "--data", "a"], r#"log.dirs has "a" twice"#),
            (&["--topic", "a:1:retention=1"], r#"topic "a": Unknown topic config name: retention"#),
            (
                &["--queue", "a:dely.ms=1"],
                r#"topic "a": Unknown topic config name: ottla.queue.dely.ms (did you mean ottla.queue.delay.ms?)"#,
            ),
            (
                &["--queue", "a:delay.ms=1:retention.ms=0"],
                r#"topic "a": Invalid value 0 for configuration ottla"#,
            ),
            (
                &["--queue", "a:1"],
                r#"command line: invalid value "a:1" for ottla.queues: expected name[:key="#,
            ),
            (
                &["--topic", "a:1:segment.bytes=1"],
                r#"topic "a": Invalid value 1 for configuration segment.bytes: Value must be at least 1048576"#,
            ),
            (
                &[
                    "--set",
                    "log.cleaner.max.compaction.lag.ms=1",
                    "--set",
                    "log.cleaner.min.compaction.lag.ms=2",
                ],
                "defaults of topics: conflict",
            ),
            (&["--config", "/nowhere.toml"], "cannot read the config file /nowhere.toml: "),
        ] {
            let message = config(arguments).unwrap_err().to_string();
            assert!(message.starts_with(expected) && !message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn what_has_no_effect_is_known() {
        let config = config(&[
            "--set",
            "unclean.leader.election.enable=true",
            "--set",
            "log.segment.bytes=1048576",
            "--topic",
            "a:1:local.retention.ms=5:segment.ms=5",
        ])
        .unwrap();
        let expected = [("broker", "unclean.leader.election.enable"), ("a", "local.retention.ms")];
        assert_eq!(not_acted_on(&config), expected);
    }

    proptest! {
        #[test]
        fn no_flag_panics(listen in ".{0,30}", topic in ".{0,30}", set in "[a-z.=]{0,20}|.{0,20}") {
            let flags = Flags { listen: vec![listen], topic: vec![topic], set: vec![set], ..Flags::default() };
            let _: Result<_, _> = configuration(flags, []);
        }
    }
}
