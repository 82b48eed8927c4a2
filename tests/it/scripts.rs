//! Lua scripts over real sockets: those that do not end, and those that change more than keys.

use crate::resp::Client;
use crate::server::Server;

/// Until the server says so: a script's start is not seen from outside.
fn until(client: &mut Client, command: &[&str], wanted: &str) {
    while !client.call(command).starts_with(wanted) {}
}

#[test]
fn a_script_that_does_not_end_is_killed() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let mut others: Vec<_> = (0..4).map(|_| Client::connect(&server)).collect();
    let mut runner = Client::connect(&server);
    others[0].call(&["CONFIG", "SET", "busy-reply-threshold", "100"]);
    assert_eq!(
        others[0].call(&["CONFIG", "GET", "lua-time-limit"]),
        "[lua-time-limit 100]"
    );
    runner.send(&[
        "EVAL",
        "redis.call('get', 'x') while true do pcall(function() while true do end end) end",
        "0",
    ]);
    for other in &mut others {
        until(other, &["GET", "x"], "BUSY ");
        assert_eq!(
            other.call(&["EVAL", "return 1", "0"]),
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."
        );
        assert!(other.call(&["PING"]).starts_with("BUSY "));
        assert_eq!(other.call(&["MULTI"]), "OK");
        assert_eq!(other.call(&["DISCARD"]), "OK");
    }
    assert_eq!(others[1].call(&["SCRIPT", "KILL"]), "OK");
    let end = runner.reply();
    assert!(
        end.starts_with("ERR Script killed by user with SCRIPT KILL... script: "),
        "{end}"
    );
    for other in &mut others {
        assert_eq!(other.call(&["GET", "x"]), "nil");
        assert_eq!(
            other.call(&["SCRIPT", "KILL"]),
            "NOTBUSY No scripts in execution right now."
        );
    }
    assert_eq!(runner.call(&["EVAL", "return 1", "0"]), "1");
    assert!(server.stop().success());
}

/// Workers that wait for the script's locks, as AMQP and Kafka do, do not keep an operator from ending it.
#[test]
fn a_new_connection_can_always_kill() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let mut other = Client::connect(&server);
    other.call(&["CONFIG", "SET", "busy-reply-threshold", "50"]);
    let mut watchers: Vec<_> = (0..8).map(|_| Client::connect(&server)).collect();
    for watcher in &mut watchers {
        assert_eq!(watcher.call(&["WATCH", "x"]), "OK");
    }
    let mut runner = Client::connect(&server);
    runner.send(&["EVAL", "while true do end", "0"]);
    until(&mut other, &["GET", "x"], "BUSY ");
    // Each leaves something behind in a shard, for which its thread needs the lock.
    drop(watchers);
    assert_eq!(Client::connect(&server).call(&["SCRIPT", "KILL"]), "OK");
    assert!(runner.reply().starts_with("ERR Script killed by user"));
    assert_eq!(other.call(&["SET", "x", "1"]), "OK");
    assert!(server.stop().success());
}

/// A script that waits for its turn is told, too, and one that wrote runs to its end.
#[test]
fn a_script_that_wrote_is_not_killed() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let [mut runner, mut waiting, mut other] = Client::several(&server);
    other.call(&["CONFIG", "SET", "lua-time-limit", "50"]);
    runner.send(&[
        "EVAL",
        "redis.call('set', 'x', 1) local s = os.clock() while os.clock() - s < 1 do end redis.call('set', 'y', 2) return 'done'",
        "0",
    ]);
    waiting.send(&["EVAL", "return redis.call('get', 'y')", "0"]);
    // Killed earlier, it would not have written.
    until(&mut other, &["GET", "x"], "BUSY ");
    until(
        &mut other,
        &["SCRIPT", "KILL"],
        "UNKILLABLE Sorry the script already executed write commands",
    );
    let waited = waiting.reply();
    assert!(waited.starts_with("BUSY ") || waited == "nil", "{waited}");
    assert_eq!(runner.reply(), "done");
    assert_eq!(other.call(&["MGET", "x", "y"]), "[1 2]");
    assert!(server.stop().success());
}

