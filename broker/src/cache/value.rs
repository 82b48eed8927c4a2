//! What a key holds.

use super::hash::Hash;
use super::list::List;
use super::partial::Partial;
use super::row::{PAGE, Rows};
use super::set::{Member, Set, integer};
use super::stream::Stream;
use super::zset::{Partly, Zset};

/// The type of a value, as `TYPE` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    String,
    Hash,
    List,
    Set,
    Zset,
    Stream,
}

impl Kind {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Hash => "hash",
            Self::List => "list",
            Self::Set => "set",
            Self::Zset => "zset",
            Self::Stream => "stream",
        }
    }

    /// In root rows; 0 and 1 are strings. Part of the on-disk format.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::String => 0,
            Self::Hash => 2,
            Self::List => 3,
            Self::Set => 4,
            Self::Zset => 5,
            Self::Stream => 6,
        }
    }

    pub(super) fn from_code(code: u8) -> Option<Self> {
        [Self::Hash, Self::List, Self::Set, Self::Zset, Self::Stream]
            .into_iter()
            .find(|kind| kind.code() == code)
    }
}

/// A string that grows or changes in place, or is longer than a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buffer {
    pub(super) bytes: Vec<u8>,
    /// The object of its pages; 0 while it fits the root row.
    pub(super) id: u64,
}

/// A value by itself, on its way into memory or out of it; in memory only collections and long strings have this form.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A string that is a canonical decimal integer.
    Int(i64),
    Buffer(Box<Buffer>),
    Hash(Box<Hash>),
    List(Box<List>),
    Set(Box<Set>),
    Zset(Box<Zset>),
    Stream(Box<Stream>),
}

/// What a key holds, borrowed from memory.
#[derive(Debug, Clone, Copy)]
pub enum Held<'a> {
    /// A string of up to a page.
    Text(&'a [u8]),
    /// A string that is a canonical decimal integer.
    Int(i64),
    /// A collection, or a string that is long or grows in place.
    Object(&'a Value),
    /// Deleted, but the tables may not know yet.
    Absent,
}

impl Value {
    /// A string; the id of its pages, if it is longer than one, is still to be given.
    #[must_use]
    pub fn string(bytes: &[u8]) -> Self {
        integer(bytes).map_or_else(
            || {
                Self::Buffer(Box::new(Buffer {
                    bytes: bytes.to_vec(),
                    id: 0,
                }))
            },
            Self::Int,
        )
    }

    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Hash(_) => Kind::Hash,
            Self::List(_) => Kind::List,
            Self::Set(_) => Kind::Set,
            Self::Zset(_) => Kind::Zset,
            Self::Stream(_) => Kind::Stream,
            Self::Int(_) | Self::Buffer(_) => Kind::String,
        }
    }

    /// Positions of a list's first item and behind its last one.
    pub(super) fn ends(&self) -> (i64, i64) {
        match self {
            Self::List(list) => list.ends(),
            _ => (0, 0),
        }
    }

    /// Id of the object that has element rows; 0 for none.
    pub(super) fn object(&self) -> u64 {
        match self {
            Self::Hash(hash) => hash.id,
            Self::List(list) => list.id,
            Self::Set(set) => set.id,
            Self::Zset(zset) => zset.id,
            Self::Stream(stream) => stream.id,
            Self::Buffer(buffer) => buffer.id,
            Self::Int(_) => 0,
        }
    }

    /// What is known of a collection that is mostly in the tables.
    #[inline]
    pub(super) fn partial(&self) -> Option<&Partial> {
        match self {
            Self::Hash(hash) => hash.partial(),
            Self::Set(set) => set.partial(),
            Self::Zset(zset) => zset.as_partly().map(|partly| &partly.members),
            _ => None,
        }
    }

    /// Some of it may be only in the tables.
    pub(super) fn is_partial(&self) -> bool {
        match self {
            Self::Stream(stream) => !stream.is_whole(),
            Self::List(list) => !list.is_whole(),
            other => other.partial().is_some(),
        }
    }

    /// Writes the rows that say where the items of a list or the entries of a stream lie that is not whole.
    pub(super) fn write_places(&mut self, rows: &mut Rows<'_>) {
        match self {
            Self::Stream(stream) => stream.write_pages(rows),
            Self::List(list) => list.write_ends(rows),
            _ => {}
        }
    }

    /// Forgets elements of a partial collection that the tables have: see [`Partial::trim`]. Bytes given back; `None`: it is
    /// not one.
    pub(super) fn trim(&mut self, folded: u64, target: usize, steps: usize) -> Option<usize> {
        match self {
            Self::Zset(zset) => {
                let partly = zset.as_partly_mut()?;
                Some(partly.trim(folded, target, steps))
            }
            Self::Stream(stream) => stream.forget(folded, target, steps),
            Self::List(list) => list.forget(folded, target, steps),
            other => Some(other.partial_mut()?.trim(folded, target, steps)),
        }
    }

    /// Bytes of a partial collection that can be forgotten, element by element, when all is folded; `None`: it is not one.
    pub(super) fn held(&self) -> Option<usize> {
        match self {
            Self::Zset(zset) => zset.as_partly().map(Partly::held),
            Self::Stream(stream) => stream.held(),
            Self::List(list) => list.held(),
            other => other.partial().map(Partial::memory),
        }
    }

    pub(super) fn partial_mut(&mut self) -> Option<&mut Partial> {
        match self {
            Self::Hash(hash) => hash.partial_mut(),
            Self::Set(set) => set.partial_mut(),
            Self::Zset(zset) => zset.as_partly_mut().map(|partly| &mut partly.members),
            _ => None,
        }
    }

    /// Elements of a collection (pages of a long string, rows of a stream).
    pub(super) fn elements(&self) -> usize {
        match self {
            Self::Hash(hash) => hash.len(),
            Self::List(list) => list.len(),
            Self::Set(set) => set.len(),
            Self::Zset(zset) => zset.len(),
            Self::Stream(stream) => stream.rows(),
            Self::Buffer(buffer) => buffer.bytes.len().div_ceil(PAGE),
            Self::Int(_) => 0,
        }
    }

    /// Bytes of the record that writes all of it as rows, at most: a sorted set that is large is written three times (as it
    /// comes, under the id of a partial one, and in order), a hash or set twice.
    pub(super) fn record_size(&self) -> usize {
        const ROW: usize = 48;
        let times = match self {
            Self::Zset(_) => 3,
            Self::Hash(_) | Self::Set(_) => 2,
            _ => 1,
        };
        times * (self.memory() + self.elements() * ROW)
    }

    /// Bytes of memory, about.
    pub(super) fn memory(&self) -> usize {
        size_of::<Option<Self>>()
            + match self {
                Self::Int(_) => 0,
                Self::Buffer(buffer) => buffer.bytes.capacity() + size_of::<Buffer>(),
                Self::Hash(hash) => hash.memory(),
                Self::List(list) => list.memory(),
                Self::Set(set) => set.memory(),
                Self::Zset(zset) => zset.memory(),
                Self::Stream(stream) => stream.memory(),
            }
    }
}

