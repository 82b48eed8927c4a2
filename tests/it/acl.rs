//! Redis' ACL through the wire: who may use it, what it gives on other faces, and what a kill leaves of it.

use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::access::{Redis, add_user, api, api_as, grant, start};
use crate::server::Server;
use crate::{amqp, kafka};

fn open(server: &Server) -> Redis {
    let socket = TcpStream::connect(server.addr("resp")).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    Redis(socket)
}

fn root(server: &Server) -> Redis {
    Redis::connect(server, "root", "rootpw")
}

/// Base64 of `bob:pw`.
const BOB: &str = "Ym9iOnB3";

#[test]
fn every_subcommand_asks_who_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path());
    let mut redis = root(&server);
    for user in ["nothing", "data", "admin"] {
        add_user(&server, user);
    }
    let all = ["read", "write", "configure", "delete", "describe", "admin"];
    for kind in ["key", "channel", "queue", "exchange", "topic", "group"] {
        grant(&server, "POST", "data", kind, "*", &all, false);
    }
    // Whatever it may do over HTTP, users of the ACL are another matter.
    grant(&server, "POST", "admin", "admin", "*", &all, false);
    for (user, rules) in [
        ("sees", &["+@all", "-acl|setuser", "-acl|deluser", "~*"][..]),
        ("whole", &["+@all", "~*", "&*"][..]),
        ("reads", &["+@read", "~*"][..]),
    ] {
        let mut words = vec!["ACL", "SETUSER", user, "on", ">a password of theirs"];
        words.extend(rules);
        assert_eq!(redis.say(&words), "+OK");
    }
    let free: &[&str] = &["nothing", "data", "admin", "sees", "whole"];
    let seeing: &[&str] = &["sees", "whole"];
    let whole: &[&str] = &["whole"];
    for (words, who) in [
        (&["ACL", "WHOAMI"][..], free),
        (&["ACL", "CAT"][..], free),
        (&["ACL", "GENPASS"][..], free),
        (&["ACL", "HELP"][..], free),
        (&["ACL", "LIST"][..], seeing),
        (&["ACL", "USERS"][..], seeing),
        (&["ACL", "GETUSER", "data"][..], seeing),
        (&["ACL", "DRYRUN", "data", "GET", "x"][..], seeing),
        (&["ACL", "LOG"][..], seeing),
        (&["ACL", "LOG", "RESET"][..], seeing),
        (&["ACL", "SAVE"][..], seeing),
        (&["ACL", "LOAD"][..], seeing),
        (&["ACL", "SETUSER", "victim", "on"][..], whole),
        (&["ACL", "DELUSER", "victim"][..], whole),
    ] {
        assert!(open(&server).say(words).starts_with("-NOAUTH"), "{words:?}");
        for user in ["nothing", "data", "admin", "sees", "whole", "reads"] {
            let line = Redis::connect(&server, user, crate::access::PASSWORD).say(words);
            let denied = line.starts_with("-NOPERM User ");
            assert_eq!(!denied, who.contains(&user), "{words:?} as {user}: {line}");
        }
    }
    // Who manages the users of Redis manages no others.
    let mut redis = Redis::connect(&server, "whole", crate::access::PASSWORD);
    for user in ["data", "admin"] {
        for words in [
            &["ACL", "SETUSER", user, ">x"][..],
            &["ACL", "DELUSER", user],
        ] {
            let line = redis.say(words);
            assert!(line.starts_with("-NOPERM The user"), "{line}");
        }
    }
    for user in ["root", "default"] {
        assert!(
            redis
                .say(&["ACL", "SETUSER", user, "nopass"])
                .starts_with("-ERR The user")
        );
    }
    assert!(server.stop().success());
}

