//! The RabbitMQ face: AMQP 0-9-1 with RabbitMQ's extensions, codes and texts.
//!
//! ```text
//! session   handshake, channels, frames in, faults out, heartbeats        channel   what one channel remembers
//! methods/  one file per class                                          arguments  x- arguments and equivalence
//! deliver   from the broker's mailbox to the wire                          content   a publish from method to last body frame
//! stream    consumers of streams: from the log to the wire                 record    messages as records, and back
//! ```

mod arguments;
mod blocked;
mod channel;
mod content;
mod death;
pub mod delay;
mod deliver;
pub mod events;
mod fault;
mod handshake;
mod headers;
mod methods;
mod names;
mod overdue;
mod permission;
mod record;
mod session;
mod stream;
mod trace;

use std::sync::{Arc, LazyLock};

use protocol_amqp::{Method, ReplyCode};

use crate::net::NewSession;
use crate::node::Node;

/// Makes the session of each AMQP connection.
#[must_use]
pub fn sessions(node: &Arc<Node>) -> NewSession {
    node.broker.routes.set_reader(&headers::MessageReader);
    let node = Arc::clone(node);
    Arc::new(move |info| Box::new(session::Session::new(Arc::clone(&node), info)))
}

/// Told to a client that is one too many, in place of connection.start: clients show the text of a connection.close
/// whenever it comes. RabbitMQ says so at connection.open.
pub fn refusal() -> &'static [u8] {
    static CLOSE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut bytes = Vec::new();
        let close = Method::ConnectionClose {
            reply_code: ReplyCode::NotAllowed.code(),
            reply_text: "NOT_ALLOWED - connection refused: node connection limit is reached".into(),
            class_id: 10,
            method_id: 40,
        };
        protocol_amqp::method(&mut bytes, 0, &close);
        bytes
    });
    &CLOSE
}
