//! Keys that expire, leave memory, come back into it, or left rows behind: what the broker does without a client.
//!
//! Each step locks one shard for a bounded piece of work, so that a command waits at most for one piece.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::cache::Deliveries;
use broker::{Ctx, Effects, Millis, ShardId, ShardSet};

use super::{Job, Next};
use crate::node::Node;
use crate::room::{self, Room};

/// Reads see an expired key as absent to the millisecond; this is how late its memory is given back.
const EXPIRE_EVERY: Duration = Duration::from_millis(100);
/// Keys removed or markers forgotten under one lock: about 0.2 ms.
const KEYS_PER_STEP: usize = 256;
/// Rows removed under one lock; each is also a row in the log.
const ROWS_PER_STEP: usize = 256;
/// How late a consumer group may notice that a member is silent or that a rebalance has waited enough.
const GROUPS_EVERY: Duration = Duration::from_millis(100);
/// Kafka's log.retention.check.interval.ms is 5 min; a look costs little here.
const RETAIN_EVERY: Duration = Duration::from_secs(60);
/// How late a transaction may be ended whose time is up: Kafka looks each 10 s.
const TRANSACTIONS_EVERY: Duration = Duration::from_secs(1);
const SWEEP_EVERY: Duration = Duration::from_secs(1);
const WARM_EVERY: Duration = Duration::from_millis(10);
/// Eviction goes on at once when its last step gave back so many bytes and that was not enough.
const WORTH_IT: u64 = 64 << 10;
/// A fold makes dirty values clean, so that they can leave memory; not more often than this.
const FOLD_PAUSE: Duration = Duration::from_secs(5);

/// The jobs of this file.
pub(super) fn jobs() -> Vec<Job> {
    vec![
        Job::new("expire", EXPIRE_EVERY, expire()),
        Job::new("evict", EXPIRE_EVERY, evict()),
        Job::new("room", EXPIRE_EVERY, make_room()),
        Job::new("warm", WARM_EVERY, warm()),
        Job::new("sweep", SWEEP_EVERY, sweep()),
        Job::new("groups", GROUPS_EVERY, groups),
        Job::new("transactions", TRANSACTIONS_EVERY, transactions),
        Job::new("retain", RETAIN_EVERY, retain),
    ]
}

fn now(node: &Node) -> Millis {
    Millis(node.clock.now_ms())
}

fn expire() -> impl FnMut(&Arc<Node>) -> Next + Send {
    let mut fx = Effects::new();
    let mut deliveries = Deliveries::new();
    move |node| {
        if node.governor.is_on_reserve() {
            return Next::Later;
        }
        let mut more = false;
        for shard in ShardSet::DATA.iter() {
            let now = now(node);
            let mut locked = node.broker.lock_one(shard);
            let mut keys = locked.shard(shard).keys(0, now, &mut fx);
            if node.active_expire() {
                more |= keys.expire_due(KEYS_PER_STEP) == KEYS_PER_STEP;
            }
            keys.forget_absent(KEYS_PER_STEP);
            room::settle(node, &mut locked, shard, now, &mut fx, &mut deliveries);
        }
        node.broker.engine.flush();
        Next::more(more)
    }
}

/// Keeps the cache within its budget.
fn evict() -> impl FnMut(&Arc<Node>) -> Next + Send {
    let mut fx = Effects::new();
    let mut folded = Instant::now();
    move |node| {
        let budget = &node.broker.budgets.cache;
        // The process may be too large although the cache is not: what the cache holds can be read again.
        let squeeze = node.governor.squeeze().min(budget.used());
        let excess = budget.excess().max(squeeze);
        if excess == 0 {
            return Next::Later;
        }
        let now = now(node);
        let chance = Ctx::new(now, now.0);
        let share = excess / broker::DATA_SHARDS as u64 + 1;
        let mut given = 0;
        for shard in ShardSet::DATA.iter() {
            let mut locked = node.broker.lock_one(shard);
            let mut keys = locked.shard(shard).keys(0, now, &mut fx);
            given += keys.evict(share, &mut |below| chance.random_below(below));
        }
        if given < excess / 2 && budget.excess() > 0 && folded.elapsed() > FOLD_PAUSE {
            // What is left is dirty. The engine tells of a failure itself.
            tracing::debug!(
                excess,
                given,
                "folding, because memory holds little that is in the tables"
            );
            let _ = node.broker.engine.fold_now();
            folded = Instant::now();
        }
        // A step gives back only so much of one large collection.
        Next::more(given >= WORTH_IT && budget.excess() > 0)
    }
}

