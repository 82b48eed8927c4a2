//! Compaction of the tables on a disk that is short of room: deletions give their space back now, and what is written
//! meanwhile fits.
//!
//! ```text
//! all of a keyspace, if its rows that are left fit ─▶ else one piece: level 0 ─▶ narrow tables above the lowest level
//!                                                                    or some of a level with what lies below them
//! ```
//! fjall does not survive a full disk, and its own compaction begins when levels are too large, which tombstones never make
//! them. Level 0 overlaps with everything: it is cut into narrow tables first, of which each meets few tables below.

use fjall::AbstractTree;
use fjall::compaction::Leveled;

use super::{TABLE_BYTES, Tables};
use crate::Error;

/// Level 0 is cut into so many tables at most, and into none smaller than this.
const CUTS: u64 = 512;
const CUT_MIN: u64 = 16 << 10;
/// fjall compacts level 0 by itself from so many tables on.
const L0_TABLES: usize = 4;
/// What a row takes in a table beside its key and value: its header, its part of the filter and of the index.
const ROW_BYTES: u64 = 32;
/// Blob files of which so many are partly stale: one of them is written anew (`age_cutoff`).
const BLOB_FILES: u64 = 4;

/// How far a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Squeezed {
    /// Nothing deleted is left in the tables.
    All,
    /// Another step may do more.
    Some,
    /// What could be done has no room.
    Nothing,
}

/// What compaction needs to know of a table.
#[derive(Debug)]
struct Piece {
    min: fjall::Slice,
    max: fjall::Slice,
    bytes: u64,
    items: u64,
    tombstones: u64,
}

impl Tables {
    /// Compacts what fits into the `room` that there is, in bytes, which is asked again before each part.
    pub(crate) fn squeeze(&self, room: &dyn Fn() -> u64) -> Result<Squeezed, Error> {
        let flushed = self.flush(room())?;
        // What was deleted in memory only is still in the tables.
        if flushed && self.compact_rows(room())? {
            return Ok(match self.compact_bodies(room)? {
                true => Squeezed::All,
                false => Squeezed::Nothing,
            });
        }
        if self.compact_piece(room())? {
            return Ok(Squeezed::Some);
        }
        if flushed {
            self.compact_bodies(room)?;
        }
        Ok(Squeezed::Nothing)
    }

    /// Rows that were deleted, but are still in the tables, as far as that is known without looking.
    pub(crate) fn tombstones(&self) -> u64 {
        let of = |keyspace| -> u64 {
            let levels = levels(keyspace);
            levels.iter().flatten().map(|piece| piece.tombstones).sum()
        };
        of(&self.rows) + of(&self.bodies)
    }

    /// Writes what is in memory into tables. False: they have no room for it, or fjall would begin a compaction without room.
    fn flush(&self, room: u64) -> Result<bool, Error> {
        for keyspace in [&self.rows, &self.bodies] {
            let memory = keyspace.tree.active_memtable();
            if memory.is_empty() {
                continue;
            }
            let full = keyspace.tree.current_version().l0().table_count() + 1 >= L0_TABLES;
            let compacted = if full { self.compaction_bytes() } else { 0 };
            if memory.size().saturating_mul(2).saturating_add(compacted) > room {
                return Ok(false);
            }
            keyspace.rotate_memtable_and_wait()?;
        }
        self.settle()?;
        Ok(true)
    }

