//! What connections are to each other and to the server: pauses, keys that clients keep, monitors, saves, the end.

use std::time::{Duration, Instant};

use crate::resp::{Client, until_blocked};
use crate::server::Server;

fn server(flags: &[&str]) -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start_with(dir.path(), flags);
    (dir, server)
}

/// One that takes pushes.
fn resp3(server: &Server) -> Client {
    let mut client = Client::connect(server);
    client.call(&["HELLO", "3"]);
    client
}

/// One thread for all clients: who waits must not keep it.
const ONE_THREAD: &str = "--threads=1";

#[test]
fn a_pause_keeps_the_order_of_a_pipeline_and_nobody_else() {
    let (_dir, server) = server(&[ONE_THREAD]);
    let mut one = Client::connect(&server);
    let mut other = Client::connect(&server);
    one.play("CLIENT PAUSE 60000 WRITE");
    for n in 1..=100 {
        other.send(&["RPUSH", "list", &n.to_string()]);
        other.send(&["LLEN", "list"]);
    }
    until_blocked(&mut one, 1);
    one.play(
        "LLEN list → 0
         CLIENT UNPAUSE",
    );
    for n in 1..=100 {
        assert_eq!(other.reply(), n.to_string());
        assert_eq!(other.reply(), n.to_string());
    }
    until_blocked(&mut one, 0);
    assert!(server.stop().success());
}

#[test]
fn a_pause_ends_by_itself_and_a_client_that_leaves_is_not_counted() {
    let (_dir, server) = server(&[]);
    let mut one = Client::connect(&server);
    let mut leaves = Client::connect(&server);
    let mut stays = Client::connect(&server);
    let began = Instant::now();
    one.play("CLIENT PAUSE 1000 WRITE");
    leaves.send(&["SET", "a", "1"]);
    stays.send(&["SET", "a", "2"]);
    until_blocked(&mut one, 2);
    drop(leaves);
    until_blocked(&mut one, 1);
    assert_eq!(stays.reply(), "OK");
    assert!(began.elapsed() >= Duration::from_millis(990));
    one.play("GET a → 2");
    // An expired key is not deleted by a pause, nor kept from those who look.
    one.play("CLIENT PAUSE 100 ALL");
    let began = Instant::now();
    one.play("PING → PONG");
    assert!(began.elapsed() >= Duration::from_millis(90));
    assert!(server.stop().success());
}

#[test]
fn a_client_that_redirects_hears_when_its_listener_is_gone() {
    let (_dir, server) = server(&[]);
    let mut writer = Client::connect(&server);
    let mut tracks = resp3(&server);
    let mut listens = Client::connect(&server);
    let id = listens.call(&["CLIENT", "ID"]);
    listens.call(&["SUBSCRIBE", "__redis__:invalidate"]);
    assert_eq!(
        tracks.call(&["CLIENT", "TRACKING", "ON", "REDIRECT", &id]),
        "OK"
    );
    assert_eq!(tracks.call(&["CLIENT", "GETREDIR"]), id);
    tracks.play("GET a → nil");
    writer.play("SET a 1");
    assert_eq!(listens.reply(), "[message __redis__:invalidate [a]]");
    tracks.play("GET a → 1");
    writer.play("FLUSHALL");
    assert_eq!(listens.reply(), "[message __redis__:invalidate nil]");
    tracks.play("GET a → nil");
    drop(listens);
    let list = format!("id={id} ");
    while writer.call(&["CLIENT", "LIST"]).contains(&list) {}
    writer.play("SET a 1");
    assert_eq!(tracks.reply(), format!("[tracking-redir-broken {id}]"));
    let info = tracks.call(&["CLIENT", "TRACKINGINFO"]);
    assert!(info.contains("broken_redirect"), "{info}");
    let line = tracks.call(&["CLIENT", "GETREDIR"]);
    assert_eq!(line, id);
    assert!(server.stop().success());
}

