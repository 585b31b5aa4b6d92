//! What a queue goes by: the topic configs under `ottla.queue.`, typed, and the rules between them. A topic with
//! `ottla.queue.enable` is the queue of its name.
//!
//! A setting that could not act is refused rather than kept: one on a topic that is no queue, a retention beyond that of the
//! topic, a delay beyond either. `max.receive.count` needs no dead letter queue: without one, what was received so often is
//! archived, as share groups do with it, and can still be read from the topic.

mod filter;
mod sources;

pub use filter::{Filter, FilterFault};
pub use sources::{SourceFault, Sources};

use super::state::validate_name;
use super::topic_config::{Effective, Inherited, InvalidConfig};
use crate::config::ConfigMap;
use crate::config::definition::Valid::{self, OneOf};
use crate::config::definition::{Fault, Value, shortened};

/// What the names of all settings of queues begin with.
pub const PREFIX: &str = "ottla.queue.";

/// What makes a topic a queue.
pub const ENABLE: &str = "ottla.queue.enable";

/// Topics that a queue reads beside its own.
pub const SOURCE: &str = "ottla.queue.source";

/// Which records are messages.
pub const FILTER: &str = "ottla.queue.filter";

/// Where dead letters go.
pub const DEAD_LETTER_QUEUE: &str = "ottla.queue.dead.letter.queue";

/// Milliseconds of a day.
pub(super) const DAY_MS: i64 = 24 * 60 * 60 * 1000;

const REJECT: &str = "reject";
const DROP_OLDEST: &str = "drop-oldest";
const DEAD_LETTER_OLDEST: &str = "dead-letter-oldest";
const QUEUE: &str = "queue";
const KEY: &str = "key";

/// Valid values of `overflow`.
pub(super) const OVERFLOWS: Valid = OneOf(&[REJECT, DROP_OLDEST, DEAD_LETTER_OLDEST]);

/// Valid values of `dedup.scope`.
pub(super) const DEDUP_SCOPES: Valid = OneOf(&[QUEUE, KEY]);

/// What happens to a message for which a queue has no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Overflow {
    /// It is refused.
    Reject,
    /// The oldest goes.
    DropOldest,
    /// The oldest goes to the dead letter queue.
    DeadLetterOldest,
}

/// Among which messages a deduplication id is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DedupScope {
    /// Those of the queue.
    Queue,
    /// Those of a key.
    Key,
}

impl Overflow {
    /// As a config has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reject => REJECT,
            Self::DropOldest => DROP_OLDEST,
            Self::DeadLetterOldest => DEAD_LETTER_OLDEST,
        }
    }
}

impl DedupScope {
    /// As a config has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queue => QUEUE,
            Self::Key => KEY,
        }
    }
}

/// A queue's settings. Each field is the config of its name under `ottla.queue.`, with `.` for `_`; `None` stands for its
/// value that means none.
#[derive(Clone, PartialEq, Debug)]
pub struct QueueConfig {
    /// How long a received message is hidden from others; 0 to 12 hours.
    pub visibility_timeout_ms: i64,
    /// Before a message can be received first; not longer than it is kept.
    pub delay_ms: i64,
    /// Deliveries after which a message is dead, 1 to 1000.
    pub max_receive_count: Option<u16>,
    /// Name of the topic that gets dead messages, which need not be there yet.
    pub dead_letter_queue: Option<String>,
    /// How long messages can be received; `None`: as long as the topic keeps them.
    pub retention_ms: Option<i64>,
    /// Messages that the queue holds.
    pub max_messages: Option<i64>,
    /// Bytes of messages that the queue holds.
    pub max_bytes: Option<i64>,
    /// What happens beyond the two.
    pub overflow: Overflow,
    /// Whether messages of a key are received in order, each when those before it are done.
    pub fifo: bool,
    /// Time in which a second message of a deduplication id is dropped; 0: never.
    pub dedup_window_ms: i64,
    /// Whether messages without a deduplication id have the SHA-256 of their body as one.
    pub dedup_content: bool,
    /// Among which messages a deduplication id is one.
    pub dedup_scope: DedupScope,
    /// Before a message that came back is received again.
    pub backoff_ms: i64,
    /// What that is multiplied by at each further delivery, at least 1.
    pub backoff_multiplier: f64,
    /// Longest that it grows to.
    pub backoff_max_ms: i64,
    /// Levels of priority, 1 to 10.
    pub priorities: u8,
    /// After which a message expires whose header does not say.
    pub ttl_ms: Option<i64>,
    /// Messages of a key that may be in flight; 0: any number.
    pub key_concurrency: u32,
    /// Messages of a key that may be received a second; 0: any number.
    pub key_rate: u32,
    /// Messages that may be in flight, in each partition.
    pub max_in_flight: i64,
    /// Whether acknowledged messages stay for the topic's retention.
    pub keep_acknowledged: bool,
    /// Share of deliveries whose failure stops receiving; 0.0: never.
    pub breaker_failure_ratio: f64,
    /// Deliveries that the ratio is taken of.
    pub breaker_window: u32,
    /// How long a receive waits that does not say, up to 20 seconds.
    pub receive_wait_ms: i64,
    /// Largest message, body and attributes; 1 KiB to 1 MiB.
    pub max_message_bytes: i64,
    /// Topics that it reads beside its own.
    pub source: Sources,
    /// Which records are messages.
    pub filter: Filter,
    /// What only SQS clients read back; empty, or JSON that their door has written.
    pub sqs_attributes: String,
}

