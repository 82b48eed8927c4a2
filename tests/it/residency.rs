//! What happens to keys without a client: they leave memory when there is more data than budget, come back when asked for,
//! and go when their time has come.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::kafka::{Client, fetch_body, fetched, metadata_body, record, values};
use crate::server::Server;

/// Half of the memory is the cache's: 2 MiB for 20 MB of values.
const LITTLE: [&str; 3] = [
    "--memory-limit=4MiB",
    "--fold-size=4MiB",
    "--resp-durability=os",
];

/// A Redis connection that sends many commands at once.
pub(crate) struct Pipe {
    socket: TcpStream,
    answers: BufReader<TcpStream>,
}

impl Pipe {
    pub(crate) fn new(server: &Server) -> Self {
        let socket = TcpStream::connect(server.addr("resp")).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let answers = BufReader::new(socket.try_clone().unwrap());
        Self { socket, answers }
    }

    /// Sends all, then reads as many answers: simple strings, integers and bulk strings, as text.
    pub(crate) fn run(&mut self, commands: &[Vec<String>]) -> Vec<String> {
        let mut bytes = String::new();
        for command in commands {
            bytes.push_str(&format!("*{}\r\n", command.len()));
            for word in command {
                bytes.push_str(&format!("${}\r\n{word}\r\n", word.len()));
            }
        }
        self.socket.write_all(bytes.as_bytes()).unwrap();
        commands.iter().map(|_| self.answer()).collect()
    }

    pub(crate) fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let line = line.trim_end();
        match line.strip_prefix('$').map(|length| length.parse::<usize>()) {
            Some(Ok(length)) => {
                let mut body = vec![0; length + 2];
                self.answers.read_exact(&mut body).unwrap();
                body.truncate(length);
                String::from_utf8(body).unwrap()
            }
            _ => line.to_owned(),
        }
    }

    pub(crate) fn one(&mut self, words: &[&str]) -> String {
        self.run(&[words.iter().map(|word| (*word).to_owned()).collect()])
            .remove(0)
    }
}

/// One sample of `/metrics`.
pub(crate) fn metric(server: &Server, name: &str) -> u64 {
    let (_, text) = server.get("/metrics");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or_else(|| panic!("no {name}"));
    line.trim().parse().unwrap()
}

pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn value(i: usize) -> String {
    format!("{i:08}-").repeat(110)
}

#[test]
fn data_of_ten_times_the_budget_is_all_there() {
    const KEYS: usize = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &LITTLE);
    let mut pipe = Pipe::new(&server);
    for chunk in (0..KEYS).collect::<Vec<_>>().chunks(500) {
        let sets: Vec<_> = chunk
            .iter()
            .map(|i| vec!["SET".into(), format!("key:{i}"), value(*i)])
            .collect();
        assert!(pipe.run(&sets).iter().all(|answer| answer == "+OK"));
    }
    let limit = metric(&server, "flowmesh_memory_limit_bytes{domain=\"cache\"}");
    until("eviction", || {
        metric(&server, "flowmesh_memory_used_bytes{domain=\"cache\"}") <= limit + limit / 4
    });
    let check = |pipe: &mut Pipe| {
        assert_eq!(pipe.one(&["DBSIZE"]), format!(":{KEYS}"));
        for chunk in (0..KEYS).collect::<Vec<_>>().chunks(500) {
            let gets: Vec<_> = chunk
                .iter()
                .map(|i| vec!["GET".into(), format!("key:{i}")])
                .collect();
            for (i, answer) in chunk.iter().zip(pipe.run(&gets)) {
                assert!(answer == value(*i), "key:{i} is {answer:.40}");
            }
        }
    };
    check(&mut pipe);
    until("eviction after reading", || {
        metric(&server, "flowmesh_memory_used_bytes{domain=\"cache\"}") <= limit + limit / 4
    });
    server.kill();
    let server = Server::start_with(dir.path(), &LITTLE);
    check(&mut Pipe::new(&server));
    assert!(server.stop().success());
}

/// Reads partition 0 of a topic from `from` on and checks that record n is `value_of(n)`, until `count` records have been seen.
fn read_topic(
    server: &Server,
    topic: &str,
    from: usize,
    count: usize,
    value_of: impl Fn(usize) -> Vec<u8>,
) {
    let mut client = Client::connect(server);
    let (mut next, deadline) = (from, Instant::now() + Duration::from_secs(60));
    while next < count {
        assert!(Instant::now() < deadline, "{next} of {count} records");
        let fetch = fetch_body(topic, next as i64, 500);
        let (error, _, batches) = fetched(&client.call(1, 12, &fetch).unwrap());
        assert_eq!(error, 0);
        for (offset, value) in values(batches) {
            assert_eq!(offset, next as u64);
            assert!(value == value_of(next), "record {next}");
            next += 1;
        }
    }
}

