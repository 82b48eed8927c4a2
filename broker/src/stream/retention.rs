//! What makes a log shorter: age, size, and the sweep of rows that nobody can reach any more.

use std::sync::Arc;

use storage::{Effects, Engine, Error, Keyspace, ShardId};

use super::partition::Partition;
use super::topic::{self, PartitionRef};
use super::{Topic, space};
use crate::rows::{self, Tag};
use crate::{Broker, Ctx, Millis, ShardSet};

/// Rows that one record deletes, so that a lock is never held for long.
const ROWS_PER_RECORD: usize = 1_000;
/// How long an idempotent producer is remembered after its last batch: Kafka's `producer.id.expiration.ms`.
const PRODUCER_EXPIRATION_MS: u64 = 24 * 60 * 60 * 1_000;

/// Applies retention to every partition. Meant to be called every few minutes.
///
/// # Errors
/// When the tables cannot be read.
pub fn retain(broker: &Broker, ctx: &Ctx) -> Result<(), Error> {
    for topic in broker.topics.all() {
        for &at in &topic.partitions {
            while retain_partition(broker, ctx, &topic, at)? {}
        }
    }
    for shard in ShardSet::DATA.iter() {
        let mut locked = broker.lock_one(shard);
        let shard_memory = locked.shard(shard);
        // Producers that have stopped leave what was too young for the tables then.
        let streams = &mut shard_memory.streams;
        streams.shrink(&broker.budgets.stream, &broker.engine, shard);
        streams.trim(broker.engine.folded_seq(shard));
    }
    Ok(())
}

fn retain_partition(
    broker: &Broker,
    ctx: &Ctx,
    topic: &Arc<Topic>,
    at: PartitionRef,
) -> Result<bool, Error> {
    let mut fx = Effects::new();
    let mut locked = broker.lock_one(at.shard());
    let folded = broker.engine.folded_seq(at.shard());
    let shard = locked.shard(at.shard());
    let Some(partition) = space::partition(shard, at)? else {
        return Ok(false);
    };
    partition.retain(
        ctx.now,
        topic.config.retention_ms,
        topic.config.retention_bytes,
        &mut fx,
    );
    partition.expire_producers(ctx.now.0.saturating_sub(PRODUCER_EXPIRATION_MS), &mut fx);
    let more = partition.sweep(&broker.engine, folded, ROWS_PER_RECORD, &mut fx)?;
    locked.commit(ctx.now, &mut fx);
    Ok(more)
}

impl Partition {
    /// Moves the start behind everything that is too old, and behind what is too much.
    pub(super) fn retain(
        &mut self,
        now: Millis,
        max_age_ms: Option<u64>,
        max_bytes: Option<u64>,
        fx: &mut Effects,
    ) {
        let (mut start, mut bytes) = (self.start, self.bytes_start);
        let mut reach = |last: u64, appended: u64| {
            if last + 1 > start {
                (start, bytes) = (last + 1, appended);
            }
        };
        if let Some(max_age_ms) = max_age_ms {
            let oldest = i64::try_from(now.0.saturating_sub(max_age_ms)).unwrap_or(i64::MAX);
            if self.max.timestamp < oldest && self.max.timestamp >= 0 && self.end > self.start {
                reach(self.end - 1, self.bytes_end);
            } else if let Some(mark) = self
                .index
                .iter()
                .take_while(|mark| mark.max.timestamp < oldest)
                .last()
            {
                reach(mark.last, mark.bytes);
            }
        }
        if let Some(max_bytes) = max_bytes {
            // As Kafka with its segments: what is left is never less than the limit.
            if let Some(mark) = self
                .index
                .iter()
                .take_while(|mark| self.bytes_end - mark.bytes >= max_bytes)
                .last()
            {
                reach(mark.last, mark.bytes);
            }
        }
        if start > self.start {
            self.advance_start(start, bytes, fx);
        }
    }
}

/// What is left of a partition whose topic was deleted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Grave {
    pub(super) at: PartitionRef,
    /// Seq of its shard: what was in the log when the topic was deleted must be in the tables to be found.
    log_seq: u64,
    /// How many kinds of [`GRAVE_ROWS`] are gone, and where the next one begins. A new run begins anew.
    gone: usize,
    from: Option<Vec<u8>>,
}

/// The rows of a partition, in the order in which they go.
const GRAVE_ROWS: [(Tag, Keyspace); 5] = [
    (Tag::Batch, Keyspace::Bodies),
    (Tag::BatchIndex, Keyspace::Rows),
    (Tag::Producer, Keyspace::Rows),
    (Tag::Aborted, Keyspace::Rows),
    (Tag::PartitionState, Keyspace::Rows),
];

impl Grave {
    /// Of a partition with rows in the log up to `log_seq`.
    pub(super) fn new(at: PartitionRef, log_seq: u64) -> Self {
        Self {
            at,
            log_seq,
            gone: 0,
            from: None,
        }
    }

    /// Deletes up to [`ROWS_PER_RECORD`] rows. True: nothing is left.
    fn step(&mut self, engine: &Engine, fx: &mut Effects) -> Result<bool, Error> {
        let at = self.at;
        let mut left = ROWS_PER_RECORD;
        while let Some((tag, keyspace)) = GRAVE_ROWS.get(self.gone) {
            let prefix = rows::object_prefix(at.slot, *tag, at.id);
            let to = rows::prefix_end(&prefix);
            let from = self.from.take().unwrap_or_else(|| prefix.to_vec());
            let limit = left;
            engine.scan(*keyspace, &from, to.as_deref(), limit, &mut |key, _| {
                match keyspace {
                    Keyspace::Bodies => fx.del_body(at.shard(), key),
                    Keyspace::Rows => fx.del(at.shard(), key),
                }
                left -= 1;
                if left == 0 {
                    self.from = Some([key, &[0]].concat());
                }
                true
            })?;
            if left == 0 {
                return Ok(false);
            }
            self.gone += 1;
        }
        Ok(true)
    }
}

/// Deletes some rows of one partition whose topic is gone. True: there may be more.
///
/// # Errors
/// When the tables cannot be read.
pub fn sweep_deleted(broker: &Broker, ctx: &Ctx) -> Result<bool, Error> {
    let engine = &broker.engine;
    let is_ready = |grave: &Grave| engine.folded_seq(grave.at.shard()) >= grave.log_seq;
    let shard = {
        let mut locked = broker.lock_one(ShardId::CATALOG);
        let graves = &locked.catalog().streams.graves;
        match graves.iter().find(|grave| is_ready(grave)) {
            Some(grave) => grave.at.shard(),
            None => return Ok(false),
        }
    };
    let mut fx = Effects::new();
    let mut locked = broker.lock(ShardSet::of(shard).with(ShardId::CATALOG));
    let graves = &mut locked.catalog().streams.graves;
    let ready = graves
        .iter()
        .position(|grave| grave.at.shard() == shard && is_ready(grave));
    if let Some(place) = ready
        && let Some(grave) = graves.get_mut(place)
        && grave.step(engine, &mut fx)?
    {
        let grave = graves.swap_remove(place);
        topic::swept(&mut fx, grave.at);
    }
    locked.commit(ctx.now, &mut fx);
    Ok(true)
}
