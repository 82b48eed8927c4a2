//! Identities of messages that a queue has or had lately: a message with one of them is that message again.
//!
//! Each is a row, if its message is one, so that a publisher who did not hear of a confirm before a crash may publish again
//! after it.

use std::collections::BTreeSet;

use hashbrown::HashMap;
use storage::{Engine, ShardId};

use super::definition::Definition;
use crate::law::hash;
use crate::rows::{self, Tag};
use crate::{Effects, Millis, Slot};

/// Octets that one costs, about.
const ENTRY_BYTES: usize = 96;

/// Forgotten with one message, at most, unless there are more than there may be.
const STEP: usize = 64;

/// What a queue that takes nothing twice remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Once {
    /// Milliseconds from when the message came; `None`: as long as the queue has it.
    pub ttl_ms: Option<u64>,
    /// The newest so many.
    pub size: u64,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    /// The message's place, or until when it is remembered, in milliseconds since 1970.
    mark: u64,
    stored: bool,
}

#[derive(Debug, Default)]
pub(super) struct Seen {
    known: HashMap<u128, Known, foldhash::fast::RandomState>,
    /// By mark.
    order: BTreeSet<(u64, u128)>,
}

impl Seen {
    pub(super) fn load(queue: &Definition, engine: &Engine) -> Result<Self, storage::Error> {
        let mut seen = Self::default();
        let prefix = rows::object_prefix(queue.slot, Tag::Seen, queue.id);
        rows::each(engine, &prefix, &mut |key, value| {
            if let (Some(identity), Ok(mark)) = (key.last_chunk::<16>(), value.try_into()) {
                let (identity, mark) = (u128::from_be_bytes(*identity), u64::from_le_bytes(mark));
                let stored = true;
                seen.known.insert(identity, Known { mark, stored });
                seen.order.insert((mark, identity));
            }
            true
        })?;
        Ok(seen)
    }

    pub(super) fn bytes(&self) -> usize {
        self.order.len() * ENTRY_BYTES
    }

    pub(super) fn has(&self, identity: u128, once: Once, now: Millis) -> bool {
        let known = self.known.get(&identity);
        known.is_some_and(|known| once.ttl_ms.is_none() || known.mark > now.0)
    }

    /// The queue takes the message at `seq`; `stored`: a restart brings it back.
    pub(super) fn note(
        &mut self,
        (identity, seq): (u128, u64),
        stored: bool,
        (once, now): (Once, Millis),
        (queue, shard): (&Definition, ShardId),
        fx: &mut Effects,
    ) {
        let mark = once.ttl_ms.map_or(seq, |ttl| now.0.saturating_add(ttl));
        if let Some(before) = self.known.insert(identity, Known { mark, stored }) {
            self.order.remove(&(before.mark, identity));
            if before.stored && !stored {
                fx.del(shard, &row_key(queue.slot, queue.id, identity));
            }
        }
        self.order.insert((mark, identity));
        if stored {
            let row = row_key(queue.slot, queue.id, identity);
            fx.put(shard, &row, &mark.to_le_bytes());
        }
        for step in 0.. {
            let too_many = self.order.len() as u64 > once.size;
            let over = |mark| step < STEP && once.ttl_ms.is_some() && mark <= now.0;
            match self.order.first().copied() {
                Some(first) if too_many || over(first.0) => self.drop(first, queue, shard, fx),
                _ => break,
            }
        }
    }

    /// The message at `seq` is gone, of a queue that remembers what it has.
    pub(super) fn forget(
        &mut self,
        seq: u64,
        queue: &Definition,
        shard: ShardId,
        fx: &mut Effects,
    ) {
        let at_seq = self.order.range((seq, 0)..=(seq, u128::MAX)).next();
        if let Some(found) = at_seq.copied() {
            self.drop(found, queue, shard, fx);
        }
    }

