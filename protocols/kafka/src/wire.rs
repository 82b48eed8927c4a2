//! The primitive types of the protocol: a checked reader over a frame, and writers that append to a `Vec`.

use crate::DecodeError;
use uuid::Uuid;

/// Where a field's bytes lie in its frame. Frames are at most `i32::MAX` bytes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    /// The span's bytes in `frame`; empty when the frame is not the one that it was read from.
    pub fn of<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        frame
            .get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether the span holds no byte.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

/// Reads fields from a frame, never past its end.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    frame: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `frame`.
    pub fn new(frame: &'a [u8]) -> Self {
        Self { frame, at: 0 }
    }

    /// A reader of `frame` that starts `at` bytes in.
    pub fn at(frame: &'a [u8], at: usize) -> Self {
        Self {
            frame,
            at: at.min(frame.len()),
        }
    }

    /// Position in the frame, in bytes.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.frame.len() - self.at
    }

    /// Skips `count` bytes and says where they lie.
    pub fn span(&mut self, count: usize) -> Result<Span, DecodeError> {
        let end = self
            .at
            .checked_add(count)
            .filter(|&end| end <= self.frame.len())
            .ok_or(DecodeError::Truncated)?;
        let span = Span {
            start: u32::try_from(self.at).map_err(|_| DecodeError::Length)?,
            end: u32::try_from(end).map_err(|_| DecodeError::Length)?,
        };
        self.at = end;
        Ok(span)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let bytes = self
            .frame
            .get(self.at..)
            .and_then(|rest| rest.first_chunk::<N>())
            .ok_or(DecodeError::Truncated)?;
        self.at += N;
        Ok(*bytes)
    }

    pub fn i8(&mut self) -> Result<i8, DecodeError> {
        self.array().map(i8::from_be_bytes)
    }

    pub fn i16(&mut self) -> Result<i16, DecodeError> {
        self.array().map(i16::from_be_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_be_bytes)
    }

    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_be_bytes)
    }

    pub fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        self.array().map(Uuid::from_bytes)
    }

    /// Unsigned varint of at most 32 bits.
    pub fn uvarint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0u64;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array::<1>()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| DecodeError::Length);
            }
        }
        Err(DecodeError::Length)
    }

    /// Signed (zigzag) varint of at most 64 bits, as records use it.
    pub fn varlong(&mut self) -> Result<i64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array::<1>()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()));
            }
        }
        Err(DecodeError::Length)
    }

    /// Length of a string (`i16`, or compact), `None` for null.
    fn string_length(&mut self, flexible: bool) -> Result<Option<usize>, DecodeError> {
        if flexible {
            return Ok((self.uvarint()? as usize).checked_sub(1));
        }
        match self.i16()? {
            -1 => Ok(None),
            length => usize::try_from(length)
                .map(Some)
                .map_err(|_| DecodeError::Length),
        }
    }

    /// Length of bytes, or count of an array (`i32`, or compact), `None` for null.
    fn length(&mut self, flexible: bool) -> Result<Option<usize>, DecodeError> {
        if flexible {
            return Ok((self.uvarint()? as usize).checked_sub(1));
        }
        match self.i32()? {
            -1 => Ok(None),
            length => usize::try_from(length)
                .map(Some)
                .map_err(|_| DecodeError::Length),
        }
    }

    /// Nullable string, checked to be UTF-8.
    pub fn nullable_string(&mut self, flexible: bool) -> Result<Option<Span>, DecodeError> {
        let Some(length) = self.string_length(flexible)? else {
            return Ok(None);
        };
        let span = self.span(length)?;
        std::str::from_utf8(span.of(self.frame)).map_err(|_| DecodeError::Utf8)?;
        Ok(Some(span))
    }

    /// String, checked to be UTF-8. Null is an error.
    pub fn string(&mut self, flexible: bool) -> Result<Span, DecodeError> {
        self.nullable_string(flexible)?.ok_or(DecodeError::Length)
    }

    /// Nullable bytes.
    pub fn nullable_bytes(&mut self, flexible: bool) -> Result<Option<Span>, DecodeError> {
        let Some(length) = self.length(flexible)? else {
            return Ok(None);
        };
        self.span(length).map(Some)
    }

    /// Count of an array, `None` for null. A count that cannot fit into what is left (an element has at least one byte) is
    /// an error, so a caller may loop over it.
    pub fn nullable_count(&mut self, flexible: bool) -> Result<Option<usize>, DecodeError> {
        match self.length(flexible)? {
            Some(count) if count > self.remaining() => Err(DecodeError::Truncated),
            count => Ok(count),
        }
    }

    /// Count of an array; null counts as empty.
    pub fn count(&mut self, flexible: bool) -> Result<usize, DecodeError> {
        Ok(self.nullable_count(flexible)?.unwrap_or(0))
    }

    /// Skips the tagged fields behind a structure (none in versions that are not flexible).
    pub fn tags(&mut self, flexible: bool) -> Result<(), DecodeError> {
        if flexible {
            for _ in 0..self.uvarint()? {
                self.uvarint()?;
                let size = self.uvarint()? as usize;
                self.span(size)?;
            }
        }
        Ok(())
    }
}

