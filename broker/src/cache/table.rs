//! Names with a value each, by hash and by number: what large hashes, sets and sorted sets are made of.
//!
//! ```text
//! index: hash ─▶ number      places[number], 5 bytes      blocks (see `blocks`)
//!                            [at class]  ───────────────▶ [owner u32][slack u8][name length][name][value]
//! ```
//! So a pair costs its bytes and about 25 more. The name's length takes one byte, or five; `slack` is what the block has too
//! much. A table is used in one of two ways: dense, where numbers are `0..len` and a removal gives the last number away, or
//! with numbers that stay as long as their names do.

use std::hash::BuildHasher;
use std::io::Write;

use foldhash::fast::RandomState;

use super::blocks::{Blocks, NO_CLASS, OWNER, Place, class_of, size_of_class};
use super::index::Index;

/// In place of a name's length: it is in the next four bytes.
const WIDE: u8 = u8::MAX;
/// Behind the last free number.
const NONE: u32 = u32::MAX;
/// What a name costs outside its block, about: its place, and its cell in the index.
const EACH: usize = 5 + 11;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Table {
    places: Vec<[u8; 5]>,
    index: Index,
    blocks: Blocks,
    /// Bytes of blocks in use.
    heap: usize,
    /// The first free number; its place says the next one.
    free: u32,
    random: RandomState,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            index: Index::default(),
            blocks: Blocks::default(),
            heap: 0,
            free: NONE,
            random: RandomState::default(),
        }
    }
}

impl Table {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Bytes outside of the table itself.
    pub(super) fn memory(&self) -> usize {
        self.heap + self.places.len() * EACH
    }

    /// The number of a name.
    #[inline]
    pub(super) fn find(&self, name: &[u8]) -> Option<u32> {
        self.find_hashed(self.hash(name), name)
    }

    /// The value of a name.
    #[inline]
    pub(super) fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.at(self.find(name)?).map(|(_, value)| value)
    }

    /// Name and value of a number.
    #[inline]
    pub(super) fn at(&self, number: u32) -> Option<(&[u8], &[u8])> {
        split(self.blocks.get(self.place(number)?)?)
    }

    /// All names and values of a dense table; in order of insertion, if nothing was swapped.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> + Clone {
        debug_assert!(self.free == NONE, "only dense tables are walked through");
        (0..self.places.len() as u32).map(|number| self.at(number).unwrap_or_default())
    }

    /// Gives a name its value: the name's number, and whether it is new.
    pub(super) fn set(&mut self, name: &[u8], value: &[u8]) -> (u32, bool) {
        let (number, new) = self.find_or_add(name, value);
        if !new {
            self.overwrite(number, name, value);
        }
        (number, new)
    }

    /// As [`Table::set`], but a name that is there keeps its value.
    pub(super) fn find_or_add(&mut self, name: &[u8], value: &[u8]) -> (u32, bool) {
        let hash = self.hash(name);
        if let Some(number) = self.find_hashed(hash, name) {
            return (number, false);
        }
        let number = match self.places.get(self.free as usize) {
            Some(&[a, b, c, d, _]) => {
                std::mem::replace(&mut self.free, u32::from_le_bytes([a, b, c, d]))
            }
            None => {
                self.places.push([0; 5]);
                self.places.len() as u32 - 1
            }
        };
        self.write(number, name, value);
        self.index.insert(hash, number);
        (number, true)
    }

    /// Takes a name out of a dense table; the last number becomes its own. True when it was there.
    pub(super) fn swap_remove(&mut self, name: &[u8]) -> bool {
        let Some(number) = self.take_out(name) else {
            return false;
        };
        let last = self.places.len() as u32 - 1;
        if let Some(place) = self.place(last).filter(|_| number != last) {
            if let Some((moved, _)) = self.at(last) {
                self.index.renumber(self.hash(moved), last, number);
            }
            if let Some(owner) = self.blocks.get_mut(place).and_then(|b| b.first_chunk_mut()) {
                *owner = number.to_le_bytes();
            }
            self.put_place(number, place);
        }
        self.places.pop();
        true
    }

    /// Takes a name out of a dense table and keeps the order of the others, which costs as much as all of them.
    pub(super) fn shift_remove(&mut self, name: &[u8]) -> bool {
        let found = self.find(name).is_some();
        if found {
            let mut rest = Self::default();
            for (other, value) in self.iter().filter(|(other, _)| *other != name) {
                rest.set(other, value);
            }
            *self = rest;
        }
        found
    }

    /// Takes a name out; all others keep their numbers. True when it was there.
    pub(super) fn remove(&mut self, name: &[u8]) -> bool {
        let Some(number) = self.take_out(name) else {
            return false;
        };
        let next = std::mem::replace(&mut self.free, number);
        self.put_place(
            number,
            Place {
                class: NO_CLASS,
                at: next,
            },
        );
        true
    }

    #[inline]
    fn hash(&self, name: &[u8]) -> u32 {
        self.random.hash_one(name) as u32
    }

    #[inline]
    fn find_hashed(&self, hash: u32, name: &[u8]) -> Option<u32> {
        let is_it = |number| self.at(number).is_some_and(|(found, _)| found == name);
        self.index.find(hash, is_it)
    }

    #[inline]
    fn place(&self, number: u32) -> Option<Place> {
        let &[a, b, c, d, class] = self.places.get(number as usize)?;
        let at = u32::from_le_bytes([a, b, c, d]);
        (class != NO_CLASS).then_some(Place { class, at })
    }

    #[inline]
    fn put_place(&mut self, number: u32, place: Place) {
        if let Some(kept) = self.places.get_mut(number as usize) {
            let [a, b, c, d] = place.at.to_le_bytes();
            *kept = [a, b, c, d, place.class];
        }
    }

    /// Gives another value to a name whose number is known.
    pub(super) fn overwrite(&mut self, number: u32, name: &[u8], value: &[u8]) {
        let Some(place) = self.place(number) else {
            return;
        };
        let length = length_of(name, value);
        let fits = size_of_class(class_of(length), length);
        if let Some(block) = self.blocks.get_mut(place)
            && block.len() == fits
        {
            fill(block, number, name, value);
            return;
        }
        self.give(place);
        self.write(number, name, value);
    }

    fn write(&mut self, number: u32, name: &[u8], value: &[u8]) {
        let place = self.blocks.take(length_of(name, value));
        if let Some(block) = self.blocks.get_mut(place) {
            self.heap += block.len();
            fill(block, number, name, value);
        }
        self.put_place(number, place);
    }

    fn give(&mut self, place: Place) {
        self.heap -= self.blocks.get(place).map_or(0, <[u8]>::len);
        if let Some(moved) = self.blocks.give(place) {
            self.put_place(moved, place);
        }
    }

    /// Takes a name out; its number is left without a block.
    fn take_out(&mut self, name: &[u8]) -> Option<u32> {
        let hash = self.hash(name);
        let number = self.find_hashed(hash, name)?;
        self.index.remove(hash, number);
        self.give(self.place(number)?);
        Some(number)
    }
}

