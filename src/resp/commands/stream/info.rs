//! `XINFO`: what streams, groups and consumers are like.

use broker::cache::{EntryId, Group, IdempotenceFacts, Need, Stream};
use protocol_resp::{Args, Encoder};

use super::{
    bad_subcommand, limit, no_group_for, write_entries, write_entry, write_id, write_or_null,
    write_unsigned,
};
use crate::resp::commands::server;
use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail};
use crate::resp::parse::{int, is};
use crate::resp::spec::*;

const KEY: Keys = Keys::Range(2, 2, 1);

pub(crate) const COMMANDS: &[Spec] = &[container(
    "xinfo",
    "5.0.0",
    "Tells about streams, groups and consumers.",
    &[
        on_keys(
            "xinfo|consumers",
            4,
            READ,
            KEY,
            consumers,
            "5.0.0",
            "Lists the consumers of a group.",
        ),
        on_keys(
            "xinfo|groups",
            3,
            READ,
            KEY,
            groups,
            "5.0.0",
            "Lists the groups of a stream.",
        ),
        on_keys(
            "xinfo|stream",
            -3,
            READ,
            KEY,
            stream,
            "5.0.0",
            "Tells about a stream.",
        ),
        on_keys(
            "xinfo|help",
            2,
            LOADING.and(STALE),
            Keys::None,
            help,
            "5.0.0",
            "Explains the subcommands.",
        )
        .locking(Locks::With(any_shard)),
    ],
)];

fn consumers(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let now_ms = cx.now_ms().cast_signed();
    let (name, mut view, out) = cx.on(args.at(2));
    let stream = view.stream(&name)?.ok_or(Fail::NoKey)?;
    let group = stream
        .group(args.at(3))
        .ok_or_else(|| no_group_for(args.at(3), args.at(2)))?;
    let consumers = group.consumers();
    out.array(consumers.len());
    for consumer in consumers {
        let since = |ms: u64| now_ms.wrapping_sub(ms.cast_signed());
        out.map(4);
        out.bulk(b"name");
        out.bulk(&consumer.name);
        out.bulk(b"pending");
        out.count(consumer.pending());
        out.bulk(b"idle");
        out.integer(since(consumer.seen_ms).max(0));
        out.bulk(b"inactive");
        out.integer(consumer.active_ms.map_or(-1, since));
    }
    Ok(())
}

fn groups(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(2));
    let stream = view.stream(&name)?.ok_or(Fail::NoKey)?;
    let groups = stream.groups();
    out.array(groups.len());
    for (name, group) in groups {
        out.map(6);
        out.bulk(b"name");
        out.bulk(name);
        out.bulk(b"consumers");
        out.count(group.consumers().len());
        out.bulk(b"pending");
        out.count(group.pending());
        progress(out, stream, group);
    }
    Ok(())
}

/// How far a group has come.
fn progress(out: &mut Encoder<'_>, stream: &Stream, group: &Group) {
    out.bulk(b"last-delivered-id");
    write_id(out, group.last);
    out.bulk(b"entries-read");
    write_or_null(out, Some(group.read).filter(|read| *read != -1));
    out.bulk(b"lag");
    write_or_null(out, stream.lag(group));
}

/// `FULL` and its count.
fn options(args: &Args<'_>) -> Result<Option<usize>, Fail> {
    const COUNT: usize = 10;
    let refused = || bad_subcommand("XINFO", args.at(1));
    match (args.get(3), args.get(4), args.get(5)) {
        (None, ..) => Ok(None),
        (Some(full), None, _) if is(full, "FULL") => Ok(Some(COUNT)),
        (Some(full), Some(word), Some(count))
            if args.len() == 6 && is(full, "FULL") && is(word, "COUNT") =>
        {
            Ok(Some(usize::try_from(int(count)?).unwrap_or(COUNT)))
        }
        _ => Err(refused()),
    }
}

