//! Transactions (KIP-98, KIP-360, KIP-890): who the producer is, what it writes to, how it ends; and what tools ask about them.

use std::collections::BTreeMap;
use std::sync::Arc;

use broker::ShardId;
use broker::access::Verbs;
use broker::stream::group::{self, Committed};
use broker::stream::transaction::{self, Instance, Place, Stage, TIMEOUT_MAX_MS, Transaction};
use broker::stream::{self, Topic};
use broker::{Locked, ShardSet};
use kafka_protocol::ResponseError as Code;
use kafka_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse, DescribeProducersRequest, DescribeProducersResponse,
    DescribeTransactionsRequest, DescribeTransactionsResponse, EndTxnRequest, EndTxnResponse,
    InitProducerIdRequest, InitProducerIdResponse, ListTransactionsRequest,
    ListTransactionsResponse, ProducerId, TopicName, TransactionalId, TxnOffsetCommitRequest,
    TxnOffsetCommitResponse, describe_transactions_response, list_transactions_response,
};
use kafka_protocol::protocol::StrBytes;

use super::group::may_commit;
use super::offsets::place_of;
use super::{Failure, KafkaSession, Request};
use crate::kafka::{error, permission, respond};
use crate::net::Outbox;

/// First versions of clients for which each transaction has its own epoch (KIP-890).
const END_BUMPS: i16 = 5;
const COMMIT_ADDS: i16 = 5;
/// From here on AddPartitionsToTxn speaks of several transactions.
const ADD_SEVERAL: i16 = 4;

/// Producers that one answer tells of; who wants more asks for fewer partitions.
const PRODUCERS_MAX: usize = 200_000;

fn instance(id: ProducerId, epoch: i16) -> Instance {
    Instance { id: id.0, epoch }
}

pub(super) fn init_producer_id(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: InitProducerIdRequest = request.decode()?;
    let version = request.version();
    let done = match &body.transactional_id {
        None if !session.may_be_idempotent() => Err(Code::ClusterAuthorizationFailed.code()),
        // Never used before, not even in an earlier life of the server: producers are told apart by it.
        None => {
            let mut locked = session.node.broker.lock_one(ShardId::CATALOG);
            let id = locked.new_id(ShardId::CATALOG);
            Ok(Instance {
                id: i64::try_from(id).unwrap_or(i64::MAX),
                epoch: 0,
            })
        }
        Some(id) => init_transactions(session, id, &body, version, out),
    };
    let mut response = InitProducerIdResponse::default();
    match done {
        Ok(producer) => {
            response.producer_id = ProducerId(producer.id);
            response.producer_epoch = producer.epoch;
        }
        Err(code) => {
            response.error_code = code;
            response.producer_id = ProducerId(-1);
            response.producer_epoch = -1;
        }
    }
    respond(out, &request.header, &response)
}

fn init_transactions(
    session: &mut KafkaSession,
    id: &str,
    body: &InitProducerIdRequest,
    version: i16,
    out: &mut Outbox,
) -> Result<Instance, i16> {
    may_write(session, id)?;
    let timeout_ms = u32::try_from(body.transaction_timeout_ms).unwrap_or(0);
    if timeout_ms == 0 || timeout_ms > TIMEOUT_MAX_MS {
        return Err(Code::InvalidTransactionTimeout.code());
    }
    let known = instance(body.producer_id, body.producer_epoch);
    let known = (known.id >= 0).then_some(known);
    let now = session.now();
    let node = Arc::clone(&session.node);
    let mut locked = transaction::lock(&node.broker, id);
    let done = transaction::init(&mut locked, &mut session.fx, now, id, timeout_ms, known);
    commit(session, &mut locked, out);
    done.map_err(|wrong| error::of_transaction(wrong, version >= 4))
}

/// Commits what was done under the locks; the answer waits for it.
fn commit(session: &mut KafkaSession, locked: &mut Locked<'_>, out: &mut Outbox) {
    let lsn = locked.commit(session.now(), &mut session.fx);
    out.need(session.need(lsn));
}

