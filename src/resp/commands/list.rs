//! Lists, blocking pops included.

use broker::cache::{End, List, Listed, Reach, Text, Want};
use protocol_resp::{Args, Encoder};

use crate::resp::exec::{Block, Exec};
use crate::resp::fail::{Done, Fail};
use crate::resp::parse::{int, is, natural, opposable, place, positive, span, timeout_ms};
use crate::resp::permission::{BOTH, Rights};
use crate::resp::spec::*;
use broker::access::Verbs;

const ONE: Keys = Keys::Range(1, 1, 1);
const TWO: Keys = Keys::Range(1, 2, 1);

pub(crate) const COMMANDS: &[Spec] = &[
    on_keys(
        "lpush",
        -3,
        WRITE.and(DENYOOM).and(FAST),
        ONE,
        lpush,
        "1.0.0",
        "Puts items before a list.",
    ),
    on_keys(
        "rpush",
        -3,
        WRITE.and(DENYOOM).and(FAST),
        ONE,
        rpush,
        "1.0.0",
        "Puts items behind a list.",
    ),
    on_keys(
        "lpushx",
        -3,
        WRITE.and(DENYOOM).and(FAST),
        ONE,
        lpushx,
        "2.2.0",
        "Puts items before a list that exists.",
    ),
    on_keys(
        "rpushx",
        -3,
        WRITE.and(DENYOOM).and(FAST),
        ONE,
        rpushx,
        "2.2.0",
        "Puts items behind a list that exists.",
    ),
    on_keys(
        "lpop",
        -2,
        WRITE.and(FAST),
        ONE,
        lpop,
        "1.0.0",
        "Takes the first items.",
    )
    .needing(Rights::Keys(BOTH)),
    on_keys(
        "rpop",
        -2,
        WRITE.and(FAST),
        ONE,
        rpop,
        "1.0.0",
        "Takes the last items.",
    )
    .needing(Rights::Keys(BOTH)),
    on_keys(
        "llen",
        2,
        READ.and(FAST),
        ONE,
        llen,
        "1.0.0",
        "Counts the items.",
    ),
    on_keys(
        "lindex",
        3,
        READ,
        ONE,
        lindex,
        "1.0.0",
        "Reads an item by its place.",
    ),
    on_keys(
        "lrange",
        4,
        READ,
        ONE,
        lrange,
        "1.0.0",
        "Reads a range of items.",
    ),
    on_keys(
        "lset",
        4,
        WRITE.and(DENYOOM),
        ONE,
        lset,
        "1.0.0",
        "Replaces an item.",
    ),
    on_keys(
        "linsert",
        5,
        WRITE.and(DENYOOM),
        ONE,
        linsert,
        "2.2.0",
        "Inserts before or behind an item.",
    ),
    on_keys(
        "lrem",
        4,
        WRITE,
        ONE,
        lrem,
        "1.0.0",
        "Removes items of a value.",
    ),
    on_keys(
        "ltrim",
        4,
        WRITE,
        ONE,
        ltrim,
        "1.0.0",
        "Keeps a range of items.",
    ),
    on_keys(
        "lpos",
        -3,
        READ,
        ONE,
        lpos,
        "6.0.6",
        "Finds items of a value.",
    ),
    on_keys(
        "lmove",
        5,
        WRITE.and(DENYOOM),
        TWO,
        lmove,
        "6.2.0",
        "Moves an item between lists.",
    )
    .needing(Rights::Split(BOTH, Verbs::WRITE)),
    on_keys(
        "rpoplpush",
        3,
        WRITE.and(DENYOOM),
        TWO,
        rpoplpush,
        "1.2.0",
        "Moves the last item before another list.",
    )
    .needing(Rights::Split(BOTH, Verbs::WRITE)),
    on_keys(
        "lmpop",
        -4,
        WRITE,
        Keys::Counted(1, 0),
        lmpop,
        "7.0.0",
        "Takes items of the first list that has any.",
    )
    .needing(Rights::Keys(BOTH)),
    on_keys(
        "blpop",
        -3,
        WRITE.and(BLOCKING),
        Keys::Range(1, -2, 1),
        blpop,
        "2.0.0",
        "Takes a first item, waits if there is none.",
    )
    .needing(Rights::Keys(BOTH)),
    on_keys(
        "brpop",
        -3,
        WRITE.and(BLOCKING),
        Keys::Range(1, -2, 1),
        brpop,
        "2.0.0",
        "Takes a last item, waits if there is none.",
    )
    .needing(Rights::Keys(BOTH)),
    on_keys(
        "blmove",
        6,
        WRITE.and(DENYOOM).and(BLOCKING),
        TWO,
        blmove,
        "6.2.0",
        "Moves an item between lists, waits if there is none.",
    )
    .needing(Rights::Split(BOTH, Verbs::WRITE)),
    on_keys(
        "brpoplpush",
        4,
        WRITE.and(DENYOOM).and(BLOCKING),
        TWO,
        brpoplpush,
        "2.2.0",
        "Moves the last item before another list, waits if there is none.",
    )
    .needing(Rights::Split(BOTH, Verbs::WRITE)),
    on_keys(
        "blmpop",
        -5,
        WRITE.and(BLOCKING),
        Keys::Counted(2, 0),
        blmpop,
        "7.0.0",
        "Takes items of the first list that has any, waits if there is none.",
    )
    .needing(Rights::Keys(BOTH)),
];

