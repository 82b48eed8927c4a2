//! Limits of memory: what is deleted, what is refused, what stays, and that a restart brings nothing back.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::residency::{Pipe, until};
use crate::resp::Client;
use crate::server::Server;

const MIB: u64 = 1 << 20;

/// One figure of `INFO`.
fn figure(pipe: &mut Pipe, section: &str, name: &str) -> u64 {
    let text = pipe.one(&["INFO", section]);
    let mut lines = text.lines();
    let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let found = found.unwrap_or_else(|| panic!("no {name} in {text}"));
    found.parse().unwrap()
}

fn command(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Sets `count` keys of `prefix` from `first` on, a KiB each; every answer must be OK.
fn fill(pipe: &mut Pipe, prefix: &str, first: usize, count: usize) {
    let value = "v".repeat(1024);
    for start in (first..first + count).step_by(100) {
        let sets: Vec<_> = (start..(start + 100).min(first + count))
            .map(|n| command(&["SET", &format!("{prefix}{n}"), &value]))
            .collect();
        let answers = pipe.run(&sets);
        assert!(answers.iter().all(|answer| answer == "+OK"), "{answers:?}");
    }
}

/// How many of the keys are there.
fn there(pipe: &mut Pipe, keys: impl Iterator<Item = String>) -> usize {
    let asks: Vec<_> = keys.map(|key| command(&["EXISTS", &key])).collect();
    let answers = pipe.run(&asks);
    answers.iter().filter(|answer| *answer == ":1").count()
}

/// The keys of the events on this connection, until it is silent.
fn told(events: &mut Pipe, count: usize) -> HashSet<String> {
    (0..count)
        .map(|_| {
            assert_eq!(events.answer(), "*3");
            let channel = [events.answer(), events.answer()];
            assert_eq!(channel, ["message", "__keyevent@0__:evicted"]);
            events.answer()
        })
        .collect()
}

#[test]
fn a_cache_of_4_mib_stays_within_it_and_keeps_what_is_hot_and_a_kill_brings_nothing_back() {
    let dir = tempfile::tempdir().unwrap();
    let flags = [
        "--resp-maxmemory=4mb",
        "--resp-maxmemory-policy=allkeys-lru",
        "--resp-maxmemory-samples=10",
        "--resp-durability=os",
    ];
    let server = Server::start_with(dir.path(), &flags);
    let mut pipe = Pipe::new(&server);
    let on = ["CONFIG", "SET", "notify-keyspace-events", "Ee"];
    assert_eq!(pipe.one(&on), "+OK");
    let mut events = Pipe::new(&server);
    let subscribed = events.one(&["SUBSCRIBE", "__keyevent@0__:evicted"]);
    assert_eq!(
        [
            subscribed,
            events.answer(),
            events.answer(),
            events.answer()
        ],
        ["*3", "subscribe", "__keyevent@0__:evicted", ":1"]
    );
    let hot = || (0..200).map(|n| format!("hot:{n}"));
    fill(&mut pipe, "hot:", 0, 200);
    let mut most = 0;
    for round in 0..6 {
        fill(&mut pipe, "cold:", round * 1500, 1500);
        most = most.max(figure(&mut pipe, "memory", "used_memory"));
        // The clock of last use counts seconds.
        let second = Instant::now() + Duration::from_millis(1100);
        while Instant::now() < second {
            there(&mut pipe, hot());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    // What one pipeline of a connection may be ahead: a thousandth for each shard that has not told yet, and a value; and what came
    // while somebody who makes room had to wait for a processor.
    assert!(most < 4 * MIB + MIB / 2, "{most}");
    assert!(figure(&mut pipe, "memory", "used_memory") > 3 * MIB);
    assert_eq!(figure(&mut pipe, "memory", "maxmemory"), 4 * MIB);
    let stayed = there(&mut pipe, hot());
    assert!(stayed >= 180, "{stayed} of 200 hot keys");
    let evicted = figure(&mut pipe, "stats", "evicted_keys") as usize;
    assert!(evicted > 4000, "{evicted}");
    let gone = told(&mut events, evicted);
    assert_eq!(gone.len(), evicted, "a key is told once");
    let size = pipe.one(&["DBSIZE"]);
    assert_eq!(size, format!(":{}", 9200 - evicted));
    assert_eq!(there(&mut pipe, gone.iter().cloned()), 0);
    server.kill();
    let server = Server::start_with(dir.path(), &flags);
    let mut pipe = Pipe::new(&server);
    assert_eq!(pipe.one(&["DBSIZE"]), size);
    assert_eq!(there(&mut pipe, gone.into_iter()), 0);
    assert!(there(&mut pipe, hot()) >= stayed - 20);
    fill(&mut pipe, "more:", 0, 3000);
    until("room", || {
        figure(&mut pipe, "memory", "used_memory") < 4 * MIB + MIB / 16
    });
    assert!(server.stop().success());
}

#[test]
fn without_evictable_keys_what_needs_room_is_refused_and_all_else_goes_on() {
    const OOM: &str = "-OOM command not allowed when used memory > 'maxmemory'.";
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut pipe = Pipe::new(&server);
    fill(&mut pipe, "k:", 0, 3000);
    for policy in [
        "noeviction",
        "volatile-lru",
        "volatile-random",
        "volatile-ttl",
    ] {
        let set = [
            "CONFIG",
            "SET",
            "maxmemory-policy",
            policy,
            "maxmemory",
            "2mb",
        ];
        assert_eq!(pipe.one(&set), "+OK");
        assert_eq!(pipe.one(&["SET", "new", "v"]), OOM, "{policy}");
        assert_eq!(pipe.one(&["APPEND", "k:1", "v"]), OOM);
        assert_eq!(pipe.one(&["EXPIRE", "k:0", "1000"]), ":1");
        assert_eq!(pipe.one(&["PERSIST", "k:0"]), ":1");
        assert_eq!(pipe.one(&["STRLEN", "k:1"]), ":1024");
        assert_eq!(pipe.one(&["DBSIZE"]), ":3000");
    }
    // In a transaction whatever is queued is refused, and so is the transaction.
    assert_eq!(pipe.one(&["MULTI"]), "+OK");
    assert_eq!(pipe.one(&["GET", "k:1"]), OOM);
    assert!(pipe.one(&["EXEC"]).starts_with("-EXECABORT"));
    // Scripts: refused where they call what needs room, or before when they say what they do.
    let set = "return redis.call('set', KEYS[1], 'v')";
    let answer = pipe.one(&["EVAL", set, "1", "new"]);
    assert!(answer.starts_with("-OOM command not allowed"), "{answer}");
    let answer = pipe.one(&["EVAL", &format!("#!lua\n{set}"), "1", "new"]);
    assert_eq!(answer, OOM);
    let allowed = format!("#!lua flags=allow-oom\n{set}");
    assert_eq!(pipe.one(&["EVAL", &allowed, "1", "new"]), "+OK");
    let after_a_write = "redis.call('del', 'new') return redis.call('set', KEYS[1], 'v')";
    assert_eq!(pipe.one(&["EVAL", after_a_write, "1", "new"]), "+OK");
    assert_eq!(
        pipe.one(&["EVAL", "return redis.call('get', KEYS[1])", "1", "new"]),
        "v"
    );
    // A limit that is raised or taken away ends it.
    assert_eq!(pipe.one(&["CONFIG", "SET", "maxmemory", "0"]), "+OK");
    assert_eq!(pipe.one(&["SET", "new", "w"]), "+OK");
    assert!(server.stop().success());
}

#[test]
fn keys_without_a_deadline_stay_under_volatile_policies_and_the_soonest_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--resp-maxmemory-policy=volatile-ttl"];
    let server = Server::start_with(dir.path(), &flags);
    let mut pipe = Pipe::new(&server);
    fill(&mut pipe, "stays:", 0, 1000);
    fill(&mut pipe, "goes:", 0, 2000);
    for n in 0..2000 {
        // The last ones first.
        let seconds = (10_000 - n).to_string();
        let expire = ["EXPIRE", &format!("goes:{n}"), &seconds];
        assert_eq!(pipe.one(&expire), ":1");
    }
    assert_eq!(pipe.one(&["CONFIG", "SET", "maxmemory", "2mb"]), "+OK");
    until("room", || {
        figure(&mut pipe, "memory", "used_memory") <= 2 * MIB
    });
    let left = there(&mut pipe, (0..2000).map(|n| format!("goes:{n}")));
    assert!((500..1100).contains(&left), "{left}");
    let first = there(&mut pipe, (0..left).map(|n| format!("goes:{n}")));
    assert_eq!(first, left, "those with the longest time are left");
    for policy in ["volatile-lru", "volatile-lfu", "volatile-random"] {
        assert_eq!(
            pipe.one(&["CONFIG", "SET", "maxmemory-policy", policy]),
            "+OK"
        );
        pipe.one(&["SETEX", "one", "100", &"v".repeat(1 << 17)]);
        until(policy, || {
            figure(&mut pipe, "memory", "used_memory") <= 2 * MIB
        });
    }
    let stays = (0..1000).map(|n| format!("stays:{n}"));
    assert_eq!(there(&mut pipe, stays), 1000);
    assert!(server.stop().success());
}

#[test]
fn uses_are_counted_and_those_that_are_used_often_stay() {
    let dir = tempfile::tempdir().unwrap();
    let flags = [
        "--resp-maxmemory=2mb",
        "--resp-maxmemory-policy=allkeys-lfu",
    ];
    let server = Server::start_with(dir.path(), &flags);
    let mut pipe = Pipe::new(&server);
    fill(&mut pipe, "often:", 0, 100);
    // One less when a minute ends meanwhile.
    let new = pipe.one(&["OBJECT", "FREQ", "often:1"]);
    assert!([":5", ":4"].contains(&&*new), "{new}");
    for _ in 0..30 {
        there(&mut pipe, (0..100).map(|n| format!("often:{n}")));
    }
    let answer = pipe.one(&["OBJECT", "FREQ", "often:1"]);
    let freq: u8 = answer.trim_start_matches(':').parse().unwrap();
    assert!((6..25).contains(&freq), "{answer}");
    let answer = pipe.one(&["OBJECT", "IDLETIME", "often:1"]);
    assert!(
        answer.starts_with("-ERR An LFU maxmemory policy is selected"),
        "{answer}"
    );
    fill(&mut pipe, "once:", 0, 6000);
    let stayed = there(&mut pipe, (0..100).map(|n| format!("often:{n}")));
    assert!(stayed >= 90, "{stayed}");
    until("room", || {
        figure(&mut pipe, "memory", "used_memory") < 2 * MIB + MIB / 16
    });
    assert!(server.stop().success());
}

#[test]
fn a_cache_with_a_rule_of_its_own_leaves_everything_else_alone() {
    let dir = tempfile::tempdir().unwrap();
    let rules = "prefix=cache: max=1mb policy=allkeys-random; db=3 max=512kb policy=noeviction";
    let flags = [format!("--resp-maxmemory-rules={rules}")];
    let server = Server::start_with(dir.path(), &flags);
    let mut pipe = Pipe::new(&server);
    fill(&mut pipe, "queue:", 0, 4000);
    fill(&mut pipe, "cache:", 0, 4000);
    let of_rule = |pipe: &mut Pipe, rule: &str| -> u64 {
        let text = pipe.one(&["INFO", "memory"]);
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("flowmesh_maxmemory_rule_{rule}:")));
        let line = line.unwrap_or_else(|| panic!("{text}"));
        let (_, used) = line.split_once("used=").unwrap();
        used.split(',').next().unwrap().parse().unwrap()
    };
    let mut used = 0;
    until("room", || {
        used = of_rule(&mut pipe, "1");
        used <= MIB + 4096
    });
    assert!(used >= MIB / 2, "{used}");
    assert_eq!(
        there(&mut pipe, (0..4000).map(|n| format!("queue:{n}"))),
        4000
    );
    let cached = there(&mut pipe, (0..4000).map(|n| format!("cache:{n}")));
    assert!((500..1000).contains(&cached), "{cached}");
    // What changes by other ways is counted as well: by rename, by expiry, by a change of databases.
    let before = of_rule(&mut pipe, "1");
    for n in 0..100 {
        pipe.one(&["RENAME", &format!("queue:{n}"), &format!("moved:{n}")]);
    }
    assert_eq!(of_rule(&mut pipe, "1"), before);
    assert_eq!(pipe.one(&["SELECT", "3"]), "+OK");
    let mut refused = String::new();
    let value = "v".repeat(1024);
    for n in 0..600 {
        refused = pipe.one(&["SET", &format!("k:{n}"), &value]);
        if refused != "+OK" {
            break;
        }
    }
    assert!(refused.starts_with("-OOM"), "{refused}");
    assert_eq!(pipe.one(&["SELECT", "0"]), "+OK");
    assert_eq!(pipe.one(&["SET", "queue:new", "v"]), "+OK");
    assert_eq!(pipe.one(&["SET", "cache:new", "v"]), "+OK");
    let third = of_rule(&mut pipe, "2");
    assert!(third > MIB / 2, "{third}");
    assert_eq!(pipe.one(&["SWAPDB", "3", "4"]), "+OK");
    assert_eq!(of_rule(&mut pipe, "2"), 0);
    assert_eq!(pipe.one(&["SWAPDB", "3", "4"]), "+OK");
    assert_eq!(of_rule(&mut pipe, "2"), third);
    assert_eq!(pipe.one(&["FLUSHALL"]), "+OK");
    assert_eq!((of_rule(&mut pipe, "1"), of_rule(&mut pipe, "2")), (0, 0));
    assert!(server.stop().success());
}