impl QueueConfig {
    /// The settings of a topic with these configs; `None` if it is no queue. What is stored and no longer valid counts as unset.
    pub fn of(overrides: &ConfigMap, inherited: &Inherited<'_>) -> Option<Self> {
        if !is_enabled(overrides) {
            return None;
        }
        let topic = Effective { overrides, inherited };
        let number = |name| topic.number(name);
        let is_true = |name| topic.value(name) == Value::Boolean(true);
        let unless_minus_one = |name| Some(topic.number(name)).filter(|number| *number >= 0);
        // What the table bounds, fits.
        let count = |name| u32::try_from(topic.number(name)).unwrap_or_default();
        Some(Self {
            visibility_timeout_ms: number("ottla.queue.visibility.timeout.ms"),
            delay_ms: number("ottla.queue.delay.ms"),
            max_receive_count: u16::try_from(number("ottla.queue.max.receive.count"))
                .ok()
                .filter(|count| *count > 0),
            dead_letter_queue: text(&topic, DEAD_LETTER_QUEUE).filter(|name| !name.is_empty()),
            retention_ms: unless_minus_one("ottla.queue.retention.ms"),
            max_messages: unless_minus_one("ottla.queue.max.messages"),
            max_bytes: unless_minus_one("ottla.queue.max.bytes"),
            overflow: match text(&topic, "ottla.queue.overflow").as_deref() {
                Some(DROP_OLDEST) => Overflow::DropOldest,
                Some(DEAD_LETTER_OLDEST) => Overflow::DeadLetterOldest,
                _ => Overflow::Reject,
            },
            fifo: is_true("ottla.queue.fifo"),
            dedup_window_ms: number("ottla.queue.dedup.window.ms"),
            dedup_content: is_true("ottla.queue.dedup.content"),
            dedup_scope: match topic.is("ottla.queue.dedup.scope", KEY) {
                true => DedupScope::Key,
                false => DedupScope::Queue,
            },
            backoff_ms: number("ottla.queue.backoff.ms"),
            backoff_multiplier: topic.value("ottla.queue.backoff.multiplier").as_f64(),
            backoff_max_ms: number("ottla.queue.backoff.max.ms"),
            priorities: u8::try_from(number("ottla.queue.priorities")).unwrap_or(1),
            ttl_ms: unless_minus_one("ottla.queue.ttl.ms"),
            key_concurrency: count("ottla.queue.key.concurrency"),
            key_rate: count("ottla.queue.key.rate"),
            max_in_flight: number("ottla.queue.max.in.flight"),
            keep_acknowledged: is_true("ottla.queue.keep.acknowledged"),
            breaker_failure_ratio: topic.value("ottla.queue.breaker.failure.ratio").as_f64(),
            breaker_window: count("ottla.queue.breaker.window"),
            receive_wait_ms: number("ottla.queue.receive.wait.ms"),
            max_message_bytes: number("ottla.queue.max.message.bytes"),
            source: Sources::of(items(&topic.value(SOURCE))).unwrap_or_default(),
            filter: Filter::of(items(&topic.value(FILTER))).unwrap_or_default(),
            sqs_attributes: text(&topic, "ottla.queue.sqs.attributes").unwrap_or_default(),
        })
    }
}

