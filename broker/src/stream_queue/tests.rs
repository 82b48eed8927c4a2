use bytes::Bytes;
use storage::{Engine, Options};

use super::*;
use crate::queue::samples::{NOW, queue as classic, send};
use crate::queue::{Binding, Consumer, DeleteError, Destination, Event, Inbox, NoHeaders, Window};
use crate::stream::{Moment, Record, TopicConfig, batch};
use crate::{Broker, Budgets, ShardId, Wake};

struct Deaf;

impl Wake for Deaf {
    fn wake(&self) {}
}

fn open(dir: &std::path::Path) -> Broker {
    let engine = Engine::open(Options::new(dir)).unwrap();
    Broker::open(engine, Budgets::split(64 << 20)).unwrap()
}

fn declare_with(
    broker: &Broker,
    name: &str,
    asked: &[(&str, &str)],
) -> Result<Arc<Definition>, DeclareError> {
    let asked: Vec<_> = asked
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let new = NewTopic {
        name: name.to_owned(),
        partitions: Some(1),
        configs: asked.clone(),
    };
    let mut fx = Effects::new();
    let mut locked = broker.lock(DECLARE_LOCKS);
    let ctx = Ctx::new(NOW, 5);
    let arguments = Bytes::from_static(b"as declared");
    let declared = declare(&mut locked, &ctx, &new, &asked, &arguments, &mut fx);
    locked.commit(NOW, &mut fx);
    declared
}

fn topic(broker: &Broker, name: &str, partitions: u32) -> Arc<Topic> {
    let mut fx = Effects::new();
    let mut locked = broker.lock_one(ShardId::CATALOG);
    let new = NewTopic {
        name: name.to_owned(),
        partitions: Some(partitions),
        configs: Vec::new(),
    };
    let topic = stream::create(&mut locked, &Ctx::new(NOW, 6), &mut fx, &new).unwrap();
    locked.commit(NOW, &mut fx);
    topic
}

fn records(broker: &Broker, at: PartitionRef) -> Vec<Record> {
    broker.engine.flush();
    let need = storage::Need::of(broker.engine.appended(), storage::Durability::Sync);
    let _ = broker.engine.wait(need);
    let bounds = stream::bounds(broker, at).unwrap().unwrap();
    let (mut offset, mut found) = (bounds.start, Vec::new());
    // Tables first, then memory.
    while offset < bounds.end {
        let mut batches = Vec::new();
        let wish = stream::Read {
            at,
            offset,
            max_bytes: usize::MAX,
            at_least_one: true,
            committed: false,
            watch: None,
        };
        stream::read(broker, wish, &mut batches).unwrap().unwrap();
        let records = |batch| batch::records(batch).unwrap();
        found.extend(batches.iter().flat_map(records));
        offset = found
            .last()
            .map_or(bounds.end, |record: &Record| record.offset + 1);
    }
    found
}

fn values(broker: &Broker, queue: &Definition) -> Vec<(u64, Bytes)> {
    let records = records(broker, queue.partition.unwrap());
    let value = |record: Record| (record.offset, record.value.unwrap());
    records.into_iter().map(value).collect()
}

fn bind(broker: &Broker, queue: &Arc<Definition>, source: &str) {
    let mut fx = Effects::new();
    let mut locked = broker.lock_one(ShardId::CATALOG);
    let binding = Binding {
        source: source.into(),
        destination: Destination::Queue(Arc::clone(queue)),
        key: Bytes::new(),
        arguments: Bytes::new(),
        matching: None,
    };
    queue::bind(&mut locked, binding, &mut fx).unwrap();
    locked.commit(NOW, &mut fx);
}

