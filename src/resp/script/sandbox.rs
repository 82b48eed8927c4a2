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
use std::sync::{Arc, Weak};
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

/// An interpreter that holds more than this between two scripts is thrown away; what its libraries took is not counted.
const MEMORY_KEPT: usize = 32 << 20;
/// Compiled scripts of an interpreter; with more it is thrown away.
const COMPILED_MAX: usize = 2048;
/// Instructions between two looks at the clock, as in Redis.
const LOOK_EVERY: u32 = 100_000;
/// The same while a library is loaded, when one instruction may join texts of many megabytes, and nobody can end it.
const LOOK_EVERY_LOADING: u32 = 100;
/// What C may be asked to do while a library is loaded, about, in octets that are looked at.
const WORK_MAX: f64 = 2e8;
/// Octets that `load` reads from its function.
const CHUNK_MAX: usize = 16 << 20;

/// The name of every script, which Lua strips of its first letter in messages.
const CHUNK: &str = "@user_script";
/// The name of every library.
const LIBRARY: &str = "@user_function";
/// How long a library may take to register its functions, as in Redis.
pub(crate) const LOAD_MAX: Duration = Duration::from_millis(500);
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
    /// `None`: until somebody ends it.
    until: Option<Instant>,
    pub(super) registered: Vec<Registered>,
    /// The functions of what is registered, at the same places.
    pub(super) callbacks: Table,
    /// See [`WORK_MAX`].
    work: f64,
    /// Octets of names and descriptions.
    pub(super) bytes: usize,
}

/// A library that was loaded. Nobody else may have it any more: then it is forgotten with the next one that comes.
struct Loaded {
    library: Weak<Library>,
    /// What its functions call, and where each is among that. `None`: this took too long for a thread of connections.
    callbacks: Option<(Table, Vec<usize>)>,
}

impl Loaded {
    fn is(&self, library: &Arc<Library>) -> bool {
        std::ptr::eq(self.library.as_ptr(), Arc::as_ptr(library))
    }
}

impl Now {
    fn killed_text(&self) -> &'static str {
        killed_text(self.is_function.get())
    }

    /// A library has had its time.
    fn is_late(&self) -> bool {
        let loading = self.loading.borrow();
        loading
            .as_ref()
            .and_then(|loading| loading.until)
            .is_some_and(|until| Instant::now() >= until)
    }

    /// From time to time in what runs: it ends, or goes on.
    fn look(&self) -> mlua::Result<()> {
        let watch = self.watch.borrow();
        match watch.as_ref().map(|watch| watch.look()) {
            Some(Verdict::End) => self.killed.set(true),
            Some(Verdict::Abandon) => abandon(),
            _ => {}
        }
        if self.killed.get() {
            return Err(mlua::Error::runtime(self.killed_text()));
        }
        if self.is_late() {
            let late = "ERR FUNCTION LOAD timeout".to_owned();
            return Err(mlua::Error::external(Raised(late)));
        }
        Ok(())
    }
}

/// What a script or function ends with that was killed.
pub(crate) fn killed_text(is_function: bool) -> &'static str {
    if is_function { FUNCTION_KILLED } else { KILLED }
}

/// Has the interpreter look whether what runs shall end.
fn look_every(lua: &Lua, now: &Rc<Now>, instructions: u32) -> mlua::Result<()> {
    let now = Rc::clone(now);
    lua.set_global_hook(
        HookTriggers::new().every_nth_instruction(instructions),
        move |_, _| now.look().map(|()| VmState::Continue),
    )
}

/// What of `redis` needs a run, for those who keep it for longer than one.
struct Lasting {
    /// By their names.
    functions: Table,
    /// Those of the run, to which they go on.
    current: Table,
}

