use std::path::Path;

use super::*;

fn from_toml(mode: Mode, text: &str) -> Result<Config, String> {
    let mut layers = Layers::new(mode);
    layers.toml(text, Path::new("f.toml"));
    layers
        .finish()
        .map(|(config, _)| config)
        .map_err(|error| error.to_string())
}

#[test]
fn every_default_reads_and_shows_itself() {
    for mode in [Mode::Server, Mode::Dev] {
        let (config, sources) = Layers::new(mode).finish().unwrap();
        for knob in KNOBS {
            let shown = knob.show(&config);
            let mut again = config.clone();
            (knob.set)(&mut again, &shown).unwrap();
            assert_eq!(knob.show(&again), shown, "{}", knob.name);
            assert!(
                knob.help.ends_with('.'),
                "{}: help is a sentence",
                knob.name
            );
        }
        assert!(sources.iter().all(|source| *source == Source::Default));
    }
    assert_eq!(
        Layers::new(Mode::Dev).finish().unwrap().0.amqp_durability,
        Durability::Os
    );
}

#[test]
fn both_spellings_tables_and_lists() {
    let config = from_toml(
        Mode::Server,
        "log-level = 'debug'\nmax_connections = 7\n[resp]\naddr = ['127.0.0.1:1', '[::1]:2']\n[kafka]\nauto-create-topics = false\n",
    )
    .unwrap();
    assert_eq!(
        (
            config.log_level.as_str(),
            config.max_connections,
            config.kafka_auto_create_topics
        ),
        ("debug", 7, false)
    );
    assert_eq!(config.resp_addr.show(), "127.0.0.1:1,[::1]:2");
}

#[test]
fn a_fold_is_small_where_memory_is() {
    let fold_bytes = |text| from_toml(Mode::Server, text).unwrap().engine().fold_bytes;
    assert_eq!(fold_bytes("memory-limit = '1TiB'"), 128 << 20);
    assert_eq!(fold_bytes("memory-limit = '512MiB'"), 32 << 20);
    assert_eq!(fold_bytes("memory-limit = '16MiB'"), 8 << 20);
    assert_eq!(
        fold_bytes("memory-limit = '16MiB'\nfold-size = '3MiB'"),
        3 << 20
    );
}

/// One request of the largest size has room beside what others send, as far as there is memory.
#[test]
fn clients_have_room_for_the_largest_request() {
    let mib = |text| from_toml(Mode::Server, text).unwrap().client_memory() >> 20;
    assert_eq!(mib("memory-limit = '64GiB'"), 16 << 10);
    assert_eq!(mib("memory-limit = '1GiB'"), 512 + 128);
    assert_eq!(mib("memory-limit = '300MiB'"), 225);
    assert_eq!(mib("memory-limit = '16MiB'"), 32);
    let small = "memory-limit = '1GiB'\nresp-max-bulk = '1MiB'\namqp-max-message-size = '1MiB'";
    assert_eq!(mib(small), 100 + 128 + 28);
    let given = "memory-limit = '1GiB'\nclient-memory-limit = '5MiB'";
    assert_eq!(mib(given), 5);
    let wrong = from_toml(Mode::Server, "amqp-max-message-size = '513MiB'");
    assert!(wrong.is_err());
}

#[test]
fn the_dev_table_counts_only_in_dev() {
    let text = "data_dir = '/srv'\n[dev]\ndata-dir = 'here'\n";
    assert_eq!(
        from_toml(Mode::Server, text).unwrap().data_dir.to_str(),
        Some("/srv")
    );
    assert_eq!(
        from_toml(Mode::Dev, text).unwrap().data_dir.to_str(),
        Some("here")
    );
}

