//! How often each command ran and how long it took: `INFO commandstats`, `errorstats`, `latencystats` and `LATENCY HISTOGRAM`.
//!
//! Each thread counts for itself, so that threads share no cache line; who asks adds up.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::commands;

/// Buckets of one power of two.
const SUB: usize = 16;
const SUB_BITS: u32 = SUB.trailing_zeros();
/// Above 2^36 ns, a minute, all is one bucket.
const TOP_BIT: u32 = 36;
const BUCKETS: usize = (TOP_BIT - SUB_BITS + 2) as usize * SUB;
/// Different codes of errors that are counted; Redis' limit.
const CODES_MAX: usize = 128;

/// The bucket of so many nanoseconds.
fn bucket(nanos: u64) -> usize {
    if nanos < SUB as u64 {
        return nanos as usize;
    }
    let top = (u64::BITS - 1 - nanos.leading_zeros()).min(TOP_BIT);
    let rest = (nanos >> (top - SUB_BITS)).min(2 * SUB as u64 - 1) as usize & (SUB - 1);
    (top - SUB_BITS + 1) as usize * SUB + rest
}

/// The largest number of nanoseconds in a bucket.
fn highest(bucket: usize) -> u64 {
    let (octave, rest) = (bucket / SUB, (bucket % SUB) as u64);
    match octave.checked_sub(1) {
        None => rest,
        Some(shift) => ((SUB as u64 + rest + 1) << shift) - 1,
    }
}

/// What is counted of one command.
#[derive(Debug)]
struct Counts {
    calls: AtomicU64,
    nanos: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
    times: Box<[AtomicU64]>,
}

impl Counts {
    fn new() -> Self {
        Self {
            calls: AtomicU64::new(0),
            nanos: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            times: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

/// One thread's counts.
#[derive(Debug)]
pub(crate) struct Block(Box<[OnceLock<Box<Counts>>]>);

impl Block {
    fn new() -> Self {
        Self((0..commands::count()).map(|_| OnceLock::new()).collect())
    }

    fn counts(&self, number: u16) -> Option<&Counts> {
        let place = self.0.get(usize::from(number))?;
        Some(&**place.get_or_init(|| Box::new(Counts::new())))
    }

    /// `calls` of the command with this number took so long each.
    pub(crate) fn ran(&self, number: u16, calls: u64, nanos_each: u64) {
        if let Some(counts) = self.counts(number) {
            counts.calls.fetch_add(calls, Relaxed);
            counts.nanos.fetch_add(calls * nanos_each, Relaxed);
            if let Some(time) = counts.times.get(bucket(nanos_each)) {
                time.fetch_add(calls, Relaxed);
            }
        }
    }

    /// It was not run, or ended with an error.
    pub(crate) fn went_wrong(&self, number: u16, ran: bool) {
        if let Some(counts) = self.counts(number) {
            let count = if ran {
                &counts.failed
            } else {
                &counts.rejected
            };
            count.fetch_add(1, Relaxed);
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Never used twice in one process.
    id: u64,
    blocks: Mutex<Vec<Arc<Block>>>,
    errors: Mutex<BTreeMap<String, u64>>,
}

/// What is known of one command.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    pub(crate) name: &'static str,
    pub(crate) calls: u64,
    pub(crate) nanos: u64,
    pub(crate) rejected: u64,
    pub(crate) failed: u64,
    times: Vec<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Relaxed),
            blocks: Mutex::default(),
            errors: Mutex::default(),
        }
    }
}

impl Tally {
    /// The counts of the thread that asks.
    pub(crate) fn of_this_thread(&self) -> Arc<Block> {
        thread_local! {
            static MINE: RefCell<Option<(u64, Arc<Block>)>> = const { RefCell::new(None) };
        }
        MINE.with_borrow_mut(|mine| match mine {
            Some((of, block)) if *of == self.id => Arc::clone(block),
            _ => {
                let block = Arc::new(Block::new());
                self.blocks.lock().push(Arc::clone(&block));
                *mine = Some((self.id, Arc::clone(&block)));
                block
            }
        })
    }

    /// A client was answered with this error.
    pub(crate) fn error(&self, text: &str) {
        // As Redis, which looks no further for the end of the code: a script may answer with any text.
        let end = text.bytes().take(32).position(|byte| byte == b' ');
        let code = end.and_then(|end| text.get(..end)).unwrap_or("ERR");
        let mut errors = self.errors.lock();
        if let Some(count) = errors.get_mut(code) {
            *count += 1;
        } else if errors.len() < CODES_MAX {
            errors.insert(code.to_owned(), 1);
        }
    }

