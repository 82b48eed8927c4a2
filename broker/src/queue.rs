//! Exchanges, bindings, queues and their messages.
//!
//! ```text
//! publish   Routes::route ─▶ lock the target queues' shards ─▶ same epoch? ─▶ deliver ─▶ Locked::commit ─▶ mailboxes
//! consume   subscribe ─▶ every later push or acknowledgement hands messages to consumers with credit, under the lock
//! ```
//! A persistent message in a durable queue is one row; an acknowledgement deletes it. Transient messages have no row
//! unless they must leave memory: a queue keeps its ends there, and its middle in tables and log. Where a queue stands (count, delivered mark, oldest message, next number) is one row
//! that is rewritten with every record and costs nothing in the tables, where only the last one arrives.

mod catalog;
mod consumer;
mod dead_letter;
mod definition;
pub mod delay;
mod done;
pub mod events;
mod exchange;
mod expiry;
mod headers;
mod history;
mod lane;
pub(crate) mod law;
mod limits;
mod message;
mod paged;
mod ready;
mod routes;
mod row;
mod seen;
mod space;
mod spread;
mod state;
mod sweep;
mod topic;
mod turn;

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use storage::Lsn;

use crate::{Broker, Effects, Locked, Millis, Shard, ShardId, ShardSet, stream_queue};
use turn::on_queue;

pub use catalog::{
    BindError, Catalog, Declare, DeleteError, bind, declare_exchange, declare_queue,
    delete_exchange, delete_queue, locks_of, shards_of, unbind,
};
pub(crate) use catalog::{insert, remove};
pub use consumer::{Consumer, Delivery, Event, Inbox, QueueRef, Window};
pub use dead_letter::{Reader, Reason, Stamped};
pub use definition::{Definition, QueueKind};
pub use exchange::{Binding, Destination, ExchangeDefinition, ExchangeKind, HashOn};
pub use headers::{HeaderMatch, Headers, NoHeaders, Property};
pub use limits::{DeadLetter, Limits, Overflow};
pub use message::Message;
pub use ready::Entry;
pub use routes::{Route, RouteError, Routes, TRACE};
pub use seen::Once;
pub use space::{ConsumeError, Space};
pub use state::{Counts, Queue};
pub use sweep::sweep;
pub use turn::{Credit, Verdict};

/// What became of a published message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Queues it is in.
    pub queues: u32,
    /// It was written: a confirm waits for the record.
    pub logged: bool,
    /// One of the queues always waits for the disk.
    pub quorum: bool,
    /// A queue was full and refused it.
    pub refused: bool,
    /// Something was dropped that goes to a dead-letter exchange; [`expire`] takes it there.
    pub dead: bool,
}

impl Delivered {
    fn add(&mut self, queue: &Definition, pushed: turn::Pushed) {
        self.queues += 1;
        self.logged |= pushed.logged;
        self.quorum |= pushed.logged && queue.kind == QueueKind::Quorum;
        self.refused |= pushed.refused;
        self.dead |= pushed.dead;
    }

    /// A stream has taken it, or not.
    pub(crate) fn appended(&mut self, taken: bool) {
        self.queues += 1;
        self.logged |= taken;
        self.refused |= !taken;
    }
}

/// Octets of effects at which what need not be one record goes on in another, and nothing leaves memory with it: a record is
/// smaller than 4 GiB.
const RECORD_MAX: usize = if cfg!(test) { 1 << 20 } else { 1 << 30 };

/// Octets by which a record grows, about and at most, when the message goes there: each queue has a row of its own.
pub fn octets(route: &Route, message: &Message) -> usize {
    /// Of a row, besides the message.
    const ROW: usize = 256;
    (message.row_len() as usize + ROW).saturating_mul(route.queues.len().max(1))
}

/// Puts a message into the queues of a route that was resolved under the epoch that still stands. Locks: `route.shards`;
/// the caller commits, and has looked at [`octets`].
pub fn deliver(
    locked: &mut Locked<'_>,
    route: &Route,
    message: Message,
    now: Millis,
    fx: &mut Effects,
) -> Delivered {
    deliver_within(locked, route, message, usize::MAX, true, now, fx)
}

