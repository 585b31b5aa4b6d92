//! What a metadata log says there is: a fold over its records. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::records::{ClientQuotaRecord, MetadataRecord};
use crate::config::ConfigMap;
use crate::uuid::Uuid;

/// `resource_type` of a topic's configs.
const TOPIC: i8 = 2;
/// `resource_type` of a broker's configs.
const BROKER: i8 = 4;
/// `leader` of a change that is none of the leader.
const SAME_LEADER: i32 = -2;

/// A cluster as its metadata log tells it.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Image {
    /// By id.
    pub topics: BTreeMap<Uuid, TopicImage>,
    /// Dynamic configs of brokers, by id; of all with the empty name.
    pub broker_configs: BTreeMap<String, ConfigMap>,
    /// Client metrics subscriptions and groups that have configs: type and name.
    pub other_configs: BTreeSet<(i8, String)>,
    /// Ids of access control entries.
    pub acls: BTreeSet<Uuid>,
    /// Users and mechanisms of credentials.
    pub credentials: BTreeSet<(String, i8)>,
    /// Limits of clients.
    pub quotas: BTreeSet<Quota>,
    /// Ids of delegation tokens.
    pub tokens: BTreeSet<String>,
    /// By name: configs may come before and after the topic's own record.
    topic_configs: BTreeMap<String, ConfigMap>,
    /// As it was before the transaction that is open.
    before: Option<Box<Image>>,
}

/// Whom a quota is for, as pairs of type and name, and its key.
type Quota = (Vec<(String, Option<String>)>, String);

/// A topic.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct TopicImage {
    /// Name.
    pub name: String,
    /// By number.
    pub partitions: BTreeMap<i32, PartitionImage>,
}

/// A partition.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct PartitionImage {
    /// Ids of the brokers that have it.
    pub replicas: Vec<i32>,
    /// The leader's epoch.
    pub leader_epoch: i32,
}

impl Image {
    /// The configs of a topic.
    pub fn configs_of(&self, topic: &TopicImage) -> ConfigMap {
        self.topic_configs.get(&topic.name).cloned().unwrap_or_default()
    }

    /// The image at the end of the log: a transaction that has not ended does not count.
    pub fn finish(mut self) -> Self {
        match self.before.take() {
            Some(before) => *before,
            None => self,
        }
    }

    /// Takes in the next record. What names a topic that there is not does nothing.
    pub fn apply(&mut self, record: MetadataRecord) {
        match record {
            MetadataRecord::Topic(topic) => {
                let image = TopicImage { name: topic.name.to_string(), ..TopicImage::default() };
                self.topics.insert(topic.topic_id, image);
            }
            MetadataRecord::RemoveTopic(removed) => {
                if let Some(topic) = self.topics.remove(&removed.topic_id) {
                    self.topic_configs.remove(&topic.name);
                }
            }
            MetadataRecord::Partition(partition) => {
                if let Some(topic) = self.topics.get_mut(&partition.topic_id) {
                    let leader_epoch = partition.leader_epoch;
                    let image = PartitionImage { replicas: partition.replicas, leader_epoch };
                    topic.partitions.insert(partition.partition_id, image);
                }
            }
            MetadataRecord::PartitionChange(change) => {
                let topic = self.topics.get_mut(&change.topic_id);
                if let Some(partition) =
                    topic.and_then(|topic| topic.partitions.get_mut(&change.partition_id))
                {
                    if change.leader != SAME_LEADER {
                        partition.leader_epoch = partition.leader_epoch.saturating_add(1);
                    }
                    if let Some(replicas) = change.replicas {
                        partition.replicas = replicas;
                    }
                }
            }
            MetadataRecord::Config(config) => {
                let resource = config.resource_name.to_string();
                let configs = match config.resource_type {
                    TOPIC => self.topic_configs.entry(resource).or_default(),
                    BROKER => self.broker_configs.entry(resource).or_default(),
                    other => {
                        self.other_configs.insert((other, resource));
                        return;
                    }
                };
                match config.value {
                    Some(value) => drop(configs.insert(config.name.to_string(), value.to_string())),
                    None => drop(configs.remove(&*config.name)),
                }
            }
            MetadataRecord::Acl(acl) => drop(self.acls.insert(acl.id)),
            MetadataRecord::RemoveAcl(acl) => drop(self.acls.remove(&acl.id)),
            MetadataRecord::Scram(user) => {
                self.credentials.insert((user.name.to_string(), user.mechanism));
            }
            MetadataRecord::RemoveScram(user) => {
                self.credentials.remove(&(user.name.to_string(), user.mechanism));
            }
            MetadataRecord::Quota(quota) => self.apply_quota(quota),
            MetadataRecord::Token(token) => drop(self.tokens.insert(token.token_id.to_string())),
            MetadataRecord::RemoveToken(token) => drop(self.tokens.remove(&*token.token_id)),
            MetadataRecord::Begin(_) => self.before = Some(Box::new(Self { before: None, ..self.clone() })),
            MetadataRecord::End(_) => self.before = None,
            MetadataRecord::Abort(_) => {
                if let Some(before) = self.before.take() {
                    *self = *before;
                }
            }
            MetadataRecord::Other(_) => {}
        }
    }

