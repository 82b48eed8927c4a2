//! What one record does to one queue: publish into it, take from it, settle what was taken.
//!
//! Whatever is handed to a consumer is kept in `outgoing` until the record is appended, because a delivery carries the
//! position it has to wait for.

use std::sync::Arc;

use smallvec::SmallVec;
use storage::{Engine, ShardId};

use super::consumer::{Delivery, Event, Inbox, QueueRef};
use super::dead_letter::{self, Dead, Reason};
use super::definition::{Definition, QueueKind};
use super::expiry::Expiry;
use super::lane::priority_of;
use super::limits::Overflow;
use super::message::Message;
use super::ready::Entry;
use super::seen::Once;
use super::space::Space;
use super::state::Queue;
use super::{row, sweep};
use crate::{Budget, Effects, Millis, Shard};

/// Of the budget, what stays in memory of the newest messages of each queue however little room there is.
const KEEP_FRACTION: u64 = 256;

/// Octets that leave memory at once, under the lock.
const PAGE_OUT_MAX: usize = 1 << 20;

/// Octets of messages that expire in one record.
pub(super) const EXPIRE_OCTETS: usize = if cfg!(test) { 8 << 10 } else { 1 << 20 };

/// Credit that messages give back: the connection's consumer they were delivered to; `None` for `basic.get`.
pub type Credit = Option<(u64, u64)>;

/// What a client says about a message it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Acknowledged: it is done with.
    Done,
    /// It goes back where it was.
    Requeue,
    /// The client does not want it: it is passed on, or done with.
    Reject,
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

/// One queue, and what else its changes touch.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    shard: ShardId,
    engine: &'a Engine,
    budget: &'a Budget,
    pub(super) queue: &'a mut Queue,
    unsettled: &'a mut Vec<(u64, u64)>,
    outgoing: &'a mut Vec<(Arc<Inbox>, Event)>,
    dead: &'a mut Vec<Dead>,
    sweeps: &'a mut Vec<sweep::Sweep>,
    expiry: &'a mut Expiry,
    /// Octets of messages that may still expire in this record.
    may_expire: usize,
    now: Millis,
    fx: &'a mut Effects,
}

