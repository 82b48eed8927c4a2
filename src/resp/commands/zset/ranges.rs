//! Ranges of sorted sets: by rank, by score, by member.

use std::ops::Range;

use broker::cache::{Error, Expire, LexBound, NO_ELEMENTS, Ranked, ScoreBound, Text, View};
use protocol_resp::{Args, Encoder};

use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail};
use crate::resp::parse::{int, is, lex_bound, score_bound, span};
use crate::resp::permission::Rights;
use crate::resp::spec::*;
use broker::access::Verbs;

const ONE: Keys = Keys::Range(1, 1, 1);

pub(crate) const COMMANDS: &[Spec] = &[
    on_keys(
        "zrange",
        -4,
        READ,
        ONE,
        zrange,
        "1.2.0",
        "Reads a range of members.",
    ),
    on_keys(
        "zrevrange",
        -4,
        READ,
        ONE,
        zrevrange,
        "1.2.0",
        "Reads a range of members from the highest score.",
    ),
    on_keys(
        "zrangebyscore",
        -4,
        READ,
        ONE,
        zrangebyscore,
        "1.0.5",
        "Reads members by their scores.",
    ),
    on_keys(
        "zrevrangebyscore",
        -4,
        READ,
        ONE,
        zrevrangebyscore,
        "2.2.0",
        "Reads members by their scores from the highest.",
    ),
    on_keys(
        "zrangebylex",
        -4,
        READ,
        ONE,
        zrangebylex,
        "2.8.9",
        "Reads members by their bytes.",
    ),
    on_keys(
        "zrevrangebylex",
        -4,
        READ,
        ONE,
        zrevrangebylex,
        "2.8.9",
        "Reads members by their bytes from the highest.",
    ),
    on_keys(
        "zrangestore",
        -5,
        WRITE.and(DENYOOM),
        Keys::Range(1, 2, 1),
        zrangestore,
        "6.2.0",
        "Stores a range of members.",
    )
    .needing(Rights::Split(Verbs::WRITE, Verbs::READ)),
    on_keys(
        "zcount",
        4,
        READ.and(FAST),
        ONE,
        zcount,
        "2.0.0",
        "Counts members by their scores.",
    ),
    on_keys(
        "zlexcount",
        4,
        READ.and(FAST),
        ONE,
        zlexcount,
        "2.8.9",
        "Counts members by their bytes.",
    ),
    on_keys(
        "zremrangebyrank",
        4,
        WRITE,
        ONE,
        zremrangebyrank,
        "2.0.0",
        "Removes members by their ranks.",
    ),
    on_keys(
        "zremrangebyscore",
        4,
        WRITE,
        ONE,
        zremrangebyscore,
        "1.2.0",
        "Removes members by their scores.",
    ),
    on_keys(
        "zremrangebylex",
        4,
        WRITE,
        ONE,
        zremrangebylex,
        "2.8.9",
        "Removes members by their bytes.",
    ),
];

/// Which members.
#[derive(Debug, Clone, Copy)]
enum Bounds<'a> {
    Rank(i64, i64),
    Score(ScoreBound, ScoreBound),
    Lex(LexBound<'a>, LexBound<'a>),
}

/// A range with its direction and what of it is wanted.
#[derive(Debug, Clone, Copy)]
struct Query<'a> {
    bounds: Bounds<'a>,
    reverse: bool,
    /// Members to skip; how many to show, negative for all.
    limit: Option<(i64, i64)>,
    with_scores: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Lex,
}

/// Reads a query whose bounds stand at `at`. Old commands fix its kind and direction.
fn query<'a>(
    args: &Args<'a>,
    at: usize,
    fixed: Option<(By, bool)>,
    store: bool,
) -> Result<Query<'a>, Fail> {
    let (mut by, mut reverse) = fixed.unwrap_or((By::Rank, false));
    let (mut limit, mut with_scores) = (None, false);
    let mut option = at + 2;
    while let Some(word) = args.get(option) {
        if is(word, "WITHSCORES") && !store {
            with_scores = true;
        } else if is(word, "LIMIT") && args.len() > option + 2 {
            limit = Some((int(args.at(option + 1))?, int(args.at(option + 2))?));
            option += 2;
        } else if fixed.is_none() && !reverse && is(word, "REV") {
            reverse = true;
        } else if fixed.is_none() && by == By::Rank && is(word, "BYSCORE") {
            by = By::Score;
        } else if fixed.is_none() && by == By::Rank && is(word, "BYLEX") {
            by = By::Lex;
        } else {
            return Err(Fail::Syntax);
        }
        option += 1;
    }
    // As many as there are is no limit, even with an offset.
    if by == By::Rank && limit.take().is_some_and(|(_, take)| take != -1) {
        return Err(Fail::Text(
            "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
        ));
    }
    if with_scores && by == By::Lex {
        return Err(Fail::Text(
            "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
        ));
    }
    let (first, second) = (args.at(at), args.at(at + 1));
    // Reversed, the higher bound comes first; for ranks it does not matter.
    let (min, max) = if reverse && by != By::Rank {
        (second, first)
    } else {
        (first, second)
    };
    let bounds = match by {
        By::Rank => Bounds::Rank(int(min)?, int(max)?),
        By::Score => Bounds::Score(score_bound(min)?, score_bound(max)?),
        By::Lex => Bounds::Lex(lex_bound(min)?, lex_bound(max)?),
    };
    Ok(Query {
        bounds,
        reverse,
        limit,
        with_scores,
    })
}

