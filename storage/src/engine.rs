//! The engine: opens, recovers, and joins the log with the tables.

use std::cell::Cell;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::fold::{self, Folder};
use crate::log::reader::LogReader;
use crate::log::recover::{self, Recovered};
use crate::log::segment::Segment;
use crate::log::{self, Files, Log, sync_thread};
use crate::space::Reserve;
use crate::table::Tables;
use crate::trigger::Trigger;
use crate::{
    BodyAt, Durability, Effects, Error, Feed, Keyspace, Lsn, Need, Options, Outcome, Pressure,
    SHARDS, ShardId, Stats, mark,
};

/// Files and directories in the data directory.
pub(crate) const LOCK: &str = "LOCK";
pub(crate) const FORMAT: &str = "FORMAT";
pub(crate) const TERM: &str = "term";
pub(crate) const CLEAN: &str = "clean";
pub(crate) const LOG_DIR: &str = "log";
pub(crate) const TABLES_DIR: &str = "tables";
/// Version of the layout of the data directory as a whole.
pub(crate) const FORMAT_VERSION: u64 = 1;

/// After an unclean stop positions and seqs go on in the range of the new term: what a lost tail may have used is
/// never given again. A range has this many bits.
const POSITION_BITS: u32 = 40;
const SEQ_BITS: u32 = 32;
/// Appended but unwritten bytes at which writers are held: the disk does not keep up.
const UNWRITTEN_MAX: u64 = 64 << 20;
/// However far the tables are behind, the log may grow by this many bytes per second: sessions must get on.
const PACE_MIN: u64 = 1 << 20;
/// How much nicer than the rest the fold and fjall's worker are.
const NICE: i32 = 10;

thread_local! {
    /// See [`appended_by_this_thread`].
    static APPENDED: Cell<u64> = const { Cell::new(0) };
}

/// Bytes that the calling thread has appended to logs since it began: the difference between two looks tells whose they
/// are.
#[inline]
pub fn appended_by_this_thread() -> u64 {
    APPENDED.get()
}

/// The storage engine of one data directory. See the crate's head for the idea.
#[derive(Debug)]
pub struct Engine {
    seqs: [AtomicU64; SHARDS],
    log: Arc<Log>,
    pub(crate) folder: Arc<Folder>,
    reserve: Arc<Reserve>,
    /// See [`Engine::limit_pace`].
    pace_max: AtomicU64,
    pub(crate) options: Options,
    recovery_us: u64,
    threads: Mutex<Threads>,
    /// Released last.
    _lock: DirLock,
}

#[derive(Debug, Default)]
struct Threads {
    fold: Option<JoinHandle<()>>,
    sync: Option<JoinHandle<()>>,
}

