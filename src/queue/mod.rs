//! Work queues over the log: who has which record, until when, and what has become of it.
//!
//! Everything here is pure. A partition of a queue is a window of [`leases`] over the partition of a topic; [`QueueShard`] is the
//! machine that the coordinator's runtime drives: the windows that one partition of `__share_group_state` holds. Share groups
//! are one door to it; whoever comes through another names its queue as a group, too.

mod coordinator;
pub mod leases;
mod shard;
mod sorted;
mod timers;

use std::sync::Arc;

use crate::clock::TimestampMs;
use crate::uuid::Uuid;

pub use coordinator::{QueueFailure, Queues};
pub use leases::{
    Ack, Arrival, Backoff, Cause, Condition, Counts, Dead, Died, Kind, NotHeld, Pick, Picked, Portion,
    QueueTerms, Range, Receive, Received, Settle, SettleError, Settlement, Standing, Verdict,
};
pub use shard::QueueShard;

/// A partition of a topic as one group sees it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QueueKey {
    /// The group.
    pub group: Arc<str>,
    /// The topic.
    pub topic_id: Uuid,
    /// The partition's number.
    pub partition: i32,
}

impl QueueKey {
    /// What Kafka hashes to find the partition of `__share_group_state`.
    pub fn text(&self) -> String {
        format!("{}:{}:{}", self.group, self.topic_id, self.partition)
    }
}

/// What a group's leases go by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// How long a lease lasts, ms.
    pub lock_duration_ms: i64,
    /// Deliveries after which a record is not handed out again.
    pub delivery_limit: u16,
    /// Records that may be handed out or waiting again at a time.
    pub max_in_flight: i64,
    /// For what is refused or was delivered too often.
    pub dead: Dead,
}

/// A wish for records.
#[derive(Clone, PartialEq, Debug)]
pub struct Wish {
    /// Who wants them.
    pub member: Arc<str>,
    /// First offset of the log.
    pub log_start: i64,
    /// Of the log.
    pub leader_epoch: i32,
    /// Where the reading of the log began.
    pub from: i64,
    /// First and last offset of each batch that was read, in order.
    pub batches: Vec<(i64, i64)>,
    /// How many records.
    pub max_records: i64,
    /// Records of which a range of the answer is made, about.
    pub range_records: i64,
    /// How exactly `max_records` is meant.
    pub portion: Portion,
    /// The group's.
    pub terms: Terms,
}

/// What came of a wish.
#[derive(Clone, PartialEq, Debug)]
pub struct Taken {
    /// What was handed out.
    pub ranges: Vec<Range>,
    /// Where to read next.
    pub next: i64,
    /// What to [watch](QueueEvent::Watch) from, if it was not enough.
    pub changes: u64,
    /// First record that was never looked at.
    pub end: i64,
    /// Of the log when records were taken last.
    pub leader_epoch: i32,
}

/// A window as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// First record that is not done.
    pub start: i64,
    /// Records from there on that are done.
    pub done: i64,
    /// Records that are with somebody, or wait again.
    pub in_flight: i64,
    /// Of the log when records were taken last.
    pub leader_epoch: i32,
    /// When the window was made, or made anew: what was said of its records before is not of this one. Ms since the epoch.
    pub made_at: TimestampMs,
    /// Records of the window, by their state.
    pub counts: Counts,
}

/// Why a queue refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum QueueError {
    /// There is no such window.
    #[error("the group has nothing of this partition")]
    Unknown,
    /// Verdicts that would cut the window into more runs than it may have.
    #[error("the verdicts differ from record to record too often")]
    TooManyRuns,
    /// A verdict on a record that the member does not hold.
    #[error(transparent)]
    NotHeld(#[from] NotHeld),
}

