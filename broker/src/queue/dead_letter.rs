//! Messages that a queue drops and passes on.
//!
//! Their new queues lie behind other locks, so this happens in two steps: under the queue's lock the message leaves the
//! queue's memory and waits in [`Space`](super::Space)`::dead`; its row stays. Then, with all locks, one record puts it
//! into the new queues and deletes that row. A crash in between brings it back where it was.

use std::sync::Arc;

use storage::ShardId;

use super::definition::Definition;
use super::events::Event;
use super::headers::Headers;
use super::message::Message;
use super::ready::Entry;
use super::space;
use crate::stream::batch::HeaderList;
use crate::{Broker, Effects, Millis, ShardSet};

/// Why a message was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Rejected,
    Expired,
    MaxLength,
    DeliveryLimit,
}

impl Reason {
    /// The lane of messages that died so and found no queue; a part of their rows' keys.
    pub(super) const fn lane(self) -> u8 {
        match self {
            Self::Rejected => 1,
            Self::Expired => 2,
            Self::MaxLength => 3,
            Self::DeliveryLimit => 4,
        }
    }

    pub(super) fn of_lane(lane: u8) -> Option<Self> {
        [
            Self::Rejected,
            Self::Expired,
            Self::MaxLength,
            Self::DeliveryLimit,
        ]
        .into_iter()
        .find(|reason| reason.lane() == lane)
    }

    /// As RabbitMQ writes it into `x-death`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::MaxLength => "maxlen",
            Self::DeliveryLimit => "delivery_limit",
        }
    }
}

/// A message on its way to a dead-letter exchange.
#[derive(Debug)]
pub(super) struct Dead {
    pub(super) queue: Arc<Definition>,
    pub(super) entry: Entry,
    pub(super) reason: Reason,
}

/// What the face that knows the properties makes of a dropped message.
#[derive(Debug, Default)]
pub struct Stamped {
    /// With this death noted and the expiration taken out.
    pub properties: Vec<u8>,
    pub priority: u8,
    /// Queues that it has died in before without ever being rejected: it does not go there again.
    pub visited: Vec<String>,
}

/// The face that knows the properties of messages.
pub trait Reader: Send + Sync + std::fmt::Debug {
    /// Notes a death in a message's properties.
    fn stamp(&self, message: &Message, queue: &str, reason: Reason, now: Millis) -> Stamped;

    /// What makes a message the same as another one, for queues that take none twice; `None`: it is like no other.
    fn identity(&self, properties: &[u8]) -> Option<u128>;

    /// What a message carries besides its body, as headers of a record: the face finds it all in there again.
    fn record_headers(&self, message: &Message, into: &mut HeaderList);

    /// The message that tells of something; `user` has done it, or the server itself.
    fn describe(&self, event: &Event, user: Option<&str>, now: Millis) -> Message;

    /// Shows the headers of properties.
    fn show(&self, properties: &[u8], look: &mut dyn FnMut(&dyn Headers));
}

/// Passes on what waits in these shards. Takes its own locks; the caller holds none.
pub(super) fn bury(broker: &Broker, shards: ShardSet, now: Millis, fx: &mut Effects) {
    for shard in shards.iter().filter(|shard| *shard != ShardId::CATALOG) {
        let dead = std::mem::take(&mut broker.lock_one(shard).shard(shard).queues.dead);
        for dead in dead {
            pass_on(broker, &dead, now, fx);
        }
    }
}

/// Does a message that died in a queue find one to go to?
pub(super) fn is_routable(broker: &Broker, source: &Definition, message: &Message) -> bool {
    let Some(dead_letter) = &source.limits.dead_letter else {
        return true;
    };
    let key = dead_letter.routing_key.as_deref();
    let asked = Message::new(
        dead_letter.exchange.as_bytes(),
        key.unwrap_or(message.routing_key()),
        message.properties(),
        &[],
        false,
    );
    let route = broker.routes.route_own(&asked);
    route.is_ok_and(|route| !route.queues.is_empty())
}

fn pass_on(broker: &Broker, dead: &Dead, now: Millis, fx: &mut Effects) {
    let source = &dead.queue;
    let Some(dead_letter) = &source.limits.dead_letter else {
        return;
    };
    let message = &dead.entry.message;
    let stamped = broker.routes.stamp(message, &source.name, dead.reason, now);
    let exchange = dead_letter.exchange.as_bytes();
    let key = dead_letter
        .routing_key
        .as_deref()
        .unwrap_or(message.routing_key());
    let mut passed = Message::new(
        exchange,
        key,
        &stamped.properties,
        message.body(),
        message.is_persistent(),
    );
    passed.set_priority(stamped.priority);
    loop {
        // Without such an exchange the message is lost, as in RabbitMQ, unless the queue keeps it.
        let mut route = broker.routes.route_own(&passed).unwrap_or_default();
        if route.queues.is_empty() && dead_letter.at_least_once {
            let mut locked = broker.lock_one(source.shard());
            space::park(locked.shard(source.shard()), dead, now, fx);
            locked.commit(now, fx);
            return;
        }
        if dead.reason != Reason::Rejected {
            route
                .queues
                .retain(|queue| !stamped.visited.iter().any(|name| *name == *queue.name));
        }
        let mut locked = broker.lock(route.shards.with(source.shard()));
        if route.epoch != 0 && route.epoch != broker.routes.epoch() {
            continue;
        }
        if dead_letter.at_least_once && super::refusing(&mut locked, &route, &passed).is_some() {
            space::park(locked.shard(source.shard()), dead, now, fx);
            locked.commit(now, fx);
            return;
        }
        super::deliver_again(&mut locked, &route, passed, now, fx);
        space::forget(
            locked.shard(source.shard()),
            source.id,
            &dead.entry,
            now,
            fx,
        );
        locked.commit(now, fx);
        return;
    }
}

/// The position is unknown: a dropped message is nobody's to wait for.
pub(super) fn refused(queue: &Arc<Definition>, message: Message) -> Dead {
    Dead {
        queue: Arc::clone(queue),
        entry: Entry::new(0, message),
        reason: Reason::MaxLength,
    }
}
