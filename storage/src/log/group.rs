//! A group: the records that one `write` carries to the log.
//!
//! ```text
//! magic u32 | version u8 | 0 u8 | 0 u16 | payload length u32 | first u64 | synced u64 | term u32 | records u32 |
//! payload CRC32C u32 | header CRC32C u32 | record …           integers little endian
//! ```
//! `first` is the position of the group's first byte. `synced` is the highest position known to be on the disk when the
//! group was written: recovery may cut a torn tail only at or behind every such claim.

use std::io::IoSlice;

use super::record::{self, u32_at, u64_at};
use crate::Effects;
use crate::effects::BigBody;

/// Bytes of a group before its first record.
pub(crate) const HEADER: usize = 44;
/// Where the header's own checksum is.
const HEADER_CRC: usize = 40;
pub(crate) const MAGIC: u32 = u32::from_le_bytes(*b"FMLG");
const VERSION: u8 = 1;
/// A group buffer begins with this capacity, and returns to it after a burst.
const CAPACITY: usize = 256 << 10;
const CAPACITY_KEPT: usize = 4 << 20;

/// A group in the making.
#[derive(Debug)]
pub(crate) struct Group {
    first: u64,
    /// Header, then records, without their large bodies.
    bytes: Vec<u8>,
    big: Vec<BigBody>,
    big_bytes: u64,
    records: u32,
}

impl Group {
    pub(crate) fn new(first: u64) -> Self {
        let mut bytes = Vec::with_capacity(CAPACITY);
        bytes.resize(HEADER, 0);
        Self {
            first,
            bytes,
            big: Vec::new(),
            big_bytes: 0,
            records: 0,
        }
    }

    /// Empty again, beginning at `first`.
    pub(crate) fn reset(&mut self, first: u64) {
        self.bytes.truncate(HEADER);
        if self.bytes.capacity() > CAPACITY_KEPT {
            self.bytes.shrink_to(CAPACITY);
        }
        self.big.clear();
        self.big_bytes = 0;
        self.records = 0;
        self.first = first;
    }

    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// Position after the last record.
    #[inline]
    pub(crate) fn end(&self) -> u64 {
        self.first + self.bytes.len() as u64 + self.big_bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes in the log.
    pub(crate) fn size(&self) -> u64 {
        self.end() - self.first
    }

    pub(crate) fn records(&self) -> u32 {
        self.records
    }

    /// Adds `fx` as one record; `seq_of` gives the seq of a shard's section (called once per section).
    #[inline]
    pub(crate) fn append(
        &mut self,
        time_ms: u64,
        fx: &Effects,
        term: u32,
        mut seq_of: impl FnMut(u8) -> u64,
    ) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(fx.encoded());
        let (_, record) = self.bytes.split_at_mut(start);
        record::finish(record, fx.size(), fx.sections().len(), time_ms);
        for &at in fx.sections() {
            let (_, section) = record.split_at_mut(at as usize);
            let seq = seq_of(section.first().copied().unwrap_or(u8::MAX));
            record::stamp(section, term, seq);
        }
        for body in fx.big() {
            self.big.push(BigBody {
                at: start + body.at,
                bytes: body.bytes.clone(),
            });
            self.big_bytes += body.bytes.len() as u64;
        }
        self.records += 1;
    }

    /// Fills in the header. Nothing may be appended afterwards.
    pub(crate) fn seal(&mut self, term: u32, synced: u64) {
        let length =
            u32::try_from(self.size() - HEADER as u64).expect("a group is smaller than 4 GiB");
        let mut payload_crc = 0;
        self.pieces(HEADER, |piece| {
            payload_crc = crc32c::crc32c_append(payload_crc, piece)
        });
        let (header, _) = self.bytes.split_at_mut(HEADER);
        header[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        header[4] = VERSION;
        header[5..8].fill(0);
        header[8..12].copy_from_slice(&length.to_le_bytes());
        header[12..20].copy_from_slice(&self.first.to_le_bytes());
        header[20..28].copy_from_slice(&synced.to_le_bytes());
        header[28..32].copy_from_slice(&term.to_le_bytes());
        header[32..36].copy_from_slice(&self.records.to_le_bytes());
        header[36..40].copy_from_slice(&payload_crc.to_le_bytes());
        let crc = crc32c::crc32c(&header[..HEADER_CRC]);
        header[HEADER_CRC..HEADER].copy_from_slice(&crc.to_le_bytes());
    }

    /// The bytes to write, in order.
    pub(crate) fn slices<'a>(&'a self, out: &mut Vec<IoSlice<'a>>) {
        self.pieces(0, |piece| out.push(IoSlice::new(piece)));
    }

    /// All bytes, if no large body lies between them.
    pub(crate) fn contiguous(&self) -> Option<&[u8]> {
        self.big.is_empty().then_some(&self.bytes)
    }

    fn pieces<'a>(&'a self, mut from: usize, mut visit: impl FnMut(&'a [u8])) {
        for body in &self.big {
            if body.at > from {
                visit(&self.bytes[from..body.at]);
            }
            visit(&body.bytes);
            from = body.at;
        }
        if from < self.bytes.len() {
            visit(&self.bytes[from..]);
        }
    }
}

/// A group's header as read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) length: u32,
    pub(crate) first: u64,
    pub(crate) synced: u64,
    pub(crate) term: u32,
    pub(crate) payload_crc: u32,
}

/// What the bytes at a place of the log are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Header(Header),
    /// An intact header of a version that we do not know: stop, never skip.
    Unknown(u8),
    Nothing,
}

impl Header {
    /// Reads the header at the start of `bytes`.
    pub(crate) fn find(bytes: &[u8]) -> Found {
        Self::parse(bytes).unwrap_or(Found::Nothing)
    }

    fn parse(bytes: &[u8]) -> Option<Found> {
        let header = bytes.get(..HEADER)?;
        if u32_at(header, 0)? != MAGIC
            || u32_at(header, HEADER_CRC)? != crc32c::crc32c(header.get(..HEADER_CRC)?)
        {
            return None;
        }
        let version = *header.get(4)?;
        if version != VERSION {
            return Some(Found::Unknown(version));
        }
        Some(Found::Header(Self {
            length: u32_at(header, 8)?,
            first: u64_at(header, 12)?,
            synced: u64_at(header, 20)?,
            term: u32_at(header, 28)?,
            payload_crc: u32_at(header, 36)?,
        }))
    }

    /// Position after the group.
    pub(crate) fn end(&self) -> u64 {
        self.first + HEADER as u64 + u64::from(self.length)
    }
}
