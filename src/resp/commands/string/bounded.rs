//! `INCREX`: a counter with bounds and a deadline (Redis 8.8).

use std::cmp::Ordering;

use broker::cache::{Expire, Member};
use protocol_resp::extended::Extended;
use protocol_resp::{Args, Encoder, Version, number};

use super::super::until::Until;
use super::{ONE, set_and_expire};
use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail};
use crate::resp::parse::{int, is};
use crate::resp::permission::{BOTH, Rights};
use crate::resp::spec::*;

pub(crate) const COMMANDS: &[Spec] = &[on_keys(
    "increx",
    -2,
    WRITE.and(DENYOOM).and(FAST),
    ONE,
    increx,
    "8.8.0",
    "Adds to a number within bounds, and sets its deadline.",
)
.needing(Rights::Keys(BOTH))];

/// What is given; texts, since what they must be depends on what is added.
#[derive(Debug, Default)]
struct Options<'a> {
    integer: Option<&'a [u8]>,
    float: Option<&'a [u8]>,
    lower: Option<&'a [u8]>,
    upper: Option<&'a [u8]>,
    saturate: bool,
    until: Until<'a>,
    /// Only a key without a deadline gets one.
    if_none: bool,
}

fn options<'a>(args: &Args<'a>) -> Result<Options<'a>, Fail> {
    let mut options = Options::default();
    let mut at = 2;
    while let Some(word) = args.get(at) {
        let taken = options.until.take(args, at, args.len(), "PERSIST")?;
        if let Some(last) = taken {
            at = last + 1;
            continue;
        }
        at += 1;
        let flag = if is(word, "SATURATE") {
            Some(&mut options.saturate)
        } else if is(word, "ENX") {
            Some(&mut options.if_none)
        } else {
            None
        };
        if let Some(flag) = flag {
            *flag = true;
            continue;
        }
        let taken = options.integer.is_some() || options.float.is_some();
        let (place, free) = if is(word, "BYINT") {
            (&mut options.integer, !taken)
        } else if is(word, "BYFLOAT") {
            (&mut options.float, !taken)
        } else if is(word, "LBOUND") {
            let free = options.lower.is_none();
            (&mut options.lower, free)
        } else if is(word, "UBOUND") {
            let free = options.upper.is_none();
            (&mut options.upper, free)
        } else {
            return Err(Fail::Syntax);
        };
        *place = Some(args.get(at).filter(|_| free).ok_or(Fail::Syntax)?);
        at += 1;
    }
    match options.until {
        Until::Word if options.if_none => Err(Fail::Syntax),
        Until::Unsaid if options.if_none => Err(Fail::Text("ERR ENX flag requires an expiration")),
        _ => Ok(options),
    }
}

const CROSSED: Fail = Fail::Text("ERR LBOUND can't be greater than UBOUND");

/// A number before, after, and what was added to it. Without `after` it is out of bounds and stays.
#[derive(Debug, PartialEq, Eq)]
struct Sum<T> {
    before: T,
    after: Option<T>,
    added: T,
}

fn sum_integers(old: i64, options: &Options<'_>) -> Result<Sum<i64>, Fail> {
    let by = options.integer.map_or(Ok(1), int)?;
    let bound = |text: Option<&[u8]>, none: i64, wrong: &'static str| {
        text.map_or(Ok(none), |text| {
            number::parse_i64(text).ok_or(Fail::Text(wrong))
        })
    };
    let lower = bound(
        options.lower,
        i64::MIN,
        "ERR LBOUND is not an integer or out of range",
    )?;
    let upper = bound(
        options.upper,
        i64::MAX,
        "ERR UBOUND is not an integer or out of range",
    )?;
    if lower > upper {
        return Err(CROSSED);
    }
    let wanted = i128::from(old) + i128::from(by);
    let within = wanted.clamp(i128::from(lower), i128::from(upper));
    if within != wanted && !options.saturate {
        return Ok(Sum {
            before: old,
            after: None,
            added: 0,
        });
    }
    let added = i64::try_from(within - i128::from(old))
        .map_err(|_| Fail::Text("ERR applied increment would overflow"))?;
    Ok(Sum {
        before: old,
        after: Some(old.saturating_add(added)),
        added,
    })
}

