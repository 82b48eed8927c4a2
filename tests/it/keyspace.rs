//! The changes of the keyspace as Kafka topics: what was acknowledged is told once and in order, over kills and restarts.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use broker::stream::batch;
use bytes::Bytes;

use crate::kafka::{Client, fetch_partition_body, fetched};
use crate::server::Server;

const PARTITIONS: i32 = 8;
const FLAGS: [&str; 1] = ["--keyspace-topics=0"];

/// All records of the topic, each partition from offset 0: key and value.
fn told(server: &Server) -> Vec<(Option<Bytes>, serde_json::Value)> {
    let mut client = Client::connect(server);
    let mut all = Vec::new();
    for partition in 0..PARTITIONS {
        let mut next = 0;
        loop {
            let body = fetch_partition_body("__keyspace.0", partition, next, 0);
            let (error, end, batches) = fetched(&client.call(1, 12, &body).unwrap());
            assert_eq!(error, 0);
            let mut rest = Bytes::from(batches);
            while !rest.is_empty() {
                let (_, length) = batch::Header::read(&rest).unwrap();
                for record in batch::records(&rest.split_to(length)).unwrap() {
                    assert_eq!(record.offset, next as u64, "offsets have no gaps");
                    next += 1;
                    let value = record.value.unwrap();
                    all.push((record.key, serde_json::from_slice(&value).unwrap()));
                }
            }
            if next >= end {
                break;
            }
        }
    }
    all
}

/// Until the topic tells what is asked for: readers see what is on disk.
fn until(server: &Server, what: &str, told_it: impl Fn(&str) -> bool) -> Vec<String> {
    let start = Instant::now();
    loop {
        let all: Vec<String> = told(server)
            .into_iter()
            .map(|(key, value)| {
                let key = key.map_or("-".into(), |key| String::from_utf8_lossy(&key).into_owned());
                format!("{key} {value}")
            })
            .collect();
        if all.iter().any(|line| told_it(line)) {
            return all;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{what}: {all:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn operations_have_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &FLAGS);
    for command in [
        "SET {a}s v PX 60000",
        "PERSIST {a}s",
        "APPEND {a}s w",
        "INCR {a}n",
        "HSET {a}h f 1 g 2",
        "HDEL {a}h f g",
        "RPUSH {a}l x y",
        "LPUSH {a}l w",
        "LPOP {a}l",
        "SADD {a}m one",
        "ZADD {a}z 1.5 one",
        "RENAME {a}m {a}r",
        "EXPIREAT {a}r 4102444800",
        "SET {a}gone v PX 30",
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        assert!(!server.redis(&words).starts_with('-'), "{command}");
    }
    let mut all = until(&server, "the expiry", |line| line.contains("expired"));
    let deadline = all[0].clone();
    assert!(deadline.contains(r#""expires_ms":"#), "{deadline}");
    all.retain(|line| !line.contains("expires_ms") || line.contains("4102444800000"));
    assert_eq!(
        all,
        [
            r#"{a}s {"op":"persist"}"#,
            r#"{a}s {"op":"set","value":"vw"}"#,
            r#"{a}n {"op":"set","value":"1"}"#,
            r#"{a}h {"fields":[["f","1"],["g","2"]],"op":"hset"}"#,
            r#"{a}h {"fields":["f","g"],"op":"hdel"}"#,
            r#"{a}h {"op":"del"}"#,
            r#"{a}l {"items":[[0,"x"],[1,"y"]],"op":"rpush"}"#,
            r#"{a}l {"items":[[-1,"w"]],"op":"lpush"}"#,
            r#"{a}l {"op":"lpop","positions":[-1]}"#,
            r#"{a}m {"members":["one"],"op":"sadd"}"#,
            r#"{a}z {"members":[["one",1.5]],"op":"zadd"}"#,
            r#"{a}m {"op":"del"}"#,
            r#"{a}r {"members":["one"],"op":"sadd"}"#,
            r#"{a}r {"expires_ms":4102444800000,"op":"expire"}"#,
            r#"{a}gone {"op":"expired"}"#,
        ]
    );

    // Nobody but the server writes it.
    let mut client = Client::connect(&server);
    let forged = batch::single(1, Some(b"k"), Some(b"{}"), &[]);
    assert_eq!(client.produce("__keyspace.0", -1, &forged).0, 17);
    assert_eq!(client.produce("__keyspace.9", -1, &forged).0, 3, "not made");
    let answer = server.redis(&["FM.PRODUCE", "__keyspace.0", "k", "{}"]);
    assert!(answer.starts_with("-ERR the server alone"), "{answer}");

    server.redis(&["FLUSHDB"]);
    until(&server, "the flush", |line| line.contains("flushdb"));
    assert!(server.stop().success());
}

/// Sets a key of its own to 0, 1, 2 … until the server is gone. How many were acknowledged.
fn count_up(server: std::net::SocketAddr, key: &str, from: u64, begun: &AtomicBool) -> u64 {
    let mut socket = TcpStream::connect(server).unwrap();
    let mut replies = BufReader::new(socket.try_clone().unwrap());
    let mut acked = from;
    loop {
        let command = format!("SET {key} {acked}\r\n");
        let mut reply = String::new();
        if socket.write_all(command.as_bytes()).is_err()
            || !matches!(replies.read_line(&mut reply), Ok(5))
        {
            return acked;
        }
        assert_eq!(reply, "+OK\r\n");
        acked += 1;
        begun.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_kill_loses_and_repeats_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut counts = BTreeMap::from([("a", 0), ("b", 0), ("c", 0)]);
    for round in 0..3u32 {
        let flags = [
            "--keyspace-topics=0",
            "--resp-durability=os",
            "--fold-size=64KiB",
        ];
        let server = Server::start_with(dir.path(), &flags);
        let addr = server.addr("resp");
        let begun = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let begun = &begun;
            let writers: Vec<_> = counts
                .iter()
                .map(|(&key, &from)| (key, scope.spawn(move || count_up(addr, key, from, begun))))
                .collect();
            while !begun.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            std::thread::sleep(Duration::from_millis(60 + u64::from(round) * 50));
            server.kill();
            for (key, writer) in writers {
                counts.insert(key, writer.join().unwrap());
            }
        });
        let server = Server::start_with(dir.path(), &flags);
        let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, value) in told(&server) {
            let key = String::from_utf8(key.unwrap().to_vec()).unwrap();
            let value = value["value"].as_str().unwrap().to_owned();
            seen.entry(key).or_default().push(value);
        }
        for (key, acked) in &mut counts {
            let seen = &seen[*key];
            let wanted: Vec<String> = (0..seen.len()).map(|n| n.to_string()).collect();
            assert_eq!(seen, &wanted, "each once and in order");
            let told = seen.len() as u64;
            // What was not answered may have happened; then it is told, too.
            assert!(told == *acked || told == *acked + 1, "{told} of {acked}");
            let last = (told - 1).to_string();
            assert_eq!(
                server.redis(&["GET", key]),
                format!("${}\r\n{last}\r\n", last.len())
            );
            *acked = told;
        }
        assert!(server.stop().success());
    }
}
