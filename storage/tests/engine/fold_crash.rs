//! The process dies at each step of a fold, with put and delete of the same message on both sides of its boundary.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use storage::fault::{Fault, Faults, Step};
use storage::{Effects, Engine, Options};

use crate::support::{self, Change, Model};

pub(crate) const STEPS: [(&str, Step); 4] = [
    ("synced", Step::FoldSynced),
    ("intent", Step::FoldIntent),
    ("bodies", Step::FoldBodies),
    ("rows", Step::FoldRows),
];

/// Where the fold of a start may die as well.
const HALF: (&str, Step) = ("half", Step::FoldHalf);

/// Dies at a step, once armed.
#[derive(Debug)]
struct DieAt {
    step: Step,
    armed: AtomicBool,
    reached: AtomicBool,
}

impl Fault for DieAt {
    fn at(&self, step: Step) -> io::Result<()> {
        if step == self.step && self.armed.load(Ordering::SeqCst) {
            // What comes after the boundary is appended while the fold is at this step.
            self.reached.store(true, Ordering::SeqCst);
            loop {
                std::thread::park();
            }
        }
        Ok(())
    }
}

fn body(fill: u8) -> Bytes {
    Bytes::from(vec![fill; 5000])
}

fn message(change: &mut Change<'_>, id: &str, fill: u8) {
    change.put(1, format!("\0\x01m{id}").as_bytes(), &[fill; 100]);
    change.put_body(1, format!("\0\x01m{id}").as_bytes(), b"head", &body(fill));
}

fn gone(change: &mut Change<'_>, id: &str) {
    change.del(1, format!("\0\x01m{id}").as_bytes());
    change.del_body(1, format!("\0\x01m{id}").as_bytes());
}

/// Folded before; in the window of the crash; after its boundary. Each is a record. Without `counters` a recovery folds in halves.
pub(crate) fn records(
    part: usize,
    counters: bool,
    fx: &mut Effects,
    model: &mut Model,
    mut commit: impl FnMut(&mut Effects),
) {
    let mut record = |write: &dyn Fn(&mut Change<'_>)| {
        write(&mut Change { fx, model });
        commit(fx);
    };
    match part {
        0 => {
            record(&|c| message(c, "old-kept", 1));
            record(&|c| message(c, "old-deleted-in", 2));
            record(&|c| message(c, "old-deleted-after", 3));
            record(&|c| message(c, "old-replaced-in", 4));
            if counters {
                record(&|c| c.add(1, b"\0\x01count", 40));
            }
        }
        1 => {
            record(&|c| message(c, "in-kept", 11));
            record(&|c| message(c, "in-deleted-after", 12));
            record(&|c| message(c, "in-deleted-in", 13));
            record(&|c| gone(c, "in-deleted-in"));
            record(&|c| gone(c, "old-deleted-in"));
            record(&|c| gone(c, "old-replaced-in"));
            record(&|c| message(c, "old-replaced-in", 14));
            record(&|c| message(c, "in-deleted-put-after", 15));
            record(&|c| gone(c, "in-deleted-put-after"));
            if counters {
                record(&|c| c.add(1, b"\0\x01count", 2));
                record(&|c| c.add(2, b"\0\x02fresh", 5));
                record(&|c| c.add(2, b"\0\x02fresh", -7));
            }
            record(&|c| {
                c.put(3, b"\0\x03set", &100i64.to_le_bytes());
                c.add(3, b"\0\x03set", 1);
            });
        }
        _ => {
            record(&|c| gone(c, "in-deleted-after"));
            record(&|c| gone(c, "old-deleted-after"));
            record(&|c| message(c, "in-deleted-put-after", 21));
            record(&|c| message(c, "after-deleted-after", 22));
            record(&|c| gone(c, "after-deleted-after"));
            record(&|c| message(c, "after-kept", 23));
            if counters {
                record(&|c| c.add(1, b"\0\x01count", 1000));
            }
        }
    }
}

fn options(dir: &Path, batch_bytes: u64) -> Options {
    let mut options = Options::new(dir);
    options.batch_bytes = batch_bytes;
    options.segment_bytes = 16 << 10;
    options
}

