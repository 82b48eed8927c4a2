//! Walking over the keys of one slot in steps, while others work.

use std::collections::BTreeSet;

use super::{broker_with, reload};
use crate::cache::{Expire, Name, SlotWalk};
use crate::{Broker, Effects, Millis};

const KEYS: usize = 20_000;

fn key(n: usize) -> Vec<u8> {
    // Every other one is in another slot of the same shard.
    let tag = if n.is_multiple_of(2) { "{a}" } else { "{e}" };
    format!("{tag}{n:05}").into_bytes()
}

fn set(broker: &Broker, keys: impl Iterator<Item = usize>, there: bool) {
    for n in keys {
        let mut fx = Effects::new();
        let key = key(n);
        let name = Name::new(&key);
        let mut locked = broker.lock_one(name.slot.shard());
        let mut view = locked.shard(name.slot.shard()).keys(0, Millis(1), &mut fx);
        if there {
            view.set_string(&name, b"some value", Expire::Never)
                .expect("set");
        } else {
            view.delete(&name).expect("delete");
        }
        locked.commit(Millis(1), &mut fx);
    }
}

/// The keys that a walk shows, with something else done behind each step.
fn walked(broker: &Broker, mut meanwhile: impl FnMut(usize)) -> Vec<Vec<u8>> {
    let name = Name::new(b"{a}");
    let (mut walk, mut found, mut goes_on, mut steps) =
        (SlotWalk::new(name.slot), Vec::new(), true, 0);
    while goes_on {
        let mut fx = Effects::new();
        let mut locked = broker.lock_one(name.slot.shard());
        let mut view = locked.shard(name.slot.shard()).keys(0, Millis(1), &mut fx);
        let mut show = |key: &[u8]| {
            found.push(key.to_vec());
            true
        };
        goes_on = view.walk_slot(&mut walk, &mut show).expect("walk");
        drop(locked);
        assert!(fx.is_empty());
        meanwhile(steps);
        steps += 1;
        assert!(steps < 1000, "it ends");
    }
    found
}

fn evict(broker: &Broker) {
    let shard = Name::new(b"{a}").slot.shard();
    let mut fx = Effects::new();
    let mut locked = broker.lock_one(shard);
    let mut view = locked.shard(shard).keys(0, Millis(1), &mut fx);
    let mut state = 1u64;
    view.evict(3000, &mut |bound| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % bound.max(1)
    });
}

#[test]
fn each_key_of_a_slot_is_shown_once() {
    assert_eq!(
        Name::new(b"{a}").slot.shard(),
        Name::new(b"{e}").slot.shard()
    );
    let wanted: BTreeSet<Vec<u8>> = (0..KEYS).filter(|n| n.is_multiple_of(2)).map(key).collect();
    for memory in [1 << 30, 1 << 20] {
        let (_dir, broker) = broker_with(memory);
        set(&broker, 0..KEYS, true);
        let check = |found: Vec<Vec<u8>>| {
            assert_eq!(found.len(), wanted.len());
            assert!(found.iter().all(|key| wanted.contains(key)));
        };
        check(walked(&broker, |_| {}));
        broker.engine.fold_now().expect("fold");
        evict(&broker);
        check(walked(&broker, |_| evict(&broker)));
        reload(&broker);
        check(walked(&broker, |_| {}));
        // What was only in memory when the tables were looked at is in the tables only, afterwards.
        set(&broker, 0..KEYS, true);
        check(walked(&broker, |step| {
            if step == 2 {
                broker.engine.fold_now().expect("fold");
            }
            evict(&broker);
        }));
        // Others come and go; those that stay are all there.
        let extra = KEYS..KEYS + 4000;
        let found = walked(&broker, |step| {
            set(&broker, extra.clone(), step.is_multiple_of(2));
        });
        let found: BTreeSet<_> = found.into_iter().collect();
        assert!(wanted.is_subset(&found));
        set(&broker, (0..KEYS).filter(|n| n.is_multiple_of(4)), false);
        assert!(walked(&broker, |_| {}).len() >= wanted.len() / 2);
    }
}

#[test]
fn a_walk_ends_when_no_more_is_wanted() {
    let (_dir, broker) = broker_with(1 << 30);
    set(&broker, 0..100, true);
    let name = Name::new(b"{a}");
    let (mut walk, mut left, mut fx) = (SlotWalk::new(name.slot), 7, Effects::new());
    let mut locked = broker.lock_one(name.slot.shard());
    let mut view = locked.shard(name.slot.shard()).keys(0, Millis(1), &mut fx);
    let more = view.walk_slot(&mut walk, &mut |_| {
        left -= 1;
        left > 0
    });
    assert!(!more.expect("walk") && left == 0);
}
