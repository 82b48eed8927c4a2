//! What happens to keys without a client: expiry, eviction, forgetting markers, sweeping orphans, flushing.

use super::row;
use super::space::{Db, Grave};
use super::stream::entry_row;
use super::view::View;
use super::{Error, Name};
use crate::rows::{self, Tag};
use crate::{Keyspace, Slot};

/// Entries looked at to find one that was not used for long (Redis' `maxmemory-samples`).
const SAMPLES: u32 = 5;

/// How far one step of a sweep came.
struct Swept {
    /// What is left of the limit; 0: there may be more rows of the same kind.
    left: usize,
    /// The first row behind them.
    next: Option<Vec<u8>>,
}

impl View<'_> {
    /// When the next resident key of this shard expires, in ms since the epoch, whatever its database.
    #[must_use]
    pub fn next_expiry_ms(&self) -> Option<u64> {
        self.space
            .dbs
            .iter()
            .flat_map(|db| {
                let fields = db.lasting.first().map(|(at, _)| *at);
                db.deadlines
                    .first()
                    .map(|(at, _)| at)
                    .into_iter()
                    .chain(fields)
            })
            .min()
    }

    /// Removes up to `limit` resident keys whose time has come, and fields of as many hashes, in all databases; how many.
    pub fn expire_due(&mut self, limit: usize) -> usize {
        let mut removed = 0;
        for number in 0..self.space.dbs.len() {
            self.number = number;
            while removed < limit {
                let now = self.now;
                let Some((at, index)) = self.db().deadlines.first().filter(|&(at, _)| at <= now)
                else {
                    break;
                };
                let Some(entry) = self.db().slab.get(index) else {
                    self.db().deadlines.remove(at, index);
                    continue;
                };
                let slot = Slot::of(entry.key);
                self.expire_key(index, slot);
                removed += 1;
            }
            while removed < limit {
                let now = self.now;
                let db = self.db();
                let Some(&(at, index)) = db.lasting.first().filter(|(at, _)| *at <= now) else {
                    break;
                };
                removed += 1;
                let key = db.slab.get(index).map(|entry| entry.key.to_vec());
                if let Some(key) = key {
                    self.space.attend(number, &key, self.budget);
                    // If the tables cannot be read, whoever asks for the key will be told.
                    let _ = self.without_due_fields(index, &Name::new(&key));
                }
                if self.db().lasting.first() == Some(&(at, index)) {
                    self.db().lasting.remove(&(at, index));
                }
            }
        }
        removed
    }

    /// Forgets up to `limit` deletion markers that the tables know of by now.
    pub fn forget_absent(&mut self, limit: usize) {
        let folded = self.engine.folded_seq(self.shard);
        for number in 0..self.space.dbs.len() {
            self.number = number;
            for _ in 0..limit {
                let Some((seq, index)) = self
                    .db()
                    .absent
                    .front()
                    .copied()
                    .filter(|&(seq, _)| seq <= folded)
                else {
                    break;
                };
                self.db().absent.pop_front();
                let Some(entry) = self.db().slab.get(index) else {
                    continue;
                };
                // Unless the key has come back, or was deleted again. Seq 0: folded long ago.
                if entry.is_absent() && (entry.seq == seq || entry.seq == 0) {
                    (self.space).mark_deleted(self.number, index, -1, self.budget);
                    self.forget(index);
                }
            }
        }
    }

    /// Gives back about `bytes` by forgetting clean values, those first that were not used for long. Less is given back
    /// when too much is not folded yet.
    pub fn evict(&mut self, bytes: u64, chance: &mut dyn FnMut(u64) -> u64) -> u64 {
        let folded = self.engine.folded_seq(self.shard);
        let mut given = self.trim_partials(folded);
        let mut forgotten = false;
        for number in 0..self.space.dbs.len() {
            self.number = number;
            let db = self.db();
            if db.resident() == 0 {
                continue;
            }
            db.keep_absent = true;
            // A deletion without a marker must be folded before a miss may ask the tables.
            if db.complete && db.removed_seq > folded {
                continue;
            }
            let mut failures = 0;
            while given < bytes && failures < 32 {
                match self.victim(folded, chance) {
                    None => failures += 1,
                    Some(index) => {
                        if let Some(trimmed) = self.trim_victim(index, folded) {
                            failures += u32::from(trimmed == 0);
                            given += trimmed;
                            continue;
                        }
                        let db = self.db();
                        let weight = db.slab.weight(index);
                        db.complete = false;
                        self.forget(index);
                        self.space.counts.evicted += 1;
                        forgotten = true;
                        given += weight.unsigned_abs();
                    }
                }
            }
        }
        // A warmer would only bring back what was evicted.
        if forgotten {
            self.space.warm = None;
        }
        given
    }

    fn victim(&mut self, folded: u64, chance: &mut dyn FnMut(u64) -> u64) -> Option<u32> {
        let now = self.now;
        let db = &self.space.dbs[self.number];
        let end = db.slab.end();
        (0..SAMPLES)
            .filter_map(|_| {
                let index = chance(u64::from(end)) as u32;
                let entry = db.slab.get(index)?;
                // What has a limit of its own is deleted at that, and would not count any more in the tables.
                (entry.seq <= folded
                    && !entry.is_absent()
                    && !self.space.is_ruled(self.number, entry.key))
                .then_some((db.slab.idle_of(&entry, now), index))
            })
            .max()
            .map(|(_, index)| index)
    }

    /// Memory in use above the budget, in bytes.
    #[must_use]
    pub fn excess(&self, budget: &crate::Budget) -> u64 {
        budget.excess()
    }

    /// Deletes rows that nothing refers to, about `limit` of them. True: there is more to do now.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn sweep(&mut self, limit: usize) -> Result<bool, Error> {
        let Some((seq, grave)) = self.space.graves.front().copied() else {
            return Ok(false);
        };
        if seq > self.engine.folded_seq(self.shard) {
            return Ok(false);
        }
        let done = match grave {
            Grave::Object { slot, tag, id } => {
                let mut more = false;
                for tag in row::tags_of(tag) {
                    let prefix = rows::object_prefix(slot, *tag, id);
                    let swept = self.sweep_range(&prefix, None, limit, &mut |_, _| {})?;
                    more = swept.left == 0;
                    if more {
                        break;
                    }
                }
                if more {
                    None
                } else {
                    let count = row::element_count_key(slot, id);
                    if self.engine.get(Keyspace::Rows, &count)?.is_some() {
                        self.fx.del(self.shard, &count);
                    }
                    Some(row::dead_object_key(self.shard, slot, id))
                }
            }
            Grave::Front { slot, id, gone } => {
                let prefix = rows::object_prefix(slot, Tag::Stream, id);
                let row = |id| [&prefix[..], &entry_row(id)].concat();
                let (from, end) = (row(gone.0), row(gone.1));
                if self.space.sweep_from < from {
                    self.space.sweep_from = from;
                }
                let swept = self.sweep_range(&prefix, Some(&end), limit, &mut |_, _| {})?;
                let done = row::dead_front_key(self.shard, slot, id, &gone.1.to_bytes());
                (swept.left > 0).then_some(done)
            }
            Grave::Database(db) => {
                if self.sweep_database(db, limit)? {
                    None
                } else {
                    Some(row::dead_database_key(self.shard, db).to_vec())
                }
            }
        };
        if let Some(key) = done {
            self.fx.del(self.shard, &key);
            self.space.graves.pop_front();
            self.space.sweep_from.clear();
        }
        Ok(true)
    }

    /// Deletes up to `limit` rows that begin with `prefix` and lie before `end`, from where the last call ended: the tables learn of deletions
    /// only with the next fold.
    fn sweep_range(
        &mut self,
        prefix: &[u8],
        end: Option<&[u8]>,
        limit: usize,
        see: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<Swept, Error> {
        let behind_shard = (Slot::range_of(self.shard).1.raw() + 1).to_be_bytes();
        let mut swept = Swept {
            left: limit,
            next: None,
        };
        let from = prefix.max(&self.space.sweep_from).to_vec();
        let mut last = Vec::new();
        let (fx, shard) = (&mut *self.fx, self.shard);
        self.engine.scan(
            Keyspace::Rows,
            &from,
            Some(end.unwrap_or(&behind_shard)),
            usize::MAX,
            &mut |key, value| {
                if !key.starts_with(prefix) {
                    swept.next = Some(key.to_vec());
                    return false;
                }
                if swept.left == 0 {
                    return false;
                }
                fx.del(shard, key);
                see(key, value);
                last = key.to_vec();
                swept.left -= 1;
                true
            },
        )?;
        if !last.is_empty() {
            // The first key behind it.
            last.push(0);
            self.space.sweep_from = last;
        }
        Ok(swept)
    }

    /// True: there may be more. Goes from row to row, not from slot to slot: many databases are flushed that hold little.
    fn sweep_database(&mut self, db: u32, limit: usize) -> Result<bool, Error> {
        let (first, last) = Slot::range_of(self.shard);
        let mut left = limit;
        let mut objects = Vec::new();
        let mut at = Some(first);
        while let Some(slot) = at.filter(|slot| *slot <= last) {
            let prefix = row::key_prefix(slot, db);
            let swept = self.sweep_range(&prefix, None, left, &mut |key, stored| {
                let name = key.get(prefix.len()..).unwrap_or_default();
                let root = row::split(name, stored).and_then(|(_, value)| row::root(value));
                let object = root.and_then(|root| root.object());
                objects.extend(object.map(|(tag, id)| (slot, tag, id)));
            })?;
            left = swept.left;
            if left == 0 {
                break;
            }
            // The next row of the shard, whatever it is of, says which slot may hold the database's next one.
            at = swept.next.and_then(|key| {
                let found = Slot::from_raw(u16::from_be_bytes(*key.first_chunk()?))?;
                let prefix = row::key_prefix(found, db);
                let passed = found <= slot || (key[..] > prefix[..] && !key.starts_with(&prefix));
                Slot::from_raw(found.raw() + u16::from(passed))
            });
        }
        for (slot, tag, id) in objects {
            self.leave_orphans(slot, tag, id);
        }
        Ok(left == 0)
    }

    /// Removes every key of this database from this shard: it gets a new id, and a sweeper deletes the rows of the old one.
    pub fn flush(&mut self) {
        let folded = self.engine.folded_seq(self.shard);
        let id = self.space.next_db;
        self.space.next_db += 1;
        self.touch_watched(self.number, &[self.number]);
        self.space.settle(self.number, self.budget);
        if let Some(tracked) = &mut self.space.tracked {
            tracked.note_flush();
        }
        let seq = self.seq;
        let mut new = Db::new(id);
        new.slab.begin_epoch(folded, seq);
        new.slab.count_uses(self.db().slab.uses());
        let old = std::mem::replace(self.db(), new);
        if old.count == 0 && old.resident() == 0 && old.removed_seq <= folded {
            // Nothing was there: the old id goes on.
            *self.db() = old;
            self.space.next_db -= 1;
            return;
        }
        self.space.waiters.note_all(self.number);
        if let Some(journal) = &mut self.space.journal {
            journal.note(self.number, None, "flushdb");
        }
        self.space.forget_weights(self.number, &old, self.budget);
        self.fx.put(
            self.shard,
            &row::database_key(self.shard, self.number as u8),
            &id.to_le_bytes(),
        );
        self.fx
            .put(self.shard, &row::dead_database_key(self.shard, old.id), &[]);
        self.fx.del(self.shard, &row::count_key(self.shard, old.id));
        self.space.graves.push_back((seq, Grave::Database(old.id)));
    }

    /// Gives this database the keys of another one, in this shard, and that one the keys of this one: they change ids.
    pub fn swap(&mut self, other: usize) {
        let number = self.number;
        if number == other || other >= self.space.dbs.len() {
            return;
        }
        let both = [number, other];
        for db in both {
            self.touch_watched(db, &both);
        }
        self.space.settle(number, self.budget);
        self.space.settle(other, self.budget);
        self.space.weigh(number, -1);
        self.space.weigh(other, -1);
        self.space.dbs.swap(number, other);
        self.space.swapped(number, other);
        let partials = std::mem::take(&mut self.space.partials);
        let moved = partials.into_iter().map(|(db, index)| match db {
            _ if db == number => (other, index),
            _ if db == other => (number, index),
            _ => (db, index),
        });
        self.space.partials = moved.collect();
        for (db, with) in [(number, other), (other, number)] {
            self.space.waiters.note_all(db);
            if let Some(journal) = &mut self.space.journal {
                journal.swapped(db, with);
            }
            // At most 16.
            self.fx.put(
                self.shard,
                &row::database_key(self.shard, db as u8),
                &self.space.dbs[db].id.to_le_bytes(),
            );
        }
    }

    /// Tells whoever watches a key of a database that exists in one of `looked_at`.
    fn touch_watched(&self, number: usize, looked_at: &[usize]) {
        for (key, list) in self.space.watches.of(number) {
            let hash = self.space.hash(key);
            let exists = looked_at.iter().any(|&db| {
                let db = &self.space.dbs[db];
                db.find(hash, key).is_some() || !db.complete
            });
            if exists {
                list.iter().for_each(|watch| watch.touch());
            }
        }
    }
}
