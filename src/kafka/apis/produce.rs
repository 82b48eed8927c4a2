//! Produce: the producers' batches go into the log as they are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::access::{Kind, Verbs};
use broker::stream::transaction::Instance;
use broker::stream::{self, AppendError, Appended, PartitionRef, Topic, batch};
use broker::{Durability, Locked, Need, ShardId, ShardSet};
use bytes::BytesMut;
use kafka_protocol::ResponseError as Code;
use protocol_kafka::header::put_response_header;
use protocol_kafka::produce;
use protocol_kafka::topics::TopicName;
use protocol_kafka::wire::Write;
use uuid::Uuid;

use super::transactions::admit;
use super::{Failure, KafkaSession, Request};
use crate::config::Face;
use crate::governor::{Governor, Held};
use crate::kafka::{Waiting, close_frame, error, permission};
use crate::net::Outbox;

/// What one Produce request needs, kept from request to request.
#[derive(Debug, Default)]
pub(in crate::kafka) struct ProduceWork {
    request: produce::Request,
    /// For each topic of the request: what it is, or how the client named it.
    topics: Vec<Result<Arc<Topic>, TopicNamed>>,
    /// For each partition of the request, in its order.
    rows: Vec<Row>,
    /// Batches to append, by shard.
    jobs: Vec<Job>,
}

#[derive(Debug)]
enum TopicNamed {
    Name(Vec<u8>),
    Id(Uuid),
    /// The client may not write to it, whether it is there or not.
    Denied(Vec<u8>, Uuid),
}

#[derive(Debug)]
struct Row {
    error: i16,
    message: Option<String>,
    appended: Option<Appended>,
}

impl Row {
    fn refused(error: i16, message: Option<String>) -> Self {
        Self {
            error,
            message,
            appended: None,
        }
    }
}

#[derive(Debug)]
struct Job {
    shard: ShardId,
    topic: usize,
    row: usize,
    index: i32,
    at: PartitionRef,
    bytes: BytesMut,
    header: batch::Header,
}

/// Longest that a request is held while memory or disk is short, if its own timeout does not end before: clients give up
/// on a connection whose request takes longer than their request.timeout.ms (30 s), and five of them wait one behind another.
const HELD_MAX: Duration = Duration::from_secs(5);
/// Most that a client is asked to keep away, as throttle_time_ms (KIP-219).
const THROTTLE_MAX_MS: u64 = 1_000;
/// The first version in which writing to a partition adds it to the transaction (KIP-890).
const PRODUCE_ADDS: i16 = 12;
/// Longest rest that the brake gives (`net/brake.rs`), which is what throttle_time_ms tells while the log is behind.
const PACED_MAX_MS: u64 = 500;

/// A request that is held, with its connection muted, because memory or disk is short.
#[derive(Debug)]
pub(in crate::kafka) struct ProduceWait {
    request: Request,
    held: Held,
    since: Instant,
    /// `None`: nobody waits for an answer, so the batches can wait as long as it takes.
    pub(in crate::kafka) until: Option<Instant>,
}

impl ProduceWait {
    /// Bytes that it keeps.
    pub(in crate::kafka) fn held(&self) -> usize {
        self.request.frame.len()
    }
}

/// What is done with a request.
#[derive(Debug, Clone, Copy)]
enum Turn {
    Append {
        throttle_ms: u64,
    },
    /// It was held as long as it could be. What was not stored may be sent again, which this error tells producers to do.
    TimedOut,
}

pub(super) fn produce(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    if session.node.governor.stops()
        && let Some(held) = Governor::hold(&session.node, Face::Kafka, &session.info)
    {
        return hold(session, request, held);
    }
    take_turn(session, request, Turn::Append { throttle_ms: 0 }, out)
}

/// Kafka has no error for a broker that is short of something: its answer comes late, and meanwhile nothing is read.
#[cold]
fn hold(session: &mut KafkaSession, request: &mut Request, held: Held) -> Result<(), Failure> {
    let wanted = &mut session.produce.request;
    wanted.decode(&request.frame, request.header.body, request.version())?;
    let timeout = Duration::from_millis(u64::try_from(wanted.timeout_ms).unwrap_or(0));
    let since = Instant::now();
    session.waiting = Some(Waiting::Produce(ProduceWait {
        request: Request {
            header: request.header,
            frame: std::mem::take(&mut request.frame),
        },
        held,
        since,
        until: (wanted.acks != 0).then(|| since + (timeout / 2).min(HELD_MAX)),
    }));
    Ok(())
}

