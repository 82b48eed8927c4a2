//! The queues of one shard: publish into them, take from them, acknowledge.
//!
//! Whatever a function here hands to a consumer is kept in `outgoing` until the record is appended, because a delivery
//! carries the position it has to wait for. [`Space::committed`] is called by `Locked::commit` before the locks go.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use hashbrown::HashMap;
use storage::{Engine, Lsn, ShardId};

use super::consumer::{Consumer, Consumers, Delivery, Event, Inbox, QueueRef};
use super::dead_letter::{self, Dead, Reason};
use super::definition::Definition;
use super::done::Done;
use super::limits::Overflow;
use super::message::Message;
use super::ready::{Entry, PENDING, Ready};
use crate::rows::{self, Tag};
use crate::{Effects, Millis, Shard, Slot};

/// The delivered mark moves so far ahead of deliveries: after a crash at most so many messages are called redelivered
/// that were not.
const MARK_STEP: u64 = 1000;

/// The queues of one shard.
#[derive(Debug, Default)]
pub struct Space {
    pub(super) queues: HashMap<u64, Queue, foldhash::fast::RandomState>,
    /// Pushed in the record being made: (queue, seq).
    pub(super) unsettled: Vec<(u64, u64)>,
    outgoing: Vec<(Arc<Inbox>, Event)>,
    pub(super) sweeps: Vec<super::sweep::Sweep>,
    /// Dropped and not yet passed on, see [`super::dead_letter`].
    pub(super) dead: Vec<Dead>,
    /// When a queue's oldest message expires: (milliseconds since 1970, queue).
    deadlines: BinaryHeap<Reverse<(u64, u64)>>,
    /// Queues that go when nobody uses them.
    expiring: Vec<u64>,
}

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
    pub(super) mark: u64,
    /// Transient messages below, if the tables have any, are from an earlier run.
    pub(super) dead_below: u64,
    /// Persistent messages with a row, unacknowledged ones included.
    pub(super) stored: u64,
    pub(super) done: Done,
    pub(super) consumers: Consumers,
    /// Has had a consumer: an auto-delete queue goes with its last one, not before its first.
    was_consumed: bool,
    /// A transient queue that has rows since messages were paged out.
    spilled: bool,
    /// Messages here may expire.
    pub(super) timed: bool,
    /// The deadline under which it stands in `deadlines`; 0 = none.
    armed: u64,
    /// When a client last did something with it.
    last_used: Millis,
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
        // Behind the mark, so that new messages are not taken for delivered ones by a later start.
        queue.next_seq = next.max(mark);
        queue.dead_below = queue.next_seq;
        queue.done = Done::new(head);
        queue.ready = Ready::stored(head, stored, bytes);
        queue.timed = timed != 0;
        Ok(queue)
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

    /// Messages of the middle leave memory.
    fn page_out(
        &mut self,
        shard: ShardId,
        folded: u64,
        goal: usize,
        fx: &mut Effects,
        unsettled: &mut Vec<(u64, u64)>,
    ) -> usize {
        let definition = Arc::clone(&self.definition);
        let mut spilled = false;
        let freed = self.ready.page_out(folded, goal, &mut |entry| {
            spilled = true;
            put_message(fx, shard, &definition, entry);
            unsettled.push((definition.id, entry.seq));
        });
        if spilled && !self.spilled && !self.definition.is_stored() {
            self.spilled = true;
            super::sweep::put_row(fx, &self.definition, 0, u64::MAX);
        }
        freed
    }

    /// Octets of the bodies that a restart brings back, those included that consumers hold now.
    pub(super) fn stored_bytes(&self) -> u64 {
        (self.ready.body_bytes() + self.unacked_bytes).saturating_sub(self.ready.transient_bytes())
    }

    /// A client holds the message until it says what becomes of it.
    fn lend(&mut self, entry: &Entry) {
        self.unacked += 1;
        if entry.logged && entry.message.is_persistent() {
            self.unacked_bytes += entry.message.body().len() as u64;
        }
    }

    fn put_state(&self, shard: ShardId, fx: &mut Effects) {
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

    /// The message will never be delivered again.
    fn forget(&mut self, shard: ShardId, entry: &Entry, fx: &mut Effects) {
        if entry.logged {
            del_message(
                fx,
                shard,
                &self.definition,
                entry.seq,
                entry.message.is_apart(),
            );
            if entry.message.is_persistent() && self.definition.is_stored() {
                self.stored = self.stored.saturating_sub(1);
            }
        }
        self.done.add(entry.seq);
    }

    /// The message leaves the queue for `reason`: it is passed on, or forgotten.
    fn discard(
        &mut self,
        shard: ShardId,
        entry: Entry,
        reason: Reason,
        fx: &mut Effects,
        dead: &mut Vec<Dead>,
    ) {
        if self.definition.limits.dead_letter.is_some() {
            dead.push(Dead {
                queue: Arc::clone(&self.definition),
                entry,
                reason,
            });
        } else {
            self.forget(shard, &entry, fx);
        }
    }

    /// Drops what has expired at the head; true when the state row must be written.
    fn expire(
        &mut self,
        shard: ShardId,
        engine: &Engine,
        now: Millis,
        fx: &mut Effects,
        dead: &mut Vec<Dead>,
    ) -> bool {
        let mut dirty = false;
        while self.timed {
            read_ahead(self, shard, engine, fx);
            let due = self
                .ready
                .peek()
                .map_or(0, |entry| entry.message.deadline_ms());
            if due == 0 || due > now.0 {
                break;
            }
            let Some(entry) = self.ready.pop() else { break };
            dirty |= entry.logged;
            self.discard(shard, entry, Reason::Expired, fx, dead);
        }
        dirty
    }

    /// Has the clock look at the queue when its oldest message expires.
    fn arm(&mut self, deadlines: &mut BinaryHeap<Reverse<(u64, u64)>>) {
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

    /// Moves the delivered mark past `seq`; true when the state row must be written.
    fn mark_past(&mut self, seq: u64) -> bool {
        if seq < self.mark || !self.definition.is_stored() {
            return false;
        }
        self.mark = seq + MARK_STEP;
        true
    }
}

fn message_key(slot: Slot, id: u64, seq: u64) -> [u8; 19] {
    let mut key = [0; 19];
    let (head, tail) = key.split_at_mut(11);
    head.copy_from_slice(&rows::object_prefix(slot, Tag::Message, id));
    tail.copy_from_slice(&seq.to_be_bytes());
    key
}

fn put_message(fx: &mut Effects, shard: ShardId, definition: &Definition, entry: &mut Entry) {
    let key = message_key(definition.slot, definition.id, entry.seq);
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
    entry.log_seq = PENDING;
}

pub(super) fn del_message(
    fx: &mut Effects,
    shard: ShardId,
    definition: &Definition,
    seq: u64,
    apart: bool,
) {
    let key = message_key(definition.slot, definition.id, seq);
    if apart {
        fx.del_body(shard, &key)
    } else {
        fx.del(shard, &key)
    }
}

impl Space {
    /// A queue by its id; `None` when it was deleted.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<&Queue> {
        self.queues.get(&id)
    }

    pub(super) fn insert(&mut self, definition: &Arc<Definition>) {
        self.insert_queue(Queue::new(Arc::clone(definition)));
    }

    pub(super) fn insert_queue(&mut self, mut queue: Queue) {
        if queue.definition.limits.expires_ms.is_some() {
            self.expiring.push(queue.definition.id);
        }
        queue.arm(&mut self.deadlines);
        self.queues.insert(queue.definition.id, queue);
    }

    /// All of them, in no order.
    pub fn queues(&self) -> impl Iterator<Item = &Queue> {
        self.queues.values()
    }

    /// The record is appended: what it pushed gets its position, and deliveries go out.
    #[inline]
    pub(crate) fn committed(&mut self, engine: &Engine, shard: ShardId, lsn: Lsn) {
        if self.unsettled.is_empty() && self.outgoing.is_empty() {
            return;
        }
        let log_seq = engine.shard_seq(shard);
        for (id, seq) in self.unsettled.drain(..) {
            if let Some(entry) = self
                .queues
                .get_mut(&id)
                .and_then(|queue| queue.ready.recent(seq))
            {
                settle(entry, log_seq, lsn);
            }
        }
        for (inbox, mut event) in self.outgoing.drain(..) {
            if let Event::Delivered(delivery) = &mut event {
                settle(&mut delivery.entry, log_seq, lsn);
            }
            inbox.push(event);
        }
        if self.unsettled.capacity() > 4096 {
            self.unsettled = Vec::new();
        }
        if self.outgoing.capacity() > 4096 {
            self.outgoing = Vec::new();
        }
    }
}

