//! The messages of a queue that are not in memory.
//!
//! ```text
//! in the tables ······················ │ in the written log, not folded yet ·····
//! [from, log_from): a count            │ [log_from, …): 16 octets each
//! ```
//! A message may leave memory as soon as its record is written; where its row lies in the log is remembered until a fold
//! has brought it into the tables. So a backlog of any length holds no bodies, however far the fold is behind.

use std::collections::VecDeque;

use storage::{BodyAt, Engine, Keyspace, Lsn};

use super::message::Message;
use super::ready::Entry;
use crate::Slot;
use crate::rows::{self, Tag};

/// Messages read in one go, under the shard's lock (about 0.5 ms), and the octets after which reading stops.
pub(super) const PAGE_MESSAGES: usize = 256;
const PAGE_BYTES: usize = 256 << 10;

/// Where a queue's rows are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) engine: &'a Engine,
    pub(super) slot: Slot,
    pub(super) id: u64,
    /// No message has this seq or a higher one; `u64::MAX`: it is the queue's last ones.
    pub(super) end: u64,
}

/// A message that was read back.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) seq: u64,
    /// The end of its record, for whoever shows it; 0 when the tables had it.
    pub(super) lsn: Lsn,
    pub(super) message: Message,
}

/// A row in the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct InLog {
    /// Where the value begins, and its octets.
    at: Lsn,
    length: u32,
    /// From the value's end to the end of its record.
    tail: u32,
}

impl InLog {
    /// A value of so many octets, with `tail` octets between its end and that of its record, at `lsn`.
    pub(super) fn before(lsn: Lsn, length: u32, tail: u32) -> Self {
        let behind = u64::from(length) + u64::from(tail);
        Self {
            at: Lsn(lsn.0.saturating_sub(behind)),
            length,
            tail,
        }
    }

    pub(super) fn value(&self) -> BodyAt {
        BodyAt {
            at: self.at,
            length: self.length,
        }
    }

    pub(super) fn lsn(&self) -> Lsn {
        Lsn(self.value().end() + u64::from(self.tail))
    }
}

/// Messages that only tables and log have, oldest first.
#[derive(Debug, Default)]
pub(super) struct Paged {
    /// No older message is here.
    from: u64,
    tables: u64,
    log: VecDeque<InLog>,
    /// Seq of the first in `log`; the others follow without a gap.
    log_from: u64,
    /// How many of all are transient: the stored count does not know them.
    transient: u64,
}

