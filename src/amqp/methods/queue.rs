//! queue.declare, bind, unbind, purge, delete.

use std::sync::Arc;

use broker::access::Verbs;
use broker::queue::{self, Declare, Definition, DeleteError, Destination, QueueKind};
use broker::stream::NewTopic;
use broker::{Ctx, stream_queue};
use bytes::Bytes;
use protocol_amqp::{Method, Table};

use super::basic::of_no_stream;
use super::exchange;
use crate::amqp::arguments;
use crate::amqp::channel::Channel;
use crate::amqp::fault::{Fault, Result};
use crate::amqp::names;
use crate::amqp::session::{Core, reference};
use crate::net::Outbox;

/// Octets of a record besides its message's body: key and headers, each property once and strings of the table twice.
const PROPERTIES_MAX: u64 = 512 << 10;

pub(super) fn method(
    core: &mut Core,
    channel: &mut Channel,
    id: u16,
    method: &Method<'_>,
    out: &mut Outbox,
) -> Result {
    match *method {
        Method::QueueDeclare {
            queue,
            passive,
            durable,
            exclusive,
            auto_delete,
            nowait,
            arguments,
            ..
        } => {
            let name = names::text(queue.0)?;
            if name.starts_with(names::REPLY_TO) {
                return probe_reply_queue(core, id, &name, nowait, out);
            }
            let definition = if passive {
                let name = expand(channel, name)?;
                core.may_queue(&name, Verbs::DESCRIBE)?;
                let queue = find(core, &name)?;
                core.may_stream(&queue, Verbs::DESCRIBE)?;
                check_owner(core, &queue)?;
                queue
            } else {
                declare(core, &name, durable, exclusive, auto_delete, arguments)?
            };
            channel.last_queue = Some(definition.name.to_string());
            if !nowait {
                let counts =
                    queue::counts(core.broker(), reference(&definition)).unwrap_or_default();
                let ok = Method::QueueDeclareOk {
                    queue: definition.name.as_ref().into(),
                    message_count: u32::try_from(counts.ready).unwrap_or(u32::MAX),
                    consumer_count: u32::try_from(counts.consumers).unwrap_or(u32::MAX),
                };
                protocol_amqp::method(out.bytes(), id, &ok);
            }
        }
        Method::QueueBind {
            queue,
            exchange,
            routing_key,
            nowait,
            arguments,
            ..
        } => {
            bind(
                core,
                channel,
                queue.0,
                exchange.0,
                routing_key.0,
                arguments,
                true,
            )?;
            if !nowait {
                protocol_amqp::method(out.bytes(), id, &Method::QueueBindOk {});
            }
        }
        Method::QueueUnbind {
            queue,
            exchange,
            routing_key,
            arguments,
            ..
        } => {
            bind(
                core,
                channel,
                queue.0,
                exchange.0,
                routing_key.0,
                arguments,
                false,
            )?;
            protocol_amqp::method(out.bytes(), id, &Method::QueueUnbindOk {});
        }
        Method::QueuePurge { queue, nowait, .. } => {
            let name = expand(channel, names::text(queue.0)?)?;
            core.may_queue(&name, Verbs::READ)?;
            let queue = find(core, &name)?;
            check_owner(core, &queue)?;
            if queue.partition.is_some() {
                return Err(of_no_stream("queue.purge", &name));
            }
            let count = queue::purge(&core.node.broker, reference(&queue), core.now, &mut core.fx);
            if !nowait {
                let message_count = u32::try_from(count).unwrap_or(u32::MAX);
                protocol_amqp::method(out.bytes(), id, &Method::QueuePurgeOk { message_count });
            }
        }
        Method::QueueDelete {
            queue,
            if_unused,
            if_empty,
            nowait,
            ..
        } => {
            let name = expand(channel, names::text(queue.0)?)?;
            core.may_queue(&name, Verbs::CONFIGURE)?;
            let count = match core.broker().routes.queue(&name) {
                None => 0,
                Some(queue) => delete(core, &queue, if_unused, if_empty)?,
            };
            if !nowait {
                let message_count = u32::try_from(count).unwrap_or(u32::MAX);
                protocol_amqp::method(out.bytes(), id, &Method::QueueDeleteOk { message_count });
            }
        }
        _ => {}
    }
    Ok(())
}

/// Is somebody there to reply to? Asked by declaring the name.
fn probe_reply_queue(core: &Core, id: u16, name: &str, nowait: bool, out: &mut Outbox) -> Result {
    if name != names::REPLY_TO {
        find(core, name)?;
    }
    if !nowait {
        let ok = Method::QueueDeclareOk {
            queue: name.into(),
            message_count: 0,
            consumer_count: 1,
        };
        protocol_amqp::method(out.bytes(), id, &ok);
    }
    Ok(())
}

