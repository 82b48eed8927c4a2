//! How keys and elements lie in the tables.
//!
//! ```text
//! slot | Key | db id u32 | key                     → root: kind and flags u8 [expiry ms u64] (inline string | object id u64)
//! slot | HashField, SetMember … | object id | name → value, nothing, score
//! slot | FieldDeadline | object id | field         → ms since the epoch when a field is gone
//! slot | ListItem | object id | index              → item
//! slot | ListItem | object id                      → where a list begins and ends that is not held whole: see `list/far.rs`
//! slot | Stream | object id | …                    → see `stream/rows.rs`
//! slot | ElementCount | object id                  → how many elements a partial collection has (counter)
//! slot | ZsetOrder | object id | score | member    → nothing: the order of a partial sorted set
//! slot | ZsetPage | object id | score | member     → how many of those lie from here to the next such row (counter)
//! slot | StringPage | object id | page u32         → up to 4 KiB of a long string
//! first slot | KeyCount | db id                    → number of keys (counter)
//! first slot | Database | db number u8             → id of that database in this shard; FLUSHDB gives it a new one
//! first slot | Dead | slot | object id             → tag of the element rows that are orphans
//! first slot | Dead | slot | object id | entry id  → tag of a stream's rows, entry id: those of entries from this one to before that one are orphans
//! first slot | Dead | db id u32                    → all keys of that database id are orphans
//! ```
//! `first slot` is the shard's first one: facts about the whole shard stand there, so that one scan finds them.
//! Table keys are bounded (64 KiB); a longer name stands with its first [`NAME_MAX`] bytes and a hash, and the rest of it
//! in front of the value.

use std::borrow::Cow;
use std::hash::{BuildHasher, Hasher};

use storage::{Effects, MAX_KEY_LEN, ShardId};

use super::journal::Journal;
use super::text::Text;
use super::value::Kind;
use crate::Slot;
use crate::rows::{self, Tag};

/// Longest key, field or member that stands whole in a table key.
pub(super) const NAME_MAX: usize = 60_000;
/// Bytes of hash after a name that was cut.
const NAME_HASH: usize = 16;
const _: () = assert!(NAME_MAX + NAME_HASH + 32 < MAX_KEY_LEN);

/// Strings up to this long stand in their root row; longer ones in pages of this size.
pub(super) const PAGE: usize = 4096;

const EXPIRES: u8 = 0x80;

/// What a root row says of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Root<'a> {
    pub(super) expire_ms: u64,
    pub(super) body: Body<'a>,
}