#[test]
fn one_partition_of_ten_times_the_budget_is_read_from_its_start_and_at_its_end() {
    const RECORDS: usize = 700;
    let value_of = |n: usize| format!("{n:07}-").repeat(2 << 10).into_bytes();
    let dir = tempfile::tempdir().unwrap();
    // A quarter of the budget is the streams': 1 MiB for 11 MB. Nothing is folded before the first half is there.
    let flags = ["--memory-limit=4MiB", "--fold-size=6MiB"];
    let server = Server::start_with(dir.path(), &flags);
    let metric = |name: &str| {
        let name = format!("flowmesh_memory_{name}_bytes{{domain=\"stream\"}}");
        metric(&server, &name)
    };
    let limit = metric("limit");
    assert!(limit * 10 < (RECORDS * value_of(0).len()) as u64);
    let mut client = Client::connect(&server);
    client.call(3, 1, &metadata_body("one")).unwrap();
    std::thread::scope(|scope| {
        // One reader keeps up with the producer, one begins at the start when half of it is there.
        scope.spawn(|| read_topic(&server, "one", 0, RECORDS, value_of));
        for n in 0..RECORDS {
            let stored = client.produce("one", 1, &record(&value_of(n)));
            assert_eq!(stored, (0, n as i64));
            if n % 50 == 49 {
                let used = metric("used");
                assert!(used <= limit + (64 << 10), "{used} bytes after {n}");
            }
            if n == RECORDS / 2 {
                scope.spawn(|| read_topic(&server, "one", 0, RECORDS, value_of));
            }
        }
    });
    server.kill();
    let server = Server::start_with(dir.path(), &flags);
    read_topic(&server, "one", 0, RECORDS, value_of);
    let mut client = Client::connect(&server);
    assert_eq!(
        client.produce("one", 1, &record(b"on")),
        (0, RECORDS as i64)
    );
    assert!(server.stop().success());
}

#[test]
fn keys_go_when_their_time_has_come_though_nobody_asks() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut pipe = Pipe::new(&server);
    for i in 0..100 {
        assert_eq!(
            pipe.one(&["SET", &format!("short:{i}"), "x", "PX", "50"]),
            "+OK"
        );
    }
    assert_eq!(pipe.one(&["SET", "long", "x", "EX", "1000"]), "+OK");
    until("expiry", || metric(&server, "flowmesh_keys{db=\"0\"}") == 1);
    assert_eq!(pipe.one(&["DBSIZE"]), ":1");
    assert!(server.stop().success());
    // What went stays gone.
    let server = Server::start(dir.path());
    assert_eq!(Pipe::new(&server).one(&["DBSIZE"]), ":1");
}

#[test]
fn a_hash_of_ten_times_the_budget_is_all_there() {
    const FIELDS: usize = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &LITTLE);
    let mut pipe = Pipe::new(&server);
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let field = |i: usize| format!("field:{i}");
    let all: Vec<usize> = (0..FIELDS).collect();
    for chunk in all.chunks(500) {
        let sets: Vec<Vec<String>> = chunk
            .iter()
            .map(|i| words(&["HSET", "large", &field(*i), &value(*i)]))
            .collect();
        assert!(pipe.run(&sets).iter().all(|answer| answer == ":1"));
    }
    let limit = metric(&server, "flowmesh_memory_limit_bytes{domain=\"cache\"}");
    let bounded = |server: &Server| {
        until("eviction", || {
            metric(server, "flowmesh_memory_used_bytes{domain=\"cache\"}") <= limit + limit / 4
        });
    };
    bounded(&server);
    // What a field holds: its first value, another one, or nothing.
    let now = |i: usize| match i % 5 {
        1 => Some(format!("new {i}")),
        2 => None,
        _ => Some(value(i)),
    };
    let first = |i: usize| Some(value(i));
    let check = |pipe: &mut Pipe, wanted: &dyn Fn(usize) -> Option<String>| {
        let left = all.iter().filter(|i| wanted(**i).is_some()).count();
        assert_eq!(pipe.one(&["HLEN", "large"]), format!(":{left}"));
        assert_eq!(pipe.one(&["TYPE", "large"]), "+hash");
        assert_eq!(pipe.one(&["OBJECT", "ENCODING", "large"]), "hashtable");
        for chunk in all.chunks(500) {
            let gets: Vec<Vec<String>> = chunk
                .iter()
                .map(|i| words(&["HGET", "large", &field(*i)]))
                .collect();
            for (i, answer) in chunk.iter().zip(pipe.run(&gets)) {
                let wanted = wanted(*i).unwrap_or_else(|| "$-1".into());
                assert!(answer == wanted, "field {i} is {answer:.40}");
            }
        }
        let (mut cursor, mut seen) = ("0".to_owned(), std::collections::BTreeSet::new());
        loop {
            let step = ["HSCAN", "large", &cursor, "COUNT", "300", "NOVALUES"];
            assert_eq!(pipe.one(&step), "*2");
            cursor = pipe.answer();
            let shown: usize = pipe.answer().trim_start_matches('*').parse().unwrap();
            seen.extend((0..shown).map(|_| pipe.answer()));
            if cursor == "0" {
                break;
            }
        }
        let expected = all.iter().filter(|i| wanted(**i).is_some());
        assert_eq!(seen, expected.map(|i| field(*i)).collect());
    };
    check(&mut pipe, &first);
    bounded(&server);
    for chunk in all.chunks(500) {
        let changes: Vec<Vec<String>> = chunk
            .iter()
            .filter(|i| now(**i) != first(**i))
            .map(|i| match now(*i) {
                Some(new) => words(&["HSET", "large", &field(*i), &new]),
                None => words(&["HDEL", "large", &field(*i)]),
            })
            .collect();
        pipe.run(&changes);
    }
    check(&mut pipe, &now);
    bounded(&server);
    server.kill();
    let server = Server::start_with(dir.path(), &LITTLE);
    let mut pipe = Pipe::new(&server);
    check(&mut pipe, &now);
    bounded(&server);
    // A transaction sees it whole, another name takes it over, and its going takes everything along.
    assert_eq!(pipe.one(&["MULTI"]), "+OK");
    assert_eq!(pipe.one(&["HINCRBY", "large", "counter", "5"]), "+QUEUED");
    assert_eq!(pipe.one(&["HLEN", "large"]), "+QUEUED");
    assert_eq!(pipe.one(&["EXEC"]), "*2");
    assert_eq!(pipe.answer(), ":5");
    assert_eq!(pipe.answer(), format!(":{}", FIELDS - FIELDS / 5 + 1));
    assert_eq!(pipe.one(&["RENAME", "large", "{large}r"]), "+OK");
    assert_eq!(pipe.one(&["HGET", "{large}r", "field:1"]), "new 1");
    assert_eq!(pipe.one(&["DEL", "{large}r"]), ":1");
    assert_eq!(pipe.one(&["DBSIZE"]), ":0");
    assert!(server.stop().success());
}

