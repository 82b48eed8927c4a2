//! `struct`: packs and unpacks binary values, in the formats of Roberto Ierusalimschy's library as Redis has it (64 bits).

use mlua::{Lua, MultiValue, Table, Value};

use super::api::{
    Outcome, Trouble, bad_argument, integer_at, library, number_at, string, string_at,
};
use super::number;

/// Octets of the largest integer.
const INTEGER_MAX: usize = 32;
const ALIGN_MAX: usize = 8;
/// Results of one `unpack`: what fits Lua's stack.
const RESULTS_MAX: usize = 7000;

/// A format as it is read.
struct Format<'a> {
    rest: &'a [u8],
    big: bool,
    align: usize,
    name: &'static str,
}

/// An item of a format, with its size and the padding before it.
struct Item {
    option: u8,
    size: usize,
    padding: usize,
}

impl<'a> Format<'a> {
    fn new(text: &'a [u8], name: &'static str) -> Self {
        Self {
            rest: text,
            big: false,
            align: 1,
            name,
        }
    }

    fn count(&mut self, otherwise: usize) -> Result<usize, Trouble> {
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit());
        let digits = digits.count();
        if digits == 0 {
            return Ok(otherwise);
        }
        let (number, rest) = self.rest.split_at(digits);
        self.rest = rest;
        let number = std::str::from_utf8(number).ok();
        match number.and_then(|number| number.parse::<i32>().ok()) {
            Some(number) => Ok(usize::try_from(number).unwrap_or(0)),
            None => Err("integral size overflow".into()),
        }
    }

    /// The next item, when `at` octets have gone before; settings are taken on the way.
    fn next(&mut self, at: usize) -> Result<Option<Item>, Trouble> {
        loop {
            let Some((option, rest)) = self.rest.split_first() else {
                return Ok(None);
            };
            self.rest = rest;
            let size = match option {
                b'b' | b'B' | b'x' => 1,
                b'h' | b'H' => 2,
                b'l' | b'L' | b'T' | b'd' => 8,
                b'f' => 4,
                b'c' => self.count(1)?,
                b's' => 0,
                b'i' | b'I' => {
                    let size = self.count(4)?;
                    if size > INTEGER_MAX {
                        return Err(Trouble::Text(format!(
                            "integral size {size} is larger than limit of {INTEGER_MAX}"
                        )));
                    }
                    size
                }
                b' ' => continue,
                b'>' | b'<' => {
                    self.big = *option == b'>';
                    continue;
                }
                b'!' => {
                    let align = self.count(ALIGN_MAX)?;
                    if !align.is_power_of_two() {
                        return Err(Trouble::Text(format!(
                            "alignment {align} is not a power of 2"
                        )));
                    }
                    self.align = align;
                    continue;
                }
                other => {
                    let why = format!("invalid format option '{}'", char::from(*other));
                    return Err(bad_argument(0, self.name, &why));
                }
            };
            let padding = if size == 0 || *option == b'c' {
                0
            } else {
                // As the library: sizes that are no power of 2 are masked all the same.
                let unit = size.min(self.align);
                unit.wrapping_sub(at & (unit - 1)) & (unit - 1)
            };
            return Ok(Some(Item {
                option: *option,
                size,
                padding,
            }));
        }
    }

    /// In the order of the format.
    fn ordered(&self, mut little: Vec<u8>) -> Vec<u8> {
        if self.big {
            little.reverse();
        }
        little
    }
}

fn pack(lua: &Lua, given: &MultiValue) -> Outcome {
    let text = string_at(lua, given, 0, "pack")?;
    let text = text.as_bytes();
    let mut format = Format::new(&text, "pack");
    let (mut out, mut place) = (Vec::new(), 1);
    while let Some(Item {
        option,
        size,
        padding,
    }) = format.next(out.len())?
    {
        out.resize(out.len() + padding, 0);
        match option {
            b'x' => out.push(0),
            b'f' | b'd' => {
                let value = number_at(lua, given, place, "pack")?;
                place += 1;
                let bytes = if option == b'f' {
                    (value as f32).to_le_bytes().to_vec()
                } else {
                    value.to_le_bytes().to_vec()
                };
                out.extend_from_slice(&format.ordered(bytes));
            }
            b'c' | b's' => {
                let value = string_at(lua, given, place, "pack")?;
                place += 1;
                let value = value.as_bytes();
                let size = if size == 0 { value.len() } else { size };
                let Some(part) = value.get(..size) else {
                    return Err(bad_argument(place, "pack", "string too short"));
                };
                out.extend_from_slice(part);
                if option == b's' {
                    out.push(0);
                }
            }
            _ => {
                let value = number_at(lua, given, place, "pack")?;
                place += 1;
                let value = if value < 0.0 {
                    number::truncated(value).cast_unsigned()
                } else {
                    value as u64
                };
                let mut bytes = value.to_le_bytes().to_vec();
                bytes.resize(size, 0);
                out.extend_from_slice(&format.ordered(bytes));
            }
        }
    }
    string(lua, out)
}

