//! What one channel remembers.

use std::collections::VecDeque;
use std::sync::Arc;

use broker::queue::{Credit, Delivered, Entry, Message, QueueRef, Route, Verdict, Window};
use bytes::Bytes;
use hashbrown::HashMap;
use protocol_amqp::Assembly;

use super::overdue::Marks;

pub(super) type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Routes that a channel remembers; a client with more keys than this routes each message anew.
const ROUTES_MAX: usize = 256;

/// A message that the client has and has not acknowledged.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) queue: QueueRef,
    /// The consumer it was delivered to; `None` after `basic.get`.
    pub(super) consumer: Option<u64>,
    /// Milliseconds after which the queue wants to have it back, if it says so itself.
    pub(super) timeout: Option<u32>,
    /// `None`: it is a stream's, where it stays whatever the client says.
    pub(super) entry: Option<Entry>,
}

impl Pending {
    /// Has it taken room in the channel's window? Neither what a client got nor what a stream gives does.
    pub(super) fn is_in_window(&self) -> bool {
        self.consumer.is_some() && self.entry.is_some()
    }

    /// The message and the credit it gives back to a consumer of `connection`. `None`: it is a stream's.
    pub(super) fn settled_by(self, connection: u64) -> Option<(Entry, Credit)> {
        let credit = self.consumer.map(|consumer| (connection, consumer));
        Some((self.entry?, credit))
    }
}

/// Unacknowledged messages by delivery tag. Tags grow by one, so a tag is a place.
#[derive(Debug, Default)]
pub(super) struct Unacked {
    /// Tag of the first place.
    base: u64,
    places: VecDeque<Option<Pending>>,
}

impl Unacked {
    /// Remembers the message of the newest tag; `None` for one that needs no acknowledgement.
    pub(super) fn push(&mut self, tag: u64, pending: Option<Pending>) {
        if self.places.is_empty() {
            if pending.is_none() {
                return;
            }
            self.base = tag;
        }
        self.places.push_back(pending);
    }

    /// Tag of the oldest message.
    pub(super) fn oldest(&self) -> Option<u64> {
        (!self.places.is_empty()).then_some(self.base)
    }

    /// From a tag on, oldest first.
    pub(super) fn from(&self, tag: u64) -> impl Iterator<Item = (u64, &Pending)> {
        let skipped = usize::try_from(tag.saturating_sub(self.base)).unwrap_or(usize::MAX);
        let skipped = skipped.min(self.places.len());
        let tags = self.base + skipped as u64..;
        let places = tags.zip(self.places.range(skipped..));
        places.filter_map(|(tag, pending)| Some((tag, pending.as_ref()?)))
    }

    /// Takes one message.
    pub(super) fn take(&mut self, tag: u64) -> Option<Pending> {
        let place = usize::try_from(tag.checked_sub(self.base)?).ok()?;
        let pending = self.places.get_mut(place)?.take()?;
        while let Some(None) = self.places.front() {
            self.places.pop_front();
            self.base += 1;
        }
        Some(pending)
    }

    /// Takes everything up to `tag`, which must be there itself; 0 = everything.
    pub(super) fn take_until(&mut self, tag: u64, mut each: impl FnMut(u64, Pending)) -> bool {
        let mut at = self.base;
        let mut give = |pending: Option<Pending>| {
            if let Some(pending) = pending {
                each(at, pending);
            }
            at += 1;
        };
        if tag == 0 {
            self.places.drain(..).for_each(give);
            return true;
        }
        let place = tag
            .checked_sub(self.base)
            .and_then(|place| usize::try_from(place).ok());
        let Some(place) = place.filter(|place| matches!(self.places.get(*place), Some(Some(_))))
        else {
            return false;
        };
        self.places.drain(..=place).for_each(&mut give);
        self.base += place as u64 + 1;
        while let Some(None) = self.places.front() {
            self.places.pop_front();
            self.base += 1;
        }
        true
    }

    /// The message of a tag is unacknowledged again.
    pub(super) fn put_back(&mut self, tag: u64, pending: Pending) {
        if self.places.is_empty() {
            self.base = tag;
        }
        while tag < self.base {
            self.places.push_front(None);
            self.base -= 1;
        }
        let place = usize::try_from(tag - self.base).unwrap_or(usize::MAX);
        while self.places.len() <= place {
            self.places.push_back(None);
        }
        if let Some(free) = self.places.get_mut(place) {
            *free = Some(pending);
        }
    }
}

/// A publish under way: the method came, the content is coming.
#[derive(Debug, Default)]
pub(super) struct Publishing {
    pub(super) stage: Stage,
    pub(super) exchange: Vec<u8>,
    pub(super) routing_key: Vec<u8>,
    pub(super) mandatory: bool,
    pub(super) properties: Vec<u8>,
    pub(super) persistent: bool,
    pub(super) expiration_ms: Option<u64>,
    pub(super) priority: u8,
    /// Routing looks into the message's headers for more keys (CC, BCC).
    pub(super) copies: bool,
    /// Milliseconds until it is routed.
    pub(super) delay_ms: Option<u64>,
    pub(super) body_size: u64,
    pub(super) assembly: Assembly,
    /// Octets of a body that is not whole, and of its properties, as counted in the connection's.
    pub(super) held: usize,
    /// The body is complete: `Some(None)` when it is the payload of the frame at hand.
    pub(super) whole: Option<Option<Bytes>>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Only a method may come.
    #[default]
    Method,
    Header,
    Body,
}

