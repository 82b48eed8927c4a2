//! Entries of a stream that lie next to each other, in one allocation.
//!
//! ```text
//! names of the first entry's fields │ entry │ entry │ …
//! names   count, [length, bytes] …
//! entry   ms since the chunk's id, seq (since the chunk's in its millisecond), size and form, then size bytes:
//!           form 0: values of the fields named in front          [length, bytes] …
//!           form 1: fields and values of its own (a body)        count, [length, field, length, value] …
//! ```
//! Numbers are LEB128. Entries of one kind so cost their values and a few bytes; Redis' stream nodes do the same.

use super::id::EntryId;

/// Redis' `stream-node-max-entries`: removed ones count.
const ENTRIES: u16 = 100;
/// Redis' `stream-node-max-bytes`.
const BYTES: usize = 4096;

/// See the module. Its id, by which its owner keeps it, is that of the first entry it ever had.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    bytes: Vec<u8>,
    /// Of the names in front.
    names: usize,
    len: u16,
    /// Entries it ever had.
    used: u16,
    last: EntryId,
}

/// An entry as it lies in memory.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    pub id: EntryId,
    /// Count and names, when the fields are those of the chunk.
    names: Option<&'a [u8]>,
    rest: &'a [u8],
}

/// Fields and values.
#[derive(Debug, Clone)]
pub struct Pairs<'a> {
    names: Option<&'a [u8]>,
    rest: &'a [u8],
    left: usize,
}

/// A number in front of `bytes`.
pub(super) fn number(bytes: &mut &[u8]) -> Option<u64> {
    let (mut value, mut shift) = (0u64, 0);
    loop {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(value);
        }
        shift += 7;
    }
}

pub(super) fn put_number(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn count(bytes: &mut &[u8]) -> Option<usize> {
    usize::try_from(number(bytes)?).ok()
}

/// A string in front of `bytes`.
fn string<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = count(bytes)?;
    let (string, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(string)
}

fn put_string(bytes: &mut Vec<u8>, string: &[u8]) {
    put_number(bytes, string.len() as u64);
    bytes.extend_from_slice(string);
}

/// What [`put_string`] takes for so many bytes.
fn string_size(length: usize) -> usize {
    let bits = usize::BITS - (length | 1).leading_zeros();
    length + bits.div_ceil(7) as usize
}

/// Fields and values as they stand in an entry's row.
pub fn body<'a>(pairs: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])>, into: &mut Vec<u8>) {
    put_number(into, pairs.len() as u64);
    for (field, value) in pairs {
        put_string(into, field);
        put_string(into, value);
    }
}

/// Is it what [`body`] writes?
pub(super) fn is_body(mut bytes: &[u8]) -> bool {
    let bytes = &mut bytes;
    let Some(pairs) = count(bytes) else {
        return false;
    };
    (0..pairs.saturating_mul(2)).all(|_| string(bytes).is_some()) && bytes.is_empty()
}

impl<'a> Entry<'a> {
    /// An entry by its body.
    pub(super) fn own(id: EntryId, body: &'a [u8]) -> Self {
        Self {
            id,
            names: None,
            rest: body,
        }
    }

    #[must_use]
    pub fn pairs(&self) -> Pairs<'a> {
        let (mut names, mut rest) = (self.names, self.rest);
        let left = names.as_mut().map_or_else(|| count(&mut rest), count);
        Pairs {
            names,
            rest,
            left: left.unwrap_or(0),
        }
    }

    /// Its body, for its row.
    pub(super) fn body(&self, into: &mut Vec<u8>) {
        match self.names {
            None => into.extend_from_slice(self.rest),
            Some(_) => body(self.pairs(), into),
        }
    }
}

impl PartialEq for Entry<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.pairs().eq(other.pairs())
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let field = match &mut self.names {
            Some(names) => string(names)?,
            None => string(&mut self.rest)?,
        };
        Some((field, string(&mut self.rest)?))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Pairs<'_> {}

/// Entries of a chunk in order, each with its place.
#[derive(Clone)]
struct Places<'a> {
    base: EntryId,
    chunk: &'a Chunk,
    at: usize,
}

