//! Publishers while memory or disk is short. As RabbitMQ does: a connection that publishes is not read any more, and hears
//! connection.blocked if it said that it understands it. It goes on to get deliveries; connections that do not publish are
//! not touched, so consumers, and their acknowledgements, empty the queues.

use protocol_amqp::{Frame, FrameKind, Method};

use super::session::Core;
use crate::config::Face;
use crate::governor::{Governor, Held, Stop};
use crate::net::Outbox;

/// How a connection stands.
#[derive(Debug, Default)]
pub(super) struct Blocked {
    /// The client said that it understands connection.blocked.
    pub(super) understood: bool,
    held: Option<Held>,
    told: bool,
}

impl Blocked {
    /// The connection is not read.
    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// The connection is gone.
    pub(super) fn end(&mut self) {
        self.held = None;
    }
}

/// basic.publish: what may come behind it would have to be kept.
pub(super) fn is_publish(frame: &Frame<'_>) -> bool {
    frame.kind == FrameKind::Method && frame.payload.starts_with(&[0, 60, 0, 40])
}

/// RabbitMQ's words.
fn reason(stop: Stop) -> &'static str {
    match (stop.memory, stop.disk) {
        (true, true) => "low on memory & disk",
        (true, false) => "low on memory",
        _ => "low on disk",
    }
}

/// The client publishes: holds it. False: there is no reason to, any more.
pub(super) fn hold(core: &mut Core, out: &mut Outbox) -> bool {
    let Some(stop) = core.node.governor.stop() else {
        return false;
    };
    core.blocked.held = Governor::hold(&core.node, Face::Amqp, &core.info);
    if core.blocked.is_held() && core.blocked.understood {
        core.blocked.told = true;
        let reason = reason(stop).into();
        protocol_amqp::method(out.bytes(), 0, &Method::ConnectionBlocked { reason });
    }
    core.blocked.is_held()
}

/// Lets the connection go on, if nothing is short any more.
pub(super) fn look(core: &mut Core, out: &mut Outbox) {
    let blocked = &mut core.blocked;
    if blocked.held.as_ref().is_some_and(Held::is_over) {
        blocked.held = None;
        if std::mem::take(&mut blocked.told) {
            protocol_amqp::method(out.bytes(), 0, &Method::ConnectionUnblocked {});
        }
    }
}