/// Looks again whether a request that is held can be done.
pub(in crate::kafka) fn resume(
    session: &mut KafkaSession,
    mut wait: ProduceWait,
    now: Instant,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let turn = if wait.held.is_over() {
        let waited = now.saturating_duration_since(wait.since).as_millis();
        let throttle_ms = u64::try_from(waited).unwrap_or(u64::MAX);
        Turn::Append { throttle_ms }
    } else if wait.until.is_some_and(|until| until <= now) {
        session
            .node
            .metrics
            .refused_writes_total
            .of(Face::Kafka)
            .inc();
        Turn::TimedOut
    } else {
        session.waiting = Some(Waiting::Produce(wait));
        return Ok(());
    };
    take_turn(session, &mut wait.request, turn, out)
}

fn take_turn(
    session: &mut KafkaSession,
    request: &mut Request,
    turn: Turn,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let mut work = std::mem::take(&mut session.produce);
    let result = run(session, &mut work, request, turn, out);
    work.topics.clear();
    work.rows.clear();
    work.jobs.clear();
    session.produce = work;
    result
}

fn run(
    session: &mut KafkaSession,
    work: &mut ProduceWork,
    request: &mut Request,
    turn: Turn,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let version = request.version();
    work.request
        .decode(&request.frame, request.header.body, version)?;
    let acks = work.request.acks;
    resolve(session, work, &request.frame);
    let id = transactional_id(session, work, &request.frame);
    let frame = std::mem::take(&mut request.frame);
    let (need, throttle_ms) = match turn {
        Turn::Append { throttle_ms } => {
            let bytes = frame.len() as u64;
            check(work, frame, acks);
            let need = match id {
                Ok(id) => append(session, work, id.as_deref(), version),
                Err(code) => {
                    work.rows
                        .iter_mut()
                        .for_each(|row| *row = Row::refused(code, None));
                    Need::none()
                }
            };
            (need, throttle_ms.max(paced_ms(session, bytes)))
        }
        Turn::TimedOut => {
            let code = Code::RequestTimedOut.code();
            let why = "the broker is short of memory or disk, nothing was stored";
            let rows = work.request.partitions.iter();
            work.rows
                .extend(rows.map(|_| Row::refused(code, Some(why.into()))));
            (Need::none(), THROTTLE_MAX_MS)
        }
    };
    if acks == 0 {
        let failed = work.rows.iter().any(|row| row.error != error::NONE);
        return if failed {
            Err(Failure::Unacknowledged)
        } else {
            Ok(())
        };
    }
    out.need(need);
    let bytes = out.bytes();
    let start = bytes.len();
    bytes.put_i32(0);
    put_response_header(
        bytes,
        request.header.key,
        version,
        request.header.correlation_id,
    );
    let mut response = produce::Response::begin(bytes, version, work.topics.len());
    for (topic, named) in work.request.topics.iter().zip(&work.topics) {
        match named {
            Ok(topic_found) => response.topic(
                topic_found.name.as_bytes(),
                topic_found.id,
                topic.partitions.len(),
            ),
            Err(TopicNamed::Name(name)) => {
                response.topic(name, Uuid::nil(), topic.partitions.len())
            }
            Err(TopicNamed::Id(id)) => response.topic(&[], *id, topic.partitions.len()),
            Err(TopicNamed::Denied(name, id)) => response.topic(name, *id, topic.partitions.len()),
        }
        let partitions = work
            .request
            .partitions
            .get(topic.partitions.clone())
            .unwrap_or_default();
        let rows = work
            .rows
            .get_mut(topic.partitions.clone())
            .unwrap_or_default();
        for (partition, row) in partitions.iter().zip(rows) {
            response.partition(&produce::PartitionResponse {
                index: partition.index,
                error: row.error,
                base_offset: row
                    .appended
                    .map_or(-1, |appended| offset(appended.base_offset)),
                log_append_time_ms: row
                    .appended
                    .and_then(|appended| appended.append_time)
                    .map_or(-1, |at| offset(at.0)),
                log_start_offset: row
                    .appended
                    .map_or(-1, |appended| offset(appended.log_start)),
                error_message: row.message.take(),
            });
        }
    }
    response.end(i32::try_from(throttle_ms.min(THROTTLE_MAX_MS)).unwrap_or(0));
    close_frame(bytes, start);
    Ok(())
}

