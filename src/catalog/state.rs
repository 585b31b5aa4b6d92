//! The catalog as a fold over its log: pure. Decisions (`create_topic` and the others) read the state and return the
//! [`Change`] that would carry them out; [`CatalogState::apply`] is the only thing that changes it, live and at replay.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::CATALOG_LOG;
use super::queue_config;
use super::records;
use super::takeover::TakeoverError;
use super::topic_config::InvalidConfig;
use super::view::is_internal;
use crate::config::{ConfigMap, MAX_PARTITIONS};
use crate::log::{LogError, ReplayError};
use crate::protocol::api::decode;
use crate::protocol::wire::{DecodeError, Encode, Sink, Str, Wire};
use crate::uuid::Uuid;

/// Longest topic name, bytes.
const NAME_BYTES_MAX: usize = 249;

/// Kafka's metadata log, which nobody may make as a topic.
pub const CLUSTER_METADATA: &str = "__cluster_metadata";

/// The topic of committed offsets and group memberships.
pub const CONSUMER_OFFSETS: &str = "__consumer_offsets";

/// The topic of what share groups have done.
pub const SHARE_GROUP_STATE: &str = "__share_group_state";

/// Topics that belong to the broker.
pub const INTERNAL_TOPICS: [&str; 3] = [CONSUMER_OFFSETS, "__transaction_state", SHARE_GROUP_STATE];

/// Version of the records that this program writes.
const RECORD_VERSION: i16 = 0;

