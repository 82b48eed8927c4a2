//! How messages lie in the tables: key and value of a message's row.

use storage::{Engine, ShardId};

use super::definition::Definition;
use super::ready::{Entry, PENDING};
use crate::rows::{self, Tag};
use crate::{Effects, Slot};

pub(super) fn key(slot: Slot, tag: Tag, id: u64, seq: u64) -> [u8; 19] {
    let mut key = [0; 19];
    let (head, tail) = key.split_at_mut(11);
    head.copy_from_slice(&rows::object_prefix(slot, tag, id));
    tail.copy_from_slice(&seq.to_be_bytes());
    key
}

/// The message has a row from this record on.
pub(super) fn put(fx: &mut Effects, shard: ShardId, definition: &Definition, entry: &mut Entry) {
    let key = key(definition.slot, Tag::Message, definition.id, entry.seq);
    let (fixed, head) = entry.message.row_head();
    if entry.message.is_apart() {
        fx.put_body(
            shard,
            &key,
            &[&fixed[..], head].concat(),
            &entry.message.body_bytes(),
        );
    } else {
        fx.put_parts(shard, &[&key], &[&fixed, head, entry.message.body()]);
    }
    entry.logged = true;
    entry.lsn = PENDING;
    // Until the record is complete: where the row ends in it.
    entry.tail = u32::try_from(fx.size()).unwrap_or(u32::MAX);
}

/// It has none any more; `apart`: its body was a large one.
pub(super) fn del(fx: &mut Effects, shard: ShardId, queue: &Definition, seq: u64, apart: bool) {
    let key = key(queue.slot, Tag::Message, queue.id, seq);
    if apart {
        fx.del_body(shard, &key)
    } else {
        fx.del(shard, &key)
    }
}

/// A message that has a row was given back so many times.
pub(super) fn put_attempts(fx: &mut Effects, shard: ShardId, queue: &Definition, entry: &Entry) {
    let key = key(queue.slot, Tag::Attempts, queue.id, entry.seq);
    fx.put(shard, &key, &entry.attempts.to_le_bytes());
}

pub(super) fn del_attempts(fx: &mut Effects, shard: ShardId, queue: &Definition, seq: u64) {
    fx.del(shard, &key(queue.slot, Tag::Attempts, queue.id, seq));
}

/// The messages of a queue that were given back, and how often.
pub(super) fn each_attempts(
    engine: &Engine,
    queue: &Definition,
    each: &mut dyn FnMut(u64, u16),
) -> Result<(), storage::Error> {
    let prefix = rows::object_prefix(queue.slot, Tag::Attempts, queue.id);
    rows::each(engine, &prefix, &mut |key, value| {
        if let (Some(seq), Ok(count)) = (key.last_chunk::<8>(), value.try_into()) {
            each(u64::from_be_bytes(*seq), u16::from_le_bytes(count));
        }
        true
    })
}
