//! The one place where errors of the domain become Kafka's codes. No match has a catch-all: a new cause is a compile error
//! here.

use crate::catalog::CatalogError;
use crate::catalog::topic_config::InvalidConfig;
use crate::coordinator::CoordinatorError;
use crate::group::{GroupError, GroupFailure};
use crate::log::{LogError, ReplayError};
use crate::protocol::ErrorCode;
use crate::queue::{QueueError, QueueFailure};
use crate::record::InvalidBatch;

impl From<&LogError> for ErrorCode {
    fn from(error: &LogError) -> Self {
        match error {
            LogError::OffsetOutOfRange { .. } => Self::OffsetOutOfRange,
            LogError::OutOfOrderSequence { .. } => Self::OutOfOrderSequenceNumber,
            LogError::InvalidProducerEpoch { .. } => Self::InvalidProducerEpoch,
            LogError::RecordListTooLarge { .. } => Self::RecordListTooLarge,
            LogError::Deleted => Self::UnknownTopicOrPartition,
            // Retriable, so that clients go on when this broker is back.
            LogError::Shutdown => Self::NotLeaderOrFollower,
            LogError::Offline
            | LogError::NoSpace { .. }
            | LogError::OutOfDescriptors { .. }
            | LogError::Disk { .. } => Self::KafkaStorageError,
            LogError::Damaged { .. } => Self::CorruptMessage,
        }
    }
}

impl From<&InvalidBatch> for ErrorCode {
    fn from(error: &InvalidBatch) -> Self {
        match error {
            InvalidBatch::TooLarge { .. } => Self::MessageTooLarge,
            InvalidBatch::LargerThanSegment { .. } => Self::RecordListTooLarge,
            InvalidBatch::Length(_) | InvalidBatch::Checksum { .. } => Self::CorruptMessage,
            InvalidBatch::Magic(0 | 1) => Self::InvalidRecord,
            InvalidBatch::Magic(_) => Self::CorruptMessage,
            InvalidBatch::InvalidTimestamps { .. } => Self::InvalidTimestamp,
            InvalidBatch::ZstdTooOld | InvalidBatch::UnknownCodec(_) => Self::UnsupportedCompressionType,
            InvalidBatch::Truncated { .. }
            | InvalidBatch::TrailingBytes(_)
            | InvalidBatch::BaseOffset(_)
            | InvalidBatch::RecordCount { .. }
            | InvalidBatch::ControlBatch
            | InvalidBatch::Sequence { .. }
            | InvalidBatch::MalformedRecord { .. }
            | InvalidBatch::BytesAfterRecords(_)
            | InvalidBatch::Decompression { .. }
            | InvalidBatch::DecompressedTooLarge { .. }
            | InvalidBatch::InvalidRecords { .. } => Self::InvalidRecord,
        }
    }
}

impl From<&InvalidConfig> for ErrorCode {
    fn from(error: &InvalidConfig) -> Self {
        match error {
            InvalidConfig::NullValue { .. }
            | InvalidConfig::DuplicateKey { .. }
            | InvalidConfig::NotDynamic { .. } => Self::InvalidRequest,
            InvalidConfig::UnknownTopicConfig { .. }
            | InvalidConfig::UnknownGroupConfig { .. }
            | InvalidConfig::UnknownBrokerKey { .. }
            | InvalidConfig::Value { .. }
            | InvalidConfig::CompactionLags { .. }
            | InvalidConfig::Beyond { .. }
            | InvalidConfig::Needs { .. }
            | InvalidConfig::Excluded { .. }
            | InvalidConfig::DeadLetterCircle(_)
            | InvalidConfig::InternalQueue(_)
            | InvalidConfig::InternalSource(_)
            | InvalidConfig::NoTieredStorage
            | InvalidConfig::NotAList { .. } => Self::InvalidConfig,
        }
    }
}

