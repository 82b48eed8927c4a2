//! What peers must not be able to do: crash the server, make it hoard memory, or disturb others.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::server::Server;

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
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("the server runs");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .expect("a VmRSS line");
    line.split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<u64>().ok())
        .expect("a number")
        / 1024
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

#[test]
fn idle_connections_are_cheap() {
    let want = 3000;
    // Both ends of each are descriptors; this process holds one of them.
    let (_, hard) = rustix_limit();
    let each = want.min(usize::try_from(hard).unwrap_or(want).saturating_sub(500));
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    well(&server);
    let before = rss_mb(&server);
    let held: Vec<TcpStream> = (0..each)
        .map(|index| connect(&server, FACES[index % 3]))
        .collect();
    well(&server);
    let after = rss_mb(&server);
    assert!(
        after < before + 40,
        "{} idle connections: {before} MB became {after} MB",
        held.len()
    );
    drop(held);
    well(&server);
    assert!(server.stop().success());
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

#[test]
fn a_client_that_never_reads_is_not_read_for_ever() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let mut setup = connect(&server, "resp");
    let value = vec![b'v'; 1 << 20];
    setup
        .write_all(format!("*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n${}\r\n", value.len()).as_bytes())
        .expect("sent");
    setup.write_all(&value).expect("sent");
    setup.write_all(b"\r\n").expect("sent");
    let mut ok = [0; 5];
    setup.read_exact(&mut ok).expect("an answer");
    let before = rss_mb(&server);
    let mut greedy = Vec::new();
    for _ in 0..8 {
        let mut socket = connect(&server, "resp");
        socket
            .set_write_timeout(Some(Duration::from_millis(300)))
            .expect("a timeout can be set");
        // 200 MiB of replies each, none of which is read.
        let _ = socket.write_all(&b"*2\r\n$3\r\nGET\r\n$3\r\nbig\r\n".repeat(200));
        greedy.push(socket);
    }
    for _ in 0..20 {
        well(&server);
    }
    let after = rss_mb(&server);
    assert!(after < before + 150, "{before} MB became {after} MB");
    drop(greedy);
    assert!(server.stop().success());
}
