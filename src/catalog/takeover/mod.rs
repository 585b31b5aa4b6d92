//! Taking over a log directory that Apache Kafka has written: what its metadata log says of topics, ids, partitions, leader epochs
//! and configs, as changes of the catalog; and a list of what is there but not taken. Without a metadata log that can be
//! believed, the names of the folders and their `partition.metadata` must do.
//!
//! Nothing is changed here. The records, indexes and checkpoints of the partitions stay the files that they are: both programs
//! read the same. `__consumer_offsets` is a partition like any other.

mod image;
mod metadata_log;
pub mod records;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub use self::metadata_log::{BatchFault, MetadataFault};
pub use self::records::InvalidRecord;

use self::image::{Image, TopicImage};
use super::state::{CLUSTER_METADATA, CONSUMER_OFFSETS, CatalogError, Change, validate_name};
use super::topic_config::{self, Inherited, InvalidConfig};
use super::{CATALOG_LOG, broker_config};
use crate::clock::TimestampMs;
use crate::config::{ConfigMap, MAX_PARTITIONS};
use crate::log::directory::PROPERTIES_FILE;
use crate::log::epochs::LeaderEpochs;
use crate::log::{LogError, checkpoint, parse_folder, topic_id_of};
use crate::storage::{Disk, read_exact_at, read_file};
use crate::uuid::Uuid;

/// Where the magic stands in a batch of any format, bytes from its start.
const MAGIC_AT: usize = 16;

/// Bits that the present time is shifted by to make the first producer id: neither program ever gives an id that the other has
/// given, however often a directory goes from one to the other, as long as less than a million are given each millisecond.
const PRODUCER_ID_TIME_BITS: u32 = 20;

/// Why a directory cannot be taken over. Nothing in it has been changed.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// It has batches that no present client could read.
    #[error("{}: has record batches of format {magic}, of before Kafka 0.11; only format 2 is served", path.display())]
    OldFormat {
        /// The segment.
        path: PathBuf,
        /// The format.
        magic: i8,
    },
    /// A file of it cannot be read.
    #[error("{}: {source}", path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The id of a partition cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// A topic that is taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TakenTopic {
    /// Name.
    pub name: String,
    /// Id.
    pub id: Uuid,
    /// Number of partitions.
    pub partitions: i32,
    /// Configs that it has of its own.
    pub configs: ConfigMap,
    /// Leader epochs that are not 0, by partition.
    pub leader_epochs: BTreeMap<i32, i32>,
}

/// Something that is there but is not taken, or only in part. Displays as a line.
#[derive(Debug)]
pub enum NotTaken {
    /// The file of settings, which lies elsewhere: always.
    ServerProperties,
    /// Topics are known by the names of their folders only.
    MetadataLog(MetadataFault),
    /// The metadata log ends with an interrupted append.
    MetadataTail {
        /// Where it ends.
        end_offset: i64,
        /// Bytes after that.
        bytes: u64,
    },
    /// A config that this program does not have, or would refuse.
    Config {
        /// The topic.
        topic: String,
        /// Why not.
        source: InvalidConfig,
    },
    /// Dynamic configs of brokers that this program does not have, or does not let change.
    BrokerConfig(InvalidConfig),
    /// A topic that this program cannot have.
    Topic {
        /// The topic.
        name: String,
        /// Why not.
        source: CatalogError,
    },
    /// A topic of which nothing is here.
    Elsewhere {
        /// The topic.
        name: String,
    },
    /// Partitions without a folder: they begin empty.
    Partitions {
        /// The topic.
        topic: String,
        /// Which.
        partitions: Vec<i32>,
    },
    /// A folder that belongs to no topic.
    Stray {
        /// The folder.
        path: PathBuf,
        /// The topic id that it names.
        topic_id: Option<Uuid>,
    },
    /// Partitions that had transactions: their records are served, those of aborted transactions too.
    Transactions {
        /// Partitions with aborted transactions.
        aborted: usize,
        /// Whether there are transactional producers at all.
        coordinated: bool,
    },
    /// The state of share groups: kept as the topic that it is.
    ShareGroups,
    /// Access control entries.
    Acls(usize),
    /// Credentials for SCRAM.
    Credentials(usize),
    /// Quotas of clients.
    Quotas(usize),
    /// Delegation tokens.
    Tokens(usize),
    /// Configs of groups and client metrics.
    OtherConfigs(usize),
}

