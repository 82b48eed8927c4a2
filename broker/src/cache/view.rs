//! One database of one shard, during one command: memory and rows change here, together.

use storage::{Effects, ShardId};

use super::hash::Hash;
use super::list::List;
use super::load::Loaded;
use super::partial;
use super::row::{self, Body, Root, Rows};
use super::set::{Member, Set, integer};
use super::slab::Entry;
use super::space::{Db, Grave, Space, entry_bytes};
use super::text::Text;
use super::value::{Buffer, Kind, Value};
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
        Ok(self.value(name)?.map(Value::kind))
    }

    /// # Errors
    /// When the tables cannot be read.
    #[inline]
    pub fn value(&mut self, name: &Name<'_>) -> Result<Option<&Value>, Error> {
        let Some(index) = self.find(name)? else {
            return Ok(None);
        };
        Ok(self.db().slab.get(index).map(|entry| &entry.value))
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
            None | Some(Value::Absent) => Ok(None),
            Some(Value::Text(text)) => Ok(Some(Member::Text(text))),
            Some(Value::Int(value)) => Ok(Some(Member::Int(*value))),
            Some(Value::Buffer(buffer)) => Ok(Some(Member::Text(&buffer.bytes))),
            Some(_) => Err(Error::WrongType),
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
            let value = integer(bytes).map_or_else(|| Value::Text(Text::new(bytes)), Value::Int);
            self.add(name, value, expire_ms);
            return Ok(());
        };
        let seq = self.seq;
        let db = &mut self.space.dbs[self.number];
        let Some(entry) = db.slab.get_mut(index) else {
            return Ok(());
        };
        let expire_ms = match expire {
            Expire::Never => 0,
            Expire::Keep => entry.expire_ms,
            Expire::At(at) => at,
        };
        let before = entry.value.memory();
        let number = integer(bytes);
        let mut old = None;
        match (&mut entry.value, number) {
            (Value::Text(text), None) => text.assign(bytes),
            (value, Some(number)) => old = Some(std::mem::replace(value, Value::Int(number))),
            (value, None) => old = Some(std::mem::replace(value, Value::Text(Text::new(bytes)))),
        }
        entry.seq = seq;
        self.space.charge += entry.value.memory() as i64 - before as i64;
        if entry.expire_ms != expire_ms {
            db.set_expire(index, expire_ms);
        }
        if let Some(old) = old.filter(|old| old.object() != 0) {
            self.bury(name.slot, &old);
        }
        self.root_row(name, expire_ms, &Body::Inline(bytes));
        self.touched(name.bytes);
        Ok(())
    }

    /// Makes a key hold an integer, keeping its deadline. For counters: no allocation.
    ///
    /// # Errors
    /// When the tables cannot be read.
    #[inline]
    pub fn set_integer(&mut self, name: &Name<'_>, value: i64) -> Result<(), Error> {
        self.set_string(
            name,
            itoa::Buffer::new().format(value).as_bytes(),
            Expire::Keep,
        )
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
        let Some(entry) = db.slab.get_mut(index) else {
            return Err(Error::Damaged);
        };
        let before = entry.value.memory();
        let bytes = match &mut entry.value {
            Value::Buffer(_) => None,
            Value::Text(text) => Some(text.to_vec()),
            Value::Int(value) => Some(itoa::Buffer::new().format(*value).as_bytes().to_vec()),
            _ => return Err(Error::WrongType),
        };
        if let Some(bytes) = bytes {
            entry.value = Value::Buffer(Box::new(Buffer { bytes, id: 0 }));
        }
        let Value::Buffer(buffer) = &mut entry.value else {
            return Err(Error::Damaged);
        };
        let length = buffer.bytes.len();
        let (result, written) = change(&mut buffer.bytes);
        let changed = !written.is_empty() || buffer.bytes.len() != length;
        let expire_ms = entry.expire_ms;
        if changed {
            entry.seq = seq;
        }
        self.space.charge += entry.value.memory() as i64 - before as i64;
        if !changed {
            return Ok(result);
        }
        let Value::Buffer(buffer) = &mut entry.value else {
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
        let now = self.now / 1000;
        let db = self.db();
        let used = db
            .find(hash, name.bytes)
            .and_then(|index| db.slab.get(index))
            .map(|entry| u64::from(entry.used));
        Ok(self
            .find(name)?
            .map(|_| used.map_or(0, |used| now.saturating_sub(used))))
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
        if let Some(entry) = db.slab.get_mut(index) {
            entry.seq = seq;
        }
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
        let Some(entry) = self.db().slab.get_mut(index) else {
            return Ok(None);
        };
        let expire_ms = entry.expire_ms;
        let mut value = std::mem::replace(&mut entry.value, Value::Int(0));
        let weight = value.memory() as i64;
        self.space.charge -= weight;
        if !same_rows {
            let whole = value.partial().map(|_| self.whole(name.slot, &value));
            if let Some(Err(error)) = whole {
                // It stays where it is.
                self.space.charge += weight;
                if let Some(entry) = self.db().slab.get_mut(index) {
                    entry.value = value;
                }
                return Err(error);
            }
            self.bury(name.slot, &value);
            if let Some(Ok(whole)) = whole {
                value = whole;
            }
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
        let body = body_of(&value);
        let text;
        let body = match body {
            Some(body) => body,
            None => {
                text = string_bytes(&value);
                Body::Inline(&text)
            }
        };
        self.root_row(name, expire_ms, &body);
        let index = self.add(name, value, expire_ms);
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
        match self.space.dbs[self.number].slab.get(index) {
            Some(entry) => Ok(Some((
                self.whole(name.slot, &entry.value)?,
                entry.expire_ms,
            ))),
            None => Ok(None),
        }
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
        let seq = self.seq;
        let db = &mut self.space.dbs[self.number];
        let Some(entry) = db.slab.get_mut(index) else {
            return;
        };
        let (memory, elements) = (entry.value.memory(), entry.value.elements());
        let id = entry.value.partial().map(|_| entry.value.object());
        self.space.charge += memory as i64 - before.0 as i64;
        if changed {
            entry.seq = seq;
            self.touched(name.bytes);
        }
        if let Some(id) = id {
            self.count_elements(name.slot, id, before.1, elements);
        } else if memory > before.0 {
            self.spill(index, name.slot);
        }
        if elements == 0 {
            self.drop_key(index, name.slot);
        }
        self.space.settle(self.budget);
    }

    /// The number of a key that exists; an expired one goes, a cold one is loaded.
    #[inline]
    pub(super) fn find(&mut self, name: &Name<'_>) -> Result<Option<u32>, Error> {
        let hash = self.space.hash(name.bytes);
        let now = self.now;
        let db = &mut self.space.dbs[self.number];
        match db.find(hash, name.bytes) {
            Some(index) => {
                let Some(entry) = db.slab.get_mut(index) else {
                    return Ok(None);
                };
                if matches!(entry.value, Value::Absent) {
                    return Ok(None);
                }
                if entry.expire_ms != 0 && entry.expire_ms <= now {
                    self.space.counts.expired += 1;
                    self.drop_key(index, name.slot);
                    return Ok(None);
                }
                entry.used = (now / 1000) as u32;
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
        let used = (self.now / 1000) as u32;
        let key = Text::new(name.bytes);
        self.space.charge += entry_bytes(&key, &value);
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
        let index = self.db().insert(
            hash,
            Entry {
                key,
                value,
                expire_ms,
                seq,
                used,
            },
        );
        if partial {
            self.space.partials.insert((self.number, index));
        }
        self.space.settle(self.budget);
        if expire_ms != 0 && expire_ms <= self.now {
            self.space.counts.expired += 1;
            self.drop_key(index, name.slot);
            return None;
        }
        Some(index)
    }

    /// A new entry; its root row is written by the caller.
    fn add(&mut self, name: &Name<'_>, value: Value, expire_ms: u64) -> u32 {
        let hash = self.space.hash(name.bytes);
        if matches!(value, Value::List(_) | Value::Zset(_)) && !self.space.waiters.is_empty() {
            self.space.waiters.note(self.number, name.bytes);
        }
        let (seq, used) = (self.seq, (self.now / 1000) as u32);
        let db = &mut self.space.dbs[self.number];
        db.count += 1;
        self.fx
            .add(self.shard, &row::count_key(self.shard, db.id), 1);
        let index = match db.find(hash, name.bytes) {
            // The marker of a deletion.
            Some(index) => {
                if let Some(entry) = db.slab.get_mut(index) {
                    self.space.charge += value.memory() as i64;
                    entry.value = value;
                    entry.seq = seq;
                    entry.used = used;
                }
                db.set_expire(index, expire_ms);
                index
            }
            None => {
                let key = Text::new(name.bytes);
                self.space.charge += entry_bytes(&key, &value);
                db.insert(
                    hash,
                    Entry {
                        key,
                        value,
                        expire_ms,
                        seq,
                        used,
                    },
                )
            }
        };
        self.touched(name.bytes);
        self.space.settle(self.budget);
        index
    }

    /// Deletes a key that is in memory.
    pub(super) fn drop_key(&mut self, index: u32, slot: Slot) {
        let seq = self.seq;
        let db = &mut self.space.dbs[self.number];
        let Some(entry) = db.slab.get_mut(index) else {
            return;
        };
        row::del(
            self.fx,
            self.shard,
            &row::key_prefix(slot, db.id),
            &entry.key,
        );
        self.fx
            .add(self.shard, &row::count_key(self.shard, db.id), -1);
        db.count -= 1;
        if !self.space.watches.is_empty() {
            self.space.watches.touch(self.number, &entry.key);
        }
        let weight = entry_bytes(&entry.key, &entry.value);
        let value = if db.keep_absent {
            let value = std::mem::replace(&mut entry.value, Value::Absent);
            entry.seq = seq;
            self.space.charge -= value.memory() as i64;
            db.set_expire(index, 0);
            db.absent.push_back((seq, index));
            Some(value)
        } else {
            db.removed_seq = seq;
            self.space.charge -= weight;
            let hash = {
                let key = &entry.key;
                // Borrowed apart from the table.
                let key = key.clone();
                self.space.hash(&key)
            };
            self.space.dbs[self.number]
                .forget(hash, index)
                .map(|entry| entry.value)
        };
        if let Some(value) = value {
            self.bury(slot, &value);
        }
        self.space.settle(self.budget);
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
            Value::Text(_) | Value::Int(_) | Value::Absent => {}
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
            Value::Text(_) | Value::Int(_) | Value::Absent => {}
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
            Value::Text(_) | Value::Int(_) | Value::Absent => {}
        }
        value
    }

    /// Gives an object a new id and writes all of it anew. What the tables have of it, or will have when the fold has come
    /// so far, is nobody's then.
    pub(super) fn renumber(&mut self, index: u32, slot: Slot) {
        let seq = self.seq;
        let Some(entry) = self.db().slab.get_mut(index) else {
            return;
        };
        entry.seq = seq;
        let value = std::mem::replace(&mut entry.value, Value::Int(0));
        self.bury(slot, &value);
        let value = self.renumbered(value);
        self.write_elements(slot, &value);
        if let Some(entry) = self.db().slab.get_mut(index) {
            entry.value = value;
        }
        self.write_root(index, slot);
    }

    /// Writes the root row of an entry as it is now.
    fn write_root(&mut self, index: u32, slot: Slot) {
        let db = &self.space.dbs[self.number];
        let Some(entry) = db.slab.get(index) else {
            return;
        };
        let text;
        let body = match body_of(&entry.value) {
            Some(body) => body,
            None => {
                text = string_bytes(&entry.value);
                Body::Inline(&text)
            }
        };
        let root = Root {
            expire_ms: entry.expire_ms,
            body,
        };
        row::put_root(
            self.fx,
            self.shard,
            &row::key_prefix(slot, db.id),
            &entry.key,
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
                match self.db().slab.get(index).map(|entry| &entry.value) {
                    None => Ok(None),
                    Some(Value::$kind(found)) => Ok(Some(found)),
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
                        self.add(name, Value::$kind(Box::new($kind::new(id))), 0)
                    }
                };
                $(self.know(index, name.slot, $elements)?;)?
                let Some(entry) = self.space.dbs[self.number].slab.get_mut(index) else {
                    return Ok(None);
                };
                let before = (entry.value.memory(), entry.value.elements());
                let Value::$kind(found) = &mut entry.value else {
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

/// What the root row says of a value; `None`: a string that stands in it.
fn body_of(value: &Value) -> Option<Body<'static>> {
    match value {
        Value::Buffer(buffer) if buffer.id != 0 => Some(Body::Pages(buffer.id)),
        Value::Text(_) | Value::Int(_) | Value::Buffer(_) | Value::Absent => None,
        other => Some(Body::Object(other.kind(), other.object())),
    }
}

/// A string's bytes, as they stand in a root row.
fn string_bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::Text(text) => text.to_vec(),
        Value::Int(value) => itoa::Buffer::new().format(*value).as_bytes().to_vec(),
        Value::Buffer(buffer) => buffer.bytes.clone(),
        _ => Vec::new(),
    }
}