#[test]
fn on_other_faces_it_gives_nothing_and_a_kill_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path());
    let mut redis = root(&server);
    let made = redis.say(&[
        "ACL",
        "SETUSER",
        "bob",
        "on",
        ">pw",
        "+@all",
        "~*",
        "&*",
        "(+set ~x)",
    ]);
    assert_eq!(made, "+OK");
    let mut bob = Redis::connect(&server, "bob", "pw");
    for words in [
        &["SET", "cart:1", "x"][..],
        &["PUBLISH", "c", "x"],
        &["FLUSHDB"],
        &["CONFIG", "GET", "maxmemory"],
        &["INFO", "server"],
        &["CLIENT", "LIST"],
    ] {
        let line = bob.say(words);
        assert!(!line.starts_with('-'), "{words:?}: {line}");
    }
    for words in [
        &["FM.PUBLISH", "amq.topic", "k", "x"][..],
        &["FM.PRODUCE", "orders", "k", "x"],
    ] {
        assert!(bob.say(words).starts_with("-NOPERM"), "{words:?}");
    }
    let check = |server: &Server| {
        let refused = amqp::Client::connect_as(server, "bob", "pw").err().unwrap();
        assert!(
            refused.contains("access to vhost '/' refused for user 'bob'"),
            "{refused}"
        );
        let mut client = kafka::Client::connect(server);
        assert!(
            client.log_in("bob", "pw"),
            "PLAIN; nothing is allowed behind it"
        );
        for (method, path) in [
            ("GET", "/info"),
            ("GET", "/users"),
            ("GET", "/audit"),
            ("POST", "/backup"),
            ("GET", "/profile/cpu?seconds=0"),
        ] {
            assert_eq!(
                api_as(server, BOB, method, path, &json!({})).0,
                403,
                "{path}"
            );
        }
        let (_, users) = api(server, "GET", "/users", &Value::Null);
        let bob = users["users"]
            .as_array()
            .unwrap()
            .iter()
            .find(|user| user["name"] == "bob");
        let bob = bob.unwrap();
        assert!(
            bob["superuser"] == false && bob["restricted"] == true,
            "{bob}"
        );
    };
    check(&server);
    let shown = redis.say_all(&["ACL", "LIST"]);
    assert!(
        shown.contains("~* &* +@all (~x resetchannels -@all +set)"),
        "{shown}"
    );
    // Any password is for Redis clients only.
    assert_eq!(
        redis.say(&["ACL", "SETUSER", "any", "on", "nopass", "+ping"]),
        "+OK"
    );
    assert_eq!(
        Redis::connect(&server, "any", "whatever").say(&["PING"]),
        "+PONG"
    );
    assert!(amqp::Client::connect_as(&server, "any", "whatever").is_err());
    assert!(!kafka::Client::connect(&server).log_in("any", "whatever"));
    // Base64 of `any:x`.
    assert_eq!(
        api_as(&server, "YW55Ong=", "GET", "/info", &Value::Null).0,
        401
    );
    let shown = redis.say_all(&["ACL", "LIST"]);
    server.kill();
    let server = start(dir.path());
    let mut redis = root(&server);
    assert_eq!(redis.say_all(&["ACL", "LIST"]), shown);
    check(&server);
    let mut bob = Redis::connect(&server, "bob", "pw");
    assert_eq!(bob.say(&["SET", "x", "1"]), "+OK");
    // At once, on connections that are open.
    assert_eq!(redis.say(&["ACL", "SETUSER", "bob", "-flushdb"]), "+OK");
    assert!(
        bob.say(&["FLUSHDB"])
            .starts_with("-NOPERM User bob has no permissions to run the 'flushdb'")
    );
    assert_eq!(redis.say(&["ACL", "SETUSER", "bob", "off"]), "+OK");
    assert_eq!(bob.line(), "", "closed");
    let (_, audit) = api(&server, "GET", "/audit", &Value::Null);
    let said = audit.to_string();
    for part in [
        r#""what":"acl setuser""#,
        r#""object":"bob on >(redacted) +@all ~* &* (+set ~x)""#,
        r#""object":"bob -flushdb""#,
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(!said.contains(">pw"));
    assert!(server.stop().success());
}

