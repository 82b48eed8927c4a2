//! The server as seen by its clients: `INFO`, `CONFIG`, `COMMAND`, flushing.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use broker::cache::{DATABASES, matches};
use broker::{Durability, ShardSet};
use protocol_resp::{Args, Encoder, number};

use crate::resp::commands;
use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail, lossy};
use crate::resp::parse::is;
use crate::resp::session::Session;
use crate::resp::spec::*;
use crate::telemetry::process;

/// The Redis whose commands and answers these are.
pub(crate) const REDIS_VERSION: &str = "7.2.4";

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
        "lastsave",
        1,
        LOADING.and(STALE).and(FAST),
        lastsave,
        "1.0.0",
        "Returns when data was last on disk.",
    ),
    on_session(
        "role",
        1,
        NOSCRIPT.and(LOADING).and(STALE).and(FAST),
        role,
        "2.8.12",
        "Returns the server's part in replication.",
    ),
    on_session(
        "wait",
        3,
        BLOCKING,
        wait,
        "3.0.0",
        "Counts the replicas that have all writes.",
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
            ),
            on_session(
                "config|set",
                -4,
                ADMINISTER,
                config_set,
                "2.0.0",
                "Changes settings until the server stops.",
            ),
            on_keys(
                "config|resetstat",
                2,
                ADMINISTER,
                Keys::None,
                config_resetstat,
                "2.0.0",
                "Sets the counters of INFO to zero.",
            )
            .locking(Locks::All),
            on_session(
                "config|rewrite",
                2,
                ADMINISTER,
                config_rewrite,
                "2.8.0",
                "Would write the settings to the file.",
            ),
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
    out.array(lines.len() * 2 + 3);
    out.simple(&format!(
        "{command} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"
    ));
    for (usage, text) in lines {
        out.simple(usage);
        out.simple(&format!("    {text}"));
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

fn time(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let mut out = Encoder::new(out, session.version);
    let now = session.ctx.now.0;
    out.array(2);
    out.bulk((now / 1000).to_string().as_bytes());
    out.bulk((now % 1000 * 1000).to_string().as_bytes());
    Ok(())
}

fn lastsave(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    // The log is synced each second.
    Encoder::new(out, session.version)
        .integer(i64::try_from(session.ctx.now.0 / 1000).unwrap_or(0));
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

fn wait(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    number::parse_i64(args.at(1))
        .filter(|count| *count >= 0)
        .ok_or(Fail::NotInteger)?;
    match number::parse_i64(args.at(2)) {
        None => return Err(Fail::Text("ERR timeout is not an integer or out of range")),
        Some(timeout) if timeout < 0 => return Err(Fail::Text("ERR timeout is negative")),
        Some(_) => {}
    }
    Encoder::new(out, session.version).integer(0);
    Ok(())
}

/// Bytes as Redis shows them to people.
fn human(bytes: u64) -> String {
    let value = bytes as f64;
    match bytes {
        0..1024 => format!("{bytes}B"),
        1024..1_048_576 => format!("{:.2}K", value / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.2}M", value / 1_048_576.0),
        _ => format!("{:.2}G", value / 1_073_741_824.0),
    }
}

/// Sections of `INFO` that are shown without asking.
const DEFAULT_SECTIONS: &[&str] = &[
    "server",
    "clients",
    "memory",
    "persistence",
    "stats",
    "replication",
    "cpu",
    "modules",
    "errorstats",
    "cluster",
    "keyspace",
];

fn info(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let mut wanted: Vec<String> = args
        .iter()
        .skip(1)
        .map(|word| lossy(word, 64).to_ascii_lowercase())
        .collect();
    if wanted.is_empty()
        || wanted
            .iter()
            .any(|word| word == "default" || word == "all" || word == "everything")
    {
        wanted.extend(DEFAULT_SECTIONS.iter().map(|&name| name.to_owned()));
    }
    let mut text = String::new();
    for section in DEFAULT_SECTIONS {
        if wanted.iter().any(|word| word == section) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            write_section(cx, section, &mut text);
        }
    }
    cx.out.verbatim("txt", text.as_bytes());
    Ok(())
}

fn write_section(cx: &mut Exec<'_, '_>, section: &str, text: &mut String) {
    let mut title = section.to_owned();
    if let Some(first) = title.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    if section == "cpu" {
        title = "CPU".into();
    }
    text.push_str("# ");
    text.push_str(&title);
    text.push_str("\r\n");
    let mut field = |name: &str, value: &dyn std::fmt::Display| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{name}:{value}\r\n");
    };
    let (node, hub) = (cx.node, cx.hub);
    let now = cx.ctx.now.0;
    let engine = &node.broker.engine;
    match section {
        "server" => {
            let port = node
                .addresses_of(crate::config::Face::Resp)
                .next()
                .map_or(0, |addr| addr.port());
            let uptime = now.saturating_sub(node.started_ms) / 1000;
            field("redis_version", &REDIS_VERSION);
            field("redis_git_sha1", &"00000000");
            field("redis_git_dirty", &0);
            field("redis_build_id", &"0");
            field("redis_mode", &"standalone");
            field("server_name", &"flowmesh");
            field("flowmesh_version", &env!("CARGO_PKG_VERSION"));
            field(
                "os",
                &format_args!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            );
            field("arch_bits", &usize::BITS);
            field("monotonic_clock", &"POSIX clock_gettime");
            field("multiplexing_api", &"epoll");
            field("process_id", &std::process::id());
            field(
                "run_id",
                &format_args!("{:016x}{:024x}", node.started_ms, std::process::id()),
            );
            field("tcp_port", &port);
            field("server_time_usec", &(now * 1000));
            field("uptime_in_seconds", &uptime);
            field("uptime_in_days", &(uptime / 86_400));
            field("hz", &10);
            field("configured_hz", &10);
            field(
                "io_threads_active",
                &i32::from(node.config.thread_count() > 1),
            );
        }
        "clients" => {
            field("connected_clients", &hub.client_count());
            field("cluster_connections", &0);
            field("maxclients", &node.config.max_connections);
            field("client_recent_max_input_buffer", &0);
            field("client_recent_max_output_buffer", &0);
            field("blocked_clients", &hub.blocked.load(Ordering::Relaxed));
            field("tracking_clients", &0);
            field(
                "clients_in_timeout_table",
                &hub.blocked.load(Ordering::Relaxed),
            );
        }
        "memory" => {
            let used = process::memory_now();
            let peak = hub.peak_memory.fetch_max(used, Ordering::Relaxed).max(used);
            let budget = &node.broker.budgets.cache;
            field("used_memory", &used);
            field("used_memory_human", &human(used));
            field("used_memory_rss", &used);
            field("used_memory_rss_human", &human(used));
            field("used_memory_peak", &peak);
            field("used_memory_peak_human", &human(peak));
            field("used_memory_dataset", &budget.used());
            field("total_system_memory", &process::memory_bytes());
            field("total_system_memory_human", &human(process::memory_bytes()));
            field("used_memory_lua", &0);
            let limit = setting(cx, "maxmemory").parse().unwrap_or(0);
            field("maxmemory", &limit);
            field("maxmemory_human", &human(limit));
            field("maxmemory_policy", &"noeviction");
            field("mem_fragmentation_ratio", &"1.00");
            field("mem_allocator", &"mimalloc");
        }
        "persistence" => {
            let stats = engine.stats();
            field("loading", &0);
            field("async_loading", &0);
            field("rdb_changes_since_last_save", &0);
            field("rdb_bgsave_in_progress", &0);
            field("rdb_last_save_time", &(now / 1000));
            field("rdb_last_bgsave_status", &"ok");
            field("aof_enabled", &1);
            field("aof_rewrite_in_progress", &0);
            field("aof_rewrite_scheduled", &0);
            field("aof_last_bgrewrite_status", &"ok");
            field(
                "aof_last_write_status",
                &if engine.failed() { "err" } else { "ok" },
            );
            field(
                "aof_pending_bio_fsync",
                &i32::from(stats.synced < stats.written),
            );
            field("flowmesh_log_appended", &stats.appended.0);
            field("flowmesh_log_written", &stats.written.0);
            field("flowmesh_log_synced", &stats.synced.0);
        }
        "stats" => {
            let [commands, connections, errors] = hub.stats.values();
            let mut counts = broker::cache::Counts::default();
            for shard in ShardSet::DATA.iter() {
                let of_shard = cx.locked.shard(shard).keys(0, cx.ctx.now, cx.fx).counts();
                counts.hits += of_shard.hits;
                counts.misses += of_shard.misses;
                counts.expired += of_shard.expired;
                counts.evicted += of_shard.evicted;
            }
            field("total_connections_received", &connections);
            field("total_commands_processed", &commands);
            field("rejected_connections", &0);
            field("expired_keys", &counts.expired);
            field("evicted_keys", &counts.evicted);
            field("keyspace_hits", &counts.hits);
            field("keyspace_misses", &counts.misses);
            field(
                "pubsub_channels",
                &hub.names(crate::resp::hub::Topic::Channel).len(),
            );
            field(
                "pubsub_patterns",
                &hub.names(crate::resp::hub::Topic::Pattern).len(),
            );
            field(
                "pubsubshard_channels",
                &hub.names(crate::resp::hub::Topic::Shard).len(),
            );
            field("total_error_replies", &errors);
        }
        "replication" => {
            field("role", &"master");
            field("connected_slaves", &0);
            field("master_failover_state", &"no-failover");
            field("master_replid", &"0000000000000000000000000000000000000000");
            field("master_repl_offset", &0);
            field("second_repl_offset", &-1);
            field("repl_backlog_active", &0);
        }
        "cpu" => {
            let reading = process::read();
            field("used_cpu_sys", &"0.000000");
            field("used_cpu_user", &format_args!("{:.6}", reading.cpu_seconds));
        }
        "cluster" => field("cluster_enabled", &0),
        "keyspace" => {
            for db in 0..DATABASES {
                let (keys, expires) = sizes(cx, db);
                if keys > 0 {
                    let _ = write!(text, "db{db}:keys={keys},expires={expires},avg_ttl=0\r\n");
                }
            }
        }
        _ => {}
    }
}