/// What can happen to a window.
pub enum QueueEvent {
    /// Makes it, unless there is one. Answered by [`Reply::Done`].
    Initialise {
        /// First record.
        start: i64,
        /// Of the log.
        leader_epoch: i32,
    },
    /// Answered by [`Reply::Taken`].
    Take(Wish),
    /// Answered by [`Reply::Done`].
    Acknowledge {
        /// Whose verdicts.
        member: Arc<str>,
        /// The verdicts, in order of their offsets.
        acks: Vec<Ack>,
        /// The group's.
        terms: Terms,
    },
    /// Answered by [`Reply::Received`].
    Receive(Receive),
    /// Answered by [`Reply::Settled`].
    Settle(Vec<Settle>),
    /// Answered by [`Reply::Settled`].
    Pick(Vec<Picked>),
    /// Dead records go to whoever moves them, for a time. Answered by [`Reply::Dead`].
    TakeDead {
        /// How many records.
        max_records: i64,
        /// For how long, ms: then they are there for the next to ask.
        lease_ms: i64,
    },
    /// Answered by [`Reply::Done`] when there is something for [`QueueEvent::TakeDead`], or when another waits for that.
    AwaitDead,
    /// Archives all below an offset, whatever it is. Answered by [`Reply::Done`].
    Purge {
        /// Exclusive.
        offset_end_exclusive: i64,
        /// Of the log.
        leader_epoch: i32,
    },
    /// Answered by [`Reply::Done`] when there may be something that was not there at `changes`, or when the member watches anew.
    Watch {
        /// Who watches.
        member: Arc<str>,
        /// As [`Taken::changes`].
        changes: u64,
    },
    /// Sets the window anew, made if there is none. Answered by [`Reply::Done`].
    Reset {
        /// First record.
        start: i64,
        /// Of the log.
        leader_epoch: i32,
    },
    /// The log has lost its end: the window begins anew where it was not done, at most at the cut, unless that was done since
    /// the window was seen. Answered by [`Reply::Done`].
    GoBack {
        /// First offset that the log has lost.
        cut: i64,
        /// As [`Taken::leader_epoch`] when the window was seen.
        seen_epoch: i32,
        /// Of the log.
        leader_epoch: i32,
    },
    /// Answered by [`Reply::Described`].
    Describe,
    /// What is not done, in the order of offsets; as it is once all that is due has been done. Answered by
    /// [`Reply::Inspected`].
    Inspect {
        /// First record.
        from: i64,
        /// Records at most.
        max: usize,
    },
}

/// Whether it is so of the topic of that id.
pub type OfTopic = Arc<dyn Fn(Uuid) -> bool + Send + Sync>;

/// Whether it is so of a group's window over the topic of that id; and whether a queue of the group's name has read it is the other.
pub type OfWindow = Arc<dyn Fn(Uuid, bool) -> bool + Send + Sync>;

/// What can happen to a shard.
pub enum Event {
    /// Something happens to one window.
    One(QueueKey, QueueEvent),
    /// A member has gone: it gives back all that it has. Answered by [`Reply::Done`].
    Release {
        /// Of which group.
        group: Arc<str>,
        /// Who.
        member: Arc<str>,
    },
    /// Answered by [`Reply::Listed`].
    List(Arc<str>),
    /// A group forgets windows. Answered by [`Reply::Done`].
    Forget {
        /// Which group.
        group: Arc<str>,
        /// Which of them.
        of: OfWindow,
    },
    /// Topics were deleted: the windows go of those that do not exist. Answered by [`Reply::Done`].
    Drop(OfTopic),
    /// Answered by [`Reply::Died`] as soon as something has died that nobody moves, also before a restart, and nobody was told of
    /// it. Only the last who asks is.
    AwaitDead,
}

/// What an event comes to.
#[derive(Clone, PartialEq, Debug)]
pub enum Reply {
    /// To events that end well or not.
    Done(Result<(), QueueError>),
    /// To [`QueueEvent::Take`].
    Taken(Result<Taken, QueueError>),
    /// To [`QueueEvent::Receive`].
    Received(Result<Received, QueueError>),
    /// To [`QueueEvent::Settle`] and [`QueueEvent::Pick`]: each on its own, in their order.
    Settled(Result<Vec<Result<(), SettleError>>, QueueError>),
    /// To [`QueueEvent::TakeDead`].
    Dead(Result<Vec<Died>, QueueError>),
    /// To [`QueueEvent::Describe`].
    Described(Option<Progress>),
    /// To [`QueueEvent::Inspect`].
    Inspected(Result<Vec<Standing>, QueueError>),
    /// To [`Event::List`].
    Listed(Vec<(QueueKey, Progress)>),
    /// To [`Event::AwaitDead`]: the windows in which something has died; none if another asks instead.
    Died(Vec<QueueKey>),
}