/// The node does not wait for ever for a script; what it changed is not in the log and so never happened.
#[test]
fn a_stop_undoes_a_script_that_does_not_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start_with(dir.path(), &["--shutdown-timeout=500ms"]);
    let [mut runner, mut other] = Client::several(&server);
    other.call(&["CONFIG", "SET", "lua-time-limit", "300"]);
    assert_eq!(other.call(&["SET", "before", "1"]), "OK");
    runner.send(&["EVAL", "redis.call('set', 'x', 1) while true do end", "0"]);
    // Killed earlier, it would not have written.
    until(&mut other, &["GET", "before"], "BUSY ");
    until(&mut other, &["SCRIPT", "KILL"], "UNKILLABLE ");
    assert!(!server.stop().success());
    let server = Server::start(dir.path());
    let mut client = Client::connect(&server);
    assert_eq!(client.call(&["MGET", "before", "x"]), "[1 nil]");
    // One that wrote nothing just ends.
    let mut runner = Client::connect(&server);
    client.call(&["CONFIG", "SET", "lua-time-limit", "1"]);
    runner.send(&["EVAL", "redis.call('get', 'x') while true do end", "0"]);
    until(&mut client, &["GET", "x"], "BUSY ");
    assert!(server.stop().success());
}

/// Keys of all slots, a message and a record: one record of the log.
#[test]
fn a_script_is_one_commit_of_everything() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let mut client = Client::connect(&server);
    client.call(&["FM.PRODUCE", "events", "k", "first"]);
    let script = "for i = 1, 100 do redis.call('set', 'key' .. i, i) end
        redis.call('fm.publish', 'amq.fanout', 'rk', 'body')
        return {redis.call('fm.produce', 'events', 'k', 'second'), redis.call('publish', 'c', 'm'), redis.pcall('fm.produce', 'nothing', 'k', 'v')}";
    for round in 0..4 {
        // On a thread of its own at first, then on that of the connection.
        let reply = client.call(&["EVAL", script, "0"]);
        assert!(
            reply.ends_with(" 0 NOTFOUND a script cannot create a topic]"),
            "{round}: {reply}"
        );
    }
    assert_eq!(client.call(&["MULTI"]), "OK");
    assert_eq!(
        client.call(&["EVAL", "return redis.call('incr', KEYS[1])", "1", "key1"]),
        "QUEUED"
    );
    assert_eq!(
        client.call(&["EVAL", "return redis.call('incr', KEYS[1])", "1", "key1"]),
        "QUEUED"
    );
    assert_eq!(client.call(&["EXEC"]), "[2 3]");
    // A pipeline keeps its order over both threads.
    for n in 0..50 {
        client.send(&[
            "EVAL",
            &format!("return redis.call('incr', 'n') -- {}", n / 5),
            "0",
        ]);
        client.send(&["INCR", "n"]);
    }
    for n in 0..100 {
        assert_eq!(client.reply(), (n + 1).to_string());
    }
    server.kill();
    let server = Server::start(dir.path());
    let mut client = Client::connect(&server);
    assert_eq!(client.call(&["MGET", "key1", "key100", "n"]), "[3 100 100]");
    assert_eq!(client.call(&["DBSIZE"]), "101");
    let sha = client.call(&["SCRIPT", "LOAD", "return 7"]);
    assert_eq!(client.call(&["EVALSHA", &sha, "0"]), "7");
    assert!(server.stop().success());
}

/// What the first line and a function that answers `answer` make.
fn library(name: &str, function: &str, answer: u32) -> String {
    format!(
        "#!lua name={name}\nredis.register_function{{function_name='{function}', description='says', flags={{'no-writes'}}, callback=function() return {answer} end}}"
    )
}

