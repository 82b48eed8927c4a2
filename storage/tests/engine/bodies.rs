//! Bodies read back from the log before and after they are folded, until the log lets them go.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use bytes::Bytes;
use storage::{BodyAt, Effects, Engine, Keyspace, Lsn, Need, Pressure, ShardId};

use crate::support::{self, Rng};

/// A value of the log and of the tables, and where the log has it.
struct Placed {
    key: Vec<u8>,
    at: BodyAt,
    value: Vec<u8>,
}

/// Appends one record with a few bodies among rows, and says where they are.
fn append(engine: &Engine, fx: &mut Effects, rng: &mut Rng, n: &mut u64) -> Vec<Placed> {
    let mut bodies = Vec::new();
    for _ in 0..=rng.below(4) {
        *n += 1;
        let key = [&[0, 1][..], &n.to_be_bytes()].concat();
        let (head, body) = (
            rng.below(9),
            [10, 3_000, 4_096, 9_000][rng.below(4) as usize],
        );
        let (head, body) = (rng.bytes(head), rng.bytes(body));
        if rng.chance(2) {
            fx.put(ShardId(1), &key, b"a row between");
        }
        let offset = fx.put_body(ShardId(0), &key, &head, &body.clone().into());
        bodies.push((key, offset, [head, body].concat()));
    }
    let start = fx.start(engine.append(*n, fx));
    fx.clear();
    let placed = |(key, offset, value): (Vec<u8>, u64, Vec<u8>)| Placed {
        key,
        at: BodyAt {
            at: Lsn(start.0 + offset),
            length: value.len() as u32,
        },
        value,
    };
    bodies.into_iter().map(placed).collect()
}

fn places(all: &[Placed]) -> Vec<BodyAt> {
    all.iter().map(|placed| placed.at).collect()
}

fn read_one(engine: &Engine, placed: &Placed) -> Option<Bytes> {
    let mut found = Vec::new();
    engine.read_bodies(&[placed.at], &mut found).unwrap();
    found.pop()
}

fn settle(engine: &Engine) {
    let _ = engine.wait(Need {
        written: engine.appended(),
        synced: Lsn(0),
    });
}

#[test]
fn a_body_is_where_its_record_says_until_the_log_is_trimmed() {
    let dir = support::dir();
    let mut options = support::small(dir.path());
    options.retain_bytes = 1 << 30;
    let engine = Engine::open(options.clone()).unwrap();
    let (mut fx, mut rng, mut n) = (Effects::new(), Rng::new(7), 0);
    let mut all = Vec::new();
    for round in 0..200 {
        all.extend(append(&engine, &mut fx, &mut rng, &mut n));
        // Several records in a group, and several groups in a file.
        if round % 3 == 0 {
            settle(&engine);
        }
    }
    settle(&engine);
    // In order, so that neighbours share reads, and each by itself.
    let in_log = || {
        let (places, mut found) = (places(&all), Vec::new());
        assert_eq!(engine.read_bodies(&places, &mut found).unwrap(), all.len());
        let same = |placed: &Placed| read_one(&engine, placed).as_deref() == Some(&placed.value);
        all.iter().all(same) && all.iter().map(|placed| &placed.value[..]).eq(found)
    };
    assert!(engine.stats().log_segments > 1);
    assert!(in_log());
    engine.fold_now().unwrap();
    assert!(in_log(), "folded log is kept for a while");
    // Not written yet is a mistake of the caller, not an absence.
    let late = append(&engine, &mut fx, &mut rng, &mut n);
    assert!(engine.read_bodies(&places(&late), &mut Vec::new()).is_err());
    engine.close().unwrap();
    drop(engine);

    options.retain_bytes = 0;
    let engine = Engine::open(options).unwrap();
    append(&engine, &mut fx, &mut rng, &mut n);
    engine.fold_now().unwrap();
    let (first, last) = (&all[0], &late[0]);
    assert_eq!(read_one(&engine, first), None);
    for placed in [first, last] {
        let row = engine.get(Keyspace::Bodies, &placed.key).unwrap();
        assert_eq!(row.as_deref(), Some(&placed.value[..]));
    }
    let mut shared = Vec::new();
    engine
        .scan_shared(Keyspace::Bodies, &first.key, None, &mut |key, value| {
            shared.push((key.to_vec(), value));
            shared.len() < 5
        })
        .unwrap();
    let expected = all.iter().take(5);
    assert!(
        expected
            .map(|placed| (&placed.key, &placed.value[..]))
            .eq(shared.iter().map(|(key, value)| (key, &value[..])))
    );
    engine.close().unwrap();
}

#[test]
fn readers_find_each_body_in_the_log_or_in_the_tables_while_the_log_is_trimmed() {
    let dir = support::dir();
    let mut options = support::small(dir.path());
    options.retain_bytes = 0;
    let engine = Engine::open(options).unwrap();
    let (placed, to_read) = mpsc::channel::<Placed>();
    let done = AtomicBool::new(false);
    let (mut from_log, mut from_tables) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut fx, mut rng, mut n) = (Effects::new(), Rng::new(8), 0);
            // Moved in, so that the reader ends.
            let placed = placed;
            while !done.load(Ordering::Relaxed) {
                let bodies = append(&engine, &mut fx, &mut rng, &mut n);
                settle(&engine);
                for body in bodies {
                    let _ = placed.send(body);
                }
                while engine.pressure() > Pressure::None && !done.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
            }
        });
        // A reader that stays a little behind the writer, so that it meets files about to go.
        let mut behind = std::collections::VecDeque::new();
        while from_tables < 2_000 {
            let Ok(next) = to_read.recv() else { break };
            behind.push_back(next);
            let keep = 20 * (engine.stats().folds as usize % 30);
            while behind.len() > keep
                && let Some(body) = behind.pop_front()
            {
                match read_one(&engine, &body) {
                    Some(found) => {
                        assert_eq!(found, body.value);
                        from_log += 1;
                    }
                    None => {
                        let row = engine.get(Keyspace::Bodies, &body.key).unwrap();
                        assert_eq!(row.as_deref(), Some(&body.value[..]));
                        from_tables += 1;
                    }
                }
            }
        }
        done.store(true, Ordering::Relaxed);
        drop(to_read);
    });
    assert!(from_log > 0 && from_tables > 0);
    engine.close().unwrap();
}