impl Root<'_> {
    /// Tag and id of the element rows, if there are any.
    pub(super) fn object(&self) -> Option<(Tag, u64)> {
        match self.body {
            Body::Inline(_) => None,
            Body::Pages(id) => Some((Tag::StringPage, id)),
            Body::Object(kind, id) => Some((element_tag(kind), id)),
            Body::Lasting(id) => Some((Tag::HashField, id)),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body<'a> {
    Inline(&'a [u8]),
    /// Element rows under this id.
    Object(Kind, u64),
    /// A hash whose fields may have deadlines, which are rows under the same id.
    Lasting(u64),
    /// A string in pages.
    Pages(u64),
}

/// The kind of [`Body::Lasting`]; see [`Kind::code`]. Part of the on-disk format.
const LASTING: u8 = 7;

/// A table key's fixed front.
pub(super) fn key_prefix(slot: Slot, db: u32) -> [u8; 7] {
    let [a, b, c] = rows::prefix(slot, Tag::Key);
    let [d, e, f, g] = db.to_be_bytes();
    [a, b, c, d, e, f, g]
}

pub(super) fn count_key(shard: ShardId, db: u32) -> [u8; 7] {
    let [a, b, c] = rows::prefix(Slot::range_of(shard).0, Tag::KeyCount);
    let [d, e, f, g] = db.to_be_bytes();
    [a, b, c, d, e, f, g]
}

pub(super) fn database_key(shard: ShardId, number: u8) -> [u8; 4] {
    let [a, b, c] = rows::prefix(Slot::range_of(shard).0, Tag::Database);
    [a, b, c, number]
}

pub(super) fn dead_object_key(shard: ShardId, slot: Slot, id: u64) -> Vec<u8> {
    let mut key = rows::prefix(Slot::range_of(shard).0, Tag::Dead).to_vec();
    key.extend_from_slice(&slot.raw().to_be_bytes());
    key.extend_from_slice(&id.to_be_bytes());
    key
}

/// The same for element rows whose names are below one.
pub(super) fn dead_front_key(shard: ShardId, slot: Slot, id: u64, below: &[u8]) -> Vec<u8> {
    let mut key = dead_object_key(shard, slot, id);
    key.extend_from_slice(below);
    key
}

pub(super) fn element_count_key(slot: Slot, id: u64) -> [u8; 11] {
    rows::object_prefix(slot, Tag::ElementCount, id)
}

pub(super) fn dead_database_key(shard: ShardId, db: u32) -> Vec<u8> {
    let mut key = rows::prefix(Slot::range_of(shard).0, Tag::Dead).to_vec();
    key.extend_from_slice(&db.to_be_bytes());
    key
}

/// The tag of the element rows of a kind.
pub(super) fn element_tag(kind: Kind) -> Tag {
    match kind {
        Kind::String => Tag::StringPage,
        Kind::Hash => Tag::HashField,
        Kind::List => Tag::ListItem,
        Kind::Set => Tag::SetMember,
        Kind::Zset => Tag::ZsetMember,
        Kind::Stream => Tag::Stream,
    }
}

/// Tags of all rows of an object whose elements have this one, in their order.
pub(super) fn tags_of(elements: Tag) -> &'static [Tag] {
    match elements {
        Tag::HashField => &[Tag::HashField, Tag::FieldDeadline],
        Tag::ListItem => &[Tag::ListItem],
        Tag::SetMember => &[Tag::SetMember],
        Tag::ZsetMember => &[Tag::ZsetPage, Tag::ZsetOrder, Tag::ZsetMember],
        Tag::Stream => &[Tag::Stream],
        _ => &[Tag::StringPage],
    }
}

/// The inverse of `tag as u8` for element tags.
pub(super) fn element_tag_from(byte: u8) -> Option<Tag> {
    [
        Tag::StringPage,
        Tag::HashField,
        Tag::ListItem,
        Tag::SetMember,
        Tag::ZsetMember,
        Tag::Stream,
    ]
    .into_iter()
    .find(|&tag| tag as u8 == byte)
}

/// Writes the row of a name under `prefix`.
#[inline]
pub(super) fn put(fx: &mut Effects, shard: ShardId, prefix: &[u8], name: &[u8], value: &[&[u8]]) {
    if name.len() <= NAME_MAX {
        match value {
            [] => fx.put_parts(shard, &[prefix, name], &[]),
            [one] => fx.put_parts(shard, &[prefix, name], &[one]),
            more => fx.put_parts(shard, &[prefix, name], more),
        }
    } else {
        let (head, tail, hash) = cut(name);
        // A name is at most 512 MiB.
        let length = (tail.len() as u32).to_le_bytes();
        let mut parts: Vec<&[u8]> = vec![&length, tail];
        parts.extend_from_slice(value);
        fx.put_parts(shard, &[prefix, head, &hash], &parts);
    }
}

#[inline]
pub(super) fn del(fx: &mut Effects, shard: ShardId, prefix: &[u8], name: &[u8]) {
    if name.len() <= NAME_MAX {
        fx.del_parts(shard, &[prefix, name]);
    } else {
        let (head, _, hash) = cut(name);
        fx.del_parts(shard, &[prefix, head, &hash]);
    }
}

/// The whole table key of a name, for lookups.
pub(super) fn table_key(prefix: &[u8], name: &[u8]) -> Vec<u8> {
    [prefix, &row_name(name)].concat()
}

/// What stands in the table key of a name, behind the prefix.
pub(super) fn row_name(name: &[u8]) -> Cow<'_, [u8]> {
    if name.len() <= NAME_MAX {
        return Cow::Borrowed(name);
    }
    let (head, _, hash) = cut(name);
    Cow::Owned([head, &hash].concat())
}

/// What [`put`] writes as the value of a name's row.
pub(super) fn stored_value(name: &[u8], value: &[u8]) -> Text {
    if name.len() <= NAME_MAX {
        return Text::new(value);
    }
    let (_, tail, _) = cut(name);
    let length = (tail.len() as u32).to_le_bytes();
    Text::from([&length[..], tail, value].concat())
}

/// Name and value of a row, given the table key after its prefix. `None`: not written by [`put`].
pub(super) fn split<'n, 'v>(name: &'n [u8], value: &'v [u8]) -> Option<(Cow<'n, [u8]>, &'v [u8])> {
    if name.len() <= NAME_MAX {
        return Some((name.into(), value));
    }
    let head = name.get(..NAME_MAX)?;
    let (length, rest) = value.split_first_chunk::<4>()?;
    let (tail, value) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some(([head, tail].concat().into(), value))
}

