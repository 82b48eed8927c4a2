//! Strings at keys: whole, as integers, and changed in place.

use super::{Expire, View};
use crate::cache::row::{self, Body, Root, Rows};
use crate::cache::set::{Member, integer};
use crate::cache::slab::Content;
use crate::cache::value::{Buffer, Held, Kind, Value};
use crate::cache::{Error, Name};

/// Every string may become so long.
const STRING_MIN: usize = 1 << 20;

impl View<'_> {
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
            self.note_set(name, bytes, expire_ms);
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
        db.unlist(index, old.as_ref());
        db.slab.mark(index, self.seq);
        if old_ms != expire_ms {
            db.set_expire(index, expire_ms);
        }
        if let Some(old) = old.filter(|old| old.object() != 0) {
            if !self.space.waiters.is_empty() && old.kind() == Kind::Stream {
                self.space.waiters.note(self.number, name.bytes);
            }
            self.bury(name.slot, &old);
        }
        self.root_row(name, expire_ms, &Body::Inline(bytes));
        self.touched(name.bytes);
        self.note_set(name, bytes, expire_ms);
        self.space.settle(self.number, self.budget);
    }

    #[inline]
    fn note_set(&mut self, name: &Name<'_>, bytes: &[u8], expire_ms: u64) {
        if let Some(journal) = &mut self.space.journal {
            journal.set(self.number, name.bytes, bytes, expire_ms);
        }
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
                self.note_set(name, bytes, 0);
            }
        }
        Ok(Ok(value))
    }

    /// Bytes beyond which a string is not made longer in place: it is in memory as a whole, and so is the record that makes it so long,
    /// and what waits to be written of that. Half of the cache's budget is a quarter of what the server may take.
    #[must_use]
    pub fn string_max(&self) -> usize {
        let half = usize::try_from(self.budget.limit() / 2).unwrap_or(usize::MAX);
        half.max(STRING_MIN)
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
        if let Some(journal) = &mut self.space.journal {
            journal.set(self.number, name.bytes, &buffer.bytes, expire_ms);
        }
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
        self.space.settle(self.number, self.budget);
        Ok(result)
    }
}
