//! What the topic of a database tells is what happened: who replays it has the same keys.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value as Json;
use storage::Durability;

use super::*;
use crate::cache::EntryId;
use crate::stream::{self, Read, batch};
use crate::{Ctx, DATA_SHARDS, keyspace};

#[derive(Debug)]
enum Model {
    Text(Vec<u8>),
    Hash(ToldHash),
    List(BTreeMap<i64, Vec<u8>>),
    Set(std::collections::BTreeSet<Vec<u8>>),
    Zset(BTreeMap<Vec<u8>, f64>),
    Stream(Told),
}

#[derive(Debug, Default)]
struct ToldHash {
    fields: BTreeMap<Vec<u8>, Vec<u8>>,
    deadlines: BTreeMap<Vec<u8>, u64>,
}

/// A stream as it is told.
#[derive(Debug, Default)]
struct Told {
    entries: BTreeMap<EntryId, Vec<(String, String)>>,
    last: EntryId,
    deleted: EntryId,
    added: u64,
    groups: BTreeMap<String, ToldGroup>,
}

#[derive(Debug, Default)]
struct ToldGroup {
    last: EntryId,
    read: i64,
    consumers: std::collections::BTreeSet<String>,
    pending: BTreeMap<EntryId, (String, u64, u64)>,
}

fn id(json: &Json) -> EntryId {
    let (ms, seq) = json
        .as_str()
        .and_then(|id| id.split_once('-'))
        .expect("an id");
    EntryId {
        ms: ms.parse().expect("ms"),
        seq: seq.parse().expect("seq"),
    }
}

fn escaped(json: &Json) -> String {
    bytes(json).escape_ascii().to_string()
}

impl Told {
    fn apply(&mut self, op: &str, told: &Json) {
        let list = |name: &str| told[name].as_array().expect("a list").iter();
        match op {
            "xadd" => list("entries").for_each(|entry| {
                let fields = entry[1].as_array().expect("fields");
                let pairs = fields
                    .chunks(2)
                    .map(|pair| (escaped(&pair[0]), escaped(&pair[1])));
                self.last = id(&entry[0]);
                self.added += 1;
                self.entries.insert(self.last, pairs.collect());
            }),
            "xdel" => {
                list("ids").for_each(|gone| assert!(self.entries.remove(&id(gone)).is_some()))
            }
            "xsetid" => list("ids").for_each(|ids| {
                (self.last, self.deleted) = (id(&ids[0]), id(&ids[1]));
                self.added = ids[2].as_u64().expect("added");
            }),
            "xgroup" => list("groups").for_each(|group| {
                let at = self.groups.entry(escaped(&group[0])).or_default();
                (at.last, at.read) = (id(&group[1]), group[2].as_i64().expect("read"));
            }),
            "xgroup_destroy" => list("groups").for_each(|group| {
                assert!(self.groups.remove(&escaped(group)).is_some());
            }),
            "xgroup_createconsumer" => list("consumers").for_each(|pair| {
                assert!(self.group(&pair[0]).consumers.insert(escaped(&pair[1])));
            }),
            "xgroup_delconsumer" => list("consumers").for_each(|pair| {
                let (group, name) = (self.group(&pair[0]), escaped(&pair[1]));
                assert!(group.consumers.remove(&name));
                group.pending.retain(|_, (of, ..)| *of != name);
            }),
            "xclaim" => list("pending").for_each(|all| {
                let facts = (
                    escaped(&all[2]),
                    all[3].as_u64().expect("ms"),
                    all[4].as_u64().expect("count"),
                );
                self.group(&all[0]).pending.insert(id(&all[1]), facts);
            }),
            "xnack" => list("pending").for_each(|all| {
                let facts = (String::new(), 0, all[2].as_u64().expect("count"));
                self.group(&all[0]).pending.insert(id(&all[1]), facts);
            }),
            "xack" => list("pending").for_each(|pair| {
                assert!(self.group(&pair[0]).pending.remove(&id(&pair[1])).is_some());
            }),
            other => panic!("{other}"),
        }
    }

