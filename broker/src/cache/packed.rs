//! A few byte strings in one allocation, in order: what a collection is while it is small, and the pieces of a long list.
//!
//! ```text
//! [count u16][mark u8] [length][bytes …][length] [length][bytes …][length] …
//! ```
//! The length stands on both sides, so that strings are found from both ends: one byte below 255, else 255 and four bytes
//! (mirrored behind). Looking for a string walks over all before it, which costs less than a hash while they fit a few cache
//! lines; and there is one allocation instead of several per string.

use std::ops::Range;

use super::hash::SMALL_ENTRIES;

/// Count and mark.
const HEAD: usize = 3;
/// Says that four bytes of length follow.
const WIDE: u8 = u8::MAX;

/// Collections that would be larger than this when packed are not, whatever they hold.
const PACKED_MAX: usize = 2048;

/// See the module. Without strings and mark it takes no memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Packed {
    bytes: Box<[u8]>,
}

/// Where a string lies, its lengths included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spot<'a> {
    pub(super) range: Range<usize>,
    pub(super) bytes: &'a [u8],
}

/// What a string takes.
pub(super) fn string_size(length: usize) -> usize {
    length + 2 * length_size(length)
}

fn length_size(length: usize) -> usize {
    if length < usize::from(WIDE) { 1 } else { 5 }
}

impl Packed {
    /// A copy of these strings.
    pub(super) fn of<'a>(strings: impl Iterator<Item = &'a [u8]> + Clone) -> Self {
        let mut packed = Self::default();
        let size: usize = strings
            .clone()
            .map(|string| string_size(string.len()))
            .sum();
        packed.open(HEAD..HEAD, size);
        let mut at = HEAD;
        let mut count = 0;
        for string in strings {
            at = packed.write(at, string);
            count += 1;
        }
        packed.set_count(count);
        packed
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        match *self.bytes {
            [a, b, ..] => usize::from(u16::from_le_bytes([a, b])),
            _ => 0,
        }
    }

    /// Bytes of memory.
    #[inline]
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Would Redis not pack it any more?
    #[inline]
    pub(super) fn is_marked(&self) -> bool {
        self.bytes.get(2).is_some_and(|&mark| mark != 0)
    }

    /// Redis would not pack it any more.
    pub(super) fn mark(&mut self) {
        self.open(HEAD..HEAD, 0);
        if let Some(mark) = self.bytes.get_mut(2) {
            *mark = 1;
        }
    }

    /// To be asked after an element was added, a `long` one or not, to as many as there are now: marks what Redis, which packs
    /// up to `most` elements, would not pack any more; true when we do not, either.
    pub(super) fn has_outgrown(&mut self, long: bool, elements: usize, most: usize) -> bool {
        if (long || elements > most) && !self.is_marked() {
            self.mark();
        }
        elements > SMALL_ENTRIES || self.size() > PACKED_MAX
    }

    /// The strings with their places, in order.
    #[inline]
    pub(super) fn spots(&self) -> Spots<'_> {
        Spots {
            bytes: &self.bytes,
            front: HEAD.min(self.bytes.len()),
            back: self.bytes.len(),
            left: self.len(),
        }
    }

    pub(super) fn iter(
        &self,
    ) -> impl DoubleEndedIterator<Item = &[u8]> + ExactSizeIterator + Clone {
        self.spots().map(|spot| spot.bytes)
    }

    /// Puts strings where `range` is, which holds `removed` of them; an empty range at the end appends.
    pub(super) fn splice(&mut self, range: Range<usize>, removed: usize, strings: &[&[u8]]) {
        let count = self.len() + strings.len() - removed;
        let size = strings.iter().map(|string| string_size(string.len())).sum();
        let mut at = range.start.max(HEAD);
        self.open(at..range.end.max(HEAD), size);
        for string in strings {
            at = self.write(at, string);
        }
        self.set_count(count);
    }

    pub(super) fn push(&mut self, strings: &[&[u8]]) {
        let end = self.bytes.len();
        self.splice(end..end, 0, strings);
    }

    /// Makes the bytes of `range` be `size` bytes, to be written.
    fn open(&mut self, range: Range<usize>, size: usize) {
        if self.bytes.len() >= HEAD && range.len() == size {
            return;
        }
        let mut bytes = std::mem::take(&mut self.bytes).into_vec();
        if bytes.is_empty() {
            bytes.reserve_exact(HEAD + size);
            bytes.resize(HEAD, 0);
        }
        let old = bytes.len();
        match size.checked_sub(range.len()) {
            Some(more) => {
                bytes.reserve_exact(more);
                bytes.resize(old + more, 0);
                bytes.copy_within(range.end..old, range.end + more);
            }
            None => {
                bytes.copy_within(range.end..old, range.start + size);
                bytes.truncate(old - (range.len() - size));
            }
        }
        self.bytes = bytes.into_boxed_slice();
    }

    /// Writes a string with its lengths; where the next one begins.
    fn write(&mut self, at: usize, string: &[u8]) -> usize {
        let length = string.len();
        let narrow = length_size(length) == 1;
        let start = at + length_size(length);
        let end = start + length;
        if narrow {
            self.bytes[at] = length as u8;
            self.bytes[end] = length as u8;
        } else {
            // At most a few thousand bytes long.
            let wide = (length as u32).to_le_bytes();
            self.bytes[at] = WIDE;
            self.bytes[at + 1..start].copy_from_slice(&wide);
            self.bytes[end..end + 4].copy_from_slice(&wide);
            self.bytes[end + 4] = WIDE;
        }
        self.bytes[start..end].copy_from_slice(string);
        end + length_size(length)
    }

    fn set_count(&mut self, count: usize) {
        if let Some(place) = self.bytes.get_mut(..2) {
            // Whoever packs keeps well below 65,536.
            place.copy_from_slice(&(count as u16).to_le_bytes());
        }
    }
}