    /// Waits until fjall's worker is idle: what it writes is in nobody's account.
    fn settle(&self) -> Result<(), Error> {
        while self.busy() {
            self.check()?;
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        Ok(())
    }

    /// Writes all rows anew, without those that were deleted. False: there is no room for what is left.
    fn compact_rows(&self, room: u64) -> Result<bool, Error> {
        let levels = levels(&self.rows);
        let all = || levels.iter().flatten();
        let bytes: u64 = all().map(|piece| piece.bytes).sum();
        if bytes > room {
            let items: u64 = all().map(|piece| piece.items).sum();
            let tombstones: u64 = all().map(|piece| piece.tombstones).sum();
            let puts = items.saturating_sub(tombstones).max(1);
            // A tombstone is written for a row that is there. A guess, which decides whether to look.
            let left = u128::from(bytes) * u128::from(puts.saturating_sub(tombstones));
            if left > u128::from(room) * u128::from(puts) || !self.rows_fit(room)? {
                return Ok(false);
            }
        }
        self.compact_whole(&self.rows)?;
        Ok(true)
    }

    /// All rows that are not deleted take less than `room` bytes when they are written anew.
    fn rows_fit(&self, room: u64) -> Result<bool, Error> {
        let mut bytes = 0;
        for row in self.rows.iter() {
            let (key, value) = row.into_inner()?;
            let row = (key.len() + value.len()) as u64;
            bytes += row + row / 16 + ROW_BYTES;
            if bytes > room {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Gives back the space of deleted bodies: the first pass over the index marks blob files as stale, the second one drops
    /// them. False: there is no room for the index, and for the blob files that are written anew.
    fn compact_bodies(&self, room: &dyn Fn() -> u64) -> Result<bool, Error> {
        for _ in 0..2 {
            let index: u64 = levels(&self.bodies)
                .iter()
                .flatten()
                .map(|piece| piece.bytes)
                .sum();
            let version = self.bodies.tree.current_version();
            let files = version.blob_files.iter();
            // One that is not there any more takes nothing.
            let sizes = files.map(|file| file.path().metadata().map_or(0, |about| about.len()));
            let moved = version.blob_files.len() as u64 / BLOB_FILES;
            let need = index.saturating_add(moved.saturating_mul(sizes.max().unwrap_or(0)));
            if need > room() {
                return Ok(false);
            }
            self.compact_whole(&self.bodies)?;
        }
        Ok(true)
    }

    /// Compacts some of the rows, if that takes at most `room` bytes. False: it does not, or there is nothing to do.
    fn compact_piece(&self, room: u64) -> Result<bool, Error> {
        let Some((need, target)) = next_piece(&levels(&self.rows)) else {
            return Ok(false);
        };
        if need > room {
            return Ok(false);
        }
        let strategy = Leveled::default()
            // Every level is too large, however small it is.
            .with_l0_threshold(0)
            .with_table_target_size(target);
        let before = self.rows.tree.current_version().id();
        self.rows
            .tree
            .compact(std::sync::Arc::new(strategy), self.seen())
            .map_err(fjall::Error::from)?;
        let done = self.rows.tree.current_version().id() != before;
        self.forget(&self.rows)?;
        Ok(done)
    }

    /// Writes a keyspace anew. `Keyspace::major_compact` keeps what was deleted since fjall last looked for snapshots, which
    /// it does not do after each ingestion: that would be more than there is room for.
    fn compact_whole(&self, keyspace: &fjall::Keyspace) -> Result<(), Error> {
        let err = fjall::Error::from;
        keyspace
            .tree
            .major_compact(TABLE_BYTES, self.seen())
            .map_err(err)?;
        self.forget(keyspace)
    }

    /// What is older than this and not the newest of its row is nobody's: readers look at the newest version of the tables, and
    /// keep what they hold.
    fn seen(&self) -> u64 {
        self.db.visible_seqno()
    }

    /// Lets go of older versions of the tables, and so of the files that compaction replaced. Readers keep theirs.
    fn forget(&self, keyspace: &fjall::Keyspace) -> Result<(), Error> {
        let seen = self.seen();
        keyspace
            .tree
            .get_version_history_lock()
            .maintenance(keyspace.path(), seen)
            .map_err(fjall::Error::from)?;
        Ok(())
    }
}

/// The tables of each level; within level 0 they overlap.
fn levels(keyspace: &fjall::Keyspace) -> Vec<Vec<Piece>> {
    let version = keyspace.tree.current_version();
    let of_level = version.iter_levels().map(|level| {
        let tables = level.iter().flat_map(|run| run.iter());
        let piece = tables.map(|table| Piece {
            min: table.metadata.key_range.min().clone(),
            max: table.metadata.key_range.max().clone(),
            bytes: table.metadata.file_size,
            items: table.metadata.item_count,
            tombstones: table.metadata.tombstone_count,
        });
        piece.collect()
    });
    of_level.collect()
}

/// Bytes that fjall's levelled compaction reads, and at most writes, at its next step if every level is too large for it;
/// and the size of tables to make. `None`: there is nothing to do.
fn next_piece(levels: &[Vec<Piece>]) -> Option<(u64, u64)> {
    let (first, below) = levels.split_first()?;
    let (_, between) = below.split_last()?;
    // It takes the lowest one first.
    if let Some(at) = between.iter().rposition(|level| !level.is_empty()) {
        let (upper, lower) = (below.get(at)?, below.get(at + 1)?);
        return Some((smallest_window(upper, lower)?, TABLE_BYTES));
    }
    let bytes: u64 = first.iter().map(|piece| piece.bytes).sum();
    let target = (bytes / CUTS).clamp(CUT_MIN, TABLE_BYTES);
    (bytes > 0).then_some((bytes, target))
}

/// Bytes of the smallest set of tables next to each other in `lower`, with the tables of `upper` that lie within them, of
/// which there must be one: at most, since sets around single tables are looked at. Both are in order of key, and none of them
/// overlaps with another one of its level.
fn smallest_window(upper: &[Piece], lower: &[Piece]) -> Option<u64> {
    let size = |pieces: &[Piece]| pieces.iter().map(|piece| piece.bytes).sum::<u64>();
    let window = |piece: &Piece| {
        let from = lower.partition_point(|other| other.max < piece.min);
        let to = lower.partition_point(|other| other.min <= piece.max);
        if from == to {
            // It is moved.
            return Some(0);
        }
        let from = lower
            .partition_point(|other| other.min <= piece.min)
            .checked_sub(1)?;
        let to = lower.partition_point(|other| other.max < piece.max);
        let (first, last) = (lower.get(from)?, lower.get(to)?);
        let within_from = upper.partition_point(|other| other.min < first.min);
        let within_to = upper.partition_point(|other| other.max <= last.max);
        Some(size(lower.get(from..=to)?) + size(upper.get(within_from..within_to)?))
    };
    upper.iter().filter_map(window).min()
}

#[cfg(test)]
mod tests {
    use super::super::{Change, Compact, Folded};
    use super::*;
    use crate::Keyspace;

    fn piece(min: &str, max: &str, bytes: u64) -> Piece {
        Piece {
            min: min.into(),
            max: max.into(),
            bytes,
            items: 0,
            tombstones: 0,
        }
    }

    fn tree(first: Vec<Piece>, fifth: Vec<Piece>, last: Vec<Piece>) -> Vec<Vec<Piece>> {
        let mut levels: Vec<Vec<Piece>> = (0..7).map(|_| Vec::new()).collect();
        (levels[0], levels[5], levels[6]) = (first, fifth, last);
        levels
    }

    #[test]
    fn a_piece_is_a_window_that_holds_a_table_of_the_level_above() {
        let last = || {
            vec![
                piece("a", "f", 60),
                piece("h", "m", 70),
                piece("o", "z", 30),
            ]
        };
        let next = |upper| next_piece(&tree(Vec::new(), upper, last())).map(|(bytes, _)| bytes);
        assert_eq!(next(vec![piece("b", "c", 1), piece("d", "e", 2)]), Some(63));
        assert_eq!(next(vec![piece("b", "i", 1), piece("p", "q", 2)]), Some(32));
        assert_eq!(next(vec![piece("b", "i", 1)]), Some(131));
        assert_eq!(next(vec![piece("g", "i", 1)]), Some(131), "from a gap");
        assert_eq!(next(vec![piece("g", "g", 1)]), Some(0), "moved");
        assert_eq!(
            next(vec![piece("A", "b", 1)]),
            None,
            "nothing reaches so far"
        );
    }

    #[test]
    fn level_0_is_cut_when_nothing_is_between() {
        let first = || vec![piece("a", "z", 8 << 20), piece("a", "z", 8 << 20)];
        let last = || vec![piece("a", "z", 60 << 20)];
        let next = |fifth| next_piece(&tree(first(), fifth, last()));
        assert_eq!(next(Vec::new()), Some((16 << 20, 32 << 10)));
        let moved = Some((60 << 20 | 1, TABLE_BYTES));
        assert_eq!(next(vec![piece("b", "c", 1)]), moved);
        assert_eq!(next_piece(&tree(Vec::new(), Vec::new(), last())), None);
    }

    /// Tables of 1 MiB in the lowest level, 8 of them; above them the deletion of every row but each `kept`th, and new rows.
    fn half_dead(dir: &std::path::Path, kept: usize) -> Tables {
        let tables = Tables::open(dir, 1 << 20).unwrap();
        let folded = Folded::default().encode();
        let keys: Vec<[u8; 4]> = (0..8192_u32).map(|key| key.to_be_bytes()).collect();
        let mut chance = 1_u64;
        let mut value = || {
            let byte = |_| {
                chance = chance
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (chance >> 56) as u8
            };
            (0..1024).map(byte).collect::<Vec<u8>>()
        };
        let values: Vec<Vec<u8>> = keys.iter().map(|_| value()).collect();
        let puts = || keys.iter().zip(&values);
        let ingest = |changes: Vec<Change<'_>>| {
            let changes = changes.into_iter().map(Ok);
            let mut rows = tables
                .write(Keyspace::Rows, changes, Compact::Later)
                .unwrap();
            rows.write_position(&folded).unwrap();
            rows.finish().unwrap();
        };
        ingest(puts().map(|(key, value)| Change::Put(key, value)).collect());
        let seen = tables.db.visible_seqno();
        tables.rows.tree.major_compact(1 << 20, seen).unwrap();
        let dead = |at: &usize| !at.is_multiple_of(kept);
        ingest(
            (0..keys.len())
                .filter(dead)
                .map(|at| Change::Del(&keys[at]))
                .collect(),
        );
        let again = puts().step_by(8 * kept);
        ingest(
            again
                .map(|(key, value)| Change::Put(key, &value[..512]))
                .collect(),
        );
        tables
    }

    fn check(tables: &Tables, kept: usize) {
        for at in 0..8192_u32 {
            let found = tables.get(Keyspace::Rows, &at.to_be_bytes()).unwrap();
            let length = match at as usize {
                at if at.is_multiple_of(8 * kept) => Some(512),
                at => at.is_multiple_of(kept).then_some(1024),
            };
            assert_eq!(found.map(|value| value.len()), length, "{at}");
        }
    }

    fn bytes(tables: &Tables) -> u64 {
        levels(&tables.rows)
            .iter()
            .flatten()
            .map(|piece| piece.bytes)
            .sum()
    }

    #[test]
    fn pieces_give_space_back_where_not_all_fits() {
        let dir = tempfile::tempdir().unwrap();
        let tables = half_dead(dir.path(), 2);
        let room = || 3 << 20;
        let before = bytes(&tables);
        assert!(!tables.compact_rows(room()).unwrap());
        assert_eq!(bytes(&tables), before, "nothing was written");
        let mut steps = 0;
        while tables.squeeze(&room).unwrap() == Squeezed::Some {
            check(&tables, 2);
            steps += 1;
            assert!(steps < 1_000, "{:?}", levels(&tables.rows));
        }
        check(&tables, 2);
        let after = bytes(&tables);
        assert!(
            steps > 4 && after < before * 5 / 8,
            "{steps} {before} {after}"
        );
        drop(tables);
        check(&Tables::open(dir.path(), 1 << 20).unwrap(), 2);
    }

    #[test]
    fn what_is_left_of_tables_is_written_anew_if_it_fits() {
        let dir = tempfile::tempdir().unwrap();
        let tables = half_dead(dir.path(), 64);
        assert!(tables.tombstones() > 8_000);
        assert_eq!(tables.squeeze(&|| 1 << 20).unwrap(), Squeezed::All);
        check(&tables, 64);
        assert_eq!(tables.tombstones(), 0);
        assert!(bytes(&tables) < 1 << 20);
    }
}