fn sum_floats(old: Extended, options: &Options<'_>) -> Result<Sum<Extended>, Fail> {
    let by = options.float.unwrap_or(b"1");
    let by = Extended::parse(by).filter(|by| !by.is_infinite());
    let by = by.ok_or(Fail::NotFloat)?;
    let bound = |text: Option<&[u8]>, none: Extended, wrong: &'static str| {
        text.map_or(Ok(none), |text| {
            Extended::parse(text).ok_or(Fail::Text(wrong))
        })
    };
    let lower = bound(
        options.lower,
        Extended::largest(true),
        "ERR LBOUND is not a valid float",
    )?;
    let upper = bound(
        options.upper,
        Extended::largest(false),
        "ERR UBOUND is not a valid float",
    )?;
    if lower.compare(upper) == Ordering::Greater {
        return Err(CROSSED);
    }
    // Two finite numbers of the same sign alone have no sum.
    let wanted = old.plus(by);
    let (below, above) = match wanted {
        Some(wanted) => (
            wanted.compare(lower) == Ordering::Less,
            wanted.compare(upper) == Ordering::Greater,
        ),
        None => (by.is_negative(), !by.is_negative()),
    };
    let after = match wanted {
        Some(wanted) if !below && !above => wanted,
        _ if !options.saturate => {
            return Ok(Sum {
                before: old,
                after: None,
                added: Extended::default(),
            });
        }
        _ if below => lower,
        _ => upper,
    };
    let added = after
        .plus(old.opposite())
        .ok_or(Fail::Text("ERR applied increment would be Infinity"))?;
    Ok(Sum {
        before: old,
        after: Some(after),
        added,
    })
}

/// The number as it is now, and what was added to it.
#[derive(Debug)]
enum Answer {
    Integers(i64, i64),
    Floats(Extended, Extended),
}

fn write_float(out: &mut Encoder<'_>, value: Extended) {
    let text = value.to_text();
    match number::parse_f64(&text) {
        Some(value) if out.version() == Version::Resp3 => out.double(value),
        _ => out.bulk(&text),
    }
}

