//! Replies to Lua values, and Lua values to replies, as Redis converts them.

use memchr::memchr;
use mlua::{Lua, MultiValue, Table, Value};
use protocol_resp::{Encoder, Version, number::parse_i64};

use super::api::number;
use super::number::truncated;

/// A table in a table in … of a reply: Redis has its stack's limit here.
const DEPTH_MAX: usize = 200;
/// Octets of a reply that a script builds.
const REPLY_MAX: usize = 256 << 20;

/// One argument of a command; false when it is neither text nor number.
pub(super) fn push_argument(
    value: &Value,
    data: &mut Vec<u8>,
    ranges: &mut Vec<(u32, u32)>,
) -> bool {
    let start = data.len();
    match value {
        Value::String(text) => data.extend_from_slice(&text.as_bytes()),
        Value::Integer(integer) => protocol_resp::number::write_i64(data, *integer),
        Value::Number(number) => {
            // Without the sign of zero, as Redis makes an integer of what is one.
            protocol_resp::number::write_f64(data, *number + 0.0);
        }
        _ => return false,
    }
    // The interpreter's memory is limited far below 4 GiB.
    ranges.push((start as u32, (data.len() - start) as u32));
    true
}

/// A reply that a command of ours has written. The rest of `bytes` is left behind it.
pub(crate) fn to_lua(lua: &Lua, bytes: &mut &[u8]) -> mlua::Result<Value> {
    let Some(end) = memchr(b'\n', bytes) else {
        return Err(mlua::Error::runtime("a reply has no end"));
    };
    let line = bytes.get(1..end.saturating_sub(1)).unwrap_or_default();
    let kind = bytes.first().copied().unwrap_or_default();
    *bytes = bytes.get(end + 1..).unwrap_or_default();
    let count = || parse_i64(line).unwrap_or(-1);
    let field = |name: &str, value: Value| {
        let table = lua.create_table()?;
        table.raw_set(name, value)?;
        Ok::<_, mlua::Error>(Value::Table(table))
    };
    Ok(match kind {
        b':' => Value::Number(count() as f64),
        b'+' => field("ok", Value::String(lua.create_string(line)?))?,
        b'-' => field("err", Value::String(lua.create_string(line)?))?,
        b'_' => Value::Nil,
        b'#' => Value::Boolean(line == b"t"),
        b',' => {
            let value = protocol_resp::number::parse_f64(line).unwrap_or(f64::NAN);
            field("double", Value::Number(value))?
        }
        b'(' => field("big_number", Value::String(lua.create_string(line)?))?,
        b'$' | b'=' => {
            let Ok(length) = usize::try_from(count()) else {
                return Ok(Value::Boolean(false));
            };
            let body = bytes.get(..length).unwrap_or_default();
            *bytes = bytes.get(length + 2..).unwrap_or_default();
            if kind == b'$' {
                Value::String(lua.create_string(body)?)
            } else {
                let table = lua.create_table()?;
                table.raw_set(
                    "format",
                    lua.create_string(body.get(..3).unwrap_or_default())?,
                )?;
                table.raw_set(
                    "string",
                    lua.create_string(body.get(4..).unwrap_or_default())?,
                )?;
                field("verbatim_string", Value::Table(table))?
            }
        }
        b'*' | b'>' => {
            let Ok(count) = usize::try_from(count()) else {
                return Ok(Value::Boolean(false));
            };
            let table = lua.create_table()?;
            for place in 1..=count {
                table.raw_set(place, to_lua(lua, bytes)?)?;
            }
            Value::Table(table)
        }
        b'%' => {
            let table = lua.create_table()?;
            for _ in 0..count() {
                let key = to_lua(lua, bytes)?;
                table.raw_set(key, to_lua(lua, bytes)?)?;
            }
            field("map", Value::Table(table))?
        }
        b'~' => {
            let table = lua.create_table()?;
            for _ in 0..count() {
                table.raw_set(to_lua(lua, bytes)?, true)?;
            }
            field("set", Value::Table(table))?
        }
        _ => return Err(mlua::Error::runtime("a reply of an unknown kind")),
    })
}