/// How long the brake lets this connection rest, for `bytes` that it has just appended.
fn paced_ms(session: &KafkaSession, bytes: u64) -> u64 {
    if !session.node.governor.paces() {
        return 0;
    }
    let pace = session.node.broker.engine.pace();
    let rest = pace.map_or(0, |pace| bytes.saturating_mul(1000) / pace.max(1));
    rest.min(PACED_MAX_MS)
}

fn offset(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn resolve(session: &mut KafkaSession, work: &mut ProduceWork, frame: &[u8]) {
    let broker = &session.node.broker;
    let topics = &broker.topics;
    let identity = &session.identity;
    let may = |name: &[u8]| permission::topic(broker, identity, name, Verbs::WRITE);
    for topic in &work.request.topics {
        work.topics.push(match topic.name {
            TopicName::Name(name) => {
                let name = name.of(frame);
                if may(name) {
                    let found = session.topics.get(topics, name);
                    found.ok_or_else(|| TopicNamed::Name(name.to_vec()))
                } else {
                    session.note_denied(Kind::Topic, name, Verbs::WRITE);
                    Err(TopicNamed::Denied(name.to_vec(), Uuid::nil()))
                }
            }
            TopicName::Id(id) => match session.topics.by_id(topics, id) {
                Some(topic) if may(topic.name.as_bytes()) => Ok(topic),
                Some(topic) => {
                    session.note_denied(Kind::Topic, topic.name.as_bytes(), Verbs::WRITE);
                    Err(TopicNamed::Denied(Vec::new(), id))
                }
                None => Err(TopicNamed::Id(id)),
            },
        });
    }
}

/// The request's transactional id, or Kafka's code if the client may not write with it.
fn transactional_id(
    session: &KafkaSession,
    work: &ProduceWork,
    frame: &[u8],
) -> Result<Option<String>, i16> {
    let Some(id) = work.request.transactional_id else {
        return Ok(None);
    };
    let id = std::str::from_utf8(id.of(frame)).map_err(|_| Code::InvalidRequest.code())?;
    if session.may_transaction(id, Verbs::WRITE) {
        Ok(Some(id.to_owned()))
    } else {
        Err(Code::TransactionalIdAuthorizationFailed.code())
    }
}

/// Cuts the batches out of the frame and checks each, before any lock is taken.
fn check(work: &mut ProduceWork, mut frame: BytesMut, acks: i16) {
    let mut cut = 0;
    for (topic_at, (topic, found)) in work.request.topics.iter().zip(&work.topics).enumerate() {
        for partition in work
            .request
            .partitions
            .get(topic.partitions.clone())
            .unwrap_or_default()
        {
            let row_at = work.rows.len();
            let Some(span) = partition.records.filter(|span| !span.is_empty()) else {
                work.rows
                    .push(Row::refused(Code::InvalidRecord.code(), None));
                continue;
            };
            // Spans ascend and lie within the frame they were read from.
            let _ = frame.split_to((span.start as usize - cut).min(frame.len()));
            let bytes = frame.split_to(span.len().min(frame.len()));
            cut = span.end as usize;
            let row = match (found, acks) {
                (_, ..=-2 | 2..) => Row::refused(Code::InvalidRequiredAcks.code(), None),
                (Err(TopicNamed::Denied(..)), _) => {
                    Row::refused(Code::TopicAuthorizationFailed.code(), None)
                }
                (Err(TopicNamed::Id(_)), _) => Row::refused(error::UNKNOWN_TOPIC_ID, None),
                (Err(TopicNamed::Name(_)), _) => {
                    Row::refused(error::of_append(&AppendError::Unknown), None)
                }
                (Ok(topic), _) if topic.is_reserved() => {
                    let text = "The server alone writes this topic.".to_owned();
                    Row::refused(Code::InvalidTopicException.code(), Some(text))
                }
                (Ok(topic), _) => match (
                    topic.partition(partition.index),
                    batch::Header::check(&bytes),
                ) {
                    (None, _) => Row::refused(error::of_append(&AppendError::Unknown), None),
                    (_, Err(wrong)) => {
                        Row::refused(error::of_batch(wrong), Some(wrong.to_string()))
                    }
                    (Some(at), Ok(header)) => {
                        let shard = at.shard();
                        work.jobs.push(Job {
                            shard,
                            topic: topic_at,
                            row: row_at,
                            index: partition.index,
                            at,
                            bytes,
                            header,
                        });
                        // Overwritten when its turn comes.
                        Row::refused(error::NONE, None)
                    }
                },
            };
            work.rows.push(row);
        }
    }
}

/// Appends shard by shard, one record in the log for each, and says what the answer waits for.
fn append(
    session: &mut KafkaSession,
    work: &mut ProduceWork,
    id: Option<&str>,
    version: i16,
) -> Need {
    let now = session.now();
    let node = Arc::clone(&session.node);
    let broker = &node.broker;
    let class = if work.request.acks == -1 {
        broker.topics.durability()
    } else {
        Durability::Os
    };
    let mut need = Need::none();
    // Stable: batches for one partition keep their order.
    work.jobs.sort_by_key(|job| job.shard.0);
    for jobs in work.jobs.chunk_by_mut(|a, b| a.shard == b.shard) {
        let Some(shard) = jobs.first().map(|job| job.shard) else {
            continue;
        };
        let mut locked = broker.lock_one(shard);
        let admitted = |session: &KafkaSession, job: &Job| {
            let admitted = session.admitted.as_ref();
            admitted.is_some_and(|(known, who)| id == Some(known) && *who == producer(&job.header))
        };
        let asks = |session: &KafkaSession, locked: &mut Locked<'_>, job: &Job| {
            // What cannot be read is told by the append.
            job.header.is_transactional()
                && !(admitted(session, job)
                    && stream::is_open(locked, job.at, producer(&job.header)).unwrap_or(true))
        };
        if jobs.iter().any(|job| asks(session, &mut locked, job)) {
            // The coordinator says whether a transaction may write here: once per partition and transaction.
            drop(locked);
            locked = broker.lock(ShardSet::of(shard).with(ShardId::CATALOG));
        }
        let mut any = false;
        for job in jobs {
            let Some(Ok(topic)) = work.topics.get(job.topic) else {
                continue;
            };
            let Some(row) = work.rows.get_mut(job.row) else {
                continue;
            };
            if asks(session, &mut locked, job) {
                let admitted = match id {
                    Some(id) => {
                        let place = (topic.id, job.index);
                        let implicit = version >= PRODUCE_ADDS;
                        admit(
                            session,
                            &mut locked,
                            id,
                            producer(&job.header),
                            place,
                            implicit,
                        )
                    }
                    None => Err(Code::TransactionalIdAuthorizationFailed.code()),
                };
                if let Err(code) = admitted {
                    *row = Row::refused(code, None);
                    continue;
                }
            }
            match stream::append(
                &mut locked,
                &mut session.fx,
                now,
                job.at,
                &topic.config,
                std::mem::take(&mut job.bytes),
                &job.header,
            ) {
                Ok(appended) => {
                    row.appended = Some(appended);
                    any = true;
                }
                Err(wrong) => {
                    *row = Row::refused(error::of_append(&wrong), Some(wrong.to_string()))
                }
            }
        }
        // A duplicate was stored before, so the end of the log covers it too.
        let lsn = locked.commit(now, &mut session.fx);
        if any {
            need = need.merge(Need::of(lsn, class));
        }
    }
    work.jobs.clear();
    need
}

fn producer(header: &batch::Header) -> Instance {
    Instance {
        id: header.producer_id,
        epoch: header.producer_epoch,
    }
}
