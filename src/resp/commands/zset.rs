//! Sorted sets.

pub(crate) mod algebra;
pub(crate) mod ranges;

use broker::cache::{NO_ELEMENTS, Text, Want, Zset};
use protocol_resp::{Args, Encoder, number};

use super::hash::{empty_scan, random_places, random_tail, scan_options, scan_places};
use super::list::mpop_tail;
use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail, wrong_arity};
use crate::resp::parse::{float, is, timeout_ms};
use crate::resp::permission::{self, BOTH, Rights};
use crate::resp::spec::*;

const ONE: Keys = Keys::Range(1, 1, 1);

pub(crate) const COMMANDS: &[Spec] = &[
    on_keys(
        "zadd",
        -4,
        WRITE.and(DENYOOM).and(FAST),
        ONE,
        zadd,
        "1.2.0",
        "Adds members or changes their scores.",
    )
    .naming(3, 2)
    .needing(Rights::With(permission::zadd)),
    on_keys(
        "zincrby",
        4,
        WRITE.and(DENYOOM).and(FAST),
        ONE,
        zincrby,
        "1.2.0",
        "Adds to a member's score.",
    )
    .naming(3, 1)
    .needing(Rights::Keys(BOTH)),
    on_keys(
        "zrem",
        -3,
        WRITE.and(FAST),
        ONE,
        zrem,
        "1.2.0",
        "Removes members.",
    )
    .naming(2, 1),
    on_keys(
        "zcard",
        2,
        READ.and(FAST),
        ONE,
        zcard,
        "1.2.0",
        "Counts the members.",
    ),
    on_keys(
        "zscore",
        3,
        READ.and(FAST),
        ONE,
        zscore,
        "1.2.0",
        "Reads a member's score.",
    )
    .naming(2, 1),
    on_keys(
        "zmscore",
        -3,
        READ.and(FAST),
        ONE,
        zmscore,
        "6.2.0",
        "Reads several members' scores.",
    )
    .naming(2, 1),
    on_keys(
        "zrank",
        -3,
        READ.and(FAST),
        ONE,
        zrank,
        "2.0.0",
        "Returns a member's place from the lowest score.",
    )
    .naming(2, 2),
    on_keys(
        "zrevrank",
        -3,
        READ.and(FAST),
        ONE,
        zrevrank,
        "2.0.0",
        "Returns a member's place from the highest score.",
    )
    .naming(2, 2),
    on_keys(
        "zpopmin",
        -2,
        WRITE.and(FAST),
        ONE,
        zpopmin,
        "5.0.0",
        "Takes the members with the lowest scores.",
    )
    .needing(Rights::Keys(BOTH)),
    on_keys(
        "zpopmax",
        -2,
        WRITE.and(FAST),
        ONE,
        zpopmax,
        "5.0.0",
        "Takes the members with the highest scores.",
    )
    .needing(Rights::Keys(BOTH)),
    on_keys(
        "zmpop",
        -4,
        WRITE,
        Keys::Counted(1, 0),
        zmpop,
        "7.0.0",
        "Takes members of the first sorted set that has any.",
    )
    .needing(Rights::Keys(BOTH)),
    on_keys(
        "bzpopmin",
        -3,
        WRITE.and(BLOCKING).and(FAST),
        Keys::Range(1, -2, 1),
        bzpopmin,
        "5.0.0",
        "Takes the member with the lowest score, waits if there is none.",
    )
    .needing(Rights::Keys(BOTH)),
    on_keys(
        "bzpopmax",
        -3,
        WRITE.and(BLOCKING).and(FAST),
        Keys::Range(1, -2, 1),
        bzpopmax,
        "5.0.0",
        "Takes the member with the highest score, waits if there is none.",
    )
    .needing(Rights::Keys(BOTH)),
    on_keys(
        "bzmpop",
        -5,
        WRITE.and(BLOCKING),
        Keys::Counted(2, 0),
        bzmpop,
        "7.0.0",
        "Takes members of the first sorted set that has any, waits if there is none.",
    )
    .needing(Rights::Keys(BOTH)),
    on_keys(
        "zrandmember",
        -2,
        READ,
        ONE,
        zrandmember,
        "6.2.0",
        "Reads random members.",
    ),
    on_keys(
        "zscan",
        -3,
        READ,
        ONE,
        zscan,
        "2.8.0",
        "Walks over the members.",
    ),
];

