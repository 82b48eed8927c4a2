//! What a write costs: every write straight into fjall, beside the commit log with its fold.
//!
//! `cargo run --release -p flowmesh-storage --example bench-engine [-- <scale> [<section>…]]`: prints markdown tables, of
//! all sections or of those named: small, large, fsync, append, recovery. CPU is that of the whole process, background
//! work included; wall-clock figures are as good as the machine is quiet. `BENCH_DIR` is where it writes.
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

mod recovery;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fjall::{CompressionType, Database, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};
use storage::{Durability, Effects, Engine, Need, Options, Outcome, Pressure, ShardId};

const BATCH: u64 = 16;
const VALUE: usize = 128;
const LARGE: usize = 16 << 10;

fn main() {
    let scale: f64 = std::env::args()
        .nth(1)
        .map_or(1.0, |scale| scale.parse().expect("scale is a number"));
    let only: Vec<String> = std::env::args().skip(2).collect();
    let dir = tempfile::tempdir_in(std::env::var_os("BENCH_DIR").unwrap_or_else(|| ".".into()))
        .expect("a directory");
    type Section = fn(&Path, f64);
    let sections: [(&str, Section); 5] = [
        ("small", small_writes),
        ("large", large_writes),
        ("fsync", beside_fsync),
        ("append", appends),
        ("recovery", recovery::run),
    ];
    for (name, run) in sections {
        if only.is_empty() || only.iter().any(|section| section == name) {
            run(dir.path(), scale);
        }
    }
}

/// A row key of 16 bytes, scattered like hashed keys are.
fn key(n: u64) -> [u8; 16] {
    let mixed = (n ^ 0x5bd1_e995).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut key = [0; 16];
    key[0..2].copy_from_slice(&((mixed >> 50) as u16).to_be_bytes());
    key[2] = 1;
    key[3..11].copy_from_slice(&mixed.to_be_bytes());
    key
}

/// Which key write `n` has: every key once for distinct ones, else at random.
fn pick(n: u64, keys: u64, writes: u64) -> u64 {
    if keys >= writes {
        n
    } else {
        n.wrapping_mul(0xD129_0D35_1B47_7C9D).rotate_left(23) % keys
    }
}

fn small_writes(dir: &Path, scale: f64) {
    println!("\n## {BATCH}-op batches, 16 B keys, {VALUE} B values: CPU µs per op\n");
    println!(
        "| path | keys | before the reply | in all | wall µs/op | bytes written per op | max RSS MB |\n|---|---|---|---|---|---|---|"
    );
    for (keys, writes) in [(1_000, 8e6), (100_000, 8e6), (2_000_000, 2e6)] {
        let writes = (writes * scale) as u64 / BATCH * BATCH;
        let value = [7u8; VALUE];
        let report = |path: &str, before_reply: f64, meter: &Meter| {
            let (cpu, wall, written) = meter.read();
            let per = 1e6 / writes as f64;
            println!(
                "| {path} | {keys} | {:.2} | {:.2} | {:.2} | {:.0} | {} |",
                before_reply * per,
                cpu * per,
                wall * per,
                written as f64 / writes as f64,
                rss_mb()
            );
        };

        let target = dir.join("direct");
        let meter = Meter::start();
        let (db, rows) = direct(&target);
        for batch in 0..writes / BATCH {
            let mut changes = db.batch().durability(Some(PersistMode::Buffer));
            for n in batch * BATCH..(batch + 1) * BATCH {
                changes.insert(&rows, key(pick(n, keys, writes)), value);
            }
            changes.commit().expect("commit");
        }
        let before_reply = meter.read().0;
        settle(&db, &rows);
        report("straight into fjall", before_reply, &meter);
        drop((db, rows));
        remove(&target);

        let target = dir.join("engine");
        let meter = Meter::start();
        let engine = Engine::open(Options::new(&target)).expect("open");
        let mut fx = Effects::new();
        for batch in 0..writes / BATCH {
            for n in batch * BATCH..(batch + 1) * BATCH {
                fx.put(ShardId(0), &key(pick(n, keys, writes)), &value);
            }
            engine.append(batch, &fx);
            fx.clear();
            engine.flush();
            brake(&engine);
        }
        let before_reply = thread_cpu();
        engine.fold_now().expect("fold");
        engine.close().expect("close");
        drop(engine);
        report("log + fold", before_reply - meter.thread, &meter);
        remove(&target);
    }
}

