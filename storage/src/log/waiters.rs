//! Who waits for a position of the log, queued by position: only covered waiters are woken.
//!
//! Compiled twice: with real primitives, and with shuttle's in the tests (`super::sync`).

use std::cmp::Ordering as Order;
use std::collections::BinaryHeap;
use std::task::Waker;

use super::sync::{AtomicU64, Mutex, Ordering};

/// Nobody waits.
const NOBODY: u64 = u64::MAX;

#[derive(Debug)]
pub(crate) struct Waiters {
    /// The lowest position anybody waits for. A waiter stores it, then looks at the reached position; who reaches a
    /// position stores that, then looks here: one of the two sees the other.
    lowest: AtomicU64,
    heap: Mutex<BinaryHeap<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    position: u64,
    waker: Waker,
}

impl Waiters {
    pub(crate) fn new() -> Self {
        Self {
            lowest: AtomicU64::new(NOBODY),
            heap: Mutex::new(BinaryHeap::new()),
        }
    }

    /// Queues `waker` for `position`, unless `reached` says that it is there. `true`: it is there, nothing is kept.
    pub(crate) fn register(
        &self,
        position: u64,
        waker: &Waker,
        reached: impl Fn() -> bool,
    ) -> bool {
        let mut heap = self.heap.lock();
        if reached() {
            return true;
        }
        heap.push(Waiting {
            position,
            waker: waker.clone(),
        });
        if let Some(first) = heap.peek() {
            self.lowest.store(first.position, Ordering::SeqCst);
        }
        // Whoever stored a new position before our store to `lowest` may not have seen us. It may also have: then the
        // entry is gone already or about to be woken, and a spurious wake harms nobody.
        reached()
    }

    /// Wakes all who wait for `position` or less. The caller has stored `position` (`SeqCst`) before.
    pub(crate) fn wake(&self, position: u64) {
        if self.lowest.load(Ordering::SeqCst) > position {
            return;
        }
        let mut heap = self.heap.lock();
        let mut covered = smallvec::SmallVec::<[Waker; 16]>::new();
        while heap.peek().is_some_and(|first| first.position <= position) {
            covered.extend(heap.pop().map(|waiting| waiting.waker));
        }
        self.lowest.store(
            heap.peek().map_or(NOBODY, |first| first.position),
            Ordering::SeqCst,
        );
        drop(heap);
        for waker in covered {
            waker.wake();
        }
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.position == other.position
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    /// Lowest position first out of the heap.
    fn cmp(&self, other: &Self) -> Order {
        other.position.cmp(&self.position)
    }
}
