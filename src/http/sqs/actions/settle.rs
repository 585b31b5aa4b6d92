//! What receivers say of the messages that they hold: done, or how long they still want them.

use serde::Deserialize;

use super::{BatchAnswer, Context, List, SqsError, Text, check_batch};
use crate::http::receipt::Handle;
use crate::operations::{Queue, SettleRefusal};
use crate::queue::Settlement;

/// Longest that a message may be held, seconds.
const VISIBILITY_MAX: i64 = 43_200;

/// A message that is done; with a queue it is a request, with an id an entry of a batch.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct DeleteMessageRequest<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    queue_url: Option<Text<'a>>,
    receipt_handle: Option<Text<'a>>,
}

pub(super) async fn delete(cx: &Context<'_>, request: DeleteMessageRequest<'_>) -> Result<(), SqsError> {
    let queue = cx.queue(&request.queue_url)?;
    let handle = handle(&request.receipt_handle)?;
    one(settle(cx, &queue, vec![(handle, Settlement::Done)]).await?)?
        .or_else(|refusal| deleted(&queue, &request.receipt_handle, refusal))
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct DeleteMessageBatchRequest<'a> {
    #[serde(borrow)]
    queue_url: Option<Text<'a>>,
    #[serde(alias = "DeleteMessageBatchRequestEntry")]
    entries: List<DeleteMessageRequest<'a>>,
}

pub(super) async fn delete_batch<'c>(
    cx: &Context<'c>,
    request: DeleteMessageBatchRequest<'c>,
) -> Result<BatchAnswer<'c, ()>, SqsError> {
    let queue = cx.queue(&request.queue_url)?;
    check_batch("DeleteMessageBatchRequestEntry", request.entries.iter().map(|entry| &entry.id))?;
    let wanted = |entry: &DeleteMessageRequest<'_>| Ok((handle(&entry.receipt_handle)?, Settlement::Done));
    let settled = settle_each(cx, &queue, request.entries.iter().map(wanted).collect()).await?;
    let entries = request.entries.into_iter().zip(settled).map(|(entry, settled)| {
        let done = settled
            .and_then(|settled| settled.or_else(|refusal| deleted(&queue, &entry.receipt_handle, refusal)));
        (entry.id, done)
    });
    Ok(BatchAnswer { element: "DeleteMessageBatchResultEntry", entries: entries.collect() })
}

/// Deleting twice is no error; nor is it on a standard queue that somebody else has the message now.
fn deleted(queue: &Queue, handle: &Option<Text<'_>>, refusal: SettleRefusal) -> Result<(), SqsError> {
    let handle = handle.as_deref().unwrap_or_default();
    match refusal {
        SettleRefusal::Gone => Ok(()),
        SettleRefusal::TakenAgain if queue.config.fifo => {
            Err(SqsError::value(handle, "ReceiptHandle", "The receipt handle has expired."))
        }
        SettleRefusal::TakenAgain => Ok(()),
        SettleRefusal::OtherQueue => Err(invalid(handle)),
    }
}

/// A message that is wanted longer, or no more; with a queue it is a request, with an id an entry of a batch.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct ChangeMessageVisibilityRequest<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    queue_url: Option<Text<'a>>,
    receipt_handle: Option<Text<'a>>,
    visibility_timeout: Option<i64>,
}

pub(super) async fn change_visibility(
    cx: &Context<'_>,
    request: ChangeMessageVisibilityRequest<'_>,
) -> Result<(), SqsError> {
    let queue = cx.queue(&request.queue_url)?;
    let wanted = extension(cx, &request)?;
    one(settle(cx, &queue, vec![wanted]).await?)?
        .map_err(|refusal| not_changed(&request.receipt_handle, refusal))
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct ChangeMessageVisibilityBatchRequest<'a> {
    #[serde(borrow)]
    queue_url: Option<Text<'a>>,
    #[serde(alias = "ChangeMessageVisibilityBatchRequestEntry")]
    entries: List<ChangeMessageVisibilityRequest<'a>>,
}

