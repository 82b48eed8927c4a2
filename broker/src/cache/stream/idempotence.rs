//! Idempotent producers (Redis 8.6): which entries each of them has added lately, by the ids that it chose, so that an entry sent
//! twice is added once.
//!
//! ```text
//! order      0        1        2          in which they were noted
//! producer   a        b        a
//! theirs     i → 5-0  i → 5-1  k → 6-0    chosen id → entry
//! ```
//! An id is known for some time after its entry's, and each producer has so many at most; the oldest go first. Those whose time has
//! come are taken out by whoever adds next, a few at a time, and not known to anybody before.

use std::collections::BTreeMap;

use super::Stream;
use super::id::EntryId;
use super::rows::StreamRows;
use crate::cache::row::Rows;
use crate::cache::text::Text;

/// What `XCFGSET` sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdempotenceSettings {
    /// Seconds for which an id is known.
    pub duration_s: u64,
    /// Ids of each producer.
    pub ids_max: u64,
}

impl Default for IdempotenceSettings {
    fn default() -> Self {
        Self {
            duration_s: 100,
            ids_max: 100,
        }
    }
}

impl IdempotenceSettings {
    /// What `XCFGSET` takes.
    pub const DURATIONS_S: std::ops::RangeInclusive<u64> = 1..=86_400;
    pub const SIZES: std::ops::RangeInclusive<u64> = 1..=10_000;

    /// Is an id no longer known whose entry has this one?
    fn is_over(self, id: EntryId, now_ms: u64) -> bool {
        now_ms
            .checked_sub(self.duration_s.saturating_mul(1000))
            .is_some_and(|over| id.ms <= over)
    }
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Idempotence {
    pub(super) settings: IdempotenceSettings,
    /// Entries ever added so.
    pub(super) added: u64,
    /// Those that were there already.
    pub(super) duplicates: u64,
    producers: BTreeMap<Text, Producer>,
    order: BTreeMap<u64, Text>,
    /// Bytes.
    memory: usize,
}

#[derive(Debug, Clone, PartialEq, Default)]
struct Producer {
    places: BTreeMap<Text, u64>,
    noted: BTreeMap<u64, (Text, EntryId)>,
}

/// What `XINFO STREAM` tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdempotenceFacts {
    pub settings: IdempotenceSettings,
    /// Producers of whom an id is known.
    pub producers: usize,
    /// Ids that are known.
    pub ids: usize,
    pub added: u64,
    pub duplicates: u64,
}

/// Ids that go at once when their time has come: more than come.
const SWEPT: usize = 32;
/// Bytes of memory of an id, with its shares of trees.
const ID: usize = 240;

impl Idempotence {
    /// Nothing is known yet.
    pub(super) fn new(settings: IdempotenceSettings, added: u64, duplicates: u64) -> Self {
        Self {
            settings,
            added,
            duplicates,
            ..Self::default()
        }
    }

    pub(super) fn memory(&self) -> usize {
        size_of_val(self) + self.memory
    }

    pub(super) fn rows(&self) -> usize {
        1 + self.order.len()
    }

    fn find(&self, producer: &[u8], chosen: &[u8]) -> Option<(u64, EntryId)> {
        let producer = self.producers.get(producer)?;
        let place = *producer.places.get(chosen)?;
        let (_, id) = producer.noted.get(&place)?;
        Some((place, *id))
    }

    /// In the order in which they were noted: place, producer, the id it chose, the entry's.
    pub(super) fn all(&self) -> impl Iterator<Item = (u64, &[u8], &[u8], EntryId)> {
        self.order.iter().filter_map(|(place, producer)| {
            let (chosen, id) = self.producers.get(producer)?.noted.get(place)?;
            Some((*place, &**producer, &**chosen, *id))
        })
    }

    fn size(producer: &[u8], chosen: &[u8]) -> usize {
        ID + producer.len() + 2 * chosen.len()
    }

