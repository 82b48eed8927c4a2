//! Strings and counters.

pub(crate) mod bitfield;
pub(crate) mod bits;
pub(crate) mod bounded;
pub(crate) mod compare;

use broker::cache::{Expire, Member, View};
use compare::Condition;
use protocol_resp::extended::Extended;
use protocol_resp::{Args, Encoder, number};

use super::until::{Until, deadline};
use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail, OOM, wrong_arity};
use crate::resp::parse::{int, is};
use crate::resp::permission::{self, BOTH, Rights};
use crate::resp::spec::*;

const ONE: Keys = Keys::Range(1, 1, 1);

pub(crate) const COMMANDS: &[Spec] = &[
    on_keys(
        "get",
        2,
        READ.and(FAST),
        ONE,
        get,
        "1.0.0",
        "Reads a string.",
    ),
    on_keys(
        "set",
        -3,
        WRITE.and(DENYOOM),
        ONE,
        set,
        "1.0.0",
        "Makes a key hold a string, with conditions and a deadline.",
    )
    .needing(Rights::With(permission::set)),
    on_keys(
        "setnx",
        3,
        WRITE.and(DENYOOM).and(FAST),
        ONE,
        setnx,
        "1.0.0",
        "Sets a string unless the key exists.",
    ),
    on_keys(
        "setex",
        4,
        WRITE.and(DENYOOM),
        ONE,
        setex,
        "2.0.0",
        "Sets a string and its time to live in seconds.",
    ),
    on_keys(
        "psetex",
        4,
        WRITE.and(DENYOOM),
        ONE,
        psetex,
        "2.6.0",
        "Sets a string and its time to live in milliseconds.",
    ),
    on_keys(
        "getset",
        3,
        WRITE.and(DENYOOM).and(FAST),
        ONE,
        getset,
        "1.0.0",
        "Sets a string and returns the old one.",
    )
    .needing(Rights::Keys(BOTH)),
    on_keys(
        "getdel",
        2,
        WRITE.and(FAST),
        ONE,
        getdel,
        "6.2.0",
        "Reads a string and deletes the key.",
    )
    .needing(Rights::Keys(BOTH)),
    on_keys(
        "getex",
        -2,
        WRITE.and(FAST),
        ONE,
        getex,
        "6.2.0",
        "Reads a string and changes its deadline.",
    )
    .needing(Rights::Keys(BOTH)),
    on_keys(
        "mget",
        -2,
        READ.and(FAST),
        Keys::Range(1, -1, 1),
        mget,
        "1.0.0",
        "Reads several strings.",
    ),
    on_keys(
        "mset",
        -3,
        WRITE.and(DENYOOM),
        Keys::Range(1, -1, 2),
        mset,
        "1.0.1",
        "Sets several strings at once.",
    ),
    on_keys(
        "msetnx",
        -3,
        WRITE.and(DENYOOM),
        Keys::Range(1, -1, 2),
        msetnx,
        "1.0.1",
        "Sets several strings unless one of the keys exists.",
    ),
    on_keys(
        "msetex",
        -4,
        WRITE.and(DENYOOM),
        Keys::Pairs(1),
        msetex,
        "9.1.0",
        "Sets several strings with conditions and a deadline.",
    ),
    on_keys(
        "delifeq",
        3,
        WRITE.and(FAST),
        ONE,
        delifeq,
        "9.0.0",
        "Deletes a key if it holds this string.",
    ),
    on_keys(
        "append",
        3,
        WRITE.and(DENYOOM).and(FAST),
        ONE,
        append,
        "2.0.0",
        "Appends to a string.",
    ),
    on_keys(
        "strlen",
        2,
        READ.and(FAST),
        ONE,
        strlen,
        "2.2.0",
        "Returns the length of a string.",
    ),
    on_keys(
        "getrange",
        4,
        READ,
        ONE,
        getrange,
        "2.4.0",
        "Reads a part of a string.",
    ),
    on_keys(
        "substr",
        4,
        READ,
        ONE,
        getrange,
        "1.0.0",
        "Reads a part of a string.",
    ),
    on_keys(
        "setrange",
        4,
        WRITE.and(DENYOOM),
        ONE,
        setrange,
        "2.2.0",
        "Overwrites a part of a string.",
    ),
    on_keys(
        "incr",
        2,
        WRITE.and(DENYOOM).and(FAST),
        ONE,
        incr,
        "1.0.0",
        "Adds one to an integer.",
    )
    .needing(Rights::Keys(BOTH)),
    on_keys(
        "decr",
        2,
        WRITE.and(DENYOOM).and(FAST),
        ONE,
        decr,
        "1.0.0",
        "Subtracts one from an integer.",
    )
    .needing(Rights::Keys(BOTH)),
    on_keys(
        "incrby",
        3,
        WRITE.and(DENYOOM).and(FAST),
        ONE,
        incrby,
        "1.0.0",
        "Adds to an integer.",
    )
    .needing(Rights::Keys(BOTH)),
    on_keys(
        "decrby",
        3,
        WRITE.and(DENYOOM).and(FAST),
        ONE,
        decrby,
        "1.0.0",
        "Subtracts from an integer.",
    )
    .needing(Rights::Keys(BOTH)),
    on_keys(
        "incrbyfloat",
        3,
        WRITE.and(DENYOOM).and(FAST),
        ONE,
        incrbyfloat,
        "2.6.0",
        "Adds to a number.",
    )
    .needing(Rights::Keys(BOTH)),
    on_keys(
        "lcs",
        -3,
        READ,
        Keys::Range(1, 2, 1),
        lcs,
        "7.0.0",
        "Finds the longest common subsequence of two strings.",
    ),
];

