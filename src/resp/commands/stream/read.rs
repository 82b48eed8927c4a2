//! `XREAD` and `XREADGROUP`, which may wait.

use broker::cache::{Ask, EntryId, Found, Kept, Need, Span, Want};
use protocol_resp::{Args, Encoder, number};

use super::{id, limit, show, write_entries, write_entry, write_id};
use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail, lossy};
use crate::resp::parse::{int, is};
use crate::resp::permission::{BOTH, Rights};
use crate::resp::spec::*;

pub(crate) const COMMANDS: &[Spec] = &[
    on_keys(
        "xread",
        -4,
        READ.and(BLOCKING),
        Keys::Streams,
        xread,
        "5.0.0",
        "Reads entries behind an id, may wait for them.",
    ),
    on_keys(
        "xreadgroup",
        -7,
        WRITE.and(BLOCKING),
        Keys::Streams,
        xreadgroup,
        "5.0.0",
        "Reads as a consumer of a group, may wait for entries.",
    )
    .needing(Rights::Keys(BOTH)),
];

struct Options<'a> {
    /// `None`: do not wait; within it `None`: for ever.
    timeout_ms: Option<Option<u64>>,
    count: usize,
    group: Option<(&'a [u8], &'a [u8])>,
    noack: bool,
    /// Where the keys begin, and how many there are.
    first: usize,
    streams: usize,
}

/// From where on a stream is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    Behind(EntryId),
    /// What the group has not read.
    New,
}

fn timeout_ms(text: &[u8], now_ms: u64) -> Result<Option<u64>, Fail> {
    let ms = number::parse_i64(text)
        .ok_or(Fail::Text("ERR timeout is not an integer or out of range"))?;
    let ms = u64::try_from(ms).map_err(|_| Fail::Text("ERR timeout is negative"))?;
    if ms > i64::MAX.cast_unsigned().saturating_sub(now_ms) {
        return Err(Fail::Text("ERR timeout is out of range"));
    }
    Ok((ms > 0).then_some(ms))
}

fn options<'a>(args: &Args<'a>, grouped: bool, now_ms: u64) -> Result<Options<'a>, Fail> {
    let mut options = Options {
        timeout_ms: None,
        count: 0,
        group: None,
        noack: false,
        first: 0,
        streams: 0,
    };
    let mut at = 1;
    while let Some(word) = args.get(at) {
        let more = args.len() - at - 1;
        if more > 0 && is(word, "BLOCK") {
            at += 1;
            options.timeout_ms = Some(timeout_ms(args.at(at), now_ms)?);
        } else if more > 0 && is(word, "COUNT") {
            at += 1;
            options.count = usize::try_from(int(args.at(at))?).unwrap_or(0);
        } else if more > 0 && is(word, "STREAMS") {
            if more % 2 == 1 {
                let (name, symbol) = if grouped {
                    ("xreadgroup", '>')
                } else {
                    ("xread", '$')
                };
                return Err(Fail::Owned(format!(
                    "ERR Unbalanced '{name}' list of streams: for each stream key an ID or '{symbol}' must be specified."
                )));
            }
            (options.first, options.streams) = (at + 1, more / 2);
            break;
        } else if more > 1 && is(word, "GROUP") {
            if !grouped {
                return Err(Fail::Text(
                    "ERR The GROUP option is only supported by XREADGROUP. You called XREAD instead.",
                ));
            }
            options.group = Some((args.at(at + 1), args.at(at + 2)));
            at += 2;
        } else if is(word, "NOACK") {
            if !grouped {
                return Err(Fail::Text(
                    "ERR The NOACK option is only supported by XREADGROUP. You called XREAD instead.",
                ));
            }
            options.noack = true;
        } else {
            return Err(Fail::Syntax);
        }
        at += 1;
    }
    if options.first == 0 {
        return Err(Fail::Syntax);
    }
    if grouped && options.group.is_none() {
        return Err(Fail::Text("ERR Missing GROUP option for XREADGROUP"));
    }
    Ok(options)
}

pub(crate) fn no_group(key: &[u8], group: &[u8]) -> Fail {
    Fail::Owned(format!(
        "NOGROUP No such key '{}' or consumer group '{}' in XREADGROUP with GROUP option",
        lossy(key, key.len()),
        lossy(group, group.len())
    ))
}

/// Where a stream is read from; that it can be is checked first.
fn from(
    cx: &mut Exec<'_, '_>,
    key: &[u8],
    text: &[u8],
    group: Option<&[u8]>,
) -> Result<Since, Fail> {
    let (name, mut view, _) = cx.on(key);
    let stream = view.stream(&name)?;
    if let Some(group) = group
        && stream.and_then(|stream| stream.group(group)).is_none()
    {
        return Err(no_group(key, group));
    }
    let last = stream.map_or(EntryId::MIN, |stream| stream.last_id());
    match (text, group) {
        (b"$", Some(_)) => Err(Fail::Text(
            "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer by specifying a proper ID, or use the > ID to get new messages. The $ ID would just return an empty result set.",
        )),
        (b"+", Some(_)) => Err(Fail::Text(
            "ERR The + ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer by specifying a proper ID, or use the > ID to get new messages. The + ID would just return an empty result set.",
        )),
        (b"$", None) => Ok(Since::Behind(last)),
        (b"+", None) => Ok(Since::Behind(last.before().unwrap_or_default())),
        (b">", Some(_)) => Ok(Since::New),
        (b">", None) => Err(Fail::Text(
            "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.",
        )),
        _ => id(text, 0).map(Since::Behind),
    }
}

