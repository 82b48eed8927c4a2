use super::*;
use crate::{Broker, Budgets};
use proptest::prelude::*;
use storage::{Durability, Options};

struct Fixture {
    broker: Broker,
    dir: tempfile::TempDir,
    budget: u64,
}

impl Fixture {
    fn new(budget: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            broker: open(dir.path(), budget),
            dir,
            budget,
        }
    }

    /// Drops all memory and loads what the tables and the log have.
    fn reopen(self) -> Self {
        let Self {
            broker,
            dir,
            budget,
        } = self;
        broker.engine.close().unwrap();
        drop(broker);
        Self {
            broker: open(dir.path(), budget),
            dir,
            budget,
        }
    }

    fn topic(&self, name: &str, partitions: u32, configs: &[(&str, &str)]) -> Arc<Topic> {
        let new = NewTopic {
            name: name.to_owned(),
            partitions: Some(partitions),
            configs: configs
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
        };
        // Another seed for each, or two topics have the same id.
        let seed = self.broker.topics.generation();
        let (ctx, mut fx) = (Ctx::new(Millis(1), seed), Effects::new());
        let mut locked = self.broker.lock_one(ShardId::CATALOG);
        let topic = create(&mut locked, &ctx, &mut fx, &new).unwrap();
        locked.commit(ctx.now, &mut fx);
        topic
    }

    fn append(
        &self,
        topic: &Topic,
        index: usize,
        now: u64,
        bytes: BytesMut,
    ) -> Result<Appended, AppendError> {
        let header = batch::Header::check(&bytes).unwrap();
        let at = topic.partitions[index];
        let mut fx = Effects::new();
        let mut locked = self.broker.lock_one(at.shard());
        let result = append(
            &mut locked,
            &mut fx,
            Millis(now),
            at,
            &topic.config,
            bytes,
            &header,
        );
        locked.commit(Millis(now), &mut fx);
        drop(locked);
        self.broker.engine.flush();
        result
    }

    fn put(&self, topic: &Topic, index: usize, now: u64, value: &[u8]) -> u64 {
        let bytes = batch::single(now as i64, None, Some(value), &[]);
        self.append(topic, index, now, bytes).unwrap().base_offset
    }

    fn values(&self, at: PartitionRef, from: u64) -> Vec<(u64, Bytes)> {
        let (mut offset, mut values) = (from, Vec::new());
        loop {
            let mut batches = Vec::new();
            let wish = Read {
                at,
                offset,
                max_bytes: 1000,
                at_least_one: true,
                committed: false,
                watch: None,
            };
            let got = read(&self.broker, wish, &mut batches).unwrap().unwrap();
            assert!(!got.out_of_range, "{offset} of {:?}", got.bounds);
            if got.bytes == 0 {
                return values;
            }
            for bytes in &batches {
                let (header, _) = batch::Header::read(bytes).unwrap();
                values.extend(
                    batch::records(bytes)
                        .unwrap()
                        .filter(|record| record.offset >= offset)
                        .map(|record| (record.offset, record.value.unwrap_or_default())),
                );
                offset = header.base_offset as u64 + header.count();
            }
        }
    }

    fn state(&self, at: PartitionRef) -> String {
        let mut locked = self.broker.lock_one(at.shard());
        let partition = space::partition(locked.shard(at.shard()), at).unwrap();
        format!("{:?}", partition.map(|partition| partition.durable_state()))
    }
}

fn open(dir: &std::path::Path, budget: u64) -> Broker {
    let engine = Engine::open(Options::new(dir)).unwrap();
    let broker = Broker::open(engine, Budgets::split(budget)).unwrap();
    broker.topics.set_durability(Durability::Os);
    broker
}

fn ctx(now: u64) -> Ctx {
    Ctx::new(Millis(now), now)
}

#[test]
fn murmur2_is_javas() {
    // Values of org.apache.kafka.common.utils.Utils.murmur2, as its own test has them.
    for (text, hash) in [
        ("21", -973_932_308i32),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
    ] {
        assert_eq!(murmur2(text.as_bytes()).cast_signed(), hash, "{text}");
    }
}

