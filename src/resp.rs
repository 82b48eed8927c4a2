//! The Redis face: sessions that speak RESP over the broker's keys.

pub(crate) mod acl;
mod ahead;
mod categories;
mod client;
mod commands;
mod docs;
mod exec;
mod fail;
mod hub;
mod monitors;
mod notify;
mod parse;
mod pause;
mod permission;
mod saves;
mod script;
mod session;
mod slowlog;
mod spec;
mod tally;
mod tracking;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::config::{Entrance, Face};
use crate::net::NewSession;
use crate::node::Node;

use hub::Hub;
use session::Session;

/// Makes the sessions of a node's Redis connections.
#[must_use]
pub fn sessions(node: &Arc<Node>) -> NewSession {
    let at = |entrance| node.addresses_at(entrance).collect::<Vec<_>>();
    let (plain, tls) = (
        at(Entrance::plain(Face::Resp)),
        at(Entrance::tls(Face::Resp)),
    );
    let hub = Arc::new(Hub::new(
        node.config.resp_durability,
        commands::server::settings(&node.config, &plain, &tls),
    ));
    let idle = u64::try_from(node.config.resp_idle_timeout.as_millis()).unwrap_or(u64::MAX);
    hub.idle_timeout_ms.store(idle, Ordering::Relaxed);
    let tells = Arc::clone(&hub);
    node.tell_of_keys(move |notes| tells.notify(notify::of_notes(notes)));
    let node = Arc::clone(node);
    Arc::new(move |info| Box::new(Session::new(Arc::clone(&node), Arc::clone(&hub), info)))
}

/// Told to a client that is one too many.
pub const REFUSAL: &[u8] = b"-ERR max number of clients reached\r\n";