/// The conditions of `ZADD`, which `GEOADD` has some of.
#[derive(Debug, Default)]
pub(crate) struct Add {
    pub(crate) nx: bool,
    pub(crate) xx: bool,
    gt: bool,
    lt: bool,
    ch: bool,
    incr: bool,
}

impl Add {
    /// Notes an option that `ZADD` and `GEOADD` share; false: it is something else.
    pub(crate) fn take(&mut self, word: &[u8]) -> bool {
        let option = if is(word, "NX") {
            &mut self.nx
        } else if is(word, "XX") {
            &mut self.xx
        } else if is(word, "CH") {
            &mut self.ch
        } else {
            return false;
        };
        *option = true;
        true
    }
}

fn zadd(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let mut add = Add::default();
    let mut at = 2;
    while let Some(word) = args.get(at) {
        if is(word, "GT") {
            add.gt = true;
        } else if is(word, "LT") {
            add.lt = true;
        } else if is(word, "INCR") {
            add.incr = true;
        } else if !add.take(word) {
            break;
        }
        at += 1;
    }
    let pairs = args.from(at);
    if pairs.is_empty() || !pairs.len().is_multiple_of(2) {
        return Err(Fail::Syntax);
    }
    if add.nx && add.xx {
        return Err(Fail::Text(
            "ERR XX and NX options at the same time are not compatible",
        ));
    }
    if (add.gt && add.lt) || (add.nx && (add.gt || add.lt)) {
        return Err(Fail::Text(
            "ERR GT, LT, and/or NX options at the same time are not compatible",
        ));
    }
    if add.incr && pairs.len() > 2 {
        return Err(Fail::Text(
            "ERR INCR option supports a single increment-element pair",
        ));
    }
    // All scores are read before anything changes.
    if pairs.len() == 2 {
        let score = float(pairs.at(0))?;
        return add_all(cx, args.at(1), &add, &[(score, pairs.at(1))]);
    }
    let members = pairs.from(1);
    let mut parsed = Vec::with_capacity(pairs.len() / 2);
    for (score, member) in pairs.iter().step_by(2).zip(members.iter().step_by(2)) {
        parsed.push((float(score)?, member));
    }
    add_all(cx, args.at(1), &add, &parsed)
}

pub(crate) fn add_all(
    cx: &mut Exec<'_, '_>,
    key: &[u8],
    add: &Add,
    pairs: &[(f64, &[u8])],
) -> Done {
    let (name, mut view, out) = cx.on(key);
    if add.xx && view.zset(&name, NO_ELEMENTS)?.is_none() {
        if add.incr {
            out.null();
        } else {
            out.integer(0);
        }
        return Ok(());
    }
    let (mut added, mut changed, mut last) = (0, 0, None);
    let mut not_a_number = false;
    let members = pairs.iter().map(|(_, member)| *member);
    view.edit_zset(&name, true, members, |zset, rows| {
        for &(score, member) in pairs {
            let old = zset.score(member);
            let new = match old {
                Some(old) if add.incr => old + score,
                _ => score,
            };
            if new.is_nan() {
                not_a_number = true;
                return;
            }
            // -0 is kept as 0, as Redis' compact form does, but shown as it is.
            let shown = new;
            let new = new + 0.0;
            match old {
                None if add.xx => {}
                None => {
                    zset.insert(member, new, rows);
                    added += 1;
                    last = Some(shown);
                }
                Some(_) if add.nx => {}
                Some(old) if (add.gt && new <= old) || (add.lt && new >= old) => {}
                Some(old) => {
                    if old != new {
                        zset.insert(member, new, rows);
                        changed += 1;
                    }
                    last = Some(shown);
                }
            }
        }
    })?;
    if not_a_number {
        return Err(Fail::Text("ERR resulting score is not a number (NaN)"));
    }
    match (add.incr, last) {
        (true, Some(score)) => out.double(score),
        (true, None) => out.null(),
        (false, _) => out.integer(if add.ch { added + changed } else { added }),
    }
    Ok(())
}

fn zincrby(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let delta = float(args.at(2))?;
    let add = Add {
        incr: true,
        ..Add::default()
    };
    add_all(cx, args.at(1), &add, &[(delta, args.at(3))])
}

