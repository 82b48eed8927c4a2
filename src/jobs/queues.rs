//! Messages that expire, queues that nobody uses, and long queues whose memory only a fold sets free.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::{Effects, Millis, ShardSet};

use super::{Job, Next};
use crate::node::Node;

/// How late a message may expire when nobody asks for it.
const EXPIRE_EVERY: Duration = Duration::from_millis(50);
const PRESSURE_EVERY: Duration = Duration::from_millis(200);
/// Not more often than this: a fold costs five fsyncs.
const FOLD_PAUSE: Duration = Duration::from_secs(1);

/// The jobs of this file.
pub(super) fn jobs() -> Vec<Job> {
    vec![
        Job::new("queue-expire", EXPIRE_EVERY, expire()),
        Job::new("queue-pressure", PRESSURE_EVERY, pressure()),
    ]
}

fn expire() -> impl FnMut(&Arc<Node>) -> Next + Send {
    let mut fx = Effects::new();
    move |node| {
        let now = Millis(node.clock.now_ms());
        let mut more = false;
        for shard in ShardSet::DATA.iter() {
            more |= broker::queue::expire(&node.broker, shard, now, &mut fx);
        }
        node.broker.engine.flush();
        Next::more(more)
    }
}

/// Messages can leave memory once the tables hold them: when far more wait than the budget allows, do not wait for the
/// log to fill a whole window.
fn pressure() -> impl FnMut(&Arc<Node>) -> Next + Send {
    let mut folded = Instant::now();
    move |node| {
        let budget = &node.broker.budgets.queue;
        if budget.used() > budget.limit().saturating_mul(2) && folded.elapsed() > FOLD_PAUSE {
            // A failure is the engine's to tell.
            let _ = node.broker.engine.fold_now();
            folded = Instant::now();
        }
        Next::Later
    }
}