#[test]
fn keys_that_clients_keep_are_told_when_they_expire_or_are_too_many() {
    let (_dir, server) = server(&[]);
    let mut writer = Client::connect(&server);
    let mut tracks = resp3(&server);
    tracks.play("CLIENT TRACKING ON");
    writer.play("SET a 1 PX 30");
    tracks.play("GET a → 1");
    // By nobody but time.
    assert_eq!(tracks.reply(), "[invalidate [a]]");
    writer.play("CONFIG SET tracking-table-max-keys 10");
    let mut lost = 0;
    for n in 0..50 {
        let key = format!("key{n}");
        tracks.send(&["GET", &key]);
        loop {
            let told = tracks.reply();
            if told == "nil" {
                break;
            }
            assert!(told.starts_with("[invalidate [key"), "{told}");
            assert!(!told.contains(&format!("[{key}]")), "it is not read yet");
            lost += 1;
        }
    }
    // One more in each of the eight shards at most, and the last may not have been heard yet.
    assert!((50 - 18 - 1..=40).contains(&lost), "{lost}");
    let stats = writer.call(&["INFO", "stats"]);
    let keys = stats
        .lines()
        .find_map(|line| line.strip_prefix("tracking_total_keys:"));
    let keys: usize = keys.expect("a field").parse().expect("a number");
    assert!((10..=18).contains(&keys), "{keys}");
    drop(tracks);
    while !writer
        .call(&["INFO", "clients"])
        .contains("tracking_clients:0\r\n")
    {}
    // Nothing is left of it with the next change in each shard.
    for n in 0..200 {
        writer.call(&["SET", &format!("x{n}"), "1"]);
    }
    let stats = writer.call(&["INFO", "stats"]);
    assert!(stats.contains("tracking_total_keys:0\r\n"), "{stats}");
    assert!(server.stop().success());
}

#[test]
fn a_script_of_a_client_that_tracks_notes_what_it_reads() {
    let (_dir, server) = server(&[]);
    let mut writer = Client::connect(&server);
    let mut tracks = resp3(&server);
    tracks.play("CLIENT TRACKING ON");
    // New, so it runs on the scripts' own thread.
    let script = "return redis.call('GET', KEYS[1])";
    assert_eq!(tracks.call(&["EVAL", script, "1", "a"]), "nil");
    writer.play("SET a 1");
    assert_eq!(tracks.reply(), "[invalidate [a]]");
    assert!(server.stop().success());
}

#[test]
fn a_sleep_keeps_nobody_else_waiting() {
    let flags = [ONE_THREAD, "--resp-debug-command=local"];
    let (_dir, server) = server(&flags);
    let mut sleeps = Client::connect(&server);
    let mut other = Client::connect(&server);
    let began = Instant::now();
    sleeps.send(&["DEBUG", "SLEEP", "1"]);
    until_blocked(&mut other, 1);
    other.play("PING → PONG");
    assert!(began.elapsed() < Duration::from_millis(900), "it went on");
    assert_eq!(sleeps.reply(), "OK");
    assert!(began.elapsed() >= Duration::from_millis(990));
    other.play(
        "DEBUG SET-ACTIVE-EXPIRE 0
         SET gone 1 PX 1
         DEBUG JMAP → ERR unknown subcommand or wrong number of arguments for 'JMAP'. Try DEBUG HELP.
         DEBUG QUICKLIST-PACKED-THRESHOLD 100b
         DEBUG PROTOCOL string → Hello World
         DEBUG POPULATE 5 k
         EXISTS k:0 k:4 k:5 → 2
         DEBUG RELOAD",
    );
    std::thread::sleep(Duration::from_millis(300));
    other.play(
        "DBSIZE → 6
         DEBUG SET-ACTIVE-EXPIRE 1",
    );
    while other.call(&["DBSIZE"]) != "5" {}
    let object = other.call(&["DEBUG", "OBJECT", "k:0"]);
    assert!(object.contains("encoding:embstr"), "{object}");
    assert!(server.stop().success());
}

#[test]
fn what_is_saved_is_folded_and_counted() {
    let (_dir, server) = server(&[]);
    let mut client = Client::connect(&server);
    client.play("SET a 1");
    let unsaved = |client: &mut Client| {
        let info = client.call(&["INFO", "persistence"]);
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("rdb_changes_since_last_save:"));
        line.expect("the field is there").to_owned()
    };
    assert_eq!(unsaved(&mut client), "1");
    let before: u64 = client.call(&["LASTSAVE"]).parse().expect("a time");
    client.play("SAVE");
    assert_eq!(unsaved(&mut client), "0");
    let after: u64 = client.call(&["LASTSAVE"]).parse().expect("a time");
    assert!(after >= before);
    client.play(
        "SET a 2
         BGSAVE → Background saving started",
    );
    while !client
        .call(&["INFO", "persistence"])
        .contains("rdb_saves:2\r\n")
    {}
    assert_eq!(unsaved(&mut client), "0");
    client.play(
        "BGREWRITEAOF → Background append only file rewriting started
         SET a 3
         WAITAOF 1 0 0 → [1 0]",
    );
    let began = Instant::now();
    client.play("WAITAOF 0 1 200 → [1 0]");
    assert!(
        began.elapsed() >= Duration::from_millis(190),
        "no replica comes"
    );
    assert!(server.stop().success());
}