fn settle(entry: &mut Entry, log_seq: u64, lsn: Lsn) {
    if entry.log_seq == PENDING {
        entry.log_seq = log_seq;
        // Paged-out transient messages have a row, but nobody waits for it.
        if entry.message.is_persistent() {
            entry.lsn = lsn;
        }
    }
}

/// What became of one message in one queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Pushed {
    /// A row was written: whoever confirms the message waits for the record.
    pub(super) logged: bool,
    /// The queue is full and takes no more.
    pub(super) refused: bool,
    /// Something is in `dead`.
    pub(super) dead: bool,
}

/// Puts a message into a queue, or straight into a waiting consumer's hands.
pub(super) fn push(
    shard: &mut Shard,
    id: u64,
    mut message: Message,
    now: Millis,
    fx: &mut Effects,
) -> Pushed {
    let Space {
        queues,
        unsettled,
        outgoing,
        dead,
        deadlines,
        ..
    } = &mut shard.queues;
    let Some(queue) = queues.get_mut(&id) else {
        return Pushed::default();
    };
    let limits = &queue.definition.limits;
    if let Some(ttl) = limits.message_ttl_ms {
        message.expire_at(Millis(now.0.saturating_add(ttl)));
    }
    let single = limits.single_active;
    let taker = if queue.ready.is_empty() {
        queue.consumers.next(single)
    } else {
        None
    };
    let taker = taker.map(|consumer| (consumer.id, consumer.no_ack, Arc::clone(&consumer.inbox)));
    let mut pushed = Pushed::default();
    if taker.is_none()
        && limits.overflow != Overflow::DropHead
        && queue.is_full(message.body().len() as u64)
    {
        pushed.refused = true;
        if limits.overflow == Overflow::RejectDeadLetter && limits.dead_letter.is_some() {
            dead.push(dead_letter::refused(&queue.definition, message));
            pushed.dead = true;
        }
        return pushed;
    }
    queue.timed |= message.deadline_ms() != 0;
    let durable = message.is_persistent() && queue.definition.is_stored();
    let seq = queue.next_seq;
    queue.next_seq += 1;
    let mut entry = Entry {
        seq,
        log_seq: 0,
        lsn: Lsn(0),
        logged: false,
        redelivered: false,
        message,
    };
    if let Some((_, true, _)) = taker {
        queue.done.add(seq);
    } else if durable {
        put_message(fx, shard.id, &queue.definition, &mut entry);
        queue.stored += 1;
        if taker.is_some() {
            queue.mark_past(seq);
        }
    }
    if let Some((consumer, no_ack, inbox)) = taker {
        let origin = (!no_ack).then_some(QueueRef {
            shard: shard.id,
            id,
        });
        if !no_ack {
            queue.lend(&entry);
        }
        pushed.logged = entry.logged;
        if entry.logged {
            queue.put_state(shard.id, fx);
        }
        outgoing.push((
            inbox,
            Event::Delivered(Delivery {
                consumer,
                origin,
                entry,
            }),
        ));
        return pushed;
    }
    if durable {
        unsettled.push((id, seq));
    }
    pushed.logged = durable;
    let before = queue.ready.bytes();
    let was_empty = queue.ready.is_empty();
    let weight = entry.message.weight();
    queue.ready.push(entry);
    let limits = &queue.definition.limits;
    if limits.length.is_some() || limits.bytes.is_some() {
        let (length, bytes) = (
            limits.length.unwrap_or(u64::MAX),
            limits.bytes.unwrap_or(u64::MAX),
        );
        while queue.ready.len() > length || queue.ready.body_bytes() > bytes {
            read_ahead(queue, shard.id, &shard.engine, fx);
            let Some(entry) = queue.ready.pop() else {
                break;
            };
            queue.discard(shard.id, entry, Reason::MaxLength, fx, dead);
            pushed.dead = true;
        }
    }
    if was_empty {
        queue.arm(deadlines);
    }
    let budget = &shard.budgets.queue;
    budget.charge(queue.ready.bytes() as i64 - before as i64);
    if budget.excess() > 0 {
        let folded = shard.engine.folded_seq(shard.id);
        // Twice what came in: memory shrinks under a steady stream.
        let freed = queue.page_out(shard.id, folded, weight.saturating_mul(2), fx, unsettled);
        budget.charge(-(freed as i64));
    }
    if durable {
        queue.put_state(shard.id, fx);
    }
    pushed
}

