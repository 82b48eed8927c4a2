//! The thread that runs `fdatasync`: at once when somebody waits for it, else each interval if something was written.
//! Appends and writes never wait for it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Log;
use crate::fault::Step;
use crate::mark;

/// Tells the sync thread what is wanted. Shared with the writer.
#[derive(Debug)]
pub(crate) struct Syncer {
    interval: Option<Duration>,
    /// Highest position that anybody waits to be on the disk.
    wanted: AtomicU64,
    /// Something was written since the last sync began.
    dirty: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stop: bool,
    /// When the thread must sync although nobody waits.
    due: Option<Instant>,
}

impl Syncer {
    pub(crate) fn new(interval: Option<Duration>) -> Self {
        Self {
            interval,
            wanted: AtomicU64::new(0),
            dirty: AtomicBool::new(false),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Somebody waits for `position` to be on the disk.
    pub(crate) fn want(&self, position: u64) {
        if self.wanted.fetch_max(position, Ordering::SeqCst) < position {
            let _state = self.state.lock();
            self.changed.notify_one();
        }
    }

    /// The log was written; `synced` of it is on the disk.
    pub(crate) fn wrote(&self, synced: u64) {
        let waited_for = self.wanted.load(Ordering::SeqCst) > synced;
        let first = !self.dirty.load(Ordering::SeqCst) && !self.dirty.swap(true, Ordering::SeqCst);
        if !(waited_for || first && self.interval.is_some()) {
            return;
        }
        let mut state = self.state.lock();
        if let Some(interval) = self.interval
            && state.due.is_none()
        {
            state.due = Some(Instant::now() + interval);
        }
        self.changed.notify_one();
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
            let due = state.due.is_some_and(|due| Instant::now() >= due);
            if waited_for || due {
                state.due = None;
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
}

/// The thread's life.
pub(crate) fn run(log: &Log) {
    while log.syncer.wait(log) {
        if let Err(error) = sync(log) {
            log.fail("sync", &error);
        }
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
