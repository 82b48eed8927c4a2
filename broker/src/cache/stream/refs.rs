//! Entries that go with, without or only after what groups know of them.

use super::super::row::Rows;
use super::Stream;
use super::entries::{Entries, Trim, Until};
use super::id::EntryId;
use super::rows::StreamRows;

/// What becomes of an entry's places among what groups have pending.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Refs {
    /// They stay, and name an entry that is gone.
    #[default]
    Keep,
    /// They go with the entry.
    Delete,
    /// The entry goes only if every group has read it and has it not pending.
    Acked,
}

/// What became of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// There was none.
    Missing,
    Deleted,
    /// A group still needs it.
    Referenced,
}

impl Stream {
    /// Does a group need this entry: has it not read it, or not acknowledged it?
    fn is_referenced(&self, id: EntryId) -> bool {
        self.groups
            .values()
            .any(|group| group.last < id || group.pending_at(id).is_some())
    }

    /// Takes an entry out of what groups have pending.
    fn forget_pending(&mut self, id: EntryId, rows: &mut Rows<'_>) {
        let has = |group: &super::Group| group.pending_at(id).is_some();
        let groups: Vec<_> = (self.groups.iter())
            .filter(|(_, group)| has(group))
            .map(|(name, _)| name.to_vec())
            .collect();
        for name in groups {
            self.change_group(&name, rows, |_, _, group, rows| {
                group.remove_pending(id, rows);
            });
        }
    }

    /// Deletes entries by name.
    pub fn delete_by(&mut self, ids: &[EntryId], refs: Refs, rows: &mut Rows<'_>) -> Vec<Deletion> {
        let mut all = Vec::with_capacity(ids.len());
        for &id in ids {
            if refs == Refs::Delete {
                // Of an entry that has gone before, too.
                self.forget_pending(id, rows);
            }
            all.push(if self.get(id).is_none() {
                Deletion::Missing
            } else if refs == Refs::Acked && self.is_referenced(id) {
                Deletion::Referenced
            } else {
                self.delete(&[id], rows);
                Deletion::Deleted
            });
        }
        all
    }

    /// Says that a group is done with entries, and deletes them. What it has not pending is `Missing`.
    pub fn acknowledge_and_delete(
        &mut self,
        group: &[u8],
        ids: &[EntryId],
        refs: Refs,
        rows: &mut Rows<'_>,
    ) -> Vec<Deletion> {
        let mut all = Vec::with_capacity(ids.len());
        for &id in ids {
            let done = self.acknowledge(group, &[id], rows);
            if done != Some(1) {
                all.push(Deletion::Missing);
                continue;
            }
            let deletion = self.delete_by(&[id], refs, rows).pop();
            // It was acknowledged, whether the entry was still there or not.
            all.push(match deletion {
                Some(Deletion::Referenced) => Deletion::Referenced,
                _ => Deletion::Deleted,
            });
        }
        all
    }

    /// Removes the oldest entries; how many. With [`Refs::Acked`] those that a group needs stay, even between others that go.
    pub fn trim_by(&mut self, trim: &Trim, refs: Refs, rows: &mut Rows<'_>) -> usize {
        if refs == Refs::Keep {
            return self.trim(trim, rows);
        }
        let mut removed = 0;
        for id in self.entries.surplus(trim) {
            if refs == Refs::Acked && self.is_referenced(id) {
                continue;
            }
            let mut told = StreamRows { rows, group: b"" };
            if self.entries.remove(id, &mut told) {
                told.remove_entry(id);
                removed += 1;
            }
            if refs == Refs::Delete {
                self.forget_pending(id, rows);
            }
        }
        self.news.entries |= removed > 0;
        removed
    }
}

impl Entries {
    /// The entries that [`Entries::trim`] would remove, oldest first.
    fn surplus(&self, trim: &Trim) -> Vec<EntryId> {
        let mut ids = Vec::new();
        let mut left = self.len() as u64;
        for (base, chunk) in self.all() {
            let len = chunk.len() as u64;
            if matches!(trim.until, Until::Len(wanted) if left <= wanted)
                || trim.limit > 0 && ids.len() as u64 + len > trim.limit
            {
                break;
            }
            let whole = match trim.until {
                Until::Len(wanted) => left - len >= wanted,
                Until::Id(first) => chunk.last() < first,
            };
            let of_chunk = chunk.entries(*base).map(|entry| entry.id);
            if whole {
                ids.extend(of_chunk);
                left -= len;
                continue;
            }
            if !trim.roughly {
                match trim.until {
                    Until::Len(wanted) => {
                        let surplus = usize::try_from(left - wanted).unwrap_or(usize::MAX);
                        ids.extend(of_chunk.take(surplus));
                    }
                    Until::Id(first) => ids.extend(of_chunk.take_while(|id| *id < first)),
                }
            }
            break;
        }
        ids
    }
}
