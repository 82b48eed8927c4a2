//! Configurations, and what tools ask for besides.

use std::collections::BTreeMap;

use broker::ShardId;
use broker::access::Verbs;
use broker::stream::config::{Kind, SPECS, Spec, spec};
use broker::stream::{self, Topic, TopicConfig};
use kafka_protocol::ResponseError as Code;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    DescribeLogDirsRequest, DescribeLogDirsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse, TopicName, alter_configs_response,
    incremental_alter_configs_response,
};
use kafka_protocol::protocol::StrBytes;

use super::{Failure, KafkaSession, Request};
use crate::kafka::{NODE_ID, error, respond};
use crate::net::Outbox;

const RESOURCE_TOPIC: i8 = 2;
const RESOURCE_BROKER: i8 = 4;
pub(super) const SOURCE_TOPIC: i8 = 1;
const SOURCE_STATIC_BROKER: i8 = 4;
pub(super) const SOURCE_DEFAULT: i8 = 5;

/// Kafka's numbers for the types of values.
fn type_of(kind: Kind) -> i8 {
    match kind {
        Kind::Bool => 1,
        Kind::Text | Kind::Choice(_) => 2,
        Kind::Int { .. } => 3,
        Kind::Long { .. } => 5,
        Kind::Ratio => 6,
        Kind::List { .. } => 7,
    }
}

pub(super) fn describe_configs(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: DescribeConfigsRequest = request.decode()?;
    let mut results = Vec::with_capacity(body.resources.len());
    for resource in body.resources {
        let mut result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        let keys = resource.configuration_keys;
        let asked = |name: &str| {
            keys.as_ref()
                .is_none_or(|keys| keys.iter().any(|key| key.as_str() == name))
        };
        match resource.resource_type {
            RESOURCE_TOPIC if !session.may_topic(&resource.resource_name, Verbs::DESCRIBE) => {
                result.error_code = Code::TopicAuthorizationFailed.code();
                result.error_message =
                    Some(StrBytes::from_static_str("Topic authorization failed."));
            }
            RESOURCE_BROKER if !session.may_cluster(Verbs::DESCRIBE) => {
                result.error_code = Code::ClusterAuthorizationFailed.code();
                result.error_message =
                    Some(StrBytes::from_static_str("Cluster authorization failed."));
            }
            RESOURCE_TOPIC => match session.node.broker.topics.get(&resource.resource_name) {
                Some(topic) => {
                    result.configs = SPECS
                        .iter()
                        .filter(|spec| asked(spec.name))
                        .map(|spec| {
                            topic_config(
                                spec,
                                &topic,
                                body.include_synonyms,
                                body.include_documentation,
                            )
                        })
                        .collect();
                }
                None => {
                    result.error_code = Code::UnknownTopicOrPartition.code();
                    result.error_message =
                        Some(StrBytes::from_static_str("The topic does not exist."));
                }
            },
            RESOURCE_BROKER if ["", "1"].contains(&resource.resource_name.as_str()) => {
                result.configs = broker_configs(session)
                    .into_iter()
                    .filter(|config| asked(config.name.as_str()))
                    .collect();
            }
            _ => {
                result.error_code = Code::InvalidRequest.code();
                result.error_message =
                    Some(StrBytes::from_static_str("There is no such resource."));
            }
        }
        results.push(result);
    }
    respond(
        out,
        &request.header,
        &DescribeConfigsResponse::default().with_results(results),
    )
}

fn topic_config(
    spec: &Spec,
    topic: &Topic,
    synonyms: bool,
    documentation: bool,
) -> DescribeConfigsResourceResult {
    let set = topic.config.overrides.get(spec.name);
    let value = StrBytes::from_string(topic.config.get(spec).to_owned());
    let name = StrBytes::from_static_str(spec.name);
    let mut row = DescribeConfigsResourceResult::default()
        .with_name(name.clone())
        .with_value(Some(value.clone()))
        .with_config_source(if set.is_some() {
            SOURCE_TOPIC
        } else {
            SOURCE_DEFAULT
        })
        .with_config_type(type_of(spec.kind));
    if synonyms {
        let synonym = |value, source| {
            DescribeConfigsSynonym::default()
                .with_name(name.clone())
                .with_value(Some(value))
                .with_source(source)
        };
        row.synonyms
            .extend(set.map(|_| synonym(value, SOURCE_TOPIC)));
        row.synonyms.push(synonym(
            StrBytes::from_static_str(spec.default),
            SOURCE_DEFAULT,
        ));
    }
    if documentation {
        row.documentation = Some(StrBytes::from_static_str(spec.doc));
    }
    row
}

