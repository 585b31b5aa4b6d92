//! A queue's settings as members of a JSON object: the topic configs under `ottla.queue.` without that.

use serde_json::{Value, json};

use super::bounded::{Members, Scalar};
use super::error::Refusal;
use crate::operations::{Queue, QueueRefusal};

const PREFIX: &str = "ottla.queue.";

/// What makes a topic a queue: here, all are.
const ENABLE: &str = "enable";

/// The settings that are texts.
const TEXTS: [&str; 6] =
    ["dead.letter.queue", "dedup.scope", "filter", "overflow", "source", "sqs.attributes"];

/// Settings in a request; there are not half as many.
const SETTINGS_MAX: usize = 100;

/// Settings to set, or to take back to their defaults.
pub(super) type Changes = Members<Scalar, SETTINGS_MAX>;

/// As topic configs; `None` is for the default. Their values are checked where topic configs are.
///
/// # Errors
/// A text for a number, or the other way round; and a queue cannot be made something else.
pub(super) fn configs(changes: Changes) -> Result<Vec<(String, Option<String>)>, Refusal> {
    changes.0.into_iter().map(|(name, value)| config(name, value)).collect()
}

fn config(name: String, value: Scalar) -> Result<(String, Option<String>), Refusal> {
    let refused = |fault: &str| Err(QueueRefusal::InvalidConfig(format!("{PREFIX}{name}: {fault}")).into());
    let value = match (value, TEXTS.contains(&&*name)) {
        _ if name == ENABLE => return refused("a queue is one until it is deleted"),
        (Scalar::Null, _) => None,
        (Scalar::Text(_), false) => return refused("a number or a truth, not a text"),
        (Scalar::Other(_), true) => return refused("a text"),
        (Scalar::Text(value) | Scalar::Other(value), _) => Some(value),
    };
    Ok((format!("{PREFIX}{name}"), value))
}

/// All settings, null where there is none of the kind. Sent back, they change nothing.
pub(super) fn all(queue: &Queue) -> Value {
    let config = &queue.config;
    json!({
        "backoff.max.ms": config.backoff_max_ms,
        "backoff.ms": config.backoff_ms,
        "backoff.multiplier": config.backoff_multiplier,
        "breaker.failure.ratio": config.breaker_failure_ratio,
        "breaker.window": config.breaker_window,
        "dead.letter.queue": config.dead_letter_queue,
        "dedup.content": config.dedup_content,
        "dedup.scope": config.dedup_scope.name(),
        "dedup.window.ms": config.dedup_window_ms,
        "delay.ms": config.delay_ms,
        "fifo": config.fifo,
        "filter": config.filter.to_string(),
        "keep.acknowledged": config.keep_acknowledged,
        "key.concurrency": config.key_concurrency,
        "key.rate": config.key_rate,
        "max.bytes": config.max_bytes,
        "max.in.flight": config.max_in_flight,
        "max.message.bytes": config.max_message_bytes,
        "max.messages": config.max_messages,
        "max.receive.count": config.max_receive_count,
        "overflow": config.overflow.name(),
        "priorities": config.priorities,
        "receive.wait.ms": config.receive_wait_ms,
        "retention.ms": config.retention_ms,
        "source": config.source.to_string(),
        "sqs.attributes": config.sqs_attributes,
        "ttl.ms": config.ttl_ms,
        "visibility.timeout.ms": config.visibility_timeout_ms,
    })
}
