//! Streams: topics, their partitions of raw record batches, and consumer groups.
//!
//! A partition stores each producer's batch as it came, under its last offset; see [`partition`] for its shape. Appending is a
//! function on locked shards that leaves effects, so that a Kafka producer and a Redis transaction use the same one.
//! Readers copy nothing: they get the stored bytes, from memory or from the tables.

mod arena;
pub mod batch;
pub mod config;
pub mod group;
pub(crate) mod law;
pub mod partition;
pub mod producer;
mod retention;
mod space;
mod topic;
pub mod transaction;
mod undecided;
pub mod unpack;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use storage::{Effects, Engine, Error, Keyspace, Need, ShardId};

pub use batch::Record;
pub use config::TopicConfig;
pub use partition::{AppendError, Appended, Bounds, LEADER_EPOCH};
pub use retention::{retain, sweep_deleted};
pub use space::Space;
pub use topic::{
    Catalog, DELETE_LOCKS, NewTopic, PARTITIONS_MAX, PartitionRef, Topic, TopicError, Topics,
    add_partitions, check_configs, check_name, check_new, configure, create, delete,
};
pub(crate) use topic::{RESERVED, create_reserved};
pub use undecided::Aborted;

use self::partition::{Cold, Elsewhere, Limit};
use crate::{Broker, Ctx, Locked, Millis, Shard, Wake};

/// Makes known which groups have rows. Partitions and offsets are read at their first touch.
///
/// # Errors
/// When the tables cannot be read.
pub fn load(all: &mut Locked<'_>) -> Result<(), Error> {
    group::load(all);
    Ok(())
}

/// Appends a batch, which [`batch::Header::check`] has let through, to a partition of a locked shard. Afterwards the caller
/// commits `fx`; readers see the batch when it is durable.
///
/// # Errors
/// Why the batch is not stored; nothing has changed then.
pub fn append(
    locked: &mut Locked<'_>,
    fx: &mut Effects,
    now: Millis,
    at: PartitionRef,
    config: &TopicConfig,
    bytes: BytesMut,
    header: &batch::Header,
) -> Result<Appended, AppendError> {
    let seq = locked.next_seq(at.shard());
    let shard = locked.shard(at.shard());
    let size = bytes.len();
    let (partition, arena) = space::partition_and_arena(shard, at)
        .map_err(|_| AppendError::Storage)?
        .ok_or(AppendError::Unknown)?;
    let appended = partition.append(bytes, header, config, now, seq, arena, fx)?;
    if !appended.duplicate {
        shard.streams.grown(at.id, size, &shard.budgets.stream);
    }
    Ok(appended)
}

/// Whether a producer has a transaction in this partition of a locked shard, so that its coordinator need not be asked again.
///
/// # Errors
/// When the tables cannot be read.
pub fn is_open(
    locked: &mut Locked<'_>,
    at: PartitionRef,
    producer: transaction::Instance,
) -> Result<bool, Error> {
    let partition = space::partition(locked.shard(at.shard()), at)?;
    Ok(partition.is_some_and(|partition| partition.is_open(producer.id, producer.epoch)))
}

/// Which partition a record with this key goes to: as Kafka's own producers decide, by murmur2; without a key by chance.
pub fn partition_index(topic: &Topic, key: Option<&[u8]>, ctx: &Ctx) -> usize {
    let count = topic.partitions.len().max(1);
    match key {
        Some(key) => (murmur2(key) & 0x7fff_ffff) as usize % count,
        None => ctx.random_below(count as u64) as usize,
    }
}

/// The topic with this name, made with the server's defaults if there is none, as a producer would. Locks the catalog.
///
/// # Errors
/// The name is not allowed.
pub fn ensure_topic(broker: &Broker, ctx: &Ctx, name: &str) -> Result<Arc<Topic>, TopicError> {
    if let Some(topic) = broker.topics.get(name) {
        return Ok(topic);
    }
    let mut fx = Effects::new();
    let mut locked = broker.lock_one(ShardId::CATALOG);
    let new = NewTopic {
        name: name.to_owned(),
        ..NewTopic::default()
    };
    match create(&mut locked, ctx, &mut fx, &new) {
        Ok(topic) => {
            locked.commit(ctx.now, &mut fx);
            Ok(topic)
        }
        Err(TopicError::Exists(_)) => broker.topics.get(name).ok_or(TopicError::Unknown),
        Err(error) => Err(error),
    }
}

