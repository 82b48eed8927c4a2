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

use crate::net::NewSession;
use crate::node::Node;

/// Makes the session of each AMQP connection.
#[must_use]
pub fn sessions(node: &Arc<Node>) -> NewSession {
    node.broker.routes.set_stamp(death::stamp);
    let node = Arc::clone(node);
    Arc::new(move |info| Box::new(session::Session::new(Arc::clone(&node), info)))
}
