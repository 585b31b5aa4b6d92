//! Consumer groups: who is a member, who gets which partitions, how far each group has come.
//!
//! Everything here is pure. [`GroupShard`] is the machine that the coordinator's runtime drives: the groups of one partition of
//! `__consumer_offsets`. A group is a membership ([`classic`]) and its committed [`offsets`], each usable without the other; or it
//! is a [`share`] group, which has neither.

pub mod classic;
pub mod consumer_protocol;
mod coordinator;
pub mod offsets;
mod shard;
pub mod share;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::TimestampMs;
use crate::uuid::Uuid;

pub use classic::State;
pub use coordinator::{GroupFailure, Groups};
pub use offsets::Committed;
pub use shard::GroupShard;
pub use share::{
    Assignment, ShareBeat, ShareDescription, ShareHeartbeat, ShareMemberDescription, TopicLookup,
};

/// Longest text that a record of a group can hold, whatever a request can.
pub const TEXT_MAX_BYTES: usize = i16::MAX as usize;

/// Longest id of a member of a share group, bytes: a UUID as text.
pub const MEMBER_ID_MAX_BYTES: usize = 36;

/// What groups go by.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// Shortest session timeout that a member may ask for, ms.
    pub min_session_timeout_ms: i32,
    /// Longest session timeout that a member may ask for, ms.
    pub max_session_timeout_ms: i32,
    /// Members that a group may have.
    pub max_size: usize,
    /// How long the first rebalance of an empty group waits for more members, ms.
    pub initial_rebalance_delay_ms: i64,
    /// How long offsets are kept after the group has lost its last member, ms.
    pub offsets_retention_ms: i64,
    /// How often expired offsets are looked for, ms.
    pub offsets_retention_check_interval_ms: i64,
    /// Bytes of the largest record of a group: one that is larger is not stored. Kafka's limit is `message.max.bytes`, which a
    /// group of some thousand members outgrows.
    pub record_max_bytes: usize,
    /// Bytes that members and offsets of all shards may take, about; each has an equal part.
    pub max_bytes: usize,
}

/// Why a group refuses.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GroupError {
    /// An empty group id, or one that cannot be stored.
    #[error("the group id is empty or too long")]
    InvalidGroupId,
    /// A name of a member or protocol that cannot be stored.
    #[error("a name is too long")]
    NameTooLong,
    /// A session timeout outside the broker's bounds.
    #[error("the session timeout is out of bounds")]
    InvalidSessionTimeout,
    /// No protocol, or none that all members can do, or of another type than the group's.
    #[error("the member's protocols do not fit the group's")]
    InconsistentProtocol,
    /// No member has that id.
    #[error("no member has that id")]
    UnknownMember,
    /// Another member has taken over the instance id.
    #[error("another member has that instance id")]
    FencedInstance,
    /// The generation is not the group's.
    #[error("the generation is over, or has never been")]
    IllegalGeneration,
    /// Members have to join again.
    #[error("the group rebalances")]
    RebalanceInProgress,
    /// The member has to join again with the id that it is given here. KIP-394.
    #[error("join again as {member_id}")]
    MemberIdRequired {
        /// The id.
        member_id: Arc<str>,
    },
    /// The group, or the coordinator, takes no more members.
    #[error("the group takes no more members")]
    MaxSize,
    /// No group has that id.
    #[error("no group has that id")]
    NotFound,
    /// The group has members.
    #[error("the group has members")]
    NotEmpty,
    /// The coordinator takes no more offsets.
    #[error("the coordinator takes no more offsets")]
    TooManyOffsets,
    /// A generation, a subscription or what is to be assigned for it does not fit a record.
    #[error("what is to be stored does not fit a record")]
    TooLarge,
    /// The member's epoch is neither the one that it was told last nor the one before.
    #[error("the member's epoch is over, or has never been")]
    FencedMemberEpoch,
}

/// Who says to be a member, and of which generation.
#[derive(Clone, PartialEq, Debug)]
pub struct Claim {
    /// Empty from who is none.
    pub member_id: Arc<str>,
    /// Of a static member.
    pub instance_id: Option<Arc<str>>,
    /// -1 from who is none.
    pub generation: i32,
}