    /// Notes an id at a place behind all others; `None`: it is known.
    pub(super) fn put(
        &mut self,
        place: u64,
        producer: &[u8],
        chosen: &[u8],
        id: EntryId,
    ) -> Option<()> {
        let name = Text::new(producer);
        let of = self.producers.entry(name.clone()).or_default();
        let chosen = Text::new(chosen);
        if of.places.contains_key(&chosen) {
            return None;
        }
        self.memory += Self::size(producer, &chosen);
        of.places.insert(chosen.clone(), place);
        of.noted.insert(place, (chosen, id));
        self.order.insert(place, name).is_none().then_some(())
    }

    fn remove(&mut self, place: u64, rows: &mut StreamRows<'_, '_>) {
        let Some(name) = self.order.remove(&place) else {
            return;
        };
        rows.remove_noted(place);
        let Some(of) = self.producers.get_mut(&name) else {
            return;
        };
        if let Some((chosen, _)) = of.noted.remove(&place) {
            of.places.remove(&chosen);
            self.memory -= Self::size(&name, &chosen);
        }
        if of.noted.is_empty() {
            self.producers.remove(&name);
        }
    }

    /// Takes out some of those whose time has come.
    fn sweep(&mut self, now_ms: u64, rows: &mut StreamRows<'_, '_>) {
        for _ in 0..SWEPT {
            let first = self.all().next();
            let over = first.filter(|(.., id)| self.settings.is_over(*id, now_ms));
            let Some((place, ..)) = over else {
                return;
            };
            self.remove(place, rows);
        }
    }

    fn note(&mut self, producer: &[u8], chosen: &[u8], id: EntryId, rows: &mut StreamRows<'_, '_>) {
        if let Some((over, _)) = self.find(producer, chosen) {
            self.remove(over, rows);
        }
        let place = self.order.last_key_value().map_or(0, |(last, _)| last + 1);
        if self.put(place, producer, chosen, id).is_some() {
            rows.noted(place, producer, chosen, id);
        }
        while let Some(of) = self.producers.get(producer)
            && of.noted.len() as u64 > self.settings.ids_max
            && let Some((&oldest, _)) = of.noted.first_key_value()
        {
            self.remove(oldest, rows);
        }
    }

    /// Forgets all ids.
    fn clear(&mut self, rows: &mut StreamRows<'_, '_>) {
        for place in std::mem::take(&mut self.order).into_keys() {
            rows.remove_noted(place);
        }
        self.producers.clear();
        self.memory = 0;
    }
}

impl Stream {
    /// The entry that a producer has added under the id it chose, if that is known.
    #[must_use]
    pub fn added_before(&self, producer: &[u8], chosen: &[u8], now_ms: u64) -> Option<EntryId> {
        let known = self.idempotence.as_deref()?;
        let (_, id) = known.find(producer, chosen)?;
        (!known.settings.is_over(id, now_ms)).then_some(id)
    }

    /// An entry came once more and was not added.
    pub fn note_duplicate(&mut self, rows: &mut Rows<'_>) {
        if let Some(known) = &mut self.idempotence {
            known.duplicates = known.duplicates.wrapping_add(1);
            StreamRows { rows, group: b"" }.idempotence(known);
        }
    }

    /// A producer has added an entry under an id that it chose.
    pub fn note_added(
        &mut self,
        producer: &[u8],
        chosen: &[u8],
        id: EntryId,
        now_ms: u64,
        rows: &mut Rows<'_>,
    ) {
        let known = self.idempotence.get_or_insert_default();
        let mut rows = StreamRows { rows, group: b"" };
        known.sweep(now_ms, &mut rows);
        known.note(producer, chosen, id, &mut rows);
        known.added = known.added.wrapping_add(1);
        rows.idempotence(known);
    }

    /// Sets how long ids are known, and how many. If that is something else, none is known any more.
    pub fn configure(&mut self, settings: IdempotenceSettings, rows: &mut Rows<'_>) {
        if self.idempotence_settings() == settings {
            return;
        }
        let known = self.idempotence.get_or_insert_default();
        let mut rows = StreamRows { rows, group: b"" };
        known.settings = settings;
        known.clear(&mut rows);
        rows.idempotence(known);
    }

    #[must_use]
    pub fn idempotence_settings(&self) -> IdempotenceSettings {
        let known = self.idempotence.as_deref();
        known.map_or_else(Default::default, |known| known.settings)
    }