impl<'a> Held<'a> {
    /// Id of the object that has element rows; 0 for none.
    pub(super) fn object(self) -> u64 {
        match self {
            Self::Object(value) => value.object(),
            Self::Text(_) | Self::Int(_) | Self::Absent => 0,
        }
    }

    /// What is known of a collection that is mostly in the tables.
    #[inline]
    pub(super) fn partial(self) -> Option<&'a Partial> {
        match self {
            Self::Object(value) => value.partial(),
            Self::Text(_) | Self::Int(_) | Self::Absent => None,
        }
    }

    /// Some of it may be only in the tables.
    pub(super) fn is_partial(self) -> bool {
        matches!(self, Self::Object(value) if value.is_partial())
    }

    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::Object(value) => value.kind(),
            Self::Text(_) | Self::Int(_) | Self::Absent => Kind::String,
        }
    }

    /// The bytes, if it is a string.
    #[inline]
    #[must_use]
    pub fn string(self) -> Option<Member<'a>> {
        match self {
            Self::Text(bytes) => Some(Member::Text(bytes)),
            Self::Int(value) => Some(Member::Int(value)),
            Self::Object(Value::Buffer(buffer)) => Some(Member::Text(&buffer.bytes)),
            Self::Object(Value::Int(value)) => Some(Member::Int(*value)),
            Self::Object(_) | Self::Absent => None,
        }
    }

    /// A copy of it; `None` for what is absent.
    pub(super) fn to_value(self) -> Option<Value> {
        match self {
            Self::Text(bytes) => Some(Value::string(bytes)),
            Self::Int(value) => Some(Value::Int(value)),
            Self::Object(value) => Some(value.clone()),
            Self::Absent => None,
        }
    }

    /// What `OBJECT ENCODING` says: the name Redis would use for such a value.
    #[must_use]
    pub fn encoding(self) -> &'static str {
        match self {
            Self::Int(_) | Self::Object(Value::Int(_)) => "int",
            Self::Text(text) if text.len() <= 44 => "embstr",
            Self::Text(_) | Self::Object(Value::Buffer(_)) | Self::Absent => "raw",
            Self::Object(Value::Hash(hash)) if hash.is_small() => "listpack",
            Self::Object(Value::Hash(_)) => "hashtable",
            Self::Object(Value::List(list)) if list.is_small() => "listpack",
            Self::Object(Value::List(_)) => "quicklist",
            Self::Object(Value::Set(set)) => set.encoding(),
            Self::Object(Value::Zset(zset)) if zset.is_small() => "listpack",
            Self::Object(Value::Zset(_)) => "skiplist",
            Self::Object(Value::Stream(_)) => "stream",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_two_words() {
        assert_eq!(size_of::<Option<Value>>(), 16);
    }
}
