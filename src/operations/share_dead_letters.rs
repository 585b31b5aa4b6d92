//! Dead letters of share groups that are no queue's. KIP-1191: what was rejected or delivered too often is written to the topic that
//! the group's config names, with what is known of its end in the headers that Kafka gives it.
//!
//! A record is done when its letter is durable, so that a crash can double letters and not lose them. Where Kafka writes none (no
//! such topic, or one that is not for dead letters), it is done all the same, and a line of the log says so. While the group names
//! no topic, what is dead waits: without one only what a queue has left can be, or what died before the group lost its topic.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::desk::{READ_BYTES, Read, read, unreadable};
use super::send::new_batch;
use super::{QueueDoor, QueueRefusal};
use crate::catalog::group_config::{self, INTERNAL_PREFIX, ShareConfig};
use crate::catalog::state::NewTopic;
use crate::catalog::topic_config::DEAD_LETTERS_ALLOWED;
use crate::catalog::{CatalogError, Topic};
use crate::clock::TimestampMs;
use crate::log::{LogError, Partition};
use crate::queue::{Cause, Died, QueueKey};
use crate::record::{HEADER_BYTES, Record};

/// Records that are moved at a time.
const MOVED_TOGETHER: i64 = 100;

/// How long a mover has for them, ms.
const MOVE_MS: i64 = 30_000;

/// Before what could not be written is tried again, and a coordinator that does not answer asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// What Kafka says of a record that a member has rejected.
const REJECTED: &str = "Offset rejected by client.";

/// What Kafka says of a record that was delivered too often.
const WORN_OUT: &str = "Offset delivery count exceeded the threshold.";

/// What is said of a record that a queue of the group's name had too many of, which Kafka does not know.
const GAVE_WAY: &str = "Offset gave way to later ones in a full queue.";

/// Why a group's dead letters are written nowhere.
#[derive(Debug, thiserror::Error)]
enum NoPlace {
    #[error("its name starts with __")]
    Internal,
    #[error("it has no errors.deadletterqueue.group.enable")]
    NotAllowed,
    #[error("it does not exist, and errors.deadletterqueue.auto.create.topics.enable is off")]
    Missing,
    #[error("its name does not start with errors.deadletterqueue.topic.name.prefix, {0:?}")]
    Prefix(String),
    #[error("it cannot be made: {0}")]
    NotMade(CatalogError),
}

/// What has become of what is dead in a window.
enum Buried {
    /// It is done.
    All,
    /// It stays as it is: it is a queue's, or there is no topic for it.
    Left,
}

/// A dead letter to be.
struct Letter {
    key: Option<Bytes>,
    value: Option<Bytes>,
    headers: Vec<(String, Option<Bytes>)>,
}

impl QueueDoor {
    /// Dead letters that have been written for share groups that are no queue's.
    pub fn share_letters(&self) -> u64 {
        self.0.share_letters.value()
    }

    /// Has what dies in share groups written to their topics for as long as the broker runs, also what died before.
    pub fn move_dead_of_share_groups(&self) {
        let door = self.clone();
        tokio::spawn(async move {
            let mut shards = door.0.queues.shards();
            let mut tended = 0;
            loop {
                let there = *shards.borrow_and_update();
                for shard in tended..there {
                    let door = door.clone();
                    tokio::spawn(async move { door.tend(shard).await });
                }
                tended = tended.max(there);
                tokio::select! {
                    () = door.0.stopping.cancelled() => return,
                    changed = shards.changed() => if changed.is_err() { return },
                }
            }
        });
    }

    /// What dies in the windows of one shard.
    async fn tend(&self, shard: usize) {
        let (mut failed, mut left) = (BTreeSet::new(), BTreeSet::new());
        let mut catalog = self.0.catalog.changes();
        let mut dying = pin!(self.0.queues.await_dead(shard));
        let mut again_at = Instant::now();
        loop {
            let keys = tokio::select! {
                () = self.0.stopping.cancelled() => return,
                died = &mut dying => {
                    dying.set(self.0.queues.await_dead(shard));
                    match died {
                        Ok(keys) => keys.into_iter().collect(),
                        Err(error) => {
                            debug!(shard, %error, "no dead letters just now");
                            tokio::time::sleep(PAUSE).await;
                            continue;
                        }
                    }
                }
                () = sleep_until(again_at), if !failed.is_empty() => std::mem::take(&mut failed),
                // A queue may have been turned off, or read what it did not, or a group have a topic.
                Ok(()) = catalog.changed(), if !left.is_empty() => std::mem::take(&mut left),
            };
            for key in keys {
                match self.bury(&key).await {
                    Ok(Buried::All) => {}
                    Ok(Buried::Left) => drop(left.insert(key)),
                    Err(error) => {
                        let (group, topic, partition) = (&*key.group, key.topic_id, key.partition);
                        warn!(group, %topic, partition, %error, "dead letters are kept until they can be written");
                        if failed.is_empty() {
                            again_at = Instant::now() + PAUSE;
                        }
                        failed.insert(key);
                    }
                }
            }
        }
    }

