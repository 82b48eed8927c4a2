//! Scripts without a server: the sandbox, and what hostile ones try.

use std::sync::Arc;
use std::time::Duration;

use mlua::{Lua, MultiValue, Value};
use protocol_resp::Version;

use super::library::{self, load};
use super::sandbox::{self, Given, Host, LOAD_MAX};
use super::{Program, Script, Scripts, convert};
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
    match Script::parse(code.as_bytes()) {
        Ok(script) => run_program(scripts, watch, &Program::Script(Arc::new(script))),
        Err(fail) => fail.text().to_owned(),
    }
}

fn run_program(scripts: &Scripts, watch: &Arc<ScriptWatch>, program: &Program) -> String {
    run_within(MEMORY, scripts, watch, program)
}

fn run_within(
    memory: usize,
    scripts: &Scripts,
    watch: &Arc<ScriptWatch>,
    program: &Program,
) -> String {
    let mut host = Nobody(Vec::new());
    let given = Given {
        keys: vec![b"k"],
        args: vec![b"a"],
        seed: 1,
    };
    let done = sandbox::with(scripts, memory, |interpreter| {
        interpreter.run(program, &given, watch, &mut host)
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
    const READONLY: &str = "Attempt to modify a readonly table";
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
        watch.kill(false).expect("it has written nothing");
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

/// What loading a library with this code gives.
fn loaded(code: &str) -> Result<Arc<broker::functions::Library>, String> {
    load(
        format!("#!lua name=lib\n{code}").as_bytes(),
        MEMORY,
        LOAD_MAX,
    )
    .map(Arc::new)
    .map_err(|fail| fail.text().to_owned())
}

/// What the first function of a library with this code gives.
fn call(code: &str) -> String {
    match loaded(code) {
        Ok(library) => call_of(&library, &Arc::new(watch())),
        Err(text) => text,
    }
}

fn call_of(library: &Arc<broker::functions::Library>, watch: &Arc<ScriptWatch>) -> String {
    let program = Program::Function(Arc::clone(library), 0);
    run_program(&Scripts::default(), watch, &program)
}

#[test]
fn what_a_first_line_says() {
    let name = |text: &str| library::name(text.as_bytes()).map_err(|fail| fail.text().to_owned());
    for good in [
        "#!lua name=a_1\n",
        "#!LUA  NAME=\"a_1\" \n",
        "#!lua name='a_1'\nx",
    ] {
        assert_eq!(name(good).as_deref(), Ok("a_1"), "{good}");
    }
    for (bad, text) in [
        ("", "ERR Missing library metadata"),
        ("x\n", "ERR Missing library metadata"),
        ("#!lua name=a", "ERR Invalid library metadata"),
        ("#!lua name=\"a\n", "ERR Invalid library metadata"),
        ("#!lua\n", "ERR Library name was not given"),
        ("#! name=a\n", "ERR Engine '' not found"),
        ("#!js name=a\n", "ERR Engine 'js' not found"),
        ("#!lua name=a b\n", "ERR Invalid metadata value given: b"),
        (
            "#!lua name=a flags=b\n",
            "ERR Invalid metadata value given: flags=b",
        ),
    ] {
        assert_eq!(
            name(bad).as_ref().map_err(String::as_str),
            Err(text),
            "{bad:?}"
        );
    }
    assert!(name("#!lua name=a name=b\n").is_err_and(|text| text.contains("multiple times")));
    for bad in [
        "#!lua name=\n",
        "#!lua name=a-b\n",
        "#!lua name=\"a b\"\n",
        "#!lua name=\u{e9}\n",
    ] {
        assert!(
            name(bad).is_err_and(|text| text.contains("Library names can only")),
            "{bad}"
        );
    }
}

#[test]
fn a_library_sees_little_while_it_is_loaded_and_all_when_it_runs() {
    for name in [
        "math",
        "string",
        "pcall",
        "error",
        "_G",
        "getmetatable",
        "KEYS",
        "setfenv",
        "load",
        "cjson",
    ] {
        assert_eq!(
            loaded(&format!("return {name}")).err().as_deref(),
            Some(&*format!(
                "ERR Error registering functions: ERR user_function:2: Script attempted to access nonexistent global variable '{name}'"
            ))
        );
    }
    for name in [
        "call",
        "pcall",
        "setresp",
        "set_repl",
        "acl_check_cmd",
        "REPL_ALL",
    ] {
        let text = loaded(&format!("return redis.{name}"))
            .err()
            .unwrap_or_default();
        assert!(
            text.ends_with(&format!("nonexistent global variable '{name}'")),
            "{text}"
        );
    }
    for code in ["a = 1", "redis.a = 1", "redis = 1", "server.log = 1"] {
        let text = loaded(code).err().unwrap_or_default();
        assert!(
            text.ends_with("user_function:2: Attempt to modify a readonly table"),
            "{text}"
        );
    }
    assert_eq!(
        loaded("return redis.LOG_DEBUG, redis.REDIS_VERSION")
            .err()
            .as_deref(),
        Some("ERR No functions registered")
    );
    assert_eq!(
        call(
            "redis.register_function('f', function(k, a) return {#k, #a, math.floor(1.5), string.format('%d', 7), type(redis.call)} end)"
        ),
        "*5\r\n:1\r\n:1\r\n:1\r\n$1\r\n7\r\n$8\r\nfunction"
    );
    // A load that failed half way leaves nothing of itself.
    assert!(loaded("redis.register_function('g', function() end) x()").is_err());
    for (code, text) in [
        (
            "return KEYS",
            "nonexistent global variable 'KEYS' script: f, on @user_function:2.",
        ),
        (
            "x = 1",
            "user_function:2: Attempt to modify a readonly table script: f, on @user_function:2.",
        ),
        (
            "redis.register_function('g', function() end)",
            "attempt to call field 'register_function' (a nil value) script: f, on @user_function:2.",
        ),
        (
            "error('boom')",
            "ERR user_function:2: boom script: f, on @user_function:2.",
        ),
        (
            "return redis.call('x')",
            "ERR nobody answers script: f, on @user_function:2.",
        ),
    ] {
        let got = call(&format!(
            "redis.register_function('f', function() {code} end)"
        ));
        assert!(got.ends_with(text), "{code}: {got}");
    }
    let kept = "local r = redis redis.register_function('f', function() r.register_function('g', function() end) end)";
    assert!(
        call(kept).contains("redis.register_function can only be called on FUNCTION LOAD command")
    );
    // Scripts of EVAL see their keys again.
    assert_eq!(eval("return KEYS[1]"), "$1\r\nk");
}

#[test]
fn what_is_registered() {
    let library = loaded(
        "redis.register_function{function_name='a', callback=function() return 1 end, description='says', flags={'no-writes', 'ALLOW-OOM'}}
         server.register_function(5, function() return 2 end)",
    )
    .expect("loads");
    let names: Vec<_> = library
        .functions
        .iter()
        .map(|function| &*function.name)
        .collect();
    assert_eq!((&*library.name, names), ("lib", vec!["a", "5"]));
    let first = Program::Function(Arc::clone(&library), 0);
    assert!(first.no_writes());
    assert_eq!(
        library.functions[0].description.as_deref(),
        Some(b"says".as_slice())
    );
    for (given, text) in [
        ("", "wrong number of arguments to redis.register_function"),
        (
            "'f'",
            "calling redis.register_function with a single argument is only applicable to Lua table (representing named arguments).",
        ),
        (
            "'f', 1",
            "second argument to redis.register_function must be a function",
        ),
        (
            "nil, function() end",
            "first argument to redis.register_function must be a string",
        ),
        (
            "{}",
            "redis.register_function must get a function name argument",
        ),
        (
            "{function_name='f'}",
            "redis.register_function must get a callback argument",
        ),
        (
            "{function_name='f', callback=function() end, flags={'x'}}",
            "unknown flag given",
        ),
        (
            "{function_name='f', callback=function() end, flags={true}}",
            "unknown flag given",
        ),
        (
            "{function_name='f', callback=function() end, x=1}",
            "unknown argument given to redis.register_function",
        ),
        (
            "{[true]=1}",
            "named argument key given to redis.register_function is not a string",
        ),
    ] {
        assert_eq!(
            loaded(&format!("redis.register_function({given})")).err(),
            Some(format!("ERR Error registering functions: ERR {text}"))
        );
    }
    for name in ["", "a b", "a-b", "\\0"] {
        let text = loaded(&format!(
            "redis.register_function('{name}', function() end)"
        ))
        .err();
        assert!(
            text.is_some_and(|text| text.starts_with("ERR Function names can only")),
            "{name}"
        );
    }
    let twice = "redis.register_function('f', function() end)".repeat(2);
    assert_eq!(
        loaded(&twice).err().as_deref(),
        Some("ERR Function already exists in the library")
    );
    let text = loaded("x").err().unwrap_or_default();
    assert!(
        text.starts_with("ERR Error compiling function: user_function:2: "),
        "{text}"
    );
}

#[test]
fn hostile_libraries_end() {
    for code in [
        "while true do end",
        "local function f() return f() end f()",
        "local s = ('x') while true do s = s .. s end",
        "local t = {} while true do t[#t + 1] = {} end",
        "local d = ('x'):rep(1000000) for i = 1, 1000 do redis.register_function{function_name='f' .. i, callback=function() end, description=d} end",
        "for i = 1, 1000000 do redis.register_function('f' .. i, function() end) end",
        "redis.register_function(('x'):rep(100000000), function() end)",
        "local t = {} for i = 1, 100000 do t[i] = 'no-writes' end redis.register_function{function_name='f', callback=function() end, flags=t}",
        "local function f() f() end f()",
    ] {
        let text = loaded(code).err().unwrap_or_default();
        assert!(
            text.starts_with("ERR Error registering functions: ERR "),
            "{code}: {text}"
        );
    }
    let text = loaded("while true do end").err().unwrap_or_default();
    assert_eq!(
        text,
        "ERR Error registering functions: ERR FUNCTION LOAD timeout"
    );
    assert!(
        load(&vec![b'#'; 5 << 20], MEMORY, LOAD_MAX)
            .is_err_and(|fail| fail.text().contains("at most"))
    );
    // And the interpreter is whole.
    assert_eq!(
        call("redis.register_function('f', function() return 1 end)"),
        ":1"
    );
    assert_eq!(eval("return math.floor(2.5)"), ":2");
}

#[test]
fn a_killed_function_ends_and_its_library_stays() {
    let library = loaded(
        "local n = 0
         redis.register_function('f', function() n = n + 1 while n < 2 do pcall(function() while true do end end) end return n end)",
    )
    .expect("loads");
    let watch = Arc::new(watch());
    watch.begin_function("f", std::iter::empty());
    watch.kill(true).expect("it has written nothing");
    let got = call_of(&library, &watch);
    assert!(
        got.starts_with("-ERR Script killed by user with FUNCTION KILL. script: f")
            || got.starts_with("ERR Script killed by user with FUNCTION KILL. script: f"),
        "{got}"
    );
    watch.end();
    watch.begin_function("f", std::iter::empty());
    assert_eq!(call_of(&library, &watch), ":2");
    watch.end();
}

#[test]
fn a_library_that_is_replaced_is_loaded_anew() {
    let function = |n: u32| {
        loaded(&format!(
            "redis.register_function('f', function() return {n} end)"
        ))
        .expect("loads")
    };
    let (one, two, watch) = (function(1), function(2), Arc::new(watch()));
    for (library, answer) in [(&one, ":1"), (&two, ":2"), (&two, ":2"), (&one, ":1")] {
        assert_eq!(call_of(library, &watch), answer);
    }
}

/// What one library leaves behind does not stay when it is replaced.
#[test]
fn libraries_that_are_gone_are_forgotten() {
    let (scripts, watch) = (Scripts::default(), Arc::new(watch()));
    let library = |n: u32| {
        let text = format!(
            "#!lua name=lib{n}\nlocal big = ('x'):rep(1000000) .. {n} redis.register_function('f', function() return #big end)"
        );
        Arc::new(load(text.as_bytes(), MEMORY, LOAD_MAX).expect("loads"))
    };
    for n in 10..60 {
        let program = Program::Function(library(n), 0);
        assert_eq!(run_program(&scripts, &watch, &program), ":1000002");
    }
    sandbox::with(&scripts, MEMORY, |interpreter| {
        assert_eq!(interpreter.libraries(), 1);
        Ok(())
    })
    .expect("an interpreter");
}

/// A library that needs much is not loaded for each call.
#[test]
fn a_large_library_stays_loaded() {
    const LARGE: usize = 4 * MEMORY;
    let text = "#!lua name=lib
        local big, n = {}, 0
        for i = 1, 40 do big[i] = ('x'):rep(1000000) .. i end
        redis.register_function('f', function() n = n + #big - 39 return n end)";
    let library = Arc::new(load(text.as_bytes(), LARGE, LOAD_MAX * 10).expect("loads"));
    let (scripts, watch) = (Scripts::default(), Arc::new(watch()));
    let program = Program::Function(library, 0);
    for n in 1..4 {
        let got = run_within(LARGE, &scripts, &watch, &program);
        assert_eq!(got, format!(":{n}"), "it counts on");
    }
}

/// As many functions as a library may have, in several libraries.
#[test]
fn many_functions_are_loaded_at_once() {
    let (scripts, watch) = (Scripts::default(), Arc::new(watch()));
    for name in ["a", "b", "c"] {
        let text = format!(
            "#!lua name={name}\nfor i = 1, 9999 do redis.register_function('f' .. i, function() return i end) end"
        );
        let library = Arc::new(load(text.as_bytes(), MEMORY, LOAD_MAX * 10).expect("loads"));
        let program = Program::Function(library, 9998);
        assert_eq!(run_program(&scripts, &watch, &program), ":9999");
        let again = Program::Function(
            loaded("redis.register_function('g', function() return 1 end)").expect("loads"),
            0,
        );
        assert_eq!(run_program(&scripts, &watch, &again), ":1");
    }
}

/// Nothing in C, which does not look at the clock, keeps a load from ending.
#[test]
fn functions_of_strings_end_with_the_load() {
    for code in [
        "local s, p = ('a'):rep(10000), ('.-'):rep(8) .. 'b' s:find(p)",
        "local s = ('a'):rep(3000) s:gsub(('a*'):rep(10) .. 'b', '')",
        "local s = ('a'):rep(10000) for _ in s:gmatch(('a-'):rep(8) .. 'b') do end",
        "local s = ('a'):rep(1000000) s:find(('a'):rep(500000) .. 'b', 1, true)",
        "local s = ('') s:rep(2000000000)",
        "while true do local s = ('x'):rep(20000000) end",
        "local s = ('x'):rep(20000000) while true do local t = s .. 'y' end",
        "local s = ('x'):rep(20000000) while true do s:upper() end",
    ] {
        let began = std::time::Instant::now();
        let text = loaded(code).err().unwrap_or_default();
        assert!(
            text.contains("too much work")
                || text.contains("LOAD timeout")
                || text.contains("not enough memory"),
            "{code}: {text}"
        );
        // Half a second, one call, and other tests beside.
        assert!(began.elapsed() < Duration::from_secs(5), "{code}");
    }
    // What libraries do while they are loaded goes on.
    assert_eq!(
        call(
            "local n = 0 for word in ('a,b,c'):gmatch('[^,]+') do n = n + #word end
             local find = ('').find
             redis.register_function('f', function() return n + find(('x'):rep(30000) .. 'b', '.-b') end)"
        ),
        ":4"
    );
}

/// What a library keeps of one call serves the next one.
#[test]
fn a_kept_call_goes_on_to_work() {
    let library = loaded(
        "local call
         redis.register_function('f', function() call = call or redis.pcall return call('x') end)",
    )
    .expect("loads");
    for _ in 0..3 {
        assert_eq!(call_of(&library, &Arc::new(watch())), "-ERR nobody answers");
    }
}