#[test]
fn records_come_back_in_order_from_memory_and_from_the_tables() {
    let fixture = Fixture::new(64 << 20);
    let topic = fixture.topic("t", 2, &[]);
    let at = topic.partitions[0];
    for n in 0..50u64 {
        assert_eq!(
            fixture.put(&topic, 0, 1000 + n, format!("{n}").as_bytes()),
            n
        );
    }
    let all: Vec<_> = (0..50).map(|n| (n, Bytes::from(n.to_string()))).collect();
    assert_eq!(fixture.values(at, 0), all);
    assert_eq!(fixture.values(at, 17), all[17..]);
    let topic_before = Arc::clone(&topic);
    let fixture = fixture.reopen();
    let topic = fixture.broker.topics.get("t").unwrap();
    assert_eq!(topic, topic_before);
    assert_eq!(fixture.values(at, 17), all[17..]);
    assert_eq!(fixture.put(&topic, 0, 2000, b"on"), 50);
    // The reader goes on from the tables into memory.
    assert_eq!(
        fixture.values(at, 49),
        [(49, Bytes::from("49")), (50, Bytes::from("on"))]
    );
    assert_eq!(
        bounds(&fixture.broker, topic.partitions[1]).unwrap(),
        Some(Bounds::default())
    );
}

#[test]
fn a_reader_at_the_end_is_rung_and_offsets_outside_are_refused() {
    struct Bell(std::sync::atomic::AtomicUsize);
    impl Wake for Bell {
        fn wake(&self) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    }
    let fixture = Fixture::new(64 << 20);
    let topic = fixture.topic("t", 1, &[]);
    let bell = Arc::new(Bell(Default::default()));
    let wake: Arc<dyn Wake> = bell.clone();
    let look = |offset| {
        let wish = Read {
            at: topic.partitions[0],
            offset,
            max_bytes: 100,
            at_least_one: true,
            committed: false,
            watch: Some((1, &wake)),
        };
        read(&fixture.broker, wish, &mut Vec::new())
            .unwrap()
            .unwrap()
    };
    assert_eq!(
        (look(0).bytes, look(0).out_of_range, look(1).out_of_range),
        (0, false, true)
    );
    fixture.put(&topic, 0, 5, b"x");
    fixture.put(&topic, 0, 5, b"y");
    assert_eq!(
        bell.0.load(std::sync::atomic::Ordering::SeqCst),
        1,
        "registered once, rung once"
    );
    assert!(look(1).bytes > 0);
}

#[test]
fn batches_leave_memory_once_the_log_has_them() {
    let fixture = Fixture::new(4 * 10_000);
    let topic = fixture.topic("t", 2, &[]);
    let value = |n: u64| vec![n as u8; 1000];
    for n in 0..200u64 {
        fixture.put(&topic, n as usize % 2, n, &value(n));
    }
    let used = || fixture.broker.budgets.stream.used();
    assert!(used() <= 11_200, "{}", used());
    let all = |partition: u64| -> Vec<_> {
        let value = |n| (n, Bytes::from(value(2 * n + partition)));
        (0..100).map(value).collect()
    };
    for _ in 0..2 {
        for partition in 0..2 {
            let at = topic.partitions[partition as usize];
            assert_eq!(fixture.values(at, 0), all(partition));
            assert_eq!(fixture.values(at, 63), all(partition)[63..]);
        }
        // Once from the log alone, once with what the tables have, too.
        fixture.broker.engine.fold_now().unwrap();
    }
    // Not even those that are not written yet may be missing.
    let at = topic.partitions[0];
    let mut fx = Effects::new();
    let mut locked = fixture.broker.lock_one(at.shard());
    for n in 100..150 {
        let config = &topic.config;
        let bytes = batch::single(5, None, Some(&value(2 * n)), &[]);
        let header = batch::Header::check(&bytes).unwrap();
        append(&mut locked, &mut fx, Millis(5), at, config, bytes, &header).unwrap();
        locked.commit(Millis(5), &mut fx);
    }
    drop(locked);
    assert!(used() > 50_000, "what the disk does not have stays");
    fixture.broker.engine.flush();
    assert_eq!(fixture.values(at, 100).len(), 50);
    fixture.put(&topic, 0, 300, b"last");
    assert!(used() <= 11_200, "{}", used());
    assert_eq!(fixture.values(at, 0).len(), 151);
}

