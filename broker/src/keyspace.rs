//! The changes of the keyspace as Kafka topics, `__keyspace.<db>`.
//!
//! ```text
//! View changes a key ─ journal ─▶ Locked::commit ─▶ one log record: the rows of the keys, and the batches that tell of them
//! ```
//! Partition n of a topic holds the changes of the keys of shard n, whose lock whoever changes them has. So a change and the
//! record that tells of it are in the log together or not at all, in the same order, and there is no position to be kept
//! anywhere: an offset is what the append gave. While no topic is wanted the cost is one look at a flag per commit.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use storage::{Effects, ShardId};

use crate::cache::journal::{Journal, Note};
use crate::stream::{self, NewTopic, PartitionRef, Topic, TopicConfig, TopicError, batch};
use crate::{Broker, Ctx, DATA_SHARDS, Locked, Millis, ShardSet};

/// Octets of keys and values after which another batch begins.
const BATCH_BYTES: usize = 512 << 10;

/// Why the changes cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Topic(#[from] TopicError),
    /// Made by an earlier version, or by a client of one.
    #[error("topic {0} is there already, and not one that the server made: delete it first")]
    Foreign(String),
}

fn topic_name(db: usize) -> String {
    format!("{}{db}", stream::RESERVED)
}

/// From now on tells the changes of these databases (a bit for each); topics that are missing are made.
///
/// # Errors
/// See [`Error`]; nothing is told then.
pub fn tell(broker: &Broker, ctx: &Ctx, databases: u16) -> Result<(), Error> {
    let mut locked = broker.lock(ShardSet::ALL);
    let mut fx = Effects::new();
    for db in (0..u16::BITS as usize).filter(|db| databases >> db & 1 == 1) {
        let new = NewTopic {
            name: topic_name(db),
            partitions: Some(DATA_SHARDS as u32),
            configs: Vec::new(),
        };
        match stream::create_reserved(&mut locked, ctx, &mut fx, &new) {
            Ok(_) => {}
            Err(TopicError::Exists(name)) => {
                let known = broker.topics.get(&name).ok_or(TopicError::Unknown)?;
                let right = ShardSet::DATA
                    .iter()
                    .all(|shard| partition(&known, shard).is_some());
                if !right {
                    return Err(Error::Foreign(new.name));
                }
            }
            Err(wrong) => return Err(wrong.into()),
        }
    }
    locked.commit(ctx.now, &mut fx);
    for shard in ShardSet::DATA.iter() {
        locked.shard(shard).cache.journal =
            (databases != 0).then(|| Box::new(Journal::new(databases)));
    }
    broker.telling.store(databases != 0, Ordering::Release);
    drop(locked);
    broker.engine.flush();
    Ok(())
}

/// Whether the topic with this name is being written.
pub(crate) fn writes(locked: &mut Locked<'_>, name: &str) -> bool {
    let journal = &locked.shard(ShardId(0)).cache.journal;
    let number = name.strip_prefix(stream::RESERVED);
    let number = number.and_then(|number| number.parse::<usize>().ok());
    let wants =
        |db: usize| db < u16::BITS as usize && journal.as_ref().is_some_and(|j| j.wants(db));
    number.is_some_and(wants)
}

fn partition(topic: &Topic, shard: ShardId) -> Option<PartitionRef> {
    let at = topic.partitions.get(shard.index()).copied();
    at.filter(|at| at.shard() == shard)
}

/// Adds to the record of a command what it changed in the keys of the locked shards.
#[cold]
pub(crate) fn write(locked: &mut Locked<'_>, now: Millis, fx: &mut Effects) {
    for shard in locked.set().iter().filter(|id| id.index() < DATA_SHARDS) {
        let journal = locked.shard(shard).cache.journal.as_deref_mut();
        let Some(journal) = journal.filter(|journal| !journal.is_empty()) else {
            continue;
        };
        let notes = journal.take();
        let mut rest = notes.as_slice();
        while let Some(first) = rest.first() {
            let (same, others) = rest.split_at(fitting(rest));
            rest = others;
            if let Err(error) = append(locked, now, fx, shard, first.db, same) {
                // The key has changed, and its reader would never hear of it.
                let engine = &locked.broker().engine;
                engine.fail("keyspace topic", &error);
            }
        }
    }
}

/// How many of the first notes are of one database and not too much for a batch; one at least.
fn fitting(notes: &[Note]) -> usize {
    let Some(first) = notes.first() else {
        return 0;
    };
    let mut size = 0;
    let fits = notes.iter().take_while(|note| {
        size += note.json.len() + note.key.as_ref().map_or(0, Vec::len);
        note.db == first.db && size <= BATCH_BYTES
    });
    fits.count().max(1)
}

fn append(
    locked: &mut Locked<'_>,
    now: Millis,
    fx: &mut Effects,
    shard: ShardId,
    db: usize,
    notes: &[Note],
) -> Result<(), stream::AppendError> {
    let topic = locked.broker().topics.get(&topic_name(db));
    let (topic, at) = topic
        .and_then(|topic: Arc<Topic>| partition(&topic, shard).map(|at| (topic, at)))
        .ok_or(stream::AppendError::Unknown)?;
    // What producers must heed does not bind the server: a change that happened cannot be refused.
    let config = TopicConfig {
        max_message_bytes: usize::MAX,
        timestamp_before_max_ms: u64::MAX,
        timestamp_after_max_ms: u64::MAX,
        ..topic.config.clone()
    };
    let timestamp = i64::try_from(now.0).unwrap_or(i64::MAX);
    let records = notes
        .iter()
        .map(|note| (note.key.as_deref(), note.json.as_slice()));
    let bytes = batch::many(timestamp, records);
    let (header, _) = batch::Header::read(&bytes).map_err(|_| stream::AppendError::Storage)?;
    stream::append(locked, fx, now, at, &config, bytes, &header)?;
    Ok(())
}
