//! What a handler may touch.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::fetch_sessions::FetchSessions;
use super::share_sessions::{ShareMember, ShareSessions};
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::config::{Config, Endpoint};
use crate::group::Groups;
use crate::log::{LogDirectories, Partition};
use crate::operations::QueueDoor;
use crate::protocol::ErrorCode;
use crate::protocol::wire::Str;
use crate::queue::Queues;
use crate::telemetry::{ConnectionCounters, RequestCounters};
use crate::uuid::Uuid;

/// Operations that one may be authorized for on a topic, as DescribeTopics' bit field (bit = operation code): read, write,
/// create, delete, alter, describe, describe configs, alter configs. Without an authorizer everyone has all. KIP-430.
pub const TOPIC_OPERATIONS: i32 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;

/// The same for the cluster: create, alter, describe, cluster action, describe configs, alter configs, idempotent write.
pub const CLUSTER_OPERATIONS: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;

/// The same for a group: read, delete, describe, describe configs, alter configs.
pub const GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

/// Stands for the leader of a partition that has none.
pub const NO_LEADER: i32 = -1;

/// What all requests share.
pub struct Shared {
    /// The broker's settings.
    pub config: Arc<Config>,
    /// Time.
    pub clock: Clock,
    /// Id of the cluster.
    pub cluster_id: Uuid,
    /// Where partitions are kept.
    pub logs: Arc<LogDirectories>,
    /// Topics, configs, producer ids.
    pub catalog: Arc<Catalog>,
    /// Consumer groups.
    pub groups: Arc<Groups>,
    /// What share groups have of partitions.
    pub queues: Arc<Queues>,
    /// The same queues, as doors other than Kafka's see them.
    pub door: QueueDoor,
    /// Incremental fetch sessions.
    pub fetch_sessions: FetchSessions,
    /// Share sessions.
    pub share_sessions: ShareSessions,
    /// Number of the next connection.
    pub next_connection: AtomicU64,
    /// Places for batches whose validation means to decompress a lot, one a core: beyond, they wait, so that a flood of
    /// compression bombs takes neither all threads nor all memory.
    pub decompressions: Semaphore,
    /// What is counted of each API, in the order of the table.
    pub requests: RequestCounters,
    /// What is counted of the connections that requests come over.
    pub connections: Arc<ConnectionCounters>,
    /// Cancelled when the broker stops: who waits answers with what there is.
    pub stopping: CancellationToken,
}

impl Shared {
    /// A share session is over: gives back what its member has, or leaves that to the end of the leases. What the member said
    /// before is done either way.
    pub async fn release(&self, member: &ShareMember) {
        if let Err(failure) = self.queues.release(&member.group, &member.member).await {
            debug!(group = &*member.group, member = &*member.member, %failure, "records are lent until their time is over");
        }
    }
}

/// What all requests of a connection share. Cheap to clone.
#[derive(Clone)]
pub struct Session {
    /// The broker.
    pub shared: Arc<Shared>,
    /// Address that this connection's clients are to use: the listener's advertised one, or the one they used.
    pub endpoint: Arc<Endpoint>,
    /// The client's address.
    pub peer: SocketAddr,
    /// The connection's number, which no other has had.
    pub id: u64,
}

/// One request's view of the broker.
#[derive(Clone)]
pub struct RequestContext {
    session: Session,
    /// Version of the request.
    pub version: i16,
    /// The client's name for itself.
    pub client_id: Option<Str>,
}

impl std::ops::Deref for RequestContext {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.session.shared
    }
}

impl RequestContext {
    /// For a request of `version` on `session`.
    pub fn new(session: &Session, version: i16, client_id: Option<Str>) -> Self {
        Self { session: session.clone(), version, client_id }
    }

    /// Host and port that clients of this connection's listener reach this broker at.
    pub fn endpoint(&self) -> (Str, i32) {
        (Str::from(self.session.endpoint.host.as_str()), i32::from(self.session.endpoint.port))
    }

    /// The client's address.
    pub fn peer(&self) -> SocketAddr {
        self.session.peer
    }

    /// The number of the connection that the request came on.
    pub fn connection(&self) -> u64 {
        self.session.id
    }

    /// The broker, for what outlives this borrow.
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.session.shared)
    }

    /// Id of this node, leader and only replica of every partition.
    pub fn node_id(&self) -> i32 {
        self.config.node_id
    }

    /// The partition of a topic known by name.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC_OR_PARTITION; the epoch errors of [`check_epoch`].
    pub fn leader(&self, topic: &str, partition: i32, epoch: i32) -> Result<Arc<Partition>, ErrorCode> {
        let topic = self.catalog.topic(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let partition = topic.partition(partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        check_epoch(partition, epoch)?;
        Ok(Arc::clone(partition))
    }
}

/// Compares the leader epoch that a client believes in with the partition's; -1 is not compared. KIP-320.
///
/// # Errors
/// FENCED_LEADER_EPOCH for an older one, UNKNOWN_LEADER_EPOCH for a newer one.
pub fn check_epoch(partition: &Partition, epoch: i32) -> Result<(), ErrorCode> {
    match epoch {
        -1 => Ok(()),
        older if older < partition.leader_epoch() => Err(ErrorCode::FencedLeaderEpoch),
        newer if newer > partition.leader_epoch() => Err(ErrorCode::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}