/// A wish to be a member.
#[derive(Clone, PartialEq, Debug)]
pub struct Join {
    /// Empty at the first join.
    pub member_id: Arc<str>,
    /// Of a static member.
    pub instance_id: Option<Arc<str>>,
    /// The id that the member gets if it has none.
    pub fresh_member_id: Arc<str>,
    /// The client's name for itself.
    pub client_id: Arc<str>,
    /// Where it is.
    pub client_host: Arc<str>,
    /// Silence after which the member is removed, ms.
    pub session_timeout_ms: i32,
    /// How long a rebalance waits for this member, ms.
    pub rebalance_timeout_ms: i32,
    /// `consumer`, `connect` or any other.
    pub protocol_type: Arc<str>,
    /// Names and metadata, the preferred one first.
    pub protocols: Vec<(Arc<str>, Bytes)>,
    /// Whether a dynamic member is first given an id and asked to come back with it: version 4 on. KIP-394.
    pub member_id_required: bool,
    /// Whether a leader that comes back can be told not to assign: version 9 on. KIP-814.
    pub can_skip_assignment: bool,
}

/// What a member is told when all have joined.
#[derive(Clone, PartialEq, Debug)]
pub struct Joined {
    /// The member's id.
    pub member_id: Arc<str>,
    /// The generation that begins.
    pub generation: i32,
    /// The group's type of protocol.
    pub protocol_type: Option<Arc<str>>,
    /// The protocol chosen.
    pub protocol: Option<Arc<str>>,
    /// Id of the member that assigns.
    pub leader: Arc<str>,
    /// Whether the leader shall leave the assignment as it is.
    pub skip_assignment: bool,
    /// For the leader: every member.
    pub members: Vec<JoinedMember>,
}

/// A member as the leader is told of it.
#[derive(Clone, PartialEq, Debug)]
pub struct JoinedMember {
    /// Its id.
    pub member_id: Arc<str>,
    /// Of a static member.
    pub instance_id: Option<Arc<str>>,
    /// For the protocol chosen.
    pub metadata: Bytes,
}

/// A member that asks for its assignment.
#[derive(Clone, PartialEq, Debug)]
pub struct Sync {
    /// Who asks.
    pub claim: Claim,
    /// What the member takes for the group's type of protocol, if it says.
    pub protocol_type: Option<Arc<str>>,
    /// What the member takes for the chosen protocol, if it says.
    pub protocol: Option<Arc<str>>,
    /// From the leader: by member id.
    pub assignments: Vec<(Arc<str>, Bytes)>,
}

/// What a member has to do.
#[derive(Clone, PartialEq, Debug)]
pub struct Synced {
    /// The group's type of protocol.
    pub protocol_type: Option<Arc<str>>,
    /// The protocol chosen.
    pub protocol: Option<Arc<str>>,
    /// From the leader.
    pub assignment: Bytes,
}

/// Who is to leave.
#[derive(Clone, PartialEq, Debug)]
pub struct Leaving {
    /// Empty if the instance id says it.
    pub member_id: Arc<str>,
    /// Of a static member.
    pub instance_id: Option<Arc<str>>,
}

/// Offsets by topic and partition.
pub type OffsetMap = BTreeMap<Arc<str>, BTreeMap<i32, Committed>>;

/// Partitions by topic.
pub type Partitions = Vec<(Arc<str>, Vec<i32>)>;

/// Topics and partitions, and whether each of them was forgotten.
pub type Forgotten = Vec<(Arc<str>, Vec<(i32, bool)>)>;

