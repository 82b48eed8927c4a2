//! When the fold shall run, and who waits for it.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

/// Between the writer, the fold's thread and those who wait for a fold.
#[derive(Debug)]
pub(crate) struct Trigger {
    /// Bytes of unfolded log that start a fold.
    fold_bytes: u64,
    /// The fold runs when the log is written up to here; `u64::MAX`: it has been told.
    due: AtomicU64,
    /// End of the written log, so that a fold that ends sees what came meanwhile.
    written: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stop: bool,
    /// Somebody wants everything up to here in the tables.
    wanted: u64,
    /// Log written up to here is to be folded by volume.
    due: u64,
    folded: u64,
    /// The fold's thread shall look, even if there is nothing to fold.
    look: bool,
}

impl Trigger {
    pub(crate) fn new(fold_bytes: u64, folded: u64) -> Self {
        let state = State {
            folded,
            ..State::default()
        };
        Self {
            fold_bytes,
            due: AtomicU64::new(folded + fold_bytes),
            written: AtomicU64::new(folded),
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// The log is written up to `position`.
    #[inline]
    pub(crate) fn wrote(&self, position: u64) {
        self.written.store(position, Ordering::SeqCst);
        if position >= self.due.load(Ordering::SeqCst) {
            self.due.store(u64::MAX, Ordering::SeqCst);
            self.state.lock().due = position;
            self.changed.notify_all();
        }
    }

    /// The tables have everything up to `position`.
    pub(crate) fn folded(&self, position: u64) {
        let mut state = self.state.lock();
        state.folded = position;
        if state.due <= position {
            let next = position + self.fold_bytes;
            self.due.store(next, Ordering::SeqCst);
            // Writers that have stopped, or are held because the tables are behind, will not say it again.
            let written = self.written.load(Ordering::SeqCst);
            if written >= next {
                self.due.store(u64::MAX, Ordering::SeqCst);
                state.due = written;
            }
        }
        self.changed.notify_all();
    }

    /// Asks for everything up to `position`, and waits until it is folded; `false`: `given_up`, or stopped.
    pub(crate) fn request(&self, position: u64, given_up: impl Fn() -> bool) -> bool {
        let mut state = self.state.lock();
        state.wanted = state.wanted.max(position);
        self.changed.notify_all();
        while state.folded < position {
            if state.stop || given_up() {
                return false;
            }
            self.changed.wait(&mut state);
        }
        true
    }

    /// Asks for everything up to `position`, and does not wait. If that is folded already, there may be room to make.
    pub(crate) fn ask(&self, position: u64) {
        let mut state = self.state.lock();
        state.look = true;
        state.wanted = state.wanted.max(position);
        self.changed.notify_all();
    }

    /// Waits until there is something to fold, or somebody asks, and gives the position to fold to. `None`: stop.
    pub(crate) fn wait(&self) -> Option<u64> {
        let mut state = self.state.lock();
        loop {
            if state.stop {
                return None;
            }
            let goal = state.wanted.max(state.due);
            if std::mem::take(&mut state.look) || goal > state.folded {
                return Some(goal);
            }
            self.changed.wait(&mut state);
        }
    }

    /// Lets everybody look again.
    pub(crate) fn wake(&self) {
        let _state = self.state.lock();
        self.changed.notify_all();
    }

    pub(crate) fn stop(&self) {
        self.state.lock().stop = true;
        self.changed.notify_all();
    }

    pub(crate) fn stopped(&self) -> bool {
        self.state.lock().stop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_during_a_fold_starts_the_next_one() {
        let trigger = Trigger::new(100, 0);
        trigger.wrote(120);
        assert_eq!(trigger.wait(), Some(120));
        trigger.wrote(500);
        trigger.folded(120);
        assert_eq!(trigger.wait(), Some(500), "though nobody writes any more");
        trigger.folded(500);
        trigger.ask(300);
        assert_eq!(trigger.wait(), Some(500), "to look, since it was asked");
    }
}
