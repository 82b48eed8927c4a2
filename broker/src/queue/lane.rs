//! The messages of one queue with one priority, and where they stand. A queue without priorities has one lane.
//!
//! A queue that keeps its dead letters until they can be passed on has a lane for each reason; what is in there is not ready.
//!
//! Sequence numbers carry the priority in their highest octet, so each lane's rows lie together, in order, and one number
//! names a message of the whole queue.

use std::collections::BTreeMap;

use storage::{Engine, Keyspace, ShardId};

use super::definition::Definition;
use super::done::Done;
use super::paged::Source;
use super::ready::{Entry, Ready};
use super::row;
use crate::Effects;
use crate::rows::{self, Tag};

/// The delivered mark moves so far ahead of deliveries: after a crash at most so many messages are called redelivered
/// that were not.
const MARK_STEP: u64 = 1000;

const PRIORITY_SHIFT: u32 = 56;

/// The priority of the lane that a message is in.
pub(super) const fn priority_of(seq: u64) -> u8 {
    let [priority, ..] = seq.to_be_bytes();
    priority
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) priority: u8,
    pub(super) ready: Ready,
    pub(super) next_seq: u64,
    /// Octets of the bodies of unacknowledged messages, of those that a restart brings back.
    unacked_bytes: u64,
    /// Deliveries of messages below were perhaps tried.
    mark: u64,
    /// The same as this run found it: of what it reads back, only these were tried by an earlier one.
    tried_before: u64,
    /// Transient messages below, if the tables have any, are from an earlier run.
    dead_below: u64,
    /// Persistent messages with a row, unacknowledged ones included.
    pub(super) stored: u64,
    pub(super) done: Done,
    /// Messages here may expire.
    pub(super) timed: bool,
    /// The state row must be written.
    pub(super) dirty: bool,
    /// Deliveries of an earlier run that were returned, of messages that were not read since.
    pub(super) attempts: BTreeMap<u64, u16>,
}

impl Lane {
    pub(super) fn new(priority: u8) -> Self {
        let first = (u64::from(priority) << PRIORITY_SHIFT) + 1;
        Self {
            priority,
            ready: Ready::default(),
            next_seq: first,
            unacked_bytes: 0,
            mark: 0,
            tried_before: 0,
            dead_below: 0,
            stored: 0,
            done: Done::new(first),
            timed: false,
            dirty: false,
            attempts: BTreeMap::new(),
        }
    }

    /// Nothing was ever put in here.
    pub(super) fn is_new(&self) -> bool {
        self.next_seq == Self::new(self.priority).next_seq
    }

    /// As the state row says it was; the messages are in the tables.
    fn read(priority: u8, row: &[u8]) -> Self {
        let mut words = row
            .chunks_exact(8)
            .map(|word| <[u8; 8]>::try_from(word).map_or(0, u64::from_le_bytes));
        let mut word = || words.next().unwrap_or(0);
        // The octets count what was unacknowledged too: it is ready again now.
        let (stored, mark, head, next, bytes, timed) =
            (word(), word(), word(), word(), word(), word());
        // Behind the mark, so that new messages are not taken for delivered ones by a later start.
        let next_seq = next.max(mark);
        Self {
            stored,
            mark,
            tried_before: mark,
            next_seq,
            dead_below: next_seq,
            done: Done::new(head),
            ready: Ready::stored(head, stored, bytes),
            timed: timed != 0,
            ..Self::new(priority)
        }
    }

    /// The lanes of a queue that have a state row, lowest priority first.
    pub(super) fn load(
        definition: &Definition,
        engine: &Engine,
    ) -> Result<Vec<Self>, storage::Error> {
        let mut lanes = Vec::new();
        let prefix = rows::object_prefix(definition.slot, Tag::QueueState, definition.id);
        if definition.limits.max_priority.is_none() && !definition.limits.keeps_dead() {
            if let Some(row) = engine.get(Keyspace::Rows, &prefix)? {
                lanes.push(Self::read(0, &row));
            }
            return Ok(lanes);
        }
        rows::each(engine, &prefix, &mut |key, row| {
            let priority = key.get(prefix.len()).copied().unwrap_or(0);
            lanes.push(Self::read(priority, row));
            true
        })?;
        Ok(lanes)
    }