fn stream(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let now_ms = cx.now_ms();
    let (name, mut view, out) = cx.on(args.at(2));
    if view.stream(&name)?.is_none() {
        return Err(Fail::NoKey);
    }
    let full = options(args)?;
    let need = full.map_or(Need::Nothing, |count| Need::First(limit(count)));
    let stream = view.stream_for(&name, &need)?.ok_or(Fail::NoKey)?;
    let known = stream.idempotence(now_ms);
    let more = if known.is_some() { 6 } else { 0 };
    out.map(more + if full.is_some() { 9 } else { 10 });
    out.bulk(b"length");
    out.count(stream.len());
    // Redis keeps entries in a radix tree; with one piece in it the numbers are the same.
    out.bulk(b"radix-tree-keys");
    out.count(stream.chunks());
    out.bulk(b"radix-tree-nodes");
    out.count(match stream.chunks() {
        0 => 1,
        1 => 2,
        chunks => 2 + 2 * chunks,
    });
    out.bulk(b"last-generated-id");
    write_id(out, stream.last_id());
    out.bulk(b"max-deleted-entry-id");
    write_id(out, stream.max_deleted());
    out.bulk(b"entries-added");
    write_unsigned(out, stream.added());
    out.bulk(b"recorded-first-entry-id");
    write_id(out, stream.first());
    if let Some(known) = known {
        write_known(out, &known);
    }
    match full {
        None => {
            out.bulk(b"groups");
            out.count(stream.groups().len());
            out.bulk(b"first-entry");
            match stream.get(stream.first()) {
                Some(entry) => write_entry(out, &entry),
                None => out.null(),
            }
            out.bulk(b"last-entry");
            match stream.get(stream.top()) {
                Some(entry) => write_entry(out, &entry),
                None => out.null(),
            }
        }
        Some(count) => {
            out.bulk(b"entries");
            let entries = stream.range(EntryId::MIN, EntryId::MAX);
            write_entries(out, entries.take(limit(count)));
            out.bulk(b"groups");
            let groups = stream.groups();
            out.array(groups.len());
            for (name, group) in groups {
                out.map(if group.released() > 0 { 8 } else { 7 });
                out.bulk(b"name");
                out.bulk(name);
                progress(out, stream, group);
                write_pending(out, group, limit(count));
            }
        }
    }
    Ok(())
}

/// Redis 8.6 tells it of every stream, Redis 7 and Valkey of none.
fn write_known(out: &mut Encoder<'_>, known: &IdempotenceFacts) {
    out.bulk(b"idmp-duration");
    write_unsigned(out, known.settings.duration_s);
    out.bulk(b"idmp-maxsize");
    write_unsigned(out, known.settings.ids_max);
    out.bulk(b"pids-tracked");
    out.count(known.producers);
    out.bulk(b"iids-tracked");
    out.count(known.ids);
    out.bulk(b"iids-added");
    write_unsigned(out, known.added);
    out.bulk(b"iids-duplicates");
    write_unsigned(out, known.duplicates);
}

fn write_pending(out: &mut Encoder<'_>, group: &Group, limit: usize) {
    out.bulk(b"pel-count");
    out.count(group.pending());
    if group.released() > 0 {
        out.bulk(b"nacked-count");
        out.count(group.released());
    }
    out.bulk(b"pending");
    let pending = group.pending_from(EntryId::MIN).take(limit);
    out.array(group.pending().min(limit));
    for (id, pending, consumer) in pending {
        out.array(4);
        write_id(out, id);
        out.bulk(consumer.map_or(&[][..], |consumer| &consumer.name));
        write_unsigned(out, pending.at_ms);
        write_unsigned(out, pending.count);
    }
    out.bulk(b"consumers");
    let consumers = group.consumers();
    out.array(consumers.len());
    for consumer in consumers {
        out.map(5);
        out.bulk(b"name");
        out.bulk(&consumer.name);
        out.bulk(b"seen-time");
        write_unsigned(out, consumer.seen_ms);
        out.bulk(b"active-time");
        out.integer(consumer.active_ms.map_or(-1, u64::cast_signed));
        out.bulk(b"pel-count");
        out.count(consumer.pending());
        out.bulk(b"pending");
        out.array(consumer.pending().min(limit));
        for (id, pending, _) in group.pending_of(consumer, EntryId::MIN).take(limit) {
            out.array(3);
            write_id(out, id);
            write_unsigned(out, pending.at_ms);
            write_unsigned(out, pending.count);
        }
    }
}

fn help(cx: &mut Exec<'_, '_>, _: &Args<'_>) -> Done {
    server::help(
        &mut cx.out,
        "XINFO",
        &[
            (
                "CONSUMERS <key> <groupname>",
                "Show consumers of <groupname>.",
            ),
            ("GROUPS <key>", "Show the stream consumer groups."),
            (
                "STREAM <key> [FULL [COUNT <count>]",
                "Show information about the stream.",
            ),
        ],
    );
    Ok(())
}
