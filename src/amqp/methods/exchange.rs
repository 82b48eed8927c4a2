//! exchange.declare, delete, bind, unbind.

use broker::ShardSet;
use broker::access::Verbs;
use broker::queue::{
    self, BindError, Binding, DeleteError, Destination, ExchangeDefinition, ExchangeKind, HashOn,
    Property,
};
use bytes::Bytes;
use protocol_amqp::{Method, ReplyCode, Table, Value};

use crate::amqp::arguments;
use crate::amqp::fault::{Fault, Result, binary};
use crate::amqp::headers;
use crate::amqp::names;
use crate::amqp::session::Core;
use crate::net::Outbox;

pub(super) fn method(core: &mut Core, id: u16, method: &Method<'_>, out: &mut Outbox) -> Result {
    let (nowait, ok) = match *method {
        Method::ExchangeDeclare {
            exchange,
            kind,
            passive,
            durable,
            auto_delete,
            internal,
            nowait,
            arguments,
            ..
        } => {
            let name = names::text(exchange.0)?;
            if passive {
                not_default(&name)?;
                core.may_exchange(&name, Verbs::DESCRIBE)?;
                if core.broker().routes.exchange(&name).is_none() {
                    return Err(Fault::no_exchange(name));
                }
            } else {
                let flags = (durable, auto_delete, internal);
                declare(core, &name, kind.0, flags, arguments)?;
            }
            (nowait, Method::ExchangeDeclareOk {})
        }
        Method::ExchangeDelete {
            exchange,
            if_unused,
            nowait,
            ..
        } => {
            delete(core, &names::text(exchange.0)?, if_unused)?;
            (nowait, Method::ExchangeDeleteOk {})
        }
        Method::ExchangeBind {
            destination,
            source,
            routing_key,
            nowait,
            arguments,
            ..
        } => {
            let binding = binding(
                core,
                &names::text(source.0)?,
                &names::text(destination.0)?,
                routing_key.0,
                arguments,
            )?;
            bind(core, binding)?;
            (nowait, Method::ExchangeBindOk {})
        }
        Method::ExchangeUnbind {
            destination,
            source,
            routing_key,
            nowait,
            arguments,
            ..
        } => {
            let binding = binding(
                core,
                &names::text(source.0)?,
                &names::text(destination.0)?,
                routing_key.0,
                arguments,
            )?;
            unbind(core, &binding);
            (nowait, Method::ExchangeUnbindOk {})
        }
        _ => return Ok(()),
    };
    if !nowait {
        protocol_amqp::method(out.bytes(), id, &ok);
    }
    Ok(())
}

fn not_default(name: &str) -> Result {
    if name.is_empty() {
        Err(Fault::default_exchange())
    } else {
        Ok(())
    }
}

fn declare(
    core: &mut Core,
    name: &str,
    kind: &[u8],
    flags: (bool, bool, bool),
    arguments: Table<'_>,
) -> Result {
    let delays = kind == b"x-delayed-message";
    let known = if delays {
        inner_kind(arguments)?
    } else {
        ExchangeKind::from_name(kind)
    };
    let Some(kind) = known else {
        let kind = String::from_utf8_lossy(kind);
        return Err(Fault::connection(
            ReplyCode::CommandInvalid,
            format!("unknown exchange type '{kind}'"),
        ));
    };
    not_default(name)?;
    core.may_exchange(name, Verbs::CONFIGURE)?;
    let (durable, auto_delete, internal) = flags;
    let alternate = match arguments.get("alternate-exchange") {
        None => None,
        Some(Value::LongStr(text)) => {
            let alternate = names::text(text)?;
            core.may_exchange(name, Verbs::READ)?;
            core.may_exchange(&alternate, Verbs::WRITE)?;
            Some(alternate.as_str().into())
        }
        Some(other) => {
            return Err(Fault::precondition(format!(
                "invalid type '{}' for arg 'alternate-exchange' in exchange '{name}' in vhost '/'",
                other.type_name()
            )));
        }
    };
    let want = ExchangeDefinition {
        delays,
        durable,
        auto_delete,
        internal,
        alternate,
        arguments: Bytes::copy_from_slice(arguments.as_bytes()),
        ..ExchangeDefinition::plain(name, kind)
    };
    if let Some(known) = core.broker().routes.exchange(name) {
        return arguments::exchange_equivalence(&known, &want);
    }
    let want = ExchangeDefinition {
        hash_on: hash_on(kind, arguments)?,
        history: history(kind, arguments)?,
        ..want
    };
    names::check_reserved("exchange", name)?;
    let mut locked = core.node.broker.lock(ShardSet::CATALOG);
    let known = queue::declare_exchange(&mut locked, want.clone(), &mut core.fx);
    locked.commit(core.now, &mut core.fx);
    let notes = locked.take_notes();
    drop(locked);
    core.tell(notes);
    known.map_or(Ok(()), |known| {
        arguments::exchange_equivalence(&known, &want)
    })
}

/// How an exchange that delays compares keys.
fn inner_kind(arguments: Table<'_>) -> Result<Option<ExchangeKind>> {
    let inner = arguments.get("x-delayed-type");
    match inner.and_then(|inner| inner.as_bytes()) {
        // RabbitMQ's plugin says so only of what is no text, and does not know its own type there either.
        Some(inner) => match ExchangeKind::from_name(inner) {
            Some(kind) => Ok(Some(kind)),
            None => Err(Fault::connection(
                ReplyCode::CommandInvalid,
                format!("unknown exchange type '{}'", String::from_utf8_lossy(inner)),
            )),
        },
        None => Err(Fault::precondition(
            "Invalid argument, 'x-delayed-type' must be an existing exchange type",
        )),
    }
}

