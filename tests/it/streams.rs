//! Streams over real sockets: groups and what they have not acknowledged over kills and restarts, and many who wait at once.

use crate::access::{self, PASSWORD, Redis};
use crate::resp::{Client, until_blocked};
use crate::server::Server;

/// All that is known of a stream, but how it lies in memory.
fn all(client: &mut Client, key: &str) -> String {
    let told = client.call(&["XINFO", "STREAM", key, "FULL", "COUNT", "0"]);
    let (_, rest) = told.split_once("last-generated-id").expect("a stream");
    rest.to_owned()
}

#[test]
fn groups_and_pending_entries_are_there_after_kill_9() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let mut client = Client::connect(&server);
    for n in 1..=350 {
        let id = format!("{n}-1");
        let (name, long) = (n.to_string(), "v".repeat(n % 90));
        let added = client.call(&["XADD", "log", &id, "number", &name, "text", &long]);
        assert_eq!(added, id);
    }
    client.play(
        "XADD log MAXLEN 300 400 other fields of this → 400-0
         XDEL log 100-1 101-1 350-1 999 → 3
         XGROUP CREATE log workers 0
         XGROUP CREATE log tail $
         XGROUP CREATE log gone 0
         XGROUP CREATECONSUMER log workers idle → 1
         XGROUP CREATE empty g $ MKSTREAM
         XADD emptied 5-5 a b → 5-5
         XDEL emptied 5-5 → 1",
    );
    let read = |client: &mut Client, consumer: &str, count: &str| {
        client.call(&[
            "XREADGROUP",
            "GROUP",
            "workers",
            consumer,
            "COUNT",
            count,
            "STREAMS",
            "log",
            ">",
        ])
    };
    assert!(read(&mut client, "alice", "20").starts_with("[[log [[52-1 [number 52 "));
    assert!(read(&mut client, "bob", "3").starts_with("[[log [[72-1 [number 72 "));
    client.play(
        "XACK log workers 52-1 53-1 72-1 400-0 → 3
         XCLAIM log workers carol 0 54-1 73-1 JUSTID RETRYCOUNT 9 → [54-1 73-1]
         XGROUP DESTROY log gone → 1
         XGROUP DELCONSUMER log workers bob → 1
         XPENDING log workers → [19 54-1 73-1 [[alice 17] [carol 2]]]",
    );
    let again = client.call(&[
        "XREADGROUP",
        "GROUP",
        "workers",
        "alice",
        "COUNT",
        "1",
        "STREAMS",
        "log",
        "60-0",
    ]);
    let text = "v".repeat(60);
    assert_eq!(again, format!("[[log [[60-1 [number 60 text {text}]]]]]"));
    let keys = ["log", "empty", "emptied"];
    let before = keys.map(|key| all(&mut client, key));
    server.kill();
    // From the log, and then from the tables, too.
    for _ in 0..2 {
        let server = Server::start(dir.path());
        let mut client = Client::connect(&server);
        assert_eq!(keys.map(|key| all(&mut client, key)), before);
        assert!(server.stop().success());
    }
    let server = Server::start(dir.path());
    let mut client = Client::connect(&server);
    assert!(read(&mut client, "alice", "1").starts_with("[[log [[75-1 [number 75 "));
    client.play(
        "XADD emptied 5-5 too old → ERR The ID specified in XADD is equal or smaller than the target stream top item
         XADD emptied 5-* a b → 5-6
         XACK log workers 54-1 75-1 → 2
         XLEN log → 297
         DEL log → 1
         EXISTS log → 0",
    );
    assert!(server.stop().success());
}

#[test]
fn each_entry_wakes_one_consumer_of_a_group_and_every_reader() {
    const WORKERS: usize = 12;
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let mut client = Client::connect(&server);
    client.play("XGROUP CREATE jobs g $ MKSTREAM");
    let mut workers: Vec<_> = (0..WORKERS)
        .map(|n| {
            let mut worker = Client::connect(&server);
            let name = format!("w{n}");
            let read = [
                "XREADGROUP",
                "GROUP",
                "g",
                &name,
                "COUNT",
                "1",
                "BLOCK",
                "0",
            ];
            worker.send(&[&read[..], &["STREAMS", "jobs", "{other}", ">", ">"]].concat());
            worker
        })
        .collect();
    // The other key does not have the group.
    for worker in &mut workers {
        assert!(worker.reply().starts_with("NOGROUP No such key '{other}'"));
    }
    for (n, worker) in workers.iter_mut().enumerate() {
        let name = format!("w{n}");
        worker.send(&[
            "XREADGROUP",
            "GROUP",
            "g",
            &name,
            "BLOCK",
            "0",
            "STREAMS",
            "jobs",
            ">",
        ]);
        until_blocked(&mut client, n + 1);
    }
    let mut reader = Client::connect(&server);
    reader.send(&["XREAD", "BLOCK", "0", "STREAMS", "other", "jobs", "$", "$"]);
    until_blocked(&mut client, WORKERS + 1);
    for (n, worker) in workers.iter_mut().enumerate() {
        let id = client.call(&["XADD", "jobs", "*", "n", &n.to_string()]);
        let entry = format!("[[jobs [[{id} [n {n}]]]]]");
        assert_eq!(worker.reply(), entry, "first come, first served");
        if n == 0 {
            assert_eq!(reader.reply(), entry);
        }
    }
    assert!(server.stop().success());
}

