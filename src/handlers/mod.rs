//! What this broker serves: the table, and one file per API.
//!
//! A handler reads top to bottom: check the request, ask catalog and log, shape the answer. It does no encoding, no I/O and
//! holds no lock. Most run when all before them on their connection has been answered; Produce begins in arrival order
//! and may finish later, so that many appends share one sync.

pub mod alter_configs;
pub mod alter_share_group_offsets;
pub mod api_versions;
pub mod context;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_groups;
pub mod delete_records;
pub mod delete_share_group_offsets;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_groups;
pub mod describe_log_dirs;
pub mod describe_share_group_offsets;
pub mod describe_topic_partitions;
pub mod error;
pub mod fetch;
pub mod fetch_sessions;
pub mod find_coordinator;
pub mod heartbeat;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_config_resources;
pub mod list_groups;
pub mod list_offsets;
pub mod metadata;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
pub mod produce;
pub mod share_acknowledge;
pub mod share_fetch;
pub mod share_group_describe;
pub mod share_group_heartbeat;
pub mod share_sessions;
pub mod sync_group;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

pub use context::{RequestContext, Session, Shared};

use crate::protocol::api::{Api, decode};
use crate::protocol::header::{RequestHeader, frame_response};
use crate::protocol::messages::{
    AlterConfigs, AlterShareGroupOffsets, ApiVersions, CreatePartitions, CreateTopics, DeleteGroups,
    DeleteRecords, DeleteShareGroupOffsets, DeleteTopics, DescribeCluster, DescribeConfigs, DescribeGroups,
    DescribeLogDirs, DescribeShareGroupOffsets, DescribeTopicPartitions, Fetch, FindCoordinator, Heartbeat,
    IncrementalAlterConfigs, InitProducerId, JoinGroup, LeaveGroup, ListConfigResources, ListGroups,
    ListOffsets, Metadata, OffsetCommit, OffsetDelete, OffsetFetch, OffsetForLeaderEpoch, Produce,
    ShareAcknowledge, ShareFetch, ShareGroupDescribe, ShareGroupHeartbeat, SyncGroup,
};
use crate::protocol::wire::{Chunks, DecodeError, Wire};
use crate::telemetry::{ApiCounters, RequestCounters};

/// A future on the heap.
pub type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A decoded request that has not begun.
pub struct Request {
    /// Whether it may begin while earlier requests of its kind are unanswered.
    pub overlapping: bool,
    /// Runs when its turn has come.
    pub begin: Later<Begun>,
}

/// What beginning a request has come to.
pub enum Begun {
    /// Done.
    Done(Outcome),
    /// The rest runs while later requests begin.
    Later(Later<Outcome>),
}

/// How a request ends.
pub enum Outcome {
    /// Writes the answer's whole frame.
    Answer(Box<dyn FnOnce(&mut Chunks) + Send>),
    /// No answer is wanted (Produce with acks=0).
    Silence,
    /// The connection must be closed, for this reason.
    Close(String),
}

/// How a handler that may overlap ends: as [`Outcome`], before encoding.
pub enum Handled<R> {
    /// The response.
    Answer(R),
    /// No response is wanted.
    Silence,
    /// The connection must be closed, for this reason.
    Close(String),
}

/// What beginning a handler that may overlap has come to.
pub enum Started<R> {
    /// Done.
    Done(Handled<R>),
    /// The rest runs while later requests begin.
    Later(Later<Handled<R>>),
}

/// Why a frame is not answered. Kafka has no error response for these: it closes the connection.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// A header that cannot be read.
    #[error("{error} ({} bytes before the end of the frame)", error.remaining)]
    Header {
        /// Where and why.
        #[from]
        error: DecodeError,
    },
    /// An API that this broker does not serve.
    #[error("API key {api_key} version {version} is not served")]
    UnknownApi {
        /// The key.
        api_key: i16,
        /// The version.
        version: i16,
    },
    /// A version that this broker does not serve.
    #[error("{api} version {version} is not served, only {min} to {max}")]
    UnsupportedVersion {
        /// The API.
        api: &'static str,
        /// The version.
        version: i16,
        /// First served.
        min: i16,
        /// Last served, inclusive.
        max: i16,
    },
    /// A body that is not a message of its version.
    #[error("{api} version {version} of client {client}: {error} ({} bytes before the end of the frame)", error.remaining)]
    Body {
        /// The API.
        api: &'static str,
        /// The version.
        version: i16,
        /// The client's id.
        client: String,
        /// Where and why.
        error: DecodeError,
    },
}

/// A row of the table, for ApiVersions and whoever documents the broker.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    /// API key.
    pub key: i16,
    /// Kafka's name.
    pub name: &'static str,
    /// First version served.
    pub min_version: i16,
    /// Last version served, inclusive.
    pub max_version: i16,
}

