//! The transactions of one partition, as its readers see them: which are open, and which were aborted.
//!
//! ```text
//!  offsets ──── a1 ──── b1 ──── a2 ──── B ──── a3 ──── A ────▶      a, b: batches of two producers; A, B: their markers
//!               ▲ first of a            ▲ b is decided  ▲ a is, too
//!               └ last stable offset until A is on the disk
//! ```
//! A reader of committed records reads up to the last stable offset, and is told which transactions below it were aborted.
//! A decision counts when its marker is durable: before, a crash could still undo it.

use std::collections::{BTreeMap, VecDeque};

use super::batch::Header;

/// A transaction that was aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aborted {
    pub producer_id: i64,
    pub first: u64,
    /// Offset of its marker.
    pub last: u64,
    /// No transaction that was open behind its marker began before this.
    pub stable: u64,
}

impl Aborted {
    /// Whether a batch with this header is part of it.
    #[must_use]
    pub fn covers(&self, header: &Header) -> bool {
        let lies = u64::try_from(header.base_offset)
            .is_ok_and(|base| (self.first..self.last).contains(&base));
        lies && header.is_transactional() && header.producer_id == self.producer_id
    }
}

/// See above.
#[derive(Debug, Default)]
pub(super) struct Undecided {
    /// Producer of each open transaction, by its first offset.
    open: BTreeMap<u64, i64>,
    /// First offset and marker of those whose markers are not durable yet.
    ending: Vec<(u64, u64)>,
    /// By their markers.
    aborted: VecDeque<Aborted>,
}

impl Undecided {
    pub(super) fn begin(&mut self, first: u64, producer_id: i64) {
        self.open.insert(first, producer_id);
    }

    /// The transaction that began at `first` has a marker at `last`. Gives the first offset of those that are still open.
    pub(super) fn end(&mut self, first: u64, last: u64) -> u64 {
        self.open.remove(&first);
        self.ending.push((first, last));
        self.open.keys().next().map_or(last + 1, |first| *first)
    }

    /// How many decisions were not durable at the last look.
    pub(super) fn ending(&self) -> usize {
        self.ending.len()
    }

    pub(super) fn add_aborted(&mut self, aborted: Aborted) {
        self.aborted.push_back(aborted);
    }

    /// The first offset that a reader of committed records does not see, when all see those below `durable`.
    pub(super) fn last_stable(&mut self, durable: u64) -> u64 {
        self.ending.retain(|(_, marker)| *marker >= durable);
        let ending = self.ending.iter().map(|(first, _)| *first);
        let open = self.open.keys().next().copied();
        ending.chain(open).fold(durable, u64::min)
    }

    /// Those with records at `from` and behind that began before `to`.
    pub(super) fn aborted(&self, from: u64, to: u64) -> impl Iterator<Item = &Aborted> {
        let first = self.aborted.partition_point(|aborted| aborted.last < from);
        let mut behind = false;
        let near = self.aborted.range(first..).take_while(move |aborted| {
            // All that follow were open behind this one's marker.
            !std::mem::replace(&mut behind, aborted.stable >= to)
        });
        near.filter(move |aborted| aborted.first < to)
    }

    /// Takes those out that lie below `start`, one by one.
    pub(super) fn pop_below(&mut self, start: u64) -> Option<Aborted> {
        self.aborted.pop_front_if(|aborted| aborted.last < start)
    }

    /// All that were aborted.
    pub(super) fn all_aborted(&self) -> impl Iterator<Item = &Aborted> {
        self.aborted.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_is_what_lies_before_every_open_transaction() {
        let mut undecided = Undecided::default();
        assert_eq!(undecided.last_stable(10), 10);
        undecided.begin(4, 1);
        undecided.begin(6, 2);
        assert_eq!(undecided.last_stable(10), 4);
        undecided.end(4, 11);
        assert_eq!(undecided.last_stable(11), 4, "its marker is not durable");
        assert_eq!(undecided.last_stable(12), 6);
        undecided.end(6, 12);
        assert_eq!(undecided.last_stable(20), 20);
    }

    #[test]
    fn aborted_ones_are_told_where_they_have_records() {
        let mut undecided = Undecided::default();
        for (first, last, stable) in [(2, 5, 0), (0, 8, 9), (10, 12, 13)] {
            undecided.add_aborted(Aborted {
                producer_id: 7,
                first,
                last,
                stable,
            });
        }
        let told = |from, to| -> Vec<u64> {
            let told = undecided.aborted(from, to);
            told.map(|aborted| aborted.first).collect()
        };
        assert_eq!(told(0, 3), [2, 0]);
        assert_eq!(told(6, 20), [0, 10]);
        assert_eq!(told(0, 2), [0]);
        assert_eq!(told(13, 20), [0; 0]);
        let gone = std::iter::from_fn(|| undecided.pop_below(9)).count();
        assert_eq!((gone, undecided.all_aborted().count()), (2, 1));
    }
}