/// Whether a topic with these configs is a queue.
pub(super) fn is_enabled(overrides: &ConfigMap) -> bool {
    overrides.get(ENABLE).is_some_and(|value| value.trim().eq_ignore_ascii_case("true"))
}

/// The topic that gets the dead letters of one with these configs.
pub(super) fn dead_letter_queue(overrides: &ConfigMap) -> Option<&str> {
    overrides.get(DEAD_LETTER_QUEUE).map(|name| name.trim()).filter(|name| !name.is_empty())
}

/// The topics that one with these configs reads beside its own, as far as they are named.
pub(super) fn named_sources(overrides: &ConfigMap) -> impl Iterator<Item = &str> {
    let items = overrides.get(SOURCE).filter(|_| is_enabled(overrides)).into_iter();
    items.flat_map(|items| items.split(',')).map(str::trim).filter(|name| validate_name(name).is_ok())
}

/// Checks the rules between the configs of a topic, whose values are valid each for itself.
pub(super) fn validate(topic: &Effective<'_>) -> Result<(), InvalidConfig> {
    let overrides = topic.overrides;
    if !is_enabled(overrides) {
        let set = overrides.keys().find(|name| name.starts_with(PREFIX) && *name != ENABLE);
        return set.map_or(Ok(()), |name| Err(needs(name, "ottla.queue.enable=true")));
    }
    // Compaction would take messages away that nobody has received.
    if topic.value("cleanup.policy").contains("compact") {
        let other = "cleanup.policy=compact";
        return Err(InvalidConfig::Excluded { one: "ottla.queue.enable=true", other });
    }
    if topic.value("ottla.queue.fifo") == Value::Boolean(true) && topic.number("ottla.queue.priorities") > 1 {
        let other = "ottla.queue.priorities above 1";
        return Err(InvalidConfig::Excluded { one: "ottla.queue.fifo=true", other });
    }
    for (name, bound) in [
        ("ottla.queue.retention.ms", "retention.ms"),
        ("ottla.queue.delay.ms", "ottla.queue.retention.ms"),
        ("ottla.queue.delay.ms", "retention.ms"),
        ("ottla.queue.backoff.ms", "ottla.queue.backoff.max.ms"),
    ] {
        let (number, bound_number) = (topic.number(name), topic.number(bound));
        // A bound of -1 is none.
        if bound_number >= 0 && number > bound_number {
            return Err(InvalidConfig::Beyond { name, number, bound, bound_number });
        }
    }
    check_binding(topic)?;
    let name = dead_letter_queue(overrides);
    if topic.is("ottla.queue.overflow", DEAD_LETTER_OLDEST) && name.is_none() {
        return Err(needs("ottla.queue.overflow=dead-letter-oldest", DEAD_LETTER_QUEUE));
    }
    match name.filter(|name| validate_name(name).is_err()) {
        None => Ok(()),
        Some(name) => Err(InvalidConfig::Value {
            name: DEAD_LETTER_QUEUE.to_owned(),
            value: shortened(name),
            fault: Fault::Expected("the name of a topic"),
        }),
    }
}

