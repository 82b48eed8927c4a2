//! Unions, intersections and differences of sorted sets (and of plain sets, whose members score 1).

use std::cmp::Ordering;

use broker::cache::{Error, Kind, NO_ELEMENTS, Set, Text, Zset};
use foldhash::fast::RandomState;
use indexmap::IndexMap;
use protocol_resp::Args;

use super::ranges::{pair, pairs_header, store};
use crate::resp::commands::set::card_limit;
use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail};
use crate::resp::parse::{int, is};
use crate::resp::permission::Rights;
use crate::resp::spec::*;
use broker::access::Verbs;

pub(crate) const COMMANDS: &[Spec] = &[
    on_keys(
        "zunion",
        -3,
        READ,
        Keys::Counted(1, 0),
        zunion,
        "6.2.0",
        "Unites sorted sets.",
    ),
    on_keys(
        "zinter",
        -3,
        READ,
        Keys::Counted(1, 0),
        zinter,
        "6.2.0",
        "Intersects sorted sets.",
    ),
    on_keys(
        "zdiff",
        -3,
        READ,
        Keys::Counted(1, 0),
        zdiff,
        "6.2.0",
        "Subtracts sorted sets from the first one.",
    ),
    on_keys(
        "zunionstore",
        -4,
        WRITE.and(DENYOOM),
        Keys::Counted(2, 1),
        zunionstore,
        "2.0.0",
        "Stores the union of sorted sets.",
    )
    .needing(Rights::Split(Verbs::WRITE, Verbs::READ)),
    on_keys(
        "zinterstore",
        -4,
        WRITE.and(DENYOOM),
        Keys::Counted(2, 1),
        zinterstore,
        "2.0.0",
        "Stores the intersection of sorted sets.",
    )
    .needing(Rights::Split(Verbs::WRITE, Verbs::READ)),
    on_keys(
        "zdiffstore",
        -4,
        WRITE.and(DENYOOM),
        Keys::Counted(2, 1),
        zdiffstore,
        "6.2.0",
        "Stores the difference of sorted sets.",
    )
    .needing(Rights::Split(Verbs::WRITE, Verbs::READ)),
    on_keys(
        "zintercard",
        -3,
        READ,
        Keys::Counted(1, 0),
        zintercard,
        "7.0.0",
        "Counts the intersection of sorted sets.",
    ),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Union,
    Inter,
    Diff,
}

#[derive(Debug, Clone, Copy)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn of(self, a: f64, b: f64) -> f64 {
        match self {
            // Infinities of both signs make 0, as with Redis.
            Self::Sum => Some(a + b).filter(|sum| !sum.is_nan()).unwrap_or(0.0),
            Self::Min if b < a => b,
            Self::Max if b > a => b,
            Self::Min | Self::Max => a,
        }
    }
}

/// Bytes of members that a union may take from one source.
const RESULT_MAX: usize = 1 << 30;

type Scores = IndexMap<Text, f64, RandomState>;

/// Shows the members of a key with their scores. A source that is mostly in the tables is read past, and not held.
fn each(cx: &mut Exec<'_, '_>, key: &[u8], visit: &mut dyn FnMut(&[u8], f64)) -> Result<(), Fail> {
    let (name, mut view, _) = cx.on(key);
    match view.kind(&name)? {
        None => {}
        Some(Kind::Zset) => {
            if let Some(members) = view.elements::<Zset>(&name)? {
                members.each(&mut |member, score| {
                    let score = score.first_chunk().copied().unwrap_or_default();
                    member.with(|member| visit(member, f64::from_le_bytes(score)));
                })?;
            }
        }
        Some(Kind::Set) => {
            if let Some(members) = view.elements::<Set>(&name)? {
                members.each(&mut |member, _| member.with(|member| visit(member, 1.0)))?;
            }
        }
        Some(_) => return Err(Fail::WrongType),
    }
    Ok(())
}

/// Keeps of `all` the members that a key has, with what `both` makes of the two scores; or those that it has not.
fn keep_shared(
    cx: &mut Exec<'_, '_>,
    key: &[u8],
    all: &mut Scores,
    shared: bool,
    both: &dyn Fn(f64, f64) -> f64,
) -> Result<(), Fail> {
    let mut found = vec![false; all.len()];
    each(cx, key, &mut |member, score| {
        if let Some((place, _, old)) = all.get_full_mut(member) {
            *old = both(*old, score);
            if let Some(found) = found.get_mut(place) {
                *found = true;
            }
        }
    })?;
    let mut found = found.into_iter();
    all.retain(|_, _| found.next() == Some(shared));
    Ok(())
}

/// The members of a key with what `of` makes of their scores, added to `all`.
fn unite(
    cx: &mut Exec<'_, '_>,
    key: &[u8],
    all: &mut Scores,
    of: &dyn Fn(Option<f64>, f64) -> f64,
) -> Done {
    let mut size = 0;
    each(cx, key, &mut |member, score| {
        if let Some(old) = all.get_mut(member) {
            *old = of(Some(*old), score);
        } else if size <= RESULT_MAX {
            size += member.len();
            all.insert(Text::new(member), of(None, score));
        }
    })?;
    if size > RESULT_MAX {
        return Err(Error::TooLarge.into());
    }
    Ok(())
}

