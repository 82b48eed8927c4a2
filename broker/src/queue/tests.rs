//! Queues over a real engine: order, restarts, paging, credit.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use storage::{Engine, Options};

use super::samples::{NOW, at, declared, queue, send, send_at};
use super::*;
use crate::{Budgets, Wake};

mod expiry;

struct Deaf;

impl Wake for Deaf {
    fn wake(&self) {}
}

fn open(dir: &Path, budget: u64) -> Broker {
    let mut options = Options::new(dir);
    options.sync_interval = None;
    // Small files that go as soon as they are folded: what is read back from the log lies in many, or is gone.
    options.segment_bytes = 64 << 10;
    options.retain_bytes = 0;
    let engine = Engine::open(options).expect("engine");
    Broker::open(engine, Budgets::split(budget)).expect("broker")
}

fn close(broker: Broker) {
    broker.engine.flush();
    broker.engine.close().expect("close");
}

fn get(broker: &Broker, queue: &Definition) -> Option<Entry> {
    get_at(broker, queue, NOW)
}

fn get_at(broker: &Broker, queue: &Definition, now: Millis) -> Option<Entry> {
    take(broker, at(queue), false, now, &mut Effects::new()).map(|(entry, _)| entry)
}

fn decide(broker: &Broker, queue: &Definition, entry: Entry, verdict: Verdict) {
    decide_at(broker, queue, entry, verdict, NOW);
}

fn decide_at(broker: &Broker, queue: &Definition, entry: Entry, verdict: Verdict, now: Millis) {
    let entries = std::iter::once((entry, None));
    let fx = &mut Effects::new();
    settle(broker, at(queue), verdict, entries, now, fx);
}

fn ack(broker: &Broker, queue: &Definition, entry: Entry) {
    decide(broker, queue, entry, Verdict::Done);
}

fn give_back(broker: &Broker, queue: &Definition, entry: Entry) {
    decide(broker, queue, entry, Verdict::Requeue);
}

fn drain(broker: &Broker, queue: &Definition) -> Vec<(Vec<u8>, bool)> {
    drain_at(broker, queue, NOW)
}

fn drain_at(broker: &Broker, queue: &Definition, now: Millis) -> Vec<(Vec<u8>, bool)> {
    std::iter::from_fn(|| {
        let entry = get_at(broker, queue, now)?;
        let told = (entry.message().body().to_vec(), entry.is_redelivered());
        ack(broker, queue, entry);
        Some(told)
    })
    .collect()
}

#[test]
fn what_is_persistent_comes_back_in_order() {
    let dir = tempfile::tempdir().expect("dir");
    let broker = open(dir.path(), 1 << 26);
    let (durable, other) = (
        queue(&broker, "durable", true),
        queue(&broker, "transient", false),
    );
    for index in 0..10_u32 {
        let body = vec![index as u8; 300 * index as usize];
        assert!(send(&broker, "durable", &body, index != 3).logged == (index != 3));
        assert!(!send(&broker, "transient", &body, true).logged);
    }
    let first = get(&broker, &durable).expect("a message");
    let second = get(&broker, &durable).expect("a message");
    ack(&broker, &durable, second);
    give_back(&broker, &durable, first);
    assert_eq!(
        counts(&broker, at(&durable)).map(|c| (c.ready, c.unacked)),
        Some((9, 0))
    );
    assert_eq!(counts(&broker, at(&other)).map(|c| c.ready), Some(10));
    close(broker);

    let broker = open(dir.path(), 1 << 26);
    assert!(broker.routes.queue("transient").is_none());
    let durable = broker.routes.queue("durable").expect("durable queue");
    assert_eq!(counts(&broker, at(&durable)).map(|c| c.ready), Some(8));
    let back = drain(&broker, &durable);
    let sizes: Vec<usize> = back.iter().map(|(body, _)| body.len() / 300).collect();
    assert_eq!(sizes, [0, 2, 4, 5, 6, 7, 8, 9]);
    assert!(
        back.iter().all(|(_, redelivered)| *redelivered),
        "the mark covers what may have been delivered"
    );
}

