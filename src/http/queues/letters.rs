//! Messages looked at without being lent, and dead letters listed, sent on, dropped: in JSON.

use std::time::Duration;

use bytes::Bytes;
use hyper::{Response, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::Answer;
use super::bounded::{Integer, Members, Object, Scalar};
use super::error::Refusal;
use super::message::{MESSAGES_MAX, PeekedMessage, within};
use super::query::Query;
use super::{nothing, parse, told};
use crate::operations::{Fate, Filter, MessageState, Page, Peek, Place, QueueDoor, Sweep};

/// How long a request goes on with messages before it tells how far it has come.
const SWEEP_FOR: Duration = Duration::from_secs(10);

/// Messages shown unless told otherwise.
const SHOWN: i64 = 10;

/// Headers of a filter.
const HEADERS_MAX: usize = 100;

/// Most messages a second that can be asked for.
const RATE_MAX: i64 = 100_000;

/// Longest text that is looked for in bodies: the work of that is as many times a body's length.
const BODY_MAX_CHARS: usize = 1_000;

fn part_of_body(text: String) -> Result<String, Refusal> {
    match text.chars().count() > BODY_MAX_CHARS {
        true => Err(Refusal::invalid(format!("body: more than {BODY_MAX_CHARS} characters"))),
        false => Ok(text),
    }
}

/// `GET /queues/NAME/messages`.
pub(super) async fn peek(
    door: &QueueDoor,
    name: &str,
    mut query: Query,
) -> Result<Response<Answer>, Refusal> {
    let state = query.text("state").map(|text| state(&text)).transpose()?;
    let wanted = Peek { states: state.into_iter().collect(), ..paging(&mut query)? };
    query.end()?;
    Ok(shown(door.peek(name, &wanted).await?))
}

/// `GET /queues/NAME/dead-letters`.
pub(super) async fn list(
    door: &QueueDoor,
    name: &str,
    mut query: Query,
) -> Result<Response<Answer>, Refusal> {
    let wanted = paging(&mut query)?;
    let header = query.text("header").map(|text| match text.split_once(':') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (text, None),
    });
    let filter = Filter {
        reason: query.text("reason"),
        queue: query.text("queue"),
        headers: header.into_iter().collect(),
        body: query.text("body").map(part_of_body).transpose()?,
        older_than_ms: query.number("older_than_ms", 0, i64::MAX)?,
        newer_than_ms: query.number("newer_than_ms", 0, i64::MAX)?,
        message_id: query.text("message_id"),
    };
    query.end()?;
    let (letters, filter) = of(door, name, filter)?;
    Ok(shown(door.peek_for(&letters, &wanted, &filter).await?))
}

fn paging(query: &mut Query) -> Result<Peek, Refusal> {
    let max = query.number("max", 1, MESSAGES_MAX as i64)?.unwrap_or(SHOWN);
    let after = query.text("after").map(|text| place(&text)).transpose()?;
    Ok(Peek { states: Vec::new(), after, max: max as usize })
}

fn state(text: &str) -> Result<MessageState, Refusal> {
    let found = MessageState::ALL.into_iter().find(|state| state.name() == text);
    found.ok_or_else(|| {
        Refusal::invalid(format!("state: {text:?} is none of ready, in_flight, delayed, dead"))
    })
}

fn place(text: &str) -> Result<Place, Refusal> {
    text.parse().map_err(|error| Refusal::invalid(format!("after: {error}")))
}

fn shown(page: Page) -> Response<Answer> {
    let next = page.next.map(|next| next.to_string());
    let messages: Vec<_> = page.messages.into_iter().map(PeekedMessage::from).collect();
    told(StatusCode::OK, &json!({ "messages": messages, "next": next }))
}

/// Where the dead letters of a queue are, and which of them are its own.
fn of(door: &QueueDoor, name: &str, filter: Filter) -> Result<(String, Filter), Refusal> {
    let (letters, own) = door.letters_of(name)?;
    match (&filter.queue, own) {
        (Some(queue), Some(own)) if *queue != own => {
            Err(Refusal::invalid(format!("queue: the dead letters of {own:?} come from {own:?}")))
        }
        (_, own) => Ok((letters, Filter { queue: own.or(filter.queue.clone()), ..filter })),
    }
}

/// Which messages.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FilterForm {
    reason: Option<String>,
    queue: Option<String>,
    headers: Members<Scalar, HEADERS_MAX>,
    body: Option<String>,
    older_than_ms: Option<Integer>,
    newer_than_ms: Option<Integer>,
    message_id: Option<String>,
}

