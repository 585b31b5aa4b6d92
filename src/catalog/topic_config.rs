//! Topic configs: which exist, what they take, where an unset one gets its value, and how they are described.
//!
//! A topic stores only its overrides, as text. A value is looked for in them, then among the broker keys that the config
//! inherits from (its synonyms), level by level, then it is the default. [`effective`] is the typed result that a log acts
//! on. Nothing here knows a wire message; `handlers` turns [`InvalidConfig`] into error codes.

use std::collections::BTreeSet;
use std::fmt;

use super::queue_config::{self, DAY_MS, DEDUP_SCOPES, OVERFLOWS};
use crate::config::definition::Valid::{Any, AtLeast, Between, BetweenOrMinusOne, ThrottledReplicas};
use crate::config::definition::{ConfigType, Definition, Fault, MAX_VALUE_BYTES, Value, nearest, shortened};
use crate::config::{BrokerKey, ConfigMap};
use crate::config::{CODECS, FLUSH_MODES, MAX_DECOMPRESSED, POLICIES, TIMESTAMP_TYPES};
use crate::log::config::{FlushMode, LogConfig};
use crate::record::{Codec, Compression, TimestampType};

/// A topic config and the broker keys that it inherits from.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TopicConfig {
    /// Name, type, default, valid values.
    pub definition: Definition,
    /// The broker keys that give its value when the topic does not: of those set at one level, the first counts.
    pub synonyms: &'static [Synonym],
}

/// A broker key that a topic config inherits from.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Synonym {
    /// The broker key.
    pub name: &'static str,
    /// What its number is multiplied by, if it is not -1: keys that end in `.hours` or `.minutes` give milliseconds.
    unit_factor: i64,
}

/// Why configs are refused. `handlers` answers INVALID_REQUEST for [`NullValue`](Self::NullValue),
/// [`DuplicateKey`](Self::DuplicateKey) and [`NotDynamic`](Self::NotDynamic), INVALID_CONFIG for the rest.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidConfig {
    /// No topic config has this name.
    #[error("Unknown topic config name: {name}{}", hint(*.nearest))]
    UnknownTopicConfig {
        /// The name as given.
        name: String,
        /// The known name that was most likely meant.
        nearest: Option<&'static str>,
    },
    /// No group config has this name.
    #[error("Unknown group config name: {name}{}", hint(*.nearest))]
    UnknownGroupConfig {
        /// The name as given.
        name: String,
        /// The known name that was most likely meant.
        nearest: Option<&'static str>,
    },
    /// No broker key has this name.
    #[error("Unknown broker config name: {name}{}", hint(*.nearest))]
    UnknownBrokerKey {
        /// The name as given.
        name: String,
        /// The known name that was most likely meant.
        nearest: Option<&'static str>,
    },
    /// A value that its config does not take.
    #[error("Invalid value {value} for configuration {name}: {fault}")]
    Value {
        /// The config.
        name: String,
        /// The value as given.
        value: String,
        /// What is wrong with it.
        fault: Fault,
    },
    /// The shortest time before compaction is above the longest.
    #[error(
        "conflict topic config setting min.compaction.lag.ms ({min_ms}) > max.compaction.lag.ms ({max_ms})"
    )]
    CompactionLags {
        /// `min.compaction.lag.ms`.
        min_ms: i64,
        /// `max.compaction.lag.ms`.
        max_ms: i64,
    },
    /// A number that another config bounds.
    #[error("conflict topic config setting {name} ({number}) > {bound} ({bound_number})")]
    Beyond {
        /// The config.
        name: &'static str,
        /// Its number.
        number: i64,
        /// The config whose number is the largest that it may have.
        bound: &'static str,
        /// That number.
        bound_number: i64,
    },
    /// A config that means nothing without another.
    #[error("{name} needs {needed}")]
    Needs {
        /// The config.
        name: String,
        /// What is missing.
        needed: &'static str,
    },
    /// Two configs of which a topic has one at most.
    #[error("{one} and {other} exclude each other")]
    Excluded {
        /// One.
        one: &'static str,
        /// The other.
        other: &'static str,
    },
    /// Dead letters that would come back to where they died.
    #[error("Dead letters would go round: {}", .0.join(" -> "))]
    DeadLetterCircle(Vec<String>),
    /// A topic of the broker's own as what a queue reads.
    #[error("The internal topic {0} cannot be read by a queue.")]
    InternalSource(String),
    /// A topic of the broker's own as a queue, or as one's dead letter queue.
    #[error("The internal topic {0} is no queue.")]
    InternalQueue(String),
    /// `remote.storage.enable` without tiered storage.
    #[error(
        "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage."
    )]
    NoTieredStorage,
    /// APPEND or SUBTRACT on what is no list.
    #[error("Can't {operation} to key {name} because its type is not LIST.")]
    NotAList {
        /// The config.
        name: String,
        /// The operation.
        operation: OpKind,
    },
    /// A null value where one is needed.
    #[error("Null value not supported for : {name}")]
    NullValue {
        /// The config.
        name: String,
    },
    /// One key twice in a request for one resource.
    #[error("Error due to duplicate config keys: {name}")]
    DuplicateKey {
        /// The config.
        name: String,
    },
    /// A broker key that cannot change while the broker runs.
    #[error("Cannot update these configs dynamically: {name}")]
    NotDynamic {
        /// The broker key.
        name: &'static str,
    },
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!(" (did you mean {name}?)"))
}

/// What topics inherit: broker keys that were set, the most specific level first.
#[derive(Clone, Copy, Debug)]
pub struct Inherited<'a> {
    /// Set at run time for this node.
    pub dynamic_node: &'a ConfigMap,
    /// Set at run time for all nodes.
    pub dynamic_default: &'a ConfigMap,
    /// Set at start: [`crate::config::Config::explicit`].
    pub fixed: &'a ConfigMap,
}

impl<'a> Inherited<'a> {
    /// The levels with their sources, the most specific first.
    pub(super) fn levels(&self) -> [(&'a ConfigMap, Source); 3] {
        [
            (self.dynamic_node, Source::DynamicBroker),
            (self.dynamic_default, Source::DynamicDefaultBroker),
            (self.fixed, Source::StaticBroker),
        ]
    }
}

/// Where a value was set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// On the topic.
    DynamicTopic,
    /// On the group. KIP-848.
    DynamicGroup,
    /// On this node, at run time.
    DynamicBroker,
    /// For all nodes, at run time.
    DynamicDefaultBroker,
    /// At start: file, environment or flag.
    StaticBroker,
    /// Nowhere.
    Default,
}

