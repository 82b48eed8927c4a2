//! `CLIENT PAUSE`: until when commands wait, and which.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    on: AtomicBool,
    state: Mutex<Option<Paused>>,
}

/// A pause that is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Paused {
    pub(crate) until: Instant,
    /// Every command waits, not only those that may write.
    pub(crate) all: bool,
}

impl Pause {
    /// False: nothing needs to be looked at.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Pauses; of two pauses the later end and the wider reach count.
    pub(crate) fn begin(&self, until: Instant, all: bool) {
        let mut state = self.state.lock();
        let old = state.filter(|old| old.until > Instant::now());
        *state = Some(Paused {
            until: old.map_or(until, |old| old.until.max(until)),
            all: all || old.is_some_and(|old| old.all),
        });
        self.on.store(true, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        *self.state.lock() = None;
        self.on.store(false, Ordering::Relaxed);
    }

    /// The pause, unless it is over.
    pub(crate) fn now(&self) -> Option<Paused> {
        let mut state = self.state.lock();
        *state = state.filter(|paused| paused.until > Instant::now());
        if state.is_none() {
            self.on.store(false, Ordering::Relaxed);
        }
        *state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_wider_and_the_longer_pause_count() {
        let pause = Pause::default();
        assert_eq!((pause.is_on(), pause.now()), (false, None));
        let now = Instant::now();
        let (near, far) = (now + Duration::from_secs(50), now + Duration::from_secs(90));
        pause.begin(far, false);
        pause.begin(near, true);
        pause.begin(near, false);
        let paused = Paused {
            until: far,
            all: true,
        };
        assert_eq!(pause.now(), Some(paused));
        pause.end();
        assert!(!pause.is_on());
        pause.begin(now, true);
        assert!(pause.is_on());
        assert_eq!((pause.now(), pause.is_on()), (None, false));
    }
}
