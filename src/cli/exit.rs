//! How the process ends, for scripts.

use std::process::ExitCode;

use crate::node::RunError;

/// Exit codes; documented in [`HELP`] and docs/CLI.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, or stopped when asked.
    Done = 0,
    /// Failed while running.
    Failed = 1,
    /// Wrong command line or configuration.
    Usage = 2,
    /// An address cannot be opened.
    Address = 3,
    /// The data directory is used by another process.
    InUse = 4,
    /// The data directory is damaged, or of a version that this program does not know.
    Data = 5,
}

/// The table at the end of `--help`.
pub(super) const HELP: &str = "\
Exit codes:
  0  done, or stopped when asked (SIGTERM, SIGINT)
  1  failed while running
  2  wrong command line or configuration
  3  an address cannot be opened (port taken, not permitted)
  4  the data directory is used by another process
  5  the data directory is damaged or of an unknown version
  130  left at once on a second signal";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<&RunError> for Exit {
    fn from(error: &RunError) -> Self {
        match error {
            RunError::Bind(_) | RunError::Unix(_) => Self::Address,
            RunError::Storage(error) => Self::from(error),
            RunError::Tls(_) | RunError::Open(_) | RunError::Keyspace(_) => Self::Usage,
            RunError::System(_) | RunError::Law(_) => Self::Failed,
        }
    }
}

impl From<&storage::Error> for Exit {
    fn from(error: &storage::Error) -> Self {
        match error {
            storage::Error::InUse { .. } => Self::InUse,
            storage::Error::Format { .. } | storage::Error::Damaged { .. } => Self::Data,
            _ => Self::Failed,
        }
    }
}