#[test]
fn what_the_log_lets_go_while_it_is_to_be_read_comes_from_the_tables() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::new(dir.path());
    (options.segment_bytes, options.retain_bytes) = (64 << 10, 0);
    let broker = Broker::open(Engine::open(options).unwrap(), Budgets::split(4 << 10)).unwrap();
    broker.topics.set_durability(Durability::Os);
    let fixture = Fixture {
        broker,
        dir,
        budget: 4 << 10,
    };
    let topic = fixture.topic("t", 1, &[]);
    for n in 0..100u64 {
        fixture.put(&topic, 0, n, &[n as u8; 1000]);
    }
    let (at, limit) = (topic.partitions[0], Limit::new(20_000, true));
    let place = {
        let mut locked = fixture.broker.lock_one(at.shard());
        let partition = space::partition(locked.shard(at.shard()), at);
        let partition = partition.unwrap().unwrap();
        partition.read(10, 100, limit, &mut Vec::new())
    };
    let Err(place) = place else {
        panic!("in memory");
    };
    let Elsewhere::Log { bodies, .. } = &place else {
        panic!("{place:?}");
    };
    let engine = &fixture.broker.engine;
    let (mut before, mut after) = (Vec::new(), Vec::new());
    read_elsewhere(engine, &place, limit, &mut before).unwrap();
    engine.fold_now().unwrap();
    assert_eq!(engine.read_bodies(bodies, &mut after).unwrap(), 0, "gone");
    read_elsewhere(engine, &place, limit, &mut after).unwrap();
    assert!(before.len() > 10 && before == after);
}

#[test]
fn a_batch_sent_twice_is_stored_once_even_after_a_restart() {
    let fixture = Fixture::new(64 << 20);
    let topic = fixture.topic("t", 1, &[]);
    let send = |fixture: &Fixture, epoch, sequence| {
        fixture
            .append(
                &topic,
                0,
                2000,
                batch::tests::idempotent(2, 77, epoch, sequence),
            )
            .map(|a| (a.base_offset, a.duplicate))
    };
    assert_eq!(send(&fixture, 0, 0), Ok((0, false)));
    assert_eq!(send(&fixture, 0, 2), Ok((2, false)));
    assert_eq!(send(&fixture, 0, 0), Ok((0, true)));
    assert_eq!(send(&fixture, 0, 6), Err(AppendError::OutOfOrder));
    let fixture = fixture.reopen();
    assert_eq!(send(&fixture, 0, 2), Ok((2, true)));
    assert_eq!(send(&fixture, 1, 0), Ok((4, false)));
    assert_eq!(send(&fixture, 0, 4), Err(AppendError::OldEpoch));
}

