//! The one measure of pressure: how near memory, log, tables and disk are to what they can bear, and what writers hear of it.
//!
//! ```text
//!  job "governor", each 100 to 500 ms ─▶ Reading ─▶ a level per cause ─▶ one word (atomic) ◀─ one relaxed load per command
//!                                                           └─▶ a change: a log line, and a ring for every connection that waits
//!  word:  memory or disk at `stop` ─▶ RESP -OOM / -MISCONF · AMQP connection.blocked · Kafka holds Produce requests
//!         log, tables or disk at `slow` ─▶ the brake (net/brake.rs) paces all writers; Kafka tells it as throttle_time_ms
//! ```
//! Every cause is put on the same scale, thousandths of what it can bear: 1000 is the limit. A level is left only when the
//! reading has gone down well below where it began, so a value at the edge does not flap. The length of a backlog is no
//! cause: queues and topics are on the disk, and only the disk limits them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use broker::Wake;
use parking_lot::Mutex;

use crate::config::Face;
use crate::net::ConnInfo;
use crate::node::Node;
use crate::telemetry::metrics::{Encoder, Kind};

/// What a reading is compared with: the limit.
const LIMIT: u64 = 1000;
/// How far below the start of a level a reading must fall for the level to end.
const GAP: u64 = 50;

/// How much is asked of writers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    #[default]
    Fine,
    /// The server helps itself: it folds, evicts, lets go of old log, and paces writers.
    Slow,
    /// The limit is reached.
    Stop,
}

impl Level {
    const ALL: [Self; 3] = [Self::Fine, Self::Slow, Self::Stop];

    /// The name in logs, metrics and `INFO`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Slow => "slow",
            Self::Stop => "stop",
        }
    }

    /// The level of a reading; `slow`: where that level begins.
    fn of(reading: u64, slow: u64) -> Self {
        if reading >= LIMIT {
            Self::Stop
        } else if reading >= slow {
            Self::Slow
        } else {
            Self::Fine
        }
    }

    /// The level after this one: up at once, down only when the reading has gone down by [`GAP`].
    fn next(self, reading: u64, slow: u64) -> Self {
        self.min(Self::of(reading.saturating_add(GAP), slow))
            .max(Self::of(reading, slow))
    }
}

/// What there may be too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Memory of the process.
    Memory,
    /// Log that the tables do not have yet.
    Log,
    /// Tables that wait for compaction.
    Tables,
    /// Free space on the disk.
    Disk,
}

impl Cause {
    const ALL: [Self; 4] = [Self::Memory, Self::Log, Self::Tables, Self::Disk];

    /// The name in logs, metrics and `INFO`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Log => "log",
            Self::Tables => "tables",
            Self::Disk => "disk",
        }
    }

    /// Where [`Level::Slow`] begins.
    const fn slow(self) -> u64 {
        match self {
            // A tenth is what eviction and a fold get to act in.
            Self::Memory => 900,
            // Two of four windows: where the engine begins to pace (Engine::pace), and twice the free disk that is the limit.
            Self::Log | Self::Disk => 500,
            // Eight of twelve runs.
            Self::Tables => 667,
        }
    }
}

/// What one look found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// Bytes that the process has allocated.
    pub allocated_bytes: u64,
    /// Bytes that it may allocate.
    pub allocated_limit_bytes: u64,
    /// Log that the tables do not have, in thousandths of what stops writers.
    pub log: u64,
    /// Runs in level 0, in thousandths of where the fold waits.
    pub tables: u64,
    /// Free bytes of the disk; `None`: it does not tell.
    pub disk_free_bytes: Option<u64>,
    /// Free bytes below which writes stop; 0: never.
    pub disk_limit_bytes: u64,
    /// The log has taken of what is kept for a full disk.
    pub on_reserve: bool,
}

impl Reading {
    fn of(&self, cause: Cause) -> u64 {
        match cause {
            Cause::Memory => share(self.allocated_bytes, self.allocated_limit_bytes),
            Cause::Log => self.log,
            Cause::Tables => self.tables,
            Cause::Disk => match self.disk_free_bytes {
                Some(free) if self.disk_limit_bytes > 0 => share(self.disk_limit_bytes, free),
                _ => 0,
            },
        }
    }
}

/// `part` in thousandths of `whole`.
pub fn share(part: u64, whole: u64) -> u64 {
    /// More says no more.
    const MOST: u64 = 100 * LIMIT;
    let share = u128::from(part) * u128::from(LIMIT) / u128::from(whole.max(1));
    u64::try_from(share).unwrap_or(MOST).min(MOST)
}

/// Why writes that need room cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Memory is used up and could not be freed.
    pub memory: bool,
    /// The disk is nearly full.
    pub disk: bool,
    /// The disk is full, and what was kept for deletions is half used up.
    pub on_reserve: bool,
}

