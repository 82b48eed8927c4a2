//! How long the engine takes to be ready when a killed process left so much unfolded log behind.

use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use storage::{Effects, Engine, Options, ShardId};

use crate::{LARGE, Meter, VALUE, process_cpu, remove, rss_mb};

/// Records of one `write`, as a pipeline of 16 makes them.
const GROUP: u64 = 16;
/// Keys that the small rows are spread over.
const MANY: u64 = 2_000_000;
const FEW: u64 = 100_000;

/// What one record of a log is.
type Record = fn(u64, &mut Effects);

pub(crate) fn run(dir: &Path, scale: f64) {
    println!(
        "\n## Recovery: opening a data directory after SIGKILL\n\n| unfolded log | MiB | records | ready s | CPU s | peak RSS MB | until compaction rests s |\n|---|---|---|---|---|---|---|"
    );
    let cases: [(&str, u64, Record); 6] = [
        ("128-byte SETs over 2 M keys", 256, set_many),
        ("128-byte SETs over 2 M keys", 1024, set_many),
        ("128-byte SETs over 100,000 keys", 1024, set_few),
        ("mixed rows", 1024, mixed),
        ("16 KiB bodies", 256, body),
        ("16 KiB bodies", 1024, body),
    ];
    for (name, mib, record) in cases {
        let target = dir.join("recovery");
        let bytes = ((mib << 20) as f64 * scale) as u64;
        let records = write_log(&target, bytes, record);
        let meter = Meter::start();
        let began = Instant::now();
        let engine = Engine::open(Options::new(&target)).expect("open");
        let ready = began.elapsed();
        let (cpu, rss) = (meter.read().0, rss_mb());
        wait_for_rest();
        println!(
            "| {name} | {} | {records} | {:.2} | {cpu:.2} | {rss} | {:.2} |",
            bytes >> 20,
            ready.as_secs_f64(),
            began.elapsed().as_secs_f64(),
        );
        drop(engine);
        remove(&target);
    }
}

/// A log of so many bytes that nobody has folded, as a killed process leaves it. Returns the records in it.
fn write_log(target: &Path, bytes: u64, record: Record) -> u64 {
    let mut options = Options::new(target);
    options.fold_bytes = u64::MAX >> 1;
    let engine = Engine::open(options).expect("open");
    let mut fx = Effects::new();
    let mut records = 0;
    while engine.appended().0 < bytes {
        for _ in 0..GROUP {
            record(records, &mut fx);
            engine.append(1_700_000_000_000 + records, &fx);
            fx.clear();
            records += 1;
        }
        engine.flush();
    }
    // Dropped, not closed: nothing is folded.
    records
}

/// Until the process has done nothing for a while: compaction is through.
fn wait_for_rest() {
    let mut idle = 0;
    while idle < 5 {
        let before = process_cpu();
        std::thread::sleep(std::time::Duration::from_millis(20));
        idle = if process_cpu() - before < 0.002 {
            idle + 1
        } else {
            0
        };
    }
}

fn set_many(n: u64, fx: &mut Effects) {
    set(scatter(n) % MANY, fx);
}

fn set_few(n: u64, fx: &mut Effects) {
    set(scatter(n) % FEW, fx);
}

/// The row of a string: slot, tag, database, key; a head of ten bytes and the value.
fn set(id: u64, fx: &mut Effects) {
    let mut value = [7; 10 + VALUE];
    value[10..18].copy_from_slice(&scatter(id).to_le_bytes());
    fx.put(
        shard(id),
        &key(b'k', id, format!("key:{id:012}").as_bytes()),
        &value,
    );
}

/// A bit of everything that is small: strings, fields, members, counters, deletions, messages that come and go.
fn mixed(n: u64, fx: &mut Effects) {
    let id = scatter(n) % MANY;
    let object = scatter(n) % 5000;
    let field = |tag: u8, id: u64| {
        let id = id.to_be_bytes();
        key(tag, object, &[&object.to_be_bytes()[..], &id].concat())
    };
    match n % 10 {
        0..4 => set(id, fx),
        4 | 5 => fx.put(shard(object), &field(b'h', id), &[7; 40]),
        6 => fx.put(shard(object), &field(b's', id), b""),
        7 => fx.add(shard(object), &key(b'n', object, b"hits"), 1),
        8 => fx.put(shard(0), &key(b'm', 1, &n.to_be_bytes()), &[7; 300]),
        _ => fx.del(
            shard(0),
            &key(b'm', 1, &(n - 1).saturating_sub(100).to_be_bytes()),
        ),
    }
}

fn body(n: u64, fx: &mut Effects) {
    thread_local! {
        static BODY: Bytes = (0..LARGE).map(|n| ((n * 31) >> 3) as u8).collect::<Vec<_>>().into();
    }
    let partition = n % 12;
    let key = key(
        b'b',
        partition,
        &[partition.to_be_bytes(), n.to_be_bytes()].concat(),
    );
    BODY.with(|body| fx.put_body(shard(partition), &key, b"head", body));
}

fn shard(id: u64) -> ShardId {
    ShardId((id % 8) as u8)
}

/// Slot, tag, and the rest: a slot belongs to one object.
fn key(tag: u8, id: u64, rest: &[u8]) -> Vec<u8> {
    let slot = (scatter(id) % 16384) as u16;
    [&slot.to_be_bytes()[..], &[tag, 0, 0, 0, 1], rest].concat()
}

fn scatter(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ (n >> 31)
}