/// The longest string a key may hold: Redis' `proto-max-bulk-len`.
const MAX_LEN: usize = 512 << 20;

pub(crate) fn write(out: &mut Encoder<'_>, value: Member<'_>) {
    match value {
        Member::Text(bytes) => out.bulk(bytes),
        Member::Int(value) => out.bulk_integer(value),
    }
}

fn reply(out: &mut Encoder<'_>, value: Option<Member<'_>>) {
    match value {
        Some(value) => write(out, value),
        None => out.null(),
    }
}

#[inline]
fn get(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    let found = match view.string(&name)? {
        Some(value) => {
            write(out, value);
            true
        }
        None => {
            out.null();
            false
        }
    };
    view.note_read(found);
    Ok(())
}

/// What `SET` and `GETEX` may say behind their values.
#[derive(Debug, Default)]
struct Options<'a> {
    if_absent: bool,
    if_present: bool,
    compare: Option<Condition<'a>>,
    get: bool,
    until: Until<'a>,
}

/// Reads the options from `at`; the same one may come again.
fn options<'a>(args: &Args<'a>, mut at: usize, set: bool) -> Result<Options<'a>, Fail> {
    let mut options = Options::default();
    let keep = if set { "KEEPTTL" } else { "PERSIST" };
    while let Some(word) = args.get(at) {
        if let Some(last) = options.until.take(args, at, args.len(), keep)? {
            at = last;
        } else if !set {
            return Err(Fail::Syntax);
        } else if is(word, "NX") && !options.if_present && options.compare.is_none() {
            options.if_absent = true;
        } else if is(word, "XX") && !options.if_absent && options.compare.is_none() {
            options.if_present = true;
        } else if Condition::is_word(word)
            && !options.if_absent
            && !options.if_present
            && options.compare.is_none()
        {
            at += 1;
            let with = args.get(at).ok_or(Fail::Syntax)?;
            options.compare = Some(Condition::read(word, with)?);
        } else if is(word, "GET") {
            options.get = true;
        } else {
            return Err(Fail::Syntax);
        }
        at += 1;
    }
    Ok(options)
}