/// What the server runs with, by Kafka's names.
fn broker_configs(session: &KafkaSession) -> Vec<DescribeConfigsResourceResult> {
    let config = &session.node.config;
    let rows = [
        (
            "advertised.listeners",
            {
                let (host, port) = session.advertised();
                format!("PLAINTEXT://{host}:{port}")
            },
            2,
        ),
        (
            "auto.create.topics.enable",
            config.kafka_auto_create_topics.to_string(),
            1,
        ),
        ("broker.id", NODE_ID.to_string(), 3),
        ("default.replication.factor", "1".to_owned(), 3),
        ("log.cleanup.policy", "delete".to_owned(), 7),
        ("log.dirs", session.node.data_dir.display().to_string(), 7),
        ("min.insync.replicas", "1".to_owned(), 3),
        ("node.id", NODE_ID.to_string(), 3),
        ("num.partitions", config.kafka_partitions.to_string(), 3),
        ("offsets.retention.minutes", "-1".to_owned(), 3),
        (
            "socket.request.max.bytes",
            config.kafka_max_request_size.0.to_string(),
            3,
        ),
    ];
    rows.into_iter()
        .map(|(name, value, kind)| {
            DescribeConfigsResourceResult::default()
                .with_name(StrBytes::from_static_str(name))
                .with_value(Some(StrBytes::from_string(value)))
                .with_read_only(true)
                .with_config_source(SOURCE_STATIC_BROKER)
                .with_config_type(kind)
        })
        .collect()
}

/// Why a resource's configurations were not changed.
type Refusal = (i16, Option<StrBytes>);

fn refuse(code: Code, text: &'static str) -> Refusal {
    (code.code(), Some(StrBytes::from_static_str(text)))
}

/// Gives a topic the configurations that `change` makes of its own.
fn change_topic(
    session: &mut KafkaSession,
    kind: i8,
    name: &str,
    validate_only: bool,
    change: impl FnOnce(&TopicConfig) -> Result<BTreeMap<String, String>, Refusal>,
) -> Result<(), Refusal> {
    if kind == RESOURCE_TOPIC && !session.may_topic(name, Verbs::CONFIGURE) {
        return Err(refuse(
            Code::TopicAuthorizationFailed,
            "Topic authorization failed.",
        ));
    }
    if kind != RESOURCE_TOPIC && !session.may_cluster(Verbs::ADMIN) {
        return Err(refuse(
            Code::ClusterAuthorizationFailed,
            "Cluster authorization failed.",
        ));
    }
    if kind != RESOURCE_TOPIC {
        return Err(refuse(
            Code::InvalidRequest,
            "Only topic configurations can be changed while the server runs.",
        ));
    }
    let now = session.now();
    // Under the lock, or of two changes at once one is lost.
    let mut locked = session.node.broker.lock_one(ShardId::CATALOG);
    let Some(topic) = session.node.broker.topics.get(name) else {
        return Err(refuse(
            Code::UnknownTopicOrPartition,
            "The topic does not exist.",
        ));
    };
    let configs: Vec<_> = change(&topic.config)?.into_iter().collect();
    stream::configure(&mut locked, &mut session.fx, name, &configs, validate_only).map_err(
        |wrong| {
            (
                error::of_topic(&wrong),
                Some(StrBytes::from_string(wrong.to_string())),
            )
        },
    )?;
    locked.commit(now, &mut session.fx);
    Ok(())
}

pub(super) fn alter_configs(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: AlterConfigsRequest = request.decode()?;
    let mut responses = Vec::with_capacity(body.resources.len());
    for resource in body.resources {
        let configs = resource.configs;
        let changed = change_topic(
            session,
            resource.resource_type,
            &resource.resource_name,
            body.validate_only,
            |old| {
                let set = configs.iter().filter_map(|config| {
                    Some((config.name.to_string(), config.value.as_ref()?.to_string()))
                });
                Ok(kept(old).chain(set).collect())
            },
        );
        let (code, message) = changed.err().unwrap_or_default();
        responses.push(
            alter_configs_response::AlterConfigsResourceResponse::default()
                .with_error_code(code)
                .with_error_message(message)
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name),
        );
    }
    out.need(session.need(session.node.broker.engine.appended()));
    respond(
        out,
        &request.header,
        &AlterConfigsResponse::default().with_responses(responses),
    )
}

/// What a full replacement does not touch: where the partitions live was decided when they were made.
fn kept(old: &TopicConfig) -> impl Iterator<Item = (String, String)> {
    old.overrides
        .get_key_value("flowmesh.colocate")
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .into_iter()
}

