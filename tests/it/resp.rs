//! The Redis face over real sockets: what one transcript cannot show, several connections, restarts, data beyond memory.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::server::Server;

/// A connection that sends commands and reads replies.
pub(crate) struct Client {
    socket: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn several<const N: usize>(server: &Server) -> [Self; N] {
        std::array::from_fn(|_| Self::connect(server))
    }

    pub(crate) fn connect(server: &Server) -> Self {
        let socket = TcpStream::connect(server.addr("resp")).expect("the Redis port is open");
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a timeout can be set");
        Self {
            socket: BufReader::new(socket),
        }
    }

    pub(crate) fn send(&mut self, command: &[&str]) {
        let mut bytes = format!("*{}\r\n", command.len());
        for word in command {
            bytes.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.socket
            .get_mut()
            .write_all(bytes.as_bytes())
            .expect("the command is taken");
    }

    /// A reply as text: arrays in brackets, missing values as `nil`.
    pub(crate) fn reply(&mut self) -> String {
        let mut line = String::new();
        self.socket.read_line(&mut line).expect("a reply comes");
        let line = line.trim_end();
        let (kind, rest) = line.split_at(1);
        match kind {
            "+" | "-" | ":" | "," => rest.to_owned(),
            "$" | "*" | ">" | "%" | "~" if rest == "-1" => "nil".into(),
            "_" => "nil".into(),
            "$" => {
                let length: usize = rest.parse().expect("a length");
                let mut bytes = vec![0; length + 2];
                self.socket
                    .read_exact(&mut bytes)
                    .expect("the bytes follow");
                bytes.truncate(length);
                String::from_utf8(bytes).expect("text")
            }
            "*" | ">" | "~" | "%" => {
                let count: usize = rest.parse().expect("a count");
                let count = if kind == "%" { count * 2 } else { count };
                let items: Vec<_> = (0..count).map(|_| self.reply()).collect();
                format!("[{}]", items.join(" "))
            }
            other => panic!("a reply of kind {other:?}"),
        }
    }

    pub(crate) fn call(&mut self, command: &[&str]) -> String {
        self.send(command);
        self.reply()
    }

    /// One command per line; `a → b` says what it answers.
    pub(crate) fn play(&mut self, script: &str) {
        for line in script
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
        {
            let (command, want) = line.split_once(" → ").unwrap_or((line, "OK"));
            let words: Vec<&str> = command.split(' ').collect();
            assert_eq!(self.call(&words), want, "{command}");
        }
    }
}

fn server(flags: &[&str]) -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start_with(dir.path(), flags);
    (dir, server)
}

/// Waits until `INFO clients` says that so many clients are blocked.
pub(crate) fn until_blocked(client: &mut Client, count: usize) {
    let wanted = format!("blocked_clients:{count}\r\n");
    while !client.call(&["INFO", "clients"]).contains(&wanted) {}
}

#[test]
fn everything_is_there_after_kill_9() {
    let (dir, first) = server(&[]);
    let long = "x".repeat(10_000);
    let mut client = Client::connect(&first);
    client.play(
        "SET plain value
         SET counter 41
         INCR counter → 42
         HSET hash a 1 b 2 → 2
         HDEL hash a → 1
         RPUSH list one two three → 3
         LPOP list → one
         LPUSH list zero → 3
         SADD ints 3 1 2 → 3
         SADD texts x y → 2
         ZADD zset 1.5 a -2 b → 2
         ZINCRBY zset 10 a → 11.5
         SET gone v
         DEL gone → 1
         SETEX late 1000 v
         RENAME plain renamed
         SETRANGE sparse 5000 end → 5003
         APPEND sparse ! → 5004
         SELECT 3
         SET other db
         SELECT 0",
    );
    assert_eq!(client.call(&["SET", "long", &long]), "OK");
    first.kill();
    let second = Server::start(dir.path());
    let mut client = Client::connect(&second);
    client.play(
        "DBSIZE → 10
         GET renamed → value
         GET plain → nil
         GET counter → 42
         HGETALL hash → [b 2]
         LRANGE list 0 -1 → [zero two three]
         SMEMBERS ints → [1 2 3]
         SCARD texts → 2
         ZRANGE zset 0 -1 WITHSCORES → [b -2 a 11.5]
         EXISTS gone → 0
         GETRANGE sparse 4998 -1 → \0\0end!
         STRLEN sparse → 5004
         SELECT 3
         GET other → db
         SELECT 0",
    );
    assert_eq!(client.call(&["GET", "long"]), long);
    let ttl: u64 = client
        .call(&["TTL", "late"])
        .parse()
        .expect("a time to live");
    assert!((900..=1000).contains(&ttl), "{ttl}");
    // A stop folds; what the tables say must be the same.
    assert!(second.stop().success());
    let third = Server::start(dir.path());
    let mut client = Client::connect(&third);
    client.play(
        "DBSIZE → 10
         LRANGE list 0 -1 → [zero two three]
         ZSCORE zset a → 11.5
         FLUSHALL
         DBSIZE → 0",
    );
    third.kill();
    let fourth = Server::start(dir.path());
    Client::connect(&fourth).play(
        "DBSIZE → 0
         GET renamed → nil
         KEYS * → []",
    );
}

