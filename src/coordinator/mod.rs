//! The runtime that all coordinators share: it feeds events to pure state machines, appends the records that they return to
//! an internal topic, and lets replies leave when those are durable.
//!
//! Every partition of the internal topic is a [`Shard`]: one task that owns one [`Machine`]. It takes all events that wait,
//! steps through them, appends their records together, and holds every reply (also of an event that wrote nothing, but may
//! have seen what another wrote) until all that was appended before it has reached the disk. If an append fails, the machine
//! is dropped and made anew from the log; nothing ever has to be undone.

pub mod records;
mod shard;
pub mod share_records;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

pub use records::{Record, RecordError};
use shard::{Asked, Shard};

use crate::clock::{Clock, TimestampMs};
use crate::log::Partition;

/// Events that may wait for one shard; who asks more waits to ask.
const MAILBOX_EVENTS: usize = 1024;

/// Longest that a request waits for a shard that replays its log, before the client is told to come back.
const LOAD_PATIENCE: std::time::Duration = std::time::Duration::from_millis(500);

/// Who asked, by the shard's own count. A machine gives it back with the reply, at once or later.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Ticket(pub u64);

/// What a step comes to.
#[derive(Debug)]
pub struct Effects<R, S = Record> {
    /// Records to append, already applied.
    pub records: Vec<S>,
    /// Replies that may leave when the records, and all before them, are durable.
    pub replies: Vec<(Ticket, R)>,
    /// Replies that wait for nothing but the append: what they say may be lost with the machine, and does no harm then.
    pub prompt: Vec<(Ticket, R)>,
}

impl<R, S> Default for Effects<R, S> {
    fn default() -> Self {
        Self { records: Vec::new(), replies: Vec::new(), prompt: Vec::new() }
    }
}

impl<R, S> Effects<R, S> {
    /// Adds a reply.
    pub fn reply(&mut self, to: Ticket, reply: R) {
        self.replies.push((to, reply));
    }

    /// Adds a reply that does not wait for the disk.
    pub fn reply_promptly(&mut self, to: Ticket, reply: R) {
        self.prompt.push((to, reply));
    }
}

/// A record of an internal topic.
pub trait Stored: Sized + Send + 'static {
    /// Its key and value.
    fn encode(&self) -> (Bytes, Option<Bytes>);

    /// Reads one; `None` if it is of a type that this program does not know.
    ///
    /// # Errors
    /// A record that is not what its type says.
    fn decode(key: Option<&Bytes>, value: Option<&Bytes>) -> Result<Option<Self>, RecordError>;
}

/// A pure state machine: no clock, no randomness, no I/O. What lasts changes only in [`Machine::apply`].
pub trait Machine: Send + 'static {
    /// What happens to it.
    type Event: Send + 'static;
    /// What whoever caused an event is told.
    type Reply: Send + 'static;
    /// What its internal topic holds.
    type Record: Stored;

    /// Decides what an event means, and applies its own records.
    fn step(
        &mut self,
        now: TimestampMs,
        from: Ticket,
        event: Self::Event,
        effects: &mut Effects<Self::Reply, Self::Record>,
    );

    /// Does what is due at `now`.
    fn tick(&mut self, now: TimestampMs, effects: &mut Effects<Self::Reply, Self::Record>);

    /// When [`Machine::tick`] must be called next.
    fn deadline(&self) -> Option<TimestampMs>;

    /// Takes in a record, live or at replay.
    fn apply(&mut self, now: TimestampMs, record: &Self::Record);

    /// About how many records [`Machine::snapshot`] gives.
    fn live_records(&self) -> usize;

    /// Records that make the same state from nothing.
    fn snapshot(&self) -> Vec<Self::Record>;

    /// A replay is over: what is counted from when something was heard of somebody is counted from `now`.
    fn replayed(&mut self, now: TimestampMs);
}

