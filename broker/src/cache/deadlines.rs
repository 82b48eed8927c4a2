//! Which keys have a deadline, soonest first.
//!
//! ```text
//! lower bound ──▶ piece: [deadline number][deadline number]…   sorted, 12 bytes each, at most 512
//! ```
//! A B-tree of the standard library keeps eleven entries of 16 bytes a node, half of them empty after deadlines that only
//! grow: 34 bytes per key (measured). Here a piece that overflows at its end stays full.

use std::collections::BTreeMap;

/// Most entries of a piece: moving half of them takes about as long as a cache miss or two.
const PIECE: usize = 512;
/// What a deadline costs, about: most pieces are nearly full.
pub(super) const DEADLINE_BYTES: i64 = 14;
/// A piece's array grows by so many entries.
const STEP: usize = 64;

/// A key's number with its deadline, which is split so that an entry takes 12 bytes instead of 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    high: u32,
    low: u32,
    number: u32,
}

const _: () = assert!(size_of::<Entry>() == 12);

impl Entry {
    /// Before all others.
    const FIRST: Self = Self {
        high: 0,
        low: 0,
        number: 0,
    };

    fn new(at_ms: u64, number: u32) -> Self {
        Self {
            high: (at_ms >> 32) as u32,
            low: at_ms as u32,
            number,
        }
    }

    fn at_ms(self) -> u64 {
        u64::from(self.high) << 32 | u64::from(self.low)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// By an entry that none of the piece is before; the first one's is [`Entry::FIRST`]. Only the first may be empty.
    pieces: BTreeMap<Entry, Vec<Entry>>,
    len: usize,
}

impl Deadlines {
    /// Keys that have a deadline.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The soonest deadline, in ms since the epoch, and whose it is.
    pub(super) fn first(&self) -> Option<(u64, u32)> {
        let first = self.pieces.values().find_map(|piece| piece.first())?;
        Some((first.at_ms(), first.number))
    }

    /// Whose they are, soonest first, without so many at the beginning.
    pub(super) fn iter_from(&self, mut skipped: usize) -> impl Iterator<Item = u32> {
        let pieces = self.pieces.values().filter_map(move |piece| {
            let rest = piece.get(skipped..);
            skipped = skipped.saturating_sub(piece.len());
            rest
        });
        pieces.flatten().map(|entry| entry.number)
    }

    /// Whose the deadline is that so many others are before.
    pub(super) fn nth(&self, mut place: u64) -> Option<u32> {
        for piece in self.pieces.values() {
            let len = piece.len() as u64;
            if place < len {
                return piece
                    .get(usize::try_from(place).ok()?)
                    .map(|entry| entry.number);
            }
            place -= len;
        }
        None
    }

    /// Adds one that is not in it.
    pub(super) fn insert(&mut self, at_ms: u64, number: u32) {
        let entry = Entry::new(at_ms, number);
        self.len += 1;
        let Some((_, piece)) = self.pieces.range_mut(..=entry).next_back() else {
            self.pieces.insert(Entry::FIRST, vec![entry]);
            return;
        };
        let place = piece.partition_point(|other| *other < entry);
        if piece.len() < PIECE {
            put(piece, place, entry);
        } else if place == piece.len() {
            self.pieces.insert(entry, vec![entry]);
        } else {
            let mut upper = piece.split_off(PIECE / 2);
            if place <= PIECE / 2 {
                piece.insert(place, entry);
            } else {
                put(&mut upper, place - PIECE / 2, entry);
            }
            if let Some(&first) = upper.first() {
                self.pieces.insert(first, upper);
            }
        }
    }

    /// Takes one out that is in it.
    pub(super) fn remove(&mut self, at_ms: u64, number: u32) {
        let entry = Entry::new(at_ms, number);
        let mut near = self.pieces.range_mut(..=entry);
        let Some((&bound, piece)) = near.next_back() else {
            return;
        };
        let Ok(place) = piece.binary_search(&entry) else {
            return;
        };
        piece.remove(place);
        self.len -= 1;
        if self.len == 0 {
            // The first one, too, which may have been empty before.
            self.pieces.clear();
        } else if piece.is_empty() && bound != Entry::FIRST {
            self.pieces.remove(&bound);
        } else if piece.len() <= PIECE / 4 {
            // What is left goes to the piece before it, if there is room for as much again.
            match near.next_back() {
                Some((_, before)) if before.len() + piece.len() <= PIECE / 2 => {
                    before.reserve_exact(piece.len());
                    before.append(piece);
                    self.pieces.remove(&bound);
                }
                _ if piece.capacity() > piece.len() + 2 * STEP => {
                    piece.shrink_to(piece.len() + STEP);
                }
                _ => {}
            }
        }
    }
}

/// Inserts, the array growing by little.
fn put(piece: &mut Vec<Entry>, place: usize, entry: Entry) {
    if piece.len() == piece.capacity() {
        piece.reserve_exact(STEP);
    }
    piece.insert(place, entry);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Bytes of the pieces' arrays.
    fn weighed(deadlines: &Deadlines) -> usize {
        let cells: usize = deadlines.pieces.values().map(Vec::capacity).sum();
        cells * size_of::<Entry>()
    }

    #[test]
    fn growing_deadlines_take_little_more_than_their_entries() {
        let mut deadlines = Deadlines::default();
        for number in 0..100_000 {
            deadlines.insert(1_700_000_000_000 + u64::from(number / 7), number);
        }
        assert!(
            weighed(&deadlines) < 100_000 * 13,
            "{}",
            weighed(&deadlines)
        );
    }

    #[test]
    fn a_few_left_of_many_take_little() {
        let mut deadlines = Deadlines::default();
        (0..100_000).for_each(|number| deadlines.insert(5 << 32, number));
        (0..100_000)
            .filter(|number| number % 100 != 0)
            .for_each(|number| deadlines.remove(5 << 32, number));
        assert_eq!(deadlines.len(), 1000);
        assert!(weighed(&deadlines) < 1000 * 40, "{}", weighed(&deadlines));
    }

    proptest! {
        /// Compared with a sorted set, with deadlines near each other and far apart.
        #[test]
        fn the_soonest_comes_first(ops in prop::collection::vec((0..3_u8, 0..4_u64, 0..200_u64, 0..3000_u32), 0..6000)) {
            let (mut deadlines, mut model) = (Deadlines::default(), BTreeSet::new());
            for (op, high, low, number) in ops {
                let at = (high << 31) + low;
                if op < 2 {
                    if model.insert((at, number)) {
                        deadlines.insert(at, number);
                    }
                } else if let Some(&(at, number)) = model.range((at, number)..).next() {
                    model.remove(&(at, number));
                    deadlines.remove(at, number);
                }
                prop_assert_eq!(deadlines.first(), model.first().copied());
            }
            prop_assert_eq!(deadlines.len(), model.len());
            while let Some((at, number)) = deadlines.first() {
                prop_assert_eq!(Some((at, number)), model.pop_first());
                deadlines.remove(at, number);
            }
            prop_assert_eq!((deadlines.len(), model.len(), deadlines.pieces.len()), (0, 0, 0));
        }
    }
}