pub(super) async fn change_visibility_batch<'c>(
    cx: &Context<'c>,
    request: ChangeMessageVisibilityBatchRequest<'c>,
) -> Result<BatchAnswer<'c, ()>, SqsError> {
    let queue = cx.queue(&request.queue_url)?;
    check_batch("ChangeMessageVisibilityBatchRequestEntry", request.entries.iter().map(|entry| &entry.id))?;
    let wanted = request.entries.iter().map(|entry| extension(cx, entry)).collect();
    let settled = settle_each(cx, &queue, wanted).await?;
    let entries = request.entries.into_iter().zip(settled).map(|(entry, settled)| {
        let changed = settled
            .and_then(|settled| settled.map_err(|refusal| not_changed(&entry.receipt_handle, refusal)));
        (entry.id, changed)
    });
    Ok(BatchAnswer { element: "ChangeMessageVisibilityBatchResultEntry", entries: entries.collect() })
}

fn extension(
    cx: &Context<'_>,
    request: &ChangeMessageVisibilityRequest<'_>,
) -> Result<(Handle, Settlement), SqsError> {
    let handle = handle(&request.receipt_handle)?;
    let timeout = request.visibility_timeout.ok_or(SqsError::MissingParameter("VisibilityTimeout"))?;
    if !(0..=VISIBILITY_MAX).contains(&timeout) {
        return Err(SqsError::number(
            timeout,
            "VisibilityTimeout",
            "Must be >= 0 and <= 43200, if provided.",
        ));
    }
    let held_seconds = (cx.site.door.now_ms() - handle.received_ms) / 1000;
    if held_seconds + timeout > VISIBILITY_MAX {
        return Err(SqsError::number(
            timeout,
            "VisibilityTimeout",
            "Total VisibilityTimeout for the message is beyond the limit [43200 seconds].",
        ));
    }
    Ok((handle, Settlement::Extend { for_ms: timeout * 1000 }))
}

fn not_changed(handle: &Option<Text<'_>>, refusal: SettleRefusal) -> SqsError {
    let handle = handle.as_deref().unwrap_or_default();
    match refusal {
        SettleRefusal::Gone | SettleRefusal::TakenAgain => SqsError::value(
            handle,
            "ReceiptHandle",
            "Message does not exist or is not available for visibility timeout change.",
        ),
        SettleRefusal::OtherQueue => invalid(handle),
    }
}

fn handle(text: &Option<Text<'_>>) -> Result<Handle, SqsError> {
    let text = text.as_deref().ok_or(SqsError::MissingParameter("ReceiptHandle"))?;
    Handle::parse(text).ok_or_else(|| invalid(text))
}

fn invalid(handle: &str) -> SqsError {
    SqsError::InvalidReceiptHandle { handle: crate::http::sqs::error::shown(handle) }
}

type Settled = Result<(), SettleRefusal>;

fn one(mut settled: Vec<Settled>) -> Result<Settled, SqsError> {
    settled.pop().ok_or_else(|| SqsError::Internal("a receipt got no answer".to_owned()))
}

async fn settle(
    cx: &Context<'_>,
    queue: &Queue,
    wanted: Vec<(Handle, Settlement)>,
) -> Result<Vec<Settled>, SqsError> {
    let what = wanted.into_iter().map(|(handle, what)| (handle.receipt, what)).collect();
    Ok(cx.site.door.settle(&queue.name, what).await?)
}

/// Settles those that can be understood, and answers all in their order.
async fn settle_each(
    cx: &Context<'_>,
    queue: &Queue,
    wanted: Vec<Result<(Handle, Settlement), SqsError>>,
) -> Result<Vec<Result<Settled, SqsError>>, SqsError> {
    let understood: Vec<_> = wanted.iter().flatten().cloned().collect();
    let mut settled = match understood.is_empty() {
        true => Vec::new(),
        false => settle(cx, queue, understood).await?,
    }
    .into_iter();
    let missing = || SqsError::Internal("a receipt got no answer".to_owned());
    Ok(wanted.into_iter().map(|one| one.and_then(|_| settled.next().ok_or_else(missing))).collect())
}
