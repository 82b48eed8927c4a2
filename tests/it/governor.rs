//! A server that runs short of disk or memory, on all three faces: what it refuses, what goes on, and that it recovers by itself.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use protocol_kafka::wire::Reader;

use crate::server::Server;
use crate::{amqp, kafka};

/// A Redis connection that is kept.
struct Redis {
    socket: TcpStream,
}

impl Redis {
    fn connect(server: &Server) -> Self {
        let socket = TcpStream::connect(server.addr("resp")).unwrap();
        let patience = Some(Duration::from_secs(20));
        socket.set_read_timeout(patience).unwrap();
        Self { socket }
    }

    /// The answer's first line, and the string behind it if it is one.
    fn ask(&mut self, command: &[&[u8]]) -> String {
        let mut request = format!("*{}\r\n", command.len()).into_bytes();
        for word in command {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.socket.write_all(&request).unwrap();
        let line = self.line();
        match line
            .strip_prefix('$')
            .and_then(|size| size.parse::<usize>().ok())
        {
            Some(size) => {
                let mut text = vec![0; size + 2];
                self.socket.read_exact(&mut text).unwrap();
                text.truncate(size);
                String::from_utf8_lossy(&text).into_owned()
            }
            None => line,
        }
    }

    fn say(&mut self, command: &str) -> String {
        let words: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        self.ask(&words)
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.socket.read_exact(&mut byte).unwrap();
            line.push(byte[0]);
        }
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }
}