/// What is taken from a directory, and what is not.
#[derive(Debug, Default)]
pub struct Takeover {
    /// By name.
    pub topics: Vec<TakenTopic>,
    /// Dynamic configs of this node, and of all with the empty name.
    pub broker_configs: BTreeMap<String, ConfigMap>,
    /// What is left.
    pub not_taken: Vec<NotTaken>,
}

/// What a directory has for a partition.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    topic_id: Option<Uuid>,
    /// The newest epoch that something was written in.
    leader_epoch: i32,
    has_aborted: bool,
}

type Folders = BTreeMap<(String, i32), Folder>;

impl Takeover {
    /// Reads the directories of one broker, of which one has the metadata log, and decides what to take as `node_id`.
    ///
    /// # Errors
    /// A folder that cannot be read; records in a format that is not served.
    pub fn read(disk: &dyn Disk, directories: &[PathBuf], node_id: i32) -> Result<Self, TakeoverError> {
        let mut metadata = Err(MetadataFault::Absent);
        let mut folders = Folders::new();
        for directory in directories {
            let listed = |source| TakeoverError::Disk { path: directory.clone(), source };
            for entry in disk.list(directory).map_err(listed)?.into_iter().filter(|entry| entry.is_dir) {
                let path = directory.join(&entry.name);
                match parse_folder(&entry.name) {
                    Some((topic, 0)) if topic == CLUSTER_METADATA => {
                        metadata = metadata_log::read(disk, &path);
                    }
                    Some((topic, _)) if topic == CATALOG_LOG => {}
                    Some(key) => drop(folders.insert(key, Folder::read(disk, path)?)),
                    None => {}
                }
            }
        }
        let mut takeover = Self { not_taken: vec![NotTaken::ServerProperties], ..Self::default() };
        match metadata {
            Ok(told) => {
                if told.torn_bytes > 0 {
                    let (end_offset, bytes) = (told.end_offset, told.torn_bytes);
                    takeover.not_taken.push(NotTaken::MetadataTail { end_offset, bytes });
                }
                takeover.take_image(told.image, &mut folders, node_id);
            }
            Err(fault) => {
                takeover.not_taken.push(NotTaken::MetadataLog(fault));
                takeover.take_folders(&mut folders);
            }
        }
        takeover.topics.sort_by(|left, right| left.name.cmp(&right.name));
        let strays = folders.into_values();
        let stray = |folder: Folder| NotTaken::Stray { path: folder.path, topic_id: folder.topic_id };
        takeover.not_taken.extend(strays.map(stray));
        Ok(takeover)
    }

    /// What the catalog has to note down, at `now_ms`.
    pub fn changes(&self, now_ms: TimestampMs) -> Vec<Change> {
        let mut changes = vec![Change::ProducerIds { next: now_ms << PRODUCER_ID_TIME_BITS }];
        changes.extend(Change::of_brokers(&self.broker_configs));
        for TakenTopic { name, id, partitions, configs, leader_epochs, .. } in &self.topics {
            changes.extend(Change::of_topic(name, (*id, *partitions), configs, leader_epochs));
        }
        changes
    }

    /// Partitions of all topics.
    pub fn partitions(&self) -> usize {
        self.topics.iter().map(|topic| topic.partitions as usize).sum()
    }

