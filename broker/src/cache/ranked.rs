//! Looking at the members of sorted sets by rank and between bounds, whether memory holds all of one or the tables do
//! ([`super::order`]).

use std::ops::Range;

use super::elements::{COPY_MAX, NO_ELEMENTS};
use super::partial::{self, Rest};
use super::row::{self, Rows};
use super::text::Text;
use super::value::{Kind, Value};
use super::view::View;
use super::zset::{LexBound, ScoreBound, Zset};
use super::{Error, Name, order};
use crate::rows::{self, Tag};
use crate::{Engine, Slot};

/// Pages looked at by a command that finds too many in memory.
const TRIM_PAGES: usize = 256;

/// What a member that is taken off costs until the fold, besides its name: its copy, that it is gone, by name and in its page, and its record.
const TAKEN: usize = 350;

/// A sorted set, wherever its members are.
#[derive(Debug)]
pub struct Ranked<'a> {
    zset: &'a mut Zset,
    tables: Rest<'a>,
}

impl<'a> Ranked<'a> {
    fn of(engine: &'a Engine, slot: Slot, zset: &'a mut Zset) -> Self {
        let prefix = rows::object_prefix(slot, Tag::ZsetOrder, zset.id);
        Self {
            zset,
            tables: Rest { engine, prefix },
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.zset.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Redis would pack it.
    #[must_use]
    pub fn is_small(&self) -> bool {
        self.zset.is_small()
    }

    /// The score of a member that was named.
    #[must_use]
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        self.zset.score(member)
    }

    /// How many members stand before this one, which was named.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn rank(&mut self, member: &[u8]) -> Result<Option<usize>, Error> {
        let Some(score) = self.zset.score(member).filter(|_| !self.zset.is_whole()) else {
            return Ok(self.zset.rank(member));
        };
        let Some(partly) = self.zset.as_partly_mut() else {
            return Ok(None);
        };
        let place = order::place(score, member);
        partly.order.rank(&place, &self.tables).map(Some)
    }

    /// Ranks of the members whose scores lie between the bounds.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn by_score(&mut self, min: ScoreBound, max: ScoreBound) -> Result<Range<usize>, Error> {
        let tables = &self.tables;
        let mut before = |bound: ScoreBound, or_equal| match self.zset.as_partly_mut() {
            None => Ok(self.zset.before_score(bound, or_equal)),
            Some(partly) => {
                (partly.order).partition(|score, _| bound.below_ordered(score, or_equal), tables)
            }
        };
        let start = before(min, false)?;
        let end = before(max, true)?;
        Ok(start..end.max(start))
    }

    /// Ranks of the members between two bounds in byte order; meaningful when all scores are equal.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn by_member(
        &mut self,
        min: LexBound<'_>,
        max: LexBound<'_>,
    ) -> Result<Range<usize>, Error> {
        let tables = &self.tables;
        let mut before = |bound: LexBound<'_>, or_equal| match self.zset.as_partly_mut() {
            None => Ok(self.zset.before_member(bound, or_equal)),
            Some(partly) => {
                (partly.order).partition_members(|member| bound.below(&|| member, or_equal), tables)
            }
        };
        let start = before(min, false)?;
        let end = before(max, true)?;
        Ok(start..end.max(start))
    }

    /// Visits members and scores of a range of ranks, in order or backwards, until `visit` is false.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn each_while(
        &mut self,
        ranks: Range<usize>,
        backwards: bool,
        mut visit: impl FnMut(&[u8], f64) -> bool,
    ) -> Result<(), Error> {
        if let Some(partly) = self.zset.as_partly_mut() {
            return (partly.order).each(ranks, backwards, &self.tables, &mut visit);
        }
        let mut members = self.zset.range(ranks);
        if backwards {
            members.rev().all(|(member, score)| visit(member, score));
        } else {
            members.all(|(member, score)| visit(member, score));
        }
        Ok(())
    }

    /// The same for all of them.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn each(
        &mut self,
        ranks: Range<usize>,
        backwards: bool,
        mut visit: impl FnMut(&[u8], f64),
    ) -> Result<(), Error> {
        if self.zset.is_whole() {
            let members = self.zset.range(ranks);
            if backwards {
                (members.rev()).for_each(|(member, score)| visit(member, score));
            } else {
                members.for_each(|(member, score)| visit(member, score));
            }
            return Ok(());
        }
        self.each_while(ranks, backwards, |member, score| {
            visit(member, score);
            true
        })
    }

    /// Members and scores of a range of ranks.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if they are more than may be copied, or when the tables cannot be read.
    pub fn members(
        &mut self,
        ranks: Range<usize>,
        backwards: bool,
    ) -> Result<Vec<(Text, f64)>, Error> {
        self.copy(ranks, backwards, size_of::<(Text, f64)>(), COPY_MAX)
    }

    /// Each takes `besides` bytes besides its name, all together at most `limit`.
    fn copy(
        &mut self,
        ranks: Range<usize>,
        backwards: bool,
        besides: usize,
        limit: usize,
    ) -> Result<Vec<(Text, f64)>, Error> {
        if ranks.len().saturating_mul(besides) > limit {
            return Err(Error::TooLarge);
        }
        let mut found = Vec::new();
        let mut size = 0;
        self.each_while(ranks, backwards, |member, score| {
            size += member.len() + besides;
            found.push((Text::new(member), score));
            size <= limit
        })?;
        if size > limit {
            return Err(Error::TooLarge);
        }
        Ok(found)
    }

    /// The members of these ranks, in the order in which they are named, and their scores.
    ///
    /// # Errors
    /// As [`Ranked::members`].
    pub fn members_at(&mut self, ranks: &[usize]) -> Result<Vec<(Text, f64)>, Error> {
        if ranks.len().saturating_mul(size_of::<(Text, f64)>()) > COPY_MAX {
            return Err(Error::TooLarge);
        }
        let Some(partly) = self.zset.as_partly_mut() else {
            let at = |&rank: &usize| self.zset.range(rank..rank + 1).next();
            let found = ranks.iter().filter_map(at);
            return Ok(found
                .map(|(member, score)| (Text::new(member), score))
                .collect());
        };
        let mut places: Vec<usize> = (0..ranks.len()).collect();
        let rank = |place: &usize| ranks.get(*place).copied().unwrap_or_default();
        places.sort_unstable_by_key(rank);
        let sorted: Vec<usize> = places.iter().map(rank).collect();
        let mut found = vec![(Text::EMPTY, 0.0); ranks.len()];
        let mut places = places.into_iter();
        partly
            .order
            .each_of(&sorted, &self.tables, &mut |member, score| {
                if let Some(slot) = places.next().and_then(|place| found.get_mut(place)) {
                    *slot = (Text::new(member), score);
                }
            })?;
        Ok(found)
    }

    /// What the order has of members, memory need not read again. One that it does not know is as the tables have it, in
    /// both.
    fn learn(&mut self, found: &[(Text, f64)]) {
        if let Some(partly) = self.zset.as_partly_mut() {
            for (member, score) in found {
                let stored = row::stored_value(member, &score.to_le_bytes());
                partly.members.learn(&row::row_name(member), Some(&stored));
            }
        }
    }
}

