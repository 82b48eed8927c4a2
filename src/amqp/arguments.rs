//! Arguments of declarations: checked, kept, and compared when something is declared again.

use broker::queue::{
    DeadLetter, Definition, ExchangeDefinition, Limits, Once, Overflow, QueueKind,
};
use bytes::Bytes;
use protocol_amqp::{Table, Value};

use super::fault::{Fault, Result};

/// A value as RabbitMQ's texts print it.
pub(super) fn plain(value: Value<'_>) -> String {
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
const COMPARED: [&str; 20] = [
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
    "x-consumer-timeout",
    "x-message-deduplication",
    "x-cache-size",
    "x-cache-ttl",
    "x-max-age",
    "x-stream-max-segment-size-bytes",
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
    if known.type_name() != received.type_name() {
        let (is, was) = (
            format!("'{}'", received.type_name()),
            format!("'{}'", known.type_name()),
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
    let (current, received) = (table(&known.arguments), table(&received.arguments));
    compare(&what, "x-delayed-type", current, received)?;
    compare(&what, "alternate-exchange", current, received)
}

/// The type that a declaration asks for.
pub(super) fn queue_kind(name: &str, arguments: Table<'_>) -> Result<QueueKind> {
    match arguments.get("x-queue-type") {
        None | Some(Value::LongStr(b"classic")) => Ok(QueueKind::Classic),
        Some(Value::LongStr(b"quorum")) => Ok(QueueKind::Quorum),
        Some(Value::LongStr(b"stream")) => Ok(QueueKind::Stream),
        Some(other) if other.as_bytes().is_none() => Err(invalid(
            "x-queue-type",
            name,
            &format!("{{unacceptable_type,{}}}", other.type_name()),
        )),
        Some(other) => Err(Fault::precondition(format!(
            "invalid arg 'x-queue-type' for queue '{name}' in vhost '/': \"unsupported queue type '{}'\"",
            plain(other)
        ))),
    }
}

/// Arguments that have a meaning for one kind of queue only, so that the other kinds refuse them.
const OF_CLASSIC: [&str; 4] = [
    "x-max-priority",
    "x-queue-mode",
    "x-queue-version",
    "x-queue-master-locator",
];
const OF_QUORUM: [&str; 5] = [
    "x-delivery-limit",
    "x-dead-letter-strategy",
    "x-max-in-memory-length",
    "x-max-in-memory-bytes",
    "x-quorum-initial-group-size",
];
const OF_STREAM: [&str; 4] = [
    "x-max-age",
    "x-stream-max-segment-size-bytes",
    "x-stream-filter-size-bytes",
    "x-initial-cluster-size",
];
/// Of both others.
const NOT_OF_STREAM: [&str; 9] = [
    "x-message-ttl",
    "x-expires",
    "x-max-length",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-overflow",
    "x-single-active-consumer",
    "x-consumer-timeout",
    "x-quorum-target-group-size",
];
/// RabbitMQ's largest segment.
const SEGMENT_MAX: i64 = 3_000_000_000;

fn invalid(key: &str, name: &str, why: &str) -> Fault {
    Fault::precondition(format!(
        "invalid arg '{key}' for queue '{name}' in vhost '/': {why}"
    ))
}

/// Refuses values that RabbitMQ refuses, and arguments of other kinds of queues.
pub(super) fn check_queue(name: &str, kind: QueueKind, arguments: Table<'_>) -> Result {
    let foreign: [&[&str]; 3] = match kind {
        QueueKind::Classic => [&OF_QUORUM, &OF_STREAM, &[]],
        QueueKind::Quorum => [&OF_CLASSIC, &OF_STREAM, &[]],
        QueueKind::Stream => [&OF_CLASSIC, &OF_QUORUM, &NOT_OF_STREAM],
    };
    let mut foreign = foreign.into_iter().flatten();
    match foreign.find(|key| arguments.get(key).is_some()) {
        None => check_numbers(name, arguments).and_then(|()| check_words(name, arguments)),
        Some(key) => Err(of_other_kind(key, name, kind)),
    }
}

/// RabbitMQ's module for a kind of queue, which its texts name.
pub(super) fn module(kind: QueueKind) -> &'static str {
    match kind {
        QueueKind::Classic => "rabbit_classic_queue",
        QueueKind::Quorum => "rabbit_quorum_queue",
        QueueKind::Stream => "rabbit_stream_queue",
    }
}

fn of_other_kind(key: &str, name: &str, kind: QueueKind) -> Fault {
    let module = module(kind);
    Fault::precondition(format!(
        "invalid arg '{key}' for queue '{name}' in vhost '/' of queue type {module}"
    ))
}

/// What RabbitMQ refuses of streams behind everything else.
pub(super) fn check_stream(arguments: Table<'_>) -> Result {
    let number = |key| arguments.get(key).and_then(|value| value.as_int());
    if number("x-stream-max-segment-size-bytes").is_some_and(|size| size > SEGMENT_MAX) {
        return Err(Fault::precondition(
            "Exceeded max value for x-stream-max-segment-size-bytes",
        ));
    }
    if number("x-stream-filter-size-bytes").is_some_and(|size| !(16..=255).contains(&size)) {
        // With two spaces, as RabbitMQ 3.13 has it.
        return Err(Fault::precondition(
            "Invalid value for  x-stream-filter-size-bytes",
        ));
    }
    Ok(())
}

/// Arguments of a stream's consumers.
pub(super) fn check_stream_consumer(name: &str, arguments: Table<'_>) -> Result {
    match arguments.get("x-priority") {
        None => Ok(()),
        Some(_) => Err(of_other_kind("x-priority", name, QueueKind::Stream)),
    }
}

/// Milliseconds of an age such as `7D`: a whole number that is not 0, and one unit.
pub(super) fn age(text: &[u8]) -> Option<u64> {
    const SECOND: u64 = 1_000;
    const DAY: u64 = 24 * 60 * 60 * SECOND;
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let unit = match unit {
        b'Y' => 365 * DAY,
        b'M' => 30 * DAY,
        b'D' => DAY,
        b'h' => 60 * 60 * SECOND,
        b'm' => 60 * SECOND,
        b's' => SECOND,
        _ => return None,
    };
    Some(count.saturating_mul(unit)).filter(|age| *age > 0)
}

/// What a stream's arguments say in the configurations of a topic.
pub(super) fn stream_configs(arguments: Table<'_>) -> Vec<(String, String)> {
    let number = |key, most: i64| {
        let number = arguments.get(key).and_then(|value| value.as_int())?;
        Some(number.clamp(0, most))
    };
    let age = arguments
        .get("x-max-age")
        .and_then(|value| age(value.as_bytes()?))
        .map(|age| i64::try_from(age).unwrap_or(i64::MAX));
    let configs = [
        ("retention.ms", age),
        ("retention.bytes", number("x-max-length-bytes", i64::MAX)),
        (
            "segment.bytes",
            number("x-stream-max-segment-size-bytes", i32::MAX.into()).map(|size| size.max(14)),
        ),
    ];
    let set = configs
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_string())));
    set.collect()
}

