//! The interpreter: what a script sees, how it is compiled, run and ended.
//!
//! One per thread, since all scripts of a thread follow each other. What they share (the libraries, the metatable of strings) they
//! cannot change: see `prelude.lua`. Lua's own parser trusts that the name of a chunk stays in memory while it reads
//! (CVE-2025-49844), and its loader trusts bytecode: so `load` is ours, reads text only, and names are kept.
//!
//! A library of functions is loaded on each thread that calls one, when it does so first: what it keeps between calls is its
//! thread's, and goes with the interpreter.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::functions::Library;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use mlua::chunk::ChunkMode;
use mlua::{Function, HookTriggers, Lua, LuaOptions, MultiValue, StdLib, Table, Value, VmState};

use protocol_resp::Version;

use super::api::{
    self, Outcome, Raised, Trouble, error_table, integer_at, library, one, string_at,
};
use super::library::{self as libraries, Registered};
use super::{Digest20, Program, Script, Scripts, bits, json, msgpack, structs};
use crate::resp::fail::{Fail, lossy};
use crate::script_watch::{ScriptWatch, Verdict};

/// An interpreter that holds more than this between two scripts is thrown away.
const MEMORY_KEPT: usize = 32 << 20;
/// Compiled scripts of an interpreter; with more it is thrown away.
const COMPILED_MAX: usize = 2048;
/// Instructions between two looks at the clock, as in Redis.
const LOOK_EVERY: u32 = 100_000;
/// Octets that `load` reads from its function.
const CHUNK_MAX: usize = 16 << 20;

/// The name of every script, which Lua strips of its first letter in messages.
const CHUNK: &str = "@user_script";
/// The name of every library.
const LIBRARY: &str = "@user_function";
/// How long a library may take to register its functions, as in Redis.
const LOAD_MAX: Duration = Duration::from_millis(500);
const KILLED: &str = "Script killed by user with SCRIPT KILL...";
const FUNCTION_KILLED: &str = "Script killed by user with FUNCTION KILL.";
const PRELUDE: &str = "=flowmesh";

/// What functions of the interpreter know about the run.
#[derive(Debug)]
pub(super) struct Now {
    /// A script's digest, or a function's name.
    script: RefCell<String>,
    is_function: Cell<bool>,
    /// While a library is loaded.
    pub(super) loading: RefCell<Option<Loading>>,
    /// State of `math.random`: 48 bits.
    random: Cell<u64>,
    killed: Cell<bool>,
    started: Instant,
    watch: RefCell<Option<Arc<ScriptWatch>>>,
    json: Rc<Cell<json::Settings>>,
    /// The protocol that the script has chosen.
    pub(super) version: Cell<Version>,
}

/// A library that is being loaded.
#[derive(Debug)]
pub(super) struct Loading {
    until: Instant,
    pub(super) registered: Vec<Registered>,
    /// Octets of names and descriptions.
    pub(super) bytes: usize,
}

/// A library that was loaded, with what its functions call.
struct Loaded {
    library: Arc<Library>,
    callbacks: Vec<Function>,
}

impl Now {
    fn killed_text(&self) -> &'static str {
        if self.is_function.get() {
            FUNCTION_KILLED
        } else {
            KILLED
        }
    }

    /// A library has had its time.
    fn is_late(&self) -> bool {
        let loading = self.loading.borrow();
        loading
            .as_ref()
            .is_some_and(|loading| Instant::now() >= loading.until)
    }
}

/// See the module.
pub(crate) struct Interpreter {
    lua: Lua,
    now: Rc<Now>,
    /// Where scripts' globals are looked up.
    environment: Table,
    /// The table behind it, for `KEYS` and `ARGV`.
    globals: Table,
    /// The table `redis`, where `call` is another one in each run.
    redis: Table,
    /// Where libraries' globals are looked up: in what the `__index` of `behind` is, `globals` or `loading`.
    library: Table,
    behind: Table,
    loading: Table,
    run: Function,
    call: Function,
    compiled: HashMap<Digest20, Function, RandomState>,
    libraries: HashMap<Arc<str>, Loaded, RandomState>,
    /// It could not be put back as it must be.
    broken: bool,
    generation: u64,
}

impl std::fmt::Debug for Interpreter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interpreter").finish_non_exhaustive()
    }
}

thread_local! {
    static OF_THREAD: RefCell<Option<Interpreter>> = const { RefCell::new(None) };
}

