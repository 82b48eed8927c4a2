//! Hashes.

pub(crate) mod lasting;

use broker::Ctx;
use broker::cache::{Elements, Hash, NO_ELEMENTS, Name, Pair, Placed, View, matches};
use protocol_resp::extended::Extended;
use protocol_resp::{Args, Encoder, number};

use super::string::{float_text, sum_floats, write};
use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail, wrong_arity};
use crate::resp::parse::{int, is, opposable};
use crate::resp::permission::{BOTH, Rights};
use crate::resp::spec::*;

const ONE: Keys = Keys::Range(1, 1, 1);

pub(crate) const COMMANDS: &[Spec] = &[
    on_keys(
        "hset",
        -4,
        WRITE.and(DENYOOM).and(FAST),
        ONE,
        hset,
        "2.0.0",
        "Sets fields of a hash.",
    )
    .naming(2, 2),
    on_keys(
        "hmset",
        -4,
        WRITE.and(DENYOOM).and(FAST),
        ONE,
        hmset,
        "2.0.0",
        "Sets fields of a hash.",
    )
    .naming(2, 2),
    on_keys(
        "hsetnx",
        4,
        WRITE.and(DENYOOM).and(FAST),
        ONE,
        hsetnx,
        "2.0.0",
        "Sets a field unless it exists.",
    )
    .naming(2, 2),
    on_keys(
        "hget",
        3,
        READ.and(FAST),
        ONE,
        hget,
        "2.0.0",
        "Reads a field.",
    )
    .naming(2, 1),
    on_keys(
        "hmget",
        -3,
        READ.and(FAST),
        ONE,
        hmget,
        "2.0.0",
        "Reads several fields.",
    )
    .naming(2, 1),
    on_keys(
        "hgetall",
        2,
        READ,
        ONE,
        hgetall,
        "2.0.0",
        "Reads all fields and values.",
    ),
    on_keys("hkeys", 2, READ, ONE, hkeys, "2.0.0", "Reads all fields."),
    on_keys("hvals", 2, READ, ONE, hvals, "2.0.0", "Reads all values."),
    on_keys(
        "hdel",
        -3,
        WRITE.and(FAST),
        ONE,
        hdel,
        "2.0.0",
        "Deletes fields.",
    )
    .naming(2, 1),
    on_keys(
        "hlen",
        2,
        READ.and(FAST),
        ONE,
        hlen,
        "2.0.0",
        "Counts the fields.",
    ),
    on_keys(
        "hstrlen",
        3,
        READ.and(FAST),
        ONE,
        hstrlen,
        "3.2.0",
        "Returns the length of a field's value.",
    )
    .naming(2, 1),
    on_keys(
        "hexists",
        3,
        READ.and(FAST),
        ONE,
        hexists,
        "2.0.0",
        "Tells whether a field exists.",
    )
    .naming(2, 1),
    on_keys(
        "hincrby",
        4,
        WRITE.and(DENYOOM).and(FAST),
        ONE,
        hincrby,
        "2.0.0",
        "Adds to an integer in a field.",
    )
    .needing(Rights::Keys(BOTH))
    .naming(2, 2),
    on_keys(
        "hincrbyfloat",
        4,
        WRITE.and(DENYOOM).and(FAST),
        ONE,
        hincrbyfloat,
        "2.6.0",
        "Adds to a number in a field.",
    )
    .needing(Rights::Keys(BOTH))
    .naming(2, 2),
    on_keys(
        "hrandfield",
        -2,
        READ,
        ONE,
        hrandfield,
        "6.2.0",
        "Reads random fields.",
    ),
    on_keys(
        "hscan",
        -3,
        READ,
        ONE,
        hscan,
        "2.8.0",
        "Walks over the fields.",
    ),
];

fn set_pairs(cx: &mut Exec<'_, '_>, args: &Args<'_>, command: &str) -> Result<usize, Fail> {
    if !args.len().is_multiple_of(2) {
        return Err(wrong_arity(command));
    }
    let (name, mut view, _) = cx.on(args.at(1));
    let fields = args.from(2);
    let added = view.edit_hash(&name, true, fields.iter().step_by(2), |hash, rows| {
        let values = args.from(3);
        args.from(2)
            .iter()
            .step_by(2)
            .zip(values.iter().step_by(2))
            .filter(|(field, value)| hash.insert(field, value, rows))
            .count()
    })?;
    Ok(added.unwrap_or(0))
}

