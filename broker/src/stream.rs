//! Topics, partitions and consumer groups.

use std::sync::Arc;

use storage::Engine;

use crate::Locked;

/// The partitions of one shard.
#[derive(Debug, Default)]
pub struct Space {}

/// Topics by name and id, read without locks.
#[derive(Debug, Default)]
pub struct Topics {}

/// Definitions of topics.
#[derive(Debug, Default)]
pub struct Catalog {
    topics: Arc<Topics>,
}

impl Catalog {
    /// Reads the definitions.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn load(_engine: &Engine) -> Result<Self, storage::Error> {
        Ok(Self::default())
    }

    /// The view that this catalog publishes.
    #[must_use]
    pub fn topics(&self) -> Arc<Topics> {
        Arc::clone(&self.topics)
    }
}

/// Reads what must be in memory before the first command.
///
/// # Errors
/// When the tables cannot be read.
pub fn load(_all: &mut Locked<'_>) -> Result<(), storage::Error> {
    Ok(())
}