/// Rows `Api => handler, order`: `in turn` handlers are `async fn(RequestContext, Request) -> Response`; an `overlapping`
/// one begins in arrival order and returns [`Started`].
macro_rules! handlers {
    ($($api:ident => $module:ident::$handler:ident, $order:ident $($turn:ident)?;)+) => {
        /// Every API that is served, by key.
        pub const TABLE: &[Served] = &[$(Served {
            key: $api::KEY,
            name: $api::NAME,
            min_version: $api::MIN_VERSION,
            max_version: $api::MAX_VERSION,
        }),+];

        fn dispatch(session: &Session, header: RequestHeader, frame: &Bytes, rest: &[u8]) -> Result<Request, Refusal> {
            match header.api_key {
                $($api::KEY => handlers!(@begin $api, $module::$handler, $order, session, header, frame, rest),)+
                api_key => Err(Refusal::UnknownApi { api_key, version: header.api_version }),
            }
        }
    };
    (@begin $api:ident, $module:ident::$handler:ident, in, $session:ident, $header:ident, $frame:ident, $rest:ident) => {{
        let (cx, request, reply) = open::<$api>($session, $header, $frame, $rest)?;
        Ok(Request {
            overlapping: false,
            begin: Box::pin(async move {
                Begun::Done(reply.outcome(Handled::Answer($module::$handler(cx, request).await)))
            }),
        })
    }};
    (@begin $api:ident, $module:ident::$handler:ident, overlapping, $session:ident, $header:ident, $frame:ident, $rest:ident) => {{
        let (cx, request, reply) = open::<$api>($session, $header, $frame, $rest)?;
        Ok(Request {
            overlapping: true,
            begin: Box::pin(async move {
                match $module::$handler(cx, request).await {
                    Started::Done(handled) => Begun::Done(reply.outcome(handled)),
                    Started::Later(rest) => Begun::Later(Box::pin(async move { reply.outcome(rest.await) })),
                }
            }),
        })
    }};
}

handlers! {
    Produce => produce::begin, overlapping;
    Fetch => fetch::handle, in turn;
    ListOffsets => list_offsets::handle, in turn;
    Metadata => metadata::handle, in turn;
    OffsetCommit => offset_commit::handle, in turn;
    OffsetFetch => offset_fetch::handle, in turn;
    FindCoordinator => find_coordinator::handle, in turn;
    JoinGroup => join_group::handle, in turn;
    Heartbeat => heartbeat::handle, in turn;
    LeaveGroup => leave_group::handle, in turn;
    SyncGroup => sync_group::handle, in turn;
    DescribeGroups => describe_groups::handle, in turn;
    ListGroups => list_groups::handle, in turn;
    ApiVersions => api_versions::handle, in turn;
    CreateTopics => create_topics::handle, in turn;
    DeleteTopics => delete_topics::handle, in turn;
    DeleteRecords => delete_records::handle, in turn;
    InitProducerId => init_producer_id::handle, in turn;
    OffsetForLeaderEpoch => offset_for_leader_epoch::handle, in turn;
    DescribeConfigs => describe_configs::handle, in turn;
    AlterConfigs => alter_configs::handle, in turn;
    DescribeLogDirs => describe_log_dirs::handle, in turn;
    CreatePartitions => create_partitions::handle, in turn;
    DeleteGroups => delete_groups::handle, in turn;
    IncrementalAlterConfigs => incremental_alter_configs::handle, in turn;
    OffsetDelete => offset_delete::handle, in turn;
    DescribeCluster => describe_cluster::handle, in turn;
    ListConfigResources => list_config_resources::handle, in turn;
    DescribeTopicPartitions => describe_topic_partitions::handle, in turn;
    ShareGroupHeartbeat => share_group_heartbeat::handle, in turn;
    ShareGroupDescribe => share_group_describe::handle, in turn;
    ShareFetch => share_fetch::handle, in turn;
    ShareAcknowledge => share_acknowledge::handle, in turn;
    DescribeShareGroupOffsets => describe_share_group_offsets::handle, in turn;
    AlterShareGroupOffsets => alter_share_group_offsets::handle, in turn;
    DeleteShareGroupOffsets => delete_share_group_offsets::handle, in turn;
}

/// Decodes a frame and says how to begin it.
///
/// # Errors
/// A frame that cannot be answered.
pub fn accept(session: &Session, frame: Bytes) -> Result<Request, Refusal> {
    let (rest, header) = RequestHeader::decode(&frame)?;
    if header.api_key == ApiVersions::KEY && header.api_version > ApiVersions::MAX_VERSION {
        return Ok(unknown_api_versions(session, header.correlation_id, frame.len()));
    }
    dispatch(session, header, &frame, rest)
}

