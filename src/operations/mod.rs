//! What can be asked of queues, whoever asks: the operations that every door to them ends at.
//!
//! A queue is a topic with `ottla.queue.enable`, and the share group of the same name is its cursor: over the records of that topic,
//! and of those that it reads beside it (`ottla.queue.source`). A message is a record: sent, it
//! is appended; received, it is read where the lease engine ([`crate::queue`]) says. Which of the records that follow are to be
//! delayed, ordered or passed over, the engine is told by [`intake`] when they are first looked at.

mod breaker;
mod change;
mod dead_letters;
mod dedup;
mod desk;
mod history;
mod intake;
mod limits;
mod peek;
mod receive;
mod redrive;
mod send;
mod share_dead_letters;
mod stats;

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

pub use self::dead_letters::Letter;
use self::desk::Desk;
pub use self::history::{Attempt, AttemptEnd, consumer_name};
pub use self::limits::Admission;
pub use self::peek::{MessageState, Page, Peek, Peeked, Place};
pub use self::redrive::{Fate, Filter, Left, Sweep, Swept, Why};
pub use self::stats::QueueStats;
use crate::catalog::queue_config::QueueConfig;
use crate::catalog::{Catalog, CatalogError, Topic};
use crate::clock::{Clock, TimestampMs};
use crate::config::Config;
use crate::coordinator::CoordinatorError;
use crate::group::Groups;
use crate::log::LogError;
use crate::queue::{QueueError, QueueFailure, Queues, Settlement};
use crate::telemetry::Counter;
use crate::uuid::Uuid;

/// The way to all queues of a broker. Cheap to clone.
#[derive(Clone)]
pub struct QueueDoor(Arc<Inner>);

struct Inner {
    config: Arc<Config>,
    clock: Clock,
    catalog: Arc<Catalog>,
    queues: Arc<Queues>,
    groups: Arc<Groups>,
    stopping: CancellationToken,
    /// What is remembered of queues that somebody has used, by the id of their topic.
    desks: Mutex<HashMap<Uuid, Arc<Desk>>>,
    share_letters: Counter,
}

/// A queue as it is now.
#[derive(Clone, Debug)]
pub struct Queue {
    /// Its name, and its topic's.
    pub name: Arc<str>,
    /// Id of its topic.
    pub topic_id: Uuid,
    /// How many partitions it has.
    pub partitions: i32,
    /// Its settings.
    pub config: Arc<QueueConfig>,
    /// How long its topic keeps records, ms; -1 for ever.
    pub topic_retention_ms: i64,
}

/// A message to send.
#[derive(Clone, Default, Debug)]
pub struct Outgoing {
    /// The value of its record.
    pub body: Bytes,
    /// The key of its record: in a FIFO queue, its group.
    pub key: Option<Bytes>,
    /// Headers of its record; those of the fields below are added.
    pub headers: Vec<(String, Bytes)>,
    /// How long nobody gets it, ms; the queue's delay if `None`.
    pub delay_ms: Option<i64>,
    /// Whoever follows with the same id within the queue's window is not a message.
    pub dedup_id: Option<String>,
    /// Higher goes first.
    pub priority: Option<u8>,
    /// How long it may be received, ms from now.
    pub ttl_ms: Option<i64>,
}

/// A message that has been sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sent {
    /// Its id: of the first one, if it is a duplicate.
    pub message_id: String,
    /// Where it lies.
    pub partition: i32,
    /// Where it lies.
    pub offset: i64,
    /// Whether one with its deduplication id was there before.
    pub is_duplicate: bool,
}

/// What a receiver wants.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Messages at most.
    pub max: usize,
    /// How long they are its own, ms; the queue's visibility timeout if `None`.
    pub visibility_ms: Option<i64>,
    /// How long to wait for the first; the queue's if `None`.
    pub wait: Option<Duration>,
}

