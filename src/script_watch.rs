//! The script or function that runs on the node: since when, whether it wrote, and whether it shall end.
//!
//! Scripts hold all data shards, so there is one at a time. Nobody looks here who does not wait for it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

const IDLE: u8 = 0;
/// It has changed nothing.
const CLEAN: u8 = 1;
const WROTE: u8 = 2;
const KILLED: u8 = 3;

/// Words of the command of a function that are shown, and octets of each: they are copied while everybody waits.
const WORDS_MAX: usize = 128;
const WORD_MAX: usize = 1024;

/// Why a script is not ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unkilled {
    /// There is none.
    Idle,
    /// Half of it would remain.
    Wrote,
    /// It is a function, or a script: what is to be ended is the other.
    Other,
}

/// The function that runs, for people.
#[derive(Debug, Default, Clone)]
pub(crate) struct Running {
    pub(crate) name: String,
    /// The command that called it.
    pub(crate) command: Vec<Vec<u8>>,
}

/// What the script's own thread finds when it looks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    GoOn,
    End,
    /// The node stops and the script has written: only what is not in the log can be undone.
    Abandon,
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// See the module.
#[derive(Debug)]
pub struct ScriptWatch {
    epoch: Instant,
    /// Milliseconds after `epoch`, plus one; 0: no script runs.
    since: AtomicU64,
    state: AtomicU8,
    /// It is a function, which stands in `running`.
    is_function: AtomicBool,
    running: Mutex<Running>,
    /// Milliseconds after which others are not kept waiting; 0: they wait.
    threshold: AtomicU64,
    /// When the node's patience ends, as `since`; 0: it does not stop.
    stop_at: AtomicU64,
}

impl ScriptWatch {
    /// After `threshold` others are not kept waiting; 0: they wait.
    #[must_use]
    pub fn new(threshold: Duration) -> Self {
        Self {
            epoch: Instant::now(),
            since: AtomicU64::new(0),
            state: AtomicU8::new(IDLE),
            is_function: AtomicBool::new(false),
            running: Mutex::default(),
            threshold: AtomicU64::new(milliseconds(threshold)),
            stop_at: AtomicU64::new(0),
        }
    }

    fn clock(&self) -> u64 {
        milliseconds(self.epoch.elapsed()).saturating_add(1)
    }

    pub(crate) fn set_threshold(&self, milliseconds: u64) {
        self.threshold.store(milliseconds, Ordering::Relaxed);
    }

    pub(crate) fn threshold(&self) -> u64 {
        self.threshold.load(Ordering::Relaxed)
    }

    /// A script begins: its thread holds the locks.
    pub(crate) fn begin(&self) {
        self.state.store(CLEAN, Ordering::Relaxed);
        self.since.store(self.clock(), Ordering::Release);
    }

