//! Blocked clients: registered by their own command, served by the one that brings what they wait for.

use std::sync::Arc;

use super::list::{End, Reach};
use super::stream::{Ask, EntryId, Kept, Need, Span};
use super::text::Text;
use super::value::Kind;
use super::view::View;
use super::waiter::{Found, Served, Waiter, Want};
use super::watch::Watch;
use super::{Error, Name};

/// Who got what; to be told after the commit, under the same lock.
pub type Deliveries = Vec<(Arc<Waiter>, Served)>;

/// What Redis calls it.
fn popped(end: End) -> &'static str {
    match end {
        End::Left => "lpop",
        End::Right => "rpop",
    }
}

/// Who waits asks itself then, and is told.
fn is_too_large<T>(read: Result<T, Error>) -> Result<bool, Error> {
    match read {
        Ok(_) => Ok(false),
        Err(Error::TooLarge) => Ok(true),
        Err(error) => Err(error),
    }
}

impl View<'_> {
    /// Tells `watch` when the key is touched.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn watch(&mut self, name: &Name<'_>, watch: &Arc<Watch>) -> Result<(), Error> {
        // An expired key goes now, not later: its going is no change to whoever saw it missing.
        self.find(name)?;
        self.space.watches.add(self.number, name.bytes, watch);
        Ok(())
    }

    pub fn unwatch(&mut self, key: &[u8], watch: &Arc<Watch>) {
        self.space.watches.remove(self.number, key, watch);
    }

    /// Lets a blocked client wait for a key.
    pub fn wait(&mut self, key: &[u8], waiter: &Arc<Waiter>) {
        self.space.waiters.add(self.number, key, waiter);
    }

    pub fn unwait(&mut self, key: &[u8], waiter: &Arc<Waiter>) {
        self.space.waiters.remove(self.number, key, waiter);
    }

    /// Blocked clients, each counted once per key.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.space.waiters.len()
    }

    /// Is there a client to serve?
    #[inline]
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.space.waiters.ready.is_empty()
    }

    /// Serves blocked clients, first come first, as long as their keys have something. To be called once at the end of a
    /// command or transaction, before its commit.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn serve(&mut self, deliveries: &mut Deliveries) -> Result<(), Error> {
        // A moved item may make another key ready; each round takes at least one waiter away.
        while let Some(ready) = self.space.waiters.ready.pop() {
            let (number, key) = (ready.0, ready.1.clone());
            self.number = number;
            let name = Name::new(&key);
            let waiting = self.space.waiters.waiting(&ready);
            // Others have nothing to do with a key that is gone.
            let groups = (waiting.iter()).any(|each| matches!(each.want, Want::ReadGroup { .. }));
            for waiter in waiting {
                let mark = self.space.heard.as_ref().map_or(0, |heard| heard.len());
                let served = match (&waiter.want, self.kind(&name)?) {
                    (_, None) if !groups => break,
                    (Want::Pop { end, count }, Some(Kind::List)) => {
                        if is_too_large(self.list_for(&name, Reach::at(*end, *count)))? {
                            waiter.deliver(Served::Retry, crate::Lsn::default());
                            continue;
                        }
                        if !waiter.claim() {
                            continue;
                        }
                        Served::Items {
                            items: self.pop_items(&name, *end, *count)?,
                            key: key.clone(),
                        }
                    }
                    (Want::ZPop { max, count }, Some(Kind::Zset)) => {
                        if !waiter.claim() {
                            continue;
                        }
                        Served::Members {
                            members: self.pop_members(&name, *max, *count)?,
                            key: key.clone(),
                        }
                    }
                    (
                        Want::Move {
                            to,
                            from_end,
                            to_end,
                        },
                        Some(Kind::List),
                    ) => {
                        let to = Name::new(to);
                        if to.slot.shard() != self.shard {
                            waiter.deliver(Served::Retry, crate::Lsn::default());
                            continue;
                        }
                        if !waiter.claim() {
                            continue;
                        }
                        match self.move_item(&name, &to, *from_end, *to_end) {
                            Ok(Some(item)) => Served::Moved(item),
                            Ok(None) => break,
                            Err(Error::WrongType) => Served::WrongType,
                            Err(error) => return Err(error),
                        }
                    }
                    (Want::Read { after, count }, Some(Kind::Stream)) => {
                        let shard = self.shard;
                        let elsewhere =
                            |(key, _): &(Vec<u8>, EntryId)| Name::new(key).slot.shard() != shard;
                        let elsewhere = after.iter().any(elsewhere);
                        let count = if elsewhere { 1 } else { *count };
                        let Some(entries) = self.read_after(&name, after, count)? else {
                            continue;
                        };
                        if elsewhere {
                            // Others of its streams may have something, too, and are read at once.
                            waiter.deliver(Served::Retry, crate::Lsn::default());
                            continue;
                        }
                        if !waiter.claim() {
                            continue;
                        }
                        Served::Entries(entries)
                    }
                    (
                        Want::ReadGroup {
                            group,
                            consumer,
                            count,
                            noack,
                        },
                        kind,
                    ) => {
                        let unread = match kind {
                            Some(Kind::Stream) => self.has_unread(&name, group)?,
                            _ => None,
                        };
                        let ask = Ask {
                            group,
                            consumer,
                            count: *count,
                            noack: *noack,
                            now_ms: self.now,
                        };
                        if unread == Some(true)
                            && is_too_large(self.stream_for(&name, &Need::New(&ask)))?
                        {
                            waiter.deliver(Served::Retry, crate::Lsn::default());
                            continue;
                        }
                        if unread == Some(false) || !waiter.claim() {
                            continue;
                        }
                        match unread {
                            Some(_) => {
                                Served::Entries(vec![(key.clone(), self.deliver(&name, &ask)?)])
                            }
                            None if kind.is_some_and(|kind| kind != Kind::Stream) => {
                                Served::WrongType
                            }
                            None => Served::NoGroup { key: key.clone() },
                        }
                    }
                    _ => continue,
                };
                if let Some(heard) = &mut self.space.heard {
                    match &waiter.want {
                        Want::Pop { end, .. } => {
                            heard.rename(mark, number, &[(&key, popped(*end))]);
                        }
                        Want::ZPop { max, .. } => {
                            let event = if *max { "zpopmax" } else { "zpopmin" };
                            heard.rename(mark, number, &[(&key, event)]);
                        }
                        Want::Move {
                            to,
                            from_end,
                            to_end,
                        } if matches!(served, Served::Moved(_)) => {
                            let push = match to_end {
                                End::Left => "lpush",
                                End::Right => "rpush",
                            };
                            let pop = popped(*from_end);
                            heard.rename(mark, number, &[(to, push), (&key, pop)]);
                        }
                        _ => {}
                    }
                }
                deliveries.push((waiter, served));
            }
            self.space.waiters.prune(&ready);
        }
        Ok(())
    }

    /// Pops up to `count` items; none when the key is missing.
    ///
    /// # Errors
    /// [`Error::WrongType`], or when the tables cannot be read.
    pub fn pop_items(
        &mut self,
        name: &Name<'_>,
        end: End,
        count: usize,
    ) -> Result<Vec<Text>, Error> {
        let popped = self.edit_list(name, false, Reach::at(end, count), |list, rows| {
            (0..count.min(list.len()))
                .map_while(|_| list.pop(end, rows))
                .collect()
        })?;
        Ok(popped.unwrap_or_default())
    }

    /// What lies behind the ids of a blocked reader, of all its streams in this shard; `None`: the stream `name` has nothing.
    fn read_after(
        &mut self,
        name: &Name<'_>,
        after: &[(Vec<u8>, EntryId)],
        count: usize,
    ) -> Result<Option<Vec<Found>>, Error> {
        let limit = if count == 0 { usize::MAX } else { count };
        let mut all = Vec::new();
        let mut found = false;
        for (key, id) in after {
            let other = Name::new(key);
            if other.slot.shard() != self.shard {
                continue;
            }
            let Some(start) = id.after() else {
                continue;
            };
            let span = Span {
                start,
                end: EntryId::MAX,
                back: false,
                limit,
            };
            let mut kept = Vec::new();
            let read = self.between(&other, span, |entries| {
                entries.each(|entry| kept.push(Kept::of(entry)))
            });
            match read {
                Ok(_) | Err(Error::WrongType) => {}
                Err(error) => return Err(error),
            }
            if kept.is_empty() {
                continue;
            }
            found |= other.bytes == name.bytes;
            all.push((Text::new(key), kept));
        }
        Ok(found.then_some(all))
    }

    /// Is there something that a group has not read? `None`: there is no such group.
    fn has_unread(&mut self, name: &Name<'_>, group: &[u8]) -> Result<Option<bool>, Error> {
        let stream = self.stream(name)?;
        Ok(stream.and_then(|stream| Some(stream.group(group)?.last < stream.top())))
    }

    /// Delivers to a consumer what its group has not read.
    fn deliver(&mut self, name: &Name<'_>, ask: &Ask<'_>) -> Result<Vec<Kept>, Error> {
        let kept = self.edit_stream(name, false, &Need::New(ask), |stream, rows| {
            stream.deliver(ask, rows, |entries| entries.iter().map(Kept::of).collect())
        })?;
        Ok(kept.flatten().unwrap_or_default())
    }

    /// Moves an item between two lists of this shard; `None`: the source is missing.
    ///
    /// # Errors
    /// [`Error::WrongType`] for either, or when the tables cannot be read; then nothing has moved.
    pub fn move_item(
        &mut self,
        from: &Name<'_>,
        to: &Name<'_>,
        from_end: End,
        to_end: End,
    ) -> Result<Option<Text>, Error> {
        if self.list(from)?.is_none() {
            return Ok(None);
        }
        self.list(to)?;
        let reach = Reach::at(from_end, 1);
        if from.bytes == to.bytes {
            return self
                .edit_list(from, false, reach, |list, rows| {
                    let item = list.pop(from_end, rows);
                    if let Some(item) = &item {
                        list.push(to_end, item, rows);
                    }
                    item
                })
                .map(Option::flatten);
        }
        let Some(item) = self
            .edit_list(from, false, reach, |list, rows| list.pop(from_end, rows))?
            .flatten()
        else {
            return Ok(None);
        };
        self.edit_list(to, true, Reach::NONE, |list, rows| {
            list.push(to_end, &item, rows);
        })?;
        Ok(Some(item))
    }
}
