//! What a start costs after a crash, and what the checked-in data directory of each format version holds.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use storage::{Durability, Effects, Engine, Need, Options, Outcome, ShardId};

use crate::support::{self, Change, Model};

/// Child: opens `RECOVERY_DIR` and reports how long that took and its peak memory.
#[test]
fn child_recovers() {
    let Ok(dir) = std::env::var("RECOVERY_DIR") else {
        return;
    };
    let began = Instant::now();
    let engine = Engine::open(Options::new(&dir)).unwrap();
    let took = began.elapsed();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    eprintln!(
        "took_ms={} {peak} unfolded={}",
        took.as_millis(),
        engine.stats().unfolded_bytes
    );
    std::process::exit(0);
}

/// Slow: 1 GiB of unfolded log.
#[test]
fn a_gigabyte_of_unfolded_log_is_recovered_in_seconds() {
    if !support::slow() {
        return;
    }
    let dir = tempfile::tempdir_in(".").unwrap();
    let mut options = Options::new(dir.path());
    options.fold_bytes = 1 << 40;
    let engine = Engine::open(options).unwrap();
    let mut fx = Effects::new();
    let mut n = 0u64;
    while engine.appended().0 < 1 << 30 {
        for _ in 0..16 {
            n += 1;
            let key = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % 2_000_000;
            fx.put_parts(
                ShardId(0),
                &[&[0, 1], &key.to_be_bytes(), b"key..."],
                &[&[n as u8; 128]],
            );
        }
        engine.append(n, &fx);
        fx.clear();
        engine.flush();
    }
    let end = engine.appended();
    assert_eq!(
        engine.wait(Need::of(end, Durability::Sync)),
        Outcome::Durable
    );
    drop(engine);
    let env = [("RECOVERY_DIR", dir.path().to_str().unwrap())];
    let output = support::child("recovery::child_recovers", &env)
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stderr);
    eprintln!("{report}");
    let number = |name: &str| -> u64 {
        let rest = report
            .split(name)
            .nth(1)
            .unwrap_or_else(|| panic!("{report}"));
        rest.trim_start()
            .split(|c: char| !c.is_ascii_digit())
            .next()
            .unwrap()
            .parse()
            .unwrap()
    };
    assert!(number("took_ms=") < 5_000, "{report}");
    assert!(number("VmHWM:") < 500 << 10, "{report}");
    assert_eq!(number("unfolded="), 0);
}

#[test]
fn a_clean_stop_leaves_nothing_to_recover() {
    let dir = support::dir();
    let engine = Engine::open(Options::new(dir.path())).unwrap();
    let mut fx = Effects::new();
    fx.put(ShardId(0), b"\0k", b"v");
    support::commit(&engine, &mut fx);
    let (position, seq) = (engine.appended(), engine.shard_seq(ShardId(0)));
    engine.close().unwrap();
    drop(engine);
    let engine = Engine::open(Options::new(dir.path())).unwrap();
    assert_eq!(
        (engine.appended(), engine.shard_seq(ShardId(0))),
        (position, seq),
        "dense over a clean stop"
    );
    assert_eq!(engine.folded_seq(ShardId(0)), seq);
    assert!(engine.stats().recovery_us < Duration::from_secs(20).as_micros() as u64);
}

/// What the checked-in directory holds: a folded part, and a part that only the log has.
fn fixture(part: usize, fx: &mut Effects, model: &mut Model) {
    let mut change = Change { fx, model };
    for n in 0..20u8 {
        let shard = n % 9;
        let key = [shard * 8, n, part as u8];
        change.put(shard, &key, &[n; 40]);
        change.add(shard, &[shard * 8, b'#'], i64::from(n) + 1);
        change.put_body(
            shard,
            &key,
            b"head",
            &Bytes::from(vec![n; 600 * usize::from(n % 5)]),
        );
    }
    if part == 1 {
        change.del(0, &[0, 0, 0]);
        change.del_body(0, &[0, 0, 0]);
    }
}

fn fixture_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/format-1")
}

/// `WRITE_FIXTURE=1` makes the directory anew: only for a new format version.
#[test]
fn the_checked_in_data_directory_opens() {
    let dir = support::dir();
    let data = dir.path().join("data");
    if std::env::var_os("WRITE_FIXTURE").is_some() {
        let engine = Engine::open(Options::new(&data)).unwrap();
        let (mut fx, mut model) = (Effects::new(), Model::default());
        for part in 0..2 {
            fixture(part, &mut fx, &mut model);
            support::commit(&engine, &mut fx);
            if part == 0 {
                engine.fold_now().unwrap();
            }
        }
        drop(engine);
        copy(&data, &fixture_dir());
        std::fs::remove_dir_all(&data).unwrap();
    }
    copy(&fixture_dir(), &data);
    let engine = Engine::open(Options::new(&data)).unwrap();
    let (mut fx, mut model) = (Effects::new(), Model::default());
    for part in 0..2 {
        fixture(part, &mut fx, &mut model);
        fx.clear();
    }
    model.check(&engine, "format 1");
    assert!(
        storage::repair(&data)
            .unwrap_err()
            .to_string()
            .contains("in use")
    );
    engine.close().unwrap();
}

/// Copies a directory; of fjall's journal, which it makes 64 MiB long, without the zeros at the end.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else if entry.file_name() != ".keep" {
            let mut bytes = std::fs::read(entry.path()).unwrap();
            if to.extension().is_some_and(|extension| extension == "jnl") {
                bytes.truncate(
                    bytes
                        .iter()
                        .rposition(|byte| *byte != 0)
                        .map_or(0, |last| last + 1),
                );
            }
            std::fs::write(to, bytes).unwrap();
        }
    }
}
