//! Making, growing and deleting topics.

use broker::access::Verbs;
use broker::stream::{self, DELETE_LOCKS, NewTopic, PartitionRef, Topic, TopicError};
use broker::{ShardId, ShardSet};
use kafka_protocol::ResponseError as Code;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteRecordsRequest, DeleteRecordsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    TopicName,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::admin::{SOURCE_DEFAULT, SOURCE_TOPIC};
use super::{Failure, KafkaSession, Request};
use crate::kafka::{error, respond};
use crate::net::Outbox;

/// Copies of each partition: there is one node.
const REPLICATION_FACTOR: i16 = 1;

pub(super) fn create(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: CreateTopicsRequest = request.decode()?;
    let names: Vec<_> = body.topics.iter().map(|topic| topic.name.clone()).collect();
    let mut results = Vec::with_capacity(body.topics.len());
    for wish in body.topics {
        let name = wish.name.clone();
        let result = if !session.may_create(&name) {
            Err((
                Code::TopicAuthorizationFailed.code(),
                "Authorization failed.".to_owned(),
            ))
        } else if names.iter().filter(|other| **other == name).count() > 1 {
            Err((
                Code::InvalidRequest.code(),
                "Duplicate topic name.".to_owned(),
            ))
        } else {
            create_one(session, wish, body.validate_only)
        };
        // Null as in Kafka: its default would be a text without letters.
        let mut row = CreatableTopicResult::default()
            .with_name(name)
            .with_error_message(None);
        match result {
            Ok(made) => {
                if request.version() >= 5 {
                    row.num_partitions = made.partitions;
                    row.replication_factor = REPLICATION_FACTOR;
                    row.configs = Some(made.configs);
                }
                row.topic_id = made.id;
            }
            Err((code, message)) => {
                row.error_code = code;
                row.error_message = Some(StrBytes::from_string(message));
                if request.version() >= 5 {
                    row.num_partitions = -1;
                    row.replication_factor = -1;
                    row.configs = Some(Vec::new());
                }
            }
        }
        results.push(row);
    }
    out.need(session.need(session.node.broker.engine.appended()));
    respond(
        out,
        &request.header,
        &CreateTopicsResponse::default().with_topics(results),
    )
}

struct Made {
    id: Uuid,
    partitions: i32,
    configs: Vec<CreatableTopicConfigs>,
}

