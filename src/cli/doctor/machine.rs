//! Processor, memory, clock, limits and addresses.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};

use super::{Check, size};
use crate::config::Config;
use crate::listen::{self, Taken};
use crate::telemetry::process;

pub(super) fn cores(config: &Config) -> Check {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = config.thread_count();
    let found = format!("{cores}, {threads} threads serve clients");
    if threads > cores {
        return Check::warn(
            "cores",
            found,
            format!("set --threads {cores} or auto: more threads than cores only switch"),
        );
    }
    Check::ok("cores", found)
}

pub(super) fn open_files(config: &Config) -> Check {
    // The server raises its soft limit itself; only the hard one stands in its way.
    let allowed = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let wanted = process::files_for(config.max_connections);
    let found = if allowed == u64::MAX {
        "no limit".to_owned()
    } else {
        format!("{allowed} allowed, {wanted} needed for max-connections")
    };
    if allowed < wanted {
        return Check::warn(
            "open files",
            found,
            format!(
                "raise the hard limit (`ulimit -Hn {wanted}`, LimitNOFILE={wanted} for systemd), or lower --max-connections"
            ),
        );
    }
    Check::ok("open files", found)
}

/// Connections that arrive while the accepting thread is busy wait here; what does not fit is dropped.
pub(super) fn backlog() -> Check {
    const WANTED: u64 = 1024;
    let Some(limit) = number("/proc/sys/net/core/somaxconn") else {
        return Check::ok("listen backlog", "not known here");
    };
    let found = format!("{limit} connections may wait to be accepted");
    if limit < WANTED {
        return Check::warn(
            "listen backlog",
            found,
            format!(
                "sysctl -w net.core.somaxconn={WANTED}: a burst of reconnects would be refused"
            ),
        );
    }
    Check::ok("listen backlog", found)
}

pub(super) fn memory(config: &Config) -> Check {
    let all = process::memory_bytes();
    let budget = config.memory_budget();
    if all == 0 {
        return Check::ok(
            "memory",
            format!("not known here; data may take {}", size(budget)),
        );
    }
    let found = format!("{} here, data may take {}", size(all), size(budget));
    // What a process takes beside its data: buffers, block cache, what a fold needs.
    if budget > all / 10 * 8 {
        return Check::warn(
            "memory",
            found,
            "set --memory-limit to at most 80 % of it, or auto: connections, tables and the page cache need the rest",
        );
    }
    Check::ok("memory", found)
}

pub(super) fn overcommit() -> Check {
    const NAME: &str = "overcommit";
    match number("/proc/sys/vm/overcommit_memory") {
        Some(2) => Check::warn(
            NAME,
            "vm.overcommit_memory is 2: the kernel refuses memory that is reserved but not used",
            "sysctl -w vm.overcommit_memory=0: the allocator and the mapped log reserve ahead",
        ),
        Some(mode) => Check::ok(NAME, format!("vm.overcommit_memory is {mode}")),
        None => Check::ok(NAME, "not known here"),
    }
}

/// Expiry, retention and message ages are told by the clock, and each command reads it.
pub(super) fn clock() -> Check {
    const NAME: &str = "clock";
    /// When this check was written: an earlier time is a clock that was never set.
    const WRITTEN: Duration = Duration::from_secs(1_795_500_000);
    const READS: u32 = 20_000;
    const SLOW_NS: u128 = 500;
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    if since.unwrap_or_default() < WRITTEN {
        return Check::fail(
            NAME,
            "the clock of this machine is in the past",
            "set it (NTP): keys would expire, and old records be kept, by that clock",
        );
    }
    let began = Instant::now();
    for _ in 0..READS {
        std::hint::black_box(Instant::now());
    }
    let cost_ns = began.elapsed().as_nanos() / u128::from(READS);
    let source = text("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    let found = format!(
        "reading it takes {cost_ns} ns (clock source {})",
        source.as_deref().unwrap_or("not known")
    );
    if cost_ns > SLOW_NS {
        return Check::warn(
            NAME,
            found,
            "choose the clock source tsc or the hypervisor's own: each command reads the clock",
        );
    }
    Check::ok(NAME, found)
}

/// Whether each face could listen.
pub(super) fn addresses(config: &Config) -> Vec<Check> {
    let mut checks = Vec::new();
    for (entrance, addrs) in config.entrances() {
        let addrs = addrs.shifted(config.port_offset).unwrap_or_default();
        let mut beside = false;
        for addr in addrs.0 {
            let name = entrance.to_string();
            let taken = listen::probe(entrance, addr, beside);
            beside |= matches!(taken, Taken::Free | Taken::ByUs(_));
            checks.push(match taken {
                Taken::Free => Check::ok(name, format!("{addr} is free")),
                Taken::Absent => Check::ok(name, format!("{addr}: no IPv6 here, skipped")),
                Taken::ByUs(holder) => Check::ok(name, format!("{addr}: {holder} has it")),
                Taken::Refused(why) => {
                    Check::fail(name, format!("{addr} cannot be used"), why.to_string())
                }
            });
        }
    }
    checks
}

fn text(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
}

fn number(path: &str) -> Option<u64> {
    text(path)?.parse().ok()
}
