//! What was delivered and is not acknowledged: `XACK`, `XPENDING`, `XCLAIM`, `XAUTOCLAIM`.

use broker::cache::{Claim, Consumer, Entry, EntryId, Need, Pending};
use protocol_resp::{Args, Encoder, number};

use super::{ONE, end, id, no_key_or_group, start, write_entry, write_id, write_unsigned};
use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail, lossy};
use crate::resp::parse::{int, is};
use crate::resp::permission::{BOTH, Rights};
use crate::resp::spec::*;

pub(crate) const COMMANDS: &[Spec] = &[
    on_keys(
        "xack",
        -4,
        WRITE.and(FAST),
        ONE,
        xack,
        "5.0.0",
        "Says that entries are done with.",
    ),
    on_keys(
        "xpending",
        -3,
        READ,
        ONE,
        xpending,
        "5.0.0",
        "Tells what was delivered and is not acknowledged.",
    ),
    on_keys(
        "xclaim",
        -6,
        WRITE.and(FAST),
        ONE,
        xclaim,
        "5.0.0",
        "Gives pending entries to another consumer.",
    )
    .needing(Rights::Keys(BOTH)),
    on_keys(
        "xautoclaim",
        -6,
        WRITE.and(FAST),
        ONE,
        xautoclaim,
        "6.2.0",
        "Gives entries that are pending for long to another consumer.",
    )
    .needing(Rights::Keys(BOTH)),
];

fn xack(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    let stream = view.stream(&name)?;
    if stream.and_then(|stream| stream.group(args.at(2))).is_none() {
        out.integer(0);
        return Ok(());
    }
    let ids = args.iter().skip(3).map(|text| id(text, 0));
    let ids = ids.collect::<Result<Vec<_>, _>>()?;
    let done = view.edit_stream(&name, false, &Need::Nothing, |stream, rows| {
        stream.acknowledge(args.at(2), &ids, rows)
    })?;
    out.count(done.flatten().unwrap_or(0));
    Ok(())
}

/// The long form of `XPENDING`.
struct Range<'a> {
    start: EntryId,
    end: EntryId,
    count: usize,
    min_idle_ms: i64,
    consumer: Option<&'a [u8]>,
}

fn range<'a>(args: &Args<'a>) -> Result<Range<'a>, Fail> {
    let (mut at, mut min_idle_ms) = (3, 0);
    if is(args.at(3), "IDLE") {
        min_idle_ms = int(args.at(4))?;
        if args.len() < 8 {
            return Err(Fail::Syntax);
        }
        at = 5;
    }
    let count = usize::try_from(int(args.at(at + 2))?).unwrap_or(0);
    Ok(Range {
        start: start(args.at(at))?,
        end: end(args.at(at + 1))?,
        count,
        min_idle_ms,
        consumer: args.get(at + 3),
    })
}

fn xpending(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    if args.len() != 3 && !(6..=9).contains(&args.len()) {
        return Err(Fail::Syntax);
    }
    let range = if args.len() == 3 {
        None
    } else {
        Some(range(args)?)
    };
    let now_ms = cx.now_ms();
    let (name, mut view, out) = cx.on(args.at(1));
    let group = view
        .stream(&name)?
        .and_then(|stream| stream.group(args.at(2)));
    let group = group.ok_or_else(|| no_key_or_group(args.at(1), args.at(2)))?;
    let Some(range) = range else {
        out.array(4);
        out.count(group.pending());
        let mut all = group.pending_from(EntryId::MIN);
        let Some((first, ..)) = all.next() else {
            out.null();
            out.null();
            out.null_array();
            return Ok(());
        };
        let last = all.next_back().map_or(first, |(last, ..)| last);
        write_id(out, first);
        write_id(out, last);
        let busy: Vec<_> = (group.consumers())
            .filter(|consumer| consumer.pending() > 0)
            .collect();
        out.array(busy.len());
        for consumer in busy {
            out.array(2);
            out.bulk(&consumer.name);
            out.bulk_integer(i64::try_from(consumer.pending()).unwrap_or(i64::MAX));
        }
        return Ok(());
    };
    let idle = |pending: &Pending| {
        now_ms
            .cast_signed()
            .wrapping_sub(pending.at_ms.cast_signed())
    };
    // What was released waits for whoever comes first.
    let wanted = |(_, pending, consumer): &(EntryId, &Pending, Option<&Consumer>)| {
        consumer.is_none() || range.min_idle_ms == 0 || idle(pending) >= range.min_idle_ms
    };
    let found: Vec<_> = match range.consumer {
        None => (group.pending_from(range.start))
            .take_while(|(id, ..)| *id <= range.end)
            .filter(wanted)
            .take(range.count)
            .collect(),
        Some(consumer) => match group.consumer(consumer) {
            None => Vec::new(),
            Some(consumer) => (group.pending_of(consumer, range.start))
                .map(|(id, pending, consumer)| (id, pending, Some(consumer)))
                .take_while(|(id, ..)| *id <= range.end)
                .filter(wanted)
                .take(range.count)
                .collect(),
        },
    };
    out.array(found.len());
    for (id, pending, consumer) in found {
        out.array(4);
        write_id(out, id);
        out.bulk(consumer.map_or(&[][..], |consumer| &consumer.name));
        out.integer(consumer.map_or(-1, |_| idle(pending).max(0)));
        write_unsigned(out, pending.count);
    }
    Ok(())
}