/// A record is smaller than 4 GiB, and a message may go to any number of queues.
#[test]
fn what_goes_to_many_queues_is_written_in_parts() {
    let dir = tempfile::tempdir().expect("dir");
    let broker = open(dir.path(), 1 << 30);
    let queues: Vec<_> = (0..40)
        .map(|number| queue(&broker, &format!("q{number}"), true))
        .collect();
    let mut route = Route {
        epoch: broker.routes.epoch(),
        shards: queues.iter().map(|queue| queue.shard()).collect(),
        queues: queues.iter().cloned().collect(),
        ..Route::default()
    };
    let body = vec![b'x'; 300_000];
    let message = Message::new(b"", b"k", b"\0\0", &body, true);
    assert!(octets(&route, &message) > 40 * 300_000);
    let written = || -> u64 {
        let shards = ShardSet::DATA.iter();
        shards.map(|shard| broker.engine.shard_seq(shard)).sum()
    };
    let (before, mut told) = (written(), Vec::new());
    let (messages, mut fx) = (&mut vec![message.clone()], Effects::new());
    let published = publish(
        &broker,
        &mut route,
        messages,
        &NoHeaders,
        &|_| true,
        &mut told,
        NOW,
        &mut fx,
    );
    assert_eq!(published, Ok(broker.engine.appended()));
    assert_eq!(told.first().map(|told| told.queues), Some(40));
    let one_record = route.shards.iter().count() as u64;
    assert!(written() - before > one_record);
    let before = written();
    let mut locked = broker.lock(route.shards);
    assert_eq!(
        deliver_apart(&mut locked, &route, message, NOW, &mut fx).queues,
        40
    );
    assert!(fx.size() < 2 * RECORD_MAX);
    locked.commit(NOW, &mut fx);
    drop(locked);
    assert!(written() - before > one_record);
    close(broker);

    let broker = open(dir.path(), 1 << 30);
    for queue in queues {
        let queue = broker.routes.queue(&queue.name).expect("queue");
        assert_eq!(counts(&broker, at(&queue)).map(|c| c.ready), Some(2));
    }
}

#[test]
fn never_delivered_is_not_called_redelivered() {
    let dir = tempfile::tempdir().expect("dir");
    let broker = open(dir.path(), 1 << 26);
    queue(&broker, "q", true);
    send(&broker, "q", b"one", true);
    close(broker);
    let broker = open(dir.path(), 1 << 26);
    let q = broker.routes.queue("q").expect("queue");
    assert_eq!(drain(&broker, &q), [(b"one".to_vec(), false)]);
}

#[test]
fn the_middle_of_a_long_queue_leaves_memory() {
    let dir = tempfile::tempdir().expect("dir");
    // A quarter of this is for queues.
    let broker = open(dir.path(), 1 << 20);
    let q = queue(&broker, "long", true);
    let body = |index: u32| {
        let mut body = index.to_le_bytes().to_vec();
        // Every seventh lies in the other keyspace.
        body.resize(if index.is_multiple_of(7) { 1500 } else { 20 }, 1);
        body
    };
    let count = 6_000_u32;
    for index in 0..count {
        send(&broker, "long", &body(index), index % 3 != 0);
        if index % 500 == 0 {
            broker.engine.flush();
            broker.engine.fold_now().expect("fold");
        }
    }
    broker.engine.fold_now().expect("fold");
    send(&broker, "long", &body(count), true);
    let used = broker.budgets.queue.used();
    assert!(used < 1 << 20, "{used} octets in memory");
    assert_eq!(
        counts(&broker, at(&q)).map(|c| c.ready),
        Some(u64::from(count) + 1)
    );
    let got = drain(&broker, &q);
    assert_eq!(got.len(), count as usize + 1);
    for (index, (found, _)) in got.iter().enumerate() {
        assert_eq!(*found, body(index as u32), "message {index}");
    }
    assert_eq!(broker.budgets.queue.used(), 0);
    close(broker);
    let broker = open(dir.path(), 1 << 20);
    let q = broker.routes.queue("long").expect("queue");
    assert_eq!(counts(&broker, at(&q)).map(|c| c.ready), Some(0));
    assert_eq!(drain(&broker, &q), []);
}

