//! That the check finds what it is for: each test makes one lie.

use bytes::Bytes;
use storage::{Effects, Engine, Options};

use super::*;
use crate::cache::{Expire, Name};
use crate::queue::samples::{self, NOW};
use crate::queue::{Binding, Destination, QueueKind, Verdict};
use crate::stream::NewTopic;
use crate::{Ctx, Millis};

fn broker() -> (tempfile::TempDir, Broker) {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = Engine::open(Options::new(dir.path())).expect("engine");
    let broker = Broker::open(engine, Budgets::split(1 << 26)).expect("broker");
    (dir, broker)
}

/// Something of everything that a restart must bring back, and of what it must not.
fn fill(broker: &Broker) {
    let mut fx = Effects::new();
    for number in 0..20 {
        let key = format!("key-{number}");
        let name = Name::new(key.as_bytes());
        let shard = name.slot.shard();
        let mut locked = broker.lock_one(shard);
        let mut view = locked.shard(shard).keys(number % 3, NOW, &mut fx);
        let expire = if number % 2 == 0 {
            Expire::At(500_000)
        } else {
            Expire::Never
        };
        view.set_string(&name, &vec![b'v'; number * 700], expire)
            .expect("set");
        if number % 5 == 0 {
            view.delete(&name).expect("deleted");
            view.edit_hash(&name, true, [b"f"], |hash, rows| {
                hash.insert(b"f", b"v", rows)
            })
            .expect("hash");
        }
        locked.commit(NOW, &mut fx);
    }
    for (name, durable) in [("stored", true), ("passing", false)] {
        let definition = samples::queue(broker, name, durable);
        let binding = Binding {
            source: "amq.topic".into(),
            destination: Destination::Queue(definition),
            key: Bytes::from_static(b"a.#"),
            arguments: Bytes::new(),
            matching: None,
        };
        let mut locked = broker.lock(queue::shards_of(name));
        queue::bind(&mut locked, binding, &mut fx).expect("bound");
        locked.commit(NOW, &mut fx);
        drop(locked);
        for number in 0..10 {
            let body = vec![b'm'; number * 300];
            samples::send(broker, name, &body, number % 3 != 0);
        }
    }
    let limits = queue::Limits {
        max_priority: Some(9),
        ..queue::Limits::default()
    };
    samples::declared(broker, "ranked", true, QueueKind::Classic, limits);
    for number in 0..10 {
        samples::send_with(broker, "ranked", &[number], number % 3 != 0, number * 2);
    }
    let limits = queue::Limits::default();
    let counted = samples::declared(broker, "counted", true, QueueKind::Quorum, limits);
    samples::send(broker, "counted", b"again", true);
    let at = samples::at(&counted);
    let (entry, _) = queue::take(broker, at, false, NOW, &mut fx).expect("a message");
    let back = std::iter::once((entry, None));
    queue::settle(broker, at, Verdict::Requeue, back, NOW, &mut fx);
    for number in 0..3_u8 {
        let body = vec![b'd'; usize::from(number) * 1000];
        let message = queue::Message::new(b"amq.topic", b"a.b", b"\0\0", &body, number == 1);
        let mut locked = broker.lock(ShardSet::of(queue::delay::shard_of(&message)));
        queue::delay::put(&mut locked, message, Millis(900_000), &mut fx);
        locked.commit(NOW, &mut fx);
    }
    let ctx = Ctx::new(NOW, 7);
    let new = NewTopic {
        name: "topic".to_owned(),
        partitions: Some(3),
        configs: Vec::new(),
    };
    let mut locked = broker.lock_one(ShardId::CATALOG);
    let topic = stream::create(&mut locked, &ctx, &mut fx, &new).expect("created");
    locked.commit(NOW, &mut fx);
    drop(locked);
    for number in 0..30_usize {
        let at = topic.partitions[number % 3];
        let mut locked = broker.lock_one(at.shard());
        let value = number.to_string();
        stream::append_record(
            &mut locked,
            &mut fx,
            &ctx,
            &topic,
            at,
            None,
            Some(value.as_bytes()),
            &[],
        )
        .expect("appended");
        locked.commit(NOW, &mut fx);
    }
    let committed = stream::group::Committed {
        offset: 4,
        leader_epoch: 0,
        metadata: "m".into(),
        at: NOW,
    };
    let mut locked = broker.lock(ShardSet::ALL);
    stream::group::commit(
        &mut locked,
        &mut fx,
        "group",
        NOW,
        &[((topic.id, 1), committed)],
    )
    .expect("committed");
    locked.commit(NOW, &mut fx);
}