#[test]
fn limits_change_together_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut pipe = Pipe::new(&server);
    let rule = |text: &str| format!("{text} policy=allkeys-lru");
    let covered = [rule("prefix=a max=1mb"), rule("db=1 prefix=ab max=1mb")].join(";");
    for (rules, why) in [
        (rule("prefix=a: max=1000000gb"), "three quarters"),
        (covered, "rule 2 means no key"),
        (rule("db=16 max=1mb"), "rules look like"),
    ] {
        let set = [
            "CONFIG",
            "SET",
            "maxmemory",
            "1mb",
            "maxmemory-rules",
            &rules,
        ];
        let answer = pipe.one(&set);
        let related = "-ERR CONFIG SET failed (possibly related to argument 'maxmemory-rules')";
        assert!(answer.starts_with(related), "{answer}");
        assert!(answer.contains(why), "{answer}");
        assert_eq!(figure(&mut pipe, "memory", "maxmemory"), 0);
    }
    let answer = pipe.one(&["CONFIG", "SET", "maxmemory", "1000000gb"]);
    assert!(answer.contains("memory-limit"), "{answer}");
    // What else was to change has not changed, either.
    let timeout = ["CONFIG", "SET", "timeout", "77", "maxmemory", "1000000gb"];
    assert!(pipe.one(&timeout).starts_with("-ERR"));
    let mut client = Client::connect(&server);
    assert_eq!(client.call(&["CONFIG", "GET", "timeout"]), "[timeout 0]");
    assert_eq!(
        client.call(&["CONFIG", "GET", "maxmemory"]),
        "[maxmemory 0]"
    );
    assert!(server.stop().success());
}