impl Source {
    /// Kafka's number in DescribeConfigs answers.
    pub const fn code(self) -> i8 {
        match self {
            Self::DynamicTopic => 1,
            Self::DynamicBroker => 2,
            Self::DynamicDefaultBroker => 3,
            Self::StaticBroker => 4,
            Self::Default => 5,
            Self::DynamicGroup => 8,
        }
    }
}

/// A config as DescribeConfigs shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigEntry {
    /// Name.
    pub name: String,
    /// Value; `None` when there is none or it must not be shown.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: Source,
    /// Whether it cannot change while the broker runs.
    pub read_only: bool,
    /// Whether the value is withheld.
    pub sensitive: bool,
    /// Every place that gives a value, the one that counts first.
    pub synonyms: Vec<ConfigSynonym>,
    /// Kafka's code of the type; 0 for a config that the registry does not know.
    pub type_code: i8,
    /// One line for people.
    pub documentation: &'static str,
}

/// One place that gives a config's value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigSynonym {
    /// The name there.
    pub name: &'static str,
    /// The value there.
    pub value: String,
    /// The place.
    pub source: Source,
}

/// One change of IncrementalAlterConfigs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigOp {
    /// The config.
    pub name: String,
    /// What to do.
    pub kind: OpKind,
    /// With what; a DELETE needs none.
    pub value: Option<String>,
}

/// What a change does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpKind {
    /// Sets the value.
    Set,
    /// Goes back to what is inherited.
    Delete,
    /// Adds to a list what it does not have.
    Append,
    /// Takes from a list.
    Subtract,
}

impl OpKind {
    /// The operation of Kafka's number.
    pub const fn from_code(code: i8) -> Option<Self> {
        match code {
            0 => Some(Self::Set),
            1 => Some(Self::Delete),
            2 => Some(Self::Append),
            3 => Some(Self::Subtract),
            _ => None,
        }
    }
}

impl fmt::Display for OpKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Set => "SET",
            Self::Delete => "DELETE",
            Self::Append => "APPEND",
            Self::Subtract => "SUBTRACT",
        })
    }
}

/// Topic configs that the broker acts on.
pub const ACTED_ON: &[&str] = &[
    "cleanup.policy",
    "compression.gzip.level",
    "compression.lz4.level",
    "compression.type",
    "compression.zstd.level",
    "delete.retention.ms",
    DEAD_LETTERS_ALLOWED,
    "file.delete.delay.ms",
    "flush.messages",
    "flush.ms",
    "index.interval.bytes",
    "max.compaction.lag.ms",
    "max.decompressed.message.bytes",
    "max.message.bytes",
    "message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms",
    "message.timestamp.type",
    "min.cleanable.dirty.ratio",
    "min.compaction.lag.ms",
    "ottla.flush",
    "ottla.queue.backoff.max.ms",
    "ottla.queue.backoff.ms",
    "ottla.queue.backoff.multiplier",
    "ottla.queue.breaker.failure.ratio",
    "ottla.queue.breaker.window",
    "ottla.queue.dead.letter.queue",
    "ottla.queue.dedup.content",
    "ottla.queue.dedup.scope",
    "ottla.queue.dedup.window.ms",
    "ottla.queue.delay.ms",
    "ottla.queue.enable",
    "ottla.queue.fifo",
    "ottla.queue.filter",
    "ottla.queue.keep.acknowledged",
    "ottla.queue.key.concurrency",
    "ottla.queue.key.rate",
    "ottla.queue.lease.ends.with.connection",
    "ottla.queue.max.bytes",
    "ottla.queue.max.in.flight",
    "ottla.queue.max.message.bytes",
    "ottla.queue.max.messages",
    "ottla.queue.max.receive.count",
    "ottla.queue.overflow",
    "ottla.queue.priorities",
    "ottla.queue.receive.wait.ms",
    "ottla.queue.retention.ms",
    "ottla.queue.source",
    "ottla.queue.sqs.attributes",
    "ottla.queue.ttl.ms",
    "ottla.queue.visibility.timeout.ms",
    "preallocate",
    "retention.bytes",
    "retention.ms",
    "segment.bytes",
    "segment.index.bytes",
    "segment.jitter.ms",
    "segment.ms",
];

/// Whether share groups may write dead letters to a topic. KIP-1191.
pub const DEAD_LETTERS_ALLOWED: &str = "errors.deadletterqueue.group.enable";

/// Topic configs that are checked, stored and described, and have nothing to act on: not in a Kafka cluster of one broker
/// without tiered storage either.
pub const NOT_ACTED_ON: &[&str] = &[
    "follower.replication.throttled.replicas",
    "leader.replication.throttled.replicas",
    "local.retention.bytes",
    "local.retention.ms",
    // No more are asked for than a topic has, which is one. KIP-966.
    "min.insync.replicas",
    "remote.copy.lag.bytes",
    "remote.copy.lag.ms",
    "remote.log.copy.disable",
    "remote.log.delete.on.disable",
    "remote.storage.enable",
    "unclean.leader.election.enable",
];

