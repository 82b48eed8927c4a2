//! The entries of a stream, in chunks: all of them, or those pages that memory has ([`super::pages`]).

use std::collections::BTreeMap;

use super::chunk::{Chunk, Entry};
use super::id::EntryId;
use super::pages::Pages;
use super::rows::StreamRows;

/// How far a stream is cut at its old end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trim {
    pub until: Until,
    /// Only whole chunks go.
    pub roughly: bool,
    /// At most so many entries go; 0: any number.
    pub limit: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// So many are left.
    Len(u64),
    /// None is left below this id.
    Id(EntryId),
}

/// Entries by id; each chunk under the id of the first entry it ever had.
#[derive(Debug, Clone, Default)]
pub(super) struct Entries {
    pub(super) chunks: BTreeMap<EntryId, Chunk>,
    /// In memory or not.
    pub(super) len: usize,
    /// Bytes of the chunks.
    pub(super) heap: usize,
    /// `None`: all of them are in memory.
    pub(super) pages: Option<Box<Pages>>,
}

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn chunks(&self) -> usize {
        self.chunks.len() + self.absent()
    }

    pub(super) fn memory(&self) -> usize {
        self.heap + self.pages_memory()
    }

    pub(super) fn first(&self) -> Option<EntryId> {
        let (base, chunk) = self.chunks.first_key_value()?;
        chunk.entries(*base).next().map(|entry| entry.id)
    }

    pub(super) fn last(&self) -> Option<EntryId> {
        self.chunks.last_key_value().map(|(_, chunk)| chunk.last())
    }

    pub(super) fn get(&self, id: EntryId) -> Option<Entry<'_>> {
        let near = self.chunks.range(..=id).next_back();
        let found = near.and_then(|(base, chunk)| {
            let mut entries = chunk.entries(*base);
            entries.find(|entry| entry.id == id)
        });
        found.or_else(|| self.loose(id).map(|body| Entry::own(id, body)))
    }

    /// All chunks, each with its base.
    pub(super) fn all(&self) -> impl Iterator<Item = (&EntryId, &Chunk)> {
        self.chunks.iter()
    }

    /// Entries from `start` to `end`, both included.
    pub(super) fn range(
        &self,
        start: EntryId,
        end: EntryId,
    ) -> impl Iterator<Item = Entry<'_>> + Clone {
        self.chunks_of(start, end)
            .flat_map(|(base, chunk)| chunk.entries(*base))
            .skip_while(move |entry| entry.id < start)
            .take_while(move |entry| entry.id <= end)
    }

    /// The same from the last one to the first.
    pub(super) fn range_back(
        &self,
        start: EntryId,
        end: EntryId,
    ) -> impl Iterator<Item = Entry<'_>> + Clone {
        self.chunks_of(start, end)
            .rev()
            .flat_map(|(base, chunk)| {
                let mut entries: Vec<_> = chunk.entries(*base).collect();
                entries.reverse();
                entries
            })
            .skip_while(move |entry| entry.id > end)
            .take_while(move |entry| entry.id >= start)
    }

    fn chunks_of(
        &self,
        start: EntryId,
        end: EntryId,
    ) -> impl DoubleEndedIterator<Item = (&EntryId, &Chunk)> + Clone {
        let first = (self.chunks.range(..=start).next_back()).map_or(start, |(base, _)| *base);
        // A range that ends before it begins holds nothing.
        self.chunks.range(first..=end.max(first))
    }

    /// Adds an entry behind all others.
    pub(super) fn push(&mut self, id: EntryId, body: &[u8], rows: &mut StreamRows<'_, '_>) {
        if !self.is_whole() {
            self.turn_page(id, body.len(), rows);
        }
        self.append(id, body);
    }

    /// The same, as far as chunks go.
    pub(super) fn append(&mut self, id: EntryId, body: &[u8]) {
        self.len += 1;
        let open_from = self.open_from();
        if let Some(mut tail) = (self.chunks.last_entry()).filter(|tail| *tail.key() >= open_from) {
            let base = *tail.key();
            let chunk = tail.get_mut();
            let before = chunk.memory();
            if chunk.takes(body) {
                chunk.push(base, id, body);
                self.heap = self.heap + chunk.memory() - before;
                return;
            }
            chunk.close();
            self.heap = self.heap + chunk.memory() - before;
        }
        let mut chunk = Chunk::new(body);
        chunk.push(id, id, body);
        self.heap += chunk.memory();
        self.chunks.insert(id, chunk);
    }

    pub(super) fn remove(&mut self, id: EntryId, rows: &mut StreamRows<'_, '_>) -> bool {
        let Some((base, chunk)) = self.chunks.range_mut(..=id).next_back() else {
            return self.remove_loose(id, rows);
        };
        let (base, before) = (*base, chunk.memory());
        if !chunk.remove(base, id) {
            return self.remove_loose(id, rows);
        }
        self.len -= 1;
        self.heap = self.heap + chunk.memory() - before;
        if chunk.len() == 0 {
            self.heap -= chunk.memory();
            self.chunks.remove(&base);
        }
        self.lost(id, 1, rows);
        true
    }

    /// Removes the oldest entries and their rows.
    pub(super) fn trim(&mut self, trim: &Trim, rows: &mut StreamRows<'_, '_>) {
        let mut removed = 0u64;
        loop {
            removed += self.trim_pages(trim, removed, rows);
            let has_front = self.has_front();
            let Some(mut head) = self.chunks.first_entry().filter(|_| has_front) else {
                return;
            };
            let base = *head.key();
            let chunk = head.get_mut();
            let len = chunk.len();
            let left = self.len as u64;
            if matches!(trim.until, Until::Len(wanted) if left <= wanted)
                || trim.limit > 0 && removed + len as u64 > trim.limit
            {
                return;
            }
            let whole = match trim.until {
                Until::Len(wanted) => left - len as u64 >= wanted,
                Until::Id(first) => chunk.last() < first,
            };
            if whole {
                chunk
                    .entries(base)
                    .for_each(|entry| rows.remove_entry(entry.id));
                removed += len as u64;
                self.len -= len;
                self.heap -= chunk.memory();
                head.remove();
                self.lost(base, len, rows);
                continue;
            }
            if trim.roughly {
                return;
            }
            let mut surplus = match trim.until {
                Until::Len(wanted) => left - wanted,
                Until::Id(_) => u64::MAX,
            };
            chunk.trim(base, |id| {
                let goes = match trim.until {
                    Until::Len(_) => surplus > 0,
                    Until::Id(first) => id < first,
                };
                if goes {
                    surplus -= 1;
                    rows.remove_entry(id);
                }
                goes
            });
            let trimmed = len - chunk.len();
            self.len -= trimmed;
            self.lost(base, trimmed, rows);
            return;
        }
    }
}

