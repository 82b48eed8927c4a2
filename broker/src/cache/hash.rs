//! Hashes: fields in order of insertion, as Redis shows small ones.

use foldhash::fast::RandomState;
use indexmap::IndexMap;

use super::elements::Collection;
use super::partial::Partial;
use super::row::Rows;
use super::set::Member;
use super::text::Text;
use super::value::Value;

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
    /// Instead of the map: most fields are only in the tables.
    pub(super) partial: Option<Box<Partial>>,
}

impl Hash {
    pub(super) fn new(id: u64) -> Self {
        Self {
            id,
            map: IndexMap::default(),
            heap: 0,
            big: false,
            partial: None,
        }
    }

    pub(super) fn partly(id: u64, partial: Partial) -> Self {
        Self {
            big: true,
            partial: Some(Box::new(partial)),
            ..Self::new(id)
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        match &self.partial {
            None => self.map.len(),
            Some(partial) => partial.len(),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[must_use]
    pub fn is_small(&self) -> bool {
        !self.big
    }

    #[inline]
    #[must_use]
    pub fn get(&self, field: &[u8]) -> Option<&[u8]> {
        match &self.partial {
            None => self.map.get(field).map(|value| &**value),
            Some(partial) => partial.value(field),
        }
    }

    /// Fields and values of a whole hash; small ones in order of insertion.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        debug_assert!(self.partial.is_none(), "a partial hash is read by Elements");
        self.map.iter().map(|(field, value)| (&**field, &**value))
    }

    /// Sets a field; true when it is new.
    pub fn insert(&mut self, field: &[u8], value: &[u8], rows: &mut Rows<'_>) -> bool {
        rows.put(field, value);
        match &mut self.partial {
            None => self.set(field, value),
            Some(partial) => partial.insert(field, value, rows.seq),
        }
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
        if let Some(partial) = &mut self.partial {
            let removed = partial.remove(field, rows.seq);
            if removed {
                rows.del(field);
            }
            return removed;
        }
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
        let partial = self.partial.as_ref().map_or(0, |partial| partial.memory());
        partial + self.heap + 96 + self.map.capacity() * 68
    }
}

impl Collection for Hash {
    fn of(value: &Value) -> Option<&Self> {
        match value {
            Value::Hash(hash) => Some(hash),
            _ => None,
        }
    }

    fn each_held(&self, visit: &mut dyn FnMut(Member<'_>, &[u8])) {
        for (field, value) in self.iter() {
            visit(Member::Text(field), value);
        }
    }

    fn held_at(&self, place: usize) -> Option<(Member<'_>, &[u8])> {
        self.map
            .get_index(place)
            .map(|(field, value)| (Member::Text(field), &**value))
    }
}

impl PartialEq for Hash {
    fn eq(&self, other: &Self) -> bool {
        let whole = self.partial.is_none() && other.partial.is_none();
        whole && self.id == other.id && self.map == other.map
    }
}
