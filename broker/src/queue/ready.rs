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

use super::message::Message;
use super::paged::{PAGE_MESSAGES, Paged, Source};

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
            attempts: 0,
            message,
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
    back: VecDeque<Entry>,
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
        (self.returned.len() + self.front.len() + self.back.len()) as u64 + self.paged.len()
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
        let octets = entry.message.body().len() as u64;
        self.bytes -= entry.message.weight();
        self.body_bytes = self.body_bytes.saturating_sub(octets);
        if !entry.message.is_persistent() {
            self.transient_bytes = self.transient_bytes.saturating_sub(octets);
        }
        Some(entry)
    }

    /// Must tables or log be read before the next message can be taken?
    pub(super) fn wants_reading(&self) -> bool {
        !self.paged.is_empty() && self.front.is_empty() && self.returned.is_empty()
    }

    /// Reads the next page. Messages below `earlier` are of an earlier run: the transient ones are gone (their places go
    /// to `dead`, as seq and whether the body lies apart), and deliveries of those below `tried` were perhaps tried. Gives
    /// where in `front` the page begins.
    pub(super) fn read_ahead(
        &mut self,
        source: Source<'_>,
        tried: u64,
        earlier: u64,
        dead: &mut Vec<(u64, bool)>,
    ) -> Result<usize, storage::Error> {
        let before = self.back.front().map_or(source.end, |newer| newer.seq);
        let from = self.front.len();
        for found in self.paged.read(source, before)? {
            if !found.message.is_persistent() && found.seq < earlier {
                dead.push((found.seq, found.message.is_apart()));
                continue;
            }
            self.paged.took(&found);
            self.bytes += found.message.weight();
            self.front.push_back(Entry {
                lsn: found.lsn,
                logged: true,
                redelivered: found.seq < tried,
                ..Entry::new(found.seq, found.message)
            });
        }
        Ok(from)
    }

    /// Tells messages in `front`, from a place on, how often they were tried by an earlier run.
    pub(super) fn recall(&mut self, from: usize, attempts: &mut BTreeMap<u64, u16>) {
        for entry in self.front.iter_mut().skip(from) {
            entry.attempts = attempts.remove(&entry.seq).unwrap_or(0);
        }
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
        in_memory.for_each(gone);
        (all.paged.from(), all.paged.len(), all.paged.persistent())
    }
}
