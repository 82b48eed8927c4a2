//! Fetch: stored batches go out as they are; a reader at the end waits for more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::access::{Kind, Verbs};
use broker::stream::{self, LEADER_EPOCH, PartitionRef, Read, Topic};
use broker::{Broker, Need};
use bytes::Bytes;
use hashbrown::HashMap;
use kafka_protocol::ResponseError as Code;
use protocol_kafka::RequestHeader;
use protocol_kafka::fetch::{self, PartitionResponse, Piece};
use protocol_kafka::header::put_response_header;
use protocol_kafka::topics::TopicName;
use uuid::Uuid;

use super::{Failure, KafkaSession, Request};
use crate::kafka::{Waiting, error, permission};
use crate::net::Outbox;

/// Largest response in bytes, whatever the client allows: Kafka's `fetch.max.bytes` of the broker.
const RESPONSE_MAX: usize = 55 << 20;
/// Longest wait, whatever the client asks for.
const WAIT_MAX_MS: i32 = 300_000;
/// The isolation level of readers of committed records.
pub(super) const COMMITTED: i8 = 1;
/// Batches smaller than this are copied into the response: a slice of its own costs more.
const COPY_BELOW: usize = 1024;

/// What a Fetch request needs, kept from request to request.
#[derive(Debug, Default)]
pub(in crate::kafka) struct FetchWork {
    request: fetch::Request,
    topics: Vec<FoundTopic>,
    rows: Vec<PartitionResponse>,
    /// End of each row's batches in `batches`.
    ends: Vec<usize>,
    batches: Vec<Bytes>,
    /// The aborted transactions of each row.
    aborted: Vec<Vec<fetch::Aborted>>,
    response: fetch::Response,
    /// Partitions that ring this connection.
    watched: HashMap<u64, PartitionRef, foldhash::fast::RandomState>,
}

/// A topic as the client named it, and what it is.
#[derive(Debug)]
struct FoundTopic {
    name: Vec<u8>,
    id: Uuid,
    topic: Option<Arc<Topic>>,
    /// The client may not read it, whether it is there or not.
    denied: bool,
}

impl FetchWork {
    /// Takes back every registration.
    pub(in crate::kafka) fn unwatch(&mut self, broker: &Broker, conn: u64) {
        for (_, at) in self.watched.drain() {
            stream::unwatch(broker, at, conn);
        }
    }
}

pub(super) fn fetch(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let header = request.header;
    session
        .fetch
        .request
        .decode(&request.frame, header.body, header.version)?;
    let wanted = &session.fetch.request;
    if wanted.session_id != 0 {
        // None is ever granted: the client begins anew with a full fetch.
        let mut head = Vec::new();
        put_response_header(&mut head, header.key, header.version, header.correlation_id);
        session.fetch.response.begin(
            header.version,
            &head,
            Code::FetchSessionIdNotFound.code(),
            0,
        );
        session.fetch.response.end(|piece| send(piece, out));
        return Ok(());
    }
    session.fetch.topics.clear();
    for topic in &session.fetch.request.topics {
        let (name, id) = match topic.name {
            TopicName::Name(name) => (name.of(&request.frame).to_vec(), Uuid::nil()),
            TopicName::Id(id) => (Vec::new(), id),
        };
        session.fetch.topics.push(FoundTopic {
            name,
            id,
            topic: None,
            denied: false,
        });
    }
    let wait = u64::try_from(session.fetch.request.max_wait_ms.min(WAIT_MAX_MS)).unwrap_or(0);
    let now = Instant::now();
    resume(session, header, now + Duration::from_millis(wait), now, out)
}

/// Looks at all partitions; answers, or waits on.
pub(in crate::kafka) fn resume(
    session: &mut KafkaSession,
    header: RequestHeader,
    until: Instant,
    now: Instant,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let mut work = std::mem::take(&mut session.fetch);
    let result = loop {
        match look(session, &mut work) {
            Err(error) => break Err(error),
            Ok(Looked { ready: false, need }) if now < until => {
                // What is appended but not durable yet rings by itself, unless it has become durable just now.
                let durable = need.is_some_and(|need| {
                    session
                        .node
                        .broker
                        .engine
                        .notify(need, &session.info.handle.waker())
                });
                if durable && !session.node.broker.engine.failed() {
                    continue;
                }
                session.waiting = Some(Waiting::Fetch { header, until });
                break Ok(());
            }
            Ok(Looked { need, .. }) => {
                if let Some(need) = need.filter(|_| work.batches.is_empty()) {
                    // A reader that polls without waiting must still make what it cannot see yet durable.
                    let engine = &session.node.broker.engine;
                    let _ = engine.notify(need, &session.info.handle.waker());
                }
                answer(&mut work, &header, out);
                break Ok(());
            }
        }
    };
    work.batches.clear();
    session.fetch = work;
    result
}

struct Looked {
    /// There is enough to answer, or an error to tell.
    ready: bool,
    /// The nearest position whose durability would show more records.
    need: Option<Need>,
}