fn setting(cx: &Exec<'_, '_>, name: &str) -> String {
    let settings = cx.hub.settings.read();
    settings
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, value)| value.clone())
        .unwrap_or_default()
}

/// What `CONFIG GET` shows at first. Those of `SETTABLE` can be changed.
pub(crate) fn settings(config: &crate::config::Config) -> Vec<(&'static str, String)> {
    let text = |value: &str| value.to_owned();
    vec![
        ("maxmemory", text("0")),
        ("maxmemory-policy", text("noeviction")),
        ("appendonly", text("yes")),
        ("appendfsync", text(appendfsync(config.resp_durability))),
        ("save", text("")),
        ("dir", config.data_dir.display().to_string()),
        (
            "databases",
            usize::from(config.resp_databases)
                .min(DATABASES)
                .to_string(),
        ),
        ("maxclients", config.max_connections.to_string()),
        ("timeout", config.resp_idle_timeout.as_secs().to_string()),
        (
            "proto-max-bulk-len",
            config.resp_max_bulk.as_usize().to_string(),
        ),
        ("notify-keyspace-events", text("")),
        ("cluster-enabled", text("no")),
        ("hash-max-listpack-entries", text("128")),
        ("hash-max-listpack-value", text("64")),
        ("hash-max-ziplist-entries", text("128")),
        ("hash-max-ziplist-value", text("64")),
        ("list-max-listpack-size", text("-2")),
        ("list-max-ziplist-size", text("-2")),
        ("set-max-intset-entries", text("512")),
        ("set-max-listpack-entries", text("128")),
        ("set-max-listpack-value", text("64")),
        ("zset-max-listpack-entries", text("128")),
        ("zset-max-listpack-value", text("64")),
        ("zset-max-ziplist-entries", text("128")),
        ("zset-max-ziplist-value", text("64")),
    ]
}

