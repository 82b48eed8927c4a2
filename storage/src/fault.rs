//! The seam through which tests (and the simulator) let the disk fail or the process die at a chosen step.
//!
//! One branch on an `Option` when nobody is listening.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

/// What the engine is about to do, or (for the fold) has just done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// About to write a group of this many bytes to the log.
    LogWrite(usize),
    /// About to `fdatasync` the log.
    LogSync,
    /// About to make a log file.
    SegmentCreate,
    /// About to replace one of the small files (term, fold intent, clean mark).
    Mark,
    /// The log is synced up to the fold's bound.
    FoldSynced,
    /// The fold's intent is on disk.
    FoldIntent,
    /// In a recovery: the lower half of the window's bodies and rows is in their tables.
    FoldHalf,
    /// The fold's bodies are in their table.
    FoldBodies,
    /// The fold's rows and the position of the fold are in their table: it is committed.
    FoldRows,
}

/// Decides whether a step fails. An error makes the engine behave as if the disk had said it.
pub trait Fault: Debug + Send + Sync {
    /// Called before (after, for the fold's steps) each step.
    ///
    /// # Errors
    /// The error that the step shall fail with.
    fn at(&self, step: Step) -> io::Result<()>;
}

/// Nobody, or a [`Fault`].
#[derive(Clone, Debug, Default)]
pub struct Faults(Option<Arc<dyn Fault>>);

impl Faults {
    /// `fault` decides from now on.
    pub fn new(fault: Arc<dyn Fault>) -> Self {
        Self(Some(fault))
    }

    #[inline]
    pub(crate) fn check(&self, step: Step) -> io::Result<()> {
        match &self.0 {
            None => Ok(()),
            Some(fault) => fault.at(step),
        }
    }
}
