//! What all clients' buffers take together: requests that are not whole yet, and replies that were not taken.
//!
//! Each worker counts what its connections hold and tells it once per turn, or when that has grown by much within one.
//! Above half of the limit a client is not read while it owes more than little; above the limit the connections that hold
//! most are closed, strangers first (Redis' `maxmemory-clients`), by the workers that hold more than their share.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::wake::{Inbox, Message};

/// Unsent bytes at which a client is not read any more while buffers are short.
pub(super) const PAUSE_WHEN_SHORT: usize = 64 << 10;
/// A connection that holds no more is closed for it last: it would hardly help.
pub(super) const SMALL: usize = 64 << 10;
/// What a worker's connections may hold more before it tells, and sends what it can.
pub(super) const GROWN: usize = 4 << 20;

/// See the module.
pub(super) struct Buffers {
    limit: usize,
    /// What a worker may hold in any case.
    pub(super) share: usize,
    total: AtomicUsize,
    /// Everybody was asked to look at what they hold.
    asked: AtomicBool,
    workers: OnceLock<Vec<Arc<Inbox>>>,
}

impl std::fmt::Debug for Buffers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffers")
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}

impl Buffers {
    pub(super) fn new(limit: usize, workers: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            share: limit / workers.max(1),
            total: AtomicUsize::new(0),
            asked: AtomicBool::new(false),
            workers: OnceLock::new(),
        })
    }

    /// Once, when all workers run.
    pub(super) fn know(&self, workers: Vec<Arc<Inbox>>) {
        let _ = self.workers.set(workers);
    }

    /// A worker holds `now` bytes instead of `before`.
    pub(super) fn told(&self, before: usize, now: usize) {
        if now > before {
            self.total.fetch_add(now - before, Ordering::Relaxed);
        } else {
            self.total.fetch_sub(before - now, Ordering::Relaxed);
        }
    }

    pub(super) fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    pub(super) fn is_over(&self) -> bool {
        self.total() > self.limit
    }

    pub(super) fn is_nearly_over(&self) -> bool {
        self.total() > self.limit.saturating_sub(SMALL)
    }

    /// Half of it is used up.
    pub(super) fn is_short(&self) -> bool {
        self.total() > self.limit / 2
    }

    /// A worker that holds no more than its share found that all together hold too much.
    pub(super) fn ask_all(&self) {
        if self.asked.swap(true, Ordering::Relaxed) {
            return;
        }
        for worker in self.workers.get().into_iter().flatten() {
            worker.push(Message::Trim);
        }
    }

    /// A worker has looked: they may be asked again.
    pub(super) fn looked(&self) {
        self.asked.store(false, Ordering::Relaxed);
    }
}
