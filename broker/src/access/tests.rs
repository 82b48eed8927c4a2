//! What grants allow, and that rows bring everything back.

use std::sync::Arc;

use storage::{Effects, Engine, Options};

use super::*;
use crate::{Broker, Budgets, Locked, Millis, ShardId};

const NOW: Millis = Millis(1);

fn broker() -> (tempfile::TempDir, Broker) {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = Engine::open(Options::new(dir.path())).expect("engine");
    (
        dir,
        Broker::open(engine, Budgets::split(1 << 26)).expect("broker"),
    )
}

fn edit(
    broker: &Broker,
    edit: impl FnOnce(&mut Locked<'_>, &mut Effects) -> Result<(), AccessError>,
) {
    let (mut fx, mut locked) = (Effects::new(), broker.lock_one(ShardId::CATALOG));
    edit(&mut locked, &mut fx).expect("changed");
    locked.commit(NOW, &mut fx);
}

fn enabled() -> Settings {
    Settings {
        enabled: true,
        credentials: vec![Credential {
            kind: CredentialKind::Argon2id,
            bytes: Arc::from(&b"secret"[..]),
        }],
        certificates: vec!["CN=alice".into()],
        ..Settings::default()
    }
}

fn give(deny: bool, scope: &str, kind: Kind, pattern: Pattern, verbs: Verbs) -> Grant {
    Grant {
        principal: "alice".into(),
        scope: Scope::parse(scope).expect("a scope"),
        kind,
        pattern,
        verbs,
        deny,
    }
}

fn glob(text: &str) -> Pattern {
    Pattern::glob(text.as_bytes()).expect("short")
}

#[test]
fn deny_wins_and_what_nobody_allows_is_denied() {
    let grants = [
        give(
            false,
            "default",
            Kind::Key,
            glob("app:*"),
            Verbs::READ.and(Verbs::WRITE),
        ),
        give(true, "*", Kind::Key, glob("app:secret"), Verbs::READ),
        give(true, "*", Kind::Key, glob("app:s*"), Verbs::WRITE),
        give(false, "*", Kind::Key, glob("one"), Verbs::READ),
        give(false, "db3", Kind::Key, glob("h?llo*x"), Verbs::READ),
        give(true, "db3", Kind::Key, glob("*z*x"), Verbs::READ),
    ];
    let rules = Rules::compile(&grants);
    let (zero, three) = (Namespace::DEFAULT, Namespace::of_database(3));
    for (namespace, name, verb, want) in [
        (zero, "app:1", Verbs::READ, true),
        (zero, "app:1", Verbs::WRITE, true),
        (zero, "app:1", Verbs::DESCRIBE, true),
        (zero, "app:1", Verbs::DELETE, false),
        (zero, "app:secret", Verbs::READ, false),
        (zero, "app:secret2", Verbs::READ, true),
        (zero, "app:secret2", Verbs::WRITE, false),
        (zero, "ap", Verbs::READ, false),
        (zero, "", Verbs::READ, false),
        (three, "app:1", Verbs::READ, false),
        (three, "one", Verbs::READ, true),
        (zero, "one", Verbs::READ, true),
        (zero, "one1", Verbs::READ, false),
        (three, "hallo-x", Verbs::READ, true),
        (three, "hallo-zx", Verbs::READ, false),
        (three, "hallo", Verbs::READ, false),
    ] {
        let got = rules.allows(Kind::Key, namespace, name.as_bytes(), verb);
        assert_eq!(got, want, "{namespace} {name} {verb:?}");
    }
    assert!(!rules.allows(Kind::Queue, zero, b"app:1", Verbs::READ));
    assert!(rules.allows_some(Kind::Key, Verbs::WRITE));
    assert!(!rules.allows_some(Kind::Topic, Verbs::WRITE));
    for (pattern, want) in [
        ("app:x*", true),
        ("app:*", false),
        ("*", false),
        ("app:[x]y", true),
        ("one", true),
    ] {
        let got = rules.allows_all(Kind::Key, zero, pattern.as_bytes(), Verbs::READ);
        assert_eq!(got, want, "{pattern}");
    }
}

#[test]
fn what_several_grants_allow_adds_up() {
    let both = Verbs::READ.and(Verbs::WRITE);
    let read = give(false, "*", Kind::Key, glob("app:*"), Verbs::READ);
    for other in ["app:1", "app:*", "app:?", "*1"] {
        for scope in ["*", "default"] {
            let write = give(false, scope, Kind::Key, glob(other), Verbs::WRITE);
            let mut grants = vec![read.clone(), write];
            let ask = |grants: &[Grant], name: &[u8]| {
                Rules::compile(grants).allows(Kind::Key, Namespace::DEFAULT, name, both)
            };
            assert!(ask(&grants, b"app:1"), "{scope} {other}");
            assert!(!ask(&grants, b"bpp:1") && !ask(&grants[..1], b"app:1"));
            grants.push(give(true, "*", Kind::Key, glob("app:1"), Verbs::WRITE));
            assert!(!ask(&grants, b"app:1"), "{scope} {other}");
        }
    }
}

/// The worst that grants and a name can be is over soon, and what is worse is refused.
#[test]
fn pathological_patterns() {
    let (_dir, broker) = broker();
    edit(&broker, |locked, fx| create(locked, "alice", enabled(), fx));
    let mut fx = Effects::new();
    let mut locked = broker.lock_one(ShardId::CATALOG);
    let mut taken = 0;
    for number in 0..GLOBS_MAX {
        // Every place of the name matches nearly all of it.
        let text = format!("*{}{number:03}", "a".repeat(PATTERN_MAX - 4));
        let one = give(false, "*", Kind::Key, glob(&text), Verbs::READ);
        match grant(&mut locked, one, &mut fx) {
            Ok(()) => taken += text.len(),
            Err(error) => assert_eq!(error, AccessError::Grants),
        }
    }
    locked.commit(NOW, &mut fx);
    drop(locked);
    assert_eq!(taken, GLOB_OCTETS_MAX);
    let alice = broker.access.identity("alice").expect("alice");
    let name = vec![b'a'; GLOB_NAME_MAX];
    let began = std::time::Instant::now();
    assert!(!alice.allows(Kind::Key, Namespace::DEFAULT, &name, Verbs::READ));
    // Some 10 ms; the test may run beside others.
    assert!(began.elapsed() < std::time::Duration::from_secs(2));
}

#[test]
fn a_name_too_long_for_globs_is_denied() {
    let long = vec![b'a'; GLOB_NAME_MAX + 1];
    let allow = give(false, "*", Kind::Key, glob("?*"), Verbs::READ);
    let deny = give(true, "*", Kind::Key, glob("?*b"), Verbs::READ);
    let prefix = give(false, "*", Kind::Key, glob("a*"), Verbs::READ);
    let ask = |grants: &[Grant]| {
        Rules::compile(grants).allows(Kind::Key, Namespace::DEFAULT, &long, Verbs::READ)
    };
    assert!(!ask(&[allow]));
    assert!(ask(std::slice::from_ref(&prefix)));
    assert!(!ask(&[prefix, deny]));
}

#[test]
fn changes_are_seen_at_once_and_after_a_restart() {
    let (_dir, broker) = broker();
    let access = Arc::clone(&broker.access);
    let mut anyone = Identity::anyone(&access);
    assert!(anyone.is_free(&access));
    edit(&broker, |locked, fx| create(locked, "alice", enabled(), fx));
    assert!(!anyone.is_free(&access));
    assert_eq!(anyone.refresh(&access), Standing::Gone);
    assert!(!anyone.is_somebody());

    let mut alice = access.identity("alice").expect("alice");
    let read =
        |alice: &Identity| alice.allows(Kind::Topic, Namespace::DEFAULT, b"orders", Verbs::READ);
    assert!(!alice.is_free(&access) && !read(&alice));
    let orders = give(
        false,
        "default",
        Kind::Topic,
        glob("ord*"),
        Verbs::READ.and(Verbs::WRITE),
    );
    edit(&broker, |locked, fx| grant(locked, orders.clone(), fx));
    assert_eq!(alice.refresh(&access), Standing::Changed);
    assert!(read(&alice) && access.by_certificate(["x", "CN=alice"]).is_some());
    let only_read = Grant {
        verbs: Verbs::READ,
        ..orders
    };
    edit(&broker, |locked, fx| revoke(locked, only_read, fx));
    assert_eq!(alice.refresh(&access), Standing::Changed);
    assert!(!read(&alice));
    assert_eq!(access.grants(None).len(), 1);

    assert_eq!(crate::law::check(&broker, 9).expect("checked"), []);
    let again = Broker::open(Arc::clone(&broker.engine), Budgets::split(1 << 26)).expect("opens");
    assert_eq!(again.access.grants(None), access.grants(None));
    assert_eq!(again.access.principals(), access.principals());

    edit(&broker, |locked, fx| {
        update(locked, "alice", |_, settings| settings.superuser = true, fx)
    });
    assert_eq!(alice.refresh(&access), Standing::Changed);
    assert!(alice.is_free(&access) && read(&alice));
    edit(&broker, |locked, fx| {
        update(locked, "alice", |_, settings| settings.enabled = false, fx)
    });
    assert!(!alice.is_free(&access));
    assert_eq!(alice.refresh(&access), Standing::Gone);
    edit(&broker, |locked, fx| remove(locked, "alice", fx));
    edit(&broker, |locked, fx| create(locked, "alice", enabled(), fx));
    assert_eq!(
        alice.refresh(&access),
        Standing::Same,
        "nobody stays nobody"
    );
    assert!(access.grants(None).is_empty());
}

#[test]
fn limits_hold() {
    let (_dir, broker) = broker();
    edit(&broker, |locked, fx| create(locked, "alice", enabled(), fx));
    let mut fx = Effects::new();
    let mut locked = broker.lock_one(ShardId::CATALOG);
    for name in ["", "a\nb", &"x".repeat(256)] {
        assert_eq!(
            create(&mut locked, name, enabled(), &mut fx),
            Err(AccessError::Name)
        );
    }
    let taken = create(&mut locked, "bob", enabled(), &mut fx);
    assert_eq!(taken, Err(AccessError::Certificate("CN=alice".into())));
    for number in 0..GLOBS_MAX {
        let one = give(
            false,
            "*",
            Kind::Key,
            glob(&format!("?{number}")),
            Verbs::READ,
        );
        grant(&mut locked, one, &mut fx).expect("room");
    }
    let more = give(false, "*", Kind::Key, glob("?x"), Verbs::READ);
    assert_eq!(grant(&mut locked, more, &mut fx), Err(AccessError::Grants));
    assert!(Pattern::glob(&[b'a'; PATTERN_MAX + 1]).is_none());
    let unknown = Grant {
        principal: "bob".into(),
        ..give(false, "*", Kind::Key, glob("x"), Verbs::READ)
    };
    assert_eq!(
        grant(&mut locked, unknown, &mut fx),
        Err(AccessError::Unknown("bob".into()))
    );
    locked.commit(NOW, &mut fx);
}

#[test]
fn scopes_have_one_text() {
    for (text, want) in [
        ("default", true),
        ("*", true),
        ("db1", true),
        ("db0", false),
        ("db01", false),
        ("db+1", false),
        ("x", false),
    ] {
        assert_eq!(
            Scope::parse(text).is_some_and(|scope| scope.to_string() == text),
            want,
            "{text}"
        );
    }
}