pub(super) fn incremental_alter_configs(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: IncrementalAlterConfigsRequest = request.decode()?;
    let mut responses = Vec::with_capacity(body.resources.len());
    for resource in body.resources {
        let changes = resource.configs;
        let changed = change_topic(
            session,
            resource.resource_type,
            &resource.resource_name,
            body.validate_only,
            |old| {
                let mut configs: BTreeMap<String, String> = old
                    .overrides
                    .iter()
                    .map(|(name, value)| (name.to_string(), value.to_string()))
                    .collect();
                for change in &changes {
                    let value = change.value.as_deref();
                    alter(&mut configs, &change.name, change.config_operation, value)?;
                }
                Ok(configs)
            },
        );
        let (code, message) = changed.err().unwrap_or_default();
        responses.push(
            incremental_alter_configs_response::AlterConfigsResourceResponse::default()
                .with_error_code(code)
                .with_error_message(message)
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name),
        );
    }
    out.need(session.need(session.node.broker.engine.appended()));
    respond(
        out,
        &request.header,
        &IncrementalAlterConfigsResponse::default().with_responses(responses),
    )
}

/// KIP-339: 0 sets, 1 deletes, 2 appends to a list, 3 takes from a list.
fn alter(
    configs: &mut BTreeMap<String, String>,
    name: &str,
    operation: i8,
    value: Option<&str>,
) -> Result<(), Refusal> {
    let null = || refuse(Code::InvalidRequest, "Null value not supported.");
    match operation {
        0 => {
            configs.insert(name.to_owned(), value.ok_or_else(null)?.to_owned());
        }
        1 => {
            configs.remove(name);
        }
        2 | 3 => {
            let spec =
                spec(name).filter(|spec| matches!(spec.kind, Kind::List { .. } | Kind::Text));
            let spec = spec.ok_or_else(|| {
                refuse(
                    Code::InvalidConfig,
                    "Only lists can be appended to or subtracted from.",
                )
            })?;
            let old = configs
                .get(name)
                .map_or(spec.default, String::as_str)
                .to_owned();
            let parts = |text: &str| -> Vec<String> {
                text.split(',')
                    .map(str::trim)
                    .filter(|part| !part.is_empty())
                    .map(str::to_owned)
                    .collect()
            };
            let (mut list, given) = (parts(&old), parts(value.ok_or_else(null)?));
            list.retain(|part| !given.contains(part));
            if operation == 2 {
                list.extend(given);
            }
            configs.insert(name.to_owned(), list.join(","));
        }
        _ => return Err(refuse(Code::InvalidRequest, "Unknown operation.")),
    }
    Ok(())
}

pub(super) fn describe_log_dirs(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: DescribeLogDirsRequest = request.decode()?;
    if !session.may_cluster(Verbs::DESCRIBE) {
        let mut response = DescribeLogDirsResponse::default();
        // Before version 3 an empty answer says it.
        if request.version() >= 3 {
            response.error_code = Code::ClusterAuthorizationFailed.code();
        }
        return respond(out, &request.header, &response);
    }
    let broker = &session.node.broker;
    let wanted: Vec<(std::sync::Arc<Topic>, Option<Vec<i32>>)> = match body.topics {
        None => broker
            .topics
            .all()
            .into_iter()
            .map(|topic| (topic, None))
            .collect(),
        Some(topics) => topics
            .into_iter()
            .filter_map(|wish| Some((broker.topics.get(&wish.topic)?, Some(wish.partitions))))
            .collect(),
    };
    let mut topics = Vec::with_capacity(wanted.len());
    for (topic, indexes) in wanted {
        let mut partitions = Vec::new();
        for (index, at) in (0i32..).zip(&topic.partitions) {
            if indexes
                .as_ref()
                .is_some_and(|indexes| !indexes.contains(&index))
            {
                continue;
            }
            if let Some(size) = stream::size(broker, *at)? {
                partitions.push(
                    DescribeLogDirsPartition::default()
                        .with_partition_index(index)
                        .with_partition_size(i64::try_from(size).unwrap_or(i64::MAX)),
                );
            }
        }
        let name = TopicName(StrBytes::from_string(topic.name.to_string()));
        topics.push(
            DescribeLogDirsTopic::default()
                .with_name(name)
                .with_partitions(partitions),
        );
    }
    let dir = StrBytes::from_string(session.node.data_dir.display().to_string());
    let result = DescribeLogDirsResult::default()
        .with_log_dir(dir)
        .with_topics(topics);
    respond(
        out,
        &request.header,
        &DescribeLogDirsResponse::default().with_results(vec![result]),
    )
}

/// There is one node: nothing is ever being moved.
pub(super) fn list_reassignments(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let _: ListPartitionReassignmentsRequest = request.decode()?;
    if !session.may_cluster(Verbs::DESCRIBE) {
        let response = ListPartitionReassignmentsResponse::default()
            .with_error_code(Code::ClusterAuthorizationFailed.code());
        return respond(out, &request.header, &response);
    }
    respond(
        out,
        &request.header,
        &ListPartitionReassignmentsResponse::default(),
    )
}
