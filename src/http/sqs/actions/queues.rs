//! Queues made, found, emptied and deleted.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::{Answer, Context, Pairs, QueueRequest, SqsError, Text, Writer, bounded};
use crate::http::sqs::attributes::{self, Changes, Kept};
use crate::http::sqs::names::check_name;
use crate::operations::{Queue, QueueCounts};

/// Queues of a page, and of a list without pages.
const PAGE_MAX: i64 = 1000;

/// Between two purges of a queue.
const PURGE_EVERY: Duration = Duration::from_secs(60);

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct CreateQueueRequest<'a> {
    #[serde(borrow)]
    queue_name: Option<Text<'a>>,
    #[serde(alias = "Attribute")]
    attributes: Pairs<'a, Text<'a>>,
    #[serde(rename = "tags", alias = "Tag", alias = "Tags")]
    tags: Pairs<'a, Text<'a>>,
}

pub(super) struct QueueUrlAnswer(String);

impl Answer for QueueUrlAnswer {
    fn write(&self, out: &mut Writer) {
        out.text("QueueUrl", &self.0);
    }
}

/// One that exists is answered as it is, if what was given is what it has.
pub(super) async fn create(
    cx: &Context<'_>,
    request: CreateQueueRequest<'_>,
) -> Result<QueueUrlAnswer, SqsError> {
    let name = request.queue_name.as_deref().ok_or(SqsError::MissingParameter("QueueName"))?;
    let given = || request.attributes.iter().map(|(name, value)| (&**name, &**value));
    let is_fifo = match given().find(|(name, _)| *name == "FifoQueue") {
        None => false,
        Some((_, "true")) => true,
        Some(_) => return Err(attributes::unknown("FifoQueue")),
    };
    check_name(name, is_fifo)?;
    let mut changes = Changes::of_new_queue(cx.site.door.now_ms(), is_fifo);
    let settable = request.attributes.iter().filter(|(name, _)| &**name != "FifoQueue");
    changes.take(settable.map(|(name, value)| (&**name, &**value)), is_fifo)?;
    super::tags::add(&mut changes.kept.tags, &request.tags)?;

    let _one_at_a_time = cx.site.changes.lock().await;
    if let Some(queue) = cx.site.door.queue(name) {
        check_same(cx, &queue, given())?;
        return Ok(QueueUrlAnswer(cx.url(name)));
    }
    super::attributes::check_redrive(cx, name, is_fifo, &changes)?;
    cx.site.door.create(name, None, changes.into_configs()).await?;
    Ok(QueueUrlAnswer(cx.url(name)))
}

