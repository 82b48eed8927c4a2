//! The law: drop a shard's memory, load it from the tables, and it is equal.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use storage::{Effects, Engine, Options, ShardId};

use super::law::shown;
use super::{End, Error, Expire, Hash, Name, Need, Reach, Space};
use crate::{Broker, Budgets, Millis, ShardSet};

mod far;
mod limits;
mod ordered;
mod pages;
mod partial;
mod slots;
mod streams;
mod told;

/// So little memory that every hash and set of some elements is partial.
const LITTLE: u64 = 16 << 10;

fn broker() -> (tempfile::TempDir, Broker) {
    broker_with(1 << 30)
}

fn broker_with(memory: u64) -> (tempfile::TempDir, Broker) {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = Engine::open(Options::new(dir.path())).expect("engine");
    let broker = Broker::open(engine, Budgets::split(memory)).expect("broker");
    (dir, broker)
}

/// Every key of every shard, with value and deadline, loaded if need be.
fn dump(broker: &Broker, db: usize, now: u64) -> BTreeMap<Vec<u8>, (String, u64)> {
    let mut all = BTreeMap::new();
    let mut fx = Effects::new();
    let mut locked = broker.lock(ShardSet::DATA);
    // As in Redis, a key whose time has come is counted until somebody touches it or the sweep finds it; here, a touch.
    for number in 0..12 {
        let name = key(number);
        let name = Name::new(&name);
        let shard = name.slot.shard();
        let mut view = locked.shard(shard).keys(db, Millis(now), &mut fx);
        view.exists(&name).expect("exists");
    }
    locked.commit(Millis(now), &mut fx);
    for id in ShardSet::DATA.iter() {
        let mut keys = Vec::new();
        let mut view = locked.shard(id).keys(db, Millis(now), &mut fx);
        let mut cursor = Some(super::Cursor::Slot(crate::Slot::range_of(id).0));
        while let Some(at) = cursor.filter(|at| at.shard() == id) {
            cursor = view
                .scan(at, 1000, &mut |key, _| keys.push(key.to_vec()))
                .expect("scan");
        }
        for key in keys {
            if let Some((value, expire_ms)) = view.copy_of(&Name::new(&key)).expect("copy") {
                all.insert(key, (shown(&value), expire_ms));
            }
        }
        let len = view.len();
        assert_eq!(
            all.keys()
                .filter(|key| Name::new(key).slot.shard() == id)
                .count(),
            len,
            "the count is right"
        );
    }
    all
}

/// Forgets all memory and reads the shards anew.
fn reload(broker: &Broker) {
    broker.engine.fold_now().expect("fold");
    let mut all = broker.lock(ShardSet::ALL);
    for id in ShardSet::DATA.iter() {
        all.shard(id).cache = Space::default();
    }
    super::load(&mut all).expect("load");
}

