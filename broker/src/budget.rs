//! How much memory a domain may keep for clean objects. Dirty ones stay whatever the budget says.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Bytes allowed and bytes used, shared by the shards of one domain.
#[derive(Debug)]
pub struct Budget {
    limit: AtomicU64,
    used: AtomicI64,
    /// What of it are markers of deletions.
    markers: AtomicI64,
}

impl Budget {
    #[must_use]
    pub fn new(limit_bytes: u64) -> Self {
        Self {
            limit: AtomicU64::new(limit_bytes),
            used: AtomicI64::new(0),
            markers: AtomicI64::new(0),
        }
    }

    /// Adds (or, when negative, gives back) bytes.
    pub fn charge(&self, delta_bytes: i64) {
        self.used.fetch_add(delta_bytes, Ordering::Relaxed);
    }

    pub fn used(&self) -> u64 {
        u64::try_from(self.used.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Notes that so much of what is used are markers of deletions, or is not any more.
    pub fn charge_marker(&self, delta_bytes: i64) {
        self.markers.fetch_add(delta_bytes, Ordering::Relaxed);
    }

    /// Bytes of markers of deletions that the tables do not know of yet.
    pub fn markers(&self) -> u64 {
        u64::try_from(self.markers.load(Ordering::Relaxed)).unwrap_or(0)
    }

    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    pub fn set_limit(&self, limit_bytes: u64) {
        self.limit.store(limit_bytes, Ordering::Relaxed);
    }

    /// Bytes above the limit; 0 when within it.
    pub fn excess(&self) -> u64 {
        self.used().saturating_sub(self.limit())
    }
}

/// Messages beyond this wait in the tables however much memory there is: a queue is read in order, so a page of read-ahead
/// serves it as well as memory does.
const QUEUE_BYTES: u64 = 32 << 20;

/// Batches beyond this are read from the log or the tables however much memory there is: the page cache has them, too, and
/// memory that is filled again and again stays in the processor's caches.
const STREAM_BYTES: u64 = 32 << 20;

/// One budget per domain.
#[derive(Debug)]
pub struct Budgets {
    pub cache: Budget,
    pub queue: Budget,
    pub stream: Budget,
}

impl Budgets {
    /// The same limits, and nothing used yet.
    #[must_use]
    pub fn like(other: &Self) -> Self {
        Self {
            cache: Budget::new(other.cache.limit()),
            queue: Budget::new(other.queue.limit()),
            stream: Budget::new(other.stream.limit()),
        }
    }

    /// Splits `total_bytes`: half for the cache, a quarter each for queues and streams (at most 32 MiB each).
    #[must_use]
    pub fn split(total_bytes: u64) -> Self {
        Self {
            cache: Budget::new(total_bytes / 2),
            queue: Budget::new((total_bytes / 4).min(QUEUE_BYTES)),
            stream: Budget::new((total_bytes / 4).min(STREAM_BYTES)),
        }
    }
}
