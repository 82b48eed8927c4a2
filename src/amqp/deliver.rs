//! From the broker's mailbox to the wire.

use std::sync::Arc;

use broker::queue::{Definition, Delivery, Entry, Event, Message, Verdict};
use bytes::Bytes;
use hashbrown::HashMap;
use protocol_amqp::{FRAME_END, FRAME_OVERHEAD, Method, Properties, ShortStr, TableBuilder, Value};

use super::channel::{Channel, Pending};
use super::session::{Core, is_quorum, reference};
use crate::net::Outbox;

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Bodies of this many octets and more leave without being copied.
const SHARED: usize = 16 << 10;

/// Everything that the broker has put in; messages for consumers that are gone go back.
pub(super) fn events(
    core: &mut Core,
    channels: &mut Map<u16, Channel>,
    events: &mut Vec<Event>,
    out: &mut Outbox,
) {
    let mut homeless = Vec::new();
    for event in events.drain(..) {
        match event {
            Event::Delivered(delivery) => {
                if let Some(delivery) = one(core, channels, delivery, out) {
                    homeless.push(Event::Delivered(delivery));
                }
            }
            Event::Cancelled { consumer } => cancelled(core, channels, consumer, out),
        }
    }
    if !homeless.is_empty() {
        give_back(core, homeless);
    }
}

/// Gives the message back when its consumer or channel is gone.
fn one(
    core: &mut Core,
    channels: &mut Map<u16, Channel>,
    delivery: Delivery,
    out: &mut Outbox,
) -> Option<Delivery> {
    if core.is_traced(delivery.entry.message().exchange()) {
        trace(core, &delivery);
    }
    let Some(subscription) = core.subscriptions.get(&delivery.consumer) else {
        return Some(delivery);
    };
    let id = subscription.channel;
    let Some(channel) = channels.get_mut(&id) else {
        return Some(delivery);
    };
    let entry = delivery.entry;
    let tag = channel.next_tag();
    let message = entry.message();
    let lsn = entry.lsn();
    if lsn.0 != 0 && !subscription.no_ack {
        out.need(core.need(lsn, is_quorum(&subscription.queue)));
    }
    protocol_amqp::deliver(
        out.bytes(),
        id,
        &subscription.tag,
        tag,
        entry.is_redelivered(),
        message.exchange(),
        message.routing_key(),
    );
    self::entry(&entry, &subscription.queue, id, core.frame_max, out);
    let pending = (!subscription.no_ack).then(|| Pending {
        queue: reference(&subscription.queue),
        consumer: Some(delivery.consumer),
        timeout: timeout(&subscription.queue),
        entry: Some(entry),
    });
    channel.unacked.push(tag, pending);
    None
}

#[cold]
fn trace(core: &mut Core, delivery: &Delivery) {
    if let Some(subscription) = core.subscriptions.get(&delivery.consumer) {
        let (queue, channel) = (Arc::clone(&subscription.queue), subscription.channel);
        core.trace_deliver(&delivery.entry, &queue, channel);
    }
}

/// Header and body frames of a message from a queue. A quorum queue says how often it was given back.
#[inline]
pub(super) fn entry(entry: &Entry, queue: &Definition, id: u16, frame_max: u32, out: &mut Outbox) {
    let message = entry.message();
    if is_quorum(queue) {
        let counted = with_count(message.properties(), entry.attempts());
        let (body, shared) = (message.body(), message.shared_body());
        frames(body, shared, &counted, id, frame_max, out);
    } else {
        content(message, id, frame_max, out);
    }
}

/// What a queue says itself about how long its messages may be kept.
pub(super) fn timeout(queue: &Definition) -> Option<u32> {
    let millis = queue.limits.consumer_timeout_ms?;
    Some(u32::try_from(millis).unwrap_or(u32::MAX))
}

fn with_count(raw: &[u8], attempts: u16) -> Vec<u8> {
    /// RabbitMQ's name for it.
    const NAME: &str = "x-delivery-count";
    let properties = Properties::parse(raw).unwrap_or_default();
    let mut headers = TableBuilder::new();
    let sent = properties.headers.unwrap_or_default();
    for (name, value) in sent.iter().filter(|(name, _)| *name != NAME.as_bytes()) {
        headers.push(name, value);
    }
    headers.push(NAME.as_bytes(), Value::I64(attempts.into()));
    let headers = Some(headers.as_table());
    Properties {
        headers,
        ..properties
    }
    .to_raw()
}

/// Header and body frames of a message as it was published.
pub(super) fn content(message: &Message, id: u16, frame_max: u32, out: &mut Outbox) {
    let (body, shared) = (message.body(), message.shared_body());
    frames(body, shared, message.properties(), id, frame_max, out);
}

/// Header and body frames; `shared` is the body, if it need not be copied.
pub(super) fn frames(
    body: &[u8],
    shared: Option<&Bytes>,
    properties: &[u8],
    id: u16,
    frame_max: u32,
    out: &mut Outbox,
) {
    protocol_amqp::content_header(out.bytes(), id, body.len() as u64, properties);
    let Some(shared) = shared.filter(|body| body.len() >= SHARED) else {
        protocol_amqp::content_body(out.bytes(), id, body, frame_max);
        return;
    };
    let limit = if frame_max <= FRAME_OVERHEAD {
        usize::MAX
    } else {
        (frame_max - FRAME_OVERHEAD) as usize
    };
    let mut at = 0;
    while at < shared.len() {
        let end = shared.len().min(at.saturating_add(limit));
        protocol_amqp::content_body_head(out.bytes(), id, end - at);
        out.push(shared.slice(at..end));
        out.bytes().push(FRAME_END);
        at = end;
    }
}

/// The queue of a consumer is gone.
fn cancelled(core: &mut Core, channels: &mut Map<u16, Channel>, consumer: u64, out: &mut Outbox) {
    let Some(subscription) = core.subscriptions.remove(&consumer) else {
        return;
    };
    core.readers.remove(&core.node.broker, consumer);
    core.tell_consumer(&subscription, None);
    if let Some(channel) = channels.get_mut(&subscription.channel) {
        channel.consumers.remove(&subscription.tag);
        if core.cancel_notify {
            let cancel = Method::BasicCancel {
                consumer_tag: ShortStr(&subscription.tag),
                nowait: true,
            };
            protocol_amqp::method(out.bytes(), subscription.channel, &cancel);
        }
    }
}

/// Messages that never reached the client go back to their queues.
pub(super) fn give_back(core: &mut Core, events: Vec<Event>) {
    let mut back = Vec::new();
    for event in events {
        let Event::Delivered(delivery) = event else {
            continue;
        };
        // What needs no acknowledgement was gone when it was handed over, as on a socket that breaks.
        if let Some(queue) = delivery.origin {
            back.push(Pending {
                queue,
                consumer: Some(delivery.consumer),
                timeout: None,
                entry: Some(delivery.entry),
            });
        }
    }
    core.settle(Verdict::Requeue, &mut back);
}
