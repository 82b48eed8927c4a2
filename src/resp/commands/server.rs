//! The server as seen by its clients: `INFO`, `CONFIG`, `COMMAND`, flushing.

pub(crate) mod admin;
mod command;
mod config;
mod debug;
mod info;
mod memory;
mod params;
mod persistence;
mod slowlog;

use broker::ShardSet;
use broker::cache::DATABASES;
use protocol_resp::number;
use protocol_resp::{Args, Encoder};

use crate::resp::commands::cluster::refuse_databases;
use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail};
use crate::resp::parse::is;
use crate::resp::permission::Rights;
use crate::resp::session::Session;
use crate::resp::spec::*;
use broker::access::Verbs;

use command::{
    command_all, command_count, command_docs, command_getkeys, command_help, command_info,
    command_list,
};
pub(super) use config::setting;
use config::{
    config_get, config_help, config_resetstat, config_rewrite, config_set, config_shards,
};
use info::info;
pub(crate) use params::settings;

const ADMINISTER: Flags = ADMIN.and(NOSCRIPT).and(LOADING).and(STALE);

pub(crate) const COMMANDS: &[Spec] = &[
    on_keys(
        "info",
        -1,
        LOADING.and(STALE),
        Keys::None,
        info,
        "1.0.0",
        "Shows figures about the server.",
    )
    .needing(Rights::Admin("server", Verbs::DESCRIBE))
    .locking(Locks::All),
    on_keys(
        "dbsize",
        1,
        READ.and(FAST),
        Keys::None,
        dbsize,
        "1.0.0",
        "Counts the keys of the database.",
    )
    .needing(Rights::AllKeys(0))
    .locking(Locks::All),
    on_keys(
        "flushdb",
        -1,
        WRITE,
        Keys::None,
        flushdb,
        "1.0.0",
        "Deletes all keys of the database.",
    )
    .needing(Rights::Admin("flush", Verbs::ADMIN))
    .locking(Locks::All),
    on_keys(
        "flushall",
        -1,
        WRITE,
        Keys::None,
        flushall,
        "1.0.0",
        "Deletes all keys of all databases.",
    )
    .needing(Rights::Admin("flush", Verbs::ADMIN))
    .locking(Locks::All),
    on_keys(
        "swapdb",
        3,
        WRITE.and(FAST),
        Keys::None,
        swapdb,
        "4.0.0",
        "Makes two databases change places.",
    )
    .needing(Rights::Admin("flush", Verbs::ADMIN))
    .locking(Locks::All),
    on_session(
        "time",
        1,
        LOADING.and(STALE).and(FAST),
        time,
        "2.6.0",
        "Returns the server's time.",
    ),
    on_session(
        "role",
        1,
        NOSCRIPT.and(LOADING).and(STALE).and(FAST),
        role,
        "2.8.12",
        "Returns the server's part in replication.",
    ),
    container(
        "config",
        "2.0.0",
        "Reads and changes settings.",
        &[
            on_session(
                "config|get",
                -3,
                ADMINISTER,
                config_get,
                "2.0.0",
                "Reads settings.",
            )
            .needing(Rights::Admin("config", Verbs::DESCRIBE)),
            on_session_held(
                "config|set",
                -4,
                ADMINISTER,
                config_set,
                "2.0.0",
                "Changes settings until the server stops.",
            )
            .locking(Locks::With(config_shards))
            .needing(Rights::Admin("config", Verbs::ADMIN)),
            on_keys(
                "config|resetstat",
                2,
                ADMINISTER,
                Keys::None,
                config_resetstat,
                "2.0.0",
                "Sets the counters of INFO to zero.",
            )
            .needing(Rights::Admin("config", Verbs::ADMIN))
            .locking(Locks::All),
            on_session(
                "config|rewrite",
                2,
                ADMINISTER,
                config_rewrite,
                "2.8.0",
                "Would write the settings to the file.",
            )
            .needing(Rights::Admin("config", Verbs::ADMIN)),
            on_session(
                "config|help",
                2,
                LOADING.and(STALE),
                config_help,
                "5.0.0",
                "Explains the subcommands.",
            ),
        ],
    ),
    Spec {
        sub: &[
            on_session(
                "command|count",
                2,
                LOADING.and(STALE),
                command_count,
                "2.8.13",
                "Counts the commands.",
            ),
            on_session(
                "command|info",
                -2,
                LOADING.and(STALE),
                command_info,
                "2.8.13",
                "Describes commands for clients.",
            ),
            on_session(
                "command|docs",
                -2,
                LOADING.and(STALE),
                command_docs,
                "7.0.0",
                "Describes commands for people.",
            ),
            on_session(
                "command|list",
                -2,
                LOADING.and(STALE),
                command_list,
                "7.0.0",
                "Lists the commands.",
            ),
            on_session(
                "command|getkeys",
                -3,
                LOADING.and(STALE),
                command_getkeys,
                "2.8.13",
                "Finds the keys in a command.",
            ),
            on_session(
                "command|help",
                2,
                LOADING.and(STALE),
                command_help,
                "5.0.0",
                "Explains the subcommands.",
            ),
        ],
        ..on_session(
            "command",
            -1,
            LOADING.and(STALE),
            command_all,
            "2.8.13",
            "Describes all commands for clients.",
        )
    },
];

