//! Logins without a network.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use broker::access::{self, Settings};
use broker::{Effects, Millis, ShardId, Wake};

use super::*;
use crate::config::{Config, Mode, Value};
use crate::node::Node;

struct Bell;

impl Wake for Bell {
    fn wake(&self) {}
}

fn node(dir: &Path, password: &str) -> Arc<Node> {
    let config = Config {
        data_dir: dir.to_owned(),
        password: Secret::parse(password).unwrap(),
        login_failures: 3,
        ..Config::default()
    };
    Node::open(config, Mode::Dev, Vec::new()).unwrap()
}

fn add(node: &Node, name: &str, credentials: Vec<access::Credential>) {
    let mut fx = Effects::new();
    let mut locked = node.broker.lock_one(ShardId::CATALOG);
    let settings = Settings {
        enabled: true,
        credentials,
        ..Settings::default()
    };
    access::create(&mut locked, name, settings, &mut fx).unwrap();
    locked.commit(Millis(1), &mut fx);
}

fn login(node: &Node, user: &str, password: &str) -> Result<Identity, Refused> {
    let peer = "10.0.0.1".parse().unwrap();
    let mut attempt = node
        .auth
        .login(user.as_bytes(), password.as_bytes(), peer, Arc::new(Bell));
    loop {
        if let Some(end) = attempt.poll(node, Instant::now()) {
            return end;
        }
        std::thread::yield_now();
    }
}

#[test]
fn the_configured_principal_and_the_open_node() {
    let near: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
    let far: IpAddr = "10.0.0.1".parse().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let open = node(dir.path(), "");
    assert!(!open.auth.required() && open.auth.before_login(near).is_superuser());
    assert!(!open.auth.before_login(far).is_somebody());
    assert!(
        open.auth.by_certificate(["cn"], near).is_some()
            && open.auth.by_certificate(["cn"], far).is_none()
    );
    for (user, password, peer, want) in [
        ("guest", "guest", near, true),
        ("guest", "guest", far, false),
        ("guest", "x", near, false),
        ("default", "any", near, true),
        ("default", "any", far, false),
    ] {
        let got = open
            .auth
            .open_pair(user.as_bytes(), password.as_bytes(), peer);
        assert_eq!(got, want, "{user}/{password} from {peer}");
    }
    let dir = tempfile::tempdir().unwrap();
    let closed = node(dir.path(), "s3cret");
    assert!(closed.auth.required() && !closed.auth.before_login(near).is_somebody());
    assert!(login(&closed, "flowmesh", "s3cret").is_ok_and(|who| who.is_superuser()));
    assert!(login(&closed, "default", "s3cret").is_ok());
    for (user, password) in [("guest", "guest"), ("flowmesh", "s3cre"), ("x", "s3cret")] {
        assert_eq!(
            login(&closed, user, password).map(drop),
            Err(Refused::Wrong)
        );
    }
    let certified = closed.auth.by_certificate(["cn", "flowmesh"], far);
    assert_eq!(certified.unwrap().0.name(), Some("flowmesh"));
    assert!(closed.auth.by_certificate(["default", "cn"], far).is_none());
}

/// `default` that takes any password is who does not say who it is, and nobody else.
#[test]
fn a_certificate_counts_while_the_node_is_open() {
    let near: IpAddr = "127.0.0.1".parse().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), "");
    assert!(node.auth.knows_nobody());
    let mut fx = Effects::new();
    let mut locked = node.broker.lock_one(ShardId::CATALOG);
    let open = Settings {
        enabled: true,
        superuser: true,
        any_password: true,
        ..Settings::default()
    };
    let alice = Settings {
        enabled: true,
        certificates: vec!["alice.example".into()],
        ..Settings::default()
    };
    access::create(&mut locked, access::DEFAULT, open, &mut fx).unwrap();
    access::create(&mut locked, "alice", alice, &mut fx).unwrap();
    locked.commit(Millis(1), &mut fx);
    drop(locked);
    assert!(!node.auth.required() && !node.auth.knows_nobody());
    let (who, name) = node
        .auth
        .by_certificate(["x", "alice.example"], near)
        .unwrap();
    assert!(name == "alice" && who.name() == Some("alice") && !who.is_superuser());
    assert!(node.auth.by_certificate(["x"], near).is_none());
}

