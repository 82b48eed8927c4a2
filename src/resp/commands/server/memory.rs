//! `MEMORY`, and `LOLWUT`.

use broker::cache::DATABASES;
use protocol_resp::{Args, Encoder};

use super::info::{Figures, ratio};
use super::{help, sizes};
use crate::resp::commands::connection::ok;
use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail};
use crate::resp::parse::{int, is};
use crate::resp::session::Session;
use crate::telemetry::heap;

pub(super) fn usage(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let mut at = 3;
    while let Some(word) = args.get(at) {
        let count = args.get(at + 1);
        match count {
            // What a key takes is known, so nothing is sampled.
            Some(count) if is(word, "SAMPLES") => {
                if int(count)? < 0 {
                    return Err(Fail::Syntax);
                }
            }
            _ => return Err(Fail::Syntax),
        }
        at += 2;
    }
    let name = cx.name(args.at(2));
    match cx.view(&name).memory_of(&name)? {
        Some(bytes) => cx.out.integer(i64::try_from(bytes).unwrap_or(i64::MAX)),
        None => cx.out.null(),
    }
    Ok(())
}

pub(super) fn stats(cx: &mut Exec<'_, '_>, _: &Args<'_>) -> Done {
    let figures = Figures::read(cx);
    let keys: u64 = (0..DATABASES).map(|db| sizes(cx, db).0).sum();
    let mut pairs = Vec::new();
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let mut put = |name: &'static str, value: u64| pairs.push((name, number(value)));
    put("peak.allocated", figures.peak);
    put("total.allocated", figures.used);
    put("startup.allocated", figures.startup);
    put("replication.backlog", 0);
    put("clients.slaves", 0);
    put("clients.normal", figures.clients);
    put("cluster.links", 0);
    put("aof.buffer", figures.log_buffer);
    put("lua.caches", figures.scripts);
    put("functions.caches", figures.functions);
    put(
        "overhead.total",
        figures.used.saturating_sub(figures.dataset),
    );
    put("keys.count", keys);
    put(
        "keys.bytes-per-key",
        figures.dataset.checked_div(keys).unwrap_or(0),
    );
    put("dataset.bytes", figures.dataset);
    put("allocator.allocated", figures.allocator.allocated);
    put("allocator.active", figures.allocator.active);
    put("allocator.resident", figures.allocator.resident);
    put(
        "allocator-fragmentation.bytes",
        figures
            .allocator
            .active
            .saturating_sub(figures.allocator.allocated),
    );
    put(
        "allocator-rss.bytes",
        figures
            .allocator
            .resident
            .saturating_sub(figures.allocator.active),
    );
    put(
        "rss-overhead.bytes",
        figures.rss.saturating_sub(figures.allocator.resident),
    );
    put(
        "fragmentation.bytes",
        figures.rss.saturating_sub(figures.used),
    );
    let percents = [
        (
            "dataset.percentage",
            100.0 * ratio(figures.dataset, figures.used),
        ),
        ("peak.percentage", 100.0 * ratio(figures.used, figures.peak)),
        (
            "allocator-fragmentation.ratio",
            ratio(figures.allocator.active, figures.allocator.allocated),
        ),
        (
            "allocator-rss.ratio",
            ratio(figures.allocator.resident, figures.allocator.active),
        ),
        (
            "rss-overhead.ratio",
            ratio(figures.rss, figures.allocator.resident),
        ),
        ("fragmentation", ratio(figures.rss, figures.used)),
    ];
    cx.out.map(pairs.len() + percents.len());
    for (name, value) in pairs {
        cx.out.bulk(name.as_bytes());
        cx.out.integer(value);
    }
    for (name, value) in percents {
        cx.out.bulk(name.as_bytes());
        cx.out.double(value);
    }
    Ok(())
}

pub(super) fn doctor(cx: &mut Exec<'_, '_>, _: &Args<'_>) -> Done {
    let figures = Figures::read(cx);
    let limit = cx.node.broker.budgets.cache.limit();
    let mut text = String::new();
    if figures.dataset * 10 > limit * 9 {
        text.push_str("The data in memory is near its limit: what was not used for long is read from the tables again.\n");
    }
    if figures.rss > figures.used * 3 / 2 && figures.rss > 64 << 20 {
        text.push_str(
            "The process holds much more memory than it uses: MEMORY PURGE gives it back.\n",
        );
    }
    if figures.clients > figures.used / 2 && figures.clients > 16 << 20 {
        text.push_str(
            "Most memory is in buffers of clients: see CLIENT LIST for those that do not read.\n",
        );
    }
    if text.is_empty() {
        text.push_str("No problem with memory was found.\n");
    }
    cx.out.verbatim("txt", text.as_bytes());
    Ok(())
}

pub(super) fn purge(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    heap::purge()
        .map_err(|error| Fail::Owned(format!("ERR Error purging dirty pages: {error}")))?;
    ok(session, out)
}

pub(super) fn malloc_stats(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let report = heap::report().map_err(|error| Fail::Owned(format!("ERR {error}")))?;
    Encoder::new(out, session.version).verbatim("txt", report.as_bytes());
    Ok(())
}

pub(super) fn memory_help(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    help(
        &mut Encoder::new(out, session.version),
        "MEMORY",
        &[
            ("DOCTOR", "Return memory problems reports."),
            (
                "MALLOC-STATS",
                "Return internal statistics report from the memory allocator.",
            ),
            (
                "PURGE",
                "Attempt to purge dirty pages for reclamation by the allocator.",
            ),
            (
                "STATS",
                "Return information about the memory usage of the server.",
            ),
            (
                "USAGE <key> [SAMPLES <count>]",
                "Return memory in bytes used by <key> and its value.",
            ),
        ],
    );
    Ok(())
}

pub(super) fn lolwut(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    if let (Some(word), Some(version)) = (args.get(1), args.get(2))
        && is(word, "VERSION")
    {
        int(version)?;
    }
    let text = format!("Redis ver. {}\n", session.node.redis_version());
    Encoder::new(out, session.version).verbatim("txt", text.as_bytes());
    Ok(())
}
