//! Queues for whoever has curl: JSON over HTTP, described by one OpenAPI document ([`DOCUMENT`]), ending at the queues' operations
//! ([`crate::operations`]).
//!
//! Bounded: a request in bytes, in time and in how many things it asks for; large ones take their memory from the same budget
//! as Kafka's. A receive waits as one task; when its client goes away, it ends before it has taken a message.

mod bounded;
mod error;
mod letters;
mod message;
mod query;
mod settings;
mod stats;

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::{ALLOW, CONNECTION, HOST, HeaderMap, HeaderValue, ORIGIN, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Version};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use self::bounded::{Integer, Object};
use self::error::Refusal;
use self::message::{Batch, MESSAGES_MAX, Message, Receive, ReceivedMessage, SentMessage, Settle};
use self::query::Query;
use self::settings::Changes;
use super::loans::Loans;
use super::receipt::Handle;
use super::{Answer, Observed, Site, body, respond};
use crate::net::budget::FREE_BYTES;
use crate::operations::{Queue, QueueDoor, QueueRefusal, Receipt, Wanted, consumer_name};
use crate::queue::Settlement;

/// What can be asked, and what is answered.
const DOCUMENT: &str = include_str!("openapi.json");

/// Where [`DOCUMENT`] is, and no queue.
const DOCUMENT_NAME: &str = "openapi.json";

/// Largest request, bytes.
const REQUEST_MAX_BYTES: usize = 8 << 20;

/// Longest that a request takes to arrive; `connections.max.idle.ms` may be less.
const REQUEST_MAX: Duration = Duration::from_secs(10);