/// A message on loan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// What to settle it by.
    pub receipt: Receipt,
    /// Its id, the same at each delivery, in a dead letter queue too.
    pub message_id: String,
    /// The value of its record; empty if that is null.
    pub body: Bytes,
    /// The key of its record.
    pub key: Option<Bytes>,
    /// All headers of its record, in order. A null value is an empty one.
    pub headers: Vec<(String, Bytes)>,
    /// Timestamp of its record.
    pub sent_ms: TimestampMs,
    /// When it was received first, as far as this process remembers; else now.
    pub first_received_ms: TimestampMs,
    /// How often it has been received, before it was dead-lettered too, this time included.
    pub deliveries: u32,
    /// When its lease ends, unless it is spoken of: at one of these times, ms since the epoch.
    pub lease_ends_ms: RangeInclusive<TimestampMs>,
}

/// Names one delivery of a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Receipt {
    /// The queue, by its own topic: others may have the same record.
    pub queue_id: Uuid,
    /// The topic of its record: the queue's own, or another that it reads.
    pub topic_id: Uuid,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Which delivery in this queue.
    pub deliveries: u16,
}

impl Receipt {
    /// Where the record of its message lies.
    pub(crate) fn place(self) -> Place {
        let Self { topic_id, partition, offset, .. } = self;
        Place { topic_id, partition, offset }
    }
}

/// Messages of a queue, by what becomes of them next. Exact, and the same for all partitions together.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct QueueCounts {
    /// Somebody can have them now.
    pub ready: i64,
    /// Somebody has them.
    pub in_flight: i64,
    /// Nobody can have them yet.
    pub delayed: i64,
}

/// Why nothing is done with a queue.
#[derive(Debug, thiserror::Error)]
pub enum QueueRefusal {
    /// There is no queue of that name.
    #[error("there is no queue {0:?}")]
    Unknown(String),
    /// There is a topic of that name.
    #[error("there is a topic {0:?} already")]
    Exists(String),
    /// A name that no topic may have.
    #[error("{0}")]
    InvalidName(String),
    /// Settings that are refused.
    #[error("{0}")]
    InvalidConfig(String),
    /// As many messages are received and not settled as may be.
    #[error("too many messages are in flight")]
    Full,
    /// The broker cannot say now: it starts, or stops. Asked again, it can.
    #[error("{0}")]
    NotNow(CoordinatorError),
    /// It cannot be read.
    #[error(transparent)]
    Storage(#[from] LogError),
    /// It cannot be stored.
    #[error("{0}")]
    NotStored(Arc<LogError>),
    /// A change that cannot be stored.
    #[error(transparent)]
    Catalog(CatalogError),
}

/// Why a message is not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendRefusal {
    /// More bytes than the queue or its topic takes.
    #[error("the message has {bytes} bytes with its headers; at most {max} are taken")]
    TooLarge {
        /// Bytes of its body and headers, or of its batch.
        bytes: usize,
        /// `ottla.queue.max.message.bytes`, or the topic's `max.message.bytes`.
        max: usize,
    },
    /// What it asks for cannot be done here.
    #[error("{0}")]
    Invalid(String),
    /// `max.messages` or `max.bytes`, under `overflow=reject`.
    #[error("the queue is full")]
    Overflow,
    /// It cannot be stored.
    #[error("{0}")]
    Storage(Arc<LogError>),
}

impl SendRefusal {
    /// Whether the message is not there for certain.
    fn is_certain(&self) -> bool {
        match self {
            Self::TooLarge { .. } | Self::Invalid(_) | Self::Overflow => true,
            Self::Storage(_) => false,
        }
    }
}

/// Why a delivery is not settled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SettleRefusal {
    /// It is done, dead, or never was.
    #[error("the message is gone")]
    Gone,
    /// Somebody has got it since.
    #[error("the message was received again since")]
    TakenAgain,
    /// The receipt is another queue's.
    #[error("the receipt is of another queue")]
    OtherQueue,
}

impl From<CoordinatorError> for QueueRefusal {
    fn from(error: CoordinatorError) -> Self {
        Self::NotNow(error)
    }
}

impl From<QueueFailure> for QueueRefusal {
    fn from(failure: QueueFailure) -> Self {
        match failure {
            QueueFailure::Coordinator(error) => error.into(),
            // The window went between two looks, with its topic or to be made anew.
            QueueFailure::Queue(QueueError::Unknown | QueueError::TooManyRuns | QueueError::NotHeld(_)) => {
                Self::NotNow(CoordinatorError::Loading)
            }
        }
    }
}