impl Engine {
    /// Opens or makes a data directory. What the log holds and the tables do not is folded before this returns.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::Format`], [`Error::Damaged`], or what the disk says.
    pub fn open(options: Options) -> Result<Arc<Self>, Error> {
        let began = Instant::now();
        let dir = options.dir.clone();
        let log_dir = dir.join(LOG_DIR);
        make_dirs(&log_dir)?;
        let lock = lock(&dir)?;
        check_format(&dir, &options)?;
        let reserve = Arc::new(Reserve::new(&dir, options.reserve_bytes));
        let tables = open_tables(&dir, options.cache_bytes)?;

        let folded = tables.folded()?;
        let clean = mark::read(&dir, CLEAN)?.and_then(|fields| fields.first().copied());
        let intent = fold::intent(&dir)?;
        let claim = clean.unwrap_or(0).max(intent.unwrap_or(0));
        let Recovered {
            segments,
            end,
            seqs,
            term,
            cut_bytes,
        } = recover::recover(&log_dir, folded.position, folded.seqs, claim)?;
        if cut_bytes > 0 {
            tracing::warn!(
                position = end,
                bytes = cut_bytes,
                "cut a torn tail off the log: it had never been synced"
            );
        }
        let last_term = mark::read(&dir, TERM)?.and_then(|fields| fields.first().copied());
        let is_clean = clean == Some(end) || (last_term.is_none() && end == 0);
        let term = u32::try_from(last_term.unwrap_or(0))
            .unwrap_or(u32::MAX)
            .max(term)
            + 1;
        mark::write(&dir, TERM, &[u64::from(term)], &options.faults)?;
        mark::remove(&dir, CLEAN, &options.faults)?;

        let start = if is_clean {
            end
        } else {
            leap(end, POSITION_BITS, term)
        };
        let seqs = if is_clean {
            seqs
        } else {
            seqs.map(|seq| leap(seq, SEQ_BITS, term))
        };
        let files = Arc::new(Files::new(log_dir, segments));
        let trigger = Arc::new(Trigger::new(options.fold_bytes, folded.position));
        let folder = Arc::new(Folder::new(fold::Start {
            dir,
            tables,
            folded,
            files: Arc::clone(&files),
            faults: options.faults.clone(),
            trigger: Arc::clone(&trigger),
            window_bytes: options.fold_bytes,
            batch_bytes: options.batch_bytes,
            retain_bytes: options.retain_bytes,
            retain_age: options.retain_age,
        }));
        folder.recover(end, intent)?;
        folder.go_on_from(start, &seqs);

        let log = Arc::new(Log::new(log::Start {
            files,
            position: start,
            previous_end: end,
            term,
            segment_bytes: options.segment_bytes,
            sync_interval: options.sync_interval,
            faults: options.faults.clone(),
            trigger,
            reserve: Arc::clone(&reserve),
        }));
        let recovery_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let sync = spawn("log-sync", {
            let log = Arc::clone(&log);
            move || sync_thread::run(&log)
        })?;
        let fold = spawn("fold", {
            let (log, folder) = (Arc::clone(&log), Arc::clone(&folder));
            move || run_fold(&log, &folder)
        })?;
        let threads = Mutex::new(Threads {
            fold: Some(fold),
            sync: Some(sync),
        });
        let seqs = seqs.map(AtomicU64::new);
        Ok(Arc::new(Self {
            seqs,
            log,
            folder,
            reserve,
            pace_max: AtomicU64::new(u64::MAX),
            options,
            recovery_us,
            threads,
            _lock: lock,
        }))
    }

    /// Appends `fx` as one record and returns its position. The caller holds the locks of all shards in `fx`; each
    /// shard's seq goes up by one. Copies into the group buffer, never writes: see [`Engine::flush`].
    ///
    /// `time_ms` is the wall clock of the command; it may step back, the order of the log does not depend on it.
    #[inline]
    pub fn append(&self, time_ms: u64, fx: &Effects) -> Lsn {
        if fx.is_empty() {
            return self.appended();
        }
        let term = self.log.term;
        APPENDED.set(APPENDED.get().wrapping_add(fx.size() as u64));
        let mut bumped = 0u16;
        Lsn(self.log.combiner.append(fx.size(), |group| {
            group.append(time_ms, fx, term, |shard| {
                let Some(counter) = self.seqs.get(usize::from(shard)) else {
                    return 0;
                };
                let mut seq = counter.load(Ordering::Relaxed);
                if bumped & 1 << shard == 0 {
                    bumped |= 1 << shard;
                    seq += 1;
                    // Only holders of the shard's lock come here, so this is no read-modify-write.
                    counter.store(seq, Ordering::Release);
                }
                seq
            });
        }))
    }

    /// Seq of the last record of `shard`; the next record gets one more.
    #[inline]
    pub fn shard_seq(&self, shard: ShardId) -> u64 {
        self.seqs
            .get(shard.index())
            .map_or(0, |seq| seq.load(Ordering::Acquire))
    }

    /// Rows of `shard` from records up to this seq are in the tables.
    #[inline]
    pub fn folded_seq(&self, shard: ShardId) -> u64 {
        self.folder.seq(shard.index())
    }

    /// End of what was appended.
    #[inline]
    pub fn appended(&self) -> Lsn {
        Lsn(self.log.combiner.appended())
    }

    /// End of what the kernel has: a killed process does not lose it.
    #[inline]
    pub fn written(&self) -> Lsn {
        Lsn(self.log.written())
    }

    /// End of what the disk has: a power cut does not lose it.
    #[inline]
    pub fn synced(&self) -> Lsn {
        Lsn(self.log.synced())
    }

    /// Writes what was appended, unless another thread is writing: that one then writes ours too. So `written` may be
    /// behind when this returns; see [`Engine::notify`].
    #[inline]
    pub fn flush(&self) {
        self.log.flush();
    }

    /// Is `need` met?
    #[inline]
    pub fn is_durable(&self, need: Need) -> bool {
        self.log.combiner.is_durable(need)
    }

