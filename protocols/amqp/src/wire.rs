//! Primitive values: a bounded reader, and appending writers. Bits that follow each other share octets (§4.2.5.2).

use crate::error::DecodeError;

/// At most 255 octets. Bytes, not text: routing keys need not be UTF-8.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct ShortStr<'a>(pub &'a [u8]);

/// Length of 32 bits; the octets mean what the field says.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct LongStr<'a>(pub &'a [u8]);

impl std::fmt::Debug for ShortStr<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.0))
    }
}

impl std::fmt::Debug for LongStr<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.0))
    }
}

impl<'a> From<&'a str> for ShortStr<'a> {
    fn from(text: &'a str) -> Self {
        Self(text.as_bytes())
    }
}

impl<'a> From<&'a str> for LongStr<'a> {
    fn from(text: &'a str) -> Self {
        Self(text.as_bytes())
    }
}

/// Reads from one frame's payload; every length is checked against what is there.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    /// Octet in use for bits and how many of its bits are taken.
    bits: (u8, u8),
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            bits: (0, 8),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        self.bits = (0, 8);
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        self.bits = (0, 8);
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(crate) fn short(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u8()?;
        self.take(usize::from(len))
    }

    pub(crate) fn long(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u32()?;
        self.take(usize::try_from(len).map_err(|_| DecodeError::Truncated)?)
    }

    pub(crate) fn bit(&mut self) -> Result<bool, DecodeError> {
        if self.bits.1 == 8 {
            let octet = self.u8()?;
            self.bits = (octet, 0);
        }
        let value = self.bits.0 & (1 << self.bits.1) != 0;
        self.bits.1 += 1;
        Ok(value)
    }
}

/// Appends to the caller's buffer.
#[derive(Debug)]
pub(crate) struct Writer<'b> {
    pub(crate) out: &'b mut Vec<u8>,
    /// How many bits of the last octet are taken; 8 = none open.
    bits: u8,
}

impl<'b> Writer<'b> {
    pub(crate) fn new(out: &'b mut Vec<u8>) -> Self {
        Self { out, bits: 8 }
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.bits = 8;
        self.out.extend_from_slice(bytes);
    }

    /// Cut at 255 octets: our own short strings are shorter, and a peer's came from one.
    pub(crate) fn short(&mut self, bytes: &[u8]) {
        let cut = bytes.get(..255).unwrap_or(bytes);
        self.put(&[u8::try_from(cut.len()).unwrap_or(255)]);
        self.put(cut);
    }

    pub(crate) fn long(&mut self, bytes: &[u8]) {
        self.put(&len32(bytes).to_be_bytes());
        self.put(bytes);
    }

    pub(crate) fn bit(&mut self, value: bool) {
        if self.bits == 8 {
            self.out.push(0);
            self.bits = 0;
        }
        if value && let Some(last) = self.out.last_mut() {
            *last |= 1 << self.bits;
        }
        self.bits += 1;
    }
}

/// Length as the wire's 32 bits; nothing that we write comes near the end of them.
pub(crate) fn len32(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// A type that can be a method's argument.
pub(crate) trait Field<'a>: Sized {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError>;
    fn write(&self, writer: &mut Writer<'_>);
}

macro_rules! integer_field {
    ($($int:ident)*) => {$(
        impl<'a> Field<'a> for $int {
            fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> { Ok(Self::from_be_bytes(reader.array()?)) }
            fn write(&self, writer: &mut Writer<'_>) { writer.put(&self.to_be_bytes()); }
        }
    )*};
}
integer_field!(u8 u16 u32 u64);

impl<'a> Field<'a> for bool {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        reader.bit()
    }
    fn write(&self, writer: &mut Writer<'_>) {
        writer.bit(*self);
    }
}

impl<'a> Field<'a> for ShortStr<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self(reader.short()?))
    }
    fn write(&self, writer: &mut Writer<'_>) {
        writer.short(self.0);
    }
}

impl<'a> Field<'a> for LongStr<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self(reader.long()?))
    }
    fn write(&self, writer: &mut Writer<'_>) {
        writer.long(self.0);
    }
}
