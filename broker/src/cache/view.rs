//! One database of one shard, during one command: memory and rows change here, together.

mod rows;
mod string;
mod whole;

use storage::{Effects, ShardId};

use super::hash::Hash;
use super::heard::Change;
use super::list::{List, Reach};
use super::load::Loaded;
use super::partial::Large;
use super::row::{self, Body, Rows};
use super::set::Set;
use super::slab::{Content, Entry, Slab};
use super::space::{Db, Space};
use super::stream::{Need, Stream};
use super::value::{Held, Kind, Value};
use super::zset::Zset;
use super::{Error, Name};
use crate::shard::Ids;
use crate::{Budget, Engine, Millis, Shard, Slot};

use rows::content_of;

/// Element rows of an object that are deleted at once; of a larger one the sweeper removes them.
const DELETE_AT_ONCE: usize = 64;

/// What happens to a key's deadline when its value is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expire {
    /// It has none any more.
    Never,
    Keep,
    /// Milliseconds since the epoch.
    At(u64),
}

/// See the module. Made for one command by [`Shard::keys`].
#[derive(Debug)]
pub struct View<'a> {
    pub(super) space: &'a mut Space,
    pub(super) number: usize,
    pub(super) shard: ShardId,
    pub(super) engine: &'a Engine,
    pub(super) budget: &'a Budget,
    ids: &'a mut Ids,
    /// Of the record that this command will be in.
    pub(super) seq: u64,
    pub(super) now: u64,
    pub(super) fx: &'a mut Effects,
}

impl Shard {
    /// Database `number` of this shard for one command at `now`.
    #[inline]
    pub fn keys<'a>(&'a mut self, number: usize, now: Millis, fx: &'a mut Effects) -> View<'a> {
        let seq = self.engine.shard_seq(self.id) + 1;
        self.cache.prepare(seq, self.id, &self.engine);
        View {
            space: &mut self.cache,
            number,
            shard: self.id,
            engine: &self.engine,
            budget: &self.budgets.cache,
            ids: &mut self.ids,
            seq,
            now: now.0,
            fx,
        }
    }
}

