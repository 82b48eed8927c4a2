//! `INFO`.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use broker::ShardSet;
use broker::cache::DATABASES;
use protocol_resp::Args;

use super::config::setting;
use super::{REDIS_VERSION, sizes};
use crate::config::Face;
use crate::resp::exec::Exec;
use crate::resp::fail::{Done, lossy};
use crate::telemetry::process;

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
    "governor",
    "stats",
    "replication",
    "cpu",
    "modules",
    "errorstats",
    "cluster",
    "keyspace",
];

pub(super) fn info(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
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
                .addresses_of(Face::Resp)
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
            field("mem_allocator", &"jemalloc");
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
        "governor" => {
            let (levels, reading) = node.governor.levels();
            for (cause, level) in levels {
                field(&format!("flowmesh_{}_level", cause.name()), &level.name());
            }
            field("flowmesh_allocated", &reading.allocated_bytes);
            field("flowmesh_allocated_limit", &reading.allocated_limit_bytes);
            field(
                "flowmesh_disk_free",
                &reading.disk_free_bytes.unwrap_or_default(),
            );
            field("flowmesh_disk_free_limit", &reading.disk_limit_bytes);
            let refused = node.metrics.refused_writes_total.of(Face::Resp).value();
            field("flowmesh_refused_writes", &refused);
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
