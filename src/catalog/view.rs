//! What runs, as readers see it: topics with their open partitions. A new view replaces the old one after each durable
//! change; who holds an old one keeps a consistent picture.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tracing::warn;

use super::broker_config;
use super::queue_config::QueueConfig;
use super::state::{CatalogState, Change, INTERNAL_TOPICS};
use super::topic_config::{Inherited, effective};
use crate::config::{Config, ConfigMap};
use crate::log::{FlushMode, LogConfig, LogDirectories, Partition};
use crate::uuid::Uuid;

/// A topic and its partitions.
#[derive(Debug)]
pub struct Topic {
    /// Name.
    pub name: Arc<str>,
    /// Id.
    pub id: Uuid,
    /// Overrides of the broker's defaults.
    pub configs: ConfigMap,
    /// What it goes by as a queue, if it is one.
    pub queue: Option<Arc<QueueConfig>>,
    /// Partitions, by index.
    pub partitions: Vec<Arc<Partition>>,
}

impl Topic {
    /// Whether the topic belongs to the broker.
    pub fn is_internal(&self) -> bool {
        is_internal(&self.name)
    }

    /// The partition of that index.
    pub fn partition(&self, index: i32) -> Option<&Arc<Partition>> {
        self.partitions.get(usize::try_from(index).ok()?)
    }
}

/// Whether a topic of that name belongs to the broker.
pub fn is_internal(name: &str) -> bool {
    INTERNAL_TOPICS.contains(&name)
}

/// All topics, and the broker's dynamic configs.
#[derive(Clone, Default, Debug)]
pub struct View {
    topics: BTreeMap<Arc<str>, Arc<Topic>>,
    by_id: HashMap<Uuid, Arc<Topic>>,
    /// Dynamic configs of all nodes.
    pub broker_default_configs: ConfigMap,
    /// Dynamic configs of this node.
    pub broker_configs: ConfigMap,
    /// Configs of groups, by group; none of those without.
    pub group_configs: BTreeMap<String, Arc<ConfigMap>>,
}

impl View {
    /// The view of a state, with all partitions ready to be opened. Folders of topics that were deleted go.
    pub(super) fn of(state: &CatalogState, directories: &LogDirectories, config: &Config) -> Self {
        let mut view = Self::default();
        view.take_broker_configs(state, config);
        view.group_configs.clone_from(state.group_configs());
        for (name, topic) in state.topics() {
            view.put(name, state, directories, config, Vec::with_capacity(topic.partitions as usize));
        }
        view
    }

    /// The view after `changes`, which have led to `state`.
    pub(super) fn after(
        &self,
        changes: &[Change],
        state: &CatalogState,
        directories: &LogDirectories,
        config: &Config,
    ) -> Self {
        let mut view = self.clone();
        for change in changes {
            match change {
                Change::TopicCreated { topic_id, .. }
                | Change::PartitionsAdded { topic_id, .. }
                | Change::TopicConfigs { topic_id, .. } => {
                    // A topic made and deleted in one batch was never there.
                    if let Some(name) = state.name_of(*topic_id) {
                        let partitions = view.by_id.get(topic_id).map(|topic| topic.partitions.clone());
                        view.put(name, state, directories, config, partitions.unwrap_or_default());
                    }
                }
                Change::TopicDeleted { topic_id } => {
                    if let Some(topic) = view.by_id.remove(topic_id) {
                        // The name may already be another topic's.
                        if view.topics.get(&topic.name).is_some_and(|named| named.id == *topic_id) {
                            view.topics.remove(&topic.name);
                        }
                        for partition in &topic.partitions {
                            if let Err(error) = directories.delete(partition) {
                                warn!(%error, "folder of a deleted partition not removed; the next start will");
                            }
                        }
                    }
                }
                Change::BrokerConfigs { .. } => {
                    view.take_broker_configs(state, config);
                    view.clean(directories, config);
                    for topic in view.topics.values() {
                        reconfigure(topic, &view.inherited(config));
                    }
                }
                Change::GroupConfigs { .. } => view.group_configs.clone_from(state.group_configs()),
                Change::ProducerIds { .. }
                | Change::LeaderEpoch { .. }
                | Change::PartitionDirectories { .. }
                | Change::Snapshot => {}
            }
        }
        view
    }