    fn group(&mut self, name: &Json) -> &mut ToldGroup {
        self.groups.get_mut(&escaped(name)).expect("a group")
    }

    fn shown(&self) -> String {
        let entries: BTreeMap<_, _> = (self.entries.iter())
            .map(|(id, pairs)| (id.to_string(), pairs))
            .collect();
        let groups: BTreeMap<_, _> = (self.groups.iter())
            .map(|(name, group)| {
                let pending: BTreeMap<_, _> = (group.pending.iter())
                    .map(|(id, facts)| (id.to_string(), facts))
                    .collect();
                (
                    name,
                    (
                        (group.last.to_string(), group.read),
                        &group.consumers,
                        pending,
                    ),
                )
            })
            .map(|(name, (state, consumers, pending))| {
                (name, (state, consumers.iter().collect::<Vec<_>>(), pending))
            })
            .collect();
        let (last, deleted, added) = (self.last, self.deleted, self.added);
        format!("stream {entries:?} last {last} deleted {deleted} added {added} {groups:?}")
    }
}

/// Without when consumers were seen, which is not told.
fn unseen(keys: BTreeMap<Vec<u8>, (String, u64)>) -> BTreeMap<Vec<u8>, (String, u64)> {
    let cut = |shown: String| match shown.rfind(" seen ") {
        Some(at) if shown.starts_with("stream ") => shown[..at].to_owned(),
        _ => shown,
    };
    keys.into_iter()
        .map(|(key, (shown, at))| (key, (cut(shown), at)))
        .collect()
}

impl Model {
    /// As [`shown`] shows a value.
    fn shown(&self) -> String {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        match self {
            Self::Text(bytes) => format!("string \"{}\"", bytes.escape_ascii()),
            Self::Hash(told) => {
                let fields = told.fields.iter().map(|(k, v)| (text(k), text(v)));
                let fields: BTreeMap<_, _> = fields.collect();
                let deadlines = told.deadlines.iter().map(|(k, at)| (text(k), *at));
                let deadlines: BTreeMap<_, _> = deadlines.collect();
                if deadlines.is_empty() {
                    format!("hash {fields:?}")
                } else {
                    format!("hash {fields:?} deadlines {deadlines:?}")
                }
            }
            Self::List(items) => {
                let items: Vec<_> = items.values().map(|item| text(item)).collect();
                format!("list {items:?}")
            }
            Self::Set(members) => {
                let mut members: Vec<_> = members.iter().map(|member| text(member)).collect();
                members.sort_unstable();
                format!("set {members:?}")
            }
            Self::Stream(told) => told.shown(),
            Self::Zset(members) => {
                let mut all: Vec<_> = members.iter().collect();
                all.sort_by(|a, b| a.1.total_cmp(b.1).then(a.0.cmp(b.0)));
                let all: Vec<_> = all.into_iter().map(|(m, s)| (text(m), *s)).collect();
                format!("zset {all:?}")
            }
        }
    }
}

fn bytes(json: &Json) -> Vec<u8> {
    match json {
        Json::String(text) => text.clone().into_bytes(),
        other => BASE64_STANDARD
            .decode(other["base64"].as_str().expect("base64"))
            .expect("base64"),
    }
}

type Keys = BTreeMap<Vec<u8>, (Model, u64)>;