#[test]
fn a_sorted_set_of_ten_times_the_budget_is_all_there() {
    const MEMBERS: usize = 100_000;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &LITTLE);
    let mut pipe = Pipe::new(&server);
    // A member's score says which one it is, and members are added in another order.
    let member = |score: usize| format!("a member of some length that is not packed:{score:06}");
    let add = |pipe: &mut Pipe, scores: &[usize]| {
        for chunk in scores.chunks(5000) {
            let adds: Vec<Vec<String>> = chunk
                .chunks(50)
                .map(|scores| {
                    let pairs = scores.iter().flat_map(|s| [s.to_string(), member(*s)]);
                    let words = ["ZADD", "large"].map(str::to_owned);
                    words.into_iter().chain(pairs).collect()
                })
                .collect();
            pipe.run(&adds);
        }
    };
    let all: Vec<usize> = (0..MEMBERS).map(|i| i * 7919 % MEMBERS).collect();
    add(&mut pipe, &all);
    let limit = metric(&server, "flowmesh_memory_limit_bytes{domain=\"cache\"}");
    let bounded = |server: &Server| {
        until("eviction", || {
            metric(server, "flowmesh_memory_used_bytes{domain=\"cache\"}") <= limit + limit / 4
        });
    };
    bounded(&server);
    let check = |pipe: &mut Pipe, first: usize| {
        assert_eq!(
            pipe.one(&["ZCARD", "large"]),
            format!(":{}", MEMBERS - first)
        );
        for score in (first..MEMBERS).step_by(997) {
            let rank = (score - first).to_string();
            let rank_of = pipe.one(&["ZRANK", "large", &member(score)]);
            assert_eq!(rank_of, format!(":{rank}"));
            assert_eq!(pipe.one(&["ZRANGE", "large", &rank, &rank]), "*1");
            assert_eq!(pipe.answer(), member(score));
            let below = pipe.one(&["ZCOUNT", "large", "-inf", &format!("({score}")]);
            assert_eq!(below, format!(":{rank}"));
        }
    };
    check(&mut pipe, 0);
    bounded(&server);
    // A queue for a while: what is popped leaves nothing behind that counts.
    let mut first = 0;
    for round in 0..200 {
        assert_eq!(pipe.one(&["ZPOPMIN", "large", "50"]), "*100");
        for number in 0..50 {
            assert_eq!(pipe.answer(), member(first + number));
            assert_eq!(pipe.answer(), (first + number).to_string());
        }
        first += 50;
        if round % 50 == 0 {
            check(&mut pipe, first);
        }
    }
    server.kill();
    let server = Server::start_with(dir.path(), &LITTLE);
    let mut pipe = Pipe::new(&server);
    check(&mut pipe, first);
    bounded(&server);
    assert_eq!(pipe.one(&["RENAME", "large", "{large}r"]), "+OK");
    assert_eq!(
        pipe.one(&["ZSCORE", "{large}r", &member(first)]),
        first.to_string()
    );
    assert_eq!(
        pipe.one(&["ZREMRANGEBYSCORE", "{large}r", "-inf", "+inf"]),
        format!(":{}", MEMBERS - first)
    );
    assert_eq!(pipe.one(&["DBSIZE"]), ":0");
    assert!(server.stop().success());
}