fn look(session: &mut KafkaSession, work: &mut FetchWork) -> Result<Looked, Failure> {
    work.rows.clear();
    work.ends.clear();
    work.batches.clear();
    work.aborted.clear();
    let committed = work.request.isolation_level == COMMITTED;
    let topics = &session.node.broker.topics;
    for found in &mut work.topics {
        found.topic = if found.id.is_nil() {
            session.topics.get(topics, &found.name)
        } else {
            session.topics.by_id(topics, found.id)
        };
        let name = match &found.topic {
            Some(topic) => topic.name.as_bytes(),
            None => &found.name,
        };
        // An id that is unknown has no name to ask for.
        found.denied = (found.id.is_nil() || found.topic.is_some())
            && !permission::topic(&session.node.broker, &session.identity, name, Verbs::READ);
        if found.denied {
            session.note_denied(Kind::Topic, name, Verbs::READ);
            found.topic = None;
        }
    }
    let mut looked = Looked {
        ready: work.request.partitions.is_empty(),
        need: None,
    };
    let limit = usize::try_from(work.request.max_bytes)
        .unwrap_or(0)
        .min(RESPONSE_MAX);
    let mut total = 0;
    for (topic, found) in work.request.topics.iter().zip(&work.topics) {
        for partition in work
            .request
            .partitions
            .get(topic.partitions.clone())
            .unwrap_or_default()
        {
            let mut row = PartitionResponse {
                index: partition.index,
                error: error::NONE,
                high_watermark: -1,
                last_stable_offset: -1,
                log_start_offset: -1,
            };
            let at = found
                .topic
                .as_ref()
                .and_then(|topic| topic.partition(partition.index));
            let (Some(at), Ok(offset)) = (at, u64::try_from(partition.fetch_offset)) else {
                row.error = match (&found.topic, at) {
                    _ if found.denied => Code::TopicAuthorizationFailed.code(),
                    (None, _) if !found.id.is_nil() => error::UNKNOWN_TOPIC_ID,
                    (_, Some(_)) => Code::OffsetOutOfRange.code(),
                    _ => Code::UnknownTopicOrPartition.code(),
                };
                looked.ready = true;
                work.rows.push(row);
                work.ends.push(work.batches.len());
                work.aborted.push(Vec::new());
                continue;
            };
            let wish = Read {
                at,
                offset,
                max_bytes: usize::try_from(partition.max_bytes)
                    .unwrap_or(0)
                    .min(limit.saturating_sub(total)),
                at_least_one: total == 0,
                committed,
                watch: Some((session.info.id, &session.wake)),
            };
            let mut aborted = Vec::new();
            if partition.current_leader_epoch > LEADER_EPOCH {
                row.error = Code::UnknownLeaderEpoch.code();
                looked.ready = true;
            } else {
                match stream::read(&session.node.broker, wish, &mut work.batches)? {
                    None => {
                        row.error = Code::UnknownTopicOrPartition.code();
                        looked.ready = true;
                    }
                    Some(got) if got.out_of_range => {
                        row.error = Code::OffsetOutOfRange.code();
                        looked.ready = true;
                    }
                    Some(got) => {
                        row.high_watermark = signed(got.bounds.high_watermark);
                        row.last_stable_offset = signed(got.bounds.last_stable);
                        row.log_start_offset = signed(got.bounds.start);
                        total += got.bytes;
                        if got.waits {
                            work.watched.insert(at.id, at);
                        }
                        if got.any_aborted {
                            let first = work.ends.last().copied().unwrap_or(0);
                            let batches = work.batches.get(first..).unwrap_or_default();
                            match stream::aborted(&session.node.broker, at, offset, batches)? {
                                Some(found) => {
                                    aborted.extend(found.iter().map(|found| fetch::Aborted {
                                        producer_id: found.producer_id,
                                        first_offset: signed(found.first),
                                    }))
                                }
                                // Deleted meanwhile: the client asks again.
                                None => work.batches.truncate(first),
                            }
                        }
                        looked.need = match (looked.need, got.need) {
                            (Some(a), Some(b)) if b.written < a.written => Some(b),
                            (None, b) => b,
                            (a, _) => a,
                        };
                    }
                }
            }
            work.rows.push(row);
            work.ends.push(work.batches.len());
            work.aborted.push(aborted);
        }
    }
    let enough = usize::try_from(work.request.min_bytes).unwrap_or(0);
    looked.ready |= total >= enough;
    Ok(looked)
}

fn signed(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

fn answer(work: &mut FetchWork, header: &RequestHeader, out: &mut Outbox) {
    let mut head = Vec::with_capacity(8);
    put_response_header(&mut head, header.key, header.version, header.correlation_id);
    let response = &mut work.response;
    response.begin(header.version, &head, error::NONE, work.topics.len());
    let committed = work.request.isolation_level == COMMITTED;
    let rows = work.rows.iter().zip(&work.ends).zip(&work.aborted);
    let (mut rows, mut batches, mut taken) = (rows, work.batches.drain(..), 0);
    for (topic, found) in work.request.topics.iter().zip(&work.topics) {
        response.topic(&found.name, found.id, topic.partitions.len());
        for ((row, end), aborted) in rows.by_ref().take(topic.partitions.len()) {
            let aborted = committed.then_some(aborted.as_slice());
            response.partition(row, aborted, batches.by_ref().take(end - taken));
            taken = *end;
        }
    }
    response.end(|piece| send(piece, out));
}

fn send(piece: Piece<'_>, out: &mut Outbox) {
    match piece {
        Piece::Fields(fields) => out.bytes().extend_from_slice(fields),
        Piece::Batch(batch) if batch.len() < COPY_BELOW => out.bytes().extend_from_slice(&batch),
        Piece::Batch(batch) => out.push(batch),
    }
}
