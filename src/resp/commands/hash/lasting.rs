//! Fields with deadlines, as Valkey 9 has them.

use broker::access::Verbs;
use broker::cache::Hash;
use protocol_resp::{Args, Encoder};

use crate::resp::commands::generic::{Shown, conditions};
use crate::resp::commands::until::{Until, deadline};
use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail};
use crate::resp::parse::{int, is};
use crate::resp::permission::{BOTH, Rights};
use crate::resp::spec::*;

const ONE: Keys = Keys::Range(1, 1, 1);

pub(crate) const COMMANDS: &[Spec] = &[
    on_keys(
        "hexpire",
        -6,
        WRITE.and(FAST),
        ONE,
        hexpire,
        "9.0.0",
        "Sets times to live of fields in seconds.",
    ),
    on_keys(
        "hpexpire",
        -6,
        WRITE.and(FAST),
        ONE,
        hpexpire,
        "9.0.0",
        "Sets times to live of fields in milliseconds.",
    ),
    on_keys(
        "hexpireat",
        -6,
        WRITE.and(FAST),
        ONE,
        hexpireat,
        "9.0.0",
        "Sets deadlines of fields in seconds.",
    ),
    on_keys(
        "hpexpireat",
        -6,
        WRITE.and(FAST),
        ONE,
        hpexpireat,
        "9.0.0",
        "Sets deadlines of fields in milliseconds.",
    ),
    on_keys(
        "hpersist",
        -5,
        WRITE.and(FAST),
        ONE,
        hpersist,
        "9.0.0",
        "Removes deadlines of fields.",
    )
    .naming(4, 1),
    on_keys(
        "httl",
        -5,
        READ.and(FAST),
        ONE,
        httl,
        "9.0.0",
        "Returns times to live of fields in seconds.",
    )
    .needing(Rights::Keys(Verbs::DESCRIBE))
    .naming(4, 1),
    on_keys(
        "hpttl",
        -5,
        READ.and(FAST),
        ONE,
        hpttl,
        "9.0.0",
        "Returns times to live of fields in milliseconds.",
    )
    .needing(Rights::Keys(Verbs::DESCRIBE))
    .naming(4, 1),
    on_keys(
        "hexpiretime",
        -5,
        READ.and(FAST),
        ONE,
        hexpiretime,
        "9.0.0",
        "Returns deadlines of fields in seconds.",
    )
    .needing(Rights::Keys(Verbs::DESCRIBE))
    .naming(4, 1),
    on_keys(
        "hpexpiretime",
        -5,
        READ.and(FAST),
        ONE,
        hpexpiretime,
        "9.0.0",
        "Returns deadlines of fields in milliseconds.",
    )
    .needing(Rights::Keys(Verbs::DESCRIBE))
    .naming(4, 1),
    on_keys(
        "hgetex",
        -5,
        WRITE.and(FAST),
        ONE,
        hgetex,
        "9.0.0",
        "Reads fields and changes their deadlines.",
    )
    .needing(Rights::Keys(BOTH)),
    on_keys(
        "hsetex",
        -6,
        WRITE.and(DENYOOM).and(FAST),
        ONE,
        hsetex,
        "9.0.0",
        "Sets fields with conditions and a deadline.",
    ),
    on_keys(
        "hgetdel",
        -5,
        WRITE.and(FAST),
        ONE,
        hgetdel,
        "9.1.0",
        "Reads fields and deletes them.",
    )
    .needing(Rights::Keys(BOTH))
    .naming(4, 1),
];

const COUNT: Fail =
    Fail::Text("ERR numfields should be greater than 0 and match the provided number of fields");

/// Where `FIELDS` stands, at `from` or behind it.
fn fields_place(args: &Args<'_>, from: usize) -> Option<usize> {
    (from..args.len() - 1).find(|at| is(args.at(*at), "FIELDS"))
}

/// What stands behind `FIELDS n`: exactly n times `each` words, or else `error`.
fn counted<'a>(args: &Args<'a>, place: usize, each: usize, error: Fail) -> Result<Args<'a>, Fail> {
    let count = int(args.at(place + 1))?;
    let words = args.from(place + 2);
    let right = usize::try_from(count)
        .ok()
        .and_then(|count| count.checked_mul(each))
        .is_some_and(|count| count > 0 && count == words.len());
    if right { Ok(words) } else { Err(error) }
}

