//! Sets.

use broker::cache::{Expire, Member, NO_ELEMENTS, Set, Text, View};
use foldhash::fast::RandomState;
use indexmap::IndexSet;
use protocol_resp::{Args, Encoder};

use super::hash::{empty_scan, random_count, random_elements, scan_elements, scan_options};
use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail};
use crate::resp::parse::{int, is, natural, opposable, positive};
use crate::resp::permission::{BOTH, Rights};
use crate::resp::spec::*;
use broker::access::Verbs;

const ONE: Keys = Keys::Range(1, 1, 1);
const ALL: Keys = Keys::Range(1, -1, 1);

pub(crate) const COMMANDS: &[Spec] = &[
    on_keys(
        "sadd",
        -3,
        WRITE.and(DENYOOM).and(FAST),
        ONE,
        sadd,
        "1.0.0",
        "Adds members.",
    )
    .naming(2, 1),
    on_keys(
        "srem",
        -3,
        WRITE.and(FAST),
        ONE,
        srem,
        "1.0.0",
        "Removes members.",
    )
    .naming(2, 1),
    on_keys(
        "scard",
        2,
        READ.and(FAST),
        ONE,
        scard,
        "1.0.0",
        "Counts the members.",
    ),
    on_keys(
        "smembers",
        2,
        READ,
        ONE,
        smembers,
        "1.0.0",
        "Reads all members.",
    ),
    on_keys(
        "sismember",
        3,
        READ.and(FAST),
        ONE,
        sismember,
        "1.0.0",
        "Tells whether a member is in the set.",
    )
    .naming(2, 1),
    on_keys(
        "smismember",
        -3,
        READ.and(FAST),
        ONE,
        smismember,
        "6.2.0",
        "Tells which members are in the set.",
    )
    .naming(2, 1),
    on_keys(
        "smove",
        4,
        WRITE.and(FAST),
        Keys::Range(1, 2, 1),
        smove,
        "1.0.0",
        "Moves a member between sets.",
    )
    .needing(Rights::Split(BOTH, Verbs::WRITE))
    .naming(3, 1),
    on_keys(
        "spop",
        -2,
        WRITE.and(FAST),
        ONE,
        spop,
        "1.0.0",
        "Takes random members.",
    )
    .needing(Rights::Keys(BOTH)),
    on_keys(
        "srandmember",
        -2,
        READ,
        ONE,
        srandmember,
        "1.0.0",
        "Reads random members.",
    ),
    on_keys(
        "sscan",
        -3,
        READ,
        ONE,
        sscan,
        "2.8.0",
        "Walks over the members.",
    ),
    on_keys("sinter", -2, READ, ALL, sinter, "1.0.0", "Intersects sets."),
    on_keys("sunion", -2, READ, ALL, sunion, "1.0.0", "Unites sets."),
    on_keys(
        "sdiff",
        -2,
        READ,
        ALL,
        sdiff,
        "1.0.0",
        "Subtracts sets from the first one.",
    ),
    on_keys(
        "sinterstore",
        -3,
        WRITE.and(DENYOOM),
        ALL,
        sinterstore,
        "1.0.0",
        "Stores the intersection of sets.",
    )
    .needing(Rights::Split(Verbs::WRITE, Verbs::READ)),
    on_keys(
        "sunionstore",
        -3,
        WRITE.and(DENYOOM),
        ALL,
        sunionstore,
        "1.0.0",
        "Stores the union of sets.",
    )
    .needing(Rights::Split(Verbs::WRITE, Verbs::READ)),
    on_keys(
        "sdiffstore",
        -3,
        WRITE.and(DENYOOM),
        ALL,
        sdiffstore,
        "1.0.0",
        "Stores the difference of sets.",
    )
    .needing(Rights::Split(Verbs::WRITE, Verbs::READ)),
    on_keys(
        "sintercard",
        -3,
        READ,
        Keys::Counted(1, 0),
        sintercard,
        "7.0.0",
        "Counts the intersection of sets.",
    ),
];

pub(crate) fn write(out: &mut Encoder<'_>, member: Member<'_>) {
    super::string::write(out, member);
}

fn sadd(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    let added = view.edit_set(&name, true, args.iter().skip(2), |set, rows| {
        args.iter()
            .skip(2)
            .filter(|member| set.insert(member, rows))
            .count()
    })?;
    out.count(added.unwrap_or(0));
    Ok(())
}

fn srem(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    let removed = view.edit_set(&name, false, args.iter().skip(2), |set, rows| {
        args.iter()
            .skip(2)
            .filter(|member| set.remove(member, rows))
            .count()
    })?;
    out.count(removed.unwrap_or(0));
    Ok(())
}

fn scard(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    out.count(view.set(&name, NO_ELEMENTS)?.map_or(0, Set::len));
    Ok(())
}

