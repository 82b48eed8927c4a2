//! `cmsgpack`: MessagePack, in the bytes of lua-cmsgpack 0.4.0, which clients share with Redis.

use mlua::{Lua, MultiValue, Table, Value};

use super::api::{Outcome, Trouble, bad_argument, integer_at, library, number, string, string_at};

/// Tables below tables that are packed; deeper ones become nil, as in Redis.
const NESTING_MAX: usize = 16;
/// Nesting that is unpacked: our stack's limit.
const DEPTH_MAX: usize = 500;
/// Results of one call: what fits Lua's stack.
const RESULTS_MAX: usize = 7000;

fn pack(lua: &Lua, given: &MultiValue) -> Outcome {
    if given.is_empty() {
        return Err("bad argument #0 to 'pack' (MessagePack pack needs input.)".into());
    }
    let mut out = Vec::new();
    for value in given {
        put(value, &mut out, 0)?;
    }
    string(lua, out)
}

fn put(value: &Value, out: &mut Vec<u8>, level: usize) -> mlua::Result<()> {
    match value {
        Value::Boolean(yes) => out.push(if *yes { 0xc3 } else { 0xc2 }),
        Value::Integer(integer) => put_integer(*integer, out),
        Value::Number(number) => put_number(*number, out),
        Value::String(text) => {
            let text = text.as_bytes();
            match (u8::try_from(text.len()), u16::try_from(text.len())) {
                (Ok(length @ ..32), _) => out.push(0xa0 | length),
                (Ok(length), _) => out.extend_from_slice(&[0xd9, length]),
                (_, Ok(length)) => {
                    out.push(0xda);
                    out.extend_from_slice(&length.to_be_bytes());
                }
                // The interpreter's memory is limited far below 4 GiB.
                _ => {
                    out.push(0xdb);
                    out.extend_from_slice(&(text.len() as u32).to_be_bytes());
                }
            }
            out.extend_from_slice(&text);
        }
        Value::Table(table) if level < NESTING_MAX => put_table(table, out, level)?,
        _ => out.push(0xc0),
    }
    Ok(())
}

fn put_integer(value: i64, out: &mut Vec<u8>) {
    let bytes = value.to_be_bytes();
    let (tag, size) = match value {
        -32..=0x7f => (None, 1),
        0x80..=0xff => (Some(0xcc), 1),
        0x100..=0xffff => (Some(0xcd), 2),
        0x1_0000..=0xffff_ffff => (Some(0xce), 4),
        0x1_0000_0000.. => (Some(0xcf), 8),
        -0x80..-32 => (Some(0xd0), 1),
        -0x8000..-0x80 => (Some(0xd1), 2),
        -0x8000_0000..-0x8000 => (Some(0xd2), 4),
        ..-0x8000_0000 => (Some(0xd3), 8),
    };
    out.extend(tag);
    out.extend_from_slice(bytes.get(8 - size..).unwrap_or_default());
}

