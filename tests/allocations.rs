//! Allocations per operation, counted in the real sessions of the three faces, without sockets. A count, not a time: it is the
//! same on every machine. `cargo test --test allocations -- --nocapture` prints the table.

#[path = "support/amqp_login.rs"]
mod amqp_login;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use amqp_login::amqp_login;
use broker::access::{self, Grant, Kind, Namespace, Pattern, Scope, Settings, Verbs};
use broker::stream::batch;
use broker::{Effects, Millis, ShardId};
use bytes::BytesMut;
use flowmesh::config::{Config, Mode};
use flowmesh::net::{ConnHandle, ConnInfo, NewSession, Outbox, Session};
use flowmesh::node::Node;
use protocol_amqp::{Method, Properties, Table};
use protocol_kafka::Api;
use protocol_kafka::wire::{Reader, Write as _};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // At the end of a thread the counter may be gone already.
    let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
}

#[expect(
    unsafe_code,
    reason = "an allocator is; every call goes to the system's"
)]
// SAFETY: as the system's allocator, which does all the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the system's.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are the system's.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Turns that are counted, after as many that are not.
const TURNS: u32 = 500;

/// A session of one face, fed by hand.
struct Driver {
    node: Arc<Node>,
    session: Box<dyn Session>,
    input: BytesMut,
    out: Outbox,
}

impl Driver {
    fn new(node: &Arc<Node>, sessions: &NewSession) -> Self {
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let info = ConnInfo {
            id: 1,
            peer: here,
            local: here,
            unix: None,
            tls: false,
            handle: ConnHandle::detached().expect("a waker"),
        };
        Self {
            node: Arc::clone(node),
            session: sessions(info),
            input: BytesMut::with_capacity(1 << 16),
            out: Outbox::default(),
        }
    }

    /// One turn; what the session answers.
    fn turn(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.input.extend_from_slice(bytes);
        self.session.read(&mut self.input, &mut self.out);
        self.node.broker.engine.flush();
        assert!(self.input.is_empty(), "all of it was understood");
        std::mem::take(self.out.bytes())
    }

    /// One turn with a login in it, whose password is being hashed meanwhile.
    fn log_in(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut answer = self.turn(bytes);
        while answer.is_empty() {
            std::thread::yield_now();
            self.session.wake(&mut self.out);
            answer = std::mem::take(self.out.bytes());
        }
        answer
    }

    /// How often one turn allocates until the log is written, in the mean.
    fn mean(&mut self, bytes: &[u8]) -> f64 {
        let mut total = 0;
        for turn in 0..2 * TURNS {
            self.input.extend_from_slice(bytes);
            let before = ALLOCATIONS.get();
            self.session.read(&mut self.input, &mut self.out);
            self.node.broker.engine.flush();
            if turn >= TURNS {
                total += ALLOCATIONS.get() - before;
            }
            self.out.bytes().clear();
        }
        total as f64 / f64::from(TURNS)
    }
}

fn resp(words: &[&[u8]]) -> Vec<u8> {
    let mut command = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        command.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        command.extend_from_slice(word);
        command.extend_from_slice(b"\r\n");
    }
    command
}

fn amqp_declare(passive: bool) -> Vec<u8> {
    let declare = Method::QueueDeclare {
        ticket: 0,
        queue: "q".into(),
        passive,
        durable: true,
        exclusive: false,
        auto_delete: false,
        nowait: false,
        arguments: Table::default(),
    };
    let mut bytes = Vec::new();
    protocol_amqp::method(&mut bytes, 1, &declare);
    bytes
}

/// Messages in the queue, as queue.declare-ok says: it ends with messages, consumers and the end of the frame.
fn messages(declare_ok: &[u8]) -> u32 {
    let (_, end) = declare_ok.split_last_chunk::<9>().expect("a frame");
    u32::from_be_bytes([end[0], end[1], end[2], end[3]])
}

fn amqp_publish(body: &[u8], delivery_mode: u8) -> Vec<u8> {
    let publish = Method::BasicPublish {
        ticket: 0,
        exchange: "".into(),
        routing_key: "q".into(),
        mandatory: false,
        immediate: false,
    };
    let properties = Properties {
        delivery_mode: Some(delivery_mode),
        ..Properties::default()
    };
    let mut bytes = Vec::new();
    protocol_amqp::method(&mut bytes, 1, &publish);
    protocol_amqp::content_header(&mut bytes, 1, body.len() as u64, &properties.to_raw());
    protocol_amqp::content_body(&mut bytes, 1, body, 131_072);
    bytes
}

fn kafka(key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 4];
    frame.put_i16(key);
    frame.put_i16(version);
    frame.put_i32(1);
    frame.put_string("test", false);
    frame.put_no_tags(Api::find(key).expect("an API").is_flexible(version));
    frame.extend_from_slice(body);
    let size = u32::try_from(frame.len() - 4).expect("short");
    frame.splice(..4, size.to_be_bytes());
    frame
}

fn kafka_produce(batch: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_nullable_string(None, true);
    body.put_i16(1);
    body.put_i32(1000);
    body.put_length(1, true);
    body.put_string("t", true);
    body.put_length(1, true);
    body.put_i32(0);
    body.put_length(batch.len(), true);
    body.extend_from_slice(batch);
    body.extend_from_slice(&[0, 0, 0]);
    kafka(0, 9, &body)
}