impl PartialEq for Entries {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len
            && self
                .range(EntryId::MIN, EntryId::MAX)
                .eq(other.range(EntryId::MIN, EntryId::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::super::chunk::body;
    use super::*;
    use crate::cache::row::Rows;
    use crate::rows::Tag;
    use crate::{Effects, ShardId, Slot};
    use proptest::prelude::*;

    fn with<R>(change: impl FnOnce(&mut StreamRows<'_, '_>) -> R) -> R {
        let mut fx = Effects::new();
        let slot = Slot::of(b"");
        let mut rows = Rows::new(&mut fx, (ShardId(0), 1), slot, Tag::Stream, 1);
        change(&mut StreamRows {
            rows: &mut rows,
            group: b"",
        })
    }

    /// Trims; the ids that have gone.
    fn trimmed(entries: &mut Entries, trim: &Trim) -> Vec<EntryId> {
        let ids = |entries: &Entries| -> Vec<EntryId> {
            let all = entries.range(EntryId::MIN, EntryId::MAX);
            all.map(|entry| entry.id).collect()
        };
        let mut gone = ids(entries);
        with(|rows| entries.trim(trim, rows));
        let left = ids(entries);
        gone.retain(|id| !left.contains(id));
        gone
    }

    type Model = BTreeMap<EntryId, Vec<(Vec<u8>, Vec<u8>)>>;

    #[derive(Debug, Clone)]
    enum Op {
        Push(u64, u64, Vec<(u8, usize)>),
        Remove(u16),
        Trim(u16, bool, u64),
        TrimId(u16),
    }

    fn op() -> impl Strategy<Value = Op> {
        let pairs = prop_oneof![
            6 => (0usize..200).prop_map(|n| vec![(1, n), (2, n / 2)]),
            1 => prop::collection::vec((0u8..3, 0usize..200), 0..4),
            1 => Just(vec![(1, 5000)]),
        ];
        prop_oneof![
            30 => (0u64..3, 0u64..300, pairs).prop_map(|(ms, seq, pairs)| Op::Push(ms, seq, pairs)),
            5 => any::<u16>().prop_map(Op::Remove),
            1 => (0u16..200, any::<bool>(), 0u64..150).prop_map(|(n, roughly, limit)| Op::Trim(n, roughly, limit)),
            1 => any::<u16>().prop_map(Op::TrimId),
        ]
    }

    fn nth(model: &Model, n: u16) -> EntryId {
        let n = usize::from(n) % model.len().max(1);
        model.keys().nth(n).copied().unwrap_or_default()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn agree_with_a_map(ops in prop::collection::vec(op(), 1..300)) {
            let (mut entries, mut model, mut last) = (Entries::default(), Model::new(), EntryId::MIN);
            for op in ops {
                match op {
                    Op::Push(ms, seq, pairs) => {
                        last = if ms > 0 { EntryId { ms: last.ms + ms, seq } } else { EntryId { seq: last.seq + seq + 1, ..last } };
                        let pairs: Vec<(Vec<u8>, Vec<u8>)> = pairs.into_iter().map(|(name, n)| (vec![name; usize::from(name) * 3], vec![7; n])).collect();
                        let mut bytes = Vec::new();
                        body(pairs.iter().map(|(f, v)| (&**f, &**v)), &mut bytes);
                        prop_assert!(super::super::chunk::is_body(&bytes));
                        with(|rows| entries.push(last, &bytes, rows));
                        model.insert(last, pairs);
                    }
                    Op::Remove(n) => {
                        let id = nth(&model, n);
                        prop_assert_eq!(with(|rows| entries.remove(id, rows)), model.remove(&id).is_some());
                        prop_assert!(!with(|rows| entries.remove(id, rows)));
                    }
                    Op::Trim(len, roughly, limit) => {
                        let trim = Trim { until: Until::Len(u64::from(len)), roughly, limit: if roughly { limit } else { 0 } };
                        let gone = trimmed(&mut entries, &trim);
                        prop_assert!(roughly && gone.len() <= model.len().saturating_sub(usize::from(len)) || !roughly && gone.len() == model.len().saturating_sub(usize::from(len)));
                        prop_assert!(gone.iter().all(|id| model.pop_first().map(|(id, _)| id) == Some(*id)));
                    }
                    Op::TrimId(n) => {
                        let first = nth(&model, n);
                        let gone = trimmed(&mut entries, &Trim { until: Until::Id(first), roughly: false, limit: 0 });
                        let kept = model.split_off(&first);
                        prop_assert!(model.keys().eq(&gone));
                        model = kept;
                    }
                }
                prop_assert_eq!(entries.len(), model.len());
                prop_assert_eq!(entries.first(), model.keys().next().copied());
                prop_assert_eq!(entries.last(), model.keys().next_back().copied());
                prop_assert_eq!(entries.heap, entries.chunks.values().map(Chunk::memory).sum::<usize>());
            }
            let told = |entry: Entry<'_>| (entry.id, entry.pairs().map(|(f, v)| (f.to_vec(), v.to_vec())).collect::<Vec<_>>());
            let (start, end) = (nth(&model, 7), nth(&model, 150).before().unwrap_or_default());
            let expected: Vec<_> = model.range(start..).take_while(|(id, _)| **id <= end).map(|(id, pairs)| (*id, pairs.clone())).collect();
            prop_assert_eq!(entries.range(start, end).map(told).collect::<Vec<_>>(), expected.clone());
            prop_assert!(entries.range_back(start, end).map(told).eq(expected.into_iter().rev()));
            prop_assert!(entries.get(start).map(told).map(|(_, pairs)| pairs) == model.get(&start).cloned());
            let mut copy = Entries::default();
            for entry in entries.range(EntryId::MIN, EntryId::MAX) {
                let mut bytes = Vec::new();
                entry.body(&mut bytes);
                copy.append(entry.id, &bytes);
            }
            prop_assert!(copy == entries);
        }
    }
}
