//! What a key holds.

use super::hash::Hash;
use super::list::List;
use super::partial::Partial;
use super::set::Set;
use super::text::Text;
use super::zset::Zset;

/// The type of a value, as `TYPE` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    String,
    Hash,
    List,
    Set,
    Zset,
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
        }
    }

    pub(super) fn from_code(code: u8) -> Option<Self> {
        [Self::Hash, Self::List, Self::Set, Self::Zset]
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

/// 24 bytes; everything but short strings is behind a pointer.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(Text),
    /// A string that is a canonical decimal integer.
    Int(i64),
    Buffer(Box<Buffer>),
    Hash(Box<Hash>),
    List(Box<List>),
    Set(Box<Set>),
    Zset(Box<Zset>),
    /// Deleted, but the tables may not know yet.
    Absent,
}

impl Value {
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Hash(_) => Kind::Hash,
            Self::List(_) => Kind::List,
            Self::Set(_) => Kind::Set,
            Self::Zset(_) => Kind::Zset,
            Self::Text(_) | Self::Int(_) | Self::Buffer(_) | Self::Absent => Kind::String,
        }
    }

    /// Id of the object that has element rows; 0 for none.
    pub(super) fn object(&self) -> u64 {
        match self {
            Self::Hash(hash) => hash.id,
            Self::List(list) => list.id,
            Self::Set(set) => set.id,
            Self::Zset(zset) => zset.id,
            Self::Buffer(buffer) => buffer.id,
            Self::Text(_) | Self::Int(_) | Self::Absent => 0,
        }
    }

    /// What is known of a collection that is mostly in the tables.
    #[inline]
    pub(super) fn partial(&self) -> Option<&Partial> {
        match self {
            Self::Hash(hash) => hash.partial.as_deref(),
            Self::Set(set) => set.partial.as_deref(),
            _ => None,
        }
    }

    pub(super) fn partial_mut(&mut self) -> Option<&mut Partial> {
        match self {
            Self::Hash(hash) => hash.partial.as_deref_mut(),
            Self::Set(set) => set.partial.as_deref_mut(),
            _ => None,
        }
    }

    /// Elements of a collection (pages of a long string).
    pub(super) fn elements(&self) -> usize {
        match self {
            Self::Hash(hash) => hash.len(),
            Self::List(list) => list.len(),
            Self::Set(set) => set.len(),
            Self::Zset(zset) => zset.len(),
            Self::Buffer(buffer) => buffer.bytes.len().div_ceil(super::row::PAGE),
            Self::Text(_) | Self::Int(_) | Self::Absent => 0,
        }
    }

    /// Bytes of memory outside the entry itself, about.
    pub(super) fn memory(&self) -> usize {
        match self {
            Self::Text(text) => text.heap_bytes(),
            Self::Int(_) | Self::Absent => 0,
            Self::Buffer(buffer) => buffer.bytes.capacity() + 40,
            Self::Hash(hash) => hash.memory(),
            Self::List(list) => list.memory(),
            Self::Set(set) => set.memory(),
            Self::Zset(zset) => zset.memory(),
        }
    }

    /// What `OBJECT ENCODING` says: the name Redis would use for such a value.
    #[must_use]
    pub fn encoding(&self) -> &'static str {
        match self {
            Self::Int(_) => "int",
            Self::Text(text) if text.len() <= 44 => "embstr",
            Self::Text(_) | Self::Buffer(_) | Self::Absent => "raw",
            Self::Hash(hash) => {
                if hash.is_small() {
                    "listpack"
                } else {
                    "hashtable"
                }
            }
            Self::List(list) => {
                if list.is_small() {
                    "listpack"
                } else {
                    "quicklist"
                }
            }
            Self::Set(set) => set.encoding(),
            Self::Zset(zset) => {
                if zset.is_small() {
                    "listpack"
                } else {
                    "skiplist"
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_three_words() {
        assert_eq!(size_of::<Value>(), 24);
    }
}