#[test]
fn a_limit_that_changes_while_keys_are_deleted_for_it_is_kept_in_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let flags = [
        "--resp-maxmemory-policy=allkeys-random",
        "--resp-durability=os",
    ];
    let server = Server::start_with(dir.path(), &flags);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let mut pipe = Pipe::new(&server);
                scope.spawn(move || {
                    for start in (0..6000).step_by(100) {
                        fill(&mut pipe, &format!("w{writer}:"), start, 100);
                    }
                })
            })
            .collect();
        let mut pipe = Pipe::new(&server);
        let mut turns = 0;
        while turns < 60 || writers.iter().any(|writer| !writer.is_finished()) {
            // Within a transaction, too.
            let max = ["2mb", "0", "4mb", "3mb"][turns % 4];
            let policy = ["allkeys-random", "allkeys-lru"][turns % 2];
            let set = [
                "CONFIG",
                "SET",
                "maxmemory",
                max,
                "maxmemory-policy",
                policy,
            ];
            if turns.is_multiple_of(3) {
                let steps = [
                    command(&["MULTI"]),
                    command(&set),
                    command(&["SET", "turn", &turns.to_string()]),
                    command(&["EXEC"]),
                ];
                let answers = pipe.run(&steps);
                assert_eq!(answers[3], "*2", "{answers:?}");
                assert_eq!([pipe.answer(), pipe.answer()], ["+OK", "+OK"]);
            } else {
                assert_eq!(pipe.one(&set), "+OK");
            }
            turns += 1;
        }
    });
    let mut pipe = Pipe::new(&server);
    let set = [
        "CONFIG",
        "SET",
        "maxmemory",
        "2mb",
        "maxmemory-policy",
        "allkeys-lru",
    ];
    assert_eq!(pipe.one(&set), "+OK");
    until("the limit is kept", || {
        figure(&mut pipe, "memory", "used_memory") <= 2 * MIB
    });
    fill(&mut pipe, "after:", 0, 3000);
    let slack = MIB / 4;
    until("it stays so", || {
        figure(&mut pipe, "memory", "used_memory") <= 2 * MIB + slack
    });
    assert!(server.stop().success());
}

