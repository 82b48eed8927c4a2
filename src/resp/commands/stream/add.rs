//! Entries come and go: `XADD`, `XDEL`, `XTRIM`; and `XSETID`.

use broker::cache::{EntryId, Need, Refs, Stream, Trim, Until, body};
use protocol_resp::Args;

use super::idempotence::{Once, digest, once};
use super::refs::refs;
use super::{ONE, id, id_or_open, write_id};
use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail, wrong_arity};
use crate::resp::parse::{int, is};
use crate::resp::spec::*;

pub(crate) const COMMANDS: &[Spec] = &[
    on_keys(
        "xadd",
        -5,
        WRITE.and(DENYOOM).and(FAST),
        ONE,
        xadd,
        "5.0.0",
        "Adds an entry.",
    ),
    on_keys(
        "xdel",
        -3,
        WRITE.and(FAST),
        ONE,
        xdel,
        "5.0.0",
        "Deletes entries.",
    ),
    on_keys(
        "xtrim",
        -4,
        WRITE,
        ONE,
        xtrim,
        "5.0.0",
        "Removes the oldest entries.",
    ),
    on_keys(
        "xsetid",
        -3,
        WRITE.and(DENYOOM).and(FAST),
        ONE,
        xsetid,
        "5.0.0",
        "Sets the last id of a stream.",
    ),
];

/// Octets of an entry's fields and values.
const ENTRY_MAX: usize = 1 << 30;
/// Entries that `~` removes at once unless `LIMIT` says otherwise: 100 nodes of 100, as Redis.
const TRIM_LIMIT: u64 = 10_000;

#[derive(Debug, Default)]
struct Options<'a> {
    /// The id and whether its sequence is given; `None`: `*`.
    id: Option<(EntryId, bool)>,
    no_create: bool,
    trim: Option<Trim>,
    refs: Option<Refs>,
    /// Who adds it, so that it is added once.
    once: Option<Once<'a>>,
    /// The first argument behind the options.
    end: usize,
}

fn options<'a>(args: &Args<'a>, adding: bool) -> Result<Options<'a>, Fail> {
    let mut options = Options::default();
    let mut limit = None;
    let mut at = 2;
    while let Some(word) = args.get(at) {
        let more = args.len() - at - 1;
        if adding && word == b"*" {
            break;
        } else if more > 0 && (is(word, "MAXLEN") || is(word, "MINID")) {
            if options.trim.is_some() {
                return Err(Fail::Text(
                    "ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
                ));
            }
            let form = args.at(at + 1);
            let formed = more >= 2 && (form == b"~" || form == b"=");
            let roughly = formed && form == b"~";
            at += 1 + usize::from(formed);
            let until = if is(word, "MAXLEN") {
                let len = int(args.at(at))?;
                Until::Len(
                    u64::try_from(len)
                        .map_err(|_| Fail::Text("ERR The MAXLEN argument must be >= 0."))?,
                )
            } else {
                Until::Id(id(args.at(at), 0)?)
            };
            options.trim = Some(Trim {
                until,
                roughly,
                limit: 0,
            });
        } else if more > 0 && is(word, "LIMIT") {
            at += 1;
            let entries = int(args.at(at))?;
            limit = Some(
                u64::try_from(entries)
                    .map_err(|_| Fail::Text("ERR The LIMIT argument must be >= 0."))?,
            );
        } else if let Some(refs) = refs(word) {
            if options.refs.replace(refs).is_some() {
                return Err(Fail::Syntax);
            }
        } else if adding && is(word, "NOMKSTREAM") {
            options.no_create = true;
        } else if adding && let Some((asked, words)) = once(args, at)? {
            if options.once.replace(asked).is_some() {
                return Err(Fail::Text(
                    "ERR syntax error, IDMP/IDMPAUTO specified multiple times",
                ));
            }
            at += words;
        } else if adding {
            options.id = Some(id_or_open(word, 0)?);
            if options.once.is_some() {
                return Err(Fail::Text(
                    "ERR syntax error, IDMP/IDMPAUTO can be used only with auto-generated IDs",
                ));
            }
            break;
        } else {
            return Err(Fail::Syntax);
        }
        at += 1;
    }
    options.end = at + 1;
    if limit.unwrap_or(0) > 0 && options.trim.is_none() {
        return Err(Fail::Text(
            "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy",
        ));
    }
    if !adding && options.trim.is_none() {
        return Err(Fail::Text(
            "ERR syntax error, XTRIM must be called with a trimming strategy",
        ));
    }
    let roughly = options.trim.is_some_and(|trim| trim.roughly);
    if limit.is_some() && !roughly {
        return Err(Fail::Text(
            "ERR syntax error, LIMIT cannot be used without the special ~ option",
        ));
    }
    if let Some(trim) = options.trim.as_mut().filter(|_| roughly) {
        trim.limit = limit.unwrap_or(TRIM_LIMIT);
    }
    Ok(options)
}

/// The id of an entry that is added to a stream whose last one was `last`.
fn next_id(wanted: Option<(EntryId, bool)>, last: EntryId, now_ms: u64) -> Result<EntryId, Fail> {
    if last == EntryId::MAX {
        return Err(Fail::Text(
            "ERR The stream has exhausted the last possible ID, unable to add more items",
        ));
    }
    let next = match wanted {
        Some((id, true)) => Some(id),
        Some((id, false)) if id.ms == last.ms => {
            last.seq.checked_add(1).map(|seq| EntryId { seq, ..id })
        }
        Some((id, false)) => Some(id),
        None if now_ms > last.ms => Some(EntryId { ms: now_ms, seq: 0 }),
        None => last.after(),
    };
    next.filter(|next| *next > last).ok_or(Fail::Text(
        "ERR The ID specified in XADD is equal or smaller than the target stream top item",
    ))
}