impl View<'_> {
    /// Looks at the sorted set at a key. It is told which members will be asked for by name.
    ///
    /// # Errors
    /// [`Error::WrongType`], or when the tables cannot be read, or what `look` returns.
    pub fn ranked<R, E: From<Error>>(
        &mut self,
        name: &Name<'_>,
        elements: impl IntoIterator<Item = impl AsRef<[u8]>>,
        look: impl FnOnce(&mut Ranked<'_>) -> Result<R, E>,
    ) -> Result<Option<R>, E> {
        let Some(index) = self.find(name)? else {
            return Ok(None);
        };
        let engine = self.engine;
        let slab = &mut self.space.dbs[self.number].slab;
        match slab.object_mut(index) {
            Some(Value::Zset(zset)) if zset.is_whole() => {
                return look(&mut Ranked::of(engine, name.slot, zset)).map(Some);
            }
            Some(Value::Zset(_)) => {}
            _ => return Err(Error::WrongType.into()),
        }
        self.know(index, name.slot, elements)?;
        let stays = self.stays(self.number, index);
        let slab = &mut self.space.dbs[self.number].slab;
        let Some(Value::Zset(zset)) = slab.object_mut(index) else {
            return Err(Error::WrongType.into());
        };
        let before = zset.memory();
        if !stays
            && self.budget.excess() > 0
            && let Some(partly) = zset.as_partly_mut()
        {
            // Pages only: of the members, those that are asked for must stay.
            let folded = engine.folded_seq(self.shard);
            let target = partial::share(self.budget) / 2;
            partly.order.trim(folded, target, TRIM_PAGES);
        }
        let result = look(&mut Ranked::of(engine, name.slot, zset));
        self.space.charge += zset.memory() as i64 - before as i64;
        self.space.settle(self.number, self.budget);
        result.map(Some)
    }

    /// Takes the members of a range of ranks, which `ranks` finds, and whether they are wanted backwards.
    ///
    /// # Errors
    /// [`Error::WrongType`], [`Error::TooLarge`] if they are more than one record, or half of the cache, may hold, or when the
    /// tables cannot be read.
    pub fn take_ranked(
        &mut self,
        name: &Name<'_>,
        ranks: impl Fn(&mut Ranked<'_>) -> Result<(Range<usize>, bool), Error>,
    ) -> Result<Vec<(Text, f64)>, Error> {
        let engine = self.engine;
        let whole = self.edit_zset(name, false, NO_ELEMENTS, |zset, rows| {
            if !zset.is_whole() {
                return Ok::<_, Error>(None);
            }
            let mut ranked = Ranked::of(engine, name.slot, zset);
            let (range, backwards) = ranks(&mut ranked)?;
            let found = ranked.members(range, backwards)?;
            for (member, _) in &found {
                zset.remove(member, rows);
            }
            Ok(Some(found))
        })?;
        match whole.transpose()?.flatten() {
            Some(found) => return Ok(found),
            None if self.value(name)?.is_none() => return Ok(Vec::new()),
            None => {}
        }
        let limit = self.at_once();
        let found = self.ranked(name, NO_ELEMENTS, |ranked| {
            let (range, backwards) = ranks(ranked)?;
            let found = ranked.copy(range, backwards, TAKEN, limit)?;
            ranked.learn(&found);
            Ok::<_, Error>(found)
        })?;
        let found = found.unwrap_or_default();
        let members = found.iter().map(|(member, _)| member);
        self.edit_zset(name, false, members.clone(), |zset, rows| {
            for member in members {
                zset.remove(member, rows);
            }
        })?;
        Ok(found)
    }

    /// Removes the members of a range of ranks, which `ranks` finds; how many.
    ///
    /// # Errors
    /// As [`View::take_ranked`].
    pub fn remove_ranked(
        &mut self,
        name: &Name<'_>,
        ranks: impl Fn(&mut Ranked<'_>) -> Result<Range<usize>, Error>,
    ) -> Result<usize, Error> {
        let Some(index) = self.find(name)? else {
            return Ok(0);
        };
        let value = self.space.dbs[self.number].slab.object_mut(index);
        if let Some(partial) = value.and_then(|value| value.partial()) {
            let len = partial.len();
            let all = self.ranked(name, NO_ELEMENTS, |ranked| {
                ranks(ranked).map(|range| range.len() == len)
            })?;
            if all == Some(true) {
                // Nothing need be read of what goes as a whole.
                self.touched(name.bytes);
                self.drop_key(index, name.slot);
                return Ok(len);
            }
        }
        let taken = self.take_ranked(name, |ranked| Ok((ranks(ranked)?, false)))?;
        Ok(taken.len())
    }

    /// Pops up to `count` members with the lowest or highest scores.
    ///
    /// # Errors
    /// As [`View::take_ranked`].
    pub fn pop_members(
        &mut self,
        name: &Name<'_>,
        max: bool,
        count: usize,
    ) -> Result<Vec<(Text, f64)>, Error> {
        self.take_ranked(name, |ranked| {
            let len = ranked.len();
            let count = count.min(len);
            let range = if max { len - count..len } else { 0..count };
            Ok((range, max))
        })
    }

    /// Before a sorted set changes: one that memory has whole and that is too large becomes partial while the tables have all
    /// of it, and what earlier changes left over in its order is done.
    #[inline]
    pub(super) fn prepare_order(&mut self, index: u32, slot: Slot) -> Result<(), Error> {
        let slab = &mut self.space.dbs[self.number].slab;
        match slab.object_mut(index) {
            Some(Value::Zset(zset)) if zset.may_be_large() => self.prepare_large(index, slot),
            _ => Ok(()),
        }
    }

    #[cold]
    fn prepare_large(&mut self, index: u32, slot: Slot) -> Result<(), Error> {
        let folded = self.engine.folded_seq(self.shard);
        let (engine, shard, seq) = (self.engine, self.shard, self.seq);
        let slab = &mut self.space.dbs[self.number].slab;
        let clean = slab.get(index).is_none_or(|entry| entry.seq <= folded);
        let Some(Value::Zset(zset)) = slab.object_mut(index) else {
            return Ok(());
        };
        let (id, before) = (zset.id, zset.memory());
        let Some(partly) = zset.as_partly_mut() else {
            if clean {
                self.spill(index, slot);
                let slab = &mut self.space.dbs[self.number].slab;
                let value = slab.object_mut(index);
                if value.is_some_and(|value| value.partial().is_some()) {
                    slab.mark(index, seq);
                }
            }
            return Ok(());
        };
        if !partly.order.needs_tidying(folded) {
            return Ok(());
        }
        let prefix = rows::object_prefix(slot, Tag::ZsetOrder, id);
        let tables = Rest { engine, prefix };
        let tag = row::element_tag(Kind::Zset);
        let mut rows = Rows::new(self.fx, (shard, seq), slot, tag, id);
        let mut wrote = false;
        let done = (partly.order).tidy(folded, &tables, &mut rows, &mut wrote);
        self.space.charge += zset.memory() as i64 - before as i64;
        if wrote {
            self.space.dbs[self.number].slab.mark(index, seq);
        }
        done
    }
}