/// Why a coordinator does not answer. All are retriable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// It replays its log.
    #[error("the coordinator replays its log")]
    Loading,
    /// It is not here: its topic does not exist, or the broker stops.
    #[error("the coordinator is not here")]
    NotHere,
    /// What was decided could not be stored.
    #[error("the coordinator could not store what it decided")]
    NotStored,
}

/// Takes the kind of reply that belongs to an event: of the `Reply` that is in scope where it is used.
macro_rules! expect_reply {
    ($reply:expr, $kind:ident) => {
        match $reply {
            Reply::$kind(reply) => reply,
            other => unreachable!("{} is the reply to this event, not {other:?}", stringify!($kind)),
        }
    };
}
pub(crate) use expect_reply;

/// Makes an empty machine, one of so many.
type NewMachine<M> = dyn Fn(usize) -> M + Send + Sync;

/// The coordinator of one internal topic: a shard for each of its partitions.
pub struct Coordinator<M: Machine> {
    clock: Clock,
    stop: CancellationToken,
    new_machine: Arc<NewMachine<M>>,
    starting: Mutex<()>,
    shards: ArcSwapOption<Vec<Door<M>>>,
}

/// The way to a shard.
struct Door<M: Machine> {
    mailbox: mpsc::Sender<Asked<M>>,
    loaded: watch::Receiver<bool>,
    partition: Arc<Partition>,
}

impl<M: Machine> Coordinator<M> {
    /// A coordinator without a topic. Its shards end at `stop`.
    pub fn new(
        clock: Clock,
        stop: CancellationToken,
        new_machine: impl Fn(usize) -> M + Send + Sync + 'static,
    ) -> Self {
        Self {
            clock,
            stop,
            new_machine: Arc::new(new_machine),
            starting: Mutex::new(()),
            shards: ArcSwapOption::empty(),
        }
    }

    /// Starts a shard for each partition of the internal topic, unless it runs. A topic that was made anew replaces the one
    /// before. Must be called within a tokio runtime.
    pub fn start(&self, partitions: &[Arc<Partition>]) {
        if self.shards.load().as_deref().is_some_and(|doors| all_run(doors, partitions)) {
            return;
        }
        let _starting = self.starting.lock();
        let running = self.shards.load_full();
        // More partitions than there were change nothing: keys must stay where they are.
        let is_same_topic = running.as_deref().is_some_and(|doors| is_of(doors, partitions));
        let partitions =
            &partitions[..running.as_deref().filter(|_| is_same_topic).map_or(partitions.len(), Vec::len)];
        let door = |index: usize| match running.as_deref().and_then(|doors| doors.get(index)) {
            Some(door) if is_same_topic && door.is_open() => door.clone(),
            _ => self.open(&partitions[index], partitions.len()),
        };
        self.shards.store(Some(Arc::new((0..partitions.len()).map(door).collect())));
    }

    fn open(&self, partition: &Arc<Partition>, shards: usize) -> Door<M> {
        let (mailbox, asked) = mpsc::channel(MAILBOX_EVENTS);
        let (loading, loaded) = watch::channel(false);
        let new_machine = Arc::clone(&self.new_machine);
        let shard =
            Shard::new(Arc::clone(partition), self.clock.clone(), Box::new(move || new_machine(shards)));
        tokio::spawn(shard.run(asked, loading, self.stop.clone()));
        Door { mailbox, loaded, partition: Arc::clone(partition) }
    }

    /// Whether it has been started: before, there is nothing that it could know.
    pub fn is_started(&self) -> bool {
        self.shards.load().is_some()
    }

    /// Has the machine that is responsible for `key` step, and waits for its reply.
    ///
    /// # Errors
    /// No shard, or one that cannot store.
    pub async fn ask(&self, key: &str, event: M::Event) -> Result<M::Reply, CoordinatorError> {
        let shards = self.shards.load_full().ok_or(CoordinatorError::NotHere)?;
        shards[partition_of(key, shards.len())].ask(event).await
    }

