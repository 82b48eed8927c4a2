//! Limits before and after a login, on every face: each is told in the protocol's words, and others go on undisturbed.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use protocol_amqp::{Method, Table};
use protocol_kafka::wire::Write as _;

use crate::access::{PASSWORD, Redis, add_user, start};
use crate::hostile::{rss_kib, status_kib};
use crate::server::{Server, http};
use crate::{amqp, kafka};

fn connect(server: &Server, face: &str) -> TcpStream {
    let socket = TcpStream::connect(server.addr(face)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    socket
}

/// From another address of this machine.
fn connect_from(last: u8, server: &Server) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let from = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0);
    socket.bind(&from.into()).unwrap();
    socket.connect(&server.addr("resp").into()).unwrap();
    let socket: TcpStream = socket.into();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    socket
}

/// All that is said until the end; a reset may swallow it.
fn last_words(mut socket: TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    if let Err(error) = socket.read_to_end(&mut said) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "it is left open");
    }
    said
}

fn undisturbed(redis: &mut Redis) {
    let began = Instant::now();
    assert_eq!(redis.say(&["PING"]), "+PONG");
    assert!(began.elapsed() < Duration::from_secs(2));
}

fn signal(server: &Server, signal: &str) {
    let pid = server.pid().to_string();
    let status = Command::new("kill").args(["-s", signal, &pid]).status();
    assert!(status.unwrap().success());
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < limit, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn metric(server: &Server, line: &str) -> u64 {
    let text = server.get("/metrics").1;
    let found = text.lines().find_map(|found| found.strip_prefix(line));
    found.unwrap_or("0").trim().parse().unwrap()
}

#[test]
fn connections_of_one_address() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["--max-connections-per-address=3"]);
    let mut held: Vec<_> = (0..3).map(|_| Redis(connect(&server, "resp"))).collect();
    held.iter_mut().for_each(undisturbed);
    let told = last_words(connect(&server, "resp"));
    assert_eq!(told, b"-ERR max number of clients reached\r\n");
    let told = last_words(connect(&server, "amqp"));
    assert!(
        String::from_utf8_lossy(&told).contains("NOT_ALLOWED - connection refused"),
        "{}",
        told.escape_ascii()
    );
    assert_eq!(last_words(connect(&server, "kafka")), b"");
    assert_eq!(
        metric(
            &server,
            "flowmesh_connections_refused_total{face=\"kafka\"}"
        ),
        1
    );
    // Another address has its own, and the admin side counts for itself.
    undisturbed(&mut Redis(connect_from(2, &server)));
    assert_eq!(server.get("/healthz").0, 200);
    held.iter_mut().for_each(undisturbed);
    held.pop();
    until("its place is free again", || {
        Redis(connect(&server, "resp")).say(&["PING"]) == "+PONG"
    });
    assert!(server.stop().success());
}

#[test]
fn new_connections_of_one_address_have_a_rate() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--connection-rate-per-address=5"];
    let server = Server::start_with(dir.path(), &flags);
    let mut inside = Redis(connect_from(2, &server));
    let refused = (0..50)
        .filter(|_| Redis(connect(&server, "resp")).say(&["PING"]) != "+PONG")
        .count();
    assert!((25..50).contains(&refused), "{refused}");
    undisturbed(&mut inside);
    until("it may again", || {
        Redis(connect(&server, "resp")).say(&["PING"]) == "+PONG"
    });
    assert!(server.stop().success());
}

