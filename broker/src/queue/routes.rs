//! Exchanges, bindings and queue names, read by every publisher without a shard's lock.
//!
//! Writers hold the catalog's lock and change the table in place, O(1) per binding. Readers remember what a key led to
//! together with the epoch; while the epoch stands, a publisher does not even take the read lock.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use hashbrown::HashMap;
use parking_lot::RwLock;
use smallvec::SmallVec;

use super::dead_letter::{Reader, Reason, Stamped};
use super::definition::Definition;
use super::events::{self, Event, Note};
use super::exchange::{Binding, Destination, Exchange, ExchangeDefinition, ExchangeKind};
use super::headers::{Headers, NoHeaders};
use super::history::History;
use super::message::Message;
use crate::stream::batch::HeaderList;
use crate::{Millis, ShardSet};

/// The exchange that copies of messages go to while they are traced.
pub const TRACE: &str = "amq.rabbitmq.trace";

type ByName<T> = HashMap<Arc<str>, T, foldhash::fast::RandomState>;

#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) exchanges: ByName<Exchange>,
    pub(super) queues: ByName<Arc<Definition>>,
    /// Bindings by what they lead to, so that a queue's deletion finds its own.
    pub(super) arriving: HashMap<Destination, Vec<Arc<Binding>>, foldhash::fast::RandomState>,
    /// Somebody listens to [`events`], and what is to be told.
    heard: bool,
    notes: Vec<Note>,
}

impl Table {
    fn is_bound(&self, exchange: &str) -> bool {
        let exchange = self.exchanges.get(exchange);
        exchange.is_some_and(|exchange| !exchange.is_unused())
    }

    pub(super) fn note(&mut self, followed: bool, event: impl FnOnce() -> Event) {
        if self.heard {
            let event = event();
            self.notes.push(Note { event, followed });
        }
    }
}

/// The routing view; one per broker.
#[derive(Debug)]
pub struct Routes {
    epoch: AtomicU64,
    table: RwLock<Table>,
    reader: OnceLock<&'static dyn Reader>,
    /// Somebody listens to [`events`].
    heard: AtomicBool,
}

/// Where one message goes.
#[derive(Debug, Clone, Default)]
pub struct Route {
    /// The view's epoch when this was true.
    pub epoch: u64,
    pub queues: SmallVec<[Arc<Definition>; 2]>,
    /// The locks that delivering there takes.
    pub shards: ShardSet,
    /// Some of the queues are streams.
    pub has_streams: bool,
    /// Holds for every message of that exchange and key, not just for one with the same headers.
    pub by_key: bool,
    /// Exchanges on the way that keep their last messages.
    pub(super) histories: Vec<Arc<History>>,
}

/// Why there is no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteError {
    NoExchange,
    /// The exchange takes messages from exchanges only.
    Internal,
    /// It leads to a stream that the publisher may not write to.
    Refused,
}

impl Default for Routes {
    fn default() -> Self {
        let mut table = Table::default();
        for (name, kind, internal) in [
            ("", ExchangeKind::Direct, false),
            ("amq.direct", ExchangeKind::Direct, false),
            ("amq.fanout", ExchangeKind::Fanout, false),
            ("amq.topic", ExchangeKind::Topic, false),
            ("amq.headers", ExchangeKind::Headers, false),
            ("amq.match", ExchangeKind::Headers, false),
            (TRACE, ExchangeKind::Topic, true),
            (events::EXCHANGE, ExchangeKind::Topic, true),
        ] {
            let definition = ExchangeDefinition {
                internal,
                ..ExchangeDefinition::plain(name, kind)
            };
            table
                .exchanges
                .insert(name.into(), Exchange::new(definition));
        }
        Self {
            epoch: AtomicU64::new(1),
            table: RwLock::new(table),
            reader: OnceLock::new(),
            heard: AtomicBool::new(false),
        }
    }
}

impl Route {
    /// Straight to one queue.
    pub(super) fn to(routes: &Routes, queue: &Arc<Definition>) -> Self {
        Self {
            epoch: routes.epoch(),
            queues: SmallVec::from_iter([Arc::clone(queue)]),
            shards: ShardSet::of(queue.shard()),
            has_streams: queue.partition.is_some(),
            ..Self::default()
        }
    }

    /// Those of the queues that are streams.
    pub fn streams(&self) -> impl Iterator<Item = &Arc<Definition>> {
        let queues: &[Arc<Definition>] = if self.has_streams { &self.queues } else { &[] };
        queues.iter().filter(|queue| queue.partition.is_some())
    }

