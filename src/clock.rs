//! The node's clock: wall time that never goes back.
//!
//! Between corrections it runs on the monotonic clock. [`Clock::correct`] (each 100 ms, from the jobs thread) compares it with the
//! wall: a wall that is ahead is followed at once, a wall that is behind is approached at half speed, so deadlines stretch
//! but time stands still for nobody.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    /// Added to the milliseconds since `start`.
    offset_ms: AtomicI64,
    /// The last time handed out: what makes two threads agree that it never goes back.
    last_ms: AtomicU64,
}

/// How far apart clock and wall may be before it is called a step and logged.
const STEP_MS: i64 = 1_000;

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// Starts at the wall's time.
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            offset_ms: AtomicI64::new(wall_ms()),
            last_ms: AtomicU64::new(0),
        }
    }

    /// Now, in milliseconds since 1970; never less than any earlier answer.
    #[inline]
    pub fn now_ms(&self) -> u64 {
        let now = u64::try_from(self.raw_ms()).unwrap_or(0);
        let last = self.last_ms.load(Relaxed);
        // Most calls fall in the same millisecond as the one before: no write to the shared line.
        if now <= last {
            last
        } else {
            self.last_ms.fetch_max(now, Relaxed).max(now)
        }
    }

    fn raw_ms(&self) -> i64 {
        let elapsed = i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX);
        elapsed.saturating_add(self.offset_ms.load(Relaxed))
    }

    /// Moves towards the wall. `since` is the time since the last call.
    pub fn correct(&self, since: Duration) {
        self.follow(wall_ms(), since);
    }

    fn follow(&self, wall: i64, since: Duration) {
        let behind = wall.saturating_sub(self.raw_ms());
        if behind.abs() >= STEP_MS {
            tracing::warn!(step_ms = behind, "the wall clock was stepped");
        }
        let slowest = -i64::try_from(since.as_millis() / 2).unwrap_or(0);
        self.offset_ms.fetch_add(behind.max(slowest), Relaxed);
    }
}

/// The wall's time in milliseconds since 1970, as the operating system says it.
fn wall_ms() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_forward_and_never_goes_back() {
        let clock = Clock::new();
        let before = clock.now_ms();
        let ahead = wall_ms() + 60_000;
        clock.follow(ahead, Duration::from_millis(100));
        let after = clock.now_ms();
        assert!(after >= before + 59_000, "{before} {after}");

        // The wall steps a minute back: at most half of the time that passed is given back in each correction.
        clock.follow(wall_ms(), Duration::from_millis(100));
        assert!(clock.now_ms() >= after);
        assert!(clock.raw_ms() >= i64::try_from(after).unwrap() - 51);
        for _ in 0..2_000 {
            clock.follow(wall_ms(), Duration::from_millis(100));
        }
        assert!((clock.raw_ms() - wall_ms()).abs() < 2_000);
        assert!(clock.now_ms() >= after);
    }
}