fn words(broker: &Broker) -> Vec<String> {
    check(broker, 50)
        .expect("checked")
        .iter()
        .map(Difference::to_string)
        .collect()
}

#[test]
fn what_is_true_passes() {
    let (_dir, broker) = broker();
    fill(&broker);
    assert_eq!(words(&broker), [""; 0]);
}

#[test]
fn a_database_that_was_flushed_still_owns_its_rows() {
    let (_dir, broker) = broker();
    fill(&broker);
    let mut fx = Effects::new();
    let mut locked = broker.lock(ShardSet::ALL);
    for shard in ShardSet::DATA.iter() {
        for number in 0..3 {
            locked.shard(shard).keys(number, NOW, &mut fx).flush();
        }
    }
    locked.commit(NOW, &mut fx);
    drop(locked);
    assert_eq!(words(&broker), [""; 0]);
}

#[test]
fn what_sessions_hold_may_come_back() {
    let (_dir, broker) = broker();
    fill(&broker);
    let stored = broker.routes.queue("stored").expect("queue");
    let at = samples::at(&stored);
    let held: Vec<_> = (0..2)
        .filter_map(|_| queue::take(&broker, at, false, NOW, &mut Effects::new()))
        .collect();
    assert_eq!(held.len(), 2);
    assert_eq!(words(&broker), [""; 0]);
}

fn says(found: &[String], words: &str) {
    assert!(found.iter().any(|line| line.contains(words)), "{found:?}");
}

/// Changes memory and forgets the effects.
fn lie(change: impl FnOnce(&Broker, &mut Effects)) -> Vec<String> {
    let (_dir, broker) = broker();
    fill(&broker);
    change(&broker, &mut Effects::new());
    words(&broker)
}

#[test]
fn a_key_that_only_memory_has_is_found() {
    let found = lie(|broker, fx| {
        let name = Name::new(b"lie");
        let mut locked = broker.lock_one(name.slot.shard());
        let mut view = locked.shard(name.slot.shard()).keys(0, NOW, fx);
        view.set_string(&name, b"v", Expire::Never).expect("set");
    });
    says(&found, "database 0 key lie: memory has string");
}

#[test]
fn a_key_that_only_the_tables_have_is_found() {
    let found = lie(|broker, fx| {
        let name = Name::new(b"key-3");
        let mut locked = broker.lock_one(name.slot.shard());
        locked
            .shard(name.slot.shard())
            .keys(0, NOW, fx)
            .delete(&name)
            .expect("deleted");
    });
    says(&found, "key key-3: memory has nothing");
}

#[test]
fn a_message_without_its_acknowledgement_is_found() {
    let found = lie(|broker, fx| {
        let stored = broker.routes.queue("stored").expect("queue");
        let at = samples::at(&stored);
        // The first one is transient.
        queue::take(broker, at, true, NOW, fx).expect("a message");
        let (entry, _) = queue::take(broker, at, false, NOW, fx).expect("a message");
        let mut locked = broker.lock_one(stored.shard());
        let entries = std::iter::once((entry, None));
        queue::settle_locked(&mut locked, at, Verdict::Done, entries, NOW, fx);
    });
    says(&found, "message");
}

#[test]
fn records_and_offsets_that_only_memory_has_are_found() {
    let found = lie(|broker, fx| {
        let topic = broker.topics.get("topic").expect("topic");
        let (ctx, at) = (Ctx::new(NOW, 1), topic.partitions[0]);
        let mut locked = broker.lock(ShardSet::ALL);
        stream::append_record(&mut locked, fx, &ctx, &topic, at, None, Some(b"x"), &[])
            .expect("appended");
        let committed = stream::group::Committed {
            offset: 9,
            leader_epoch: 0,
            metadata: "".into(),
            at: NOW,
        };
        stream::group::commit(&mut locked, fx, "group", NOW, &[((topic.id, 1), committed)])
            .expect("committed");
    });
    says(&found, "partition topic/0: memory has hash");
    says(&found, "group \"group\" offset");
}

