//! What rules make of a node's principals and grants.

use std::path::Path;

use protocol_resp::Args;

use super::super::view;
use super::*;
use crate::config::{Config, Mode, Secret, Value};
use crate::resp::permission::{self, Asking, Denied};

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn node(dir: &Path, password: &str) -> Arc<Node> {
    let config = Config {
        data_dir: dir.to_owned(),
        password: Secret::parse(password).unwrap(),
        ..Config::default()
    };
    Node::open(config, Mode::Dev, Vec::new()).unwrap()
}

fn say_as(node: &Node, who: &Identity, name: &str, rules: &str) -> Result<(), String> {
    let by = By {
        who,
        from: HERE,
        face: Face::Resp,
        now: Millis(1),
        all_channels: false,
    };
    let rules: Vec<&[u8]> = rules.split(' ').map(str::as_bytes).collect();
    set(node, &by, name, &rules)
        .map(drop)
        .map_err(|fail| fail.text().to_owned())
}

fn root(node: &Node) -> Identity {
    Identity::configured(&node.broker.access, "root")
}

fn say(node: &Node, name: &str, rules: &str) -> Result<(), String> {
    say_as(node, &root(node), name, rules)
}

fn shown(node: &Node, name: &str) -> String {
    let draft = view::somebody(node, name).unwrap();
    let line = String::from_utf8(draft.line(name)).unwrap();
    line[format!("user {name} ").len()..].to_owned()
}

/// Kind, pattern and verbs of each grant.
fn grants(node: &Node, name: &str) -> Vec<String> {
    let mut all: Vec<String> = node
        .broker
        .access
        .grants(Some(name))
        .iter()
        .map(|grant| {
            let text = String::from_utf8_lossy(grant.pattern.text()).into_owned();
            let (deny, verbs) = (if grant.deny { "!" } else { "" }, grant.verbs);
            format!("{deny}{} {text} {verbs:?}", grant.kind.word())
        })
        .collect();
    all.sort();
    all
}

fn may(node: &Node, name: &str, words: &str) -> Result<(), Denied> {
    let (mut data, mut ranges) = (Vec::new(), Vec::new());
    for word in words.split(' ') {
        ranges.push((data.len() as u32, word.len() as u32));
        data.extend_from_slice(word.as_bytes());
    }
    let args = Args::new(&data, &ranges);
    let spec = commands::lookup(&args).unwrap();
    let who = node.broker.access.as_if_enabled(name).unwrap();
    if who.is_superuser() {
        return Ok(());
    }
    permission::check(&Asking::new(&who, node, 0), spec, &args)
}

#[test]
fn patterns_are_grants_and_selectors_do_not_add_up() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), "s3cret");
    say(
        &node,
        "u",
        "on >x +get ~g* &n.* (+@read +@write %R~r* &n.*) (+set +copy ~w* ~r1)",
    )
    .unwrap();
    assert_eq!(
        grants(&node, "u"),
        [
            r#"channel n. ["read", "write"]"#,
            r#"key g ["read", "write"]"#,
            r#"key r ["read"]"#,
            r#"key r1 ["read", "write"]"#,
            r#"key w ["read", "write"]"#,
            r#"redis flush ["admin"]"#,
            r#"redis script ["configure"]"#,
        ],
        "the second selector has FLUSHALL and FUNCTION LOAD"
    );
    for (words, want) in [
        ("get g1", Ok(())),
        ("set g1 x", Err(Denied::Key(1))),
        ("get r2", Ok(())),
        ("set r2 x", Err(Denied::Key(1))),
        ("set w1 x", Ok(())),
        ("get w1", Err(Denied::Key(1))),
        ("set r1 x", Ok(())),
        ("copy r2 w1", Err(Denied::Key(2))),
        ("copy r1 w1", Ok(())),
        ("mget r2 g1", Err(Denied::Key(2))),
        ("flushall", Ok(())),
        ("config get x", Err(Denied::Command)),
        ("publish n.1 x", Err(Denied::Command)),
        ("fm.publish amq.topic k x", Err(Denied::Command)),
    ] {
        assert_eq!(may(&node, "u", words), want, "{words}");
    }
    let text = "~g* resetchannels &n.* -@all +get (%R~r* resetchannels &n.* -@all +@read +@write) (~w* ~r1 resetchannels -@all +set +copy)";
    assert!(shown(&node, "u").ends_with(text), "{}", shown(&node, "u"));
    // Taken back elsewhere: it is not shown any more, and not allowed.
    let mut fx = Effects::new();
    let mut locked = node.broker.lock_one(ShardId::CATALOG);
    let taken = node.broker.access.grants(Some("u"));
    for grant in taken {
        if grant.pattern.text() == b"w" || grant.kind == Kind::Redis {
            access::revoke(&mut locked, grant, &mut fx).unwrap();
        }
    }
    locked.commit(Millis(2), &mut fx);
    drop(locked);
    assert_eq!(may(&node, "u", "set w1 x"), Err(Denied::Key(1)));
    assert_eq!(may(&node, "u", "flushall"), Err(Denied::Command));
    let text = "(~r1 resetchannels -@all +set +copy)";
    let now = shown(&node, "u");
    assert!(now.ends_with(text), "{now}");
    assert!(
        now.contains("+@read +@write -function|load ")
            && now.contains(" -flushdb -flushall -swapdb)"),
        "{now}"
    );
    // What is shown makes the same user again.
    let rules = now.split_once(' ').unwrap().1;
    let rules = format!("reset on {rules}");
    say(&node, "v", &rules).unwrap();
    assert_eq!(shown(&node, "v"), now);
    assert_eq!(grants(&node, "v"), grants(&node, "u"));
}

