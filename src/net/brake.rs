//! The one place where writers are slowed down, whatever protocol they speak.
//!
//! What is not folded stays in memory, so writers must not outrun the fold for ever. The engine says how fast the log may
//! grow ([`storage::Engine::pace`]); a connection that has appended more than its turn is not read again before the time
//! that its bytes take at that pace. Connections that only read, and those that wait for messages, are not slowed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest rest of one connection: its heartbeats must be read.
const REST_MAX: Duration = Duration::from_millis(500);
/// Timers of the loop are not finer than this; what is less adds up for the next connection.
const REST_MIN: Duration = Duration::from_millis(1);

/// Shared by all workers: one clock of the log's growth, as if bytes were written one after the other at the pace.
#[derive(Debug)]
pub(super) struct Brake {
    since: Instant,
    /// When everything appended so far would be written at the pace; nanoseconds after `since`.
    busy_until: AtomicU64,
}

impl Brake {
    pub(super) fn new() -> Self {
        Self {
            since: Instant::now(),
            busy_until: AtomicU64::new(0),
        }
    }

    /// A connection has appended `bytes`, of which `pace` may be appended in a second: not to be read before the time
    /// returned. `None`: it may go on.
    pub(super) fn rest(&self, now: Instant, bytes: u64, pace: u64) -> Option<Instant> {
        let now_ns = nanos(now.saturating_duration_since(self.since));
        let takes = u128::from(bytes) * 1_000_000_000 / u128::from(pace.max(1));
        let takes = u64::try_from(takes).unwrap_or(u64::MAX);
        // No debt beyond the longest rest: it would outlive the reason for it.
        let latest = now_ns.saturating_add(nanos(REST_MAX));
        let after = |busy: u64| busy.max(now_ns).saturating_add(takes).min(latest);
        let before = self
            .busy_until
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |busy| {
                Some(after(busy))
            });
        let rest = after(before.unwrap_or_else(|busy| busy)) - now_ns;
        (rest >= nanos(REST_MIN)).then(|| now + Duration::from_nanos(rest))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_writers_together_keep_the_pace() {
        let brake = Brake::new();
        let now = Instant::now();
        // 10 MB/s: each append takes 0.4 ms. Less than a timer can tell is owed, not forgotten.
        let rest = || brake.rest(now, 4_000, 10_000_000).map(|until| until - now);
        assert_eq!((rest(), rest()), (None, None));
        let ms = |micros| Some(Duration::from_micros(micros));
        assert_eq!((rest(), rest()), (ms(1_200), ms(1_600)));
        let later = now + Duration::from_secs(1);
        assert_eq!(brake.rest(later, 4_000, 10_000_000), None, "it is paid off");
    }

    #[test]
    fn no_rest_is_longer_than_a_heartbeat_allows() {
        let brake = Brake::new();
        let now = Instant::now();
        for _ in 0..3 {
            assert_eq!(brake.rest(now, u64::MAX, 1), Some(now + REST_MAX));
        }
        let later = now + REST_MAX;
        assert_eq!(brake.rest(later, 0, 1), None);
    }
}