    /// As [`Seen::forget`] for all that are `gone`.
    pub(super) fn forget_all(
        &mut self,
        gone: &dyn Fn(u64) -> bool,
        queue: &Definition,
        shard: ShardId,
        fx: &mut Effects,
    ) {
        let all: Vec<_> = self
            .order
            .iter()
            .copied()
            .filter(|(mark, _)| gone(*mark))
            .collect();
        for found in all {
            self.drop(found, queue, shard, fx);
        }
    }

    fn drop(
        &mut self,
        (mark, identity): (u64, u128),
        queue: &Definition,
        shard: ShardId,
        fx: &mut Effects,
    ) {
        self.order.remove(&(mark, identity));
        if self
            .known
            .remove(&identity)
            .is_some_and(|known| known.stored)
        {
            fx.del(shard, &row_key(queue.slot, queue.id, identity));
        }
    }

    /// The queue is gone.
    pub(super) fn del_rows(&self, queue: &Definition, shard: ShardId, fx: &mut Effects) {
        for (identity, known) in &self.known {
            if known.stored {
                fx.del(shard, &row_key(queue.slot, queue.id, *identity));
            }
        }
    }

    /// What of it outlives a restart, in words that do not depend on an order.
    pub(super) fn fact(&self) -> String {
        let stored = self.known.iter().filter(|(_, known)| known.stored);
        let (count, sum) = stored.fold((0, 0_u64), |(count, sum), (identity, known)| {
            let parts = [&identity.to_le_bytes()[..], &known.mark.to_le_bytes()[..]];
            (count + 1, sum.wrapping_add(hash(parts)))
        });
        format!("{count} identities, {sum:016x}")
    }
}