#[test]
fn all_comes_back_from_the_rows() {
    let dir = tempfile::tempdir().unwrap();
    let first = node(dir.path(), "s3cret");
    say(&first, "u", "on nopass ~a* +@all -@dangerous &c (~b +get)").unwrap();
    say(&first, "w", "on >one >two -@all +select|0").unwrap();
    let before: Vec<_> = ["u", "w"]
        .map(|name| (shown(&first, name), grants(&first, name)))
        .into();
    first.broker.engine.close().unwrap();
    drop(first);
    let again = node(dir.path(), "s3cret");
    let after: Vec<_> = ["u", "w"]
        .map(|name| (shown(&again, name), grants(&again, name)))
        .into();
    assert_eq!(before, after);
    assert_eq!(may(&again, "u", "get b"), Ok(()));
    assert_eq!(may(&again, "u", "set b x"), Err(Denied::Key(1)));
    assert_eq!(may(&again, "w", "select 0"), Ok(()));
    assert_eq!(may(&again, "w", "select 1"), Err(Denied::Command));
    assert_eq!(broker::law::check(&again.broker, 10).unwrap(), []);
}

#[test]
fn all_rules_are_no_superuser() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), "s3cret");
    say(&node, "u", "on >x +@all ~* &*").unwrap();
    let principal = node.broker.access.principal("u").unwrap();
    assert!(!principal.superuser);
    assert!(shown(&node, "u").ends_with(" ~* &* +@all"));
    for words in [
        "flushall",
        "config set x y",
        "acl setuser x",
        "shutdown",
        "keys *",
        "debug x",
    ] {
        assert_eq!(may(&node, "u", words), Ok(()), "{words}");
    }
    let who = node.broker.access.as_if_enabled("u").unwrap();
    for (kind, _) in Kind::ALL {
        let of_redis = matches!(kind, Kind::Key | Kind::Channel | Kind::Redis);
        assert_eq!(
            who.allows_some(kind, Verbs::READ),
            of_redis && kind != Kind::Redis
        );
        assert_eq!(
            who.allows_some(kind, Verbs::ADMIN),
            kind == Kind::Redis,
            "{kind:?}"
        );
    }
    // It makes users, but none that other faces know.
    assert_eq!(say_as(&node, &who, "v", "on >x +@all ~* &*"), Ok(()));
    let mut fx = Effects::new();
    let mut locked = node.broker.lock_one(ShardId::CATALOG);
    access::create(&mut locked, "boss", super_settings(), &mut fx).unwrap();
    let grant = |principal: &str, kind| Grant {
        principal: principal.into(),
        scope: Scope::Every,
        kind,
        pattern: Pattern::Prefix(Box::default()),
        verbs: Verbs::ALL,
        deny: false,
    };
    access::grant(&mut locked, grant("v", Kind::Queue), &mut fx).unwrap();
    locked.commit(Millis(2), &mut fx);
    drop(locked);
    for name in ["boss", "v"] {
        let refused = say_as(&node, &who, name, ">mine").unwrap_err();
        assert!(refused.starts_with("NOPERM"), "{refused}");
        let by = By {
            who: &who,
            from: HERE,
            face: Face::Resp,
            now: Millis(3),
            all_channels: false,
        };
        assert!(delete(&node, &by, [name.as_bytes()].into_iter()).is_err());
    }
    // A superuser is not made less by rules, and may have more passwords.
    assert_eq!(shown(&node, "boss"), "on ~* &* +@all");
    assert_eq!(say(&node, "boss", "+@all ~* &* >more on"), Ok(()));
    for rules in ["-flushall", "resetkeys", "reset", "(+get)", "nocommands"] {
        let refused = say(&node, "boss", rules).unwrap_err();
        assert!(refused.contains("is a superuser"), "{refused}");
    }
    assert!(node.broker.access.principal("boss").unwrap().superuser);
    assert!(say(&node, "default", "off").is_err(), "the configured one");
}