/// Why a change is refused.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// A name that no topic may have.
    #[error("Topic name is invalid: {0}")]
    TopicName(NameFault),
    /// A name that differs from another only by `.` for `_`.
    #[error("Topic '{name}' collides with existing topic: {existing}")]
    Collision {
        /// As asked.
        name: String,
        /// The topic there is.
        existing: Arc<str>,
    },
    /// A name kept for the broker.
    #[error("Creation of internal topic {0} is prohibited.")]
    Reserved(String),
    /// A topic of that name exists.
    #[error("Topic '{0}' already exists.")]
    TopicExists(String),
    /// No topic has that name.
    #[error("This server does not host this topic-partition.")]
    UnknownTopic,
    /// No topic has that id.
    #[error("This server does not host this topic ID.")]
    UnknownTopicId,
    /// A partition count that no topic can have.
    #[error("Number of partitions was set to an invalid non-positive value.")]
    PartitionCount,
    /// A count that is not more than there are.
    #[error("{}", if asked == have {
        format!("Topic already has {have} partition(s).")
    } else {
        format!("The topic currently has {have} partition(s); {asked} would not be an increase.")
    })]
    NotAnIncrease {
        /// Partitions there are.
        have: i32,
        /// Partitions asked for.
        asked: i32,
    },
    /// More partitions than one topic or request may have.
    #[error("Excessively large number of partitions per request.")]
    TooManyPartitions,
    /// A number of replicas that one node does not have.
    #[error(
        "Unable to replicate the partition {0} time(s): The target replication factor of {0} cannot be reached \
             because only 1 broker(s) are registered."
    )]
    ReplicationFactor(i16),
    /// A replication factor of zero or below.
    #[error("Replication factor must be larger than 0, or -1 to use the default value.")]
    ReplicationFactorNotPositive,
    /// A manual assignment that this node cannot have.
    #[error("{0}")]
    ReplicaAssignment(AssignmentFault),
    /// Manual assignments together with a count or a factor.
    #[error("{0} was not -1 when manual assignments were given.")]
    AssignmentWithCount(&'static str),
    /// Configs that are refused.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// A null config value at creation.
    #[error("Null value not supported for topic configs: {0}")]
    NullConfig(String),
    /// `delete.topic.enable` is false.
    #[error("Topic deletion is disabled.")]
    DeletionDisabled,
    /// One topic twice in a request.
    #[error("Duplicate topic in the request.")]
    Twice,
    /// A topic to delete must be named by name or by id.
    #[error("Topic name and topic ID: exactly one must be given.")]
    NameXorId,
    /// The change took longer than the client wanted to wait.
    #[error("The request timed out; the change may still happen.")]
    TimedOut,
    /// The change could not be stored; everyone whose change was in the same batch hears of it.
    #[error(transparent)]
    NotStored(Arc<LogError>),
    /// A request failed as a whole.
    #[error(transparent)]
    Together(Arc<Self>),
    /// The catalog's log cannot be read.
    #[error("catalog log: {0}")]
    Log(#[from] LogError),
    /// The catalog's log cannot be read from its start.
    #[error("catalog log: {0}")]
    Replay(#[from] ReplayError),
    /// A directory that another program has written cannot be taken over.
    #[error(transparent)]
    Takeover(#[from] TakeoverError),
    /// The catalog's log has a record that cannot be read.
    #[error("catalog log: {0}")]
    Record(#[from] DecodeError),
    /// The catalog's log has a record of a later version of this program.
    #[error("catalog log: record kind {kind} version {version} is of a later version of Ottla")]
    LaterVersion {
        /// Kind.
        kind: i16,
        /// Version.
        version: i16,
    },
}

/// Why a topic name is refused, in Kafka's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameFault {
    /// Empty.
    #[error("the empty string is not allowed")]
    Empty,
    /// `.` or `..`, which are folders.
    #[error("'.' or '..' is not allowed")]
    Dots,
    /// Longer than a folder name allows.
    #[error("the length is longer than the max allowed length 249")]
    TooLong,
    /// A character outside the legal ones.
    #[error("it contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'")]
    Character,
}

/// Why a manual replica assignment is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AssignmentFault {
    /// Partition ids have gaps or repeat.
    #[error("Partitions should be a consecutive 0-based integer sequence, each given once.")]
    NotConsecutive,
    /// A partition without replicas.
    #[error("The manual partition assignment includes an empty replica list.")]
    NoReplicas,
    /// A broker twice for one partition.
    #[error("The manual partition assignment includes the same broker more than once.")]
    Duplicate,
    /// A broker that there is not.
    #[error("The manual partition assignment includes broker {0}, but no such broker is registered.")]
    UnknownBroker(i32),
    /// Not one assignment a new partition.
    #[error("Increasing the number of partitions by {new} but {given} assignments provided.")]
    Count {
        /// Partitions to add.
        new: i32,
        /// Assignments given.
        given: usize,
    },
}

/// One thing that happened; the log is a list of them.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs)] // `records` documents the fields.
pub enum Change {
    TopicCreated { name: Arc<str>, topic_id: Uuid, partitions: i32, configs: ConfigMap },
    TopicDeleted { topic_id: Uuid },
    PartitionsAdded { topic_id: Uuid, partitions: i32 },
    TopicConfigs { topic_id: Uuid, configs: ConfigMap },
    BrokerConfigs { broker: String, configs: ConfigMap },
    GroupConfigs { group: String, configs: ConfigMap },
    ProducerIds { next: i64 },
    LeaderEpoch { topic_id: Uuid, partition: i32, leader_epoch: i32 },
    PartitionDirectories { topic_id: Uuid, directories: Vec<Uuid> },
    Snapshot,
}

impl Change {
    /// The dynamic configs of brokers, by broker.
    pub fn of_brokers(configs: &BTreeMap<String, ConfigMap>) -> impl Iterator<Item = Self> {
        configs
            .iter()
            .map(|(broker, configs)| Self::BrokerConfigs { broker: broker.clone(), configs: configs.clone() })
    }

    /// A topic from nothing: with its id and partitions, its configs, and the leader epochs that are not 0, by partition.
    pub fn of_topic(
        name: &str,
        (topic_id, partitions): (Uuid, i32),
        configs: &ConfigMap,
        leader_epochs: &BTreeMap<i32, i32>,
    ) -> impl Iterator<Item = Self> {
        let created =
            Self::TopicCreated { name: name.into(), topic_id, partitions, configs: configs.clone() };
        let epoch = move |(partition, leader_epoch): (&i32, &i32)| Self::LeaderEpoch {
            topic_id,
            partition: *partition,
            leader_epoch: *leader_epoch,
        };
        std::iter::once(created).chain(leader_epochs.iter().map(epoch))
    }
}

/// A topic as the log tells it.
#[derive(Clone, PartialEq, Debug)]
pub struct TopicState {
    /// Id.
    pub id: Uuid,
    /// Number of partitions.
    pub partitions: i32,
    /// Overrides of the broker's defaults.
    pub configs: ConfigMap,
    /// Leader epochs that are not 0, by partition.
    pub leader_epochs: BTreeMap<i32, i32>,
    /// Ids of the log directories that partitions are in, by partition; shorter where that was never said.
    pub directories: Vec<Uuid>,
}

/// Everything that the catalog's log tells.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct CatalogState {
    topics: BTreeMap<Arc<str>, TopicState>,
    names: HashMap<Uuid, Arc<str>>,
    /// Names with `.` written as `_`: two topics may not share one.
    metric_names: HashMap<String, Arc<str>>,
    broker_configs: BTreeMap<String, ConfigMap>,
    group_configs: BTreeMap<String, Arc<ConfigMap>>,
    next_producer_id: i64,
    /// Deleted since the last snapshot: folders that a crash may have left behind.
    deleted: BTreeSet<Uuid>,
}

/// A topic to make.
#[derive(Clone, Debug, Default)]
pub struct NewTopic {
    /// Name.
    pub name: String,
    /// Partitions.
    pub partitions: i32,
    /// Overrides, validated.
    pub configs: ConfigMap,
}

impl CatalogState {
    /// Topics by name.
    pub fn topics(&self) -> impl Iterator<Item = (&Arc<str>, &TopicState)> {
        self.topics.iter()
    }

    /// The topic of that name.
    pub fn topic(&self, name: &str) -> Option<&TopicState> {
        self.topics.get(name)
    }

    /// The name of the topic of that id.
    pub fn name_of(&self, id: Uuid) -> Option<&Arc<str>> {
        self.names.get(&id)
    }

    /// Dynamic configs of a broker; of all with the empty name.
    pub fn broker_configs(&self, broker: &str) -> ConfigMap {
        self.broker_configs.get(broker).cloned().unwrap_or_default()
    }

    /// Configs of groups, by group; none of those without.
    pub fn group_configs(&self) -> &BTreeMap<String, Arc<ConfigMap>> {
        &self.group_configs
    }

    /// First producer id that was never given.
    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }

    /// Whether a topic of that id was deleted and its folders may still be there.
    pub fn was_deleted(&self, id: Uuid) -> bool {
        self.deleted.contains(&id)
    }

    /// Decides the creation of a topic whose configs are valid each for itself.
    ///
    /// # Errors
    /// A name that is invalid, taken or kept; a count out of range; a queue that cannot be among the others.
    pub fn create_topic(&self, topic: &NewTopic) -> Result<Change, CatalogError> {
        if self.topics.contains_key(topic.name.as_str()) {
            return Err(CatalogError::TopicExists(topic.name.clone()));
        }
        validate_name(&topic.name)?;
        if let Some(existing) = self.metric_names.get(&metric_name(&topic.name)) {
            return Err(CatalogError::Collision { name: topic.name.clone(), existing: Arc::clone(existing) });
        }
        if topic.partitions < 1 {
            return Err(CatalogError::PartitionCount);
        }
        if topic.partitions > MAX_PARTITIONS {
            return Err(CatalogError::TooManyPartitions);
        }
        self.check_queue(&topic.name, &topic.configs)?;
        Ok(Change::TopicCreated {
            name: topic.name.as_str().into(),
            topic_id: self.fresh_id(),
            partitions: topic.partitions,
            configs: topic.configs.clone(),
        })
    }

    fn fresh_id(&self) -> Uuid {
        loop {
            let id = Uuid::random();
            if !self.names.contains_key(&id) {
                return id;
            }
        }
    }

    /// Decides that a topic gets `asked` partitions in all.
    ///
    /// # Errors
    /// No such topic; not an increase; too many.
    pub fn add_partitions(&self, name: &str, asked: i32) -> Result<Change, CatalogError> {
        let topic = self.topics.get(name).ok_or(CatalogError::UnknownTopic)?;
        if asked <= topic.partitions {
            return Err(CatalogError::NotAnIncrease { have: topic.partitions, asked });
        }
        if asked > MAX_PARTITIONS {
            return Err(CatalogError::TooManyPartitions);
        }
        Ok(Change::PartitionsAdded { topic_id: topic.id, partitions: asked })
    }

    /// Decides that a topic gets these configs, valid each for itself, instead of those that it has.
    ///
    /// # Errors
    /// No such topic; a queue that cannot be among the others.
    pub fn configure_topic(&self, name: &str, configs: ConfigMap) -> Result<Change, CatalogError> {
        let topic = self.topics.get(name).ok_or(CatalogError::UnknownTopic)?;
        self.check_queue(name, &configs)?;
        Ok(Change::TopicConfigs { topic_id: topic.id, configs })
    }

    /// Checks a queue by what the other topics are: no topic of the broker's own is in it, and its dead letters end somewhere. Of
    /// what queues read, names count; patterns match no topic that gets dead letters.
    fn check_queue(&self, name: &str, configs: &ConfigMap) -> Result<(), InvalidConfig> {
        if is_internal(name) && queue_config::is_enabled(configs) {
            return Err(InvalidConfig::InternalQueue(name.to_owned()));
        }
        if let Some(source) = queue_config::named_sources(configs).find(|source| is_internal(source)) {
            return Err(InvalidConfig::InternalSource(source.to_owned()));
        }
        let reads = |queue: &str, configs: &ConfigMap, topic: &str| {
            queue == topic || queue_config::named_sources(configs).any(|source| source == topic)
        };
        let first = queue_config::dead_letter_queue(configs).map(|queue| vec![name, queue]);
        let mut paths: Vec<Vec<&str>> = first.into_iter().collect();
        let mut seen = BTreeSet::new();
        while let Some(mut path) = paths.pop() {
            let Some(&reached) = path.last() else { continue };
            if is_internal(reached) {
                return Err(InvalidConfig::InternalQueue(reached.to_owned()));
            }
            if reads(name, configs, reached) {
                path.extend((reached != name).then_some(name));
                return Err(InvalidConfig::DeadLetterCircle(path.into_iter().map(str::to_owned).collect()));
            }
            if !seen.insert(reached) {
                continue;
            }
            for (queue, topic) in self.topics.iter().filter(|(queue, _)| ***queue != *name) {
                if let Some(next) = queue_config::dead_letter_queue(&topic.configs)
                    && reads(queue, &topic.configs, reached)
                {
                    paths.push(path.iter().copied().chain([next]).collect());
                }
            }
        }
        Ok(())
    }

    /// Decides the deletion of a topic.
    ///
    /// # Errors
    /// No topic has that id.
    pub fn delete_topic(&self, id: Uuid) -> Result<Change, CatalogError> {
        match self.names.contains_key(&id) {
            true => Ok(Change::TopicDeleted { topic_id: id }),
            false => Err(CatalogError::UnknownTopicId),
        }
    }

    /// The only writer. A change that names what is not there does nothing: replay may start between the two.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::TopicCreated { name, topic_id, partitions, configs } => {
                self.names.insert(*topic_id, Arc::clone(name));
                self.metric_names.insert(metric_name(name), Arc::clone(name));
                let topic = TopicState {
                    id: *topic_id,
                    partitions: *partitions,
                    configs: configs.clone(),
                    leader_epochs: BTreeMap::new(),
                    directories: Vec::new(),
                };
                self.topics.insert(Arc::clone(name), topic);
            }
            Change::TopicDeleted { topic_id } => {
                if let Some(name) = self.names.remove(topic_id) {
                    self.metric_names.remove(&metric_name(&name));
                    self.topics.remove(&name);
                    self.deleted.insert(*topic_id);
                }
            }
            Change::PartitionsAdded { topic_id, partitions } => {
                if let Some(topic) = self.topic_mut(*topic_id) {
                    topic.partitions = *partitions;
                }
            }
            Change::TopicConfigs { topic_id, configs } => {
                if let Some(topic) = self.topic_mut(*topic_id) {
                    topic.configs = configs.clone();
                }
            }
            Change::BrokerConfigs { broker, configs } => {
                if configs.is_empty() {
                    self.broker_configs.remove(broker);
                } else {
                    self.broker_configs.insert(broker.clone(), configs.clone());
                }
            }
            Change::GroupConfigs { group, configs } => {
                if configs.is_empty() {
                    self.group_configs.remove(group);
                } else {
                    self.group_configs.insert(group.clone(), Arc::new(configs.clone()));
                }
            }
            Change::ProducerIds { next } => self.next_producer_id = *next,
            Change::LeaderEpoch { topic_id, partition, leader_epoch } => {
                if let Some(topic) = self.topic_mut(*topic_id) {
                    topic.leader_epochs.insert(*partition, *leader_epoch);
                }
            }
            Change::PartitionDirectories { topic_id, directories } => {
                if let Some(topic) = self.topic_mut(*topic_id) {
                    topic.directories.clone_from(directories);
                }
            }
            Change::Snapshot => *self = Self::default(),
        }
    }

    fn topic_mut(&mut self, id: Uuid) -> Option<&mut TopicState> {
        self.topics.get_mut(self.names.get(&id)?)
    }

    /// How many changes [`CatalogState::snapshot`] gives.
    pub fn snapshot_len(&self) -> usize {
        let epochs: usize = self.topics.values().map(|topic| topic.leader_epochs.len()).sum();
        let told = self.topics.values().filter(|topic| !topic.directories.is_empty()).count();
        2 + self.broker_configs.len() + self.group_configs.len() + self.topics.len() + epochs + told
    }

    /// The shortest list of changes that leads to this state from any other.
    pub fn snapshot(&self) -> Vec<Change> {
        let mut changes = vec![Change::Snapshot, Change::ProducerIds { next: self.next_producer_id }];
        for (group, configs) in &self.group_configs {
            changes.push(Change::GroupConfigs { group: group.clone(), configs: (**configs).clone() });
        }
        changes.extend(Change::of_brokers(&self.broker_configs));
        for (name, topic) in &self.topics {
            let TopicState { id, partitions, configs, leader_epochs, .. } = topic;
            changes.extend(Change::of_topic(name, (*id, *partitions), configs, leader_epochs));
            if !topic.directories.is_empty() {
                let directories = topic.directories.clone();
                changes.push(Change::PartitionDirectories { topic_id: topic.id, directories });
            }
        }
        changes
    }
}