/// The answer to an ApiVersions that this broker does not know is of version 0, which every client reads; it names the
/// versions to try instead. The body, of unknown form, is not looked at. KIP-511.
fn unknown_api_versions(session: &Session, correlation_id: i32, frame_bytes: usize) -> Request {
    let reply = Reply::<ApiVersions>::new(session, Instant::now(), 0, correlation_id, frame_bytes);
    let outcome = reply.outcome(Handled::Answer(api_versions::unknown_version()));
    Request { overlapping: false, begin: Box::pin(async { Begun::Done(outcome) }) }
}

/// Checks the version and decodes the body.
fn open<A: Api>(
    session: &Session,
    header: RequestHeader,
    frame: &Bytes,
    rest: &[u8],
) -> Result<(RequestContext, A::Request, Reply<A>), Refusal> {
    let began = Instant::now();
    let version = header.api_version;
    if !(A::MIN_VERSION..=A::MAX_VERSION).contains(&version) {
        let (min, max) = (A::MIN_VERSION, A::MAX_VERSION);
        return Err(Refusal::UnsupportedVersion { api: A::NAME, version, min, max });
    }
    let flexible = A::is_flexible(version);
    let rest = if flexible { RequestHeader::skip_tags(rest)? } else { rest };
    let request = decode(frame, rest, version, flexible).map_err(|error| Refusal::Body {
        api: A::NAME,
        version,
        client: header.client_id.as_deref().unwrap_or_default().escape_debug().to_string(),
        error,
    })?;
    let reply = Reply::new(session, began, version, header.correlation_id, frame.len());
    Ok((RequestContext::new(session, version, header.client_id), request, reply))
}

/// A connection has ended: its share sessions end with it, and what their members had is given back.
pub async fn connection_closed(session: &Session) {
    for member in session.shared.share_sessions.close(session.id) {
        session.shared.release(&member).await;
    }
}

/// The counters of [`Shared::requests`], in the order of the table.
pub fn request_counters() -> RequestCounters {
    RequestCounters::new(TABLE.iter().map(|served| served.name))
}

/// Where an API stands in the table.
const fn place_of(api_key: i16) -> usize {
    let mut place = 0;
    while TABLE[place].key != api_key {
        place += 1;
    }
    place
}

/// How to write, and count, the answer to one request.
struct Reply<A> {
    version: i16,
    correlation_id: i32,
    began: Instant,
    shared: Arc<Shared>,
    api: std::marker::PhantomData<fn() -> A>,
}

impl<A: Api> Reply<A> {
    /// For a request that began at `began`, and whose frame has `frame_bytes` behind its size.
    fn new(session: &Session, began: Instant, version: i16, correlation_id: i32, frame_bytes: usize) -> Self {
        let shared = Arc::clone(&session.shared);
        let reply = Self { version, correlation_id, began, shared, api: std::marker::PhantomData };
        reply.counters().begun(size_of::<u32>() + frame_bytes);
        reply
    }

    fn counters(&self) -> &ApiCounters {
        self.shared.requests.at(const { place_of(A::KEY) })
    }

    fn outcome(self, handled: Handled<A::Response>) -> Outcome {
        match handled {
            Handled::Silence => {
                self.counters().answered(self.began, 0);
                Outcome::Silence
            }
            Handled::Close(reason) => Outcome::Close(reason),
            Handled::Answer(response) => Outcome::Answer(Box::new(move |out: &mut Chunks| {
                let counters = self.counters();
                response.errors(&mut |code| counters.error(code));
                let bytes = frame_response::<A>(out, self.version, self.correlation_id, &response);
                counters.answered(self.began, bytes);
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ErrorCode;
    use crate::protocol::messages::fetch::{FetchPartitionResponse, FetchResponse, FetchTopicResponse};

    #[test]
    fn an_answer_tells_the_errors_at_all_of_its_levels() {
        let partition = |error_code| FetchPartitionResponse { error_code, ..Default::default() };
        let partitions = vec![partition(0), partition(1)];
        let responses = vec![FetchTopicResponse { partitions, ..Default::default() }; 2];
        let response = FetchResponse { error_code: 70, responses, ..Default::default() };
        let mut seen = Vec::new();
        response.errors(&mut |code| seen.push(code));
        assert_eq!(seen, [70, 0, 1, 0, 1]);
    }

    #[test]
    fn each_api_and_each_error_has_its_counter() {
        let counters = request_counters();
        for (place, served) in TABLE.iter().enumerate() {
            assert_eq!(place_of(served.key), place);
            assert_eq!(counters.at(place).name, served.name);
        }
        let codes: Vec<i16> =
            (i16::MIN..=i16::MAX).filter(|code| ErrorCode::from_code(*code).is_some()).collect();
        codes.iter().for_each(|code| counters.at(0).error(*code));
        let counted: Vec<i16> = counters.at(0).errors().map(|(code, _)| code).collect();
        assert_eq!(counted, codes.into_iter().filter(|code| *code != 0).collect::<Vec<_>>());
    }
}
