//! Streams: entries in the order of their ids, and the groups that read them.
//!
//! ```text
//! Stream ─┬─ entries: chunks of up to 100 entries or 4 KiB, by id
//!         ├─ groups, by name ─┬─ consumers, by name and number
//!         │                   └─ pending entries, by id: whose, since when, how often
//!         └─ producers, by name: entries that each has added lately, see `stream/idempotence.rs`
//! ```
//! All of it is in memory or none, but of a large one only some of its entries (`stream/pages.rs`). Each entry, group, consumer and pending entry has a row of its own (`stream/rows.rs`), so a
//! command writes as many rows as it changes of these, however long the stream is.

mod chunk;
mod entries;
mod group;
mod id;
mod idempotence;
mod need;
mod pages;
mod refs;
mod restored;
mod rows;

use std::collections::BTreeMap;

pub use chunk::{Entry, Pairs, body};
pub use entries::{Trim, Until};
pub use group::{Consumer, Group, Pending, Release, Released};
pub use id::EntryId;
pub use idempotence::{IdempotenceFacts, IdempotenceSettings};
pub use need::{Between, Need, Span};
pub use refs::{Deletion, Refs};
pub use restored::{
    Restored, RestoredConsumer, RestoredGroup, RestoredIdempotence, RestoredPending,
    RestoredProducer,
};

use super::Error;
use super::row::Rows;
use super::text::Text;
use entries::Entries;
use idempotence::Idempotence;
use rows::StreamRows;
pub(super) use rows::entry_row;

/// What outlives the entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Meta {
    /// Ids of entries that come must be larger.
    last: EntryId,
    /// The largest id that was deleted by name.
    deleted: EntryId,
    /// Entries ever added.
    added: u64,
}

/// See the module. Every change is also a row.
#[derive(Debug, Clone)]
pub struct Stream {
    pub(super) id: u64,
    meta: Meta,
    entries: Entries,
    groups: BTreeMap<Text, Group>,
    numbers: BTreeMap<u32, Text>,
    /// Rows and bytes of memory of all groups.
    grouped: (usize, usize),
    /// `None`: nobody has asked for it yet.
    idempotence: Option<Box<Idempotence>>,
    /// What happened since [`Stream::take_news`].
    news: News,
}

/// What others are to know.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct News {
    /// Who waits for the stream is to be looked at.
    pub(super) ready: bool,
    /// Entries came or went: only that counts as a change for `WATCH`, as in Redis.
    pub(super) entries: bool,
    /// Rows of entries from the one id to before the other are nobody's any more.
    pub(super) gone: Option<(EntryId, EntryId)>,
}

/// What `XREADGROUP` asks of a group.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    pub group: &'a [u8],
    pub consumer: &'a [u8],
    /// 0: all.
    pub count: usize,
    /// What is delivered counts as acknowledged.
    pub noack: bool,
    pub now_ms: u64,
}

/// What `XCLAIM` and `XAUTOCLAIM` ask of a group.
#[derive(Debug, Clone, Copy, Default)]
pub struct Claim<'a> {
    pub group: &'a [u8],
    pub consumer: &'a [u8],
    /// Only what was not delivered for so long.
    pub min_idle_ms: u64,
    pub now_ms: u64,
    /// When it is to count as delivered.
    pub at_ms: u64,
    /// How often it is to count as delivered, if not once more.
    pub count: Option<u64>,
    /// Also what is not pending.
    pub force: bool,
    /// It is not delivered once more, only whose it is changes.
    pub just_ids: bool,
    /// The group has read at least so far.
    pub last: EntryId,
}

/// An entry taken out of its stream, on its way to somebody who waited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    id: EntryId,
    body: Box<[u8]>,
}

impl Kept {
    pub(super) fn of(entry: &Entry<'_>) -> Self {
        let mut body = Vec::new();
        entry.body(&mut body);
        Self {
            id: entry.id,
            body: body.into_boxed_slice(),
        }
    }

    #[must_use]
    pub fn entry(&self) -> Entry<'_> {
        Entry::own(self.id, &self.body)
    }
}

/// What is counted, apart from the groups.
#[derive(Debug, Clone, Copy)]
struct Counts {
    len: usize,
    first: EntryId,
    meta: Meta,
}