/// Checks that a topic may have this name.
///
/// # Errors
/// What is wrong with it, or that it is kept for the broker.
pub fn validate_name(name: &str) -> Result<(), CatalogError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    match name {
        "" => Err(CatalogError::TopicName(NameFault::Empty)),
        "." | ".." => Err(CatalogError::TopicName(NameFault::Dots)),
        _ if name.len() > NAME_BYTES_MAX => Err(CatalogError::TopicName(NameFault::TooLong)),
        _ if !name.bytes().all(legal) => Err(CatalogError::TopicName(NameFault::Character)),
        CLUSTER_METADATA | CATALOG_LOG => Err(CatalogError::Reserved(name.to_owned())),
        _ => Ok(()),
    }
}

/// Checks manual assignments, of which one node allows one kind: each partition on that node alone.
///
/// # Errors
/// What is wrong with them.
pub fn validate_replicas<'a>(
    replicas: impl IntoIterator<Item = &'a [i32]>,
    node_id: i32,
) -> Result<(), CatalogError> {
    for partition in replicas {
        let fault = match partition {
            [] => AssignmentFault::NoReplicas,
            [only] if *only == node_id => continue,
            [first, rest @ ..] if rest.contains(first) => AssignmentFault::Duplicate,
            brokers => {
                let stranger = brokers.iter().find(|broker| **broker != node_id).copied().unwrap_or(node_id);
                AssignmentFault::UnknownBroker(stranger)
            }
        };
        return Err(CatalogError::ReplicaAssignment(fault));
    }
    Ok(())
}