/// Acts on a queue and keeps the books: state row, budget, deadline. `None`: it is gone. Call `Locked::commit` afterwards,
/// also without effects.
#[inline]
pub(super) fn on_queue<R>(
    shard: &mut Shard,
    id: u64,
    now: Millis,
    fx: &mut Effects,
    act: impl FnOnce(&mut Turn<'_>) -> R,
) -> Option<R> {
    let Shard {
        id: shard_id,
        engine,
        budgets,
        queues,
        ..
    } = shard;
    let Space {
        queues,
        unsettled,
        outgoing,
        sweeps,
        dead,
        deadlines,
        expiry,
        ..
    } = queues;
    let queue = queues.get_mut(&id)?;
    let before = queue.bytes();
    let mut turn = Turn {
        shard: *shard_id,
        engine,
        budget: &budgets.queue,
        queue,
        unsettled,
        outgoing,
        dead,
        sweeps,
        expiry,
        may_expire: EXPIRE_OCTETS,
        now,
        fx,
    };
    let result = act(&mut turn);
    let Turn { queue, fx, .. } = turn;
    queue.put_state(*shard_id, fx);
    queue.arm(deadlines);
    budgets.queue.charge(queue.bytes() as i64 - before as i64);
    Some(result)
}

impl Turn<'_> {
    /// As [`Turn::push`], unless the queue takes nothing twice and knows the message by its identity.
    #[inline]
    pub(super) fn push_once(&mut self, message: Message, identity: Option<u128>) -> Pushed {
        match (identity, self.queue.definition.limits.once) {
            (Some(identity), Some(once)) => self.push_known(message, identity, once),
            _ => self.push(message),
        }
    }

    fn push_known(&mut self, message: Message, identity: u128, once: Once) -> Pushed {
        let definition = Arc::clone(&self.queue.definition);
        let stored = message.is_persistent() && definition.is_stored();
        let seq = self.queue.lane_for(message.priority()).next_seq;
        let refuses = self.queue.refuses(message.body().len() as u64);
        let Some(seen) = &mut self.queue.seen else {
            return self.push(message);
        };
        if seen.has(identity, once, self.now) {
            // Whoever confirms it waits for the one that was taken.
            return Pushed {
                logged: stored,
                ..Pushed::default()
            };
        }
        if refuses {
            return self.push(message);
        }
        // Before the message, which may leave the queue at once.
        let (times, place) = ((once, self.now), (&*definition, self.shard));
        seen.note((identity, seq), stored, times, place, self.fx);
        self.push(message)
    }

    /// Puts a message into the queue, or straight into a waiting consumer's hands.
    pub(super) fn push(&mut self, mut message: Message) -> Pushed {
        let limits = &self.queue.definition.limits;
        if let Some(ttl) = limits.message_ttl_ms {
            message.expire_at(Millis(self.now.0.saturating_add(ttl)));
        }
        let taker = if self.queue.is_empty() {
            let taker = self.queue.consumers.next(limits.single_active);
            taker.map(|consumer| (consumer.id, consumer.no_ack, Arc::clone(&consumer.inbox)))
        } else {
            None
        };
        if taker.is_none() && self.queue.refuses(message.body().len() as u64) {
            return self.refuse(message);
        }
        let stored = self.queue.definition.is_stored();
        let none_is_out = self.queue.unacked == 0;
        let lane = self.queue.lane_for(message.priority());
        lane.enter(&mut message, none_is_out && lane.ready.is_empty());
        let durable = message.is_persistent() && stored;
        let mut entry = Entry::new(lane.next_seq, message);
        lane.next_seq += 1;
        let gone = matches!(taker, Some((_, true, _)));
        if durable && !gone {
            lane.stored += 1;
            lane.dirty = true;
        }
        if (durable && !gone) || (entry.message.is_late() && taker.is_none()) {
            self.put_row(&mut entry);
        }
        let mut pushed = Pushed {
            logged: entry.logged && durable,
            ..Pushed::default()
        };
        if let Some((consumer, no_ack, inbox)) = taker {
            self.hand_over(entry, consumer, no_ack, inbox);
            return pushed;
        }
        if entry.logged {
            let id = self.queue.definition.id;
            self.unsettled.push((id, entry.seq));
        }
        let weight = entry.message.weight();
        if let Some(lane) = self.queue.lane_of(entry.seq) {
            lane.ready.push(entry);
        }
        while self.queue.overflows() && self.read_ahead() {
            let Some(entry) = self.queue.head().ready.pop() else {
                break;
            };
            self.discard(entry, Reason::MaxLength);
            pushed.dead = true;
        }
        let excess = usize::try_from(self.budget.excess()).unwrap_or(usize::MAX);
        if excess > 0 && self.fx.size() < super::RECORD_MAX {
            // Twice what came in: memory shrinks under a steady stream.
            self.page_out(excess.min(PAGE_OUT_MAX).max(weight.saturating_mul(2)));
        }
        pushed
    }

    /// The message has a row from this record on, and one that says when it expires if it stands behind others.
    fn put_row(&mut self, entry: &mut Entry) {
        let definition = Arc::clone(&self.queue.definition);
        row::put(self.fx, self.shard, &definition, entry);
        if entry.message.is_late() {
            let key = (entry.message.deadline_ms(), definition.id, entry.seq);
            self.expiry.put(self.shard, key, self.fx);
            if let Some(lane) = self.queue.lane_of(entry.seq) {
                lane.dirty = true;
            }
            self.spilled();
        }
    }

    /// The queue has rows, also if it does not outlive the server.
    fn spilled(&mut self) {
        let definition = &self.queue.definition;
        if !self.queue.spilled && !definition.is_stored() {
            self.queue.spilled = true;
            sweep::put_row(self.fx, definition, 0, u64::MAX);
        }
    }

    fn refuse(&mut self, message: Message) -> Pushed {
        let limits = &self.queue.definition.limits;
        let dead = limits.overflow == Overflow::RejectDeadLetter && limits.dead_letter.is_some();
        if dead {
            let refused = dead_letter::refused(&self.queue.definition, message);
            self.dead.push(refused);
        }
        Pushed {
            refused: true,
            dead,
            ..Pushed::default()
        }
    }

    /// Gives messages to consumers as long as there are both.
    pub(super) fn dispatch(&mut self) {
        let single = self.queue.definition.limits.single_active;
        while self.find() {
            let Some(consumer) = self.queue.consumers.next(single) else {
                break;
            };
            let (consumer, no_ack, inbox) =
                (consumer.id, consumer.no_ack, Arc::clone(&consumer.inbox));
            let Some(entry) = self.queue.head().ready.pop() else {
                break;
            };
            self.hand_over(entry, consumer, no_ack, inbox);
        }
    }

    /// Takes the oldest message (`basic.get`) and how many are left.
    pub(super) fn take(&mut self, no_ack: bool) -> Option<(Entry, u64)> {
        self.queue.last_used = self.now;
        if !self.find() {
            return None;
        }
        let mut entry = self.queue.head().ready.pop()?;
        self.taken(&mut entry, no_ack);
        Some((entry, self.queue.ready_count()))
    }

    /// The client has decided about a message it had.
    pub(super) fn settle(&mut self, entry: Entry, credit: Credit, verdict: Verdict) {
        self.queue.release(&entry, credit);
        match verdict {
            Verdict::Done => self.forget(&entry),
            Verdict::Requeue => self.give_back(entry),
            Verdict::Reject => self.discard(entry, Reason::Rejected),
        }
    }

    /// The message goes back where it was; a quorum queue counts that, and may have had enough of it.
    fn give_back(&mut self, mut entry: Entry) {
        entry.redelivered = true;
        let definition = &self.queue.definition;
        if definition.kind == QueueKind::Quorum {
            entry.attempts = entry.attempts.saturating_add(1);
            let limit = definition.limits.delivery_limit.unwrap_or(u64::MAX);
            if u64::from(entry.attempts) > limit {
                self.discard(entry, Reason::DeliveryLimit);
                return;
            }
            if entry.logged {
                row::put_attempts(self.fx, self.shard, definition, &entry);
            }
        }
        if entry.message.is_over(self.now) {
            self.discard(entry, Reason::Expired);
            return;
        }
        if entry.message.is_late() && !entry.logged {
            self.put_row(&mut entry);
        }
        if let Some(lane) = self.queue.lane_of(entry.seq) {
            lane.ready.put_back(entry);
        }
    }

    /// The message will never be delivered again.
    pub(super) fn forget(&mut self, entry: &Entry) {
        self.queue.forget(self.shard, entry, self.expiry, self.fx);
    }

    /// Makes the next message available in memory and drops those before it that have expired. `false`: there is none, or too
    /// many have expired for one record ([`Turn::is_behind`]).
    fn find(&mut self) -> bool {
        let now = self.now;
        while self.read_ahead() {
            let head = self.queue.head();
            match head.ready.peek() {
                Some(entry) if !entry.message.is_over(now) => return true,
                Some(_) if self.may_expire > 0 => {
                    if let Some(entry) = head.ready.pop() {
                        self.drop_over(entry);
                    }
                }
                _ => break,
            }
        }
        false
    }

    /// Have so many messages expired that the rest must wait for another record?
    pub(super) fn is_behind(&self) -> bool {
        self.may_expire == 0
    }

    /// Drops what has expired at the head of each lane; gives how many octets that were.
    pub(super) fn expire(&mut self) -> usize {
        let before = self.may_expire;
        let definition = Arc::clone(&self.queue.definition);
        let (shard, engine, now) = (self.shard, self.engine, self.now);
        let mut left = before;
        let mut over = Vec::new();
        for lane in self.queue.ready_mut().filter(|lane| lane.timed) {
            match lane.take_over(&definition, shard, engine, now, left, self.fx) {
                Ok(taken) => over.extend(taken),
                Err(error) => engine.fail("read a queue", &error),
            }
            let octets: usize = over.iter().map(|entry| entry.message.weight()).sum();
            left = before.saturating_sub(octets);
            if left == 0 {
                break;
            }
        }
        for entry in over {
            self.drop_over(entry);
        }
        before - self.may_expire
    }

    /// Drops a message that has expired behind others, unless a client has it or it is done with; gives its octets.
    pub(super) fn expire_late(&mut self, seq: u64) -> usize {
        let definition = Arc::clone(&self.queue.definition);
        let Some(lane) = self.queue.lane_of(seq) else {
            return 0;
        };
        match lane.remove(&definition, self.shard, self.engine, seq, self.fx) {
            Ok(None) => 0,
            Ok(Some(entry)) => {
                let octets = entry.message.weight();
                self.drop_over(entry);
                octets
            }
            Err(error) => {
                self.engine.fail("read a queue", &error);
                0
            }
        }
    }

    fn drop_over(&mut self, entry: Entry) {
        self.may_expire = self.may_expire.saturating_sub(entry.message.weight());
        self.discard(entry, Reason::Expired);
    }

    /// Drops what is ready; what is unacknowledged stays. Gives how many.
    pub(super) fn purge(&mut self) -> u64 {
        let count = self.queue.ready_count();
        let definition = Arc::clone(&self.queue.definition);
        let next_record = self.engine.shard_seq(self.shard) + 1;
        for lane in self.queue.ready_mut() {
            let mut ready = std::mem::take(&mut lane.ready);
            let newest = lane.next_seq;
            let (from, paged, persistent) = ready.clear(|entry| {
                lane.forget(&definition, self.shard, &entry, self.expiry, self.fx);
            });
            if paged > 0 {
                // Behind `from` no message was ever taken, so none there is unacknowledged.
                lane.stored = lane.stored.saturating_sub(persistent);
                lane.done.add_range(from, newest);
                lane.attempts.clear();
                let sweep = sweep::Sweep::new(&definition, from, newest, next_record);
                self.sweeps.push(sweep);
                sweep::put_row(self.fx, &definition, from, newest);
            }
            lane.dirty |= !lane.is_new();
        }
        self.forget_identities(&definition);
        count
    }

    /// A queue that remembers what it has does not have what was purged.
    fn forget_identities(&mut self, definition: &Definition) {
        let as_long_as_there = definition
            .limits
            .once
            .is_some_and(|once| once.ttl_ms.is_none());
        let Some(mut seen) = self.queue.seen.take_if(|_| as_long_as_there) else {
            return;
        };
        let queue = &mut *self.queue;
        let lanes: Vec<_> = queue.lanes().collect();
        let is_gone = |seq: u64| {
            let lane = lanes.iter().find(|lane| lane.priority == priority_of(seq));
            lane.is_none_or(|lane| lane.done.has(seq))
        };
        seen.forget_all(&is_gone, definition, self.shard, self.fx);
        queue.seen = Some(seen);
    }

    /// Makes the oldest message available in memory. `false`: it cannot be read. Then nothing is acknowledged any more
    /// and the node stops, since memory and tables would tell different stories from here on.
    fn read_ahead(&mut self) -> bool {
        let read = self.queue.read_ahead(self.shard, self.engine, self.fx);
        match read {
            Ok(()) => true,
            Err(error) => {
                self.engine.fail("read a queue", &error);
                false
            }
        }
    }

    fn hand_over(&mut self, mut entry: Entry, consumer: u64, no_ack: bool, inbox: Arc<Inbox>) {
        self.taken(&mut entry, no_ack);
        let origin = (!no_ack).then_some(QueueRef {
            shard: self.shard,
            id: self.queue.definition.id,
        });
        let delivery = Delivery {
            consumer,
            origin,
            entry,
        };
        self.outgoing.push((inbox, Event::Delivered(delivery)));
    }

    /// The message leaves the queue for a client.
    fn taken(&mut self, entry: &mut Entry, no_ack: bool) {
        if entry.logged
            && let Some(lane) = self.queue.lane_of(entry.seq)
            && lane.mark_past(entry)
        {
            let id = self.queue.definition.id;
            self.unsettled.push((id, entry.seq));
        }
        if no_ack {
            self.forget(entry);
        } else {
            self.queue.lend(entry);
        }
    }

    /// The message leaves the queue for `reason`: it is passed on, or forgotten.
    fn discard(&mut self, entry: Entry, reason: Reason) {
        if self.queue.definition.limits.dead_letter.is_some() {
            self.dead.push(Dead {
                queue: Arc::clone(&self.queue.definition),
                entry,
                reason,
            });
        } else {
            self.forget(&entry);
        }
    }

    /// A dead letter that finds no queue waits for one.
    pub(super) fn park(&mut self, dead: &Dead) {
        let lane = self.queue.lane(dead.reason.lane());
        let mut entry = Entry::new(lane.next_seq, dead.entry.message.clone());
        entry.message.set_late(false);
        lane.next_seq += 1;
        if entry.message.is_persistent() {
            lane.stored += 1;
            lane.dirty = true;
            row::put(self.fx, self.shard, &dead.queue, &mut entry);
            self.unsettled.push((dead.queue.id, entry.seq));
        }
        if let Some(lane) = self.queue.lane_of(entry.seq) {
            lane.ready.push(entry);
        }
        if dead.entry.seq != 0 {
            self.forget(&dead.entry);
        }
        let excess = usize::try_from(self.budget.excess()).unwrap_or(usize::MAX);
        if excess > 0 {
            self.page_out(excess.min(PAGE_OUT_MAX));
        }
    }

    /// Looks at about so many dead letters that wait, of each reason, and takes those that `may_go`: they are passed on.
    /// `true`: there is more to do at once.
    pub(super) fn unpark(
        &mut self,
        limit: usize,
        epoch: u64,
        may_go: &dyn Fn(&Message) -> bool,
    ) -> bool {
        let definition = Arc::clone(&self.queue.definition);
        let (shard, engine) = (self.shard, self.engine);
        let mut more = false;
        for lane in self.queue.parked() {
            let Some(reason) = Reason::of_lane(lane.priority) else {
                continue;
            };
            match lane.pick(&definition, shard, engine, (limit, epoch), may_go, self.fx) {
                Ok((taken, is_whole)) => {
                    more |= !is_whole || !taken.is_empty();
                    self.dead.extend(taken.into_iter().map(|entry| Dead {
                        queue: Arc::clone(&definition),
                        entry,
                        reason,
                    }));
                }
                Err(error) => {
                    engine.fail("read a queue", &error);
                    break;
                }
            }
        }
        more
    }

    /// Messages of the middle leave memory.
    fn page_out(&mut self, goal: usize) {
        let (shard, definition) = (self.shard, Arc::clone(&self.queue.definition));
        let mut left = usize::try_from(self.budget.limit() / KEEP_FRACTION).unwrap_or(usize::MAX);
        // The most important lanes keep first what a queue may.
        let keeps = self.queue.lanes().map(|lane| {
            let keep = left;
            left = left.saturating_sub(lane.ready.bytes());
            keep
        });
        let keeps: SmallVec<[usize; 2]> = keeps.collect();
        let (mut freed, mut any) = (0, false);
        for (lane, keep) in self.queue.lanes_mut().rev().zip(keeps.into_iter().rev()) {
            let mut spilled = false;
            freed += lane.ready.page_out(
                self.engine.written(),
                self.engine.folded(),
                keep,
                goal.saturating_sub(freed),
                &mut |entry| {
                    spilled = true;
                    row::put(self.fx, shard, &definition, entry);
                    self.unsettled.push((definition.id, entry.seq));
                },
            );
            // Where the sequence stands must be known to the next start, or a place would be given again that has a row.
            lane.dirty |= spilled;
            any |= spilled;
            if freed >= goal {
                break;
            }
        }
        if any {
            self.spilled();
        }
    }
}
