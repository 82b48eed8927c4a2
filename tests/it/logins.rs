//! Logins that must fail, cost little, and disturb nobody: guesses, floods, nonsense, and doors that must stay shut.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use protocol_amqp::{Method, Table};
use serde_json::{Value, json};

use crate::access::{PASSWORD, Redis, add_user, api, api_as, grant, start};
use crate::hostile::rss_kib;
use crate::server::{Server, flowmesh, http};
use crate::{amqp, kafka};

/// Memory that the server may grow by meanwhile, in KiB: less than what it is shown.
const GROWTH_KIB: u64 = 64 << 10;

fn resp(server: &Server) -> TcpStream {
    let socket = TcpStream::connect(server.addr("resp")).unwrap();
    let limit = Some(Duration::from_secs(30));
    socket.set_read_timeout(limit).unwrap();
    socket
}

/// Somebody who is in goes on at once.
fn undisturbed(redis: &mut Redis) {
    let began = Instant::now();
    assert_eq!(redis.say(&["PING"]), "+PONG");
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[test]
fn guessing_locks_out_on_every_face_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--user=root", "--password=rootpw", "--login-failures=3"];
    let server = Server::start_with(dir.path(), &flags);
    add_user(&server, "eve");
    add_user(&server, "bob");
    let began = Instant::now();
    for _ in 0..3 {
        let answer = Redis(resp(&server)).say(&["AUTH", "eve", "guess"]);
        assert!(answer.starts_with("-WRONGPASS"), "{answer}");
    }
    // Each is told a tenth of a second after it was tried.
    assert!(began.elapsed() >= Duration::from_millis(300));
    let answer = Redis(resp(&server)).say(&["AUTH", "eve", PASSWORD]);
    assert!(answer.starts_with("-WRONGPASS"), "{answer}");
    assert!(amqp::Client::connect_as(&server, "eve", PASSWORD).is_err());
    assert!(!kafka::Client::connect(&server).log_in("eve", PASSWORD));
    // Base64 of `eve:a password of theirs`.
    let login = "ZXZlOmEgcGFzc3dvcmQgb2YgdGhlaXJz";
    assert_eq!(api_as(&server, login, "GET", "/info", &Value::Null).0, 401);
    undisturbed(&mut Redis::connect(&server, "bob", PASSWORD));
    assert!(server.stop().success());
}

#[test]
fn a_full_queue_of_logins_is_told_and_disturbs_nobody() {
    const LOGINS: usize = 300;
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path());
    let mut inside = Redis::connect(&server, "root", "rootpw");
    let before = rss_kib(&server);
    let mut sockets: Vec<_> = (0..LOGINS).map(|_| Redis(resp(&server))).collect();
    for (number, redis) in sockets.iter_mut().enumerate() {
        redis.send(&["AUTH", &format!("user{number}"), "x"]);
    }
    undisturbed(&mut inside);
    let (mut wrong, mut busy) = (0, 0);
    for redis in &mut sockets {
        match redis.line().as_str() {
            "-WRONGPASS invalid username-password pair or user is disabled." => wrong += 1,
            "-WRONGPASS too many logins are being verified, try again" => busy += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(wrong >= 64 && busy > 0, "{wrong} wrong, {busy} busy");
    assert!(rss_kib(&server) < before + GROWTH_KIB);
    // And it goes on.
    add_user(&server, "bob");
    undisturbed(&mut Redis::connect(&server, "bob", PASSWORD));
    assert!(server.stop().success());
}

#[test]
fn credentials_of_a_mebibyte() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path());
    let long = "x".repeat(1 << 20);
    let mut inside = Redis::connect(&server, "root", "rootpw");
    let before = rss_kib(&server);
    // Who is in may send as much, and is told.
    let answer = inside.say(&["AUTH", "root", &long]);
    assert!(answer.starts_with("-WRONGPASS"), "{answer}");
    for words in [
        &["AUTH", "root", &long][..],
        &["AUTH", &long, "x"],
        &["HELLO", "3", "AUTH", "root", &long],
    ] {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        let mut redis = Redis(resp(&server));
        // It may close before all is sent, which loses what it said.
        if redis.0.write_all(request.as_bytes()).is_ok() {
            let answer = redis.line();
            assert!(
                answer.is_empty() || answer.starts_with("-ERR Protocol error"),
                "{answer}"
            );
        }
    }
    let mut client = kafka::Client::connect(&server);
    let message = format!("\0root\0{long}");
    assert!(client.try_sasl("PLAIN", message.as_bytes()).is_none());
    // Below what is read before a login: refused in words.
    let message = format!("\0root\0{}", &long[..400 << 10]);
    let (error, _) = kafka::Client::connect(&server)
        .try_sasl("PLAIN", message.as_bytes())
        .unwrap();
    assert_eq!(error, 58);
    assert!(amqp::Client::connect_as(&server, "root", &long[..100 << 10]).is_err());
    let mut socket = TcpStream::connect(server.addr("amqp")).unwrap();
    let mut request = b"AMQP\0\0\x09\x01".to_vec();
    let start_ok = Method::ConnectionStartOk {
        client_properties: Table::default(),
        mechanism: "PLAIN".into(),
        response: long.as_str().into(),
        locale: "en_US".into(),
    };
    protocol_amqp::method(&mut request, 0, &start_ok);
    let _ = socket.write_all(&request);
    assert!(
        socket
            .read_to_end(&mut Vec::new())
            .map_or(true, |read| read < 1024)
    );
    let request = format!(
        "GET /api/v1/info HTTP/1.1\r\nhost: localhost\r\nauthorization: Basic {}\r\nconnection: close\r\n\r\n",
        &long[..16 << 10]
    );
    assert_eq!(http(server.addr("http"), &request).0, 401);
    undisturbed(&mut inside);
    assert!(rss_kib(&server) < before + GROWTH_KIB);
    assert!(server.stop().success());
}