/// Whether [`append_record`] will take a record of this size: for callers that must know before they change anything.
///
/// # Errors
/// The partition is gone, or the record is too large.
pub fn check_record(
    locked: &mut Locked<'_>,
    topic: &Topic,
    at: PartitionRef,
    size: usize,
) -> Result<(), AppendError> {
    let max = topic.config.max_message_bytes;
    // Header, and at most so much around key, value and headers.
    let size = size.saturating_add(batch::HEADER + 64);
    if size > max {
        return Err(AppendError::TooLarge { size, max });
    }
    let shard = locked.shard(at.shard());
    space::partition(shard, at)
        .map_err(|_| AppendError::Storage)?
        .ok_or(AppendError::Unknown)
        .map(drop)
}

/// Appends one record, as a batch of its own. The partition's shard is locked; the caller commits. Returns its offset.
///
/// # Errors
/// See [`check_record`].
#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one record and where it goes"
)]
pub fn append_record(
    locked: &mut Locked<'_>,
    fx: &mut Effects,
    ctx: &Ctx,
    topic: &Topic,
    at: PartitionRef,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[(&[u8], &[u8])],
) -> Result<u64, AppendError> {
    if topic.config.compacted && key.is_none() {
        return Err(AppendError::NoKey);
    }
    let bytes = batch::single(
        i64::try_from(ctx.now.0).unwrap_or(i64::MAX),
        key,
        value,
        headers,
    );
    let (header, _) = batch::Header::read(&bytes).map_err(|_| AppendError::Storage)?;
    append(locked, fx, ctx.now, at, &topic.config, bytes, &header)
        .map(|appended| appended.base_offset)
}

/// A reader's wish for one partition.
#[derive(Clone, Copy)]
pub struct Read<'a> {
    pub at: PartitionRef,
    pub offset: u64,
    pub max_bytes: usize,
    /// The first batch comes even if it is larger than `max_bytes`.
    pub at_least_one: bool,
    /// Nothing of transactions that are open: not beyond [`Bounds::last_stable`].
    pub committed: bool,
    /// Rung at the next append if there is nothing to read now. The number names the reader.
    pub watch: Option<(u64, &'a Arc<dyn Wake>)>,
}

impl std::fmt::Debug for Read<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Read")
            .field("at", &self.at)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

/// What a reader got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Got {
    pub bounds: Bounds,
    pub bytes: usize,
    /// `offset` is below the start or above the high watermark's end.
    pub out_of_range: bool,
    /// There are records that become visible when this is durable.
    pub need: Option<Need>,
    /// There was nothing to read, and the reader is rung when there may be.
    pub waits: bool,
    /// Among the bytes may be those of aborted transactions: [`aborted`].
    pub any_aborted: bool,
}

/// Appends stored batches to `into`, from the one that holds the offset on. Locks the partition's shard, but not while it reads
/// from the disk. `None`: the partition's topic is gone.
///
/// # Errors
/// When the disk cannot be read.
pub fn read(broker: &Broker, read: Read<'_>, into: &mut Vec<Bytes>) -> Result<Option<Got>, Error> {
    let limit = Limit::new(read.max_bytes, read.at_least_one);
    let place;
    let mut got = Got::default();
    {
        let mut locked = broker.lock_one(read.at.shard());
        let shard = locked.shard(read.at.shard());
        let Some(partition) = space::partition(shard, read.at)? else {
            return Ok(None);
        };
        got.bounds = partition.bounds(&broker.engine);
        if read.offset < got.bounds.start || read.offset > got.bounds.end {
            got.out_of_range = true;
            return Ok(Some(got));
        }
        let to = if read.committed {
            got.bounds.last_stable
        } else {
            got.bounds.high_watermark
        };
        if read.offset >= to {
            got.waits = true;
            got.need = partition.next_need();
            if let Some((reader, wake)) = read.watch {
                partition.watch(reader, wake);
            }
            return Ok(Some(got));
        }
        got.any_aborted = read.committed && partition.aborted(read.offset, to).next().is_some();
        match partition.read(read.offset, to, limit, into) {
            Ok(bytes) => {
                got.bytes = bytes;
                return Ok(Some(got));
            }
            Err(elsewhere) => place = elsewhere,
        }
    }
    let first = into.len();
    read_elsewhere(&broker.engine, &place, limit, into)?;
    got.bytes = into.iter().skip(first).map(Bytes::len).sum();
    Ok(Some(got))
}

