//! Reading entries where they lie: `XRANGE`, `XREVRANGE`, `XLEN`.

use broker::cache::{Span, Stream};
use protocol_resp::Args;

use super::{ONE, end, limit, show, start};
use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail};
use crate::resp::parse::{int, is};
use crate::resp::spec::*;

pub(crate) const COMMANDS: &[Spec] = &[
    on_keys(
        "xrange",
        -4,
        READ,
        ONE,
        xrange,
        "5.0.0",
        "Reads entries of a range of ids.",
    ),
    on_keys(
        "xrevrange",
        -4,
        READ,
        ONE,
        xrevrange,
        "5.0.0",
        "Reads entries of a range of ids from the last one back.",
    ),
    on_keys(
        "xlen",
        2,
        READ.and(FAST),
        ONE,
        xlen,
        "5.0.0",
        "Counts the entries.",
    ),
];

fn xrange(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    range(cx, args, false)
}

fn xrevrange(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    range(cx, args, true)
}

fn range(cx: &mut Exec<'_, '_>, args: &Args<'_>, back: bool) -> Done {
    let (first, second) = (args.at(2), args.at(3));
    let (start, end) = if back {
        (start(second)?, end(first)?)
    } else {
        (start(first)?, end(second)?)
    };
    let mut count = None;
    let mut at = 4;
    while let Some(word) = args.get(at) {
        let value = args.get(at + 1).filter(|_| is(word, "COUNT"));
        let value = int(value.ok_or(Fail::Syntax)?)?;
        count = Some(usize::try_from(value).unwrap_or(0));
        at += 2;
    }
    let (name, mut view, out) = cx.on(args.at(1));
    if count == Some(0) {
        match view.stream(&name)? {
            Some(_) => out.null_array(),
            None => out.array(0),
        }
        return Ok(());
    }
    let span = Span {
        start,
        end,
        back,
        limit: limit(count.unwrap_or(0)),
    };
    let found = view.between(&name, span, |entries| show(out, entries))?;
    if found.is_none() {
        out.array(0);
    }
    Ok(())
}

fn xlen(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    out.count(view.stream(&name)?.map_or(0, Stream::len));
    Ok(())
}