impl<'a> Iterator for Places<'a> {
    type Item = (usize, Entry<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.at;
        let mut rest = self.chunk.bytes.get(start..)?;
        let ms = self.base.ms.checked_add(number(&mut rest)?)?;
        let mut seq = number(&mut rest)?;
        if ms == self.base.ms {
            seq = seq.checked_add(self.base.seq)?;
        }
        let head = number(&mut rest)?;
        let (entry, behind) = rest.split_at_checked(usize::try_from(head >> 1).ok()?)?;
        self.at = self.chunk.bytes.len() - behind.len();
        let names = if head & 1 == 0 {
            Some(self.chunk.bytes.get(..self.chunk.names)?)
        } else {
            None
        };
        let entry = Entry {
            id: EntryId { ms, seq },
            names,
            rest: entry,
        };
        Some((start, entry))
    }
}

impl Chunk {
    /// Begins one for an entry of this body.
    pub(super) fn new(body: &[u8]) -> Self {
        let entry = Entry::own(EntryId::MIN, body);
        let mut bytes = Vec::with_capacity((body.len() + 16).min(BYTES));
        put_number(&mut bytes, entry.pairs().len() as u64);
        for (field, _) in entry.pairs() {
            put_string(&mut bytes, field);
        }
        Self {
            names: bytes.len(),
            bytes,
            len: 0,
            used: 0,
            last: EntryId::MIN,
        }
    }

    /// Does one more entry go into it?
    pub(super) fn takes(&self, body: &[u8]) -> bool {
        self.used < ENTRIES && self.bytes.len() + body.len() < BYTES
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Bytes of memory.
    pub(super) fn memory(&self) -> usize {
        // With its share of the tree.
        size_of::<Self>() + 32 + self.bytes.capacity()
    }

    pub(super) fn last(&self) -> EntryId {
        self.last
    }

    /// Adds an entry behind the others. `base`: the chunk's id.
    pub(super) fn push(&mut self, base: EntryId, id: EntryId, body: &[u8]) {
        put_number(&mut self.bytes, id.ms - base.ms);
        let seq = if id.ms == base.ms {
            id.seq - base.seq
        } else {
            id.seq
        };
        put_number(&mut self.bytes, seq);
        if self.names(body) {
            let values = || Entry::own(id, body).pairs().map(|(_, value)| value);
            let size: usize = values().map(|value| string_size(value.len())).sum();
            put_number(&mut self.bytes, (size as u64) << 1);
            values().for_each(|value| put_string(&mut self.bytes, value));
        } else {
            put_number(&mut self.bytes, (body.len() as u64) << 1 | 1);
            self.bytes.extend_from_slice(body);
        }
        self.len += 1;
        self.used += 1;
        self.last = id;
    }

    /// Are the fields of an entry those that are named in front?
    fn names(&self, body: &[u8]) -> bool {
        let mut names = self.bytes.get(..self.names).unwrap_or_default();
        let pairs = Entry::own(EntryId::MIN, body).pairs();
        count(&mut names) == Some(pairs.len())
            && pairs
                .map(|(field, _)| field)
                .all(|field| string(&mut names) == Some(field))
    }

    /// No more will come: gives back what was meant for it.
    pub(super) fn close(&mut self) {
        self.bytes.shrink_to_fit();
    }

    pub(super) fn entries(&self, base: EntryId) -> impl Iterator<Item = Entry<'_>> + Clone {
        self.places(base).map(|(_, entry)| entry)
    }

    fn places(&self, base: EntryId) -> Places<'_> {
        Places {
            base,
            chunk: self,
            at: self.names,
        }
    }

    pub(super) fn remove(&mut self, base: EntryId, id: EntryId) -> bool {
        let mut places = self.places(base);
        let mut before = EntryId::MIN;
        while let Some((start, entry)) = places.next() {
            if entry.id == id {
                let end = places.at;
                self.bytes.drain(start..end);
                self.len -= 1;
                if self.last == id {
                    self.last = before;
                }
                return true;
            }
            before = entry.id;
        }
        false
    }

    /// Removes the first entries while `gone` says so.
    pub(super) fn trim(&mut self, base: EntryId, mut gone: impl FnMut(EntryId) -> bool) {
        let mut removed = 0;
        let mut places = self.places(base);
        let mut end = places.at;
        while let Some((_, entry)) = places.next() {
            if !gone(entry.id) {
                break;
            }
            end = places.at;
            removed += 1;
        }
        self.bytes.drain(self.names..end);
        self.len -= removed;
    }
}
