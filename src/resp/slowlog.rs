//! `SLOWLOG` and `LATENCY`: which commands took long.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use parking_lot::Mutex;
use protocol_resp::Args;

/// Of one command in the log; Redis' limits.
const ARGS_MAX: usize = 32;
const ARG_BYTES: usize = 128;
/// Samples of one event; Redis' limit.
const SAMPLES_MAX: usize = 160;

/// One slow command.
#[derive(Debug, Clone)]
pub(crate) struct Slow {
    pub(crate) id: u64,
    /// Seconds since 1970.
    pub(crate) at_s: u64,
    pub(crate) took_us: u64,
    pub(crate) args: Vec<Bytes>,
    pub(crate) peer: String,
    pub(crate) name: String,
}

/// The commands that took longest to hear of, newest first.
#[derive(Debug)]
pub(crate) struct SlowLog {
    /// Microseconds from which on a command is logged; negative: none is.
    pub(crate) threshold_us: AtomicI64,
    pub(crate) len_max: AtomicUsize,
    next: AtomicU64,
    entries: Mutex<VecDeque<Slow>>,
}

impl Default for SlowLog {
    fn default() -> Self {
        Self {
            threshold_us: AtomicI64::new(10_000),
            len_max: AtomicUsize::new(128),
            next: AtomicU64::new(0),
            entries: Mutex::default(),
        }
    }
}

impl SlowLog {
    #[inline]
    pub(crate) fn wants(&self, took_us: u64) -> bool {
        u64::try_from(self.threshold_us.load(Relaxed)).is_ok_and(|threshold| took_us >= threshold)
    }

    pub(crate) fn add(&self, mut slow: Slow) {
        let max = self.len_max.load(Relaxed);
        let mut entries = self.entries.lock();
        slow.id = self.next.fetch_add(1, Relaxed);
        entries.push_front(slow);
        entries.truncate(max);
    }

    /// The newest `count`; `None`: all.
    pub(crate) fn newest(&self, count: Option<usize>) -> Vec<Slow> {
        let entries = self.entries.lock();
        let count = count.unwrap_or(entries.len());
        entries.iter().take(count).cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.lock().len()
    }

    pub(crate) fn reset(&self) {
        self.entries.lock().clear();
    }
}

/// The arguments as the log keeps them; `hidden`: those from this one on are not for others' eyes.
pub(crate) fn shortened(args: &Args<'_>, hidden: impl Fn(usize) -> bool) -> Vec<Bytes> {
    let kept = if args.len() > ARGS_MAX {
        ARGS_MAX - 1
    } else {
        args.len()
    };
    let mut shown: Vec<Bytes> = args
        .iter()
        .take(kept)
        .enumerate()
        .map(|(place, arg)| {
            if hidden(place) {
                return Bytes::from_static(b"(redacted)");
            }
            match arg.get(..ARG_BYTES) {
                Some(start) if arg.len() > ARG_BYTES => {
                    let more = format!("... ({} more bytes)", arg.len() - ARG_BYTES);
                    Bytes::from([start, more.as_bytes()].concat())
                }
                _ => Bytes::copy_from_slice(arg),
            }
        })
        .collect();
    if kept < args.len() {
        let more = format!("... ({} more arguments)", args.len() - kept);
        shown.push(Bytes::from(more));
    }
    shown
}

/// What is known of one kind of event.
#[derive(Debug, Clone, Default)]
pub(crate) struct Series {
    /// Longest ever, in milliseconds.
    pub(crate) max_ms: u64,
    /// `(seconds since 1970, milliseconds)`, oldest first; one for each second.
    pub(crate) samples: VecDeque<(u64, u64)>,
}

/// Events that took at least the threshold.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    /// Milliseconds; 0: nothing is kept.
    pub(crate) threshold_ms: AtomicU64,
    events: Mutex<BTreeMap<&'static str, Series>>,
}

impl Latency {
    #[inline]
    pub(crate) fn wants(&self, took_ms: u64) -> bool {
        let threshold = self.threshold_ms.load(Relaxed);
        threshold != 0 && took_ms >= threshold
    }

    pub(crate) fn add(&self, event: &'static str, at_s: u64, took_ms: u64) {
        let mut events = self.events.lock();
        let series = events.entry(event).or_default();
        series.max_ms = series.max_ms.max(took_ms);
        match series.samples.back_mut() {
            Some((at, longest)) if *at == at_s => *longest = (*longest).max(took_ms),
            _ => {
                series.samples.push_back((at_s, took_ms));
                if series.samples.len() > SAMPLES_MAX {
                    series.samples.pop_front();
                }
            }
        }
    }

    pub(crate) fn events(&self) -> BTreeMap<&'static str, Series> {
        self.events.lock().clone()
    }

    /// Forgets these events (none given: all); how many there were.
    pub(crate) fn reset(&self, named: &[&[u8]]) -> usize {
        let mut events = self.events.lock();
        let before = events.len();
        events.retain(|event, _| {
            !named.is_empty()
                && !named
                    .iter()
                    .any(|name| name.eq_ignore_ascii_case(event.as_bytes()))
        });
        before - events.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args<'a>(
        words: &[&[u8]],
        data: &'a mut Vec<u8>,
        ranges: &'a mut Vec<(u32, u32)>,
    ) -> Args<'a> {
        for word in words {
            ranges.push((data.len() as u32, word.len() as u32));
            data.extend_from_slice(word);
        }
        Args::new(data, ranges)
    }

    #[test]
    fn arguments_are_shortened() {
        let long = vec![b'x'; 130];
        let mut words: Vec<&[u8]> = vec![b"SET", &long];
        words.extend([&b"y"[..]; 38]);
        let (mut data, mut ranges) = (Vec::new(), Vec::new());
        let args = args(&words, &mut data, &mut ranges);
        let shown = shortened(&args, |place| place == 2);
        assert_eq!(shown.len(), 32);
        assert!(shown[1].ends_with(b"xx... (2 more bytes)"));
        assert_eq!(shown[2], "(redacted)");
        assert_eq!(shown[31], "... (9 more arguments)");
    }

    #[test]
    fn a_second_has_one_sample() {
        let latency = Latency::default();
        assert!(!latency.wants(1000));
        latency.threshold_ms.store(5, Relaxed);
        assert!(latency.wants(5) && !latency.wants(4));
        latency.add("command", 1, 9);
        latency.add("command", 1, 12);
        latency.add("command", 2, 7);
        let events = latency.events();
        assert_eq!(events["command"].max_ms, 12);
        assert_eq!(events["command"].samples, [(1, 12), (2, 7)]);
        for n in 0..1000 {
            latency.add("command", n, 5);
        }
        assert_eq!(latency.events()["command"].samples.len(), SAMPLES_MAX);
        assert_eq!((latency.reset(&[b"other"]), latency.reset(&[])), (0, 1));
    }

    #[test]
    fn the_log_has_an_end() {
        let log = SlowLog::default();
        log.len_max.store(2, Relaxed);
        for _ in 0..3 {
            log.add(Slow {
                id: 0,
                at_s: 0,
                took_us: 0,
                args: Vec::new(),
                peer: String::new(),
                name: String::new(),
            });
        }
        let ids: Vec<u64> = log.newest(None).iter().map(|slow| slow.id).collect();
        assert_eq!((ids, log.newest(Some(1)).len()), (vec![2, 1], 1));
        log.threshold_us.store(-1, Relaxed);
        assert!(!log.wants(u64::MAX));
        log.threshold_us.store(0, Relaxed);
        assert!(log.wants(0));
    }
}
