//! `XGROUP`: groups and their consumers.

use broker::cache::{EntryId, Need};
use protocol_resp::Args;

use super::{bad_subcommand, id, id_or_edge, no_group_for};
use crate::resp::commands::server;
use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail};
use crate::resp::parse::{int, is};
use crate::resp::spec::*;

const KEY: Keys = Keys::Range(2, 2, 1);

pub(crate) const COMMANDS: &[Spec] = &[container(
    "xgroup",
    "5.0.0",
    "Manages consumer groups.",
    &[
        on_keys(
            "xgroup|create",
            -5,
            WRITE.and(DENYOOM),
            KEY,
            create,
            "5.0.0",
            "Makes a group.",
        ),
        on_keys(
            "xgroup|createconsumer",
            5,
            WRITE.and(DENYOOM),
            KEY,
            create_consumer,
            "6.2.0",
            "Makes a consumer of a group.",
        ),
        on_keys(
            "xgroup|delconsumer",
            5,
            WRITE,
            KEY,
            delete_consumer,
            "5.0.0",
            "Removes a consumer of a group.",
        ),
        on_keys(
            "xgroup|destroy",
            4,
            WRITE,
            KEY,
            destroy,
            "5.0.0",
            "Removes a group.",
        ),
        on_keys(
            "xgroup|setid",
            -5,
            WRITE,
            KEY,
            set_id,
            "5.0.0",
            "Sets up to where a group has read.",
        ),
        on_keys(
            "xgroup|help",
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

/// `MKSTREAM` and how many entries the group counts as read.
fn options(args: &Args<'_>, creating: bool) -> Result<(bool, i64), Fail> {
    let (mut create, mut read) = (false, -1);
    let mut at = 5;
    while let Some(word) = args.get(at) {
        if creating && is(word, "MKSTREAM") {
            create = true;
            at += 1;
        } else if is(word, "ENTRIESREAD") && at + 1 < args.len() {
            read = int(args.at(at + 1))?;
            if read < -1 {
                return Err(Fail::Text(
                    "ERR value for ENTRIESREAD must be positive or -1",
                ));
            }
            at += 2;
        } else {
            return Err(bad_subcommand("XGROUP", args.at(1)));
        }
    }
    Ok((create, read))
}

const NO_KEY: Fail = Fail::Text(
    "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option to create an empty stream automatically.",
);

fn create(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (create, read) = options(args, true)?;
    let (name, mut view, out) = cx.on(args.at(2));
    let last = view.stream(&name)?.map(|stream| stream.last_id());
    if last.is_none() && !create {
        return Err(NO_KEY);
    }
    if args.len() > 8 {
        return Err(bad_subcommand("XGROUP", args.at(1)));
    }
    let from = match args.at(4) {
        b"$" => last.unwrap_or_default(),
        text => id(text, 0)?,
    };
    let created = view.edit_stream(&name, true, &Need::Nothing, |stream, rows| {
        stream.create_group(args.at(3), from, read, rows)
    })?;
    if created != Some(true) {
        return Err(Fail::Text("BUSYGROUP Consumer Group name already exists"));
    }
    out.ok();
    Ok(())
}

/// The last id of a stream that has the group.
fn last_id(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Result<EntryId, Fail> {
    let (name, mut view, _) = cx.on(args.at(2));
    let stream = view.stream(&name)?.ok_or(NO_KEY)?;
    if stream.group(args.at(3)).is_none() {
        return Err(no_group_for(args.at(3), args.at(2)));
    }
    Ok(stream.last_id())
}

fn set_id(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (_, read) = options(args, false)?;
    let last = last_id(cx, args)?;
    if args.len() > 7 {
        return Err(bad_subcommand("XGROUP", args.at(1)));
    }
    let last = match args.at(4) {
        b"$" => last,
        text => id_or_edge(text, 0)?,
    };
    let (name, mut view, out) = cx.on(args.at(2));
    view.edit_stream(&name, false, &Need::Nothing, |stream, rows| {
        stream.set_group(args.at(3), last, read, rows)
    })?;
    out.ok();
    Ok(())
}

fn destroy(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(2));
    let destroyed = view.edit_stream(&name, false, &Need::Nothing, |stream, rows| {
        stream.destroy_group(args.at(3), rows)
    })?;
    out.integer(i64::from(destroyed.ok_or(NO_KEY)?));
    Ok(())
}

fn create_consumer(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    last_id(cx, args)?;
    let now_ms = cx.now_ms();
    let (name, mut view, out) = cx.on(args.at(2));
    let created = view.edit_stream(&name, false, &Need::Nothing, |stream, rows| {
        stream.create_consumer(args.at(3), args.at(4), now_ms, rows)
    })?;
    out.integer(i64::from(created.flatten() == Some(true)));
    Ok(())
}

fn delete_consumer(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    last_id(cx, args)?;
    let (name, mut view, out) = cx.on(args.at(2));
    let pending = view.edit_stream(&name, false, &Need::Nothing, |stream, rows| {
        stream.delete_consumer(args.at(3), args.at(4), rows)
    })?;
    out.count(pending.flatten().unwrap_or(0));
    Ok(())
}

fn help(cx: &mut Exec<'_, '_>, _: &Args<'_>) -> Done {
    server::help(
        &mut cx.out,
        "XGROUP",
        &[
            (
                "CREATE <key> <groupname> <id|$> [option]",
                "Create a new consumer group. Options are:",
            ),
            (
                "    * MKSTREAM",
                "  Create the empty stream if it does not exist.",
            ),
            (
                "    * ENTRIESREAD entries_read",
                "  Set the group's entries_read counter (internal use).",
            ),
            (
                "CREATECONSUMER <key> <groupname> <consumer>",
                "Create a new consumer in the specified group.",
            ),
            (
                "DELCONSUMER <key> <groupname> <consumer>",
                "Remove the specified consumer.",
            ),
            ("DESTROY <key> <groupname>", "Remove the specified group."),
            (
                "SETID <key> <groupname> <id|$> [ENTRIESREAD entries_read]",
                "Set the current group ID and entries_read counter.",
            ),
        ],
    );
    Ok(())
}