/// As [`deliver`], to any number of queues: before `fx` is too large it is committed.
pub fn deliver_apart(
    locked: &mut Locked<'_>,
    route: &Route,
    message: Message,
    now: Millis,
    fx: &mut Effects,
) -> Delivered {
    deliver_within(locked, route, message, RECORD_MAX, true, now, fx)
}

/// As [`deliver_apart`] of what was published before: queues that take nothing twice take it.
fn deliver_again(
    locked: &mut Locked<'_>,
    route: &Route,
    message: Message,
    now: Millis,
    fx: &mut Effects,
) -> Delivered {
    deliver_within(locked, route, message, RECORD_MAX, false, now, fx)
}

fn deliver_within(
    locked: &mut Locked<'_>,
    route: &Route,
    message: Message,
    record_max: usize,
    is_new: bool,
    now: Millis,
    fx: &mut Effects,
) -> Delivered {
    let mut delivered = Delivered::default();
    route.keep(&message);
    for stream in route.streams() {
        if fx.size() >= record_max {
            locked.commit(now, fx);
        }
        let told = std::slice::from_mut(&mut delivered);
        stream_queue::append(
            locked,
            stream,
            std::slice::from_ref(&message),
            told,
            now,
            fx,
        );
    }
    let mut queues = route.plain().peekable();
    let mut put = |queue: &Definition, message: Message| {
        if fx.size() >= record_max {
            locked.commit(now, fx);
        }
        let identity = locked.broker().routes.identity(queue, &message);
        let identity = identity.filter(|_| is_new);
        let shard = locked.shard(queue.shard());
        let pushed = on_queue(shard, queue.id, now, fx, |turn| {
            turn.push_once(message, identity)
        });
        delivered.add(queue, pushed.unwrap_or_default());
    };
    while let Some(queue) = queues.next() {
        if queues.peek().is_none() {
            put(queue, message);
            break;
        }
        put(queue, message.clone());
    }
    delivered
}

/// As [`deliver_apart`] for several messages, which are taken out of `messages`; `told` gets what became of each.
fn deliver_all(
    locked: &mut Locked<'_>,
    route: &Route,
    messages: &mut Vec<Message>,
    told: &mut Vec<Delivered>,
    now: Millis,
    fx: &mut Effects,
) {
    told.clear();
    told.resize(messages.len(), Delivered::default());
    messages.iter().for_each(|message| route.keep(message));
    for stream in route.streams() {
        if fx.size() >= RECORD_MAX {
            locked.commit(now, fx);
        }
        stream_queue::append(locked, stream, messages, told, now, fx);
    }
    let mut queues = route.plain().peekable();
    let mut put = |queue: &Definition, messages: &mut dyn Iterator<Item = Message>| {
        if fx.size() >= RECORD_MAX {
            locked.commit(now, fx);
        }
        let routes = &locked.broker().routes;
        let shard = locked.shard(queue.shard());
        on_queue(shard, queue.id, now, fx, |turn| {
            for (message, told) in messages.zip(told.iter_mut()) {
                let identity = routes.identity(queue, &message);
                told.add(queue, turn.push_once(message, identity));
            }
        });
    };
    while let Some(queue) = queues.next() {
        if queues.peek().is_none() {
            put(queue, &mut messages.drain(..));
        } else {
            put(queue, &mut messages.iter().cloned());
        }
    }
    messages.clear();
}

/// A queue of the route that is full and would refuse the message. Locks: `route.shards`.
pub fn refusing<'r>(
    locked: &mut Locked<'_>,
    route: &'r Route,
    message: &Message,
) -> Option<&'r Definition> {
    let mut refuses = |queue: &&Arc<Definition>| {
        if queue.partition.is_some() {
            return stream_queue::refuses(locked.broker(), queue, message);
        }
        let state = locked.shard(queue.shard()).queues.get(queue.id);
        state.is_some_and(|state| state.refuses(message.body().len() as u64))
    };
    route
        .queues
        .iter()
        .find(|queue| refuses(queue))
        .map(Arc::as_ref)
}