#[test]
fn malformed_sasl() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path());
    let mut inside = Redis::connect(&server, "root", "rootpw");
    let messages: [&[u8]; 12] = [
        b"",
        b"\0",
        b"\0\0",
        b"\0root\0rootpw\0",
        b"other\0root\0rootpw",
        b"root",
        b"\xff\xfe\0\xff\0\xff",
        b"n,,n=root,r=",
        b"p=tls-unique,,n=root,r=abc",
        b"n,a=admin,n=root,r=abc",
        b"n,,n=ro=ot,r=abc",
        &[0; 4096],
    ];
    for message in messages {
        for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
            let mut client = kafka::Client::connect(&server);
            let (error, _) = client.try_sasl(mechanism, message).unwrap();
            assert_eq!(error, 58, "{mechanism} {}", message.escape_ascii());
            assert!(client.call(18, 0, &[]).is_none(), "it is closed");
        }
        for mechanism in ["PLAIN", "AMQPLAIN"] {
            let mut socket = TcpStream::connect(server.addr("amqp")).unwrap();
            let mut request = b"AMQP\0\0\x09\x01".to_vec();
            let start_ok = Method::ConnectionStartOk {
                client_properties: Table::default(),
                mechanism: mechanism.into(),
                response: protocol_amqp::LongStr(message),
                locale: "en_US".into(),
            };
            protocol_amqp::method(&mut request, 0, &start_ok);
            socket.write_all(&request).unwrap();
            let mut said = Vec::new();
            let _ = socket.read_to_end(&mut said);
            // connection.start, and no connection.tune behind it.
            assert!(!said.windows(4).any(|four| four == [0, 10, 0, 30]));
        }
    }
    // A right beginning, and no right end.
    let mut client = kafka::Client::connect(&server);
    let (error, first) = client
        .try_sasl("SCRAM-SHA-256", b"n,,n=root,r=abc")
        .unwrap();
    assert!(
        error == 0 && first.starts_with(b"r=abc"),
        "{}",
        first.escape_ascii()
    );
    assert_eq!(client.sasl_goes_on(b"c=biws,r=abc,p=AAAA").unwrap().0, 58);
    // Before a handshake, and with a mechanism that is none.
    let (error, _) = kafka::Client::connect(&server)
        .sasl_goes_on(b"\0root\0rootpw")
        .unwrap();
    assert_eq!(error, 34);
    undisturbed(&mut inside);
    assert!(server.stop().success());
}