    /// Topics as the metadata log tells; takes their folders out of `folders`.
    fn take_image(&mut self, image: Image, folders: &mut Folders, node_id: i32) {
        let mut had = Had::default();
        for (id, topic) in &image.topics {
            let here: BTreeMap<i32, Folder> = topic
                .partitions
                .keys()
                .filter_map(|index| {
                    let key = (topic.name.clone(), *index);
                    let is_its_own = folders.get(&key)?.topic_id.is_none_or(|own| own == *id);
                    is_its_own.then(|| folders.remove(&key)).flatten().map(|folder| (*index, folder))
                })
                .collect();
            let is_here = |index: &i32| topic.partitions[index].replicas.contains(&node_id);
            if here.is_empty() && !topic.partitions.keys().any(is_here) {
                self.not_taken.push(NotTaken::Elsewhere { name: topic.name.clone() });
                continue;
            }
            if let Err(source) = acceptable(topic) {
                self.not_taken.push(NotTaken::Topic { name: topic.name.clone(), source });
                continue;
            }
            let absent: Vec<i32> =
                topic.partitions.keys().filter(|index| !here.contains_key(index)).copied().collect();
            if !absent.is_empty() {
                self.not_taken.push(NotTaken::Partitions { topic: topic.name.clone(), partitions: absent });
            }
            let configs = self.acceptable_configs(&topic.name, image.configs_of(topic));
            let epoch = |(index, partition): (&i32, &image::PartitionImage)| {
                let written = here.get(index).map_or(0, |folder| folder.leader_epoch);
                (*index, partition.leader_epoch.max(written))
            };
            let leader_epochs =
                topic.partitions.iter().map(epoch).filter(|(_, leader_epoch)| *leader_epoch > 0).collect();
            had.note(&topic.name, here.values());
            let partitions = topic.partitions.len() as i32;
            self.topics.push(TakenTopic {
                name: topic.name.clone(),
                id: *id,
                partitions,
                configs,
                leader_epochs,
            });
        }
        self.take_broker_configs(&image, node_id);
        self.not_taken.extend(had.not_taken());
        let counted = |count: usize, line: fn(usize) -> NotTaken| (count > 0).then(|| line(count));
        self.not_taken.extend(
            [
                counted(image.acls.len(), NotTaken::Acls),
                counted(image.credentials.len(), NotTaken::Credentials),
                counted(image.quotas.len(), NotTaken::Quotas),
                counted(image.tokens.len(), NotTaken::Tokens),
                counted(image.other_configs.len(), NotTaken::OtherConfigs),
            ]
            .into_iter()
            .flatten(),
        );
    }

    /// Topics as their folders tell. Their configs are not known: nothing of them may be deleted by defaults that they may
    /// not have had.
    fn take_folders(&mut self, folders: &mut Folders) {
        let mut had = Had::default();
        let names: BTreeSet<String> = folders.keys().map(|(topic, _)| topic.clone()).collect();
        for name in names {
            if validate_name(&name).is_err() {
                continue;
            }
            let of_it = (name.clone(), 0)..=(name.clone(), MAX_PARTITIONS - 1);
            let id = folders.range(of_it.clone()).find_map(|(_, folder)| folder.topic_id);
            let its_own = |folder: &Folder| folder.topic_id.is_none_or(|own| Some(own) == id);
            let keys: Vec<_> = folders
                .range(of_it)
                .filter(|(_, folder)| its_own(folder))
                .map(|(key, _)| key.clone())
                .collect();
            let here: BTreeMap<i32, Folder> =
                keys.into_iter().filter_map(|key| Some((key.1, folders.remove(&key)?))).collect();
            let Some((last, _)) = here.last_key_value() else { continue };
            let partitions = last + 1;
            let absent: Vec<i32> = (0..partitions).filter(|index| !here.contains_key(index)).collect();
            if !absent.is_empty() {
                self.not_taken.push(NotTaken::Partitions { topic: name.clone(), partitions: absent });
            }
            let leader_epochs = here.iter().map(|(index, folder)| (*index, folder.leader_epoch));
            let leader_epochs = leader_epochs.filter(|(_, leader_epoch)| *leader_epoch > 0).collect();
            had.note(&name, here.values());
            let configs = careful_configs(&name);
            let id = id.unwrap_or_else(Uuid::random);
            self.topics.push(TakenTopic { name, id, partitions, configs, leader_epochs });
        }
        self.not_taken.extend(had.not_taken());
    }