const MEMORY: u8 = 1;
const DISK: u8 = 1 << 1;
const RESERVE: u8 = 1 << 2;
const PACED: u8 = 1 << 3;

/// The word that every command reads, on a cache line that nobody writes to as long as nothing changes.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Word(AtomicU8);

#[derive(Debug, Default)]
struct State {
    levels: [Level; Cause::ALL.len()],
    reading: Reading,
    /// Time spent, by cause and level.
    spent: [[Duration; Level::ALL.len()]; Cause::ALL.len()],
}

/// See the module.
#[derive(Default)]
pub struct Governor {
    word: Word,
    /// Bytes to give back before memory is fine.
    squeeze: AtomicU64,
    /// Bytes of log that the disk allows in a second; 0: any number.
    pace: AtomicU64,
    state: Mutex<State>,
    /// Connections that wait until writes are taken again.
    waiting: Mutex<HashMap<u64, Arc<dyn Wake>>>,
}

impl fmt::Debug for Governor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Governor")
            .field("word", &self.word)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Governor {
    /// Writes that need room are not taken now.
    #[inline]
    pub fn stops(&self) -> bool {
        self.word.0.load(Relaxed) & (MEMORY | DISK) != 0
    }

    /// Writers are paced: the log or the tables are behind, or the disk fills up.
    #[inline]
    pub fn paces(&self) -> bool {
        self.word.0.load(Relaxed) & PACED != 0
    }

    /// Why writes are not taken; `None`: they are.
    pub fn stop(&self) -> Option<Stop> {
        let word = self.word.0.load(Relaxed);
        (word & (MEMORY | DISK) != 0).then_some(Stop {
            memory: word & MEMORY != 0,
            disk: word & DISK != 0,
            on_reserve: word & RESERVE != 0,
        })
    }

    /// The log lives on what is kept for deletions: whatever can wait must not write.
    pub fn is_on_reserve(&self) -> bool {
        self.word.0.load(Relaxed) & RESERVE != 0
    }

    /// No cause is at any level.
    pub fn is_calm(&self) -> bool {
        self.state
            .lock()
            .levels
            .iter()
            .all(|level| *level == Level::Fine)
    }

    /// Bytes of memory that are to be given back, by whoever can.
    pub fn squeeze(&self) -> u64 {
        self.squeeze.load(Relaxed)
    }

    /// How fast the log may grow, so that the disk does not fill up before it is looked at again; bytes per second.
    pub fn pace(&self) -> u64 {
        match self.pace.load(Relaxed) {
            0 => u64::MAX,
            pace => pace,
        }
    }

    /// The level of each cause, and what was seen last.
    pub fn levels(&self) -> ([(Cause, Level); Cause::ALL.len()], Reading) {
        let state = self.state.lock();
        let mut levels = Cause::ALL.map(|cause| (cause, Level::Fine));
        for (named, level) in levels.iter_mut().zip(state.levels) {
            named.1 = level;
        }
        (levels, state.reading)
    }

    /// Holds the connection of a publisher until writes are taken again; it is rung then. `None`: there is no reason to.
    pub fn hold(node: &Arc<Node>, face: Face, connection: &ConnInfo) -> Option<Held> {
        if !node.governor.wait(connection.id, connection.handle.wake()) {
            return None;
        }
        node.metrics.held_total.of(face).inc();
        node.metrics.held.of(face).add(1);
        Some(Held {
            node: Arc::clone(node),
            face,
            connection: connection.id,
            wake: connection.handle.wake(),
        })
    }

    /// `wake` is rung once when writes are taken again. False: they are already.
    fn wait(&self, connection: u64, wake: Arc<dyn Wake>) -> bool {
        let mut waiting = self.waiting.lock();
        // Under the lock that the change is told under, so that it is not missed.
        let stops = self.stops();
        if stops {
            waiting.insert(connection, wake);
        }
        stops
    }

    /// The connection does not wait any more.
    fn forget(&self, connection: u64) {
        self.waiting.lock().remove(&connection);
    }

    /// Takes note of what was seen `after` the last time, and gives the level of each cause that has changed.
    pub fn note(&self, reading: Reading, after: Duration) -> Vec<(Cause, Level, u64)> {
        let mut changed = Vec::new();
        let mut state = self.state.lock();
        let State { levels, spent, .. } = &mut *state;
        let mut word = 0;
        let mut disk = Level::Fine;
        for ((cause, level), spent) in Cause::ALL.into_iter().zip(levels).zip(spent) {
            let share = reading.of(cause);
            for (spent, of) in spent.iter_mut().zip(Level::ALL) {
                if of == *level {
                    *spent += after;
                }
            }
            let next = level.next(share, cause.slow());
            if next != *level {
                *level = next;
                changed.push((cause, next, share));
            }
            if cause == Cause::Disk {
                disk = next;
            }
            word |= match (cause, next) {
                (Cause::Memory, Level::Stop) => MEMORY,
                (Cause::Disk, Level::Stop) if reading.on_reserve => DISK | RESERVE | PACED,
                (Cause::Disk, Level::Stop) => DISK | PACED,
                (Cause::Log | Cause::Tables | Cause::Disk, Level::Slow | Level::Stop) => PACED,
                _ => 0,
            };
        }
        state.reading = reading;
        drop(state);
        let wanted = reading.allocated_limit_bytes / LIMIT * (Cause::Memory.slow() - GAP);
        let squeeze = if reading.of(Cause::Memory) >= Cause::Memory.slow() {
            reading.allocated_bytes.saturating_sub(wanted)
        } else {
            0
        };
        self.squeeze.store(squeeze, Relaxed);
        // What is left above the limit lasts for a second at least, which is ten looks; less and less, until writes stop.
        let pace = match (reading.disk_free_bytes, disk) {
            (Some(free), Level::Slow | Level::Stop) => {
                free.saturating_sub(reading.disk_limit_bytes).max(1)
            }
            _ => 0,
        };
        self.pace.store(pace, Relaxed);
        self.word.0.store(word, Relaxed);
        if word & (MEMORY | DISK) == 0 {
            for (_, wake) in self.waiting.lock().drain() {
                wake.wake();
            }
        }
        changed
    }

    /// Writes the families.
    pub fn collect(&self, out: &mut Encoder) {
        let (levels, reading) = self.levels();
        let spent = self.state.lock().spent;
        let help = "How near each cause is to its limit, which is 1.";
        let mut pressure = out.family("flowmesh_pressure_ratio", Kind::Gauge, help);
        for (cause, _) in levels {
            let ratio = reading.of(cause) as f64 / LIMIT as f64;
            pressure.sample(&[("cause", cause.name())], ratio);
        }
        let help = "Level of each cause of pressure: 0 fine, 1 writers are slowed, 2 writes that need room are refused or held.";
        let mut level_of = out.family("flowmesh_pressure_level", Kind::Gauge, help);
        for (cause, level) in levels {
            level_of.sample(&[("cause", cause.name())], level as u8);
        }
        let help = "Time that each cause of pressure was at each level.";
        let mut seconds = out.family("flowmesh_pressure_seconds_total", Kind::Counter, help);
        for (cause, by_level) in Cause::ALL.into_iter().zip(spent) {
            for (level, spent) in Level::ALL.into_iter().zip(by_level) {
                let labels = [("cause", cause.name()), ("level", level.name())];
                seconds.sample(&labels, spent.as_secs_f64());
            }
        }
        for (name, help, value) in [
            (
                "flowmesh_allocated_bytes",
                "Memory that the process has allocated.",
                Some(reading.allocated_bytes),
            ),
            (
                "flowmesh_allocated_limit_bytes",
                "Allocated memory at which writes that need room are refused or held.",
                Some(reading.allocated_limit_bytes),
            ),
            (
                "flowmesh_disk_free_bytes",
                "Free space of the data directory's file system.",
                reading.disk_free_bytes,
            ),
            (
                "flowmesh_disk_free_limit_bytes",
                "Free space below which writes that need room are refused or held.",
                Some(reading.disk_limit_bytes),
            ),
        ] {
            if let Some(value) = value {
                out.family(name, Kind::Gauge, help).sample(&[], value);
            }
        }
    }
}

