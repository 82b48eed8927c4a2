//! How a stream lies in the tables, below its object's prefix.
//!
//! ```text
//! 0                            → last id, largest id that was deleted, entries ever added     (16 + 16 + 8 bytes)
//! 0 | id                       → how many entries lie from here to the next such row (counter); the last one: 0, see `pages`
//! 1 | group                    → number of the group, last id delivered, entries read         (4 + 16 + 8)
//! 2 | group number | consumer  → number of the consumer, ms when seen, ms when active or none  (4 + 8 + 8)
//! 3 | group number | id        → number of the consumer or none, ms of delivery, deliveries    (4 + 8 + 8)
//! 4 | id                       → fields and values: a body, see `chunk`
//! 5                            → of producers: seconds and ids that are known, entries added so, entries that came again (8 each)
//! 6 | place u64                → an entry's id, length of the producer's name, that name, the id it chose (16 + 4)
//! ```
//! Ids are big-endian as all of keys is, values little-endian. A scan meets what others refer to first.

use super::chunk::{self, Entry};
use super::entries::Entries;
use super::group::{Consumer, Group, Pending};
use super::id::EntryId;
use super::idempotence::{Idempotence, IdempotenceSettings};
use super::{Meta, Stream};
use crate::cache::Error;
use crate::cache::journal::{Journal, text};
use crate::cache::partial::Rest;
use crate::cache::row::{self, Rows};

const META: u8 = 0;
const GROUP: u8 = 1;
const CONSUMER: u8 = 2;
const PENDING: u8 = 3;
const ENTRY: u8 = 4;
const IDEMPOTENCE: u8 = 5;
const NOTED: u8 = 6;

/// In the row of a consumer that was never active.
const NEVER: u64 = u64::MAX;
/// In the row of a pending entry that was released.
const NOBODY: u32 = u32::MAX;

/// Writes rows of a stream, and tells the journal what they mean; `group`: whose name is told.
pub(super) struct StreamRows<'r, 'a> {
    pub(super) rows: &'r mut Rows<'a>,
    pub(super) group: &'r [u8],
}

fn group_row(name: &[u8]) -> Vec<u8> {
    [&[GROUP], name].concat()
}

fn consumer_row(group: u32, name: &[u8]) -> Vec<u8> {
    [&[CONSUMER], &group.to_be_bytes()[..], name].concat()
}

fn pending_row(group: u32, id: EntryId) -> [u8; 21] {
    let mut row = [PENDING; 21];
    let (front, back) = row.split_at_mut(5);
    front.copy_from_slice(&(u64::from(PENDING) << 32 | u64::from(group)).to_be_bytes()[3..]);
    back.copy_from_slice(&id.to_bytes());
    row
}

pub(in crate::cache) fn entry_row(id: EntryId) -> [u8; 17] {
    let mut row = [ENTRY; 17];
    row[1..].copy_from_slice(&id.to_bytes());
    row
}

/// The inverse of [`entry_row`]; `None`: it is another row.
pub(super) fn entry_of(row: &[u8]) -> Option<EntryId> {
    EntryId::from_bytes(row.strip_prefix(&[ENTRY])?)
}

fn page_row(first: EntryId) -> [u8; 17] {
    let mut row = entry_row(first);
    row[0] = META;
    row
}

fn noted_row(place: u64) -> [u8; 9] {
    let mut row = [NOTED; 9];
    row[1..].copy_from_slice(&place.to_be_bytes());
    row
}

fn noted_value(producer: &[u8], chosen: &[u8], id: EntryId) -> Vec<u8> {
    // A name is at most 512 MiB.
    let length = (producer.len() as u32).to_le_bytes();
    [&id.to_bytes()[..], &length, producer, chosen].concat()
}

fn idempotence_value(known: &Idempotence) -> [u8; 32] {
    let IdempotenceSettings {
        duration_s,
        ids_max,
    } = known.settings;
    let mut value = [0; 32];
    let numbers = [duration_s, ids_max, known.added, known.duplicates];
    for (place, number) in value.chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    value
}