/// Gives messages to consumers as long as there are both. Call `Locked::commit` afterwards even without effects.
///
/// # Panics
/// When the tables cannot be read: memory and tables would tell different stories from then on.
pub(super) fn dispatch(shard: &mut Shard, id: u64, now: Millis, fx: &mut Effects) {
    let (engine, budgets) = (Arc::clone(&shard.engine), Arc::clone(&shard.budgets));
    let shard_id = shard.id;
    let Space {
        queues,
        outgoing,
        dead,
        deadlines,
        ..
    } = &mut shard.queues;
    let Some(queue) = queues.get_mut(&id) else {
        return;
    };
    let before = queue.ready.bytes();
    let mut dirty = false;
    let single = queue.definition.limits.single_active;
    while !queue.ready.is_empty() {
        dirty |= queue.expire(shard_id, &engine, now, fx, dead);
        read_ahead(queue, shard_id, &engine, fx);
        if queue.ready.is_empty() {
            break;
        }
        let Some(consumer) = queue.consumers.next(single) else {
            break;
        };
        let (consumer, no_ack, inbox) = (consumer.id, consumer.no_ack, Arc::clone(&consumer.inbox));
        let Some(entry) = queue.ready.pop() else {
            break;
        };
        dirty |= queue.mark_past(entry.seq);
        let origin = (!no_ack).then_some(QueueRef {
            shard: shard_id,
            id,
        });
        if no_ack {
            dirty |= entry.logged;
            queue.forget(shard_id, &entry, fx);
        } else {
            queue.lend(&entry);
        }
        outgoing.push((
            inbox,
            Event::Delivered(Delivery {
                consumer,
                origin,
                entry,
            }),
        ));
    }
    if dirty {
        queue.put_state(shard_id, fx);
    }
    queue.arm(deadlines);
    budgets
        .queue
        .charge(queue.ready.bytes() as i64 - before as i64);
}

