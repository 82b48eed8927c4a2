//! The queues of one shard, and what they share.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use hashbrown::HashMap;
use storage::Lsn;

use super::consumer::{Consumer, Event, Inbox};
use super::dead_letter::Dead;
use super::definition::Definition;
use super::delay::Delays;
use super::expiry::Expiry;
use super::message::Message;
use super::ready::{Entry, PENDING};
use super::state::{Counts, Queue};
use super::sweep::{self, Sweep};
use super::turn::{EXPIRE_OCTETS, on_queue};
use crate::{Effects, Millis, Shard};

/// The queues of one shard.
#[derive(Debug, Default)]
pub struct Space {
    pub(super) queues: HashMap<u64, Queue, foldhash::fast::RandomState>,
    /// Given a row in the record being made: (queue, seq).
    pub(super) unsettled: Vec<(u64, u64)>,
    /// On its way to consumers when the record is appended.
    pub(super) outgoing: Vec<(Arc<Inbox>, Event)>,
    pub(super) sweeps: Vec<Sweep>,
    /// Dropped and not yet passed on, see [`super::dead_letter`].
    pub(super) dead: Vec<Dead>,
    /// When a queue's oldest message expires: (milliseconds since 1970, queue).
    pub(super) deadlines: BinaryHeap<Reverse<(u64, u64)>>,
    /// Queues that go when nobody uses them.
    expiring: Vec<u64>,
    pub(super) delays: Delays,
    pub(super) expiry: Expiry,
    /// Queues with dead letters that wait for a queue to go to.
    parking: Vec<u64>,
    /// When they were last looked at.
    parking_seen: Millis,
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
        if queue.parked().next().is_some() {
            self.parking.push(queue.definition.id);
        }
        queue.arm(&mut self.deadlines);
        self.queues.insert(queue.definition.id, queue);
    }

    /// All of them, in no order.
    pub fn queues(&self) -> impl Iterator<Item = &Queue> {
        self.queues.values()
    }

    /// The record is appended and lies from `start` to `lsn`: what it gave a row gets its position, and deliveries go out.
    #[inline]
    pub(crate) fn committed(&mut self, start: Lsn, lsn: Lsn, folded: impl Fn() -> Lsn) {
        self.delays.committed(start, lsn, &folded);
        self.expiry.committed(lsn, &folded);
        if self.unsettled.is_empty() && self.outgoing.is_empty() {
            return;
        }
        for (id, seq) in self.unsettled.drain(..) {
            let queue = self.queues.get_mut(&id);
            let Some(lane) = queue.and_then(|queue| queue.lane_of(seq)) else {
                continue;
            };
            lane.committed(lsn);
            if let Some(entry) = lane.ready.recent(seq) {
                settle(entry, start, lsn);
            }
        }
        for run in self
            .outgoing
            .chunk_by_mut(|(one, _), (next, _)| Arc::ptr_eq(one, next))
        {
            let mut octets = 0;
            for (_, event) in run.iter_mut() {
                if let Event::Delivered(delivery) = event {
                    settle(&mut delivery.entry, start, lsn);
                    octets += delivery.entry.message.weight();
                }
            }
            if let Some((inbox, _)) = run.first() {
                inbox.announce(octets);
            }
        }
        let mut outgoing = self.outgoing.drain(..).peekable();
        while let Some((inbox, event)) = outgoing.next() {
            let same = std::iter::from_fn(|| {
                outgoing
                    .next_if(|(next, _)| Arc::ptr_eq(next, &inbox))
                    .map(|(_, event)| event)
            });
            inbox.put(std::iter::once(event).chain(same));
        }
        drop(outgoing);
        if self.unsettled.capacity() > 4096 {
            self.unsettled = Vec::new();
        }
        if self.outgoing.capacity() > 4096 {
            self.outgoing = Vec::new();
        }
    }
}

fn settle(entry: &mut Entry, start: Lsn, lsn: Lsn) {
    if entry.lsn == PENDING {
        entry.lsn = lsn;
        let size = u32::try_from(lsn.0 - start.0).unwrap_or(u32::MAX);
        entry.tail = size.saturating_sub(entry.tail);
    }
}

/// A dead letter that finds no queue waits for one, in the queue that it died in.
pub(super) fn park(shard: &mut Shard, dead: &Dead, now: Millis, fx: &mut Effects) {
    let id = dead.queue.id;
    if on_queue(shard, id, now, fx, |turn| turn.park(dead)).is_some()
        && !shard.queues.parking.contains(&id)
    {
        shard.queues.parking.push(id);
    }
}

/// Milliseconds between two looks at dead letters that wait, and how many of a queue, of each reason, are looked at in one.
const PARKING_EVERY_MS: u64 = 1000;
const PARKING_STEP: usize = 256;

