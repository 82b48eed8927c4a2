//! The bytes of one record, integers little endian.
//!
//! ```text
//! record   length u32 (whole record) | version u8 | 0 u8 | sections u16 | time u64 (ms) | section …
//! section  shard u8 | 0 u8 | 0 u16 | length u32 (of its ops) | term u32 | seq u64 | op …
//! op       kind u8 | key length u16 | [value length u32] | key | [value]        no value: Del, DelBody
//! ```
//! A shard may have several sections in one record; they carry the same seq. Nothing is read by their number, of which 65,535
//! means that many or more: a command that changes keys of shards in turn has a section for each.

use crate::ShardId;

/// Bytes of a record before its first section.
pub(crate) const HEADER: usize = 16;
/// Bytes of a section before its first op.
pub(crate) const SECTION: usize = 20;
/// Version of the ops; a reader stops at one it does not know.
pub(crate) const VERSION: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Put = 1,
    Del = 2,
    Add = 3,
    PutBody = 4,
    DelBody = 5,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Put,
            2 => Self::Del,
            3 => Self::Add,
            4 => Self::PutBody,
            5 => Self::DelBody,
            _ => return None,
        })
    }
}

/// The fixed part of an op.
pub(crate) struct OpHead {
    bytes: [u8; 7],
    len: usize,
}

impl OpHead {
    #[inline]
    pub(crate) fn new(kind: Kind, key: usize, value: Option<usize>) -> Self {
        let key = u16::try_from(key).unwrap_or(u16::MAX).to_le_bytes();
        let value_len = u32::try_from(value.unwrap_or(0))
            .expect("a value is smaller than 4 GiB")
            .to_le_bytes();
        let [a, b] = key;
        let [c, d, e, f] = value_len;
        Self {
            bytes: [kind as u8, a, b, c, d, e, f],
            len: if value.is_some() { 7 } else { 3 },
        }
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Appends the header of an empty section.
pub(crate) fn open_section(buf: &mut Vec<u8>, shard: ShardId) {
    let start = buf.len();
    buf.resize(start + SECTION, 0);
    buf[start] = shard.0;
}

/// The section whose header is at `start` has `more` bytes of ops more.
#[inline]
pub(crate) fn grow_section(buf: &mut [u8], start: usize, more: usize) {
    let field = &mut buf[start + 4..start + 8];
    let old = u32::from_le_bytes([field[0], field[1], field[2], field[3]]);
    let new = u32::try_from(old as usize + more).expect("a section is smaller than 4 GiB");
    field.copy_from_slice(&new.to_le_bytes());
}

/// Fills in the record header (at the start of `buf`): total length with large bodies, sections, time.
#[inline]
pub(crate) fn finish(buf: &mut [u8], total: usize, sections: usize, time_ms: u64) {
    let total = u32::try_from(total).expect("a record is smaller than 4 GiB");
    let sections = u16::try_from(sections).unwrap_or(u16::MAX);
    buf[0..4].copy_from_slice(&total.to_le_bytes());
    buf[4] = VERSION;
    buf[6..8].copy_from_slice(&sections.to_le_bytes());
    buf[8..16].copy_from_slice(&time_ms.to_le_bytes());
}

/// Fills in a section's term and seq (`buf` starts at the section header). Returns its shard.
#[inline]
pub(crate) fn stamp(buf: &mut [u8], term: u32, seq: u64) {
    buf[8..12].copy_from_slice(&term.to_le_bytes());
    buf[12..20].copy_from_slice(&seq.to_le_bytes());
}

/// One row change, borrowed from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// Row of Rows becomes `value`.
    Put { key: &'a [u8], value: &'a [u8] },
    /// Row of Rows goes.
    Del { key: &'a [u8] },
    /// Counter row of Rows changes by `delta`.
    Add { key: &'a [u8], delta: i64 },
    /// Row of Bodies becomes `value`.
    PutBody { key: &'a [u8], value: &'a [u8] },
    /// Row of Bodies goes.
    DelBody { key: &'a [u8] },
}

/// One shard's part of a record.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    /// Whose rows.
    pub shard: ShardId,
    /// Start of the process that wrote it.
    pub term: u32,
    /// The record's number in this shard.
    pub seq: u64,
    ops: &'a [u8],
}

impl<'a> Section<'a> {
    /// The row changes in order.
    pub fn ops(&self) -> Ops<'a> {
        Ops { rest: self.ops }
    }
}

/// One record of the log.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Position of its end.
    pub lsn: crate::Lsn,
    /// Wall clock of its command, milliseconds since 1970.
    pub time_ms: u64,
    sections: &'a [u8],
}

impl<'a> Record<'a> {
    /// The record at the start of `bytes`, and its length. `None`: damaged, or of an unknown version.
    pub(crate) fn split(bytes: &'a [u8], start: u64) -> Option<(Self, usize)> {
        let total = u32_at(bytes, 0)? as usize;
        if total < HEADER || *bytes.get(4)? != VERSION {
            return None;
        }
        let body = bytes.get(HEADER..total)?;
        let record = Self {
            lsn: crate::Lsn(start + total as u64),
            time_ms: u64_at(bytes, 8)?,
            sections: body,
        };
        Some((record, total))
    }

    /// The sections in order.
    pub fn sections(&self) -> Sections<'a> {
        Sections {
            rest: self.sections,
        }
    }
}

/// Iterator over a record's sections; ends early at damage.
#[derive(Clone, Debug)]
pub struct Sections<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Sections<'a> {
    type Item = Section<'a>;

    fn next(&mut self) -> Option<Section<'a>> {
        let len = u32_at(self.rest, 4)? as usize;
        let section = Section {
            shard: ShardId(*self.rest.first()?),
            term: u32_at(self.rest, 8)?,
            seq: u64_at(self.rest, 12)?,
            ops: self.rest.get(SECTION..SECTION + len)?,
        };
        self.rest = self.rest.get(SECTION + len..)?;
        Some(section)
    }
}

/// Iterator over a section's ops; ends early at damage.
#[derive(Clone, Debug)]
pub struct Ops<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Ops<'a> {
    type Item = Op<'a>;

    #[inline]
    fn next(&mut self) -> Option<Op<'a>> {
        let (op, size) = split_op(self.rest)?;
        self.rest = self.rest.get(size..)?;
        Some(op)
    }
}

/// The op at the start of `bytes`, and its length.
#[inline]
pub(crate) fn split_op(bytes: &[u8]) -> Option<(Op<'_>, usize)> {
    let kind = Kind::of(*bytes.first()?)?;
    let key_len = usize::from(u16::from_le_bytes([*bytes.get(1)?, *bytes.get(2)?]));
    if matches!(kind, Kind::Del | Kind::DelBody) {
        let key = bytes.get(3..3 + key_len)?;
        let op = if kind == Kind::Del {
            Op::Del { key }
        } else {
            Op::DelBody { key }
        };
        return Some((op, 3 + key_len));
    }
    let value_len = u32_at(bytes, 3)? as usize;
    let key = bytes.get(7..7 + key_len)?;
    let end = 7 + key_len + value_len;
    let value = bytes.get(7 + key_len..end)?;
    let op = match kind {
        Kind::Put => Op::Put { key, value },
        Kind::PutBody => Op::PutBody { key, value },
        _ => Op::Add {
            key,
            delta: i64::from_le_bytes(value.try_into().ok()?),
        },
    };
    Some((op, end))
}

#[inline]
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[inline]
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
