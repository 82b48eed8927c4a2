//! Looking at the elements of hashes, sets and sorted sets, whether memory holds all of them or the tables do ([`super::partial`]).

use super::hash::Hash;
use super::list::Listed;
use super::partial::{self, Partial, Rest};
use super::row::{self, Rows};
use super::set::{Member, Set};
use super::text::Text;
use super::value::{Held, Kind, Value};
use super::view::View;
use super::zset::Zset;
use super::{Error, Name};
use crate::Slot;

/// For commands that look at no element by name.
pub const NO_ELEMENTS: [&[u8]; 0] = [];

/// Cursors that a shard remembers for scans of partial collections. The oldest goes first; its scan starts anew.
const CURSORS: usize = 1024;
/// Says that a cursor is one of those, and not a place among the elements.
const REMEMBERED: u64 = 1 << 62;
/// A partial collection of less memory than this leaves as a whole when its turn comes.
const PARTIAL_MIN: usize = if cfg!(test) { 512 } else { 4 << 10 };
/// Elements looked at in one partial collection by one step of eviction: about a millisecond under the shard's lock.
const TRIM_STEPS: usize = 8192;

/// A hash, a set or a sorted set.
pub trait Collection: Sized {
    #[doc(hidden)]
    fn of(value: &Value) -> Option<&Self>;
    /// Visits the elements of a whole one, with their values (sets: empty; sorted sets: the score).
    fn each_held(&self, visit: &mut dyn FnMut(Member<'_>, &[u8]));
}

/// A hash or a set.
pub trait Placed: Collection {
    /// One element of a whole one, at a place in `0..len`.
    fn held_at(&self, place: usize) -> Option<(Member<'_>, &[u8])>;
}

/// The elements of one collection, wherever they are.
#[derive(Debug)]
pub struct Elements<'a, C> {
    pub collection: &'a C,
    len: usize,
    object: u64,
    partial: Option<&'a Partial>,
    tables: Rest<'a>,
}

impl<C: Collection> Elements<'_, C> {
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of it is in memory.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.partial.is_none()
    }

    /// Visits every element, with its value (sets: empty; sorted sets: the score).
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn each(&self, visit: &mut dyn FnMut(Member<'_>, &[u8])) -> Result<(), Error> {
        let Some(partial) = self.partial else {
            self.collection.each_held(visit);
            return Ok(());
        };
        let (mut seen, mut damaged) = (0, false);
        partial.visit(&self.tables, &[], &mut |name, stored| {
            seen += 1;
            let split = row::split(name, stored);
            match &split {
                Some((name, value)) => visit(Member::Text(name), value),
                None => damaged = true,
            }
            split.is_some()
        })?;
        // A reply has promised so many.
        if damaged || seen != partial.len() {
            return Err(Error::Damaged);
        }
        Ok(())
    }

    /// Visits up to `count` elements from a row name on; the row name that would be next.
    fn page(
        &self,
        from: &[u8],
        count: usize,
        visit: &mut dyn FnMut(Member<'_>, &[u8]),
    ) -> Result<Option<Text>, Error> {
        let Some(partial) = self.partial else {
            return Ok(None);
        };
        let (mut left, mut next, mut damaged) = (count.max(1), None, false);
        partial.visit(&self.tables, from, &mut |name, stored| {
            if left == 0 {
                next = Some(Text::new(name));
                return false;
            }
            left -= 1;
            match row::split(name, stored) {
                Some((name, value)) => visit(Member::Text(&name), value),
                None => damaged = true,
            }
            !damaged
        })?;
        if damaged {
            return Err(Error::Damaged);
        }
        Ok(next)
    }
}

impl<C: Placed> Elements<'_, C> {
    /// The elements at these places of a partial collection, in the order of the places; and of a whole one.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn at(&self, places: &[usize]) -> Result<Vec<Pair>, Error> {
        if self.partial.is_none() {
            let pair = |(name, value): (Member<'_>, &[u8])| (name.to_vec(), value.to_vec());
            let held = places.iter().map(|&place| self.collection.held_at(place));
            return Ok(held.flatten().map(pair).collect());
        }
        let mut wanted: Vec<(usize, usize)> = places.iter().copied().zip(0..).collect();
        wanted.sort_unstable();
        let mut wanted = wanted.into_iter().peekable();
        let mut found: Vec<Pair> = vec![Pair::default(); places.len()];
        let mut at = 0;
        self.each(&mut |name, value| {
            while let Some((_, answer)) = wanted.next_if(|&(place, _)| place == at) {
                if let Some(found) = found.get_mut(answer) {
                    *found = (name.to_vec(), value.to_vec());
                }
            }
            at += 1;
        })?;
        Ok(found)
    }

    /// `count` elements by chance from a partial collection, without repetition if `distinct` (then at most all of them).
    /// Each is found in a few looks at the tables, so that chance is even only among evenly spread names; most of a
    /// collection is chosen evenly.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn random(
        &self,
        count: usize,
        distinct: bool,
        chance: &mut dyn FnMut(u64) -> u64,
    ) -> Result<Vec<Pair>, Error> {
        let Some(partial) = self.partial else {
            return Ok(Vec::new());
        };
        let mut found: Vec<Pair> = Vec::new();
        let few = !distinct || count < partial.len() / 8;
        let mut tries = if few { count.saturating_mul(2) } else { 0 };
        let mut seen = hashbrown::HashSet::<Vec<u8>, foldhash::fast::RandomState>::default();
        while found.len() < count && tries > 0 {
            tries -= 1;
            let Some((name, stored)) = partial.random(&self.tables, chance)? else {
                break;
            };
            if !distinct || seen.insert(name.clone()) {
                let (name, value) = row::split(&name, &stored).ok_or(Error::Damaged)?;
                found.push((name.into_owned(), value.to_vec()));
            }
        }
        if found.len() == count {
            return Ok(found);
        }
        // Too many for that: a place for each, shuffled to the front, and one walk over all.
        let mut places: Vec<usize> = (0..partial.len()).collect();
        let wanted = count.min(places.len());
        for at in 0..wanted {
            let left = (places.len() - at) as u64;
            places.swap(at, at + usize::try_from(chance(left)).unwrap_or(0));
        }
        places.truncate(wanted);
        self.at(&places)
    }
}

