//! Damage to the log's files: a torn tail is cut, anything else stops the engine until it is repaired.

use std::fs;
use std::path::{Path, PathBuf};

use storage::{Effects, Engine, Error, Options, ShardId};

use crate::support::{self, Model};

/// Never folds or syncs by itself.
fn options(dir: &Path) -> Options {
    let mut options = Options::new(dir);
    options.sync_interval = None;
    options.cache_bytes = 1 << 20;
    options
}

fn log_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir.join("log"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// `records` records, each in a group of its own; the model after each. `sync_at`: the log is synced after that many.
fn write(dir: &Path, records: u8, sync_at: Option<u8>, segment_bytes: u64) -> Vec<Model> {
    let mut options = options(dir);
    options.segment_bytes = segment_bytes;
    let engine = Engine::open(options).unwrap();
    let (mut fx, mut model, mut models) =
        (Effects::new(), Model::default(), vec![Model::default()]);
    for n in 0..records {
        fx.put(ShardId(n % 9), &[0, n], &[n; 40]);
        model.rows.insert(vec![0, n], vec![n; 40]);
        support::commit(&engine, &mut fx);
        models.push(model.clone());
        if sync_at == Some(n + 1) {
            let end = engine.written();
            assert_eq!(
                engine.wait(storage::Need {
                    written: end,
                    synced: end
                }),
                storage::Outcome::Durable
            );
        }
    }
    models
}

#[test]
fn a_tail_torn_at_any_byte_loses_the_last_record_only() {
    let dir = support::dir();
    let whole = dir.path().join("whole");
    let models = write(&whole, 4, Some(2), 1 << 20);
    let file = log_files(&whole)[0].clone();
    let bytes = fs::read(&file).unwrap();
    let name = file.file_name().unwrap();
    // The groups are alike, so that the last one's length is known.
    let group = (bytes.len() - 64) / 4;
    let step = if support::slow() { 1 } else { 7 };
    let lengths = (bytes.len() - group..bytes.len())
        .filter(|length| length % step == 0 || bytes.len() - length < 3);
    for length in lengths {
        let torn = dir.path().join("torn");
        copy_dir(&whole, &torn);
        let mut left = bytes[..length].to_vec();
        if length % 2 == 0 {
            // The length got to the disk, the bytes did not.
            left.resize(bytes.len(), 0);
        }
        fs::write(torn.join("log").join(name), &left).unwrap();
        let engine = Engine::open(options(&torn)).unwrap();
        models[3].check(&engine, &format!("torn at {length}"));
        let mut fx = Effects::new();
        fx.put(ShardId(0), b"\0new", b"goes on");
        support::commit(&engine, &mut fx);
        drop(engine);
        let engine = Engine::open(options(&torn)).unwrap();
        let mut model = models[3].clone();
        model.rows.insert(b"\0new".to_vec(), b"goes on".to_vec());
        model.check(&engine, &format!("torn at {length}, written again"));
        drop(engine);
        fs::remove_dir_all(&torn).unwrap();
    }
}

#[test]
fn a_flipped_byte_in_synced_log_stops_the_engine_until_repaired() {
    let dir = support::dir();
    let whole = dir.path().join("whole");
    // The fourth group is written after a sync of three: it says so.
    let models = write(&whole, 6, Some(3), 1 << 20);
    let file = log_files(&whole)[0].clone();
    let bytes = fs::read(&file).unwrap();
    let group = (bytes.len() - 64) / 6;
    let step = if support::slow() { 1 } else { 11 };
    for at in (64..bytes.len()).step_by(step) {
        let flipped = dir.path().join("flipped");
        copy_dir(&whole, &flipped);
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x40;
        fs::write(
            flipped.join("log").join(file.file_name().unwrap()),
            &damaged,
        )
        .unwrap();
        let intact = (at - 64) / group;
        match Engine::open(options(&flipped)) {
            // Nothing behind the damage says that it had been synced: a torn tail.
            Ok(engine) => {
                assert!(intact >= 3, "byte {at} of synced log was dropped silently");
                models[intact].check(&engine, &format!("flipped at {at}"));
            }
            Err(Error::Damaged { offset, .. }) => {
                assert!(intact < 3, "byte {at} was never synced");
                let report = storage::repair(&flipped).unwrap();
                let damage = report.damage.unwrap();
                assert_eq!((damage.position, damage.was_synced), (offset, true));
                assert_eq!(damage.lost_groups as usize, 6 - 1 - intact);
                let engine = Engine::open(options(&flipped)).unwrap();
                models[intact].check(&engine, &format!("repaired at {at}"));
            }
            Err(other) => panic!("flipped at {at}: {other}"),
        }
        fs::remove_dir_all(&flipped).unwrap();
    }
}

#[test]
fn a_missing_file_stops_the_engine_until_repaired() {
    let dir = support::dir();
    let models = write(dir.path(), 30, Some(25), 500);
    let files = log_files(dir.path());
    assert!(files.len() > 6, "{} files", files.len());
    fs::remove_file(&files[3]).unwrap();
    let error = Engine::open(options(dir.path())).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("repair"), "{error}");
    let report = storage::repair(dir.path()).unwrap();
    assert!(report.damage.unwrap().was_synced);
    let engine = Engine::open(options(dir.path())).unwrap();
    let left = Model::read(&engine);
    assert!(models.contains(&left), "a prefix of what was written");
    assert!(!left.rows.is_empty());
}