    /// How many machines there are; none before the coordinator has been started.
    pub fn shards(&self) -> usize {
        self.shards.load().as_deref().map_or(0, Vec::len)
    }

    /// Has one of the machines step, and waits for its reply.
    ///
    /// # Errors
    /// As [`Coordinator::ask`].
    pub async fn ask_shard(&self, index: usize, event: M::Event) -> Result<M::Reply, CoordinatorError> {
        let shards = self.shards.load_full().ok_or(CoordinatorError::NotHere)?;
        shards.get(index).ok_or(CoordinatorError::NotHere)?.ask(event).await
    }

    /// Has all machines step, one after the other; none before the coordinator has been started.
    ///
    /// # Errors
    /// The first shard's that does not answer.
    pub async fn ask_all(
        &self,
        mut event: impl FnMut() -> M::Event,
    ) -> Result<Vec<M::Reply>, CoordinatorError> {
        let Some(shards) = self.shards.load_full() else { return Ok(Vec::new()) };
        let mut replies = Vec::with_capacity(shards.len());
        for shard in shards.iter() {
            // One that cannot answer does not keep it from the others.
            replies.push(shard.ask(event()).await);
        }
        replies.into_iter().collect()
    }
}

/// Whether these are doors to the first of these partitions.
fn is_of<M: Machine>(doors: &[Door<M>], partitions: &[Arc<Partition>]) -> bool {
    let same = |(door, partition): (&Door<M>, _)| Arc::ptr_eq(&door.partition, partition);
    doors.len() <= partitions.len() && doors.iter().zip(partitions).all(same)
}

fn all_run<M: Machine>(doors: &[Door<M>], partitions: &[Arc<Partition>]) -> bool {
    is_of(doors, partitions) && doors.iter().all(Door::is_open)
}

impl<M: Machine> Clone for Door<M> {
    fn clone(&self) -> Self {
        Self {
            mailbox: self.mailbox.clone(),
            loaded: self.loaded.clone(),
            partition: Arc::clone(&self.partition),
        }
    }
}

impl<M: Machine> Door<M> {
    /// Whether the shard runs.
    fn is_open(&self) -> bool {
        !self.mailbox.is_closed()
    }

    async fn ask(&self, event: M::Event) -> Result<M::Reply, CoordinatorError> {
        if !*self.loaded.borrow() {
            let mut loaded = self.loaded.clone();
            match tokio::time::timeout(LOAD_PATIENCE, loaded.wait_for(|loaded| *loaded)).await {
                Ok(Ok(_)) => {}
                Ok(Err(_ended)) => return Err(CoordinatorError::NotHere),
                Err(_elapsed) => return Err(CoordinatorError::Loading),
            }
        }
        let (reply, answered) = oneshot::channel();
        self.mailbox.send(Asked { event, reply }).await.map_err(|_| CoordinatorError::NotHere)?;
        answered.await.map_err(|_| CoordinatorError::NotHere)?
    }
}

/// The partition of an internal topic that is responsible for `key`: Java's hash of the text, without its sign, as Kafka does
/// it, so that a directory can change hands.
pub fn partition_of(key: &str, partitions: usize) -> usize {
    let hash =
        key.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // The one number without a positive counterpart counts as zero.
    hash.checked_abs().unwrap_or(0) as usize % partitions
}

#[cfg(test)]
mod tests {
    use super::partition_of;

    #[test]
    fn keys_go_where_kafka_puts_them() {
        for (key, partition) in
            [("group", 47), ("attach", 17), ("my-group", 12), ("\u{fc}n\u{ef}code", 16), ("", 0)]
        {
            assert_eq!(partition_of(key, 50), partition, "{key}");
        }
        // The known text whose hash is the smallest number.
        assert_eq!(partition_of("polygenelubricants", 50), 0);
    }
}