/// Reads `numkeys key …` from `at`: how many members each key has, none of them of another type.
fn sources(
    cx: &mut Exec<'_, '_>,
    args: &Args<'_>,
    at: usize,
    command: &str,
) -> Result<Vec<usize>, Fail> {
    let keys = usize::try_from(int(args.at(at))?).unwrap_or(0);
    if keys == 0 {
        return Err(Fail::Owned(format!(
            "ERR at least 1 input key is needed for '{command}' command"
        )));
    }
    if keys > args.len().saturating_sub(at + 1) {
        return Err(Fail::Syntax);
    }
    let mut sizes = Vec::with_capacity(keys);
    for key in args.iter().skip(at + 1).take(keys) {
        let (name, mut view, _) = cx.on(key);
        sizes.push(match view.kind(&name)? {
            Some(Kind::Set) => view.set(&name, NO_ELEMENTS)?.map_or(0, Set::len),
            _ => view.zset(&name, NO_ELEMENTS)?.map_or(0, Zset::len),
        });
    }
    Ok(sizes)
}

/// Reads `numkeys key … [WEIGHTS …] [AGGREGATE …] [WITHSCORES]` from `at`, and combines.
fn combine(
    cx: &mut Exec<'_, '_>,
    args: &Args<'_>,
    at: usize,
    how: How,
    command: &str,
) -> Result<(Vec<(Text, f64)>, bool), Fail> {
    let sizes = sources(cx, args, at, command)?;
    let keys = sizes.len();
    let mut weights = vec![1.0; keys];
    let (mut aggregate, mut with_scores) = (Aggregate::Sum, false);
    let mut option = at + 1 + keys;
    while let Some(word) = args.get(option) {
        if how != How::Diff && is(word, "WEIGHTS") && args.len() > option + keys {
            for (weight, text) in weights.iter_mut().zip(args.from(option + 1).iter()) {
                *weight = protocol_resp::number::parse_f64(text)
                    .ok_or(Fail::Text("ERR weight value is not a float"))?;
            }
            option += keys;
        } else if how != How::Diff && is(word, "AGGREGATE") && args.len() > option + 1 {
            let word = args.at(option + 1);
            aggregate = if is(word, "SUM") {
                Aggregate::Sum
            } else if is(word, "MIN") {
                Aggregate::Min
            } else if is(word, "MAX") {
                Aggregate::Max
            } else {
                return Err(Fail::Syntax);
            };
            option += 1;
        } else if is(word, "WITHSCORES") && at == 1 {
            with_scores = true;
        } else {
            return Err(Fail::Syntax);
        }
        option += 1;
    }
    let given = args.from(at + 1);
    let mut order: Vec<_> = given.iter().zip(weights).zip(sizes).collect();
    if how != How::Diff {
        // As Redis does: the order decides how sums are rounded, and what infinities of both signs leave.
        order.sort_by_key(|(_, size)| *size);
    }
    let mut result = Scores::default();
    for (number, ((key, weight), _)) in order.into_iter().enumerate() {
        // Zero times infinity counts as nothing; behind the first source of an intersection Redis does not look.
        let looks = how != How::Inter || number == 0;
        let weighed = |score: f64| Some(score * weight).filter(|score| !looks || !score.is_nan());
        let weighed = |score| weighed(score).unwrap_or(0.0);
        match how {
            _ if number == 0 => unite(cx, key, &mut result, &|_, score| weighed(score))?,
            How::Union => unite(cx, key, &mut result, &|old, score| match old {
                Some(old) => aggregate.of(old, weighed(score)),
                None => weighed(score),
            })?,
            How::Inter => keep_shared(cx, key, &mut result, true, &|old, score| {
                aggregate.of(old, weighed(score))
            })?,
            How::Diff => keep_shared(cx, key, &mut result, false, &|old, _| old)?,
        }
    }
    let mut sorted: Vec<(Text, f64)> = result.into_iter().collect();
    sorted.sort_by(|(a, x), (b, y)| {
        let by_score = x.partial_cmp(y).unwrap_or(Ordering::Equal);
        by_score.then_with(|| a.cmp(b))
    });
    Ok((sorted, with_scores))
}

fn show(cx: &mut Exec<'_, '_>, args: &Args<'_>, how: How, command: &str) -> Done {
    let (found, with_scores) = combine(cx, args, 1, how, command)?;
    pairs_header(&mut cx.out, found.len(), with_scores);
    for (member, score) in &found {
        pair(&mut cx.out, member, *score, with_scores);
    }
    Ok(())
}

fn keep(cx: &mut Exec<'_, '_>, args: &Args<'_>, how: How, command: &str) -> Done {
    let (found, _) = combine(cx, args, 2, how, command)?;
    store(cx, args.at(1), &found)
}

fn zunion(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    show(cx, args, How::Union, "zunion")
}

fn zinter(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    show(cx, args, How::Inter, "zinter")
}

fn zdiff(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    show(cx, args, How::Diff, "zdiff")
}

fn zunionstore(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    keep(cx, args, How::Union, "zunionstore")
}

fn zinterstore(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    keep(cx, args, How::Inter, "zinterstore")
}

fn zdiffstore(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    keep(cx, args, How::Diff, "zdiffstore")
}

fn zintercard(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let sizes = sources(cx, args, 1, "zintercard")?;
    let limit = card_limit(args, 2 + sizes.len())?;
    let given = args.from(2);
    let mut keys: Vec<_> = given.iter().zip(sizes).collect();
    keys.sort_by_key(|(_, size)| *size);
    let mut found = Scores::default();
    for (number, (key, _)) in keys.into_iter().enumerate() {
        if number == 0 {
            unite(cx, key, &mut found, &|_, score| score)?;
        } else {
            keep_shared(cx, key, &mut found, true, &|old, _| old)?;
        }
    }
    cx.out.count(found.len().min(limit));
    Ok(())
}
