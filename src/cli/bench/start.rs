//! `ottla bench start`: how long a command takes until it serves.

use std::ffi::OsString;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};

use super::report::Start;
use super::topic::{Batch, Topic, appended};
use super::{BatchFlags, BenchError};
use crate::cli::client::Connection;
use crate::protocol::messages::metadata::MetadataRequest;
use crate::protocol::messages::{Metadata, Produce};
use crate::protocol::wire::Str;
use crate::record::Codec;

/// How often the driver tries.
const POLL: Duration = Duration::from_micros(200);
/// How long the command may take to end once told to.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
/// A version of Metadata that every broker speaks, so that nothing need be asked before.
const METADATA_VERSION: i16 = 4;
const ALL: i16 = -1;

#[derive(Args, Debug)]
pub(super) struct Flags {
    /// Address at which the command will serve
    #[arg(long, value_name = "HOST:PORT", default_value = crate::cli::client::BOOTSTRAP)]
    bootstrap: String,
    /// Wait for an acknowledged record in partition 0 of this topic, which is there already, instead of for Metadata
    #[arg(long, value_name = "TOPIC")]
    acknowledged: Option<String>,
    /// Longest to wait
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = crate::cli::seconds)]
    patience: Duration,
    /// Print one line of JSON
    #[arg(long)]
    pub(super) json: bool,
    /// What to run; it is ended (SIGTERM) once it has served
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// # Errors
/// The command cannot be run, ends by itself, does not serve in time, or does not stop.
pub(super) fn measure(flags: &Flags) -> Result<Start, BenchError> {
    let batch = Batch::build(&BatchFlags { record_bytes: 100, batch_records: 1, codec: Codec::None })?;
    let started = Instant::now();
    let mut server = Server::start(&flags.command)?;
    loop {
        let served = match &flags.acknowledged {
            None => ask_metadata(&flags.bootstrap),
            Some(topic) => produce(&flags.bootstrap, topic, &batch),
        };
        let elapsed = started.elapsed();
        if let Some(status) = server.ended()? {
            return Err(BenchError::Ended { command: server.name.clone(), status: status.to_string() });
        }
        match served {
            Ok(()) => {
                let until = flags.acknowledged.as_ref().map_or("metadata", |_| "acknowledged record");
                server.stop()?;
                return Ok(Start { until, milliseconds: elapsed.as_secs_f64() * 1e3 });
            }
            Err(_) if elapsed < flags.patience => sleep(POLL),
            Err(last) => {
                return Err(BenchError::NotServing { seconds: elapsed.as_secs(), last: Box::new(last) });
            }
        }
    }
}

fn ask_metadata(bootstrap: &str) -> Result<(), BenchError> {
    let request = MetadataRequest { topics: Some(Vec::new()), ..MetadataRequest::default() };
    Connection::connect_blindly(bootstrap)?.call_at::<Metadata>(METADATA_VERSION, &request)?;
    Ok(())
}

fn produce(bootstrap: &str, topic: &str, batch: &Batch) -> Result<(), BenchError> {
    let name = Str::from(topic);
    let found = Topic::find(&mut Connection::connect(bootstrap)?, &name)?;
    let topic = found.ok_or(BenchError::NoLeader { topic: name.to_string(), seconds: 0 })?;
    let mut leader = topic.connect(0)?;
    let version = leader.version_up_to::<Produce>(super::topic::PRODUCE_VERSION)?;
    appended(&leader.call_at::<Produce>(version, &topic.produce_request(0, ALL, batch))?)?;
    Ok(())
}

/// A running command, ended when dropped.
struct Server {
    name: String,
    child: Child,
}

impl Server {
    fn start(command: &[OsString]) -> Result<Self, BenchError> {
        let (program, arguments) = command.split_first().expect("the command line requires a command");
        let name = program.to_string_lossy().into_owned();
        let spawned =
            Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        match spawned {
            Ok(child) => Ok(Self { name, child }),
            Err(source) => Err(BenchError::Command { command: name, source }),
        }
    }

    fn ended(&mut self) -> Result<Option<std::process::ExitStatus>, BenchError> {
        self.child.try_wait().map_err(|source| BenchError::Command { command: self.name.clone(), source })
    }

    fn stop(mut self) -> Result<(), BenchError> {
        // A process that has ended meanwhile is what we want.
        let _: Result<(), _> = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let deadline = Instant::now() + STOP_PATIENCE;
        while self.ended()?.is_none() {
            if Instant::now() >= deadline {
                return Err(BenchError::StillRunning {
                    command: self.name.clone(),
                    seconds: STOP_PATIENCE.as_secs(),
                });
            }
            sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _: std::io::Result<()> = self.child.kill();
        let _: std::io::Result<_> = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(patience: Duration, command: &[&str]) -> Flags {
        Flags {
            // Nothing that a test starts listens on port 1.
            bootstrap: "127.0.0.1:1".to_owned(),
            acknowledged: None,
            patience,
            json: false,
            command: command.iter().map(OsString::from).collect(),
        }
    }

    #[test]
    fn a_command_that_never_serves_is_ended() {
        let error = measure(&flags(Duration::from_millis(20), &["sleep", "1000"])).unwrap_err();
        assert!(matches!(error, BenchError::NotServing { .. }), "{error:?}");
    }

    #[test]
    fn a_command_that_ends_or_is_not_there_is_named() {
        for (command, expected) in [
            ("false", "false has ended before it served: exit status: 1"),
            ("/no/such", "cannot run /no/such: "),
        ] {
            let message = measure(&flags(Duration::from_secs(60), &[command])).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }
}
