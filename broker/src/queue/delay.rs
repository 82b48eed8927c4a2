//! Messages that are routed later.
//!
//! ```text
//! near: in memory              │ far: rows in the tables; where the log has what the tables do not have yet
//!                       horizon┘
//! ```
//! Each is a row from its publish on, transient ones too, since any number of them may wait. Who takes one puts it into its
//! queues and deletes its row in one record; a crash before that leaves it where it was.

use std::collections::BTreeMap;
use std::collections::btree_map::OccupiedEntry;

use storage::{Engine, Keyspace, Lsn};

use super::message::Message;
use super::paged::{InLog, damaged};
use crate::rows::{self, Tag};
use crate::{Broker, Effects, Locked, Millis, ShardId, ShardSet, Slot};

/// Octets of messages in memory, for each shard.
const NEAR_OCTETS: usize = if cfg!(test) { 16 << 10 } else { 2 << 20 };

/// Rows read in one go, under the shard's lock, and the octets after which reading stops.
const PAGE_MESSAGES: usize = 256;
const PAGE_OCTETS: usize = 256 << 10;

/// Octets taken off at once, for each shard.
const TAKEN_OCTETS: usize = if cfg!(test) { 16 << 10 } else { 2 << 20 };

const LOOK_MIN: usize = 4096;

/// When it is due, in milliseconds since 1970, and its own number.
type Key = (u64, u64);

/// Behind everything.
const END: Key = (u64::MAX, u64::MAX);

#[derive(Debug)]
struct Near {
    message: Message,
    /// Where its row lies in the log; `None`: it is in the tables, or its record is being made.
    place: Option<InLog>,
    /// Its record is being made.
    pending: bool,
}

/// The delayed messages of one shard.
#[derive(Debug)]
pub(super) struct Delays {
    near: BTreeMap<Key, Near>,
    near_octets: usize,
    /// Whatever is due before is in `near`, and nothing else is.
    horizon: Key,
    /// Behind the horizon, those that the tables may not have yet.
    unfolded: BTreeMap<Key, InLog>,
    /// No place in there is folded up to here.
    pruned: Lsn,
    /// The last one taken off: nothing up to it is read again.
    taken: Key,
    /// How many of these there must be before it is worth a look what was folded.
    look_at: usize,
    /// Given a row in the record being made: length of the row, and where it ends in the record.
    unsettled: Vec<(Key, u32, u32)>,
}

impl Default for Delays {
    /// As a start finds them: all in the tables.
    fn default() -> Self {
        Self {
            near: BTreeMap::new(),
            near_octets: 0,
            horizon: (0, 0),
            unfolded: BTreeMap::new(),
            pruned: Lsn(0),
            taken: (0, 0),
            look_at: LOOK_MIN,
            unsettled: Vec::new(),
        }
    }
}

/// A message whose time has come.
#[derive(Debug)]
pub struct Due {
    shard: ShardId,
    key: Key,
    message: Message,
}

impl Due {
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }
}

impl Delays {
    fn put(&mut self, shard: ShardId, key: Key, message: Message, fx: &mut Effects) {
        let row = row_key(shard, key);
        let (fixed, head) = message.row_head();
        if message.is_apart() {
            fx.put_body(
                shard,
                &row,
                &[&fixed[..], head].concat(),
                &message.body_bytes(),
            );
        } else {
            fx.put_parts(shard, &[&row], &[&fixed, head, message.body()]);
        }
        let end = u32::try_from(fx.size()).unwrap_or(u32::MAX);
        self.unsettled.push((key, message.row_len(), end));
        if key < self.horizon {
            self.near_octets += message.weight();
            self.near.insert(
                key,
                Near {
                    message,
                    place: None,
                    pending: true,
                },
            );
        }
    }

    /// The record is appended and lies from `start` to `lsn`.
    #[inline]
    pub(super) fn committed(&mut self, start: Lsn, lsn: Lsn, folded: impl FnOnce() -> Lsn) {
        if !self.unsettled.is_empty() {
            self.settle(start, lsn, folded());
        }
    }