fn unpack(lua: &Lua, given: &MultiValue) -> Outcome {
    let text = string_at(lua, given, 0, "unpack")?;
    let text = text.as_bytes();
    let data = string_at(lua, given, 1, "unpack")?;
    let data = data.as_bytes();
    let start = if given.len() > 2 {
        integer_at(lua, given, 2, "unpack")?
    } else {
        1
    };
    if start < 1 {
        return Err(bad_argument(2, "unpack", "offset must be 1 or greater"));
    }
    let mut at = usize::try_from(start - 1).unwrap_or(usize::MAX);
    let short = || bad_argument(1, "unpack", "data string too short");
    let mut format = Format::new(&text, "unpack");
    let mut values = Vec::new();
    while let Some(Item {
        option,
        mut size,
        padding,
    }) = format.next(at)?
    {
        if values.len() >= RESULTS_MAX {
            return Err("stack overflow (too many results)".into());
        }
        at = at.checked_add(padding).ok_or_else(short)?;
        let mut part = |size: usize| {
            let end = at.checked_add(size).ok_or_else(short)?;
            let part = data.get(at..end).ok_or_else(short)?;
            at = end;
            Ok::<_, Trouble>(part)
        };
        match option {
            b'x' => {
                part(size)?;
            }
            b'f' => {
                let bytes = format.ordered(part(4)?.to_vec());
                let value = bytes.try_into().map(f32::from_le_bytes).unwrap_or_default();
                values.push(Value::Number(f64::from(value)));
            }
            b'd' => {
                let bytes = format.ordered(part(8)?.to_vec());
                let value = bytes.try_into().map(f64::from_le_bytes).unwrap_or_default();
                values.push(Value::Number(value));
            }
            b'c' => {
                if size == 0 {
                    part(0)?;
                    let last = values.pop().as_ref().and_then(super::api::number);
                    let Some(last) = last else {
                        return Err("format 'c0' needs a previous size".into());
                    };
                    size = usize::try_from(number::truncated(last)).map_err(|_| short())?;
                }
                values.push(Value::String(lua.create_string(part(size)?)?));
            }
            b's' => {
                let rest = data.get(at..).ok_or_else(short)?;
                let Some(end) = memchr::memchr(0, rest) else {
                    return Err("unfinished string in data".into());
                };
                let value = rest.get(..end).unwrap_or_default();
                at += end + 1;
                values.push(Value::String(lua.create_string(value)?));
            }
            _ => {
                let bytes = format.ordered(part(size)?.to_vec());
                let mut value = 0_u64;
                for (byte, shift) in bytes.iter().zip((0_u32..64).step_by(8)) {
                    value |= u64::from(*byte) << shift;
                }
                let value = if option.is_ascii_lowercase() {
                    let unused = 64_u32.saturating_sub(8 * u32::try_from(size).unwrap_or(8));
                    ((value << unused.min(63)).cast_signed() >> unused.min(63)) as f64
                } else {
                    value as f64
                };
                values.push(Value::Number(value));
            }
        }
    }
    values.push(Value::Number((at + 1) as f64));
    Ok(values.into_iter().collect())
}

fn size(lua: &Lua, given: &MultiValue) -> Outcome {
    let text = string_at(lua, given, 0, "size")?;
    let text = text.as_bytes();
    let mut format = Format::new(&text, "size");
    let mut total = 0_usize;
    while let Some(item) = format.next(total)? {
        match item.option {
            b's' => return Err(bad_argument(0, "size", "variable-size format in 'size'")),
            b'c' if item.size == 0 => {
                return Err(bad_argument(0, "size", "variable-length format in 'size'"));
            }
            _ => total = total.saturating_add(item.padding).saturating_add(item.size),
        }
    }
    super::api::one(Value::Number(total as f64))
}

pub(super) fn open(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.set("pack", library(lua, pack)?)?;
    table.set("unpack", library(lua, unpack)?)?;
    table.set("size", library(lua, size)?)?;
    Ok(table)
}