fn appendfsync(durability: Durability) -> &'static str {
    match durability {
        Durability::Os => "no",
        Durability::Interval => "everysec",
        Durability::Sync => "always",
    }
}

fn config_get(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let settings = session.hub.settings.read();
    let found: Vec<_> = settings
        .iter()
        .filter(|(name, _)| {
            args.iter()
                .skip(2)
                .any(|pattern| matches(&pattern.to_ascii_lowercase(), name.as_bytes()))
        })
        .collect();
    let mut out = Encoder::new(out, session.version);
    out.map(found.len());
    for (name, value) in found {
        out.bulk(name.as_bytes());
        out.bulk(value.as_bytes());
    }
    Ok(())
}

/// `100mb` in bytes.
fn memory(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.to_ascii_lowercase();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let factor = match unit {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

fn config_set(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    if !args.len().is_multiple_of(2) {
        return Err(crate::resp::fail::wrong_arity("config|set"));
    }
    let values = args.from(3);
    let pairs: Vec<(&[u8], &[u8])> = args
        .from(2)
        .iter()
        .step_by(2)
        .zip(values.iter().step_by(2))
        .collect();
    let mut changes: Vec<(&'static str, String)> = Vec::new();
    for (name, value) in pairs {
        let settings = session.hub.settings.read();
        let Some((known, old)) = settings
            .iter()
            .find(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes()))
        else {
            return Err(Fail::Owned(format!(
                "ERR Unknown option or number of arguments for CONFIG SET - '{}'",
                lossy(name, 128)
            )));
        };
        let failed = |why: &str| {
            Err(Fail::Owned(format!(
                "ERR CONFIG SET failed (possibly related to argument '{}') - {why}",
                lossy(name, 128)
            )))
        };
        let new = match *known {
            "maxmemory" => match memory(value) {
                Some(bytes) => bytes.to_string(),
                None => return failed("argument must be a memory value"),
            },
            "appendfsync" => match value.to_ascii_lowercase().as_slice() {
                b"no" => "no".into(),
                b"everysec" => "everysec".into(),
                b"always" => "always".into(),
                _ => {
                    return failed(
                        "argument(s) must be one of the following: everysec, always, no",
                    );
                }
            },
            "databases" | "cluster-enabled" | "dir" | "maxclients" => {
                return failed("can't set immutable config");
            }
            // What is fixed may be set to what it is.
            _ if old.as_bytes() == value => continue,
            _ => return failed("this setting is fixed here"),
        };
        changes.push((known, new));
    }
    for (name, value) in changes {
        match name {
            "maxmemory" => {
                let bytes: u64 = value.parse().unwrap_or(0);
                let auto = broker::Budgets::split(session.node.config.memory_budget())
                    .cache
                    .limit();
                session
                    .node
                    .broker
                    .budgets
                    .cache
                    .set_limit(if bytes == 0 { auto } else { bytes });
            }
            "appendfsync" => session.hub.set_durability(match value.as_str() {
                "no" => Durability::Os,
                "everysec" => Durability::Interval,
                _ => Durability::Sync,
            }),
            _ => {}
        }
        if let Some((_, old)) = session
            .hub
            .settings
            .write()
            .iter_mut()
            .find(|(known, _)| *known == name)
        {
            *old = value;
        }
    }
    Encoder::new(out, session.version).ok();
    Ok(())
}

fn config_resetstat(cx: &mut Exec<'_, '_>, _: &Args<'_>) -> Done {
    cx.hub.stats.reset();
    for shard in ShardSet::DATA.iter() {
        let mut view = cx.locked.shard(shard).keys(0, cx.ctx.now, cx.fx);
        view.reset_counts();
    }
    cx.out.ok();
    Ok(())
}

fn config_rewrite(_: &mut Session, _: &Args<'_>, _: &mut Vec<u8>) -> Done {
    Err(Fail::Text(
        "ERR The server is running without a config file",
    ))
}

fn config_help(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    help(
        &mut Encoder::new(out, session.version),
        "CONFIG",
        &[
            (
                "GET <pattern>",
                "Return parameters matching the glob-like <pattern> and their values.",
            ),
            (
                "SET <directive> <value>",
                "Set the configuration <directive> to <value>.",
            ),
            (
                "RESETSTAT",
                "Reset statistics reported by the INFO command.",
            ),
            ("REWRITE", "Rewrite the configuration file."),
        ],
    );
    Ok(())
}

fn command_all(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let mut out = Encoder::new(out, session.version);
    out.array(commands::all().count());
    for (group, spec) in commands::all() {
        describe(&mut out, group, spec);
    }
    Ok(())
}

fn command_count(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    Encoder::new(out, session.version).count(commands::all().count());
    Ok(())
}

/// A command or `container|subcommand`.
fn find(name: &[u8]) -> Option<(&'static str, &'static Spec)> {
    let lower = name.to_ascii_lowercase();
    commands::all()
        .flat_map(|(group, spec)| {
            std::iter::once((group, spec)).chain(spec.sub.iter().map(move |sub| (group, sub)))
        })
        .find(|(_, spec)| spec.name.as_bytes() == lower)
}

fn command_info(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    if args.len() == 2 {
        return command_all(session, args, out);
    }
    let mut out = Encoder::new(out, session.version);
    out.array(args.len() - 2);
    for name in args.iter().skip(2) {
        match find(name) {
            Some((group, spec)) => describe(&mut out, group, spec),
            None => out.null(),
        }
    }
    Ok(())
}

/// Categories of access control that follow from a command's family and flags.
fn categories(group: &str, spec: &Spec) -> Vec<&'static str> {
    let mut all = Vec::new();
    let group = match group {
        "generic" => "@keyspace",
        "string" => "@string",
        "bitmap" => "@bitmap",
        "hash" => "@hash",
        "list" => "@list",
        "set" => "@set",
        "sorted-set" => "@sortedset",
        "pubsub" => "@pubsub",
        "transactions" => "@transaction",
        "connection" => "@connection",
        _ => "",
    };
    if spec.flags.has(WRITE) {
        all.push("@write");
    }
    if spec.flags.has(READ) {
        all.push("@read");
    }
    if !group.is_empty() {
        all.push(group);
    }
    if spec.flags.has(ADMIN) {
        all.push("@admin");
    }
    if spec.flags.has(ADMIN)
        || matches!(spec.name, "keys" | "flushdb" | "flushall" | "info" | "role")
    {
        all.push("@dangerous");
    }
    all.push(if spec.flags.has(FAST) {
        "@fast"
    } else {
        "@slow"
    });
    if spec.flags.has(BLOCKING) {
        all.push("@blocking");
    }
    all
}

/// The ten fields that clients know.
fn describe(out: &mut Encoder<'_>, group: &str, spec: &Spec) {
    out.array(10);
    out.bulk(spec.name.as_bytes());
    out.integer(i64::from(spec.arity));
    let flags: Vec<_> = Flags::NAMES
        .iter()
        .filter(|(flag, _)| spec.flags.has(*flag))
        .collect();
    out.set(flags.len());
    flags.iter().for_each(|(_, name)| out.simple(name));
    let (first, last, step) = match spec.keys {
        Keys::None | Keys::Counted(_, 0) => (0, 0, 0),
        Keys::Range(first, last, step) => (first, last, step),
        Keys::Counted(_, also) => (
            i16::try_from(also).unwrap_or(0),
            i16::try_from(also).unwrap_or(0),
            1,
        ),
    };
    for value in [first, last, step] {
        out.integer(i64::from(value));
    }
    let categories = categories(group, spec);
    out.set(categories.len());
    categories.iter().for_each(|name| out.simple(name));
    out.array(0);
    key_specs(out, spec);
    out.array(spec.sub.len());
    for sub in spec.sub {
        describe(out, group, sub);
    }
}

fn key_specs(out: &mut Encoder<'_>, spec: &Spec) {
    let access: &[&str] = if spec.flags.has(WRITE) {
        &["RW", "UPDATE"]
    } else {
        &["RO", "ACCESS"]
    };
    let entry = |out: &mut Encoder<'_>, index: i64, kind: &str, fields: &[(&str, i64)]| {
        out.map(3);
        out.bulk(b"flags");
        out.set(access.len());
        access.iter().for_each(|name| out.simple(name));
        out.bulk(b"begin_search");
        out.map(2);
        out.bulk(b"type");
        out.bulk(b"index");
        out.bulk(b"spec");
        out.map(1);
        out.bulk(b"index");
        out.integer(index);
        out.bulk(b"find_keys");
        out.map(2);
        out.bulk(b"type");
        out.bulk(kind.as_bytes());
        out.bulk(b"spec");
        out.map(fields.len());
        for (name, value) in fields {
            out.bulk(name.as_bytes());
            out.integer(*value);
        }
    };
    let range = |last: i16, step: i16| {
        [
            ("lastkey", i64::from(last)),
            ("keystep", i64::from(step)),
            ("limit", 0),
        ]
    };
    match spec.keys {
        Keys::None => out.array(0),
        Keys::Range(first, last, step) => {
            out.array(1);
            // The last key is told from the first one on.
            let last = if last < 0 { last } else { last - first };
            entry(out, i64::from(first), "range", &range(last, step));
        }
        Keys::Counted(count, also) => {
            out.array(1 + usize::from(also != 0));
            if also != 0 {
                entry(out, also as i64, "range", &range(0, 1));
            }
            entry(
                out,
                count as i64,
                "keynum",
                &[("keynumidx", 0), ("firstkey", 1), ("keystep", 1)],
            );
        }
    }
}

