//! Removing the rows of deleted queues and purged stretches, a few at a time.

use std::sync::Arc;

use storage::{Engine, Keyspace};

use super::definition::Definition;
use super::expiry;
use super::message::Message;
use crate::rows::{self, Tag};
use crate::{Broker, Effects, Millis, ShardId, Slot};

/// Rows removed under one lock.
const STEP: usize = 1000;

/// Rows that nobody will read again: messages `[from, to)` of a queue.
#[derive(Debug)]
pub(super) struct Sweep {
    slot: Slot,
    pub(super) queue: u64,
    /// As in the row's key.
    start: u64,
    from: u64,
    to: u64,
    /// The tables hold all these messages once this record is folded.
    log_seq: u64,
}

impl Sweep {
    pub(super) fn new(queue: &Definition, from: u64, to: u64, log_seq: u64) -> Self {
        Self {
            slot: queue.slot,
            queue: queue.id,
            start: from,
            from,
            to,
            log_seq,
        }
    }

    /// Removes up to [`STEP`] rows; `true` when none is left.
    pub(super) fn step(
        &mut self,
        shard: ShardId,
        engine: &Engine,
        fx: &mut Effects,
    ) -> Result<bool, storage::Error> {
        let mut reached = [u64::MAX; 3];
        let kinds = [
            (Tag::Message, Keyspace::Rows),
            (Tag::Message, Keyspace::Bodies),
            (Tag::Attempts, Keyspace::Rows),
        ];
        for ((tag, keyspace), reached) in kinds.into_iter().zip(&mut reached) {
            let prefix = rows::object_prefix(self.slot, tag, self.queue);
            let from = [&prefix[..], &self.from.to_be_bytes()].concat();
            let end = if self.to == u64::MAX {
                rows::prefix_end(&prefix)
            } else {
                Some([&prefix[..], &self.to.to_be_bytes()].concat())
            };
            let apart = keyspace == Keyspace::Bodies;
            let mut count = 0;
            engine.scan(keyspace, &from, end.as_deref(), STEP, &mut |key, value| {
                count += 1;
                if let Some(seq) = key.last_chunk::<8>() {
                    *reached = u64::from_be_bytes(*seq);
                    if tag == Tag::Message
                        && let Some(deadline) = Message::late_deadline(value)
                    {
                        expiry::del_row(fx, shard, (deadline, self.queue, *reached));
                    }
                }
                if apart {
                    fx.del_body(shard, key)
                } else {
                    fx.del(shard, key)
                }
                true
            })?;
            if count < STEP {
                *reached = u64::MAX;
            }
        }
        let last = reached.into_iter().min().unwrap_or(u64::MAX);
        if last == u64::MAX {
            fx.del(shard, &row_key(self.slot, self.queue, self.start));
            return Ok(true);
        }
        self.from = last + 1;
        Ok(false)
    }
}

/// In the shard's first slot whatever the queue's is, so that a start finds them all in one place.
fn row_key(slot: Slot, queue: u64, from: u64) -> Vec<u8> {
    let (first, _) = Slot::range_of(slot.shard());
    [
        &rows::object_prefix(first, Tag::QueueSweep, queue)[..],
        &from.to_be_bytes(),
    ]
    .concat()
}

/// Remembers across restarts that messages `[from, to)` are nobody's.
pub(super) fn put_row(fx: &mut Effects, queue: &Definition, from: u64, to: u64) {
    let value = [&queue.slot.raw().to_le_bytes()[..], &to.to_le_bytes()].concat();
    fx.put(queue.shard(), &row_key(queue.slot, queue.id, from), &value);
}

/// The sweeps that an earlier run left to this shard.
pub(super) fn load(engine: &Engine, shard: ShardId) -> Result<Vec<Sweep>, storage::Error> {
    let mut sweeps = Vec::new();
    let prefix = rows::prefix(Slot::range_of(shard).0, Tag::QueueSweep);
    rows::each(engine, &prefix, &mut |key, value| {
        sweeps.extend(read_row(key, value));
        true
    })?;
    Ok(sweeps)
}

fn read_row(key: &[u8], value: &[u8]) -> Option<Sweep> {
    let queue = u64::from_be_bytes(key.get(3..11)?.try_into().ok()?);
    let from = u64::from_be_bytes(*key.last_chunk::<8>()?);
    let (slot, to) = value.split_first_chunk::<2>()?;
    let slot = Slot::from_raw(u16::from_le_bytes(*slot))?;
    Some(Sweep {
        slot,
        queue,
        start: from,
        from,
        to: u64::from_le_bytes(to.try_into().ok()?),
        log_seq: 0,
    })
}

/// Does some of the work that is due in a shard; `true`: there is more that can be done now. For a job with time to spare.
///
/// # Errors
/// When the tables cannot be read.
pub fn sweep(
    broker: &Broker,
    shard: ShardId,
    now: Millis,
    fx: &mut Effects,
) -> Result<bool, storage::Error> {
    let mut locked = broker.lock_one(shard);
    let engine = Arc::clone(&locked.shard(shard).engine);
    let sweeps = &mut locked.shard(shard).queues.sweeps;
    let folded = engine.folded_seq(shard);
    let Some(at) = sweeps.iter().position(|sweep| sweep.log_seq <= folded) else {
        return Ok(false);
    };
    if let Some(sweep) = sweeps.get_mut(at)
        && sweep.step(shard, &engine, fx)?
    {
        sweeps.swap_remove(at);
    }
    let more = !sweeps.is_empty();
    locked.commit(now, fx);
    Ok(more)
}