#[derive(Debug, Clone)]
enum Op {
    Set(u8, Vec<u8>, Expire),
    Append(u8, Vec<u8>),
    SetRange(u8, usize, Vec<u8>),
    Expire(u8, u64),
    Del(u8),
    Rename(u8, u8),
    Copy(u8, u8),
    HashSet(u8, u8, Vec<u8>),
    HashDel(u8, u8),
    /// Gives a field that is there a deadline, or takes it.
    HashLast(u8, u8, Option<u64>),
    Push(u8, bool, Vec<u8>),
    Pop(u8, bool),
    Insert(u8, usize, Vec<u8>),
    Retain(u8, usize),
    Trim(u8, usize, usize),
    Add(u8, u16),
    Remove(u8, u16),
    Zadd(u8, u8, i8),
    Zrem(u8, u8),
    Fill(u8, u16),
    Stream(u8, streams::StreamOp),
    Flush,
    Reload,
    Fold,
    Sweep,
    Evict,
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0u8..12;
    let bytes = || {
        prop_oneof![
            8 => prop::collection::vec(any::<u8>(), 0..30),
            1 => (0i64..1000).prop_map(|value| value.to_string().into_bytes()),
            1 => (3000usize..14_000, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]),
        ]
    };
    let expire = prop_oneof![3 => Just(Expire::Never), 1 => Just(Expire::Keep), 1 => (50u64..5000).prop_map(Expire::At)];
    prop_oneof![
        1 => (key.clone(), bytes(), expire).prop_map(|(k, v, e)| Op::Set(k, v, e)),
        1 => (key.clone(), bytes()).prop_map(|(k, v)| Op::Append(k, v)),
        1 => (key.clone(), 0usize..9000, bytes()).prop_map(|(k, at, v)| Op::SetRange(k, at, v)),
        1 => (key.clone(), 0u64..6000).prop_map(|(k, at)| Op::Expire(k, at)),
        2 => key.clone().prop_map(Op::Del),
        1 => (key.clone(), key.clone()).prop_map(|(a, b)| Op::Rename(a, b)),
        1 => (key.clone(), key.clone()).prop_map(|(a, b)| Op::Copy(a, b)),
        4 => (key.clone(), any::<u8>(), bytes()).prop_map(|(k, f, v)| Op::HashSet(k, f, v)),
        2 => (key.clone(), any::<u8>()).prop_map(|(k, f)| Op::HashDel(k, f)),
        3 => (key.clone(), any::<u8>(), prop::option::weighted(0.8, 1u64..5000)).prop_map(|(k, f, at)| Op::HashLast(k, f, at)),
        4 => (key.clone(), any::<bool>(), bytes()).prop_map(|(k, l, v)| Op::Push(k, l, v)),
        2 => (key.clone(), any::<bool>()).prop_map(|(k, l)| Op::Pop(k, l)),
        1 => (key.clone(), 0usize..8, bytes()).prop_map(|(k, at, v)| Op::Insert(k, at, v)),
        1 => (key.clone(), 1usize..5).prop_map(|(k, n)| Op::Retain(k, n)),
        1 => (key.clone(), 0usize..4, 0usize..8).prop_map(|(k, a, b)| Op::Trim(k, a, b)),
        4 => (key.clone(), 0u16..600).prop_map(|(k, m)| Op::Add(k, m)),
        2 => (key.clone(), 0u16..600).prop_map(|(k, m)| Op::Remove(k, m)),
        4 => (key.clone(), any::<u8>(), any::<i8>()).prop_map(|(k, m, s)| Op::Zadd(k, m, s)),
        2 => (key.clone(), any::<u8>()).prop_map(|(k, m)| Op::Zrem(k, m)),
        16 => (key.clone(), streams::op()).prop_map(|(k, op)| Op::Stream(k % 4, op)),
        1 => (key, 60u16..400).prop_map(|(k, n)| Op::Fill(k, n)),
        1 => Just(Op::Flush),
        1 => Just(Op::Reload),
        1 => Just(Op::Fold),
        2 => Just(Op::Sweep),
        2 => Just(Op::Evict),
    ]
}

/// Keys of several shards; some share a slot.
fn key(number: u8) -> Vec<u8> {
    if number < 6 {
        format!("{{tag}}{number}").into_bytes()
    } else {
        format!("key-{number}").into_bytes()
    }
}

/// The shards that an operation changes: those of its keys, or all.
fn shards(op: &Op) -> ShardSet {
    let of = |number: &u8| Name::new(&key(*number)).slot.shard();
    match op {
        Op::Set(k, ..)
        | Op::Append(k, _)
        | Op::SetRange(k, ..)
        | Op::Expire(k, _)
        | Op::Del(k)
        | Op::HashSet(k, ..)
        | Op::HashDel(k, _)
        | Op::HashLast(k, ..)
        | Op::Push(k, ..)
        | Op::Pop(k, _)
        | Op::Insert(k, ..)
        | Op::Retain(k, _)
        | Op::Trim(k, ..)
        | Op::Add(k, _)
        | Op::Remove(k, _)
        | Op::Zadd(k, ..)
        | Op::Zrem(k, _)
        | Op::Stream(k, _)
        | Op::Fill(k, _) => ShardSet::of(of(k)),
        Op::Rename(a, b) | Op::Copy(a, b) => ShardSet::of(of(a)).with(of(b)),
        Op::Flush | Op::Reload | Op::Fold | Op::Sweep | Op::Evict => ShardSet::DATA,
    }
}