#[test]
fn connections_of_one_user_on_every_face() {
    let dir = tempfile::tempdir().unwrap();
    let flags = [
        "--user=root",
        "--password=rootpw",
        "--max-connections-per-user=3",
    ];
    let server = Server::start_with(dir.path(), &flags);
    add_user(&server, "eve");
    add_user(&server, "bob");
    let grants = serde_json::json!({ "user": "eve", "namespace": "*", "kind": "queue", "pattern": "*", "verbs": ["read"] });
    crate::access::api(&server, "POST", "/grants", &grants);
    let mut redis = Redis::connect(&server, "eve", PASSWORD);
    let amqp = amqp::Client::connect_as(&server, "eve", PASSWORD).unwrap();
    let mut kafka = kafka::Client::connect(&server);
    assert!(kafka.log_in("eve", PASSWORD));

    let mut fourth = Redis(connect(&server, "resp"));
    assert_eq!(
        fourth.say(&["AUTH", "eve", PASSWORD]),
        "-ERR max number of clients of this user reached"
    );
    assert_eq!(last_words(fourth.0), b"");
    let told = amqp::Client::connect_as(&server, "eve", PASSWORD)
        .err()
        .unwrap();
    let words =
        "NOT_ALLOWED - connection refused for user 'eve': user connection limit (3) is reached";
    assert!(told.contains(words), "{told}");
    assert!(!kafka::Client::connect(&server).log_in("eve", PASSWORD));
    // Who has a place keeps it when it says its name again, others have theirs, and HTTP has no connections.
    assert_eq!(redis.say(&["AUTH", "eve", PASSWORD]), "+OK");
    assert!(kafka.log_in("eve", PASSWORD));
    undisturbed(&mut Redis::connect(&server, "bob", PASSWORD));
    // Base64 of `eve:a password of theirs`.
    let login = "ZXZlOmEgcGFzc3dvcmQgb2YgdGhlaXJz";
    let asked = crate::access::api_as(&server, login, "GET", "/info", &serde_json::Value::Null);
    assert_eq!(asked.0, 403, "it is in, and may not see this");
    drop(amqp);
    until("the place is free again", || {
        Redis(connect(&server, "resp")).say(&["AUTH", "eve", PASSWORD]) == "+OK"
    });
    // Another name on the same connection gives the first one's place back.
    let mut other = Redis(connect(&server, "resp"));
    until("there is a place", || {
        other.say(&["AUTH", "eve", PASSWORD]) == "+OK" || {
            other = Redis(connect(&server, "resp"));
            false
        }
    });
    assert_eq!(other.say(&["AUTH", "bob", PASSWORD]), "+OK");
    undisturbed(&mut Redis::connect(&server, "eve", PASSWORD));
    assert!(server.stop().success());
}

/// Redis CVE-2021-32675 (declared lengths) and Kafka CVE-2022-34917: little is taken of whom nobody knows.
#[test]
fn before_a_login_little_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path());
    let mut inside = Redis::connect(&server, "root", "rootpw");
    let told = |bytes: &[u8]| {
        let mut socket = connect(&server, "resp");
        let _ = socket.write_all(bytes);
        String::from_utf8_lossy(&last_words(socket)).into_owned()
    };
    let unauthenticated = |what| format!("-ERR Protocol error: unauthenticated {what} length\r\n");
    assert_eq!(told(b"*11\r\n"), unauthenticated("multibulk"));
    assert_eq!(
        told(b"*2\r\n$4\r\nAUTH\r\n$16385\r\n"),
        unauthenticated("bulk")
    );
    let whole = format!(
        "*3\r\n$4\r\nAUTH\r\n$9000\r\n{}\r\n$9000\r\n",
        "x".repeat(9000)
    );
    assert_eq!(
        told(whole.as_bytes()),
        "-ERR Protocol error: command larger than the query buffer limit\r\n"
    );
    assert_eq!(
        told(&[b'x'; (16 << 10) + 1]),
        "-ERR Protocol error: too big inline request\r\n"
    );
    // Within, and refused in words.
    let mut socket = Redis(connect(&server, "resp"));
    let answer = socket.say(&["AUTH", "root", &"x".repeat(16_000)]);
    assert!(answer.starts_with("-WRONGPASS"), "{answer}");

    let start_ok = |octets: usize| {
        let mut said = b"AMQP\0\0\x09\x01".to_vec();
        let response = format!("\0root\0{}", "x".repeat(octets));
        let start_ok = Method::ConnectionStartOk {
            client_properties: Table::default(),
            mechanism: "PLAIN".into(),
            response: response.as_str().into(),
            locale: "en_US".into(),
        };
        protocol_amqp::method(&mut said, 0, &start_ok);
        said
    };
    for octets in [17 << 10, 100 << 10] {
        let mut socket = connect(&server, "amqp");
        let _ = socket.write_all(&start_ok(octets));
        // As RabbitMQ: before the limits are agreed on there are no last words.
        let said = last_words(socket);
        assert!(
            !said
                .windows(4)
                .any(|four| four == [0, 10, 0, 30] || four == [0, 10, 0, 50])
        );
    }
    // A Kafka client may claim half a MiB, and gets no further with more.
    let mut socket = connect(&server, "kafka");
    socket
        .write_all(&((512 << 10) + 1_i32).to_be_bytes())
        .unwrap();
    assert_eq!(last_words(socket), b"");
    undisturbed(&mut inside);
    assert!(server.stop().success());
}

