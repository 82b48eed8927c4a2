//! Streams that are mostly in the tables answer as if they were whole.

use proptest::prelude::*;

use super::partial::{copy, evict, rename, swept, with};
use super::streams::{self, Known, StreamOp, text};
use super::{LITTLE, broker, broker_with, reload, rows};
use crate::Broker;
use crate::cache::law::shown;
use crate::cache::{EntryId, Held, Name, Need, Refs, Span, Trim, Until, View, body};

/// Operations on stream 0 or 1.
#[derive(Debug, Clone)]
enum Op {
    Do(usize, StreamOp),
    /// So many entries of this length.
    Fill(usize, u8, usize),
    /// From one of the ids to another, backwards, at most so many.
    Range(usize, u8, u8, bool, usize),
    /// All but so many from the front.
    Empty(usize, u8),
    Cut(usize, u8, bool, u64),
    Delete(usize),
    /// Stream 0 takes the place of stream 1.
    Rename,
    Copy,
    Fold,
    Evict(u16),
    Reload,
    Sweep,
}

fn op() -> impl Strategy<Value = Op> {
    let which = || 0usize..2;
    prop_oneof![
        16 => (which(), streams::op()).prop_map(|(w, op)| Op::Do(w, op)),
        4 => (which(), any::<u8>(), 0usize..90).prop_map(|(w, n, length)| Op::Fill(w, n, length)),
        6 => (which(), any::<u8>(), any::<u8>(), any::<bool>(), 1usize..80).prop_map(|(w, a, b, back, n)| Op::Range(w, a, b, back, n)),
        1 => (which(), 0u8..20).prop_map(|(w, n)| Op::Empty(w, n)),
        3 => (which(), any::<u8>(), any::<bool>(), 0u64..40).prop_map(|(w, n, by_len, limit)| Op::Cut(w, n, by_len, limit)),
        1 => which().prop_map(Op::Delete),
        1 => Just(Op::Rename),
        1 => Just(Op::Copy),
        4 => Just(Op::Fold),
        5 => any::<u16>().prop_map(Op::Evict),
        2 => Just(Op::Reload),
        1 => Just(Op::Sweep),
    ]
}

/// All in one slot, so that a rename keeps the rows.
const NAMES: [&[u8]; 2] = [b"{one}stream", b"{one}other"];

fn known(view: &mut View<'_>, which: usize) -> Known {
    let stream = view.stream(&Name::new(NAMES[which])).expect("read");
    stream.map_or_else(Known::none, Known::of)
}

fn fill(view: &mut View<'_>, which: usize, count: u8, length: usize) {
    for n in 0..count {
        let value = vec![n; length];
        let mut entry = Vec::new();
        body([(&b"f"[..], &value[..])].into_iter(), &mut entry);
        let name = Name::new(NAMES[which]);
        view.edit_stream(&name, true, &Need::Nothing, |stream, rows| {
            if let Some(id) = stream.last_id().after() {
                stream.add(id, &entry, rows);
            }
        })
        .expect("add");
    }
}

fn trim(view: &mut View<'_>, which: usize, trim: &Trim) -> usize {
    let name = Name::new(NAMES[which]);
    let need = Need::Trim(trim, Refs::Keep, 0);
    let removed = view.edit_stream(&name, false, &need, |stream, rows| {
        stream.trim_by(trim, Refs::Keep, rows)
    });
    removed.expect("trim").unwrap_or(0)
}

fn range(view: &mut View<'_>, which: usize, span: Span) -> Vec<String> {
    let mut all = Vec::new();
    let name = Name::new(NAMES[which]);
    view.between(&name, span, |entries| {
        entries.each(|entry| all.push(text(entry)))?;
        assert_eq!(entries.len(), all.len());
        Ok::<_, crate::cache::Error>(())
    })
    .expect("read");
    all
}