/// Some are integers, some are not.
fn member(number: u16) -> Vec<u8> {
    if number.is_multiple_of(7) {
        format!("m{number}").into_bytes()
    } else {
        number.to_string().into_bytes()
    }
}

fn apply(broker: &Broker, op: &Op, now: u64) {
    let mut fx = Effects::new();
    let mut locked = broker.lock(shards(op));
    let shard_of = |key: &[u8]| Name::new(key).slot.shard();
    macro_rules! on {
        ($number:expr, |$view:ident, $name:ident| $body:expr) => {{
            let key = key($number);
            let $name = &Name::new(&key);
            let mut $view = locked
                .shard($name.slot.shard())
                .keys(0, Millis(now), &mut fx);
            let _ = $body;
        }};
    }
    match op {
        Op::Set(k, v, e) => on!(*k, |view, name| view.set_string(name, v, *e)),
        Op::Append(k, v) => on!(*k, |view, name| view.edit_string(name, |bytes| {
            let start = bytes.len();
            bytes.extend_from_slice(v);
            ((), start..bytes.len())
        })),
        Op::SetRange(k, at, v) => on!(*k, |view, name| view.edit_string(name, |bytes| {
            if v.is_empty() {
                return ((), 0..0);
            }
            if bytes.len() < at + v.len() {
                bytes.resize(at + v.len(), 0);
            }
            bytes[*at..at + v.len()].copy_from_slice(v);
            ((), *at..at + v.len())
        })),
        Op::Expire(k, at) => on!(*k, |view, name| view.set_expire(name, *at)),
        Op::Del(k) => on!(*k, |view, name| view.delete(name)),
        Op::Rename(a, b) if a != b => {
            let (from, to) = (key(*a), key(*b));
            let (from, to) = (Name::new(&from), Name::new(&to));
            let same = from.slot == to.slot;
            let taken = locked
                .shard(from.slot.shard())
                .keys(0, Millis(now), &mut fx)
                .take(&from, same)
                .expect("take");
            if let Some((value, expire)) = taken {
                let mut view = locked.shard(to.slot.shard()).keys(0, Millis(now), &mut fx);
                view.restore(&to, value, expire, same).expect("restore");
            }
        }
        Op::Copy(a, b) if a != b => {
            let (from, to) = (key(*a), key(*b));
            let (from, to) = (Name::new(&from), Name::new(&to));
            let copied = locked
                .shard(from.slot.shard())
                .keys(0, Millis(now), &mut fx)
                .copy_of(&from)
                .expect("copy");
            if let Some((value, expire)) = copied {
                let mut view = locked.shard(to.slot.shard()).keys(0, Millis(now), &mut fx);
                view.restore(&to, value, expire, false).expect("restore");
            }
        }
        Op::Rename(..) | Op::Copy(..) => {}
        Op::HashSet(k, f, v) => on!(*k, |view, name| view.edit_hash(
            name,
            true,
            [[*f]],
            |hash, rows| hash.insert(&[*f], v, rows)
        )),
        Op::HashDel(k, f) => on!(*k, |view, name| view.edit_hash(
            name,
            false,
            [[*f]],
            |hash, rows| hash.remove(&[*f], rows)
        )),
        Op::HashLast(k, f, at) => on!(*k, |view, name| {
            // Some field: a name chosen by chance is rarely there.
            let found = view.elements::<Hash>(name).ok().flatten();
            let place = found.filter(|all| !all.is_empty()).map(|all| {
                let place = usize::from(*f) % all.len();
                all.at(&[place]).expect("an element")
            });
            let field = place.and_then(|found| found.into_iter().next());
            if let Some((field, _)) = field {
                view.edit_hash(name, false, [&field], |hash, rows| {
                    hash.set_deadline(&field, *at, rows);
                })
                .expect("a hash");
            }
        }),
        Op::Push(k, left, v) => on!(*k, |view, name| view.edit_list(
            name,
            true,
            Reach::NONE,
            |list, rows| {
                list.push(if *left { End::Left } else { End::Right }, v, rows);
            }
        )),
        Op::Pop(k, left) => on!(*k, |view, name| view.pop_items(
            name,
            if *left { End::Left } else { End::Right },
            1
        )),
        Op::Insert(k, at, v) => on!(*k, |view, name| view.edit_list(
            name,
            false,
            Reach::NONE,
            |list, rows| list.insert(*at, v, rows)
        )),
        Op::Retain(k, n) => on!(*k, |view, name| view.edit_list(
            name,
            false,
            Reach::NONE,
            |list, rows| { list.retain(|place, _| place % n != 0 || place > 5, rows) }
        )),
        Op::Trim(k, a, b) => on!(*k, |view, name| view.edit_list(
            name,
            false,
            Reach::NONE,
            |list, rows| list.trim(*a, *b, rows)
        )),
        Op::Add(k, m) => on!(*k, |view, name| {
            let m = member(*m);
            view.edit_set(name, true, [&m], |set, rows| set.insert(&m, rows))
        }),
        Op::Remove(k, m) => on!(*k, |view, name| {
            let m = member(*m);
            view.edit_set(name, false, [&m], |set, rows| set.remove(&m, rows))
        }),
        Op::Zadd(k, m, s) => on!(*k, |view, name| view.edit_zset(
            name,
            true,
            [[*m]],
            |zset, rows| { zset.insert(&[*m], f64::from(*s) / 3.0, rows) }
        )),
        Op::Zrem(k, m) => on!(*k, |view, name| view.edit_zset(
            name,
            false,
            [[*m]],
            |zset, rows| zset.remove(&[*m], rows)
        )),
        Op::Fill(k, n) => on!(*k, |view, name| view.edit_zset(
            name,
            true,
            (0..*n).map(|i| format!("member-{i}")),
            |zset, rows| {
                for i in 0..*n {
                    zset.insert(format!("member-{i}").as_bytes(), f64::from(i % 10), rows);
                }
            }
        )),
        Op::Stream(k, op) => on!(*k, |view, name| view.edit_stream(
            name,
            op.creates(),
            &Need::Nothing,
            |stream, rows| {
                let known = streams::Known::of(stream);
                streams::apply(stream, op, &known, now, rows)
            }
        )),
        Op::Flush => {
            for id in ShardSet::DATA.iter() {
                locked.shard(id).keys(0, Millis(now), &mut fx).flush();
            }
        }
        Op::Sweep => {
            for id in ShardSet::DATA.iter() {
                let mut view = locked.shard(id).keys(0, Millis(now), &mut fx);
                view.sweep(50).expect("sweep");
                view.expire_due(10);
                view.forget_absent(10);
            }
        }
        Op::Evict => {
            let mut state = now;
            for id in ShardSet::DATA.iter() {
                let mut view = locked.shard(id).keys(0, Millis(now), &mut fx);
                view.evict(2000, &mut |bound| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    (state >> 33) % bound.max(1)
                });
            }
        }
        Op::Reload | Op::Fold => {}
    }
    let _ = shard_of;
    locked.commit(Millis(now), &mut fx);
    drop(locked);
    match op {
        Op::Reload => reload(broker),
        Op::Fold => broker.engine.fold_now().expect("fold"),
        _ => {}
    }
}

