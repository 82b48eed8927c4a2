//! The disk below the data directory: what it is, how full, how fast it syncs.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::{Check, size};
use crate::config::{Config, StorageKind};

/// Below, a fold or a compaction may not find the room it needs.
const FREE_MIN: u64 = 1 << 30;
const FREE_PERCENT_MIN: u64 = 5;
/// Syncs that are timed, and for how long at most.
const SYNCS: usize = 400;
const PATIENCE: Duration = Duration::from_secs(3);
/// What one log write of a small command comes to.
const BLOCK: usize = 4096;

pub(super) fn examine(config: &Config) -> Vec<Check> {
    if config.storage == StorageKind::Memory {
        return vec![Check::ok("disk", "storage is memory: nothing is kept")];
    }
    let dir = &config.data_dir;
    let below = existing(dir);
    let mut checks = vec![directory(dir, &below)];
    match rustix::fs::statfs(&below) {
        Ok(stat) => {
            checks.push(kind(stat.f_type.try_into().unwrap_or(0)));
            let block = u64::try_from(stat.f_bsize).unwrap_or(0);
            checks.push(space(
                stat.f_bavail * block,
                stat.f_blocks * block,
                config.disk_free_limit(),
            ));
        }
        Err(error) => checks.push(Check::warn(
            "file system",
            format!("{}: {error}", below.display()),
            "look whether the path is right",
        )),
    }
    checks.extend(made_in_the_future(dir));
    checks.push(match time_syncs(&below) {
        Ok(times) => fsync(times),
        Err(error) => Check::fail(
            "fsync",
            format!("cannot write in {}: {error}", below.display()),
            "give the server's user the right to write there",
        ),
    });
    checks
}

/// The directory, or the one above it that exists and in which it will be made.
fn existing(dir: &Path) -> PathBuf {
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let found = dir.ancestors().find(|dir| dir.is_dir());
    found.unwrap_or(Path::new("/")).to_owned()
}

fn directory(dir: &Path, below: &Path) -> Check {
    const NAME: &str = "data directory";
    if !dir.exists() {
        return Check::ok(
            NAME,
            format!("{} will be made in {}", dir.display(), below.display()),
        );
    }
    match bytes_below(dir) {
        Ok(bytes) => Check::ok(NAME, format!("{}, {}", dir.display(), size(bytes))),
        Err(error) => Check::fail(
            NAME,
            format!("{}: {error}", dir.display()),
            "run this as the user of the server, or give that user the directory",
        ),
    }
}

fn bytes_below(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // A file that a running server deletes meanwhile is no error.
            let Ok(about) = entry.metadata() else {
                continue;
            };
            if about.is_dir() {
                dirs.push(entry.path());
            } else {
                bytes += about.len();
            }
        }
    }
    Ok(bytes)
}

/// By the magic numbers of statfs(2).
fn kind(magic: u64) -> Check {
    const NAME: &str = "file system";
    let memory = "choose a data directory on a disk: what is here is gone with the machine";
    let network = "choose a local disk: syncs over a network are slow, and locks may not hold";
    match magic {
        0xef53 => Check::ok(NAME, "ext4"),
        0x5846_5342 => Check::ok(NAME, "xfs"),
        0x9123_683e => Check::ok(NAME, "btrfs"),
        0x2fc1_2fc1 => Check::ok(NAME, "zfs"),
        0xf2f5_2010 => Check::ok(NAME, "f2fs"),
        0x0102_1994 => Check::warn(NAME, "tmpfs, which is memory", memory),
        0x8584_58f6 => Check::warn(NAME, "ramfs, which is memory", memory),
        0x794c_7630 => Check::warn(
            NAME,
            "overlayfs, a container's own layer",
            "mount a volume at the data directory: this layer is gone with the container",
        ),
        0x6969 => Check::warn(NAME, "NFS", network),
        0xff53_4d42 | 0xfe53_4d42 => Check::warn(NAME, "SMB", network),
        0x6573_5546 => Check::warn(NAME, "FUSE", network),
        other => Check::ok(NAME, format!("of type {other:#x}")),
    }
}