fn hset(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let added = set_pairs(cx, args, "hset")?;
    cx.out.count(added);
    Ok(())
}

fn hmset(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    set_pairs(cx, args, "hmset")?;
    cx.out.ok();
    Ok(())
}

fn hsetnx(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    let free = view
        .hash(&name, [args.at(2)])?
        .is_none_or(|hash| hash.get(args.at(2)).is_none());
    if free {
        view.edit_hash(&name, true, [args.at(2)], |hash, rows| {
            hash.insert(args.at(2), args.at(3), rows)
        })?;
    }
    out.integer(i64::from(free));
    Ok(())
}

fn hget(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    match view
        .hash(&name, [args.at(2)])?
        .and_then(|hash| hash.get(args.at(2)))
    {
        Some(value) => out.bulk(value),
        None => out.null(),
    }
    Ok(())
}

fn hmget(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    let hash = view.hash(&name, args.iter().skip(2))?;
    out.array(args.len() - 2);
    for field in args.iter().skip(2) {
        match hash.and_then(|hash| hash.get(field)) {
            Some(value) => out.bulk(value),
            None => out.null(),
        }
    }
    Ok(())
}

fn hgetall(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    let Some(fields) = view.elements::<Hash>(&name)? else {
        out.map(0);
        return Ok(());
    };
    out.map(fields.len());
    fields.each(&mut |field, value| {
        write(out, field);
        out.bulk(value);
    })?;
    Ok(())
}

fn hkeys(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    let Some(fields) = view.elements::<Hash>(&name)? else {
        out.array(0);
        return Ok(());
    };
    out.array(fields.len());
    fields.each(&mut |field, _| write(out, field))?;
    Ok(())
}

fn hvals(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    let Some(fields) = view.elements::<Hash>(&name)? else {
        out.array(0);
        return Ok(());
    };
    out.array(fields.len());
    fields.each(&mut |_, value| out.bulk(value))?;
    Ok(())
}

fn hdel(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    let removed = view.edit_hash(&name, false, args.iter().skip(2), |hash, rows| {
        args.iter()
            .skip(2)
            .filter(|field| hash.remove(field, rows))
            .count()
    })?;
    out.count(removed.unwrap_or(0));
    Ok(())
}

fn hlen(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    out.count(view.hash(&name, NO_ELEMENTS)?.map_or(0, Hash::len));
    Ok(())
}

fn hstrlen(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    out.count(
        view.hash(&name, [args.at(2)])?
            .and_then(|hash| hash.get(args.at(2)))
            .map_or(0, <[u8]>::len),
    );
    Ok(())
}

fn hexists(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    let found = view
        .hash(&name, [args.at(2)])?
        .is_some_and(|hash| hash.get(args.at(2)).is_some());
    out.integer(i64::from(found));
    Ok(())
}

fn hincrby(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let delta = int(args.at(3))?;
    let (name, mut view, out) = cx.on(args.at(1));
    let old = match view
        .hash(&name, [args.at(2)])?
        .and_then(|hash| hash.get(args.at(2)))
    {
        Some(text) => {
            number::parse_i64(text).ok_or(Fail::Text("ERR hash value is not an integer"))?
        }
        None => 0,
    };
    let new = old
        .checked_add(delta)
        .ok_or(Fail::Text("ERR increment or decrement would overflow"))?;
    let mut text = Vec::with_capacity(20);
    number::write_i64(&mut text, new);
    view.edit_hash(&name, true, [args.at(2)], |hash, rows| {
        hash.update(args.at(2), &text, rows)
    })?;
    out.integer(new);
    Ok(())
}