#[inline]
fn set(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (key, value) = (args.at(1), args.at(2));
    if args.len() == 3 {
        let (name, mut view, out) = cx.on(key);
        view.set_string(&name, value, Expire::Never)?;
        out.ok();
        return Ok(());
    }
    set_with(cx, args, key, value)
}

fn set_with(cx: &mut Exec<'_, '_>, args: &Args<'_>, key: &[u8], value: &[u8]) -> Done {
    let now = cx.now_ms();
    let Options {
        if_absent,
        if_present,
        compare,
        get,
        until,
    } = options(args, 3, true)?;
    let expire = expire(until, now, "set")?;
    let (name, mut view, out) = cx.on(key);
    let mut holds = true;
    let found = if get || compare.is_some() {
        let old = view.string(&name)?;
        holds = compare.is_none_or(|condition| condition.holds(old));
        if get {
            reply(out, old);
        }
        old.is_some()
    } else if if_absent || if_present {
        view.exists(&name)?
    } else {
        false
    };
    let refused = (if_absent && found) || (if_present && !found) || !holds;
    if refused {
        if !get {
            out.null();
        }
        return Ok(());
    }
    set_and_expire(&mut view, &name, value, expire, now)?;
    if !get {
        out.ok();
    }
    Ok(())
}

fn setnx(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    let free = !view.exists(&name)?;
    if free {
        view.set_string(&name, args.at(2), Expire::Never)?;
    }
    out.integer(i64::from(free));
    Ok(())
}

fn setex(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    set_until(cx, args, "EX", "setex")
}

fn psetex(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    set_until(cx, args, "PX", "psetex")
}

fn set_until(cx: &mut Exec<'_, '_>, args: &Args<'_>, unit: &str, command: &str) -> Done {
    let at = deadline(unit, args.at(2), 1, cx.now_ms(), command)?;
    let (name, mut view, out) = cx.on(args.at(1));
    view.set_string(&name, args.at(3), Expire::At(at))?;
    out.ok();
    Ok(())
}

fn getset(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    reply(out, view.string(&name)?);
    view.set_string(&name, args.at(2), Expire::Never)?;
    Ok(())
}

fn getdel(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    reply(out, view.string(&name)?);
    view.delete(&name)?;
    Ok(())
}

fn getex(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let options = options(args, 2, false)?;
    let now = cx.now_ms();
    let (name, mut view, out) = cx.on(args.at(1));
    let Some(found) = view.string(&name)? else {
        out.null();
        return Ok(());
    };
    let expire = match options.until.deadline(1, now, "getex")? {
        None if options.until == Until::Word => Some(0),
        at => at,
    };
    reply(out, Some(found));
    if let Some(expire) = expire
        && view.expire_ms(&name)? != Some(expire)
    {
        view.set_expire(&name, expire)?;
    }
    Ok(())
}

fn mget(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    cx.out.array(args.len() - 1);
    for key in args.iter().skip(1) {
        let (name, mut view, out) = cx.on(key);
        match view.string(&name) {
            // Another type reads as missing.
            Err(broker::cache::Error::WrongType) => out.null(),
            found => reply(out, found?),
        }
    }
    Ok(())
}

fn pairs<'a>(
    args: &Args<'a>,
    command: &str,
) -> Result<impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a>, Fail> {
    if args.len().is_multiple_of(2) {
        return Err(wrong_arity(command));
    }
    let values = args.from(2);
    Ok(args.from(1).iter().step_by(2).zip(values.iter().step_by(2)))
}

fn mset(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    for (key, value) in pairs(args, "mset")? {
        let (name, mut view, _) = cx.on(key);
        view.set_string(&name, value, Expire::Never)?;
    }
    cx.out.ok();
    Ok(())
}