    /// Those that are not.
    pub(super) fn plain(&self) -> impl Iterator<Item = &Arc<Definition>> {
        let all = !self.has_streams;
        self.queues
            .iter()
            .filter(move |queue| all || queue.partition.is_none())
    }

    /// Has the exchanges on the way keep the message, if any of them does.
    #[inline]
    pub(super) fn keep(&self, message: &Message) {
        for history in &self.histories {
            history.keep(message);
        }
    }

    /// Reaches the queues of both. The older epoch counts: whatever changed since makes the caller look again.
    pub fn join(&mut self, other: Self) {
        self.epoch = self.epoch.min(other.epoch);
        self.queues.extend(other.queues);
        self.queues
            .sort_unstable_by_key(|queue| (queue.shard(), queue.id));
        self.queues.dedup_by_key(|queue| (queue.shard(), queue.id));
        self.shards = self.queues.iter().map(|queue| queue.shard()).collect();
        for history in other.histories {
            if !self
                .histories
                .iter()
                .any(|known| Arc::ptr_eq(known, &history))
            {
                self.histories.push(history);
            }
        }
        self.by_key &= other.by_key;
        self.has_streams |= other.has_streams;
    }
}

impl Routes {
    /// Changes with every declaration, deletion and binding.
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The queues that a message reaches. Resolve before locking, and again if the epoch is another under the locks.
    ///
    /// # Errors
    /// When clients cannot publish to that exchange.
    pub fn route(
        &self,
        exchange: &[u8],
        key: &[u8],
        headers: &dyn Headers,
    ) -> Result<Route, RouteError> {
        self.find(exchange, key, headers, false)
    }

    /// The same for the server's own messages: internal exchanges take them.
    pub(super) fn route_own(&self, message: &Message) -> Result<Route, RouteError> {
        self.route_again(message.exchange(), message)
    }

    /// For a message that an exchange passes on to another one.
    pub(super) fn route_again(
        &self,
        exchange: &[u8],
        message: &Message,
    ) -> Result<Route, RouteError> {
        let key = message.routing_key();
        let Some(reader) = self.reader.get() else {
            return self.find(exchange, key, &NoHeaders, true);
        };
        let mut found = Err(RouteError::NoExchange);
        reader.show(message.properties(), &mut |headers| {
            found = self.find(exchange, key, headers, true);
        });
        found
    }

    /// Who knows the properties of messages; once, at the start.
    pub fn set_reader(&self, reader: &'static dyn Reader) {
        // A second call would change nothing: there is one face that knows these properties.
        let _ = self.reader.set(reader);
    }

    /// What makes the message the same as another one for a queue that takes none twice.
    #[inline]
    pub(super) fn identity(&self, queue: &Definition, message: &Message) -> Option<u128> {
        queue.limits.once?;
        self.reader.get()?.identity(message.properties())
    }

    /// What a message carries besides its body, as headers of a record.
    pub(crate) fn record_headers(&self, message: &Message, into: &mut HeaderList) {
        if let Some(reader) = self.reader.get() {
            reader.record_headers(message, into);
        }
    }

    /// Does somebody listen to [`events`]?
    #[inline]
    pub fn is_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    /// Does somebody listen to [`TRACE`]?
    pub fn is_traced(&self) -> bool {
        self.table.read().is_bound(TRACE)
    }

    pub(super) fn take_notes(&self) -> Vec<Note> {
        std::mem::take(&mut self.table.write().notes)
    }

    pub(super) fn describe(
        &self,
        event: &Event,
        user: Option<&str>,
        now: Millis,
    ) -> Option<Message> {
        Some(self.reader.get()?.describe(event, user, now))
    }

    pub(super) fn stamp(
        &self,
        message: &Message,
        queue: &str,
        reason: Reason,
        now: Millis,
    ) -> Stamped {
        match self.reader.get() {
            Some(reader) => reader.stamp(message, queue, reason, now),
            None => Stamped {
                properties: message.properties().to_vec(),
                priority: 0,
                visited: Vec::new(),
            },
        }
    }

