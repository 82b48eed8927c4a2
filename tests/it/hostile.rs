//! What peers must not be able to do: crash the server, make it hoard memory, or disturb others.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::amqp_login::amqp_login;
use crate::server::Server;

#[path = "../../protocols/testdata.rs"]
mod testdata;

const FACES: [&str; 3] = ["resp", "amqp", "kafka"];

/// Beginnings that get past the first checks of each face, so that the noise behind them reaches the deeper ones.
const BEGINNINGS: [(&str, &[u8]); 12] = [
    ("resp", b"*2\r\n$3\r\nGET\r\n"),
    ("resp", b"*1\r\n$4\r\nPING\r\n*3\r\n$3\r\nSET\r\n$1\r\n"),
    ("resp", b"HELLO 3\r\n*-"),
    ("resp", b"PING \"unbalanced\r\n"),
    ("amqp", b"AMQP\x00\x00\x09\x01"),
    ("amqp", b"AMQP\x00\x00\x09\x01\x01\x00\x00\x00\x00\x00\x20\x00\x0a\x00\x0b\xff\xff\xff\xff"),
    ("amqp", b"AMQP\x01\x01\x08\x00\x08\x00\x00\x00\x00\x00\x00\xce"),
    ("amqp", b"AMQP\x00\x01\x00\x00"),
    ("kafka", b"\x00\x00\x00\x20\x00\x12\x00\x03\x00\x00\x00\x01\x00\x01a\x00"),
    ("kafka", b"\x00\x00\x00\x20\x00\x03\x00\x0c\x00\x00\x00\x01\xff\xff\x00\xff\xff\xff\xff\x0f"),
    ("kafka", b"\x00\x00\x00\x20\x00\x00\x00\x03\x00\x00\x00\x01\xff\xff\xff\xff\xff\xff\x00\x00\x7f\xff\xff\xff"),
    ("kafka", b"\x00\x00\x00\x20\x00\x01\x00\x04\x00\x00\x00\x01\xff\xff\x7f\xff\xff\xff\x7f\xff\xff\xff"),
];

/// Claims of sizes that nothing stands behind.
const CLAIMS: [(&str, &[u8]); 7] = [
    ("resp", b"*1048577\r\n"),
    ("resp", b"*2\r\n$3\r\nGET\r\n$536870912\r\nx"),
    ("resp", b"*1000000\r\n"),
    ("amqp", b"AMQP\x00\x00\x09\x01\x01\x00\x00\xff\xff\xff\xff"),
    ("amqp", b"AMQP\x00\x00\x09\x01\x03\x00\x00\x7f\xff\xff\xff"),
    ("kafka", b"\x7f\xff\xff\xff\x00\x00\x00\x03"),
    (
        "kafka",
        b"\x06\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x01\xff\xff",
    ),
];

/// xorshift64*: enough for noise, and the same in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| (self.next() >> 56) as u8).collect()
    }
}

fn rss_mb(server: &Server) -> u64 {
    rss_kib(server) / 1024
}

pub(crate) fn rss_kib(server: &Server) -> u64 {
    status_kib(server, "VmRSS")
}

/// A line of the kernel's view of the server's memory.
pub(crate) fn status_kib(server: &Server, field: &str) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("the server runs");
    let line = status
        .lines()
        .find(|line| line.starts_with(field))
        .expect("such a line");
    line.split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<u64>().ok())
        .expect("a number")
}

fn connect(server: &Server, face: &str) -> TcpStream {
    let socket = TcpStream::connect(server.addr(face)).expect("the port is open");
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout can be set");
    socket
}

/// The server answers on every face.
fn well(server: &Server) {
    assert_eq!(server.get("/healthz").0, 200);
    let mut resp = connect(server, "resp");
    resp.write_all(b"PING\r\n").expect("sent");
    let mut pong = [0; 7];
    resp.read_exact(&mut pong).expect("an answer");
    assert_eq!(&pong, b"+PONG\r\n");
    let mut amqp = connect(server, "amqp");
    amqp.write_all(b"AMQP\x00\x00\x09\x01").expect("sent");
    let mut start = [0; 11];
    amqp.read_exact(&mut start).expect("an answer");
    assert_eq!(
        (start[0], &start[7..11]),
        (1, &[0, 10, 0, 10][..]),
        "connection.start"
    );
    let mut kafka = connect(server, "kafka");
    // ApiVersions v0, correlation id 7, no client id.
    kafka
        .write_all(b"\x00\x00\x00\x0a\x00\x12\x00\x00\x00\x00\x00\x07\xff\xff")
        .expect("sent");
    let mut head = [0; 10];
    kafka.read_exact(&mut head).expect("an answer");
    assert_eq!(
        &head[4..10],
        &[0, 0, 0, 7, 0, 0],
        "correlation id and no error"
    );
}

