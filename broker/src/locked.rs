//! The locks that one command or transaction holds, and the append that must happen before they are released.

use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use storage::{Effects, Lsn, ShardId};

use crate::{Broker, Catalog, DATA_SHARDS, Millis, Shard, ShardSet};

/// Some shards, locked. Asking for one that is not in the set is a bug and panics.
#[derive(Debug)]
pub struct Locked<'a> {
    broker: &'a Broker,
    set: ShardSet,
    shards: [Option<MutexGuard<'a, Shard>>; DATA_SHARDS],
    catalog: Option<MutexGuard<'a, Catalog>>,
    /// The client that works with it, see [`Locked::set_client`].
    client: u64,
}

impl<'a> Locked<'a> {
    pub(crate) fn new(broker: &'a Broker, set: ShardSet) -> Self {
        let mut locked = Self::nothing(broker, set);
        locked.lock(|shard| Some(shard.lock()));
        locked
    }

    /// The same, but not for ever: `give_up` is asked now and then while others hold a lock.
    pub(crate) fn unless(
        broker: &'a Broker,
        set: ShardSet,
        give_up: &dyn Fn() -> bool,
    ) -> Option<Self> {
        let mut locked = Self::nothing(broker, set);
        let all = locked.lock(|shard| shard.try_lock().or_else(|| wait(shard, give_up)));
        all.then_some(locked)
    }

    fn nothing(broker: &'a Broker, set: ShardSet) -> Self {
        Self {
            broker,
            set,
            shards: [const { None }; DATA_SHARDS],
            catalog: None,
            client: 0,
        }
    }

    /// Takes the locks of the set, those of shards with `take`. False: it gave one up, and so are the others.
    #[inline]
    fn lock(&mut self, take: impl Fn(&'a Mutex<Shard>) -> Option<MutexGuard<'a, Shard>>) -> bool {
        // Ascending order for everybody, or two transactions wait for each other.
        for id in self.set.iter() {
            let index = usize::from(id.0);
            match (self.shards.get_mut(index), self.broker.shards.get(index)) {
                (Some(slot), Some(shard)) => {
                    *slot = take(shard);
                    if slot.is_none() {
                        return false;
                    }
                }
                _ => self.catalog = Some(self.broker.catalog.lock()),
            }
        }
        true
    }

    #[must_use]
    pub fn broker(&self) -> &'a Broker {
        self.broker
    }

    /// Who works with it: does not hear of its own changes if it does not want to (`CLIENT TRACKING … NOLOOP`). 0: nobody.
    #[inline]
    pub fn set_client(&mut self, client: u64) {
        self.client = client;
    }

    #[must_use]
    pub fn set(&self) -> ShardSet {
        self.set
    }

    /// # Panics
    /// When the shard is not locked here.
    #[inline]
    #[expect(
        clippy::expect_used,
        reason = "a command that touches a shard it did not lock is our bug"
    )]
    pub fn shard(&mut self, id: ShardId) -> &mut Shard {
        self.shards
            .get_mut(usize::from(id.0))
            .and_then(Option::as_deref_mut)
            .expect("shard is locked")
    }

    /// # Panics
    /// When the catalog is not locked here.
    #[expect(
        clippy::expect_used,
        reason = "a command that touches a shard it did not lock is our bug"
    )]
    pub fn catalog(&mut self) -> &mut Catalog {
        self.catalog.as_deref_mut().expect("catalog is locked")
    }

    /// Is the catalog locked here?
    #[must_use]
    pub fn has_catalog(&self) -> bool {
        self.catalog.is_some()
    }

    /// Sequence number that the next record of this shard will have. Stable while the lock is held and nothing is committed.
    #[inline]
    #[must_use]
    pub fn next_seq(&self, shard: ShardId) -> u64 {
        debug_assert!(self.set.contains(shard), "shard is locked");
        self.broker.engine.shard_seq(shard) + 1
    }

    /// A new object id; its first use must be in the next commit.
    pub fn new_id(&mut self, shard: ShardId) -> u64 {
        let next_seq = self.next_seq(shard);
        if shard == ShardId::CATALOG {
            self.catalog().ids.next(next_seq)
        } else {
            self.shard(shard).ids.next(next_seq)
        }
    }

    /// Tells clients that keep values what has changed. [`Locked::commit`] does so, too: this is for who has nothing to commit.
    #[inline]
    pub fn tell(&mut self) {
        if self.broker.tracking.is_on() {
            crate::cache::tracking::tell(self, self.client);
        }
    }

    /// Appends the effects as one record and clears them. Without effects nothing is appended and the end of the log as
    /// it is now is returned. The locks stay held, so that the log's order is the order of execution.
    #[inline]
    pub fn commit(&mut self, now: Millis, fx: &mut Effects) -> Lsn {
        let (start, lsn) = if fx.is_empty() {
            let end = self.broker.engine.appended();
            (end, end)
        } else {
            if self.broker.telling.load(Ordering::Relaxed) {
                crate::keyspace::write(self, now, fx);
            }
            let lsn = self.broker.engine.append(now.0, fx);
            let start = fx.start(lsn);
            fx.clear();
            (start, lsn)
        };
        if self.catalog.is_some() {
            self.broker.functions.committed(lsn);
        }
        self.tell();
        // Deliveries carry the position that they wait for, and leave before anybody else can take these locks.
        for id in self.set.iter() {
            if let Some(Some(shard)) = self.shards.get_mut(usize::from(id.0)) {
                shard
                    .queues
                    .committed(start, lsn, || self.broker.engine.folded());
                shard.streams.committed(self.broker, id, start, lsn);
            }
        }
        lsn
    }
}

/// A lock that others hold, unless it takes too long.
#[cold]
fn wait<'a>(shard: &'a Mutex<Shard>, give_up: &dyn Fn() -> bool) -> Option<MutexGuard<'a, Shard>> {
    /// Between two questions whether to give up.
    const PATIENCE: Duration = Duration::from_millis(20);
    loop {
        if give_up() {
            return None;
        }
        if let Some(guard) = shard.try_lock_for(PATIENCE) {
            return Some(guard);
        }
    }
}
