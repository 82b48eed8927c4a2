//! Frequent syncs write zeros ahead of the log's end: neither a stop of any kind nor a reader takes them for log.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use storage::{Durability, Effects, Engine, Need, Options, Outcome, ShardId};

use crate::support::{self, Model};

const SEGMENT: u64 = 64 << 10;

fn options(dir: &Path) -> Options {
    let mut options = Options::new(dir);
    options.sync_interval = None;
    options.cache_bytes = 1 << 20;
    options.segment_bytes = SEGMENT;
    options
}

/// Synced one by one: `from..to`, each a row of 1,000 bytes.
fn put(engine: &Engine, model: &mut Model, from: u32, to: u32) {
    let mut fx = Effects::new();
    for n in from..to {
        let key = n.to_be_bytes();
        fx.put(ShardId(0), &key, &[n as u8; 1_000]);
        model.rows.insert(key.to_vec(), vec![n as u8; 1_000]);
        let need = Need::of(engine.append(0, &fx), Durability::Sync);
        fx.clear();
        assert_eq!(engine.wait(need), Outcome::Durable);
    }
}

/// With their lengths, oldest first.
fn log_files(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut files: Vec<_> = fs::read_dir(dir.join("log"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.path(), entry.metadata().unwrap().len()))
        .collect();
    files.sort();
    files
}

#[test]
fn zeros_ahead_are_neither_log_nor_damage() {
    let dir = support::dir();
    let mut model = Model::default();
    let engine = Engine::open(options(dir.path())).unwrap();
    put(&engine, &mut model, 0, 220);
    let end = engine.written().0;
    drop(engine);
    let files = log_files(dir.path());
    let held: u64 = files.iter().map(|(_, length)| length - 64).sum();
    assert!(files.len() > 2, "{files:?}");
    assert!(held > end + 4_096, "nothing was written ahead: {files:?}");
    let full = files.iter().take(files.len() - 1);
    for (path, length) in full {
        assert!(*length < SEGMENT + 4_096, "{path:?} was not cut: {length}");
        // As if the power had failed before the new length was on the disk.
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(length + 50_000).unwrap();
    }
    for round in 1..4 {
        let engine = Engine::open(options(dir.path())).unwrap();
        model.check(&engine, &format!("opened {round} times"));
        put(&engine, &mut model, round * 1_000, round * 1_000 + 50);
        engine.fold_now().unwrap();
        model.check(&engine, &format!("written {round} times"));
    }
    let engine = Engine::open(options(dir.path())).unwrap();
    let backup = dir.path().with_extension("backup");
    engine.backup(&backup).unwrap();
    engine.close().unwrap();
    drop(engine);
    assert!(storage::repair(dir.path()).unwrap().damage.is_none());
    let engine = Engine::open(options(dir.path())).unwrap();
    model.check(&engine, "after a clean stop");
    drop(engine);
    storage::verify(&backup).unwrap();
    fs::remove_dir_all(backup).unwrap();
}