fn pending_value(pending: &Pending) -> [u8; 20] {
    let consumer = pending.consumer.unwrap_or(NOBODY);
    numbers(consumer, pending.at_ms, pending.count)
}

fn meta_value(meta: &Meta) -> [u8; 40] {
    let mut value = [0; 40];
    value[..16].copy_from_slice(&meta.last.to_bytes());
    value[16..32].copy_from_slice(&meta.deleted.to_bytes());
    value[32..].copy_from_slice(&meta.added.to_le_bytes());
    value
}

fn group_value(group: &Group) -> [u8; 28] {
    let mut value = [0; 28];
    value[..4].copy_from_slice(&group.number.to_le_bytes());
    value[4..20].copy_from_slice(&group.last.to_bytes());
    value[20..].copy_from_slice(&group.read.to_le_bytes());
    value
}

fn consumer_value(number: u32, consumer: &Consumer) -> [u8; 20] {
    numbers(
        number,
        consumer.seen_ms,
        consumer.active_ms.unwrap_or(NEVER),
    )
}

fn numbers(number: u32, a: u64, b: u64) -> [u8; 20] {
    let mut value = [0; 20];
    value[..4].copy_from_slice(&number.to_le_bytes());
    value[4..12].copy_from_slice(&a.to_le_bytes());
    value[12..].copy_from_slice(&b.to_le_bytes());
    value
}

/// First id and count of a page by its row.
fn page(name: &[u8], value: &[u8]) -> Option<(EntryId, usize)> {
    let first = EntryId::from_bytes(name.strip_prefix(&[META])?)?;
    let count = i64::from_le_bytes(value.try_into().ok()?);
    Some((first, usize::try_from(count).ok()?))
}

/// The inverse of [`numbers`].
fn from_numbers(value: &[u8]) -> Option<(u32, u64, u64)> {
    let (number, rest) = value.split_first_chunk::<4>()?;
    let (a, rest) = rest.split_first_chunk::<8>()?;
    let b: [u8; 8] = rest.try_into().ok()?;
    Some((
        u32::from_le_bytes(*number),
        u64::from_le_bytes(*a),
        u64::from_le_bytes(b),
    ))
}

impl Stream {
    /// Reads a stream of which there are rows; one of more than `large` bytes, or that has pages, is not whole. True: its pages
    /// have no rows yet.
    pub(in crate::cache) fn read(
        id: u64,
        tables: &Rest<'_>,
        large: usize,
    ) -> Result<(Self, bool), Error> {
        let mut stream = Self::new(id);
        let mut pages = Vec::new();
        let (mut divided, mut any, mut damaged, mut entries) = (false, false, false, false);
        tables.scan(&[], &mut |name, value| {
            any = true;
            match page(name, value) {
                Some(page) => pages.push(page),
                // Those of closed pages are not read.
                None if !pages.is_empty() && name.first() == Some(&ENTRY) => {
                    entries = true;
                    return false;
                }
                None => damaged |= stream.load_row(name, value).is_none(),
            }
            if !divided && stream.entries.memory() > large {
                stream.entries.divide(0);
                stream.entries.let_all_go();
                divided = true;
            }
            !damaged
        })?;
        if !pages.is_empty() {
            stream.entries = Entries::of_pages(pages.into_iter()).ok_or(Error::Damaged)?;
        }
        if entries {
            let from = entry_row(stream.entries.open_from());
            tables.scan(&from, &mut |name, value| {
                damaged |= stream.load_row(name, value).is_none();
                !damaged
            })?;
        }
        if damaged || !any {
            return Err(Error::Damaged);
        }
        Ok((stream, divided))
    }

    fn load_row(&mut self, name: &[u8], stored: &[u8]) -> Option<()> {
        let (name, value) = row::split(name, stored)?;
        self.load(&name, value)
    }

