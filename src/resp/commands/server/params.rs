//! The parameters that `CONFIG` knows: Redis' names, what they are here, and how they can be changed.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

use broker::Durability;
use broker::cache::{DATABASES, LimitSettings, Policy};

use super::config::memory;
use crate::config::{ClusterMode, Config, DebugCommand, MemoryRules, Value};
use crate::resp::fail::Done;
use crate::resp::notify;
use crate::resp::session::Session;

/// How a parameter can be changed.
#[derive(Clone, Copy)]
pub(super) enum Change {
    /// Only at the start.
    Immutable,
    /// It has no other value here.
    Fixed,
    /// The first checks a value and returns how it is shown, or says what is wrong; the second applies it, shown and as it was given.
    To(
        fn(&[u8]) -> Result<String, &'static str>,
        fn(&Session, &str, &[u8]) -> Done,
    ),
    /// The same for limits of memory, which change together.
    Limits(
        fn(&[u8]) -> Result<String, &'static str>,
        fn(&mut LimitSettings, &str),
    ),
    /// `notify-keyspace-events`: while all keys are locked.
    Letters,
    /// `requirepass`: `default`'s, as `ACL SETUSER` sets it.
    Password,
}

/// Those that a client can change.
const CHANGEABLE: &[(&str, Change)] = &[
    ("maxmemory", Change::Limits(bytes, set_maxmemory)),
    ("maxmemory-policy", Change::Limits(policy, set_policy)),
    ("maxmemory-rules", Change::Limits(rules, set_rules)),
    ("maxmemory-samples", Change::Limits(samples, set_samples)),
    ("lfu-log-factor", Change::Limits(seconds, set_log_factor)),
    ("lfu-decay-time", Change::Limits(seconds, set_decay)),
    ("appendfsync", Change::To(fsync, set_fsync)),
    ("busy-reply-threshold", Change::To(count, set_threshold)),
    ("lua-time-limit", Change::To(count, set_threshold)),
    ("timeout", Change::To(seconds, set_timeout)),
    (
        "slowlog-log-slower-than",
        Change::To(slower_than, set_slower_than),
    ),
    ("slowlog-max-len", Change::To(count, set_slowlog_len)),
    (
        "latency-monitor-threshold",
        Change::To(count, set_latency_threshold),
    ),
    (
        "latency-tracking-info-percentiles",
        Change::To(percentiles, nothing),
    ),
    ("tracking-table-max-keys", Change::To(count, set_tracked)),
    ("notify-keyspace-events", Change::Letters),
    ("requirepass", Change::Password),
    ("acllog-max-len", Change::To(count, set_acl_log_len)),
    ("acl-pubsub-default", Change::To(channels, set_channels)),
];

/// Those that only a start can change.
const IMMUTABLE: &[&str] = &[
    "aclfile",
    "appenddirname",
    "appendfilename",
    "bind",
    "cluster-enabled",
    "daemonize",
    "databases",
    "dir",
    "enable-debug-command",
    "io-threads",
    "logfile",
    "maxclients",
    "pidfile",
    "port",
    "supervised",
    "tls-port",
    "unixsocket",
    "unixsocketperm",
];