/// A place below `/queues`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place<'a> {
    Document,
    Queues,
    Queue(&'a str),
    Messages(&'a str),
    Message(&'a str, &'a str),
    Receive(&'a str),
    Settle(&'a str),
    Purge(&'a str),
    DeadLetters(&'a str),
    Redrive(&'a str),
}

impl<'a> Place<'a> {
    fn of(path: &'a str) -> Option<Self> {
        let parts: Vec<&str> = path.splitn(6, '/').collect();
        Some(match parts[..] {
            ["", "queues"] => Self::Queues,
            ["", "queues", DOCUMENT_NAME] => Self::Document,
            ["", "queues", "", ..] => return None,
            ["", "queues", name] => Self::Queue(name),
            ["", "queues", name, "messages"] => Self::Messages(name),
            ["", "queues", name, "messages", receipt] => Self::Message(name, receipt),
            ["", "queues", name, "receive"] => Self::Receive(name),
            ["", "queues", name, "settle"] => Self::Settle(name),
            ["", "queues", name, "purge"] => Self::Purge(name),
            ["", "queues", name, "dead-letters"] => Self::DeadLetters(name),
            ["", "queues", name, "redrive"] => Self::Redrive(name),
            _ => return None,
        })
    }

    /// The methods that it takes.
    fn allow(self) -> &'static str {
        match self {
            Self::Document | Self::DeadLetters(_) => "GET, HEAD",
            Self::Messages(_) => "GET, HEAD, POST",
            Self::Queues => "GET, HEAD, POST",
            Self::Queue(_) => "GET, HEAD, PATCH, DELETE",
            Self::Receive(_) | Self::Settle(_) | Self::Purge(_) | Self::Redrive(_) => "POST",
            Self::Message(..) => "DELETE",
        }
    }
}

/// Whether a path is one of this door's.
pub(super) fn is_path(path: &str) -> bool {
    path.strip_prefix("/queues").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Answers a request of a peer, over a connection that has these loans.
pub(super) async fn answer(
    site: &Site,
    peer: IpAddr,
    loans: &Loans,
    request: Request<Incoming>,
) -> Response<Answer> {
    let answered = match site.observed.get() {
        None => Err(Refusal::not_now("starting")),
        Some(observed) if observed.is_stopping() => Err(Refusal::not_now("stopping")),
        Some(observed) => perform(site, observed, peer, loans, request).await,
    };
    answered.unwrap_or_else(|refusal| {
        let mut response = told(refusal.status, &json!({ "error": refusal }));
        let headers = response.headers_mut();
        match refusal.status {
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(ALLOW, HeaderValue::from_static(refusal.allow));
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    })
}

async fn perform(
    site: &Site,
    observed: &Observed,
    peer: IpAddr,
    loans: &Loans,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Refusal> {
    let (parts, body) = request.into_parts();
    let place = Place::of(parts.uri.path()).ok_or_else(Refusal::not_found)?;
    let method = if parts.method == Method::HEAD { Method::GET } else { parts.method };
    if !place.allow().split(", ").any(|allowed| allowed == method.as_str()) {
        return Err(Refusal::method(place.allow()));
    }
    let query = Query::parse(parts.uri.query())?;
    if is_foreign(&parts.headers) {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "foreign_origin", "asked by a page of another site"));
    }
    let (door, stopping) = (&observed.shared.door, &observed.shared.stopping);
    let query = match place {
        Place::Messages(name) if method == Method::GET => return letters::peek(door, name, query).await,
        Place::DeadLetters(name) => return letters::list(door, name, query).await,
        _ => query,
    };
    query.end()?;
    // Who closes the connection after the answer does not vanish by that.
    let kept = Some(loans).filter(|_| stays(parts.version, &parts.headers));
    match place {
        Place::Document => Ok(respond(StatusCode::OK, "application/json", Answer::whole(DOCUMENT))),
        Place::Queues if method == Method::GET => list(door).await,
        Place::Queue(name) if method == Method::GET => describe(door, &queue(door, name)?).await,
        Place::Queue(name) if method == Method::DELETE => {
            door.delete(name).await?;
            Ok(nothing())
        }
        Place::Message(name, receipt) => acknowledge(door, loans, name, receipt).await,
        _ => {
            let wanted = body.size_hint().upper().map_or(REQUEST_MAX_BYTES, |bytes| bytes as usize);
            let patience = site.idle.min(REQUEST_MAX);
            let share = async {
                // What is too large is refused without waiting for room.
                match (FREE_BYTES + 1..=REQUEST_MAX_BYTES).contains(&wanted) {
                    true => Some(observed.budget.share(wanted).await),
                    false => None,
                }
            };
            let too_busy = |_| Refusal::not_now("there is no room for large requests");
            let _share = timeout(patience, share).await.map_err(too_busy)?;
            let body = body::read(body, REQUEST_MAX_BYTES, patience).await?;
            match place {
                Place::Queues => create(door, &body).await,
                Place::Queue(name) => configure(door, name, &body).await,
                Place::Messages(name) => send(door, name, &body).await,
                Place::Receive(name) => {
                    let agent = parts.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok());
                    receive(door, &site.waiting, kept, name, &body, (agent, peer)).await
                }
                Place::Settle(name) => settle(door, loans, name, &body).await,
                Place::Purge(name) => letters::purge(door, stopping, name, &body).await,
                Place::Redrive(name) => letters::redrive(door, stopping, name, &body).await,
                Place::Document | Place::Message(..) | Place::DeadLetters(_) => {
                    Err(Refusal::method(place.allow()))
                }
            }
        }
    }
}

/// Whether the client means to go on using its connection.
fn stays(version: Version, headers: &HeaderMap) -> bool {
    let says = |word: &str| {
        let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|said| said.trim().eq_ignore_ascii_case(word))
    };
    if version == Version::HTTP_10 { says("keep-alive") } else { !says("close") }
}

/// Whether a browser asks for a page that is not of this site: the queues of whoever reads it are none of its business.
fn is_foreign(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    headers.get(ORIGIN).is_some_and(|origin| {
        let site = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        site.map(|(_, site)| site) != host
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewQueue {
    name: String,
    partitions: Option<Integer>,
    #[serde(default)]
    settings: Changes,
}

async fn create(door: &QueueDoor, body: &Bytes) -> Result<Response<Answer>, Refusal> {
    let NewQueue { name, partitions, settings } = parse(body)?;
    if name == DOCUMENT_NAME {
        return Err(QueueRefusal::InvalidName(format!("{name} is no queue here")).into());
    }
    // As a number that none has, what is out of range is refused as such.
    let partitions = partitions.map(|Integer(count)| i32::try_from(count).unwrap_or(-1));
    let configs = settings::configs(settings)?;
    // What is to have its default is not said.
    let configs = configs.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let queue = door.create(&name, partitions, configs).await?;
    Ok(told(StatusCode::CREATED, &shown(&queue)))
}

async fn list(door: &QueueDoor) -> Result<Response<Answer>, Refusal> {
    let mut queues = Vec::new();
    for queue in door.queues() {
        match counts(door, &queue).await {
            Ok(counts) => queues.push(json!({
                "name": &*queue.name,
                "partitions": queue.partitions,
                "counts": counts,
            })),
            // It has gone meanwhile.
            Err(QueueRefusal::Unknown(_)) => {}
            Err(refusal) => return Err(refusal.into()),
        }
    }
    Ok(told(StatusCode::OK, &json!({ "queues": queues })))
}

async fn describe(door: &QueueDoor, queue: &Queue) -> Result<Response<Answer>, Refusal> {
    let mut shown = shown(queue);
    let stats = door.stats(&queue.name).await?;
    shown["counts"] = stats::counts(&stats.counts);
    shown["stats"] = stats::all(&stats, &*door.counters(&queue.name)?, door.now_ms());
    Ok(told(StatusCode::OK, &shown))
}

fn shown(queue: &Queue) -> Value {
    json!({ "name": &*queue.name, "partitions": queue.partitions, "settings": settings::all(queue) })
}

async fn counts(door: &QueueDoor, queue: &Queue) -> Result<Value, QueueRefusal> {
    Ok(stats::counts(&door.counts(&queue.name).await?))
}

async fn configure(door: &QueueDoor, name: &str, body: &Bytes) -> Result<Response<Answer>, Refusal> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Configure {
        settings: Changes,
    }
    queue(door, name)?;
    let Configure { settings } = parse(body)?;
    let queue = door.configure(name, settings::configs(settings)?).await?;
    Ok(told(StatusCode::OK, &shown(&queue)))
}

/// Sends one message, which is answered by itself, or a batch, each of which is.
async fn send(door: &QueueDoor, name: &str, body: &Bytes) -> Result<Response<Answer>, Refusal> {
    #[derive(Deserialize)]
    struct Form {
        messages: Option<IgnoredAny>,
    }
    queue(door, name)?;
    if parse::<Form>(body)?.messages.is_none() {
        let sent = send_all(door, name, vec![Object(parse(body)?)]).await?;
        let sent = sent.into_iter().next().unwrap_or_else(|| Err(Refusal::not_now("not answered")))?;
        let status = if sent.is_duplicate { StatusCode::OK } else { StatusCode::CREATED };
        return Ok(told(status, &json!(sent)));
    }
    let messages = parse::<Batch>(body)?.messages.0;
    if messages.is_empty() {
        return Err(none_of("messages"));
    }
    let results =
        send_all(door, name, messages).await?.into_iter().map(|sent| result(sent.map(|sent| json!(sent))));
    Ok(told(StatusCode::OK, &json!({ "results": results.collect::<Vec<_>>() })))
}

async fn send_all(
    door: &QueueDoor,
    name: &str,
    messages: Vec<Object<Message>>,
) -> Result<Vec<Result<SentMessage, Refusal>>, Refusal> {
    let mut results = Vec::with_capacity(messages.len());
    let mut outgoing = Vec::with_capacity(messages.len());
    for Object(message) in messages {
        results.push(message.outgoing().map(|message| outgoing.push(message)));
    }
    let mut sent = door.send(name, outgoing).await?.into_iter();
    let mut answered = |()| match sent.next() {
        Some(sent) => sent.map(SentMessage::from).map_err(Refusal::from),
        None => Err(Refusal::not_now("not answered")),
    };
    Ok(results.into_iter().map(|result| result.and_then(&mut answered)).collect())
}

async fn receive(
    door: &QueueDoor,
    waiting: &Semaphore,
    loans: Option<&Loans>,
    name: &str,
    body: &Bytes,
    (agent, peer): (Option<&str>, IpAddr),
) -> Result<Response<Answer>, Refusal> {
    let queue = queue(door, name)?;
    let wanted: Receive = if body.is_empty() { Receive::default() } else { parse(body)? };
    let (max, visibility_ms, wait_ms) = wanted.checked()?;
    let wait_ms = wait_ms.unwrap_or_else(|| u64::try_from(queue.config.receive_wait_ms).unwrap_or_default());
    let place = Some(wait_ms).filter(|wait_ms| *wait_ms > 0).and_then(|_| waiting.try_acquire().ok());
    let wait = place.as_ref().map_or(Duration::ZERO, |_| Duration::from_millis(wait_ms));
    let consumer = consumer_name(wanted.consumer.as_deref().or(agent).unwrap_or_default(), peer);
    let wanted = Wanted { max, visibility_ms, wait: Some(wait) };
    let received = door.receive_for(name, wanted, Some(&consumer)).await?;
    let now_ms = door.now_ms();
    if let Some(loans) = loans.filter(|_| queue.config.lease_ends_with_connection) {
        received.iter().for_each(|delivery| loans.lent(&queue.name, delivery, now_ms));
    }
    let messages: Vec<_> =
        received.into_iter().map(|delivery| ReceivedMessage::new(delivery, now_ms)).collect();
    Ok(told(StatusCode::OK, &Messages { messages }))
}

/// Also when there are none: who receives reads one form of answer.
#[derive(serde::Serialize)]
struct Messages {
    messages: Vec<ReceivedMessage>,
}

async fn settle(
    door: &QueueDoor,
    loans: &Loans,
    name: &str,
    body: &Bytes,
) -> Result<Response<Answer>, Refusal> {
    queue(door, name)?;
    let verdicts = parse::<Settle>(body)?.receipts.0;
    if verdicts.is_empty() {
        return Err(none_of("receipts"));
    }
    let mut what = Vec::with_capacity(verdicts.len());
    let mut errors = Vec::new();
    let mut results = Vec::with_capacity(verdicts.len());
    for Object(verdict) in verdicts {
        let read = verdict.settlement().and_then(|what| Ok((receipt(&verdict.receipt)?, what)));
        let read = read.and_then(|(receipt, what)| Ok((receipt, what, verdict.error()?)));
        results.push(read.map(|(receipt, settlement, error)| {
            what.push((receipt, settlement));
            errors.extend(error.map(|error| (receipt, error)));
        }));
    }
    if !errors.is_empty() {
        door.explain(name, &errors)?;
    }
    let mut settled = settle_all(door, loans, name, what).await?.into_iter();
    let mut answered = |()| settled.next().unwrap_or_else(|| Err(Refusal::not_now("not answered")));
    let settled = results
        .into_iter()
        .map(|read| result(read.and_then(&mut answered).map(|()| json!({ "settled": true }))));
    Ok(told(StatusCode::OK, &json!({ "results": settled.collect::<Vec<_>>() })))
}

async fn acknowledge(
    door: &QueueDoor,
    loans: &Loans,
    name: &str,
    text: &str,
) -> Result<Response<Answer>, Refusal> {
    queue(door, name)?;
    for settled in settle_all(door, loans, name, vec![(receipt(text)?, Settlement::Done)]).await? {
        settled?;
    }
    Ok(nothing())
}

async fn settle_all(
    door: &QueueDoor,
    loans: &Loans,
    name: &str,
    what: Vec<(Receipt, Settlement)>,
) -> Result<Vec<Result<(), Refusal>>, Refusal> {
    let asked_ms = door.now_ms();
    let settled = door.settle(name, what.clone()).await?;
    let said = asked_ms..=door.now_ms();
    for ((receipt, what), _) in what.into_iter().zip(&settled).filter(|(_, settled)| settled.is_ok()) {
        loans.settled(receipt, what, &said);
    }
    Ok(settled.into_iter().map(|settled| settled.map_err(Refusal::from)).collect())
}

fn queue(door: &QueueDoor, name: &str) -> Result<Queue, Refusal> {
    door.queue(name).ok_or_else(|| QueueRefusal::Unknown(name.to_owned()).into())
}

fn receipt(text: &str) -> Result<Receipt, Refusal> {
    Handle::parse(text).map(|handle| handle.receipt).ok_or_else(Refusal::receipt)
}

fn none_of(name: &str) -> Refusal {
    Refusal::invalid(format!("{name}: 1 to {MESSAGES_MAX}"))
}

fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map(|Object(whole)| whole)
        .map_err(|error| Refusal::invalid(format!("the body: {error}")))
}

/// One of several answers.
fn result(done: Result<Value, Refusal>) -> Value {
    done.unwrap_or_else(|refusal| json!({ "error": refusal }))
}

fn told(status: StatusCode, answer: &impl serde::Serialize) -> Response<Answer> {
    let json = serde_json::to_vec(answer).expect("it is made of texts and numbers, and its names are texts");
    respond(status, "application/json", Answer::whole(json))
}

fn nothing() -> Response<Answer> {
    let mut response = Response::new(Answer::whole(""));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_its_path_and_no_other() {
        for (path, place) in [
            ("/queues", Some(Place::Queues)),
            ("/queues/openapi.json", Some(Place::Document)),
            ("/queues/q", Some(Place::Queue("q"))),
            ("/queues/openapi.json/purge", Some(Place::Purge("openapi.json"))),
            ("/queues/q/messages", Some(Place::Messages("q"))),
            ("/queues/q/messages/r", Some(Place::Message("q", "r"))),
            ("/queues/q/receive", Some(Place::Receive("q"))),
            ("/queues/q/settle", Some(Place::Settle("q"))),
            ("/queues/q/dead-letters", Some(Place::DeadLetters("q"))),
            ("/queues/q/redrive", Some(Place::Redrive("q"))),
            ("/queues/", None),
            ("/queues//purge", None),
            ("/queues/q/", None),
            ("/queues/q/messages/r/s", None),
            ("/queues/q/other", None),
        ] {
            assert_eq!(Place::of(path), place, "{path}");
        }
        assert!(is_path("/queues") && is_path("/queues/x") && !is_path("/queuesx") && !is_path("/metrics"));
    }

    #[test]
    fn a_connection_stays_unless_its_client_says_otherwise() {
        let says = |word: &'static str| HeaderMap::from_iter([(CONNECTION, HeaderValue::from_static(word))]);
        assert!(stays(Version::HTTP_11, &HeaderMap::new()) && !stays(Version::HTTP_11, &says("TE, Close")));
        assert!(!stays(Version::HTTP_10, &HeaderMap::new()) && stays(Version::HTTP_10, &says("keep-alive")));
    }

    #[test]
    fn a_page_of_another_site_is_told_by_its_origin() {
        let headers = |origin: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("127.0.0.1:9464"));
            headers.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
            headers
        };
        assert!(!is_foreign(&HeaderMap::new()) && !is_foreign(&headers("http://127.0.0.1:9464")));
        assert!(is_foreign(&headers("http://elsewhere")) && is_foreign(&headers("null")));
    }

    #[test]
    fn the_document_tells_of_every_place() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        let paths = document["paths"].as_object().unwrap();
        for (path, methods) in paths {
            let path = path.replace("{name}", "q").replace("{receipt}", "r");
            let place = Place::of(&path).unwrap_or_else(|| panic!("{path}"));
            let told: Vec<_> =
                methods.as_object().unwrap().keys().filter(|key| *key != "parameters").cloned().collect();
            let taken: Vec<_> =
                place.allow().split(", ").filter(|method| *method != "HEAD").map(str::to_lowercase).collect();
            assert_eq!(told, taken, "{path}");
        }
        assert_eq!(paths.len(), 10);
    }
}