fn put_number(value: f64, out: &mut Vec<u8>) {
    const END: f64 = 9_223_372_036_854_775_808.0;
    if value.fract() == 0.0 && (-END..END).contains(&value) {
        return put_integer(value as i64, out);
    }
    let short = value as f32;
    if f64::from(short) == value {
        out.push(0xca);
        out.extend_from_slice(&short.to_be_bytes());
    } else {
        out.push(0xcb);
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// The length of a table whose keys are 1, 2, 3, …; none for others.
fn array_length(table: &Table) -> mlua::Result<(usize, Option<usize>)> {
    let (mut count, mut max, mut array) = (0_usize, 0.0_f64, true);
    table.for_each(|key: Value, _: Value| {
        count += 1;
        match number(&key) {
            Some(place) if place >= 1.0 && place.fract() == 0.0 => max = max.max(place),
            _ => array = false,
        }
        Ok(())
    })?;
    Ok((count, (array && max == count as f64).then_some(count)))
}

fn put_count(count: usize, (short, middle, long): (u8, u8, u8), out: &mut Vec<u8>) {
    match (u8::try_from(count), u16::try_from(count)) {
        (Ok(count @ ..16), _) => out.push(short | count),
        (_, Ok(count)) => {
            out.push(middle);
            out.extend_from_slice(&count.to_be_bytes());
        }
        _ => {
            out.push(long);
            out.extend_from_slice(&(count as u32).to_be_bytes());
        }
    }
}

fn put_table(table: &Table, out: &mut Vec<u8>, level: usize) -> mlua::Result<()> {
    let (count, array) = array_length(table)?;
    if let Some(length) = array {
        put_count(length, (0x90, 0xdc, 0xdd), out);
        for place in 1..=length {
            put(&table.raw_get::<Value>(place)?, out, level + 1)?;
        }
        return Ok(());
    }
    put_count(count, (0x80, 0xde, 0xdf), out);
    table.for_each(|key: Value, value: Value| {
        put(&key, out, level + 1)?;
        put(&value, out, level + 1)
    })
}

/// What is still to be unpacked.
struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Trouble> {
        let Some((part, rest)) = self.rest.split_at_checked(count) else {
            return Err("Missing bytes in input.".into());
        };
        self.rest = rest;
        Ok(part)
    }

    fn unsigned(&mut self, size: usize) -> Result<u64, Trouble> {
        let bytes = self.take(size)?;
        Ok(bytes
            .iter()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn signed(&mut self, size: u32) -> Result<i64, Trouble> {
        let unused = 64 - 8 * size;
        let value = self.unsigned(usize::try_from(size).unwrap_or(8))?;
        Ok((value << unused).cast_signed() >> unused)
    }

    fn value(&mut self, lua: &Lua, depth: usize) -> Result<Value, Trouble> {
        if depth > DEPTH_MAX {
            return Err("Bad data format in input.".into());
        }
        let unsigned = |value: u64| Value::Number(value as f64);
        let [tag] = *self.take(1)? else {
            return Err("Missing bytes in input.".into());
        };
        Ok(match tag {
            0x00..=0x7f => unsigned(tag.into()),
            0xe0..=0xff => Value::Number(f64::from(tag.cast_signed())),
            0xc0 => Value::Nil,
            0xc2 | 0xc3 => Value::Boolean(tag == 0xc3),
            0xca => {
                let bits = self.unsigned(4)?;
                Value::Number(f64::from(f32::from_bits(u32::try_from(bits).unwrap_or(0))))
            }
            0xcb => Value::Number(f64::from_bits(self.unsigned(8)?)),
            0xcc..=0xcf => unsigned(self.unsigned(1 << (tag - 0xcc))?),
            0xd0..=0xd3 => Value::Number(self.signed(1 << (tag - 0xd0))? as f64),
            0xa0..=0xbf => self.text(lua, u64::from(tag & 0x1f))?,
            0xd9..=0xdb => {
                let length = self.unsigned(1 << (tag - 0xd9))?;
                self.text(lua, length)?
            }
            0x90..=0x9f => self.array(lua, u64::from(tag & 0x0f), depth)?,
            0xdc | 0xdd => {
                let count = self.unsigned(2 << (tag - 0xdc))?;
                self.array(lua, count, depth)?
            }
            0x80..=0x8f => self.map(lua, u64::from(tag & 0x0f), depth)?,
            0xde | 0xdf => {
                let count = self.unsigned(2 << (tag - 0xde))?;
                self.map(lua, count, depth)?
            }
            _ => return Err("Bad data format in input.".into()),
        })
    }

    fn text(&mut self, lua: &Lua, length: u64) -> Result<Value, Trouble> {
        let bytes = self.take(usize::try_from(length).unwrap_or(usize::MAX))?;
        Ok(Value::String(lua.create_string(bytes)?))
    }

    /// The count is a peer's: nothing is sized by it, and each item takes at least an octet.
    fn array(&mut self, lua: &Lua, count: u64, depth: usize) -> Result<Value, Trouble> {
        let table = lua.create_table()?;
        for place in 1..=count {
            table.raw_set(place, self.value(lua, depth + 1)?)?;
        }
        Ok(Value::Table(table))
    }

    fn map(&mut self, lua: &Lua, count: u64, depth: usize) -> Result<Value, Trouble> {
        let table = lua.create_table()?;
        for _ in 0..count {
            let key = self.value(lua, depth + 1)?;
            let value = self.value(lua, depth + 1)?;
            match &key {
                Value::Nil => return Err("table index is nil".into()),
                Value::Number(number) if number.is_nan() => {
                    return Err("table index is NaN".into());
                }
                _ => table.raw_set(key, value)?,
            }
        }
        Ok(Value::Table(table))
    }
}

/// Up to `limit` values from `offset` on, and before them where the next one begins, or -1. With neither: all, without that.
fn unpack_some(lua: &Lua, given: &MultiValue, limit: i64, offset: i64) -> Outcome {
    let data = string_at(lua, given, 0, "unpack")?;
    let data = data.as_bytes();
    let (Ok(wanted), Ok(start)) = (usize::try_from(limit), usize::try_from(offset)) else {
        return Err(Trouble::Text(format!(
            "Invalid request to unpack with offset of {offset} and limit of {}.",
            data.len()
        )));
    };
    let Some(rest) = data.get(start..) else {
        return Err(Trouble::Text(format!(
            "Start offset {offset} greater than input length {}.",
            data.len()
        )));
    };
    let all = wanted == 0 && start == 0;
    let wanted = if all { usize::MAX } else { wanted };
    let mut input = Input { rest };
    let mut values = Vec::new();
    while !input.rest.is_empty() && values.len() < wanted {
        if values.len() >= RESULTS_MAX {
            return Err("stack overflow (too many return values at once; use unpack_one or unpack_limit instead.)".into());
        }
        values.push(input.value(lua, 0)?);
    }
    if !all {
        let next = if input.rest.is_empty() {
            -1.0
        } else {
            (data.len() - input.rest.len()) as f64
        };
        values.insert(0, Value::Number(next));
    }
    Ok(values.into_iter().collect())
}

fn optional(lua: &Lua, given: &MultiValue, place: usize, name: &str) -> Result<i64, Trouble> {
    match given.get(place) {
        None | Some(Value::Nil) => Ok(0),
        Some(_) => integer_at(lua, given, place, name),
    }
}

pub(super) fn open(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.set("_NAME", "cmsgpack")?;
    table.set("_VERSION", "lua-cmsgpack 0.4.0")?;
    table.set("_DESCRIPTION", "MessagePack C implementation for Lua")?;
    table.set("pack", library(lua, pack)?)?;
    let unpack = library(lua, |lua, given| unpack_some(lua, given, 0, 0))?;
    table.set("unpack", unpack)?;
    table.set(
        "unpack_one",
        library(lua, |lua, given| {
            unpack_some(lua, given, 1, optional(lua, given, 1, "unpack_one")?)
        })?,
    )?;
    table.set(
        "unpack_limit",
        library(lua, |lua, given| {
            if given.len() < 2 {
                return Err(bad_argument(
                    1,
                    "unpack_limit",
                    "number expected, got no value",
                ));
            }
            let limit = integer_at(lua, given, 1, "unpack_limit")?;
            unpack_some(lua, given, limit, optional(lua, given, 2, "unpack_limit")?)
        })?,
    )?;
    Ok(table)
}
