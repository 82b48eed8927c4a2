//! Backups taken while writers go on, restored, and compared.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use storage::{Effects, Engine, Error, Keyspace, Pressure, ShardId};

use crate::model;
use crate::support::{self, Change, Model, Rng};

#[test]
fn a_backup_holds_one_moment_while_writers_go_on() {
    let dir = support::dir();
    let engine = Engine::open(support::small(&dir.path().join("data"))).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Record n puts n into two rows of two shards and one body: they are equal at every moment.
        scope.spawn(|| {
            let mut fx = Effects::new();
            let mut n = 0u64;
            while !stop.load(Ordering::Relaxed) {
                if engine.pressure() > Pressure::None {
                    std::thread::yield_now();
                    continue;
                }
                n += 1;
                let bytes = n.to_be_bytes();
                fx.put(ShardId(0), b"\0a", &bytes);
                fx.put(ShardId(5), b"\x28a", &bytes);
                fx.put_body(ShardId(5), b"\x28a", &bytes, &vec![n as u8; 5000].into());
                fx.put(ShardId(1), &[&b"\x10n"[..], &bytes].concat(), b"x");
                support::commit(&engine, &mut fx);
            }
        });
        let stopping = Stopping(&stop);
        while engine.written().0 == 0 {
            std::thread::yield_now();
        }
        for round in 0..3 {
            let target = dir.path().join(format!("backup{round}"));
            let before = engine.written();
            engine.backup(&target).unwrap();
            let restored = dir.path().join(format!("restored{round}"));
            let verified = storage::restore(&target, support::small(&restored)).unwrap();
            assert!(verified.position >= before.0 && verified.rows > 0);
            let copy = Engine::open(support::small(&restored)).unwrap();
            let get = |keyspace, key: &[u8]| copy.get(keyspace, key).unwrap().unwrap_or_default();
            let n = get(Keyspace::Rows, b"\0a");
            assert_eq!(n, get(Keyspace::Rows, b"\x28a"));
            assert_eq!(n, get(Keyspace::Bodies, b"\x28a").slice(..n.len()));
            let mut count = 0u64;
            copy.scan(
                Keyspace::Rows,
                b"\x10n",
                Some(b"\x10o"),
                usize::MAX,
                &mut |_, _| {
                    count += 1;
                    true
                },
            )
            .unwrap();
            assert_eq!(count.to_be_bytes()[..], n[..]);
        }
        drop(stopping);
    });
    engine.close().unwrap();
}

/// Stops the writer when the test fails, too.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_restored_backup_equals_the_model_and_can_be_backed_up_again() {
    let mut rng = Rng::new(support::seed(7));
    let dir = support::dir();
    let engine = Engine::open(support::small(&dir.path().join("data"))).unwrap();
    let (mut fx, mut model) = (Effects::new(), Model::default());
    for _ in 0..400 {
        model::record(
            &mut rng,
            &mut Change {
                fx: &mut fx,
                model: &mut model,
            },
        );
        engine.append(1, &fx);
        fx.clear();
    }
    engine.backup(&dir.path().join("backup")).unwrap();
    let again = Engine::open({
        storage::restore(
            &dir.path().join("backup"),
            support::small(&dir.path().join("restored")),
        )
        .unwrap();
        support::small(&dir.path().join("restored"))
    })
    .unwrap();
    model.check(&again, "restored");
    again.backup(&dir.path().join("backup2")).unwrap();
    assert_eq!(
        storage::verify(&dir.path().join("backup2")).unwrap().rows,
        0
    );
    engine.close().unwrap();
}

#[test]
fn bad_targets_and_damaged_backups_are_refused() {
    let dir = support::dir();
    let data = dir.path().join("data");
    let engine = Engine::open(support::small(&data)).unwrap();
    let mut fx = Effects::new();
    fx.put(ShardId(0), b"\0k", b"v");
    support::commit(&engine, &mut fx);
    assert!(matches!(engine.backup(&data), Err(Error::Target { .. })));
    assert!(matches!(
        engine.backup(&data.join("inside")),
        Err(Error::Target { .. })
    ));
    assert!(matches!(storage::verify(&data), Err(Error::Target { .. })));
    let backup = dir.path().join("backup");
    engine.backup(&backup).unwrap();
    assert!(matches!(engine.backup(&backup), Err(Error::Target { .. })));
    assert!(matches!(
        storage::restore(&backup, support::small(&data)),
        Err(Error::Target { .. })
    ));

    let log: PathBuf = fs::read_dir(backup.join("log"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mut bytes = fs::read(&log).unwrap();
    bytes[70] ^= 1;
    fs::write(&log, &bytes).unwrap();
    assert!(matches!(
        storage::verify(&backup),
        Err(Error::Damaged { .. })
    ));
    fs::remove_file(&log).unwrap();
    let restored = storage::restore(&backup, support::small(&dir.path().join("restored")));
    assert!(matches!(restored, Err(Error::Damaged { .. })));
}
