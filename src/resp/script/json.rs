//! `cjson`: JSON as lua-cjson 2.1 reads and writes it, byte for byte, since scripts of different servers share what they store.

mod decode;
mod encode;

use std::cell::Cell;
use std::rc::Rc;

use mlua::{Function, Lua, MultiValue, Table, Value};

use super::api::{Outcome, Trouble, bad_argument, integer_at, library, one, string, string_at};

/// Nesting that our own stack is sure to bear, whatever a script asks for.
const DEPTH_MAX: i64 = 1000;

/// What to do with numbers that JSON does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Invalid {
    Refuse,
    Write,
    Null,
}

/// What scripts can set. Forgotten with the script: in Redis the next one, of whomever, would see it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    sparse_convert: bool,
    sparse_ratio: i64,
    sparse_safe: i64,
    encode_depth: i64,
    decode_depth: i64,
    encode_invalid: Invalid,
    decode_invalid: bool,
    keep_buffer: bool,
    precision: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sparse_convert: false,
            sparse_ratio: 2,
            sparse_safe: 10,
            encode_depth: DEPTH_MAX,
            decode_depth: DEPTH_MAX,
            encode_invalid: Invalid::Refuse,
            decode_invalid: true,
            keep_buffer: true,
            precision: 14,
        }
    }
}

type Shared = Rc<Cell<Settings>>;

/// The functions, with settings of their own.
pub(super) fn open(lua: &Lua, settings: &Shared) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.set("_NAME", "cjson")?;
    table.set("_VERSION", "2.1.0")?;
    table.set("null", Value::NULL)?;
    let of_settings = Rc::clone(settings);
    table.set(
        "encode",
        library(lua, move |lua, given| {
            let [value] = given.iter().collect::<Vec<_>>()[..] else {
                return Err(bad_argument(0, "encode", "expected 1 argument"));
            };
            string(lua, encode::encode(value, &of_settings.get())?)
        })?,
    )?;
    let of_settings = Rc::clone(settings);
    table.set(
        "decode",
        library(lua, move |lua, given| {
            if given.len() != 1 {
                return Err(bad_argument(0, "decode", "expected 1 argument"));
            }
            let text = string_at(lua, given, 0, "decode")?;
            one(decode::decode(lua, &text.as_bytes(), &of_settings.get())?)
        })?,
    )?;
    const INT_MAX: i64 = i32::MAX as i64;
    let integers: [(&str, i64, Place<i64>); 3] = [
        ("encode_max_depth", INT_MAX, |s| &mut s.encode_depth),
        ("decode_max_depth", INT_MAX, |s| &mut s.decode_depth),
        ("encode_number_precision", 14, |s| &mut s.precision),
    ];
    for (name, max, place) in integers {
        let of_settings = Rc::clone(settings);
        let set = library(lua, move |lua, given| {
            few(given, 1, name)?;
            let mut all = of_settings.get();
            integer(lua, given, 0, name, (1, max), place(&mut all))?;
            of_settings.set(all);
            one(Value::Number(*place(&mut all) as f64))
        })?;
        table.set(name, set)?;
    }
    let flags: [(&str, Place<bool>); 2] = [
        ("encode_keep_buffer", |s| &mut s.keep_buffer),
        ("decode_invalid_numbers", |s| &mut s.decode_invalid),
    ];
    for (name, place) in flags {
        let of_settings = Rc::clone(settings);
        let set = library(lua, move |_, given| {
            few(given, 1, name)?;
            let mut all = of_settings.get();
            choice(given, 0, name, &["off", "on"], |chosen| {
                *place(&mut all) = chosen == 1;
            })?;
            of_settings.set(all);
            one(Value::Boolean(*place(&mut all)))
        })?;
        table.set(name, set)?;
    }
    table.set("encode_invalid_numbers", invalid_numbers(lua, settings)?)?;
    table.set("encode_sparse_array", sparse_array(lua, settings)?)?;
    Ok(table)
}

type Place<T> = fn(&mut Settings) -> &mut T;

fn few(given: &MultiValue, most: usize, name: &str) -> Result<(), Trouble> {
    if given.len() > most {
        return Err(bad_argument(most, name, "found too many arguments"));
    }
    Ok(())
}

/// Sets `to` if the argument is there.
fn integer(
    lua: &Lua,
    given: &MultiValue,
    place: usize,
    name: &str,
    (min, max): (i64, i64),
    to: &mut i64,
) -> Result<(), Trouble> {
    if matches!(given.get(place), None | Some(Value::Nil)) {
        return Ok(());
    }
    let value = integer_at(lua, given, place, name)?;
    if !(min..=max).contains(&value) {
        let why = format!("expected integer between {min} and {max}");
        return Err(bad_argument(place, name, &why));
    }
    *to = value;
    Ok(())
}

/// A boolean, or one of the words.
fn choice(
    given: &MultiValue,
    place: usize,
    name: &str,
    words: &[&str],
    set: impl FnOnce(usize),
) -> Result<(), Trouble> {
    match given.get(place) {
        None | Some(Value::Nil) => {}
        Some(Value::Boolean(yes)) => set(usize::from(*yes)),
        Some(Value::String(word)) => {
            let word = word.to_string_lossy();
            match words.iter().position(|known| *known == word) {
                Some(chosen) => set(chosen),
                None => {
                    let why = format!("invalid option '{word}'");
                    return Err(bad_argument(place, name, &why));
                }
            }
        }
        Some(other) => {
            let got = super::api::type_name(other);
            let why = format!("string expected, got {got}");
            return Err(bad_argument(place, name, &why));
        }
    }
    Ok(())
}

fn invalid_numbers(lua: &Lua, settings: &Shared) -> mlua::Result<Function> {
    const NAME: &str = "encode_invalid_numbers";
    let settings = Rc::clone(settings);
    library(lua, move |lua, given| {
        few(given, 1, NAME)?;
        let mut all = settings.get();
        choice(given, 0, NAME, &["off", "on", "null"], |chosen| {
            all.encode_invalid = match chosen {
                0 => Invalid::Refuse,
                1 => Invalid::Write,
                _ => Invalid::Null,
            };
        })?;
        settings.set(all);
        match all.encode_invalid {
            Invalid::Null => string(lua, "null"),
            other => one(Value::Boolean(other == Invalid::Write)),
        }
    })
}

fn sparse_array(lua: &Lua, settings: &Shared) -> mlua::Result<Function> {
    const NAME: &str = "encode_sparse_array";
    let settings = Rc::clone(settings);
    library(lua, move |lua, given| -> Outcome {
        few(given, 3, NAME)?;
        let mut all = settings.get();
        choice(given, 0, NAME, &["off", "on"], |chosen| {
            all.sparse_convert = chosen == 1;
        })?;
        let range = (0, i64::from(i32::MAX));
        integer(lua, given, 1, NAME, range, &mut all.sparse_ratio)?;
        integer(lua, given, 2, NAME, range, &mut all.sparse_safe)?;
        settings.set(all);
        Ok(MultiValue::from_iter([
            Value::Boolean(all.sparse_convert),
            Value::Number(all.sparse_ratio as f64),
            Value::Number(all.sparse_safe as f64),
        ]))
    })
}
