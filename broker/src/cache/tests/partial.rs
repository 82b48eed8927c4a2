//! Hashes and sets that are mostly in the tables answer as if they were whole.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use storage::Effects;

use super::{LITTLE, broker_with, reload, rows};
use crate::cache::{Cold, Hash, NO_ELEMENTS, Name, Set, View};
use crate::{Broker, Millis, ShardSet};

/// A hash (0, 1) or a set (2) and an element.
type Place = (usize, u16);

#[derive(Debug, Clone)]
enum Op {
    Put(Place, Vec<u8>),
    Remove(Place),
    Look(Place),
    /// Many at once.
    Fill(usize, u16, u16),
    Empty(usize, u16, u16),
    All(usize),
    /// Walks over everything in pages, with another change between the pages.
    Scan(usize, usize, Place),
    Random(usize, usize, bool),
    Delete(usize),
    /// Hash 0 takes the place of hash 1, and back.
    Rename,
    Copy,
    Fold,
    Evict(u16),
    Reload,
    /// Elements are read ahead; the first operations happen before the tables are read, the others before what was read
    /// goes into memory.
    Ahead(usize, Vec<u16>, Vec<Self>, Vec<Self>),
}

fn op() -> impl Strategy<Value = Op> {
    let between = || prop::collection::vec(simple_op(), 0..6);
    let numbers = prop::collection::vec(0u16..400, 0..20);
    let ahead = (0usize..3, numbers, between(), between());
    prop_oneof![
        6 => simple_op(),
        1 => ahead.prop_map(|(which, numbers, a, b)| Op::Ahead(which, numbers, a, b)),
    ]
}

fn simple_op() -> impl Strategy<Value = Op> {
    let place = || (0usize..3, 0u16..400);
    let value = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (100usize..2000, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]),
    ];
    prop_oneof![
        6 => (place(), value).prop_map(|(p, v)| Op::Put(p, v)),
        4 => place().prop_map(Op::Remove),
        6 => place().prop_map(Op::Look),
        4 => (0usize..3, 0u16..400, 1u16..150).prop_map(|(c, from, n)| Op::Fill(c, from, n)),
        2 => (0usize..3, 0u16..400, 1u16..150).prop_map(|(c, from, n)| Op::Empty(c, from, n)),
        2 => (0usize..3).prop_map(Op::All),
        2 => (0usize..3, 1usize..60, place()).prop_map(|(c, n, p)| Op::Scan(c, n, p)),
        2 => (0usize..3, 1usize..40, any::<bool>()).prop_map(|(c, n, d)| Op::Random(c, n, d)),
        1 => (0usize..3).prop_map(Op::Delete),
        1 => Just(Op::Rename),
        1 => Just(Op::Copy),
        3 => Just(Op::Fold),
        3 => any::<u16>().prop_map(Op::Evict),
        2 => Just(Op::Reload),
    ]
}

/// All in one slot, so that a rename keeps the rows.
const NAMES: [&[u8]; 3] = [b"{one}hash", b"{one}other", b"{one}set"];
const IS_SET: usize = 2;

/// Names that share a front, names of digits, and a few too long for a table key.
pub(super) fn element(number: u16) -> Vec<u8> {
    match number % 40 {
        0 => [vec![b'l'; 60_010], number.to_string().into_bytes()].concat(),
        1..4 => number.to_be_bytes().to_vec(),
        4..20 => format!("field:{number:06}").into_bytes(),
        _ => number.to_string().into_bytes(),
    }
}

type Model = [BTreeMap<Vec<u8>, Vec<u8>>; 3];

