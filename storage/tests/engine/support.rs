//! What the tests share: seeds, child processes, a model of the rows.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::{Command, ExitStatus};

use bytes::Bytes;
use storage::{Durability, Effects, Engine, Keyspace, Need, Options, Outcome, ShardId};

pub(crate) use crate::rng::Rng;

/// `SEED=` repeats a run; otherwise `fixed` (CI must not depend on luck) or, with `RUN_SLOW_TESTS`, a new one.
pub(crate) fn seed(fixed: u64) -> u64 {
    let seed = match std::env::var("SEED") {
        Ok(seed) => seed.parse().expect("SEED is a number"),
        Err(_) if slow() => std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_nanos() as u64,
        Err(_) => fixed,
    };
    eprintln!("SEED={seed}");
    seed
}

/// How often a slow test repeats itself: the variable `name`, or `default`.
pub(crate) fn count(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |count| count.parse().expect("a number"))
}

pub(crate) fn slow() -> bool {
    std::env::var_os("RUN_SLOW_TESTS").is_some()
}

/// A directory for one test, in memory where there is such a place: a killed process loses the same there, and hundreds of
/// opens and closes do not wait for a disk. (Power cuts have a file system of their own.)
pub(crate) fn dir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// What the tables must show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) rows: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) bodies: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Effects, and the same changes on a model.
pub(crate) struct Change<'a> {
    pub(crate) fx: &'a mut Effects,
    pub(crate) model: &'a mut Model,
}

impl Change<'_> {
    pub(crate) fn put(&mut self, shard: u8, key: &[u8], value: &[u8]) {
        self.fx.put(ShardId(shard), key, value);
        self.model.rows.insert(key.to_vec(), value.to_vec());
    }

    pub(crate) fn del(&mut self, shard: u8, key: &[u8]) {
        self.fx.del(ShardId(shard), key);
        self.model.rows.remove(key);
    }

    pub(crate) fn add(&mut self, shard: u8, key: &[u8], delta: i64) {
        self.fx.add(ShardId(shard), key, delta);
        let old = self
            .model
            .rows
            .get(key)
            .and_then(|v| v.as_slice().try_into().ok())
            .map_or(0, i64::from_le_bytes);
        self.model
            .rows
            .insert(key.to_vec(), old.wrapping_add(delta).to_le_bytes().to_vec());
    }

    pub(crate) fn put_body(&mut self, shard: u8, key: &[u8], head: &[u8], body: &Bytes) {
        self.fx.put_body(ShardId(shard), key, head, body);
        self.model
            .bodies
            .insert(key.to_vec(), [head, body].concat());
    }

    pub(crate) fn del_body(&mut self, shard: u8, key: &[u8]) {
        self.fx.del_body(ShardId(shard), key);
        self.model.bodies.remove(key);
    }
}

/// The writers of the tests that kill a process or cut the power. Each owns one shard and numbers its records.
pub(crate) const WRITERS: u8 = 2;

fn number_key(writer: u8) -> Vec<u8> {
    vec![writer * 32, b'n']
}

/// Record `n` of a writer: always the same. A message is published, and acknowledged 20 records later.
fn record(writer: u8, n: u64, change: &mut Change<'_>) {
    let mut rng = Rng::new(u64::from(writer) << 56 | n);
    let key = |kind: u8, n: u64| [&[writer * 32, kind][..], &n.to_be_bytes()].concat();
    change.put(writer, &number_key(writer), &n.to_be_bytes());
    let body = Bytes::from(vec![n as u8; 200 + rng.below(6000) as usize]);
    change.put(writer, &key(b'm', n), b"message");
    change.put_body(writer, &key(b'm', n), b"head", &body);
    if n > 20 {
        change.del(writer, &key(b'm', n - 20));
        change.del_body(writer, &key(b'm', n - 20));
    }
    let len = rng.below(200);
    change.put(writer, &key(b'h', rng.below(40)), &rng.bytes(len));
    change.add(writer, &key(b'c', 0), rng.below(9) as i64 - 4);
}

/// Appends record `n` of a writer, and waits until it is as durable as that.
pub(crate) fn write_record(
    engine: &Engine,
    writer: u8,
    n: u64,
    fx: &mut Effects,
    durability: Durability,
) {
    let mut model = Model::default();
    record(
        writer,
        n,
        &mut Change {
            fx,
            model: &mut model,
        },
    );
    let lsn = engine.append(n, fx);
    fx.clear();
    assert_eq!(engine.wait(Need::of(lsn, durability)), Outcome::Durable);
}

/// How many records of a writer the tables hold.
pub(crate) fn number_of(engine: &Engine, writer: u8) -> u64 {
    let row = engine.get(Keyspace::Rows, &number_key(writer)).unwrap();
    row.map_or(0, |row| {
        u64::from_be_bytes(row.as_ref().try_into().unwrap())
    })
}

impl Model {
    /// These records of a writer, too.
    pub(crate) fn replay(&mut self, writer: u8, records: RangeInclusive<u64>) {
        let mut fx = Effects::new();
        for n in records {
            record(
                writer,
                n,
                &mut Change {
                    fx: &mut fx,
                    model: self,
                },
            );
            fx.clear();
        }
    }

    /// The tables of `engine` as they are.
    pub(crate) fn read(engine: &Engine) -> Self {
        let mut model = Self::default();
        for (keyspace, map) in [
            (Keyspace::Rows, &mut model.rows),
            (Keyspace::Bodies, &mut model.bodies),
        ] {
            let mut visit =
                |key: &[u8], value: &[u8]| map.insert(key.to_vec(), value.to_vec()).is_none();
            engine
                .scan(keyspace, &[], None, usize::MAX, &mut visit)
                .unwrap();
        }
        model
    }

    /// Panics with a short difference if `engine`'s tables are not this.
    pub(crate) fn check(&self, engine: &Engine, context: &str) {
        let found = Self::read(engine);
        for (name, want, have) in [
            ("rows", &self.rows, &found.rows),
            ("bodies", &self.bodies, &found.bodies),
        ] {
            for (key, value) in want {
                let got = have.get(key);
                assert!(
                    got == Some(value),
                    "{context}: {name} {key:x?}: want {} bytes, have {:?}",
                    value.len(),
                    got.map(Vec::len)
                );
            }
            for key in have.keys() {
                assert!(
                    want.contains_key(key),
                    "{context}: {name} {key:x?} should not be there"
                );
            }
        }
    }
}

/// Small files and windows, so that little data passes through everything.
pub(crate) fn small(dir: &Path) -> Options {
    let mut options = Options::new(dir);
    options.segment_bytes = 64 << 10;
    options.fold_bytes = 128 << 10;
    options.batch_bytes = 8 << 10;
    options.cache_bytes = 4 << 20;
    options
}

/// Appends, flushes, and waits until a killed process would not lose it.
pub(crate) fn commit(engine: &Engine, fx: &mut Effects) {
    let lsn = engine.append(0, fx);
    fx.clear();
    assert_eq!(engine.wait(Need::of(lsn, Durability::Os)), Outcome::Durable);
}

/// Runs the test `name` of this binary in a process of its own, with `env`.
pub(crate) fn child(name: &str, env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .envs(env.iter().copied());
    command.stdout(std::process::Stdio::null());
    command
}

pub(crate) fn run_child(name: &str, env: &[(&str, &str)]) -> ExitStatus {
    child(name, env)
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap()
}
