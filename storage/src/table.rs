//! The tables: the only place that knows fjall.
//!
//! Two keyspaces in one database. They are filled by the fold only, one fold at a time: either by one write batch
//! (small folds) or by sorted ingestion, bodies first and rows last. The position of the fold is a row that goes in
//! with the last of them, so that the tables always know exactly which part of the log they hold.

pub(crate) mod squeeze;

use std::ops::Bound;
use std::path::Path;

use bytes::Bytes;
use fjall::config::{CompressionPolicy, PartitioningPolicy};
use fjall::{
    AbstractTree, CompressionType, Database, KeyspaceCreateOptions, KvSeparationOptions,
    PersistMode,
};

use crate::fold::far::FarValue;
use crate::{Error, Keyspace, SHARDS};

/// Keys from here on belong to the engine itself. Rows of callers begin with a slot below it.
const ENGINE_KEYS: &[u8] = &[0xFF, 0xFF];
const FOLDED_KEY: &[u8] = &[0xFF, 0xFF, b'f'];
const HEARTBEAT_KEY: &[u8] = &[0xFF, 0xFF, b'h'];
/// Version of the row that holds the fold's position.
const FOLDED_VERSION: u64 = 1;
/// Values of this many bytes are shared with the table's memory, smaller ones copied: they would pin a whole block.
const SHARE: usize = 4096;
/// Size of tables, as fjall makes them.
const TABLE_BYTES: u64 = 64 << 20;

/// How far the tables are: a row of the tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Folded {
    /// Log position.
    pub(crate) position: u64,
    /// Last seq of each shard.
    pub(crate) seqs: [u64; SHARDS],
}

pub(crate) struct Tables {
    db: Database,
    rows: fjall::Keyspace,
    bodies: fjall::Keyspace,
}

/// One change of a row, for the fold.
#[derive(Debug)]
pub(crate) enum Change<'a> {
    Put(&'a [u8], &'a [u8]),
    /// A value that is still in the log's file.
    PutFar(&'a [u8], FarValue<'a>),
    Del(&'a [u8]),
}

/// When fjall's worker may look for something to compact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compact {
    Now,
    /// At a later ingestion, or when a memtable rotates. Only while nobody else writes to the tables.
    Later,
}

/// Tables of a large fold that are being written. Dropped, they are never seen; their files go at the next start.
pub(crate) struct Ingestion<'a> {
    keyspace: &'a fjall::Keyspace,
    compact: Compact,
    writer: Option<Writer<'a>>,
    count: u64,
}

/// Takes changes in ascending order of key; `None` ends it. (fjall's ingestion has a type without a name.)
type Writer<'a> = Box<dyn FnMut(Option<Change<'_>>) -> fjall::Result<()> + 'a>;

impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tables").finish_non_exhaustive()
    }
}

impl Tables {
    /// Opens or makes the tables. fjall's worker thread inherits the niceness of the calling thread.
    pub(crate) fn open(dir: &Path, cache_bytes: u64) -> Result<Self, Error> {
        let db = Database::builder(dir)
            .cache_size(cache_bytes)
            // With more, worker 0 spins while another one compacts.
            .worker_threads(1)
            .journal_compression(CompressionType::None)
            .manual_journal_persist(true)
            .max_journaling_size(256 << 20)
            .max_cached_files(Some(900))
            .open()?;
        // Options count only when a keyspace is made; a later change needs a migration.
        let rows = db.keyspace("rows", || {
            in_small_pieces(KeyspaceCreateOptions::default())
                .max_memtable_size(16 << 20)
                .manual_journal_persist(true)
        })?;
        let bodies = db.keyspace("bodies", || {
            let separation = KvSeparationOptions::default()
                .separation_threshold(1024)
                .compression(CompressionType::None)
                .file_target_size(64 << 20)
                .staleness_threshold(0.25)
                .age_cutoff(0.25);
            in_small_pieces(KeyspaceCreateOptions::default())
                .max_memtable_size(16 << 20)
                .manual_journal_persist(true)
                .data_block_compression_policy(CompressionPolicy::disabled())
                .with_kv_separation(Some(separation))
        })?;
        Ok(Self { db, rows, bodies })
    }

