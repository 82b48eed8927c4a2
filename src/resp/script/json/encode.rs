//! Lua values as JSON.

use mlua::{Table, Value};

use super::{DEPTH_MAX, Invalid, Settings};
use crate::resp::script::api::{Trouble, number, type_name};
use crate::resp::script::number::general;

/// Octets of one text.
const LENGTH_MAX: usize = 256 << 20;

pub(super) fn encode(value: &Value, settings: &Settings) -> Result<Vec<u8>, Trouble> {
    let mut out = Vec::new();
    put(value, settings, &mut out, 0)?;
    Ok(out)
}

fn refuse(value: &Value, why: &str) -> Trouble {
    Trouble::Text(format!("Cannot serialise {}: {why}", type_name(value)))
}

fn put(value: &Value, settings: &Settings, out: &mut Vec<u8>, depth: i64) -> Result<(), Trouble> {
    if out.len() > LENGTH_MAX {
        return Err("not enough memory".into());
    }
    match value {
        Value::Nil => out.extend_from_slice(b"null"),
        Value::LightUserData(pointer) if pointer.0.is_null() => out.extend_from_slice(b"null"),
        Value::Boolean(true) => out.extend_from_slice(b"true"),
        Value::Boolean(false) => out.extend_from_slice(b"false"),
        Value::String(text) => put_text(&text.as_bytes(), out),
        Value::Number(_) | Value::Integer(_) => put_number(value, settings, out)?,
        Value::Table(table) => {
            let depth = depth + 1;
            if depth > settings.encode_depth.min(DEPTH_MAX) {
                return Err(Trouble::Text(format!(
                    "Cannot serialise, excessive nesting ({depth})"
                )));
            }
            match array_length(table, settings)? {
                Some(length) if length > 0 => put_array(table, length, settings, out, depth)?,
                _ => put_object(table, settings, out, depth)?,
            }
        }
        _ => return Err(refuse(value, "type not supported")),
    }
    Ok(())
}

/// Its largest place, of a table that is an array: whose keys are all whole and positive, and not too few for the largest.
fn array_length(table: &Table, settings: &Settings) -> Result<Option<u64>, Trouble> {
    let (mut max, mut items, mut array) = (0.0_f64, 0_u64, true);
    table.for_each(|key: Value, _: Value| {
        match number(&key) {
            Some(place) if place.fract() == 0.0 && place > 0.0 => {
                max = max.max(place);
                items += 1;
            }
            _ => array = false,
        }
        Ok(())
    })?;
    if !array {
        return Ok(None);
    }
    let sparse = settings.sparse_ratio > 0
        && max > items as f64 * settings.sparse_ratio as f64
        && max > settings.sparse_safe as f64;
    if sparse && settings.sparse_convert {
        return Ok(None);
    }
    if sparse {
        return Err(refuse(
            &Value::Table(table.clone()),
            "excessively sparse array",
        ));
    }
    Ok(Some(max as u64))
}

fn put_array(
    table: &Table,
    length: u64,
    settings: &Settings,
    out: &mut Vec<u8>,
    depth: i64,
) -> Result<(), Trouble> {
    out.push(b'[');
    for place in 1..=length {
        if place > 1 {
            out.push(b',');
        }
        put(&table.raw_get::<Value>(place)?, settings, out, depth)?;
    }
    out.push(b']');
    Ok(())
}

fn put_object(
    table: &Table,
    settings: &Settings,
    out: &mut Vec<u8>,
    depth: i64,
) -> Result<(), Trouble> {
    out.push(b'{');
    let (mut first, mut failed) = (true, None);
    let done = table.for_each(|key: Value, value: Value| {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        let mut pair = || {
            match &key {
                Value::String(text) => put_text(&text.as_bytes(), out),
                Value::Number(_) | Value::Integer(_) => {
                    out.push(b'"');
                    put_number(&key, settings, out)?;
                    out.push(b'"');
                }
                _ => return Err(refuse(&key, "table key must be a number or string")),
            }
            out.push(b':');
            put(&value, settings, out, depth)
        };
        pair().map_err(|error| {
            failed = Some(error);
            mlua::Error::runtime("")
        })
    });
    match (failed, done) {
        (Some(failed), _) => Err(failed),
        (None, Err(error)) => Err(error.into()),
        (None, Ok(())) => {
            out.push(b'}');
            Ok(())
        }
    }
}

fn put_number(value: &Value, settings: &Settings, out: &mut Vec<u8>) -> Result<(), Trouble> {
    let number = number(value).unwrap_or_default();
    if !number.is_finite() {
        match settings.encode_invalid {
            Invalid::Refuse => return Err(refuse(value, "must not be NaN or Inf")),
            Invalid::Null => {
                out.extend_from_slice(b"null");
                return Ok(());
            }
            Invalid::Write if number.is_nan() => {
                out.extend_from_slice(b"nan");
                return Ok(());
            }
            Invalid::Write => {}
        }
    }
    let digits = usize::try_from(settings.precision).unwrap_or(14);
    out.extend_from_slice(general(number, digits).as_bytes());
    Ok(())
}

fn put_text(text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    for byte in text {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'/' => out.extend_from_slice(b"\\/"),
            8 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            12 => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0..32 | 127 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(*byte),
        }
    }
    out.push(b'"');
}
