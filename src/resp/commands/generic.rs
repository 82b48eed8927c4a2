//! Commands on keys of any type.

use broker::ShardSet;
use broker::cache::{Cursor, DATABASES, Held, Kind, matches};
use protocol_resp::Args;

use super::cluster::refuse_databases;
use super::hash::scan_options;
use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail, lossy};
use crate::resp::parse::{int, is};
use crate::resp::permission::{self, BOTH, Rights};
use crate::resp::spec::*;
use broker::access::Verbs;

const ONE: Keys = Keys::Range(1, 1, 1);
const ALL: Keys = Keys::Range(1, -1, 1);
const TWO: Keys = Keys::Range(1, 2, 1);

pub(crate) const COMMANDS: &[Spec] = &[
    on_keys("del", -2, WRITE, ALL, del, "1.0.0", "Deletes keys."),
    on_keys(
        "unlink",
        -2,
        WRITE.and(FAST),
        ALL,
        del,
        "4.0.0",
        "Deletes keys.",
    ),
    on_keys(
        "exists",
        -2,
        READ.and(FAST),
        ALL,
        exists,
        "1.0.0",
        "Counts the keys that exist.",
    )
    .needing(Rights::Keys(Verbs::DESCRIBE)),
    on_keys(
        "touch",
        -2,
        READ.and(FAST),
        ALL,
        exists,
        "3.2.1",
        "Counts the keys that exist and notes their use.",
    )
    .needing(Rights::Keys(Verbs::DESCRIBE)),
    on_keys(
        "type",
        2,
        READ.and(FAST),
        ONE,
        kind,
        "1.0.0",
        "Returns the type of a key's value.",
    )
    .needing(Rights::Keys(Verbs::DESCRIBE)),
    on_keys(
        "expire",
        -3,
        WRITE.and(FAST),
        ONE,
        expire,
        "1.0.0",
        "Sets a time to live in seconds.",
    ),
    on_keys(
        "pexpire",
        -3,
        WRITE.and(FAST),
        ONE,
        pexpire,
        "2.6.0",
        "Sets a time to live in milliseconds.",
    ),
    on_keys(
        "expireat",
        -3,
        WRITE.and(FAST),
        ONE,
        expireat,
        "1.2.0",
        "Sets a deadline in seconds.",
    ),
    on_keys(
        "pexpireat",
        -3,
        WRITE.and(FAST),
        ONE,
        pexpireat,
        "2.6.0",
        "Sets a deadline in milliseconds.",
    ),
    on_keys(
        "ttl",
        2,
        READ.and(FAST),
        ONE,
        ttl,
        "1.0.0",
        "Returns the time to live in seconds.",
    )
    .needing(Rights::Keys(Verbs::DESCRIBE)),
    on_keys(
        "pttl",
        2,
        READ.and(FAST),
        ONE,
        pttl,
        "2.6.0",
        "Returns the time to live in milliseconds.",
    )
    .needing(Rights::Keys(Verbs::DESCRIBE)),
    on_keys(
        "expiretime",
        2,
        READ.and(FAST),
        ONE,
        expiretime,
        "7.0.0",
        "Returns the deadline in seconds.",
    )
    .needing(Rights::Keys(Verbs::DESCRIBE)),
    on_keys(
        "pexpiretime",
        2,
        READ.and(FAST),
        ONE,
        pexpiretime,
        "7.0.0",
        "Returns the deadline in milliseconds.",
    )
    .needing(Rights::Keys(Verbs::DESCRIBE)),
    on_keys(
        "persist",
        2,
        WRITE.and(FAST),
        ONE,
        persist,
        "2.2.0",
        "Removes the deadline.",
    ),
    on_keys("rename", 3, WRITE, TWO, rename, "1.0.0", "Renames a key.")
        .needing(Rights::Split(BOTH, Verbs::WRITE)),
    on_keys(
        "renamenx",
        3,
        WRITE.and(FAST),
        TWO,
        renamenx,
        "1.0.0",
        "Renames a key unless the new name is taken.",
    )
    .needing(Rights::Split(BOTH, Verbs::WRITE)),
    on_keys(
        "copy",
        -3,
        WRITE.and(DENYOOM),
        TWO,
        copy,
        "6.2.0",
        "Copies a key.",
    )
    .needing(Rights::With(permission::copy)),
    on_keys(
        "move",
        3,
        WRITE.and(FAST),
        ONE,
        move_,
        "1.0.0",
        "Moves a key to another database.",
    )
    .needing(Rights::With(permission::move_)),
    on_keys(
        "keys",
        2,
        READ,
        Keys::None,
        keys,
        "1.0.0",
        "Lists the keys that match a pattern.",
    )
    .needing(Rights::AllKeys(1))
    .locking(Locks::All),
    on_keys(
        "scan",
        -2,
        READ,
        Keys::None,
        scan,
        "2.8.0",
        "Walks over the keys.",
    )
    .needing(Rights::With(permission::scan))
    .locking(Locks::All),
    on_keys(
        "randomkey",
        1,
        READ,
        Keys::None,
        randomkey,
        "1.0.0",
        "Returns a random key.",
    )
    .needing(Rights::AllKeys(0))
    .locking(Locks::All),
    container(
        "object",
        "2.2.3",
        "Looks at how a value is kept.",
        &[
            on_keys(
                "object|encoding",
                3,
                READ,
                Keys::Range(2, 2, 1),
                encoding,
                "2.2.3",
                "Returns the encoding of a value.",
            )
            .needing(Rights::Keys(Verbs::DESCRIBE)),
            on_keys(
                "object|freq",
                3,
                READ,
                Keys::Range(2, 2, 1),
                freq,
                "4.0.0",
                "Returns how often a key is used.",
            )
            .needing(Rights::Keys(Verbs::DESCRIBE)),
            on_keys(
                "object|idletime",
                3,
                READ,
                Keys::Range(2, 2, 1),
                idletime,
                "2.2.3",
                "Returns the time since a key was used.",
            )
            .needing(Rights::Keys(Verbs::DESCRIBE)),
            on_keys(
                "object|refcount",
                3,
                READ,
                Keys::Range(2, 2, 1),
                refcount,
                "2.2.3",
                "Returns the number of references.",
            )
            .needing(Rights::Keys(Verbs::DESCRIBE)),
            on_keys(
                "object|help",
                2,
                LOADING.and(STALE),
                Keys::None,
                help,
                "6.2.0",
                "Explains the subcommands.",
            )
            .locking(Locks::With(any_shard)),
        ],
    ),
];

