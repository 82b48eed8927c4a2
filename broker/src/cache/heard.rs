//! What happened to keys, for Redis' keyspace notifications: noted where a key changes, only while somebody wants to hear.
//!
//! The names of events are the commands' affair. What happens without a command, a pop for a client that waited, has its name here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{DATA_SHARDS, Locked};

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was not there.
    New,
    /// Its value or deadline is another one.
    Changed,
    Gone,
    Expired,
    /// It made room for others.
    Evicted,
    /// A client that waited got something from it, or gave something to it: the event's name.
    Served(&'static str),
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Grows over all shards.
    order: u64,
    pub db: usize,
    pub key: Box<[u8]>,
    pub change: Change,
}

/// What happened in one shard and was not taken yet, in order.
#[derive(Debug)]
pub(crate) struct Heard {
    notes: Vec<Note>,
    clock: Arc<AtomicU64>,
}

impl Heard {
    pub(super) fn note(&mut self, db: usize, key: &[u8], change: Change) {
        self.notes.push(Note {
            // Only that it grows counts: whoever notes holds the shard's lock.
            order: self.clock.fetch_add(1, Ordering::Relaxed),
            db,
            key: key.into(),
            change,
        });
    }

    pub(super) fn len(&self) -> usize {
        self.notes.len()
    }

    /// What was noted behind the first `mark` was done for a client that waited: it has other names.
    pub(super) fn rename(&mut self, mark: usize, db: usize, events: &[(&[u8], &'static str)]) {
        let done = self.notes.split_off(mark.min(self.notes.len()));
        let last = |key: &[u8]| {
            let mut of_key = done.iter().rev().filter(|note| *note.key == *key);
            of_key.find(|note| matches!(note.change, Change::New | Change::Gone))
        };
        for (key, name) in events {
            let fate = last(key).map(|note| note.change);
            if fate == Some(Change::New) {
                self.note(db, key, Change::New);
            }
            self.note(db, key, Change::Served(name));
            if fate == Some(Change::Gone) {
                self.note(db, key, Change::Gone);
            }
        }
    }
}

/// From now on, in the locked shards, what happens is noted, or not.
pub fn hear(locked: &mut Locked<'_>, on: bool) {
    let clock = Arc::new(AtomicU64::new(0));
    for id in locked.set().iter().filter(|id| id.index() < DATA_SHARDS) {
        let heard = &mut locked.shard(id).cache.heard;
        match (on, heard.is_some()) {
            (true, false) => {
                *heard = Some(Box::new(Heard {
                    notes: Vec::new(),
                    clock: Arc::clone(&clock),
                }));
            }
            (false, true) => *heard = None,
            _ => {}
        }
    }
}

/// What happened in the locked shards since the last call, in order.
pub fn heard(locked: &mut Locked<'_>) -> Vec<Note> {
    let mut notes = Vec::new();
    for id in locked.set().iter().filter(|id| id.index() < DATA_SHARDS) {
        if let Some(heard) = &mut locked.shard(id).cache.heard {
            notes.append(&mut heard.notes);
        }
    }
    notes.sort_unstable_by_key(|note| note.order);
    notes
}
