//! `INFO`.

use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

use broker::ShardSet;
use broker::cache::DATABASES;
use protocol_resp::Args;

use super::config::setting;
use super::sizes;
use crate::config::{Entrance, Face, MemoryRules, Value};
use crate::resp::acl::log::Reason;
use crate::resp::client::{Client, Seen};
use crate::resp::commands::cluster::is_on;
use crate::resp::exec::Exec;
use crate::resp::fail::{Done, lossy};
use crate::resp::hub::Topic;
use crate::telemetry::{heap, process};

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

/// Sections of `INFO`, in order; those that are shown without asking first are marked.
const SECTIONS: &[(&str, &str, bool, Section)] = &[
    ("server", "Server", true, server),
    ("clients", "Clients", true, clients),
    ("memory", "Memory", true, memory),
    ("persistence", "Persistence", true, persistence),
    ("governor", "Governor", true, governor),
    ("stats", "Stats", true, stats),
    ("replication", "Replication", true, replication),
    ("cpu", "CPU", true, cpu),
    ("modules", "Modules", true, nothing),
    ("commandstats", "Commandstats", false, commandstats),
    ("errorstats", "Errorstats", true, errorstats),
    ("latencystats", "Latencystats", false, latencystats),
    ("cluster", "Cluster", true, cluster),
    ("keyspace", "Keyspace", true, keyspace),
];

/// Writes the fields of a section.
type Section = fn(&mut Exec<'_, '_>, &mut Fields<'_>);

/// `name:value` lines.
struct Fields<'a>(&'a mut String);

impl Fields<'_> {
    fn put(&mut self, name: &str, value: impl std::fmt::Display) {
        // Writing to a String cannot fail.
        let _ = write!(self.0, "{name}:{value}\r\n");
    }

    /// The same number for programs and for people.
    fn put_bytes(&mut self, name: &str, bytes: u64) {
        self.put(name, bytes);
        self.put(&format!("{name}_human"), human(bytes));
    }
}

pub(super) fn info(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let wanted: Vec<String> = args
        .iter()
        .skip(1)
        .map(|word| lossy(word, 64).to_ascii_lowercase())
        .collect();
    let has = |word: &str| wanted.iter().any(|wanted| wanted == word);
    let all = has("all") || has("everything");
    let default = wanted.is_empty() || has("default");
    let mut text = String::new();
    for (name, title, by_default, write) in SECTIONS {
        if all || has(name) || (default && *by_default) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            text.push_str("# ");
            text.push_str(title);
            text.push_str("\r\n");
            write(cx, &mut Fields(&mut text));
        }
    }
    cx.out.verbatim("txt", text.as_bytes());
    Ok(())
}

