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

/// What is not found out is not allowed, by no grant and past every denial.
#[test]
fn a_glob_that_takes_too_long_is_denied() {
    let (pattern, name) = (
        format!("*{}b", "a".repeat(700)),
        format!("{}b", "a".repeat(GLOB_NAME_MAX - 1)),
    );
    let all = give(false, "*", Kind::Key, glob("*"), Verbs::READ);
    let allow = give(false, "*", Kind::Key, glob(&pattern), Verbs::READ);
    let deny = give(true, "*", Kind::Key, glob(&pattern), Verbs::READ);
    let ask = |grants: &[Grant]| {
        let rules = Rules::compile(grants);
        rules.allows(Kind::Key, Namespace::DEFAULT, name.as_bytes(), Verbs::READ)
    };
    assert!(ask(std::slice::from_ref(&all)));
    assert!(!ask(&[all, deny]));
    assert!(!ask(&[allow]));
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

/// The row of a principal, and all of it read back.
fn stored(broker: &Broker, name: &str) -> Vec<u8> {
    broker.engine.flush();
    broker.engine.fold_now().expect("folds");
    let mut key = crate::rows::prefix(crate::Slot::CATALOG, crate::rows::Tag::Principal).to_vec();
    key.extend_from_slice(name.as_bytes());
    let row = broker.engine.get(crate::Keyspace::Rows, &key);
    row.expect("reads").expect("a row").to_vec()
}

#[test]
fn a_restriction_takes_away_and_is_loaded_again() {
    let (_dir, broker) = broker();
    let access = Arc::clone(&broker.access);
    let both = Verbs::READ.and(Verbs::WRITE);
    let share = |text: &str, verbs| Share {
        scope: Scope::Every,
        kind: Kind::Key,
        pattern: glob(text),
        verbs,
    };
    let restriction = Restriction {
        commands: "some".into(),
        hidden: vec![share("b*", both), share("a*", Verbs::WRITE)],
        selectors: vec![Selector {
            commands: "others".into(),
            shares: vec![
                share("b*", both),
                share("a*", Verbs::WRITE),
                share("c", both),
            ],
        }],
    };
    let settings = Settings {
        restriction: Some(Arc::new(restriction)),
        ..enabled()
    };
    let grants = vec![
        give(false, "*", Kind::Key, glob("a*"), both),
        give(false, "*", Kind::Key, glob("b*"), both),
        give(true, "*", Kind::Key, glob("b-secret"), Verbs::READ),
        give(false, "*", Kind::Redis, glob("config"), Verbs::READ),
    ];
    let given = (settings.clone(), grants.clone());
    edit(&broker, |locked, fx| {
        put(locked, "alice", given.0, given.1, fx)
    });
    let ask = |access: &Access| {
        let alice = access.identity("alice").expect("is there");
        let selectors = alice.selectors().expect("is restricted").each();
        let texts: Vec<&str> = selectors.iter().map(|each| &*each.commands).collect();
        assert_eq!(texts, ["some", "others"]);
        let may = |place: usize, name: &[u8], verb| {
            let rules = &selectors[place].rules;
            rules.allows(Kind::Key, Namespace::DEFAULT, name, verb)
        };
        assert!(may(0, b"a1", Verbs::READ) && !may(0, b"a1", Verbs::WRITE));
        assert!(!may(0, b"b1", Verbs::READ) && may(1, b"b1", both));
        assert!(may(1, b"a1", Verbs::WRITE) && !may(1, b"a1", both));
        assert!(!may(1, b"b-secret", Verbs::READ));
        // No grant is behind it: the rules of all must be asked as well.
        assert!(may(1, b"c", both));
        assert!(!alice.allows(Kind::Key, Namespace::DEFAULT, b"c", Verbs::READ));
        let area = (Kind::Redis, Namespace::DEFAULT);
        assert!(
            selectors[1]
                .rules
                .allows(area.0, area.1, b"config", Verbs::READ)
        );
    };
    ask(&access);
    assert_eq!(stored(&broker, "alice")[0], 2);
    assert_eq!(crate::law::check(&broker, 9).expect("checked"), []);
    let again = Broker::open(Arc::clone(&broker.engine), Budgets::split(1 << 26)).expect("opens");
    ask(&again.access);
    assert_eq!(again.access.principals(), access.principals());
    // Other grants are other rules, and no restriction is as before.
    let fewer = (settings, grants[2..].to_vec());
    edit(&broker, |locked, fx| {
        put(locked, "alice", fewer.0, fewer.1, fx)
    });
    assert_eq!(access.grants(Some("alice")), grants[2..]);
    edit(&broker, |locked, fx| {
        put(locked, "alice", enabled(), grants.clone(), fx)
    });
    let alice = access.identity("alice").expect("is there");
    assert!(alice.selectors().is_none());
    assert_eq!(
        stored(&broker, "alice")[0],
        1,
        "as the build before wrote it"
    );
    assert_eq!(crate::law::check(&broker, 9).expect("checked"), []);
}

#[test]
fn who_is_there_goes_on_as_default_when_redis_words_give_it_a_password() {
    for (kind, standing) in [
        (CredentialKind::AclSha256, Standing::Changed),
        (CredentialKind::Argon2id, Standing::Gone),
    ] {
        let (_dir, broker) = broker();
        let access = &broker.access;
        let mut anyone = Identity::anyone(access);
        let mut settings = enabled();
        settings.credentials = vec![Credential {
            kind,
            bytes: Arc::from([7; 32]),
        }];
        edit(&broker, |locked, fx| {
            put(locked, DEFAULT, settings, Vec::new(), fx)
        });
        assert_eq!(anyone.refresh(access), standing);
        assert!(!Identity::anyone(access).is_somebody(), "who comes now");
    }
}

#[test]
fn default_that_takes_any_password_is_who_does_not_log_in() {
    let (_dir, broker) = broker();
    let access = &broker.access;
    let mut anyone = Identity::anyone(access);
    assert!(access.is_open() && anyone.is_superuser() && anyone.name().is_none());
    let open = Settings {
        any_password: true,
        certificates: Vec::new(),
        ..enabled()
    };
    let given = open.clone();
    edit(&broker, |locked, fx| {
        put(locked, DEFAULT, given, Vec::new(), fx)
    });
    assert!(access.is_open() && !Identity::anyone(access).is_superuser());
    assert_eq!(anyone.refresh(access), Standing::Changed);
    assert!(anyone.name() == Some(DEFAULT) && !anyone.is_superuser());
    for closed in [
        Settings {
            enabled: false,
            ..open.clone()
        },
        Settings {
            any_password: false,
            ..open.clone()
        },
    ] {
        edit(&broker, |locked, fx| {
            put(locked, DEFAULT, closed, Vec::new(), fx)
        });
        assert!(!access.is_open() && !Identity::anyone(access).is_somebody());
        let (row, again) = (
            stored(&broker, DEFAULT),
            Broker::open(Arc::clone(&broker.engine), Budgets::split(1 << 26)),
        );
        assert!(!again.expect("opens").access.is_open(), "{row:?}");
    }
    assert_eq!(
        anyone.refresh(access),
        Standing::Changed,
        "who is in stays in"
    );
}

#[test]
fn several_are_put_or_none_and_the_first_ends_the_open_access() {
    let (_dir, broker) = broker();
    let access = &broker.access;
    let open = Settings {
        enabled: true,
        superuser: true,
        any_password: true,
        ..Settings::default()
    };
    let wanted = |name: &'static str| Wanted {
        name,
        settings: open.clone(),
        grants: Vec::new(),
    };
    let (mut fx, mut locked) = (Effects::new(), broker.lock_one(ShardId::CATALOG));
    for bad in ["", "a\nb"] {
        let done = put_all(&mut locked, vec![wanted(DEFAULT), wanted(bad)], &mut fx);
        assert_eq!(done, Err(AccessError::Name));
    }
    let many = Wanted {
        grants: vec![give(false, "*", Kind::Key, glob("a"), Verbs::READ); GRANTS_MAX + 1],
        ..wanted("alice")
    };
    let done = put_all(&mut locked, vec![wanted(DEFAULT), many], &mut fx);
    assert_eq!(done, Err(AccessError::Grants));
    assert!(access.is_empty() && fx.is_empty());
    put_all(&mut locked, vec![wanted("alice"), wanted(DEFAULT)], &mut fx).expect("put");
    locked.commit(NOW, &mut fx);
    drop(locked);
    let mut anyone = Identity::anyone(access);
    assert!(anyone.is_somebody());
    let (mut fx, mut locked) = (Effects::new(), broker.lock_one(ShardId::CATALOG));
    let twice = Settings {
        certificates: vec!["x".into(), "x".into()],
        ..enabled()
    };
    for (name, settings) in [("", enabled()), ("alice", enabled()), (DEFAULT, twice)] {
        assert!(create_first(&mut locked, name, settings, &mut fx).is_err());
        assert!(access.is_open() && fx.is_empty(), "{name}");
    }
    create_first(&mut locked, DEFAULT, enabled(), &mut fx).expect("made anew");
    locked.commit(NOW, &mut fx);
    drop(locked);
    assert!(!access.is_open());
    assert_eq!(anyone.refresh(access), Standing::Gone, "somebody else");
    assert_eq!(crate::law::check(&broker, 9).expect("checked"), []);
}

