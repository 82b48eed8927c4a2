//! What can go wrong in the engine, by what a caller can do about it.

use std::io;
use std::path::PathBuf;

use crate::Lsn;

/// An error of the storage engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process holds the data directory.
    #[error("data directory {path} is in use by another process (lock file {path}/LOCK)")]
    InUse { path: PathBuf },
    /// The directory was written by a version that this one does not know.
    #[error("{path} has format version {found}, this build reads up to {known}: use a newer build")]
    Format {
        path: PathBuf,
        found: u32,
        known: u32,
    },
    /// Damage where data had been promised as synced: never skipped silently.
    #[error(
        "{path} is damaged at byte {offset} ({what}); `flowmesh repair` can cut the log there and reports what is lost"
    )]
    Damaged {
        path: PathBuf,
        offset: u64,
        what: String,
    },
    /// A log position that retention has deleted already.
    #[error("log position {wanted:?} is gone, the log begins at {oldest:?}")]
    Trimmed { wanted: Lsn, oldest: Lsn },
    /// An earlier I/O error: nothing more is written until a restart.
    #[error("the engine stopped after an I/O error; restart the node")]
    Failed,
    /// A fold waits for room on the disk. Nothing is lost: the log has it.
    #[error("there is no room on the disk to fold the log into the tables")]
    NoRoom,
    /// The target of a backup or restore is not usable.
    #[error("{path}: {what}")]
    Target { path: PathBuf, what: String },
    /// The operating system refused.
    #[error("{what} {path}")]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The tables refused.
    #[error("tables: {0}")]
    Tables(#[from] fjall::Error),
}

impl Error {
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io {
            what,
            path: path.into(),
            source,
        }
    }

    pub(crate) fn damaged(path: impl Into<PathBuf>, offset: u64, what: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.into(),
            offset,
            what: what.into(),
        }
    }
}
