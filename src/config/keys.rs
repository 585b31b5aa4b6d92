//! The table of the broker's keys: name, type, default, valid values, and one line for people. It yields [`Config`] and its
//! fields, what DescribeConfigs says of the broker, and the text of `config.toml`.

use std::path::PathBuf;

use super::arn::{AccountId, Region};
use super::definition::Valid::{Any, AtLeast, Between, BetweenOrMinusOne, OneOf};
use super::definition::{ConfigType, Definition, Fault, Valid};
use super::endpoint::Endpoint;
use super::queue_spec::QueueSpec;
use super::topic_spec::TopicSpec;
use super::{ConfigMap, FromText, LogFormat};

/// A key of the broker.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct BrokerKey {
    /// Name, type, default, valid values.
    pub definition: Definition,
    /// Whether it can be changed while the broker runs, for one node and for all (Kafka's update mode "cluster-wide");
    /// else it is read-only.
    pub dynamic: bool,
}

/// Rows `/// doc, field: type = "key" kind default, valid;`: each is a read-only key and a field of [`Config`].
macro_rules! fields {
    ($($(#[doc = $doc:literal])+ $field:ident: $type:ty = $name:literal $kind:ident $default:expr, $valid:expr;)+) => {
        /// The broker's settings, checked. Made from defaults and what was set ([`Config::load`], [`Config::from_settings`]);
        /// topic defaults are not fields: they are among [`Config::explicit`] and act through the registry of topic configs.
        #[derive(Clone, PartialEq, Debug)]
        pub struct Config {
            $($(#[doc = $doc])+ #[doc = concat!("\n`", $name, "`")] pub $field: $type,)+
            pub(super) explicit: ConfigMap,
        }

        const FIELDS: &[BrokerKey] = &[$(BrokerKey {
            definition: Definition {
                name: $name,
                kind: ConfigType::$kind,
                default: $default,
                valid: $valid,
                doc: concat!($($doc),+).trim_ascii(),
            },
            dynamic: false,
        }),+];

        impl Config {
            /// Gives every field its value from `explicit` or its default.
            pub(super) fn from_explicit(explicit: ConfigMap) -> Result<Self, (&'static str, Fault)> {
                Ok(Self {
                    $($field: {
                        let text = explicit.get($name).map(String::as_str).or($default);
                        <$type>::from_text(text.unwrap_or_default()).map_err(|fault| ($name, fault))?
                    },)+
                    explicit,
                })
            }
        }
    };
}

const MAX_PARTITIONS: i64 = super::topic_spec::MAX_PARTITIONS as i64;

fields! {
    /// Id of this node, as clients see it in Metadata.
    node_id: i32 = "node.id" Int Some("1"), AtLeast(0);
    /// Where to listen: HOST:PORT or NAME://HOST:PORT, several separated by commas; port 0 takes any free one.
    listeners: Vec<Endpoint> = "listeners" List Some("127.0.0.1:9092"), Any;
    /// Addresses that clients are told to connect to, by listener name. A listener without one advertises the address that
    /// the client itself connected to.
    advertised_listeners: Vec<Endpoint> = "advertised.listeners" List Some(""), Any;
    /// Where to serve HTTP for operators (/metrics, /healthz, /readyz): HOST:PORT, several separated by commas; port 0 takes any
    /// free one; empty for none.
    http_listeners: Vec<Endpoint> = "ottla.http.listeners" List Some(""), Any;
    /// Where to serve SQS: HOST:PORT, several separated by commas; port 0 takes any free one; empty for none.
    sqs_listeners: Vec<Endpoint> = "ottla.sqs.listeners" List Some(""), Any;
    /// Region in the ARNs of queues. SQS clients may have any.
    sqs_region: Region = "ottla.sqs.region" String Some("us-east-1"), Any;
    /// Account in the ARNs and URLs of queues, 12 digits. SQS clients may have any.
    sqs_account_id: AccountId = "ottla.sqs.account.id" String Some("000000000000"), Any;
    /// File with the credentials that SQS clients must sign with (SigV4), in the form of ~/.aws/credentials; empty: any will do.
    sqs_credentials_file: Option<PathBuf> = "ottla.sqs.credentials.file" String Some(""), Any;
    /// Data directory, made if missing. log.dirs counts instead where it is set.
    log_dir: PathBuf = "log.dir" String Some("./data"), Any;
    /// Data directories, made if missing, separated by commas; empty for log.dir. A new partition goes to the one with the fewest;
    /// if the disk of one fails, the others go on. Topics and configs are kept in the first, which the broker cannot do without.
    log_dirs: Vec<PathBuf> = "log.dirs" List Some(""), Any;
    /// Bytes of a data directory's file system that appends leave free, so that there is room for what makes room (deleting topics
    /// or records); 0 for none.
    log_dir_min_free_bytes: u64 = "ottla.log.dir.min.free.bytes" Long Some("16777216"), AtLeast(0);
    /// Files of logs that are open at once, besides those in use at the moment: beyond, the longest unused is closed. 0 for
    /// half of the descriptors that the process may have.
    log_max_open_files: usize = "ottla.log.max.open.files" Int Some("0"), AtLeast(0);
    /// Keep data in a temporary directory that goes with the process; log.dir and log.dirs are not touched then, and ottla.flush
    /// is os unless it is set.
    ephemeral: bool = "ottla.ephemeral" Boolean Some("false"), Any;
    /// File that appears once requests are answered, holding one host:port a line in the order of the listeners; empty for none.
    ready_file: Option<PathBuf> = "ottla.ready.file" String Some(""), Any;
    /// Topics to have at start: name:partitions[:key=value...], separated by semicolons. A topic that exists is left as it is,
    /// but for partitions that it lacks.
    topics: Vec<TopicSpec> = "ottla.topics" String Some(""), Any;
    /// Queues to have at start: name[:key=value...], separated by semicolons. Keys are topic configs without their ottla.queue., and
    /// partitions (1 without it). A topic that exists is left as it is, but for partitions that it lacks.
    queues: Vec<QueueSpec> = "ottla.queues" String Some(""), Any;
    /// Create a topic when a client asks for one that does not exist.
    auto_create_topics_enable: bool = "auto.create.topics.enable" Boolean Some("true"), Any;
    /// Let clients delete topics.
    delete_topic_enable: bool = "delete.topic.enable" Boolean Some("true"), Any;
    /// Partitions of a topic that is created without a number.
    num_partitions: i32 = "num.partitions" Int Some("1"), Between(1, MAX_PARTITIONS);
    /// Replicas of a topic that is created without a number; one node has room for one.
    default_replication_factor: i32 = "default.replication.factor" Int Some("1"), Between(1, 1);
    /// Largest request, bytes; a larger one closes its connection.
    socket_request_max_bytes: usize = "socket.request.max.bytes" Int Some("104857600"), AtLeast(1);
    /// Bytes of requests that all connections together may have in hand; beyond, sockets are not read. At least
    /// socket.request.max.bytes.
    queued_max_request_bytes: usize = "queued.max.request.bytes" Long Some("268435456"), AtLeast(1);
    /// Bytes of requests that one connection may have in hand before its socket is not read; a single request may be larger.
    connection_queued_max_request_bytes: usize =
        "ottla.connection.queued.max.request.bytes" Long Some("16777216"), AtLeast(1);
    /// Milliseconds without a request after which a connection is closed.
    connections_max_idle_ms: u64 = "connections.max.idle.ms" Long Some("600000"), AtLeast(1);
    /// Open connections.
    max_connections: usize = "max.connections" Int Some("2147483647"), AtLeast(1);
    /// Open connections from one address.
    max_connections_per_ip: usize = "max.connections.per.ip" Int Some("2147483647"), AtLeast(1);
    /// Most bytes of records in one fetch answer; a single larger batch is still sent.
    fetch_max_bytes: usize = "fetch.max.bytes" Int Some("57671680"), AtLeast(1024);
    /// Incremental fetch sessions kept; 0 for none.
    max_incremental_fetch_session_cache_slots: usize =
        "max.incremental.fetch.session.cache.slots" Int Some("1000"), AtLeast(0);
    /// Most partitions in one DescribeTopicPartitions answer.
    max_request_partition_size_limit: i32 = "max.request.partition.size.limit" Int Some("2000"), AtLeast(1);
    /// Milliseconds after which an idempotent producer that wrote nothing is forgotten.
    producer_id_expiration_ms: i64 = "producer.id.expiration.ms" Int Some("86400000"), AtLeast(1);
    /// Most bytes that all records of one batch may decompress to.
    max_decompressed_batch_bytes: usize =
        "ottla.max.decompressed.batch.bytes" Int Some("1073741824"), AtLeast(1);
    /// Shortest session timeout that a member of a classic group may ask for, milliseconds.
    group_min_session_timeout_ms: i32 = "group.min.session.timeout.ms" Int Some("6000"), AtLeast(0);
    /// Longest session timeout that a member of a classic group may ask for, milliseconds.
    group_max_session_timeout_ms: i32 = "group.max.session.timeout.ms" Int Some("1800000"), AtLeast(0);
    /// Members that a classic group may have.
    group_max_size: usize = "group.max.size" Int Some("2147483647"), AtLeast(1);
    /// How long the first rebalance of an empty group waits for more members, milliseconds. Kafka waits three seconds.
    group_initial_rebalance_delay_ms: i64 = "group.initial.rebalance.delay.ms" Int Some("0"), AtLeast(0);
    /// Bytes that members and committed offsets of all groups may take in memory, about.
    group_coordinator_max_bytes: usize = "ottla.group.coordinator.max.bytes" Long Some("268435456"), AtLeast(1);
    /// Minutes that offsets are kept after their group has lost its last member.
    offsets_retention_minutes: i64 = "offsets.retention.minutes" Int Some("10080"), AtLeast(1);
    /// How often expired offsets are looked for, milliseconds.
    offsets_retention_check_interval_ms: i64 = "offsets.retention.check.interval.ms" Long Some("600000"), AtLeast(1);
    /// Partitions of __consumer_offsets when it is made: the first time that a client looks for a group.
    offsets_topic_num_partitions: i32 = "offsets.topic.num.partitions" Int Some("4"), Between(1, MAX_PARTITIONS);
    /// segment.bytes of __consumer_offsets when it is made.
    offsets_topic_segment_bytes: i32 = "offsets.topic.segment.bytes" Int Some("104857600"), AtLeast(1_048_576);
    /// Longest remark that may be committed with an offset, UTF-16 units; at most what a stored text holds in any script.
    offset_metadata_max_bytes: usize = "offset.metadata.max.bytes" Int Some("4096"), Between(0, 10_922);
    /// Members that a share group may have.
    group_share_max_size: usize = "group.share.max.size" Int Some("200"), Between(1, 1000);
    /// Share sessions at a time: one for each member that fetches.
    group_share_max_share_sessions: usize = "group.share.max.share.sessions" Int Some("2000"), AtLeast(1);
    /// Default of share.delivery.count.limit: deliveries after which a record is archived.
    group_share_delivery_count_limit: i32 = "group.share.delivery.count.limit" Int Some("5"), Between(2, 25);
    /// Smallest share.delivery.count.limit of a group.
    group_share_min_delivery_count_limit: i32 = "group.share.min.delivery.count.limit" Int Some("2"), Between(2, 5);
    /// Largest share.delivery.count.limit of a group.
    group_share_max_delivery_count_limit: i32 = "group.share.max.delivery.count.limit" Int Some("10"), Between(5, 25);
    /// Default of share.partition.max.record.locks: records of a partition that may be lent or waiting again at a time.
    group_share_partition_max_record_locks: i32 =
        "group.share.partition.max.record.locks" Int Some("2000"), Between(100, 10_000);
    /// Smallest share.partition.max.record.locks of a group.
    group_share_min_partition_max_record_locks: i32 =
        "group.share.min.partition.max.record.locks" Int Some("100"), Between(100, 2000);
    /// Largest share.partition.max.record.locks of a group.
    group_share_max_partition_max_record_locks: i32 =
        "group.share.max.partition.max.record.locks" Int Some("4000"), Between(2000, 10_000);
    /// Default of share.record.lock.duration.ms: how long records are lent to a member, milliseconds.
    group_share_record_lock_duration_ms: i32 =
        "group.share.record.lock.duration.ms" Int Some("30000"), Between(1000, 3_600_000);
    /// Smallest share.record.lock.duration.ms of a group.
    group_share_min_record_lock_duration_ms: i32 =
        "group.share.min.record.lock.duration.ms" Int Some("15000"), Between(1000, 30_000);
    /// Largest share.record.lock.duration.ms of a group.
    group_share_max_record_lock_duration_ms: i32 =
        "group.share.max.record.lock.duration.ms" Int Some("60000"), Between(30_000, 3_600_000);
    /// Default of share.heartbeat.interval.ms: how often members of share groups send heartbeats, milliseconds.
    group_share_heartbeat_interval_ms: i32 = "group.share.heartbeat.interval.ms" Int Some("5000"), AtLeast(1);
    /// Smallest share.heartbeat.interval.ms of a group.
    group_share_min_heartbeat_interval_ms: i32 =
        "group.share.min.heartbeat.interval.ms" Int Some("5000"), AtLeast(1);
    /// Largest share.heartbeat.interval.ms of a group.
    group_share_max_heartbeat_interval_ms: i32 =
        "group.share.max.heartbeat.interval.ms" Int Some("15000"), AtLeast(1);
    /// Default of share.session.timeout.ms: silence after which a member of a share group is removed, milliseconds.
    group_share_session_timeout_ms: i32 = "group.share.session.timeout.ms" Int Some("45000"), AtLeast(1);
    /// Smallest share.session.timeout.ms of a group.
    group_share_min_session_timeout_ms: i32 = "group.share.min.session.timeout.ms" Int Some("45000"), AtLeast(1);
    /// Largest share.session.timeout.ms of a group.
    group_share_max_session_timeout_ms: i32 = "group.share.max.session.timeout.ms" Int Some("60000"), AtLeast(1);
    /// Whether the topic of a share group's dead letters is made when it is needed and not there.
    errors_dead_letter_queue_auto_create_topics_enable: bool =
        "errors.deadletterqueue.auto.create.topics.enable" Boolean Some("false"), Any;
    /// What the names of topics for dead letters of share groups must begin with; empty for anything.
    errors_dead_letter_queue_topic_name_prefix: String =
        "errors.deadletterqueue.topic.name.prefix" String Some("dlq."), Any;
    /// Partitions of __share_group_state when it is made: the first time that somebody joins a share group.
    share_coordinator_state_topic_num_partitions: i32 =
        "share.coordinator.state.topic.num.partitions" Int Some("4"), Between(1, MAX_PARTITIONS);
    /// segment.bytes of __share_group_state when it is made.
    share_coordinator_state_topic_segment_bytes: i32 =
        "share.coordinator.state.topic.segment.bytes" Int Some("104857600"), AtLeast(1_048_576);
    /// How often what retention lets go is looked for, milliseconds.
    log_retention_check_interval_ms: u64 = "log.retention.check.interval.ms" Long Some("300000"), AtLeast(1);
    /// Milliseconds from the start to the first look.
    log_initial_task_delay_ms: u64 = "log.initial.task.delay.ms" Long Some("30000"), AtLeast(0);
    /// Threads that sync files, each one at a time.
    num_flush_threads: usize = "ottla.num.flush.threads" Int Some("8"), Between(1, 64);
    /// Bytes of each of the two files of a log directory's commit journal, which small batches of many partitions are synced by; 0: none.
    commit_journal_bytes: u64 = "ottla.commit.journal.bytes" Long Some("8388608"), Between(0, 1 << 30);
    /// Which log lines to write: levels by module, as in RUST_LOG.
    log_filter: String = "ottla.log.filter" String Some("warn,ottla::start=info"), Any;
    /// Form of log lines: text or json.
    log_format: LogFormat = "ottla.log.format" String Some("text"), OneOf(&LogFormat::NAMES);
}

const MAX_LONG: Option<&str> = Some("9223372036854775807");
const MAX_MS: Option<&str> = MAX_LONG;
/// Largest value that Kafka gives max.decompressed.message.bytes: the largest array of a JVM.
pub(crate) const MAX_DECOMPRESSED: i64 = 2_147_483_639;
/// Valid codecs of `compression.type`.
pub(crate) const CODECS: Valid = OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]);
/// Valid items of `cleanup.policy`.
pub(crate) const POLICIES: Valid = OneOf(&["compact", "delete"]);
/// Valid clocks of `message.timestamp.type`.
pub(crate) const TIMESTAMP_TYPES: Valid = OneOf(&["CreateTime", "LogAppendTime"]);
/// Valid values of `ottla.flush`.
pub(crate) const FLUSH_MODES: Valid = OneOf(&["commit", "os"]);

/// A table and its rows `/// doc, dynamic|fixed "key" kind default, valid;`.
macro_rules! keys {
    (
        $table:ident
        $($(#[doc = $doc:literal])+ $mode:ident $name:literal $kind:ident $default:expr, $valid:expr;)+
    ) => {
        const $table: &[BrokerKey] = &[$(BrokerKey {
            definition: Definition {
                name: $name,
                kind: ConfigType::$kind,
                default: $default,
                valid: $valid,
                doc: concat!($($doc),+).trim_ascii(),
            },
            dynamic: keys!($mode),
        }),+];
    };
    (dynamic) => { true };
    (fixed) => { false };
}

// The keys of the threads that compact: they change while the broker runs, and are looked up level by level.
keys! {
    CLEANER
    /// Compact the logs of topics whose cleanup.policy has compact.
    fixed "log.cleaner.enable" Boolean Some("true"), Any;
    /// Threads that compact.
    dynamic "log.cleaner.threads" Int Some("1"), Between(0, 64);
    /// Bytes that the maps of keys of all these threads may take, 24 a key; taken only while they compact.
    dynamic "log.cleaner.dedupe.buffer.size" Long Some("134217728"), AtLeast(1_048_576);
    /// The share of such a map that is filled at most.
    dynamic "log.cleaner.io.buffer.load.factor" Double Some("0.9"), Between(0, 1);
    /// Bytes that the read and write buffers of all these threads take.
    dynamic "log.cleaner.io.buffer.size" Int Some("524288"), AtLeast(0);
    /// Bytes that compaction reads and writes a second at most.
    dynamic "log.cleaner.io.max.bytes.per.second" Double Some("1.7976931348623157E308"), AtLeast(1);
    /// How long these threads rest when there is nothing to compact, milliseconds.
    dynamic "log.cleaner.backoff.ms" Long Some("15000"), AtLeast(0);
}

// The keys that topics without a config of their own inherit from.
keys! {
    TOPIC_DEFAULTS
    /// When an append counts: commit, after a sync to the disk (survives the death of the machine); os, after the
    /// write (survives that of the process).
    dynamic "ottla.flush" String Some("commit"), FLUSH_MODES;
    /// Default of max.message.bytes: largest batch, bytes as compressed.
    dynamic "message.max.bytes" Int Some("1048588"), AtLeast(0);
    /// Default of the topic config of that name: largest record after decompression, bytes.
    dynamic "max.decompressed.message.bytes" Int Some("2147483639"), Between(1, MAX_DECOMPRESSED);
    /// Default of the topic config of that name: replicas that acks=all asks for.
    dynamic "min.insync.replicas" Int Some("1"), AtLeast(1);
    /// Default of message.timestamp.type: the producer's time or the broker's.
    dynamic "log.message.timestamp.type" String Some("CreateTime"), TIMESTAMP_TYPES;
    /// Default of message.timestamp.before.max.ms: how far a record's time may lag the broker's, milliseconds.
    dynamic "log.message.timestamp.before.max.ms" Long MAX_MS, AtLeast(0);
    /// Default of message.timestamp.after.max.ms: how far a record's time may lead the broker's, milliseconds.
    dynamic "log.message.timestamp.after.max.ms" Long Some("3600000"), AtLeast(0);
    /// Default of segment.bytes: size at which a segment is rolled, bytes.
    dynamic "log.segment.bytes" Int Some("1073741824"), AtLeast(1_048_576);
    /// Default of segment.ms: age at which a segment is rolled, milliseconds; unset, log.roll.hours counts.
    dynamic "log.roll.ms" Long None, AtLeast(1);
    /// Default of segment.ms in hours.
    fixed "log.roll.hours" Int Some("168"), AtLeast(1);
    /// Default of segment.jitter.ms: random cut from segment.ms, milliseconds; unset, log.roll.jitter.hours counts.
    dynamic "log.roll.jitter.ms" Long None, AtLeast(0);
    /// Default of segment.jitter.ms in hours.
    fixed "log.roll.jitter.hours" Int Some("0"), AtLeast(0);
    /// Default of segment.index.bytes: largest index file, bytes.
    dynamic "log.index.size.max.bytes" Int Some("10485760"), AtLeast(4);
    /// Default of index.interval.bytes: log bytes between index entries.
    dynamic "log.index.interval.bytes" Int Some("4096"), AtLeast(0);
    /// Default of file.delete.delay.ms: wait before removed files are unlinked, milliseconds.
    dynamic "log.segment.delete.delay.ms" Long Some("60000"), AtLeast(0);
    /// Default of retention.bytes: bytes kept per partition; -1 for all.
    dynamic "log.retention.bytes" Long Some("-1"), Any;
    /// Default of retention.ms: time kept, milliseconds, -1 for ever; unset, log.retention.minutes counts.
    dynamic "log.retention.ms" Long None, AtLeast(-1);
    /// Default of retention.ms in minutes, -1 for ever; unset, log.retention.hours counts.
    fixed "log.retention.minutes" Int None, AtLeast(-1);
    /// Default of retention.ms in hours, -1 for ever.
    fixed "log.retention.hours" Int Some("168"), AtLeast(-1);
    /// Default of local.retention.bytes: bytes kept locally with tiered storage; -2 for retention.bytes.
    dynamic "log.local.retention.bytes" Long Some("-2"), AtLeast(-2);
    /// Default of local.retention.ms: time kept locally with tiered storage, milliseconds; -2 for retention.ms.
    dynamic "log.local.retention.ms" Long Some("-2"), AtLeast(-2);
    /// Default of remote.copy.lag.bytes: bytes held back from tiered storage.
    dynamic "log.remote.copy.lag.bytes" Long Some("-1"), AtLeast(-1);
    /// Default of remote.copy.lag.ms: milliseconds held back from tiered storage.
    dynamic "log.remote.copy.lag.ms" Long Some("0"), AtLeast(-1);
    /// Default of cleanup.policy: delete old segments, compact by key, both or neither.
    dynamic "log.cleanup.policy" List Some("delete"), POLICIES;
    /// Default of delete.retention.ms: how long tombstones survive compaction, milliseconds.
    dynamic "log.cleaner.delete.retention.ms" Long Some("86400000"), AtLeast(0);
    /// Default of min.compaction.lag.ms: shortest time that a record stays uncompacted, milliseconds.
    dynamic "log.cleaner.min.compaction.lag.ms" Long Some("0"), AtLeast(0);
    /// Default of max.compaction.lag.ms: longest time that a record may stay uncompacted, milliseconds.
    dynamic "log.cleaner.max.compaction.lag.ms" Long MAX_MS, AtLeast(1);
    /// Default of min.cleanable.dirty.ratio: share of uncompacted bytes at which compaction runs.
    dynamic "log.cleaner.min.cleanable.ratio" Double Some("0.5"), Between(0, 1);
    /// Default of flush.messages: records after which a file is synced.
    dynamic "log.flush.interval.messages" Long MAX_LONG, AtLeast(1);
    /// Default of flush.ms: milliseconds after which a file is synced; unset, log.flush.scheduler.interval.ms
    /// counts.
    dynamic "log.flush.interval.ms" Long None, AtLeast(0);
    /// Default of flush.ms when log.flush.interval.ms is unset, milliseconds.
    fixed "log.flush.scheduler.interval.ms" Long MAX_MS, AtLeast(0);
    /// Default of preallocate: reserve the space of a segment when it is made.
    dynamic "log.preallocate" Boolean Some("false"), Any;
    /// Default of the topic config of that name: codec that batches are stored in; producer keeps theirs.
    dynamic "compression.type" String Some("producer"), CODECS;
    /// Default of the topic config of that name: gzip level, -1 for the library's.
    dynamic "compression.gzip.level" Int Some("-1"), BetweenOrMinusOne(1, 9);
    /// Default of the topic config of that name: lz4 level.
    dynamic "compression.lz4.level" Int Some("9"), Between(1, 17);
    /// Default of the topic config of that name: zstd level.
    dynamic "compression.zstd.level" Int Some("3"), Between(-131_072, 22);
    /// Default of the topic config of that name: let a replica lead that lacks records.
    dynamic "unclean.leader.election.enable" Boolean Some("false"), Any;
}

impl BrokerKey {
    /// All keys: those of the server, those of the cleaner, then those that topics inherit from.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        FIELDS.iter().chain(CLEANER).chain(TOPIC_DEFAULTS)
    }

    /// The keys that topics inherit from.
    pub fn topic_defaults() -> impl Iterator<Item = &'static Self> {
        TOPIC_DEFAULTS.iter()
    }

    /// The key of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::all().find(|key| key.definition.name == name)
    }

    /// The environment variable that sets it: `OTTLA_`, then the name in capitals with `_` for `.`; the `ottla.` of our own
    /// keys is not said twice.
    pub fn environment_name(&self) -> String {
        let name = self.definition.name;
        let name = name.strip_prefix("ottla.").unwrap_or(name);
        format!("{}{}", super::ENVIRONMENT_PREFIX, name.to_ascii_uppercase().replace('.', "_"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_default_is_valid() {
        for key in BrokerKey::all() {
            if let Some(default) = key.definition.default {
                assert!(key.definition.parse(default).is_ok(), "{}", key.definition.name);
            }
        }
    }

    #[test]
    fn names_differ_and_so_do_their_variables() {
        let names: BTreeSet<_> = BrokerKey::all().map(|key| key.definition.name).collect();
        let variables: BTreeSet<_> = BrokerKey::all().map(BrokerKey::environment_name).collect();
        assert_eq!(names.len(), BrokerKey::all().count());
        assert_eq!(variables.len(), names.len());
    }

    #[test]
    fn a_variable_is_the_name_in_capitals() {
        let variable = |name| BrokerKey::named(name).map(BrokerKey::environment_name);
        assert_eq!(variable("num.partitions").as_deref(), Some("OTTLA_NUM_PARTITIONS"));
        assert_eq!(variable("ottla.flush").as_deref(), Some("OTTLA_FLUSH"));
    }

    #[test]
    fn no_key_of_ours_is_the_table_of_another_in_toml() {
        for key in BrokerKey::all().map(|key| key.definition.name) {
            let table = format!("{key}.");
            let inner = BrokerKey::all().map(|key| key.definition.name).find(|name| name.starts_with(&table));
            assert!(inner.is_none() || key == "max.connections", "{key} and {inner:?}");
        }
    }
}