fn zrem(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    let removed = view.edit_zset(&name, false, args.iter().skip(2), |zset, rows| {
        args.iter()
            .skip(2)
            .filter(|member| zset.remove(member, rows).is_some())
            .count()
    })?;
    out.count(removed.unwrap_or(0));
    Ok(())
}

fn zcard(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    out.count(view.zset(&name, NO_ELEMENTS)?.map_or(0, Zset::len));
    Ok(())
}

fn score_or_null(out: &mut Encoder<'_>, score: Option<f64>) {
    match score {
        Some(score) => out.double(score),
        None => out.null(),
    }
}

fn zscore(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    let zset = view.zset(&name, [args.at(2)])?;
    score_or_null(out, zset.and_then(|zset| zset.score(args.at(2))));
    Ok(())
}

fn zmscore(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    let zset = view.zset(&name, args.iter().skip(2))?;
    out.array(args.len() - 2);
    for member in args.iter().skip(2) {
        score_or_null(out, zset.and_then(|zset| zset.score(member)));
    }
    Ok(())
}

fn rank(cx: &mut Exec<'_, '_>, args: &Args<'_>, reverse: bool, command: &str) -> Done {
    let with_score = match (args.len(), args.get(3)) {
        (3, _) => false,
        (4, Some(word)) if is(word, "WITHSCORE") => true,
        (4, _) => return Err(Fail::Syntax),
        _ => return Err(wrong_arity(command)),
    };
    let (name, mut view, out) = cx.on(args.at(1));
    let member = args.at(2);
    let found = view.ranked(&name, [member], |zset| {
        let rank = zset.rank(member)?.zip(zset.score(member));
        let place = |rank| if reverse { zset.len() - 1 - rank } else { rank };
        Ok::<_, Fail>(rank.map(|(rank, score)| (place(rank), score)))
    })?;
    match found.flatten() {
        Some((rank, score)) if with_score => {
            out.array(2);
            out.count(rank);
            out.double(score);
        }
        Some((rank, _)) => out.count(rank),
        None if with_score => out.null_array(),
        None => out.null(),
    }
    Ok(())
}

fn zrank(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    rank(cx, args, false, "zrank")
}

fn zrevrank(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    rank(cx, args, true, "zrevrank")
}

fn pop(cx: &mut Exec<'_, '_>, args: &Args<'_>, max: bool) -> Done {
    if args.len() > 3 {
        return Err(Fail::Syntax);
    }
    let count = match args.get(2) {
        None => None,
        Some(text) => match number::parse_i64(text) {
            Some(count) if count >= 0 => Some(usize::try_from(count).unwrap_or(usize::MAX)),
            _ => return Err(Fail::Text("ERR value is out of range, must be positive")),
        },
    };
    let (name, mut view, out) = cx.on(args.at(1));
    let members = view.pop_members(&name, max, count.unwrap_or(1))?;
    let nested = count.is_some() && out.is_resp3();
    out.array(if nested {
        members.len()
    } else {
        members.len() * 2
    });
    for (member, score) in &members {
        if nested {
            out.array(2);
        }
        out.bulk(member);
        out.double(*score);
    }
    Ok(())
}

fn zpopmin(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    pop(cx, args, false)
}

fn zpopmax(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    pop(cx, args, true)
}

/// The reply of a pop from one of several keys.
pub(crate) fn popped(out: &mut Encoder<'_>, key: &[u8], members: &[(Text, f64)], nested: bool) {
    if nested {
        out.array(2);
        out.bulk(key);
        out.array(members.len());
        for (member, score) in members {
            out.array(2);
            out.bulk(member);
            out.double(*score);
        }
    } else {
        out.array(1 + members.len() * 2);
        out.bulk(key);
        for (member, score) in members {
            out.bulk(member);
            out.double(*score);
        }
    }
}

fn pop_first<'k>(
    cx: &mut Exec<'_, '_>,
    keys: impl Iterator<Item = &'k [u8]>,
    max: bool,
    count: usize,
    nested: bool,
) -> Result<bool, Fail> {
    for key in keys {
        let (name, mut view, out) = cx.on(key);
        if view.zset(&name, NO_ELEMENTS)?.is_some() {
            let members = view.pop_members(&name, max, count)?;
            popped(out, key, &members, nested);
            return Ok(true);
        }
    }
    Ok(false)
}

