//! What runs, as readers see it: topics with their open partitions. A new view replaces the old one after each durable
//! change; who holds an old one keeps a consistent picture.

use std::collections::{BTreeMap, BTreeSet, HashMap};
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
#[derive(Clone, Debug)]
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
    /// The other topics that it reads as a queue, by name. As long as they stay what they are, this stays the same allocation.
    pub sources: Arc<[SourceTopic]>,
}

/// Another topic that a queue reads.
#[derive(Debug)]
pub struct SourceTopic {
    /// Name.
    pub name: Arc<str>,
    /// Id.
    pub id: Uuid,
    /// Partitions, by index.
    pub partitions: Vec<Arc<Partition>>,
}

impl Topic {
    /// Whether the topic belongs to the broker.
    pub fn is_internal(&self) -> bool {
        is_internal(&self.name)
    }

    /// Whether it is a queue that has that topic's records: it is its own, or another that it reads.
    pub fn reads(&self, topic_id: Uuid) -> bool {
        self.queue.is_some()
            && (self.id == topic_id || self.sources.iter().any(|source| source.id == topic_id))
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
    /// By topic, the names of the queues that read it beside their own.
    readers: HashMap<Uuid, Vec<Arc<str>>>,
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
        view.bind();
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
        view.bind();
        view
    }

    /// Finds the topics that queues read beside their own: never one of the broker's, nor by a pattern one that gets dead letters, in
    /// which those of this queue or of another that reads it would go round.
    fn bind(&mut self) {
        self.readers.clear();
        let is_bound = |topic: &&Arc<Topic>| {
            topic.queue.as_ref().is_some_and(|queue| !queue.source.is_empty()) || !topic.sources.is_empty()
        };
        let bound: Vec<_> = self.topics.values().filter(is_bound).cloned().collect();
        if bound.is_empty() {
            return;
        }
        let queues = || self.topics.values().filter_map(|topic| topic.queue.as_deref());
        let dead_letters: BTreeSet<_> =
            queues().filter_map(|queue| queue.dead_letter_queue.clone()).collect();
        for queue in bound {
            let is_read = |topic: &&Arc<Topic>| {
                let Some(config) = &queue.queue else { return false };
                let is_own =
                    topic.name == queue.name || config.dead_letter_queue.as_deref() == Some(&*topic.name);
                let is_named = || config.source.names().any(|name| *name == *topic.name);
                let is_matched =
                    || !dead_letters.contains(&*topic.name) && config.source.matches(&topic.name);
                !is_own && !topic.is_internal() && (is_named() || is_matched())
            };
            let sources: Vec<_> = self.topics.values().filter(is_read).cloned().collect();
            for source in &sources {
                self.readers.entry(source.id).or_default().push(Arc::clone(&queue.name));
            }
            let as_it_was = queue.sources.iter().map(|source| (source.id, source.partitions.len()));
            if !as_it_was.eq(sources.iter().map(|source| (source.id, source.partitions.len()))) {
                let source = |topic: Arc<Topic>| SourceTopic {
                    name: Arc::clone(&topic.name),
                    id: topic.id,
                    partitions: topic.partitions.clone(),
                };
                let sources = sources.into_iter().map(source).collect();
                self.insert(Topic { sources, ..Topic::clone(&queue) });
            }
        }
    }

    fn insert(&mut self, topic: Topic) {
        let topic = Arc::new(topic);
        self.by_id.insert(topic.id, Arc::clone(&topic));
        self.topics.insert(Arc::clone(&topic.name), topic);
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
        // Bound anew, once all changes are in.
        let sources = self.by_id.get(&topic.id).map(|before| Arc::clone(&before.sources)).unwrap_or_default();
        self.insert(Topic { name: Arc::clone(name), id: topic.id, configs, queue, partitions, sources });
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

    /// The queues that read a topic beside their own.
    pub fn readers(&self, topic_id: Uuid) -> impl Iterator<Item = &Arc<Topic>> {
        self.readers.get(&topic_id).into_iter().flatten().filter_map(|name| self.topic(name))
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
