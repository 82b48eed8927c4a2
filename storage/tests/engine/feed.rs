//! Following the log: every record once and in order, none too early, and a clear word for who is too slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use storage::{Durability, Effects, Engine, Error, Feed, Lsn, Need, ShardId};

use crate::support;

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn append(engine: &Engine, n: u64, size: usize) -> Lsn {
    let mut fx = Effects::new();
    fx.put(ShardId(1), &n.to_be_bytes(), &vec![n as u8; size]);
    engine.append(n, &fx)
}

fn times(feed: &mut Feed) -> Vec<u64> {
    let mut all = Vec::new();
    while let Some(record) = feed.next_record().unwrap() {
        all.push(record.time_ms);
    }
    all
}

#[test]
fn records_come_when_they_are_safe_and_a_position_goes_on_after_a_restart() {
    let dir = support::dir();
    let engine = Engine::open(support::small(dir.path())).unwrap();
    append(&engine, 1, 10);
    let mut written = engine.subscribe(engine.appended(), Durability::Os);
    let mut synced = engine.subscribe(engine.appended(), Durability::Sync);
    append(&engine, 2, 10);
    let flag = Arc::new(Flag::default());
    let waker = Waker::from(Arc::clone(&flag));
    assert!(!written.ready(&waker), "nothing is written yet");
    assert_eq!(times(&mut written), [0; 0]);
    engine.flush();
    assert!(flag.0.load(Ordering::SeqCst), "woken by the write");
    assert!(written.ready(&waker));
    assert_eq!(
        times(&mut written),
        [2],
        "what came before is not asked for"
    );
    assert_eq!(times(&mut synced), [0; 0]);

    let end = append(&engine, 3, 10);
    let _ = engine.wait(Need::of(end, Durability::Sync));
    assert_eq!(times(&mut synced), [2, 3]);
    assert_eq!(times(&mut written), [3]);

    let position = synced.position();
    append(&engine, 4, 10);
    engine.flush();
    // As a killed process leaves it.
    drop((written, synced, engine));
    let engine = Engine::open(support::small(dir.path())).unwrap();
    append(&engine, 5, 10);
    engine.flush();
    let mut feed = engine.subscribe(position, Durability::Os);
    assert_eq!(times(&mut feed), [4, 5]);
}

#[test]
fn a_feed_follows_from_file_to_file() {
    let dir = support::dir();
    let mut options = support::small(dir.path());
    options.segment_bytes = 8 << 10;
    let engine = Engine::open(options).unwrap();
    let mut feed = engine.subscribe(engine.appended(), Durability::Os);
    // It has each file open before there is a next one.
    for n in 0..60 {
        append(&engine, n, 1000);
        engine.flush();
        assert_eq!(times(&mut feed), [n]);
    }
    assert!(engine.stats().log_segments > 3);
}

#[test]
fn a_feed_that_is_too_slow_is_told_and_holds_nothing_back() {
    let dir = support::dir();
    let mut options = support::small(dir.path());
    options.segment_bytes = 8 << 10;
    options.retain_bytes = 16 << 10;
    let engine = Engine::open(options).unwrap();
    append(&engine, 0, 10);
    engine.flush();
    let mut feed = engine.subscribe(Lsn(0), Durability::Os);
    assert_eq!(feed.next_record().unwrap().unwrap().time_ms, 0);
    for n in 1..200 {
        append(&engine, n, 1000);
        engine.flush();
    }
    engine.fold_now().unwrap();
    let bytes = engine.stats().log_bytes;
    assert!(bytes < 64 << 10, "{bytes} B of log in spite of the feed");
    let gone = loop {
        match feed.next_record() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the gap was skipped"),
            Err(error) => break error,
        }
    };
    assert!(matches!(gone, Error::Trimmed { .. }), "{gone}");
}
