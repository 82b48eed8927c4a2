//! Scripts without a server: the sandbox, and what hostile ones try.

use std::sync::Arc;
use std::time::Duration;

use mlua::{Lua, MultiValue, Value};
use protocol_resp::Version;

use super::sandbox::{self, Given, Host};
use super::{Script, Scripts, convert};
use crate::script_watch::ScriptWatch;

const MEMORY: usize = 64 << 20;

struct Nobody(Vec<u8>);

impl Host for Nobody {
    fn call(&mut self, _: &Lua, _: Version, _: &MultiValue) -> mlua::Result<Result<Value, String>> {
        Ok(Err("ERR nobody answers".to_owned()))
    }

    fn may(&mut self, _: &MultiValue) -> Result<bool, String> {
        Ok(false)
    }

    fn reply(&mut self, version: Version, value: &Value) -> mlua::Result<()> {
        convert::to_reply(value, version, Version::Resp2, &mut self.0)
    }
}

fn run(scripts: &Scripts, watch: &Arc<ScriptWatch>, code: &str) -> String {
    let script = match Script::parse(code.as_bytes()) {
        Ok(script) => script,
        Err(fail) => return fail.text().to_owned(),
    };
    let mut host = Nobody(Vec::new());
    let given = Given {
        keys: vec![b"k"],
        args: vec![b"a"],
        seed: 1,
    };
    let done = sandbox::with(scripts, MEMORY, |interpreter| {
        interpreter.run(&script, &given, watch, &mut host)
    });
    match done {
        Ok(()) => String::from_utf8_lossy(&host.0).trim_end().to_owned(),
        Err(fail) => fail.text().to_owned(),
    }
}

fn watch() -> ScriptWatch {
    ScriptWatch::new(Duration::from_secs(5))
}

fn eval(code: &str) -> String {
    run(&Scripts::default(), &Arc::new(watch()), code)
}

fn fails_with(code: &str, text: &str) {
    let got = eval(code);
    assert!(got.contains(text), "{code}\n{got}");
}

#[test]
fn values_and_errors() {
    assert_eq!(
        eval("return {KEYS[1], ARGV[1], 1.9, false}"),
        "*4\r\n$1\r\nk\r\n$1\r\na\r\n:1\r\n$-1"
    );
    fails_with("\nreturn redis.call('x')", "ERR nobody answers script: ");
    fails_with("\nreturn redis.call('x')", ", on @user_script:2.");
    fails_with("error('boom')", "ERR user_script:1: boom script: ");
    assert_eq!(eval("return redis.pcall('x')"), "-ERR nobody answers");
    assert_eq!(
        eval("return {xpcall(function() redis.call('x') end, function(e) return e.err end)}"),
        "*2\r\n$-1\r\n$18\r\nERR nobody answers"
    );
    assert_eq!(
        eval(
            "return select(2, coroutine.resume(coroutine.create(function() redis.call('x') end)))"
        ),
        "-ERR nobody answers"
    );
}

/// Nothing that a script does to its tables is there for the next one.
#[test]
fn what_scripts_share_cannot_be_changed() {
    const READONLY: &str = "Attempted to modify a readonly table";
    let (scripts, watch) = (Scripts::default(), Arc::new(watch()));
    for code in [
        "x = 1",
        "_G.x = 1",
        "rawset(_G, 'x', 1)",
        "redis.call = nil",
        "redis.pcall = nil",
        "rawset(string, 'format', 1)",
        "table.insert(string, 1)",
        "table.sort(redis)",
        "table.remove(math)",
        "setmetatable(string, {})",
        "setmetatable(_G, {})",
        "getfenv(0).x = 1",
        "getfenv(pairs).x = 1",
        "getfenv(redis.call).x = 1",
        "getfenv(pcall).x = 1",
        "getfenv(1).x = 1",
        "coroutine.wrap(function() getfenv(0).x = 1 end)()",
        "loadstring('x = 1')()",
        "cjson.new = 1",
    ] {
        let got = run(&scripts, &watch, code);
        assert!(got.contains(READONLY), "{code}: {got}");
    }
    for code in [
        "setfenv(0, {})",
        "getmetatable('').__index = {}",
        "getmetatable(_G).__index = nil",
        "string.sub = 1",
    ] {
        let got = run(&scripts, &watch, code);
        assert!(got.starts_with("ERR"), "{code}: {got}");
    }
    // A script's own environment lasts as long as its run.
    let own = "setfenv(1, {}) return redis == nil";
    assert_eq!(run(&scripts, &watch, own), ":1");
    assert_eq!(run(&scripts, &watch, own), ":1");
    let limits = "cjson.encode_max_depth(1) math.randomseed(7) collectgarbage('stop') return 1";
    assert_eq!(run(&scripts, &watch, limits), ":1");
    assert_eq!(
        run(
            &scripts,
            &watch,
            "return {type(x), cjson.encode({{{}}}), ('a'):rep(2), #redis.sha1hex('')}"
                .replace("type(x)", "rawget(_G, 'x') == nil")
                .as_str()
        ),
        "*4\r\n:1\r\n$6\r\n[[{}]]\r\n$2\r\naa\r\n:40"
    );
}