/// What is so in every server of this kind; where there is nothing like it, Redis 7.2's default.
const FIXED: &[(&str, &str)] = &[
    ("acl-pubsub-default", "resetchannels"),
    ("aclfile", ""),
    ("acllog-max-len", "128"),
    ("active-defrag-cycle-max", "25"),
    ("active-defrag-cycle-min", "1"),
    ("active-defrag-ignore-bytes", "104857600"),
    ("active-defrag-max-scan-fields", "1000"),
    ("active-defrag-threshold-lower", "10"),
    ("active-defrag-threshold-upper", "100"),
    ("active-expire-effort", "1"),
    ("activedefrag", "no"),
    ("activerehashing", "yes"),
    ("always-show-logo", "no"),
    ("aof-load-truncated", "yes"),
    ("aof-rewrite-incremental-fsync", "yes"),
    ("aof-timestamp-enabled", "no"),
    ("aof-use-rdb-preamble", "yes"),
    ("appenddirname", "appendonlydir"),
    ("appendfilename", "appendonly.aof"),
    ("appendonly", "yes"),
    ("auto-aof-rewrite-min-size", "67108864"),
    ("auto-aof-rewrite-percentage", "100"),
    ("client-query-buffer-limit", "1073741824"),
    ("cluster-allow-pubsubshard-when-down", "yes"),
    ("cluster-allow-reads-when-down", "no"),
    ("cluster-allow-replica-migration", "yes"),
    ("cluster-announce-bus-port", "0"),
    ("cluster-announce-hostname", ""),
    ("cluster-announce-human-nodename", ""),
    ("cluster-announce-ip", ""),
    ("cluster-announce-port", "0"),
    ("cluster-announce-tls-port", "0"),
    ("cluster-config-file", "nodes.conf"),
    ("cluster-link-sendbuf-limit", "0"),
    ("cluster-migration-barrier", "1"),
    ("cluster-node-timeout", "15000"),
    ("cluster-port", "0"),
    ("cluster-preferred-endpoint-type", "ip"),
    ("cluster-replica-no-failover", "no"),
    ("cluster-replica-validity-factor", "10"),
    ("cluster-require-full-coverage", "yes"),
    ("crash-log-enabled", "yes"),
    ("crash-memcheck-enabled", "yes"),
    ("daemonize", "no"),
    ("dbfilename", "dump.rdb"),
    ("disable-thp", "yes"),
    ("dynamic-hz", "yes"),
    ("enable-module-command", "no"),
    ("enable-protected-configs", "no"),
    ("hash-max-listpack-entries", "512"),
    ("hash-max-listpack-value", "64"),
    ("hash-max-ziplist-entries", "512"),
    ("hash-max-ziplist-value", "64"),
    ("hll-sparse-max-bytes", "3000"),
    ("hz", "10"),
    ("ignore-warnings", ""),
    ("jemalloc-bg-thread", "yes"),
    ("latency-monitor-threshold", "0"),
    ("latency-tracking", "yes"),
    ("latency-tracking-info-percentiles", "50 99 99.9"),
    ("lazyfree-lazy-eviction", "no"),
    ("lazyfree-lazy-expire", "no"),
    ("lazyfree-lazy-server-del", "no"),
    ("lazyfree-lazy-user-del", "no"),
    ("lazyfree-lazy-user-flush", "no"),
    ("list-compress-depth", "0"),
    ("list-max-listpack-size", "-2"),
    ("list-max-ziplist-size", "-2"),
    ("locale-collate", ""),
    ("masterauth", ""),
    ("masteruser", ""),
    ("maxmemory-eviction-tenacity", "10"),
    ("min-replicas-max-lag", "10"),
    ("min-replicas-to-write", "0"),
    ("min-slaves-max-lag", "10"),
    ("min-slaves-to-write", "0"),
    ("no-appendfsync-on-rewrite", "no"),
    ("notify-keyspace-events", ""),
    ("oom-score-adj", "no"),
    ("oom-score-adj-values", "0 200 800"),
    ("pidfile", ""),
    ("proc-title-template", "{title} {listen-addr} {server-mode}"),
    ("protected-mode", "yes"),
    ("rdb-del-sync-files", "no"),
    ("rdb-save-incremental-fsync", "yes"),
    ("rdbchecksum", "yes"),
    ("rdbcompression", "yes"),
    ("repl-backlog-size", "1048576"),
    ("repl-backlog-ttl", "3600"),
    ("repl-disable-tcp-nodelay", "no"),
    ("repl-diskless-load", "disabled"),
    ("repl-diskless-sync", "yes"),
    ("repl-diskless-sync-delay", "5"),
    ("repl-diskless-sync-max-replicas", "0"),
    ("repl-ping-replica-period", "10"),
    ("repl-timeout", "60"),
    ("replica-announce-ip", ""),
    ("replica-announce-port", "0"),
    ("replica-announced", "yes"),
    ("replica-ignore-maxmemory", "yes"),
    ("replica-lazy-flush", "no"),
    ("replica-priority", "100"),
    ("replica-read-only", "yes"),
    ("replica-serve-stale-data", "yes"),
    ("replicaof", ""),
    ("requirepass", ""),
    ("sanitize-dump-payload", "no"),
    ("save", ""),
    ("set-max-intset-entries", "512"),
    ("set-max-listpack-entries", "128"),
    ("set-max-listpack-value", "64"),
    ("set-proc-title", "yes"),
    ("shutdown-on-sigint", "default"),
    ("shutdown-on-sigterm", "default"),
    ("slave-priority", "100"),
    ("slave-read-only", "yes"),
    ("slave-serve-stale-data", "yes"),
    ("slaveof", ""),
    ("slowlog-log-slower-than", "10000"),
    ("slowlog-max-len", "128"),
    ("stop-writes-on-bgsave-error", "yes"),
    ("stream-node-max-bytes", "4096"),
    ("stream-node-max-entries", "100"),
    ("supervised", "no"),
    ("syslog-enabled", "no"),
    ("syslog-facility", "local0"),
    ("syslog-ident", "redis"),
    ("tcp-backlog", "511"),
    ("tcp-keepalive", "300"),
    ("tracking-table-max-keys", "1000000"),
    ("zset-max-listpack-entries", "128"),
    ("zset-max-listpack-value", "64"),
    ("zset-max-ziplist-entries", "128"),
    ("zset-max-ziplist-value", "64"),
];