#[test]
fn a_client_may_stop_the_server() {
    let (dir, first) = server(&[]);
    let mut client = Client::connect(&first);
    client.play(
        "SHUTDOWN ABORT → ERR No shutdown in progress.
         SET a 1",
    );
    client.send(&["SHUTDOWN", "NOSAVE"]);
    assert!(first.ended().success());
    let second = Server::start(dir.path());
    Client::connect(&second).play("GET a → 1");
    assert!(second.stop().success());
}

#[test]
fn slow_commands_are_told() {
    let (_dir, server) = server(&["--resp-debug-command=yes"]);
    let mut client = Client::connect(&server);
    let mut script = Client::connect(&server);
    client.play(
        "CONFIG SET slowlog-log-slower-than 20000 latency-monitor-threshold 20
         SLOWLOG RESET
         CLIENT SETNAME me",
    );
    script.play("CLIENT SETNAME slow");
    let body = "local a = redis.call('TIME'); local i = 0; \
                repeat i = i + 1; local b = redis.call('TIME'); \
                until (b[1] - a[1]) * 1000000 + b[2] - a[2] > 1000000 or i > 2000000; return i";
    script.call(&["EVAL", body, "0"]);
    let log = client.call(&["SLOWLOG", "GET"]);
    assert!(
        log.contains("[EVAL local a") && log.contains(" slow]"),
        "{log}"
    );
    let latest = client.call(&["LATENCY", "LATEST"]);
    assert!(latest.contains("[command "), "{latest}");
    let history = client.call(&["LATENCY", "HISTORY", "command"]);
    assert!(history.starts_with("[["), "{history}");
    let graph = client.call(&["LATENCY", "GRAPH", "command"]);
    assert!(graph.starts_with("command - high "), "{graph}");
    let doctor = client.call(&["LATENCY", "DOCTOR"]);
    assert!(doctor.contains("command: "), "{doctor}");
    client.play("LATENCY RESET → 1");
    let stats = client.call(&["INFO", "commandstats"]);
    assert!(stats.contains("cmdstat_eval:calls=1,"), "{stats}");
    assert!(server.stop().success());
}

#[test]
fn commands_of_a_pipeline_are_all_counted() {
    let (_dir, server) = server(&[ONE_THREAD]);
    let mut client = Client::connect(&server);
    for _ in 0..100 {
        client.send(&["SET", "a", "1"]);
        client.send(&["GET", "a"]);
        client.send(&["KEYS", "*"]);
        client.send(&["INCR", "l"]);
    }
    for _ in 0..400 {
        client.reply();
    }
    client.send(&["LPUSH", "a", "1"]);
    client.send(&["GET"]);
    assert!(client.reply().starts_with("WRONGTYPE"));
    assert!(client.reply().starts_with("ERR wrong number"));
    let stats = client.call(&["INFO", "commandstats"]);
    for (name, rest) in [
        ("set", "rejected_calls=0,failed_calls=0"),
        ("get", "rejected_calls=1,failed_calls=0"),
        ("keys", "rejected_calls=0,failed_calls=0"),
        ("incr", "rejected_calls=0,failed_calls=0"),
    ] {
        let start = format!("cmdstat_{name}:calls=100,");
        let line = stats.lines().find(|line| line.starts_with(&start));
        let line = line.unwrap_or_else(|| panic!("{start} in {stats}"));
        assert!(line.ends_with(rest), "{line}");
    }
    assert!(stats.contains("cmdstat_lpush:calls=1,"), "{stats}");
    let total = client.call(&["INFO", "stats"]);
    assert!(total.contains("total_error_replies:2\r\n"), "{total}");
    assert!(server.stop().success());
}