/// Rows `/// doc, "config" kind default, valid, broker keys that it inherits from;`.
macro_rules! topic_configs {
    ($($(#[doc = $doc:literal])+ $name:literal $kind:ident $default:literal, $valid:expr, [$($synonym:literal),*];)+) => {
        const TOPIC_CONFIGS: &[TopicConfig] = &[$(TopicConfig {
            definition: Definition {
                name: $name,
                kind: ConfigType::$kind,
                default: Some($default),
                valid: $valid,
                doc: concat!($($doc),+).trim_ascii(),
            },
            synonyms: &[$(synonym($synonym)),*],
        }),+];
    };
}

topic_configs! {
    /// Delete old segments, compact by key, both or neither.
    "cleanup.policy" List "delete", POLICIES, ["log.cleanup.policy"];
    /// Gzip level, -1 for the library's.
    "compression.gzip.level" Int "-1", BetweenOrMinusOne(1, 9), ["compression.gzip.level"];
    /// Lz4 level.
    "compression.lz4.level" Int "9", Between(1, 17), ["compression.lz4.level"];
    /// Codec that batches are stored in; producer keeps theirs.
    "compression.type" String "producer", CODECS, ["compression.type"];
    /// Zstd level.
    "compression.zstd.level" Int "3", Between(-131_072, 22), ["compression.zstd.level"];
    /// How long tombstones survive compaction, milliseconds.
    "delete.retention.ms" Long "86400000", AtLeast(0), ["log.cleaner.delete.retention.ms"];
    /// Whether share groups may write dead letters here.
    "errors.deadletterqueue.group.enable" Boolean "false", Any, [];
    /// Wait before removed files are unlinked, milliseconds.
    "file.delete.delay.ms" Long "60000", AtLeast(0), ["log.segment.delete.delay.ms"];
    /// Records after which a file is synced.
    "flush.messages" Long "9223372036854775807", AtLeast(1), ["log.flush.interval.messages"];
    /// Milliseconds after which a file is synced.
    "flush.ms" Long "9223372036854775807", AtLeast(0),
        ["log.flush.interval.ms", "log.flush.scheduler.interval.ms"];
    /// Replicas whose fetching is throttled: * or partition:broker pairs.
    "follower.replication.throttled.replicas" List "", ThrottledReplicas, [];
    /// Log bytes between index entries.
    "index.interval.bytes" Int "4096", AtLeast(0), ["log.index.interval.bytes"];
    /// Replicas whose leader is throttled: * or partition:broker pairs.
    "leader.replication.throttled.replicas" List "", ThrottledReplicas, [];
    /// Bytes kept locally with tiered storage; -2 for retention.bytes.
    "local.retention.bytes" Long "-2", AtLeast(-2), ["log.local.retention.bytes"];
    /// Time kept locally with tiered storage, milliseconds; -2 for retention.ms.
    "local.retention.ms" Long "-2", AtLeast(-2), ["log.local.retention.ms"];
    /// Longest time that a record may stay uncompacted, milliseconds.
    "max.compaction.lag.ms" Long "9223372036854775807", AtLeast(1), ["log.cleaner.max.compaction.lag.ms"];
    /// Largest record after decompression, bytes.
    "max.decompressed.message.bytes" Int "2147483639", Between(1, MAX_DECOMPRESSED),
        ["max.decompressed.message.bytes"];
    /// Largest batch, bytes as compressed.
    "max.message.bytes" Int "1048588", AtLeast(0), ["message.max.bytes"];
    /// How far a record's time may lead the broker's, milliseconds.
    "message.timestamp.after.max.ms" Long "3600000", AtLeast(0), ["log.message.timestamp.after.max.ms"];
    /// How far a record's time may lag the broker's, milliseconds.
    "message.timestamp.before.max.ms" Long "9223372036854775807", AtLeast(0),
        ["log.message.timestamp.before.max.ms"];
    /// Whose time records have: the producer's or the broker's.
    "message.timestamp.type" String "CreateTime", TIMESTAMP_TYPES, ["log.message.timestamp.type"];
    /// Share of uncompacted bytes at which compaction runs.
    "min.cleanable.dirty.ratio" Double "0.5", Between(0, 1), ["log.cleaner.min.cleanable.ratio"];
    /// Shortest time that a record stays uncompacted, milliseconds.
    "min.compaction.lag.ms" Long "0", AtLeast(0), ["log.cleaner.min.compaction.lag.ms"];
    /// Replicas that acks=all asks for.
    "min.insync.replicas" Int "1", AtLeast(1), ["min.insync.replicas"];
    /// When an append counts: commit, after a sync to the disk (survives the death of the machine); os, after the
    /// write (survives that of the process).
    "ottla.flush" String "commit", FLUSH_MODES, ["ottla.flush"];
    /// Longest that backoff.ms grows to, milliseconds.
    "ottla.queue.backoff.max.ms" Long "3600000", AtLeast(0), [];
    /// Time before a message whose delivery came to nothing is received again, milliseconds.
    "ottla.queue.backoff.ms" Long "0", AtLeast(0), [];
    /// What backoff.ms is multiplied by at each further delivery.
    "ottla.queue.backoff.multiplier" Double "2.0", Between(1, 100), [];
    /// Share of deliveries whose failure stops receiving; 0 for none.
    "ottla.queue.breaker.failure.ratio" Double "0.0", Between(0, 1), [];
    /// Deliveries that the ratio is taken of.
    "ottla.queue.breaker.window" Int "100", Between(1, 100_000), [];
    /// Queue that gets what was received too often or rejected; empty for none: then it is archived.
    "ottla.queue.dead.letter.queue" String "", Any, [];
    /// Whether messages without a deduplication id have the SHA-256 of their body as one.
    "ottla.queue.dedup.content" Boolean "false", Any, [];
    /// Among which messages a deduplication id is one: those of the queue, or of a key.
    "ottla.queue.dedup.scope" String "queue", DEDUP_SCOPES, [];
    /// Time in which a second message of a deduplication id is dropped, milliseconds; 0 for none.
    "ottla.queue.dedup.window.ms" Long "300000", Between(0, DAY_MS), [];
    /// Time before a message can be received first, milliseconds.
    "ottla.queue.delay.ms" Long "0", AtLeast(0), [];
    /// Whether the topic is a queue, with the share group of its name as its cursor.
    "ottla.queue.enable" Boolean "false", Any, [];
    /// Whether messages of a key are received in order, and not before those ahead of them are done.
    "ottla.queue.fifo" Boolean "false", Any, [];
    /// Terms over the headers of a record that must all hold for it to be a message, such as region=eu or !debug; empty for
    /// none.
    "ottla.queue.filter" List "", Any, [];
    /// Whether acknowledged messages stay for the topic's retention, to be replayed.
    "ottla.queue.keep.acknowledged" Boolean "true", Any, [];
    /// Messages of a key that may be in flight at once; 0 for any number.
    "ottla.queue.key.concurrency" Int "0", AtLeast(0), [];
    /// Messages of a key that may be received a second; 0 for any number.
    "ottla.queue.key.rate" Int "0", AtLeast(0), [];
    /// Whether messages come back when the client has gone whose HTTP connection received them; those of share consumers always do.
    "ottla.queue.lease.ends.with.connection" Boolean "false", Any, [];
    /// Bytes of messages that the queue holds; -1 for any number.
    "ottla.queue.max.bytes" Long "-1", BetweenOrMinusOne(1, i64::MAX), [];
    /// Messages that may be in flight, in each partition.
    "ottla.queue.max.in.flight" Long "120000", Between(1, 10_000_000), [];
    /// Largest message, body and attributes, bytes.
    "ottla.queue.max.message.bytes" Long "1048576", Between(1024, 1_048_576), [];
    /// Messages that the queue holds; -1 for any number.
    "ottla.queue.max.messages" Long "-1", BetweenOrMinusOne(1, i64::MAX), [];
    /// Deliveries after which a message is dead; 0 for any number.
    "ottla.queue.max.receive.count" Int "0", Between(0, 1000), [];
    /// What happens to a message beyond max.messages or max.bytes: it is refused, or the oldest goes.
    "ottla.queue.overflow" String "reject", OVERFLOWS, [];
    /// Priorities of messages: the highest are received first, every tenth time the lowest.
    "ottla.queue.priorities" Int "1", Between(1, 10), [];
    /// How long a receive waits for a message, milliseconds, unless it says so itself.
    "ottla.queue.receive.wait.ms" Long "0", Between(0, 20_000), [];
    /// Time that messages can be received for, milliseconds; -1 for retention.ms.
    "ottla.queue.retention.ms" Long "-1", BetweenOrMinusOne(1, i64::MAX), [];
    /// Topics that are read beside the queue's own, by name or by pattern: * for one word between dots, # for any number; empty
    /// for none.
    "ottla.queue.source" List "", Any, [];
    /// JSON of what only SQS clients set and read back.
    "ottla.queue.sqs.attributes" String "", Any, [];
    /// Time after which a message expires, milliseconds, unless its header says another; -1 for never.
    "ottla.queue.ttl.ms" Long "-1", BetweenOrMinusOne(1, i64::MAX), [];
    /// How long a received message is hidden from others, milliseconds.
    "ottla.queue.visibility.timeout.ms" Long "30000", Between(0, 43_200_000), [];
    /// Reserve the space of a segment when it is made.
    "preallocate" Boolean "false", Any, ["log.preallocate"];
    /// Bytes held back from tiered storage.
    "remote.copy.lag.bytes" Long "-1", AtLeast(-1), ["log.remote.copy.lag.bytes"];
    /// Milliseconds held back from tiered storage.
    "remote.copy.lag.ms" Long "0", AtLeast(-1), ["log.remote.copy.lag.ms"];
    /// Copy nothing more to tiered storage.
    "remote.log.copy.disable" Boolean "false", Any, [];
    /// Delete what is in tiered storage when it is turned off.
    "remote.log.delete.on.disable" Boolean "false", Any, [];
    /// Keep old segments in tiered storage.
    "remote.storage.enable" Boolean "false", Any, [];
    /// Bytes kept per partition; -1 for all.
    "retention.bytes" Long "-1", Any, ["log.retention.bytes"];
    /// Time kept, milliseconds; -1 for ever.
    "retention.ms" Long "604800000", AtLeast(-1),
        ["log.retention.ms", "log.retention.minutes", "log.retention.hours"];
    /// Size at which a segment is rolled, bytes.
    "segment.bytes" Int "1073741824", AtLeast(1_048_576), ["log.segment.bytes"];
    /// Largest index file, bytes.
    "segment.index.bytes" Int "10485760", AtLeast(4), ["log.index.size.max.bytes"];
    /// Random cut from segment.ms, milliseconds.
    "segment.jitter.ms" Long "0", AtLeast(0), ["log.roll.jitter.ms", "log.roll.jitter.hours"];
    /// Age at which a segment is rolled, milliseconds.
    "segment.ms" Long "604800000", AtLeast(1), ["log.roll.ms", "log.roll.hours"];
    /// Let a replica lead that lacks records.
    "unclean.leader.election.enable" Boolean "false", Any, ["unclean.leader.election.enable"];
}

const MS_PER_MINUTE: i64 = 60 * 1000;
const MS_PER_HOUR: i64 = 60 * MS_PER_MINUTE;

const fn synonym(name: &'static str) -> Synonym {
    let unit_factor = match name.as_bytes() {
        [.., b'.', b'h', b'o', b'u', b'r', b's'] => MS_PER_HOUR,
        [.., b'.', b'm', b'i', b'n', b'u', b't', b'e', b's'] => MS_PER_MINUTE,
        _ => 1,
    };
    Synonym { name, unit_factor }
}

impl TopicConfig {
    /// All topic configs, by name.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        TOPIC_CONFIGS.iter()
    }

    /// The config of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::all().find(|config| config.definition.name == name)
    }

    /// Whether it means something only where the topic is a queue.
    fn is_for_queues(&self) -> bool {
        self.definition.name.starts_with(queue_config::PREFIX) && self.definition.name != queue_config::ENABLE
    }

    /// Every place that gives the value, the one that counts first; lazy, for most callers want only that one. What is
    /// stored is trusted to be valid only as far as this version knows: a value that it would refuse is passed over, as if
    /// it were not set.
    fn candidates(
        &'static self,
        overrides: &ConfigMap,
        inherited: &Inherited<'_>,
    ) -> impl Iterator<Item = (ConfigSynonym, Value)> {
        let name = self.definition.name;
        let own = overrides.get(name).and_then(|text| {
            let value = self.definition.parse(text).ok()?;
            Some((ConfigSynonym { name, value: value.to_string(), source: Source::DynamicTopic }, value))
        });
        let set = inherited.levels().into_iter().flat_map(|(level, source)| {
            self.synonyms.iter().filter_map(move |synonym| synonym.read(level.get(synonym.name)?, source))
        });
        let defaults = self.synonyms.iter().filter_map(|synonym| {
            synonym.read(BrokerKey::named(synonym.name)?.definition.default?, Source::Default)
        });
        own.into_iter().chain(set).chain(defaults)
    }

    fn default_value(&self) -> Value {
        let default = self.definition.default.unwrap_or_default();
        self.definition.parse(default).expect("the defaults of the table are valid, as a test of it asserts")
    }

    fn entry(&'static self, overrides: &ConfigMap, inherited: &Inherited<'_>) -> ConfigEntry {
        let (synonyms, values): (Vec<_>, Vec<_>) = self.candidates(overrides, inherited).unzip();
        ConfigEntry {
            name: self.definition.name.to_owned(),
            value: Some(values.first().unwrap_or(&self.default_value()).to_string()),
            source: synonyms.first().map_or(Source::Default, |first| first.source),
            read_only: false,
            sensitive: false,
            synonyms,
            type_code: self.definition.kind.code(),
            documentation: self.definition.doc,
        }
    }
}