impl From<&CatalogError> for ErrorCode {
    fn from(error: &CatalogError) -> Self {
        match error {
            CatalogError::TopicName(_) | CatalogError::Collision { .. } => Self::InvalidTopicException,
            CatalogError::Reserved(_)
            | CatalogError::AssignmentWithCount(_)
            | CatalogError::Twice
            | CatalogError::NameXorId => Self::InvalidRequest,
            CatalogError::TopicExists(_) => Self::TopicAlreadyExists,
            CatalogError::UnknownTopic => Self::UnknownTopicOrPartition,
            CatalogError::UnknownTopicId => Self::UnknownTopicId,
            CatalogError::PartitionCount | CatalogError::NotAnIncrease { .. } => Self::InvalidPartitions,
            CatalogError::TooManyPartitions => Self::PolicyViolation,
            CatalogError::ReplicationFactor(_) | CatalogError::ReplicationFactorNotPositive => {
                Self::InvalidReplicationFactor
            }
            CatalogError::ReplicaAssignment(_) => Self::InvalidReplicaAssignment,
            CatalogError::Config(error) => error.into(),
            CatalogError::NullConfig(_) => Self::InvalidConfig,
            CatalogError::DeletionDisabled => Self::TopicDeletionDisabled,
            CatalogError::TimedOut => Self::RequestTimedOut,
            CatalogError::NotStored(error) => error.as_ref().into(),
            CatalogError::Together(error) => error.as_ref().into(),
            CatalogError::Log(error) => error.into(),
            CatalogError::Replay(error) => match error {
                ReplayError::Log(error) => error.into(),
                ReplayError::Read(_) => Self::KafkaStorageError,
                ReplayError::Batch(_) | ReplayError::Stuck { .. } => Self::UnknownServerError,
            },
            // Only a start can meet it.
            CatalogError::Takeover(_) => Self::KafkaStorageError,
            CatalogError::Record(_) | CatalogError::LaterVersion { .. } => Self::UnknownServerError,
        }
    }
}

impl From<&GroupFailure> for ErrorCode {
    fn from(failure: &GroupFailure) -> Self {
        match failure {
            GroupFailure::Group(error) => error.into(),
            GroupFailure::Coordinator(error) => error.into(),
        }
    }
}

impl From<&GroupError> for ErrorCode {
    fn from(error: &GroupError) -> Self {
        match error {
            GroupError::InvalidGroupId => Self::InvalidGroupId,
            GroupError::NameTooLong => Self::InvalidRequest,
            GroupError::InvalidSessionTimeout => Self::InvalidSessionTimeout,
            GroupError::InconsistentProtocol => Self::InconsistentGroupProtocol,
            GroupError::UnknownMember => Self::UnknownMemberId,
            GroupError::FencedInstance => Self::FencedInstanceId,
            GroupError::IllegalGeneration => Self::IllegalGeneration,
            GroupError::RebalanceInProgress => Self::RebalanceInProgress,
            GroupError::MemberIdRequired { .. } => Self::MemberIdRequired,
            GroupError::MaxSize => Self::GroupMaxSizeReached,
            GroupError::NotFound => Self::GroupIdNotFound,
            GroupError::NotEmpty => Self::NonEmptyGroup,
            GroupError::TooManyOffsets => Self::InvalidCommitOffsetSize,
            // Kafka's answer to a generation that does not fit its record.
            GroupError::TooLarge => Self::UnknownServerError,
            GroupError::FencedMemberEpoch => Self::FencedMemberEpoch,
        }
    }
}

impl From<&QueueFailure> for ErrorCode {
    fn from(failure: &QueueFailure) -> Self {
        match failure {
            QueueFailure::Queue(QueueError::Unknown) => Self::UnknownTopicOrPartition,
            QueueFailure::Queue(QueueError::NotHeld(_) | QueueError::TooManyRuns) => Self::InvalidRecordState,
            QueueFailure::Coordinator(error) => error.into(),
        }
    }
}

impl From<&CoordinatorError> for ErrorCode {
    fn from(error: &CoordinatorError) -> Self {
        match error {
            CoordinatorError::Loading => Self::CoordinatorLoadInProgress,
            CoordinatorError::NotHere => Self::NotCoordinator,
            CoordinatorError::NotStored => Self::CoordinatorNotAvailable,
        }
    }
}
