//! Lists of which memory has only the ends answer as if they were whole.

use std::ops::Range;

use proptest::prelude::*;

use super::partial::{copy, evict, rename, swept, with};
use super::{LITTLE, broker_with, reload, rows};
use crate::Broker;
use crate::cache::{End, Error, Held, Name, Reach, View};

#[derive(Debug, Clone)]
enum Op {
    /// So many at one end.
    Push(usize, bool, u8, usize),
    Pop(usize, bool, usize),
    Set(usize, u8),
    Insert(usize, u8),
    /// One in so many of a range of places.
    Remove(usize, u8, u8, usize),
    Trim(usize, u8, u8),
    Look(usize, u8, u8, bool, usize),
    Move(bool, bool),
    Delete(usize),
    /// List 0 takes the place of list 1.
    Rename,
    Copy,
    Fold,
    Evict(u16),
    Reload,
}

fn op() -> impl Strategy<Value = Op> {
    let which = || 0usize..2;
    let length = || prop_oneof![8 => 0usize..60, 1 => 300usize..900];
    prop_oneof![
        8 => (which(), any::<bool>(), any::<u8>(), length()).prop_map(|(w, left, n, length)| Op::Push(w, left, n % 100, length)),
        5 => (which(), any::<bool>(), 1usize..30).prop_map(|(w, left, n)| Op::Pop(w, left, n)),
        5 => (which(), any::<u8>()).prop_map(|(w, at)| Op::Set(w, at)),
        3 => (which(), any::<u8>()).prop_map(|(w, at)| Op::Insert(w, at)),
        2 => (which(), any::<u8>(), any::<u8>(), 1usize..9).prop_map(|(w, a, b, n)| Op::Remove(w, a, b, n)),
        1 => (which(), any::<u8>(), any::<u8>()).prop_map(|(w, a, b)| Op::Trim(w, a, b)),
        8 => (which(), any::<u8>(), any::<u8>(), any::<bool>(), 1usize..60).prop_map(|(w, a, b, back, n)| Op::Look(w, a, b, back, n)),
        3 => (any::<bool>(), any::<bool>()).prop_map(|(a, b)| Op::Move(a, b)),
        1 => which().prop_map(Op::Delete),
        1 => Just(Op::Rename),
        1 => Just(Op::Copy),
        4 => Just(Op::Fold),
        6 => any::<u16>().prop_map(Op::Evict),
        3 => Just(Op::Reload),
    ]
}

/// All in one slot, so that a rename keeps the rows.
const NAMES: [&[u8]; 2] = [b"{one}list", b"{one}other"];

type Model = [Vec<Vec<u8>>; 2];

fn end(left: bool) -> End {
    if left { End::Left } else { End::Right }
}

fn place(n: u8, len: usize) -> usize {
    usize::from(n) * len / 256
}

fn between(a: u8, b: u8, len: usize) -> Range<usize> {
    let (a, b) = (place(a, len + 1), place(b, len + 1));
    a.min(b)..a.max(b)
}

fn push(view: &mut View<'_>, which: usize, end: End, items: &[Vec<u8>]) {
    view.edit_list(&Name::new(NAMES[which]), true, Reach::NONE, |list, rows| {
        for item in items {
            list.push(end, item, rows);
        }
    })
    .expect("push");
}

fn items(view: &mut View<'_>, which: usize, places: Range<usize>, back: bool) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let list = view.listed(&Name::new(NAMES[which])).expect("read");
    if let Some(list) = list {
        list.each_while(places, back, |item| {
            found.push(item.to_vec());
            true
        })
        .expect("read");
    }
    found
}