impl View<'_> {
    /// Milliseconds since the epoch, the same for the whole command.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now
    }

    /// Number of keys, those included whose time has come but that nobody has looked at.
    pub fn len(&mut self) -> usize {
        usize::try_from(self.db().count).unwrap_or(0)
    }

    /// Resident keys that have a deadline.
    pub fn expiring(&mut self) -> usize {
        self.db().deadlines.len()
    }

    pub fn is_empty(&mut self) -> bool {
        self.len() == 0
    }

    /// The kind of value that a key holds.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn kind(&mut self, name: &Name<'_>) -> Result<Option<Kind>, Error> {
        Ok(self.value(name)?.map(Held::kind))
    }

    /// # Errors
    /// When the tables cannot be read.
    #[inline]
    pub fn value(&mut self, name: &Name<'_>) -> Result<Option<Held<'_>>, Error> {
        let Some(index) = self.find(name)? else {
            return Ok(None);
        };
        Ok(self.db().slab.get(index).map(|entry| entry.value))
    }

    /// # Errors
    /// When the tables cannot be read.
    pub fn exists(&mut self, name: &Name<'_>) -> Result<bool, Error> {
        Ok(self.find(name)?.is_some())
    }

    /// Notes whether a reader found what it looked for.
    #[inline]
    pub fn note_read(&mut self, found: bool) {
        let counts = &mut self.space.counts;
        if found {
            counts.hits += 1;
        } else {
            counts.misses += 1;
        }
    }

    /// What happened in this shard.
    #[must_use]
    pub fn counts(&self) -> super::Counts {
        self.space.counts
    }

    /// Begins to count anew.
    pub fn reset_counts(&mut self) {
        self.space.counts = super::Counts::default();
    }

    /// How often a key is used, as its counter says, without using it; 0 where that is not counted.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn uses(&mut self, name: &Name<'_>) -> Result<Option<u8>, Error> {
        self.look(name, |slab, entry, now| slab.uses_of(entry, now))
    }

    /// Makes a key be one that is used so often, where that is counted.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn set_uses(&mut self, name: &Name<'_>, counter: u8) -> Result<(), Error> {
        let now = self.now;
        if let Some(index) = self.find(name)? {
            self.db().slab.set_uses(index, counter, now);
        }
        Ok(())
    }

    /// Seconds since a key was used last, without using it.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn idle_seconds(&mut self, name: &Name<'_>) -> Result<Option<u64>, Error> {
        self.look(name, |slab, entry, now| u64::from(slab.idle_of(entry, now)))
    }

    /// Looks at a key whose clock stays as it was.
    fn look<R>(
        &mut self,
        name: &Name<'_>,
        look: impl FnOnce(&Slab, &Entry<'_>, u64) -> R,
    ) -> Result<Option<R>, Error> {
        let hash = self.space.hash(name.bytes);
        let db = self.db();
        let known = db.find(hash, name.bytes);
        let used = known.and_then(|index| Some(db.slab.get(index)?.used()));
        let Some(index) = self.find(name)? else {
            return Ok(None);
        };
        let now = self.now;
        let slab = &mut self.db().slab;
        if let Some(used) = used {
            slab.set_clock(index, used);
        }
        Ok(slab.get(index).map(|entry| look(slab, &entry, now)))
    }

    /// Makes a key be one that was used last so many seconds ago, at most half a year.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn set_idle_seconds(&mut self, name: &Name<'_>, seconds: u64) -> Result<(), Error> {
        const MOST: u64 = 0xff_ffff;
        let then = self.now.saturating_sub(seconds.min(MOST) * 1000);
        if let Some(index) = self.find(name)? {
            let slab = &mut self.db().slab;
            // Where uses are counted it says nothing, as in Redis.
            if slab.uses().is_none() {
                slab.touch(index, then);
            }
        }
        Ok(())
    }

    /// About the memory that a key takes with all of its value that is in memory, in bytes.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn memory_of(&mut self, name: &Name<'_>) -> Result<Option<u64>, Error> {
        let Some(index) = self.find(name)? else {
            return Ok(None);
        };
        Ok(Some(self.db().slab.weight(index).unsigned_abs()))
    }

    /// The key's deadline: `None` for no key, 0 for none.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn expire_ms(&mut self, name: &Name<'_>) -> Result<Option<u64>, Error> {
        let Some(index) = self.find(name)? else {
            return Ok(None);
        };
        Ok(self.db().slab.get(index).map(|entry| entry.expire_ms))
    }

    /// Gives a key a deadline, or takes it (0). A deadline that has passed deletes. False: there is no such key.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn set_expire(&mut self, name: &Name<'_>, expire_ms: u64) -> Result<bool, Error> {
        let Some(index) = self.find(name)? else {
            return Ok(false);
        };
        if expire_ms != 0 && expire_ms <= self.now {
            self.drop_key(index, name.slot);
            return Ok(true);
        }
        let seq = self.seq;
        let db = self.db();
        db.set_expire(index, expire_ms);
        db.slab.mark(index, seq);
        self.write_root(index, name.slot);
        self.touched(name.bytes);
        if let Some(journal) = &mut self.space.journal {
            journal.expire(self.number, name.bytes, expire_ms);
        }
        Ok(true)
    }

    /// Deletes a key; true when it was there.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn delete(&mut self, name: &Name<'_>) -> Result<bool, Error> {
        let Some(index) = self.find(name)? else {
            return Ok(false);
        };
        self.drop_key(index, name.slot);
        Ok(true)
    }

    /// Removes the key if its collection is empty, and accounts for what changed; `before`: memory and elements.
    fn edited(&mut self, index: u32, name: &Name<'_>, before: (usize, usize), changed: bool) {
        let slab = &mut self.space.dbs[self.number].slab;
        let Some(value) = slab.object_mut(index) else {
            return;
        };
        let (mut touched, mut gone) = (changed, None);
        if let Value::Stream(stream) = value {
            stream.drop_loose();
            let news = stream.take_news();
            gone = news.gone.map(|gone| (stream.id, gone));
            touched = news.entries;
            if news.ready && !self.space.waiters.is_empty() {
                self.space.waiters.note(self.number, name.bytes);
            }
        }
        let (memory, elements) = (value.memory(), value.elements());
        let id = value.partial().map(|_| value.object());
        self.space.charge += memory as i64 - before.0 as i64;
        let deadlines = match value {
            Value::Hash(hash) => hash.deadlines_mut(),
            _ => None,
        };
        let lasting = deadlines.is_some();
        let unrooted =
            deadlines.is_some_and(|deadlines| !std::mem::replace(&mut deadlines.rooted, true));
        if changed {
            slab.mark(index, self.seq);
        }
        if unrooted && elements > 0 {
            self.write_root(index, name.slot);
        }
        if touched {
            self.touched(name.bytes);
        }
        if let Some((id, gone)) = gone {
            self.leave_front(name.slot, id, gone);
        }
        if let Some(id) = id {
            self.count_elements(name.slot, id, before.1, elements);
        } else if memory > before.0 {
            self.spill(index, name.slot);
        }
        if elements == 0 {
            self.drop_key(index, name.slot);
        } else {
            if lasting {
                self.db().enlist(index);
            }
            self.space.settle(self.number, self.budget);
        }
    }

    /// The number of a key that exists; an expired one goes, a cold one is loaded.
    #[inline]
    pub(super) fn find(&mut self, name: &Name<'_>) -> Result<Option<u32>, Error> {
        let hash = self.space.hash(name.bytes);
        let now = self.now;
        (self.space).attend(self.number, name.bytes, self.budget);
        let db = &mut self.space.dbs[self.number];
        match db.find(hash, name.bytes) {
            Some(index) => {
                let Some(entry) = db.slab.get(index) else {
                    return Ok(None);
                };
                if matches!(entry.value, Held::Absent) {
                    return Ok(None);
                }
                if entry.expire_ms != 0 && entry.expire_ms <= now {
                    self.expire_key(index, name.slot);
                    return Ok(None);
                }
                db.slab.touch(index, now);
                if db.lasting.is_empty() {
                    return Ok(Some(index));
                }
                self.without_due_fields(index, name)
            }
            None if db.complete => Ok(None),
            None => self.fetch(name, hash),
        }
    }

    /// The same, after the fields of a hash whose time has come are gone, and the hash with the last one.
    #[cold]
    pub(super) fn without_due_fields(
        &mut self,
        index: u32,
        name: &Name<'_>,
    ) -> Result<Option<u32>, Error> {
        let now = self.now;
        let deadlines = match self.db().slab.object_mut(index) {
            Some(Value::Hash(hash)) => hash.deadlines(),
            _ => None,
        };
        let due = deadlines.map_or_else(Vec::new, |deadlines| deadlines.due(now));
        if due.is_empty() {
            return Ok(Some(index));
        }
        self.know(index, name.slot, &due)?;
        let Some(value) = self.space.dbs[self.number].slab.object_mut(index) else {
            return Ok(None);
        };
        let before = (value.memory(), value.elements());
        if let Some(journal) = &mut self.space.journal {
            journal.begin(self.number, name.bytes, Kind::Hash, (0, 0));
        }
        let Value::Hash(hash) = value else {
            return Ok(Some(index));
        };
        let tag = row::element_tag(Kind::Hash);
        let mut rows = Rows::new(self.fx, (self.shard, self.seq), name.slot, tag, hash.id)
            .noting(self.space.journal.as_deref_mut());
        for field in &due {
            hash.remove(field, &mut rows);
        }
        let left = hash.len();
        self.edited(index, name, before, true);
        Ok((left > 0).then_some(index))
    }

    /// Loads a key from the tables.
    #[cold]
    fn fetch(&mut self, name: &Name<'_>, hash: u32) -> Result<Option<u32>, Error> {
        let (db, large) = (self.db().id, Large::by(self.budget));
        let loaded = super::load::key(self.engine, db, name, large)?;
        match loaded.and_then(|loaded| self.install(name, hash, loaded)) {
            Some(index) if !self.db().lasting.is_empty() => self.without_due_fields(index, name),
            found => Ok(found),
        }
    }

    /// Puts what was loaded into memory; `None`: its time had come.
    pub(super) fn install(&mut self, name: &Name<'_>, hash: u32, loaded: Loaded) -> Option<u32> {
        let Loaded {
            mut value,
            expire_ms,
            counted,
        } = loaded;
        let mut seq = 0;
        // It outgrew memory by a smaller budget than the one under which it was written.
        if counted && matches!(value.kind(), Kind::Stream | Kind::List) {
            let (place, tag) = ((self.shard, self.seq), row::element_tag(value.kind()));
            let mut rows = Rows::new(self.fx, place, name.slot, tag, value.object());
            value.write_places(&mut rows);
            seq = self.seq;
        } else if counted {
            let (count, key) = (
                value.elements() as i64,
                row::element_count_key(name.slot, value.object()),
            );
            self.fx.put(self.shard, &key, &count.to_le_bytes());
            seq = self.seq;
        }
        let partial = value.is_partial();
        let mut short = None;
        let content = content_of(value, &mut short);
        let now = self.now;
        (self.space).attend(self.number, name.bytes, self.budget);
        let index = self
            .db()
            .insert(hash, name.bytes, content, expire_ms, seq, now);
        if partial {
            self.space.partials.insert((self.number, index));
        }
        self.db().enlist(index);
        self.space.settle(self.number, self.budget);
        if expire_ms != 0 && expire_ms <= self.now {
            self.expire_key(index, name.slot);
            return None;
        }
        Some(index)
    }

    /// A new entry; its root row is written by the caller.
    fn add(&mut self, name: &Name<'_>, content: Content<'_>, expire_ms: u64) -> u32 {
        let hash = self.space.hash(name.bytes);
        if matches!(
            content,
            Content::Object(Value::List(_) | Value::Zset(_) | Value::Stream(_))
        ) && !self.space.waiters.is_empty()
        {
            self.space.waiters.note(self.number, name.bytes);
        }
        let (seq, now) = (self.seq, self.now);
        let marker = self.space.dbs[self.number].find(hash, name.bytes);
        if let Some(index) = marker {
            (self.space).mark_deleted(self.number, index, -1, self.budget);
        }
        let db = &mut self.space.dbs[self.number];
        db.count += 1;
        self.fx
            .add(self.shard, &row::count_key(self.shard, db.id), 1);
        let index = match marker {
            Some(index) => {
                db.slab.set(index, content);
                db.slab.mark(index, seq);
                db.slab.begin(index, now);
                db.set_expire(index, expire_ms);
                index
            }
            None => db.insert(hash, name.bytes, content, expire_ms, seq, now),
        };
        self.note(name.bytes, Change::New);
        self.touched(name.bytes);
        self.space.settle(self.number, self.budget);
        index
    }

    /// Deletes a key that is in memory.
    pub(super) fn drop_key(&mut self, index: u32, slot: Slot) {
        self.remove_key(index, slot, Some("del"));
    }

    /// The same for one whose time has come.
    pub(super) fn expire_key(&mut self, index: u32, slot: Slot) {
        self.space.counts.expired += 1;
        self.remove_key(index, slot, Some("expired"));
    }

    /// The same for one that makes room.
    pub(super) fn evict_key(&mut self, index: u32, slot: Slot) {
        self.space.counts.deleted += 1;
        self.remove_key(index, slot, Some("evicted"));
    }

    /// `noted`: what the journal is told.
    fn remove_key(&mut self, index: u32, slot: Slot, noted: Option<&str>) {
        let seq = self.seq;
        (self.space).attend_entry(self.number, index, self.budget);
        let db = &mut self.space.dbs[self.number];
        let Some(entry) = db.slab.get(index) else {
            return;
        };
        row::del(
            self.fx,
            self.shard,
            &row::key_prefix(slot, db.id),
            entry.key,
        );
        self.fx
            .add(self.shard, &row::count_key(self.shard, db.id), -1);
        db.count -= 1;
        if !self.space.watches.is_empty() {
            self.space.watches.touch(self.number, entry.key);
        }
        if !self.space.waiters.is_empty() && entry.value.kind() == Kind::Stream {
            // Whoever waits for one of its groups waits in vain.
            self.space.waiters.note(self.number, entry.key);
        }
        if let Some(tracked) = &mut self.space.tracked {
            tracked.note(entry.key);
        }
        if let Some(heard) = &mut self.space.heard {
            let change = match noted {
                Some("expired") => Change::Expired,
                Some("evicted") => Change::Evicted,
                _ => Change::Gone,
            };
            heard.note(self.number, entry.key, change);
        }
        if let (Some(journal), Some(op)) = (&mut self.space.journal, noted) {
            journal.note(self.number, Some(entry.key), op);
        }
        let object = if db.keep_absent {
            let object = db.slab.set(index, Content::Absent);
            db.slab.mark(index, seq);
            db.unlist(index, object.as_ref());
            db.set_expire(index, 0);
            db.absent.push_back((seq, index));
            (self.space).mark_deleted(self.number, index, 1, self.budget);
            object
        } else {
            db.removed_seq = seq;
            self.forget(index)
        };
        if let Some(value) = object {
            self.bury(slot, &value);
        }
        self.space.settle(self.number, self.budget);
    }

    /// Takes a key out of memory; the tables are not told. The object that it held.
    pub(super) fn forget(&mut self, index: u32) -> Option<Value> {
        let hash = {
            let entry = self.space.dbs[self.number].slab.get(index)?;
            self.space.hash(entry.key)
        };
        (self.space).attend_entry(self.number, index, self.budget);
        let object = self.db().forget(hash, index);
        self.space.settle(self.number, self.budget);
        object
    }

    #[inline]
    pub(super) fn touched(&mut self, key: &[u8]) {
        if !self.space.watches.is_empty() {
            self.space.watches.touch(self.number, key);
        }
        if self.space.tracked.is_some() {
            self.space.note_tracked(key);
        }
        self.note(key, Change::Changed);
    }

    /// For Redis' notifications.
    #[inline]
    fn note(&mut self, key: &[u8], change: Change) {
        if let Some(heard) = &mut self.space.heard {
            heard.note(self.number, key, change);
        }
    }

    #[inline]
    pub(super) fn new_id(&mut self) -> u64 {
        self.ids.next(self.seq)
    }

    #[inline]
    pub(super) fn db(&mut self) -> &mut Db {
        &mut self.space.dbs[self.number]
    }
}

