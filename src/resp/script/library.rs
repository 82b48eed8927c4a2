//! Libraries of functions: what their first line says, and `redis.register_function`.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use broker::functions::{FUNCTIONS_MAX, FunctionFlags, FunctionsError, LIBRARY_MAX, Library};
use mlua::{Function, Lua, MultiValue, Table, Value};
use protocol_resp::split_words;

use super::FLAGS;
use super::api::{Trouble, raising};
use super::sandbox::{self, Loading, Now};
use crate::resp::fail::{Fail, lossy};

/// What a library has registered.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(super) name: Vec<u8>,
    description: Option<Vec<u8>>,
    flags: FunctionFlags,
}

/// The code of a library, behind its first line.
pub(super) fn code(text: &[u8]) -> &[u8] {
    let end = memchr::memchr(b'\n', text).unwrap_or(text.len());
    text.get(end..).unwrap_or_default()
}

/// Reads and runs a library: its name and functions. It may take `memory` octets and so much `time`.
pub(crate) fn load(text: &[u8], memory: usize, time: Duration) -> Result<Library, Fail> {
    if text.len() > LIBRARY_MAX {
        return Err(limits());
    }
    let name = name(text)?;
    let registered = sandbox::with_any(memory, |interpreter| {
        let until = Instant::now() + time;
        interpreter.register(text, Some(until)).map(|done| done.0)
    })?;
    if registered.is_empty() {
        return Err(Fail::Text("ERR No functions registered"));
    }
    let mut functions: Vec<broker::functions::Function> = Vec::with_capacity(registered.len());
    let mut names = std::collections::HashSet::new();
    for one in registered {
        let Some(name) = word(&one.name) else {
            return Err(Fail::Text(
                "ERR Function names can only contain letters, numbers, or underscores(_) and must be at least one character long",
            ));
        };
        if !names.insert(one.name.clone()) {
            return Err(Fail::Text("ERR Function already exists in the library"));
        }
        functions.push(broker::functions::Function {
            name: name.into(),
            description: one.description.map(Vec::into_boxed_slice),
            flags: one.flags,
            pace: AtomicU32::default(),
        });
    }
    Ok(Library {
        name: Arc::from(name),
        text: text.into(),
        functions,
    })
}

/// What a client hears of a library that is too large.
pub(crate) fn limits() -> Fail {
    Fail::Owned(format!("ERR {}", FunctionsError::Limits))
}

/// A name: letters, digits and underscores, at least one.
fn word(name: &[u8]) -> Option<&str> {
    let known = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let text = std::str::from_utf8(name).ok()?;
    (!name.is_empty() && name.iter().all(known)).then_some(text)
}

/// The name that the first line, `#!lua name=…`, gives.
pub(crate) fn name(text: &[u8]) -> Result<String, Fail> {
    const INVALID: Fail = Fail::Text("ERR Invalid library metadata");
    if !text.starts_with(b"#!") {
        return Err(Fail::Text("ERR Missing library metadata"));
    }
    let end = memchr::memchr(b'\n', text).ok_or(INVALID)?;
    let (mut data, mut ranges) = (Vec::new(), Vec::new());
    if !split_words(text.get(..end).unwrap_or_default(), &mut data, &mut ranges) {
        return Err(INVALID);
    }
    let mut words = ranges.iter().map(|(start, length)| {
        let start = *start as usize;
        data.get(start..start + *length as usize)
            .unwrap_or_default()
    });
    let engine = words.next().and_then(|word| word.get(2..));
    let mut name = None;
    for given in words {
        let Some((key, value)) = given.split_at_checked(5) else {
            return Err(unknown(given));
        };
        if !key.eq_ignore_ascii_case(b"name=") {
            return Err(unknown(given));
        }
        if name.replace(value).is_some() {
            return Err(Fail::Text(
                "ERR Invalid metadata value, name argument was given multiple times",
            ));
        }
    }
    let name = name.ok_or(Fail::Text("ERR Library name was not given"))?;
    let Some(name) = word(name) else {
        return Err(Fail::Text(
            "ERR Library names can only contain letters, numbers, or underscores(_) and must be at least one character long",
        ));
    };
    let engine = engine.ok_or(INVALID)?;
    if !engine.eq_ignore_ascii_case(b"lua") {
        return Err(Fail::Owned(format!(
            "ERR Engine '{}' not found",
            lossy(engine, 128)
        )));
    }
    Ok(name.to_owned())
}

fn unknown(word: &[u8]) -> Fail {
    Fail::Owned(format!(
        "ERR Invalid metadata value given: {}",
        lossy(word, 128)
    ))
}