/// `limit`: below so much free space writes are refused.
fn space(free: u64, all: u64, limit: u64) -> Check {
    const NAME: &str = "disk space";
    let percent = (free.saturating_mul(100)).checked_div(all).unwrap_or(100);
    let found = format!(
        "{} free of {} ({percent} %), writes are refused below {}",
        size(free),
        size(all),
        size(limit)
    );
    if free <= limit {
        return Check::fail(
            NAME,
            found,
            "make room: the server would refuse writes from its start, or lower disk-free-limit",
        );
    }
    if free < FREE_MIN || percent < FREE_PERCENT_MIN {
        return Check::fail(
            NAME,
            found,
            "make room: a full disk stops writes, and folding needs room for a second copy of what changed",
        );
    }
    Check::ok(NAME, found)
}

/// Files that were made later than now: the clock has stepped back.
fn made_in_the_future(dir: &Path) -> Option<Check> {
    const SLACK: Duration = Duration::from_secs(60);
    let newest = fs::read_dir(dir)
        .ok()?
        .filter_map(|entry| entry.ok()?.metadata().ok()?.modified().ok())
        .max()?;
    let ahead = newest.duration_since(SystemTime::now()).ok()?;
    (ahead > SLACK).then(|| {
        Check::warn(
            "clock",
            format!(
                "the data directory was written {} s from now",
                ahead.as_secs()
            ),
            "the clock has stepped back: keys expire, and retention counts, that much later",
        )
    })
}

/// Times writes of a block over a file of zeros, each followed by `fdatasync`, as the log does it.
fn time_syncs(dir: &Path) -> io::Result<Vec<Duration>> {
    let file = tempfile::Builder::new()
        .prefix(".flowmesh-doctor-")
        .tempfile_in(dir)?;
    let file: &File = file.as_file();
    let blocks = 64;
    file.write_all_at(&vec![0; BLOCK * blocks], 0)?;
    file.sync_all()?;
    let mut times = Vec::with_capacity(SYNCS);
    let began = Instant::now();
    while times.len() < SYNCS && began.elapsed() < PATIENCE {
        let at = (times.len() % blocks * BLOCK) as u64;
        file.write_all_at(&[1; BLOCK], at)?;
        let sync = Instant::now();
        file.sync_data()?;
        times.push(sync.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

fn fsync(times: Vec<Duration>) -> Check {
    const NAME: &str = "fsync";
    const SLOW: Duration = Duration::from_millis(10);
    const TOO_FAST: Duration = Duration::from_micros(10);
    let at = |percent: usize| times.get(times.len() * percent / 100).copied();
    let (Some(median), Some(p99)) = (at(50), at(99)) else {
        return Check::warn(NAME, "not one sync in 3 s", "choose another disk");
    };
    let found = format!(
        "p50 {:.2} ms, p99 {:.2} ms over {} syncs of 4 KiB",
        median.as_secs_f64() * 1e3,
        p99.as_secs_f64() * 1e3,
        times.len()
    );
    if median < TOO_FAST {
        return Check::warn(
            NAME,
            found,
            "no disk is that fast: it says synced before it is, and a power cut may lose what was acknowledged",
        );
    }
    if median > SLOW {
        return Check::warn(
            NAME,
            found,
            "replies of class sync wait for this: choose a faster disk, or a weaker class (docs/DURABILITY.md)",
        );
    }
    Check::ok(NAME, found)
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_disk_is_judged_by_what_it_has_and_does() {
        let gib = 1 << 30;
        assert_eq!(space(50 * gib, 100 * gib, gib).state, State::Ok);
        assert_eq!(space(4 * gib, 100 * gib, gib).state, State::Fail);
        assert_eq!(space(gib / 2, gib, 0).state, State::Fail);
        let refuses = space(50 * gib, 100 * gib, 60 * gib);
        assert!(refuses.found.ends_with("refused below 60 GiB"));
        assert_eq!(refuses.state, State::Fail);
        assert_eq!(kind(0xef53).state, State::Ok);
        assert_eq!(kind(0x6969).state, State::Warn);
        for (us, state) in [(2, State::Warn), (300, State::Ok), (20_000, State::Warn)] {
            assert_eq!(fsync(vec![Duration::from_micros(us); 50]).state, state);
        }
        assert_eq!(fsync(Vec::new()).state, State::Warn);
    }

    #[test]
    fn syncs_are_timed_in_a_directory_and_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!time_syncs(dir.path()).unwrap().is_empty());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(existing(&dir.path().join("a/b")), dir.path());
    }
}