    /// `true`: `need` is settled (met, or [`Engine::failed`]) and `waker` is not kept. `false`: `waker` is woken when it
    /// may be settled; ask again then. Somebody must have called [`Engine::flush`] after the append.
    pub fn notify(&self, need: Need, waker: &Waker) -> bool {
        self.log.notify(need, waker)
    }

    /// Flushes, and blocks until `need` is met or the disk failed.
    pub fn wait(&self, need: Need) -> Outcome {
        self.log.wait(need)
    }

    /// An I/O error happened: the node must stop, since going on would lie about durability.
    #[inline]
    pub fn failed(&self) -> bool {
        self.log.failed()
    }

    /// Something that must not fail did: from here on nothing becomes durable and [`Engine::failed`] says so, for whoever
    /// stops the process. For callers that cannot read what they have acknowledged.
    pub fn fail(&self, what: &str, error: &dyn std::fmt::Display) {
        self.log.fail(what, error);
    }

    /// End of what the tables have.
    #[inline]
    pub fn folded(&self) -> Lsn {
        Lsn(self.folder.position())
    }

    /// The row `key` as the tables have it; the unfolded log is not looked at.
    ///
    /// # Errors
    /// What the tables say.
    pub fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.folder.tables.get(keyspace, key)
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
        self.folder
            .tables
            .scan(keyspace, (from, to), limit, false, visit)
    }

    /// As [`Engine::scan`] without a limit, for large values: they are handed out as they are, not lent.
    ///
    /// # Errors
    /// What the tables say.
    pub fn scan_shared(
        &self,
        keyspace: Keyspace,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> bool,
    ) -> Result<(), Error> {
        self.folder.tables.scan_shared(keyspace, (from, to), visit)
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
        self.folder
            .tables
            .scan(keyspace, (from, to), limit, true, visit)
    }

    /// Folds everything appended so far into the tables, and waits for it.
    ///
    /// # Errors
    /// [`Error::Failed`] after an I/O error, or when the engine was closed meanwhile; [`Error::NoRoom`] while the disk has
    /// no room for the tables to grow.
    pub fn fold_now(&self) -> Result<(), Error> {
        let goal = self.appended();
        if self.wait(Need {
            written: goal,
            synced: Lsn(0),
        }) == Outcome::Unknown
        {
            return Err(Error::Failed);
        }
        let starved = || self.folder.is_starved();
        let done = self
            .folder
            .trigger
            .request(goal.0, || self.failed() || starved());
        match done {
            true => Ok(()),
            false if starved() && !self.failed() => Err(Error::NoRoom),
            false => Err(Error::Failed),
        }
    }

    /// Lets the fold begin with what was written so far, without waiting for it.
    pub fn ask_for_fold(&self) {
        self.folder.trigger.ask(self.written().0);
    }

    /// `short`: folded log is let go instead of being kept for readers. Else it is kept again, and so is the reserve
    /// ([`Options::reserve_bytes`]).
    ///
    /// # Errors
    /// What the disk says. Nothing depends on it having worked.
    pub fn be_short_of_disk(&self, short: bool) -> Result<(), Error> {
        self.folder.be_lean(short)?;
        if short {
            return Ok(());
        }
        self.reserve
            .refill()
            .map_err(|e| Error::io("cannot keep a reserve in", &self.options.dir, e))
    }

    /// Free bytes of disk that the next fold and compaction need.
    pub fn room_for_fold(&self) -> u64 {
        self.folder.room_to_come(self.written().0)
    }

    /// The log was written with what is kept for a full disk, and more than half of that is used up.
    pub fn lives_on_reserve(&self) -> bool {
        self.reserve.is_low()
    }

    /// Figures for metrics.
    pub fn stats(&self) -> Stats {
        let (counters, folder) = (&self.log.counters, &self.folder);
        let (appended, written) = (self.appended(), self.written());
        let folded = folder.position();
        let unfolded_bytes = appended.0 - folded.min(appended.0);
        let extent = self.log.files.extent(written.0);
        Stats {
            appended,
            written,
            synced: self.synced(),
            folded: Lsn(folded),
            unfolded_bytes,
            unfolded_windows: unfolded_bytes / self.options.fold_bytes.max(1),
            log_bytes: extent.bytes,
            log_segments: extent.files,
            log_writes: counters.writes.load(Ordering::Relaxed),
            log_syncs: counters.syncs.load(Ordering::Relaxed),
            records: counters.records.load(Ordering::Relaxed),
            folds: folder.folds.load(Ordering::Relaxed),
            folded_rows: folder.folded_rows.load(Ordering::Relaxed),
            last_fold_us: folder.last_fold_us.load(Ordering::Relaxed),
            l0_runs: folder.tables.l0_runs() as u64,
            table_bytes: folder.tables.disk_bytes(),
            recovery_us: self.recovery_us,
        }
    }

    /// How far writers are ahead of the tables and of the disk; a few atomic loads.
    #[inline]
    pub fn pressure(&self) -> Pressure {
        let appended = self.appended().0;
        let unfolded = appended.saturating_sub(self.folder.position());
        let window = self.options.fold_bytes.max(1);
        if unfolded >= 4 * window || appended.saturating_sub(self.log.written()) >= UNWRITTEN_MAX {
            Pressure::Stop
        } else if unfolded >= 2 * window {
            Pressure::Slow
        } else {
            Pressure::None
        }
    }

    /// How fast the log may grow while the tables are behind, in bytes per second; `None`: as fast as it likes. From twice
    /// what the fold manages, at two windows, down to next to nothing at four: in between the two meet.
    #[inline]
    pub fn pace(&self) -> Option<u64> {
        let most = self.pace_max.load(Ordering::Relaxed);
        match self.pressure() {
            Pressure::None => (most < u64::MAX).then_some(most),
            Pressure::Slow | Pressure::Stop => {
                let unfolded = self.appended().0.saturating_sub(self.folder.position());
                let fold_rate = self.folder.bytes_per_s.load(Ordering::Relaxed);
                let pace = pace_at(unfolded, self.options.fold_bytes.max(1), fold_rate);
                Some(pace.min(most))
            }
        }
    }

    /// The log may not grow faster than this, in bytes per second, whatever the tables can do; `u64::MAX`: no limit. For a
    /// disk that is nearly full.
    pub fn limit_pace(&self, bytes_per_s: u64) {
        self.pace_max
            .store(bytes_per_s.max(PACE_MIN), Ordering::Relaxed);
    }

    /// Folds, syncs and stops the threads. Appending afterwards is a bug.
    ///
    /// # Errors
    /// What the disk says; [`Error::Failed`] after an earlier I/O error. The threads are stopped either way.
    pub fn close(&self) -> Result<(), Error> {
        let folded = self.fold_now();
        self.stop_threads();
        folded?;
        self.log
            .sync()
            .map_err(|e| Error::io("cannot sync", &self.options.dir, e))?;
        self.folder.tables.sync()?;
        mark::write(
            &self.options.dir,
            CLEAN,
            &[self.log_end()],
            &self.options.faults,
        )
    }

    /// Reads bodies back from the log into `into`, in order, at the places learned from [`Effects::put_body`]. So a body
    /// that is written ([`Engine::written`] is at or behind its end) need not stay in memory until the tables have it.
    /// Needs no lock. Neighbours share a read, and the memory that it fills.
    ///
    /// Returns how many it read. Fewer than asked for: the log does not have the next one any more, so the tables do
    /// (unless it was deleted since).
    ///
    /// # Errors
    /// What the disk says; also when a body is not written yet.
    pub fn read_bodies(&self, bodies: &[BodyAt], into: &mut Vec<Bytes>) -> Result<usize, Error> {
        log::bodies::read(&self.log.files, bodies, into)
            .map_err(|e| Error::io("cannot read from", &self.log.files.dir, e))
    }

    /// Records from the first one that ends after `from`.
    pub fn read_log(&self, from: Lsn) -> LogReader {
        LogReader::new(Arc::clone(&self.log), from)
    }

    /// Follows the log behind `from`, which is [`Engine::appended`] for what is yet to come, or where an earlier feed stood. A
    /// record is given when it is as safe as `class` asks.
    pub fn subscribe(&self, from: Lsn, class: Durability) -> Feed {
        Feed::new(Arc::clone(&self.log), from, class)
    }

    pub(crate) fn segments(&self) -> Vec<Segment> {
        self.log.files.snapshot()
    }

    /// Where the log ends on the disk: without the positions skipped at start, if nothing was written since.
    pub(crate) fn log_end(&self) -> u64 {
        let previous_end = self.log.combiner.with_sink(|writer| writer.previous_end());
        previous_end.min(self.log.written())
    }

    fn stop_threads(&self) {
        let Threads { fold, sync } = std::mem::take(&mut *self.threads.lock());
        // A panic of a thread has been reported by its hook; there is nothing to add.
        self.folder.trigger.stop();
        drop(fold.map(JoinHandle::join));
        // The fold may have waited for a sync until here.
        self.log.stop();
        drop(sync.map(JoinHandle::join));
    }
}

