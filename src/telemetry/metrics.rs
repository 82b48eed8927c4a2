//! Metrics: counters that threads add to without sharing a cache line, and the Prometheus text format.
//!
//! One table names every metric of the process. What belongs to a vocabulary (commands, methods, APIs) or to objects (queues,
//! topics) is added by its owner with [`Metrics::register`] and read at scrape time.

use std::cell::Cell;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::RwLock;

use crate::config::Face;

/// Lanes per counter. More threads than this share lanes, which costs speed and nothing else.
const LANES: usize = 8;

#[derive(Debug, Default)]
#[repr(align(64))]
struct Lane(AtomicU64);

thread_local! {
    static LANE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// The lane of this thread.
#[inline]
fn lane() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    LANE.with(|lane| {
        if lane.get() == usize::MAX {
            lane.set(NEXT.fetch_add(1, Relaxed) % LANES);
        }
        lane.get()
    })
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter([Lane; LANES]);

impl Counter {
    /// One more.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// `n` more.
    #[inline]
    pub fn add(&self, n: u64) {
        if let Some(Lane(own)) = self.0.get(lane()) {
            own.fetch_add(n, Relaxed);
        }
    }

    /// The sum over all threads.
    pub fn value(&self) -> u64 {
        self.0
            .iter()
            .fold(0, |sum, Lane(one)| sum.wrapping_add(one.load(Relaxed)))
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// `n` more (or less).
    #[inline]
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Replaces it.
    pub fn set(&self, n: i64) {
        self.0.store(n, Relaxed);
    }

    /// The number.
    pub fn value(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of a duration histogram, in nanoseconds: 5 µs to 10 s.
const BOUNDS_NS: [u64; 20] = [
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// How long something took, in buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    lanes: [HistogramLane; LANES],
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct HistogramLane {
    /// One per bound, and one beyond the last.
    buckets: [AtomicU64; BOUNDS_NS.len() + 1],
    sum_ns: AtomicU64,
}

impl Histogram {
    /// One more of that length.
    pub fn observe(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_NS.partition_point(|bound| *bound < ns);
        if let Some(own) = self.lanes.get(lane()) {
            own.sum_ns.fetch_add(ns, Relaxed);
            if let Some(bucket) = own.buckets.get(bucket) {
                bucket.fetch_add(1, Relaxed);
            }
        }
    }
}

/// One metric per face.
#[derive(Clone, Debug, Default)]
pub struct PerFace<T>([T; Face::ALL.len()]);

impl<T> PerFace<T> {
    /// That of `face`.
    #[inline]
    pub fn of(&self, face: Face) -> &T {
        let [resp, amqp, kafka, grpc, http] = &self.0;
        match face {
            Face::Resp => resp,
            Face::Amqp => amqp,
            Face::Kafka => kafka,
            Face::Grpc => grpc,
            Face::Http => http,
        }
    }
}

/// What Prometheus calls the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, sum and count.
    Histogram,
}

/// Something of the table that can write its samples.
trait Metric {
    const KIND: Kind;
    fn samples(&self, out: &mut Family<'_>, labels: &[(&str, &str)]);
}

impl Metric for Counter {
    const KIND: Kind = Kind::Counter;

    fn samples(&self, out: &mut Family<'_>, labels: &[(&str, &str)]) {
        out.sample(labels, self.value());
    }
}

impl Metric for Gauge {
    const KIND: Kind = Kind::Gauge;

    fn samples(&self, out: &mut Family<'_>, labels: &[(&str, &str)]) {
        out.sample(labels, self.value());
    }
}

impl Metric for Histogram {
    const KIND: Kind = Kind::Histogram;

    fn samples(&self, out: &mut Family<'_>, labels: &[(&str, &str)]) {
        out.histogram(labels, self);
    }
}

impl<T: Metric> Metric for PerFace<T> {
    const KIND: Kind = T::KIND;

    fn samples(&self, out: &mut Family<'_>, _: &[(&str, &str)]) {
        // gRPC's library answers by itself and is not counted.
        for face in [Face::Resp, Face::Amqp, Face::Kafka, Face::Http] {
            self.of(face).samples(out, &[("face", face.name())]);
        }
    }
}

type Collector = Box<dyn Fn(&mut Encoder) + Send + Sync>;

macro_rules! metrics {
    ($( $field:ident: $ty:ty = $name:literal, $help:literal; )*) => {
        /// Every metric of the process, and those that were registered.
        pub struct Metrics {
            $( #[doc = $help] pub $field: $ty, )*
            collectors: RwLock<Vec<Collector>>,
        }

        impl Default for Metrics {
            fn default() -> Self {
                Self { $( $field: Default::default(), )* collectors: RwLock::default() }
            }
        }

        impl Metrics {
            /// Name and help of each metric of the table.
            pub const TABLE: &[(&str, &str)] = &[$( ($name, $help) ),*];

            fn encode_table(&self, out: &mut Encoder) {
                $( self.$field.samples(&mut out.family($name, <$ty as Metric>::KIND, $help), &[]); )*
            }
        }
    };
}

metrics! {
    commands_total: PerFace<Counter> = "flowmesh_commands_total", "Commands, methods and requests executed.";
    errors_total: PerFace<Counter> = "flowmesh_errors_total", "Commands, methods and requests answered with an error.";
    auth_failures_total: PerFace<Counter> = "flowmesh_auth_failures_total", "Logins refused.";
    refused_writes_total: PerFace<Counter> = "flowmesh_refused_writes_total", "Commands and requests refused because memory or disk is short.";
    held_total: PerFace<Counter> = "flowmesh_held_total", "Times that a publisher's connection was held because memory or disk is short.";
    held: PerFace<Gauge> = "flowmesh_held", "Publishers' connections that are held now.";
    job_seconds: Histogram = "flowmesh_job_seconds", "Duration of background jobs.";
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Adds families that are read when somebody asks.
    pub fn register(&self, collector: impl Fn(&mut Encoder) + Send + Sync + 'static) {
        self.collectors.write().push(Box::new(collector));
    }

    /// Everything, in the Prometheus text format 0.0.4.
    pub fn encode(&self) -> String {
        let mut out = Encoder::default();
        self.encode_table(&mut out);
        for collector in self.collectors.read().iter() {
            collector(&mut out);
        }
        out.text
    }
}

/// Writes the text format.
#[derive(Debug, Default)]
pub struct Encoder {
    text: String,
}

impl Encoder {
    /// Starts a family; its samples must follow before the next family starts.
    pub fn family<'a>(&'a mut self, name: &'a str, kind: Kind, help: &str) -> Family<'a> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            self.text,
            "# HELP {name} {}\n# TYPE {name} {kind}",
            help.replace('\\', "\\\\").replace('\n', "\\n")
        );
        Family {
            name,
            text: &mut self.text,
        }
    }
}

impl Encoder {
    /// What was written.
    pub fn into_text(self) -> String {
        self.text
    }
}

/// The samples of one metric.
#[derive(Debug)]
pub struct Family<'a> {
    name: &'a str,
    text: &'a mut String,
}

impl Family<'_> {
    /// One sample.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl fmt::Display) {
        self.line("", labels, None, value);
    }

    fn line(
        &mut self,
        suffix: &str,
        labels: &[(&str, &str)],
        last: Option<(&str, &str)>,
        value: impl fmt::Display,
    ) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        let mut between = '{';
        for (name, value) in labels.iter().copied().chain(last) {
            self.text.push(between);
            between = ',';
            let _ = write!(self.text, "{name}=\"");
            for c in value.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        if between == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    /// The buckets, sum and count of a histogram, in seconds.
    pub fn histogram(&mut self, labels: &[(&str, &str)], histogram: &Histogram) {
        let mut count = 0u64;
        let mut sum_ns = 0u64;
        for i in 0..=BOUNDS_NS.len() {
            for lane in &histogram.lanes {
                count += lane.buckets.get(i).map_or(0, |bucket| bucket.load(Relaxed));
            }
            match BOUNDS_NS.get(i) {
                Some(bound) => {
                    let le = (*bound as f64 / 1e9).to_string();
                    self.line("_bucket", labels, Some(("le", &le)), count);
                }
                None => self.line("_bucket", labels, Some(("le", "+Inf")), count),
            }
        }
        for lane in &histogram.lanes {
            sum_ns = sum_ns.wrapping_add(lane.sum_ns.load(Relaxed));
        }
        self.line("_sum", labels, None, sum_ns as f64 / 1e9);
        self.line("_count", labels, None, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_add_up() {
        let counter = Counter::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * LANES {
                scope.spawn(|| (0..1_000).for_each(|_| counter.inc()));
            }
        });
        assert_eq!(counter.value(), 2_000 * LANES as u64);
    }

    #[test]
    fn text_format() {
        let metrics = Metrics::default();
        metrics.commands_total.of(Face::Amqp).add(3);
        metrics.register(|out| {
            let mut family = out.family("flowmesh_queue_messages", Kind::Gauge, "Messages.");
            family.sample(&[("queue", "a\"b\\c\nd")], 7);
        });
        metrics.job_seconds.observe(Duration::from_micros(7));
        metrics.job_seconds.observe(Duration::from_secs(11));
        let text = metrics.encode();
        for line in [
            "# TYPE flowmesh_commands_total counter",
            "flowmesh_commands_total{face=\"amqp\"} 3",
            "flowmesh_commands_total{face=\"resp\"} 0",
            "flowmesh_queue_messages{queue=\"a\\\"b\\\\c\\nd\"} 7",
            "flowmesh_job_seconds_bucket{le=\"0.000005\"} 0",
            "flowmesh_job_seconds_bucket{le=\"0.00001\"} 1",
            "flowmesh_job_seconds_bucket{le=\"10\"} 1",
            "flowmesh_job_seconds_bucket{le=\"+Inf\"} 2",
            "flowmesh_job_seconds_count 2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }

    #[test]
    fn names_are_as_prometheus_wants_them() {
        for (name, help) in Metrics::TABLE {
            assert!(
                name.starts_with("flowmesh_")
                    && name.chars().all(|c| c.is_ascii_lowercase() || c == '_'),
                "{name}"
            );
            assert!(help.ends_with('.'), "{name}");
        }
    }
}