    fn settle(&mut self, start: Lsn, lsn: Lsn, folded: Lsn) {
        let size = u32::try_from(lsn.0 - start.0).unwrap_or(u32::MAX);
        for (key, length, end) in self.unsettled.drain(..) {
            let place = InLog::before(lsn, length, size.saturating_sub(end));
            match self.near.get_mut(&key) {
                Some(near) => (near.place, near.pending) = (Some(place), false),
                None => {
                    self.unfolded.insert(key, place);
                }
            }
        }
        self.forget_folded(folded);
        self.shrink(folded);
    }

    /// What is due last leaves memory.
    fn shrink(&mut self, folded: Lsn) {
        while self.near_octets > NEAR_OCTETS && self.near.len() > 1 {
            let taken = self.taken;
            let may_go =
                |last: &OccupiedEntry<'_, Key, Near>| !last.get().pending && *last.key() > taken;
            let Some(last) = self.near.last_entry().filter(may_go) else {
                return;
            };
            let (key, near) = last.remove_entry();
            self.near_octets -= near.message.weight();
            self.horizon = key;
            if let Some(place) = near.place.filter(|place| place.lsn() > folded) {
                self.unfolded.insert(key, place);
            }
        }
    }

    fn forget_folded(&mut self, folded: Lsn) {
        if self.unfolded.len() >= self.look_at {
            self.prune(folded);
            self.look_at = LOOK_MIN.max(self.unfolded.len() * 2);
        }
    }

    fn prune(&mut self, folded: Lsn) {
        if folded > self.pruned {
            self.unfolded.retain(|_, place| place.lsn() > folded);
            self.pruned = folded;
        }
    }

    /// When the next one is due, or may be; `u64::MAX`: there is none.
    fn next_due(&self) -> u64 {
        let next = self
            .near
            .first_key_value()
            .map_or(self.horizon, |(key, _)| *key);
        next.0
    }

    fn take(
        &mut self,
        shard: ShardId,
        engine: &Engine,
        now: Millis,
        limit: usize,
    ) -> Result<Vec<Due>, storage::Error> {
        let (mut taken, mut octets) = (Vec::new(), 0);
        while taken.len() < limit && octets < TAKEN_OCTETS && self.next_due() <= now.0 {
            let Some((key, near)) = self.near.pop_first() else {
                if !self.read(shard, engine)? {
                    break;
                }
                continue;
            };
            let weight = near.message.weight();
            self.near_octets -= weight;
            octets += weight;
            self.taken = self.taken.max(key);
            taken.push(Due {
                shard,
                key,
                message: near.message,
            });
        }
        Ok(taken)
    }

    /// Reads the next page from behind the horizon. `false`: some of it is not written yet, try again soon.
    fn read(&mut self, shard: ShardId, engine: &Engine) -> Result<bool, storage::Error> {
        loop {
            self.prune(engine.folded());
            let mut found = BTreeMap::new();
            let certain = self.read_tables(shard, engine, &mut found)?;
            let mut places: Vec<(Key, InLog)> = Vec::new();
            let mut octets = 0;
            let mut end = certain;
            for (key, place) in self.unfolded.range(..=certain) {
                if places.len() >= PAGE_MESSAGES || octets >= PAGE_OCTETS {
                    end = places.last().map_or(certain, |(key, _)| *key);
                    break;
                }
                octets += place.value().length as usize;
                places.push((*key, *place));
            }
            let written = engine.written();
            if places.iter().any(|(_, place)| place.lsn() > written) {
                return Ok(false);
            }
            if !self.read_log(engine, &places, &mut found)? {
                // Retention took the log away meanwhile: then it is folded.
                if places
                    .iter()
                    .any(|(_, place)| place.lsn() > engine.folded())
                {
                    return Err(damaged(Lsn(0), "unfolded log is gone"));
                }
                continue;
            }
            for (key, near) in found {
                if key <= end {
                    self.near_octets += near.message.weight();
                    self.near.insert(key, near);
                }
            }
            while let Some(first) = self
                .unfolded
                .first_entry()
                .filter(|first| *first.key() <= end)
            {
                first.remove();
            }
            self.horizon = (end.0, end.1.saturating_add(1));
            return Ok(true);
        }
    }