/// The interpreter's end of a run: what the script calls.
pub(crate) trait Host {
    /// `redis.call` and `redis.pcall`, with replies of this version: the reply, or the error's text.
    fn call(
        &mut self,
        lua: &Lua,
        version: Version,
        given: &MultiValue,
    ) -> mlua::Result<Result<Value, String>>;
    /// `redis.acl_check_cmd`.
    fn may(&mut self, given: &MultiValue) -> Result<bool, String>;
    /// What the script returned, as a reply.
    fn reply(&mut self, version: Version, value: &Value) -> mlua::Result<()>;
}

/// What a script is given.
#[derive(Debug)]
pub(crate) struct Given<'a> {
    pub(crate) keys: Vec<&'a [u8]>,
    pub(crate) args: Vec<&'a [u8]>,
    pub(crate) seed: u64,
}

/// Does something with the thread's interpreter, which is made when it is needed, and anew after `SCRIPT FLUSH`. It may take
/// `memory` octets; beyond it a script fails with Lua's `not enough memory`.
pub(crate) fn with<T>(
    scripts: &Scripts,
    memory: usize,
    run: impl FnOnce(&mut Interpreter) -> Result<T, Fail>,
) -> Result<T, Fail> {
    on_thread(Some(scripts.generation()), memory, run)
}

/// The same for what no `SCRIPT FLUSH` concerns.
pub(super) fn with_any<T>(
    memory: usize,
    run: impl FnOnce(&mut Interpreter) -> Result<T, Fail>,
) -> Result<T, Fail> {
    on_thread(None, memory, run)
}

fn on_thread<T>(
    generation: Option<u64>,
    memory: usize,
    run: impl FnOnce(&mut Interpreter) -> Result<T, Fail>,
) -> Result<T, Fail> {
    let kept = OF_THREAD.with(|kept| kept.borrow_mut().take());
    let mut interpreter = match kept {
        Some(kept)
            if generation.is_none_or(|wanted| kept.generation == wanted) && kept.is_light() =>
        {
            kept
        }
        _ => Interpreter::new(generation.unwrap_or_default(), memory).map_err(|error| {
            tracing::error!(%error, "cannot start Lua");
            Fail::Text("ERR cannot start Lua")
        })?,
    };
    let done = run(&mut interpreter);
    OF_THREAD.with(|kept| *kept.borrow_mut() = Some(interpreter));
    done
}