/// Child: writes, folds, and dies at `STEP`. With `STAGE=again` it only opens, and dies in the recovery's fold.
#[test]
fn child_dies_in_a_fold() {
    let Ok(dir) = std::env::var("FOLD_CRASH_DIR") else {
        return;
    };
    let name = std::env::var("STEP").unwrap();
    let mut steps = STEPS.iter().chain([&HALF]);
    let step = steps.find(|(n, _)| *n == name).unwrap().1;
    let batch_bytes = std::env::var("BATCH_BYTES").unwrap().parse().unwrap();
    let again = std::env::var_os("AGAIN").is_some();
    let counters = std::env::var_os("COUNTERS").is_some();
    let die = Arc::new(DieAt {
        step,
        armed: AtomicBool::new(again),
        reached: AtomicBool::new(false),
    });
    let mut options = options(Path::new(&dir), batch_bytes);
    options.faults = Faults::new(Arc::clone(&die) as Arc<dyn Fault>);
    if again {
        let opening = std::thread::spawn(move || Engine::open(options));
        while !die.reached.load(Ordering::SeqCst) {
            if opening.is_finished() {
                // The step is not taken any more: nothing was left to fold.
                std::process::exit(3);
            }
            std::thread::yield_now();
        }
        std::process::abort();
    }
    let engine = Engine::open(options).unwrap();
    let (mut fx, mut model) = (Effects::new(), Model::default());
    records(0, counters, &mut fx, &mut model, |fx| {
        support::commit(&engine, fx)
    });
    engine.fold_now().unwrap();
    records(1, counters, &mut fx, &mut model, |fx| {
        support::commit(&engine, fx)
    });
    die.armed.store(true, Ordering::SeqCst);
    let folding = Arc::clone(&engine);
    std::thread::spawn(move || folding.fold_now());
    while !die.reached.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    records(2, counters, &mut fx, &mut model, |fx| {
        support::commit(&engine, fx)
    });
    std::process::abort();
}

#[test]
fn killed_at_every_step_of_a_fold() {
    for (counters, batch_bytes) in [(true, 0), (true, 2 << 20), (false, 0)] {
        let mut want = Model::default();
        for part in 0..3 {
            records(
                part,
                counters,
                &mut Effects::new(),
                &mut want,
                Effects::clear,
            );
        }
        let mut halves = 0;
        for (name, step) in STEPS {
            let ingested_only = matches!(step, Step::FoldIntent | Step::FoldBodies);
            if batch_bytes > 0 && ingested_only {
                continue;
            }
            let dir = support::dir();
            let dir = dir.path();
            let batch = batch_bytes.to_string();
            let mut env = vec![
                ("FOLD_CRASH_DIR", dir.to_str().unwrap()),
                ("BATCH_BYTES", batch.as_str()),
                ("STEP", name),
            ];
            if counters {
                env.insert(0, ("COUNTERS", "1"));
            }
            let status = support::run_child("fold_crash::child_dies_in_a_fold", &env);
            assert_eq!(status.code(), None, "{name}: the child must die");
            // Dies again, at each step of the recovery's own folds.
            for (again, _) in [HALF].into_iter().chain(STEPS) {
                let env = [&env[..env.len() - 1], &[("STEP", again), ("AGAIN", "1")]].concat();
                let status = support::run_child("fold_crash::child_dies_in_a_fold", &env);
                assert!(
                    matches!(status.code(), None | Some(3)),
                    "{name} then {again}: {status}"
                );
                halves += usize::from(again == HALF.0 && status.code().is_none());
            }
            let engine = Engine::open(options(dir, batch_bytes)).unwrap();
            want.check(
                &engine,
                &format!("killed at {name}, batch_bytes {batch_bytes}"),
            );
            assert_eq!(engine.stats().unfolded_bytes, 0);
            engine.close().unwrap();
        }
        let all = if counters { 0 } else { STEPS.len() };
        assert_eq!(halves, all, "deaths between the halves");
    }
}