#[test]
fn what_a_topic_refuses() {
    let fixture = Fixture::new(64 << 20);
    let topic = fixture.topic(
        "t",
        1,
        &[
            ("max.message.bytes", "100"),
            ("message.timestamp.after.max.ms", "10"),
        ],
    );
    let error = |now, bytes| fixture.append(&topic, 0, now, bytes).unwrap_err();
    assert_eq!(
        error(5, batch::single(5, None, Some(&[0; 100]), &[])),
        AppendError::TooLarge {
            size: 170,
            max: 100
        }
    );
    assert_eq!(
        error(5, batch::single(16, None, None, &[])),
        AppendError::Timestamp
    );
    let append_time = fixture.topic("l", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let appended = fixture
        .append(
            &append_time,
            0,
            5,
            batch::single(1 << 50, None, Some(b"v"), &[]),
        )
        .unwrap();
    assert_eq!(appended.append_time, Some(Millis(5)));
    assert_eq!(
        find(&fixture.broker, append_time.partitions[0], Moment::Newest).unwrap(),
        Some((0, 5))
    );
}

#[test]
fn names_and_configs_are_checked_in_kafkas_words() {
    let fixture = Fixture::new(64 << 20);
    fixture.topic("t", 1, &[]);
    let wrong = |name: &str, partitions, config: Option<(&str, &str)>| {
        let configs = config
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let new = NewTopic {
            name: name.to_owned(),
            partitions,
            configs,
        };
        check_new(&fixture.broker.topics, &new)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(wrong("t", None, None), "Topic 't' already exists.");
    assert_eq!(
        wrong("", None, None),
        "Topic name is invalid: the empty string is not allowed"
    );
    assert_eq!(
        wrong("..", None, None),
        "Topic name is invalid: '.' or '..' is not allowed"
    );
    assert!(wrong("a b", None, None).ends_with("other than ASCII alphanumerics, '.', '_' and '-'"));
    assert!(wrong(&"x".repeat(250), None, None).contains("longer than the max allowed length 249"));
    assert_eq!(
        wrong("n", Some(0), None),
        "Number of partitions was set to an invalid non-positive value."
    );
    assert_eq!(
        wrong("n", None, Some(("no.such", "1"))),
        "Unknown topic config name: no.such"
    );
}

#[test]
fn size_and_age_shorten_a_log_and_its_rows_go() {
    let fixture = Fixture::new(64 << 20);
    let topic = fixture.topic(
        "t",
        1,
        &[("retention.bytes", "2500000"), ("retention.ms", "1000000")],
    );
    let at = topic.partitions[0];
    for n in 0..6u64 {
        // Each fills an index entry of its own.
        fixture.put(&topic, 0, 1000 + n, &vec![b'x'; 1 << 20][..1_048_000]);
    }
    fixture.broker.engine.fold_now().unwrap();
    retain(&fixture.broker, &ctx(2000)).unwrap();
    let left = bounds(&fixture.broker, at).unwrap().unwrap();
    assert!(left.start > 0 && left.end == 6, "{left:?}");
    let wish = Read {
        at,
        offset: 0,
        max_bytes: 10,
        at_least_one: true,
        committed: false,
        watch: None,
    };
    assert!(
        read(&fixture.broker, wish, &mut Vec::new())
            .unwrap()
            .unwrap()
            .out_of_range
    );
    fixture.broker.engine.fold_now().unwrap();
    let rows = |fixture: &Fixture| {
        let from = partition::batch_key(at, 0);
        let mut rows = 0;
        let visit = &mut |_: &[u8], _: &[u8]| {
            rows += 1;
            true
        };
        fixture
            .broker
            .engine
            .scan(Keyspace::Bodies, &from, None, 100, visit)
            .unwrap();
        rows
    };
    assert_eq!(rows(&fixture), 6 - left.start);
    let state = fixture.state(at);
    let fixture = fixture.reopen();
    assert_eq!(fixture.state(at), state);
    retain(&fixture.broker, &ctx(2_000_000)).unwrap();
    assert_eq!(
        bounds(&fixture.broker, at).unwrap(),
        Some(Bounds {
            start: 6,
            high_watermark: 6,
            last_stable: 6,
            end: 6
        })
    );
    let fixture = fixture.reopen();
    let topic = fixture.broker.topics.get("t").unwrap();
    assert_eq!(
        fixture.put(&topic, 0, 2_000_001, b"on"),
        6,
        "offsets are never used again"
    );
}

#[test]
fn a_deleted_topic_is_gone_at_once_and_its_rows_later() {
    let fixture = Fixture::new(64 << 20);
    let topic = fixture.topic("t", 2, &[]);
    fixture.put(&topic, 0, 5, b"x");
    let mut fx = Effects::new();
    let mut locked = fixture.broker.lock(DELETE_LOCKS);
    delete(&mut locked, &mut fx, "t").unwrap();
    locked.commit(Millis(6), &mut fx);
    drop(locked);
    // A session that still holds the topic.
    let bytes = batch::single(7, None, Some(b"late"), &[]);
    assert_eq!(
        fixture.append(&topic, 0, 7, bytes),
        Err(AppendError::Unknown)
    );
    let again = fixture.topic("t", 2, &[]);
    assert_eq!(
        (again.id == topic.id, fixture.put(&again, 0, 8, b"new")),
        (false, 0)
    );
    let rows = |fixture: &Fixture| {
        let mut rows = 0;
        let visit = &mut |_: &[u8], _: &[u8]| {
            rows += 1;
            true
        };
        fixture
            .broker
            .engine
            .scan(Keyspace::Bodies, &[], None, 100, visit)
            .unwrap();
        rows
    };
    fixture.broker.engine.fold_now().unwrap();
    while sweep_deleted(&fixture.broker, &ctx(9)).unwrap() {}
    fixture.broker.engine.fold_now().unwrap();
    assert_eq!(rows(&fixture), 1);
    let fixture = fixture.reopen();
    assert_eq!(
        fixture
            .broker
            .lock_one(ShardId::CATALOG)
            .catalog()
            .streams
            .graves,
        []
    );
}

#[test]
fn records_are_found_by_time() {
    let fixture = Fixture::new(64 << 20);
    let topic = fixture.topic("t", 1, &[]);
    let at = topic.partitions[0];
    for time in [10u64, 30, 20, 50, 40] {
        let bytes = batch::single(time as i64, None, Some(b"v"), &[]);
        fixture.append(&topic, 0, 100, bytes).unwrap();
    }
    for _ in 0..2 {
        let since = |time| find(&fixture.broker, at, Moment::Since(time)).unwrap();
        assert_eq!(since(0), Some((0, 10)));
        assert_eq!(since(15), Some((1, 30)));
        assert_eq!(since(31), Some((3, 50)));
        assert_eq!(since(51), None);
        assert_eq!(
            find(&fixture.broker, at, Moment::Newest).unwrap(),
            Some((3, 50))
        );
        fixture.broker.engine.fold_now().unwrap();
    }
}

#[test]
fn committed_offsets_outlive_a_restart() {
    use group::Committed;
    let fixture = Fixture::new(64 << 20);
    let topic = fixture.topic("t", 1, &[]);
    let at = Committed {
        offset: 42,
        leader_epoch: 0,
        metadata: "note".into(),
        at: Millis(5),
    };
    let all = crate::ShardSet::ALL;
    let mut fx = Effects::new();
    let mut locked = fixture.broker.lock(all);
    group::commit(
        &mut locked,
        &mut fx,
        "g",
        Millis(5),
        &[((topic.id, 0), at.clone())],
    )
    .unwrap();
    locked.commit(Millis(5), &mut fx);
    drop(locked);
    let fixture = fixture.reopen();
    let mut locked = fixture.broker.lock(all);
    let engine = Arc::clone(&fixture.broker.engine);
    let group = group::get(&mut locked, "g", Millis(6)).unwrap();
    group.load_offsets(&engine).unwrap();
    drop(engine);
    assert_eq!(group.committed(topic.id, 0), Some(&at));
    assert_eq!(
        group::delete_group(&mut locked, &mut fx, "g", Millis(7)).unwrap(),
        Ok(())
    );
    locked.commit(Millis(7), &mut fx);
    assert!(group::get(&mut locked, "g", Millis(8)).is_none());
    drop(locked);
    let fixture = fixture.reopen();
    let mut locked = fixture.broker.lock(all);
    assert!(group::get(&mut locked, "g", Millis(9)).is_none());
}

#[derive(Debug, Clone)]
enum Step {
    Put {
        partition: usize,
        size: usize,
        time: u64,
    },
    Idempotent {
        partition: usize,
        producer: i64,
        count: i32,
    },
    Retain {
        now: u64,
    },
    Fold,
    Read {
        partition: usize,
    },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0usize..3, 0usize..700_000, 0u64..1_000).prop_map(|(partition, size, time)| Step::Put { partition, size, time }),
        3 => (0usize..3, 0i64..3, 1i32..5).prop_map(|(partition, producer, count)| Step::Idempotent { partition, producer, count }),
        1 => (1_000u64..4_000).prop_map(|now| Step::Retain { now }),
        1 => Just(Step::Fold),
        2 => (0usize..3).prop_map(|partition| Step::Read { partition }),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    /// The law: memory that is dropped and loaded again is the same memory. And wherever a batch is by now (memory, log, tables),
    /// it is what was appended.
    #[test]
    fn what_is_loaded_is_what_was_there(steps in proptest::collection::vec(step(), 1..40)) {
        // 1 MiB for batches: most are in the log only until they are folded.
        let mut fixture = Fixture::new(4 << 20);
        let configs = [("retention.bytes", "2000000"), ("retention.ms", "2500")];
        let topic = fixture.topic("t", 3, &configs);
        let mut sequences = std::collections::HashMap::new();
        let mut model = [const { Vec::new() }; 3];
        let check = |fixture: &Fixture, model: &[Vec<(u64, Bytes)>; 3], partition: usize| {
            let at = topic.partitions[partition];
            let start = bounds(&fixture.broker, at).unwrap().unwrap().start;
            let left = model[partition].iter().filter(|(offset, _)| *offset >= start);
            assert!(fixture.values(at, start).iter().eq(left), "partition {partition}");
        };
        for (n, step) in steps.into_iter().chain([Step::Reopen]).enumerate() {
            match step {
                Step::Put { partition, size, time } => {
                    let value = vec![n as u8; size];
                    let bytes = batch::single(time as i64, None, Some(&value), &[]);
                    let appended = fixture.append(&topic, partition, 1_000, bytes).unwrap();
                    model[partition].push((appended.base_offset, value.into()));
                }
                Step::Idempotent { partition, producer, count } => {
                    let next = sequences.entry((partition, producer)).or_insert(0);
                    let bytes = batch::tests::idempotent(count, producer, 0, *next);
                    let appended = fixture.append(&topic, partition, 1_000, bytes).unwrap();
                    prop_assert!(!appended.duplicate);
                    model[partition].push((appended.base_offset, Bytes::from_static(b"v")));
                    *next += count;
                }
                Step::Retain { now } => retain(&fixture.broker, &ctx(now)).unwrap(),
                Step::Fold => fixture.broker.engine.fold_now().unwrap(),
                Step::Read { partition } => check(&fixture, &model, partition),
                Step::Reopen => {
                    (0..3).for_each(|partition| check(&fixture, &model, partition));
                    let before: Vec<_> = topic.partitions.iter().map(|at| fixture.state(*at)).collect();
                    let ranges: Vec<_> = topic.partitions.iter().map(|at| bounds(&fixture.broker, *at).unwrap()).collect();
                    fixture = fixture.reopen();
                    let after: Vec<_> = topic.partitions.iter().map(|at| fixture.state(*at)).collect();
                    prop_assert_eq!(before, after);
                    for (at, range) in topic.partitions.iter().zip(ranges) {
                        prop_assert_eq!(bounds(&fixture.broker, *at).unwrap(), range);
                    }
                    (0..3).for_each(|partition| check(&fixture, &model, partition));
                }
            }
        }
    }
}

/// A transactional producer, as far as the partitions are concerned.
struct Writer<'a> {
    fixture: &'a Fixture,
    id: &'static str,
    producer: transaction::Instance,
    sequence: i32,
}

