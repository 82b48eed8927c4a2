//! One queue: where it stands, its messages and consumers.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use storage::{Engine, ShardId};

use super::consumer::Consumers;
use super::definition::{Definition, QueueKind};
use super::expiry::Expiry;
use super::lane::{Lane, priority_of};
use super::limits::Overflow;
use super::ready::Entry;
use super::row;
use super::seen::Seen;
use super::turn::Credit;
use crate::{Effects, Millis};

/// One queue's messages and consumers.
#[derive(Debug)]
pub struct Queue {
    pub definition: Arc<Definition>,
    /// Messages without a priority, or with priority 0: all, in most queues.
    lowest: Lane,
    /// Lanes of higher priorities that were ever used, the highest first.
    higher: Vec<Lane>,
    /// The higher lanes are of dead letters, not of priorities.
    parks: bool,
    pub(super) unacked: u64,
    pub(super) consumers: Consumers,
    /// Has had a consumer: an auto-delete queue goes with its last one, not before its first.
    pub(super) was_consumed: bool,
    /// A transient queue that has rows since messages were paged out.
    pub(super) spilled: bool,
    /// The deadline under which it stands in `deadlines`; 0 = none.
    pub(super) armed: u64,
    /// When a client last did something with it.
    pub(super) last_used: Millis,
    /// Of a queue that takes nothing twice.
    pub(super) seen: Option<Box<Seen>>,
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
            parks: definition.limits.keeps_dead(),
            seen: definition.limits.once.map(|_| Box::default()),
            definition,
            lowest: Lane::new(0),
            higher: Vec::new(),
            unacked: 0,
            consumers: Consumers::default(),
            was_consumed: false,
            spilled: false,
            armed: 0,
            last_used: Millis(0),
        }
    }

    /// As the state rows say it was; the messages are in the tables.
    pub(super) fn load(
        definition: Arc<Definition>,
        engine: &Engine,
    ) -> Result<Self, storage::Error> {
        let mut queue = Self::new(definition);
        for lane in Lane::load(&queue.definition, engine)? {
            if lane.priority == 0 {
                queue.lowest = lane;
            } else {
                queue.higher.insert(0, lane);
            }
        }
        if let Some(seen) = &mut queue.seen {
            **seen = Seen::load(&queue.definition, engine)?;
        }
        if queue.definition.kind == QueueKind::Quorum {
            // Its other lanes hold what is not delivered.
            let attempts = &mut queue.lowest.attempts;
            row::each_attempts(engine, &queue.definition, &mut |seq, count| {
                attempts.insert(seq, count);
            })?;
        }
        Ok(queue)
    }

    /// Its lanes, the highest priority first.
    pub(super) fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.higher.iter().chain([&self.lowest])
    }

    pub(super) fn lanes_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut Lane> {
        self.higher.iter_mut().chain([&mut self.lowest])
    }

    /// Lanes whose messages consumers get: not those of dead letters that wait for a queue.
    #[inline]
    fn ready(&self) -> impl Iterator<Item = &Lane> {
        let higher: &[Lane] = if self.parks { &[] } else { &self.higher };
        higher.iter().chain([&self.lowest])
    }

    #[inline]
    pub(super) fn ready_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        let higher: &mut [Lane] = if self.parks {
            &mut []
        } else {
            &mut self.higher
        };
        higher.iter_mut().chain([&mut self.lowest])
    }

    /// The lanes of dead letters that wait for a queue.
    pub(super) fn parked(&mut self) -> impl Iterator<Item = &mut Lane> {
        let parked: &mut [Lane] = if self.parks {
            &mut self.higher
        } else {
            &mut []
        };
        parked.iter_mut()
    }

    /// The lane of a message that has been here.
    #[inline]
    pub(super) fn lane_of(&mut self, seq: u64) -> Option<&mut Lane> {
        lane_in(&mut self.lowest, &mut self.higher, seq)
    }

    /// The lane for new messages of a priority.
    #[inline]
    pub(super) fn lane_for(&mut self, priority: u8) -> &mut Lane {
        let priority = match self.definition.limits.max_priority {
            None => 0,
            Some(highest) => priority.min(highest),
        };
        self.lane(priority)
    }

    /// The lane of a priority, or of a reason to be dead.
    pub(super) fn lane(&mut self, priority: u8) -> &mut Lane {
        if priority == 0 {
            return &mut self.lowest;
        }
        let at = self.higher.partition_point(|lane| lane.priority > priority);
        if self
            .higher
            .get(at)
            .is_none_or(|lane| lane.priority != priority)
        {
            self.higher.insert(at, Lane::new(priority));
        }
        self.higher.get_mut(at).unwrap_or(&mut self.lowest)
    }

    /// The lane that the next message comes from, or where it would if there were one.
    #[inline]
    pub(super) fn head(&mut self) -> &mut Lane {
        let higher: &mut [Lane] = if self.parks {
            &mut []
        } else {
            &mut self.higher
        };
        let first = higher.iter_mut().find(|lane| !lane.ready.is_empty());
        first.unwrap_or(&mut self.lowest)
    }

    /// Has it ever had a message?
    pub(super) fn is_new(&self) -> bool {
        self.lanes().all(Lane::is_new)
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.ready().all(|lane| lane.ready.is_empty())
    }

    /// Octets that its messages take in memory.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        let seen = self.seen.as_ref().map_or(0, |seen| seen.bytes());
        seen + self.lanes().map(|lane| lane.ready.bytes()).sum::<usize>()
    }

    /// Octets of the bodies of all messages that are ready.
    fn body_bytes(&self) -> u64 {
        self.ready().map(|lane| lane.ready.body_bytes()).sum()
    }

    /// Writes the state rows that must be.
    #[inline]
    pub(super) fn put_state(&mut self, shard: ShardId, fx: &mut Effects) {
        for lane in self.higher.iter_mut().chain([&mut self.lowest]) {
            lane.put_state(&self.definition, shard, fx);
        }
    }

    /// A client holds the message until it says what becomes of it.
    pub(super) fn lend(&mut self, entry: &Entry) {
        self.unacked += 1;
        if let Some(lane) = self.lane_of(entry.seq) {
            lane.lend(entry);
        }
    }

    /// The client has said it, and its consumer has room for another one.
    pub(super) fn release(&mut self, entry: &Entry, credit: Credit) {
        self.unacked = self.unacked.saturating_sub(1);
        if let Some(lane) = self.lane_of(entry.seq) {
            lane.release(entry);
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
            ready: self.ready_count(),
            unacked: self.unacked,
            consumers: self.consumers.len() as u64,
        }
    }

    #[must_use]
    pub fn ready_count(&self) -> u64 {
        self.ready().map(|lane| lane.ready.len()).sum()
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
            .is_some_and(|limit| self.ready_count() + 1 > limit)
            || limits
                .bytes
                .is_some_and(|limit| self.body_bytes() + octets > limit)
    }

    /// Are there more messages than it may have?
    #[inline]
    pub(super) fn overflows(&self) -> bool {
        let limits = &self.definition.limits;
        limits
            .length
            .is_some_and(|limit| self.ready_count() > limit)
            || limits.bytes.is_some_and(|limit| self.body_bytes() > limit)
    }

    /// Makes the message that is next available in memory, if there is one.
    #[inline]
    pub(super) fn read_ahead(
        &mut self,
        shard: ShardId,
        engine: &Engine,
        fx: &mut Effects,
    ) -> Result<(), storage::Error> {
        let higher: &mut [Lane] = if self.parks {
            &mut []
        } else {
            &mut self.higher
        };
        for lane in higher.iter_mut().chain([&mut self.lowest]) {
            lane.read_ahead(&self.definition, shard, engine, fx)?;
            if !lane.ready.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// The message will never be delivered again.
    #[inline]
    pub(super) fn forget(
        &mut self,
        shard: ShardId,
        entry: &Entry,
        expiry: &mut Expiry,
        fx: &mut Effects,
    ) {
        if let Some(lane) = lane_in(&mut self.lowest, &mut self.higher, entry.seq) {
            lane.forget(&self.definition, shard, entry, expiry, fx);
        }
        if let Some(seen) = &mut self.seen
            && self
                .definition
                .limits
                .once
                .is_some_and(|once| once.ttl_ms.is_none())
        {
            seen.forget(entry.seq, &self.definition, shard, fx);
        }
    }

    /// Has the clock look at the queue when its oldest message expires.
    pub(super) fn arm(&mut self, deadlines: &mut BinaryHeap<Reverse<(u64, u64)>>) {
        // Of what must be read first it is not known: that is due at once.
        let due = self
            .ready()
            .filter(|lane| lane.timed && !lane.ready.is_empty())
            .map(|lane| {
                let head = lane.ready.peek().map(|entry| entry.message.deadline_ms());
                head.or_else(|| lane.ready.paged_deadline()).unwrap_or(1)
            })
            .filter(|due| *due != 0)
            .min();
        if let Some(due) = due
            && (self.armed == 0 || due < self.armed)
        {
            self.armed = due;
            deadlines.push(Reverse((due, self.definition.id)));
        }
    }
}

#[inline]
fn lane_in<'a>(lowest: &'a mut Lane, higher: &'a mut [Lane], seq: u64) -> Option<&'a mut Lane> {
    match priority_of(seq) {
        0 => Some(lowest),
        priority => higher.iter_mut().find(|lane| lane.priority == priority),
    }
}
