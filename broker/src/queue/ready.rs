//! The messages of one queue that wait for a consumer, in order.
//!
//! ```text
//! returned (by seq) │ front ─────── │ paged ················· │ back ──────────
//! came back         │ in memory     │ in tables and log only  │ in memory, newest
//!                   └ oldest
//! ```
//! Messages leave memory from the front end of `back`, once their record is written ([`super::paged`]); they come back
//! into `front` by a read that starts at the stored place, never at the queue's first row.

use std::collections::{BTreeMap, VecDeque};

use storage::Lsn;

use super::done::Done;
use super::message::Message;
use super::paged::{Found, PAGE_MESSAGES, Paged, Source};

/// Octets that a waiting message costs besides its own: its place in a deque and its allocation.
pub(super) const ENTRY_BYTES: usize = size_of::<Entry>() + 40;

/// A message in a queue.
#[derive(Debug)]
pub struct Entry {
    /// Place in the queue: grows, never used twice.
    pub(super) seq: u64,
    /// Where the record that put its row ends; 0 = it is in the tables, or has no row.
    pub(super) lsn: Lsn,
    /// From the end of its row to the end of that record.
    pub(super) tail: u32,
    /// Has a row.
    pub(super) logged: bool,
    pub(super) redelivered: bool,
    /// The message is gone, only its place is left.
    pub(super) gone: bool,
    /// How often a client had it and gave it back; counted by quorum queues.
    pub(super) attempts: u16,
    pub(super) message: Message,
}

/// Not yet known: the record is being made. [`super::Space::committed`] fills it in before the locks go.
pub(super) const PENDING: Lsn = Lsn(u64::MAX);

impl Entry {
    pub(super) fn new(seq: u64, message: Message) -> Self {
        Self {
            seq,
            lsn: Lsn(0),
            tail: 0,
            logged: false,
            redelivered: false,
            gone: false,
            attempts: 0,
            message,
        }
    }

    /// The place of a message that is gone.
    fn gone(seq: u64) -> Self {
        Self {
            gone: true,
            logged: true,
            ..Self::new(seq, Message::default())
        }
    }

    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// Whether a delivery of it was tried before.
    #[must_use]
    pub fn is_redelivered(&self) -> bool {
        self.redelivered
    }

    /// How often a client had it and gave it back; counted by quorum queues.
    #[must_use]
    pub fn attempts(&self) -> u16 {
        self.attempts
    }

