//! The messages of one queue that wait for a consumer, in order.
//!
//! ```text
//! returned (by seq) │ front ─────── │ paged ················· │ back ──────────
//! came back         │ in memory     │ only in the tables      │ in memory, newest; may be unfolded
//!                   └ oldest        └ [from, …), `count` of them
//! ```
//! Messages leave memory from the front end of `back`, and only when the tables hold them (their record is folded);
//! they come back into `front` by a scan that starts at the stored place, never at the queue's first row.

use std::collections::{BTreeMap, VecDeque};

use storage::{Engine, Keyspace, Lsn};

use super::message::Message;
use crate::Slot;
use crate::rows::{self, Tag};

/// Octets that a waiting message costs besides its own: its place in a deque and its allocation.
pub(super) const ENTRY_BYTES: usize = size_of::<Entry>() + 40;

/// Messages read ahead in one go, and the octets after which reading stops.
const PAGE_MESSAGES: usize = 512;
const PAGE_BYTES: usize = 1 << 20;
/// Messages that stay at each end of a queue when its middle leaves memory.
const KEEP: usize = 256;

/// A message in a queue.
#[derive(Debug)]
pub struct Entry {
    /// Place in the queue: grows, never used twice.
    pub(super) seq: u64,
    /// The record that put its row: it is in the tables when that record is folded. 0 = it is there.
    pub(super) log_seq: u64,
    /// Where that record ends: who shows the message waits for it. 0 = there is nothing to wait for.
    pub(super) lsn: Lsn,
    /// Has a row.
    pub(super) logged: bool,
    pub(super) redelivered: bool,
    pub(super) message: Message,
}

/// Not yet known: the record is being made. [`super::Space::committed`] fills it in before the locks go.
pub(super) const PENDING: u64 = u64::MAX;

impl Entry {
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// Whether a delivery of it was tried before.
    #[must_use]
    pub fn is_redelivered(&self) -> bool {
        self.redelivered
    }

    /// The position in the log that a delivery waits for; 0 when there is none.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }
}

#[derive(Debug, Default)]
pub(super) struct Ready {
    returned: BTreeMap<u64, Entry>,
    front: VecDeque<Entry>,
    paged_from: u64,
    paged_count: u64,
    /// How many of them are transient: the stored count does not know them.
    paged_transient: u64,
    back: VecDeque<Entry>,
    /// Octets of what is in memory here.
    bytes: usize,
    /// Octets of the bodies of all messages, in memory or not.
    body_bytes: u64,
    /// How many of these are of transient messages: a start does not know them.
    transient_bytes: u64,
}

impl Ready {
    /// All messages are in the tables, from `from` on.
    pub(super) fn stored(from: u64, count: u64, body_bytes: u64) -> Self {
        Self {
            paged_from: from,
            paged_count: count,
            body_bytes,
            ..Self::default()
        }
    }

