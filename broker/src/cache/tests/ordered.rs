//! Sorted sets that are mostly in the tables answer as if they were whole.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use proptest::prelude::*;

use super::partial::{copy, element, evict, rename, with};
use super::{LITTLE, broker_with, reload, rows};
use crate::Broker;
use crate::cache::{Error, LexBound, NO_ELEMENTS, Name, ScoreBound, Text, View, Zset};

#[derive(Debug, Clone)]
enum Op {
    Add(usize, u16, i8),
    Remove(usize, u16),
    /// Many at once, with scores that rise, fall, or jump.
    Fill(usize, u16, u16, i8),
    Empty(usize, u16, u16),
    Pop(usize, bool, usize),
    RemoveRanks(usize, u16, u16),
    RemoveScores(usize, i8, i8),
    Ranks(usize, u16, u16, bool),
    Scores(usize, i8, i8, bool),
    Members(u16, u16, bool),
    Rank(usize, u16),
    All(usize),
    Scan(usize, usize, (u16, i8)),
    Delete(usize),
    /// The first takes the place of the second, and back.
    Rename,
    Copy,
    Fold,
    Evict(u16),
    Reload,
}

fn op() -> impl Strategy<Value = Op> {
    let which = || 0usize..3;
    let number = || 0u16..400;
    prop_oneof![
        6 => (which(), number(), any::<i8>()).prop_map(|(w, n, s)| Op::Add(w, n, s)),
        3 => (which(), number()).prop_map(|(w, n)| Op::Remove(w, n)),
        5 => (which(), number(), 1u16..150, -2i8..3).prop_map(|(w, n, c, s)| Op::Fill(w, n, c, s)),
        2 => (which(), number(), 1u16..150).prop_map(|(w, n, c)| Op::Empty(w, n, c)),
        4 => (which(), any::<bool>(), 0usize..40).prop_map(|(w, m, c)| Op::Pop(w, m, c)),
        1 => (which(), number(), number()).prop_map(|(w, a, b)| Op::RemoveRanks(w, a, b)),
        1 => (which(), any::<i8>(), any::<i8>()).prop_map(|(w, a, b)| Op::RemoveScores(w, a, b)),
        3 => (which(), number(), number(), any::<bool>()).prop_map(|(w, a, b, r)| Op::Ranks(w, a, b, r)),
        3 => (which(), any::<i8>(), any::<i8>(), any::<bool>()).prop_map(|(w, a, b, e)| Op::Scores(w, a, b, e)),
        2 => (number(), number(), any::<bool>()).prop_map(|(a, b, e)| Op::Members(a, b, e)),
        4 => (which(), number()).prop_map(|(w, n)| Op::Rank(w, n)),
        2 => which().prop_map(Op::All),
        1 => (which(), 1usize..60, (number(), any::<i8>())).prop_map(|(w, c, b)| Op::Scan(w, c, b)),
        1 => which().prop_map(Op::Delete),
        1 => Just(Op::Rename),
        1 => Just(Op::Copy),
        3 => Just(Op::Fold),
        3 => any::<u16>().prop_map(Op::Evict),
        2 => Just(Op::Reload),
    ]
}

/// All in one slot, so that a rename keeps the rows.
const NAMES: [&[u8]; 3] = [b"{one}scores", b"{one}other", b"{one}equal"];
/// Its scores are made equal before it is asked by member.
const EQUAL: usize = 2;

type Model = [BTreeMap<Vec<u8>, f64>; 3];

/// Members and scores in their order.
fn order(model: &BTreeMap<Vec<u8>, f64>) -> Vec<(Vec<u8>, f64)> {
    let mut all: Vec<_> = model.iter().map(|(m, s)| (m.clone(), *s)).collect();
    all.sort_by(|(m, s), (n, t)| s.partial_cmp(t).expect("no NaN").then_with(|| m.cmp(n)));
    all
}

fn score(which: usize, score: i8) -> f64 {
    match score {
        _ if which == EQUAL => f64::from(score.rem_euclid(3)),
        i8::MIN => f64::NEG_INFINITY,
        i8::MAX => f64::INFINITY,
        score => f64::from(score) / 8.0,
    }
}