fn msetnx(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    for (key, _) in pairs(args, "msetnx")? {
        let (name, mut view, out) = cx.on(key);
        if view.exists(&name)? {
            out.integer(0);
            return Ok(());
        }
    }
    for (key, value) in pairs(args, "msetnx")? {
        let (name, mut view, _) = cx.on(key);
        view.set_string(&name, value, Expire::Never)?;
    }
    cx.out.integer(1);
    Ok(())
}

/// `MSETEX numkeys key value … [NX|XX] [EX n|PX n|EXAT n|PXAT n|KEEPTTL]`, as Valkey has it.
fn msetex(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let keys = number::parse_i64(args.at(1))
        .and_then(|keys| i32::try_from(keys).ok())
        .and_then(|keys| usize::try_from(keys).ok())
        .filter(|keys| *keys > 0)
        .ok_or(Fail::Text("ERR invalid numkeys value or out of range"))?;
    if keys > (args.len() - 2) / 2 {
        return Err(Fail::Syntax);
    }
    let now = cx.now_ms();
    let options = options(args, 2 + keys * 2, true)?;
    if options.get || options.compare.is_some() {
        return Err(Fail::Syntax);
    }
    let expire = expire(options.until, now, "msetex")?;
    let pairs = || (0..keys).map(|place| (args.at(2 + place * 2), args.at(3 + place * 2)));
    if options.if_absent || options.if_present {
        for (key, _) in pairs() {
            let (name, mut view, out) = cx.on(key);
            if view.exists(&name)? == options.if_absent {
                out.integer(0);
                return Ok(());
            }
        }
    }
    for (key, value) in pairs() {
        let (name, mut view, _) = cx.on(key);
        set_and_expire(&mut view, &name, value, expire, now)?;
    }
    cx.out.integer(1);
    Ok(())
}

/// What options of `SET` and its like say.
fn expire(until: Until<'_>, now: u64, command: &str) -> Result<Expire, Fail> {
    Ok(match until.deadline(1, now, command)? {
        Some(at) => Expire::At(at),
        None if until == Until::Word => Expire::Keep,
        None => Expire::Never,
    })
}

/// A deadline that has passed: the key is gone as soon as it is set.
fn set_and_expire(
    view: &mut View<'_>,
    name: &broker::cache::Name<'_>,
    value: &[u8],
    expire: Expire,
    now: u64,
) -> Done {
    match expire {
        Expire::At(at) if at <= now => {
            view.set_string(name, value, Expire::Never)?;
            view.delete(name)?;
        }
        _ => view.set_string(name, value, expire)?,
    }
    Ok(())
}

fn delifeq(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    let held = view.string(&name)?;
    let equal = held.is_some_and(|held| held.with(|held| held == args.at(2)));
    if equal {
        view.delete(&name)?;
    }
    out.integer(i64::from(equal));
    Ok(())
}

const TOO_LONG: Fail = Fail::Text("ERR string exceeds maximum allowed size (proto-max-bulk-len)");

fn append(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let more = args.at(2);
    let (name, mut view, out) = cx.on(args.at(1));
    if more.is_empty() && !view.exists(&name)? {
        // Nothing behind nothing makes a key all the same.
        view.set_string(&name, more, Expire::Never)?;
    }
    let most = view.string_max();
    let length = view.edit_string(&name, |bytes| {
        let start = bytes.len();
        let end = start + more.len();
        if end > MAX_LEN {
            return (Err(TOO_LONG), 0..0);
        }
        if end > most && start < end {
            return (Err(Fail::Text(OOM)), 0..0);
        }
        bytes.extend_from_slice(more);
        (Ok(end), start..end)
    })?;
    out.count(length?);
    Ok(())
}

fn strlen(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    out.count(
        view.string(&name)?
            .map_or(0, |value| value.with(<[u8]>::len)),
    );
    Ok(())
}

