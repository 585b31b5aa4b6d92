//! A small Kafka client on the project's own protocol layer, for every command that speaks to a broker: [`Connection`] is
//! one socket, [`Cluster`] finds leaders and coordinators over several brokers and tries again what may be tried again.

mod cluster;
mod connection;
mod error;

use std::time::Duration;

use clap::Args;

pub(super) use self::cluster::{Cluster, Isolation, Patience, TopicPartition, code_of};
pub(super) use self::connection::{Connection, Frame, Head, check, decode_answer};
pub(super) use self::error::ClientError;

/// Where a broker is looked for unless told otherwise.
pub(super) const BOOTSTRAP: &str = "127.0.0.1:9092";
/// The variable that tells otherwise.
pub(super) const BOOTSTRAP_VARIABLE: &str = "OTTLA_BOOTSTRAP";

/// Which cluster a command speaks to, and how long it tries.
#[derive(Args, Clone, Debug)]
pub(super) struct ClusterFlags {
    /// Brokers to ask first; the others are learned from them
    #[arg(
        long,
        short,
        env = BOOTSTRAP_VARIABLE,
        value_name = "HOST:PORT[,...]",
        default_value = BOOTSTRAP,
        value_delimiter = ',',
        global = true
    )]
    bootstrap: Vec<String>,
    /// How long to wait for an answer, and to try again what a broker may yet do
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = super::some_seconds, global = true)]
    timeout: Duration,
}

impl ClusterFlags {
    /// Connects to the first broker that answers.
    ///
    /// # Errors
    /// None does: that of the last.
    pub(super) fn connect(&self) -> Result<Cluster, ClientError> {
        Cluster::connect(&self.bootstrap, self.timeout)
    }

    /// How long to wait for an answer.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }
}