impl Counts {
    /// Was something deleted by name at `start` or behind it?
    fn has_holes(&self, start: EntryId) -> bool {
        self.len > 0 && self.meta.deleted != EntryId::MIN && start <= self.meta.deleted
    }

    /// Entries ever added up to `id`, as far as that can be told.
    fn added_until(&self, id: EntryId) -> Option<i64> {
        let Meta {
            last,
            deleted,
            added,
        } = self.meta;
        if added == 0 {
            return Some(0);
        }
        if self.len == 0 && id <= last {
            return Some(added.cast_signed());
        }
        if id != EntryId::MIN && id < deleted {
            return None;
        }
        if id >= last {
            return (id == last).then_some(added.cast_signed());
        }
        if deleted != EntryId::MIN && deleted >= self.first {
            return None;
        }
        let trimmed = added.wrapping_sub(self.len as u64).cast_signed();
        match id.cmp(&self.first) {
            std::cmp::Ordering::Less => Some(trimmed),
            std::cmp::Ordering::Equal => Some(trimmed.wrapping_add(1)),
            std::cmp::Ordering::Greater => None,
        }
    }
}

impl Stream {
    pub(super) fn new(id: u64) -> Self {
        Self {
            id,
            meta: Meta::default(),
            entries: Entries::default(),
            groups: BTreeMap::new(),
            numbers: BTreeMap::new(),
            grouped: (0, 0),
            idempotence: None,
            news: News::default(),
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows of it; a stream without entries and groups still is one.
    pub(super) fn rows(&self) -> usize {
        let known = self.idempotence.as_deref().map_or(0, Idempotence::rows);
        1 + self.entries.len() + self.grouped.0 + known
    }

    /// Bytes outside of what holds the stream.
    pub(super) fn memory(&self) -> usize {
        let known = self.idempotence.as_deref().map_or(0, Idempotence::memory);
        size_of_val(self) + self.entries.memory() + self.grouped.1 + known
    }

    /// The first entry's id; the smallest one without entries.
    #[must_use]
    pub fn first(&self) -> EntryId {
        self.entries.first().unwrap_or_default()
    }

    /// The last entry's id; the smallest one without entries.
    #[must_use]
    pub fn top(&self) -> EntryId {
        self.entries.last().unwrap_or_default()
    }

    /// The last id that was given, whether its entry is there or not.
    #[must_use]
    pub fn last_id(&self) -> EntryId {
        self.meta.last
    }

    /// The largest id that was deleted by name.
    #[must_use]
    pub fn max_deleted(&self) -> EntryId {
        self.meta.deleted
    }

    /// Entries ever added.
    #[must_use]
    pub fn added(&self) -> u64 {
        self.meta.added
    }

    /// Pieces in which the entries lie in memory.
    #[must_use]
    pub fn chunks(&self) -> usize {
        self.entries.chunks()
    }

    #[must_use]
    pub fn get(&self, id: EntryId) -> Option<Entry<'_>> {
        self.entries.get(id)
    }

    /// Entries from `start` to `end`, both included.
    pub fn range(&self, start: EntryId, end: EntryId) -> impl Iterator<Item = Entry<'_>> + Clone {
        self.entries.range(start, end)
    }

