//! Room for keys: what is deleted when they take more than their limit ([`broker::cache::Limits`]).
//!
//! Commands that need room make it before they run, as in Redis; what comes into memory by itself, or was too much when a limit
//! was set, is the job's (`jobs/upkeep.rs`).

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use broker::cache::{Candidate, Deliveries, Limits, Policy, Pool};
use broker::{Ctx, Effects, Locked, Millis, ShardId, ShardSet};

use crate::node::Node;

/// How long a command makes room before it goes on and leaves the rest to those behind it (Redis' tenacity of 10).
pub const PATIENCE: Duration = Duration::from_micros(500);
/// After all keys were looked at in vain, so long nobody looks again.
const BARREN_MS: u64 = 100;

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// The limit is kept.
    Enough,
    /// Time was up.
    TooLittle,
    /// There is nothing that may be deleted.
    None,
}

/// Deletes keys of a limit until it is kept. `fx` is empty, before and after; no lock is held.
pub fn make(
    node: &Node,
    limits: &Limits,
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
    let now = ctx.now;
    if limit.bounds.policy == Policy::NoEviction || now.0 < limit.barren_until_ms.load(Relaxed) {
        return Room::None;
    }
    let began = Instant::now();
    let mut maker = Maker {
        node,
        limits,
        which,
        ctx,
        fx,
        deliveries: Deliveries::new(),
    };
    let mut pool = limit.pool.lock();
    let mut next = ctx.random_below(broker::DATA_SHARDS as u64) as usize;
    while limits.excess(which, budget) > 0 {
        if began.elapsed() > patience {
            return Room::TooLittle;
        }
        let mut found = None;
        // One shard adds to what those before it gave; if nothing is left of that, the others are asked as well.
        for _ in 0..broker::DATA_SHARDS {
            next = (next + 1) % broker::DATA_SHARDS;
            // Below 8.
            maker.look(ShardId(next as u8), false, &mut pool);
            found = pool.take();
            if found.is_some() {
                break;
            }
        }
        if found.is_none() {
            for shard in ShardSet::DATA.iter() {
                maker.look(shard, true, &mut pool);
            }
            found = pool.take();
        }
        match found {
            Some(candidate) => maker.delete(candidate),
            None => {
                limit.barren_until_ms.store(now.0 + BARREN_MS, Relaxed);
                return Room::None;
            }
        }
    }
    Room::Enough
}

struct Maker<'a> {
    node: &'a Node,
    limits: &'a Limits,
    which: usize,
    ctx: &'a Ctx,
    fx: &'a mut Effects,
    deliveries: Deliveries,
}

impl Maker<'_> {
    fn look(&mut self, shard: ShardId, thorough: bool, pool: &mut Pool) {
        let ctx = self.ctx;
        let mut locked = self.node.broker.lock_one(shard);
        let keys = locked.shard(shard).keys(0, ctx.now, self.fx);
        let chance = &mut |below| ctx.random_below(below);
        keys.candidates(self.limits, self.which, thorough, chance, pool);
    }

    fn delete(&mut self, candidate: Candidate) {
        let (node, shard) = (self.node, candidate.shard);
        let mut locked = node.broker.lock_one(shard);
        let mut keys = locked.shard(shard).keys(0, self.ctx.now, self.fx);
        keys.make_room(self.limits, self.which, candidate);
        // Who waits for a group of a stream that is gone.
        if keys.has_ready()
            && let Err(error) = keys.serve(&mut self.deliveries)
        {
            tracing::error!(shard = shard.0, %error, "cannot serve blocked clients");
        }
        commit(&mut locked, shard, self.ctx.now, self.fx);
        node.told_of_keys(&mut locked);
        let lsn = node.broker.engine.appended();
        for (waiter, served) in self.deliveries.drain(..) {
            waiter.deliver(served, lsn);
        }
    }
}

/// Commits what was changed in the keys of `shard`, still under its lock.
pub fn commit(locked: &mut Locked<'_>, shard: ShardId, now: Millis, fx: &mut Effects) {
    if !fx.is_empty() {
        let lsn = locked.commit(now, fx);
        locked.shard(shard).cache_lsn = lsn;
    }
}