/// One sample of `/metrics`.
fn metric(server: &Server, name: &str) -> f64 {
    let (_, text) = server.get("/metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
    line.trim().parse().unwrap()
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn wait_for_level(server: &Server, cause: &str, level: f64) {
    let name = format!("flowmesh_pressure_level{{cause=\"{cause}\"}}");
    wait_for(&name, || metric(server, &name) == level);
}

/// Somebody else's file that leaves no room at all. Gone when it is deleted.
fn fill(dir: &Path) -> PathBuf {
    let path = dir.join("of-somebody-else");
    let mut file = File::create(&path).unwrap();
    let mut size = 1 << 20;
    while size > 0 {
        match file.write(&vec![7; size]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => size /= 2,
            Err(error) => panic!("{error}"),
        }
    }
    path
}

/// Error, offset and throttle time of a Produce response.
fn produced(body: &[u8]) -> (i16, i64, i32) {
    let mut reader = Reader::new(body);
    reader.count(true).unwrap();
    reader.string(true).unwrap();
    reader.count(true).unwrap();
    reader.i32().unwrap();
    let (error, offset) = (reader.i16().unwrap(), reader.i64().unwrap());
    let throttle = body[body.len() - 5..].first_chunk().unwrap();
    (error, offset, i32::from_be_bytes(*throttle))
}

/// A Produce request that waits so long for its answer.
fn produce_within(topic: &str, value: &[u8], timeout_ms: i32) -> Vec<u8> {
    let mut body = kafka::produce_body(topic, -1, &kafka::record(value));
    body[3..7].copy_from_slice(&timeout_ms.to_be_bytes());
    body
}

const SMALL_DISK: [&str; 3] = [
    "--disk-free-limit=16MiB",
    "--memory-limit=128MiB",
    "--fold-size=8MiB",
];

#[test]
fn a_disk_filled_by_somebody_else_stops_writes_on_all_faces_until_there_is_room_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_on_disk_of(64, dir.path(), &SMALL_DISK);
    let inside = server.inside(dir.path());
    let reserve = || std::fs::metadata(inside.join("reserve")).map_or(0, |about| about.len());
    wait_for("a reserve", || reserve() == 4 << 20);

    let mut redis = Redis::connect(&server);
    assert_eq!(redis.say("SET k before"), "+OK");
    assert_eq!(redis.say("RPUSH l 1 2 3"), ":3");
    let mut publisher = amqp::Client::connect_with(&server, "connection.blocked");
    publisher.declare("q", true);
    publisher.confirm_mode();
    for body in [b"1", b"2", b"3"] {
        publisher.publish("q", body, false);
    }
    publisher.confirmed(3);
    let mut consumer = amqp::Client::connect(&server);
    consumer.consume("q", 1);
    assert_eq!(consumer.delivery(), (b"1".to_vec(), false));
    let mut producer = kafka::Client::connect(&server);
    producer.call(3, 1, &kafka::metadata_body("t")).unwrap();
    assert_eq!(producer.produce("t", -1, &kafka::record(b"v")), (0, 0));

    let filler = fill(&inside);
    wait_for_level(&server, "disk", 2.0);

    // Redis: what grows is refused, the rest goes on, although not one block is free.
    let refused = redis.say("SET k after");
    assert!(refused.starts_with("-MISCONF The disk"), "{refused}");
    assert!(redis.say("FM.PUBLISH x y z").starts_with("-MISCONF"));
    assert_eq!(redis.say("GET k"), "before");
    assert_eq!(redis.say("RPOP l"), "3");
    assert_eq!(redis.say("EXPIRE l 1000"), ":1");
    assert_eq!(redis.say("PING"), "+PONG");
    assert_eq!(redis.say("MULTI"), "+OK");
    assert_eq!(redis.say("DEL l"), "+QUEUED");
    assert_eq!(redis.say("EXEC"), "*1");
    assert_eq!(redis.line(), ":1");
    assert_eq!(redis.say("MULTI"), "+OK");
    assert!(redis.say("SET k after").starts_with("-MISCONF"));
    let aborted = "-EXECABORT Transaction discarded because of previous errors.";
    assert_eq!(redis.say("EXEC"), aborted);
    let told = redis.say("INFO governor");
    assert!(told.contains("flowmesh_disk_level:stop\r\n"), "{told}");
    assert_eq!(
        metric(&server, "flowmesh_refused_writes_total{face=\"resp\"}"),
        3.0
    );

    // RabbitMQ: the publisher is held and told why; one that did not say that it understands is held in silence. Consumers
    // go on.
    publisher.publish("q", b"4", false);
    let told = publisher.expect("connection.blocked");
    assert!(told.contains("low on disk"), "{told}");
    let mut silent = amqp::Client::connect(&server);
    silent.confirm_mode();
    silent.publish("q", b"5", false);
    silent.hears_nothing(Duration::from_millis(200));
    assert_eq!(metric(&server, "flowmesh_held{face=\"amqp\"}"), 2.0);
    consumer.ack_until(1);
    assert_eq!(consumer.delivery(), (b"2".to_vec(), false));
    consumer.ack_until(2);
    assert_eq!(consumer.delivery(), (b"3".to_vec(), false));

    // Kafka: no answer while the client waits, then an error that makes it try again. Readers go on.
    let late = producer
        .call(0, 9, &produce_within("t", b"x", 1_000))
        .unwrap();
    assert_eq!(produced(&late), (7, -1, 1_000));
    let (error, end, batches) =
        kafka::fetched(&producer.call(1, 12, &kafka::fetch_body("t", 0, 0)).unwrap());
    assert_eq!((error, end, kafka::values(batches).len()), (0, 1, 1));
    producer.send(0, 9, &produce_within("t", b"w", 60_000));
    wait_for("a request that is held", || {
        metric(&server, "flowmesh_held{face=\"kafka\"}") == 1.0
    });
    assert_eq!(metric(&server, "flowmesh_held_total{face=\"kafka\"}"), 2.0);

    std::fs::remove_file(filler).unwrap();
    publisher.expect("connection.unblocked");
    publisher.confirmed(4);
    silent.confirmed(1);
    consumer.ack_until(3);
    let mut bodies = [consumer.delivery().0, Vec::new()];
    consumer.ack_until(4);
    bodies[1] = consumer.delivery().0;
    bodies.sort();
    assert_eq!(bodies, [b"4", b"5"], "each once");
    let (error, offset, throttle_ms) = produced(&producer.receive(0, 9).unwrap());
    assert_eq!((error, offset), (0, 1));
    assert!((1..=1_000).contains(&throttle_ms), "{throttle_ms}");
    assert_eq!(redis.say("SET k after"), "+OK");
    wait_for("the reserve again", || reserve() == 4 << 20);
    assert_eq!(metric(&server, "flowmesh_held{face=\"amqp\"}"), 0.0);
    let spent = "flowmesh_pressure_seconds_total{cause=\"disk\",level=\"stop\"}";
    assert!(metric(&server, spent) > 0.0);
    assert!(server.stop().success());
}

/// Octets that nothing makes smaller.
struct Noise(u64);

impl Noise {
    /// 64 KiB of them.
    fn block(&mut self) -> Vec<u8> {
        let octet = |_| {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (self.0 >> 56) as u8
        };
        (0..64 << 10).map(octet).collect()
    }
}

#[test]
fn a_disk_filled_by_messages_stops_publishers_and_consumers_make_room() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_on_disk_of(256, dir.path(), &SMALL_DISK[1..]);
    let mut publisher = amqp::Client::connect_with(&server, "connection.blocked");
    publisher.declare("q", true);
    publisher.confirm_mode();
    let mut noise = Noise(2);
    let mut sent = 0_u64;
    let told = loop {
        assert!(sent < 8_000, "never blocked");
        let mut body = sent.to_be_bytes().to_vec();
        body.extend_from_slice(&noise.block());
        publisher.publish("q", &body, false);
        sent += 1;
        // No slower than disks are.
        std::thread::sleep(Duration::from_millis(1));
        match publisher.next_is("basic.ack") {
            Ok(_) => {}
            Err(other) => break other,
        }
    };
    assert!(
        told.contains("connection.blocked") && told.contains("low on disk"),
        "{told}"
    );
    let mut consumer = amqp::Client::connect(&server);
    let mut taken = 0_u64;
    wait_for("every message", || {
        while let Some((body, _)) = consumer.get("q") {
            assert_eq!(body[..8], taken.to_be_bytes(), "each once, in order");
            assert_eq!(body.len(), 8 + (64 << 10));
            taken += 1;
        }
        taken == sent
    });
    publisher.expect("connection.unblocked");
    publisher.confirmed(sent);
    wait_for_level(&server, "disk", 0.0);
    assert!(server.stop().success());
}

