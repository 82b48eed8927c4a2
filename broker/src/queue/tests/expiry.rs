//! Messages that leave from the middle of a queue: they have expired, or a dead letter has found its way.

use super::*;

fn timed(body: &[u8], persistent: bool, deadline_ms: u64) -> Message {
    let mut message = Message::new(b"", b"q", b"\0\0", body, persistent);
    if deadline_ms != 0 {
        message.expire_at(Millis(deadline_ms));
    }
    message
}

/// What expires behind a message that never does goes when its time has come, from memory, log and tables, in bounded steps.
#[test]
fn nothing_waits_for_the_head_to_expire() {
    let dir = tempfile::tempdir().expect("dir");
    let mut broker = open(dir.path(), 64 << 10);
    let dead = Limits {
        dead_letter: Some(DeadLetter {
            exchange: "".into(),
            routing_key: Some(Bytes::from_static(b"dead")),
            at_least_once: false,
        }),
        ..Limits::default()
    };
    declared(&broker, "q", true, QueueKind::Quorum, dead);
    queue(&broker, "dead", true);
    let expire_all = |broker: &Broker, now| {
        let shard = broker.routes.queue("q").expect("queue").shard();
        let (mut rounds, mut fx) = (1, Effects::new());
        while expire(broker, shard, Millis(now), &mut fx) {
            rounds += 1;
            broker.engine.flush();
        }
        rounds
    };
    let ready = |broker: &Broker, name: &str| {
        let queue = broker.routes.queue(name).expect("queue");
        counts(broker, at(&queue)).map_or(0, |counts| counts.ready)
    };
    send_at(&broker, "q", timed(b"first", true, 0), NOW);
    for index in 0..2000_u64 {
        // In no order; every fifth never expires.
        let deadline = if index % 5 == 0 {
            0
        } else {
            100 + index * 7919 % 1000
        };
        let mut body = index.to_be_bytes().to_vec();
        body.resize(if index % 50 == 0 { 3000 } else { 100 }, 1);
        send_at(&broker, "q", timed(&body, index % 3 != 0, deadline), NOW);
        if index % 400 == 0 {
            broker.engine.flush();
            broker.engine.fold_now().expect("fold");
        } else if index % 10 == 0 {
            broker.engine.flush();
        }
    }
    expire_all(&broker, 99);
    assert_eq!((ready(&broker, "q"), ready(&broker, "dead")), (2001, 0));
    assert!(expire_all(&broker, 599) > 4);
    assert_eq!((ready(&broker, "q"), ready(&broker, "dead")), (1201, 800));
    assert!(broker.budgets.queue.used() < 128 << 10);
    close(broker);
    broker = open(dir.path(), 64 << 10);
    let before = ready(&broker, "q");
    expire_all(&broker, 2000);
    let q = broker.routes.queue("q").expect("queue");
    // The transient ones are gone, too.
    let kept = |never: bool| {
        let is_kept = |index: &u64| {
            !index.is_multiple_of(3)
                && (index.is_multiple_of(5) || (!never && 100 + index * 7919 % 1000 > 599))
        };
        1 + (0..2000_u64).filter(is_kept).count() as u64
    };
    assert_eq!((before, ready(&broker, "q")), (kept(false), kept(true)));
    let left = drain_at(&broker, &q, Millis(2000));
    assert_eq!(left.first().map(|(body, _)| &body[..]), Some(&b"first"[..]));
    assert_eq!(left.len() as u64, kept(true));
    assert_eq!(crate::law::check(&broker, 10).expect("law"), []);
}