/// What a consistent hash exchange hashes.
fn hash_on(kind: ExchangeKind, arguments: Table<'_>) -> Result<HashOn> {
    if kind != ExchangeKind::ConsistentHash {
        return Ok(HashOn::RoutingKey);
    }
    let text = |key| arguments.get(key).and_then(|value| value.as_bytes());
    match (text("hash-header"), text("hash-property")) {
        (None, None) => Ok(HashOn::RoutingKey),
        (Some(name), None) => Ok(HashOn::Header(Bytes::copy_from_slice(name))),
        (None, Some(b"correlation_id")) => Ok(HashOn::Property(Property::CorrelationId)),
        (None, Some(b"message_id")) => Ok(HashOn::Property(Property::MessageId)),
        (None, Some(b"timestamp")) => Ok(HashOn::Property(Property::Timestamp)),
        (None, Some(other)) => Err(Fault::precondition(format!(
            "Unsupported property: {}",
            String::from_utf8_lossy(other)
        ))),
        (Some(_), Some(_)) => Err(Fault::precondition(
            "hash-header and hash-property are mutually exclusive",
        )),
    }
}

/// How many messages a recent history exchange keeps; more than a few billion are no more than that.
fn history(kind: ExchangeKind, arguments: Table<'_>) -> Result<Option<u32>> {
    let Some(value) = arguments.get("x-recent-history-length") else {
        return Ok(None);
    };
    if kind != ExchangeKind::RecentHistory {
        return Ok(None);
    }
    match value.as_int() {
        Some(length) if length > 0 => Ok(Some(u32::try_from(length).unwrap_or(u32::MAX))),
        _ => {
            let shown = match value.as_bytes() {
                Some(text) => binary(text),
                None => arguments::plain(value),
            };
            Err(Fault::precondition(format!(
                "Invalid argument {shown}, 'x-recent-history-length' must be a positive integer"
            )))
        }
    }
}

/// The key of a binding to a consistent hash exchange is its weight.
fn check_weight(key: &[u8]) -> Result {
    let number = std::str::from_utf8(key).ok();
    match number.and_then(|number| number.parse::<i128>().ok()) {
        Some(weight) if weight > 0 => Ok(()),
        Some(_) => Err(Fault::precondition(
            "The binding key must be greater than 0",
        )),
        None => Err(Fault::precondition(format!(
            "The binding key must be an integer: {}",
            binary(key)
        ))),
    }
}

fn delete(core: &mut Core, name: &str, if_unused: bool) -> Result {
    not_default(name)?;
    core.may_exchange(name, Verbs::CONFIGURE)?;
    if name.starts_with("amq.") && core.broker().routes.exchange(name).is_some() {
        return Err(Fault::refused(format!(
            "deletion of system exchange '{name}' in vhost '/' not allowed"
        )));
    }
    let mut locked = core.node.broker.lock(ShardSet::CATALOG);
    let result = queue::delete_exchange(&mut locked, name, if_unused, &mut core.fx);
    locked.commit(core.now, &mut core.fx);
    let notes = locked.take_notes();
    drop(locked);
    core.tell(notes);
    match result {
        Ok(()) => Ok(()),
        Err(DeleteError::InUse | DeleteError::NotEmpty) => Err(Fault::precondition(format!(
            "exchange '{name}' in vhost '/' in use"
        ))),
    }
}

fn binding(
    core: &Core,
    source: &str,
    destination: &str,
    key: &[u8],
    arguments: Table<'_>,
) -> Result<Binding> {
    not_default(source)?;
    not_default(destination)?;
    core.may_exchange(destination, Verbs::WRITE)?;
    core.may_exchange(source, Verbs::READ)?;
    make_binding(
        core,
        source,
        Destination::Exchange(destination.into()),
        key,
        arguments,
    )
}

/// A binding as its source's type wants it.
pub(super) fn make_binding(
    core: &Core,
    source: &str,
    destination: Destination,
    key: &[u8],
    arguments: Table<'_>,
) -> Result<Binding> {
    let kind = core
        .broker()
        .routes
        .exchange(source)
        .map(|exchange| exchange.kind);
    let matching = match kind {
        Some(ExchangeKind::Headers) => {
            Some(headers::matching(arguments).map_err(Fault::precondition)?)
        }
        Some(ExchangeKind::ConsistentHash) => {
            check_weight(key)?;
            None
        }
        _ => None,
    };
    Ok(Binding {
        source: source.into(),
        destination,
        key: Bytes::copy_from_slice(key),
        arguments: Bytes::copy_from_slice(arguments.as_bytes()),
        matching,
    })
}

pub(super) fn bind(core: &mut Core, binding: Binding) -> Result {
    let mut locked = core.node.broker.lock(ShardSet::CATALOG);
    let result = queue::bind(&mut locked, binding.clone(), &mut core.fx);
    locked.commit(core.now, &mut core.fx);
    let notes = locked.take_notes();
    drop(locked);
    core.tell(notes);
    match result {
        Ok(true) => queue::replay(&core.node.broker, &binding, core.now, &mut core.fx),
        Ok(false) => {}
        Err(BindError::NoSource) => return Err(Fault::no_exchange(&binding.source)),
        Err(BindError::NoDestination) => {
            return Err(match &binding.destination {
                Destination::Queue(queue) => Fault::no_queue(&queue.name),
                Destination::Exchange(name) => Fault::no_exchange(name),
            });
        }
    }
    Ok(())
}

pub(super) fn unbind(core: &mut Core, binding: &Binding) {
    let mut locked = core.node.broker.lock(ShardSet::CATALOG);
    queue::unbind(&mut locked, binding, &mut core.fx);
    locked.commit(core.now, &mut core.fx);
    let notes = locked.take_notes();
    drop(locked);
    core.tell(notes);
}