#[test]
fn pathological_grants() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path());
    add_user(&server, "eve");
    let ask = |namespace: &str, kind: &str, pattern: &str, verbs: &[&str]| {
        let body = json!({ "user": "eve", "namespace": namespace, "kind": kind, "pattern": pattern, "verbs": verbs });
        let (status, said) = api(&server, "POST", "/grants", &body);
        (
            status,
            said["error"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let long = "a".repeat(1025);
    for (namespace, kind, pattern, verbs, told) in [
        (
            "default",
            "key",
            long.as_str(),
            &["read"][..],
            "a pattern has at most 1024 octets",
        ),
        ("db01", "key", "x", &["read"], "a namespace is"),
        (
            "default",
            "keys",
            "x",
            &["read"],
            "a kind is one of key, channel",
        ),
        (
            "default",
            "key",
            "x",
            &["reed"],
            "a verb is one of read, write",
        ),
        ("default", "key", "x", &[], "a grant needs verbs"),
    ] {
        let (status, said) = ask(namespace, kind, pattern, verbs);
        assert!(status == 400 && said.contains(told), "{status} {said}");
    }
    // A class that never closes, escapes of nothing, and only stars.
    for pattern in ["[", "[^", "x\\", "*?*?*?*?*", "[z-a]"] {
        let (status, said) = ask("default", "channel", pattern, &["read"]);
        assert_eq!(status, 201, "{pattern} {said}");
    }
    let mut refused = 0;
    for number in 0..20 {
        let pattern = format!("*{}{number:03}", "a".repeat(1020));
        let (status, said) = ask("default", "key", &pattern, &["read"]);
        if status != 201 {
            assert!(
                status == 400 && said.contains("8192 octets together"),
                "{said}"
            );
            refused += 1;
        }
    }
    // They have a few octets already.
    assert_eq!(refused, 13);
    let (mut eve, mut inside) = (
        Redis::connect(&server, "eve", PASSWORD),
        Redis::connect(&server, "root", "rootpw"),
    );
    let before = rss_kib(&server);
    let name = "a".repeat(4096);
    for _ in 0..20 {
        eve.send(&["GET", &name]);
        undisturbed(&mut inside);
        assert_eq!(eve.line(), "-NOPERM No permissions to access a key");
    }
    assert!(rss_kib(&server) < before + GROWTH_KIB);
    assert!(server.stop().success());
}

/// Beyond this machine only while somebody can log in: a password that is configured, or a user.
#[test]
fn open_addresses_need_somebody_who_can_log_in() {
    let dir = tempfile::tempdir().unwrap();
    let refused = || {
        let out = flowmesh()
            .args(["server", "--resp-addr=0.0.0.0:0", "--amqp-addr=off"])
            .args(["--kafka-addr=off", "--grpc-addr=off", "--http-addr=off"])
            .arg("--data-dir")
            .arg(dir.path())
            .output()
            .unwrap();
        assert_eq!(out.status.code(), Some(2));
        let text = String::from_utf8(out.stderr).unwrap();
        assert!(
            text.contains(
                "resp-addr 0.0.0.0:0 can be reached from other machines, and nobody can log in"
            ) && text.contains("FLOWMESH_PASSWORD")
                && text.contains("flowmesh user add"),
            "{text}"
        );
    };
    refused();
    let server = Server::start(dir.path());
    let root = json!({ "name": "root", "password": "rootpw", "superuser": true });
    assert_eq!(server.post("/api/v1/users", &root.to_string()).0, 201);
    assert!(server.stop().success());
    let server = Server::start_with(dir.path(), &["--resp-addr=0.0.0.0:0"]);
    Redis::connect(&server, "root", "rootpw");
    let disabled = json!({ "enabled": false });
    for (method, body) in [("DELETE", &Value::Null), ("PATCH", &disabled)] {
        let (status, said) = api(&server, method, "/users/root", body);
        assert_eq!(status, 409, "{said}");
        assert!(
            said["error"]
                .as_str()
                .unwrap()
                .contains("the last user that can log in")
        );
    }
    add_user(&server, "eve");
    assert_eq!(api(&server, "DELETE", "/users/root", &Value::Null).0, 200);
    assert!(server.stop().success());
    // Where nobody else comes the last one may go.
    let server = Server::start_with(dir.path(), &["--user=root", "--password=rootpw"]);
    assert_eq!(api(&server, "DELETE", "/users/eve", &Value::Null).0, 200);
    assert!(server.stop().success());
    refused();
}

/// What was denied and who came in, on each face, is in the audit log.
#[test]
fn denials_and_logins_of_every_face_are_noted() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path());
    add_user(&server, "eve");
    grant(&server, "POST", "eve", "queue", "app", &["read"], false);
    let mut eve = Redis::connect(&server, "eve", PASSWORD);
    assert!(eve.say(&["GET", "akey"]).starts_with("-NOPERM"));
    let mut client = amqp::Client::connect_as(&server, "eve", PASSWORD).unwrap();
    client.publish_to("anexchange", "k", b"x", false);
    client.expect("channel.close");
    let mut client = kafka::Client::connect(&server);
    assert!(client.log_in("eve", PASSWORD));
    client.call(3, 1, &kafka::metadata_body("atopic")).unwrap();
    // Base64 of `eve:a password of theirs`.
    let login = "ZXZlOmEgcGFzc3dvcmQgb2YgdGhlaXJz";
    for path in ["/users", "/info"] {
        assert_eq!(api_as(&server, login, "GET", path, &Value::Null).0, 403);
    }
    let (_, audit) = api(&server, "GET", "/audit", &Value::Null);
    let rows = audit["rows"].as_array().unwrap();
    for (face, what, object, outcome) in [
        ("resp", "login", "", "allowed"),
        ("resp", "get", "akey", "denied"),
        ("amqp", "login", "", "allowed"),
        ("amqp", "write exchange", "anexchange", "denied"),
        ("kafka", "login", "", "allowed"),
        ("kafka", "describe topic", "atopic", "denied"),
        ("http", "login", "", "allowed"),
        ("http", "GET", "/users", "denied"),
        ("http", "describe admin", "server", "denied"),
    ] {
        let noted = rows.iter().any(|row| {
            (&row["who"], &row["face"], &row["what"]) == (&json!("eve"), &json!(face), &json!(what))
                && (&row["object"], &row["outcome"]) == (&json!(object), &json!(outcome))
        });
        assert!(noted, "{face} {what} in {audit:#}");
    }
    assert!(server.stop().success());
}
