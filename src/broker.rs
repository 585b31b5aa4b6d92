//! A running broker: log directory, catalog and listeners, started and stopped in order.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::catalog::state::NewTopic;
use crate::catalog::takeover::{self, TakeoverError};
use crate::catalog::{CATALOG_LOG, CONSUMER_OFFSETS, Catalog, CatalogError, SHARE_GROUP_STATE};
use crate::clock::Clock;
use crate::config::{Config, ConfigMap, Endpoint, QueueSpec, TopicSpec};
use crate::coordinator::CoordinatorError;
use crate::group::{self, Groups};
use crate::handlers::fetch_sessions::FetchSessions;
use crate::handlers::share_sessions::ShareSessions;
use crate::handlers::{Session, Shared, request_counters};
use crate::http::sqs::{self, Credentials, SqsDoors};
use crate::http::{Doors, Observed};
use crate::log::ephemeral::EphemeralDirectory;
use crate::log::{DirectoryOptions, LogDirectories, OpenDirectoryError};
use crate::net::budget::Budget;
use crate::net::connection::{self, Limits};
use crate::net::listener::{ConnectionLimits, Listener, accept};
use crate::net::probe;
use crate::operations::QueueDoor;
use crate::queue::{QueueFailure, Queues};
use crate::storage::{BoundedDisk, Disk, Durability, StdDisk, replace_file};

/// Longest that a stopping broker waits for its connections to take their last answers.
const DRAIN: Duration = Duration::from_millis(900);

/// Bytes that os mode leaves unsynced at most: what a stop has to sync.
const OS_UNSYNCED_MAX_BYTES: u64 = 64 << 20;

/// Bytes of the largest record of a group, if the segments of its topic hold it.
const GROUP_RECORD_MAX_BYTES: usize = 16 << 20;

