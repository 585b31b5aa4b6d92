//! Message-move tasks: dead letters on their way back to where they came from, or elsewhere. A task runs in this process; that it
//! runs, and how it ended, is kept with its source queue, so that one which a restart has cut short is told as failed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Site;
use super::attributes::Kept;
use super::error::SqsError;
use crate::operations::{Fate, QueueRefusal, Sweep, Why};

/// Tasks of a queue that are remembered.
const TASKS_MAX: usize = 10;

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

impl Failure {
    /// Of a message that stays; who has it, may.
    fn of(why: &Why) -> Option<Self> {
        match why {
            Why::NoSource => Some(Self::NoSource),
            Why::NoQueue(_) => Some(Self::NoQueue),
            Why::Refused(_) | Why::Redriven(_) => Some(Self::Refused(why.to_string())),
            Why::Taken => None,
        }
    }
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

/// Moves as many messages as there were at the start: those that come back meanwhile are not moved again and again. Ends at the first
/// that cannot be moved, with those that are moved together with it.
async fn move_all(site: &Site, source: &str, task: &KeptTask, running: &Running) -> Result<(), Failure> {
    // Who starts a task means it, however often a message was moved before.
    let fate = Fate::Redrive { to: task.destination.clone(), is_forced: true };
    let sweep = Sweep {
        max: Some(u64::try_from(task.to_move).unwrap_or_default()),
        rate: task.rate.and_then(|rate| u32::try_from(rate).ok()),
        ..Sweep::new(fate, task.started_ms)
    };
    let mut failure = None;
    let moving = site.door.sweep(source, sweep, &running.cancel, |swept| {
        running.moved.fetch_add(i64::try_from(swept.done).unwrap_or_default(), Ordering::AcqRel);
        failure = swept.left.iter().find_map(|left| Failure::of(&left.why));
        if failure.is_some() {
            running.cancel.cancel();
        }
    });
    moving.await?;
    failure.map_or(Ok(()), Err)
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