    /// Up to which key it has found everything.
    fn read_tables(
        &self,
        shard: ShardId,
        engine: &Engine,
        found: &mut BTreeMap<Key, Near>,
    ) -> Result<Key, storage::Error> {
        let from = row_key(shard, self.horizon);
        let end = rows::prefix_end(&rows::prefix(Slot::range_of(shard).0, Tag::Delayed));
        let mut certain = END;
        for keyspace in [Keyspace::Rows, Keyspace::Bodies] {
            let (mut count, mut octets, mut last) = (0, 0, END);
            let each = &mut |key: &[u8], value: &[u8]| {
                if let Some(key) = read_key(key) {
                    count += 1;
                    last = key;
                    if let Some(message) = Message::from_row(value) {
                        octets += value.len();
                        let near = Near {
                            message,
                            place: None,
                            pending: false,
                        };
                        found.insert(key, near);
                    }
                }
                octets < PAGE_OCTETS
            };
            engine.scan(keyspace, &from, end.as_deref(), PAGE_MESSAGES, each)?;
            if count >= PAGE_MESSAGES || octets >= PAGE_OCTETS {
                certain = certain.min(last);
            }
        }
        Ok(certain)
    }

    /// False: retention has deleted the log there.
    fn read_log(
        &self,
        engine: &Engine,
        places: &[(Key, InLog)],
        found: &mut BTreeMap<Key, Near>,
    ) -> Result<bool, storage::Error> {
        let bodies: Vec<_> = places.iter().map(|(_, place)| place.value()).collect();
        let mut at = 0;
        while let Some(rest) = bodies.get(at..).filter(|rest| !rest.is_empty()) {
            let mut values = Vec::with_capacity(rest.len());
            if engine.read_bodies(rest, &mut values)? == 0 {
                return Ok(false);
            }
            for (value, (key, place)) in values.into_iter().zip(places.iter().skip(at)) {
                let Some(message) = Message::from_row(&value) else {
                    return Err(damaged(place.lsn(), "no message where one was written"));
                };
                let place = Some(*place);
                found.insert(
                    *key,
                    Near {
                        message,
                        place,
                        pending: false,
                    },
                );
                at += 1;
            }
        }
        Ok(true)
    }

    /// All of them, taken out, as key and message; for [`crate::law`].
    pub(super) fn each(
        &mut self,
        shard: ShardId,
        engine: &Engine,
        each: &mut dyn FnMut(Key, &Message),
    ) -> Result<(), storage::Error> {
        loop {
            let some = self.take(shard, engine, Millis(u64::MAX - 1), PAGE_MESSAGES)?;
            if some.is_empty() {
                return Ok(());
            }
            for due in some {
                each(due.key, &due.message);
            }
        }
    }
}

/// In the shard's first slot: they all lie in one place.
fn row_key(shard: ShardId, (due, id): Key) -> [u8; 19] {
    let mut key = [0; 19];
    let (head, tail) = key.split_at_mut(11);
    head.copy_from_slice(&rows::object_prefix(
        Slot::range_of(shard).0,
        Tag::Delayed,
        due,
    ));
    tail.copy_from_slice(&id.to_be_bytes());
    key
}

fn read_key(key: &[u8]) -> Option<Key> {
    let (due, id) = key.get(3..)?.split_first_chunk::<8>()?;
    Some((
        u64::from_be_bytes(*due),
        u64::from_be_bytes(id.try_into().ok()?),
    ))
}

/// Where a message waits.
#[must_use]
pub fn shard_of(message: &Message) -> ShardId {
    let name = message.exchange();
    Slot::of(if name.is_empty() {
        message.routing_key()
    } else {
        name
    })
    .shard()
}

