//! Declaring, binding and deleting. Every function takes the locks as its first argument and says which it needs.

use std::sync::Arc;

use bytes::Bytes;
use storage::Engine;

use super::definition::{self, Definition, QueueKind};
use super::events::Event;
use super::exchange::{Binding, Destination, Exchange, ExchangeDefinition};
use super::limits::Limits;
use super::routes::{Routes, Table};
use super::space;
use crate::rows::{self, Tag};
use crate::{Effects, Locked, Millis, ShardId, ShardSet, Slot, stream};

/// The catalog's part of queues: its lock orders the writers of [`Routes`].
#[derive(Debug, Default)]
pub struct Catalog {
    routes: Arc<Routes>,
}

impl Catalog {
    /// Reads the definitions.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn load(engine: &Engine) -> Result<Self, storage::Error> {
        let catalog = Self::default();
        let mut rows: Vec<(Tag, Vec<u8>, Vec<u8>)> = Vec::new();
        for tag in [Tag::Exchange, Tag::Queue, Tag::Binding] {
            rows::each_in_catalog(engine, tag, &mut |key, value| {
                rows.push((tag, key.to_vec(), value.to_vec()));
                true
            })?;
        }
        catalog.routes.change(|table| {
            for (tag, key, value) in &rows {
                // A row that does not read is of a later format: `storage` has refused that before.
                match tag {
                    Tag::Exchange => {
                        if let Some(exchange) = definition::read_exchange(key, value) {
                            table
                                .exchanges
                                .insert(Arc::clone(&exchange.name), Exchange::new(exchange));
                        }
                    }
                    Tag::Queue => {
                        if let Some(queue) = definition::read_queue(key, value) {
                            table
                                .queues
                                .insert(Arc::clone(&queue.name), Arc::new(queue));
                        }
                    }
                    _ => {
                        let queues = &table.queues;
                        let read =
                            definition::read_binding(key, value, &|name| queues.get(name).cloned());
                        if let Some(binding) = read {
                            insert_binding(table, &Arc::new(binding));
                        }
                    }
                }
            }
        });
        Ok(catalog)
    }

    /// The routing view that this catalog publishes.
    #[must_use]
    pub fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.routes)
    }
}

/// What a client wants declared.
#[derive(Debug, Clone)]
pub struct Declare<'a> {
    pub name: &'a str,
    pub kind: QueueKind,
    pub durable: bool,
    pub auto_delete: bool,
    pub exclusive_owner: Option<u64>,
    pub arguments: Bytes,
    pub limits: Limits,
}

/// Locks for [`declare_queue`].
#[must_use]
pub fn shards_of(name: &str) -> ShardSet {
    ShardSet::of(Slot::of(name.as_bytes()).shard()).with(ShardId::CATALOG)
}

/// Locks for [`delete_queue`].
#[must_use]
pub fn locks_of(queue: &Definition) -> ShardSet {
    match queue.partition {
        // Its topic goes with it.
        Some(_) => stream::DELETE_LOCKS,
        None => ShardSet::of(queue.shard()).with(ShardId::CATALOG),
    }
}

/// Makes a queue, or gives the one that has the name: is it what was wanted, the caller compares. `true`: it is new.
/// Locks: [`shards_of`].
pub fn declare_queue(
    locked: &mut Locked<'_>,
    want: &Declare<'_>,
    fx: &mut Effects,
) -> (Arc<Definition>, bool) {
    if let Some(known) = locked.broker().routes.queue(want.name) {
        return (known, false);
    }
    let slot = Slot::of(want.name.as_bytes());
    let queue = Arc::new(Definition {
        name: want.name.into(),
        // From the catalog: ids of data shards are unique within their shard only, and bindings compare queues by id.
        id: locked.new_id(ShardId::CATALOG),
        slot,
        kind: want.kind,
        partition: None,
        durable: want.durable,
        auto_delete: want.auto_delete,
        exclusive_owner: want.exclusive_owner,
        arguments: want.arguments.clone(),
        limits: want.limits.clone(),
    });
    insert(locked, &queue, fx);
    (queue, true)
}

/// Puts a new queue into tables, memory and routes. Locks: its shard and the catalog.
pub(crate) fn insert(locked: &mut Locked<'_>, queue: &Arc<Definition>, fx: &mut Effects) {
    if queue.is_stored() {
        definition::put_queue(fx, queue);
    }
    locked.shard(queue.shard()).queues.insert(queue);
    locked.broker().routes.change(|table| {
        table
            .queues
            .insert(Arc::clone(&queue.name), Arc::clone(queue));
        table.note(false, || Event::QueueCreated(Arc::clone(queue)));
    });
}