/// Redis CVE-2025-21605: answers to strangers pile up when they are not read.
#[test]
fn strangers_that_do_not_read_cost_little() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path());
    let mut inside = Redis::connect(&server, "root", "rootpw");
    let before = rss_kib(&server);
    let api_versions = b"\x00\x00\x00\x0a\x00\x12\x00\x00\x00\x00\x00\x07\xff\xff";
    let mut held = Vec::new();
    for (face, request) in [("resp", &b"GET a\r\n"[..]), ("kafka", api_versions)] {
        for _ in 0..100 {
            let mut socket = connect(&server, face);
            socket
                .set_write_timeout(Some(Duration::from_millis(20)))
                .unwrap();
            let _ = socket.write_all(&request.repeat(100_000));
            held.push(socket);
        }
    }
    let grown = rss_kib(&server).saturating_sub(before);
    assert!(grown < 24 << 10, "{grown} KiB for {} strangers", held.len());
    undisturbed(&mut inside);
    assert!(server.stop().success());
}

#[test]
fn who_does_not_log_in_in_time_is_closed_on_every_face() {
    let dir = tempfile::tempdir().unwrap();
    let flags = [
        "--user=root",
        "--password=rootpw",
        "--handshake-timeout=700ms",
    ];
    let server = Server::start_with(dir.path(), &flags);
    let mut inside = Redis::connect(&server, "root", "rootpw");
    let began = Instant::now();
    let api_versions = b"\x00\x00\x00\x0a\x00\x12\x00\x00\x00\x00\x00\x07\xff\xff";
    let late: Vec<_> = [
        ("resp", &b""[..]),
        ("resp", b"PING\r\n"),
        ("resp", b"*2\r\n$4\r\nAUTH\r\n"),
        ("amqp", b""),
        ("amqp", b"AMQP\0\0\x09\x01"),
        ("kafka", b""),
        ("kafka", api_versions),
        ("kafka", b"\x00\x00\x00\x20\x00"),
    ]
    .into_iter()
    .map(|(face, said)| {
        let mut socket = connect(&server, face);
        socket.write_all(said).unwrap();
        socket
    })
    .collect();
    for socket in late {
        last_words(socket);
    }
    assert!(began.elapsed() >= Duration::from_millis(500));
    // Time is only for strangers.
    undisturbed(&mut inside);
    assert!(server.stop().success());
}