fn large_writes(dir: &Path, scale: f64) {
    println!("\n## {} KiB record batches\n", LARGE >> 10);
    println!(
        "| path | CPU s/GB | bytes written per byte | MB/s | max RSS MB |\n|---|---|---|---|---|"
    );
    let writes = (65_536.0 * scale) as u64;
    let total = writes * LARGE as u64;
    let body = Bytes::from(
        (0..LARGE)
            .map(|n| ((n * 31) >> 3) as u8)
            .collect::<Vec<_>>(),
    );
    let report = |path: &str, meter: &Meter| {
        let (cpu, wall, written) = meter.read();
        let gb = total as f64 / 1e9;
        println!(
            "| {path} | {:.2} | {:.2} | {:.0} | {} |",
            cpu / gb,
            written as f64 / total as f64,
            total as f64 / 1e6 / wall,
            rss_mb()
        );
    };
    let record_key = |n: u64| {
        [
            &[0, 1, 2][..],
            &(n % 12).to_be_bytes(),
            &(n / 12).to_be_bytes(),
        ]
        .concat()
    };

    let target = dir.join("direct");
    let meter = Meter::start();
    let (db, rows) = direct(&target);
    for n in 0..writes {
        let mut changes = db.batch().durability(Some(PersistMode::Buffer));
        changes.insert(&rows, record_key(n), body.as_ref());
        changes.commit().expect("commit");
    }
    settle(&db, &rows);
    report("straight into fjall, KV-separated", &meter);
    drop((db, rows));
    remove(&target);

    for fold in [true, false] {
        let target = dir.join("engine");
        let mut options = Options::new(&target);
        if !fold {
            options.fold_bytes = 1 << 50;
        }
        let meter = Meter::start();
        let engine = Engine::open(options).expect("open");
        let mut fx = Effects::new();
        for n in 0..writes {
            fx.put_body(ShardId(0), &record_key(n), b"", &body);
            engine.append(n, &fx);
            fx.clear();
            engine.flush();
            if fold {
                brake(&engine);
            }
        }
        if fold {
            engine.close().expect("close");
        }
        report(if fold { "log + fold" } else { "log alone" }, &meter);
        drop(engine);
        remove(&target);
    }
}

/// One small commit after the other, while another thread does nothing but fsync.
fn beside_fsync(dir: &Path, scale: f64) {
    println!("\n## A commit while another thread loops fsync\n");
    println!("| path | commits | p50 µs | p99 µs | max ms |\n|---|---|---|---|---|");
    let time = Duration::from_secs_f64(4.0 * scale.min(1.0));
    let report = |path: &str, mut took: Vec<Duration>| {
        took.sort_unstable();
        let at = |q: f64| took[((took.len() - 1) as f64 * q) as usize];
        let us = |d: Duration| d.as_secs_f64() * 1e6;
        println!(
            "| {path} | {} | {:.0} | {:.0} | {:.1} |",
            took.len(),
            us(at(0.5)),
            us(at(0.99)),
            us(at(1.0)) / 1e3
        );
    };
    let beside = |sync: &(dyn Fn() + Sync), commit: &mut dyn FnMut(u64)| {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    sync();
                }
            });
            let (began, mut took) = (Instant::now(), Vec::new());
            while began.elapsed() < time {
                let at = Instant::now();
                commit(took.len() as u64);
                took.push(at.elapsed());
                // A client's think time: otherwise the disk's bandwidth is what is measured.
                std::thread::sleep(Duration::from_micros(100));
            }
            stop.store(true, Ordering::Relaxed);
            took
        })
    };

    let target = dir.join("direct");
    let (db, rows) = direct(&target);
    let took = beside(
        &|| db.persist(PersistMode::SyncData).expect("persist"),
        &mut |n| {
            let mut changes = db.batch().durability(Some(PersistMode::Buffer));
            changes.insert(&rows, key(n), [7u8; VALUE]);
            changes.commit().expect("commit");
        },
    );
    report("straight into fjall", took);
    drop((db, rows));
    remove(&target);

    let target = dir.join("engine");
    let engine = Engine::open(Options::new(&target)).expect("open");
    let mut fx = Effects::new();
    let sync = || {
        let end = engine.written();
        assert_eq!(
            engine.wait(Need::of(end, Durability::Sync)),
            Outcome::Durable
        );
    };
    let took = beside(&sync, &mut |n| {
        fx.put(ShardId(0), &key(n), &[7; VALUE]);
        let lsn = engine.append(n, &fx);
        fx.clear();
        assert_eq!(engine.wait(Need::of(lsn, Durability::Os)), Outcome::Durable);
    });
    report("log", took);
    engine.close().expect("close");
    drop(engine);
    remove(&target);
}

