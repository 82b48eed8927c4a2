//! Blocked pops: served under the lock, in order of arrival, by the command that made them possible.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use storage::Lsn;

use super::list::End;
use super::stream::{EntryId, Kept};
use super::text::Text;

/// What a blocked client wants of the first of its keys that has something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// `BLPOP`, `BRPOP`; with a count `BLMPOP`.
    Pop { end: End, count: usize },
    /// `BLMOVE`, `BRPOPLPUSH`.
    Move {
        to: Vec<u8>,
        from_end: End,
        to_end: End,
    },
    /// `BZPOPMIN`, `BZPOPMAX`; with a count `BZMPOP`.
    ZPop { max: bool, count: usize },
    /// `XREAD`: entries behind these ids, at most `count` of each stream unless 0.
    Read {
        after: Vec<(Vec<u8>, EntryId)>,
        count: usize,
    },
    /// `XREADGROUP`: what the group has not read.
    ReadGroup {
        group: Vec<u8>,
        consumer: Vec<u8>,
        count: usize,
        noack: bool,
    },
}

/// Entries of the stream at a key.
pub type Found = (Text, Vec<Kept>);

/// What a blocked client gets.
#[derive(Debug, Clone, PartialEq)]
pub enum Served {
    Items {
        key: Text,
        items: Vec<Text>,
    },
    Members {
        key: Text,
        members: Vec<(Text, f64)>,
    },
    Moved(Text),
    Entries(Vec<Found>),
    /// The stream is not there any more, or does not have the group.
    NoGroup {
        key: Text,
    },
    /// A key is of another type; the client gets WRONGTYPE and nothing has moved.
    WrongType,
    /// Its key has something, but other keys that it needs live in another shard: run the command again.
    Retry,
}

/// Where a blocked client is told. Called under the shard's lock, after the commit: must not block.
pub trait Receive: Send + Sync {
    fn served(&self, served: Served, lsn: Lsn);
}

/// One blocked command. It may wait in several shards; the first that claims it serves it.
pub struct Waiter {
    claimed: AtomicBool,
    pub want: Want,
    receiver: Arc<dyn Receive>,
}

impl Waiter {
    pub fn new(want: Want, receiver: Arc<dyn Receive>) -> Arc<Self> {
        Arc::new(Self {
            claimed: AtomicBool::new(false),
            want,
            receiver,
        })
    }

    /// True for one caller only: a server, or the timeout.
    pub fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::AcqRel)
    }

    #[must_use]
    pub fn is_claimed(&self) -> bool {
        self.claimed.load(Ordering::Acquire)
    }

    pub fn deliver(&self, served: Served, lsn: Lsn) {
        self.receiver.served(served, lsn);
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter")
            .field("want", &self.want)
            .field("claimed", &self.is_claimed())
            .finish_non_exhaustive()
    }
}

/// Who waits for which key of one shard, and which keys have just got something.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    keys: HashMap<(usize, Text), VecDeque<Arc<Waiter>>, RandomState>,
    pub(super) ready: Vec<(usize, Text)>,
}

impl Waiters {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn add(&mut self, db: usize, key: &[u8], waiter: &Arc<Waiter>) {
        let waiting = self.keys.entry((db, Text::new(key))).or_default();
        // A key named twice waits once.
        if !waiting.iter().any(|other| Arc::ptr_eq(other, waiter)) {
            waiting.push_back(Arc::clone(waiter));
        }
    }

    pub(super) fn remove(&mut self, db: usize, key: &[u8], waiter: &Arc<Waiter>) {
        let name = (db, Text::new(key));
        if let Some(waiting) = self.keys.get_mut(&name) {
            waiting.retain(|other| !Arc::ptr_eq(other, waiter));
            if waiting.is_empty() {
                self.keys.remove(&name);
            }
        }
    }

    /// What a key holds has come to be, is another thing now, or is gone.
    pub(super) fn note(&mut self, db: usize, key: &[u8]) {
        let name = (db, Text::new(key));
        if self.keys.contains_key(&name) && !self.ready.contains(&name) {
            self.ready.push(name);
        }
    }

    /// The same for all keys of a database.
    pub(super) fn note_all(&mut self, db: usize) {
        let names = self.keys.keys().filter(|(number, _)| *number == db);
        let new: Vec<_> = (names.filter(|name| !self.ready.contains(name)).cloned()).collect();
        self.ready.extend(new);
    }

    /// Those that wait for a key, first come first.
    pub(super) fn waiting(&self, name: &(usize, Text)) -> Vec<Arc<Waiter>> {
        self.keys
            .get(name)
            .map(|waiting| waiting.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// Drops those of a key that have been claimed.
    pub(super) fn prune(&mut self, name: &(usize, Text)) {
        if let Some(waiting) = self.keys.get_mut(name) {
            waiting.retain(|waiter| !waiter.is_claimed());
            if waiting.is_empty() {
                self.keys.remove(name);
            }
        }
    }

    /// Clients that are blocked on keys of this shard.
    pub(super) fn len(&self) -> usize {
        self.keys.values().map(VecDeque::len).sum()
    }
}