impl Paged {
    /// `count` messages in the tables, from seq `from` on.
    pub(super) fn stored(from: u64, count: u64) -> Self {
        Self {
            from,
            tables: count,
            ..Self::default()
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.tables + self.log.len() as u64
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tables == 0 && self.log.is_empty()
    }

    /// Octets that remembering them costs.
    pub(super) fn bytes(&self) -> usize {
        self.log.len() * size_of::<InLog>()
    }

    pub(super) fn from(&self) -> u64 {
        self.from
    }

    pub(super) fn persistent(&self) -> u64 {
        self.len().saturating_sub(self.transient)
    }

    /// Takes over a message whose record is written; `false`: it is not the next one, and must stay in memory.
    pub(super) fn push(&mut self, entry: &Entry) -> bool {
        if self.is_empty() {
            self.from = entry.seq;
        }
        if self.log.is_empty() {
            self.log_from = entry.seq;
        } else if entry.seq != self.log_from + self.log.len() as u64 {
            return false;
        }
        let length = entry.message.row_len();
        self.log
            .push_back(InLog::before(entry.lsn, length, entry.tail));
        self.transient += u64::from(!entry.message.is_persistent());
        true
    }

    /// The tables have everything up to `folded`.
    pub(super) fn folded(&mut self, folded: Lsn) {
        while self.log.front().is_some_and(|row| row.lsn() <= folded) {
            self.log.pop_front();
            self.log_from += 1;
            self.tables += 1;
        }
        if self.log.is_empty() {
            self.log = VecDeque::new();
        }
    }

    /// Takes the oldest ones, of which none has the seq `before` or a higher one. Empty although there were some: what was
    /// counted is not there.
    pub(super) fn read(
        &mut self,
        source: Source<'_>,
        before: u64,
    ) -> Result<Vec<Found>, storage::Error> {
        loop {
            self.folded(source.engine.folded());
            if self.tables > 0 || self.log.is_empty() {
                return self.read_tables(source, before);
            }
            if let Some(found) = self.read_log(source)? {
                return Ok(found);
            }
            // Retention took the log away between the two looks: then it is folded.
            if let Some(row) = self.log.front()
                && row.lsn() > source.engine.folded()
            {
                return Err(damaged(row.at, "unfolded log is gone"));
            }
        }
    }

    fn read_tables(
        &mut self,
        source: Source<'_>,
        before: u64,
    ) -> Result<Vec<Found>, storage::Error> {
        let before = if self.log.is_empty() {
            before
        } else {
            self.log_from
        };
        let prefix = rows::object_prefix(source.slot, Tag::Message, source.id);
        let from = [&prefix[..], &self.from.to_be_bytes()].concat();
        let end = if before == u64::MAX {
            rows::prefix_end(&prefix)
        } else {
            Some([&prefix[..], &before.to_be_bytes()].concat())
        };
        let mut found = Vec::new();
        // Both keyspaces hold a part of the sequence. A scan that stopped early bounds what is certain.
        let mut certain = u64::MAX;
        for keyspace in [Keyspace::Rows, Keyspace::Bodies] {
            let (mut count, mut bytes, mut last) = (0, 0, None);
            source.engine.scan(
                keyspace,
                &from,
                end.as_deref(),
                PAGE_MESSAGES,
                &mut |key, value| {
                    let Some(seq) = key.last_chunk::<8>().map(|seq| u64::from_be_bytes(*seq))
                    else {
                        return true;
                    };
                    count += 1;
                    last = Some(seq);
                    if let Some(message) = Message::from_row(value) {
                        bytes += value.len();
                        found.push(Found {
                            seq,
                            lsn: Lsn(0),
                            message,
                        });
                    }
                    bytes < PAGE_BYTES
                },
            )?;
            if (count >= PAGE_MESSAGES || bytes >= PAGE_BYTES)
                && let Some(last) = last
            {
                certain = certain.min(last);
            }
        }
        found.retain(|found| found.seq <= certain);
        found.sort_unstable_by_key(|found| found.seq);
        if certain == u64::MAX {
            // The scans came to the end: there is nothing more, whatever was counted.
            self.tables = 0;
            self.from = before;
            self.transient = self.transient.min(self.log.len() as u64);
        } else {
            self.from = certain + 1;
        }
        Ok(found)
    }

    /// One message of a page of [`Paged::read`] counts no more.
    pub(super) fn took(&mut self, found: &Found) {
        if found.lsn == Lsn(0) {
            self.tables = self.tables.saturating_sub(1);
        }
        self.transient = self
            .transient
            .saturating_sub(u64::from(!found.message.is_persistent()));
    }

    /// `None`: retention has deleted the log there.
    fn read_log(&mut self, source: Source<'_>) -> Result<Option<Vec<Found>>, storage::Error> {
        let mut places = Vec::with_capacity(self.log.len().min(PAGE_MESSAGES));
        let mut bytes = 0;
        for row in self.log.iter().take(PAGE_MESSAGES) {
            places.push(row.value());
            bytes += row.length as usize;
            if bytes >= PAGE_BYTES {
                break;
            }
        }
        let mut values = Vec::with_capacity(places.len());
        if source.engine.read_bodies(&places, &mut values)? == 0 {
            return Ok(None);
        }
        let mut found = Vec::with_capacity(values.len());
        for (value, row) in values.into_iter().zip(self.log.iter()) {
            // Copied: one message that is not acknowledged for long must not hold the memory of its neighbours.
            let Some(message) = Message::from_row(&value) else {
                return Err(damaged(row.at, "no message where one was written"));
            };
            found.push(Found {
                seq: self.log_from + found.len() as u64,
                lsn: row.lsn(),
                message,
            });
        }
        self.log.drain(..found.len());
        self.log_from += found.len() as u64;
        self.from = self.log_from;
        Ok(Some(found))
    }
}

pub(super) fn damaged(position: Lsn, what: &str) -> storage::Error {
    storage::Error::Damaged {
        path: "log".into(),
        offset: position.0,
        what: what.into(),
    }
}
