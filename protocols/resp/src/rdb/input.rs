//! The parts of which RDB values are made: lengths, strings, doubles.

use crate::number;

/// Bytes that strings may take when they are unpacked, all together: a command changes no more at once.
const UNPACKED_MAX: usize = 1 << 30;
/// What a string costs besides its bytes: a payload of empty ones must not become many times as large.
const EACH: usize = 32;

/// What is left to read.
#[derive(Debug)]
pub(super) struct Input<'a> {
    bytes: &'a [u8],
    /// How much may still be unpacked.
    room: usize,
    /// It was not enough.
    exhausted: bool,
}

/// A length, or how a string is packed.
enum Length {
    Plain(u64),
    Special(u8),
}

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            room: UNPACKED_MAX,
            exhausted: false,
        }
    }

    /// The same with less room.
    pub(super) fn with_room(bytes: &'a [u8], room: usize) -> Self {
        Self {
            room: room.min(UNPACKED_MAX),
            ..Self::new(bytes)
        }
    }

    /// More was to be unpacked than there was room for.
    pub(super) fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    /// So much more is unpacked.
    pub(super) fn spend(&mut self, bytes: usize) -> Option<()> {
        let left = self.room.checked_sub(bytes);
        self.exhausted |= left.is_none();
        self.room = left?;
        Some(())
    }

    /// A string that packs others, of which `read` reads at most so many.
    pub(super) fn strings(
        &mut self,
        read: impl Fn(&[u8], usize) -> Option<Vec<Vec<u8>>>,
    ) -> Option<Vec<Vec<u8>>> {
        let packed = self.string()?;
        let all = read(&packed, self.room / EACH)?;
        self.spend(all.len() * EACH)?;
        Some(all)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*byte)
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.bytes.split_first_chunk::<N>()?;
        self.bytes = rest;
        Some(*taken)
    }

    fn any_length(&mut self) -> Option<Length> {
        let first = self.byte()?;
        Some(match first >> 6 {
            0 => Length::Plain(u64::from(first & 63)),
            1 => Length::Plain(u64::from(first & 63) << 8 | u64::from(self.byte()?)),
            2 if first == 0x80 => Length::Plain(u64::from(u32::from_be_bytes(self.array()?))),
            2 if first == 0x81 => Length::Plain(u64::from_be_bytes(self.array()?)),
            3 => Length::Special(first & 63),
            _ => return None,
        })
    }

    /// A count, or a number that is kept as one.
    pub(super) fn length(&mut self) -> Option<u64> {
        match self.any_length()? {
            Length::Plain(length) => Some(length),
            Length::Special(_) => None,
        }
    }

    fn size(&mut self) -> Option<usize> {
        usize::try_from(self.length()?).ok()
    }

    pub(super) fn string(&mut self) -> Option<Vec<u8>> {
        let integer = match self.any_length()? {
            Length::Plain(length) => {
                let bytes = self.take(usize::try_from(length).ok()?)?;
                self.spend(bytes.len() + EACH)?;
                return Some(bytes.to_vec());
            }
            Length::Special(0) => i64::from(i8::from_le_bytes(self.array()?)),
            Length::Special(1) => i64::from(i16::from_le_bytes(self.array()?)),
            Length::Special(2) => i64::from(i32::from_le_bytes(self.array()?)),
            Length::Special(3) => {
                let (packed, length) = (self.size()?, self.size()?);
                self.spend(length.checked_add(EACH)?)?;
                return lzf(self.take(packed)?, length);
            }
            Length::Special(_) => return None,
        };
        self.spend(EACH)?;
        Some(itoa::Buffer::new().format(integer).as_bytes().to_vec())
    }

    pub(super) fn long(&mut self) -> Option<i64> {
        Some(i64::from_le_bytes(self.array()?))
    }

    pub(super) fn double(&mut self) -> Option<f64> {
        Some(f64::from_le_bytes(self.array()?))
    }

    /// A double as text with its length in front, which also names what is no number.
    pub(super) fn text_double(&mut self) -> Option<f64> {
        match self.byte()? {
            255 => Some(f64::NEG_INFINITY),
            254 => Some(f64::INFINITY),
            253 => None,
            length => double(self.take(usize::from(length))?),
        }
    }
}

/// A score as text.
pub(super) fn double(text: &[u8]) -> Option<f64> {
    number::parse_f64(text)
}

/// What LZF packed: literal runs, and copies of what was before.
fn lzf(mut packed: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut take = || {
        let (byte, rest) = packed.split_first()?;
        packed = rest;
        Some(usize::from(*byte))
    };
    // A byte of what is packed makes at most 88.
    let mut out: Vec<u8> = Vec::new();
    while let Some(control) = take() {
        if control < 32 {
            for _ in 0..=control {
                out.push(take()? as u8);
            }
        } else {
            let mut copied = control >> 5;
            if copied == 7 {
                copied += take()?;
            }
            let back = ((control & 31) << 8 | take()?) + 1;
            let from = out.len().checked_sub(back)?;
            for place in from..from + copied + 2 {
                out.push(*out.get(place)?);
            }
        }
        if out.len() > length {
            return None;
        }
    }
    (out.len() == length).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lzf_copies_what_it_is_just_writing() {
        // "ab", then 2 + 7 + 3 bytes from two back.
        assert_eq!(
            lzf(&[1, b'a', b'b', 0xe0, 3, 1], 14).as_deref(),
            Some(&b"abababababababab"[..14])
        );
        for (bad, length) in [
            (&[1, b'a'][..], 2),
            (&[0, b'a', 0x20, 1], 4),
            (&[0, b'a', 0x20, 0], 3),
            (&[0xe0], 9),
        ] {
            assert_eq!(lzf(bad, length), None, "{bad:?}");
        }
    }

    #[test]
    fn lengths_and_integers() {
        let read = |bytes: &[u8]| Input::new(bytes).length();
        assert_eq!(read(&[5]), Some(5));
        assert_eq!(read(&[0x41, 2]), Some(258));
        assert_eq!(read(&[0x80, 0, 0, 1, 0]), Some(256));
        assert_eq!(read(&[0x81, 0, 0, 0, 1, 0, 0, 0, 0]), Some(1 << 32));
        for bad in [&[][..], &[0x41], &[0x82, 0, 0, 0, 0], &[0xc0, 1]] {
            assert_eq!(read(bad), None);
        }
        let text = |bytes: &[u8]| Input::new(bytes).string();
        assert_eq!(text(&[0xc0, 0xff]).as_deref(), Some(&b"-1"[..]));
        assert_eq!(text(&[0xc1, 0, 1]).as_deref(), Some(&b"256"[..]));
        assert_eq!(text(&[3, b'a', b'b']), None);
    }
}
