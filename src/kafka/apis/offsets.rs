//! Offsets: those of the logs by time, and those that groups have committed.

use std::sync::Arc;

use broker::access::{Kind, Verbs};
use broker::stream::group::{self, Committed};
use broker::stream::{self, LEADER_EPOCH, Moment, Topic};
use broker::{Millis, ShardSet};
use kafka_protocol::ResponseError as Code;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{
    ListOffsetsRequest, ListOffsetsResponse, OffsetCommitRequest, OffsetCommitResponse,
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest, OffsetFetchResponse,
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::fetch::COMMITTED;
use super::group::may_commit;
use super::{Failure, KafkaSession, Request};
use crate::kafka::{error, permission, respond};
use crate::net::Outbox;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
/// The first offset on this machine rather than in a remote tier: the same here.
const EARLIEST_LOCAL: i64 = -4;
/// Kafka's `offset.metadata.max.bytes`.
const METADATA_MAX: usize = 4096;

fn signed(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

pub(super) fn list_offsets(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: ListOffsetsRequest = request.decode()?;
    let mut topics = Vec::with_capacity(body.topics.len());
    for wish in body.topics {
        let topic = session
            .topics
            .get(&session.node.broker.topics, wish.name.as_bytes());
        let mut partitions = Vec::with_capacity(wish.partitions.len());
        for partition in wish.partitions {
            let mut row = ListOffsetsPartitionResponse::default()
                .with_partition_index(partition.partition_index)
                .with_timestamp(-1)
                .with_offset(-1);
            if !session.may_topic(&wish.name, Verbs::DESCRIBE) {
                row.error_code = Code::TopicAuthorizationFailed.code();
            } else if partition.current_leader_epoch > LEADER_EPOCH {
                row.error_code = Code::UnknownLeaderEpoch.code();
            } else {
                match offset_at(
                    session,
                    topic.as_deref(),
                    partition.partition_index,
                    partition.timestamp,
                    body.isolation_level == COMMITTED,
                )? {
                    None => row.error_code = Code::UnknownTopicOrPartition.code(),
                    Some(found) => {
                        (row.offset, row.timestamp) = found;
                        if request.version() >= 4 && found.0 >= 0 {
                            row.leader_epoch = LEADER_EPOCH;
                        }
                    }
                }
            }
            partitions.push(row);
        }
        topics.push(
            ListOffsetsTopicResponse::default()
                .with_name(wish.name)
                .with_partitions(partitions),
        );
    }
    respond(
        out,
        &request.header,
        &ListOffsetsResponse::default().with_topics(topics),
    )
}

/// Offset and timestamp; `None`: there is no such partition.
fn offset_at(
    session: &KafkaSession,
    topic: Option<&Topic>,
    index: i32,
    timestamp: i64,
    committed: bool,
) -> Result<Option<(i64, i64)>, storage::Error> {
    let broker = &session.node.broker;
    let Some(at) = topic.and_then(|topic| topic.partition(index)) else {
        return Ok(None);
    };
    let Some(bounds) = stream::bounds(broker, at)? else {
        return Ok(None);
    };
    let moment = match timestamp {
        LATEST if committed => return Ok(Some((signed(bounds.last_stable), -1))),
        LATEST => return Ok(Some((signed(bounds.high_watermark), -1))),
        EARLIEST | EARLIEST_LOCAL => return Ok(Some((signed(bounds.start), -1))),
        MAX_TIMESTAMP => Moment::Newest,
        // -5, the latest in a remote tier, and whatever may come: there is none.
        ..0 => return Ok(Some((-1, -1))),
        since => Moment::Since(since),
    };
    let found = stream::find(broker, at, moment)?
        .filter(|(offset, _)| !committed || *offset < bounds.last_stable);
    Ok(Some(found.map_or((-1, -1), |(offset, timestamp)| {
        (signed(offset), timestamp)
    })))
}

pub(super) fn for_leader_epoch(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: OffsetForLeaderEpochRequest = request.decode()?;
    let mut topics = Vec::with_capacity(body.topics.len());
    for wish in body.topics {
        let topic = session
            .topics
            .get(&session.node.broker.topics, wish.topic.as_bytes());
        let mut partitions = Vec::with_capacity(wish.partitions.len());
        for partition in wish.partitions {
            let at = topic
                .as_ref()
                .and_then(|topic| topic.partition(partition.partition));
            let bounds = match at {
                Some(at) => stream::bounds(&session.node.broker, at)?,
                None => None,
            };
            let mut row = EpochEndOffset::default()
                .with_partition(partition.partition)
                .with_end_offset(-1);
            match bounds {
                _ if !session.may_topic(&wish.topic, Verbs::DESCRIBE) => {
                    row.error_code = Code::TopicAuthorizationFailed.code();
                }
                None => row.error_code = Code::UnknownTopicOrPartition.code(),
                Some(_) if partition.current_leader_epoch > LEADER_EPOCH => {
                    row.error_code = Code::UnknownLeaderEpoch.code();
                }
                // One epoch for ever: it ends where the log does. Later ones are not known yet.
                Some(bounds) if partition.leader_epoch == LEADER_EPOCH => {
                    row.leader_epoch = LEADER_EPOCH;
                    row.end_offset = signed(bounds.high_watermark);
                }
                Some(_) => row.leader_epoch = -1,
            }
            partitions.push(row);
        }
        topics.push(
            OffsetForLeaderTopicResult::default()
                .with_topic(wish.topic)
                .with_partitions(partitions),
        );
    }
    respond(
        out,
        &request.header,
        &OffsetForLeaderEpochResponse::default().with_topics(topics),
    )
}

/// Where an offset is committed for a partition of a topic that the client may read, or Kafka's code.
pub(super) fn place_of(
    topic: Option<&Topic>,
    index: i32,
    may: bool,
    committed: &Committed,
) -> Result<(Uuid, i32), i16> {
    let known = topic.filter(|topic| topic.partition(index).is_some());
    match known {
        _ if !may => Err(Code::TopicAuthorizationFailed.code()),
        _ if committed.metadata.len() > METADATA_MAX => Err(Code::OffsetMetadataTooLarge.code()),
        None => Err(Code::UnknownTopicOrPartition.code()),
        Some(topic) => Ok((topic.id, index)),
    }
}

pub(super) fn commit(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: OffsetCommitRequest = request.decode()?;
    let now = session.now();
    let name = body.group_id.as_str();
    let mut commits: Vec<((Uuid, i32), Committed)> = Vec::new();
    let mut topics = Vec::with_capacity(body.topics.len());
    for wish in &body.topics {
        let topic = session
            .topics
            .get(&session.node.broker.topics, wish.name.as_bytes());
        let mut partitions = Vec::with_capacity(wish.partitions.len());
        for partition in &wish.partitions {
            let index = partition.partition_index;
            let committed = Committed {
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: Arc::from(partition.committed_metadata.as_deref().unwrap_or_default()),
                at: now,
            };
            let may = session.may_topic(&wish.name, Verbs::READ);
            let place = place_of(topic.as_deref(), index, may, &committed);
            let code = place.map(|place| commits.push((place, committed))).err();
            let row = OffsetCommitResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(code.unwrap_or(error::NONE));
            partitions.push(row);
        }
        topics.push(
            OffsetCommitResponseTopic::default()
                .with_name(wish.name.clone())
                .with_partitions(partitions),
        );
    }
    let instance = body.group_instance_id.as_deref();
    let refused = if let Err(code) = may_commit(session, name) {
        Some(code)
    } else {
        commit_group(
            session,
            name,
            &body.member_id,
            instance,
            body.generation_id_or_member_epoch,
            now,
            &commits,
            out,
        )?
    };
    if let Some(code) = refused {
        for row in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            row.error_code = code;
        }
    }
    respond(
        out,
        &request.header,
        &OffsetCommitResponse::default().with_topics(topics),
    )
}

#[expect(clippy::too_many_arguments, reason = "the fields of one request")]
fn commit_group(
    session: &mut KafkaSession,
    name: &str,
    member: &str,
    instance: Option<&str>,
    generation: i32,
    now: Millis,
    commits: &[((Uuid, i32), Committed)],
    out: &mut Outbox,
) -> Result<Option<i16>, Failure> {
    let node = Arc::clone(&session.node);
    let own = ShardSet::of(group::slot(name).shard());
    let mut locked = node.broker.lock(own);
    if !group::is_registered(&mut locked, name, now) {
        // Its first commit makes the group known to the catalog.
        drop(locked);
        locked = node.broker.lock(own.union(ShardSet::CATALOG));
    }
    if let Err(error) =
        group::get_or_make(&mut locked, name, now).check_commit(member, instance, generation, now)
    {
        return Ok(Some(error::of_group(error)));
    }
    if commits.is_empty() {
        return Ok(None);
    }
    group::commit(&mut locked, &mut session.fx, name, now, commits)?;
    let lsn = locked.commit(now, &mut session.fx);
    out.need(session.need(lsn));
    Ok(None)
}

/// What a group has committed for partitions of one topic. `Err`: a transaction is going to commit another offset.
type Found = Vec<(i32, Result<Option<Committed>, Unstable>)>;
type Rows = Vec<(TopicName, Found)>;

/// See [`Found`].
#[derive(Debug, Clone, Copy)]
struct Unstable;

pub(super) fn fetch(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: OffsetFetchRequest = request.decode()?;
    // What is committed but not durable yet must not be seen and then be gone.
    if request.version() < 8 {
        let wanted = body.topics.map(|topics| {
            topics
                .into_iter()
                .map(|topic| (topic.name, topic.partition_indexes))
                .collect()
        });
        let mut response = OffsetFetchResponse::default();
        let (found, refused) = permitted(session, &body.group_id, wanted, body.require_stable)?;
        if refused != error::NONE && request.version() >= 2 {
            response.error_code = refused;
        }
        for (name, code, rows) in found {
            let rows = rows.into_iter().map(|(index, committed)| {
                let (unstable, offset, epoch, metadata) = shown(committed);
                OffsetFetchResponsePartition::default()
                    .with_error_code(if code == error::NONE { unstable } else { code })
                    .with_partition_index(index)
                    .with_committed_offset(offset)
                    .with_committed_leader_epoch(epoch)
                    .with_metadata(Some(metadata))
            });
            response.topics.push(
                OffsetFetchResponseTopic::default()
                    .with_name(name)
                    .with_partitions(rows.collect()),
            );
        }
        out.need(session.need(session.node.broker.engine.appended()));
        return respond(out, &request.header, &response);
    }
    let mut response = OffsetFetchResponse::default();
    for group in body.groups {
        let wanted = group.topics.map(|topics| {
            topics
                .into_iter()
                .map(|topic| (topic.name, topic.partition_indexes))
                .collect()
        });
        let mut row = OffsetFetchResponseGroup::default().with_group_id(group.group_id.clone());
        let (found, refused) = permitted(session, &group.group_id, wanted, body.require_stable)?;
        row.error_code = refused;
        for (name, code, rows) in found {
            let rows = rows.into_iter().map(|(index, committed)| {
                let (unstable, offset, epoch, metadata) = shown(committed);
                OffsetFetchResponsePartitions::default()
                    .with_error_code(if code == error::NONE { unstable } else { code })
                    .with_partition_index(index)
                    .with_committed_offset(offset)
                    .with_committed_leader_epoch(epoch)
                    .with_metadata(Some(metadata))
            });
            row.topics.push(
                OffsetFetchResponseTopics::default()
                    .with_name(name)
                    .with_partitions(rows.collect()),
            );
        }
        response.groups.push(row);
    }
    out.need(session.need(session.node.broker.engine.appended()));
    respond(out, &request.header, &response)
}

/// Error, offset, leader epoch and metadata.
fn shown(committed: Result<Option<Committed>, Unstable>) -> (i16, i64, i32, StrBytes) {
    let none = |code| (code, -1, -1, StrBytes::default());
    match committed {
        Ok(Some(row)) => (
            error::NONE,
            row.offset,
            row.leader_epoch,
            StrBytes::from_string(row.metadata.to_string()),
        ),
        Ok(None) => none(error::NONE),
        Err(Unstable) => none(Code::UnstableOffsetCommit.code()),
    }
}

/// For each topic: its name, an error, and its rows.
type Permitted = Vec<(TopicName, i16, Found)>;

/// What the client may see of a group's offsets, and the error of the whole. Topics that it may not see are named only if it named
/// them itself.
fn permitted(
    session: &mut KafkaSession,
    group: &str,
    wanted: Option<Vec<(TopicName, Vec<i32>)>>,
    stable: bool,
) -> Result<(Permitted, i16), Failure> {
    if !session.may_group(group, Verbs::DESCRIBE) {
        let code = Code::GroupAuthorizationFailed.code();
        let rows = wanted.into_iter().flatten().map(|(name, indexes)| {
            let rows = indexes.into_iter().map(|index| (index, Ok(None))).collect();
            (name, code, rows)
        });
        return Ok((rows.collect(), code));
    }
    let named = wanted.is_some();
    let mut found = Permitted::new();
    for (name, rows) in committed(session, group, wanted, stable)? {
        let broker = &session.node.broker;
        if permission::topic(broker, &session.identity, name.as_bytes(), Verbs::DESCRIBE) {
            found.push((name, error::NONE, rows));
        } else if named {
            session.note_denied(Kind::Topic, name.as_bytes(), Verbs::DESCRIBE);
            let rows = rows
                .into_iter()
                .map(|(index, _)| (index, Ok(None)))
                .collect();
            found.push((name, Code::TopicAuthorizationFailed.code(), rows));
        }
    }
    Ok((found, error::NONE))
}

/// Reads a group's offsets: of these partitions, or of all that have one.
fn committed(
    session: &mut KafkaSession,
    name: &str,
    wanted: Option<Vec<(TopicName, Vec<i32>)>>,
    stable: bool,
) -> Result<Rows, Failure> {
    let node = Arc::clone(&session.node);
    let now = session.now();
    let mut locked = node.broker.lock_one(group::slot(name).shard());
    let mut group = group::get(&mut locked, name, now);
    if let Some(group) = &mut group {
        group.load_offsets(&node.broker.engine)?;
    }
    let group = group.as_deref();
    let topics = &node.broker.topics;
    let settled = |topic, index| {
        let undecided = stable && group.is_some_and(|group| group.is_undecided(topic, index));
        if undecided { Err(Unstable) } else { Ok(()) }
    };
    let Some(wanted) = wanted else {
        let mut all: std::collections::BTreeMap<Arc<str>, Found> = Default::default();
        for ((id, index), committed) in group.into_iter().flat_map(|group| group.all_committed()) {
            // Offsets of deleted topics are nobody's.
            if let Some(topic) = topics.by_id(*id) {
                all.entry(Arc::clone(&topic.name)).or_default().push((
                    *index,
                    settled(*id, *index).map(|()| Some(committed.clone())),
                ));
            }
        }
        let named = |name: Arc<str>| TopicName(StrBytes::from_string(name.to_string()));
        return Ok(all
            .into_iter()
            .map(|(name, mut rows)| {
                rows.sort_unstable_by_key(|(index, _)| *index);
                (named(name), rows)
            })
            .collect());
    };
    Ok(wanted
        .into_iter()
        .map(|(name, indexes)| {
            let topic = session.topics.get(topics, name.as_bytes());
            let find = |index| match (group, &topic) {
                (Some(group), Some(topic)) => {
                    settled(topic.id, index).map(|()| group.committed(topic.id, index).cloned())
                }
                _ => Ok(None),
            };
            let rows = indexes
                .into_iter()
                .map(|index| (index, find(index)))
                .collect();
            (name, rows)
        })
        .collect())
}

pub(super) fn delete(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: OffsetDeleteRequest = request.decode()?;
    if !session.may_group(&body.group_id, Verbs::DELETE) {
        let response =
            OffsetDeleteResponse::default().with_error_code(Code::GroupAuthorizationFailed.code());
        return respond(out, &request.header, &response);
    }
    let node = Arc::clone(&session.node);
    let now = session.now();
    let name = body.group_id.as_str();
    let mut keys = Vec::new();
    let mut topics = Vec::with_capacity(body.topics.len());
    for wish in &body.topics {
        let topic = session
            .topics
            .get(&node.broker.topics, wish.name.as_bytes());
        let rows = wish.partitions.iter().map(|partition| {
            let index = partition.partition_index;
            let mut row = OffsetDeleteResponsePartition::default().with_partition_index(index);
            if !session.may_topic(&wish.name, Verbs::READ) {
                row.error_code = Code::TopicAuthorizationFailed.code();
                return row;
            }
            match topic
                .as_ref()
                .filter(|topic| topic.partition(index).is_some())
            {
                Some(topic) => keys.push((topic.id, index)),
                None => row.error_code = Code::UnknownTopicOrPartition.code(),
            }
            row
        });
        let rows = rows.collect();
        topics.push(
            OffsetDeleteResponseTopic::default()
                .with_name(wish.name.clone())
                .with_partitions(rows),
        );
    }
    let mut locked = node.broker.lock_one(group::slot(name).shard());
    let busy =
        group::get(&mut locked, name, now).is_some_and(|group| group.state != group::State::Empty);
    let mut response = OffsetDeleteResponse::default();
    if busy {
        // Which topics its members read is known to them alone.
        response.error_code = Code::NonEmptyGroup.code();
    } else if let Err(error) =
        group::delete_offsets(&mut locked, &mut session.fx, name, now, &keys)?
    {
        response.error_code = error::of_group(error);
    } else {
        response.topics = topics;
    }
    let lsn = locked.commit(now, &mut session.fx);
    drop(locked);
    out.need(session.need(lsn));
    respond(out, &request.header, &response)
}