/// A scan's cursor.
pub(crate) fn cursor(text: &[u8]) -> Result<u64, Fail> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(Fail::Text("ERR invalid cursor"))
}

fn del(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let mut count = 0;
    for key in args.iter().skip(1) {
        let (name, mut view, _) = cx.on(key);
        count += usize::from(view.delete(&name)?);
    }
    cx.out.count(count);
    Ok(())
}

fn exists(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let mut count = 0;
    for key in args.iter().skip(1) {
        let (name, mut view, _) = cx.on(key);
        count += usize::from(view.exists(&name)?);
    }
    cx.out.count(count);
    Ok(())
}

fn kind(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    out.simple(view.kind(&name)?.map_or("none", Kind::name));
    Ok(())
}

/// The conditions of `EXPIRE`.
#[derive(Debug, Default)]
pub(crate) struct If {
    none: bool,
    some: bool,
    later: bool,
    sooner: bool,
}

impl If {
    /// Must a deadline stay what it is (0: there is none, which counts as an infinite one)?
    pub(crate) fn refuses(&self, old: u64, new: u64) -> bool {
        (self.none && old != 0)
            || (self.some && old == 0)
            || (self.later && (old == 0 || new <= old))
            || (self.sooner && old != 0 && new >= old)
    }
}

/// Reads them from the arguments at these places.
pub(crate) fn conditions(args: &Args<'_>, places: std::ops::Range<usize>) -> Result<If, Fail> {
    let mut when = If::default();
    for word in places.map(|place| args.at(place)) {
        if is(word, "NX") {
            when.none = true;
        } else if is(word, "XX") {
            when.some = true;
        } else if is(word, "GT") {
            when.later = true;
        } else if is(word, "LT") {
            when.sooner = true;
        } else {
            return Err(Fail::Owned(format!(
                "ERR Unsupported option {}",
                lossy(word, 128)
            )));
        }
    }
    if when.none && (when.some || when.later || when.sooner) {
        return Err(Fail::Text(
            "ERR NX and XX, GT or LT options at the same time are not compatible",
        ));
    }
    if when.later && when.sooner {
        return Err(Fail::Text(
            "ERR GT and LT options at the same time are not compatible",
        ));
    }
    Ok(when)
}

