//! One connection: read frames, begin each request in the order it came, send the answers in that order.
//!
//! A Produce request may be begun while earlier ones still wait for the disk, so that one sync serves many of them;
//! anything else is begun when all before it has been answered, as in Kafka.

use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::io;
use std::iter;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::io::poll_read_buf;
use tracing::{debug, info, warn};

use crate::handlers::{Begun, Outcome, Refusal, Session, accept, connection_closed};
use crate::net::budget::{Budget, FREE_BYTES, Share};
use crate::net::frame::{FrameBuffer, FrameError, SIZE_BYTES as FRAME_SIZE_BYTES};
use crate::net::transmit;
use crate::protocol::wire::Chunks;
use crate::telemetry::Closed;

/// How long a frame that holds a part of the byte budget may take to arrive, beside the time its size explains.
const FRAME_GRACE: Duration = Duration::from_secs(30);

/// Slowest sender that may hold a part of the byte budget, bytes per second.
const SLOWEST_SENDER: u64 = 64 << 10;

/// Requests of one connection that may be begun and not yet answered.
const MOST_PENDING: usize = 256;

/// Bytes of finished answers that are gathered before they are sent.
const GATHER_BYTES: usize = 64 << 10;

/// Limits of one connection.
#[derive(Clone, Debug)]
pub struct Limits {
    /// `socket.request.max.bytes`.
    pub request_max_bytes: usize,
    /// Bytes of requests that one connection may have in flight; a single larger frame still passes alone.
    pub in_flight_max_bytes: usize,
    /// `connections.max.idle.ms`.
    pub idle: Duration,
    /// The budget of all connections together.
    pub budget: Budget,
}

/// Why a connection ended.
enum End {
    Peer,
    Idle,
    Shutdown,
    Socket(io::Error),
    Frame(FrameError),
    Refused(Refusal),
    Closed(String),
    Slow { size: usize },
}

impl End {
    fn closed(&self) -> Closed {
        match self {
            Self::Peer => Closed::Peer,
            Self::Idle => Closed::Idle,
            Self::Shutdown => Closed::Shutdown,
            Self::Socket(_) => Closed::Lost,
            Self::Frame(_) => Closed::Malformed,
            Self::Refused(_) => Closed::Unanswerable,
            Self::Closed(_) => Closed::Unacknowledged,
            Self::Slow { .. } => Closed::Slow,
        }
    }
}

/// A request that has begun and is not yet answered.
struct Pending {
    state: Begun,
    overlapping: bool,
    bytes: usize,
    _share: Share,
}

/// Serves one socket until the peer, the limits or `stop` end it. At `stop`, requests that are being answered get their
/// answers (parked ones are answered at once by their handlers), then the socket is closed.
pub async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    session: Session,
    limits: Limits,
    stop: tokio_util::sync::CancellationToken,
) {
    let mut connection = Connection {
        stream,
        session,
        incoming: FrameBuffer::new(limits.request_max_bytes),
        share: None,
        pending: VecDeque::new(),
        out: Chunks::default(),
        idle: Box::pin(sleep_until(Instant::now() + limits.idle)),
        last_active: Instant::now(),
        frame_deadline: None,
        limits,
    };
    // Looked at when it has come only, not at each step: each look takes a lock that all connections have in common.
    let mut stop: FuturesUnordered<_> = iter::once(stop.cancelled_owned()).collect();
    let end = tokio::select! {
        biased;
        end = connection.run() => end,
        // Answers that are ready still go out; a peer that does not take them does not hold up the shutdown.
        _ = stop.next() => connection.drain().await,
    };
    connection.session.shared.connections.closed(end.closed());
    // Whatever it still waited for takes nothing more.
    connection.pending.clear();
    connection_closed(&connection.session).await;
    match end {
        End::Peer | End::Shutdown => debug!(%peer, "connection closed"),
        End::Idle => debug!(%peer, "connection closed: idle for connections.max.idle.ms"),
        End::Socket(error) => debug!(%peer, %error, "connection lost"),
        End::Frame(error) => warn!(%peer, %error, "connection closed: not a Kafka request"),
        End::Refused(reason) => warn!(%peer, %reason, "connection closed: request cannot be answered"),
        End::Closed(reason) => info!(%peer, reason, "connection closed"),
        End::Slow { size } => warn!(%peer, size, "connection closed: its frame did not arrive in time"),
    }
}

