//! Who may do what, through every face: what one denies no other allows, and changes count at once.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use protocol_amqp::{Method, Table};
use protocol_kafka::wire::Write as _;
use serde_json::{Value, json};

use crate::server::{Server, http};
use crate::{amqp, kafka};

/// Base64 of `root:rootpw`.
const ROOT: &str = "cm9vdDpyb290cHc=";
pub(crate) const PASSWORD: &str = "a password of theirs";

pub(crate) fn start(dir: &Path) -> Server {
    Server::start_with(dir, &["--user=root", "--password=rootpw"])
}

/// Asks the API as the configured superuser.
pub(crate) fn api(server: &Server, method: &str, path: &str, body: &Value) -> (u16, Value) {
    api_as(server, ROOT, method, path, body)
}

pub(crate) fn api_as(
    server: &Server,
    login: &str,
    method: &str,
    path: &str,
    body: &Value,
) -> (u16, Value) {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let request = format!(
        "{method} /api/v1{path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Basic {login}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let (status, body) = http(server.addr("http"), &request);
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

pub(crate) fn add_user(server: &Server, name: &str) {
    let user = json!({ "name": name, "password": PASSWORD });
    assert_eq!(api(server, "POST", "/users", &user).0, 201, "{name}");
}

pub(crate) fn grant(
    server: &Server,
    method: &str,
    user: &str,
    kind: &str,
    pattern: &str,
    verbs: &[&str],
    deny: bool,
) {
    let body = json!({ "user": user, "namespace": "*", "kind": kind, "pattern": pattern, "verbs": verbs, "deny": deny });
    let (status, said) = api(server, method, "/grants", &body);
    assert!(status < 300, "{status} {said}");
}

/// A Redis connection that somebody logged in on.
pub(crate) struct Redis(pub(crate) TcpStream);

impl Redis {
    pub(crate) fn connect(server: &Server, user: &str, password: &str) -> Self {
        let socket = TcpStream::connect(server.addr("resp")).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut redis = Self(socket);
        assert_eq!(redis.say(&["AUTH", user, password]), "+OK");
        redis
    }

    pub(crate) fn send(&mut self, words: &[&str]) {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.0.write_all(request.as_bytes()).unwrap();
    }

    /// The first line of what comes; empty: the server has closed.
    pub(crate) fn line(&mut self) -> String {
        self.all().lines().next().unwrap_or_default().to_owned()
    }

    fn all(&mut self) -> String {
        let mut answer = [0; 4096];
        let read = self.0.read(&mut answer).unwrap_or(0);
        String::from_utf8_lossy(&answer[..read]).into_owned()
    }

    pub(crate) fn say_all(&mut self, words: &[&str]) -> String {
        self.send(words);
        self.all()
    }

    pub(crate) fn say(&mut self, words: &[&str]) -> String {
        self.send(words);
        self.line()
    }
}

/// Did an AMQP operation succeed? Panics when it fails for another reason than permissions.
fn amqp_may(
    server: &Server,
    user: &str,
    run: impl FnOnce(&mut amqp::Client) -> Result<String, String>,
) -> bool {
    let mut client = match amqp::Client::connect_as(server, user, PASSWORD) {
        Ok(client) => client,
        Err(got) => {
            let text = format!("access to vhost '/' refused for user '{user}'");
            assert!(got.contains(&text), "{got}");
            return false;
        }
    };
    match run(&mut client) {
        Ok(_) => true,
        Err(got) => {
            let refused = got.contains("ACCESS_REFUSED - access to")
                && got.contains(&format!("refused for user '{user}'"));
            // Of a queue or exchange that is not there: then it was allowed.
            assert!(refused || got.contains("NOT_FOUND"), "{got}");
            !refused
        }
    }
}

/// The error code of a Kafka request as somebody, at this place of the answer.
fn kafka_may(
    server: &Server,
    user: &str,
    key: i16,
    version: i16,
    body: &[u8],
    place: usize,
) -> bool {
    let mut client = kafka::Client::connect(server);
    assert!(client.log_in(user, PASSWORD));
    let answer = client.call(key, version, body).unwrap();
    let code = i16::from_be_bytes([answer[place], answer[place + 1]]);
    !matches!(code, 29..=31)
}

type Run = fn(&Server, &str, &str) -> bool;

/// An operation: face and name, what it needs of which kind, and how it is done as a user on an object. True: it was allowed.
struct Operation(&'static str, &'static [(&'static str, &'static str)], Run);

fn resp(server: &Server, user: &str, words: &[&str]) -> bool {
    let line = Redis::connect(server, user, PASSWORD).say(words);
    let denied = line.starts_with("-NOPERM");
    assert!(
        denied || !line.starts_with('-') || line.starts_with("-NOTFOUND"),
        "{words:?}: {line}"
    );
    !denied
}

fn declare(queue: &str, passive: bool) -> Method<'_> {
    Method::QueueDeclare {
        ticket: 0,
        queue: queue.into(),
        passive,
        durable: true,
        exclusive: false,
        auto_delete: false,
        nowait: false,
        arguments: Table::default(),
    }
}

/// All objects have the same name in each kind.
const OPERATIONS: &[Operation] = &[
    Operation("resp GET", &[("key", "read")], |s, u, o| {
        resp(s, u, &["GET", o])
    }),
    Operation("resp SET", &[("key", "write")], |s, u, o| {
        resp(s, u, &["SET", o, "1"])
    }),
    Operation(
        "resp INCR",
        &[("key", "read"), ("key", "write")],
        |s, u, o| resp(s, u, &["INCR", o]),
    ),
    Operation("resp TTL", &[("key", "describe")], |s, u, o| {
        resp(s, u, &["TTL", o])
    }),
    Operation("resp DEL", &[("key", "write")], |s, u, o| {
        resp(s, u, &["DEL", o])
    }),
    Operation("resp SUBSCRIBE", &[("channel", "read")], |s, u, o| {
        resp(s, u, &["SUBSCRIBE", o])
    }),
    Operation("resp PUBLISH", &[("channel", "write")], |s, u, o| {
        resp(s, u, &["PUBLISH", o, "x"])
    }),
    Operation("resp FM.PUBLISH", &[("exchange", "write")], |s, u, o| {
        resp(s, u, &["FM.PUBLISH", o, "k", "x"])
    }),
    Operation("resp FM.PRODUCE", &[("topic", "write")], |s, u, o| {
        resp(s, u, &["FM.PRODUCE", o, "k", "x"])
    }),
    Operation(
        "amqp queue.declare",
        &[("queue", "configure")],
        |s, u, o| {
            amqp_may(s, u, |client| {
                client.send(1, &declare(o, false));
                client.next_is("queue.declare_ok")
            })
        },
    ),
    Operation(
        "amqp passive declare",
        &[("queue", "describe")],
        |s, u, o| {
            amqp_may(s, u, |client| {
                client.send(1, &declare(o, true));
                client.next_is("queue.declare_ok")
            })
        },
    ),
    Operation("amqp queue.purge", &[("queue", "read")], |s, u, o| {
        amqp_may(s, u, |client| {
            let purge = Method::QueuePurge {
                ticket: 0,
                queue: o.into(),
                nowait: false,
            };
            client.send(1, &purge);
            client.next_is("queue.purge_ok")
        })
    }),
    Operation("amqp basic.get", &[("queue", "read")], |s, u, o| {
        amqp_may(s, u, |client| {
            let get = Method::BasicGet {
                ticket: 0,
                queue: o.into(),
                no_ack: true,
            };
            client.send(1, &get);
            client.next_is("basic.get_empty")
        })
    }),
    Operation("amqp basic.consume", &[("queue", "read")], |s, u, o| {
        amqp_may(s, u, |client| {
            client.send(1, &consume(o));
            client.next_is("basic.consume_ok")
        })
    }),
    Operation(
        "amqp queue.bind",
        &[("queue", "write"), ("exchange", "read")],
        |s, u, o| {
            amqp_may(s, u, |client| {
                let bind = Method::QueueBind {
                    ticket: 0,
                    queue: o.into(),
                    exchange: o.into(),
                    routing_key: "nothing".into(),
                    nowait: false,
                    arguments: Table::default(),
                };
                client.send(1, &bind);
                client.next_is("queue.bind_ok")
            })
        },
    ),
    Operation("amqp basic.publish", &[("exchange", "write")], |s, u, o| {
        amqp_may(s, u, |client| {
            client.confirm_mode();
            client.publish_to(o, "nowhere", b"x", false);
            client.next_is("basic.ack")
        })
    }),
    Operation(
        "amqp exchange.declare",
        &[("exchange", "configure")],
        |s, u, o| {
            amqp_may(s, u, |client| {
                client.send(1, &exchange(o));
                client.next_is("exchange.declare_ok")
            })
        },
    ),
    // Metadata 1: brokers (one), controller, topics: error first.
    Operation("kafka Metadata", &[("topic", "describe")], |s, u, o| {
        let mut client = kafka::Client::connect(s);
        assert!(client.log_in(u, PASSWORD));
        let answer = client.call(3, 1, &kafka::metadata_body(o)).unwrap();
        let name = answer
            .windows(o.len())
            .position(|part| part == o.as_bytes())
            .unwrap();
        answer[name - 4..name - 2] != [0, 29]
    }),
    Operation("kafka Produce", &[("topic", "write")], |s, u, o| {
        let mut client = kafka::Client::connect(s);
        assert!(client.log_in(u, PASSWORD));
        client.produce(o, 1, &kafka::record(b"x")).0 != 29
    }),
    Operation("kafka Fetch", &[("topic", "read")], |s, u, o| {
        let mut client = kafka::Client::connect(s);
        assert!(client.log_in(u, PASSWORD));
        fetch(&mut client, o, 0) != 29
    }),
    // DeleteTopics 1: throttle, count, name, error.
    Operation("kafka DeleteTopics", &[("topic", "delete")], |s, u, o| {
        let name = format!("{o}.gone");
        let mut body = Vec::new();
        body.put_i32(1);
        body.put_string(&name, false);
        body.put_i32(1000);
        kafka_may(s, u, 20, 1, &body, 4 + 4 + 2 + name.len())
    }),
    // CreatePartitions 0: throttle, count, name, error.
    Operation(
        "kafka CreatePartitions",
        &[("topic", "configure")],
        |s, u, o| {
            let name = format!("{o}.gone");
            let mut body = Vec::new();
            body.put_i32(1);
            body.put_string(&name, false);
            body.put_i32(2);
            body.put_i32(-1);
            body.put_i32(1000);
            body.push(0);
            kafka_may(s, u, 37, 0, &body, 4 + 4 + 2 + name.len())
        },
    ),
    // Heartbeat 0: error.
    Operation("kafka Heartbeat", &[("group", "read")], |s, u, o| {
        let mut body = Vec::new();
        body.put_string(o, false);
        body.put_i32(1);
        body.put_string("m", false);
        kafka_may(s, u, 12, 0, &body, 0)
    }),
    // FindCoordinator 0: error.
    Operation(
        "kafka FindCoordinator",
        &[("group", "describe")],
        |s, u, o| {
            let mut body = Vec::new();
            body.put_string(o, false);
            kafka_may(s, u, 10, 0, &body, 0)
        },
    ),
    // DeleteGroups 0: throttle, count, name, error.
    Operation("kafka DeleteGroups", &[("group", "delete")], |s, u, o| {
        let mut body = Vec::new();
        body.put_i32(1);
        body.put_string(o, false);
        kafka_may(s, u, 42, 0, &body, 4 + 4 + 2 + o.len())
    }),
];

fn consume(queue: &str) -> Method<'_> {
    Method::BasicConsume {
        ticket: 0,
        queue: queue.into(),
        consumer_tag: "c".into(),
        no_local: false,
        no_ack: true,
        exclusive: false,
        nowait: false,
        arguments: Table::default(),
    }
}

