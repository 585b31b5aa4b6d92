//! SQS: queues for every AWS SDK, at a listener of its own. AWS JSON 1.0 and the older Query protocol are told apart by each call
//! and lead to the same actions ([`actions`]), which end at the queues' operations ([`crate::operations`]).
//!
//! Bounded: requests in size and time, by the same budget as Kafka's; a long poll is one waiting task. Those that wait
//! need no bound of their own: connections have one, and nothing else is asked here that would have to be answered beside them.
//! When a client goes away while its call waits, the call ends with it, before it has taken any message.

mod actions;
mod answer;
mod attempts;
mod attributes;
mod error;
mod form;
mod message;
mod names;
mod request;
mod signature;
mod tasks;

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::actions::Context;
use self::answer::{Protocol, failure};
use self::attempts::Attempts;
use self::error::SqsError;
use self::names::Place;
use self::request::Call;
pub use self::signature::Credentials;
use self::signature::Signed;
use self::tasks::Tasks;
use crate::clock::TimestampMs;
use crate::http::body;
use crate::http::conversation::{self, Bounds};
use crate::http::serving::Serving;
use crate::net::budget::{Budget, FREE_BYTES};
use crate::net::listener::{ConnectionLimits, Listener};
use crate::operations::QueueDoor;
use crate::telemetry::ConnectionCounters;
use crate::uuid::Uuid;

/// Largest request, bytes: a batch of a MiB, all of it escaped.
const REQUEST_MAX_BYTES: usize = 8 << 20;

/// Headers of a request; more are answered with 431.
const HEADERS_MAX: usize = 100;

/// Memory that a connection reads into and writes from, bytes: what a request's line and headers must fit into.
const BUFFER_BYTES: usize = 64 << 10;

/// Longest that a connection waits for its next request, or for the headers of it; `connections.max.idle.ms` may be less.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Longest that the body of a request may take to arrive.
const BODY_MAX: Duration = Duration::from_secs(30);

/// Longest that a connection lives: then it ends after the request under way. Who reads slowly is bounded by it too.
const LIFE_MAX: Duration = Duration::from_secs(3600);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const QUERY_ERROR: HeaderName = HeaderName::from_static("x-amzn-query-error");

/// How the SQS listeners serve.
pub struct Settings {
    /// Region of ARNs.
    pub region: String,
    /// Account of ARNs and URLs.
    pub account_id: String,
    /// Who may ask; without, anybody.
    pub credentials: Option<Credentials>,
    /// `connections.max.idle.ms`.
    pub connections_max_idle: Duration,
    /// `max.connections`.
    pub connections_max: usize,
    /// `max.connections.per.ip`.
    pub connections_per_ip_max: usize,
    /// What large requests take their memory from.
    pub budget: Budget,
}

/// The SQS listeners of a broker, serving. Dropped, they are closed at once, whatever their tasks do.
pub struct SqsDoors {
    serving: Serving,
    /// Tasks that move messages have no connection to end with.
    _stop_when_dropped: DropGuard,
}

/// What all requests see.
struct Site {
    door: QueueDoor,
    place: Place,
    credentials: Option<Credentials>,
    idle: Duration,
    budget: Budget,
    connections: Arc<ConnectionCounters>,
    stop: CancellationToken,
    /// Held while kept attributes are read, changed and stored: each change begins with what the one before has left.
    changes: tokio::sync::Mutex<()>,
    /// When queues were purged last, by the id of their topic; of those that must not be purged again yet.
    purges: Mutex<HashMap<Uuid, TimestampMs>>,
    attempts: Attempts,
    tasks: Tasks,
}

impl SqsDoors {
    /// Serves at `listeners` what lies behind `door`, counting connections.
    ///
    /// # Errors
    /// The system's, when it does not tell where they listen.
    pub fn open(
        listeners: Vec<Listener>,
        door: QueueDoor,
        settings: Settings,
        connections: Arc<ConnectionCounters>,
    ) -> io::Result<Self> {
        let limits = ConnectionLimits::new(settings.connections_max, settings.connections_per_ip_max);
        let stop = CancellationToken::new();
        let site = Arc::new(Site {
            door,
            place: Place { region: settings.region, account_id: settings.account_id },
            credentials: settings.credentials,
            idle: settings.connections_max_idle.min(IDLE_MAX),
            budget: settings.budget,
            connections,
            stop: stop.clone(),
            changes: tokio::sync::Mutex::default(),
            purges: Mutex::default(),
            attempts: Attempts::default(),
            tasks: Tasks::default(),
        });
        let _stop_when_dropped = stop.clone().drop_guard();
        let counters = Arc::clone(&site.connections);
        let serve = move |stream| converse(stream, Arc::clone(&site));
        let serving = Serving::open(listeners, &limits, &counters, stop, serve)?;
        Ok(Self { serving, _stop_when_dropped })
    }