/// First bytes, the rest, and a hash of the whole name.
fn cut(name: &[u8]) -> (&[u8], &[u8], [u8; NAME_HASH]) {
    let (head, tail) = name.split_at_checked(NAME_MAX).unwrap_or((name, &[]));
    let half = |seed: u64| {
        let mut hasher = foldhash::quality::FixedState::with_seed(seed).build_hasher();
        hasher.write(name);
        hasher.finish().to_be_bytes()
    };
    let mut hash = [0; NAME_HASH];
    let (low, high) = hash.split_at_mut(8);
    low.copy_from_slice(&half(1));
    high.copy_from_slice(&half(2));
    (head, tail, hash)
}

/// Writes the root row of a key.
pub(super) fn put_root(
    fx: &mut Effects,
    shard: ShardId,
    prefix: &[u8; 7],
    key: &[u8],
    root: &Root<'_>,
) {
    let id;
    let (kind, body): (u8, &[u8]) = match root.body {
        Body::Inline(bytes) => (0, bytes),
        Body::Pages(object) => {
            id = object.to_le_bytes();
            (1, &id)
        }
        Body::Object(kind, object) => {
            id = object.to_le_bytes();
            (kind.code(), &id)
        }
        Body::Lasting(object) => {
            id = object.to_le_bytes();
            (LASTING, &id)
        }
    };
    if root.expire_ms == 0 {
        put(fx, shard, prefix, key, &[&[kind], body]);
    } else {
        put(
            fx,
            shard,
            prefix,
            key,
            &[&[kind | EXPIRES], &root.expire_ms.to_le_bytes(), body],
        );
    }
}

/// Reads a root row's value. `None`: not one of ours.
pub(super) fn root(value: &[u8]) -> Option<Root<'_>> {
    let (&head, rest) = value.split_first()?;
    let (expire_ms, rest) = if head & EXPIRES == 0 {
        (0, rest)
    } else {
        let (expire, rest) = rest.split_first_chunk::<8>()?;
        (u64::from_le_bytes(*expire), rest)
    };
    let body = match head & !EXPIRES {
        0 => Body::Inline(rest),
        1 => Body::Pages(u64::from_le_bytes(rest.try_into().ok()?)),
        LASTING => Body::Lasting(u64::from_le_bytes(rest.try_into().ok()?)),
        code => Body::Object(
            Kind::from_code(code)?,
            u64::from_le_bytes(rest.try_into().ok()?),
        ),
    };
    Some(Root { expire_ms, body })
}