fn super_settings() -> Settings {
    Settings {
        enabled: true,
        superuser: true,
        ..Settings::default()
    }
}

#[test]
fn default_stays_open_until_rules_end_it() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), "");
    let open = |node: &Node| node.auth.before_login(HERE);
    assert_eq!(shown(&node, "default"), "on nopass ~* &* +@all");
    let mut mine = open(&node);
    assert!(mine.is_superuser() && mine.name().is_none());
    say_as(&node, &mine, "u", "on >x ~* +@all").unwrap();
    assert!(!node.auth.required());
    mine.refresh(&node.broker.access);
    assert!(mine.is_superuser() && mine.name() == Some("default"));
    assert!(
        !node
            .auth
            .before_login("10.0.0.1".parse().unwrap())
            .is_somebody()
    );
    assert_eq!(shown(&node, "default"), "on nopass ~* &* +@all");
    // Less than all: no superuser any more.
    say_as(&node, &mine, "default", "-flushall").unwrap();
    let now = open(&node);
    assert!(now.is_somebody() && !now.is_superuser() && !node.auth.required());
    assert!(!now.allows_some(Kind::Queue, Verbs::READ));
    assert_eq!(may(&node, "default", "flushall"), Err(Denied::Command));
    assert_eq!(may(&node, "default", "set a x"), Ok(()));
    say(&node, "default", "+@all").unwrap();
    assert!(!node.broker.access.principal("default").unwrap().superuser);
    // With a password, or off, it is not open any more.
    say(&node, "default", ">pw").unwrap();
    assert!(node.auth.required() && !open(&node).is_somebody());
    say(&node, "default", "nopass").unwrap();
    assert!(!node.auth.required());
    say(&node, "default", "off").unwrap();
    assert!(node.auth.required() && !open(&node).is_somebody());
}

