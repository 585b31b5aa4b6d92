//! Listeners: accept, limit the number of connections, drain at shutdown.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::telemetry::ConnectionCounters;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Pause after an accept that failed for want of something (file descriptors, memory), ms.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening socket that can be closed while a task accepts on it: then its address is free at once, whenever the task
/// runs next. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Listener(Arc<Mutex<Option<TcpListener>>>);

impl Listener {
    /// Opens a listening socket. Port 0 takes any free one.
    ///
    /// # Errors
    /// The bind's: address in use, no permission, no such address.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let kind = Type::STREAM.nonblocking();
        let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
        // A restarted broker takes its port back although connections of the last one linger.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Self(Arc::new(Mutex::new(Some(TcpListener::from_std(socket.into())?)))))
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system's; that it is closed.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0
            .lock()
            .as_ref()
            .map_or_else(|| Err(io::ErrorKind::NotConnected.into()), TcpListener::local_addr)
    }

    /// Closes the socket.
    pub fn close(&self) {
        self.0.lock().take();
    }

    /// The next connection; `None` when the socket has been closed.
    async fn accept(&self) -> Option<io::Result<(TcpStream, SocketAddr)>> {
        poll_fn(|cx| match &*self.0.lock() {
            Some(listener) => listener.poll_accept(cx).map(Some),
            None => Poll::Ready(None),
        })
        .await
    }
}

/// How many connections there may be: `max.connections` over all listeners, `max.connections.per.ip`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    all: Arc<Semaphore>,
    per_ip: usize,
    by_ip: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A connection's place within the limits, given back when dropped.
#[derive(Debug)]
pub struct Place {
    ip: IpAddr,
    limits: ConnectionLimits,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

impl ConnectionLimits {
    /// At most `all` connections, of which at most `per_ip` from one address.
    pub fn new(all: usize, per_ip: usize) -> Self {
        let all = Arc::new(Semaphore::new(all.min(Semaphore::MAX_PERMITS)));
        Self { all, per_ip, by_ip: Arc::default() }
    }

    /// A place for a connection from `ip`, unless the address has as many as it may.
    fn place(&self, ip: IpAddr, permit: tokio::sync::OwnedSemaphorePermit) -> Option<Place> {
        let mut by_ip = self.by_ip.lock();
        let count = by_ip.entry(ip).or_default();
        if *count >= self.per_ip {
            return None;
        }
        *count += 1;
        Some(Place { ip, limits: self.clone(), _permit: permit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_ip = self.limits.by_ip.lock();
        if let Some(count) = by_ip.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                by_ip.remove(&self.ip);
            }
        }
    }
}

/// Accepts until `stop`, handing each connection to `serve` on a task of its own, and ends when they have ended; dropped
/// before, it ends them too. While `max.connections` are open, new ones wait in the backlog, as in Kafka (KIP-612); one too
/// many from an address is closed at once.
pub async fn accept<F>(
    listener: Listener,
    limits: ConnectionLimits,
    counters: Arc<ConnectionCounters>,
    stop: CancellationToken,
    serve: impl Fn(TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = accept_into(&mut connections, &listener, &limits, &counters, serve) => {}
    }
    listener.close();
    while connections.join_next().await.is_some() {}
}

async fn accept_into<F>(
    connections: &mut JoinSet<()>,
    listener: &Listener,
    limits: &ConnectionLimits,
    counters: &ConnectionCounters,
    serve: impl Fn(TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let permit = Arc::clone(&limits.all).acquire_owned().await.expect("the limit is never closed");
        let accepted = loop {
            tokio::select! {
                biased;
                // Only to forget those that have ended.
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => break accepted,
            }
        };
        match accepted {
            None => return,
            Some(Ok((stream, peer))) => match limits.place(peer.ip(), permit) {
                Some(place) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        debug!(%peer, %error, "connection lost before its first request");
                        continue;
                    }
                    counters.accepted.increment();
                    let connection = serve(stream, peer);
                    connections.spawn(async move {
                        connection.await;
                        drop(place);
                    });
                }
                None => {
                    counters.refused.increment();
                    warn!(%peer, limit = limits.per_ip, "connection closed: max.connections.per.ip reached");
                }
            },
            Some(Err(error)) => {
                counters.accept_failures.increment();
                warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