struct Connection {
    stream: TcpStream,
    session: Session,
    incoming: FrameBuffer,
    /// The part of the global budget that the frame under way holds.
    share: Option<Share>,
    pending: VecDeque<Pending>,
    out: Chunks,
    /// One timer, moved only when it fires: requests do not touch it.
    idle: Pin<Box<Sleep>>,
    last_active: Instant,
    frame_deadline: Option<Instant>,
    limits: Limits,
}

impl Connection {
    async fn run(&mut self) -> End {
        loop {
            if let Err(end) = self.turn().await {
                // What was asked before a bad frame is still answered.
                if matches!(end, End::Frame(_) | End::Refused(_) | End::Closed(_)) {
                    let _ = self.finish_pending().await;
                }
                return end;
            }
        }
    }

    async fn turn(&mut self) -> Result<(), End> {
        self.begin_requests().await?;
        self.send().await?;
        self.wait().await
    }

    /// Begins all requests that are here and may begin, and gathers the answers that are ready.
    async fn begin_requests(&mut self) -> Result<(), End> {
        loop {
            self.collect_ready().await?;
            if self.out.gathered_bytes() >= GATHER_BYTES {
                self.send().await?;
            }
            let overlapping_only = !self.pending.is_empty();
            if overlapping_only
                && (self.pending.len() >= MOST_PENDING || !self.pending.iter().all(|p| p.overlapping))
            {
                return Ok(());
            }
            if overlapping_only && !self.next_is_overlapping() {
                return Ok(());
            }
            let Some(size) = self.incoming.announced().map_err(End::Frame)? else {
                return Ok(());
            };
            if self.incoming.held() < FRAME_SIZE_BYTES + size || !self.share_for(size).await {
                return Ok(());
            }
            let (Some(frame), Some(share)) = (self.incoming.take().map_err(End::Frame)?, self.share.take())
            else {
                return Ok(());
            };
            self.frame_deadline = None;
            let bytes = frame.len();
            let request = accept(&self.session, frame).map_err(End::Refused)?;
            let state = if request.overlapping {
                request.begin.await
            } else {
                Begun::Later(Box::pin(async move {
                    match request.begin.await {
                        Begun::Done(outcome) => outcome,
                        Begun::Later(rest) => rest.await,
                    }
                }))
            };
            self.pending.push_back(Pending { state, overlapping: request.overlapping, bytes, _share: share });
        }
    }

    /// Takes the share of the global budget for the frame under way, beyond what the connection has of its own. Waits for it
    /// only while nothing is pending: what is pending holds shares itself, and must be answered to give them back.
    async fn share_for(&mut self, size: usize) -> bool {
        if self.share.is_some() {
            return true;
        }
        if self.in_flight_bytes() + size <= FREE_BYTES {
            self.share = Some(Share::default());
            return true;
        }
        self.share = match self.limits.budget.try_share(size) {
            None if self.pending.is_empty() => Some(self.limits.budget.share(size).await),
            share => share,
        };
        if self.share.is_some() {
            let allowed = FRAME_GRACE + Duration::from_secs(size as u64 / SLOWEST_SENDER);
            self.frame_deadline = Some(Instant::now() + allowed);
        }
        self.share.is_some()
    }

    /// Bytes of requests that have begun and are not answered.
    fn in_flight_bytes(&self) -> usize {
        self.pending.iter().map(|pending| pending.bytes).sum()
    }

    /// Whether the frame at the front is a Produce request: key 0. Only a hint for order; the service decodes it.
    fn next_is_overlapping(&self) -> bool {
        self.incoming.peek_api_key() == Some(0)
    }

    /// Takes the answers off the front of the queue for as long as they are ready, without waiting.
    async fn collect_ready(&mut self) -> Result<(), End> {
        while !self.pending.is_empty() {
            let ready = poll_fn(|cx| Poll::Ready(poll_front(&mut self.pending, cx))).await;
            match ready {
                Poll::Ready(outcome) => self.finish(outcome)?,
                Poll::Pending => return Ok(()),
            }
        }
        Ok(())
    }