/// Publishes messages with one exchange and routing key, as one record if it is not too large, and takes them out of `messages`. `told` gets what
/// became of each. `route` is resolved again as often as definitions change meanwhile and stays valid for the next ones.
/// `may` is asked of a route to streams: it takes the right to write to a topic.
///
/// # Errors
/// When clients cannot publish to that exchange, or this one not there; the messages stay.
#[expect(
    clippy::too_many_arguments,
    reason = "what is published, by whom, and where to"
)]
pub fn publish(
    broker: &Broker,
    route: &mut Route,
    messages: &mut Vec<Message>,
    headers: &dyn Headers,
    may: &dyn Fn(&Route) -> bool,
    told: &mut Vec<Delivered>,
    now: Millis,
    fx: &mut Effects,
) -> Result<Lsn, RouteError> {
    told.clear();
    loop {
        let Some(first) = messages.first() else {
            return Ok(Lsn(0));
        };
        if route.has_streams && !may(route) {
            return Err(RouteError::Refused);
        }
        if route.epoch == broker.routes.epoch() {
            if route.queues.is_empty() {
                messages.iter().for_each(|message| route.keep(message));
                told.resize(messages.len(), Delivered::default());
                messages.clear();
                return Ok(Lsn(0));
            }
            let mut locked = broker.lock(route.shards);
            if route.epoch == broker.routes.epoch() {
                deliver_all(&mut locked, route, messages, told, now, fx);
                let lsn = locked.commit(now, fx);
                drop(locked);
                if told.iter().any(|delivered| delivered.dead) {
                    dead_letter::bury(broker, route.shards, now, fx);
                }
                return Ok(lsn);
            }
        }
        *route = broker
            .routes
            .route(first.exchange(), first.routing_key(), headers)?;
    }
}

/// Gives a new binding's destination the last messages of its source, if that keeps them. A queue gets them oldest first;
/// what an exchange passes on comes newest first, as in RabbitMQ. Takes its own locks.
pub fn replay(broker: &Broker, binding: &Binding, now: Millis, fx: &mut Effects) {
    let kept = broker.routes.read(|table| {
        let source = table.exchanges.get(&*binding.source)?;
        source.history().map(|history| history.messages())
    });
    let Some(mut kept) = kept.filter(|kept| !kept.is_empty()) else {
        return;
    };
    if !binding.destination.is_queue() {
        kept.reverse();
    }
    for message in kept {
        loop {
            let route = match &binding.destination {
                Destination::Queue(queue) => Route::to(&broker.routes, queue),
                // Without the exchange there is nobody to tell.
                Destination::Exchange(name) => broker
                    .routes
                    .route_again(name.as_bytes(), &message)
                    .unwrap_or_default(),
            };
            let mut locked = broker.lock(route.shards);
            if route.epoch != 0 && route.epoch != broker.routes.epoch() {
                continue;
            }
            deliver_again(&mut locked, &route, message, now, fx);
            locked.commit(now, fx);
            break;
        }
    }
}

/// Locks the shard of a queue, acts on it and commits.
fn in_record<R>(
    broker: &Broker,
    queue: QueueRef,
    now: Millis,
    fx: &mut Effects,
    act: impl FnOnce(&mut Shard, &mut Effects) -> R,
) -> R {
    let mut locked = broker.lock_one(queue.shard);
    let result = act(locked.shard(queue.shard), fx);
    locked.commit(now, fx);
    result
}