#[test]
fn what_may_be_deleted_now_is_deleted_although_there_was_nothing_a_moment_ago() {
    let dir = tempfile::tempdir().unwrap();
    let flags = [
        "--resp-maxmemory=1mb",
        "--resp-maxmemory-policy=volatile-lru",
    ];
    let server = Server::start_with(dir.path(), &flags);
    let mut pipe = Pipe::new(&server);
    let value = "v".repeat(2 << 20);
    for policy in ["volatile-lru", "volatile-ttl", "volatile-random"] {
        let set = ["CONFIG", "SET", "maxmemory-policy", policy];
        assert_eq!(pipe.one(&set), "+OK");
        assert_eq!(pipe.one(&["SET", "large", &value]), "+OK");
        assert!(pipe.one(&["SET", "k", "v"]).starts_with("-OOM"));
        // Queues and topics are not what is limited.
        let publish = pipe.one(&["FM.PUBLISH", "amq.fanout", "key", "body"]);
        assert!(!publish.starts_with('-'), "{publish}");
        assert_eq!(pipe.one(&["EXPIRE", "large", "1000"]), ":1");
        assert_eq!(pipe.one(&["SET", "k", "v"]), "+OK", "{policy}");
        assert_eq!(pipe.one(&["EXISTS", "large"]), ":0");
    }
    assert!(server.stop().success());
}

