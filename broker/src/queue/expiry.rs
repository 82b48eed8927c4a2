//! When messages expire that stand behind others which expire later, or never.
//!
//! ```text
//! near: in memory │ far: rows in the tables; in memory of these only what the tables do not have yet
//!          horizon┘
//! ```
//! A message that expires after all that stand before it needs no such row: when its time has come it is the head of its
//! lane ([`super::turn::Turn::expire`]). The others ([`Message::is_late`](super::message::Message::is_late)) have one as
//! long as they have a row of their own, so that any number of them may wait in any order.

use std::collections::BTreeMap;

use storage::{Engine, Keyspace, Lsn, ShardId};

use super::ready::PENDING;
use crate::rows::{self, Tag};
use crate::{Effects, Millis, Slot};

/// In memory, for each shard; and read in one go, under its lock.
const NEAR_MAX: usize = if cfg!(test) { 64 } else { 16 << 10 };
const PAGE: usize = if cfg!(test) { 16 } else { 1024 };

const LOOK_MIN: usize = 4096;

/// When it expires, in milliseconds since 1970; the queue; its place there.
pub(super) type Key = (u64, u64, u64);

/// Behind everything.
const END: Key = (u64::MAX, u64::MAX, u64::MAX);

/// The late messages of one shard.
#[derive(Debug)]
pub(super) struct Expiry {
    /// With the end of the record that put the row; 0: the tables have it.
    near: BTreeMap<Key, Lsn>,
    /// What comes before is in `near`, and nothing else is.
    horizon: Key,
    /// Behind the horizon, those that the tables may not have yet.
    unfolded: BTreeMap<Key, Lsn>,
    /// How many of these there must be before it is worth a look what was folded.
    look_at: usize,
    /// The last one taken: nothing up to it is read again.
    taken: Key,
    /// Put in the record that is being made.
    unsettled: Vec<Key>,
}

impl Default for Expiry {
    /// As a start finds them: all in the tables.
    fn default() -> Self {
        Self {
            near: BTreeMap::new(),
            horizon: (0, 0, 0),
            unfolded: BTreeMap::new(),
            look_at: LOOK_MIN,
            taken: (0, 0, 0),
            unsettled: Vec::new(),
        }
    }
}

impl Expiry {
    pub(super) fn put(&mut self, shard: ShardId, key: Key, fx: &mut Effects) {
        fx.put(shard, &row_key(shard, key), &[]);
        self.unsettled.push(key);
        if key < self.horizon {
            self.near.insert(key, PENDING);
        } else {
            self.unfolded.insert(key, PENDING);
        }
    }

    /// The message is gone.
    pub(super) fn remove(&mut self, shard: ShardId, key: Key, fx: &mut Effects) {
        del_row(fx, shard, key);
        if self.near.remove(&key).is_none() {
            self.unfolded.remove(&key);
        }
    }

    /// The record is appended and ends at `lsn`.
    #[inline]
    pub(super) fn committed(&mut self, lsn: Lsn, folded: impl FnOnce() -> Lsn) {
        if !self.unsettled.is_empty() {
            self.settle(lsn, folded());
        }
    }

    fn settle(&mut self, lsn: Lsn, folded: Lsn) {
        for key in self.unsettled.drain(..) {
            let place = match self.near.get_mut(&key) {
                Some(place) => Some(place),
                None => self.unfolded.get_mut(&key),
            };
            if let Some(place) = place {
                *place = lsn;
            }
        }
        while self.near.len() > NEAR_MAX {
            let Some(last) = self
                .near
                .last_entry()
                .filter(|last| *last.key() > self.taken)
            else {
                break;
            };
            let (key, lsn) = last.remove_entry();
            self.horizon = key;
            if lsn > folded {
                self.unfolded.insert(key, lsn);
            }
        }
        if self.unfolded.len() >= self.look_at {
            self.unfolded.retain(|_, lsn| *lsn > folded);
            self.look_at = LOOK_MIN.max(self.unfolded.len() * 2);
        }
    }

    /// When the next one expires, or may; `u64::MAX`: there is none.
    fn next_due(&self) -> u64 {
        let next = self.near.first_key_value();
        next.map_or(self.horizon, |(key, _)| *key).0
    }

    /// Takes up to `limit` of what has expired. Their rows stay until the messages are gone.
    pub(super) fn take(
        &mut self,
        shard: ShardId,
        engine: &Engine,
        now: Millis,
        limit: usize,
    ) -> Result<Vec<Key>, storage::Error> {
        let mut taken = Vec::new();
        while taken.len() < limit && self.next_due() <= now.0 {
            match self.near.pop_first() {
                Some((key, _)) => {
                    self.taken = self.taken.max(key);
                    taken.push(key);
                }
                None => self.read(shard, engine)?,
            }
        }
        Ok(taken)
    }

    /// Reads the next page from behind the horizon.
    fn read(&mut self, shard: ShardId, engine: &Engine) -> Result<(), storage::Error> {
        // Before the tables are read: what is folded from here on may be found twice, and never not at all.
        let folded = engine.folded();
        self.unfolded.retain(|_, lsn| *lsn > folded);
        let from = row_key(shard, self.horizon);
        let end = rows::prefix_end(&rows::prefix(Slot::range_of(shard).0, Tag::Expiry));
        let (mut count, mut last) = (0, END);
        let near = &mut self.near;
        let each = &mut |row: &[u8], _: &[u8]| {
            if let Some(key) = read_key(row) {
                near.insert(key, Lsn(0));
                last = key;
            }
            count += 1;
            true
        };
        engine.scan(Keyspace::Rows, &from, end.as_deref(), PAGE, each)?;
        if count < PAGE {
            last = END;
        }
        let (deadline, queue, seq) = last;
        self.horizon = (deadline, queue, seq.saturating_add(1));
        let later = self.unfolded.split_off(&self.horizon);
        self.near
            .extend(std::mem::replace(&mut self.unfolded, later));
        Ok(())
    }
}

pub(super) fn del_row(fx: &mut Effects, shard: ShardId, key: Key) {
    fx.del(shard, &row_key(shard, key));
}

/// In the shard's first slot: they all lie in one place.
fn row_key(shard: ShardId, (deadline, queue, seq): Key) -> [u8; 27] {
    let mut key = [0; 27];
    let (head, tail) = key.split_at_mut(11);
    let (first, _) = Slot::range_of(shard);
    head.copy_from_slice(&rows::object_prefix(first, Tag::Expiry, deadline));
    let (id, place) = tail.split_at_mut(8);
    id.copy_from_slice(&queue.to_be_bytes());
    place.copy_from_slice(&seq.to_be_bytes());
    key
}

fn read_key(row: &[u8]) -> Option<Key> {
    let (deadline, rest) = row.get(3..)?.split_first_chunk::<8>()?;
    let (queue, seq) = rest.split_first_chunk::<8>()?;
    Some((
        u64::from_be_bytes(*deadline),
        u64::from_be_bytes(*queue),
        u64::from_be_bytes(seq.try_into().ok()?),
    ))
}