/// Keys of other shards; what came by one transaction comes at once, and `$` stays what it was when the reader began to wait.
#[test]
fn a_reader_of_several_streams_gets_what_all_of_them_have() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let mut client = Client::connect(&server);
    client.play(
        "XADD {a}1 1-1 old old → 1-1
         XADD {b}2 1-1 old old → 1-1",
    );
    let mut reader = Client::connect(&server);
    reader.send(&[
        "XREAD", "BLOCK", "0", "STREAMS", "{a}1", "{b}2", "{c}3", "$", "$", "$",
    ]);
    until_blocked(&mut client, 1);
    client.play(
        "MULTI → OK
         XADD {a}1 2-1 new a → QUEUED
         XADD {b}2 2-1 new b → QUEUED
         XADD {c}3 2-1 new c → QUEUED
         EXEC → [2-1 2-1 2-1]",
    );
    assert_eq!(
        reader.reply(),
        "[[{a}1 [[2-1 [new a]]]] [{b}2 [[2-1 [new b]]]] [{c}3 [[2-1 [new c]]]]]"
    );
    assert!(server.stop().success());
}

#[test]
fn a_stream_is_asked_for_as_the_key_it_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = access::start(dir.path());
    for user in ["reader", "writer", "worker"] {
        access::add_user(&server, user);
    }
    access::grant(&server, "POST", "reader", "key", "app*", &["read"], false);
    access::grant(&server, "POST", "writer", "key", "app*", &["write"], false);
    let both = ["read", "write"];
    access::grant(&server, "POST", "worker", "key", "app*", &both, false);
    let mut clients =
        ["reader", "writer", "worker"].map(|user| Redis::connect(&server, user, PASSWORD));
    // Who may: r, w, or both.
    for (needs, command) in [
        ("w", "XADD KEY 1-1 a b"),
        ("w", "XGROUP CREATE KEY g 0"),
        ("w", "XGROUP SETID KEY g 0"),
        ("w", "XGROUP CREATECONSUMER KEY g c"),
        ("rw", "XREADGROUP GROUP g c STREAMS KEY >"),
        (
            "rw",
            "XREADGROUP GROUP STREAMS c NOACK COUNT 1 STREAMS KEY 0",
        ),
        ("rw", "XCLAIM KEY g c 0 1-1"),
        ("rw", "XAUTOCLAIM KEY g c 0 0"),
        ("r", "XPENDING KEY g"),
        ("r", "XLEN KEY"),
        ("r", "XRANGE KEY - +"),
        ("r", "XREVRANGE KEY + -"),
        ("r", "XREAD COUNT 1 STREAMS KEY 0"),
        ("r", "XREAD COUNT 1 STREAMS app KEY 0 0"),
        ("r", "XINFO STREAM KEY"),
        ("r", "XINFO GROUPS KEY"),
        ("r", "XINFO CONSUMERS KEY g"),
        ("w", "XACK KEY g 1-1"),
        ("w", "XDEL KEY 1-1"),
        ("w", "XTRIM KEY MAXLEN 1"),
        ("w", "XSETID KEY 5"),
        ("w", "XGROUP DELCONSUMER KEY g c"),
        ("w", "XGROUP DESTROY KEY g"),
    ] {
        let mut may = |client: usize, key: &str| {
            let command = command.replace("KEY", key);
            let words: Vec<&str> = command.split(' ').collect();
            !clients[client].say(&words).starts_with("-NOPERM")
        };
        assert_eq!(
            [0, 1, 2].map(|client| may(client, "other")),
            [false; 3],
            "{command}"
        );
        let allowed = [0, 1, 2].map(|client| may(client, "app"));
        assert_eq!(allowed, [needs == "r", needs == "w", true], "{command}");
    }
    // Who waits and loses the right is told.
    clients[0].send(&["XREAD", "BLOCK", "0", "STREAMS", "app", "$"]);
    let mut root = Redis::connect(&server, "root", "rootpw");
    while !root
        .say_all(&["INFO", "clients"])
        .contains("blocked_clients:1\r\n")
    {}
    access::grant(&server, "DELETE", "reader", "key", "app*", &["read"], false);
    assert!(clients[0].line().starts_with("-NOPERM"));
    assert!(server.stop().success());
}
