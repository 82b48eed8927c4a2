//! The keys of one shard, by database.

use std::collections::{BTreeSet, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use storage::{Need, ShardId};

use super::deadlines::{DEADLINE_BYTES, Deadlines};
use super::elements::Cursors;
use super::heard::Heard;
use super::index::Index;
use super::journal::Journal;
use super::limit::Scopes;
use super::row;
use super::slab::{Content, Slab};
use super::stream::EntryId;
use super::tracking::{Track, Tracked};
use super::value::{Held, Value};
use super::waiter::Waiters;
use super::watch::Watches;
use crate::rows::{self, Tag};
use crate::{Budget, Engine, Keyspace, Slot};

/// Databases a client can `SELECT`.
pub const DATABASES: usize = 16;

/// Bytes that a shard gains or gives back before it tells the budget, so that shards do not write one word all the time.
const CHARGE_STEP: i64 = 32 << 10;

/// The keys of one shard.
#[derive(Debug)]
pub struct Space {
    hasher: RandomState,
    pub(super) dbs: Vec<Db>,
    /// Ids of databases are never used twice.
    pub(super) next_db: u32,
    /// With the seq of the record that made them: rows before it may still be on their way into the tables.
    pub(super) graves: VecDeque<(u64, Grave)>,
    /// Where the sweep of the first grave goes on.
    pub(super) sweep_from: Vec<u8>,
    pub(super) watches: Watches,
    /// While clients keep values that they have read.
    pub(crate) tracked: Option<Box<Tracked>>,
    /// While clients want to hear what happens to keys.
    pub(crate) heard: Option<Box<Heard>>,
    /// While changes are wanted as records of a topic.
    pub(crate) journal: Option<Box<Journal>>,
    pub(super) waiters: Waiters,
    /// Partial collections, by database and entry; what has gone since is taken out when eviction comes by.
    pub(super) partials: BTreeSet<(usize, u32)>,
    pub(super) cursors: Cursors,
    /// The next slot that the warmer reads; `None`: done.
    pub(super) warm: Option<u16>,
    /// What happened since the start or the last reset.
    pub counts: Counts,
    /// What a reader of keys waits for besides their own class: a transaction that also published or produced is seen as a
    /// whole when its strictest part is safe.
    pub strict: Need,
    /// Memory gained or given back, not yet told to the budget.
    pub(super) charge: i64,
    /// The same for markers of deletions, which are in it, too.
    pub(super) markers: i64,
    /// How much of either need not be told.
    pub(super) step: i64,
    /// While some keys have limits of their own.
    pub(super) scopes: Option<Box<Scopes>>,
    /// The last seq that every database can keep, see [`Slab::begin_epoch`].
    epoch_end: u64,
}

/// What happened to keys; for `INFO`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub hits: u64,
    pub misses: u64,
    pub expired: u64,
    /// Values that left memory for the tables.
    pub evicted: u64,
    /// Keys deleted to make room.
    pub deleted: u64,
}

/// Orphans in the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grave {
    Object {
        slot: Slot,
        tag: Tag,
        id: u64,
    },
    /// Entries of a stream.
    Front {
        slot: Slot,
        id: u64,
        /// The first id and the one behind the last.
        gone: (EntryId, EntryId),
    },
    Database(u32),
}

/// One database of one shard.
#[derive(Debug)]
pub(super) struct Db {
    pub(super) id: u32,
    index: Index,
    pub(super) slab: Slab,
    pub(super) deadlines: Deadlines,
    /// Resident hashes by the first deadline of their fields.
    pub(super) lasting: BTreeSet<(u64, u32)>,
    /// Keys, resident or not.
    pub(super) count: i64,
    /// Every key is resident: a miss needs no look into the tables.
    pub(super) complete: bool,
    /// Deletions leave a marker until they are folded; needed as soon as misses are looked up in the tables.
    pub(super) keep_absent: bool,
    /// Seq of the last deletion that left no marker.
    pub(super) removed_seq: u64,
    /// Markers by the seq of their deletion.
    pub(super) absent: VecDeque<(u64, u32)>,
}