fn command_docs(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let chosen: Vec<_> = if args.len() == 2 {
        commands::all().collect()
    } else {
        args.iter().skip(2).filter_map(find).collect()
    };
    let mut out = Encoder::new(out, session.version);
    out.map(chosen.len());
    for (group, spec) in chosen {
        document(&mut out, group, spec);
    }
    Ok(())
}

fn document(out: &mut Encoder<'_>, group: &str, spec: &Spec) {
    out.bulk(spec.name.as_bytes());
    out.map(if spec.sub.is_empty() { 3 } else { 4 });
    for (field, value) in [
        ("summary", spec.summary),
        ("since", spec.since),
        ("group", group),
    ] {
        out.bulk(field.as_bytes());
        out.bulk(value.as_bytes());
    }
    if !spec.sub.is_empty() {
        out.bulk(b"subcommands");
        out.map(spec.sub.len());
        spec.sub.iter().for_each(|sub| document(out, group, sub));
    }
}

fn command_list(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let mut found: Vec<&Spec> = Vec::new();
    let all = commands::all().flat_map(|(group, spec)| {
        std::iter::once((group, spec)).chain(spec.sub.iter().map(move |sub| (group, sub)))
    });
    match (args.get(2), args.get(3), args.get(4)) {
        (None, ..) => found.extend(commands::all().map(|(_, spec)| spec)),
        (Some(word), Some(by), Some(value)) if is(word, "FILTERBY") && args.len() == 5 => {
            if is(by, "PATTERN") {
                let pattern = value.to_ascii_lowercase();
                found.extend(
                    all.filter(|(_, spec)| matches(&pattern, spec.name.as_bytes()))
                        .map(|(_, spec)| spec),
                );
            } else if is(by, "ACLCAT") {
                let wanted = format!("@{}", lossy(value, 64).to_ascii_lowercase());
                found.extend(
                    all.filter(|(group, spec)| categories(group, spec).contains(&wanted.as_str()))
                        .map(|(_, spec)| spec),
                );
            } else if is(by, "MODULE") {
                // There are none.
            } else {
                return Err(Fail::Syntax);
            }
        }
        _ => return Err(Fail::Syntax),
    }
    let mut out = Encoder::new(out, session.version);
    out.array(found.len());
    found.iter().for_each(|spec| out.bulk(spec.name.as_bytes()));
    Ok(())
}

