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

use super::done::Done;
use super::message::Message;
use super::ready::Entry;
use super::row;
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

/// Messages that were read and stay where they are.
#[derive(Debug)]
pub(super) struct Page {
    /// Oldest first.
    pub(super) found: Vec<Found>,
    /// What has a lower seq is in `found`, or nobody's.
    pub(super) end: u64,
    /// The tables have no more than this.
    pub(super) ends_tables: bool,
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

    /// Nobody's: the message that was there is gone.
    const NOBODYS: Self = Self {
        at: Lsn(0),
        length: 0,
        tail: 0,
    };

    fn is_nobodys(&self) -> bool {
        self.length == 0
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
    /// How many places in `log` are nobody's.
    nobodys: u64,
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
        self.tables + self.log.len() as u64 - self.nobodys
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
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
            self.log.clear();
            self.nobodys = 0;
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

    /// The message behind the last one is gone.
    pub(super) fn skip(&mut self, seq: u64) {
        if !self.log.is_empty() && seq == self.log_from + self.log.len() as u64 {
            self.log.push_back(InLog::NOBODYS);
            self.nobodys += 1;
        }
    }

    /// The tables have everything up to `folded`.
    pub(super) fn folded(&mut self, folded: Lsn) {
        while self.log.front().is_some_and(|row| row.lsn() <= folded) {
            if !self.pop_place() {
                self.tables += 1;
            }
        }
        if self.log.is_empty() {
            self.log = VecDeque::new();
        }
    }

    /// The first place in the log goes; `true`: it was nobody's.
    fn pop_place(&mut self) -> bool {
        let is_nobodys = self.log.pop_front().is_some_and(|row| row.is_nobodys());
        self.nobodys -= u64::from(is_nobodys);
        self.log_from += 1;
        is_nobodys
    }

    /// Shows messages from seq `from` on, the oldest first, at most so many; they stay here. None has the seq `before` or
    /// a higher one, and what is `done` is nobody's.
    pub(super) fn look(
        &mut self,
        source: Source<'_>,
        from: u64,
        before: u64,
        limit: usize,
        done: &Done,
    ) -> Result<Page, storage::Error> {
        loop {
            self.folded(source.engine.folded());
            let from = from.max(self.from);
            let in_log = from >= self.log_from && !self.log.is_empty();
            if !in_log && (self.tables > 0 || self.log.is_empty()) {
                return self.look_into_tables(source, from, before, limit, done);
            }
            if let Some(page) = self.look_into_log(source, from, limit)? {
                return Ok(page);
            }
            // Retention took the log away between the two looks: then it is folded.
            self.must_be_folded(source.engine)?;
        }
    }

    fn must_be_folded(&self, engine: &Engine) -> Result<(), storage::Error> {
        let written = self.log.iter().find(|row| !row.is_nobodys());
        match written {
            Some(row) if row.lsn() > engine.folded() => {
                Err(damaged(row.at, "unfolded log is gone"))
            }
            _ => Ok(()),
        }
    }

    fn look_into_tables(
        &self,
        source: Source<'_>,
        from: u64,
        before: u64,
        limit: usize,
        done: &Done,
    ) -> Result<Page, storage::Error> {
        let before = if self.log.is_empty() {
            before
        } else {
            self.log_from
        };
        let prefix = rows::object_prefix(source.slot, Tag::Message, source.id);
        let from = [&prefix[..], &done.next(from).to_be_bytes()].concat();
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
            source
                .engine
                .scan(keyspace, &from, end.as_deref(), limit, &mut |key, value| {
                    let Some(seq) = key.last_chunk::<8>().map(|seq| u64::from_be_bytes(*seq))
                    else {
                        return true;
                    };
                    count += 1;
                    last = Some(seq);
                    // The tables may not know yet what is gone.
                    let message = Message::from_row(value).filter(|_| !done.has(seq));
                    if let Some(message) = message {
                        bytes += value.len();
                        found.push(Found {
                            seq,
                            lsn: Lsn(0),
                            message,
                        });
                    }
                    bytes < PAGE_BYTES
                })?;
            if (count >= limit || bytes >= PAGE_BYTES)
                && let Some(last) = last
            {
                certain = certain.min(last);
            }
        }
        found.retain(|found| found.seq <= certain);
        found.sort_unstable_by_key(|found| found.seq);
        let all = certain == u64::MAX;
        Ok(Page {
            found,
            end: if all { before } else { certain + 1 },
            ends_tables: all,
        })
    }

