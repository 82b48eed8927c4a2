//! Writes groups to the newest file of the log, and begins the next file when one is full.

use std::fs::File;
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::ahead::Ahead;
use super::combine::Sink;
use super::group::Group;
use super::segment::{self, Segment};
use super::sync_thread::Syncer;
use super::{Files, counters::Counters};
use crate::fault::{Faults, Step};
use crate::space::Reserve;
use crate::trigger::Trigger;

/// More unsynced files than this there are not: each is open.
const UNSYNCED_FILES: usize = 8;

#[derive(Debug)]
pub(crate) struct Writer {
    term: u32,
    segment_bytes: u64,
    /// Where the log before our first file ends; afterwards the end of our last write.
    previous_end: u64,
    current: Option<Current>,
    shared: Shared,
    faults: Faults,
}

/// What the writer tells others of.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) files: Arc<Files>,
    pub(crate) syncer: Arc<Syncer>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) trigger: Arc<Trigger>,
    pub(crate) reserve: Arc<Reserve>,
}

#[derive(Debug)]
struct Current {
    file: Arc<File>,
    start: u64,
    ahead: Ahead,
}

impl Current {
    fn offset_of(&self, position: u64) -> u64 {
        segment::offset(self.start, position)
    }
}

impl Writer {
    pub(crate) fn new(
        term: u32,
        segment_bytes: u64,
        previous_end: u64,
        shared: Shared,
        faults: Faults,
    ) -> Self {
        Self {
            term,
            segment_bytes,
            previous_end,
            current: None,
            shared,
            faults,
        }
    }

    /// Where the log ends.
    pub(crate) fn previous_end(&self) -> u64 {
        self.previous_end
    }

    fn file_for(&mut self, position: u64) -> io::Result<Arc<File>> {
        if let Some(current) = &self.current
            && position - current.start < self.segment_bytes
        {
            return Ok(Arc::clone(&current.file));
        }
        self.faults.check(Step::SegmentCreate)?;
        if let Some(full) = &self.current {
            full.ahead
                .cut(&full.file, full.offset_of(self.previous_end))?;
        }
        if let Some(full) = &self.current
            && self.shared.files.unsynced_count() > UNSYNCED_FILES
        {
            // The sync thread does not keep up with whole files: then the writer must wait for the disk.
            full.file.sync_data()?;
            self.shared.files.synced_alone(full.start);
        }
        let (segment, file) = with_reserve(&self.shared.reserve, segment::HEADER, || {
            let dir = &self.shared.files.dir;
            Segment::create(dir, self.term, position, self.previous_end)
        })?;
        self.shared.files.begin(segment, self.previous_end);
        self.current = Some(Current {
            file: Arc::clone(&file),
            start: position,
            ahead: Ahead::new(self.shared.counters.syncs.load(Ordering::Relaxed)),
        });
        Ok(file)
    }
}

impl Sink for Writer {
    fn write(&mut self, group: &mut Group, synced: u64) -> io::Result<()> {
        let size = group.size();
        let file = self.file_for(group.first())?;
        let at = self
            .current
            .as_ref()
            .map_or(0, |current| current.offset_of(group.first()));
        group.seal(self.term, synced);
        self.faults
            .check(Step::LogWrite(usize::try_from(size).unwrap_or(usize::MAX)))?;
        let mut again = false;
        with_reserve(&self.shared.reserve, size, || {
            if std::mem::replace(&mut again, true) {
                // What a full disk took of the group is written once more.
                (&*file).seek(SeekFrom::Start(at))?;
            }
            write_group(&file, group)
        })?;
        self.previous_end = group.end();
        let syncs = self.shared.counters.syncs.load(Ordering::Relaxed);
        if let Some(current) = &mut self.current {
            let end = current.offset_of(self.previous_end);
            current.ahead.wrote(&current.file, end, syncs);
        }
        self.shared.counters.writes.fetch_add(1, Ordering::Relaxed);
        self.shared
            .counters
            .records
            .fetch_add(u64::from(group.records()), Ordering::Relaxed);
        Ok(())
    }

    fn wrote(&mut self, synced: u64) {
        self.shared.syncer.wrote(synced);
        self.shared.trigger.wrote(self.previous_end);
    }
}

fn write_group(mut file: &File, group: &Group) -> io::Result<()> {
    match group.contiguous() {
        Some(bytes) => file.write_all(bytes),
        None => {
            let mut slices = Vec::new();
            group.slices(&mut slices);
            write_all_vectored(file, &mut slices)
        }
    }
}

/// Runs `write`; when the disk is full, again and again with blocks of the reserve, while there are any.
fn with_reserve<T>(
    reserve: &Reserve,
    bytes: u64,
    mut write: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    loop {
        match write() {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                if !reserve.give(bytes)? {
                    return Err(error);
                }
            }
            done => return done,
        }
    }
}

fn write_all_vectored(mut file: &File, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut slices, n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
