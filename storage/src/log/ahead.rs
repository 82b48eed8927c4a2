//! Zeros written ahead of the log's end while syncs are frequent.
//!
//! A write that makes a file longer costs its `fdatasync` a commit of the file system's journal, with the new length. A
//! write over blocks that are there does not: on ext4 the sync took 0.2 instead of 0.3 ms, and half of the CPU. So where
//! each sync carries little, the file is lengthened by many writes' worth of zeros at once. Preallocation (`fallocate`)
//! saves less: its blocks must be marked as written, in the journal.
//!
//! Zeros are no group, so a reader of the log, and recovery, end there. They are cut off when the file is full.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Most that a file is ahead. Zeros are written to the disk, too: where syncs carry more than a part of this, they would
/// cost more than they save.
const AHEAD_MAX: u64 = 1 << 20;
/// Least: what a file holds at first is not worth it.
const AHEAD_MIN: u64 = 16 << 10;
/// So many syncs at least to judge by.
const SYNCS_MIN: u64 = 8;
/// Bytes between two syncs above which nothing is written ahead.
const SPARSE: u64 = 64 << 10;

/// Written piece by piece: the kernel keeps what one call writes as one unit of the page cache, and would count and walk
/// all of it at each sync.
static ZEROS: [u8; 16 << 10] = [0; 16 << 10];

/// What is known of the newest file.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// Offset in the file up to which it was filled; 0: it was not.
    filled: u64,
    /// Where the judgement of how frequent syncs are begins: an offset in the file, and the count of syncs then.
    since: (u64, u64),
}

impl Ahead {
    /// For a new file.
    pub(crate) fn new(syncs: u64) -> Self {
        Self {
            filled: 0,
            since: (0, syncs),
        }
    }

    /// The file was written up to the offset `end`; `syncs` have been run in all.
    pub(crate) fn wrote(&mut self, file: &File, end: u64, syncs: u64) {
        if end <= self.filled || end < AHEAD_MIN {
            return;
        }
        let (bytes, count) = (end - self.since.0, syncs - self.since.1);
        if bytes > AHEAD_MAX || count >= SYNCS_MIN {
            self.since = (end, syncs);
        }
        if count < SYNCS_MIN || bytes / count > SPARSE {
            return;
        }
        let ahead = end + end.min(AHEAD_MAX);
        self.filled = end;
        while self.filled < ahead {
            // Without them the log only is slower: a full disk is for the write that needs the space to report.
            if file.write_all_at(&ZEROS, self.filled).is_err() {
                return;
            }
            self.filled += ZEROS.len() as u64;
        }
    }

    /// The file is full at the offset `end`.
    pub(crate) fn cut(&self, file: &File, end: u64) -> io::Result<()> {
        if self.filled > end {
            file.set_len(end)?;
        }
        Ok(())
    }
}

/// Whether `rest` of a file is what was written ahead and never used.
pub(crate) fn unused(rest: &[u8]) -> bool {
    rest.iter().all(|byte| *byte == 0)
}