    fn apply_quota(&mut self, quota: ClientQuotaRecord) {
        let entity = |part: super::records::QuotaEntity| {
            (part.entity_type.to_string(), part.entity_name.map(|name| name.to_string()))
        };
        let named = (quota.entity.into_iter().map(entity).collect(), quota.key.to_string());
        if quota.remove {
            self.quotas.remove(&named);
        } else {
            self.quotas.insert(named);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::records::*;
    use super::*;

    const ID: Uuid = Uuid([7; 16]);

    fn image(records: impl IntoIterator<Item = MetadataRecord>) -> Image {
        let mut image = Image::default();
        records.into_iter().for_each(|record| image.apply(record));
        image.finish()
    }

    fn topic(topic_id: Uuid, name: &str) -> MetadataRecord {
        MetadataRecord::Topic(TopicRecord { topic_id, name: name.into() })
    }

    fn partition(partition_id: i32, leader_epoch: i32) -> MetadataRecord {
        let record = PartitionRecord {
            partition_id,
            leader_epoch,
            topic_id: ID,
            replicas: vec![1],
            ..Default::default()
        };
        MetadataRecord::Partition(record)
    }

    fn change(leader: i32) -> MetadataRecord {
        let record = PartitionChangeRecord { partition_id: 0, topic_id: ID, leader, ..Default::default() };
        MetadataRecord::PartitionChange(record)
    }

    fn config(resource_type: i8, resource: &str, name: &str, value: Option<&str>) -> MetadataRecord {
        MetadataRecord::Config(ConfigRecord {
            resource_type,
            resource_name: resource.into(),
            name: name.into(),
            value: value.map(Into::into),
        })
    }

    #[test]
    fn each_change_of_the_leader_is_an_epoch() {
        let image = image([topic(ID, "t"), partition(0, 4), change(-2), change(-1), change(1), change(1)]);
        assert_eq!(image.topics[&ID].partitions[&0].leader_epoch, 7);
        assert_eq!(image.topics[&ID].partitions[&0].replicas, [1]);
    }

    #[test]
    fn a_topic_takes_its_partitions_and_configs_with_it() {
        let made = [topic(ID, "t"), partition(0, 0), config(2, "t", "retention.ms", Some("5"))];
        let removed = MetadataRecord::RemoveTopic(RemoveTopicRecord { topic_id: ID });
        let again = image(made.clone().into_iter().chain([removed.clone()]));
        assert_eq!(again, Image::default());
        let id = Uuid([8; 16]);
        let image = image(made.into_iter().chain([removed, topic(id, "t")]));
        assert!(image.configs_of(&image.topics[&id]).is_empty() && image.topics[&id].partitions.is_empty());
    }

    #[test]
    fn a_config_lasts_until_it_is_null() {
        let image = image([
            topic(ID, "t"),
            config(2, "t", "retention.ms", Some("5")),
            config(2, "t", "segment.ms", Some("6")),
            config(2, "t", "retention.ms", None),
            config(4, "", "log.roll.ms", Some("7")),
            config(32, "group", "consumer.session.timeout.ms", Some("8")),
        ]);
        let configs = image.configs_of(&image.topics[&ID]);
        assert_eq!(configs.into_iter().collect::<Vec<_>>(), [("segment.ms".to_owned(), "6".to_owned())]);
        assert_eq!(image.broker_configs[""]["log.roll.ms"], "7");
        assert_eq!(image.other_configs.len(), 1);
    }

    #[test]
    fn a_transaction_counts_when_it_has_ended() {
        let begin = || MetadataRecord::Begin(BeginTransactionRecord {});
        let end = MetadataRecord::End(EndTransactionRecord {});
        let abort = MetadataRecord::Abort(AbortTransactionRecord {});
        let other = || topic(Uuid([9; 16]), "u");
        assert_eq!(image([topic(ID, "t"), begin(), other(), end]).topics.len(), 2);
        assert_eq!(image([topic(ID, "t"), begin(), other(), abort]).topics.len(), 1);
        assert_eq!(image([topic(ID, "t"), begin(), other()]).topics.len(), 1);
    }
}
