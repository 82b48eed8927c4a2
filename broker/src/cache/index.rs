//! From a key's hash to its entry's number: one flat array, so that a lookup touches one cache line before the entry.
//!
//! Linear probing; a removal moves what follows back, so that no marker of a removed cell slows later lookups.

/// No entry has this number.
const FREE: u32 = u32::MAX;
/// Cells of the first array.
const FIRST: usize = 4;

/// Hash and number of every entry.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// A power of two of them, at most three quarters in use; none at first.
    cells: Vec<(u32, u32)>,
    len: usize,
}

impl Index {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The number of the entry with this hash that `is_it` recognises.
    #[inline]
    pub(super) fn find(&self, hash: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let mut at = self.home(hash);
        // Ends: a quarter of the cells is free. Without cells there is nothing to look at.
        while let Some(&(other, number)) = self.cells.get(at) {
            if number == FREE {
                return None;
            }
            if other == hash && is_it(number) {
                return Some(number);
            }
            at = (at + 1) & (self.cells.len() - 1);
        }
        None
    }

    /// Adds an entry that is not in it yet.
    pub(super) fn insert(&mut self, hash: u32, number: u32) {
        if (self.len + 1) * 4 > self.cells.len() * 3 {
            self.grow();
        }
        self.place(hash, number);
        self.len += 1;
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, hash: u32, number: u32) {
        let mask = self.cells.len().wrapping_sub(1);
        let mut hole = self.home(hash);
        loop {
            match self.cells.get(hole) {
                None | Some(&(_, FREE)) => return,
                Some(&(_, other)) if other == number => break,
                Some(_) => hole = (hole + 1) & mask,
            }
        }
        self.len -= 1;
        // Whatever would not be found behind the hole any more moves into it, and leaves the next hole.
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let Some(&(other, moved)) = self.cells.get(at) else {
                return;
            };
            let from_home = at.wrapping_sub(self.home(other)) & mask;
            let from_hole = at.wrapping_sub(hole) & mask;
            if moved == FREE {
                break;
            }
            if from_home >= from_hole {
                if let Some(cell) = self.cells.get_mut(hole) {
                    *cell = (other, moved);
                }
                hole = at;
            }
        }
        if let Some(cell) = self.cells.get_mut(hole) {
            *cell = (0, FREE);
        }
    }

    /// The upper bits of the spread hash choose the cell.
    #[inline]
    fn home(&self, hash: u32) -> usize {
        let spread = u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        // Multiply-shift keeps the order of hashes, so that growing fills the new array from front to back.
        ((spread * self.cells.len() as u64) >> 32) as usize
    }

    fn place(&mut self, hash: u32, number: u32) {
        let mask = self.cells.len().wrapping_sub(1);
        let mut at = self.home(hash);
        while let Some(cell) = self.cells.get_mut(at) {
            if cell.1 == FREE {
                *cell = (hash, number);
                return;
            }
            at = (at + 1) & mask;
        }
    }

    #[cold]
    fn grow(&mut self) {
        let size = (self.cells.len() * 2).max(FIRST);
        let old = std::mem::replace(&mut self.cells, vec![(0, FREE); size]);
        for (hash, number) in old {
            if number != FREE {
                self.place(hash, number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Index;
    use std::collections::BTreeMap;

    #[test]
    fn agrees_with_a_map() {
        let mut index = Index::default();
        let mut model: BTreeMap<u32, u32> = BTreeMap::new();
        let mut state = 7u64;
        for step in 0..200_000u32 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let number = (state >> 40) as u32 % 3000;
            // Few hashes, many at the end of the array: runs wrap around.
            let hash_of = |number: u32| {
                if number.is_multiple_of(3) {
                    0xffff_ff00 | (number % 7)
                } else {
                    number.wrapping_mul(2_654_435_761)
                }
            };
            let hash = hash_of(number);
            let known = model.contains_key(&number);
            if known && step.is_multiple_of(2) {
                index.remove(hash, number);
                model.remove(&number);
            } else if !known {
                index.insert(hash, number);
                model.insert(number, hash);
            }
            assert_eq!(index.len(), model.len());
            let probe = (state >> 20) as u32 % 3000;
            assert_eq!(
                index.find(hash_of(probe), |n| n == probe).is_some(),
                model.contains_key(&probe)
            );
        }
        for (number, hash) in &model {
            assert_eq!(index.find(*hash, |n| n == *number), Some(*number));
            index.remove(*hash, *number);
        }
        assert_eq!(index.len(), 0);
    }
}