/// What can be seen of one without its entries, and all of it.
fn seen(view: &mut View<'_>, which: usize) -> (String, String) {
    let name = Name::new(NAMES[which]);
    let facts = view.stream(&name).expect("read").map(|stream| {
        let lags: Vec<_> = stream
            .groups()
            .map(|(_, group)| stream.lag(group))
            .collect();
        let ends = (stream.first(), stream.top(), stream.last_id());
        (stream.len(), ends, stream.added(), lags)
    });
    let copy = view.copy_of(&name).expect("read");
    let all = copy.map(|(value, _)| shown(&value)).unwrap_or_default();
    (format!("{facts:?}"), all)
}

/// Does it; what is answered.
fn run(view: &mut View<'_>, op: &Op, known: &[Known; 2], now: u64) -> String {
    match op {
        Op::Do(which, op) => {
            let (name, known) = (Name::new(NAMES[*which]), &known[*which]);
            if let StreamOp::SetId(n, _) = op {
                let stream = view.stream(&name).expect("read");
                if let Some(last) = stream.map(|stream| streams::set_to(stream, *n)) {
                    view.lower_id(&name, last).expect("lower");
                }
            }
            let done = op.needing(known, now, |need| {
                view.edit_stream(&name, op.creates(), need, |stream, rows| {
                    streams::apply(stream, op, known, now, rows)
                })
            });
            done.expect("done").unwrap_or_default()
        }
        Op::Fill(which, count, length) => {
            fill(view, *which, *count, *length);
            String::new()
        }
        Op::Range(which, a, b, back, limit) => {
            let (start, end) = (known[*which].nth(*a), known[*which].nth(*b));
            let span = Span {
                start,
                end,
                back: *back,
                limit: *limit,
            };
            range(view, *which, span).join(" ")
        }
        Op::Empty(which, left) => {
            let until = Until::Len(u64::from(*left));
            let exactly = Trim {
                until,
                roughly: false,
                limit: 0,
            };
            trim(view, *which, &exactly).to_string()
        }
        Op::Delete(which) => {
            let deleted = view.delete(&Name::new(NAMES[*which])).expect("delete");
            deleted.to_string()
        }
        Op::Rename => {
            rename(view, NAMES[0], NAMES[1]);
            String::new()
        }
        Op::Copy => {
            copy(view, NAMES[0], NAMES[1]);
            String::new()
        }
        Op::Cut(..) | Op::Fold | Op::Evict(_) | Op::Reload | Op::Sweep => String::new(),
    }
}

