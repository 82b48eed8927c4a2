//! Messages that expire or whose delay is over, and queues that nobody uses.

use std::sync::Arc;
use std::time::Duration;

use broker::{Effects, Millis, ShardSet};

use super::{Job, Next};
use crate::node::Node;

/// How late a message may expire when nobody asks for it.
const EXPIRE_EVERY: Duration = Duration::from_millis(50);

/// How late a delayed message may be routed; a look costs one load while nothing is due.
const DELAY_EVERY: Duration = Duration::from_millis(20);

/// The jobs of this file.
pub(super) fn jobs() -> Vec<Job> {
    vec![
        Job::new("queue-expire", EXPIRE_EVERY, expire()),
        Job::new("delayed-messages", DELAY_EVERY, delayed()),
    ]
}

fn delayed() -> impl FnMut(&Arc<Node>) -> Next + Send {
    let mut fx = Effects::new();
    move |node| {
        if node.governor.is_on_reserve() {
            return Next::Later;
        }
        let more = crate::amqp::delay::release_due(node, &mut fx);
        node.broker.engine.flush();
        Next::more(more)
    }
}

fn expire() -> impl FnMut(&Arc<Node>) -> Next + Send {
    let mut fx = Effects::new();
    move |node| {
        if node.governor.is_on_reserve() {
            return Next::Later;
        }
        let now = Millis(node.clock.now_ms());
        let mut more = false;
        for shard in ShardSet::DATA.iter() {
            more |= broker::queue::expire(&node.broker, shard, now, &mut fx);
        }
        node.broker.engine.flush();
        Next::more(more)
    }
}