/// What is done under the lock of a shard.
fn appends(dir: &Path, scale: f64) {
    println!(
        "\n## Append of one record of one row\n\n| record bytes | encode ns | append ns | flush of 100 records µs |\n|---|---|---|---|"
    );
    for value in [16, 128, 1000] {
        let target = dir.join("engine");
        let mut options = Options::new(&target);
        options.fold_bytes = 1 << 50;
        let engine = Engine::open(options).expect("open");
        let value = vec![7u8; value];
        let rounds = (20_000.0 * scale) as u32;
        let mut fx = Effects::new();
        let began = Instant::now();
        for n in 0..rounds * 100 {
            fx.clear();
            fx.put(ShardId(0), &key(u64::from(n)), &value);
        }
        let encode = began.elapsed() / (rounds * 100);
        let (mut appending, mut flushing) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..rounds {
            let began = Instant::now();
            for n in 0..100 {
                engine.append(n, &fx);
            }
            appending += began.elapsed();
            let began = Instant::now();
            engine.flush();
            flushing += began.elapsed();
        }
        println!(
            "| {} | {} | {} | {:.1} |",
            fx.size(),
            encode.as_nanos(),
            (appending / (rounds * 100)).as_nanos(),
            (flushing / rounds).as_secs_f64() * 1e6
        );
        drop(engine);
        remove(&target);
    }
}

/// The governor's part: writers wait while four windows are unfolded.
fn brake(engine: &Arc<Engine>) {
    while engine.pressure() == Pressure::Stop {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn direct(dir: &Path) -> (Database, fjall::Keyspace) {
    let db = Database::builder(dir)
        .cache_size(32 << 20)
        .worker_threads(1)
        .journal_compression(CompressionType::None)
        .max_journaling_size(256 << 20)
        .open()
        .expect("open");
    let rows = db.keyspace("rows", || {
        let separation = KvSeparationOptions::default()
            .separation_threshold(1024)
            .compression(CompressionType::None);
        KeyspaceCreateOptions::default()
            .max_memtable_size(64 << 20)
            .with_kv_separation(Some(separation))
    });
    (db, rows.expect("keyspace"))
}

/// What the fold does at its end, too: everything in tables, compaction caught up.
fn settle(db: &Database, rows: &fjall::Keyspace) {
    rows.rotate_memtable().expect("rotate");
    while db.outstanding_flushes() > 0
        || rows.sealed_memtable_count() > 0
        || db.active_compactions() > 0
    {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn remove(dir: &Path) {
    std::fs::remove_dir_all(dir).expect("remove");
}

struct Meter {
    cpu: f64,
    thread: f64,
    wall: Instant,
    written: u64,
}

impl Meter {
    fn start() -> Self {
        // The peak is of this case only.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        Self {
            cpu: process_cpu(),
            thread: thread_cpu(),
            wall: Instant::now(),
            written: written(),
        }
    }

    /// CPU seconds of the process, wall seconds, bytes given to write calls.
    fn read(&self) -> (f64, f64, u64) {
        (
            process_cpu() - self.cpu,
            self.wall.elapsed().as_secs_f64(),
            written() - self.written,
        )
    }
}

fn process_cpu() -> f64 {
    cpu(rustix::time::ClockId::ProcessCPUTime)
}

fn thread_cpu() -> f64 {
    cpu(rustix::time::ClockId::ThreadCPUTime)
}

fn cpu(clock: rustix::time::ClockId) -> f64 {
    let time = rustix::time::clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn written() -> u64 {
    field("/proc/self/io", "wchar:")
}

fn rss_mb() -> u64 {
    field("/proc/self/status", "VmHWM:") / 1024
}

fn field(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}
