//! A file of the log mapped for reading: the fold and recovery look at a window of it without copying it. What is large is read
//! from the same file instead: pages that were touched count as memory of the process until they are released.
//!
//! The one place of this crate with `unsafe`. Sound because log files are only appended to, and only cut or deleted by
//! ourselves: cut at open, before anything is mapped, deleted with the mapping keeping the bytes.
#![expect(
    unsafe_code,
    reason = "mmap; tested by every fold and by the tests below"
)]

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

/// Every page size in use divides it.
const ALIGN: usize = 64 << 10;

/// The first `len` bytes of a file.
#[derive(Debug)]
pub(crate) struct Map {
    start: *mut std::ffi::c_void,
    len: usize,
    file: File,
}

// SAFETY: the mapping is read-only and private to this value; any thread may read and unmap it.
unsafe impl Send for Map {}
// SAFETY: as above, nothing writes through it.
unsafe impl Sync for Map {}

impl Map {
    /// Maps the first `len` bytes of `path`, which has at least as many.
    pub(crate) fn open(path: &Path, len: u64) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = usize::try_from(len).map_err(io::Error::other)?;
        if file.metadata()?.len() < len as u64 {
            return Err(io::Error::other(
                "file is shorter than what was written to it",
            ));
        }
        if len == 0 {
            return Ok(Self {
                start: std::ptr::null_mut(),
                len,
                file,
            });
        }
        // SAFETY: a new mapping at an address of the kernel's choice; `len` is not 0 and inside the file.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ,
                MapFlags::SHARED,
                &file,
                0,
            )?
        };
        let map = Self { start, len, file };
        // SAFETY: exactly our mapping. Advice only: the result does not matter.
        let _ = unsafe { madvise(map.start, map.len, Advice::WillNeed) };
        Ok(map)
    }

    /// The file, for whoever would rather read a part of it than touch its pages.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Gives the pages from that of `from` up to that of `to` back; they stay in the page cache: who comes again finds them there.
    /// Until then they do not count as memory of the process.
    pub(crate) fn release(&self, from: usize, to: usize) {
        let from = from / ALIGN * ALIGN;
        let to = if to >= self.len {
            self.len
        } else {
            to / ALIGN * ALIGN
        };
        if from < to {
            // SAFETY: inside our mapping, which is shared and read-only: its pages are the file's, before and after.
            let _ = unsafe { madvise(self.start.byte_add(from), to - from, Advice::LinuxDontNeed) };
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: mapped until drop, readable, and `len` bytes long; see the head of this file for why it does not change.
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.len) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: our mapping, and nobody borrows from it any more.
            let _ = unsafe { munmap(self.start, self.len) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_bytes_and_outlives_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"0123456789").unwrap();
        let map = Map::open(&path, 4).unwrap();
        let empty = Map::open(&path, 0).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((map.bytes(), empty.bytes()), (&b"0123"[..], &b""[..]));
        map.release(0, 4);
        map.release(3, usize::MAX);
        empty.release(0, 0);
        assert_eq!(map.bytes(), b"0123");
        assert!(Map::open(&path, 4).is_err());
    }

    #[test]
    fn refuses_more_than_the_file_has() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"0123456789").unwrap();
        assert!(Map::open(&path, 11).is_err());
    }
}