/// `redis.register_function(name, callback)` or with one table of named arguments.
pub(super) fn registering(lua: &Lua, now: &Rc<Now>) -> mlua::Result<Function> {
    let of_run = Rc::clone(now);
    raising(lua, move |lua, given| {
        let mut loading = of_run.loading.borrow_mut();
        let Some(loading) = &mut *loading else {
            return Err(
                "redis.register_function can only be called on FUNCTION LOAD command".into(),
            );
        };
        let (registered, callback) = match given.len() {
            1 => named(lua, given.front())?,
            2 => positional(lua, given)?,
            _ => return Err("wrong number of arguments to redis.register_function".into()),
        };
        keep(loading, registered, &callback)?;
        Ok(MultiValue::new())
    })
}

/// A library is loaded into our memory, too, which Lua's limit does not count.
fn keep(loading: &mut Loading, registered: Registered, callback: &Function) -> Result<(), Trouble> {
    let description = registered.description.as_ref().map_or(0, Vec::len);
    loading.bytes += registered.name.len() + description;
    if loading.bytes > LIBRARY_MAX || loading.registered.len() >= FUNCTIONS_MAX {
        return Err(Trouble::Text(FunctionsError::Limits.to_string()));
    }
    loading.registered.push(registered);
    // All in one table: what Rust may refer to in an interpreter are some thousands of values.
    loading
        .callbacks
        .raw_set(loading.registered.len(), callback)?;
    Ok(())
}

/// A text, or a number that becomes one.
fn text(lua: &Lua, value: Option<&Value>) -> Result<Option<Vec<u8>>, Trouble> {
    Ok(match value {
        Some(value @ (Value::String(_) | Value::Number(_) | Value::Integer(_))) => lua
            .coerce_string(value.clone())?
            .map(|text| text.as_bytes().to_vec()),
        _ => None,
    })
}

fn positional(lua: &Lua, given: &MultiValue) -> Result<(Registered, Function), Trouble> {
    let name = text(lua, given.front())?
        .ok_or("first argument to redis.register_function must be a string")?;
    let Some(Value::Function(callback)) = given.get(1) else {
        return Err("second argument to redis.register_function must be a function".into());
    };
    let registered = Registered {
        name,
        description: None,
        flags: FunctionFlags::default(),
    };
    Ok((registered, callback.clone()))
}

fn named(lua: &Lua, given: Option<&Value>) -> Result<(Registered, Function), Trouble> {
    let Some(Value::Table(table)) = given else {
        return Err("calling redis.register_function with a single argument is only applicable to Lua table (representing named arguments).".into());
    };
    let (mut name, mut description, mut callback) = (None, None, None);
    let mut flags = FunctionFlags::default();
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair?;
        let key = text(lua, Some(&key))?
            .ok_or("named argument key given to redis.register_function is not a string")?;
        let value = Some(&value);
        if key.eq_ignore_ascii_case(b"function_name") {
            let given = text(lua, value)?.ok_or(
                "function_name argument given to redis.register_function must be a string",
            )?;
            name = Some(given);
        } else if key.eq_ignore_ascii_case(b"description") {
            let given = text(lua, value)?
                .ok_or("description argument given to redis.register_function must be a string")?;
            description = Some(given);
        } else if key.eq_ignore_ascii_case(b"callback") {
            let Some(Value::Function(function)) = value else {
                return Err(
                    "callback argument given to redis.register_function must be a function".into(),
                );
            };
            callback = Some(function.clone());
        } else if key.eq_ignore_ascii_case(b"flags") {
            let Some(Value::Table(list)) = value else {
                return Err("flags argument to redis.register_function must be a table representing function flags".into());
            };
            flags = flags_of(lua, list)?;
        } else {
            return Err("unknown argument given to redis.register_function".into());
        }
    }
    let registered = Registered {
        name: name.ok_or("redis.register_function must get a function name argument")?,
        description,
        flags,
    };
    let callback = callback.ok_or("redis.register_function must get a callback argument")?;
    Ok((registered, callback))
}

fn flags_of(lua: &Lua, list: &Table) -> Result<FunctionFlags, Trouble> {
    let mut flags = FunctionFlags::default();
    // There are five; nobody names one often.
    for place in 1..=64_usize {
        let value: Value = list.raw_get(place)?;
        if value.is_nil() {
            return Ok(flags);
        }
        let name = text(lua, Some(&value))?;
        let known = FLAGS.iter().find(|(_, known)| {
            name.as_ref()
                .is_some_and(|name| name.eq_ignore_ascii_case(known.as_bytes()))
        });
        flags = flags.and(known.ok_or("unknown flag given")?.0);
    }
    Err("unknown flag given".into())
}