/// Bodies that wait for a fold took eight times the budget once.
#[test]
fn what_is_written_leaves_memory_before_it_is_folded() {
    let dir = tempfile::tempdir().expect("dir");
    let broker = open(dir.path(), 1 << 20);
    let q = queue(&broker, "long", true);
    let body = |index: u32| {
        let mut body = index.to_le_bytes().to_vec();
        body.resize(if index.is_multiple_of(7) { 5000 } else { 500 }, 1);
        body
    };
    let budget = &broker.budgets.queue;
    let mut most = 0;
    for index in 0..3_000_u32 {
        // The transient ones get a row when they must leave.
        send(&broker, "long", &body(index), index % 3 != 0);
        if index % 50 == 0 {
            broker.engine.flush();
        }
        most = most.max(budget.used());
    }
    assert!(most < budget.limit() * 3 / 2, "{most} octets in memory");
    let folded = broker.engine.stats().folds;
    let got = drain(&broker, &q);
    assert_eq!(got.len(), 3_000);
    for (index, found) in got.iter().enumerate() {
        assert_eq!(*found, (body(index as u32), false), "message {index}");
    }
    assert_eq!(
        broker.engine.stats().folds,
        folded,
        "nothing was folded meanwhile"
    );
    assert_eq!(budget.used(), 0);
}

/// What was acknowledged and cannot be read any more is not passed over: nothing is acknowledged from then on.
#[test]
fn a_queue_that_cannot_be_read_stops_the_engine() {
    let dir = tempfile::tempdir().expect("dir");
    let broker = open(dir.path(), 8 << 10);
    let q = queue(&broker, "q", true);
    for index in 0..100_u8 {
        send(&broker, "q", &[index; 2000], true);
        broker.engine.flush();
    }
    for file in std::fs::read_dir(dir.path().join("log")).expect("the log") {
        let path = file.expect("an entry").path();
        let file = std::fs::File::options().write(true).open(path);
        file.and_then(|file| file.set_len(0)).expect("cut");
    }
    assert!(!broker.engine.failed());
    assert!(get(&broker, &q).is_none());
    assert!(broker.engine.failed());
    assert_eq!(counts(&broker, at(&q)).map(|c| c.ready), Some(100));
    send(&broker, "q", b"late", true);
    let need = crate::Need::of(broker.engine.appended(), crate::Durability::Os);
    assert_eq!(broker.engine.wait(need), storage::Outcome::Unknown);
}

#[test]
fn purge_and_delete_leave_no_rows() {
    let dir = tempfile::tempdir().expect("dir");
    let broker = open(dir.path(), 1 << 18);
    let q = queue(&broker, "q", true);
    for index in 0..3_000_u32 {
        send(&broker, "q", &index.to_le_bytes(), true);
        if index % 500 == 0 {
            broker.engine.flush();
            broker.engine.fold_now().expect("fold");
        }
    }
    let held = get(&broker, &q).expect("a message");
    assert_eq!(purge(&broker, at(&q), NOW, &mut Effects::new()), 2_999);
    send(&broker, "q", b"after", true);
    close(broker);

    // The purge is finished before the queue is read again.
    let broker = open(dir.path(), 1 << 18);
    let q = broker.routes.queue("q").expect("queue");
    let left: Vec<_> = drain(&broker, &q)
        .into_iter()
        .map(|(body, _)| body)
        .collect();
    assert_eq!(left, [0_u32.to_le_bytes().to_vec(), b"after".to_vec()]);
    drop(held);
    for _ in 0..100 {
        send(&broker, "q", b"x", true);
    }
    let mut fx = Effects::new();
    let mut locked = broker.lock(shards_of("q"));
    assert_eq!(
        delete_queue(&mut locked, &q, false, false, NOW, &mut fx),
        Ok(100)
    );
    locked.commit(NOW, &mut fx);
    drop(locked);
    let row_count = || {
        broker.engine.flush();
        broker.engine.fold_now().expect("fold");
        let mut rows = 0;
        broker
            .engine
            .scan(
                crate::Keyspace::Rows,
                &[],
                None,
                usize::MAX,
                &mut |key, _| {
                    rows += usize::from(matches!(key.get(2), Some(b'm' | b'q' | b'w' | b'Q')));
                    true
                },
            )
            .expect("scan");
        rows
    };
    assert!(row_count() > 0);
    while sweep(&broker, q.shard(), NOW, &mut fx).expect("sweep") {}
    assert_eq!(row_count(), 0);
}