/// Appends fields to a buffer.
pub trait Write {
    fn put_i8(&mut self, value: i8);
    fn put_i16(&mut self, value: i16);
    fn put_i32(&mut self, value: i32);
    fn put_i64(&mut self, value: i64);
    fn put_uvarint(&mut self, value: u32);
    /// Signed (zigzag) varint, as records use it.
    fn put_varlong(&mut self, value: i64);
    fn put_string(&mut self, value: &str, flexible: bool);
    fn put_nullable_string(&mut self, value: Option<&str>, flexible: bool);
    /// Length of bytes or count of an array.
    fn put_length(&mut self, length: usize, flexible: bool);
    /// An empty set of tagged fields: FlowMesh never writes default values, which old clients mis-skip.
    fn put_no_tags(&mut self, flexible: bool);
}

impl Write for Vec<u8> {
    fn put_i8(&mut self, value: i8) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_i16(&mut self, value: i16) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_i32(&mut self, value: i32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_i64(&mut self, value: i64) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }

    fn put_varlong(&mut self, value: i64) {
        let mut value = ((value << 1) ^ (value >> 63)).cast_unsigned();
        while value >= 0x80 {
            self.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }

    fn put_string(&mut self, value: &str, flexible: bool) {
        // Names and messages of ours: topic names are at most 249 bytes, error texts are cut below.
        let value = if flexible {
            value
        } else {
            cut(value, i16::MAX as usize)
        };
        if flexible {
            self.put_uvarint(u32::try_from(value.len() + 1).unwrap_or(u32::MAX));
        } else {
            self.put_i16(value.len() as i16);
        }
        self.extend_from_slice(value.as_bytes());
    }

    fn put_nullable_string(&mut self, value: Option<&str>, flexible: bool) {
        match value {
            Some(value) => self.put_string(value, flexible),
            None if flexible => self.put_uvarint(0),
            None => self.put_i16(-1),
        }
    }

    fn put_length(&mut self, length: usize, flexible: bool) {
        if flexible {
            self.put_uvarint(u32::try_from(length + 1).unwrap_or(u32::MAX));
        } else {
            self.put_i32(i32::try_from(length).unwrap_or(i32::MAX));
        }
    }

    fn put_no_tags(&mut self, flexible: bool) {
        if flexible {
            self.push(0);
        }
    }
}

/// The longest prefix of at most `limit` bytes that ends at a character.
fn cut(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn varints() {
        let mut out = Vec::new();
        out.put_uvarint(300);
        out.put_varlong(-2);
        out.put_varlong(i64::MIN);
        assert_eq!(out.get(..3), Some(&[0xac, 0x02, 0x03][..]));
        let mut reader = Reader::new(&out);
        assert_eq!(reader.uvarint(), Ok(300));
        assert_eq!(reader.varlong(), Ok(-2));
        assert_eq!(reader.varlong(), Ok(i64::MIN));
        assert_eq!(Reader::new(&[0xff; 12]).uvarint(), Err(DecodeError::Length));
        assert_eq!(Reader::new(&[0xff; 12]).varlong(), Err(DecodeError::Length));
    }

    #[test]
    fn a_count_beyond_the_frame_is_refused() {
        assert_eq!(
            Reader::new(&[0x7f, 0xff, 0xff, 0xff, 0]).count(false),
            Err(DecodeError::Truncated)
        );
        assert_eq!(
            Reader::new(&[0xff, 0xff, 0xff, 0xfe, 0]).count(false),
            Err(DecodeError::Length)
        );
        assert_eq!(
            Reader::new(&[0xff, 0xff, 0xff, 0xff]).nullable_count(false),
            Ok(None)
        );
    }

    proptest! {
        #[test]
        fn varlong_round_trip(value: i64) {
            let mut out = Vec::new();
            out.put_varlong(value);
            prop_assert_eq!(Reader::new(&out).varlong(), Ok(value));
        }

        #[test]
        fn string_round_trip(value in ".{0,40}", flexible: bool) {
            let mut out = Vec::new();
            out.put_string(&value, flexible);
            let mut reader = Reader::new(&out);
            let span = reader.string(flexible).unwrap();
            prop_assert_eq!(span.of(&out), value.as_bytes());
            prop_assert_eq!(reader.remaining(), 0);
        }
    }
}