fn exchange(name: &str) -> Method<'_> {
    Method::ExchangeDeclare {
        ticket: 0,
        exchange: name.into(),
        kind: "direct".into(),
        passive: false,
        durable: true,
        auto_delete: false,
        internal: false,
        nowait: false,
        arguments: Table::default(),
    }
}

fn fetch(client: &mut kafka::Client, topic: &str, wait_ms: i32) -> i16 {
    let answer = client
        .call(1, 12, &kafka::fetch_body(topic, 0, wait_ms))
        .unwrap();
    // Throttle, error, session, count, name, count, index, error.
    let place = 4 + 2 + 4 + 1 + 1 + topic.len() + 1 + 4;
    i16::from_be_bytes([answer[place], answer[place + 1]])
}

const KINDS: [&str; 6] = ["key", "channel", "queue", "exchange", "topic", "group"];
const VERBS: [&str; 5] = ["read", "write", "configure", "delete", "describe"];

/// Who is allowed these verbs on `app*`, and denied those.
const PRINCIPALS: &[(&str, &[&str], &[&str])] = &[
    ("nobody", &[], &[]),
    ("reader", &["read"], &[]),
    ("writer", &["write"], &[]),
    ("both", &["read", "write"], &[]),
    ("keeper", &["configure", "delete"], &[]),
    ("looker", &["describe"], &[]),
    ("owner", &VERBS, &[]),
    ("barred", &VERBS, &["write", "delete"]),
];

