//! What the rows of a command cost: bytes of log and of table, CPU in execution and in the fold.
//!
//! `cargo run --release -p flowmesh-broker --example bench-rows [-- <scale>]`: prints a markdown table (docs/adr/0005).
//! One command is one record, as a client without MULTI makes it; 16 of them share a write, as with pipelining.
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::time::Duration;

use broker::cache::{End, Expire, Name, Reach, View};
use broker::rows::{self, Tag};
use broker::{Broker, Budgets, Effects, Millis, ShardSet, Slot};
use bytes::Bytes;
use storage::{Engine, Options};

/// Commands in a write of the log.
const PIPELINE: usize = 16;
/// Objects that the elements are spread over.
const OBJECTS: u64 = 1000;
const VALUE: [u8; 128] = [7; 128];
/// A producer's batch of one record: header, and what the record adds to its payload.
const BATCH: usize = 61 + 10 + 128;

type Command = fn(&mut View<'_>, &Name<'_>, u64);

fn main() {
    let scale: f64 = std::env::args()
        .nth(1)
        .map_or(1.0, |scale| scale.parse().expect("scale is a number"));
    println!(
        "| command | records | log B/op | table B/op | rows/op | execute + append, CPU ns/op | fold, CPU ns/op |\n|---|---|---|---|---|---|---|"
    );
    let count = (500_000.0 * scale) as u64 / PIPELINE as u64 * PIPELINE as u64;
    let cases: [(&str, &str, Command); 11] = [
        ("SET, new keys, 128 B", "own", |view, name, _| {
            view.set_string(name, &VALUE, Expire::Never).expect("SET");
        }),
        ("SET, 1,000 keys, 128 B", "few", |view, name, _| {
            view.set_string(name, &VALUE, Expire::Never).expect("SET");
        }),
        ("INCR, 1,000 keys", "few", |view, name, n| {
            let new: Result<i64, ()> = view.edit_integer(name, |_| Ok(n as i64)).expect("INCR");
            assert_eq!(new, Ok(n as i64));
        }),
        ("HSET, new fields of 16 B, 128 B", "few", |view, name, n| {
            view.edit_hash(name, true, [member(n)], |hash, rows| {
                hash.insert(&member(n), &VALUE, rows)
            })
            .expect("HSET");
        }),
        ("LPUSH, 128 B", "few", |view, name, _| {
            view.edit_list(name, true, Reach::NONE, |list, rows| {
                list.push(End::Left, &VALUE, rows);
            })
            .expect("LPUSH");
        }),
        ("LPUSH and RPOP, 128 B", "few", |view, name, _| {
            view.edit_list(name, true, Reach::at(End::Right, 1), |list, rows| {
                list.push(End::Left, &VALUE, rows);
                // Not the last one: the list stays.
                (list.len() > 1).then(|| list.pop(End::Right, rows))
            })
            .expect("LPUSH");
        }),
        ("SADD, new members of 16 B", "few", |view, name, n| {
            view.edit_set(name, true, [member(n)], |set, rows| {
                set.insert(&member(n), rows)
            })
            .expect("SADD");
        }),
        ("ZADD, new members of 16 B", "few", zadd),
        ("ZADD, the same in one sorted set", "one", zadd),
        ("ZADD, the same in a partial one", "partial", zadd),
        ("SETBIT, in strings of 1 MiB", "bits", |view, name, n| {
            view.edit_string(name, |bytes| {
                let at = (scatter(n) % (1 << 20)) as usize;
                if bytes.len() <= at {
                    bytes.resize(1 << 20, 0);
                }
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << (n % 8);
                }
                ((), at..at + 1)
            })
            .expect("SETBIT");
        }),
    ];
    for (name, keys, command) in cases {
        let key = |n: u64| match keys {
            "own" => format!("key:{n:012}"),
            "bits" => format!("bits:{}", n % 10),
            "one" | "partial" => "key".into(),
            _ => format!("key:{:012}", n % OBJECTS),
        };
        let memory = if keys == "partial" { 1 << 20 } else { 4 << 30 };
        run(name, count, memory, &key, &|broker, fx, key, n| {
            let name = Name::new(key.as_bytes());
            let shard = name.slot.shard();
            let mut locked = broker.lock(ShardSet::of(shard));
            let mut view = locked.shard(shard).keys(0, Millis(1 + n), fx);
            command(&mut view, &name, n);
            locked.commit(Millis(1 + n), fx);
        });
    }
    run(
        "record batch of one record, 128 B (Kafka; XADD will use it)",
        count,
        4 << 30,
        &|_| "topic/0".into(),
        &|broker, fx, key, n| {
            let slot = Slot::of(key.as_bytes());
            let mut row = rows::object_prefix(slot, Tag::Batch, 7).to_vec();
            row.extend_from_slice(&n.to_be_bytes());
            let mut locked = broker.lock(ShardSet::of(slot.shard()));
            fx.put_body(slot.shard(), &row, b"", &Bytes::from_static(&[7; BATCH]));
            locked.commit(Millis(1 + n), fx);
        },
    );
}

/// Scores come in no order.
fn zadd(view: &mut View<'_>, name: &Name<'_>, n: u64) {
    view.edit_zset(name, true, [member(n)], |zset, rows| {
        zset.insert(&member(n), (scatter(n) % (1 << 40)) as f64, rows)
    })
    .expect("ZADD");
}

/// Runs a command `count` times, and prints what it came to.
fn run(
    name: &str,
    count: u64,
    memory: u64,
    key: &dyn Fn(u64) -> String,
    command: &dyn Fn(&Broker, &mut Effects, &str, u64),
) {
    let dir = tempfile::tempdir_in(std::env::var_os("BENCH_DIR").unwrap_or_else(|| ".".into()))
        .expect("a directory");
    let mut options = Options::new(dir.path());
    options.fold_bytes = u64::MAX >> 1;
    let engine = Engine::open(options).expect("open");
    let broker = Broker::open(engine, Budgets::split(memory)).expect("broker");
    let mut fx = Effects::new();
    let start = broker.engine.appended().0;
    let mut time = Duration::ZERO;
    for first in (0..count).step_by(PIPELINE) {
        let keys: Vec<String> = (first..first + PIPELINE as u64).map(key).collect();
        let began = thread_cpu();
        for (key, n) in keys.iter().zip(first..) {
            command(&broker, &mut fx, key, n);
        }
        time += thread_cpu() - began;
        broker.engine.flush();
    }
    let log = broker.engine.appended().0 - start;
    let before = process_cpu();
    broker.engine.fold_now().expect("fold");
    let fold = process_cpu() - before;
    let stats = broker.engine.stats();
    let per = |what: u64| what as f64 / count as f64;
    println!(
        "| {name} | {count} | {:.0} | {:.1} | {:.3} | {:.0} | {:.0} |",
        per(log),
        per(stats.table_bytes),
        per(stats.folded_rows),
        time.as_nanos() as f64 / count as f64,
        fold.as_nanos() as f64 / count as f64,
    );
}

fn member(n: u64) -> [u8; 16] {
    let mut member = *b"member:000000000";
    let mut rest = n;
    for digit in member.iter_mut().rev().take(9) {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    member
}

fn scatter(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    n ^ (n >> 27)
}

fn thread_cpu() -> Duration {
    cpu(rustix::time::ClockId::ThreadCPUTime)
}

fn process_cpu() -> Duration {
    cpu(rustix::time::ClockId::ProcessCPUTime)
}

fn cpu(clock: rustix::time::ClockId) -> Duration {
    let time = rustix::time::clock_gettime(clock);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
