//! The broker's errors as Kafka's codes.

use broker::stream::batch::BatchError;
use broker::stream::group::GroupError;
use broker::stream::transaction::TransactionError;
use broker::stream::{AppendError, TopicError};
use kafka_protocol::ResponseError as Code;

/// Success.
pub(super) const NONE: i16 = 0;
/// The client named a topic id that does not exist.
pub(super) const UNKNOWN_TOPIC_ID: i16 = 100;

pub(super) fn of_append(error: &AppendError) -> i16 {
    match error {
        AppendError::Unknown => Code::UnknownTopicOrPartition,
        AppendError::TooLarge { .. } => Code::MessageTooLarge,
        AppendError::Timestamp => Code::InvalidTimestamp,
        AppendError::OutOfOrder => Code::OutOfOrderSequenceNumber,
        AppendError::OldEpoch => Code::InvalidProducerEpoch,
        AppendError::NotTransactional => Code::InvalidTxnState,
        AppendError::NoKey => Code::InvalidRecord,
        AppendError::Storage => Code::KafkaStorageError,
    }
    .code()
}

pub(super) fn of_batch(error: BatchError) -> i16 {
    match error {
        BatchError::Truncated | BatchError::Checksum => Code::CorruptMessage,
        BatchError::MoreThanOne | BatchError::Count { .. } | BatchError::Control => {
            Code::InvalidRecord
        }
        BatchError::Magic(_) => Code::UnsupportedForMessageFormat,
        BatchError::Codec(_) => Code::UnsupportedCompressionType,
        BatchError::Transactional => Code::InvalidTxnState,
    }
    .code()
}

/// `newer`: the client knows the error of a producer that another one has replaced.
pub(super) fn of_transaction(error: TransactionError, newer: bool) -> i16 {
    match error {
        TransactionError::Mapping => Code::InvalidProducerIdMapping,
        TransactionError::Fenced if newer => Code::ProducerFenced,
        TransactionError::Fenced => Code::InvalidProducerEpoch,
        TransactionError::State => Code::InvalidTxnState,
        TransactionError::Id => Code::InvalidRequest,
        TransactionError::Ids => Code::PolicyViolation,
        TransactionError::Storage => Code::KafkaStorageError,
    }
    .code()
}

pub(super) fn of_topic(error: &TopicError) -> i16 {
    match error {
        TopicError::Exists(_) => Code::TopicAlreadyExists,
        TopicError::Unknown => Code::UnknownTopicOrPartition,
        TopicError::InvalidName(_) => Code::InvalidTopicException,
        TopicError::InvalidPartitions(_) => Code::InvalidPartitions,
        TopicError::InvalidConfig(_) => Code::InvalidConfig,
    }
    .code()
}

pub(super) fn of_group(error: GroupError) -> i16 {
    match error {
        GroupError::UnknownMember => Code::UnknownMemberId,
        GroupError::IllegalGeneration => Code::IllegalGeneration,
        GroupError::InconsistentProtocol => Code::InconsistentGroupProtocol,
        GroupError::Rebalancing => Code::RebalanceInProgress,
        GroupError::MemberIdRequired => Code::MemberIdRequired,
        GroupError::Fenced => Code::FencedInstanceId,
        GroupError::NotEmpty => Code::NonEmptyGroup,
        GroupError::NotFound => Code::GroupIdNotFound,
    }
    .code()
}
