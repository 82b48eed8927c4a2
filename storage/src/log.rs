//! The commit log: files of groups of records, written by flat combining, synced by a thread of its own.
//!
//! ```text
//! append ─▶ group buffer ─▶ flush: one write ─▶ file ─▶ sync thread: fdatasync
//!           combine.rs                writer.rs         sync_thread.rs
//! ```

pub(crate) mod ahead;
pub(crate) mod bodies;
pub(crate) mod combine;
pub(crate) mod counters;
pub(crate) mod files;
pub(crate) mod group;
pub(crate) mod map;
pub(crate) mod reader;
pub(crate) mod record;
pub(crate) mod recover;
pub(crate) mod segment;
pub(crate) mod sync_thread;
pub(crate) mod waiters;
pub(crate) mod writer;

#[cfg(test)]
mod shuttle_tests;

use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::task::Waker;
use std::thread::Thread;

use parking_lot::Mutex;

use crate::fault::Faults;
use crate::space::Reserve;
use crate::trigger::Trigger;
use crate::{Need, Outcome};
use combine::Combiner;
use counters::Counters;
pub(crate) use files::Files;
use sync_thread::Syncer;
use writer::Writer;

/// The primitives that `combine` and `waiters` are built on; the tests give them shuttle's.
mod sync {
    pub(crate) use parking_lot::Mutex;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
}

#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) combiner: Combiner<Writer>,
    pub(crate) files: Arc<Files>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) faults: Faults,
    pub(crate) term: u32,
    pub(crate) trigger: Arc<Trigger>,
    syncer: Arc<Syncer>,
    /// One sync at a time: who sees nothing left to sync must know that it *is* synced.
    syncing: Mutex<()>,
}

/// How a log goes on after recovery.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) files: Arc<Files>,
    /// Position of the first group to come.
    pub(crate) position: u64,
    /// Where the log so far ends.
    pub(crate) previous_end: u64,
    pub(crate) term: u32,
    pub(crate) segment_bytes: u64,
    pub(crate) sync_interval: Option<std::time::Duration>,
    pub(crate) faults: Faults,
    pub(crate) trigger: Arc<Trigger>,
    pub(crate) reserve: Arc<Reserve>,
}

impl Log {
    pub(crate) fn new(start: Start) -> Self {
        let syncer = Arc::new(Syncer::new(start.sync_interval));
        let counters = Arc::<Counters>::default();
        let writer = Writer::new(
            start.term,
            start.segment_bytes,
            start.previous_end,
            writer::Shared {
                files: Arc::clone(&start.files),
                syncer: Arc::clone(&syncer),
                counters: Arc::clone(&counters),
                trigger: Arc::clone(&start.trigger),
                reserve: start.reserve,
            },
            start.faults.clone(),
        );
        Self {
            combiner: Combiner::new(start.position, writer),
            files: start.files,
            counters,
            faults: start.faults,
            term: start.term,
            trigger: start.trigger,
            syncer,
            syncing: Mutex::default(),
        }
    }

    #[inline]
    pub(crate) fn written(&self) -> u64 {
        self.combiner.written()
    }

    #[inline]
    pub(crate) fn synced(&self) -> u64 {
        self.combiner.synced()
    }

    #[inline]
    pub(crate) fn failed(&self) -> bool {
        self.combiner.failed()
    }

    #[inline]
    pub(crate) fn flush(&self) {
        if let Err(error) = self.combiner.flush() {
            self.fail("write", &error);
        }
    }

    /// The disk failed: nothing more becomes durable, everybody is woken.
    pub(crate) fn fail(&self, what: &str, error: &dyn Display) {
        tracing::error!(what, %error, "storage failed; the node must stop");
        self.combiner.fail();
        self.syncer.wake();
        self.trigger.wake();
    }

    pub(crate) fn notify(&self, need: Need, waker: &Waker) -> bool {
        let settled = self.combiner.notify(need, waker);
        if !settled && need.synced.0 > self.synced() {
            self.syncer.want(need.synced.0);
        }
        settled
    }

    pub(crate) fn wait(&self, need: Need) -> Outcome {
        if need.written.0 > self.written() {
            self.flush();
        }
        if !self.combiner.is_durable(need) {
            let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
            while !self.notify(need, &waker) {
                std::thread::park();
            }
        }
        self.combiner.outcome(need)
    }

    /// Puts everything written so far on the disk, on this thread.
    pub(crate) fn sync(&self) -> io::Result<()> {
        sync_thread::sync(self)
    }

    /// Ends the sync thread.
    pub(crate) fn stop(&self) {
        self.syncer.stop();
    }
}

/// Wakes a blocked thread.
struct Unpark(Thread);

impl std::task::Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