    fn keyspace(&self, keyspace: Keyspace) -> &fjall::Keyspace {
        match keyspace {
            Keyspace::Rows => &self.rows,
            Keyspace::Bodies => &self.bodies,
        }
    }

    pub(crate) fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>, Error> {
        Ok(self.keyspace(keyspace).get(key)?.map(share))
    }

    pub(crate) fn contains(&self, keyspace: Keyspace, key: &[u8]) -> Result<bool, Error> {
        Ok(self.keyspace(keyspace).contains_key(key)?)
    }

    /// Visits up to `limit` rows of `from..to` (of the caller's keys only), upwards or downwards, until `visit` is false.
    pub(crate) fn scan(
        &self,
        keyspace: Keyspace,
        (from, to): (&[u8], Option<&[u8]>),
        limit: usize,
        downwards: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Error> {
        let Some(mut range) = self.range(keyspace, from, to) else {
            return Ok(());
        };
        for _ in 0..limit {
            let Some(row) = (if downwards {
                range.next_back()
            } else {
                range.next()
            }) else {
                break;
            };
            let (key, value) = row.into_inner()?;
            if !visit(&key, &value) {
                break;
            }
        }
        Ok(())
    }

    /// As [`Tables::scan`] upwards without a limit, with values that may be kept.
    pub(crate) fn scan_shared(
        &self,
        keyspace: Keyspace,
        (from, to): (&[u8], Option<&[u8]>),
        visit: &mut dyn FnMut(&[u8], Bytes) -> bool,
    ) -> Result<(), Error> {
        for row in self.range(keyspace, from, to).into_iter().flatten() {
            let (key, value) = row.into_inner()?;
            if !visit(&key, share(value)) {
                break;
            }
        }
        Ok(())
    }

    /// The rows of `from..to` that are the caller's; `None`: the range is empty.
    fn range(&self, keyspace: Keyspace, from: &[u8], to: Option<&[u8]>) -> Option<fjall::Iter> {
        let to = to.map_or(ENGINE_KEYS, |to| to.min(ENGINE_KEYS));
        (from < to).then(|| {
            self.keyspace(keyspace)
                .range::<&[u8], _>((Bound::Included(from), Bound::Excluded(to)))
        })
    }

    /// Which part of the log the tables hold.
    pub(crate) fn folded(&self) -> Result<Folded, Error> {
        let Some(row) = self.rows.get(FOLDED_KEY)? else {
            return Ok(Folded::default());
        };
        let (fields, _) = row.as_chunks::<8>();
        let mut fields = fields.iter().map(|field| u64::from_le_bytes(*field));
        let version = fields.next().unwrap_or_default();
        if version != FOLDED_VERSION {
            let (found, known) = (u32::try_from(version).unwrap_or(u32::MAX), 1);
            return Err(Error::Format {
                path: "tables/rows".into(),
                found,
                known,
            });
        }
        let mut folded = Folded {
            position: fields.next().unwrap_or_default(),
            seqs: [0; SHARDS],
        };
        for (seq, field) in folded.seqs.iter_mut().zip(fields) {
            *seq = field;
        }
        Ok(folded)
    }

    /// Applies a small fold in one batch, durably.
    pub(crate) fn apply<'a>(
        &self,
        bodies: impl Iterator<Item = Result<Change<'a>, Error>>,
        rows: impl Iterator<Item = Result<Change<'a>, Error>>,
        folded: &Folded,
    ) -> Result<u64, Error> {
        let mut batch = self.db.batch();
        for change in bodies {
            match change? {
                Change::Put(key, value) => batch.insert(&self.bodies, key, value),
                Change::PutFar(key, value) => batch.insert(&self.bodies, key, fetch(value)?),
                Change::Del(key) => batch.remove(&self.bodies, key),
            }
        }
        for change in rows {
            match change? {
                Change::Put(key, value) => batch.insert(&self.rows, key, value),
                Change::PutFar(key, value) => batch.insert(&self.rows, key, fetch(value)?),
                Change::Del(key) => batch.remove(&self.rows, key),
            }
        }
        let count = batch.len() as u64;
        batch.insert(&self.rows, FOLDED_KEY, folded.encode());
        batch.durability(Some(PersistMode::SyncData)).commit()?;
        Ok(count)
    }