/// Sends, tells the server that nothing more comes, and reads what it has to say.
fn say(server: &Server, face: &str, bytes: &[u8]) -> Vec<u8> {
    let mut socket = connect(server, face);
    let mut said = Vec::new();
    // A server that closes early makes the rest of the write fail, which is its right.
    if socket.write_all(bytes).is_ok() {
        let _ = socket.shutdown(std::net::Shutdown::Write);
        match socket.read_to_end(&mut said) {
            Ok(_) => {}
            Err(error) => assert_eq!(
                error.kind(),
                ErrorKind::ConnectionReset,
                "{face} left the connection open"
            ),
        }
    }
    said
}

#[test]
fn noise_closes_its_own_connection_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let mut noise = Noise(0x1234_5678_9abc_def1);
    for round in 0..60 {
        for face in FACES {
            let len = 1 + (noise.next() % 600) as usize;
            say(&server, face, &noise.bytes(len));
        }
        let (face, beginning) = BEGINNINGS[round % BEGINNINGS.len()];
        let mut bytes = beginning.to_vec();
        let len = (noise.next() % 300) as usize;
        bytes.extend(noise.bytes(len));
        say(&server, face, &bytes);
    }
    well(&server);
    assert!(server.stop().success());
}

/// Noise gets no further than a handshake; what real clients sent does, and a few wrong octets in it go deeper still.
#[test]
fn conversations_with_wrong_octets_disturb_nobody() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let mut noise = Noise(0xc0ff_ee11_dead_beef);
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("protocols");
    for face in FACES {
        let recordings = testdata::recordings(&root.join(face).to_string_lossy());
        for (_, recorded) in &recordings {
            for round in 0..10 {
                let mut octets = recorded.clone();
                for _ in 0..round {
                    let at = (noise.next() >> 16) as usize % octets.len();
                    octets[at] = match noise.next() >> 62 {
                        0 => 0xff,
                        1 => 0,
                        2 => octets[at].wrapping_add(1),
                        _ => (noise.next() >> 56) as u8,
                    };
                }
                say(&server, face, &octets);
            }
        }
        well(&server);
    }
    assert!(server.stop().success());
}

#[test]
fn claimed_sizes_cost_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    well(&server);
    let before = rss_mb(&server);
    let mut held = Vec::new();
    for (face, bytes) in CLAIMS {
        for _ in 0..40 {
            let mut socket = connect(&server, face);
            socket.write_all(bytes).expect("sent");
            held.push(socket);
        }
    }
    well(&server);
    let after = rss_mb(&server);
    assert!(after < before + 100, "{before} MB became {after} MB");
    assert!(server.stop().success());
}

#[test]
fn the_texts_of_redis_for_broken_requests() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    for (bytes, text) in [
        (
            &b"*2147483648\r\n"[..],
            "-ERR Protocol error: invalid multibulk length\r\n",
        ),
        (
            b"*1\r\n!4\r\n",
            "-ERR Protocol error: expected '$', got '!'\r\n",
        ),
        (
            b"*1\r\n$-5\r\n",
            "-ERR Protocol error: invalid bulk length\r\n",
        ),
        (
            b"*1\r\n$536870913\r\n",
            "-ERR Protocol error: invalid bulk length\r\n",
        ),
        (
            b"SET \"x\r\n",
            "-ERR Protocol error: unbalanced quotes in request\r\n",
        ),
    ] {
        assert_eq!(String::from_utf8_lossy(&say(&server, "resp", bytes)), text);
    }
    assert!(server.stop().success());
}

#[test]
fn an_amqp_client_of_another_version_is_told_ours() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    assert_eq!(
        say(&server, "amqp", b"AMQP\x00\x01\x00\x00"),
        b"AMQP\x00\x00\x09\x01"
    );
    assert_eq!(
        say(&server, "amqp", b"GET / HTTP/1.1\r\n\r\n"),
        b"AMQP\x00\x00\x09\x01"
    );
    assert!(server.stop().success());
}