/// A publisher's connection that is held. Dropped when it goes on, or is gone.
pub struct Held {
    node: Arc<Node>,
    face: Face,
    connection: u64,
    wake: Arc<dyn Wake>,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

impl Held {
    /// Writes are taken again. If not, the connection is rung when they are.
    pub fn is_over(&self) -> bool {
        !self
            .node
            .governor
            .wait(self.connection, Arc::clone(&self.wake))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.node.governor.forget(self.connection);
        self.node.metrics.held.of(self.face).add(-1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Bell(AtomicUsize);

    impl Wake for Bell {
        fn wake(&self) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    const TICK: Duration = Duration::from_millis(100);

    fn disk(free: u64) -> Reading {
        Reading {
            disk_free_bytes: Some(free),
            disk_limit_bytes: 1000,
            ..Reading::default()
        }
    }

    fn memory(used: u64) -> Reading {
        Reading {
            allocated_bytes: used,
            allocated_limit_bytes: 10_000,
            ..Reading::default()
        }
    }

    #[test]
    fn a_level_is_reached_at_once_and_left_late() {
        use Level::{Fine, Slow, Stop};
        let mut level = Fine;
        let mut see = |reading| {
            level = level.next(reading, 500);
            level
        };
        for (reading, wanted) in [
            (499, Fine),
            (500, Slow),
            (451, Slow),
            (450, Slow),
            (449, Fine),
            (1000, Stop),
            (951, Stop),
            (950, Stop),
            (949, Slow),
            (980, Slow),
            (1000, Stop),
            (0, Fine),
            (u64::MAX, Stop),
        ] {
            assert_eq!(see(reading), wanted, "{reading}");
        }
    }

    #[test]
    fn the_disk_stops_writes_below_its_limit_and_lets_them_go_on_a_little_above() {
        let governor = Governor::default();
        let see = |free| {
            let changed = governor.note(disk(free), TICK);
            let level = changed.first().map(|(cause, level, _)| (*cause, *level));
            (level, governor.stop().is_some_and(|stop| stop.disk))
        };
        assert_eq!(see(2001), (None, false));
        assert_eq!(see(2000), (Some((Cause::Disk, Level::Slow)), false));
        assert_eq!(see(1001), (None, false));
        assert_eq!(see(1000), (Some((Cause::Disk, Level::Stop)), true));
        assert_eq!(see(1050), (None, true), "not at the edge");
        assert_eq!(see(0), (None, true));
        assert_eq!(see(1100), (Some((Cause::Disk, Level::Slow)), false));
        assert!(governor.paces() && governor.pace() == 100);
        assert_eq!(see(9000), (Some((Cause::Disk, Level::Fine)), false));
        assert!(!governor.paces() && governor.pace() == u64::MAX);
        // Without a limit, or a disk that tells, there is no pressure.
        governor.note(
            Reading {
                disk_limit_bytes: 0,
                ..disk(0)
            },
            TICK,
        );
        assert!(!governor.stops());
        governor.note(
            Reading {
                disk_free_bytes: None,
                ..disk(0)
            },
            TICK,
        );
        assert!(!governor.stops());
    }

    #[test]
    fn memory_is_squeezed_before_writes_are_refused() {
        let governor = Governor::default();
        let see = |used| {
            governor.note(memory(used), TICK);
            (governor.squeeze(), governor.stops())
        };
        assert_eq!(see(8_999), (0, false));
        assert_eq!(see(9_000), (500, false));
        assert_eq!(see(10_000), (1_500, true));
        assert_eq!(see(9_600), (1_100, true));
        assert_eq!(see(9_400), (900, false));
        assert_eq!(see(8_000), (0, false));
    }

    #[test]
    fn a_log_that_is_behind_paces_and_stops_nobody() {
        let governor = Governor::default();
        let behind = Reading {
            log: 4_000,
            ..Reading::default()
        };
        governor.note(behind, TICK);
        assert!(governor.paces() && !governor.stops());
        governor.note(
            Reading {
                tables: 700,
                ..Reading::default()
            },
            TICK,
        );
        assert!(governor.paces());
        governor.note(Reading::default(), TICK);
        assert!(!governor.paces());
    }

    #[test]
    fn who_waits_is_rung_once_when_no_cause_is_left() {
        let governor = Governor::default();
        let bells: [Arc<Bell>; 2] = Default::default();
        assert!(!governor.wait(1, bells[0].clone()), "nothing to wait for");
        governor.note(
            Reading {
                allocated_bytes: 2,
                allocated_limit_bytes: 1,
                ..disk(0)
            },
            TICK,
        );
        assert!(governor.wait(1, bells[0].clone()) && governor.wait(2, bells[1].clone()));
        governor.forget(2);
        governor.note(disk(0), TICK);
        let rung = || [bells[0].0.load(Relaxed), bells[1].0.load(Relaxed)];
        assert_eq!(rung(), [0, 0], "the disk is still full");
        governor.note(disk(5_000), TICK);
        governor.note(disk(5_000), TICK);
        assert_eq!(rung(), [1, 0]);
    }

    #[test]
    fn time_is_counted_for_the_level_that_it_was_spent_in() {
        let governor = Governor::default();
        for free in [5_000, 0, 0, 5_000] {
            governor.note(disk(free), TICK);
        }
        let mut out = Encoder::default();
        governor.collect(&mut out);
        let text = out.into_text();
        for line in [
            "flowmesh_pressure_seconds_total{cause=\"disk\",level=\"fine\"} 0.2",
            "flowmesh_pressure_seconds_total{cause=\"disk\",level=\"stop\"} 0.2",
            "flowmesh_pressure_seconds_total{cause=\"memory\",level=\"fine\"} 0.4",
            "flowmesh_pressure_level{cause=\"disk\"} 0",
            "flowmesh_pressure_ratio{cause=\"disk\"} 0.2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }
}
