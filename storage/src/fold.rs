//! The fold: moves a window of the log into the tables.
//!
//! ```text
//! sync the log up to the bound ─▶ intent ─▶ bodies ─▶ rows + position (commit) ─▶ delete old log
//! ```
//! A crash at any step leaves tables at the old position or at the new one. Bodies of a window that did not commit may
//! be there already; the same window is then folded again first, and comes to the same.
//!
//! **A row that was put and deleted within one window costs the tables nothing, unless they hold the row already**: then
//! it needs its tombstone. That is looked up (a filter says no in 0.2 µs), never guessed from the window alone: a body
//! that a crashed fold had ingested would else come back.

pub(crate) mod far;
pub(crate) mod plan;
mod recovery;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use crate::fault::{Faults, Step};
use crate::log::Files;
use crate::log::segment::{Segment, now_ms};
use crate::space;
use crate::table::squeeze::Squeezed;
use crate::table::{Change, Compact, Folded, Ingestion, Tables};
use crate::trigger::Trigger;
use crate::{Error, Keyspace, SHARDS, mark};
use plan::{Half, Last, Plan, Sight};

/// File that names the window being folded.
pub(crate) const INTENT: &str = "fold_intent";
/// More rows than this are ingested, however small.
const BATCH_ROWS: usize = 8192;
/// The fold waits while a table has this many runs in level 0; fjall itself slows writers at 20.
pub const L0_RUNS: usize = 12;
/// Bytes of log per second that a fold is taken to manage before one was measured.
const FOLD_RATE: u64 = 64 << 20;
/// For the tables' own bookkeeping.
const ROOM_MIN: u64 = 2 << 20;
/// Compaction because the disk is short: so long at a time, as far as its steps allow, and then so many times that without.
const SQUEEZE: Duration = Duration::from_secs(1);
const SQUEEZE_REST: u32 = 4;
/// How often a fold that waits for room looks again.
const ROOM_EVERY: Duration = Duration::from_millis(50);
/// Deleted bodies worth a pass over the index: as bytes known to be stale, or as a guess from the number deleted.
const STALE_BYTES: u64 = 64 << 20;
const STALE_BODIES: u64 = 64 << 10;

/// Folds windows, one at a time.
#[derive(Debug)]
pub(crate) struct Folder {
    dir: PathBuf,
    pub(crate) tables: Tables,
    files: Arc<Files>,
    faults: Faults,
    pub(crate) trigger: Arc<Trigger>,
    window_bytes: u64,
    batch_bytes: u64,
    retain_bytes: u64,
    retain_age: Duration,
    /// Held while a window is folded, and by a backup.
    folding: Mutex<Folding>,
    position: AtomicU64,
    seqs: [AtomicU64; SHARDS],
    pub(crate) folds: AtomicU64,
    pub(crate) folded_rows: AtomicU64,
    pub(crate) last_fold_us: AtomicU64,
    /// What the last large fold moved, in bytes of log per second.
    pub(crate) bytes_per_s: AtomicU64,
    /// The disk is short of room: folded log is not kept for readers.
    lean: AtomicBool,
    /// Bytes of free disk that a fold waits for; 0: it does not.
    starved: AtomicU64,
}

#[derive(Debug, Default)]
pub(crate) struct Folding {
    /// Bodies deleted since space was last given back.
    deleted_bodies: u64,
    /// Rows and bodies deleted since the tables were last compacted because the disk is short.
    deleted: u64,
    /// The tables are not compacted again before this.
    rest_until: Option<Instant>,
}

/// A window of the log, ready to be put into the tables.
#[derive(Debug)]
struct Window {
    plan: Plan,
    end: u64,
    /// When its planning began.
    began: Instant,
}

/// The tables of a window, not seen yet.
struct Written<'a> {
    bodies: Ingestion<'a>,
    rows: Ingestion<'a>,
}

/// How a folder begins.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) dir: PathBuf,
    pub(crate) tables: Tables,
    pub(crate) folded: Folded,
    pub(crate) files: Arc<Files>,
    pub(crate) faults: Faults,
    pub(crate) trigger: Arc<Trigger>,
    pub(crate) window_bytes: u64,
    pub(crate) batch_bytes: u64,
    pub(crate) retain_bytes: u64,
    pub(crate) retain_age: Duration,
}