/// Why something may not be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteError {
    InUse,
    NotEmpty,
}

/// Deletes a queue with its bindings and tells its consumers. Gives the number of messages that were ready; 0 when there
/// is no such queue any more. Locks: [`locks_of`].
///
/// # Errors
/// When a condition does not hold.
pub fn delete_queue(
    locked: &mut Locked<'_>,
    queue: &Definition,
    if_unused: bool,
    if_empty: bool,
    now: Millis,
    fx: &mut Effects,
) -> Result<u64, DeleteError> {
    let known = locked.broker().routes.queue(&queue.name);
    if known.is_none_or(|known| known.id != queue.id) {
        return Ok(0);
    }
    let shard = locked.shard(queue.shard());
    if let Some(counts) = space::counts(shard, queue.id) {
        if if_unused && counts.consumers > 0 {
            return Err(DeleteError::InUse);
        }
        if if_empty && counts.ready > 0 {
            return Err(DeleteError::NotEmpty);
        }
    }
    let _ = now;
    if queue.partition.is_some() && stream::delete(locked, fx, &queue.name).is_ok() {
        return Ok(0);
    }
    Ok(remove(locked, queue, fx))
}

/// Takes a queue out of tables, memory and routes, and tells its consumers; gives how many messages were ready.
/// Locks: its shard and the catalog.
pub(crate) fn remove(locked: &mut Locked<'_>, queue: &Definition, fx: &mut Effects) -> u64 {
    let count = space::drop_queue(locked.shard(queue.shard()), queue.id, fx);
    if queue.is_stored() {
        definition::del_queue(fx, &queue.name);
    }
    locked.broker().routes.change(|table| {
        let known = table.queues.remove(&*queue.name);
        if let Some(known) = known {
            table.note(false, || Event::QueueDeleted(Arc::clone(&known.name)));
            drop_arriving(table, &Destination::Queue(known), true, fx);
        }
    });
    count
}

/// Removes the bindings that lead to something that is gone, and auto-delete exchanges that lost their last one.
fn drop_arriving(table: &mut Table, destination: &Destination, followed: bool, fx: &mut Effects) {
    for binding in table.arriving.remove(destination).unwrap_or_default() {
        let Some(source) = table.exchanges.get_mut(&*binding.source) else {
            continue;
        };
        source.unbind(&binding);
        if has_row(&source.definition, destination) {
            definition::del_binding(fx, &binding);
        }
        table.note(followed, || Event::BindingDeleted(Arc::clone(&binding)));
        drop_if_unused(table, &binding.source, followed, fx);
    }
}

fn drop_if_unused(table: &mut Table, name: &Arc<str>, followed: bool, fx: &mut Effects) {
    let goes = table.exchanges.get(name).is_some_and(|exchange| {
        exchange.definition.auto_delete && exchange.was_bound && exchange.is_unused()
    });
    if goes {
        drop_exchange(table, name, followed, fx);
    }
}

fn drop_exchange(table: &mut Table, name: &Arc<str>, followed: bool, fx: &mut Effects) {
    let Some(exchange) = table.exchanges.remove(name) else {
        return;
    };
    if exchange.definition.durable {
        definition::del_exchange(fx, name);
    }
    table.note(followed, || Event::ExchangeDeleted(Arc::clone(name)));
    for binding in exchange.bindings() {
        table.note(followed, || Event::BindingDeleted(Arc::clone(binding)));
        if has_row(&exchange.definition, &binding.destination) {
            definition::del_binding(fx, binding);
        }
        if let Some(arriving) = table.arriving.get_mut(&binding.destination) {
            arriving.retain(|known| known != binding);
            if arriving.is_empty() {
                table.arriving.remove(&binding.destination);
            }
        }
    }
    let destination = Destination::Exchange(Arc::clone(name));
    drop_arriving(table, &destination, followed, fx);
}

/// A binding outlives a restart when both its ends do. Otherwise it has no row, or one that outlived its end would come
/// back when the end is declared again.
pub(super) fn is_stored(
    table: &Table,
    source: &ExchangeDefinition,
    destination: &Destination,
) -> bool {
    has_row(source, destination)
        && match destination {
            Destination::Queue(_) => true,
            Destination::Exchange(name) => table
                .exchanges
                .get(name)
                .is_some_and(|exchange| exchange.definition.durable),
        }
}