fn replay(keys: &mut Keys, key: Vec<u8>, told: &Json) {
    let list = |name: &str| told[name].as_array().expect("a list").iter();
    macro_rules! of {
        ($kind:ident) => {{
            let (model, _) = keys
                .entry(key.clone())
                .or_insert_with(|| (Model::$kind(Default::default()), 0));
            match model {
                Model::$kind(inner) => inner,
                other => panic!("{told} for {other:?}"),
            }
        }};
    }
    match told["op"].as_str().expect("a name") {
        "set" => {
            let at = told["expires_ms"].as_u64().unwrap_or(0);
            keys.insert(key, (Model::Text(bytes(&told["value"])), at));
        }
        "del" | "expired" => drop(keys.remove(&key).expect("it was there")),
        "expire" => keys.get_mut(&key).expect("a key").1 = told["expires_ms"].as_u64().unwrap(),
        "persist" => keys.get_mut(&key).expect("a key").1 = 0,
        "hset" => {
            let fields = list("fields").map(|pair| (bytes(&pair[0]), bytes(&pair[1])));
            of!(Hash).fields.extend(fields);
        }
        "hdel" => list("fields").for_each(|field| {
            let hash = of!(Hash);
            hash.fields.remove(&bytes(field));
            hash.deadlines.remove(&bytes(field));
        }),
        "hexpire" => {
            let fields = list("fields").map(|pair| (bytes(&pair[0]), pair[1].as_u64().unwrap()));
            of!(Hash).deadlines.extend(fields);
        }
        "hpersist" => list("fields").for_each(|field| {
            assert!(of!(Hash).deadlines.remove(&bytes(field)).is_some());
        }),
        "sadd" => of!(Set).extend(list("members").map(bytes)),
        "srem" => list("members").for_each(|m| assert!(of!(Set).remove(&bytes(m)))),
        "zadd" => {
            let members = list("members").map(|pair| (bytes(&pair[0]), pair[1].as_f64().unwrap()));
            of!(Zset).extend(members);
        }
        "zrem" => list("members").for_each(|m| assert!(of!(Zset).remove(&bytes(m)).is_some())),
        "rpush" | "lpush" | "lset" => {
            let items = list("items").map(|pair| (pair[0].as_i64().unwrap(), bytes(&pair[1])));
            of!(List).extend(items);
        }
        "rpop" | "lpop" | "lrem" => {
            list("positions").for_each(|at| drop(of!(List).remove(&at.as_i64().unwrap())));
        }
        op if op.starts_with('x') => of!(Stream).apply(op, told),
        other => panic!("{other}"),
    }
}

/// Records of a partition, all that are readable.
fn records(broker: &Broker, db: usize, index: i32) -> Vec<batch::Record> {
    let topic = broker
        .topics
        .get(&format!("__keyspace.{db}"))
        .expect("topic");
    let mut all: Vec<batch::Record> = Vec::new();
    loop {
        let mut batches = Vec::new();
        let wish = Read {
            at: topic.partition(index).expect("partition"),
            offset: all.len() as u64,
            max_bytes: 1 << 20,
            at_least_one: true,
            committed: false,
            watch: None,
        };
        stream::read(broker, wish, &mut batches).expect("read");
        if batches.is_empty() {
            return all;
        }
        for batch in &batches {
            assert!(batch::Header::check(batch).is_ok());
            all.extend(batch::records(batch).expect("a batch"));
        }
    }
}

fn replayed(broker: &Broker) -> BTreeMap<Vec<u8>, (String, u64)> {
    broker.engine.flush();
    let mut keys = Keys::new();
    for index in 0..DATA_SHARDS as i32 {
        for (offset, record) in records(broker, 0, index).into_iter().enumerate() {
            assert_eq!(record.offset, offset as u64);
            let told: Json = serde_json::from_slice(&record.value.expect("a value")).expect("JSON");
            match record.key {
                Some(key) => {
                    assert_eq!(Name::new(&key).slot.shard().0, index as u8);
                    replay(&mut keys, key.to_vec(), &told);
                }
                None => {
                    assert_eq!(told["op"], "flushdb");
                    keys.retain(|key, _| Name::new(key).slot.shard().0 != index as u8);
                }
            }
        }
    }
    let shown = |(key, (model, at)): (_, (Model, _))| (key, (model.shown(), at));
    keys.into_iter().map(shown).collect()
}