    /// `None`: nobody has asked for it yet.
    #[must_use]
    pub fn idempotence(&self, now_ms: u64) -> Option<IdempotenceFacts> {
        let known = self.idempotence.as_deref()?;
        let mut facts = IdempotenceFacts {
            settings: known.settings,
            producers: 0,
            ids: 0,
            added: known.added,
            duplicates: known.duplicates,
        };
        for of in known.producers.values() {
            let is_known = |(_, id): &&(Text, EntryId)| !known.settings.is_over(*id, now_ms);
            let ids = of.noted.values().filter(is_known).count();
            facts.ids += ids;
            facts.producers += usize::from(ids > 0);
        }
        Some(facts)
    }

    /// Visits what is known of producers, oldest first: producer, the id it chose, the entry's.
    pub fn each_noted(&self, mut see: impl FnMut(&[u8], &[u8], EntryId)) {
        let known = self.idempotence.iter().flat_map(|known| known.all());
        known.for_each(|(_, producer, chosen, id)| see(producer, chosen, id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Tag;
    use crate::{Effects, ShardId, Slot};

    fn with<R>(change: impl FnOnce(&mut Rows<'_>) -> R) -> R {
        let mut fx = Effects::new();
        change(&mut Rows::new(
            &mut fx,
            (ShardId(0), 1),
            Slot::of(b""),
            Tag::Stream,
            1,
        ))
    }

    fn at(ms: u64) -> EntryId {
        EntryId { ms, seq: 0 }
    }

    fn noted(stream: &Stream) -> Vec<String> {
        let mut all = Vec::new();
        stream.each_noted(|producer, chosen, id| {
            all.push(format!(
                "{}{}={id}",
                producer.escape_ascii(),
                chosen.escape_ascii()
            ));
        });
        all
    }

    #[test]
    fn ids_are_known_for_a_time_and_a_number() {
        let mut stream = Stream::new(1);
        let settings = IdempotenceSettings {
            duration_s: 1,
            ids_max: 2,
        };
        with(|rows| {
            stream.configure(settings, rows);
            for (ms, producer, chosen) in
                [(1, "a", "x"), (2, "b", "x"), (3, "a", "y"), (4, "a", "z")]
            {
                let (producer, chosen) = (producer.as_bytes(), chosen.as_bytes());
                assert_eq!(stream.added_before(producer, chosen, ms), None);
                stream.note_added(producer, chosen, at(ms), ms, rows);
            }
        });
        assert_eq!(noted(&stream), ["bx=2-0", "ay=3-0", "az=4-0"]);
        assert_eq!(stream.added_before(b"a", b"z", 1003), Some(at(4)));
        assert_eq!(stream.added_before(b"a", b"y", 1003), None);
        let facts = stream.idempotence(1003).expect("facts");
        assert_eq!((facts.producers, facts.ids, facts.added), (1, 1, 4));
        // One whose time has come is known anew under the same id.
        with(|rows| stream.note_added(b"a", b"y", at(1003), 1003, rows));
        assert_eq!(noted(&stream), ["az=4-0", "ay=1003-0"]);
        with(|rows| {
            stream.configure(settings, rows);
            assert_eq!(noted(&stream).len(), 2);
            let other = IdempotenceSettings {
                ids_max: 3,
                ..settings
            };
            stream.configure(other, rows);
        });
        assert_eq!(noted(&stream).len(), 0);
        let known = stream.idempotence.as_deref().expect("settings");
        assert_eq!((known.memory, known.producers.len()), (0, 0));
    }

    #[test]
    fn few_go_at_once() {
        let mut stream = Stream::new(1);
        with(|rows| {
            for n in 0..1000u64 {
                stream.note_added(&n.to_be_bytes(), b"x", at(n), n, rows);
            }
            let later = 1 << 40;
            for n in 1..=20u64 {
                stream.note_added(b"p", &n.to_be_bytes(), at(later), later, rows);
                let facts = stream.idempotence(later).expect("facts");
                assert_eq!((facts.producers, facts.ids as u64), (1, n));
            }
        });
        assert_eq!(noted(&stream).len(), 1000 - 20 * SWEPT + 20);
    }
}