    /// Of a topic's configs those that this program takes; the others are noted.
    fn acceptable_configs(&mut self, topic: &str, configs: ConfigMap) -> ConfigMap {
        let none = ConfigMap::new();
        let inherited = Inherited { dynamic_node: &none, dynamic_default: &none, fixed: &none };
        let mut taken = ConfigMap::new();
        for (name, value) in configs {
            taken.insert(name.clone(), value);
            // One by one, so that it is clear which one is at fault; a pair that conflicts loses its second.
            if let Err(source) = topic_config::validate(&taken, &inherited) {
                taken.remove(&name);
                self.not_taken.push(NotTaken::Config { topic: topic.to_owned(), source });
            }
        }
        taken
    }

    fn take_broker_configs(&mut self, image: &Image, node_id: i32) {
        let none = ConfigMap::new();
        for broker in [String::new(), node_id.to_string()] {
            let mut taken = ConfigMap::new();
            for (name, value) in image.broker_configs.get(&broker).into_iter().flatten() {
                taken.insert(name.clone(), value.clone());
                let levels = Inherited { dynamic_node: &taken, dynamic_default: &none, fixed: &none };
                if let Err(source) = broker_config::validate(&levels) {
                    taken.remove(name);
                    self.not_taken.push(NotTaken::BrokerConfig(source));
                }
            }
            if !taken.is_empty() {
                self.broker_configs.insert(broker, taken);
            }
        }
    }
}

/// What the partitions that are taken have had, beside their records.
#[derive(Default)]
struct Had {
    aborted: usize,
    transactions: bool,
    share_groups: bool,
}

impl Had {
    fn note<'f>(&mut self, topic: &str, folders: impl Iterator<Item = &'f Folder>) {
        self.aborted += folders.filter(|folder| folder.has_aborted).count();
        self.transactions |= topic == "__transaction_state";
        self.share_groups |= topic == "__share_group_state";
    }

    fn not_taken(&self) -> impl Iterator<Item = NotTaken> {
        let (aborted, coordinated) = (self.aborted, self.transactions);
        let transactions =
            (aborted > 0 || coordinated).then_some(NotTaken::Transactions { aborted, coordinated });
        transactions.into_iter().chain(self.share_groups.then_some(NotTaken::ShareGroups))
    }
}

impl Folder {
    fn read(disk: &dyn Disk, path: PathBuf) -> Result<Self, TakeoverError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| TakeoverError::Disk { path, source }
        };
        let mut has_aborted = false;
        for entry in disk.list(&path).map_err(failed(&path))? {
            let file = path.join(&entry.name);
            match entry.name.rsplit_once('.') {
                Some((_, "log")) => refuse_old_format(disk, &file)?,
                Some((_, "txnindex")) if !has_aborted => {
                    let opened = disk.open_to_read(&file).map_err(failed(&file))?;
                    has_aborted = opened.length().map_err(failed(&file))? > 0;
                }
                _ => {}
            }
        }
        let epochs = read_file(disk, &path.join("leader-epoch-checkpoint"), checkpoint::LIMIT_BYTES);
        // Without it, or with a damaged one, the log reads them off its batches.
        let latest = epochs.ok().and_then(|bytes| LeaderEpochs::parse(&bytes).ok()?.latest());
        let leader_epoch = latest.map_or(0, |start| start.epoch);
        Ok(Self { topic_id: topic_id_of(disk, &path)?, leader_epoch, has_aborted, path })
    }
}

/// Before a directory is opened, which changes it: whether it could be taken over, if it would have to be. One that is no log
/// directory at all is not looked at.
///
/// # Errors
/// As [`Takeover::read`].
pub fn check(disk: &dyn Disk, path: &Path, node_id: i32) -> Result<(), TakeoverError> {
    let Ok(entries) = disk.list(path) else { return Ok(()) };
    let is_log_directory = entries.iter().any(|entry| entry.name == PROPERTIES_FILE);
    let has_catalog =
        entries.iter().any(|entry| parse_folder(&entry.name).is_some_and(|(topic, _)| topic == CATALOG_LOG));
    if is_log_directory && !has_catalog {
        Takeover::read(disk, &[path.to_owned()], node_id)?;
    }
    Ok(())
}