#[test]
fn what_one_face_denies_no_other_allows() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path());
    let mut root = amqp::Client::connect_as(&server, "root", "rootpw").unwrap();
    let mut topics = kafka::Client::connect(&server);
    assert!(topics.log_in("root", "rootpw"));
    for object in ["app", "other"] {
        root.declare(object, true);
        root.send(1, &exchange(object));
        root.expect("exchange.declare_ok");
        topics.call(3, 1, &kafka::metadata_body(object)).unwrap();
    }
    for (name, allowed, denied) in PRINCIPALS {
        add_user(&server, name);
        for kind in KINDS {
            if !allowed.is_empty() {
                grant(&server, "POST", name, kind, "app*", allowed, false);
            }
            if !denied.is_empty() {
                grant(&server, "POST", name, kind, "app*", denied, true);
            }
        }
    }
    let mut wrong = Vec::new();
    for (name, allowed, denied) in PRINCIPALS {
        let may = |verb: &str| {
            let given = allowed.contains(&verb) || (verb == "describe" && !allowed.is_empty());
            given && !denied.contains(&verb)
        };
        for Operation(operation, needs, run) in OPERATIONS {
            let want = needs.iter().all(|(_, verb)| may(verb));
            if run(&server, name, "app") != want {
                wrong.push(format!("{name} {operation} app: want {want}"));
            }
            if run(&server, name, "other") {
                wrong.push(format!("{name} {operation} other: allowed"));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);

    // What no grant of an object gives.
    for words in [
        &["CONFIG", "SET", "maxmemory", "0"][..],
        &["FLUSHALL"],
        &["CLIENT", "KILL", "ID", "1"],
        &["INFO"],
        &["KEYS", "*"],
        &["DBSIZE"],
        &["PSUBSCRIBE", "*"],
    ] {
        assert!(!resp(&server, "owner", words), "{words:?}");
    }
    for words in [
        &["KEYS", "app*"][..],
        &["PSUBSCRIBE", "app.*"],
        &["SCAN", "0", "MATCH", "app*"],
    ] {
        assert!(resp(&server, "owner", words), "{words:?}");
    }
    let mut owner = Redis::connect(&server, "owner", PASSWORD);
    assert_eq!(
        owner.say(&["GET", "other"]),
        "-NOPERM No permissions to access a key"
    );
    assert_eq!(
        owner.say(&["SUBSCRIBE", "other"]),
        "-NOPERM No permissions to access a channel"
    );
    assert_eq!(
        owner.say(&["FLUSHALL"]),
        "-NOPERM User owner has no permissions to run the 'flushall' command"
    );
    assert_eq!(owner.say(&["COPY", "app", "app.2", "DB", "3"]), ":0");
    // A script has the rights of who runs it, on either thread: after some quick runs it is another one.
    for _ in 0..4 {
        assert_eq!(
            owner.say(&["EVAL", "return redis.call('exists', 'app')", "0"]),
            ":0"
        );
        for (call, denied) in [
            ("'get', 'other'", "No permissions to access a key"),
            (
                "'publish', 'other', 'x'",
                "No permissions to access a channel",
            ),
            (
                "'flushall'",
                "User owner has no permissions to run the 'flushall' command",
            ),
        ] {
            let script = format!("return redis.call({call})");
            let said = owner.say(&["EVAL", &script, "0"]);
            let wanted = format!("-ERR ACL failure in script: {denied} script: ");
            assert!(said.starts_with(&wanted), "{said}");
        }
        assert_eq!(
            owner.say(&["EVAL", "return redis.acl_check_cmd('get', 'other')", "0"]),
            "$-1"
        );
    }
    for words in [&["SCRIPT", "FLUSH"][..], &["SCRIPT", "KILL"]] {
        assert!(!resp(&server, "owner", words), "{words:?}");
    }
    // Base64 of `owner:a password of theirs`.
    let login = "b3duZXI6YSBwYXNzd29yZCBvZiB0aGVpcnM=";
    for path in ["/users", "/grants", "/info"] {
        assert_eq!(
            api_as(&server, login, "GET", path, &Value::Null).0,
            403,
            "{path}"
        );
    }
    let more = json!({ "user": "owner", "kind": "admin", "pattern": "*", "verbs": ["all"] });
    assert_eq!(api_as(&server, login, "POST", "/grants", &more).0, 403);
    assert!(server.stop().success());
}

/// A transaction is asked for what it does where it does it.
#[test]
fn select_in_a_transaction_is_asked_where_it_leads() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path());
    for (user, namespace) in [("zero", "default"), ("three", "db3")] {
        add_user(&server, user);
        let body = json!({ "user": user, "namespace": namespace, "kind": "key", "pattern": "app*", "verbs": ["all"] });
        assert_eq!(api(&server, "POST", "/grants", &body).0, 201);
    }
    let denied = "-NOPERM No permissions to access a key";
    let mut three = Redis::connect(&server, "three", PASSWORD);
    assert_eq!(three.say(&["SET", "app", "1"]), denied);
    for words in [&["MULTI"][..], &["SELECT", "3"], &["SET", "app", "secret"]] {
        let answer = three.say(words);
        assert!(answer == "+OK" || answer == "+QUEUED", "{answer}");
    }
    assert_eq!(three.say(&["EXEC"]), "*2");
    let mut zero = Redis::connect(&server, "zero", PASSWORD);
    assert_eq!(zero.say(&["MULTI"]), "+OK");
    assert_eq!(zero.say(&["SELECT", "3"]), "+QUEUED");
    assert_eq!(zero.say(&["GET", "app"]), denied);
    assert!(zero.say(&["EXEC"]).starts_with("-EXECABORT"));
    // A database that is not there moves nothing, and the way back counts.
    for words in [&["MULTI"][..], &["SELECT", "99"], &["GET", "app"]] {
        zero.say(words);
    }
    assert_eq!(zero.say(&["EXEC"]), "*2");
    assert_eq!(zero.say(&["MULTI"]), "+OK");
    for words in [&["SELECT", "3"][..], &["SELECT", "0"], &["GET", "app"]] {
        assert_eq!(zero.say(words), "+QUEUED");
    }
    assert_eq!(zero.say(&["EXEC"]), "*3");
    assert!(server.stop().success());
}