/// What a client of each face says first, and how many octets of answer show that the server has taken it in.
fn greeting(face: &str) -> (Vec<u8>, usize) {
    match face {
        "resp" => (b"PING\r\n".to_vec(), 7),
        "amqp" => (amqp_login(), 0),
        _ => (
            b"\x00\x00\x00\x0a\x00\x12\x00\x00\x00\x00\x00\x07\xff\xff".to_vec(),
            10,
        ),
    }
}

/// Reads what a greeting is answered with; AMQP's last word is channel.open-ok (20, 11).
fn answered(socket: &mut TcpStream, face: &str, octets: usize) {
    if octets > 0 {
        socket.read_exact(&mut vec![0; octets]).expect("an answer");
        return;
    }
    let mut said = Vec::new();
    while !said.windows(4).any(|four| four == [0, 20, 0, 11]) {
        let mut some = [0; 2048];
        let read = socket.read(&mut some).expect("an answer");
        assert!(read > 0, "{face} closed the connection");
        said.extend_from_slice(&some[..read]);
    }
}

/// The figure: ten thousand clients that have said hello on any face and are silent, and one more.
#[test]
fn ten_thousand_idle_connections_are_cheap_and_one_more_is_refused() {
    let want = 10_000;
    // Both ends of each are descriptors; this process holds one of them, the server the other.
    let (_, hard) = rustix_limit();
    let room = usize::try_from(hard)
        .unwrap_or(usize::MAX)
        .saturating_sub(500);
    let count = want.min(room);
    if count < want {
        eprintln!("{count} connections instead of {want}: the hard limit of descriptors is {hard}");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start_with(dir.path(), &[format!("--max-connections={count}")]);
    well(&server);
    let before = rss_kib(&server);
    let began = Instant::now();
    let mut held: Vec<(TcpStream, &str, usize)> = Vec::with_capacity(count);
    // One is left for a client that wants to know how the server is.
    for index in 0..count - 1 {
        let face = FACES[index % 3];
        let (said, octets) = greeting(face);
        let mut socket = connect(&server, face);
        socket.write_all(&said).expect("sent");
        held.push((socket, face, octets));
    }
    for (socket, face, octets) in &mut held {
        answered(socket, face, *octets);
    }
    let each = (rss_kib(&server) - before) * 1024 / held.len() as u64;
    eprintln!(
        "{} idle connections in {:?}, {each} octets of memory each",
        held.len(),
        began.elapsed()
    );
    assert!(each < 6 << 10, "an idle connection costs {each} octets");
    let mut last = connect(&server, "resp");
    for _ in 0..20 {
        last.write_all(b"PING\r\n").expect("sent");
        answered(&mut last, "resp", 7);
    }
    assert_eq!(server.get("/healthz").0, 200);

    // One too many: told in words where the protocol has some, closed at once on every face.
    let close = protocol_amqp::Method::ConnectionClose {
        reply_code: 530,
        reply_text: "NOT_ALLOWED - connection refused: node connection limit is reached".into(),
        class_id: 10,
        method_id: 40,
    };
    let mut closed = Vec::new();
    protocol_amqp::method(&mut closed, 0, &close);
    for (face, words) in [
        ("resp", &b"-ERR max number of clients reached\r\n"[..]),
        ("amqp", &closed),
        ("kafka", b""),
    ] {
        let mut said = Vec::new();
        connect(&server, face)
            .read_to_end(&mut said)
            .expect("the server closes");
        assert_eq!(said, words, "{face}");
    }
    last.write_all(b"PING\r\n").expect("sent");
    answered(&mut last, "resp", 7);
    drop((held, last));
    until(|| {
        TcpStream::connect(server.addr("resp")).is_ok_and(|mut socket| {
            let mut pong = [0; 7];
            socket.write_all(b"PING\r\n").is_ok()
                && socket.read_exact(&mut pong).is_ok()
                && &pong == b"+PONG\r\n"
        })
    });
    well(&server);
    assert!(server.stop().success());
}

/// A peer that vanished without a word, in the middle of everything, costs nothing once its time is up.
#[test]
fn half_open_peers_are_let_go() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start_with(
        dir.path(),
        &["--handshake-timeout=300ms", "--resp-idle-timeout=300ms"],
    );
    for (face, said) in [
        ("amqp", &b""[..]),
        ("amqp", b"AMQP\0\0"),
        ("amqp", b"AMQP\0\0\x09\x01\x01\0\0"),
        ("resp", b"*2\r\n$3\r\nGE"),
    ] {
        let mut socket = connect(&server, face);
        socket.write_all(said).expect("sent");
        // Both directions stay open on this side: the server has to decide.
        let mut rest = Vec::new();
        match socket.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{face} {said:?}"),
        }
    }
    well(&server);
    assert!(server.stop().success());
}