/// Why a broker does not start. One line that names the thing.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address that cannot be listened at.
    #[error("cannot listen at {endpoint}: {source}")]
    Listen {
        /// The listener.
        endpoint: Endpoint,
        /// What the system says.
        source: io::Error,
    },
    /// An HTTP listener that is gone before it serves.
    #[error("cannot serve HTTP: {0}")]
    Http(io::Error),
    /// A file that says who may use SQS, and cannot be read.
    #[error("cannot read the credentials file {}: {reason}", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What the system says, or what is missing in it.
        reason: String,
    },
    /// A log directory that cannot be used.
    #[error("log directory {0}")]
    Directory(#[from] OpenDirectoryError),
    /// A directory of another program that cannot be taken over.
    #[error("log directory {0}")]
    Takeover(#[from] TakeoverError),
    /// No place for temporary data.
    #[error("cannot make a temporary log directory: {0}")]
    Ephemeral(io::Error),
    /// The catalog cannot be read.
    #[error("log directory {}: {source}", path.display())]
    Catalog {
        /// The log directory.
        path: PathBuf,
        /// Why.
        source: CatalogError,
    },
    /// A topic of the configuration that cannot be made.
    #[error("topic {name:?}: {source}")]
    Topic {
        /// The topic.
        name: String,
        /// Why.
        source: CatalogError,
    },
    /// The broker does not answer itself.
    #[error("listener {endpoint} does not answer: {source}")]
    Probe {
        /// The listener.
        endpoint: Endpoint,
        /// What went wrong.
        source: io::Error,
    },
    /// The ready file cannot be written.
    #[error("cannot write the ready file {}: {source}", path.display())]
    ReadyFile {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A broker that serves, in the tokio runtime that it was started in.
///
/// Dropped without [`Broker::stop`] it ends as if killed: nothing acknowledged is lost. When the drop returns, its addresses
/// are free, its threads have ended, its tasks do nothing more, and the directory of an ephemeral one is gone.
pub struct Broker {
    shared: Arc<Shared>,
    directories: Arc<LogDirectories>,
    paths: Vec<PathBuf>,
    endpoints: Vec<Endpoint>,
    catalog_stop: CancellationToken,
    http: Doors,
    /// Present once the broker serves.
    sqs: Option<SqsDoors>,
    listeners: Vec<Listener>,
    /// One task a listener, which owns those of its connections.
    accepting: JoinSet<()>,
    /// Present once written.
    ready_file: Option<PathBuf>,
    // Last, so that the files are gone only when nothing uses them.
    _ephemeral: Option<EphemeralDirectory>,
}

impl Broker {
    /// Starts a broker and returns when every listener answers.
    ///
    /// # Errors
    /// What is in the way: an address, a directory, a topic of the configuration.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_on(Arc::new(StdDisk), config).await
    }

    /// The same with its log directories on another disk: how it behaves on one that is slow, or fails.
    ///
    /// # Errors
    /// As [`Broker::start`].
    pub async fn start_on(disk: Arc<dyn Disk>, config: Config) -> Result<Self, StartError> {
        // First, since it is quick to fail; who connects before all is open waits in the backlog.
        let mut listeners = Vec::with_capacity(config.listeners.len());
        for endpoint in &config.listeners {
            let listen = |source| StartError::Listen { endpoint: endpoint.clone(), source };
            listeners.push((endpoint.clone(), listen_at(endpoint).await.map_err(listen)?));
        }
        let http = open_http(&config).await?;
        let sqs = listen_named("SQS", &config.sqs_listeners).await?;
        let credentials = credentials(&config)?;
        let ephemeral = match config.ephemeral {
            true => Some(EphemeralDirectory::create(&std::env::temp_dir()).map_err(StartError::Ephemeral)?),
            false => None,
        };
        let paths = match &ephemeral {
            Some(temporary) => vec![temporary.path().to_owned()],
            None => config.directories().to_vec(),
        };
        let clock = Clock::system();
        for path in &paths {
            takeover::check(&*disk, path, config.node_id)?;
        }
        let options = DirectoryOptions {
            node_id: config.node_id,
            os_unsynced_max_bytes: OS_UNSYNCED_MAX_BYTES,
            journal_bytes: config.commit_journal_bytes,
            flush_threads: config.num_flush_threads,
            producer_id_expiration_ms: config.producer_id_expiration_ms,
            min_free_bytes: config.log_dir_min_free_bytes,
            retention_check_interval: Duration::from_millis(config.log_retention_check_interval_ms),
            initial_task_delay: Duration::from_millis(config.log_initial_task_delay_ms),
            ..DirectoryOptions::new(&paths[0])
        };
        let files = BoundedDisk::new(disk, open_files_max(&config));
        let directories = LogDirectories::open(&paths, &options, CATALOG_LOG, files, &clock)?;
        let catalog_stop = CancellationToken::new();
        let catalog =
            Catalog::open(&directories, &config, &clock, catalog_stop.clone()).await.map_err(|source| {
                let own = directories.all().iter().find(|directory| directory.is_essential());
                StartError::Catalog { path: own.map_or(&*paths[0], |own| own.path()).to_owned(), source }
            })?;
        let stopping = CancellationToken::new();
        let groups = Arc::new(Groups::new(group_settings(&config), clock.steady(), stopping.clone()));
        let queues = Arc::new(Queues::new(clock.steady(), stopping.clone()));
        let (config, catalog) = (Arc::new(config), Arc::new(catalog));
        let door = QueueDoor::new(
            Arc::clone(&config),
            clock.steady(),
            Arc::clone(&catalog),
            Arc::clone(&queues),
            Arc::clone(&groups),
            stopping.clone(),
        );
        let shared = Arc::new(Shared {
            groups,
            queues,
            door,
            clock,
            cluster_id: directories.cluster_id(),
            logs: Arc::clone(&directories),
            catalog,
            fetch_sessions: FetchSessions::new(config.max_incremental_fetch_session_cache_slots),
            share_sessions: ShareSessions::new(config.group_share_max_share_sessions),
            next_connection: AtomicU64::new(0),
            decompressions: Semaphore::new(cores()),
            requests: request_counters(),
            connections: Arc::default(),
            stopping,
            config,
        });
        // From here on a failure drops it, and with it all that it has begun.
        let mut broker = Self {
            endpoints: Vec::with_capacity(listeners.len()),
            directories,
            paths,
            catalog_stop,
            http,
            sqs: None,
            listeners: listeners.iter().map(|(_, listener)| listener.clone()).collect(),
            accepting: JoinSet::new(),
            ready_file: None,
            shared,
            _ephemeral: ephemeral,
        };
        for wanted in WantedTopic::all(&broker.shared.config) {
            let name = wanted.name.clone();
            ensure_topic(&broker.shared, wanted)
                .await
                .map_err(|source| StartError::Topic { name, source })?;
        }
        if let Some(topic) = broker.shared.catalog.topic(CONSUMER_OFFSETS) {
            broker.shared.groups.start(&topic.partitions);
            let (shared, exists) = (Arc::clone(&broker.shared), broker.shared.catalog.topic_exists());
            // Offsets of topics that went while the broker could not tell their groups. If that fails, who stores them says so.
            tokio::spawn(async move {
                while let Err(CoordinatorError::Loading) =
                    shared.groups.drop_offsets(Arc::clone(&exists)).await
                {}
            });
        }
        broker.shared.door.move_dead_of_share_groups();
        if let Some(topic) = broker.shared.catalog.topic(SHARE_GROUP_STATE) {
            broker.shared.queues.start(&topic.partitions);
            let (shared, exists) = (Arc::clone(&broker.shared), broker.shared.catalog.topic_id_exists());
            // The same for what share groups had of such topics.
            tokio::spawn(async move {
                while let Err(QueueFailure::Coordinator(CoordinatorError::Loading)) =
                    shared.queues.drop_topics(Arc::clone(&exists)).await
                {}
            });
        }
        broker.serve(listeners, sqs, credentials).await?;
        Ok(broker)
    }

    /// Starts a broker for a test: [`Config::ephemeral`] says how.
    ///
    /// # Errors
    /// As [`Broker::start`].
    pub async fn ephemeral() -> Result<Self, StartError> {
        Self::start(Config::ephemeral()).await
    }

    /// Accepts on every listener, and asks each for its metadata before calling the broker ready.
    async fn serve(
        &mut self,
        listeners: Vec<(Endpoint, Listener)>,
        sqs: Vec<Listener>,
        credentials: Option<Credentials>,
    ) -> Result<(), StartError> {
        let limits = ConnectionLimits::new(
            self.shared.config.max_connections,
            self.shared.config.max_connections_per_ip,
        );
        let budget = Budget::new(self.shared.config.queued_max_request_bytes);
        let connection_limits = Limits {
            request_max_bytes: self.shared.config.socket_request_max_bytes,
            in_flight_max_bytes: self.shared.config.connection_queued_max_request_bytes,
            idle: Duration::from_millis(self.shared.config.connections_max_idle_ms),
            budget: budget.clone(),
        };
        for (endpoint, listener) in listeners {
            let probe = |source| StartError::Probe { endpoint: endpoint.clone(), source };
            let bound = listener.local_addr().map_err(probe)?;
            let advertised = self.shared.config.advertised(&endpoint.name).cloned();
            let told =
                advertised.clone().unwrap_or_else(|| Endpoint { port: bound.port(), ..endpoint.clone() });
            let (shared, per_connection) = (Arc::clone(&self.shared), connection_limits.clone());
            let name = endpoint.name.clone();
            let serve = move |stream: TcpStream, peer: SocketAddr| {
                let session = session(&shared, &name, advertised.as_ref(), &stream, peer);
                connection::serve(stream, peer, session, per_connection.clone(), shared.stopping.clone())
            };
            let (counters, stop) = (Arc::clone(&self.shared.connections), self.shared.stopping.clone());
            self.accepting.spawn(accept(listener, limits.clone(), counters, stop, serve));
            probe::ask_metadata(bound).await.map_err(probe)?;
            self.endpoints.push(told);
        }
        let settings = sqs::Settings {
            region: self.shared.config.sqs_region.to_string(),
            account_id: self.shared.config.sqs_account_id.to_string(),
            credentials,
            connections_max_idle: Duration::from_millis(self.shared.config.connections_max_idle_ms),
            connections_max: self.shared.config.max_connections,
            connections_per_ip_max: self.shared.config.max_connections_per_ip,
            budget: budget.clone(),
        };
        let counters = Arc::default();
        let door = self.shared.door.clone();
        self.sqs =
            Some(SqsDoors::open(sqs, door, settings, Arc::clone(&counters)).map_err(StartError::Http)?);
        self.http.observe(Observed {
            shared: Arc::clone(&self.shared),
            budget,
            decompressions_max: cores(),
            sqs: counters,
        });
        if let Some(path) = &self.shared.config.ready_file {
            let lines: String =
                self.endpoints.iter().map(|endpoint| format!("{}\n", endpoint.address())).collect();
            replace_file(&StdDisk, path, lines.as_bytes(), Durability::Later)
                .map_err(|source| StartError::ReadyFile { path: path.clone(), source })?;
            self.ready_file = Some(path.clone());
        }
        Ok(())
    }

    /// The address of each listener, in the order of the configuration: the advertised one, or the one bound.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// `host:port` of the first listener: what clients call bootstrap servers.
    pub fn bootstrap(&self) -> String {
        self.endpoints.first().map(Endpoint::address).unwrap_or_default()
    }

    /// Where each HTTP listener is, in the order of the configuration.
    pub fn http(&self) -> &[SocketAddr] {
        self.http.addresses()
    }

    /// The queues, for the program that the broker runs in: what the HTTP doors do, without HTTP.
    pub fn queues(&self) -> &QueueDoor {
        &self.shared.door
    }

    /// Where each SQS listener is, in the order of the configuration.
    pub fn sqs(&self) -> &[SocketAddr] {
        self.sqs.as_ref().map_or(&[], SqsDoors::addresses)
    }

    /// The first log directory.
    pub fn data(&self) -> &Path {
        &self.paths[0]
    }

    /// The log directories, in the order of the configuration.
    pub fn log_directories(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Returns when the broker cannot go on, and says why: the disk of the log directory with its own log has failed, or those
    /// of all. Until it is stopped or dropped it answers with errors.
    pub async fn failed(&self) -> String {
        self.directories.failed().await
    }

    /// Ends at once, for a process that is about to: nothing is waited for, least of all a disk that has failed.
    pub fn give_up(mut self) {
        self.remove_ready_file();
        // Dropping it would wait for what is being written just now.
        std::mem::forget(self);
    }

    /// Stops: no new connections, parked requests answered, everything synced, the directory marked clean.
    pub async fn stop(mut self) {
        self.remove_ready_file();
        self.shared.stopping.cancel();
        let drained = async { while self.accepting.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            let connections = self.shared.connections.open();
            warn!(connections, "stopping while connections have not taken their last answers");
        }
        if let Some(sqs) = &mut self.sqs {
            sqs.close().await;
        }
        self.catalog_stop.cancel();
        self.directories.close().await;
        self.http.close().await;
    }

    /// Not ready any more; who waits for the next start must not find the last one's file.
    fn remove_ready_file(&mut self) {
        if let Some(path) = self.ready_file.take() {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.remove_ready_file();
        self.accepting.abort_all();
        self.listeners.iter().for_each(Listener::close);
        self.shared.stopping.cancel();
        self.catalog_stop.cancel();
        // A task that runs on another thread this very moment finds every log closed.
        self.directories.abandon();
    }
}

/// What the requests of a connection share. Without an advertised address, clients are told the one they came in on.
fn session(
    shared: &Arc<Shared>,
    name: &str,
    advertised: Option<&Endpoint>,
    stream: &TcpStream,
    peer: SocketAddr,
) -> Session {
    let endpoint = match (advertised, stream.local_addr()) {
        (Some(advertised), _) => advertised.clone(),
        (None, Ok(local)) => Endpoint {
            name: name.to_owned(),
            host: local.ip().to_canonical().to_string(),
            port: local.port(),
        },
        // The socket is gone already; nobody will read the address.
        (None, Err(_)) => Endpoint { name: name.to_owned(), host: String::new(), port: 0 },
    };
    let id = shared.next_connection.fetch_add(1, Ordering::Relaxed);
    Session { shared: Arc::clone(shared), endpoint: Arc::new(endpoint), peer, id }
}

/// Opens the HTTP listeners of the configuration.
async fn open_http(config: &Config) -> Result<Doors, StartError> {
    let listeners = listen_named("HTTP", &config.http_listeners).await?;
    Doors::open(listeners, Duration::from_millis(config.connections_max_idle_ms)).map_err(StartError::Http)
}

/// Listens at all of these, which have no names but that of their protocol.
async fn listen_named(protocol: &str, endpoints: &[Endpoint]) -> Result<Vec<Listener>, StartError> {
    let mut listeners = Vec::with_capacity(endpoints.len());
    for endpoint in endpoints {
        let endpoint = Endpoint { name: protocol.to_owned(), ..endpoint.clone() };
        let listener = listen_at(&endpoint).await;
        listeners.push(listener.map_err(|source| StartError::Listen { endpoint, source })?);
    }
    Ok(listeners)
}

/// Who may use SQS, if that is not anybody.
fn credentials(config: &Config) -> Result<Option<Credentials>, StartError> {
    let Some(path) = &config.sqs_credentials_file else { return Ok(None) };
    let unreadable = |reason: String| StartError::Credentials { path: path.clone(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    Credentials::parse(&text).map(Some).map_err(|fault| unreadable(fault.to_owned()))
}

/// Listens at the first address of the host that can be listened at.
async fn listen_at(endpoint: &Endpoint) -> io::Result<Listener> {
    let mut failure = io::Error::new(io::ErrorKind::AddrNotAvailable, "the host has no address");
    for address in lookup_host((endpoint.host.as_str(), endpoint.port)).await? {
        match Listener::bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// A topic of the configuration, or a queue of it.
struct WantedTopic {
    name: String,
    /// As many as there are, if it was not said.
    partitions: Option<i32>,
    configs: ConfigMap,
}

impl WantedTopic {
    fn all(config: &Config) -> Vec<Self> {
        let topic =
            |TopicSpec { name, partitions, configs }| Self { name, partitions: Some(partitions), configs };
        let queue = |QueueSpec { name, partitions, configs }| Self { name, partitions, configs };
        config.topics.iter().cloned().map(topic).chain(config.queues.iter().cloned().map(queue)).collect()
    }
}

/// Makes a topic of the configuration. One that exists is left as it is, but gets the partitions that it lacks; anything
/// else that differs is worth a warning.
async fn ensure_topic(shared: &Shared, wanted: WantedTopic) -> Result<(), CatalogError> {
    let differs = shared
        .catalog
        .change(move |batch| {
            let Some(topic) = batch.state().topic(&wanted.name).cloned() else {
                let WantedTopic { name, partitions, configs } = wanted;
                let partitions = partitions.unwrap_or(QueueSpec::DEFAULT_PARTITIONS);
                let change = batch.state().create_topic(&NewTopic { name, partitions, configs })?;
                batch.push(change);
                return Ok::<_, CatalogError>(None);
            };
            let partitions = wanted.partitions.unwrap_or(topic.partitions);
            if partitions > topic.partitions {
                let change = batch.state().add_partitions(&wanted.name, partitions)?;
                batch.push(change);
            }
            let fewer = partitions < topic.partitions;
            Ok((fewer || wanted.configs != topic.configs).then_some((wanted, topic)))
        })
        .await??;
    if let Some((wanted, topic)) = differs {
        let have = format!("{} partitions, configs {:?}", topic.partitions, topic.configs);
        warn!(topic = wanted.name, have, wanted = ?wanted.configs, "the topic exists and is left as it is");
    }
    Ok(())
}

fn group_settings(config: &Config) -> group::Settings {
    group::Settings {
        min_session_timeout_ms: config.group_min_session_timeout_ms,
        max_session_timeout_ms: config.group_max_session_timeout_ms,
        max_size: config.group_max_size,
        initial_rebalance_delay_ms: config.group_initial_rebalance_delay_ms,
        offsets_retention_ms: config.offsets_retention_minutes.saturating_mul(60_000),
        offsets_retention_check_interval_ms: config.offsets_retention_check_interval_ms,
        record_max_bytes: GROUP_RECORD_MAX_BYTES.min(config.offsets_topic_segment_bytes as usize / 2),
        max_bytes: config.group_coordinator_max_bytes,
    }
}

/// Files of logs that may be open: as configured, or half of what the process may have, which leaves the rest to sockets.
fn open_files_max(config: &Config) -> usize {
    match config.log_max_open_files {
        0 => {
            let descriptors = getrlimit(Resource::Nofile).current;
            descriptors
                .map_or(usize::MAX, |descriptors| usize::try_from(descriptors / 2).unwrap_or(usize::MAX))
        }
        files => files,
    }
}

/// Cores that this process may use.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
