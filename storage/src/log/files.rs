//! The list of the log's files, shared by the writer, the sync thread, readers, the fold and retention.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::segment::{self, HEADER, Segment};

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
    /// Complete files opened for reading, by their start; the one used last is the last one.
    opened: Vec<(u64, Arc<File>)>,
}

/// Files that are kept open for readers of bodies.
const OPENED_MAX: usize = 16;

/// What one sync has to do.
#[derive(Debug, Default)]
pub(crate) struct Unsynced {
    pub(crate) files: Vec<Arc<File>>,
    pub(crate) dir_changed: bool,
}

/// A file that holds a position.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) file: Arc<File>,
    /// Where in the file the position is.
    pub(crate) offset: u64,
    /// Position after the file's last group; `u64::MAX`: it is being written.
    pub(crate) end: u64,
}

impl Files {
    pub(crate) fn new(dir: PathBuf, segments: Vec<Segment>) -> Self {
        Self {
            dir,
            list: Mutex::new(List {
                segments,
                dir_changed: false,
                opened: Vec::new(),
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

    /// Position after the last group of the file that starts at `start`; `u64::MAX`: it is being written. `None`: it was deleted.
    pub(crate) fn end_of(&self, start: u64) -> Option<u64> {
        let list = self.list.lock();
        let segment = list.segments.iter().rfind(|s| s.start == start)?;
        Some(segment.end)
    }

    /// The file that holds `position`. `None`: that part of the log was deleted, or was never used.
    pub(crate) fn open_at(&self, position: u64) -> io::Result<Option<Opened>> {
        let mut list = self.list.lock();
        let behind = list.segments.partition_point(|s| s.start <= position);
        let Some(segment) = behind
            .checked_sub(1)
            .and_then(|index| list.segments.get(index))
            .filter(|segment| position < segment.end)
        else {
            return Ok(None);
        };
        let (start, end) = (segment.start, segment.end);
        let opened = |file| Opened {
            file,
            offset: segment::offset(start, position),
            end,
        };
        if let Some(file) = &segment.unsynced {
            return Ok(Some(opened(Arc::clone(file))));
        }
        let file = match list.opened.iter().position(|(other, _)| *other == start) {
            Some(index) => list.opened.remove(index).1,
            // Under the lock, so that it cannot be deleted just before.
            None => Arc::new(File::open(&segment.path)?),
        };
        if list.opened.len() >= OPENED_MAX {
            list.opened.remove(0);
        }
        list.opened.push((start, Arc::clone(&file)));
        Ok(Some(opened(file)))
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
                let (start, path) = (oldest.start, oldest.path.clone());
                list.segments.remove(0);
                // An open file would keep its space.
                list.opened.retain(|(other, _)| *other != start);
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
