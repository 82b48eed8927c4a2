//! Queues that are topics (`x-queue-type: stream`): one partition, the same records at the same offsets from both sides.
//!
//! ```text
//! message   exchange ─▶ header `amqp.exchange`    routing key ─▶ key, null when empty    body ─▶ value
//!           properties and headers ─▶ headers, by the face that knows them ([`crate::queue::Reader::record_headers`])
//! ```
//! The queue is a definition without messages of its own: it is routed to, has consumers and is counted as any queue. What is
//! published is appended to the partition in the record of its other queues. Topic and queue come and go together: whoever
//! deletes one deletes the other.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::law::Facts;
use crate::queue::{self, Definition, Delivered, Limits, Message, QueueKind, Route};
use crate::stream::batch::{self, Builder, Header, HeaderList};
use crate::stream::{self, NewTopic, PartitionRef, Topic, TopicError};
use crate::{Broker, Ctx, Effects, Locked, Millis, ShardSet};

/// Locks for [`declare`].
pub const DECLARE_LOCKS: ShardSet = ShardSet::ALL;
/// The header that says that a record is a message, and by which exchange it came.
pub const EXCHANGE: &[u8] = b"amqp.exchange";
/// Octets at which one batch is enough: what a consumer reads at once.
const BATCH_BYTES: usize = 256 << 10;

/// Why a topic that exists is not the queue that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeclareError {
    #[error("{0}")]
    Topic(#[from] TopicError),
    #[error("topic '{topic}' has {count} partitions, a stream has one")]
    Partitions { topic: Arc<str>, count: usize },
    #[error("topic '{0}' is written by the server alone")]
    Reserved(Arc<str>),
    #[error("topic '{topic}' has {config}={has}, not {wanted}")]
    Config {
        topic: Arc<str>,
        config: &'static str,
        has: String,
        wanted: String,
    },
}

/// Gives a topic of this name a queue. Where there is none it is made as `new` says; one that is there must have one
/// partition, and what `asked` names of its configurations. Its queue is not there yet. Locks: [`DECLARE_LOCKS`].
///
/// # Errors
/// Nothing has changed then.
pub fn declare(
    locked: &mut Locked<'_>,
    ctx: &Ctx,
    new: &NewTopic,
    asked: &[(String, String)],
    arguments: &Bytes,
    fx: &mut Effects,
) -> Result<Arc<Definition>, DeclareError> {
    let topic = match locked.broker().topics.get(&new.name) {
        Some(topic) => topic,
        None => stream::create(locked, ctx, fx, new)?,
    };
    if topic.is_reserved() {
        return Err(DeclareError::Reserved(Arc::clone(&topic.name)));
    }
    let [partition] = topic.partitions[..] else {
        return Err(DeclareError::Partitions {
            topic: Arc::clone(&topic.name),
            count: topic.partitions.len(),
        });
    };
    check_configs(&topic, asked)?;
    let queue = Arc::new(Definition {
        name: Arc::clone(&topic.name),
        id: locked.new_id(crate::ShardId::CATALOG),
        slot: partition.slot,
        kind: QueueKind::Stream,
        partition: Some(partition),
        durable: true,
        auto_delete: false,
        exclusive_owner: None,
        arguments: arguments.clone(),
        limits: Limits::default(),
    });
    queue::insert(locked, &queue, fx);
    Ok(queue)
}

fn check_configs(topic: &Topic, asked: &[(String, String)]) -> Result<(), DeclareError> {
    for (name, wanted) in asked {
        let Some(spec) = stream::config::spec(name) else {
            continue;
        };
        let has = topic.config.get(spec);
        if has != wanted {
            return Err(DeclareError::Config {
                topic: Arc::clone(&topic.name),
                config: spec.name,
                has: has.to_owned(),
                wanted: wanted.clone(),
            });
        }
    }
    Ok(())
}

/// The queue that a topic is, if it is one.
#[must_use]
pub fn of_topic(broker: &Broker, topic: &Topic) -> Option<Arc<Definition>> {
    let queue = broker.routes.queue(&topic.name)?;
    let partition = queue.partition?;
    topic.partitions.contains(&partition).then_some(queue)
}

/// Topic and queue are there together; the rest is said by both.
pub(crate) fn law(broker: &Broker, facts: &mut Facts) {
    for queue in broker.routes.queues() {
        if queue.partition.is_some() && target(broker, &queue).is_none() {
            facts.wrong(format!("stream {:?} has no topic", queue.name));
        }
    }
}