/// Writes element rows of one object, beside the change in memory.
#[derive(Debug)]
pub struct Rows<'a> {
    pub(super) fx: &'a mut Effects,
    pub(super) shard: ShardId,
    pub(super) prefix: [u8; 11],
    /// Of the record that the rows will be in.
    pub(super) seq: u64,
    pub(super) changed: bool,
    /// Told of the changes too.
    journal: Option<&'a mut Journal>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(
        fx: &'a mut Effects,
        (shard, seq): (ShardId, u64),
        slot: Slot,
        tag: Tag,
        id: u64,
    ) -> Self {
        Self {
            fx,
            shard,
            prefix: rows::object_prefix(slot, tag, id),
            seq,
            changed: false,
            journal: None,
        }
    }

    /// The journal, which knows whose elements these are, is told as well.
    #[inline]
    pub(super) fn noting(mut self, journal: Option<&'a mut Journal>) -> Self {
        self.journal = journal;
        self
    }

    /// Where changes are told, by those whose rows do not say what they mean.
    #[inline]
    pub(super) fn journal(&mut self) -> Option<&mut Journal> {
        self.journal.as_deref_mut()
    }

    #[inline]
    pub(super) fn put(&mut self, name: &[u8], value: &[u8]) {
        self.changed = true;
        if let Some(journal) = &mut self.journal {
            journal.put(name, value);
        }
        put(self.fx, self.shard, &self.prefix, name, &[value]);
    }

    /// Changes the row of a counter.
    pub(super) fn add(&mut self, name: &[u8], delta: i64) {
        self.changed = true;
        self.fx.add_parts(self.shard, &[&self.prefix, name], delta);
    }

    /// The prefix of the same object's rows of another tag.
    fn other(&self, other: Tag) -> [u8; 11] {
        let mut prefix = self.prefix;
        let [_, _, tag, ..] = &mut prefix;
        *tag = other as u8;
        prefix
    }

    /// A field is to go at `at_ms`.
    pub(super) fn put_deadline(&mut self, field: &[u8], at_ms: u64) {
        self.changed = true;
        if let Some(journal) = &mut self.journal {
            journal.field_deadline(field, Some(at_ms));
        }
        let prefix = self.other(Tag::FieldDeadline);
        put(self.fx, self.shard, &prefix, field, &[&at_ms.to_le_bytes()]);
    }

    /// The row of a field's deadline goes; `told`: the field stays without one.
    pub(super) fn del_deadline(&mut self, field: &[u8], told: bool) {
        self.changed = true;
        if let Some(journal) = self.journal.as_mut().filter(|_| told) {
            journal.field_deadline(field, None);
        }
        let prefix = self.other(Tag::FieldDeadline);
        del(self.fx, self.shard, &prefix, field);
    }

    /// There is a place in the order.
    pub(super) fn put_place(&mut self, place: &[u8]) {
        let (prefix, member) = self.placed(place);
        put(self.fx, self.shard, &prefix, member, &[]);
    }

    pub(super) fn del_place(&mut self, place: &[u8]) {
        let (prefix, member) = self.placed(place);
        del(self.fx, self.shard, &prefix, member);
    }

    fn placed<'p>(&self, place: &'p [u8]) -> ([u8; 19], &'p [u8]) {
        let mut prefix = [0; 19];
        let (object, score) = prefix.split_at_mut(11);
        object.copy_from_slice(&self.other(Tag::ZsetOrder));
        let (front, member) = place.split_at_checked(8).unwrap_or((&[0; 8], place));
        score.copy_from_slice(front);
        (prefix, member)
    }

    /// So many places lie in the page that begins here.
    pub(super) fn put_page(&mut self, first: &[u8], count: usize) {
        let prefix = self.other(Tag::ZsetPage);
        let count = (count as i64).to_le_bytes();
        (self.fx).put_parts(self.shard, &[&prefix, first], &[&count]);
    }

    pub(super) fn add_page(&mut self, first: &[u8], delta: i64) {
        let prefix = self.other(Tag::ZsetPage);
        (self.fx).add_parts(self.shard, &[&prefix, first], delta);
    }

    pub(super) fn del_page(&mut self, first: &[u8]) {
        let prefix = self.other(Tag::ZsetPage);
        self.fx.del_parts(self.shard, &[&prefix, first]);
    }

    #[inline]
    pub(super) fn del(&mut self, name: &[u8]) {
        self.changed = true;
        if let Some(journal) = &mut self.journal {
            journal.del(name);
        }
        del(self.fx, self.shard, &self.prefix, name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_reads_back() {
        for root_ in [
            Root {
                expire_ms: 0,
                body: Body::Inline(b"v"),
            },
            Root {
                expire_ms: 77,
                body: Body::Inline(b""),
            },
            Root {
                expire_ms: 5,
                body: Body::Object(Kind::Zset, 9),
            },
            Root {
                expire_ms: 0,
                body: Body::Pages(3),
            },
            Root {
                expire_ms: 4,
                body: Body::Lasting(8),
            },
        ] {
            let mut fx = Effects::new();
            put_root(
                &mut fx,
                ShardId(0),
                &key_prefix(Slot::of(b"k"), 1),
                b"k",
                &root_,
            );
            assert!(!fx.is_empty());
        }
        assert_eq!(
            root(&[0x80, 5, 0, 0, 0, 0, 0, 0, 0, b'x']),
            Some(Root {
                expire_ms: 5,
                body: Body::Inline(b"x")
            })
        );
        assert_eq!(
            root(&[7, 9, 0, 0, 0, 0, 0, 0, 0]),
            Some(Root {
                expire_ms: 0,
                body: Body::Lasting(9)
            })
        );
        assert_eq!(root(&[2, 1]), None);
        assert_eq!(root(&[]), None);
    }

    #[test]
    fn long_names_survive() {
        let name: Vec<u8> = (0..NAME_MAX + 5000).map(|i| i as u8).collect();
        let (head, tail, hash) = cut(&name);
        let mut value = (tail.len() as u32).to_le_bytes().to_vec();
        value.extend_from_slice(tail);
        value.extend_from_slice(b"value");
        let stored = [head, &hash].concat();
        let (back, rest) = split(&stored, &value).expect("ours");
        assert_eq!((&*back, rest), (name.as_slice(), &b"value"[..]));
    }
}
