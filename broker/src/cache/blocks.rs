//! Blocks of bytes of any length, sorted by size, without holes.
//!
//! ```text
//! class 0, 8 bytes    [owner ……][owner ……][owner ……]…[  ]     one array of equal blocks per class, in chunks of up to 14 KiB;
//! class 1, 16 bytes   [owner ……………………][owner …………]…         a block given back is filled with the last one
//! …
//! large               [owner … any length][owner …]          an allocation each
//! ```
//! The first four bytes of a block are its owner's number. Giving a block back moves the last one of its class into the hole,
//! and the caller tells its owner the new place: so memory is what is in use, however keys come and go. Sizes are eight
//! bytes apart (a general allocator's are up to a quarter apart), and a block has no header of an allocator's.

/// Bytes of a block that hold its owner's number.
pub(super) const OWNER: usize = 4;

/// About the size of a chunk of small blocks: small enough that a class with a single block costs little, and the largest that
/// jemalloc does not round up to pages and one more.
const CHUNK: usize = 14 << 10;
/// Blocks in a class's first chunk, at first.
const FIRST_BLOCKS: u32 = 2;
/// Fewest blocks in a chunk.
const CHUNK_BLOCKS: usize = 3;

/// Where the steps between sizes widen.
const FINE: usize = 256;
const MIDDLE: usize = 1024;
const COARSE: usize = 4608;
const FINE_CLASSES: usize = FINE / 8;
const MIDDLE_CLASSES: usize = (MIDDLE - FINE) / 16;
/// The class of blocks with an allocation of their own.
const LARGE: usize = FINE_CLASSES + MIDDLE_CLASSES + (COARSE - MIDDLE) / 32;
/// No class has this number.
pub(super) const NO_CLASS: u8 = u8::MAX;
const _: () = assert!(LARGE < NO_CLASS as usize);

/// Block size and blocks per chunk of each class.
static GEOMETRY: [(u32, u32); LARGE] = {
    let mut geometry = [(0, 0); LARGE];
    let mut class = 0;
    while class < LARGE {
        let size = if class < FINE_CLASSES {
            (class + 1) * 8
        } else if class < FINE_CLASSES + MIDDLE_CLASSES {
            FINE + (class + 1 - FINE_CLASSES) * 16
        } else {
            MIDDLE + (class + 1 - FINE_CLASSES - MIDDLE_CLASSES) * 32
        };
        let blocks = CHUNK / size;
        let blocks = if blocks < CHUNK_BLOCKS {
            CHUNK_BLOCKS
        } else {
            blocks
        };
        geometry[class] = (size as u32, blocks as u32);
        class += 1;
    }
    geometry
};

/// Where a block is, until it is given back or another one of its class is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) class: u8,
    pub(super) at: u32,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Blocks {
    /// Up to the largest that there was a block of.
    classes: Vec<Class>,
}

#[derive(Debug, Clone, Default)]
struct Class {
    chunks: Vec<Box<[u8]>>,
    len: u32,
}

impl Class {
    /// For one more block. The first chunk grows, so that a few blocks cost little.
    #[inline]
    fn make_room(&mut self, size: u32, blocks: u32) {
        let whole = (size * blocks) as usize;
        match (&mut self.chunks[..], (self.len / blocks) as usize) {
            ([], _) => {
                let few = (size * FIRST_BLOCKS.min(blocks)) as usize;
                self.chunks.push(vec![0; few].into());
            }
            ([only], 0) if only.len() <= (self.len * size) as usize => {
                let mut grown = std::mem::take(only).into_vec();
                let length = (2 * grown.len()).min(whole);
                grown.reserve_exact(length - grown.len());
                grown.resize(length, 0);
                *only = grown.into();
            }
            (chunks, next) if next == chunks.len() => self.chunks.push(vec![0; whole].into()),
            _ => {}
        }
    }
}

/// The smallest class whose blocks hold `length` bytes.
#[inline]
pub(super) fn class_of(length: usize) -> u8 {
    let class = if length <= FINE {
        length.saturating_sub(1) / 8
    } else if length <= MIDDLE {
        FINE_CLASSES + (length - FINE - 1) / 16
    } else if length <= COARSE {
        FINE_CLASSES + MIDDLE_CLASSES + (length - MIDDLE - 1) / 32
    } else {
        LARGE
    };
    // At most `LARGE`.
    class as u8
}

/// The bytes that a block of `length` bytes takes.
#[inline]
pub(super) fn size_of_class(class: u8, length: usize) -> usize {
    GEOMETRY
        .get(usize::from(class))
        .map_or(length, |&(size, _)| size as usize)
}