fn push(cx: &mut Exec<'_, '_>, args: &Args<'_>, end: End, create: bool) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    let length = view.edit_list(&name, create, Reach::NONE, |list, rows| {
        for item in args.iter().skip(2) {
            list.push(end, item, rows);
        }
        list.len()
    })?;
    out.count(length.unwrap_or(0));
    Ok(())
}

fn lpush(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    push(cx, args, End::Left, true)
}

fn rpush(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    push(cx, args, End::Right, true)
}

fn lpushx(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    push(cx, args, End::Left, false)
}

fn rpushx(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    push(cx, args, End::Right, false)
}

fn pop(cx: &mut Exec<'_, '_>, args: &Args<'_>, end: End, command: &str) -> Done {
    if args.len() > 3 {
        return Err(crate::resp::fail::wrong_arity(command));
    }
    let count = match args.get(2) {
        None => None,
        Some(text) => match int(text) {
            Ok(count) if count >= 0 => Some(usize::try_from(count).unwrap_or(usize::MAX)),
            _ => return Err(Fail::Text("ERR value is out of range, must be positive")),
        },
    };
    let (name, mut view, out) = cx.on(args.at(1));
    match count {
        None => match view
            .edit_list(&name, false, Reach::at(end, 1), |list, rows| {
                list.pop(end, rows)
            })?
            .flatten()
        {
            Some(item) => out.bulk(&item),
            None => out.null(),
        },
        Some(count) => {
            if view.list(&name)?.is_none() {
                out.null_array();
                return Ok(());
            }
            let items = view.pop_items(&name, end, count)?;
            out.array(items.len());
            items.iter().for_each(|item| out.bulk(item));
        }
    }
    Ok(())
}

fn lpop(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    pop(cx, args, End::Left, "lpop")
}

fn rpop(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    pop(cx, args, End::Right, "rpop")
}

fn llen(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    out.count(view.list(&name)?.map_or(0, List::len));
    Ok(())
}

fn lindex(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    let Some(list) = view.listed(&name)? else {
        out.null();
        return Ok(());
    };
    match place(int(args.at(2))?, list.len()) {
        Some(place) => list.each(place..place + 1, |item| out.bulk(item))?,
        None => out.null(),
    }
    Ok(())
}

fn lrange(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (start, stop) = (int(args.at(2))?, int(args.at(3))?);
    let (name, mut view, out) = cx.on(args.at(1));
    let Some(list) = view.listed(&name)? else {
        out.array(0);
        return Ok(());
    };
    let places = span(start, stop, list.len());
    out.array(places.len());
    list.each(places, |item| out.bulk(item))?;
    Ok(())
}

fn lset(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    if view.list(&name)?.is_none() {
        return Err(Fail::NoKey);
    }
    let index = int(args.at(2))?;
    let set = view.edit_list(&name, false, Reach::NONE, |list, rows| {
        place(index, list.len()).is_some_and(|place| list.set(place, args.at(3), rows))
    })?;
    match set {
        None => Err(Fail::NoKey),
        Some(false) => Err(Fail::Text("ERR index out of range")),
        Some(true) => {
            out.ok();
            Ok(())
        }
    }
}

fn linsert(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let behind = if is(args.at(2), "AFTER") {
        1
    } else if is(args.at(2), "BEFORE") {
        0
    } else {
        return Err(Fail::Syntax);
    };
    let (name, mut view, out) = cx.on(args.at(1));
    let Some(list) = view.listed(&name)? else {
        out.integer(0);
        return Ok(());
    };
    let (mut pivot, mut found) = (0, false);
    list.each_while(0..list.len(), false, |item| {
        found = item == args.at(3);
        pivot += usize::from(!found);
        !found
    })?;
    if !found {
        out.integer(-1);
        return Ok(());
    }
    let place = pivot + behind;
    let reach = Reach::of(&(place..place), list.len());
    let length = view.edit_list(&name, false, reach, |list, rows| {
        list.insert(place, args.at(4), rows);
        list.len()
    })?;
    out.count(length.unwrap_or(0));
    Ok(())
}