impl Lasting {
    fn new(lua: &Lua) -> mlua::Result<Self> {
        let (functions, current) = (lua.create_table()?, lua.create_table()?);
        for name in ["call", "pcall", "acl_check_cmd"] {
            let current = current.clone();
            // Of C, so that the line that calls it is found although it may be a tail call.
            let function = lua.create_function(move |_, given: MultiValue| {
                let now: Function = current.raw_get(name)?;
                now.call::<MultiValue>(given)
            })?;
            functions.raw_set(name, function)?;
        }
        Ok(Self { functions, current })
    }
}

const UNREGISTERED: Fail = Fail::Text("ERR the library does not register this function any more");

/// See the module.
pub(crate) struct Interpreter {
    lua: Lua,
    now: Rc<Now>,
    /// Where scripts' globals are looked up.
    environment: Table,
    /// The table behind it, for `KEYS` and `ARGV`.
    globals: Table,
    /// The table `redis`, where `call` is another one in each run of a script.
    redis: Table,
    /// The same for functions, which may keep it for the next run.
    lasting: Lasting,
    /// The metatable of strings, whose `__index` is `strings`, or `careful` while a library is loaded.
    of_strings: Table,
    strings: Table,
    careful: Table,
    /// Where libraries' globals are looked up: in what the `__index` of `behind` is, `globals` or `loading`.
    library: Table,
    behind: Table,
    loading: Table,
    run: Function,
    call: Function,
    compiled: HashMap<Digest20, Function, RandomState>,
    libraries: HashMap<Arc<str>, Loaded, RandomState>,
    /// Octets that it takes without garbage, if that is more than usual.
    floor: usize,
    /// Octets that it may take.
    memory: usize,
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

/// Loads the library of a function on this thread, if it is not loaded, which may take so long.
pub(crate) fn prepare(
    scripts: &Scripts,
    memory: usize,
    program: &Program,
    time: Duration,
) -> Result<(), Fail> {
    if !program.is_function() {
        return Ok(());
    }
    with(scripts, memory, |interpreter| {
        interpreter.prepare(program, time)
    })
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
        look_every(&lua, &now, LOOK_EVERY)?;
        Ok(Self {
            now,
            environment,
            globals: made.get("globals")?,
            redis: made.get("redis")?,
            lasting: Lasting::new(&lua)?,
            of_strings: made.get("of_strings")?,
            strings: made.get("strings")?,
            careful: made.get("careful")?,
            library: made.get("library")?,
            behind: made.get("behind")?,
            loading: made.get("loading")?,
            run: made.get("run")?,
            call: made.get("call")?,
            compiled: HashMap::default(),
            libraries: HashMap::default(),
            floor: 0,
            memory,
            broken: false,
            generation,
            lua,
        })
    }

    fn is_light(&self) -> bool {
        !self.broken
            && self.compiled.len() + self.libraries.len() <= COMPILED_MAX
            && (self.has_room(1) || (self.lua.gc_collect().is_ok() && self.has_room(1)))
    }

    /// It takes at most a part of what it may keep, and never so much that the next script has none.
    fn has_room(&self, part: usize) -> bool {
        let left = self.memory.saturating_sub(self.floor) / 2;
        self.lua.used_memory() <= self.floor.saturating_add(left.min(MEMORY_KEPT) / part)
    }