impl Blocks {
    /// A new block of at least `length` bytes, the caller to write all of it.
    pub(super) fn take(&mut self, length: usize) -> Place {
        let number = class_of(length);
        if self.classes.len() <= usize::from(number) {
            self.classes
                .resize_with(usize::from(number) + 1, Class::default);
        }
        let class = &mut self.classes[usize::from(number)];
        let at = class.len;
        match GEOMETRY.get(usize::from(number)) {
            None => class.chunks.push(vec![0; length].into()),
            Some(&(size, blocks)) => class.make_room(size, blocks),
        }
        class.len += 1;
        Place { class: number, at }
    }

    #[inline]
    pub(super) fn get(&self, place: Place) -> Option<&[u8]> {
        let class = self.classes.get(usize::from(place.class))?;
        match GEOMETRY.get(usize::from(place.class)) {
            None => class.chunks.get(place.at as usize).map(|block| &**block),
            Some(&(size, blocks)) => {
                let start = ((place.at % blocks) * size) as usize;
                class
                    .chunks
                    .get((place.at / blocks) as usize)?
                    .get(start..start + size as usize)
            }
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, place: Place) -> Option<&mut [u8]> {
        let class = self.classes.get_mut(usize::from(place.class))?;
        match GEOMETRY.get(usize::from(place.class)) {
            None => class
                .chunks
                .get_mut(place.at as usize)
                .map(|block| &mut **block),
            Some(&(size, blocks)) => {
                let start = ((place.at % blocks) * size) as usize;
                class
                    .chunks
                    .get_mut((place.at / blocks) as usize)?
                    .get_mut(start..start + size as usize)
            }
        }
    }

    /// Gives a block back. The owner of the block that lies at its place now, if one was moved there.
    pub(super) fn give(&mut self, place: Place) -> Option<u32> {
        let class = self.classes.get_mut(usize::from(place.class))?;
        let last = class.len - 1;
        class.len = last;
        let Some(&(size, blocks)) = GEOMETRY.get(usize::from(place.class)) else {
            class.chunks.swap_remove(place.at as usize);
            return (place.at != last).then(|| self.owner(place)).flatten();
        };
        if place.at != last {
            let size = size as usize;
            let split = |at: u32| ((at / blocks) as usize, (at % blocks) as usize * size);
            let ((from, start), (to, hole)) = (split(last), split(place.at));
            if from == to {
                class.chunks[from].copy_within(start..start + size, hole);
            } else if let Ok([from, to]) = class.chunks.get_disjoint_mut([from, to]) {
                to[hole..hole + size].copy_from_slice(&from[start..start + size]);
            }
        }
        // One chunk stays beyond what is in use, or a block that comes and goes at the border would cost a chunk each time.
        if class.chunks.len() > last.div_ceil(blocks) as usize + 1 {
            class.chunks.pop();
        }
        (place.at != last).then(|| self.owner(place)).flatten()
    }

    fn owner(&self, place: Place) -> Option<u32> {
        let (owner, _) = self.get(place)?.split_first_chunk::<OWNER>()?;
        Some(u32::from_le_bytes(*owner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn classes_hold_their_lengths_and_waste_little() {
        let mut last = 0;
        for length in 1..=6000 {
            let class = class_of(length);
            let size = size_of_class(class, length);
            assert!(size >= length && class >= last, "{length}");
            assert!(size - length < 32, "{length} in {size}");
            last = class;
        }
        assert_eq!(usize::from(last), LARGE);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn every_owner_finds_its_bytes(ops in prop::collection::vec((any::<bool>(), any::<u16>(), 4usize..6000), 1..600)) {
            let mut blocks = Blocks::default();
            let mut model: BTreeMap<u32, (Place, Vec<u8>)> = BTreeMap::new();
            let mut next = 0u32;
            for (take, chosen, length) in ops {
                // Mostly a few sizes, so that classes have many blocks.
                let length = if length % 4 == 0 { length } else { 4 + length % 24 };
                if take || model.is_empty() {
                    let place = blocks.take(length);
                    let mut bytes = vec![next as u8; length];
                    bytes[..OWNER].copy_from_slice(&next.to_le_bytes());
                    blocks.get_mut(place).expect("block")[..length].copy_from_slice(&bytes);
                    model.insert(next, (place, bytes));
                    next += 1;
                } else {
                    let number = *model.keys().nth(usize::from(chosen) % model.len()).expect("some");
                    let (place, _) = model.remove(&number).expect("known");
                    if let Some(moved) = blocks.give(place) {
                        model.get_mut(&moved).expect("an owner").0 = place;
                    }
                }
                for (place, bytes) in model.values() {
                    prop_assert_eq!(&blocks.get(*place).expect("block")[..bytes.len()], &bytes[..]);
                }
            }
            for class in &blocks.classes {
                prop_assert!(class.len > 0 || class.chunks.len() <= 1);
            }
        }
    }
}
