//! Message-move tasks: dead letters on their way back to where they came from, or elsewhere. A task runs in this process; that it
//! runs, and how it ended, is kept with its source queue, so that one which a restart has cut short is told as failed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Site;
use super::attributes::Kept;
use super::error::SqsError;
use super::message::{DEDUP_HEADER, SOURCE_HEADER, STEERING_DELAYS, text_header};
use crate::operations::{Delivery, Outgoing, QueueRefusal, Receipt, Wanted};
use crate::queue::Settlement;

/// Tasks of a queue that are remembered.
const TASKS_MAX: usize = 10;

/// Messages moved at a time.
const MOVED_TOGETHER: usize = 100;

/// What the server notes on dead letters; a message that is moved is none any more.
const DEAD_LETTER_PREFIX: &str = "ottla.dead-letter.";

/// How long messages are held while they are moved, ms.
const HELD_MS: i64 = 30_000;

/// Why a task failed that was running when the server ended.
const CUT_SHORT: &str = "The server was restarted.";

/// How a task is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Status {
    Running,
    Completed,
    Cancelling,
    Cancelled,
    Failed,
}

impl Status {
    /// As clients know it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Completed => "COMPLETED",
            Self::Cancelling => "CANCELLING",
            Self::Cancelled => "CANCELLED",
            Self::Failed => "FAILED",
        }
    }
}

/// A task as it is kept with its source queue.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct KeptTask {
    pub(super) id: String,
    pub(super) status: Status,
    /// Name of the queue; without, every message goes to where it came from.
    pub(super) destination: Option<String>,
    /// Messages a second.
    pub(super) rate: Option<i64>,
    pub(super) moved: i64,
    pub(super) to_move: i64,
    /// Ms since the epoch.
    pub(super) started_ms: i64,
    pub(super) failure: Option<String>,
}

/// The tasks that run, by the name of their source: one for each.
#[derive(Default)]
pub(super) struct Tasks(Mutex<HashMap<String, Arc<Running>>>);

struct Running {
    id: String,
    moved: AtomicI64,
    is_cancelled: AtomicBool,
    /// Wakes a task that waits for its rate.
    cancel: CancellationToken,
}

/// Why a task ended before its end.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("CouldNotDetermineMessageSource")]
    NoSource,
    #[error("AWS.SimpleQueueService.NonExistentQueue")]
    NoQueue,
    #[error("{0}")]
    Refused(String),
}

impl From<QueueRefusal> for Failure {
    fn from(refusal: QueueRefusal) -> Self {
        match refusal {
            QueueRefusal::Unknown(_) => Self::NoQueue,
            other => Self::Refused(other.to_string()),
        }
    }
}

impl Tasks {
    /// The tasks of a source, the newest first, as they are now. Waits while one starts or ends: between what is kept and what
    /// runs, such a one would seem to be cut short.
    pub(super) async fn list(site: &Site, source: &str) -> Result<Vec<KeptTask>, SqsError> {
        let _one_at_a_time = site.changes.lock().await;
        let queue = site.door.queue(source).ok_or(SqsError::QueueDoesNotExist)?;
        Ok(site.tasks.of(source, &Kept::of(&queue.config)))
    }

    /// The same, for who holds the changes.
    fn of(&self, source: &str, kept: &Kept) -> Vec<KeptTask> {
        let running = self.0.lock().get(source).cloned();
        kept.move_tasks.iter().map(|task| now(task, running.as_deref())).collect()
    }