fn command_getkeys(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let inner = args.from(2);
    let spec = commands::lookup(&inner).ok_or(Fail::Text("ERR Invalid command specified"))?;
    if matches!(spec.keys, Keys::None) {
        return Err(Fail::Text("ERR The command has no key arguments"));
    }
    if !spec.takes(inner.len()) {
        return Err(Fail::Text(
            "ERR Invalid number of arguments specified for command",
        ));
    }
    let places = spec.key_places(&inner);
    if places.is_empty() {
        return Err(Fail::Text("ERR Invalid arguments specified for command"));
    }
    let mut out = Encoder::new(out, session.version);
    out.array(places.len());
    places
        .into_iter()
        .for_each(|place| out.bulk(inner.at(place)));
    Ok(())
}

fn command_help(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    help(
        &mut Encoder::new(out, session.version),
        "COMMAND",
        &[
            ("(no subcommand)", "Return details about all commands."),
            (
                "COUNT",
                "Return the total number of commands in this server.",
            ),
            (
                "DOCS [<command-name> [<command-name> ...]]",
                "Return documentation details about multiple commands.",
            ),
            (
                "GETKEYS <full-command>",
                "Return the keys from a full command.",
            ),
            (
                "INFO [<command-name> ...]",
                "Return details about multiple commands.",
            ),
            (
                "LIST [FILTERBY (ACLCAT <cat>|PATTERN <pattern>)]",
                "Return a list of all commands in this server.",
            ),
        ],
    );
    Ok(())
}