#[test]
fn a_log_that_ends_before_the_tables_stops_the_engine_until_repaired() {
    let dir = support::dir();
    let models = write(dir.path(), 5, None, 1 << 20);
    let engine = Engine::open(options(dir.path())).unwrap();
    engine.close().unwrap();
    drop(engine);
    for file in log_files(dir.path()) {
        fs::remove_file(file).unwrap();
    }
    let error = Engine::open(options(dir.path())).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    storage::repair(dir.path()).unwrap();
    let engine = Engine::open(options(dir.path())).unwrap();
    models[5].check(&engine, "the tables have it all");
    let mut fx = Effects::new();
    fx.put(ShardId(0), b"\0new", b"goes on");
    support::commit(&engine, &mut fx);
    drop(engine);
    let engine = Engine::open(options(dir.path())).unwrap();
    let new = engine.get(storage::Keyspace::Rows, b"\0new").unwrap();
    assert_eq!(new.unwrap(), "goes on");
}

#[test]
fn repair_of_a_healthy_directory_changes_nothing() {
    let dir = support::dir();
    let models = write(dir.path(), 5, Some(5), 200);
    assert_eq!(storage::repair(dir.path()).unwrap().damage, None);
    let engine = Engine::open(options(dir.path())).unwrap();
    models[5].check(&engine, "repaired");
}

#[test]
fn positions_and_seqs_of_a_lost_tail_are_never_given_again() {
    let dir = support::dir();
    let mut highest = (storage::Lsn(0), 0);
    for _ in 0..3 {
        let engine = Engine::open(options(dir.path())).unwrap();
        let mut fx = Effects::new();
        fx.put(ShardId(4), b"\0k", b"v");
        for _ in 0..3 {
            let lsn = engine.append(0, &fx);
            assert_eq!(
                engine.wait(storage::Need::of(lsn, storage::Durability::Os)),
                storage::Outcome::Durable
            );
        }
        let now = (engine.appended(), engine.shard_seq(ShardId(4)));
        drop(engine);
        // All of it is lost.
        for file in log_files(dir.path()) {
            fs::remove_file(file).unwrap();
        }
        assert!(
            now.0 > highest.0 && now.1 > highest.1 + 2,
            "{now:?} after {highest:?}"
        );
        highest = now;
    }
}

#[test]
fn a_directory_of_a_newer_format_is_refused() {
    let dir = support::dir();
    drop(write(dir.path(), 1, None, 1 << 20));
    let path = log_files(dir.path())[0].clone();
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 9;
    let crc = crc32c::crc32c(&bytes[..60]).to_le_bytes();
    bytes[60..64].copy_from_slice(&crc);
    fs::write(&path, bytes).unwrap();
    let error = Engine::open(options(dir.path())).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Format {
                found: 9,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_second_open_says_who_has_it() {
    let dir = support::dir();
    let engine = Engine::open(options(dir.path())).unwrap();
    let error = Engine::open(options(dir.path())).unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    assert!(matches!(
        storage::repair(dir.path()),
        Err(Error::InUse { .. })
    ));
    drop(engine);
    Engine::open(options(dir.path())).unwrap();
}
