//! Random operations against a model, with folds, reopenings and drops in between.

use bytes::Bytes;
use storage::{Effects, Engine, Keyspace, ShardId};

use crate::support::{self, Change, Model, Rng};

/// One random record.
pub(crate) fn record(rng: &mut Rng, change: &mut Change<'_>) {
    for _ in 0..1 + rng.below(4) {
        let shard = rng.below(9) as u8;
        let key = format!("{}{:02}", shard as char, rng.below(60));
        let key = key.as_bytes();
        match rng.below(10) {
            0..4 => {
                // Small ones the fold sees through its mapping, large ones it reads.
                let len = if rng.chance(8) {
                    500 + rng.below(3000)
                } else {
                    rng.below(300)
                };
                change.put(shard, key, &rng.bytes(len));
            }
            4 | 5 => change.del(shard, key),
            6 => change.add(shard, &[key, b"#"].concat(), rng.below(1000) as i64 - 500),
            7 | 8 => {
                let len = [100, 1024, 4096, 9000][rng.below(4) as usize];
                let body = Bytes::from(rng.bytes(len));
                change.put_body(shard, key, b"hd", &body);
            }
            _ => change.del_body(shard, key),
        }
    }
}

#[test]
fn random_operations_agree_with_a_model() {
    let mut rng = Rng::new(support::seed(1));
    let runs = if support::slow() { 50 } else { 3 };
    for run in 0..runs {
        let dir = support::dir();
        let mut options = support::small(dir.path());
        options.fold_bytes = 8 << 10 << rng.below(6);
        options.segment_bytes = 1 << 10 << rng.below(8);
        options.batch_bytes = [0, 4 << 10, 1 << 20][rng.below(3) as usize];
        let mut engine = Engine::open(options.clone()).unwrap();
        let (mut model, mut fx) = (Model::default(), Effects::new());
        for step in 0..1500 {
            record(
                &mut rng,
                &mut Change {
                    fx: &mut fx,
                    model: &mut model,
                },
            );
            engine.append(step, &fx);
            fx.clear();
            if rng.chance(8) {
                engine.flush();
            }
            if rng.chance(150) {
                engine.fold_now().unwrap();
                model.check(&engine, &format!("run {run} step {step}: folded"));
            }
            if rng.chance(300) {
                if rng.chance(2) {
                    engine.close().unwrap();
                } else {
                    engine.flush();
                }
                drop(engine);
                engine = Engine::open(options.clone()).unwrap();
                model.check(&engine, &format!("run {run} step {step}: reopened"));
            }
        }
        engine.close().unwrap();
        model.check(&engine, &format!("run {run}: closed"));
    }
}

#[test]
fn large_values_reach_the_tables_whatever_lies_between_them() {
    let mut rng = Rng::new(support::seed(7));
    for segment_bytes in [40 << 10, 64 << 20] {
        let dir = support::dir();
        let mut options = support::small(dir.path());
        options.fold_bytes = u64::MAX >> 1;
        options.segment_bytes = segment_bytes;
        options.batch_bytes = 0;
        let engine = Engine::open(options).unwrap();
        let (mut model, mut fx) = (Model::default(), Effects::new());
        for n in 0..1500u64 {
            let mut change = Change {
                fx: &mut fx,
                model: &mut model,
            };
            // Three sequences that lie in order of key, interleaved at times, with rows and large gaps between.
            let sequence = if n < 500 { 0 } else { rng.below(3) as u8 };
            let key = [&[0, sequence][..], &n.to_be_bytes()].concat();
            let len = [511, 512, 513, 1024, 2000, 70_000]
                [rng.below(if n % 50 == 0 { 6 } else { 5 }) as usize];
            let value = rng.bytes(len);
            if rng.chance(2) {
                change.put_body(0, &key, b"h", &Bytes::from(value));
            } else {
                change.put(0, &key, &value);
            }
            if rng.chance(9) {
                let len = rng.below(5000);
                change.put(1, b"\0\x09between", &rng.bytes(len));
            }
            if rng.chance(20) {
                change.del_body(0, &[&[0, 0][..], &(n / 2).to_be_bytes()].concat());
            }
            engine.append(n, &fx);
            fx.clear();
        }
        engine.fold_now().unwrap();
        model.check(&engine, "folded");
        engine.close().unwrap();
    }
}

#[test]
fn scans_go_both_ways_and_stop_where_told() {
    let dir = support::dir();
    let engine = Engine::open(support::small(dir.path())).unwrap();
    let mut fx = Effects::new();
    for key in 0..10u8 {
        fx.put_parts(ShardId(0), &[&[0], &[key]], &[b"v", &[key]]);
    }
    engine.append(1, &fx);
    engine.fold_now().unwrap();
    let scan = |down: bool, from: &[u8], to: Option<&[u8]>, limit: usize, stop_at: u8| {
        let mut keys = Vec::new();
        let mut visit = |key: &[u8], _: &[u8]| {
            keys.push(key[1]);
            key[1] != stop_at
        };
        if down {
            engine
                .scan_rev(Keyspace::Rows, from, to, limit, &mut visit)
                .unwrap();
        } else {
            engine
                .scan(Keyspace::Rows, from, to, limit, &mut visit)
                .unwrap();
        }
        keys
    };
    assert_eq!(scan(false, &[0, 3], Some(&[0, 6]), 99, 99), [3, 4, 5]);
    assert_eq!(scan(true, &[0, 3], Some(&[0, 6]), 99, 99), [5, 4, 3]);
    assert_eq!(scan(false, &[], None, 2, 99), [0, 1]);
    assert_eq!(scan(true, &[], None, 2, 99), [9, 8]);
    assert_eq!(scan(false, &[0, 2], None, 99, 4), [2, 3, 4]);
    assert!(scan(false, &[0, 6], Some(&[0, 6]), 99, 99).is_empty());
    assert_eq!(
        engine.get(Keyspace::Rows, &[0, 7]).unwrap().unwrap(),
        &b"v\x07"[..]
    );
    assert_eq!(engine.get(Keyspace::Rows, &[0, 70]).unwrap(), None);
    engine.close().unwrap();
}
