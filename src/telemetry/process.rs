//! What the operating system says about this process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors needed beside those of clients: log, tables, listeners, standard streams.
const OWN_FILES: u64 = 512;

/// Raises the limit of open files as far as allowed, and warns when `connections` do not fit.
pub fn raise_file_limit(connections: usize) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit.maximum,
                maximum: limit.maximum,
            },
        )
    {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    // None is "no limit".
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let wanted = files_for(connections);
    if allowed < wanted {
        tracing::warn!(
            allowed,
            wanted,
            "too few open files are allowed for max-connections; raise `ulimit -n`"
        );
    }
}

/// Descriptors that a server with so many clients needs.
pub fn files_for(connections: usize) -> u64 {
    u64::try_from(connections)
        .unwrap_or(u64::MAX)
        .saturating_add(OWN_FILES)
}

/// A reading of /proc; zero where it says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// Bytes in RAM.
    pub resident_bytes: u64,
    /// Bytes of address space.
    pub virtual_bytes: u64,
    /// User and system time of all threads.
    pub cpu_seconds: f64,
    /// Open descriptors.
    pub open_files: u64,
    /// Threads.
    pub threads: u64,
}

/// Bytes of this process in RAM.
pub fn memory_now() -> u64 {
    resident_and_shared().0
}

/// Bytes in RAM that are not of files: what the process allocated, and only it can give back.
pub fn allocated_now() -> u64 {
    let (resident, shared) = resident_and_shared();
    resident.saturating_sub(shared)
}

/// Bytes in RAM, and those of them that are of files or shared memory.
fn resident_and_shared() -> (u64, u64) {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = statm
        .split_whitespace()
        .skip(1)
        .map(|text| text.parse::<u64>().unwrap_or(0));
    // proc(5): size, resident, shared.
    let mut bytes = || pages.next().unwrap_or(0) * rustix::param::page_size() as u64;
    (bytes(), bytes())
}

/// Numbers of `/proc/self/stat` by their place in proc(5), from the third on.
fn stat() -> impl Fn(usize) -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field, the name in brackets, may itself hold spaces; the third is the first after the last bracket.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<u64> = rest
        .split_whitespace()
        .map(|text| text.parse().unwrap_or(0))
        .collect();
    move |field| fields.get(field - 3).copied().unwrap_or(0)
}

fn seconds(ticks: u64) -> f64 {
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// Reads it now.
pub fn read() -> Reading {
    let number = stat();
    Reading {
        resident_bytes: number(24) * rustix::param::page_size() as u64,
        virtual_bytes: number(23),
        // utime and stime.
        cpu_seconds: seconds(number(14) + number(15)),
        open_files: std::fs::read_dir("/proc/self/fd").map_or(0, |dir| dir.count() as u64),
        threads: number(20),
    }
}

/// Seconds of processor time of all threads: in the program, and in the kernel for it.
pub fn cpu_times() -> (f64, f64) {
    let number = stat();
    (seconds(number(14)), seconds(number(15)))
}

/// RAM that this process may use: the machine's, or the container's if that is less. 0 if unknown.
pub fn memory_bytes() -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            text.lines().find_map(|line| {
                line.strip_prefix("MemTotal:")?
                    .trim()
                    .strip_suffix("kB")?
                    .trim()
                    .parse::<u64>()
                    .ok()
            })
        })
        .map_or(0, |kib| kib * 1024);
    let container = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ]
    .iter()
    .find_map(|path| {
        std::fs::read_to_string(path)
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()
    });
    match (machine, container) {
        (0, limit) => limit.unwrap_or(0),
        (machine, limit) => machine.min(limit.unwrap_or(u64::MAX)),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn reads_itself() {
        let reading = super::read();
        assert!(
            reading.resident_bytes > 1 << 20 && reading.open_files > 2 && reading.threads > 0,
            "{reading:?}"
        );
        assert!(super::memory_bytes() > 64 << 20);
    }
}
