//! Room on the disk: how much is free, and a file that keeps some for the log.
//!
//! A full disk must not end the process: who deletes to make room needs the log for it. So a file of a fixed size, beside
//! the log, holds blocks that nobody else can take; a write to the log that finds the disk full takes of it and tries again.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, StatVfs};

/// Name of the file in the data directory.
pub(crate) const RESERVE: &str = "reserve";
/// Given at a time, so that small records do not each wait for the file system.
const GIVE_MIN: u64 = 256 << 10;

/// Bytes that a process without privileges may still write in the file system of `dir`.
///
/// # Errors
/// What statvfs(3) says, or that it says nothing.
pub fn free(dir: &Path) -> io::Result<u64> {
    let stat = ask(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Bytes of the file system of `dir`, used or not.
///
/// # Errors
/// What statvfs(3) says, or that it says nothing.
pub fn total(dir: &Path) -> io::Result<u64> {
    let stat = ask(dir)?;
    Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
}

fn ask(dir: &Path) -> io::Result<StatVfs> {
    let stat = rustix::fs::statvfs(dir)?;
    if stat.f_blocks == 0 {
        // Some in user space, or over a network, do not count.
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(stat)
}

/// Blocks kept for the log.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    full: u64,
    left: Mutex<u64>,
}

impl Reserve {
    /// Nothing is kept yet: see [`Reserve::refill`]. What an earlier run kept is given back: it may be needed to start.
    pub(crate) fn new(dir: &Path, full: u64) -> Self {
        let path = dir.join(RESERVE);
        // There is none, as a rule; one that cannot be deleted cannot be refilled either, and that is told.
        let _ = std::fs::remove_file(&path);
        Self {
            path,
            full,
            left: Mutex::new(0),
        }
    }

    /// Bytes that can still be given.
    pub(crate) fn left(&self) -> u64 {
        *self.left.lock()
    }

    /// Less than half is there: somebody had to take of it.
    pub(crate) fn is_low(&self) -> bool {
        self.full > 0 && self.left() < self.full / 2
    }

    /// Gives at least `bytes` back to the file system. False: there is nothing left.
    pub(crate) fn give(&self, bytes: u64) -> io::Result<bool> {
        let mut left = self.left.lock();
        if *left == 0 {
            return Ok(false);
        }
        let rest = left.saturating_sub(bytes.max(GIVE_MIN));
        File::options()
            .write(true)
            .open(&self.path)?
            .set_len(rest)?;
        *left = rest;
        Ok(true)
    }

    /// Keeps as much as it should, if the file system has it.
    ///
    /// # Errors
    /// What the disk says; nothing is kept then.
    pub(crate) fn refill(&self) -> io::Result<()> {
        let mut left = self.left.lock();
        if *left >= self.full {
            return Ok(());
        }
        let file = File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .open(&self.path)?;
        *left = 0;
        if let Err(error) = allocate(&file, self.full) {
            let _ = std::fs::remove_file(&self.path);
            return Err(error);
        }
        *left = self.full;
        Ok(())
    }
}

fn allocate(mut file: &File, bytes: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            static PIECE: [u8; 64 << 10] = [0; 64 << 10];
            let mut left = bytes;
            while left > 0 {
                let size = left.min(PIECE.len() as u64);
                file.write_all(PIECE.get(..size as usize).unwrap_or(&PIECE))?;
                left -= size;
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_given_once() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::new(dir.path(), 1 << 20);
        let size = || std::fs::metadata(dir.path().join(RESERVE)).map_or(0, |about| about.len());
        assert_eq!((reserve.left(), reserve.give(1).unwrap()), (0, false));
        reserve.refill().unwrap();
        assert_eq!((reserve.left(), size()), (1 << 20, 1 << 20));
        assert!(reserve.give(1).unwrap(), "a piece at least");
        assert_eq!((reserve.left(), size()), (768 << 10, 768 << 10));
        assert!(!reserve.is_low());
        assert!(reserve.give(u64::MAX).unwrap());
        assert!(reserve.is_low() && !reserve.give(1).unwrap());
        reserve.refill().unwrap();
        assert_eq!(size(), 1 << 20);
        drop(reserve);
        assert_eq!(Reserve::new(dir.path(), 1 << 20).left(), 0);
        assert_eq!(size(), 0, "a start has the room for itself");
        assert!(free(dir.path()).unwrap() <= total(dir.path()).unwrap());
    }
}