impl<'a> Writer<'a> {
    fn begin(fixture: &'a Fixture, id: &'static str, now: u64) -> Self {
        let producer = fixture.change(now, id, |locked, fx| {
            transaction::init(locked, fx, Millis(now), id, 1000, None).unwrap()
        });
        Self {
            fixture,
            id,
            producer,
            sequence: 0,
        }
    }

    fn write(&mut self, topic: &Topic, index: usize, now: u64) -> Result<u64, AppendError> {
        let place = (topic.id, index as i32);
        let (id, producer) = (self.id, self.producer);
        let added = self.fixture.change(now, id, |locked, fx| {
            transaction::add_places(locked, fx, Millis(now), id, producer, &[place])
        });
        added.map_err(|_| AppendError::OldEpoch)?;
        let bytes = batch::tests::transactional(1, producer.id, producer.epoch, self.sequence);
        let done = self.fixture.append(topic, index, now, bytes)?;
        self.sequence += 1;
        Ok(done.base_offset)
    }

    fn end(&mut self, committed: bool, now: u64) -> Result<(), transaction::TransactionError> {
        let (id, producer) = (self.id, self.producer);
        self.producer = self.fixture.change(now, id, |locked, fx| {
            transaction::end(locked, fx, Millis(now), id, producer, committed, true)
        })?;
        self.sequence = 0;
        Ok(())
    }
}

