//! Arguments of declarations: checked, kept, and compared when something is declared again.

use broker::queue::{DeadLetter, Definition, ExchangeDefinition, Limits, Overflow, QueueKind};
use bytes::Bytes;
use protocol_amqp::{Table, Value};

use super::fault::{Fault, Result};

/// A value as RabbitMQ's texts print it.
fn plain(value: Value<'_>) -> String {
    if let Some(int) = value.as_int() {
        return int.to_string();
    }
    match value {
        Value::LongStr(text) | Value::Bytes(text) => String::from_utf8_lossy(text).into_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::F32(number) => format!("{number:?}"),
        Value::F64(number) => format!("{number:?}"),
        Value::Void => "undefined".into(),
        other => format!("{other:?}"),
    }
}

fn with_type(value: Option<Value<'_>>) -> String {
    match value {
        None => "none".into(),
        Some(value) => format!(
            "the value '{}' of type '{}'",
            plain(value),
            value.type_name()
        ),
    }
}

fn same(one: Value<'_>, other: Value<'_>) -> bool {
    match (one.as_int(), other.as_int()) {
        (Some(a), Some(b)) => a == b,
        _ => one == other,
    }
}

/// Compares one argument; `what` is `queue 'q' in vhost '/'`.
fn compare(what: &str, key: &str, current: Table<'_>, received: Table<'_>) -> Result {
    let (was, is) = match (current.get(key), received.get(key)) {
        (None, None) => return Ok(()),
        (Some(was), Some(is)) if same(was, is) => return Ok(()),
        (Some(was), Some(is)) => (format!("'{}'", plain(was)), format!("'{}'", plain(is))),
        (was, is) => (with_type(was), with_type(is)),
    };
    Err(inequivalent(key, what, &is, &was))
}

fn inequivalent(key: &str, what: &str, received: &str, current: &str) -> Fault {
    Fault::precondition(format!(
        "inequivalent arg '{key}' for {what}: received {received} but current is {current}"
    ))
}

fn compare_flag(what: &str, key: &str, current: bool, received: bool) -> Result {
    if current == received {
        return Ok(());
    }
    Err(inequivalent(
        key,
        what,
        &format!("'{received}'"),
        &format!("'{current}'"),
    ))
}

fn table(raw: &[u8]) -> Table<'_> {
    Table::parse(raw).unwrap_or_default()
}

/// Arguments that make queues differ; RabbitMQ keeps others without comparing them.
const COMPARED: [&str; 14] = [
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-queue-type",
    "x-queue-version",
    "x-single-active-consumer",
    "x-delivery-limit",
];

/// Is a queue what is being declared again?
pub(super) fn queue_equivalence(
    known: &Definition,
    durable: bool,
    auto_delete: bool,
    received: Table<'_>,
) -> Result {
    let what = format!("queue '{}' in vhost '/'", known.name);
    compare_flag(&what, "durable", known.durable, durable)?;
    compare_flag(&what, "auto_delete", known.auto_delete, auto_delete)?;
    let current = table(&known.arguments);
    for key in COMPARED {
        // The default type may be spelled out or not.
        if key == "x-queue-type" && known.kind == queue_kind(&known.name, received)? {
            continue;
        }
        compare(&what, key, current, received)?;
    }
    Ok(())
}

/// Is an exchange what is being declared again?
pub(super) fn exchange_equivalence(
    known: &ExchangeDefinition,
    received: &ExchangeDefinition,
) -> Result {
    let what = format!("exchange '{}' in vhost '/'", known.name);
    if known.kind != received.kind {
        let (is, was) = (
            format!("'{}'", received.kind.name()),
            format!("'{}'", known.kind.name()),
        );
        return Err(inequivalent("type", &what, &is, &was));
    }
    compare_flag(&what, "durable", known.durable, received.durable)?;
    compare_flag(
        &what,
        "auto_delete",
        known.auto_delete,
        received.auto_delete,
    )?;
    compare_flag(&what, "internal", known.internal, received.internal)?;
    compare(
        &what,
        "alternate-exchange",
        table(&known.arguments),
        table(&received.arguments),
    )
}

