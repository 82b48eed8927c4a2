//! `SAVE`, `BGSAVE` and `BGREWRITEAOF`: Redis' words for a fold, which brings into the tables what only the log has.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use broker::{Durability, Need};
use storage::{Engine, Outcome};

use crate::node::Node;

/// How the folds that clients asked for went.
#[derive(Debug, Default)]
pub(crate) struct Saves {
    /// End of the last one that went well, in seconds since 1970; 0: there was none.
    pub(crate) last_s: AtomicU64,
    pub(crate) count: AtomicU64,
    /// How long the last one took, in seconds.
    took_s: AtomicU64,
    pub(crate) failed: AtomicBool,
    pub(crate) running: AtomicBool,
    /// When the one that runs began, in ms since 1970.
    began_ms: AtomicU64,
}

impl Saves {
    /// End of the last one, in seconds since 1970; as Redis: that of the start when there was none.
    pub(crate) fn last_s(&self, started_ms: u64) -> u64 {
        match self.last_s.load(Relaxed) {
            0 => started_ms / 1000,
            last => last,
        }
    }

    /// How long the last one took, in seconds; -1: none went well.
    pub(crate) fn took_s(&self) -> i64 {
        match self.count.load(Relaxed) {
            0 => -1,
            _ => i64::try_from(self.took_s.load(Relaxed)).unwrap_or(i64::MAX),
        }
    }

    /// How long one has been running, in seconds; -1: none runs.
    pub(crate) fn running_s(&self, now_ms: u64) -> i64 {
        if !self.running.load(Relaxed) {
            return -1;
        }
        let ms = now_ms.saturating_sub(self.began_ms.load(Relaxed));
        i64::try_from(ms / 1000).unwrap_or(i64::MAX)
    }

    /// Makes sure that only one runs. False: one does.
    pub(crate) fn begin(&self, now_ms: u64) -> bool {
        let first = !self.running.swap(true, Relaxed);
        if first {
            self.began_ms.store(now_ms, Relaxed);
        }
        first
    }

    /// What [`Saves::begin`] began will not run after all.
    pub(crate) fn give_up(&self) {
        self.running.store(false, Relaxed);
    }

    /// Does it, on the thread that calls, and notes how it went. [`Saves::begin`] was called.
    ///
    /// # Errors
    /// Why the tables do not have everything.
    pub(crate) fn run(&self, node: &Node) -> Result<(), String> {
        let began = Instant::now();
        let done = save(&node.broker.engine);
        if done.is_ok() {
            self.last_s.store(node.clock.now_ms() / 1000, Relaxed);
            self.count.fetch_add(1, Relaxed);
        }
        self.failed.store(done.is_err(), Relaxed);
        self.took_s.store(began.elapsed().as_secs(), Relaxed);
        self.running.store(false, Relaxed);
        done
    }
}

fn save(engine: &Engine) -> Result<(), String> {
    let need = Need::of(engine.appended(), Durability::Sync);
    match engine.wait(need) {
        Outcome::Durable => {}
        _ => return Err("the log cannot be written".into()),
    }
    engine.fold_now().map_err(|error| error.to_string())
}