fn consumer(id: u64, inbox: &Arc<Inbox>, window: &Arc<Window>, prefetch: u32) -> Consumer {
    let mut consumer = Consumer::new(1, id, Arc::clone(inbox), Arc::clone(window));
    consumer.prefetch = prefetch;
    consumer
}

fn delivered(inbox: &Inbox) -> Vec<(u64, Entry)> {
    let mut events = Vec::new();
    inbox.drain(&mut events);
    events
        .into_iter()
        .filter_map(|event| match event {
            Event::Delivered(delivery) => Some((delivery.consumer, delivery.entry)),
            Event::Cancelled { .. } => None,
        })
        .collect()
}

#[test]
fn credit_turns_and_priorities() {
    let dir = tempfile::tempdir().expect("dir");
    let broker = open(dir.path(), 1 << 26);
    let q = queue(&broker, "q", true);
    let (inbox, window) = (Inbox::new(Arc::new(Deaf)), Arc::new(Window::default()));
    subscribe(&broker, at(&q), consumer(1, &inbox, &window, 2)).expect("consumer");
    subscribe(&broker, at(&q), consumer(2, &inbox, &window, 1)).expect("consumer");
    let mut first = consumer(3, &inbox, &window, 1);
    first.priority = 5;
    subscribe(&broker, at(&q), first).expect("consumer");
    for index in 0..6_u8 {
        send(&broker, "q", &[index], true);
    }
    let got = delivered(&inbox);
    let who: Vec<u64> = got.iter().map(|(consumer, _)| *consumer).collect();
    assert_eq!(who.first(), Some(&3));
    let mut per = BTreeMap::new();
    for id in &who {
        *per.entry(*id).or_insert(0) += 1;
    }
    assert_eq!(per, BTreeMap::from([(1, 2), (2, 1), (3, 1)]));
    assert!(
        got.iter().all(|(_, entry)| entry.lsn().0 > 0),
        "deliveries carry the position they wait for"
    );

    // One acknowledgement, one more message.
    let (id, entry) = got.into_iter().next().expect("a delivery");
    let credit = std::iter::once((entry, Some((1, id))));
    settle(
        &broker,
        at(&q),
        Verdict::Done,
        credit,
        NOW,
        &mut Effects::new(),
    );
    assert_eq!(delivered(&inbox).len(), 1);

    assert!(
        !unsubscribe(&broker, at(&q), 1, 3),
        "the queue is not auto-delete"
    );
    assert_eq!(
        counts(&broker, at(&q)).map(|c| (c.ready, c.unacked, c.consumers)),
        Some((1, 4, 2))
    );
}