    /// The position in the log that a delivery waits for; 0 when there is none.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        // Transient messages may have a row, to make room in memory, but nobody waits for it.
        if self.message.is_persistent() {
            self.lsn
        } else {
            Lsn(0)
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Ready {
    returned: BTreeMap<u64, Entry>,
    front: VecDeque<Entry>,
    paged: Paged,
    /// Where `paged` begins, and when its first message expires; of one moment.
    paged_deadline: Option<(u64, u64)>,
    /// Without gaps: of what left from the middle the place stays.
    back: VecDeque<Entry>,
    /// How many such places there are; the first one of `back` is none.
    gone: usize,
    /// Octets of what is in memory here, and of `back` alone.
    bytes: usize,
    back_bytes: usize,
    /// Octets of the bodies of all messages, in memory or not.
    body_bytes: u64,
    /// How many of these are of transient messages: a start does not know them.
    transient_bytes: u64,
}

impl Ready {
    /// All messages are in the tables, from `from` on.
    pub(super) fn stored(from: u64, count: u64, body_bytes: u64) -> Self {
        Self {
            paged: Paged::stored(from, count),
            body_bytes,
            ..Self::default()
        }
    }

    pub(super) fn len(&self) -> u64 {
        (self.returned.len() + self.front.len() + self.back.len() - self.gone) as u64
            + self.paged.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.back.is_empty()
            && self.paged.is_empty()
            && self.front.is_empty()
            && self.returned.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.paged.bytes()
    }

    pub(super) fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    pub(super) fn transient_bytes(&self) -> u64 {
        self.transient_bytes
    }

    /// The oldest message; `None` when there is none, or when it must be read first.
    pub(super) fn peek(&self) -> Option<&Entry> {
        let returned = self.returned.first_key_value().map(|(_, entry)| entry);
        let newest = if self.paged.is_empty() {
            self.back.front()
        } else {
            None
        };
        returned.or(self.front.front()).or(newest)
    }

    /// Appends the newest message.
    pub(super) fn push(&mut self, entry: Entry) {
        self.count(&entry.message);
        self.back_bytes += entry.message.weight();
        self.back.push_back(entry);
    }

    /// Puts a message back where it was.
    pub(super) fn put_back(&mut self, entry: Entry) {
        self.count(&entry.message);
        self.returned.insert(entry.seq, entry);
    }

    fn count(&mut self, message: &Message) {
        let octets = message.body().len() as u64;
        self.bytes += message.weight();
        self.body_bytes += octets;
        if !message.is_persistent() {
            self.transient_bytes += octets;
        }
    }

    /// A message of `back` by its seq, while it is there.
    pub(super) fn recent(&mut self, seq: u64) -> Option<&mut Entry> {
        let first = self.back.front()?.seq;
        self.back
            .get_mut(usize::try_from(seq.checked_sub(first)?).ok()?)
            .filter(|entry| entry.seq == seq)
    }

    fn pop_back_front(&mut self) -> Option<Entry> {
        let entry = self.back.pop_front()?;
        self.back_bytes -= entry.message.weight();
        while let Some(place) = self.back.pop_front_if(|next| next.gone) {
            self.gone -= 1;
            self.back_bytes -= place.message.weight();
            self.bytes -= place.message.weight();
            self.paged.skip(place.seq);
        }
        Some(entry)
    }

    /// Takes the oldest message that is in memory; when an older one is not, call [`Ready::read_ahead`] first.
    pub(super) fn pop(&mut self) -> Option<Entry> {
        let entry = match self.returned.pop_first() {
            Some((_, entry)) => entry,
            None => match self.front.pop_front() {
                Some(entry) => entry,
                None if self.paged.is_empty() => self.pop_back_front()?,
                None => return None,
            },
        };
        self.bytes -= entry.message.weight();
        self.forget_body(&entry.message);
        Some(entry)
    }

    fn forget_body(&mut self, message: &Message) {
        let octets = message.body().len() as u64;
        self.body_bytes = self.body_bytes.saturating_sub(octets);
        if !message.is_persistent() {
            self.transient_bytes = self.transient_bytes.saturating_sub(octets);
        }
    }

    /// Takes a message from the middle, if it is in memory.
    pub(super) fn remove(&mut self, seq: u64) -> Option<Entry> {
        let entry = match self.returned.remove(&seq) {
            Some(entry) => entry,
            None => match self.front.binary_search_by_key(&seq, |entry| entry.seq) {
                Ok(at) => self.front.remove(at)?,
                Err(_) => self.remove_recent(seq)?,
            },
        };
        self.bytes -= entry.message.weight();
        self.forget_body(&entry.message);
        Some(entry)
    }

    fn remove_recent(&mut self, seq: u64) -> Option<Entry> {
        if self.back.front()?.seq == seq {
            return self.pop_back_front();
        }
        let place = self.recent(seq).filter(|entry| !entry.gone)?;
        let entry = std::mem::replace(place, Entry::gone(seq));
        let left = place.message.weight();
        self.gone += 1;
        self.back_bytes = self.back_bytes - entry.message.weight() + left;
        self.bytes += left;
        Some(entry)
    }

    /// As [`Ready::remove`] of one that is not in memory. Messages below `earlier` are of an earlier run.
    pub(super) fn remove_paged(
        &mut self,
        source: Source<'_>,
        seq: u64,
        earlier: u64,
    ) -> Result<Option<Found>, storage::Error> {
        let before = self.back.front().map_or(source.end, |newer| newer.seq);
        let found = self.paged.remove(source, seq, before, earlier)?;
        if let Some(found) = &found
            && (found.message.is_persistent() || seq >= earlier)
        {
            self.forget_body(&found.message);
        }
        Ok(found)
    }

    /// Must tables or log be read before the next message can be taken?
    pub(super) fn wants_reading(&self) -> bool {
        !self.paged.is_empty() && self.front.is_empty() && self.returned.is_empty()
    }

    /// The deadline of the oldest message while it is known only to tables and log, as it was noted last.
    pub(super) fn paged_deadline(&self) -> Option<u64> {
        let (from, deadline) = self.paged_deadline?;
        (from == self.paged.from()).then_some(deadline)
    }

    /// Reads a page of what is not in memory and takes from it what is `wanted`, up to the first that is not. Messages below
    /// `earlier` are of an earlier run: the transient ones are gone and come to `dead`.
    pub(super) fn take_paged(
        &mut self,
        source: Source<'_>,
        limit: usize,
        earlier: u64,
        done: &Done,
        dead: &mut Vec<Found>,
        wanted: &mut dyn FnMut(&Message) -> bool,
    ) -> Result<Vec<Found>, storage::Error> {
        let before = self.back.front().map_or(source.end, |newer| newer.seq);
        let page = self.paged.look(source, 0, before, limit, done)?;
        let mut taken = Vec::with_capacity(page.found.len());
        for found in page.found {
            if !found.message.is_persistent() && found.seq < earlier {
                dead.push(found);
            } else if wanted(&found.message) {
                self.paged.took(&found);
                taken.push(found);
            } else {
                self.paged.advance(found.seq, false);
                self.paged_deadline = Some((self.paged.from(), found.message.deadline_ms()));
                return Ok(taken);
            }
        }
        self.paged.advance(page.end, page.ends_tables);
        Ok(taken)
    }

    /// What was read for memory is there.
    pub(super) fn extend_front(&mut self, entry: Entry) {
        self.bytes += entry.message.weight();
        self.front.push_back(entry);
    }

    /// What was read leaves from there.
    pub(super) fn drop_paged(&mut self, message: &Message) {
        self.forget_body(message);
    }

    /// Shows messages from seq `from` on, the oldest first, about so many; not those that were given back. Gives the seq to go
    /// on from; `None`: that was all.
    pub(super) fn walk(
        &mut self,
        source: Source<'_>,
        from: u64,
        limit: usize,
        done: &Done,
        visit: &mut dyn FnMut(u64, &Message),
    ) -> Result<Option<u64>, storage::Error> {
        let mut left = limit;
        for entry in self.front.iter().filter(|entry| entry.seq >= from) {
            if left == 0 {
                return Ok(Some(entry.seq));
            }
            left -= 1;
            visit(entry.seq, &entry.message);
        }
        let (mut at, before) = (
            from,
            self.back.front().map_or(source.end, |newer| newer.seq),
        );
        while !self.paged.is_empty() && at < before {
            if left == 0 {
                return Ok(Some(at));
            }
            let page = self
                .paged
                .look(source, at, before, left.min(PAGE_MESSAGES), done)?;
            left = left.saturating_sub(page.found.len().max(1));
            page.found
                .iter()
                .for_each(|found| visit(found.seq, &found.message));
            if page.end <= at {
                break;
            }
            at = page.end;
        }
        let first = self.back.front().map_or(0, |entry| entry.seq);
        let skipped = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX);
        for entry in self.back.iter().skip(skipped).filter(|entry| !entry.gone) {
            if left == 0 {
                return Ok(Some(entry.seq));
            }
            left -= 1;
            visit(entry.seq, &entry.message);
        }
        Ok(None)
    }

    /// Lets the oldest messages of `back` leave memory until `goal` octets are freed or `keep` octets are left; gives how
    /// many were. Those without a row are given to `log`, which writes one; they can leave when their record is written.
    pub(super) fn page_out(
        &mut self,
        written: Lsn,
        folded: Lsn,
        keep: usize,
        goal: usize,
        log: &mut dyn FnMut(&mut Entry),
    ) -> usize {
        self.paged.folded(folded);
        let mut freed = 0;
        while freed < goal && self.back_bytes > keep {
            let Some(entry) = self.back.front() else {
                break;
            };
            if !entry.logged {
                // A whole run of them at once: each is looked at a second time only when it is written.
                let mut weight = 0;
                for (index, entry) in self.back.iter_mut().enumerate() {
                    if index >= PAGE_MESSAGES && freed + weight >= goal {
                        break;
                    }
                    weight += entry.message.weight();
                    if !entry.logged {
                        log(entry);
                    }
                }
                break;
            }
            if entry.lsn > written || !self.paged.push(entry) {
                break;
            }
            let Some(entry) = self.pop_back_front() else {
                break;
            };
            let weight = entry.message.weight();
            self.bytes -= weight;
            freed += weight;
        }
        freed
    }

    /// Everything that is in memory leaves it; gives what was not: first seq, count, and how many of these are
    /// persistent.
    pub(super) fn clear(&mut self, gone: impl FnMut(Entry)) -> (u64, u64, u64) {
        let all = std::mem::take(self);
        let in_memory = all.returned.into_values().chain(all.front).chain(all.back);
        in_memory.filter(|entry| !entry.gone).for_each(gone);
        (all.paged.from(), all.paged.len(), all.paged.persistent())
    }
}