fn until(mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < limit, "it does not come true");
        std::thread::yield_now();
    }
}

fn rustix_limit() -> (u64, u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(hard.min(65_536)),
            maximum: limit.maximum,
        },
    );
    (limit.current.unwrap_or(u64::MAX), hard)
}

/// Requests whose answers are a MiB each, from one client that reads none of them.
#[test]
fn a_client_that_never_reads_is_not_read_for_ever() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let value = vec![b'v'; 1 << 20];
    // RESP: a value.
    let mut resp = connect(&server, "resp");
    resp.write_all(b"*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n$1048576\r\n")
        .expect("sent");
    resp.write_all(&value).expect("sent");
    // Kafka: a record, put there by the same client.
    resp.write_all(b"\r\n*4\r\n$10\r\nFM.PRODUCE\r\n$3\r\nbig\r\n$1\r\nk\r\n$1000000\r\n")
        .expect("sent");
    resp.write_all(&value[..1_000_000]).expect("sent");
    resp.write_all(b"\r\n").expect("sent");
    let mut said = Vec::new();
    while said.iter().filter(|byte| **byte == b'\n').count() < 2 {
        let mut some = [0; 256];
        let read = resp.read(&mut some).expect("an answer");
        said.extend_from_slice(&some[..read]);
    }
    assert!(
        said.starts_with(b"+OK\r\n") && !said.contains(&b'-'),
        "{}",
        said.escape_ascii()
    );

    let before = rss_mb(&server);
    let mut greedy = Vec::new();
    for (face, hello, request) in [
        (
            "resp",
            Vec::new(),
            b"*2\r\n$3\r\nGET\r\n$3\r\nbig\r\n".to_vec(),
        ),
        (
            "amqp",
            amqp_with_a_message(&value),
            amqp_get_and_give_back(),
        ),
        ("kafka", Vec::new(), fetch_of_big()),
    ] {
        for _ in 0..4 {
            let mut socket = connect(&server, face);
            socket
                .set_write_timeout(Some(Duration::from_millis(300)))
                .expect("a timeout can be set");
            // 200 MiB of replies each, none of which is read. What does not fit the sockets is not taken.
            let _ = socket
                .write_all(&hello)
                .and_then(|()| socket.write_all(&request.repeat(200)));
            greedy.push(socket);
        }
        for _ in 0..5 {
            well(&server);
        }
        let after = rss_mb(&server);
        assert!(
            after < before + 150,
            "{face}: {before} MB became {after} MB"
        );
    }
    drop(greedy);
    assert!(server.stop().success());
}

/// A handshake, a queue of its own and one message of this body in it.
fn amqp_with_a_message(body: &[u8]) -> Vec<u8> {
    use protocol_amqp::Method;
    let (mut said, _) = greeting("amqp");
    let declare = Method::QueueDeclare {
        ticket: 0,
        queue: "big".into(),
        passive: false,
        durable: false,
        exclusive: false,
        auto_delete: false,
        nowait: false,
        arguments: protocol_amqp::Table::default(),
    };
    let publish = Method::BasicPublish {
        ticket: 0,
        exchange: "".into(),
        routing_key: "big".into(),
        mandatory: false,
        immediate: false,
    };
    protocol_amqp::method(&mut said, 1, &declare);
    protocol_amqp::method(&mut said, 1, &publish);
    protocol_amqp::content_header(&mut said, 1, body.len() as u64, &[0, 0]);
    protocol_amqp::content_body(&mut said, 1, body, 131_072);
    said
}

fn amqp_get_and_give_back() -> Vec<u8> {
    use protocol_amqp::Method;
    let mut said = Vec::new();
    let get = Method::BasicGet {
        ticket: 0,
        queue: "big".into(),
        no_ack: false,
    };
    // Tag 0 with `multiple`: all of them.
    let back = Method::BasicNack {
        delivery_tag: 0,
        multiple: true,
        requeue: true,
    };
    protocol_amqp::method(&mut said, 1, &get);
    protocol_amqp::method(&mut said, 1, &back);
    said
}