/// What `CONFIG GET` shows at first, in the order of names. `plain` and `tls`: where Redis clients connect.
pub(crate) fn settings(
    config: &Config,
    plain: &[SocketAddr],
    tls: &[SocketAddr],
) -> Vec<(&'static str, String)> {
    let patience = config.resp_busy_reply_threshold.as_millis().to_string();
    let path = |path: &Option<std::path::PathBuf>| {
        (path.as_ref()).map_or_else(String::new, |path| path.display().to_string())
    };
    let port = |addrs: &[SocketAddr]| {
        let port = addrs.first().map_or(0, SocketAddr::port);
        port.to_string()
    };
    let bind: Vec<String> = plain.iter().map(|addr| addr.ip().to_string()).collect();
    let mut output_limits = format!("normal {} 0 0", config.client_output_limit.0);
    output_limits.push_str(&format!(
        " slave 268435456 67108864 60 pubsub {} {} {}",
        config.resp_subscriber_output_limit.0,
        config.resp_subscriber_output_soft.0,
        config.resp_subscriber_output_time.as_secs()
    ));
    let perm = config.resp_unix_socket_perm.as_ref();
    let databases = usize::from(config.resp_databases).min(DATABASES);
    let enabled = match config.resp_cluster_mode {
        ClusterMode::Off => "no",
        ClusterMode::Emulated => "yes",
    };
    let own = [
        (
            "appendfsync",
            appendfsync(config.resp_durability).to_owned(),
        ),
        ("bind", bind.join(" ")),
        ("busy-reply-threshold", patience.clone()),
        ("client-output-buffer-limit", output_limits),
        ("cluster-enabled", enabled.to_owned()),
        ("databases", databases.to_string()),
        ("dir", config.data_dir.display().to_string()),
        (
            "enable-debug-command",
            <DebugCommand as Value>::show(&config.resp_debug_command),
        ),
        ("io-threads", config.thread_count().to_string()),
        ("logfile", path(&config.log_file)),
        ("loglevel", "notice".to_owned()),
        ("lua-time-limit", patience),
        ("maxclients", config.max_connections.to_string()),
        ("lfu-decay-time", config.resp_lfu_decay_time.to_string()),
        ("lfu-log-factor", config.resp_lfu_log_factor.to_string()),
        ("maxmemory", config.limits().rest.max_bytes.to_string()),
        (
            "maxmemory-policy",
            config.resp_maxmemory_policy.name().to_owned(),
        ),
        ("maxmemory-rules", config.resp_maxmemory_rules.show()),
        (
            "maxmemory-samples",
            config.resp_maxmemory_samples.to_string(),
        ),
        ("maxmemory-clients", config.client_memory().to_string()),
        ("port", port(plain)),
        (
            "proto-max-bulk-len",
            config.resp_max_bulk.as_usize().to_string(),
        ),
        (
            "shutdown-timeout",
            config.shutdown_timeout.as_secs().to_string(),
        ),
        ("timeout", config.resp_idle_timeout.as_secs().to_string()),
        ("tls-port", port(tls)),
        ("unixsocket", path(&config.resp_unix_socket)),
        (
            "unixsocketperm",
            perm.map_or_else(|| "0".to_owned(), Value::show),
        ),
    ];
    let fixed = FIXED
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    let mut all: Vec<_> = fixed.chain(own).collect();
    all.sort_unstable_by_key(|(name, _)| *name);
    all
}

