//! `bit`: the operations of LuaJIT's BitOp on 32-bit words.

use mlua::{Function, Lua, MultiValue, Table, Value};

use super::api::{Outcome, Trouble, library, number_at, one, string};

/// A number modulo 2^32, as a signed word. Halves round to even, as BitOp's trick with 2^52 does.
fn word(value: f64) -> i32 {
    let rounded = value.round_ties_even();
    if rounded.is_finite() {
        // In 0..2^32.
        (rounded.rem_euclid(4_294_967_296.0) as u32).cast_signed()
    } else {
        0
    }
}

fn word_at(lua: &Lua, given: &MultiValue, place: usize, name: &str) -> Result<i32, Trouble> {
    number_at(lua, given, place, name).map(word)
}

fn reply(value: i32) -> Outcome {
    one(Value::Number(f64::from(value)))
}

fn fold(lua: &Lua, name: &'static str, operation: fn(i32, i32) -> i32) -> mlua::Result<Function> {
    library(lua, move |lua, given| {
        let mut value = word_at(lua, given, 0, name)?;
        for place in 1..given.len() {
            value = operation(value, word_at(lua, given, place, name)?);
        }
        reply(value)
    })
}

/// The second argument counts modulo 32.
fn shift(lua: &Lua, name: &'static str, operation: fn(i32, u32) -> i32) -> mlua::Result<Function> {
    library(lua, move |lua, given| {
        let value = word_at(lua, given, 0, name)?;
        let by = word_at(lua, given, 1, name)?.cast_unsigned() & 31;
        reply(operation(value, by))
    })
}

fn single(lua: &Lua, name: &'static str, operation: fn(i32) -> i32) -> mlua::Result<Function> {
    library(lua, move |lua, given| {
        reply(operation(word_at(lua, given, 0, name)?))
    })
}

/// `tohex(x, n)`: the last `n` digits, at most 8; capitals when negative.
fn to_hex(lua: &Lua, given: &MultiValue) -> Outcome {
    let value = word_at(lua, given, 0, "tohex")?;
    let digits = if given.len() < 2 {
        8
    } else {
        word_at(lua, given, 1, "tohex")?
    };
    let count = usize::try_from(digits.unsigned_abs()).map_or(8, |count| count.min(8));
    let text = if digits < 0 {
        format!("{value:08X}")
    } else {
        format!("{value:08x}")
    };
    let start = text.len().saturating_sub(count);
    string(lua, text.get(start..).unwrap_or_default())
}

pub(super) fn open(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.set("tobit", single(lua, "tobit", |a| a)?)?;
    table.set("bnot", single(lua, "bnot", |a| !a)?)?;
    table.set("bswap", single(lua, "bswap", i32::swap_bytes)?)?;
    table.set("band", fold(lua, "band", |a, b| a & b)?)?;
    table.set("bor", fold(lua, "bor", |a, b| a | b)?)?;
    table.set("bxor", fold(lua, "bxor", |a, b| a ^ b)?)?;
    table.set("lshift", shift(lua, "lshift", i32::wrapping_shl)?)?;
    let logical = |a: i32, by| a.cast_unsigned().wrapping_shr(by).cast_signed();
    table.set("rshift", shift(lua, "rshift", logical)?)?;
    table.set("arshift", shift(lua, "arshift", i32::wrapping_shr)?)?;
    table.set("rol", shift(lua, "rol", i32::rotate_left)?)?;
    table.set("ror", shift(lua, "ror", i32::rotate_right)?)?;
    table.set("tohex", library(lua, to_hex)?)?;
    Ok(table)
}
