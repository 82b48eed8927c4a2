//! exchange.declare, delete, bind, unbind.

use broker::ShardSet;
use broker::access::Verbs;
use broker::queue::{
    self, BindError, Binding, DeleteError, Destination, ExchangeDefinition, ExchangeKind,
};
use bytes::Bytes;
use protocol_amqp::{Method, ReplyCode, Table, Value};

use crate::amqp::arguments;
use crate::amqp::fault::{Fault, Result};
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
    let Some(kind) = ExchangeKind::from_name(kind) else {
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
        name: name.into(),
        kind,
        durable,
        auto_delete,
        internal,
        alternate,
        arguments: Bytes::copy_from_slice(arguments.as_bytes()),
    };
    if let Some(known) = core.broker().routes.exchange(name) {
        return arguments::exchange_equivalence(&known, &want);
    }
    names::check_reserved("exchange", name)?;
    let mut locked = core.node.broker.lock(ShardSet::CATALOG);
    let known = queue::declare_exchange(&mut locked, want.clone(), &mut core.fx);
    locked.commit(core.now, &mut core.fx);
    known.map_or(Ok(()), |known| {
        arguments::exchange_equivalence(&known, &want)
    })
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
    let (source, destination) = (binding.source.clone(), binding.destination.clone());
    let mut locked = core.node.broker.lock(ShardSet::CATALOG);
    let result = queue::bind(&mut locked, binding, &mut core.fx);
    locked.commit(core.now, &mut core.fx);
    result.map_err(|error| match (error, destination) {
        (BindError::NoSource, _) => Fault::no_exchange(source),
        (BindError::NoDestination, Destination::Queue(queue)) => Fault::no_queue(&queue.name),
        (BindError::NoDestination, Destination::Exchange(name)) => Fault::no_exchange(name),
    })
}

pub(super) fn unbind(core: &mut Core, binding: &Binding) {
    let mut locked = core.node.broker.lock(ShardSet::CATALOG);
    queue::unbind(&mut locked, binding, &mut core.fx);
    locked.commit(core.now, &mut core.fx);
}