impl Default for Space {
    fn default() -> Self {
        Self {
            hasher: RandomState::default(),
            dbs: (0..DATABASES as u32).map(Db::new).collect(),
            next_db: DATABASES as u32,
            graves: VecDeque::new(),
            sweep_from: Vec::new(),
            watches: Watches::default(),
            tracked: None,
            heard: None,
            journal: None,
            waiters: Waiters::default(),
            partials: BTreeSet::new(),
            cursors: Cursors::default(),
            warm: Some(0),
            counts: Counts::default(),
            strict: Need::none(),
            charge: 0,
            markers: 0,
            step: CHARGE_STEP,
            scopes: None,
            epoch_end: Slab::default().epoch_end(),
        }
    }
}

impl Space {
    /// What a shard without keys takes, about.
    pub(super) const EMPTY_BYTES: u64 = (size_of::<Self>() + DATABASES * size_of::<Db>()) as u64;

    #[inline]
    pub(super) fn hash(&self, key: &[u8]) -> u32 {
        // The upper half is as good as the lower one.
        (self.hasher.hash_one(key) >> 32) as u32
    }

    /// All of it, for who takes two keys for the same by it.
    pub(super) fn long_hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    /// Whether a key of a database, or an element of one, may be missing from memory.
    #[inline]
    #[must_use]
    pub fn may_be_cold(&self, number: usize) -> bool {
        self.dbs.get(number).is_none_or(|db| !db.complete) || !self.partials.is_empty()
    }

    /// The client has read the key and keeps what it read.
    pub fn read_by(&mut self, key: &[u8], client: &Arc<dyn Track>) {
        if let Some(tracked) = &mut self.tracked {
            tracked.read_by(key, client);
        }
    }

    /// A key has changed, for those who keep its value.
    #[cold]
    pub(super) fn note_tracked(&mut self, key: &[u8]) {
        if !self
            .tracked
            .as_mut()
            .is_some_and(|tracked| tracked.note(key))
        {
            self.tracked = None;
        }
    }

    /// Reads the databases' ids and counts, and what the sweeper has left to do.
    pub(super) fn load(&mut self, shard: ShardId, engine: &Engine) -> Result<(), storage::Error> {
        for (number, db) in self.dbs.iter_mut().enumerate() {
            // At most 16.
            if let Some(row) =
                engine.get(Keyspace::Rows, &row::database_key(shard, number as u8))?
                && let Ok(id) = <[u8; 4]>::try_from(&*row)
            {
                db.id = u32::from_le_bytes(id);
            }
            self.next_db = self.next_db.max(db.id + 1);
            if let Some(row) = engine.get(Keyspace::Rows, &row::count_key(shard, db.id))?
                && let Ok(count) = <[u8; 8]>::try_from(&*row)
            {
                db.count = i64::from_le_bytes(count);
            }
            db.complete = db.count == 0;
            db.keep_absent = !db.complete;
        }
        let dead = rows::prefix(Slot::range_of(shard).0, Tag::Dead);
        rows::each(engine, &dead, &mut |key, value| {
            let name = key.get(dead.len()..).unwrap_or_default();
            if let Ok(db) = <[u8; 4]>::try_from(name) {
                self.next_db = self.next_db.max(u32::from_be_bytes(db) + 1);
                self.graves
                    .push_back((0, Grave::Database(u32::from_be_bytes(db))));
            } else if let (Some((slot, rest)), Some(&tag)) =
                (name.split_first_chunk::<2>(), value.first())
                && let (Some(slot), Some(tag), Some((id, below))) = (
                    Slot::from_raw(u16::from_be_bytes(*slot)),
                    row::element_tag_from(tag),
                    rest.split_first_chunk::<8>(),
                )
            {
                let id = u64::from_be_bytes(*id);
                let from = value.get(1..).and_then(EntryId::from_bytes);
                let grave = match from.zip(EntryId::from_bytes(below)) {
                    Some(gone) => Grave::Front { slot, id, gone },
                    None => Grave::Object { slot, tag, id },
                };
                self.graves.push_back((0, grave));
            }
            true
        })?;
        self.warm = if self.dbs.iter().all(|db| db.complete) {
            None
        } else {
            Some(Slot::range_of(shard).0.raw())
        };
        Ok(())
    }

    /// Tells the budget what changed, in steps. `number`: the database that was worked on.
    #[inline]
    pub(super) fn settle(&mut self, number: usize, budget: &Budget) {
        self.charge += std::mem::take(&mut self.dbs[number].slab.charge);
        let most = self.charge.unsigned_abs().max(self.markers.unsigned_abs());
        if most > self.step.unsigned_abs() {
            self.tell(budget);
        }
    }