/// Takes the oldest message (`basic.get`), and how many are left. Commits. `None` also when it cannot be read: then the
/// engine has failed.
pub fn take(
    broker: &Broker,
    queue: QueueRef,
    no_ack: bool,
    now: Millis,
    fx: &mut Effects,
) -> Option<(Entry, u64)> {
    loop {
        let mut locked = broker.lock_one(queue.shard);
        let take = |turn: &mut turn::Turn<'_>| (turn.take(no_ack), turn.is_behind());
        let taken = on_queue(locked.shard(queue.shard), queue.id, now, fx, take);
        let (mut taken, is_behind) = taken.unwrap_or_default();
        let lsn = locked.commit(now, fx);
        drop(locked);
        if let Some((entry, _)) = &mut taken {
            entry.lsn = entry.lsn.min(lsn);
        }
        if taken.is_some() || !is_behind {
            return taken;
        }
        dead_letter::bury(broker, ShardSet::of(queue.shard), now, fx);
    }
}

/// The client has decided about messages that it had; credit they gave back is used at once. Commits.
pub fn settle(
    broker: &Broker,
    queue: QueueRef,
    verdict: Verdict,
    entries: impl Iterator<Item = (Entry, Credit)>,
    now: Millis,
    fx: &mut Effects,
) {
    in_record(broker, queue, now, fx, |shard, fx| {
        settle_in(shard, queue, verdict, entries, now, fx)
    });
    if verdict == Verdict::Reject {
        dead_letter::bury(broker, ShardSet::of(queue.shard), now, fx);
    }
}

/// As [`settle`], as part of a larger record; rejected messages are passed on by [`expire`] afterwards. Locks: the queue's
/// shard; the caller commits.
pub fn settle_locked(
    locked: &mut Locked<'_>,
    queue: QueueRef,
    verdict: Verdict,
    entries: impl Iterator<Item = (Entry, Credit)>,
    now: Millis,
    fx: &mut Effects,
) {
    settle_in(locked.shard(queue.shard), queue, verdict, entries, now, fx);
}

fn settle_in(
    shard: &mut Shard,
    queue: QueueRef,
    verdict: Verdict,
    mut entries: impl Iterator<Item = (Entry, Credit)>,
    now: Millis,
    fx: &mut Effects,
) {
    on_queue(shard, queue.id, now, fx, |turn| {
        for (entry, credit) in entries.by_ref() {
            turn.settle(entry, credit, verdict);
        }
        turn.dispatch();
    });
    // The caller takes them for settled, also when the queue is gone: its messages are, too.
    entries.for_each(drop);
}

/// A client declares a queue that exists: it is in use.
pub fn touch(broker: &Broker, queue: QueueRef, now: Millis) {
    space::touch(
        broker.lock_one(queue.shard).shard(queue.shard),
        queue.id,
        now,
    );
}

/// Queues looked at under one lock.
const EXPIRE_STEP: usize = 64;

/// Drops expired messages of a shard, passes on what was dropped, and deletes queues that nobody uses. For a job that
/// runs often: messages expire as late as it comes. `true`: there is more that is due.
pub fn expire(broker: &Broker, shard: ShardId, now: Millis, fx: &mut Effects) -> bool {
    let mut locked = broker.lock_one(shard);
    let more = space::expire_due(locked.shard(shard), EXPIRE_STEP, now, fx);
    let unused = space::unused(&mut locked.shard(shard).queues, now);
    let epoch = broker.routes.epoch();
    space::unpark(locked.shard(shard), epoch, now, fx, &|queue, message| {
        dead_letter::is_routable(broker, queue, message)
    });
    let dead = !locked.shard(shard).queues.dead.is_empty();
    locked.commit(now, fx);
    drop(locked);
    if dead {
        dead_letter::bury(broker, ShardSet::of(shard), now, fx);
    }
    for queue in unused {
        let mut locked = broker.lock(locks_of(&queue));
        // In use again is in use; without conditions on its messages it cannot be refused otherwise.
        let _ = delete_queue(&mut locked, &queue, true, false, now, fx);
        locked.commit(now, fx);
        let notes = locked.take_notes();
        drop(locked);
        events::tell(broker, notes, None, now, fx);
    }
    more
}