fn edit(
    view: &mut View<'_>,
    which: usize,
    reach: Reach,
    change: impl FnOnce(&mut crate::cache::List, &mut crate::cache::Rows<'_>),
) {
    let done = view.edit_list(&Name::new(NAMES[which]), false, reach, change);
    done.expect("edit");
}

#[allow(clippy::too_many_lines)]
fn step(broker: &Broker, model: &mut Model, op: &Op, now: u64) {
    let text = |n: u64| format!("{now} {n}").into_bytes();
    match op {
        Op::Push(which, left, count, length) => {
            let items: Vec<Vec<u8>> = (0..u64::from(*count))
                .map(|n| [text(n), vec![b'.'; *length]].concat())
                .collect();
            with(broker, now, |view| push(view, *which, end(*left), &items));
            for item in items {
                let at = if *left { 0 } else { model[*which].len() };
                model[*which].insert(at, item);
            }
        }
        Op::Pop(which, left, count) => {
            let name = Name::new(NAMES[*which]);
            let popped = with(broker, now, |view| {
                view.pop_items(&name, end(*left), *count)
            });
            let popped: Vec<_> = popped
                .expect("pop")
                .iter()
                .map(|item| item.to_vec())
                .collect();
            let all = &mut model[*which];
            let count = (*count).min(all.len());
            let expected: Vec<_> = if *left {
                all.drain(..count).collect()
            } else {
                all.drain(all.len() - count..).rev().collect()
            };
            assert_eq!(popped, expected);
        }
        Op::Set(which, at) => {
            let (at, item) = (place(*at, model[*which].len() + 1), text(0));
            let name = Name::new(NAMES[*which]);
            let set = with(broker, now, |view| {
                view.edit_list(&name, false, Reach::NONE, |list, rows| {
                    list.set(at, &item, rows)
                })
            });
            let old = model[*which].get_mut(at);
            assert_eq!(set.expect("set").unwrap_or(false), old.is_some());
            if let Some(old) = old {
                *old = item;
            }
        }
        Op::Insert(which, at) if !model[*which].is_empty() => {
            let len = model[*which].len();
            let (at, item) = (place(*at, len + 1), text(0));
            let reach = Reach::of(&(at..at), len);
            with(broker, now, |view| {
                edit(view, *which, reach, |list, rows| {
                    list.insert(at, &item, rows)
                });
            });
            model[*which].insert(at, item);
        }
        Op::Remove(which, a, b, n) => {
            let len = model[*which].len();
            let places = between(*a, *b, len);
            let goes = |place: usize| places.contains(&place) && place.is_multiple_of(*n);
            with(broker, now, |view| {
                edit(view, *which, Reach::of(&places, len), |list, rows| {
                    list.retain(|place, _| !goes(place), rows);
                });
            });
            let mut place = 0;
            model[*which].retain(|_| {
                place += 1;
                !goes(place - 1)
            });
        }
        Op::Trim(which, a, b) => {
            let kept = between(*a, *b, model[*which].len());
            let name = Name::new(NAMES[*which]);
            with(broker, now, |view| view.trim_list(&name, |_| kept.clone())).expect("trim");
            model[*which] = model[*which][kept].to_vec();
        }
        Op::Look(which, a, b, back, limit) => {
            let places = between(*a, *b, model[*which].len());
            let found = with(broker, now, |view| {
                items(view, *which, places.clone(), *back)
            });
            let mut expected = model[*which][places.clone()].to_vec();
            if *back {
                expected.reverse();
            }
            assert_eq!(found, expected);
            let mut some = 0;
            with(broker, now, |view| {
                if let Some(list) = view.listed(&Name::new(NAMES[*which])).expect("read") {
                    list.each_while(places, *back, |_| {
                        some += 1;
                        some < *limit
                    })
                    .expect("read");
                }
            });
            assert_eq!(some, expected.len().min(*limit));
        }
        Op::Move(from, to) => {
            let names = (Name::new(NAMES[0]), Name::new(NAMES[1]));
            let moved = with(broker, now, |view| {
                view.move_item(&names.0, &names.1, end(*from), end(*to))
            });
            let moved = moved.expect("move").map(|item| item.to_vec());
            let len = model[0].len();
            let expected = (len > 0).then(|| model[0].remove(if *from { 0 } else { len - 1 }));
            assert_eq!(moved, expected);
            if let Some(item) = expected {
                let at = if *to { 0 } else { model[1].len() };
                model[1].insert(at, item);
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
        Op::Insert(..) => {}
        Op::Fold => broker.engine.fold_now().expect("fold"),
        Op::Evict(seed) => with(broker, now, |view| evict(view, *seed)),
        Op::Reload => reload(broker),
    }
    for (which, model) in model.iter().enumerate() {
        let len = with(broker, now, |view| {
            let list = view.list(&Name::new(NAMES[which])).expect("read");
            list.map_or(0, crate::cache::List::len)
        });
        assert_eq!(len, model.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn a_list_of_which_memory_has_the_ends_is_as_good_as_a_whole_one(ops in prop::collection::vec(op(), 1..100)) {
        let (_dir, broker) = broker_with(LITTLE);
        let mut model = Model::default();
        let mut now = 1;
        for op in &ops {
            now += 40;
            step(&broker, &mut model, op, now);
        }
        for _ in 0..2 {
            for (which, model) in model.iter().enumerate() {
                let all = with(&broker, now, |view| items(view, which, 0..usize::MAX, false));
                prop_assert_eq!(&all, model);
            }
            let wrong = crate::law::check(&broker, 10).expect("law");
            prop_assert!(wrong.is_empty(), "{wrong:?}");
            reload(&broker);
        }
        // Deleted, nothing of them is left in the tables but the counter of keys.
        for which in 0..2 {
            step(&broker, &mut model, &Op::Delete(which), now);
        }
        let left = swept(&broker, now);
        prop_assert!(left <= 1, "{left} rows");
    }
}

/// Bytes of memory, and those that could be forgotten.
fn memory(view: &mut View<'_>) -> (usize, Option<usize>) {
    match view.value(&Name::new(NAMES[0])).expect("read") {
        Some(Held::Object(value)) => (value.memory(), value.held()),
        _ => (0, None),
    }
}

/// A queue that is long all the time: neither what was popped nor what waits adds up in memory.
#[test]
fn a_long_queue_takes_little_memory_and_leaves_nothing_behind() {
    for left in [false, true] {
        let (_dir, broker) = broker_with(LITTLE);
        let mut model = Model::default();
        for now in 1..10 {
            step(&broker, &mut model, &Op::Push(0, left, 99, 50), now);
            step(&broker, &mut model, &Op::Fold, now);
            step(&broker, &mut model, &Op::Evict(1), now);
        }
        for now in 10..40 {
            step(&broker, &mut model, &Op::Push(0, left, 50, 50), now);
            step(&broker, &mut model, &Op::Pop(0, !left, 50), now);
            step(&broker, &mut model, &Op::Fold, now);
            step(&broker, &mut model, &Op::Evict(1), now);
        }
        let (all, held) = with(&broker, 41, memory);
        assert!(held.is_some(), "only its ends are in memory");
        // 891 items of 50 bytes and more.
        assert!(all < 16_000, "{all} bytes");
        assert!(
            rows(&broker.engine) < 891 + 8,
            "{} rows",
            rows(&broker.engine)
        );
        step(&broker, &mut model, &Op::Reload, 42);
        step(&broker, &mut model, &Op::Pop(0, !left, 891), 43);
    }
}

#[test]
fn a_list_written_before_they_could_be_long_becomes_one() {
    let (dir, broker) = broker_with(1 << 30);
    let mut model = Model::default();
    for now in 1..4 {
        step(&broker, &mut model, &Op::Push(0, now % 2 == 0, 99, 50), now);
    }
    assert_eq!(with(&broker, 4, memory).1, None);
    broker.engine.close().expect("close");
    drop(broker);
    let engine = storage::Engine::open(storage::Options::new(dir.path())).expect("engine");
    let broker = Broker::open(engine, crate::Budgets::split(LITTLE)).expect("broker");
    for now in 5..8 {
        step(&broker, &mut model, &Op::Look(0, 0, 255, false, 9), now);
        assert!(with(&broker, now, memory).1.is_some());
        step(&broker, &mut model, &Op::Reload, now);
    }
}

/// What would hold too much at once is refused before anything changes.
#[test]
fn what_is_too_much_at_once_changes_nothing() {
    let (_dir, broker) = broker_with(LITTLE);
    let item = vec![b'x'; 64 << 10];
    for now in 1..100 {
        with(&broker, now, |view| {
            push(view, 0, End::Right, std::slice::from_ref(&item))
        });
        broker.engine.fold_now().expect("fold");
        with(&broker, now, |view| evict(view, 1));
    }
    let name = Name::new(NAMES[0]);
    let popped = with(&broker, 100, |view| view.pop_items(&name, End::Left, 99));
    assert!(matches!(popped, Err(Error::TooLarge)), "{popped:?}");
    let popped = with(&broker, 100, |view| view.pop_items(&name, End::Left, 2));
    assert_eq!(popped.expect("two").len(), 2);
    let left = with(&broker, 101, |view| {
        items(view, 0, 0..usize::MAX, true).len()
    });
    assert_eq!(left, 97);
}