/// For each kind of collection: look at one, and change one.
macro_rules! collection {
    ($get:ident, $edit:ident, $kind:ident $(, $know:ident($needed:ident: $needs:ty))? $(; $prepare:ident)?) => {
        impl View<'_> {
            /// The collection at a key. One that may not be whole is told what will be looked at.
            ///
            /// # Errors
            /// [`Error::WrongType`], or when the tables cannot be read.
            #[inline]
            pub fn $get(
                &mut self,
                name: &Name<'_>,
                $($needed: $needs,)?
            ) -> Result<Option<&$kind>, Error> {
                let Some(index) = self.find(name)? else {
                    return Ok(None);
                };
                $(self.$know(index, name.slot, $needed)?;)?
                match self.db().slab.get(index).map(|entry| entry.value) {
                    None => Ok(None),
                    Some(Held::Object(Value::$kind(found))) => Ok(Some(found)),
                    Some(_) => Err(Error::WrongType),
                }
            }

            /// Changes the collection at a key; `create` makes one where there is none. An empty one is deleted. One that
            /// may not be whole is told what will be looked at or changed.
            ///
            /// # Errors
            /// [`Error::WrongType`], or when the tables cannot be read.
            pub fn $edit<R>(
                &mut self,
                name: &Name<'_>,
                create: bool,
                $($needed: $needs,)?
                change: impl FnOnce(&mut $kind, &mut Rows<'_>) -> R,
            ) -> Result<Option<R>, Error> {
                let index = match self.find(name)? {
                    Some(index) => index,
                    None if !create => return Ok(None),
                    None => {
                        let id = self.new_id();
                        self.root_row(name, 0, &Body::Object(Kind::$kind, id));
                        let new = Value::$kind(Box::new($kind::new(id)));
                        self.add(name, Content::Object(new), 0)
                    }
                };
                $(self.$prepare(index, name.slot)?;)?
                $(self.$know(index, name.slot, $needed)?;)?
                let slab = &mut self.space.dbs[self.number].slab;
                let Some(value) = slab.object_mut(index) else {
                    return Err(Error::WrongType);
                };
                let before = (value.memory(), value.elements());
                if let Some(journal) = &mut self.space.journal {
                    journal.begin(self.number, name.bytes, Kind::$kind, value.ends());
                }
                let Value::$kind(found) = value else {
                    return Err(Error::WrongType);
                };
                let tag = row::element_tag(Kind::$kind);
                let mut rows = Rows::new(self.fx, (self.shard, self.seq), name.slot, tag, found.id)
                    .noting(self.space.journal.as_deref_mut());
                let result = change(found, &mut rows);
                let changed = rows.changed;
                self.edited(index, name, before, changed);
                Ok(Some(result))
            }
        }
    };
}

collection!(hash, edit_hash, Hash, know(elements: impl IntoIterator<Item = impl AsRef<[u8]>>));
collection!(list_for, edit_list, List, know_items(reach: Reach));
collection!(set, edit_set, Set, know(elements: impl IntoIterator<Item = impl AsRef<[u8]>>));
collection!(zset, edit_zset, Zset, know(elements: impl IntoIterator<Item = impl AsRef<[u8]>>); prepare_order);
collection!(stream_for, edit_stream, Stream, know_entries(need: &Need<'_>));