#[test]
fn a_subscriber_that_does_not_read_is_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let flags = [
        "--resp-subscriber-output-limit=20MiB",
        "--resp-subscriber-output-soft=8MiB",
        "--resp-subscriber-output-time=500ms",
    ];
    let server = Server::start_with(dir.path(), &flags);
    let subscribe = || {
        let mut redis = Redis(connect(&server, "resp"));
        redis.send(&["SUBSCRIBE", "news"]);
        assert_eq!(redis.line(), "*3");
        redis
    };
    let (_deaf, mut good, mut publisher) =
        (subscribe(), subscribe(), Redis(connect(&server, "resp")));
    let reader = std::thread::spawn(move || {
        let (mut heard, mut some) = (0, vec![0; 1 << 20]);
        while heard < 40 << 20 {
            heard += good.0.read(&mut some).unwrap();
        }
        good
    });
    let message = "m".repeat(1 << 20);
    let listeners: Vec<String> = (0..40)
        .map(|_| publisher.say(&["PUBLISH", "news", &message]))
        .collect();
    assert_eq!(listeners.first().unwrap(), ":2");
    // Sockets hold a few MiB: it has gone somewhere in between.
    assert_eq!(listeners.last().unwrap(), ":1", "{listeners:?}");
    let _good = reader.join().unwrap();
    assert_eq!(
        metric(&server, "flowmesh_connections_evicted_total{face=\"resp\"}"),
        1
    );

    // Far behind and no more messages: after its time.
    let _behind = subscribe();
    let (deaf, began) = (subscribe(), Instant::now());
    for _ in 0..15 {
        publisher.say(&["PUBLISH", "news", &message]);
    }
    until("both are gone", || {
        metric(&server, "flowmesh_connections_evicted_total{face=\"resp\"}") >= 3
    });
    assert!(began.elapsed() >= Duration::from_millis(400));
    drop(deaf);
    undisturbed(&mut publisher);
    assert!(server.stop().success());
}