/// The type that a declaration asks for.
pub(super) fn queue_kind(name: &str, arguments: Table<'_>) -> Result<QueueKind> {
    match arguments.get("x-queue-type") {
        None | Some(Value::LongStr(b"classic")) => Ok(QueueKind::Classic),
        Some(Value::LongStr(b"quorum")) => Ok(QueueKind::Quorum),
        Some(Value::LongStr(b"stream")) => Err(Fault::not_implemented(
            "queue type 'stream' is not supported by this server",
        )),
        Some(other) => Err(Fault::precondition(format!(
            "invalid arg 'x-queue-type' for queue '{name}' in vhost '/': \"unsupported queue type '{}'\"",
            plain(other)
        ))),
    }
}

/// Refuses values that RabbitMQ refuses.
pub(super) fn check_queue(name: &str, arguments: Table<'_>) -> Result {
    let invalid = |key: &str, why: String| {
        Fault::precondition(format!(
            "invalid arg '{key}' for queue '{name}' in vhost '/': {why}"
        ))
    };
    for key in [
        "x-message-ttl",
        "x-expires",
        "x-max-length",
        "x-max-length-bytes",
        "x-max-priority",
    ] {
        let Some(value) = arguments.get(key) else {
            continue;
        };
        let Some(int) = value.as_int() else {
            return Err(invalid(
                key,
                format!("\"expected integer, got {}\"", value.type_name()),
            ));
        };
        if int < 0 {
            return Err(invalid(key, format!("{{value_negative,{int}}}")));
        }
        if key == "x-expires" && int == 0 {
            return Err(invalid(key, format!("{{value_zero,{int}}}")));
        }
        if key == "x-max-priority" && int > 255 {
            return Err(invalid(key, format!("{{max_value_exceeded,{int}}}")));
        }
    }
    for key in ["x-dead-letter-exchange", "x-dead-letter-routing-key"] {
        if let Some(value) = arguments
            .get(key)
            .filter(|value| value.as_bytes().is_none())
        {
            return Err(Fault::precondition(format!(
                "invalid type '{}' for arg '{key}' in queue '{name}' in vhost '/'",
                value.type_name()
            )));
        }
    }
    if arguments.get("x-dead-letter-routing-key").is_some()
        && arguments.get("x-dead-letter-exchange").is_none()
    {
        return Err(invalid(
            "x-dead-letter-routing-key",
            "routing_key_but_no_dlx_defined".into(),
        ));
    }
    if let Some(value) = arguments.get("x-overflow")
        && ![&b"drop-head"[..], b"reject-publish", b"reject-publish-dlx"]
            .iter()
            .any(|word| value.as_bytes() == Some(*word))
    {
        return Err(invalid("x-overflow", "invalid_overflow".into()));
    }
    // Sound, but a queue that took them would not do what they say.
    for key in [
        "x-max-priority",
        "x-delivery-limit",
        "x-dead-letter-strategy",
    ] {
        if arguments.get(key).is_some() {
            return Err(Fault::not_implemented(format!(
                "queue argument '{key}' is not supported by this server"
            )));
        }
    }
    Ok(())
}

/// What the queue is to do by itself; the arguments are sound.
pub(super) fn limits(arguments: Table<'_>) -> Limits {
    let number = |key| {
        arguments
            .get(key)
            .and_then(|value| value.as_int())
            .and_then(|int| u64::try_from(int).ok())
    };
    let text = |key| arguments.get(key).and_then(|value| value.as_bytes());
    Limits {
        message_ttl_ms: number("x-message-ttl"),
        expires_ms: number("x-expires"),
        length: number("x-max-length"),
        bytes: number("x-max-length-bytes"),
        overflow: match text("x-overflow") {
            Some(b"reject-publish") => Overflow::Reject,
            Some(b"reject-publish-dlx") => Overflow::RejectDeadLetter,
            _ => Overflow::DropHead,
        },
        dead_letter: text("x-dead-letter-exchange").map(|exchange| DeadLetter {
            exchange: String::from_utf8_lossy(exchange).into(),
            routing_key: text("x-dead-letter-routing-key").map(Bytes::copy_from_slice),
        }),
        single_active: arguments.get("x-single-active-consumer") == Some(Value::Bool(true)),
    }
}
