//! Looking at the items of a list, whether memory holds all of it or only its ends.

use std::ops::Range;

use super::{Form, List, Reach};
use crate::Slot;
use crate::cache::partial::{self, Rest};
use crate::cache::value::{Held, Value};
use crate::cache::view::{Expire, View};
use crate::cache::{Error, Name};

/// Pieces looked at by a command that finds too much in memory.
const TRIM_PIECES: usize = 64;
/// Bytes of the deletion of an item whose place alone is known.
const DELETED: usize = if cfg!(test) { 8 << 10 } else { 64 };
/// Bytes of an item that is written anew, besides its own.
const KEPT: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct Listed<'a> {
    list: &'a List,
    tables: Rest<'a>,
}

impl Listed<'_> {
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Visits the items of a range of places, in order or backwards, until `visit` is false.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn each_while(
        &self,
        places: Range<usize>,
        back: bool,
        mut visit: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), Error> {
        let places = places.start..places.end.min(self.len()).max(places.start);
        match &self.list.form {
            Form::Far(far) => return far.each(places, back, &self.tables, &mut visit),
            _ if back => {
                self.list.each_back(places, &mut visit);
            }
            _ => {
                self.list.range(places).all(visit);
            }
        }
        Ok(())
    }

    /// The same for all of them, in order.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn each(&self, places: Range<usize>, mut visit: impl FnMut(&[u8])) -> Result<(), Error> {
        if self.list.is_whole() {
            self.list.range(places).for_each(visit);
            return Ok(());
        }
        self.each_while(places, false, |item| {
            visit(item);
            true
        })
    }

    /// All of it, in memory, under no id.
    pub(in crate::cache) fn whole(&self, limit: usize) -> Result<List, Error> {
        let (mut whole, mut size, mut place) = (List::new(0), 0, 0);
        self.each_while(0..self.len(), false, |item| {
            size += item.len();
            whole.load(place, item);
            place += 1;
            size <= limit
        })?;
        if size > limit {
            return Err(Error::TooLarge);
        }
        Ok(whole)
    }
}

impl<'a> Listed<'a> {
    pub(in crate::cache) fn of(list: &'a List, tables: Rest<'a>) -> Self {
        Self { list, tables }
    }
}

impl View<'_> {
    /// The list at a key, of which only the ends may be in memory.
    ///
    /// # Errors
    /// [`Error::WrongType`], or when the tables cannot be read.
    #[inline]
    pub fn list(&mut self, name: &Name<'_>) -> Result<Option<&List>, Error> {
        self.list_for(name, Reach::NONE)
    }

    /// The items of the list at a key.
    ///
    /// # Errors
    /// [`Error::WrongType`], or when the tables cannot be read.
    pub fn listed(&mut self, name: &Name<'_>) -> Result<Option<Listed<'_>>, Error> {
        let engine = self.engine;
        match self.value(name)? {
            None => Ok(None),
            Some(Held::Object(value)) => match value {
                Value::List(list) => Ok(Some(Listed::of(list, Rest::of(engine, name.slot, value)))),
                _ => Err(Error::WrongType),
            },
            Some(_) => Err(Error::WrongType),
        }
    }

    /// Keeps the items of a range of places, which `keep` makes of the length.
    ///
    /// # Errors
    /// [`Error::WrongType`], [`Error::TooLarge`] if more is to go than one record may say, and more is to stay than may be copied, or
    /// when the tables cannot be read.
    pub fn trim_list(
        &mut self,
        name: &Name<'_>,
        keep: impl Fn(usize) -> Range<usize>,
    ) -> Result<(), Error> {
        let limit = self.at_once();
        if let Some(listed) = self.listed(name)?
            && !listed.list.is_whole()
        {
            let len = listed.len();
            let kept = keep(len);
            if kept.is_empty() {
                self.delete(name)?;
                return Ok(());
            }
            if (len - kept.len()).saturating_mul(DELETED) > limit {
                // What stays is written anew, and the rest goes as a whole.
                let (mut list, mut size, mut place) = (List::new(0), 0, 0);
                listed.each_while(kept, false, |item| {
                    size += item.len() + KEPT;
                    list.load(place, item);
                    place += 1;
                    size <= limit
                })?;
                if size > limit {
                    return Err(Error::TooLarge);
                }
                return self.put(name, Value::List(Box::new(list)), Expire::Keep);
            }
        }
        self.edit_list(name, false, Reach::NONE, |list, rows| {
            let kept = keep(list.len());
            list.trim(kept.start, kept.end, rows);
        })?;
        Ok(())
    }

    /// Makes memory have of a list what is within reach.
    #[inline]
    pub(in crate::cache) fn know_items(
        &mut self,
        index: u32,
        slot: Slot,
        reach: Reach,
    ) -> Result<(), Error> {
        let entry = self.space.dbs[self.number].slab.get(index);
        match entry.map(|entry| entry.value) {
            Some(Held::Object(Value::List(list))) if !list.is_whole() => {
                self.read_items(index, slot, reach)
            }
            _ => Ok(()),
        }
    }

    #[cold]
    fn read_items(&mut self, index: u32, slot: Slot, reach: Reach) -> Result<(), Error> {
        let stays = self.stays(self.number, index);
        let limit = self.at_once();
        let Some(value) = self.space.dbs[self.number].slab.object_mut(index) else {
            return Ok(());
        };
        let tables = Rest::of(self.engine, slot, value);
        let Value::List(list) = value else {
            return Ok(());
        };
        let before = list.memory();
        // Before anything is read: what this command needs must stay until it has run.
        if !stays && self.budget.excess() > 0 {
            let folded = self.engine.folded_seq(self.shard);
            list.forget(folded, partial::share(self.budget), TRIM_PIECES);
        }
        let done = match &mut list.form {
            Form::Far(far) => far.hold(reach, limit, &tables),
            _ => Ok(()),
        };
        self.space.charge += list.memory() as i64 - before as i64;
        self.space.settle(self.number, self.budget);
        done
    }
}
