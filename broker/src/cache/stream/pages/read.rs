//! Reading the pages of a stream: into memory for a command that comes, or past it.

use super::super::chunk::{self, Chunk, Entry};
use super::super::entries::{Entries, Trim};
use super::super::id::EntryId;
use super::super::rows;
use super::{LOOSE, PAGE_MAX, Surplus};
use crate::cache::Error;
use crate::cache::partial::Rest;

/// A walk over more pages than this leaves none in memory that were not there.
const WALK_KEPT: usize = 8;

impl Entries {
    /// The entries of a page, from the tables and without what was deleted since.
    fn read(&self, number: usize, tables: &Rest<'_>) -> Result<Self, Error> {
        let pages = self.pages.as_ref().ok_or(Error::Damaged)?;
        let page = pages.all.get(number).ok_or(Error::Damaged)?;
        let end = pages.end(number);
        let mut found = Self::default();
        let mut damaged = false;
        tables.scan(&rows::entry_row(page.first), &mut |name, body| {
            let Some(id) = rows::entry_of(name) else {
                return false;
            };
            if end.is_some_and(|end| id >= end) {
                return false;
            }
            if !page.gone.contains_key(&id) {
                damaged |= !chunk::is_body(body);
                found.append(id, body);
            }
            !damaged
        })?;
        if damaged || found.len != page.count {
            return Err(Error::Damaged);
        }
        Ok(found)
    }

    /// Reads a page, if memory has not all of it.
    fn hold(&mut self, number: usize, tables: &Rest<'_>) -> Result<(), Error> {
        let page = self
            .pages
            .as_mut()
            .and_then(|pages| pages.all.get_mut(number));
        let Some(page) = page else {
            return Ok(());
        };
        page.used = true;
        if page.held || page.count == 0 {
            return Ok(());
        }
        let found = self.read(number, tables)?;
        self.heap += found.heap;
        self.chunks.extend(found.chunks);
        if let Some(pages) = &mut self.pages {
            if let Some(page) = pages.all.get_mut(number) {
                page.held = true;
            }
            pages.list(number);
        }
        Ok(())
    }

    /// Makes memory have the first and the last entry.
    pub(in super::super) fn hold_ends(&mut self, tables: &Rest<'_>) -> Result<(), Error> {
        let Some(pages) = &self.pages else {
            return Ok(());
        };
        let last = pages.last_used();
        self.hold(0, tables)?;
        last.map_or(Ok(()), |last| self.hold(last, tables))
    }

    /// Makes memory have `count` entries from `start` on, which together may take `limit` bytes, each `besides` besides its body.
    pub(in super::super) fn hold_from(
        &mut self,
        start: EntryId,
        count: usize,
        (besides, limit): (usize, usize),
        tables: &Rest<'_>,
    ) -> Result<(), Error> {
        let Some(pages) = &self.pages else {
            return Ok(());
        };
        let first = pages.find(start).unwrap_or(0);
        let (mut number, mut left, mut bytes) = (first, count, 0usize);
        while left > 0 {
            let page = self.pages.as_ref().and_then(|pages| pages.all.get(number));
            let Some(in_page) = page.map(|page| page.count) else {
                break;
            };
            if in_page > 0 {
                let before = self.heap;
                self.hold(number, tables)?;
                let there = if number == first {
                    self.chunks_in(number)
                        .flat_map(|(base, chunk)| chunk.entries(*base))
                        .filter(|entry| entry.id >= start)
                        .count()
                } else {
                    in_page
                };
                bytes += self.heap - before + there.min(left) * besides;
                left = left.saturating_sub(there);
            }
            if bytes > limit {
                return Err(Error::TooLarge);
            }
            number += 1;
        }
        Ok(())
    }

    /// The chunks of a page that is in memory.
    pub(super) fn chunks_in(&self, number: usize) -> impl Iterator<Item = (&EntryId, &Chunk)> {
        let pages = self.pages.as_ref();
        let first = pages.and_then(|pages| Some(pages.all.get(number)?.first));
        let end = pages.and_then(|pages| pages.end(number));
        let first = first.unwrap_or(EntryId::MAX);
        let range = self.chunks.range(first..);
        range.take_while(move |(base, _)| end.is_none_or(|end| **base < end))
    }

    /// Makes memory know an entry by its id, or that there is none.
    pub(in super::super) fn know(
        &mut self,
        id: EntryId,
        limit: usize,
        tables: &Rest<'_>,
    ) -> Result<(), Error> {
        let Some(pages) = &mut self.pages else {
            return Ok(());
        };
        let Some(page) = pages.find(id).and_then(|number| pages.all.get_mut(number)) else {
            return Ok(());
        };
        if page.held {
            page.used = true;
            return Ok(());
        }
        if page.count == 0 || page.gone.contains_key(&id) || pages.loose.contains_key(&id) {
            return Ok(());
        }
        if let Some(body) = tables.get(&rows::entry_row(id))? {
            if !chunk::is_body(&body) {
                return Err(Error::Damaged);
            }
            pages.loose_bytes += LOOSE + body.len();
            pages.loose.insert(id, Box::from(&*body));
        }
        if pages.loose_bytes > limit {
            return Err(Error::TooLarge);
        }
        Ok(())
    }

