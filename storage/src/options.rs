//! Every knob of the engine, with its unit and default.

use std::path::PathBuf;
use std::time::Duration;

use crate::fault::Faults;

const MIB: u64 = 1 << 20;

/// How to open an [`crate::Engine`].
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory; made if missing.
    pub dir: PathBuf,
    /// Bytes of log after which the fold runs. Default 128 MiB.
    pub fold_bytes: u64,
    /// A fold of less log than this goes into the tables as one write batch, a larger one by sorted ingestion, which
    /// costs files and syncs per table. Default 2 MiB.
    pub batch_bytes: u64,
    /// Bytes after which the log goes on in a new file. Default 64 MiB.
    pub segment_bytes: u64,
    /// Folded log kept for readers, in bytes. Default 1 GiB.
    pub retain_bytes: u64,
    /// Folded log kept for readers, in age. Default 24 h.
    pub retain_age: Duration,
    /// How often written but unsynced log is synced without anybody waiting; `None`: never. Default 1 s.
    pub sync_interval: Option<Duration>,
    /// Blocks kept for the log when the disk is full, so that deletions can be written; in bytes. Default: none.
    pub reserve_bytes: u64,
    /// Block cache of the tables, in bytes. Default 32 MiB.
    pub cache_bytes: u64,
    /// Disk faults, for tests. Default: none.
    pub faults: Faults,
}

impl Options {
    /// Defaults in directory `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            fold_bytes: 128 * MIB,
            batch_bytes: 2 * MIB,
            segment_bytes: 64 * MIB,
            retain_bytes: 1024 * MIB,
            retain_age: Duration::from_secs(24 * 3600),
            sync_interval: Some(Duration::from_secs(1)),
            reserve_bytes: 0,
            cache_bytes: 32 * MIB,
            faults: Faults::default(),
        }
    }
}