fn xadd(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let options = options(args, true)?;
    let fields = args.len().saturating_sub(options.end);
    if fields < 2 || fields % 2 == 1 {
        return Err(wrong_arity("xadd"));
    }
    if options.id == Some((EntryId::MIN, true)) {
        return Err(Fail::Text(
            "ERR The ID specified in XADD must be greater than 0-0",
        ));
    }
    let pairs = (0..fields / 2).map(|pair| {
        let place = options.end + pair * 2;
        (args.at(place), args.at(place + 1))
    });
    let digest = match &options.once {
        Some(Once { chosen: None, .. }) => Some(digest(pairs.clone())),
        _ => None,
    };
    let once = options.once.map(|once| {
        let digest = digest.as_ref().map(|digest| &digest[..]);
        (once.producer, once.chosen.or(digest).unwrap_or_default())
    });
    let now_ms = cx.now_ms();
    let (name, mut view, out) = cx.on(args.at(1));
    let last = match view.stream(&name)? {
        Some(stream) => {
            let before =
                once.and_then(|(producer, chosen)| stream.added_before(producer, chosen, now_ms));
            if let Some(id) = before {
                view.edit_stream(&name, false, &Need::Nothing, |stream, rows| {
                    stream.note_duplicate(rows);
                })?;
                write_id(out, id);
                return Ok(());
            }
            stream.last_id()
        }
        None if options.no_create => {
            out.null();
            return Ok(());
        }
        None => EntryId::MIN,
    };
    let id = next_id(options.id, last, now_ms)?;
    let size: usize = args.iter().skip(options.end).map(<[u8]>::len).sum();
    if size > ENTRY_MAX {
        return Err(Fail::Text("ERR Elements are too large to be stored"));
    }
    let mut entry = Vec::with_capacity(size + fields + 8);
    body(pairs, &mut entry);
    let refs = options.refs.unwrap_or_default();
    let need = match &options.trim {
        Some(trim) => Need::Trim(trim, refs, 1),
        None => Need::Nothing,
    };
    view.edit_stream(&name, true, &need, |stream, rows| {
        stream.add(id, &entry, rows);
        if let Some((producer, chosen)) = once {
            stream.note_added(producer, chosen, id, now_ms, rows);
        }
        if let Some(trim) = &options.trim {
            stream.trim_by(trim, refs, rows);
        }
    })?;
    write_id(out, id);
    Ok(())
}

fn xdel(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    if view.stream(&name)?.is_none() {
        out.integer(0);
        return Ok(());
    }
    let ids = args.iter().skip(2).map(|text| id(text, 0));
    let ids = ids.collect::<Result<Vec<_>, _>>()?;
    let deleted = view.edit_stream(&name, false, &Need::Entries(&ids), |stream, rows| {
        stream.delete(&ids, rows)
    })?;
    out.count(deleted.unwrap_or(0));
    Ok(())
}

fn xtrim(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let options = options(args, false)?;
    let (name, mut view, out) = cx.on(args.at(1));
    let refs = options.refs.unwrap_or_default();
    let removed = match &options.trim {
        Some(trim) => {
            view.edit_stream(&name, false, &Need::Trim(trim, refs, 0), |stream, rows| {
                stream.trim_by(trim, refs, rows)
            })?
        }
        None => None,
    };
    out.count(removed.unwrap_or(0));
    Ok(())
}

fn xsetid(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let last = id(args.at(2), 0)?;
    let (mut added, mut deleted) = (None, EntryId::MIN);
    let mut at = 3;
    while let Some(word) = args.get(at) {
        let value = args.get(at + 1);
        match value {
            Some(value) if is(word, "ENTRIESADDED") => {
                let count = int(value)?;
                added = Some(
                    u64::try_from(count)
                        .map_err(|_| Fail::Text("ERR entries_added must be positive"))?,
                );
            }
            Some(value) if is(word, "MAXDELETEDID") => {
                deleted = id(value, 0)?;
                if last < deleted {
                    return Err(Fail::Text(
                        "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
                    ));
                }
            }
            _ => return Err(Fail::Syntax),
        }
        at += 2;
    }
    let (name, mut view, out) = cx.on(args.at(1));
    let stream = view.stream(&name)?.ok_or(Fail::NoKey)?;
    may_set_id(stream, last, added)?;
    view.lower_id(&name, last)?;
    let deleted = Some(deleted).filter(|id| *id != EntryId::MIN);
    view.edit_stream(&name, false, &Need::Nothing, |stream, rows| {
        stream.set_id(last, added, deleted, rows);
    })?;
    out.ok();
    Ok(())
}

fn may_set_id(stream: &Stream, last: EntryId, added: Option<u64>) -> Done {
    if last < stream.max_deleted() {
        return Err(Fail::Text(
            "ERR The ID specified in XSETID is smaller than current max_deleted_entry_id",
        ));
    }
    if stream.is_empty() {
        return Ok(());
    }
    if last < stream.top() {
        return Err(Fail::Text(
            "ERR The ID specified in XSETID is smaller than the target stream top item",
        ));
    }
    if added.is_some_and(|added| stream.len() as u64 > added) {
        return Err(Fail::Text(
            "ERR The entries_added specified in XSETID is smaller than the target stream length",
        ));
    }
    Ok(())
}