    /// Takes a row as the tables have it; they come in order. `None`: not one of ours.
    fn load(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        let (&tag, name) = name.split_first()?;
        match tag {
            META => {
                let (last, rest) = value.split_at_checked(16)?;
                let (deleted, added) = rest.split_at_checked(16)?;
                self.meta = Meta {
                    last: EntryId::from_bytes(last)?,
                    deleted: EntryId::from_bytes(deleted)?,
                    added: u64::from_le_bytes(added.try_into().ok()?),
                };
            }
            GROUP => {
                let (number, rest) = value.split_first_chunk::<4>()?;
                let (last, read) = rest.split_at_checked(16)?;
                let read = i64::from_le_bytes(read.try_into().ok()?);
                let number = u32::from_le_bytes(*number);
                let group = Group::new(number, EntryId::from_bytes(last)?, read);
                self.load_group(name, group)?;
            }
            CONSUMER => {
                let (group, name) = name.split_first_chunk::<4>()?;
                let (number, seen_ms, active_ms) = from_numbers(value)?;
                let active_ms = Some(active_ms).filter(|ms| *ms != NEVER);
                let consumer = Consumer::new(name, seen_ms, active_ms);
                self.load_into(u32::from_be_bytes(*group), |group| {
                    group.add_consumer(number, consumer).then_some(())
                })?;
            }
            PENDING => {
                let (group, id) = name.split_first_chunk::<4>()?;
                let (consumer, at_ms, count) = from_numbers(value)?;
                let pending = Pending {
                    consumer: Some(consumer).filter(|number| *number != NOBODY),
                    at_ms,
                    count,
                };
                let id = EntryId::from_bytes(id)?;
                self.load_into(u32::from_be_bytes(*group), |group| {
                    group.load_pending(id, pending)
                })?;
            }
            ENTRY => {
                chunk::is_body(value).then_some(())?;
                self.entries.load(EntryId::from_bytes(name)?, value);
            }
            IDEMPOTENCE => {
                let (numbers, rest) = value.as_chunks::<8>();
                let [duration_s, ids_max, added, duplicates] = numbers else {
                    return None;
                };
                rest.is_empty().then_some(())?;
                let known = self.idempotence.get_or_insert_default();
                known.settings = IdempotenceSettings {
                    duration_s: u64::from_le_bytes(*duration_s),
                    ids_max: u64::from_le_bytes(*ids_max),
                };
                known.added = u64::from_le_bytes(*added);
                known.duplicates = u64::from_le_bytes(*duplicates);
            }
            NOTED => {
                let place = u64::from_be_bytes(name.try_into().ok()?);
                let (id, rest) = value.split_at_checked(16)?;
                let (length, rest) = rest.split_first_chunk::<4>()?;
                let (producer, chosen) =
                    rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
                let known = self.idempotence.as_deref_mut()?;
                known.put(place, producer, chosen, EntryId::from_bytes(id)?)?;
            }
            _ => return None,
        }
        Some(())
    }

    /// Writes the rows of all pages.
    pub(in crate::cache) fn write_pages(&self, rows: &mut Rows<'_>) {
        let mut rows = StreamRows { rows, group: b"" };
        let mut write = |first, count| rows.page(first, count);
        self.entries.each_page(&mut write);
    }

    /// Name and value of each of its rows but those of pages, in order; all of it must be in memory.
    pub(in crate::cache) fn each_row(&self, see: &mut dyn FnMut(&[u8], &[u8])) {
        see(&[META], &meta_value(&self.meta));
        for (name, group) in &self.groups {
            see(&group_row(name), &group_value(group));
        }
        for group in self.groups.values() {
            for (number, consumer) in group.by_number() {
                see(
                    &consumer_row(group.number, &consumer.name),
                    &consumer_value(*number, consumer),
                );
            }
            for (id, pending, _) in group.pending_from(EntryId::MIN) {
                see(&pending_row(group.number, id), &pending_value(pending));
            }
        }
        let mut body = Vec::new();
        for entry in self.range(EntryId::MIN, EntryId::MAX) {
            body.clear();
            entry.body(&mut body);
            see(&entry_row(entry.id), &body);
        }
        if let Some(known) = &self.idempotence {
            see(&[IDEMPOTENCE], &idempotence_value(known));
            for (place, producer, chosen, id) in known.all() {
                see(&noted_row(place), &noted_value(producer, chosen, id));
            }
        }
    }