fn set_expire(
    cx: &mut Exec<'_, '_>,
    args: &Args<'_>,
    seconds: bool,
    relative: bool,
    command: &str,
) -> Done {
    let when = conditions(args, 3..args.len())?;
    let value = int(args.at(2))?;
    let invalid = || Fail::Owned(format!("ERR invalid expire time in '{command}' command"));
    let ms = if seconds {
        value.checked_mul(1000).ok_or_else(invalid)?
    } else {
        value
    };
    let now = i64::try_from(cx.now_ms()).unwrap_or(i64::MAX);
    let at = if relative {
        ms.checked_add(now).ok_or_else(invalid)?
    } else {
        ms
    };
    // Anything before 1970 has passed as well.
    let at = u64::try_from(at).unwrap_or(1).max(1);
    let (name, mut view, out) = cx.on(args.at(1));
    let Some(old) = view.expire_ms(&name)? else {
        out.integer(0);
        return Ok(());
    };
    let refused = when.refuses(old, at);
    if !refused {
        view.set_expire(&name, at)?;
    }
    out.integer(i64::from(!refused));
    Ok(())
}

fn expire(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    set_expire(cx, args, true, true, "expire")
}

fn pexpire(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    set_expire(cx, args, false, true, "pexpire")
}

fn expireat(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    set_expire(cx, args, true, false, "expireat")
}

fn pexpireat(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    set_expire(cx, args, false, false, "pexpireat")
}

/// How a deadline is shown, of a key or a hash's field.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shown {
    SecondsLeft,
    MillisLeft,
    Second,
    Milli,
}

impl Shown {
    /// Of a deadline in ms since 1970: -2 if there is nothing that could have one, -1 if it has none.
    pub(super) fn of(self, deadline: Option<Option<u64>>, now_ms: u64) -> i64 {
        let at = match deadline {
            None => return -2,
            Some(None) => return -1,
            Some(Some(at)) => at,
        };
        let shown = match self {
            Self::SecondsLeft => (at.saturating_sub(now_ms) + 500) / 1000,
            Self::MillisLeft => at.saturating_sub(now_ms),
            Self::Second => at.saturating_add(500) / 1000,
            Self::Milli => at,
        };
        i64::try_from(shown).unwrap_or(i64::MAX)
    }
}

fn deadline(cx: &mut Exec<'_, '_>, args: &Args<'_>, shown: Shown) -> Done {
    let now = cx.now_ms();
    let (name, mut view, out) = cx.on(args.at(1));
    let at = view.expire_ms(&name)?;
    out.integer(shown.of(at.map(|at| (at != 0).then_some(at)), now));
    Ok(())
}

fn ttl(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    deadline(cx, args, Shown::SecondsLeft)
}

fn pttl(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    deadline(cx, args, Shown::MillisLeft)
}

fn expiretime(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    deadline(cx, args, Shown::Second)
}

fn pexpiretime(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    deadline(cx, args, Shown::Milli)
}

fn persist(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    let had = view.expire_ms(&name)?.is_some_and(|at| at != 0);
    if had {
        view.set_expire(&name, 0)?;
    }
    out.integer(i64::from(had));
    Ok(())
}

/// False: the new name is taken and must not be.
fn rename_to(cx: &mut Exec<'_, '_>, args: &Args<'_>, over: bool) -> Result<bool, Fail> {
    let (from, to) = (cx.name(args.at(1)), cx.name(args.at(2)));
    if !cx.view(&from).exists(&from)? {
        return Err(Fail::NoKey);
    }
    if from.bytes == to.bytes {
        return Ok(over);
    }
    if !over && cx.view(&to).exists(&to)? {
        return Ok(false);
    }
    let same_rows = from.slot == to.slot;
    if let Some((value, expire_ms)) = cx.view(&from).take(&from, same_rows)? {
        cx.view(&to).restore(&to, value, expire_ms, same_rows)?;
    }
    Ok(true)
}