fn tell(broker: &Broker) {
    broker.topics.set_durability(Durability::Os);
    keyspace::tell(broker, &Ctx::new(Millis(1), 1), 1).expect("topics");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn who_replays_the_topic_has_the_keys(ops in prop::collection::vec(op(), 1..80)) {
        let (_dir, broker) = broker();
        tell(&broker);
        let mut now = 1;
        // Memory that was dropped does not know any more that it is to tell.
        for op in ops.iter().filter(|op| !matches!(op, Op::Reload)) {
            now += 40;
            apply(&broker, op, now);
        }
        let keys = unseen(dump(&broker, 0, now));
        prop_assert_eq!(replayed(&broker), keys);
    }

    #[test]
    fn two_connections_are_told_in_order_and_a_kill_loses_and_repeats_nothing(
        ops in [prop::collection::vec(op(), 20..80), prop::collection::vec(op(), 20..80)],
    ) {
        let dir = tempfile::tempdir().expect("a directory");
        let open = || {
            let mut options = Options::new(dir.path());
            options.fold_bytes = 16 << 10;
            options.batch_bytes = 12 << 10;
            let engine = Engine::open(options).expect("engine");
            let broker = Broker::open(engine, Budgets::split(1 << 30)).expect("broker");
            tell(&broker);
            broker
        };
        let clock = AtomicU64::new(1);
        for part in 0..2 {
            let broker = open();
            std::thread::scope(|scope| {
                for ops in &ops {
                    let half = ops.chunks(ops.len().div_ceil(2)).nth(part).unwrap_or_default();
                    let (broker, clock) = (&broker, &clock);
                    scope.spawn(move || {
                        for op in half.iter().filter(|op| !matches!(op, Op::Reload)) {
                            apply(broker, op, clock.fetch_add(40, Ordering::SeqCst));
                            broker.engine.flush();
                        }
                    });
                }
            });
            // Not closed: the log is left as a killed process leaves it.
        }
        let broker = open();
        let keys = unseen(dump(&broker, 0, clock.load(Ordering::SeqCst)));
        prop_assert_eq!(replayed(&broker), keys);
    }
}

#[test]
fn only_wanted_databases_are_told_and_nothing_when_off() {
    let (_dir, broker) = broker();
    broker.topics.set_durability(Durability::Os);
    keyspace::tell(&broker, &Ctx::new(Millis(1), 1), 0b10).expect("topics");
    apply(&broker, &Op::Set(1, b"v".to_vec(), Expire::Never), 2);
    assert!(broker.topics.get("__keyspace.0").is_none());
    let count = |broker: &Broker| -> usize {
        broker.engine.flush();
        (0..DATA_SHARDS as i32)
            .map(|index| records(broker, 1, index).len())
            .sum()
    };
    assert_eq!(count(&broker), 0);
    let set = |broker: &Broker, value: &[u8]| {
        let mut fx = Effects::new();
        let name = Name::new(b"k");
        let mut locked = broker.lock_one(name.slot.shard());
        let shard = locked.shard(name.slot.shard());
        let mut view = shard.keys(1, Millis(3), &mut fx);
        view.set_string(&name, value, Expire::Never).expect("set");
        locked.commit(Millis(3), &mut fx);
    };
    set(&broker, b"told");
    assert_eq!(count(&broker), 1);
    keyspace::tell(&broker, &Ctx::new(Millis(4), 2), 0).expect("off");
    set(&broker, b"not told");
    assert_eq!(count(&broker), 1);
}

#[test]
fn clients_may_not_make_or_delete_such_topics() {
    let (_dir, broker) = broker();
    tell(&broker);
    let ctx = Ctx::new(Millis(1), 1);
    let refused = stream::ensure_topic(&broker, &ctx, "__keyspace.3");
    assert!(matches!(refused, Err(stream::TopicError::InvalidName(_))));
    let mut fx = Effects::new();
    let mut locked = broker.lock(ShardSet::ALL);
    let refused = stream::delete(&mut locked, &mut fx, "__keyspace.0");
    assert!(matches!(refused, Err(stream::TopicError::InvalidName(_))));
    drop(locked);
    keyspace::tell(&broker, &ctx, 0).expect("off");
    let mut locked = broker.lock(ShardSet::ALL);
    stream::delete(&mut locked, &mut fx, "__keyspace.0").expect("nobody writes it any more");
}
