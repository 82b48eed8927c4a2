//! Listpacks: strings and integers one behind the other, each with its length behind it as well.
//!
//! ```text
//! bytes u32 │ elements u16 │ element … │ ff
//! element    0nnnnnnn            an integer from 0 to 127
//!            10nnnnnn            a string of up to 63 bytes                   then its bytes
//!            110nnnnn n          an integer of 13 bits
//!            1110nnnn n          a string of up to 4,095 bytes
//!            f0 n n n n          a longer one
//!            f1 f2 f3 f4         an integer of 2, 3, 4 or 8 bytes follows
//!            then the length of all that, seven bits a byte, the highest first; all bytes but the first have the top bit set
//! ```

/// Of bytes and elements.
const HEAD: usize = 6;
const END: u8 = 0xff;
/// In place of the number of elements: there are more.
const UNKNOWN: u16 = u16::MAX;

/// A number that fits a listpack's integers.
fn integer(text: &[u8]) -> Option<i64> {
    crate::number::parse_i64(text)
}

/// All elements, at most `most`; integers as texts.
pub(super) fn read(bytes: &[u8], most: usize) -> Option<Vec<Vec<u8>>> {
    let (size, rest) = bytes.split_first_chunk::<4>()?;
    let (count, _) = rest.split_first_chunk::<2>()?;
    if usize::try_from(u32::from_le_bytes(*size)).ok()? != bytes.len() {
        return None;
    }
    let count = u16::from_le_bytes(*count);
    let mut all = Vec::new();
    let (mut at, mut back) = (HEAD, Vec::new());
    while *bytes.get(at)? != END {
        if all.len() >= most {
            return None;
        }
        let (element, size) = element(bytes.get(at..)?)?;
        at += size;
        back.clear();
        length_behind(size, &mut back);
        if bytes.get(at..at + back.len())? != back {
            return None;
        }
        at += back.len();
        all.push(element);
    }
    let right = at + 1 == bytes.len() && (count == UNKNOWN || usize::from(count) == all.len());
    right.then_some(all)
}

/// The element in front, and how many bytes it takes without the length behind it.
fn element(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (&first, rest) = bytes.split_first()?;
    let low = |bits: u8| usize::from(first & ((1 << bits) - 1));
    let string = |head: usize, length: usize| {
        let text = bytes.get(head..head.checked_add(length)?)?;
        Some((text.to_vec(), head + length))
    };
    let number = |value: i64, size: usize| {
        let text = itoa::Buffer::new().format(value).as_bytes().to_vec();
        Some((text, size))
    };
    match first {
        0..=0x7f => number(i64::from(first), 1),
        0x80..=0xbf => string(1, low(6)),
        0xc0..=0xdf => {
            let value = (low(5) << 8 | usize::from(*rest.first()?)) as i64;
            number(
                if value < 1 << 12 {
                    value
                } else {
                    value - (1 << 13)
                },
                2,
            )
        }
        0xe0..=0xef => string(2, low(4) << 8 | usize::from(*rest.first()?)),
        0xf0 => {
            let length = u32::from_le_bytes(*rest.first_chunk()?);
            string(5, usize::try_from(length).ok()?)
        }
        0xf1 => number(i64::from(i16::from_le_bytes(*rest.first_chunk()?)), 3),
        0xf2 => {
            let [a, b, c] = *rest.first_chunk()?;
            number(i64::from(i32::from_le_bytes([0, a, b, c]) >> 8), 4)
        }
        0xf3 => number(i64::from(i32::from_le_bytes(*rest.first_chunk()?)), 5),
        0xf4 => number(i64::from_le_bytes(*rest.first_chunk()?), 9),
        0xf5..=0xff => None,
    }
}

