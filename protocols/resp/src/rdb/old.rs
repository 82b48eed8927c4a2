//! Packed forms that are read and, but for sets of integers, not written any more.

/// A ziplist's strings, at most `most`; integers as texts.
///
/// ```text
/// bytes u32 │ last u32 │ elements u16 │ element … │ ff
/// element    size of the one before: u8, or fe and u32
///            00nnnnnn | 01nnnnnn n | 80 n n n n (high byte first)     a string of n bytes
///            c0 d0 e0 f0 fe                                            an integer of 2, 4, 8, 3 or 1 bytes
///            f1 … fd                                                   0 … 12
/// ```
pub(super) fn ziplist(bytes: &[u8], most: usize) -> Option<Vec<Vec<u8>>> {
    let (size, rest) = bytes.split_first_chunk::<4>()?;
    let (last, rest) = rest.split_first_chunk::<4>()?;
    let (count, mut rest) = rest.split_first_chunk::<2>()?;
    if usize::try_from(u32::from_le_bytes(*size)).ok()? != bytes.len() {
        return None;
    }
    let last = usize::try_from(u32::from_le_bytes(*last)).ok()?;
    let count = u16::from_le_bytes(*count);
    let mut all = Vec::new();
    let (mut before, mut start) = (0, bytes.len() - rest.len());
    loop {
        let at = bytes.len() - rest.len();
        let (&first, behind) = rest.split_first()?;
        let said = match first {
            0xff => {
                let right = behind.is_empty()
                    && (count == u16::MAX || usize::from(count) == all.len())
                    && last == start;
                return right.then_some(all);
            }
            0xfe => {
                let (said, behind) = behind.split_first_chunk::<4>()?;
                rest = behind;
                usize::try_from(u32::from_le_bytes(*said)).ok()?
            }
            said => {
                rest = behind;
                usize::from(said)
            }
        };
        if said != before || all.len() >= most {
            return None;
        }
        let (text, size) = element(rest)?;
        all.push(text);
        rest = rest.get(size..)?;
        start = at;
        before = bytes.len() - rest.len() - at;
    }
}

/// The element in front, without the size of the one before, and how many bytes it takes.
fn element(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (&first, rest) = bytes.split_first()?;
    let string = |head: usize, length: usize| {
        let text = bytes.get(head..head.checked_add(length)?)?;
        Some((text.to_vec(), head + length))
    };
    let number = |value: i64, size: usize| {
        let text = itoa::Buffer::new().format(value).as_bytes().to_vec();
        Some((text, size))
    };
    match first {
        0..=0x3f => string(1, usize::from(first)),
        0x40..=0x7f => string(
            2,
            usize::from(first & 63) << 8 | usize::from(*rest.first()?),
        ),
        0x80 => {
            let length = u32::from_be_bytes(*rest.first_chunk()?);
            string(5, usize::try_from(length).ok()?)
        }
        0xc0 => number(i64::from(i16::from_le_bytes(*rest.first_chunk()?)), 3),
        0xd0 => number(i64::from(i32::from_le_bytes(*rest.first_chunk()?)), 5),
        0xe0 => number(i64::from_le_bytes(*rest.first_chunk()?), 9),
        0xf0 => {
            let [a, b, c] = *rest.first_chunk()?;
            number(i64::from(i32::from_le_bytes([0, a, b, c]) >> 8), 4)
        }
        0xfe => number(i64::from(i8::from_le_bytes(*rest.first_chunk()?)), 2),
        0xf1..=0xfd => number(i64::from(first & 15) - 1, 1),
        _ => None,
    }
}

/// A set of integers, in order: their width and their number (u32 each), then they.
pub(super) fn intset(bytes: &[u8], most: usize) -> Option<Vec<Vec<u8>>> {
    let (width, rest) = bytes.split_first_chunk::<4>()?;
    let (count, rest) = rest.split_first_chunk::<4>()?;
    let width = usize::try_from(u32::from_le_bytes(*width)).ok()?;
    let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
    if count > most || !matches!(width, 2 | 4 | 8) || count.checked_mul(width)? != rest.len() {
        return None;
    }
    let mut all = Vec::with_capacity(count);
    let mut before = None;
    for bytes in rest.chunks_exact(width) {
        let mut wide = [if bytes.last()? & 0x80 == 0 { 0 } else { 0xff }; 8];
        wide.get_mut(..width)?.copy_from_slice(bytes);
        let value = i64::from_le_bytes(wide);
        if before.is_some_and(|before| before >= value) {
            return None;
        }
        before = Some(value);
        all.push(itoa::Buffer::new().format(value).as_bytes().to_vec());
    }
    Some(all)
}

/// The bytes of a set of integers, which must be in order.
pub(super) fn write_intset(values: &[i64]) -> Vec<u8> {
    let fits = |bits: u32| {
        let (min, max) = (-1i64 << (bits - 1), (1i64 << (bits - 1)) - 1);
        values.iter().all(|value| (min..=max).contains(value))
    };
    let width = if fits(16) {
        2
    } else if fits(32) {
        4
    } else {
        8
    };
    let mut bytes = Vec::with_capacity(8 + values.len() * width);
    bytes.extend_from_slice(&(width as u32).to_le_bytes());
    bytes.extend_from_slice(&(values.len() as u32).to_le_bytes());
    for value in values {
        bytes.extend(value.to_le_bytes().into_iter().take(width));
    }
    bytes
}

/// The strings of a zipmap, fields and values by turns: a count, then for each its length (u8, or fe and u32) and bytes; a
/// value has in front of its bytes how many unused ones follow them.
pub(super) fn zipmap(bytes: &[u8], most: usize) -> Option<Vec<Vec<u8>>> {
    let (_, mut rest) = bytes.split_first()?;
    let mut all = Vec::new();
    loop {
        let (&first, behind) = rest.split_first()?;
        let (length, behind) = match first {
            0xff => {
                return (behind.is_empty() && all.len().is_multiple_of(2)).then_some(all);
            }
            0xfe => {
                let (length, behind) = behind.split_first_chunk::<4>()?;
                (usize::try_from(u32::from_le_bytes(*length)).ok()?, behind)
            }
            length => (usize::from(length), behind),
        };
        let (unused, behind) = if all.len().is_multiple_of(2) {
            (0, behind)
        } else {
            let (&unused, behind) = behind.split_first()?;
            (usize::from(unused), behind)
        };
        let (text, behind) = behind.split_at_checked(length)?;
        if all.len() >= most {
            return None;
        }
        all.push(text.to_vec());
        rest = behind.get(unused..)?;
    }
}
