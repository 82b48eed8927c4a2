//! Keys and their values.
//!
//! ```text
//! Space (per shard) ── Db (per SELECT number) ── index: hash → entry number ── slab: key, value, deadline, seq
//! ```
//! A command works on a [`View`]: it finds keys (loading cold ones from the tables, dropping expired ones) and changes
//! them; each change goes to memory and, as rows, to the effects of the command's record, in the same place.
//! Absences: no clock and no chance but what the command brings; nothing here waits; no row holds a whole collection.

mod blocks;
mod cold;
mod deadlines;
mod elements;
mod glob;
mod hash;
pub(crate) mod heard;
mod index;
pub(crate) mod journal;
pub(crate) mod law;
mod limit;
mod list;
mod load;
mod order;
mod packed;
mod partial;
mod ranked;
mod row;
mod scan;
mod serve;
mod set;
mod slab;
mod space;
mod stream;
mod table;
mod text;
mod touch;
pub(crate) mod tracking;
mod upkeep;
mod value;
mod view;
mod waiter;
mod watch;
mod zset;

#[cfg(test)]
mod tests;

use thiserror::Error;

use crate::{Locked, ShardSet, Slot};

pub use cold::Cold;
pub use elements::{Collection, Elements, NO_ELEMENTS, Pair, Placed};
pub(crate) use glob::matches_soon;
pub use glob::{literal_prefix, matches};
pub use hash::Hash;
pub use heard::{Change, Note, hear, heard};
pub use limit::{
    Bounds, Candidate, Limit, LimitSettings, Limiter, Limits, Policy, Pool, RULES_MAX, Rule,
    set_limits,
};
pub use list::{End, List, Listed, Reach};
pub use ranked::Ranked;
pub use row::Rows;
pub use scan::{Cursor, SlotWalk};
pub use serve::Deliveries;
pub use set::{Member, Set};
pub use space::{Counts, DATABASES, Space};
pub use stream::{
    Ask, Between, Claim, Consumer, Deletion, Entry, EntryId, Group, IdempotenceFacts,
    IdempotenceSettings, Kept, Need, Pairs, Pending, Refs, Release, Released, Restored,
    RestoredConsumer, RestoredGroup, RestoredIdempotence, RestoredPending, RestoredProducer, Span,
    Stream, Trim, Until, body,
};
pub use text::Text;
pub use touch::{TOUCH_MAX, touch};
pub use tracking::{TRACKED_KEYS_MAX, Track, Tracking, TrackingStats};
pub use value::{Held, Kind, Value};
pub use view::{Expire, View};
pub use waiter::{Found, Receive, Served, Waiter, Want};
pub use watch::Watch;
pub use zset::{LexBound, ScoreBound, Zset};

/// Why a command on a key failed.
#[derive(Debug, Error)]
pub enum Error {
    #[error("key holds another kind of value")]
    WrongType,
    #[error("too large to be copied at once")]
    TooLarge,
    #[error("a row is not what was written")]
    Damaged,
    #[error("cannot read the tables")]
    Storage(#[from] storage::Error),
}

/// A key and its slot, computed once per command.
#[derive(Debug, Clone, Copy)]
pub struct Name<'a> {
    pub bytes: &'a [u8],
    pub slot: Slot,
}

impl<'a> Name<'a> {
    #[inline]
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            slot: Slot::of(bytes),
        }
    }
}

/// Reads what must be in memory before the first command: ids and counts of databases. Keys come on first touch.
///
/// # Errors
/// When the tables cannot be read.
pub fn load(all: &mut Locked<'_>) -> Result<(), storage::Error> {
    for id in ShardSet::DATA.iter() {
        let shard = all.shard(id);
        shard.cache.load(id, &shard.engine)?;
    }
    Ok(())
}