impl Query<'_> {
    /// Ranks from the lowest score, in ascending order.
    fn ranks(&self, zset: &mut Ranked<'_>) -> Result<Range<usize>, Error> {
        let all = match self.bounds {
            Bounds::Rank(start, stop) => {
                let range = span(start, stop, zset.len());
                if self.reverse {
                    zset.len() - range.end..zset.len() - range.start
                } else {
                    range
                }
            }
            Bounds::Score(min, max) => zset.by_score(min, max)?,
            Bounds::Lex(min, max) => zset.by_member(min, max)?,
        };
        let Some((skip, take)) = self.limit else {
            return Ok(all);
        };
        let Ok(skip) = usize::try_from(skip) else {
            return Ok(0..0);
        };
        let take = usize::try_from(take).unwrap_or(usize::MAX);
        Ok(if self.reverse {
            let end = all.end.saturating_sub(skip).max(all.start);
            end.saturating_sub(take).max(all.start)..end
        } else {
            let start = all.start.saturating_add(skip).min(all.end);
            start..start.saturating_add(take).min(all.end)
        })
    }
}

fn show(cx: &mut Exec<'_, '_>, args: &Args<'_>, fixed: Option<(By, bool)>) -> Done {
    let query = query(args, 2, fixed, false)?;
    let (name, mut view, out) = cx.on(args.at(1));
    let shown = view.ranked(&name, NO_ELEMENTS, |zset| {
        let ranks = query.ranks(zset)?;
        pairs_header(out, ranks.len(), query.with_scores);
        zset.each(ranks, query.reverse, |member, score| {
            pair(out, member, score, query.with_scores);
        })?;
        Ok::<_, Fail>(())
    })?;
    if shown.is_none() {
        out.array(0);
    }
    Ok(())
}

/// The header of members with or without scores: RESP3 nests the pairs.
pub(crate) fn pairs_header(out: &mut Encoder<'_>, members: usize, with_scores: bool) {
    out.array(if with_scores && !out.is_resp3() {
        members * 2
    } else {
        members
    });
}

pub(crate) fn pair(out: &mut Encoder<'_>, member: &[u8], score: f64, with_scores: bool) {
    if with_scores && out.is_resp3() {
        out.array(2);
    }
    out.bulk(member);
    if with_scores {
        out.double(score);
    }
}

fn zrange(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    show(cx, args, None)
}

fn zrevrange(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    show(cx, args, Some((By::Rank, true)))
}

fn zrangebyscore(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    show(cx, args, Some((By::Score, false)))
}

fn zrevrangebyscore(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    show(cx, args, Some((By::Score, true)))
}

fn zrangebylex(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    show(cx, args, Some((By::Lex, false)))
}

fn zrevrangebylex(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    show(cx, args, Some((By::Lex, true)))
}

fn zrangestore(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let query = query(args, 3, None, true)?;
    let from = cx.name(args.at(2));
    let found = cx.view(&from).ranked(&from, NO_ELEMENTS, |zset| {
        let ranks = query.ranks(zset)?;
        Ok::<_, Fail>(zset.members(ranks, false)?)
    })?;
    let found = found.unwrap_or_default();
    store(cx, args.at(1), &found)
}

/// Makes a key hold these members; none deletes it. Replies how many.
pub(crate) fn store(cx: &mut Exec<'_, '_>, key: &[u8], found: &[(Text, f64)]) -> Done {
    let (name, mut view, out) = cx.on(key);
    if found.is_empty() {
        view.delete(&name)?;
    } else {
        // -0 is kept as 0, as Redis' compact form does.
        let members = found.iter().map(|(member, score)| (&**member, score + 0.0));
        let value = View::make_zset(members);
        view.put(&name, value, Expire::Never)?;
    }
    out.count(found.len());
    Ok(())
}

fn count(cx: &mut Exec<'_, '_>, key: &[u8], bounds: Bounds<'_>) -> Done {
    let query = Query {
        bounds,
        reverse: false,
        limit: None,
        with_scores: false,
    };
    let (name, mut view, out) = cx.on(key);
    let found = view.ranked(&name, NO_ELEMENTS, |zset| query.ranks(zset))?;
    out.count(found.map_or(0, |ranks| ranks.len()));
    Ok(())
}

fn zcount(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    count(
        cx,
        args.at(1),
        Bounds::Score(score_bound(args.at(2))?, score_bound(args.at(3))?),
    )
}

fn zlexcount(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    count(
        cx,
        args.at(1),
        Bounds::Lex(lex_bound(args.at(2))?, lex_bound(args.at(3))?),
    )
}

fn remove(cx: &mut Exec<'_, '_>, key: &[u8], bounds: Bounds<'_>) -> Done {
    let query = Query {
        bounds,
        reverse: false,
        limit: None,
        with_scores: false,
    };
    let (name, mut view, out) = cx.on(key);
    let removed = view.remove_ranked(&name, |zset| query.ranks(zset))?;
    out.count(removed);
    Ok(())
}

fn zremrangebyrank(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    remove(
        cx,
        args.at(1),
        Bounds::Rank(int(args.at(2))?, int(args.at(3))?),
    )
}

fn zremrangebyscore(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    remove(
        cx,
        args.at(1),
        Bounds::Score(score_bound(args.at(2))?, score_bound(args.at(3))?),
    )
}

fn zremrangebylex(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    remove(
        cx,
        args.at(1),
        Bounds::Lex(lex_bound(args.at(2))?, lex_bound(args.at(3))?),
    )
}