#[test]
fn an_open_server_stays_open_until_somebody_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut anyone = open(&server);
    assert_eq!(
        anyone.say(&["ACL", "SETUSER", "bob", "on", ">pw", "+get", "~*"]),
        "+OK"
    );
    assert_eq!(anyone.say_all(&["ACL", "WHOAMI"]), "$7\r\ndefault\r\n");
    assert_eq!(open(&server).say(&["SET", "k", "v"]), "+OK");
    assert!(amqp::Client::connect_as(&server, "guest", "guest").is_ok());
    assert_eq!(server.get("/api/v1/users").0, 200);
    server.kill();
    let server = Server::start(dir.path());
    let mut anyone = open(&server);
    assert_eq!(anyone.say(&["SET", "k", "v"]), "+OK");
    // Whoever says who it is, is asked.
    let mut client = kafka::Client::connect(&server);
    assert!(client.log_in("bob", "pw"), "another than default");
    for (user, password) in [("bob", "wrong"), ("eve", "pw")] {
        assert!(!kafka::Client::connect(&server).log_in(user, password));
    }
    // What is refused changes nothing.
    let user = |name: &str, certificates: &[&str]| {
        json!({ "name": name, "password": "rootpw", "superuser": true, "certificates": certificates })
            .to_string()
    };
    for (name, certificates, status) in [
        ("bob", &[][..], 409),
        ("\u{1}", &[], 400),
        ("default", &["x", "x"], 400),
    ] {
        let (said, _) = server.post("/api/v1/users", &user(name, certificates));
        assert_eq!(said, status, "{name}");
        assert_eq!(open(&server).say(&["SET", "k", "v"]), "+OK");
    }
    server.kill();
    let server = Server::start(dir.path());
    let mut anyone = open(&server);
    assert_eq!(anyone.say(&["SET", "k", "v"]), "+OK");
    // The first user of the command line ends it for everybody, with a superuser who can undo that.
    let user = json!({ "name": "root", "password": "rootpw", "superuser": false });
    assert_eq!(server.post("/api/v1/users", &user.to_string()).0, 400);
    let user = json!({ "name": "root", "password": "rootpw", "superuser": true });
    assert_eq!(server.post("/api/v1/users", &user.to_string()).0, 201);
    assert_eq!(anyone.line(), "", "closed");
    assert!(open(&server).say(&["GET", "k"]).starts_with("-NOAUTH"));
    assert_eq!(
        Redis::connect(&server, "bob", "pw").say(&["GET", "k"]),
        "$1"
    );
    let mut redis = root(&server);
    let list = redis.say_all(&["ACL", "LIST"]);
    assert!(
        list.contains("user default off resetchannels -@all"),
        "{list}"
    );
    assert!(list.contains("user root on ~* &* +@all"), "{list}");
    // Open again by a rule, and whoever says who it is is that one.
    assert_eq!(
        redis.say(&["ACL", "SETUSER", "default", "on", "nopass", "+get"]),
        "+OK"
    );
    assert_eq!(api(&server, "GET", "/users", &Value::Null).0, 200);
    assert_eq!(server.get("/api/v1/users").0, 403);
    assert!(amqp::Client::connect_as(&server, "guest", "guest").is_err());
    // A password for `default` is what `requirepass` is there.
    assert_eq!(
        redis.say(&["ACL", "SETUSER", "default", "on", ">dpw", "+get", "~k"]),
        "+OK"
    );
    let mut default = open(&server);
    assert!(default.say(&["AUTH", "wrong"]).starts_with("-WRONGPASS"));
    assert_eq!(default.say(&["AUTH", "dpw"]), "+OK");
    assert_eq!(default.say(&["GET", "k"]), "$1");
    assert!(
        default
            .say(&["SET", "k", "x"])
            .starts_with("-NOPERM User default has no")
    );
    assert!(server.stop().success());
}

#[test]
fn a_required_password_outlives_a_kill_and_is_not_for_who_only_configures() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut redis = open(&server);
    assert_eq!(
        redis.say(&["CONFIG", "SET", "requirepass", "secret"]),
        "+OK"
    );
    assert!(open(&server).say(&["PING"]).starts_with("-NOAUTH"));
    server.kill();

    let server = Server::start(dir.path());
    let mut redis = open(&server);
    assert!(redis.say(&["PING"]).starts_with("-NOAUTH"));
    assert!(redis.say(&["AUTH", "no"]).starts_with("-WRONGPASS"));
    assert_eq!(redis.say(&["AUTH", "secret"]), "+OK");
    for (user, rules) in [
        ("operator", &["+config"][..]),
        ("manager", &["+config", "+acl"][..]),
    ] {
        let mut words = vec!["ACL", "SETUSER", user, "on", ">pw", "~*"];
        words.extend(rules);
        assert_eq!(redis.say(&words), "+OK");
    }
    let mut operator = Redis::connect(&server, "operator", "pw");
    assert_eq!(operator.say(&["CONFIG", "SET", "timeout", "0"]), "+OK");
    let set = ["CONFIG", "SET", "requirepass", "mine"];
    assert!(operator.say(&set).starts_with("-NOPERM"));
    // `default` is a superuser on every protocol, and no manager of Redis users may touch it.
    let mut manager = Redis::connect(&server, "manager", "pw");
    assert!(manager.say(&set).starts_with("-NOPERM"));
    assert_eq!(redis.say(&["CONFIG", "SET", "requirepass", ""]), "+OK");
    assert_eq!(open(&server).say(&["PING"]), "+PONG");
    assert!(server.stop().success());
}