fn min_or_max(word: &[u8]) -> Result<bool, Fail> {
    if is(word, "MIN") {
        Ok(false)
    } else if is(word, "MAX") {
        Ok(true)
    } else {
        Err(Fail::Syntax)
    }
}

fn zmpop(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (keys, max, count) = mpop_tail(args, 1, min_or_max)?;
    if !pop_first(cx, args.iter().skip(2).take(keys), max, count, true)? {
        cx.out.null_array();
    }
    Ok(())
}

fn pop_or_block(cx: &mut Exec<'_, '_>, args: &Args<'_>, max: bool) -> Done {
    let timeout_ms = timeout_ms(args.at(args.len() - 1))?;
    let keys = || args.iter().skip(1).take(args.len() - 2);
    if pop_first(cx, keys(), max, 1, false)? {
        return Ok(());
    }
    cx.wait(keys(), Want::ZPop { max, count: 1 }, timeout_ms, false);
    Ok(())
}

fn bzpopmin(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    pop_or_block(cx, args, false)
}

fn bzpopmax(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    pop_or_block(cx, args, true)
}

fn bzmpop(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (keys, max, count) = mpop_tail(args, 2, min_or_max)?;
    let timeout_ms = timeout_ms(args.at(1))?;
    let keys = || args.iter().skip(3).take(keys);
    if pop_first(cx, keys(), max, count, true)? {
        return Ok(());
    }
    cx.wait(keys(), Want::ZPop { max, count }, timeout_ms, true);
    Ok(())
}

fn zrandmember(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (count, with_scores) = random_tail(args, "WITHSCORES")?;
    let name = cx.name(args.at(1));
    let len = cx
        .view(&name)
        .zset(&name, NO_ELEMENTS)?
        .map_or(0, Zset::len);
    let places = if len == 0 {
        Vec::new()
    } else {
        random_places(cx.ctx, count.unwrap_or(-1), len)
    };
    let (_, mut view, out) = cx.on(args.at(1));
    let found = view.ranked(&name, NO_ELEMENTS, |zset| zset.members_at(&places))?;
    let nested = with_scores && out.is_resp3();
    match count {
        None if places.is_empty() => out.null(),
        None => {}
        Some(_) if with_scores && !nested => out.array(places.len() * 2),
        Some(_) => out.array(places.len()),
    }
    for (member, score) in found.unwrap_or_default() {
        if nested {
            out.array(2);
        }
        out.bulk(&member);
        if with_scores {
            out.double(score);
        }
    }
    Ok(())
}

/// A whole one is walked in order of score; the cursor counts from the end, so that what is added at the front or removed
/// before it hides nothing. A partial one is walked by member.
fn zscan(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let cursor = super::generic::cursor(args.at(2))?;
    let (name, mut view, out) = cx.on(args.at(1));
    if view.zset(&name, NO_ELEMENTS)?.is_none() {
        return empty_scan(out);
    }
    let options = scan_options(args, 3, false, false)?;
    let shown = |member: &[u8]| {
        let pattern = options.pattern;
        pattern.is_none_or(|pattern| broker::cache::matches(pattern, member))
    };
    let mut found: Vec<(Text, f64)> = Vec::new();
    let next = view.scan_partial::<Zset>(&name, cursor, options.count, &mut |member, score| {
        let score = score.first_chunk().copied().unwrap_or_default();
        member.with(|member| {
            if shown(member) {
                found.push((Text::new(member), f64::from_le_bytes(score)));
            }
        });
    })?;
    let next = match next {
        Some(next) => next,
        None => {
            let walked = view.ranked(&name, NO_ELEMENTS, |zset| {
                let (len, small) = (zset.len(), zset.is_small());
                let (places, next) = scan_places(cursor, options.count, len, small);
                zset.each(places, false, |member, score| {
                    if shown(member) {
                        found.push((Text::new(member), score));
                    }
                })?;
                Ok::<_, Fail>(next)
            })?;
            walked.unwrap_or(0)
        }
    };
    out.array(2);
    out.bulk(next.to_string().as_bytes());
    out.array(found.len() * 2);
    for (member, score) in found {
        out.bulk(&member);
        super::hash::bulk_float(out, score);
    }
    Ok(())
}