#[test]
fn grants_that_cannot_be_said_stay() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), "s3cret");
    let mut fx = Effects::new();
    let mut locked = node.broker.lock_one(ShardId::CATALOG);
    let enabled = Settings {
        enabled: true,
        ..Settings::default()
    };
    access::create(&mut locked, "u", enabled, &mut fx).unwrap();
    for (deny, kind, text, verbs) in [
        (false, Kind::Key, "a*", Verbs::READ.and(Verbs::WRITE)),
        (true, Kind::Key, "a:secret", Verbs::READ),
        (false, Kind::Channel, "n", Verbs::READ.and(Verbs::WRITE)),
        (false, Kind::Queue, "*", Verbs::ALL),
        (false, Kind::Admin, "server", Verbs::DESCRIBE),
    ] {
        let grant = Grant {
            principal: "u".into(),
            scope: Scope::In(Namespace::DEFAULT),
            kind,
            pattern: Pattern::glob(text.as_bytes()).unwrap(),
            verbs,
            deny,
        };
        access::grant(&mut locked, grant, &mut fx).unwrap();
    }
    locked.commit(Millis(2), &mut fx);
    drop(locked);
    let before = grants(&node, "u");
    let now = shown(&node, "u");
    assert!(now.starts_with("on resetchannels &n +@all -"), "{now}");
    assert!(
        now.contains(" -config|get ") && !now.contains(" -info"),
        "{now}"
    );
    for rules in ["~b", "allkeys", "reset", "resetkeys", "(~b)"] {
        let refused = say(&node, "u", rules).unwrap_err();
        assert!(refused.contains("grants of kind key"), "{refused}");
    }
    // Passwords alone change nothing of that, and restrict nothing.
    say(&node, "u", ">x").unwrap();
    assert_eq!(grants(&node, "u"), before);
    assert!(
        node.broker
            .access
            .principal("u")
            .unwrap()
            .restriction
            .is_none()
    );
    say(&node, "u", "&m -set").unwrap();
    assert_eq!(may(&node, "u", "set a1 x"), Err(Denied::Command));
    assert_eq!(may(&node, "u", "get a1"), Ok(()));
    assert_eq!(may(&node, "u", "get a:secret"), Err(Denied::Key(1)));
    assert_eq!(may(&node, "u", "info"), Ok(()));
    let after = grants(&node, "u");
    assert!(
        before.iter().all(|grant| after.contains(grant)),
        "{after:?}"
    );
    // What a grant of kind admin gives goes with it.
    let frozen = |grant: &String| grant.starts_with("redis server") && grant.contains("describe");
    assert!(!after.iter().any(frozen), "{after:?}");
}

fn elsewhere(node: &Node, edit: impl FnOnce(&mut Locked<'_>, &mut Effects)) {
    let mut fx = Effects::new();
    let mut locked = node.broker.lock_one(ShardId::CATALOG);
    edit(&mut locked, &mut fx);
    locked.commit(Millis(2), &mut fx);
}

fn given(deny: bool, scope: &str, kind: Kind, text: &str, verbs: Verbs) -> Grant {
    Grant {
        principal: "u".into(),
        scope: Scope::parse(scope).unwrap(),
        kind,
        pattern: Pattern::glob(text.as_bytes()).unwrap(),
        verbs,
        deny,
    }
}

#[test]
fn what_a_selector_cannot_say_any_more_stays_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), "s3cret");
    say(&node, "u", "on +@all ~a* (%R~b* &n -@all +get +publish)").unwrap();
    elsewhere(&node, |locked, fx| {
        let denial = given(true, "*", Kind::Key, "b:secret", Verbs::READ);
        access::grant(locked, denial, fx).unwrap();
        let channel = given(false, "default", Kind::Channel, "n", Verbs::READ);
        access::revoke(locked, channel, fx).unwrap();
    });
    let check = || {
        for (words, want) in [
            ("get a", Ok(())),
            ("get b1", Ok(())),
            ("get b:secret", Err(Denied::Key(1))),
            ("getrange b1 0 1", Err(Denied::Key(1))),
            ("strlen b1", Err(Denied::Key(1))),
            ("set b1 x", Err(Denied::Key(1))),
            ("publish n x", Ok(())),
            ("spublish n x", Err(Denied::Channel(1))),
            ("subscribe n", Err(Denied::Channel(1))),
        ] {
            assert_eq!(may(&node, "u", words), want, "{words}");
        }
    };
    check();
    say(&node, "u", "-flushall").unwrap();
    check();
    assert_eq!(may(&node, "u", "flushall"), Err(Denied::Command));
    say(&node, "u", "+flushall").unwrap();
    check();
    // Other selectors would have its grants.
    for rules in ["clearselectors (+@all)", "clearselectors", "(+@all)"] {
        let refused = say(&node, "u", rules).unwrap_err();
        assert!(refused.contains("cannot say"), "{rules}: {refused}");
    }
    check();
    // It can be said again.
    elsewhere(&node, |locked, fx| {
        let denial = given(true, "*", Kind::Key, "b:secret", Verbs::READ);
        access::revoke(locked, denial, fx).unwrap();
        let channel = given(false, "default", Kind::Channel, "n", Verbs::READ);
        access::grant(locked, channel, fx).unwrap();
    });
    let now = shown(&node, "u");
    let text = " ~a* resetchannels +@all +flushall (%R~b* resetchannels &n -@all +get +publish)";
    assert!(now.ends_with(text), "{now}");
    assert_eq!(may(&node, "u", "strlen b1"), Err(Denied::Key(1)));
    assert_eq!(may(&node, "u", "subscribe n"), Err(Denied::Channel(1)));
}