/// The queue behind direct reply-to.
pub(super) fn declare_hidden(core: &mut Core, name: &str) -> Arc<Definition> {
    let want = Declare {
        name,
        kind: QueueKind::Classic,
        durable: false,
        auto_delete: true,
        exclusive_owner: Some(core.info.id),
        arguments: Bytes::new(),
        limits: queue::Limits::default(),
    };
    let mut locked = core.node.broker.lock(queue::shards_of(name));
    let (definition, _) = queue::declare_queue(&mut locked, &want, &mut core.fx);
    locked.commit(core.now, &mut core.fx);
    // No queue to anybody else.
    drop(locked.take_notes());
    drop(locked);
    core.exclusive.push(Arc::clone(&definition));
    definition
}

/// An empty name is the queue declared last on this channel.
pub(super) fn expand(channel: &Channel, name: String) -> Result<String> {
    if !name.is_empty() {
        return Ok(name);
    }
    channel.last_queue.clone().ok_or_else(|| {
        Fault::channel(
            protocol_amqp::ReplyCode::NotFound,
            "no previously declared queue",
        )
    })
}

pub(super) fn find(core: &Core, name: &str) -> Result<Arc<Definition>> {
    core.broker()
        .routes
        .queue(name)
        .ok_or_else(|| Fault::no_queue(name))
}

/// An exclusive queue is for the connection that declared it.
pub(super) fn check_owner(core: &Core, queue: &Definition) -> Result {
    match queue.exclusive_owner {
        Some(owner) if owner != core.info.id => Err(Fault::locked(queue)),
        _ => Ok(()),
    }
}

fn declare(
    core: &mut Core,
    name: &str,
    durable: bool,
    exclusive: bool,
    auto_delete: bool,
    arguments: Table<'_>,
) -> Result<Arc<Definition>> {
    let exclusive_owner = exclusive.then_some(core.info.id);
    // An exclusive queue ends with its connection: durable means nothing.
    let durable = durable && !exclusive;
    let kind = arguments::queue_kind(name, arguments)?;
    let name = match name {
        "" if kind != QueueKind::Classic => {
            let module = arguments::module(kind);
            return Err(Fault::precondition(format!(
                "Cannot declare a server-named queue for type {module}"
            )));
        }
        "" => names::random("amq.gen-"),
        name => {
            names::check_reserved("queue", name)?;
            name.to_owned()
        }
    };
    core.may_queue(&name, Verbs::CONFIGURE)?;
    if let Some(target) = arguments.get("x-dead-letter-exchange")
        && let Some(target) = target.as_bytes()
    {
        core.may_queue(&name, Verbs::READ)?;
        core.may_exchange(&names::text(target)?, Verbs::WRITE)?;
    }
    let equivalent = |known: &Definition| {
        if known.exclusive_owner != exclusive_owner {
            return Err(Fault::locked(known));
        }
        arguments::queue_equivalence(known, durable, auto_delete, arguments)
    };
    if let Some(known) = core.broker().routes.queue(&name) {
        core.may_stream(&known, Verbs::DESCRIBE)?;
        equivalent(&known)?;
        if known.limits.expires_ms.is_some() {
            queue::touch(core.broker(), reference(&known), core.now);
        }
        return Ok(known);
    }
    if kind != QueueKind::Classic {
        let invalid = |what: &str| {
            Err(Fault::precondition(format!(
                "invalid property '{what}' for queue '{name}' in vhost '/'"
            )))
        };
        if exclusive {
            return invalid("exclusive-owner");
        }
        if !durable {
            return invalid("non-durable");
        }
        if auto_delete {
            return invalid("auto-delete");
        }
    }
    arguments::check_queue(&name, kind, arguments)?;
    if kind == QueueKind::Stream {
        let definition = declare_stream(core, &name, arguments)?;
        equivalent(&definition)?;
        return Ok(definition);
    }
    let want = Declare {
        name: &name,
        kind,
        durable,
        auto_delete,
        exclusive_owner,
        arguments: Bytes::copy_from_slice(arguments.as_bytes()),
        limits: arguments::limits(arguments, &core.node.config.amqp_announced_version),
    };
    let mut locked = core.node.broker.lock(queue::shards_of(&name));
    let (definition, is_new) = queue::declare_queue(&mut locked, &want, &mut core.fx);
    locked.commit(core.now, &mut core.fx);
    let notes = locked.take_notes();
    drop(locked);
    core.tell(notes);
    if !is_new {
        equivalent(&definition)?;
    } else if exclusive {
        core.exclusive.push(Arc::clone(&definition));
    }
    Ok(definition)
}

