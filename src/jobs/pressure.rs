//! The governor's looks at memory, log, tables and disk, and how the server helps itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use storage::{L0_RUNS, Pressure, space};

use super::{Job, Next};
use crate::governor::{Cause, Level, Reading, share};
use crate::node::Node;
use crate::telemetry::process;

/// A disk that is written with 1 GB/s loses 100 MB between two looks, which is what the limit is for.
const EVERY: Duration = Duration::from_millis(100);
/// So many looks are left out while nothing is written or held for clients and nothing is short: an idle server is to cost
/// nothing.
const LEFT_OUT: u32 = 4;
/// A fold makes memory clean and lets log go, but costs disk itself: not more often than this.
const FOLD_EVERY: Duration = Duration::from_secs(2);

/// The job of this file; `buffered`: the bytes that all clients' buffers hold. On a thread of its own: a job that waits for
/// the disk must not keep it from seeing that.
pub fn jobs(buffered: impl Fn() -> usize + Send + 'static) -> Vec<Job> {
    vec![Job::new("governor", EVERY, look(buffered))]
}

fn look(buffered: impl Fn() -> usize + Send) -> impl FnMut(&Arc<Node>) -> Next + Send {
    let mut last = Instant::now();
    let mut folded: Option<Instant> = None;
    let mut short = None;
    let mut stopped: Vec<Cause> = Vec::new();
    let (mut seen, mut left_out) = (None, 0);
    move |node| {
        let sees = Some((node.broker.engine.appended(), buffered()));
        if seen == sees && left_out < LEFT_OUT && node.governor.is_calm() {
            left_out += 1;
            return Next::Later;
        }
        (seen, left_out) = (sees, 0);
        let now = Instant::now();
        let changed = node.governor.note(read(node), now - last);
        last = now;
        for (cause, level, share) in changed {
            tell(node, cause, level, share);
            // What is told takes room itself.
            let is_stop = level == Level::Stop;
            if matches!(cause, Cause::Memory | Cause::Disk)
                && stopped.contains(&cause) != is_stop
                && !node.governor.is_on_reserve()
            {
                stopped.retain(|known| *known != cause);
                stopped.extend(is_stop.then_some(cause));
                let key = if is_stop {
                    "alarm.set"
                } else {
                    "alarm.cleared"
                };
                tell_clients(node, key, cause);
            }
        }
        let (levels, _) = node.governor.levels();
        let is_strained = |wanted| {
            levels
                .iter()
                .any(|(cause, level)| *cause == wanted && *level >= Level::Slow)
        };
        let short_now = is_strained(Cause::Disk);
        if short != Some(short_now) {
            short = Some(short_now);
            if let Err(error) = node.broker.engine.be_short_of_disk(short_now) {
                tracing::warn!(%error, "pressure on the disk");
            }
        }
        node.broker.engine.limit_pace(node.governor.pace());
        if (short_now || is_strained(Cause::Memory))
            && folded.is_none_or(|at| now - at > FOLD_EVERY)
        {
            // What is folded can leave memory, and its log the disk.
            node.broker.engine.ask_for_fold();
            folded = Some(now);
        }
        Next::Later
    }
}

fn read(node: &Node) -> Reading {
    let engine = &node.broker.engine;
    let stats = engine.stats();
    let behind = share(stats.unfolded_bytes, 4 * node.config.fold_bytes());
    Reading {
        allocated_bytes: process::allocated_now(),
        allocated_limit_bytes: node.config.allocated_limit(),
        log: match engine.pressure() {
            Pressure::Stop => behind.max(1000),
            Pressure::None | Pressure::Slow => behind,
        },
        tables: share(stats.l0_runs, L0_RUNS as u64),
        disk_free_bytes: space::free(&node.data_dir).ok(),
        disk_limit_bytes: match node.disk_free_limit {
            0 => 0,
            // Who writes on until the tables cannot be compacted can make no room by deleting.
            limit => limit.max(engine.room_for_fold()),
        },
        on_reserve: engine.lives_on_reserve(),
    }
}

/// Tells AMQP clients that listen to events. On a thread of its own, since a script may hold the locks for long.
fn tell_clients(node: &Arc<Node>, key: &'static str, cause: Cause) {
    if !node.broker.routes.is_heard() {
        return;
    }
    let node = Arc::clone(node);
    let telling = std::thread::Builder::new().name("alarm".to_owned());
    let told = telling.spawn(move || {
        let source = [("source", cause.name())];
        crate::amqp::events::administered(&node, key, &source, None);
    });
    if let Err(error) = told {
        tracing::warn!(%error, "an alarm is not told");
    }
}

fn tell(node: &Node, cause: Cause, level: Level, share: u64) {
    let (cause_name, level_name) = (cause.name(), level.name());
    let percent = share / 10;
    match (cause, level) {
        (Cause::Memory | Cause::Disk, Level::Stop) => {
            let (_, reading) = node.governor.levels();
            tracing::warn!(
                cause = cause_name,
                level = level_name,
                percent,
                allocated = reading.allocated_bytes,
                allocated_limit = reading.allocated_limit_bytes,
                disk_free = reading.disk_free_bytes,
                disk_free_limit = reading.disk_limit_bytes,
                "pressure: writes that need room are refused or held; reads and deletions go on"
            );
        }
        // The brake's everyday work.
        (Cause::Log | Cause::Tables, _) => {
            tracing::debug!(cause = cause_name, level = level_name, percent, "pressure");
        }
        _ => tracing::info!(cause = cause_name, level = level_name, percent, "pressure"),
    }
}
