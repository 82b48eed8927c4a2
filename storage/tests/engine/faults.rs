//! The disk fails or is full: the outcome is unknown, everybody is told, and what had been acknowledged is there.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use storage::fault::{Fault, Faults, Step};
use storage::{Durability, Effects, Engine, Error, Keyspace, Need, Options, Outcome, ShardId};

use crate::support;

/// Fails the `after`th of the steps that `which` selects, and all later ones.
#[derive(Debug)]
struct FailAt {
    which: fn(Step) -> bool,
    after: AtomicUsize,
    kind: io::ErrorKind,
}

impl Fault for FailAt {
    fn at(&self, step: Step) -> io::Result<()> {
        let fails = (self.which)(step)
            && self
                .after
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                    left.checked_sub(1)
                })
                .is_err();
        if fails { Err(self.kind.into()) } else { Ok(()) }
    }
}

fn failing(dir: &Path, which: fn(Step) -> bool, after: usize, kind: io::ErrorKind) -> Options {
    let mut options = support::small(dir);
    options.batch_bytes = 0;
    options.sync_interval = None;
    options.faults = Faults::new(Arc::new(FailAt {
        which,
        after: AtomicUsize::new(after),
        kind,
    }));
    options
}

/// Writes until something is not durable; returns how many were.
fn write_until_unknown(engine: &Engine, durability: Durability) -> u64 {
    for n in 0..10_000u64 {
        let mut fx = Effects::new();
        fx.put(
            ShardId(0),
            &[&[0, 1], &n.to_be_bytes()[..]].concat(),
            &[7; 300],
        );
        let lsn = engine.append(n, &fx);
        if engine.wait(Need::of(lsn, durability)) == Outcome::Unknown {
            return n;
        }
    }
    panic!("the fault never came");
}

fn check_failed(engine: &Engine) {
    assert!(engine.failed());
    assert!(matches!(engine.fold_now(), Err(Error::Failed)));
    assert!(engine.close().is_err());
}

fn check_rows(dir: &Path, acknowledged: u64) {
    let engine = Engine::open(support::small(dir)).unwrap();
    for n in 0..acknowledged {
        let key = [&[0, 1], &n.to_be_bytes()[..]].concat();
        assert!(
            engine.get(Keyspace::Rows, &key).unwrap().is_some(),
            "{n} of {acknowledged} is lost"
        );
    }
    engine.close().unwrap();
}

#[test]
fn a_failed_write_sync_or_file_stops_the_engine_and_loses_nothing_acknowledged() {
    let is_write: fn(Step) -> bool = |step| matches!(step, Step::LogWrite(_));
    let is_sync: fn(Step) -> bool = |step| step == Step::LogSync;
    let is_file: fn(Step) -> bool = |step| step == Step::SegmentCreate;
    for (which, durability) in [
        (is_write, Durability::Os),
        (is_sync, Durability::Sync),
        (is_file, Durability::Os),
    ] {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
            let dir = support::dir();
            let engine = Engine::open(failing(dir.path(), which, 5, kind)).unwrap();
            let acknowledged = write_until_unknown(&engine, durability);
            check_failed(&engine);
            drop(engine);
            check_rows(dir.path(), acknowledged);
        }
    }
}

#[test]
fn a_fold_that_fails_at_any_step_stops_the_engine() {
    let steps: [fn(Step) -> bool; 5] = [
        |step| step == Step::FoldSynced,
        |step| step == Step::Mark,
        |step| step == Step::FoldIntent,
        |step| step == Step::FoldBodies,
        |step| step == Step::FoldRows,
    ];
    for which in steps {
        let dir = support::dir();
        // The marks of the opening are not to fail.
        let opening = if which(Step::Mark) { 3 } else { 0 };
        let engine = Engine::open(failing(
            dir.path(),
            which,
            opening,
            io::ErrorKind::StorageFull,
        ))
        .unwrap();
        let mut fx = Effects::new();
        for n in 0..50u64 {
            fx.put(
                ShardId(0),
                &[&[0, 1], &n.to_be_bytes()[..]].concat(),
                &[7; 300],
            );
            fx.put_body(
                ShardId(0),
                &[&[0, 1], &n.to_be_bytes()[..]].concat(),
                b"",
                &vec![1; 2000].into(),
            );
            support::commit(&engine, &mut fx);
        }
        assert!(matches!(engine.fold_now(), Err(Error::Failed)));
        check_failed(&engine);
        drop(engine);
        check_rows(dir.path(), 50);
    }
}
