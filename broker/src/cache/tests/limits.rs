//! What limits count, and what they delete.

use proptest::prelude::*;
use storage::Effects;

use super::{Op, apply, broker, broker_with, key, op};
use crate::cache::{
    Bounds, Expire, LimitSettings, Limits, Name, Policy, Pool, Rule, View, set_limits,
};
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

#[test]
fn what_a_trimmed_hash_is_charged_is_what_is_left_of_it() {
    let (_dir, broker) = broker_with(super::LITTLE);
    let used = || {
        // Memory is told of by looking.
        check(&broker);
        broker.budgets.cache.used()
    };
    // Changed again and again, and forgotten down to nearly nothing whenever the tables have it.
    let mut lowest = u64::MAX;
    for round in 0..5 {
        apply(&broker, &Op::Fill(3, 399), 1_000 + round);
        let filled = used();
        broker.engine.fold_now().expect("fold");
        for _ in 0..5 {
            apply(&broker, &Op::Evict, 1_000 + round);
            check(&broker);
        }
        let left = used();
        assert!(left < filled / 2, "{left} of {filled}");
        lowest = lowest.min(left);
    }
    assert!(used() <= lowest * 2, "it does not creep up");
    apply(&broker, &Op::Del(3), 2_000);
    broker.engine.fold_now().expect("fold");
    apply(&broker, &Op::Sweep, 2_000);
    assert_eq!(used(), 0);
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
            view.candidates(&limits, 0, &mut chance, &mut pool);
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

/// Runs with the keys of one shard, and commits.
fn with<R>(broker: &Broker, key: &[u8], now: u64, run: impl FnOnce(&mut View<'_>) -> R) -> R {
    let shard = Name::new(key).slot.shard();
    let mut fx = Effects::new();
    let mut locked = broker.lock_one(shard);
    let result = run(&mut locked.shard(shard).keys(0, Millis(now), &mut fx));
    locked.commit(Millis(now), &mut fx);
    result
}

fn set(broker: &Broker, key: &str, expire: Expire) {
    let key = key.as_bytes();
    with(broker, key, 1000, |view| {
        view.set_string(&Name::new(key), b"value", expire)
            .expect("set");
    });
}

fn is_there(broker: &Broker, key: &str) -> bool {
    let key = key.as_bytes();
    with(broker, key, 1000, |view| {
        view.exists(&Name::new(key)).expect("exists")
    })
}

fn limit_rest(broker: &Broker, policy: Policy, rules: Vec<Rule>) {
    let rest = Bounds {
        max_bytes: 1,
        policy,
    };
    let settings = LimitSettings {
        rest,
        rules,
        ..LimitSettings::default()
    };
    set_limits(&mut broker.lock(ShardSet::DATA), settings);
}

#[test]
fn a_candidate_that_has_no_deadline_any_more_or_whose_cell_is_another_keys_stays() {
    type Between = fn(&Broker);
    let persist: Between = |broker| {
        with(broker, b"{a}1", 1000, |view| {
            view.set_expire(&Name::new(b"{a}1"), 0).expect("persist")
        });
    };
    let reuse: Between = |broker| {
        with(broker, b"{a}1", 1000, |view| {
            view.delete(&Name::new(b"{a}1")).expect("delete")
        });
        set(broker, "{a}2", Expire::At(900_000));
    };
    for (policy, between, left) in [
        (Policy::VolatileLru, persist, "{a}1"),
        (Policy::VolatileRandom, persist, "{a}1"),
        (Policy::VolatileTtl, reuse, "{a}2"),
        (Policy::AllKeysLru, reuse, "{a}2"),
    ] {
        let (_dir, broker) = broker();
        limit_rest(&broker, policy, Vec::new());
        set(&broker, "{a}1", Expire::At(800_000));
        let limits = broker.limiter.now();
        let mut pool = Pool::default();
        let seen = with(&broker, b"{a}1", 1000, |view| {
            view.candidates(&limits, 0, &mut |_| 0, &mut pool);
            pool.take().expect("a candidate")
        });
        between(&broker);
        let now = with(&broker, b"{a}1", 1000, |view| {
            view.candidates(&limits, 0, &mut |_| 0, &mut pool);
            pool.take()
        });
        if let Some(now) = now {
            // The same cell and the same clock: only the key differs.
            assert_eq!((now.index, now.used), (seen.index, seen.used));
        }
        let gone = with(&broker, b"{a}1", 1000, |view| {
            view.make_room(&limits, 0, seen)
        });
        assert!(!gone && is_there(&broker, left), "{policy:?}");
    }
}

#[test]
fn a_walk_finds_the_one_key_among_many_in_steps_and_knows_when_there_is_none() {
    for policy in [Policy::AllKeysLru, Policy::VolatileLru] {
        let (_dir, broker) = broker();
        let mut rule = rule(None, b"few:".to_vec(), 1);
        rule.bounds.policy = policy;
        limit_rest(&broker, Policy::NoEviction, vec![rule]);
        for n in 0..6000 {
            // All in one shard, where some steps are needed.
            set(&broker, &format!("{{many}}{n}"), Expire::At(100_000 + n));
        }
        let limits = broker.limiter.now();
        let mut pool = Pool::default();
        let turn = |pool: &mut Pool| {
            for steps in 1.. {
                let mut fx = Effects::new();
                let shard = pool.next_shard();
                let mut locked = broker.lock_one(shard);
                let view = locked.shard(shard).keys(0, Millis(1000), &mut fx);
                let goes_on = view.next_candidates(&limits, 1, pool);
                if let Some(found) = pool.take() {
                    return (Some(found), steps);
                }
                if !goes_on {
                    return (None, steps);
                }
            }
            unreachable!()
        };
        let (found, steps) = turn(&mut pool);
        assert!(found.is_none() && (10..14).contains(&steps), "{steps}");
        set(&broker, "few:1", Expire::At(9_000_000));
        for _ in 0..2 {
            let (found, _) = turn(&mut pool);
            assert_eq!(
                found.map(|found| found.shard),
                Some(Name::new(b"few:1").slot.shard())
            );
            // The rest of a turn in which something was found is not in vain.
            assert!(turn(&mut pool).0.is_some());
        }
        with(&broker, b"few:1", 1000, |view| {
            view.delete(&Name::new(b"few:1")).expect("delete")
        });
        let (found, first) = turn(&mut pool);
        assert!(found.is_none(), "{first}");
    }
}

#[test]
fn limits_that_mean_the_same_keys_go_on_with_what_was_counted() {
    let (_dir, broker) = broker();
    limit_rest(
        &broker,
        Policy::AllKeysLru,
        vec![rule(None, b"a".to_vec(), 100)],
    );
    for n in 0..100 {
        set(&broker, &format!("a{n}"), Expire::Never);
        set(&broker, &format!("b{n}"), Expire::Never);
    }
    let budget = &broker.budgets.cache;
    let before = broker.limiter.now();
    let used = before.used(1, budget);
    assert!(used > 1000);
    // Another maximum, the same keys.
    limit_rest(
        &broker,
        Policy::AllKeysLfu,
        vec![rule(None, b"a".to_vec(), 200)],
    );
    let now = broker.limiter.now();
    assert!(!std::sync::Arc::ptr_eq(&before, &now));
    assert_eq!(now.used(1, budget), used);
    set(&broker, "a-new", Expire::Never);
    check(&broker);
    limit_rest(
        &broker,
        Policy::AllKeysLfu,
        vec![rule(None, b"b".to_vec(), 200)],
    );
    check(&broker);
}