fn getrange(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (start, end) = (int(args.at(2))?, int(args.at(3))?);
    let (name, mut view, out) = cx.on(args.at(1));
    let Some(value) = view.string(&name)? else {
        out.bulk(b"");
        return Ok(());
    };
    value.with(|bytes| {
        let len = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        if start < 0 && end < 0 && start > end {
            return out.bulk(b"");
        }
        let clamp = |at: i64| {
            if at < 0 {
                at.saturating_add(len).max(0)
            } else {
                at.min(len - 1)
            }
        };
        let (first, last) = (
            if start < 0 {
                start.saturating_add(len).max(0)
            } else {
                start
            },
            clamp(end),
        );
        if first > last || len == 0 {
            return out.bulk(b"");
        }
        let range = usize::try_from(first).unwrap_or(0)..usize::try_from(last).unwrap_or(0) + 1;
        out.bulk(bytes.get(range).unwrap_or_default());
    });
    Ok(())
}

fn setrange(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let offset =
        usize::try_from(int(args.at(2))?).map_err(|_| Fail::Text("ERR offset is out of range"))?;
    let patch = args.at(3);
    let (name, mut view, out) = cx.on(args.at(1));
    if patch.is_empty() {
        out.count(
            view.string(&name)?
                .map_or(0, |value| value.with(<[u8]>::len)),
        );
        return Ok(());
    }
    let end = offset.saturating_add(patch.len());
    if end > MAX_LEN {
        view.string(&name)?;
        return Err(TOO_LONG);
    }
    let most = view.string_max();
    let length = view.edit_string(&name, |bytes| {
        if bytes.len() < end && end > most {
            return (None, 0..0);
        }
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        if let Some(place) = bytes.get_mut(offset..end) {
            place.copy_from_slice(patch);
        }
        (Some(bytes.len()), offset..end)
    })?;
    out.count(length.ok_or(Fail::Text(OOM))?);
    Ok(())
}

#[inline]
fn add(cx: &mut Exec<'_, '_>, key: &[u8], delta: i64) -> Done {
    let (name, mut view, out) = cx.on(key);
    let new = view.edit_integer(&name, |old| {
        let old = match old {
            None => 0,
            Some(Member::Int(value)) => value,
            Some(Member::Text(bytes)) => int(bytes)?,
        };
        old.checked_add(delta)
            .ok_or(Fail::Text("ERR increment or decrement would overflow"))
    })??;
    out.integer(new);
    Ok(())
}

fn incr(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    add(cx, args.at(1), 1)
}

fn decr(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    add(cx, args.at(1), -1)
}

fn incrby(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    add(cx, args.at(1), int(args.at(2))?)
}

fn decrby(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let delta = int(args.at(2))?
        .checked_neg()
        .ok_or(Fail::Text("ERR decrement would overflow"))?;
    add(cx, args.at(1), delta)
}

/// The sum of two numbers as Redis prints it; `bad` is the error when the old one is none.
pub(crate) fn sum_floats(old: &[u8], delta: &[u8], bad: Fail) -> Result<Vec<u8>, Fail> {
    let whole = number::parse_i64(old).zip(number::parse_i64(delta));
    if let Some(sum) = whole.and_then(|(old, delta)| old.checked_add(delta)) {
        return Ok(sum.to_string().into_bytes());
    }
    let old = Extended::parse(old).ok_or(bad)?;
    let delta = Extended::parse(delta).ok_or(Fail::NotFloat)?;
    let sum = old
        .plus(delta)
        .ok_or(Fail::Text("ERR increment would produce NaN or Infinity"))?;
    Ok(sum.to_text())
}

fn incrbyfloat(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    let old = view
        .string(&name)?
        .map_or_else(|| b"0".to_vec(), Member::to_vec);
    let new = sum_floats(&old, args.at(2), Fail::NotFloat)?;
    view.set_string(&name, &new, Expire::Keep)?;
    out.bulk(&new);
    Ok(())
}

