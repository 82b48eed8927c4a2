//! Streams.

pub(crate) mod add;
pub(crate) mod group;
pub(crate) mod idempotence;
pub(crate) mod info;
pub(crate) mod pending;
pub(crate) mod range;
pub(crate) mod read;
pub(crate) mod refs;
pub(crate) mod release;

use broker::cache::{Between, Entry, EntryId};
use protocol_resp::{Encoder, number};

use crate::resp::fail::{Done, Fail, lossy};
use crate::resp::spec::*;

/// One key, the first argument.
const ONE: Keys = Keys::Range(1, 1, 1);

/// No id is longer.
const ID_MAX: usize = 127;

const BAD_ID: Fail = Fail::Text("ERR Invalid stream ID specified as stream command argument");

/// An id; the sequence, where it is not given, is `seq`.
fn id(text: &[u8], seq: u64) -> Result<EntryId, Fail> {
    match id_or_open(text, seq)? {
        (id, true) => Ok(id),
        (_, false) => Err(BAD_ID),
    }
}

/// The same, or `ms-*`: then false is with it.
fn id_or_open(text: &[u8], seq: u64) -> Result<(EntryId, bool), Fail> {
    if text.len() > ID_MAX {
        return Err(BAD_ID);
    }
    // As a C string ends.
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let mut halves = text.splitn(2, |byte| *byte == b'-');
    let ms = halves.next().and_then(unsigned).ok_or(BAD_ID)?;
    match halves.next() {
        None => Ok((EntryId { ms, seq }, true)),
        Some(b"*") => Ok((EntryId { ms, seq: 0 }, false)),
        Some(text) => {
            let seq = unsigned(text).ok_or(BAD_ID)?;
            Ok((EntryId { ms, seq }, true))
        }
    }
}

/// An id, `-` or `+`.
fn id_or_edge(text: &[u8], seq: u64) -> Result<EntryId, Fail> {
    match text {
        b"-" => Ok(EntryId::MIN),
        b"+" => Ok(EntryId::MAX),
        _ => id(text, seq),
    }
}

/// Where a range begins; `(`: behind that.
fn start(text: &[u8]) -> Result<EntryId, Fail> {
    match text {
        [b'(', rest @ ..] if !rest.is_empty() => id(rest, 0)?
            .after()
            .ok_or(Fail::Text("ERR invalid start ID for the interval")),
        _ => id_or_edge(text, 0),
    }
}

/// Where a range ends; `(`: before that.
fn end(text: &[u8]) -> Result<EntryId, Fail> {
    match text {
        [b'(', rest @ ..] if !rest.is_empty() => id(rest, u64::MAX)?
            .before()
            .ok_or(Fail::Text("ERR invalid end ID for the interval")),
        _ => id_or_edge(text, u64::MAX),
    }
}

/// As Redis reads one: canonical, or else what C's `strtoull` takes.
fn unsigned(text: &[u8]) -> Option<u64> {
    if let Some(value) = number::parse_i64(text) {
        return u64::try_from(value).ok();
    }
    let text = text.trim_ascii_start();
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() {
        return None;
    }
    let value = digits.iter().try_fold(0u64, |value, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })?;
    Some(if negative {
        value.wrapping_neg()
    } else {
        value
    })
}

fn write_id(out: &mut Encoder<'_>, id: EntryId) {
    out.bulk(id.to_string().as_bytes());
}

fn write_entry(out: &mut Encoder<'_>, entry: &Entry<'_>) {
    out.array(2);
    write_id(out, entry.id);
    let pairs = entry.pairs();
    out.array(pairs.len() * 2);
    for (field, value) in pairs {
        out.bulk(field);
        out.bulk(value);
    }
}

/// What was asked for, wherever it is.
fn show(out: &mut Encoder<'_>, entries: &mut Between<'_>) -> Done {
    out.array(entries.len());
    entries.each(|entry| write_entry(out, entry))?;
    Ok(())
}

/// Walks over them twice: there may be too many to be noted.
fn write_entries<'e>(out: &mut Encoder<'_>, entries: impl Iterator<Item = Entry<'e>> + Clone) {
    out.array(entries.clone().count());
    entries.for_each(|entry| write_entry(out, &entry));
}

/// A count or time that Redis keeps as a signed number.
fn write_unsigned(out: &mut Encoder<'_>, value: u64) {
    out.integer(value.cast_signed());
}

fn write_or_null(out: &mut Encoder<'_>, value: Option<i64>) {
    match value {
        Some(value) => out.integer(value),
        None => out.null(),
    }
}

/// A limit as Redis gives it: 0 is none.
fn limit(count: usize) -> usize {
    if count == 0 { usize::MAX } else { count }
}

/// A subcommand that does not take these arguments.
fn bad_subcommand(command: &str, sub: &[u8]) -> Fail {
    Fail::Owned(format!(
        "ERR unknown subcommand or wrong number of arguments for '{}'. Try {command} HELP.",
        lossy(sub, 128)
    ))
}

fn no_group_for(group: &[u8], key: &[u8]) -> Fail {
    Fail::Owned(format!(
        "NOGROUP No such consumer group '{}' for key name '{}'",
        lossy(group, group.len()),
        lossy(key, key.len())
    ))
}

fn no_key_or_group(key: &[u8], group: &[u8]) -> Fail {
    Fail::Owned(format!(
        "NOGROUP No such key '{}' or consumer group '{}'",
        lossy(key, key.len()),
        lossy(group, group.len())
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_as_redis_reads_them() {
        let read = |text: &str| id(text.as_bytes(), 9).ok().map(|id| (id.ms, id.seq));
        assert_eq!(read("5"), Some((5, 9)));
        assert_eq!(read("5-3"), Some((5, 3)));
        assert_eq!(read(" 5-3"), Some((5, 3)));
        assert_eq!(read("+05-03"), Some((5, 3)));
        assert_eq!(
            read("18446744073709551615-18446744073709551615"),
            Some((u64::MAX, u64::MAX))
        );
        assert_eq!(read("1--03"), Some((1, 3u64.wrapping_neg())));
        for bad in [
            "",
            "-",
            "+",
            "-5",
            "5-",
            "5--3",
            "5-*",
            "5 ",
            "x",
            "18446744073709551616",
            "1-2-3",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(
            id_or_open(b"5-*", 0).ok().map(|(id, given)| (id.ms, given)),
            Some((5, false))
        );
    }
}
