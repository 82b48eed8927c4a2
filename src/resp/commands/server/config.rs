//! `CONFIG`.

use broker::cache::{DATABASES, matches};
use broker::{Durability, ShardSet};
use protocol_resp::{Args, Encoder};

use super::help;
use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail, lossy};
use crate::resp::session::Session;

pub(super) fn setting(cx: &Exec<'_, '_>, name: &str) -> String {
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
    let patience = config.resp_busy_reply_threshold.as_millis().to_string();
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
        ("busy-reply-threshold", patience.clone()),
        ("lua-time-limit", patience),
        ("cluster-enabled", text("no")),
        ("hash-max-listpack-entries", text("512")),
        ("hash-max-listpack-value", text("64")),
        ("hash-max-ziplist-entries", text("512")),
        ("hash-max-ziplist-value", text("64")),
        ("list-max-listpack-size", text("-2")),
        ("list-max-ziplist-size", text("-2")),
        ("set-max-intset-entries", text("512")),
        ("set-max-listpack-entries", text("128")),
        ("set-max-listpack-value", text("64")),
        ("stream-node-max-bytes", text("4096")),
        ("stream-node-max-entries", text("100")),
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

pub(super) fn config_get(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
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
pub(super) fn memory(text: &[u8]) -> Option<u64> {
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

pub(super) fn config_set(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
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
            "busy-reply-threshold" | "lua-time-limit" => {
                match std::str::from_utf8(value)
                    .ok()
                    .and_then(|value| value.parse::<u32>().ok())
                {
                    Some(milliseconds) => milliseconds.to_string(),
                    None => return failed("argument couldn't be parsed into an integer"),
                }
            }
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
            "busy-reply-threshold" | "lua-time-limit" => {
                let milliseconds = value.parse().unwrap_or(0);
                session.node.scripts.set_threshold(milliseconds);
                // Two names of one thing.
                for (known, old) in session.hub.settings.write().iter_mut() {
                    if matches!(*known, "busy-reply-threshold" | "lua-time-limit") {
                        old.clone_from(&value);
                    }
                }
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

pub(super) fn config_resetstat(cx: &mut Exec<'_, '_>, _: &Args<'_>) -> Done {
    cx.hub.stats.reset();
    for shard in ShardSet::DATA.iter() {
        let mut view = cx.locked.shard(shard).keys(0, cx.ctx.now, cx.fx);
        view.reset_counts();
    }
    cx.out.ok();
    Ok(())
}

pub(super) fn config_rewrite(_: &mut Session, _: &Args<'_>, _: &mut Vec<u8>) -> Done {
    Err(Fail::Text(
        "ERR The server is running without a config file",
    ))
}

pub(super) fn config_help(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
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
