//! From the tables into memory: one value on first touch, and all keys, a slot at a time, in the background.

use std::ops::ControlFlow;

use super::hash::Hash;
use super::list::List;
use super::order::Order;
use super::partial::{Large, Partial, Rest};
use super::row::{self, Body};
use super::set::Set;
use super::slab::Entry;
use super::stream::Stream;
use super::text::Text;
use super::value::{Buffer, Kind, Value};
use super::view::View;
use super::zset::{Partly, Zset};
use super::{Error, Name};
use crate::rows::{self, Tag};
use crate::{Engine, Keyspace, Slot};

/// What a root row stands for.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) value: Value,
    pub(super) expire_ms: u64,
    /// The elements of a partial collection were counted, because no row says how many they are, or where: such are to be written.
    pub(super) counted: bool,
}

/// Reads a key of the database with id `db`; see [`value`].
pub(super) fn key(
    engine: &Engine,
    db: u32,
    name: &Name<'_>,
    large: Large,
) -> Result<Option<Loaded>, Error> {
    let prefix = row::key_prefix(name.slot, db);
    let Some(stored) = engine.get(Keyspace::Rows, &row::table_key(&prefix, name.bytes))? else {
        return Ok(None);
    };
    // What stands in the table key after the prefix, to find the value behind a name that was cut.
    let row_name = row::row_name(name.bytes);
    let (found, stored) = row::split(&row_name, &stored).ok_or(Error::Damaged)?;
    if *found != *name.bytes {
        return Ok(None);
    }
    value(engine, name.slot, stored, large).map(Some)
}

/// Reads the value that a root row stands for; a hash, set or stream of more than `large` becomes partial. An object
/// without element rows is an error: it cannot be.
fn value(engine: &Engine, slot: Slot, stored: &[u8], large: Large) -> Result<Loaded, Error> {
    let mut counted = false;
    let root = row::root(stored).ok_or(Error::Damaged)?;
    let value = match root.body {
        Body::Inline(bytes) => Value::string(bytes),
        Body::Pages(id) => {
            let mut bytes = Vec::new();
            elements(engine, slot, Kind::String, id, &mut |_, page| {
                bytes.extend_from_slice(page);
                Some(())
            })?;
            Value::Buffer(Box::new(Buffer { bytes, id }))
        }
        Body::Object(Kind::Hash, id) | Body::Lasting(id) => {
            let mut hash = Hash::new(id);
            let len = count_or(engine, slot, id, &mut |len| {
                elements(engine, slot, Kind::Hash, id, &mut |field, value| {
                    *len += 1;
                    if !counted {
                        hash.set(field, value);
                        counted = hash.memory() > large.of(Kind::Hash);
                    }
                    Some(())
                })
            })?;
            if counted || hash.len() < len {
                hash = Hash::partly(id, Partial::new(len));
            }
            if matches!(root.body, Body::Lasting(_)) {
                hash.with_deadlines(|all| {
                    all.rooted = true;
                    rows_of(engine, slot, Tag::FieldDeadline, id, &mut |field, at| {
                        all.set(field, u64::from_le_bytes(at.try_into().ok()?));
                        Some(())
                    })
                })?;
            }
            Value::Hash(Box::new(hash))
        }
        Body::Object(Kind::Set, id) => {
            let mut set = Set::new(id);
            let len = count_or(engine, slot, id, &mut |len| {
                elements(engine, slot, Kind::Set, id, &mut |member, _| {
                    *len += 1;
                    if !counted {
                        set.add(member);
                        counted = set.memory() > large.of(Kind::Set);
                    }
                    Some(())
                })
            })?;
            if counted || set.len() < len {
                set = Set::partly(id, Partial::new(len));
            }
            Value::Set(Box::new(set))
        }
        Body::Object(Kind::Zset, id) => {
            let zset = match ordered(engine, slot, id)? {
                Some(zset) => zset,
                None => {
                    let mut zset = Zset::new(id);
                    elements(engine, slot, Kind::Zset, id, &mut |member, score| {
                        zset.set(member, f64::from_le_bytes(score.try_into().ok()?));
                        Some(())
                    })?;
                    zset
                }
            };
            Value::Zset(Box::new(zset))
        }
        Body::Object(Kind::List, id) => {
            let prefix = rows::object_prefix(slot, Tag::ListItem, id);
            let tables = Rest { engine, prefix };
            let (list, divided) = List::read(id, &tables, large.of(Kind::List))?;
            counted = divided;
            Value::List(Box::new(list))
        }
        Body::Object(Kind::Stream, id) => {
            let prefix = rows::object_prefix(slot, Tag::Stream, id);
            let tables = Rest { engine, prefix };
            let (stream, divided) = Stream::read(id, &tables, large.of(Kind::Stream))?;
            counted = divided;
            Value::Stream(Box::new(stream))
        }
        Body::Object(Kind::String, _) => return Err(Error::Damaged),
    };
    if root.expire_ms == 0 && value.object() != 0 && value.elements() == 0 {
        return Err(Error::Damaged);
    }
    Ok(Loaded {
        value,
        expire_ms: root.expire_ms,
        counted,
    })
}