/// The reply of a `HELP` subcommand.
pub(crate) fn help(out: &mut Encoder<'_>, command: &str, lines: &[(&str, &str)]) {
    let texts = lines.iter().map(|(_, text)| text.lines().count());
    out.array(lines.len() + texts.sum::<usize>() + 3);
    out.simple(&format!(
        "{command} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"
    ));
    for (usage, text) in lines {
        out.simple(usage);
        for line in text.lines() {
            out.simple(&format!("    {line}"));
        }
    }
    out.simple("HELP");
    out.simple("    Print this help.");
}

fn sizes(cx: &mut Exec<'_, '_>, db: usize) -> (u64, u64) {
    let (mut keys, mut expires) = (0, 0);
    for shard in ShardSet::DATA.iter() {
        let mut view = cx.locked.shard(shard).keys(db, cx.ctx.now, cx.fx);
        keys += view.len() as u64;
        expires += view.expiring() as u64;
    }
    (keys, expires)
}

fn dbsize(cx: &mut Exec<'_, '_>, _: &Args<'_>) -> Done {
    let (keys, _) = sizes(cx, cx.db);
    cx.out.integer(i64::try_from(keys).unwrap_or(i64::MAX));
    Ok(())
}

/// `ASYNC` and `SYNC` mean the same here: the rows are swept in the background in any case.
fn flush_mode(args: &Args<'_>) -> Done {
    match (args.len(), args.get(1)) {
        (1, _) => Ok(()),
        (2, Some(word)) if is(word, "ASYNC") || is(word, "SYNC") => Ok(()),
        _ => Err(Fail::Syntax),
    }
}

fn flushdb(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    flush_mode(args)?;
    for shard in ShardSet::DATA.iter() {
        cx.locked
            .shard(shard)
            .keys(cx.db, cx.ctx.now, cx.fx)
            .flush();
    }
    cx.out.ok();
    Ok(())
}

fn flushall(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    flush_mode(args)?;
    for shard in ShardSet::DATA.iter() {
        for db in 0..DATABASES {
            cx.locked.shard(shard).keys(db, cx.ctx.now, cx.fx).flush();
        }
    }
    cx.out.ok();
    Ok(())
}

fn swapdb(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    refuse_databases(cx.node, "ERR SWAPDB is not allowed in cluster mode")?;
    let index = |text: &[u8], error| {
        let index = number::parse_i64(text).and_then(|index| i32::try_from(index).ok());
        index.ok_or(Fail::Text(error))
    };
    let first = index(args.at(1), "ERR invalid first DB index")?;
    let second = index(args.at(2), "ERR invalid second DB index")?;
    let databases = usize::from(cx.node.config.resp_databases).min(DATABASES);
    let known = |index: i32| {
        let index = usize::try_from(index).ok();
        index
            .filter(|index| *index < databases)
            .ok_or(Fail::Text("ERR DB index is out of range"))
    };
    let (first, second) = (known(first)?, known(second)?);
    for shard in ShardSet::DATA.iter() {
        let mut view = cx.locked.shard(shard).keys(first, cx.ctx.now, cx.fx);
        view.swap(second);
    }
    cx.out.ok();
    Ok(())
}

fn time(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let mut out = Encoder::new(out, session.version);
    let now = session.ctx.now.0;
    out.array(2);
    out.bulk((now / 1000).to_string().as_bytes());
    out.bulk((now % 1000 * 1000).to_string().as_bytes());
    Ok(())
}

fn role(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let mut out = Encoder::new(out, session.version);
    out.array(3);
    out.bulk(b"master");
    out.integer(0);
    out.array(0);
    Ok(())
}