#[test]
fn functions_survive_a_kill() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let mut client = Client::connect(&server);
    let mut load = |more: &[&str], name: &str, function: &str, answer: u32| {
        let text = library(name, function, answer);
        let command = [&["FUNCTION", "LOAD"], more, &[text.as_str()]].concat();
        assert_eq!(client.call(&command), name);
    };
    load(&[], "kept", "f", 1);
    load(&[], "gone", "g", 2);
    load(&["REPLACE"], "kept", "f", 3);
    load(&[], "other", "h", 4);
    assert_eq!(client.call(&["FUNCTION", "DELETE", "gone"]), "OK");
    server.kill();

    let server = Server::start(dir.path());
    let mut client = Client::connect(&server);
    assert_eq!(client.call(&["FCALL", "F", "0"]), "3");
    assert_eq!(client.call(&["FCALL_RO", "h", "0"]), "4");
    assert_eq!(client.call(&["FCALL", "g", "0"]), "ERR Function not found");
    assert_eq!(
        client.call(&["FUNCTION", "LIST", "LIBRARYNAME", "k*"]),
        "[[library_name kept engine LUA functions [[name f description says flags [no-writes]]]]]"
    );
    // What is in the tables, too.
    assert_eq!(client.call(&["SAVE"]), "OK");
    server.kill();
    let server = Server::start(dir.path());
    let mut client = Client::connect(&server);
    assert_eq!(client.call(&["FCALL", "f", "0"]), "3");
    let info = client.call(&["INFO", "memory"]);
    assert!(info.contains("number_of_libraries:2") && info.contains("number_of_functions:2"));
    // One at a time, and as fast as they come: most run on their connections' threads.
    for _ in 0..1000 {
        client.send(&["FCALL", "h", "0"]);
    }
    for _ in 0..1000 {
        assert_eq!(client.reply(), "4");
    }
    assert_eq!(client.call(&["FUNCTION", "FLUSH"]), "OK");
    server.kill();
    let server = Server::start(dir.path());
    let mut client = Client::connect(&server);
    assert_eq!(client.call(&["FUNCTION", "LIST"]), "[]");
    assert!(server.stop().success());
}

/// 4 MiB are the most of one library, 64 MiB of all that a transaction loads, whatever it deletes in between.
#[test]
fn what_a_transaction_loads_has_a_limit() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let mut client = Client::connect(&server);
    let large = |name: &str, octets: usize| {
        let text = library(name, name, 1);
        let comment = "-".repeat(octets - text.len() - 1);
        format!("{text}\n{comment}")
    };
    let limits = "ERR a library has at most";
    let refused = client.call(&["FUNCTION", "LOAD", &large("toolarge", (4 << 20) + 1)]);
    assert!(refused.starts_with(limits), "{refused}");
    assert_eq!(client.call(&["MULTI"]), "OK");
    for n in 0..17 {
        let text = large(&format!("lib{n}"), (4 << 20) - 1000);
        assert_eq!(client.call(&["FUNCTION", "LOAD", &text]), "QUEUED");
        assert_eq!(client.call(&["FUNCTION", "FLUSH"]), "QUEUED");
    }
    assert_eq!(client.call(&["SET", "k", "v"]), "QUEUED");
    let answer = client.call(&["EXEC"]);
    assert!(answer.starts_with("[lib0 OK lib1 OK "), "{answer}");
    // The others go on, as in Redis.
    assert_eq!(answer.matches(limits).count(), 1, "{answer}");
    assert!(answer.ends_with(" OK OK]"), "{answer}");
    assert_eq!(client.call(&["GET", "k"]), "v");
    assert_eq!(client.call(&["FUNCTION", "LIST"]), "[]");
    assert!(server.stop().success());
}

#[test]
fn a_library_that_does_not_end_is_not_loaded_and_keeps_nobody_waiting() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let [mut one, mut two] = Client::several(&server);
    one.send(&["FUNCTION", "LOAD", "#!lua name=lib\nwhile true do end"]);
    let began = std::time::Instant::now();
    for _ in 0..100 {
        assert_eq!(two.call(&["SET", "k", "v"]), "OK");
    }
    assert!(began.elapsed() < std::time::Duration::from_millis(400));
    assert_eq!(
        one.reply(),
        "ERR Error registering functions: ERR FUNCTION LOAD timeout"
    );
    assert_eq!(one.call(&["FUNCTION", "LIST"]), "[]");
    // In a transaction it fails alone.
    assert_eq!(one.call(&["MULTI"]), "OK");
    one.call(&["SET", "a", "1"]);
    one.call(&["FUNCTION", "LOAD", "#!lua name=lib\nwhile true do end"]);
    one.call(&["FUNCTION", "LOAD", &library("lib", "f", 1)]);
    one.call(&["FCALL", "f", "0"]);
    assert_eq!(
        one.call(&["EXEC"]),
        "[OK ERR Error registering functions: ERR FUNCTION LOAD timeout lib 1]"
    );
    assert!(server.stop().success());
}

