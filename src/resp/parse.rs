//! Arguments as numbers and options.

use std::time::Duration;

use broker::cache::{LexBound, ScoreBound};
use protocol_resp::extended::Extended;
use protocol_resp::number;

use super::fail::Fail;

pub(crate) fn int(text: &[u8]) -> Result<i64, Fail> {
    number::parse_i64(text).ok_or(Fail::NotInteger)
}

pub(crate) fn float(text: &[u8]) -> Result<f64, Fail> {
    number::parse_f64(text).ok_or(Fail::NotFloat)
}

/// A count that must be positive; `text` is the error.
pub(crate) fn positive(text: &[u8], error: &'static str) -> Result<usize, Fail> {
    match natural(text, error)? {
        0 => Err(Fail::Text(error)),
        count => Ok(count),
    }
}

/// A count that must not be negative; `text` is the error.
pub(crate) fn natural(text: &[u8], error: &'static str) -> Result<usize, Fail> {
    number::parse_i64(text)
        .and_then(|value| usize::try_from(value).ok())
        .ok_or(Fail::Text(error))
}

/// A time in whole milliseconds, as `CLIENT PAUSE` and `WAIT` take it.
pub(crate) fn milliseconds(text: &[u8]) -> Result<Duration, Fail> {
    match number::parse_i64(text).map(u64::try_from) {
        None => Err(Fail::Text("ERR timeout is not an integer or out of range")),
        Some(Err(_)) => Err(Fail::Text("ERR timeout is negative")),
        Some(Ok(ms)) => Ok(Duration::from_millis(ms)),
    }
}

/// A long that is any but the smallest, which has no opposite.
pub(crate) fn opposable(text: &[u8]) -> Result<i64, Fail> {
    int(text).and_then(|value| match value {
        i64::MIN => Err(Fail::Text(
            "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
        )),
        _ => Ok(value),
    })
}

/// Compares an option word, whatever its case.
#[inline]
pub(crate) fn is(text: &[u8], word: &str) -> bool {
    text.eq_ignore_ascii_case(word.as_bytes())
}

/// Places of a list from Redis' inclusive, possibly negative bounds; empty when they exclude everything.
pub(crate) fn span(start: i64, stop: i64, len: usize) -> std::ops::Range<usize> {
    let len_i = i64::try_from(len).unwrap_or(i64::MAX);
    let start = if start < 0 {
        start.saturating_add(len_i).max(0)
    } else {
        start
    };
    let stop = if stop < 0 {
        stop.saturating_add(len_i)
    } else {
        stop.min(len_i - 1)
    };
    if start > stop || start >= len_i {
        return 0..0;
    }
    // Both lie in 0..len.
    usize::try_from(start).unwrap_or(0)..usize::try_from(stop).unwrap_or(0) + 1
}

/// A place from Redis' possibly negative index.
pub(crate) fn place(index: i64, len: usize) -> Option<usize> {
    let index = if index < 0 {
        index.checked_add(i64::try_from(len).ok()?)?
    } else {
        index
    };
    usize::try_from(index).ok().filter(|index| *index < len)
}

/// `1.5`, `(1.5`, `-inf`.
pub(crate) fn score_bound(text: &[u8]) -> Result<ScoreBound, Fail> {
    const ERROR: Fail = Fail::Text("ERR min or max is not a float");
    match text {
        [b'(', rest @ ..] => number::parse_bound(rest)
            .map(ScoreBound::Exclusive)
            .ok_or(ERROR),
        _ => number::parse_bound(text)
            .map(ScoreBound::Inclusive)
            .ok_or(ERROR),
    }
}

/// `-`, `+`, `[a`, `(a`.
pub(crate) fn lex_bound(text: &[u8]) -> Result<LexBound<'_>, Fail> {
    match text {
        b"-" => Ok(LexBound::Min),
        b"+" => Ok(LexBound::Max),
        [b'[', rest @ ..] => Ok(LexBound::Inclusive(rest)),
        [b'(', rest @ ..] => Ok(LexBound::Exclusive(rest)),
        _ => Err(Fail::Text("ERR min or max not valid string range item")),
    }
}

/// Seconds of a blocking command: `None` waits for ever.
pub(crate) fn timeout_ms(text: &[u8]) -> Result<Option<u64>, Fail> {
    // Redis reads a long double, which a double follows but for its range.
    Extended::parse(text).ok_or(Fail::Text("ERR timeout is not a float or out of range"))?;
    let seconds = number::parse_bound(text).unwrap_or(0.0);
    let ms = (seconds * 1000.0).ceil();
    if ms >= i64::MAX as f64 {
        return Err(Fail::Text("ERR timeout is out of range"));
    }
    if ms < 0.0 {
        return Err(Fail::Text("ERR timeout is negative"));
    }
    Ok((ms > 0.0).then_some(ms as u64))
}
