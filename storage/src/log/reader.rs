//! Reading the log from a position: change feeds, audit, later replication.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::Log;
use super::group::{self, Found, Header};
use super::record::Record;
use super::segment::Segment;
use crate::{Error, Lsn};

/// Records from a position on, in log order, as far as they are written. See [`crate::Engine::read_log`].
#[derive(Debug)]
pub struct LogReader {
    log: Arc<Log>,
    /// Records that end at or before this have been given, or were not asked for.
    after: u64,
    /// Where the next group begins; `None`: to be found.
    next_group: Option<u64>,
    file: Option<(File, Segment)>,
    payload: Vec<u8>,
    /// Position of the payload's first byte, and how far it has been read.
    payload_start: u64,
    read: usize,
}

impl LogReader {
    pub(crate) fn new(log: Arc<Log>, from: Lsn) -> Self {
        let payload = Vec::new();
        Self {
            log,
            after: from.0,
            next_group: None,
            file: None,
            payload,
            payload_start: 0,
            read: 0,
        }
    }

    /// The next record, `None` at the end of what is written (call again later to follow).
    ///
    /// # Errors
    /// [`Error::Trimmed`] if retention deleted the position, [`Error::Damaged`], [`Error::Io`].
    #[expect(clippy::should_implement_trait, reason = "it lends the record")]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, Error> {
        self.next_before(u64::MAX)
    }

    /// As [`LogReader::next`], for records that end at or before `limit`: what ends behind it stays to be given later.
    pub(crate) fn next_before(&mut self, limit: u64) -> Result<Option<Record<'_>>, Error> {
        loop {
            while let Some(rest) = self
                .payload
                .get(self.read..)
                .filter(|rest| !rest.is_empty())
            {
                let start = self.payload_start + self.read as u64;
                let Some((record, size)) = Record::split(rest, start) else {
                    return Err(Error::damaged(
                        &self.log.files.dir,
                        start,
                        "a record of an unknown version",
                    ));
                };
                let lsn = record.lsn;
                if lsn.0 > limit {
                    return Ok(None);
                }
                let at = self.read;
                self.read += size;
                if lsn.0 > self.after {
                    self.after = lsn.0;
                    // Split once more: the borrow of the loop must not outlive it.
                    let rest = self.payload.get(at..).unwrap_or(&[]);
                    return Ok(Record::split(rest, start).map(|(record, _)| record));
                }
            }
            if !self.load_group()? {
                return Ok(None);
            }
        }
    }

    /// Records that end at or before this position have been read.
    pub fn position(&self) -> Lsn {
        Lsn(self.after)
    }

    /// Reads the next group; `false`: nothing more is written.
    fn load_group(&mut self) -> Result<bool, Error> {
        let written = self.log.written();
        let mut position = match self.next_group {
            Some(position) => position,
            None if self.after >= written => return Ok(false),
            None => self.seek()?,
        };
        loop {
            if position >= written {
                return Ok(false);
            }
            self.see_end(position)?;
            if self
                .file
                .as_ref()
                .is_none_or(|(_, segment)| position >= segment.end)
            {
                position = self.open(position)?;
                self.next_group = Some(position);
                continue;
            }
            let Some((file, segment)) = &self.file else {
                return Ok(false);
            };
            let err = |source| Error::io("cannot read", &segment.path, source);
            let offset = segment.offset_of(position);
            let mut head = [0; group::HEADER];
            file.read_exact_at(&mut head, offset).map_err(err)?;
            let Found::Header(header) = Header::find(&head) else {
                return Err(Error::damaged(&segment.path, position, "no group header"));
            };
            self.next_group = Some(header.end());
            if header.end() <= self.after {
                position = header.end();
                continue;
            }
            self.payload.resize(header.length as usize, 0);
            file.read_exact_at(&mut self.payload, offset + group::HEADER as u64)
                .map_err(err)?;
            if crc32c::crc32c(&self.payload) != header.payload_crc {
                return Err(Error::damaged(
                    &segment.path,
                    position,
                    "a group with a wrong checksum",
                ));
            }
            self.payload_start = position + group::HEADER as u64;
            self.read = 0;
            return Ok(true);
        }
    }

    /// The file was being written when it was opened: it may have an end by now. One that is deleted has an end, too, but
    /// nobody knows it any more.
    fn see_end(&mut self, position: u64) -> Result<(), Error> {
        let Some((_, segment)) = self.file.as_mut().filter(|(_, s)| s.end == u64::MAX) else {
            return Ok(());
        };
        match self.log.files.end_of(segment.start) {
            Some(end) => {
                segment.end = end;
                Ok(())
            }
            None => Err(self.trimmed(position)),
        }
    }

    fn trimmed(&self, wanted: u64) -> Error {
        let segments = self.log.files.snapshot();
        let oldest = segments.first().map_or(wanted, |segment| segment.start);
        Error::Trimmed {
            wanted: Lsn(wanted),
            oldest: Lsn(oldest),
        }
    }

    /// The first group of the file that holds `after`.
    fn seek(&mut self) -> Result<u64, Error> {
        let segments = self.log.files.snapshot();
        let holds = segments
            .iter()
            .rfind(|segment| segment.start <= self.after)
            .or(segments.first());
        let Some(segment) = holds else {
            return Ok(self.after);
        };
        let complete = segment.start <= self.after || segment.previous_end <= self.after;
        if !complete && segment.previous_end > 0 {
            return Err(Error::Trimmed {
                wanted: Lsn(self.after),
                oldest: Lsn(segment.start),
            });
        }
        Ok(segment.start)
    }

    /// Opens the file of the group at `position`, or the one that goes on from there. Returns the group's position.
    fn open(&mut self, position: u64) -> Result<u64, Error> {
        self.payload.clear();
        self.read = 0;
        let segments = self.log.files.snapshot();
        let holds = segments.iter().find(|segment| {
            (segment.start <= position && position < segment.end)
                || segment.previous_end == position
        });
        let Some(segment) = holds else {
            return Err(self.trimmed(position));
        };
        let file =
            File::open(&segment.path).map_err(|e| Error::io("cannot open", &segment.path, e))?;
        let start = position.max(segment.start);
        self.file = Some((file, segment.clone()));
        Ok(start)
    }
}