/// The window that a fold had begun, if it did not commit.
pub(crate) fn intent(dir: &std::path::Path) -> Result<Option<u64>, Error> {
    let fields = mark::read(dir, INTENT)?;
    Ok(fields.and_then(|fields| fields.first().copied()))
}

impl Folder {
    pub(crate) fn new(start: Start) -> Self {
        Self {
            dir: start.dir,
            files: start.files,
            faults: start.faults,
            trigger: start.trigger,
            window_bytes: start.window_bytes,
            batch_bytes: start.batch_bytes,
            retain_bytes: start.retain_bytes,
            retain_age: start.retain_age,
            folding: Mutex::new(Folding {
                deleted: start.tables.tombstones(),
                ..Folding::default()
            }),
            tables: start.tables,
            position: AtomicU64::new(start.folded.position),
            seqs: start.folded.seqs.map(AtomicU64::new),
            folds: AtomicU64::new(0),
            folded_rows: AtomicU64::new(0),
            last_fold_us: AtomicU64::new(0),
            bytes_per_s: AtomicU64::new(FOLD_RATE),
            lean: AtomicBool::new(false),
            starved: AtomicU64::new(0),
        }
    }

    pub(crate) fn position(&self) -> u64 {
        self.position.load(Ordering::Acquire)
    }

    pub(crate) fn seq(&self, shard: usize) -> u64 {
        self.seqs
            .get(shard)
            .map_or(0, |seq| seq.load(Ordering::Acquire))
    }