#[test]
fn a_grant_that_an_older_build_does_not_know_says_so() {
    for (kind, version) in [(Kind::Key, 1), (Kind::Redis, 2)] {
        let (_dir, broker) = broker();
        let one = give(false, "*", kind, glob("config"), Verbs::READ);
        edit(&broker, |locked, fx| create(locked, "alice", enabled(), fx));
        edit(&broker, |locked, fx| grant(locked, one.clone(), fx));
        broker.engine.flush();
        broker.engine.fold_now().expect("folds");
        let prefix = crate::rows::prefix(crate::Slot::CATALOG, crate::rows::Tag::Grant);
        let end = crate::rows::prefix_end(&prefix);
        let mut rows = Vec::new();
        let mut each = |key: &[u8], value: &[u8]| {
            rows.push((key.to_vec(), value.to_vec()));
            true
        };
        let space = crate::Keyspace::Rows;
        let scanned = (broker.engine).scan(space, &prefix, end.as_deref(), 9, &mut each);
        scanned.expect("reads");
        let [(key, value)] = &rows[..] else {
            panic!("one row: {rows:?}");
        };
        assert_eq!(value[0], version, "{kind:?}");
        assert_eq!(Grant::read(key, value), Some(one));
        assert_eq!(Grant::read(key, &[3, value[1], value[2]]), None);
    }
}

#[test]
fn one_grant_must_allow_all_where_grants_do_not_add_up() {
    let grants = [
        give(false, "*", Kind::Key, glob("a*"), Verbs::READ),
        give(false, "*", Kind::Key, glob("*b"), Verbs::WRITE),
        give(false, "default", Kind::Key, glob("ab"), Verbs::WRITE),
        give(
            false,
            "*",
            Kind::Key,
            glob("ac"),
            Verbs::READ.and(Verbs::WRITE),
        ),
    ];
    let (all, one) = (Rules::compile(&grants), Rules::of_one(&grants));
    let both = Verbs::READ.and(Verbs::WRITE);
    for (name, verbs, add_up, alone) in [
        (&b"ab"[..], both, true, false),
        (b"ab", Verbs::READ, true, true),
        (b"ab", Verbs::WRITE, true, true),
        (b"ac", both, true, true),
        (b"b", Verbs::DESCRIBE, true, true),
    ] {
        let ask = |rules: &Rules| rules.allows(Kind::Key, Namespace::DEFAULT, name, verbs);
        assert_eq!(
            (ask(&all), ask(&one)),
            (add_up, alone),
            "{name:?} {verbs:?}"
        );
    }
}