fn add(view: &mut View<'_>, which: usize, member: &[u8], score: f64) -> bool {
    let key = Name::new(NAMES[which]);
    let added = view.edit_zset(&key, true, [member], |zset, rows| {
        zset.insert(member, score, rows)
    });
    added.expect("add").expect("made")
}

fn remove(view: &mut View<'_>, which: usize, member: &[u8]) -> Option<f64> {
    let key = Name::new(NAMES[which]);
    let removed = view.edit_zset(&key, false, [member], |zset, rows| {
        zset.remove(member, rows)
    });
    removed.expect("remove").flatten()
}

fn vectors(found: &[(Text, f64)]) -> Vec<(Vec<u8>, f64)> {
    found.iter().map(|(m, s)| (m.to_vec(), *s)).collect()
}

fn range(
    view: &mut View<'_>,
    which: usize,
    ranks: Range<usize>,
    backwards: bool,
) -> Vec<(Vec<u8>, f64)> {
    let found = view.ranked(&Name::new(NAMES[which]), NO_ELEMENTS, |zset| {
        zset.members(ranks, backwards)
    });
    vectors(&found.expect("read").unwrap_or_default())
}

fn is_partial(view: &mut View<'_>, which: usize) -> bool {
    let value = view.value(&Name::new(NAMES[which])).expect("read");
    value.is_some_and(|value| value.partial().is_some())
}

fn len(view: &mut View<'_>, which: usize) -> usize {
    let zset = view.zset(&Name::new(NAMES[which]), NO_ELEMENTS);
    zset.expect("read").map_or(0, Zset::len)
}

/// Ranks between two of a set.
fn between(a: u16, b: u16, len: usize) -> Range<usize> {
    let (a, b) = (usize::from(a).min(len), usize::from(b).min(len));
    a.min(b)..a.max(b)
}

fn bound(score: f64, inclusive: bool) -> ScoreBound {
    if inclusive {
        ScoreBound::Inclusive(score)
    } else {
        ScoreBound::Exclusive(score)
    }
}

