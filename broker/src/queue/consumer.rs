//! Consumers: who gets the next message, and how it reaches the connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use crate::{Mailbox, ShardId, Wake};

use super::ready::Entry;

/// Octets of deliveries that may wait for one connection before its consumers are passed over.
const BACKLOG_MAX: usize = 4 << 20;

/// What the broker tells a connection.
#[derive(Debug)]
pub enum Event {
    Delivered(Delivery),
    /// The queue is gone.
    Cancelled {
        consumer: u64,
    },
}

/// A message on its way to a consumer. Whoever holds it acknowledges it or gives it back.
#[derive(Debug)]
pub struct Delivery {
    /// The number that the connection gave its consumer.
    pub consumer: u64,
    /// Where it goes back to; `None` for a consumer without acknowledgements: it is gone from the queue.
    pub origin: Option<QueueRef>,
    pub entry: Entry,
}

/// The way from queues to one connection.
#[derive(Debug)]
pub struct Inbox {
    mailbox: Mailbox<Event>,
    /// Octets in the mailbox.
    backlog: AtomicUsize,
    /// A consumer was passed over for the backlog: its queue must be looked at again.
    starved: AtomicBool,
}

impl Inbox {
    #[must_use]
    pub fn new(wake: Arc<dyn Wake>) -> Arc<Self> {
        Arc::new(Self {
            mailbox: Mailbox::new(wake),
            backlog: AtomicUsize::new(0),
            starved: AtomicBool::new(false),
        })
    }

    /// Takes everything that came. `true`: consumers were passed over meanwhile, look at their queues again
    /// ([`super::dispatch`]).
    pub fn drain(&self, into: &mut Vec<Event>) -> bool {
        self.mailbox.drain(into);
        self.backlog.store(0, Ordering::SeqCst);
        self.starved.swap(false, Ordering::SeqCst)
    }

    /// Deliveries of so many octets are about to be put in. Before them, or a drain in between would leave octets that
    /// nobody takes.
    pub(super) fn announce(&self, octets: usize) {
        self.backlog.fetch_add(octets, Ordering::Relaxed);
    }

    pub(super) fn put(&self, events: impl IntoIterator<Item = Event>) {
        self.mailbox.extend(events);
    }

    fn is_full(&self) -> bool {
        if self.backlog.load(Ordering::Relaxed) <= BACKLOG_MAX {
            return false;
        }
        self.starved.store(true, Ordering::SeqCst);
        // Either we see the drained backlog, or whoever drained it sees the flag.
        self.backlog.load(Ordering::SeqCst) > BACKLOG_MAX
    }
}

/// Unacknowledged messages that a whole channel may have (`basic.qos` with global set). Its consumers' queues may live in
/// different shards, hence the atomics.
#[derive(Debug, Default)]
pub struct Window {
    /// 0 = no limit.
    limit: AtomicU32,
    used: AtomicU32,
    blocked: AtomicBool,
}

impl Window {
    pub fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Release);
    }

    pub fn limit(&self) -> u32 {
        self.limit.load(Ordering::Acquire)
    }

    fn take(&self) -> bool {
        if self.try_take() {
            return true;
        }
        self.blocked.store(true, Ordering::SeqCst);
        // Either we see the credit that was given back, or whoever gave it sees the flag.
        self.try_take()
    }

    fn try_take(&self) -> bool {
        let limit = self.limit();
        let more = |used| (limit == 0 || used < limit).then_some(used + 1);
        self.used
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, more)
            .is_ok()
    }

    /// Has a consumer been passed over?
    pub fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::SeqCst)
    }

    /// Messages were acknowledged or given back.
    pub fn give_back(&self, count: u32) {
        let _ = self
            .used
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |used| {
                Some(used.saturating_sub(count))
            });
    }

    /// Was a consumer passed over since the last call? Then every queue of the channel deserves a look.
    pub fn take_blocked(&self) -> bool {
        self.blocked.swap(false, Ordering::SeqCst)
    }
}

/// Someone who takes messages from a queue.
#[derive(Debug, Clone)]
pub struct Consumer {
    /// The connection's number in this run of the server.
    pub connection: u64,
    /// The connection's own number for this consumer; unique within it.
    pub id: u64,
    pub inbox: Arc<Inbox>,
    pub window: Arc<Window>,
    /// Unacknowledged messages it may have; 0 = no limit.
    pub prefetch: u32,
    /// Messages are gone when they are sent.
    pub no_ack: bool,
    pub exclusive: bool,
    /// Higher ones are served first (`x-priority`).
    pub priority: i64,
    pub(super) in_flight: u32,
}

impl Consumer {
    #[must_use]
    pub fn new(connection: u64, id: u64, inbox: Arc<Inbox>, window: Arc<Window>) -> Self {
        Self {
            connection,
            id,
            inbox,
            window,
            prefetch: 0,
            no_ack: false,
            exclusive: false,
            priority: 0,
            in_flight: 0,
        }
    }

    /// Takes credit for one message.
    fn admit(&mut self) -> bool {
        if self.inbox.is_full() {
            return false;
        }
        if self.no_ack {
            return true;
        }
        if (self.prefetch != 0 && self.in_flight >= self.prefetch) || !self.window.take() {
            return false;
        }
        self.in_flight += 1;
        true
    }
}

/// The consumers of one queue, highest priority first, equals in turn.
#[derive(Debug, Default)]
pub(super) struct Consumers {
    list: Vec<Consumer>,
    /// Deliveries start looking here, among equals.
    turn: usize,
    /// Of a queue that serves one consumer at a time: the one, as connection and id. It stays while it is there.
    active: Option<(u64, u64)>,
}

impl Consumers {
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn has_exclusive(&self) -> bool {
        self.list.iter().any(|consumer| consumer.exclusive)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Consumer> {
        self.list.iter()
    }

    pub(super) fn add(&mut self, consumer: Consumer) {
        let at = self
            .list
            .partition_point(|known| known.priority >= consumer.priority);
        self.active
            .get_or_insert((consumer.connection, consumer.id));
        self.list.insert(at, consumer);
    }

    pub(super) fn remove(&mut self, connection: u64, id: u64) -> bool {
        let before = self.list.len();
        self.list
            .retain(|known| known.connection != connection || known.id != id);
        if self.active == Some((connection, id)) {
            self.active = self.list.first().map(|first| (first.connection, first.id));
        }
        before != self.list.len()
    }

    pub(super) fn find(&mut self, connection: u64, id: u64) -> Option<&mut Consumer> {
        self.list
            .iter_mut()
            .find(|known| known.connection == connection && known.id == id)
    }

    /// The consumer whose turn it is among those with credit; one credit is taken.
    /// With `single` only one is served, until it goes.
    #[inline]
    pub(super) fn next(&mut self, single: bool) -> Option<&Consumer> {
        if single {
            return self.next_single();
        }
        let count = self.list.len();
        let mut first = 0;
        while first < count {
            let priority = self.list.get(first)?.priority;
            let equals = self
                .list
                .iter()
                .skip(first)
                .take_while(|c| c.priority == priority)
                .count();
            for step in 0..equals {
                let at = first + (self.turn + step) % equals;
                if self.list.get_mut(at)?.admit() {
                    self.turn = self.turn.wrapping_add(step + 1);
                    return self.list.get(at);
                }
            }
            first += equals;
        }
        None
    }

    fn next_single(&mut self) -> Option<&Consumer> {
        let (connection, id) = self.active?;
        let active = self.find(connection, id)?;
        active.admit().then_some(&*active)
    }
}

/// Which queue a delivery came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QueueRef {
    pub shard: ShardId,
    pub id: u64,
}