/// Takes dead letters that wait and may go now. Call `Locked::commit` afterwards.
pub(super) fn unpark(
    shard: &mut Shard,
    epoch: u64,
    now: Millis,
    fx: &mut Effects,
    may_go: &dyn Fn(&Definition, &Message) -> bool,
) {
    let space = &mut shard.queues;
    if space.parking.is_empty() || now.0.saturating_sub(space.parking_seen.0) < PARKING_EVERY_MS {
        return;
    }
    let mut parking = std::mem::take(&mut space.parking);
    let mut done = true;
    parking.retain(|id| {
        let left = on_queue(shard, *id, now, fx, |turn| {
            let definition = Arc::clone(&turn.queue.definition);
            let may_go = |message: &Message| may_go(&definition, message);
            done &= !turn.unpark(PARKING_STEP, epoch, &may_go);
            turn.queue.parked().any(|lane| !lane.ready.is_empty())
        });
        left.unwrap_or(false)
    });
    shard.queues.parking.append(&mut parking);
    // While some go, or definitions have changed, the next ones are looked at as soon as these have gone.
    if done {
        shard.queues.parking_seen = now;
    }
}

/// A message that was passed on leaves the queue for good.
pub(super) fn forget(shard: &mut Shard, id: u64, entry: &Entry, now: Millis, fx: &mut Effects) {
    // Seq 0 was never in the queue.
    if entry.seq != 0 {
        on_queue(shard, id, now, fx, |turn| turn.forget(entry));
    }
}

/// Drops what has expired, in at most so many queues; `true`: there may be more. Call `Locked::commit` afterwards.
pub(super) fn expire_due(shard: &mut Shard, limit: usize, now: Millis, fx: &mut Effects) -> bool {
    let mut octets = expire_late(shard, now, fx);
    for _ in 0..limit {
        if octets >= EXPIRE_OCTETS {
            return true;
        }
        let deadlines = &mut shard.queues.deadlines;
        let due = deadlines.peek().copied();
        let Some(Reverse((_, id))) = due.filter(|Reverse((due, _))| *due <= now.0) else {
            return false;
        };
        deadlines.pop();
        let over = on_queue(shard, id, now, fx, |turn| {
            turn.queue.armed = 0;
            let over = turn.expire();
            // Who did not get what stood behind too many of these gets it now.
            turn.dispatch();
            over
        });
        octets += over.unwrap_or(0);
    }
    true
}

/// Drops what has expired behind others; gives how many octets that were, or as if they were the most there may be when there
/// is more to look at.
fn expire_late(shard: &mut Shard, now: Millis, fx: &mut Effects) -> usize {
    /// Looked for before their octets are known, and how often: what clients have costs time, too, and has no octets here.
    const STEP: usize = 32;
    const STEPS: usize = 128;
    let mut octets = 0;
    for _ in 0..STEPS {
        let (id, engine) = (shard.id, &shard.engine);
        let keys = match shard.queues.expiry.take(id, engine, now, STEP) {
            Ok(keys) => keys,
            Err(error) => {
                engine.fail("read what has expired", &error);
                return octets;
            }
        };
        if keys.is_empty() {
            return octets;
        }
        for (_, queue, seq) in keys {
            let over = on_queue(shard, queue, now, fx, |turn| turn.expire_late(seq));
            octets += over.unwrap_or(0);
        }
        if octets >= EXPIRE_OCTETS {
            return octets;
        }
    }
    octets.max(EXPIRE_OCTETS)
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

/// What a queue holds now; `None`: it is gone. Of a stream, the records that readers see.
pub(super) fn counts(shard: &mut Shard, id: u64) -> Option<Counts> {
    let queue = shard.queues.queues.get(&id)?;
    let mut counts = queue.counts();
    if let Some(at) = queue.definition.partition {
        // Tables that cannot be read are told of by whoever needs them.
        let bounds = crate::stream::bounds_in(shard, at).ok()??;
        counts.ready = bounds.high_watermark - bounds.start;
    }
    Some(counts)
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
    let not_alone = !queue.consumers.is_empty() || queue.definition.limits.single_active;
    if queue.consumers.has_exclusive() || (consumer.exclusive && not_alone) {
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
    if let Some(seen) = &queue.seen {
        seen.del_rows(definition, shard.id, fx);
    }
    if definition.is_stored() {
        for lane in queue.lanes() {
            lane.del_state(definition, shard.id, fx);
        }
    }
    if queue.spilled || (definition.is_stored() && !queue.is_new()) {
        sweeps.push(Sweep::new(definition, 0, u64::MAX, next_log_seq));
        sweep::put_row(fx, definition, 0, u64::MAX);
    }
    shard.budgets.queue.charge(-(queue.bytes() as i64));
    queue.ready_count()
}