/// Runs with the view of the shard where all of it lives, and commits.
pub(super) fn with<R>(broker: &Broker, now: u64, run: impl FnOnce(&mut View<'_>) -> R) -> R {
    let shard = Name::new(NAMES[0]).slot.shard();
    let mut fx = Effects::new();
    let mut locked = broker.lock_one(shard);
    let result = run(&mut locked.shard(shard).keys(0, Millis(now), &mut fx));
    locked.commit(Millis(now), &mut fx);
    result
}

/// The one takes the place of the other, with its rows. False: it is not there.
pub(super) fn rename(view: &mut View<'_>, from: &[u8], to: &[u8]) -> bool {
    let taken = view.take(&Name::new(from), true).expect("take");
    let there = taken.is_some();
    if let Some((value, expire)) = taken {
        let put = view.restore(&Name::new(to), value, expire, true);
        put.expect("restore");
    }
    there
}

/// A copy of the one takes the place of the other. False: it is not there.
pub(super) fn copy(view: &mut View<'_>, from: &[u8], to: &[u8]) -> bool {
    let copied = view.copy_of(&Name::new(from)).expect("copy");
    let there = copied.is_some();
    if let Some((value, expire)) = copied {
        let put = view.restore(&Name::new(to), value, expire, false);
        put.expect("restore");
    }
    there
}

/// Lets what was deleted go from the tables; how many rows are left.
pub(super) fn swept(broker: &Broker, now: u64) -> usize {
    for _ in 0..200 {
        broker.engine.fold_now().expect("fold");
        if !with(broker, now, |view| view.sweep(1000).expect("sweep")) {
            break;
        }
    }
    broker.engine.fold_now().expect("fold");
    rows(&broker.engine)
}

/// Forgets some of what is clean.
pub(super) fn evict(view: &mut View<'_>, seed: u16) {
    let mut state = u64::from(seed);
    view.evict(1 + state, &mut |bound| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % bound.max(1)
    });
}

fn put(view: &mut View<'_>, which: usize, name: &[u8], value: &[u8]) -> bool {
    let key = Name::new(NAMES[which]);
    let added = if which == IS_SET {
        view.edit_set(&key, true, [name], |set, rows| set.insert(name, rows))
    } else {
        view.edit_hash(&key, true, [name], |hash, rows| {
            hash.insert(name, value, rows)
        })
    };
    added.expect("put").expect("made")
}

fn remove(view: &mut View<'_>, which: usize, name: &[u8]) -> bool {
    let key = Name::new(NAMES[which]);
    let removed = if which == IS_SET {
        view.edit_set(&key, false, [name], |set, rows| set.remove(name, rows))
    } else {
        view.edit_hash(&key, false, [name], |hash, rows| hash.remove(name, rows))
    };
    removed.expect("remove").unwrap_or(false)
}

fn look(view: &mut View<'_>, which: usize, name: &[u8]) -> Option<Vec<u8>> {
    let key = Name::new(NAMES[which]);
    if which == IS_SET {
        let set = view.set(&key, [name]).expect("read")?;
        set.contains(name).then(Vec::new)
    } else {
        let hash = view.hash(&key, [name]).expect("read")?;
        hash.get(name).map(<[u8]>::to_vec)
    }
}

fn all(view: &mut View<'_>, which: usize) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let key = Name::new(NAMES[which]);
    let mut found = BTreeMap::new();
    let mut note = |name: crate::cache::Member<'_>, value: &[u8]| {
        assert!(
            found.insert(name.to_vec(), value.to_vec()).is_none(),
            "shown once"
        );
    };
    if which == IS_SET {
        if let Some(set) = view.elements::<Set>(&key).expect("read") {
            set.each(&mut note).expect("each");
        }
    } else if let Some(hash) = view.elements::<Hash>(&key).expect("read") {
        hash.each(&mut note).expect("each");
    }
    found
}

fn len(view: &mut View<'_>, which: usize) -> usize {
    let key = Name::new(NAMES[which]);
    if which == IS_SET {
        let set = view.set(&key, NO_ELEMENTS).expect("read");
        set.map_or(0, Set::len)
    } else {
        let hash = view.hash(&key, NO_ELEMENTS).expect("read");
        hash.map_or(0, Hash::len)
    }
}

fn page(
    view: &mut View<'_>,
    which: usize,
    cursor: u64,
    count: usize,
) -> Option<(Vec<Vec<u8>>, u64)> {
    let key = Name::new(NAMES[which]);
    let mut seen = Vec::new();
    let mut note = |name: crate::cache::Member<'_>, _: &[u8]| seen.push(name.to_vec());
    let next = if which == IS_SET {
        view.scan_partial::<Set>(&key, cursor, count, &mut note)
    } else {
        view.scan_partial::<Hash>(&key, cursor, count, &mut note)
    };
    next.expect("scan").map(|next| (seen, next))
}

fn random(view: &mut View<'_>, which: usize, count: usize, distinct: bool) -> Vec<Vec<u8>> {
    let key = Name::new(NAMES[which]);
    let mut state = count as u64;
    let mut chance = |bound: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % bound.max(1)
    };
    let found = if which == IS_SET {
        let set = view.elements::<Set>(&key).expect("read");
        set.map(|set| set.random(count, distinct, &mut chance).expect("random"))
    } else {
        let hash = view.elements::<Hash>(&key).expect("read");
        hash.map(|hash| hash.random(count, distinct, &mut chance).expect("random"))
    };
    found
        .unwrap_or_default()
        .into_iter()
        .map(|(name, _)| name)
        .collect()
}