fn smembers(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    let Some(members) = view.elements::<Set>(&name)? else {
        out.set(0);
        return Ok(());
    };
    out.set(members.len());
    members.each(&mut |member, _| write(out, member))?;
    Ok(())
}

fn sismember(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    let found = view
        .set(&name, [args.at(2)])?
        .is_some_and(|set| set.contains(args.at(2)));
    out.integer(i64::from(found));
    Ok(())
}

fn smismember(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    let set = view.set(&name, args.iter().skip(2))?;
    out.array(args.len() - 2);
    for member in args.iter().skip(2) {
        out.integer(i64::from(set.is_some_and(|set| set.contains(member))));
    }
    Ok(())
}

fn smove(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (from, to, member) = (cx.name(args.at(1)), cx.name(args.at(2)), args.at(3));
    let Some(source) = cx
        .view(&from)
        .set(&from, [member])?
        .map(|set| set.contains(member))
    else {
        cx.out.integer(0);
        return Ok(());
    };
    cx.view(&to).set(&to, NO_ELEMENTS)?;
    if source && from.bytes != to.bytes {
        cx.view(&from)
            .edit_set(&from, false, [member], |set, rows| set.remove(member, rows))?;
        cx.view(&to)
            .edit_set(&to, true, [member], |set, rows| set.insert(member, rows))?;
    }
    cx.out.integer(i64::from(source));
    Ok(())
}

fn spop(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    if args.len() > 3 {
        return Err(Fail::Syntax);
    }
    let count = match args.get(2) {
        None => None,
        Some(text) => match int(text) {
            Ok(count) if count >= 0 => Some(count),
            _ => return Err(Fail::Text("ERR value is out of range, must be positive")),
        },
    };
    let ctx = cx.ctx;
    let (name, mut view, out) = cx.on(args.at(1));
    let taken = match view.elements::<Set>(&name)? {
        Some(members) => random_elements(ctx, &members, count.unwrap_or(1))?,
        None => Vec::new(),
    };
    let members = taken.iter().map(|(member, _)| member);
    view.edit_set(&name, false, members, |set, rows| {
        for (member, _) in &taken {
            set.remove(member, rows);
        }
    })?;
    match (count, taken.first()) {
        (None, Some((member, _))) => out.bulk(member),
        (None, None) => out.null(),
        (Some(_), _) => {
            out.set(taken.len());
            taken.iter().for_each(|(member, _)| out.bulk(member));
        }
    }
    Ok(())
}

fn srandmember(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    if args.len() > 3 {
        return Err(Fail::Syntax);
    }
    let count = args
        .get(2)
        .map(|text| random_count(opposable(text)?, false))
        .transpose()?;
    let ctx = cx.ctx;
    let (name, mut view, out) = cx.on(args.at(1));
    let found = match view.elements::<Set>(&name)? {
        Some(members) => random_elements(ctx, &members, count.unwrap_or(-1))?,
        None => Vec::new(),
    };
    match (count, found.first()) {
        (None, Some((member, _))) => out.bulk(member),
        (None, None) => out.null(),
        (Some(_), _) => {
            out.array(found.len());
            found.iter().for_each(|(member, _)| out.bulk(member));
        }
    }
    Ok(())
}

fn sscan(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let cursor = super::generic::cursor(args.at(2))?;
    let (name, mut view, out) = cx.on(args.at(1));
    if view.set(&name, NO_ELEMENTS)?.is_none() {
        return empty_scan(out);
    }
    let options = scan_options(args, 3, false, false)?;
    let (found, next) = scan_elements::<Set>(&mut view, &name, cursor, &options, Set::is_small)?;
    out.array(2);
    out.bulk(next.to_string().as_bytes());
    out.array(found.len());
    found.iter().for_each(|(member, _)| out.bulk(member));
    Ok(())
}

type Members = IndexSet<Text, RandomState>;

fn add_members(
    view: &mut View<'_>,
    name: &broker::cache::Name<'_>,
    into: &mut Members,
) -> Result<(), Fail> {
    if let Some(members) = view.elements::<Set>(name)? {
        into.reserve(members.len());
        members.each(&mut |member, _| {
            into.insert(member.with(Text::new));
        })?;
    }
    Ok(())
}

/// Keeps of `found` what is (or is not) in the set at a key.
fn keep(
    view: &mut View<'_>,
    name: &broker::cache::Name<'_>,
    found: &mut Members,
    inside: bool,
) -> Result<(), Fail> {
    let set = view.set(name, found.iter())?;
    found.retain(|member| set.is_some_and(|set| set.contains(member)) == inside);
    Ok(())
}

#[derive(Debug, Clone, Copy)]
enum Algebra {
    Inter,
    Union,
    Diff,
}