impl Drop for Engine {
    /// Without [`Engine::close`] the log stays as it is: the next open folds it.
    fn drop(&mut self) {
        self.stop_threads();
    }
}

/// See [`Engine::pace`].
fn pace_at(unfolded: u64, window: u64, fold_rate: u64) -> u64 {
    let left = window.saturating_mul(4).saturating_sub(unfolded);
    let pace = u128::from(fold_rate) * u128::from(left) / u128::from(window);
    u64::try_from(pace).unwrap_or(u64::MAX).max(PACE_MIN)
}

/// The first number that no earlier start can have used: each start has a term of its own, durable before it is used.
fn leap(last: u64, bits: u32, term: u32) -> u64 {
    ((last >> bits) + 1).max(u64::from(term)) << bits
}

/// The life of the fold's thread.
fn run_fold(log: &Log, folder: &Folder) {
    be_nice();
    while let Some(goal) = folder.trigger.wait() {
        let ensure_synced = |position: u64| {
            let need = Need {
                written: Lsn(position),
                synced: Lsn(position),
            };
            log.wait(need) == Outcome::Durable
        };
        if let Err(error) = folder.fold(goal, &ensure_synced) {
            if !folder.trigger.stopped() {
                log.fail("fold", &error);
            }
            return;
        }
    }
}