    /// The same for a function, called by this command. What others see of it is kept for as long as it runs.
    pub(crate) fn begin_function<'a>(&self, name: &str, command: impl Iterator<Item = &'a [u8]>) {
        let shown = |word: &[u8]| word.get(..WORD_MAX).unwrap_or(word).to_vec();
        *self.running.lock() = Running {
            name: name.to_owned(),
            command: command.take(WORDS_MAX).map(shown).collect(),
        };
        self.is_function.store(true, Ordering::Relaxed);
        self.begin();
    }

    pub(crate) fn end(&self) {
        self.since.store(0, Ordering::Release);
        self.state.store(IDLE, Ordering::Relaxed);
        if self.is_function.swap(false, Ordering::Relaxed) {
            *self.running.lock() = Running::default();
        }
    }

    /// What runs is a function.
    pub(crate) fn is_function(&self) -> bool {
        self.is_function.load(Ordering::Relaxed)
    }

    /// The function that runs, and for how many milliseconds it has.
    pub(crate) fn function(&self) -> Option<(Running, u64)> {
        let since = self.since.load(Ordering::Acquire);
        if since == 0 || !self.is_function() {
            return None;
        }
        let running = self.running.lock().clone();
        Some((running, self.clock().saturating_sub(since)))
    }

    /// It is about to change something. False: it was killed, and must not.
    pub(crate) fn write(&self) -> bool {
        let was = self
            .state
            .compare_exchange(CLEAN, WROTE, Ordering::AcqRel, Ordering::Acquire);
        was != Err(KILLED)
    }

    /// Others need not wait for it any longer.
    pub(crate) fn is_busy(&self) -> bool {
        let since = self.since.load(Ordering::Acquire);
        if since == 0 {
            return false;
        }
        let threshold = self.threshold();
        threshold != 0 && self.clock().saturating_sub(since) >= threshold
    }

    /// `SCRIPT KILL`, or `FUNCTION KILL` for a function.
    pub(crate) fn kill(&self, function: bool) -> Result<(), Unkilled> {
        match self.state.load(Ordering::Acquire) {
            CLEAN | KILLED if self.is_function() != function => Err(Unkilled::Other),
            _ => self.kill_any(),
        }
    }

    fn kill_any(&self) -> Result<(), Unkilled> {
        let was = self
            .state
            .compare_exchange(CLEAN, KILLED, Ordering::AcqRel, Ordering::Acquire);
        match was {
            Ok(_) | Err(KILLED) => Ok(()),
            Err(WROTE) => Err(Unkilled::Wrote),
            Err(_) => Err(Unkilled::Idle),
        }
    }

    /// The node stops: scripts that wrote nothing end now, others have this long.
    pub(crate) fn stop(&self, grace: Duration) {
        let stop_at = self.clock().saturating_add(milliseconds(grace));
        self.stop_at.store(stop_at, Ordering::Release);
    }

    /// From the script's own thread, now and then.
    pub(crate) fn look(&self) -> Verdict {
        let stop_at = self.stop_at.load(Ordering::Acquire);
        if stop_at != 0 && self.kill_any() == Err(Unkilled::Wrote) && self.clock() >= stop_at {
            return Verdict::Abandon;
        }
        if self.state.load(Ordering::Acquire) == KILLED {
            Verdict::End
        } else {
            Verdict::GoOn
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_script_that_wrote_nothing_can_be_killed() {
        let watch = ScriptWatch::new(Duration::from_secs(5));
        assert_eq!(watch.kill(false), Err(Unkilled::Idle));
        watch.begin();
        assert_eq!(watch.look(), Verdict::GoOn);
        assert_eq!(watch.kill(false), Ok(()));
        assert_eq!(watch.look(), Verdict::End);
        assert!(!watch.write(), "too late");
        watch.end();
        watch.begin();
        assert!(watch.write() && watch.write());
        assert_eq!(watch.kill(false), Err(Unkilled::Wrote));
        assert_eq!(watch.look(), Verdict::GoOn);
        watch.stop(Duration::ZERO);
        assert_eq!(watch.look(), Verdict::Abandon);
        watch.end();
        watch.begin();
        assert_eq!(watch.look(), Verdict::End);
    }

    #[test]
    fn a_function_is_shown_and_ended_as_one() {
        let watch = ScriptWatch::new(Duration::from_secs(5));
        assert!(watch.function().is_none());
        watch.begin_function("f", [b"FCALL".as_slice(), b"f", b"0"].into_iter());
        let (running, _) = watch.function().expect("runs");
        assert_eq!(
            (running.name.as_str(), running.command.len()),
            ("f", 3),
            "{running:?}"
        );
        assert_eq!(watch.kill(false), Err(Unkilled::Other));
        assert_eq!(watch.look(), Verdict::GoOn);
        assert_eq!(watch.kill(true), Ok(()));
        assert_eq!(watch.look(), Verdict::End);
        watch.end();
        assert!(watch.function().is_none());
        watch.begin();
        assert!(watch.function().is_none());
        assert_eq!(watch.kill(true), Err(Unkilled::Other));
        assert_eq!(watch.kill(false), Ok(()));
        watch.end();
    }

    #[test]
    fn of_a_long_command_the_beginning_is_shown() {
        let watch = ScriptWatch::new(Duration::from_secs(5));
        let long = vec![b'x'; WORD_MAX + 1];
        watch.begin_function("f", std::iter::repeat_n(&long[..], WORDS_MAX + 1));
        let (running, _) = watch.function().expect("runs");
        assert_eq!(running.command.len(), WORDS_MAX);
        assert!(running.command.iter().all(|word| word.len() == WORD_MAX));
    }

    #[test]
    fn busy_only_after_the_threshold() {
        let watch = ScriptWatch::new(Duration::from_secs(5));
        assert!(!watch.is_busy());
        watch.begin();
        assert!(!watch.is_busy());
        watch.set_threshold(1);
        while !watch.is_busy() {
            std::thread::yield_now();
        }
        watch.set_threshold(0);
        assert!(!watch.is_busy());
        watch.end();
    }
}