/// May it have a row? The exchange that it leads to may be gone already when the row is deleted.
fn has_row(source: &ExchangeDefinition, destination: &Destination) -> bool {
    source.durable
        && match destination {
            Destination::Queue(queue) => queue.is_stored(),
            Destination::Exchange(_) => true,
        }
}

/// Makes an exchange, or gives the one that has the name. Locks: the catalog.
pub fn declare_exchange(
    locked: &mut Locked<'_>,
    want: ExchangeDefinition,
    fx: &mut Effects,
) -> Option<ExchangeDefinition> {
    let _catalog = locked.catalog();
    let routes = &locked.broker().routes;
    if let Some(known) = routes.exchange(&want.name) {
        return Some(known);
    }
    if want.durable {
        definition::put_exchange(fx, &want);
    }
    routes.change(|table| {
        table.note(false, || Event::ExchangeCreated(want.clone()));
        table
            .exchanges
            .insert(Arc::clone(&want.name), Exchange::new(want));
    });
    None
}

/// Deletes an exchange and its bindings; nothing happens when there is none. Locks: the catalog.
///
/// # Errors
/// When it must be unused and is not.
pub fn delete_exchange(
    locked: &mut Locked<'_>,
    name: &str,
    if_unused: bool,
    fx: &mut Effects,
) -> Result<(), DeleteError> {
    let _catalog = locked.catalog();
    let routes = &locked.broker().routes;
    let unused = routes.read(|table| table.exchanges.get(name).is_none_or(Exchange::is_unused));
    if if_unused && !unused {
        return Err(DeleteError::InUse);
    }
    routes.change(|table| drop_exchange(table, &name.into(), false, fx));
    Ok(())
}

/// Which end of a binding does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindError {
    NoSource,
    NoDestination,
}

/// Adds a binding; one that exists stays. `true`: it is new. Locks: the catalog.
///
/// # Errors
/// When an end does not exist.
pub fn bind(
    locked: &mut Locked<'_>,
    binding: Binding,
    fx: &mut Effects,
) -> Result<bool, BindError> {
    let _catalog = locked.catalog();
    locked.broker().routes.change(|table| {
        let there = match &binding.destination {
            Destination::Queue(queue) => table
                .queues
                .get(&*queue.name)
                .is_some_and(|known| known.id == queue.id),
            Destination::Exchange(name) => table.exchanges.contains_key(name),
        };
        let source = table
            .exchanges
            .get(&*binding.source)
            .ok_or(BindError::NoSource)?;
        if !there {
            return Err(BindError::NoDestination);
        }
        let stored = is_stored(table, &source.definition, &binding.destination);
        let binding = Arc::new(binding);
        let is_new = insert_binding(table, &binding);
        if is_new && stored {
            definition::put_binding(fx, &binding);
        }
        if is_new {
            table.note(false, || Event::BindingCreated(binding));
        }
        Ok(is_new)
    })
}

fn insert_binding(table: &mut Table, binding: &Arc<Binding>) -> bool {
    if let Destination::Exchange(name) = &binding.destination
        && !table.exchanges.contains_key(name)
    {
        return false;
    }
    let Some(source) = table.exchanges.get_mut(&*binding.source) else {
        return false;
    };
    if !source.bind(binding) {
        return false;
    }
    table
        .arriving
        .entry(binding.destination.clone())
        .or_default()
        .push(Arc::clone(binding));
    true
}

/// Removes a binding; nothing happens when there is none. Locks: the catalog.
pub fn unbind(locked: &mut Locked<'_>, binding: &Binding, fx: &mut Effects) {
    let _catalog = locked.catalog();
    locked.broker().routes.change(|table| {
        let Some(source) = table.exchanges.get_mut(&*binding.source) else {
            return;
        };
        if !source.unbind(binding) {
            return;
        }
        if has_row(&source.definition, &binding.destination) {
            definition::del_binding(fx, binding);
        }
        if let Some(arriving) = table.arriving.get_mut(&binding.destination) {
            arriving.retain(|known| **known != *binding);
            if arriving.is_empty() {
                table.arriving.remove(&binding.destination);
            }
        }
        table.note(false, || Event::BindingDeleted(Arc::new(binding.clone())));
        drop_if_unused(table, &binding.source, false, fx);
    });
}
