//! Whole values: taken from a key, put under another, copied, made elsewhere.

use super::rows::{body_of, content_of, each_element};
use super::{Expire, View};
use crate::cache::hash::Hash;
use crate::cache::list::List;
use crate::cache::set::Set;
use crate::cache::stream::{Restored, Stream};
use crate::cache::value::{Held, Kind, Value};
use crate::cache::zset::Zset;
use crate::cache::{Error, Name};

/// A record whose rows take more is not written: it must be smaller than 4 GiB, and may grow by other changes.
const RECORD_MAX: usize = if cfg!(test) { 64 << 20 } else { 2 << 30 };

impl View<'_> {
    /// Takes a key away with its value and deadline, for a move to `to`, in whichever shard that lives. Its elements' rows
    /// go unless `same_rows`: then the value must be put back under a key of the same slot.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if one record cannot hold it, or when the tables cannot be read.
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
            Held::Object(value) if !same_rows && value.is_partial() => {
                Some(self.whole(name.slot, value)?)
            }
            _ => None,
        };
        if !same_rows {
            let object = match entry.value {
                Held::Object(value) => Some(whole.as_ref().unwrap_or(value)),
                _ => None,
            };
            let before = self.fx.size();
            object.map_or(Ok(()), |value| fits(value, before))?;
        }
        let Some(mut value) = self.db().slab.take(index) else {
            return Ok(None);
        };
        self.db().unlist(index, Some(&value));
        if !self.space.waiters.is_empty() && value.kind() == Kind::Stream {
            self.space.waiters.note(self.number, name.bytes);
        }
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
    /// As [`View::take`].
    pub fn restore(
        &mut self,
        name: &Name<'_>,
        value: Value,
        expire_ms: u64,
        same_rows: bool,
    ) -> Result<(), Error> {
        if !same_rows {
            fits(&value, self.fx.size())?;
        }
        let string = value.kind() == Kind::String;
        if let Some(index) = self.find(name)? {
            // A string that takes its place says all there is to say.
            self.remove_key(index, name.slot, (!string).then_some("del"));
        }
        let mut value = if same_rows {
            value
        } else {
            self.renumbered(value)
        };
        if let Value::Hash(hash) = &mut value
            && let Some(deadlines) = hash.deadlines_mut()
        {
            (deadlines.rooted, deadlines.listed_ms) = (true, 0);
        }
        if let Some(journal) = &mut self.space.journal {
            match &value {
                Value::Buffer(buffer) => {
                    journal.set(self.number, name.bytes, &buffer.bytes, expire_ms);
                }
                Value::Int(int) => {
                    let text = int.to_string();
                    journal.set(self.number, name.bytes, text.as_bytes(), expire_ms);
                }
                Value::Stream(stream) if stream.is_whole() => {
                    journal.begin(self.number, name.bytes, Kind::Stream, (0, 0));
                    stream.tell(journal);
                    if expire_ms != 0 {
                        journal.expire(self.number, name.bytes, expire_ms);
                    }
                }
                // Its elements are not all here.
                object if object.is_partial() => {
                    journal.renamed(self.number, name.bytes, object.kind(), expire_ms);
                }
                object => {
                    let (first, _) = object.ends();
                    journal.begin(self.number, name.bytes, object.kind(), (first, first));
                    each_element(object, &mut |name, value| journal.put(name, value));
                    if let Value::Hash(hash) = object {
                        for (field, at_ms) in hash.field_deadlines() {
                            journal.field_deadline(field, Some(at_ms));
                        }
                    }
                    if expire_ms != 0 {
                        journal.expire(self.number, name.bytes, expire_ms);
                    }
                }
            }
        }
        if !same_rows {
            self.write_elements(name.slot, &value);
        }
        let mut number = itoa::Buffer::new();
        let body = body_of(&value, &mut number);
        self.root_row(name, expire_ms, &body);
        let mut short = None;
        let content = content_of(value, &mut short);
        let index = self.add(name, content, expire_ms);
        self.db().enlist(index);
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
    /// As [`View::take`].
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

    /// A list of these items, for [`View::put`].
    #[must_use]
    pub fn make_list<'m>(items: impl IntoIterator<Item = &'m [u8]>) -> Value {
        let mut list = List::new(0);
        for (index, item) in items.into_iter().enumerate() {
            list.load(index as i64, item);
        }
        Value::List(Box::new(list))
    }

    /// A hash of these fields, values and deadlines of fields, in ms since the epoch, for [`View::put`].
    #[must_use]
    pub fn make_hash<'m>(
        fields: impl IntoIterator<Item = (&'m [u8], &'m [u8], Option<u64>)>,
    ) -> Value {
        let mut hash = Hash::new(0);
        for (field, value, at_ms) in fields {
            hash.set(field, value);
            if let Some(at_ms) = at_ms {
                hash.with_deadlines(|all| all.set(field, at_ms));
            }
        }
        Value::Hash(Box::new(hash))
    }

    /// A stream of these parts, for [`View::put`]. `None`: they do not fit together.
    #[must_use]
    pub fn make_stream(parts: Restored) -> Option<Value> {
        Stream::restored(parts).map(|stream| Value::Stream(Box::new(stream)))
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
}

/// `before`: octets of the record as it is.
fn fits(value: &Value, before: usize) -> Result<(), Error> {
    if before + value.record_size() > RECORD_MAX {
        return Err(Error::TooLarge);
    }
    Ok(())
}
