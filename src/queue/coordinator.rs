//! The queues as doors know them: each event asked, and its own reply given.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Ack, Died, Event, OfTopic, OfWindow, Picked, Progress, QueueError, QueueEvent, QueueKey, QueueShard,
    Receive, Received, Reply, Settle, SettleError, Standing, Taken, Terms, Wish,
};
use crate::clock::Clock;
use crate::coordinator::{Coordinator, CoordinatorError, expect_reply};
use crate::log::Partition;
use crate::uuid::Uuid;

/// Why a request to a queue fails.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum QueueFailure {
    /// The queue refuses.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// Its coordinator does not answer.
    #[error(transparent)]
    Coordinator(#[from] CoordinatorError),
}

/// All queues of this broker.
pub struct Queues {
    coordinator: Coordinator<QueueShard>,
    /// How many shards there are.
    shards: watch::Sender<usize>,
}

impl Queues {
    /// No queues yet; [`Queues::start`] brings them. They end at `stop`.
    pub fn new(clock: Clock, stop: CancellationToken) -> Self {
        let coordinator = Coordinator::new(clock, stop, |_shards| QueueShard::new());
        Self { coordinator, shards: watch::Sender::new(0) }
    }

    /// Serves the queues that these partitions of `__share_group_state` hold.
    pub fn start(&self, partitions: &[Arc<Partition>]) {
        self.coordinator.start(partitions);
        self.shards.send_if_modified(|shards| {
            let before = std::mem::replace(shards, self.coordinator.shards());
            *shards != before
        });
    }

    /// How many shards there are, and when that changes: 0 before the start.
    pub fn shards(&self) -> watch::Receiver<usize> {
        self.shards.subscribe()
    }

    /// Whether [`Queues::start`] has been called: before, there is nothing that could be known.
    pub fn is_started(&self) -> bool {
        self.coordinator.is_started()
    }

    async fn ask(&self, key: &QueueKey, event: QueueEvent) -> Result<Reply, CoordinatorError> {
        self.coordinator.ask(&key.text(), Event::One(key.clone(), event)).await
    }

    async fn ask_all(&self, event: impl Fn() -> Event) -> Result<(), QueueFailure> {
        for reply in self.coordinator.ask_all(event).await? {
            expect_reply!(reply, Done)?;
        }
        Ok(())
    }

    /// Makes a window that begins at `start`, unless there is one.
    ///
    /// # Errors
    /// Of the coordinator.
    pub async fn initialise(
        &self,
        key: &QueueKey,
        start: i64,
        leader_epoch: i32,
    ) -> Result<(), QueueFailure> {
        Ok(expect_reply!(self.ask(key, QueueEvent::Initialise { start, leader_epoch }).await?, Done)?)
    }

    /// Hands out what can be. Does not wait for the disk: at worst a restart forgets that it was done.
    ///
    /// # Errors
    /// Of the queue, or of its coordinator.
    pub async fn take(&self, key: &QueueKey, wish: Wish) -> Result<Taken, QueueFailure> {
        Ok(expect_reply!(self.ask(key, QueueEvent::Take(wish)).await?, Taken)?)
    }

    /// Carries out a member's verdicts, all or none, and returns when that is durable.
    ///
    /// # Errors
    /// Of the queue, or of its coordinator.
    pub async fn acknowledge(
        &self,
        key: &QueueKey,
        member: &Arc<str>,
        acks: Vec<Ack>,
        terms: Terms,
    ) -> Result<(), QueueFailure> {
        let event = QueueEvent::Acknowledge { member: Arc::clone(member), acks, terms };
        Ok(expect_reply!(self.ask(key, event).await?, Done)?)
    }

    /// Hands out records of a queue, one by one. Does not wait for the disk, as [`Queues::take`].
    ///
    /// # Errors
    /// Of the queue, or of its coordinator.
    pub async fn receive(&self, key: &QueueKey, wanted: Receive) -> Result<Received, QueueFailure> {
        Ok(expect_reply!(self.ask(key, QueueEvent::Receive(wanted)).await?, Received)?)
    }

    /// Does what holders of receipts say, each on its own, and returns when that is durable: the answers are in their order.
    ///
    /// # Errors
    /// Of the queue, or of its coordinator: then nothing is known of any.
    pub async fn settle(
        &self,
        key: &QueueKey,
        what: Vec<Settle>,
    ) -> Result<Vec<Result<(), SettleError>>, QueueFailure> {
        Ok(expect_reply!(self.ask(key, QueueEvent::Settle(what)).await?, Settled)?)
    }

    /// Does what who has seen records says, each on its own, and returns when that is durable: the answers are in their order.
    ///
    /// # Errors
    /// Of the queue, or of its coordinator: then nothing is known of any.
    pub async fn pick(
        &self,
        key: &QueueKey,
        what: Vec<Picked>,
    ) -> Result<Vec<Result<(), SettleError>>, QueueFailure> {
        Ok(expect_reply!(self.ask(key, QueueEvent::Pick(what)).await?, Settled)?)
    }

    /// Hands dead records to whoever moves them, for `lease_ms`.
    ///
    /// # Errors
    /// Of the queue, or of its coordinator.
    pub async fn take_dead(
        &self,
        key: &QueueKey,
        max_records: i64,
        lease_ms: i64,
    ) -> Result<Vec<Died>, QueueFailure> {
        Ok(expect_reply!(self.ask(key, QueueEvent::TakeDead { max_records, lease_ms }).await?, Dead)?)
    }