#[test]
fn nothing_of_the_outside_is_there() {
    for name in [
        "io",
        "os.execute",
        "os.getenv",
        "package",
        "require",
        "dofile",
        "loadfile",
        "print",
        "debug",
        "newproxy",
        "module",
        "string.nothing",
        "jit",
        "ffi",
    ] {
        let code = format!("return pcall(function() local x = {name} assert(x) end)");
        assert_eq!(eval(&code), "$-1", "{name}");
    }
    assert_eq!(
        eval("return loadstring(string.dump(function() end))"),
        "$-1"
    );
    assert_eq!(eval("return loadstring('\\27Lua')"), "$-1");
    assert_eq!(
        eval(
            "local code = string.dump(function() end) return load(function() local c = code code = nil return c end)"
        ),
        "$-1"
    );
}

/// One per class of past holes in Redis' Lua.
#[test]
fn hostile_scripts() {
    let (scripts, watch) = (Scripts::default(), Arc::new(watch()));
    // CVE-2025-49844: the chunk's name is collected while the parser reads.
    let parser = "local n = 0
        for round = 1, 20 do
            n = 0
            local f = load(function()
                n = n + 1
                collectgarbage()
                local waste = {} for i = 1, 100 do waste[i] = ('n'):rep(i) .. n .. round end
                if n < 20 then return ' local a' .. n .. ' = ' .. n end
            end)
            f()
        end
        return n";
    assert_eq!(run(&scripts, &watch, parser), ":20");
    // CVE-2025-46817: ranges that overflow 32 bits.
    for range in [
        "0, 2147483647",
        "-2147483648, 2147483647",
        "1, 1e308",
        "2147483647, 2147483648 * 2",
    ] {
        let got = run(&scripts, &watch, &format!("return unpack({{}}, {range})"));
        assert!(got.contains("too many results to unpack"), "{range}: {got}");
    }
    // CVE-2024-31449: the library of bits.
    assert_eq!(
        run(&scripts, &watch, "return bit.tohex(255, -2147483648)"),
        "$8\r\n000000FF"
    );
    // CVE-2020-14147 and its like: sizes of struct.
    for code in [
        "return struct.pack('>i2147483648', 1)",
        "return struct.unpack('c2147483647', 'x')",
        "return struct.unpack('i4', 'abcd', 2147483647)",
        "return struct.unpack('Lc0', struct.pack('L', 2^63))",
        "return struct.unpack('b', 'x', -1)",
        "return struct.pack('!2147483647i4', 1)",
        "return cmsgpack.unpack('\\221\\255\\255\\255\\255')",
        "return cmsgpack.unpack(('\\145'):rep(100000))",
        "return cmsgpack.unpack_limit('a', 2147483647, 2147483647)",
        "return cjson.decode(('['):rep(100000))",
        "return cjson.decode(('{\"a\":'):rep(100000))",
        "local t = {} t[1] = t return cjson.encode(t)",
        "local t = {} t[1] = t cjson.encode_max_depth(2147483647) return cjson.encode(t)",
        "local function f() return f() + 1 end return f()",
        "local s = '' for i = 1, 300 do s = s .. '(' end return loadstring(s)()",
        "return string.format('%1000d', 1)",
        "local t = setmetatable({}, {__index = function(t, k) return t[k] end}) return t.x",
        "return string.gsub('x', 'x', function() return string.gsub('x', 'x', function() error({}) end) end)",
    ] {
        let got = run(&scripts, &watch, code);
        assert!(got.starts_with("ERR"), "{code}: {got}");
    }
    // A pattern as deep as C's stack (no number, but every engine of Lua 5.1).
    for name in ["find", "match", "gmatch", "gsub"] {
        let code = format!("for _ in string.{name}(('a'):rep(1e6), ('a?'):rep(5e5), '') do end");
        let got = run(&scripts, &watch, &code);
        assert!(got.contains("pattern too complex"), "{name}: {got}");
    }
    let long = "return (('a'):rep(5000)):find(('a'):rep(4000))";
    assert_eq!(run(&scripts, &watch, long), ":1");
    // A table within itself is a reply with an end.
    let got = run(&scripts, &watch, "local t = {} t[1] = t return t");
    assert!(got.contains("reached lua stack limit"), "{got}");
    assert_eq!(run(&scripts, &watch, "return 1"), ":1");
}