fn xread(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    read(cx, args, false)
}

fn xreadgroup(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    read(cx, args, true)
}

fn read(cx: &mut Exec<'_, '_>, args: &Args<'_>, grouped: bool) -> Done {
    let options = options(args, grouped, cx.now_ms())?;
    let group = options.group.map(|(group, _)| group);
    let keys = (0..options.streams).map(|place| args.at(options.first + place));
    let mut wanted = Vec::with_capacity(options.streams);
    for (place, key) in keys.clone().enumerate() {
        let text = args.at(options.first + options.streams + place);
        wanted.push((key, from(cx, key, text, group)?));
    }
    if let (Some((group, consumer)), true) = (options.group, wanted.len() > 1) {
        // What cannot be read is refused before anything is delivered.
        for (key, from) in &wanted {
            let ask = Ask {
                group,
                consumer,
                count: options.count,
                noack: options.noack,
                now_ms: cx.now_ms(),
            };
            let (name, mut view, _) = cx.on(key);
            view.stream_for(&name, &need(*from, &ask))?;
        }
    }
    let mut streams = 0;
    let mut replies = Vec::new();
    for (key, from) in &wanted {
        let mut out = Encoder::new(&mut replies, cx.out.version());
        let served = match options.group {
            None => read_stream(cx, &mut out, key, *from, options.count)?,
            Some((group, consumer)) => {
                let ask = Ask {
                    group,
                    consumer,
                    count: options.count,
                    noack: options.noack,
                    now_ms: cx.now_ms(),
                };
                read_group(cx, &mut out, key, *from, &ask)?
            }
        };
        streams += usize::from(served);
    }
    if streams > 0 {
        begin(&mut cx.out, streams);
        cx.out.raw(&replies);
        return Ok(());
    }
    let Some(timeout_ms) = options.timeout_ms else {
        cx.out.null_array();
        return Ok(());
    };
    let count = options.count;
    let want = match options.group {
        None => Want::Read {
            after: wanted
                .iter()
                .filter_map(|(key, from)| match from {
                    Since::Behind(id) => Some((key.to_vec(), *id)),
                    Since::New => None,
                })
                .collect(),
            count,
        },
        Some((group, consumer)) => Want::ReadGroup {
            group: group.to_vec(),
            consumer: consumer.to_vec(),
            count,
            noack: options.noack,
        },
    };
    cx.wait(keys, want, timeout_ms, false);
    Ok(())
}

/// So many streams follow, each with its key in front.
fn begin(out: &mut Encoder<'_>, streams: usize) {
    if out.is_resp3() {
        out.map(streams);
    } else {
        out.array(streams);
    }
}

fn begin_stream(out: &mut Encoder<'_>, key: &[u8]) {
    if !out.is_resp3() {
        out.array(2);
    }
    out.bulk(key);
}

/// False: there is nothing behind that id.
fn read_stream(
    cx: &mut Exec<'_, '_>,
    out: &mut Encoder<'_>,
    key: &[u8],
    from: Since,
    count: usize,
) -> Result<bool, Fail> {
    let (name, mut view, _) = cx.on(key);
    let Since::Behind(id) = from else {
        return Ok(false);
    };
    let Some(start) = id.after() else {
        return Ok(false);
    };
    let span = Span {
        start,
        end: EntryId::MAX,
        back: false,
        limit: limit(count),
    };
    let found = view.between(&name, span, |entries| {
        if entries.is_empty() {
            return Ok::<_, Fail>(false);
        }
        begin_stream(out, key);
        show(out, entries)?;
        Ok(true)
    })?;
    Ok(found.unwrap_or(false))
}

fn need<'a>(from: Since, ask: &'a Ask<'a>) -> Need<'a> {
    match from {
        Since::New => Need::New(ask),
        Since::Behind(after) => Need::Again(ask, after),
    }
}

/// False: the group has read everything; what was delivered before is always an answer.
fn read_group(
    cx: &mut Exec<'_, '_>,
    out: &mut Encoder<'_>,
    key: &[u8],
    from: Since,
    ask: &Ask<'_>,
) -> Result<bool, Fail> {
    let (name, mut view, _) = cx.on(key);
    let need = need(from, ask);
    let served = view.edit_stream(&name, false, &need, |stream, rows| match from {
        Since::New => stream.deliver(ask, rows, |entries| {
            if !entries.is_empty() {
                begin_stream(out, key);
                out.array(entries.len());
                entries.iter().for_each(|entry| write_entry(out, entry));
            }
            !entries.is_empty()
        }),
        Since::Behind(after) => stream.deliver_again(ask, after, rows, |found| {
            begin_stream(out, key);
            out.array(found.len());
            for (id, entry) in found {
                match entry {
                    Some(entry) => write_entry(out, entry),
                    None => {
                        out.array(2);
                        write_id(out, *id);
                        out.null_array();
                    }
                }
            }
            true
        }),
    })?;
    Ok(served.flatten().unwrap_or(false))
}

/// What somebody gets who waited.
pub(crate) fn served(out: &mut Encoder<'_>, streams: &[Found]) {
    begin(out, streams.len());
    for (key, entries) in streams {
        begin_stream(out, key);
        write_entries(out, entries.iter().map(Kept::entry));
    }
}