fn string_of(view: &mut View<'_>, name: &broker::cache::Name<'_>) -> Result<Vec<u8>, Fail> {
    match view.string(name) {
        Ok(value) => Ok(value.map_or_else(Vec::new, Member::to_vec)),
        Err(broker::cache::Error::WrongType) => Err(Fail::Text(
            "ERR The specified keys must contain string values",
        )),
        Err(error) => Err(error.into()),
    }
}

fn lcs(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (a, b) = {
        let (name, mut view, _) = cx.on(args.at(1));
        let a = string_of(&mut view, &name)?;
        let (name, mut view, _) = cx.on(args.at(2));
        (a, string_of(&mut view, &name)?)
    };
    let (mut length_only, mut places, mut with_len, mut min_len) = (false, false, false, 0usize);
    let mut at = 3;
    while let Some(word) = args.get(at) {
        if is(word, "LEN") {
            length_only = true;
        } else if is(word, "IDX") {
            places = true;
        } else if is(word, "WITHMATCHLEN") {
            with_len = true;
        } else if is(word, "MINMATCHLEN") {
            at += 1;
            min_len = usize::try_from(int(args.get(at).ok_or(Fail::Syntax)?)?).unwrap_or(0);
        } else {
            return Err(Fail::Syntax);
        }
        at += 1;
    }
    if length_only && places {
        return Err(Fail::Text(
            "ERR If you want both the length and indexes, please just use IDX.",
        ));
    }
    let width = b.len() + 1;
    // Redis refuses when its table would pass the largest allocation; ours is bounded to 256 MiB.
    if (a.len() + 1).saturating_mul(width) > 64 << 20 {
        return Err(Fail::Text(
            "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
        ));
    }
    let mut table = vec![0u32; (a.len() + 1) * width];
    let cell = |table: &[u32], i: usize, j: usize| table.get(i * width + j).copied().unwrap_or(0);
    for (i, x) in a.iter().enumerate() {
        for (j, y) in b.iter().enumerate() {
            let best = if x == y {
                cell(&table, i, j) + 1
            } else {
                cell(&table, i, j + 1).max(cell(&table, i + 1, j))
            };
            if let Some(slot) = table.get_mut((i + 1) * width + j + 1) {
                *slot = best;
            }
        }
    }
    let length = cell(&table, a.len(), b.len()) as usize;
    if length_only {
        cx.out.count(length);
        return Ok(());
    }
    // Backwards from the end: matched bytes, and runs of them.
    let (mut i, mut j) = (a.len(), b.len());
    let mut common = Vec::with_capacity(length);
    let mut runs: Vec<(usize, usize, usize)> = Vec::new();
    let mut run: Option<(usize, usize, usize)> = None;
    while i > 0 && j > 0 {
        if a.get(i - 1) == b.get(j - 1) {
            common.extend(a.get(i - 1));
            run = match run {
                Some((x, y, n)) if x == i && y == j => Some((i - 1, j - 1, n + 1)),
                other => {
                    runs.extend(other);
                    Some((i - 1, j - 1, 1))
                }
            };
            i -= 1;
            j -= 1;
        } else if cell(&table, i - 1, j) > cell(&table, i, j - 1) {
            i -= 1;
        } else {
            j -= 1;
        }
    }
    runs.extend(run);
    if !places {
        common.reverse();
        cx.out.bulk(&common);
        return Ok(());
    }
    runs.retain(|&(_, _, n)| n >= min_len);
    let out = &mut cx.out;
    out.map(2);
    out.bulk(b"matches");
    out.array(runs.len());
    for (x, y, n) in runs {
        out.array(if with_len { 3 } else { 2 });
        for start in [x, y] {
            out.array(2);
            out.count(start);
            out.count(start + n - 1);
        }
        if with_len {
            out.count(n);
        }
    }
    out.bulk(b"len");
    out.count(length);
    Ok(())
}

/// A double as a bulk string in Redis' form.
pub(crate) fn float_text(value: f64) -> Vec<u8> {
    let mut text = Vec::new();
    number::write_f64(&mut text, value);
    text
}
