//! Reading the log from a position, over files, restarts and retention; and the clock stepping back meanwhile.

use storage::{Effects, Engine, Error, Lsn, Op, ShardId};

use crate::support;

fn append(engine: &Engine, time_ms: u64, n: u64) -> Lsn {
    let mut fx = Effects::new();
    fx.put(ShardId(1), &n.to_be_bytes(), &[n as u8; 500]);
    if n.is_multiple_of(3) {
        fx.put_body(ShardId(8), b"\x40\0", b"h", &vec![n as u8; 9000].into());
        fx.del(ShardId(1), b"\0\0");
    }
    engine.append(time_ms, &fx)
}

/// Numbers and times of the records behind `from`.
fn read(engine: &Engine, from: Lsn) -> Vec<(u64, u64)> {
    let mut reader = engine.read_log(from);
    let (mut found, mut last) = (Vec::new(), from);
    while let Some(record) = reader.next().unwrap() {
        assert!(record.lsn > last, "in order of position");
        last = record.lsn;
        let mut shards = Vec::new();
        for section in record.sections() {
            shards.push(section.shard.0);
            for op in section.ops() {
                if let Op::PutBody { value, .. } = op {
                    assert_eq!(value.len(), 9001);
                }
            }
        }
        let first = record
            .sections()
            .next()
            .and_then(|section| section.ops().next());
        let Some(Op::Put { key, .. }) = first else {
            panic!("{first:?}")
        };
        let n = u64::from_be_bytes(key.try_into().unwrap());
        assert_eq!(
            shards,
            if n.is_multiple_of(3) {
                vec![1, 8, 1]
            } else {
                vec![1]
            }
        );
        found.push((n, record.time_ms));
    }
    assert_eq!(reader.position(), last);
    found
}

#[test]
fn a_reader_sees_every_record_once_over_files_and_restarts() {
    let dir = support::dir();
    let mut options = support::small(dir.path());
    options.segment_bytes = 8 << 10;
    let mut engine = Engine::open(options.clone()).unwrap();
    let mut positions = vec![Lsn(0)];
    for n in 0..200u64 {
        // The clock steps back now and then: order and folds do not care.
        let time = if n.is_multiple_of(50) { 5 } else { 1000 + n };
        positions.push(append(&engine, time, n));
        if n.is_multiple_of(7) {
            engine.flush();
        }
        if n == 80 {
            engine.close().unwrap();
            drop(engine);
            engine = Engine::open(options.clone()).unwrap();
        }
        if n == 130 {
            // As if killed.
            engine.flush();
            drop(engine);
            engine = Engine::open(options.clone()).unwrap();
        }
    }
    engine.flush();
    let all = read(&engine, Lsn(0));
    let want = |from: u64| {
        (from..200)
            .map(|n| (n, if n.is_multiple_of(50) { 5 } else { 1000 + n }))
            .collect::<Vec<_>>()
    };
    assert_eq!(all, want(0));
    for from in [1, 79, 80, 81, 82, 130, 131, 132, 199, 200] {
        assert_eq!(
            read(&engine, positions[from as usize]),
            want(from),
            "from record {from}"
        );
    }
    engine.close().unwrap();
}

#[test]
fn a_reader_follows_and_retention_tells_what_is_gone() {
    let dir = support::dir();
    let mut options = support::small(dir.path());
    options.segment_bytes = 8 << 10;
    options.retain_bytes = 32 << 10;
    let engine = Engine::open(options).unwrap();
    let mut reader = engine.read_log(Lsn(0));
    assert!(reader.next().unwrap().is_none());
    append(&engine, 1, 1);
    assert!(reader.next().unwrap().is_none(), "appended, not written");
    engine.flush();
    assert!(reader.next().unwrap().is_some());
    assert!(reader.next().unwrap().is_none());
    for n in 0..100 {
        append(&engine, 1, n);
        engine.flush();
    }
    engine.fold_now().unwrap();
    let stats = engine.stats();
    assert!(
        stats.log_bytes < 64 << 10,
        "{} bytes are kept",
        stats.log_bytes
    );
    assert!(matches!(
        engine.read_log(Lsn(0)).next(),
        Err(Error::Trimmed { .. })
    ));
    engine.close().unwrap();
}
