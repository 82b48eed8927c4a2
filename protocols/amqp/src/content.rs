//! A message's content: one header frame, then body frames up to the declared size (AMQP 0-9-1 §4.2.6).

use bytes::{Bytes, BytesMut};

use crate::error::DecodeError;
use crate::wire::Reader;

/// Payload of a header frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentHeader<'a> {
    pub class: u16,
    /// Octets of the body, all frames together.
    pub body_size: u64,
    /// Flags and values of the properties as they came.
    pub properties: &'a [u8],
}

impl<'a> ContentHeader<'a> {
    /// Reads a header frame's payload; the properties are not looked at.
    ///
    /// # Errors
    /// When it is shorter than its fixed part.
    pub fn decode(payload: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload);
        let class = reader.u16()?;
        let _weight = reader.u16()?;
        Ok(Self {
            class,
            body_size: reader.u64()?,
            properties: reader.rest(),
        })
    }
}

/// Joins body frames. A body in one frame is that frame's slice; only a body in several is copied.
/// Memory follows what arrived, never what was declared.
#[derive(Debug, Default)]
pub struct Assembly {
    left: u64,
    many: BytesMut,
}

impl Assembly {
    /// Begins a body of so many octets. `Some`: it is empty and complete.
    pub fn start(&mut self, body_size: u64) -> Option<Bytes> {
        self.left = body_size;
        self.many.clear();
        (body_size == 0).then(Bytes::new)
    }

    /// Takes one body frame's payload. `Ok(Some)`: the body is complete.
    ///
    /// # Errors
    /// More octets than declared.
    pub fn push(&mut self, part: Bytes) -> Result<Option<Bytes>, DecodeError> {
        let len = u64::try_from(part.len()).unwrap_or(u64::MAX);
        self.left = self.left.checked_sub(len).ok_or(DecodeError::Truncated)?;
        if self.left == 0 && self.many.is_empty() {
            return Ok(Some(part));
        }
        // A part that stayed a slice would keep the read buffer that it lies in.
        self.many.extend_from_slice(&part);
        Ok((self.left == 0).then(|| self.many.split().freeze()))
    }

    /// Is a body under way?
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.left > 0
    }

    /// Octets that are still to come.
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.left
    }
}