fn rename(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    rename_to(cx, args, true)?;
    cx.out.ok();
    Ok(())
}

fn renamenx(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let done = rename_to(cx, args, false)?;
    cx.out.integer(i64::from(done));
    Ok(())
}

/// A database's number.
pub(crate) fn database(text: &[u8], databases: usize) -> Result<usize, Fail> {
    usize::try_from(int(text)?)
        .ok()
        .filter(|number| *number < databases.min(DATABASES))
        .ok_or(Fail::Text("ERR DB index is out of range"))
}

fn copy(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (mut db, mut replace) = (cx.db, false);
    let mut at = 3;
    while let Some(word) = args.get(at) {
        if is(word, "REPLACE") {
            replace = true;
        } else if is(word, "DB") && args.len() > at + 1 {
            db = database(args.at(at + 1), usize::from(cx.node.config.resp_databases))?;
            at += 1;
        } else {
            return Err(Fail::Syntax);
        }
        at += 1;
    }
    if db != 0 {
        let text = "ERR Copying to another database is not allowed in cluster mode";
        refuse_databases(cx.node, text)?;
    }
    let (from, to) = (cx.name(args.at(1)), cx.name(args.at(2)));
    if from.bytes == to.bytes && db == cx.db {
        return Err(Fail::Text(
            "ERR source and destination objects are the same",
        ));
    }
    let Some((value, expire_ms)) = cx.view(&from).copy_of(&from)? else {
        cx.out.integer(0);
        return Ok(());
    };
    let mut view = cx.view_in(db, &to);
    let free = replace || !view.exists(&to)?;
    if free {
        view.restore(&to, value, expire_ms, false)?;
    }
    cx.out.integer(i64::from(free));
    Ok(())
}

fn move_(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    refuse_databases(cx.node, "ERR MOVE is not allowed in cluster mode")?;
    let db = database(args.at(2), usize::from(cx.node.config.resp_databases))?;
    if db == cx.db {
        return Err(Fail::Text(
            "ERR source and destination objects are the same",
        ));
    }
    let name = cx.name(args.at(1));
    if !cx.view(&name).exists(&name)? || cx.view_in(db, &name).exists(&name)? {
        cx.out.integer(0);
        return Ok(());
    }
    let same_rows = true;
    if let Some((value, expire_ms)) = cx.view(&name).take(&name, same_rows)? {
        cx.view_in(db, &name)
            .restore(&name, value, expire_ms, same_rows)?;
    }
    cx.out.integer(1);
    Ok(())
}

fn keys(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let pattern = args.at(1);
    let mut found: Vec<Vec<u8>> = Vec::new();
    for shard in ShardSet::DATA.iter() {
        let mut cursor = Some(Cursor::Entry(shard, 0));
        while let Some(at) = cursor.filter(|at| at.shard() == shard) {
            let mut view = cx.locked.shard(shard).keys(cx.db, cx.ctx.now, cx.fx);
            cursor = view.scan(at, usize::MAX, &mut |key, _| {
                if matches(pattern, key) {
                    found.push(key.to_vec());
                }
            })?;
        }
    }
    cx.out.array(found.len());
    found.iter().for_each(|key| cx.out.bulk(key));
    Ok(())
}

fn scan(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let raw = cursor(args.at(1))?;
    let options = scan_options(args, 2, true, false)?;
    let mut cursor = Some(Cursor::from_raw(raw));
    let mut left = options.count;
    let mut found: Vec<Vec<u8>> = Vec::new();
    // A shard after another, until enough was looked at.
    while let Some(at) = cursor.filter(|_| left > 0) {
        let mut seen = 0;
        let mut unknown: Vec<Vec<u8>> = Vec::new();
        let mut view = cx.locked.shard(at.shard()).keys(cx.db, cx.ctx.now, cx.fx);
        cursor = view.scan(at, left, &mut |key, kind| {
            seen += 1;
            if options
                .pattern
                .is_some_and(|pattern| !matches(pattern, key))
            {
                return;
            }
            match (options.kind, kind) {
                (None, _) => found.push(key.to_vec()),
                (Some(wanted), Some(kind)) => {
                    if wanted.eq_ignore_ascii_case(kind.name().as_bytes()) {
                        found.push(key.to_vec());
                    }
                }
                (Some(_), None) => unknown.push(key.to_vec()),
            }
        })?;
        for key in unknown {
            let name = broker::cache::Name::new(&key);
            if view
                .kind(&name)?
                .is_some_and(|kind| options.kind.is_some_and(|wanted| is(wanted, kind.name())))
            {
                found.push(key);
            }
        }
        left = left.saturating_sub(seen);
        if cursor.is_some_and(|next| next.shard() == at.shard()) {
            break;
        }
    }
    cx.out.array(2);
    cx.out
        .bulk(cursor.map_or(0, Cursor::raw).to_string().as_bytes());
    cx.out.array(found.len());
    found.iter().for_each(|key| cx.out.bulk(key));
    Ok(())
}

