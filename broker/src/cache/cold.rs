//! Reading what a command needs and memory does not have, without holding the lock meanwhile.
//!
//! ```text
//! lock    note what is named and not in memory, and the shard's last seq    View::note_cold
//! –       read it from the tables                                           Cold::read
//! lock    put it into memory, unless the fold has passed that seq; execute  Cold::install
//! ```
//! **Why what was read is still true under the second lock.** Dirty stays: whatever changed after the first lock has a
//! seq above the noted one, and leaves memory (a value, a deletion's marker, an element of a partial collection) only once
//! the fold has passed its seq. So if the fold has not passed the noted seq and memory still knows nothing of the key or
//! element, it has not changed since; and what did not change before the first lock either, for memory knew nothing of it
//! then, has its rows in the tables, where only the sweeper of *dead* objects and folds of *changed* rows write. A
//! database that was flushed meanwhile has another id. What fails this is dropped, and the command reads it under the
//! lock as if nobody had read ahead; the lock is not given up again between installing and executing, so that thrash
//! makes progress.

use bytes::Bytes;

use super::load::{self, Loaded};
use super::partial::{Large, Rest};
use super::row;
use super::value::Held;
use super::view::View;
use super::{Error, Name};
use crate::{Effects, Engine, Locked, Millis, Slot};

/// Elements of partial collections that are read ahead for one command; more are read under the lock.
const ELEMENTS_MAX: usize = 4096;

/// See the module. What one command or transaction needs from the tables.
#[derive(Debug, Default)]
pub struct Cold {
    wants: Vec<Want>,
}

/// A key, or elements of a partial collection at it.
#[derive(Debug)]
struct Want {
    key: Vec<u8>,
    slot: Slot,
    number: usize,
    db: u32,
    /// Last record of the shard when memory was looked at.
    seq: u64,
    large: Large,
    /// Element rows of the partial collection that is in memory; `None`: the key is not.
    prefix: Option<[u8; 11]>,
    /// Row names.
    elements: Vec<Vec<u8>>,
    loaded: Option<Loaded>,
    rows: Vec<Option<Bytes>>,
}

impl View<'_> {
    /// Notes what memory does not have of a key and its `elements` (all those that the command names).
    pub fn note_cold<'e>(
        &mut self,
        name: &Name<'_>,
        elements: impl Iterator<Item = &'e [u8]>,
        cold: &mut Cold,
    ) {
        let hash = self.space.hash(name.bytes);
        let db = &self.space.dbs[self.number];
        let found = db
            .find(hash, name.bytes)
            .and_then(|index| db.slab.get(index));
        let elements = elements.take(ELEMENTS_MAX).map(row::row_name);
        let (prefix, elements) = match found {
            None if db.complete => return,
            None => (None, elements.map(|name| name.into_owned()).collect()),
            Some(entry) => {
                let Held::Object(value) = entry.value else {
                    return;
                };
                let Some(partial) = value.partial() else {
                    return;
                };
                let unknown: Vec<Vec<u8>> = elements
                    .filter(|name| !partial.knows(name))
                    .map(|name| name.into_owned())
                    .collect();
                if unknown.is_empty() {
                    return;
                }
                let tables = Rest::of(self.engine, name.slot, value);
                (Some(tables.prefix), unknown)
            }
        };
        cold.wants.push(Want {
            key: name.bytes.to_vec(),
            slot: name.slot,
            number: self.number,
            db: db.id,
            seq: self.seq - 1,
            large: Large::by(self.budget),
            prefix,
            elements,
            loaded: None,
            rows: Vec::new(),
        });
    }

    fn install_cold(&mut self, want: Want) {
        let db = self.db();
        if db.id != want.db || self.engine.folded_seq(self.shard) > want.seq {
            return;
        }
        let name = Name {
            bytes: &want.key,
            slot: want.slot,
        };
        let hash = self.space.hash(name.bytes);
        let db = self.db();
        let index = match (db.find(hash, name.bytes), want.loaded) {
            (Some(index), _) => Some(index),
            (None, Some(loaded)) if !db.complete => self.install(&name, hash, loaded),
            (None, _) => None,
        };
        let engine = self.engine;
        let slab = &mut self.space.dbs[self.number].slab;
        let value = index.and_then(|index| slab.object_mut(index));
        let Some(value) = value.filter(|value| {
            let tables = Rest::of(engine, want.slot, value);
            want.prefix == Some(tables.prefix)
        }) else {
            return;
        };
        if let Some(partial) = value.partial_mut() {
            let before = partial.memory();
            for (name, stored) in want.elements.iter().zip(&want.rows) {
                partial.learn(name, stored.as_deref());
            }
            let change = partial.memory() as i64 - before as i64;
            (self.space).attend(self.number, name.bytes, self.budget);
            self.space.charge += change;
            self.space.settle(self.number, self.budget);
        }
    }
}

impl Want {
    fn read(&mut self, engine: &Engine) -> Result<(), Error> {
        if self.prefix.is_none() {
            let name = Name {
                bytes: &self.key,
                slot: self.slot,
            };
            self.loaded = load::key(engine, self.db, &name, self.large)?;
            let value = self.loaded.as_ref().map(|loaded| &loaded.value);
            let partial = value.filter(|value| value.partial().is_some());
            self.prefix = partial.map(|value| Rest::of(engine, self.slot, value).prefix);
        }
        if let Some(prefix) = self.prefix {
            let tables = Rest { engine, prefix };
            for name in &self.elements {
                self.rows.push(tables.get(name)?);
            }
        }
        Ok(())
    }
}

impl Cold {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.wants.is_empty()
    }

    /// Reads what was noted. Without any lock: it may wait for the disk.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn read(&mut self, engine: &Engine) -> Result<(), Error> {
        self.wants.iter_mut().try_for_each(|want| want.read(engine))
    }

    /// Puts what was read into memory, as far as it is still true. The command must run under the same locks.
    pub fn install(self, locked: &mut Locked<'_>, now: Millis, fx: &mut Effects) {
        for want in self.wants {
            let shard = locked.shard(want.slot.shard());
            shard.keys(want.number, now, fx).install_cold(want);
        }
    }
}
