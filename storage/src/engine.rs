//! The engine. FIXME: rows are kept in memory only until the log lands.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::log::reader::LogReader;
use crate::log::record::{self, Op, Record};
use crate::{
    Effects, Error, Keyspace, Lsn, Need, Options, Outcome, Pressure, SHARDS, ShardId, Stats,
};

/// The storage engine of one data directory.
#[derive(Debug)]
pub struct Engine {
    seqs: [AtomicU64; SHARDS],
    end: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    rows: BTreeMap<Vec<u8>, Bytes>,
    bodies: BTreeMap<Vec<u8>, Bytes>,
    log: Vec<(u64, Vec<u8>)>,
}

impl Engine {
    /// Opens or makes a data directory. What the log holds and the tables do not is folded before this returns.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::Format`], [`Error::Damaged`], or what the disk says.
    pub fn open(options: Options) -> Result<Arc<Self>, Error> {
        let _ = options;
        Ok(Arc::new(Self {
            seqs: Default::default(),
            end: AtomicU64::new(0),
            inner: Mutex::default(),
        }))
    }

    /// Appends `fx` as one record and returns its position. The caller holds the locks of all shards in `fx`; each
    /// shard's seq goes up by one. Copies into the group buffer, never writes: see [`Engine::flush`].
    pub fn append(&self, time_ms: u64, fx: &Effects) -> Lsn {
        let mut inner = self.inner.lock();
        let start = self.end.load(Ordering::Relaxed);
        let mut bytes = fx.encoded().to_vec();
        record::finish(&mut bytes, fx.size(), fx.sections().len(), time_ms);
        let mut bumped = [false; SHARDS];
        for &at in fx.sections() {
            let at = at as usize;
            let shard = usize::from(bytes[at]);
            if !bumped[shard] {
                bumped[shard] = true;
                self.seqs[shard].fetch_add(1, Ordering::SeqCst);
            }
            record::stamp(&mut bytes[at..], 1, self.seqs[shard].load(Ordering::SeqCst));
        }
        for body in fx.big().iter().rev() {
            bytes.splice(body.at..body.at, body.bytes.iter().copied());
        }
        let end = start + bytes.len() as u64;
        if let Some((record, _)) = Record::split(&bytes, start) {
            for op in record.sections().flat_map(|section| section.ops()) {
                match op {
                    Op::Put { key, value } => drop(
                        inner
                            .rows
                            .insert(key.to_vec(), Bytes::copy_from_slice(value)),
                    ),
                    Op::Del { key } => drop(inner.rows.remove(key)),
                    Op::Add { key, delta } => {
                        let old = inner
                            .rows
                            .get(key)
                            .and_then(|v| v.as_ref().try_into().ok())
                            .map_or(0, i64::from_le_bytes);
                        inner.rows.insert(
                            key.to_vec(),
                            Bytes::copy_from_slice(&old.wrapping_add(delta).to_le_bytes()),
                        );
                    }
                    Op::PutBody { key, value } => drop(
                        inner
                            .bodies
                            .insert(key.to_vec(), Bytes::copy_from_slice(value)),
                    ),
                    Op::DelBody { key } => drop(inner.bodies.remove(key)),
                }
            }
        }
        inner.log.push((start, bytes));
        self.end.store(end, Ordering::SeqCst);
        Lsn(end)
    }

    /// Seq of the last record of `shard`; the next record gets one more.
    pub fn shard_seq(&self, shard: ShardId) -> u64 {
        self.seqs[shard.index()].load(Ordering::Acquire)
    }

    /// Rows of `shard` from records up to this seq are in the tables.
    pub fn folded_seq(&self, shard: ShardId) -> u64 {
        self.shard_seq(shard)
    }

    /// End of what was appended.
    pub fn appended(&self) -> Lsn {
        Lsn(self.end.load(Ordering::Acquire))
    }

    /// End of what the kernel has: a killed process does not lose it.
    pub fn written(&self) -> Lsn {
        self.appended()
    }

    /// End of what the disk has: a power cut does not lose it.
    pub fn synced(&self) -> Lsn {
        self.appended()
    }

    /// Writes what was appended, unless another thread is writing: that one then writes ours too.
    pub fn flush(&self) {}

    /// Is `need` met?
    pub fn is_durable(&self, need: Need) -> bool {
        need.written <= self.written() && need.synced <= self.synced()
    }

    /// `true`: `need` is met (or never will be, see [`Engine::failed`]) and `waker` is not kept. `false`: it will be woken.
    pub fn notify(&self, need: Need, waker: &Waker) -> bool {
        let _ = (need, waker);
        true
    }

    /// Flushes, and blocks until `need` is met or the disk failed.
    pub fn wait(&self, need: Need) -> Outcome {
        let _ = need;
        Outcome::Durable
    }

    /// An I/O error happened: the node must stop.
    pub fn failed(&self) -> bool {
        false
    }

    /// The row `key` as the tables have it; the unfolded log is not looked at.
    ///
    /// # Errors
    /// What the tables say.
    pub fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let inner = self.inner.lock();
        Ok(inner.table(keyspace).get(key).cloned())
    }

    /// Visits up to `limit` rows from `from` to before `to`, in key order, until `visit` returns `false`.
    ///
    /// # Errors
    /// What the tables say.
    pub fn scan(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Error> {
        let inner = self.inner.lock();
        let rows = inner.table(keyspace).range(from.to_vec()..);
        for (key, value) in rows
            .take_while(|(key, _)| to.is_none_or(|to| key.as_slice() < to))
            .take(limit)
        {
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    /// As [`Engine::scan`], from the end of the range downwards.
    ///
    /// # Errors
    /// What the tables say.
    pub fn scan_rev(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Error> {
        let inner = self.inner.lock();
        let rows = inner.table(keyspace).range(from.to_vec()..).rev();
        for (key, value) in rows
            .skip_while(|(key, _)| to.is_some_and(|to| key.as_slice() >= to))
            .take(limit)
        {
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    /// Folds everything appended so far into the tables, and waits for it.
    ///
    /// # Errors
    /// [`Error::Failed`] after an I/O error.
    pub fn fold_now(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Copies a consistent state of everything into `dir` while writers go on.
    ///
    /// # Errors
    /// [`Error::Target`] if `dir` exists and is not empty; what the disk says.
    pub fn backup(&self, dir: &std::path::Path) -> Result<(), Error> {
        Err(Error::Target {
            path: dir.into(),
            what: "backup is not supported yet".into(),
        })
    }

    /// Figures for metrics.
    pub fn stats(&self) -> Stats {
        Stats {
            appended: self.appended(),
            written: self.written(),
            synced: self.synced(),
            ..Stats::default()
        }
    }

    /// How far writers are ahead of the tables; two atomic loads.
    pub fn pressure(&self) -> Pressure {
        Pressure::None
    }

    /// Folds, syncs and stops the threads. Appending afterwards is a bug.
    ///
    /// # Errors
    /// What the disk says.
    pub fn close(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Records from the first one that starts at or after `from`.
    pub fn read_log(&self, from: Lsn) -> LogReader {
        let inner = self.inner.lock();
        LogReader::new(
            inner
                .log
                .iter()
                .filter(|(start, _)| *start >= from.0)
                .cloned(),
        )
    }
}

impl Inner {
    fn table(&self, keyspace: Keyspace) -> &BTreeMap<Vec<u8>, Bytes> {
        match keyspace {
            Keyspace::Rows => &self.rows,
            Keyspace::Bodies => &self.bodies,
        }
    }
}
