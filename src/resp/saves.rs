//! `SAVE`, `BGSAVE` and `BGREWRITEAOF`: Redis' words for a fold, which brings into the tables what only the log has.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use broker::{Durability, Need};
use storage::{Engine, Outcome};

/// How the folds that clients asked for went.
#[derive(Debug, Default)]
pub(crate) struct Saves {
    /// End of the last one that went well, in seconds since 1970; 0: there was none.
    pub(crate) last_s: AtomicU64,
    pub(crate) count: AtomicU64,
    /// How long the last one took, in seconds; negative: there was none.
    pub(crate) took_s: AtomicI64,
    pub(crate) failed: AtomicBool,
    pub(crate) running: AtomicBool,
    /// When the one that runs began, in ms since 1970.
    pub(crate) began_ms: AtomicU64,
}

impl Saves {
    /// End of the last one, in seconds since 1970; as Redis: that of the start when there was none.
    pub(crate) fn last_s(&self, started_ms: u64) -> u64 {
        match self.last_s.load(Relaxed) {
            0 => started_ms / 1000,
            last => last,
        }
    }

    /// Makes sure that only one runs. False: one does.
    pub(crate) fn begin(&self, now_ms: u64) -> bool {
        let first = !self.running.swap(true, Relaxed);
        if first {
            self.began_ms.store(now_ms, Relaxed);
        }
        first
    }

    /// Does it, on the thread that calls, and notes how it went. [`Saves::begin`] was called.
    ///
    /// # Errors
    /// Why the tables do not have everything.
    pub(crate) fn run(&self, engine: &Engine, now_s: impl Fn() -> u64) -> Result<(), String> {
        let began = Instant::now();
        let done = save(engine);
        if done.is_ok() {
            self.last_s.store(now_s(), Relaxed);
            self.count.fetch_add(1, Relaxed);
        }
        self.failed.store(done.is_err(), Relaxed);
        let took = i64::try_from(began.elapsed().as_secs()).unwrap_or(i64::MAX);
        self.took_s.store(took, Relaxed);
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
