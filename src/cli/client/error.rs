//! Why a broker did not do what it was asked for.

use std::io;

use super::TopicPartition;
use crate::protocol::ErrorCode;
use crate::protocol::wire::DecodeError;

/// A failed call, as one line.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum ClientError {
    #[error("cannot connect to {address}: {source}")]
    Connect { address: String, source: io::Error },
    #[error("connection to {address} lost: {source}")]
    Lost { address: String, source: io::Error },
    #[error("{address} has not answered for {seconds} s")]
    Silent { address: String, seconds: u64 },
    #[error("{address} speaks no version of {api} that we do")]
    NoVersion { address: String, api: &'static str },
    #[error("an answer to {api} makes no sense: {source}")]
    Answer { api: &'static str, source: DecodeError },
    #[error("an answer to {api} lacks what was asked for")]
    Incomplete { api: &'static str },
    #[error("{what}: {}", refusal(*code, message.as_deref()))]
    Refused { what: String, code: i16, message: Option<String> },
    #[error("{what}: no leader is known")]
    NoLeader { what: String },
    #[error("there is no partition {}, {} has {partitions}", place.partition, place.topic)]
    NoPartition { place: TopicPartition, partitions: usize },
    #[error("queue {name:?}: a topic, but no queue: its ottla.queue.enable is not true")]
    NotAQueue { name: String },
    #[error("{what}: {source}")]
    About { what: String, source: Box<ClientError> },
}

impl ClientError {
    /// Whether there was nobody to ask: no broker, or one that has gone.
    pub(in crate::cli) fn is_of_connection(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Lost { .. } | Self::Silent { .. } => true,
            Self::About { source, .. } => source.is_of_connection(),
            _ => false,
        }
    }

    /// The same, saying what it is about.
    pub(in crate::cli) fn about(self, what: String) -> Self {
        Self::About { what, source: Box::new(self) }
    }

    /// Whether the same may go well a little later. That a topic is not known counts as final: whoever has just made one
    /// knows better.
    pub(in crate::cli) fn is_retriable(&self) -> bool {
        match self {
            Self::Refused { code, .. } => {
                let code = ErrorCode::from_code(*code);
                code.is_some_and(|code| code.is_retriable() && code != ErrorCode::UnknownTopicOrPartition)
            }
            Self::NoLeader { .. } => true,
            Self::About { source, .. } => source.is_retriable(),
            _ => self.is_of_connection(),
        }
    }

    /// Whether the broker refused with `code`.
    pub(in crate::cli) fn is(&self, code: ErrorCode) -> bool {
        match self {
            Self::Refused { code: found, .. } => *found == i16::from(code),
            Self::About { source, .. } => source.is(code),
            _ => false,
        }
    }
}

/// `NOT_LEADER_OR_FOLLOWER (6): what the broker says`.
fn refusal(code: i16, message: Option<&str>) -> String {
    let name = ErrorCode::from_code(code).map_or("an error that Kafka does not have", ErrorCode::name);
    match message {
        // Brokers often say the name again, or nothing.
        Some(message) if !message.is_empty() => format!("{name} ({code}): {}", message.trim_end()),
        _ => format!("{name} ({code})"),
    }
}