/// An element and its value (sets: empty).
pub type Pair = (Vec<u8>, Vec<u8>);

/// Where scans of partial collections go on, by cursor.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    last: u64,
    places: std::collections::VecDeque<(u64, u64, Text)>,
}

impl Cursors {
    fn find(&self, cursor: u64, object: u64) -> Option<Text> {
        self.places
            .iter()
            .rev()
            .find(|(number, of, _)| *number == cursor && *of == object)
            .map(|(.., place)| place.clone())
    }

    /// Numbers grow with the time, so that one from before a restart is never given again.
    fn remember(&mut self, now_ms: u64, object: u64, place: Text) -> u64 {
        self.last = (self.last + 1).max(now_ms << 16 & (REMEMBERED - 1));
        let cursor = REMEMBERED | self.last;
        if self.places.len() >= CURSORS {
            self.places.pop_front();
        }
        self.places.push_back((cursor, object, place));
        cursor
    }
}

impl View<'_> {
    /// The elements of a collection at a key.
    ///
    /// # Errors
    /// [`Error::WrongType`], or when the tables cannot be read.
    pub fn elements<C: Collection>(
        &mut self,
        name: &Name<'_>,
    ) -> Result<Option<Elements<'_, C>>, Error> {
        let engine = self.engine;
        let Some(value) = self.value(name)? else {
            return Ok(None);
        };
        let Held::Object(value) = value else {
            return Err(Error::WrongType);
        };
        Ok(Some(Elements {
            collection: C::of(value).ok_or(Error::WrongType)?,
            len: value.elements(),
            object: value.object(),
            partial: value.partial(),
            tables: Rest::of(engine, name.slot, value),
        }))
    }

    /// Shows about `count` elements of a partial collection from a cursor on (0, or what the last call returned); where
    /// to go on, 0 at the end. A cursor that is not known starts anew. `None`: the collection is whole, or there is none.
    ///
    /// # Errors
    /// [`Error::WrongType`], or when the tables cannot be read.
    pub fn scan_partial<C: Collection>(
        &mut self,
        name: &Name<'_>,
        cursor: u64,
        count: usize,
        visit: &mut dyn FnMut(Member<'_>, &[u8]),
    ) -> Result<Option<u64>, Error> {
        let Some(id) = self
            .elements::<C>(name)?
            .filter(|elements| elements.partial.is_some())
            .map(|elements| elements.object)
        else {
            return Ok(None);
        };
        let from = self.space.cursors.find(cursor, id).unwrap_or(Text::EMPTY);
        let next = match self.elements::<C>(name)? {
            Some(elements) => elements.page(&from, count, visit)?,
            None => None,
        };
        let now = self.now;
        Ok(Some(next.map_or(0, |place| {
            self.space.cursors.remember(now, id, place)
        })))
    }

    /// Makes memory know the named elements of a partial collection; nothing to do for any other value.
    #[inline]
    pub(super) fn know(
        &mut self,
        index: u32,
        slot: Slot,
        elements: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) -> Result<(), Error> {
        let entry = self.space.dbs[self.number].slab.get(index);
        if entry.is_some_and(|entry| entry.value.partial().is_some()) {
            return self.learn(index, slot, elements);
        }
        Ok(())
    }

    #[cold]
    fn learn(
        &mut self,
        index: u32,
        slot: Slot,
        elements: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) -> Result<(), Error> {
        let stays = self.stays(self.number, index);
        let Some(value) = self.space.dbs[self.number].slab.object_mut(index) else {
            return Ok(());
        };
        let tables = Rest::of(self.engine, slot, value);
        let Some(partial) = value.partial_mut() else {
            return Ok(());
        };
        let before = partial.memory();
        // Before anything is learned: what this command needs must stay until it has run.
        if !stays && self.budget.excess() > 0 {
            let folded = self.engine.folded_seq(self.shard);
            partial.trim(folded, partial::share(self.budget), partial::TRIM_STEPS);
        }
        for element in elements {
            let row_name = row::row_name(element.as_ref());
            if !partial.knows(&row_name) {
                let stored = tables.get(&row_name)?;
                partial.learn(&row_name, stored.as_deref());
            }
        }
        self.space.charge += partial.memory() as i64 - before as i64;
        self.space.settle(self.number, self.budget);
        Ok(())
    }

    /// A collection that has outgrown its share of the budget becomes partial, in the record that made it so.
    pub(super) fn spill(&mut self, index: u32, slot: Slot) {
        let folded = self.engine.folded_seq(self.shard);
        let slab = &mut self.space.dbs[self.number].slab;
        let clean = slab.get(index).is_none_or(|entry| entry.seq <= folded);
        let Some(value) = slab.object_mut(index) else {
            return;
        };
        let before = value.memory();
        if value.kind() == Kind::String {
            return;
        }
        let large = partial::Large::by(self.budget).of(value.kind());
        if before <= large || value.is_partial() {
            return;
        }
        let kind = value.kind();
        let entry = self.space.dbs[self.number].slab.get(index);
        if entry.is_some_and(|entry| self.space.is_ruled(self.number, entry.key)) {
            return;
        }
        if matches!(kind, Kind::Stream | Kind::List) {
            self.divide(index, slot, clean);
            return;
        }
        // Deletions that the fold has not seen yet are known to nobody, and their rows would come back. Under a new id there
        // is no row but those that are written now.
        if !clean {
            self.renumber(index, slot);
        }
        let seq = self.seq;
        let Some(value) = self.space.dbs[self.number].slab.object_mut(index) else {
            return;
        };
        let (id, len) = (value.object(), value.elements());
        match value {
            Value::Hash(hash) => {
                let partial = if clean {
                    Partial::new(len)
                } else {
                    Partial::of(|visit| hash.each_held(visit), seq)
                };
                hash.become_partial(partial);
            }
            Value::Set(set) if clean => **set = Set::partly(id, Partial::new(len)),
            Value::Set(set) => {
                **set = Set::partly(id, Partial::of(|visit| set.each_held(visit), seq));
            }
            Value::Zset(zset) => {
                let members = if clean {
                    Partial::new(len)
                } else {
                    Partial::of(|visit| zset.each_held(visit), seq)
                };
                let tag = row::element_tag(Kind::Zset);
                let mut rows = Rows::new(self.fx, (self.shard, seq), slot, tag, id);
                zset.become_partly(members, &mut rows);
            }
            _ => return,
        }
        self.space.charge += value.memory() as i64 - before as i64;
        self.space.partials.insert((self.number, index));
        self.fx.put(
            self.shard,
            &row::element_count_key(slot, id),
            &(len as i64).to_le_bytes(),
        );
    }

    /// The same for a list or a stream: the rows of its items or entries are what they were.
    fn divide(&mut self, index: u32, slot: Slot, clean: bool) {
        let (shard, seq) = (self.shard, self.seq);
        let Some(value) = self.space.dbs[self.number].slab.object_mut(index) else {
            return;
        };
        let before = value.memory();
        let changed = if clean { 0 } else { seq };
        match value {
            Value::Stream(stream) => stream.divide(changed),
            Value::List(list) => list.divide(changed),
            _ => return,
        }
        let tag = row::element_tag(value.kind());
        let mut rows = Rows::new(self.fx, (shard, seq), slot, tag, value.object());
        value.write_places(&mut rows);
        self.space.charge += value.memory() as i64 - before as i64;
        self.space.dbs[self.number].slab.mark(index, seq);
        self.space.partials.insert((self.number, index));
    }

    /// Bytes of elements that one command may hold of a collection that is not whole.
    pub(super) fn at_once(&self) -> usize {
        let half = usize::try_from(self.budget.limit() / 2).unwrap_or(usize::MAX);
        half.clamp(AT_ONCE_MIN, COPY_MAX)
    }

    /// Writes how many elements more (or less) a partial collection has.
    pub(super) fn count_elements(&mut self, slot: Slot, id: u64, before: usize, now: usize) {
        if before != now {
            let delta = now as i64 - before as i64;
            let key = row::element_count_key(slot, id);
            self.fx.add(self.shard, &key, delta);
        }
    }

    /// The whole of a value, in memory: for a copy under another id.
    pub(super) fn whole(&self, slot: Slot, value: &Value) -> Result<Value, Error> {
        let tables = Rest::of(self.engine, slot, value);
        match value {
            Value::Stream(stream) if !stream.is_whole() => {
                return Ok(Value::Stream(Box::new(stream.whole(&tables)?)));
            }
            Value::List(list) if !list.is_whole() => {
                let whole = Listed::of(list, tables).whole(COPY_MAX)?;
                return Ok(Value::List(Box::new(whole)));
            }
            _ => {}
        }
        let Some(partial) = value.partial() else {
            return Ok(value.clone());
        };
        let kind = value.kind();
        let (mut hash, mut set, mut zset) = (Hash::new(0), Set::new(0), Zset::new(0));
        let mut damaged = false;
        let mut size = 0;
        partial.visit(&tables, &[], &mut |name, stored| {
            size += name.len() + stored.len();
            match row::split(name, stored) {
                Some((name, value)) if kind == Kind::Hash => {
                    hash.set(&name, value);
                }
                Some((name, score)) if kind == Kind::Zset => match score.try_into() {
                    Ok(score) => {
                        zset.set(&name, f64::from_le_bytes(score));
                    }
                    Err(_) => damaged = true,
                },
                Some((name, _)) => {
                    set.add(&name);
                }
                None => damaged = true,
            }
            !damaged && size <= COPY_MAX
        })?;
        if let Value::Hash(of) = value
            && let Some(deadlines) = of.deadlines()
        {
            hash.with_deadlines(|all| *all = deadlines.clone());
        }
        match kind {
            _ if damaged => Err(Error::Damaged),
            _ if size > COPY_MAX => Err(Error::TooLarge),
            Kind::Hash => Ok(Value::Hash(Box::new(hash))),
            Kind::Zset => Ok(Value::Zset(Box::new(zset))),
            _ => Ok(Value::Set(Box::new(set))),
        }
    }

    /// Forgets what partial collections know beyond their share; bytes given back.
    pub(super) fn trim_partials(&mut self, folded: u64) -> u64 {
        let share = partial::share(self.budget);
        let mut all = 0;
        let mut partials = std::mem::take(&mut self.space.partials);
        partials.retain(|&(number, index)| {
            if self.stays(number, index) {
                return true;
            }
            // What comes is no rule's.
            (self.space).attend_entry(number, index, self.budget);
            let db = self.space.dbs.get_mut(number);
            let value = db.and_then(|db| db.slab.object_mut(index));
            let Some(given) = value.and_then(|value| value.trim(folded, share, TRIM_STEPS)) else {
                return false;
            };
            self.space.charge -= given as i64;
            all += given;
            true
        });
        self.space.partials = partials;
        all as u64
    }

    /// The value at this entry does not leave memory for the tables: its key has a rule, for which it would not count there.
    pub(super) fn stays(&self, number: usize, index: u32) -> bool {
        self.space.scopes.is_some()
            && (self.space.dbs.get(number))
                .and_then(|db| db.slab.get(index))
                .is_some_and(|entry| {
                    entry.value.is_partial() && self.space.is_ruled(number, entry.key)
                })
    }

    /// Instead of forgetting a large partial collection, half of what it knows; bytes given back. `None`: it is not one.
    pub(super) fn trim_victim(&mut self, index: u32, folded: u64) -> Option<u64> {
        (self.space).attend_entry(self.number, index, self.budget);
        let value = self.space.dbs[self.number].slab.object_mut(index)?;
        let held = value.held().filter(|held| *held > PARTIAL_MIN)?;
        let given = value.trim(folded, held / 2, TRIM_STEPS)?;
        self.space.charge -= given as i64;
        Some(given as u64)
    }
}

/// So much may be held at once however little the cache may hold.
const AT_ONCE_MIN: usize = if cfg!(test) { 1 << 20 } else { 64 << 20 };
/// Bytes of elements that one record may copy: a record of the log is smaller than 4 GiB.
pub(super) const COPY_MAX: usize = 1 << 30;
