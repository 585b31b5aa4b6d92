//! The listeners of a door, and all that serves behind them: opened, closed and dropped together.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::net::listener::{ConnectionLimits, Listener, accept};
use crate::telemetry::ConnectionCounters;

/// Listeners that are served. Dropped, they are closed at once, whatever their tasks do.
pub(super) struct Serving {
    listeners: Vec<Listener>,
    addresses: Vec<SocketAddr>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Serving {
    /// Has `serve` serve each connection that comes, until `stop`.
    ///
    /// # Errors
    /// The system's, when it does not tell where they listen.
    pub(super) fn open<F>(
        listeners: Vec<Listener>,
        limits: &ConnectionLimits,
        counters: &Arc<ConnectionCounters>,
        stop: CancellationToken,
        serve: impl Fn(TcpStream) -> F + Clone + Send + 'static,
    ) -> io::Result<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let addresses = listeners.iter().map(Listener::local_addr).collect::<io::Result<_>>()?;
        let mut tasks = JoinSet::new();
        for listener in &listeners {
            let serve = serve.clone();
            let serve = move |stream, _| serve(stream);
            tasks.spawn(accept(listener.clone(), limits.clone(), Arc::clone(counters), stop.clone(), serve));
        }
        Ok(Self { listeners, addresses, tasks, stop })
    }

    /// The address of each listener, in order.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Ends, after the requests under way.
    pub(super) async fn close(&mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.tasks.abort_all();
        self.listeners.iter().for_each(Listener::close);
    }
}