pub(super) fn read_ahead(queue: &mut Queue, shard: ShardId, engine: &Engine, fx: &mut Effects) {
    while queue.ready.wants_reading() {
        let mut dead = Vec::new();
        let Definition { slot, id, .. } = *queue.definition;
        #[expect(
            clippy::expect_used,
            reason = "the node stops when its tables fail: going on would lie"
        )]
        queue
            .ready
            .read_ahead(engine, slot, id, queue.mark, queue.dead_below, &mut dead)
            .expect("the tables can be read");
        for (seq, apart) in dead {
            del_message(fx, shard, &queue.definition, seq, apart);
        }
    }
}

/// Takes the oldest message (`basic.get`) and how many are left. Call `Locked::commit` afterwards.
pub(super) fn take(
    shard: &mut Shard,
    id: u64,
    no_ack: bool,
    now: Millis,
    fx: &mut Effects,
) -> Option<(Entry, u64)> {
    let (engine, shard_id) = (Arc::clone(&shard.engine), shard.id);
    let Space {
        queues,
        dead,
        deadlines,
        ..
    } = &mut shard.queues;
    let queue = queues.get_mut(&id)?;
    queue.last_used = now;
    let before = queue.ready.bytes();
    let mut dirty = queue.expire(shard_id, &engine, now, fx, dead);
    read_ahead(queue, shard_id, &engine, fx);
    let entry = queue.ready.pop();
    shard
        .budgets
        .queue
        .charge(queue.ready.bytes() as i64 - before as i64);
    queue.arm(deadlines);
    if let Some(entry) = &entry {
        dirty |= queue.mark_past(entry.seq);
        if no_ack {
            dirty |= entry.logged;
            queue.forget(shard_id, entry, fx);
        } else {
            queue.lend(entry);
        }
    }
    if dirty {
        queue.put_state(shard_id, fx);
    }
    entry.map(|entry| (entry, queue.ready.len()))
}

/// Credit that messages give back: the connection's consumer they were delivered to; `None` for `basic.get`.
pub type Credit = Option<(u64, u64)>;

