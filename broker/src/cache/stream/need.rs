//! What a command will look at of a stream that memory has not all of: it is read before the command runs.

use super::entries::{Entries, Trim};
use super::id::EntryId;
use super::{Ask, Claim, Entry, Refs, Stream};
use crate::Slot;
use crate::cache::elements::COPY_MAX;
use crate::cache::partial::{self, Rest};
use crate::cache::value::{Held, Value};
use crate::cache::view::View;
use crate::cache::{Error, Name};
use crate::rows::{self, Tag};

/// Pages looked at by a command that finds too many in memory.
const TRIM_PAGES: usize = 64;
/// What an entry that is delivered costs besides its body: that it is pending, its row, the reply.
const DELIVERED: usize = 256;

/// See the module. Groups, and the first and the last entry, are in memory anyway.
#[derive(Debug, Clone, Copy, Default)]
pub enum Need<'a> {
    #[default]
    Nothing,
    /// The entries of these ids.
    Entries(&'a [EntryId]),
    /// So many from the first one on.
    First(usize),
    /// What a group has not read.
    New(&'a Ask<'a>),
    /// What a consumer was given before, behind an id.
    Again(&'a Ask<'a>, EntryId),
    /// What [`Stream::claim_from`] finds from an id on.
    Claim(&'a Claim<'a>, EntryId, u64),
    /// What goes from the front, after so many entries have come.
    Trim(&'a Trim, Refs, usize),
}

/// Entries between two ids, both included.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    pub start: EntryId,
    pub end: EntryId,
    /// From the last one to the first.
    pub back: bool,
    pub limit: usize,
}

impl Span {
    pub const ALL: Self = Self {
        start: EntryId::MIN,
        end: EntryId::MAX,
        back: false,
        limit: usize::MAX,
    };
}

/// The entries of a [`Span`], wherever they are.
#[derive(Debug)]
pub struct Between<'a> {
    stream: &'a mut Stream,
    tables: Rest<'a>,
    span: Span,
    len: usize,
}

impl Between<'_> {
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Visits all of them.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn each(&mut self, mut visit: impl FnMut(&Entry<'_>)) -> Result<(), Error> {
        let Span {
            start, end, back, ..
        } = self.span;
        let entries = &mut self.stream.entries;
        if !entries.is_whole() {
            let how = (back, self.len);
            return entries.each_between((start, end), how, &self.tables, &mut visit);
        }
        if back {
            let found = entries.range_back(start, end);
            found.take(self.len).for_each(|entry| visit(&entry));
        } else {
            let found = entries.range(start, end);
            found.take(self.len).for_each(|entry| visit(&entry));
        }
        Ok(())
    }
}

impl Stream {
    /// All of its entries are in memory.
    #[inline]
    pub(in crate::cache) fn is_whole(&self) -> bool {
        self.entries.is_whole()
    }

    /// Bytes of entries that can be forgotten when all is folded; `None`: it is whole.
    pub(in crate::cache) fn held(&self) -> Option<usize> {
        self.entries.held()
    }

    /// Forgets entries that the tables have; `None`: it is whole.
    pub(in crate::cache) fn forget(
        &mut self,
        folded: u64,
        target: usize,
        steps: usize,
    ) -> Option<usize> {
        let whole = self.is_whole();
        (!whole).then(|| self.entries.forget(folded, target, steps))
    }

    pub(in crate::cache) fn drop_loose(&mut self) {
        self.entries.drop_loose();
    }

    /// A whole one is whole no more, though nothing leaves memory yet. `seq`: of the record that changed it, if the tables may not
    /// have all of it.
    pub(in crate::cache) fn divide(&mut self, seq: u64) {
        self.entries.divide(seq);
    }

    /// Reads what is needed.
    fn read_for(&mut self, need: &Need<'_>, limit: usize, tables: &Rest<'_>) -> Result<(), Error> {
        let Self {
            entries, groups, ..
        } = self;
        entries.hold_ends(tables)?;
        match need {
            Need::Nothing => {}
            Need::Entries(ids) => {
                for id in *ids {
                    entries.know(*id, limit, tables)?;
                }
            }
            Need::First(count) => entries.hold_from(EntryId::MIN, *count, (0, limit), tables)?,
            Need::New(ask) => {
                let start = (groups.get(ask.group)).and_then(|group| group.last.after());
                if let Some(start) = start {
                    let count = if ask.count == 0 {
                        usize::MAX
                    } else {
                        ask.count
                    };
                    entries.hold_from(start, count, (DELIVERED, limit), tables)?;
                }
            }
            Need::Again(ask, after) => {
                let group = groups.get(ask.group);
                let consumer = group.and_then(|group| group.consumer(ask.consumer));
                if let (Some(group), Some(consumer), Some(start)) = (group, consumer, after.after())
                {
                    let count = if ask.count == 0 {
                        usize::MAX
                    } else {
                        ask.count
                    };
                    for (id, ..) in group.pending_of(consumer, start).take(count) {
                        entries.know(id, limit, tables)?;
                    }
                }
            }
            Need::Claim(claim, start, count) => {
                if let Some(group) = groups.get(claim.group) {
                    // Which consumer it will be says nothing about what is found.
                    claim.find(group, 0, (*start, *count), &mut |id| {
                        entries.know(id, limit, tables)?;
                        Ok(entries.get(id).is_some())
                    })?;
                }
            }
            Need::Trim(trim, refs, more) => {
                let all = (*refs != Refs::Keep).then_some(limit);
                entries.hold_surplus(trim, *more, all, tables)?;
            }
        }
        Ok(())
    }