#[test]
fn bindings_come_back() {
    let dir = tempfile::tempdir().expect("dir");
    let broker = open(dir.path(), 1 << 26);
    let (q, gone) = (queue(&broker, "q", true), queue(&broker, "gone", true));
    let mut fx = Effects::new();
    let mut locked = broker.lock(ShardSet::CATALOG);
    let exchange = |name: &str, kind, durable| ExchangeDefinition {
        durable,
        ..ExchangeDefinition::plain(name, kind)
    };
    assert_eq!(
        declare_exchange(
            &mut locked,
            exchange("topics", ExchangeKind::Topic, true),
            &mut fx
        ),
        None
    );
    assert_eq!(
        declare_exchange(
            &mut locked,
            exchange("passing", ExchangeKind::Fanout, false),
            &mut fx
        ),
        None
    );
    for (source, destination, key) in [
        ("topics", Destination::Queue(Arc::clone(&q)), "a.*"),
        ("topics", Destination::Queue(Arc::clone(&gone)), "#"),
        ("amq.fanout", Destination::Exchange("topics".into()), ""),
        ("passing", Destination::Queue(Arc::clone(&q)), ""),
    ] {
        let binding = Binding {
            source: source.into(),
            destination,
            key: Bytes::copy_from_slice(key.as_bytes()),
            arguments: Bytes::new(),
            matching: None,
        };
        bind(&mut locked, binding, &mut fx).expect("bound");
    }
    locked.commit(NOW, &mut fx);
    drop(locked);
    let mut locked = broker.lock(shards_of("gone"));
    delete_queue(&mut locked, &gone, false, false, NOW, &mut fx).expect("deleted");
    locked.commit(NOW, &mut fx);
    drop(locked);
    let reached = |broker: &Broker, exchange: &str, key: &str| {
        broker
            .routes
            .route(exchange.as_bytes(), key.as_bytes(), &NoHeaders)
            .map(|route| route.queues.len())
    };
    assert_eq!(reached(&broker, "passing", ""), Ok(1));
    for _ in 0..2 {
        assert_eq!(reached(&broker, "topics", "a.b"), Ok(1));
        assert_eq!(reached(&broker, "topics", "b.a"), Ok(0));
        assert_eq!(reached(&broker, "amq.fanout", "a.c"), Ok(1));
    }
    close(broker);
    let broker = open(dir.path(), 1 << 26);
    assert_eq!(reached(&broker, "topics", "a.b"), Ok(1));
    assert_eq!(reached(&broker, "amq.fanout", "a.c"), Ok(1));
    assert_eq!(reached(&broker, "amq.fanout", "x"), Ok(0));
    assert_eq!(reached(&broker, "passing", ""), Err(RouteError::NoExchange));
}

/// Ids are a shard's own: queues of different shards with the same id once took each other's copies.
#[test]
fn a_fanout_reaches_queues_of_every_shard() {
    let dir = tempfile::tempdir().expect("dir");
    let broker = open(dir.path(), 1 << 26);
    let queues: Vec<_> = (0..32)
        .map(|i| queue(&broker, &format!("q{i}"), true))
        .collect();
    let mut fx = Effects::new();
    let mut locked = broker.lock(ShardSet::CATALOG);
    for queue in &queues {
        let binding = Binding {
            source: "amq.fanout".into(),
            destination: Destination::Queue(Arc::clone(queue)),
            key: Bytes::new(),
            arguments: Bytes::new(),
            matching: None,
        };
        bind(&mut locked, binding, &mut fx).expect("bound");
    }
    locked.commit(NOW, &mut fx);
    drop(locked);
    let route = broker
        .routes
        .route(b"amq.fanout", b"", &NoHeaders)
        .expect("exchange");
    assert_eq!(route.queues.len(), queues.len());
}