/// Is the topic with this name a queue, too?
#[must_use]
pub fn is_stream(broker: &Broker, name: &[u8]) -> bool {
    let name = std::str::from_utf8(name).ok();
    name.and_then(|name| broker.routes.queue(name))
        .is_some_and(|queue| queue.partition.is_some())
}

/// Appends messages to a stream in as few batches as its topic allows; `told` gets what became of each. Locks: the
/// partition's shard; the caller commits.
pub(crate) fn append(
    locked: &mut Locked<'_>,
    queue: &Definition,
    messages: &[Message],
    told: &mut [Delivered],
    now: Millis,
    fx: &mut Effects,
) {
    let broker = locked.broker();
    let Some((topic, at)) = target(broker, queue) else {
        told.iter_mut().for_each(|told| told.appended(false));
        return;
    };
    let most = topic.config.max_message_bytes.min(BATCH_BYTES);
    let mut headers = HeaderList::default();
    let mut batch = Builder::new();
    // The messages before this one are told.
    let mut first = 0;
    for (index, message) in messages.iter().enumerate() {
        let (key, value) = record(broker, message, &mut headers);
        let takes = takes(&topic, key, value, &headers);
        let is_full = !takes || batch.len() + batch.grows_by(key, value, &headers) > most;
        if is_full && batch.count() > 0 {
            let full = std::mem::replace(&mut batch, Builder::new());
            let taken = put(locked, &topic, at, full, now, fx);
            tell(told, first..index, taken);
            first = index;
        }
        if takes {
            batch.push(key, value, &headers);
        } else {
            tell(told, index..index + 1, false);
            first = index + 1;
        }
    }
    if batch.count() > 0 {
        let taken = put(locked, &topic, at, batch, now, fx);
        tell(told, first..messages.len(), taken);
    }
}

fn tell(told: &mut [Delivered], which: std::ops::Range<usize>, taken: bool) {
    let told = told.get_mut(which).unwrap_or_default();
    told.iter_mut().for_each(|told| told.appended(taken));
}

/// A stream of the route that would refuse the message: for who must know before anything is done.
#[must_use]
pub fn refusing<'r>(
    broker: &Broker,
    route: &'r Route,
    message: &Message,
) -> Option<&'r Arc<Definition>> {
    let mut streams = route.streams();
    streams.find(|queue| refuses(broker, queue, message))
}

/// Would the stream refuse the message?
pub(crate) fn refuses(broker: &Broker, queue: &Definition, message: &Message) -> bool {
    let Some((topic, _)) = target(broker, queue) else {
        return true;
    };
    let mut headers = HeaderList::default();
    let (key, value) = record(broker, message, &mut headers);
    !takes(&topic, key, value, &headers)
}

/// Does the topic take such a record?
fn takes(topic: &Topic, key: Option<&[u8]>, value: Option<&[u8]>, headers: &HeaderList) -> bool {
    let fits = batch::single_len(key, value, headers) <= topic.config.max_message_bytes;
    fits && (key.is_some() || !topic.config.compacted)
}

fn target(broker: &Broker, queue: &Definition) -> Option<(Arc<Topic>, PartitionRef)> {
    let at = queue.partition?;
    let topic = broker.topics.get(&queue.name)?;
    topic.partitions.contains(&at).then_some((topic, at))
}

/// Key and value of a message's record; its headers go to `headers`.
fn record<'m>(
    broker: &Broker,
    message: &'m Message,
    headers: &mut HeaderList,
) -> (Option<&'m [u8]>, Option<&'m [u8]>) {
    headers.clear();
    headers.push(EXCHANGE, message.exchange());
    broker.routes.record_headers(message, headers);
    let key = message.routing_key();
    ((!key.is_empty()).then_some(key), Some(message.body()))
}

fn put(
    locked: &mut Locked<'_>,
    topic: &Topic,
    at: PartitionRef,
    batch: Builder,
    now: Millis,
    fx: &mut Effects,
) -> bool {
    let bytes: BytesMut = batch.seal(i64::try_from(now.0).unwrap_or(i64::MAX));
    let Ok((header, _)) = Header::read(&bytes) else {
        return false;
    };
    match stream::append(locked, fx, now, at, &topic.config, bytes, &header) {
        Ok(_) => true,
        Err(error) => {
            tracing::warn!(queue = %topic.name, %error, "a stream does not take messages");
            false
        }
    }
}

#[cfg(test)]
mod tests;