    /// The address of each listener, in order.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.serving.addresses()
    }

    /// Ends, after the requests under way.
    pub async fn close(&mut self) {
        self.serving.close().await;
    }
}

/// Serves one connection, and counts its end.
async fn converse(stream: TcpStream, site: Arc<Site>) {
    let local = stream.local_addr().map(|address| address.to_string()).unwrap_or_default();
    let peer = stream.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip());
    let ends = (&*local, peer);
    let service = service_fn(|request| async { Ok::<_, Infallible>(site.answer(request, ends).await) });
    let bounds = Bounds { idle: site.idle, life: LIFE_MAX, headers: HEADERS_MAX, buffer_bytes: BUFFER_BYTES };
    let closed = conversation::converse(stream, service, &bounds, &site.stop).await;
    site.connections.closed(closed);
}

impl Site {
    async fn answer(self: &Arc<Self>, request: Request<Incoming>, ends: (&str, IpAddr)) -> Response<Whole> {
        let (parts, body) = request.into_parts();
        let request_id = Uuid::random().hyphenated();
        match self.perform(&parts, body, ends, &request_id).await {
            Ok((protocol, answer)) => respond(protocol, StatusCode::OK, &request_id, answer),
            Err((protocol, error)) => {
                match &error {
                    SqsError::Internal(reason) => {
                        tracing::error!(reason, request_id, "an SQS request failed")
                    }
                    refused => tracing::debug!(%refused, request_id, "an SQS request was refused"),
                }
                let body = failure(protocol, &request_id, &error);
                let mut response = respond(protocol, error.form().status, &request_id, body);
                if protocol == Protocol::Json {
                    let fault = if error.is_senders_fault() { "Sender" } else { "Receiver" };
                    let code = HeaderValue::from_str(&format!("{};{fault}", error.form().query_code));
                    response.headers_mut().extend(code.ok().map(|code| (QUERY_ERROR, code)));
                }
                response
            }
        }
    }

    async fn perform(
        self: &Arc<Self>,
        parts: &Parts,
        body: Incoming,
        (local, peer): (&str, IpAddr),
        request_id: &str,
    ) -> Result<(Protocol, Vec<u8>), (Protocol, SqsError)> {
        let protocol =
            if parts.headers.contains_key("x-amz-target") { Protocol::Json } else { Protocol::Query };
        let failed = |error| (protocol, error);
        let expected = body.size_hint().upper().map_or(REQUEST_MAX_BYTES, |bytes| bytes as usize);
        if expected > REQUEST_MAX_BYTES && body.size_hint().upper().is_some() {
            return Err(failed(SqsError::TooLong { limit: REQUEST_MAX_BYTES }));
        }
        let _share = match expected > FREE_BYTES {
            true => Some(self.budget.share(expected).await),
            false => None,
        };
        let body =
            body::read(body, REQUEST_MAX_BYTES, BODY_MAX).await.map_err(|fault| failed(fault.into()))?;
        if let Some(credentials) = &self.credentials {
            let signed = Signed {
                method: &parts.method,
                path: parts.uri.path(),
                query: parts.uri.query().unwrap_or_default(),
                headers: &parts.headers,
                body: &body,
            };
            credentials.verify(&signed, self.door.now_ms()).map_err(failed)?;
        }
        let call = Call::new(&parts.method, parts.uri.query(), &parts.headers, body)?;
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or(local);
        let agent = parts.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        let (path, body) = (parts.uri.path(), call.body());
        let cx = Context { site: self, host, path, body, agent, peer };
        let answer = actions::perform(&cx, &call, request_id).await.map_err(failed)?;
        Ok((call.protocol, answer))
    }
}

fn respond(protocol: Protocol, status: StatusCode, request_id: &str, body: Vec<u8>) -> Response<Whole> {
    let mut response = Response::new(Whole(body.into()));
    *response.status_mut() = status;
    let media_type = match protocol {
        Protocol::Json => "application/x-amz-json-1.0",
        Protocol::Query => "text/xml",
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.extend(HeaderValue::from_str(request_id).ok().map(|id| (REQUEST_ID, id)));
    response
}

/// A body that is there.
struct Whole(Bytes);

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let rest = std::mem::take(&mut self.0);
        Poll::Ready((!rest.is_empty()).then(|| Ok(Frame::data(rest))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}