fn randomkey(cx: &mut Exec<'_, '_>, _: &Args<'_>) -> Done {
    let sizes: Vec<_> = ShardSet::DATA
        .iter()
        .map(|shard| {
            (
                shard,
                cx.locked.shard(shard).keys(cx.db, cx.ctx.now, cx.fx).len() as u64,
            )
        })
        .collect();
    let mut place = cx.ctx.random_below(sizes.iter().map(|(_, len)| len).sum());
    // Starting with the shard that chance chose, each is asked: expired keys may be all that one has.
    let start = sizes.iter().position(|(_, len)| {
        let here = place < *len;
        place = place.saturating_sub(*len);
        here
    });
    let start = start.unwrap_or(0);
    for (shard, _) in sizes.iter().skip(start).chain(sizes.iter().take(start)) {
        let ctx = cx.ctx;
        let mut view = cx.locked.shard(*shard).keys(cx.db, ctx.now, cx.fx);
        if let Some(key) = view.random_key(&mut |bound| ctx.random_below(bound))? {
            cx.out.bulk(&key);
            return Ok(());
        }
    }
    cx.out.null();
    Ok(())
}

fn encoding(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(2));
    match view.value(&name)? {
        Some(value) => out.bulk(value.encoding().as_bytes()),
        None => out.null(),
    }
    Ok(())
}

fn freq(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let limits = cx.node.broker.limiter.now();
    let (name, mut view, out) = cx.on(args.at(2));
    let Some(uses) = view.uses(&name)? else {
        out.null();
        return Ok(());
    };
    if view.policy_of(&limits, name.bytes).is_lfu() {
        out.integer(i64::from(uses));
        return Ok(());
    }
    Err(Fail::Text(
        "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.",
    ))
}

fn idletime(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let limits = cx.node.broker.limiter.now();
    let (name, mut view, out) = cx.on(args.at(2));
    let idle = view.idle_seconds(&name)?;
    if idle.is_some() && view.policy_of(&limits, name.bytes).is_lfu() {
        return Err(Fail::Text(
            "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.",
        ));
    }
    match idle {
        Some(seconds) => out.integer(i64::try_from(seconds).unwrap_or(i64::MAX)),
        None => out.null(),
    }
    Ok(())
}

fn refcount(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    /// Redis keeps one object for each integer below this, and answers the largest count for it.
    const SHARED: std::ops::Range<i64> = 0..10_000;
    let (name, mut view, out) = cx.on(args.at(2));
    match view.value(&name)? {
        Some(Held::Int(value)) if SHARED.contains(&value) => out.integer(i64::from(i32::MAX)),
        Some(_) => out.integer(1),
        None => out.null(),
    }
    Ok(())
}

fn help(cx: &mut Exec<'_, '_>, _: &Args<'_>) -> Done {
    super::server::help(
        &mut cx.out,
        "OBJECT",
        &[
            (
                "ENCODING <key>",
                "Return the kind of internal representation used in order to store the value\nassociated with a <key>.",
            ),
            (
                "FREQ <key>",
                "Return the access frequency index of the <key>. The returned integer is\nproportional to the logarithm of the recent access frequency of the key.",
            ),
            (
                "IDLETIME <key>",
                "Return the idle time of the <key>, that is the approximated number of\nseconds elapsed since the last access to the key.",
            ),
            (
                "REFCOUNT <key>",
                "Return the number of references of the value associated with the specified\n<key>.",
            ),
        ],
    );
    Ok(())
}