fn rows(engine: &Arc<Engine>) -> usize {
    let mut rows = 0;
    engine
        .scan(
            storage::Keyspace::Rows,
            &[],
            None,
            usize::MAX,
            &mut |_, _| {
                rows += 1;
                true
            },
        )
        .expect("scan");
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
    #[test]
    fn memory_equals_tables_and_log(ops in prop::collection::vec(op(), 1..80), memory in prop_oneof![Just(1u64 << 30), Just(LITTLE)]) {
        let (_dir, broker) = broker_with(memory);
        let mut now = 1;
        for op in &ops {
            now += 40;
            apply(&broker, op, now);
        }
        let before = dump(&broker, 0, now);
        reload(&broker);
        prop_assert_eq!(&dump(&broker, 0, now), &before);
        // The warmer brings back everything, too.
        reload(&broker);
        let mut fx = Effects::new();
        let mut locked = broker.lock(ShardSet::DATA);
        for id in ShardSet::DATA.iter() {
            let mut view = locked.shard(id).keys(0, Millis(now), &mut fx);
            while view.warm(100).expect("warm").is_continue() {}
        }
        drop(locked);
        prop_assert_eq!(&dump(&broker, 0, now), &before);
    }

    #[test]
    fn what_two_connections_did_at_once_is_there_after_a_kill(
        ops in [prop::collection::vec(op(), 40..120), prop::collection::vec(op(), 40..120)],
    ) {
        let dir = tempfile::tempdir().expect("a directory");
        let open = || {
            let mut options = Options::new(dir.path());
            // Folds run in between, some as one batch and some by ingestion.
            options.fold_bytes = 16 << 10;
            options.batch_bytes = 12 << 10;
            let engine = Engine::open(options).expect("engine");
            Broker::open(engine, Budgets::split(1 << 30)).expect("broker")
        };
        let broker = open();
        let clock = AtomicU64::new(1);
        std::thread::scope(|scope| {
            for ops in &ops {
                scope.spawn(|| {
                    // Only a shard that is all in the tables may be dropped from memory.
                    for op in ops.iter().filter(|op| !matches!(op, Op::Reload)) {
                        apply(&broker, op, clock.fetch_add(40, Ordering::SeqCst));
                        broker.engine.flush();
                    }
                });
            }
        });
        let now = clock.load(Ordering::SeqCst);
        let before = dump(&broker, 0, now);
        broker.engine.flush();
        // Not closed: the log is left as a killed process leaves it.
        drop(broker);
        let broker = open();
        prop_assert_eq!(&dump(&broker, 0, now), &before);
    }

    #[test]
    fn nothing_is_left_after_everything_is_deleted(ops in prop::collection::vec(op(), 1..60), memory in prop_oneof![Just(1u64 << 30), Just(LITTLE)]) {
        let (_dir, broker) = broker_with(memory);
        let mut now = 1;
        for op in ops.iter().filter(|op| !matches!(op, Op::Flush)) {
            now += 40;
            apply(&broker, op, now);
        }
        for number in 0..12 {
            apply(&broker, &Op::Del(number), now);
        }
        for _ in 0..40 {
            broker.engine.fold_now().expect("fold");
            apply(&broker, &Op::Sweep, now + 10_000);
        }
        reload(&broker);
        prop_assert_eq!(dump(&broker, 0, now), BTreeMap::new());
        // What is left are the counters: one for each shard that ever had a key.
        prop_assert!(rows(&broker.engine) <= storage::SHARDS, "{} rows", rows(&broker.engine));
    }
}