/// Messages and octets after which a batch is told to the broker.
const BATCH_MAX: usize = 256;
const BATCH_OCTETS: usize = 256 << 10;

/// Messages of one turn with the same exchange and key: one lock and one record for all.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) messages: Vec<Message>,
    octets: usize,
    /// What became of each, when they were told.
    pub(super) told: Vec<Delivered>,
}

impl Batch {
    /// Is there a batch, and does a message with these names belong to it?
    pub(super) fn goes_to(&self, exchange: &[u8], routing_key: &[u8]) -> bool {
        self.messages
            .first()
            .is_some_and(|first| first.routing_key() == routing_key && first.exchange() == exchange)
    }

    pub(super) fn push(&mut self, message: Message) {
        if self.messages.is_empty() {
            self.octets = 0;
        }
        self.octets += message.weight();
        self.messages.push(message);
    }

    pub(super) fn is_full(&self) -> bool {
        self.messages.len() >= BATCH_MAX || self.octets >= BATCH_OCTETS
    }
}

/// Publisher confirms of a channel in confirm mode.
#[derive(Debug, Default)]
pub(super) struct Confirms {
    /// Messages published since confirm.select.
    pub(super) published: u64,
    /// The last one that was confirmed.
    pub(super) confirmed: u64,
    /// Refused by a full queue in this turn.
    pub(super) refused: Vec<u64>,
}

/// What a transaction will do at its commit.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub(super) publishes: Vec<TxPublish>,
    pub(super) settled: Vec<Settled>,
    /// Octets of the messages, as counted in the connection's.
    pub(super) held: usize,
    /// How many of the messages are delayed: each takes a number, and a record has only so many.
    pub(super) delayed: usize,
    /// Octets that its record will have, as the routes were when they were published.
    pub(super) octets: usize,
}

#[derive(Debug)]
pub(super) struct TxPublish {
    pub(super) message: Message,
    pub(super) route: Route,
    pub(super) mandatory: bool,
    /// Milliseconds from the commit until it is routed.
    pub(super) delay_ms: Option<u64>,
}

impl TxPublish {
    /// Octets of memory: the message once, and what points to its queues.
    pub(super) fn held(&self) -> usize {
        let pointers = self.route.queues.len() * size_of::<usize>();
        self.message.weight() + size_of::<Self>() + pointers
    }
}

/// What the client said about a message.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) pending: Pending,
    pub(super) verdict: Verdict,
    pub(super) tag: u64,
}

/// Publisher's memory of where keys led.
#[derive(Debug, Default)]
pub(super) struct RouteCache {
    routes: Map<Box<[u8]>, Route>,
    key: Vec<u8>,
}

impl RouteCache {
    /// The remembered route of an exchange and key.
    pub(super) fn get(&mut self, exchange: &[u8], routing_key: &[u8]) -> Option<&mut Route> {
        self.key.clear();
        // A length first, or `ab` + `c` would be `a` + `bc`.
        self.key
            .push(u8::try_from(exchange.len()).unwrap_or(u8::MAX));
        self.key.extend_from_slice(exchange);
        self.key.extend_from_slice(routing_key);
        self.routes.get_mut(&self.key[..])
    }

    /// Remembers the route asked for last.
    pub(super) fn insert(&mut self, route: Route) {
        if self.routes.len() >= ROUTES_MAX {
            self.routes.clear();
        }
        self.routes.insert(self.key[..].into(), route);
    }
}

/// One channel.
#[derive(Debug, Default)]
pub(super) struct Channel {
    /// We have closed it and wait for the client's close-ok; everything else is dropped.
    pub(super) closing: bool,
    pub(super) publishing: Publishing,
    /// Published in this turn and not yet told to the broker.
    pub(super) batch: Batch,
    pub(super) routes: RouteCache,
    pub(super) confirms: Option<Confirms>,
    pub(super) tx: Option<Transaction>,
    /// The last delivery tag given.
    pub(super) last_tag: u64,
    pub(super) unacked: Unacked,
    /// When it was how far, see [`super::overdue`].
    pub(super) marks: Marks,
    /// Consumers by tag.
    pub(super) consumers: Map<Box<[u8]>, u64>,
    /// For consumers to come (`basic.qos`); 0 = no limit.
    pub(super) prefetch: u16,
    pub(super) window: Arc<Window>,
    /// The hidden queue of direct reply-to, while this channel consumes from it.
    pub(super) reply_queue: Option<String>,
    /// The queue declared last: an empty name means it.
    pub(super) last_queue: Option<String>,
}

impl Channel {
    /// Octets of a body that is not whole yet, and of the transaction.
    pub(super) fn held(&self) -> usize {
        self.publishing.held + self.tx.as_ref().map_or(0, |tx| tx.held)
    }

    pub(super) fn next_tag(&mut self) -> u64 {
        self.last_tag += 1;
        self.last_tag
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_without_messages_are_unknown() {
        let mut unacked = Unacked::default();
        unacked.push(1, None);
        assert!(unacked.take(1).is_none());
        assert!(!unacked.take_until(1, |_, _| ()));
        assert!(unacked.take_until(0, |_, _| ()));
    }
}