    /// Starts a task; at most one runs for a source.
    pub(super) async fn start(site: &Arc<Site>, source: &str, task: KeptTask) -> Result<(), SqsError> {
        let _one_at_a_time = site.changes.lock().await;
        let running = Arc::new(Running {
            id: task.id.clone(),
            moved: AtomicI64::new(0),
            is_cancelled: AtomicBool::new(false),
            cancel: site.stop.child_token(),
        });
        let queue = site.door.queue(source).ok_or(SqsError::QueueDoesNotExist)?;
        if site.tasks.0.lock().contains_key(source) {
            return Err(SqsError::InvalidParameter(
                "There is already a task running. Only one active task is allowed for a source queue arn at a given time.".into(),
            ));
        }
        let mut kept = Kept::of(&queue.config);
        kept.move_tasks = site.tasks.of(source, &kept);
        kept.move_tasks.insert(0, task.clone());
        kept.move_tasks.truncate(TASKS_MAX);
        site.door.configure(source, vec![kept.change()]).await?;
        site.tasks.0.lock().insert(source.to_owned(), Arc::clone(&running));
        let (site, source) = (Arc::clone(site), source.to_owned());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                // The next start tells it as cut short.
                () = site.stop.cancelled() => {}
                () = run(&site, &source, &task, &running) => {}
            }
        });
        Ok(())
    }

    /// Has a task end, and says how many messages it has moved.
    pub(super) fn cancel(&self, source: &str, id: &str) -> Option<i64> {
        let running = self.0.lock().get(source).cloned().filter(|running| running.id == id)?;
        running.is_cancelled.store(true, Ordering::Release);
        running.cancel.cancel();
        Some(running.moved.load(Ordering::Acquire))
    }
}

/// A kept task as it is now: what does not run and never ended was cut short.
fn now(task: &KeptTask, running: Option<&Running>) -> KeptTask {
    let mut task = task.clone();
    if task.status == Status::Running {
        match running.filter(|running| running.id == task.id) {
            Some(running) => {
                task.moved = running.moved.load(Ordering::Acquire);
                if running.is_cancelled.load(Ordering::Acquire) {
                    task.status = Status::Cancelling;
                }
            }
            None => {
                task.status = Status::Failed;
                task.failure = Some(CUT_SHORT.to_owned());
            }
        }
    }
    task
}

async fn run(site: &Site, source: &str, task: &KeptTask, running: &Running) {
    let ended = move_all(site, source, task, running).await;
    let is_cancelled = running.is_cancelled.load(Ordering::Acquire);
    let moved = running.moved.load(Ordering::Acquire);
    let (status, failure) = match ended {
        Err(failure) => (Status::Failed, Some(failure.to_string())),
        Ok(()) if is_cancelled => (Status::Cancelled, None),
        Ok(()) => (Status::Completed, None),
    };
    info!(queue = source, task = task.id, status = status.name(), moved, failure, "message-move task ended");
    let _one_at_a_time = site.changes.lock().await;
    if let Some(queue) = site.door.queue(source) {
        let mut kept = Kept::of(&queue.config);
        if let Some(kept) = kept.move_tasks.iter_mut().find(|kept| kept.id == task.id) {
            *kept = KeptTask { status, failure, moved, ..kept.clone() };
        }
        if let Err(error) = site.door.configure(source, vec![kept.change()]).await {
            warn!(queue = source, task = task.id, %error, "the end of a message-move task is not kept");
        }
    }
    site.tasks.0.lock().remove(source);
}

/// Moves as many messages as there were at the start: those that come back meanwhile are not moved again and again.
async fn move_all(site: &Site, source: &str, task: &KeptTask, running: &Running) -> Result<(), Failure> {
    let per_round = task.rate.map_or(MOVED_TOGETHER, |rate| (rate as usize).clamp(1, MOVED_TOGETHER));
    while !running.is_cancelled.load(Ordering::Acquire) {
        let left = task.to_move - running.moved.load(Ordering::Acquire);
        let max = per_round.min(usize::try_from(left).unwrap_or(0));
        if max == 0 {
            break;
        }
        let wanted = Wanted { max, visibility_ms: Some(HELD_MS), wait: Some(Duration::ZERO) };
        let taken = site.door.receive(source, wanted).await?;
        if taken.is_empty() {
            break;
        }
        let count = taken.len();
        move_some(site, source, task, taken, running).await?;
        if let Some(rate) = task.rate {
            let pause = Duration::from_secs_f64(count as f64 / rate as f64);
            let _: Result<(), _> = tokio::time::timeout(pause, running.cancel.cancelled()).await;
        }
    }
    Ok(())
}