#[test]
fn a_flush_leaves_nothing_behind() {
    let (_dir, broker) = broker();
    for number in 0..12 {
        apply(&broker, &Op::Set(number, b"v".to_vec(), Expire::Never), 1);
    }
    apply(&broker, &Op::Del(3), 1);
    apply(&broker, &Op::Fill(3, 300), 1);
    apply(&broker, &Op::Flush, 2);
    assert_eq!(dump(&broker, 0, 3), BTreeMap::new());
    apply(&broker, &Op::Set(1, b"new".to_vec(), Expire::Never), 3);
    for _ in 0..60 {
        broker.engine.fold_now().expect("fold");
        apply(&broker, &Op::Sweep, 4);
    }
    reload(&broker);
    assert_eq!(dump(&broker, 0, 5).len(), 1);
    let mut dead = 0;
    for id in 0..8 {
        let prefix =
            crate::rows::prefix(crate::Slot::range_of(ShardId(id)).0, crate::rows::Tag::Dead);
        let end = crate::rows::prefix_end(&prefix);
        let mut count = |_: &[u8], _: &[u8]| {
            dead += 1;
            true
        };
        broker
            .engine
            .scan(
                storage::Keyspace::Rows,
                &prefix,
                end.as_deref(),
                100,
                &mut count,
            )
            .expect("scan");
    }
    assert_eq!(dead, 0, "the sweeper has finished");
}