impl QueueDoor {
    /// The way to the queues of a broker, whose parts these are.
    pub fn new(
        config: Arc<Config>,
        clock: Clock,
        catalog: Arc<Catalog>,
        queues: Arc<Queues>,
        groups: Arc<Groups>,
        stopping: CancellationToken,
    ) -> Self {
        let (desks, share_letters) = (Mutex::default(), Counter::default());
        Self(Arc::new(Inner { config, clock, catalog, queues, groups, stopping, desks, share_letters }))
    }

    /// The queue of that name.
    pub fn queue(&self, name: &str) -> Option<Queue> {
        queue_of(&*self.0.catalog.topic(name)?)
    }

    /// All queues, by name.
    pub fn queues(&self) -> Vec<Queue> {
        self.0.catalog.view().topics().filter_map(|topic| queue_of(topic)).collect()
    }

    /// Time as queues see it.
    pub fn now_ms(&self) -> TimestampMs {
        self.0.clock.now_ms()
    }

    /// Has the coordinator of queues run: it begins with the first one that is used.
    async fn start(&self) -> Result<(), QueueRefusal> {
        if !self.0.queues.is_started() {
            let state = self.0.catalog.share_group_state(&self.0.config).await;
            self.0.queues.start(&state.map_err(QueueRefusal::Catalog)?.partitions);
        }
        Ok(())
    }

    /// The topic of a queue, and its settings as they are now.
    fn topic(&self, name: &str) -> Result<(Arc<Topic>, Arc<QueueConfig>), QueueRefusal> {
        let unknown = || QueueRefusal::Unknown(name.to_owned());
        let topic = self.0.catalog.topic(name).ok_or_else(unknown)?;
        let config = topic.queue.clone().ok_or_else(unknown)?;
        Ok((topic, config))
    }

    /// What is remembered of a queue, made at its first use; that of queues that went is forgotten then.
    fn desk(&self, topic: &Arc<Topic>) -> Arc<Desk> {
        let mut desks = self.0.desks.lock();
        if let Some(desk) = desks.get(&topic.id).filter(|desk| desk.is_of(topic)) {
            return Arc::clone(desk);
        }
        desks.retain(|id, _| self.0.catalog.topic_by_id(*id).is_some());
        let desk = Arc::new(Desk::of(topic, desks.get(&topic.id).map(|before| &**before)));
        desks.insert(topic.id, Arc::clone(&desk));
        desk
    }

    /// Settles deliveries, each on its own, and returns when that is durable.
    ///
    /// # Errors
    /// Of all of them: no such queue, or one that cannot say now; then some may have been settled.
    pub async fn settle(
        &self,
        name: &str,
        what: Vec<(Receipt, Settlement)>,
    ) -> Result<Vec<Result<(), SettleRefusal>>, QueueRefusal> {
        let (topic, config) = self.topic(name)?;
        self.settle_at(&self.desk(&topic), &config, what).await
    }

    /// How many messages there are. Looks at all that nobody has looked at yet.
    ///
    /// # Errors
    /// No such queue, or one that cannot say now.
    pub async fn counts(&self, name: &str) -> Result<QueueCounts, QueueRefusal> {
        Ok(self.stats(name).await?.counts)
    }

    /// Drops all messages that have been sent, also those that are delayed or in flight, and forgets their deduplication ids.
    ///
    /// # Errors
    /// No such queue, or one that cannot say now.
    pub async fn purge(&self, name: &str) -> Result<(), QueueRefusal> {
        let (topic, _) = self.topic(name)?;
        self.start().await?;
        let desk = self.desk(&topic);
        for station in &desk.stations {
            station.dedup.lock().await.clear();
            match station.purge(self).await {
                Err(error) if !desk.is_gone(station, &error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

fn queue_of(topic: &Topic) -> Option<Queue> {
    Some(Queue {
        name: Arc::clone(&topic.name),
        topic_id: topic.id,
        partitions: topic.partitions.len() as i32,
        config: topic.queue.clone()?,
        topic_retention_ms: topic.partition(0)?.config().retention_ms,
    })
}