/// Beginnings of large requests, on each face, that never end.
fn beginnings() -> [(&'static str, Vec<u8>); 4] {
    let rest = vec![b'x'; 8 << 20];
    let mut amqp = crate::amqp_login::amqp_login();
    let publish = Method::BasicPublish {
        ticket: 0,
        exchange: "".into(),
        routing_key: "big".into(),
        mandatory: false,
        immediate: false,
    };
    protocol_amqp::method(&mut amqp, 1, &publish);
    protocol_amqp::content_header(&mut amqp, 1, 16 << 20, &[0, 0]);
    protocol_amqp::content_body(&mut amqp, 1, &rest, 131_072);
    let queued = format!("*3\r\n$3\r\nSET\r\n$1\r\na\r\n${}\r\n", rest.len());
    [
        (
            "resp",
            [b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$16777216\r\n", &rest[..]].concat(),
        ),
        (
            "resp",
            [b"MULTI\r\n", queued.as_bytes(), &rest, b"\r\n"].concat(),
        ),
        ("amqp", amqp),
        (
            "kafka",
            [b"\x01\x00\x00\x00\x00\x00\x00\x03", &rest[..]].concat(),
        ),
    ]
}

#[test]
fn all_buffers_together_have_a_limit() {
    let dir = tempfile::tempdir().unwrap();
    let flags = [
        "--client-memory-limit=40MiB",
        "--max-connections-per-address=0",
    ];
    let server = Server::start_with(dir.path(), &flags);
    let mut inside = Redis(connect(&server, "resp"));
    let mut half = connect(&server, "resp");
    half.write_all(b"*2\r\n$4\r\nECHO\r\n$5\r\nhe").unwrap();
    undisturbed(&mut inside);
    let before = rss_kib(&server);
    for (face, beginning) in beginnings() {
        let evicted = format!("flowmesh_connections_evicted_total{{face=\"{face}\"}}");
        let already = metric(&server, &evicted);
        let held: Vec<_> = (0..20)
            .map(|_| {
                let mut socket = connect(&server, face);
                let _ = socket.write_all(&beginning);
                socket
            })
            .collect();
        // 160 MiB were sent.
        until("the largest are closed", || {
            metric(&server, &evicted) >= already + 10
        });
        let buffered = metric(&server, "flowmesh_client_buffer_bytes");
        assert!(
            (16 << 20..=56 << 20).contains(&buffered),
            "{face} {buffered}"
        );
        undisturbed(&mut inside);
        drop(held);
        let line = format!("flowmesh_connections{{face=\"{face}\"}}");
        until("all are gone", || metric(&server, &line) <= 2);
    }
    let grown = rss_kib(&server).saturating_sub(before) >> 10;
    // Four times 160 MiB were sent. Buffers grow by doubling, and the allocator keeps some of what was freed.
    assert!(grown < 300, "{grown} MiB");
    half.write_all(b"llo\r\n").unwrap();
    assert_eq!(Redis(half).line(), "$5");
    // There is room again.
    let value = "v".repeat(8 << 20);
    assert_eq!(inside.say(&["SET", "a", &value]), "+OK");
    assert!(server.stop().success());
}

/// All of them ask before the network thread looks at any.
#[test]
fn large_replies_to_many_within_one_turn_have_a_limit() {
    const CLIENTS: usize = 200;
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--client-memory-limit=32MiB", "--threads=1"];
    let server = Server::start_with(dir.path(), &flags);
    let mut inside = Redis(connect(&server, "resp"));
    assert_eq!(inside.say(&["SET", "large", &"v".repeat(1 << 20)]), "+OK");
    let mut asking: Vec<_> = (0..CLIENTS).map(|_| connect(&server, "resp")).collect();
    undisturbed(&mut inside);
    let before = rss_kib(&server);
    signal(&server, "STOP");
    let gets = b"*2\r\n$3\r\nGET\r\n$5\r\nlarge\r\n".repeat(20);
    for client in &mut asking {
        client.write_all(&gets).unwrap();
    }
    signal(&server, "CONT");
    assert_eq!(inside.say(&["PING"]), "+PONG");
    let grown = status_kib(&server, "VmHWM").saturating_sub(before) >> 10;
    assert!(grown < 100, "{grown} MiB");
    drop(asking);
    undisturbed(&mut inside);
    assert!(server.stop().success());
}

#[test]
fn what_one_connection_may_keep() {
    let dir = tempfile::tempdir().unwrap();
    let flags = [
        "--resp-max-subscriptions=5",
        "--amqp-consumer-max-per-channel=2",
        "--amqp-max-message-size=1MiB",
    ];
    let server = Server::start_with(dir.path(), &flags);
    let mut inside = Redis(connect(&server, "resp"));
    let mut redis = Redis(connect(&server, "resp"));
    let full = "-ERR too many channels, patterns and watched keys in one connection";
    assert_eq!(redis.say(&["WATCH", "a", "b", "c"]), "+OK");
    assert_eq!(redis.say(&["WATCH", "d", "e", "f"]), full);
    assert_eq!(redis.say(&["UNWATCH"]), "+OK");
    assert_eq!(redis.say(&["WATCH", "d", "e", "f"]), "+OK");
    assert_eq!(redis.say(&["PSUBSCRIBE", "a*", "b*", "c*"]), full);
    assert_eq!(redis.say(&["UNWATCH"]), "+OK");
    assert_eq!(redis.say(&["SUBSCRIBE", "a", "b", "c", "d", "e"]), "*3");
    // The same again are not more.
    redis.send(&["SUBSCRIBE", "a", "b", "c", "d", "e"]);
    redis.send(&["SUBSCRIBE", "a", "f"]);
    let mut said = Vec::new();
    while !said.ends_with(format!("{full}\r\n").as_bytes()) {
        let mut some = [0; 4096];
        let read = redis.0.read(&mut some).unwrap();
        said.extend_from_slice(&some[..read]);
    }
    let told = String::from_utf8_lossy(&said);
    assert!(told.matches("$9\r\nsubscribe").count() >= 5, "{told}");
    let mut redis = Redis(connect(&server, "resp"));
    assert_eq!(
        redis.say(&["SUBSCRIBE", "a", "b", "c", "d", "e", "f"]),
        full
    );

    let mut client = amqp::Client::connect(&server);
    client.declare("q", false);
    let consume = |tag| Method::BasicConsume {
        ticket: 0,
        queue: "q".into(),
        consumer_tag: tag,
        no_local: false,
        no_ack: false,
        exclusive: false,
        nowait: false,
        arguments: Table::default(),
    };
    for tag in ["one", "two"] {
        client.send(1, &consume(tag.into()));
        client.expect("basic.consume_ok");
    }
    client.send(1, &consume("three".into()));
    let told = client.expect("connection.close");
    assert!(
        told.contains("NOT_ALLOWED - reached maximum (2) of consumers per channel"),
        "{told}"
    );

    // channel_max was agreed to be 10.
    let mut client = amqp::Client::connect(&server);
    for id in 2..=10 {
        client.send(
            id,
            &Method::ChannelOpen {
                out_of_band: "".into(),
            },
        );
        client.expect("channel.open_ok");
    }
    client.send(
        11,
        &Method::ChannelOpen {
            out_of_band: "".into(),
        },
    );
    let told = client.expect("connection.close");
    assert!(
        told.contains("has reached the negotiated channel_max (10)"),
        "{told}"
    );

    // A body that is larger than it may be, and one that is longer than it said.
    let publish = |size: u64, body: &[u8]| {
        let mut said = Vec::new();
        let publish = Method::BasicPublish {
            ticket: 0,
            exchange: "".into(),
            routing_key: "q".into(),
            mandatory: false,
            immediate: false,
        };
        protocol_amqp::method(&mut said, 1, &publish);
        protocol_amqp::content_header(&mut said, 1, size, &[0, 0]);
        protocol_amqp::content_body(&mut said, 1, body, 131_072);
        said
    };
    for (said, words) in [
        (
            publish(u64::MAX, b""),
            "PRECONDITION_FAILED - message size 18446744073709551615 is larger than configured max size 1048576",
        ),
        (
            publish((1 << 20) + 1, b""),
            "is larger than configured max size",
        ),
        (publish(3, b"four"), "UNEXPECTED_FRAME"),
    ] {
        let mut client = amqp::Client::connect(&server);
        client.socket.write_all(&said).unwrap();
        let told = client.next_is("basic.ack").err().unwrap();
        assert!(told.contains(words), "{told}");
    }
    undisturbed(&mut inside);
    assert!(server.stop().success());
}

/// RabbitMQ CVE-2023-46118: the body of an HTTP request has an end, and who is not let in need not send it.
#[test]
fn http_bodies_and_headers_have_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--user=root", "--password=rootpw", "--http-max-body=64KiB"];
    let server = Server::start_with(dir.path(), &flags);
    let mut inside = Redis::connect(&server, "root", "rootpw");
    let before = rss_kib(&server);
    // Base64 of `root:rootpw`.
    let root = "authorization: Basic cm9vdDpyb290cHc=\r\n";
    let post = |login: &str, length: u64, body: &str| {
        let request = format!(
            "POST /api/v1/users HTTP/1.1\r\nhost: localhost\r\n{login}content-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
        http(server.addr("http"), &request)
    };
    let large = format!("{{\"name\":\"{}\"}}", "x".repeat(65_500));
    assert_eq!(
        post(root, large.len() as u64, &large).0,
        400,
        "a name is shorter"
    );
    // Only claimed, and told at once.
    assert_eq!(post(root, 1 << 40, "{").0, 413);
    assert_eq!(post("", 1 << 40, "{").0, 401);
    // Without a length.
    let chunked = format!(
        "POST /api/v1/users HTTP/1.1\r\nhost: localhost\r\n{root}content-type: application/json\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n11000\r\n{}",
        "x".repeat(0x11000)
    );
    assert_eq!(http(server.addr("http"), &chunked).0, 413);
    // Headers that do not end: hyper's limits, of all and of their number.
    for (header, times) in [("a".repeat(8000), 100), ("a".to_owned(), 200)] {
        let mut socket = connect(&server, "http");
        let line = format!("x-{header}: y\r\n").repeat(times);
        let _ = socket.write_all(format!("GET /healthz HTTP/1.1\r\n{line}\r\n").as_bytes());
        let said = last_words(socket);
        assert!(
            said.is_empty() || said.starts_with(b"HTTP/1.1 431"),
            "{}",
            said.escape_ascii()
        );
    }
    assert!(rss_kib(&server) < before + (16 << 10));
    undisturbed(&mut inside);
    assert!(server.stop().success());
}

#[test]
fn admin_connections_have_a_limit() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["--admin-max-connections=2"]);
    let wait = Some(Duration::from_millis(300));
    let get = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    // HTTP/2's preface and empty settings, which are answered with settings.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for (face, said) in [("http", &get[..]), ("grpc", preface)] {
        let mut answered: Vec<TcpStream> = Vec::new();
        for _ in 0..2 {
            let mut socket = connect(&server, face);
            socket.write_all(said).unwrap();
            socket.read_exact(&mut [0; 9]).unwrap();
            answered.push(socket);
        }
        let mut third = connect(&server, face);
        third.write_all(said).unwrap();
        third.set_read_timeout(wait).unwrap();
        assert!(third.read_exact(&mut [0; 9]).is_err(), "{face}: it waits");
        answered.pop();
        third
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        third.read_exact(&mut [0; 9]).unwrap();
    }
    assert!(server.stop().success());
}