/// A sorted set whose order has rows, which is partial; `None`: it has none.
fn ordered(engine: &Engine, slot: Slot, id: u64) -> Result<Option<Zset>, Error> {
    let counted = count_or(engine, slot, id, &mut |_| Ok(()))?;
    if counted == 0 {
        return Ok(None);
    }
    let mut pages = Vec::new();
    rows_of(engine, slot, Tag::ZsetPage, id, &mut |first, count| {
        let count = i64::from_le_bytes(count.try_into().ok()?);
        pages.push((Text::new(first), usize::try_from(count).ok()?));
        Some(())
    })?;
    let order = Order::of_pages(pages.into_iter());
    if order.len() != counted {
        return Err(Error::Damaged);
    }
    let members = Partial::new(counted);
    Ok(Some(Zset::partly(id, Partly { members, order })))
}

/// How many elements an object has: as the row of a partial one says, or else as `read` finds them.
fn count_or(
    engine: &Engine,
    slot: Slot,
    id: u64,
    read: &mut dyn FnMut(&mut usize) -> Result<(), Error>,
) -> Result<usize, Error> {
    let mut len = 0;
    match engine.get(Keyspace::Rows, &row::element_count_key(slot, id))? {
        None => read(&mut len)?,
        Some(count) => {
            let count = <[u8; 8]>::try_from(&*count).map_err(|_| Error::Damaged)?;
            len = usize::try_from(i64::from_le_bytes(count)).map_err(|_| Error::Damaged)?;
        }
    }
    Ok(len)
}

/// Takes the name and value of an element; `None`: they are not what was written.
type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Option<()> + 'a;

/// Visits the element rows of an object; `None` from `visit`: the row is not one of ours.
fn elements(
    engine: &Engine,
    slot: Slot,
    kind: Kind,
    id: u64,
    visit: &mut Visit<'_>,
) -> Result<(), Error> {
    rows_of(engine, slot, row::element_tag(kind), id, visit)
}

/// The same for all rows of an object with this tag.
fn rows_of(
    engine: &Engine,
    slot: Slot,
    tag: Tag,
    id: u64,
    visit: &mut Visit<'_>,
) -> Result<(), Error> {
    let prefix = rows::object_prefix(slot, tag, id);
    let mut damaged = false;
    rows::each(engine, &prefix, &mut |key, stored| {
        let name = key.get(prefix.len()..).unwrap_or_default();
        let seen = row::split(name, stored).and_then(|(name, value)| visit(&name, value));
        damaged |= seen.is_none();
        seen.is_some()
    })?;
    if damaged { Err(Error::Damaged) } else { Ok(()) }
}

impl View<'_> {
    /// Loads keys that are not in memory yet, for about `keys` keys; `Break` when every key has been seen. Call for each
    /// shard until then, unless the budget is used up.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn warm(&mut self, keys: usize) -> Result<ControlFlow<()>, Error> {
        let (first, last) = Slot::range_of(self.shard);
        let Some(mut raw) = self.space.warm else {
            return Ok(ControlFlow::Break(()));
        };
        let mut loaded = 0;
        // Looking into an empty slot costs a few microseconds.
        for _ in 0..128 {
            let Some(slot) = Slot::from_raw(raw).filter(|slot| *slot >= first && *slot <= last)
            else {
                self.space.warm = None;
                for db in &mut self.space.dbs {
                    db.complete = true;
                    db.keep_absent = false;
                }
                return Ok(ControlFlow::Break(()));
            };
            for number in 0..self.space.dbs.len() {
                self.number = number;
                if !self.db().complete {
                    loaded += self.warm_slot(slot)?;
                }
            }
            raw += 1;
            self.space.warm = Some(raw);
            if loaded >= keys {
                break;
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn warm_slot(&mut self, slot: Slot) -> Result<usize, Error> {
        let mut found: Vec<Vec<u8>> = Vec::new();
        self.stored_keys(slot, &mut |key| found.push(key.to_vec()))?;
        for key in &found {
            let name = Name { bytes: key, slot };
            let hash = self.space.hash(key);
            if self.db().find(hash, key).is_none() {
                self.find(&name)?;
            }
        }
        Ok(found.len())
    }

    /// Visits the keys of a slot as the tables have them.
    pub(super) fn stored_keys(
        &mut self,
        slot: Slot,
        visit: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Error> {
        let prefix = row::key_prefix(slot, self.db().id);
        rows::each(self.engine, &prefix, &mut |key, value| {
            if let Some((name, _)) = row::split(key.get(prefix.len()..).unwrap_or_default(), value)
            {
                visit(&name);
            }
            true
        })?;
        Ok(())
    }

    /// A key as it is in memory, loaded if need be.
    pub(super) fn entry(&mut self, name: &Name<'_>) -> Result<Option<Entry<'_>>, Error> {
        let index = self.find(name)?;
        Ok(index.and_then(|index| self.space.dbs[self.number].slab.get(index)))
    }
}