/// Checks what says of which topics the messages of a queue are, and which records of them.
fn check_binding(topic: &Effective<'_>) -> Result<(), InvalidConfig> {
    let wrong = |name: &str, value: &str, expected| {
        Err(InvalidConfig::Value {
            name: name.to_owned(),
            value: shortened(value),
            fault: Fault::Expected(expected),
        })
    };
    let (source, filter) = (topic.value(SOURCE), topic.value(FILTER));
    match Sources::of(items(&source)) {
        Ok(_) => {}
        Err(SourceFault::Neither(item)) => {
            let expected = "names of topics, or patterns of words between dots: * for one, # for any number";
            return wrong(SOURCE, &item, expected);
        }
        Err(SourceFault::TooMany) => {
            return wrong(SOURCE, &source.to_string(), "at most 100 topics and patterns");
        }
    }
    match Filter::of(items(&filter)) {
        Ok(_) => {}
        Err(FilterFault::NoTerm(item)) => {
            return wrong(FILTER, &item, "terms over headers: name, !name, name=a|b or name!=a|b");
        }
        Err(FilterFault::TooMany) => return wrong(FILTER, &filter.to_string(), "at most 32 terms"),
    }
    // Who produces to another topic does not ask whether this queue is full.
    let is_limited =
        ["ottla.queue.max.messages", "ottla.queue.max.bytes"].iter().any(|name| topic.number(name) >= 0);
    if !items(&source).is_empty() && is_limited && topic.is("ottla.queue.overflow", REJECT) {
        let other = "ottla.queue.overflow=reject with max.messages or max.bytes";
        return Err(InvalidConfig::Excluded { one: SOURCE, other });
    }
    Ok(())
}

fn items(list: &Value) -> Vec<&str> {
    match list {
        Value::List(items) => items.iter().map(String::as_str).collect(),
        _ => Vec::new(),
    }
}

fn needs(name: &str, needed: &'static str) -> InvalidConfig {
    InvalidConfig::Needs { name: name.to_owned(), needed }
}