fn be_nice() {
    // Linux: the calling thread only. Refused by a sandbox: then the fold competes on equal terms.
    let _ = rustix::process::nice(NICE);
}

/// fjall's worker inherits niceness from the thread that opens it, so a thread of its own does.
pub(crate) fn open_tables(dir: &Path, cache_bytes: u64) -> Result<Tables, Error> {
    let path = dir.join(TABLES_DIR);
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| {
            be_nice();
            Tables::open(&path, cache_bytes)
        });
        match opening.join() {
            Ok(opened) => opened,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// The data directory is ours while this lives.
#[derive(Debug)]
pub(crate) struct DirLock(File);

impl Drop for DirLock {
    fn drop(&mut self) {
        // Closing would not do: a child that is just being forked holds the file too, until it executes.
        let _ = self.0.unlock();
    }
}

pub(crate) fn lock(dir: &Path) -> Result<DirLock, Error> {
    let path = dir.join(LOCK);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = file.map_err(|e| Error::io("cannot open", &path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(DirLock(file)),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::InUse { path: dir.into() }),
        Err(std::fs::TryLockError::Error(e)) => Err(Error::io("cannot lock", path, e)),
    }
}

/// Makes `dir` and what is above it, and their names durable.
fn make_dirs(dir: &Path) -> Result<(), Error> {
    let err = |e| Error::io("cannot make", dir, e);
    let missing: Vec<_> = dir
        .ancestors()
        .take_while(|above| !above.as_os_str().is_empty() && !above.exists())
        .collect();
    std::fs::create_dir_all(dir).map_err(err)?;
    for made in missing {
        let parent = made
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        mark::sync_dir(parent.unwrap_or(Path::new("."))).map_err(err)?;
    }
    Ok(())
}

fn check_format(dir: &Path, options: &Options) -> Result<(), Error> {
    match mark::read(dir, FORMAT)?.and_then(|fields| fields.first().copied()) {
        Some(FORMAT_VERSION) => Ok(()),
        Some(found) => {
            let (found, known) = (u32::try_from(found).unwrap_or(u32::MAX), 1);
            Err(Error::Format {
                path: dir.into(),
                found,
                known,
            })
        }
        None => mark::write(dir, FORMAT, &[FORMAT_VERSION], &options.faults),
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    let spawned = std::thread::Builder::new().name(name.into()).spawn(run);
    spawned.map_err(|e| Error::io("cannot start a thread for", name, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_falls_as_the_tables_fall_behind() {
        let pace = |windows: u64| pace_at(windows * 100, 100, 50_000_000);
        assert_eq!((pace(2), pace(3)), (100_000_000, 50_000_000));
        assert_eq!((pace(4), pace(9)), (PACE_MIN, PACE_MIN));
        assert_eq!(pace_at(u64::MAX, u64::MAX, 0), PACE_MIN);
    }
}