/// `INCREX key [BYINT n|BYFLOAT n] [LBOUND n] [UBOUND n] [SATURATE] [EX n|PX n|EXAT n|PXAT n|PERSIST] [ENX]`.
fn increx(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let options = options(args)?;
    let now = cx.now_ms();
    let expire = match options.until.deadline(1, now, "increx")? {
        Some(at) => Expire::At(at),
        None if options.until == Until::Word => Expire::Never,
        None => Expire::Keep,
    };
    let (name, mut view, out) = cx.on(args.at(1));
    let held = view.string(&name)?;
    let (answer, after) = if options.float.is_some() {
        let old = held.map_or_else(
            || Some(Extended::default()),
            |held| held.with(Extended::parse),
        );
        let sum = sum_floats(old.ok_or(Fail::NotFloat)?, &options)?;
        let shown = sum.after.unwrap_or(sum.before);
        let after = sum.after.map(Extended::to_text);
        (Answer::Floats(shown, sum.added), after)
    } else {
        let old = match held {
            None => 0,
            Some(Member::Int(value)) => value,
            Some(Member::Text(text)) => int(text)?,
        };
        let sum = sum_integers(old, &options)?;
        let shown = sum.after.unwrap_or(sum.before);
        let after = sum.after.map(|after| after.to_string().into_bytes());
        (Answer::Integers(shown, sum.added), after)
    };
    if let Some(after) = after {
        let lasts = options.if_none && view.expire_ms(&name)?.is_some_and(|at| at != 0);
        let expire = if lasts { Expire::Keep } else { expire };
        set_and_expire(&mut view, &name, &after, expire, now)?;
    }
    out.array(2);
    match answer {
        Answer::Integers(shown, added) => {
            out.integer(shown);
            out.integer(added);
        }
        Answer::Floats(shown, added) => {
            write_float(out, shown);
            write_float(out, added);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn integers(old: i64, words: &str) -> String {
        let words: Vec<_> = words.split_whitespace().map(str::as_bytes).collect();
        let (mut data, mut ranges) = (Vec::new(), Vec::new());
        for word in [&b"INCREX"[..], b"k"].into_iter().chain(words) {
            ranges.push((data.len() as u32, word.len() as u32));
            data.extend_from_slice(word);
        }
        let args = Args::new(&data, &ranges);
        let sum = options(&args).and_then(|options| sum_integers(old, &options));
        match sum {
            Ok(sum) => format!(
                "{} {}",
                sum.after.map_or("-".to_owned(), |n| n.to_string()),
                sum.added
            ),
            Err(fail) => fail.text().to_owned(),
        }
    }

    #[test]
    fn bounds_decline_or_clamp() {
        for (old, words, answer) in [
            (10, "", "11 1"),
            (10, "BYINT 5 UBOUND 15", "15 5"),
            (10, "BYINT 5 UBOUND 12", "- 0"),
            (10, "BYINT 5 UBOUND 12 SATURATE", "12 2"),
            (10, "BYINT 5 UBOUND 5 SATURATE", "5 -5"),
            (10, "BYINT -5 LBOUND 20 SATURATE", "20 10"),
            (10, "BYINT 5 LBOUND 20", "- 0"),
            (i64::MAX, "", "- 0"),
            (i64::MAX - 7, "BYINT 10 SATURATE", "9223372036854775807 7"),
            (
                i64::MAX,
                "BYINT -5 UBOUND -9223372036854775808 SATURATE",
                "ERR applied increment would overflow",
            ),
            (
                10,
                "LBOUND 20 UBOUND 0",
                "ERR LBOUND can't be greater than UBOUND",
            ),
            (
                10,
                "UBOUND 12.5",
                "ERR UBOUND is not an integer or out of range",
            ),
            (
                10,
                "LBOUND inf",
                "ERR LBOUND is not an integer or out of range",
            ),
            (10, "LBOUND", "ERR syntax error"),
            (10, "BYINT 1 BYINT 2", "ERR syntax error"),
            (10, "BYINT 1 BYFLOAT 2", "ERR syntax error"),
            (10, "ENX", "ERR ENX flag requires an expiration"),
            (10, "PERSIST ENX", "ERR syntax error"),
            (10, "EX 10 PERSIST", "ERR syntax error"),
            (10, "EX 10 PX 10", "ERR syntax error"),
        ] {
            assert_eq!(integers(old, words), answer, "{old} {words}");
        }
    }

    fn floats(
        old: &str,
        by: &str,
        lower: Option<&str>,
        upper: Option<&str>,
        saturate: bool,
    ) -> String {
        let options = Options {
            float: Some(by.as_bytes()),
            lower: lower.map(str::as_bytes),
            upper: upper.map(str::as_bytes),
            saturate,
            ..Options::default()
        };
        let text = |value: Extended| String::from_utf8(value.to_text()).expect("digits");
        match sum_floats(Extended::parse(old.as_bytes()).expect("a number"), &options) {
            Ok(sum) => format!(
                "{} {}",
                sum.after.map_or("-".to_owned(), text),
                text(sum.added)
            ),
            Err(fail) => fail.text().to_owned(),
        }
    }

    #[test]
    fn floats_are_bounded_too() {
        let big = "1e4932";
        assert_eq!(
            floats("10", "2.5", Some("5"), Some("15"), false),
            "12.5 2.5"
        );
        assert_eq!(floats("10", "5.5", None, Some("12.5"), false), "- 0");
        assert_eq!(floats("10", "5.5", None, Some("12.5"), true), "12.5 2.5");
        assert_eq!(floats("10", "-6", Some("8"), None, true), "8 -2");
        assert_eq!(floats("10", big, None, Some("100"), true), "100 90");
        assert_eq!(floats(big, big, None, None, false), "- 0");
        assert!(floats(big, big, None, None, true).len() > 4932);
        assert_eq!(floats("10", "1", None, Some("inf"), false), "11 1");
        assert_eq!(floats("10", "1", None, Some("-inf"), false), CROSSED.text());
        assert_eq!(floats("10", "1", Some("-inf"), Some("-inf"), false), "- 0");
        assert_eq!(
            floats("10", "1", Some("inf"), Some("inf"), true),
            "ERR applied increment would be Infinity"
        );
        assert_eq!(
            floats("10", "1", Some("abc"), None, true),
            "ERR LBOUND is not a valid float"
        );
        assert_eq!(
            floats("10", "inf", None, None, true),
            "ERR value is not a valid float"
        );
    }
}