/// Combines the sets at `keys`; `limit` stops an intersection early.
fn combine<'k>(
    cx: &mut Exec<'_, '_>,
    keys: impl Iterator<Item = &'k [u8]>,
    how: Algebra,
    limit: usize,
) -> Result<Members, Fail> {
    let keys: Vec<&[u8]> = keys.collect();
    match how {
        Algebra::Inter => {
            // All are looked at first: a wrong type is an error even when another one is missing.
            let mut smallest: Option<(usize, usize)> = None;
            let mut missing = false;
            for (index, key) in keys.iter().enumerate() {
                let (name, mut view, _) = cx.on(key);
                match view.set(&name, NO_ELEMENTS)? {
                    None => missing = true,
                    Some(set) => {
                        if smallest.is_none_or(|(len, _)| set.len() < len) {
                            smallest = Some((set.len(), index));
                        }
                    }
                }
            }
            let Some((_, start)) = smallest.filter(|_| !missing) else {
                return Ok(Members::default());
            };
            let (name, mut view, _) = cx.on(keys.get(start).copied().unwrap_or_default());
            let mut found = Members::default();
            add_members(&mut view, &name, &mut found)?;
            for (index, key) in keys.iter().enumerate() {
                if index != start {
                    let (name, mut view, _) = cx.on(key);
                    keep(&mut view, &name, &mut found, true)?;
                }
            }
            found.truncate(limit);
            Ok(found)
        }
        Algebra::Union => {
            let mut found = Members::default();
            for key in keys {
                let (name, mut view, _) = cx.on(key);
                add_members(&mut view, &name, &mut found)?;
            }
            Ok(found)
        }
        Algebra::Diff => {
            let mut found = Members::default();
            for (index, key) in keys.into_iter().enumerate() {
                let (name, mut view, _) = cx.on(key);
                if index == 0 {
                    add_members(&mut view, &name, &mut found)?;
                } else {
                    keep(&mut view, &name, &mut found, false)?;
                }
            }
            Ok(found)
        }
    }
}

fn show(cx: &mut Exec<'_, '_>, args: &Args<'_>, how: Algebra) -> Done {
    let mut found = combine(cx, args.iter().skip(1), how, usize::MAX)?;
    sort_integers(&mut found);
    cx.out.set(found.len());
    found.iter().for_each(|member| cx.out.bulk(member));
    Ok(())
}

/// A result of integers only is in their order, as the set it would be.
fn sort_integers(found: &mut Members) {
    let number = |text: &Text| protocol_resp::number::parse_i64(text);
    if found.len() <= 512 && found.iter().all(|member| number(member).is_some()) {
        found.sort_by_key(number);
    }
}

fn store(cx: &mut Exec<'_, '_>, args: &Args<'_>, how: Algebra) -> Done {
    let found = combine(cx, args.iter().skip(2), how, usize::MAX)?;
    let (name, mut view, out) = cx.on(args.at(1));
    if found.is_empty() {
        view.delete(&name)?;
    } else {
        let value = View::make_set(found.iter().map(|member| &**member));
        view.put(&name, value, Expire::Never)?;
    }
    out.count(found.len());
    Ok(())
}

fn sinter(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    show(cx, args, Algebra::Inter)
}

fn sunion(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    show(cx, args, Algebra::Union)
}

fn sdiff(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    show(cx, args, Algebra::Diff)
}

fn sinterstore(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    store(cx, args, Algebra::Inter)
}

fn sunionstore(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    store(cx, args, Algebra::Union)
}

fn sdiffstore(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    store(cx, args, Algebra::Diff)
}

/// `numkeys key … [LIMIT n]`.
fn card_tail(args: &Args<'_>) -> Result<(usize, usize), Fail> {
    let keys = positive(args.at(1), "ERR numkeys should be greater than 0")?;
    if keys > args.len().saturating_sub(2) {
        return Err(Fail::Text(
            "ERR Number of keys can't be greater than number of args",
        ));
    }
    Ok((keys, card_limit(args, 2 + keys)?))
}

/// `[LIMIT n]` from `at`; zero means all, and the last of several holds.
pub(crate) fn card_limit(args: &Args<'_>, mut at: usize) -> Result<usize, Fail> {
    let mut limit = 0;
    while let Some(word) = args.get(at) {
        let value = args.get(at + 1).filter(|_| is(word, "LIMIT"));
        limit = natural(value.ok_or(Fail::Syntax)?, "ERR LIMIT can't be negative")?;
        at += 2;
    }
    Ok(if limit == 0 { usize::MAX } else { limit })
}

fn sintercard(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (keys, limit) = card_tail(args)?;
    let found = combine(cx, args.iter().skip(2).take(keys), Algebra::Inter, limit)?;
    cx.out.count(found.len());
    Ok(())
}