/// How the parameter with this name can be changed.
pub(super) fn change_of(name: &str) -> Change {
    if IMMUTABLE.contains(&name) {
        return Change::Immutable;
    }
    let found = CHANGEABLE.iter().find(|(known, _)| *known == name);
    found.map_or(Change::Fixed, |(_, change)| *change)
}

pub(super) fn appendfsync(durability: Durability) -> &'static str {
    match durability {
        Durability::Os => "no",
        Durability::Interval => "everysec",
        Durability::Sync => "always",
    }
}

const NO_NUMBER: &str = "argument couldn't be parsed into an integer";

fn integer(value: &[u8]) -> Result<i64, &'static str> {
    protocol_resp::number::parse_i64(value).ok_or(NO_NUMBER)
}

/// An integer between two bounds, both included; `wrong` is said of others.
fn within(value: &[u8], bounds: (i64, i64), wrong: &'static str) -> Result<String, &'static str> {
    let number = integer(value)?;
    if (bounds.0..=bounds.1).contains(&number) {
        Ok(number.to_string())
    } else {
        Err(wrong)
    }
}

fn count(value: &[u8]) -> Result<String, &'static str> {
    let wrong = "argument must be between 0 and 9223372036854775807 inclusive";
    within(value, (0, i64::MAX), wrong)
}

fn seconds(value: &[u8]) -> Result<String, &'static str> {
    let wrong = "argument must be between 0 and 2147483647 inclusive";
    within(value, (0, i64::from(i32::MAX)), wrong)
}

fn slower_than(value: &[u8]) -> Result<String, &'static str> {
    let wrong = "argument must be between -1 and 9223372036854775807 inclusive";
    within(value, (-1, i64::MAX), wrong)
}

fn bytes(value: &[u8]) -> Result<String, &'static str> {
    let bytes = memory(value).ok_or("argument must be a memory value")?;
    Ok(bytes.to_string())
}

fn policy(value: &[u8]) -> Result<String, &'static str> {
    const NAMES: &str = "argument(s) must be one of the following: volatile-lru, volatile-lfu, volatile-random, volatile-ttl, allkeys-lru, allkeys-lfu, allkeys-random, noeviction";
    let name = std::str::from_utf8(value).ok();
    let policy = name.and_then(Policy::parse).ok_or(NAMES)?;
    Ok(policy.name().to_owned())
}

fn rules(value: &[u8]) -> Result<String, &'static str> {
    const WRONG: &str = "rules look like 'db=0 prefix=cache: max=64mb policy=allkeys-lru; …', with db= or prefix= or both, at most 32 of them";
    let text = std::str::from_utf8(value).map_err(|_| WRONG)?;
    let rules = MemoryRules::parse(text).map_err(|_| WRONG)?;
    Ok(rules.show())
}

fn samples(value: &[u8]) -> Result<String, &'static str> {
    match integer(value)? {
        number @ 1..=64 => Ok(number.to_string()),
        _ => Err("argument must be between 1 and 64 inclusive"),
    }
}

fn fsync(value: &[u8]) -> Result<String, &'static str> {
    let known = ["everysec", "always", "no"];
    let found = known
        .iter()
        .find(|known| value.eq_ignore_ascii_case(known.as_bytes()));
    found
        .map(|known| (*known).to_owned())
        .ok_or("argument(s) must be one of the following: everysec, always, no")
}

fn percentiles(value: &[u8]) -> Result<String, &'static str> {
    const WRONG: &str = "Invalid latency-tracking-info-percentiles parameters";
    let text = std::str::from_utf8(value).map_err(|_| WRONG)?;
    for word in text.split_whitespace() {
        let percent: f64 = word.parse().map_err(|_| WRONG)?;
        if !(0.0..=100.0).contains(&percent) {
            return Err(
                "latency-tracking-info-percentiles parameters should sit between [0.0,100.0]",
            );
        }
    }
    Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn number<T: std::str::FromStr + Default>(value: &str) -> T {
    // It was checked.
    value.parse().unwrap_or_default()
}

fn nothing(_: &Session, _: &str, _: &[u8]) -> Done {
    Ok(())
}

fn set_maxmemory(limits: &mut LimitSettings, value: &str) {
    limits.rest.max_bytes = number(value);
}