/// Sends messages to where they belong, and is done with those that got there. The others are given back.
async fn move_some(
    site: &Site,
    source: &str,
    task: &KeptTask,
    taken: Vec<Delivery>,
    running: &Running,
) -> Result<(), Failure> {
    let mut failure = None;
    let mut by_destination: BTreeMap<String, Vec<Delivery>> = BTreeMap::new();
    let mut left: Vec<Receipt> = Vec::new();
    for delivery in taken {
        let own = || text_header(&delivery.headers, SOURCE_HEADER).map(str::to_owned);
        match task.destination.clone().or_else(own) {
            Some(destination) => by_destination.entry(destination).or_default().push(delivery),
            None => {
                failure = Some(Failure::NoSource);
                left.push(delivery.receipt);
            }
        }
    }
    let mut done = Vec::new();
    for (destination, deliveries) in by_destination {
        let receipts: Vec<Receipt> = deliveries.iter().map(|delivery| delivery.receipt).collect();
        let outgoing = deliveries.into_iter().map(outgoing).collect();
        match site.door.send(&destination, outgoing).await {
            Ok(sent) => {
                for (receipt, sent) in receipts.into_iter().zip(sent) {
                    match sent {
                        Ok(_) => done.push((receipt, Settlement::Done)),
                        Err(refusal) => {
                            failure = Some(Failure::Refused(refusal.to_string()));
                            left.push(receipt);
                        }
                    }
                }
            }
            Err(refusal) => {
                failure = Some(refusal.into());
                left.extend(receipts);
            }
        }
    }
    let moved = done.len() as i64;
    let back = left.into_iter().map(|receipt| (receipt, Settlement::Return { after_ms: Some(0) }));
    done.extend(back);
    site.door.settle(source, done).await?;
    running.moved.fetch_add(moved, Ordering::AcqRel);
    failure.map_or(Ok(()), Err)
}

/// The message as it was before it was dead: a new one in its age, with nothing left of its end.
fn outgoing(delivery: Delivery) -> Outgoing {
    let headers = delivery.headers.into_iter();
    let is_over = |name: &str| {
        name.starts_with(DEAD_LETTER_PREFIX) || name == DEDUP_HEADER || STEERING_DELAYS.contains(&name)
    };
    let headers = headers.filter(|(name, _)| !is_over(name));
    Outgoing {
        body: delivery.body,
        key: delivery.key,
        headers: headers.collect(),
        delay_ms: Some(0),
        // Whatever the destination remembers of ids: this one is to arrive.
        dedup_id: Some(format!(
            "{}-{}-{}",
            delivery.receipt.topic_id, delivery.receipt.partition, delivery.receipt.offset
        )),
        ..Outgoing::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(status: Status) -> KeptTask {
        KeptTask {
            id: "t".to_owned(),
            status,
            destination: None,
            rate: None,
            moved: 3,
            to_move: 7,
            started_ms: 0,
            failure: None,
        }
    }

    #[test]
    fn a_task_that_neither_runs_nor_has_ended_was_cut_short() {
        let cut = now(&task(Status::Running), None);
        assert_eq!((cut.status, cut.failure.as_deref()), (Status::Failed, Some(CUT_SHORT)));
        assert_eq!(now(&task(Status::Completed), None), task(Status::Completed));
        let running = Running {
            id: "t".to_owned(),
            moved: AtomicI64::new(5),
            is_cancelled: AtomicBool::new(false),
            cancel: CancellationToken::new(),
        };
        let seen = now(&task(Status::Running), Some(&running));
        assert_eq!((seen.status, seen.moved), (Status::Running, 5));
        running.is_cancelled.store(true, Ordering::Release);
        assert_eq!(now(&task(Status::Running), Some(&running)).status, Status::Cancelling);
    }
}