/// Keeps a message until it is to be routed. Locks: [`shard_of`]; the caller commits.
pub fn put(locked: &mut Locked<'_>, message: Message, due: Millis, fx: &mut Effects) {
    let shard = shard_of(&message);
    let key = (due.0.min(u64::MAX - 1), locked.new_id(shard));
    let delays = &mut locked.shard(shard).queues.delays;
    delays.put(shard, key, message, fx);
    locked.broker().next_delay.bring(key.0);
}

/// Takes messages that are due, of shards that have some; `true`: there may be more. Each goes to [`release`].
pub fn due(broker: &Broker, now: Millis, limit: usize) -> (Vec<Due>, bool) {
    let mut found = Vec::new();
    if !broker.next_delay.has_come(now.0) {
        return (found, false);
    }
    broker.next_delay.forget();
    for id in ShardSet::DATA.iter() {
        let mut locked = broker.lock_one(id);
        let shard = locked.shard(id);
        let delays = &mut shard.queues.delays;
        match delays.take(id, &shard.engine, now, limit.saturating_sub(found.len())) {
            Ok(taken) => found.extend(taken),
            Err(error) => shard.engine.fail("read delayed messages", &error),
        }
        broker.next_delay.bring(delays.next_due());
    }
    (found, broker.next_delay.has_come(now.0))
}

/// Delivers what was due to a route, which may be of no queues, and forgets it. `Err`: the route is not true any more.
/// Takes its own locks.
///
/// # Errors
/// When definitions have changed: find the route again.
pub fn release(
    broker: &Broker,
    due: Due,
    message: &Message,
    route: &super::Route,
    now: Millis,
    fx: &mut Effects,
) -> Result<super::Delivered, Due> {
    let mut locked = broker.lock(route.shards.with(due.shard));
    if route.epoch != 0 && route.epoch != broker.routes.epoch() {
        return Err(due);
    }
    let delivered = super::deliver_apart(&mut locked, route, message.clone(), now, fx);
    let key = row_key(due.shard, due.key);
    if due.message.is_apart() {
        fx.del_body(due.shard, &key);
    } else {
        fx.del(due.shard, &key);
    }
    locked.commit(now, fx);
    Ok(delivered)
}

/// The moment at which the first of something is due, read without a lock.
#[derive(Debug)]
pub struct Moment(std::sync::atomic::AtomicU64);

impl Default for Moment {
    /// At once: nobody has looked yet.
    fn default() -> Self {
        Self(0.into())
    }
}

impl Moment {
    fn has_come(&self, now: u64) -> bool {
        self.0.load(std::sync::atomic::Ordering::Acquire) <= now
    }

    fn forget(&self) {
        self.0.store(u64::MAX, std::sync::atomic::Ordering::Release);
    }