fn may_write(session: &KafkaSession, id: &str) -> Result<(), i16> {
    if session.may_transaction(id, Verbs::WRITE) {
        Ok(())
    } else {
        Err(Code::TransactionalIdAuthorizationFailed.code())
    }
}

pub(super) fn add_partitions(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: AddPartitionsToTxnRequest = request.decode()?;
    let version = request.version();
    let mut response = AddPartitionsToTxnResponse::default();
    if version < ADD_SEVERAL {
        let one = AddPartitionsToTxnTransaction::default()
            .with_transactional_id(body.v3_and_below_transactional_id)
            .with_producer_id(body.v3_and_below_producer_id)
            .with_producer_epoch(body.v3_and_below_producer_epoch)
            .with_topics(body.v3_and_below_topics);
        response.results_by_topic_v3_and_below = add_one(session, &one, version, out);
    } else if !session.may_cluster(Verbs::ADMIN) {
        // Of several transactions only brokers ask, as in Kafka.
        response.error_code = Code::ClusterAuthorizationFailed.code();
    } else {
        for one in &body.transactions {
            let topics = add_one(session, one, version, out);
            response.results_by_transaction.push(
                AddPartitionsToTxnResult::default()
                    .with_transactional_id(one.transactional_id.clone())
                    .with_topic_results(topics),
            );
        }
    }
    respond(out, &request.header, &response)
}

/// Adds the partitions of one transaction, all or none.
fn add_one(
    session: &mut KafkaSession,
    wish: &AddPartitionsToTxnTransaction,
    version: i16,
    out: &mut Outbox,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let id = wish.transactional_id.as_str();
    let mut places = Vec::new();
    let mut whole = may_write(session, id).err();
    let mut topics: Vec<_> = wish
        .topics
        .iter()
        .map(|topic| judged(session, topic, &mut places))
        .collect();
    let all_good = topics
        .iter()
        .flat_map(|topic| &topic.results_by_partition)
        .all(|row| row.partition_error_code == error::NONE);
    if whole.is_none() && all_good {
        let now = session.now();
        let producer = instance(wish.producer_id, wish.producer_epoch);
        let node = Arc::clone(&session.node);
        let mut locked = node.broker.lock_one(ShardId::CATALOG);
        let fx = &mut session.fx;
        let done = if wish.verify_only {
            transaction::check_places(&mut locked, id, producer, &places)
        } else {
            transaction::add_places(&mut locked, fx, now, id, producer, &places)
        };
        commit(session, &mut locked, out);
        whole = done
            .err()
            .map(|wrong| error::of_transaction(wrong, version >= 2));
    }
    for row in topics
        .iter_mut()
        .flat_map(|topic| &mut topic.results_by_partition)
    {
        row.partition_error_code = match (whole, row.partition_error_code) {
            (Some(code), _) => code,
            // The others are at fault.
            (None, error::NONE) if !all_good => Code::OperationNotAttempted.code(),
            (None, code) => code,
        };
    }
    topics
}

fn judged(
    session: &mut KafkaSession,
    wish: &AddPartitionsToTxnTopic,
    places: &mut Vec<Place>,
) -> AddPartitionsToTxnTopicResult {
    let topic = session
        .topics
        .get(&session.node.broker.topics, wish.name.as_bytes());
    let may = session.may_topic(&wish.name, Verbs::WRITE);
    let rows = wish.partitions.iter().map(|&index| {
        let found = topic
            .as_ref()
            .filter(|topic| topic.partition(index).is_some());
        let code = match found {
            _ if !may => Code::TopicAuthorizationFailed.code(),
            None => Code::UnknownTopicOrPartition.code(),
            Some(topic) if topic.is_reserved() => Code::InvalidTopicException.code(),
            Some(topic) => {
                places.push((topic.id, index));
                error::NONE
            }
        };
        AddPartitionsToTxnPartitionResult::default()
            .with_partition_index(index)
            .with_partition_error_code(code)
    });
    AddPartitionsToTxnTopicResult::default()
        .with_name(wish.name.clone())
        .with_results_by_partition(rows.collect())
}