/// Fetch version 4 of the topic's first partition.
fn fetch_of_big() -> Vec<u8> {
    use protocol_kafka::wire::Write as _;
    let mut frame = Vec::new();
    frame.put_i16(1);
    frame.put_i16(4);
    frame.put_i32(1);
    frame.put_string("greedy", false);
    frame.put_i32(-1);
    frame.put_i32(0);
    frame.put_i32(1);
    frame.put_i32(4 << 20);
    frame.put_i8(0);
    frame.put_i32(1);
    frame.put_string("big", false);
    frame.put_i32(1);
    frame.put_i32(0);
    frame.put_i64(0);
    frame.put_i32(4 << 20);
    let mut request = i32::try_from(frame.len())
        .expect("short")
        .to_be_bytes()
        .to_vec();
    request.extend_from_slice(&frame);
    request
}

/// Numbers and words at the edges, in every place of every command: an error is an answer, silence is not.
#[test]
fn extreme_arguments_are_answered() {
    const EDGES: [&str; 25] = [
        "-9223372036854775808",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "-1",
        "0",
        "1",
        "2",
        "4294967296",
        "1e400",
        "-inf",
        "+inf",
        "nan",
        "0.1",
        "",
        "(",
        "[",
        "-",
        "+",
        "*",
        "k",
        "h",
        "l",
        "s",
        "z",
    ];
    const WORDS: [&str; 28] = [
        "COUNT",
        "LIMIT",
        "BYSCORE",
        "BYLEX",
        "REV",
        "WITHSCORES",
        "LEFT",
        "RIGHT",
        "BEFORE",
        "NX",
        "XX",
        "GT",
        "CH",
        "INCR",
        "EX",
        "PXAT",
        "KEEPTTL",
        "GET",
        "MATCH",
        "TYPE",
        "MAXLEN",
        "RANK",
        "WEIGHTS",
        "AGGREGATE",
        "BIT",
        "OVERFLOW",
        "u63",
        "STORE",
    ];
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let list = server.redis(&["COMMAND", "LIST"]);
    // Those that wait, or end the connection or the server, are not for this.
    let waits = [
        "subscribe",
        "psubscribe",
        "ssubscribe",
        "monitor",
        "shutdown",
        "quit",
        "reset",
        "client",
        "hello",
        "debug",
        "multi",
        "auth",
        "sync",
        "psync",
        "failover",
        "select",
    ];
    let names: Vec<&str> = list
        .split("\r\n")
        .filter(|line| !line.is_empty() && !line.starts_with(['*', '$']))
        .filter(|name| {
            !waits.contains(&name.to_lowercase().as_str()) && !name.to_lowercase().starts_with('b')
                || name.to_lowercase().starts_with("bit")
        })
        .collect();
    assert!(names.len() > 100, "{} commands", names.len());
    let mut noise = Noise(0x0dd_ba11);
    let mut pick = |from: &[&'static str]| from[(noise.next() >> 33) as usize % from.len()];
    let mut socket = connect(&server, "resp");
    for round in 0..40 {
        let mut request = String::new();
        let mut asked = 0;
        for name in &names {
            // Every type is there again, small: an edge may have deleted or grown it.
            let mut words = vec![*name];
            for _ in 0..1 + (round + asked) % 6 {
                let from: &[&str] = if pick(&["word", "edge", "edge"]) == "word" {
                    &WORDS
                } else {
                    &EDGES
                };
                words.push(pick(from));
            }
            for command in [
                &words[..],
                &["HSET", "h", "f", "1"],
                &["ZADD", "z", "1", "m"],
                &["DEL", "k", "", "0", "1", "2", "-1"],
            ] {
                request.push_str(&format!("*{}\r\n", command.len()));
                for word in command {
                    request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
                }
            }
            asked += 4;
        }
        request.push_str("*2\r\n$4\r\nECHO\r\n$9\r\nthe end !\r\n");
        let reader = socket.try_clone().expect("a second handle");
        let last = std::thread::spawn(move || end_of(reader));
        socket.write_all(request.as_bytes()).expect("sent");
        assert!(
            last.join().expect("no panic"),
            "round {round}: the server fell silent"
        );
    }
    well(&server);
    assert!(server.stop().success());
}

/// Reads until the echo that ends a round.
fn end_of(mut socket: TcpStream) -> bool {
    let mut tail = Vec::new();
    loop {
        let mut some = vec![0; 1 << 16];
        match socket.read(&mut some) {
            Ok(0) | Err(_) => return false,
            Ok(read) => tail.extend_from_slice(&some[..read]),
        }
        if tail.ends_with(b"the end !\r\n") {
            return true;
        }
        let from = tail.len().saturating_sub(64);
        tail.drain(..from);
    }
}
