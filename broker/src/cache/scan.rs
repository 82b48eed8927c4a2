//! Walking over all keys: `SCAN`, `KEYS`, `RANDOMKEY`.
//!
//! A cursor says where to go on, and nothing is kept for it. While every key is resident it is an entry's number, which
//! never changes; else it is a slot, and the tables are merged with what memory knows better.

use std::collections::HashSet;

use super::slab::Entry;
use super::space::Db;
use super::value::{Held, Kind};
use super::view::View;
use super::{Error, row};
use crate::{Keyspace, ShardId, Slot, rows};

/// Slots looked at together: the dirty entries are searched once for all of them.
const SLOTS_AT_ONCE: u16 = 64;

/// Where a scan goes on. As a number: bit 62 says that it is a slot; else an entry's number, then three bits of shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor {
    Entry(ShardId, u32),
    Slot(Slot),
}

const BY_SLOT: u64 = 1 << 62;

impl Cursor {
    pub const START: Self = Self::Entry(ShardId(0), 0);

    /// A number that a client gave back; one that we never gave out starts anew.
    #[must_use]
    pub fn from_raw(raw: u64) -> Self {
        if raw & BY_SLOT != 0 {
            return u16::try_from(raw & !BY_SLOT)
                .ok()
                .and_then(Slot::from_raw)
                .map_or(Self::START, Self::Slot);
        }
        match u32::try_from(raw >> 3) {
            Ok(index) => Self::Entry(ShardId((raw & 7) as u8), index),
            Err(_) => Self::START,
        }
    }

    #[must_use]
    pub fn raw(self) -> u64 {
        match self {
            Self::Entry(shard, index) => u64::from(index) << 3 | u64::from(shard.0 & 7),
            Self::Slot(slot) => BY_SLOT | u64::from(slot.raw()),
        }
    }

    /// Which shard must be locked.
    #[must_use]
    pub fn shard(self) -> ShardId {
        match self {
            Self::Entry(shard, _) => shard,
            Self::Slot(slot) => slot.shard(),
        }
    }

    /// The start of the next shard, `None` behind the last one.
    fn after(shard: ShardId, by_slot: bool) -> Option<Self> {
        let next = ShardId(shard.0 + 1);
        if next == ShardId::CATALOG {
            return None;
        }
        Some(if by_slot {
            Self::Slot(Slot::range_of(next).0)
        } else {
            Self::Entry(next, 0)
        })
    }
}

/// Entries looked at by one step of a walk, under the shard's lock: about a millisecond.
const WALK_STEP: usize = 8192;
/// How often a walk begins anew because of a fold; each takes longer than a walk.
const PASSES: u32 = 4;

/// Where a walk over the keys of a slot is: first those that the tables have, then those in memory.
#[derive(Debug)]
pub struct SlotWalk {
    slot: Slot,
    /// The table key to go on at; empty: the first one.
    stored: Vec<u8>,
    /// `None`: the tables come first.
    resident: Option<u32>,
    folded: Option<u64>,
    passes: u32,
    /// Hashes of what was shown.
    shown: HashSet<u64>,
}

impl SlotWalk {
    #[must_use]
    pub fn new(slot: Slot) -> Self {
        Self {
            slot,
            stored: Vec::new(),
            resident: None,
            folded: None,
            passes: 0,
            shown: HashSet::new(),
        }
    }

    fn is_new(&mut self, hash: u64) -> bool {
        self.shown.insert(hash)
    }
}

fn is_there(entry: &Entry<'_>, now: u64) -> bool {
    !matches!(entry.value, Held::Absent) && (entry.expire_ms == 0 || entry.expire_ms > now)
}

