//! Hashes: fields in order of insertion, as Redis shows small ones.

use foldhash::fast::RandomState;
use indexmap::IndexMap;

use super::row::Rows;
use super::text::Text;

/// Redis keeps hashes of up to so many fields, each up to [`SMALL_LEN`] bytes, in order of insertion.
pub(super) const SMALL_ENTRIES: usize = 128;
pub(super) const SMALL_LEN: usize = 64;

/// Fields and values. Every change is also a row.
#[derive(Debug, Clone)]
pub struct Hash {
    pub(super) id: u64,
    map: IndexMap<Text, Text, RandomState>,
    /// Allocated by fields and values.
    heap: usize,
    /// Outgrew the small form once.
    big: bool,
}

impl Hash {
    pub(super) fn new(id: u64) -> Self {
        Self {
            id,
            map: IndexMap::default(),
            heap: 0,
            big: false,
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    #[must_use]
    pub fn is_small(&self) -> bool {
        !self.big
    }

    #[inline]
    #[must_use]
    pub fn get(&self, field: &[u8]) -> Option<&[u8]> {
        self.map.get(field).map(|value| &**value)
    }

    /// Fields and values; small ones in order of insertion.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.map.iter().map(|(field, value)| (&**field, &**value))
    }

    /// The pair at a place in `0..len`.
    #[must_use]
    pub fn at(&self, index: usize) -> Option<(&[u8], &[u8])> {
        self.map
            .get_index(index)
            .map(|(field, value)| (&**field, &**value))
    }

    /// Sets a field; true when it is new.
    pub fn insert(&mut self, field: &[u8], value: &[u8], rows: &mut Rows<'_>) -> bool {
        rows.put(field, value);
        self.set(field, value)
    }

    pub(super) fn set(&mut self, field: &[u8], value: &[u8]) -> bool {
        if let Some(old) = self.map.get_mut(field) {
            self.heap -= old.heap_bytes();
            old.assign(value);
            self.heap += old.heap_bytes();
            self.big |= value.len() > SMALL_LEN;
            return false;
        }
        let (field, value) = (Text::new(field), Text::new(value));
        self.heap += field.heap_bytes() + value.heap_bytes();
        self.big |= field.len() > SMALL_LEN || value.len() > SMALL_LEN;
        self.map.insert(field, value);
        self.big |= self.map.len() > SMALL_ENTRIES;
        true
    }

    /// Removes a field; true when it was there.
    pub fn remove(&mut self, field: &[u8], rows: &mut Rows<'_>) -> bool {
        let removed = if self.big {
            self.map.swap_remove_entry(field)
        } else {
            self.map.shift_remove_entry(field)
        };
        let Some((field, value)) = removed else {
            return false;
        };
        self.heap -= field.heap_bytes() + value.heap_bytes();
        rows.del(&field);
        true
    }

    pub(super) fn memory(&self) -> usize {
        // Per pair: two texts, a hash, and a place in the index.
        self.heap + 96 + self.map.capacity() * 68
    }
}

impl PartialEq for Hash {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.map == other.map
    }
}