fn hincrbyfloat(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    if Extended::parse(args.at(3))
        .ok_or(Fail::NotFloat)?
        .is_infinite()
    {
        return Err(Fail::Text("ERR value is NaN or Infinity"));
    }
    let (name, mut view, out) = cx.on(args.at(1));
    let old = view
        .hash(&name, [args.at(2)])?
        .and_then(|hash| hash.get(args.at(2)))
        .unwrap_or(b"0");
    let new = sum_floats(old, args.at(3), Fail::Text("ERR hash value is not a float"))?;
    view.edit_hash(&name, true, [args.at(2)], |hash, rows| {
        hash.update(args.at(2), &new, rows)
    })?;
    out.bulk(&new);
    Ok(())
}

/// What `HRANDFIELD`, `SRANDMEMBER` and `ZRANDMEMBER` do with a count: places, with repetition when it is negative.
pub(crate) fn random_places(ctx: &Ctx, count: i64, len: usize) -> Vec<usize> {
    let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    let pick = |bound: usize| usize::try_from(ctx.random_below(bound as u64)).unwrap_or(0);
    if count < 0 {
        return (0..wanted).map(|_| pick(len)).collect();
    }
    if wanted >= len {
        return (0..len).collect();
    }
    if wanted * 3 > len {
        // Most of them: shuffle all and keep the front.
        let mut all: Vec<usize> = (0..len).collect();
        for at in 0..wanted {
            all.swap(at, at + pick(len - at));
        }
        all.truncate(wanted);
        return all;
    }
    let mut seen = hashbrown::HashSet::<usize, foldhash::fast::RandomState>::default();
    let mut places = Vec::with_capacity(wanted);
    while places.len() < wanted {
        let place = pick(len);
        if seen.insert(place) {
            places.push(place);
        }
    }
    places
}

/// So many elements of a hash or set by chance, with repetition when the count is negative.
pub(crate) fn random_elements<C: Placed>(
    ctx: &Ctx,
    elements: &Elements<'_, C>,
    count: i64,
) -> Result<Vec<Pair>, Fail> {
    let len = elements.len();
    if len == 0 {
        return Ok(Vec::new());
    }
    if elements.is_whole() {
        return Ok(elements.at(&random_places(ctx, count, len))?);
    }
    let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    Ok(elements.random(wanted, count >= 0, &mut |bound| ctx.random_below(bound))?)
}

/// A count of random elements; a negative one is bounded so that one reply cannot take all memory.
pub(crate) fn random_count(count: i64, doubled: bool) -> Result<i64, Fail> {
    if count < -(1 << 24) || (doubled && count > i64::MAX / 2) {
        return Err(Fail::Text("ERR value is out of range"));
    }
    Ok(count)
}

/// `[count [WITH…]]` of `HRANDFIELD` and `ZRANDMEMBER`.
pub(crate) fn random_tail(args: &Args<'_>, with: &str) -> Result<(Option<i64>, bool), Fail> {
    let Some(text) = args.get(2) else {
        return Ok((None, false));
    };
    let count = opposable(text)?;
    let doubled = match (args.get(3), args.get(4)) {
        (None, _) => false,
        (Some(word), None) if is(word, with) => true,
        _ => return Err(Fail::Syntax),
    };
    Ok((Some(random_count(count, doubled)?), doubled))
}

/// What a scan of a missing key shows, whatever its options.
pub(crate) fn empty_scan(out: &mut Encoder<'_>) -> Done {
    out.array(2);
    out.bulk(b"0");
    out.array(0);
    Ok(())
}

fn hrandfield(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (count, with_values) = random_tail(args, "WITHVALUES")?;
    let ctx = cx.ctx;
    let (name, mut view, out) = cx.on(args.at(1));
    let found = match view.elements::<Hash>(&name)? {
        Some(fields) => random_elements(ctx, &fields, count.unwrap_or(-1))?,
        None => Vec::new(),
    };
    if count.is_none() {
        match found.first() {
            Some((field, _)) => out.bulk(field),
            None => out.null(),
        }
        return Ok(());
    }
    // RESP3 pairs a field with its value.
    let nested = with_values && out.is_resp3();
    out.array(if with_values && !nested {
        found.len() * 2
    } else {
        found.len()
    });
    for (field, value) in found {
        if nested {
            out.array(2);
        }
        out.bulk(&field);
        if with_values {
            out.bulk(&value);
        }
    }
    Ok(())
}

