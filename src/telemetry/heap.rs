//! What memory is used for: the allocator's figures, and what we count ourselves.

#![expect(
    unsafe_code,
    reason = "mimalloc's statistics are C functions; each is given memory that outlives the call"
)]

use std::ffi::{CStr, c_char, c_void};
use std::panic::AssertUnwindSafe;

use broker::{Broker, Budget};
use serde_json::{Value, json};

use super::process;

/// Figures as JSON, in bytes. `connections`: open ones of all faces.
pub fn summary(broker: &Broker, connections: i64) -> Value {
    let (resident, allocator) = (process::memory_now(), allocated());
    let budget = |budget: &Budget| json!({ "used": budget.used(), "limit": budget.limit() });
    let (budgets, stats) = (&broker.budgets, broker.engine.stats());
    json!({
        "resident": resident,
        "allocator": {
            "name": "mimalloc",
            "committed": allocator.committed,
            "peak_committed": allocator.peak_committed,
            "peak_resident": allocator.peak_resident,
        },
        // Files that are mapped, code, stacks of threads; or less than nothing, where committed pages were not touched yet.
        "resident_beside_allocator": i128::from(resident) - i128::from(allocator.committed),
        "keys": budget(&budgets.cache),
        "queues": budget(&budgets.queue),
        "streams": budget(&budgets.stream),
        "log": {
            "unfolded": stats.unfolded_bytes,
            "unwritten": stats.appended.0.saturating_sub(stats.written.0),
        },
        "connections": connections,
    })
}

struct Allocated {
    committed: u64,
    peak_committed: u64,
    peak_resident: u64,
}

fn allocated() -> Allocated {
    let [mut elapsed, mut user, mut system, mut resident] = [0usize; 4];
    let [
        mut peak_resident,
        mut committed,
        mut peak_committed,
        mut faults,
    ] = [0usize; 4];
    // SAFETY: eight places to write a number to, which live until it returns.
    unsafe {
        libmimalloc_sys::mi_process_info(
            &raw mut elapsed,
            &raw mut user,
            &raw mut system,
            &raw mut resident,
            &raw mut peak_resident,
            &raw mut committed,
            &raw mut peak_committed,
            &raw mut faults,
        );
    }
    Allocated {
        committed: committed as u64,
        peak_committed: peak_committed as u64,
        peak_resident: peak_resident as u64,
    }
}

/// The allocator's own report.
pub fn report() -> String {
    let mut text = String::new();
    // SAFETY: `line` is called before this returns, with the place of `text`.
    unsafe {
        libmimalloc_sys::mi_stats_print_out(Some(line), (&raw mut text).cast());
    }
    text
}

extern "C" fn line(said: *const c_char, into: *mut c_void) {
    // SAFETY: mimalloc gives a text with a zero at its end, and back the place that `report` gave it.
    let (said, into) = unsafe { (CStr::from_ptr(said), &mut *into.cast::<String>()) };
    // A panic must not pass through C.
    let said = AssertUnwindSafe(said);
    let added = std::panic::catch_unwind(AssertUnwindSafe(move || {
        into.push_str(&said.to_string_lossy());
    }));
    drop(added);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allocator_tells() {
        let report = report();
        assert!(!report.is_empty());
        assert!(allocated().peak_resident > 0);
    }
}