fn check_numbers(name: &str, arguments: Table<'_>) -> Result {
    for key in [
        "x-message-ttl",
        "x-expires",
        "x-max-length",
        "x-max-length-bytes",
        "x-max-priority",
        "x-queue-version",
        "x-consumer-timeout",
        "x-cache-size",
        "x-cache-ttl",
        "x-stream-max-segment-size-bytes",
        "x-stream-filter-size-bytes",
        "x-initial-cluster-size",
    ] {
        let Some(value) = arguments.get(key) else {
            continue;
        };
        let Some(int) = value.as_int() else {
            let why = format!("\"expected integer, got {}\"", value.type_name());
            return Err(invalid(key, name, &why));
        };
        if key == "x-queue-version" {
            if ![1, 2].contains(&int) {
                let why = format!("\"unsupported queue version '{int}'\"");
                return Err(invalid(key, name, &why));
            }
            continue;
        }
        if int < 0 {
            return Err(invalid(key, name, &format!("{{value_negative,{int}}}")));
        }
        if [
            "x-expires",
            "x-cache-size",
            "x-cache-ttl",
            "x-initial-cluster-size",
        ]
        .contains(&key)
            && int == 0
        {
            return Err(invalid(key, name, &format!("{{value_zero,{int}}}")));
        }
        if key == "x-max-priority" && int > 255 {
            return Err(invalid(key, name, &format!("{{max_value_exceeded,{int}}}")));
        }
    }
    Ok(())
}

