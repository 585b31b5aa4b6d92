//! One HTTP connection, whatever is served over it: bounded in patience, memory and life.

use std::error::Error;
use std::pin::pin;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::HttpService;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::telemetry::Closed;

/// Longest that the request under way at the end of a connection's life may take: a long poll, and some more.
const LAST_REQUEST_MAX: Duration = Duration::from_secs(30);

/// Longest that the last answer of a connection may take when the broker stops.
const DRAIN: Duration = Duration::from_millis(200);

/// What a connection may take.
pub(super) struct Bounds {
    /// Longest that it waits for its next request, or for the headers of it.
    pub(super) idle: Duration,
    /// Longest that it lives: then it ends after the request under way. Who reads slowly is bounded by it too.
    pub(super) life: Duration,
    /// Headers of a request; more are answered with 431.
    pub(super) headers: usize,
    /// Memory that it reads into and writes from, bytes: what a request's line and headers must fit into.
    pub(super) buffer_bytes: usize,
}

/// Serves one connection until its peer, its bounds or `stop` end it, and says which. While a call waits, hyper watches for the
/// end of the connection, and drops the call with it.
pub(super) async fn converse<S, B>(
    stream: TcpStream,
    service: S,
    bounds: &Bounds,
    stop: &CancellationToken,
) -> Closed
where
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.idle)
        .max_headers(bounds.headers)
        .max_buf_size(bounds.buffer_bytes)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        ended = connection.as_mut() => match ended {
            Ok(()) => Closed::Peer,
            Err(error) if error.is_timeout() => Closed::Idle,
            Err(error) if error.is_parse() => Closed::Malformed,
            Err(_) => Closed::Lost,
        },
        (closed, patience) = async {
            tokio::select! {
                () = stop.cancelled() => (Closed::Shutdown, DRAIN),
                () = sleep(bounds.life) => (Closed::Idle, LAST_REQUEST_MAX),
            }
        } => {
            connection.as_mut().graceful_shutdown();
            let _: Result<_, _> = timeout(patience, connection).await;
            closed
        }
    }
}