#[test]
fn strongest_source_wins() {
    let mut layers = Layers::new(Mode::Server);
    layers.toml(
        "data-dir = 'file'\nuser = 'file'\nthreads = 3",
        Path::new("f.toml"),
    );
    let unknown = layers.env(
        [
            ("FLOWMESH_DATA_DIR", "env"),
            ("FLOWMESH_USER", "env"),
            ("FLOWMESH_DATADIR", "x"),
            ("PATH", "y"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into_iter(),
    );
    layers.flag(knob("user").unwrap(), "flag");
    let (config, sources) = layers.finish().unwrap();
    assert_eq!(
        (
            config.user.as_str(),
            config.data_dir.to_str(),
            config.threads
        ),
        ("flag", Some("env"), Some(3))
    );
    assert_eq!(
        unknown,
        [(
            "FLOWMESH_DATADIR".to_owned(),
            "FLOWMESH_DATA_DIR".to_owned()
        )]
    );
    let said = |name| sources[KNOBS.iter().position(|knob| knob.name == name).unwrap()].to_string();
    assert_eq!(
        [
            said("user"),
            said("data_dir"),
            said("threads"),
            said("storage")
        ],
        ["--user", "FLOWMESH_DATA_DIR", "f.toml", "default"]
    );
}

#[test]
fn problems_come_all_at_once_and_say_what_would_be_right() {
    let error = from_toml(
        Mode::Server,
        "resp_adr = '1'\nthreads = 'many'\n[kafka]\nadvertized = 'a:1'\n",
    )
    .unwrap_err();
    assert!(
        error.contains("f.toml: unknown key `resp_adr` (line 1); did you mean `resp_addr`?"),
        "{error}"
    );
    assert!(
        error.contains("unknown key `kafka_advertized`; did you mean `kafka_advertised`?"),
        "{error}"
    );
    assert!(
        error.contains("f.toml: threads: `many` is not a whole number"),
        "{error}"
    );
    assert!(
        from_toml(Mode::Server, "a = = 1")
            .unwrap_err()
            .contains("is not valid TOML")
    );
}

#[test]
fn open_addresses_need_a_credential() {
    let with = |more: &str| from_toml(Mode::Server, &format!("grpc-addr = ':50051'\n{more}"));
    let error = with("data-dir = '/nowhere'").unwrap_err();
    assert!(
        error.contains("grpc-addr 0.0.0.0:50051,[::]:50051 can be reached from other machines"),
        "{error}"
    );
    assert!(error.contains("FLOWMESH_PASSWORD") && error.contains("flowmesh user add"));
    assert!(with("data-dir = '/nowhere'\npassword = 'x'").is_ok());
    // Its catalog may know somebody.
    assert!(with("data-dir = '/'").is_ok());
    assert!(with("data-dir = '/'\nstorage = 'memory'").is_err());
    assert!(from_toml(Mode::Server, "resp-addr = 'off'").is_ok());
}

#[test]
fn nearest_known_name() {
    for (wrong, right) in [
        ("datadir", "data_dir"),
        ("resp-port", "resp_addr"),
        ("loglevel", "log_level"),
        ("kafka_advertized", "kafka_advertised"),
    ] {
        assert_eq!(nearest(wrong), right, "{wrong}");
    }
}

#[test]
fn every_knob_is_read_by_something() {
    fn read_all(dir: &Path, text: &mut String) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read_all(&path, text);
            } else if path.extension().is_some_and(|end| end == "rs")
                && !path.ends_with("config/tests.rs")
            {
                text.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut text = String::new();
    read_all(
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")),
        &mut text,
    );
    for knob in KNOBS {
        let read = text.contains(&format!("config.{}", knob.name))
            || text.contains(&format!("self.{}", knob.name));
        assert!(
            read,
            "nothing reads {}: a knob without effect is a lie",
            knob.name
        );
    }
}

#[test]
fn limits_of_memory_must_have_room_and_mean_something() {
    let rule = |what: &str, mib: u32| format!("{what} max={mib}mb policy=allkeys-lru");
    for (max, rules, part) in [
        ("100mb", rule("db=1", 37), None),
        ("101mb", String::new(), Some("resp-maxmemory: ")),
        ("0", rule("db=1", 38), Some("three quarters")),
        (
            "0",
            [rule("db=1", 20), rule("db=2", 20)].join(";"),
            Some("three quarters"),
        ),
        ("0", rule("db=4", 1), Some("no database 4")),
        (
            "0",
            [rule("prefix=ab", 1), rule("prefix=a", 1)].join(";"),
            None,
        ),
        ("0", [rule("db=1", 1), rule("prefix=a", 1)].join(";"), None),
        (
            "0",
            [rule("prefix=a", 1), rule("db=1 prefix=ab", 1)].join(";"),
            Some("rule 2"),
        ),
        (
            "0",
            [rule("db=1", 1), rule("db=1", 1)].join(";"),
            Some("rule 2"),
        ),
    ] {
        let text = format!(
            "memory-limit = \"100MiB\"\nresp-databases = 4\nresp-maxmemory = \"{max}\"\nresp-maxmemory-rules = \"{rules}\"\n"
        );
        let read = from_toml(Mode::Dev, &text);
        match part {
            None => assert!(read.is_ok(), "{text}: {read:?}"),
            Some(part) => assert!(
                read.as_ref().is_err_and(|why| why.contains(part)),
                "{text}: {read:?}"
            ),
        }
    }
}
