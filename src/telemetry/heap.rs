//! What memory is used for: the allocator's figures, and what we count ourselves.

use std::io;

use broker::{Broker, Budget};
use serde_json::{Value, json};
use tikv_jemalloc_ctl::{epoch, stats, stats_print};

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
struct Allocated {
    /// In objects that are in use.
    allocated: u64,
    /// In pages with objects in use.
    active: u64,
    /// Its own books.
    metadata: u64,
    /// In pages that the kernel may have given memory to.
    resident: u64,
    /// Addresses without memory, kept for later.
    retained: u64,
}

impl Allocated {
    fn now() -> io::Result<Self> {
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
        let now = Allocated::now().unwrap();
        assert!(now.resident >= now.active && now.active >= now.allocated);
    }
}
