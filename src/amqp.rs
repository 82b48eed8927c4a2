//! The RabbitMQ face: AMQP 0-9-1 with RabbitMQ's extensions, codes and texts.
//!
//! ```text
//! session   handshake, channels, frames in, faults out, heartbeats        channel   what one channel remembers
//! methods/  one file per class                                          arguments  x- arguments and equivalence
//! deliver   from the broker's mailbox to the wire                          content   a publish from method to last body frame
//! ```

mod arguments;
mod channel;
mod content;
mod death;
mod deliver;
mod fault;
mod handshake;
mod headers;
mod methods;
mod names;
mod session;

use std::sync::Arc;

use broker::queue::{self, Counts, QueueRef};

use crate::net::NewSession;
use crate::node::Node;
use crate::telemetry::metrics::{Encoder, Kind};

/// Makes the session of each AMQP connection.
#[must_use]
pub fn sessions(node: &Arc<Node>) -> NewSession {
    node.broker.routes.set_stamp(death::stamp);
    // Weak, or the node's own metrics would keep it alive.
    let weak = Arc::downgrade(node);
    node.metrics.register(move |out| {
        if let Some(node) = weak.upgrade() {
            report(&node, out);
        }
    });
    let node = Arc::clone(node);
    Arc::new(move |info| Box::new(session::Session::new(Arc::clone(&node), info)))
}

/// Depth of each queue, when somebody asks.
fn report(node: &Node, out: &mut Encoder) {
    let mut queues: Vec<(Arc<str>, Counts)> = Vec::new();
    for queue in node.broker.routes.queues() {
        let at = QueueRef {
            shard: queue.shard(),
            id: queue.id,
        };
        if let Some(counts) = queue::counts(&node.broker, at) {
            queues.push((Arc::clone(&queue.name), counts));
        }
    }
    queues.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    type Figure = fn(&Counts) -> u64;
    let families: [(&str, &str, Figure); 3] = [
        (
            "flowmesh_queue_messages_ready",
            "Messages that wait for a consumer.",
            |counts| counts.ready,
        ),
        (
            "flowmesh_queue_messages_unacked",
            "Messages delivered and not acknowledged.",
            |counts| counts.unacked,
        ),
        (
            "flowmesh_queue_consumers",
            "Consumers of a queue.",
            |counts| counts.consumers,
        ),
    ];
    for (name, help, figure) in families {
        let mut family = out.family(name, Kind::Gauge, help);
        for (queue, counts) in &queues {
            family.sample(&[("queue", queue)], figure(counts));
        }
    }
}