/// A queue that is a topic: made with it, or of one that is there.
fn declare_stream(core: &mut Core, name: &str, arguments: Table<'_>) -> Result<Arc<Definition>> {
    arguments::check_stream(arguments)?;
    core.may_topic(name, Verbs::CONFIGURE)?;
    let asked = arguments::stream_configs(arguments);
    // What RabbitMQ does not bound is not bounded: neither age nor size, and messages may be as large as elsewhere.
    let limit = core.node.config.amqp_max_message_size.0;
    let largest = limit.saturating_add(PROPERTIES_MAX).min(i32::MAX as u64);
    let mut configs = asked.clone();
    for (name, value) in [
        ("retention.ms", "-1".to_owned()),
        ("max.message.bytes", largest.to_string()),
    ] {
        if !configs.iter().any(|(known, _)| known == name) {
            configs.push((name.to_owned(), value));
        }
    }
    let new = NewTopic {
        name: name.to_owned(),
        partitions: Some(1),
        configs,
    };
    let mut seed = [0; 8];
    // Without chance the topic's id is one that nobody else has, but could be guessed.
    let _ = getrandom::fill(&mut seed);
    let ctx = Ctx::new(core.now, u64::from_le_bytes(seed));
    let raw = Bytes::copy_from_slice(arguments.as_bytes());
    let mut locked = core.node.broker.lock(stream_queue::DECLARE_LOCKS);
    if let Some(known) = core.node.broker.routes.queue(name) {
        return Ok(known);
    }
    let fx = &mut core.fx;
    let declared = stream_queue::declare(&mut locked, &ctx, &new, &asked, &raw, fx);
    locked.commit(core.now, fx);
    drop(locked);
    declared.map_err(|error| {
        Fault::precondition(format!(
            "queue '{name}' in vhost '/' cannot be a stream: {error}"
        ))
    })
}

fn bind(
    core: &mut Core,
    channel: &Channel,
    queue: &[u8],
    source: &[u8],
    key: &[u8],
    arguments: Table<'_>,
    add: bool,
) -> Result {
    let (named, source) = (names::text(queue)?, names::text(source)?);
    // Neither queue nor key: both are the queue declared last.
    let name = expand(channel, named.clone())?;
    let key = if named.is_empty() && key.is_empty() {
        name.as_bytes()
    } else {
        key
    };
    if source.is_empty() {
        return Err(Fault::default_exchange());
    }
    core.may_queue(&name, Verbs::WRITE)?;
    core.may_exchange(&source, Verbs::READ)?;
    let Some(definition) = core.broker().routes.queue(&name) else {
        return if add {
            Err(Fault::no_queue(name))
        } else {
            Ok(())
        };
    };
    check_owner(core, &definition)?;
    core.may_stream(&definition, Verbs::WRITE)?;
    let binding = exchange::make_binding(
        core,
        &source,
        Destination::Queue(definition),
        key,
        arguments,
    )?;
    if add {
        exchange::bind(core, binding)
    } else {
        exchange::unbind(core, &binding);
        Ok(())
    }
}

fn delete(core: &mut Core, queue: &Definition, if_unused: bool, if_empty: bool) -> Result<u64> {
    check_owner(core, queue)?;
    core.may_stream(queue, Verbs::DELETE)?;
    let mut locked = core.node.broker.lock(queue::locks_of(queue));
    let result = queue::delete_queue(
        &mut locked,
        queue,
        if_unused,
        if_empty,
        core.now,
        &mut core.fx,
    );
    locked.commit(core.now, &mut core.fx);
    let notes = locked.take_notes();
    drop(locked);
    core.tell(notes);
    core.exclusive.retain(|known| known.id != queue.id);
    let name = &queue.name;
    result.map_err(|error| {
        Fault::precondition(match error {
            DeleteError::InUse => format!("queue '{name}' in vhost '/' in use"),
            DeleteError::NotEmpty => format!("queue '{name}' in vhost '/' not empty"),
        })
    })
}

/// Without conditions, for an exclusive queue whose connection ends.
pub(in crate::amqp) fn delete_now(core: &mut Core, queue: &Definition) {
    let mut locked = core.node.broker.lock(queue::locks_of(queue));
    // Without conditions it cannot be refused.
    let _ = queue::delete_queue(&mut locked, queue, false, false, core.now, &mut core.fx);
    locked.commit(core.now, &mut core.fx);
    let notes = locked.take_notes();
    drop(locked);
    if !queue.name.starts_with(names::REPLY_TO) {
        queue::events::tell(&core.node.broker, notes, None, core.now, &mut core.fx);
    }
}
