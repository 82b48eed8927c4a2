//! Reading the log from a position: change feeds, audit, later replication.

use crate::{Error, Lsn, Record};

/// Records from a position on, in log order. See [`crate::Engine::read_log`].
#[derive(Debug)]
pub struct LogReader {
    records: std::collections::VecDeque<(u64, Vec<u8>)>,
    current: Vec<u8>,
}

impl LogReader {
    pub(crate) fn new(records: impl IntoIterator<Item = (u64, Vec<u8>)>) -> Self {
        Self {
            records: records.into_iter().collect(),
            current: Vec::new(),
        }
    }

    /// The next record, `None` at the end of what is written (call again later to follow).
    ///
    /// # Errors
    /// [`Error::Trimmed`] if retention deleted the position, [`Error::Damaged`], [`Error::Io`].
    #[expect(clippy::should_implement_trait, reason = "it lends the record")]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, Error> {
        let Some((start, bytes)) = self.records.pop_front() else {
            return Ok(None);
        };
        self.current = bytes;
        Ok(Record::split(&self.current, start).map(|(record, _)| record))
    }

    /// Where the next call goes on.
    pub fn position(&self) -> Lsn {
        Lsn(self.records.front().map_or(0, |(start, _)| *start))
    }
}