impl Synonym {
    /// The broker key's text at `source` as itself and as the topic config's value.
    fn read(&self, text: &str, source: Source) -> Option<(ConfigSynonym, Value)> {
        let value = BrokerKey::named(self.name)?.definition.parse(text).ok()?;
        let synonym = ConfigSynonym { name: self.name, value: value.to_string(), source };
        let value = match (self.unit_factor, value.as_i64()) {
            (1, _) => value,
            // No amount, but "for ever".
            (_, -1) => Value::Long(-1),
            (factor, amount) => Value::Long(amount.saturating_mul(factor)),
        };
        Some((synonym, value))
    }
}

/// A topic's values: its overrides over what it inherits.
pub(super) struct Effective<'a> {
    pub(super) overrides: &'a ConfigMap,
    pub(super) inherited: &'a Inherited<'a>,
}

impl Effective<'_> {
    pub(super) fn value(&self, name: &str) -> Value {
        let config =
            TopicConfig::named(name).expect("only names of the table are asked for, as the tests show");
        let counted = config.candidates(self.overrides, self.inherited).next();
        counted.map_or_else(|| config.default_value(), |(_, value)| value)
    }

    pub(super) fn number(&self, name: &str) -> i64 {
        self.value(name).as_i64()
    }

    /// A number whose definition says that it is not negative.
    fn size(&self, name: &str) -> usize {
        usize::try_from(self.number(name)).unwrap_or_default()
    }

    pub(super) fn is(&self, name: &str, text: &str) -> bool {
        matches!(self.value(name), Value::String(value) if value == text)
    }

    /// `compression.type` and the level that goes with it; `None` for `producer`.
    fn compression(&self) -> Option<Compression> {
        let Value::String(name) = self.value("compression.type") else { return None };
        let level = |name| i32::try_from(self.number(name)).ok();
        Some(match &*name {
            "uncompressed" => Compression { codec: Codec::None, level: None },
            // -1 is the library's own default.
            "gzip" => Compression {
                codec: Codec::Gzip,
                level: level("compression.gzip.level").filter(|level| *level >= 0),
            },
            "snappy" => Compression { codec: Codec::Snappy, level: None },
            "lz4" => Compression { codec: Codec::Lz4, level: level("compression.lz4.level") },
            "zstd" => Compression { codec: Codec::Zstd, level: level("compression.zstd.level") },
            _ => return None,
        })
    }
}

