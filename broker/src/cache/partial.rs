//! Hashes, sets and sorted sets that are larger than memory should hold: their rows stay in the tables, and memory knows some of them.
//!
//! ```text
//!   memory    a 1*        c –*    f 6         * changed since the last fold;  – there is no such element
//!   tables    a 0   b 2   c 3     f 6   g 7
//!   together  a 1   b 2           f 6   g 7   one merge in the order of the tables' keys: Partial::visit
//! ```
//! What changed since the fold is always known here, deletions too; anything else is as the tables have it, so what is
//! known and clean may be forgotten at any time. A command names the elements it will look at or change before it does:
//! `View::know` reads their rows, after which they are looked up in memory only.
//!
//! How many elements there are stands in a counter row of the object: counting the rows at each load would read the whole
//! object, and loading one would take seconds. The row is written when a collection outgrows its share of the budget,
//! and a collection with such a row is partial until it is deleted.
//!
//! Elements go by their *row name*: what stands in the table key behind the object's prefix (`row::row_name`). It is the
//! element itself unless that is very long, and its order is the tables'.
//!
//! A sorted set is this and its order: [`super::order`].

use std::collections::BTreeMap;
use std::ops::Bound;

use super::elements::Pair;
use super::row;
use super::text::Text;
use super::value::{Kind, Value};
use super::{Error, Member};
use crate::rows::{self, prefix_end};
use crate::{Budget, Engine, Keyspace, Slot};

/// Shares of the budget: more than one of them is not held whole, so that some collections may be hot at the same time.
const SHARES: u64 = 16;
/// Above this many bytes nothing is held whole, however large the budget: becoming partial writes all of it anew, under the
/// shard's lock. While there is memory, a partial collection may know all its elements.
const LARGE_MAX: u64 = 16 << 20;
/// Below this many bytes everything is held whole, however small the budget.
const LARGE_MIN: u64 = if cfg!(test) { 512 } else { 64 << 10 };
/// Known elements looked at by a command that finds too many known: enough to forget more than it learns.
pub(super) const TRIM_STEPS: usize = 32;
/// Elements of one branch among which chance chooses evenly.
const EVEN: usize = 64;

/// The same for sorted sets. A whole one is much faster where it is looked at by rank, so that it is worth a longer wait once.
const LARGE_ORDERED_MAX: u64 = 64 << 20;

/// And for lists and streams: none of their rows is written anew, and who reads them reads neighbours.
const LARGE_SEQUENCE_MAX: u64 = 4 << 20;

/// Beyond how many bytes of memory collections are not held whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct Large {
    share: u64,
}

impl Large {
    pub(super) fn by(budget: &Budget) -> Self {
        let share = (budget.limit() / SHARES).max(LARGE_MIN);
        Self { share }
    }

    /// Of this kind.
    pub(super) fn of(self, kind: Kind) -> usize {
        let most = match kind {
            Kind::Zset => LARGE_ORDERED_MAX,
            Kind::List | Kind::Stream => LARGE_SEQUENCE_MAX,
            Kind::String | Kind::Hash | Kind::Set => LARGE_MAX,
        };
        usize::try_from(self.share.min(most)).unwrap_or(usize::MAX)
    }
}

