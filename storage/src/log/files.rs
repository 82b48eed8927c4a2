//! The list of the log's files, shared by the writer, the sync thread, readers, the fold and retention.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::segment::{HEADER, Segment};

#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) dir: PathBuf,
    list: Mutex<List>,
}

#[derive(Debug, Default)]
struct List {
    segments: Vec<Segment>,
    /// A file was made or deleted since the directory was synced.
    dir_changed: bool,
}

/// What one sync has to do.
#[derive(Debug, Default)]
pub(crate) struct Unsynced {
    pub(crate) files: Vec<Arc<File>>,
    pub(crate) dir_changed: bool,
}

impl Files {
    pub(crate) fn new(dir: PathBuf, segments: Vec<Segment>) -> Self {
        Self {
            dir,
            list: Mutex::new(List {
                segments,
                dir_changed: false,
            }),
        }
    }

    /// `segment` is the newest file from now on; the one before it ended at `previous_end`.
    pub(crate) fn begin(&self, segment: Segment, previous_end: u64) {
        let mut list = self.list.lock();
        if let Some(last) = list.segments.last_mut() {
            last.end = last.end.min(previous_end);
        }
        list.segments.push(segment);
        list.dir_changed = true;
    }

    /// How many files may hold unsynced bytes, and are open therefore.
    pub(crate) fn unsynced_count(&self) -> usize {
        self.list
            .lock()
            .segments
            .iter()
            .filter(|segment| segment.unsynced.is_some())
            .count()
    }

    /// The file that starts at `start` is complete and on the disk.
    pub(crate) fn synced_alone(&self, start: u64) {
        let mut list = self.list.lock();
        if let Some(segment) = list
            .segments
            .iter_mut()
            .rfind(|segment| segment.start == start)
        {
            segment.unsynced = None;
        }
    }

    pub(crate) fn snapshot(&self) -> Vec<Segment> {
        self.list.lock().segments.clone()
    }

    /// Files that may hold unsynced bytes.
    pub(crate) fn unsynced(&self) -> Unsynced {
        let mut list = self.list.lock();
        let files = list
            .segments
            .iter()
            .filter_map(|segment| segment.unsynced.clone())
            .collect();
        Unsynced {
            files,
            dir_changed: std::mem::take(&mut list.dir_changed),
        }
    }

    /// Everything up to `position` is on the disk: files that end there need no further sync.
    pub(crate) fn synced(&self, position: u64) {
        for segment in &mut self.list.lock().segments {
            if segment.end <= position {
                segment.unsynced = None;
            }
        }
    }

    /// Position of the oldest byte, and bytes on disk with the log ending at `written`.
    pub(crate) fn extent(&self, written: u64) -> Extent {
        let list = self.list.lock();
        let bytes = list
            .segments
            .iter()
            .map(|s| HEADER + s.end.min(written).saturating_sub(s.start))
            .sum();
        Extent {
            bytes,
            files: list.segments.len() as u64,
        }
    }

    /// Deletes the oldest files that end at or before `folded`, as far as `drop_it` says so for (bytes that
    /// the log would still have without it, its successor). The newest file stays.
    pub(crate) fn trim(
        &self,
        folded: u64,
        written: u64,
        drop_it: impl Fn(u64, &Segment) -> bool,
    ) -> io::Result<usize> {
        let mut dropped = 0;
        loop {
            let path = {
                let mut list = self.list.lock();
                let bytes: u64 = list
                    .segments
                    .iter()
                    .skip(1)
                    .map(|s| s.end.min(written).saturating_sub(s.start))
                    .sum();
                let (Some(oldest), Some(next)) = (list.segments.first(), list.segments.get(1))
                else {
                    return Ok(dropped);
                };
                if oldest.end > folded || !drop_it(bytes, next) {
                    return Ok(dropped);
                }
                let path = oldest.path.clone();
                list.segments.remove(0);
                list.dir_changed = true;
                path
            };
            std::fs::remove_file(path)?;
            dropped += 1;
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub(crate) bytes: u64,
    pub(crate) files: u64,
}