fn length_of(name: &[u8], value: &[u8]) -> usize {
    let length = if name.len() < usize::from(WIDE) { 1 } else { 5 };
    OWNER + 1 + length + name.len() + value.len()
}

/// Writes a block that is at least as long as it must be.
fn fill(block: &mut [u8], number: u32, name: &[u8], value: &[u8]) {
    // Steps between sizes are below 256.
    let slack = (block.len() - length_of(name, value)) as u8;
    let mut out = block;
    let mut put = |bytes: &[u8]| {
        let done = out.write_all(bytes);
        debug_assert!(done.is_ok(), "a block is as long as what it holds");
    };
    put(&number.to_le_bytes());
    put(&[slack]);
    match u8::try_from(name.len()) {
        Ok(length) if length < WIDE => put(&[length]),
        _ => {
            put(&[WIDE]);
            // A request is shorter than 4 GiB.
            put(&(name.len() as u32).to_le_bytes());
        }
    }
    put(name);
    put(value);
}

/// Name and value of a block.
#[inline]
fn split(block: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&slack, rest) = block.get(OWNER..)?.split_first()?;
    let rest = rest.get(..rest.len().checked_sub(usize::from(slack))?)?;
    let (&length, rest) = rest.split_first()?;
    if length < WIDE {
        return rest.split_at_checked(usize::from(length));
    }
    let (length, rest) = rest.split_first_chunk()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use indexmap::IndexMap;
    use proptest::prelude::*;

    fn check(table: &Table, model: &IndexMap<Vec<u8>, Vec<u8>>) {
        assert_eq!(table.len(), model.len());
        let heap: usize = model
            .iter()
            .map(|(name, value)| {
                let length = length_of(name, value);
                size_of_class(class_of(length), length)
            })
            .sum();
        assert_eq!(table.heap, heap);
        for (name, value) in model {
            let number = table.find(name).expect("a name");
            assert_eq!(table.at(number), Some((&name[..], &value[..])));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
        #[test]
        fn agrees_with_a_map(ops in prop::collection::vec((0u16..120, prop_oneof![4 => 0usize..40, 1 => 200usize..600, 1 => 4_000usize..9_000], 0u8..4), 1..500)) {
            let name_of = |n: u16| format!("{n}").repeat(if n.is_multiple_of(40) { 150 } else { 1 }).into_bytes();
            let (mut dense, mut stable) = (Table::default(), Table::default());
            let mut model = IndexMap::new();
            for (name, length, what) in ops {
                let name = name_of(name);
                if what == 0 {
                    let there = model.swap_remove(&name).is_some();
                    prop_assert_eq!(dense.swap_remove(&name), there);
                    prop_assert_eq!(stable.remove(&name), there);
                } else {
                    let value = vec![what; length];
                    let known = stable.find(&name);
                    let (number, new) = stable.set(&name, &value);
                    prop_assert!(known.is_none_or(|known| known == number));
                    prop_assert_eq!(dense.set(&name, &value).1, new);
                    prop_assert_eq!(model.insert(name, value).is_none(), new);
                }
            }
            check(&dense, &model);
            check(&stable, &model);
            prop_assert!(dense.iter().eq(model.iter().map(|(name, value)| (&name[..], &value[..]))));
            if let Some(first) = model.keys().next().cloned() {
                prop_assert!(dense.shift_remove(&first) && !dense.shift_remove(&first));
                model.shift_remove(&first);
                check(&dense, &model);
                prop_assert!(dense.iter().eq(model.iter().map(|(name, value)| (&name[..], &value[..]))));
            }
        }
    }

    #[test]
    fn a_table_of_many_costs_little_more_than_they_do() {
        let mut table = Table::default();
        for n in 0..100_000 {
            table.set(format!("field:{n:010}").as_bytes(), &[7; 32]);
        }
        assert!(table.memory() <= 100_000 * 72, "{}", table.memory());
        for n in 0..100_000 {
            assert!(table.remove(format!("field:{n:010}").as_bytes()));
        }
        assert_eq!((table.len(), table.heap), (0, 0));
    }
}
