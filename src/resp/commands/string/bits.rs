//! Strings as bitmaps.

use broker::cache::{Expire, Member};
use protocol_resp::{Args, number};

use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail, OOM};
use crate::resp::parse::{int, is};
use crate::resp::permission::{BOTH, Rights};
use crate::resp::spec::*;
use broker::access::Verbs;

pub(crate) const COMMANDS: &[Spec] = &[
    on_keys(
        "setbit",
        4,
        WRITE.and(DENYOOM),
        Keys::Range(1, 1, 1),
        setbit,
        "2.2.0",
        "Sets one bit of a string.",
    )
    .needing(Rights::Keys(BOTH)),
    on_keys(
        "getbit",
        3,
        READ.and(FAST),
        Keys::Range(1, 1, 1),
        getbit,
        "2.2.0",
        "Reads one bit of a string.",
    ),
    on_keys(
        "bitcount",
        -2,
        READ,
        Keys::Range(1, 1, 1),
        bitcount,
        "2.6.0",
        "Counts the bits that are set.",
    ),
    on_keys(
        "bitpos",
        -3,
        READ,
        Keys::Range(1, 1, 1),
        bitpos,
        "2.8.7",
        "Finds the first bit that is set or clear.",
    ),
    on_keys(
        "bitop",
        -4,
        WRITE.and(DENYOOM),
        Keys::Range(2, -1, 1),
        bitop,
        "2.6.0",
        "Combines strings bit by bit.",
    )
    .needing(Rights::Split(Verbs::WRITE, Verbs::READ)),
];

/// Bits of the longest string.
const BITS_MAX: u64 = (512 << 20) * 8;

/// A place in bits; `times`: how many of them each counts.
pub(super) fn offset(text: &[u8], times: i64) -> Result<usize, Fail> {
    number::parse_i64(text)
        .and_then(|value| value.checked_mul(times))
        .and_then(|value| u64::try_from(value).ok())
        .filter(|value| *value < BITS_MAX)
        .and_then(|value| usize::try_from(value).ok())
        .ok_or(Fail::Text(
            "ERR bit offset is not an integer or out of range",
        ))
}

fn setbit(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let at = offset(args.at(2), 1)?;
    let on = match args.at(3) {
        b"0" => false,
        b"1" => true,
        _ => return Err(Fail::Text("ERR bit is not an integer or out of range")),
    };
    let (name, mut view, out) = cx.on(args.at(1));
    let (byte, mask) = (at / 8, 0x80u8 >> (at % 8));
    let most = view.string_max();
    let old = view.edit_string(&name, |bytes| {
        let grown = bytes.len() <= byte;
        if grown && byte < most {
            bytes.resize(byte + 1, 0);
        }
        let Some(place) = bytes.get_mut(byte) else {
            return (None, 0..0);
        };
        let old = *place & mask != 0;
        *place = if on { *place | mask } else { *place & !mask };
        (
            Some(old),
            if grown || old != on {
                byte..byte + 1
            } else {
                0..0
            },
        )
    })?;
    out.integer(i64::from(old.ok_or(Fail::Text(OOM))?));
    Ok(())
}

fn getbit(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let at = offset(args.at(2), 1)?;
    let (name, mut view, out) = cx.on(args.at(1));
    let byte = view
        .string(&name)?
        .and_then(|value| value.with(|bytes| bytes.get(at / 8).copied()))
        .unwrap_or(0);
    out.integer(i64::from(byte >> (7 - at % 8) & 1));
    Ok(())
}

/// A range of bits from Redis' inclusive bounds in bytes or bits.
fn bits(start: i64, end: i64, by_bit: bool, bytes: usize) -> std::ops::Range<usize> {
    let len = if by_bit { bytes * 8 } else { bytes };
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    // A negative bound before the front is the front, for the end as well.
    let at = |bound: i64| match bound {
        ..0 => bound.saturating_add(len).max(0),
        _ => bound,
    };
    let (first, last) = (at(start), at(end).min(len - 1));
    let range = if first > last {
        0..0
    } else {
        usize::try_from(first).unwrap_or(0)..usize::try_from(last).unwrap_or(0) + 1
    };
    if by_bit {
        range
    } else {
        range.start * 8..range.end * 8
    }
}

fn unit(word: Option<&[u8]>) -> Result<bool, Fail> {
    match word {
        None => Ok(false),
        Some(word) if is(word, "BYTE") => Ok(false),
        Some(word) if is(word, "BIT") => Ok(true),
        Some(_) => Err(Fail::Syntax),
    }
}