    pub(super) fn len(&self) -> u64 {
        (self.returned.len() + self.front.len() + self.back.len()) as u64 + self.paged_count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.back.is_empty()
            && self.paged_count == 0
            && self.front.is_empty()
            && self.returned.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    pub(super) fn transient_bytes(&self) -> u64 {
        self.transient_bytes
    }

    /// The oldest message; `None` when there is none, or when the tables must be read for it.
    pub(super) fn peek(&self) -> Option<&Entry> {
        let returned = self.returned.first_key_value().map(|(_, entry)| entry);
        let newest = if self.paged_count == 0 {
            self.back.front()
        } else {
            None
        };
        returned.or(self.front.front()).or(newest)
    }

    /// Appends the newest message.
    pub(super) fn push(&mut self, entry: Entry) {
        self.count(&entry.message);
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

    /// Takes the oldest message that is in memory; when the tables hold an older one, call [`Ready::read_ahead`] first.
    pub(super) fn pop(&mut self) -> Option<Entry> {
        let entry = match self.returned.pop_first() {
            Some((_, entry)) => entry,
            None => match self.front.pop_front() {
                Some(entry) => entry,
                None if self.paged_count == 0 => self.back.pop_front()?,
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

    /// Must the tables be read before the next message can be taken?
    pub(super) fn wants_reading(&self) -> bool {
        self.paged_count > 0 && self.front.is_empty() && self.returned.is_empty()
    }

    /// Reads the next page. Rows of transient messages below `dead_below` were left by an earlier run: their keys go to
    /// `dead`, as (seq, apart).
    pub(super) fn read_ahead(
        &mut self,
        engine: &Engine,
        slot: Slot,
        id: u64,
        marked_below: u64,
        dead_below: u64,
        dead: &mut Vec<(u64, bool)>,
    ) -> Result<(), storage::Error> {
        let prefix = rows::object_prefix(slot, Tag::Message, id);
        let end = rows::prefix_end(&prefix);
        let from = [&prefix[..], &self.paged_from.to_be_bytes()].concat();
        let mut found: Vec<(u64, Message, bool)> = Vec::new();
        // Both keyspaces hold a part of the sequence. A scan that stopped early bounds what is certain.
        let mut certain = u64::MAX;
        for (keyspace, apart) in [(Keyspace::Rows, false), (Keyspace::Bodies, true)] {
            let (mut count, mut bytes, mut last) = (0, 0, None);
            engine.scan(
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
                        bytes += message.weight();
                        found.push((seq, message, apart));
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
        found.sort_unstable_by_key(|(seq, ..)| *seq);
        for (seq, message, apart) in found {
            if seq > certain || self.back.front().is_some_and(|newer| seq >= newer.seq) {
                break;
            }
            self.paged_from = seq + 1;
            if !message.is_persistent() && seq < dead_below {
                dead.push((seq, apart));
                continue;
            }
            self.paged_count = self.paged_count.saturating_sub(1);
            self.paged_transient = self
                .paged_transient
                .saturating_sub(u64::from(!message.is_persistent()));
            self.bytes += message.weight();
            self.front.push_back(Entry {
                seq,
                log_seq: 0,
                lsn: Lsn(0),
                logged: true,
                redelivered: seq < marked_below,
                message,
            });
        }
        if certain == u64::MAX {
            // The scans came to the end: there is nothing more, whatever was counted.
            self.paged_count = 0;
            self.paged_transient = 0;
        } else {
            self.paged_from = self.paged_from.max(certain.saturating_add(1));
        }
        Ok(())
    }

    /// Lets messages of the middle leave memory until `goal` octets are freed. Those without a row are given to `log`,
    /// which writes one; they can leave when it is folded.
    pub(super) fn page_out(
        &mut self,
        folded_seq: u64,
        goal: usize,
        log: &mut dyn FnMut(&mut Entry),
    ) -> usize {
        if self.front.is_empty() && self.paged_count == 0 {
            for _ in 0..KEEP.min(self.back.len().saturating_sub(KEEP)) {
                self.front.extend(self.back.pop_front());
            }
        }
        let mut freed = 0;
        while freed < goal && self.back.len() > KEEP {
            let Some(entry) = self.back.front_mut() else {
                break;
            };
            if !entry.logged {
                // A whole run of them at once: each is looked at a second time only after a fold.
                for entry in self
                    .back
                    .iter_mut()
                    .take(PAGE_MESSAGES)
                    .filter(|entry| !entry.logged)
                {
                    log(entry);
                }
                break;
            }
            if entry.log_seq > folded_seq {
                break;
            }
            let Some(entry) = self.back.pop_front() else {
                break;
            };
            if self.paged_count == 0 {
                self.paged_from = entry.seq;
            }
            self.paged_count += 1;
            self.paged_transient += u64::from(!entry.message.is_persistent());
            freed += entry.message.weight();
        }
        self.bytes -= freed;
        freed
    }

    /// Everything that is in memory leaves it; gives what stood in the tables only: first seq, count, and how many of
    /// these are persistent.
    pub(super) fn clear(&mut self, mut gone: impl FnMut(Entry)) -> (u64, u64, u64) {
        let persistent = self.paged_count.saturating_sub(self.paged_transient);
        let stored = (self.paged_from, self.paged_count, persistent);
        let all = std::mem::take(self);
        all.returned
            .into_values()
            .chain(all.front)
            .chain(all.back)
            .for_each(&mut gone);
        stored
    }
}