/// Options of `SCAN` and its kin.
#[derive(Debug)]
pub(crate) struct ScanOptions<'a> {
    pub(crate) pattern: Option<&'a [u8]>,
    pub(crate) count: usize,
    pub(crate) kind: Option<&'a [u8]>,
    pub(crate) no_values: bool,
}

pub(crate) fn scan_options<'a>(
    args: &Args<'a>,
    from: usize,
    for_keys: bool,
    for_hash: bool,
) -> Result<ScanOptions<'a>, Fail> {
    let mut options = ScanOptions {
        pattern: None,
        count: 10,
        kind: None,
        no_values: false,
    };
    let mut at = from;
    while let Some(word) = args.get(at) {
        let value = args.get(at + 1);
        if is(word, "NOVALUES") && for_hash {
            options.no_values = true;
            at += 1;
            continue;
        }
        let value = value.ok_or(Fail::Syntax)?;
        if is(word, "COUNT") {
            options.count = match int(value)? {
                count if count >= 1 => usize::try_from(count).unwrap_or(usize::MAX),
                _ => return Err(Fail::Syntax),
            };
        } else if is(word, "MATCH") {
            options.pattern = Some(value);
        } else if is(word, "TYPE") && for_keys {
            options.kind = Some(value);
        } else {
            return Err(Fail::Syntax);
        }
        at += 2;
    }
    Ok(options)
}

/// Places to visit and where to go on. A collection is walked from its end to its front, since a removal moves its last
/// element to the front: nothing that stays is missed. Small ones come in one go.
pub(crate) fn scan_places(
    cursor: u64,
    count: usize,
    len: usize,
    small: bool,
) -> (std::ops::Range<usize>, u64) {
    if small {
        return (0..len, 0);
    }
    let end = if cursor == 0 {
        len
    } else {
        usize::try_from(cursor).unwrap_or(len).min(len)
    };
    let start = end.saturating_sub(count);
    (start..end, start as u64)
}

fn hscan(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let cursor = super::generic::cursor(args.at(2))?;
    let (name, mut view, out) = cx.on(args.at(1));
    if view.hash(&name, NO_ELEMENTS)?.is_none() {
        return empty_scan(out);
    }
    let options = scan_options(args, 3, false, true)?;
    let (found, next) = scan_elements::<Hash>(&mut view, &name, cursor, &options, Hash::is_small)?;
    out.array(2);
    out.bulk(next.to_string().as_bytes());
    out.array(if options.no_values {
        found.len()
    } else {
        found.len() * 2
    });
    for (field, value) in found {
        out.bulk(&field);
        if !options.no_values {
            out.bulk(&value);
        }
    }
    Ok(())
}

/// A step of `HSCAN` or `SSCAN`: what it shows, and the next cursor.
pub(crate) fn scan_elements<C: Placed>(
    view: &mut View<'_>,
    name: &Name<'_>,
    cursor: u64,
    options: &ScanOptions<'_>,
    is_small: impl FnOnce(&C) -> bool,
) -> Result<(Vec<Pair>, u64), Fail> {
    let shown = |name: &[u8]| options.pattern.is_none_or(|pattern| matches(pattern, name));
    let mut found = Vec::new();
    let next = view.scan_partial::<C>(name, cursor, options.count, &mut |name, value| {
        if name.with(shown) {
            found.push((name.to_vec(), value.to_vec()));
        }
    })?;
    if let Some(next) = next {
        return Ok((found, next));
    }
    let Some(elements) = view.elements::<C>(name)? else {
        return Ok((found, 0));
    };
    let len = elements.len();
    let small = is_small(elements.collection);
    let (places, next) = scan_places(cursor, options.count, len, small);
    for (name, value) in places.filter_map(|place| elements.collection.held_at(place)) {
        if name.with(shown) {
            found.push((name.to_vec(), value.to_vec()));
        }
    }
    Ok((found, next))
}

/// For families that print scores.
pub(crate) fn bulk_float(out: &mut Encoder<'_>, value: f64) {
    out.bulk(&float_text(value));
}