    /// Writes the letters of all that is dead in a window, unless that is a queue's.
    async fn bury(&self, key: &QueueKey) -> Result<Buried, QueueRefusal> {
        // A window goes with its topic.
        let topic = self.0.catalog.topic_by_id(key.topic_id);
        let source = topic.as_ref().and_then(|topic| topic.partition(key.partition));
        let Some(source) = source else { return Ok(Buried::All) };
        if let Some(queue) = self.0.catalog.topic(&key.group).filter(|queue| queue.reads(key.topic_id)) {
            self.move_dead_of(&queue, key);
            return Ok(Buried::Left);
        }
        loop {
            let config = self.share_config(&key.group);
            // What a queue has left that was turned off, or in a topic that it reads no more, is kept until it reads that again.
            let Some(name) = config.dead_letter_topic.as_deref() else { return Ok(Buried::Left) };
            let dead = self.0.queues.take_dead(key, MOVED_TOGETHER, MOVE_MS).await?;
            if dead.is_empty() {
                return Ok(Buried::All);
            }
            match self.place(name).await? {
                Ok(place) => self.write(key, source, &config, &place, &dead).await?,
                Err(why) => {
                    let (group, topic, partition, records) =
                        (&*key.group, source.topic(), source.index(), dead.len());
                    warn!(group, topic, partition, records, place = name, %why, "dead letters are not written");
                }
            }
            self.0.queues.settle(key, dead.iter().map(Died::settle).collect()).await?;
        }
    }

    fn share_config(&self, group: &str) -> ShareConfig {
        let view = self.0.catalog.view();
        group_config::effective(view.group_configs.get(group).map(|configs| &**configs), &self.0.config)
    }

    /// The topic for a group's dead letters, made if it may be.
    async fn place(&self, name: &str) -> Result<Result<Arc<Topic>, NoPlace>, QueueRefusal> {
        let prefix = &self.0.config.errors_dead_letter_queue_topic_name_prefix;
        let may_be_made = self.0.config.errors_dead_letter_queue_auto_create_topics_enable;
        let found = self.0.catalog.topic(name);
        // As in Kafka, what is configured may have been changed since it was checked.
        let refused = match &found {
            _ if name.starts_with(INTERNAL_PREFIX) => Some(NoPlace::Internal),
            Some(topic) if !allows_dead_letters(topic) => Some(NoPlace::NotAllowed),
            None if !may_be_made => Some(NoPlace::Missing),
            _ if !name.starts_with(&**prefix) => Some(NoPlace::Prefix(prefix.clone())),
            _ => None,
        };
        match (refused, found) {
            (Some(refused), _) => Ok(Err(refused)),
            (None, Some(topic)) => Ok(Ok(topic)),
            (None, None) => self.make_place(name).await,
        }
    }

    async fn make_place(&self, name: &str) -> Result<Result<Arc<Topic>, NoPlace>, QueueRefusal> {
        let configs = [(DEAD_LETTERS_ALLOWED, "true"), ("message.timestamp.type", "CreateTime")];
        let configs = configs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let wanted = NewTopic { name: name.to_owned(), partitions: self.0.config.num_partitions, configs };
        let made = self.0.catalog.change(move |batch| match batch.state().create_topic(&wanted) {
            Ok(change) => {
                batch.push(change);
                Ok(())
            }
            Err(CatalogError::TopicExists(_)) => Ok(()),
            Err(error) => Err(error),
        });
        match made.await.map_err(QueueRefusal::Catalog)? {
            Ok(()) => Ok(self.0.catalog.topic(name).ok_or(NoPlace::Missing)),
            Err(error) => Ok(Err(NoPlace::NotMade(error))),
        }
    }