/// Keeps keys within their limits, where no command did it.
fn make_room() -> impl FnMut(&Arc<Node>) -> Next + Send {
    /// Between two steps others of this thread have their turn.
    const STEP: Duration = Duration::from_millis(5);
    let mut fx = Effects::new();
    move |node| {
        let limiter = &node.broker.limiter;
        if !limiter.is_on() || node.governor.is_on_reserve() || node.scripts.is_busy() {
            return Next::Later;
        }
        let limits = limiter.now();
        let now = now(node);
        let ctx = Ctx::new(now, now.0);
        let mut more = false;
        for which in 0..limits.all().len() {
            let began = Instant::now();
            // Commands have their turn at the pool in between.
            while room::make(node, &limits, which, &ctx, room::PATIENCE, &mut fx) == Room::TooLittle
            {
                if began.elapsed() > STEP
                    || node.scripts.is_busy()
                    || !Arc::ptr_eq(&limits, &limiter.now())
                {
                    more = true;
                    break;
                }
            }
        }
        node.broker.engine.flush();
        Next::more(more)
    }
}

/// After a start: keys from the tables into memory, until all are there or the budget is used up.
fn warm() -> impl FnMut(&Arc<Node>) -> Next + Send {
    let mut fx = Effects::new();
    let mut left: Vec<ShardId> = ShardSet::DATA.iter().collect();
    move |node| {
        let budget = &node.broker.budgets.cache;
        let Some(shard) = left.last().copied() else {
            return Next::Never;
        };
        if budget.used() >= budget.limit() {
            return Next::Never;
        }
        let limiter = &node.broker.limiter;
        if limiter.is_on() && limiter.now().passed(budget) & 1 != 0 {
            // What came would be deleted for what is there.
            return Next::Never;
        }
        let now = now(node);
        let mut locked = node.broker.lock_one(shard);
        let warmed = locked
            .shard(shard)
            .keys(0, now, &mut fx)
            .warm(KEYS_PER_STEP);
        room::commit(&mut locked, shard, now, &mut fx);
        match warmed {
            Ok(std::ops::ControlFlow::Continue(())) => {}
            Ok(std::ops::ControlFlow::Break(())) => {
                left.pop();
            }
            Err(error) => {
                tracing::error!(shard = shard.0, %error, "keys cannot be read from the tables");
                left.pop();
            }
        }
        Next::Now
    }
}

/// Rows that nothing refers to any more: of deleted collections, flushed databases, purged queues, deleted topics.
fn sweep() -> impl FnMut(&Arc<Node>) -> Next + Send {
    let mut fx = Effects::new();
    // A shard whose tables cannot be read is said once and left alone: its rows are garbage, nothing waits for them.
    let mut broken = ShardSet::EMPTY;
    move |node| {
        if node.governor.is_on_reserve() {
            return Next::Later;
        }
        let mut more = false;
        if !broken.contains(ShardId::CATALOG) {
            let now = now(node);
            match broker::stream::sweep_deleted(&node.broker, &Ctx::new(now, now.0)) {
                Ok(left) => more |= left,
                Err(error) => {
                    tracing::error!(%error, "sweep of deleted topics stops");
                    broken = broken.with(ShardId::CATALOG);
                }
            }
        }
        for shard in ShardSet::DATA.iter() {
            if broken.contains(shard) {
                continue;
            }
            match sweep_shard(node, shard, &mut fx) {
                Ok(left) => more |= left,
                Err(error) => {
                    tracing::error!(shard = shard.0, %error, "sweep stops in this shard");
                    fx.clear();
                    broken = broken.with(shard);
                }
            }
        }
        node.broker.engine.flush();
        Next::more(more)
    }
}

fn sweep_shard(
    node: &Node,
    shard: ShardId,
    fx: &mut Effects,
) -> Result<bool, broker::cache::Error> {
    let now = now(node);
    let mut locked = node.broker.lock_one(shard);
    let keys = locked.shard(shard).keys(0, now, fx).sweep(ROWS_PER_STEP)?;
    if !fx.is_empty() {
        locked.commit(now, fx);
    }
    drop(locked);
    let queues = broker::queue::sweep(&node.broker, shard, now, fx)?;
    Ok(keys || queues)
}

/// Consumer groups whose members are silent, or whose rebalance has waited long enough.
fn groups(node: &Arc<Node>) -> Next {
    for shard in ShardSet::DATA.iter() {
        let now = now(node);
        let mut locked = node.broker.lock_one(shard);
        // Looking at a group brings it up to now.
        broker::stream::group::all(&mut locked, shard, now).for_each(drop);
    }
    Next::Later
}

/// Transactions that take too long.
fn transactions(node: &Arc<Node>) -> Next {
    let more = broker::stream::transaction::expire(&node.broker, now(node));
    let more = more.unwrap_or_else(|error| {
        tracing::error!(%error, "transactions that are late");
        false
    });
    node.broker.engine.flush();
    Next::more(more)
}

/// Records that are too old or too many.
fn retain(node: &Arc<Node>) -> Next {
    let now = now(node);
    if let Err(error) = broker::stream::retain(&node.broker, &Ctx::new(now, now.0)) {
        tracing::error!(%error, "retention of topics");
    }
    node.broker.engine.flush();
    Next::Later
}