fn check_words(name: &str, arguments: Table<'_>) -> Result {
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
            name,
            "routing_key_but_no_dlx_defined",
        ));
    }
    for key in ["x-single-active-consumer", "x-message-deduplication"] {
        if let Some(value) = arguments.get(key)
            && !matches!(value, Value::Bool(_))
        {
            let why = format!("{{unacceptable_type,{}}}", value.type_name());
            return Err(invalid(key, name, &why));
        }
    }
    if let Some(value) = arguments.get("x-max-age") {
        match value.as_bytes() {
            None => {
                let why = format!("{{unacceptable_type,{}}}", value.type_name());
                return Err(invalid("x-max-age", name, &why));
            }
            Some(text) if age(text).is_none() => {
                return Err(invalid("x-max-age", name, "invalid_max_age"));
            }
            Some(_) => {}
        }
    }
    let words: [(&str, &[&[u8]]); 4] = [
        (
            "x-overflow",
            &[b"drop-head", b"reject-publish", b"reject-publish-dlx"],
        ),
        (
            "x-dead-letter-strategy",
            &[b"at-most-once", b"at-least-once"],
        ),
        ("x-queue-mode", &[b"default", b"lazy"]),
        (
            "x-queue-leader-locator",
            &[b"client-local", b"balanced", b"random", b"least-leaders"],
        ),
    ];
    for (key, known) in words {
        let Some(value) = arguments.get(key) else {
            continue;
        };
        let why = match value.as_bytes() {
            None => format!("{{unacceptable_type,{}}}", value.type_name()),
            Some(word) if known.contains(&word) => continue,
            Some(_) if key == "x-overflow" => "invalid_overflow".to_owned(),
            Some(_) if key == "x-dead-letter-strategy" => "invalid_dlx_strategy".to_owned(),
            Some(_) if key == "x-queue-leader-locator" => "invalid_queue_locator_arg".to_owned(),
            Some(word) => format!(
                "\"unsupported queue mode '{}'\"",
                String::from_utf8_lossy(word)
            ),
        };
        return Err(invalid(key, name, &why));
    }
    Ok(())
}

/// Identities that a queue remembers at most: about 10 MB.
const ONCE_MAX: u64 = 100_000;

/// What the queue is to do by itself; the arguments are sound. RabbitMQ calls a negative `x-delivery-limit` no limit from
/// version 4 on; before that a message is dropped when it is given back.
pub(super) fn limits(arguments: Table<'_>, announced_version: &str) -> Limits {
    let number = |key| {
        arguments
            .get(key)
            .and_then(|value| value.as_int())
            .and_then(|int| u64::try_from(int).ok())
    };
    let text = |key| arguments.get(key).and_then(|value| value.as_bytes());
    let before_4 = ["0.", "1.", "2.", "3."]
        .iter()
        .any(|major| announced_version.starts_with(major));
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
            // RabbitMQ falls back to at-most-once for queues that drop what is too much.
            at_least_once: text("x-dead-letter-strategy") == Some(b"at-least-once")
                && text("x-overflow") == Some(b"reject-publish"),
        }),
        single_active: arguments.get("x-single-active-consumer") == Some(Value::Bool(true)),
        // With 0 all are equal, as without it.
        max_priority: number("x-max-priority")
            .and_then(|highest| u8::try_from(highest).ok())
            .filter(|highest| *highest > 0),
        delivery_limit: arguments
            .get("x-delivery-limit")
            .and_then(|value| value.as_int())
            .and_then(|int| u64::try_from(int).ok().or_else(|| before_4.then_some(0))),
        consumer_timeout_ms: number("x-consumer-timeout"),
        once: (arguments.get("x-message-deduplication") == Some(Value::Bool(true))).then(|| Once {
            ttl_ms: number("x-cache-ttl"),
            size: number("x-cache-size").unwrap_or(ONCE_MAX).min(ONCE_MAX),
        }),
    }
}
