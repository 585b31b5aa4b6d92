//! Listeners: accept, limit the number of connections, drain at shutdown.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::net::sockopt::{set_tcp_congestion, tcp_congestion};
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

/// Congestion control within one machine, where there is nothing to avoid. Every Linux has it and lets everybody choose it, and it
/// does not pace: a system whose default does (BBR) sets a timer of high resolution for each packet, which doubles what sending costs.
const UNPACED: &str = "reno";

/// A listening socket that can be closed while a task accepts on it: then its address is free at once, whenever the task
/// runs next. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Listener {
    socket: Arc<Mutex<Option<TcpListener>>>,
    /// The system's congestion control, which connections from elsewhere get. They all begin without pacing, since a connection
    /// that has begun with it keeps it; `None` if they begin with the system's.
    default_congestion: Option<Arc<str>>,
}

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
        let default_congestion = begin_unpaced(&socket);
        socket.listen(BACKLOG)?;
        let socket = Arc::new(Mutex::new(Some(TcpListener::from_std(socket.into())?)));
        Ok(Self { socket, default_congestion })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system's; that it is closed.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket
            .lock()
            .as_ref()
            .map_or_else(|| Err(io::ErrorKind::NotConnected.into()), TcpListener::local_addr)
    }

    /// Closes the socket.
    pub fn close(&self) {
        self.socket.lock().take();
    }

    /// The next connection; `None` when the socket has been closed.
    async fn accept(&self) -> Option<io::Result<(TcpStream, SocketAddr)>> {
        poll_fn(|cx| match &*self.socket.lock() {
            Some(listener) => listener.poll_accept(cx).map(Some),
            None => Poll::Ready(None),
        })
        .await
    }

    /// Gets a connection that was accepted here ready to be served.
    ///
    /// # Errors
    /// The system's, when the connection is lost already.
    fn set_up(&self, stream: &TcpStream, peer: SocketAddr) -> io::Result<()> {
        stream.set_nodelay(true)?;
        if let Some(congestion) = &self.default_congestion
            && !is_within_machine(peer.ip(), stream.local_addr()?.ip())
            && let Err(error) = set_tcp_congestion(stream, congestion)
        {
            debug!(%peer, %error, %congestion, "connection keeps {UNPACED}");
        }
        Ok(())
    }
}

/// Lets the connections of a socket that is to listen begin without pacing, and gives the congestion control that they would
/// have had: `None` where the system does not let it be chosen.
fn begin_unpaced(socket: &Socket) -> Option<Arc<str>> {
    let default = tcp_congestion(socket).ok()?;
    set_tcp_congestion(socket, UNPACED).ok()?;
    Some(default.into())
}

/// Whether a connection between these addresses never leaves the machine.
fn is_within_machine(peer: IpAddr, local: IpAddr) -> bool {
    peer == local || peer.to_canonical().is_loopback()
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
                    if let Err(error) = listener.set_up(&stream, peer) {
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

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    /// The congestion control of a connection to a listener at `address`, set up as one from `peer` if that is given.
    async fn congestion(address: SocketAddr, peer: Option<IpAddr>) -> String {
        let listener = Listener::bind(address).unwrap();
        let port = listener.local_addr().unwrap().port();
        let _client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let (stream, from) = listener.accept().await.unwrap().unwrap();
        listener.set_up(&stream, peer.map_or(from, |peer| (peer, from.port()).into())).unwrap();
        assert!(stream.nodelay().unwrap());
        tcp_congestion(&stream).unwrap()
    }

    #[tokio::test]
    async fn only_connections_that_leave_the_machine_have_the_systems_congestion_control() {
        let default = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap();
        let elsewhere = Some(Ipv4Addr::new(192, 0, 2, 1).into());
        for address in
            [Ipv4Addr::LOCALHOST.into(), Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
        {
            let address = SocketAddr::new(address, 0);
            assert_eq!(congestion(address, None).await, UNPACED, "{address}");
            assert_eq!(congestion(address, elsewhere).await, default.trim_end(), "{address}");
        }
    }

    #[test]
    fn who_connects_to_an_address_of_his_own_machine_is_within_it() {
        let [own, other] = [7, 8].map(|last| IpAddr::from([192, 0, 2, last]));
        assert!(is_within_machine(own, own));
        assert!(!is_within_machine(other, own));
        assert!(is_within_machine(Ipv4Addr::new(127, 0, 0, 9).into(), Ipv4Addr::LOCALHOST.into()));
        let mapped: IpAddr = Ipv4Addr::LOCALHOST.to_ipv6_mapped().into();
        assert!(is_within_machine(mapped, mapped));
        assert!(is_within_machine(mapped, Ipv6Addr::LOCALHOST.into()));
    }
}