/// Error and offset of a response to Produce.
fn produced(response: &[u8]) -> (i16, i64) {
    // Behind size, correlation id and tags.
    let mut reader = Reader::new(response.get(9..).expect("a response"));
    reader.count(true).expect("topics");
    reader.string(true).expect("a name");
    reader.count(true).expect("partitions");
    reader.i32().expect("a number");
    let error = reader.i16().expect("an error");
    (error, reader.i64().expect("an offset"))
}

/// Adds alice, who may use `key` and what begins with `count`; her password.
fn restricted(node: &Node) -> &'static [u8] {
    const PASSWORD: &[u8] = b"a password";
    let mut fx = Effects::new();
    let mut locked = node.broker.lock_one(ShardId::CATALOG);
    let settings = Settings {
        enabled: true,
        credentials: flowmesh::auth::from_password(PASSWORD).expect("credentials"),
        ..Settings::default()
    };
    access::create(&mut locked, "alice", settings, &mut fx).expect("created");
    for glob in ["key", "count*"] {
        let grant = Grant {
            principal: "alice".into(),
            scope: Scope::In(Namespace::DEFAULT),
            kind: Kind::Key,
            pattern: Pattern::glob(glob.as_bytes()).expect("short"),
            verbs: Verbs::READ.and(Verbs::WRITE),
            deny: false,
        };
        access::grant(&mut locked, grant, &mut fx).expect("granted");
    }
    locked.commit(Millis(1), &mut fx);
    PASSWORD
}

#[test]
fn allocations_per_operation() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = Config {
        data_dir: dir.path().to_owned(),
        ..Config::default()
    };
    let node = Node::open(config, Mode::Server, Vec::new()).expect("a node");
    let value = [b'v'; 128];
    let mut table: Vec<(&str, f64, f64)> = Vec::new();

    let mut redis = Driver::new(&node, &flowmesh::resp::sessions(&node));
    // What each may need at most: what grows (a list, a queue, a log) takes its memory in pieces.
    let cases: [(&str, &[&[u8]], f64); 9] = [
        ("SET, key exists", &[b"SET", b"key", &value], 0.0),
        ("GET", &[b"GET", b"key"], 0.0),
        ("INCR, key exists", &[b"INCR", b"counter"], 0.0),
        (
            "HSET, field exists",
            &[b"HSET", b"hash", b"field", b"value"],
            0.0,
        ),
        ("SADD, member exists", &[b"SADD", b"set", b"member"], 0.0),
        (
            "ZADD, member exists",
            &[b"ZADD", b"zset", b"1", b"member"],
            0.0,
        ),
        ("LPUSH", &[b"LPUSH", b"list", &value], 1.1),
        ("RPOP", &[b"RPOP", b"list"], 2.1),
        ("PING", &[b"PING"], 0.0),
    ];
    for (name, words, most) in cases {
        let command = resp(words);
        let reply = redis.turn(&command);
        assert!(!reply.starts_with(b"-"), "{}", reply.escape_ascii());
        table.push((name, redis.mean(&command), most));
    }

    let mut amqp = Driver::new(&node, &flowmesh::amqp::sessions(&node));
    amqp.turn(&amqp_login());
    amqp.turn(&amqp_declare(false));
    for (name, delivery_mode) in [
        ("basic.publish, transient, 128 bytes", 1),
        ("basic.publish, persistent, 128 bytes", 2),
    ] {
        let publish = amqp_publish(&value, delivery_mode);
        table.push((name, amqp.mean(&publish), 2.1));
    }
    let declared = amqp.turn(&amqp_declare(true));
    assert_eq!(messages(&declared), 4 * TURNS, "all are in the queue");

    let mut producer = Driver::new(&node, &flowmesh::kafka::sessions(&node));
    let mut body = Vec::new();
    body.put_i32(1);
    body.put_string("t", false);
    producer.turn(&kafka(3, 1, &body));
    let batch = batch::single(1, None, Some(&value), &[]).to_vec();
    let produce = kafka_produce(&batch);
    let name = "Produce, a batch of one record of 128 bytes";
    table.push((name, producer.mean(&produce), 0.5));
    let reply = producer.turn(&produce);
    assert_eq!(produced(&reply), (0, i64::from(2 * TURNS)));

    // The same as somebody who may not do everything.
    let login = restricted(&node);
    let mut alice = Driver::new(&node, &flowmesh::resp::sessions(&node));
    assert_eq!(alice.log_in(&resp(&[b"AUTH", b"alice", login])), b"+OK\r\n");
    let denied = alice.turn(&resp(&[b"GET", b"other"]));
    assert!(denied.starts_with(b"-NOPERM"), "{}", denied.escape_ascii());
    let cases: [(&str, &[&[u8]]); 3] = [
        ("SET, a literal grant", &[b"SET", b"key", &value]),
        ("GET, a literal grant", &[b"GET", b"key"]),
        ("INCR, a prefix grant", &[b"INCR", b"counter"]),
    ];
    for (name, words) in cases {
        let command = resp(words);
        let reply = alice.turn(&command);
        assert!(!reply.starts_with(b"-"), "{}", reply.escape_ascii());
        table.push((name, alice.mean(&command), 0.0));
    }

    for (name, allocations, _) in &table {
        eprintln!("{allocations:>6.2} allocations: {name}");
    }
    for (name, allocations, most) in &table {
        assert!(
            allocations <= most,
            "{name}: {allocations} allocations, at most {most} are needed"
        );
    }
}
