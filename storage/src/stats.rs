//! Figures of the engine, for metrics and for the governor.

use crate::Lsn;

/// How far writers are ahead of the tables; the governor turns it into each protocol's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Fine.
    None,
    /// Two fold windows wait: slow writers down.
    Slow,
    /// Four fold windows wait: refuse or hold writers.
    Stop,
}

/// A snapshot of the engine's figures. Positions in bytes of log, the rest as named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// End of what was appended.
    pub appended: Lsn,
    /// End of what the kernel has.
    pub written: Lsn,
    /// End of what the disk has.
    pub synced: Lsn,
    /// End of what the tables have.
    pub folded: Lsn,
    /// Bytes of log that the tables do not have yet.
    pub unfolded_bytes: u64,
    /// The same in fold windows, rounded down.
    pub unfolded_windows: u64,
    /// Bytes of log on disk, folded and kept for readers included.
    pub log_bytes: u64,
    /// Files of log on disk.
    pub log_segments: u64,
    /// `write` calls on the log since start.
    pub log_writes: u64,
    /// `fdatasync` calls on the log since start.
    pub log_syncs: u64,
    /// Records appended since start.
    pub records: u64,
    /// Folds finished since start.
    pub folds: u64,
    /// Rows that folds wrote into tables since start (tombstones included).
    pub folded_rows: u64,
    /// Duration of the last fold in microseconds.
    pub last_fold_us: u64,
    /// Runs in level 0 of the larger of the two tables: the fold waits at 12.
    pub l0_runs: u64,
    /// Bytes of table files on disk.
    pub table_bytes: u64,
    /// How long the last open needed to fold what the log held, in microseconds.
    pub recovery_us: u64,
}