/// The values that a log acts on.
pub fn effective(overrides: &ConfigMap, inherited: &Inherited<'_>) -> LogConfig {
    let topic = Effective { overrides, inherited };
    let cleanup_policy = topic.value("cleanup.policy");
    LogConfig {
        compact: cleanup_policy.contains("compact"),
        delete: cleanup_policy.contains("delete"),
        max_message_bytes: topic.size("max.message.bytes"),
        max_decompressed_message_bytes: topic.size("max.decompressed.message.bytes"),
        message_timestamp_type: match topic.is("message.timestamp.type", "LogAppendTime") {
            true => TimestampType::LogAppendTime,
            false => TimestampType::CreateTime,
        },
        message_timestamp_before_max_ms: topic.number("message.timestamp.before.max.ms"),
        message_timestamp_after_max_ms: topic.number("message.timestamp.after.max.ms"),
        segment_bytes: topic.size("segment.bytes") as u64,
        segment_ms: topic.number("segment.ms"),
        segment_jitter_ms: topic.number("segment.jitter.ms"),
        segment_index_bytes: topic.size("segment.index.bytes"),
        index_interval_bytes: topic.size("index.interval.bytes"),
        file_delete_delay_ms: topic.number("file.delete.delay.ms"),
        retention_ms: topic.number("retention.ms"),
        retention_bytes: topic.number("retention.bytes"),
        flush_messages: topic.number("flush.messages"),
        flush_ms: topic.number("flush.ms"),
        compression: topic.compression(),
        preallocate: topic.value("preallocate") == Value::Boolean(true),
        min_cleanable_dirty_ratio: topic.value("min.cleanable.dirty.ratio").as_f64(),
        min_compaction_lag_ms: topic.number("min.compaction.lag.ms"),
        max_compaction_lag_ms: topic.number("max.compaction.lag.ms"),
        delete_retention_ms: topic.number("delete.retention.ms"),
        flush: if topic.is("ottla.flush", "os") { FlushMode::Os } else { FlushMode::Commit },
    }
}

/// Checks the whole resulting set of a topic's overrides: names, values, and the rules between configs, which count
/// inherited values too.
pub fn validate(overrides: &ConfigMap, inherited: &Inherited<'_>) -> Result<(), InvalidConfig> {
    for (name, value) in overrides {
        let config = TopicConfig::named(name).ok_or_else(|| InvalidConfig::UnknownTopicConfig {
            name: shortened(name),
            nearest: nearest(name, TopicConfig::all().map(|config| config.definition.name)),
        })?;
        check_value(&config.definition, value)?;
    }
    let topic = Effective { overrides, inherited };
    let (min_ms, max_ms) = (topic.number("min.compaction.lag.ms"), topic.number("max.compaction.lag.ms"));
    if min_ms > max_ms {
        return Err(InvalidConfig::CompactionLags { min_ms, max_ms });
    }
    if topic.value("remote.storage.enable") == Value::Boolean(true) {
        return Err(InvalidConfig::NoTieredStorage);
    }
    queue_config::validate(&topic)
}

pub(super) fn check_value(definition: &Definition, value: &str) -> Result<(), InvalidConfig> {
    definition.parse(value).map(drop).map_err(|fault| InvalidConfig::Value {
        name: definition.name.to_owned(),
        value: shortened(value),
        fault,
    })
}

/// All configs of a topic by name, then what it stores under names that this version does not know. Of the settings of queues,
/// a topic that is none has only the one that makes it one.
pub fn describe(overrides: &ConfigMap, inherited: &Inherited<'_>) -> Vec<ConfigEntry> {
    let unknown =
        overrides.keys().filter(|name| TopicConfig::named(name).is_none()).map(|name| ConfigEntry {
            name: name.clone(),
            value: None,
            source: Source::DynamicTopic,
            read_only: false,
            sensitive: true,
            synonyms: Vec::new(),
            type_code: 0,
            documentation: "",
        });
    let is_queue = queue_config::is_enabled(overrides);
    let is_shown = |config: &&TopicConfig| {
        is_queue || !config.is_for_queues() || overrides.contains_key(config.definition.name)
    };
    let known = TopicConfig::all().filter(is_shown);
    known.map(|config| config.entry(overrides, inherited)).chain(unknown).collect()
}

/// A topic's overrides after these changes, not yet validated as a whole ([`validate`]).
pub fn apply_ops(current: &ConfigMap, ops: &[ConfigOp]) -> Result<ConfigMap, InvalidConfig> {
    apply(current, ops, |name| TopicConfig::named(name).map(|config| &config.definition))
}

/// The overrides that AlterConfigs (which replaces all) asks for, not yet validated as a whole ([`validate`]).
pub fn replacement(entries: &[(String, Option<String>)]) -> Result<ConfigMap, InvalidConfig> {
    check_unique(entries.iter().map(|(name, _)| name))?;
    let entry = |(name, value): &(String, Option<String>)| match value {
        Some(value) => Ok((name.clone(), value.clone())),
        None => Err(InvalidConfig::NullValue { name: shortened(name) }),
    };
    entries.iter().map(entry).collect()
}

