//! Queues made, configured and deleted: what an admin client would do to their topics, by the same rules.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::{Queue, QueueDoor, QueueRefusal};
use crate::catalog::queue_config::{self, QueueConfig};
use crate::catalog::state::{NewTopic, SHARE_GROUP_STATE};
use crate::catalog::topic_config::{self, ConfigOp, Inherited, InvalidConfig, OpKind};
use crate::catalog::{CatalogError, Topic};

/// The topic config that bounds a batch.
const MAX_BATCH_BYTES: &str = "max.message.bytes";

/// What a batch of one message has at most beside it: its own header, and headers that no limit of messages counts.
const AROUND_A_MESSAGE_BYTES: i64 = 16 << 10;

/// How long a coordinator is left alone that could not forget a queue.
const FORGET_PAUSE: Duration = Duration::from_secs(1);

/// Partitions of a queue, unless told otherwise: order and depth are then those of one log.
const PARTITIONS: i32 = 1;

impl QueueDoor {
    /// Makes a queue and its topic. `configs` are the topic's.
    ///
    /// # Errors
    /// A topic of the name, queue or not; a name or configs that are refused; what storing it gives.
    pub async fn create(
        &self,
        name: &str,
        partitions: Option<i32>,
        configs: BTreeMap<String, String>,
    ) -> Result<Queue, QueueRefusal> {
        let mut configs = configs;
        configs.insert(queue_config::ENABLE.to_owned(), "true".to_owned());
        let view = self.0.catalog.view();
        if !configs.contains_key(MAX_BATCH_BYTES)
            && let Some(queue) = QueueConfig::of(&configs, &view.inherited(&self.0.config))
        {
            // The largest message goes into one batch, with its headers.
            let bytes = queue.max_message_bytes + AROUND_A_MESSAGE_BYTES;
            configs.insert(MAX_BATCH_BYTES.to_owned(), bytes.to_string());
        }
        topic_config::validate(&configs, &view.inherited(&self.0.config)).map_err(invalid)?;
        let partitions = partitions.unwrap_or(PARTITIONS);
        let topic = NewTopic { name: name.to_owned(), partitions, configs };
        let created = self.0.catalog.change(move |batch| {
            let change = batch.state().create_topic(&topic)?;
            batch.push(change);
            Ok::<_, CatalogError>(())
        });
        created.await.and_then(|created| created).map_err(|error| refusal(name, error))?;
        self.queue(name).ok_or_else(|| QueueRefusal::Unknown(name.to_owned()))
    }

    /// Changes configs of a queue's topic; `None` takes one back to its default. All or none.
    ///
    /// # Errors
    /// No such queue; configs that are refused; what storing them gives.
    pub async fn configure(
        &self,
        name: &str,
        changes: Vec<(String, Option<String>)>,
    ) -> Result<Queue, QueueRefusal> {
        let (topic, _) = self.topic(name)?;
        let (config, node, id) = (self.0.config.clone(), self.0.config.node_id.to_string(), topic.id);
        let op = |(name, value): (String, Option<String>)| {
            let kind = if value.is_some() { OpKind::Set } else { OpKind::Delete };
            ConfigOp { name, kind, value }
        };
        let ops: Vec<_> = changes.into_iter().map(op).collect();
        let changed = self.0.catalog.change(move |batch| {
            let name = batch.state().name_of(id).cloned().ok_or(CatalogError::UnknownTopic)?;
            let current = batch.state().topic(&name).ok_or(CatalogError::UnknownTopic)?;
            let configs = topic_config::apply_ops(&current.configs, &ops)?;
            let (of_node, of_all) = (batch.state().broker_configs(&node), batch.state().broker_configs(""));
            let inherited =
                Inherited { dynamic_node: &of_node, dynamic_default: &of_all, fixed: config.explicit() };
            topic_config::validate(&configs, &inherited)?;
            let change = batch.state().configure_topic(&name, configs)?;
            batch.push(change);
            Ok::<_, CatalogError>(())
        });
        changed.await.and_then(|changed| changed).map_err(|error| refusal(name, error))?;
        self.queue(name).ok_or_else(|| QueueRefusal::Unknown(name.to_owned()))
    }