    fn bring(&self, due: u64) {
        self.0.fetch_min(due, std::sync::atomic::Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{at, queue};
    use super::super::{Route, counts, take};
    use super::*;
    use crate::Budgets;
    use proptest::prelude::*;
    use std::path::Path;

    fn open(dir: &Path) -> Broker {
        let mut options = storage::Options::new(dir);
        options.sync_interval = None;
        options.segment_bytes = 64 << 10;
        options.retain_bytes = 0;
        let engine = Engine::open(options).expect("engine");
        Broker::open(engine, Budgets::split(1 << 20)).expect("broker")
    }

    fn close(broker: Broker) {
        broker.engine.flush();
        broker.engine.close().expect("close");
    }

    fn delayed(broker: &Broker, due_ms: u64, body: &[u8]) {
        let message = Message::new(b"", b"q", b"\0\0", body, false);
        let mut locked = broker.lock(ShardSet::of(shard_of(&message)));
        let mut fx = Effects::new();
        put(&mut locked, message, Millis(due_ms), &mut fx);
        locked.commit(Millis(1), &mut fx);
    }

    /// Bodies of what is due, in order, delivered to no queue.
    fn come(broker: &Broker, now: u64) -> Vec<Vec<u8>> {
        let mut bodies = Vec::new();
        loop {
            let (found, more) = due(broker, Millis(now), 50);
            for due in found {
                let message = due.message().clone();
                bodies.push(message.body().to_vec());
                let route = Route::default();
                release(
                    broker,
                    due,
                    &message,
                    &route,
                    Millis(now),
                    &mut Effects::new(),
                )
                .expect("a route of no queues stays true");
            }
            if !more {
                return bodies;
            }
        }
    }

    #[test]
    fn what_is_taken_at_once_is_bounded_in_octets() {
        let dir = tempfile::tempdir().expect("dir");
        let broker = open(dir.path());
        for fill in 0..100 {
            delayed(&broker, 5, &[fill; 1024]);
        }
        broker.engine.flush();
        let (found, more) = due(&broker, Millis(9), 1000);
        assert!(more && (1..40).contains(&found.len()), "{}", found.len());
        // What was taken is not found again, and the rest is.
        assert_eq!(come(&broker, 9).len(), 100 - found.len());
        close(broker);
    }

    #[test]
    fn a_message_is_in_its_queue_or_waits() {
        let dir = tempfile::tempdir().expect("dir");
        let broker = open(dir.path());
        let q = queue(&broker, "q", true);
        delayed(&broker, 50, b"x");
        // It is in the log's buffer only, and nobody knows yet what the tables have.
        assert!(due(&broker, Millis(50), 10).0.is_empty());
        assert!(!broker.engine.failed());
        broker.engine.flush();
        assert!(due(&broker, Millis(49), 10).0.is_empty());
        let (mut found, _) = due(&broker, Millis(50), 10);
        let one = found.pop().expect("due");
        let message = one.message().clone();
        let stale = Route::to(&broker.routes, &q);
        queue(&broker, "other", true);
        let mut fx = Effects::new();
        let one = release(&broker, one, &message, &stale, Millis(50), &mut fx).expect_err("stale");
        let route = Route::to(&broker.routes, &q);
        let told = release(&broker, one, &message, &route, Millis(50), &mut fx).expect("true");
        assert_eq!(told.queues, 1);
        assert_eq!(counts(&broker, at(&q)).map(|counts| counts.ready), Some(1));
        assert!(take(&broker, at(&q), true, Millis(50), &mut fx).is_some());
        close(broker);
        assert_eq!(come(&open(dir.path()), 100), [b""; 0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

        /// Whatever is in memory, in the log or in the tables: all comes, when it is due, in order, once.
        #[test]
        fn all_come_when_they_are_due(steps in prop::collection::vec((0..8_u8, 1..1000_u64, prop_oneof![10..200_usize, Just(3000)]), 1..300)) {
            let dir = tempfile::tempdir().expect("dir");
            let mut broker = open(dir.path());
            let mut model: BTreeMap<(u64, usize), usize> = BTreeMap::new();
            let mut now = 0;
            for (number, (what, delay, size)) in steps.into_iter().enumerate() {
                match what {
                    0 => broker.engine.flush(),
                    1 => {
                        broker.engine.flush();
                        broker.engine.fold_now().expect("fold");
                    }
                    2 if number % 7 == 0 => {
                        close(broker);
                        broker = open(dir.path());
                    }
                    3 => {
                        now += delay / 4;
                        let later = model.split_off(&(now + 1, 0));
                        let wanted: Vec<_> = std::mem::replace(&mut model, later)
                            .into_iter()
                            .map(|((_, number), size)| (number, size))
                            .collect();
                        // What memory does not have is read from the written log.
                        broker.engine.flush();
                        let got: Vec<_> = come(&broker, now)
                            .into_iter()
                            .map(|body| {
                                let number = body.first_chunk::<8>().map_or(0, |number| u64::from_le_bytes(*number));
                                (number as usize, body.len())
                            })
                            .collect();
                        prop_assert_eq!(got, wanted);
                    }
                    _ => {
                        let mut body = (number as u64).to_le_bytes().to_vec();
                        body.resize(size, 7);
                        delayed(&broker, now + delay, &body);
                        model.insert((now + delay, number), size);
                    }
                }
            }
            broker.engine.flush();
            prop_assert_eq!(come(&broker, u64::MAX - 1).len(), model.len());
            close(broker);
            prop_assert!(come(&open(dir.path()), u64::MAX - 1).is_empty());
        }
    }
}
