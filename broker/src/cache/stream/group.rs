//! Consumer groups of a stream: how far each has read, who its consumers are, and what they have not acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use super::id::EntryId;
use super::rows::StreamRows;
use crate::cache::text::Text;

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// By which rows name it; no other group of the stream has it.
    pub(super) number: u32,
    /// The last entry that was delivered.
    pub last: EntryId,
    /// Entries of the stream up to there, all that ever were; -1: not known.
    pub read: i64,
    numbers: BTreeMap<Text, u32>,
    consumers: BTreeMap<u32, Consumer>,
    pending: BTreeMap<EntryId, Pending>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Consumer {
    pub name: Text,
    /// When it asked last, in ms since the epoch.
    pub seen_ms: u64,
    /// When it was given something last.
    pub active_ms: Option<u64>,
    pending: BTreeSet<EntryId>,
}

/// An entry that was delivered and is not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// Number of the consumer; `None`: it was released.
    pub(super) consumer: Option<u32>,
    /// When it was delivered last, in ms since the epoch; 0 for one that was released.
    pub at_ms: u64,
    /// How often.
    pub count: u64,
}

impl Pending {
    /// How often when it is delivered once more; from where Redis' counter ends on, no more.
    pub(super) fn delivered_again(&self) -> u64 {
        if self.count == DELIVERIES_MAX {
            self.count
        } else {
            self.count.wrapping_add(1)
        }
    }
}

/// Where Redis' counter of deliveries ends.
const DELIVERIES_MAX: u64 = i64::MAX.cast_unsigned();

/// Why a consumer releases entries: what becomes of their counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// The last delivery is not counted.
    Silent,
    /// It is.
    Failed,
    /// Nobody should try again.
    Fatal,
}

/// What `XNACK` asks of a group.
#[derive(Debug, Clone, Copy)]
pub struct Release {
    pub why: Released,
    /// How often entries are to count as delivered, whatever the reason.
    pub count: Option<u64>,
    /// Also what is in the stream and not pending.
    pub force: bool,
}

impl Release {
    /// The counter of an entry that was delivered so often.
    pub(super) fn count_after(&self, count: u64) -> u64 {
        match (self.count, self.why) {
            (Some(count), _) => count,
            (None, Released::Silent) => count.saturating_sub(1),
            (None, Released::Failed) => count,
            (None, Released::Fatal) => DELIVERIES_MAX,
        }
    }
}

/// Bytes of memory of a group, of a consumer and of a pending entry, with their shares of trees.
const GROUP: usize = 200;
const CONSUMER: usize = 200;
const PENDING: usize = 80;

/// A number that is not in use.
pub(super) fn unused<T>(numbers: &BTreeMap<u32, T>) -> u32 {
    match numbers.last_key_value() {
        None => 0,
        // The last number stands for nobody.
        Some((&last, _)) if last < u32::MAX - 1 => last + 1,
        // Fewer are in use than there are.
        Some(_) => (0..u32::MAX)
            .find(|number| !numbers.contains_key(number))
            .unwrap_or(0),
    }
}

impl Consumer {
    pub(super) fn new(name: &[u8], seen_ms: u64, active_ms: Option<u64>) -> Self {
        Self {
            name: Text::new(name),
            seen_ms,
            active_ms,
            pending: BTreeSet::new(),
        }
    }

    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }
}

impl Group {
    pub(super) fn new(number: u32, last: EntryId, read: i64) -> Self {
        Self {
            number,
            last,
            read,
            numbers: BTreeMap::new(),
            consumers: BTreeMap::new(),
            pending: BTreeMap::new(),
        }
    }

    /// Rows of it, its own included.
    pub(super) fn rows(&self) -> usize {
        1 + self.consumers.len() + self.pending.len()
    }

    /// Bytes of memory, about.
    pub(in crate::cache) fn memory(&self) -> usize {
        GROUP + self.consumers.len() * CONSUMER + self.pending.len() * PENDING
    }

    /// In order of their names.
    pub fn consumers(&self) -> impl ExactSizeIterator<Item = &Consumer> {
        self.numbers
            .values()
            .filter_map(|number| self.consumers.get(number))
            .collect::<Vec<_>>()
            .into_iter()
    }

    pub(super) fn by_number(&self) -> &BTreeMap<u32, Consumer> {
        &self.consumers
    }

    #[must_use]
    pub fn consumer(&self, name: &[u8]) -> Option<&Consumer> {
        self.consumers.get(self.numbers.get(name)?)
    }

    /// Entries that are not acknowledged, of all consumers.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Those of them that are nobody's.
    #[must_use]
    pub fn released(&self) -> usize {
        let owned: usize = self.consumers.values().map(Consumer::pending).sum();
        self.pending.len() - owned
    }

