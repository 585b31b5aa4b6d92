//! Message-move tasks started, cancelled and told.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{Answer, Context, SqsError, Text, Writer, bounded};
use crate::http::sqs::names::{Place, name_of_arn};
use crate::http::sqs::tasks::{KeptTask, Status, Tasks};
use crate::operations::Queue;
use crate::uuid::Uuid;

/// What a client holds of a task: base64 of this as JSON.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Handle {
    task_id: String,
    source_arn: String,
}

impl Handle {
    fn of(task: &KeptTask, source_arn: String) -> String {
        let handle = Self { task_id: task.id.clone(), source_arn };
        STANDARD.encode(serde_json::to_vec(&handle).expect("texts are JSON"))
    }

    fn parse(text: &str) -> Option<Self> {
        serde_json::from_slice(&STANDARD.decode(text).ok()?).ok()
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct StartMessageMoveTaskRequest<'a> {
    #[serde(borrow)]
    source_arn: Option<Text<'a>>,
    destination_arn: Option<Text<'a>>,
    max_number_of_messages_per_second: Option<i64>,
}

pub(super) struct TaskHandleAnswer(String);

impl Answer for TaskHandleAnswer {
    fn write(&self, out: &mut Writer) {
        out.text("TaskHandle", &self.0);
    }
}

pub(super) async fn start(
    cx: &Context<'_>,
    request: StartMessageMoveTaskRequest<'_>,
) -> Result<TaskHandleAnswer, SqsError> {
    let source = resource(cx, &request.source_arn, "SourceArn")?;
    let is_target = |queue: &Queue| queue.config.dead_letter_queue.as_deref() == Some(&*source.name);
    if !cx.site.door.queues().iter().any(is_target) {
        return Err(SqsError::InvalidParameter(
            "Source queue must be configured as a Dead Letter Queue.".into(),
        ));
    }
    let destination = match &request.destination_arn {
        None => None,
        arn => Some(resource(cx, arn, "DestinationArn")?),
    };
    let rate = bounded(
        request.max_number_of_messages_per_second,
        "MaxNumberOfMessagesPerSecond",
        1..=500,
        "Must be between 1 and 500, if provided.",
    )?;
    let task = KeptTask {
        id: Uuid::random().hyphenated(),
        status: Status::Running,
        destination: destination.map(|queue| queue.name.to_string()),
        rate,
        moved: 0,
        to_move: cx.site.door.counts(&source.name).await?.ready,
        started_ms: cx.site.door.now_ms(),
        failure: None,
    };
    let handle = Handle::of(&task, cx.site.place.arn(&source.name));
    Tasks::start(cx.site, &source.name, task).await?;
    Ok(TaskHandleAnswer(handle))
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct CancelMessageMoveTaskRequest<'a> {
    #[serde(borrow)]
    task_handle: Option<Text<'a>>,
}

pub(super) struct MovedAnswer(i64);

impl Answer for MovedAnswer {
    fn write(&self, out: &mut Writer) {
        out.number("ApproximateNumberOfMessagesMoved", self.0);
    }
}

pub(super) async fn cancel(
    cx: &Context<'_>,
    request: CancelMessageMoveTaskRequest<'_>,
) -> Result<MovedAnswer, SqsError> {
    let handle = request.task_handle.as_deref().ok_or(SqsError::MissingParameter("TaskHandle"))?;
    let wrong = || SqsError::InvalidParameter("Value for parameter TaskHandle is invalid.".into());
    let Handle { task_id, source_arn } = Handle::parse(handle).ok_or_else(wrong)?;
    let source = name_of_arn(&source_arn).ok_or_else(wrong)?;
    let moved = cx.site.tasks.cancel(source, &task_id);
    moved.map(MovedAnswer).ok_or_else(|| SqsError::ResourceNotFound("Task does not exist.".into()))
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct ListMessageMoveTasksRequest<'a> {
    #[serde(borrow)]
    source_arn: Option<Text<'a>>,
    max_results: Option<i64>,
}

pub(super) struct TasksAnswer<'c> {
    place: &'c Place,
    source: Queue,
    tasks: Vec<KeptTask>,
}

impl Answer for TasksAnswer<'_> {
    fn write(&self, out: &mut Writer) {
        let source_arn = self.place.arn(&self.source.name);
        out.list("Results", "ListMessageMoveTasksResultEntry", &self.tasks, |out, task| {
            if task.status == Status::Running {
                out.text("TaskHandle", &Handle::of(task, source_arn.clone()));
            }
            out.text("Status", task.status.name());
            out.text("SourceArn", &source_arn);
            let destination = task.destination.as_deref().map(|name| self.place.arn(name));
            out.text_if("DestinationArn", destination.as_deref());
            if let Some(rate) = task.rate {
                out.number("MaxNumberOfMessagesPerSecond", rate);
            }
            out.number("ApproximateNumberOfMessagesMoved", task.moved);
            out.number("ApproximateNumberOfMessagesToMove", task.to_move);
            out.text_if("FailureReason", task.failure.as_deref());
            out.number("StartedTimestamp", task.started_ms);
        });
    }
}

pub(super) async fn list<'c>(
    cx: &Context<'c>,
    request: ListMessageMoveTasksRequest<'_>,
) -> Result<TasksAnswer<'c>, SqsError> {
    let source = resource(cx, &request.source_arn, "SourceArn")?;
    let reason = "Must be between 1 and 10, if provided.";
    let max = bounded(request.max_results, "MaxResults", 1..=10, reason)?.unwrap_or(1);
    let mut tasks = Tasks::list(cx.site, &source.name).await?;
    tasks.truncate(max as usize);
    Ok(TasksAnswer { place: &cx.site.place, source, tasks })
}

/// The queue of an ARN; these actions say in words of their own that there is none.
fn resource(cx: &Context<'_>, arn: &Option<Text<'_>>, parameter: &'static str) -> Result<Queue, SqsError> {
    let arn = arn.as_deref().ok_or(SqsError::MissingParameter(parameter))?;
    let queue = name_of_arn(arn).and_then(|name| cx.site.door.queue(name));
    queue.ok_or_else(|| {
        SqsError::ResourceNotFound(
            format!("The resource that you specified for the {parameter} parameter doesn't exist.").into(),
        )
    })
}