    /// Writes changes of a large fold, in ascending order of key, into tables that nobody sees before [`Ingestion::finish`].
    pub(crate) fn write<'a, 'c>(
        &'a self,
        keyspace: Keyspace,
        changes: impl Iterator<Item = Result<Change<'c>, Error>>,
        compact: Compact,
    ) -> Result<Ingestion<'a>, Error> {
        let mut to = Ingestion {
            keyspace: self.keyspace(keyspace),
            compact,
            writer: None,
            count: 0,
        };
        for change in changes {
            to.write(change?)?;
        }
        Ok(to)
    }

    /// Lets fjall delete the files that compaction replaced: it does so only when a memtable that is not empty rotates.
    pub(crate) fn drop_old_files(&self, bodies_too: bool) -> Result<(), Error> {
        let keyspaces = [Some(&self.rows), bodies_too.then_some(&self.bodies)];
        for keyspace in keyspaces.into_iter().flatten() {
            keyspace.insert(HEARTBEAT_KEY, [])?;
            keyspace.rotate_memtable()?;
        }
        Ok(())
    }

    /// Gives back the space of deleted bodies: the first pass marks blob files as stale, the second one drops them.
    pub(crate) fn collect_blobs(&self) -> Result<(), Error> {
        self.bodies.major_compact()?;
        self.bodies.major_compact()?;
        self.drop_old_files(true)
    }

    /// Bytes that [`Tables::collect_blobs`] writes beside the blobs that it writes anew.
    pub(crate) fn body_table_bytes(&self) -> u64 {
        let version = self.bodies.tree.current_version();
        version.iter_levels().map(|level| level.size()).sum()
    }

    /// Bytes of deleted values that blob files still hold, as far as compaction has seen them.
    pub(crate) fn stale_blob_bytes(&self) -> u64 {
        self.bodies.fragmented_blob_bytes()
    }

    /// Sorted runs in level 0 of the worse of the two: reads get slower with each, fjall stops writers at 30.
    pub(crate) fn l0_runs(&self) -> usize {
        self.rows
            .tree
            .l0_run_count()
            .max(self.bodies.tree.l0_run_count())
    }

    /// An error if fjall has given up after an I/O error of its own.
    pub(crate) fn check(&self) -> Result<(), Error> {
        Ok(self.db.persist(PersistMode::Buffer)?)
    }

    /// fjall's worker is changing files, or is about to.
    pub(crate) fn busy(&self) -> bool {
        let sealed = self.rows.sealed_memtable_count() + self.bodies.sealed_memtable_count();
        sealed > 0 || self.db.outstanding_flushes() > 0 || self.db.active_compactions() > 0
    }

    pub(crate) fn sync(&self) -> Result<(), Error> {
        Ok(self.db.persist(PersistMode::SyncData)?)
    }

    /// Bytes that the next compaction may write before it deletes what it replaces, of the larger table: one runs at a time.
    pub(crate) fn compaction_bytes(&self) -> u64 {
        let of = |keyspace: &fjall::Keyspace| {
            let version = keyspace.tree.current_version();
            let levels: Vec<u64> = version.iter_levels().map(|level| level.size()).collect();
            compaction(&levels)
        };
        of(&self.rows).max(of(&self.bodies))
    }

    pub(crate) fn disk_bytes(&self) -> u64 {
        self.rows.disk_space() + self.bodies.disk_space()
    }
}

/// The most that levelled compaction of levels of these bytes writes at once: level 0 and the level that it goes to; or, further
/// down, a file with those of the next level that it overlaps with.
fn compaction(levels: &[u64]) -> u64 {
    /// A level below the first that is larger is not written anew: lsm-tree begins another one above it.
    const LEVEL_MAX: u64 = 256 << 20;
    /// So much larger is a level than the one above it.
    const RATIO: u64 = 10;
    let Some((first, below)) = levels.split_first() else {
        return 0;
    };
    let next = below.iter().enumerate().find(|(_, bytes)| **bytes > 0);
    let merged = next.filter(|(below, bytes)| *below == 0 || **bytes <= LEVEL_MAX);
    let top = first + merged.map_or(0, |(_, bytes)| *bytes);
    let filled: Vec<u64> = below.iter().copied().filter(|bytes| *bytes > 0).collect();
    let steps = filled.windows(2).filter_map(|pair| match *pair {
        [upper, lower] => Some(upper.min(TABLE_BYTES) + lower.min(RATIO * TABLE_BYTES)),
        _ => None,
    });
    steps.fold(top, u64::max)
}

