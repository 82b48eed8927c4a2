//! Group commit by flat combining: whoever finds no write in progress writes for all.
//!
//! ```text
//! append   lock buffer, memcpy, unlock                     never waits for the disk
//! flush    writing was false? write groups until none is left; writing = false; look again
//! ```
//! The last look is what nobody may leave out: what arrived while `writing` was still set was left to us by a flush
//! that returned at once. Both sides use `SeqCst`: append stores `appended` and then reads `writing`; the writer stores
//! `writing` and then reads `appended`.
//!
//! Compiled twice: with real primitives, and with shuttle's in the tests (`super::sync`).

use std::collections::VecDeque;
use std::io;
use std::task::Waker;

use super::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use super::waiters::Waiters;
use crate::log::group::Group;
use crate::{Need, Outcome};

/// A group that would grow beyond this is closed and a new one begun, so that no write is without bound.
const GROUP_MAX: u64 = 8 << 20;

/// Where groups go.
pub(crate) trait Sink {
    /// Writes all of `group` to where a killed process does not lose it.
    fn write(&mut self, group: &mut Group, synced: u64) -> io::Result<()>;
    /// Called after the new position is public; the log is on the disk up to `synced`.
    fn wrote(&mut self, synced: u64);
}

#[derive(Debug)]
pub(crate) struct Combiner<S> {
    buffer: Mutex<Buffer>,
    writing: AtomicBool,
    sink: Mutex<S>,
    appended: AtomicU64,
    written: AtomicU64,
    synced: AtomicU64,
    failed: AtomicBool,
    written_waiters: Waiters,
    synced_waiters: Waiters,
}

#[derive(Debug)]
struct Buffer {
    active: Group,
    full: VecDeque<Group>,
    spare: Option<Group>,
}

impl<S: Sink> Combiner<S> {
    /// Begins at position `start`; everything before it is on the disk.
    pub(crate) fn new(start: u64, sink: S) -> Self {
        Self {
            buffer: Mutex::new(Buffer {
                active: Group::new(start),
                full: VecDeque::new(),
                spare: Some(Group::new(start)),
            }),
            writing: AtomicBool::new(false),
            sink: Mutex::new(sink),
            appended: AtomicU64::new(start),
            written: AtomicU64::new(start),
            synced: AtomicU64::new(start),
            failed: AtomicBool::new(false),
            written_waiters: Waiters::new(),
            synced_waiters: Waiters::new(),
        }
    }

    /// Appends one record of `size` bytes, which `fill` puts into the group. Returns its end.
    #[inline]
    pub(crate) fn append(&self, size: usize, fill: impl FnOnce(&mut Group)) -> u64 {
        let mut buffer = self.buffer.lock();
        if buffer.active.size() + size as u64 > GROUP_MAX && !buffer.active.is_empty() {
            buffer.close_active();
        }
        fill(&mut buffer.active);
        let end = buffer.active.end();
        self.appended.store(end, Ordering::SeqCst);
        end
    }

    #[inline]
    pub(crate) fn appended(&self) -> u64 {
        self.appended.load(Ordering::SeqCst)
    }

    #[inline]
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }

    #[inline]
    pub(crate) fn synced(&self) -> u64 {
        self.synced.load(Ordering::SeqCst)
    }

    #[inline]
    pub(crate) fn failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    #[inline]
    pub(crate) fn is_durable(&self, need: Need) -> bool {
        need.written.0 <= self.written() && need.synced.0 <= self.synced()
    }

    /// Writes what was appended, unless somebody is writing: then that thread will. Returns the error of its own write.
    pub(crate) fn flush(&self) -> io::Result<()> {
        while self.written() < self.appended() && !self.failed() {
            if self.writing.swap(true, Ordering::SeqCst) {
                return Ok(());
            }
            let result = self.write_all();
            self.writing.store(false, Ordering::SeqCst);
            result?;
        }
        Ok(())
    }

    /// The log is on the disk up to `position`.
    pub(crate) fn set_synced(&self, position: u64) {
        self.synced.fetch_max(position, Ordering::SeqCst);
        self.synced_waiters.wake(position);
    }

    /// Nothing will become durable any more: wakes everybody.
    pub(crate) fn fail(&self) {
        self.failed.store(true, Ordering::SeqCst);
        self.written_waiters.wake(u64::MAX - 1);
        self.synced_waiters.wake(u64::MAX - 1);
    }

    /// `true`: settled (durable or failed), `waker` is not kept. `false`: it is woken when `need` may be settled.
    pub(crate) fn notify(&self, need: Need, waker: &Waker) -> bool {
        // A need that is met in `written` stays met, so two queues one after the other do.
        let settled = |met: bool| met || self.failed();
        let wait = |waiters: &Waiters, position: u64, now: &dyn Fn() -> u64| {
            settled(position <= now())
                || waiters.register(position, waker, || settled(position <= now()))
        };
        if need.synced >= need.written {
            return wait(&self.synced_waiters, need.synced.0, &|| self.synced());
        }
        if need.synced.0 > self.synced() {
            // Rare: different objects at different classes. Woken at each step; the caller asks again.
            return wait(&self.synced_waiters, need.synced.0, &|| self.synced())
                && wait(&self.written_waiters, need.written.0, &|| self.written());
        }
        wait(&self.written_waiters, need.written.0, &|| self.written())
    }

    /// What is known of `need` once it is settled.
    pub(crate) fn outcome(&self, need: Need) -> Outcome {
        if self.is_durable(need) {
            Outcome::Durable
        } else {
            Outcome::Unknown
        }
    }

    fn write_all(&self) -> io::Result<()> {
        let mut sink = self.sink.lock();
        let mut done: Option<Group> = None;
        loop {
            let next = self.buffer.lock().next(done.take());
            let Some(mut group) = next else { return Ok(()) };
            if let Err(e) = sink.write(&mut group, self.synced()) {
                self.fail();
                return Err(e);
            }
            let end = group.end();
            self.written.store(end, Ordering::SeqCst);
            self.written_waiters.wake(end);
            sink.wrote(self.synced());
            done = Some(group);
        }
    }

    /// Runs `f` on the sink while nobody writes.
    pub(crate) fn with_sink<R>(&self, f: impl FnOnce(&mut S) -> R) -> R {
        f(&mut self.sink.lock())
    }
}

impl Buffer {
    /// Takes back a written group, and hands out the next one to write.
    fn next(&mut self, done: Option<Group>) -> Option<Group> {
        if let Some(mut done) = done {
            done.reset(0);
            self.spare.get_or_insert(done);
        }
        if let Some(group) = self.full.pop_front() {
            return Some(group);
        }
        if self.active.is_empty() {
            return None;
        }
        Some(self.replace_active())
    }

    fn close_active(&mut self) {
        let full = self.replace_active();
        self.full.push_back(full);
    }

    fn replace_active(&mut self) -> Group {
        let end = self.active.end();
        let next = match self.spare.take() {
            Some(mut spare) => {
                spare.reset(end);
                spare
            }
            None => Group::new(end),
        };
        std::mem::replace(&mut self.active, next)
    }
}