/// `current` after `ops`; all or nothing. `definition_of` knows the names of the resource.
pub(super) fn apply(
    current: &ConfigMap,
    ops: &[ConfigOp],
    definition_of: impl Fn(&str) -> Option<&'static Definition>,
) -> Result<ConfigMap, InvalidConfig> {
    check_unique(ops.iter().map(|op| &op.name))?;
    if let Some(op) = ops.iter().find(|op| op.value.is_none() && op.kind != OpKind::Delete) {
        return Err(InvalidConfig::NullValue { name: shortened(&op.name) });
    }
    let mut changed = current.clone();
    for op in ops {
        let given = op.value.as_deref().unwrap_or_default();
        let value = match op.kind {
            OpKind::Delete => {
                changed.remove(&op.name);
                continue;
            }
            OpKind::Set => given.to_owned(),
            OpKind::Append | OpKind::Subtract => {
                let definition =
                    definition_of(&op.name).filter(|definition| definition.kind == ConfigType::List);
                let definition = definition.ok_or_else(|| InvalidConfig::NotAList {
                    name: shortened(&op.name),
                    operation: op.kind,
                })?;
                let before = changed.get(&op.name).map(String::as_str).or(definition.default);
                edited_list(before.unwrap_or_default(), given, op.kind)
            }
        };
        if value.len() > MAX_VALUE_BYTES {
            let (name, value) = (shortened(&op.name), shortened(&value));
            return Err(InvalidConfig::Value { name, value, fault: Fault::TooLong });
        }
        changed.insert(op.name.clone(), value);
    }
    Ok(changed)
}

fn edited_list(before: &str, given: &str, kind: OpKind) -> String {
    let mut items: Vec<&str> = before.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
    for item in given.split(',').map(str::trim) {
        match kind {
            OpKind::Subtract => items.retain(|known| *known != item),
            _ if items.contains(&item) => {}
            _ => items.push(item),
        }
    }
    items.join(",")
}

