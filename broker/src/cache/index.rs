//! From a key's hash to its entry's number: flat arrays, so that a lookup touches one cache line before the entry.
//!
//! ```text
//! hash ── top bits ──▶ segment ── next bits ──▶ home cell, then the cells behind it: [hash number][hash number][free]…
//! ```
//! Linear probing; a removal moves what follows back, so that no marker of a removed cell slows later lookups. There is one
//! segment while there are few keys, then [`SEGMENTS`] of them, and each grows alone and by a quarter or less: so about two
//! thirds of the cells or more are in use, and no command pays for copying the whole index, nor memory for having it twice.

/// No entry has this number.
const FREE: u32 = u32::MAX;
/// Cells of the first array.
const FIRST: usize = 4;
/// A single segment of so many cells is taken apart when it must grow.
const SPLIT_AT: usize = 4096;
/// A power of two.
const SEGMENTS: usize = 64;
const SEGMENT_BITS: u32 = SEGMENTS.trailing_zeros();

/// Hash and number of every entry.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    /// None at first, one, or [`SEGMENTS`].
    segments: Vec<Segment>,
    len: usize,
}

#[derive(Debug, Clone, Default)]
struct Segment {
    /// At most four fifths of them in use.
    cells: Vec<(u32, u32)>,
    len: usize,
}

/// Hashes are spread again: whoever made them may have favoured some bits.
#[inline]
fn spread(hash: u32) -> u32 {
    (u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

impl Index {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Which segment, and the bits that choose the cell in it.
    #[inline]
    fn segment(&self, hash: u32) -> (usize, u32) {
        let spread = spread(hash);
        if self.segments.len() > 1 {
            (
                (spread >> (u32::BITS - SEGMENT_BITS)) as usize,
                spread << SEGMENT_BITS,
            )
        } else {
            (0, spread)
        }
    }

    /// The number of the entry with this hash that `is_it` recognises.
    #[inline]
    pub(super) fn find(&self, hash: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let (segment, bits) = self.segment(hash);
        self.segments.get(segment)?.find(hash, bits, is_it)
    }

    /// Adds an entry that is not in it yet.
    pub(super) fn insert(&mut self, hash: u32, number: u32) {
        if self.segments.is_empty() {
            self.segments.push(Segment::default());
        }
        if let [only] = &mut self.segments[..]
            && only.is_full()
            && only.cells.len() >= SPLIT_AT
        {
            self.split();
        }
        self.len += 1;
        let (segment, bits) = self.segment(hash);
        let segments = self.segments.len();
        if let Some(segment) = self.segments.get_mut(segment) {
            segment.insert(hash, number, bits, segments);
        }
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, hash: u32, number: u32) {
        let (segment, bits) = self.segment(hash);
        let segments = self.segments.len();
        if let Some(segment) = self.segments.get_mut(segment)
            && segment.remove(number, bits, segments)
        {
            self.len -= 1;
        }
    }

    /// An entry has another number from now on.
    pub(super) fn renumber(&mut self, hash: u32, from: u32, to: u32) {
        let (segment, bits) = self.segment(hash);
        if let Some(segment) = self.segments.get_mut(segment)
            && let Some(at) = segment.cell_of(from, bits)
            && let Some(cell) = segment.cells.get_mut(at)
        {
            cell.1 = to;
        }
    }

    #[cold]
    fn split(&mut self) {
        let old = std::mem::take(&mut self.segments);
        self.segments.resize_with(SEGMENTS, Segment::default);
        for (hash, number) in old.into_iter().flat_map(|segment| segment.cells) {
            if number != FREE {
                let (segment, bits) = self.segment(hash);
                self.segments[segment].insert(hash, number, bits, SEGMENTS);
            }
        }
    }
}

/// The bits that choose a cell, when there are so many segments.
#[inline]
fn bits_of(hash: u32, segments: usize) -> u32 {
    if segments > 1 {
        spread(hash) << SEGMENT_BITS
    } else {
        spread(hash)
    }
}

impl Segment {
    #[inline]
    fn find(&self, hash: u32, bits: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let mut at = self.home(bits);
        // Ends: a fifth of the cells is free. Without cells there is nothing to look at.
        while let Some(&(other, number)) = self.cells.get(at) {
            if number == FREE {
                return None;
            }
            if other == hash && is_it(number) {
                return Some(number);
            }
            at = self.after(at);
        }
        None
    }

    #[inline]
    fn is_full(&self) -> bool {
        (self.len + 1) * 5 > self.cells.len() * 4
    }

    fn insert(&mut self, hash: u32, number: u32, bits: u32, segments: usize) {
        if self.is_full() {
            self.grow(segments);
        }
        self.place(hash, number, bits);
        self.len += 1;
    }

    fn cell_of(&self, number: u32, bits: u32) -> Option<usize> {
        let mut at = self.home(bits);
        loop {
            match self.cells.get(at) {
                None | Some(&(_, FREE)) => return None,
                Some(&(_, other)) if other == number => return Some(at),
                Some(_) => at = self.after(at),
            }
        }
    }

    fn remove(&mut self, number: u32, bits: u32, segments: usize) -> bool {
        let Some(mut hole) = self.cell_of(number, bits) else {
            return false;
        };
        self.len -= 1;
        // Whatever would not be found behind the hole any more moves into it, and leaves the next hole.
        let mut at = hole;
        loop {
            at = self.after(at);
            let Some(&(other, moved)) = self.cells.get(at) else {
                break;
            };
            if moved == FREE {
                break;
            }
            let from_home = self.distance(self.home(bits_of(other, segments)), at);
            if from_home >= self.distance(hole, at) {
                self.cells[hole] = (other, moved);
                hole = at;
            }
        }
        self.cells[hole] = (0, FREE);
        true
    }

    /// Multiply-shift keeps the order of hashes, so that growing fills the new array from front to back.
    #[inline]
    fn home(&self, bits: u32) -> usize {
        ((u64::from(bits) * self.cells.len() as u64) >> 32) as usize
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        if at + 1 < self.cells.len() { at + 1 } else { 0 }
    }

    /// How many steps from one cell to the other.
    #[inline]
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from {
            to - from
        } else {
            to + self.cells.len() - from
        }
    }

    fn place(&mut self, hash: u32, number: u32, bits: u32) {
        let mut at = self.home(bits);
        while let Some(cell) = self.cells.get_mut(at) {
            if cell.1 == FREE {
                *cell = (hash, number);
                return;
            }
            at = self.after(at);
        }
    }

    #[cold]
    fn grow(&mut self, segments: usize) {
        // 4, 5, 6, 7, 8, 10, 12, 14, 16 …: the sizes between which an allocator has no other.
        let old = self.cells.len();
        let size = if old < FIRST {
            FIRST
        } else {
            old + (1 << old.ilog2()) / 4
        };
        let old = std::mem::replace(&mut self.cells, vec![(0, FREE); size]);
        for (hash, number) in old {
            if number != FREE {
                self.place(hash, number, bits_of(hash, segments));
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
        for step in 0..300_000u32 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let number = (state >> 40) as u32 % 30_000;
            // Few hashes, many at the end of the array: runs wrap around.
            let hash_of = |number: u32| {
                if number.is_multiple_of(31) {
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
            if step.is_multiple_of(5) && model.get(&number) == Some(&hash) {
                // Under another number, and back.
                index.renumber(hash, number, 1 << 30);
                assert_eq!(index.find(hash, |n| n == number), None);
                index.renumber(hash, 1 << 30, number);
            }
            let probe = (state >> 20) as u32 % 30_000;
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