/// Reads batches that are not in memory.
fn read_elsewhere(
    engine: &Engine,
    place: &Elsewhere,
    limit: Limit,
    into: &mut Vec<Bytes>,
) -> Result<(), Error> {
    let (Elsewhere::Tables(range) | Elsewhere::Log { range, .. }) = place;
    // What the log has let go by now is folded. What is behind a first gap comes with the next request, but an answer without
    // any batch would say that this is the end.
    if let Elsewhere::Log { bodies, .. } = place
        && (bodies.is_empty() || engine.read_bodies(bodies, into)? > 0)
    {
        return Ok(());
    }
    read_tables(engine, *range, limit, into)
}

/// Reads batches that the tables have.
fn read_tables(
    engine: &Engine,
    range: Cold,
    mut limit: Limit,
    into: &mut Vec<Bytes>,
) -> Result<(), Error> {
    let from = partition::batch_key(range.at, range.from);
    let to = partition::batch_key(range.at, range.to);
    engine.scan_shared(Keyspace::Bodies, &from, Some(&to), &mut |_, value| {
        let fits = limit.take(value.len());
        if fits {
            into.push(value);
        }
        fits && !limit.is_reached()
    })
}

/// The transactions that were aborted among `batches`, which [`read`] has given for `offset`. `None`: the records there have
/// been deleted since, and nothing is known of them any more.
///
/// # Errors
/// When the tables cannot be read.
pub fn aborted(
    broker: &Broker,
    at: PartitionRef,
    offset: u64,
    batches: &[Bytes],
) -> Result<Option<Vec<Aborted>>, Error> {
    let Some(Ok((last, _))) = batches.last().map(|last| batch::Header::read(last)) else {
        return Ok(Some(Vec::new()));
    };
    let to = u64::try_from(last.base_offset).unwrap_or(0) + last.count();
    let mut locked = broker.lock_one(at.shard());
    let partition = space::partition(locked.shard(at.shard()), at)?;
    let partition = partition.filter(|partition| partition.start <= offset);
    Ok(partition.map(|partition| partition.aborted(offset, to).copied().collect()))
}

/// Where the newest batch that readers see begins; the end, when there is none. `None`: the partition's topic is gone.
///
/// # Errors
/// When the disk cannot be read.
pub fn newest(broker: &Broker, at: PartitionRef) -> Result<Option<u64>, Error> {
    let Some(bounds) = bounds(broker, at)? else {
        return Ok(None);
    };
    let mut from = bounds.last_stable;
    // Where transactions have ended there is no record.
    while from > bounds.start {
        let wish = Read {
            at,
            offset: from - 1,
            max_bytes: 0,
            at_least_one: true,
            committed: true,
            watch: None,
        };
        let mut batches = Vec::new();
        read(broker, wish, &mut batches)?;
        let header = batches
            .first()
            .and_then(|batch| batch::Header::read(batch).ok());
        let Some((header, _)) = header else { break };
        from = u64::try_from(header.base_offset).unwrap_or(0);
        if !header.is_control() {
            return Ok(Some(from.max(bounds.start)));
        }
    }
    Ok(Some(bounds.last_stable))
}

/// Takes back what [`read`] registered for a reader that no longer waits for this partition.
pub fn unwatch(broker: &Broker, at: PartitionRef, reader: u64) {
    if let Some(partition) = broker
        .lock_one(at.shard())
        .shard(at.shard())
        .streams
        .known(at.id)
    {
        partition.unwatch(reader);
    }
}

/// The range of offsets of a partition; `None`: its topic is gone.
///
/// # Errors
/// When the tables cannot be read.
pub fn bounds(broker: &Broker, at: PartitionRef) -> Result<Option<Bounds>, Error> {
    bounds_in(broker.lock_one(at.shard()).shard(at.shard()), at)
}

/// The same of a partition of a locked shard.
pub(crate) fn bounds_in(shard: &mut Shard, at: PartitionRef) -> Result<Option<Bounds>, Error> {
    let engine = Arc::clone(&shard.engine);
    let partition = space::partition(shard, at)?;
    Ok(partition.map(|partition| partition.bounds(&engine)))
}