fn metric_name(name: &str) -> String {
    name.replace('.', "_")
}

/// Kinds of records by the number that stands in their value.
macro_rules! kinds {
    ($($kind:literal $record:ident;)+) => {
        impl Change {
            fn kind(&self) -> (i16, &'static str) {
                match self {
                    $(Self::$record { .. } => ($kind, stringify!($record)),)+
                }
            }

            /// Reads a record's value.
            ///
            /// # Errors
            /// Bytes that are no record, or one of a later version of this program.
            pub fn from_record(value: &[u8]) -> Result<Self, CatalogError> {
                let frame = Bytes::copy_from_slice(value);
                let header: i32 = decode(&frame, &frame, RECORD_VERSION, true)?;
                let (kind, version) = ((header >> 16) as i16, header as i16);
                match kind {
                    $($kind if version <= RECORD_VERSION => {
                        let record: records::$record = decode(&frame, &frame[4..], version, true)?;
                        Ok(record.into())
                    })+
                    _ => Err(CatalogError::LaterVersion { kind, version }),
                }
            }
        }
    };
}

kinds! {
    0 Snapshot;
    1 TopicCreated;
    2 TopicDeleted;
    3 PartitionsAdded;
    4 TopicConfigs;
    5 BrokerConfigs;
    6 ProducerIds;
    7 LeaderEpoch;
    8 PartitionDirectories;
    9 GroupConfigs;
}