impl Ingestion<'_> {
    fn write(&mut self, change: Change<'_>) -> Result<(), Error> {
        let write = match &mut self.writer {
            Some(writer) => writer,
            // Begun by the first row: it makes a file.
            none => none.insert(writer(self.keyspace, self.compact)?),
        };
        write(Some(change))?;
        self.count += 1;
        Ok(())
    }

    /// The position of a fold ([`Folded::encode`]), behind the last of its rows: whoever finishes these commits the fold.
    pub(crate) fn write_position(&mut self, folded: &[u8]) -> Result<(), Error> {
        self.write(Change::Put(FOLDED_KEY, folded))
    }

    /// Shows the tables, which are on the disk then. Returns the number of rows.
    pub(crate) fn finish(mut self) -> Result<u64, Error> {
        if let Some(write) = &mut self.writer {
            write(None)?;
        }
        Ok(self.count)
    }
}

fn writer(keyspace: &fjall::Keyspace, compact: Compact) -> Result<Writer<'_>, Error> {
    Ok(match compact {
        Compact::Now => {
            let mut to = Some(keyspace.start_ingestion()?);
            Box::new(move |change| match (change, &mut to) {
                (Some(Change::Put(key, value)), Some(to)) => to.write(key, value),
                (Some(Change::PutFar(key, value)), Some(to)) => to.write(key, fetch(value)?),
                (Some(Change::Del(key)), Some(to)) => to.write_tombstone(key),
                (_, to) => to.take().map_or(Ok(()), |to| to.finish()),
            })
        }
        // The same without telling fjall's worker.
        Compact::Later => {
            let err = fjall::Error::from;
            let mut to = Some(keyspace.tree.ingestion().map_err(err)?);
            Box::new(move |change| {
                match (change, &mut to) {
                    (Some(Change::Put(key, value)), Some(to)) => to.write(key, value),
                    (Some(Change::PutFar(key, value)), Some(to)) => to.write(key, fetch(value)?),
                    (Some(Change::Del(key)), Some(to)) => to.write_tombstone(key),
                    (_, to) => to.take().map_or(Ok(()), |to| to.finish()),
                }
                .map_err(err)
            })
        }
    })
}

/// Filters and indexes in pieces of a block from the second level on, so that a lookup reads pieces. Whole, those of a table of
/// 64 MiB take a megabyte, which with little cache was read and checked again for each lookup.
fn in_small_pieces(options: KeyspaceCreateOptions) -> KeyspaceCreateOptions {
    let below_first = || PartitioningPolicy::new([false, true]);
    options
        .index_block_partitioning_policy(below_first())
        .filter_block_partitioning_policy(below_first())
}

/// Reads a value from the log straight into what the table takes over.
fn fetch(mut value: FarValue<'_>) -> Result<fjall::UserValue, fjall::Error> {
    let length = value.len();
    Ok(fjall::UserValue::from_reader(&mut value, length)?)
}

impl Folded {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let fields = [FOLDED_VERSION, self.position].into_iter().chain(self.seqs);
        fields.flat_map(u64::to_le_bytes).collect()
    }
}

/// The value as bytes that may be kept.
fn share(value: fjall::UserValue) -> Bytes {
    if value.len() < SHARE {
        Bytes::copy_from_slice(&value)
    } else {
        Bytes::from_owner(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compaction_writes_a_level_or_a_file_with_what_it_overlaps() {
        const MIB: u64 = 1 << 20;
        let of = |levels: &[u64]| {
            let levels: Vec<u64> = levels.iter().map(|mib| mib * MIB).collect();
            compaction(&levels) / MIB
        };
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&[40, 0, 0]), 40);
        assert_eq!(of(&[40, 0, 100]), 140);
        assert_eq!(of(&[40, 0, 300]), 40, "another level above it");
        assert_eq!(of(&[40, 300, 0]), 340);
        assert_eq!(of(&[40, 0, 100, 5000]), 64 + 640);
        assert_eq!(of(&[40, 0, 10, 20]), 50);
        assert_eq!(of(&[0, 0, 10, 0, 200]), 210);
    }
}