/// A quorum queue counts how often a message was given back, across restarts, and has enough of it at its limit.
#[test]
fn deliveries_are_counted() {
    let dir = tempfile::tempdir().expect("dir");
    let broker = open(dir.path(), 1 << 20);
    let limits = Limits {
        delivery_limit: Some(3),
        ..Limits::default()
    };
    let q = declared(&broker, "q", true, QueueKind::Quorum, limits);
    for body in [&b"first"[..], b"second", b"third"] {
        send(&broker, "q", body, true);
    }
    for attempts in 0..2 {
        let entry = get(&broker, &q).expect("a message");
        assert_eq!(
            (entry.attempts(), entry.is_redelivered()),
            (attempts, attempts > 0)
        );
        give_back(&broker, &q, entry);
    }
    close(broker);
    let broker = open(dir.path(), 1 << 20);
    let q = broker.routes.queue("q").expect("queue");
    let first = get(&broker, &q).expect("a message");
    assert_eq!(
        (first.message().body(), first.attempts()),
        (&b"first"[..], 2)
    );
    let second = get(&broker, &q).expect("a message");
    assert_eq!(second.attempts(), 0);
    give_back(&broker, &q, second);
    give_back(&broker, &q, first);
    let first = get(&broker, &q).expect("a message");
    assert_eq!(first.attempts(), 3);
    give_back(&broker, &q, first);
    let second = get(&broker, &q).expect("a message");
    assert_eq!(
        (second.message().body(), second.attempts()),
        (&b"second"[..], 1)
    );
    give_back(&broker, &q, second);
    assert_eq!(purge(&broker, at(&q), NOW, &mut Effects::new()), 2);
    close(broker);
    let broker = open(dir.path(), 1 << 20);
    broker.engine.fold_now().expect("fold");
    let mut rows = 0;
    let count = &mut |key: &[u8], _: &[u8]| {
        rows += usize::from(matches!(key.get(2), Some(b'm' | b'a')));
        true
    };
    let scanned = broker
        .engine
        .scan(crate::Keyspace::Rows, &[], None, usize::MAX, count);
    scanned.expect("scan");
    assert_eq!(rows, 0);
}

/// Whoever gives several queues' messages back goes on with the next queue when all of one were taken.
#[test]
fn what_is_settled_in_a_queue_that_is_gone_is_taken() {
    let dir = tempfile::tempdir().expect("dir");
    let broker = open(dir.path(), 1 << 20);
    let q = queue(&broker, "q", true);
    send(&broker, "q", b"x", true);
    let entry = get(&broker, &q).expect("a message");
    let mut fx = Effects::new();
    let mut locked = broker.lock(shards_of("q"));
    delete_queue(&mut locked, &q, false, false, NOW, &mut fx).expect("deleted");
    locked.commit(NOW, &mut fx);
    drop(locked);
    let mut held = vec![(entry, None)].into_iter();
    settle(
        &broker,
        at(&q),
        Verdict::Requeue,
        held.by_ref(),
        NOW,
        &mut fx,
    );
    assert!(held.next().is_none());
}

/// Dead letters of such a queue go to `target`, at least once.
fn at_least_once() -> Limits {
    Limits {
        overflow: Overflow::Reject,
        dead_letter: Some(DeadLetter {
            exchange: "".into(),
            routing_key: Some(Bytes::from_static(b"target")),
            at_least_once: true,
        }),
        ..Limits::default()
    }
}

/// At-least-once dead letters stay until there is a queue for them.
#[test]
fn dead_letters_wait_for_a_queue() {
    let dir = tempfile::tempdir().expect("dir");
    let broker = open(dir.path(), 1 << 16);
    let q = declared(&broker, "q", true, QueueKind::Quorum, at_least_once());
    let body = |index: u32| vec![index as u8; 600];
    for index in 0..100 {
        send(&broker, "q", &body(index), true);
    }
    let mut fx = Effects::new();
    for _ in 0..100 {
        let entry = get(&broker, &q).expect("a message");
        decide(&broker, &q, entry, Verdict::Reject);
        broker.engine.flush();
    }
    send(&broker, "q", b"alive", true);
    assert_eq!(
        counts(&broker, at(&q)).map(|c| (c.ready, c.unacked)),
        Some((1, 0))
    );
    assert!(broker.budgets.queue.used() < 1 << 16);
    let look = |broker: &Broker, seconds: u64, fx: &mut Effects| {
        for now in 0..4 {
            expire(broker, q.shard(), Millis(seconds * 1000 + now), fx);
        }
    };
    look(&broker, 2, &mut fx);
    close(broker);
    let broker = open(dir.path(), 1 << 16);
    look(&broker, 4, &mut fx);
    let target = queue(&broker, "target", true);
    look(&broker, 6, &mut fx);
    let found = drain(&broker, &target);
    assert_eq!(found.len(), 100);
    for (index, (found, _)) in found.iter().enumerate() {
        assert_eq!(*found, body(index as u32));
    }
    let q = broker.routes.queue("q").expect("queue");
    let left: Vec<_> = drain(&broker, &q)
        .into_iter()
        .map(|(body, _)| body)
        .collect();
    assert_eq!(left, [b"alive".to_vec()]);
    let differences = crate::law::check(&broker, 10).expect("law");
    assert_eq!(differences, []);
}

