//! HTTP for operators: `/metrics` for Prometheus, `/healthz` while the process lives, `/readyz` while it serves; and [`queues`]
//! for everybody. A second door beside [`crate::net`], open from before the logs are until after they are closed, so that a
//! long recovery or a stop can be told from a dead process.
//!
//! Bounded: the number of connections, each with one request at a time, little memory, and an end of its patience and of its life.

mod body;
mod conversation;
mod loans;
mod metrics;
mod queues;
mod receipt;
mod serving;
pub mod sqs;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::conversation::Bounds;
use self::loans::Loans;
use self::metrics::Exposition;
pub use self::metrics::Observed;
use self::serving::Serving;
use crate::handlers::Later;
use crate::net::listener::{ConnectionLimits, Listener};
use crate::telemetry::{Closed, ConnectionCounters, Text};

/// Connections that may be open; more wait to be accepted.
const CONNECTIONS_MAX: usize = 256;

/// Receives that may wait at a time; others answer at once. Connections are left for who asks how the broker is.
const WAITING_MAX: usize = CONNECTIONS_MAX / 4 * 3;

/// Headers of a request; more are answered with 431.
const HEADERS_MAX: usize = 64;

/// Memory that a connection reads into and writes from, bytes: what a request's line and headers must fit into.
const BUFFER_BYTES: usize = 16 << 10;

/// Longest that a connection waits for its next request, or for the rest of it; `connections.max.idle.ms` may be less.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Longest that a connection lives: then it ends after the request under way. Who reads slowly is bounded by it too.
const LIFE_MAX: Duration = Duration::from_secs(300);

/// The HTTP listeners of a broker, serving. Dropped, they are closed at once, whatever their tasks do.
pub struct Doors {
    site: Arc<Site>,
    serving: Serving,
}

impl Doors {
    /// Serves at `listeners`; not ready before [`Doors::observe`].
    ///
    /// # Errors
    /// The system's, when it does not tell where they listen.
    pub fn open(listeners: Vec<Listener>, connections_max_idle: Duration) -> io::Result<Self> {
        let site = Arc::new(Site {
            observed: OnceLock::new(),
            connections: Arc::default(),
            waiting: Semaphore::new(WAITING_MAX),
            idle: connections_max_idle.min(IDLE_MAX),
        });
        let limits = ConnectionLimits::new(CONNECTIONS_MAX, CONNECTIONS_MAX);
        let stop = CancellationToken::new();
        let (shown, stopped) = (Arc::clone(&site), stop.clone());
        let serve = move |stream| converse(stream, Arc::clone(&shown), stopped.clone());
        let serving = Serving::open(listeners, &limits, &site.connections, stop, serve)?;
        Ok(Self { site, serving })
    }

    /// The address of each listener, in order.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.serving.addresses()
    }

    /// The broker answers: from now on it is ready, until it stops.
    pub fn observe(&self, observed: Observed) {
        // The first one stays: a broker becomes ready once.
        let _: Result<(), _> = self.site.observed.set(observed);
    }

    /// Ends, after the requests under way.
    pub async fn close(&mut self) {
        self.serving.close().await;
    }
}

/// What all requests see.
struct Site {
    /// Empty until the broker is ready.
    observed: OnceLock<Observed>,
    connections: Arc<ConnectionCounters>,
    /// Places for receives that wait.
    waiting: Semaphore,
    idle: Duration,
}

/// Serves one connection, and counts its end.
async fn converse(stream: TcpStream, site: Arc<Site>, stop: CancellationToken) {
    let loans = Loans::default();
    let peer = stream.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip());
    let service =
        service_fn(|request| async { Ok::<_, Infallible>(site.answer(request, peer, &loans).await) });
    let bounds = Bounds { idle: site.idle, life: LIFE_MAX, headers: HEADERS_MAX, buffer_bytes: BUFFER_BYTES };
    let closed = conversation::converse(stream, service, &bounds, &stop).await;
    site.connections.closed(closed);
    // What the broker has closed says nothing about who works at the other end.
    let is_gone = matches!(closed, Closed::Peer | Closed::Lost | Closed::Malformed);
    if let Some(observed) = site.observed.get().filter(|_| is_gone) {
        loans.give_back(&observed.shared.door).await;
    }
}

impl Site {
    async fn answer(&self, request: Request<Incoming>, peer: IpAddr, loans: &Loans) -> Response<Answer> {
        let page = match request.uri().path() {
            path if queues::is_path(path) => {
                return queues::answer(self, peer, loans, request).await;
            }
            "/metrics" => Self::metrics,
            "/healthz" => Self::health,
            "/readyz" => Self::readiness,
            _ => {
                return text(
                    StatusCode::NOT_FOUND,
                    "not found; there are /metrics, /healthz, /readyz and /queues\n",
                );
            }
        };
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        page(self)
    }

    fn metrics(&self) -> Response<Answer> {
        match self.observed.get() {
            Some(observed) => {
                let exposition = Exposition::new(observed.clone(), Arc::clone(&self.connections));
                respond(
                    StatusCode::OK,
                    Text::MEDIA_TYPE,
                    Answer::Metrics(Box::pin(Box::new(exposition).next())),
                )
            }
            None => self.readiness(),
        }
    }

    fn health(&self) -> Response<Answer> {
        text(StatusCode::OK, "alive\n")
    }

    fn readiness(&self) -> Response<Answer> {
        match self.observed.get() {
            None => text(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
            Some(observed) if observed.is_stopping() => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            Some(_) => text(StatusCode::OK, "ready\n"),
        }
    }
}

fn text(status: StatusCode, text: &'static str) -> Response<Answer> {
    respond(status, "text/plain; charset=utf-8", Answer::whole(text))
}

fn respond(status: StatusCode, media_type: &'static str, body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The body of an answer: what is left of it.
enum Answer {
    Whole(Bytes),
    /// The next piece on its way: made when the peer has taken the one before.
    Metrics(Later<Option<(Bytes, Box<Exposition>)>>),
}

impl Answer {
    /// One that is there.
    fn whole(body: impl Into<Bytes>) -> Self {
        Self::Whole(body.into())
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let answer = self.get_mut();
        let (piece, rest) = match answer {
            Self::Whole(rest) if rest.is_empty() => return Poll::Ready(None),
            Self::Whole(rest) => (std::mem::take(rest), Self::whole("")),
            Self::Metrics(next) => match ready!(next.as_mut().poll(cx)) {
                Some((piece, exposition)) => (piece, Self::Metrics(Box::pin(exposition.next()))),
                None => {
                    *answer = Self::whole("");
                    return Poll::Ready(None);
                }
            },
        };
        *answer = rest;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(rest) if rest.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(rest) => SizeHint::with_exact(rest.len() as u64),
            Self::Metrics(_) => SizeHint::default(),
        }
    }
}
