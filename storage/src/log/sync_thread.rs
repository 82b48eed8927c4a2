//! The thread that runs `fdatasync`: when somebody waits for it, else each interval if something was written.
//! Appends and writes never wait for it.
//!
//! **Waves.** Whom one sync releases comes back with the next command a moment later, together with all the others it
//! released. A sync begun at once would carry only those few who came meanwhile, and the crowd would stay split into halves
//! that wait for each other's syncs. So the thread holds the next sync back until as many wait as were about at the last
//! one, but never longer than the last sync took: a lone client never waits, and a crowd shares one sync.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::Log;
use crate::fault::Step;
use crate::mark;

/// A sync is held back for the rest of a wave as long as the last one took, but at most this.
const PATIENCE: Duration = Duration::from_millis(2);

/// Tells the sync thread what is wanted. Shared with the writer.
#[derive(Debug)]
pub(crate) struct Syncer {
    interval: Option<Duration>,
    /// Highest position that anybody waits to be on the disk.
    wanted: AtomicU64,
    /// Waits announced since the last sync began.
    asked: AtomicU64,
    /// The thread holds a sync back until so many have asked; 0: it does not.
    enough: AtomicU64,
    /// Something was written since the last sync began.
    dirty: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stop: bool,
    /// When the thread looks whether to sync although nobody waits; `None`: nothing was written for a whole interval,
    /// whoever writes next sets it. So a thread that syncs often is not woken for each first write after a sync.
    due: Option<Instant>,
    wave: Wave,
}

/// What the last sync tells of the next one.
#[derive(Debug, Default)]
struct Wave {
    /// Waits that the last sync began with.
    carried: u64,
    /// Waits to be expected: those, and the ones that came while it ran.
    expected: u64,
    /// Until when to wait for them.
    until: Option<Instant>,
}

impl Syncer {
    pub(crate) fn new(interval: Option<Duration>) -> Self {
        Self {
            interval,
            wanted: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            enough: AtomicU64::new(0),
            dirty: AtomicBool::new(false),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Somebody waits for `position` to be on the disk.
    pub(crate) fn want(&self, position: u64) {
        let further = self.wanted.fetch_max(position, Ordering::SeqCst) < position;
        // Counted before `enough` is read, and the thread reads them in the other order: one of the two sees the other.
        let asked = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let ring = match self.enough.load(Ordering::SeqCst) {
            0 => further,
            enough => asked >= enough,
        };
        if ring {
            self.wake();
        }
    }

    /// The log was written; `synced` of it is on the disk.
    pub(crate) fn wrote(&self, synced: u64) {
        // A thread that gathers a wave has its own time to wake.
        let waited_for =
            self.wanted.load(Ordering::SeqCst) > synced && self.enough.load(Ordering::SeqCst) == 0;
        let first = !self.dirty.load(Ordering::SeqCst) && !self.dirty.swap(true, Ordering::SeqCst);
        if waited_for {
            self.wake();
        }
        let Some(interval) = self.interval.filter(|_| first) else {
            return;
        };
        let mut state = self.state.lock();
        if state.due.is_none() {
            state.due = Some(Instant::now() + interval);
            self.changed.notify_one();
        }
    }

    /// Lets the thread look again.
    pub(crate) fn wake(&self) {
        let _state = self.state.lock();
        self.changed.notify_one();
    }

    pub(crate) fn stop(&self) {
        self.state.lock().stop = true;
        self.changed.notify_one();
    }

    /// Waits until a sync is to be run; `false`: stop.
    fn wait(&self, log: &Log) -> bool {
        let mut state = self.state.lock();
        loop {
            if state.stop || log.failed() {
                return false;
            }
            let synced = log.synced();
            let waited_for = self.wanted.load(Ordering::SeqCst) > synced && log.written() > synced;
            let over = state.due.is_some_and(|due| Instant::now() >= due);
            let due = over && self.dirty.load(Ordering::SeqCst);
            if waited_for && !due && self.gather(&mut state) {
                continue;
            }
            if over {
                // Before another look at `dirty`: who makes it true from here on finds this and rings.
                state.due = None;
            }
            if waited_for || due {
                state.due = self.interval.map(|interval| Instant::now() + interval);
                state.wave.carried = self.asked.swap(0, Ordering::SeqCst);
                // Before the position to sync is read: a write after it makes the flag true again.
                self.dirty.store(false, Ordering::SeqCst);
                return true;
            }
            match state.due {
                Some(due) => drop(self.changed.wait_until(&mut state, due)),
                None => self.changed.wait(&mut state),
            }
        }
    }

    /// Waits for the rest of a wave; `false`: there is nothing to wait for, or no more time.
    fn gather(&self, state: &mut MutexGuard<'_, State>) -> bool {
        let expected = state.wave.expected;
        let Some(until) = state.wave.until.filter(|until| Instant::now() < *until) else {
            return false;
        };
        self.enough.store(expected, Ordering::SeqCst);
        let wait = self.asked.load(Ordering::SeqCst) < expected;
        if wait {
            self.changed.wait_until(state, until);
        }
        self.enough.store(0, Ordering::SeqCst);
        wait
    }

    /// A sync took `took` until now.
    fn ended(&self, took: Duration) {
        let wave = &mut self.state.lock().wave;
        wave.expected = wave.carried + self.asked.load(Ordering::SeqCst);
        wave.until = Some(Instant::now() + took.min(PATIENCE));
    }
}

/// The thread's life.
pub(crate) fn run(log: &Log) {
    while log.syncer.wait(log) {
        let began = Instant::now();
        if let Err(error) = sync(log) {
            log.fail("sync", &error);
        }
        log.syncer.ended(began.elapsed());
    }
}

/// Puts everything written so far on the disk.
pub(crate) fn sync(log: &Log) -> io::Result<()> {
    let _one = log.syncing.lock();
    let upto = log.written();
    let unsynced = log.files.unsynced();
    if upto <= log.synced() && !unsynced.dir_changed {
        return Ok(());
    }
    log.faults.check(Step::LogSync)?;
    for file in &unsynced.files {
        file.sync_data()?;
    }
    if unsynced.dir_changed {
        mark::sync_dir(&log.files.dir)?;
    }
    log.counters.syncs.fetch_add(1, Ordering::Relaxed);
    log.files.synced(upto);
    log.combiner.set_synced(upto);
    Ok(())
}