    /// Pending entries from `start` on, each with its consumer; `None`: it was released.
    pub fn pending_from(
        &self,
        start: EntryId,
    ) -> impl DoubleEndedIterator<Item = (EntryId, &Pending, Option<&Consumer>)> {
        self.pending.range(start..).map(|(id, pending)| {
            let consumer = (pending.consumer).and_then(|number| self.consumers.get(&number));
            (*id, pending, consumer)
        })
    }

    /// Those of one consumer.
    pub fn pending_of<'a>(
        &'a self,
        consumer: &'a Consumer,
        start: EntryId,
    ) -> impl Iterator<Item = (EntryId, &'a Pending, &'a Consumer)> {
        consumer
            .pending
            .range(start..)
            .filter_map(move |id| Some((*id, self.pending.get(id)?, consumer)))
    }

    pub(super) fn pending_at(&self, id: EntryId) -> Option<&Pending> {
        self.pending.get(&id)
    }

    pub(super) fn number_of(&self, consumer: &[u8]) -> Option<u32> {
        self.numbers.get(consumer).copied()
    }

    /// A consumer as its row says. False: there is one of this number or name.
    pub(super) fn add_consumer(&mut self, number: u32, consumer: Consumer) -> bool {
        self.numbers.insert(consumer.name.clone(), number).is_none()
            && self.consumers.insert(number, consumer).is_none()
    }

    /// The number of a consumer, which is made if need be. True: it was.
    pub(super) fn consumer_or_new(
        &mut self,
        name: &[u8],
        now_ms: u64,
        rows: &mut StreamRows<'_, '_>,
    ) -> (u32, bool) {
        if let Some(number) = self.number_of(name) {
            return (number, false);
        }
        let number = unused(&self.consumers);
        let consumer = Consumer::new(name, now_ms, None);
        rows.consumer(self.number, number, &consumer);
        rows.tell_consumer(name, false);
        self.add_consumer(number, consumer);
        (number, true)
    }

    /// Notes that a consumer asked, and whether it was given something.
    pub(super) fn saw(
        &mut self,
        number: u32,
        now_ms: u64,
        given: bool,
        rows: &mut StreamRows<'_, '_>,
    ) {
        let group = self.number;
        if let Some(consumer) = self.consumers.get_mut(&number) {
            let active_ms = if given {
                Some(now_ms)
            } else {
                consumer.active_ms
            };
            if (consumer.seen_ms, consumer.active_ms) != (now_ms, active_ms) {
                (consumer.seen_ms, consumer.active_ms) = (now_ms, active_ms);
                rows.consumer(group, number, consumer);
            }
        }
    }

    /// Removes a consumer with what it has not acknowledged: how much that was.
    pub(super) fn remove_consumer(
        &mut self,
        name: &[u8],
        rows: &mut StreamRows<'_, '_>,
    ) -> Option<usize> {
        let number = self.numbers.remove(name)?;
        let consumer = self.consumers.remove(&number)?;
        for id in &consumer.pending {
            self.pending.remove(id);
            rows.remove_pending(self.number, *id);
        }
        rows.remove_consumer(self.number, name);
        rows.tell_consumer(name, true);
        Some(consumer.pending.len())
    }

    /// A pending entry as its row says. `None`: its consumer is not there.
    pub(super) fn load_pending(&mut self, id: EntryId, pending: Pending) -> Option<()> {
        if let Some(number) = pending.consumer {
            self.consumers.get_mut(&number)?.pending.insert(id);
        }
        self.pending.insert(id, pending);
        Some(())
    }

    /// Makes an entry pending, in place of how it was.
    pub(super) fn put_pending(
        &mut self,
        id: EntryId,
        pending: Pending,
        rows: &mut StreamRows<'_, '_>,
    ) {
        let old = self.pending.insert(id, pending);
        let moved = old.is_none_or(|old| old.consumer != pending.consumer);
        if let Some(number) = old.filter(|_| moved).and_then(|old| old.consumer)
            && let Some(consumer) = self.consumers.get_mut(&number)
        {
            consumer.pending.remove(&id);
        }
        rows.pending(self.number, id, &pending);
        let Some(number) = pending.consumer else {
            rows.tell_pending(id, None, &pending);
            return;
        };
        if let Some(consumer) = self.consumers.get_mut(&number) {
            if moved {
                consumer.pending.insert(id);
            }
            rows.tell_pending(id, Some(&consumer.name), &pending);
        }
    }

    /// An entry is pending no more; false: it was not.
    pub(super) fn remove_pending(&mut self, id: EntryId, rows: &mut StreamRows<'_, '_>) -> bool {
        let Some(pending) = self.pending.remove(&id) else {
            return false;
        };
        if let Some(number) = pending.consumer
            && let Some(consumer) = self.consumers.get_mut(&number)
        {
            consumer.pending.remove(&id);
        }
        rows.remove_pending(self.number, id);
        rows.tell_done(id);
        true
    }
}
