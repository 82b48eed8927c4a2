//! Exchanges, bindings, queues and their messages.

use std::sync::Arc;

use storage::Engine;

use crate::Locked;

/// The queues of one shard.
#[derive(Debug, Default)]
pub struct Space {}

/// What routes messages, read without locks.
#[derive(Debug, Default)]
pub struct Routes {}

/// Definitions of exchanges, bindings and queues.
#[derive(Debug, Default)]
pub struct Catalog {
    routes: Arc<Routes>,
}

impl Catalog {
    /// Reads the definitions.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn load(_engine: &Engine) -> Result<Self, storage::Error> {
        Ok(Self::default())
    }

    /// The routing view that this catalog publishes.
    #[must_use]
    pub fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.routes)
    }
}

/// Reads what must be in memory before the first command.
///
/// # Errors
/// When the tables cannot be read.
pub fn load(_all: &mut Locked<'_>) -> Result<(), storage::Error> {
    Ok(())
}