impl Fixture {
    /// Under the locks of this id's transaction.
    fn change<R>(
        &self,
        now: u64,
        id: &str,
        act: impl FnOnce(&mut Locked<'_>, &mut Effects) -> R,
    ) -> R {
        let mut fx = Effects::new();
        let mut locked = transaction::lock(&self.broker, id);
        let done = act(&mut locked, &mut fx);
        locked.commit(Millis(now), &mut fx);
        drop(locked);
        self.broker.engine.flush();
        done
    }

    fn stable(&self, at: PartitionRef) -> u64 {
        bounds(&self.broker, at).unwrap().unwrap().last_stable
    }
}

#[test]
fn transactions_end_everywhere_or_nowhere_and_after_a_restart_too() {
    let fixture = Fixture::new(64 << 20);
    let topic = fixture.topic("t", 3, &[]);
    let at = topic.partitions[0];
    let mut one = Writer::begin(&fixture, "one", 1);
    let mut two = Writer::begin(&fixture, "two", 1);
    for index in 0..3 {
        assert_eq!(one.write(&topic, index, 2).unwrap(), 0);
    }
    assert_eq!(two.write(&topic, 0, 2).unwrap(), 1);
    assert_eq!(fixture.put(&topic, 0, 2, b"plain"), 2);
    assert_eq!(fixture.stable(at), 0);
    one.end(false, 3).unwrap();
    assert_eq!(fixture.stable(at), 1, "the other one is open");
    let (one, two) = (one.producer, two.producer);
    let state = fixture.state(at);
    let fixture = fixture.reopen();
    assert_eq!((fixture.stable(at), fixture.state(at)), (1, state));
    let mut two = Writer {
        fixture: &fixture,
        id: "two",
        producer: two,
        sequence: 1,
    };
    two.end(true, 4).unwrap();
    assert_eq!(fixture.stable(at), 5, "three records and two markers");
    for index in 1..3 {
        assert_eq!(fixture.stable(topic.partitions[index]), 2);
    }
    let mut batches = Vec::new();
    let wish = Read {
        at,
        offset: 0,
        max_bytes: 1 << 20,
        at_least_one: true,
        committed: true,
        watch: None,
    };
    let got = read(&fixture.broker, wish, &mut batches).unwrap().unwrap();
    assert!(got.any_aborted);
    let aborted = |offset| aborted(&fixture.broker, at, offset, &batches).unwrap();
    let first = Aborted {
        producer_id: one.id,
        first: 0,
        last: 3,
        stable: 1,
    };
    assert_eq!(aborted(0), Some(vec![first]));
    assert_eq!(aborted(4), Some(Vec::new()));
    let mut fx = Effects::new();
    let mut locked = fixture.broker.lock_one(at.shard());
    delete_below(&mut locked, &mut fx, at, Some(4)).unwrap();
    locked.commit(Millis(5), &mut fx);
    drop(locked);
    assert_eq!(aborted(0), None, "what was read is of nobody now");
    assert_eq!(crate::law::check(&fixture.broker, 9).unwrap(), []);
}

#[test]
fn who_is_late_or_replaced_writes_no_more() {
    let fixture = Fixture::new(64 << 20);
    let topic = fixture.topic("t", 1, &[]);
    let at = topic.partitions[0];
    let mut old = Writer::begin(&fixture, "one", 1);
    assert_eq!(old.write(&topic, 0, 2).unwrap(), 0);
    let mut new = Writer::begin(&fixture, "one", 3);
    assert_eq!((new.producer.id, new.producer.epoch), (old.producer.id, 1));
    assert_eq!(fixture.stable(at), 2, "aborted");
    assert_eq!(old.end(true, 4), Err(transaction::TransactionError::Fenced));
    let late = batch::tests::transactional(1, old.producer.id, 0, 1);
    assert_eq!(
        fixture.append(&topic, 0, 4, late),
        Err(AppendError::OldEpoch)
    );
    assert_eq!(new.write(&topic, 0, 5).unwrap(), 2);
    let expire = |now| {
        assert!(!transaction::expire(&fixture.broker, Millis(now)).unwrap());
        fixture.broker.engine.flush();
    };
    expire(1005);
    assert_eq!(fixture.stable(at), 2);
    expire(1006);
    assert_eq!(fixture.stable(at), 4);
    assert_eq!(
        new.end(true, 1007),
        Err(transaction::TransactionError::Fenced)
    );
    let week = 7 * 24 * 60 * 60 * 1000;
    expire(1007 + week);
    assert_eq!(
        new.end(true, 1007),
        Err(transaction::TransactionError::Mapping)
    );
    assert_eq!(crate::law::check(&fixture.broker, 9).unwrap(), []);
}

#[test]
fn an_answer_that_was_lost_is_given_again_and_epochs_run_out() {
    let fixture = Fixture::new(64 << 20);
    let topic = fixture.topic("t", 1, &[]);
    let mut one = Writer::begin(&fixture, "one", 1);
    one.write(&topic, 0, 2).unwrap();
    let before = one.producer;
    one.end(true, 3).unwrap();
    let after = one.producer;
    assert_eq!((after.id, after.epoch), (before.id, 1));
    one.producer = before;
    one.end(true, 4).unwrap();
    assert_eq!(one.producer, after);
    one.producer = before;
    assert_eq!(
        one.end(false, 4),
        Err(transaction::TransactionError::Fenced)
    );
    one.producer = after;
    assert_eq!(one.end(true, 4), Err(transaction::TransactionError::State));
    for _ in 0..i16::MAX {
        one.end(false, 5).unwrap();
    }
    assert_ne!(one.producer.id, before.id);
    assert!((0..i16::MAX).contains(&one.producer.epoch));
}
