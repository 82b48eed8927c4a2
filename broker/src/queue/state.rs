//! One queue: where it stands, its messages and consumers.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use storage::{Engine, ShardId};

use super::consumer::Consumers;
use super::definition::Definition;
use super::done::Done;
use super::limits::Overflow;
use super::paged::Source;
use super::ready::{Entry, Ready};
use super::row;
use super::turn::Credit;
use crate::rows::{self, Tag};
use crate::{Effects, Millis};

/// The delivered mark moves so far ahead of deliveries: after a crash at most so many messages are called redelivered
/// that were not.
const MARK_STEP: u64 = 1000;

/// One queue's messages and consumers.
#[derive(Debug)]
pub struct Queue {
    pub definition: Arc<Definition>,
    pub(super) ready: Ready,
    pub(super) unacked: u64,
    /// Octets of their bodies, of those that a restart brings back.
    unacked_bytes: u64,
    pub(super) next_seq: u64,
    /// Deliveries of messages below were perhaps tried.
    mark: u64,
    /// The same as this run found it: of what it reads back, only these were tried by an earlier one.
    tried_before: u64,
    /// Transient messages below, if the tables have any, are from an earlier run.
    dead_below: u64,
    /// Persistent messages with a row, unacknowledged ones included.
    pub(super) stored: u64,
    pub(super) done: Done,
    pub(super) consumers: Consumers,
    /// Has had a consumer: an auto-delete queue goes with its last one, not before its first.
    pub(super) was_consumed: bool,
    /// A transient queue that has rows since messages were paged out.
    pub(super) spilled: bool,
    /// Messages here may expire.
    pub(super) timed: bool,
    /// The deadline under which it stands in `deadlines`; 0 = none.
    pub(super) armed: u64,
    /// When a client last did something with it.
    pub(super) last_used: Millis,
}

/// What is told of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub ready: u64,
    pub unacked: u64,
    pub consumers: u64,
}

impl Queue {
    pub(super) fn new(definition: Arc<Definition>) -> Self {
        Self {
            definition,
            ready: Ready::default(),
            unacked: 0,
            unacked_bytes: 0,
            next_seq: 1,
            mark: 0,
            tried_before: 0,
            dead_below: 0,
            stored: 0,
            done: Done::new(1),
            consumers: Consumers::default(),
            was_consumed: false,
            spilled: false,
            timed: false,
            armed: 0,
            last_used: Millis(0),
        }
    }

    /// As the state row says it was; the messages are in the tables.
    pub(super) fn load(
        definition: Arc<Definition>,
        engine: &Engine,
    ) -> Result<Self, storage::Error> {
        let mut queue = Self::new(definition);
        let key = rows::object_prefix(queue.definition.slot, Tag::QueueState, queue.definition.id);
        let Some(row) = engine.get(storage::Keyspace::Rows, &key)? else {
            return Ok(queue);
        };
        let mut words = row
            .chunks_exact(8)
            .map(|word| <[u8; 8]>::try_from(word).map_or(0, u64::from_le_bytes));
        let mut word = || words.next().unwrap_or(0);
        // The octets count what was unacknowledged too: it is ready again now.
        let (stored, mark, head, next, bytes, timed) =
            (word(), word(), word(), word(), word(), word());
        queue.stored = stored;
        queue.mark = mark;
        queue.tried_before = mark;
        // Behind the mark, so that new messages are not taken for delivered ones by a later start.
        queue.next_seq = next.max(mark);
        queue.dead_below = queue.next_seq;
        queue.done = Done::new(head);
        queue.ready = Ready::stored(head, stored, bytes);
        queue.timed = timed != 0;
        Ok(queue)
    }

    pub(super) fn put_state(&self, shard: ShardId, fx: &mut Effects) {
        if !self.definition.is_stored() {
            return;
        }
        let key = rows::object_prefix(self.definition.slot, Tag::QueueState, self.definition.id);
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
        fx.put(shard, &key, &row);
    }

    /// Octets of the bodies that a restart brings back, those included that consumers hold now.
    pub(super) fn stored_bytes(&self) -> u64 {
        (self.ready.body_bytes() + self.unacked_bytes).saturating_sub(self.ready.transient_bytes())
    }

