//! What limits count, and what they delete.

use proptest::prelude::*;
use storage::Effects;

use super::{Op, apply, broker, broker_with, key, op};
use crate::cache::{Bounds, Expire, LimitSettings, Limits, Name, Policy, Pool, Rule, set_limits};
use crate::{Broker, Millis, ShardSet};

fn rule(db: Option<usize>, prefix: Vec<u8>, max_bytes: u64) -> Rule {
    Rule {
        db,
        prefix,
        bounds: Bounds {
            max_bytes,
            policy: Policy::AllKeysLru,
        },
    }
}

/// What the keys of each limit weigh, and all markers.
fn weighed(broker: &Broker, limits: &Limits) -> (Vec<i64>, i64) {
    let mut sums = vec![0; limits.all().len()];
    let mut markers = 0;
    let mut locked = broker.lock(ShardSet::DATA);
    for id in ShardSet::DATA.iter() {
        let space = &mut locked.shard(id).cache;
        for number in 0..space.dbs.len() {
            space.settle(number, &broker.budgets.cache);
            space.tell(&broker.budgets.cache);
            space.dbs[number].each_weight(&mut |key, weight, marker| {
                if marker {
                    markers += weight;
                } else {
                    sums[limits.of(number, key)] += weight;
                }
            });
        }
    }
    (sums, markers)
}

fn check(broker: &Broker) {
    let limits = broker.limiter.now();
    let (sums, markers) = weighed(broker, &limits);
    let budget = &broker.budgets.cache;
    assert_eq!(budget.markers(), markers.unsigned_abs());
    for (which, sum) in sums.iter().enumerate().skip(1) {
        assert_eq!(limits.used(which, budget), sum.unsigned_abs(), "{which}");
    }
    let all: i64 = sums.iter().sum();
    assert_eq!(budget.used(), (all + markers).unsigned_abs());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn rules_count_what_their_keys_take(ops in prop::collection::vec(op(), 1..60), little: bool, at in 0usize..30) {
        let (_dir, broker) = if little { broker_with(super::LITTLE) } else { broker() };
        let rules = vec![rule(None, key(3), 1 << 20), rule(Some(1), Vec::new(), 1 << 20), rule(Some(0), key(7), 1 << 20)];
        let on = || LimitSettings { rules: rules.clone(), ..LimitSettings::default() };
        let mut now = 1_000;
        for (step, op) in ops.iter().enumerate() {
            if step == at {
                set_limits(&mut broker.lock(ShardSet::DATA), on());
            }
            // It throws memory away without a word.
            if !matches!(op, Op::Reload) {
                apply(&broker, op, now);
            }
            now += 10;
            // Before, what shards did not tell is nobody's.
            if step >= at {
                check(&broker);
            }
        }
        set_limits(&mut broker.lock(ShardSet::DATA), on());
        let mut fx = Effects::new();
        let mut locked = broker.lock(ShardSet::DATA);
        for id in ShardSet::DATA.iter() {
            locked.shard(id).keys(0, Millis(now), &mut fx).swap(1);
        }
        locked.commit(Millis(now), &mut fx);
        drop(locked);
        check(&broker);
    }
}

/// Deletes keys until the rest's limit is kept; how many.
fn make_room(broker: &Broker, now: u64) -> usize {
    let limits = broker.limiter.now();
    let budget = &broker.budgets.cache;
    let mut state = now;
    let mut chance = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % below.max(1)
    };
    let (mut pool, mut deleted) = (Pool::default(), 0);
    let mut fx = Effects::new();
    let mut locked = broker.lock(ShardSet::DATA);
    while limits.excess(0, budget) > 0 {
        for id in ShardSet::DATA.iter() {
            let view = locked.shard(id).keys(0, Millis(now), &mut fx);
            view.candidates(&limits, 0, false, &mut chance, &mut pool);
        }
        let best = pool.take().expect("a key");
        let mut view = locked.shard(best.shard).keys(0, Millis(now), &mut fx);
        deleted += usize::from(view.make_room(&limits, 0, best));
    }
    locked.commit(Millis(now), &mut fx);
    deleted
}

#[test]
fn what_was_not_used_for_longest_goes_also_when_its_deletion_leaves_a_marker() {
    for reloaded in [false, true] {
        let (_dir, broker) = broker();
        let name = |n: u64| format!("key:{n}").into_bytes();
        let mut fx = Effects::new();
        let mut locked = broker.lock(ShardSet::DATA);
        for n in 0..2000 {
            let key = name(n);
            let of = Name::new(&key);
            let mut view = locked
                .shard(of.slot.shard())
                .keys(0, Millis(n * 1000), &mut fx);
            view.set_string(&of, &[7; 500], Expire::Never).expect("set");
        }
        locked.commit(Millis(2_000_000), &mut fx);
        drop(locked);
        if reloaded {
            // As after a start: all is in memory again, and what is deleted must be remembered until it is folded.
            broker.engine.fold_now().expect("fold");
            for space in ShardSet::DATA.iter() {
                let mut locked = broker.lock_one(space);
                for db in &mut locked.shard(space).cache.dbs {
                    db.keep_absent = true;
                }
            }
        }
        let settings = LimitSettings {
            rest: Bounds {
                max_bytes: 600_000,
                policy: Policy::AllKeysLru,
            },
            samples: 10,
            ..LimitSettings::default()
        };
        set_limits(&mut broker.lock(ShardSet::DATA), settings);
        let deleted = make_room(&broker, 2_000_000);
        assert!((800..1200).contains(&deleted), "{deleted}");
        let mut locked = broker.lock(ShardSet::DATA);
        let mut old = 0;
        for n in 0..2000 {
            let key = name(n);
            let of = Name::new(&key);
            let mut view = locked
                .shard(of.slot.shard())
                .keys(0, Millis(2_000_000), &mut fx);
            old += usize::from(n < 500 && view.exists(&of).expect("exists"));
        }
        // By samples: a few old ones escape.
        assert!(old < 50, "{old} of the oldest 500 are there");
        drop(locked);
        check(&broker);
    }
}