    fn find(
        &self,
        exchange: &[u8],
        key: &[u8],
        headers: &dyn Headers,
        internal: bool,
    ) -> Result<Route, RouteError> {
        let table = self.table.read();
        let epoch = self.epoch();
        let mut queues = SmallVec::new();
        let mut by_key = true;
        let mut histories = Vec::new();
        if exchange.is_empty() {
            let queue = std::str::from_utf8(key)
                .ok()
                .and_then(|name| table.queues.get(name));
            queues.extend(queue.cloned());
        } else {
            let name = std::str::from_utf8(exchange).map_err(|_| RouteError::NoExchange)?;
            let exchange = table.exchanges.get(name).ok_or(RouteError::NoExchange)?;
            if exchange.definition.internal && !internal {
                return Err(RouteError::Internal);
            }
            let mut walk = Walk {
                table: &table,
                key,
                headers,
                seen: SmallVec::new(),
                queues: &mut queues,
                histories: &mut histories,
                by_key,
            };
            walk.visit(exchange);
            by_key = walk.by_key;
            drop(walk);
            // Several bindings that match are one message.
            if queues.len() > 1 {
                // Ids are a shard's own: two queues of different shards may have the same.
                queues.sort_unstable_by_key(|queue: &Arc<Definition>| (queue.shard(), queue.id));
                queues.dedup_by_key(|queue| (queue.shard(), queue.id));
            }
        }
        let shards = queues
            .iter()
            .map(|queue: &Arc<Definition>| queue.shard())
            .collect();
        let has_streams = queues.iter().any(|queue| queue.partition.is_some());
        Ok(Route {
            epoch,
            queues,
            shards,
            has_streams,
            by_key,
            histories,
        })
    }

    /// A queue's definition.
    pub fn queue(&self, name: &str) -> Option<Arc<Definition>> {
        self.table.read().queues.get(name).cloned()
    }

    /// An exchange's definition.
    pub fn exchange(&self, name: &str) -> Option<ExchangeDefinition> {
        self.table
            .read()
            .exchanges
            .get(name)
            .map(|exchange| exchange.definition.clone())
    }

    /// Every queue, in no order.
    pub fn queues(&self) -> Vec<Arc<Definition>> {
        self.table.read().queues.values().cloned().collect()
    }

    /// Every exchange, in no order.
    pub fn exchanges(&self) -> Vec<ExchangeDefinition> {
        self.table
            .read()
            .exchanges
            .values()
            .map(|exchange| exchange.definition.clone())
            .collect()
    }

    /// Every binding, in no order; the default exchange's are not listed.
    pub fn bindings(&self) -> Vec<Arc<Binding>> {
        self.table
            .read()
            .exchanges
            .values()
            .flat_map(Exchange::bindings)
            .cloned()
            .collect()
    }

    /// Reads the table.
    pub(super) fn read<T>(&self, look: impl FnOnce(&Table) -> T) -> T {
        look(&self.table.read())
    }

    /// Changes the table; the caller holds the catalog's lock.
    pub(super) fn change<T>(&self, edit: impl FnOnce(&mut Table) -> T) -> T {
        let mut table = self.table.write();
        let result = edit(&mut table);
        table.heard = table.is_bound(events::EXCHANGE);
        self.heard.store(table.heard, Ordering::Relaxed);
        if !table.heard {
            table.notes = Vec::new();
        }
        // Before the write lock goes, or a reader could store a new route under the old epoch.
        self.epoch.fetch_add(1, Ordering::Release);
        result
    }
}

struct Walk<'a> {
    table: &'a Table,
    key: &'a [u8],
    headers: &'a dyn Headers,
    /// Exchanges on the way: bindings between exchanges may form circles.
    seen: SmallVec<[&'a str; 4]>,
    queues: &'a mut SmallVec<[Arc<Definition>; 2]>,
    histories: &'a mut Vec<Arc<History>>,
    by_key: bool,
}

impl<'a> Walk<'a> {
    fn visit(&mut self, first: &'a Exchange) {
        let mut todo: SmallVec<[&'a Exchange; 4]> = SmallVec::new();
        self.seen.push(&first.definition.name);
        todo.push(first);
        while let Some(exchange) = todo.pop() {
            self.by_key &= !exchange.is_fickle();
            if let Some(history) = exchange.history()
                && !self.headers.is_not_kept()
            {
                self.histories.push(Arc::clone(history));
            }
            let mut matched = false;
            let (table, seen, queues) = (self.table, &mut self.seen, &mut *self.queues);
            let mut onward = |name: &str, todo: &mut SmallVec<[&'a Exchange; 4]>| {
                if let Some(next) = table.exchanges.get(name)
                    && !seen.contains(&&*next.definition.name)
                {
                    seen.push(&next.definition.name);
                    todo.push(next);
                }
            };
            exchange.route(self.key, self.headers, &mut |destination| {
                matched = true;
                match destination {
                    Destination::Queue(queue) => queues.push(Arc::clone(queue)),
                    Destination::Exchange(name) => onward(name, &mut todo),
                }
            });
            if !matched && let Some(alternate) = &exchange.definition.alternate {
                onward(alternate, &mut todo);
            }
        }
    }
}