#[test]
fn memory_ends() {
    let (scripts, watch) = (Scripts::default(), Arc::new(watch()));
    for code in [
        "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1e6) .. i end",
        "return ('x'):rep(1e10)",
        "local s = 'x' while true do s = s .. s end",
        "local t = {} for i = 1, 1e9 do t[i] = {} end",
        "return table.concat({('x'):rep(1e8), ('y'):rep(1e8), ('z'):rep(1e8)})",
    ] {
        let got = run(&scripts, &watch, code);
        assert!(got.contains("not enough memory"), "{code}: {got}");
        assert_eq!(run(&scripts, &watch, "return 1"), ":1", "after {code}");
    }
    sandbox::with(&scripts, MEMORY, |interpreter| {
        assert!(interpreter.memory() <= 32 << 20, "{}", interpreter.memory());
        Ok(())
    })
    .expect("an interpreter");
}

/// Whatever a script catches, a kill it does not.
#[test]
fn a_killed_script_ends() {
    for code in [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "while true do xpcall(function() while true do end end, function() end) end",
        "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
        "local w = coroutine.wrap(function() while true do end end) while true do pcall(w) end",
        "while true do pcall(string.gsub, ('x'):rep(100), 'x', function() while true do end end) end",
        "while true do pcall(table.sort, {1, 2, 3}, function() while true do end end) end",
        "local f f = function() pcall(f) while true do end end f()",
    ] {
        let watch = Arc::new(watch());
        watch.begin();
        watch.kill().expect("it has written nothing");
        let got = run(&Scripts::default(), &watch, code);
        assert!(
            got.contains("Script killed by user with SCRIPT KILL..."),
            "{code}: {got}"
        );
    }
}

#[test]
fn digests_and_headers() {
    let digest = super::digest(b"return 1");
    assert_eq!(
        super::hex(&digest),
        "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"
    );
    assert_eq!(
        super::parse_digest(super::hex(&digest).to_ascii_uppercase().as_bytes()),
        Some(digest)
    );
    for text in ["", "x", "e0e1", "g0e1f9fabfc9d4800c877a703b823ac0578ff8db"] {
        assert_eq!(super::parse_digest(text.as_bytes()), None, "{text}");
    }
    assert_eq!(eval("#!lua flags=no-writes,allow-oom\nreturn 1"), ":1");
    assert_eq!(
        eval("#!lua flags=,\nreturn 1"),
        "ERR Unexpected flag in script shebang: "
    );
    assert_eq!(eval("#!lua"), "ERR Invalid script shebang");
}

#[test]
fn scripts_of_eval_make_room_for_others() {
    let scripts = Scripts::default();
    let nth = |n: usize| Arc::new(Script::parse(format!("return {n}").as_bytes()).expect("text"));
    scripts.remember(nth(0), true).expect("room");
    scripts.remember(nth(1), false).expect("room");
    // Loaded later: it stays.
    scripts.remember(nth(2), false).expect("room");
    scripts.remember(nth(2), true).expect("room");
    for n in 3..1000 {
        scripts.remember(nth(n), false).expect("room");
    }
    let known = |n| scripts.get(&nth(n).digest).is_some();
    assert!(known(0) && !known(1) && known(2) && !known(300) && known(999));
    scripts.flush();
    assert!(!known(0) && !known(999));
}