/// What says when a message expires goes with it, also when its queue is emptied or deleted.
#[test]
fn nobody_waits_for_messages_that_are_gone() {
    let dir = tempfile::tempdir().expect("dir");
    let broker = open(dir.path(), 8 << 10);
    let mut fx = Effects::new();
    for durable in [true, false] {
        let q = queue(&broker, "q", durable);
        for round in 0..2 {
            send_at(&broker, "q", timed(b"first", true, 0), NOW);
            for index in 0..300_u64 {
                let message = timed(&[7; 100], index % 2 == 0, 1_000_000 - index);
                send_at(&broker, "q", message, NOW);
                if index % 20 == 0 {
                    broker.engine.flush();
                }
            }
            if round == 0 {
                assert_eq!(purge(&broker, at(&q), NOW, &mut fx), 301);
            }
        }
        let mut locked = broker.lock(shards_of("q"));
        delete_queue(&mut locked, &q, false, false, NOW, &mut fx).expect("deleted");
        locked.commit(NOW, &mut fx);
        drop(locked);
        broker.engine.flush();
        broker.engine.fold_now().expect("fold");
        while sweep(&broker, q.shard(), NOW, &mut fx).expect("sweep") {}
    }
    broker.engine.flush();
    broker.engine.fold_now().expect("fold");
    let mut rows = 0;
    let count = &mut |key: &[u8], _: &[u8]| {
        rows += usize::from(matches!(key.get(2), Some(b'm' | b'e' | b'w')));
        true
    };
    let scanned = broker
        .engine
        .scan(crate::Keyspace::Rows, &[], None, usize::MAX, count);
    scanned.expect("scan");
    assert_eq!(rows, 0);
    close(broker);
}

/// A dead letter that has no way does not hold up others that died of the same.
#[test]
fn dead_letters_with_a_way_go_before_those_without() {
    let dir = tempfile::tempdir().expect("dir");
    let mut broker = open(dir.path(), 16 << 10);
    let limits = Limits {
        overflow: Overflow::Reject,
        dead_letter: Some(DeadLetter {
            exchange: "amq.direct".into(),
            routing_key: None,
            at_least_once: true,
        }),
        ..Limits::default()
    };
    let q = declared(&broker, "q", true, QueueKind::Quorum, limits);
    let bind_to = |broker: &Broker, target: &Arc<Definition>| {
        let mut fx = Effects::new();
        let mut locked = broker.lock(ShardSet::CATALOG);
        let binding = Binding {
            source: "amq.direct".into(),
            destination: Destination::Queue(Arc::clone(target)),
            key: Bytes::copy_from_slice(target.name.as_bytes()),
            arguments: Bytes::new(),
            matching: None,
        };
        bind(&mut locked, binding, &mut fx).expect("bound");
        locked.commit(NOW, &mut fx);
    };
    let mut fx = Effects::new();
    for index in 0..600_u64 {
        let key: &[u8] = if index % 3 == 0 { b"b" } else { b"a" };
        let body = [&index.to_be_bytes()[..], &[0; 200]].concat();
        let mut route = Route::to(&broker.routes, &q);
        let message = Message::new(b"amq.direct", key, b"\0\0", &body, true);
        let mut told = Vec::new();
        let messages = &mut vec![message];
        publish(
            &broker,
            &mut route,
            messages,
            &NoHeaders,
            &|_| true,
            &mut told,
            NOW,
            &mut fx,
        )
        .expect("sent");
        let entry = get(&broker, &q).expect("a message");
        decide(&broker, &q, entry, Verdict::Reject);
        broker.engine.flush();
    }
    let look = |broker: &Broker, seconds: u64, fx: &mut Effects| {
        for now in 0..8 {
            expire(broker, q.shard(), Millis(seconds * 1000 + now), fx);
            broker.engine.flush();
        }
    };
    look(&broker, 2, &mut fx);
    let numbers = |broker: &Broker, name: &str| -> Vec<u64> {
        let queue = broker.routes.queue(name).expect("queue");
        let found = drain(broker, &queue).into_iter();
        found
            .map(|(body, _)| {
                body.first_chunk()
                    .map_or(0, |number| u64::from_be_bytes(*number))
            })
            .collect()
    };
    let b = queue(&broker, "b", true);
    bind_to(&broker, &b);
    look(&broker, 4, &mut fx);
    let wanted: Vec<u64> = (0..600).filter(|index| index % 3 == 0).collect();
    assert_eq!(numbers(&broker, "b"), wanted);
    close(broker);
    broker = open(dir.path(), 16 << 10);
    let a = queue(&broker, "a", true);
    bind_to(&broker, &a);
    look(&broker, 6, &mut fx);
    let wanted: Vec<u64> = (0..600).filter(|index| index % 3 != 0).collect();
    assert_eq!(numbers(&broker, "a"), wanted);
    assert_eq!(crate::law::check(&broker, 10).expect("law"), []);
}