impl Change {
    /// The record's key and value.
    pub fn to_record(&self) -> (Bytes, Bytes) {
        let (kind, name) = self.kind();
        let mut out = BytesMut::new();
        out.put(&kind.to_be_bytes());
        out.put(&RECORD_VERSION.to_be_bytes());
        let cx = Encode { version: RECORD_VERSION, flexible: true };
        match self.clone() {
            Self::Snapshot => records::Snapshot {}.encode(&mut out, cx),
            Self::TopicCreated { name, topic_id, partitions, configs } => {
                let (name, configs) = (Str::from(&*name), to_values(configs));
                records::TopicCreated { name, topic_id, partitions, configs }.encode(&mut out, cx);
            }
            Self::TopicDeleted { topic_id } => records::TopicDeleted { topic_id }.encode(&mut out, cx),
            Self::PartitionsAdded { topic_id, partitions } => {
                records::PartitionsAdded { topic_id, partitions }.encode(&mut out, cx);
            }
            Self::TopicConfigs { topic_id, configs } => {
                records::TopicConfigs { topic_id, configs: to_values(configs) }.encode(&mut out, cx);
            }
            Self::BrokerConfigs { broker, configs } => {
                let (broker, configs) = (Str::from(broker), to_values(configs));
                records::BrokerConfigs { broker, configs }.encode(&mut out, cx);
            }
            Self::GroupConfigs { group, configs } => {
                let (group, configs) = (Str::from(group), to_values(configs));
                records::GroupConfigs { group, configs }.encode(&mut out, cx);
            }
            Self::ProducerIds { next } => records::ProducerIds { next }.encode(&mut out, cx),
            Self::LeaderEpoch { topic_id, partition, leader_epoch } => {
                records::LeaderEpoch { topic_id, partition, leader_epoch }.encode(&mut out, cx);
            }
            Self::PartitionDirectories { topic_id, directories } => {
                records::PartitionDirectories { topic_id, directories }.encode(&mut out, cx);
            }
        }
        (Bytes::from_static(name.as_bytes()), out.freeze())
    }
}

