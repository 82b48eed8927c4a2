//! Who is there and what is where: Metadata, FindCoordinator, DescribeCluster.

use broker::access::Verbs;
use broker::stream::{self, LEADER_EPOCH, Topic, TopicError};
use kafka_protocol::ResponseError as Code;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    BrokerId, DescribeClusterRequest, DescribeClusterResponse, FindCoordinatorRequest,
    FindCoordinatorResponse, MetadataRequest, MetadataResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{Failure, KafkaSession, Request};
use crate::kafka::{NODE_ID, error, permission, respond};
use crate::net::Outbox;

/// The id in the form that Kafka shows: base64url without padding.
pub(super) fn cluster_id(id: Uuid) -> StrBytes {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut rest = id.as_u128();
    // 22 digits of 6 bits for 128: the last one holds two bits and four zeros.
    let mut text = vec![0; 22];
    for (index, digit) in text.iter_mut().rev().enumerate() {
        let bits = if index == 0 {
            (rest & 0b11) << 4
        } else {
            rest & 0b11_1111
        };
        rest >>= if index == 0 { 2 } else { 6 };
        *digit = DIGITS.get(bits as usize).copied().unwrap_or(b'A');
    }
    StrBytes::from_string(String::from_utf8(text).unwrap_or_default())
}

pub(super) fn metadata(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: MetadataRequest = request.decode()?;
    let version = request.version();
    let (host, port) = session.advertised();
    let broker = MetadataResponseBroker::default()
        .with_node_id(BrokerId(NODE_ID))
        .with_host(StrBytes::from_string(host))
        .with_port(port);
    // In version 0 an empty list means all, later null does.
    let wanted = body
        .topics
        .filter(|topics| version > 0 || !topics.is_empty());
    let operations = body.include_topic_authorized_operations;
    let mut topics = Vec::new();
    match wanted {
        None => topics.extend(
            session
                .node
                .broker
                .topics
                .all()
                .iter()
                .filter(|topic| {
                    permission::topic(
                        &session.node.broker,
                        &session.identity,
                        topic.name.as_bytes(),
                        Verbs::DESCRIBE,
                    )
                })
                .map(|topic| described(session, topic, operations)),
        ),
        Some(wanted) => {
            let create =
                body.allow_auto_topic_creation && session.node.config.kafka_auto_create_topics;
            for wish in wanted {
                topics.push(one(
                    session,
                    wish.topic_id,
                    wish.name,
                    create,
                    operations,
                    out,
                ));
            }
        }
    }
    let mut response = MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(cluster_id(session.node.broker.topics.cluster_id())))
        .with_controller_id(BrokerId(NODE_ID))
        .with_topics(topics);
    if body.include_cluster_authorized_operations && (8..=10).contains(&version) {
        response.cluster_authorized_operations = session.cluster_operations();
    }
    respond(out, &request.header, &response)
}

fn one(
    session: &mut KafkaSession,
    id: Uuid,
    name: Option<TopicName>,
    create: bool,
    operations: bool,
    out: &mut Outbox,
) -> MetadataResponseTopic {
    let Some(name) = name else {
        return match session.node.broker.topics.by_id(id) {
            Some(topic) if session.may_topic(&topic.name, Verbs::DESCRIBE) => {
                described(session, &topic, operations)
            }
            Some(_) => denied(None).with_topic_id(id),
            None => MetadataResponseTopic::default()
                .with_topic_id(id)
                .with_error_code(error::UNKNOWN_TOPIC_ID)
                .with_name(None),
        };
    };
    if !session.may_topic(&name, Verbs::DESCRIBE) {
        return denied(Some(name));
    }
    let found = match session.node.broker.topics.get(&name) {
        Some(topic) => Ok(topic),
        None => match stream::check_name(&name) {
            Err(wrong) => Err(wrong),
            Ok(()) if !create => Err(TopicError::Unknown),
            Ok(()) if !session.may_create(&name) => return denied(Some(name)),
            Ok(()) => {
                let ctx = session.ctx();
                let made = stream::ensure_topic(&session.node.broker, &ctx, &name);
                out.need(session.need(session.node.broker.engine.appended()));
                made
            }
        },
    };
    match found {
        Ok(topic) => described(session, &topic, operations),
        Err(wrong) => MetadataResponseTopic::default()
            .with_name(Some(name))
            .with_error_code(error::of_topic(&wrong)),
    }
}