fn create_one(
    session: &mut KafkaSession,
    wish: CreatableTopic,
    validate_only: bool,
) -> Result<Made, (i16, String)> {
    let refuse = |wrong: TopicError| (error::of_topic(&wrong), wrong.to_string());
    let partitions = if wish.assignments.is_empty() {
        if !matches!(wish.replication_factor, -1 | REPLICATION_FACTOR) {
            let text = if wish.replication_factor < 1 {
                "Replication factor must be larger than 0.".to_owned()
            } else {
                format!(
                    "Unable to replicate the partition {} time(s): The target replication factor of {} cannot be reached because only 1 broker(s) are registered.",
                    wish.replication_factor, wish.replication_factor
                )
            };
            return Err((Code::InvalidReplicationFactor.code(), text));
        }
        // Promised from version 4 on (KIP-464), and taken in every version: kafkajs leaves the number to the server in v3.
        match wish.num_partitions {
            -1 => None,
            count if count <= 0 => {
                let text =
                    "Number of partitions was set to an invalid non-positive value.".to_owned();
                return Err((Code::InvalidPartitions.code(), text));
            }
            count => Some(count.unsigned_abs()),
        }
    } else {
        let own = |brokers: &[kafka_protocol::messages::BrokerId]| matches!(brokers, [one] if one.0 == crate::kafka::NODE_ID);
        let mut indexes: Vec<i32> = wish
            .assignments
            .iter()
            .map(|assignment| assignment.partition_index)
            .collect();
        indexes.sort_unstable();
        let dense = (0..)
            .zip(&indexes)
            .all(|(expected, index)| expected == *index);
        if !dense
            || !wish
                .assignments
                .iter()
                .all(|assignment| own(&assignment.broker_ids))
        {
            let text = "Partitions must be numbered from 0 and each be assigned to the one broker."
                .to_owned();
            return Err((Code::InvalidReplicaAssignment.code(), text));
        }
        u32::try_from(indexes.len()).ok()
    };
    let configs = wish
        .configs
        .iter()
        .map(|config| {
            let value = config.value.as_ref().ok_or_else(|| {
                (
                    Code::InvalidConfig.code(),
                    format!(
                        "Null value not supported for topic configs: {}",
                        config.name
                    ),
                )
            })?;
            Ok((config.name.to_string(), value.to_string()))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let new = NewTopic {
        name: wish.name.to_string(),
        partitions,
        configs,
    };
    let ctx = session.ctx();
    let topics = &session.node.broker.topics;
    if validate_only {
        let config = stream::check_new(topics, &new).map_err(refuse)?;
        let partitions = partitions.unwrap_or_else(|| topics.default_partitions());
        return Ok(Made {
            id: Uuid::nil(),
            partitions: signed(partitions as usize),
            configs: shown(&config),
        });
    }
    let mut locked = session.node.broker.lock_one(ShardId::CATALOG);
    let made = stream::create(&mut locked, &ctx, &mut session.fx, &new);
    // Nothing was recorded if it failed.
    locked.commit(ctx.now, &mut session.fx);
    let topic = made.map_err(refuse)?;
    Ok(Made {
        id: topic.id,
        partitions: signed(topic.partitions.len()),
        configs: shown(&topic.config),
    })
}

fn signed(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn shown(config: &stream::TopicConfig) -> Vec<CreatableTopicConfigs> {
    let row = |spec: &stream::config::Spec| {
        let set = config.overrides.contains_key(spec.name);
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_static_str(spec.name))
            .with_value(Some(StrBytes::from_string(config.get(spec).to_owned())))
            .with_config_source(if set { SOURCE_TOPIC } else { SOURCE_DEFAULT })
    };
    stream::config::SPECS.iter().map(row).collect()
}

pub(super) fn delete(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: DeleteTopicsRequest = request.decode()?;
    let by_name = body
        .topic_names
        .into_iter()
        .map(|name| (Some(name), Uuid::nil()));
    let wishes: Vec<_> = by_name
        .chain(
            body.topics
                .into_iter()
                .map(|topic| (topic.name, topic.topic_id)),
        )
        .collect();
    let mut results = Vec::with_capacity(wishes.len());
    for (name, id) in wishes {
        let topics = &session.node.broker.topics;
        let found = match &name {
            Some(name) if !session.may_topic(name, Verbs::DELETE) => {
                Err(Code::TopicAuthorizationFailed)
            }
            Some(name) => topics.get(name).ok_or(Code::UnknownTopicOrPartition),
            None => topics.by_id(id).ok_or(Code::UnknownTopicId),
        };
        let found = found.and_then(|topic| {
            let may = session.may_topic(&topic.name, Verbs::DELETE);
            may.then_some(topic).ok_or(Code::TopicAuthorizationFailed)
        });
        let deleted = found.and_then(|topic| {
            delete_one(session, &topic).map_err(|_| Code::UnknownTopicOrPartition)?;
            Ok(topic)
        });
        let mut row = DeletableTopicResult::default()
            .with_name(name)
            .with_topic_id(id);
        match deleted {
            Ok(topic) => {
                row.name = Some(TopicName(StrBytes::from_string(topic.name.to_string())));
                row.topic_id = topic.id;
            }
            Err(code) => {
                row.error_code = code.code();
                if request.version() >= 5 {
                    row.error_message = Some(StrBytes::from_string(code.to_string()));
                }
            }
        }
        results.push(row);
    }
    out.need(session.need(session.node.broker.engine.appended()));
    respond(
        out,
        &request.header,
        &DeleteTopicsResponse::default().with_responses(results),
    )
}

fn delete_one(session: &mut KafkaSession, topic: &Topic) -> Result<(), TopicError> {
    let now = session.now();
    let mut locked = session.node.broker.lock(DELETE_LOCKS);
    let deleted = stream::delete(&mut locked, &mut session.fx, &topic.name);
    locked.commit(now, &mut session.fx);
    deleted.map(drop)
}

pub(super) fn add_partitions(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: CreatePartitionsRequest = request.decode()?;
    let now = session.now();
    let mut results = Vec::with_capacity(body.topics.len());
    for wish in body.topics {
        if !session.may_topic(&wish.name, Verbs::CONFIGURE) {
            let row = CreatePartitionsTopicResult::default()
                .with_name(wish.name)
                .with_error_code(Code::TopicAuthorizationFailed.code())
                .with_error_message(None);
            results.push(row);
            continue;
        }
        let mut locked = session.node.broker.lock(ShardSet::CATALOG);
        let grown = stream::add_partitions(
            &mut locked,
            &mut session.fx,
            &wish.name,
            wish.count,
            body.validate_only,
        );
        locked.commit(now, &mut session.fx);
        drop(locked);
        let mut row = CreatePartitionsTopicResult::default().with_name(wish.name);
        if let Err(wrong) = grown {
            row.error_code = error::of_topic(&wrong);
            row.error_message = Some(StrBytes::from_string(wrong.to_string()));
        }
        results.push(row);
    }
    out.need(session.need(session.node.broker.engine.appended()));
    respond(
        out,
        &request.header,
        &CreatePartitionsResponse::default().with_results(results),
    )
}

pub(super) fn delete_records(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: DeleteRecordsRequest = request.decode()?;
    let mut topics = Vec::with_capacity(body.topics.len());
    for wish in body.topics {
        let topic = session
            .topics
            .get(&session.node.broker.topics, wish.name.as_bytes());
        let may = session.may_topic(&wish.name, Verbs::DELETE);
        let mut rows = Vec::with_capacity(wish.partitions.len());
        for partition in wish.partitions {
            let found = topic.as_ref().filter(|_| may).and_then(|topic| {
                let at = topic.partition(partition.partition_index)?;
                Some((topic, at))
            });
            let done = match found {
                None if !may => Err(Code::TopicAuthorizationFailed),
                None => Err(Code::UnknownTopicOrPartition),
                Some((topic, _)) if topic.is_reserved() => Err(Code::PolicyViolation),
                Some((_, at)) => delete_below(session, at, partition.offset)?,
            };
            let row = DeleteRecordsPartitionResult::default()
                .with_partition_index(partition.partition_index);
            rows.push(match done {
                Ok(start) => row.with_low_watermark(i64::try_from(start).unwrap_or(i64::MAX)),
                Err(code) => row.with_low_watermark(-1).with_error_code(code.code()),
            });
        }
        topics.push(
            DeleteRecordsTopicResult::default()
                .with_name(wish.name)
                .with_partitions(rows),
        );
    }
    out.need(session.need(session.node.broker.engine.appended()));
    let response = DeleteRecordsResponse::default().with_topics(topics);
    respond(out, &request.header, &response)
}

/// Offset of the first record that is left.
fn delete_below(
    session: &mut KafkaSession,
    at: PartitionRef,
    offset: i64,
) -> Result<Result<u64, Code>, storage::Error> {
    /// All that there is.
    const HIGH_WATERMARK: i64 = -1;
    let to = match (u64::try_from(offset), offset) {
        (Ok(offset), _) => Some(offset),
        (_, HIGH_WATERMARK) => None,
        _ => return Ok(Err(Code::OffsetOutOfRange)),
    };
    let now = session.now();
    let node = std::sync::Arc::clone(&session.node);
    let mut locked = node.broker.lock_one(at.shard());
    let done = stream::delete_below(&mut locked, &mut session.fx, at, to)?;
    locked.commit(now, &mut session.fx);
    Ok(match done {
        None => Err(Code::UnknownTopicOrPartition),
        Some(None) => Err(Code::OffsetOutOfRange),
        Some(Some(start)) => Ok(start),
    })
}