    /// Returns when the letters are durable.
    async fn write(
        &self,
        key: &QueueKey,
        source: &Arc<Partition>,
        config: &ShareConfig,
        place: &Topic,
        dead: &[Died],
    ) -> Result<(), QueueRefusal> {
        // A topic has at least one partition.
        let index = source.index() % i32::try_from(place.partitions.len()).unwrap_or(i32::MAX).max(1);
        let Some(target) = place.partition(index) else { return Ok(()) };
        let limit = u16::try_from(config.delivery_count_limit).unwrap_or(u16::MAX);
        let records = match config.dead_letters_copy_record {
            true => self.records_of(source, dead).await,
            false => Vec::new(),
        };
        let letter = |died: &Died| {
            let why = match died.cause {
                Cause::GaveWay => GAVE_WAY,
                Cause::Failed if died.deliveries >= limit => WORN_OUT,
                Cause::Failed => REJECTED,
            };
            let record = records.iter().find(|record| record.offset == died.offset);
            letter(&key.group, source, died, why, record)
        };
        target.room().await;
        let written = append(target, self.now_ms(), dead.iter().map(letter).collect())?;
        if let Some(end) = written {
            target.durable(end).await?;
        }
        self.0.share_letters.add(dead.len() as u64);
        debug!(group = &*key.group, place = &*place.name, letters = dead.len(), "dead letters written");
        Ok(())
    }

    /// The records at these offsets, as far as they can be read: the others' letters tell of them all the same.
    async fn records_of(&self, source: &Arc<Partition>, dead: &[Died]) -> Vec<Record> {
        let mut found = Vec::with_capacity(dead.len());
        let mut seen = Read::default();
        for Died { offset, .. } in dead {
            let record = async {
                if *offset >= seen.end {
                    seen = read(source, self, *offset, READ_BYTES).await?;
                }
                seen.record(*offset).map_err(|error| unreadable(source, *offset, error))
            };
            match record.await {
                Ok(record) => found.extend(record),
                Err(error) => {
                    let (topic, partition) = (source.topic(), source.index());
                    warn!(topic, partition, offset, %error, "a dead letter is without its record");
                }
            }
        }
        found
    }
}

fn allows_dead_letters(topic: &Topic) -> bool {
    topic.configs.get(DEAD_LETTERS_ALLOWED).is_some_and(|value| value.trim().eq_ignore_ascii_case("true"))
}

fn letter(group: &str, source: &Partition, died: &Died, why: &str, record: Option<&Record>) -> Letter {
    let known = [
        ("__dlq.errors.topic", source.topic().to_owned()),
        ("__dlq.errors.partition", source.index().to_string()),
        ("__dlq.errors.offset", died.offset.to_string()),
        ("__dlq.errors.group", group.to_owned()),
        ("__dlq.errors.delivery.count", died.deliveries.to_string()),
        ("__dlq.errors.message", why.to_owned()),
    ];
    let known = known.into_iter().map(|(name, value)| (name.to_owned(), Some(Bytes::from(value))));
    let own = record.into_iter().flat_map(|record| &record.headers);
    let own = own.map(|header| (String::from_utf8_lossy(&header.key).into_owned(), header.value.clone()));
    Letter {
        key: record.and_then(|record| record.key.clone()),
        value: record.and_then(|record| record.value.clone()),
        headers: known.chain(own).collect(),
    }
}

impl Letter {
    /// Without what it has of its record.
    fn told_of(&self) -> Self {
        let is_known = |header: &&(String, _)| header.0.starts_with("__dlq.errors.");
        Self { key: None, value: None, headers: self.headers.iter().filter(is_known).cloned().collect() }
    }

    fn push_to(&self, batch: &mut crate::record::BatchBuilder, now_ms: TimestampMs) {
        let headers: Vec<_> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        batch.push(now_ms, self.key.as_deref(), self.value.as_deref(), &headers);
    }

    /// Bytes of a batch of it alone, uncompressed.
    fn bytes(&self, now_ms: TimestampMs) -> usize {
        let mut batch = crate::record::BatchBuilder::new();
        self.push_to(&mut batch, now_ms);
        HEADER_BYTES + batch.block_bytes()
    }
}

/// Appends letters in batches as large as the topic takes, and says where they end. One that is too large only tells of its record;
/// one without a key is no record of a compacted topic.
fn append(target: &Partition, now_ms: TimestampMs, letters: Vec<Letter>) -> Result<Option<i64>, LogError> {
    let config = target.config();
    let mut end = None;
    let mut batch = new_batch(config.compression);
    for letter in letters {
        let fits = letter.bytes(now_ms) <= config.max_message_bytes;
        let letter = if fits { letter } else { letter.told_of() };
        if config.compact && letter.key.is_none() {
            warn!(topic = target.topic(), "a dead letter without a key is not written to a compacted topic");
            continue;
        }
        let bytes = letter.bytes(now_ms);
        if !batch.is_empty() && batch.block_bytes() + bytes > config.max_message_bytes {
            let full = std::mem::replace(&mut batch, new_batch(config.compression));
            end = Some(target.append(full.build_valid())?.last_offset + 1);
        }
        letter.push_to(&mut batch, now_ms);
    }
    if !batch.is_empty() {
        end = Some(target.append(batch.build_valid())?.last_offset + 1);
    }
    Ok(end)
}
