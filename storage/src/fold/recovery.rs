//! The fold of a start, before anybody is served.
//!
//! ```text
//! plan 1 │ plan 2       │ plan 3       │
//!        │ write 1 (a)  │ write 2 (a)  │ write 3 (a)
//!        │         (b)  │         (b)  │         (b)
//!        │              │ commit 1     │ commit 2
//! ```
//! Sorting, writing and waiting for the disk are done beside each other: while a window is planned, two threads write the one before
//! into tables that nobody sees, a half each by key, and the tables of the one before that get on the disk. They are shown window by window, a
//! window's upper half with the position last. A crash in between leaves the lower half; the window is then folded again, and comes
//! to the same.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, ScopedJoinHandle};

use parking_lot::Mutex;

use super::{Folder, Folding, Half, Window};
use crate::Error;
use crate::fault::Step;

/// A window being written, and the one before it being committed.
const AT_ONCE: usize = 2;

impl Folder {
    /// Folds what the log, which is on the disk, holds up to `goal`. Compaction waits until the end. `redo`: a window that was begun;
    /// exactly that comes first.
    pub(crate) fn recover(&self, goal: u64, redo: Option<u64>) -> Result<(), Error> {
        let mut held = self.hold();
        let folding = Mutex::new(&mut *held);
        let start = self.position();
        thread::scope(|scope| {
            // No buffer: one window is planned ahead, not two.
            let (planned, windows) = sync_channel(0);
            scope.spawn(move || {
                let mut start = start;
                let mut redo = redo.filter(|end| *end > start);
                while start < goal || redo.is_some() {
                    let exact = redo.take();
                    let window = self.plan(start, exact.unwrap_or(goal), exact.is_some());
                    start = window.as_ref().map_or(u64::MAX, |window| window.end);
                    // It may have to wait, and to look again costs little.
                    if let Ok(window) = &window {
                        window.plan.release();
                    }
                    if planned.send(window).is_err() {
                        return;
                    }
                }
            });
            let mut begun = VecDeque::new();
            let mut committed = Signal::given();
            for window in windows {
                let window = window?;
                if begun.len() == AT_ONCE {
                    begun.pop_front().map_or(Ok(()), joined)?;
                }
                let (writes, mut written) = signal();
                let (commits, committing) = signal();
                let before = std::mem::replace(&mut committed, committing);
                let folding = &folding;
                begun.push_back(scope.spawn(move || {
                    if self.recover_window(folding, &window, before, writes)? {
                        commits.send(()).ok();
                    }
                    Ok(())
                }));
                written.comes();
            }
            begun.into_iter().try_for_each(joined)
        })?;
        if self.position() > start {
            self.tables.drop_old_files(true)?;
        }
        Ok(())
    }

    /// `before`: the window before is in the tables. False: it never is, so this one must not be.
    fn recover_window(
        &self,
        folding: &Mutex<&mut Folding>,
        window: &Window,
        mut before: Signal,
        writes: SyncSender<()>,
    ) -> Result<bool, Error> {
        let plan = &window.plan;
        let whole = self.is_small(plan) || plan.adds();
        if (whole || plan.asks()) && !before.comes() {
            return Ok(false);
        }
        if whole {
            self.install(&mut folding.lock(), window, true)?;
            return Ok(true);
        }
        let compact = self.when_to_compact(true, AT_ONCE - 1);
        let upper = thread::scope(|scope| {
            let (wrote, mut lower_written) = signal();
            let (begins, mut begun) = signal();
            let lower = scope.spawn(move || {
                let lower = self.write(plan, Half::Lower, compact)?;
                wrote.send(()).ok();
                if begun.comes() {
                    let count = lower.bodies.finish()? + lower.rows.finish()?;
                    self.folded_rows.fetch_add(count, Ordering::Relaxed);
                }
                Ok(())
            });
            let upper = self.write(plan, Half::Upper, compact)?;
            if lower_written.comes() {
                plan.release();
                writes.send(()).ok();
                if !before.comes() {
                    return Ok::<_, Error>(None);
                }
                self.at(Step::FoldSynced)?;
                self.begin(window)?;
                begins.send(()).ok();
            }
            joined(lower)?;
            Ok(Some(upper))
        })?;
        let Some(upper) = upper else {
            return Ok(false);
        };
        self.at(Step::FoldHalf)?;
        self.commit(&mut folding.lock(), window, upper, true)?;
        Ok(true)
    }
}

/// Given once by another thread, or never, if that ends without.
struct Signal(Option<Receiver<()>>);

fn signal() -> (SyncSender<()>, Signal) {
    let (give, signal) = sync_channel(1);
    (give, Signal(Some(signal)))
}

impl Signal {
    fn given() -> Self {
        Self(None)
    }

    /// Waits. False: it was never given.
    fn comes(&mut self) -> bool {
        self.0.take().is_none_or(|signal| signal.recv().is_ok())
    }
}

fn joined(thread: ScopedJoinHandle<'_, Result<(), Error>>) -> Result<(), Error> {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