#[test]
fn a_disk_filled_by_records_stops_producers_and_a_deleted_topic_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_on_disk_of(256, dir.path(), &SMALL_DISK[1..]);
    let mut producer = kafka::Client::connect(&server);
    for topic in ["long", "other"] {
        producer.call(3, 1, &kafka::metadata_body(topic)).unwrap();
    }
    let mut noise = Noise(3);
    let mut records = 0;
    loop {
        assert!(records < 8_000, "never refused");
        let body = produce_within("long", &noise.block(), 300);
        let (error, offset, _) = produced(&producer.call(0, 9, &body).unwrap());
        if error != 0 {
            assert_eq!((error, offset), (7, -1));
            break;
        }
        assert_eq!(offset, records);
        records += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
    // Whoever reads is served.
    let last = kafka::fetch_body("long", records - 1, 0);
    let (error, end, batches) = kafka::fetched(&producer.call(1, 12, &last).unwrap());
    assert_eq!((error, end, kafka::values(batches).len()), (0, records, 1));
    assert_eq!(producer.delete_topic("long"), 0);
    let (error, offset, _) = produced(
        &producer
            .call(0, 9, &produce_within("other", b"v", 20_000))
            .unwrap(),
    );
    assert_eq!((error, offset), (0, 0), "when there was room");
    wait_for_level(&server, "disk", 0.0);
    assert!(server.stop().success());
}

#[test]
fn a_disk_filled_by_the_server_stops_writes_and_deletions_make_room() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_on_disk_of(256, dir.path(), &SMALL_DISK[1..]);
    let mut redis = Redis::connect(&server);
    let mut noise = Noise(1);
    let mut keys = 0;
    let refused = loop {
        assert!(keys < 8_000, "never refused");
        let answer = redis.ask(&[b"SET", format!("k{keys}").as_bytes(), &noise.block()]);
        if answer != "+OK" {
            break answer;
        }
        keys += 1;
        // No slower than disks are; memory would be full between two looks.
        std::thread::sleep(Duration::from_millis(1));
    };
    assert!(refused.starts_with("-MISCONF The disk"), "{refused}");
    for key in [0, keys / 2, keys - 1] {
        assert_eq!(redis.say(&format!("STRLEN k{key}")), ":65536");
    }
    for key in 0..keys {
        assert_eq!(redis.say(&format!("DEL k{key}")), ":1");
    }
    wait_for("room again", || redis.say("SET k after") == "+OK");
    assert_eq!(redis.say("DBSIZE"), ":1");
    assert!(server.stop().success());
}

#[test]
fn memory_that_cannot_be_freed_stops_writes_until_its_owner_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let flags = [
        "--memory-limit=16MiB",
        "--table-cache=8MiB",
        // Else the client that holds most is closed before.
        "--client-memory-limit=unlimited",
    ];
    let server = Server::start_with(dir.path(), &flags);
    let mut redis = Redis::connect(&server);
    assert_eq!(redis.say("SET k before"), "+OK");
    let mut publisher = amqp::Client::connect_with(&server, "connection.blocked");
    publisher.declare("q", true);

    // What a transaction queues is nobody else's to free.
    let mut hoarder = Redis::connect(&server);
    assert_eq!(hoarder.say("MULTI"), "+OK");
    let value = vec![7; 1 << 20];
    let oom = "-OOM command not allowed when used memory > 'maxmemory'.";
    let mut queued = 0;
    loop {
        match hoarder.ask(&[b"SET", b"big", &value]).as_str() {
            "+QUEUED" => queued += 1,
            answer => break assert_eq!(answer, oom),
        }
        assert!(queued < 500, "never refused");
    }
    wait_for_level(&server, "memory", 2.0);
    assert_eq!(redis.say("SET k after"), oom);
    assert_eq!(redis.say("GET k"), "before");
    assert_eq!(redis.say("MULTI"), "+OK");
    assert_eq!(redis.say("GET k"), oom, "whatever is queued takes memory");
    assert!(redis.say("EXEC").starts_with("-EXECABORT"));
    assert_eq!(redis.say("DEL k"), ":1");
    publisher.publish("q", b"1", false);
    let told = publisher.expect("connection.blocked");
    assert!(told.contains("low on memory"), "{told}");

    drop(hoarder);
    publisher.expect("connection.unblocked");
    assert_eq!(redis.say("SET k after"), "+OK");
    wait_for("the message", || publisher.get("q").is_some());
    assert!(server.stop().success());
}