    /// The key of its state row: the lowest lane has that of a queue without priorities.
    fn state_key(&self, definition: &Definition) -> ([u8; 12], usize) {
        let mut key = [self.priority; 12];
        let prefix = rows::object_prefix(definition.slot, Tag::QueueState, definition.id);
        for (place, octet) in key.iter_mut().zip(prefix) {
            *place = octet;
        }
        (key, if self.priority == 0 { 11 } else { 12 })
    }

    /// Writes the state row if it must be.
    #[inline]
    pub(super) fn put_state(&mut self, definition: &Definition, shard: ShardId, fx: &mut Effects) {
        if !std::mem::take(&mut self.dirty) || !definition.is_stored() {
            return;
        }
        let mut row = [0; 48];
        for (place, word) in row.chunks_exact_mut(8).zip([
            self.stored,
            self.mark,
            self.done.head(),
            self.next_seq,
            self.stored_bytes(),
            u64::from(self.timed),
        ]) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let (key, len) = self.state_key(definition);
        fx.put(shard, key.get(..len).unwrap_or(&key), &row);
    }

    pub(super) fn del_state(&self, definition: &Definition, shard: ShardId, fx: &mut Effects) {
        let (key, len) = self.state_key(definition);
        fx.del(shard, key.get(..len).unwrap_or(&key));
    }

    /// Octets of the bodies that a restart brings back, those included that consumers hold now.
    pub(super) fn stored_bytes(&self) -> u64 {
        (self.ready.body_bytes() + self.unacked_bytes).saturating_sub(self.ready.transient_bytes())
    }

    /// A client holds the message until it says what becomes of it.
    pub(super) fn lend(&mut self, entry: &Entry) {
        if entry.logged && entry.message.is_persistent() {
            self.unacked_bytes += entry.message.body().len() as u64;
        }
    }

    /// The client has said it.
    pub(super) fn release(&mut self, entry: &Entry) {
        if entry.logged && entry.message.is_persistent() {
            let octets = entry.message.body().len() as u64;
            self.unacked_bytes = self.unacked_bytes.saturating_sub(octets);
        }
    }

    /// Makes the oldest message available in memory, if there is one.
    pub(super) fn read_ahead(
        &mut self,
        definition: &Definition,
        shard: ShardId,
        engine: &Engine,
        fx: &mut Effects,
    ) -> Result<(), storage::Error> {
        while self.ready.wants_reading() {
            let source = Source {
                engine,
                slot: definition.slot,
                id: definition.id,
                end: (u64::from(self.priority) + 1).saturating_mul(1 << PRIORITY_SHIFT),
            };
            let mut dead = Vec::new();
            let from =
                self.ready
                    .read_ahead(source, self.tried_before, self.dead_below, &mut dead)?;
            for (seq, apart) in dead {
                row::del(fx, shard, definition, seq, apart);
                if self.attempts.remove(&seq).is_some() {
                    row::del_attempts(fx, shard, definition, seq);
                }
            }
            if !self.attempts.is_empty() {
                self.ready.recall(from, &mut self.attempts);
            }
        }
        Ok(())
    }

    /// The message will never be delivered again.
    #[inline]
    pub(super) fn forget(
        &mut self,
        definition: &Definition,
        shard: ShardId,
        entry: &Entry,
        fx: &mut Effects,
    ) {
        if entry.logged {
            let apart = entry.message.is_apart();
            row::del(fx, shard, definition, entry.seq, apart);
            if entry.attempts > 0 {
                row::del_attempts(fx, shard, definition, entry.seq);
            }
            if entry.message.is_persistent() && definition.is_stored() {
                self.stored = self.stored.saturating_sub(1);
            }
            self.dirty = true;
        }
        self.done.add(entry.seq);
    }

    /// Moves the delivered mark past `seq`.
    #[inline]
    pub(super) fn mark_past(&mut self, seq: u64) {
        if seq >= self.mark {
            self.mark = seq + MARK_STEP;
            self.dirty = true;
        }
    }
}