fn is_partial(view: &mut View<'_>, which: usize) -> bool {
    let value = view.value(&Name::new(NAMES[which])).expect("read");
    value.is_some_and(|value| value.partial().is_some())
}

fn step(broker: &Broker, model: &mut Model, op: &Op, now: u64) {
    let stored = |which: usize, value: &[u8]| {
        if which == IS_SET {
            Vec::new()
        } else {
            value.to_vec()
        }
    };
    match op {
        Op::Put((which, number), value) => {
            let name = element(*number);
            let added = with(broker, now, |view| put(view, *which, &name, value));
            let was = model[*which].insert(name, stored(*which, value));
            assert_eq!(added, was.is_none());
        }
        Op::Remove((which, number)) => {
            let name = element(*number);
            let removed = with(broker, now, |view| remove(view, *which, &name));
            assert_eq!(removed, model[*which].remove(&name).is_some());
        }
        Op::Look((which, number)) => {
            let name = element(*number);
            let found = with(broker, now, |view| look(view, *which, &name));
            assert_eq!(found.as_ref(), model[*which].get(&name));
        }
        Op::Fill(which, from, count) => with(broker, now, |view| {
            for number in *from..from + count {
                put(view, *which, &element(number), b"filled");
                model[*which].insert(element(number), stored(*which, b"filled"));
            }
        }),
        Op::Empty(which, from, count) => with(broker, now, |view| {
            for number in *from..from + count {
                remove(view, *which, &element(number));
                model[*which].remove(&element(number));
            }
        }),
        Op::All(which) => {
            assert_eq!(with(broker, now, |view| all(view, *which)), model[*which]);
        }
        Op::Scan(which, count, (_, between)) => {
            let stays: BTreeSet<_> = model[*which].keys().cloned().collect();
            let (mut cursor, mut seen) = (0, BTreeSet::new());
            let name = element(*between);
            while let Some((found, next)) =
                with(broker, now, |view| page(view, *which, cursor, *count))
            {
                assert!(found.len() <= *count);
                seen.extend(found);
                with(broker, now, |view| put(view, *which, &name, b"between"));
                model[*which].insert(name.clone(), stored(*which, b"between"));
                cursor = next;
                if next == 0 {
                    assert!(seen.is_superset(&stays), "what stays is seen");
                    break;
                }
            }
        }
        Op::Random(which, count, distinct) => {
            let (found, partial) = with(broker, now, |view| {
                (
                    random(view, *which, *count, *distinct),
                    is_partial(view, *which),
                )
            });
            for name in &found {
                let known = model[*which].contains_key(name);
                assert!(known, "{} is not there", name.escape_ascii());
            }
            let expected = if *distinct {
                (*count).min(model[*which].len())
            } else {
                *count
            };
            assert_eq!(found.len(), if partial { expected } else { 0 });
            if *distinct {
                assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), found.len());
            }
        }
        Op::Delete(which) => {
            let deleted = with(broker, now, |view| view.delete(&Name::new(NAMES[*which])));
            assert_eq!(deleted.expect("delete"), !model[*which].is_empty());
            model[*which].clear();
        }
        Op::Rename => {
            if with(broker, now, |view| rename(view, NAMES[0], NAMES[1])) {
                model[1] = std::mem::take(&mut model[0]);
            }
        }
        Op::Copy => {
            if with(broker, now, |view| copy(view, NAMES[0], NAMES[1])) {
                model[1] = model[0].clone();
            }
        }
        Op::Fold => broker.engine.fold_now().expect("fold"),
        Op::Evict(seed) => with(broker, now, |view| evict(view, *seed)),
        Op::Reload => reload(broker),
        Op::Ahead(which, numbers, before, after) => {
            let names: Vec<_> = numbers.iter().map(|number| element(*number)).collect();
            let mut cold = Cold::default();
            with(broker, now, |view| {
                let key = Name::new(NAMES[*which]);
                view.note_cold(&key, names.iter().map(|name| &**name), &mut cold);
            });
            for op in before {
                step(broker, model, op, now);
            }
            cold.read(&broker.engine).expect("read");
            for op in after {
                step(broker, model, op, now);
            }
            let mut fx = Effects::new();
            let mut locked = broker.lock(ShardSet::DATA);
            cold.install(&mut locked, Millis(now), &mut fx);
            locked.commit(Millis(now), &mut fx);
            drop(locked);
            for name in names {
                let found = with(broker, now, |view| look(view, *which, &name));
                assert_eq!(found.as_ref(), model[*which].get(&name));
            }
        }
    }
    for (which, model) in model.iter().enumerate() {
        assert_eq!(with(broker, now, |view| len(view, which)), model.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn a_partial_collection_is_as_good_as_a_whole_one(ops in prop::collection::vec(op(), 1..80)) {
        let (_dir, broker) = broker_with(LITTLE);
        let mut model = Model::default();
        let mut now = 1;
        for op in &ops {
            now += 40;
            step(&broker, &mut model, op, now);
        }
        for again in [false, true] {
            for (which, model) in model.iter().enumerate() {
                prop_assert_eq!(&with(&broker, now, |view| all(view, which)), model);
            }
            if !again {
                reload(&broker);
            }
        }
        // Deleted, nothing of it is left in the tables but the counter of keys.
        for which in 0..3 {
            step(&broker, &mut model, &Op::Delete(which), now);
        }
        for _ in 0..60 {
            broker.engine.fold_now().expect("fold");
            with(&broker, now, |view| view.sweep(100).expect("sweep"));
        }
        broker.engine.fold_now().expect("fold");
        prop_assert!(rows(&broker.engine) <= 1, "{} rows", rows(&broker.engine));
    }
}

#[test]
fn what_was_read_ahead_is_in_memory_afterwards() {
    let (_dir, broker) = broker_with(LITTLE);
    let mut model = Model::default();
    step(&broker, &mut model, &Op::Fill(0, 0, 400), 1);
    step(&broker, &mut model, &Op::Fill(1, 0, 3), 1);
    step(&broker, &mut model, &Op::Reload, 2);
    let note = |which: usize| {
        let mut cold = Cold::default();
        let name = element(77);
        let elements = std::iter::once(&*name);
        with(&broker, 3, |view| {
            view.note_cold(&Name::new(NAMES[which]), elements, &mut cold);
        });
        cold
    };
    // The key itself, whole or partial with an element; then another element of the partial one.
    for which in [0, 1] {
        let mut cold = note(which);
        assert!(!cold.is_empty());
        cold.read(&broker.engine).expect("read");
        let mut locked = broker.lock(ShardSet::DATA);
        cold.install(&mut locked, Millis(3), &mut Effects::new());
        drop(locked);
        assert!(note(which).is_empty(), "nothing is left to be read");
    }
}

#[test]
fn memory_of_a_partial_hash_is_bounded_once_it_is_folded() {
    let (_dir, broker) = broker_with(LITTLE);
    let mut model = Model::default();
    step(&broker, &mut model, &Op::Fill(0, 0, 400), 1);
    assert!(with(&broker, 1, |view| is_partial(view, 0)));
    let used = || {
        let mut locked = broker.lock(ShardSet::DATA);
        let charges = ShardSet::DATA
            .iter()
            .map(|id| locked.shard(id).cache.charge);
        let charges: i64 = charges.collect::<Vec<_>>().into_iter().sum();
        broker.budgets.cache.used() as i64 + charges
    };
    let dirty = used();
    step(&broker, &mut model, &Op::Evict(1), 2);
    assert_eq!(used(), dirty, "what the tables do not have stays");
    step(&broker, &mut model, &Op::Fold, 3);
    step(&broker, &mut model, &Op::Evict(1), 4);
    // 1/16 of the cache's half, the hash itself and its key.
    assert!(used() < 1500, "{} of {dirty} bytes", used());
    step(&broker, &mut model, &Op::All(0), 5);
}

#[test]
fn a_hash_written_before_there_were_partial_ones_becomes_one() {
    let (dir, broker) = broker_with(1 << 30);
    let mut model = Model::default();
    step(&broker, &mut model, &Op::Fill(0, 0, 300), 1);
    broker.engine.close().expect("close");
    drop(broker);
    let engine = storage::Engine::open(storage::Options::new(dir.path())).expect("engine");
    let broker = Broker::open(engine, crate::Budgets::split(LITTLE)).expect("broker");
    assert!(with(&broker, 2, |view| is_partial(view, 0)));
    step(&broker, &mut model, &Op::Remove((0, 5)), 2);
    step(&broker, &mut model, &Op::Reload, 3);
    step(&broker, &mut model, &Op::All(0), 4);
}