impl View<'_> {
    /// Shows about `count` keys of this shard from the cursor on, with the kind of their values where it is known without
    /// a look into the tables; where to go on, `None` at the end.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn scan(
        &mut self,
        cursor: Cursor,
        count: usize,
        visit: &mut dyn FnMut(&[u8], Option<Kind>),
    ) -> Result<Option<Cursor>, Error> {
        let now = self.now;
        let shard = self.shard;
        let first = match cursor {
            Cursor::Entry(_, index) if self.db().complete => {
                let db = self.db();
                let end = db.slab.end();
                // Free cells count too, or a sparse shard would be walked in one go.
                for (shown, at) in (index..end).enumerate() {
                    if shown >= count {
                        return Ok(Some(Cursor::Entry(shard, at)));
                    }
                    if let Some(entry) = db.slab.get(at)
                        && !matches!(entry.value, Held::Absent)
                        && (entry.expire_ms == 0 || entry.expire_ms > now)
                    {
                        visit(entry.key, Some(entry.value.kind()));
                    }
                }
                return Ok(Cursor::after(shard, false));
            }
            // Not all is resident any more: begin again by slots. Seeing a key twice is allowed.
            Cursor::Entry(..) => Slot::range_of(shard).0,
            Cursor::Slot(slot) => slot,
        };
        let last = Slot::range_of(shard).1;
        let mut from = first.raw();
        let mut shown = 0;
        while from <= last.raw() {
            if shown >= count {
                return Ok(Slot::from_raw(from).map(Cursor::Slot));
            }
            let to = last.raw().min(from.saturating_add(SLOTS_AT_ONCE - 1));
            shown += self.scan_slots(from, to, &mut |key, kind| {
                visit(key, kind);
                true
            })?;
            from = to + 1;
        }
        Ok(Cursor::after(shard, true))
    }

    /// Shows keys of a slot, going on where `walk` is; false: it is at its end, or `visit` wants no more. Another step may be
    /// taken after the lock was let go. Keys that are there all the time are shown once, others may be.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn walk_slot(
        &mut self,
        walk: &mut SlotWalk,
        visit: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<bool, Error> {
        let folded = self.engine.folded_seq(self.shard);
        // What is only in memory may go from it after a fold, so the tables are looked at again.
        if walk.folded != Some(folded) && walk.passes < PASSES {
            walk.folded = Some(folded);
            walk.passes += 1;
            walk.resident = None;
            walk.stored = Vec::new();
        }
        match walk.resident {
            None if !self.db().complete => self.walk_stored(walk, visit),
            from => self.walk_resident(walk, from.unwrap_or(0), visit),
        }
    }

    fn walk_stored(
        &mut self,
        walk: &mut SlotWalk,
        visit: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<bool, Error> {
        let mut found = Vec::new();
        let prefix = row::key_prefix(walk.slot, self.db().id);
        let from = walk.stored.as_slice().max(&prefix);
        let end = rows::prefix_end(&prefix);
        let mut last = Vec::new();
        (self.engine).scan(
            Keyspace::Rows,
            from,
            end.as_deref(),
            WALK_STEP / 8,
            &mut |key, value| {
                last = key.to_vec();
                let name = key.get(prefix.len()..).unwrap_or_default();
                if let Some((name, _)) = row::split(name, value) {
                    found.push(name.to_vec());
                }
                true
            },
        )?;
        if last.is_empty() {
            walk.resident = Some(0);
            return Ok(true);
        }
        last.push(0);
        walk.stored = last;
        let now = self.now;
        for key in found {
            let hash = self.space.hash(&key);
            let db = self.db();
            // What memory knows better.
            let known = db.find(hash, &key).and_then(|index| db.slab.get(index));
            let there = known.is_none_or(|entry| is_there(&entry, now));
            if there && walk.is_new(self.space.long_hash(&key)) && !visit(&key) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn walk_resident(
        &mut self,
        walk: &mut SlotWalk,
        from: u32,
        visit: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<bool, Error> {
        let now = self.now;
        let (space, db) = (&*self.space, &self.space.dbs[self.number]);
        let end = db.slab.end();
        let to = end.min(from.saturating_add(WALK_STEP as u32));
        for index in from..to {
            if let Some(entry) = db.slab.get(index)
                && is_there(&entry, now)
                && Slot::of(entry.key) == walk.slot
                && walk.is_new(space.long_hash(entry.key))
                && !visit(entry.key)
            {
                return Ok(false);
            }
        }
        walk.resident = Some(to);
        Ok(to < end)
    }

    /// Shows all keys of some slots, as long as `visit` wants more: what is resident, and what only the tables have.
    fn scan_slots(
        &mut self,
        from: u16,
        to: u16,
        visit: &mut dyn FnMut(&[u8], Option<Kind>) -> bool,
    ) -> Result<usize, Error> {
        let now = self.now;
        let mut shown = 0;
        let db = self.db();
        for index in 0..db.slab.end() {
            if let Some(entry) = db.slab.get(index)
                && !matches!(entry.value, Held::Absent)
                && (from..=to).contains(&Slot::of(entry.key).raw())
            {
                shown += 1;
                let there = entry.expire_ms == 0 || entry.expire_ms > now;
                if there && !visit(entry.key, Some(entry.value.kind())) {
                    return Ok(shown);
                }
            }
        }
        if db.complete {
            return Ok(shown);
        }
        for raw in from..=to {
            let Some(slot) = Slot::from_raw(raw) else {
                continue;
            };
            let mut cold = Vec::new();
            self.stored_keys(slot, &mut |key| cold.push(key.to_vec()))?;
            for key in cold {
                let hash = self.space.hash(&key);
                // What memory knows of, a deletion included, was shown above or must not be.
                if self.db().find(hash, &key).is_none() {
                    shown += 1;
                    if !visit(&key, None) {
                        return Ok(shown);
                    }
                }
            }
        }
        Ok(shown)
    }

    /// Some key of this shard, if there is one.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn random_key(
        &mut self,
        chance: &mut dyn FnMut(u64) -> u64,
    ) -> Result<Option<Vec<u8>>, Error> {
        let now = self.now;
        let db = self.db();
        let end = db.slab.end();
        if end > 0 && (db.complete || db.resident() > 0) {
            for _ in 0..64 {
                if let Some(key) = alive(db, chance(u64::from(end)) as u32, now) {
                    return Ok(Some(key.to_vec()));
                }
            }
            let start = chance(u64::from(end)) as u32;
            for at in (start..end).chain(0..start) {
                if let Some(key) = alive(db, at, now) {
                    return Ok(Some(key.to_vec()));
                }
            }
        }
        if db.complete {
            return Ok(None);
        }
        let mut found = None;
        let (first, last) = Slot::range_of(self.shard);
        for raw in first.raw()..=last.raw() {
            let Some(slot) = Slot::from_raw(raw) else {
                continue;
            };
            let mut cold = Vec::new();
            self.stored_keys(slot, &mut |key| cold.push(key.to_vec()))?;
            for key in cold {
                let hash = self.space.hash(&key);
                if self.db().find(hash, &key).is_none() {
                    found = Some(key);
                }
            }
            if found.is_some() {
                break;
            }
        }
        Ok(found)
    }
}

fn alive(db: &Db, index: u32, now: u64) -> Option<&[u8]> {
    let entry = db.slab.get(index)?;
    let gone =
        matches!(entry.value, Held::Absent) || (entry.expire_ms != 0 && entry.expire_ms <= now);
    (!gone).then_some(entry.key)
}