/// Redis CVE-2022-36021 and CVE-2024-31228: patterns that take long or nest deep.
#[test]
fn patterns_that_were_made_to_take_long() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut redis = Redis(connect(&server, "resp"));
    assert_eq!(redis.say(&["SET", &"a".repeat(1 << 20), "1"]), "+OK");
    let began = Instant::now();
    for pattern in [
        format!("*{}b", "a".repeat(1 << 19)),
        "a*".repeat(1 << 19),
        "*[".repeat(1 << 19),
        "\\".repeat(1 << 20),
        format!("{}b", "*?".repeat(1 << 19)),
    ] {
        for command in [
            &["SCAN", "0", "MATCH", &pattern, "COUNT", "100000"][..],
            &["KEYS", &pattern],
        ] {
            // The key itself may be in the answer.
            let answer = Redis(connect(&server, "resp")).say(command);
            assert!(answer.starts_with('*'), "{answer}");
        }
    }
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    assert!(server.stop().success());
}

/// Redis CVE-2021-32761 and its family: sizes that overflow when something is added to them or multiplied.
#[test]
fn sizes_at_the_edge() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut redis = Redis(connect(&server, "resp"));
    let before = rss_kib(&server);
    assert_eq!(redis.say(&["SADD", "s", "a"]), ":1");
    for (words, told) in [
        (
            &["SETRANGE", "k", "9223372036854775807", "x"][..],
            "-ERR string exceeds maximum allowed size",
        ),
        (
            &["SETRANGE", "k", "536870912", "x"],
            "-ERR string exceeds maximum allowed size",
        ),
        (
            &["SETBIT", "k", "4294967296", "1"],
            "-ERR bit offset is not an integer or out of range",
        ),
        (
            &["SETBIT", "k", "18446744073709551615", "1"],
            "-ERR bit offset is not an integer or out of range",
        ),
        (
            &["SRANDMEMBER", "s", "-9223372036854775808"],
            "-ERR value is out of range",
        ),
        (
            &["SRANDMEMBER", "s", "-1000000000"],
            "-ERR value is out of range",
        ),
        (
            &["EXPIRE", "s", "9223372036854775807"],
            "-ERR invalid expire time in 'expire' command",
        ),
        (
            &["SET", "k", "v", "EX", "9223372036854775807"],
            "-ERR invalid expire time in 'set' command",
        ),
        (
            &["LPOP", "l", "-1"],
            "-ERR value is out of range, must be positive",
        ),
        (
            &["INCRBY", "n", "9223372036854775807"],
            ":9223372036854775807",
        ),
        (
            &["INCRBY", "n", "1"],
            "-ERR increment or decrement would overflow",
        ),
        (
            &["DECRBY", "n", "-9223372036854775808"],
            "-ERR decrement would overflow",
        ),
    ] {
        let answer = redis.say(words);
        assert!(answer.starts_with(told), "{words:?}: {answer}");
    }
    assert!(rss_kib(&server) < before + (64 << 10));
    // Kafka: counts and lengths of Produce and Metadata that are larger than what is there.
    for body in [
        &[0x7f, 0xff, 0xff, 0xff][..],
        &[0x80, 0, 0, 0],
        &[0, 0, 0, 1, 0x7f, 0xff],
    ] {
        let mut client = kafka::Client::connect(&server);
        assert!(client.call(3, 1, body).is_none());
    }
    let mut tagged = Vec::new();
    tagged.put_length(1, true);
    // A tagged field that claims more than the frame has.
    tagged.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0x01]);
    assert!(
        kafka::Client::connect(&server)
            .call(3, 9, &tagged)
            .is_none()
    );
    undisturbed(&mut redis);
    assert!(server.stop().success());
}

