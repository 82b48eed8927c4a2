//! Following the commit log inside the process: for watchers, change feeds, later replication.
//!
//! A feed is a place in the log and nothing else: it holds at most one group of records in memory, costs writers nothing,
//! and never keeps the log from being trimmed. One that is slower than retention is told so ([`Error::Trimmed`]) and must begin
//! anew from the tables.

use std::sync::Arc;
use std::task::Waker;

use crate::log::Log;
use crate::{Durability, Error, LogReader, Lsn, Need, Record};

/// Records from a position on, in log order, each once, none before it is as safe as the feed's class asks. See
/// [`crate::Engine::subscribe`].
#[derive(Debug)]
pub struct Feed {
    log: Arc<Log>,
    reader: LogReader,
    class: Durability,
}

impl Feed {
    pub(crate) fn new(log: Arc<Log>, from: Lsn, class: Durability) -> Self {
        let reader = LogReader::new(Arc::clone(&log), from);
        Self { log, reader, class }
    }

    /// The next record; `None`: there is none yet, see [`Feed::ready`].
    ///
    /// # Errors
    /// [`Error::Trimmed`] when the next record is gone, because the feed was too slow or its position is too old;
    /// [`Error::Failed`] when the log takes no more records; [`Error::Damaged`], [`Error::Io`].
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, Error> {
        let safe = match self.class {
            Durability::Os | Durability::Interval => self.log.written(),
            Durability::Sync => self.log.synced(),
        };
        // Before the look, so that nothing becomes durable between the look and the answer.
        let failed = self.log.failed();
        match self.reader.next_before(safe)? {
            None if failed => Err(Error::Failed),
            record => Ok(record),
        }
    }

    /// True: ask [`Feed::next_record`] again now. False: `waker` is woken when there may be a record; it is not kept when
    /// this says true.
    pub fn ready(&self, waker: &Waker) -> bool {
        let next = Lsn(self.reader.position().0 + 1);
        self.log.notify(Need::of(next, self.class), waker)
    }

    /// Where to subscribe again to go on behind the last record given.
    pub fn position(&self) -> Lsn {
        self.reader.position()
    }
}
