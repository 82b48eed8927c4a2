//! `/api/v1/profile/cpu` and `/api/v1/profile/heap`: what the process does, and what its memory is used for.
//!
//! The CPU is sampled by signals (SIGPROF, at so many ticks of CPU time of all threads together); while nobody asks there is no
//! timer. A handler unwinds the stack of the thread that it interrupts, without locks and without allocations where glibc is
//! 2.35 or newer (`_dl_find_object`), so one profile runs at a time, for a bounded time, for those who administrate.

mod encode;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use axum::{Extension, Router};
use broker::access::Verbs;
use pprof::{ProfilerGuardBuilder, Report};

use super::gate::{Caller, wrong};
use crate::config::Face;
use crate::node::Node;
use crate::telemetry::heap;

/// As long as somebody watches; what was sampled is kept in memory and a file meanwhile.
const SECONDS_MAX: u64 = 60;
/// Above it the samples themselves are what is seen.
const HERTZ_MAX: i32 = 999;
/// Code that must not be unwound from: the unwinder itself, the loader, and the kernel's page without frames.
const LEFT_OUT: [&str; 3] = ["libgcc", "ld-linux", "vdso"];

/// The paths of this file, below `/api/v1`.
pub(super) fn routes() -> Router<Arc<Node>> {
    Router::new()
        .route("/profile/cpu", get(cpu))
        .route("/profile/heap", get(memory))
}

#[derive(Clone, Copy, Debug, Default, serde::Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum CpuFormat {
    /// For `go tool pprof` and what else reads its format.
    #[default]
    Pprof,
    /// One line for each stack, for flame graphs.
    Folded,
}

#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Cpu {
    #[serde(default = "ten")]
    seconds: u64,
    /// 99 rather than 100: what happens each 10 ms must not always be met, or never.
    #[serde(default = "ninety_nine")]
    hz: i32,
    #[serde(default)]
    format: CpuFormat,
}

fn ten() -> u64 {
    10
}

fn ninety_nine() -> i32 {
    99
}

/// One profile at a time; dropped also when the client goes away.
struct Turn(&'static AtomicBool);

impl Turn {
    fn take() -> Option<Self> {
        static BUSY: AtomicBool = AtomicBool::new(false);
        (!BUSY.swap(true, Ordering::AcqRel)).then_some(Self(&BUSY))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

async fn cpu(
    State(node): State<Arc<Node>>,
    Extension(who): Extension<Caller>,
    Query(wish): Query<Cpu>,
) -> Response {
    if let Err(wrong) = who.may(&node, "server", Verbs::ADMIN) {
        return *wrong;
    }
    if !(1..=SECONDS_MAX).contains(&wish.seconds) || !(1..=HERTZ_MAX).contains(&wish.hz) {
        return wrong(
            StatusCode::BAD_REQUEST,
            format_args!("seconds is 1 to {SECONDS_MAX}, hz is 1 to {HERTZ_MAX}"),
        );
    }
    let Some(turn) = Turn::take() else {
        return wrong(StatusCode::CONFLICT, "a profile is being taken, try again");
    };
    let failed = |error: &dyn std::fmt::Display| {
        tracing::warn!(%error, "CPU profile failed");
        wrong(StatusCode::INTERNAL_SERVER_ERROR, error)
    };
    let began = Instant::now();
    let guard = ProfilerGuardBuilder::default()
        .frequency(wish.hz)
        .blocklist(&LEFT_OUT)
        .build();
    let guard = match guard {
        Ok(guard) => guard,
        Err(error) => return failed(&error),
    };
    tracing::info!(seconds = wish.seconds, hz = wish.hz, "CPU profile");
    tokio::time::sleep(Duration::from_secs(wish.seconds)).await;
    // Names are looked up in the binary's own tables, which takes a second or two.
    let made = tokio::task::spawn_blocking(move || {
        let report = guard.report().build();
        // The tables of a binary with line numbers take some 350 MB: half of it is given back, and read again next time.
        backtrace::clear_symbol_cache();
        // Samples end here, whatever the writing takes.
        drop((guard, turn));
        report.map(|report| match wish.format {
            CpuFormat::Pprof => encode::pprof(&report.data, wish.hz, began.elapsed()),
            CpuFormat::Folded => folded(&report).into_bytes(),
        })
    });
    let bytes = match made.await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => return failed(&error),
        Err(error) => return failed(&error),
    };
    let kind = match wish.format {
        CpuFormat::Pprof => "application/octet-stream",
        CpuFormat::Folded => "text/plain; charset=utf-8",
    };
    ([(header::CONTENT_TYPE, kind)], bytes).into_response()
}

/// `thread;caller;callee 12`, sorted.
fn folded(report: &Report) -> String {
    let mut lines: BTreeMap<String, isize> = BTreeMap::new();
    for (stack, count) in &report.data {
        let mut line = stack.thread_name_or_id();
        for symbol in stack
            .frames
            .iter()
            .rev()
            .flat_map(|inlined| inlined.iter().rev())
        {
            line.push(';');
            // The separators of the format are no part of a name.
            line.push_str(&symbol.name().replace([';', '\n'], ":"));
        }
        *lines.entry(line).or_default() += count;
    }
    let mut text = String::new();
    for (line, count) in lines {
        text.push_str(&format!("{line} {count}\n"));
    }
    text
}

#[derive(Clone, Copy, Debug, Default, serde::Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum HeapFormat {
    #[default]
    Json,
    /// The allocator's own report.
    Text,
}

#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Heap {
    #[serde(default)]
    format: HeapFormat,
}

async fn memory(
    State(node): State<Arc<Node>>,
    Extension(who): Extension<Caller>,
    Query(wish): Query<Heap>,
) -> Response {
    if let Err(wrong) = who.may(&node, "server", Verbs::DESCRIBE) {
        return *wrong;
    }
    let answer = match wish.format {
        HeapFormat::Json => {
            let open = Face::ALL
                .map(|face| node.traffic.of(face).open.value())
                .iter()
                .sum();
            heap::summary(&node.broker, open).map(|figures| Json(figures).into_response())
        }
        HeapFormat::Text => heap::report().map(IntoResponse::into_response),
    };
    answer.unwrap_or_else(|error| wrong(StatusCode::INTERNAL_SERVER_ERROR, error))
}
