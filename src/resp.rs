//! The Redis face: sessions that speak RESP over the broker's keys.

mod ahead;
mod client;
mod commands;
mod exec;
mod fail;
mod hub;
mod parse;
mod pause;
mod permission;
mod script;
mod session;
mod spec;
mod tracking;

use std::sync::Arc;

use crate::net::NewSession;
use crate::node::Node;

use hub::Hub;
use session::Session;

/// Makes the sessions of a node's Redis connections.
#[must_use]
pub fn sessions(node: &Arc<Node>) -> NewSession {
    let hub = Arc::new(Hub::new(
        node.config.resp_durability,
        commands::server::settings(&node.config),
    ));
    let node = Arc::clone(node);
    Arc::new(move |info| Box::new(Session::new(Arc::clone(&node), Arc::clone(&hub), info)))
}

/// Told to a client that is one too many.
pub const REFUSAL: &[u8] = b"-ERR max number of clients reached\r\n";
