//! How functions of Rust look to Lua, and those of `redis` that need no running script.

use std::rc::Rc;

use mlua::{Function, Lua, MultiValue, Table, Value};

use protocol_resp::Version;

use super::number;
use super::sandbox::Now;

/// Why a function of a library failed.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The script sees this text, with its line.
    Text(String),
    /// The interpreter's own: out of memory.
    Lua(mlua::Error),
}

impl From<mlua::Error> for Trouble {
    fn from(error: mlua::Error) -> Self {
        Self::Lua(error)
    }
}

impl From<String> for Trouble {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Trouble {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

pub(super) type Outcome = Result<MultiValue, Trouble>;

/// One value.
pub(super) fn one(value: Value) -> Outcome {
    Ok(MultiValue::from_iter([value]))
}

pub(super) fn string(lua: &Lua, bytes: impl AsRef<[u8]>) -> Outcome {
    one(Value::String(lua.create_string(bytes)?))
}

/// An error as Redis' own functions raise it, which scripts see as a table `{err = …}`.
#[derive(Debug)]
pub(super) struct Raised(pub(super) String);

impl std::fmt::Display for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// The text with the line of Lua that called, as C's `luaL_error` puts it.
fn with_place(lua: &Lua, text: String) -> String {
    let place = lua.inspect_stack(1, |frame| {
        let source = frame.source().short_src.map(|name| name.into_owned());
        frame.current_line().zip(source)
    });
    match place.flatten() {
        Some((line, source)) => format!("{source}:{line}: {text}"),
        None => text,
    }
}

/// A function of a library.
pub(super) fn library(
    lua: &Lua,
    run: impl Fn(&Lua, &MultiValue) -> Outcome + 'static,
) -> mlua::Result<Function> {
    lua.create_function(move |lua, given: MultiValue| {
        run(lua, &given).map_err(|trouble| match trouble {
            Trouble::Text(text) => mlua::Error::RuntimeError(with_place(lua, text)),
            Trouble::Lua(error) => error,
        })
    })
}

/// The same with the table `{err = "ERR …"}` as error.
pub(super) fn raising(
    lua: &Lua,
    run: impl Fn(&Lua, &MultiValue) -> Outcome + 'static,
) -> mlua::Result<Function> {
    lua.create_function(move |lua, given: MultiValue| {
        run(lua, &given).map_err(|trouble| match trouble {
            Trouble::Text(text) => mlua::Error::external(Raised(format!("ERR {text}"))),
            Trouble::Lua(error) => error,
        })
    })
}

/// What Lua calls the type of a value.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Boolean(_) => "boolean",
        Value::Integer(_) | Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Table(_) => "table",
        Value::Function(_) => "function",
        Value::Thread(_) => "thread",
        _ => "userdata",
    }
}

pub(super) fn bad_argument(place: usize, name: &str, why: &str) -> Trouble {
    Trouble::Text(format!("bad argument #{} to '{name}' ({why})", place + 1))
}

fn unexpected(given: &MultiValue, place: usize, name: &str, wanted: &str) -> Trouble {
    let got = given.get(place).map_or("no value", type_name);
    bad_argument(place, name, &format!("{wanted} expected, got {got}"))
}

pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => Some(*number),
        Value::Integer(integer) => Some(*integer as f64),
        _ => None,
    }
}

/// A number, or a text that is one.
pub(super) fn number_at(
    lua: &Lua,
    given: &MultiValue,
    place: usize,
    name: &str,
) -> Result<f64, Trouble> {
    if let Some(value) = given.get(place) {
        if let Some(number) = number(value) {
            return Ok(number);
        }
        if let Some(number) = lua.coerce_number(value.clone())? {
            return Ok(number);
        }
    }
    Err(unexpected(given, place, name, "number"))
}

/// An integer as C's `luaL_checkinteger` makes it of a number.
pub(super) fn integer_at(
    lua: &Lua,
    given: &MultiValue,
    place: usize,
    name: &str,
) -> Result<i64, Trouble> {
    number_at(lua, given, place, name).map(number::truncated)
}

/// A string, or a number that becomes one.
pub(super) fn string_at(
    lua: &Lua,
    given: &MultiValue,
    place: usize,
    name: &str,
) -> Result<mlua::LuaString, Trouble> {
    match given.get(place) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(value @ (Value::Number(_) | Value::Integer(_))) => lua
            .coerce_string(value.clone())?
            .ok_or_else(|| unexpected(given, place, name, "string")),
        _ => Err(unexpected(given, place, name, "string")),
    }
}

/// `{err = …}`.
pub(super) fn error_table(lua: &Lua, text: impl AsRef<[u8]>) -> mlua::Result<Value> {
    let table = lua.create_table()?;
    table.raw_set("err", lua.create_string(text)?)?;
    Ok(Value::Table(table))
}