/// Deletes the records of a partition below an offset, or all that readers see. Gives the first offset that is left; within,
/// `None`: no reader sees that far; outside: the partition's topic is gone. Its shard is locked.
///
/// # Errors
/// When the tables cannot be read.
pub fn delete_below(
    locked: &mut Locked<'_>,
    fx: &mut Effects,
    at: PartitionRef,
    to: Option<u64>,
) -> Result<Option<Option<u64>>, Error> {
    let broker = locked.broker();
    let Some(partition) = space::partition(locked.shard(at.shard()), at)? else {
        return Ok(None);
    };
    let visible = partition.bounds(&broker.engine).high_watermark;
    let to = to.unwrap_or(visible);
    if to > visible {
        return Ok(Some(None));
    }
    partition.delete_below(to, fx);
    Ok(Some(Some(partition.start)))
}

/// The producers that a partition remembers, by id.
///
/// # Errors
/// When the tables cannot be read.
pub fn producers(
    broker: &Broker,
    at: PartitionRef,
) -> Result<Vec<(i64, producer::Producer)>, Error> {
    let mut locked = broker.lock_one(at.shard());
    let partition = space::partition(locked.shard(at.shard()), at)?;
    let producers = partition.map_or_else(Vec::new, |partition| {
        let all = partition.producers.iter();
        all.map(|(id, producer)| (*id, producer.clone())).collect()
    });
    Ok(producers)
}

/// Bytes that a partition stores; `None`: its topic is gone.
///
/// # Errors
/// When the tables cannot be read.
pub fn size(broker: &Broker, at: PartitionRef) -> Result<Option<u64>, Error> {
    let mut locked = broker.lock_one(at.shard());
    Ok(space::partition(locked.shard(at.shard()), at)?.map(|partition| partition.size()))
}

/// What to look for by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The first record that is not older than this, in milliseconds.
    Since(i64),
    /// The first record with the largest timestamp.
    Newest,
}

/// The offset and timestamp of a record found by time; `None`: there is none that readers see. In a compressed batch, which is
/// not unpacked, it is the batch's first record.
///
/// # Errors
/// When the tables cannot be read.
pub fn find(
    broker: &Broker,
    at: PartitionRef,
    moment: Moment,
) -> Result<Option<(u64, i64)>, Error> {
    let (since, mut from, high_watermark) = {
        let mut locked = broker.lock_one(at.shard());
        let Some(partition) = space::partition(locked.shard(at.shard()), at)? else {
            return Ok(None);
        };
        let bounds = partition.bounds(&broker.engine);
        let since = match moment {
            Moment::Since(since) => since,
            Moment::Newest => partition.max.timestamp,
        };
        if partition.max.timestamp < since || partition.max.timestamp < 0 {
            return Ok(None);
        }
        // The running maximum grows along the index: the record lies behind the last entry whose maximum is too old.
        let first = partition
            .index
            .partition_point(|mark| mark.max.timestamp < since);
        let from = first
            .checked_sub(1)
            .and_then(|last| partition.index.get(last))
            .map_or(0, |mark| mark.last + 1);
        (since, from.max(bounds.start), bounds.high_watermark)
    };
    let mut batches = Vec::new();
    while from < high_watermark {
        batches.clear();
        let wish = Read {
            at,
            offset: from,
            max_bytes: 1 << 20,
            at_least_one: true,
            committed: false,
            watch: None,
        };
        let Some(got) = read(broker, wish, &mut batches)? else {
            return Ok(None);
        };
        if got.bytes == 0 {
            if got.bounds.start <= from {
                return Ok(None);
            }
            // Retention was faster.
            from = got.bounds.start;
            continue;
        }
        for bytes in &batches {
            let Ok((header, _)) = batch::Header::read(bytes) else {
                return Ok(None);
            };
            let base = u64::try_from(header.base_offset).unwrap_or(0);
            if header.max_timestamp >= since && !header.is_control() {
                if header.is_compressed() {
                    return Ok(Some((base.max(from), header.base_timestamp.max(0))));
                }
                let mut records = batch::records(bytes).into_iter().flatten();
                let found =
                    records.find(|record| record.timestamp >= since && record.offset >= from);
                if let Some(record) = found {
                    return Ok(Some((record.offset, record.timestamp)));
                }
            }
            from = from.max(base + header.count());
        }
    }
    Ok(None)
}

/// Kafka's murmur2, by which producers of all languages choose a key's partition.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash: u32 = 0x9747_b28c ^ data.len() as u32;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = chunk
            .first_chunk()
            .map_or(0, |bytes| u32::from_le_bytes(*bytes))
            .wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests;