/// A full queue that refuses does not lose them, and one that has a way does not wait for one that has none.
#[test]
fn dead_letters_wait_for_room() {
    let dir = tempfile::tempdir().expect("dir");
    let broker = open(dir.path(), 1 << 16);
    let q = declared(&broker, "q", true, QueueKind::Quorum, at_least_once());
    let full = Limits {
        overflow: Overflow::Reject,
        length: Some(1),
        ..Limits::default()
    };
    let target = declared(&broker, "target", true, QueueKind::Classic, full);
    send(&broker, "target", b"first", true);
    send(&broker, "q", b"dead", true);
    let entry = get(&broker, &q).expect("a message");
    decide(&broker, &q, entry, Verdict::Reject);
    broker.engine.flush();
    let bodies = |broker: &Broker| -> Vec<Vec<u8>> {
        let found = drain(broker, &target).into_iter();
        found.map(|(body, _)| body).collect()
    };
    let mut fx = Effects::new();
    expire(&broker, q.shard(), Millis(2000), &mut fx);
    assert_eq!(bodies(&broker), [b"first".to_vec()]);
    for now in [4000, 4001, 6000, 6001] {
        expire(&broker, q.shard(), Millis(now), &mut fx);
        broker.engine.flush();
    }
    assert_eq!(bodies(&broker), [b"dead".to_vec()]);
    assert_eq!(crate::law::check(&broker, 10).expect("law"), []);
}