/// Whether it is there or not.
fn denied(name: Option<TopicName>) -> MetadataResponseTopic {
    MetadataResponseTopic::default()
        .with_name(name)
        .with_error_code(Code::TopicAuthorizationFailed.code())
}

fn described(session: &KafkaSession, topic: &Topic, operations: bool) -> MetadataResponseTopic {
    let node = || vec![BrokerId(NODE_ID)];
    let partitions = (0i32..).zip(&topic.partitions).map(|(index, _)| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(BrokerId(NODE_ID))
            .with_leader_epoch(LEADER_EPOCH)
            .with_replica_nodes(node())
            .with_isr_nodes(node())
    });
    let described = MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(
            topic.name.to_string(),
        ))))
        .with_topic_id(topic.id)
        .with_partitions(partitions.collect());
    if operations {
        described.with_topic_authorized_operations(session.topic_operations(&topic.name))
    } else {
        described
    }
}

pub(super) fn find_coordinator(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: FindCoordinatorRequest = request.decode()?;
    let (host, port) = session.advertised();
    let host = StrBytes::from_string(host);
    // 0: groups, 1: transactional ids.
    let known = matches!(body.key_type, 0 | 1);
    let error = if known {
        0
    } else {
        Code::InvalidRequest.code()
    };
    let code = |key: &str| match body.key_type {
        0 if !session.may_group(key, Verbs::DESCRIBE) => Code::GroupAuthorizationFailed.code(),
        1 if !session.may_transaction(key, Verbs::DESCRIBE) => {
            Code::TransactionalIdAuthorizationFailed.code()
        }
        _ => error,
    };
    let place = |code: i16| {
        if code == 0 {
            (BrokerId(NODE_ID), host.clone(), port)
        } else {
            (BrokerId(-1), StrBytes::default(), -1)
        }
    };
    let response = if request.version() >= 4 {
        let coordinators = body.coordinator_keys.iter().map(|key| {
            let code = code(key);
            let (node, host, port) = place(code);
            Coordinator::default()
                .with_key(key.clone())
                .with_node_id(node)
                .with_host(host)
                .with_port(port)
                .with_error_code(code)
        });
        FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
    } else {
        let code = code(&body.key);
        let (node, host, port) = place(code);
        FindCoordinatorResponse::default()
            .with_error_code(code)
            .with_node_id(node)
            .with_host(host)
            .with_port(port)
    };
    respond(out, &request.header, &response)
}

pub(super) fn describe_cluster(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: DescribeClusterRequest = request.decode()?;
    let (host, port) = session.advertised();
    let mut response = DescribeClusterResponse::default();
    if body.endpoint_type == 1 {
        let broker = DescribeClusterBroker::default()
            .with_broker_id(BrokerId(NODE_ID))
            .with_host(StrBytes::from_string(host))
            .with_port(port);
        response = response
            .with_cluster_id(cluster_id(session.node.broker.topics.cluster_id()))
            .with_controller_id(BrokerId(NODE_ID))
            .with_brokers(vec![broker]);
        if body.include_cluster_authorized_operations {
            response.cluster_authorized_operations = session.cluster_operations();
        }
    } else {
        response.error_code = Code::UnsupportedEndpointType.code();
        response.error_message = Some(StrBytes::from_static_str(
            "There are no separate controllers.",
        ));
        response.endpoint_type = body.endpoint_type;
    }
    respond(out, &request.header, &response)
}