/// The same for the one whose memory is little: a rough cut takes no more than an exact one, which follows in both.
fn cut(whole: &Broker, paged: &Broker, op: &Op, known: &Known, now: u64) {
    let Op::Cut(which, n, by_len, limit) = *op else {
        return;
    };
    let until = if by_len {
        Until::Len(u64::from(n))
    } else {
        Until::Id(known.nth(n))
    };
    let exactly = Trim {
        until,
        roughly: false,
        limit: 0,
    };
    let roughly = Trim {
        roughly: true,
        limit,
        ..exactly
    };
    let removed = with(paged, now, |view| trim(view, which, &roughly));
    assert!(
        limit == 0 || removed as u64 <= limit,
        "{removed} of {limit}"
    );
    let expected = with(whole, now, |view| trim(view, which, &exactly));
    let more = with(paged, now, |view| trim(view, which, &exactly));
    assert_eq!(removed + more, expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn a_stream_in_pages_is_as_good_as_a_whole_one(ops in prop::collection::vec(op(), 1..100)) {
        let ((_a, whole), (_b, paged)) = (broker(), broker_with(LITTLE));
        let mut now = 1;
        for op in &ops {
            now += 40;
            let op = match op {
                // What a rough trim takes depends on how entries lie: see `Cut`.
                Op::Do(which, StreamOp::Trim(n, _, refs)) => {
                    &Op::Do(*which, StreamOp::Trim(*n, false, *refs))
                }
                op => op,
            };
            let known = with(&whole, now, |view| [0, 1].map(|which| known(view, which)));
            match op {
                Op::Fold => paged.engine.fold_now().expect("fold"),
                Op::Evict(seed) => with(&paged, now, |view| evict(view, *seed)),
                Op::Reload => reload(&paged),
                Op::Sweep => with(&paged, now, |view| {
                    view.sweep(20).expect("sweep");
                }),
                Op::Cut(which, ..) => cut(&whole, &paged, op, &known[*which], now),
                op => {
                    let expected = with(&whole, now, |view| run(view, op, &known, now));
                    let found = with(&paged, now, |view| run(view, op, &known, now));
                    prop_assert_eq!(found, expected);
                }
            }
        }
        for _ in 0..2 {
            for which in 0..2 {
                let expected = with(&whole, now, |view| seen(view, which));
                let found = with(&paged, now, |view| seen(view, which));
                prop_assert_eq!(found, expected);
            }
            let wrong = crate::law::check(&paged, 10).expect("law");
            prop_assert!(wrong.is_empty(), "{wrong:?}");
            reload(&paged);
        }
        // Deleted, nothing of them is left in the tables but the counter of keys.
        for name in NAMES {
            with(&paged, now, |view| view.delete(&Name::new(name))).expect("delete");
        }
        let left = swept(&paged, now);
        prop_assert!(left <= 1, "{left} rows");
    }
}

/// Bytes of memory, and those that could be forgotten.
fn memory(view: &mut View<'_>) -> (usize, Option<usize>) {
    let value = view.value(&Name::new(NAMES[0])).expect("read");
    match value {
        Some(Held::Object(value)) => (value.memory(), value.held()),
        _ => (0, None),
    }
}

#[test]
fn memory_of_a_stream_in_pages_is_bounded_once_it_is_folded() {
    let (_dir, broker) = broker_with(LITTLE);
    for now in 1..40 {
        with(&broker, now, |view| fill(view, 0, 100, 50));
        broker.engine.fold_now().expect("fold");
        with(&broker, now, |view| evict(view, 1));
    }
    let (before, held) = with(&broker, 40, memory);
    assert!(
        held.is_some_and(|held| held < 3_000),
        "{held:?} bytes of entries"
    );
    // 500 pages of 8 entries.
    assert!(before < 60_000, "{before} bytes");
    assert_eq!(
        with(&broker, 41, |view| range(view, 0, Span::ALL)).len(),
        3_900
    );
    let (after, _) = with(&broker, 42, memory);
    assert!(
        after < before + 2_000,
        "a long walk leaves {after} bytes, {before} before"
    );
}

#[test]
fn a_stream_written_before_there_were_pages_gets_some() {
    let (dir, broker) = broker_with(1 << 30);
    with(&broker, 1, |view| fill(view, 0, 200, 50));
    let expected = with(&broker, 1, |view| seen(view, 0));
    assert_eq!(with(&broker, 1, memory).1, None);
    broker.engine.close().expect("close");
    drop(broker);
    let engine = storage::Engine::open(storage::Options::new(dir.path())).expect("engine");
    let broker = Broker::open(engine, crate::Budgets::split(LITTLE)).expect("broker");
    for now in 2..4 {
        assert_eq!(with(&broker, now, |view| seen(view, 0)), expected);
        assert!(with(&broker, now, memory).1.is_some());
        reload(&broker);
    }
}

/// Entries come behind and go in front, one by one, by trimming or by name: nothing of those that went adds up.
#[test]
fn a_long_queue_leaves_nothing_behind() {
    for by_name in [false, true] {
        let (_dir, broker) = broker_with(LITTLE);
        with(&broker, 1, |view| fill(view, 0, 200, 20));
        let before = with(&broker, 1, memory).0;
        let name = Name::new(NAMES[0]);
        for round in 2..30 {
            with(&broker, round, |view| {
                fill(view, 0, 100, 20);
                if by_name {
                    for _ in 0..100 {
                        let first = view.stream(&name).expect("read").expect("there").first();
                        let need = Need::Entries(&[first]);
                        let gone = view.edit_stream(&name, false, &need, |stream, rows| {
                            stream.delete(&[first], rows)
                        });
                        assert_eq!(gone.expect("delete"), Some(1));
                    }
                } else {
                    let until = Until::Len(200);
                    let exactly = Trim {
                        until,
                        roughly: false,
                        limit: 0,
                    };
                    assert_eq!(trim(view, 0, &exactly), 100);
                }
            });
            broker.engine.fold_now().expect("fold");
            with(&broker, round, |view| {
                view.sweep(1000).expect("sweep");
                evict(view, 1);
            });
        }
        let after = with(&broker, 31, memory).0;
        assert!(after <= before, "{after} bytes, {before} before");
        broker.engine.fold_now().expect("fold");
        // Entries, pages, and what the stream, its key and its database are.
        let rows = rows(&broker.engine);
        assert!(rows < 200 + 40 + 10, "{rows} rows");
    }
}

/// Ids may begin again below those of entries that were trimmed, of which the sweeper has yet to delete the rows.
#[test]
fn ids_may_begin_again() {
    let (_dir, broker) = broker_with(LITTLE);
    for now in 1..4 {
        with(&broker, now, |view| fill(view, 0, 100, 50));
        broker.engine.fold_now().expect("fold");
        with(&broker, now, |view| evict(view, 1));
    }
    let all = Trim {
        until: Until::Len(0),
        roughly: false,
        limit: 0,
    };
    let name = Name::new(NAMES[0]);
    with(&broker, 5, |view| {
        assert_eq!(trim(view, 0, &all), 300);
        view.lower_id(&name, EntryId::MIN).expect("lower");
        view.edit_stream(&name, false, &Need::Nothing, |stream, rows| {
            stream.set_id(EntryId::MIN, None, None, rows);
        })
        .expect("set");
        fill(view, 0, 20, 50);
    });
    for now in 6..20 {
        broker.engine.fold_now().expect("fold");
        with(&broker, now, |view| view.sweep(1000).expect("sweep"));
    }
    for now in 20..22 {
        let left = with(&broker, now, |view| range(view, 0, Span::ALL));
        assert_eq!(left.len(), 20);
        reload(&broker);
    }
}

/// Entries deleted one here and one there leave no more in memory than others, once it is folded.
#[test]
fn sparse_deletions_are_forgotten() {
    let (_dir, broker) = broker_with(LITTLE);
    for now in 1..20 {
        with(&broker, now, |view| fill(view, 0, 100, 50));
        broker.engine.fold_now().expect("fold");
        with(&broker, now, |view| evict(view, 1));
    }
    let before = with(&broker, 20, memory).0;
    let name = Name::new(NAMES[0]);
    for seq in (1..1800).step_by(2) {
        let id = EntryId { ms: 0, seq };
        let deleted = with(&broker, 20, |view| {
            view.edit_stream(&name, false, &Need::Entries(&[id]), |stream, rows| {
                stream.delete(&[id, id], rows)
            })
        });
        assert_eq!(deleted.expect("delete"), Some(1));
    }
    broker.engine.fold_now().expect("fold");
    with(&broker, 21, |view| evict(view, 1));
    let after = with(&broker, 22, memory).0;
    assert!(after < before + 2_000, "{after} bytes, {before} before");
    let left = with(&broker, 23, |view| range(view, 0, Span::ALL));
    assert_eq!(left.len(), 1000);
}

/// What is trimmed piece by piece before the fold is swept all the same.
#[test]
fn what_is_trimmed_piece_by_piece_is_swept() {
    let (_dir, broker) = broker_with(LITTLE);
    for now in 1..10 {
        with(&broker, now, |view| fill(view, 0, 100, 50));
        broker.engine.fold_now().expect("fold");
        with(&broker, now, |view| evict(view, 1));
    }
    for left in (100..900).rev().step_by(80) {
        let exactly = Trim {
            until: Until::Len(left),
            roughly: false,
            limit: 0,
        };
        with(&broker, 10, |view| trim(view, 0, &exactly));
    }
    let left = with(&broker, 11, |view| range(view, 0, Span::ALL)).len();
    broker.engine.fold_now().expect("fold");
    let mut rounds = 0;
    while with(&broker, 12, |view| view.sweep(1000).expect("sweep")) {
        rounds += 1;
        assert!(rounds < 100, "the sweeper comes to an end");
    }
    broker.engine.fold_now().expect("fold");
    let all = with(&broker, 13, |view| range(view, 0, Span::ALL));
    assert_eq!(all.len(), left);
    let rows = rows(&broker.engine);
    assert!(rows < left + left / 4 + 10, "{rows} rows");
}