fn check_same<'g>(
    cx: &Context<'_>,
    queue: &Queue,
    mut given: impl Iterator<Item = (&'g str, &'g str)>,
) -> Result<(), SqsError> {
    let kept = Kept::of(&queue.config);
    let differs = given.find(|(name, value)| {
        let current = attributes::value(name, queue, &kept, QueueCounts::default(), &cx.site.place);
        !attributes::is_same(name, value, current.as_deref())
    });
    match differs {
        Some((name, _)) => Err(SqsError::QueueNameExists { attribute: name.to_owned().into() }),
        None => Ok(()),
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct GetQueueUrlRequest<'a> {
    #[serde(borrow)]
    queue_name: Option<Text<'a>>,
}

/// Whoever the owner is said to be: there is one account.
pub(super) async fn url(
    cx: &Context<'_>,
    request: GetQueueUrlRequest<'_>,
) -> Result<QueueUrlAnswer, SqsError> {
    let name = request.queue_name.as_deref().ok_or(SqsError::MissingParameter("QueueName"))?;
    let queue = cx.named(name)?;
    Ok(QueueUrlAnswer(cx.url(&queue.name)))
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct ListQueuesRequest<'a> {
    #[serde(borrow)]
    queue_name_prefix: Option<Text<'a>>,
    max_results: Option<i64>,
    next_token: Option<Text<'a>>,
}

/// URLs of queues, under the name that the action has for them.
pub(super) struct QueueUrlsAnswer {
    member: &'static str,
    urls: Vec<String>,
    next_token: Option<String>,
}

impl Answer for QueueUrlsAnswer {
    fn write(&self, out: &mut Writer) {
        out.texts(self.member, "QueueUrl", self.urls.iter().map(String::as_str));
        out.text_if("NextToken", self.next_token.as_deref());
    }
}

pub(super) async fn list(
    cx: &Context<'_>,
    request: ListQueuesRequest<'_>,
) -> Result<QueueUrlsAnswer, SqsError> {
    let prefix = request.queue_name_prefix.as_deref().unwrap_or_default();
    let queues = cx.site.door.queues().into_iter().filter(|queue| queue.name.starts_with(prefix));
    page(cx, "QueueUrls", queues, request.max_results, request.next_token.as_deref())
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct ListDeadLetterSourceQueuesRequest<'a> {
    #[serde(borrow)]
    queue_url: Option<Text<'a>>,
    max_results: Option<i64>,
    next_token: Option<Text<'a>>,
}

pub(super) async fn list_dead_letter_sources(
    cx: &Context<'_>,
    request: ListDeadLetterSourceQueuesRequest<'_>,
) -> Result<QueueUrlsAnswer, SqsError> {
    let target = cx.queue(&request.queue_url)?;
    let is_source = |queue: &Queue| queue.config.dead_letter_queue.as_deref() == Some(&*target.name);
    let sources = cx.site.door.queues().into_iter().filter(is_source);
    page(cx, "queueUrls", sources, request.max_results, request.next_token.as_deref())
}

/// A page of queues, which come by name. A token is the name of the last one told.
fn page(
    cx: &Context<'_>,
    member: &'static str,
    queues: impl Iterator<Item = Queue>,
    max_results: Option<i64>,
    token: Option<&str>,
) -> Result<QueueUrlsAnswer, SqsError> {
    const RANGE: &str = "Must be between 1 and 1000, if provided.";
    let max = bounded(max_results, "MaxResults", 1..=PAGE_MAX, RANGE)?;
    let after = token.map(name_of_token).transpose()?;
    let mut queues = queues.skip_while(|queue| after.as_deref().is_some_and(|after| *queue.name <= *after));
    let taken: Vec<Queue> = queues.by_ref().take(max.unwrap_or(PAGE_MAX) as usize).collect();
    let is_more = max.is_some() && queues.next().is_some();
    let next_token = taken.last().filter(|_| is_more).map(|last| URL_SAFE_NO_PAD.encode(&*last.name));
    let urls = taken.iter().map(|queue| cx.url(&queue.name)).collect();
    Ok(QueueUrlsAnswer { member, urls, next_token })
}

fn name_of_token(token: &str) -> Result<String, SqsError> {
    let name = URL_SAFE_NO_PAD.decode(token).ok().and_then(|name| String::from_utf8(name).ok());
    name.ok_or_else(|| SqsError::value(token, "NextToken", "It is none that was given."))
}

pub(super) async fn delete(cx: &Context<'_>, request: QueueRequest<'_>) -> Result<(), SqsError> {
    let queue = cx.queue(&request.queue_url)?;
    Ok(cx.site.door.delete(&queue.name).await?)
}

pub(super) async fn purge(cx: &Context<'_>, request: QueueRequest<'_>) -> Result<(), SqsError> {
    let queue = cx.queue(&request.queue_url)?;
    let now = cx.site.door.now_ms();
    {
        let mut purges = cx.site.purges.lock();
        purges.retain(|_, at| now - *at < PURGE_EVERY.as_millis() as i64);
        if purges.contains_key(&queue.topic_id) {
            return Err(SqsError::PurgeQueueInProgress { queue: queue.name.to_string() });
        }
        purges.insert(queue.topic_id, now);
    }
    let purged = cx.site.door.purge(&queue.name).await;
    if purged.is_err() {
        cx.site.purges.lock().remove(&queue.topic_id);
    }
    Ok(purged?)
}