fn nothing(_: &mut Exec<'_, '_>, _: &mut Fields<'_>) {}

/// What memory is used for, in bytes.
pub(super) struct Figures {
    /// What keys take: what maxmemory bounds.
    pub(super) used: u64,
    pub(super) peak: u64,
    pub(super) rss: u64,
    pub(super) startup: u64,
    pub(super) dataset: u64,
    pub(super) clients: u64,
    pub(super) scripts: u64,
    pub(super) functions: u64,
    pub(super) log_buffer: u64,
    pub(super) allocator: heap::Allocated,
}

impl Figures {
    pub(super) fn read(cx: &mut Exec<'_, '_>) -> Self {
        let functions = cx.libraries().bytes() as u64;
        let rss = process::memory_now();
        let allocator = heap::Allocated::now().unwrap_or_default();
        let budget = &cx.node.broker.budgets.cache;
        let used = cx.node.broker.limiter.now().used_by_all(budget);
        let dataset = budget.used().saturating_sub(budget.markers());
        let peak = cx.hub.peak_memory.fetch_max(used, Relaxed).max(used);
        let stats = cx.node.broker.engine.stats();
        Self {
            used,
            peak,
            rss,
            startup: used.saturating_sub(dataset),
            dataset,
            clients: cx.hub.clients().iter().map(|client| held(client)).sum(),
            scripts: cx.hub.scripts.bytes() as u64,
            functions,
            log_buffer: stats.appended.0.saturating_sub(stats.written.0),
            allocator,
        }
    }
}

/// Bytes of unfinished commands and unsent replies.
fn held(client: &Client) -> u64 {
    let seen = &client.seen;
    let parts = [&seen.input, &seen.output, &seen.multi_bytes];
    let sum: usize = parts.iter().map(|bytes| bytes.load(Relaxed)).sum();
    (sum + size_of::<Client>()) as u64
}

fn server(cx: &mut Exec<'_, '_>, out: &mut Fields<'_>) {
    let (node, now) = (cx.node, cx.ctx.now.0);
    let port = |entrance| {
        let mut at = node.addresses_at(entrance);
        at.next().map_or(0, |addr| addr.port())
    };
    let uptime = now.saturating_sub(node.started_ms) / 1000;
    out.put("redis_version", node.redis_version());
    out.put("redis_git_sha1", "00000000");
    out.put("redis_git_dirty", 0);
    out.put("redis_build_id", "0");
    let mode = if is_on(node) { "cluster" } else { "standalone" };
    out.put("redis_mode", mode);
    out.put("server_name", "flowmesh");
    out.put("flowmesh_version", env!("CARGO_PKG_VERSION"));
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    out.put("os", format_args!("{os} {arch}"));
    out.put("arch_bits", usize::BITS);
    out.put("monotonic_clock", "POSIX clock_gettime");
    out.put("multiplexing_api", "epoll");
    out.put("atomicvar_api", "rust");
    out.put("gcc_version", "0.0.0");
    out.put("process_id", std::process::id());
    out.put("process_supervised", "no");
    let (started, process) = (node.started_ms, std::process::id());
    out.put("run_id", format_args!("{started:016x}{process:024x}"));
    out.put("tcp_port", port(Entrance::plain(Face::Resp)));
    out.put("server_time_usec", now * 1000);
    out.put("uptime_in_seconds", uptime);
    out.put("uptime_in_days", uptime / 86_400);
    out.put("hz", 10);
    out.put("configured_hz", 10);
    out.put("lru_clock", (now / 1000) & 0xff_ffff);
    let executable = std::env::current_exe().unwrap_or_default();
    out.put("executable", executable.display());
    out.put("config_file", "");
    out.put(
        "io_threads_active",
        i32::from(node.config.thread_count() > 1),
    );
    for (place, addr) in node.addresses_of(Face::Resp).enumerate() {
        let (ip, port) = (addr.ip(), addr.port());
        out.put(
            &format!("listener{place}"),
            format_args!("name=tcp,bind={ip},port={port}"),
        );
    }
}

fn clients(cx: &mut Exec<'_, '_>, out: &mut Fields<'_>) {
    let (node, hub) = (cx.node, cx.hub);
    let all = hub.clients();
    let seen = || all.iter().map(|client| &client.seen);
    let blocked = hub.blocked.load(Relaxed);
    let watched: usize = seen().map(|seen| seen.watches.load(Relaxed)).sum();
    out.put("connected_clients", all.len());
    out.put("cluster_connections", 0);
    out.put("maxclients", node.config.max_connections);
    let largest = |of: fn(&Seen) -> usize| seen().map(of).max().unwrap_or(0);
    out.put(
        "client_recent_max_input_buffer",
        largest(|seen| seen.input.load(Relaxed)),
    );
    out.put(
        "client_recent_max_output_buffer",
        largest(|seen| seen.output.load(Relaxed)),
    );
    out.put("blocked_clients", blocked);
    out.put("tracking_clients", node.broker.tracking.stats().clients);
    out.put(
        "pubsub_clients",
        seen().filter(|seen| seen.subscriptions() > 0).count(),
    );
    out.put(
        "watching_clients",
        seen().filter(|seen| seen.watches.load(Relaxed) > 0).count(),
    );
    out.put("clients_in_timeout_table", blocked);
    out.put("total_watched_keys", watched);
    let paused = hub.pause.now();
    let (reason, actions, left) = match paused {
        None => ("none", "none", 0),
        Some(paused) => {
            let left = paused
                .until
                .saturating_duration_since(std::time::Instant::now());
            let actions = if paused.all { "all" } else { "write" };
            ("client_pause", actions, left.as_millis())
        }
    };
    out.put("paused_reason", reason);
    out.put("paused_actions", actions);
    out.put("paused_timeout_milliseconds", left);
}

pub(super) fn ratio(one: u64, other: u64) -> f64 {
    one as f64 / (other as f64).max(1.0)
}

fn memory(cx: &mut Exec<'_, '_>, out: &mut Fields<'_>) {
    let figures = Figures::read(cx);
    let percent = |part: u64, whole: u64| 100.0 * ratio(part, whole);
    out.put_bytes("used_memory", figures.used);
    out.put_bytes("used_memory_rss", figures.rss);
    out.put_bytes("used_memory_peak", figures.peak);
    out.put(
        "used_memory_peak_perc",
        format_args!("{:.2}%", percent(figures.used, figures.peak)),
    );
    out.put(
        "used_memory_overhead",
        figures.used.saturating_sub(figures.dataset),
    );
    out.put("used_memory_startup", figures.startup);
    out.put("used_memory_dataset", figures.dataset);
    out.put(
        "used_memory_dataset_perc",
        format_args!("{:.2}%", percent(figures.dataset, figures.used)),
    );
    let allocator = &figures.allocator;
    out.put("allocator_allocated", allocator.allocated);
    out.put("allocator_active", allocator.active);
    out.put("allocator_resident", allocator.resident);
    out.put_bytes("total_system_memory", process::memory_bytes());
    out.put_bytes("used_memory_lua", figures.scripts);
    out.put("used_memory_vm_eval", figures.scripts);
    out.put("used_memory_scripts_eval", figures.scripts);
    out.put("number_of_cached_scripts", cx.hub.scripts.count());
    let libraries = cx.libraries();
    let scripts = figures.scripts + figures.functions;
    out.put("number_of_functions", libraries.functions());
    out.put("number_of_libraries", libraries.iter().len());
    out.put("used_memory_vm_functions", figures.functions);
    out.put_bytes("used_memory_vm_total", scripts);
    out.put("used_memory_functions", figures.functions);
    out.put_bytes("used_memory_scripts", scripts);
    out.put_bytes(
        "maxmemory",
        setting(cx.hub, "maxmemory").parse().unwrap_or(0),
    );
    out.put("maxmemory_policy", setting(cx.hub, "maxmemory-policy"));
    for (name, one, other) in [
        ("allocator_frag", allocator.active, allocator.allocated),
        ("allocator_rss", allocator.resident, allocator.active),
        ("rss_overhead", figures.rss, allocator.resident),
        ("mem_fragmentation", figures.rss, allocator.allocated),
    ] {
        let shown = format_args!("{:.2}", ratio(one, other));
        out.put(&format!("{name}_ratio"), shown);
        out.put(&format!("{name}_bytes"), one.saturating_sub(other));
    }
    out.put("mem_not_counted_for_evict", 0);
    rules(cx, out);
    out.put("mem_replication_backlog", 0);
    out.put("mem_total_replication_buffers", 0);
    out.put("mem_clients_slaves", 0);
    out.put("mem_clients_normal", figures.clients);
    out.put("mem_cluster_links", 0);
    out.put("mem_aof_buffer", figures.log_buffer);
    out.put("mem_allocator", "jemalloc");
    out.put("active_defrag_running", 0);
    out.put("lazyfree_pending_objects", 0);
    out.put("lazyfreed_objects", 0);
}

/// Limits of some keys, and what the others take if there are any.
fn rules(cx: &Exec<'_, '_>, out: &mut Fields<'_>) {
    let (limits, budget) = (cx.node.broker.limiter.now(), &cx.node.broker.budgets.cache);
    for (which, limit) in limits.all().iter().enumerate() {
        let used = limits.used(which, budget);
        let Some(rule) = &limit.rule else {
            out.put("flowmesh_maxmemory_used", used);
            continue;
        };
        let rule = MemoryRules(vec![rule.clone()]).show().replace(' ', ",");
        let evicted = limit.evicted.load(Relaxed);
        out.put(
            &format!("flowmesh_maxmemory_rule_{which}"),
            format_args!("{rule},used={used},evicted={evicted}"),
        );
    }
}

fn persistence(cx: &mut Exec<'_, '_>, out: &mut Fields<'_>) {
    let (hub, now) = (cx.hub, cx.ctx.now.0);
    let engine = &cx.node.broker.engine;
    let stats = engine.stats();
    let status = |failed: bool| if failed { "err" } else { "ok" };
    // Records that the tables do not have yet: what a fold would bring there.
    let unsaved: u64 = (ShardSet::DATA.iter())
        .map(|shard| {
            engine
                .shard_seq(shard)
                .saturating_sub(engine.folded_seq(shard))
        })
        .sum();
    let (saves, rewrites) = (&hub.saves, &hub.rewrites);
    out.put("loading", 0);
    out.put("async_loading", 0);
    out.put("current_cow_peak", 0);
    out.put("current_cow_size", 0);
    out.put("current_fork_perc", "0.00");
    out.put("current_save_keys_processed", 0);
    out.put("current_save_keys_total", 0);
    out.put("rdb_changes_since_last_save", unsaved);
    out.put(
        "rdb_bgsave_in_progress",
        i32::from(saves.running.load(Relaxed)),
    );
    out.put("rdb_last_save_time", saves.last_s(cx.node.started_ms));
    out.put("rdb_last_bgsave_status", status(saves.failed.load(Relaxed)));
    out.put("rdb_last_bgsave_time_sec", saves.took_s());
    out.put("rdb_current_bgsave_time_sec", saves.running_s(now));
    out.put("rdb_saves", saves.count.load(Relaxed));
    out.put("rdb_last_cow_size", 0);
    out.put("rdb_last_load_keys_expired", 0);
    out.put("rdb_last_load_keys_loaded", 0);
    out.put("aof_enabled", 1);
    out.put(
        "aof_rewrite_in_progress",
        i32::from(rewrites.running.load(Relaxed)),
    );
    out.put("aof_rewrite_scheduled", 0);
    out.put("aof_last_rewrite_time_sec", rewrites.took_s());
    out.put("aof_current_rewrite_time_sec", rewrites.running_s(now));
    out.put(
        "aof_last_bgrewrite_status",
        status(rewrites.failed.load(Relaxed)),
    );
    out.put("aof_rewrites", rewrites.count.load(Relaxed));
    out.put("aof_last_write_status", status(engine.failed()));
    out.put("aof_last_cow_size", 0);
    out.put("module_fork_in_progress", 0);
    out.put("aof_current_size", stats.log_bytes);
    out.put("aof_base_size", stats.table_bytes);
    out.put("aof_pending_rewrite", 0);
    out.put(
        "aof_buffer_length",
        stats.appended.0.saturating_sub(stats.written.0),
    );
    out.put(
        "aof_pending_bio_fsync",
        i32::from(stats.synced < stats.written),
    );
    out.put("aof_delayed_fsync", 0);
    out.put("flowmesh_log_appended", stats.appended.0);
    out.put("flowmesh_log_written", stats.written.0);
    out.put("flowmesh_log_synced", stats.synced.0);
}

fn governor(cx: &mut Exec<'_, '_>, out: &mut Fields<'_>) {
    let node = cx.node;
    let (levels, reading) = node.governor.levels();
    for (cause, level) in levels {
        out.put(&format!("flowmesh_{}_level", cause.name()), level.name());
    }
    out.put("flowmesh_allocated", reading.allocated_bytes);
    out.put("flowmesh_allocated_limit", reading.allocated_limit_bytes);
    let free = reading.disk_free_bytes.unwrap_or_default();
    out.put("flowmesh_disk_free", free);
    out.put("flowmesh_disk_free_limit", reading.disk_limit_bytes);
    let refused = node.metrics.refused_writes_total.of(Face::Resp).value();
    out.put("flowmesh_refused_writes", refused);
}

fn stats(cx: &mut Exec<'_, '_>, out: &mut Fields<'_>) {
    let [commands, connections, errors] = cx.hub.stats.values();
    let mut counts = broker::cache::Counts::default();
    for shard in ShardSet::DATA.iter() {
        let of_shard = cx.locked.shard(shard).keys(0, cx.ctx.now, cx.fx).counts();
        counts.hits += of_shard.hits;
        counts.misses += of_shard.misses;
        counts.expired += of_shard.expired;
        counts.evicted += of_shard.evicted;
        counts.deleted += of_shard.deleted;
    }
    let (node, hub) = (cx.node, cx.hub);
    let traffic = node.traffic.of(Face::Resp);
    let rates = hub.rates.now(
        commands,
        traffic.bytes_read.value(),
        traffic.bytes_written.value(),
    );
    let tracking = node.broker.tracking.stats();
    out.put("total_connections_received", connections);
    out.put("total_commands_processed", commands);
    out.put("instantaneous_ops_per_sec", rates[0] as u64);
    out.put("total_net_input_bytes", traffic.bytes_read.value());
    out.put("total_net_output_bytes", traffic.bytes_written.value());
    out.put("total_net_repl_input_bytes", 0);
    out.put("total_net_repl_output_bytes", 0);
    out.put(
        "instantaneous_input_kbps",
        format_args!("{:.2}", rates[1] / 1024.0),
    );
    out.put(
        "instantaneous_output_kbps",
        format_args!("{:.2}", rates[2] / 1024.0),
    );
    out.put("instantaneous_input_repl_kbps", "0.00");
    out.put("instantaneous_output_repl_kbps", "0.00");
    out.put("rejected_connections", traffic.refused.value());
    out.put("sync_full", 0);
    out.put("sync_partial_ok", 0);
    out.put("sync_partial_err", 0);
    out.put("expired_keys", counts.expired);
    out.put("expired_stale_perc", "0.00");
    out.put("expired_time_cap_reached_count", 0);
    out.put("expire_cycle_cpu_milliseconds", 0);
    // Deleted; the values that left memory for the tables are others, and are told below.
    out.put("evicted_keys", counts.deleted);
    out.put("evicted_clients", traffic.evicted.value());
    out.put("total_eviction_exceeded_time", 0);
    out.put("current_eviction_exceeded_time", 0);
    out.put("flowmesh_values_left_memory", counts.evicted);
    out.put("keyspace_hits", counts.hits);
    out.put("keyspace_misses", counts.misses);
    out.put("pubsub_channels", hub.count(Topic::Channel));
    out.put("pubsub_patterns", hub.count(Topic::Pattern));
    out.put("pubsubshard_channels", hub.count(Topic::Shard));
    out.put("latest_fork_usec", 0);
    out.put("total_forks", 0);
    out.put("migrate_cached_sockets", 0);
    out.put("slave_expires_tracked_keys", 0);
    out.put("active_defrag_hits", 0);
    out.put("active_defrag_misses", 0);
    out.put("active_defrag_key_hits", 0);
    out.put("active_defrag_key_misses", 0);
    out.put("total_active_defrag_time", 0);
    out.put("current_active_defrag_time", 0);
    out.put("tracking_total_keys", tracking.keys);
    out.put("tracking_total_items", tracking.items);
    out.put("tracking_total_prefixes", tracking.prefixes);
    out.put("unexpected_error_replies", 0);
    out.put("total_error_replies", errors);
    out.put("dump_payload_sanitizations", 0);
    out.put(
        "client_output_buffer_limit_disconnections",
        traffic.evicted.value(),
    );
    for (name, reason) in [
        ("acl_access_denied_auth", Reason::Auth),
        ("acl_access_denied_cmd", Reason::Command),
        ("acl_access_denied_key", Reason::Key),
        ("acl_access_denied_channel", Reason::Channel),
    ] {
        out.put(name, hub.acl_log.count(reason));
    }
}

fn replication(_: &mut Exec<'_, '_>, out: &mut Fields<'_>) {
    let nobody = "0000000000000000000000000000000000000000";
    out.put("role", "master");
    out.put("connected_slaves", 0);
    out.put("master_failover_state", "no-failover");
    out.put("master_replid", nobody);
    out.put("master_replid2", nobody);
    out.put("master_repl_offset", 0);
    out.put("second_repl_offset", -1);
    out.put("repl_backlog_active", 0);
    out.put("repl_backlog_size", 0);
    out.put("repl_backlog_first_byte_offset", 0);
    out.put("repl_backlog_histlen", 0);
}

fn cpu(_: &mut Exec<'_, '_>, out: &mut Fields<'_>) {
    let (user, system) = process::cpu_times();
    out.put("used_cpu_sys", format_args!("{system:.6}"));
    out.put("used_cpu_user", format_args!("{user:.6}"));
    out.put("used_cpu_sys_children", "0.000000");
    out.put("used_cpu_user_children", "0.000000");
}

fn commandstats(cx: &mut Exec<'_, '_>, out: &mut Fields<'_>) {
    for record in cx.hub.tally.records() {
        let (calls, us) = (record.calls, record.nanos / 1000);
        let per_call = record.nanos as f64 / 1000.0 / (calls as f64).max(1.0);
        let (rejected, failed) = (record.rejected, record.failed);
        out.put(
            &format!("cmdstat_{}", record.name),
            format_args!(
                "calls={calls},usec={us},usec_per_call={per_call:.2},rejected_calls={rejected},failed_calls={failed}"
            ),
        );
    }
}

fn errorstats(cx: &mut Exec<'_, '_>, out: &mut Fields<'_>) {
    for (code, count) in cx.hub.tally.errors() {
        out.put(&format!("errorstat_{code}"), format_args!("count={count}"));
    }
}

fn latencystats(cx: &mut Exec<'_, '_>, out: &mut Fields<'_>) {
    let wanted = setting(cx.hub, "latency-tracking-info-percentiles");
    let percents: Vec<(&str, f64)> = wanted
        .split_whitespace()
        .filter_map(|text| Some((text, text.parse().ok()?)))
        .collect();
    for record in cx
        .hub
        .tally
        .records()
        .iter()
        .filter(|record| record.calls > 0)
    {
        let times: Vec<String> = percents
            .iter()
            .map(|(text, percent)| format!("p{text}={:.3}", record.percentile_us(*percent)))
            .collect();
        out.put(
            &format!("latency_percentiles_usec_{}", record.name),
            times.join(","),
        );
    }
}

fn cluster(cx: &mut Exec<'_, '_>, out: &mut Fields<'_>) {
    out.put("cluster_enabled", i32::from(is_on(cx.node)));
}

fn keyspace(cx: &mut Exec<'_, '_>, out: &mut Fields<'_>) {
    for db in 0..DATABASES {
        let (keys, expires) = sizes(cx, db);
        if keys > 0 {
            out.put(
                &format!("db{db}"),
                format_args!("keys={keys},expires={expires},avg_ttl=0"),
            );
        }
    }
}