/// Writes what a script returned. `script` is the protocol version that the script asked for.
pub(crate) fn to_reply(
    value: &Value,
    script: Version,
    client: Version,
    out: &mut Vec<u8>,
) -> mlua::Result<()> {
    write(value, script, client, out, 0)
}

fn write(
    value: &Value,
    script: Version,
    client: Version,
    out: &mut Vec<u8>,
    depth: usize,
) -> mlua::Result<()> {
    if out.len() > REPLY_MAX {
        return Err(mlua::Error::runtime("the reply is too large"));
    }
    let mut encoder = Encoder::new(out, client);
    if depth > DEPTH_MAX {
        encoder.error("ERR reached lua stack limit");
        return Ok(());
    }
    match value {
        Value::String(text) => encoder.bulk(&text.as_bytes()),
        Value::Boolean(yes) if script == Version::Resp3 => encoder.boolean(*yes),
        Value::Boolean(true) => encoder.integer(1),
        Value::Boolean(false) => encoder.null(),
        Value::Integer(integer) => encoder.integer(*integer),
        Value::Number(number) => encoder.integer(truncated(*number)),
        Value::Table(table) => write_table(table, script, client, out, depth)?,
        _ => encoder.null(),
    }
    Ok(())
}

/// A line cannot hold the end of one.
fn one_line(text: &mlua::LuaString) -> String {
    String::from_utf8_lossy(&text.as_bytes()).replace(['\r', '\n'], " ")
}

fn write_table(
    table: &Table,
    script: Version,
    client: Version,
    out: &mut Vec<u8>,
    depth: usize,
) -> mlua::Result<()> {
    let mut encoder = Encoder::new(out, client);
    if let Value::String(error) = table.raw_get("err")? {
        encoder.error(&one_line(&error));
        return Ok(());
    }
    if let Value::String(status) = table.raw_get("ok")? {
        encoder.simple(&one_line(&status));
        return Ok(());
    }
    if let Some(double) = number(&table.raw_get("double")?) {
        encoder.double(double);
        return Ok(());
    }
    if let Value::String(digits) = table.raw_get("big_number")? {
        encoder.big_number(&one_line(&digits));
        return Ok(());
    }
    if let Value::Table(verbatim) = table.raw_get("verbatim_string")?
        && let (Value::String(format), Value::String(text)) =
            (verbatim.raw_get("format")?, verbatim.raw_get("string")?)
    {
        let format = one_line(&format);
        let format: String = format.chars().chain("   ".chars()).take(3).collect();
        encoder.verbatim(&format, &text.as_bytes());
        return Ok(());
    }
    let mut items = Vec::new();
    if let Value::Table(map) = table.raw_get("map")? {
        let mut pairs = 0;
        map.for_each(|key: Value, value: Value| {
            pairs += 1;
            write(&key, script, client, &mut items, depth + 1)?;
            write(&value, script, client, &mut items, depth + 1)
        })?;
        encoder.map(pairs);
    } else if let Value::Table(set) = table.raw_get("set")? {
        let mut members = 0;
        set.for_each(|key: Value, _: Value| {
            members += 1;
            write(&key, script, client, &mut items, depth + 1)
        })?;
        encoder.set(members);
    } else {
        let mut count = 0;
        loop {
            let item: Value = table.raw_get(count + 1)?;
            if item.is_nil() {
                break;
            }
            if out.len() + items.len() > REPLY_MAX {
                return Err(mlua::Error::runtime("the reply is too large"));
            }
            write(&item, script, client, &mut items, depth + 1)?;
            count += 1;
        }
        Encoder::new(out, client).array(count);
    }
    out.extend_from_slice(&items);
    Ok(())
}

/// The arguments of a call as one command; the error's text otherwise.
pub(crate) fn command(
    given: &MultiValue,
    data: &mut Vec<u8>,
    ranges: &mut Vec<(u32, u32)>,
) -> Result<(), &'static str> {
    data.clear();
    ranges.clear();
    if given.is_empty() {
        return Err("Please specify at least one argument for this redis lib call");
    }
    for value in given {
        if !push_argument(value, data, ranges) {
            return Err("Lua redis lib command arguments must be strings or integers");
        }
    }
    Ok(())
}