fn to_values(configs: ConfigMap) -> Vec<records::ConfigValue> {
    let value = |(name, value)| records::ConfigValue { name: Str::from(name), value: Str::from(value) };
    configs.into_iter().map(value).collect()
}

fn from_values(values: Vec<records::ConfigValue>) -> ConfigMap {
    values.into_iter().map(|config| (config.name.to_string(), config.value.to_string())).collect()
}

impl From<records::Snapshot> for Change {
    fn from(_: records::Snapshot) -> Self {
        Self::Snapshot
    }
}

impl From<records::TopicCreated> for Change {
    fn from(record: records::TopicCreated) -> Self {
        let records::TopicCreated { name, topic_id, partitions, configs } = record;
        Self::TopicCreated { name: (&*name).into(), topic_id, partitions, configs: from_values(configs) }
    }
}

impl From<records::TopicDeleted> for Change {
    fn from(record: records::TopicDeleted) -> Self {
        Self::TopicDeleted { topic_id: record.topic_id }
    }
}

impl From<records::PartitionsAdded> for Change {
    fn from(record: records::PartitionsAdded) -> Self {
        Self::PartitionsAdded { topic_id: record.topic_id, partitions: record.partitions }
    }
}

impl From<records::TopicConfigs> for Change {
    fn from(record: records::TopicConfigs) -> Self {
        Self::TopicConfigs { topic_id: record.topic_id, configs: from_values(record.configs) }
    }
}

impl From<records::BrokerConfigs> for Change {
    fn from(record: records::BrokerConfigs) -> Self {
        Self::BrokerConfigs { broker: record.broker.to_string(), configs: from_values(record.configs) }
    }
}

impl From<records::GroupConfigs> for Change {
    fn from(record: records::GroupConfigs) -> Self {
        Self::GroupConfigs { group: record.group.to_string(), configs: from_values(record.configs) }
    }
}

impl From<records::ProducerIds> for Change {
    fn from(record: records::ProducerIds) -> Self {
        Self::ProducerIds { next: record.next }
    }
}

impl From<records::LeaderEpoch> for Change {
    fn from(record: records::LeaderEpoch) -> Self {
        let records::LeaderEpoch { topic_id, partition, leader_epoch } = record;
        Self::LeaderEpoch { topic_id, partition, leader_epoch }
    }
}

