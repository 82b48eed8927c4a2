//! The commit log: segments of groups of records.

pub(crate) mod reader;
pub(crate) mod record;