fn set_deadlines(cx: &mut Exec<'_, '_>, args: &Args<'_>, unit: &str, command: &str) -> Done {
    let place = fields_place(args, 3).ok_or(COUNT)?;
    let when = conditions(args, 3..place)?;
    let fields = counted(args, place, 1, COUNT)?;
    let now = cx.now_ms();
    let at = deadline(unit, args.at(2), 0, now, command)?;
    let (name, mut view, out) = cx.on(args.at(1));
    let answers = view.edit_hash(&name, false, fields.iter(), |hash, rows| {
        let change = |field: &[u8]| {
            if hash.get(field).is_none() {
                return -2;
            }
            if when.refuses(hash.deadline(field).unwrap_or(0), at) {
                return 0;
            }
            if at <= now {
                hash.remove(field, rows);
                return 2;
            }
            hash.set_deadline(field, Some(at), rows);
            1
        };
        fields.iter().map(change).collect::<Vec<i64>>()
    })?;
    answer(out, fields.len(), answers.as_deref());
    Ok(())
}

fn hexpire(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    set_deadlines(cx, args, "EX", "hexpire")
}

fn hpexpire(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    set_deadlines(cx, args, "PX", "hpexpire")
}

fn hexpireat(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    set_deadlines(cx, args, "EXAT", "hexpireat")
}

fn hpexpireat(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    set_deadlines(cx, args, "PXAT", "hpexpireat")
}

/// The fields of a command that has nothing in front of `FIELDS`.
fn only_fields<'a>(args: &Args<'a>, error: Fail) -> Result<Args<'a>, Fail> {
    if is(args.at(2), "FIELDS") {
        counted(args, 2, 1, error)
    } else {
        Err(Fail::Syntax)
    }
}

fn deadlines(cx: &mut Exec<'_, '_>, args: &Args<'_>, shown: Shown) -> Done {
    let fields = only_fields(args, Fail::Syntax)?;
    let now = cx.now_ms();
    let (name, mut view, out) = cx.on(args.at(1));
    let hash = view.hash(&name, fields.iter())?;
    out.array(fields.len());
    for field in fields.iter() {
        let held = hash.filter(|hash| hash.get(field).is_some());
        out.integer(shown.of(held.map(|hash| hash.deadline(field)), now));
    }
    Ok(())
}

fn httl(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    deadlines(cx, args, Shown::SecondsLeft)
}

fn hpttl(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    deadlines(cx, args, Shown::MillisLeft)
}

fn hexpiretime(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    deadlines(cx, args, Shown::Second)
}

fn hpexpiretime(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    deadlines(cx, args, Shown::Milli)
}

fn hpersist(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let fields = only_fields(args, COUNT)?;
    let (name, mut view, out) = cx.on(args.at(1));
    let answers = view.edit_hash(&name, false, fields.iter(), |hash, rows| {
        let change = |field: &[u8]| match (hash.get(field), hash.deadline(field)) {
            (None, _) => -2,
            (Some(_), None) => -1,
            (Some(_), Some(_)) => {
                hash.set_deadline(field, None, rows);
                1
            }
        };
        fields.iter().map(change).collect::<Vec<i64>>()
    })?;
    answer(out, fields.len(), answers.as_deref());
    Ok(())
}

/// What stands in front of `FIELDS`.
#[derive(Debug, Default)]
struct Options<'a> {
    /// Unsaid: the fields have none; for `HGETEX` nothing changes.
    until: Until<'a>,
    key_absent: bool,
    key_present: bool,
    fields_absent: bool,
    fields_present: bool,
}

