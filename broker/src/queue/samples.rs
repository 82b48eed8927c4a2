//! Queues and messages for the tests of this crate.

use std::sync::Arc;

use bytes::Bytes;

use super::*;

pub(crate) const NOW: Millis = Millis(1);

/// Declares a classic queue.
pub(crate) fn queue(broker: &Broker, name: &str, durable: bool) -> Arc<Definition> {
    declared(broker, name, durable, QueueKind::Classic, Limits::default())
}

pub(crate) fn declared(
    broker: &Broker,
    name: &str,
    durable: bool,
    kind: QueueKind,
    limits: Limits,
) -> Arc<Definition> {
    let mut fx = Effects::new();
    let mut locked = broker.lock(shards_of(name));
    let want = Declare {
        name,
        kind,
        durable,
        auto_delete: false,
        exclusive_owner: None,
        arguments: Bytes::new(),
        limits,
    };
    let (definition, _) = declare_queue(&mut locked, &want, &mut fx);
    locked.commit(NOW, &mut fx);
    definition
}

pub(crate) fn at(queue: &Definition) -> QueueRef {
    QueueRef {
        shard: queue.shard(),
        id: queue.id,
    }
}

/// Publishes to a queue by the default exchange.
pub(crate) fn send(broker: &Broker, queue: &str, body: &[u8], persistent: bool) -> Delivered {
    send_with(broker, queue, body, persistent, 0)
}

pub(crate) fn send_with(
    broker: &Broker,
    queue: &str,
    body: &[u8],
    persistent: bool,
    priority: u8,
) -> Delivered {
    let mut message = Message::new(b"", queue.as_bytes(), b"\0\0", body, persistent);
    message.set_priority(priority);
    send_at(broker, queue, message, NOW)
}

/// Publishes to a queue by the default exchange.
pub(crate) fn send_at(broker: &Broker, queue: &str, message: Message, now: Millis) -> Delivered {
    let mut route = broker
        .routes
        .route(b"", queue.as_bytes(), &NoHeaders)
        .expect("default exchange");
    let mut told = Vec::new();
    publish(
        broker,
        &mut route,
        &mut vec![message],
        &NoHeaders,
        &|_| true,
        &mut told,
        now,
        &mut Effects::new(),
    )
    .expect("published");
    told.remove(0)
}