    /// Deletes a queue with its topic, and all that groups have of it.
    ///
    /// # Errors
    /// No such queue; what storing that gives.
    pub async fn delete(&self, name: &str) -> Result<(), QueueRefusal> {
        let (topic, _) = self.topic(name)?;
        if !self.0.config.delete_topic_enable {
            return Err(QueueRefusal::Catalog(CatalogError::DeletionDisabled));
        }
        let id = topic.id;
        let deleted = self.0.catalog.change(move |batch| {
            let change = batch.state().delete_topic(id)?;
            batch.push(change);
            Ok::<_, CatalogError>(())
        });
        deleted.await.and_then(|deleted| deleted).map_err(|error| refusal(name, error))?;
        self.0.desks.lock().remove(&id);
        self.forget_deleted(&[topic]).await;
        Ok(())
    }

    /// Has groups forget what they have of topics that were deleted, and queues that were among these what they have of any topic,
    /// also of those that they read no more; a share group of the queue's name keeps what it has of others.
    pub async fn forget_deleted(&self, topics: &[Arc<Topic>]) {
        for queue in topics.iter().filter(|topic| topic.queue.is_some()) {
            if let Err(error) = self.forget_queue(queue).await {
                warn!(queue = &*queue.name, %error, "a deleted queue's places in topics are forgotten later");
                let (door, queue) = (self.clone(), Arc::clone(queue));
                tokio::spawn(async move { door.forget_queue_later(&queue).await });
            }
        }
        if let Err(error) = self.0.groups.drop_offsets(self.0.catalog.topic_exists()).await {
            // The offsets are of topics whose ids are gone: no group will be given them.
            warn!(%error, "offsets of deleted topics are kept until they expire");
        }
        if let Err(error) = self.0.queues.drop_topics(self.0.catalog.topic_id_exists()).await {
            warn!(%error, "what share groups have of deleted topics is kept until the next start");
        }
    }
}

impl QueueDoor {
    async fn forget_queue(&self, deleted: &Arc<Topic>) -> Result<(), QueueRefusal> {
        // Before the first of all queues was ever used, there is nothing.
        if self.0.catalog.topic(SHARE_GROUP_STATE).is_some() {
            self.start().await?;
            let (catalog, queue) = (Arc::clone(&self.0.catalog), Arc::clone(deleted));
            let is_over = move |topic, is_queues| {
                // Somebody may have made it anew by then, and begun to use it.
                let is_anew = catalog.topic(&queue.name).is_some_and(|anew| anew.reads(topic));
                // What was written before it was noted whose it is, and the queue reads no more, is kept: a share group that forgets its
                // place may miss records, while a later queue of this name only goes on where this one was.
                (is_queues || queue.reads(topic)) && !is_anew
            };
            self.0.queues.forget(&deleted.name, is_over).await?;
        }
        Ok(())
    }

    async fn forget_queue_later(&self, deleted: &Arc<Topic>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(FORGET_PAUSE) => {}
                () = self.0.stopping.cancelled() => return,
            }
            if self.forget_queue(deleted).await.is_ok() {
                return;
            }
        }
    }
}

fn invalid(error: InvalidConfig) -> QueueRefusal {
    QueueRefusal::InvalidConfig(error.to_string())
}

fn refusal(name: &str, error: CatalogError) -> QueueRefusal {
    match error {
        CatalogError::TopicExists(name) => QueueRefusal::Exists(name),
        CatalogError::TopicName(_) | CatalogError::Collision { .. } | CatalogError::Reserved(_) => {
            QueueRefusal::InvalidName(error.to_string())
        }
        CatalogError::UnknownTopic | CatalogError::UnknownTopicId => QueueRefusal::Unknown(name.to_owned()),
        CatalogError::Config(error) => invalid(error),
        CatalogError::PartitionCount | CatalogError::TooManyPartitions => {
            QueueRefusal::InvalidConfig(error.to_string())
        }
        error => QueueRefusal::Catalog(error),
    }
}
