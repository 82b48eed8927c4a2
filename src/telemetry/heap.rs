//! What memory is used for: the allocator's figures, and what we count ourselves.

use std::io;

use broker::{Broker, Budget};
use serde_json::{Value, json};
use tikv_jemalloc_ctl::{Access, AsName, arenas, epoch, stats, stats_print};

use super::process;

/// Figures as JSON, in bytes. `connections`: open ones of all faces.
///
/// # Errors
/// The allocator was built without its statistics.
pub fn summary(broker: &Broker, connections: i64) -> io::Result<Value> {
    let (process, allocator) = (process::memory_now(), Allocated::now()?);
    let budget = |budget: &Budget| json!({ "used": budget.used(), "limit": budget.limit() });
    let (budgets, stats) = (&broker.budgets, broker.engine.stats());
    Ok(json!({
        "resident": process,
        "allocator": {
            "name": "jemalloc",
            "allocated": allocator.allocated,
            "active": allocator.active,
            "metadata": allocator.metadata,
            "resident": allocator.resident,
            "retained": allocator.retained,
        },
        // Files that are mapped, code, stacks of threads; or less than nothing, where the allocator's pages were not touched yet.
        "resident_beside_allocator": i128::from(process) - i128::from(allocator.resident),
        "keys": budget(&budgets.cache),
        "queues": budget(&budgets.queue),
        "streams": budget(&budgets.stream),
        "log": {
            "unfolded": stats.unfolded_bytes,
            "unwritten": stats.appended.0.saturating_sub(stats.written.0),
        },
        "connections": connections,
    }))
}

/// Of jemalloc(3), `stats.*`, in bytes.
#[derive(Debug, Default)]
pub(crate) struct Allocated {
    /// In objects that are in use.
    pub(crate) allocated: u64,
    /// In pages with objects in use.
    pub(crate) active: u64,
    /// Its own books.
    pub(crate) metadata: u64,
    /// In pages that the kernel may have given memory to.
    pub(crate) resident: u64,
    /// Addresses without memory, kept for later.
    pub(crate) retained: u64,
}

impl Allocated {
    pub(crate) fn now() -> io::Result<Self> {
        let read = |figure: tikv_jemalloc_ctl::Result<usize>| {
            figure.map(|bytes| bytes as u64).map_err(io::Error::other)
        };
        // The figures are as old as the epoch.
        epoch::advance().map_err(io::Error::other)?;
        Ok(Self {
            allocated: read(stats::allocated::read())?,
            active: read(stats::active::read())?,
            metadata: read(stats::metadata::read())?,
            resident: read(stats::resident::read())?,
            retained: read(stats::retained::read())?,
        })
    }
}

/// Gives pages that nothing uses back to the kernel.
///
/// # Errors
/// The allocator refused.
pub fn purge() -> io::Result<()> {
    // Two at once would take each other's 0 for what was set.
    static ONE: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
    let _one = ONE.lock();
    let count = arenas::narenas::read().map_err(io::Error::other)?;
    for arena in 0..count {
        // Pages that may stay unused for no time at all go at once.
        let name = format!("arena.{arena}.dirty_decay_ms\0");
        let decay = name.as_str().name();
        // Of arenas that are not in use nothing can be read.
        let Ok(before) = Access::<isize>::read(decay) else {
            continue;
        };
        decay.write(0isize).map_err(io::Error::other)?;
        decay.write(before).map_err(io::Error::other)?;
    }
    Ok(())
}

/// The allocator's own report.
///
/// # Errors
/// It could not be written.
pub fn report() -> io::Result<String> {
    let mut text = Vec::new();
    stats_print::stats_print(&mut text, stats_print::Options::default())?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allocator_tells() {
        assert!(report().unwrap().contains("Allocated"));
        purge().unwrap();
        let now = Allocated::now().unwrap();
        assert!(now.resident >= now.active && now.active >= now.allocated);
    }
}