/// Bytes that a partial collection may keep in memory when there is not enough of it.
pub(super) fn share(budget: &Budget) -> usize {
    usize::try_from((budget.limit() / SHARES).max(LARGE_MIN)).unwrap_or(usize::MAX)
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Partial {
    /// Elements, in memory or not.
    len: usize,
    /// By row name.
    known: BTreeMap<Text, Known>,
    /// Allocated by names and values.
    heap: usize,
    /// The last one that [`Partial::trim`] looked at.
    hand: Text,
    /// Elements looked at since one was forgotten.
    fruitless: usize,
    /// Nothing could be forgotten when the fold was here.
    stuck: Option<u64>,
    /// Known as the tables have it, whatever the fold has done since.
    learned: usize,
}

/// What memory knows of an element.
#[derive(Debug, Clone)]
struct Known {
    /// As it stands in the row; `None`: there is none.
    stored: Option<Text>,
    /// Seq of the record that changed it last; 0: as the tables have it.
    seq: u64,
    /// Asked for since [`Partial::trim`] came by.
    used: bool,
}

impl Known {
    fn heap_bytes(&self) -> usize {
        self.stored.as_ref().map_or(0, Text::heap_bytes)
    }
}

impl Partial {
    /// Of `len` elements nothing is known.
    pub(super) fn new(len: usize) -> Self {
        Self {
            len,
            known: BTreeMap::new(),
            heap: 0,
            hand: Text::EMPTY,
            fruitless: 0,
            stuck: None,
            learned: 0,
        }
    }

    /// Everything is known and was changed by record `seq`.
    pub(super) fn of(each: impl FnOnce(&mut dyn FnMut(Member<'_>, &[u8])), seq: u64) -> Self {
        let mut heap = 0;
        let mut known: Vec<(Text, Known)> = Vec::new();
        each(&mut |name, value| {
            let stored = Some(name.with(|name| row::stored_value(name, value)));
            let used = false;
            let element = Known { stored, seq, used };
            let name = name.with(|name| Text::new(&row::row_name(name)));
            heap += name.heap_bytes() + element.heap_bytes();
            known.push((name, element));
        });
        // Sorted, the tree is built without a search for each.
        known.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Self {
            heap,
            len: known.len(),
            known: known.into_iter().collect(),
            ..Self::new(0)
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn memory(&self) -> usize {
        // Per element: name, value, seq, and its share of a node of the tree that is three quarters full.
        128 + self.heap + self.known.len() * 88
    }

    pub(super) fn knows(&self, row_name: &[u8]) -> bool {
        self.known.contains_key(row_name)
    }

    /// Somebody will ask for an element that is known.
    fn use_it(&mut self, row_name: &[u8]) -> bool {
        self.known
            .get_mut(row_name)
            .map(|known| known.used = true)
            .is_some()
    }

    /// Takes what the tables have of an element, unless memory knows better.
    pub(super) fn learn(&mut self, row_name: &[u8], stored: Option<&[u8]>) {
        if self.use_it(row_name) {
            return;
        }
        let name = Text::new(row_name);
        let known = Known {
            stored: stored.map(Text::new),
            seq: 0,
            used: true,
        };
        self.heap += name.heap_bytes() + known.heap_bytes();
        self.learned += 1;
        self.known.insert(name, known);
    }

    /// The value of an element that is known.
    pub(super) fn value(&self, name: &[u8]) -> Option<&[u8]> {
        let row_name = row::row_name(name);
        let known = self.known.get(&*row_name);
        debug_assert!(known.is_some(), "an element is read before it is used");
        let stored = known?.stored.as_ref()?;
        let (_, value) = row::split(&row_name, stored)?;
        Some(value)
    }

    pub(super) fn contains(&self, name: &[u8]) -> bool {
        self.value(name).is_some()
    }

    /// Sets an element that is known, present or absent; true when it is new.
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8], seq: u64) -> bool {
        let row_name = row::row_name(name);
        let known = Known {
            stored: Some(row::stored_value(name, value)),
            seq,
            used: true,
        };
        self.heap += known.heap_bytes();
        let old = match self.known.get_mut(&*row_name) {
            Some(place) => Some(std::mem::replace(place, known)),
            None => {
                let row_name = Text::new(&row_name);
                self.heap += row_name.heap_bytes();
                self.known.insert(row_name, known)
            }
        };
        debug_assert!(old.is_some(), "an element is read before it is changed");
        self.heap -= old.as_ref().map_or(0, Known::heap_bytes);
        self.learned -= usize::from(old.as_ref().is_some_and(|old| old.seq == 0));
        let new = old.is_none_or(|old| old.stored.is_none());
        self.len += usize::from(new);
        new
    }

    /// Removes an element that is known; true when it was there.
    pub(super) fn remove(&mut self, name: &[u8], seq: u64) -> bool {
        let known = self.known.get_mut(&*row::row_name(name));
        debug_assert!(known.is_some(), "an element is read before it is removed");
        let Some(known) = known else {
            return false;
        };
        let Some(old) = known.stored.take() else {
            return false;
        };
        self.learned -= usize::from(known.seq == 0);
        known.seq = seq;
        known.used = false;
        self.heap -= old.heap_bytes();
        self.len -= 1;
        true
    }

    /// Forgets clean elements until `target` bytes are left, those first that were not used since it came by last; looks
    /// at about `steps` of them. How many bytes were given back.
    pub(super) fn trim(&mut self, folded: u64, target: usize, mut steps: usize) -> usize {
        let before = self.memory();
        if before <= target || (self.stuck == Some(folded) && self.learned == 0) {
            return 0;
        }
        while self.memory() > target && steps > 0 {
            let excess = self.memory() - target;
            let (mut seen, mut given) = (0, 0);
            let mut clean = Vec::new();
            let mut last = None;
            // An empty name is never looked at: it costs nothing.
            let from = (Bound::Excluded(&*self.hand), Bound::Unbounded);
            for (name, known) in self.known.range_mut::<[u8], _>(from).take(steps.min(256)) {
                seen += 1;
                last = Some(name);
                if known.seq > folded || std::mem::take(&mut known.used) {
                    continue;
                }
                clean.push(name.clone());
                given += 88 + name.heap_bytes() + known.heap_bytes();
                if given >= excess {
                    break;
                }
            }
            self.hand = last.cloned().unwrap_or(Text::EMPTY);
            steps = steps.saturating_sub(seen.max(1));
            if clean.is_empty() {
                self.fruitless += seen.max(1);
                if self.fruitless > 2 * self.known.len() {
                    self.fruitless = 0;
                    self.stuck = Some(folded);
                    break;
                }
            } else {
                self.fruitless = 0;
            }
            for name in &clean {
                if let Some(known) = self.known.remove(name) {
                    self.heap -= name.heap_bytes() + known.heap_bytes();
                    self.learned -= usize::from(known.seq == 0);
                }
            }
        }
        before - self.memory()
    }

    /// Visits row names and rows from `from` on, in their order, until `visit` is false: the one place where tables and
    /// memory are merged.
    pub(super) fn visit(
        &self,
        tables: &Rest<'_>,
        from: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Error> {
        let mut known = self
            .known
            .range::<[u8], _>((Bound::Included(from), Bound::Unbounded))
            .peekable();
        let mut go_on = true;
        tables.scan(from, &mut |name, stored| {
            while let Some((before, known)) = known.next_if(|(known, _)| ***known < *name) {
                if let Some(stored) = &known.stored {
                    go_on = visit(before, stored);
                    if !go_on {
                        return false;
                    }
                }
            }
            go_on = match known.next_if(|(known, _)| ***known == *name) {
                None => visit(name, stored),
                Some((_, known)) => known
                    .stored
                    .as_ref()
                    .is_none_or(|stored| visit(name, stored)),
            };
            go_on
        })?;
        if go_on {
            for (name, known) in known {
                if let Some(stored) = &known.stored
                    && !visit(name, stored)
                {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The last row name that begins with `branch`.
    fn last(&self, tables: &Rest<'_>, branch: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let end = prefix_end(branch);
        let to = end
            .as_deref()
            .filter(|_| !branch.is_empty())
            .map_or(Bound::Unbounded, Bound::Excluded);
        let mut last = self
            .known
            .range::<[u8], _>((Bound::Included(branch), to))
            .rev()
            .find(|(_, known)| known.stored.is_some())
            .map(|(name, _)| name.to_vec());
        tables.scan_rev(branch, &mut |name| {
            let deleted = self
                .known
                .get(name)
                .is_some_and(|known| known.stored.is_none());
            if !deleted && last.as_deref().is_none_or(|last| last < name) {
                last = Some(name.to_vec());
            }
            deleted
        })?;
        Ok(last)
    }

    /// Some element's row name and row. Goes down the branches of the names and chooses among the bytes between the first
    /// and the last name of each: evenly where names are (numbers, hashes), and always in a few looks at the tables.
    pub(super) fn random(
        &self,
        tables: &Rest<'_>,
        chance: &mut dyn FnMut(u64) -> u64,
    ) -> Result<Option<Pair>, Error> {
        let mut branch = Vec::new();
        loop {
            let mut few = Vec::new();
            self.visit(tables, &branch, &mut |name, stored| {
                let inside = name.starts_with(&branch);
                if inside {
                    few.push((name.to_vec(), stored.to_vec()));
                }
                inside && few.len() <= EVEN
            })?;
            if few.len() <= EVEN {
                let place = usize::try_from(chance(few.len().max(1) as u64)).unwrap_or(0);
                return Ok((!few.is_empty()).then(|| few.swap_remove(place.min(few.len() - 1))));
            }
            let (Some((first, _)), Some(last)) = (few.first(), self.last(tables, &branch)?) else {
                return Ok(few.pop());
            };
            let shared = first.iter().zip(&last).take_while(|(a, b)| a == b).count();
            // Where the first name ends, it is one more choice below the smallest byte.
            let low = first.get(shared).map_or(-1, |byte| i16::from(*byte));
            let high = last.get(shared).map_or(low, |byte| i16::from(*byte));
            let choices = u64::from((high - low).unsigned_abs()) + 1;
            let chosen = low + i16::try_from(chance(choices)).unwrap_or(0);
            let Ok(byte) = u8::try_from(chosen) else {
                return Ok(few.into_iter().next());
            };
            let mut next = first.get(..shared).unwrap_or_default().to_vec();
            next.push(byte);
            self.visit(tables, &next.clone(), &mut |name, _| {
                next = name.get(..=shared).unwrap_or(name).to_vec();
                false
            })?;
            branch = next;
        }
    }
}

/// The rows of one object in the tables.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rest<'a> {
    pub(super) engine: &'a Engine,
    pub(super) prefix: [u8; 11],
}

impl<'a> Rest<'a> {
    pub(super) fn of(engine: &'a Engine, slot: Slot, value: &Value) -> Self {
        let tag = row::element_tag(value.kind());
        let prefix = rows::object_prefix(slot, tag, value.object());
        Self { engine, prefix }
    }

    pub(super) fn get(&self, row_name: &[u8]) -> Result<Option<bytes::Bytes>, storage::Error> {
        let key = [&self.prefix[..], row_name].concat();
        self.engine.get(Keyspace::Rows, &key)
    }

    /// Visits the rows from a name on, until `visit` is false.
    pub(super) fn scan(
        &self,
        from: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), storage::Error> {
        let start = [&self.prefix[..], from].concat();
        let end = prefix_end(&self.prefix);
        let skip = self.prefix.len();
        self.engine.scan(
            Keyspace::Rows,
            &start,
            end.as_deref(),
            usize::MAX,
            &mut |key, stored| visit(key.get(skip..).unwrap_or_default(), stored),
        )
    }

    /// Row names that begin with `branch`, from the last one on.
    fn scan_rev(
        &self,
        branch: &[u8],
        visit: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<(), storage::Error> {
        let start = [&self.prefix[..], branch].concat();
        let end = prefix_end(&start);
        let skip = self.prefix.len();
        self.engine.scan_rev(
            Keyspace::Rows,
            &start,
            end.as_deref(),
            usize::MAX,
            &mut |key, _| visit(key.get(skip..).unwrap_or_default()),
        )
    }
}
