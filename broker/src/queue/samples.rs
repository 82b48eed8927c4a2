//! Queues and messages for the tests of this crate.

use std::sync::Arc;

use bytes::Bytes;

use super::*;

pub(crate) const NOW: Millis = Millis(1);

/// Declares a classic queue.
pub(crate) fn queue(broker: &Broker, name: &str, durable: bool) -> Arc<Definition> {
    let mut fx = Effects::new();
    let mut locked = broker.lock(shards_of(name));
    let want = Declare {
        name,
        kind: QueueKind::Classic,
        durable,
        auto_delete: false,
        exclusive_owner: None,
        arguments: Bytes::new(),
        limits: Limits::default(),
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
    let mut route = broker
        .routes
        .route(b"", queue.as_bytes(), &NoHeaders)
        .expect("default exchange");
    let message = Message::new(b"", queue.as_bytes(), b"\0\0", body, persistent);
    let mut told = Vec::new();
    publish(
        broker,
        &mut route,
        &mut vec![message],
        &NoHeaders,
        &mut told,
        NOW,
        &mut Effects::new(),
    )
    .expect("published");
    told.remove(0)
}
