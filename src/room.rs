//! Room for keys: what is deleted when they take more than their limit ([`broker::cache::Limits`]).
//!
//! Commands that need room make it before they run, as in Redis; what comes into memory by itself, or was too much when a limit
//! was set, is the job's (`jobs/upkeep.rs`).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use broker::cache::{Candidate, Deliveries, Limits, Policy, Pool, View};
use broker::{Ctx, Effects, Locked, Millis, ShardId, ShardSet};
use parking_lot::MutexGuard;

use crate::node::Node;

/// How long a command makes room before it goes on and leaves the rest to those behind it (Redis' tenacity of 10).
pub const PATIENCE: Duration = Duration::from_micros(500);
/// After all keys were looked at in vain, so long nobody looks at more than a few of each shard.
const BARREN_MS: u64 = 100;

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// The limit is kept.
    Enough,
    /// Time was up, or a script is busy.
    TooLittle,
    /// There is nothing that may be deleted.
    None,
}

/// Deletes keys of a limit until it is kept, or until `patience` ends. `fx` is empty, before and after; no lock is held.
pub fn make(
    node: &Node,
    limits: &Arc<Limits>,
    which: usize,
    ctx: &Ctx,
    patience: Duration,
    fx: &mut Effects,
) -> Room {
    let budget = &node.broker.budgets.cache;
    let Some(limit) = limits.all().get(which) else {
        return Room::Enough;
    };
    if limits.excess(which, budget) == 0 {
        return Room::Enough;
    }
    if limit.bounds.policy == Policy::NoEviction {
        return Room::None;
    }
    let began = Instant::now();
    let is_barren = || ctx.now.0 < limit.barren_until_ms.load(Relaxed);
    // Whoever has it works for everybody.
    let Some(mut pool) = limit.pool.try_lock_for(patience) else {
        return if is_barren() {
            Room::None
        } else {
            Room::TooLittle
        };
    };
    let mut maker = Maker {
        node,
        limits,
        which,
        ctx,
        fx,
        deliveries: Deliveries::new(),
        next: ctx.random_below(broker::DATA_SHARDS as u64) as usize,
    };
    let room = loop {
        if limits.excess(which, budget) == 0 {
            break Room::Enough;
        }
        if began.elapsed() > patience {
            break Room::TooLittle;
        }
        let Some(found) = maker.step(&mut pool) else {
            break Room::TooLittle;
        };
        if found {
            continue;
        }
        if is_barren() {
            break Room::None;
        }
        match maker.walk(&mut pool) {
            Some(true) => {}
            Some(false) => {
                let until = ctx.now.0 + BARREN_MS;
                limit.barren_until_ms.store(until, Relaxed);
                break Room::None;
            }
            None => break Room::TooLittle,
        }
    };
    MutexGuard::unlock_fair(pool);
    room
}

struct Maker<'a> {
    node: &'a Node,
    limits: &'a Arc<Limits>,
    which: usize,
    ctx: &'a Ctx,
    fx: &'a mut Effects,
    deliveries: Deliveries,
    /// The shard that is looked at last.
    next: usize,
}

/// `None` of what follows: a script is busy, or there are other limits now.
impl Maker<'_> {
    /// One shard adds to what those before it gave; if nothing is left of that, the others are asked as well. True: a key was
    /// found, and deleted if it was still there.
    fn step(&mut self, pool: &mut Pool) -> Option<bool> {
        for _ in 0..broker::DATA_SHARDS {
            self.next = (self.next + 1) % broker::DATA_SHARDS;
            // Below 8.
            let shard = ShardId(self.next as u8);
            let (ctx, which) = (self.ctx, self.which);
            self.look(shard, |keys, limits| {
                let chance = &mut |below| ctx.random_below(below);
                keys.candidates(limits, which, chance, pool);
            })?;
            if let Some(candidate) = pool.take() {
                self.delete(candidate)?;
                return Some(true);
            }
        }
        Some(false)
    }

    /// The next few of all keys, one after the other. False: all were looked at in vain.
    fn walk(&mut self, pool: &mut Pool) -> Option<bool> {
        let which = self.which;
        let shard = pool.next_shard();
        self.look(shard, |keys, limits| {
            keys.next_candidates(limits, which, pool)
        })
    }

    fn look<R>(&mut self, shard: ShardId, look: impl FnOnce(&View<'_>, &Limits) -> R) -> Option<R> {
        let node = self.node;
        let set = ShardSet::of(shard);
        let mut locked = (node.broker).lock_unless(set, &|| node.scripts.is_busy())?;
        let keys = locked.shard(shard).keys(0, self.ctx.now, self.fx);
        Some(look(&keys, self.limits))
    }

    fn delete(&mut self, candidate: Candidate) -> Option<()> {
        let (node, shard) = (self.node, candidate.shard);
        let set = ShardSet::of(shard);
        let mut locked = (node.broker).lock_unless(set, &|| node.scripts.is_busy())?;
        // They change only while all shards are locked.
        if !Arc::ptr_eq(self.limits, &node.broker.limiter.now()) {
            return None;
        }
        let now = self.ctx.now;
        let mut keys = locked.shard(shard).keys(0, now, self.fx);
        keys.make_room(self.limits, self.which, candidate);
        settle(node, &mut locked, shard, now, self.fx, &mut self.deliveries);
        Some(())
    }
}

/// After keys of `shard` went without a client, still under its lock: who waited for a group of a stream that is gone is served,
/// the change is committed, and who listens is told. `deliveries` is empty, before and after.
pub fn settle(
    node: &Node,
    locked: &mut Locked<'_>,
    shard: ShardId,
    now: Millis,
    fx: &mut Effects,
    deliveries: &mut Deliveries,
) {
    let mut keys = locked.shard(shard).keys(0, now, fx);
    if keys.has_ready()
        && let Err(error) = keys.serve(deliveries)
    {
        tracing::error!(shard = shard.0, %error, "cannot serve blocked clients");
    }
    commit(locked, shard, now, fx);
    node.told_of_keys(locked);
    let lsn = node.broker.engine.appended();
    for (waiter, served) in deliveries.drain(..) {
        waiter.deliver(served, lsn);
    }
}

/// Commits what was changed in the keys of `shard`, still under its lock.
pub fn commit(locked: &mut Locked<'_>, shard: ShardId, now: Millis, fx: &mut Effects) {
    if !fx.is_empty() {
        let lsn = locked.commit(now, fx);
        locked.shard(shard).cache_lsn = lsn;
    }
}