    /// Returns when there are dead records that nobody moves, or when another waits for that.
    ///
    /// # Errors
    /// Of the queue, or of its coordinator.
    pub async fn await_dead_in(&self, key: &QueueKey) -> Result<(), QueueFailure> {
        Ok(expect_reply!(self.ask(key, QueueEvent::AwaitDead).await?, Done)?)
    }

    /// Returns when something of a shard has died that nobody moves: the windows in which. Only the last who asks is told.
    ///
    /// # Errors
    /// Of the coordinator: then all that is dead is told anew.
    pub async fn await_dead(&self, shard: usize) -> Result<Vec<QueueKey>, CoordinatorError> {
        Ok(expect_reply!(self.coordinator.ask_shard(shard, Event::AwaitDead).await?, Died))
    }

    /// Archives all below an offset, and returns when that is durable.
    ///
    /// # Errors
    /// Of the queue, or of its coordinator.
    pub async fn purge(
        &self,
        key: &QueueKey,
        offset_end_exclusive: i64,
        leader_epoch: i32,
    ) -> Result<(), QueueFailure> {
        let event = QueueEvent::Purge { offset_end_exclusive, leader_epoch };
        Ok(expect_reply!(self.ask(key, event).await?, Done)?)
    }

    /// Returns when there may be something that was not there at `changes`, or when the member watches anew.
    ///
    /// # Errors
    /// Of the coordinator.
    pub async fn watch(&self, key: QueueKey, member: Arc<str>, changes: u64) -> Result<(), QueueFailure> {
        Ok(expect_reply!(self.ask(&key, QueueEvent::Watch { member, changes }).await?, Done)?)
    }

    /// How far a group has come in a partition; `None` if nothing was fetched yet.
    ///
    /// # Errors
    /// Of the coordinator.
    pub async fn describe(&self, key: &QueueKey) -> Result<Option<Progress>, CoordinatorError> {
        // Before the first member of all has come.
        if !self.is_started() {
            return Ok(None);
        }
        Ok(expect_reply!(self.ask(key, QueueEvent::Describe).await?, Described))
    }

    /// What is not done from `from` on, in the order of offsets: at most `max` records. Nothing is handed out.
    ///
    /// # Errors
    /// Of the queue, or of its coordinator.
    pub async fn inspect(
        &self,
        key: &QueueKey,
        from: i64,
        max: usize,
    ) -> Result<Vec<Standing>, QueueFailure> {
        Ok(expect_reply!(self.ask(key, QueueEvent::Inspect { from, max }).await?, Inspected)?)
    }

    /// Begins anew at `start`.
    ///
    /// # Errors
    /// Of the coordinator.
    pub async fn reset(&self, key: &QueueKey, start: i64, leader_epoch: i32) -> Result<(), QueueFailure> {
        Ok(expect_reply!(self.ask(key, QueueEvent::Reset { start, leader_epoch }).await?, Done)?)
    }

    /// Begins anew at `cut` or before, unless another has done so since the window had `seen_epoch`.
    ///
    /// # Errors
    /// Of the coordinator.
    pub async fn go_back(
        &self,
        key: &QueueKey,
        cut: i64,
        seen_epoch: i32,
        leader_epoch: i32,
    ) -> Result<(), QueueFailure> {
        let event = QueueEvent::GoBack { cut, seen_epoch, leader_epoch };
        Ok(expect_reply!(self.ask(key, event).await?, Done)?)
    }

    /// All partitions that a group has got something of.
    ///
    /// # Errors
    /// Of the coordinator.
    pub async fn list(&self, group: &Arc<str>) -> Result<Vec<(QueueKey, Progress)>, CoordinatorError> {
        let mut all = Vec::new();
        for reply in self.coordinator.ask_all(|| Event::List(Arc::clone(group))).await? {
            all.extend(expect_reply!(reply, Listed));
        }
        Ok(all)
    }

    /// Gives back all that a member has.
    ///
    /// # Errors
    /// Of the coordinator.
    pub async fn release(&self, group: &Arc<str>, member: &Arc<str>) -> Result<(), QueueFailure> {
        self.ask_all(|| Event::Release { group: Arc::clone(group), member: Arc::clone(member) }).await
    }

    /// Forgets what a group has got of topics: where that is so of the topic's id, and of whether a queue of its name has read it.
    ///
    /// # Errors
    /// Of a coordinator: the others have done so.
    pub async fn forget(
        &self,
        group: &Arc<str>,
        of: impl Fn(Uuid, bool) -> bool + Send + Sync + 'static,
    ) -> Result<(), QueueFailure> {
        let of: OfWindow = Arc::new(of);
        self.ask_all(|| Event::Forget { group: Arc::clone(group), of: Arc::clone(&of) }).await
    }

    /// Forgets what groups have got of topics that do not exist.
    ///
    /// # Errors
    /// Of the coordinator.
    pub async fn drop_topics(&self, exists: OfTopic) -> Result<(), QueueFailure> {
        self.ask_all(|| Event::Drop(Arc::clone(&exists))).await
    }
}