    /// A client holds the message until it says what becomes of it.
    pub(super) fn lend(&mut self, entry: &Entry) {
        self.unacked += 1;
        if entry.logged && entry.message.is_persistent() {
            self.unacked_bytes += entry.message.body().len() as u64;
        }
    }

    /// The client has said it, and its consumer has room for another one.
    pub(super) fn release(&mut self, entry: &Entry, credit: Credit) {
        self.unacked = self.unacked.saturating_sub(1);
        if entry.logged && entry.message.is_persistent() {
            let octets = entry.message.body().len() as u64;
            self.unacked_bytes = self.unacked_bytes.saturating_sub(octets);
        }
        if let Some((connection, id)) = credit
            && let Some(consumer) = self.consumers.find(connection, id)
        {
            consumer.in_flight = consumer.in_flight.saturating_sub(1);
        }
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            ready: self.ready.len(),
            unacked: self.unacked,
            consumers: self.consumers.len() as u64,
        }
    }

    #[must_use]
    pub fn ready_count(&self) -> u64 {
        self.ready.len()
    }

    #[must_use]
    pub fn consumer_count(&self) -> usize {
        self.consumers.len()
    }

    #[must_use]
    pub fn has_exclusive_consumer(&self) -> bool {
        self.consumers.has_exclusive()
    }

    /// An auto-delete queue that has lost its last consumer.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.definition.auto_delete && self.was_consumed && self.consumers.is_empty()
    }

    /// Is it full, and not one to drop its oldest message?
    #[must_use]
    pub fn refuses(&self, octets: u64) -> bool {
        self.definition.limits.overflow != Overflow::DropHead && self.is_full(octets)
    }

    /// Would one more message of so many octets be too many?
    fn is_full(&self, octets: u64) -> bool {
        let limits = &self.definition.limits;
        limits
            .length
            .is_some_and(|limit| self.ready.len() + 1 > limit)
            || limits
                .bytes
                .is_some_and(|limit| self.ready.body_bytes() + octets > limit)
    }

    /// Are there more messages than it may have?
    pub(super) fn overflows(&self) -> bool {
        let limits = &self.definition.limits;
        limits.length.is_some_and(|limit| self.ready.len() > limit)
            || limits
                .bytes
                .is_some_and(|limit| self.ready.body_bytes() > limit)
    }

    /// Makes the oldest message available in memory, if there is one.
    pub(super) fn read_ahead(
        &mut self,
        shard: ShardId,
        engine: &Engine,
        fx: &mut Effects,
    ) -> Result<(), storage::Error> {
        while self.ready.wants_reading() {
            let Definition { slot, id, .. } = *self.definition;
            let source = Source { engine, slot, id };
            let mut dead = Vec::new();
            self.ready
                .read_ahead(source, self.tried_before, self.dead_below, &mut dead)?;
            for (seq, apart) in dead {
                row::del(fx, shard, &self.definition, seq, apart);
            }
        }
        Ok(())
    }

    /// The message will never be delivered again.
    pub(super) fn forget(&mut self, shard: ShardId, entry: &Entry, fx: &mut Effects) {
        if entry.logged {
            let apart = entry.message.is_apart();
            row::del(fx, shard, &self.definition, entry.seq, apart);
            if entry.message.is_persistent() && self.definition.is_stored() {
                self.stored = self.stored.saturating_sub(1);
            }
        }
        self.done.add(entry.seq);
    }

    /// Moves the delivered mark past `seq`; true when the state row must be written.
    pub(super) fn mark_past(&mut self, seq: u64) -> bool {
        if seq < self.mark || !self.definition.is_stored() {
            return false;
        }
        self.mark = seq + MARK_STEP;
        true
    }

    /// Has the clock look at the queue when its oldest message expires.
    pub(super) fn arm(&mut self, deadlines: &mut BinaryHeap<Reverse<(u64, u64)>>) {
        if !self.timed || self.ready.is_empty() {
            return;
        }
        // What must be read first is due at once.
        let due = self
            .ready
            .peek()
            .map_or(1, |entry| entry.message.deadline_ms());
        if due != 0 && (self.armed == 0 || due < self.armed) {
            self.armed = due;
            deadlines.push(Reverse((due, self.definition.id)));
        }
    }
}