    /// Keeps folds out.
    pub(crate) fn hold(&self) -> MutexGuard<'_, Folding> {
        self.folding.lock()
    }

    /// After recovery: the tables hold everything up to `position`, where the log now goes on with `seqs`.
    pub(crate) fn go_on_from(&self, position: u64, seqs: &[u64; SHARDS]) {
        self.position.store(position, Ordering::Release);
        for (seq, new) in self.seqs.iter().zip(seqs) {
            seq.store(*new, Ordering::Release);
        }
        self.trigger.folded(position);
    }

    /// Folds the log up to `goal`, in as many windows as it takes. `ensure_synced` puts it on the disk first.
    pub(crate) fn fold(&self, goal: u64, ensure_synced: &dyn Fn(u64) -> bool) -> Result<(), Error> {
        while self.position() < goal {
            let quiet = self.wait_for_room(goal)?;
            let mut folding = self.hold();
            if !ensure_synced(goal) {
                return Err(Error::Failed);
            }
            let window = self.plan(self.position(), goal, false)?;
            self.install(&mut folding, &window, quiet)?;
            folding.deleted += window.plan.deleted_rows + window.plan.deleted_bodies;
            self.make_room(&mut folding)?;
        }
        // Nothing to fold may mean that nothing can be written before there is room.
        self.make_room(&mut self.hold())
    }

    fn plan(&self, start: u64, goal: u64, exact: bool) -> Result<Window, Error> {
        let began = Instant::now();
        let plan = Plan::read(self.segments(), start, goal, self.window_bytes, exact)?;
        // Nothing left: positions that an unclean stop skipped.
        let end = if plan.bytes == 0 { goal } else { plan.end };
        Ok(Window { plan, end, began })
    }

    /// Puts a window into the tables. `quiet`: without compacting them now.
    fn install(&self, folding: &mut Folding, window: &Window, quiet: bool) -> Result<(), Error> {
        self.at(Step::FoldSynced)?;
        let plan = &window.plan;
        if plan.bytes == 0 {
            return self.folded(window, &self.reached(window), 0, quiet);
        }
        if self.is_small(plan) {
            let folded = self.reached(window);
            let rows = self.fold_small(plan, &folded)?;
            return self.folded(window, &folded, rows, quiet);
        }
        self.begin(window)?;
        let written = self.write(plan, Half::Both, self.when_to_compact(quiet, 0))?;
        self.commit(folding, window, written, quiet)
    }

    /// Tables of the window, a large one, are going to be seen.
    fn begin(&self, window: &Window) -> Result<(), Error> {
        self.wait_for_compaction()?;
        mark::write(&self.dir, INTENT, &[window.end], &self.faults)?;
        self.at(Step::FoldIntent)
    }

    /// `ahead`: windows that come before this one and are not in the tables yet.
    fn when_to_compact(&self, quiet: bool, ahead: usize) -> Compact {
        // Compaction would take a core and half of the disk from a recovery, and room that there may not be.
        if quiet && self.tables.l0_runs() + ahead + 1 < L0_RUNS {
            Compact::Later
        } else {
            Compact::Now
        }
    }

    /// How far the tables are with this window, and behind all before it.
    fn reached(&self, window: &Window) -> Folded {
        let mut folded = Folded {
            position: window.end,
            seqs: [0; SHARDS],
        };
        for (shard, seq) in folded.seqs.iter_mut().enumerate() {
            let in_window = window.plan.seqs.get(shard).copied().unwrap_or(0);
            *seq = self.seq(shard).max(in_window);
        }
        folded
    }

    /// The window is in the tables.
    fn folded(
        &self,
        window: &Window,
        folded: &Folded,
        rows: u64,
        quiet: bool,
    ) -> Result<(), Error> {
        self.folded_rows.fetch_add(rows, Ordering::Relaxed);
        for (seq, new) in self.seqs.iter().zip(folded.seqs) {
            seq.store(new, Ordering::Release);
        }
        self.position.store(window.end, Ordering::Release);
        self.folds.fetch_add(1, Ordering::Relaxed);
        let took_us = u64::try_from(window.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.last_fold_us.store(took_us, Ordering::Relaxed);
        if window.plan.bytes >= self.batch_bytes && !quiet {
            let rate = window.plan.bytes.saturating_mul(1_000_000) / took_us.max(1);
            self.bytes_per_s.store(rate, Ordering::Relaxed);
        }
        self.trim_log()?;
        self.trigger.folded(window.end);
        Ok(())
    }

    fn is_small(&self, plan: &Plan) -> bool {
        plan.bytes < self.batch_bytes && plan.len() < BATCH_ROWS
    }

    fn fold_small(&self, plan: &Plan, folded: &Folded) -> Result<u64, Error> {
        let mut counts = [Vec::new(), Vec::new()];
        let [bodies, rows] = &mut counts;
        let sight = plan.sight();
        let bodies = self.resolve(plan, Keyspace::Bodies, Half::Both, &sight, bodies)?;
        let rows = self.resolve(plan, Keyspace::Rows, Half::Both, &sight, rows)?;
        let count = self.tables.apply(bodies, rows, folded)?;
        self.at(Step::FoldRows)?;
        Ok(count)
    }

    /// First half of a large fold: the window's changes, in tables that nobody sees.
    fn write(&self, plan: &Plan, half: Half, compact: Compact) -> Result<Written<'_>, Error> {
        Ok(Written {
            bodies: self.write_to(Keyspace::Bodies, plan, half, compact)?,
            rows: self.write_to(Keyspace::Rows, plan, half, compact)?,
        })
    }

    fn write_to(
        &self,
        keyspace: Keyspace,
        plan: &Plan,
        half: Half,
        compact: Compact,
    ) -> Result<Ingestion<'_>, Error> {
        let mut counts = Vec::new();
        let sight = plan.sight();
        let changes = self.resolve(plan, keyspace, half, &sight, &mut counts)?;
        self.tables.write(keyspace, changes, compact)
    }

    /// Second half: bodies first, which nobody misses, since readers reach them through rows or memory only; then rows and the
    /// position, which is the commit point.
    fn commit(
        &self,
        folding: &mut Folding,
        window: &Window,
        written: Written<'_>,
        quiet: bool,
    ) -> Result<(), Error> {
        let plan = &window.plan;
        let folded = self.reached(window);
        let Written { bodies, mut rows } = written;
        let mut count = bodies.finish()?;
        self.at(Step::FoldBodies)?;
        rows.write_position(&folded.encode())?;
        count += rows.finish()? - 1;
        self.at(Step::FoldRows)?;
        folding.deleted_bodies += plan.deleted_bodies;
        let stale = self.tables.stale_blob_bytes();
        // A blob file is written anew when a quarter of it is stale.
        let written = self.tables.body_table_bytes();
        let has_room = space::free(&self.dir).map_or(true, |free| {
            free / 4 >= stale + ROOM_MIN && free / 2 >= written
        });
        if has_room && (folding.deleted_bodies >= STALE_BODIES || stale >= STALE_BYTES) {
            folding.deleted_bodies = 0;
            self.tables.collect_blobs()?;
        } else if !quiet {
            self.tables.drop_old_files(!plan.bodies.is_empty())?;
        }
        self.folded(window, &folded, count, quiet)
    }

    /// What is written to the table: tombstones only where it has the row or may have it, counters as values (kept in
    /// `counts`, which the changes borrow from).
    fn resolve<'a>(
        &'a self,
        plan: &'a Plan,
        keyspace: Keyspace,
        half: Half,
        sight: &'a Sight<'a>,
        counts: &'a mut Vec<[u8; 8]>,
    ) -> Result<impl Iterator<Item = Result<Change<'a>, Error>> + 'a, Error> {
        let latest = match keyspace {
            Keyspace::Rows => &plan.rows,
            Keyspace::Bodies => &plan.bodies,
        };
        for last in plan.counters(latest, half, sight) {
            match last {
                Last::Add(key, sum) => {
                    let base = self
                        .tables
                        .get(keyspace, key)?
                        .map_or(0, |value| plan::counter(&value));
                    counts.push(base.wrapping_add(sum).to_le_bytes());
                }
                Last::Count(_, value) => counts.push(value.to_le_bytes()),
                Last::Put(..) | Last::PutFar(..) | Last::Del { .. } => {}
            }
        }
        let mut counts = counts.iter();
        Ok(plan
            .changes(latest, half, sight)
            .filter_map(move |last| match last {
                Last::Put(key, value) => Some(Ok(Change::Put(key, value))),
                Last::PutFar(key, value) => Some(Ok(Change::PutFar(key, value))),
                Last::Add(key, _) | Last::Count(key, _) => {
                    counts.next().map(|value| Ok(Change::Put(key, value)))
                }
                Last::Del { key, born: false } => Some(Ok(Change::Del(key))),
                Last::Del { key, born: true } => match self.tables.contains(keyspace, key) {
                    Ok(true) => Some(Ok(Change::Del(key))),
                    Ok(false) => None,
                    Err(e) => Some(Err(e)),
                },
            }))
    }

    fn wait_for_compaction(&self) -> Result<(), Error> {
        while self.tables.l0_runs() >= L0_RUNS {
            self.tables.check()?;
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// A fold waits for room on the disk.
    pub(crate) fn is_starved(&self) -> bool {
        match self.starved.load(Ordering::Relaxed) {
            0 => false,
            // It will see room that has come just now.
            room => space::free(&self.dir).is_ok_and(|free| free < room),
        }
    }

    /// Free disk with which a fold of what the log holds up to `goal` begins: a small one for the tables' journal, a large one
    /// for its files, and for those once more, with what is there, in the compaction that may follow. fjall does not survive a
    /// full disk.
    fn room(&self, goal: u64) -> u64 {
        let bytes = goal.saturating_sub(self.position()).min(self.window_bytes);
        if bytes < self.batch_bytes {
            return bytes * 2 + ROOM_MIN;
        }
        self.room_for(bytes)
    }

    fn room_for(&self, bytes: u64) -> u64 {
        let compacted = self.tables.compaction_bytes();
        bytes.saturating_mul(2).saturating_add(compacted) + ROOM_MIN
    }

    /// The same for a large fold, whether there is that much to fold already or not.
    pub(crate) fn room_to_come(&self, written: u64) -> u64 {
        let bytes = written.saturating_sub(self.position());
        self.room_for(bytes.max(self.batch_bytes).min(self.window_bytes))
    }

    /// Waits until the disk has room for the next window. Meanwhile the log has what the tables have not. True: there is room
    /// for the window, but not for a compaction, which must not begin.
    fn wait_for_room(&self, goal: u64) -> Result<bool, Error> {
        let mut quiet = false;
        loop {
            // Less when a compaction has ended.
            let room = self.room(goal);
            // A file system that does not tell how it stands is taken to have room.
            let Some(free) = space::free(&self.dir).ok().filter(|free| *free < room) else {
                break;
            };
            // Waiting for what never ends would keep the log, and so the disk, as they are.
            let bytes = goal.saturating_sub(self.position()).min(self.window_bytes);
            quiet = free >= bytes.saturating_mul(2) + ROOM_MIN
                && self.tables.l0_runs() + 1 < L0_RUNS
                && !self.tables.busy();
            if quiet {
                break;
            }
            if self.trigger.stopped() {
                return Err(Error::NoRoom);
            }
            if self.starved.swap(room, Ordering::Relaxed) == 0 {
                tracing::warn!(
                    room,
                    "the fold waits for room on the disk; the log holds what the tables do not"
                );
                self.trim_log()?;
                // Who waits for it must not.
                self.trigger.wake();
            }
            std::thread::sleep(ROOM_EVERY);
        }
        if self.starved.swap(0, Ordering::Relaxed) != 0 {
            tracing::info!("the fold has room again");
        }
        Ok(quiet)
    }

    /// While the disk is short: compacts the tables, so that deletions give their space back now and not when enough has
    /// come on top of them.
    fn make_room(&self, folding: &mut Folding) -> Result<(), Error> {
        let began = Instant::now();
        if !self.lean.load(Ordering::Relaxed)
            || folding.deleted == 0
            || folding.rest_until.is_some_and(|until| began < until)
        {
            return Ok(());
        }
        // A file system that does not tell how it stands is taken to have room.
        let room = || space::free(&self.dir).map_or(u64::MAX, |free| free.saturating_sub(ROOM_MIN));
        let before = room();
        let mut squeezed = Squeezed::Some;
        while squeezed == Squeezed::Some && began.elapsed() < SQUEEZE && !self.trigger.stopped() {
            squeezed = self.tables.squeeze(&room)?;
        }
        let took = began.elapsed();
        let freed = room().saturating_sub(before);
        if freed > ROOM_MIN || squeezed == Squeezed::All {
            tracing::info!(
                took_ms = took.as_millis(),
                deleted = folding.deleted,
                freed,
                "compacted the tables, because the disk is short"
            );
        }
        if squeezed == Squeezed::All {
            folding.deleted = 0;
        }
        folding.rest_until = Some(began + took * (1 + SQUEEZE_REST));
        Ok(())
    }

    /// Whether folded log is let go at once, instead of being kept for readers.
    pub(crate) fn be_lean(&self, lean: bool) -> Result<(), Error> {
        let was = self.lean.swap(lean, Ordering::Relaxed);
        if lean && !was {
            self.trim_log()?;
        }
        Ok(())
    }

    /// Deletes folded log beyond what is kept for readers.
    pub(crate) fn trim_log(&self) -> Result<(), Error> {
        let now = now_ms();
        let age = u64::try_from(self.retain_age.as_millis()).unwrap_or(u64::MAX);
        let position = self.position();
        let lean = self.lean.load(Ordering::Relaxed) || self.starved.load(Ordering::Relaxed) != 0;
        // A clock that stepped back makes files look younger: they stay longer, never shorter than the size allows.
        let drop_it = |rest: u64, next: &Segment| {
            lean || rest >= self.retain_bytes || now.saturating_sub(next.made_ms) > age
        };
        let trimmed = self.files.trim(position, position, drop_it);
        trimmed
            .map(drop)
            .map_err(|e| Error::io("cannot delete from", &self.files.dir, e))
    }

    fn segments(&self) -> Vec<Segment> {
        self.files.snapshot()
    }

    fn at(&self, step: Step) -> Result<(), Error> {
        self.faults
            .check(step)
            .map_err(|e| Error::io("fold in", &self.dir, e))
    }
}