#[test]
fn time_that_has_come_is_gone_at_once() {
    let (_dir, broker) = broker();
    apply(&broker, &Op::Set(1, b"v".to_vec(), Expire::At(100)), 1);
    assert_eq!(dump(&broker, 0, 99).len(), 1);
    let mut fx = Effects::new();
    let name = key(1);
    let name = Name::new(&name);
    let mut locked = broker.lock_one(name.slot.shard());
    let mut view = locked
        .shard(name.slot.shard())
        .keys(0, Millis(100), &mut fx);
    assert_eq!(view.next_expiry_ms(), Some(100));
    assert!(!view.exists(&name).expect("exists"));
    assert_eq!((view.len(), view.next_expiry_ms()), (0, None));
}

#[test]
fn fields_go_when_their_time_has_come_and_the_hash_with_the_last() {
    let (_dir, broker) = broker();
    let key = key(1);
    let name = Name::new(&key);
    let on = |now: u64, run: &mut dyn FnMut(&mut super::View<'_>)| {
        let mut fx = Effects::new();
        let mut locked = broker.lock_one(name.slot.shard());
        run(&mut locked
            .shard(name.slot.shard())
            .keys(0, Millis(now), &mut fx));
        locked.commit(Millis(now), &mut fx);
    };
    let set = |field: &'static [u8], at: Option<u64>| {
        on(1, &mut |view| {
            view.edit_hash(&name, true, [field], |hash, rows| {
                hash.insert(field, b"v", rows);
                hash.set_deadline(field, at, rows);
            })
            .expect("a hash");
        });
    };
    let fields = |now: u64| {
        let mut found = None;
        on(now, &mut |view| {
            let hash = view.elements::<Hash>(&name).expect("a hash");
            found = hash.map(|hash| hash.len());
        });
        found
    };
    set(b"a", Some(100));
    set(b"b", Some(200));
    set(b"c", None);
    for reloads in [false, true] {
        if reloads {
            reload(&broker);
        }
        assert_eq!(fields(99), Some(3));
    }
    assert_eq!(fields(100), Some(2));
    set(b"c", Some(300));
    reload(&broker);
    on(99, &mut |view| {
        // A key in memory is swept without being asked for.
        view.exists(&name).expect("exists");
        assert_eq!(view.next_expiry_ms(), Some(200));
    });
    on(250, &mut |view| assert_eq!(view.expire_due(10), 1));
    assert_eq!(fields(250), Some(1));
    on(400, &mut |view| {
        assert_eq!(view.expire_due(10), 1);
        assert_eq!(view.next_expiry_ms(), None);
        assert!(!view.exists(&name).expect("exists"));
    });
    reload(&broker);
    assert_eq!(dump(&broker, 0, 1), BTreeMap::new());
    assert!(rows(&broker.engine) <= storage::SHARDS);
}