fn bitcount(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (start, end, by_bit) = match args.len() {
        2 => (0, -1, false),
        3 => (int(args.at(2))?, -1, false),
        4 | 5 => {
            // A wrong unit is told before a wrong end.
            let (start, by_bit) = (int(args.at(2))?, unit(args.get(4))?);
            (start, int(args.at(3))?, by_bit)
        }
        _ => return Err(Fail::Syntax),
    };
    let (name, mut view, out) = cx.on(args.at(1));
    let value = view.string(&name)?;
    out.count(value.map_or(0, |value| {
        value.with(|bytes| {
            if start < 0 && end < 0 && start > end {
                return 0;
            }
            let range = bits(start, end, by_bit, bytes.len());
            count(bytes, range)
        })
    }));
    Ok(())
}

fn count(bytes: &[u8], range: std::ops::Range<usize>) -> usize {
    let bit = |at: usize| usize::from(bytes.get(at / 8).copied().unwrap_or(0) >> (7 - at % 8) & 1);
    let (first, last) = (range.start.div_ceil(8) * 8, range.end / 8 * 8);
    if first >= last {
        return range.map(bit).sum();
    }
    let whole: usize = bytes
        .get(first / 8..last / 8)
        .unwrap_or_default()
        .iter()
        .map(|byte| byte.count_ones() as usize)
        .sum();
    (range.start..first).map(bit).sum::<usize>() + whole + (last..range.end).map(bit).sum::<usize>()
}

fn bitpos(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let wanted = match int(args.at(2))? {
        0 => false,
        1 => true,
        _ => return Err(Fail::Text("ERR The bit argument must be 1 or 0.")),
    };
    if args.len() > 6 {
        return Err(Fail::Syntax);
    }
    let start = args.get(3).map_or(Ok(0), int)?;
    let by_bit = unit(args.get(5))?;
    let end = args.get(4).map_or(Ok(-1), int)?;
    let open_end = args.len() < 5;
    let (name, mut view, out) = cx.on(args.at(1));
    let Some(value) = view.string(&name)? else {
        out.integer(if wanted { -1 } else { 0 });
        return Ok(());
    };
    let found = value.with(|bytes| {
        let range = bits(start, end, by_bit, bytes.len());
        let skip = if wanted { 0x00 } else { 0xff };
        let mut at = range.start;
        while at < range.end {
            let byte = bytes.get(at / 8).copied().unwrap_or(0);
            if at.is_multiple_of(8) && at + 8 <= range.end && byte == skip {
                at += 8;
                continue;
            }
            if (byte >> (7 - at % 8) & 1 == 1) == wanted {
                return i64::try_from(at).unwrap_or(-1);
            }
            at += 1;
        }
        // Behind the end of a string all bits are clear, unless the end was given.
        if !wanted && open_end && !range.is_empty() {
            i64::try_from(bytes.len() * 8).unwrap_or(-1)
        } else {
            -1
        }
    });
    out.integer(found);
    Ok(())
}

fn bitop(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let word = args.at(1);
    let combine: fn(u8, u8) -> u8 = if is(word, "AND") {
        |a, b| a & b
    } else if is(word, "OR") {
        |a, b| a | b
    } else if is(word, "XOR") {
        |a, b| a ^ b
    } else if is(word, "NOT") {
        if args.len() != 4 {
            return Err(Fail::Text(
                "ERR BITOP NOT must be called with a single source key.",
            ));
        }
        |_, b| !b
    } else {
        return Err(Fail::Syntax);
    };
    let mut sources = Vec::new();
    for key in args.iter().skip(3) {
        let (name, mut view, _) = cx.on(key);
        sources.push(view.string(&name)?.map_or_else(Vec::new, Member::to_vec));
    }
    let length = sources.iter().map(Vec::len).max().unwrap_or(0);
    let mut result: Vec<u8> = Vec::with_capacity(length);
    let not = is(word, "NOT");
    for at in 0..length {
        let mut bytes = sources
            .iter()
            .map(|source| source.get(at).copied().unwrap_or(0));
        let first = bytes.next().unwrap_or(0);
        result.push(if not {
            combine(0, first)
        } else {
            bytes.fold(first, combine)
        });
    }
    let (name, mut view, out) = cx.on(args.at(2));
    if result.is_empty() {
        view.delete(&name)?;
    } else {
        view.set_string(&name, &result, Expire::Never)?;
    }
    out.count(length);
    Ok(())
}
