//! Large values of a window: read from the log's file when it is their turn, not looked at before.
//!
//! A mapped page counts as memory of the process from its first touch on, and the kernel maps sixteen at a time. So of a
//! large value only the key is kept, in memory of our own; ordering needs no more. The value goes from the file straight
//! into the memory that the tables take over. Values that follow each other in the file, as those of a queue do, are
//! read together.

use std::cell::RefCell;
use std::io;
use std::os::unix::fs::FileExt;

use super::plan::Part;
use crate::log::bodies;

/// Values of so many octets are read, smaller ones seen through the mapping: below, a call for each would cost more.
pub(crate) const FAR_MIN: usize = 512;
/// From here on a value is read alone.
const ALONE: usize = 64 << 10;
/// What is read together, and what may lie between two values that are.
const AHEAD_BYTES: u64 = 256 << 10;
const GAP_MAX: u64 = 4 << 10;

/// A large value in the window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Far {
    /// Which part, and where in its file the value begins.
    pub(crate) offset: u64,
    pub(crate) part: u32,
    pub(crate) length: u32,
    /// Where its key begins in `keys`.
    key: u32,
    key_length: u16,
}

/// The large values of one keyspace, in the order of the log.
#[derive(Debug, Default)]
pub(crate) struct Fars {
    all: Vec<Far>,
    keys: Vec<u8>,
}

impl Fars {
    /// Its number; `None`: too many, it is to be seen through the mapping.
    pub(crate) fn push(
        &mut self,
        part: usize,
        offset: usize,
        key: &[u8],
        length: usize,
    ) -> Option<usize> {
        let far = Far {
            offset: offset as u64,
            part: u32::try_from(part).ok()?,
            length: u32::try_from(length).ok()?,
            key: u32::try_from(self.keys.len()).ok()?,
            key_length: u16::try_from(key.len()).ok()?,
        };
        self.keys.extend_from_slice(key);
        self.all.push(far);
        Some(self.all.len() - 1)
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Far> {
        self.all.get(index)
    }

    pub(crate) fn key(&self, index: usize) -> &[u8] {
        let Some(far) = self.all.get(index) else {
            return &[];
        };
        let from = far.key as usize;
        self.keys
            .get(from..from + usize::from(far.key_length))
            .unwrap_or(&[])
    }
}

/// A stretch of one file that was read for several values.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    part: u32,
    from: u64,
    bytes: Vec<u8>,
}

/// A large value: reads to its end, once.
#[derive(Debug)]
pub(crate) struct FarValue<'a> {
    far: Far,
    read: u32,
    /// End of the values that follow it in the file and in order of key.
    end: u64,
    parts: &'a [Part],
    ahead: &'a RefCell<Ahead>,
}

impl<'a> FarValue<'a> {
    /// `next`: the values behind it in order of key, as far as they are large.
    pub(crate) fn new(
        far: Far,
        next: impl Iterator<Item = Far>,
        parts: &'a [Part],
        ahead: &'a RefCell<Ahead>,
    ) -> Self {
        let mut end = far.offset + u64::from(far.length);
        let held = ahead.borrow();
        let is_held = held.part == far.part
            && held.from <= far.offset
            && end <= held.from + held.bytes.len() as u64;
        drop(held);
        if !is_held && (far.length as usize) < ALONE {
            for next in next {
                let next_end = next.offset + u64::from(next.length);
                if next.part != far.part
                    || next.offset < end
                    || next.offset - end > GAP_MAX
                    || next_end - far.offset > AHEAD_BYTES
                {
                    break;
                }
                end = next_end;
            }
        }
        Self {
            far,
            read: 0,
            end,
            parts,
            ahead,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.far.length as usize
    }

    fn read_at(&self, offset: u64, to: &mut [u8]) -> io::Result<()> {
        let Some(part) = self.parts.get(self.far.part as usize) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let file = part.map.file();
        let mut ahead = self.ahead.borrow_mut();
        let own_end = self.far.offset + u64::from(self.far.length);
        if self.end > own_end {
            let length = usize::try_from(self.end - offset).map_err(io::Error::other)?;
            ahead.part = self.far.part;
            ahead.from = offset;
            bodies::read_into(file, offset, length, &mut ahead.bytes)?;
        }
        if ahead.part == self.far.part
            && let Some(at) = offset.checked_sub(ahead.from)
            && let Ok(at) = usize::try_from(at)
            && let Some(held) = ahead.bytes.get(at..).and_then(|rest| rest.get(..to.len()))
        {
            to.copy_from_slice(held);
            return Ok(());
        }
        file.read_exact_at(to, offset)
    }
}

impl io::Read for FarValue<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let rest = (self.far.length - self.read) as usize;
        let count = rest.min(to.len());
        let Some(to) = to.get_mut(..count).filter(|to| !to.is_empty()) else {
            return Ok(0);
        };
        self.read_at(self.far.offset + u64::from(self.read), to)?;
        // At most the rest of the value.
        self.read += u32::try_from(count).unwrap_or(u32::MAX);
        Ok(count)
    }
}
