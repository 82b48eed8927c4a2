//! Frames: `type u8 | channel u16 | size u32 | payload | 0xCE` (AMQP 0-9-1 §4.2.3), and the protocol header.

use bytes::{Bytes, BytesMut};

use crate::error::DecodeError;

/// What the server writes when the client began with something else.
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";
/// §4.2.3.
pub const FRAME_END: u8 = 0xCE;
/// Octets of a frame besides its payload.
pub const FRAME_OVERHEAD: u32 = 8;
/// Every peer takes frames of this size (§4.2.3), the overhead included.
pub const FRAME_MIN_SIZE: u32 = 4096;

/// What a connection began with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolHeader {
    /// Speaks 0-9-1 (the 0-8 and 0-9 headers too: RabbitMQ takes them as 0-9-1).
    Accepted,
    /// Something else: answer [`PROTOCOL_HEADER`] and close.
    Refused,
}

/// Takes the first eight octets. `None`: not all here yet, and nothing wrong so far.
pub fn protocol_header(input: &mut BytesMut) -> Option<ProtocolHeader> {
    const ACCEPTED: [[u8; 8]; 4] = [
        PROTOCOL_HEADER,
        *b"AMQP\x01\x01\x08\x00",
        *b"AMQP\x01\x01\x00\x09",
        *b"AMQP\x01\x01\x09\x01",
    ];
    let head = input.get(..8).unwrap_or(input);
    if ACCEPTED.iter().any(|known| known == head) {
        drop(input.split_to(8));
        return Some(ProtocolHeader::Accepted);
    }
    if ACCEPTED.iter().any(|known| known.starts_with(head)) {
        return None;
    }
    // `AMQP` and some version is read to its end, so that the answer is not lost to a reset.
    if head.len() < 8 && b"AMQP".get(..head.len().min(4)) == head.get(..4.min(head.len())) {
        return None;
    }
    Some(ProtocolHeader::Refused)
}

/// Type of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    Method,
    Header,
    Body,
    Heartbeat,
}

impl FrameKind {
    /// AMQP 0-9-1 §4.2.3.
    pub const fn number(self) -> u8 {
        match self {
            Self::Method => 1,
            Self::Header => 2,
            Self::Body => 3,
            Self::Heartbeat => 8,
        }
    }

    const fn from_wire(kind: u8) -> Result<Self, DecodeError> {
        Ok(match kind {
            1 => Self::Method,
            2 => Self::Header,
            3 => Self::Body,
            8 => Self::Heartbeat,
            other => return Err(DecodeError::UnknownFrame(other)),
        })
    }
}

/// One whole frame, a view of [`Frames`].
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    pub kind: FrameKind,
    pub channel: u16,
    pub payload: &'a [u8],
    owner: &'a Bytes,
}

impl Frame<'_> {
    /// The payload without copying; it keeps the read buffer alive.
    #[must_use]
    pub fn shared(&self) -> Bytes {
        self.owner.slice_ref(self.payload)
    }
}

/// All whole frames of one read.
#[derive(Debug)]
pub struct Frames {
    bytes: Bytes,
    at: usize,
    /// Where the frame given out last begins.
    last: usize,
    failed: Option<DecodeError>,
    /// What the broken frame carried, as far as it is here.
    failed_payload: Bytes,
}

impl Frames {
    /// Splits the whole frames off the read buffer; a partial one stays there. `frame_max` counts the whole frame.
    /// What stands before a broken frame is still given out; then comes the error.
    pub fn take(input: &mut BytesMut, frame_max: u32) -> Self {
        let limit = frame_max.saturating_sub(FRAME_OVERHEAD);
        let mut end = 0_usize;
        let mut failed = None;
        let mut failed_payload = Bytes::new();
        while let Some([kind, _, _, s0, s1, s2, s3]) =
            input.get(end..).and_then(|rest| rest.first_chunk::<7>())
        {
            let (kind, size) = (*kind, u32::from_be_bytes([*s0, *s1, *s2, *s3]));
            if size > limit {
                failed = Some(DecodeError::FrameTooLarge { kind, size, limit });
                break;
            }
            let Some(total) = usize::try_from(size).ok().map(|size| size + 8) else {
                break;
            };
            let Some(octet) = input.get(end + total - 1) else {
                break;
            };
            let unknown = FrameKind::from_wire(kind).err();
            if unknown.is_some() || *octet != FRAME_END {
                failed_payload =
                    Bytes::copy_from_slice(input.get(end + 7..end + total - 1).unwrap_or_default());
            }
            if unknown.is_some() {
                failed = unknown;
                break;
            }
            if *octet != FRAME_END {
                failed = Some(DecodeError::FrameEnd {
                    kind,
                    size,
                    octet: *octet,
                });
                break;
            }
            end += total;
        }
        let bytes = if end == 0 {
            Bytes::new()
        } else {
            input.split_to(end).freeze()
        };
        Self {
            bytes,
            at: 0,
            last: 0,
            failed,
            failed_payload,
        }
    }

    /// Payload of the frame that the error of [`Frames::next_frame`] is about; empty when it was not read.
    #[must_use]
    pub fn failed_payload(&self) -> &[u8] {
        &self.failed_payload
    }

    /// Puts the frame given out last back into the read buffer, and all behind it: they are to be taken again later.
    pub fn give_back(self, input: &mut BytesMut) {
        let rest = self.bytes.get(self.last..).unwrap_or_default();
        let mut whole = BytesMut::with_capacity(rest.len() + input.len());
        whole.extend_from_slice(rest);
        whole.extend_from_slice(input);
        *input = whole;
    }

    /// The next frame; `None` when the read is used up.
    ///
    /// # Errors
    /// The stream is broken behind the frames given out so far.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, DecodeError> {
        let Some([kind, c0, c1, s0, s1, s2, s3]) = self
            .bytes
            .get(self.at..)
            .and_then(|rest| rest.first_chunk::<7>())
        else {
            return self.failed.map_or(Ok(None), Err);
        };
        let size = usize::try_from(u32::from_be_bytes([*s0, *s1, *s2, *s3]))
            .map_err(|_| DecodeError::Truncated)?;
        let payload = self
            .bytes
            .get(self.at + 7..self.at + 7 + size)
            .ok_or(DecodeError::Truncated)?;
        self.last = self.at;
        self.at += size + 8;
        Ok(Some(Frame {
            kind: FrameKind::from_wire(*kind)?,
            channel: u16::from_be_bytes([*c0, *c1]),
            payload,
            owner: &self.bytes,
        }))
    }
}
