//! Keys and their values.

use crate::Locked;

/// The keys of one shard.
#[derive(Debug, Default)]
pub struct Space {}

/// Reads what must be in memory before the first command.
///
/// # Errors
/// When the tables cannot be read.
pub fn load(_all: &mut Locked<'_>) -> Result<(), storage::Error> {
    Ok(())
}