impl From<records::PartitionDirectories> for Change {
    fn from(record: records::PartitionDirectories) -> Self {
        Self::PartitionDirectories { topic_id: record.topic_id, directories: record.directories }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn create(state: &mut CatalogState, name: &str, partitions: i32) -> Result<Uuid, CatalogError> {
        let topic = NewTopic { name: name.to_owned(), partitions, configs: ConfigMap::new() };
        let change = state.create_topic(&topic)?;
        state.apply(&change);
        Ok(state.topic(name).unwrap().id)
    }

    #[test]
    fn names_are_checked_as_kafka_does() {
        let mut state = CatalogState::default();
        create(&mut state, "a.b", 1).unwrap();
        assert!(matches!(create(&mut state, "a.b", 1), Err(CatalogError::TopicExists(_))));
        assert!(matches!(create(&mut state, "a_b", 1), Err(CatalogError::Collision { .. })));
        for (name, fault) in [
            ("", NameFault::Empty),
            (".", NameFault::Dots),
            ("..", NameFault::Dots),
            ("a b", NameFault::Character),
            ("ä", NameFault::Character),
            (&"x".repeat(250), NameFault::TooLong),
        ] {
            assert!(
                matches!(create(&mut state, name, 1), Err(CatalogError::TopicName(f)) if f == fault),
                "{name}"
            );
        }
        create(&mut state, &"x".repeat(249), 1).unwrap();
        assert!(matches!(create(&mut state, CATALOG_LOG, 1), Err(CatalogError::Reserved(_))));
    }

    #[test]
    fn a_recreated_topic_has_a_new_id_and_no_memory() {
        let mut state = CatalogState::default();
        let first = create(&mut state, "t", 3).unwrap();
        state.apply(&Change::LeaderEpoch { topic_id: first, partition: 1, leader_epoch: 4 });
        let change = state.delete_topic(first).unwrap();
        state.apply(&change);
        assert!(state.was_deleted(first) && state.topic("t").is_none());
        let second = create(&mut state, "t", 1).unwrap();
        assert_ne!(first, second);
        assert!(state.topic("t").unwrap().leader_epochs.is_empty());
        assert!(matches!(state.delete_topic(first), Err(CatalogError::UnknownTopicId)));
    }

    #[test]
    fn partitions_only_grow() {
        let mut state = CatalogState::default();
        create(&mut state, "t", 2).unwrap();
        for (asked, message) in [(2, "Topic already has 2 partition(s)."), (1, "would not be an increase")] {
            let error = state.add_partitions("t", asked).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
        }
        assert!(matches!(state.add_partitions("t", 10_001), Err(CatalogError::TooManyPartitions)));
        assert!(matches!(state.add_partitions("no", 5), Err(CatalogError::UnknownTopic)));
    }

    #[test]
    fn dead_letters_end_somewhere() {
        let dead = |queue: &str| {
            ConfigMap::from([
                ("ottla.queue.enable".to_owned(), "true".to_owned()),
                ("ottla.queue.dead.letter.queue".to_owned(), queue.to_owned()),
            ])
        };
        let mut state = CatalogState::default();
        let queue = |name: &str, configs| NewTopic { name: name.to_owned(), partitions: 1, configs };
        let itself = state.create_topic(&queue("a", dead("a"))).unwrap_err();
        assert_eq!(itself.to_string(), "Dead letters would go round: a -> a");
        for (name, dead_letters) in [("a", "b"), ("b", "c")] {
            // The queue of dead letters need not be there yet.
            let created = state.create_topic(&queue(name, dead(dead_letters))).unwrap();
            state.apply(&created);
        }
        let around = state.create_topic(&queue("c", dead("a"))).unwrap_err();
        assert_eq!(around.to_string(), "Dead letters would go round: c -> a -> b -> c");
        create(&mut state, "c", 1).unwrap();
        assert!(matches!(
            state.configure_topic("c", dead("b")),
            Err(CatalogError::Config(InvalidConfig::DeadLetterCircle(_)))
        ));
        assert!(matches!(
            state.configure_topic("c", dead(CONSUMER_OFFSETS)),
            Err(CatalogError::Config(InvalidConfig::InternalQueue(_)))
        ));
        assert!(matches!(
            state.create_topic(&queue(CONSUMER_OFFSETS, dead("d"))),
            Err(CatalogError::Config(InvalidConfig::InternalQueue(_)))
        ));
        let changed = state.configure_topic("c", dead("d")).unwrap();
        state.apply(&changed);
        assert_eq!(state.topic("c").unwrap().configs, dead("d"));
        assert!(matches!(state.configure_topic("e", dead("d")), Err(CatalogError::UnknownTopic)));
    }

    #[test]
    fn dead_letters_end_somewhere_whoever_reads_them() {
        let reads = |source: &str, dead: &str| {
            ConfigMap::from([
                ("ottla.queue.enable".to_owned(), "true".to_owned()),
                ("ottla.queue.source".to_owned(), source.to_owned()),
                ("ottla.queue.dead.letter.queue".to_owned(), dead.to_owned()),
            ])
        };
        let mut state = CatalogState::default();
        let queue = |name: &str, configs| NewTopic { name: name.to_owned(), partitions: 1, configs };
        let itself = state.create_topic(&queue("a", reads("x, dead-a", "dead-a"))).unwrap_err();
        assert_eq!(itself.to_string(), "Dead letters would go round: a -> dead-a -> a");
        for created in [queue("a", reads("x,dead-b", "dead-a")), queue("c", reads("x,y,#", "dead-a"))] {
            let created = state.create_topic(&created).unwrap();
            state.apply(&created);
        }
        let around = state.create_topic(&queue("b", reads("y,dead-a", "dead-b")));
        assert_eq!(
            around.unwrap_err().to_string(),
            "Dead letters would go round: b -> dead-b -> dead-a -> b"
        );
        let created = state.create_topic(&queue("b", reads("y", "dead-b"))).unwrap();
        state.apply(&created);
        let internal = state.configure_topic("b", reads(CONSUMER_OFFSETS, "dead-b")).unwrap_err();
        assert_eq!(internal.to_string(), "The internal topic __consumer_offsets cannot be read by a queue.");
    }

    #[test]
    fn an_assignment_names_this_node_once_a_partition() {
        for (replicas, fault) in [
            (&[][..], AssignmentFault::NoReplicas),
            (&[1, 1], AssignmentFault::Duplicate),
            (&[2], AssignmentFault::UnknownBroker(2)),
            (&[1, 2], AssignmentFault::UnknownBroker(2)),
        ] {
            let error = validate_replicas([replicas], 1).unwrap_err();
            assert!(matches!(error, CatalogError::ReplicaAssignment(f) if f == fault), "{error}");
        }
        validate_replicas([&[1][..], &[1]], 1).unwrap();
    }

    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let id = (0u8..6).prop_map(|n| Uuid([n + 1; 16]));
        let configs = prop::collection::btree_map("[a-c.]{1,3}", "[0-9]{0,3}", 0..3);
        let change = prop_oneof![
            (0u8..6, 1..9, configs.clone()).prop_map(|(n, partitions, configs)| Change::TopicCreated {
                name: format!("t{n}").into(),
                topic_id: Uuid([n + 1; 16]),
                partitions,
                configs
            }),
            id.clone().prop_map(|topic_id| Change::TopicDeleted { topic_id }),
            (id.clone(), 1..20)
                .prop_map(|(topic_id, partitions)| Change::PartitionsAdded { topic_id, partitions }),
            (id.clone(), configs.clone())
                .prop_map(|(topic_id, configs)| Change::TopicConfigs { topic_id, configs }),
            ("1?", configs).prop_map(|(broker, configs)| Change::BrokerConfigs { broker, configs }),
            any::<i64>().prop_map(|next| Change::ProducerIds { next }),
            ("[gh]", Just(ConfigMap::from([("share.session.timeout.ms".to_owned(), "50000".to_owned())])))
                .prop_map(|(group, configs)| Change::GroupConfigs { group, configs }),
            (id.clone(), prop::collection::vec(id.clone(), 0..5))
                .prop_map(|(topic_id, directories)| Change::PartitionDirectories { topic_id, directories }),
            (id, 0..9, 0..9).prop_map(|(topic_id, partition, leader_epoch)| Change::LeaderEpoch {
                topic_id,
                partition,
                leader_epoch
            }),
        ];
        prop::collection::vec(change, 0..60)
    }

    proptest! {
        #[test]
        fn a_change_reads_back_from_its_record_and_a_snapshot_leads_to_the_same_state(changes in changes()) {
            let mut state = CatalogState::default();
            for change in &changes {
                let (_, value) = change.to_record();
                prop_assert_eq!(&Change::from_record(&value).unwrap(), change);
                state.apply(change);
            }
            let mut again = CatalogState::default();
            changes.iter().take(7).for_each(|change| again.apply(change));
            prop_assert_eq!(state.snapshot().len(), state.snapshot_len());
            state.snapshot().iter().for_each(|change| again.apply(change));
            state.deleted.clear();
            prop_assert_eq!(again, state);
        }

        #[test]
        fn any_bytes_are_a_change_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Change::from_record(&bytes);
        }
    }
}