fn write_claimed(out: &mut Encoder<'_>, entries: &[Entry<'_>], just_ids: bool) {
    out.array(entries.len());
    for entry in entries {
        if just_ids {
            write_id(out, entry.id);
        } else {
            write_entry(out, entry);
        }
    }
}

/// A number with an error of its own.
fn long(text: &[u8], error: &'static str) -> Result<i64, Fail> {
    number::parse_i64(text).ok_or(Fail::Text(error))
}

fn xclaim(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let now_ms = cx.now_ms();
    let (name, mut view, out) = cx.on(args.at(1));
    let stream = view.stream(&name)?;
    if stream.and_then(|stream| stream.group(args.at(2))).is_none() {
        return Err(no_key_or_group(args.at(1), args.at(2)));
    }
    let min_idle = long(args.at(4), "ERR Invalid min-idle-time argument for XCLAIM")?;
    let mut ids = Vec::with_capacity(args.len() - 5);
    let mut at = 5;
    // Options follow the last argument that is an id.
    while let Some(id) = args.get(at).and_then(|text| id(text, 0).ok()) {
        ids.push(id);
        at += 1;
    }
    let mut claim = Claim {
        group: args.at(2),
        consumer: args.at(3),
        min_idle_ms: u64::try_from(min_idle).unwrap_or(0),
        now_ms,
        at_ms: now_ms,
        ..Claim::default()
    };
    // A time before 1970 or in the future is taken for now.
    let sane = |at: i64| u64::try_from(at).unwrap_or(now_ms).min(now_ms);
    while let Some(word) = args.get(at) {
        let value = args.get(at + 1);
        at += 1;
        match value {
            _ if is(word, "FORCE") => claim.force = true,
            _ if is(word, "JUSTID") => claim.just_ids = true,
            Some(value) if is(word, "IDLE") => {
                let idle = long(value, "ERR Invalid IDLE option argument for XCLAIM")?;
                claim.at_ms = sane(now_ms.cast_signed().wrapping_sub(idle));
                at += 1;
            }
            Some(value) if is(word, "TIME") => {
                claim.at_ms = sane(long(value, "ERR Invalid TIME option argument for XCLAIM")?);
                at += 1;
            }
            Some(value) if is(word, "RETRYCOUNT") => {
                let count = long(value, "ERR Invalid RETRYCOUNT option argument for XCLAIM")?;
                claim.count = u64::try_from(count).ok();
                at += 1;
            }
            Some(value) if is(word, "LASTID") => {
                claim.last = id(value, 0)?;
                at += 1;
            }
            _ => {
                return Err(Fail::Owned(format!(
                    "ERR Unrecognized XCLAIM option '{}'",
                    lossy(word, word.len())
                )));
            }
        }
    }
    view.edit_stream(&name, false, &Need::Entries(&ids), |stream, rows| {
        stream.claim(&claim, &ids, rows, |entries| {
            write_claimed(out, entries, claim.just_ids);
        })
    })?;
    Ok(())
}

fn xautoclaim(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    /// As Redis limits it.
    const COUNT_MAX: i64 = i64::MAX / 16;
    let min_idle = long(
        args.at(4),
        "ERR Invalid min-idle-time argument for XAUTOCLAIM",
    )?;
    let from = start(args.at(5))?;
    let (mut count, mut just_ids) = (100, false);
    let mut at = 6;
    while let Some(word) = args.get(at) {
        match args.get(at + 1) {
            Some(value) if is(word, "COUNT") => {
                const RANGE: &str = "ERR COUNT must be > 0";
                let wanted = long(value, RANGE)?;
                if !(1..=COUNT_MAX).contains(&wanted) {
                    return Err(Fail::Text(RANGE));
                }
                count = wanted.cast_unsigned();
                at += 1;
            }
            _ if is(word, "JUSTID") => just_ids = true,
            _ => return Err(Fail::Syntax),
        }
        at += 1;
    }
    let now_ms = cx.now_ms();
    let (name, mut view, out) = cx.on(args.at(1));
    let stream = view.stream(&name)?;
    if stream.and_then(|stream| stream.group(args.at(2))).is_none() {
        return Err(no_key_or_group(args.at(1), args.at(2)));
    }
    let claim = Claim {
        group: args.at(2),
        consumer: args.at(3),
        min_idle_ms: u64::try_from(min_idle).unwrap_or(0),
        now_ms,
        at_ms: now_ms,
        just_ids,
        ..Claim::default()
    };
    let need = Need::Claim(&claim, from, count);
    view.edit_stream(&name, false, &need, |stream, rows| {
        stream.claim_from(&claim, from, count, rows, |next, entries, gone| {
            out.array(3);
            write_id(out, next);
            write_claimed(out, entries, just_ids);
            out.array(gone.len());
            gone.iter().for_each(|id| write_id(out, *id));
        })
    })?;
    Ok(())
}