pub(super) fn add_offsets(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: AddOffsetsToTxnRequest = request.decode()?;
    let id = body.transactional_id.as_str();
    let name = body.group_id.as_str();
    let code = match may_write(session, id).and_then(|()| may_commit(session, name)) {
        Err(code) => code,
        Ok(()) => {
            let now = session.now();
            let producer = instance(body.producer_id, body.producer_epoch);
            let node = Arc::clone(&session.node);
            let mut locked = node.broker.lock_one(ShardId::CATALOG);
            let done =
                transaction::add_group(&mut locked, &mut session.fx, now, id, producer, name);
            commit(session, &mut locked, out);
            let newer = request.version() >= 2;
            done.map_or_else(
                |wrong| error::of_transaction(wrong, newer),
                |()| error::NONE,
            )
        }
    };
    let response = AddOffsetsToTxnResponse::default().with_error_code(code);
    respond(out, &request.header, &response)
}

pub(super) fn commit_offsets(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: TxnOffsetCommitRequest = request.decode()?;
    let now = session.now();
    let mut offsets: Vec<(Place, Committed)> = Vec::new();
    let mut topics = Vec::with_capacity(body.topics.len());
    for wish in &body.topics {
        let topic = session
            .topics
            .get(&session.node.broker.topics, wish.name.as_bytes());
        let may = session.may_topic(&wish.name, Verbs::READ);
        let rows = wish.partitions.iter().map(|partition| {
            let index = partition.partition_index;
            let committed = Committed {
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: Arc::from(partition.committed_metadata.as_deref().unwrap_or_default()),
                at: now,
            };
            let place = place_of(topic.as_deref(), index, may, &committed);
            let code = place.map(|place| offsets.push((place, committed))).err();
            TxnOffsetCommitResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(code.unwrap_or(error::NONE))
        });
        topics.push(
            TxnOffsetCommitResponseTopic::default()
                .with_name(wish.name.clone())
                .with_partitions(rows.collect()),
        );
    }
    if let Err(code) = commit_group(session, &body, request.version(), &offsets, out) {
        for row in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            row.error_code = code;
        }
    }
    let response = TxnOffsetCommitResponse::default().with_topics(topics);
    respond(out, &request.header, &response)
}

fn commit_group(
    session: &mut KafkaSession,
    body: &TxnOffsetCommitRequest,
    version: i16,
    offsets: &[(Place, Committed)],
    out: &mut Outbox,
) -> Result<(), i16> {
    let (id, name) = (body.transactional_id.as_str(), body.group_id.as_str());
    may_write(session, id)?;
    may_commit(session, name)?;
    let now = session.now();
    let node = Arc::clone(&session.node);
    let shard = group::slot(name).shard();
    let mut locked = node.broker.lock(ShardSet::of(shard).with(ShardId::CATALOG));
    group::get_or_make(&mut locked, name, now)
        .check_transactional(
            &body.member_id,
            body.group_instance_id.as_deref(),
            body.generation_id,
            now,
        )
        .map_err(error::of_group)?;
    let done = transaction::commit_offsets(
        &mut locked,
        &mut session.fx,
        now,
        id,
        instance(body.producer_id, body.producer_epoch),
        name,
        version >= COMMIT_ADDS,
        offsets,
    );
    commit(session, &mut locked, out);
    done.map_err(|wrong| error::of_transaction(wrong, true))
}