    /// Must be called before a record has this `seq`.
    #[inline]
    pub(super) fn prepare(&mut self, seq: u64, shard: ShardId, engine: &Engine) {
        if seq > self.epoch_end {
            self.begin_epoch(seq, engine.folded_seq(shard));
        }
    }

    #[cold]
    fn begin_epoch(&mut self, seq: u64, folded: u64) {
        for db in &mut self.dbs {
            db.slab.begin_epoch(folded, seq);
        }
        let ends = self.dbs.iter().map(|db| db.slab.epoch_end());
        self.epoch_end = ends.min().unwrap_or(u64::MAX);
    }
}

impl Db {
    pub(super) fn new(id: u32) -> Self {
        Self {
            id,
            index: Index::default(),
            slab: Slab::default(),
            deadlines: Deadlines::default(),
            lasting: BTreeSet::new(),
            count: 0,
            complete: true,
            keep_absent: false,
            removed_seq: 0,
            absent: VecDeque::new(),
        }
    }

    /// The entry that the key of this hash most probably has.
    #[inline]
    pub(super) fn probable(&self, hash: u32) -> Option<u32> {
        self.index.find(hash, |_| true)
    }

    #[inline]
    pub(super) fn find(&self, hash: u32, key: &[u8]) -> Option<u32> {
        self.index.find(hash, |number| self.slab.is(number, key))
    }

    /// Adds a key that is not in memory.
    pub(super) fn insert(
        &mut self,
        hash: u32,
        key: &[u8],
        content: Content<'_>,
        expire_ms: u64,
        seq: u64,
        now_ms: u64,
    ) -> u32 {
        let number = self.slab.insert(key, content, expire_ms, seq, now_ms);
        self.index.insert(hash, number);
        self.set_deadline(0, expire_ms, number);
        number
    }

    /// Takes an entry out of memory; the tables are not told. The object that it held.
    pub(super) fn forget(&mut self, hash: u32, index: u32) -> Option<Value> {
        let expire_ms = self.slab.get(index)?.expire_ms;
        self.set_deadline(expire_ms, 0, index);
        self.index.remove(hash, index);
        let object = self.slab.remove(index);
        self.unlist(index, object.as_ref());
        object
    }

    /// A value is not at this entry any more.
    #[inline]
    pub(super) fn unlist(&mut self, index: u32, object: Option<&Value>) {
        if let Some(Value::Hash(hash)) = object
            && let Some(deadlines) = hash.deadlines()
        {
            self.lasting.remove(&(deadlines.listed_ms, index));
        }
    }

    /// Notes the first deadline of a hash's fields, if that has changed.
    pub(super) fn enlist(&mut self, index: u32) {
        let Some(Value::Hash(hash)) = self.slab.object_mut(index) else {
            return;
        };
        let first = hash.first_deadline();
        let Some(deadlines) = hash.deadlines_mut() else {
            return;
        };
        let before = std::mem::replace(&mut deadlines.listed_ms, first);
        if before != first {
            self.lasting.remove(&(before, index));
            if first != 0 {
                self.lasting.insert((first, index));
            }
        }
    }

    #[inline]
    pub(super) fn set_expire(&mut self, index: u32, expire_ms: u64) {
        let Some(old) = self.slab.get(index).map(|entry| entry.expire_ms) else {
            return;
        };
        if old != expire_ms {
            self.slab.set_expire(index, expire_ms);
            self.set_deadline(old, expire_ms, index);
        }
    }

    /// An entry's deadline was `old` and is `new`; 0: none.
    #[inline]
    fn set_deadline(&mut self, old: u64, new: u64, index: u32) {
        if old != 0 {
            self.deadlines.remove(old, index);
            self.slab.charge -= DEADLINE_BYTES;
        }
        if new != 0 {
            self.deadlines.insert(new, index);
            self.slab.charge += DEADLINE_BYTES;
        }
    }

    /// Visits all entries in memory: key, bytes, and whether it is the marker of a deletion.
    pub(super) fn each_weight(&self, visit: &mut dyn FnMut(&[u8], i64, bool)) {
        for index in 0..self.slab.end() {
            if let Some(entry) = self.slab.get(index) {
                let deadline = if entry.expire_ms == 0 {
                    0
                } else {
                    DEADLINE_BYTES
                };
                let weight = self.slab.weight(index) + deadline;
                visit(entry.key, weight, matches!(entry.value, Held::Absent));
            }
        }
    }

    /// Entries in memory, markers included.
    pub(super) fn resident(&self) -> usize {
        self.index.len()
    }
}