fn publish(broker: &Broker, exchange: &str, key: &str, bodies: &[&[u8]]) -> Vec<Delivered> {
    let mut route = broker
        .routes
        .route(exchange.as_bytes(), key.as_bytes(), &NoHeaders)
        .unwrap();
    let message =
        |body: &&[u8]| Message::new(exchange.as_bytes(), key.as_bytes(), b"\0\0", body, false);
    let mut messages = bodies.iter().map(message).collect();
    let (mut told, mut fx) = (Vec::new(), Effects::new());
    queue::publish(
        broker,
        &mut route,
        &mut messages,
        &NoHeaders,
        &|_| true,
        &mut told,
        NOW,
        &mut fx,
    )
    .unwrap();
    told
}

#[test]
fn messages_become_records_in_the_record_of_the_other_queues() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let stream = declare_with(&broker, "s", &[]).unwrap();
    let beside = classic(&broker, "q", true);
    bind(&broker, &stream, "amq.fanout");
    bind(&broker, &beside, "amq.fanout");
    let before = broker.engine.appended();
    let told = publish(&broker, "amq.fanout", "", &[b"a", b"b", b"c"]);
    assert!(before < broker.engine.appended());
    for told in &told {
        assert_eq!((told.queues, told.logged, told.refused), (2, true, false));
    }
    let told = publish(&broker, "", "s", &[b"d"]);
    assert_eq!((told[0].queues, told[0].logged), (1, true));
    let records = records(&broker, stream.partition.unwrap());
    assert_eq!(records.len(), 4);
    assert_eq!(
        (records[0].key.as_deref(), records[3].key.as_deref()),
        (None, Some(&b"s"[..]))
    );
    let exchanges: Vec<_> = records
        .iter()
        .map(|record| record.headers[0].clone())
        .collect();
    let header = |exchange: &'static str| {
        let name = Bytes::from_static(EXCHANGE);
        (name, Some(Bytes::from_static(exchange.as_bytes())))
    };
    assert_eq!(exchanges[0], header("amq.fanout"));
    assert_eq!(exchanges[3], header(""));
    let at = queue::samples::at(&stream);
    assert_eq!(queue::counts(&broker, at).unwrap().ready, 4);
    // One batch for what came together.
    assert_eq!(
        stream::newest(&broker, stream.partition.unwrap()).unwrap(),
        Some(3)
    );
    let found = stream::find(&broker, stream.partition.unwrap(), Moment::Since(0));
    assert_eq!(found.unwrap(), Some((0, i64::try_from(NOW.0).unwrap())));
}

#[test]
fn a_restart_brings_queue_bindings_and_messages_back() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let stream = declare_with(&broker, "s", &[("retention.ms", "-1")]).unwrap();
    bind(&broker, &stream, "amq.fanout");
    publish(&broker, "amq.fanout", "", &[b"a", b"b"]);
    let before = values(&broker, &stream);
    broker.engine.flush();
    broker.engine.close().unwrap();
    drop(broker);
    let broker = open(dir.path());
    let again = broker.routes.queue("s").unwrap();
    assert_eq!(again, stream);
    assert_eq!(values(&broker, &again), before);
    publish(&broker, "amq.fanout", "", &[b"c"]);
    assert_eq!(
        values(&broker, &again).last(),
        Some(&(2, Bytes::from_static(b"c")))
    );
    assert_eq!(crate::law::check(&broker, 10).unwrap(), []);
}

#[test]
fn what_is_too_large_is_refused_and_the_rest_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let stream = declare_with(&broker, "s", &[("max.message.bytes", "1000")]).unwrap();
    let (small, large) = (vec![b's'; 100], vec![b'l'; 1000]);
    let told = publish(&broker, "", "s", &[&small, &large, &small, &small, &large]);
    let refused: Vec<_> = told.iter().map(|told| told.refused).collect();
    assert_eq!(refused, [false, true, false, false, true]);
    assert!(
        told.iter()
            .all(|told| told.queues == 1 && told.logged != told.refused)
    );
    // Batches are as large as the topic allows.
    let many: Vec<&[u8]> = (0..50).map(|_| &small[..]).collect();
    assert!(
        publish(&broker, "", "s", &many)
            .iter()
            .all(|told| told.logged)
    );
    let found = values(&broker, &stream);
    let offsets: Vec<_> = found.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, (0..53).collect::<Vec<_>>());
    let message = |body: &[u8]| Message::new(b"", b"s", b"\0\0", body, true);
    assert!(refuses(&broker, &stream, &message(&large)));
    assert!(!refuses(&broker, &stream, &message(&small)));
}