#[test]
fn what_is_shown_in_part_is_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), "s3cret");
    say(&node, "u", "on +@all").unwrap();
    elsewhere(&node, |locked, fx| {
        for grant in [
            given(false, "default", Kind::Key, "a", BOTH),
            given(false, "db3", Kind::Key, "a", Verbs::READ),
            given(false, "default", Kind::Key, "b", BOTH),
        ] {
            access::grant(locked, grant, fx).unwrap();
        }
    });
    let of_keys = |node: &Node| {
        let mut all = node.broker.access.grants(Some("u"));
        all.retain(|grant| grant.kind == Kind::Key);
        all.sort_by_key(|grant| (grant.scope, grant.pattern.clone()));
        all
    };
    let before = of_keys(&node);
    assert!(shown(&node, "u").contains(" %R~a resetchannels db=0,3 "));
    say(&node, "u", "-flushall >pw").unwrap();
    assert_eq!(of_keys(&node), before);
    assert_eq!(may(&node, "u", "set a x"), Ok(()));
    for rules in ["resetkeys", "~c", "reset"] {
        let refused = say(&node, "u", rules).unwrap_err();
        assert!(refused.contains("grants of kind key"), "{refused}");
    }
    // Verbs that Redis does not know stay with their names.
    say(&node, "v", "on +get ~a").unwrap();
    elsewhere(&node, |locked, fx| {
        let mut grant = given(false, "*", Kind::Key, "a", Verbs::DELETE);
        grant.principal = "v".into();
        access::grant(locked, grant, fx).unwrap();
    });
    say(&node, "v", "+set ~b").unwrap();
    let all = [
        r#"key a ["read", "write", "delete"]"#,
        r#"key b ["read", "write"]"#,
    ];
    assert_eq!(grants(&node, "v"), all);
    say(&node, "v", "resetkeys ~b").unwrap();
    assert_eq!(grants(&node, "v"), all[1..]);
}

#[test]
fn a_refused_first_user_leaves_the_server_open() {
    let dir = tempfile::tempdir().unwrap();
    let first = node(dir.path(), "");
    let mine = first.auth.before_login(HERE);
    let globs: Vec<String> = (0..300).map(|n| format!("~*{n}?")).collect();
    let long = "n".repeat(256);
    for (name, rules) in [
        ("", "on"),
        ("\x01", "on"),
        (&*long, "on"),
        ("u", &*globs.join(" ")),
    ] {
        assert!(say_as(&first, &mine, name, rules).is_err());
        assert!(first.broker.access.is_empty(), "{name:?}");
    }
    say_as(&first, &mine, "u", "on").unwrap();
    assert_eq!(first.broker.access.names().len(), 2);
    first.broker.engine.close().unwrap();
    drop(first);
    assert!(!node(dir.path(), "").auth.required());
}

#[test]
fn who_manages_redis_users_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), "");
    let boss = root(&node);
    let argon2id = Credential {
        kind: CredentialKind::Argon2id,
        bytes: b"$argon2id$"[..].into(),
    };
    elsewhere(&node, |locked, fx| {
        let settings = Settings {
            enabled: true,
            credentials: vec![argon2id],
            ..Settings::default()
        };
        access::create(locked, "web", settings, fx).unwrap();
    });
    say(&node, "manager", "on >x +@all ~* &*").unwrap();
    let manager = node.broker.access.as_if_enabled("manager").unwrap();
    for (name, rules) in [
        ("default", "on nopass"),
        ("default", "nopass"),
        ("web", ">mine"),
        ("web", "on"),
    ] {
        let refused = say_as(&node, &manager, name, rules).unwrap_err();
        assert!(refused.starts_with("NOPERM"), "{name}: {refused}");
    }
    assert!(node.auth.required());
    // Without opening it, it may.
    say_as(&node, &manager, "default", "on >pw +get ~a").unwrap();
    assert!(say_as(&node, &manager, "default", "nopass").is_err());
    say_as(&node, &boss, "default", "nopass off").unwrap();
    assert!(say_as(&node, &manager, "default", "on").is_err());
    say_as(&node, &manager, "default", "+set").unwrap();
    assert!(node.auth.required());
    say_as(&node, &boss, "default", "on").unwrap();
    assert!(!node.auth.required());
    say_as(&node, &manager, "default", "-set").unwrap();
    // Without any user the server would be open.
    elsewhere(&node, |locked, fx| {
        for name in ["default", "web"] {
            access::remove(locked, name, fx).unwrap();
        }
    });
    let by = |who| By {
        who,
        from: HERE,
        face: Face::Resp,
        now: Millis(3),
        all_channels: false,
    };
    let refused = delete(&node, &by(&manager), [&b"manager"[..]].into_iter()).unwrap_err();
    assert!(refused.text().starts_with("NOPERM"));
    assert!(!node.broker.access.is_empty());
    let deleted = delete(&node, &by(&boss), [&b"manager"[..]].into_iter());
    assert!(deleted.is_ok_and(|(deleted, _)| deleted == 1));
}