/// Adds a consumer. Its first messages come with [`dispatch`], after the client was told.
///
/// # Errors
/// When the queue is gone or in exclusive use.
pub fn subscribe(broker: &Broker, queue: QueueRef, consumer: Consumer) -> Result<(), ConsumeError> {
    let mut locked = broker.lock_one(queue.shard);
    space::add_consumer(locked.shard(queue.shard), queue.id, consumer)
}

/// Removes a consumer. `true`: the queue is auto-delete and has lost its last one; delete it with
/// [`delete_abandoned`].
#[must_use]
pub fn unsubscribe(broker: &Broker, queue: QueueRef, connection: u64, consumer: u64) -> bool {
    let mut locked = broker.lock_one(queue.shard);
    space::remove_consumer(locked.shard(queue.shard), queue.id, connection, consumer)
}

/// Deletes an auto-delete queue unless a consumer has come meanwhile. Commits.
pub fn delete_abandoned(broker: &Broker, queue: &Definition, now: Millis, fx: &mut Effects) {
    let mut locked = broker.lock(locks_of(queue));
    let abandoned = locked
        .shard(queue.shard())
        .queues
        .get(queue.id)
        .is_some_and(Queue::is_abandoned);
    if abandoned {
        // Without conditions it cannot be refused.
        let _ = delete_queue(&mut locked, queue, false, false, now, fx);
        locked.commit(now, fx);
        let notes = locked.take_notes();
        drop(locked);
        events::tell(broker, notes, None, now, fx);
    }
}

/// Gives waiting messages to consumers that have got credit. Commits.
pub fn dispatch(broker: &Broker, queue: QueueRef, now: Millis, fx: &mut Effects) {
    in_record(broker, queue, now, fx, |shard, fx| {
        on_queue(shard, queue.id, now, fx, |turn| turn.dispatch());
    });
}

/// Drops what is ready in a queue and gives how many that were. Commits.
pub fn purge(broker: &Broker, queue: QueueRef, now: Millis, fx: &mut Effects) -> u64 {
    in_record(broker, queue, now, fx, |shard, fx| {
        on_queue(shard, queue.id, now, fx, |turn| turn.purge()).unwrap_or(0)
    })
}

/// What a queue holds now; `None` when it is gone.
pub fn counts(broker: &Broker, queue: QueueRef) -> Option<Counts> {
    let mut locked = broker.lock_one(queue.shard);
    space::counts(locked.shard(queue.shard), queue.id)
}

/// Reads what must be in memory before the first command: where each queue stands, not its messages.
///
/// # Errors
/// When the tables cannot be read.
pub fn load(all: &mut Locked<'_>) -> Result<(), storage::Error> {
    let broker = all.broker();
    let engine = &broker.engine;
    for shard in ShardSet::DATA.iter() {
        all.shard(shard).queues.sweeps = sweep::load(engine, shard)?;
    }
    finish_purges(all)?;
    for definition in broker.routes.queues() {
        let shard = definition.shard();
        let queue = Queue::load(Arc::clone(&definition), engine)?;
        all.shard(shard).queues.insert_queue(queue);
    }
    Ok(())
}

/// A purged stretch of a queue that lives on must be empty before the queue is read.
fn finish_purges(all: &mut Locked<'_>) -> Result<(), storage::Error> {
    let broker = all.broker();
    let alive: Vec<(ShardId, u64)> = broker
        .routes
        .queues()
        .iter()
        .map(|queue| (queue.shard(), queue.id))
        .collect();
    let mut fx = Effects::new();
    let mut any = false;
    for shard in ShardSet::DATA.iter() {
        let sweeps = std::mem::take(&mut all.shard(shard).queues.sweeps);
        let (now_due, later) = sweeps
            .into_iter()
            .partition::<Vec<_>, _>(|sweep| alive.contains(&(shard, sweep.queue)));
        all.shard(shard).queues.sweeps = later;
        for mut sweep in now_due {
            any = true;
            while !sweep.step(shard, &broker.engine, &mut fx)? {
                all.commit(Millis(0), &mut fx);
            }
            all.commit(Millis(0), &mut fx);
        }
    }
    if any {
        broker.engine.fold_now()
    } else {
        Ok(())
    }
}