pub(super) fn end(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: EndTxnRequest = request.decode()?;
    let id = body.transactional_id.as_str();
    let bump = request.version() >= END_BUMPS;
    let mut response = EndTxnResponse::default();
    match may_write(session, id) {
        Err(code) => response.error_code = code,
        Ok(()) => {
            let now = session.now();
            let producer = instance(body.producer_id, body.producer_epoch);
            let node = Arc::clone(&session.node);
            let mut locked = transaction::lock(&node.broker, id);
            let fx = &mut session.fx;
            let done = transaction::end(&mut locked, fx, now, id, producer, body.committed, bump);
            commit(session, &mut locked, out);
            match done {
                Ok(next) if bump => {
                    response.producer_id = ProducerId(next.id);
                    response.producer_epoch = next.epoch;
                }
                Ok(_) => {}
                Err(wrong) => {
                    response.error_code = error::of_transaction(wrong, request.version() >= 2);
                }
            }
        }
    }
    respond(out, &request.header, &response)
}

/// May a producer write to a partition in its transaction? The catalog is locked. `implicit`: writing adds the partition. Until
/// the session admits another producer, it need not ask again where that transaction has begun.
///
/// # Errors
/// Kafka's code.
pub(super) fn admit(
    session: &mut KafkaSession,
    locked: &mut Locked<'_>,
    id: &str,
    producer: Instance,
    place: Place,
    implicit: bool,
) -> Result<(), i16> {
    let now = session.now();
    let done = if implicit {
        transaction::add_places(locked, &mut session.fx, now, id, producer, &[place])
    } else {
        transaction::check_places(locked, id, producer, &[place])
    };
    // Producers know a newer one of their id by this code here.
    done.map_err(|wrong| error::of_transaction(wrong, false))?;
    session.admitted = Some((id.to_owned(), producer));
    Ok(())
}

fn name_of(topic: &Topic) -> TopicName {
    TopicName(StrBytes::from_string(topic.name.to_string()))
}

pub(super) fn describe(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: DescribeTransactionsRequest = request.decode()?;
    let node = Arc::clone(&session.node);
    let ids: indexmap::IndexSet<_> = body.transactional_ids.into_iter().collect();
    let mut states = Vec::with_capacity(ids.len());
    for id in ids {
        let mut row = describe_transactions_response::TransactionState::default();
        let may = session.may_transaction(&id, Verbs::DESCRIBE);
        let mut locked = node.broker.lock_one(ShardId::CATALOG);
        match transaction::get(&mut locked, &id) {
            _ if !may => row.error_code = Code::TransactionalIdAuthorizationFailed.code(),
            None => row.error_code = Code::TransactionalIdNotFound.code(),
            Some(found) => {
                let mut topics: BTreeMap<Arc<str>, (TopicName, Vec<i32>)> = BTreeMap::new();
                for (topic, index) in &found.places {
                    let topic = node.broker.topics.by_id(*topic).filter(|topic| {
                        permission::topic(
                            &node.broker,
                            &session.identity,
                            topic.name.as_bytes(),
                            Verbs::DESCRIBE,
                        )
                    });
                    if let Some(topic) = topic {
                        let entry = topics.entry(Arc::clone(&topic.name));
                        let (_, indexes) = entry.or_insert_with(|| (name_of(&topic), Vec::new()));
                        indexes.push(*index);
                    }
                }
                row.transaction_state = StrBytes::from_static_str(found.stage.name());
                row.transaction_timeout_ms = i32::try_from(found.timeout_ms).unwrap_or(i32::MAX);
                row.transaction_start_time_ms = if found.stage == Stage::Ongoing {
                    i64::try_from(found.started.0).unwrap_or(i64::MAX)
                } else {
                    -1
                };
                row.producer_id = ProducerId(found.producer.id);
                row.producer_epoch = found.producer.epoch;
                let topics = topics.into_values().map(|(name, indexes)| {
                    describe_transactions_response::TopicData::default()
                        .with_topic(name)
                        .with_partitions(indexes)
                });
                row.topics = topics.collect();
            }
        }
        row.transactional_id = id;
        states.push(row);
    }
    let response = DescribeTransactionsResponse::default().with_transaction_states(states);
    respond(out, &request.header, &response)
}