fn release(queue: &mut Queue, entry: &Entry, credit: Credit) {
    queue.unacked = queue.unacked.saturating_sub(1);
    if entry.logged && entry.message.is_persistent() {
        let octets = entry.message.body().len() as u64;
        queue.unacked_bytes = queue.unacked_bytes.saturating_sub(octets);
    }
    if let Some((connection, id)) = credit
        && let Some(consumer) = queue.consumers.find(connection, id)
    {
        consumer.in_flight = consumer.in_flight.saturating_sub(1);
    }
}

/// The messages are done with. Call `Locked::commit` afterwards.
pub(super) fn acknowledge<'e>(
    shard: &mut Shard,
    id: u64,
    entries: impl Iterator<Item = (&'e Entry, Credit)>,
    now: Millis,
    fx: &mut Effects,
) {
    let shard_id = shard.id;
    let Some(queue) = shard.queues.queues.get_mut(&id) else {
        return;
    };
    let mut logged = false;
    for (entry, credit) in entries {
        logged |= entry.logged;
        release(queue, entry, credit);
        queue.forget(shard_id, entry, fx);
    }
    if logged {
        queue.put_state(shard_id, fx);
    }
    dispatch(shard, id, now, fx);
}

/// The messages go back where they were. Call `Locked::commit` afterwards.
pub(super) fn requeue(
    shard: &mut Shard,
    id: u64,
    entries: impl Iterator<Item = (Entry, Credit)>,
    now: Millis,
    fx: &mut Effects,
) {
    let Some(queue) = shard.queues.queues.get_mut(&id) else {
        return;
    };
    let before = queue.ready.bytes();
    for (mut entry, credit) in entries {
        release(queue, &entry, credit);
        entry.redelivered = true;
        queue.ready.put_back(entry);
    }
    shard
        .budgets
        .queue
        .charge(queue.ready.bytes() as i64 - before as i64);
    dispatch(shard, id, now, fx);
}

/// The client does not want the messages: they are passed on, or done with. Call `Locked::commit` afterwards.
pub(super) fn reject(
    shard: &mut Shard,
    id: u64,
    entries: impl Iterator<Item = (Entry, Credit)>,
    now: Millis,
    fx: &mut Effects,
) {
    let shard_id = shard.id;
    let Space { queues, dead, .. } = &mut shard.queues;
    let Some(queue) = queues.get_mut(&id) else {
        return;
    };
    let mut logged = false;
    for (entry, credit) in entries {
        logged |= entry.logged;
        release(queue, &entry, credit);
        queue.discard(shard_id, entry, Reason::Rejected, fx, dead);
    }
    if logged {
        queue.put_state(shard_id, fx);
    }
    dispatch(shard, id, now, fx);
}

/// A message that was passed on leaves the queue for good.
pub(super) fn forget(shard: &mut Shard, id: u64, entry: &Entry, fx: &mut Effects) {
    let shard_id = shard.id;
    // Seq 0 was never in the queue.
    if let Some(queue) = shard.queues.queues.get_mut(&id).filter(|_| entry.seq != 0) {
        queue.forget(shard_id, entry, fx);
        if entry.logged {
            queue.put_state(shard_id, fx);
        }
    }
}

/// Drops what has expired, in at most so many queues; `true`: there may be more. Call `Locked::commit` afterwards.
pub(super) fn expire_due(shard: &mut Shard, limit: usize, now: Millis, fx: &mut Effects) -> bool {
    let (engine, shard_id) = (Arc::clone(&shard.engine), shard.id);
    let Space {
        queues,
        dead,
        deadlines,
        ..
    } = &mut shard.queues;
    for _ in 0..limit {
        let Some(Reverse((_, id))) = deadlines
            .peek()
            .copied()
            .filter(|Reverse((due, _))| *due <= now.0)
        else {
            return false;
        };
        deadlines.pop();
        let Some(queue) = queues.get_mut(&id) else {
            continue;
        };
        queue.armed = 0;
        let before = queue.ready.bytes();
        if queue.expire(shard_id, &engine, now, fx, dead) {
            queue.put_state(shard_id, fx);
        }
        shard
            .budgets
            .queue
            .charge(queue.ready.bytes() as i64 - before as i64);
        queue.arm(deadlines);
    }
    true
}