#[test]
fn a_topic_that_is_there_becomes_the_queue_if_it_fits() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let one = topic(&broker, "one", 1);
    topic(&broker, "three", 3);
    let refused = |name, asked: &[(&str, &str)]| declare_with(&broker, name, asked).unwrap_err();
    assert_eq!(
        refused("three", &[]).to_string(),
        "topic 'three' has 3 partitions, a stream has one"
    );
    assert_eq!(
        refused("one", &[("retention.ms", "1000")]).to_string(),
        "topic 'one' has retention.ms=604800000, not 1000"
    );
    assert!(matches!(
        refused("no name", &[]),
        DeclareError::Topic(TopicError::InvalidName(_))
    ));
    assert!(broker.routes.queue("one").is_none());
    let queue = declare_with(&broker, "one", &[("retention.ms", "604800000")]).unwrap();
    assert_eq!(queue.partition, Some(one.partitions[0]));
    assert_eq!(of_topic(&broker, &one), Some(Arc::clone(&queue)));
    assert!(is_stream(&broker, b"one") && !is_stream(&broker, b"three"));
    assert_eq!(
        broker.topics.get("one").unwrap().config,
        TopicConfig::default()
    );
    // It stays one partition.
    let mut fx = Effects::new();
    let mut locked = broker.lock_one(ShardId::CATALOG);
    let grown = stream::add_partitions(&mut locked, &mut fx, "one", 2, false);
    assert!(matches!(grown, Err(TopicError::InvalidPartitions(_))));
    assert!(fx.is_empty());
}

#[test]
fn queue_and_topic_go_together() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let inbox = Inbox::new(Arc::new(Deaf));
    let consume = |queue: &Definition, id| {
        let consumer = Consumer::new(1, id, Arc::clone(&inbox), Arc::new(Window::default()));
        queue::subscribe(&broker, queue::samples::at(queue), consumer).unwrap();
    };
    let told = || {
        let mut events = Vec::new();
        inbox.drain(&mut events);
        let consumer = |event| match event {
            Event::Cancelled { consumer } => consumer,
            other => panic!("{other:?}"),
        };
        events.into_iter().map(consumer).collect::<Vec<_>>()
    };
    for by_topic in [true, false] {
        let queue = declare_with(&broker, "s", &[]).unwrap();
        bind(&broker, &queue, "amq.fanout");
        consume(&queue, 7);
        send(&broker, "s", b"a", true);
        values(&broker, &queue);
        let mut fx = Effects::new();
        let mut locked = broker.lock(queue::locks_of(&queue));
        if by_topic {
            stream::delete(&mut locked, &mut fx, "s").unwrap();
        } else {
            let mut delete = |if_unused, if_empty| {
                queue::delete_queue(&mut locked, &queue, if_unused, if_empty, NOW, &mut fx)
            };
            assert_eq!(delete(true, false), Err(DeleteError::InUse));
            assert_eq!(delete(false, true), Err(DeleteError::NotEmpty));
            assert_eq!(delete(false, false), Ok(0));
        }
        locked.commit(NOW, &mut fx);
        drop(locked);
        assert_eq!(told(), [7]);
        assert!(broker.routes.queue("s").is_none() && broker.topics.get("s").is_none());
        assert!(broker.routes.bindings().is_empty());
        // Who had the route finds nobody.
        let told = publish(&broker, "amq.fanout", "", &[b"x"]);
        assert_eq!(told[0].queues, 0);
    }
    assert_eq!(crate::law::check(&broker, 10).unwrap(), []);
}