    /// The same from the last one to the first.
    pub fn range_back(
        &self,
        start: EntryId,
        end: EntryId,
    ) -> impl Iterator<Item = Entry<'_>> + Clone {
        self.entries.range_back(start, end)
    }

    #[must_use]
    pub fn group(&self, name: &[u8]) -> Option<&Group> {
        self.groups.get(name)
    }

    /// In order of their names.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = (&Text, &Group)> {
        self.groups.iter()
    }

    /// Entries that a group has yet to read, if that can be told.
    #[must_use]
    pub fn lag(&self, group: &Group) -> Option<i64> {
        let counts = self.counts();
        let added = self.meta.added.cast_signed();
        if added == 0 {
            return Some(0);
        }
        let read = if group.read >= 0 && !counts.has_holes(group.last) {
            group.read
        } else {
            counts.added_until(group.last)?
        };
        Some(added.wrapping_sub(read))
    }

    /// What happened since the last call.
    pub(super) fn take_news(&mut self) -> News {
        std::mem::take(&mut self.news)
    }

    /// Adds an entry, whose id must be larger than the last one.
    pub fn add(&mut self, id: EntryId, body: &[u8], rows: &mut Rows<'_>) {
        debug_assert!(id > self.meta.last, "ids grow");
        self.meta.last = id;
        self.meta.added = self.meta.added.wrapping_add(1);
        (self.news.ready, self.news.entries) = (true, true);
        let mut rows = StreamRows { rows, group: b"" };
        self.entries.push(id, body, &mut rows);
        rows.entry(id, body);
        rows.meta(&self.meta);
    }

    /// Deletes entries by name; how many were there.
    pub fn delete(&mut self, ids: &[EntryId], rows: &mut Rows<'_>) -> usize {
        let before = self.meta;
        let mut deleted = 0;
        let mut rows = StreamRows { rows, group: b"" };
        for &id in ids {
            if self.entries.remove(id, &mut rows) {
                rows.remove_entry(id);
                self.meta.deleted = self.meta.deleted.max(id);
                deleted += 1;
            }
        }
        if self.meta != before {
            rows.meta(&self.meta);
            rows.tell_meta(&self.meta);
        }
        self.news.entries |= deleted > 0;
        deleted
    }

    /// Removes the oldest entries; how many.
    pub fn trim(&mut self, trim: &Trim, rows: &mut Rows<'_>) -> usize {
        let mut rows = StreamRows { rows, group: b"" };
        let before = self.len();
        self.entries.trim(trim, &mut rows);
        let removed = before - self.len();
        self.news.gone = self.entries.take_trimmed().or(self.news.gone);
        self.news.entries |= removed > 0;
        removed
    }

    /// Sets what `XSETID` sets.
    pub fn set_id(
        &mut self,
        last: EntryId,
        added: Option<u64>,
        deleted: Option<EntryId>,
        rows: &mut Rows<'_>,
    ) {
        self.meta.last = last;
        self.meta.added = added.unwrap_or(self.meta.added);
        self.meta.deleted = deleted.unwrap_or(self.meta.deleted);
        let mut rows = StreamRows { rows, group: b"" };
        rows.meta(&self.meta);
        rows.tell_meta(&self.meta);
    }

    /// Makes a group that has read up to `last`; false: there is one of this name.
    pub fn create_group(
        &mut self,
        name: &[u8],
        last: EntryId,
        read: i64,
        rows: &mut Rows<'_>,
    ) -> bool {
        if self.groups.contains_key(name) {
            return false;
        }
        let group = Group::new(group::unused(&self.numbers), last, read);
        let mut rows = StreamRows { rows, group: name };
        if self.rows() == 1 {
            // The stream may have come to be for this group: it outlives it.
            rows.meta(&self.meta);
        }
        rows.group(&group);
        self.load_group(name, group).is_some()
    }

    /// Makes a group go on behind `last`; false: there is none.
    pub fn set_group(
        &mut self,
        name: &[u8],
        last: EntryId,
        read: i64,
        rows: &mut Rows<'_>,
    ) -> bool {
        self.change_group(name, rows, |_, _, group, rows| {
            (group.last, group.read) = (last, read);
            rows.group(group);
        })
        .is_some()
    }

    /// False: there was none.
    pub fn destroy_group(&mut self, name: &[u8], rows: &mut Rows<'_>) -> bool {
        let Some(group) = self.groups.remove(name) else {
            return false;
        };
        self.numbers.remove(&group.number);
        self.grouped.0 -= group.rows();
        self.grouped.1 -= group.memory();
        StreamRows { rows, group: name }.remove_group(&group);
        // Whoever waits for it must know.
        self.news.ready = true;
        true
    }

    /// `None`: no such group; false: there is such a consumer.
    pub fn create_consumer(
        &mut self,
        group: &[u8],
        name: &[u8],
        now_ms: u64,
        rows: &mut Rows<'_>,
    ) -> Option<bool> {
        self.change_group(group, rows, |_, _, group, rows| {
            group.consumer_or_new(name, now_ms, rows).1
        })
    }

    /// Removes a consumer; `None`: no such group. How much it had not acknowledged.
    pub fn delete_consumer(
        &mut self,
        group: &[u8],
        name: &[u8],
        rows: &mut Rows<'_>,
    ) -> Option<usize> {
        self.change_group(group, rows, |_, _, group, rows| {
            group.remove_consumer(name, rows).unwrap_or(0)
        })
    }

    /// Gives a consumer, which is made if need be, what its group has not read. `None`: no such group.
    pub fn deliver<R>(
        &mut self,
        ask: &Ask<'_>,
        rows: &mut Rows<'_>,
        see: impl FnOnce(&[Entry<'_>]) -> R,
    ) -> Option<R> {
        self.change_group(ask.group, rows, |counts, entries, group, rows| {
            let (consumer, _) = group.consumer_or_new(ask.consumer, ask.now_ms, rows);
            let limit = if ask.count == 0 {
                usize::MAX
            } else {
                ask.count
            };
            let start = group.last.after().unwrap_or(EntryId::MAX);
            let found: Vec<_> = if group.last == EntryId::MAX {
                Vec::new()
            } else {
                entries.range(start, EntryId::MAX).take(limit).collect()
            };
            for entry in &found {
                if group.read >= 0 && group.last >= counts.first && !counts.has_holes(group.last) {
                    group.read = group.read.wrapping_add(1);
                } else if counts.meta.added != 0 {
                    group.read = counts.added_until(entry.id).unwrap_or(-1);
                }
                group.last = entry.id;
                if !ask.noack {
                    let pending = Pending {
                        consumer: Some(consumer),
                        at_ms: ask.now_ms,
                        count: 1,
                    };
                    group.put_pending(entry.id, pending, rows);
                }
            }
            if !found.is_empty() {
                rows.group(group);
            }
            group.saw(consumer, ask.now_ms, !found.is_empty() && !ask.noack, rows);
            see(&found)
        })
    }

    /// Gives a consumer what it was given before and has not acknowledged, behind `after`: the entry, or `None` when it is not
    /// in the stream any more. `None`: no such group.
    pub fn deliver_again<R>(
        &mut self,
        ask: &Ask<'_>,
        after: EntryId,
        rows: &mut Rows<'_>,
        see: impl FnOnce(&[(EntryId, Option<Entry<'_>>)]) -> R,
    ) -> Option<R> {
        self.change_group(ask.group, rows, |_, entries, group, rows| {
            let (number, _) = group.consumer_or_new(ask.consumer, ask.now_ms, rows);
            group.saw(number, ask.now_ms, false, rows);
            let limit = if ask.count == 0 {
                usize::MAX
            } else {
                ask.count
            };
            let start = after.after();
            let found: Vec<_> = match (group.consumer(ask.consumer), start) {
                (Some(consumer), Some(start)) => group
                    .pending_of(consumer, start)
                    .take(limit)
                    .map(|(id, pending, _)| (id, *pending, entries.get(id)))
                    .collect(),
                _ => Vec::new(),
            };
            let mut shown = Vec::with_capacity(found.len());
            for (id, pending, entry) in found {
                if entry.is_some() {
                    let pending = Pending {
                        at_ms: ask.now_ms,
                        count: pending.delivered_again(),
                        ..pending
                    };
                    group.put_pending(id, pending, rows);
                }
                shown.push((id, entry));
            }
            see(&shown)
        })
    }

    /// Entries are done with; how many were pending. `None`: no such group.
    pub fn acknowledge(
        &mut self,
        group: &[u8],
        ids: &[EntryId],
        rows: &mut Rows<'_>,
    ) -> Option<usize> {
        self.change_group(group, rows, |_, _, group, rows| {
            ids.iter()
                .filter(|id| group.remove_pending(**id, rows))
                .count()
        })
    }

    /// Pending entries are nobody's any more, and anybody may claim them at once; how many. `None`: no such group.
    pub fn release(
        &mut self,
        group: &[u8],
        ids: &[EntryId],
        release: &Release,
        rows: &mut Rows<'_>,
    ) -> Option<usize> {
        self.change_group(group, rows, |_, entries, group, rows| {
            let mut released = 0;
            for &id in ids {
                let count = match group.pending_at(id) {
                    Some(pending) => pending.count,
                    None if release.force && entries.get(id).is_some() => 0,
                    None => continue,
                };
                let pending = Pending {
                    consumer: None,
                    at_ms: 0,
                    count: release.count_after(count),
                };
                group.put_pending(id, pending, rows);
                released += 1;
            }
            released
        })
    }

    /// Gives pending entries to another consumer, which is made if need be. `None`: no such group.
    pub fn claim<R>(
        &mut self,
        claim: &Claim<'_>,
        ids: &[EntryId],
        rows: &mut Rows<'_>,
        see: impl FnOnce(&[Entry<'_>]) -> R,
    ) -> Option<R> {
        self.change_group(claim.group, rows, |_, entries, group, rows| {
            if claim.last > group.last {
                group.last = claim.last;
                rows.group(group);
            }
            let (consumer, _) = group.consumer_or_new(claim.consumer, claim.now_ms, rows);
            let mut claimed = Vec::new();
            for &id in ids {
                let Some(entry) = entries.get(id) else {
                    group.remove_pending(id, rows);
                    continue;
                };
                let old = group.pending_at(id).copied();
                let Some(pending) = claim.pending(old, consumer) else {
                    continue;
                };
                group.put_pending(id, pending, rows);
                claimed.push(entry);
            }
            group.saw(consumer, claim.now_ms, !claimed.is_empty(), rows);
            see(&claimed)
        })
    }

    /// The same for what is found pending from `start` on: up to `count` entries. `see` is told from where to go on (the
    /// smallest id: from the beginning), what was claimed, and what was pending but is not in the stream any more.
    pub fn claim_from<R>(
        &mut self,
        claim: &Claim<'_>,
        start: EntryId,
        count: u64,
        rows: &mut Rows<'_>,
        see: impl FnOnce(EntryId, &[Entry<'_>], &[EntryId]) -> R,
    ) -> Option<R> {
        self.change_group(claim.group, rows, |_, entries, group, rows| {
            let (consumer, _) = group.consumer_or_new(claim.consumer, claim.now_ms, rows);
            let mut is_there = |id| Ok(entries.get(id).is_some());
            // What is in memory can be looked at.
            let found = claim.find(group, consumer, (start, count), &mut is_there);
            let (next, found) = found.unwrap_or_default();
            let (mut claimed, mut gone) = (Vec::new(), Vec::new());
            for (id, pending) in found {
                match (entries.get(id), pending) {
                    (Some(entry), Some(pending)) => {
                        group.put_pending(id, pending, rows);
                        claimed.push(entry);
                    }
                    _ => {
                        group.remove_pending(id, rows);
                        gone.push(id);
                    }
                }
            }
            group.saw(consumer, claim.now_ms, !claimed.is_empty(), rows);
            see(next.unwrap_or_default(), &claimed, &gone)
        })
    }

    /// All of it as text, without what memory decides; behind ` seen ` when consumers were seen, and what is known of producers.
    pub(super) fn shown(&self) -> String {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        let entries: BTreeMap<_, Vec<_>> = self
            .range(EntryId::MIN, EntryId::MAX)
            .map(|entry| {
                let pairs = entry
                    .pairs()
                    .map(|(field, value)| (text(field), text(value)));
                (entry.id.to_string(), pairs.collect())
            })
            .collect();
        let (mut groups, mut seen) = (BTreeMap::new(), BTreeMap::new());
        for (name, group) in &self.groups {
            let consumers: Vec<_> = group.consumers().map(|each| text(&each.name)).collect();
            let pending: BTreeMap<_, _> = group
                .pending_from(EntryId::MIN)
                .map(|(id, pending, of)| {
                    (
                        id.to_string(),
                        (
                            of.map_or_else(String::new, |of| text(&of.name)),
                            pending.at_ms,
                            pending.count,
                        ),
                    )
                })
                .collect();
            for each in group.consumers() {
                seen.insert(
                    (text(name), text(&each.name)),
                    (each.seen_ms, each.active_ms),
                );
            }
            let state = (group.last.to_string(), group.read);
            groups.insert(text(name), (state, consumers, pending));
        }
        let Meta {
            last,
            deleted,
            added,
        } = self.meta;
        let known = self.idempotence.as_deref().map(|known| {
            let all = known.all().map(|(place, producer, chosen, id)| {
                (place, text(producer), text(chosen), id.to_string())
            });
            let Idempotence {
                settings,
                added,
                duplicates,
                ..
            } = known;
            (*settings, *added, *duplicates, all.collect::<Vec<_>>())
        });
        format!(
            "stream {entries:?} last {last} deleted {deleted} added {added} {groups:?} seen {seen:?} known {known:?}"
        )
    }

    fn counts(&self) -> Counts {
        Counts {
            len: self.len(),
            first: self.first(),
            meta: self.meta,
        }
    }

    fn change_group<R>(
        &mut self,
        name: &[u8],
        rows: &mut Rows<'_>,
        change: impl FnOnce(Counts, &Entries, &mut Group, &mut StreamRows<'_, '_>) -> R,
    ) -> Option<R> {
        let counts = self.counts();
        let group = self.groups.get_mut(name)?;
        let (rows_before, memory_before) = (group.rows(), group.memory());
        let mut rows = StreamRows { rows, group: name };
        let result = change(counts, &self.entries, group, &mut rows);
        self.grouped.0 = self.grouped.0 + group.rows() - rows_before;
        self.grouped.1 = self.grouped.1 + group.memory() - memory_before;
        Some(result)
    }

    /// Takes a group; `None`: there is one of this name or number.
    fn load_group(&mut self, name: &[u8], group: Group) -> Option<()> {
        let name = Text::new(name);
        self.grouped.0 += group.rows();
        self.grouped.1 += group.memory();
        let known = self.numbers.insert(group.number, name.clone());
        let old = self.groups.insert(name, group);
        (known.is_none() && old.is_none()).then_some(())
    }

    /// The same for what lies in the group of this number.
    fn load_into(
        &mut self,
        number: u32,
        load: impl FnOnce(&mut Group) -> Option<()>,
    ) -> Option<()> {
        let group = self.groups.get_mut(self.numbers.get(&number)?)?;
        let (rows, memory) = (group.rows(), group.memory());
        load(group)?;
        self.grouped.0 += group.rows() - rows;
        self.grouped.1 += group.memory() - memory;
        Some(())
    }
}

/// Where a search among pending entries goes on, and what it found: an entry's pending state to come, or `None` when the entry is not
/// in the stream any more.
type Found = (Option<EntryId>, Vec<(EntryId, Option<Pending>)>);

impl Claim<'_> {
    /// Finds up to `count` entries that are pending from `start` on and either can be claimed or are not there any more.
    fn find(
        &self,
        group: &Group,
        consumer: u32,
        (start, mut count): (EntryId, u64),
        is_there: &mut dyn FnMut(EntryId) -> Result<bool, Error>,
    ) -> Result<Found, Error> {
        /// Entries that are looked at for each that is asked for.
        const ATTEMPTS: u64 = 10;
        let mut attempts = count.saturating_mul(ATTEMPTS);
        let mut found = Vec::new();
        for (id, old, _) in group.pending_from(start) {
            if attempts == 0 || count == 0 {
                return Ok((Some(id), found));
            }
            attempts -= 1;
            if !is_there(id)? {
                found.push((id, None));
            } else if let Some(pending) = self.pending(Some(*old), consumer) {
                found.push((id, Some(pending)));
            } else {
                continue;
            }
            count -= 1;
        }
        Ok((None, found))
    }

    /// What becomes of a pending entry; `None`: it stays as it is.
    fn pending(&self, old: Option<Pending>, consumer: u32) -> Option<Pending> {
        let before = match old {
            Some(old) => {
                let idle = self.now_ms.saturating_sub(old.at_ms);
                let free = old.consumer.is_none() || self.min_idle_ms == 0;
                (free || idle >= self.min_idle_ms).then_some(old)?
            }
            // Made by force, it begins as if delivered once.
            None => self.force.then_some(Pending {
                consumer: None,
                at_ms: 0,
                count: 1,
            })?,
        };
        let count = match self.count {
            Some(count) => count,
            None if self.just_ids => before.count,
            None => before.delivered_again(),
        };
        Some(Pending {
            consumer: Some(consumer),
            at_ms: self.at_ms,
            count,
        })
    }
}

impl PartialEq for Stream {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
            && self.meta == other.meta
            && self.groups == other.groups
            && self.entries == other.entries
            && self.idempotence == other.idempotence
    }
}