    /// Octets that it takes.
    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        self.lua.used_memory()
    }

    /// How many libraries it has loaded.
    #[cfg(test)]
    pub(crate) fn libraries(&self) -> usize {
        self.libraries.len()
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

    /// Runs a library's text: what it registers, and the functions of that.
    pub(super) fn register(
        &mut self,
        text: &[u8],
        until: Option<Instant>,
    ) -> Result<(Vec<Registered>, Table), Fail> {
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
        if self.now.watch.borrow().is_none() {
            self.now.killed.set(false);
        }
        let done = self.registering(chunk, until);
        let restored = (self.behind.raw_set("__index", &self.globals))
            .and_then(|()| self.of_strings.raw_set("__index", &self.strings))
            .and_then(|()| look_every(&self.lua, &self.now, LOOK_EVERY));
        self.broken |= restored.is_err();
        let loading = self.now.loading.take();
        let why = match (done, loading) {
            (Ok((true, _)), Some(done)) => return Ok((done.registered, done.callbacks)),
            (Ok((false, Value::String(text))), _) => match text.to_string_lossy() {
                // Lua asks no handler when it is out of memory.
                text if !text.starts_with("ERR ") => format!("ERR {text}"),
                text => text,
            },
            (Ok(_), _) => "ERR unknown error".to_owned(),
            (Err(error), _) => format!("ERR {}", message(&error)),
        };
        Err(Fail::Owned(format!(
            "ERR Error registering functions: {}",
            why.replace(['\r', '\n'], " ")
        )))
    }

    fn registering(&self, chunk: Function, until: Option<Instant>) -> mlua::Result<(bool, Value)> {
        self.now.loading.replace(Some(Loading {
            until,
            registered: Vec::new(),
            callbacks: self.lua.create_table()?,
            work: 0.0,
            bytes: 0,
        }));
        self.behind.raw_set("__index", &self.loading)?;
        self.of_strings.raw_set("__index", &self.careful)?;
        look_every(&self.lua, &self.now, LOOK_EVERY_LOADING)?;
        self.run.call(chunk)
    }

    /// Loads the library of a function before anything is locked for it. An error: it must be loaded elsewhere, or cannot be.
    pub(crate) fn prepare(&mut self, program: &Program, time: Duration) -> Result<(), Fail> {
        let Program::Function(library, _) = program else {
            return Ok(());
        };
        match self.libraries.get(&library.name) {
            Some(known) if known.is(library) => match known.callbacks {
                Some(_) => Ok(()),
                None => Err(Fail::Text("ERR FUNCTION LOAD timeout")),
            },
            _ => self.load(library, Some(Instant::now() + time)),
        }
    }

    fn load(&mut self, library: &Arc<Library>, until: Option<Instant>) -> Result<(), Fail> {
        let count = self.libraries.len();
        self.libraries
            .retain(|_, known| known.library.strong_count() > 0);
        if self.libraries.len() < count {
            self.floor = 0;
        }
        let done = self.register(&library.text, until).and_then(|done| {
            let (registered, callbacks) = done;
            let places: HashMap<&[u8], usize, RandomState> = (registered.iter())
                .zip(1..)
                .map(|(one, place)| (&*one.name, place))
                .collect();
            let place = |function: &broker::functions::Function| {
                places.get(function.name.as_bytes()).copied()
            };
            let places = library.functions.iter().map(place).collect::<Option<_>>();
            Ok((callbacks, places.ok_or(UNREGISTERED)?))
        });
        let (callbacks, done) = match done {
            Ok(callbacks) => (Some(callbacks), Ok(())),
            Err(fail) => (None, Err(fail)),
        };
        let loaded = Loaded {
            library: Arc::downgrade(library),
            callbacks,
        };
        self.libraries.insert(Arc::clone(&library.name), loaded);
        // Collecting takes time, too: not for each small one.
        if !self.has_room(2) && self.lua.gc_collect().is_ok() {
            self.floor = self.lua.used_memory();
        }
        done
    }

    /// What a function calls, from its library, which is loaded if it is not.
    fn callback(&mut self, library: &Arc<Library>, place: usize) -> Result<Function, Fail> {
        let loaded = |known: &Loaded| known.is(library) && known.callbacks.is_some();
        if !self.libraries.get(&library.name).is_some_and(loaded) {
            // Who waits for it can end it.
            self.load(library, None)?;
        }
        let known = self.libraries.get(&library.name);
        let callbacks = known.and_then(|known| known.callbacks.as_ref());
        let (callbacks, places) = callbacks.ok_or(UNREGISTERED)?;
        let place = places.get(place).ok_or(UNREGISTERED)?;
        callbacks.raw_get(*place).map_err(|_| UNREGISTERED)
    }

    /// Runs a script or function, and hands what it returns to `host`.
    pub(crate) fn run(
        &mut self,
        program: &Program,
        given: &Given<'_>,
        watch: &Arc<ScriptWatch>,
        host: &mut impl Host,
    ) -> Result<(), Fail> {
        self.now.script.replace(program.name());
        self.now.is_function.set(program.is_function());
        self.now.random.set(given.seed);
        self.now.killed.set(false);
        self.now.json.take();
        self.now.version.set(Version::Resp2);
        self.now.watch.replace(Some(Arc::clone(watch)));
        let function = match program {
            Program::Script(script) => self.compile(script),
            Program::Function(library, place) => self.callback(library, *place),
        };
        let done = function.map(|function| self.protected(&function, given, host));
        self.now.watch.replace(None);
        match done? {
            Ok(Ok(())) => Ok(()),
            Ok(Err(text)) => Err(Fail::Owned(text)),
            Err(error) => Err(Fail::Owned(format!(
                "ERR Error running script {}, {}",
                self.now.script.borrow(),
                lossy(message(&error).replace(['\r', '\n'], " ").as_bytes(), 100)
            ))),
        }
    }

    /// A function of `redis` for this run.
    fn provide(&self, name: &'static str, function: Function) -> mlua::Result<()> {
        if !self.now.is_function.get() {
            return self.redis.raw_set(name, function);
        }
        self.lasting.current.raw_set(name, function)?;
        let lasting: Function = self.lasting.functions.raw_get(name)?;
        self.redis.raw_set(name, lasting)
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
            self.provide(
                "call",
                scope.create_function(|lua, given: MultiValue| {
                    let mut host = host.try_borrow_mut().map_err(|_| busy())?;
                    let called = host.call(lua, version.get(), &given)?;
                    called.map_err(|text| mlua::Error::external(Raised(text)))
                })?,
            )?;
            self.provide(
                "pcall",
                scope.create_function(|lua, given: MultiValue| {
                    let mut host = host.try_borrow_mut().map_err(|_| busy())?;
                    match host.call(lua, version.get(), &given)? {
                        Ok(value) => Ok(value),
                        Err(text) => error_table(lua, &text),
                    }
                })?,
            )?;
            self.provide(
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
        "spend",
        library(lua, move |_, given| spend(&of_run, given))?,
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

/// A function of strings is about to be called, while a library may be loaded: its name, and what it is given.
fn spend(now: &Now, given: &MultiValue) -> Outcome {
    let done = MultiValue::new();
    if now.loading.borrow().is_none() {
        return Ok(done);
    }
    now.look()?;
    if let Some(loading) = &mut *now.loading.borrow_mut() {
        loading.work += work(given);
        if loading.work > WORK_MAX {
            let text = "ERR too much work for the load of a library".to_owned();
            return Err(mlua::Error::external(Raised(text)).into());
        }
    }
    Ok(done)
}

/// About how many octets a function of strings looks at, at worst.
fn work(given: &MultiValue) -> f64 {
    let text = |place: usize| match given.get(place) {
        Some(Value::String(text)) => Some(text.as_bytes()),
        _ => None,
    };
    let name = text(0);
    let Some(subject) = text(1) else { return 0.0 };
    match name.as_deref().unwrap_or_default() {
        b"rep" => given
            .get(2)
            .and_then(api::number)
            .unwrap_or_default()
            .max(0.0),
        b"find" | b"match" | b"gmatch" | b"gfind" | b"gsub" => {
            let Some(pattern) = text(2) else { return 0.0 };
            // Each that may take more or less of the text is tried with all that those in front of it took.
            let repeats = pattern.iter().filter(|byte| b"*+-?".contains(byte)).count();
            let again = |two: &&[u8]| matches!(two, [b'%', b'b' | b'1'..=b'9']);
            let repeats = repeats + pattern.windows(2).filter(again).count();
            let repeats = i32::try_from(repeats).unwrap_or(i32::MAX).min(64);
            (subject.len() as f64).max(2.0).powi(repeats + 1) * pattern.len() as f64
        }
        _ => 0.0,
    }
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