#[derive(Debug, Clone)]
enum Step {
    Send {
        size: usize,
        persistent: bool,
        priority: u8,
        ttl_ms: u64,
    },
    Get,
    Ack(prop::sample::Index),
    Back(prop::sample::Index),
    Purge,
    /// What was appended is written: it may leave memory.
    Flush,
    Fold,
    Restart,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (prop_oneof![0..40_usize, Just(1200), Just(5000)], prop::bool::weighted(0.8), 0..8_u8, prop_oneof![Just(0), 1..200_u64])
            .prop_map(|(size, persistent, priority, ttl_ms)| Step::Send { size, persistent, priority, ttl_ms }),
        4 => Just(Step::Get),
        3 => any::<prop::sample::Index>().prop_map(Step::Ack),
        2 => any::<prop::sample::Index>().prop_map(Step::Back),
        1 => prop::bool::weighted(0.2).prop_map(|purge| if purge { Step::Purge } else { Step::Get }),
        3 => Just(Step::Flush),
        1 => Just(Step::Fold),
        1 => Just(Step::Restart),
        2 => (1..60_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// The law: what a restart brings back is what was there, without transient messages, the unacknowledged ones in
    /// their places and called redelivered. With priorities the same holds for each, and higher ones come first. Whatever
    /// stands before it, a message is gone when it has expired.
    #[test]
    fn as_the_model(steps in prop::collection::vec(step(), 1..160), budget in prop_oneof![Just(1_u64 << 26), Just(8_u64 << 10)], priorities in prop_oneof![Just(None), Just(Some(255)), Just(Some(3))]) {
        let dir = tempfile::tempdir().expect("dir");
        let mut broker = open(dir.path(), budget);
        let limits = Limits { max_priority: priorities, ..Limits::default() };
        let mut q = declared(&broker, "q", true, QueueKind::Classic, limits);
        // Importance (0 is most) and number → persistent, delivered before, when it expires.
        let mut ready: BTreeMap<(u8, u64), (bool, bool, u64)> = BTreeMap::new();
        let mut held: Vec<((u8, u64), bool, u64, Entry)> = Vec::new();
        let (mut next, mut now) = (0_u64, NOW);
        let expire_all = |broker: &Broker, now: Millis| {
            while expire(broker, at(&broker.routes.queue("q").expect("queue")).shard, now, &mut Effects::new()) {}
        };
        for step in steps {
            match step {
                Step::Send { size, persistent, priority, ttl_ms } => {
                    let mut body = next.to_le_bytes().to_vec();
                    body.resize(8 + size, 7);
                    let priority = if priority == 7 { 255 } else { priority };
                    let mut message = Message::new(b"", b"q", b"\0\0", &body, persistent);
                    message.set_priority(priority);
                    let mut deadline = u64::MAX;
                    if ttl_ms > 0 {
                        deadline = now.0 + ttl_ms;
                        message.expire_at(Millis(deadline));
                    }
                    send_at(&broker, "q", message, now);
                    ready.insert((255 - priority.min(priorities.unwrap_or(0)), next), (persistent, false, deadline));
                    next += 1;
                }
                Step::Get => {
                    let want = ready.pop_first();
                    let got = get_at(&broker, &q, now);
                    prop_assert_eq!(want.is_some(), got.is_some());
                    if let (Some((number, (persistent, before, deadline))), Some(entry)) = (want, got) {
                        prop_assert_eq!(entry.message().body().get(..8), Some(&number.1.to_le_bytes()[..]));
                        prop_assert!(entry.is_redelivered() || !before, "{:?} was delivered before", number);
                        held.push((number, persistent, deadline, entry));
                    }
                }
                Step::Ack(index) if !held.is_empty() => {
                    let (_, _, _, entry) = held.swap_remove(index.index(held.len()));
                    ack(&broker, &q, entry);
                }
                Step::Back(index) if !held.is_empty() => {
                    let (number, persistent, deadline, entry) = held.swap_remove(index.index(held.len()));
                    decide_at(&broker, &q, entry, Verdict::Requeue, now);
                    if deadline > now.0 {
                        ready.insert(number, (persistent, true, deadline));
                    }
                }
                Step::Purge => {
                    prop_assert_eq!(purge(&broker, at(&q), NOW, &mut Effects::new()), ready.len() as u64);
                    ready.clear();
                }
                Step::Flush => broker.engine.flush(),
                Step::Fold => {
                    broker.engine.flush();
                    broker.engine.fold_now().expect("fold");
                }
                Step::Restart => {
                    close(broker);
                    broker = open(dir.path(), budget);
                    q = broker.routes.queue("q").expect("queue");
                    for (number, persistent, deadline, _) in held.drain(..) {
                        ready.insert(number, (persistent, true, deadline));
                    }
                    ready.retain(|_, (persistent, _, deadline)| *persistent && *deadline > now.0);
                    expire_all(&broker, now);
                }
                Step::Wait(millis) => {
                    now.0 += millis;
                    expire_all(&broker, now);
                    ready.retain(|_, (_, _, deadline)| *deadline > now.0);
                }
                Step::Ack(_) | Step::Back(_) => {}
            }
            prop_assert_eq!(counts(&broker, at(&q)).map(|c| (c.ready, c.unacked)), Some((ready.len() as u64, held.len() as u64)));
        }
        drop(held);
        let left: Vec<u64> = drain_at(&broker, &q, now)
            .into_iter()
            .map(|(body, _)| body.first_chunk::<8>().map_or(u64::MAX, |number| u64::from_le_bytes(*number)))
            .collect();
        prop_assert_eq!(left, ready.into_keys().map(|(_, number)| number).collect::<Vec<_>>());
        prop_assert_eq!(crate::law::check(&broker, 10).expect("law"), []);
    }
}