#[test]
fn changes_count_at_once_on_open_connections() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path());
    add_user(&server, "eve");
    for kind in KINDS {
        grant(&server, "POST", "eve", kind, "app*", &["all"], false);
    }
    let change = |method: &str, kind: &str, verb: &str| {
        grant(&server, method, "eve", kind, "app*", &[verb], false);
    };
    let mut redis = Redis::connect(&server, "eve", PASSWORD);
    assert_eq!(redis.say(&["SET", "app", "1"]), "+OK");
    assert_eq!(redis.say(&["MULTI"]), "+OK");
    assert_eq!(redis.say(&["GET", "app"]), "+QUEUED");
    let mut listener = Redis::connect(&server, "eve", PASSWORD);
    assert_eq!(listener.say(&["SUBSCRIBE", "app"]), "*3");
    let mut popper = Redis::connect(&server, "eve", PASSWORD);
    popper.send(&["BLPOP", "app.list", "0"]);
    let mut consumer = amqp::Client::connect_as(&server, "eve", PASSWORD).unwrap();
    consumer.declare("app", true);
    consumer.send(1, &consume("app"));
    consumer.expect("basic.consume_ok");
    let mut fetcher = kafka::Client::connect(&server);
    assert!(fetcher.log_in("eve", PASSWORD));
    fetcher.call(3, 1, &kafka::metadata_body("app")).unwrap();
    assert_eq!(fetch(&mut fetcher, "app", 0), 0);

    for kind in KINDS {
        change("DELETE", kind, "read");
    }
    let denied = "NOPERM No permissions to access a key";
    assert_eq!(
        redis.say(&["EXEC"]),
        format!("-EXECABORT Transaction discarded because of: {denied}")
    );
    assert_eq!(redis.say(&["GET", "app"]), format!("-{denied}"));
    assert_eq!(listener.line(), "", "a subscriber is closed");
    assert_eq!(popper.line(), format!("-{denied}"));
    let closed = consumer.expect("channel.close");
    assert!(
        closed
            .contains("ACCESS_REFUSED - access to queue 'app' in vhost '/' refused for user 'eve'"),
        "{closed}"
    );
    // It waits for records when it is told.
    let began = Instant::now();
    assert_eq!(fetch(&mut fetcher, "app", 30_000), 29);
    assert!(began.elapsed() < Duration::from_secs(10));
    change("POST", "key", "read");
    assert_eq!(redis.say(&["GET", "app"]), "$1");

    // A transaction that was allowed when its commands were said.
    let mut publisher = amqp::Client::connect_as(&server, "eve", PASSWORD).unwrap();
    publisher.send(1, &Method::TxSelect {});
    publisher.expect("tx.select_ok");
    publisher.send(1, &exchange("app"));
    publisher.expect("exchange.declare_ok");
    publisher.publish_to("app", "k", b"x", false);
    publisher.send(1, &exchange("app"));
    publisher.expect("exchange.declare_ok");
    change("DELETE", "exchange", "write");
    publisher.send(1, &Method::TxCommit {});
    let closed = publisher.expect("channel.close");
    assert!(closed.contains("ACCESS_REFUSED"), "{closed}");

    // Disabled: closed, everywhere, and not let in again.
    let mut idle = amqp::Client::connect_as(&server, "eve", PASSWORD).unwrap();
    let disabled = json!({ "enabled": false });
    assert_eq!(api(&server, "PATCH", "/users/eve", &disabled).0, 200);
    assert_eq!(redis.line(), "");
    let closed = idle.expect("connection.close");
    assert!(
        closed.contains("CONNECTION_FORCED - user 'eve' is deleted"),
        "{closed}"
    );
    assert!(fetcher.call(18, 0, &[]).is_none());
    let refused = amqp::Client::connect_as(&server, "eve", PASSWORD)
        .err()
        .unwrap();
    assert!(
        refused.contains("ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile."),
        "{refused}"
    );
    assert!(!kafka::Client::connect(&server).log_in("eve", PASSWORD));
    assert!(server.stop().success());
}