/// A record has a section for each key whose shard is not that of the key before.
#[test]
fn one_command_for_a_hundred_thousand_keys() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut redis = Redis(connect(&server, "resp"));
    let keys: Vec<String> = (0..100_000).map(|number| format!("k{number}")).collect();
    let words: Vec<&str> = std::iter::once("MSET")
        .chain(keys.iter().flat_map(|key| [key.as_str(), "v"]))
        .collect();
    assert_eq!(redis.say(&words), "+OK");
    assert_eq!(redis.say(&["DBSIZE"]), ":100000");
    server.kill();
    let server = Server::start(dir.path());
    let mut redis = Redis(connect(&server, "resp"));
    assert_eq!(redis.say(&["DBSIZE"]), ":100000");
    let words: Vec<&str> = std::iter::once("DEL")
        .chain(keys.iter().map(String::as_str))
        .collect();
    assert_eq!(redis.say(&words), ":100000");
    assert!(server.stop().success());
}

/// What a connection keeps is counted: empty arguments as well, and what a blocked command waits for.
#[test]
fn a_sort_stores_no_more_than_a_record_holds() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut redis = Redis(connect(&server, "resp"));
    // One value that every element names.
    assert_eq!(redis.say(&["SETRANGE", "x", "67108863", "x"]), ":67108864");
    assert_eq!(redis.say(&["RPUSH", "l", "a", "b"]), ":2");
    let store = ["SORT", "l", "BY", "nosort", "GET", "x*", "STORE", "d"];
    assert_eq!(redis.say(&store), ":2", "of names that are not there");
    assert_eq!(redis.say(&["RENAME", "x", "xa"]), "+OK");
    let mut many = vec!["SORT", "l", "BY", "nosort", "STORE", "d"];
    many.extend(["GET", "x*"].repeat(17));
    let refused = redis.say(&many);
    assert!(
        refused.starts_with("-ERR the value is too large"),
        "{refused}"
    );
    assert_eq!(redis.say(&["LLEN", "d"]), ":2", "as it was");
    assert!(server.stop().success());
}