    /// `None`: retention has deleted the log there.
    fn look_into_log(
        &self,
        source: Source<'_>,
        from: u64,
        limit: usize,
    ) -> Result<Option<Page>, storage::Error> {
        let skipped = usize::try_from(from.saturating_sub(self.log_from)).unwrap_or(usize::MAX);
        let mut rows: Vec<(u64, InLog)> = Vec::with_capacity(self.log.len().min(limit));
        let (mut bytes, mut end) = (0, self.log_from.max(from));
        for row in self.log.iter().skip(skipped) {
            if rows.len() >= limit || bytes >= PAGE_BYTES {
                break;
            }
            if !row.is_nobodys() {
                rows.push((end, *row));
                bytes += row.length as usize;
            }
            end += 1;
        }
        let mut found = Vec::with_capacity(rows.len());
        while let Some(rest) = rows.get(found.len()..).filter(|rest| !rest.is_empty()) {
            let places: Vec<BodyAt> = rest.iter().map(|(_, row)| row.value()).collect();
            let mut values = Vec::with_capacity(places.len());
            if source.engine.read_bodies(&places, &mut values)? == 0 {
                return Ok(None);
            }
            for (value, (seq, row)) in values.into_iter().zip(rest) {
                // Copied: one message that is not acknowledged for long must not hold the memory of its neighbours.
                let Some(message) = Message::from_row(&value) else {
                    return Err(damaged(row.at, "no message where one was written"));
                };
                found.push(Found {
                    seq: *seq,
                    lsn: row.lsn(),
                    message,
                });
            }
        }
        Ok(Some(Page {
            found,
            end,
            ends_tables: false,
        }))
    }

    /// What has a lower seq than `end` leaves, after [`Paged::took`] of each; `ends_tables` as of the page.
    pub(super) fn advance(&mut self, end: u64, ends_tables: bool) {
        while !self.log.is_empty() && self.log_from < end {
            self.pop_place();
        }
        if ends_tables {
            // There is nothing more, whatever was counted.
            self.tables = 0;
            self.transient = self.transient.min(self.len());
        }
        self.from = self.from.max(end);
    }

    /// One message of a page counts no more.
    pub(super) fn took(&mut self, found: &Found) {
        if found.lsn == Lsn(0) {
            self.tables = self.tables.saturating_sub(1);
        }
        self.transient = self
            .transient
            .saturating_sub(u64::from(!found.message.is_persistent()));
    }

    /// Takes one from the middle. Messages below `earlier` are of an earlier run, and transient ones of those were not
    /// counted.
    pub(super) fn remove(
        &mut self,
        source: Source<'_>,
        seq: u64,
        before: u64,
        earlier: u64,
    ) -> Result<Option<Found>, storage::Error> {
        loop {
            self.folded(source.engine.folded());
            if seq < self.from || seq >= before {
                return Ok(None);
            }
            let at = seq
                .checked_sub(self.log_from)
                .filter(|_| !self.log.is_empty());
            let Some(at) = at.and_then(|at| usize::try_from(at).ok()) else {
                break;
            };
            let page = match self.log.get(at) {
                Some(row) if !row.is_nobodys() => self.look_into_log(source, seq, 1)?,
                _ => return Ok(None),
            };
            let Some(page) = page else {
                self.must_be_folded(source.engine)?;
                continue;
            };
            let found = page.found.into_iter().next();
            if let (Some(found), Some(row)) = (&found, self.log.get_mut(at)) {
                *row = InLog::NOBODYS;
                self.nobodys += 1;
                self.took(found);
            }
            return Ok(found);
        }
        let key = row::key(source.slot, Tag::Message, source.id, seq);
        let mut row = source.engine.get(Keyspace::Rows, &key)?;
        if row.is_none() {
            row = source.engine.get(Keyspace::Bodies, &key)?;
        }
        let Some(message) = row.and_then(|row| Message::from_row(&row)) else {
            return Ok(None);
        };
        let found = Found {
            seq,
            lsn: Lsn(0),
            message,
        };
        if found.message.is_persistent() || seq >= earlier {
            if self.is_empty() {
                // A client has it.
                return Ok(None);
            }
            self.took(&found);
        }
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