#[test]
fn the_first_user_ends_open_access_and_all_survive_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut open = Redis(TcpStream::connect(server.addr("resp")).unwrap());
    assert_eq!(open.say(&["SET", "k", "1"]), "+OK");
    let user = json!({ "name": "root", "password": "rootpw" });
    let (status, said) = server.post("/api/v1/users", &user.to_string());
    assert_eq!(status, 400, "{said}");
    let user = json!({ "name": "root", "password": "rootpw", "superuser": true });
    let (status, said) = server.post("/api/v1/users", &user.to_string());
    assert_eq!(status, 201, "{said}");
    assert_eq!(open.line(), "", "who never logged in is closed");
    assert_eq!(server.get("/api/v1/users").0, 401);
    add_user(&server, "eve");
    grant(&server, "POST", "eve", "key", "app*", &["read"], false);
    let (_, before) = api(&server, "GET", "/grants", &Value::Null);
    assert!(!resp(&server, "eve", &["SET", "secret", "a payload"]));
    let (_, audit) = api(&server, "GET", "/audit", &Value::Null);
    let (_, chain) = api(&server, "GET", "/audit/verify", &Value::Null);
    let said = audit.to_string();
    for part in [
        r#""what":"add user""#,
        r#""what":"add grant""#,
        r#""object":"secret""#,
        r#""what":"set""#,
        r#""outcome":"denied""#,
        r#""what":"login""#,
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(!said.contains("a payload") && !said.contains(PASSWORD) && !said.contains("rootpw"));
    assert!(
        chain["broken"].is_null() && chain["rows"].as_u64() > Some(4),
        "{chain}"
    );
    server.kill();
    let server = Server::start(dir.path());
    let mut anyone = Redis(TcpStream::connect(server.addr("resp")).unwrap());
    assert_eq!(
        anyone.say(&["GET", "k"]),
        "-NOAUTH Authentication required."
    );
    assert_eq!(
        Redis::connect(&server, "root", "rootpw").say(&["GET", "k"]),
        "$1"
    );
    assert!(resp(&server, "eve", &["GET", "app"]) && !resp(&server, "eve", &["GET", "k"]));
    assert_eq!(api(&server, "GET", "/grants", &Value::Null).1, before);
    let (_, again) = api(&server, "GET", "/audit", &Value::Null);
    let kept = audit["rows"].as_array().unwrap();
    assert_eq!(
        again["rows"].as_array().unwrap().get(..kept.len()),
        Some(&kept[..])
    );
    assert!(api(&server, "GET", "/audit/verify", &Value::Null).1["broken"].is_null());
    assert_eq!(api(&server, "DELETE", "/users/eve", &Value::Null).0, 200);
    assert_eq!(
        api(&server, "GET", "/grants", &Value::Null).1["grants"],
        json!([])
    );
    // Many at once: each is hashed once, and the server stays there for others meanwhile.
    let began = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..20 {
            let server = &server;
            scope.spawn(move || {
                let socket = TcpStream::connect(server.addr("resp")).unwrap();
                let name = format!("user{number}");
                let line = Redis(socket).say(&["AUTH", &name, "x"]);
                assert!(line.starts_with("-WRONGPASS"), "{line}");
            });
        }
        assert_eq!(
            Redis::connect(&server, "root", "rootpw").say(&["PING"]),
            "+PONG"
        );
    });
    assert!(began.elapsed() < Duration::from_secs(20));
    assert!(server.stop().success());
}