fn check_unique<'a>(names: impl Iterator<Item = &'a String>) -> Result<(), InvalidConfig> {
    let mut known = BTreeSet::new();
    for name in names {
        if !known.insert(name) {
            return Err(InvalidConfig::DuplicateKey { name: shortened(name) });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(settings: &[(&str, &str)]) -> ConfigMap {
        settings.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    /// Calls `check` with what the three levels of the broker give.
    fn inheriting<T>(
        node: &[(&str, &str)],
        default: &[(&str, &str)],
        fixed: &[(&str, &str)],
        check: impl FnOnce(&Inherited<'_>) -> T,
    ) -> T {
        let (node, default, fixed) = (map(node), map(default), map(fixed));
        check(&Inherited { dynamic_node: &node, dynamic_default: &default, fixed: &fixed })
    }

    fn refusal(name: &str, value: &str) -> Option<String> {
        inheriting(&[], &[], &[], |none| {
            validate(&map(&[(name, value)]), none).err().map(|error| error.to_string())
        })
    }

    fn op(kind: OpKind, name: &str, value: &str) -> ConfigOp {
        ConfigOp { name: name.to_owned(), kind, value: Some(value.to_owned()) }
    }

    #[test]
    fn the_table_is_sorted_and_its_defaults_are_valid() {
        let names: Vec<_> = TopicConfig::all().map(|config| config.definition.name).collect();
        assert!(names.is_sorted() && names.len() == 68, "{names:?}");
        for config in TopicConfig::all() {
            assert!(
                config.definition.parse(config.definition.default.unwrap()).is_ok(),
                "{}",
                config.definition.name
            );
        }
    }

    #[test]
    fn every_config_is_acted_on_or_listed_as_not() {
        for config in TopicConfig::all() {
            let name = &config.definition.name;
            assert!(ACTED_ON.contains(name) != NOT_ACTED_ON.contains(name), "{name}");
        }
        assert_eq!(ACTED_ON.len() + NOT_ACTED_ON.len(), TopicConfig::all().count());
    }

    #[test]
    fn synonyms_agree_with_what_inherits_from_them() {
        let mut inherited_from = BTreeSet::new();
        for config in TopicConfig::all() {
            for synonym in config.synonyms {
                let key = &BrokerKey::named(synonym.name).unwrap().definition;
                assert!(inherited_from.insert(synonym.name), "{} is inherited twice", synonym.name);
                let same = (key.kind, key.valid) == (config.definition.kind, config.definition.valid);
                let lenient =
                    key.name.starts_with("log.retention") || key.name == "log.flush.scheduler.interval.ms";
                assert!(same || lenient || synonym.unit_factor > 1, "{}", key.name);
            }
            if !config.synonyms.is_empty() {
                let entry = inheriting(&[], &[], &[], |none| config.entry(&ConfigMap::new(), none));
                assert_eq!(entry.value, Some(config.default_value().to_string()), "{}", entry.name);
            }
        }
        assert_eq!(inherited_from, BrokerKey::topic_defaults().map(|key| key.definition.name).collect());
    }

    #[test]
    fn every_config_takes_the_edges_of_its_range_and_nothing_beyond() {
        for (name, smallest, largest) in [
            ("compression.lz4.level", Some(1), Some(17)),
            ("compression.zstd.level", Some(-131_072), Some(22)),
            ("delete.retention.ms", Some(0), None),
            ("file.delete.delay.ms", Some(0), None),
            ("flush.messages", Some(1), None),
            ("flush.ms", Some(0), None),
            ("index.interval.bytes", Some(0), Some(i64::from(i32::MAX))),
            ("local.retention.bytes", Some(-2), None),
            ("local.retention.ms", Some(-2), None),
            ("max.compaction.lag.ms", Some(1), None),
            ("max.decompressed.message.bytes", Some(1), Some(2_147_483_639)),
            ("max.message.bytes", Some(0), Some(i64::from(i32::MAX))),
            ("message.timestamp.after.max.ms", Some(0), None),
            ("message.timestamp.before.max.ms", Some(0), None),
            ("min.cleanable.dirty.ratio", Some(0), Some(1)),
            ("min.compaction.lag.ms", Some(0), None),
            ("min.insync.replicas", Some(1), Some(i64::from(i32::MAX))),
            ("remote.copy.lag.bytes", Some(-1), None),
            ("remote.copy.lag.ms", Some(-1), None),
            ("retention.bytes", None, None),
            ("retention.ms", Some(-1), None),
            ("segment.bytes", Some(1_048_576), Some(i64::from(i32::MAX))),
            ("segment.index.bytes", Some(4), Some(i64::from(i32::MAX))),
            ("segment.jitter.ms", Some(0), None),
            ("segment.ms", Some(1), None),
        ] {
            let smallest_valid = smallest.unwrap_or(i64::MIN);
            let largest_valid = largest.unwrap_or(i64::MAX);
            assert_eq!(refusal(name, &smallest_valid.to_string()), None);
            assert_eq!(refusal(name, &largest_valid.to_string()), None);
            let below = i128::from(smallest_valid) - 1;
            let above = i128::from(largest_valid) + 1;
            assert!(refusal(name, &below.to_string()).is_some(), "{name} takes {below}");
            assert!(refusal(name, &above.to_string()).is_some(), "{name} takes {above}");
        }
    }

    #[test]
    fn every_config_that_is_no_plain_number_takes_what_kafka_takes() {
        for (name, good, bad) in [
            ("cleanup.policy", &["", "delete", " compact , delete "][..], &["Delete", "delete,", ","][..]),
            ("compression.gzip.level", &["-1", "1", "9"], &["-2", "0", "10"]),
            ("compression.type", &["producer", "uncompressed", " zstd "], &["none", "GZIP", ""]),
            ("errors.deadletterqueue.group.enable", &["true", "FALSE"], &["1", ""]),
            ("follower.replication.throttled.replicas", &["", "*", "0:1"], &["none"]),
            ("leader.replication.throttled.replicas", &["", "*", "0:1,1:2"], &["*,0:1"]),
            ("message.timestamp.type", &["CreateTime", "LogAppendTime"], &["createtime"]),
            ("ottla.flush", &["commit", "os"], &["Commit", "never", ""]),
            ("preallocate", &["true"], &["yes"]),
            ("remote.log.copy.disable", &["true"], &["yes"]),
            ("remote.log.delete.on.disable", &["true"], &["yes"]),
            ("remote.storage.enable", &["false"], &["yes", "true"]),
            ("unclean.leader.election.enable", &["true"], &["yes"]),
        ] {
            good.iter().for_each(|value| assert_eq!(refusal(name, value), None));
            bad.iter().for_each(|value| assert!(refusal(name, value).is_some(), "{name} takes {value:?}"));
        }
    }

    #[test]
    fn refusals_are_worded_as_kafka_words_them() {
        for (name, value, expected) in [
            ("foo", "bar", "Unknown topic config name: foo"),
            ("retention.sm", "1", "Unknown topic config name: retention.sm (did you mean retention.ms?)"),
            (
                "retention.ms",
                "-2",
                "Invalid value -2 for configuration retention.ms: Value must be at least -1",
            ),
            (
                "retention.ms",
                "abc",
                "Invalid value abc for configuration retention.ms: Not a number of type LONG",
            ),
            (
                "compression.gzip.level",
                "0",
                "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1",
            ),
            (
                "cleanup.policy",
                "x",
                "Invalid value x for configuration cleanup.policy: String must be one of: compact, delete",
            ),
        ] {
            assert_eq!(refusal(name, value).as_deref(), Some(expected));
        }
        assert!(refusal("retention.ms", &"x".repeat(1 << 20)).unwrap().len() < 300);
    }

    #[test]
    fn rules_between_configs_count_what_is_inherited() {
        let min = map(&[("min.compaction.lag.ms", "5")]);
        inheriting(&[], &[], &[("log.cleaner.max.compaction.lag.ms", "4")], |inherited| {
            let conflict = InvalidConfig::CompactionLags { min_ms: 5, max_ms: 4 };
            assert_eq!(validate(&min, inherited), Err(conflict));
        });
        inheriting(&[], &[], &[("log.cleaner.max.compaction.lag.ms", "5")], |inherited| {
            assert_eq!(validate(&min, inherited), Ok(()));
        });
    }

    #[test]
    fn the_defaults_are_those_of_the_log() {
        let log = inheriting(&[], &[], &[], |none| effective(&ConfigMap::new(), none));
        let expected = LogConfig {
            compact: false,
            delete: true,
            max_message_bytes: 1_048_588,
            max_decompressed_message_bytes: 2_147_483_639,
            message_timestamp_type: TimestampType::CreateTime,
            message_timestamp_before_max_ms: i64::MAX,
            message_timestamp_after_max_ms: 3_600_000,
            segment_bytes: 1 << 30,
            segment_ms: 604_800_000,
            segment_jitter_ms: 0,
            segment_index_bytes: 10_485_760,
            index_interval_bytes: 4096,
            file_delete_delay_ms: 60_000,
            retention_ms: 604_800_000,
            retention_bytes: -1,
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
            compression: None,
            preallocate: false,
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            delete_retention_ms: 86_400_000,
            flush: FlushMode::Commit,
        };
        assert_eq!(log, expected);
    }

    #[test]
    fn a_codec_goes_with_its_own_level() {
        let compression = |overrides: &[(&str, &str)]| {
            inheriting(&[], &[], &[("compression.lz4.level", "12")], |inherited| {
                effective(&map(overrides), inherited).compression.map(|it| (it.codec, it.level))
            })
        };
        let of = |codec| compression(&[("compression.type", codec), ("compression.zstd.level", "-7")]);
        assert_eq!(of("producer"), None);
        assert_eq!(of("uncompressed"), Some((Codec::None, None)));
        assert_eq!(of("snappy"), Some((Codec::Snappy, None)));
        assert_eq!(of("gzip"), Some((Codec::Gzip, None)));
        assert_eq!(of("lz4"), Some((Codec::Lz4, Some(12))));
        assert_eq!(of("zstd"), Some((Codec::Zstd, Some(-7))));
        let gzip = [("compression.type", "gzip"), ("compression.gzip.level", "9")];
        assert_eq!(compression(&gzip), Some((Codec::Gzip, Some(9))));
    }

    #[test]
    fn the_topic_beats_the_node_beats_the_cluster_beats_the_start() {
        let overrides = map(&[("max.message.bytes", "1")]);
        let key = "message.max.bytes";
        inheriting(&[(key, "2")], &[(key, "3")], &[(key, "4")], |inherited| {
            assert_eq!(effective(&overrides, inherited).max_message_bytes, 1);
            assert_eq!(effective(&ConfigMap::new(), inherited).max_message_bytes, 2);
            let entry = TopicConfig::named("max.message.bytes").unwrap().entry(&overrides, inherited);
            let synonyms: Vec<_> =
                entry.synonyms.iter().map(|one| (one.name, one.value.as_str(), one.source.code())).collect();
            let expected = [
                ("max.message.bytes", "1", 1),
                (key, "2", 2),
                (key, "3", 3),
                (key, "4", 4),
                (key, "1048588", 5),
            ];
            assert_eq!(synonyms, expected);
            assert_eq!((entry.value.as_deref(), entry.source.code(), entry.type_code), (Some("1"), 1, 3));
        });
        inheriting(&[], &[(key, "3")], &[(key, "4")], |inherited| {
            assert_eq!(effective(&ConfigMap::new(), inherited).max_message_bytes, 3);
        });
        inheriting(
            &[],
            &[],
            &[(key, "4"), ("log.message.timestamp.type", "LogAppendTime"), ("ottla.flush", "os")],
            |inherited| {
                let log = effective(&ConfigMap::new(), inherited);
                assert_eq!(log.max_message_bytes, 4);
                assert_eq!(
                    (log.message_timestamp_type, log.flush),
                    (TimestampType::LogAppendTime, FlushMode::Os)
                );
            },
        );
    }

    #[test]
    fn milliseconds_beat_minutes_beat_hours() {
        let retention = |fixed: &[(&str, &str)]| {
            inheriting(&[], &[], fixed, |inherited| {
                Effective { overrides: &ConfigMap::new(), inherited }.number("retention.ms")
            })
        };
        let (hours, minutes) = (("log.retention.hours", "2"), ("log.retention.minutes", "3"));
        assert_eq!(retention(&[hours]), 7_200_000);
        assert_eq!(retention(&[hours, minutes]), 180_000);
        assert_eq!(retention(&[hours, minutes, ("log.retention.ms", "4")]), 4);
        assert_eq!(retention(&[("log.retention.hours", "-1")]), -1);
        assert_eq!(retention(&[("log.retention.hours", "2147483647")]), 2_147_483_647 * 3_600_000);
    }

    #[test]
    fn a_stored_value_that_is_no_longer_valid_counts_as_unset() {
        let overrides = map(&[("segment.bytes", "14"), ("of.a.later.version", "secret")]);
        inheriting(&[], &[], &[], |none| {
            assert_eq!(effective(&overrides, none).segment_bytes, 1 << 30);
            let entries = describe(&overrides, none);
            let unknown = entries.last().unwrap();
            assert_eq!(
                (unknown.name.as_str(), &unknown.value, unknown.sensitive),
                ("of.a.later.version", &None, true)
            );
            let known = TopicConfig::all().filter(|config| !config.is_for_queues());
            assert_eq!(entries.len(), known.count() + 1);
        });
    }

    #[test]
    fn an_unset_config_is_described_with_what_it_inherits() {
        inheriting(&[], &[], &[("log.retention.hours", "24")], |inherited| {
            let entries = describe(&ConfigMap::new(), inherited);
            let entry = |name| entries.iter().find(|entry| entry.name == name).unwrap();
            let retention = entry("retention.ms");
            assert_eq!(
                (retention.value.as_deref(), retention.source),
                (Some("86400000"), Source::StaticBroker)
            );
            assert_eq!(retention.synonyms.len(), 2);
            let tiered = entry("remote.storage.enable");
            assert_eq!((tiered.value.as_deref(), tiered.source), (Some("false"), Source::Default));
            assert!(tiered.synonyms.is_empty());
            assert_eq!(entry("min.cleanable.dirty.ratio").value.as_deref(), Some("0.5"));
            assert_eq!(entry("cleanup.policy").value.as_deref(), Some("delete"));
        });
    }

    #[test]
    fn incremental_changes_start_from_what_is_set_or_the_default() {
        use OpKind::{Append, Delete, Set, Subtract};
        let policy = |current: &[(&str, &str)], ops: &[ConfigOp]| {
            apply_ops(&map(current), ops).map(|changed| changed.get("cleanup.policy").cloned())
        };
        let name = "cleanup.policy";
        let some = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(policy(&[], &[op(Append, name, "compact")]), some("delete,compact"));
        assert_eq!(policy(&[], &[op(Append, name, "delete, compact")]), some("delete,compact"));
        assert_eq!(policy(&[(name, "compact")], &[op(Append, name, "delete")]), some("compact,delete"));
        assert_eq!(policy(&[(name, "compact,delete")], &[op(Subtract, name, "compact")]), some("delete"));
        assert_eq!(policy(&[], &[op(Subtract, name, "delete")]), some(""));
        assert_eq!(policy(&[], &[op(Set, name, "compact")]), some("compact"));
        let delete = ConfigOp { name: name.to_owned(), kind: Delete, value: None };
        assert_eq!(policy(&[(name, "compact")], std::slice::from_ref(&delete)), Ok(None));
        assert_eq!(policy(&[], &[delete]), Ok(None));
    }

    #[test]
    fn incremental_changes_that_are_wrong_say_how() {
        use OpKind::{Append, Set, Subtract};
        let refused = |ops: &[ConfigOp]| apply_ops(&ConfigMap::new(), ops).unwrap_err();
        let twice = refused(&[op(Set, "retention.ms", "1"), op(Set, "retention.ms", "2")]);
        assert!(matches!(twice, InvalidConfig::DuplicateKey { .. }));
        let null = ConfigOp { name: "retention.ms".to_owned(), kind: Set, value: None };
        assert!(matches!(refused(&[null]), InvalidConfig::NullValue { .. }));
        for (kind, name) in [(Append, "retention.ms"), (Subtract, "foo")] {
            assert!(matches!(refused(&[op(kind, name, "1")]), InvalidConfig::NotAList { .. }));
        }
        let message = refused(&[op(Append, "retention.ms", "1")]).to_string();
        assert_eq!(message, "Can't APPEND to key retention.ms because its type is not LIST.");
        let long = refused(&[op(Set, "retention.ms", &"1".repeat(MAX_VALUE_BYTES + 1))]);
        assert!(matches!(long, InvalidConfig::Value { fault: Fault::TooLong, .. }));
    }

    #[test]
    fn a_replacement_needs_each_value_once() {
        let entry = |name: &str, value: Option<&str>| (name.to_owned(), value.map(str::to_owned));
        assert_eq!(replacement(&[entry("a", Some("1"))]), Ok(map(&[("a", "1")])));
        assert!(matches!(replacement(&[entry("a", None)]), Err(InvalidConfig::NullValue { .. })));
        let twice = replacement(&[entry("a", Some("1")), entry("a", Some("1"))]);
        assert!(matches!(twice, Err(InvalidConfig::DuplicateKey { .. })));
    }

    proptest! {
        #[test]
        fn whatever_is_stored_yields_a_log_config(pick in 0usize..65, value in "-?[0-9.]{0,20}|[a-z, :*]{0,20}|.{0,20}") {
            let config = TopicConfig::all().nth(pick).unwrap();
            let overrides = map(&[(config.definition.name, &value)]);
            inheriting(&[], &[], &[], |none| {
                let log = effective(&overrides, none);
                assert!(log.segment_bytes >= 1_048_576 && log.segment_ms >= 1);
                let set = validate(&overrides, none).is_ok();
                let described = config.entry(&overrides, none).source == Source::DynamicTopic;
                assert!(described || !set, "{} = {value:?}", config.definition.name);
            });
        }
    }
}