pub(super) fn list(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: ListTransactionsRequest = request.decode()?;
    let now = session.now();
    let node = Arc::clone(&session.node);
    let known = [
        Stage::Empty,
        Stage::Ongoing,
        Stage::Committed,
        Stage::Aborted,
    ]
    .map(Stage::name);
    // A transaction of Kafka has states that one of ours is never in.
    let never = ["PrepareCommit", "PrepareAbort", "Dead", "PrepareEpochFence"];
    let is_known =
        |state: &StrBytes| known.contains(&state.as_str()) || never.contains(&state.as_str());
    let (states, unknown): (Vec<_>, Vec<_>) = body.state_filters.into_iter().partition(is_known);
    let any_state = states.is_empty() && unknown.is_empty();
    let old_enough = |transaction: &Transaction| {
        let since = now.0.saturating_sub(transaction.started.0);
        body.duration_filter < 0
            || (transaction.stage == Stage::Ongoing
                && i64::try_from(since).unwrap_or(i64::MAX) > body.duration_filter)
    };
    let wanted = |transaction: &&Transaction| {
        let stage = transaction.stage.name();
        let producers = &body.producer_id_filters;
        (any_state || states.iter().any(|state| state.as_str() == stage))
            && (producers.is_empty() || producers.contains(&ProducerId(transaction.producer.id)))
            && old_enough(transaction)
            && permission::transaction(&session.identity, &transaction.id, Verbs::DESCRIBE)
    };
    let mut locked = node.broker.lock_one(ShardId::CATALOG);
    let rows = transaction::all(&mut locked)
        .filter(wanted)
        .map(|transaction| {
            let id = StrBytes::from_string(transaction.id.to_string());
            list_transactions_response::TransactionState::default()
                .with_transactional_id(TransactionalId(id))
                .with_producer_id(ProducerId(transaction.producer.id))
                .with_transaction_state(StrBytes::from_static_str(transaction.stage.name()))
        });
    let response = ListTransactionsResponse::default()
        .with_unknown_state_filters(unknown)
        .with_transaction_states(rows.collect());
    drop(locked);
    respond(out, &request.header, &response)
}

pub(super) fn describe_producers(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: DescribeProducersRequest = request.decode()?;
    let mut told = 0;
    let mut topics = Vec::with_capacity(body.topics.len());
    for wish in body.topics {
        let topic = session
            .topics
            .get(&session.node.broker.topics, wish.name.as_bytes());
        let may = session.may_topic(&wish.name, Verbs::READ);
        let indexes: indexmap::IndexSet<i32> = wish.partition_indexes.into_iter().collect();
        let mut rows = Vec::with_capacity(indexes.len());
        for index in indexes {
            let at = topic.as_ref().and_then(|topic| topic.partition(index));
            let mut row = PartitionResponse::default().with_partition_index(index);
            match at {
                _ if !may => row.error_code = Code::TopicAuthorizationFailed.code(),
                None => row.error_code = Code::UnknownTopicOrPartition.code(),
                Some(_) if told > PRODUCERS_MAX => row.error_code = Code::PolicyViolation.code(),
                Some(at) => {
                    let producers = stream::producers(&session.node.broker, at)?;
                    told += producers.len();
                    let states = producers.iter().map(|(id, producer)| {
                        let last = producer.batches.back();
                        ProducerState::default()
                            .with_producer_id(ProducerId(*id))
                            .with_producer_epoch(i32::from(producer.epoch))
                            .with_last_sequence(last.map_or(-1, |batch| batch.last_sequence))
                            .with_last_timestamp(signed(producer.last_ms))
                            .with_coordinator_epoch(0)
                            .with_current_txn_start_offset(producer.open.map_or(-1, signed))
                    });
                    row.active_producers = states.collect();
                }
            }
            rows.push(row);
        }
        topics.push(
            TopicResponse::default()
                .with_name(wish.name)
                .with_partitions(rows),
        );
    }
    let response = DescribeProducersResponse::default().with_topics(topics);
    respond(out, &request.header, &response)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
