//! Waiting for the disk: many at once share one sync, one alone is not kept waiting for others.

use storage::{Durability, Effects, Engine, Need, Options, Outcome, ShardId};

/// Appends one row of `shard` and waits until it is on the disk.
fn put(engine: &Engine, shard: u8, n: u32) {
    let mut fx = Effects::new();
    fx.put(ShardId(shard), &[shard, 0, 1], &n.to_le_bytes());
    let lsn = engine.append(0, &fx);
    let need = Need::of(lsn, Durability::Sync);
    assert_eq!(engine.wait(need), Outcome::Durable);
    assert!(engine.is_durable(need));
}

#[test]
fn a_crowd_shares_its_syncs() {
    const WAITERS: u8 = 8;
    const ROUNDS: u32 = 50;
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::new(dir.path());
    options.sync_interval = None;
    let engine = Engine::open(options).unwrap();
    std::thread::scope(|scope| {
        for shard in 0..WAITERS {
            let engine = &engine;
            scope.spawn(move || (0..ROUNDS).for_each(|n| put(engine, shard, n)));
        }
    });
    let stats = engine.stats();
    assert_eq!(stats.records, u64::from(WAITERS) * u64::from(ROUNDS));
    assert!(
        stats.log_syncs <= stats.records / 2,
        "{} syncs for {} records",
        stats.log_syncs,
        stats.records
    );
    // The crowd has gone; one that is left comes through.
    (0..ROUNDS).for_each(|n| put(&engine, 0, n));
    engine.close().unwrap();
}