#[allow(clippy::too_many_lines)]
fn step(broker: &Broker, model: &mut Model, op: &Op, now: u64) {
    match op {
        Op::Add(which, number, s) => {
            let (member, score) = (element(*number), score(*which, *s));
            let added = with(broker, now, |view| add(view, *which, &member, score));
            assert_eq!(added, model[*which].insert(member, score).is_none());
        }
        Op::Remove(which, number) => {
            let member = element(*number);
            let removed = with(broker, now, |view| remove(view, *which, &member));
            assert_eq!(removed, model[*which].remove(&member));
        }
        Op::Fill(which, from, count, by) => with(broker, now, |view| {
            for number in *from..from + count {
                let score = match by {
                    _ if *which == EQUAL => f64::from(number % 3),
                    0 => f64::from(number.wrapping_mul(7919) % 100),
                    by => f64::from(number) * f64::from(*by),
                };
                add(view, *which, &element(number), score);
                model[*which].insert(element(number), score);
            }
        }),
        Op::Empty(which, from, count) => with(broker, now, |view| {
            for number in *from..from + count {
                let removed = remove(view, *which, &element(number));
                assert_eq!(removed, model[*which].remove(&element(number)));
            }
        }),
        Op::Pop(which, max, count) => {
            let key = Name::new(NAMES[*which]);
            let popped = with(broker, now, |view| view.pop_members(&key, *max, *count));
            let mut all = order(&model[*which]);
            if *max {
                all.reverse();
            }
            all.truncate(*count);
            assert_eq!(vectors(&popped.expect("pop")), all);
            for (member, _) in all {
                model[*which].remove(&member);
            }
        }
        Op::RemoveRanks(which, a, b) => {
            let key = Name::new(NAMES[*which]);
            let ranks = between(*a, *b, model[*which].len());
            let removed = with(broker, now, |view| {
                view.remove_ranked(&key, |_| Ok(ranks.clone()))
            });
            assert_eq!(removed.expect("remove"), ranks.len());
            for (member, _) in &order(&model[*which])[ranks] {
                model[*which].remove(member);
            }
        }
        Op::RemoveScores(which, a, b) => {
            let key = Name::new(NAMES[*which]);
            let (min, max) = (score(*which, *a.min(b)), score(*which, *a.max(b)));
            let removed = with(broker, now, |view| {
                view.remove_ranked(&key, |zset| {
                    zset.by_score(ScoreBound::Inclusive(min), ScoreBound::Exclusive(max))
                })
            });
            let before = model[*which].len();
            model[*which].retain(|_, score| !(*score >= min && *score < max));
            assert_eq!(removed.expect("remove"), before - model[*which].len());
        }
        Op::Ranks(which, a, b, backwards) => {
            let ranks = between(*a, *b, model[*which].len());
            let found = with(broker, now, |view| {
                range(view, *which, ranks.clone(), *backwards)
            });
            let mut expected = order(&model[*which])[ranks].to_vec();
            if *backwards {
                expected.reverse();
            }
            assert_eq!(found, expected);
        }
        Op::Scores(which, a, b, inclusive) => {
            let (min, max) = (score(*which, *a), score(*which, *b));
            let found = with(broker, now, |view| {
                view.ranked(&Name::new(NAMES[*which]), NO_ELEMENTS, |zset| {
                    let ranks = zset.by_score(bound(min, *inclusive), bound(max, *inclusive))?;
                    zset.members(ranks, false)
                })
            });
            let mut expected = order(&model[*which]);
            expected.retain(|&(_, score)| {
                if *inclusive {
                    score >= min && score <= max
                } else {
                    score > min && score < max
                }
            });
            let found = found.expect("read").unwrap_or_default();
            assert_eq!(vectors(&found), expected);
        }
        Op::Members(a, b, inclusive) => {
            let (min, max) = (element(*a), element(*b));
            let level = f64::from(a % 3);
            with(broker, now, |view| {
                for (member, score) in &mut model[EQUAL] {
                    if *score != level {
                        add(view, EQUAL, member, level);
                        *score = level;
                    }
                }
            });
            let found = with(broker, now, |view| {
                view.ranked(&Name::new(NAMES[EQUAL]), NO_ELEMENTS, |zset| {
                    let (min, max) = if *inclusive {
                        (LexBound::Inclusive(&min), LexBound::Inclusive(&max))
                    } else {
                        (LexBound::Exclusive(&min), LexBound::Exclusive(&max))
                    };
                    let all = zset.by_member(LexBound::Min, LexBound::Max)?;
                    assert_eq!(all, 0..zset.len());
                    let ranks = zset.by_member(min, max)?;
                    zset.members(ranks, false)
                })
            });
            let mut expected = order(&model[EQUAL]);
            expected.retain(|(member, _)| {
                if *inclusive {
                    *member >= min && *member <= max
                } else {
                    *member > min && *member < max
                }
            });
            let found = found.expect("read").unwrap_or_default();
            assert_eq!(vectors(&found), expected);
        }
        Op::Rank(which, number) => {
            let member = element(*number);
            let found = with(broker, now, |view| {
                view.ranked(&Name::new(NAMES[*which]), [&member], |zset| {
                    Ok::<_, Error>(zset.rank(&member)?.zip(zset.score(&member)))
                })
            });
            let all = order(&model[*which]);
            let at = all.iter().position(|(other, _)| *other == member);
            let expected = at.map(|at| (at, all[at].1));
            assert_eq!(found.expect("read").flatten(), expected);
        }
        Op::All(which) => {
            let all = order(&model[*which]);
            let found = with(broker, now, |view| range(view, *which, 0..all.len(), false));
            assert_eq!(found, all);
        }
        Op::Scan(which, count, (number, s)) => {
            let stays: BTreeSet<_> = model[*which].keys().cloned().collect();
            let (mut cursor, mut seen) = (0, BTreeSet::new());
            let (member, score) = (element(*number), score(*which, *s));
            loop {
                let page = with(broker, now, |view| {
                    let key = Name::new(NAMES[*which]);
                    view.scan_partial::<Zset>(&key, cursor, *count, &mut |member, _| {
                        seen.insert(member.to_vec());
                    })
                });
                let Some(next) = page.expect("scan") else {
                    break;
                };
                with(broker, now, |view| add(view, *which, &member, score));
                model[*which].insert(member.clone(), score);
                cursor = next;
                if next == 0 {
                    assert!(seen.is_superset(&stays), "what stays is seen");
                    break;
                }
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
    }
    for (which, model) in model.iter().enumerate() {
        assert_eq!(with(broker, now, |view| len(view, which)), model.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn a_partial_sorted_set_is_as_good_as_a_whole_one(ops in prop::collection::vec(op(), 1..80)) {
        let (_dir, broker) = broker_with(LITTLE);
        let mut model = Model::default();
        let mut now = 1;
        for op in &ops {
            now += 40;
            step(&broker, &mut model, op, now);
        }
        for _ in 0..2 {
            for which in 0..3 {
                step(&broker, &mut model, &Op::All(which), now);
            }
            let wrong = crate::law::check(&broker, 10).expect("law");
            prop_assert!(wrong.is_empty(), "{wrong:?}");
            reload(&broker);
        }
        // Deleted, nothing of it is left in the tables but the counter of keys.
        for which in 0..3 {
            step(&broker, &mut model, &Op::Delete(which), now);
        }
        for _ in 0..80 {
            broker.engine.fold_now().expect("fold");
            with(&broker, now, |view| view.sweep(100).expect("sweep"));
        }
        broker.engine.fold_now().expect("fold");
        prop_assert!(rows(&broker.engine) <= 1, "{} rows", rows(&broker.engine));
    }
}

#[test]
fn memory_of_a_partial_sorted_set_is_bounded_once_it_is_folded() {
    let (_dir, broker) = broker_with(LITTLE);
    let mut model = Model::default();
    step(&broker, &mut model, &Op::Fill(0, 41, 350, 0), 1);
    assert!(with(&broker, 1, |view| is_partial(view, 0)));
    step(&broker, &mut model, &Op::Fold, 2);
    step(&broker, &mut model, &Op::Evict(1), 3);
    let held = with(&broker, 3, |view| {
        let value = view.value(&Name::new(NAMES[0])).expect("read");
        value.map(|value| match value {
            crate::cache::Held::Object(value) => (value.memory(), value.held()),
            _ => (0, None),
        })
    });
    let (memory, held) = held.expect("there");
    assert!(held < Some(1500), "{held:?} bytes of members and places");
    // The directory of its pages: a few dozen, of 8 places each.
    assert!(memory < 12_000, "{memory} bytes");
    step(&broker, &mut model, &Op::All(0), 4);
}

#[test]
fn a_sorted_set_written_before_there_were_partial_ones_becomes_one() {
    let (dir, broker) = broker_with(1 << 30);
    let mut model = Model::default();
    step(&broker, &mut model, &Op::Fill(0, 0, 300, 0), 1);
    assert!(!with(&broker, 1, |view| is_partial(view, 0)));
    broker.engine.close().expect("close");
    drop(broker);
    let engine = storage::Engine::open(storage::Options::new(dir.path())).expect("engine");
    let broker = Broker::open(engine, crate::Budgets::split(LITTLE)).expect("broker");
    step(&broker, &mut model, &Op::All(0), 2);
    step(&broker, &mut model, &Op::Add(0, 390, 3), 2);
    assert!(with(&broker, 2, |view| is_partial(view, 0)));
    step(&broker, &mut model, &Op::Remove(0, 5), 2);
    for op in [Op::All(0), Op::Reload, Op::All(0)] {
        step(&broker, &mut model, &op, 3);
    }
}

/// A queue by score: what comes last has the highest. Neither the pages nor the rows that were popped add up.
#[test]
fn a_long_queue_leaves_nothing_behind() {
    let (_dir, broker) = broker_with(LITTLE);
    let mut model = Model::default();
    step(&broker, &mut model, &Op::Fill(0, 41, 350, 1), 1);
    let key = Name::new(NAMES[0]);
    for round in 0..20u32 {
        with(&broker, 2, |view| {
            for number in 0..100 {
                let member = format!("job {round} {number}");
                let score = f64::from(1000 + round * 100 + number);
                add(view, 0, member.as_bytes(), score);
            }
            let popped = view.pop_members(&key, false, 100).expect("pop");
            assert_eq!(popped.len(), 100);
        });
        broker.engine.fold_now().expect("fold");
    }
    let pages = with(&broker, 3, |view| {
        let zset = view.zset(&key, NO_ELEMENTS).expect("read").expect("there");
        let partly = zset.as_partly().expect("partial");
        assert_eq!(partly.order.len(), 350);
        partly.order.pages()
    });
    assert!(pages < 120, "{pages} pages of 350 members");
}