/// Looks at the first batch of a segment: formats only ever rise in a log.
fn refuse_old_format(disk: &dyn Disk, path: &Path) -> Result<(), TakeoverError> {
    let failed = |source| TakeoverError::Disk { path: path.to_owned(), source };
    let file = disk.open_to_read(path).map_err(failed)?;
    let mut begin = [0; MAGIC_AT + 1];
    if file.length().map_err(failed)? < begin.len() as u64 {
        return Ok(());
    }
    read_exact_at(&*file, &mut begin, 0).map_err(failed)?;
    let magic = begin[MAGIC_AT] as i8;
    // All zeros are no batch but space that a crash has left: recovery's business.
    match magic {
        0 | 1 if begin.iter().any(|byte| *byte != 0) => {
            Err(TakeoverError::OldFormat { path: path.to_owned(), magic })
        }
        _ => Ok(()),
    }
}

/// Whether the catalog can have such a topic.
fn acceptable(topic: &TopicImage) -> Result<(), CatalogError> {
    validate_name(&topic.name)?;
    let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
    if count > MAX_PARTITIONS {
        return Err(CatalogError::TooManyPartitions);
    }
    match topic.partitions.keys().copied().eq(0..count) && count > 0 {
        true => Ok(()),
        false => Err(CatalogError::PartitionCount),
    }
}

/// Configs of a topic whose own are not known, such that nothing is deleted that it may have kept.
fn careful_configs(topic: &str) -> ConfigMap {
    let configs: &[(&str, &str)] = match topic {
        CONSUMER_OFFSETS | "__transaction_state" => {
            &[("cleanup.policy", "compact"), ("segment.bytes", "104857600")]
        }
        _ => &[("retention.ms", "-1"), ("retention.bytes", "-1")],
    };
    configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServerProperties => write!(
                f,
                "server.properties: what it sets for all topics, such as log.retention.hours, is not known; give it to Ottla by \
                 --config or --set"
            ),
            Self::MetadataLog(fault) => write!(
                f,
                "topic configs: {fault}; topics are taken by the names of their folders, and keep their records for ever \
                 (retention.ms=-1) until told otherwise"
            ),
            Self::MetadataTail { end_offset, bytes } => {
                write!(
                    f,
                    "the last {bytes} bytes of the metadata log, an interrupted append at offset {end_offset}"
                )
            }
            Self::Config { topic, source } => write!(f, "a config of topic {topic}: {source}"),
            Self::BrokerConfig(source) => write!(f, "a dynamic config of the broker: {source}"),
            Self::Topic { name, source } => write!(f, "topic {name}: {source}"),
            Self::Elsewhere { name } => write!(f, "topic {name}: all its partitions are on other brokers"),
            Self::Partitions { topic, partitions } => {
                write!(
                    f,
                    "records of topic {topic}, partitions {partitions:?}: not in this directory, they begin empty"
                )
            }
            Self::Stray { path, topic_id: None } => write!(f, "{}: of no topic, left alone", path.display()),
            Self::Stray { path, topic_id: Some(id) } => {
                write!(f, "{}: of topic id {id}, which is no topic's, left alone", path.display())
            }
            Self::Transactions { aborted, coordinated } => {
                write!(f, "transactions: ")?;
                if *coordinated {
                    write!(
                        f,
                        "__transaction_state is kept as a topic; one that was open stays without an end; "
                    )?;
                }
                write!(f, "records of aborted ones ({aborted} partitions) are served even to read_committed")
            }
            Self::ShareGroups => write!(f, "share groups: __share_group_state is kept as a topic"),
            Self::Acls(count) => write!(f, "{count} access control entries"),
            Self::Credentials(count) => write!(f, "{count} SCRAM credentials"),
            Self::Quotas(count) => write!(f, "{count} client quotas"),
            Self::Tokens(count) => write!(f, "{count} delegation tokens"),
            Self::OtherConfigs(count) => {
                write!(f, "configs of {count} groups or client metrics subscriptions")
            }
        }
    }
}