#[test]
fn small_things_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let buffered = || metric(&server, "flowmesh_client_buffer_bytes");
    let many = |word: &str, arg: &str, last: &str| {
        let arg = format!("${}\r\n{arg}\r\n", arg.len()).repeat(200_000);
        let ends = |word: &str| format!("${}\r\n{word}\r\n", word.len());
        format!("*200002\r\n{}{arg}{}", ends(word), ends(last))
    };
    let mut redis = Redis(connect(&server, "resp"));
    assert_eq!(redis.say(&["MULTI"]), "+OK");
    redis.0.write_all(many("DEL", "", "").as_bytes()).unwrap();
    assert_eq!(redis.line(), "+QUEUED");
    until("arguments are counted", || buffered() >= 8 * 200_000);
    assert_eq!(
        redis.say(&["NONE"]),
        "-ERR unknown command 'NONE', with args beginning with: "
    );
    redis.0.write_all(many("DEL", "", "").as_bytes()).unwrap();
    assert_eq!(redis.line(), "+QUEUED");
    assert!(
        buffered() < 2 * 8 * 200_000,
        "it is not kept: it will not run"
    );
    assert!(redis.say(&["EXEC"]).starts_with("-EXECABORT"));
    until("they are gone", || buffered() == 0);
    redis
        .0
        .write_all(many("BLPOP", "k", "0").as_bytes())
        .unwrap();
    until("keys are counted", || buffered() >= 100 * 200_000);
    drop(redis);
    until("they are gone", || buffered() == 0);
    assert!(server.stop().success());
}