    /// All of it, in memory, under no id.
    pub(in crate::cache) fn whole(&self, tables: &Rest<'_>) -> Result<Self, Error> {
        let mut entries = Entries::default();
        let (mut body, mut size) = (Vec::new(), 0);
        self.entries.each(tables, &mut |entry| {
            body.clear();
            entry.body(&mut body);
            size += body.len();
            if size <= COPY_MAX {
                entries.append(entry.id, &body);
            }
        })?;
        if size > COPY_MAX {
            return Err(Error::TooLarge);
        }
        if entries.len() != self.len() {
            return Err(Error::Damaged);
        }
        Ok(Self {
            id: self.id,
            meta: self.meta,
            entries,
            groups: self.groups.clone(),
            numbers: self.numbers.clone(),
            grouped: self.grouped,
            idempotence: self.idempotence.clone(),
            news: super::News::default(),
        })
    }
}

impl View<'_> {
    /// The stream at a key.
    ///
    /// # Errors
    /// [`Error::WrongType`], or when the tables cannot be read.
    #[inline]
    pub fn stream(&mut self, name: &Name<'_>) -> Result<Option<&Stream>, Error> {
        self.stream_for(name, &Need::Nothing)
    }

    /// Before the last id of a stream becomes this one: if entries could then come before its open page, it becomes another object, of
    /// which no page is there yet and no row is the sweeper's.
    ///
    /// # Errors
    /// [`Error::WrongType`], [`Error::TooLarge`], or when the tables cannot be read.
    pub fn lower_id(&mut self, name: &Name<'_>, last: EntryId) -> Result<(), Error> {
        let stream = self.stream(name)?;
        if stream.is_none_or(|stream| stream.is_whole() || last >= stream.entries.open_from()) {
            return Ok(());
        }
        match self.copy_of(name)? {
            Some((value, expire_ms)) => self.restore(name, value, expire_ms, false),
            None => Ok(()),
        }
    }

    /// Looks at entries of the stream at a key.
    ///
    /// # Errors
    /// [`Error::WrongType`], or when the tables cannot be read, or what `look` returns.
    pub fn between<R, E: From<Error>>(
        &mut self,
        name: &Name<'_>,
        span: Span,
        look: impl FnOnce(&mut Between<'_>) -> Result<R, E>,
    ) -> Result<Option<R>, E> {
        let Some(index) = self.find(name)? else {
            return Ok(None);
        };
        self.know_entries(index, name.slot, &Need::Nothing)?;
        let value = self.space.dbs[self.number].slab.object_mut(index);
        let Some(Value::Stream(stream)) = value else {
            return Err(Error::WrongType.into());
        };
        let prefix = rows::object_prefix(name.slot, Tag::Stream, stream.id);
        let tables = Rest {
            engine: self.engine,
            prefix,
        };
        let ids = (span.start, span.end);
        let before = stream.memory();
        let len = match (stream.is_whole(), span.back) {
            // Who waits at the end asks often.
            _ if span.start > stream.top() => 0,
            (false, _) => stream.entries.count_between(ids, span.limit, &tables)?,
            (true, true) => (stream.range_back(ids.0, ids.1).take(span.limit)).count(),
            (true, false) => stream.range(ids.0, ids.1).take(span.limit).count(),
        };
        let result = look(&mut Between {
            stream,
            tables,
            span,
            len,
        });
        self.space.charge += stream.memory() as i64 - before as i64;
        self.space.settle(self.number, self.budget);
        result.map(Some)
    }

    /// Makes memory have of a stream what is needed.
    #[inline]
    pub(in crate::cache) fn know_entries(
        &mut self,
        index: u32,
        slot: Slot,
        need: &Need<'_>,
    ) -> Result<(), Error> {
        let entry = self.space.dbs[self.number].slab.get(index);
        match entry.map(|entry| entry.value) {
            Some(Held::Object(Value::Stream(stream))) if !stream.is_whole() => {
                self.read_entries(index, slot, need)
            }
            _ => Ok(()),
        }
    }

    #[cold]
    fn read_entries(&mut self, index: u32, slot: Slot, need: &Need<'_>) -> Result<(), Error> {
        let stays = self.stays(self.number, index);
        let limit = self.at_once();
        let value = self.space.dbs[self.number].slab.object_mut(index);
        let Some(value) = value else {
            return Ok(());
        };
        let tables = Rest::of(self.engine, slot, value);
        let Value::Stream(stream) = value else {
            return Ok(());
        };
        let before = stream.memory();
        // Of a command that failed.
        stream.drop_loose();
        // Before anything is read: what this command needs must stay until it has run.
        if !stays && self.budget.excess() > 0 {
            let folded = self.engine.folded_seq(self.shard);
            stream.forget(folded, partial::share(self.budget), TRIM_PAGES);
        }
        let done = stream.read_for(need, limit, &tables);
        if done.is_err() {
            stream.drop_loose();
        }
        self.space.charge += stream.memory() as i64 - before as i64;
        self.space.settle(self.number, self.budget);
        done
    }
}