#[test]
fn blocked_clients_are_served_in_order() {
    let (_dir, server) = server(&[]);
    let [mut a, mut b, mut pusher] = Client::several(&server);
    a.send(&["BLPOP", "other", "queue", "0"]);
    until_blocked(&mut pusher, 1);
    b.send(&["BLPOP", "queue", "0"]);
    until_blocked(&mut pusher, 2);
    pusher.play(
        "RPUSH queue first second third → 3
         LRANGE queue 0 -1 → [third]",
    );
    assert_eq!(
        (a.reply(), b.reply()),
        ("[queue first]".into(), "[queue second]".into())
    );
    // What was pushed in a transaction is served at its end, with what the transaction left.
    a.send(&["BRPOP", "tx", "0"]);
    until_blocked(&mut pusher, 1);
    pusher.play(
        "MULTI
         RPUSH tx 1 2 → QUEUED
         RPOP tx → QUEUED
         EXEC → [2 2]",
    );
    assert_eq!(a.reply(), "[tx 1]");
    // Across shards, and into a key that a third client waits for.
    a.send(&["BLMOVE", "from", "to", "LEFT", "RIGHT", "0"]);
    until_blocked(&mut pusher, 1);
    b.send(&["BZPOPMIN", "scores", "0"]);
    until_blocked(&mut pusher, 2);
    pusher.play(
        "LPUSH from item → 1
         ZADD scores 2 two 1 one → 2",
    );
    assert_eq!(
        (a.reply(), b.reply()),
        ("item".into(), "[scores one 1]".into())
    );
    pusher.play(
        "LRANGE to 0 -1 → [item]
         EXISTS from → 0
         BLPOP nothing 0.01 → nil",
    );
    // A client that is gone takes nothing.
    a.send(&["BLPOP", "late", "0"]);
    until_blocked(&mut pusher, 1);
    drop(a);
    until_blocked(&mut pusher, 0);
    pusher.play(
        "RPUSH late kept → 1
         LLEN late → 1",
    );
}

/// Items come in the moments in which the time of those who wait is up: each is popped once or still there, and nobody is stuck.
#[test]
fn an_item_and_the_end_of_the_wait_may_meet() {
    let (_dir, server) = server(&[]);
    let mut pusher = Client::connect(&server);
    let mut poppers: Vec<_> = (0..16).map(|_| Client::connect(&server)).collect();
    let mut popped = 0;
    let rounds = 300;
    for round in 0..rounds {
        for (i, popper) in poppers.iter_mut().enumerate() {
            popper.send(&["BLPOP", &format!("meet:{}", i % 4), "0.004"]);
        }
        std::thread::sleep(Duration::from_micros(3_700 + 10 * (round % 60)));
        for i in 0..4 {
            pusher.send(&["RPUSH", &format!("meet:{i}"), "x", "y"]);
        }
        for _ in 0..4 {
            pusher.reply();
        }
        popped += poppers
            .iter_mut()
            .map(Client::reply)
            .filter(|reply| reply != "nil")
            .count();
    }
    let left: usize = (0..4)
        .map(|i| {
            pusher.send(&["LLEN", &format!("meet:{i}")]);
            pusher.reply().parse::<usize>().unwrap()
        })
        .sum();
    assert_eq!(popped + left, rounds as usize * 8);
}