/// A text that a script makes an error of, with the code `ERR` before one that names none.
fn coded(text: &[u8]) -> Vec<u8> {
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let code: &[u8] = if text.contains(&b' ') { b"" } else { b"ERR " };
    let mut error = [code, text].concat();
    while error.last().is_some_and(|byte| b"\r\n".contains(byte)) {
        error.pop();
    }
    error
}

/// `redis`, but for what needs the running script.
pub(super) fn open(lua: &Lua, now: &Rc<Now>) -> mlua::Result<Table> {
    let redis = lua.create_table()?;
    let of_run = Rc::clone(now);
    redis.set(
        "setresp",
        raising(lua, move |lua, given| {
            if given.len() != 1 {
                return Err("redis.setresp() requires one argument.".into());
            }
            match integer_at(lua, given, 0, "setresp").unwrap_or(0) {
                2 => of_run.version.set(Version::Resp2),
                3 => of_run.version.set(Version::Resp3),
                _ => return Err("RESP version must be 2 or 3.".into()),
            }
            Ok(MultiValue::new())
        })?,
    )?;
    redis.set(
        "sha1hex",
        raising(lua, |lua, given| {
            if given.len() != 1 {
                return Err("wrong number of arguments".into());
            }
            let text = string_at(lua, given, 0, "sha1hex").or_else(|_| {
                // As Redis: whatever is not a text is the empty one.
                lua.create_string(b"").map_err(Trouble::Lua)
            })?;
            string(lua, super::hex(&super::digest(&text.as_bytes())))
        })?,
    )?;
    let only_text = |given: &MultiValue| match given.iter().collect::<Vec<_>>()[..] {
        [Value::String(text)] => Some(text.clone()),
        _ => None,
    };
    redis.set(
        "error_reply",
        raising(lua, move |lua, given| {
            let Some(text) = only_text(given) else {
                return one(error_table(lua, "ERR wrong number or type of arguments")?);
            };
            one(error_table(lua, coded(&text.as_bytes()))?)
        })?,
    )?;
    redis.set(
        "status_reply",
        raising(lua, move |lua, given| {
            let Some(text) = only_text(given) else {
                return one(error_table(lua, "ERR wrong number or type of arguments")?);
            };
            let table = lua.create_table()?;
            table.raw_set("ok", text)?;
            one(Value::Table(table))
        })?,
    )?;
    redis.set("log", raising(lua, log)?)?;
    redis.set(
        "set_repl",
        raising(lua, |lua, given| {
            if given.len() != 1 {
                return Err("redis.set_repl() requires two arguments.".into());
            }
            // Nothing is replicated by commands here: the record is one, whatever a script wishes.
            if integer_at(lua, given, 0, "set_repl").unwrap_or(0) & !3 != 0 {
                return Err(
                    "Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE."
                        .into(),
                );
            }
            Ok(MultiValue::new())
        })?,
    )?;
    redis.set(
        "replicate_commands",
        raising(lua, |_, _| one(Value::Boolean(true)))?,
    )?;
    // There is no debugger.
    redis.set(
        "breakpoint",
        raising(lua, |_, _| one(Value::Boolean(false)))?,
    )?;
    redis.set("debug", raising(lua, |_, _| Ok(MultiValue::new()))?)?;
    for (name, value) in [
        ("REPL_NONE", 0),
        ("REPL_AOF", 1),
        ("REPL_SLAVE", 2),
        ("REPL_REPLICA", 2),
        ("REPL_ALL", 3),
        ("LOG_DEBUG", 0),
        ("LOG_VERBOSE", 1),
        ("LOG_NOTICE", 2),
        ("LOG_WARNING", 3),
        ("REDIS_VERSION_NUM", 0x0007_0204),
    ] {
        redis.set(name, value)?;
    }
    redis.set("REDIS_VERSION", "7.2.4")?;
    Ok(redis)
}

/// `redis.log(level, text …)`.
fn log(lua: &Lua, given: &MultiValue) -> Outcome {
    /// Octets of one line in our log.
    const LOGGED_MAX: usize = 1024;
    if given.len() < 2 {
        return Err("redis.log() requires two arguments or more.".into());
    }
    let Ok(level) = number_at(lua, given, 0, "log") else {
        return Err("First argument must be a number (log level).".into());
    };
    let level = number::truncated(level);
    if !(0..=3).contains(&level) {
        return Err("Invalid debug level.".into());
    }
    let mut line = String::new();
    for value in given.iter().skip(1) {
        let Some(text) = lua.coerce_string(value.clone())? else {
            continue;
        };
        if !line.is_empty() {
            line.push(' ');
        }
        let left = LOGGED_MAX.saturating_sub(line.len());
        line.push_str(&crate::resp::fail::lossy(&text.as_bytes(), left));
    }
    match level {
        0 | 1 => tracing::debug!(script = line, "redis.log"),
        2 => tracing::info!(script = line, "redis.log"),
        _ => tracing::warn!(script = line, "redis.log"),
    }
    Ok(MultiValue::new())
}