/// Writes the length that stands behind an element.
fn length_behind(size: usize, into: &mut Vec<u8>) {
    // The last number of each width takes a byte more than it must, in every program that reads this.
    let bytes = match size {
        0..=127 => 1,
        128..=16_382 => 2,
        16_383..=2_097_150 => 3,
        2_097_151..=268_435_454 => 4,
        _ => 5,
    };
    for place in (0..bytes).rev() {
        let seven = (size >> (7 * place)) as u8 & 127;
        into.push(if place + 1 == bytes {
            seven
        } else {
            seven | 128
        });
    }
}

/// A listpack in the making.
#[derive(Debug)]
pub(super) struct Listpack {
    bytes: Vec<u8>,
    count: usize,
}

impl Listpack {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; HEAD],
            count: 0,
        }
    }

    /// Bytes so far, with the one at the end.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() + 1
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a string, as an integer if it is one.
    pub(super) fn push(&mut self, text: &[u8]) {
        match integer(text) {
            Some(value) => self.push_integer(value),
            None => {
                let length = text.len();
                // A string is at most 512 MiB.
                let mut head = match length {
                    0..=63 => vec![0x80 | length as u8],
                    64..=4095 => vec![0xe0 | (length >> 8) as u8, length as u8],
                    _ => [&[0xf0], &(length as u32).to_le_bytes()[..]].concat(),
                };
                head.extend_from_slice(text);
                self.add(&head);
            }
        }
    }

    pub(super) fn push_integer(&mut self, value: i64) {
        let bytes = value.to_le_bytes();
        let [a, b, c, d, ..] = bytes;
        match value {
            0..=127 => self.add(&[a]),
            -4096..=4095 => self.add(&[0xc0 | b & 0x1f, a]),
            -0x8000..=0x7fff => self.add(&[0xf1, a, b]),
            -0x80_0000..=0x7f_ffff => self.add(&[0xf2, a, b, c]),
            -0x8000_0000..=0x7fff_ffff => self.add(&[0xf3, a, b, c, d]),
            _ => self.add(&[&[0xf4], &bytes[..]].concat()),
        }
    }

    fn add(&mut self, element: &[u8]) {
        self.bytes.extend_from_slice(element);
        length_behind(element.len(), &mut self.bytes);
        self.count += 1;
    }

    /// Adds the elements of another one.
    pub(super) fn append(&mut self, other: Self) {
        self.bytes
            .extend_from_slice(other.bytes.get(HEAD..).unwrap_or_default());
        self.count += other.count;
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.push(END);
        // Whoever fills one ends it long before 4 GiB.
        let size = self.bytes.len() as u32;
        let count = u16::try_from(self.count).unwrap_or(UNKNOWN);
        if let Some(head) = self.bytes.first_chunk_mut::<HEAD>() {
            let [a, b, c, d] = size.to_le_bytes();
            let [e, f] = count.to_le_bytes();
            *head = [a, b, c, d, e, f];
        }
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_bytes() {
        let mut pack = Listpack::new();
        for text in ["a", "1", "-1", "1000", "70000"] {
            pack.push(text.as_bytes());
        }
        let bytes = pack.finish();
        assert_eq!(
            bytes.escape_ascii().to_string(),
            r"\x17\x00\x00\x00\x05\x00\x81a\x02\x01\x01\xdf\xff\x02\xc3\xe8\x02\xf2p\x11\x01\x04\xff"
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..50),
            numbers in prop::collection::vec(any::<i64>(), 0..50),
            shift in 0u32..64,
            long in prop_oneof![Just(4095usize), Just(4096), Just(16_380), Just(16_381), Just(16_382), Just(2_097_140)],
        ) {
            let mut pack = Listpack::new();
            let mut all: Vec<Vec<u8>> = texts;
            all.extend(numbers.iter().map(|n| (n >> shift).to_string().into_bytes()));
            all.push(vec![b'x'; long]);
            all.iter().for_each(|text| pack.push(text));
            prop_assert_eq!(read(&pack.finish(), all.len()), Some(all));
        }
    }
}