    /// Makes memory have of the front what [`Entries::trim`] has to look at once `more` entries have come; `all`: whatever goes.
    pub(in super::super) fn hold_surplus(
        &mut self,
        trim: &Trim,
        more: usize,
        all: Option<usize>,
        tables: &Rest<'_>,
    ) -> Result<(), Error> {
        let mut surplus = Surplus {
            trim,
            len: (self.len + more) as u64,
            removed: 0,
        };
        let before = self.heap;
        let mut number = 0;
        loop {
            let Some(pages) = &self.pages else {
                return Ok(());
            };
            let Some(page) = pages.all.get(number) else {
                return Ok(());
            };
            let (count, end) = (page.count, pages.end(number));
            if !surplus.touches(page.first) {
                return Ok(());
            }
            let goes = number < pages.last() && surplus.takes(count, end);
            if !goes || all.is_some() {
                self.hold(number, tables)?;
            }
            if all.is_some_and(|limit| self.heap - before > limit) {
                return Err(Error::TooLarge);
            }
            if !goes {
                return Ok(());
            }
            surplus.take(count);
            number += 1;
        }
    }

    /// How many entries lie between two ids, both included, counted up to `limit`.
    pub(in super::super) fn count_between(
        &mut self,
        (start, end): (EntryId, EntryId),
        limit: usize,
        tables: &Rest<'_>,
    ) -> Result<usize, Error> {
        let Some((low, high)) = self.span(start, end) else {
            return Ok(0);
        };
        let mut count = 0;
        for number in low..=high {
            let is_edge = number == low || number == high;
            if is_edge {
                self.hold(number, tables)?;
                let entries = self
                    .chunks_in(number)
                    .flat_map(|(base, chunk)| chunk.entries(*base));
                count += entries
                    .filter(|entry| entry.id >= start && entry.id <= end)
                    .count();
            } else {
                let page = self.pages.as_ref().and_then(|pages| pages.all.get(number));
                count += page.map_or(0, |page| page.count);
            }
            if count >= limit {
                return Ok(limit);
            }
        }
        Ok(count)
    }

    /// The pages where a range of ids begins and ends.
    fn span(&self, start: EntryId, end: EntryId) -> Option<(usize, usize)> {
        let pages = self.pages.as_ref()?;
        if end < start {
            return None;
        }
        Some((pages.find(start).unwrap_or(0), pages.find(end)?))
    }

    /// Visits up to `limit` entries between two ids, both included, in order or from the last one back.
    pub(in super::super) fn each_between(
        &mut self,
        ids: (EntryId, EntryId),
        (back, limit): (bool, usize),
        tables: &Rest<'_>,
        visit: &mut dyn FnMut(&Entry<'_>),
    ) -> Result<(), Error> {
        let Some((mut low, mut high)) = self.span(ids.0, ids.1) else {
            return Ok(());
        };
        let keep = high - low < WALK_KEPT || limit <= WALK_KEPT * PAGE_MAX;
        let mut left = limit;
        while left > 0 {
            let number = if back { high } else { low };
            if keep {
                self.hold(number, tables)?;
            }
            left -= self.show_page(number, ids, (back, left), tables, visit)?;
            if low >= high {
                break;
            }
            if back {
                high -= 1;
            } else {
                low += 1;
            }
        }
        Ok(())
    }

    /// Visits all of them; what is read on the way does not stay.
    pub(in super::super) fn each(
        &self,
        tables: &Rest<'_>,
        visit: &mut dyn FnMut(&Entry<'_>),
    ) -> Result<(), Error> {
        let (all, how) = ((EntryId::MIN, EntryId::MAX), (false, usize::MAX));
        let pages = self.pages.as_ref().map_or(0, |pages| pages.all.len());
        for number in 0..pages {
            self.show_page(number, all, how, tables, visit)?;
        }
        Ok(())
    }

    /// Visits those of one page; how many.
    fn show_page(
        &self,
        number: usize,
        (start, end): (EntryId, EntryId),
        (back, limit): (bool, usize),
        tables: &Rest<'_>,
        visit: &mut dyn FnMut(&Entry<'_>),
    ) -> Result<usize, Error> {
        let pages = self.pages.as_ref();
        let Some(page) = pages.and_then(|pages| pages.all.get(number)) else {
            return Ok(0);
        };
        if page.count == 0 {
            return Ok(0);
        }
        let read;
        let entries = if page.held {
            self
        } else {
            read = self.read(number, tables)?;
            &read
        };
        let last = pages.and_then(|pages| pages.end(number)?.before());
        let (start, end) = (
            start.max(page.first),
            last.map_or(end, |last| last.min(end)),
        );
        let mut shown = 0;
        let mut show = |entry: Entry<'_>| {
            visit(&entry);
            shown += 1;
        };
        if back {
            let found = entries.range_back(start, end);
            found.take(limit).for_each(&mut show);
        } else {
            let found = entries.range(start, end);
            found.take(limit).for_each(&mut show);
        }
        Ok(shown)
    }
}