#[test]
fn selectors_that_somebody_else_has_made_let_nothing_pass() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), "s3cret");
    say(&node, "u", "on +@all ~*").unwrap();
    let who = node.broker.access.as_if_enabled("u").unwrap();
    assert_eq!(who.selectors().unwrap().made(|_| 7_u8), Some(&7));
    assert_eq!(may(&node, "u", "get a"), Err(Denied::Command));
}

/// Work grows with what there is, not with its square.
#[test]
fn much_is_soon_over_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), "s3cret");
    let grants: Vec<Grant> = (0..GRANTS_MAX)
        .map(|n| given(false, "*", Kind::Key, &format!("key:{n}"), BOTH))
        .collect();
    let enabled = Settings {
        enabled: true,
        ..Settings::default()
    };
    elsewhere(&node, |locked, fx| {
        access::put(locked, "u", enabled, grants, fx).unwrap();
    });
    let began = std::time::Instant::now();
    let selectors = "(+get %R~key:1 %R~key:2) ".repeat(60);
    // Its commands need no grant of the server: there is no room for one.
    let rules = format!("-@all +get {}", selectors.trim_end());
    say(&node, "u", &rules).unwrap();
    say(&node, "u", "+strlen").unwrap();
    assert_eq!(grants_of(&node), GRANTS_MAX);
    // Some 100 ms; the test may run beside others.
    assert!(began.elapsed() < std::time::Duration::from_secs(5));
    elsewhere(&node, |locked, fx| {
        let several = (1..3000).map(|n| given(false, &format!("db{n}"), Kind::Key, "a", BOTH));
        let enabled = Settings::default();
        access::put(locked, "u", enabled, several.collect(), fx).unwrap();
    });
    let refused = say(&node, "u", "~b ~c ~d ~e").unwrap_err();
    assert!(refused.contains("grants"), "{refused}");
    let selector = format!("({})", "+get ".repeat(200));
    let (who, rules) = (root(&node), vec![selector.as_bytes(); 60]);
    let by = By {
        who: &who,
        from: HERE,
        face: Face::Resp,
        now: Millis(3),
        all_channels: false,
    };
    let refused = set(&node, &by, "w", &rules).unwrap_err();
    assert!(refused.text().contains("too many rules"));
}

fn grants_of(node: &Node) -> usize {
    node.broker.access.grants(Some("u")).len()
}

#[test]
fn too_much_is_refused_whole() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), "s3cret");
    let globs: Vec<String> = (0..300).map(|n| format!("~*{n}?")).collect();
    for rules in [
        globs.join(" "),
        format!("({})", globs.join(" ")),
        "+get ".repeat(RULES_MAX + 1),
        "x".repeat(RULES_OCTETS_MAX + 1),
        (0..70)
            .map(|n| format!(">{n}"))
            .collect::<Vec<_>>()
            .join(" "),
    ] {
        assert!(say(&node, "u", &rules).is_err());
        assert!(node.broker.access.principal("u").is_none());
    }
    let long = "n".repeat(256);
    assert!(say(&node, &long, "on").is_err() && say(&node, "", "on").is_err());
}