    fn finish(&mut self, outcome: Outcome) -> Result<(), End> {
        self.pending.pop_front();
        match outcome {
            Outcome::Answer(encode) => encode(&mut self.out),
            Outcome::Silence => {}
            Outcome::Close(reason) => return Err(End::Closed(reason)),
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<(), End> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.last_active = Instant::now();
        let chunks = self.out.sealed();
        transmit::send_at_once(&self.stream, chunks).map_err(End::Socket)?;
        if chunks.is_empty() {
            return Ok(());
        }
        // A peer that stops reading is as idle as one that stops writing.
        match timeout(self.limits.idle, transmit::send(&self.stream, chunks)).await {
            Ok(sent) => sent.map_err(End::Socket),
            Err(_) => Err(End::Idle),
        }
    }

    /// Waits for what can move the connection on: bytes, the answer at the front, or a deadline.
    async fn wait(&mut self) -> Result<(), End> {
        let announced = self.incoming.announced().map_err(End::Frame)?;
        let may_read = self.may_read(announced).await;
        if self.pending.is_empty() {
            self.incoming.rest();
        }
        let deadline = self.frame_deadline;
        tokio::select! {
            biased;
            outcome = poll_fn(|cx| poll_front(&mut self.pending, cx)) => self.finish(outcome),
            readable = poll_fn(|cx| self.stream.poll_read_ready(cx)), if may_read => {
                readable.map_err(End::Socket)?;
                self.read().await
            }
            () = self.idle.as_mut() => {
                let idle_at = self.last_active + self.limits.idle;
                if idle_at <= Instant::now() && self.pending.is_empty() {
                    return Err(End::Idle);
                }
                self.idle.as_mut().reset(idle_at.max(Instant::now() + Duration::from_millis(10)));
                Ok(())
            }
            () = until(deadline) => Err(End::Slow { size: announced.unwrap_or_default() }),
        }
    }

    /// Whether to read on. A frame that is all here and waits for its turn needs nothing read but a little, to notice a peer
    /// that has gone; beyond what a connection may take freely, the socket stays unread until the frame has its place in memory.
    async fn may_read(&mut self, announced: Option<usize>) -> bool {
        let held = self.incoming.held();
        match announced {
            Some(size) if held < FRAME_SIZE_BYTES + size => {
                let in_flight = self.in_flight_bytes();
                let room = in_flight == 0 || in_flight + size <= self.limits.in_flight_max_bytes;
                room && self.share_for(size).await
            }
            _ => held < FREE_BYTES,
        }
    }

    /// Reads what is there. By way of `AsyncRead`, which knows that a short read has emptied the socket and spares the next
    /// attempt; the buffer is made only now, so that a connection that waits has none.
    async fn read(&mut self) -> Result<(), End> {
        let (stream, mut room) = (&mut self.stream, self.incoming.room());
        match poll_fn(|cx| Poll::Ready(poll_read_buf(Pin::new(&mut *stream), cx, &mut room))).await {
            Poll::Ready(Ok(0)) => Err(End::Peer),
            Poll::Ready(Ok(read)) => {
                self.incoming.arrived(read);
                self.last_active = Instant::now();
                Ok(())
            }
            Poll::Ready(Err(error)) => Err(End::Socket(error)),
            Poll::Pending => Ok(()),
        }
    }

    async fn finish_pending(&mut self) -> Result<(), End> {
        while !self.pending.is_empty() {
            let outcome = poll_fn(|cx| poll_front(&mut self.pending, cx)).await;
            self.finish(outcome)?;
        }
        self.send().await
    }

    /// What a connection still does after the server has been told to stop: answer what it has begun.
    async fn drain(&mut self) -> End {
        match timeout(DRAIN, self.finish_pending()).await {
            Ok(Ok(())) | Err(_) => End::Shutdown,
            Ok(Err(end)) => end,
        }
    }
}

/// Longest that a stopping server waits for one connection's last answers.
const DRAIN: Duration = Duration::from_millis(700);

/// The outcome at the front of the queue; pending forever while the queue is empty.
fn poll_front(queue: &mut VecDeque<Pending>, cx: &mut std::task::Context<'_>) -> Poll<Outcome> {
    let Some(front) = queue.front_mut() else {
        return Poll::Pending;
    };
    match &mut front.state {
        Begun::Later(rest) => rest.as_mut().poll(cx),
        Begun::Done(outcome) => Poll::Ready(std::mem::replace(outcome, Outcome::Silence)),
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}