/// Strings from both ends.
#[derive(Debug, Clone, Default)]
pub(super) struct Spots<'a> {
    bytes: &'a [u8],
    front: usize,
    back: usize,
    left: usize,
}

impl<'a> Iterator for Spots<'a> {
    type Item = Spot<'a>;

    #[inline]
    fn next(&mut self) -> Option<Spot<'a>> {
        if self.left == 0 {
            return None;
        }
        let rest = self.bytes.get(self.front..)?;
        let (length, size) = match rest {
            [WIDE, a, b, c, d, ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, 5),
            [length, ..] => (usize::from(*length), 1),
            [] => return None,
        };
        let end = size + length + size;
        let range = self.front..self.front + end;
        let bytes = rest.get(size..size + length)?;
        self.front = range.end;
        self.left -= 1;
        Some(Spot { range, bytes })
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl DoubleEndedIterator for Spots<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let rest = self.bytes.get(..self.back)?;
        let (length, size) = match rest {
            [.., a, b, c, d, WIDE] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, 5),
            [.., length] => (usize::from(*length), 1),
            [] => return None,
        };
        let start = self.back.checked_sub(size + length + size)?;
        let range = start..self.back;
        let bytes = rest.get(start + size..start + size + length)?;
        self.back = start;
        self.left -= 1;
        Some(Spot { range, bytes })
    }
}

impl ExactSizeIterator for Spots<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn agrees_with_a_vector(ops in prop::collection::vec((any::<u8>(), 0usize..3, prop::collection::vec(prop_oneof![0usize..20, 250usize..260], 0..3)), 1..80)) {
            let mut packed = Packed::default();
            let mut model: Vec<Vec<u8>> = Vec::new();
            for (step, (place, removed, lengths)) in ops.into_iter().enumerate() {
                let place = usize::from(place) % (model.len() + 1);
                let removed = removed.min(model.len() - place);
                let strings: Vec<Vec<u8>> = lengths.into_iter().map(|length| vec![step as u8; length]).collect();
                let spots: Vec<_> = packed.spots().map(|spot| spot.range).collect();
                let start = spots.get(place).map_or(packed.size(), |range| range.start);
                let end = if removed == 0 { start } else { spots[place + removed - 1].end };
                let borrowed: Vec<&[u8]> = strings.iter().map(|string| &**string).collect();
                packed.splice(start..end, removed, &borrowed);
                model.splice(place..place + removed, strings);
                if step == 5 {
                    packed.mark();
                }
                prop_assert_eq!(packed.is_marked(), step >= 5);
                prop_assert_eq!(packed.len(), model.len());
                prop_assert!(packed.iter().eq(model.iter().map(|string| &**string)));
                prop_assert!(packed.iter().rev().eq(model.iter().rev().map(|string| &**string)));
                prop_assert!(Packed::of(model.iter().map(|string| &**string)).iter().eq(packed.iter()));
            }
        }
    }
}
