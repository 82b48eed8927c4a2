//! One database of one shard, during one command: memory and rows change here, together.

use storage::{Effects, ShardId};

use super::hash::Hash;
use super::list::List;
use super::load::Loaded;
use super::partial;
use super::row::{self, Body, Root, Rows};
use super::set::{Member, Set, integer};
use super::slab::Content;
use super::space::{Db, Grave, Space};
use super::value::{Buffer, Held, Kind, Value};
use super::zset::Zset;
use super::{Error, Name};
use crate::shard::Ids;
use crate::{Budget, Engine, Millis, Shard, Slot};

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
        self.db().expiry.len()
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

    /// A string's bytes.
    ///
    /// # Errors
    /// [`Error::WrongType`], or when the tables cannot be read.
    #[inline]
    pub fn string(&mut self, name: &Name<'_>) -> Result<Option<Member<'_>>, Error> {
        match self.value(name)? {
            None | Some(Held::Absent) => Ok(None),
            Some(held) => held.string().map(Some).ok_or(Error::WrongType),
        }
    }

    /// Makes a key hold a string, whatever it held.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn set_string(
        &mut self,
        name: &Name<'_>,
        bytes: &[u8],
        expire: Expire,
    ) -> Result<(), Error> {
        if bytes.len() > row::PAGE {
            let id = self.new_id();
            let value = Value::Buffer(Box::new(Buffer {
                bytes: bytes.to_vec(),
                id,
            }));
            return self.put(name, value, expire);
        }
        let found = self.find(name)?;
        let Some(index) = found else {
            let expire_ms = if let Expire::At(at) = expire { at } else { 0 };
            self.root_row(name, expire_ms, &Body::Inline(bytes));
            let content = integer(bytes).map_or(Content::Text(bytes), Content::Int);
            self.add(name, content, expire_ms);
            return Ok(());
        };
        let content = integer(bytes).map_or(Content::Text(bytes), Content::Int);
        self.replace_string(name, index, bytes, content, expire);
        Ok(())
    }

    /// Gives a key that exists a string in place of what it held.
    #[inline]
    fn replace_string(
        &mut self,
        name: &Name<'_>,
        index: u32,
        bytes: &[u8],
        content: Content<'_>,
        expire: Expire,
    ) {
        let db = &mut self.space.dbs[self.number];
        let old_ms = db.slab.get(index).map_or(0, |entry| entry.expire_ms);
        let expire_ms = match expire {
            Expire::Never => 0,
            Expire::Keep => old_ms,
            Expire::At(at) => at,
        };
        let old = db.slab.set(index, content);
        db.slab.mark(index, self.seq);
        if old_ms != expire_ms {
            db.set_expire(index, expire_ms);
        }
        if let Some(old) = old.filter(|old| old.object() != 0) {
            self.bury(name.slot, &old);
        }
        self.root_row(name, expire_ms, &Body::Inline(bytes));
        self.touched(name.bytes);
        self.space.settle(self.number, self.budget);
    }

    /// Makes a key hold the integer that `change` makes of what it holds now (`None`: there is no key), keeping its deadline.
    /// For counters: the key is looked up once, and nothing is allocated.
    ///
    /// # Errors
    /// [`Error::WrongType`], or when the tables cannot be read; the inner one is the caller's, and nothing has changed.
    #[inline]
    pub fn edit_integer<E>(
        &mut self,
        name: &Name<'_>,
        change: impl FnOnce(Option<Member<'_>>) -> Result<i64, E>,
    ) -> Result<Result<i64, E>, Error> {
        let found = self.find(name)?;
        let slab = &self.space.dbs[self.number].slab;
        let held = match found.and_then(|index| slab.get(index)) {
            None => None,
            Some(entry) => Some(entry.value.string().ok_or(Error::WrongType)?),
        };
        let value = match change(held) {
            Ok(value) => value,
            Err(error) => return Ok(Err(error)),
        };
        let mut text = itoa::Buffer::new();
        let bytes = text.format(value).as_bytes();
        match found {
            Some(index) => {
                self.replace_string(name, index, bytes, Content::Int(value), Expire::Keep);
            }
            None => {
                self.root_row(name, 0, &Body::Inline(bytes));
                self.add(name, Content::Int(value), 0);
            }
        }
        Ok(Ok(value))
    }

    /// Changes a string in place (an absent one is empty). `change` returns which bytes it wrote; an empty range and an
    /// unchanged length mean nothing happened.
    ///
    /// # Errors
    /// [`Error::WrongType`], or when the tables cannot be read.
    pub fn edit_string<R>(
        &mut self,
        name: &Name<'_>,
        change: impl FnOnce(&mut Vec<u8>) -> (R, std::ops::Range<usize>),
    ) -> Result<R, Error> {
        let Some(index) = self.find(name)? else {
            let mut bytes = Vec::new();
            let (result, written) = change(&mut bytes);
            if !written.is_empty() || !bytes.is_empty() {
                self.set_string(name, &bytes, Expire::Never)?;
            }
            return Ok(result);
        };
        let seq = self.seq;
        let db = &mut self.space.dbs[self.number];
        let Some(entry) = db.slab.get(index) else {
            return Err(Error::Damaged);
        };
        let expire_ms = entry.expire_ms;
        if !matches!(entry.value, Held::Object(_)) {
            let bytes = entry.value.string().map(Member::to_vec).unwrap_or_default();
            let buffer = Value::Buffer(Box::new(Buffer { bytes, id: 0 }));
            db.slab.set(index, Content::Object(buffer));
        }
        let Some(value) = db.slab.object_mut(index) else {
            return Err(Error::Damaged);
        };
        let before = value.memory();
        let Value::Buffer(buffer) = value else {
            return Err(Error::WrongType);
        };
        let length = buffer.bytes.len();
        let (result, written) = change(&mut buffer.bytes);
        let changed = !written.is_empty() || buffer.bytes.len() != length;
        self.space.charge += value.memory() as i64 - before as i64;
        if !changed {
            return Ok(result);
        }
        db.slab.mark(index, seq);
        let Some(Value::Buffer(buffer)) = db.slab.object_mut(index) else {
            return Err(Error::Damaged);
        };
        if buffer.bytes.len() <= row::PAGE {
            let body = Body::Inline(&buffer.bytes);
            row::put_root(
                self.fx,
                self.shard,
                &row::key_prefix(name.slot, db.id),
                name.bytes,
                &Root { expire_ms, body },
            );
        } else {
            let whole = buffer.id == 0;
            if whole {
                buffer.id = self.ids.next(seq);
                let body = Body::Pages(buffer.id);
                row::put_root(
                    self.fx,
                    self.shard,
                    &row::key_prefix(name.slot, db.id),
                    name.bytes,
                    &Root { expire_ms, body },
                );
            }
            let from = if whole {
                0
            } else {
                written.start.min(length) / row::PAGE
            };
            let to = if whole {
                buffer.bytes.len()
            } else {
                written.end
            };
            let mut rows = Rows::new(
                self.fx,
                (self.shard, seq),
                name.slot,
                row::element_tag(Kind::String),
                buffer.id,
            );
            for (page, bytes) in buffer.bytes.chunks(row::PAGE).enumerate().skip(from) {
                if page * row::PAGE >= to {
                    break;
                }
                rows.put(&(page as u32).to_be_bytes(), bytes);
            }
        }
        self.touched(name.bytes);
        Ok(result)
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

    /// Seconds since a key was used last, without using it.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn idle_seconds(&mut self, name: &Name<'_>) -> Result<Option<u64>, Error> {
        let hash = self.space.hash(name.bytes);
        let now = self.now;
        let db = self.db();
        let idle = db
            .find(hash, name.bytes)
            .and_then(|index| db.slab.get(index))
            .map(|entry| u64::from(entry.idle_seconds(now)));
        Ok(self.find(name)?.map(|_| idle.unwrap_or(0)))
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

    /// Takes a key away with its value and deadline, for a move to `to`, in whichever shard that lives. Its elements' rows
    /// go unless `same_rows`: then the value must be put back under a key of the same slot.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn take(
        &mut self,
        name: &Name<'_>,
        same_rows: bool,
    ) -> Result<Option<(Value, u64)>, Error> {
        let Some(index) = self.find(name)? else {
            return Ok(None);
        };
        let Some(entry) = self.space.dbs[self.number].slab.get(index) else {
            return Ok(None);
        };
        let expire_ms = entry.expire_ms;
        // Read before anything changes: after an error it is still where it was.
        let whole = match entry.value {
            Held::Object(value) if !same_rows && value.partial().is_some() => {
                Some(self.whole(name.slot, value)?)
            }
            _ => None,
        };
        let Some(mut value) = self.db().slab.take(index) else {
            return Ok(None);
        };
        if !same_rows {
            self.bury(name.slot, &value);
            value = whole.unwrap_or(value);
        }
        self.drop_key(index, name.slot);
        Ok(Some((value, expire_ms)))
    }

    /// Puts a value that [`View::take`] gave under another key, whose old value goes. `same_rows` as there.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn restore(
        &mut self,
        name: &Name<'_>,
        value: Value,
        expire_ms: u64,
        same_rows: bool,
    ) -> Result<(), Error> {
        if let Some(index) = self.find(name)? {
            self.drop_key(index, name.slot);
        }
        let value = if same_rows {
            value
        } else {
            self.renumbered(value)
        };
        if !same_rows {
            self.write_elements(name.slot, &value);
        }
        let mut number = itoa::Buffer::new();
        let body = body_of(&value, &mut number);
        self.root_row(name, expire_ms, &body);
        let mut short = None;
        let content = content_of(value, &mut short);
        let index = self.add(name, content, expire_ms);
        if same_rows {
            self.space.partials.insert((self.number, index));
        }
        self.spill(index, name.slot);
        Ok(())
    }

    /// A copy of a key's value and its deadline.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn copy_of(&mut self, name: &Name<'_>) -> Result<Option<(Value, u64)>, Error> {
        let Some(index) = self.find(name)? else {
            return Ok(None);
        };
        let Some(entry) = self.space.dbs[self.number].slab.get(index) else {
            return Ok(None);
        };
        let value = match entry.value {
            Held::Object(value) => Some(self.whole(name.slot, value)?),
            held => held.to_value(),
        };
        Ok(value.map(|value| (value, entry.expire_ms)))
    }

    /// Makes a key hold a value that was built elsewhere, in place of whatever it held.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn put(&mut self, name: &Name<'_>, value: Value, expire: Expire) -> Result<(), Error> {
        let expire_ms = match expire {
            Expire::Never => 0,
            Expire::At(at) => at,
            Expire::Keep => self.expire_ms(name)?.unwrap_or(0),
        };
        self.restore(name, value, expire_ms, false)
    }

    /// A set of these members, for [`View::put`].
    #[must_use]
    pub fn make_set<'m>(members: impl IntoIterator<Item = &'m [u8]>) -> Value {
        let mut set = Set::new(0);
        for member in members {
            set.add(member);
        }
        Value::Set(Box::new(set))
    }

    /// A sorted set of these members, for [`View::put`].
    #[must_use]
    pub fn make_zset<'m>(members: impl IntoIterator<Item = (&'m [u8], f64)>) -> Value {
        let mut zset = Zset::new(0);
        for (member, score) in members {
            zset.set(member, score);
        }
        Value::Zset(Box::new(zset))
    }

    /// Removes the key if its collection is empty, and accounts for what changed; `before`: memory and elements.
    fn edited(&mut self, index: u32, name: &Name<'_>, before: (usize, usize), changed: bool) {
        let slab = &mut self.space.dbs[self.number].slab;
        let Some(value) = slab.object_mut(index) else {
            return;
        };
        let (memory, elements) = (value.memory(), value.elements());
        let id = value.partial().map(|_| value.object());
        self.space.charge += memory as i64 - before.0 as i64;
        if changed {
            slab.mark(index, self.seq);
            self.touched(name.bytes);
        }
        if let Some(id) = id {
            self.count_elements(name.slot, id, before.1, elements);
        } else if memory > before.0 {
            self.spill(index, name.slot);
        }
        if elements == 0 {
            self.drop_key(index, name.slot);
        } else {
            self.space.settle(self.number, self.budget);
        }
    }

    /// The number of a key that exists; an expired one goes, a cold one is loaded.
    #[inline]
    pub(super) fn find(&mut self, name: &Name<'_>) -> Result<Option<u32>, Error> {
        let hash = self.space.hash(name.bytes);
        let now = self.now;
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
                    self.space.counts.expired += 1;
                    self.drop_key(index, name.slot);
                    return Ok(None);
                }
                db.slab.touch(index, now);
                Ok(Some(index))
            }
            None if db.complete => Ok(None),
            None => self.fetch(name, hash),
        }
    }

    /// Loads a key from the tables.
    #[cold]
    fn fetch(&mut self, name: &Name<'_>, hash: u32) -> Result<Option<u32>, Error> {
        let (db, large) = (self.db().id, partial::large(self.budget));
        let loaded = super::load::key(self.engine, db, name, large)?;
        Ok(loaded.and_then(|loaded| self.install(name, hash, loaded)))
    }

    /// Puts what was loaded into memory; `None`: its time had come.
    pub(super) fn install(&mut self, name: &Name<'_>, hash: u32, loaded: Loaded) -> Option<u32> {
        let Loaded {
            value,
            expire_ms,
            counted,
        } = loaded;
        let mut seq = 0;
        if counted {
            // It outgrew memory by a smaller budget than the one under which it was written.
            let (count, key) = (
                value.elements() as i64,
                row::element_count_key(name.slot, value.object()),
            );
            self.fx.put(self.shard, &key, &count.to_le_bytes());
            seq = self.seq;
        }
        let partial = value.partial().is_some();
        let mut short = None;
        let content = content_of(value, &mut short);
        let now = self.now;
        let index = self
            .db()
            .insert(hash, name.bytes, content, expire_ms, seq, now);
        if partial {
            self.space.partials.insert((self.number, index));
        }
        self.space.settle(self.number, self.budget);
        if expire_ms != 0 && expire_ms <= self.now {
            self.space.counts.expired += 1;
            self.drop_key(index, name.slot);
            return None;
        }
        Some(index)
    }

    /// A new entry; its root row is written by the caller.
    fn add(&mut self, name: &Name<'_>, content: Content<'_>, expire_ms: u64) -> u32 {
        let hash = self.space.hash(name.bytes);
        if matches!(content, Content::Object(Value::List(_) | Value::Zset(_)))
            && !self.space.waiters.is_empty()
        {
            self.space.waiters.note(self.number, name.bytes);
        }
        let (seq, now) = (self.seq, self.now);
        let db = &mut self.space.dbs[self.number];
        db.count += 1;
        self.fx
            .add(self.shard, &row::count_key(self.shard, db.id), 1);
        let index = match db.find(hash, name.bytes) {
            // The marker of a deletion.
            Some(index) => {
                db.slab.set(index, content);
                db.slab.mark(index, seq);
                db.slab.touch(index, now);
                db.set_expire(index, expire_ms);
                index
            }
            None => db.insert(hash, name.bytes, content, expire_ms, seq, now),
        };
        self.touched(name.bytes);
        self.space.settle(self.number, self.budget);
        index
    }

    /// Deletes a key that is in memory.
    pub(super) fn drop_key(&mut self, index: u32, slot: Slot) {
        let seq = self.seq;
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
        let object = if db.keep_absent {
            let object = db.slab.set(index, Content::Absent);
            db.slab.mark(index, seq);
            db.set_expire(index, 0);
            db.absent.push_back((seq, index));
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
        let object = self.db().forget(hash, index);
        self.space.settle(self.number, self.budget);
        object
    }

    /// Removes the element rows of a value that is gone, at once or later.
    fn bury(&mut self, slot: Slot, value: &Value) {
        let id = value.object();
        if id == 0 {
            return;
        }
        let tag = row::element_tag(value.kind());
        // The row that counts the elements of a partial one goes with its orphans.
        if value.elements() > DELETE_AT_ONCE || value.partial().is_some() {
            self.fx.put(
                self.shard,
                &row::dead_object_key(self.shard, slot, id),
                &[tag as u8],
            );
            self.space
                .graves
                .push_back((self.seq, Grave::Object { slot, tag, id }));
            return;
        }
        let mut rows = Rows::new(self.fx, (self.shard, self.seq), slot, tag, id);
        match value {
            Value::Hash(hash) => hash.iter().for_each(|(field, _)| rows.del(field)),
            Value::Set(set) => set
                .iter()
                .for_each(|member| member.with(|member| rows.del(member))),
            Value::Zset(zset) => zset.iter().for_each(|(member, _)| rows.del(member)),
            Value::List(list) => list.rows().for_each(|(row, _)| rows.del(&row)),
            Value::Buffer(_) => {
                (0..value.elements() as u32).for_each(|page| rows.del(&page.to_be_bytes()))
            }
            Value::Int(_) => {}
        }
    }

    /// Writes all element rows of a value under its id.
    fn write_elements(&mut self, slot: Slot, value: &Value) {
        let id = value.object();
        if id == 0 {
            return;
        }
        let mut rows = Rows::new(
            self.fx,
            (self.shard, self.seq),
            slot,
            row::element_tag(value.kind()),
            id,
        );
        match value {
            Value::Hash(hash) => hash
                .iter()
                .for_each(|(field, value)| rows.put(field, value)),
            Value::Set(set) => set
                .iter()
                .for_each(|member| member.with(|member| rows.put(member, b""))),
            Value::Zset(zset) => zset
                .iter()
                .for_each(|(member, score)| rows.put(member, &score.to_le_bytes())),
            Value::List(list) => list.rows().for_each(|(row, item)| rows.put(&row, item)),
            Value::Buffer(buffer) => {
                for (page, bytes) in buffer.bytes.chunks(row::PAGE).enumerate() {
                    rows.put(&(page as u32).to_be_bytes(), bytes);
                }
            }
            Value::Int(_) => {}
        }
    }

    /// The value with a new object id (long strings and collections).
    fn renumbered(&mut self, mut value: Value) -> Value {
        match &mut value {
            Value::Hash(hash) => hash.id = self.new_id(),
            Value::Set(set) => set.id = self.new_id(),
            Value::Zset(zset) => zset.id = self.new_id(),
            Value::List(list) => list.id = self.new_id(),
            Value::Buffer(buffer) => {
                buffer.id = if buffer.bytes.len() > row::PAGE {
                    self.new_id()
                } else {
                    0
                };
            }
            Value::Int(_) => {}
        }
        value
    }

    /// Gives an object a new id and writes all of it anew. What the tables have of it, or will have when the fold has come
    /// so far, is nobody's then.
    pub(super) fn renumber(&mut self, index: u32, slot: Slot) {
        let seq = self.seq;
        let slab = &mut self.db().slab;
        slab.mark(index, seq);
        let Some(place) = slab.object_mut(index) else {
            return;
        };
        let value = std::mem::replace(place, Value::Int(0));
        self.bury(slot, &value);
        let value = self.renumbered(value);
        self.write_elements(slot, &value);
        if let Some(place) = self.db().slab.object_mut(index) {
            *place = value;
        }
        self.write_root(index, slot);
    }

    /// Writes the root row of an entry as it is now.
    fn write_root(&mut self, index: u32, slot: Slot) {
        let db = &self.space.dbs[self.number];
        let Some(entry) = db.slab.get(index) else {
            return;
        };
        let mut number = itoa::Buffer::new();
        let body = match entry.value {
            Held::Object(value) => body_of(value, &mut number),
            Held::Text(bytes) => Body::Inline(bytes),
            Held::Int(value) => Body::Inline(number.format(value).as_bytes()),
            Held::Absent => return,
        };
        let root = Root {
            expire_ms: entry.expire_ms,
            body,
        };
        row::put_root(
            self.fx,
            self.shard,
            &row::key_prefix(slot, db.id),
            entry.key,
            &root,
        );
    }

    #[inline]
    fn root_row(&mut self, name: &Name<'_>, expire_ms: u64, body: &Body<'_>) {
        let prefix = row::key_prefix(name.slot, self.space.dbs[self.number].id);
        let body = *body;
        row::put_root(
            self.fx,
            self.shard,
            &prefix,
            name.bytes,
            &Root { expire_ms, body },
        );
    }

    #[inline]
    fn touched(&mut self, key: &[u8]) {
        if !self.space.watches.is_empty() {
            self.space.watches.touch(self.number, key);
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
    ($get:ident, $edit:ident, $kind:ident $(, $elements:ident)?) => {
        impl View<'_> {
            /// The collection at a key. One that may be partial is told which elements will be looked at.
            ///
            /// # Errors
            /// [`Error::WrongType`], or when the tables cannot be read.
            #[inline]
            pub fn $get(
                &mut self,
                name: &Name<'_>,
                $($elements: impl IntoIterator<Item = impl AsRef<[u8]>>,)?
            ) -> Result<Option<&$kind>, Error> {
                let Some(index) = self.find(name)? else {
                    return Ok(None);
                };
                $(self.know(index, name.slot, $elements)?;)?
                match self.db().slab.get(index).map(|entry| entry.value) {
                    None => Ok(None),
                    Some(Held::Object(Value::$kind(found))) => Ok(Some(found)),
                    Some(_) => Err(Error::WrongType),
                }
            }

            /// Changes the collection at a key; `create` makes one where there is none. An empty one is deleted. One that
            /// may be partial is told which elements will be looked at or changed.
            ///
            /// # Errors
            /// [`Error::WrongType`], or when the tables cannot be read.
            pub fn $edit<R>(
                &mut self,
                name: &Name<'_>,
                create: bool,
                $($elements: impl IntoIterator<Item = impl AsRef<[u8]>>,)?
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
                $(self.know(index, name.slot, $elements)?;)?
                let slab = &mut self.space.dbs[self.number].slab;
                let Some(value) = slab.object_mut(index) else {
                    return Err(Error::WrongType);
                };
                let before = (value.memory(), value.elements());
                let Value::$kind(found) = value else {
                    return Err(Error::WrongType);
                };
                let tag = row::element_tag(Kind::$kind);
                let mut rows = Rows::new(self.fx, (self.shard, self.seq), name.slot, tag, found.id);
                let result = change(found, &mut rows);
                let changed = rows.changed;
                self.edited(index, name, before, changed);
                Ok(Some(result))
            }
        }
    };
}

collection!(hash, edit_hash, Hash, elements);
collection!(list, edit_list, List);
collection!(set, edit_set, Set, elements);
collection!(zset, edit_zset, Zset);

/// What the root row says of a value.
fn body_of<'a>(value: &'a Value, number: &'a mut itoa::Buffer) -> Body<'a> {
    match value {
        Value::Buffer(buffer) if buffer.id != 0 => Body::Pages(buffer.id),
        Value::Buffer(buffer) => Body::Inline(&buffer.bytes),
        Value::Int(value) => Body::Inline(number.format(*value).as_bytes()),
        object => Body::Object(object.kind(), object.object()),
    }
}

/// How a value is kept; the bytes of a short string stay in `short`.
fn content_of(value: Value, short: &mut Option<Box<Buffer>>) -> Content<'_> {
    match value {
        Value::Int(value) => Content::Int(value),
        Value::Buffer(buffer) if buffer.id == 0 => Content::Text(&short.insert(buffer).bytes),
        object => Content::Object(object),
    }
}