/// The innermost cause, without Rust's words around it.
fn message(error: &mlua::Error) -> String {
    match error {
        mlua::Error::CallbackError { cause, .. } | mlua::Error::WithContext { cause, .. } => {
            message(cause)
        }
        mlua::Error::RuntimeError(text) => text.clone(),
        mlua::Error::MemoryError(_) => "not enough memory".to_owned(),
        mlua::Error::SyntaxError { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

/// The script has changed memory, and its record is not in the log: ending the process undoes it, as Redis' SHUTDOWN NOSAVE does.
fn abandon() -> ! {
    tracing::error!("a script that has written does not end, and is undone with the process");
    std::process::exit(1);
}

fn busy() -> mlua::Error {
    mlua::Error::runtime("redis.call inside of itself")
}

/// The text of an error that scripts see as a table.
fn raised_text(error: &mlua::Error) -> Option<&str> {
    match error {
        mlua::Error::CallbackError { cause, .. } => raised_text(cause),
        mlua::Error::ExternalError(error) => error
            .downcast_ref::<Raised>()
            .map(|raised| raised.0.as_str()),
        _ => None,
    }
}

impl Interpreter {
    fn new(generation: u64, memory: usize) -> mlua::Result<Self> {
        let lua = Lua::new_with(
            StdLib::STRING | StdLib::TABLE | StdLib::MATH,
            LuaOptions::new(),
        )?;
        lua.set_memory_limit(memory)?;
        let now = Rc::new(Now {
            script: RefCell::default(),
            is_function: Cell::default(),
            loading: RefCell::default(),
            random: Cell::default(),
            killed: Cell::default(),
            started: Instant::now(),
            watch: RefCell::default(),
            json: Rc::default(),
            version: Cell::new(Version::Resp2),
        });
        // See the module: the names that the parser is given by us.
        lua.set_named_registry_value(
            "names",
            lua.create_sequence_from([CHUNK, LIBRARY, PRELUDE, "=(load)"])?,
        )?;
        let rust = functions(&lua, &now)?;
        let made: Table = lua
            .load(include_str!("prelude.lua"))
            .set_name(PRELUDE)
            .set_mode(ChunkMode::Text)
            .call(&rust)?;
        let environment: Table = made.get("environment")?;
        lua.set_named_registry_value("environment", &environment)?;
        let looking = Rc::clone(&now);
        lua.set_global_hook(
            HookTriggers::new().every_nth_instruction(LOOK_EVERY),
            move |_, _| {
                let watch = looking.watch.borrow();
                let verdict = watch.as_ref().map(|watch| watch.look());
                match verdict {
                    Some(Verdict::End) => looking.killed.set(true),
                    Some(Verdict::Abandon) => abandon(),
                    _ => {}
                }
                if looking.killed.get() {
                    return Err(mlua::Error::runtime(looking.killed_text()));
                }
                if looking.is_late() {
                    let late = "ERR FUNCTION LOAD timeout".to_owned();
                    return Err(mlua::Error::external(Raised(late)));
                }
                Ok(VmState::Continue)
            },
        )?;
        Ok(Self {
            lua,
            now,
            environment,
            globals: made.get("globals")?,
            redis: made.get("redis")?,
            library: made.get("library")?,
            behind: made.get("behind")?,
            loading: made.get("loading")?,
            run: made.get("run")?,
            call: made.get("call")?,
            compiled: HashMap::default(),
            libraries: HashMap::default(),
            broken: false,
            generation,
        })
    }

    fn is_light(&self) -> bool {
        !self.broken
            && self.compiled.len() + self.libraries.len() <= COMPILED_MAX
            && (self.lua.used_memory() <= MEMORY_KEPT
                || (self.lua.gc_collect().is_ok() && self.lua.used_memory() <= MEMORY_KEPT))
    }

    /// Octets that it takes.
    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        self.lua.used_memory()
    }

    /// Compiles a script, unless it is.
    pub(crate) fn compile(&mut self, script: &Script) -> Result<Function, Fail> {
        if let Some(known) = self.compiled.get(&script.digest) {
            return Ok(known.clone());
        }
        let function = self
            .lua
            .load(script.code())
            .set_name(CHUNK)
            .set_mode(ChunkMode::Text)
            .set_environment(self.environment.clone())
            .into_function()
            .map_err(|error| {
                Fail::Owned(format!(
                    "ERR Error compiling script (new function): {}",
                    message(&error).replace(['\r', '\n'], " ")
                ))
            })?;
        self.compiled.insert(script.digest, function.clone());
        Ok(function)
    }

    /// Runs a library's text: what it registers.
    pub(crate) fn register(&mut self, text: &[u8]) -> Result<Vec<Registered>, Fail> {
        let chunk = self
            .lua
            .load(libraries::code(text))
            .set_name(LIBRARY)
            .set_mode(ChunkMode::Text)
            .set_environment(self.library.clone())
            .into_function()
            .map_err(|error| {
                Fail::Owned(format!(
                    "ERR Error compiling function: {}",
                    message(&error).replace(['\r', '\n'], " ")
                ))
            })?;
        self.now.killed.set(false);
        self.now.loading.replace(Some(Loading {
            until: Instant::now() + LOAD_MAX,
            registered: Vec::new(),
            bytes: 0,
        }));
        let done = self
            .behind
            .raw_set("__index", &self.loading)
            .and_then(|()| self.run.call::<(bool, Value)>(chunk));
        self.broken |= self.behind.raw_set("__index", &self.globals).is_err();
        let loading = self.now.loading.take();
        let why = match done {
            Ok((true, _)) => return Ok(loading.map_or_else(Vec::new, |done| done.registered)),
            // Lua itself says this, without asking the handler.
            Ok((false, Value::String(text))) if &*text.as_bytes() == b"not enough memory" => {
                "ERR not enough memory".to_owned()
            }
            Ok((false, Value::String(text))) => text.to_string_lossy(),
            Ok(_) => "ERR unknown error".to_owned(),
            Err(error) => format!("ERR {}", message(&error)),
        };
        Err(Fail::Owned(format!(
            "ERR Error registering functions: {}",
            why.replace(['\r', '\n'], " ")
        )))
    }

    /// What a function calls, from its library, which is loaded if it is not.
    fn callback(&mut self, library: &Arc<Library>, place: usize) -> Result<Function, Fail> {
        const UNREGISTERED: Fail =
            Fail::Text("ERR the library does not register this function any more");
        let known = self.libraries.get(&library.name);
        if known.is_none_or(|known| !Arc::ptr_eq(&known.library, library)) {
            self.libraries.remove(&library.name);
            let mut registered = self.register(&library.text)?;
            let mut callbacks = Vec::with_capacity(library.functions.len());
            for function in &library.functions {
                let name = function.name.as_bytes();
                let found = registered.iter().position(|one| one.name == name);
                callbacks.push(registered.swap_remove(found.ok_or(UNREGISTERED)?).callback);
            }
            let library = Arc::clone(library);
            let name = Arc::clone(&library.name);
            self.libraries.insert(name, Loaded { library, callbacks });
        }
        let known = self.libraries.get(&library.name);
        let callback = known.and_then(|known| known.callbacks.get(place));
        callback.cloned().ok_or(UNREGISTERED)
    }

    /// Runs a script or function, and hands what it returns to `host`.
    pub(crate) fn run(
        &mut self,
        program: &Program,
        given: &Given<'_>,
        watch: &Arc<ScriptWatch>,
        host: &mut impl Host,
    ) -> Result<(), Fail> {
        let function = match program {
            Program::Script(script) => self.compile(script)?,
            Program::Function(library, place) => self.callback(library, *place)?,
        };
        self.now.script.replace(program.name());
        self.now.is_function.set(program.is_function());
        self.now.random.set(given.seed);
        self.now.killed.set(false);
        self.now.json.take();
        self.now.version.set(Version::Resp2);
        self.now.watch.replace(Some(Arc::clone(watch)));
        let done = self.protected(&function, given, host);
        self.now.watch.replace(None);
        match done {
            Ok(Ok(())) => Ok(()),
            Ok(Err(text)) => Err(Fail::Owned(text)),
            Err(error) => Err(Fail::Owned(format!(
                "ERR Error running script {}, {}",
                self.now.script.borrow(),
                lossy(message(&error).replace(['\r', '\n'], " ").as_bytes(), 100)
            ))),
        }
    }

    fn protected(
        &self,
        function: &Function,
        given: &Given<'_>,
        host: &mut impl Host,
    ) -> mlua::Result<Result<(), String>> {
        let lua = &self.lua;
        let (keys, args) = (list(lua, &given.keys)?, list(lua, &given.args)?);
        let is_function = self.now.is_function.get();
        if is_function {
            self.globals.raw_set("KEYS", Value::Nil)?;
            self.globals.raw_set("ARGV", Value::Nil)?;
        } else {
            self.globals.raw_set("KEYS", &keys)?;
            self.globals.raw_set("ARGV", &args)?;
            // Whatever `setfenv` did the last time.
            function.set_environment(self.environment.clone())?;
        }
        let host = RefCell::new(host);
        let (done, value) = lua.scope(|scope| {
            let version = &self.now.version;
            self.redis.raw_set(
                "call",
                scope.create_function(|lua, given: MultiValue| {
                    let mut host = host.try_borrow_mut().map_err(|_| busy())?;
                    let called = host.call(lua, version.get(), &given)?;
                    called.map_err(|text| mlua::Error::external(Raised(text)))
                })?,
            )?;
            self.redis.raw_set(
                "pcall",
                scope.create_function(|lua, given: MultiValue| {
                    let mut host = host.try_borrow_mut().map_err(|_| busy())?;
                    match host.call(lua, version.get(), &given)? {
                        Ok(value) => Ok(value),
                        Err(text) => error_table(lua, &text),
                    }
                })?,
            )?;
            self.redis.raw_set(
                "acl_check_cmd",
                scope.create_function(|_, given: MultiValue| {
                    let mut host = host.try_borrow_mut().map_err(|_| busy())?;
                    host.may(&given)
                        .map_err(|text| mlua::Error::external(Raised(text)))
                })?,
            )?;
            if is_function {
                self.call.call::<(bool, Value)>((function, keys, args))
            } else {
                self.run.call::<(bool, Value)>(function)
            }
        })?;
        if !done {
            return Ok(Err(match value {
                Value::String(text) => text.to_string_lossy(),
                _ => "ERR unknown error".to_owned(),
            }));
        }
        host.into_inner().reply(self.now.version.get(), &value)?;
        Ok(Ok(()))
    }
}

/// `KEYS` and `ARGV`.
fn list(lua: &Lua, values: &[&[u8]]) -> mlua::Result<Table> {
    let table = lua.create_table_with_capacity(values.len(), 0)?;
    for (value, place) in values.iter().zip(1_usize..) {
        table.raw_set(place, lua.create_string(value)?)?;
    }
    Ok(table)
}

/// `{err = …}`, a text or whatever else was raised, as the client is told.
fn describe(lua: &Lua, now: &Now, raised: &Value) -> mlua::Result<String> {
    let text = match raised {
        // Whatever a handler made of it.
        _ if now.killed.get() => format!("ERR {}", now.killed_text()),
        Value::Table(table) => match table.raw_get("err")? {
            Value::String(text) => text.to_string_lossy(),
            _ => "ERR unknown error".to_owned(),
        },
        Value::String(text) => format!("ERR {}", text.to_string_lossy()),
        Value::Error(error) => match raised_text(error) {
            Some(text) => text.to_owned(),
            None => format!("ERR {}", message(error)),
        },
        Value::Nil => "ERR nil".to_owned(),
        other => match lua.coerce_string(other.clone())? {
            Some(text) => format!("ERR {}", text.to_string_lossy()),
            None => "ERR unknown error".to_owned(),
        },
    };
    let text = text.replace(['\r', '\n'], " ");
    if now.loading.borrow().is_some() {
        return Ok(text);
    }
    // The innermost function that is not ours.
    let mut place = None;
    for level in 1..32 {
        let found = lua.inspect_stack(level, |frame| {
            let source = frame.source();
            let lua = source.what != "C" && source.what != "tail";
            let name = source.source.map(std::borrow::Cow::into_owned);
            (lua, name, frame.current_line())
        });
        match found {
            None => break,
            Some((true, Some(source), Some(line))) if source != PRELUDE => {
                place = Some((source, line));
                break;
            }
            Some(_) => {}
        }
    }
    let script = now.script.borrow();
    Ok(match place {
        Some((source, line)) => format!("{text} script: {script}, on {source}:{line}."),
        None => text,
    })
}

/// What the prelude is given.
fn functions(lua: &Lua, now: &Rc<Now>) -> mlua::Result<Table> {
    let rust = lua.create_table()?;
    let of_run = Rc::clone(now);
    rust.set(
        "killed",
        lua.create_function(move |_, ()| Ok(of_run.killed.get()))?,
    )?;
    rust.set(
        "text",
        lua.create_function(|lua, value: Value| match &value {
            Value::Error(error) => match raised_text(error) {
                Some(text) => error_table(lua, text),
                None => Ok(Value::String(lua.create_string(message(error))?)),
            },
            _ => Ok(value),
        })?,
    )?;
    rust.set(
        "name",
        lua.create_function(|lua, value: Value| {
            let text = lua.coerce_string(value.clone())?;
            Ok(text.map_or_else(
                || api::type_name(&value).to_owned(),
                |text| text.to_string_lossy(),
            ))
        })?,
    )?;
    let of_run = Rc::clone(now);
    rust.set(
        "on_error",
        lua.create_function(move |lua, raised: Value| {
            lua.create_string(describe(lua, &of_run, &raised)?)
        })?,
    )?;
    let of_run = Rc::clone(now);
    rust.set(
        "clock",
        lua.create_function(move |_, ()| Ok(of_run.started.elapsed().as_secs_f64()))?,
    )?;
    // KiB, as Lua's.
    rust.set(
        "memory",
        lua.create_function(|lua, ()| Ok(lua.used_memory() as f64 / 1024.0))?,
    )?;
    rust.set("collect", lua.create_function(|lua, ()| lua.gc_collect())?)?;
    let of_run = Rc::clone(now);
    rust.set(
        "random",
        library(lua, move |lua, given| random(&of_run, lua, given))?,
    )?;
    let of_run = Rc::clone(now);
    rust.set(
        "randomseed",
        library(lua, move |lua, given| {
            let seed = integer_at(lua, given, 0, "randomseed")?;
            // As srand48, with the lower 32 bits.
            of_run
                .random
                .set((seed.cast_unsigned() & 0xffff_ffff) << 16 | 0x330e);
            Ok(MultiValue::new())
        })?,
    )?;
    rust.set("loadstring", lua.create_function(load_string)?)?;
    rust.set("load", lua.create_function(load)?)?;
    let cjson = json::open(lua, &now.json)?;
    let new = lua.create_function(|lua, ()| json::open(lua, &Rc::default()))?;
    cjson.set("new", new)?;
    rust.set("cjson", cjson)?;
    rust.set("cmsgpack", msgpack::open(lua)?)?;
    rust.set("struct", structs::open(lua)?)?;
    rust.set("bit", bits::open(lua)?)?;
    rust.set("redis", api::open(lua, now)?)?;
    rust.set("register_function", libraries::registering(lua, now)?)?;
    Ok(rust)
}

/// `math.random`, with the generator of `lrand48`: the same numbers everywhere for the same seed.
fn random(now: &Now, lua: &Lua, given: &MultiValue) -> Outcome {
    const MAX: f64 = 2_147_483_647.0;
    let state = now
        .random
        .get()
        .wrapping_mul(0x5_deec_e66d)
        .wrapping_add(0xb)
        & 0xffff_ffff_ffff;
    now.random.set(state);
    let part = ((state >> 17) % 2_147_483_647) as f64 / MAX;
    // Redis reads limits as C's int.
    let int = |place| integer_at(lua, given, place, "random").map(|limit| f64::from(limit as i32));
    let value = match given.len() {
        0 => part,
        1 => {
            let high = int(0)?;
            if high < 1.0 {
                return Err(api::bad_argument(0, "random", "interval is empty"));
            }
            (part * high).floor() + 1.0
        }
        2 => {
            let (low, high) = (int(0)?, int(1)?);
            if low > high {
                return Err(api::bad_argument(1, "random", "interval is empty"));
            }
            (part * (high - low + 1.0)).floor() + low
        }
        _ => return Err(Trouble::Text("wrong number of arguments".to_owned())),
    };
    one(Value::Number(value))
}

/// A function, or nil and why not.
fn chunk(lua: &Lua, code: &[u8], name: &mlua::LuaString) -> mlua::Result<MultiValue> {
    let environment: Table = lua.named_registry_value("environment")?;
    let made = lua
        .load(code)
        // Kept in memory by the caller, as long as the parser reads.
        .set_name(name.to_string_lossy())
        .set_mode(ChunkMode::Text)
        .set_environment(environment)
        .into_function();
    match made {
        Ok(function) => Ok(MultiValue::from_iter([Value::Function(function)])),
        Err(error @ mlua::Error::MemoryError(_)) => Err(error),
        Err(error) => {
            let why = lua.create_string(message(&error))?;
            Ok(MultiValue::from_iter([Value::Nil, Value::String(why)]))
        }
    }
}

fn load_string(lua: &Lua, given: MultiValue) -> mlua::Result<MultiValue> {
    let refused = |why: Trouble| match why {
        Trouble::Text(text) => mlua::Error::runtime(text),
        Trouble::Lua(error) => error,
    };
    let code = string_at(lua, &given, 0, "loadstring").map_err(refused)?;
    let name = match given.get(1) {
        None | Some(Value::Nil) => lua.create_string(code.to_string_lossy())?,
        _ => {
            let name = string_at(lua, &given, 1, "loadstring").map_err(refused)?;
            lua.create_string(name.to_string_lossy())?
        }
    };
    let code = code.as_bytes().to_vec();
    chunk(lua, &code, &name)
}

/// `load(function, name)`: the function gives piece by piece, before anything is parsed.
fn load(
    lua: &Lua,
    (reader, name): (Function, Option<mlua::LuaString>),
) -> mlua::Result<MultiValue> {
    let mut code = Vec::new();
    loop {
        match reader.call::<Value>(())? {
            Value::Nil => break,
            Value::String(piece) if piece.as_bytes().is_empty() => break,
            Value::String(piece) => code.extend_from_slice(&piece.as_bytes()),
            _ => {
                let why = lua.create_string("reader function must return a string")?;
                return Ok(MultiValue::from_iter([Value::Nil, Value::String(why)]));
            }
        }
        if code.len() > CHUNK_MAX {
            return Err(mlua::Error::runtime("the code to load is too long"));
        }
    }
    let name = match name {
        Some(name) => lua.create_string(name.to_string_lossy())?,
        None => lua.create_string("=(load)")?,
    };
    chunk(lua, &code, &name)
}