impl FilterForm {
    fn filter(self) -> Result<Filter, Refusal> {
        let header = |(name, value)| match value {
            Scalar::Null => Ok((name, None)),
            Scalar::Text(value) => Ok((name, Some(value))),
            Scalar::Other(_) => {
                Err(Refusal::invalid(format!("the header {name:?}: a text, or null for any")))
            }
        };
        Ok(Filter {
            reason: self.reason,
            queue: self.queue,
            headers: self.headers.0.into_iter().map(header).collect::<Result<_, _>>()?,
            body: self.body.map(part_of_body).transpose()?,
            older_than_ms: within("older_than_ms", self.older_than_ms, 0, i64::MAX)?,
            newer_than_ms: within("newer_than_ms", self.newer_than_ms, 0, i64::MAX)?,
            message_id: self.message_id,
        })
    }
}

/// Which messages are to be sent on or dropped, and how.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SweepForm {
    filter: Option<Object<FilterForm>>,
    to: Option<String>,
    force: Option<bool>,
    max: Option<Integer>,
    rate: Option<Integer>,
    dry_run: Option<bool>,
    after: Option<String>,
    began_ms: Option<Integer>,
}

impl SweepForm {
    fn sweep(self, fate: Fate, now_ms: i64) -> Result<Sweep, Refusal> {
        let filter = self.filter.map(|Object(form)| form.filter()).transpose()?.unwrap_or_default();
        let rate = within("rate", self.rate, 1, RATE_MAX)?;
        Ok(Sweep {
            filter,
            fate,
            after: self.after.map(|text| place(&text)).transpose()?,
            began_ms: within("began_ms", self.began_ms, 0, i64::MAX)?.unwrap_or(now_ms),
            max: within("max", self.max, 1, i64::MAX)?.map(i64::cast_unsigned),
            rate: rate.and_then(|rate| u32::try_from(rate).ok()),
            is_dry_run: self.dry_run.unwrap_or(false),
            until: Some(Instant::now() + SWEEP_FOR),
        })
    }
}

/// `POST /queues/NAME/redrive`.
pub(super) async fn redrive(
    door: &QueueDoor,
    stopping: &CancellationToken,
    name: &str,
    body: &Bytes,
) -> Result<Response<Answer>, Refusal> {
    super::queue(door, name)?;
    let mut form: SweepForm = if body.is_empty() { SweepForm::default() } else { parse(body)? };
    let to = form.to.take();
    if let Some(to) = &to
        && door.queue(to).is_none()
    {
        // Not found would say that of the queue in the path.
        return Err(Refusal::invalid(format!("to: there is no queue {to:?}")));
    }
    let fate = Fate::Redrive { to, is_forced: form.force.take().unwrap_or(false) };
    let mut sweep = form.sweep(fate, door.now_ms())?;
    let letters;
    (letters, sweep.filter) = of(door, name, sweep.filter)?;
    if let Fate::Redrive { to: Some(to), .. } = &sweep.fate
        && *to == letters
    {
        return Err(Refusal::invalid("to: they are there already"));
    }
    swept(door, stopping, &letters, sweep).await
}

/// `POST /queues/NAME/purge`: of all messages without a body, else of those that it says.
pub(super) async fn purge(
    door: &QueueDoor,
    stopping: &CancellationToken,
    name: &str,
    body: &Bytes,
) -> Result<Response<Answer>, Refusal> {
    super::queue(door, name)?;
    if body.is_empty() {
        door.purge(name).await?;
        return Ok(nothing());
    }
    let form: SweepForm = parse(body)?;
    if form.filter.is_none() {
        return Err(Refusal::invalid("a purge has a filter, or no body: then it takes all"));
    }
    if form.to.is_some() || form.force.is_some() {
        return Err(Refusal::invalid("to and force are for redrive"));
    }
    swept(door, stopping, name, form.sweep(Fate::Drop, door.now_ms())?).await
}

/// Does what was asked for with the messages of the queue, and tells what came of it.
async fn swept(
    door: &QueueDoor,
    stopping: &CancellationToken,
    name: &str,
    sweep: Sweep,
) -> Result<Response<Answer>, Refusal> {
    let began_ms = sweep.began_ms;
    let swept = door.sweep(name, sweep, stopping, |_| ()).await?;
    let left = swept.left.into_iter().map(|left| {
        json!({ "message_id": left.message_id, "place": left.place.to_string(), "why": left.why.to_string() })
    });
    let outcome = json!({
        "matched": swept.matched,
        "done": swept.done,
        "left": left.collect::<Vec<_>>(),
        "next": swept.next.map(|next| next.to_string()),
        "began_ms": began_ms,
    });
    Ok(told(StatusCode::OK, &outcome))
}