    pub(crate) fn errors(&self) -> BTreeMap<String, u64> {
        self.errors.lock().clone()
    }

    /// What was counted of commands that were called at all, in the table's order.
    pub(crate) fn records(&self) -> Vec<Record> {
        let blocks = self.blocks.lock();
        let mut records = Vec::new();
        for number in 0..commands::count() {
            let mut record = Record::default();
            for counts in blocks.iter().filter_map(|block| block.0.get(number)?.get()) {
                record.calls += counts.calls.load(Relaxed);
                record.nanos += counts.nanos.load(Relaxed);
                record.rejected += counts.rejected.load(Relaxed);
                record.failed += counts.failed.load(Relaxed);
                record.times.resize(BUCKETS, 0);
                for (sum, time) in record.times.iter_mut().zip(&counts.times) {
                    *sum += time.load(Relaxed);
                }
            }
            let spec = u16::try_from(number).ok().and_then(commands::by_number);
            if let Some(spec) = spec
                && record.calls + record.rejected + record.failed > 0
            {
                record.name = spec.name;
                records.push(record);
            }
        }
        records
    }

    /// Begins anew.
    pub(crate) fn reset(&self) {
        self.errors.lock().clear();
        let blocks = self.blocks.lock();
        for counts in blocks
            .iter()
            .flat_map(|block| block.0.iter().filter_map(OnceLock::get))
        {
            let numbers = [
                &counts.calls,
                &counts.nanos,
                &counts.rejected,
                &counts.failed,
            ];
            let all = numbers.into_iter().chain(&counts.times);
            all.for_each(|number| number.store(0, Relaxed));
        }
    }
}

impl Record {
    /// Microseconds that `percent` of the calls did not exceed.
    pub(crate) fn percentile_us(&self, percent: f64) -> f64 {
        let total: u64 = self.times.iter().sum();
        let wanted = ((total as f64 * percent / 100.0).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.times.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return highest(bucket) as f64 / 1000.0;
            }
        }
        0.0
    }

    /// `(microseconds, calls that took no longer)`, for each power of two in which there are calls; in Redis' steps.
    pub(crate) fn distribution(&self) -> Vec<(u64, u64)> {
        let mut steps = Vec::new();
        let (mut seen, mut told) = (0, 0);
        let mut limit = 1024u64;
        for (bucket, count) in self.times.iter().enumerate() {
            while highest(bucket) >= limit {
                if seen > told {
                    steps.push((step_us(limit), seen));
                    told = seen;
                }
                limit *= 2;
            }
            seen += count;
        }
        if seen > told {
            steps.push((step_us(limit), seen));
        }
        steps
    }
}

/// Redis' histogram keeps two digits, so its steps end a 128th above the power of two.
fn step_us(limit: u64) -> u64 {
    (limit + limit / 128 - 1) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_what_they_say() {
        for nanos in (0..5000).chain([1 << 20, (1 << 30) + 5, (1 << 35) - 1]) {
            let place = bucket(nanos);
            let below = place.checked_sub(1).map_or(0, |before| highest(before) + 1);
            let range = below..=highest(place);
            assert!(range.contains(&nanos), "{nanos} in {range:?}");
            assert!(highest(place) - below <= nanos / 16, "{nanos} in {range:?}");
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn what_is_counted_is_told() {
        let tally = Tally::default();
        let block = tally.of_this_thread();
        let ping = commands::lookup_name(b"ping").expect("a command").number;
        block.ran(ping, 3, 900);
        block.ran(ping, 1, 3_000_000);
        block.went_wrong(ping, true);
        block.went_wrong(ping, false);
        let other = std::thread::scope(|scope| {
            let other = scope.spawn(|| tally.of_this_thread().ran(ping, 1, 900));
            other.join()
        });
        assert!(other.is_ok());
        let records = tally.records();
        let [record] = &records[..] else {
            panic!("{records:?}");
        };
        assert_eq!((record.name, record.calls), ("ping", 5));
        assert_eq!((record.rejected, record.failed), (1, 1));
        assert_eq!(record.distribution(), [(1, 4), (4227, 5)]);
        assert!((0.9..1.0).contains(&record.percentile_us(50.0)));
        assert!((3000.0..3300.0).contains(&record.percentile_us(99.0)));
        tally.error("WRONGTYPE Operation");
        assert_eq!(tally.errors()["WRONGTYPE"], 1);
        tally.reset();
        assert!(tally.records().is_empty() && tally.errors().is_empty());
    }
}