fn text(topic: &Effective<'_>, name: &str) -> Option<String> {
    match topic.value(name) {
        Value::String(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::topic_config::{self, TopicConfig};
    use super::*;

    /// A queue with these settings, without their prefix; whole names where they have one.
    fn queue(settings: &[(&str, &str)]) -> ConfigMap {
        let full = |name: &str| match name.strip_prefix("topic:") {
            Some(name) => name.to_owned(),
            None => format!("{PREFIX}{name}"),
        };
        let set = settings.iter().map(|(name, value)| (full(name), value.to_string()));
        set.chain([(ENABLE.to_owned(), "true".to_owned())]).collect()
    }

    fn inheriting<T>(check: impl FnOnce(&Inherited<'_>) -> T) -> T {
        let none = ConfigMap::new();
        check(&Inherited { dynamic_node: &none, dynamic_default: &none, fixed: &none })
    }

    fn of(settings: &[(&str, &str)]) -> QueueConfig {
        inheriting(|none| QueueConfig::of(&queue(settings), none)).unwrap()
    }

    fn refusal(settings: &[(&str, &str)]) -> Option<String> {
        let refused = inheriting(|none| topic_config::validate(&queue(settings), none).err());
        refused.map(|error| error.to_string())
    }

    #[test]
    fn a_topic_is_a_queue_once_it_says_so() {
        let delay = ConfigMap::from([("ottla.queue.delay.ms".to_owned(), "1".to_owned())]);
        let off = ConfigMap::from([(ENABLE.to_owned(), "false".to_owned())]);
        inheriting(|none| {
            assert_eq!(QueueConfig::of(&ConfigMap::new(), none), None);
            assert_eq!(QueueConfig::of(&off, none), None);
            assert_eq!(topic_config::validate(&off, none), Ok(()));
            let refused = topic_config::validate(&delay, none).unwrap_err().to_string();
            assert_eq!(refused, "ottla.queue.delay.ms needs ottla.queue.enable=true");
        });
        let defaults = QueueConfig {
            visibility_timeout_ms: 30_000,
            delay_ms: 0,
            max_receive_count: None,
            dead_letter_queue: None,
            retention_ms: None,
            max_messages: None,
            max_bytes: None,
            overflow: Overflow::Reject,
            fifo: false,
            dedup_window_ms: 300_000,
            dedup_content: false,
            dedup_scope: DedupScope::Queue,
            backoff_ms: 0,
            backoff_multiplier: 2.0,
            backoff_max_ms: 3_600_000,
            priorities: 1,
            ttl_ms: None,
            key_concurrency: 0,
            key_rate: 0,
            max_in_flight: 120_000,
            keep_acknowledged: true,
            breaker_failure_ratio: 0.0,
            breaker_window: 100,
            receive_wait_ms: 0,
            max_message_bytes: 1_048_576,
            source: Sources::default(),
            filter: Filter::default(),
            sqs_attributes: String::new(),
        };
        assert_eq!(of(&[]), defaults);
    }

    #[test]
    fn every_setting_is_found_in_its_field() {
        let set = [
            ("visibility.timeout.ms", "1"),
            ("delay.ms", "2"),
            ("max.receive.count", "3"),
            ("dead.letter.queue", " dead "),
            ("retention.ms", "4"),
            ("max.messages", "5"),
            ("max.bytes", "6"),
            ("overflow", "dead-letter-oldest"),
            ("fifo", "TRUE"),
            ("dedup.window.ms", "7"),
            ("dedup.content", "true"),
            ("dedup.scope", "key"),
            ("backoff.ms", "8"),
            ("backoff.multiplier", "1.5"),
            ("backoff.max.ms", "9"),
            ("priorities", "1"),
            ("ttl.ms", "10"),
            ("key.concurrency", "11"),
            ("key.rate", "12"),
            ("max.in.flight", "13"),
            ("keep.acknowledged", "false"),
            ("breaker.failure.ratio", "0.5"),
            ("breaker.window", "14"),
            ("receive.wait.ms", "15"),
            ("max.message.bytes", "1024"),
            ("source", "a, b.#"),
            ("filter", "c=d"),
            ("sqs.attributes", "{\"tags\":{}}"),
        ];
        let expected = QueueConfig {
            visibility_timeout_ms: 1,
            delay_ms: 2,
            max_receive_count: Some(3),
            dead_letter_queue: Some("dead".to_owned()),
            retention_ms: Some(4),
            max_messages: Some(5),
            max_bytes: Some(6),
            overflow: Overflow::DeadLetterOldest,
            fifo: true,
            dedup_window_ms: 7,
            dedup_content: true,
            dedup_scope: DedupScope::Key,
            backoff_ms: 8,
            backoff_multiplier: 1.5,
            backoff_max_ms: 9,
            priorities: 1,
            ttl_ms: Some(10),
            key_concurrency: 11,
            key_rate: 12,
            max_in_flight: 13,
            keep_acknowledged: false,
            breaker_failure_ratio: 0.5,
            breaker_window: 14,
            receive_wait_ms: 15,
            max_message_bytes: 1024,
            source: Sources::of(["a", "b.#"]).unwrap(),
            filter: Filter::of(["c=d"]).unwrap(),
            sqs_attributes: "{\"tags\":{}}".to_owned(),
        };
        assert_eq!((refusal(&set), of(&set)), (None, expected));
        assert_eq!(
            (of(&[("priorities", "10")]).priorities, of(&[("overflow", "drop-oldest")]).overflow),
            (10, Overflow::DropOldest)
        );
        let of_queues = TopicConfig::all().filter(|config| config.definition.name.starts_with(PREFIX));
        let untold: Vec<_> = of_queues
            .map(|config| config.definition.name)
            .filter(|name| {
                *name != ENABLE && set.iter().all(|(known, _)| name.strip_prefix(PREFIX) != Some(known))
            })
            .collect();
        assert!(untold.is_empty(), "{untold:?}");
    }

    #[test]
    fn every_number_takes_the_edges_of_its_range_and_nothing_beyond() {
        const LONGEST: i64 = i64::MAX;
        for (name, smallest, largest) in [
            ("visibility.timeout.ms", 0, 43_200_000),
            ("delay.ms", 0, 604_800_000),
            ("max.receive.count", 0, 1000),
            ("max.messages", 1, LONGEST),
            ("max.bytes", 1, LONGEST),
            ("retention.ms", 1, 604_800_000),
            ("dedup.window.ms", 0, DAY_MS),
            ("backoff.ms", 0, 3_600_000),
            ("backoff.max.ms", 0, LONGEST),
            ("priorities", 1, 10),
            ("ttl.ms", 1, LONGEST),
            ("key.concurrency", 0, i64::from(i32::MAX)),
            ("key.rate", 0, i64::from(i32::MAX)),
            ("max.in.flight", 1, 10_000_000),
            ("breaker.failure.ratio", 0, 1),
            ("breaker.window", 1, 100_000),
            ("backoff.multiplier", 1, 100),
            ("receive.wait.ms", 0, 20_000),
            ("max.message.bytes", 1024, 1_048_576),
        ] {
            let refused = |number: i128| refusal(&[(name, &number.to_string())]).is_some();
            assert!(!refused(smallest.into()) && !refused(largest.into()), "{name}");
            assert!(refused(i128::from(largest) + 1), "{name}");
            // Of some, -1 stands for none.
            let below = if refused(-1) { smallest - 1 } else { 0 };
            assert!(refused(below.into()) && refused(-2), "{name} takes {below}");
        }
        for (name, value) in
            [("overflow", "drop"), ("dedup.scope", "group"), ("fifo", "yes"), ("dedup.content", "")]
        {
            assert!(refusal(&[(name, value)]).is_some(), "{name} takes {value}");
        }
    }

    #[test]
    fn what_could_not_act_is_refused_by_name() {
        for (settings, expected) in [
            (
                &[("retention.ms", "2000"), ("topic:retention.ms", "1000")][..],
                "conflict topic config setting ottla.queue.retention.ms (2000) > retention.ms (1000)",
            ),
            (
                &[("delay.ms", "2000"), ("retention.ms", "1000")],
                "conflict topic config setting ottla.queue.delay.ms (2000) > ottla.queue.retention.ms (1000)",
            ),
            (
                &[("delay.ms", "604800001")],
                "conflict topic config setting ottla.queue.delay.ms (604800001) > retention.ms (604800000)",
            ),
            (
                &[("backoff.ms", "2"), ("backoff.max.ms", "1")],
                "conflict topic config setting ottla.queue.backoff.ms (2) > ottla.queue.backoff.max.ms (1)",
            ),
            (
                &[("fifo", "true"), ("priorities", "2")],
                "ottla.queue.fifo=true and ottla.queue.priorities above 1 exclude each other",
            ),
            (
                &[("topic:cleanup.policy", "compact,delete")],
                "ottla.queue.enable=true and cleanup.policy=compact exclude each other",
            ),
            (
                &[("overflow", "dead-letter-oldest")],
                "ottla.queue.overflow=dead-letter-oldest needs ottla.queue.dead.letter.queue",
            ),
            (
                &[("dead.letter.queue", "a/b")],
                "Invalid value a/b for configuration ottla.queue.dead.letter.queue: expected the name of a topic",
            ),
            (
                &[("source", "a,or*")],
                "Invalid value or* for configuration ottla.queue.source: expected names of topics, or patterns of words between dots: * for one, # for any number",
            ),
            (
                &[("filter", "region=eu,!")],
                "Invalid value ! for configuration ottla.queue.filter: expected terms over headers: name, !name, name=a|b or name!=a|b",
            ),
            (
                &[("source", "a"), ("max.bytes", "1")],
                "ottla.queue.source and ottla.queue.overflow=reject with max.messages or max.bytes exclude each other",
            ),
        ] {
            assert_eq!(refusal(settings).as_deref(), Some(expected));
        }
        let for_ever = [("delay.ms", "9000000000000"), ("topic:retention.ms", "-1")];
        assert_eq!(refusal(&for_ever), None);
        assert_eq!(refusal(&[("max.receive.count", "3")]), None);
        assert_eq!(refusal(&[("source", "a"), ("max.bytes", "1"), ("overflow", "drop-oldest")]), None);
        assert_eq!(refusal(&[("retention.ms", "1000"), ("delay.ms", "1000")]), None);
    }

    #[test]
    fn only_a_queue_is_described_with_the_settings_of_queues() {
        let named = |overrides: &ConfigMap| -> Vec<String> {
            let entries = inheriting(|none| topic_config::describe(overrides, none)).into_iter();
            entries.map(|entry| entry.name).filter(|name| name.starts_with(PREFIX)).collect()
        };
        assert_eq!(named(&ConfigMap::new()), [ENABLE]);
        let all = named(&queue(&[]));
        assert_eq!(all.len(), 29);
        assert!(all.iter().any(|name| name == "ottla.queue.visibility.timeout.ms"));
    }
}