    /// Tells all of it, for who has not heard of it under this key.
    pub(in crate::cache) fn tell(&self, journal: &mut Journal) {
        for entry in self.range(EntryId::MIN, EntryId::MAX) {
            tell_entry(journal, &entry);
        }
        tell_meta(journal, &self.meta);
        for (name, group) in &self.groups {
            tell_group(journal, name, group);
            for consumer in group.consumers() {
                tell_consumer(journal, name, &consumer.name, false);
            }
            for (id, pending, consumer) in group.pending_from(EntryId::MIN) {
                let consumer = consumer.map(|consumer| &*consumer.name);
                tell_pending(journal, name, id, consumer, pending);
            }
        }
    }
}

impl StreamRows<'_, '_> {
    fn journal(&mut self) -> Option<&mut Journal> {
        self.rows.journal()
    }

    pub(super) fn meta(&mut self, meta: &Meta) {
        self.rows.put(&[META], &meta_value(meta));
    }

    pub(super) fn tell_meta(&mut self, meta: &Meta) {
        if let Some(journal) = self.journal() {
            tell_meta(journal, meta);
        }
    }

    pub(super) fn entry(&mut self, id: EntryId, body: &[u8]) {
        self.rows.put(&entry_row(id), body);
        if let Some(journal) = self.journal() {
            tell_entry(journal, &Entry::own(id, body));
        }
    }

    /// So many entries lie in the page that begins here.
    pub(super) fn page(&mut self, first: EntryId, count: usize) {
        let count = (count as i64).to_le_bytes();
        self.rows.put(&page_row(first), &count);
    }

    pub(super) fn shrink_page(&mut self, first: EntryId, count: usize) {
        self.rows.add(&page_row(first), -(count as i64));
    }

    pub(super) fn remove_page(&mut self, first: EntryId) {
        self.rows.del(&page_row(first));
    }

    /// All entries below an id have gone, and nobody has read which they were.
    pub(super) fn tell_trimmed(&mut self, below: EntryId) {
        if let Some(journal) = self.journal() {
            journal.tell("xtrim", "below", |json| {
                text(json, below.to_string().as_bytes());
            });
        }
    }

    pub(super) fn remove_entry(&mut self, id: EntryId) {
        self.rows.del(&entry_row(id));
        if let Some(journal) = self.journal() {
            journal.tell("xdel", "ids", |json| text(json, id.to_string().as_bytes()));
        }
    }

    pub(super) fn group(&mut self, group: &Group) {
        let name = self.group;
        self.rows.put(&group_row(name), &group_value(group));
        if let Some(journal) = self.journal() {
            tell_group(journal, name, group);
        }
    }

    /// Removes all rows of a group.
    pub(super) fn remove_group(&mut self, group: &Group) {
        let name = self.group;
        for (id, _, _) in group.pending_from(EntryId::MIN) {
            self.rows.del(&pending_row(group.number, id));
        }
        for consumer in group.by_number().values() {
            self.rows.del(&consumer_row(group.number, &consumer.name));
        }
        self.rows.del(&group_row(name));
        if let Some(journal) = self.journal() {
            journal.tell("xgroup_destroy", "groups", |json| text(json, name));
        }
    }

    pub(super) fn consumer(&mut self, group: u32, number: u32, consumer: &Consumer) {
        self.rows.put(
            &consumer_row(group, &consumer.name),
            &consumer_value(number, consumer),
        );
    }

    pub(super) fn remove_consumer(&mut self, group: u32, name: &[u8]) {
        self.rows.del(&consumer_row(group, name));
    }