#[test]
fn transactions_see_what_they_watch() {
    let (_dir, server) = server(&[]);
    let [mut a, mut b] = Client::several(&server);
    a.play(
        "SET watched 1
         WATCH watched other
         GET watched → 1",
    );
    b.play("SET other x");
    a.play(
        "MULTI
         SET watched 2 → QUEUED
         EXEC → nil
         GET watched → 1
         WATCH watched
         MULTI
         INCR watched → QUEUED
         LPUSH watched x → QUEUED
         SET {t}b 1 → QUEUED
         EXEC → [2 WRONGTYPE Operation against a key holding the wrong kind of value OK]
         WATCH watched
         PEXPIRE watched 1 → 1",
    );
    while b.call(&["EXISTS", "watched"]) != "0" {}
    a.play(
        "MULTI
         PING → QUEUED
         EXEC → nil
         MULTI
         NOSUCH → ERR unknown command 'NOSUCH', with args beginning with:
         EXEC → EXECABORT Transaction discarded because of previous errors.",
    );
}

#[test]
fn messages_reach_subscribers() {
    let (_dir, server) = server(&[]);
    let [mut a, mut b] = Client::several(&server);
    a.play(
        "SUBSCRIBE news → [subscribe news 1]
         PSUBSCRIBE n* → [psubscribe n* 2]",
    );
    b.play(
        "PUBLISH news hello → 2
         PUBLISH none hello → 1
         PUBLISH other hello → 0",
    );
    assert_eq!(a.reply(), "[message news hello]");
    assert_eq!(a.reply(), "[pmessage n* news hello]");
    assert_eq!(a.reply(), "[pmessage n* none hello]");
    drop(a);
    while b.call(&["PUBSUB", "NUMPAT"]) != "0" {}
    b.play("PUBLISH news hello → 0");
}

#[test]
fn keys_messages_and_records_are_one_transaction() {
    let (dir, first) = server(&[]);
    let mut client = Client::connect(&first);
    client.play(
        "FM.PRODUCE orders k v → [0 0]
         MULTI
         SET key 1 → QUEUED
         FM.PRODUCE orders k w HEADERS 1 name value → QUEUED
         FM.PUBLISH amq.fanout rk body → QUEUED
         EXEC → [OK [0 1] 0]
         MULTI
         SET key 2 → QUEUED
         FM.PRODUCE orders k x → QUEUED
         FM.PUBLISH nowhere rk body → QUEUED
         EXEC → EXECABORT Transaction discarded because of: NOTFOUND no exchange 'nowhere' in vhost '/'
         MULTI
         SET key 3 → QUEUED
         FM.PUBLISH amq.fanout rk body TRANSIENT → QUEUED",
    );
    assert!(client.call(&["EXEC"]).starts_with("EXECABORT"));
    client.play("GET key → 1");
    first.kill();
    let second = Server::start(dir.path());
    Client::connect(&second).play(
        "GET key → 1
         FM.PRODUCE orders k y → [0 2]",
    );
}

#[test]
fn data_beyond_the_memory_budget_stays_readable() {
    let (_dir, server) = server(&["--memory-limit=16MiB", "--fold-size=4MiB"]);
    let mut client = Client::connect(&server);
    let value = "v".repeat(1000);
    let keys = 40_000;
    for chunk in 0..keys / 100 {
        for i in 0..100 {
            let n = chunk * 100 + i;
            client.send(&["SET", &format!("key:{n}"), &format!("{n}{value}")]);
        }
        for _ in 0..100 {
            assert_eq!(client.reply(), "OK");
        }
    }
    for n in (0..2000).step_by(2) {
        client.send(&["HSET", "hash", &format!("f{n}"), &value]);
        assert_eq!(client.reply(), "1");
    }
    assert_eq!(client.call(&["DBSIZE"]), (keys + 1).to_string());
    for n in (0..keys).step_by(997) {
        assert_eq!(
            client.call(&["GET", &format!("key:{n}")]),
            format!("{n}{value}"),
            "key:{n}"
        );
    }
    assert_eq!(client.call(&["HLEN", "hash"]), "1000");
    assert_eq!(client.call(&["GET", "key:none"]), "nil");
    assert_eq!(client.call(&["DEL", "key:7"]), "1");
    assert_eq!(client.call(&["GET", "key:7"]), "nil");
    // A walk over all keys finds those in memory and those in the tables.
    let mut found = std::collections::BTreeSet::new();
    let mut cursor = "0".to_owned();
    loop {
        let reply = client.call(&["SCAN", &cursor, "COUNT", "5000", "MATCH", "key:*"]);
        let (next, names) = reply
            .trim_start_matches('[')
            .split_once(' ')
            .expect("two parts");
        found.extend(
            names
                .trim_matches(['[', ']'])
                .split_whitespace()
                .map(str::to_owned),
        );
        cursor = next.to_owned();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(found.len(), keys - 1);
}