/// What can happen to a group.
pub enum GroupEvent {
    /// Answered by [`Reply::Joined`] when the group is complete.
    Join(Join),
    /// Answered by [`Reply::Synced`] when the leader has assigned.
    Sync(Sync),
    /// A member is alive. Answered by [`Reply::Done`].
    Heartbeat(Claim),
    /// Members leave. Answered by [`Reply::Left`].
    Leave(Vec<Leaving>),
    /// Offsets are committed. Answered by [`Reply::Done`].
    Commit {
        /// Who commits.
        claim: Claim,
        /// Whether an unknown group is told from an old generation: version 9 on. KIP-848.
        knows_not_found: bool,
        /// How far.
        offsets: OffsetMap,
    },
    /// Answered by [`Reply::Offsets`], with those asked for that exist, or all.
    FetchOffsets(Option<Partitions>),
    /// Forgets offsets. Answered by [`Reply::Forgotten`], by topic and partition as asked.
    DeleteOffsets(Partitions),
    /// Answered by [`Reply::Described`].
    Describe,
    /// Forgets the group. Answered by [`Reply::Done`].
    Delete,
    /// A member of a share group joins, stays or leaves. Answered by [`Reply::ShareBeat`].
    ShareHeartbeat(ShareHeartbeat),
    /// Answered by [`Reply::ShareDescribed`].
    ShareDescribe,
}

/// Whether a topic of that name and id exists.
pub type TopicExists = Arc<dyn Fn(&str, Uuid) -> bool + Send + std::marker::Sync>;

/// What can happen to a shard.
pub enum Event {
    /// Something happens to the group of that id.
    Group(Arc<str>, GroupEvent),
    /// Answered by [`Reply::Listed`].
    List,
    /// Topics were deleted: their offsets go. Answered by [`Reply::Done`].
    DropOffsets(TopicExists),
}

/// What an event comes to.
#[derive(Clone, PartialEq, Debug)]
pub enum Reply {
    /// To [`GroupEvent::Join`].
    Joined(Result<Joined, GroupError>),
    /// To [`GroupEvent::Sync`].
    Synced(Result<Synced, GroupError>),
    /// To events that end well or not.
    Done(Result<(), GroupError>),
    /// To [`GroupEvent::Leave`], in the order asked.
    Left(Vec<Result<(), GroupError>>),
    /// To [`GroupEvent::FetchOffsets`].
    Offsets(OffsetMap),
    /// To [`GroupEvent::DeleteOffsets`]: false where a member still consumes the topic.
    Forgotten(Result<Forgotten, GroupError>),
    /// To [`GroupEvent::Describe`].
    Described(Option<Description>),
    /// To [`GroupEvent::ShareHeartbeat`].
    ShareBeat(Result<ShareBeat, GroupError>),
    /// To [`GroupEvent::ShareDescribe`].
    ShareDescribed(Option<ShareDescription>),
    /// To [`Event::List`].
    Listed(Listing),
}

/// A group as it is.
#[derive(Clone, PartialEq, Debug)]
pub struct Description {
    /// Its state.
    pub state: State,
    /// Empty for a group that only has offsets.
    pub protocol_type: Arc<str>,
    /// The protocol chosen; empty unless stable.
    pub protocol: Arc<str>,
    /// Its members, by id.
    pub members: Vec<MemberDescription>,
}

/// A member as it is.
#[derive(Clone, PartialEq, Debug)]
pub struct MemberDescription {
    /// Its id.
    pub member_id: Arc<str>,
    /// Of a static member.
    pub instance_id: Option<Arc<str>>,
    /// The client's name for itself.
    pub client_id: Arc<str>,
    /// Where it is.
    pub client_host: Arc<str>,
    /// For the chosen protocol; empty unless the group is stable.
    pub metadata: Bytes,
    /// Empty unless the group is stable.
    pub assignment: Bytes,
}

/// The groups of a shard.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Listing {
    /// By id.
    pub groups: Vec<Listed>,
    /// Bytes that members and offsets take, about.
    pub bytes: usize,
}

/// A group in a list.
#[derive(Clone, PartialEq, Debug)]
pub struct Listed {
    /// Its id.
    pub group_id: Arc<str>,
    /// Empty for a group that only has offsets.
    pub protocol_type: Arc<str>,
    /// Whether it is a share group; else it is a classic one.
    pub is_share: bool,
    /// Its state.
    pub state: State,
    /// Members that it has.
    pub members: usize,
}

/// Milliseconds of a timeout after `now`.
fn after(now: TimestampMs, timeout_ms: i32) -> TimestampMs {
    now.saturating_add(i64::from(timeout_ms.max(0)))
}