#[test]
fn those_who_need_room_do_not_keep_an_operator_from_ending_a_script() {
    let dir = tempfile::tempdir().unwrap();
    let flags = [
        "--resp-maxmemory=1mb",
        "--resp-maxmemory-policy=volatile-lru",
        "--threads=2",
    ];
    let server = Server::start_with(dir.path(), &flags);
    let mut runner = Client::connect(&server);
    runner.call(&["CONFIG", "SET", "busy-reply-threshold", "300"]);
    runner.call(&["SET", "large", &"v".repeat(2 << 20)]);
    let mut others: Vec<_> = (0..8).map(|_| Client::connect(&server)).collect();
    runner.send(&["EVAL", "while true do redis.call('get', 'x') end", "0"]);
    // Some while it is not known to be busy, some after that.
    std::thread::sleep(Duration::from_millis(50));
    for other in &mut others {
        other.send(&["SET", "k", "v"]);
    }
    let mut operator = Client::connect(&server);
    until("the end of the script", || {
        operator.call(&["SCRIPT", "KILL"]) == "OK"
    });
    assert!(runner.reply().contains("killed by user"));
    for other in &mut others {
        // OK: it was in a hurry, so it did not wait for those who look for room.
        let reply = other.reply();
        let known = ["BUSY ", "OOM ", "OK"];
        assert!(
            known.iter().any(|start| reply.starts_with(start)),
            "{reply}"
        );
    }
    assert!(server.stop().success());
}

#[test]
fn a_script_that_writes_waits_for_the_end_of_a_pause_whatever_its_client_was_refused_before() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["--resp-maxmemory=1"]);
    let [mut client, mut other] = Client::several(&server);
    assert!(client.call(&["SET", "k", "v"]).starts_with("OOM "));
    assert_eq!(other.call(&["CONFIG", "SET", "maxmemory", "64mb"]), "OK");
    assert_eq!(other.call(&["CLIENT", "PAUSE", "60000", "WRITE"]), "OK");
    let script = "#!lua\nreturn redis.call('set', KEYS[1], 'v')";
    client.send(&["EVAL", script, "1", "k"]);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(other.call(&["EXISTS", "k"]), "0");
    assert_eq!(other.call(&["CLIENT", "UNPAUSE"]), "OK");
    assert_eq!(client.reply(), "OK");
    assert!(server.stop().success());
}