#[test]
fn a_redis_hash_becomes_ours_at_the_first_login() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), "");
    let hex = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    add(&node, "old", vec![imported("redis-sha256", hex).unwrap()]);
    assert_eq!(login(&node, "old", "wrong").map(drop), Err(Refused::Wrong));
    let who = login(&node, "old", "secret").unwrap();
    assert!(who.name() == Some("old") && !who.is_superuser());
    let kinds: Vec<_> = node
        .broker
        .access
        .principal("old")
        .unwrap()
        .credentials
        .iter()
        .map(|credential| credential.kind.word())
        .collect();
    assert_eq!(kinds, ["argon2id", "scram-sha-256", "scram-sha-512"]);
    assert!(login(&node, "old", "secret").is_ok());
    assert_eq!(login(&node, "old", "wrong").map(drop), Err(Refused::Wrong));
}

#[test]
fn after_too_many_failures_the_right_password_is_refused_too() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), "s3cret");
    add(&node, "bob", from_password(b"bobs").unwrap());
    assert!(login(&node, "bob", "bobs").is_ok());
    let began = Instant::now();
    for _ in 0..3 {
        assert!(login(&node, "bob", "no").is_err());
    }
    assert!(began.elapsed() >= 3 * FAILURE_DELAY);
    assert!(login(&node, "bob", "bobs").is_err() && login(&node, "flowmesh", "s3cret").is_ok());
    let long = "x".repeat(1 << 20);
    assert!(login(&node, "flowmesh", &long).is_err());
}

/// The server's first message without the nonce.
fn salt(node: &Node, user: &str) -> String {
    let first = format!("n,,n={user},r=abc");
    let peer = "10.0.0.1".parse().unwrap();
    let begun = node
        .auth
        .scram(scram::Mechanism::Sha256, first.as_bytes(), peer);
    let (_, message) = begun.unwrap();
    message[message.find(",s=").unwrap()..].to_owned()
}

#[test]
fn scram_does_not_tell_who_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let first = node(dir.path(), "s3cret");
    add(&first, "bob", from_password(b"bobs").unwrap());
    let names = ["ghost", "flowmesh", "default", "bob"];
    let salts = names.map(|name| salt(&first, name));
    assert!(salts.iter().all(|salt| salt.len() == salts[0].len()));
    assert_ne!(salts[1], salts[2], "two names of one user");
    // Locked out: as before.
    for name in names {
        for _ in 0..3 {
            assert!(login(&first, name, "no").is_err());
        }
    }
    assert_eq!(names.map(|name| salt(&first, name)), salts);
    first.broker.engine.close().unwrap();
    drop(first);
    let again = node(dir.path(), "s3cret");
    assert_eq!(names.map(|name| salt(&again, name)), salts);
}

#[test]
fn exchanges_begun_in_advance_are_guesses_too() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), "s3cret");
    let (first, peer) = ("n,,n=flowmesh,r=abc", "10.0.0.1".parse().unwrap());
    let begin = || {
        let begun = node
            .auth
            .scram(scram::Mechanism::Sha256, first.as_bytes(), peer);
        let (exchange, message) = begun.unwrap();
        let last = scram::client_final(scram::Mechanism::Sha256, "s3cret", first, &message);
        (exchange, last)
    };
    let finish = |(exchange, last): (ScramExchange, String)| {
        let (mut attempt, _) = exchange.finish(&node.auth, last.as_bytes());
        loop {
            if let Some(end) = attempt.poll(&node, Instant::now()) {
                return end.is_ok();
            }
            std::thread::yield_now();
        }
    };
    assert!(finish(begin()));
    let begun = begin();
    for _ in 0..3 {
        assert!(login(&node, "flowmesh", "no").is_err());
    }
    assert!(!finish(begun) && !finish(begin()));
}