    pub(super) fn tell_consumer(&mut self, name: &[u8], gone: bool) {
        let group = self.group;
        if let Some(journal) = self.journal() {
            tell_consumer(journal, group, name, gone);
        }
    }

    pub(super) fn pending(&mut self, group: u32, id: EntryId, pending: &Pending) {
        self.rows
            .put(&pending_row(group, id), &pending_value(pending));
    }

    pub(super) fn tell_pending(&mut self, id: EntryId, consumer: Option<&[u8]>, pending: &Pending) {
        let group = self.group;
        if let Some(journal) = self.journal() {
            tell_pending(journal, group, id, consumer, pending);
        }
    }

    pub(super) fn remove_pending(&mut self, group: u32, id: EntryId) {
        self.rows.del(&pending_row(group, id));
    }

    pub(super) fn idempotence(&mut self, known: &Idempotence) {
        self.rows.put(&[IDEMPOTENCE], &idempotence_value(known));
    }

    pub(super) fn noted(&mut self, place: u64, producer: &[u8], chosen: &[u8], id: EntryId) {
        self.rows
            .put(&noted_row(place), &noted_value(producer, chosen, id));
    }

    pub(super) fn remove_noted(&mut self, place: u64) {
        self.rows.del(&noted_row(place));
    }

    /// An entry was acknowledged, or is pending no more for another reason.
    pub(super) fn tell_done(&mut self, id: EntryId) {
        let group = self.group;
        if let Some(journal) = self.journal() {
            journal.tell("xack", "pending", |json| {
                json.push(b'[');
                text(json, group);
                json.extend_from_slice(format!(",\"{id}\"]").as_bytes());
            });
        }
    }
}

fn tell_entry(journal: &mut Journal, entry: &Entry<'_>) {
    journal.tell("xadd", "entries", |json| {
        json.extend_from_slice(format!("[\"{}\",[", entry.id).as_bytes());
        for (place, (field, value)) in entry.pairs().enumerate() {
            if place > 0 {
                json.push(b',');
            }
            text(json, field);
            json.push(b',');
            text(json, value);
        }
        json.extend_from_slice(b"]]");
    });
}

fn tell_meta(journal: &mut Journal, meta: &Meta) {
    let Meta {
        last,
        deleted,
        added,
    } = meta;
    let all = format!("[\"{last}\",\"{deleted}\",{added}]");
    journal.tell("xsetid", "ids", |json| {
        json.extend_from_slice(all.as_bytes());
    });
}

fn tell_group(journal: &mut Journal, name: &[u8], group: &Group) {
    journal.tell("xgroup", "groups", |json| {
        json.push(b'[');
        text(json, name);
        json.extend_from_slice(format!(",\"{}\",{}]", group.last, group.read).as_bytes());
    });
}

fn tell_consumer(journal: &mut Journal, group: &[u8], name: &[u8], gone: bool) {
    let op = if gone {
        "xgroup_delconsumer"
    } else {
        "xgroup_createconsumer"
    };
    journal.tell(op, "consumers", |json| {
        json.push(b'[');
        text(json, group);
        json.push(b',');
        text(json, name);
        json.push(b']');
    });
}

fn tell_pending(
    journal: &mut Journal,
    group: &[u8],
    id: EntryId,
    consumer: Option<&[u8]>,
    pending: &Pending,
) {
    let Some(consumer) = consumer else {
        return journal.tell("xnack", "pending", |json| {
            json.push(b'[');
            text(json, group);
            json.extend_from_slice(format!(",\"{id}\",{}]", pending.count).as_bytes());
        });
    };
    journal.tell("xclaim", "pending", |json| {
        json.push(b'[');
        text(json, group);
        json.extend_from_slice(format!(",\"{id}\",").as_bytes());
        text(json, consumer);
        json.extend_from_slice(format!(",{},{}]", pending.at_ms, pending.count).as_bytes());
    });
}