fn row_key(slot: Slot, queue: u64, identity: u128) -> [u8; 27] {
    let mut key = [0; 27];
    let (head, tail) = key.split_at_mut(11);
    head.copy_from_slice(&rows::object_prefix(slot, Tag::Seen, queue));
    tail.copy_from_slice(&identity.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::super::samples::{at, declared};
    use super::super::*;
    use super::*;
    use crate::stream::batch::HeaderList;
    use crate::{Broker, Budgets};

    /// Properties are the identity.
    #[derive(Debug)]
    struct Plain;

    impl Reader for Plain {
        fn stamp(&self, message: &Message, _: &str, _: Reason, _: Millis) -> Stamped {
            Stamped {
                properties: message.properties().to_vec(),
                ..Stamped::default()
            }
        }

        fn identity(&self, properties: &[u8]) -> Option<u128> {
            properties.first().map(|first| u128::from(*first))
        }

        fn record_headers(&self, _: &Message, _: &mut HeaderList) {}

        fn describe(&self, _: &events::Event, _: Option<&str>, _: Millis) -> Message {
            Message::default()
        }

        fn show(&self, _: &[u8], look: &mut dyn FnMut(&dyn Headers)) {
            look(&NoHeaders);
        }
    }

    fn open(dir: &std::path::Path) -> Broker {
        let engine = Engine::open(storage::Options::new(dir)).expect("engine");
        let broker = Broker::open(engine, Budgets::split(1 << 26)).expect("broker");
        broker.routes.set_reader(&Plain);
        broker
    }

    fn close(broker: Broker) {
        broker.engine.flush();
        broker.engine.close().expect("close");
    }

    /// Publishes at a time; how many messages the queue has then.
    fn send(broker: &Broker, identity: &[u8], persistent: bool, now: u64) -> u64 {
        let message = Message::new(b"", b"q", identity, b"x", persistent);
        let told = samples::send_at(broker, "q", message, Millis(now));
        assert_eq!((told.queues, told.logged), (1, persistent));
        let q = broker.routes.queue("q").expect("queue");
        counts(broker, at(&q)).map_or(0, |counts| counts.ready)
    }

    fn once(ttl_ms: Option<u64>, size: u64) -> Limits {
        Limits {
            once: Some(Once { ttl_ms, size }),
            ..Limits::default()
        }
    }

    fn delete(broker: &Broker) {
        let (q, mut fx) = (broker.routes.queue("q").expect("queue"), Effects::new());
        let mut locked = broker.lock(shards_of("q"));
        delete_queue(&mut locked, &q, false, false, Millis(1), &mut fx).expect("deleted");
        locked.commit(Millis(1), &mut fx);
        drop(locked);
        broker.engine.flush();
        broker.engine.fold_now().expect("fold");
        while sweep(broker, q.shard(), Millis(1), &mut fx).expect("sweep") {}
        assert_eq!(crate::law::check(broker, 10).expect("law"), []);
    }

    #[test]
    fn nothing_is_taken_twice_while_it_is_remembered() {
        let dir = tempfile::tempdir().expect("dir");
        let broker = open(dir.path());
        let q = declared(&broker, "q", true, QueueKind::Classic, once(Some(100), 3));
        let mut fx = Effects::new();
        assert_eq!(
            [send(&broker, b"a", true, 1), send(&broker, b"b", true, 2)],
            [1, 2]
        );
        assert_eq!(
            [send(&broker, b"a", true, 3), send(&broker, b"", true, 3)],
            [2, 3]
        );
        // Also when it is not there any more.
        assert_eq!(purge(&broker, at(&q), Millis(4), &mut fx), 3);
        assert_eq!(send(&broker, b"a", true, 50), 0);
        close(broker);

        let broker = open(dir.path());
        assert_eq!(
            [send(&broker, b"b", true, 60), send(&broker, b"c", true, 61)],
            [0, 1]
        );
        assert_eq!(
            [
                send(&broker, b"a", true, 101),
                send(&broker, b"a", true, 102)
            ],
            [2, 2]
        );
        // One more than it remembers: the oldest is forgotten.
        assert_eq!(
            [
                send(&broker, b"d", true, 103),
                send(&broker, b"e", true, 104)
            ],
            [3, 4]
        );
        assert_eq!(
            [
                send(&broker, b"c", true, 105),
                send(&broker, b"e", true, 106)
            ],
            [5, 5]
        );
        assert_eq!(send(&broker, b"f", false, 107), 6);
        // The row of an identity goes with the message that survives a restart.
        assert_eq!(send(&broker, b"e", false, 300), 7);
        delete(&broker);
    }

    #[test]
    fn nothing_is_taken_twice_while_it_is_there() {
        let dir = tempfile::tempdir().expect("dir");
        let broker = open(dir.path());
        let q = declared(&broker, "q", true, QueueKind::Quorum, once(None, 1000));
        let mut fx = Effects::new();
        assert_eq!(
            [send(&broker, b"a", true, 1), send(&broker, b"b", false, 2)],
            [1, 2]
        );
        assert_eq!(
            [send(&broker, b"a", true, 3), send(&broker, b"b", false, 3)],
            [2, 2]
        );
        let (held, _) = take(&broker, at(&q), false, Millis(4), &mut fx).expect("a");
        assert_eq!(send(&broker, b"a", true, 5), 1);
        assert_eq!(purge(&broker, at(&q), Millis(5), &mut fx), 1);
        // A client has the one, the other is gone.
        assert_eq!(
            [send(&broker, b"a", true, 6), send(&broker, b"b", false, 6)],
            [0, 1]
        );
        drop(held);
        close(broker);

        // Of what is not there any more nothing is remembered either.
        let broker = open(dir.path());
        assert_eq!(
            [send(&broker, b"a", true, 7), send(&broker, b"b", true, 7)],
            [1, 2]
        );
        let q = broker.routes.queue("q").expect("queue");
        let (held, _) = take(&broker, at(&q), false, Millis(8), &mut fx).expect("a");
        let done = std::iter::once((held, None));
        settle(&broker, at(&q), Verdict::Done, done, Millis(8), &mut fx);
        assert_eq!(
            [send(&broker, b"a", true, 9), send(&broker, b"b", true, 9)],
            [2, 2]
        );
        let (_, _) = take(&broker, at(&q), true, Millis(8), &mut fx).expect("b");
        assert_eq!(send(&broker, b"b", true, 10), 2);
        delete(&broker);
    }
}