/// Reads options up to `end`. `word`: what may stand in place of a deadline; `set`: conditions are known.
fn options<'a>(args: &Args<'a>, end: usize, word: &str, set: bool) -> Result<Options<'a>, Fail> {
    let mut options = Options::default();
    let mut at = 2;
    while at < end {
        let option = args.at(at);
        if let Some(last) = options.until.take(args, at, end, word)? {
            at = last;
        } else if !set {
            return Err(Fail::Syntax);
        } else if is(option, "NX") && !options.key_present {
            options.key_absent = true;
        } else if is(option, "XX") && !options.key_absent {
            options.key_present = true;
        } else if is(option, "FNX") && !options.fields_present {
            options.fields_absent = true;
        } else if is(option, "FXX") && !options.fields_absent {
            options.fields_present = true;
        } else {
            return Err(Fail::Syntax);
        }
        at += 1;
    }
    Ok(options)
}

fn hgetex(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let place = fields_place(args, 2).ok_or(COUNT)?;
    let options = options(args, place, "PERSIST", false)?;
    let fields = counted(args, place, 1, COUNT)?;
    let now = cx.now_ms();
    let (name, mut view, out) = cx.on(args.at(1));
    view.hash(&name, fields.iter())?;
    let at = options.until.deadline(0, now, "hgetex")?;
    let stays = options.until == Until::Unsaid;
    let values = view.edit_hash(&name, false, fields.iter(), |hash, rows| {
        let get = |field: &[u8]| {
            let value = hash.get(field)?.to_vec();
            match at {
                _ if stays => {}
                // Named twice, it is there once.
                Some(at) if at <= now => {
                    hash.remove(field, rows);
                }
                at => hash.set_deadline(field, at, rows),
            }
            Some(value)
        };
        fields.iter().map(get).collect::<Vec<_>>()
    })?;
    optional(out, fields.len(), values.as_deref());
    Ok(())
}

/// So many values, as far as there are any.
fn optional(out: &mut Encoder<'_>, count: usize, values: Option<&[Option<Vec<u8>>]>) {
    out.array(count);
    for at in 0..count {
        match values.and_then(|all| all.get(at)?.as_deref()) {
            Some(value) => out.bulk(value),
            None => out.null(),
        }
    }
}

/// So many answers; without a hash there is no field.
fn answer(out: &mut Encoder<'_>, count: usize, answers: Option<&[i64]>) {
    out.array(count);
    for at in 0..count {
        let answer = answers.and_then(|all| all.get(at));
        out.integer(answer.copied().unwrap_or(-2));
    }
}

fn hsetex(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let place = fields_place(args, 2).ok_or(COUNT)?;
    let options = options(args, place, "KEEPTTL", true)?;
    let words = counted(args, place, 2, COUNT)?;
    let pairs = || {
        (0..words.len())
            .step_by(2)
            .map(|at| (words.at(at), words.at(at + 1)))
    };
    let fields = || words.iter().step_by(2);
    let now = cx.now_ms();
    let (name, mut view, out) = cx.on(args.at(1));
    let hash = view.hash(&name, fields())?;
    let at = options.until.deadline(0, now, "hsetex")?;
    let there = |field: &[u8]| hash.is_some_and(|hash: &Hash| hash.get(field).is_some());
    let refused = (options.key_absent && hash.is_some())
        || (options.key_present && hash.is_none())
        || (options.fields_absent && fields().any(there))
        || (options.fields_present && !fields().all(there));
    if refused {
        out.integer(0);
        return Ok(());
    }
    let passed = at.is_some_and(|at| at <= now);
    // What is set to have gone already makes no key.
    view.edit_hash(&name, !passed, fields(), |hash, rows| {
        for (field, value) in pairs() {
            if passed {
                hash.remove(field, rows);
            } else if options.until == Until::Word {
                hash.update(field, value, rows);
            } else {
                hash.update(field, value, rows);
                hash.set_deadline(field, at, rows);
            }
        }
    })?;
    out.integer(1);
    Ok(())
}

fn hgetdel(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let fields = only_fields(args, COUNT)?;
    let (name, mut view, out) = cx.on(args.at(1));
    let values = view.edit_hash(&name, false, fields.iter(), |hash, rows| {
        let take = |field: &[u8]| {
            let value = hash.get(field).map(<[u8]>::to_vec);
            hash.remove(field, rows);
            value
        };
        fields.iter().map(take).collect::<Vec<_>>()
    })?;
    optional(out, fields.len(), values.as_deref());
    Ok(())
}