fn lrem(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let count = opposable(args.at(2))?;
    let wanted = args.at(3);
    let (name, mut view, out) = cx.on(args.at(1));
    let Some(list) = view.listed(&name)? else {
        out.count(0);
        return Ok(());
    };
    let limit = match count {
        0 => usize::MAX,
        count => usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX),
    };
    let (back, len) = (count < 0, list.len());
    // The places of those that go, from the one met first to the last one.
    let (mut first, mut last, mut place, mut matching) = (0, 0, 0, 0);
    list.each_while(0..len, back, |item| {
        if item == wanted {
            first = if matching == 0 { place } else { first };
            last = place;
            matching += 1;
        }
        place += 1;
        matching < limit
    })?;
    if matching == 0 {
        out.count(0);
        return Ok(());
    }
    let places = if back {
        len - 1 - last..len - first
    } else {
        first..last + 1
    };
    let reach = Reach::of(&places, len);
    let removed = view.edit_list(&name, false, reach, |list, rows| {
        let stays = |place, item: &[u8]| item != wanted || !places.contains(&place);
        list.retain(stays, rows)
    })?;
    out.count(removed.unwrap_or(0));
    Ok(())
}

fn ltrim(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (start, stop) = (int(args.at(2))?, int(args.at(3))?);
    let (name, mut view, out) = cx.on(args.at(1));
    view.trim_list(&name, |len| span(start, stop, len))?;
    out.ok();
    Ok(())
}

fn lpos(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (mut rank, mut count, mut max_len) = (1i64, None, 0usize);
    let mut at = 3;
    while let Some(word) = args.get(at) {
        let value = args.get(at + 1).ok_or(Fail::Syntax)?;
        if is(word, "RANK") {
            rank = opposable(value)?;
            if rank == 0 {
                return Err(Fail::Text(
                    "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list",
                ));
            }
        } else if is(word, "COUNT") {
            count = Some(natural(value, "ERR COUNT can't be negative")?);
        } else if is(word, "MAXLEN") {
            max_len = natural(value, "ERR MAXLEN can't be negative")?;
        } else {
            return Err(Fail::Syntax);
        }
        at += 2;
    }
    let (name, mut view, out) = cx.on(args.at(1));
    let list = view.listed(&name)?;
    let len = list.as_ref().map_or(0, Listed::len);
    let limit = match count {
        None => 1,
        Some(0) => usize::MAX,
        Some(count) => count,
    };
    let look = if max_len == 0 { len } else { max_len.min(len) };
    let mut skip = usize::try_from(rank.unsigned_abs() - 1).unwrap_or(usize::MAX);
    let (wanted, back) = (args.at(2), rank < 0);
    let places = if back { len - look..len } else { 0..look };
    let (mut found, mut seen) = (Vec::new(), 0);
    if let Some(list) = list {
        list.each_while(places, back, |item| {
            let place = seen;
            seen += 1;
            if item != wanted {
                return true;
            }
            if skip > 0 {
                skip -= 1;
                return true;
            }
            found.push(if back { len - 1 - place } else { place });
            found.len() < limit
        })?;
    }
    match (count, found.first()) {
        (None, Some(&place)) => out.count(place),
        (None, None) => out.null(),
        (Some(_), _) => {
            out.array(found.len());
            found.into_iter().for_each(|place| out.count(place));
        }
    }
    Ok(())
}

fn end(word: &[u8]) -> Result<End, Fail> {
    if is(word, "LEFT") {
        Ok(End::Left)
    } else if is(word, "RIGHT") {
        Ok(End::Right)
    } else {
        Err(Fail::Syntax)
    }
}

/// Moves an item; `None`: the source is missing.
fn move_item(
    cx: &mut Exec<'_, '_>,
    from: &[u8],
    to: &[u8],
    from_end: End,
    to_end: End,
) -> Result<Option<Text>, Fail> {
    let (from, to) = (cx.name(from), cx.name(to));
    if from.slot.shard() == to.slot.shard() {
        return Ok(cx.view(&from).move_item(&from, &to, from_end, to_end)?);
    }
    if cx.view(&from).list(&from)?.is_none() {
        return Ok(None);
    }
    cx.view(&to).list(&to)?;
    let item = cx
        .view(&from)
        .edit_list(&from, false, Reach::at(from_end, 1), |list, rows| {
            list.pop(from_end, rows)
        })?
        .flatten();
    if let Some(item) = &item {
        cx.view(&to)
            .edit_list(&to, true, Reach::NONE, |list, rows| {
                list.push(to_end, item, rows);
            })?;
    }
    Ok(item)
}