#[test]
fn a_queue_that_only_memory_has_is_found() {
    let found = lie(|broker, fx| {
        let stored = broker.routes.queue("stored").expect("queue");
        let mut locked = broker.lock(queue::shards_of("stored"));
        queue::delete_queue(&mut locked, &stored, false, false, NOW, fx).expect("deleted");
    });
    says(&found, "queue \"stored\": memory has nothing");
    says(&found, "binding of \"amq.topic\"");
}

#[test]
fn rows_of_nobody_are_found() {
    let found = lie(|broker, fx| {
        let slot = Slot::of(b"x");
        for tag in [Tag::HashField, Tag::Message, Tag::Producer] {
            fx.put(
                slot.shard(),
                &crate::rows::object_prefix(slot, tag, 77),
                b"",
            );
        }
        broker.lock_one(slot.shard()).commit(NOW, fx);
    });
    assert_eq!(
        found
            .iter()
            .filter(|line| line.contains("belongs to nobody"))
            .count(),
        3,
        "{found:?}"
    );
}

/// The state row is written while a consumer holds a message: its octets belong to the queue all the same.
#[test]
fn octets_of_what_came_back_are_counted() {
    let (_dir, broker) = broker();
    fill(&broker);
    let stored = broker.routes.queue("stored").expect("queue");
    let at = samples::at(&stored);
    let mut fx = Effects::new();
    let mut held: Vec<_> = (0..5)
        .filter_map(|_| queue::take(&broker, at, false, NOW, &mut fx))
        .map(|(entry, _)| entry)
        .collect();
    let done = held.pop().expect("a message");
    let credit = std::iter::once((done, None));
    queue::settle(&broker, at, Verdict::Done, credit, NOW, &mut fx);
    let back = held.into_iter().map(|entry| (entry, None));
    queue::settle(&broker, at, Verdict::Requeue, back, NOW, &mut fx);
    assert_eq!(words(&broker), [""; 0]);
}

/// A binding to an exchange that a restart ends has no row: it would come back when that exchange is declared again.
#[test]
fn a_binding_to_a_passing_exchange_does_not_come_back() {
    let (_dir, broker) = broker();
    fill(&broker);
    let mut fx = Effects::new();
    let declare = |broker: &Broker, durable, fx: &mut Effects| {
        let exchange = queue::ExchangeDefinition {
            durable,
            ..queue::ExchangeDefinition::plain("there", queue::ExchangeKind::Fanout)
        };
        let mut locked = broker.lock(ShardSet::CATALOG);
        assert_eq!(queue::declare_exchange(&mut locked, exchange, fx), None);
        locked.commit(NOW, fx);
    };
    declare(&broker, false, &mut fx);
    let binding = Binding {
        source: "amq.topic".into(),
        destination: Destination::Exchange("there".into()),
        key: Bytes::from_static(b"#"),
        arguments: Bytes::new(),
        matching: None,
    };
    let mut locked = broker.lock(ShardSet::CATALOG);
    queue::bind(&mut locked, binding, &mut fx).expect("bound");
    locked.commit(NOW, &mut fx);
    drop(locked);
    assert_eq!(words(&broker), [""; 0]);
    let again = Broker::open(Arc::clone(&broker.engine), Budgets::split(1 << 26)).expect("broker");
    declare(&again, true, &mut fx);
    assert_eq!(words(&again), [""; 0]);
}

/// One look at the keys serves all databases that were flushed: a seek for each slot of each of them took a minute after a
/// thousand flushes.
#[test]
fn many_flushed_databases_cost_one_look() {
    let (_dir, broker) = broker();
    let mut fx = Effects::new();
    for _ in 0..300 {
        let name = Name::new(b"h");
        let mut locked = broker.lock_one(name.slot.shard());
        let mut view = locked.shard(name.slot.shard()).keys(0, NOW, &mut fx);
        view.edit_hash(&name, true, [b"f"], |hash, rows| {
            hash.insert(b"f", b"v", rows)
        })
        .expect("hash");
        view.flush();
        locked.commit(NOW, &mut fx);
    }
    assert_eq!(words(&broker), [""; 0]);
}
