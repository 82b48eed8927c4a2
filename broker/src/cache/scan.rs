//! Walking over all keys: `SCAN`, `KEYS`, `RANDOMKEY`.
//!
//! A cursor says where to go on, and nothing is kept for it. While every key is resident it is an entry's number, which
//! never changes; else it is a slot, and the tables are merged with what memory knows better.

use super::Error;
use super::space::Db;
use super::value::{Held, Kind};
use super::view::View;
use crate::{ShardId, Slot};

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

    /// Shows the keys of a slot, as long as `visit` wants more.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn keys_in(
        &mut self,
        slot: Slot,
        visit: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<(), Error> {
        self.scan_slots(slot.raw(), slot.raw(), &mut |key, _| visit(key))?;
        Ok(())
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