fn lmove(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (from, to) = (end(args.at(3))?, end(args.at(4))?);
    match move_item(cx, args.at(1), args.at(2), from, to)? {
        Some(item) => cx.out.bulk(&item),
        None => cx.out.null(),
    }
    Ok(())
}

fn rpoplpush(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    match move_item(cx, args.at(1), args.at(2), End::Right, End::Left)? {
        Some(item) => cx.out.bulk(&item),
        None => cx.out.null(),
    }
    Ok(())
}

fn move_or_block(
    cx: &mut Exec<'_, '_>,
    args: &Args<'_>,
    from_end: End,
    to_end: End,
    timeout: &[u8],
) -> Done {
    let timeout_ms = timeout_ms(timeout)?;
    match move_item(cx, args.at(1), args.at(2), from_end, to_end)? {
        Some(item) => cx.out.bulk(&item),
        None if cx.in_transaction => cx.out.null(),
        None => {
            let want = Want::Move {
                to: args.at(2).to_vec(),
                from_end,
                to_end,
            };
            cx.block = Some(Block {
                keys: vec![args.at(1).to_vec()],
                want,
                timeout_ms,
                nested: false,
            });
        }
    }
    Ok(())
}

fn blmove(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (from, to) = (end(args.at(3))?, end(args.at(4))?);
    move_or_block(cx, args, from, to, args.at(5))
}

fn brpoplpush(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    move_or_block(cx, args, End::Right, End::Left, args.at(3))
}

/// The reply of a pop from one of several keys.
pub(crate) fn popped(out: &mut Encoder<'_>, key: &[u8], items: &[Text], nested: bool) {
    if nested {
        out.array(2);
        out.bulk(key);
        out.array(items.len());
    } else {
        out.array(1 + items.len());
        out.bulk(key);
    }
    items.iter().for_each(|item| out.bulk(item));
}

/// Pops from the first of the keys that has something; false when none has.
fn pop_first<'k>(
    cx: &mut Exec<'_, '_>,
    keys: impl Iterator<Item = &'k [u8]>,
    end: End,
    count: usize,
    nested: bool,
) -> Result<bool, Fail> {
    for key in keys {
        let (name, mut view, out) = cx.on(key);
        if view.list(&name)?.is_some() {
            let items = view.pop_items(&name, end, count)?;
            popped(out, key, &items, nested);
            return Ok(true);
        }
    }
    Ok(false)
}

fn pop_or_block(cx: &mut Exec<'_, '_>, args: &Args<'_>, end: End) -> Done {
    let timeout_ms = timeout_ms(args.at(args.len() - 1))?;
    let keys = || args.iter().skip(1).take(args.len() - 2);
    if pop_first(cx, keys(), end, 1, false)? {
        return Ok(());
    }
    cx.wait(keys(), Want::Pop { end, count: 1 }, timeout_ms, false);
    Ok(())
}

fn blpop(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    pop_or_block(cx, args, End::Left)
}

fn brpop(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    pop_or_block(cx, args, End::Right)
}

/// What stands behind the keys of `LMPOP` and `ZMPOP`: the first word, and the count.
pub(crate) fn mpop_tail<End>(
    args: &Args<'_>,
    numkeys: usize,
    end: fn(&[u8]) -> Result<End, Fail>,
) -> Result<(usize, End, usize), Fail> {
    let keys = positive(args.at(numkeys), "ERR numkeys should be greater than 0")?;
    let at = numkeys.saturating_add(keys).saturating_add(1);
    let end = end(args.get(at).ok_or(Fail::Syntax)?)?;
    let count = match (args.get(at + 1), args.get(at + 2)) {
        (None, _) => 1,
        (Some(option), Some(count)) if is(option, "COUNT") => {
            positive(count, "ERR count should be greater than 0")?
        }
        _ => return Err(Fail::Syntax),
    };
    if args.len() > at + 3 {
        return Err(Fail::Syntax);
    }
    Ok((keys, end, count))
}

fn lmpop(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (keys, end, count) = mpop_tail(args, 1, end)?;
    if !pop_first(cx, args.iter().skip(2).take(keys), end, count, true)? {
        cx.out.null_array();
    }
    Ok(())
}

fn blmpop(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (keys, end, count) = mpop_tail(args, 2, end)?;
    let timeout_ms = timeout_ms(args.at(1))?;
    let keys = || args.iter().skip(3).take(keys);
    if pop_first(cx, keys(), end, count, true)? {
        return Ok(());
    }
    cx.wait(keys(), Want::Pop { end, count }, timeout_ms, true);
    Ok(())
}