#[test]
fn functions_are_as_free_as_their_callers() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let mut client = Client::connect(&server);
    let text = "#!lua name=lib\nredis.register_function('put', function(keys, args) redis.call('set', keys[1], args[1]) redis.call('fm.publish', 'amq.topic', 'x', 'body') return redis.call('get', keys[1]) end)";
    assert_eq!(client.call(&["FUNCTION", "LOAD", text]), "lib");
    assert_eq!(client.call(&["FCALL", "put", "1", "k", "v"]), "v");
    assert_eq!(client.call(&["MULTI"]), "OK");
    client.call(&["FCALL", "put", "1", "k", "w"]);
    client.call(&["GET", "k"]);
    assert_eq!(client.call(&["EXEC"]), "[w w]");
    assert!(server.stop().success());
}

const ENDLESS: &str = "#!lua name=lib\nwhile true do end";

/// All loads of a transaction share their time: its thread has other connections, too.
#[test]
fn a_transaction_of_loads_that_do_not_end_ends() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let mut client = Client::connect(&server);
    assert_eq!(client.call(&["MULTI"]), "OK");
    for _ in 0..20 {
        assert_eq!(client.call(&["FUNCTION", "LOAD", ENDLESS]), "QUEUED");
    }
    let began = std::time::Instant::now();
    let answer = client.call(&["EXEC"]);
    assert_eq!(
        answer.matches("FUNCTION LOAD timeout").count(),
        20,
        "{answer}"
    );
    assert!(began.elapsed() < std::time::Duration::from_secs(4));
    assert!(server.stop().success());
}

/// All libraries of a transaction have the room of all libraries.
#[test]
fn a_transaction_does_not_keep_more_libraries_than_there_may_be() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let mut client = Client::connect(&server);
    let padding = "-".repeat(4_000_000);
    assert_eq!(client.call(&["MULTI"]), "OK");
    for n in 0..20 {
        let text =
            format!("#!lua name=lib\nredis.register_function('f{n}', function() end) --{padding}");
        assert_eq!(
            client.call(&["FUNCTION", "LOAD", "REPLACE", &text]),
            "QUEUED"
        );
    }
    let answer = client.call(&["EXEC"]);
    // Each alone would have room: it replaces the one before.
    let refused =
        answer.matches("a library has at most").count() + answer.matches("timeout").count();
    assert!(refused >= 4, "{answer}");
    assert!(server.stop().success());
}

/// Who loads keeps no script waiting.
#[test]
fn scripts_run_while_libraries_load() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let mut loaders: Vec<_> = (0..6).map(|_| Client::connect(&server)).collect();
    for loader in &mut loaders {
        loader.send(&["FUNCTION", "LOAD", ENDLESS]);
    }
    let mut client = Client::connect(&server);
    let began = std::time::Instant::now();
    assert_eq!(client.call(&["EVAL", "return 1", "0"]), "1");
    assert!(began.elapsed() < std::time::Duration::from_secs(2));
    for loader in &mut loaders {
        assert!(loader.reply().ends_with("FUNCTION LOAD timeout"));
    }
    assert!(server.stop().success());
}

/// A call that had to wait calls what is there when its turn comes.
#[test]
fn a_queued_call_finds_the_library_that_replaced_its_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let [mut runner, mut waiting, mut other] = Client::several(&server);
    assert_eq!(
        other.call(&["FUNCTION", "LOAD", &library("lib", "f", 1)]),
        "lib"
    );
    runner.send(&[
        "EVAL",
        "local s = os.clock() while os.clock() - s < 0.7 do end return 1",
        "0",
    ]);
    std::thread::sleep(std::time::Duration::from_millis(100));
    waiting.send(&["FCALL", "f", "0"]);
    std::thread::sleep(std::time::Duration::from_millis(100));
    let text = library("lib", "f", 2);
    assert_eq!(other.call(&["FUNCTION", "LOAD", "REPLACE", &text]), "lib");
    assert_eq!(waiting.reply(), "2");
    assert_eq!(runner.reply(), "1");
    assert!(server.stop().success());
}
