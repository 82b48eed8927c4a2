//! Blocked clients: registered by their own command, served by the one that brings what they wait for.

use std::sync::Arc;

use super::list::End;
use super::text::Text;
use super::value::Kind;
use super::view::View;
use super::waiter::{Served, Waiter, Want};
use super::watch::Watch;
use super::{Error, Name};

/// Who got what; to be told after the commit, under the same lock.
pub type Deliveries = Vec<(Arc<Waiter>, Served)>;

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
            for waiter in self.space.waiters.waiting(&ready) {
                let served = match (&waiter.want, self.kind(&name)?) {
                    (_, None) => break,
                    (Want::Pop { end, count }, Some(Kind::List)) => {
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
                    _ => continue,
                };
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
        let popped = self.edit_list(name, false, |list, rows| {
            (0..count.min(list.len()))
                .map_while(|_| list.pop(end, rows))
                .collect()
        })?;
        Ok(popped.unwrap_or_default())
    }

    /// Pops up to `count` members with the lowest or highest scores.
    ///
    /// # Errors
    /// [`Error::WrongType`], or when the tables cannot be read.
    pub fn pop_members(
        &mut self,
        name: &Name<'_>,
        max: bool,
        count: usize,
    ) -> Result<Vec<(Text, f64)>, Error> {
        let popped = self.edit_zset(name, false, |zset, rows| {
            let mut popped = Vec::new();
            for _ in 0..count.min(zset.len()) {
                let rank = if max { zset.len() - 1 } else { 0 };
                let Some((member, score)) = zset
                    .at(rank)
                    .map(|(member, score)| (Text::new(member), score))
                else {
                    break;
                };
                zset.remove(&member, rows);
                popped.push((member, score));
            }
            popped
        })?;
        Ok(popped.unwrap_or_default())
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
        if from.bytes == to.bytes {
            return self
                .edit_list(from, false, |list, rows| {
                    let item = list.pop(from_end, rows);
                    if let Some(item) = &item {
                        list.push(to_end, item, rows);
                    }
                    item
                })
                .map(Option::flatten);
        }
        let Some(item) = self
            .edit_list(from, false, |list, rows| list.pop(from_end, rows))?
            .flatten()
        else {
            return Ok(None);
        };
        self.edit_list(to, true, |list, rows| list.push(to_end, &item, rows))?;
        Ok(Some(item))
    }
}