fn set_policy(limits: &mut LimitSettings, value: &str) {
    limits.rest.policy = Policy::parse(value).unwrap_or_default();
}

fn set_rules(limits: &mut LimitSettings, value: &str) {
    let MemoryRules(rules) = MemoryRules::parse(value).unwrap_or_default();
    limits.rules = rules;
}

fn set_samples(limits: &mut LimitSettings, value: &str) {
    limits.samples = number(value);
}

fn set_log_factor(limits: &mut LimitSettings, value: &str) {
    limits.lfu_log_factor = number(value);
}

fn set_decay(limits: &mut LimitSettings, value: &str) {
    limits.lfu_decay_minutes = number(value);
}

fn set_fsync(session: &Session, value: &str, _: &[u8]) -> Done {
    session.hub.set_durability(match value {
        "no" => Durability::Os,
        "everysec" => Durability::Interval,
        _ => Durability::Sync,
    });
    Ok(())
}

fn set_threshold(session: &Session, value: &str, _: &[u8]) -> Done {
    session.node.scripts.set_threshold(number(value));
    // Two names of one thing.
    for (known, old) in session.hub.settings.write().iter_mut() {
        if matches!(*known, "busy-reply-threshold" | "lua-time-limit") {
            value.clone_into(old);
        }
    }
    Ok(())
}

fn set_timeout(session: &Session, value: &str, _: &[u8]) -> Done {
    let seconds: u64 = number(value);
    session.hub.idle_timeout_ms.store(seconds * 1000, Relaxed);
    Ok(())
}

fn set_slower_than(session: &Session, value: &str, _: &[u8]) -> Done {
    session
        .hub
        .slowlog
        .threshold_us
        .store(number(value), Relaxed);
    Ok(())
}

fn set_slowlog_len(session: &Session, value: &str, _: &[u8]) -> Done {
    // As Redis: what is too much goes with the next slow command.
    session.hub.slowlog.len_max.store(number(value), Relaxed);
    Ok(())
}

fn set_acl_log_len(session: &Session, value: &str, _: &[u8]) -> Done {
    // As Redis: what is too much goes with the next refusal.
    session.hub.acl_log.len_max.store(number(value), Relaxed);
    Ok(())
}

fn channels(value: &[u8]) -> Result<String, &'static str> {
    let known = ["allchannels", "resetchannels"];
    let found = known
        .iter()
        .find(|known| value.eq_ignore_ascii_case(known.as_bytes()));
    found
        .map(|known| (*known).to_owned())
        .ok_or("argument(s) must be one of the following: allchannels, resetchannels")
}

fn set_channels(session: &Session, value: &str, _: &[u8]) -> Done {
    session
        .hub
        .acl_all_channels
        .store(value == "allchannels", Relaxed);
    Ok(())
}

fn set_latency_threshold(session: &Session, value: &str, _: &[u8]) -> Done {
    session
        .hub
        .latency
        .threshold_ms
        .store(number(value), Relaxed);
    Ok(())
}

fn set_tracked(session: &Session, value: &str, _: &[u8]) -> Done {
    session.node.broker.tracking.set_keys_max(number(value));
    Ok(())
}

pub(super) fn letters(value: &[u8]) -> Result<String, &'static str> {
    notify::normal(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use broker::cache::TRACKED_KEYS_MAX;

    #[test]
    fn names_are_sorted_and_unique_and_every_change_is_of_one() {
        let settings = settings(&Config::default(), &[], &[]);
        assert!(settings.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let known = |name: &str| settings.iter().any(|(of, _)| *of == name);
        assert!(CHANGEABLE.iter().all(|(name, _)| known(name)));
        assert!(IMMUTABLE.iter().all(|name| known(name)));
        let keys = settings
            .iter()
            .find(|(name, _)| *name == "tracking-table-max-keys");
        assert_eq!(
            keys.map(|(_, value)| value.clone()),
            Some(TRACKED_KEYS_MAX.to_string())
        );
        for (name, value) in &settings {
            let check = match change_of(name) {
                Change::To(check, _) | Change::Limits(check, _) => check,
                Change::Letters => letters,
                Change::Immutable | Change::Fixed | Change::Password => continue,
            };
            assert_eq!(check(value.as_bytes()).as_ref(), Ok(value), "{name}");
        }
    }
}