#[test]
fn databases_change_places_in_memory_and_in_the_tables() {
    for memory in [1 << 30, LITTLE] {
        let (_dir, broker) = broker_with(memory);
        for number in 0..12 {
            apply(&broker, &Op::Fill(number, 80), 1);
            apply(&broker, &Op::Del(number), 1);
            for member in 0..60 {
                apply(&broker, &Op::Add(number, member * 7), 1);
            }
        }
        let before = dump(&broker, 0, 1);
        let swap = |first: usize, second: usize| {
            let mut fx = Effects::new();
            let mut locked = broker.lock(ShardSet::DATA);
            for id in ShardSet::DATA.iter() {
                let mut view = locked.shard(id).keys(first, Millis(1), &mut fx);
                view.swap(second);
            }
            locked.commit(Millis(1), &mut fx);
        };
        swap(0, 3);
        assert_eq!(dump(&broker, 3, 1), before);
        assert_eq!(dump(&broker, 0, 1), BTreeMap::new());
        apply(&broker, &Op::Set(2, b"new".to_vec(), Expire::Never), 1);
        let new = dump(&broker, 0, 1);
        reload(&broker);
        assert_eq!(
            (dump(&broker, 3, 1), dump(&broker, 0, 1)),
            (before.clone(), new.clone())
        );
        swap(3, 0);
        swap(5, 5);
        reload(&broker);
        assert_eq!((dump(&broker, 0, 1), dump(&broker, 3, 1)), (before, new));
    }
}

#[test]
fn a_look_ahead_changes_nothing() {
    let (_dir, broker) = broker();
    let names: Vec<Vec<u8>> = (0..super::TOUCH_MAX).map(|n| vec![b'k', n as u8]).collect();
    let names: Vec<Name<'_>> = names.iter().map(|name| Name::new(name)).collect();
    let mut fx = Effects::new();
    for name in names.iter().step_by(2) {
        let shard = name.slot.shard();
        let mut locked = broker.lock(ShardSet::of(shard));
        let mut view = locked.shard(shard).keys(0, Millis(1), &mut fx);
        view.put(name, super::Value::string(&[7; 300]), Expire::Never)
            .expect("put");
        locked.commit(Millis(1), &mut fx);
    }
    let before = dump(&broker, 0, 1);
    super::touch(&broker, 0, &names);
    super::touch(&broker, 99, &names);
    {
        let _busy = broker.lock(ShardSet::ALL);
        super::touch(&broker, 0, &names);
    }
    assert_eq!(dump(&broker, 0, 1), before);
}

#[test]
fn a_value_that_one_record_cannot_hold_is_not_moved_and_stays() {
    let (_dir, broker) = broker();
    let (from, to) = (key(7), key(8));
    let (from, to) = (Name::new(&from), Name::new(&to));
    let count = 1_500_000;
    let mut fx = Effects::new();
    let mut locked = broker.lock(ShardSet::DATA);
    let mut view = locked.shard(from.slot.shard()).keys(0, Millis(0), &mut fx);
    view.edit_list(&from, true, Reach::NONE, |list, rows| {
        for _ in 0..count {
            list.push(End::Right, b"x", rows);
        }
    })
    .expect("a list");
    assert!(matches!(view.take(&from, false), Err(Error::TooLarge)));
    let (copy, _) = view.copy_of(&from).expect("copy").expect("a list");
    let mut view = locked.shard(to.slot.shard()).keys(0, Millis(0), &mut fx);
    let put = view.put(&to, copy, Expire::Never);
    assert!(matches!(put, Err(Error::TooLarge)));
    assert!(!view.exists(&to).expect("exists"));
    let mut view = locked.shard(from.slot.shard()).keys(0, Millis(0), &mut fx);
    let list = view.list(&from).expect("a list").expect("is there");
    assert_eq!(list.len(), count);
    locked.commit(Millis(0), &mut fx);
}