    /// Puts a topic as `state` has it, keeping the partitions that are open.
    fn put(
        &mut self,
        name: &Arc<str>,
        state: &CatalogState,
        directories: &LogDirectories,
        config: &Config,
        mut partitions: Vec<Arc<Partition>>,
    ) {
        let Some(topic) = state.topic(name) else { return };
        let log_config = Arc::new(effective(&topic.configs, &self.inherited(config)));
        // No broker key gives a setting of queues: who changes those changes no queue.
        let queue = QueueConfig::of(&topic.configs, &self.inherited(config)).map(Arc::new);
        partitions.iter().for_each(|kept| kept.reconfigure(Arc::clone(&log_config)));
        for index in partitions.len() as i32..topic.partitions {
            let leader_epoch = topic.leader_epochs.get(&index).copied().unwrap_or_default();
            let home = topic.directories.get(index as usize).copied();
            let named = (&**name, topic.id, index);
            partitions.push(directories.partition(named, leader_epoch, Arc::clone(&log_config), home));
        }
        let configs = topic.configs.clone();
        let topic = Arc::new(Topic { name: Arc::clone(name), id: topic.id, configs, queue, partitions });
        self.by_id.insert(topic.id, Arc::clone(&topic));
        self.topics.insert(Arc::clone(name), topic);
    }

    fn take_broker_configs(&mut self, state: &CatalogState, config: &Config) {
        self.broker_default_configs = state.broker_configs("");
        self.broker_configs = state.broker_configs(&config.node_id.to_string());
    }

    /// Has the logs of all directories compacted as it is configured now: each by threads of its own.
    pub(super) fn clean(&self, directories: &LogDirectories, config: &Config) {
        let cleaner = broker_config::cleaner(&self.inherited(config), config.max_decompressed_batch_bytes);
        let share = cleaner.share_of(directories.all().len());
        directories.all().iter().for_each(|directory| directory.clean(share));
    }

    /// The levels that topics inherit configs from.
    pub fn inherited<'a>(&'a self, config: &'a Config) -> Inherited<'a> {
        Inherited {
            dynamic_node: &self.broker_configs,
            dynamic_default: &self.broker_default_configs,
            fixed: config.explicit(),
        }
    }

    /// The topic of that name.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }

    /// The topic of that id.
    pub fn topic_by_id(&self, id: Uuid) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics.values()
    }

    /// Topics from `name` on (inclusive), by name.
    pub fn topics_from(&self, name: &str) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics
            .range::<str, _>((std::ops::Bound::Included(name), std::ops::Bound::Unbounded))
            .map(|(_, t)| t)
    }

    /// The partitions of all topics.
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        self.topics.values().flat_map(|topic| topic.partitions.iter().cloned()).collect()
    }
}

fn reconfigure(topic: &Topic, inherited: &Inherited<'_>) {
    let config = Arc::new(effective(&topic.configs, inherited));
    topic.partitions.iter().for_each(|partition| partition.reconfigure(Arc::clone(&config)));
}

/// The log settings of a topic without any config, on a broker without any.
pub(super) fn default_log_config() -> LogConfig {
    let none = ConfigMap::new();
    effective(&none, &Inherited { dynamic_node: &none, dynamic_default: &none, fixed: &none })
}

/// The flush mode that the broker was started with.
pub fn inherited_flush(config: &Config) -> FlushMode {
    let none = ConfigMap::new();
    effective(&none, &Inherited { dynamic_node: &none, dynamic_default: &none, fixed: config.explicit() })
        .flush
}