/// Queues that nobody has used for as long as they live unused.
pub(super) fn unused(space: &mut Space, now: Millis) -> Vec<Arc<Definition>> {
    let Space {
        queues, expiring, ..
    } = space;
    let mut found = Vec::new();
    expiring.retain(|id| {
        let Some(queue) = queues.get_mut(id) else {
            return false;
        };
        let ttl = queue.definition.limits.expires_ms.unwrap_or(u64::MAX);
        if !queue.consumers.is_empty() || queue.last_used == Millis(0) {
            queue.last_used = now;
        }
        if now.0.saturating_sub(queue.last_used.0) >= ttl {
            found.push(Arc::clone(&queue.definition));
        }
        true
    });
    found
}

/// A client has shown interest (a declaration).
pub(super) fn touch(shard: &mut Shard, id: u64, now: Millis) {
    if let Some(queue) = shard.queues.queues.get_mut(&id) {
        queue.last_used = now;
    }
}

/// Why a consumer is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsumeError {
    NoQueue,
    /// Another consumer has the queue for itself, or this one wanted to and is not alone.
    ExclusiveUse,
}

pub(super) fn add_consumer(
    shard: &mut Shard,
    id: u64,
    consumer: Consumer,
) -> Result<(), ConsumeError> {
    let queue = shard
        .queues
        .queues
        .get_mut(&id)
        .ok_or(ConsumeError::NoQueue)?;
    if queue.consumers.has_exclusive() || (consumer.exclusive && !queue.consumers.is_empty()) {
        return Err(ConsumeError::ExclusiveUse);
    }
    queue.was_consumed = true;
    queue.consumers.add(consumer);
    Ok(())
}

/// `true`: the queue is auto-delete and this was its last consumer.
pub(super) fn remove_consumer(shard: &mut Shard, id: u64, connection: u64, consumer: u64) -> bool {
    let Some(queue) = shard.queues.queues.get_mut(&id) else {
        return false;
    };
    queue.consumers.remove(connection, consumer);
    queue.is_abandoned()
}

/// Drops what is ready; what is unacknowledged stays. Gives how many. Call `Locked::commit` afterwards.
pub(super) fn purge(shard: &mut Shard, id: u64, fx: &mut Effects) -> u64 {
    let (shard_id, next_log_seq) = (shard.id, shard.engine.shard_seq(shard.id) + 1);
    let Space { queues, sweeps, .. } = &mut shard.queues;
    let Some(queue) = queues.get_mut(&id) else {
        return 0;
    };
    let (count, bytes) = (queue.ready.len(), queue.ready.bytes());
    let mut ready = std::mem::take(&mut queue.ready);
    let newest_paged = queue.next_seq;
    let (from, paged, persistent) = ready.clear(|entry| queue.forget(shard_id, &entry, fx));
    if paged > 0 {
        // Behind `from` no message was ever taken, so none there is unacknowledged.
        queue.stored = queue.stored.saturating_sub(persistent);
        queue.done.add_range(from, newest_paged);
        sweeps.push(super::sweep::Sweep::new(
            &queue.definition,
            from,
            newest_paged,
            next_log_seq,
        ));
        super::sweep::put_row(fx, &queue.definition, from, newest_paged);
    }
    queue.put_state(shard_id, fx);
    shard.budgets.queue.charge(-(bytes as i64));
    count
}

/// The queue is gone with all its messages; gives how many were ready.
pub(super) fn drop_queue(shard: &mut Shard, id: u64, fx: &mut Effects) -> u64 {
    let next_log_seq = shard.engine.shard_seq(shard.id) + 1;
    let Space {
        queues,
        sweeps,
        outgoing,
        ..
    } = &mut shard.queues;
    let Some(queue) = queues.remove(&id) else {
        return 0;
    };
    for consumer in queue.consumers.iter() {
        outgoing.push((
            Arc::clone(&consumer.inbox),
            Event::Cancelled {
                consumer: consumer.id,
            },
        ));
    }
    let definition = &queue.definition;
    if definition.is_stored() {
        fx.del(
            shard.id,
            &rows::object_prefix(definition.slot, Tag::QueueState, id),
        );
    }
    if queue.spilled || (definition.is_stored() && queue.next_seq > 1) {
        sweeps.push(super::sweep::Sweep::new(
            definition,
            0,
            u64::MAX,
            next_log_seq,
        ));
        super::sweep::put_row(fx, definition, 0, u64::MAX);
    }
    shard.budgets.queue.charge(-(queue.ready.bytes() as i64));
    queue.ready.len()
}
